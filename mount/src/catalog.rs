//! The folders `snapshots` and `text`: which snapshots the catalog lists now, the names of their folders, and their
//! inode slots.
//!
//! Invariants:
//! - While mounted, a snapshot keeps its folder name, its slot and its position in the listing, even if other snapshots
//!   come and go. After a remount it has the same slot again, unless two snapshots collide and the older one is gone.
//! - When a snapshot leaves the catalog, its folder disappears at once. Its view is kept until the kernel has forgotten
//!   the last of its inodes, so that open files stay readable. This takes one counter per snapshot, not a table of
//!   inodes. (A file that was open when the snapshot left stays in the kernel's cache after it is closed, until the
//!   kernel needs the memory.)

use crate::error::FsError;
use crate::inode::Slot;
use crate::view::{Catalog, Side, SnapshotInfo, Time, View, ViewError};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Maximum length of a file name in bytes, as on Linux.
pub(crate) const NAME_LENGTH_BYTES_MAX: usize = 255;

/// A snapshot that the mount has seen.
pub(crate) struct Snapshot {
    pub(crate) id: [u8; 32],
    pub(crate) time: Time,
    pub(crate) slot: Slot,
    views: [Mutex<Option<Arc<dyn View>>>; Side::ALL.len()],
    /// Number of references that the kernel holds to inodes of this snapshot. It may be too high, if an answer no
    /// longer reached the kernel; then the view is only kept longer.
    references: AtomicI64,
}

/// The folder of a snapshot.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Position in the listing. Later folders have higher positions. So if folders come and go during a listing, it
    /// neither repeats nor misses any other folder.
    pub(crate) position: u64,
}

#[derive(Default)]
struct State {
    infos: Vec<SnapshotInfo>,
    folders: BTreeMap<u64, Folder>,
    position_by_name: HashMap<String, u64>,
    newest: Option<u64>,
    readme: Arc<str>,
    /// All snapshots by slot, including those that left the catalog but are still in use.
    by_slot: HashMap<Slot, Arc<Snapshot>>,
    position_next: u64,
}

/// Changes in the folder `snapshots`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Names of folders that appeared or disappeared.
    pub names: Vec<String>,
    /// Whether `latest` appeared, disappeared or points to another snapshot.
    pub latest: bool,
}

impl Changes {
    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.latest
    }
}

pub(crate) struct Listing {
    catalog: Arc<dyn Catalog>,
    /// True if the last request to the catalog failed.
    failing: AtomicBool,
    state: RwLock<State>,
}

impl Listing {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Result<Listing, FsError> {
        let listing = Listing { catalog, failing: AtomicBool::new(false), state: RwLock::default() };
        listing.refresh()?;
        listing.state.write().readme = listing.new_readme();
        Ok(listing)
    }

    /// Reads the list of snapshots again. Must be called from one thread at a time.
    pub(crate) fn refresh(&self) -> Result<Changes, FsError> {
        let mut infos = self.ask()?;
        infos.sort_by_key(|info| (info.time, info.id));
        let mut seen = HashSet::new();
        infos.retain(|info| seen.insert(info.id));

        if self.state.read().infos == infos {
            self.state.write().drop_unused(&seen);
            return Ok(Changes::default());
        }
        let readme = self.new_readme();
        let mut state = self.state.write();
        state.drop_unused(&seen);
        state.readme = readme;
        Ok(state.replace(infos))
    }

