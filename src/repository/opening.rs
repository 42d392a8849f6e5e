//! Creates and opens a repository: finds `config`, tries a secret on the key slots, and says why none of them opens.

use super::loading::{each_concurrently, load_short, names};
use super::{CreateOptions, Repository, RepositoryError, Result, SMALL_LEN_MAX};
use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::format::config::{ARCHIVE_CHUNKS, Archives, Config};
use crate::format::crypto::{Cipher, Keys, MasterKey, Purpose, random};
use crate::format::id::{KeyId, RepositoryId};
use crate::format::keyslot::{OpenOutcome, RecoveryKey, Slot, SlotKind};
use crate::format::sealed;
use parking_lot::Mutex;
use std::sync::Arc;

/// Maximum number of key slots that are read; nobody makes as many. An attacker who can write to the storage can add
/// forged slots, and each takes time to read.
pub(super) const SLOTS_MAX: usize = 1024;
/// Maximum work for trying one password on all slots, in KiB of memory times passes: 64 slots at the highest cost that
/// is accepted. The cheapest slots are tried first, so forged slots keep an honest one from being tried only if the
/// honest one costs more.
const WORK_MAX: u64 = 64 * (16 << 20);
/// Maximum number of unproven master keys that are kept. A slot that does not fit gives one. If such a key opens other
/// objects, then `config` is the wrong part.
const UNPROVEN_MAX: usize = 64;
/// Maximum length in bytes of the object on which unproven master keys are tried.
const SAMPLE_LEN_MAX: u64 = 4 << 20;
/// Maximum number of objects that are read to find an undamaged one.
const SAMPLES_READ_MAX: usize = 16;

/// A repository that was found but not opened yet. A password or the recovery key opens it.
pub struct FoundRepository {
    backend: Arc<dyn Backend>,
    /// `config` as it is stored. Its seal can be checked only with a key.
    object: Vec<u8>,
    config: Config,
}

impl FoundRepository {
    /// Opens the repository with a password or its recovery key.
    ///
    /// # Errors
    /// [`RepositoryError::NoKeyFits`] if the secret opens no slot, [`RepositoryError::ForeignConfig`] if the secret is
    /// right and `config` is wrong, or an error of the storage.
    pub fn open(self, secret: &[u8]) -> Result<Repository> {
        let (slots, mut untried) = self.slots()?;
        let (mut tried, mut work, mut unproven) = (0, 0, Vec::new());
        for (id, slot) in &slots {
            work += slot.work();
            if work > WORK_MAX {
                untried += slots.len() - tried;
                break;
            }
            tried += 1;
            match slot.open((self.config.id, *id), secret) {
                OpenOutcome::Fits(master) => return self.with_master(master, *id),
                OpenOutcome::Unproven(master) if unproven.len() < UNPROVEN_MAX => unproven.push(master),
                OpenOutcome::Unproven(_) | OpenOutcome::Unfit => {}
            }
        }
        if self.opens_a_stored_object(&unproven) {
            return Err(RepositoryError::ForeignConfig { id: self.config.id });
        }
        Err(RepositoryError::NoKeyFits { tried, untried })
    }

