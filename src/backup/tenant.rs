//! Makes a snapshot of an organisation: of what its users have, many users at a time, as far as it has changed.
//!
//! ```text
//! users ─► each user's collections (concurrently) ─► the user's folder ─► all users ─► root ─► snapshot
//! ```
//!
//! The snapshot before is what a run starts from: its trees hold ids and versions of everything, its source state the
//! links that tell changes. So any machine can continue, and what did not change costs one request a folder.
//!
//! What holds for each collection, whatever the service answers, stands in `backup::collection`.

pub mod state;
mod user;

pub use super::context::{OUTLOOK, REPORT_NAME, TenantOptions, USERS};

use self::state::{Ledger, MailboxState, TenantState};
use self::user::{Kept, Outcome};
use super::before::Before;
use super::commit::{Made, commit, is_whole, now};
use super::context::Context;
use super::splitters::Splitters;
use super::{BackupError, Progress};
use crate::content::names::{UniqueNames, safe_name};
use crate::format::entry::{Directory, Entry, EntryKind, Timestamp};
use crate::format::id::SnapshotId;
use crate::format::snapshot::{Failure, ROOT_NAME, Snapshot};
use crate::repository::local_state::LocalState;
use crate::repository::reader::CacheSizes;
use crate::repository::store::{Store, StoreError, Stored};
use crate::repository::tree;
use crate::repository::{IndexSearch, Repository};
use crate::source::graph::directory::{self, User};
use crate::source::graph::{Client, Counters, ErrorKind};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Threads that split, read and build trees; of more the allocator keeps memory for each.
const BLOCKING_THREADS_MAX: usize = 6;
/// Maximum number of failures of a run that are reported by name.
const FAILURES_NAMED_MAX: usize = 10_000;
/// Time between two looks at whether the run was cancelled.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks at whether all mailboxes wait.
const PAUSE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Minimum pause for which another mailbox is begun.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// How many times `mailboxes_at_once` may be under way while all of them wait for the limits of the service. It is low,
/// because each mailbox takes memory: up to 4 MiB with twenty thousand messages.
const MAILBOXES_WAITING_MAX: usize = 2;
/// The usual value of [`TenantOptions::listed_anew`]: 30 days.
pub const LISTED_ANEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a run did.
#[derive(Debug, Clone)]
pub struct TenantReport {
    /// The snapshot.
    pub id: SnapshotId,
    /// What stands in it.
    pub snapshot: Snapshot,
    /// Items, folders and mailboxes that could not be read, by name as far as there are not too many of them; the
    /// summary has their number.
    pub failures: Vec<Failure>,
    /// What somebody should know although nothing failed.
    pub warnings: Vec<String>,
    /// Mailboxes that were passed over, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Where every item went.
    pub ledger: Ledger,
    /// What it took.
    pub counters: Counters,
}

