//! Proves a repository sound, or says exactly what is damaged and which items that touches.
//!
//! The structure: every object opens and is named rightly, index objects agree with the footers of their packs, every
//! snapshot's tree can be walked, its sums are right, and everything it refers to is in a pack. With `read_data` the
//! bytes as well: every pack is held against its name, every block opened, every blob held against its id.
//!
//! Nothing that this machine remembers is believed, except for one question that nothing else answers: whether
//! a snapshot or key slot that was once there is gone without a record of its removal.

mod packs;
mod walk;

use self::packs::{ReadPack, read_pack};
use self::walk::Walk;
use crate::backend::{Backend, BackendError, ObjectName};
use crate::format::entry::{ATTRIBUTES, STREAM, TEXT};
use crate::format::id::{BlobId, IndexId, KeyId, PackId, SnapshotId};
use crate::format::keyslot::SlotError;
use crate::format::pack::{Footer, Location};
use crate::format::snapshot::{PARTS_NAME, Snapshot};
use crate::repository::local_state::{LocalState, Synced};
use crate::repository::reader::{CacheSizes, Lookup, ReadError};
use crate::repository::{IndexSearch, Repository, RepositoryError};
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

/// Which part of an item is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostPart {
    /// The item itself: its content, or everything in a folder.
    Item,
    /// The service's own description of the item. Its file still reads.
    Payload,
    /// The text of a mail that the text view shows. The mail itself still reads.
    Text,
    /// The stream as which the service exported the item. Its file still reads.
    Stream,
    /// Extended attributes of a file. Its content still reads.
    Attributes,
    /// What a later version stored beside the item. Its file still reads.
    Other,
}

impl LostPart {
    /// The name that JSON and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Payload => "payload",
            Self::Text => "text",
            Self::Stream => "stream",
            Self::Attributes => "attributes",
            Self::Other => "other",
        }
    }

    /// Returns the part that stands under `key` among an entry's further contents.
    fn of_key(key: u64) -> Self {
        match key {
            TEXT => Self::Text,
            STREAM => Self::Stream,
            ATTRIBUTES => Self::Attributes,
            _ => Self::Other,
        }
    }
}

/// An item that cannot be read, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostItem {
    /// The snapshot it is in.
    pub snapshot: SnapshotId,
    /// Its path from the snapshot's root; for a folder, everything under it is lost.
    pub path: Vec<u8>,
    /// Which part of it.
    pub part: LostPart,
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
    /// Objects that only a later version of this program reads: they were not looked into.
    pub later: Vec<Problem>,
    /// What is no damage, but somebody should know.
    pub warnings: Vec<String>,
    /// Snapshots walked.
    pub snapshots: usize,
    /// Packs looked at.
    pub packs: usize,
    /// Bytes of packs read whole.
    pub bytes_read: u64,
    /// Packs that are damaged, wholly or in part.
    pub damaged: BTreeSet<PackId>,
    /// Packs that were read whole, and are as they were written.
    pub proven: HashSet<PackId>,
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
    let report = CheckReport::default();
    let mut check = Check { repository, cancel, report, bad: HashMap::new(), later_index: false };
    // In the order opposite to writing: all that these snapshots need is there when they are.
    let snapshots = check.snapshots()?;
    check.clocks(&snapshots);
    check.removals(&snapshots, remembered)?;
    let indexes = repository.index_ids()?;
    let packs = repository.packs()?;
    check.report.packs = packs.len();
    check.indexes(indexes, &packs)?;
    let mut local = LocalState::open(scratch, repository)?;
    let Synced { adopted: without_index, .. } = local.sync(repository)?;
    check.report.packs_without_index = without_index.len();
    let unindexed = check.unindexed(&without_index)?;
    check.footers(&packs, &local)?;
    if let Some(percent) = options.read_data {
        check.read_packs(&packs, percent)?;
        check.healed(&packs, &without_index)?;
    }
    check.trees(&snapshots, local, &unindexed)?;
    Ok(check.report)
}

struct Check<'a> {
    repository: &'a Arc<Repository>,
    cancel: &'a AtomicBool,
    report: CheckReport,
    /// Blobs whose bytes are not their own, and in which packs.
    bad: HashMap<BlobId, Vec<PackId>>,
    /// Whether an index object is of a later version: it may speak of packs that no other does.
    later_index: bool,
}

