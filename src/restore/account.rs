//! The executor for mailboxes of an organisation.
//!
//! ```text
//! route (what goes to whom) ─► guide (where in the mailbox, what stands there) ─► deliver (make, complete, compare)
//! ```
//!
//! Several mailboxes at a time, and in each as many items as keep it busy: how many requests may be in flight, and how
//! many bytes may be sent, the client's gate decides ([`crate::source::graph::throttle`]).
//!
//! - Nothing is sent to anybody: messages are made, not submitted. Nothing is deleted but what `--when-exists
//!   overwrite` replaces, and what this restore made itself: half a message, or one that it made twice ([`twins`]).
//! - An item counts as restored once it was read back and compared.
//! - The same restore twice makes nothing twice, also when answers were lost or the program was killed: every message
//!   bears a mark ([`there::Mark`]), by which it is found again.
//! - Memory does not grow with the number of items; only of the folder at hand there are a few hashes for each message.

mod courier;
mod deliver;
mod estimate;
mod file;
mod folders;
mod guide;
mod import;
mod journal;
mod lock;
mod maildir;
mod message;
mod patience;
mod route;
mod survey;
mod there;
mod twins;
mod verify;
mod witness;

use self::deliver::{Delivery, Outcome, Trouble};
use self::guide::{Guide, Met};
use self::import::Importer;
use self::journal::{Journal, JournalError};
use self::lock::MailboxLock;
use self::message::Mail;
use self::route::{Route, Whose};
use self::there::Mark;
use super::{Progress, Report, RestoreError, WhenExists, chain, printable};
use crate::format::crypto::Keys;
use crate::format::entry::{Content, Entry};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::Repository;
use crate::repository::reader::Reader;
use crate::runtime::{guarded, guarded_async};
use crate::source::graph::directory::{self, User};
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::Message as Stored;
use crate::source::graph::{Client, ErrorKind, GraphError};
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

pub use courier::{Brought, Bytes, Courier, Home, Parcel, Refused};
pub use estimate::Load;
pub use message::attached_files;
pub use route::AccountTarget;
pub use survey::AccountSurvey;

/// Items that are worked on in one mailbox: twice as many as it answers at a time, so that none of its places is empty
/// while an item is read or compared.
const ITEMS_AT_ONCE: usize = 8;
/// Items of all mailboxes together may take so much memory; a larger one goes alone.
const ROOM_BYTES: u64 = 96 << 20;
const ROOM_PIECE_BYTES: u64 = 64 << 10;
/// An item takes so many times its size: its bytes, what they say, and the request.
const ROOM_FACTOR: u64 = 4;
/// After so many items in a row that the service did not answer for, the mailbox is left alone.
const UNANSWERED_MAX: u32 = 20;
/// Threads that read items and walk through snapshots.
const BLOCKING_THREADS_MAX: usize = 32;
const GONE: &str = "the organisation has no such user any more; `--to TENANT:Users/NAME` restores to somebody else";
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What a restore to accounts is asked to do.
#[derive(Debug, Clone)]
pub struct AccountOptions {
    /// Whose mailboxes.
    pub target: AccountTarget,
    /// The folder of the mailbox that everything goes below, from the top down; none for the folders it came from.
    pub into: Vec<String>,
    /// What to do with what is there.
    pub when_exists: WhenExists,
    /// How many mailboxes are restored to at a time.
    pub mailboxes_at_once: usize,
    /// Where this machine remembers what was restored.
    pub journals: PathBuf,
    /// Where the locks of mailboxes are: the same for everything on this machine that restores to them.
    pub locks: PathBuf,
}

/// A restore to accounts that was thought through, and is ready to be carried out.
pub struct AccountPlan {
    context: Arc<Context>,
    runtime: Runtime,
    root: Entry,
    routes: Vec<(User, Arc<Route>)>,
    loads: Vec<Load>,
    /// Accounts that are gone: where their mail stands in the snapshot, and how much it is.
    gone: Vec<(String, u64)>,
}

