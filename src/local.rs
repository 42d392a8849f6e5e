//! What this machine remembers about a repository, in RocksDB: a cache that may be deleted at any time.
//!
//! It holds the index over all packs, so that a backup knows in microseconds what is stored already, and the facts by
//! which an unchanged file is recognised. The repository is the truth: [`LocalState::sync`] compares the two at the
//! start and starts over when something that is remembered is gone. One process at a time may use it.
//!
//! Keys begin with a byte that says what they are: `b` blob -> place, `p` number -> pack, `i` index object read,
//! `f` facts of a file, `s` snapshot or `k` key slot seen, `t` what a run has put aside, `w` snapshot known to be whole. There is no write-ahead log: after a crash the database is as
//! it was at some moment before, and the next `sync` catches up.

use crate::compress::{Compressor, META_LEVEL};
use crate::crypto::{Keys, Purpose};
use crate::id::{BlobId, IndexId, KeyId, PackId, RepositoryId, SnapshotId};
use crate::index::Index;
use crate::local_files;
use crate::pack::{BlockLocation, Footer, Location};
use crate::reader::{Lookup, ReadError};
use crate::repository::{Repository, RepositoryError};
use crate::sealed;
use parking_lot::{Mutex, RwLock};
use rocksdb::{DB, Direction, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Written into every database; another value means another layout, and starting over.
const LAYOUT: &[u8] = b"1";
const LAYOUT_KEY: &[u8] = b"layout";

/// Why the local state could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// Another process uses it.
    #[error("another strongroom is using the local state in {}", path.display())]
    Locked {
        /// Its folder.
        path: PathBuf,
    },
    /// The folder could not be made, or somebody else could change what is in it.
    #[error("could not use the folder {} for the local state", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What this run put there itself cannot be read any more.
    #[error("what was put into the local state in {} came back damaged; is the machine's memory sound?", path.display())]
    Unsound {
        /// Its folder.
        path: PathBuf,
    },
    /// The database failed.
    #[error("the local state in {} failed", path.display())]
    Database {
        /// Its folder.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
}

/// The packs that are known, by number; numbers keep the entries of the index short.
#[derive(Default)]
struct Packs {
    ids: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    indexed: HashSet<PackId>,
}

/// A key and what was put aside under it.
pub type Aside = (Vec<u8>, Vec<u8>);

/// The local state of one repository.
pub struct LocalState {
    path: PathBuf,
    db: DB,
    keys: std::sync::Arc<Keys>,
    packs: RwLock<Packs>,
    /// One for all callers: a context takes more than a megabyte, and what they write is short.
    compressor: Mutex<Compressor>,
}

impl LocalState {
    /// Opens the state of the repository in the folder `state_dir`, or creates it.
    ///
    /// A database that cannot be read is thrown away: it is a cache.
    ///
    /// # Errors
    /// [`LocalError::Locked`] while another process uses it.
    pub fn open(state_dir: &Path, repository: &Repository) -> Result<Self, LocalError> {
        Self::open_folder(Self::folder(state_dir, repository.id()), repository)
    }

    /// Returns the folder that holds the state of a repository.
    pub fn folder(state_dir: &Path, repository: RepositoryId) -> PathBuf {
        state_dir.join(repository.to_string()).join("index")
    }

    fn open_folder(path: PathBuf, repository: &Repository) -> Result<Self, LocalError> {
        Self::make_folder(&path)?;
        let keys = repository.keys().clone();
        match Self::open_database(&path) {
            Ok((db, packs)) => Ok(Self::new(path, db, keys, packs)),
            Err(LocalError::Database { source, .. })
                if source.kind() == ErrorKind::IOError && source.to_string().contains("/LOCK: ") =>
            {
                Err(LocalError::Locked { path })
            }
            // Only what cannot be read is thrown away; a full disk, say, is no reason to forget.
            Err(LocalError::Database { source, .. })
                if matches!(source.kind(), ErrorKind::Corruption | ErrorKind::InvalidArgument) =>
            {
                Self::destroy(&path)?;
                let (db, packs) = Self::open_database(&path)?;
                Ok(Self::new(path, db, keys, packs))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the database and leaves its folder empty: RocksDB removes that as well, and would make it anew for everybody to read.
    fn destroy(path: &Path) -> Result<(), LocalError> {
        DB::destroy(&options(), path).map_err(|source| LocalError::Database { path: path.to_owned(), source })?;
        Self::make_folder(path)
    }

    /// Makes the folder of the database, for this user alone.
    fn make_folder(path: &Path) -> Result<(), LocalError> {
        let repository = path.parent().expect("the folder is called `index`");
        for folder in [repository, path] {
            let failed = |source| LocalError::Folder { path: folder.to_owned(), source };
            local_files::private_folder(folder).map_err(failed)?;
        }
        Ok(())
    }

    fn new(path: PathBuf, db: DB, keys: std::sync::Arc<Keys>, packs: Packs) -> Self {
        let compressor = Mutex::new(Compressor::new(META_LEVEL));
        Self { path, db, keys, packs: RwLock::new(packs), compressor }
    }

    fn open_database(path: &Path) -> Result<(DB, Packs), LocalError> {
        let failed = |source| LocalError::Database { path: path.to_owned(), source };
        let mut db = DB::open(&options(), path).map_err(failed)?;
        if db.get_pinned(LAYOUT_KEY).map_err(failed)?.as_deref() != Some(LAYOUT) {
            drop(db);
            Self::destroy(path)?;
            db = DB::open(&options(), path).map_err(failed)?;
            db.put(LAYOUT_KEY, LAYOUT).map_err(failed)?;
        }
        let mut packs = Packs::default();
        for item in db.iterator(IteratorMode::From(b"p", Direction::Forward)) {
            let (key, value) = item.map_err(failed)?;
            if key.first() != Some(&b'p') {
                break;
            }
            if let [indexed, id @ ..] = &*value
                && let Some(id) = PackId::from_slice(id)
            {
                packs.add(id, *indexed != 0);
            }
        }
        Ok((db, packs))
    }

    /// Forgets where anything is and what files were like. The snapshots and key slots that were seen stay known: damage
    /// must not hide that one of them disappeared.
    fn clear(&mut self) -> Result<(), LocalError> {
        // Deleting keys one range after the other keeps the open handle, which an own destroy would not.
        let mut batch = WriteBatch::default();
        for prefix in [b'b', b'f', b'i', b'p', b'w'] {
            batch.delete_range([prefix], [prefix + 1]);
        }
        self.write(batch)?;
        *self.packs.write() = Packs::default();
        Ok(())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LocalError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rocksdb::Error) -> LocalError {
        LocalError::Database { path: self.path.clone(), source }
    }

    /// Makes what was written so far outlive the process.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn flush(&self) -> Result<(), LocalError> {
        self.db.flush().map_err(|source| self.failed(source))
    }

    /// Catches up with the repository, and returns the packs that no index object speaks of: those of a backup that was
    /// interrupted, or of one that runs elsewhere right now.
    ///
    /// # Errors
    /// When the repository cannot be listed, or the database fails.
    pub fn sync(&mut self, repository: &Repository) -> Result<Vec<(PackId, Footer)>, RepositoryError> {
        // In the order opposite to writing: the packs of these index objects are there when they are.
        let indexes = repository.index_ids()?;
        let stored = repository.packs()?;
        let gone = {
            let packs = self.packs.read();
            packs.ids.iter().any(|id| !stored.contains_key(id))
        };
        let mut read = self.ids(b'i')?;
        if gone || !read.iter().all(|id| indexes.contains(&IndexId(*id))) {
            self.clear()?;
            read.clear();
        }
        for id in indexes.into_iter().filter(|id| !read.contains(&id.0)) {
            match repository.load_index(id) {
                Ok(index) => self.add_index(id, &index, &stored)?,
                // Its packs are found through their footers below.
                Err(error) if error.is_damage() => {
                    tracing::warn!(index = %id, "index is damaged, reading footers instead")
                }
                Err(error) => return Err(error),
            }
        }
        let unindexed: Vec<_> = {
            let packs = self.packs.read();
            stored.into_keys().filter(|id| !packs.indexed.contains(id)).collect()
        };
        let mut adopted = Vec::new();
        for id in unindexed {
            match repository.load_footer_proven(id) {
                Ok(footer) => {
                    self.add_pack(id, &footer)?;
                    adopted.push((id, footer));
                }
                Err(error) if error.is_damage() => tracing::warn!(pack = %id, "pack is damaged and left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(adopted)
    }

    fn add_index(&self, id: IndexId, index: &Index, stored: &HashMap<PackId, u64>) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        for (pack, _) in index.packs().iter().filter(|(pack, _)| stored.contains_key(pack)) {
            self.number_pack(*pack, true, &mut batch);
        }
        for (blob, location) in index.locations() {
            // Blobs of a pack that is gone are unknown, so that the next backup stores them again.
            if let Some(number) = self.packs.read().numbers.get(&location.block.pack) {
                put_blob(&mut batch, &blob, *number, location);
            }
            if batch.len() >= 10_000 {
                self.write(std::mem::take(&mut batch))?;
            }
        }
        batch.put(prefixed(b'i', &id.0), []);
        self.write(batch)
    }

    /// Remembers a pack that was just stored, or found without an index.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn add_pack(&self, id: PackId, footer: &Footer) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        let number = self.number_pack(id, false, &mut batch);
        for (blob, location) in footer.locations(id) {
            put_blob(&mut batch, &blob, number, location);
        }
        self.write(batch)
    }

    /// Remembers that the index object `index` speaks of `packs`.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn mark_indexed(&self, index: IndexId, packs: impl Iterator<Item = PackId>) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        for pack in packs {
            self.number_pack(pack, true, &mut batch);
        }
        batch.put(prefixed(b'i', &index.0), []);
        self.write(batch)
    }

    fn number_pack(&self, id: PackId, indexed: bool, batch: &mut WriteBatch) -> u32 {
        let number = self.packs.write().add(id, indexed);
        let value = [&[u8::from(indexed)], id.as_bytes()].concat();
        batch.put(prefixed(b'p', &number.to_be_bytes()), value);
        number
    }

    /// Returns what was remembered under `key`, a keyed hash of a file's path, if it is whole.
    pub fn facts(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let sealed = self.db.get(prefixed(b'f', key)).ok()??;
        sealed::open_bound(&self.keys, Purpose::LocalState, key, sealed).ok()
    }

    /// Remembers `facts` under their keys. They are sealed: names and subjects are nobody else's business.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn put_facts<'a>(&self, facts: impl Iterator<Item = (&'a [u8; 32], &'a [u8])>) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        let mut compressor = self.compressor.lock();
        for (key, value) in facts {
            let sealed = sealed::seal_bound(&self.keys, Purpose::LocalState, key, value, &mut compressor);
            batch.put(prefixed(b'f', key), sealed);
        }
        drop(compressor);
        self.write(batch)
    }

    /// Remembers that everything the snapshot needs is stored. It is forgotten as soon as any pack is gone.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn mark_whole(&self, snapshot: SnapshotId) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        batch.put(prefixed(b'w', &snapshot.0), []);
        self.write(batch)
    }

    /// Returns whether everything the snapshot needs is known to be stored.
    pub fn is_whole(&self, snapshot: SnapshotId) -> bool {
        matches!(self.db.get_pinned(prefixed(b'w', &snapshot.0)), Ok(Some(_)))
    }

    /// Puts `value` aside under `key` in `area`, sealed, for this run alone.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn put_aside(&self, area: u64, key: &[u8], value: &[u8]) -> Result<(), LocalError> {
        let key = aside(area, key);
        let mut batch = WriteBatch::default();
        let sealed = sealed::seal_bound(&self.keys, Purpose::LocalState, &key, value, &mut self.compressor.lock());
        batch.put(&key, sealed);
        self.write(batch)
    }

    /// Takes what was put aside under `key` in `area` away, if there is something.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn drop_aside(&self, area: u64, key: &[u8]) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        batch.delete(aside(area, key));
        self.write(batch)
    }

    /// Returns up to `max` of what was put aside in `area`, in the order of the keys, from behind `after` on.
    ///
    /// # Errors
    /// [`LocalError::Database`], or [`LocalError::Unsound`].
    pub fn set_aside(&self, area: u64, after: Option<&[u8]>, max: usize) -> Result<Vec<Aside>, LocalError> {
        let prefix = aside(area, &[]);
        let start = match after {
            // The least key that is greater.
            Some(after) => [&prefix, after, &[0]].concat(),
            None => prefix.clone(),
        };
        let mut found = Vec::new();
        for item in self.db.iterator(IteratorMode::From(&start, Direction::Forward)).take(max) {
            let (key, sealed) = item.map_err(|source| self.failed(source))?;
            let Some(name) = key.strip_prefix(prefix.as_slice()) else { break };
            let value = sealed::open_bound(&self.keys, Purpose::LocalState, &key, sealed.into())
                .map_err(|_| LocalError::Unsound { path: self.path.clone() })?;
            found.push((name.to_vec(), value));
        }
        Ok(found)
    }

    /// Takes everything away that was put aside in `area`, or in any area.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn clear_aside(&self, area: Option<u64>) -> Result<(), LocalError> {
        let (from, to) = match area {
            Some(area) => (aside(area, &[]), aside(area + 1, &[])),
            None => (vec![b't'], vec![b't' + 1]),
        };
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        self.write(batch)
    }

    /// Remembers snapshots and key slots, so that one that disappears without a record is noticed.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn remember(
        &self,
        snapshots: impl Iterator<Item = SnapshotId>,
        keys: impl Iterator<Item = KeyId>,
    ) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        snapshots.for_each(|id| batch.put(prefixed(b's', &id.0), []));
        keys.for_each(|id| batch.put(prefixed(b'k', &id.0), []));
        self.write(batch)
    }

    /// Returns the snapshots and key slots that this machine has seen.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn remembered(&self) -> Result<(Vec<SnapshotId>, Vec<KeyId>), LocalError> {
        let snapshots = self.ids(b's')?.into_iter().map(SnapshotId).collect();
        let keys = self.ids(b'k')?.into_iter().map(KeyId).collect();
        Ok((snapshots, keys))
    }

    fn ids<const N: usize>(&self, prefix: u8) -> Result<HashSet<[u8; N]>, LocalError> {
        let mut ids = HashSet::new();
        for item in self.db.iterator(IteratorMode::From(&[prefix], Direction::Forward)) {
            let (key, _) = item.map_err(|source| self.failed(source))?;
            match key.split_first() {
                Some((first, id)) if *first == prefix => ids.extend(<[u8; N]>::try_from(id)),
                _ => break,
            }
        }
        Ok(ids)
    }

    /// Returns where `blob` is, or `None` where no pack holds it.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn find_blob(&self, blob: &BlobId) -> Result<Option<Location>, LocalError> {
        let value = self.db.get_pinned(prefixed(b'b', &blob.0)).map_err(|source| self.failed(source))?;
        let Some(words) = value.as_deref().and_then(|value| value.as_chunks::<4>().0.first_chunk::<5>()) else {
            return Ok(None);
        };
        let [pack, block_offset, block_len, offset, len] = words.map(u32::from_le_bytes);
        let pack = self.packs.read().ids.get(pack as usize).copied();
        Ok(pack.map(|pack| {
            let block = BlockLocation { pack, offset: block_offset, len: block_len };
            Location { block, offset, len }
        }))
    }
}

