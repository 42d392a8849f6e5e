//! What a run finds in the repository before it begins, and what is to be said of it.

use super::BackupError;
use crate::format::entry::Timestamp;
use crate::format::id::{PackId, SnapshotId};
use crate::format::pack::Footer;
use crate::format::snapshot::Snapshot;
use crate::repository::local_state::LocalState;
use crate::repository::{Repository, latest_first};

/// What stood in the repository when the run began.
pub(super) struct Before {
    /// The snapshots that can be read, the oldest first.
    pub snapshots: Vec<(SnapshotId, Snapshot)>,
    /// Those of a later version of this program.
    pub later: Vec<SnapshotId>,
    /// What somebody should know, although the run goes on.
    pub warnings: Vec<String>,
    started: Timestamp,
}

impl Before {
    /// Looks at the repository, and has `local` catch up with it. Returns the packs without an index as well.
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

    /// Returns the snapshot that the run continues from: the latest that `wanted` takes.
    pub fn latest(&self, wanted: impl Fn(&Snapshot) -> bool) -> Option<&(SnapshotId, Snapshot)> {
        let latest = latest_first(&self.snapshots, self.started.secs, wanted);
        latest.first().map(|number| &self.snapshots[*number])
    }

    /// Returns the ids of all snapshots that are known to be authentic.
    pub fn ids(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        self.snapshots.iter().map(|(id, _)| *id).chain(self.later.iter().copied())
    }
}