    /// Reads the list of snapshots. Logs only the first of several failures in a row, because this is called every
    /// second.
    fn ask(&self) -> Result<Vec<SnapshotInfo>, FsError> {
        let asked = catch_unwind(AssertUnwindSafe(|| self.catalog.snapshots()));
        let failed = !matches!(asked, Ok(Ok(_)));
        let failed_before = self.failing.swap(failed, Ordering::Relaxed);
        match asked {
            Ok(Ok(infos)) => {
                if failed_before {
                    tracing::warn!("the list of snapshots can be read again");
                }
                Ok(infos)
            }
            Ok(Err(error)) => {
                if !failed_before {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "could not read the list of snapshots; it stays as it was, trying again");
                }
                Err(error.into())
            }
            Err(_) => {
                if !failed_before {
                    tracing::error!("the catalog panicked; the list of snapshots stays as it was");
                }
                Err(FsError::Panicked)
            }
        }
    }

    fn new_readme(&self) -> Arc<str> {
        guarded("readme", || Ok(self.catalog.readme())).unwrap_or_default().into()
    }

    /// Returns the current content of `README.txt`.
    pub(crate) fn readme(&self) -> Arc<str> {
        self.state.read().readme.clone()
    }

    pub(crate) fn by_name(&self, name: &[u8]) -> Option<Folder> {
        let state = self.state.read();
        let position = state.position_by_name.get(std::str::from_utf8(name).ok()?)?;
        state.folders.get(position).cloned()
    }

    pub(crate) fn by_slot(&self, slot: Slot) -> Option<Arc<Snapshot>> {
        self.state.read().by_slot.get(&slot).cloned()
    }

    pub(crate) fn newest(&self) -> Option<Folder> {
        let state = self.state.read();
        state.newest.and_then(|position| state.folders.get(&position)).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.read().folders.len()
    }

    /// Returns the folders from `position` on, in listing order.
    pub(crate) fn from(&self, position: u64) -> Vec<Folder> {
        self.state.read().folders.range(position..).map(|(_, folder)| folder.clone()).collect()
    }

    /// Returns whether the catalog shows this side of the snapshots.
    pub(crate) fn shows(&self, side: Side) -> bool {
        self.catalog.shows(side)
    }

    /// Returns the snapshot's view. Opens it on first use.
    pub(crate) fn view(&self, snapshot: &Snapshot, side: Side) -> Result<Arc<dyn View>, FsError> {
        let mut view = snapshot.views[side as usize].lock();
        if let Some(view) = &*view {
            return Ok(view.clone());
        }
        let opened = guarded("open", || self.catalog.open(&snapshot.id, side))?;
        Ok(view.insert(opened).clone())
    }
}

impl Snapshot {
    /// Returns the first 8 bytes of the id in hexadecimal, for the log.
    pub(crate) fn short_id(&self) -> String {
        hex(&self.id[..8])
    }

    /// Returns the view if it is already open.
    pub(crate) fn view_if_open(&self, side: Side) -> Option<Arc<dyn View>> {
        self.views[side as usize].try_lock().and_then(|view| view.clone())
    }

