//! Restores the files that users drop into the mount's `restore/` folders to Microsoft 365.
//!
//! ```text
//! mount ─► draft ─► seal: staged and noted ─► queue ─► executor ─┬─► contents: which item of which snapshot is it?
//!                                                                └─► restore::ItemRestorer ─► mailbox
//! ```
//!
//! - Once a file is closed or synced, it is on the disk, encrypted, and in the journal, so no crash loses it. A restore
//!   that was interrupted is found again by the mark on its item, so no item is made twice.
//! - A file whose content is in a snapshot is restored with everything that the snapshot knows of it. For any other
//!   mail only its own bytes count. Nothing in an account is overwritten or deleted.
//! - Only `staging` holds contents, and memory does not grow with their size. In memory each file has its path and its
//!   state, and the number of files is limited.
//!
//! `live` knows the folders of the organisations, and `jobs` writes the reports. docs/semantics.md says what users can
//! rely on.

mod cards;
pub mod contents;
mod drafts;
mod executor;
pub mod jobs;
pub mod journal;
pub mod live;
pub mod queue;
mod request;
mod sign_in;
pub mod staging;

pub use self::request::ask_to_commit;
pub use self::sign_in::reason as signed_out;

use self::contents::{Contents, ContentsError};
use self::drafts::{DraftFile, Identifier};
use self::jobs::Counts;
use self::journal::{Dropped, Journal};
use self::live::{JOBS, ORIGINAL, Target, TargetFolder};
use self::queue::Queue;
use self::sign_in::SignIn;
use self::staging::{StagedId, Staging};
use crate::format::crypto::Keys;
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::record_log::RecordLogError;
use crate::repository::Repository;
use crate::repository::reader::Reader;
use crate::restore::{ItemRestorer, Kind};
use crate::source::graph::Client;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};
use strongroom_mount::{Draft, Item, ItemKind, Outbox, OutboxError, Time};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Maximum length of a dropped file, in bytes. Exchange Online accepts no larger mail (Exchange Online: message
/// limits).
pub const FILE_BYTES_MAX: u64 = 150 << 20;
/// Maximum number of folders that users make in `original/`.
const VIRTUAL_MAX: usize = 100_000;
/// How long answers of Microsoft 365 about folders and permissions stay valid.
pub const BELIEVED: Duration = Duration::from_secs(60);
/// Maximum time for one look into a folder of an organisation. A million users are a thousand pages.
const ASK_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// When the mount ends, how long running restores may take to finish.
const END_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of threads that wait for disks.
const BLOCKING_THREADS_MAX: usize = 32;

const MOUNT_ENDING: &str = "the mount is ending";

/// Why the outbox cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the outbox.
    #[error("another mount with `--restore`, or `restore commit`, uses the outbox of this repository")]
    Busy,
    /// A later version of this program wrote to the outbox, so this version must not change it.
    #[error("a later version of this program has written to the outbox of this repository; use that version")]
    Newer,
    /// The disk failed.
    #[error("could not use the outbox in {}", path.display())]
    Disk {
        /// The folder of the outbox.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database of the snapshots' contents cannot be used.
    #[error("could not use the database of the snapshots' contents")]
    Contents(#[from] ContentsError),
    /// The runtime for network calls could not be started.
    #[error("could not start the runtime for the network")]
    Runtime(#[source] io::Error),
}

/// An organisation that users can restore to.
pub struct Organisation {
    /// Its name in the configuration.
    pub name: String,
    /// The `tenant_id` of the configuration.
    pub tenant_id: String,
    /// The connection to it.
    pub client: Client,
    /// Why nothing may be restored to it. `None` if restores are allowed.
    pub closed: Option<String>,
}

/// The settings of an outbox.
pub struct Options {
    /// Its folder on this machine ([`folder`]).
    pub folder: PathBuf,
    /// The folder of the mailbox locks ([`locks`]).
    pub locks: PathBuf,
    /// True if files wait for `restore commit`.
    pub waits: bool,
    /// True if closing a file waits until the file is restored.
    pub synchronous: bool,
    /// How long a closed file rests before it is restored. Until then it can be withdrawn. A commit, or a caller that
    /// waits for the file, ends the rest at once.
    pub rest: Duration,
    /// How long answers of Microsoft 365 stay valid: which accounts and folders exist, and which folders are not
    /// writable. Usually [`BELIEVED`].
    pub believed: Duration,
    /// The tenant of each set of the configuration.
    pub sets: HashMap<String, String>,
}

/// Returns the folder of a repository's outbox, below `state_dir`.
pub fn folder(state_dir: &Path, repository: &Repository) -> PathBuf {
    state_dir.join(repository.id().to_string()).join("outbox")
}

/// Returns the folder of the mailbox locks, below `state_dir`. All repositories share it, because they share the
/// mailboxes.
pub fn locks(state_dir: &Path) -> PathBuf {
    state_dir.join("mailboxes")
}

fn journal_path(folder: &Path) -> PathBuf {
    folder.join("journal")
}

/// A running outbox.
pub struct RunningOutbox {
    shared: Arc<OutboxState>,
    /// The runtime and the task of the executor.
    runtime: Option<(Runtime, JoinHandle<()>)>,
}

/// The state that all parts of an outbox share. The mount calls it through the trait [`Outbox`].
pub struct OutboxState {
    options: Options,
    repository: Arc<Repository>,
    reader: Arc<Reader>,
    staging: Staging,
    queue: Mutex<Queue>,
    /// Files that wait until somebody signs in again. Lock it alone or after `queue`, never before `queue`.
    sign_in: Mutex<SignIn>,
    /// Restored files whose staged bytes are to be removed.
    done: Mutex<Vec<StagedId>>,
    /// Notified whenever a file is settled.
    settled: Condvar,
    /// Wakes the executor.
    wake: Notify,
    contents: Contents,
    targets: Vec<Arc<Target>>,
    identifier: Identifier,
    /// The folders that users made in `original/`: the names in each parent folder.
    made: Mutex<HashMap<Vec<u8>, BTreeSet<Vec<u8>>>>,
    this: Weak<OutboxState>,
    /// Folders that refused a file for want of permission: when, and the reason.
    denied: Mutex<HashMap<Vec<u8>, (Instant, String)>>,
    /// The last text of each report, with the version of the queue that it shows.
    reports: Mutex<BTreeMap<i64, (u64, Arc<str>)>>,
    last_snapshot: Mutex<Option<Arc<(SnapshotId, Snapshot)>>>,
    handle: Handle,
    cancel: AtomicBool,
    started: Time,
}

impl RunningOutbox {
    /// Opens the outbox of a repository and resumes its work.
    ///
    /// # Errors
    /// [`OpenError::Busy`] while another process uses it.
    pub fn start(
        repository: &Arc<Repository>,
        reader: Arc<Reader>,
        organisations: Vec<Organisation>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let disk = |source| OpenError::Disk { path: options.folder.clone(), source };
        let keys = repository.keys().clone();
        let mut queue = open_queue(&options, &keys)?;
        let staging = Staging::open(options.folder.join("staged"), keys.clone()).map_err(disk)?;
        remove_strays(&mut queue, &staging).map_err(disk)?;
        let contents = Contents::open(&options.folder.join("contents"), keys.clone())?;
        sign_in::forget(&options.folder);
        let journals = options.folder.join("mailboxes");
        if queue.counts().queued + queue.counts().waiting == 0 {
            // The journals of the mailboxes describe unfinished restores, and there are none.
            remove_folder(&journals).map_err(disk)?;
        }
        let target = |one: Organisation| {
            let (client, journals) = (one.client.clone(), journals.join(&one.name));
            let restorer = ItemRestorer::new(reader.clone(), keys.clone(), client, journals, options.locks.clone());
            Arc::new(Target::new(one, restorer, options.believed))
        };
        let targets = organisations.into_iter().map(target).collect();
        let runtime = start_runtime().map_err(OpenError::Runtime)?;
        let made = made_for(&queue);
        let shared = Arc::new_cyclic(|this| OutboxState {
            this: this.clone(),
            identifier: Identifier::new(repository),
            options,
            repository: repository.clone(),
            reader,
            staging,
            queue: Mutex::new(queue),
            sign_in: Mutex::default(),
            done: Mutex::default(),
            settled: Condvar::new(),
            wake: Notify::new(),
            contents,
            targets,
            made: Mutex::new(made),
            denied: Mutex::default(),
            reports: Mutex::default(),
            last_snapshot: Mutex::default(),
            handle: runtime.handle().clone(),
            cancel: AtomicBool::new(false),
            started: now(),
        });
        let filling = shared.clone();
        runtime.spawn_blocking(move || {
            if let Err(error) = filling.contents.fill(&filling.repository, &filling.reader, &filling.cancel) {
                tracing::warn!(%error, "the contents of the snapshots are not all known");
            }
        });
        let executor = runtime.spawn(executor::run(shared.clone()));
        Ok(Self { shared, runtime: Some((runtime, executor)) })
    }

    /// Returns the interface for the mount.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        self.shared.clone()
    }

    /// Commits all waiting files. Returns when every file is settled, when all others wait for a sign-in
    /// ([`RunningOutbox::signed_out`]), or when `cancel` is set.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(&self, cancel: &AtomicBool) -> io::Result<Counts> {
        self.shared.queue.lock().commit()?;
        self.shared.wake.notify_one();
        let mut queue = self.shared.queue.lock();
        while queue.counts().queued > self.shared.sign_in.lock().waiting() as u64 && !cancel.load(Ordering::Relaxed) {
            self.shared.settled.wait_for(&mut queue, Duration::from_millis(200));
        }
        Ok(queue.counts())
    }

    /// Returns why files wait until somebody signs in again, if any do.
    pub fn signed_out(&self) -> Option<String> {
        self.shared.sign_in.lock().reason().map(str::to_owned)
    }

    /// Returns how many files there are of each kind.
    pub fn counts(&self) -> Counts {
        self.shared.queue.lock().counts()
    }

    /// Stops the outbox and returns the counts. Unfinished restores resume when the outbox is opened again.
    pub fn stop(mut self) -> Counts {
        self.end()
    }

    fn end(&mut self) -> Counts {
        let Some((runtime, executor)) = self.runtime.take() else { return Counts::default() };
        {
            // Set under the lock: a thread that waits for a file has either seen it, or the call below wakes the
            // thread.
            let _queue = self.shared.queue.lock();
            self.shared.cancel.store(true, Ordering::Relaxed);
        }
        self.shared.targets.iter().for_each(|target| target.client.cancel());
        self.shared.wake.notify_one();
        self.shared.settled.notify_all();
        let _ended = runtime.block_on(async { tokio::time::timeout(END_WAIT, executor).await });
        runtime.shutdown_timeout(END_WAIT);
        let synced = self.shared.targets.iter().try_for_each(|target| target.restorer.sync());
        if let Err(error) = synced.and_then(|()| self.shared.remove_done()) {
            tracing::warn!(%error, "the last restores could not be noted; they are looked for again next time");
        }
        self.counts()
    }
}

impl Drop for RunningOutbox {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns the dropped files, job by job. Works also while a mount uses the outbox.
///
/// # Errors
/// When the disk fails.
pub fn history(folder: &Path, repository: &Repository) -> io::Result<BTreeMap<i64, Vec<Dropped>>> {
    let (mut dropped, mut at) = (Vec::new(), HashMap::new());
    let keys = repository.keys();
    Journal::peek(&journal_path(folder), keys, |record| queue::replay(&mut dropped, &mut at, record))?;
    let mut jobs: BTreeMap<i64, Vec<Dropped>> = BTreeMap::new();
    for one in dropped.into_iter().filter(|one| one.fate != journal::Fate::Withdrawn) {
        jobs.entry(one.job).or_default().push(one);
    }
    Ok(jobs)
}

/// Opens the journal of dropped files and reads the queue from it.
fn open_queue(options: &Options, keys: &Arc<Keys>) -> Result<Queue, OpenError> {
    let rest = if options.synchronous { Duration::ZERO } else { options.rest };
    Queue::open(&journal_path(&options.folder), keys.clone(), rest).map_err(|error| match error {
        RecordLogError::Busy => OpenError::Busy,
        RecordLogError::Newer => OpenError::Newer,
        RecordLogError::Io(source) => OpenError::Disk { path: options.folder.clone(), source },
    })
}

fn start_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
}

/// Removes a folder and everything in it. It is not an error if it does not exist.
fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes staged files that are not needed: drafts that a crash left, and restored files.
fn remove_strays(queue: &mut Queue, staging: &Staging) -> io::Result<()> {
    let strays = staging.strays()?;
    let unneeded = match queue.is_doubtful() {
        // The record of a dropped file may be lost, so a file without a record is not removed.
        true => queue.reconcile(strays, now().secs)?,
        false => {
            let needed = queue.staged();
            strays.into_iter().map(|stray| stray.id).filter(|id| !needed.contains(id)).collect()
        }
    };
    unneeded.into_iter().for_each(|id| staging.remove(id));
    Ok(())
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
}

/// The meaning of a path below `restore/`.
enum RestorePath {
    Root,
    /// `original/` or a folder in it.
    Original,
    Jobs,
    Job(i64),
    Live(Arc<Target>, TargetFolder),
}

impl OutboxState {
    fn target(&self, name: &str) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| target.name == name)
    }

    /// Runs a request to an organisation, unless the outbox is stopping.
    fn ask<T>(&self, asked: impl Future<Output = Result<T, OutboxError>>) -> Result<T, OutboxError> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(OutboxError::Unreachable { reason: MOUNT_ENDING.to_owned() }),
            false => self.handle.block_on(async {
                let late = || OutboxError::Unreachable { reason: "the service did not answer in time".to_owned() };
                tokio::time::timeout(ASK_TIME_MAX, asked).await.unwrap_or_else(|_| Err(late()))
            }),
        }
    }

    /// Returns which folder or report is at `path`.
    fn place(&self, path: &[u8]) -> Result<RestorePath, OutboxError> {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let name = |name: &[u8]| std::str::from_utf8(name).map(str::to_owned).map_err(|_| OutboxError::NotFound);
        let Some((first, below)) = names.split_first() else { return Ok(RestorePath::Root) };
        match (name(first)?.as_str(), below) {
            (ORIGINAL, []) => Ok(RestorePath::Original),
            (ORIGINAL, _) if self.is_made(path) => Ok(RestorePath::Original),
            (JOBS, []) => Ok(RestorePath::Jobs),
            (JOBS, [report]) => {
                let job = jobs::parse_name(&name(report)?).ok_or(OutboxError::NotFound)?;
                self.queue.lock().job(job).map(|_| RestorePath::Job(job)).ok_or(OutboxError::NotFound)
            }
            (ORIGINAL | JOBS, _) => Err(OutboxError::NotFound),
            (target, below) => {
                let target = self.target(target).ok_or(OutboxError::NotFound)?.clone();
                let below = below.iter().map(|one| name(one)).collect::<Result<Vec<_>, _>>()?;
                let below: Vec<&str> = below.iter().map(String::as_str).collect();
                let spot = self.ask(target.find(&below))?;
                Ok(RestorePath::Live(target, spot))
            }
        }
    }

    /// Returns whether a user made this folder in `original/`.
    fn is_made(&self, path: &[u8]) -> bool {
        let (parent, name) = queue::split(path);
        self.made.lock().get(parent).is_some_and(|names| names.contains(name))
    }

    /// Returns the kind of files that may be dropped into the folder at `path`. `None` means any.
    fn check_folder(&self, path: &[u8]) -> Result<Option<Kind>, OutboxError> {
        match self.place(path)? {
            RestorePath::Original => Ok(None),
            RestorePath::Live(target, TargetFolder::Folder(_, folder)) => match &target.closed {
                Some(reason) => Err(OutboxError::Denied { reason: reason.clone() }),
                None if folder.accepts => self.check_denied(path).map(|()| Some(folder.kind)),
                None => Err(OutboxError::NotPermitted),
            },
            _ => Err(OutboxError::NotPermitted),
        }
    }

    fn check_denied(&self, folder: &[u8]) -> Result<(), OutboxError> {
        let mut denied = self.denied.lock();
        denied.retain(|_, (at, _)| at.elapsed() < self.options.believed);
        match denied.get(folder) {
            Some((_, reason)) => Err(OutboxError::Denied { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn folder_item(&self, name: &[u8], accepts: bool) -> Item {
        Item { name: name.to_vec(), kind: ItemKind::Folder { accepts }, mtime: self.started }
    }

    fn report(&self, job: i64) -> Result<Arc<str>, OutboxError> {
        let queue = self.queue.lock();
        let mut reports = self.reports.lock();
        if let Some((version, text)) = reports.get(&job)
            && *version == queue.version
        {
            return Ok(text.clone());
        }
        let (files, more) = queue.job(job).ok_or(OutboxError::NotFound)?;
        let files = files.iter().map(|item| (&item.dropped, item.is_underway));
        let text: Arc<str> = jobs::report(job, files, more, self.sign_in.lock().reason()).into();
        // Only one report is kept: the one that somebody reads again and again.
        reports.clear();
        reports.insert(job, (queue.version, text.clone()));
        Ok(text)
    }

    fn report_item(&self, job: i64) -> Result<Item, OutboxError> {
        let len = self.report(job)?.len() as u64;
        let mtime = Time { secs: job, nanos: 0 };
        Ok(Item { name: jobs::file_name(job).into_bytes(), kind: ItemKind::Text { len }, mtime })
    }

    fn dropped_in(&self, folder: &[u8]) -> Vec<Item> {
        let queue = self.queue.lock();
        queue.in_folder(folder).map(|(name, item)| dropped_item(name, item)).collect()
    }

    /// Waits until a file is settled. Returns an error if it failed.
    fn wait_for(&self, id: StagedId) -> Result<(), OutboxError> {
        let mut queue = self.queue.lock();
        loop {
            match queue.item(id).map(|item| &item.dropped.fate) {
                None => return Err(OutboxError::NotFound),
                Some(journal::Fate::Failed(reason)) => return Err(OutboxError::Denied { reason: reason.clone() }),
                // Other states wait for a person, so this call does not wait for them.
                Some(journal::Fate::Queued) => {}
                Some(_) => return Ok(()),
            }
            if self.cancel.load(Ordering::Relaxed) {
                return Err(OutboxError::Unreachable { reason: MOUNT_ENDING.to_owned() });
            }
            self.settled.wait(&mut queue);
        }
    }
}

/// Returns the folders of `original/` that hold files of an earlier run.
fn made_for(queue: &Queue) -> HashMap<Vec<u8>, BTreeSet<Vec<u8>>> {
    let mut made: HashMap<Vec<u8>, BTreeSet<Vec<u8>>> = HashMap::new();
    for mut folder in queue.folders().filter(|folder| folder.starts_with(b"original/")) {
        while folder != ORIGINAL.as_bytes() {
            let (parent, name) = queue::split(folder);
            made.entry(parent.to_vec()).or_default().insert(name.to_vec());
            folder = parent;
        }
    }
    made
}

fn dropped_item(name: &[u8], item: &queue::Item) -> Item {
    let kind = ItemKind::Dropped { len: item.dropped.len, state: item.state() };
    Item { name: name.to_vec(), kind, mtime: item.dropped.mtime }
}

impl Outbox for OutboxState {
    fn item(&self, path: &[u8]) -> Result<Item, OutboxError> {
        let (_, name) = queue::split(path);
        if let Some(item) = self.queue.lock().at(path) {
            return Ok(dropped_item(name, item));
        }
        match self.place(path)? {
            RestorePath::Root | RestorePath::Jobs => Ok(self.folder_item(name, false)),
            RestorePath::Original => Ok(self.folder_item(name, true)),
            RestorePath::Job(job) => self.report_item(job),
            RestorePath::Live(target, spot) => {
                let accepts = match &spot {
                    TargetFolder::Folder(_, folder) => folder.accepts,
                    spot => matches!(spot, TargetFolder::Mailbox(_)),
                };
                Ok(self.folder_item(name, accepts && target.closed.is_none()))
            }
        }
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Item>, OutboxError> {
        if self.queue.lock().at(path).is_some() {
            return Err(OutboxError::NotAFolder);
        }
        let mut items = match self.place(path)? {
            RestorePath::Root => {
                let mut items =
                    vec![self.folder_item(ORIGINAL.as_bytes(), true), self.folder_item(JOBS.as_bytes(), false)];
                items.extend(self.targets.iter().map(|target| self.folder_item(target.name.as_bytes(), false)));
                items
            }
            RestorePath::Original => {
                let made = self.made.lock();
                made.get(path).into_iter().flatten().map(|name| self.folder_item(name, true)).collect()
            }
            RestorePath::Jobs => {
                let jobs: Vec<i64> = self.queue.lock().jobs().collect();
                // A report that was forgotten in the meantime is left out.
                jobs.into_iter().filter_map(|job| self.report_item(job).ok()).collect()
            }
            RestorePath::Job(_) => return Err(OutboxError::NotAFolder),
            RestorePath::Live(target, spot) => {
                let listed = self.ask(target.list(&spot))?;
                listed.iter().map(|(name, accepts)| self.folder_item(name.as_bytes(), *accepts)).collect()
            }
        };
        items.extend(self.dropped_in(path));
        Ok(items)
    }

    fn read(&self, path: &[u8], offset: u64, size: usize) -> Result<Vec<u8>, OutboxError> {
        let dropped = self.queue.lock().at(path).map(|item| (item.dropped.id, item.dropped.len));
        if let Some((id, len)) = dropped {
            return match self.staging.reopen(id, len) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OutboxError::NotFound),
                file => Ok(file?.read(offset, size)?),
            };
        }
        match self.place(path)? {
            RestorePath::Job(job) => {
                let text = self.report(job)?;
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                Ok(text.as_bytes()[from..text.len().min(from.saturating_add(size))].to_vec())
            }
            _ => Err(OutboxError::NotFound),
        }
    }

    fn make_folder(&self, path: &[u8]) -> Result<(), OutboxError> {
        if self.queue.lock().at(path).is_some() {
            return Err(OutboxError::NotPermitted);
        }
        let (parent, name) = queue::split(path);
        match self.place(parent)? {
            RestorePath::Original => {
                let mut made = self.made.lock();
                if made.values().map(BTreeSet::len).sum::<usize>() >= VIRTUAL_MAX {
                    return Err(OutboxError::Full);
                }
                made.entry(parent.to_vec()).or_default().insert(name.to_vec());
                Ok(())
            }
            RestorePath::Live(target, spot) => {
                let name = std::str::from_utf8(name).map_err(|_| OutboxError::NotPermitted)?;
                match (&target.closed, &spot) {
                    (Some(reason), _) => Err(OutboxError::Denied { reason: reason.clone() }),
                    (None, TargetFolder::Mailbox(_) | TargetFolder::Folder(..)) => self.ask(target.make(&spot, name)),
                    // An existing folder is found; no other folder can be made here.
                    _ => self.place(path).map(drop).map_err(|error| match error {
                        OutboxError::NotFound => OutboxError::NotPermitted,
                        error => error,
                    }),
                }
            }
            _ => self.place(path).map(drop).map_err(|_| OutboxError::NotPermitted),
        }
    }

    fn begin(&self, folder: &[u8]) -> Result<Box<dyn Draft>, OutboxError> {
        self.check_folder(folder)?;
        let this = self.this.upgrade().expect("whoever calls holds it");
        Ok(Box::new(DraftFile::new(this)))
    }

    fn withdraw(&self, path: &[u8]) -> Result<(), OutboxError> {
        let mut queue = self.queue.lock();
        let id = queue.at(path).ok_or(OutboxError::NotFound)?.dropped.id;
        queue.withdraw(id)?;
        self.staging.remove(id);
        self.settled.notify_all();
        Ok(())
    }

    fn set_mtime(&self, path: &[u8], mtime: Time) -> Result<(), OutboxError> {
        self.queue.lock().set_mtime(path, mtime)
    }

    fn commit(&self) -> Result<(), OutboxError> {
        self.queue.lock().commit()?;
        self.hurry_sign_in();
        self.wake.notify_one();
        Ok(())
    }

    fn take_changes(&self) -> Vec<Vec<u8>> {
        self.queue.lock().take_changes()
    }
}
