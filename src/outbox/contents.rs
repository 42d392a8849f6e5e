//! Which entry of which snapshot has a given content: how a dropped file is known again.
//!
//! A dropped file is split as a backup would, and its content looked up by the hash that two contents share when they
//! are stored as the same chunks. The answers stand in a database of this machine, which is filled from the snapshots:
//! from the newest of each set everything, from every other one what differs from its neighbour, so that a thousand
//! snapshots cost little more than one. It is a cache: deleting it costs the time to fill it again.
//!
//! Keys begin with a byte that says what they are: `c` content (16 bytes of the hash), place (8) -> snapshot and path,
//! sealed; `s` snapshot that is in it. Only items that came from a mailbox are in it: of others no more is known than
//! their bytes say.

use super::live::USERS;
use crate::backup::tenant::state::TenantState;
use crate::format::crypto::{Keys, Purpose, TAG_LEN};
use crate::format::entry::{Directory, Entry};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::local_files;
use crate::repository::reader::{ReadError, Reader};
use crate::repository::tree::{self, Change, Entries};
use crate::repository::{Repository, RepositoryError};
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Another value means another layout, and starting over.
const LAYOUT: &[u8] = b"2";
const LAYOUT_KEY: &[u8] = b"layout";
/// Places of one content that are looked at: an empty mail may stand in a million.
const PLACES_MAX: usize = 1000;
/// Records that are written at a time.
const BATCH_MAX: usize = 4096;
/// Folders of a snapshot lie no deeper.
const DEPTH_MAX: usize = 400;

/// Why the contents of the snapshots cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The folder could not be made, or somebody else could change what is in it.
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
    /// The program ends.
    #[error("interrupted")]
    Interrupted,
}

/// Where a content stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path in it.
    pub path: Vec<u8>,
}

impl Place {
    /// Returns the name of the account's folder: `Users/NAME/...`.
    pub fn account(&self) -> Option<&[u8]> {
        let mut names = self.path.split(|byte| *byte == b'/');
        names.next().filter(|name| *name == USERS.as_bytes()).and(names.next())
    }
}

/// How far filling has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Filling,
    Complete,
    /// It cannot be completed, and why.
    Failed(String),
}

/// The contents of all snapshots.
pub struct Contents {
    db: DB,
    keys: Arc<Keys>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Held also while snapshots are taken in later on: nobody finds half of what there is.
    known: Mutex<Known>,
}

/// The snapshots that are in it.
#[derive(Default)]
struct Known {
    /// All that there were, also those that cannot be read.
    listed: HashSet<SnapshotId>,
    /// When each was made, to prefer the newest.
    times: Times,
}

/// When each snapshot was made, in seconds and nanoseconds.
type Times = HashMap<SnapshotId, (i64, u32)>;

