//! Finds the entries in snapshots that have a given content. So a dropped file is recognised.
//!
//! A dropped file is split in the same way as in a backup. Its content is looked up by a hash that is equal for two
//! contents if they are stored as the same chunks. The answers are in a database on this machine, which is filled from
//! the snapshots: everything of the newest snapshot of each set, and of every other one the differences to its
//! neighbour. So a thousand snapshots cost little more than one. The database is a cache: deleting it costs the time to
//! fill it again.
//!
//! The first byte of a key says what the key is: `c` content (16 bytes of its hash) and path (8 bytes of its hash) ->
//! snapshot and path, sealed; `s` snapshot that is in the database. Only items from a mailbox are in it: of other files
//! the snapshots know no more than the bytes.

use crate::backup::tenant::USERS;
use crate::backup::tenant::state::TenantState;
use crate::format::crypto::{Keys, Purpose, TAG_LEN};
use crate::format::entry::{Directory, Entry};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::local_files;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Change, Entries};
use crate::repository::{Repository, RepositoryError};
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The layout of the database. A database with another value is deleted and made anew.
const LAYOUT: &[u8] = b"2";
const LAYOUT_KEY: &[u8] = b"layout";
/// Maximum number of places of one content that are looked at. A million places may hold an empty mail.
const PATHS_MAX: usize = 1000;
/// Maximum number of records in one write.
const BATCH_MAX: usize = 4096;
/// Maximum depth of folders in a snapshot that are searched.
const DEPTH_MAX: usize = 400;

/// Why the contents of the snapshots cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The folder could not be made, or other users could change files in it.
    #[error("could not use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("the database of known contents failed")]
    Database(#[from] rocksdb::Error),
    /// The snapshots could not be read.
    #[error("could not read the snapshots")]
    Repository(#[from] RepositoryError),
    /// A snapshot could not be read.
    #[error("could not read a snapshot")]
    Read(#[from] ReadError),
    /// The program is ending.
    #[error("interrupted")]
    Interrupted,
}

/// A place that holds a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path in the snapshot.
    pub path: Vec<u8>,
}

impl SnapshotPath {
    /// Returns the name of the account's folder: NAME in `Users/NAME/...`.
    pub fn account(&self) -> Option<&[u8]> {
        let mut names = self.path.split(|byte| *byte == b'/');
        names.next().filter(|name| *name == USERS.as_bytes()).and(names.next())
    }
}

/// The state of filling the database.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Filling,
    Complete,
    /// Filling failed, and why.
    Failed(String),
}

/// The contents of all snapshots.
pub struct Contents {
    db: DB,
    keys: Arc<Keys>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Locked also while later snapshots are added, so that no search sees half of a snapshot.
    known: Mutex<Known>,
}

/// The snapshots in the database.
#[derive(Default)]
struct Known {
    /// All snapshots that existed, including those that cannot be read.
    listed: HashSet<SnapshotId>,
    /// When each snapshot was made, to prefer the newest.
    times: Times,
}

/// When each snapshot was made, in seconds and nanoseconds.
type Times = HashMap<SnapshotId, (i64, u32)>;

impl Contents {
    /// Opens the database in `folder`, or creates it. A database that cannot be read is deleted.
    ///
    /// # Errors
    /// [`ContentsError::Folder`], [`ContentsError::Database`].
    pub fn open(folder: &Path, keys: Arc<Keys>) -> Result<Self, ContentsError> {
        let make_folder = || {
            let failed = |source| ContentsError::Folder { path: folder.to_owned(), source };
            local_files::private_folder(folder).map_err(failed)
        };
        make_folder()?;
        let open = || {
            let db = DB::open(&options(), folder)?;
            let layout = db.get(LAYOUT_KEY)?;
            Ok::<_, rocksdb::Error>((layout.as_deref() == Some(LAYOUT), db))
        };
        let db = match open() {
            Ok((true, db)) => db,
            other => {
                drop(other);
                DB::destroy(&options(), folder)?;
                // RocksDB deleted the folder too, and would make it again with permissions for all users.
                make_folder()?;
                let db = DB::open(&options(), folder)?;
                db.put(LAYOUT_KEY, LAYOUT)?;
                db
            }
        };
        Ok(Self { db, keys, progress: Mutex::new(Progress::Filling), changed: Condvar::new(), known: Mutex::default() })
    }

