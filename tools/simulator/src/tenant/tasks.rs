//! Task lists and tasks of a mailbox, and direct changes of them for tests and the control API.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::id::{FolderKey, IdFormat, MessageKey, Named};
use super::task::Task;
use super::{
    Arrival, Content, Extra, FlagStatus, Flags, Folder, ItemKind, ListFacts, Mailbox, MailboxError, Record, Tenant,
    TenantError, message_id,
};
use crate::clock;
use crate::mime::Attachment;

/// Class of the list of flagged messages.
const FLAGGED_CLASS: &str = "IPF.Task.Flagged";

/// A task to add to a list, as if its user had written it.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// Its fields in the form of Graph. They are not checked: see [`Task::new`].
    pub fields: Map<String, Value>,
    /// Names of categories.
    pub categories: Vec<String>,
    /// Its steps: `displayName`, `isChecked` and so on.
    pub checklist: Vec<Map<String, Value>>,
    /// Its links: `webUrl`, `applicationName` and so on.
    pub links: Vec<Map<String, Value>>,
    /// Its attachments.
    pub attachments: Vec<Attachment>,
    /// When it was created, in seconds since 1970; now if absent.
    pub created: Option<i64>,
}

impl NewTask {
    /// Returns a task with these fields.
    ///
    /// # Panics
    /// Panics if `fields` is not an object.
    pub fn with(fields: Value) -> Self {
        let Value::Object(fields) = fields else { panic!("the fields of a task are an object, not {fields}") };
        Self { fields, ..Self::default() }
    }

    /// Returns the item to add to `list`.
    pub fn arrival(self, list: FolderKey) -> Arrival {
        let Self { fields, categories, checklist, links, attachments, created } = self;
        let created = created.unwrap_or_else(clock::now);
        let mut task = Task::new(&fields);
        task.settle(created);
        for mut step in checklist {
            step.entry("createdDateTime").or_insert_with(|| Value::String(clock::iso(created)));
            let number = task.next_part();
            task.checklist.insert(number, step);
        }
        for link in links {
            let number = task.next_part();
            task.links.insert(number, link);
        }
        for attachment in attachments {
            task.attach(attachment);
        }
        task_arrival(list, task, categories, created)
    }
}

/// Returns the item for a task.
pub(crate) fn task_arrival(list: FolderKey, task: Task, categories: Vec<String>, created: i64) -> Arrival {
    let extra = (!categories.is_empty()).then(|| Arc::new(Extra { categories, ..Extra::default() }));
    Arrival {
        folder: list,
        content: Content::Task(Arc::new(task)),
        // A task counts as read.
        flags: Flags { read: true, ..Flags::default() },
        received: created,
        created,
        extra,
    }
}

impl Record {
    /// Returns the content of a task; `None` for other items.
    pub fn task(&self) -> Option<&Arc<Task>> {
        match &self.content {
            Content::Task(task) => Some(task),
            _ => None,
        }
    }

    /// Returns the content of a task, for changes; `None` for other items.
    pub fn task_mut(&mut self) -> Option<&mut Task> {
        match &mut self.content {
            Content::Task(task) => Some(Arc::make_mut(task)),
            _ => None,
        }
    }
}

impl Folder {
    /// Returns whether it is the list that shows flagged messages as tasks.
    pub fn shows_flagged(&self) -> bool {
        self.class == FLAGGED_CLASS
    }
}

impl Mailbox {
    /// Returns the task lists, the default one first and that of flagged messages last. One that was deleted is none.
    pub fn task_lists(&self) -> Vec<FolderKey> {
        let (top, bin) = (self.well_known("msgfolderroot"), self.well_known("deleteditems"));
        let is_in = |key, outer: Option<FolderKey>| outer.is_some_and(|outer| self.lies_in(key, outer));
        let all = self.folders().filter(|(_, folder)| folder.holds() == ItemKind::Task).map(|(key, _)| key);
        let mut all: Vec<FolderKey> = all.filter(|key| is_in(*key, top) && !is_in(*key, bin)).collect();
        let order = |key: &FolderKey| {
            let folder = self.folder(*key);
            (folder.is_some_and(Folder::shows_flagged), folder.is_none_or(|one| one.well_known.is_none()), *key)
        };
        all.sort_by_key(order);
        all
    }

    /// Adds a task list. Several may have the same name.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the mailbox has no place for it.
    pub fn add_task_list(&mut self, name: &str, list: ListFacts) -> Result<FolderKey, MailboxError> {
        let parent = self.well_known("tasks").ok_or(MailboxError::NotFound)?;
        Ok(self.insert_folder(Folder { class: "IPF.Task".to_owned(), list, ..Folder::new(name, Some(parent)) }))
    }

    /// Returns the tasks of a list, in the order of their creation. Those of the list of flagged messages are the
    /// messages.
    pub fn tasks_in(&self, list: FolderKey) -> Vec<MessageKey> {
        if self.folder(list).is_some_and(Folder::shows_flagged) {
            let flagged = self.messages().filter(|(_, record)| record.flags.flag != FlagStatus::NotFlagged);
            return flagged.map(|(key, _)| key).collect();
        }
        self.items_of(ItemKind::Task).filter(|(_, record)| record.folder == list).map(|(key, _)| key).collect()
    }

