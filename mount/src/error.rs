//! What can go wrong in a file operation, and the only map from it to errno.
//!
//! docs/semantics.md shows the same map as a table; a test below holds the two together.

use crate::view::ViewError;
use rustix::io::Errno;

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// The view or the catalog said so.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The view or the catalog panicked. The mount lives on.
    #[error("a view panicked")]
    Panicked,
    /// The operation would change something.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The inode number belongs to no snapshot that is still there.
    #[error("the snapshot is no longer there")]
    Stale,
    /// No extended attribute has this name.
    #[error("no such extended attribute")]
    NoAttribute,
    /// The caller's buffer is too small for the answer.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// A name is longer than any entry's can be.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// The mount does not offer the operation; the kernel stops asking, or does without.
    #[error("not offered")]
    NotOffered,
    /// There are no device commands here.
    #[error("no such device command")]
    NoCommand,
    /// A rank does not fit into an inode number.
    #[error("the snapshot has more entries than inode numbers")]
    TooManyEntries,
}

/// Returns the errno with which the kernel is answered.
pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::View(error) => match error {
            ViewError::NotFound => Errno::NOENT,
            ViewError::NotADirectory => Errno::NOTDIR,
            ViewError::IsADirectory => Errno::ISDIR,
            ViewError::Invalid => Errno::INVAL,
            ViewError::Damaged { .. } | ViewError::Backend { .. } => Errno::IO,
        },
        FsError::Panicked => Errno::IO,
        FsError::ReadOnly => Errno::ROFS,
        FsError::Stale => Errno::STALE,
        FsError::NoAttribute => Errno::NODATA,
        FsError::BufferTooSmall => Errno::RANGE,
        FsError::NameTooLong => Errno::NAMETOOLONG,
        FsError::NotOffered => Errno::NOSYS,
        FsError::NoCommand => Errno::NOTTY,
        FsError::TooManyEntries => Errno::OVERFLOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Every error with the name it has in docs/semantics.md.
    fn every() -> Vec<(&'static str, FsError)> {
        let source = || std::io::Error::other("disk on fire").into();
        vec![
            ("NotFound", ViewError::NotFound.into()),
            ("NotADirectory", ViewError::NotADirectory.into()),
            ("IsADirectory", ViewError::IsADirectory.into()),
            ("Invalid", ViewError::Invalid.into()),
            ("Damaged", ViewError::Damaged { what: "block 7".into() }.into()),
            ("Backend", ViewError::Backend { source: source() }.into()),
            ("Panicked", FsError::Panicked),
            ("ReadOnly", FsError::ReadOnly),
            ("Stale", FsError::Stale),
            ("NoAttribute", FsError::NoAttribute),
            ("BufferTooSmall", FsError::BufferTooSmall),
            ("NameTooLong", FsError::NameTooLong),
            ("NotOffered", FsError::NotOffered),
            ("NoCommand", FsError::NoCommand),
            ("TooManyEntries", FsError::TooManyEntries),
        ]
    }

    fn errno_name(errno: Errno) -> &'static str {
        match errno {
            Errno::NOENT => "ENOENT",
            Errno::NOTDIR => "ENOTDIR",
            Errno::ISDIR => "EISDIR",
            Errno::INVAL => "EINVAL",
            Errno::IO => "EIO",
            Errno::ROFS => "EROFS",
            Errno::STALE => "ESTALE",
            Errno::NODATA => "ENODATA",
            Errno::RANGE => "ERANGE",
            Errno::NAMETOOLONG => "ENAMETOOLONG",
            Errno::NOSYS => "ENOSYS",
            Errno::NOTTY => "ENOTTY",
            Errno::OVERFLOW => "EOVERFLOW",
            other => panic!("{other} has no name here"),
        }
    }

    /// The rows `| error | errno | when |` of the table under "Errors".
    fn documented() -> BTreeMap<String, String> {
        let page = include_str!("../../docs/semantics.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Errors\n")).expect("a section Errors");
        section
            .lines()
            .filter_map(|line| {
                let mut cells =
                    line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
                Some((cells.next()?, cells.next()?))
            })
            .collect()
    }

    #[test]
    fn table_in_semantics_agrees() {
        let ours: BTreeMap<_, _> =
            every().into_iter().map(|(name, error)| (name.to_owned(), errno_name(errno(&error)).to_owned())).collect();
        assert_eq!(documented(), ours);
    }
}
