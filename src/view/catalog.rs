//! The list of the snapshots in a repository. It is refreshed about once a second, as snapshots come and go.
//!
//! A snapshot is read only once, because it never changes. An object that cannot be read is not read or reported again
//! every second either: anyone who can write to the storage could put a hundred thousand objects there that are not
//! snapshots. But a damaged snapshot may be repaired. So an unreadable object is tried again when its length changes,
//! and from time to time.

use super::{Layout, SnapshotView, folder_name, readme};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::reader::Reader;
use crate::repository::{LeftOut, Repository, RepositoryError};
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_mount::{Catalog, Side, SnapshotInfo, Time, View, ViewError};

/// How long an unreadable snapshot is left alone after the first attempt. Each further attempt doubles the time, up to
/// `RETRY_AFTER_MAX`.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10 * 60);
/// Maximum number of unreadable snapshots that one refresh tries again.
const RETRIES_MAX: usize = 16;
/// Maximum number of unreadable snapshots that are reported one by one while the process runs.
const REPORTED_MAX: usize = 20;

/// The list of the snapshots in a repository.
pub struct RepositoryCatalog {
    repository: Arc<Repository>,
    reader: Arc<Reader>,
    layout: Layout,
    at: Option<PathBuf>,
    /// The snapshots that were read.
    known: Mutex<HashMap<SnapshotId, Snapshot>>,
    /// The objects that could not be read. `refresh` holds this lock from listing to loading, so an older list cannot
    /// overwrite a newer one.
    unreadable: Mutex<Unreadable>,
}

/// Snapshots that could not be read.
#[derive(Default)]
struct Unreadable {
    objects: HashMap<SnapshotId, Attempt>,
    /// How many of them were reported one by one.
    reported: usize,
    /// How many there were when the total was last reported.
    reported_total: usize,
}

struct Attempt {
    /// The length of the object, in bytes.
    len: u64,
    /// When the next attempt is due, and the wait before it. `None` for a snapshot of a later format version, which is
    /// never tried again.
    again: Option<(Instant, Duration)>,
}

impl Unreadable {
    /// Returns the listed objects that must be read: new ones, and unreadable ones whose next attempt is due.
    fn wanted(&mut self, listed: &[(SnapshotId, u64)], known: &HashMap<SnapshotId, Snapshot>) -> Vec<SnapshotId> {
        let len_of = |id: &SnapshotId| listed.binary_search_by_key(id, |(id, _)| *id).ok().map(|at| listed[at].1);
        self.objects.retain(|id, attempt| len_of(id) == Some(attempt.len));
        let now = Instant::now();
        let mut retried = 0;
        let mut wanted = |id: &SnapshotId| match self.objects.get(id) {
            None => !known.contains_key(id),
            Some(attempt) => {
                let due = attempt.again.is_some_and(|(at, _)| at <= now) && retried < RETRIES_MAX;
                retried += usize::from(due);
                due
            }
        };
        listed.iter().map(|(id, _)| *id).filter(|id| wanted(id)).collect()
    }

    fn record(&mut self, left_out: LeftOut, len: u64) {
        let before = self.objects.get(&left_out.id);
        let wait = before.and_then(|attempt| attempt.again).map_or(RETRY_AFTER, |(_, wait)| 2 * wait);
        let wait = wait.min(RETRY_AFTER_MAX);
        if before.is_none() && self.reported < REPORTED_MAX {
            self.reported += 1;
            tracing::warn!("{left_out}");
        }
        let again = (!left_out.is_of_later_version).then(|| (Instant::now() + wait, wait));
        self.objects.insert(left_out.id, Attempt { len, again });
    }

    /// Reports the number of unreadable snapshots once there are many, and again each time the number has doubled.
    fn report_total(&mut self) {
        let count = self.objects.len();
        if self.reported == REPORTED_MAX && count > REPORTED_MAX && count >= 2 * self.reported_total {
            self.reported_total = count;
            tracing::warn!(count, "snapshots cannot be read and are left out; `strongroom check` names them");
        }
    }
}

impl RepositoryCatalog {
    /// Creates the list of all snapshots in `repository`. `at` is the mount point, if there is one.
    pub fn new(repository: Arc<Repository>, reader: Arc<Reader>, layout: Layout, at: Option<PathBuf>) -> Self {
        Self { repository, reader, layout, at, known: Mutex::default(), unreadable: Mutex::default() }
    }

