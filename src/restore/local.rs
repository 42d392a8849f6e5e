//! The executor for folders of this machine.
//!
//! Everything is done relative to open folders, one name at a time, and no name is ever followed through a symbolic link
//! below the target: what is written lies in the target, whatever the repository says and whatever links lie there.
//!
//! - A file is written under a temporary name and renamed when it is complete, by a rename that replaces nothing unless
//!   that was asked for. A killed run leaves at most one `.strongroom-restore-*` a thread.
//! - The calling thread walks and makes folders; workers write files. A folder gets its times and permissions when the
//!   walk has left it and the last of its files is written.
//! - Open folders are few however deep the tree is: those far above are closed, and opened again name by name (and held
//!   against their inode numbers) when the walk comes back.
//! - Runs of zeros become holes.
//!
//! Single files are not synced; the file system is, at the end.

use super::plan::{DEPTH_MAX, Selection, Step, Walk};
use super::{Progress, Report, RestoreError, SHOWN_MAX, Survey, WhenExists, chain, printable};
use crate::entry::{Content, Entry, EntryKind, Timestamp, is_legal_name};
use crate::reader::{ReadError, Reader};
use crate::tree::Found;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Files are read and written in pieces of this size; smaller ones in one piece.
const PIECE_LEN: usize = 1 << 20;
/// Aligned runs of this many zeros become holes.
const HOLE_LEN: usize = 64 << 10;
static ZEROS: [u8; HOLE_LEN] = [0; HOLE_LEN];

/// A batch of neighbours goes to one worker, so that others decode other blocks. It ends at so many items, bytes or
/// folders; the last bounds how many folders are open.
const BATCH_ITEMS_MAX: usize = 32;
const BATCH_BYTES_MAX: u64 = 1 << 20;
const BATCH_FOLDERS_MAX: usize = 8;
const WORKERS_MAX: usize = 8;
/// Folders on the way to where the walk is that stay open.
const OPEN_FOLDERS_MAX: usize = 64;
/// Names that are tried when others keep taking them.
const NAME_TRIES_MAX: u32 = 10_000;
/// The longest target of a symbolic link, without the zero byte at its end (PATH_MAX).
const LINK_TARGET_LEN_MAX: usize = 4095;
/// Longer endings are no extensions but text after a full stop.
const EXTENSION_LEN_MAX: usize = 16;

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder of this machine that is restored to. It need not exist yet.
pub(super) struct Target {
    dir: PathBuf,
}

