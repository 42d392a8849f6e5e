//! Makes a snapshot of an organisation: backs up many users at a time, as far as they have changed.
//!
//! ```text
//! users ─► each user's collections (many users at a time) ─► the user's folder ─► all users ─► root ─► snapshot
//! ```
//!
//! A run starts from the previous snapshot of the set. Its trees hold the ids and versions of all items, and its state
//! holds the links that tell changes. So any machine can continue, and an unchanged folder costs one request.
//!
//! `backup::collection` lists the promises that hold for each collection, whatever the service answers.
//! `organisation` goes through the users, `user` backs up one of them, `gathered` collects what became of them, and
//! `working` decides how many are worked on at a time.

mod gathered;
mod organisation;
pub mod state;
mod user;
mod working;

pub use super::collections::contacts::CONTACTS;
pub use super::context::{OUTLOOK, REPORT_NAME, TenantOptions, USERS};

use self::organisation::{Organisation, Whole};
use self::state::{Ledger, TenantState};
use super::before::Before;
use super::commit::{Made, commit, now};
use super::context::Context;
use super::splitters::Splitters;
use super::{BackupError, Progress};
use crate::format::entry::Timestamp;
use crate::format::id::SnapshotId;
use crate::format::snapshot::{Failure, Snapshot};
use crate::repository::local_state::LocalState;
use crate::repository::reader::{CacheSizes, Reader};
use crate::repository::store::{Store, StoreError, StoredBytes};
use crate::repository::{IndexSearch, Repository};
use crate::source::graph::{Client, Counters};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Maximum number of threads that split, read and build trees. The allocator keeps memory for each thread.
const BLOCKING_THREADS_MAX: usize = 6;
/// Time between two checks of whether the run was cancelled.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The usual value of [`TenantOptions::listed_anew`]: 30 days.
pub const LISTED_ANEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a run did.
#[derive(Debug, Clone)]
pub struct TenantReport {
    /// The id of the snapshot.
    pub id: SnapshotId,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Items, folders and mailboxes that could not be read. If there are very many, only some are named; the summary
    /// has their number.
    pub failures: Vec<Failure>,
    /// What people should know although nothing failed.
    pub warnings: Vec<String>,
    /// Mailboxes that were passed over, with the reason.
    pub skipped: Vec<(String, String)>,
    /// What became of every item.
    pub ledger: Ledger,
    /// What went over the network.
    pub counters: Counters,
}

/// What a run starts from: the previous snapshot of the set.
struct Start {
    previous: Option<Snapshot>,
    state: TenantState,
    /// True if every pack that the previous snapshot needs still exists. Then its references need no check one by one.
    is_trusted: bool,
}

impl Start {
    fn of(standing: &Before, local: &LocalState, set: &str) -> Result<Self, BackupError> {
        let Some((id, previous)) = standing.latest(|before| before.set == set) else {
            return Ok(Self { previous: None, state: TenantState::default(), is_trusted: false });
        };
        let state = TenantState::of(previous).ok_or_else(|| BackupError::OtherKind(set.to_owned()))?;
        Ok(Self { previous: Some(previous.clone()), state, is_trusted: local.is_whole(*id) })
    }
}

/// Backs up the organisation behind `client`, and returns once the snapshot is durable.
///
/// # Errors
/// See [`BackupError`]; then there is no snapshot, and what was stored spares the next run the work. A failure of one
/// item, folder or mailbox is only reported, and the snapshot has it as the previous one had it.
pub fn backup_tenant(
    repository: &Arc<Repository>,
    mut local: LocalState,
    client: Client,
    options: TenantOptions,
    progress: Arc<Progress>,
    cancel: Arc<AtomicBool>,
) -> Result<TenantReport, BackupError> {
    let started = now();
    let runtime = new_runtime()?;
    let (standing, adopted) = Before::look(repository, &mut local, started)?;
    local.clear_aside(None)?;
    let Start { previous, state, is_trusted } = Start::of(&standing, &local, &options.backup.set)?;
    let reader = Arc::new(repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default()));
    let store = Arc::new(Store::new(repository.clone(), local, adopted));
    let context = Arc::new(Context {
        repository: repository.clone(),
        splitters: Arc::new(Splitters::new(repository, &store)),
        store: store.clone(),
        reader: reader.clone(),
        client: client.clone(),
        options: options.clone(),
        started,
        progress,
        cancel,
        next_area: AtomicU64::new(1),
        parts_before: previous.as_ref().and_then(|before| before.source_parts),
        states: 0,
    });
    let whole = run(runtime, context, previous.clone(), state, is_trusted);
    let finished = finish(store, whole)?;
    let standing = Standing { repository, reader: &reader, options: &options, started, before: standing, previous };
    standing.commit(finished, &client)
}

