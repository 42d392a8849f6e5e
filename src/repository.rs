//! The one door to a repository: creating, opening, and its objects by name.
//!
//! Opening reads `config` and the key slots and nothing else, so it costs the same however much is stored. What changes the
//! repository writes in an order that leaves it valid at every instant: packs, then index objects, then the snapshot.

mod loading;
mod removals;
mod search;

pub use search::IndexSearch;

use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::compress::{Compressor, META_LEVEL};
use crate::config::{Config, ConfigError};
use crate::crypto::{Cipher, Keys, MasterKey, Purpose, random};
use crate::id::{IndexId, KeyId, PackId, RepositoryId, SnapshotId};
use crate::index::{Index, MalformedIndex};
use crate::keyslot::{MalformedSlot, PasswordCost, RecoveryKey, Slot, SlotInfo, SlotKind};
use crate::local::LocalError;
use crate::pack::{self, Footer, PackError, TRAILER_LEN};
use crate::reader::{CacheSizes, Lookup, ReadError, Reader};
use crate::sealed::{self, OpenError};
use crate::snapshot::{Snapshot, SnapshotError};
use loading::{each_beside, load_limited, load_long, load_short, names};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

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
    #[error("no key slot opens with this password (tried {tried})")]
    NoKeyFits {
        /// How many slots there are.
        tried: usize,
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
        source: MalformedSlot,
    },
    /// An object that is sealed as a whole does not open.
    #[error("{name} {source}")]
    Sealed {
        /// The object.
        name: ObjectName,
        /// What is wrong with it.
        source: OpenError,
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
        source: MalformedIndex,
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
    /// Returns whether the repository is damaged, rather than out of reach for now or wrongly asked for.
    pub fn is_damage(&self) -> bool {
        match self {
            RepositoryError::Read(error) => error.is_damage(),
            RepositoryError::Backend(error) => {
                matches!(error, BackendError::NotFound { .. } | BackendError::Short { .. })
            }
            RepositoryError::Config(error) => !matches!(error, ConfigError::Version(_) | ConfigError::Features),
            RepositoryError::Slot { .. }
            | RepositoryError::Sealed { .. }
            | RepositoryError::Renamed { .. }
            | RepositoryError::TooLong { .. }
            | RepositoryError::Pack { .. }
            | RepositoryError::Index { .. } => true,
            RepositoryError::Snapshot { source, .. } => !matches!(source, SnapshotError::Version(_)),
            _ => false,
        }
    }
}

/// `config` and key slots are some hundred bytes long.
const SMALL_LEN_MAX: u64 = 64 << 10;
/// Everything that is sealed as a whole.
const SEALED_LEN_MAX: u64 = (sealed::PLAINTEXT_LEN_MAX + sealed::OVERHEAD) as u64;
/// Forged key slots must not make opening take hours.
const SLOTS_TRIED_MAX: usize = 64;

type Result<T> = std::result::Result<T, RepositoryError>;

/// What a new repository is made with.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// How everything is sealed.
    pub cipher: Cipher,
    /// What it costs to try a password.
    pub cost: PasswordCost,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { cipher: Cipher::Aes256Siv, cost: PasswordCost::default() }
    }
}

/// A key slot in a list.
#[derive(Debug, Clone)]
pub struct SlotEntry {
    /// Its name.
    pub id: KeyId,
    /// What opens it, and what its maker said of it; or that it is damaged.
    pub slot: std::result::Result<(SlotKind, SlotInfo), MalformedSlot>,
    /// The repository was opened with it.
    pub in_use: bool,
}

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: Config,
    master: MasterKey,
    keys: Arc<Keys>,
    opened_with: KeyId,
    /// Whose turn it is to load a long object.
    turns: Mutex<()>,
}

/// A repository that was found, and is opened by whoever has a key.
pub struct Found {
    backend: Arc<dyn Backend>,
    /// `config` as it is stored; its seal can be looked at when a key is there.
    object: Vec<u8>,
    config: Config,
}

