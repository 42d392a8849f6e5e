//! Restores one item to a mailbox: creates, completes and compares it; or finds that it exists, and leaves it.
//!
//! The one request that creates an item gives it its mark, and as many of its parts as fit. The other parts are added
//! afterwards. Until then the mark says that the item is not complete. So the next run recognises what an interrupted
//! one has left, and completes it instead of creating it again.

use super::context::MailboxContext;
use super::existing_items::{Counterpart, TargetFolder};
use super::journal::Key;
use super::mark::Mark;
use super::outcome::{ItemError, ItemOutcome};
use super::patience::Patience;
use super::retry::{ATTEMPTS_MAX, LOOKS_MAX, wait};
use super::target::{NewItem, Stage, Target, Task};
use super::twins::{Doubt, take_back_twins};
use crate::format::entry::Entry;
use crate::restore::{WhenExists, chain};
use crate::runtime::blocking;
use crate::source::graph::ErrorKind;
use crate::source::graph::write::{job_property, mark_property};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

/// Restores items of one kind to one mailbox.
pub(super) struct Delivery<T> {
    pub mailbox: Arc<MailboxContext>,
    pub target: Arc<T>,
}

/// What to do with an item.
enum Action {
    Create,
    /// Create it, and then delete the one that exists.
    Replace(OldItem),
    /// A restore has created it. Complete and compare it.
    Check {
        complete: bool,
    },
    Leave(ItemOutcome),
}

/// An item that is replaced.
enum OldItem {
    /// The item with this id.
    Id(String),
    /// The item with this mark.
    Marked(Mark),
}

/// Returns what to do with an item that has this counterpart.
fn action(counterpart: Counterpart, entry: &Entry, when_exists: WhenExists) -> Action {
    match (counterpart, when_exists) {
        (Counterpart::None, _) => Action::Create,
        (Counterpart::Itself | Counterpart::Alike, _) => Action::Leave(ItemOutcome::AlreadyThere),
        (Counterpart::Restored { complete }, _) => Action::Check { complete },
        (Counterpart::Changed | Counterpart::OtherVersion(_), WhenExists::Skip) => Action::Leave(ItemOutcome::Skipped),
        (Counterpart::Changed | Counterpart::OtherVersion(_), WhenExists::KeepBoth) => Action::Create,
        (Counterpart::Changed, WhenExists::Overwrite) => {
            Action::Replace(OldItem::Id(entry.facts.source_id.clone().unwrap_or_default()))
        }
        (Counterpart::OtherVersion(mark), WhenExists::Overwrite) => Action::Replace(OldItem::Marked(mark)),
    }
}

impl<T: Target> Delivery<T> {
    /// Restores an item to `folder`, where `counterpart` exists.
    ///
    /// # Errors
    /// [`ItemError`].
    pub async fn deliver(
        &self,
        entry: &Entry,
        folder: &TargetFolder,
        counterpart: Counterpart,
    ) -> Result<ItemOutcome, ItemError> {
        let folder_id = folder.id.as_deref().expect("folders are created before items are put into them");
        let mark = &Mark::of(entry, &self.mailbox.run.keys);
        let task = Task { entry, folder, folder_id, mark };
        // An item that looks like this one may have been created by an attempt that was interrupted before the mark was
        // set.
        if counterpart == Counterpart::Alike
            && T::may_lack_mark(entry)
            && self.mailbox.journal.lock().begun_at(&mark.key(folder_id)).is_some()
        {
            let restored = self.target.restore_otherwise(&self.mailbox, &task, true).await?;
            return Ok(restored.unwrap_or(ItemOutcome::AlreadyThere));
        }
        match action(counterpart, entry, self.mailbox.run.options.when_exists) {
            Action::Leave(outcome) => Ok(outcome),
            Action::Check { complete } if complete && self.is_verified(&mark.key(folder_id)) => {
                Ok(ItemOutcome::AlreadyThere)
            }
            Action::Check { complete } => self.check(&task, complete).await,
            Action::Create => self.create(&task).await,
            Action::Replace(old) => {
                self.create(&task).await?;
                self.delete(old, folder_id).await?;
                Ok(ItemOutcome::Restored)
            }
        }
    }

