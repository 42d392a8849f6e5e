//! The dropped files in memory: by path for the mount, in order for the executor, by job for the reports.
//!
//! A change is written to the journal before it is made here. Files that are dropped together form a job. A job begins
//! with a drop while no job is open. It ends when all files are settled and nothing was dropped for [`JOB_END_WAIT`].

use super::jobs::Counts;
use super::journal::{Dropped, Fate, Journal, Record};
use super::staging::{StagedId, Stray};
use crate::format::crypto::Keys;
use crate::record_log::RecordLogError;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_mount::{OutboxError, State, Time};

/// A job ends when nothing was dropped for this long.
const JOB_END_WAIT: Duration = Duration::from_secs(5);
/// Number of restored files that are remembered when a job ends. A long job may reach twice as many.
const SETTLED_MAX: usize = 20_000;
/// Maximum number of files that wait or have failed. Each takes some memory, so more are refused.
const KEPT_MAX: usize = 250_000;
/// When the queue is opened, the journal is rewritten if it has this many more records than there are files.
const STALE_MAX: u64 = 1000;
const STALE_WHILE_OPEN_MAX: u64 = 100_000;
/// The reason of a file whose record is lost. It is not restored by itself.
const RECORD_LOST: &str = "this machine's record of the file is damaged on the disk: it is unknown where the file was \
    dropped and whether it is complete. Read it here, drop it again where it belongs, and remove this one";
/// The reason of a file whose bytes are lost. It cannot be restored.
const BYTES_LOST: &str = "this machine's record of the file is damaged on the disk, and its bytes are gone: it was \
    taken back or is restored already";
/// Maximum number of changed paths that wait for the mount. If there are more, the mount notices the others on its own.
const CHANGED_MAX: usize = 10_000;

/// A dropped file.
#[derive(Debug, Clone)]
pub struct Item {
    /// The file as in the journal.
    pub dropped: Dropped,
    /// True while it is being restored.
    pub is_underway: bool,
    /// True if nobody has it open any more.
    is_released: bool,
    /// True if it does not rest after its release, because somebody has committed.
    is_hurried: bool,
    /// How many times it was tried.
    pub attempts: u32,
}

impl Item {
    fn new(dropped: Dropped) -> Self {
        Self { dropped, is_underway: false, is_released: false, is_hurried: false, attempts: 0 }
    }

    /// Returns the state that users see.
    pub fn state(&self) -> State {
        match &self.dropped.fate {
            Fate::Waiting => State::Waiting,
            Fate::Queued if self.is_underway => State::Uploading,
            Fate::Queued => State::Queued,
            Fate::Done(_) | Fate::Withdrawn => State::Done,
            Fate::Failed(reason) => State::Failed { reason: reason.clone() },
        }
    }

    fn is_settled(&self) -> bool {
        !matches!(self.dropped.fate, Fate::Waiting | Fate::Queued)
    }

    fn is_done(&self) -> bool {
        matches!(self.dropped.fate, Fate::Done(_))
    }
}

/// The result of sealing a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The file is new. It may replace one at the same path that had failed, or was restored in an earlier job.
    New(Option<StagedId>),
    /// The same content is at this path already.
    Same,
}

/// Files that were dropped together.
#[derive(Default)]
struct Job {
    files: Vec<StagedId>,
    /// The number of restored files that are not remembered any more.
    forgotten: u64,
}

/// The queue of dropped files.
pub struct Queue {
    journal: Journal,
    items: HashMap<StagedId, Item>,
    /// The names in each folder. Files that were restored in an earlier run are not in it.
    folders: HashMap<Vec<u8>, BTreeMap<Vec<u8>, StagedId>>,
    ready: VecDeque<StagedId>,
    /// Released files, each with the end of its rest.
    resting: VecDeque<(Instant, StagedId)>,
    rest: Duration,
    jobs: BTreeMap<i64, Job>,
    /// The number of files that are not settled.
    open: usize,
    /// The number of files that were restored.
    done: usize,
    open_job: Option<(i64, Instant)>,
    changed: HashSet<Vec<u8>>,
    /// Number of records at which the journal may be rewritten again. Set after a rewrite failed.
    compact_from: u64,
    /// Grows with every change.
    pub version: u64,
}