impl Found {
    /// Opens the repository with a password or its recovery key.
    ///
    /// # Errors
    /// [`RepositoryError::NoKeyFits`], or what the storage gives.
    pub fn open(self, secret: &[u8]) -> Result<Repository> {
        let names = names(&*self.backend, ObjectKind::Key)?;
        let names = &names[..names.len().min(SLOTS_TRIED_MAX)];
        let slots = Mutex::new(Vec::new());
        each_beside(names, |name| {
            let id = KeyId::from_slice(name.id_bytes()).expect("key names have 16 bytes");
            match load_short(&*self.backend, *name, SMALL_LEN_MAX) {
                Ok(object) => slots.lock().extend(Slot::decode(&object).ok().map(|slot| (id, slot))),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        let mut slots = slots.into_inner();
        // The recovery slot costs nothing to try, a password slot some tenths of a second.
        slots.sort_by_key(|(id, slot)| (slot.kind == SlotKind::Password, *id));
        let opened = slots.iter().find_map(|(id, slot)| Some((*id, slot.open((self.config.id, *id), secret)?)));
        let Some((opened_with, master)) = opened else {
            return Err(RepositoryError::NoKeyFits { tried: slots.len() });
        };
        self.with_master(master, opened_with)
    }

    fn with_master(self, master: MasterKey, opened_with: KeyId) -> Result<Repository> {
        let keys = Arc::new(Keys::derive(&master, self.config.cipher));
        Config::verify(&self.object, &keys)?;
        Ok(Repository {
            backend: self.backend,
            config: self.config,
            master,
            keys,
            opened_with,
            turns: Mutex::default(),
        })
    }
}

impl Repository {
    /// Creates a repository and returns it with its recovery key, which is nowhere else.
    ///
    /// `config` is written last: an interrupted `create` leaves no repository, and can be repeated.
    ///
    /// # Errors
    /// [`RepositoryError::Exists`], or what the storage gives.
    pub fn create(backend: Arc<dyn Backend>, password: &[u8], options: &CreateOptions) -> Result<(Self, RecoveryKey)> {
        match backend.size(ObjectName::config()) {
            Err(BackendError::NotFound { .. }) => {}
            Ok(_) => return Err(RepositoryError::Exists { place: backend.describe() }),
            Err(error) => return Err(error.into()),
        }
        // Without a config these belong to nothing.
        for name in names(&*backend, ObjectKind::Key)? {
            backend.remove(name)?;
        }
        let config = Config::new(RepositoryId(random()), options.cipher);
        let master = MasterKey::generate();
        let keys = Arc::new(Keys::derive(&master, config.cipher));
        let (password_id, recovery_id) = (KeyId(random()), KeyId(random()));
        let repository = Self { backend, config, master, keys, opened_with: password_id, turns: Mutex::default() };
        repository.add_password_slot(password_id, password, options.cost, "first password")?;
        let recovery = RecoveryKey::generate();
        repository.add_recovery_slot(recovery_id, &recovery, "recovery key")?;
        let config = repository.config.encode(&repository.keys);
        repository.backend.save(ObjectName::config(), &config)?;
        Ok((repository, recovery))
    }

    /// Looks for a repository: whether there is one, before anybody is asked for a password.
    ///
    /// # Errors
    /// [`RepositoryError::NoRepository`], [`RepositoryError::Config`], or what the storage gives.
    pub fn find(backend: Arc<dyn Backend>) -> Result<Found> {
        let object = match load_short(&*backend, ObjectName::config(), SMALL_LEN_MAX) {
            Err(RepositoryError::Backend(BackendError::NotFound { .. })) => {
                return Err(RepositoryError::NoRepository { place: backend.describe() });
            }
            object => object?,
        };
        let config = Config::decode(&object)?;
        Ok(Found { backend, object, config })
    }

    /// Opens a repository with a password or its recovery key.
    ///
    /// # Errors
    /// [`RepositoryError::NoRepository`], [`RepositoryError::NoKeyFits`], or what the storage gives.
    pub fn open(backend: Arc<dyn Backend>, secret: &[u8]) -> Result<Self> {
        Self::find(backend)?.open(secret)
    }

    /// Opens a repository with what [`Repository::handover`] of another process gave: asks the storage for nothing, and tries no
    /// password again.
    ///
    /// # Errors
    /// [`RepositoryError::NoKeyFits`] for what is no handover, or [`RepositoryError::Config`].
    pub fn open_handed_over(backend: Arc<dyn Backend>, handover: &[u8]) -> Result<Self> {
        let parts = handover.split_first_chunk().and_then(|(master, rest)| Some((*master, rest.split_first_chunk()?)));
        let (master, (slot, object)) = parts.ok_or(RepositoryError::NoKeyFits { tried: 0 })?;
        let found = Found { backend, object: object.to_vec(), config: Config::decode(object)? };
        found.with_master(MasterKey::from_bytes(master), KeyId(*slot))
    }

    /// Returns what a child process of ours needs to open this repository: the master key, by which slot it was had, and the
    /// config. As secret as the password.
    pub fn handover(&self) -> Zeroizing<Vec<u8>> {
        let config = self.config.encode(&self.keys);
        Zeroizing::new([&self.master.expose()[..], &self.opened_with.0, &config].concat())
    }

    /// Returns the repository's id.
    pub fn id(&self) -> RepositoryId {
        self.config.id
    }

    /// Returns what it was created with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns its keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Returns where its objects lie.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    // Key slots

    fn add_password_slot(&self, id: KeyId, password: &[u8], cost: PasswordCost, label: &str) -> Result<()> {
        let info = slot_info(label);
        let slot = Slot::for_password((self.id(), id), (&self.master, &self.keys), password, cost, &info)
            .ok_or(RepositoryError::Cost)?;
        Ok(self.backend.save(ObjectName::key(id.0), &slot)?)
    }

    fn add_recovery_slot(&self, id: KeyId, recovery: &RecoveryKey, label: &str) -> Result<()> {
        let slot = Slot::for_recovery((self.id(), id), (&self.master, &self.keys), recovery, &slot_info(label));
        Ok(self.backend.save(ObjectName::key(id.0), &slot)?)
    }

    /// Adds a slot for another password.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn add_password(&self, password: &[u8], cost: PasswordCost, label: &str) -> Result<KeyId> {
        let id = KeyId(random());
        self.add_password_slot(id, password, cost, label)?;
        Ok(id)
    }

    /// Adds a slot for a new recovery key and returns the key, which is nowhere else.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn add_recovery(&self, label: &str) -> Result<(KeyId, RecoveryKey)> {
        let (id, recovery) = (KeyId(random()), RecoveryKey::generate());
        self.add_recovery_slot(id, &recovery, label)?;
        Ok((id, recovery))
    }

    /// Lists the key slots, the damaged ones too.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn slots(&self) -> Result<Vec<SlotEntry>> {
        let mut slots = Vec::new();
        for id in self.key_ids()? {
            let object = match load_short(&*self.backend, ObjectName::key(id.0), SMALL_LEN_MAX) {
                Ok(object) => object,
                // Nothing so long is a slot.
                Err(RepositoryError::TooLong { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
            let slot = Slot::decode(&object).and_then(|slot| Ok((slot.kind, slot.info((self.id(), id), &self.keys)?)));
            slots.push(SlotEntry { id, slot, in_use: id == self.opened_with });
        }
        Ok(slots)
    }

    /// Removes the slot whose id begins with `asked`, and leaves a record of it.
    ///
    /// # Errors
    /// [`RepositoryError::LastSlot`] if nothing else opens the repository, [`RepositoryError::NoSlot`] if no slot or
    /// more than one is meant.
    pub fn remove_slot(&self, asked: &str) -> Result<KeyId> {
        let slots = self.slots()?;
        let matching: Vec<_> = slots.iter().filter(|slot| slot.id.to_string().starts_with(asked)).collect();
        let [slot] = matching.as_slice() else {
            return Err(RepositoryError::NoSlot { asked: asked.to_owned() });
        };
        if !slots.iter().any(|other| other.id != slot.id && other.slot.is_ok()) {
            return Err(RepositoryError::LastSlot { key: slot.id });
        }
        self.record_removal(&[slot.id], &[])?;
        self.backend.remove(ObjectName::key(slot.id.0))?;
        Ok(slot.id)
    }

    /// Returns the ids of the key slots.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn key_ids(&self) -> Result<Vec<KeyId>> {
        Ok(self.ids(ObjectKind::Key)?.into_iter().map(KeyId).collect())
    }

    // Snapshots

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

    /// Reads all snapshots, the oldest first. Damaged ones are left out with a warning: `check` says more.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn snapshots(&self) -> Result<Vec<(SnapshotId, Snapshot)>> {
        let snapshots = Mutex::new(Vec::new());
        self.load_snapshots(&self.snapshot_ids()?, |id, snapshot| snapshots.lock().push((id, snapshot)))?;
        let mut snapshots = snapshots.into_inner();
        snapshots.sort_by_key(|(id, snapshot)| (snapshot.started, *id));
        Ok(snapshots)
    }

    /// Reads these snapshots, several at a time and in no particular order, and calls `each` with every one. Damaged ones are left
    /// out with a warning.
    ///
    /// # Errors
    /// What the storage gives, for the first it fails with: those that were under way beside it are read, and no more.
    pub fn load_snapshots(&self, ids: &[SnapshotId], each: impl Fn(SnapshotId, Snapshot) + Sync) -> Result<()> {
        each_beside(ids, |id| {
            match self.load_snapshot(*id) {
                Ok(snapshot) => each(*id, snapshot),
                // Forgotten since it was listed, or damaged: neither hides the others.
                Err(error) if error.is_damage() => tracing::warn!(snapshot = %id, %error, "snapshot left out"),
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }

    // Packs and index objects

    /// Returns all packs with their length in bytes.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn packs(&self) -> Result<HashMap<PackId, u64>> {
        let mut packs = HashMap::new();
        self.backend.list(ObjectKind::Pack, &mut |name, len| {
            packs.extend(PackId::from_slice(name.id_bytes()).map(|id| (id, len)));
        })?;
        Ok(packs)
    }

    /// Returns the ids of all index objects.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn index_ids(&self) -> Result<Vec<IndexId>> {
        Ok(self.ids(ObjectKind::Index)?.into_iter().map(IndexId).collect())
    }

    /// Reads a pack whole, holds it against its name, and returns its footer: for packs that no index vouches for.
    ///
    /// # Errors
    /// [`RepositoryError::Renamed`] or [`RepositoryError::Pack`] when it is damaged, or what the storage gives.
    pub fn load_footer_proven(&self, id: PackId) -> Result<Footer> {
        let bytes = self.load_pack(id)?;
        if *blake3::hash(&bytes).as_bytes() != id.0 {
            return Err(RepositoryError::Renamed { name: ObjectName::pack(id.0) });
        }
        pack::footer_of(&self.keys, &bytes).map_err(|source| RepositoryError::Pack { pack: id, source })
    }

    /// Reads a pack whole, without holding it against its name.
    ///
    /// # Errors
    /// [`RepositoryError::TooLong`] for what is no pack, or what the storage gives.
    pub fn load_pack(&self, id: PackId) -> Result<Vec<u8>> {
        load_long(&*self.backend, ObjectName::pack(id.0), SEALED_LEN_MAX)
    }

    /// Reads the footer of a pack of `len` bytes, with two range reads.
    ///
    /// # Errors
    /// [`RepositoryError::Pack`] when it is damaged, or what the storage gives.
    pub fn load_footer(&self, id: PackId, len: u64) -> Result<Footer> {
        self.or_doubt(ObjectName::pack(id.0), || self.try_footer(id, len))
    }

    fn try_footer(&self, id: PackId, len: u64) -> Result<Footer> {
        let name = ObjectName::pack(id.0);
        let failed = |source| RepositoryError::Pack { pack: id, source };
        let trailer_start = len.checked_sub(TRAILER_LEN as u64).ok_or_else(|| failed(PackError::NoTrailer))?;
        let trailer = self.backend.load_range(name, trailer_start..len)?;
        let footer_len = pack::footer_len(&trailer, len).map_err(failed)?;
        let footer = self.backend.load_range(name, trailer_start - footer_len..trailer_start)?;
        pack::open_footer(&self.keys, footer, len).map_err(failed)
    }

    /// Reads an index object.
    ///
    /// # Errors
    /// [`RepositoryError::Sealed`] or [`RepositoryError::Index`] when it is damaged, or what the storage gives.
    pub fn load_index(&self, id: IndexId) -> Result<Index> {
        let plain = self.load_sealed(ObjectName::index(id.0), Purpose::Index)?;
        Index::decode(plain).map_err(|source| RepositoryError::Index { index: id, source })
    }

    /// Stores an index object over `packs`, which must be durable.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn save_index(&self, packs: &[(PackId, Footer)]) -> Result<IndexId> {
        let sealed = self.seal(Purpose::Index, &crate::index::encode(packs));
        let id = IndexId(*blake3::hash(&sealed).as_bytes());
        self.backend.save(ObjectName::index(id.0), &sealed)?;
        Ok(id)
    }

    /// Creates a reader that asks `lookup` where a hint leads nowhere.
    pub fn reader(&self, lookup: Box<dyn Lookup>, sizes: CacheSizes) -> Reader {
        Reader::new(self.backend.clone(), self.keys.clone(), lookup, sizes)
    }

    fn seal(&self, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        sealed::seal(&self.keys, purpose, plaintext, &mut Compressor::new(META_LEVEL))
    }

    /// Loads an object that is named by the hash of its bytes. Without comparing the two, somebody with no key could put an
    /// old snapshot in a new one's place.
    fn load_sealed(&self, name: ObjectName, purpose: Purpose) -> Result<Vec<u8>> {
        self.or_doubt(name, || {
            let (object, _turn) = load_limited(&*self.backend, name, SEALED_LEN_MAX, &self.turns)?;
            if blake3::hash(&object).as_bytes() != name.id_bytes() {
                return Err(RepositoryError::Renamed { name });
            }
            sealed::open(&self.keys, purpose, object).map_err(|source| RepositoryError::Sealed { name, source })
        })
    }

    /// Calls `read`, and once more if the bytes of `name` that it met are wrong and may have been a copy's.
    fn or_doubt<T>(&self, name: ObjectName, read: impl Fn() -> Result<T>) -> Result<T> {
        match read() {
            // A copy never says that there is nothing, or more than there may be.
            Err(
                RepositoryError::Renamed { .. }
                | RepositoryError::Sealed { .. }
                | RepositoryError::Pack { .. }
                | RepositoryError::Backend(BackendError::Short { .. }),
            ) if self.backend.doubt(name, 0..u64::MAX) => read(),
            result => result,
        }
    }

    fn ids<const N: usize>(&self, kind: ObjectKind) -> Result<Vec<[u8; N]>> {
        let mut ids: Vec<[u8; N]> =
            names(&*self.backend, kind)?.iter().filter_map(|name| name.id_bytes().try_into().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

fn slot_info(label: &str) -> SlotInfo {
    SlotInfo { created: jiff::Timestamp::now().as_second(), label: label.to_owned() }
}