    /// Counts one more reference that the kernel holds to an inode of this snapshot.
    pub(crate) fn referenced(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts `count` references that the kernel dropped.
    pub(crate) fn forgotten(&self, count: u64) {
        self.references.fetch_sub(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl State {
    /// Removes snapshots that left the catalog and that the kernel no longer refers to.
    fn drop_unused(&mut self, in_catalog: &HashSet<[u8; 32]>) {
        let listed: HashSet<Slot> = self.folders.values().map(|folder| folder.snapshot.slot).collect();
        self.by_slot.retain(|slot, snapshot| {
            listed.contains(slot)
                || in_catalog.contains(&snapshot.id)
                || snapshot.references.load(Ordering::Relaxed) > 0
        });
    }

    fn replace(&mut self, infos: Vec<SnapshotInfo>) -> Changes {
        let before = std::mem::take(&mut self.folders);
        let latest_before = self.newest.take();
        let mut kept: HashMap<[u8; 32], Folder> =
            before.into_values().map(|folder| (folder.snapshot.id, folder)).collect();
        // Existing folders keep their names, so these names are taken before new folders are named.
        let mut taken: HashSet<String> =
            infos.iter().filter_map(|info| kept.get(&info.id)).map(|folder| folder.name.clone()).collect();

        let mut changes = Changes::default();
        let (mut newest, mut newest_due) = (None, None);
        for info in &infos {
            let folder = kept.remove(&info.id).unwrap_or_else(|| {
                let name = folder_name(info, &taken);
                taken.insert(name.clone());
                changes.names.push(name.clone());
                self.position_next += 1;
                Folder { name, snapshot: self.snapshot(info), position: self.position_next - 1 }
            });
            newest = Some(folder.position);
            if !info.ahead {
                newest_due = newest;
            }
            self.folders.insert(folder.position, folder);
        }
        self.newest = newest_due.or(newest);
        changes.names.extend(kept.into_values().map(|folder| folder.name));
        changes.latest = self.newest != latest_before;
        self.position_by_name = self.folders.values().map(|folder| (folder.name.clone(), folder.position)).collect();
        self.infos = infos;
        changes
    }

    /// Returns the record of the snapshot. A new snapshot gets a slot.
    fn snapshot(&mut self, info: &SnapshotInfo) -> Arc<Snapshot> {
        let mut slot = Slot::preferred(&info.id);
        // There are eight million slots, so a free one is found long before a catalog fills them.
        while let Some(other) = self.by_slot.get(&slot) {
            if other.id == info.id {
                return other.clone();
            }
            slot = slot.next();
        }
        let snapshot = Arc::new(Snapshot {
            id: info.id,
            time: info.time,
            slot,
            views: Default::default(),
            references: AtomicI64::new(0),
        });
        self.by_slot.insert(slot, snapshot.clone());
        snapshot
    }
}

/// Returns a legal folder name for the snapshot that is not in `taken`: the snapshot's own name if possible.
fn folder_name(info: &SnapshotInfo, taken: &HashSet<String>) -> String {
    let mut name: String = info.name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    if matches!(name.as_str(), "" | "." | "..") {
        name = "snapshot".to_owned();
    }
    let hex = hex(&info.id);
    // Try the name alone, then with more and more of the id appended. Ids are unique, so the whole id ends the search.
    let suffixes = std::iter::once(String::new()).chain((8..=hex.len()).step_by(8).map(|n| format!(" {}", &hex[..n])));
    for suffix in suffixes {
        let mut end = name.len().min(NAME_LENGTH_BYTES_MAX - suffix.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let candidate = format!("{}{suffix}", &name[..end]);
        if !taken.contains(&candidate) {
            return candidate;
        }
    }
    hex
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Calls the catalog and logs a failure. Turns a panic into an error.
fn guarded<T>(call: &'static str, f: impl FnOnce() -> Result<T, ViewError>) -> Result<T, FsError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(call, error = &error as &dyn std::error::Error, "the catalog failed");
            Err(error.into())
        }
        Err(_) => {
            tracing::error!(call, "the catalog panicked");
            Err(FsError::Panicked)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names(Mutex<Vec<SnapshotInfo>>);

    impl Catalog for Names {
        fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ViewError> {
            Ok(self.0.lock().clone())
        }
        fn readme(&self) -> String {
            String::new()
        }
        fn open(&self, _: &[u8; 32], _: Side) -> Result<Arc<dyn View>, ViewError> {
            Err(ViewError::NotFound)
        }
    }

    fn info(number: u8, name: &str) -> SnapshotInfo {
        let time = Time { secs: number.into(), nanos: 0 };
        SnapshotInfo { id: [number; 32], name: name.to_owned(), time, ahead: false }
    }

    fn listing(infos: &[SnapshotInfo]) -> (Arc<Names>, Listing) {
        let names = Arc::new(Names(Mutex::new(infos.to_vec())));
        (names.clone(), Listing::new(names).unwrap())
    }

    fn names(listing: &Listing) -> Vec<String> {
        listing.from(0).into_iter().map(|folder| folder.name).collect()
    }

    #[test]
    fn hostile_names_become_legal_and_unique() {
        let long = "é".repeat(200);
        let (_, listing) = listing(&[
            info(1, "same"),
            info(2, "same"),
            info(3, "../../etc/passwd"),
            info(4, ".."),
            info(5, ""),
            info(6, &long),
            info(7, &long),
            info(8, "new\nline\0"),
        ]);
        let names = names(&listing);
        assert_eq!(names[0], "same");
        assert_eq!(names[1], "same 02020202");
        assert_eq!(names[2], ".._.._etc_passwd");
        assert_eq!(names[3], "snapshot");
        assert_eq!(names[4], "snapshot 05050505");
        assert_eq!(names[7], "new_line_");
        assert!(names.iter().all(|name| name.len() <= NAME_LENGTH_BYTES_MAX && !name.contains('/')));
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 8);
        assert_eq!(listing.by_name(names[6].as_bytes()).unwrap().snapshot.id, [7; 32]);
    }

    #[test]
    fn names_and_slots_stay_while_others_come_and_go() {
        let (catalog, listing) = listing(&[info(5, "same"), info(6, "same")]);
        let before = listing.by_name(b"same 06060606").unwrap();
        *catalog.0.lock() = vec![info(6, "same"), info(1, "same")];
        let changes = listing.refresh().unwrap();
        assert_eq!(changes.names, ["same", "same"], "one came, one went, and both names have to be looked at again");
        assert!(!changes.latest);
        let after = listing.by_name(b"same 06060606").unwrap();
        assert_eq!((before.position, before.snapshot.slot), (after.position, after.snapshot.slot));
        assert!(listing.refresh().unwrap().is_empty());
    }

    #[test]
    fn newest_is_by_time() {
        let (catalog, listing) = listing(&[info(9, "nine"), info(3, "three")]);
        assert_eq!(listing.newest().unwrap().name, "nine");
        catalog.0.lock().push(info(20, "twenty"));
        assert_eq!(listing.refresh().unwrap(), Changes { names: vec!["twenty".into()], latest: true });
        assert_eq!(listing.newest().unwrap().name, "twenty");
        catalog.0.lock().clear();
        assert!(listing.refresh().unwrap().latest);
        assert!(listing.newest().is_none());
    }

    #[test]
    fn newest_is_none_of_the_future_unless_all_are() {
        let future = |number, name| SnapshotInfo { ahead: true, ..info(number, name) };
        let (catalog, listing) = listing(&[info(1, "one"), future(90, "ninety"), info(2, "two")]);
        assert_eq!(listing.newest().unwrap().name, "two");
        assert_eq!(listing.count(), 3, "it is listed all the same");
        // Now the time of the snapshot has come.
        catalog.0.lock()[1].ahead = false;
        assert_eq!(listing.refresh().unwrap(), Changes { names: vec![], latest: true });
        assert_eq!(listing.newest().unwrap().name, "ninety");
        // The clock of this machine was set back to 1970.
        catalog.0.lock().iter_mut().for_each(|info| info.ahead = true);
        listing.refresh().unwrap();
        assert_eq!(listing.newest().unwrap().name, "ninety");
    }

    #[test]
    fn a_snapshot_that_left_is_kept_while_it_is_used() {
        let (catalog, listing) = listing(&[info(1, "one")]);
        let snapshot = listing.by_name(b"one").unwrap().snapshot;
        snapshot.referenced();
        snapshot.referenced();
        catalog.0.lock().clear();
        assert_eq!(listing.refresh().unwrap().names, ["one"]);
        assert!(listing.by_name(b"one").is_none());
        listing.refresh().unwrap();
        assert!(listing.by_slot(snapshot.slot).is_some());
        snapshot.forgotten(2);
        listing.refresh().unwrap();
        assert!(listing.by_slot(snapshot.slot).is_none());
    }

    #[test]
    fn a_collision_is_probed_in_time_order() {
        let (_, listing) = listing(&[]);
        let mut state = listing.state.write();
        let first = state.snapshot(&info(1, "a"));
        let squatted = Slot::preferred(&[2; 32]);
        state.by_slot.insert(squatted, first);
        assert_eq!(state.snapshot(&info(2, "b")).slot, squatted.next());
    }
}
