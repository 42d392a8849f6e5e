//! Makes a snapshot of a source.
//!
//! ```text
//! walk ─► batches ─► splitters (one a core) ─► in order again ─► trees ─► snapshot
//! ```
//!
//! The walk and the trees are sequential; the splitters between them work in parallel. A batch holds neighbouring
//! items, so that they become neighbours in storage. The number of batches in progress is bounded, because results
//! behind a giant file would otherwise pile up in memory.

mod before;
mod collection;
mod collections;
mod commit;
mod context;
mod describe;
pub mod splitter;
mod splitters;
pub mod tenant;

use self::before::Before;
use self::commit::{Made, commit, is_whole, now};
use self::describe::{Lost, describe, entry_of, link_key};
use crate::CONTENT_LOG;
use crate::backup::splitter::{Split, SplitError, Splitter};
use crate::format::cbor;
use crate::format::chunker::Chunker;
use crate::format::crypto::Keys;
use crate::format::entry::system::SystemFacts;
use crate::format::entry::{self, Directory, Entry, EntryKind};
use crate::format::id::SnapshotId;
use crate::format::snapshot::{Failure, Snapshot};
use crate::repository::local_state::{LocalError, LocalState};
use crate::repository::read_error::ReadError;
use crate::repository::reader::{CacheSizes, Reader};
use crate::repository::store::{Store, StoreError};
use crate::repository::tree::build::Cutter;
use crate::repository::tree::{self, TreeBuilder};
use crate::repository::{IndexSearch, Repository, RepositoryError};
use crate::runtime::guarded;
use crate::source::graph::GraphError;
use crate::source::{Content, Event, Item, ItemKind, Meta, Source};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Maximum number of items in a batch.
const BATCH_ITEMS_MAX: usize = 64;
const BATCH_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of times that an item is read if it keeps changing while it is read.
const READINGS_MAX: usize = 3;
/// Maximum number of failures and remarks that a report lists. All failures are counted.
const REPORTED_MAX: usize = 100_000;
/// Maximum number of batches between the walk and the trees.
const BATCHES_UNDERWAY_MAX: usize = 256;

/// Why no snapshot was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The source cannot be walked.
    #[error("could not read what is to be backed up")]
    Source(#[source] io::Error),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Storing failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service could not be asked.
    #[error("could not ask Microsoft 365")]
    Graph(#[from] GraphError),
    /// The earlier snapshots of the set are of local files.
    #[error("the snapshots of the set {0} are not of an organisation; give this set another name")]
    OtherKind(String),
    /// The earlier snapshots of the set are of another organisation.
    #[error("the snapshots of the set {0} are of another organisation; give this set another name")]
    OtherTenant(String),
    /// The application may read no mailbox.
    #[error("the application may not read any of the mailboxes")]
    NothingAllowed,
    /// A fault of this program, which printed more on standard error.
    #[error("this program failed; please report what it said")]
    Fault,
    /// Somebody asked to stop. What was stored stays, so the next run has less to do.
    #[error("interrupted")]
    Interrupted,
}

impl From<LocalError> for BackupError {
    fn from(error: LocalError) -> Self {
        BackupError::Repository(error.into())
    }
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        BackupError::Repository(error.into())
    }
}

/// The settings of a backup run.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The name of the set.
    pub set: String,
    /// The name of this machine.
    pub host: String,
}

