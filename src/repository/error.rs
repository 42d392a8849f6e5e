//! Why something could not be done with a repository.

use crate::backend::{BackendError, ObjectName};
use crate::format::config::ConfigError;
use crate::format::id::{IndexId, KeyId, PackId, RepositoryId, SnapshotId};
use crate::format::index::IndexError;
use crate::format::keyslot::SlotError;
use crate::format::pack::PackError;
use crate::format::sealed::OpenError;
use crate::format::snapshot::SnapshotError;
use crate::repository::local_state::LocalError;
use crate::repository::reader::ReadError;

/// Why something could not be done with a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is none.
    #[error("there is no repository at {place}")]
    NoRepository {
        /// Where it was looked for.
        place: String,
    },
    /// There is one already.
    #[error("there is a repository at {place} already")]
    Exists {
        /// Where it is.
        place: String,
    },
    /// The password or recovery key opens no slot.
    #[error("no key slot opens with this password (tried {tried}{})", others(*untried))]
    NoKeyFits {
        /// How many slots were tried.
        tried: usize,
        /// How many others there are: damaged, of a later version, or too many.
        untried: usize,
    },
    /// The password is right, but `config` is that of another repository.
    #[error(
        "the password is right, but the object `config` is not that of this repository: the id in it, {id}, is another's"
    )]
    ForeignConfig {
        /// The id in it.
        id: RepositoryId,
    },
    /// Backups are stored, but `config` is missing.
    #[error("{place} holds backups, but the object `config`, without which they cannot be read, is missing")]
    NoConfig {
        /// Where it was looked for.
        place: String,
    },
    /// The storage failed.
    #[error("the storage of the repository failed")]
    Backend(#[from] BackendError),
    /// Something could not be read.
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
        /// What is wrong with it.
        source: SlotError,
    },
    /// An object that is sealed as a whole does not open.
    #[error("{name} {source}")]
    Sealed {
        /// The object.
        name: ObjectName,
        /// What is wrong with it.
        source: OpenError,
    },
    /// A later version of this program wrote the record of what was removed.
    #[error("{name} has version {version}, this program reads version {}", super::removals::GC_VERSION)]
    RecordVersion {
        /// The record.
        name: ObjectName,
        /// Its version.
        version: u64,
    },
    /// An object does not hold the bytes that it is named by.
    #[error("{name} does not hold the bytes it is named by")]
    Renamed {
        /// The object.
        name: ObjectName,
    },
    /// An object is longer than any of its kind.
    #[error("{name} is {len} bytes long, which no such object is")]
    TooLong {
        /// The object.
        name: ObjectName,
        /// How long it is.
        len: u64,
    },
    /// A pack's footer cannot be read.
    #[error("pack {pack} cannot be read")]
    Pack {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        source: PackError,
    },
    /// An index object cannot be read.
    #[error("index {index} cannot be read")]
    Index {
        /// The object.
        index: IndexId,
        /// What is wrong with it.
        source: IndexError,
    },
    /// A snapshot cannot be read.
    #[error("snapshot {snapshot} cannot be read")]
    Snapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// No snapshot is meant by what was asked for.
    #[error("no snapshot matches {asked:?}")]
    NoSnapshot {
        /// What was asked for.
        asked: String,
    },
    /// More than one is.
    #[error("{asked:?} matches {matches} snapshots")]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// How many match.
        matches: usize,
    },
    /// Somebody else removes a slot at the same time, and after both nothing would open the repository.
    #[error("somebody else is removing a key slot at this moment, and nothing would open the repository after both")]
    SlotsContested,
    /// There are as many slots as are ever tried.
    #[error("there are {count} key slots already, and more would not be tried")]
    TooManySlots {
        /// How many there are.
        count: usize,
    },
    /// Records of removals cannot be read, and one of them may speak of the last other slot.
    #[error(
        "{unread} records of removals are of a later version of this program, so nothing may be removed by this one"
    )]
    UnreadRecords {
        /// How many.
        unread: usize,
    },
    /// Taking the slot away would leave nothing that opens the repository.
    #[error("key slot {key} is the last one")]
    LastSlot {
        /// The slot.
        key: KeyId,
    },
    /// There is no such slot.
    #[error("there is no key slot {asked:?}")]
    NoSlot {
        /// What was asked for.
        asked: String,
    },
    /// The cost of trying a password is beyond reason.
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
    /// Returns whether the repository is damaged, rather than out of reach for now, wrongly asked for, or of a later
    /// version.
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

    /// Returns whether the object is authentic, but in a form that only a later version of this program reads.
    ///
    /// Such an object is left out and told of. It is no damage, and nothing may be removed because it could not be
    /// read.
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
