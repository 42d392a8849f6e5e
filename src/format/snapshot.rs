//! Snapshots: the objects that commit a backup. They are written last, after everything they need is durable.
//!
//! A snapshot is CBOR with integer keys, sealed, and named by the BLAKE3 of the sealed bytes. It names the earlier
//! snapshots and the key slots that existed when it was written. So a reader notices if one of them disappears without
//! a record of its removal. docs/repository-format.md, "Snapshots".

use crate::format::cbor::{self, CborError, MapWriter, Reader};
use crate::format::entry::{Directory, Entry, EntryError, EntryKind, Timestamp};
use crate::format::id::{KeyId, PackId, SnapshotId};
use crate::format::pack::{BlockLocation, Location};
use std::collections::BTreeMap;

const VERSION: u64 = 1;

/// Maximum number of failures that a snapshot lists. The number of failures it states is always exact.
pub const FAILURES_KEPT_MAX: usize = 1000;

/// Maximum normal difference between the clocks of two machines, in seconds. Beyond it, one clock is reported as wrong.
pub const CLOCK_TOLERANCE_SECS: i64 = 10 * 60;

/// Result of a backup, in items and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Items that the previous snapshot did not have.
    pub new: u64,
    /// Items whose content or facts changed.
    pub changed: u64,
    /// Items that are in another place than before.
    pub moved: u64,
    /// Items that no longer exist.
    pub deleted: u64,
    /// Items that did not change.
    pub unchanged: u64,
    /// Items that could not be read.
    pub failed: u64,
    /// Total size in bytes of all items, as presented.
    pub source_bytes: u64,
    /// Bytes of new chunks, before compression.
    pub added_bytes: u64,
    /// Bytes that the backup added to the repository.
    pub stored_bytes: u64,
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Path of the item from the snapshot's root.
    pub path: Vec<u8>,
    /// Why the item could not be read.
    pub error: String,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When the backup began.
    pub started: Timestamp,
    /// When everything that the snapshot needs was stored.
    pub finished: Timestamp,
    /// The backup set that the snapshot belongs to.
    pub set: String,
    /// The machine that made the backup.
    pub host: String,
    /// The root directory. Its name has no meaning.
    pub root: Entry,
    /// The newest snapshots when this one was written: those that no other snapshot had as a parent yet. Usually the
    /// previous one.
    pub parents: Vec<SnapshotId>,
    /// The key slots that existed.
    pub keys: Vec<KeyId>,
    /// What the backup did.
    pub summary: Summary,
    /// The items that could not be read, at most [`FAILURES_KEPT_MAX`] of them.
    pub failures: Vec<Failure>,
    /// Short values that the source keeps about the whole backup, under keys of its own.
    pub source_state: BTreeMap<String, Vec<u8>>,
    /// What the source needs to continue from this snapshot (delta tokens): a hidden directory with one file for each
    /// part. It may be large, so it is read only when needed.
    pub source_parts: Option<Directory>,
    /// The program and version that wrote the snapshot.
    pub program: String,
}

/// The name of a snapshot's root entry.
pub const ROOT_NAME: &[u8] = b"root";
/// The name of the directory of the source's state. `check` reports faults in it under this name.
pub const PARTS_NAME: &[u8] = b"(source state)";

/// Why an authentic snapshot could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The snapshot is not the expected CBOR.
    #[error("the snapshot is malformed")]
    Malformed,
    /// A later version of the program wrote the snapshot.
    #[error("the snapshot has version {0}, this program reads version {VERSION}")]
    Version(u64),
}

impl From<CborError> for SnapshotError {
    fn from(_: CborError) -> Self {
        SnapshotError::Malformed
    }
}

impl From<EntryError> for SnapshotError {
    fn from(_: EntryError) -> Self {
        SnapshotError::Malformed
    }
}

impl Snapshot {
    /// Returns the root directory.
    pub fn directory(&self) -> &Directory {
        self.root.directory().expect("a snapshot is only made and decoded with a directory at its root")
    }

    /// Returns whether the backup began more than [`CLOCK_TOLERANCE_SECS`] later than `now`, in seconds since 1970.
    pub fn is_ahead(&self, now: i64) -> bool {
        self.started.secs > now.saturating_add(CLOCK_TOLERANCE_SECS)
    }