/// The progress of a run, for display.
#[derive(Debug, Default)]
pub struct Progress {
    /// Items done.
    pub items: AtomicU64,
    /// Bytes of items done.
    pub bytes: AtomicU64,
    /// The path of the item that was begun last.
    pub current: Mutex<Vec<u8>>,
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The id of the snapshot.
    pub id: SnapshotId,
    /// The snapshot itself.
    pub snapshot: Snapshot,
    /// The first items that could not be read. The summary of the snapshot has their number.
    pub failures: Vec<Failure>,
    /// Items that are never backed up because of their kind, each with the reason.
    pub skipped: Vec<(Vec<u8>, &'static str)>,
    /// Files that changed during each reading. The snapshot holds the bytes of the last reading.
    pub changing: Vec<Vec<u8>>,
    /// Other warnings for the user, about the source and the repository.
    pub warnings: Vec<String>,
}

/// Backs `source` up, and returns once the snapshot is durable.
///
/// # Errors
/// See [`BackupError`]. Then there is no new snapshot, and everything else is unchanged. Items that cannot be read are
/// no error: they are reported, and taken from the previous snapshot if it has them.
pub fn backup(
    repository: &Arc<Repository>,
    mut local: LocalState,
    source: &mut dyn Source,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Report, BackupError> {
    let started = now();
    let (before, adopted) = Before::look(repository, &mut local, started)?;
    // A set of another machine may have the same name. Its items must not stand in for items that cannot be read here.
    let is_before = |before: &Snapshot| before.set == options.set && before.host == options.host;
    let previous = before.latest(is_before).map(|(_, snapshot)| snapshot.clone());
    let root = source.root().map_err(BackupError::Source)?;
    let store = Arc::new(Store::new(repository.clone(), local, adopted));
    let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());

    let run = Run { repository, store: &store, set: &options.set, progress, cancel, lost: Lost::default() };
    let trees = run.trees(source, root, previous.as_ref(), &reader);
    let warnings = run.lost.into_warnings();
    let store = Arc::into_inner(store).expect("the threads of the run have ended");
    let trees = match trees {
        Ok(trees) => trees,
        Err(error) => {
            // Keep what was stored for the next run. The error that ended this run is the one to report.
            return Err(match (store.finish(), error) {
                (Err(first), BackupError::Store(StoreError::GivenUp)) => first.into(),
                (_, error) => error,
            });
        }
    };
    let (local, stored) = store.finish()?;
    let Trees { root, failed, failures, skipped, changing } = trees;
    let warnings = before.warnings.iter().cloned().chain(warnings).collect();
    let made = Made {
        started,
        before,
        previous,
        root,
        failed,
        failures: &failures,
        source_state: BTreeMap::new(),
        source_parts: None,
        stored,
        whole: true,
    };
    let (id, snapshot) = commit(repository, &local, &reader, options, made)?;
    Ok(Report { id, snapshot, failures, skipped, changing, warnings })
}

struct Run<'a> {
    repository: &'a Arc<Repository>,
    store: &'a Arc<Store>,
    set: &'a str,
    progress: &'a Progress,
    cancel: &'a AtomicBool,
    lost: Lost,
}

/// The result of the walk.
struct Trees {
    root: Entry,
    failed: u64,
    failures: Vec<Failure>,
    skipped: Vec<(Vec<u8>, &'static str)>,
    changing: Vec<Vec<u8>>,
}

struct Batch {
    number: u64,
    events: Vec<Event>,
    /// Released when the trees have taken the batch.
    _ticket: Ticket,
}

/// A place among the batches in progress.
struct Ticket(Receiver<()>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// The result of an event.
enum Outcome {
    /// A folder. Its tree is not known before its end.
    Enter {
        entry: Box<Entry>,
    },
    Leave,
    /// An entry. `changing` is its path if the item kept changing while it was read.
    Entry {
        entry: Box<Entry>,
        changing: Option<Vec<u8>>,
    },
    Failed {
        path: Vec<u8>,
        error: String,
    },
    Skipped {
        path: Vec<u8>,
        reason: &'static str,
    },
}

struct Done {
    number: u64,
    outcomes: Vec<Outcome>,
    _ticket: Ticket,
}

impl Run<'_> {
    fn trees(
        &self,
        source: &mut dyn Source,
        root: Meta,
        previous: Option<&Snapshot>,
        reader: &Reader,
    ) -> Result<Trees, BackupError> {
        let splitters = std::thread::available_parallelism().map_or(1, usize::from);
        let chunker = Arc::new(Chunker::new(self.repository.config().chunker, self.repository.keys()));
        let splitter = || Splitter::new(self.store.clone(), self.repository.keys().clone(), chunker.clone());
        let mut root_entry = entry_of(&root, unknown_folder());
        self.lost.note(&root, b"");
        let mut root_splitter = splitter();
        describe(&mut root_entry, root, None, &mut root_splitter)?;
        root_splitter.flush()?;
        let (to_splitters, batches) = bounded::<Batch>(splitters);
        let (to_trees, done) = bounded(BATCHES_UNDERWAY_MAX);
        std::thread::scope(|scope| {
            let walking = scope.spawn(move || self.walk(source, &to_splitters));
            let working: Vec<_> = (0..splitters)
                .map(|_| {
                    let (batches, to_trees) = (batches.clone(), to_trees.clone());
                    let splitter = splitter();
                    scope.spawn(move || self.split_batches(splitter, &batches, &to_trees))
                })
                .collect();
            drop((batches, to_trees));
            let trees = self.assemble(root_entry, &done, previous, reader);
            // If this stage gave up, dropping the receiver ends the stages before it.
            drop(done);
            let walked = walking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for worker in working {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            if self.cancel.load(Ordering::Relaxed) {
                return Err(BackupError::Interrupted);
            }
            walked.and_then(|source| source.finish()).map_err(BackupError::Source)?;
            trees
        })
    }

    /// Cuts the walk into batches.
    fn walk<'s>(&self, source: &'s mut dyn Source, output: &Sender<Batch>) -> io::Result<&'s dyn Source> {
        let (take_ticket, tickets) = bounded(BATCHES_UNDERWAY_MAX);
        let mut number = 0;
        let mut events = Vec::new();
        let (mut items, mut bytes) = (0, 0);
        let mut send = |events: &mut Vec<Event>| {
            if take_ticket.send(()).is_err() || self.cancel.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            let batch = Batch { number, events: std::mem::take(events), _ticket: Ticket(tickets.clone()) };
            number += 1;
            if output.send(batch).is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let walked = source.walk(&mut |event| {
            if let Event::Item(item) = &event
                && let ItemKind::File { content, .. } = &item.kind
            {
                bytes += content.len_hint() + item.path.len() as u64;
            }
            items += 1;
            events.push(event);
            if items < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
                return ControlFlow::Continue(());
            }
            (items, bytes) = (0, 0);
            send(&mut events)
        })?;
        if walked.is_continue() && !events.is_empty() {
            let _ = send(&mut events);
        }
        Ok(source)
    }

