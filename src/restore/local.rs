//! The executor for folders of this machine.
//!
//! Everything is done relative to open folders, one name at a time, and below the target no symbolic link is followed.
//! So everything is written inside the target, whatever the repository says and whatever links exist there.
//!
//! - A file is written under a temporary name and renamed when it is complete. The rename replaces nothing unless the
//!   user asked for that. A killed run leaves at most one file `.strongroom-restore-*` for each thread.
//! - The calling thread walks and makes folders; workers write files. A folder gets its times and permissions when the
//!   walk has left it and the last of its files is written.
//! - A folder that belongs to us and forbids us to write (0555) is made writable during the run. At the end it gets its
//!   new permissions, or those it had. So an interrupted run can be repeated.
//! - Few folders are open at a time, however deep the tree is: folders far above are closed. When the walk comes back,
//!   they are opened again name by name, and their inode numbers are compared.
//! - Runs of zeros become holes.
//!
//! Single files are not synced; the whole file system is synced at the end.

mod extended;
mod files;
mod folders;
mod links;
mod special;

use super::plan::{Selection, Step, Walk};
use super::{Progress, Report, RestoreError, SHOWN_MAX, Survey, WhenExists, chain, printable};
use crate::format::entry::{Content, Entry, EntryKind, Timestamp, is_legal_name};
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::tree::FoundEntry;
use crate::runtime::{Panicked, guarded};
use crossbeam_channel::{Receiver, Sender, bounded};
use extended::Losses;
use files::{Outcome, Placed};
use folders::{Access, Attributes, FOLDER_FLAGS, Finish, Folder, Folders};
use links::{Links, Turn};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Maximum number of items in a batch. A batch of neighbours goes to one worker, so that each worker decodes other
/// blocks. The maximum number of folders in a batch bounds how many folders are open.
const BATCH_ITEMS_MAX: usize = 32;
const BATCH_BYTES_MAX: u64 = 1 << 20;
const BATCH_FOLDERS_MAX: usize = 8;
const WORKERS_MAX: usize = 8;
/// Maximum length in bytes of a symbolic link's target, without the zero byte at its end (PATH_MAX).
const LINK_TARGET_LEN_MAX: usize = 4095;

/// A target folder of this machine. It need not exist yet.
pub(super) struct Target {
    dir: PathBuf,
}

