//! Stores and reads snapshots.

use super::loading::each_concurrently;
use super::{Repository, RepositoryError, Result};
use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::format::crypto::Purpose;
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use parking_lot::Mutex;
use std::fmt;

/// Maximum number of unreadable snapshots that are named one by one. The others are counted.
const LEFT_OUT_NAMED_MAX: usize = 20;

impl Repository {
    /// Stores a snapshot, which commits the backup. Everything that the snapshot needs must be durable already.
    ///
    /// # Errors
    /// [`RepositoryError::Snapshot`] if the encoded snapshot cannot be decoded again (it is then not stored), or an
    /// error of the storage.
    pub fn save_snapshot(&self, snapshot: &Snapshot) -> Result<SnapshotId> {
        let plain = snapshot.encode();
        let sealed = self.seal(Purpose::Snapshot, &plain);
        let id = SnapshotId(*blake3::hash(&sealed).as_bytes());
        // Decoding now shows a fault of this program at once, and not only when somebody needs the backup.
        Snapshot::decode(&plain).map_err(|source| RepositoryError::Snapshot { snapshot: id, source })?;
        self.backend.save(ObjectName::snapshot(id.0), &sealed)?;
        Ok(id)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`RepositoryError::Sealed`] or [`RepositoryError::Snapshot`] when it is damaged, or an error of the storage.
    pub fn load_snapshot(&self, id: SnapshotId) -> Result<Snapshot> {
        let plain = self.load_sealed(ObjectName::snapshot(id.0), Purpose::Snapshot)?;
        Snapshot::decode(&plain).map_err(|source| RepositoryError::Snapshot { snapshot: id, source })
    }

    /// Returns the ids of all snapshots.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        Ok(self.ids(ObjectKind::Snapshot)?.into_iter().map(SnapshotId).collect())
    }

    /// Returns the ids of all snapshots, in order, with the lengths of their objects in bytes.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn snapshot_sizes(&self) -> Result<Vec<(SnapshotId, u64)>> {
        let mut sizes = Vec::new();
        self.backend.list(ObjectKind::Snapshot, &mut |name, len| {
            sizes.extend(SnapshotId::from_slice(name.id_bytes()).map(|id| (id, len)));
        })?;
        sizes.sort_unstable();
        Ok(sizes)
    }

    /// Reads all snapshots, and says which cannot be read.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn snapshots(&self) -> Result<Snapshots> {
        let snapshots = Mutex::new(Snapshots::default());
        self.load_snapshots(&self.snapshot_ids()?, |id, loaded| {
            let mut snapshots = snapshots.lock();
            match loaded {
                Ok(snapshot) => snapshots.readable.push((id, snapshot)),
                Err(left_out) => snapshots.left_out.push(left_out),
            }
        })?;
        let mut snapshots = snapshots.into_inner();
        snapshots.readable.sort_by_key(|(id, snapshot)| (snapshot.started, *id));
        snapshots.left_out.sort_by_key(|left_out| left_out.id);
        Ok(snapshots)
    }

    /// Reads these snapshots, several at a time and in no particular order. Calls `each` with every snapshot, or with
    /// the reason why it cannot be read. So a damaged or later snapshot hides none of the others.
    ///
    /// # Errors
    /// The first error of the storage. Snapshots that other threads are reading at that moment still reach `each`.
    pub fn load_snapshots(
        &self,
        ids: &[SnapshotId],
        each: impl Fn(SnapshotId, std::result::Result<Snapshot, LeftOut>) + Sync,
    ) -> Result<()> {
        each_concurrently(ids, |id| {
            match self.load_snapshot(*id) {
                Ok(snapshot) => each(*id, Ok(snapshot)),
                // Somebody removed the snapshot after it was listed.
                Err(RepositoryError::Backend(BackendError::NotFound { .. })) => {}
                Err(error) if error.is_damage() || error.is_of_later_version() => {
                    let is_of_later_version = error.is_of_later_version();
                    let error = match &error {
                        RepositoryError::Snapshot { source, .. } => source.to_string(),
                        error => text_of(error),
                    };
                    each(*id, Err(LeftOut { id: *id, is_of_later_version, error }));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }
}

/// All snapshots of a repository.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The snapshots that can be read, the oldest first.
    pub readable: Vec<(SnapshotId, Snapshot)>,
    /// The snapshots that cannot be read.
    pub left_out: Vec<LeftOut>,
}

/// A snapshot that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The snapshot.
    pub id: SnapshotId,
    /// True if a later version of this program wrote it, false if it is damaged.
    pub is_of_later_version: bool,
    /// Why it cannot be read.
    pub error: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, is_of_later_version, error } = self;
        let advice = match is_of_later_version {
            true => "a later version of this program shows it",
            false => "`strongroom check` says more",
        };
        write!(f, "snapshot {} is left out: {error}; {advice}", id.short())
    }
}

impl Snapshots {
    /// Returns a few lines that say which snapshots are left out. They are limited, because somebody with access to the
    /// storage may have put thousands of bad objects there.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        let more = self.left_out.len().saturating_sub(LEFT_OUT_NAMED_MAX);
        let more = (more > 0).then(|| format!("{more} more snapshots are left out; `strongroom check` names them"));
        self.left_out.iter().take(LEFT_OUT_NAMED_MAX).map(ToString::to_string).chain(more)
    }

    /// Says how many snapshots were begun later than `now`, this machine's clock in seconds. If there are any, a clock
    /// was or is wrong.
    pub fn warn_of_the_future(&self, now: i64) -> Option<String> {
        let ahead = self.readable.iter().filter(|(_, snapshot)| snapshot.is_ahead(now));
        let count = ahead.clone().count();
        let (id, last) = ahead.max_by_key(|(_, snapshot)| snapshot.started)?;
        let time = jiff::Timestamp::from_second(last.started.secs).unwrap_or(jiff::Timestamp::MAX);
        Some(format!(
            "{count} snapshots have a time in the future, up to {time} ({} of the set {}): a clock was wrong then \
             or is wrong now; `latest` passes over them until then",
            id.short(),
            last.set
        ))
    }
}

/// Returns the positions of the snapshots that `wanted` accepts, the latest first. `snapshots` come with the oldest
/// first.
///
/// A snapshot with a time after `now` was made while a clock was wrong. It would count as the latest until that time,
/// so it is left out. But if all snapshots are later than `now`, this machine's clock is wrong, and all are returned.
pub fn latest_first(snapshots: &[(SnapshotId, Snapshot)], now: i64, wanted: impl Fn(&Snapshot) -> bool) -> Vec<usize> {
    let all = (0..snapshots.len()).rev().filter(|number| wanted(&snapshots[*number].1));
    let (ahead, due): (Vec<_>, Vec<_>) = all.partition(|number| snapshots[*number].1.is_ahead(now));
    if due.is_empty() { ahead } else { due }
}

/// Returns the text of an error and of its causes.
fn text_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}
