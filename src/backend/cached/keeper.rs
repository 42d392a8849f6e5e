//! Writes pieces to the disk on a thread of its own, so that readers wait neither for writing nor for counting.
//!
//! The folder holds at most `bytes_max` bytes: the pieces that were used last. The thread counts the folder before it
//! writes anything, and again after it wrote a 32nd of `bytes_max`. If the folder is then too large, the thread removes
//! the pieces that were not used for the longest time, to the minute. Other processes may write there too: each count
//! leaves room for what four processes may write before they count again.
//!
//! Nothing here returns an error. A piece that finds the queue full is not kept. After a write fails, nothing is
//! written for [`PAUSE`].

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded, unbounded};

use super::disk::{Disk, FILE_LEN_MAX};
use super::{PIECE_LEN, PieceId};

/// Maximum length in bytes of all pieces that wait to be written, each rounded up to [`BLOCK_LEN`]: 64 whole pieces, or
/// 4,096 small ones, such as snapshots.
const WAITING_LEN_MAX: usize = 64 * PIECE_LEN;
/// Length in bytes of a block of the file system. A file takes whole ones.
const BLOCK_LEN: usize = 4096;
/// How long writing pauses after a write failed.
pub const PAUSE: Duration = Duration::from_secs(30);
/// Age at which a temporary file is removed. A piece that old is no longer being written; a crash left it.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// `bytes_max` is divided into this many steps. A process may write one step before it counts the folder again.
const STEPS: u64 = 32;
/// Number of steps that are free after a count, one for each of four processes.
const STEPS_FREE: u64 = 4;

/// A task for the writing thread.
type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// Sends work to the writing thread, which ends when this is dropped.
pub struct Keeper {
    disk: Arc<Disk>,
    bytes_max: u64,
    pause: Duration,
    /// Length in bytes of all pieces in the queue.
    waiting_len: Arc<AtomicUsize>,
    /// The queue of the thread, which starts with the first piece. `None` inside if it could not start, or if the cache
    /// is too small for one piece: then nothing is kept.
    jobs: OnceLock<Option<Sender<Job>>>,
}

impl Keeper {
    /// Keeps at most `bytes_max` bytes in `folder`, and writes nothing for `pause` after a write failed.
    pub fn new(folder: PathBuf, bytes_max: u64, pause: Duration) -> Self {
        let (waiting_len, jobs) = (Arc::default(), OnceLock::new());
        Self { disk: Arc::new(Disk::new(folder)), bytes_max, pause, waiting_len, jobs }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Queues the piece to be written, if the queue has room. It is not written if something was removed since
    /// [`Disk::removals`] returned `removals`.
    pub fn keep(&self, id: PieceId, piece: Bytes, removals: u64) {
        let Some(jobs) = self.jobs.get_or_init(|| self.start()) else { return };
        let len = used_len(piece.len() as u64) as usize;
        if self.waiting_len.fetch_add(len, Ordering::Relaxed) + len > WAITING_LEN_MAX {
            // A piece that finds no room is fetched again when it is needed again.
            self.waiting_len.fetch_sub(len, Ordering::Relaxed);
            return;
        }
        let waiting_len = self.waiting_len.clone();
        let store = move |writer: &mut Writer| {
            writer.store(&id, &piece, removals);
            waiting_len.fetch_sub(len, Ordering::Relaxed);
        };
        // If the thread has ended, nothing is kept any more.
        let _ = jobs.send(Box::new(store));
    }

    fn start(&self) -> Option<Sender<Job>> {
        if self.bytes_max < PIECE_LEN as u64 {
            return None;
        }
        let mut writer = Writer::new(self.disk.clone(), self.bytes_max, self.pause);
        let (jobs, waiting) = unbounded::<Job>();
        let write = move || waiting.iter().for_each(|job| job(&mut writer));
        thread::Builder::new().name("cache-writer".to_owned()).spawn(write).ok()?;
        Some(jobs)
    }

    /// Waits until all queued pieces are written, at most about twice `wait`.
    pub fn settle(&self, wait: Duration) {
        let Some(Some(jobs)) = self.jobs.get() else { return };
        let (done, is_done) = bounded(1);
        if jobs.send_timeout(Box::new(move |_| _ = done.send(())), wait).is_ok() {
            let _ = is_done.recv_timeout(wait);
        }
    }
}

/// Writes pieces, and removes the oldest ones when the folder becomes too large.
struct Writer {
    disk: Arc<Disk>,
    bytes_max: u64,
    pause: Duration,
    /// Bytes written since the folder was counted; `None` if it must be counted first.
    added: Option<u64>,
    /// Set after a write failed: nothing is written before this time.
    paused_until: Option<Instant>,
    /// True if the file system was full: the next count then removes at least an eighth of the pieces.
    is_full: bool,
    has_warned: bool,
    temporary_next: u64,
}

impl Writer {
    fn new(disk: Arc<Disk>, bytes_max: u64, pause: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            disk,
            bytes_max,
            pause,
            added: None,
            paused_until: None,
            is_full: false,
            has_warned: false,
            // Starts at the time of day, because in different containers processes may have the same process id.
            temporary_next: now.as_nanos() as u64,
        }
    }