/// Backs the organisation behind `client` up, and returns once the snapshot is durable.
///
/// # Errors
/// See [`BackupError`]; there is no snapshot then, and what was stored spares the next run the work. What fails for an
/// item, a folder or a mailbox alone is reported, and stands as the snapshot before has it.
pub fn backup_tenant(
    repository: &Arc<Repository>,
    mut local: LocalState,
    client: Client,
    options: TenantOptions,
    progress: Arc<Progress>,
    cancel: Arc<AtomicBool>,
) -> Result<TenantReport, BackupError> {
    let started = now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(BackupError::Source)?;
    let (standing, adopted) = Before::look(repository, &mut local, started)?;
    local.clear_aside(None)?;
    let previous = standing.latest(|before| before.set == options.backup.set).cloned();
    let state = match &previous {
        Some((_, before)) => {
            TenantState::of(before).ok_or_else(|| BackupError::OtherKind(options.backup.set.clone()))?
        }
        None => TenantState::default(),
    };
    // What every pack of was there when it was made, and since, needs no proof piece by piece.
    let trusted = previous.as_ref().is_some_and(|(id, _)| local.is_whole(*id));
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
        parts_before: previous.as_ref().and_then(|(_, before)| before.source_parts),
        states: 0,
    });
    let before = previous.map(|(_, snapshot)| snapshot);
    let run = Run { context: context.clone(), before: before.clone(), state, trusted, users: UsersBefore::new() };
    let made = runtime.block_on(async {
        tokio::select! {
            made = run.make() => made,
            () = cancelled(&context.cancel) => {
                client.cancel();
                Err(BackupError::Interrupted)
            }
        }
    });
    // Ends what still works for the run, so that the store can be finished.
    drop(runtime);
    drop(context);
    let store = Arc::into_inner(store).expect("nothing of the run is left");
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            // What was stored is kept for the next run; the error that ended this one is the one to tell.
            return Err(match (store.finish(), error) {
                (Err(first), BackupError::Store(StoreError::GivenUp)) => first.into(),
                (_, error) => error,
            });
        }
    };
    let (local, stored) = store.finish()?;
    local.clear_aside(None)?;
    let Whole { root, state, parts, parts_bytes, whole, failed, failures, warnings, skipped, finished, .. } = made;
    let ledger = state.ledger;
    // They belong to the snapshot, not to what was backed up.
    let stored = Stored { added_bytes: stored.added_bytes - parts_bytes, ..stored };
    let warnings = standing.warnings.iter().cloned().chain(warnings).collect();
    let made = Made {
        started,
        before: standing,
        previous: before,
        root,
        failed,
        failures: &failures,
        source_state: state.encode(),
        source_parts: parts,
        stored,
        whole,
    };
    let (id, snapshot) = commit(repository, &local, &reader, &options.backup, made)?;
    // It stands in the snapshot now, whatever becomes of what this machine remembers.
    if let Err(error) = finished.iter().try_for_each(|owner| local.drop_unfinished(owner)).and_then(|()| local.flush())
    {
        tracing::warn!(%error, "the local state could not be written");
    }
    Ok(TenantReport { id, snapshot, failures, warnings, skipped, ledger, counters: client.counters() })
}

/// The users' folders in the snapshot before, by the ids of the users, and whether everything under them is stored.
type UsersBefore = BTreeMap<String, (Entry, bool)>;

struct Run {
    context: Arc<Context>,
    before: Option<Snapshot>,
    state: TenantState,
    trusted: bool,
    users: UsersBefore,
}

/// Mailboxes at work: as many as are asked for, and more where all of them have to wait for the service's limits, for
/// as long as `pause` says.
struct Working<I, F, P> {
    waiting: I,
    running: FuturesUnordered<F>,
    at_once: usize,
    pause: P,
}

impl<I: Iterator<Item = F>, F: Future, P: Fn() -> Option<Duration>> Working<I, F, P> {
    fn new(waiting: I, at_once: usize, pause: P) -> Self {
        Self { waiting, running: FuturesUnordered::new(), at_once, pause }
    }

    /// Returns the outcome of the mailbox that is done first.
    async fn next(&mut self) -> Option<F::Output> {
        loop {
            let missing = self.at_once.saturating_sub(self.running.len());
            self.running.extend(self.waiting.by_ref().take(missing));
            tokio::select! {
                outcome = self.running.next() => return outcome,
                () = tokio::time::sleep(PAUSE_POLL_INTERVAL) => {}
            }
            let idle = (self.pause)().is_some_and(|pause| pause >= PAUSE_MIN);
            if idle && self.running.len() < self.at_once * MAILBOXES_WAITING_MAX {
                self.running.extend(self.waiting.by_ref().take(self.at_once));
            }
        }
    }
}