    /// Returns true if an earlier run has compared the item, and it cannot exist twice.
    fn is_verified(&self, key: &Key) -> bool {
        let journal = self.mailbox.journal.lock();
        journal.is_verified(key) && !journal.is_doubtful(key)
    }

    /// Creates an item, or restores it in the other way that its kind has.
    async fn create(&self, task: &Task<'_>) -> Result<ItemOutcome, ItemError> {
        if let Some(outcome) = self.target.restore_otherwise(&self.mailbox, task, false).await? {
            return Ok(outcome);
        }
        let id = ReadItem::read(self, task).await?.create().await?;
        task.folder.existing.lock().add_id(&id);
        Ok(ItemOutcome::Restored)
    }

    /// Deletes an item that was replaced. The new item exists already, so an error leaves one item too many, and never
    /// one too few.
    async fn delete(&self, old: OldItem, folder_id: &str) -> Result<(), ItemError> {
        let old = match old {
            OldItem::Id(id) => Some(id),
            OldItem::Marked(mark) => {
                let marked = self.target.marked(folder_id, &mark.text(true)).await?;
                marked.into_iter().next().map(|item| item.id)
            }
        };
        if let Some(old) = old {
            self.target.delete(&old).await?;
        }
        Ok(())
    }

    /// Completes and compares an item that an earlier run has created.
    async fn check(&self, task: &Task<'_>, complete: bool) -> Result<ItemOutcome, ItemError> {
        let key = task.mark.key(task.folder_id);
        let noted = self.mailbox.journal.lock().id_of(&key).map(str::to_owned);
        let item = ReadItem::read(self, task).await?;
        let marked = self.target.marked(task.folder_id, &task.mark.text(complete)).await?;
        let mut marked: Vec<_> = marked.into_iter().map(|item| item.id).collect();
        let at = noted.and_then(|noted| marked.iter().position(|id| *id == noted)).unwrap_or(0);
        if marked.is_empty() {
            // It was listed a while ago, and may have been deleted since.
            return item.create().await.map(|_| ItemOutcome::Restored);
        }
        let id = marked.swap_remove(at);
        let outcome = match complete {
            true => {
                item.compare(&id, Stage::Old, false).await?;
                ItemOutcome::AlreadyThere
            }
            false => {
                item.finish(&id, None).await?;
                ItemOutcome::Restored
            }
        };
        if self.mailbox.journal.lock().is_doubtful(&key) {
            item.take_back_twins(&id, ATTEMPTS_MAX).await?;
        }
        Ok(outcome)
    }
}

/// An item that was read, and is being restored.
struct ReadItem<'a, T: Target> {
    delivery: &'a Delivery<T>,
    item: T::Item,
    folder_id: &'a str,
    mark: &'a Mark,
}

/// An item that was created.
struct Created {
    id: String,
    /// Maximum number of twins that requests may have created whose fate is not known.
    twins_max: u32,
}

impl<'a, T: Target> ReadItem<'a, T> {
    async fn read(delivery: &'a Delivery<T>, task: &Task<'a>) -> Result<Self, ItemError> {
        let Task { folder_id, mark, .. } = *task;
        let (run, entry, folder) = (delivery.mailbox.run.clone(), task.entry.clone(), folder_id.to_owned());
        let item = blocking(move || T::read(&run, &entry, &folder)).await?;
        Ok(Self { delivery, item, folder_id, mark })
    }

    fn target(&self) -> &T {
        &self.delivery.target
    }

    fn key(&self) -> Key {
        self.mark.key(self.folder_id)
    }

    /// Creates, completes and compares the item. Returns its id.
    async fn create(&self) -> Result<String, ItemError> {
        let NewItem { mut properties, parts_left } = T::request(&self.item).map_err(ItemError::Item)?;
        let mark = self.mark.text(parts_left == 0);
        let extended = properties.entry("singleValueExtendedProperties").or_insert_with(|| json!([]));
        let extended = extended.as_array_mut().expect("it was made an array");
        extended.extend([mark_property(&mark), job_property(self.delivery.mailbox.journal.lock().job())]);
        let Created { id, twins_max } = self.create_once(&Value::Object(properties), &mark).await?;
        self.delivery.mailbox.journal.lock().made(self.key(), &id)?;
        match parts_left {
            0 => self.compare(&id, Stage::New, false).await?,
            left => self.finish(&id, Some(left)).await?,
        }
        if twins_max > 0 {
            self.take_back_twins(&id, twins_max).await?;
        }
        Ok(id)
    }