    /// Opens the repository with the result of an earlier [`Repository::handover`]. Tries no password. Returns `None` if
    /// the key slot that opened it then was removed, or if the key is not the key of this repository.
    ///
    /// # Errors
    /// An error of the storage.
    pub fn open_again(&self, handover: &[u8]) -> Result<Option<Repository>> {
        let Some((master, slot, _)) = handed_over(handover) else { return Ok(None) };
        match self.backend.size(ObjectName::key(slot.0)) {
            Ok(_) => {}
            Err(BackendError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let found = Self { backend: self.backend.clone(), object: self.object.clone(), config: self.config.clone() };
        Ok(found.with_master(master, slot).ok())
    }

    /// Returns the repository's id.
    pub fn id(&self) -> RepositoryId {
        self.config.id
    }

    /// Returns the key slots that can be tried, the cheapest first, and the number of all other slots.
    fn slots(&self) -> Result<(Vec<(KeyId, Slot)>, usize)> {
        let mut names = names(&*self.backend, ObjectKind::Key)?;
        let count = names.len();
        names.truncate(SLOTS_MAX);
        let slots = Mutex::new(Vec::new());
        each_concurrently(&names, |name| {
            let id = KeyId::from_slice(name.id_bytes()).expect("key names have 16 bytes");
            match load_short(&*self.backend, *name, SMALL_LEN_MAX) {
                Ok(object) => slots.lock().extend(Slot::decode(&object).ok().map(|slot| (id, slot))),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        let mut slots = slots.into_inner();
        // Trying a recovery slot takes no noticeable time, a password slot some tenths of a second.
        slots.sort_by_key(|(id, slot)| (slot.kind == SlotKind::Password, slot.work(), *id));
        let others = count - slots.len();
        Ok((slots, others))
    }

    /// Returns whether one of `masters` opens an object of this repository. Then the secret was right, and `config` is
    /// from another repository: every key slot is bound to the id in `config`.
    fn opens_a_stored_object(&self, masters: &[MasterKey]) -> bool {
        if masters.is_empty() {
            return false;
        }
        let Some((purpose, sample)) = self.sample() else { return false };
        let keys = masters.iter().flat_map(|master| Cipher::ALL.map(|cipher| Keys::derive(master, cipher)));
        // If these keys verify `config`, then `config` is right and the slot is wrong: it is stored under another
        // slot's name.
        let mut foreign = keys.filter(|keys| Config::verify(&self.object, keys).is_err());
        foreign.any(|keys| sealed::open(&keys, purpose, sample.clone()).is_ok())
    }

    /// Returns an object that is sealed under the repository's keys and not bound to the repository's id.
    fn sample(&self) -> Option<(Purpose, Vec<u8>)> {
        [(ObjectKind::Snapshot, Purpose::Snapshot), (ObjectKind::Index, Purpose::Index)].into_iter().find_map(
            |(kind, purpose)| {
                // Errors of the storage do not matter here: the object is only needed for a better error message.
                let names = names(&*self.backend, kind).ok()?;
                let whole = |name: &ObjectName| {
                    let object = load_short(&*self.backend, *name, SAMPLE_LEN_MAX).ok()?;
                    (blake3::hash(&object).as_bytes() == name.id_bytes()).then_some(object)
                };
                Some((purpose, names.iter().take(SAMPLES_READ_MAX).find_map(whole)?))
            },
        )
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

/// A new repository whose key slots are stored and whose `config` is not.
///
/// In this state the caller shows the recovery key, before anything depends on it. An interruption leaves no
/// repository.
pub struct Prepared {
    repository: Repository,
    /// The recovery key. No other copy exists.
    pub recovery: RecoveryKey,
}

impl Prepared {
    /// Returns the id that the repository will have.
    pub fn id(&self) -> RepositoryId {
        self.repository.id()
    }

    /// Writes `config`. From then on the repository exists.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn commit(self) -> Result<Repository> {
        self.repository.commit_config()?;
        Ok(self.repository)
    }

    /// Removes the key slots again.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails. The next [`Repository::prepare`] removes the slots that are
    /// left.
    pub fn withdraw(self) -> Result<()> {
        for name in names(&*self.repository.backend, ObjectKind::Key)? {
            self.repository.backend.remove(name)?;
        }
        Ok(())
    }
}

/// Returns whether the storage holds packs, index objects or snapshots, which the key slots open.
fn holds_backups(backend: &dyn Backend) -> Result<bool> {
    for kind in [ObjectKind::Snapshot, ObjectKind::Index, ObjectKind::Pack] {
        let mut holds = false;
        backend.list(kind, &mut |_, _| holds = true)?;
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Repository {
    /// Creates a repository and returns it with its recovery key. No other copy of that key exists.
    ///
    /// # Errors
    /// See [`Repository::prepare`].
    pub fn create(backend: Arc<dyn Backend>, password: &[u8], options: &CreateOptions) -> Result<(Self, RecoveryKey)> {
        let Prepared { repository, recovery } = Self::prepare(backend, password, options)?;
        repository.commit_config()?;
        Ok((repository, recovery))
    }

    /// Writes the key slots of a new repository. [`Prepared::commit`] then completes the repository.
    ///
    /// # Errors
    /// [`RepositoryError::Exists`], [`RepositoryError::NoConfig`] if backups are stored and only `config` is missing,
    /// or an error of the storage.
    pub fn prepare(backend: Arc<dyn Backend>, password: &[u8], options: &CreateOptions) -> Result<Prepared> {
        match backend.size(ObjectName::config()) {
            Err(BackendError::NotFound { .. }) => {}
            Ok(_) => return Err(RepositoryError::Exists { place: backend.describe() }),
            Err(error) => return Err(error.into()),
        }
        if holds_backups(&*backend)? {
            return Err(RepositoryError::NoConfig { place: backend.describe() });
        }
        // There is no config and no backup, so these slots open nothing: an interrupted creation left them.
        for name in names(&*backend, ObjectKind::Key)? {
            backend.remove(name)?;
        }
        let mut config = Config::new(RepositoryId(random()), options.cipher);
        config.archives = (options.archives == Archives::ByContent).then_some(ARCHIVE_CHUNKS);
        let master = MasterKey::generate();
        let keys = Arc::new(Keys::derive(&master, config.cipher));
        let (password_id, recovery_id) = (KeyId(random()), KeyId(random()));
        let repository = Self { backend, config, master, keys, opened_with: password_id, turns: Mutex::default() };
        repository.add_password_slot(password_id, password, options.cost, "first password")?;
        let recovery = RecoveryKey::generate();
        repository.add_recovery_slot(recovery_id, &recovery, "recovery key")?;
        Ok(Prepared { repository, recovery })
    }

    fn commit_config(&self) -> Result<()> {
        let config = self.config.encode(&self.keys);
        Ok(self.backend.save(ObjectName::config(), &config)?)
    }

    /// Finds out whether there is a repository, before anybody is asked for a password.
    ///
    /// # Errors
    /// [`RepositoryError::NoRepository`], [`RepositoryError::NoConfig`], [`RepositoryError::Config`], or an error of
    /// the storage.
    pub fn find(backend: Arc<dyn Backend>) -> Result<FoundRepository> {
        let object = match load_short(&*backend, ObjectName::config(), SMALL_LEN_MAX) {
            Err(RepositoryError::Backend(BackendError::NotFound { .. })) => {
                let place = backend.describe();
                return Err(match holds_backups(&*backend)? {
                    true => RepositoryError::NoConfig { place },
                    false => RepositoryError::NoRepository { place },
                });
            }
            object => object?,
        };
        let config = Config::decode(&object)?;
        Ok(FoundRepository { backend, object, config })
    }

    /// Opens a repository with a password or its recovery key.
    ///
    /// # Errors
    /// [`RepositoryError::NoRepository`], [`RepositoryError::NoKeyFits`], or an error of the storage.
    pub fn open(backend: Arc<dyn Backend>, secret: &[u8]) -> Result<Self> {
        Self::find(backend)?.open(secret)
    }

    /// Opens a repository with the result of [`Repository::handover`] in another process. Sends no request to the
    /// storage and tries no password.
    ///
    /// # Errors
    /// [`RepositoryError::NoKeyFits`] if `handover` is malformed, or [`RepositoryError::Config`].
    pub fn open_handed_over(backend: Arc<dyn Backend>, handover: &[u8]) -> Result<Self> {
        let parts = handed_over(handover);
        let (master, slot, object) = parts.ok_or(RepositoryError::NoKeyFits { tried: 0, untried: 0 })?;
        let found = FoundRepository { backend, object: object.to_vec(), config: Config::decode(object)? };
        found.with_master(master, slot)
    }
}

/// Returns the parts of the result of [`Repository::handover`]: the master key, the slot that gave it, and `config`.
fn handed_over(handover: &[u8]) -> Option<(MasterKey, KeyId, &[u8])> {
    let (master, rest) = handover.split_first_chunk()?;
    let (slot, config) = rest.split_first_chunk()?;
    Some((MasterKey::from_bytes(*master), KeyId(*slot), config))
}
