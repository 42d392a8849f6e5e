//! Makes a snapshot of a source.
//!
//! ```text
//! walk ─► what changed ─► batches ─► splitters (one a core) ─► in order again ─► trees ─► snapshot
//! ```
//!
//! The walk and the trees are sequential; the splitters between them work in parallel. The number of batches in
//! progress is bounded, because results behind a giant file would otherwise pile up in memory. What did not change
//! since the previous snapshot is recognised on the walk (`unchanged`), and costs nothing after it.

mod batches;
mod before;
mod collection;
mod collections;
mod commit;
mod context;
mod describe;
mod folders;
pub mod splitter;
mod splitters;
pub mod tenant;
mod trees;
mod unchanged;
mod worker;

use self::batches::{Batch, Batches};
use self::before::Before;
use self::commit::{Made, commit, now};
use self::describe::{Lost, describe, entry_of, unknown_folder};
use self::trees::{Assembler, Surroundings, Trees};
use self::unchanged::Unchanged;
use self::worker::{Done, Worker};
use crate::backup::splitter::{Rules, Splitter};
use crate::format::entry::Entry;
use crate::format::id::{NodeId, SnapshotId};
use crate::format::snapshot::{Failure, Snapshot};
use crate::repository::local_state::{LocalError, LocalState};
use crate::repository::read_error::ReadError;
use crate::repository::reader::{CacheSizes, Reader};
use crate::repository::store::{Store, StoreError};
use crate::repository::{IndexSearch, Repository, RepositoryError};
use crate::runtime::guarded;
use crate::source::graph::GraphError;
use crate::source::{Meta, Source};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    let previous = before.latest(is_before).cloned();
    // Parts of the previous snapshot are taken over without a look only if everything that it needs is stored.
    let whole = previous.as_ref().filter(|(id, _)| local.is_whole(*id)).map(|(_, whole)| whole.directory().root.id);
    let previous = previous.map(|(_, snapshot)| snapshot);
    let root = source.root().map_err(BackupError::Source)?;
    let store = Arc::new(Store::new(repository.clone(), local, adopted));
    let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());

    let mut run = Run { repository, store: &store, set: &options.set, progress, cancel, lost: Lost::default() };
    let mut trees = run.trees(source, root.clone(), previous.as_ref(), whole, &reader);
    if let Err(BackupError::Repository(error)) = &trees
        && whole.is_some()
        && error.is_damage()
    {
        tracing::warn!(%error, "the previous snapshot is damaged; every item is looked at");
        run.lost = Lost::default();
        progress.items.store(0, Ordering::Relaxed);
        progress.bytes.store(0, Ordering::Relaxed);
        trees = run.trees(source, root, previous.as_ref(), None, &reader);
    }
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

impl Run<'_> {
    fn trees(
        &self,
        source: &mut dyn Source,
        root: Meta,
        previous: Option<&Snapshot>,
        whole: Option<NodeId>,
        reader: &Reader,
    ) -> Result<Trees, BackupError> {
        let splitters = std::thread::available_parallelism().map_or(1, usize::from);
        let rules = Rules::of(self.repository);
        let splitter = || Splitter::new(self.store.clone(), rules.clone());
        let mut root_entry = entry_of(&root, unknown_folder());
        self.lost.note(&root, b"");
        let mut root_splitter = splitter();
        describe(&mut root_entry, root, None, &mut root_splitter)?;
        root_splitter.flush()?;
        let (to_splitters, batches) = bounded::<Batch>(splitters);
        let (to_trees, done) = bounded(batches::UNDERWAY_MAX);
        std::thread::scope(|scope| {
            let walking = scope.spawn(move || self.walk(source, whole, &to_splitters));
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

    /// Walks the source, leaves out what did not change, and cuts the rest into batches. `whole` is the root of the
    /// previous snapshot's tree, if everything in it is stored.
    fn walk<'s>(
        &self,
        source: &'s mut dyn Source,
        whole: Option<NodeId>,
        output: &Sender<Batch>,
    ) -> io::Result<&'s dyn Source> {
        let (keys, local) = (self.repository.keys(), self.store.local());
        let mut unchanged = Unchanged::new(keys, local, self.set, self.progress, whole);
        let mut batches = Batches::new(output);
        let walked = source.walk(&mut |event| {
            if self.cancel.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            unchanged.take(event, &mut |step| batches.push(step))
        })?;
        if walked.is_continue() && unchanged.finish(&mut |step| batches.push(step)).is_continue() {
            let _ = batches.send();
        }
        Ok(source)
    }

    /// Turns batches into outcomes. An error or a panic ends the run, because the batch would be missing.
    fn split_batches(&self, splitter: Splitter, input: &Receiver<Batch>, output: &Sender<Result<Done, BackupError>>) {
        let mut worker = Worker::new(self, splitter);
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
        let around = Surroundings {
            store: self.store,
            keys: self.repository.keys(),
            node_size: self.repository.config().node_size,
            set: self.set,
            reader,
            previous: previous.map(Snapshot::directory),
        };
        let mut assembler = Assembler::new(around, root);
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
