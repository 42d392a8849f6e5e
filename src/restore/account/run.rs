//! Restores everything that goes to one mailbox: several items at a time, in the order of the snapshot.

use super::context::{Context, ITEMS_AT_ONCE, MailboxContext};
use super::delivery::Delivery;
use super::journal::{Journal, JournalError};
use super::lock::MailboxLock;
use super::outcome::{ItemError, ItemOutcome};
use super::planned_items::{PlannedItem, PlannedItems};
use super::route::{Part, Route};
use super::target::{Loss, Target};
use super::targets::contacts::ContactsTarget;
use super::targets::mail::MailTarget;
use crate::format::entry::Entry;
use crate::restore::{Progress, Report, chain};
use crate::runtime::guarded_async;
use crate::source::graph::directory::User;
use crate::source::graph::{ErrorKind, GraphError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{JoinError, JoinSet};

/// Maximum number of items in a row that the service does not answer for. After that the mailbox is left alone.
const UNANSWERED_MAX: u32 = 20;

/// A mailbox, and what goes to it.
pub(super) struct Destination {
    pub user: User,
    pub route: Route,
}

/// What all mailboxes of a run share.
pub(super) struct Run {
    pub context: Arc<Context>,
    /// The root of the snapshot.
    pub root: Entry,
    pub progress: Arc<Progress>,
    pub cancel: Arc<AtomicBool>,
    pub report: Mutex<Report>,
    /// What restored items have lost, with the number of items.
    pub losses: Mutex<BTreeMap<Loss, u64>>,
}

/// An item that was tried.
struct Tried {
    path: Vec<u8>,
    bytes: u64,
    result: Result<ItemOutcome, ItemError>,
}

/// What the result of an item says of its mailbox.
enum Verdict {
    Fine,
    /// The service did not answer for the item.
    Unanswered,
    /// Every other item would fail for the same reason.
    Over(GraphError),
}

/// The items that are being restored to a mailbox.
struct InProgress<'a> {
    run: &'a Run,
    items: JoinSet<Tried>,
    /// The number of items that were tried.
    tried: u64,
    /// The number of items in a row that the service did not answer for.
    unanswered: u32,
}

/// Restores everything that goes to one mailbox. The report of the run says what happened.
pub(super) async fn restore_mailbox(run: &Run, destination: &Destination) {
    let Destination { user, route } = destination;
    let items = items_of(route.parts());
    let name = format!("Users/{}", route.to.name());
    let fail = |left: u64, error: String| run.report.lock().fail(name.as_bytes(), left, error);
    let options = &run.context.options;
    let lock = MailboxLock::take(&options.locks, run.context.client.tenant_id(), &user.id, &run.cancel);
    let _lock = match lock.await {
        Ok(Some(lock)) => lock,
        // Somebody asked to stop.
        Ok(None) => return,
        Err(error) => return fail(items, format!("the lock of the mailbox could not be taken: {error}")),
    };
    let journal = run.context.journal_name(&user.id);
    let journal = match Journal::open(&options.journals, &journal, run.context.keys.clone()) {
        Ok(journal) => journal,
        Err(error @ JournalError::Busy) => return fail(items, error.to_string()),
        Err(error) => return fail(items, chain(&error)),
    };
    run.report.lock().remarks.extend(journal.damage());
    let mailbox = Arc::new(MailboxContext { run: run.context.clone(), journal: Mutex::new(journal) });
    let client = &run.context.client;
    let mail = Arc::new(MailTarget::new(client.clone(), &user.id));
    restore_kind(run, &name, &route.mail, &mailbox, mail).await;
    let contacts = Arc::new(ContactsTarget::new(client.clone(), &user.id));
    restore_kind(run, &name, &route.contacts, &mailbox, contacts).await;
    for (part, why) in &*route.refused {
        run.report.lock().fail(&part.path, part.size().items, (*why).to_owned());
    }
    if let Err(error) = mailbox.journal.lock().sync() {
        fail(1, format!("could not keep the journal of the restore: {error}"));
    }
}

/// Restores all items of one kind that go to the mailbox called `name`.
async fn restore_kind<T: Target>(
    run: &Run,
    name: &str,
    parts: &Arc<[Part]>,
    mailbox: &Arc<MailboxContext>,
    target: Arc<T>,
) {
    if parts.is_empty() || run.cancel.load(Ordering::Relaxed) {
        return;
    }
    let mut in_progress = InProgress { run, items: JoinSet::new(), tried: 0, unanswered: 0 };
    let ended = in_progress.restore_items(parts, mailbox, target).await;
    match ended {
        Err(error) if error.kind() == ErrorKind::Cancelled || run.cancel.load(Ordering::Relaxed) => {}
        Err(error) => {
            let left = items_of(parts.iter()).saturating_sub(in_progress.tried).max(1);
            let reason = format!("the rest ({left} items) was not tried: {}", chain(&error));
            run.report.lock().fail(name.as_bytes(), left, reason);
        }
        Ok(()) => {}
    }
}

