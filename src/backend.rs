//! Stores the objects of a repository: whole, immutable files, each under a name.
//!
//! [`Backend`] is the contract. [`local::Local`] implements it in a folder, [`mem::Mem`] in memory for tests. Wrappers
//! add behaviour: [`cached::Cached`] keeps a local copy of a distant backend's objects, [`faulty::Faulty`] breaks the
//! contract on demand, [`delayed::Delayed`] adds latency. `testing::suite` runs against every backend and every
//! wrapper.
//!
//! Invariants kept here:
//! - an object is wholly there or not at all, also after a crash, and never changes;
//! - an object that [`Backend::save`] confirmed survives a power loss, and one that [`Backend::remove`] confirmed stays
//!   gone;
//! - a name contains the object's kind and folder, so a listing needs no other information.
//!
//! Left to others: what the bytes mean; whether they are the bytes that were once stored (the reader verifies them);
//! and retrying ([`BackendError::is_transient`] says when a retry may help).

pub mod cached;
pub mod delayed;
pub mod faulty;
pub mod local;
pub mod mem;

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Stores whole, immutable objects under a name. Methods may be called from any thread.
///
/// An object is either wholly there or not there at all, also after a crash inside [`Backend::save`]. If `save` or
/// `remove` reports an error, the change may have happened all the same. It is always safe to call them again.
pub trait Backend: Send + Sync {
    /// Stores `data` under `name`, and returns once it is durable.
    ///
    /// For a content-addressed kind ([`ObjectKind::is_content_addressed`]) the same name means the same bytes. So if an
    /// object with this name holds other bytes, it is damaged, and is replaced in one step.
    ///
    /// # Errors
    /// [`BackendError::Exists`] if the name is taken and its kind is not content-addressed: nothing is overwritten. A
    /// caller that retries after another error may get this error because its first attempt succeeded; it can compare
    /// the bytes to find out.
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError>;

    /// Returns all bytes of `name`.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] if there is no such object.
    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError>;

    /// Returns exactly the bytes `range` of `name`. A range that ends before it starts counts as empty.
    ///
    /// A reader may still see an object for a while after another process removed it.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] if there is no such object, [`BackendError::Short`] if the object ends before the
    /// range does. An empty range may start at the end of the object, but not after it.
    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError>;

    /// Returns the bytes `range` of `name`, or fewer if the object ends earlier. This needs only one request where the
    /// object's length is unknown. A range that ends before it starts counts as empty.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] if there is no such object, [`BackendError::Short`] if it ends before the range
    /// starts.
    fn load_up_to(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        match self.load_range(name, range.clone()) {
            Err(BackendError::Short { got, .. }) if range.start <= got => self.load_range(name, range.start..got),
            loaded => loaded,
        }
    }

    /// Tells the backend that the bytes it returned for `range` of `name` are wrong. Drops any local copy of them.
    /// Returns whether there may have been such a copy; if so, loading the range again returns what is really stored.
    fn drop_local_copy(&self, _name: ObjectName, _range: Range<u64>) -> bool {
        false
    }

    /// Calls `each` with the name and the size in bytes of every object of `kind`, in no particular order.
    ///
    /// Skips files that are not objects, such as left-over temporary files. An object that is added or removed during
    /// the listing may be reported or not; every other object is reported once. `each` may call the backend.
    ///
    /// # Errors
    /// [`BackendError::List`]; the objects that `each` received before are correct but not complete.
    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError>;

    /// Returns the size of `name` in bytes.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] if there is no such object.
    fn size(&self, name: ObjectName) -> Result<u64, BackendError>;

    /// Removes `name`, and returns once the removal is durable. Removing a missing object succeeds.
    ///
    /// # Errors
    /// [`BackendError::Io`]; the object may then be there or gone.
    fn remove(&self, name: ObjectName) -> Result<(), BackendError>;

    /// Returns where the objects are stored, for messages. Contains no secrets.
    fn describe(&self) -> String;
}

/// References and smart pointers to a backend are backends too: `&B`, `Box<B>`, `Arc<B>`, also with `dyn Backend`.
impl<P> Backend for P
where
    P: Deref + Send + Sync,
    P::Target: Backend,
{
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        (**self).save(name, data)
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        (**self).load(name)
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        (**self).load_range(name, range)
    }

    fn load_up_to(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        (**self).load_up_to(name, range)
    }

    fn drop_local_copy(&self, name: ObjectName, range: Range<u64>) -> bool {
        (**self).drop_local_copy(name, range)
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        (**self).list(kind, each)
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        (**self).size(name)
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        (**self).remove(name)
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// The kind of an object. It decides the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `config`: the one object with a fixed name. It holds what a program must know before it can read anything else.
    Config,
    /// `keys/<id>`: a key slot, under a random id.
    Key,
    /// `packs/<2 hex>/<id>`: blocks of chunks, named by the hash of its bytes.
    Pack,
    /// `index/<id>`: which chunk is where, named by the hash of its bytes.
    Index,
    /// `snapshots/<id>`: a root tree, named by the hash of its bytes.
    Snapshot,
    /// `gc/<id>`: the packs that a prune will delete, under a random id.
    Gc,
    /// `locks/<id>`: which process is at work, under a random id.
    Lock,
}