/// Reads the contents of items.
trait Contents: Send + Sync {
    /// Returns the bytes at `range` of a content, fewer where it ends before, or why they cannot be had.
    fn read_range(&self, content: &Content, range: Range<usize>) -> Result<Vec<u8>, Trouble>;

    /// Returns all of a content, or why it cannot be had.
    fn read(&self, content: &Content) -> Result<Vec<u8>, Trouble> {
        self.read_range(content, 0..usize::MAX)
    }
}

impl Contents for Reader {
    fn read_range(&self, content: &Content, range: Range<usize>) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        self.read(content, range.start as u64, range.len(), &mut bytes)?;
        Ok(bytes)
    }
}

/// What everything in a run shares.
struct Context {
    reader: Arc<Reader>,
    contents: Arc<dyn Contents>,
    keys: Arc<Keys>,
    client: Client,
    snapshot: SnapshotId,
    options: AccountOptions,
    room: Semaphore,
}

impl Context {
    /// Reads a mail with what the service said of it. Returns the content that it is as well.
    fn read(&self, entry: &Entry) -> Result<(Content, Mail), Trouble> {
        let read = |content: &Content| self.contents.read(content);
        let content = entry.content().ok_or_else(|| Trouble::Item("it is no file".to_owned()))?;
        let mime = read(content)?;
        let stored = match &entry.payload {
            Some(payload) => serde_json::from_slice::<Stored>(&read(payload)?).ok(),
            None if !is_mail(entry) && !crate::content::mail::looks_like_mail(&mime) => {
                return Err(Trouble::Item("it is no mail".to_owned()));
            }
            None => None,
        };
        let mail = guarded(|| Mail::read(&mime, stored.as_ref()).proven(&mime))?.map_err(Trouble::Item)?;
        Ok((content.clone(), mail))
    }