impl Lookup for LocalState {
    fn find(&self, blob: &BlobId) -> Result<Option<Location>, ReadError> {
        self.find_blob(blob).map_err(|error| ReadError::Index(Box::new(error)))
    }
}

impl Packs {
    fn add(&mut self, id: PackId, indexed: bool) -> u32 {
        if indexed {
            self.indexed.insert(id);
        }
        *self.numbers.entry(id).or_insert_with(|| {
            self.ids.push(id);
            (self.ids.len() - 1) as u32
        })
    }
}

fn put_blob(batch: &mut WriteBatch, blob: &BlobId, pack: u32, Location { block, offset, len }: Location) {
    let mut value = [0; 20];
    for (slot, word) in value.chunks_exact_mut(4).zip([pack, block.offset, block.len, offset, len]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    batch.put(prefixed(b'b', &blob.0), value);
}

fn aside(area: u64, key: &[u8]) -> Vec<u8> {
    [b"t", area.to_be_bytes().as_slice(), key].concat()
}

fn prefixed(prefix: u8, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(prefix);
    key.extend_from_slice(id);
    key
}

fn options() -> Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    // Most look-ups are for chunks nobody has: ten bits a key answer 99 % of them from memory.
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(16 << 20).expect("memory for a cache"));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(16 << 20);
    options.set_max_open_files(128);
    options.set_keep_log_file_num(1);
    options.set_max_background_jobs(1);
    options
}
