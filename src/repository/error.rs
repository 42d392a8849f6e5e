//! The errors of a repository.

use crate::backend::{BackendError, ObjectName};
use crate::format::config::ConfigError;
use crate::format::id::{IndexId, KeyId, PackId, RepositoryId, SnapshotId};
use crate::format::index::IndexError;
use crate::format::keyslot::SlotError;
use crate::format::pack::PackError;
use crate::format::sealed::OpenError;
use crate::format::snapshot::SnapshotError;
use crate::repository::local_state::LocalError;
use crate::repository::read_error::ReadError;

/// Why an operation on a repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is no repository.
    #[error("there is no repository at {place}")]
    NoRepository {
        /// The place that was looked at.
        place: String,
    },
    /// There is a repository already.
    #[error("there is a repository at {place} already")]
    Exists {
        /// The place that holds it.
        place: String,
    },
    /// The password or recovery key opens no slot.
    #[error("no key slot opens with this password (tried {tried}{})", others(*untried))]
    NoKeyFits {
        /// The number of slots that were tried.
        tried: usize,
        /// The number of other slots: damaged, of a later version, or too many.
        untried: usize,
    },
    /// The password is right, but `config` is that of another repository.
    #[error("the password is right, but the object `config` belongs to another repository, with the id {id}")]
    ForeignConfig {
        /// The repository id in `config`.
        id: RepositoryId,
    },
    /// Backups are stored, but `config` is missing.
    #[error("{place} holds backups, but the object `config`, without which they cannot be read, is missing")]
    NoConfig {
        /// The place that was looked at.
        place: String,
    },
    /// The storage failed.
    #[error("the storage of the repository failed")]
    Backend(#[from] BackendError),
    /// A chunk or node could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The `config` object cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key slot is damaged.
    #[error("key slot {key} cannot be read")]
    Slot {
        /// The slot.
        key: KeyId,
        /// What is wrong with the slot.
        source: SlotError,
    },
    /// An object that is sealed as a whole does not open.
    #[error("{name} {source}")]
    Sealed {
        /// The object.
        name: ObjectName,
        /// What is wrong with the object.
        source: OpenError,
    },
    /// A later version of this program wrote the record of a removal.
    #[error("{name} has version {version}, this program reads version {}", super::removals::GC_VERSION)]
    RecordVersion {
        /// The record.
        name: ObjectName,
        /// Its version.
        version: u64,
    },
    /// The hash of an object's bytes is not its name.
    #[error("{name} is damaged: the hash of its bytes is not its name")]
    Renamed {
        /// The object.
        name: ObjectName,
    },
    /// An object is longer than the maximum for its kind.
    #[error("{name} is {len} bytes long, more than such an object can have")]
    TooLong {
        /// The object.
        name: ObjectName,
        /// Its length in bytes.
        len: u64,
    },
    /// A pack's footer cannot be read.
    #[error("pack {pack} cannot be read")]
    Pack {
        /// The pack.
        pack: PackId,
        /// What is wrong with the pack.
        source: PackError,
    },
    /// An index object cannot be read.
    #[error("index {index} cannot be read")]
    Index {
        /// The object.
        index: IndexId,
        /// What is wrong with the object.
        source: IndexError,
    },
    /// A snapshot cannot be read.
    #[error("snapshot {snapshot} cannot be read")]
    Snapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with the snapshot.
        source: SnapshotError,
    },
    /// No snapshot matches the name that was asked for.
    #[error("no snapshot matches {asked:?}")]
    NoSnapshot {
        /// The name that was asked for.
        asked: String,
    },
    /// More than one snapshot matches the name that was asked for.
    #[error("{asked:?} matches {matches} snapshots")]
    Ambiguous {
        /// The name that was asked for.
        asked: String,
        /// The number of snapshots that match.
        matches: usize,
    },
    /// Somebody else is removing a slot at the same time, and after both removals nothing would open the repository.
    #[error("somebody else is removing a key slot at this moment, and nothing would open the repository after both")]
    SlotsContested,
    /// The maximum number of slots is reached; more would never be tried.
    #[error("there are {count} key slots already, and more would not be tried")]
    TooManySlots {
        /// The number of slots.
        count: usize,
    },
    /// Records of removals cannot be read, and one of them may name the only other slot.
    #[error(
        "{unread} records of removals are of a later version of this program, so this version must not remove anything"
    )]
    UnreadRecords {
        /// The number of records that cannot be read.
        unread: usize,
    },
    /// Without this slot nothing would open the repository.
    #[error("key slot {key} is the last one")]
    LastSlot {
        /// The slot.
        key: KeyId,
    },
    /// There is no such slot.
    #[error("there is no key slot {asked:?}")]
    NoSlot {
        /// The id that was asked for.
        asked: String,
    },
    /// The cost of trying a password is too low or too high.
    #[error("the cost of a password must be between 8 KiB and 1 GiB of memory")]
    Cost,
    /// The local state cannot be used.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl RepositoryError {
    /// Returns true if the repository is damaged. Returns false if it is only out of reach for now, if the request was
    /// wrong, or if a later version wrote the object.
    pub fn is_damage(&self) -> bool {
        if self.is_of_later_version() {
            return false;
        }
        match self {
            RepositoryError::Read(error) => error.is_damage(),
            RepositoryError::Backend(error) => {
                matches!(error, BackendError::NotFound { .. } | BackendError::Short { .. })
            }
            RepositoryError::Config(_)
            | RepositoryError::ForeignConfig { .. }
            | RepositoryError::NoConfig { .. }
            | RepositoryError::Slot { .. }
            | RepositoryError::Sealed { .. }
            | RepositoryError::Renamed { .. }
            | RepositoryError::TooLong { .. }
            | RepositoryError::Pack { .. }
            | RepositoryError::Index { .. }
            | RepositoryError::Snapshot { .. } => true,
            _ => false,
        }
    }

    /// Returns true if the object is authentic, but in a form that only a later version of this program reads.
    ///
    /// Such an object is left out and reported. It is not damage, and nothing may be removed because the object could
    /// not be read.
    pub fn is_of_later_version(&self) -> bool {
        match self {
            RepositoryError::Config(error) => matches!(error, ConfigError::Version(_) | ConfigError::Features),
            RepositoryError::Slot { source, .. } => *source == SlotError::Later,
            RepositoryError::Sealed { source, .. } => matches!(source, OpenError::UnknownForm(_)),
            RepositoryError::Pack { source, .. } => source.is_of_later_version(),
            RepositoryError::Index { source, .. } => *source != IndexError::Malformed,
            RepositoryError::Snapshot { source, .. } => matches!(source, SnapshotError::Version(_)),
            RepositoryError::RecordVersion { .. } => true,
            _ => false,
        }
    }
}

fn others(untried: usize) -> String {
    if untried == 0 { String::new() } else { format!(", could not try {untried} more") }
}
