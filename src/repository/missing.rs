//! Noticing that the repository was put back to an earlier state: what a machine has seen is there no more.

use super::{Repository, Result};
use crate::format::id::{KeyId, SnapshotId};
use std::collections::HashSet;

/// What a machine has seen and what is gone, without a record that somebody removed it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Key slots.
    pub keys: Vec<KeyId>,
}

impl Repository {
    /// Returns what of the snapshots and key slots that a machine remembers is gone.
    ///
    /// Nothing counts as missing while a record of removals cannot be read because a later version wrote it.
    ///
    /// # Errors
    /// What the storage gives.
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
    /// Says in one line what is missing, if anything is.
    pub fn warning(&self) -> Option<String> {
        let (snapshots, keys) = (self.snapshots.len(), self.keys.len());
        (snapshots + keys > 0).then(|| {
            format!(
                "{snapshots} snapshots and {keys} key slots that this machine has seen are gone, and there is no record that \
                 somebody removed them: the repository was put back to an earlier state, or they were taken away; \
                 `strongroom check` names them"
            )
        })
    }
}