    /// Turns batches into outcomes. An error or a panic ends the run, because the batch would be missing.
    fn split_batches(&self, splitter: Splitter, input: &Receiver<Batch>, output: &Sender<Result<Done, BackupError>>) {
        let keys = self.repository.keys();
        let mut worker = Worker { run: self, keys, splitter, facts: Vec::new() };
        for batch in input {
            let done = guarded(|| worker.batch(batch)).unwrap_or(Err(BackupError::Fault));
            // The run was cancelled, so readings ended early and their failures are not real.
            let done = if self.cancel.load(Ordering::Relaxed) { Err(BackupError::Interrupted) } else { done };
            let ends = done.is_err();
            if output.send(done).is_err() || ends {
                break;
            }
        }
    }

    /// Builds the trees from the outcomes, in the order of the walk.
    fn assemble(
        &self,
        root: Entry,
        done: &Receiver<Result<Done, BackupError>>,
        previous: Option<&Snapshot>,
        reader: &Reader,
    ) -> Result<Trees, BackupError> {
        let cutter = Cutter::new(self.repository.keys(), self.repository.config().node_size);
        let mut assembler = Assembler {
            store: self.store,
            cutter,
            reader,
            previous: previous.map(Snapshot::directory),
            folders: vec![(root, TreeBuilder::new(cutter))],
            failed: 0,
            failures: Vec::new(),
            skipped: Vec::new(),
            changing: Vec::new(),
        };
        let mut next = 0;
        let mut early = BTreeMap::new();
        for batch in done {
            let batch = batch?;
            early.insert(batch.number, batch);
            while let Some(batch) = early.remove(&next) {
                batch.outcomes.into_iter().try_for_each(|outcome| assembler.take(outcome))?;
                next += 1;
            }
        }
        if self.cancel.load(Ordering::Relaxed) || !early.is_empty() {
            return Err(BackupError::Interrupted);
        }
        assembler.finish()
    }
}

/// A thread's state for turning items into entries.
struct Worker<'a> {
    run: &'a Run<'a>,
    keys: &'a Keys,
    splitter: Splitter,
    /// Facts to store once the chunks of the batch were handed to the store.
    facts: Vec<([u8; 32], Vec<u8>)>,
}

