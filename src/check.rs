//! Proves a repository sound, or says exactly what is damaged and which items that touches.
//!
//! The structure: every object opens and is named rightly, index objects agree with the footers of their packs, every
//! snapshot's tree can be walked, its sums are right, and everything it refers to is in a pack. With `read_data` the
//! bytes as well: every pack is held against its name, every block opened, every blob held against its id.
//!
//! Nothing that this machine remembers is believed, except for one question that nothing else answers: whether
//! a snapshot or key slot that was once there is gone without a record of its removal.

use crate::backend::ObjectName;
use crate::crypto::Keys;
use crate::entry::{ChunkRef, Directory, Entry, EntryKind, NodeRef, Segment, Sums};
use crate::id::{BlobId, IndexId, KeyId, NodeId, PackId, SnapshotId};
use crate::local::LocalState;
use crate::node::{self, Node, NodeKind};
use crate::pack::{self, Footer, Location, PackKind};
use crate::reader::{CacheSizes, Lookup, ReadError, Reader};
use crate::repository::{Repository, RepositoryError};
use crate::sealed;
use crate::snapshot::{PARTS_NAME, Snapshot};
use crate::tree::NodeSource;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a check looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Which share of the packs to read whole, in percent; none without.
    pub read_data: Option<u8>,
}

/// An object that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object, as the path of its file.
    pub object: String,
    /// What is wrong with it.
    pub error: String,
}

/// An item that cannot be read, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostItem {
    /// The snapshot it is in.
    pub snapshot: SnapshotId,
    /// Its path from the snapshot's root; for a folder, everything under it is lost.
    pub path: Vec<u8>,
    /// Why.
    pub error: String,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Damaged or missing objects.
    pub problems: Vec<Problem>,
    /// Items that they touch.
    pub lost: Vec<LostItem>,
    /// Snapshots walked.
    pub snapshots: usize,
    /// Packs looked at.
    pub packs: usize,
    /// Bytes of packs read whole.
    pub bytes_read: u64,
    /// Packs that an interrupted backup left, or one that runs right now; the next backup takes them in.
    pub packs_without_index: usize,
}

impl CheckReport {
    /// Returns whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.lost.is_empty()
    }
}

/// Checks `repository`, with an index of its own in the folder `scratch`, which the caller removes.
///
/// `remembered` are the snapshots and key slots that this machine has seen.
///
/// # Errors
/// When the storage fails, rather than holding something damaged, or the check was cancelled.
pub fn check(
    repository: &Arc<Repository>,
    options: CheckOptions,
    scratch: &Path,
    remembered: (Vec<SnapshotId>, Vec<KeyId>),
    cancel: &AtomicBool,
) -> Result<CheckReport> {
    let mut check = Check { repository, cancel, report: CheckReport::default(), bad: HashSet::new() };
    // In the order opposite to writing: all that these snapshots need is there when they are.
    let snapshots = check.snapshots()?;
    check.removals(&snapshots, remembered)?;
    let indexes = repository.index_ids()?;
    let packs = repository.packs()?;
    check.report.packs = packs.len();
    check.indexes(indexes, &packs)?;
    let mut local = LocalState::open(scratch, repository)?;
    let without_index = local.sync(repository)?;
    check.report.packs_without_index = without_index.len();
    let unindexed = check.unindexed(&without_index)?;
    check.footers(&packs, &local)?;
    if let Some(percent) = options.read_data {
        check.read_packs(&packs, percent)?;
    }
    check.trees(&snapshots, local, &unindexed)?;
    Ok(check.report)
}

struct Check<'a> {
    repository: &'a Arc<Repository>,
    cancel: &'a AtomicBool,
    report: CheckReport,
    /// Blobs whose bytes are not their own.
    bad: HashSet<BlobId>,
}

type Result<T> = std::result::Result<T, RepositoryError>;

