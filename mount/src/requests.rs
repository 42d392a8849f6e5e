//! Counts the requests from the kernel. A warm mount should get none, and only counting proves that.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of requests that are counted separately.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(usize)]
pub enum Operation {
    /// A name was looked up.
    Lookup,
    /// Attributes were asked for.
    Getattr,
    /// A symbolic link was read.
    Readlink,
    /// A file was opened. Counted at most once, if the kernel can do without the request.
    Open,
    /// Bytes of a file were read.
    Read,
    /// A directory was opened. Counted at most once, if the kernel can do without the request.
    Opendir,
    /// A directory was listed: names only.
    Readdir,
    /// A directory was listed, with attributes.
    Readdirplus,
    /// The size of the file system was asked for.
    Statfs,
    /// An extended attribute, or the list of them, was requested.
    Xattr,
    /// A permission was checked.
    Access,
    /// A program tried to change names or attributes, or to write to a read-only file.
    Change,
    /// Bytes were written below `restore/`.
    Write,
    /// A file below `restore/` was closed or synced.
    Close,
    /// Anything else.
    Other,
}

impl Operation {
    /// All kinds.
    pub const ALL: [Operation; 15] = [
        Operation::Lookup,
        Operation::Getattr,
        Operation::Readlink,
        Operation::Open,
        Operation::Read,
        Operation::Opendir,
        Operation::Readdir,
        Operation::Readdirplus,
        Operation::Statfs,
        Operation::Xattr,
        Operation::Access,
        Operation::Change,
        Operation::Write,
        Operation::Close,
        Operation::Other,
    ];

    /// Returns the name for logs.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Lookup => "lookup",
            Operation::Getattr => "getattr",
            Operation::Readlink => "readlink",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Opendir => "opendir",
            Operation::Readdir => "readdir",
            Operation::Readdirplus => "readdirplus",
            Operation::Statfs => "statfs",
            Operation::Xattr => "xattr",
            Operation::Access => "access",
            Operation::Change => "change",
            Operation::Write => "write",
            Operation::Close => "close",
            Operation::Other => "other",
        }
    }
}

/// Number of requests of each kind that a mount has received. Forgets are not counted.
#[derive(Debug, Default)]
pub struct Requests([AtomicU64; Operation::ALL.len()]);

impl Requests {
    pub(crate) fn count(&self, operation: Operation) {
        self.0[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests of this kind.
    pub fn of(&self, operation: Operation) -> u64 {
        self.0[operation as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of all requests.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Prints the kinds that occurred: `lookup 505, read 100000`.
impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for operation in Operation::ALL {
            let count = self.of(operation);
            if count > 0 {
                write!(f, "{separator}{} {count}", operation.name())?;
                separator = ", ";
            }
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}
