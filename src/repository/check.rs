//! Proves a repository sound, or says exactly what is damaged and which items are affected.
//!
//! The structure is always checked: every object opens and has the right name; index objects agree with the footers of
//! their packs; every snapshot's tree can be walked and its sums are right; and everything it refers to is in a pack.
//! With `read_data` the bytes are checked as well: every pack is compared with its name, every block is opened, every
//! blob is compared with its id.
//!
//! A check does not trust what this machine remembers, with one exception that nothing else can answer: whether a
//! snapshot or key slot that once existed is gone without a record of its removal.

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
use crate::repository::read_error::ReadError;
use crate::repository::reader::{CacheSizes, Lookup};
use crate::repository::{IndexSearch, Repository, RepositoryError};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The scope of a check.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Percentage of the packs to read whole. `None` reads no pack whole.
    pub read_data: Option<u8>,
}

/// An object that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the object's file.
    pub object: String,
    /// What is wrong with the object.
    pub error: String,
}

/// The part of an item that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostPart {
    /// The item itself: its content, or everything in a folder.
    Item,
    /// The service's own description of the item. The item's file can still be read.
    Payload,
    /// The text of a mail that the text view shows. The mail itself can still be read.
    Text,
    /// The service's export of the item. The item's file can still be read.
    Stream,
    /// Extended attributes of a file. Its content can still be read.
    Attributes,
    /// Content that a later version stored with the item. The item's file can still be read.
    Other,
}

impl LostPart {
    /// Returns the name of the part in JSON and messages.
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

    /// Returns the part that has this `key` among the further contents of an entry.
    fn of_key(key: u64) -> Self {
        match key {
            TEXT => Self::Text,
            STREAM => Self::Stream,
            ATTRIBUTES => Self::Attributes,
            _ => Self::Other,
        }
    }
}

/// An item that cannot be read, wholly or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostItem {
    /// The snapshot that holds the item.
    pub snapshot: SnapshotId,
    /// The path from the root of the snapshot. For a folder, everything under it is lost.
    pub path: Vec<u8>,
    /// The part that is lost.
    pub part: LostPart,
    /// Why the part cannot be read.
    pub error: String,
}

/// The result of a check.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Damaged or missing objects.
    pub problems: Vec<Problem>,
    /// Items that are lost because of these problems.
    pub lost: Vec<LostItem>,
    /// Objects that only a later version of this program reads. They were not looked into.
    pub later: Vec<Problem>,
    /// Facts that are no damage, but that somebody should know.
    pub warnings: Vec<String>,
    /// The number of snapshots walked.
    pub snapshots: usize,
    /// The number of packs looked at.
    pub packs: usize,
    /// The bytes of all packs that were read whole.
    pub bytes_read: u64,
    /// Packs that are damaged, wholly or in part.
    pub damaged: BTreeSet<PackId>,
    /// Packs that were read whole and are undamaged.
    pub proven: HashSet<PackId>,
    /// The number of packs that no index object lists. An interrupted backup left them, or one that runs right now
    /// writes them. The next backup indexes them.
    pub packs_without_index: usize,
}

impl CheckReport {
    /// Returns whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.lost.is_empty()
    }
}

/// Checks `repository`. Builds its own index in the folder `scratch`, which the caller removes.
///
/// `remembered` are the snapshots and key slots that this machine has seen.
///
/// # Errors
/// When the storage fails (damaged objects are no error), or the check was cancelled.
pub fn check(
    repository: &Arc<Repository>,
    options: CheckOptions,
    scratch: &Path,
    remembered: (Vec<SnapshotId>, Vec<KeyId>),
    cancel: &AtomicBool,
) -> Result<CheckReport> {
    let report = CheckReport::default();
    let mut check = Check { repository, cancel, report, bad: HashMap::new(), later_index: false };
    // A backup stores packs, then index objects, then the snapshot. They are listed here in the opposite order, so
    // everything that these snapshots need is in the later listings.
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
    /// Blobs whose bytes do not match their ids, with the packs that hold these bytes.
    bad: HashMap<BlobId, Vec<PackId>>,
    /// True if an index object is of a later version. It may list packs that no other index object lists.
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

    /// Reports damage, or an object of a later version, and goes on. Any other error ends the check.
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
                "{} of the set {} has a time in the future, {time}: a clock was wrong then or is wrong now; `latest` \
                 passes over it until then",
                ObjectName::snapshot(id.0),
                snapshot.set
            ));
        }
    }

    /// Verifies the key slots and the records of removals. Reports key slots and snapshots that are gone without a
    /// record.
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
        // A record that cannot be read may name what is gone.
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

    /// Verifies the index objects and compares them with the footers of their packs.
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
                // The check of the footers reports this error.
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
                self.problem(name, "does not agree with the footers of its packs");
            }
        }
        Ok(())
    }

    /// Returns the blobs that no index object lists, and their packs. No snapshot may need one of them: index objects
    /// are durable before the snapshot is. If one does, an index object is missing.
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
                // The check of the index objects reports this error.
                Err(error) if error.is_damage() || error.is_of_later_version() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(unindexed)
    }

    /// Verifies the footers. The blobs of a pack whose footer is damaged may still be undamaged.
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

    /// Reads `percent` of the packs. The choice depends on their ids, which are as good as random.
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
                // If the footer is of a later version, the check of the footers has reported the pack already.
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

    /// Removes from the bad blobs those that another pack holds as well: a backup after an earlier check stored them
    /// again.
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
                // The check of the index objects reports this error.
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
        let sizes = CacheSizes { blocks: 4 << 20, nodes: 64 << 20, archives: 0 };
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
        // An index object of a later version may list these packs, so they are not reported.
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

/// Returns whether the error means that an object is damaged. An object that the disk cannot read is damaged if the
/// disk can read another one. Otherwise the storage is out of reach.
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

/// Asks the local state first, which knows one location of each blob, and then the index objects for others.
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