/// Everything that the snapshot is made of.
struct Whole {
    root: Entry,
    state: TenantState,
    /// The states of the mailboxes, and how many bytes of them are new.
    parts: Option<Directory>,
    parts_bytes: u64,
    /// Whether everything that is carried over is stored.
    whole: bool,
    /// How many items, folders and mailboxes could not be read.
    failed: u64,
    /// The first of them.
    failures: Vec<Failure>,
    warnings: Vec<String>,
    skipped: Vec<(String, String)>,
    /// Under which names this machine remembers what it read of the mailboxes that are in the snapshot now.
    finished: Vec<[u8; 32]>,
    /// What items lack that the set asks for.
    lacking: BTreeMap<&'static str, Lacking>,
}

/// What items of several users lack.
#[derive(Default)]
struct Lacking {
    /// How many users have such items.
    mailboxes: u64,
    /// How many items these are.
    items: u64,
    /// Why the first of them lacks it.
    why: Option<String>,
}

impl Whole {
    /// Notes what items of a user lack.
    fn note_lacking(&mut self, lacking: user::Lacking) {
        let all = self.lacking.entry(lacking.what).or_default();
        all.mailboxes += u64::from(lacking.items > 0);
        all.items += lacking.items;
        all.why = all.why.take().or(lacking.why);
    }

    /// Says what items lack.
    fn warn_of_lacking(&mut self) {
        for (what, Lacking { mailboxes, items, why }) in std::mem::take(&mut self.lacking) {
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            if items > 0 {
                self.warnings.push(format!(
                    "{items} messages in {mailboxes} mailboxes are kept without {what}; later runs try again{why}"
                ));
            }
        }
    }
}

/// A mailbox to be worked on.
struct Account {
    user: User,
    /// The name of the user's folder.
    name: String,
    /// The user's folder in the snapshot before, and whether everything under it is stored.
    standing: Option<(Entry, bool)>,
}

impl Run {
    async fn make(mut self) -> Result<Whole, BackupError> {
        let tenant = match directory::organization(&self.context.client).await {
            Ok(organization) => Some(organization.id),
            // Knowing the organisation only guards against mixing two up.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::MissingPermission) => None,
            Err(error) => return Err(error.into()),
        };
        if let (Some(before), Some(now)) = (&self.state.tenant, &tenant)
            && before != now
        {
            return Err(BackupError::OtherTenant(self.context.options.backup.set.clone()));
        }
        let users = directory::users(&self.context.client).await?;
        let mut whole = Whole {
            root: Entry::new(ROOT_NAME, EntryKind::Symlink(Box::default()), Timestamp::default()),
            state: TenantState { tenant: tenant.or(self.state.tenant.take()), ledger: Ledger::default() },
            parts: None,
            parts_bytes: 0,
            whole: true,
            failed: 0,
            failures: Vec::new(),
            warnings: Vec::new(),
            skipped: Vec::new(),
            finished: Vec::new(),
            lacking: BTreeMap::new(),
        };
        self.users = self.users_before()?;
        let mut accounts = self.accounts(users)?;
        if accounts.is_empty() {
            whole.warnings.push("the set takes no user at all".to_owned());
        }
        // The largest first, so that none of them is left alone at the end; what is new may be large.
        accounts.sort_by_key(|account| {
            let known = account.standing.as_ref().and_then(|(entry, _)| entry.directory());
            std::cmp::Reverse(known.map_or(u64::MAX, |dir| dir.sums.files))
        });
        let mut entries = BTreeMap::new();
        self.keep_the_gone(&accounts, &mut whole, &mut entries)?;
        let context = &self.context;
        let mut denied = 0;
        let mut backed_up = 0;
        {
            let working = accounts.into_iter().map(|account| user::back_up(context.clone(), account));
            let mut working = Working::new(working, context.options.mailboxes_at_once, || context.client.pause());
            while let Some(outcome) = working.next().await {
                let outcome = outcome?;
                context.check()?;
                denied += usize::from(outcome.denied);
                backed_up += usize::from(matches!(outcome.kept, Kept::Made(_)));
                self.take(outcome, &mut whole, &mut entries)?;
            }
        }
        if denied > 0 && backed_up == 0 {
            // Not one mailbox may be read: that is no policy but a missing permission.
            return Err(BackupError::NothingAllowed);
        }
        whole.warn_of_lacking();
        whole.failures.sort_by(|a, b| a.path.cmp(&b.path));
        whole.warnings.sort();
        whole.skipped.sort();
        whole.root = self.root(entries)?;
        let before = context.store.stored().added_bytes;
        let storing = context.splitters.run({
            let context = context.clone();
            move |splitter| context.store_states(splitter)
        });
        whole.parts = Some(storing.await?);
        whole.parts_bytes = context.store.stored().added_bytes - before;
        Ok(whole)
    }