    /// Adds the snapshots that are not in the database yet, the newest of each set first. Wakes waiting threads at the
    /// end, whether it succeeded or not.
    ///
    /// # Errors
    /// [`ContentsError`]; the snapshots added so far stay in the database.
    pub fn fill(&self, repository: &Repository, reader: &Reader, cancel: &AtomicBool) -> Result<(), ContentsError> {
        // Dropping `ends` wakes the waiting threads, even after a panic.
        let mut ends =
            EndOfFilling { contents: self, progress: Progress::Failed("a fault of this program".to_owned()) };
        let filled = self.fill_all(repository, reader, cancel).map(|known| *self.known.lock() = known);
        ends.progress = match &filled {
            Ok(()) => Progress::Complete,
            Err(error) => Progress::Failed(crate::restore::chain(error)),
        };
        filled
    }

    /// Adds snapshots that were made since, and forgets those that are gone.
    ///
    /// # Errors
    /// [`ContentsError`].
    pub fn catch_up(&self, repository: &Repository, reader: &Reader, cancel: &AtomicBool) -> Result<(), ContentsError> {
        let ids: HashSet<SnapshotId> = repository.snapshot_ids()?.into_iter().collect();
        let mut known = self.known.lock();
        if known.listed != ids {
            *known = self.fill_all(repository, reader, cancel)?;
        }
        *self.progress.lock() = Progress::Complete;
        Ok(())
    }

    fn fill_all(&self, repository: &Repository, reader: &Reader, cancel: &AtomicBool) -> Result<Known, ContentsError> {
        let listed: HashSet<SnapshotId> = repository.snapshot_ids()?.into_iter().collect();
        let snapshots = repository.snapshots()?.readable;
        let ids: HashSet<SnapshotId> = snapshots.iter().map(|(id, _)| *id).collect();
        let mut known = self.taken_in()?;
        if known.iter().any(|id| !ids.contains(id)) {
            // A place in a removed snapshot could not be read any more, so the database is filled again.
            self.clear()?;
            known.clear();
        }
        let made = |snapshot: &Snapshot| (snapshot.finished.secs, snapshot.finished.nanos);
        let times: Times = snapshots.iter().map(|(id, snapshot)| (*id, made(snapshot))).collect();
        let mut sets: HashMap<&str, Vec<&(SnapshotId, Snapshot)>> = HashMap::new();
        for one in snapshots.iter().filter(|(_, snapshot)| TenantState::of(snapshot).is_some()) {
            sets.entry(&one.1.set).or_default().push(one);
        }
        for mut set in sets.into_values() {
            set.sort_by_key(|(_, snapshot)| std::cmp::Reverse(made(snapshot)));
            for number in 0..set.len() {
                let (id, snapshot) = set[number];
                if known.contains(id) {
                    continue;
                }
                // The newer neighbour is in the database by now. The newest snapshot has none, so it is compared with
                // the next older one that is in the database.
                let newer = number.checked_sub(1).map(|newer| set[newer]);
                let older = set[number + 1..].iter().copied().find(|(id, _)| known.contains(id));
                let base = newer.or(older).map(|(_, snapshot)| snapshot.directory());
                self.take_in(reader, *id, base, snapshot.directory(), &times, cancel)?;
                known.insert(*id);
            }
        }
        Ok(Known { listed, times })
    }

    /// Returns the snapshots that were added completely.
    fn taken_in(&self) -> Result<HashSet<SnapshotId>, rocksdb::Error> {
        let mut known = HashSet::new();
        for row in self.db.iterator(IteratorMode::From(b"s", Direction::Forward)) {
            let (key, _) = row?;
            match key.split_first() {
                Some((b's', id)) => known.extend(<[u8; 32]>::try_from(id).ok().map(SnapshotId)),
                _ => break,
            }
        }
        Ok(known)
    }