impl Target {
    pub fn new(dir: &Path) -> Result<Self, RestoreError> {
        // The process may change its working folder, so keep the absolute path.
        let absolute = std::path::absolute(dir);
        absolute.map(|dir| Self { dir }).map_err(|source| RestoreError::Target { dir: dir.to_owned(), source })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn failed(&self, error: impl Into<io::Error>) -> RestoreError {
        RestoreError::Target { dir: self.dir.clone(), source: error.into() }
    }

    /// Opens the folder. It may be a symbolic link, or lie behind one: that is the choice of the user.
    fn open(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::open(&self.dir, FOLDER_FLAGS.difference(OFlags::NOFOLLOW), Mode::empty())
    }

    /// Opens the folder to write. If it belongs to us and forbids us to write, it is made writable, and its former
    /// access is returned.
    fn open_to_write(&self) -> Result<(OwnedFd, Option<Access>), Errno> {
        let before = rustix::fs::stat(&self.dir)?;
        folders::open_up_by(&before, |mode| rustix::fs::chmod(&self.dir, mode))?;
        let access = folders::keeps_us_out(&before).then(|| folders::access_of(&before));
        Ok((self.open()?, access))
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
            // The folder belongs to us but forbids us to read it, so its contents are unknown until the run makes it
            // accessible.
            Err(Errno::ACCESS) if rustix::fs::stat(&self.dir).is_ok_and(|stat| folders::keeps_us_out(&stat)) => None,
            Err(error) => return Err(self.failed(error)),
        };
        // Number of levels that the walk is below the last existing folder.
        let mut absent = 0;
        while let Some(step) = walk.step() {
            if cancel.load(Ordering::Relaxed) {
                return Err(RestoreError::Interrupted);
            }
            let existing = folders.as_mut().filter(|_| absent == 0);
            match step {
                Step::Enter(found) => {
                    let entered = existing.map_or(Ok(false), |folders| folders.try_enter(&found.entry().name));
                    count_folder(&mut survey, walk.path(), found.entry(), &entered);
                    match entered {
                        Ok(true) => {}
                        Ok(false) => absent += 1,
                        Err(_) => walk.skip(),
                    }
                }
                Step::Leave if absent > 0 => absent -= 1,
                Step::Leave => drop(folders.as_mut().map(|folders| folders.leave(walk.path()))),
                Step::Item(found) => {
                    let entry = found.entry();
                    let looked = check(entry).and_then(|()| match existing {
                        Some(folders) => folders
                            .current()
                            .and_then(|folder| look(folder.fd.as_fd(), &entry.name))
                            .map_err(|error| Reason::io("look at it", error)),
                        None => Ok(None),
                    });
                    count_item(&mut survey, walk.path(), entry, looked);
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
        let (root, before) = self.open_to_write().map_err(|error| self.failed(error))?;
        // At the end, its permissions may forbid us to open it again.
        let kept_open = root.try_clone().map_err(|error| self.failed(error))?;
        let mut folders = Folders::to_write(root, before);
        let root = folders.root.clone();
        let run = Run::new(reader, when_exists, progress, cancel, kept_open.as_fd());
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
            let attributes = Attributes { mtime: Some(entry.mtime), access: Some(Access::of(entry)) };
            let _ = root.finish.set(Finish { path: Vec::new(), attributes });
        }
        drop(folders);
        run.release(root);
        let mut report = run.report.into_inner();
        report.failures.sort_by(|a, b| a.path.cmp(&b.path));
        report.remarks.extend(run.losses.into_inner().remarks());
        if report.stopped.is_none() && cancel.load(Ordering::Relaxed) {
            report.stopped = Some(RestoreError::Interrupted);
        }
        if let Err(error) = rustix::fs::syncfs(&kept_open) {
            report.stopped.get_or_insert(RestoreError::Sync { dir: self.dir.clone(), source: error.into() });
        }
        Ok(report)
    }
}

/// Counts a folder. `entered` says whether it exists, or why it cannot be opened.
fn count_folder(survey: &mut Survey, path: &[u8], entry: &Entry, entered: &Result<bool, Reason>) {
    survey.folders += 1;
    match entered {
        Ok(true) => {}
        Ok(false) => survey.new_folders += 1,
        Err(reason) => {
            let sums = entry.sums();
            survey.items = survey.items.saturating_add(sums.files);
            survey.bytes = survey.bytes.saturating_add(sums.bytes);
            survey.problem(path, sums.items, reason.text());
        }
    }
}

/// Counts an item. `existing` is what stands at its path, or why nothing can be there.
fn count_item(survey: &mut Survey, path: &[u8], entry: &Entry, existing: Result<Option<Stat>, Reason>) {
    let bytes = entry.sums().bytes;
    survey.items += 1;
    survey.bytes = survey.bytes.saturating_add(bytes);
    match existing {
        Ok(None) => {
            survey.new += 1;
            survey.new_bytes = survey.new_bytes.saturating_add(bytes);
        }
        Ok(Some(stat)) => count_existing(survey, path, entry, &stat),
        Err(reason) => survey.problem(path, 1, reason.text()),
    }
}

fn count_existing(survey: &mut Survey, path: &[u8], entry: &Entry, stat: &Stat) {
    let kind = match entry.kind {
        EntryKind::Symlink(_) => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    let bytes = entry.sums().bytes;
    survey.existing += 1;
    survey.existing_bytes = survey.existing_bytes.saturating_add(bytes);
    if kind_of(stat) == kind && u64::try_from(stat.st_size) == Ok(entry.size()) && mtime_of(stat) == entry.mtime {
        survey.alike += 1;
        survey.alike_bytes = survey.alike_bytes.saturating_add(bytes);
    } else if survey.conflicts.len() < SHOWN_MAX {
        survey.conflicts.push(path.to_vec());
    }
}

/// Why an item is not restored.
enum Reason {
    Read(ReadError),
    System { what: &'static str, error: Errno },
    Is(&'static str),
    Fault(Panicked),
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
            Reason::Fault(fault) => fault.to_string(),
            Reason::Interrupted => "interrupted".to_owned(),
        }
    }

    /// Returns the error of the system if all other items would fail in the same way.
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

/// Returns why `entry` cannot be restored to any folder.
fn check(entry: &Entry) -> Result<(), Reason> {
    // Decoding refuses such names already. The check is repeated here, where a bad name would do harm.
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

/// Returns what exists under `name`. A symbolic link is not followed.
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

/// An item for a worker.
struct Job {
    folder: Arc<Folder>,
    found: FoundEntry,
    path: Vec<u8>,
    /// The turn of a file with several names.
    turn: Option<Turn>,
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

/// The part of the calling thread: walks, makes folders, and gives items to workers.
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
                        let link = found.entry().link();
                        let turn = link.map(|link| self.run.links.turn(link, || self.folders.path()));
                        batch.push(Job { folder, found, path: self.walk.path().to_vec(), turn });
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
        // If the run stopped early, the folders down to here still get their attributes, so that the next run finds
        // them right.
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
            // No access for others until the folder has its owner and permissions.
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
        // A folder that has the right time already, from an earlier run, keeps that time when items are added.
        let mtime = (access.is_some() || level.mtime == entry.mtime).then_some(entry.mtime);
        // If the folder was made accessible for this run, it gets its former access back.
        let access = access.or(level.opened_up.clone());
        if access.is_some() || mtime.is_some() {
            level.finish = Some(Attributes { mtime, access });
        }
        Ok(())
    }
}

/// The state that all threads of a run share.
struct Run<'a> {
    reader: &'a Reader,
    when_exists: WhenExists,
    progress: &'a Progress,
    cancel: &'a AtomicBool,
    /// The target folder.
    root: BorrowedFd<'a>,
    report: Mutex<Report>,
    losses: Mutex<Losses>,
    links: Arc<Links>,
    halted: AtomicBool,
    temporary_prefix: String,
    temporary_next: AtomicU64,
    /// The text in the new names of items that are restored beside existing ones.
    kept_tag: String,
    /// True if we may give files to other users.
    can_give_away: bool,
}

impl<'a> Run<'a> {
    fn new(
        reader: &'a Reader,
        when_exists: WhenExists,
        progress: &'a Progress,
        cancel: &'a AtomicBool,
        root: BorrowedFd<'a>,
    ) -> Self {
        let random = u64::from_le_bytes(crate::format::crypto::random());
        Run {
            reader,
            when_exists,
            progress,
            cancel,
            root,
            report: Mutex::default(),
            losses: Mutex::default(),
            links: Arc::default(),
            halted: AtomicBool::new(false),
            temporary_prefix: format!(".strongroom-restore-{random:016x}"),
            temporary_next: AtomicU64::new(0),
            kept_tag: jiff::Zoned::now().strftime("restored %Y-%m-%d %H.%M").to_string(),
            can_give_away: rustix::process::geteuid().is_root(),
        }
    }

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

    /// Gives a folder its attributes if this was the last user of it.
    fn release(&self, folder: Arc<Folder>) {
        if let Some(Folder { fd, finish }) = Arc::into_inner(folder)
            && let Some(Finish { path, attributes }) = finish.into_inner()
            && let Err(reason) = self.set_attributes(&fd, attributes, &path)
        {
            self.fail(&path, 1, &reason);
        }
    }

    fn work(&self, batches: &Receiver<Batch>) {
        for batch in batches {
            for Job { folder, found, path, turn } in batch.jobs {
                // After a stop, the other items are skipped, but their folders are released.
                if !self.is_halted() {
                    self.process(&folder, found.entry(), &path, turn.as_ref());
                }
                // Now the workers that wait for this first name go on.
                drop(turn);
                self.release(folder);
            }
        }
    }

    fn process(&self, folder: &Folder, entry: &Entry, path: &[u8], turn: Option<&Turn>) {
        self.progress.current.lock().splice(.., path.iter().copied());
        let bytes = entry.sums().bytes;
        let mut counted = 0;
        let fd = folder.fd.as_fd();
        let restore = || match (&entry.kind, entry.special()) {
            (_, Some(special)) => self.restore_special(fd, entry, special, path),
            (EntryKind::File(content), None) => self.restore_names(fd, entry, content, path, turn, &mut counted),
            (EntryKind::Symlink(target), None) => self.restore_link(fd, entry, target, path),
            (EntryKind::Directory(_), None) => unreachable!("the walk enters folders"),
        };
        let outcome = check(entry).and_then(|()| guarded(restore).unwrap_or_else(|fault| Err(Reason::Fault(fault))));
        if let Err(Reason::Interrupted) = outcome {
            return;
        }
        self.advance(1, bytes - counted);
        match outcome {
            Ok(Outcome::Restored) => {
                let mut report = self.report.lock();
                report.restored += 1;
                // A further name of a file adds no bytes.
                report.bytes += counted;
            }
            Ok(Outcome::AlreadyThere) => self.report.lock().already_there += 1,
            Ok(Outcome::Skipped) => self.report.lock().skipped += 1,
            Ok(Outcome::Left) => {}
            Err(reason) => self.fail(path, 1, &reason),
        }
    }

    /// Restores a file, or a further name of one.
    fn restore_names(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        content: &Content,
        path: &[u8],
        turn: Option<&Turn>,
        counted: &mut u64,
    ) -> Result<Outcome, Reason> {
        if let Some(Turn::Further(link)) = turn
            && let Some(outcome) = self.restore_further(folder, entry, content, *link)?
        {
            return Ok(outcome);
        }
        let Placed { outcome, name, id } = self.restore_file(folder, entry, content, path, counted)?;
        match turn {
            Some(Turn::First(first)) => {
                // An existing file may be linked to if it has the time and the permissions of the entry.
                let is_alike = |stat: &Stat| {
                    let mode = entry.mode.map_or(stat.st_mode, u32::from);
                    mtime_of(stat) == entry.mtime && (mode ^ stat.st_mode) & 0o1777 == 0
                };
                let there = || look(folder, &name).ok().flatten().filter(is_alike).map(|stat| id_of(&stat));
                let id = if outcome == Outcome::AlreadyThere { there() } else { id };
                if let Some(id) = id {
                    first.made(name, id, entry);
                }
            }
            Some(Turn::Further(_) | Turn::Alone) if outcome == Outcome::Restored => self.losses.lock().alone += 1,
            _ => {}
        }
        Ok(outcome)
    }
}