impl ObjectKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 7] = [Self::Config, Self::Key, Self::Pack, Self::Index, Self::Snapshot, Self::Gc, Self::Lock];

    /// Returns whether an object of this kind is named by the hash of its bytes, so that the same name means the same
    /// bytes.
    pub fn is_content_addressed(self) -> bool {
        matches!(self, Self::Pack | Self::Index | Self::Snapshot)
    }

    /// Returns the folder that holds the objects of this kind; for `Config`, the name of the single object.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "keys",
            Self::Pack => "packs",
            Self::Index => "index",
            Self::Snapshot => "snapshots",
            Self::Gc => "gc",
            Self::Lock => "locks",
        }
    }

    /// Returns the length in bytes of an id of this kind.
    pub fn id_bytes_len(self) -> usize {
        match self {
            Self::Config => 0,
            Self::Key | Self::Gc | Self::Lock => 16,
            Self::Pack | Self::Index | Self::Snapshot => 32,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

/// Name of an object: its kind and its id. Ordered by kind, then id. `Display` prints [`ObjectName::path`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    kind: ObjectKind,
    /// The id. An id shorter than 32 bytes is followed by zeros.
    id: [u8; 32],
}

impl ObjectName {
    /// Returns the name of the config.
    pub fn config() -> Self {
        Self { kind: ObjectKind::Config, id: [0; 32] }
    }

    /// Returns the name of a key slot.
    pub fn key(id: [u8; 16]) -> Self {
        Self::short(ObjectKind::Key, id)
    }

    /// Returns the name of a pack.
    pub fn pack(id: [u8; 32]) -> Self {
        Self { kind: ObjectKind::Pack, id }
    }

    /// Returns the name of an index.
    pub fn index(id: [u8; 32]) -> Self {
        Self { kind: ObjectKind::Index, id }
    }

    /// Returns the name of a snapshot.
    pub fn snapshot(id: [u8; 32]) -> Self {
        Self { kind: ObjectKind::Snapshot, id }
    }

    /// Returns the name of a list of packs to delete.
    pub fn gc(id: [u8; 16]) -> Self {
        Self::short(ObjectKind::Gc, id)
    }

    /// Returns the name of a lock.
    pub fn lock(id: [u8; 16]) -> Self {
        Self::short(ObjectKind::Lock, id)
    }

    /// Returns the name of `kind` with `id`, or `None` if the id is not [`ObjectKind::id_bytes_len`] bytes long.
    pub fn new(kind: ObjectKind, id: &[u8]) -> Option<Self> {
        if id.len() != kind.id_bytes_len() {
            return None;
        }
        let mut padded = [0; 32];
        padded[..id.len()].copy_from_slice(id);
        Some(Self { kind, id: padded })
    }

    fn short(kind: ObjectKind, id: [u8; 16]) -> Self {
        Self::new(kind, &id).expect("keys, gc and locks have ids of 16 bytes")
    }

    /// Returns the kind of the object.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Returns the id: 32 bytes for packs, indexes and snapshots, 16 for keys, gc and locks, none for the config.
    pub fn id_bytes(&self) -> &[u8] {
        &self.id[..self.kind.id_bytes_len()]
    }

    /// Returns the path of the object relative to the root of the repository. Its parts are separated by `/`, and the
    /// id is in lower-case hexadecimal.
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(80);
        path.push_str(self.kind.folder());
        if self.kind == ObjectKind::Pack {
            path.push('/');
            push_hex(&mut path, &self.id[..1]);
        }
        if self.kind != ObjectKind::Config {
            path.push('/');
            push_hex(&mut path, self.id_bytes());
        }
        path
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn parse_hex(hex: &str) -> Option<Vec<u8>> {
    // Upper case is refused, so that each object has only one path.
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl FromStr for ObjectName {
    type Err = NotAnObject;

    /// Parses a path exactly as [`ObjectName::path`] writes it.
    fn from_str(path: &str) -> Result<Self, NotAnObject> {
        let mut parts = path.split('/');
        let name = (|| {
            let folder = parts.next()?;
            let kind = ObjectKind::ALL.into_iter().find(|kind| kind.folder() == folder)?;
            let prefix = if kind == ObjectKind::Pack { parts.next()? } else { "" };
            let id = if kind == ObjectKind::Config { "" } else { parts.next()? };
            if parts.next().is_some() || !id.starts_with(prefix) || (kind == ObjectKind::Pack && prefix.len() != 2) {
                return None;
            }
            Self::new(kind, &parse_hex(id)?)
        })();
        name.ok_or_else(|| NotAnObject { path: path.to_owned() })
    }
}

/// A path that is not the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path:?} is not the name of an object")]
pub struct NotAnObject {
    /// The path as it was given.
    pub path: String,
}

/// The operations of a backend: one for each method of [`Backend`] that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Backend::save`]
    Save,
    /// [`Backend::load`]
    Load,
    /// [`Backend::load_range`]
    LoadRange,
    /// [`Backend::list`]
    List,
    /// [`Backend::size`]
    Size,
    /// [`Backend::remove`]
    Remove,
}

impl Operation {
    /// Returns whether the operation changes what is stored.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Save | Self::Remove)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Save => "save",
            Self::Load => "load",
            Self::LoadRange => "load a part of",
            Self::List => "list",
            Self::Size => "read the size of",
            Self::Remove => "remove",
        })
    }
}

