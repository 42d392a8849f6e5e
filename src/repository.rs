//! The one way to a repository: create it, open it, and load and store its objects by name.
//!
//! Opening reads only `config` and the key slots, so it costs the same however much the repository holds. A backup
//! writes packs first, then index objects, then the snapshot. So the repository is valid at every instant.

pub mod check;
pub mod compare;
pub mod local_state;
pub mod read_error;
pub mod reader;
pub mod select;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod tree;

mod error;
mod loading;
mod missing;
mod opening;
mod removals;
mod search;
mod slots;
mod snapshots;

pub use error::RepositoryError;
pub use missing::Missing;
pub use opening::{FoundRepository, Prepared};
pub use removals::Removals;
pub use search::IndexSearch;
pub use slots::SlotEntry;
pub use snapshots::{LeftOut, Snapshots, latest_first};

use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::format::compress::{Compressor, META_LEVEL};
use crate::format::config::{Archives, Config};
use crate::format::crypto::{Cipher, Keys, MasterKey, Purpose};
use crate::format::id::{IndexId, KeyId, PackId, RepositoryId};
use crate::format::index::Index;
use crate::format::keyslot::PasswordCost;
use crate::format::pack::{self, Footer, PackError, TRAILER_LEN};
use crate::format::sealed;
use crate::repository::reader::{CacheSizes, Lookup, Reader};
use loading::{load_limited, load_long, names};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Maximum length of `config` and of a key slot, in bytes. Real ones have some hundred bytes.
const SMALL_LEN_MAX: u64 = 64 << 10;
/// Maximum length of a pack and of every object that is sealed as a whole, in bytes.
const SEALED_LEN_MAX: u64 = (sealed::PLAINTEXT_LEN_MAX + sealed::OVERHEAD) as u64;
type Result<T> = std::result::Result<T, RepositoryError>;

/// The choices for a new repository.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The cipher that seals all objects.
    pub cipher: Cipher,
    /// The memory and passes that one try of a password costs.
    pub cost: PasswordCost,
    /// How archives are stored.
    pub archives: Archives,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { cipher: Cipher::Aes256Siv, cost: PasswordCost::default(), archives: Archives::default() }
    }
}

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: Config,
    master: MasterKey,
    keys: Arc<Keys>,
    opened_with: KeyId,
    /// Held by the thread that loads a long object; see [`loading::Turn`].
    turns: Mutex<()>,
}

impl Repository {
    /// Returns what our child process needs to open this repository: the master key, the id of the slot that gave it,
    /// and the config. It is as secret as the password.
    pub fn handover(&self) -> Zeroizing<Vec<u8>> {
        let config = self.config.encode(&self.keys);
        Zeroizing::new([&self.master.expose()[..], &self.opened_with.0, &config].concat())
    }

    /// Returns the repository's id.
    pub fn id(&self) -> RepositoryId {
        self.config.id
    }

    /// Returns the config, which holds the choices made at creation.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns its keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Returns the backend that stores its objects.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    // Packs and index objects

    /// Returns all packs with their length in bytes.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
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
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn index_ids(&self) -> Result<Vec<IndexId>> {
        Ok(self.ids(ObjectKind::Index)?.into_iter().map(IndexId).collect())
    }

    /// Reads a whole pack, compares its hash with its name, and returns its footer. For packs that no index object
    /// lists.
    ///
    /// # Errors
    /// [`RepositoryError::Renamed`] or [`RepositoryError::Pack`] when it is damaged, or an error of the storage.
    pub fn load_footer_proven(&self, id: PackId) -> Result<Footer> {
        let bytes = self.load_pack(id)?;
        if *blake3::hash(&bytes).as_bytes() != id.0 {
            return Err(RepositoryError::Renamed { name: ObjectName::pack(id.0) });
        }
        pack::footer_of(&self.keys, &bytes).map_err(|source| RepositoryError::Pack { pack: id, source })
    }

    /// Reads a whole pack. Does not compare its hash with its name.
    ///
    /// # Errors
    /// [`RepositoryError::TooLong`] if the object is too long for a pack, or an error of the storage.
    pub fn load_pack(&self, id: PackId) -> Result<Vec<u8>> {
        load_long(&*self.backend, ObjectName::pack(id.0), SEALED_LEN_MAX)
    }

    /// Reads the footer of a pack of `len` bytes, with two range reads.
    ///
    /// # Errors
    /// [`RepositoryError::Pack`] when it is damaged, or an error of the storage.
    pub fn load_footer(&self, id: PackId, len: u64) -> Result<Footer> {
        self.retry_without_copy(ObjectName::pack(id.0), || self.try_footer(id, len))
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
    /// [`RepositoryError::Sealed`] or [`RepositoryError::Index`] when it is damaged, or an error of the storage.
    pub fn load_index(&self, id: IndexId) -> Result<Index> {
        let plain = self.load_sealed(ObjectName::index(id.0), Purpose::Index)?;
        Index::decode(plain).map_err(|source| RepositoryError::Index { index: id, source })
    }

    /// Stores an index object that lists `packs`. The packs must be durable already.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn save_index(&self, packs: &[(PackId, Footer)]) -> Result<IndexId> {
        let sealed = self.seal(Purpose::Index, &crate::format::index::encode(packs));
        let id = IndexId(*blake3::hash(&sealed).as_bytes());
        self.backend.save(ObjectName::index(id.0), &sealed)?;
        Ok(id)
    }

    /// Creates a reader. It asks `lookup` for a blob that is not where the hint says.
    pub fn reader(&self, lookup: Box<dyn Lookup>, sizes: CacheSizes) -> Reader {
        Reader::new(self.backend.clone(), self.keys.clone(), lookup, sizes)
    }

    fn seal(&self, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        sealed::seal(&self.keys, purpose, plaintext, &mut Compressor::new(META_LEVEL))
    }

    /// Loads an object that is named by the hash of its bytes, and compares the two. Otherwise somebody without a key
    /// could replace a new snapshot with an old one.
    fn load_sealed(&self, name: ObjectName, purpose: Purpose) -> Result<Vec<u8>> {
        self.retry_without_copy(name, || {
            let (object, _turn) = load_limited(&*self.backend, name, SEALED_LEN_MAX, &self.turns)?;
            if blake3::hash(&object).as_bytes() != name.id_bytes() {
                return Err(RepositoryError::Renamed { name });
            }
            sealed::open(&self.keys, purpose, object).map_err(|source| RepositoryError::Sealed { name, source })
        })
    }

    /// Calls `read`. If the bytes of `name` are wrong, and the backend may have served them from a local copy, drops
    /// that copy and calls `read` once more.
    fn retry_without_copy<T>(&self, name: ObjectName, read: impl Fn() -> Result<T>) -> Result<T> {
        match read() {
            // Not retried: missing and too long objects. A local copy never gives these errors.
            Err(
                RepositoryError::Renamed { .. }
                | RepositoryError::Sealed { .. }
                | RepositoryError::Pack { .. }
                | RepositoryError::Backend(BackendError::Short { .. }),
            ) if self.backend.drop_local_copy(name, 0..u64::MAX) => read(),
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