impl Contents {
    /// Opens the database in `folder`, or creates it. One that cannot be read is thrown away.
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
                // RocksDB removed the folder as well, and would make it anew for everybody to read.
                make_folder()?;
                let db = DB::open(&options(), folder)?;
                db.put(LAYOUT_KEY, LAYOUT)?;
                db
            }
        };
        Ok(Self { db, keys, progress: Mutex::new(Progress::Filling), changed: Condvar::new(), known: Mutex::default() })
    }

    /// Takes in the snapshots that are not in it yet, the newest of each set first.
    ///
    /// # Errors
    /// [`ContentsError`]; what was taken in by then stays. Whoever waits is told in either case.
    pub fn fill(&self, repository: &Repository, reader: &Reader, cancel: &AtomicBool) -> Result<(), ContentsError> {
        // Whoever waits is told even if this fails in a way that is a fault of the program.
        let mut ends = Ends { contents: self, progress: Progress::Failed("this program failed on it".to_owned()) };
        let filled = self.fill_all(repository, reader, cancel).map(|known| *self.known.lock() = known);
        ends.progress = match &filled {
            Ok(()) => Progress::Complete,
            Err(error) => Progress::Failed(crate::restore::chain(error)),
        };
        filled
    }

    /// Takes in snapshots that were made since, and forgets those that are gone.
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
            // What stood only in a snapshot that is gone could not be read any more.
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
                // The newer neighbour is in it by now, unless this is the newest: then the next one that is.
                let newer = number.checked_sub(1).map(|newer| set[newer]);
                let older = set[number + 1..].iter().copied().find(|(id, _)| known.contains(id));
                let base = newer.or(older).map(|(_, snapshot)| snapshot.directory());
                self.take_in(reader, *id, base, snapshot.directory(), &times, cancel)?;
                known.insert(*id);
            }
        }
        Ok(Known { listed, times })
    }

    /// Returns the snapshots that were taken in as a whole.
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
            // Of those that are told of here the newest counts, in whatever order they are taken in; what is the same
            // in a snapshot and its neighbour is told of once.
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

    /// Waits until all snapshots are in it.
    ///
    /// # Errors
    /// Why they will not be.
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

    /// Returns whether all snapshots are in it.
    pub fn is_complete(&self) -> bool {
        *self.progress.lock() == Progress::Complete
    }

    /// Returns where `content` stands: those places that are most like `dropped`, the newest snapshot first.
    ///
    /// # Errors
    /// [`ContentsError::Database`].
    pub fn find(&self, content: &blake3::Hash, dropped: &[u8]) -> Result<Vec<Place>, ContentsError> {
        let known = self.known.lock();
        let prefix = [b"c", &content.as_bytes()[..16]].concat();
        let mut places = Vec::new();
        for row in self.db.iterator(IteratorMode::From(&prefix, Direction::Forward)).take(PLACES_MAX) {
            let (key, sealed) = row?;
            if !key.starts_with(&prefix) {
                break;
            }
            places.extend(self.open_place(&key, sealed.into_vec()));
        }
        let best = places.iter().map(|place| alike(&place.path, dropped)).max().unwrap_or_default();
        places.retain(|place| alike(&place.path, dropped) == best);
        places.sort_by_key(|place| std::cmp::Reverse(known.times.get(&place.snapshot).copied()));
        Ok(places)
    }

    /// Returns the snapshot that a record is of, if there is one.
    fn holder(&self, key: &[u8]) -> Result<Option<SnapshotId>, rocksdb::Error> {
        let sealed = self.db.get(key)?;
        Ok(sealed.and_then(|sealed| self.open_place(key, sealed)).map(|place| place.snapshot))
    }

    fn open_place(&self, key: &[u8], mut sealed: Vec<u8>) -> Option<Place> {
        let opened = self.keys.decrypt(Purpose::LocalState, key, &mut sealed).ok()?;
        let (id, path) = opened.split_first_chunk::<32>()?;
        Some(Place { snapshot: SnapshotId(*id), path: path.to_vec() })
    }
}

/// Tells those who wait for the contents how filling them ended, when it is dropped.
struct Ends<'a> {
    contents: &'a Contents,
    progress: Progress,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        *self.contents.progress.lock() = std::mem::replace(&mut self.progress, Progress::Filling);
        self.contents.changed.notify_all();
    }
}

/// Returns how much the path of a place is like that of a dropped file: whether it is in the account that the latter
/// names as the one it came from, whether the files have the same name, and how many of the folders nearest to them.
fn alike(place: &[u8], dropped: &[u8]) -> (bool, bool, usize) {
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

/// Tells of all items of `dir`. A part that is damaged is left out: what stands there could not be restored anyway.
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

/// Tells of the items of `new` that are not the same in `old`.
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
        // What is damaged on either side is no reason to know less of this one.
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
    use super::alike;

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
        .map(|path| alike(path, dropped));
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
        // Where it is to go says nothing of where it came from.
        assert_eq!(alike(b"Users/bob/Outlook/Inbox/x.eml", b"contoso/Users/bob/Outlook/Inbox/x.eml"), (false, true, 4));
    }
}