fn new_runtime() -> Result<Runtime, BackupError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(BackupError::Source)
}

/// Backs up the users until that is done or somebody asks to stop. When it returns, nothing works for the run any more.
fn run(
    runtime: Runtime,
    context: Arc<Context>,
    previous: Option<Snapshot>,
    state: TenantState,
    is_trusted: bool,
) -> Result<Whole, BackupError> {
    let organisation = Organisation::new(context.clone(), previous, is_trusted)?;
    runtime.block_on(async {
        tokio::select! {
            whole = organisation.back_up(state) => whole,
            () = cancelled(&context.cancel) => {
                context.client.cancel();
                Err(BackupError::Interrupted)
            }
        }
    })
}

/// A run whose content is durable.
struct Finished {
    whole: Whole,
    local: LocalState,
    stored: StoredBytes,
}

/// Makes what was stored durable, also if the run failed: that spares the next run the work.
fn finish(store: Arc<Store>, whole: Result<Whole, BackupError>) -> Result<Finished, BackupError> {
    let store = Arc::into_inner(store).expect("nothing works for the run any more");
    match whole {
        Ok(whole) => {
            let (local, stored) = store.finish()?;
            local.clear_aside(None)?;
            Ok(Finished { whole, local, stored })
        }
        Err(error) => Err(match (store.finish(), error) {
            // The store gave up because of an error that only `finish` returns.
            (Err(first), BackupError::Store(StoreError::GivenUp)) => first.into(),
            (_, error) => error,
        }),
    }
}

/// What a snapshot is committed to.
struct Standing<'a> {
    repository: &'a Arc<Repository>,
    reader: &'a Reader,
    options: &'a TenantOptions,
    started: Timestamp,
    before: Before,
    previous: Option<Snapshot>,
}

impl Standing<'_> {
    /// Writes the snapshot, and reports what the run did.
    fn commit(self, finished: Finished, client: &Client) -> Result<TenantReport, BackupError> {
        let Finished { whole: Whole { root, parts, parts_bytes, gathered }, local, stored } = finished;
        let warnings = self.before.warnings.iter().cloned().chain(gathered.warnings).collect();
        let made = Made {
            started: self.started,
            before: self.before,
            previous: self.previous,
            root,
            failed: gathered.failed,
            failures: &gathered.failures,
            source_state: gathered.state.encode(),
            source_parts: Some(parts),
            // The states belong to the snapshot, not to what was backed up.
            stored: StoredBytes { added_bytes: stored.added_bytes - parts_bytes, ..stored },
            whole: gathered.is_whole,
        };
        let (id, snapshot) = commit(self.repository, &local, self.reader, &self.options.backup, made)?;
        // The snapshot has what this machine remembered of the run. If it cannot forget that, nothing is lost.
        let mut forgotten = gathered.finished.iter().try_for_each(|owner| local.drop_unfinished(owner));
        forgotten = forgotten.and_then(|()| local.flush());
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the local state could not be written");
        }
        Ok(TenantReport {
            id,
            snapshot,
            failures: gathered.failures,
            warnings,
            skipped: gathered.skipped,
            ledger: gathered.state.ledger,
            counters: client.counters(),
        })
    }
}

/// Returns when somebody has asked to stop.
async fn cancelled(cancel: &AtomicBool) {
    while !cancel.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCEL_POLL_INTERVAL).await;
    }
}