impl Check<'_> {
    fn problem(&mut self, object: impl ToString, error: impl ToString) {
        self.report.problems.push(Problem { object: object.to_string(), error: error.to_string() });
    }

    /// Records damage and goes on; any other error ends the check.
    fn note<T>(&mut self, object: ObjectName, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_damage() => {
                self.problem(object, with_cause(&error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(RepositoryError::Interrupted) } else { Ok(()) }
    }

    fn snapshots(&mut self) -> Result<Vec<(SnapshotId, Snapshot)>> {
        let mut snapshots = Vec::new();
        for id in self.repository.snapshot_ids()? {
            let name = ObjectName::snapshot(id.0);
            let loaded = self.repository.load_snapshot(id);
            if let Some(snapshot) = self.note(name, loaded)? {
                snapshots.push((id, snapshot));
            }
        }
        self.report.snapshots = snapshots.len();
        Ok(snapshots)
    }

    /// Proves the key slots and the records of removals, and misses what is gone without one.
    fn removals(
        &mut self,
        snapshots: &[(SnapshotId, Snapshot)],
        (seen_snapshots, seen_keys): (Vec<SnapshotId>, Vec<KeyId>),
    ) -> Result<()> {
        let slots = self.repository.slots()?;
        for slot in &slots {
            if let Err(error) = &slot.slot {
                self.problem(ObjectName::key(slot.id.0), error);
            }
        }
        let (mut removed_keys, mut removed_snapshots) = (Vec::new(), Vec::new());
        for name in self.repository.removal_records()? {
            let loaded = self.repository.load_removals(name);
            if let Some((keys, snapshots)) = self.note(name, loaded)? {
                removed_keys.extend(keys);
                removed_snapshots.extend(snapshots);
            }
        }
        let keys_there: HashSet<_> = slots.iter().map(|slot| slot.id).chain(removed_keys).collect();
        let named_keys = snapshots.iter().flat_map(|(_, snapshot)| snapshot.keys.iter().copied());
        let missing: BTreeSet<_> = named_keys.chain(seen_keys).filter(|id| !keys_there.contains(id)).collect();
        for key in missing {
            self.problem(ObjectName::key(key.0), "is missing, and there is no record that it was removed");
        }
        let mut there: HashSet<_> = self.repository.snapshot_ids()?.into_iter().collect();
        there.extend(removed_snapshots);
        let named = snapshots.iter().flat_map(|(_, snapshot)| snapshot.parents.iter().copied());
        let missing: BTreeSet<_> = named.chain(seen_snapshots).filter(|id| !there.contains(id)).collect();
        for id in missing {
            self.problem(ObjectName::snapshot(id.0), "is missing, and there is no record that it was removed");
        }
        Ok(())
    }

    /// Proves the index objects, and that they say what the footers of their packs say.
    fn indexes(&mut self, indexes: Vec<IndexId>, packs: &HashMap<PackId, u64>) -> Result<()> {
        for id in indexes {
            self.go_on()?;
            self.index(id, packs)?;
        }
        Ok(())
    }

    fn index(&mut self, id: IndexId, packs: &HashMap<PackId, u64>) -> Result<()> {
        let name = ObjectName::index(id.0);
        let loaded = self.repository.load_index(id);
        let Some(index) = self.note(name, loaded)? else { return Ok(()) };
        let mut told: Vec<(BlobId, Location)> = Vec::new();
        let mut complete = true;
        for (pack, _) in index.packs() {
            let Some(len) = packs.get(pack) else {
                self.problem(ObjectName::pack(pack.0), "is missing");
                complete = false;
                continue;
            };
            match self.repository.load_footer(*pack, *len) {
                Ok(footer) => told.extend(footer.locations(*pack)),
                // Reported with the footers.
                Err(error) if error.is_damage() => complete = false,
                Err(error) => return Err(error),
            }
        }
        if complete {
            let key = |(id, at): &(BlobId, Location)| (*id, at.block.pack, at.block.offset, at.offset);
            told.sort_by_key(key);
            let mut listed: Vec<_> = index.locations().collect();
            listed.sort_by_key(key);
            if told != listed {
                self.problem(name, "does not say what the footers of its packs say");
            }
        }
        Ok(())
    }

    /// Returns the blobs that no index object speaks of, and their packs. No snapshot may need one: index objects are
    /// durable before it is, so one of them would be missing.
    fn unindexed(&mut self, without_index: &[(PackId, Footer)]) -> Result<HashMap<BlobId, PackId>> {
        let blobs = without_index.iter().flat_map(|(id, footer)| footer.locations(*id).map(|(blob, _)| (blob, *id)));
        let mut unindexed: HashMap<_, _> = blobs.collect();
        if unindexed.is_empty() {
            return Ok(unindexed);
        }
        for id in self.repository.index_ids()? {
            self.go_on()?;
            match self.repository.load_index(id) {
                Ok(index) => index.locations().for_each(|(blob, _)| _ = unindexed.remove(&blob)),
                // Reported with the index objects.
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(unindexed)
    }

    /// Proves the footers; blobs of a pack whose footer is damaged may be whole all the same.
    fn footers(&mut self, packs: &HashMap<PackId, u64>, local: &LocalState) -> Result<()> {
        for (id, len) in packs {
            self.go_on()?;
            let name = ObjectName::pack(id.0);
            let footer = self.repository.load_footer(*id, *len);
            if let Some(footer) = self.note(name, footer)?
                && let Some((blob, _)) =
                    footer.locations(*id).find(|(blob, _)| !local.find_blob(blob).is_ok_and(|l| l.is_some()))
            {
                self.problem(name, format!("blob {blob} is in no index"));
            }
        }
        Ok(())
    }

    /// Reads `percent` of the packs, chosen by their names, which are as good as random.
    fn read_packs(&mut self, packs: &HashMap<PackId, u64>, percent: u8) -> Result<()> {
        let chosen: Vec<_> = packs
            .iter()
            .filter(|(id, _)| percent >= 100 || u16::from(id.0[31]) * 100 < u16::from(percent) * 256)
            .map(|(id, len)| (*id, *len))
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (repository, cancel) = (self.repository, self.cancel);
        let results: Vec<Result<Vec<ReadPack>>> = std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let work = || {
                let mut read = Vec::new();
                while let Some((id, len)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if cancel.load(Ordering::Relaxed) {
                        return Err(RepositoryError::Interrupted);
                    }
                    read.push(read_pack(repository, *id, *len)?);
                }
                Ok(read)
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        for result in results {
            for read in result? {
                self.report.bytes_read += read.len;
                let name = ObjectName::pack(read.id.0);
                for error in read.errors {
                    self.problem(name, error);
                }
                self.bad.extend(read.bad);
            }
        }
        Ok(())
    }

    fn trees(
        &mut self,
        snapshots: &[(SnapshotId, Snapshot)],
        local: LocalState,
        unindexed: &HashMap<BlobId, PackId>,
    ) -> Result<()> {
        let local = Arc::new(local);
        let sizes = CacheSizes { blocks: 4 << 20, nodes: 64 << 20 };
        let reader = self.repository.reader(Box::new(SharedLookup(local.clone())), sizes);
        let mut walk = Walk {
            reader: &reader,
            local: &local,
            bad: &self.bad,
            cancel: self.cancel,
            unindexed,
            needed: BTreeSet::new(),
            sound: HashSet::new(),
            lost: Vec::new(),
        };
        for (id, snapshot) in snapshots {
            walk.directory(*id, snapshot.directory(), &mut Vec::new())?;
            if let Some(parts) = &snapshot.source_parts {
                walk.directory(*id, parts, &mut PARTS_NAME.to_vec())?;
            }
        }
        let Walk { lost, needed, .. } = walk;
        self.report.lost = lost;
        for pack in needed {
            self.problem(
                ObjectName::pack(pack.0),
                "is needed by a snapshot, but in no index: an index object is missing",
            );
        }
        Ok(())
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What reading a pack whole came to.
struct ReadPack {
    id: PackId,
    len: u64,
    errors: Vec<String>,
    bad: Vec<BlobId>,
}

fn read_pack(repository: &Repository, id: PackId, len: u64) -> Result<ReadPack> {
    let mut read = ReadPack { id, len, errors: Vec::new(), bad: Vec::new() };
    let bytes = repository.load_pack(id)?;
    if *blake3::hash(&bytes).as_bytes() != id.0 {
        read.errors.push("its name is not the hash of its bytes".to_owned());
    }
    let footer = match pack::footer_of(repository.keys(), &bytes) {
        Ok(footer) => footer,
        Err(_) => match footer_from_indexes(repository, id)? {
            Some(footer) => footer,
            None => return Ok(read),
        },
    };
    let mut offset = 0;
    for block in &footer.blocks {
        let end = offset + block.len as usize;
        let plaintext = bytes
            .get(offset..end)
            .and_then(|sealed| sealed::open(repository.keys(), footer.kind.purpose(), sealed.to_vec()).ok());
        offset = end;
        let mut at = 0;
        for blob in &block.blobs {
            let found = plaintext.as_deref().and_then(|plaintext| plaintext.get(at..at + blob.len as usize));
            at += blob.len as usize;
            if !found.is_some_and(|bytes| is_own(repository.keys(), footer.kind, blob.id, bytes)) {
                read.bad.push(blob.id);
            }
        }
    }
    if !read.bad.is_empty() {
        read.errors.push(format!("{} of its blobs cannot be read", read.bad.len()));
    }
    Ok(read)
}

/// Finds out from the index what a pack with a damaged footer holds.
fn footer_from_indexes(repository: &Repository, id: PackId) -> Result<Option<Footer>> {
    for index in repository.index_ids()? {
        let index = match repository.load_index(index) {
            Ok(index) => index,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        if let Some((_, kind)) = index.packs().iter().find(|(pack, _)| *pack == id) {
            let mut found: Vec<_> = index.locations().filter(|(_, at)| at.block.pack == id).collect();
            found.sort_by_key(|(_, at)| (at.block.offset, at.offset));
            return Ok(Some(Footer { kind: *kind, blocks: blocks_of(&found) }));
        }
    }
    Ok(None)
}

fn blocks_of(blobs: &[(BlobId, Location)]) -> Vec<pack::BlockRecord> {
    let same_block = |a: &(BlobId, Location), b: &(BlobId, Location)| a.1.block == b.1.block;
    let block = |blobs: &[(BlobId, Location)]| pack::BlockRecord {
        len: blobs[0].1.block.len,
        plaintext_len: blobs.iter().map(|(_, at)| at.len).sum(),
        blobs: blobs.iter().map(|(id, at)| pack::BlobRecord { id: *id, len: at.len }).collect(),
    };
    blobs.chunk_by(same_block).map(block).collect()
}

fn is_own(keys: &Keys, kind: PackKind, id: BlobId, bytes: &[u8]) -> bool {
    match kind {
        PackKind::Data => BlobId::from(keys.chunk_id(bytes)) == id,
        PackKind::Meta => {
            node::split_stored(bytes).is_some_and(|(canonical, _)| BlobId::from(keys.node_id(canonical)) == id)
        }
    }
}

struct SharedLookup(Arc<LocalState>);

impl Lookup for SharedLookup {
    fn find(&self, blob: &BlobId) -> std::result::Result<Option<Location>, ReadError> {
        self.0.find(blob)
    }
}

/// Walks trees; what was once found sound is not walked again.
struct Walk<'a> {
    reader: &'a Reader,
    local: &'a LocalState,
    bad: &'a HashSet<BlobId>,
    cancel: &'a AtomicBool,
    unindexed: &'a HashMap<BlobId, PackId>,
    /// Packs without an index that a snapshot refers to.
    needed: BTreeSet<PackId>,
    sound: HashSet<NodeId>,
    lost: Vec<LostItem>,
}

/// What stands at the end of a walk through one node.
struct Walked {
    sums: Sums,
    last: Option<Box<[u8]>>,
}

impl Walk<'_> {
    fn lose(&mut self, snapshot: SnapshotId, path: &[u8], error: impl ToString) {
        self.lost.push(LostItem { snapshot, path: path.to_vec(), error: error.to_string() });
    }

    fn directory(&mut self, snapshot: SnapshotId, dir: &Directory, path: &mut Vec<u8>) -> Result<()> {
        let walked = self.node(snapshot, &dir.root, path)?;
        if walked.is_some_and(|walked| walked.sums != dir.sums) {
            self.lose(snapshot, path, "the folder's sums are wrong");
        }
        Ok(())
    }

    /// Returns what the node holds, or `None` if it cannot be read.
    fn node(&mut self, snapshot: SnapshotId, reference: &NodeRef, path: &mut Vec<u8>) -> Result<Option<Walked>> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(RepositoryError::Interrupted);
        }
        let lost_before = self.lost.len();
        let node = match self.load(reference) {
            Ok(node) => node,
            Err(error) if error.is_damage() => {
                self.lose(snapshot, path, with_cause(&error));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let last = match &node.kind {
            NodeKind::Leaf(entries) => entries.last().map(|entry| entry.name.clone()),
            NodeKind::Inner { children, .. } => children.last().map(|child| child.last.clone()),
            NodeKind::List(_) => None,
        };
        let walked = Walked { sums: node.sums(), last };
        if self.sound.contains(&reference.id) {
            return Ok(Some(walked));
        }
        match &node.kind {
            NodeKind::Leaf(entries) => entries.iter().try_for_each(|entry| self.entry(snapshot, entry, path))?,
            NodeKind::Inner { level, children } => {
                for child in children {
                    let below = self.node(snapshot, &child.node, path)?;
                    if let Some(below) = below
                        && (below.sums != child.sums || below.last.as_ref() != Some(&child.last))
                    {
                        self.lose(snapshot, path, format!("a node of level {level} does not fit what it lists"));
                    }
                }
            }
            NodeKind::List(_) => self.lose(snapshot, path, "a list of content stands where a folder should"),
        }
        if self.lost.len() == lost_before {
            self.sound.insert(reference.id);
        }
        Ok(Some(walked))
    }

    fn load(&mut self, reference: &NodeRef) -> std::result::Result<Arc<Node>, ReadError> {
        let blob = BlobId::from(reference.id);
        self.needed.extend(self.unindexed.get(&blob));
        if self.bad.contains(&blob) {
            return Err(ReadError::Mismatch { blob });
        }
        // A hint into a pack that is whole is enough to read, but the index must know the node as well.
        match self.local.find(&blob)? {
            Some(_) => self.reader.node(reference),
            None => Err(ReadError::Missing { blob }),
        }
    }

    fn entry(&mut self, snapshot: SnapshotId, entry: &Entry, path: &mut Vec<u8>) -> Result<()> {
        let len = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        for content in entry.all_contents() {
            if let Err(error) = self.segments(&content.segments) {
                if !error.is_damage() {
                    return Err(error.into());
                }
                self.lose(snapshot, path, with_cause(&error));
            }
        }
        if let EntryKind::Directory(dir) = &entry.kind {
            self.directory(snapshot, dir, path)?;
        }
        path.truncate(len);
        Ok(())
    }

    fn segments(&mut self, segments: &[Segment]) -> std::result::Result<(), ReadError> {
        for segment in segments {
            match segment {
                Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => {
                    chunks.iter().try_for_each(|chunk| self.chunk(chunk))?;
                }
                Segment::List { len, node } => self.list(*len, node)?,
            }
        }
        Ok(())
    }

    fn list(&mut self, len: u64, reference: &NodeRef) -> std::result::Result<(), ReadError> {
        let node = self.load(reference)?;
        let NodeKind::List(segments) = &node.kind else {
            return Err(ReadError::malformed_node(reference.id, "is no content list"));
        };
        if segments.iter().map(Segment::len).sum::<u64>() != len {
            return Err(ReadError::malformed_node(reference.id, "does not list the content it should"));
        }
        if self.sound.contains(&reference.id) {
            return Ok(());
        }
        self.segments(segments)?;
        self.sound.insert(reference.id);
        Ok(())
    }

    fn chunk(&mut self, chunk: &ChunkRef) -> std::result::Result<(), ReadError> {
        let blob = BlobId::from(chunk.id);
        self.needed.extend(self.unindexed.get(&blob));
        match self.local.find(&blob)? {
            None => Err(ReadError::Missing { blob }),
            Some(at) if at.len != chunk.len || self.bad.contains(&blob) => Err(ReadError::Mismatch { blob }),
            Some(_) => Ok(()),
        }
    }
}