    async fn take_back_twins(&self, id: &str, twins_max: u32) -> Result<(), ItemError> {
        let doubt = Doubt { folder: self.folder_id, mark: self.mark, key: self.key(), id, twins_max };
        take_back_twins(self.target(), &self.delivery.mailbox.journal, &doubt).await
    }

    /// Creates the item once, however often the answer is lost, and whenever the service does the work.
    async fn create_once(&self, properties: &Value, mark: &str) -> Result<Created, ItemError> {
        let journal = &self.delivery.mailbox.journal;
        let begun_at = journal.lock().begun_at(&self.key());
        if let Some(begun_at) = begun_at
            && let Some(id) = self.created_since(begun_at.into(), mark).await?
        {
            return Ok(Created { id, twins_max: 0 });
        }
        let mut unclear = u32::from(begun_at.is_some());
        let mut attempt = 1;
        loop {
            journal.lock().sending(self.key())?;
            if unclear > 0 {
                journal.lock().doubtful(self.key())?;
            }
            let error = match self.target().create(self.folder_id, properties).await {
                Ok(id) => return Ok(Created { id, twins_max: unclear }),
                Err(error) => error,
            };
            if !error.is_ambiguous() {
                // A request that was cancelled may arrive all the same.
                if unclear == 0 && error.kind() != ErrorKind::Cancelled {
                    journal.lock().ended(self.key())?;
                }
                return Err(error.into());
            }
            if attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            if let Some(id) = self.created_since(Instant::now(), mark).await? {
                return Ok(Created { id, twins_max: unclear });
            }
            unclear += 1;
            attempt += 1;
        }
    }

    /// Looks for the item that a request has created which broke off at `broken_off`.
    async fn created_since(&self, broken_off: Instant, mark: &str) -> Result<Option<String>, ItemError> {
        let mut patience = Patience::since(broken_off);
        while patience.has_another_look().await {
            if let Some(item) = self.target().marked(self.folder_id, mark).await?.into_iter().next() {
                return Ok(Some(item.id));
            }
        }
        Ok(None)
    }

    /// Adds the missing parts, marks the item as complete, and compares it. `parts_left` is known of an item that was
    /// just created.
    async fn finish(&self, id: &str, parts_left: Option<usize>) -> Result<(), ItemError> {
        let is_unclear = match self.target().complete(&self.delivery.mailbox, &self.item, id, parts_left).await {
            Err(error @ ItemError::Mailbox(_)) => return Err(error),
            Err(error) => return Err(self.take_back_half(id, &error).await),
            Ok(is_unclear) => is_unclear,
        };
        let mark = json!({ "singleValueExtendedProperties": [mark_property(&self.mark.text(true))] });
        self.target().change(id, &mark).await?;
        let stage = if parts_left.is_some() { Stage::New } else { Stage::Completed };
        self.compare(id, stage, is_unclear).await
    }

    /// Takes back an item that cannot be completed, as half an item is worse than none. Returns the error to report.
    async fn take_back_half(&self, id: &str, error: &ItemError) -> ItemError {
        let left = self.target().take_back(id).await.err();
        let left = left.map(|error| format!("; what there is of it could not be taken back: {}", chain(&error)));
        ItemError::Item(format!("{}{}", error.reason(), left.unwrap_or_default()))
    }

    /// Reads the item back. Only then is it restored. `is_unclear` says that a part may have been added twice.
    async fn compare(&self, id: &str, stage: Stage, is_unclear: bool) -> Result<(), ItemError> {
        let mut attempt = 1;
        loop {
            match self.target().difference(&self.item, id, self.folder_id, stage).await? {
                None => break,
                Some(_) if is_unclear && attempt < ATTEMPTS_MAX => {
                    wait(attempt).await;
                    self.target().repair(&self.delivery.mailbox, &self.item, id).await?;
                }
                Some(_) if attempt < LOOKS_MAX => wait(attempt).await,
                Some(difference) => return Err(ItemError::Item(difference)),
            }
            attempt += 1;
        }
        Ok(self.delivery.mailbox.journal.lock().verified(self.key())?)
    }
}
