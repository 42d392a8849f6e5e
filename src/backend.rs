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
    fn doubt(&self, _name: ObjectName, _range: Range<u64>) -> bool {
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

    fn doubt(&self, name: ObjectName, range: Range<u64>) -> bool {
        (**self).doubt(name, range)
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
pub mod testing {
    use std::collections::BTreeMap;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    /// Runs all tests of the contract. `make` returns a new, empty backend for each test.
    pub fn suite(make: impl Fn() -> Box<dyn Backend>) {
        for test in [
            saves_and_loads_every_kind,
            loads_ranges_exactly,
            loads_what_there_is_of_a_range,
            replaces_damaged_objects,
            replaces_objects_of_another_length,
            never_overwrites_the_others,
            saves_again_after_removal,
            names_what_is_missing,
            lists_by_kind,
            lets_a_listing_call_the_backend,
            lets_one_of_many_threads_win,
            saves_the_same_pack_from_many_threads,
            lists_while_saving,
            reads_while_others_save_and_remove,
        ] {
            test(&*make());
        }
        agrees_with_model(&make);
    }

    /// Returns a name of `kind` that depends on `seed` alone.
    pub fn name(kind: ObjectKind, seed: u64) -> ObjectName {
        let id = blake3::hash(&seed.to_le_bytes());
        ObjectName::new(kind, &id.as_bytes()[..kind.id_bytes_len()]).expect("the length is that of the kind")
    }

    /// Returns all objects of `kind`, sorted. Panics if one is listed twice.
    pub fn listing(backend: &dyn Backend, kind: ObjectKind) -> BTreeMap<ObjectName, u64> {
        let mut found = BTreeMap::new();
        backend
            .list(kind, &mut |name, bytes| {
                assert_eq!(name.kind(), kind);
                assert_eq!(found.insert(name, bytes), None, "{name} is listed twice");
            })
            .expect("the listing works");
        found
    }

    fn saves_and_loads_every_kind(backend: &dyn Backend) {
        for kind in ObjectKind::ALL {
            for (seed, bytes) in [0, 1, 1000, 3 << 20].into_iter().enumerate() {
                if kind == ObjectKind::Config && seed > 0 {
                    continue;
                }
                let name = name(kind, seed as u64);
                let data = vec![seed as u8; bytes];
                backend.save(name, &data).unwrap();
                assert_eq!(backend.load(name).unwrap(), data);
                assert_eq!(backend.load_range(name, 0..bytes as u64).unwrap(), data);
                assert_eq!(backend.size(name).unwrap(), bytes as u64);
            }
        }
        assert!(!backend.describe().is_empty());
    }

    fn loads_ranges_exactly(backend: &dyn Backend) {
        for kind in [ObjectKind::Pack, ObjectKind::Key] {
            let name = name(kind, 1);
            let data: Vec<u8> = (0..=255).collect();
            backend.save(name, &data).unwrap();
            for (start, end) in [(0, 256), (0, 0), (256, 256), (255, 256), (0, 1), (17, 99), (99, 17)] {
                let part = data.get(start..end).unwrap_or_default();
                assert_eq!(backend.load_range(name, start as u64..end as u64).unwrap(), part, "{start}..{end}");
            }
            for (start, end) in [(0, 257), (256, 257), (300, 301), (257, 257), (300, 0), (0, u64::MAX), (u64::MAX, 0)] {
                let error = backend.load_range(name, start..end).unwrap_err();
                let expected = start.max(end);
                assert!(
                    matches!(error, BackendError::Short { name: n, wanted, got: 256 } if n == name && wanted == expected),
                    "{start}..{end}: {error:?}"
                );
                assert!(!error.is_transient());
            }
        }
    }

    fn loads_what_there_is_of_a_range(backend: &dyn Backend) {
        let data: Vec<u8> = (0..=255).collect();
        for kind in [ObjectKind::Pack, ObjectKind::Snapshot, ObjectKind::Key] {
            let name = name(kind, 1);
            assert!(matches!(backend.load_up_to(name, 0..9), Err(BackendError::NotFound { name: n }) if n == name));
            backend.save(name, &data).unwrap();
            // The same range twice, because a wrapper may have kept a copy of the first answer.
            for (start, end) in [(0, 256), (0, 1 << 40), (0, 1 << 40), (0, 5), (17, 99), (17, 300), (256, 300), (9, 3)]
            {
                let expected = data.get(start..end.min(256)).unwrap_or_default();
                let loaded = backend.load_up_to(name, start as u64..end as u64).unwrap();
                assert_eq!(loaded, expected, "{start}..{end}");
            }
            let error = backend.load_up_to(name, 257..300).unwrap_err();
            assert!(matches!(error, BackendError::Short { got: 256, .. }), "{error:?}");
            // The stored bytes are correct, so this may only drop copies.
            backend.doubt(name, 0..256);
            assert_eq!(backend.load_range(name, 0..256).unwrap(), data);
        }
    }

    /// After a system crash a file may have the right length but the wrong bytes. Saving it again repairs it.
    fn replaces_damaged_objects(backend: &dyn Backend) {
        for kind in ObjectKind::ALL.into_iter().filter(|kind| kind.is_content_addressed()) {
            for data in [b"\0\0\0\0\0", b"whole", b"whole"] {
                backend.save(name(kind, 1), data).unwrap();
                assert_eq!(backend.load(name(kind, 1)).unwrap(), data);
                assert_eq!(listing(backend, kind).len(), 1);
            }
        }
    }

    fn replaces_objects_of_another_length(backend: &dyn Backend) {
        for kind in ObjectKind::ALL.into_iter().filter(|kind| kind.is_content_addressed()) {
            let name = name(kind, 1);
            for data in [&b"torn"[..], b"", b"the whole of it", b"too short?"] {
                backend.save(name, data).unwrap();
                // Check both methods: one may use a copy that the other does not.
                assert_eq!(backend.load(name).unwrap(), data);
                assert_eq!(backend.load_range(name, 0..data.len() as u64).unwrap(), data);
                assert_eq!(listing(backend, kind), BTreeMap::from([(name, data.len() as u64)]));
            }
        }
    }

    fn never_overwrites_the_others(backend: &dyn Backend) {
        for kind in ObjectKind::ALL.into_iter().filter(|kind| !kind.is_content_addressed()) {
            let name = name(kind, 1);
            backend.save(name, b"first").unwrap();
            for data in [&b"first"[..], b"other", b"longer than first", b""] {
                let error = backend.save(name, data).unwrap_err();
                assert!(matches!(error, BackendError::Exists { name: n } if n == name), "{error:?}");
                assert!(!error.is_transient());
                assert_eq!(backend.load(name).unwrap(), b"first");
            }
            assert_eq!(listing(backend, kind), BTreeMap::from([(name, 5)]));
        }
    }

    fn saves_again_after_removal(backend: &dyn Backend) {
        for kind in ObjectKind::ALL {
            let name = name(kind, 1);
            for data in [b"first", b"other"] {
                backend.save(name, data).unwrap();
                assert_eq!(backend.load_range(name, 0..5).unwrap(), data);
                backend.remove(name).unwrap();
                backend.remove(name).unwrap();
                assert!(matches!(backend.load_range(name, 0..5), Err(BackendError::NotFound { .. })));
                assert!(listing(backend, kind).is_empty());
            }
        }
    }

    fn names_what_is_missing(backend: &dyn Backend) {
        // First while the folder does not exist, then while it does.
        for seed in [1, 2] {
            for kind in ObjectKind::ALL {
                let missing = name(kind, 0);
                for error in [
                    backend.load(missing).unwrap_err(),
                    backend.load_range(missing, 0..1).unwrap_err(),
                    backend.load_range(missing, 0..0).unwrap_err(),
                    backend.size(missing).unwrap_err(),
                ] {
                    assert!(matches!(error, BackendError::NotFound { name } if name == missing), "{error:?}");
                    assert!(!error.is_transient());
                }
                backend.remove(missing).unwrap();
                if kind != ObjectKind::Config {
                    assert_eq!(listing(backend, kind).len() as u64, seed - 1);
                    backend.save(name(kind, seed), b"x").unwrap();
                }
            }
        }
    }

    fn lists_by_kind(backend: &dyn Backend) {
        for kind in ObjectKind::ALL {
            assert!(listing(backend, kind).is_empty());
        }
        let mut expected = BTreeMap::new();
        for kind in ObjectKind::ALL {
            let objects = if kind == ObjectKind::Config { 1 } else { 20 };
            let names: BTreeMap<_, _> = (0..objects).map(|seed| (name(kind, seed), seed * 10)).collect();
            for (&name, &bytes) in &names {
                backend.save(name, &vec![7; bytes as usize]).unwrap();
            }
            expected.insert(kind, names);
        }
        for (kind, names) in expected {
            assert_eq!(listing(backend, kind), names);
        }
    }

    fn lets_a_listing_call_the_backend(backend: &dyn Backend) {
        for seed in 0..10 {
            backend.save(name(ObjectKind::Gc, seed), &seed.to_le_bytes()).unwrap();
        }
        let mut seen = 0;
        backend
            .list(ObjectKind::Gc, &mut |name, bytes| {
                assert_eq!(backend.load(name).unwrap().len() as u64, bytes);
                backend.remove(name).unwrap();
                seen += 1;
            })
            .unwrap();
        assert_eq!(seen, 10);
        assert!(listing(backend, ObjectKind::Gc).is_empty());
    }

    fn lets_one_of_many_threads_win(backend: &dyn Backend) {
        for kind in ObjectKind::ALL.into_iter().filter(|kind| !kind.is_content_addressed()) {
            let (name, barrier) = (name(kind, 1), Barrier::new(8));
            let winners: Vec<u8> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|thread: u8| {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            barrier.wait();
                            match backend.save(name, &[thread; 1000]) {
                                Ok(()) => Some(thread),
                                Err(BackendError::Exists { .. }) => None,
                                Err(error) => panic!("{error:?}"),
                            }
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1, "{winners:?}");
            assert_eq!(backend.load(name).unwrap(), [winners[0]; 1000]);
            assert_eq!(listing(backend, kind).len(), 1);
        }
    }

    fn saves_the_same_pack_from_many_threads(backend: &dyn Backend) {
        for seed in 0..5 {
            let (name, data, barrier) = (name(ObjectKind::Pack, seed), vec![seed as u8; 100_000], Barrier::new(8));
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        barrier.wait();
                        backend.save(name, &data).unwrap();
                        assert_eq!(backend.load_range(name, 0..100_000).unwrap(), data);
                    });
                }
            });
            assert_eq!(listing(backend, ObjectKind::Pack).len() as u64, seed + 1);
        }
    }

    fn lists_while_saving(backend: &dyn Backend) {
        for seed in 0..20 {
            backend.save(name(ObjectKind::Index, seed), &[1; 100]).unwrap();
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for seed in 20..100 {
                    backend.save(name(ObjectKind::Index, seed), &[1; 100]).unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            while !done.load(Ordering::SeqCst) {
                let found = listing(backend, ObjectKind::Index);
                assert!((0..20).all(|seed| found.contains_key(&name(ObjectKind::Index, seed))));
                // A listed object is always complete.
                assert!(found.values().all(|&bytes| bytes == 100));
            }
        });
        assert_eq!(listing(backend, ObjectKind::Index).len(), 100);
    }

    fn reads_while_others_save_and_remove(backend: &dyn Backend) {
        const PACKS: u64 = 100;
        let name = |seed| name(ObjectKind::Pack, seed);
        for seed in 0..PACKS {
            backend.save(name(seed), &vec![seed as u8; 5000]).unwrap();
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        for seed in 0..PACKS {
                            match backend.load_range(name(seed), 100..4100) {
                                Ok(data) => assert_eq!(data, vec![seed as u8; 4000]),
                                Err(BackendError::NotFound { .. }) => assert_eq!(seed % 2, 1, "an even one is missing"),
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    }
                });
            }
            for seed in (1..PACKS).step_by(2) {
                backend.remove(name(seed)).unwrap();
                backend.save(name(seed), &vec![seed as u8; 5000]).unwrap();
                backend.remove(name(seed)).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        for seed in 0..PACKS {
            assert_eq!(backend.load_range(name(seed), 0..1).is_ok(), seed % 2 == 0);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Save { kind: usize, pick: u64, data: Vec<u8> },
        Remove { kind: usize, pick: u64 },
    }

    /// Applies the same operations to `make()` and to a map, and compares everything after each operation.
    fn agrees_with_model(make: &dyn Fn() -> Box<dyn Backend>) {
        let op = prop_oneof![
            3 => (any::<usize>(), 0_u64..4, vec(any::<u8>(), 0..4))
                .prop_map(|(kind, pick, data)| Op::Save { kind, pick, data }),
            1 => (any::<usize>(), 0_u64..4).prop_map(|(kind, pick)| Op::Remove { kind, pick }),
        ];
        let pick_name = |kind: usize, pick| name(ObjectKind::ALL[kind % ObjectKind::ALL.len()], pick);
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&vec(op, 1..30), |ops| {
            let backend = make();
            let mut model: BTreeMap<ObjectName, Vec<u8>> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Save { kind, pick, data } => {
                        let name = pick_name(kind, pick);
                        let saved = backend.save(name, &data);
                        if model.contains_key(&name) && !name.kind().is_content_addressed() {
                            prop_assert!(matches!(saved, Err(BackendError::Exists { .. })), "{saved:?}");
                        } else {
                            prop_assert!(saved.is_ok(), "{saved:?}");
                            model.insert(name, data);
                        }
                    }
                    Op::Remove { kind, pick } => {
                        let name = pick_name(kind, pick);
                        prop_assert!(backend.remove(name).is_ok());
                        model.remove(&name);
                    }
                }
                let mut stored = BTreeMap::new();
                for kind in ObjectKind::ALL {
                    for (name, bytes) in listing(&*backend, kind) {
                        let data = backend.load(name).unwrap();
                        prop_assert_eq!(data.len() as u64, bytes);
                        prop_assert_eq!(&backend.load_range(name, 0..bytes).unwrap(), &data);
                        stored.insert(name, data);
                    }
                }
                prop_assert_eq!(&stored, &model);
            }
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::error::Error as _;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::mem::Mem;
    use super::*;

    #[test]
    fn names_have_these_paths() {
        let id: [u8; 32] = std::array::from_fn(|i| 0xa0_u8.wrapping_add(i as u8 * 3));
        let short: [u8; 16] = std::array::from_fn(|i| i as u8);
        let hex = "a0a3a6a9acafb2b5b8bbbec1c4c7cacdd0d3d6d9dcdfe2e5e8ebeef1f4f7fafd";
        let short_hex = "000102030405060708090a0b0c0d0e0f";
        for (name, path, bytes) in [
            (ObjectName::config(), "config".to_owned(), &[][..]),
            (ObjectName::key(short), format!("keys/{short_hex}"), &short),
            (ObjectName::pack(id), format!("packs/a0/{hex}"), &id),
            (ObjectName::index(id), format!("index/{hex}"), &id),
            (ObjectName::snapshot(id), format!("snapshots/{hex}"), &id),
            (ObjectName::gc(short), format!("gc/{short_hex}"), &short),
            (ObjectName::lock(short), format!("locks/{short_hex}"), &short),
        ] {
            assert_eq!(
                (name.path(), name.to_string(), format!("{name:?}")),
                (path.clone(), path.clone(), path.clone())
            );
            assert_eq!(name.id_bytes(), bytes);
            assert_eq!(path.parse(), Ok(name));
            assert_eq!(ObjectName::new(name.kind(), bytes), Some(name));
            assert_eq!(ObjectName::new(name.kind(), &[1; 15]), None);
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let hex = "a0a3a6a9acafb2b5b8bbbec1c4c7cacdd0d3d6d9dcdfe2e5e8ebeef1f4f7fafd";
        let (short, upper) = (&hex[..32], hex.to_uppercase());
        for path in [
            String::new(),
            "/".to_owned(),
            "configs".to_owned(),
            "config/".to_owned(),
            format!("config/{short}"),
            "keys".to_owned(),
            "keys/".to_owned(),
            format!("keys/{hex}"),
            format!("keys/{short}/"),
            format!("/keys/{short}"),
            format!("./keys/{short}"),
            format!("packs/{hex}"),
            format!("packs/a1/{hex}"),
            format!("packs//{hex}"),
            format!("packs/a/{hex}"),
            format!("packs/a0a/{hex}"),
            format!("packs/a0/{hex}.old"),
            format!("packs/A0/{upper}"),
            format!("index/{upper}"),
            format!("index/{short}"),
            format!("index/{}", &hex[1..]),
            format!("index/{}é", &hex[2..]),
            format!("index/+{}", &hex[1..]),
            format!("indexes/{hex}"),
            "locks/.tmp-1-2".to_owned(),
        ] {
            assert_eq!(path.parse::<ObjectName>(), Err(NotAnObject { path }));
        }
    }

    proptest! {
        #[test]
        fn a_path_that_parses_is_the_path_of_its_name(path in "(config|keys|packs|index|x)?/?[0-9a-gA-F]{0,2}/?[0-9a-f]{30,64}") {
            if let Ok(name) = path.parse::<ObjectName>() {
                prop_assert_eq!(name.path(), path);
            }
        }

        #[test]
        fn names_are_ordered_like_kind_and_id(a: (usize, [u8; 32]), b: (usize, [u8; 32])) {
            let name = |(kind, id): (usize, [u8; 32])| {
                let kind = ObjectKind::ALL[kind % ObjectKind::ALL.len()];
                ObjectName::new(kind, &id[..kind.id_bytes_len()]).unwrap()
            };
            let (a, b) = (name(a), name(b));
            prop_assert_eq!(a.cmp(&b), (a.kind(), a.id_bytes()).cmp(&(b.kind(), b.id_bytes())));
            prop_assert_eq!(a.path().parse(), Ok(a));
        }
    }

    #[test]
    fn folders_are_distinct() {
        assert_eq!(ObjectKind::ALL.map(ObjectKind::folder).into_iter().collect::<BTreeSet<_>>().len(), 7);
    }

    #[test]
    fn errors_say_what_to_do() {
        let name = ObjectName::config();
        let from = |operation, kind: io::ErrorKind| BackendError::from_io(operation, name, kind.into());
        assert!(matches!(from(Operation::Load, io::ErrorKind::NotFound), BackendError::NotFound { .. }));
        assert!(matches!(from(Operation::Save, io::ErrorKind::NotFound), BackendError::Io { .. }));
        assert!(matches!(from(Operation::Save, io::ErrorKind::StorageFull), BackendError::NoSpace { .. }));
        assert!(matches!(from(Operation::Save, io::ErrorKind::QuotaExceeded), BackendError::NoSpace { .. }));
        assert!(from(Operation::Load, io::ErrorKind::TimedOut).is_transient());
        assert!(from(Operation::Save, io::ErrorKind::ConnectionReset).is_transient());
        assert!(!from(Operation::Save, io::ErrorKind::StorageFull).is_transient());
        assert!(!from(Operation::Load, io::ErrorKind::PermissionDenied).is_transient());

        let error = from(Operation::Load, io::ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), "could not load config");
        assert_eq!(error.source().unwrap().to_string(), "permission denied");
        let error = BackendError::Short { name, wanted: 9, got: 4 };
        assert_eq!(error.to_string(), "config is 4 bytes long, but 9 bytes are needed");
    }

    #[test]
    fn pointers_are_backends() {
        testing::suite(|| Box::new(Arc::new(Mem::new())));
        testing::suite(|| Box::new(Box::new(Arc::new(Mem::new()) as Arc<dyn Backend>) as Box<dyn Backend>));
    }
}
