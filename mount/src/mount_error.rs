//! Why mounting or unmounting failed, and what the user can do about it.

use crate::error::FsError;
use std::io;
use std::path::PathBuf;

/// Why mounting or unmounting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount point does not exist.
    #[error("the folder {path} does not exist", path = path.display())]
    NotFound {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point is not a folder.
    #[error("{path} is not a folder", path = path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// A living mount of this program is there.
    #[error("a backup is already mounted at {path}", path = path.display())]
    AlreadyMounted {
        /// The mount point.
        path: PathBuf,
    },
    /// The folder is not empty, and the mount would hide its content.
    #[error("{path} is not empty", path = path.display())]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
    },
    /// A dead mount of another program is there.
    #[error("{path} is a mount of another program that has ended", path = path.display())]
    DeadMount {
        /// The mount point.
        path: PathBuf,
    },
    /// The machine or container has no FUSE.
    #[error("there is no /dev/fuse")]
    NoFuse,
    /// FUSE is available, but this user may not mount there.
    #[error("mounting at {path} is not permitted", path = path.display())]
    NotPermitted {
        /// The mount point.
        path: PathBuf,
        /// The error from the operating system.
        #[source]
        source: io::Error,
    },
    /// The snapshots could not be listed.
    #[error("could not list the snapshots")]
    Catalog {
        /// The reason.
        #[source]
        source: FsError,
    },
    /// Mounting failed for another reason.
    #[error("could not mount at {path}", path = path.display())]
    Failed {
        /// The mount point.
        path: PathBuf,
        /// The error from the operating system.
        #[source]
        source: io::Error,
    },
    /// Unmounting failed.
    #[error("could not unmount {path}", path = path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// The error from the operating system.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// Returns a sentence that says what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            MountError::NotFound { path } => Some(format!("Create it with `mkdir -p {}`.", path.display())),
            MountError::NotEmpty { .. } => {
                Some("Name an empty folder: the mount would hide what is in this one.".to_owned())
            }
            MountError::NotADirectory { .. } => Some("Name an empty folder.".to_owned()),
            MountError::AlreadyMounted { path } | MountError::DeadMount { path } => {
                Some(format!("Unmount it with `fusermount3 -u {}`, or name another folder.", path.display()))
            }
            MountError::NoFuse => {
                Some("Load it with `modprobe fuse`; a container needs `--device /dev/fuse`.".to_owned())
            }
            MountError::NotPermitted { .. } => {
                Some("Install `fuse3`; `allow_other` needs `user_allow_other` in /etc/fuse.conf.".to_owned())
            }
            _ => None,
        }
    }
}