    async fn room(&self, entry: &Entry) -> SemaphorePermit<'_> {
        let bytes = entry.size().max(entry.stream().map_or(0, Content::len));
        let pieces = (bytes.saturating_mul(ROOM_FACTOR) / ROOM_PIECE_BYTES + 1).min(ROOM_BYTES / ROOM_PIECE_BYTES);
        self.room.acquire_many(pieces as u32).await.expect("the semaphore is never closed")
    }

    /// Names the journal of what goes to one mailbox.
    fn journal_name(&self, user: &str) -> String {
        let into = self.options.into.join("\0");
        let path = [&b"\0journal\0"[..], &self.snapshot.0, user.as_bytes(), b"\0", into.as_bytes()].concat();
        self.keys.local_path("restore", &path)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns whether an item was taken for a mail when it was backed up, or is called like one.
fn is_mail(entry: &Entry) -> bool {
    let facts = &entry.facts;
    let has_facts = [&facts.from, &facts.message_id, &facts.subject].iter().any(|fact| fact.is_some());
    entry.payload.is_some()
        || entry.text().is_some()
        || has_facts
        || facts.date.is_some()
        || crate::content::mail::is_named_as_mail(&entry.name)
}

impl AccountPlan {
    /// Plans to restore `paths` of a snapshot to accounts of the organisation behind `client`. Nothing is written, and
    /// of the mailboxes only is asked whose they are.
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
        let found = route::routes(&reader, snapshot, paths, &options.target)?;
        let (mut routes, mut loads, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let is_one = found.len() == 1;
        for route in found {
            let account = route.to.name().to_owned();
            let asked = runtime.block_on(directory::user(&client, route.to.asked()));
            let asked = asked.map_err(|source| stopped(&route.to, source))?;
            let load = load_of(&reader, &route);
            let user = match asked {
                Some(user) => user,
                // One of many that is gone ends nothing but its own part.
                None if !is_one => {
                    gone.push((format!("Users/{account}"), load.items));
                    continue;
                }
                None => return Err(RestoreError::NoAccount { account }),
            };
            loads.push(load);
            routes.push((user, Arc::new(route)));
        }
        let context = Context {
            contents: reader.clone(),
            reader,
            keys: repository.keys().clone(),
            client,
            snapshot: id,
            options,
            room: Semaphore::new((ROOM_BYTES / ROOM_PIECE_BYTES) as usize),
        };
        Ok(Self { context: Arc::new(context), runtime, root: snapshot.root.clone(), routes, loads, gone })
    }

    /// Returns what talks to the organisation.
    pub fn client(&self) -> &Client {
        &self.context.client
    }

    /// Returns how much goes to each mailbox.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Returns how long it takes at least, and how to split it, where that is worth telling before it begins.
    pub fn remark(&self) -> Option<String> {
        estimate::remark(&self.loads)
    }

    /// Looks into the mailboxes, and returns what there is to do.
    ///
    /// # Errors
    /// [`RestoreError::Account`], [`RestoreError::Interrupted`].
    pub fn survey(&self, cancel: &Arc<AtomicBool>) -> Result<AccountSurvey, RestoreError> {
        self.until_cancelled(cancel, async {
            let mut survey = AccountSurvey::default();
            for (path, items) in &self.gone {
                survey.survey.problem(path.as_bytes(), *items, GONE.to_owned());
            }
            for (user, route) in &self.routes {
                let looked = self.survey_one(user, route, &mut survey).await;
                looked.map_err(|source| stopped(&route.to, source))?;
            }
            Ok(survey)
        })
    }

    /// Carries the plan out.
    ///
    /// Once `cancel` is set the run stops; running it again continues.
    pub fn execute(&self, progress: &Arc<Progress>, cancel: &Arc<AtomicBool>) -> Report {
        let report = Arc::new(Mutex::new(Report::default()));
        let otherwise = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        for (path, items) in &self.gone {
            report.lock().fail(path.as_bytes(), *items, GONE.to_owned());
        }
        let ended = self.until_cancelled(cancel, async {
            let restores = self.routes.iter().map(|(user, route)| async {
                let (report, otherwise) = (report.clone(), otherwise.clone());
                let run = Run { report, otherwise, progress: progress.clone(), cancel: cancel.clone() };
                self.restore_one(user, route, run).await;
            });
            let at_once = self.context.options.mailboxes_at_once.max(1);
            futures_util::stream::iter(restores).buffer_unordered(at_once).collect::<()>().await;
            Ok(())
        });
        let mut report = std::mem::take(&mut *report.lock());
        report.failures.sort_by(|a, b| a.path.cmp(&b.path));
        let otherwise = std::mem::take(&mut *otherwise.lock());
        report.remarks.extend(otherwise.into_iter().map(|(why, items)| without_stream(items, &why)));
        if let Err(error) = ended {
            report.stopped.get_or_insert(error);
        }
        if cancel.load(Ordering::Relaxed) {
            report.stopped = Some(RestoreError::Interrupted);
        }
        report
    }

    /// Runs `work`; once somebody asks to stop, all its requests end.
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

    fn mailbox(&self, user: &User) -> Mailbox {
        // Hidden folders count: a new one cannot have the name of one of them.
        Mailbox::new(self.context.client.clone(), &user.id, true)
    }

    async fn guide<'a>(&self, mailbox: &'a Mailbox, route: &Arc<Route>, makes: bool) -> Result<Guide<'a>, GraphError> {
        let context = &self.context;
        let (reader, root) = (context.reader.clone(), self.root.clone());
        Guide::new(mailbox, &context.options.into, makes, reader, root, route.clone()).await
    }

    async fn survey_one(&self, user: &User, route: &Arc<Route>, into: &mut AccountSurvey) -> Result<(), GraphError> {
        let mailbox = self.mailbox(user);
        let mut guide = self.guide(&mailbox, route, false).await?;
        while let Some(met) = guide.next().await? {
            match met {
                Met::Item { entry, path, spot } => {
                    let found = spot.there.lock().find(&entry, &Mark::of(&entry, &self.context.keys));
                    into.add(&entry, &path, &found, self.context.options.when_exists);
                }
                Met::Unreadable { path, entries, error } => {
                    into.survey.problem(&path, entries, unreadable(entries, &error))
                }
            }
        }
        into.survey.new_folders += guide.folders.made;
        Ok(())
    }

    async fn restore_one(&self, user: &User, route: &Arc<Route>, run: Run) {
        let items = route.parts.iter().map(|part| part.entry.sums().files).sum::<u64>();
        let name = format!("Users/{}", route.to.name());
        let fail = |left: u64, error: String| run.report.lock().fail(name.as_bytes(), left, error);
        let locks = &self.context.options.locks;
        let lock = MailboxLock::take(locks, self.context.client.tenant_id(), &user.id, &run.cancel);
        let _lock = match lock.await {
            Ok(Some(lock)) => lock,
            // Somebody asked to stop.
            Ok(None) => return,
            Err(error) => return fail(items, format!("the lock of the mailbox could not be taken: {error}")),
        };
        let journal = self.context.journal_name(&user.id);
        let journal = match Journal::open(&self.context.options.journals, &journal, self.context.keys.clone()) {
            Ok(journal) => journal,
            Err(error @ JournalError::Busy) => return fail(items, error.to_string()),
            Err(error) => return fail(items, chain(&error)),
        };
        run.report.lock().remarks.extend(journal.damage());
        let mailbox = self.mailbox(user);
        let context = self.context.clone();
        let importer = Importer::new(mailbox.clone());
        let journal = Mutex::new(journal);
        let delivery = Arc::new(Delivery { context, mailbox: mailbox.clone(), journal, importer });
        let mut tried = 0;
        let ended = self.bring_all(&mailbox, route, &delivery, &run, &mut tried).await;
        if let Err(error) = delivery.journal.lock().sync() {
            run.report.lock().fail(name.as_bytes(), 1, format!("could not keep the journal of the restore: {error}"));
        }
        for (why, items) in delivery.importer.otherwise() {
            *run.otherwise.lock().entry(why).or_default() += items;
        }
        match ended {
            Err(error) if error.kind() == ErrorKind::Cancelled || run.cancel.load(Ordering::Relaxed) => {}
            Err(error) => {
                let left = items.saturating_sub(tried).max(1);
                fail(left, format!("the rest ({left} items) was not tried: {}", chain(&error)));
            }
            Ok(()) => {}
        }
    }

    async fn bring_all(
        &self,
        mailbox: &Mailbox,
        route: &Arc<Route>,
        delivery: &Arc<Delivery>,
        run: &Run,
        tried: &mut u64,
    ) -> Result<(), GraphError> {
        let mut guide = self.guide(mailbox, route, true).await?;
        delivery.importer.know(guide.folders.well_known(), &guide.unmarked);
        let mut running = JoinSet::new();
        let mut unanswered = 0;
        let mut judge = |done: Result<Done, tokio::task::JoinError>| {
            let done = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            *tried += 1;
            match run.note(done) {
                Judged::Fine => unanswered = 0,
                Judged::Unanswered => unanswered += 1,
                Judged::Over(error) => return Err(error),
            }
            match unanswered >= UNANSWERED_MAX {
                true => Err(GraphError::silent("restoring")),
                false => Ok(()),
            }
        };
        loop {
            while let Some(done) = running.try_join_next() {
                judge(done)?;
            }
            while running.len() >= ITEMS_AT_ONCE
                && let Some(done) = running.join_next().await
            {
                judge(done)?;
            }
            run.report.lock().folders += std::mem::take(&mut guide.folders.made);
            match guide.next().await? {
                Some(Met::Item { entry, path, spot }) => {
                    let found = spot.there.lock().find(&entry, &Mark::of(&entry, &self.context.keys));
                    let (delivery, progress) = (delivery.clone(), run.progress.clone());
                    running.spawn(async move {
                        let _room = delivery.context.room(&entry).await;
                        progress.current.lock().splice(.., path.iter().copied());
                        let done = guarded_async(delivery.deliver(&entry, &spot, found)).await;
                        let done = done.unwrap_or_else(|fault| Err(fault.into()));
                        Done { path, bytes: entry.size(), done }
                    });
                }
                Some(Met::Unreadable { path, entries, error }) => {
                    run.report.lock().fail(&path, entries, unreadable(entries, &error));
                }
                None => break,
            }
        }
        run.report.lock().folders += std::mem::take(&mut guide.folders.made);
        while let Some(done) = running.join_next().await {
            judge(done)?;
        }
        Ok(())
    }
}