impl Target {
    pub fn new(dir: &Path) -> Result<Self, RestoreError> {
        // Absolute, as the process may change its working folder.
        let absolute = std::path::absolute(dir);
        absolute.map(|dir| Self { dir }).map_err(|source| RestoreError::Target { dir: dir.to_owned(), source })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn failed(&self, error: impl Into<io::Error>) -> RestoreError {
        RestoreError::Target { dir: self.dir.clone(), source: error.into() }
    }

    /// Opens the folder. What is above it, and whether it is a link itself, is the user's choice.
    fn open(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::open(&self.dir, FOLDER_FLAGS.difference(OFlags::NOFOLLOW), Mode::empty())
    }

    fn bytes_free(&self) -> Option<u64> {
        let existing = self.dir.ancestors().find(|dir| dir.exists())?;
        rustix::fs::statvfs(existing).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub fn survey(&self, mut walk: Walk<'_>, cancel: &AtomicBool) -> Result<Survey, RestoreError> {
        let mut survey = Survey { bytes_free: self.bytes_free(), ..Survey::default() };
        let mut folders = match self.open() {
            Ok(fd) => Some(Folders::new(fd)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(self.failed(error)),
        };
        // How far the walk is below what exists.
        let mut absent = 0;
        while let Some(step) = walk.step() {
            if cancel.load(Ordering::Relaxed) {
                return Err(RestoreError::Interrupted);
            }
            let existing = folders.as_mut().filter(|_| absent == 0);
            match step {
                Step::Enter(found) => {
                    survey.folders += 1;
                    match existing.map_or(Ok(false), |folders| folders.try_enter(&found.entry().name)) {
                        Ok(true) => {}
                        Ok(false) => absent += 1,
                        Err(reason) => {
                            let sums = found.entry().sums();
                            survey.items = survey.items.saturating_add(sums.files);
                            survey.bytes = survey.bytes.saturating_add(sums.bytes);
                            survey.problem(walk.path(), sums.items, reason.text());
                            walk.skip();
                        }
                    }
                }
                Step::Leave if absent > 0 => absent -= 1,
                Step::Leave => drop(folders.as_mut().map(|folders| folders.leave(walk.path()))),
                Step::Item(found) => {
                    let entry = found.entry();
                    survey.items += 1;
                    survey.bytes = survey.bytes.saturating_add(entry.sums().bytes);
                    if let Err(reason) = check(entry) {
                        survey.problem(walk.path(), 1, reason.text());
                    } else if let Some(folders) = existing {
                        match folders.current().and_then(|folder| look(folder.fd.as_fd(), &entry.name)) {
                            Ok(None) => {}
                            Ok(Some(stat)) => count_existing(&mut survey, walk.path(), entry, &stat),
                            Err(error) => survey.problem(walk.path(), 1, Reason::io("look at it", error).text()),
                        }
                    }
                }
                Step::Unreadable { entries, error } => {
                    survey.problem(walk.path(), entries, unreadable(entries, &error))
                }
            }
        }
        Ok(survey)
    }

    pub fn execute(
        &self,
        reader: &Reader,
        selection: &Selection,
        when_exists: WhenExists,
        progress: &Progress,
        cancel: &AtomicBool,
    ) -> Result<Report, RestoreError> {
        let is_new = !self.dir.exists();
        std::fs::create_dir_all(&self.dir).map_err(|error| self.failed(error))?;
        let mut folders = Folders::new(self.open().map_err(|error| self.failed(error))?);
        let root = folders.root.clone();
        let run = Run {
            reader,
            when_exists,
            progress,
            cancel,
            report: Mutex::default(),
            halted: AtomicBool::new(false),
            temporary_prefix: format!(".strongroom-restore-{:016x}", u64::from_le_bytes(crate::crypto::random())),
            temporary_next: AtomicU64::new(0),
            kept_tag: jiff::Zoned::now().strftime("restored %Y-%m-%d %H.%M").to_string(),
            can_give_away: rustix::process::geteuid().is_root(),
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(2, WORKERS_MAX);
        let (to_workers, batches) = bounded(workers);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (run, batches) = (&run, batches.clone());
                scope.spawn(move || run.work(&batches));
            }
            drop(batches);
            let mut walker =
                Walker { run: &run, walk: Walk::new(reader, selection), folders: &mut folders, to_workers };
            walker.walk();
        });
        if let Selection::Everything(entry) = selection
            && is_new
        {
            let attributes = Attributes { mtime: entry.mtime, access: Some(Access::of(entry)) };
            let _ = root.finish.set(Finish { path: Vec::new(), attributes });
        }
        drop(folders);
        run.release(root);
        let mut report = run.report.into_inner();
        report.failures.sort_by(|a, b| a.path.cmp(&b.path));
        if report.stopped.is_none() && cancel.load(Ordering::Relaxed) {
            report.stopped = Some(RestoreError::Interrupted);
        }
        if let Err(error) = self.open().and_then(rustix::fs::syncfs) {
            report.stopped.get_or_insert(RestoreError::Sync { dir: self.dir.clone(), source: error.into() });
        }
        Ok(report)
    }
}

fn count_existing(survey: &mut Survey, path: &[u8], entry: &Entry, stat: &Stat) {
    let kind = match entry.kind {
        EntryKind::Symlink(_) => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    survey.existing += 1;
    if kind_of(stat) == kind && u64::try_from(stat.st_size) == Ok(entry.size()) && mtime_of(stat) == entry.mtime {
        survey.alike += 1;
    } else if survey.conflicts.len() < SHOWN_MAX {
        survey.conflicts.push(path.to_vec());
    }
}

/// Why an item is not restored.
enum Reason {
    Read(ReadError),
    System { what: &'static str, error: Errno },
    Is(&'static str),
    Interrupted,
}

impl Reason {
    fn io(what: &'static str, error: Errno) -> Self {
        Reason::System { what, error }
    }

    fn text(&self) -> String {
        match self {
            Reason::Read(error) => chain(error),
            Reason::System { what, error } => format!("could not {what}: {}", io::Error::from(*error)),
            Reason::Is(text) => (*text).to_owned(),
            Reason::Interrupted => "interrupted".to_owned(),
        }
    }

    /// Returns the system's error if no other item will fare better.
    fn ends_the_run(&self) -> Option<Errno> {
        match self {
            Reason::System { error, .. } if matches!(*error, Errno::NOSPC | Errno::DQUOT | Errno::ROFS) => Some(*error),
            _ => None,
        }
    }
}

impl From<ReadError> for Reason {
    fn from(error: ReadError) -> Self {
        Reason::Read(error)
    }
}

fn unreadable(entries: u64, error: &ReadError) -> String {
    let entries = if entries == 1 { "an entry".to_owned() } else { format!("{entries} entries") };
    format!("{entries} of this folder cannot be read: {}", chain(error))
}

/// Returns why `entry` can be restored to no folder at all.
fn check(entry: &Entry) -> Result<(), Reason> {
    // Decoding refuses such names already; this is the same assertion where it matters.
    if !is_legal_name(&entry.name) {
        return Err(Reason::Is("its name is illegal"));
    }
    match &entry.kind {
        EntryKind::Symlink(target) if target.is_empty() => Err(Reason::Is("the link has no target")),
        EntryKind::Symlink(target) if target.contains(&0) => Err(Reason::Is("the link's target holds a zero byte")),
        EntryKind::Symlink(target) if target.len() > LINK_TARGET_LEN_MAX => {
            Err(Reason::Is("the link's target is longer than 4095 bytes"))
        }
        EntryKind::File(content) if i64::try_from(content.len()).is_err() => {
            Err(Reason::Is("it is longer than a file can be"))
        }
        _ => Ok(()),
    }
}

/// Returns what stands under `name`, without following it.
fn look(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn mtime_of(stat: &Stat) -> Timestamp {
    Timestamp { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 }
}

fn id_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// An open folder. Its last holder gives it its times and permissions, by [`Run::release`].
struct Folder {
    fd: OwnedFd,
    finish: OnceLock<Finish>,
}

impl Folder {
    fn new(fd: OwnedFd) -> Arc<Self> {
        Arc::new(Self { fd, finish: OnceLock::new() })
    }
}

/// What a folder gets when everything in it is done.
struct Finish {
    /// Where it is, for reports.
    path: Vec<u8>,
    attributes: Attributes,
}

#[derive(Clone, Copy)]
struct Attributes {
    mtime: Timestamp,
    /// For what is ours to change.
    access: Option<Access>,
}

#[derive(Clone, Copy)]
struct Access {
    mode: Option<u16>,
    owner: Option<(u32, u32)>,
}

impl Access {
    fn of(entry: &Entry) -> Self {
        Self { mode: entry.mode, owner: entry.owner }
    }
}

/// The folders from the target down to where the walk is.
struct Folders {
    root: Arc<Folder>,
    levels: Vec<Level>,
    /// The levels from this one on are open.
    first_open: usize,
}

struct Level {
    name: Box<[u8]>,
    id: (u64, u64),
    open: Option<Arc<Folder>>,
    /// The time it had when it was entered.
    mtime: Timestamp,
    /// What it gets in the end, if anything.
    finish: Option<Attributes>,
}

impl Folders {
    fn new(root: OwnedFd) -> Self {
        Self { root: Folder::new(root), levels: Vec::new(), first_open: 0 }
    }

    /// Returns the folder that the walk is in.
    fn current(&mut self) -> Result<Arc<Folder>, Errno> {
        if !self.levels.is_empty() && self.first_open == self.levels.len() {
            self.reopen()?;
        }
        Ok(self.levels.last().and_then(|level| level.open.as_ref()).unwrap_or(&self.root).clone())
    }

    /// Opens the lower half of what may be open, going down from the root.
    fn reopen(&mut self) -> Result<(), Errno> {
        let first_open = self.levels.len().saturating_sub(OPEN_FOLDERS_MAX / 2);
        let mut above = self.root.clone();
        let mut opened = Vec::new();
        for (depth, level) in self.levels.iter().enumerate() {
            let fd = rustix::fs::openat(&above.fd, &*level.name, FOLDER_FLAGS, Mode::empty())?;
            if id_of(&rustix::fs::fstat(&fd)?) != level.id {
                // Somebody put another folder here since.
                return Err(Errno::STALE);
            }
            above = Folder::new(fd);
            if depth >= first_open {
                opened.push(above.clone());
            }
        }
        for (level, folder) in self.levels[first_open..].iter_mut().zip(opened) {
            level.open = Some(folder);
        }
        self.first_open = first_open;
        Ok(())
    }

    /// Goes into a folder that exists; `false` if there is nothing under the name.
    fn try_enter(&mut self, name: &[u8]) -> Result<bool, Reason> {
        let failed = |error| Reason::io("open the folder", error);
        if self.levels.len() >= DEPTH_MAX {
            return Err(Reason::Is("it lies deeper than 4096 folders"));
        }
        if !is_legal_name(name) {
            return Err(Reason::Is("its name is illegal"));
        }
        let above = self.current().map_err(failed)?;
        match rustix::fs::openat(&above.fd, name, FOLDER_FLAGS, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(failed)?;
                let (id, mtime) = (id_of(&stat), mtime_of(&stat));
                self.levels.push(Level { name: name.into(), id, open: Some(Folder::new(fd)), mtime, finish: None });
                self.close_some();
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => match look(above.fd.as_fd(), name) {
                Ok(Some(stat)) if kind_of(&stat) == FileType::Symlink => {
                    Err(Reason::Is("a symbolic link stands where the folder should be, and is not followed"))
                }
                _ => Err(Reason::Is("something that is no folder stands where the folder should be")),
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// Closes folders far above, but for those whose files are still being written.
    fn close_some(&mut self) {
        while self.levels.len() - self.first_open > OPEN_FOLDERS_MAX {
            let open = &mut self.levels[self.first_open].open;
            // Only this thread hands folders out, so a sole holder stays it.
            if open.as_ref().is_some_and(|folder| Arc::strong_count(folder) > 1) {
                break;
            }
            *open = None;
            self.first_open += 1;
        }
    }

    /// Goes up one folder, and returns the one left if it is open. It knows by then what it gets; `path` is for reports.
    fn leave(&mut self, path: &[u8]) -> Result<Option<Arc<Folder>>, Errno> {
        let Some(Level { finish: wanted, .. }) = self.levels.last() else { return Ok(None) };
        let opened = if wanted.is_some() { self.current().map(drop) } else { Ok(()) };
        let level = self.levels.pop().expect("there was a last one");
        self.first_open = self.first_open.min(self.levels.len());
        if let (Some(folder), Some(attributes)) = (&level.open, level.finish) {
            let _ = folder.finish.set(Finish { path: path.to_vec(), attributes });
        }
        opened.map(|()| level.open)
    }

    /// Returns the path below the target.
    fn path(&self) -> Vec<u8> {
        self.levels.iter().map(|level| &*level.name).collect::<Vec<_>>().join(&b'/')
    }
}

/// An item on its way to a worker.
struct Job {
    folder: Arc<Folder>,
    found: Found,
    path: Vec<u8>,
}

#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    bytes: u64,
    folders: usize,
}

impl Batch {
    fn push(&mut self, job: Job) {
        self.bytes = self.bytes.saturating_add(job.found.entry().sums().bytes);
        self.folders += usize::from(self.jobs.last().is_none_or(|last| !Arc::ptr_eq(&last.folder, &job.folder)));
        self.jobs.push(job);
    }

    fn is_full(&self) -> bool {
        self.jobs.len() >= BATCH_ITEMS_MAX || self.bytes >= BATCH_BYTES_MAX || self.folders >= BATCH_FOLDERS_MAX
    }
}

/// The calling thread's part: walks, makes folders, hands out items.
struct Walker<'a> {
    run: &'a Run<'a>,
    walk: Walk<'a>,
    folders: &'a mut Folders,
    to_workers: Sender<Batch>,
}

impl Walker<'_> {
    fn walk(&mut self) {
        let mut batch = Batch::default();
        while !self.run.is_halted()
            && let Some(step) = self.walk.step()
        {
            match step {
                Step::Enter(found) => {
                    if let Err(reason) = self.enter(found.entry()) {
                        self.run.fail(self.walk.path(), found.entry().sums().items, &reason);
                        let sums = found.entry().sums();
                        self.run.advance(sums.files, sums.bytes);
                        self.walk.skip();
                    }
                }
                Step::Leave => {
                    let left = self.folders.leave(self.walk.path());
                    self.release(left, self.walk.path().to_vec());
                }
                Step::Item(found) => match self.folders.current() {
                    Ok(folder) => {
                        batch.push(Job { folder, found, path: self.walk.path().to_vec() });
                        if batch.is_full() && self.to_workers.send(std::mem::take(&mut batch)).is_err() {
                            break;
                        }
                    }
                    Err(error) => {
                        self.run.fail(self.walk.path(), 1, &Reason::io("open its folder", error));
                        self.run.advance(1, found.entry().sums().bytes);
                    }
                },
                Step::Unreadable { entries, error } => {
                    self.run.report.lock().fail(self.walk.path(), entries, unreadable(entries, &error));
                }
            }
        }
        let _ = self.to_workers.send(batch);
        // After a stop half way, the folders on the way get what they would have got, so that the next run finds them so.
        while !self.folders.levels.is_empty() {
            let path = self.folders.path();
            let left = self.folders.leave(&path);
            self.release(left, path);
        }
    }

    fn release(&self, left: Result<Option<Arc<Folder>>, Errno>, path: Vec<u8>) {
        match left {
            Ok(folder) => drop(folder.map(|folder| self.run.release(folder))),
            Err(error) => self.run.fail(&path, 1, &Reason::io("set the folder's times and permissions", error)),
        }
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), Reason> {
        let name = &*entry.name;
        check(entry)?;
        let is_new = {
            let above = self.folders.current().map_err(|error| Reason::io("open the folder above", error))?;
            // Closed to others until it has its owner and permissions.
            let mode = if entry.mode.is_some() { Mode::RWXU } else { Mode::RWXU | Mode::RWXG | Mode::RWXO };
            match rustix::fs::mkdirat(&above.fd, name, mode) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(Reason::io("make the folder", error)),
            }
        };
        if !self.folders.try_enter(name)? {
            return Err(Reason::io("open the folder", Errno::NOENT));
        }
        let level = self.folders.levels.last_mut().expect("just entered");
        if is_new {
            self.run.report.lock().folders += 1;
        }
        let access = (is_new || self.run.when_exists == WhenExists::Overwrite).then(|| Access::of(entry));
        // A folder that has the time it should, from a run before, keeps it when something is added.
        if access.is_some() || level.mtime == entry.mtime {
            level.finish = Some(Attributes { mtime: entry.mtime, access });
        }
        Ok(())
    }
}

/// What an item came to, other than a failure.
enum Outcome {
    Restored,
    AlreadyThere,
    Skipped,
}

/// Where an item goes.
enum Place {
    /// Under this name, which is free.
    Free(Vec<u8>),
    /// Into the place of what has this name.
    Taken(Vec<u8>),
    /// Nowhere.
    Nowhere(Outcome),
}

/// What the threads of a run share.
struct Run<'a> {
    reader: &'a Reader,
    when_exists: WhenExists,
    progress: &'a Progress,
    cancel: &'a AtomicBool,
    report: Mutex<Report>,
    halted: AtomicBool,
    temporary_prefix: String,
    temporary_next: AtomicU64,
    /// What stands in the names of items that are kept beside others.
    kept_tag: String,
    /// We may give files to other users.
    can_give_away: bool,
}

impl Run<'_> {
    fn is_halted(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.halted.load(Ordering::Relaxed)
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.progress.items.fetch_add(items, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn fail(&self, path: &[u8], items: u64, reason: &Reason) {
        let mut report = self.report.lock();
        report.fail(path, items, reason.text());
        if let Some(error) = reason.ends_the_run() {
            let stopped = || RestoreError::TargetFull { path: printable(path), source: error.into() };
            report.stopped.get_or_insert_with(stopped);
            self.halted.store(true, Ordering::Relaxed);
        }
    }

    /// Gives a folder its attributes, if this was its last holder.
    fn release(&self, folder: Arc<Folder>) {
        if let Some(Folder { fd, finish }) = Arc::into_inner(folder)
            && let Some(Finish { path, attributes }) = finish.into_inner()
            && let Err(reason) = self.set_attributes(&fd, attributes)
        {
            self.fail(&path, 1, &reason);
        }
    }

    fn work(&self, batches: &Receiver<Batch>) {
        for batch in batches {
            for Job { folder, found, path } in batch.jobs {
                // What is left after a stop is passed over, but folders are released.
                if !self.is_halted() {
                    self.process(&folder, found.entry(), &path);
                }
                self.release(folder);
            }
        }
    }

    fn process(&self, folder: &Folder, entry: &Entry, path: &[u8]) {
        self.progress.current.lock().splice(.., path.iter().copied());
        let bytes = entry.sums().bytes;
        let mut counted = 0;
        let outcome = check(entry).and_then(|()| match &entry.kind {
            EntryKind::File(content) => self.restore_file(folder.fd.as_fd(), entry, content, &mut counted),
            EntryKind::Symlink(target) => self.restore_link(folder.fd.as_fd(), entry, target),
            EntryKind::Directory(_) => unreachable!("the walk enters folders"),
        });
        if let Err(Reason::Interrupted) = outcome {
            return;
        }
        self.advance(1, bytes - counted);
        match outcome {
            Ok(Outcome::Restored) => {
                let mut report = self.report.lock();
                report.restored += 1;
                report.bytes += bytes;
            }
            Ok(Outcome::AlreadyThere) => self.report.lock().already_there += 1,
            Ok(Outcome::Skipped) => self.report.lock().skipped += 1,
            Err(reason) => self.fail(path, 1, &reason),
        }
    }

    fn restore_file(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        content: &Content,
        counted: &mut u64,
    ) -> Result<Outcome, Reason> {
        let is_same = |stat: &Stat, name: &[u8]| self.has_content(folder, name, stat, content);
        let place = self.place(folder, entry, is_same)?;
        if let Place::Nowhere(outcome) = place {
            return Ok(outcome);
        }
        // Files without permissions of their own get what the umask leaves.
        let mode = if entry.mode.is_some() { 0o600 } else { 0o666 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |name: &str| rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(mode));
        let (fd, temporary) = self.temporary(folder, create)?;
        self.write_content(&fd, content, counted)?;
        let attributes = Attributes { mtime: entry.mtime, access: Some(Access::of(entry)) };
        self.set_attributes(&fd, attributes)?;
        drop(fd);
        self.publish(temporary, place, || self.place(folder, entry, is_same))
    }

    fn restore_link(&self, folder: BorrowedFd<'_>, entry: &Entry, target: &[u8]) -> Result<Outcome, Reason> {
        let is_same = |stat: &Stat, name: &[u8]| {
            let is_link = kind_of(stat) == FileType::Symlink;
            let found = is_link.then(|| rustix::fs::readlinkat(folder, name, Vec::new()));
            Ok(found.is_some_and(|found| found.is_ok_and(|found| found.as_bytes() == target)))
        };
        let place = self.place(folder, entry, is_same)?;
        if let Place::Nowhere(outcome) = place {
            return Ok(outcome);
        }
        let (_, temporary) = self.temporary(folder, |name| rustix::fs::symlinkat(target, folder, name))?;
        let name = temporary.name.as_str();
        if let Some((owner, group)) = entry.owner.filter(|_| self.can_give_away) {
            let given = rustix::fs::chownat(folder, name, uid(owner), gid(group), AtFlags::SYMLINK_NOFOLLOW);
            given.or_else(tolerate).map_err(|error| Reason::io("set the owner", error))?;
        }
        let times = times_of(entry.mtime);
        rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .or_else(tolerate)
            .map_err(|error| Reason::io("set the time", error))?;
        self.publish(temporary, place, || self.place(folder, entry, is_same))
    }

    /// Decides where an item goes, given a way to tell whether what has its name is the same.
    fn place(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        is_same: impl Fn(&Stat, &[u8]) -> Result<bool, Reason>,
    ) -> Result<Place, Reason> {
        let name = &*entry.name;
        let look = |name: &[u8]| look(folder, name).map_err(|error| Reason::io("look at what is there", error));
        let Some(stat) = look(name)? else { return Ok(Place::Free(name.to_vec())) };
        let is_folder = kind_of(&stat) == FileType::Directory;
        match self.when_exists {
            WhenExists::Skip | WhenExists::Overwrite if is_folder => {
                return Err(Reason::Is("a folder stands where it should be"));
            }
            WhenExists::Overwrite => return Ok(Place::Taken(name.to_vec())),
            WhenExists::Skip if is_same(&stat, name)? => return Ok(Place::Nowhere(Outcome::AlreadyThere)),
            WhenExists::Skip => return Ok(Place::Nowhere(Outcome::Skipped)),
            WhenExists::KeepBoth if !is_folder && is_same(&stat, name)? => {
                return Ok(Place::Nowhere(Outcome::AlreadyThere));
            }
            WhenExists::KeepBoth => {}
        }
        for number in 1..=NAME_TRIES_MAX {
            let candidate = kept_name(name, &self.kept_tag, number);
            match look(&candidate)? {
                None => return Ok(Place::Free(candidate)),
                Some(stat) if is_same(&stat, &candidate)? => return Ok(Place::Nowhere(Outcome::AlreadyThere)),
                Some(_) => {}
            }
        }
        Err(Reason::Is("ten thousand files of this name are there already"))
    }

    /// Makes something under a temporary name.
    fn temporary<'f, T>(
        &self,
        folder: BorrowedFd<'f>,
        make: impl Fn(&str) -> Result<T, Errno>,
    ) -> Result<(T, Temporary<'f>), Reason> {
        for _ in 0..NAME_TRIES_MAX {
            let number = self.temporary_next.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", self.temporary_prefix);
            match make(&name) {
                Ok(made) => return Ok((made, Temporary { folder, name, is_there: true })),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(Reason::io("write it", error)),
            }
        }
        Err(Reason::io("write it", Errno::EXIST))
    }

    /// Gives what is complete its name; asks for another place when that was taken meanwhile.
    fn publish(
        &self,
        mut temporary: Temporary<'_>,
        mut place: Place,
        again: impl Fn() -> Result<Place, Reason>,
    ) -> Result<Outcome, Reason> {
        for _ in 0..NAME_TRIES_MAX {
            let renamed = match &place {
                Place::Nowhere(Outcome::AlreadyThere) => return Ok(Outcome::AlreadyThere),
                Place::Nowhere(_) => return Ok(Outcome::Skipped),
                Place::Free(name) => temporary.rename_to_free(name),
                Place::Taken(name) => temporary.rename_over(name),
            };
            match renamed {
                Ok(()) => return Ok(Outcome::Restored),
                Err(Errno::EXIST) => place = again()?,
                Err(error) => return Err(Reason::io("give it its name", error)),
            }
        }
        Err(Reason::Is("its name is taken again and again"))
    }

    fn write_content(&self, fd: &OwnedFd, content: &Content, counted: &mut u64) -> Result<(), Reason> {
        let failed = |error| Reason::io("write it", error);
        let len = content.len();
        let mut piece = Vec::with_capacity(usize::try_from(len).map_or(PIECE_LEN, |len| len.min(PIECE_LEN)));
        let mut offset = 0;
        let mut ends_in_hole = false;
        while offset < len {
            if self.is_halted() {
                return Err(Reason::Interrupted);
            }
            piece.clear();
            self.reader.read(content, offset, PIECE_LEN, &mut piece)?;
            if piece.len() as u64 != (len - offset).min(PIECE_LEN as u64) {
                return Err(Reason::Is("its content is shorter than it says"));
            }
            ends_in_hole = write_piece(fd, &piece, offset).map_err(failed)?;
            offset += piece.len() as u64;
            *counted += piece.len() as u64;
            self.progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if ends_in_hole {
            rustix::fs::ftruncate(fd, len).map_err(failed)?;
        }
        Ok(())
    }

    /// Returns whether the file called `name` has this content.
    fn has_content(&self, folder: BorrowedFd<'_>, name: &[u8], stat: &Stat, content: &Content) -> Result<bool, Reason> {
        let len = content.len();
        if kind_of(stat) != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(len) {
            return Ok(false);
        }
        // Not waiting for the writer of a pipe that was put here since.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // What cannot be read is not known to be the same.
        let Ok(fd) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return Ok(false) };
        let mut wanted = Vec::new();
        let mut found = vec![0; usize::try_from(len).map_or(PIECE_LEN, |len| len.min(PIECE_LEN))];
        let mut offset = 0;
        while offset < len {
            if self.is_halted() {
                return Err(Reason::Interrupted);
            }
            wanted.clear();
            self.reader.read(content, offset, PIECE_LEN, &mut wanted)?;
            let mut filled = 0;
            while filled < wanted.len() {
                match rustix::io::pread(&fd, &mut found[filled..wanted.len()], offset + filled as u64) {
                    Ok(0) => return Ok(false),
                    Ok(count) => filled += count,
                    Err(Errno::INTR) => {}
                    Err(_) => return Ok(false),
                }
            }
            if wanted.is_empty() || found[..filled] != wanted {
                return Ok(false);
            }
            offset += wanted.len() as u64;
        }
        Ok(true)
    }

    /// Sets owner, permissions and time, in this order: the first takes away the set-user-id bits of the second.
    fn set_attributes(&self, fd: &OwnedFd, Attributes { mtime, access }: Attributes) -> Result<(), Reason> {
        if let Some(Access { mode, owner }) = access {
            let is_owned = owner.is_some_and(|owner| self.give(fd, owner));
            if let Some(mode) = mode {
                // A program that runs as its owner must not run as somebody else.
                let mode = if is_owned { mode & 0o7777 } else { mode & 0o1777 };
                rustix::fs::fchmod(fd, Mode::from_raw_mode(mode.into()))
                    .or_else(tolerate)
                    .map_err(|error| Reason::io("set the permissions", error))?;
            }
        }
        rustix::fs::futimens(fd, &times_of(mtime)).or_else(tolerate).map_err(|error| Reason::io("set the time", error))
    }

    /// Gives a file to its owner and group; returns whether it has them now. Not being allowed to is no error.
    fn give(&self, fd: &OwnedFd, (owner, group): (u32, u32)) -> bool {
        if self.can_give_away {
            return owner != u32::MAX && group != u32::MAX && rustix::fs::fchown(fd, uid(owner), gid(group)).is_ok();
        }
        let Ok(stat) = rustix::fs::fstat(fd) else { return false };
        stat.st_uid == owner
            && (stat.st_gid == group || (group != u32::MAX && rustix::fs::fchown(fd, None, gid(group)).is_ok()))
    }
}

/// All ones mean "leave it" to the system, so nobody has that number.
fn uid(raw: u32) -> Option<Uid> {
    (raw != u32::MAX).then(|| Uid::from_raw(raw))
}

fn gid(raw: u32) -> Option<Gid> {
    (raw != u32::MAX).then(|| Gid::from_raw(raw))
}

/// Some file systems have no owners, permissions or times like ours. The content is restored all the same.
fn tolerate(error: Errno) -> Result<(), Errno> {
    match error {
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => Ok(()),
        error => Err(error),
    }
}

fn times_of(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    }
}

/// Writes `piece` without its aligned runs of zeros; returns whether it ends in one.
fn write_piece(fd: &OwnedFd, piece: &[u8], offset: u64) -> Result<bool, Errno> {
    let is_hole = |part: &[u8]| part == ZEROS;
    let mut start = 0;
    let parts: Vec<_> = piece.chunks(HOLE_LEN).collect();
    for run in parts.chunk_by(|a, b| is_hole(a) == is_hole(b)) {
        let len = run.iter().map(|part| part.len()).sum::<usize>();
        if !is_hole(run[0]) {
            write_all(fd, &piece[start..start + len], offset + start as u64)?;
        }
        start += len;
    }
    Ok(parts.last().is_some_and(|part| is_hole(part)))
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns `stem (tag).ext`, or `stem (tag 2).ext` and so on, cut to the length that a name may have.
fn kept_name(name: &[u8], tag: &str, number: u32) -> Vec<u8> {
    let is_extension = |dot: &usize| *dot > 0 && name.len() - dot <= EXTENSION_LEN_MAX;
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(is_extension).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let tag = if number == 1 { format!(" ({tag})") } else { format!(" ({tag} {number})") };
    let mut end = stem.len().min(crate::entry::NAME_LEN_MAX - tag.len() - extension.len());
    // Not within a character, should it be UTF-8.
    while end > 0 && end < stem.len() && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&stem[..end], tag.as_bytes(), extension].concat()
}

/// Something under a temporary name, which goes again unless it gets another.
struct Temporary<'f> {
    folder: BorrowedFd<'f>,
    name: String,
    is_there: bool,
}

impl Temporary<'_> {
    /// Renames it to a name that is free, and fails with [`Errno::EXIST`] if it is not.
    fn rename_to_free(&mut self, name: &[u8]) -> Result<(), Errno> {
        let (folder, temporary) = (self.folder, self.name.as_str());
        match rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // The file system cannot (NFS cannot); a second link does the same. The first goes when we are dropped.
                rustix::fs::linkat(folder, temporary, folder, name, AtFlags::empty())
            }
            Ok(()) => {
                self.is_there = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Renames it to `name`, in the place of whatever has it but a folder.
    fn rename_over(&mut self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::renameat(self.folder, self.name.as_str(), self.folder, name)?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = rustix::fs::unlinkat(self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_names_keep_their_extension_and_fit() {
        let name = |name: &str, number| String::from_utf8(kept_name(name.as_bytes(), "restored", number)).unwrap();
        assert_eq!(name("Budget 2027.xlsx", 1), "Budget 2027 (restored).xlsx");
        assert_eq!(name("Budget 2027.xlsx", 2), "Budget 2027 (restored 2).xlsx");
        assert_eq!(name(".profile", 1), ".profile (restored)");
        assert_eq!(name("a. this is no extension", 1), "a. this is no extension (restored)");
        let long = name(&format!("{}.eml", "ü".repeat(125)), 10_000);
        assert!(long.len() <= 255 && long.ends_with("ü (restored 10000).eml"), "{long}");
        assert!(kept_name(&[0xbf; 255], "restored", 1).len() <= 255);
    }

    #[test]
    fn pieces_are_written_but_for_aligned_zeros() {
        use std::os::unix::fs::MetadataExt;
        let mut piece = vec![0; PIECE_LEN];
        piece[HOLE_LEN * 3 - 1] = 1;
        piece[HOLE_LEN * 7..HOLE_LEN * 9].fill(2);
        let file = tempfile::tempfile().unwrap();
        let fd = OwnedFd::from(file.try_clone().unwrap());
        assert!(write_piece(&fd, &piece, 0).unwrap());
        assert!(!write_piece(&fd, &[0; 1000], PIECE_LEN as u64).unwrap());
        let mut found = vec![9; PIECE_LEN + 1000];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 0).unwrap();
        assert!(found[..PIECE_LEN] == piece && found[PIECE_LEN..] == [0; 1000]);
        assert!(file.metadata().unwrap().blocks() * 512 < 6 * HOLE_LEN as u64);
    }
}
