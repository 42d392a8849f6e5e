//! Restores to the accounts of an organisation.
//!
//! ```text
//! route (what goes to whom) ─► planned items (which folder, what exists there) ─► delivery (create, complete, compare)
//! ```
//!
//! Several mailboxes are restored to at a time, and several items to each. The client's gate decides how many requests
//! may be in flight and how many bytes may be sent ([`crate::source::graph::throttle`]).
//!
//! [`target`] is the seam for kinds of items: it lists what is particular to one kind, and `targets` has a module for
//! each kind. All other modules here hold for every kind.
//!
//! - Nothing is sent to anybody: messages are created, not submitted. Nothing is deleted, except what `--when-exists
//!   overwrite` replaces, and what this restore created itself: half an item, or one that it created twice ([`twins`]).
//! - An item counts as restored once it was read back and compared.
//! - The same restore twice creates nothing twice, also if answers were lost or the program was killed: every item
//!   bears a mark ([`mark::Mark`]), by which it is found again.
//! - Memory does not grow with the number of items, except for a few hashes for each item of the current folder.

mod context;
mod delivery;
mod estimate;
mod existing_items;
mod folders;
mod journal;
mod lock;
mod maildir;
mod mark;
mod options;
mod outcome;
mod patience;
mod planned_items;
mod retry;
mod route;
mod run;
mod single;
mod survey;
mod target;
mod targets;
mod twins;
mod walk;

use self::context::Context;
use self::route::TargetUser;
use self::run::{Destination, Run, restore_mailbox};
use super::{Progress, Report, RestoreError};
use crate::format::entry::Entry;
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::Repository;
use crate::repository::reader::Reader;
use crate::source::graph::directory;
use crate::source::graph::{Client, ErrorKind, GraphError};
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

pub use estimate::{Load, LoadPart};
pub use options::{AccountOptions, AccountTarget};
pub use outcome::ItemOutcome;
pub use route::Kind;
pub use single::{ItemRestorer, Origin, ReadRange, Refused, SingleItem};
pub use survey::AccountSurvey;
pub use targets::mail::attached_files;

/// Maximum number of threads that read items and walk through snapshots.
const BLOCKING_THREADS_MAX: usize = 32;
const GONE: &str = "the organisation has no such user any more; `--to TENANT:Users/NAME` restores to somebody else";
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A restore to accounts that is ready to be executed.
pub struct AccountPlan {
    context: Arc<Context>,
    runtime: Runtime,
    root: Entry,
    destinations: Vec<Destination>,
    loads: Vec<Load>,
    gone: Vec<GoneAccount>,
}

/// An account of the snapshot that the organisation does not have any more.
struct GoneAccount {
    /// The path of the account in the snapshot.
    path: String,
    /// The number of its items.
    items: u64,
}

impl AccountPlan {
    /// Plans to restore `paths` of a snapshot to accounts of the organisation behind `client`. Writes nothing, and asks
    /// only whose mailboxes they are.
    ///
    /// No path, or an empty one, means all mailboxes of the snapshot. With [`AccountOptions::into`] each path arrives
    /// there under its last name.
    ///
    /// # Errors
    /// [`RestoreError::NotInSnapshot`], [`RestoreError::NoMailbox`], [`RestoreError::NoAccount`],
    /// [`RestoreError::Account`] when the directory cannot be asked, [`RestoreError::Interrupted`] when the client was
    /// cancelled, [`RestoreError::Read`].
    pub fn new(
        repository: &Repository,
        reader: Arc<Reader>,
        client: Client,
        (id, snapshot): (SnapshotId, &Snapshot),
        paths: &[Vec<u8>],
        options: AccountOptions,
    ) -> Result<Self, RestoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .map_err(RestoreError::Runtime)?;
        let routes = route::routes(&reader, snapshot, paths, &options.target, &options.into)?;
        let (mut destinations, mut loads, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let is_one = routes.len() == 1;
        for route in routes {
            let account = route.to.name().to_owned();
            let asked = runtime.block_on(directory::user(&client, route.to.asked()));
            let asked = asked.map_err(|source| stopped(&route.to, source))?;
            let load = estimate::load_of(&reader, &route);
            match asked {
                Some(user) => {
                    loads.push(load);
                    destinations.push(Destination { user, route });
                }
                // If one of many accounts is gone, the others are restored all the same.
                None if !is_one => gone.push(GoneAccount { path: format!("Users/{account}"), items: load.items }),
                None => return Err(RestoreError::NoAccount { account }),
            }
        }
        let keys = repository.keys().clone();
        let context = Arc::new(Context::new(reader.clone(), reader, keys, client, id, options));
        Ok(Self { context, runtime, root: snapshot.root.clone(), destinations, loads, gone })
    }

