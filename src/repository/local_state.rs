//! What this machine remembers about a repository, in RocksDB. It is a cache that may be deleted at any time.
//!
//! It holds the index over all packs, so that a backup knows in microseconds what is stored already. It also holds the
//! facts that identify an unchanged file. The repository is the truth: at the start [`LocalState::sync`] compares the
//! two, and starts over if a remembered pack or index object is gone. Only one process at a time may use it.
//!
//! The first byte of a key says what the key is: `b` blob -> location, `p` number -> pack, `i` index object read, `f`
//! facts of a file, `g` record of a folder, `m` items read by an unfinished run, `d` damaged pack, `s` snapshot or `k`
//! key slot seen, `t` value that a run set aside, `w` snapshot known to be complete. There is no write-ahead log. After
//! a crash the database is in the state of some earlier moment, and the next `sync` catches up.

mod facts;

pub use facts::Aside;

use crate::backend::ObjectName;
use crate::format::compress::{Compressor, LOCAL_LEVEL};
use crate::format::crypto::Keys;
use crate::format::id::{BlobId, IndexId, KeyId, PackId, RepositoryId, SnapshotId};
use crate::format::index::Index;
use crate::format::pack::{BlockLocation, Footer, Location};
use crate::local_files;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Lookup;
use crate::repository::{Repository, RepositoryError};
use parking_lot::{Mutex, RwLock};
use rocksdb::{DB, Direction, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The layout of the database, stored in every database. A database with an unknown layout is deleted and made anew.
const LAYOUT: &[u8] = b"2";
const LAYOUT_1: &[u8] = b"1";
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
    /// The folder could not be made, or other users could change files in it.
    #[error("could not use the folder {} for the local state", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A value that this run stored there cannot be read any more.
    #[error("a value of the local state in {} came back damaged; is the machine's memory sound?", path.display())]
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

/// The result of [`LocalState::sync`].
#[derive(Debug, Default)]
pub struct Synced {
    /// The packs that no index object lists. They belong to an interrupted backup, or to one that runs elsewhere right
    /// now.
    pub adopted: Vec<(PackId, Footer)>,
    /// Index objects and packs that only a later version of this program reads. Their contents are unknown here, so a
    /// backup may store the same contents again.
    pub later: Vec<ObjectName>,
}

impl Synced {
    /// Says in one line how many objects are of a later version, if any are.
    pub fn remark(&self) -> Option<String> {
        let first = self.later.first()?;
        let count = self.later.len();
        Some(format!(
            "{count} objects are of a later version of this program (the first is {first}); they stay as they are, and \
             what only they hold is stored again"
        ))
    }
}

/// The known packs by number. A number of 4 bytes keeps the entries of the index short.
#[derive(Default)]
struct Packs {
    ids: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    indexed: HashSet<PackId>,
}

/// The local state of one repository.
pub struct LocalState {
    path: PathBuf,
    db: DB,
    keys: std::sync::Arc<Keys>,
    packs: RwLock<Packs>,
    /// Packs that a check found damaged. Their blobs count as not stored, so the next backup stores them again.
    damaged: RwLock<HashSet<PackId>>,
    /// One compressor for all callers: it takes more than a megabyte of memory, and the values are short.
    compressor: Mutex<Compressor>,
}

impl LocalState {
    /// Opens the state of the repository in the folder `state_dir`, or creates it.
    ///
    /// A database that cannot be read is deleted: it is a cache.
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

    /// Returns the snapshots and key slots that this machine has seen. Works also while another process uses the state.
    /// The result is for warnings only: if the state is missing or unreadable, it is empty, and no folder is made.
    pub fn peek(state_dir: &Path, repository: RepositoryId) -> (Vec<SnapshotId>, Vec<KeyId>) {
        let path = Self::folder(state_dir, repository);
        if !path.is_dir() {
            return Default::default();
        }
        // Another process may delete files of the database while we read. Then there is nothing to compare with.
        let read = DB::open_for_read_only(&options(), &path, false)
            .and_then(|db| Ok((ids::<32>(&db, b's')?, ids::<16>(&db, b'k')?)));
        match read {
            Ok((snapshots, keys)) => {
                (snapshots.into_iter().map(SnapshotId).collect(), keys.into_iter().map(KeyId).collect())
            }
            Err(error) => {
                tracing::debug!(%error, "what this machine has seen could not be read");
                Default::default()
            }
        }
    }

    fn open_folder(path: PathBuf, repository: &Repository) -> Result<Self, LocalError> {
        Self::make_folder(&path)?;
        let keys = repository.keys().clone();
        match Self::open_database(&path) {
            Ok((db, packs)) => Self::new(path, db, keys, packs),
            Err(LocalError::Database { source, .. })
                if source.kind() == ErrorKind::IOError && source.to_string().contains("/LOCK: ") =>
            {
                Err(LocalError::Locked { path })
            }
            // Only a damaged database is deleted. Another error, such as a full disk, is no reason to forget.
            Err(LocalError::Database { source, .. })
                if matches!(source.kind(), ErrorKind::Corruption | ErrorKind::InvalidArgument) =>
            {
                Self::destroy(&path)?;
                let (db, packs) = Self::open_database(&path)?;
                Self::new(path, db, keys, packs)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the database and leaves its folder empty. RocksDB deletes the folder too, and would make it again with
    /// permissions for all users.
    fn destroy(path: &Path) -> Result<(), LocalError> {
        DB::destroy(&options(), path).map_err(|source| LocalError::Database { path: path.to_owned(), source })?;
        Self::make_folder(path)
    }

    /// Makes the folder of the database, for this user only.
    fn make_folder(path: &Path) -> Result<(), LocalError> {
        let repository = path.parent().expect("the folder is called `index`");
        for folder in [repository, path] {
            let failed = |source| LocalError::Folder { path: folder.to_owned(), source };
            local_files::private_folder(folder).map_err(failed)?;
        }
        Ok(())
    }

    fn new(path: PathBuf, db: DB, keys: std::sync::Arc<Keys>, packs: Packs) -> Result<Self, LocalError> {
        let compressor = Mutex::new(Compressor::new(LOCAL_LEVEL));
        let local = Self { path, db, keys, packs: RwLock::new(packs), damaged: RwLock::default(), compressor };
        let damaged = local.ids(b'd')?.into_iter().map(PackId).collect();
        Ok(Self { damaged: RwLock::new(damaged), ..local })
    }

    fn open_database(path: &Path) -> Result<(DB, Packs), LocalError> {
        let failed = |source| LocalError::Database { path: path.to_owned(), source };
        let mut db = DB::open(&options(), path).map_err(failed)?;
        let layout = db.get_pinned(LAYOUT_KEY).map_err(failed)?.map(|layout| layout.to_vec());
        match layout.as_deref() {
            Some(LAYOUT) => {}
            Some(LAYOUT_1) => {
                // Layout 1 kept the facts of mails among those of files, and nothing ever removed them.
                let mut batch = WriteBatch::default();
                batch.delete_range(*b"f", *b"g");
                batch.put(LAYOUT_KEY, LAYOUT);
                db.write(batch).map_err(failed)?;
            }
            _ => {
                drop(db);
                Self::destroy(path)?;
                db = DB::open(&options(), path).map_err(failed)?;
                db.put(LAYOUT_KEY, LAYOUT).map_err(failed)?;
            }
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

    /// Forgets where blobs are, the facts of files and the records of folders. Keeps the snapshots and key slots that
    /// were seen: damage must not hide that one of them disappeared.
    fn clear(&mut self) -> Result<(), LocalError> {
        // Deleting ranges of keys keeps the database open. `destroy` would need to close it.
        let mut batch = WriteBatch::default();
        for prefix in [b'b', b'f', b'g', b'i', b'm', b'p', b'w'] {
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

    /// Writes everything so far to disk, so that it outlives the process.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn flush(&self) -> Result<(), LocalError> {
        self.db.flush().map_err(|source| self.failed(source))
    }

    /// Catches up with the repository.
    ///
    /// # Errors
    /// When the repository cannot be listed, or the database fails.
    pub fn sync(&mut self, repository: &Repository) -> Result<Synced, RepositoryError> {
        // A backup stores packs before index objects. So index objects are listed first here: their packs are then in
        // the later listing.
        let indexes = repository.index_ids()?;
        let mut stored = repository.packs()?;
        self.forget_damage(|id| !stored.contains_key(id))?;
        stored.retain(|id, _| !self.damaged.read().contains(id));
        let gone = {
            let packs = self.packs.read();
            packs.ids.iter().any(|id| !stored.contains_key(id))
        };
        let (mut read, mut later) = (self.ids(b'i')?, Vec::new());
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
                Err(error) if error.is_of_later_version() => later.push(ObjectName::index(id.0)),
                Err(error) => return Err(error),
            }
        }
        let unindexed: Vec<_> = {
            let packs = self.packs.read();
            stored.into_iter().filter(|(id, _)| !packs.indexed.contains(id)).collect()
        };
        let mut adopted = Vec::new();
        for (id, len) in unindexed {
            // The footer is read first, because it shows whether the whole pack is worth reading.
            let proven = repository.load_footer(id, len).and_then(|_| repository.load_footer_proven(id));
            match proven {
                Ok(footer) => {
                    self.add_pack(id, &footer)?;
                    adopted.push((id, footer));
                }
                Err(error) if error.is_of_later_version() => later.push(ObjectName::pack(id.0)),
                Err(error) if error.is_damage() => tracing::warn!(pack = %id, "pack is damaged and left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(Synced { adopted, later })
    }

    fn add_index(&self, id: IndexId, index: &Index, stored: &HashMap<PackId, u64>) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        for (pack, _) in index.packs().iter().filter(|(pack, _)| stored.contains_key(pack)) {
            self.number_pack(*pack, true, &mut batch);
        }
        for (blob, location) in index.locations() {
            // The blobs of a missing pack are left out, so that the next backup stores them again.
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

    /// Adds a pack that was just stored, or that no index object lists.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn add_pack(&self, id: PackId, footer: &Footer) -> Result<(), LocalError> {
        // The pack is stored with the right bytes now, so it is damaged no more.
        self.forget_damage(|damaged| *damaged == id)?;
        let mut batch = WriteBatch::default();
        let number = self.number_pack(id, false, &mut batch);
        for (blob, location) in footer.locations(id) {
            put_blob(&mut batch, &blob, number, location);
        }
        self.write(batch)
    }

    /// Notes that the index object `index` lists `packs`.
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

    /// Notes the packs that a check found `damaged`, and clears that note for the packs that it found `sound`.
    ///
    /// From then on a blob does not count as stored if only a damaged pack holds it. The rest of the index is forgotten
    /// and read again by the next [`LocalState::sync`]. The facts of files are forgotten too: a file that did not
    /// change may have lost a chunk. See docs/decisions/0013-damage-is-remembered.md.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn note_damage(&mut self, damaged: &BTreeSet<PackId>, sound: &HashSet<PackId>) -> Result<(), LocalError> {
        let new: Vec<_> = damaged.iter().copied().filter(|id| !self.damaged.read().contains(id)).collect();
        let forgotten = self.forget_damage(|id| sound.contains(id) && !damaged.contains(id))?;
        if new.is_empty() && !forgotten {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        new.iter().for_each(|id| batch.put(prefixed(b'd', &id.0), []));
        self.write(batch)?;
        self.damaged.write().extend(new);
        self.clear()?;
        self.flush()
    }

    fn forget_damage(&self, which: impl Fn(&PackId) -> bool) -> Result<bool, LocalError> {
        let mended: Vec<_> = self.damaged.read().iter().copied().filter(which).collect();
        if mended.is_empty() {
            return Ok(false);
        }
        let mut batch = WriteBatch::default();
        mended.iter().for_each(|id| batch.delete(prefixed(b'd', &id.0)));
        self.write(batch)?;
        self.damaged.write().retain(|id| !mended.contains(id));
        Ok(true)
    }

    fn number_pack(&self, id: PackId, indexed: bool, batch: &mut WriteBatch) -> u32 {
        let number = self.packs.write().add(id, indexed);
        let value = [&[u8::from(indexed)], id.as_bytes()].concat();
        batch.put(prefixed(b'p', &number.to_be_bytes()), value);
        number
    }

    /// Notes that everything the snapshot needs is stored. The note is cleared as soon as any pack is gone.
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

    /// Notes that this machine has seen these snapshots and key slots. If one disappears without a record, that is
    /// noticed.
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
        ids(&self.db, prefix).map_err(|source| self.failed(source))
    }

    /// Returns the location of `blob`, or `None` if no pack holds it.
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
    fn find_elsewhere(&self, blob: &BlobId, tried: &[Location]) -> Result<Option<Location>, ReadError> {
        let found = self.find_blob(blob).map_err(|error| ReadError::Index(Box::new(error)))?;
        Ok(found.filter(|location| !tried.contains(location)))
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

/// Returns the ids of all keys with this prefix.
fn ids<const N: usize>(db: &DB, prefix: u8) -> Result<HashSet<[u8; N]>, rocksdb::Error> {
    let mut ids = HashSet::new();
    for item in db.iterator(IteratorMode::From(&[prefix], Direction::Forward)) {
        let (key, _) = item?;
        match key.split_first() {
            Some((first, id)) if *first == prefix => ids.extend(<[u8; N]>::try_from(id)),
            _ => break,
        }
    }
    Ok(ids)
}

fn put_blob(batch: &mut WriteBatch, blob: &BlobId, pack: u32, Location { block, offset, len }: Location) {
    let mut value = [0; 20];
    for (slot, word) in value.chunks_exact_mut(4).zip([pack, block.offset, block.len, offset, len]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    batch.put(prefixed(b'b', &blob.0), value);
}

fn prefixed(prefix: u8, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(prefix);
    key.extend_from_slice(id);
    key
}

fn options() -> Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    // Most look-ups are for chunks that no pack holds: 10 bits for each key answer 99 % of them from memory.
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(16 << 20).expect("memory for a cache"));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(16 << 20);
    // The same for keys that are not in a file yet. The ratio is of the write buffer: 320 KiB, or 20 bits for each key.
    options.set_memtable_prefix_bloom_ratio(0.02);
    options.set_memtable_whole_key_filtering(true);
    options.set_max_open_files(128);
    options.set_keep_log_file_num(1);
    options.set_max_background_jobs(1);
    options
}