    /// Returns the bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::default();
        map.field(1).uint(VERSION);
        write_time(self.started, map.field(2));
        write_time(self.finished, map.field(3));
        map.field(4).text(&self.set);
        map.field(5).text(&self.host);
        self.root.write(map.field(6));
        if let Some(hint) = self.directory().root.hint {
            write_location(hint, map.field(7));
        }
        let field = map.field(8).array(self.parents.len());
        self.parents.iter().for_each(|id| _ = field.bytes(id.as_bytes()));
        let field = map.field(9).array(self.keys.len());
        self.keys.iter().for_each(|id| _ = field.bytes(id.as_bytes()));
        let field = map.field(10).array(9);
        self.summary.numbers().into_iter().for_each(|number| _ = field.uint(number));
        let field = map.field(11).array(self.failures.len());
        self.failures.iter().for_each(|failure| _ = field.array(2).bytes(&failure.path).text(&failure.error));
        let field = map.field(12).array(self.source_state.len());
        self.source_state.iter().for_each(|(name, state)| _ = field.array(2).text(name).bytes(state));
        map.field(13).text(&self.program);
        if let Some(parts) = self.source_parts {
            Entry::new(PARTS_NAME, EntryKind::Directory(parts), Timestamp::default()).write(map.field(14));
            if let Some(hint) = parts.root.hint {
                write_location(hint, map.field(15));
            }
        }
        let mut out = cbor::Writer::new();
        map.finish(&mut out);
        out.into_bytes()
    }

    /// Reads what [`Snapshot::encode`] wrote.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut version = None;
        let mut root = None;
        let (mut parts, mut parts_hint) = (None, None);
        let mut hint = None;
        let mut snapshot = Snapshot {
            started: Timestamp::default(),
            finished: Timestamp::default(),
            set: String::new(),
            host: String::new(),
            root: Entry::new(ROOT_NAME, EntryKind::Symlink(Box::default()), Timestamp::default()),
            parents: Vec::new(),
            keys: Vec::new(),
            summary: Summary::default(),
            failures: Vec::new(),
            source_state: BTreeMap::new(),
            source_parts: None,
            program: String::new(),
        };
        let mut reader = Reader::new(bytes);
        reader.fields(|key, value| {
            match key {
                // The version comes first, because in another version later fields may have another meaning.
                1 => version = Some(supported(value.uint()?)?),
                2 => snapshot.started = read_time(value)?,
                3 => snapshot.finished = read_time(value)?,
                4 => snapshot.set = value.text()?.to_owned(),
                5 => snapshot.host = value.text()?.to_owned(),
                6 => root = Some(Entry::read(value)?),
                7 => hint = Some(read_location(value)?),
                8 => snapshot.parents = read_list(value, |item| Ok(SnapshotId(item.array_of()?)))?,
                9 => snapshot.keys = read_list(value, |item| Ok(KeyId(item.array_of()?)))?,
                10 => snapshot.summary = Summary::from_numbers(&read_list(value, |item| Ok(item.uint()?))?)?,
                11 => snapshot.failures = read_list(value, read_failure)?,
                12 => snapshot.source_state = read_list(value, read_state)?.into_iter().collect(),
                13 => snapshot.program = value.text()?.to_owned(),
                14 => parts = Some(Entry::read(value)?),
                15 => parts_hint = Some(read_location(value)?),
                _ => return Ok::<_, SnapshotError>(false),
            }
            Ok(true)
        })?;
        if version.is_none() || !reader.is_empty() {
            return Err(SnapshotError::Malformed);
        }
        snapshot.root = root.ok_or(SnapshotError::Malformed)?;
        match &mut snapshot.root.kind {
            EntryKind::Directory(dir) => dir.root.hint = hint,
            _ => return Err(SnapshotError::Malformed),
        }
        if let Some(parts) = parts {
            let mut dir = *parts.directory().ok_or(SnapshotError::Malformed)?;
            dir.root.hint = parts_hint;
            snapshot.source_parts = Some(dir);
        }
        Ok(snapshot)
    }
}

impl Summary {
    fn numbers(&self) -> [u64; 9] {
        let Summary { new, changed, moved, deleted, unchanged, failed, source_bytes, added_bytes, stored_bytes } =
            *self;
        [new, changed, moved, deleted, unchanged, failed, source_bytes, added_bytes, stored_bytes]
    }

    fn from_numbers(numbers: &[u64]) -> Result<Self, SnapshotError> {
        let [new, changed, moved, deleted, unchanged, failed, source_bytes, added_bytes, stored_bytes] =
            *numbers.first_chunk().ok_or(SnapshotError::Malformed)?;
        Ok(Summary { new, changed, moved, deleted, unchanged, failed, source_bytes, added_bytes, stored_bytes })
    }
}

fn supported(version: u64) -> Result<u64, SnapshotError> {
    if version == VERSION { Ok(version) } else { Err(SnapshotError::Version(version)) }
}

fn write_time(time: Timestamp, out: &mut cbor::Writer) {
    out.array(2).int(time.secs).uint(time.nanos.into());
}