    fn clear(&self) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        batch.delete_range(b"c", b"d");
        batch.delete_range(b"s", b"t");
        self.db.write(batch)
    }

    fn take_in(
        &self,
        reader: &Reader,
        id: SnapshotId,
        base: Option<&Directory>,
        root: &Directory,
        times: &Times,
        cancel: &AtomicBool,
    ) -> Result<(), ContentsError> {
        let mut batch = WriteBatch::default();
        let mut add = |entry: &Entry, path: &[u8]| {
            let Some(content) = entry.content().filter(|_| entry.facts.source_id.is_some()) else { return Ok(()) };
            let key = self.key(&content.identity(), path);
            // If several snapshots report the same place, the record of the newest one stays, in whatever order they
            // are added. An item that is the same in a snapshot and its neighbour is reported only once.
            if self.holder(&key)?.is_some_and(|other| times.get(&other) > times.get(&id)) {
                return Ok(());
            }
            batch.put(&key, self.seal(&key, id, path));
            if batch.len() < BATCH_MAX {
                return Ok(());
            }
            if cancel.load(Ordering::Relaxed) {
                return Err(ContentsError::Interrupted);
            }
            Ok(self.db.write(std::mem::take(&mut batch))?)
        };
        match base {
            Some(base) => differing(reader, base, root, b"", 0, &mut add)?,
            None => everything(reader, root, b"", 0, &mut add)?,
        }
        batch.put([&b"s"[..], id.as_bytes()].concat(), []);
        Ok(self.db.write(batch)?)
    }

    fn key(&self, content: &blake3::Hash, path: &[u8]) -> Vec<u8> {
        let place = self.keys.local_path("contents", path);
        [&b"c"[..], &content.as_bytes()[..16], &place[..8]].concat()
    }

    fn seal(&self, key: &[u8], id: SnapshotId, path: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; TAG_LEN];
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend_from_slice(path);
        self.keys.encrypt(Purpose::LocalState, key, &mut sealed);
        sealed
    }

    /// Waits until all snapshots are in the database.
    ///
    /// # Errors
    /// The reason why filling failed.
    pub fn wait(&self) -> Result<(), String> {
        let mut progress = self.progress.lock();
        while *progress == Progress::Filling {
            self.changed.wait(&mut progress);
        }
        match &*progress {
            Progress::Failed(why) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Returns whether all snapshots are in the database.
    pub fn is_complete(&self) -> bool {
        *self.progress.lock() == Progress::Complete
    }

    /// Returns the places that hold `content` and whose paths are most like `dropped`, the newest snapshot first.
    ///
    /// # Errors
    /// [`ContentsError::Database`].
    pub fn find(&self, content: &blake3::Hash, dropped: &[u8]) -> Result<Vec<SnapshotPath>, ContentsError> {
        let known = self.known.lock();
        let prefix = [b"c", &content.as_bytes()[..16]].concat();
        let mut places = Vec::new();
        for row in self.db.iterator(IteratorMode::From(&prefix, Direction::Forward)).take(PATHS_MAX) {
            let (key, sealed) = row?;
            if !key.starts_with(&prefix) {
                break;
            }
            places.extend(self.open_place(&key, sealed.into_vec()));
        }
        let best = places.iter().map(|place| path_likeness(&place.path, dropped)).max().unwrap_or_default();
        places.retain(|place| path_likeness(&place.path, dropped) == best);
        places.sort_by_key(|place| std::cmp::Reverse(known.times.get(&place.snapshot).copied()));
        Ok(places)
    }

    /// Returns the snapshot in the record of `key`, if there is a record.
    fn holder(&self, key: &[u8]) -> Result<Option<SnapshotId>, rocksdb::Error> {
        let sealed = self.db.get(key)?;
        Ok(sealed.and_then(|sealed| self.open_place(key, sealed)).map(|place| place.snapshot))
    }

    fn open_place(&self, key: &[u8], mut sealed: Vec<u8>) -> Option<SnapshotPath> {
        let opened = self.keys.decrypt(Purpose::LocalState, key, &mut sealed).ok()?;
        let (id, path) = opened.split_first_chunk::<32>()?;
        Some(SnapshotPath { snapshot: SnapshotId(*id), path: path.to_vec() })
    }
}

/// When dropped, sets the progress and wakes the threads that wait for it.
struct EndOfFilling<'a> {
    contents: &'a Contents,
    progress: Progress,
}

impl Drop for EndOfFilling<'_> {
    fn drop(&mut self) {
        *self.contents.progress.lock() = std::mem::replace(&mut self.progress, Progress::Filling);
        self.contents.changed.notify_all();
    }
}

