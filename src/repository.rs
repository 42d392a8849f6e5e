//! The one door to a repository: creating, opening, and its objects by name.
//!
//! Opening reads `config` and the key slots and nothing else, so it costs the same however much is stored. What changes
//! the repository writes in an order that leaves it valid at every instant: packs, then index objects, then the
//! snapshot.

pub mod check;
pub mod compare;
pub mod local_state;
pub mod reader;
pub mod select;
pub mod store;
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
pub use opening::{Found, Prepared};
pub use removals::Removals;
pub use search::IndexSearch;
pub use slots::SlotEntry;
pub use snapshots::{LeftOut, Snapshots, latest_first};

use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::format::compress::{Compressor, META_LEVEL};
use crate::format::config::Config;
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

/// `config` and key slots are some hundred bytes long.
const SMALL_LEN_MAX: u64 = 64 << 10;
/// Everything that is sealed as a whole.
const SEALED_LEN_MAX: u64 = (sealed::PLAINTEXT_LEN_MAX + sealed::OVERHEAD) as u64;
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

impl Repository {
    /// Returns what a child process of ours needs to open this repository: the master key, by which slot it was had,
    /// and the config. As secret as the password.
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
        let sealed = self.seal(Purpose::Index, &crate::format::index::encode(packs));
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

    /// Loads an object that is named by the hash of its bytes. Without comparing the two, somebody with no key could
    /// put an old snapshot in a new one's place.
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
