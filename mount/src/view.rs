//! What a mount shows: the traits [`View`] (one immutable tree) and [`Catalog`] (the list of trees, which changes).
//!
//! These two traits are all that this crate knows of backups. Their text is the contract. The implementation may be a
//! repository or, in tests, a tree in memory. Everything else relies on two invariants:
//!
//! - A view never changes. The kernel is told to keep everything that it has read forever. If a view gave a different
//!   answer the second time, programs would see stale data instead of an error.
//! - A [`Rank`] identifies an entry. Ranks are positions in the snapshot, not handles: they are never opened or closed,
//!   they are the same in every process, and inode numbers are computed from them.

use std::sync::Arc;

/// Maximum `size`, in bytes, with which [`View::read`] is called.
pub const READ_SIZE_BYTES_MAX: usize = 1 << 20;

/// Position of an entry in its snapshot, in preorder: the root has rank 0, a directory comes before its content, and
/// siblings are in name order (bytes compared as unsigned).
///
/// A rank has 40 bits, enough for a million million entries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rank(pub u64);

impl Rank {
    /// The root directory of a snapshot.
    pub const ROOT: Rank = Rank(0);
    /// The largest rank that fits into an inode number.
    pub const MAX: Rank = Rank((1 << 40) - 2);
}

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A point in time: seconds since 1970-01-01 00:00:00 UTC (negative before that), and nanoseconds to add to them.
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
    /// Rank of the entry in its snapshot.
    pub rank: Rank,
    /// Kind of the entry.
    pub kind: Kind,
    /// For a file, exactly the number of bytes that [`View::read`] delivers; for a symbolic link, the length of its
    /// target; for a directory, any number that stays the same.
    pub size: u64,
    /// When the content was last changed. The mount also shows it as the access time and the change time.
    pub mtime: Time,
    /// Permission bits including set-user-id, set-group-id and sticky: `mode & 0o7777`.
    pub mode: u16,
    /// User id of the stored owner.
    pub uid: u32,
    /// Stored group id.
    pub gid: u32,
    /// For a directory, 2 plus the number of its subdirectories, as `find` expects, or 1 if that number is not known.
    /// For other entries, the number of names, at least 1.
    pub links: u32,
}

/// Size of a snapshot, for `statfs`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Number of entries of every kind, including the root.
    pub entries: u64,
    /// Total size of all files in bytes.
    pub bytes: u64,
}

/// One immutable snapshot, as a tree of entries. Several threads call the methods at once.
///
/// A panic in a method is a bug, but costs only its caller an input/output error.
pub trait View: Send + Sync + 'static {
    /// Returns the attributes of the entry at `rank`.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if there is no such rank.
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError>;

    /// Returns the attributes of the entry called `name` in the directory `dir`, or `None` if there is no such entry.
    /// `name` has at most 255 bytes, any except `/` and NUL; it is compared exactly, and is never `.` or `..`.
    ///
    /// # Errors
    /// [`ViewError::NotADirectory`] if `dir` is not a directory.
    fn lookup(&self, dir: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError>;

    /// Returns the directory that contains the entry at `rank`. The root's parent is the root.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if there is no such rank.
    fn parent(&self, rank: Rank) -> Result<Rank, ViewError>;

    /// Calls `emit` with the entries of `dir`, in an order that never changes, until there are no more or `emit`
    /// returns false. Begins at the position `start`, which is 0 or a position that `emit` received before. With each
    /// entry, `emit` receives the position of the next one; positions increase, but may skip numbers. `.` and `..` are
    /// not listed. A `start` at or past the end emits nothing.
    ///
    /// A large directory is listed in many calls, so starting in the middle must not walk from the front.
    ///
    /// # Errors
    /// [`ViewError::NotADirectory`] if `dir` is not a directory.
    fn list(&self, dir: Rank, start: u64, emit: &mut dyn FnMut(&[u8], Attr, u64) -> bool) -> Result<(), ViewError>;

    /// Returns the `size` bytes at `offset` of `file`. Returns fewer only at the end of the file, and none at or past
    /// it. `size` is at most [`READ_SIZE_BYTES_MAX`]. Bytes that could not be verified cause an error and are never
    /// returned.
    ///
    /// # Errors
    /// [`ViewError::IsADirectory`] or [`ViewError::Invalid`] if the entry is not a file.
    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError>;

    /// Returns the target of the symbolic link at `link`, exactly as stored.
    ///
    /// # Errors
    /// [`ViewError::Invalid`] if the entry is not a symbolic link.
    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError>;

    /// Returns facts about the entry as extended attributes, in any order. Their names begin with `user.`. Called only
    /// if the mount shows extended attributes.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if there is no such rank.
    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError>;

    /// Returns the size of the snapshot, in constant time.
    fn totals(&self) -> Totals;
}

/// A snapshot as the catalog lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotInfo {
    /// Identifies the snapshot forever. The inode numbers below it are derived from it.
    pub id: [u8; 32],
    /// Name of its folder, such as `2026-11-21 22.00.00 everyone`. Names should be unique and legal file names; the
    /// mount changes names that are not.
    pub name: String,
    /// When the snapshot was taken. `latest` points to the newest one.
    pub time: Time,
    /// True if that time is in the future, so that a clock must have been wrong. `latest` skips such snapshots, unless
    /// all are like that.
    pub ahead: bool,
}

/// The trees in which a snapshot can be shown, each in a folder of its own at the root of the mount. Both have the same
/// ranks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// The items themselves, in `snapshots`.
    Items,
    /// The readable text of the items, in `text`.
    Text,
}

impl Side {
    /// All sides. `latest` points to the first one that the catalog shows.
    pub const ALL: [Side; 2] = [Side::Items, Side::Text];

    /// Returns the name of the side's folder at the root of the mount.
    pub fn folder(self) -> &'static str {
        match self {
            Side::Items => "snapshots",
            Side::Text => "text",
        }
    }
}

/// The snapshots that a mount shows. The list may change while mounted; the mount asks again about once a second.
///
/// Several threads call the methods at once.
pub trait Catalog: Send + Sync + 'static {
    /// Returns the current snapshots, in any order. After an error the mount keeps showing the previous list.
    ///
    /// # Errors
    /// [`ViewError::Backend`] if the list could not be read.
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ViewError>;

    /// Returns whether this side of the snapshots is shown. The answer never changes.
    fn shows(&self, side: Side) -> bool {
        side == Side::Items
    }

    /// Returns the content of `README.txt` at the root of the mount. Called again when the list of snapshots changes.
    fn readme(&self) -> String;

    /// Returns one side of the snapshot `id` as a tree. Called when something below its folder is first used. Must be
    /// cheap and take constant time. The mount keeps the view while the catalog lists the snapshot, and after that for
    /// files that are still in use.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] if the snapshot no longer exists, or the side is not shown.
    fn open(&self, id: &[u8; 32], side: Side) -> Result<Arc<dyn View>, ViewError>;
}

/// Why a view could not answer. `error.rs` maps each variant to an errno.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There is no such entry or snapshot.
    #[error("no such entry")]
    NotFound,
    /// The operation needs a directory.
    #[error("the entry is not a directory")]
    NotADirectory,
    /// The operation does not work on a directory.
    #[error("the entry is a directory")]
    IsADirectory,
    /// The entry is of another kind than the operation needs, such as a file when reading a link target.
    #[error("the entry is of the wrong kind for this")]
    Invalid,
    /// Stored data failed verification. A retry will not help.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// Which object is damaged. Contains nothing of its content.
        what: String,
    },
    /// The storage below could not be reached or read.
    #[error("storage failed")]
    Backend {
        /// The error of the storage.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