/// Returns how much the path of a place resembles that of a dropped file: whether the dropped path names the place's
/// account as its origin, whether the two files have the same name, and how many of the nearest folders are equal.
fn path_likeness(place: &[u8], dropped: &[u8]) -> (bool, bool, usize) {
    let parts = |path| <[u8]>::split(path, |byte| *byte == b'/');
    let account: Vec<_> = parts(place).take(2).collect();
    let came_from: Vec<_> = dropped.strip_prefix(b"original/").into_iter().flat_map(parts).collect();
    let is_named =
        account.first() == Some(&USERS.as_bytes()) && came_from.windows(2).any(|pair| pair == account.as_slice());
    let (mut a, mut b) = (parts(place).rev(), parts(dropped).rev());
    (is_named, a.next() == b.next(), a.zip(b).take_while(|(a, b)| a == b).count())
}

type Each<'a> = dyn FnMut(&Entry, &[u8]) -> Result<(), ContentsError> + 'a;

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// Reports all items of `dir`. A damaged part is left out, because its items could not be restored anyway.
fn everything(
    reader: &Reader,
    dir: &Directory,
    path: &[u8],
    depth: usize,
    each: &mut Each<'_>,
) -> Result<(), ContentsError> {
    let entries = match Entries::new(reader, dir) {
        Err(error) if error.is_damage() => return Ok(()),
        entries => entries?,
    };
    for found in entries {
        let found = match found {
            Err(error) if error.is_damage() => return Ok(()),
            found => found?,
        };
        one(reader, found.entry(), path, depth, each)?;
    }
    Ok(())
}

fn one(reader: &Reader, entry: &Entry, folder: &[u8], depth: usize, each: &mut Each<'_>) -> Result<(), ContentsError> {
    let path = join(folder, &entry.name);
    match entry.directory() {
        Some(below) if depth < DEPTH_MAX => everything(reader, below, &path, depth + 1, each),
        Some(_) => Ok(()),
        None => each(entry, &path),
    }
}

/// Reports the items of `new` that are not the same in `old`.
fn differing(
    reader: &Reader,
    old: &Directory,
    new: &Directory,
    path: &[u8],
    depth: usize,
    each: &mut Each<'_>,
) -> Result<(), ContentsError> {
    let compared = tree::diff(reader, old, new, |change| match change {
        Change::Removed(_) => Ok(()),
        Change::Added(entry) => one(reader, entry, path, depth, each),
        Change::Changed(before, after) => match (before.directory(), after.directory()) {
            (Some(before), Some(below)) if depth < DEPTH_MAX => {
                differing(reader, before, below, &join(path, &after.name), depth + 1, each)
            }
            _ => one(reader, after, path, depth, each),
        },
    });
    match compared {
        // If either side is damaged, all readable items of `new` are reported.
        Err(ContentsError::Read(error)) if error.is_damage() => everything(reader, new, path, depth, each),
        compared => compared,
    }
}

fn options() -> Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(4 << 20).expect("memory for a cache"));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(8 << 20);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(1);
    options.set_max_background_jobs(1);
    options
}

#[cfg(test)]
mod tests {
    use super::path_likeness;

    #[test]
    fn paths_are_alike_by_the_account_first_then_by_the_name_and_then_by_the_folders_next_to_it() {
        let dropped = b"original/Users/bob/Outlook/Inbox/x.eml";
        let likeness = [
            &b"Users/bob/Outlook/Inbox/x.eml"[..],
            b"Users/bob/Outlook/Archive/x.eml",
            b"Users/bob/Outlook/Inbox/y.eml",
            b"Users/bob/Outlook/Archive/y.eml",
            b"Users/alice/Outlook/Inbox/x.eml",
            b"Users/alice/Outlook/Inbox/y.eml",
            b"bob/Outlook/Inbox/y.eml",
        ]
        .map(|path| path_likeness(path, dropped));
        let expected = [
            (true, true, 4),
            (true, true, 0),
            (true, false, 4),
            (true, false, 0),
            (false, true, 2),
            (false, false, 2),
            (false, false, 3),
        ];
        assert_eq!(likeness, expected);
        // The folder that a file goes to says nothing about where it came from.
        assert_eq!(
            path_likeness(b"Users/bob/Outlook/Inbox/x.eml", b"contoso/Users/bob/Outlook/Inbox/x.eml"),
            (false, true, 4)
        );
    }
}
