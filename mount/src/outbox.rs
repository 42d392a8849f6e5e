//! The trait [`Outbox`]: what a mount hands dropped files to. It provides the tree below `restore/`.
//!
//! The mount decides when a file is complete (docs/semantics.md, "Restoring"). Files with temporary names and files
//! that are still being written never reach the outbox as items. The outbox stores the bytes, encrypted and durable,
//! decides where files go, and restores them.
//!
//! Paths are relative to `restore/`, and names are joined by `/`; the empty path is `restore/` itself. Several threads
//! call the methods at once. Methods may take as long as the network takes, because the mount calls them on separate
//! threads.

use crate::view::Time;

/// A folder or file that the outbox shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    /// Its name in its folder: at most 255 bytes, any except `/` and NUL.
    pub name: Vec<u8>,
    /// Its kind, with its length and state.
    pub kind: ItemKind,
    /// Modification time.
    pub mtime: Time,
}

/// Kind of an item of the outbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemKind {
    /// A folder. New folders can be created wherever files may be dropped.
    Folder {
        /// Whether files may be dropped into this folder.
        accepts: bool,
    },
    /// A text that the outbox wrote, such as a report. Nobody can change it.
    Text {
        /// Length in bytes.
        len: u64,
    },
    /// A file that was dropped.
    Dropped {
        /// Length in bytes.
        len: u64,
        /// How far its restore is.
        state: State,
    },
}

/// State of a dropped file. `user.strongroom.state` shows it as one of these words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It waits for `restore commit`.
    Waiting,
    /// It is in the queue and will be restored.
    Queued,
    /// It is being restored.
    Uploading,
    /// It was restored, read back and compared; or the target already had it.
    Done,
    /// It could not be restored.
    Failed {
        /// The reason, for people.
        reason: String,
    },
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Waiting => f.write_str("waiting for commit"),
            State::Queued => f.write_str("queued"),
            State::Uploading => f.write_str("uploading"),
            State::Done => f.write_str("done"),
            State::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

/// Provides the tree below `restore/`, and restores the files that are dropped there.
pub trait Outbox: Send + Sync + 'static {
    /// Returns the item at `path`.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`] if there is none.
    fn item(&self, path: &[u8]) -> Result<Item, OutboxError>;

    /// Returns the items in the folder at `path`, in any order: folders of the target, and dropped files.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`], [`OutboxError::Denied`], [`OutboxError::Unreachable`].
    fn list(&self, path: &[u8]) -> Result<Vec<Item>, OutboxError>;

    /// Returns up to `size` bytes at `offset` of a text, or of a dropped file whose bytes are still stored.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`], also if a dropped file was restored and its bytes are no longer stored.
    fn read(&self, path: &[u8], offset: u64, size: usize) -> Result<Vec<u8>, OutboxError>;

    /// Creates a folder. Succeeds if it already exists, so that a copied tree merges with the existing one.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] if no folder can be created there.
    fn make_folder(&self, path: &[u8]) -> Result<(), OutboxError>;

    /// Begins a new file in `folder`. The mount calls this even for files with temporary names, which it never seals,
    /// and for files whose name was dropped before. [`Draft::seal`] checks the name.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] if nothing may be dropped there, [`OutboxError::Full`].
    fn begin(&self, folder: &[u8]) -> Result<Box<dyn Draft>, OutboxError>;

    /// Withdraws a dropped file that has not been sent to the target. Its draft may be sealed but not yet released; the
    /// mount then drops that draft.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] if the file is being sent or was sent.
    fn withdraw(&self, path: &[u8]) -> Result<(), OutboxError>;

    /// Sets the modification time to show for a dropped file. Called if a program sets the time after the file was
    /// sealed. The restore does not depend on it, and a crash may lose it.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`] if there is no such dropped file.
    fn set_mtime(&self, path: &[u8], mtime: Time) -> Result<(), OutboxError>;

    /// Starts the restore of all waiting files.
    ///
    /// # Errors
    /// [`OutboxError::Storage`]; the files then keep waiting.
    fn commit(&self) -> Result<(), OutboxError>;

    /// Returns the paths of items that changed since the last call. The mount calls this about once a second and tells
    /// the kernel.
    fn take_changes(&self) -> Vec<Vec<u8>>;
}

/// A file that is being written. Dropping a draft discards it, unless it was sealed.
pub trait Draft: Send {
    /// Returns the length in bytes.
    fn len(&self) -> u64;

    /// Returns whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `bytes` at `offset`. A gap before them is filled with zeros.
    ///
    /// # Errors
    /// [`OutboxError::Full`], [`OutboxError::TooLarge`], [`OutboxError::Storage`].
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), OutboxError>;

    /// Truncates or extends the file to `len` bytes.
    ///
    /// # Errors
    /// Those of [`Draft::write`].
    fn set_len(&mut self, len: u64) -> Result<(), OutboxError>;

    /// Returns up to `size` bytes at `offset`.
    ///
    /// # Errors
    /// [`OutboxError::Storage`].
    fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, OutboxError>;

    /// Checks the written bytes as the file at `path`, and makes them durable. From then on the file survives a crash,
    /// and is restored even if nobody releases it. A write after sealing makes it a draft again, which must be sealed
    /// again. `path` may be in another folder than the one in which the draft was begun. If the same content was
    /// dropped at `path` before, this succeeds, and the file is restored only once; the earlier draft may not be
    /// released yet.
    ///
    /// # Errors
    /// What is wrong with the file: [`OutboxError::WrongKind`], [`OutboxError::TooLarge`], [`OutboxError::Unknown`], or
    /// [`OutboxError::NotPermitted`] if a different file was dropped there before.
    fn seal(&mut self, path: &[u8], mtime: Option<Time>) -> Result<(), OutboxError>;

    /// Hands over a sealed file. No program has it open any more, so it may be restored.
    fn release(self: Box<Self>);
}

/// Why the outbox refused. `error.rs` maps each variant to an errno.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// There is no such folder or file.
    #[error("no such entry")]
    NotFound,
    /// The operation needs a folder.
    #[error("the entry is not a folder")]
    NotAFolder,
    /// This change is not permitted: items in an account are neither deleted nor overwritten.
    #[error("not permitted here")]
    NotPermitted,
    /// The account or the organisation refuses access.
    #[error("no permission: {reason}")]
    Denied {
        /// The reason that it gave.
        reason: String,
    },
    /// The file is not of the kind that the folder takes.
    #[error("the file is not of the kind that this folder takes")]
    WrongKind,
    /// In `original/`: no item in the snapshots has this content, or several have it.
    #[error("the origin of the file is unknown: {reason}")]
    Unknown {
        /// The reason.
        reason: String,
    },
    /// The file is larger than the service accepts.
    #[error("the file is larger than the service accepts")]
    TooLarge,
    /// There is no space left for dropped files.
    #[error("no space is left for dropped files")]
    Full,
    /// The target does not answer.
    #[error("the target does not answer: {reason}")]
    Unreachable {
        /// What went wrong.
        reason: String,
    },
    /// The local disk failed.
    #[error("could not store the dropped file")]
    Storage(#[from] std::io::Error),
}