fn unreadable(entries: u64, error: &str) -> String {
    format!("{entries} entries of this folder cannot be restored: {error}")
}

fn without_stream(items: u64, why: &str) -> String {
    format!("{items} messages went back from MIME, without what only their export streams hold: {why}")
}

fn stopped(to: &Whose, source: GraphError) -> RestoreError {
    match source.kind() {
        ErrorKind::Cancelled => RestoreError::Interrupted,
        _ => RestoreError::Account { account: to.name().to_owned(), source },
    }
}

/// Returns how much a route brings, by folder where it is a whole mailbox.
fn load_of(reader: &Reader, route: &Route) -> Load {
    let mut load = Load { mailbox: route.to.name().to_owned(), items: 0, bytes: 0, parts: Vec::new() };
    for part in &route.parts {
        let sums = part.entry.sums();
        load.items += sums.files;
        load.bytes = load.bytes.saturating_add(sums.bytes);
        let below = part.entry.directory().and_then(|dir| crate::repository::tree::Entries::new(reader, dir).ok());
        for found in below.into_iter().flatten().flatten() {
            let sums = found.entry().sums();
            if found.entry().directory().is_some() && sums.files > 0 {
                load.parts.push((printable(&found.entry().name), sums.files, sums.bytes));
            }
        }
    }
    load
}

