//! The errors of file operations, and the only mapping from them to errno.
//!
//! docs/semantics.md shows the same mapping as a table; a test below compares the two.

use crate::outbox::OutboxError;
use crate::view::ViewError;
use rustix::io::Errno;

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// The view or the catalog reported an error.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The view or the catalog panicked. The mount keeps running.
    #[error("a view panicked")]
    Panicked,
    /// The operation would change something.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The inode number belongs to a snapshot that no longer exists.
    #[error("the snapshot no longer exists")]
    Stale,
    /// No extended attribute has this name.
    #[error("no such extended attribute")]
    NoAttribute,
    /// The caller's buffer is too small for the answer.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// The name is longer than any entry's name can be.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// The mount does not have this operation. The kernel stops asking for it, or does without.
    #[error("the mount does not support this operation")]
    NotOffered,
    /// The mount has no device commands.
    #[error("no such device command")]
    NoCommand,
    /// A rank does not fit into an inode number.
    #[error("the snapshot has more entries than inode numbers")]
    TooManyEntries,
    /// The outbox reported an error.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Not supported for this file, but the kernel must keep asking for other files.
    #[error("not supported for this file")]
    Unsupported,
    /// A rename between `restore/` and the rest of the mount.
    #[error("the two paths are in different trees")]
    OtherFileSystem,
    /// A rename that exchanges two files.
    #[error("two files cannot be exchanged")]
    Exchange,
    /// The name already exists.
    #[error("the name already exists")]
    Exists,
    /// Too many requests are waiting for the outbox.
    #[error("too many requests are waiting, try again")]
    Busy,
}

/// Returns the errno that the kernel gets for the error.
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
        FsError::Outbox(error) => match error {
            OutboxError::NotFound => Errno::NOENT,
            OutboxError::NotAFolder => Errno::NOTDIR,
            OutboxError::NotPermitted => Errno::PERM,
            OutboxError::Denied { .. } => Errno::ACCESS,
            OutboxError::WrongKind => Errno::INVAL,
            OutboxError::Unknown { .. } => Errno::NXIO,
            OutboxError::TooLarge => Errno::FBIG,
            OutboxError::Full => Errno::NOSPC,
            OutboxError::Unreachable { .. } => Errno::HOSTUNREACH,
            OutboxError::Storage(_) => Errno::IO,
        },
        FsError::Unsupported => Errno::OPNOTSUPP,
        FsError::OtherFileSystem => Errno::XDEV,
        FsError::Exchange => Errno::INVAL,
        FsError::Exists => Errno::EXIST,
        FsError::Busy => Errno::AGAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Returns one of every error, with its name in docs/semantics.md.
    fn every() -> Vec<(&'static str, FsError)> {
        let source = || std::io::Error::other("disk on fire").into();
        let why = || "it is Sunday".to_owned();
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
            ("Unsupported", FsError::Unsupported),
            ("OtherFileSystem", FsError::OtherFileSystem),
            ("Exchange", FsError::Exchange),
            ("Exists", FsError::Exists),
            ("Busy", FsError::Busy),
            ("OutboxError::NotFound", OutboxError::NotFound.into()),
            ("OutboxError::NotAFolder", OutboxError::NotAFolder.into()),
            ("OutboxError::NotPermitted", OutboxError::NotPermitted.into()),
            ("OutboxError::Denied", OutboxError::Denied { reason: why() }.into()),
            ("OutboxError::WrongKind", OutboxError::WrongKind.into()),
            ("OutboxError::Unknown", OutboxError::Unknown { reason: why() }.into()),
            ("OutboxError::TooLarge", OutboxError::TooLarge.into()),
            ("OutboxError::Full", OutboxError::Full.into()),
            ("OutboxError::Unreachable", OutboxError::Unreachable { reason: why() }.into()),
            ("OutboxError::Storage", OutboxError::Storage(std::io::Error::other("disk on fire")).into()),
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
            Errno::PERM => "EPERM",
            Errno::ACCESS => "EACCES",
            Errno::NXIO => "ENXIO",
            Errno::FBIG => "EFBIG",
            Errno::NOSPC => "ENOSPC",
            Errno::HOSTUNREACH => "EHOSTUNREACH",
            Errno::OPNOTSUPP => "EOPNOTSUPP",
            Errno::XDEV => "EXDEV",
            Errno::EXIST => "EEXIST",
            Errno::AGAIN => "EAGAIN",
            other => panic!("{other} has no name here"),
        }
    }

    /// Returns the rows `| error | errno | when |` of the table under "Errors".
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