type Result<T> = std::result::Result<T, RepositoryError>;

impl Check<'_> {
    fn problem(&mut self, object: impl ToString, error: impl ToString) {
        self.report.problems.push(Problem { object: object.to_string(), error: error.to_string() });
    }

    fn later(&mut self, object: impl ToString, error: impl ToString) {
        self.report.later.push(Problem { object: object.to_string(), error: error.to_string() });
    }

    /// Records damage, or that a later version is needed, and goes on; any other error ends the check.
    fn note<T>(&mut self, object: ObjectName, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_damage(self.repository, &error) => {
                self.problem(object, with_cause(&error));
                Ok(None)
            }
            Err(error) if error.is_of_later_version() => {
                self.later(object, with_cause(&error));
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

    /// Warns of snapshots that were made while a clock was wrong.
    fn clocks(&mut self, snapshots: &[(SnapshotId, Snapshot)]) {
        let now = jiff::Timestamp::now().as_second();
        for (id, snapshot) in snapshots.iter().filter(|(_, snapshot)| snapshot.is_ahead(now)) {
            let time = jiff::Timestamp::from_second(snapshot.started.secs).unwrap_or(jiff::Timestamp::MAX);
            self.report.warnings.push(format!(
                "{} of the set {} has a time in the future, {time}: a clock was wrong then, or is now; `latest` passes over it \
                 until then",
                ObjectName::snapshot(id.0),
                snapshot.set
            ));
        }
    }

    /// Proves the key slots and the records of removals, and misses what is gone without one.
    fn removals(
        &mut self,
        snapshots: &[(SnapshotId, Snapshot)],
        (seen_snapshots, seen_keys): (Vec<SnapshotId>, Vec<KeyId>),
    ) -> Result<()> {
        let slots = self.repository.slots()?;
        for slot in &slots {
            match &slot.slot {
                Err(error @ SlotError::Later) => self.later(ObjectName::key(slot.id.0), error),
                Err(error) => self.problem(ObjectName::key(slot.id.0), error),
                Ok(_) => {}
            }
        }
        let (mut removed_keys, mut removed_snapshots) = (Vec::new(), Vec::new());
        let later_before = self.report.later.len();
        for name in self.repository.removal_records()? {
            let loaded = self.repository.load_removals(name);
            if let Some((keys, snapshots)) = self.note(name, loaded)? {
                removed_keys.extend(keys);
                removed_snapshots.extend(snapshots);
            }
        }
        // A record that cannot be read may be the one that says why something is gone.
        let may_be_recorded = self.report.later.len() > later_before;
        let keys_there: HashSet<_> = slots.iter().map(|slot| slot.id).chain(removed_keys).collect();
        let named_keys = snapshots.iter().flat_map(|(_, snapshot)| snapshot.keys.iter().copied());
        let missing: BTreeSet<_> = named_keys.chain(seen_keys).filter(|id| !keys_there.contains(id)).collect();
        for key in missing {
            self.missing(ObjectName::key(key.0), may_be_recorded);
        }
        let mut there: HashSet<_> = self.repository.snapshot_ids()?.into_iter().collect();
        there.extend(removed_snapshots);
        let named = snapshots.iter().flat_map(|(_, snapshot)| snapshot.parents.iter().copied());
        let missing: BTreeSet<_> = named.chain(seen_snapshots).filter(|id| !there.contains(id)).collect();
        for id in missing {
            self.missing(ObjectName::snapshot(id.0), may_be_recorded);
        }
        Ok(())
    }

    fn missing(&mut self, object: ObjectName, may_be_recorded: bool) {
        match may_be_recorded {
            true => {
                self.later(object, "is missing, and only records of a later version can say whether it was removed")
            }
            false => self.problem(object, "is missing, and there is no record that it was removed"),
        }
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
        self.later_index |= loaded.as_ref().is_err_and(RepositoryError::is_of_later_version);
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
                Err(error) if is_damage(self.repository, &error) || error.is_of_later_version() => complete = false,
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
                Err(error) if error.is_damage() || error.is_of_later_version() => {}
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
            if footer.as_ref().is_err_and(|error| is_damage(self.repository, error)) {
                self.report.damaged.insert(*id);
            }
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
            .map(|(id, _)| *id)
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (repository, cancel) = (self.repository, self.cancel);
        let results: Vec<Result<Vec<ReadPack>>> = std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let work = || {
                let mut read = Vec::new();
                while let Some(id) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if cancel.load(Ordering::Relaxed) {
                        return Err(RepositoryError::Interrupted);
                    }
                    read.push(read_pack(repository, *id)?);
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
                // What is wrong with its footer was told with the footers; here it is what the bytes mean.
                if let Some(error) = read.later
                    && !self.report.later.iter().any(|object| object.object == name.to_string())
                {
                    self.later(name, error);
                }
                match read.errors.is_empty() && read.bad.is_empty() {
                    true => self.report.proven.insert(read.id),
                    false => self.report.damaged.insert(read.id),
                };
                for error in read.errors {
                    self.problem(name, error);
                }
                for blob in read.bad {
                    self.bad.entry(blob).or_default().push(read.id);
                }
            }
        }
        Ok(())
    }

    /// Takes out of the bad blobs those that another pack holds as well: a backup after an earlier check stored them
    /// anew.
    fn healed(&mut self, packs: &HashMap<PackId, u64>, without_index: &[(PackId, Footer)]) -> Result<()> {
        if self.bad.is_empty() {
            return Ok(());
        }
        let bad = &mut self.bad;
        let mut look_at = |blob: BlobId, at: Location| {
            let pack = at.block.pack;
            if packs.contains_key(&pack) && bad.get(&blob).is_some_and(|bad_in| !bad_in.contains(&pack)) {
                bad.remove(&blob);
            }
        };
        for (id, footer) in without_index {
            footer.locations(*id).for_each(|(blob, at)| look_at(blob, at));
        }
        for id in self.repository.index_ids()? {
            match self.repository.load_index(id) {
                Ok(index) => index.locations().for_each(|(blob, at)| look_at(blob, at)),
                // Reported with the index objects.
                Err(error) if error.is_damage() || error.is_of_later_version() => {}
                Err(error) => return Err(error),
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
        let search = IndexSearch::new(self.repository.clone());
        let reader = self.repository.reader(Box::new(SharedLookup { local: local.clone(), search }), sizes);
        let mut walk = Walk {
            reader: &reader,
            local: &local,
            bad: &self.bad,
            cancel: self.cancel,
            unindexed,
            needed: BTreeSet::new(),
            damaged: BTreeSet::new(),
            sound: HashSet::new(),
            lost: Vec::new(),
        };
        for (id, snapshot) in snapshots {
            walk.directory(*id, snapshot.directory(), &mut Vec::new())?;
            if let Some(parts) = &snapshot.source_parts {
                walk.directory(*id, parts, &mut PARTS_NAME.to_vec())?;
            }
        }
        let Walk { lost, needed, damaged, .. } = walk;
        self.report.damaged.extend(damaged);
        self.report.lost = lost;
        // An index object of a later version may list them.
        let told = if self.later_index { BTreeSet::new() } else { needed };
        for pack in told {
            self.problem(
                ObjectName::pack(pack.0),
                "is needed by a snapshot, but in no index: an index object is missing",
            );
        }
        Ok(())
    }
}

/// Returns whether an object is damaged. One that the disk cannot read is, too, as long as the disk can read another
/// one: otherwise the storage is out of reach.
fn is_damage(repository: &Repository, error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Backend(BackendError::Io { .. }) => repository.backend().load(ObjectName::config()).is_ok(),
        error => error.is_damage(),
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

/// Asks the local state, which knows one place of each blob, and then the index objects for others.
struct SharedLookup {
    local: Arc<LocalState>,
    search: IndexSearch,
}

impl Lookup for SharedLookup {
    fn find_elsewhere(&self, blob: &BlobId, tried: &[Location]) -> std::result::Result<Option<Location>, ReadError> {
        match self.local.find_elsewhere(blob, tried)? {
            None if !tried.is_empty() => self.search.find_elsewhere(blob, tried),
            found => Ok(found),
        }
    }
}