    /// Returns the task with this id, which is valid until the task moves to another list. Immutable ids of tasks do not
    /// exist.
    pub fn resolve_task(&self, id: &str) -> Option<MessageKey> {
        let Some(Named::MessageInPlace(key, moves)) = Named::decode(id, &self.guid) else { return None };
        let record = self.message(key).filter(|record| record.moves == moves)?;
        let is_task = record.kind() == ItemKind::Task
            || (record.kind() == ItemKind::Message && record.flags.flag != FlagStatus::NotFlagged);
        is_task.then_some(key)
    }

    /// Changes a task. If it is completed by this and comes again, the next one is added to its list.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if there is no such task.
    pub fn change_task(&mut self, key: MessageKey, now: i64, edit: impl FnOnce(&mut Task)) -> Result<(), MailboxError> {
        let mut next = None;
        self.change_message(key, now, |record| {
            let Some(task) = record.task_mut() else { return };
            let was_open = !task.is_completed();
            edit(task);
            task.settle(now);
            next = task.next().filter(|_| was_open && task.is_completed());
        })?;
        let Some(next) = next else { return Ok(()) };
        let record = self.message(key).ok_or(MailboxError::NotFound)?;
        let categories = record.extra.as_deref().map(|extra| extra.categories.clone()).unwrap_or_default();
        self.add_message(task_arrival(record.folder, next, categories, now)).map(drop)
    }
}

impl Tenant {
    fn with_task<T>(
        &self,
        user: &str,
        task: &str,
        f: impl FnOnce(&mut Mailbox, MessageKey) -> Result<T, TenantError>,
    ) -> Result<T, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let found = mailbox.resolve_task(task).filter(|key| mailbox.kind_of(*key) == ItemKind::Task);
            let key = found.ok_or_else(|| TenantError::NoTask(task.to_owned()))?;
            f(mailbox, key)
        })?
    }

    /// Adds a task list and returns its id. It is renamed and removed like a folder.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user or mailbox.
    pub fn add_task_list(&self, user: &str, name: &str, facts: ListFacts) -> Result<String, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let key = mailbox.add_task_list(name, facts)?;
            Ok(mailbox.folder_id(key))
        })?
    }

    /// Adds a task to a list (an id, or `tasks` for the default one) and returns its id, which is valid until the task
    /// moves.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or list.
    pub fn add_task(&self, user: &str, list: &str, task: NewTask) -> Result<String, TenantError> {
        self.with_folder(user, list, |mailbox, list| {
            let key = mailbox.add_message(task.arrival(list))?;
            Ok(message_id(&mailbox.guid, key, 0, IdFormat::Default))
        })
    }

    /// Sets fields of a task; null removes one. A task that is completed by this and comes again gets its next one.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or task.
    pub fn change_task(&self, user: &str, task: &str, fields: &Map<String, Value>) -> Result<(), TenantError> {
        self.edit_task(user, task, |task| task.set(fields))
    }

    /// Changes a task in any way.
    ///
    /// # Errors
    /// Those of [`Self::change_task`].
    pub fn edit_task(&self, user: &str, task: &str, edit: impl FnOnce(&mut Task)) -> Result<(), TenantError> {
        self.with_task(user, task, |mailbox, key| Ok(mailbox.change_task(key, clock::now(), edit)?))
    }

    /// Sets the categories of a task.
    ///
    /// # Errors
    /// Those of [`Self::change_task`].
    pub fn set_task_categories(&self, user: &str, task: &str, categories: Vec<String>) -> Result<(), TenantError> {
        self.with_task(user, task, |mailbox, key| {
            let set = |record: &mut Record| Mailbox::extra(record).categories = categories;
            Ok(mailbox.change_message(key, clock::now(), set)?)
        })
    }

    /// Moves a task to another list and returns its new id.
    ///
    /// # Errors
    /// Those of [`Self::change_task`], and [`TenantError::NoFolder`].
    pub fn move_task(&self, user: &str, task: &str, target: &str) -> Result<String, TenantError> {
        self.with_task(user, task, |mailbox, key| {
            let target = mailbox.resolve_folder(target).ok_or_else(|| TenantError::NoFolder(target.to_owned()))?;
            mailbox.move_message(key, target, clock::now())?;
            let record = mailbox.message(key).ok_or(MailboxError::NotFound)?;
            Ok(mailbox.message_id(key, record, IdFormat::Default))
        })
    }

    /// Deletes a task permanently.
    ///
    /// # Errors
    /// Those of [`Self::change_task`].
    pub fn delete_task(&self, user: &str, task: &str) -> Result<(), TenantError> {
        self.with_task(user, task, |mailbox, key| Ok(mailbox.remove_message(key)?))
    }
}