    fn refresh(&self) -> Result<Vec<SnapshotInfo>, RepositoryError> {
        let mut unreadable = self.unreadable.lock();
        let listed = self.repository.snapshot_sizes()?;
        let wanted = {
            let mut known = self.known.lock();
            known.retain(|id, _| listed.binary_search_by_key(id, |(id, _)| *id).is_ok());
            unreadable.wanted(&listed, &known)
        };
        // Do not hold the lock while loading, so that opening a known snapshot does not wait. Keep each snapshot as
        // soon as it is loaded, so that an error does not cost the ones before it.
        let left_out = Mutex::new(Vec::new());
        let loaded = self.repository.load_snapshots(&wanted, |id, loaded| match loaded {
            Ok(mut snapshot) => {
                // A snapshot may hold a thousand failures.
                snapshot.failures.truncate(readme::FAILURES_NAMED_MAX);
                snapshot.failures.shrink_to_fit();
                self.known.lock().insert(id, snapshot);
            }
            Err(unreadable) => left_out.lock().push(unreadable),
        });
        for left_out in left_out.into_inner() {
            let at = listed.binary_search_by_key(&left_out.id, |(id, _)| *id).expect("only what is listed is loaded");
            unreadable.record(left_out, listed[at].1);
        }
        let known = self.known.lock();
        unreadable.objects.retain(|id, _| !known.contains_key(id));
        unreadable.report_total();
        loaded?;
        let now = jiff::Timestamp::now().as_second();
        let info = |(id, snapshot): (&SnapshotId, &Snapshot)| SnapshotInfo {
            id: id.0,
            name: folder_name(snapshot),
            time: Time { secs: snapshot.started.secs, nanos: snapshot.started.nanos },
            ahead: snapshot.is_ahead(now),
        };
        Ok(known.iter().map(info).collect())
    }
}

impl Catalog for RepositoryCatalog {
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ViewError> {
        self.refresh().map_err(|source| ViewError::Backend { source: Box::new(source) })
    }

    fn shows(&self, side: Side) -> bool {
        self.layout.shows(side)
    }

    fn readme(&self) -> String {
        let known = self.known.lock();
        let now = jiff::Timestamp::now().as_second();
        let mut snapshots: Vec<_> = known.values().collect();
        snapshots.sort_by_key(|snapshot| (snapshot.is_ahead(now), Reverse(snapshot.started)));
        readme::readme(self.at.as_deref(), self.layout, snapshots.into_iter())
    }

    fn open(&self, id: &[u8; 32], side: Side) -> Result<Arc<dyn View>, ViewError> {
        let id = SnapshotId(*id);
        let snapshot = self.known.lock().get(&id).cloned().ok_or(ViewError::NotFound)?;
        Ok(self.layout.view(SnapshotView::new(self.reader.clone(), id, snapshot), side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::delayed::Delayed;
    use crate::backend::mem::Mem;
    use crate::backend::{Backend, ObjectName};
    use crate::format::keyslot::PasswordCost;
    use crate::format::snapshot::testing::snapshot_of;
    use crate::repository::reader::CacheSizes;
    use crate::repository::{CreateOptions, IndexSearch};

    fn snapshot(secs: i64) -> Snapshot {
        snapshot_of("mail", secs)
    }

    fn catalog() -> (Arc<Delayed<Mem>>, Arc<Repository>, RepositoryCatalog) {
        let backend = Arc::new(Delayed::new(Mem::new(), Duration::ZERO));
        let cost = PasswordCost { memory_kib: 8, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let repository = Repository::create(backend.clone(), b"password", &options).expect("created").0;
        let repository = Arc::new(repository);
        let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());
        let catalog = RepositoryCatalog::new(repository.clone(), Arc::new(reader), Layout::Items, None);
        (backend, repository, catalog)
    }

    #[test]
    fn junk_objects_are_read_once_and_reported_a_limited_number_of_times() {
        let (backend, repository, catalog) = catalog();
        repository.save_snapshot(&snapshot(1)).expect("room");
        for number in 0..5000u64 {
            let name = ObjectName::snapshot(*blake3::hash(&number.to_le_bytes()).as_bytes());
            backend.save(name, b"junk").expect("room");
        }
        backend.reset();
        assert_eq!(catalog.refresh().expect("it goes on").len(), 1);
        assert!(backend.requests() >= 5000, "each is looked at");
        for _ in 0..10 {
            backend.reset();
            assert_eq!(catalog.refresh().expect("it goes on").len(), 1);
            assert_eq!(backend.requests(), 1, "the list is all that is asked for");
        }
        let unreadable = catalog.unreadable.lock();
        assert_eq!(
            (unreadable.reported, unreadable.reported_total, unreadable.objects.len()),
            (REPORTED_MAX, 5000, 5000)
        );
        drop(unreadable);
        // A new snapshot is still read.
        repository.save_snapshot(&snapshot(2)).expect("room");
        assert_eq!(catalog.refresh().expect("it goes on").len(), 2);
    }

    #[test]
    fn a_repaired_snapshot_is_shown() {
        let (backend, repository, catalog) = catalog();
        let id = repository.save_snapshot(&snapshot(1)).expect("room");
        let name = ObjectName::snapshot(id.0);
        let whole = backend.load(name).expect("it was saved");
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        for (damaged, same_len) in [(&whole[1..], false), (&flipped, true)] {
            backend.save(name, damaged).expect("room");
            *catalog.known.lock() = HashMap::new();
            assert_eq!(catalog.refresh().expect("it goes on").len(), 0);
            backend.save(name, &whole).expect("room");
            if same_len {
                assert_eq!(catalog.refresh().expect("it goes on").len(), 0, "not looked at each second");
                let mut unreadable = catalog.unreadable.lock();
                let attempt = unreadable.objects.get_mut(&id).expect("unreadable");
                assert_eq!(attempt.again.expect("not for ever").1, RETRY_AFTER);
                attempt.again = Some((Instant::now(), RETRY_AFTER));
            }
            assert_eq!(catalog.refresh().expect("it goes on").len(), 1);
            assert!(catalog.unreadable.lock().objects.is_empty());
        }
    }
}
