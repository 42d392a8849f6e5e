//! The list of snapshots, as they come and go, asked for about once a second.
//!
//! What was read once is not read again, as snapshots do not change. What cannot be read is not read again each second
//! either, nor told of again: whoever can write to the storage can put a hundred thousand objects there that are no
//! snapshots. One that was damaged may be mended, though. So it is tried again when its length is another, and from
//! time to time.

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

/// How long a snapshot that cannot be read is left alone at first. Each attempt doubles it.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10 * 60);
/// So many of them are tried again at a time.
const RETRIED_MAX: usize = 16;
/// So many of them are told of one by one, as long as the process lives.
const TOLD_MAX: usize = 20;

/// The snapshots of a repository, as they come and go.
pub struct RepositoryCatalog {
    repository: Arc<Repository>,
    reader: Arc<Reader>,
    layout: Layout,
    at: Option<PathBuf>,
    /// What was read once.
    known: Mutex<HashMap<SnapshotId, Snapshot>>,
    /// What could not be read. Held from listing to having loaded, so that no older list undoes a newer one.
    refused: Mutex<Refused>,
}

/// Snapshots that could not be read.
#[derive(Default)]
struct Refused {
    objects: HashMap<SnapshotId, Attempt>,
    /// How many were told of one by one.
    told: usize,
    /// How many there were when their number was told last.
    counted: usize,
}

struct Attempt {
    /// The length of the object.
    len: u64,
    /// When it is tried again, and how long it has been left alone before; never for one of a later version.
    again: Option<(Instant, Duration)>,
}

impl Refused {
    /// Returns which of the `listed` objects are to be read, of those that are not known.
    fn wanted(&mut self, listed: &[(SnapshotId, u64)], known: &HashMap<SnapshotId, Snapshot>) -> Vec<SnapshotId> {
        let len_of = |id: &SnapshotId| listed.binary_search_by_key(id, |(id, _)| *id).ok().map(|at| listed[at].1);
        self.objects.retain(|id, attempt| len_of(id) == Some(attempt.len));
        let now = Instant::now();
        let mut retried = 0;
        let mut wanted = |id: &SnapshotId| match self.objects.get(id) {
            None => !known.contains_key(id),
            Some(attempt) => {
                let due = attempt.again.is_some_and(|(at, _)| at <= now) && retried < RETRIED_MAX;
                retried += usize::from(due);
                due
            }
        };
        listed.iter().map(|(id, _)| *id).filter(|id| wanted(id)).collect()
    }

    fn take(&mut self, left_out: LeftOut, len: u64) {
        let before = self.objects.get(&left_out.id);
        let wait = before.and_then(|attempt| attempt.again).map_or(RETRY_AFTER, |(_, wait)| 2 * wait);
        let wait = wait.min(RETRY_AFTER_MAX);
        if before.is_none() && self.told < TOLD_MAX {
            self.told += 1;
            tracing::warn!("{left_out}");
        }
        let again = (!left_out.is_of_later_version).then(|| (Instant::now() + wait, wait));
        self.objects.insert(left_out.id, Attempt { len, again });
    }

    /// Says how many there are, once they are many, and again whenever they have become twice as many.
    fn count(&mut self) {
        let count = self.objects.len();
        if self.told == TOLD_MAX && count > TOLD_MAX && count >= 2 * self.counted {
            self.counted = count;
            tracing::warn!(count, "snapshots cannot be read and are left out; `strongroom check` names them");
        }
    }
}

impl RepositoryCatalog {
    /// Creates the catalog of everything in `repository`, for a mount at `at` or for what is no mount.
    pub fn new(repository: Arc<Repository>, reader: Arc<Reader>, layout: Layout, at: Option<PathBuf>) -> Self {
        Self { repository, reader, layout, at, known: Mutex::default(), refused: Mutex::default() }
    }

    fn refresh(&self) -> Result<Vec<SnapshotInfo>, RepositoryError> {
        let mut refused = self.refused.lock();
        let listed = self.repository.snapshot_sizes()?;
        let wanted = {
            let mut known = self.known.lock();
            known.retain(|id, _| listed.binary_search_by_key(id, |(id, _)| *id).is_ok());
            refused.wanted(&listed, &known)
        };
        // Who opens one that is known does not wait, and what was loaded before an error is not loaded again.
        let left_out = Mutex::new(Vec::new());
        let loaded = self.repository.load_snapshots(&wanted, |id, loaded| match loaded {
            Ok(mut snapshot) => {
                // There may be a thousand in each.
                snapshot.failures.truncate(readme::FAILURES_NAMED_MAX);
                snapshot.failures.shrink_to_fit();
                self.known.lock().insert(id, snapshot);
            }
            Err(refused) => left_out.lock().push(refused),
        });
        for left_out in left_out.into_inner() {
            let at = listed.binary_search_by_key(&left_out.id, |(id, _)| *id).expect("only what is listed is loaded");
            refused.take(left_out, listed[at].1);
        }
        let known = self.known.lock();
        refused.objects.retain(|id, _| !known.contains_key(id));
        refused.count();
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
    use crate::format::entry::{Directory, Entry, EntryKind, NodeRef, Sums, Timestamp};
    use crate::format::id::NodeId;
    use crate::format::keyslot::PasswordCost;
    use crate::format::snapshot::{ROOT_NAME, Summary};
    use crate::repository::reader::CacheSizes;
    use crate::repository::{CreateOptions, IndexSearch};

    fn snapshot(secs: i64) -> Snapshot {
        let root = NodeRef { id: NodeId([0; 32]), hint: None };
        let root = EntryKind::Directory(Directory { root, sums: Sums::default() });
        Snapshot {
            started: Timestamp { secs, nanos: 0 },
            finished: Timestamp { secs, nanos: 0 },
            set: "mail".to_owned(),
            host: String::new(),
            root: Entry::new(ROOT_NAME, root, Timestamp::default()),
            parents: Vec::new(),
            keys: Vec::new(),
            summary: Summary::default(),
            failures: Vec::new(),
            source_state: Default::default(),
            source_parts: None,
            program: String::new(),
        }
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
    fn what_is_no_snapshot_is_read_once_and_told_of_a_bounded_number_of_times() {
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
        let refused = catalog.refused.lock();
        assert_eq!((refused.told, refused.counted, refused.objects.len()), (TOLD_MAX, 5000, 5000));
        drop(refused);
        // A snapshot that comes is read as ever.
        repository.save_snapshot(&snapshot(2)).expect("room");
        assert_eq!(catalog.refresh().expect("it goes on").len(), 2);
    }

    #[test]
    fn a_snapshot_that_was_mended_is_shown() {
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
                let mut refused = catalog.refused.lock();
                let attempt = refused.objects.get_mut(&id).expect("refused");
                assert_eq!(attempt.again.expect("not for ever").1, RETRY_AFTER);
                attempt.again = Some((Instant::now(), RETRY_AFTER));
            }
            assert_eq!(catalog.refresh().expect("it goes on").len(), 1);
            assert!(catalog.refused.lock().objects.is_empty());
        }
    }
}