impl Worker<'_> {
    fn batch(&mut self, batch: Batch) -> Result<Done, BackupError> {
        let Batch { number, events, _ticket } = batch;
        let outcomes = events.into_iter().map(|event| self.process(event)).collect::<Result<_, _>>()?;
        self.finish_batch()?;
        Ok(Done { number, outcomes, _ticket })
    }

    fn process(&mut self, event: Event) -> Result<Outcome, StoreError> {
        Ok(match event {
            Event::Enter { meta, path } => {
                self.run.lost.note(&meta, &path);
                let mut entry = entry_of(&meta, unknown_folder());
                describe(&mut entry, meta, None, &mut self.splitter)?;
                Outcome::Enter { entry: Box::new(entry) }
            }
            Event::Leave => Outcome::Leave,
            Event::Failed { path, error, .. } => Outcome::Failed { path, error },
            Event::Skipped { path, reason } => Outcome::Skipped { path, reason },
            Event::Item(item) => {
                let path = item.path.clone();
                self.run.progress.current.lock().clone_from(&path);
                // A fault of this program in one item must not stop the backup of all others.
                let made = guarded(|| self.entry(*item));
                match made.unwrap_or_else(|fault| Err(SplitError::Item(io::Error::other(fault)))) {
                    Ok((entry, stable)) => {
                        self.run.progress.items.fetch_add(1, Ordering::Relaxed);
                        self.run.progress.bytes.fetch_add(entry.sums().bytes, Ordering::Relaxed);
                        Outcome::Entry { entry: Box::new(entry), changing: (!stable).then_some(path) }
                    }
                    // The item was deleted after the walk saw it. It is left out, as if the walk had come later.
                    Err(SplitError::Item(error)) if error.kind() == io::ErrorKind::NotFound => {
                        Outcome::Skipped { path, reason: "deleted before it was read" }
                    }
                    Err(SplitError::Item(error)) => Outcome::Failed { path, error: error.to_string() },
                    Err(SplitError::Store(error)) => return Err(error),
                }
            }
        })
    }

    /// Returns the entry of an item, and whether its bytes are certainly from one moment.
    fn entry(&mut self, item: Item) -> Result<(Entry, bool), SplitError> {
        let Item { meta, path, kind, facts } = item;
        let (content, fingerprint) = match kind {
            ItemKind::File { content, fingerprint } => (Cancellable { content, cancel: self.run.cancel }, fingerprint),
            other => {
                let (kind, special) = match other {
                    ItemKind::Symlink(target) => (EntryKind::Symlink(target), None),
                    // Versions that do not know special files see an empty file.
                    ItemKind::Special(special) => (EntryKind::File(entry::Content::default()), Some(special)),
                    ItemKind::File { .. } => unreachable!("taken above"),
                };
                self.run.lost.note(&meta, &path);
                let mut entry = entry_of(&meta, kind);
                describe(&mut entry, meta, special, &mut self.splitter)?;
                return Ok((entry, true));
            }
        };
        // A file with several names is read once, under the first of them.
        let key = match meta.link {
            Some(link) => self.keys.local_path(self.run.set, &link_key(link)),
            None => self.keys.local_path(self.run.set, &path),
        };
        if let Some(known) = self.unchanged(&key, &fingerprint)? {
            // The name, owner and permissions may have changed although the content is the same.
            let Entry { kind, facts, contents, system, .. } = known;
            let attributes = system.map(|system| system.attributes).unwrap_or_default();
            let mut entry = Entry { facts, contents, ..entry_of(&meta, kind) };
            entry.set_system(SystemFacts { attributes, special: None, link: meta.link });
            return Ok((entry, true));
        }
        let (split, stamp) = self.split(&content)?;
        // The facts of the open file whose bytes were read.
        let meta = content.meta().unwrap_or(meta);
        let is_lacking = self.run.lost.note(&meta, &path);
        let mut entry = entry_of(&meta, EntryKind::File(split.content));
        entry.set_text(split.text);
        entry.facts = split.facts.or(facts);
        describe(&mut entry, meta, None, &mut self.splitter)?;
        if !is_lacking && !fingerprint.is_empty() && stamp.as_ref() == Some(&fingerprint) {
            self.facts.push((key, remembered(&fingerprint, &entry)));
        }
        Ok((entry, stamp.is_some()))
    }

    /// Splits an item. Also returns its stamp if it did not change during the reading. An item that changed is read
    /// again.
    fn split(&mut self, content: &dyn Content) -> Result<(Split, Option<Vec<u8>>), SplitError> {
        let mut readings = 0;
        loop {
            let split = self.splitter.split(content)?;
            readings += 1;
            let (before, after) = content.stamps();
            let stayed = before == after;
            if stayed || readings == READINGS_MAX {
                return Ok((split, stayed.then_some(after)));
            }
        }
    }

    /// Returns the remembered entry of a file if its fingerprint is unchanged and its content is stored.
    fn unchanged(&self, key: &[u8; 32], fingerprint: &[u8]) -> Result<Option<Entry>, StoreError> {
        if fingerprint.is_empty() {
            return Ok(None);
        }
        let Some(bytes) = self.run.store.local().facts(key) else { return Ok(None) };
        let Some((found, entry)) = bytes.split_at_checked(fingerprint.len()) else { return Ok(None) };
        let Ok(entry) = Entry::read(&mut cbor::Reader::new(entry)) else { return Ok(None) };
        // The remembered chunks may have been pruned, or may never have become durable.
        let mut complete = found == fingerprint && entry.content().is_some();
        for segment in entry.all_contents().flat_map(|content| &content.segments) {
            complete = complete && self.run.store.has_segment(segment)?;
        }
        Ok(complete.then_some(entry))
    }

    fn finish_batch(&mut self) -> Result<(), StoreError> {
        self.splitter.flush()?;
        let facts = self.facts.iter().map(|(key, value)| (key, value.as_slice()));
        self.run.store.local().put_facts(facts)?;
        self.facts.clear();
        Ok(())
    }
}