    fn store(&mut self, id: &PieceId, piece: &[u8], removals: u64) {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.temporary_next += 1;
        let stored = self.make_room().and_then(|added| {
            let len = self.disk.store(id, piece, removals, self.temporary_next)?;
            Ok(added + used_len(len))
        });
        match stored {
            Ok(added) => self.added = Some(added),
            Err(error) => self.pause(&error),
        }
    }

    /// Counts the folder if that is due. Returns the number of bytes written since the last count.
    fn make_room(&mut self) -> io::Result<u64> {
        match self.added {
            Some(added) if added < self.bytes_max / STEPS => Ok(added),
            _ => self.count().map(|()| 0),
        }
    }

    fn pause(&mut self, error: &io::Error) {
        self.paused_until = Some(Instant::now() + self.pause);
        self.added = None;
        self.is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        if !std::mem::replace(&mut self.has_warned, true) {
            let folder = self.disk.folder().display();
            tracing::warn!(%folder, %error, "could not write to the cache folder, reading goes on without it");
        }
    }

    /// Counts the folder. If it is too large, removes the pieces that were not used for the longest time, until there
    /// is room for what four processes may add before they count again.
    fn count(&mut self) -> io::Result<()> {
        let now = SystemTime::now();
        let mut bytes_by_age = BTreeMap::<u64, u64>::new();
        self.disk.each_file(&mut |file| {
            let age = age(now, &file.stat);
            // A file that is longer than a piece is damaged. If it counted, sound pieces would be removed for it.
            let is_useless = file.stat.len() > FILE_LEN_MAX || file.is_temporary && age >= TEMPORARY_AGE_MAX;
            if is_useless {
                let _ = fs::remove_file(file.path);
            } else if !file.is_temporary {
                *bytes_by_age.entry(age.as_secs() / 60).or_default() += used_len(file.stat.len());
            }
        })?;
        let total: u64 = bytes_by_age.values().sum();
        let step = self.bytes_max / STEPS;
        let mut kept_max = self.bytes_max - STEPS_FREE * step;
        if std::mem::take(&mut self.is_full) {
            kept_max = kept_max.min(total / 8 * 7);
        }
        let mut excess = total.saturating_sub(kept_max);
        for bytes in bytes_by_age.values_mut().rev() {
            *bytes = excess.min(*bytes);
            excess -= *bytes;
        }
        let removed = if total > kept_max { self.remove_oldest(now, bytes_by_age)? } else { 0 };
        if total.saturating_sub(removed) > self.bytes_max - step {
            return Err(io::Error::other("the cache folder is full, and its oldest pieces cannot be removed"));
        }
        Ok(())
    }

    /// Removes files by age. `bytes_by_age` says how many bytes to remove of each age, in minutes before `now`. Returns
    /// the number of bytes removed.
    fn remove_oldest(&self, now: SystemTime, mut bytes_by_age: BTreeMap<u64, u64>) -> io::Result<u64> {
        let mut removed = 0;
        self.disk.each_file(&mut |file| {
            let len = used_len(file.stat.len());
            if !file.is_temporary
                && let Some(excess) = bytes_by_age.get_mut(&(age(now, &file.stat).as_secs() / 60))
                && *excess > 0
                && fs::remove_file(file.path).is_ok()
            {
                *excess = excess.saturating_sub(len);
                removed += len;
            }
        })?;
        Ok(removed)
    }
}

