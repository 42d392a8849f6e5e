//! Notices that somebody put the repository back to an earlier state: objects that this machine has seen are gone.

use super::{Repository, Result};
use crate::format::id::{KeyId, SnapshotId};
use std::collections::HashSet;

/// Objects that this machine has seen and that are gone, although no record says that somebody removed them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Key slots.
    pub keys: Vec<KeyId>,
}

impl Repository {
    /// Returns the snapshots and key slots that are gone, out of those that a machine remembers.
    ///
    /// If a later version of this program wrote a record of removals, nothing counts as missing: that record may name
    /// it.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn missing(&self, (snapshots, keys): &(Vec<SnapshotId>, Vec<KeyId>)) -> Result<Missing> {
        let (snapshots_there, keys_there): (HashSet<_>, HashSet<_>) =
            (self.snapshot_ids()?.into_iter().collect(), self.key_ids()?.into_iter().collect());
        let mut missing = Missing {
            snapshots: snapshots.iter().copied().filter(|id| !snapshots_there.contains(id)).collect(),
            keys: keys.iter().copied().filter(|id| !keys_there.contains(id)).collect(),
        };
        if missing == Missing::default() {
            return Ok(missing);
        }
        let removed = self.removed()?;
        if removed.unread > 0 {
            return Ok(Missing::default());
        }
        missing.snapshots.retain(|id| !removed.snapshots.contains(id));
        missing.keys.retain(|id| !removed.keys.contains(id));
        Ok(missing)
    }
}

impl Missing {
    /// Says in one line how many objects are missing, if any are.
    pub fn warning(&self) -> Option<String> {
        let (snapshots, keys) = (self.snapshots.len(), self.keys.len());
        (snapshots + keys > 0).then(|| {
            format!(
                "{snapshots} snapshots and {keys} key slots that this machine has seen are gone, and no record says \
                 that somebody removed them: the repository was put back to an earlier state, or somebody deleted them \
                 without a record; `strongroom check` names them"
            )
        })
    }
}
