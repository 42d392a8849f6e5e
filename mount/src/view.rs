//! What a mount shows: the traits [`View`] (one immutable tree) and [`Catalog`] (the list of trees, which changes).
//!
//! These two traits are the whole of what this crate knows about backups. Their text is the contract; the
//! implementation behind them may be a repository or, in the tests, a tree in memory. Two invariants carry everything
//! above them:
//!
//! - A view never changes. The kernel is told to keep what it has read for ever, so an implementation that answered
//!   the same question differently a second time would show stale data, not an error.
//! - An entry is known by its [`Rank`]. Ranks are positions in the snapshot, not handles: they are never opened or
//!   closed, they are the same in every process, and inode numbers are made from them.

use std::sync::Arc;

/// Largest `size` with which [`View::read`] is called.
pub const READ_SIZE_BYTES_MAX: usize = 1 << 20;

/// Position of an entry in its snapshot, in preorder: the root is 0, an entry comes before what lies in it, and
/// siblings come in name order (bytes compared as unsigned).
///
/// Ranks fit into 40 bits, which is room for a million million entries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rank(pub u64);

impl Rank {
    /// The root directory of a snapshot.
    pub const ROOT: Rank = Rank(0);
    /// The largest rank that an inode number has room for.
    pub const MAX: Rank = Rank((1 << 40) - 2);
}

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A point in time: seconds since 1970-01-01 00:00:00 UTC (negative before it), and nanoseconds that count forward from
/// there.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: u32,
}

/// The attributes of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attr {
    /// Where the entry stands in its snapshot.
    pub rank: Rank,
    /// What it is.
    pub kind: Kind,
    /// For a file exactly the bytes that [`View::read`] delivers; for a symbolic link the length of its target; for a
    /// directory any number that stays the same.
    pub size: u64,
    /// When the content was last changed. The mount shows it as the time of access and of change, too.
    pub mtime: Time,
    /// Permission bits including set-user-id, set-group-id and sticky: `mode & 0o7777`.
    pub mode: u16,
    /// Owner as stored.
    pub uid: u32,
    /// Group as stored.
    pub gid: u32,
    /// For a directory 2 plus its number of subdirectories, as `find` expects it, or 1 if that is not known; else the
    /// number of names, at least 1.
    pub links: u32,
}

/// How much a snapshot holds, for `statfs`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Entries of every kind, the root included.
    pub entries: u64,
    /// The sum of the sizes of all files.
    pub bytes: u64,
}

/// One immutable snapshot, as a tree of entries. Methods are called from several threads at once.
///
/// A method that panics costs its caller an input/output error and nothing else, but is a bug.
pub trait View: Send + Sync + 'static {
    /// Returns the attributes of the entry at `rank`.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if there is no such rank.
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError>;

    /// Returns the attributes of the entry called `name` (any bytes but `/` and NUL, at most 255; compared exactly) in
    /// the directory `dir`, or `None` if it has no such entry. `.` and `..` are never asked for.
    ///
    /// # Errors
    /// [`ViewError::NotADirectory`] if `dir` is none.
    fn lookup(&self, dir: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError>;

    /// Returns the directory that holds the entry at `rank`; the root's parent is the root.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if there is no such rank.
    fn parent(&self, rank: Rank) -> Result<Rank, ViewError>;

    /// Calls `emit` with the entries of `dir` in an order that never changes, beginning at the position `start` (0, or
    /// one that `emit` was given before), until there are no more or `emit` returns false. With an entry goes the
    /// position behind it; positions grow, and may leave out numbers. `.` and `..` are not among the entries. A `start`
    /// at or past the end emits nothing.
    ///
    /// A large directory is listed by many calls, so starting in the middle must not cost a walk from the front.
    ///
    /// # Errors
    /// [`ViewError::NotADirectory`] if `dir` is none.
    fn list(&self, dir: Rank, start: u64, emit: &mut dyn FnMut(&[u8], Attr, u64) -> bool) -> Result<(), ViewError>;

    /// Returns the `size` bytes at `offset` of `file`; fewer only where the file ends, and none at or past its end.
    /// `size` is at most [`READ_SIZE_BYTES_MAX`]. Bytes that could not be verified are an error, never delivered.
    ///
    /// # Errors
    /// [`ViewError::IsADirectory`] or [`ViewError::Invalid`] if the entry is no file.
    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError>;

    /// Returns the target of the symbolic link at `link`, exactly as stored.
    ///
    /// # Errors
    /// [`ViewError::Invalid`] if the entry is no symbolic link.
    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError>;

    /// Returns the facts about the entry as extended attributes, names beginning with `user.`, in any order. Called
    /// only if the mount was asked to show them.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if there is no such rank.
    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError>;

    /// Returns how much the snapshot holds, in constant time.
    fn totals(&self) -> Totals;
}

/// A snapshot as the catalog lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotInfo {
    /// Identifies the snapshot for ever; the inode numbers below it are derived from it.
    pub id: [u8; 32],
    /// The name of its folder, such as `2026-11-21 22.00.00 everyone`. Names should be unique and legal as file names;
    /// the mount changes those that are not.
    pub name: String,
    /// When it was taken. The newest is what `latest` leads to.
    pub time: Time,
    /// Whether that is in the future, so that a clock must have been wrong. Then `latest` passes over it, unless all
    /// are.
    pub ahead: bool,
}

/// The trees that a snapshot can be shown as, each in a folder of its own at the root of the mount. They have the same
/// ranks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// The items themselves, in `snapshots`.
    Items,
    /// What people read in them, in `text`.
    Text,
}

impl Side {
    /// All sides, the one first that `latest` leads to if there is a choice.
    pub const ALL: [Side; 2] = [Side::Items, Side::Text];

    /// Returns the name of the folder at the mount's root.
    pub fn folder(self) -> &'static str {
        match self {
            Side::Items => "snapshots",
            Side::Text => "text",
        }
    }
}

/// The snapshots a mount shows. It may grow and shrink while mounted; the mount asks again about once a second.
///
/// Methods are called from several threads at once.
pub trait Catalog: Send + Sync + 'static {
    /// Returns the snapshots there are now, in any order. An error leaves the mount showing what it showed.
    ///
    /// # Errors
    /// [`ViewError::Backend`] if the list could not be read.
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ViewError>;

    /// Returns whether there is this side of the snapshots: the same answer for ever.
    fn shows(&self, side: Side) -> bool {
        side == Side::Items
    }

    /// Returns what `README.txt` at the root of the mount says; asked again when the snapshots are others.
    fn readme(&self) -> String;

    /// Returns a side of the snapshot `id` as a tree; called when something below its folder is first used, cheap and
    /// in constant time. The mount keeps the view as long as the catalog lists it, and after that for files that are
    /// still in use.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if it is no longer there, or the side is not shown.
    fn open(&self, id: &[u8; 32], side: Side) -> Result<Arc<dyn View>, ViewError>;
}

/// Why a view could not answer. The errno for each stands in `error.rs`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There is no such entry or snapshot.
    #[error("no such entry")]
    NotFound,
    /// A directory was needed.
    #[error("the entry is not a directory")]
    NotADirectory,
    /// A directory cannot be used so.
    #[error("the entry is a directory")]
    IsADirectory,
    /// The entry is of another kind than the call needs, such as the target of a file.
    #[error("the entry is of the wrong kind for this")]
    Invalid,
    /// Stored data failed verification. Trying again will not help.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// Which object, without any content of it.
        what: String,
    },
    /// The storage below could not be reached or read.
    #[error("storage failed")]
    Backend {
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