/// Returns how long ago a file was last used.
fn age(now: SystemTime, stat: &Metadata) -> Duration {
    stat.modified().ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default()
}

/// Returns roughly how much disk space a file of `len` bytes takes.
fn used_len(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_LEN as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ObjectKind;
    use crate::backend::testing::name;
    use std::ops::Range;

    fn piece(number: u32) -> PieceId {
        PieceId { name: name(ObjectKind::Pack, 1), number }
    }

    #[test]
    fn a_file_that_became_huge_costs_no_sound_piece() {
        let folder = tempfile::tempdir().unwrap();
        let sound = Bytes::from_static(b"piece");
        let keep = |numbers: Range<u32>| {
            let keeper = Keeper::new(folder.path().to_owned(), 1 << 30, PAUSE);
            numbers.for_each(|number| keeper.keep(piece(number), sound.clone(), 0));
            keeper.settle(Duration::from_secs(60));
            keeper
        };
        let mut paths = Vec::new();
        keep(0..20).disk().each_file(&mut |file| paths.push(file.path)).unwrap();
        fs::OpenOptions::new().write(true).open(&paths[10]).unwrap().set_len(1 << 40).unwrap();
        let keeper = keep(20..21);
        assert_eq!((0..21).filter(|number| keeper.disk().load(&piece(*number)).is_some()).count(), 20);
    }

    #[test]
    fn nobody_waits_for_what_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(folder.path().to_owned(), 1 << 30, PAUSE);
        let (whole, small) = (Bytes::from(vec![7; PIECE_LEN]), Bytes::from_static(b"piece"));
        let keep = |number, bytes: &Bytes| keeper.keep(piece(number), bytes.clone(), 0);
        let kept = |numbers: Range<u32>| numbers.filter(|number| keeper.disk().load(&piece(*number)).is_some()).count();
        keep(0, &small);
        let ((begun, is_busy), (go_on, held_up)) = (bounded(0), bounded::<()>(0));
        let busy = move |_: &mut Writer| {
            begun.send(()).unwrap();
            let _ = held_up.recv();
        };
        keeper.jobs.get().unwrap().as_ref().unwrap().send(Box::new(busy)).unwrap();
        is_busy.recv().unwrap();
        (1..500).for_each(|number| keep(number, &small));
        (500..600).for_each(|number| keep(number, &whole));
        (600..8000).for_each(|number| keep(number, &small));
        drop(go_on);
        keeper.settle(Duration::from_secs(60));
        assert_eq!(kept(0..500), 500, "small pieces have room");
        assert_eq!(kept(500..600) * PIECE_LEN + (kept(1..500) + kept(600..8000)) * BLOCK_LEN, WAITING_LEN_MAX);
        keep(8000, &whole);
        keeper.settle(Duration::from_secs(60));
        assert_eq!(kept(8000..8001), 1, "there is room again");
    }

    #[test]
    fn where_no_room_can_be_made_nothing_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(folder.path().to_owned(), 1 << 20, Duration::ZERO);
        keeper.keep(piece(0), Bytes::from_static(b"piece"), 0);
        keeper.settle(Duration::from_secs(60));
        let disk = keeper.disk();
        assert!(disk.load(&piece(0)).is_some());
        disk.remove_object(piece(0).name);
        // Folders with the name of a piece cannot be removed like files.
        let subfolder = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let subfolder = subfolder.into_iter().find(|path| path.is_dir()).unwrap();
        for number in 0..400 {
            let name = format!("packs-{}.{number}", "ab".repeat(32));
            fs::create_dir_all(subfolder.join(name).join("below")).unwrap();
        }
        let keeper = Keeper::new(folder.path().to_owned(), 1 << 20, Duration::ZERO);
        (1..20).for_each(|number| keeper.keep(piece(number), Bytes::from_static(b"piece"), 0));
        keeper.settle(Duration::from_secs(60));
        assert!((1..20).all(|number| keeper.disk().load(&piece(number)).is_none()));
    }
}