fn read_time(value: &mut Reader<'_>) -> Result<Timestamp, SnapshotError> {
    let len = value.array()?;
    let time = Timestamp { secs: value.int()?, nanos: value.uint_as()? };
    if len == 2 && time.nanos < 1_000_000_000 { Ok(time) } else { Err(SnapshotError::Malformed) }
}

fn write_location(Location { block, offset, len }: Location, out: &mut cbor::Writer) {
    let field = out.array(5).bytes(block.pack.as_bytes());
    [block.offset, block.len, offset, len].into_iter().for_each(|number| _ = field.uint(number.into()));
}

fn read_location(value: &mut Reader<'_>) -> Result<Location, SnapshotError> {
    if value.array()? != 5 {
        return Err(SnapshotError::Malformed);
    }
    let block = BlockLocation { pack: PackId(value.array_of()?), offset: value.uint_as()?, len: value.uint_as()? };
    let (offset, len): (u32, u32) = (value.uint_as()?, value.uint_as()?);
    offset.checked_add(len).ok_or(SnapshotError::Malformed)?;
    Ok(Location { block, offset, len })
}

fn read_list<T>(
    value: &mut Reader<'_>,
    item: impl Fn(&mut Reader<'_>) -> Result<T, SnapshotError>,
) -> Result<Vec<T>, SnapshotError> {
    (0..value.array()?).map(|_| item(value)).collect()
}

fn read_failure(value: &mut Reader<'_>) -> Result<Failure, SnapshotError> {
    match value.array()? {
        2 => Ok(Failure { path: value.bytes()?.to_vec(), error: value.text()?.to_owned() }),
        _ => Err(SnapshotError::Malformed),
    }
}

fn read_state(value: &mut Reader<'_>) -> Result<(String, Vec<u8>), SnapshotError> {
    match value.array()? {
        2 => Ok((value.text()?.to_owned(), value.bytes()?.to_vec())),
        _ => Err(SnapshotError::Malformed),
    }
}

/// Snapshots for tests.
#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::format::entry::{NodeRef, Sums};
    use crate::format::id::NodeId;

    /// Returns a snapshot of an empty folder. `secs` is when it was made, in seconds since 1970.
    pub fn snapshot_of(set: &str, secs: i64) -> Snapshot {
        let root = Directory { root: NodeRef { id: NodeId([0; 32]), hint: None }, sums: Sums::default() };
        Snapshot {
            started: Timestamp { secs, nanos: 0 },
            finished: Timestamp { secs, nanos: 0 },
            set: set.to_owned(),
            host: String::new(),
            root: Entry::new(ROOT_NAME, EntryKind::Directory(root), Timestamp::default()),
            parents: Vec::new(),
            keys: Vec::new(),
            summary: Summary::default(),
            failures: Vec::new(),
            source_state: BTreeMap::new(),
            source_parts: None,
            program: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{NodeRef, Sums};
    use crate::format::id::NodeId;
    use proptest::prelude::*;

    fn snapshot() -> Snapshot {
        let block = BlockLocation { pack: PackId([1; 32]), offset: 5, len: 70_000 };
        let root = NodeRef { id: NodeId([2; 32]), hint: Some(Location { block, offset: 8, len: 900 }) };
        let sums = Sums { entries: 2, dirs: 1, items: 9, files: 7, bytes: 5000 };
        Snapshot {
            started: Timestamp { secs: 1_795_300_000, nanos: 5 },
            finished: Timestamp { secs: 1_795_300_009, nanos: 0 },
            set: "everyone".to_owned(),
            host: "backup-1".to_owned(),
            root: Entry::new(ROOT_NAME, EntryKind::Directory(Directory { root, sums }), Timestamp::default()),
            parents: vec![SnapshotId([3; 32])],
            keys: vec![KeyId([4; 16]), KeyId([5; 16])],
            summary: Summary { new: 1, changed: 2, source_bytes: 3, ..Summary::default() },
            failures: vec![Failure { path: b"Users/\xff".to_vec(), error: "permission denied".to_owned() }],
            source_state: BTreeMap::from([("delta".to_owned(), vec![1, 2, 3])]),
            source_parts: Some(Directory { root, sums }),
            program: "strongroom 0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_snapshot_comes_back_with_its_hint() {
        let decoded = Snapshot::decode(&snapshot().encode()).expect("a snapshot");
        assert_eq!(decoded, snapshot());
        assert_eq!(decoded.directory().root.hint, snapshot().directory().root.hint);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, at: usize, value: u8) {
            let _ = Snapshot::decode(&bytes);
            let mut damaged = snapshot().encode();
            let at = at % damaged.len();
            damaged[at] = value;
            let _ = Snapshot::decode(&damaged);
        }
    }
}