/// Returns the folder and the name of a path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Applies a record of the journal to `items`. `at` holds the position of each file in `items`.
pub fn replay(items: &mut Vec<Dropped>, at: &mut HashMap<StagedId, usize>, record: Record) {
    match record {
        Record::Dropped(dropped) => match at.get(&dropped.id) {
            Some(&known) => items[known] = dropped,
            None => {
                at.insert(dropped.id, items.len());
                items.push(dropped);
            }
        },
        Record::Became(id, fate) => {
            if let Some(&known) = at.get(&id) {
                items[known].fate = fate;
            }
        }
        Record::Timed(id, mtime) => {
            if let Some(&known) = at.get(&id) {
                items[known].mtime = mtime;
            }
        }
        Record::Committed => {
            let waiting = items.iter_mut().filter(|one| one.fate == Fate::Waiting);
            waiting.for_each(|one| one.fate = Fate::Queued);
        }
    }
}

impl Queue {
    /// Opens the queue whose journal is at `path`. `rest` is how long a released file rests before it is taken.
    ///
    /// # Errors
    /// [`RecordLogError::Busy`] while another process uses it.
    pub fn open(path: &Path, keys: Arc<Keys>, rest: Duration) -> Result<Self, RecordLogError> {
        let (mut dropped, mut at) = (Vec::new(), HashMap::new());
        let mut journal = Journal::open(path, keys, |record| replay(&mut dropped, &mut at, record))?;
        dropped.retain(|one| one.fate != Fate::Withdrawn);
        let is_done = |one: &Dropped| matches!(one.fate, Fate::Done(_));
        let mut too_many = dropped.iter().filter(|one| is_done(one)).count().saturating_sub(SETTLED_MAX);
        dropped.retain(|one| {
            let goes = too_many > 0 && is_done(one);
            too_many -= usize::from(goes);
            !goes
        });
        // If the rewrite fails, the old journal is longer but says the same.
        let compacted = journal.records() <= dropped.len() as u64 + STALE_MAX || compact(&mut journal, dropped.iter());
        let compact_from = if compacted { 0 } else { journal.records() + STALE_WHILE_OPEN_MAX };
        let mut queue = Self {
            journal,
            items: HashMap::new(),
            folders: HashMap::new(),
            ready: VecDeque::new(),
            resting: VecDeque::new(),
            rest,
            jobs: BTreeMap::new(),
            open: 0,
            done: 0,
            open_job: None,
            changed: HashSet::new(),
            compact_from,
            version: 0,
        };
        dropped.into_iter().for_each(|one| queue.insert(one));
        Ok(queue)
    }

    /// Adds a file of an earlier run.
    fn insert(&mut self, dropped: Dropped) {
        self.jobs.entry(dropped.job).or_default().files.push(dropped.id);
        let item = Item { is_released: true, ..Item::new(dropped) };
        self.open += usize::from(!item.is_settled());
        self.done += usize::from(item.is_done());
        if !item.is_done() {
            self.place(&item.dropped.path, item.dropped.id);
        }
        if item.dropped.fate == Fate::Queued {
            self.ready.push_back(item.dropped.id);
        }
        self.items.insert(item.dropped.id, item);
    }

    /// Returns true if records may be lost, so that dropped files may have no record.
    pub fn is_doubtful(&self) -> bool {
        self.journal.is_doubtful()
    }