/// Why an operation of a backend failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// There is no such object.
    #[error("{name} does not exist")]
    NotFound {
        /// The object that does not exist.
        name: ObjectName,
    },
    /// The name is taken, and objects of its kind are never overwritten.
    #[error("{name} already exists")]
    Exists {
        /// The existing object.
        name: ObjectName,
    },
    /// The object ends before the requested range.
    #[error("{name} is {got} bytes long, but {wanted} bytes are needed")]
    Short {
        /// The object that was read.
        name: ObjectName,
        /// Where the range ends, in bytes from the start of the object.
        wanted: u64,
        /// Actual length of the object, in bytes.
        got: u64,
    },
    /// The disk or the quota is full.
    #[error("no space left to save {name}")]
    NoSpace {
        /// The object that was to be saved.
        name: ObjectName,
        /// The error from the operating system.
        source: io::Error,
    },
    /// An operation on one object failed.
    #[error("could not {operation} {name}")]
    Io {
        /// The operation that failed.
        operation: Operation,
        /// The object it was called for.
        name: ObjectName,
        /// The error from the operating system.
        source: io::Error,
    },
    /// A listing could not be completed.
    #[error("could not list {kind}")]
    List {
        /// The kind that was to be listed.
        kind: ObjectKind,
        /// The error from the operating system.
        source: io::Error,
    },
    /// The folder to open does not exist.
    #[error("there is no folder {}", path.display())]
    NoFolder {
        /// Path of that folder.
        path: PathBuf,
    },
    /// A new repository was requested in a folder that holds other files.
    #[error("folder {} holds {found:?}, which is not part of a repository", path.display())]
    ForeignFolder {
        /// Path of that folder.
        path: PathBuf,
        /// The name of one file in it that is not part of a repository.
        found: String,
    },
    /// The root folder of the backend could not be created, opened or read.
    #[error("could not open folder {}", path.display())]
    Folder {
        /// Path of that folder.
        path: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
}

impl BackendError {
    /// Returns the error for `operation` on `name` after the operating system reported `source`:
    /// [`BackendError::NotFound`] for a missing file (except when saving, where a folder is missing),
    /// [`BackendError::NoSpace`] if the disk or the quota is too full to save, [`BackendError::Io`] for all other
    /// errors.
    pub fn from_io(operation: Operation, name: ObjectName, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound if operation != Operation::Save => Self::NotFound { name },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if operation == Operation::Save => {
                Self::NoSpace { name, source }
            }
            _ => Self::Io { operation, name, source },
        }
    }

    /// Returns whether the same call may succeed a little later without anybody's help. True for network errors and
    /// busy devices; false for missing or damaged objects, full disks and missing permissions.
    pub fn is_transient(&self) -> bool {
        use io::ErrorKind as Kind;
        let (Self::Io { source, .. } | Self::List { source, .. } | Self::Folder { source, .. }) = self else {
            return false;
        };
        matches!(
            source.kind(),
            Kind::Interrupted
                | Kind::WouldBlock
                | Kind::TimedOut
                | Kind::ResourceBusy
                | Kind::BrokenPipe
                | Kind::ConnectionRefused
                | Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::NotConnected
                | Kind::NetworkDown
                | Kind::NetworkUnreachable
                | Kind::HostUnreachable
                | Kind::StaleNetworkFileHandle
        )
    }
}

/// Tests of the contract of [`Backend`].
#[cfg(test)]
pub mod testing;

#[cfg(test)]
mod tests;