/// What the mailboxes of a run share.
struct Run {
    report: Arc<Mutex<Report>>,
    /// Why items that have a stream went back otherwise, and how many.
    otherwise: Arc<Mutex<BTreeMap<String, u64>>>,
    progress: Arc<Progress>,
    cancel: Arc<AtomicBool>,
}

/// An item that was tried.
struct Done {
    path: Vec<u8>,
    bytes: u64,
    done: Result<Outcome, Trouble>,
}

/// What an item says of the mailbox.
enum Judged {
    Fine,
    /// The service did not answer for it.
    Unanswered,
    /// Nothing else will fare better.
    Over(GraphError),
}

impl Run {
    fn note(&self, Done { path, bytes, done }: Done) -> Judged {
        if matches!(&done, Err(Trouble::Mailbox(error)) if error.kind() == ErrorKind::Cancelled) {
            let Err(Trouble::Mailbox(error)) = done else { unreachable!("it was just looked at") };
            return Judged::Over(error);
        }
        self.progress.items.fetch_add(1, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut report = self.report.lock();
        match done {
            Ok(Outcome::Restored) => {
                report.restored += 1;
                report.bytes += bytes;
            }
            Ok(Outcome::AlreadyThere) => report.already_there += 1,
            Ok(Outcome::Skipped) => report.skipped += 1,
            Err(Trouble::Item(reason) | Trouble::Away(reason)) => report.fail(&path, 1, reason),
            Err(Trouble::Unanswered(error)) => {
                report.fail(&path, 1, chain(&error));
                return Judged::Unanswered;
            }
            Err(Trouble::Mailbox(error)) => {
                report.fail(&path, 1, chain(&error));
                return Judged::Over(error);
            }
        }
        Judged::Fine
    }
}

#[cfg(test)]
mod tests;
