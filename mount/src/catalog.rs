//! The folders `snapshots` and `text`: what the catalog lists now, under which folder names, in which inode slots.
//!
//! Invariants:
//! - While mounted, a snapshot keeps its folder name, its slot and its place in the listing, whatever comes and goes
//!   around it. Over remounts the slot stays the same unless two snapshots collide and the older one is gone.
//! - A snapshot that left the catalog leaves the folder at once, but its view is kept until the kernel has forgotten
//!   the last of its inodes: an open file stays readable. That is one counter for a snapshot, not a table of inodes.
//!   (What was open when the snapshot left stays in the kernel's cache after it is closed, until memory is needed.)

use crate::error::FsError;
use crate::inode::Slot;
use crate::view::{Catalog, Side, SnapshotInfo, Time, View, ViewError};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The longest file name Linux has.
pub(crate) const NAME_LENGTH_BYTES_MAX: usize = 255;

/// A snapshot that the mount has seen.
pub(crate) struct Snapshot {
    pub(crate) id: [u8; 32],
    pub(crate) time: Time,
    pub(crate) slot: Slot,
    views: [Mutex<Option<Arc<dyn View>>>; Side::ALL.len()],
    /// How many references to its inodes the kernel holds. May err upwards (an answer that no longer reached the
    /// kernel), which only keeps the view longer.
    references: AtomicI64,
}

/// A snapshot's folder.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Grows in the order in which folders appeared. Position in the listing, so that a listing which goes on while
    /// folders come and go neither repeats nor loses one of the others.
    pub(crate) position: u64,
}

#[derive(Default)]
struct State {
    infos: Vec<SnapshotInfo>,
    folders: BTreeMap<u64, Folder>,
    position_by_name: HashMap<String, u64>,
    newest: Option<u64>,
    readme: Arc<str>,
    /// Also those that have left the catalog and are still in use.
    by_slot: HashMap<Slot, Arc<Snapshot>>,
    position_next: u64,
}

/// What became different in the folder `snapshots`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Folders that appeared or went away.
    pub names: Vec<String>,
    /// Whether `latest` leads elsewhere, appeared or went away.
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
    /// Whether the catalog could not be asked the last time.
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

    /// Asks the catalog again. To be called from one thread at a time.
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

    /// Asks for the snapshots. A failure is told once, until it is over: this is called every second.
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
                    tracing::error!(error, "the list of snapshots cannot be read and stays as it was; trying again");
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

    /// Returns what `README.txt` says now.
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

    /// Returns whether there is a folder for this side of the snapshots.
    pub(crate) fn shows(&self, side: Side) -> bool {
        self.catalog.shows(side)
    }

    /// Returns the snapshot's view, opening it at first use.
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
    /// Returns the beginning of the id in hexadecimal, for the log.
    pub(crate) fn short_id(&self) -> String {
        hex(&self.id[..8])
    }

    /// Returns the view if it is open already.
    pub(crate) fn view_if_open(&self, side: Side) -> Option<Arc<dyn View>> {
        self.views[side as usize].try_lock().and_then(|view| view.clone())
    }

    /// The kernel has been given one more reference to an inode of this snapshot.
    pub(crate) fn referenced(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel has dropped `count` of them.
    pub(crate) fn forgotten(&self, count: u64) {
        self.references.fetch_sub(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl State {
    /// Lets go of snapshots that have left the catalog and that nobody uses any more.
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
        // Whoever has a name keeps it, so these are taken before any newcomer is named.
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

    /// Returns the snapshot's record, giving it a slot if it is new here.
    fn snapshot(&mut self, info: &SnapshotInfo) -> Arc<Snapshot> {
        let mut slot = Slot::preferred(&info.id);
        // Eight million slots: this ends long before a catalog fills them.
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

/// Returns a legal file name for the snapshot that is not in `taken`: its own name where possible.
fn folder_name(info: &SnapshotInfo, taken: &HashSet<String>) -> String {
    let mut name: String = info.name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    if matches!(name.as_str(), "" | "." | "..") {
        name = "snapshot".to_owned();
    }
    let hex = hex(&info.id);
    // The name alone, then with more and more of the id behind it; ids differ, so the whole of it ends the search.
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

/// Calls into the catalog; a panic there becomes an error here. Logs what somebody must look at.
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
        // Its time comes.
        catalog.0.lock()[1].ahead = false;
        assert_eq!(listing.refresh().unwrap(), Changes { names: vec![], latest: true });
        assert_eq!(listing.newest().unwrap().name, "ninety");
        // The clock of this machine goes back to 1970.
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