    /// Makes the queue agree with the staging area after records of the journal were lost. A staged file without a
    /// record becomes a failed file in `original/`, so that somebody finds it. A record without a staged file becomes a
    /// failed file too. Returns the staged files that are not needed, because they were restored.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn reconcile(&mut self, staged: Vec<Stray>, now: i64) -> io::Result<Vec<StagedId>> {
        let there: HashSet<StagedId> = staged.iter().map(|stray| stray.id).collect();
        let is_gone = |item: &&Item| !item.is_settled() && !there.contains(&item.dropped.id);
        let gone: Vec<_> = self.items.values().filter(is_gone).map(|item| item.dropped.id).collect();
        for id in gone {
            self.settle(id, Fate::Failed(BYTES_LOST.to_owned()))?;
        }
        let job = now.max(self.jobs.last_key_value().map_or(i64::MIN, |(last, _)| last.saturating_add(1)));
        let mut unneeded = Vec::new();
        for Stray { id, len, mtime } in staged {
            match self.items.get(&id) {
                Some(item) if item.is_done() => unneeded.push(id),
                Some(_) => {}
                None => {
                    let path = format!("{}/damaged-{id}.eml", super::live::ORIGINAL).into_bytes();
                    let fate = Fate::Failed(RECORD_LOST.to_owned());
                    let dropped = Dropped { id, path, mtime, len, content: [0; 32], job, fate };
                    self.journal.note_lazily(&Record::Dropped(dropped.clone()))?;
                    self.insert(dropped);
                }
            }
        }
        self.journal.sync()?;
        Ok(unneeded)
    }

    fn place(&mut self, path: &[u8], id: StagedId) {
        let (folder, name) = split(path);
        self.folders.entry(folder.to_vec()).or_default().insert(name.to_vec(), id);
    }

    fn displace(&mut self, path: &[u8], id: StagedId) {
        let (folder, name) = split(path);
        if let Some(names) = self.folders.get_mut(folder)
            && names.get(name) == Some(&id)
        {
            names.remove(name);
            if names.is_empty() {
                self.folders.remove(folder);
            }
        }
    }

    /// Returns the files whose bytes are still needed.
    pub fn staged(&self) -> HashSet<StagedId> {
        let needed = self.items.values().filter(|item| !item.is_done());
        needed.map(|item| item.dropped.id).collect()
    }

    /// Returns the file at `path`.
    pub fn at(&self, path: &[u8]) -> Option<&Item> {
        let (folder, name) = split(path);
        self.items.get(self.folders.get(folder)?.get(name)?)
    }

    /// Returns the file with this id.
    pub fn item(&self, id: StagedId) -> Option<&Item> {
        self.items.get(&id)
    }

    /// Returns the files in a folder.
    pub fn in_folder(&self, folder: &[u8]) -> impl Iterator<Item = (&[u8], &Item)> {
        let names = self.folders.get(folder).into_iter().flatten();
        names.filter_map(|(name, id)| Some((name.as_slice(), self.items.get(id)?)))
    }

    /// Returns all folders that hold files.
    pub fn folders(&self) -> impl Iterator<Item = &[u8]> {
        self.folders.keys().map(Vec::as_slice)
    }

    /// Returns all jobs.
    pub fn jobs(&self) -> impl Iterator<Item = i64> {
        self.jobs.keys().copied()
    }

    /// Returns the files of a job, and the number of its restored files that are not remembered any more.
    pub fn job(&self, job: i64) -> Option<(Vec<&Item>, u64)> {
        let Job { files, forgotten } = self.jobs.get(&job)?;
        Some((files.iter().filter_map(|id| self.items.get(id)).collect(), *forgotten))
    }

    /// Returns how many files there are of each kind.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.items.values().for_each(|item| counts.add(&item.dropped.fate));
        counts
    }

    fn changed(&mut self, path: &[u8], job: i64) {
        self.version += 1;
        if self.changed.len() < CHANGED_MAX {
            self.changed.insert(path.to_vec());
            self.changed.insert(format!("{}/{}", super::live::JOBS, super::jobs::file_name(job)).into_bytes());
            self.changed.insert(super::live::JOBS.as_bytes().to_vec());
        }
    }

    /// Returns the paths that have changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Vec<u8>> {
        self.changed.drain().collect()
    }

    /// Adds a path that has changed.
    pub fn tell(&mut self, path: Vec<u8>) {
        if self.changed.len() < CHANGED_MAX {
            self.changed.insert(path);
        }
    }

    /// Adds a file to a job and makes its record durable. The file is taken only after its release.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] if a different file is at its path, [`OutboxError::Full`],
    /// [`OutboxError::Storage`].
    pub fn seal(&mut self, mut dropped: Dropped, now: i64) -> Result<Sealed, OutboxError> {
        let before = self.at(&dropped.path).map(|item| item.dropped.clone());
        if let Some(before) = &before
            && !matches!(before.fate, Fate::Failed(_))
        {
            if before.content != dropped.content || before.len != dropped.len {
                return Err(OutboxError::NotPermitted);
            }
            // An item that was restored in an earlier job may have been deleted since, so the file is restored again.
            let is_long_ago = self.open_job.is_none_or(|(job, _)| job != before.job);
            if !(is_long_ago && matches!(before.fate, Fate::Done(_))) {
                return Ok(Sealed::Same);
            }
        }
        if self.items.len() - self.done >= KEPT_MAX {
            return Err(OutboxError::Full);
        }
        let job = match self.open_job {
            Some((job, _)) => job,
            // The time is later than that of every job, so no two jobs have the same name.
            None => now.max(self.jobs.last_key_value().map_or(i64::MIN, |(last, _)| last.saturating_add(1))),
        };
        self.open_job = Some((job, Instant::now()));
        dropped.job = job;
        let replaced = before.map(|before| before.id);
        if let Some(before) = replaced {
            self.journal.note_lazily(&Record::Became(before, Fate::Withdrawn))?;
            self.forget(before);
        }
        self.journal.note(&Record::Dropped(dropped.clone()))?;
        let id = dropped.id;
        self.jobs.entry(job).or_default().files.push(id);
        self.open += 1;
        self.place(&dropped.path, id);
        self.changed(&dropped.path, job);
        self.items.insert(id, Item::new(dropped));
        Ok(Sealed::New(replaced))
    }

    /// Notes that nobody has the file open any more. It is taken after its rest. Returns whether the file still exists.
    pub fn release(&mut self, id: StagedId) -> bool {
        let Some(item) = self.items.get_mut(&id) else { return false };
        if !std::mem::replace(&mut item.is_released, true) && item.dropped.fate == Fate::Queued {
            match item.is_hurried {
                true => self.ready.push_back(id),
                false => self.resting.push_back((Instant::now() + self.rest, id)),
            }
        }
        true
    }

    /// Changes the modification time of the file at `path`. A crash may lose this change.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`], [`OutboxError::Storage`].
    pub fn set_mtime(&mut self, path: &[u8], mtime: Time) -> Result<(), OutboxError> {
        let id = self.at(path).ok_or(OutboxError::NotFound)?.dropped.id;
        let dropped = &mut self.items.get_mut(&id).expect("it was found above").dropped;
        // A restored file is shown only in this run, so its time need not be stored.
        if dropped.mtime != mtime && !matches!(dropped.fate, Fate::Done(_)) {
            self.journal.note_lazily(&Record::Timed(id, mtime))?;
        }
        dropped.mtime = mtime;
        self.compact();
        Ok(())
    }

    /// Removes a file that was not sent yet.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] if it was tried or restored, [`OutboxError::NotFound`], [`OutboxError::Storage`].
    pub fn withdraw(&mut self, id: StagedId) -> Result<(), OutboxError> {
        let item = self.items.get(&id).ok_or(OutboxError::NotFound)?;
        let is_tried = item.dropped.fate == Fate::Queued && (item.is_underway || item.attempts > 0);
        let may_be_there = item.is_done() || is_tried;
        if may_be_there {
            return Err(OutboxError::NotPermitted);
        }
        self.journal.note(&Record::Became(id, Fate::Withdrawn))?;
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: StagedId) {
        let Some(item) = self.items.remove(&id) else { return };
        self.open -= usize::from(!item.is_settled());
        self.done -= usize::from(item.is_done());
        let Dropped { path, job, .. } = item.dropped;
        self.displace(&path, id);
        if let Some(of) = self.jobs.get_mut(&job) {
            of.files.retain(|other| *other != id);
            if of.files.is_empty() && of.forgotten == 0 {
                self.jobs.remove(&job);
            }
        }
        self.changed(&path, job);
    }

    /// Starts the restore of all files that wait or rest. Files that are still open follow when they are released.
    ///
    /// # Errors
    /// When the disk fails. Then all files keep waiting.
    pub fn commit(&mut self) -> io::Result<()> {
        let mut open: Vec<_> = self.items.values_mut().filter(|item| !item.is_settled()).collect();
        if open.iter().any(|item| item.dropped.fate == Fate::Waiting) {
            self.journal.note(&Record::Committed)?;
        }
        open.sort_by(|a, b| (a.dropped.job, &a.dropped.path).cmp(&(b.dropped.job, &b.dropped.path)));
        let mut changed = Vec::new();
        self.ready.extend(self.resting.drain(..).map(|(_, id)| id));
        for item in open {
            item.is_hurried = true;
            if item.dropped.fate == Fate::Waiting {
                item.dropped.fate = Fate::Queued;
                self.ready.extend(item.is_released.then_some(item.dropped.id));
                changed.push((item.dropped.path.clone(), item.dropped.job));
            }
        }
        changed.into_iter().for_each(|(path, job)| self.changed(&path, job));
        Ok(())
    }

    /// Returns the next file to restore and marks it as under way.
    pub fn take(&mut self) -> Option<Item> {
        while let Some((_, id)) = self.resting.pop_front_if(|(until, _)| *until <= Instant::now()) {
            self.ready.push_back(id);
        }
        loop {
            let id = self.ready.pop_front()?;
            // The user may have taken the file back, and its writer may have sealed it again since.
            let is_ready =
                |item: &&mut Item| item.dropped.fate == Fate::Queued && item.is_released && !item.is_underway;
            let Some(item) = self.items.get_mut(&id).filter(is_ready) else { continue };
            item.is_underway = true;
            item.attempts += 1;
            let item = item.clone();
            self.changed(&item.dropped.path, item.dropped.job);
            return Some(item);
        }
    }

    /// Notes the final state of a file. A crash may lose this record; then the file is tried again, and finds its item
    /// there.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(&mut self, id: StagedId, fate: Fate) -> io::Result<()> {
        let Some(item) = self.items.get_mut(&id) else { return Ok(()) };
        self.open -= usize::from(!item.is_settled());
        self.done -= usize::from(item.is_done());
        item.is_underway = false;
        item.dropped.fate = fate.clone();
        self.done += usize::from(item.is_done());
        let (path, job) = (item.dropped.path.clone(), item.dropped.job);
        self.changed(&path, job);
        self.journal.note_lazily(&Record::Became(id, fate))?;
        if self.done > 2 * SETTLED_MAX {
            self.shrink();
        }
        Ok(())
    }

    /// Marks a file as not under way, because it is tried again later; see [`Queue::again`].
    pub fn pause(&mut self, id: StagedId) {
        if let Some(item) = self.items.get_mut(&id) {
            item.is_underway = false;
            let (path, job) = (item.dropped.path.clone(), item.dropped.job);
            self.changed(&path, job);
        }
    }

    /// Like [`Queue::pause`], for a file that was refused before anything was sent. The attempt does not count, so the
    /// user can still take the file back.
    pub fn put_back(&mut self, id: StagedId) {
        if let Some(item) = self.items.get_mut(&id) {
            item.attempts = item.attempts.saturating_sub(1);
        }
        self.pause(id);
    }

    /// Puts a paused file back into the queue.
    pub fn again(&mut self, id: StagedId) {
        if self.items.get(&id).is_some_and(|item| item.dropped.fate == Fate::Queued && !item.is_underway) {
            self.ready.push_back(id);
        }
    }

    /// Ends the open job if all files are settled and nothing was dropped for [`JOB_END_WAIT`]. Returns whether the job
    /// ended.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn end_job(&mut self) -> io::Result<bool> {
        let is_quiet = self.open_job.is_some_and(|(_, since)| since.elapsed() >= JOB_END_WAIT);
        if !is_quiet || self.open > 0 {
            return Ok(false);
        }
        self.open_job = None;
        self.journal.sync()?;
        self.shrink();
        self.compact();
        Ok(true)
    }

    /// Rewrites the journal if most of its records are outdated.
    fn compact(&mut self) {
        let records = self.journal.records();
        if records <= self.items.len() as u64 + STALE_WHILE_OPEN_MAX || records < self.compact_from {
            return;
        }
        let files = self.jobs.values().flat_map(|job| &job.files);
        let dropped = files.filter_map(|id| Some(&self.items.get(id)?.dropped));
        if !compact(&mut self.journal, dropped) {
            self.compact_from = records + STALE_WHILE_OPEN_MAX;
        }
    }

    /// Forgets the oldest restored files if there are more than [`SETTLED_MAX`].
    fn shrink(&mut self) {
        let mut too_many = self.done.saturating_sub(SETTLED_MAX);
        for job in self.jobs.values_mut() {
            if too_many == 0 {
                break;
            }
            let mut forgotten = Vec::new();
            job.files.retain(|id| {
                let goes = too_many > 0 && self.items.get(id).is_some_and(Item::is_done);
                if goes {
                    too_many -= 1;
                    forgotten.push(*id);
                }
                !goes
            });
            job.forgotten += forgotten.len() as u64;
            for id in forgotten {
                let Some(item) = self.items.remove(&id) else { continue };
                self.done -= 1;
                let (folder, name) = split(&item.dropped.path);
                let names = self.folders.get_mut(folder);
                if let Some(names) = names.filter(|names| names.get(name) == Some(&id)) {
                    names.remove(name);
                }
            }
        }
        self.folders.retain(|_, names| !names.is_empty());
    }

    /// Makes all states in the journal durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self) -> io::Result<()> {
        self.journal.sync()
    }
}

/// Rewrites the journal. Returns false if that failed; the old journal is then still used.
fn compact<'a>(journal: &mut Journal, dropped: impl Iterator<Item = &'a Dropped>) -> bool {
    let compacted = journal.compact(dropped);
    if let Err(error) = &compacted {
        tracing::warn!(%error, "the journal of the outbox could not be written anew, and goes on growing");
    }
    compacted.is_ok()
}

#[cfg(test)]
mod tests;
