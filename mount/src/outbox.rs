//! What a mount hands dropped files to: the trait [`Outbox`], the tree below `restore/`.
//!
//! The mount decides when a file counts as complete (docs/semantics.md, "Restoring"): temporary names and files that are still
//! being written never reach the outbox as items. The outbox decides where things go and what becomes of them, and keeps the
//! bytes: durable, encrypted.
//!
//! Paths are relative to `restore/`, names joined by `/`; the empty path is `restore/` itself. Methods are called from several
//! threads at once and may take as long as the network does: the mount calls them from threads of their own.

use crate::view::Time;

/// A folder or file that the outbox shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    /// Its name in its folder: any bytes but `/` and NUL, at most 255.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// When it was last changed.
    pub mtime: Time,
}

/// What an item of the outbox is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemKind {
    /// A folder. `accepts` tells whether files may be dropped into it; folders can be made where they may.
    Folder {
        /// Whether files may be dropped here.
        accepts: bool,
    },
    /// Text that the outbox wrote, such as a report; nobody can change it.
    Text {
        /// Its length in bytes.
        len: u64,
    },
    /// A file that was dropped.
    Dropped {
        /// Its length in bytes.
        len: u64,
        /// What has become of it.
        state: State,
    },
}

/// What has become of a dropped file. `user.strongroom.state` shows it in these words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It waits for `restore commit`.
    Waiting,
    /// Its turn will come.
    Queued,
    /// It is being restored.
    Uploading,
    /// It was restored, read back and compared; or stood there already.
    Done,
    /// It could not be restored.
    Failed {
        /// Why, for people.
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

/// The tree below `restore/`, and what becomes of what is dropped there.
pub trait Outbox: Send + Sync + 'static {
    /// Returns what is at `path`.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`] if there is nothing.
    fn item(&self, path: &[u8]) -> Result<Item, OutboxError>;

    /// Returns what is in the folder at `path`, in any order: folders of the target, and what was dropped there.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`], [`OutboxError::Denied`], [`OutboxError::Unreachable`].
    fn list(&self, path: &[u8]) -> Result<Vec<Item>, OutboxError>;

    /// Returns up to `size` bytes at `offset` of a text, or of a dropped file that is still kept.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`] also when a dropped file was restored and its bytes are kept no longer.
    fn read(&self, path: &[u8], offset: u64, size: usize) -> Result<Vec<u8>, OutboxError>;

    /// Makes a folder, or finds it there: a copy of a tree merges with what stands there.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] where no folder can be made.
    fn make_folder(&self, path: &[u8]) -> Result<(), OutboxError>;

    /// Begins a file. The mount calls this also for files with temporary names, which it never seals, and where a file of the name it
    /// will have was dropped before: [`Draft::seal`] decides about names.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] where nothing may be dropped, [`OutboxError::Full`].
    fn begin(&self, folder: &[u8]) -> Result<Box<dyn Draft>, OutboxError>;

    /// Withdraws a dropped file that has not gone to the target. It may be one whose draft was sealed and not released yet; the mount
    /// drops that draft then.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] once it is on its way or there.
    fn withdraw(&self, path: &[u8]) -> Result<(), OutboxError>;

    /// Takes note of the time that somebody gave a dropped file after it was sealed: it is shown from now on. Nothing of what is
    /// restored depends on it, and a crash may take it.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`] if there is no dropped file.
    fn set_mtime(&self, path: &[u8], mtime: Time) -> Result<(), OutboxError>;

    /// Lets what waits be restored.
    ///
    /// # Errors
    /// [`OutboxError::Storage`]; it waits on then.
    fn commit(&self) -> Result<(), OutboxError>;

    /// Returns paths whose items are others than before, once: the kernel is told. Called about once a second.
    fn news(&self) -> Vec<Vec<u8>>;
}

/// A file that is being written. Dropping one that was not released discards it, unless it was sealed.
pub trait Draft: Send {
    /// Returns the length in bytes.
    fn len(&self) -> u64;

    /// Returns whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `bytes` at `offset`; a gap before them reads as zeros.
    ///
    /// # Errors
    /// [`OutboxError::Full`], [`OutboxError::TooLarge`], [`OutboxError::Storage`].
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), OutboxError>;

    /// Cuts or extends it.
    ///
    /// # Errors
    /// As [`Draft::write`].
    fn set_len(&mut self, len: u64) -> Result<(), OutboxError>;

    /// Returns up to `size` bytes at `offset`.
    ///
    /// # Errors
    /// [`OutboxError::Storage`].
    fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, OutboxError>;

    /// Checks what was written as the file at `path`, and makes it durable: from now on it survives a crash, and is restored even
    /// if nobody releases it. What is written afterwards makes it a draft again, to be sealed anew. `path` may be in another folder than
    /// the one it was begun in. If the same content was dropped at `path` before, that is success, and nothing is restored twice; the
    /// former draft may not have been released yet.
    ///
    /// # Errors
    /// What is wrong with it: [`OutboxError::NotMail`], [`OutboxError::TooLarge`], [`OutboxError::Unknown`],
    /// [`OutboxError::NotPermitted`] if a different file was dropped there before.
    fn seal(&mut self, path: &[u8], mtime: Option<Time>) -> Result<(), OutboxError>;

    /// Hands over a sealed file: nobody has it open any more, and its turn may come.
    fn release(self: Box<Self>);
}

/// Why the outbox refused. The errno for each stands in `error.rs`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// There is no such folder or file.
    #[error("no such entry")]
    NotFound,
    /// A folder was needed.
    #[error("the entry is not a folder")]
    NotAFolder,
    /// Nothing can be changed so here: what stands in an account is neither deleted nor overwritten.
    #[error("not permitted here")]
    NotPermitted,
    /// The account or the organisation does not let us.
    #[error("no permission: {reason}")]
    Denied {
        /// What it said.
        reason: String,
    },
    /// The file is no mail.
    #[error("the file is no mail")]
    NotMail,
    /// In `original/`: nothing in the snapshots has this content, or it could be several.
    #[error("it is not known where the file came from: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
    /// Larger than the service takes.
    #[error("the file is larger than the service takes")]
    TooLarge,
    /// No room is left for dropped files.
    #[error("no room is left for what is dropped")]
    Full,
    /// The target does not answer.
    #[error("the target does not answer: {reason}")]
    Unreachable {
        /// What went wrong.
        reason: String,
    },
    /// The local disk failed.
    #[error("could not keep what was dropped")]
    Storage(#[from] std::io::Error),
}