    /// Returns the client of the organisation.
    pub fn client(&self) -> &Client {
        &self.context.client
    }

    /// Returns how much goes to each mailbox.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Returns how long the restore takes at least, and how to split it. `None` if it is short.
    pub fn remark(&self) -> Option<String> {
        estimate::remark(&self.loads)
    }

    /// Shows a survey of this plan in lines, for `--dry-run`.
    pub fn show<'a>(&'a self, survey: &'a AccountSurvey) -> impl fmt::Display + 'a {
        survey.show(&self.loads, self.context.options.when_exists)
    }

    /// Looks into the mailboxes, and returns what there is to do.
    ///
    /// # Errors
    /// [`RestoreError::Account`], [`RestoreError::Interrupted`].
    pub fn survey(&self, cancel: &Arc<AtomicBool>) -> Result<AccountSurvey, RestoreError> {
        self.until_cancelled(cancel, async {
            let mut survey = AccountSurvey::default();
            for GoneAccount { path, items } in &self.gone {
                survey.survey.problem(path.as_bytes(), *items, GONE.to_owned());
            }
            for destination in &self.destinations {
                let surveyed = survey::survey_mailbox(&self.context, &self.root, destination, &mut survey).await;
                surveyed.map_err(|source| stopped(&destination.route.to, source))?;
            }
            Ok(survey)
        })
    }

    /// Executes the plan.
    ///
    /// If `cancel` is set, the run stops. Running it again continues.
    pub fn execute(&self, progress: &Arc<Progress>, cancel: &Arc<AtomicBool>) -> Report {
        let mut report = Report::default();
        for GoneAccount { path, items } in &self.gone {
            report.fail(path.as_bytes(), *items, GONE.to_owned());
        }
        let run = Run {
            context: self.context.clone(),
            root: self.root.clone(),
            progress: progress.clone(),
            cancel: cancel.clone(),
            report: Mutex::new(report),
            losses: Mutex::default(),
        };
        let ended = self.until_cancelled(cancel, async {
            let restores = self.destinations.iter().map(|destination| restore_mailbox(&run, destination));
            let at_once = self.context.options.mailboxes_at_once.max(1);
            futures_util::stream::iter(restores).buffer_unordered(at_once).collect::<()>().await;
            Ok(())
        });
        let mut report = run.report.into_inner();
        report.failures.sort_by(|a, b| a.path.cmp(&b.path));
        report.remarks.extend(run.losses.into_inner().into_iter().map(|(loss, items)| loss.remark(items)));
        if let Err(error) = ended {
            report.stopped.get_or_insert(error);
        }
        if cancel.load(Ordering::Relaxed) {
            report.stopped = Some(RestoreError::Interrupted);
        }
        report
    }

    /// Runs `work`. If `cancel` is set, all its requests end.
    fn until_cancelled<T>(
        &self,
        cancel: &Arc<AtomicBool>,
        work: impl Future<Output = Result<T, RestoreError>>,
    ) -> Result<T, RestoreError> {
        let (client, cancel) = (self.context.client.clone(), cancel.clone());
        self.runtime.block_on(async {
            let watch = tokio::spawn(async move {
                while !cancel.load(Ordering::Relaxed) {
                    tokio::time::sleep(CANCEL_POLL_INTERVAL).await;
                }
                client.cancel();
            });
            let done = work.await;
            watch.abort();
            done
        })
    }
}

fn stopped(to: &TargetUser, source: GraphError) -> RestoreError {
    match source.kind() {
        ErrorKind::Cancelled => RestoreError::Interrupted,
        _ => RestoreError::Account { account: to.name().to_owned(), source },
    }
}

#[cfg(test)]
mod tests;