fn items_of<'a>(parts: impl Iterator<Item = &'a Part>) -> u64 {
    parts.map(|part| part.size().items).sum()
}

/// Returns the message for entries that cannot be read.
pub(super) fn unreadable(entries: u64, error: &str) -> String {
    format!("{entries} entries of this folder cannot be restored: {error}")
}

impl InProgress<'_> {
    /// Restores all items of one kind.
    async fn restore_items<T: Target>(
        &mut self,
        parts: &Arc<[Part]>,
        mailbox: &Arc<MailboxContext>,
        target: Arc<T>,
    ) -> Result<(), GraphError> {
        let delivery = Arc::new(Delivery { mailbox: mailbox.clone(), target: target.clone() });
        let ended = self.restore_all(parts, &delivery).await;
        for (loss, items) in target.losses() {
            *self.run.losses.lock().entry(loss).or_default() += items;
        }
        ended
    }

    async fn restore_all<T: Target>(
        &mut self,
        parts: &Arc<[Part]>,
        delivery: &Arc<Delivery<T>>,
    ) -> Result<(), GraphError> {
        let (context, root) = (self.run.context.clone(), self.run.root.clone());
        let mut planned = PlannedItems::new(context, delivery.target.clone(), root, parts.clone(), true).await?;
        loop {
            self.make_room().await?;
            let next = planned.next().await;
            self.run.report.lock().folders += std::mem::take(&mut planned.folders.created);
            match next? {
                Some(PlannedItem::Item { entry, path, folder, counterpart }) => {
                    let (delivery, progress) = (delivery.clone(), self.run.progress.clone());
                    self.items.spawn(async move {
                        let _room = delivery.mailbox.run.room(&entry).await;
                        progress.current.lock().splice(.., path.iter().copied());
                        let restored = guarded_async(delivery.deliver(&entry, &folder, counterpart)).await;
                        let result = restored.unwrap_or_else(|fault| Err(fault.into()));
                        Tried { path, bytes: entry.size(), result }
                    });
                }
                Some(PlannedItem::Unreadable { path, entries, error }) => {
                    self.run.report.lock().fail(&path, entries, unreadable(entries, &error));
                }
                None => break,
            }
        }
        while let Some(tried) = self.items.join_next().await {
            self.judge(tried)?;
        }
        Ok(())
    }

    /// Waits until another item may be begun.
    async fn make_room(&mut self) -> Result<(), GraphError> {
        while let Some(tried) = self.items.try_join_next() {
            self.judge(tried)?;
        }
        while self.items.len() >= ITEMS_AT_ONCE
            && let Some(tried) = self.items.join_next().await
        {
            self.judge(tried)?;
        }
        Ok(())
    }

    /// Notes the result of an item. Returns an error if no other item should be tried.
    fn judge(&mut self, tried: Result<Tried, JoinError>) -> Result<(), GraphError> {
        let tried = tried.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.tried += 1;
        match self.run.note(tried) {
            Verdict::Fine => self.unanswered = 0,
            Verdict::Unanswered => self.unanswered += 1,
            Verdict::Over(error) => return Err(error),
        }
        match self.unanswered >= UNANSWERED_MAX {
            true => Err(GraphError::silent("restoring")),
            false => Ok(()),
        }
    }
}

impl Run {
    /// Counts an item in the report and in the progress.
    fn note(&self, Tried { path, bytes, result }: Tried) -> Verdict {
        let result = match result {
            Err(ItemError::Mailbox(error)) if error.kind() == ErrorKind::Cancelled => return Verdict::Over(error),
            result => result,
        };
        self.progress.items.fetch_add(1, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut report = self.report.lock();
        match result {
            Ok(ItemOutcome::Restored) => {
                report.restored += 1;
                report.bytes += bytes;
            }
            Ok(ItemOutcome::AlreadyThere) => report.already_there += 1,
            Ok(ItemOutcome::Skipped) => report.skipped += 1,
            Err(error) => {
                report.fail(&path, 1, error.reason());
                return match error {
                    ItemError::Item(_) | ItemError::Repository(_) => Verdict::Fine,
                    ItemError::Unanswered(_) => Verdict::Unanswered,
                    ItemError::Mailbox(error) => Verdict::Over(error),
                };
            }
        }
        Verdict::Fine
    }
}
