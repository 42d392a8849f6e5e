//! The state of the repository when a run begins, and the warnings about it.

use super::BackupError;
use crate::format::entry::Timestamp;
use crate::format::id::{PackId, SnapshotId};
use crate::format::pack::Footer;
use crate::format::snapshot::Snapshot;
use crate::repository::local_state::LocalState;
use crate::repository::{Repository, latest_first};

/// The state of the repository when the run began.
pub(super) struct Before {
    /// The readable snapshots, the oldest first.
    pub snapshots: Vec<(SnapshotId, Snapshot)>,
    /// The snapshots that a later version of this program wrote.
    pub later: Vec<SnapshotId>,
    /// Warnings for the user that do not stop the run.
    pub warnings: Vec<String>,
    started: Timestamp,
}

impl Before {
    /// Reads the snapshots, and brings `local` up to date. Also returns the packs that no index names.
    pub fn look(
        repository: &Repository,
        local: &mut LocalState,
        started: Timestamp,
    ) -> Result<(Self, Vec<(PackId, Footer)>), BackupError> {
        let synced = local.sync(repository)?;
        let found = repository.snapshots()?;
        let missing = repository.missing(&local.remembered()?)?;
        let ahead = found.warn_of_the_future(started.secs);
        let warnings = found.remarks().chain(synced.remark()).chain(missing.warning()).chain(ahead).collect();
        let later = found.left_out.iter().filter(|left_out| left_out.is_of_later_version).map(|left_out| left_out.id);
        let later = later.collect();
        Ok((Self { snapshots: found.readable, later, warnings, started }, synced.adopted))
    }

    /// Returns the snapshot that the run continues from: the latest one for which `wanted` returns true.
    pub fn latest(&self, wanted: impl Fn(&Snapshot) -> bool) -> Option<&(SnapshotId, Snapshot)> {
        let latest = latest_first(&self.snapshots, self.started.secs, wanted);
        latest.first().map(|number| &self.snapshots[*number])
    }

    /// Returns the ids of all authentic snapshots.
    pub fn ids(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        self.snapshots.iter().map(|(id, _)| *id).chain(self.later.iter().copied())
    }
}
