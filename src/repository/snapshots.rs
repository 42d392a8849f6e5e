//! Snapshots: storing one, reading them all.

use super::loading::each_beside;
use super::{Repository, RepositoryError, Result};
use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::format::crypto::Purpose;
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use parking_lot::Mutex;
use std::fmt;

/// Snapshots that cannot be read are named up to this many; then they are counted.
const LEFT_OUT_NAMED_MAX: usize = 20;

impl Repository {
    /// Stores a snapshot, which commits the backup: everything it needs must be durable.
    ///
    /// # Errors
    /// What the storage gives; [`RepositoryError::Snapshot`] if it could not be read again, and then it is not stored.
    pub fn save_snapshot(&self, snapshot: &Snapshot) -> Result<SnapshotId> {
        let plain = snapshot.encode();
        let sealed = self.seal(Purpose::Snapshot, &plain);
        let id = SnapshotId(*blake3::hash(&sealed).as_bytes());
        // A fault of this program shows now, not when the backup is needed.
        Snapshot::decode(&plain).map_err(|source| RepositoryError::Snapshot { snapshot: id, source })?;
        self.backend.save(ObjectName::snapshot(id.0), &sealed)?;
        Ok(id)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`RepositoryError::Sealed`] or [`RepositoryError::Snapshot`] when it is damaged, or what the storage gives.
    pub fn load_snapshot(&self, id: SnapshotId) -> Result<Snapshot> {
        let plain = self.load_sealed(ObjectName::snapshot(id.0), Purpose::Snapshot)?;
        Snapshot::decode(&plain).map_err(|source| RepositoryError::Snapshot { snapshot: id, source })
    }

    /// Returns the ids of all snapshots.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        Ok(self.ids(ObjectKind::Snapshot)?.into_iter().map(SnapshotId).collect())
    }

    /// Returns the ids of all snapshots, in order, with the lengths of their objects in bytes.
    ///
    /// # Errors
    /// What the storage gives.
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
    /// What the storage gives.
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

    /// Reads these snapshots, several at a time and in no particular order, and calls `each` with every one, or with
    /// why it cannot be read: one that is damaged or of a later version hides none of the others.
    ///
    /// # Errors
    /// What the storage gives, for the first it fails with: those that were under way beside it are read, and no more.
    pub fn load_snapshots(
        &self,
        ids: &[SnapshotId],
        each: impl Fn(SnapshotId, std::result::Result<Snapshot, LeftOut>) + Sync,
    ) -> Result<()> {
        each_beside(ids, |id| {
            match self.load_snapshot(*id) {
                Ok(snapshot) => each(*id, Ok(snapshot)),
                // Forgotten since it was listed.
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
    /// Those that can be read, the oldest first.
    pub readable: Vec<(SnapshotId, Snapshot)>,
    /// Those that cannot.
    pub left_out: Vec<LeftOut>,
}

/// A snapshot that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The snapshot.
    pub id: SnapshotId,
    /// Whether a later version of this program wrote it. Otherwise it is damaged.
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
    /// Says in at most a few lines which snapshots are left out: there may be thousands, if somebody put them there.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        let more = self.left_out.len().saturating_sub(LEFT_OUT_NAMED_MAX);
        let more = (more > 0).then(|| format!("{more} more snapshots are left out; `strongroom check` names them"));
        self.left_out.iter().take(LEFT_OUT_NAMED_MAX).map(ToString::to_string).chain(more)
    }

    /// Says how many snapshots begin later than the clock `now` says, if there are any: then a clock was or is wrong.
    pub fn warn_of_the_future(&self, now: i64) -> Option<String> {
        let ahead = self.readable.iter().filter(|(_, snapshot)| snapshot.is_ahead(now));
        let count = ahead.clone().count();
        let (id, last) = ahead.max_by_key(|(_, snapshot)| snapshot.started)?;
        let time = jiff::Timestamp::from_second(last.started.secs).unwrap_or(jiff::Timestamp::MAX);
        Some(format!(
            "{count} snapshots have a time in the future, up to {time} ({} of the set {}): a clock was wrong then, or is now; \
             `latest` passes over them until then",
            id.short(),
            last.set
        ))
    }
}

/// Returns the positions of those of `snapshots` (the oldest first) that `wanted` takes, the latest first. One that is
/// ahead of the clock `now` was made while a clock was wrong, and would be the latest for as long. So it does not
/// count, unless all are: then it is this machine's clock that is wrong.
pub fn latest_first(snapshots: &[(SnapshotId, Snapshot)], now: i64, wanted: impl Fn(&Snapshot) -> bool) -> Vec<usize> {
    let all = (0..snapshots.len()).rev().filter(|number| wanted(&snapshots[*number].1));
    let (ahead, due): (Vec<_>, Vec<_>) = all.partition(|number| snapshots[*number].1.is_ahead(now));
    if due.is_empty() { ahead } else { due }
}

/// Returns what an error says, with its causes.
fn text_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}