    /// Decides which users' mailboxes are asked for, and what their folders are called.
    fn accounts(&self, users: Vec<User>) -> Result<Vec<Account>, BackupError> {
        let options = &self.context.options;
        let mut names = UniqueNames::new();
        names.reserve(REPORT_NAME);
        let mut accounts = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for user in users {
            // Pages may overlap.
            if user.is_guest() || (options.licensed_only && !user.is_licensed()) || !seen.insert(user.id.clone()) {
                continue;
            }
            let name = names.claim(&safe_name(&user.name(), ""));
            if !options.selection.may_contain(&format!("{USERS}/{name}/{OUTLOOK}")) {
                continue;
            }
            let standing = self.users.get(&user.id).cloned();
            accounts.push(Account { name, standing, user });
        }
        Ok(accounts)
    }

    /// Returns the users' folders of the snapshot before.
    fn users_before(&self) -> Result<UsersBefore, BackupError> {
        let Some(before) = &self.before else { return Ok(UsersBefore::new()) };
        let Context { reader, store, .. } = &*self.context;
        let Ok(Some(users)) = tree::find(&**reader, before.directory(), USERS.as_bytes()) else {
            return Ok(UsersBefore::new());
        };
        let Some(dir) = users.entry().directory() else { return Ok(UsersBefore::new()) };
        let mut entries = UsersBefore::new();
        for found in tree::Entries::new(&**reader, dir)? {
            let entry = found?.entry().clone();
            let Some(user) = entry.facts.source_id.clone() else { continue };
            let whole = self.trusted || is_whole(&entry, store, reader);
            // Without its root there is nothing to keep.
            if whole || entry.directory().is_some_and(|dir| store.has_node(dir.root.id).unwrap_or(false)) {
                entries.insert(user, (entry, whole));
            }
        }
        Ok(entries)
    }

    /// Keeps the mailboxes of users that the directory does not list any more.
    fn keep_the_gone(
        &self,
        accounts: &[Account],
        whole: &mut Whole,
        entries: &mut BTreeMap<Box<[u8]>, Entry>,
    ) -> Result<(), BackupError> {
        for (user, (entry, is_whole)) in &self.users {
            let old_name = String::from_utf8_lossy(&entry.name).into_owned();
            let selected = self.context.options.selection.may_contain(&format!("{USERS}/{old_name}/{OUTLOOK}"));
            if !selected || accounts.iter().any(|account| account.user.id == *user) {
                continue;
            }
            let mut state = self.context.state_before(user)?;
            if state.as_ref().is_none_or(|state| state.kept.is_none()) {
                whole.warnings.push(format!(
                    "{old_name} is no longer among the users that the set takes; the last backup is kept"
                ));
            }
            if !is_whole {
                whole.whole = false;
                let error = "pieces of the last backup are missing, and nobody can be asked for them".to_owned();
                whole.failed += 1;
                whole.failures.push(Failure { path: format!("{USERS}/{old_name}/{OUTLOOK}").into_bytes(), error });
            }
            // Somebody else may have the name by now.
            let mut names = UniqueNames::new();
            accounts.iter().for_each(|account| _ = names.reserve(&account.name));
            entries.keys().for_each(|name| _ = names.reserve(&String::from_utf8_lossy(name)));
            let name = names.claim(&old_name);
            if let Some(state) = &mut state {
                state.kept = Some("no longer among the users that the set takes".to_owned());
            }
            self.carry(user, &name, entry.clone(), state, whole, entries)?;
        }
        Ok(())
    }