/// Content whose reading ends when the run is cancelled. Reading a giant file could take hours.
struct Cancellable<'a, T> {
    content: T,
    cancel: &'a AtomicBool,
}

impl Content for Cancellable<'_, Box<dyn Content>> {
    fn len_hint(&self) -> u64 {
        self.content.len_hint()
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Cancellable { content: self.content.open()?, cancel: self.cancel }))
    }

    fn stamps(&self) -> (Vec<u8>, Vec<u8>) {
        self.content.stamps()
    }

    fn is_mail(&self) -> bool {
        self.content.is_mail()
    }

    fn meta(&self) -> Option<Meta> {
        self.content.meta()
    }
}

impl Read for Cancellable<'_, Box<dyn Read + '_>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            // `ErrorKind::Interrupted` would make readers try again.
            return Err(io::Error::other("interrupted"));
        }
        self.content.read(buffer)
    }
}

/// Returns the kind of a folder's entry until its tree is made.
fn unknown_folder() -> EntryKind {
    EntryKind::Symlink(Box::default())
}

fn remembered(fingerprint: &[u8], entry: &Entry) -> Vec<u8> {
    let mut bytes = fingerprint.to_vec();
    bytes.extend(entry.encode());
    bytes
}

/// Builds trees from outcomes.
struct Assembler<'a> {
    store: &'a Store,
    cutter: Cutter<'a>,
    reader: &'a Reader,
    previous: Option<&'a Directory>,
    /// The folders from the root to the current position of the walk.
    folders: Vec<(Entry, TreeBuilder<'a>)>,
    failed: u64,
    failures: Vec<Failure>,
    skipped: Vec<(Vec<u8>, &'static str)>,
    changing: Vec<Vec<u8>>,
}

impl Assembler<'_> {
    fn take(&mut self, outcome: Outcome) -> Result<(), BackupError> {
        match outcome {
            Outcome::Enter { entry } => self.folders.push((*entry, TreeBuilder::new(self.cutter))),
            Outcome::Leave => {
                let (mut entry, builder) = self.folders.pop().expect("a walk leaves only what it entered");
                entry.kind = EntryKind::Directory(builder.finish(&mut self.store)?);
                self.push(entry)?;
            }
            Outcome::Entry { entry, changing } => {
                self.changing.extend(changing.filter(|_| self.changing.len() < REPORTED_MAX));
                self.push(*entry)?;
            }
            Outcome::Failed { path, error } => {
                let carried = self.carry_over(&path)?;
                let shown = String::from_utf8_lossy(&path);
                tracing::debug!(target: CONTENT_LOG, path = %shown, error, carried, "could not be read");
                self.failed += 1;
                if self.failures.len() < REPORTED_MAX {
                    self.failures.push(Failure { path, error });
                }
            }
            Outcome::Skipped { path, reason } if self.skipped.len() < REPORTED_MAX => self.skipped.push((path, reason)),
            Outcome::Skipped { .. } => {}
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), BackupError> {
        let (_, builder) = self.folders.last_mut().expect("a walk does not leave its root");
        Ok(builder.push(entry, &mut self.store)?)
    }

    /// Takes an item that cannot be read from the previous snapshot, if that has it.
    fn carry_over(&mut self, path: &[u8]) -> Result<bool, BackupError> {
        let Some(previous) = self.previous else { return Ok(false) };
        // If the previous snapshot is damaged, nothing is carried over, and the run goes on.
        let Ok(Some(found)) = tree::find_path(self.reader, previous, path) else { return Ok(false) };
        let entry = found.entry().clone();
        if !is_whole(&entry, self.store, self.reader) {
            return Ok(false);
        }
        self.push(entry)?;
        Ok(true)
    }

    fn finish(mut self) -> Result<Trees, BackupError> {
        let (mut root, builder) = self.folders.pop().expect("a walk does not leave its root");
        root.kind = EntryKind::Directory(builder.finish(&mut self.store)?);
        let Self { failed, failures, skipped, changing, .. } = self;
        Ok(Trees { root, failed, failures, skipped, changing })
    }
}