    fn take(
        &self,
        outcome: Outcome,
        whole: &mut Whole,
        entries: &mut BTreeMap<Box<[u8]>, Entry>,
    ) -> Result<(), BackupError> {
        let report = outcome.report;
        whole.failed += report.failures.len() as u64 + report.failed_unnamed;
        let room = FAILURES_NAMED_MAX.saturating_sub(whole.failures.len());
        whole.failures.extend(report.failures.into_iter().take(room));
        whole.warnings.extend(report.warnings);
        outcome.lacking.into_iter().for_each(|lacking| whole.note_lacking(lacking));
        match outcome.kept {
            Kept::Skipped(reason) => whole.skipped.push((outcome.name, reason)),
            Kept::Nothing => {}
            Kept::Before(entry, state) => {
                whole.whole &= self.users.get(&outcome.user).is_some_and(|(_, whole)| *whole);
                self.carry(&outcome.user, &outcome.name, *entry, state, whole, entries)?;
            }
            Kept::Made(made) => {
                let user::Made { entry, state, unfinished } = *made;
                whole.finished.push(unfinished);
                entries.insert(entry.name.clone(), entry);
                whole.state.ledger += state.ledger();
                self.context.keep_state(&outcome.user, &state)?;
            }
        }
        Ok(())
    }

    /// Carries a user's folder over from the snapshot before.
    fn carry(
        &self,
        user: &str,
        name: &str,
        mut entry: Entry,
        state: Option<MailboxState>,
        whole: &mut Whole,
        entries: &mut BTreeMap<Box<[u8]>, Entry>,
    ) -> Result<(), BackupError> {
        entry.name = name.as_bytes().into();
        entries.insert(entry.name.clone(), entry);
        let Some(mut state) = state else { return Ok(()) };
        state.name = name.to_owned();
        state.carry();
        whole.state.ledger += state.ledger();
        Ok(self.context.keep_state(user, &state)?)
    }

    fn root(&self, users: BTreeMap<Box<[u8]>, Entry>) -> Result<Entry, BackupError> {
        let before = self.before.as_ref().map(|before| before.root.clone());
        let users = self.context.directory(users.into_values())?;
        let old = before.as_ref().and_then(|root| {
            let found = tree::find(&*self.context.reader, root.directory()?, USERS.as_bytes()).ok()??;
            Some(found.entry().clone())
        });
        let users = self.context.folder_entry(USERS, users, old.as_ref());
        let root = self.context.directory(std::iter::once(users))?;
        let name = std::str::from_utf8(ROOT_NAME).expect("a literal");
        Ok(self.context.folder_entry(name, root, before.as_ref()))
    }
}

/// Returns when somebody has asked to stop.
async fn cancelled(cancel: &AtomicBool) {
    while !cancel.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCEL_POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Returns how many of twenty mailboxes are begun while the first ones wait, two at once.
    async fn begun(pause: Option<Duration>) -> usize {
        let begun = Cell::new(0);
        let mailboxes = (0..20).map(|_| async {
            begun.set(begun.get() + 1);
            std::future::pending::<()>().await;
        });
        let mut working = Working::new(mailboxes, 2, || pause);
        let done = tokio::time::timeout(Duration::from_secs(60), working.next()).await;
        assert!(done.is_err(), "nothing ends here");
        begun.get()
    }

    #[tokio::test(start_paused = true)]
    async fn mailboxes_that_wait_for_their_limits_hold_up_no_others() {
        assert_eq!(begun(None).await, 2);
        assert_eq!(begun(Some(PAUSE_MIN / 2)).await, 2);
        assert_eq!(begun(Some(Duration::from_secs(600))).await, 2 * MAILBOXES_WAITING_MAX);
    }
}
