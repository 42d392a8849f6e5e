//! Tasks as JSON.

use serde_json::{Map, Value, json};

use crate::clock;
use crate::odata::{Query, Select};
use crate::server::ApiError;
use crate::tenant::id::{IdFormat, MailboxGuid, MessageKey, change_key};
use crate::tenant::task::{TASK_FIELDS, Task, TaskField, part_id};
use crate::tenant::{FlagStatus, Mailbox, Record, Tenant, message_id};

/// Properties that a client cannot write, and those that are written in another way.
const OTHERS: [&str; 9] = [
    "id",
    "createdDateTime",
    "lastModifiedDateTime",
    "bodyLastModifiedDateTime",
    "categories",
    "hasAttachments",
    "checklistItems",
    "linkedResources",
    "attachments",
];

/// A copy of a task's record, or of a flagged message's, to use without the mailbox's lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The mailbox.
    pub guid: MailboxGuid,
    /// The task.
    pub key: MessageKey,
    /// Its record at that time.
    pub record: Record,
}

impl View {
    /// Returns the view of a task.
    pub fn new(mailbox: &Mailbox, key: MessageKey, record: &Record) -> Self {
        Self { guid: mailbox.guid, key, record: record.clone() }
    }

    /// Returns the id of the task.
    pub fn id(&self) -> String {
        message_id(&self.guid, self.key, self.record.moves, IdFormat::Default)
    }

    /// Returns the change key, which is new after every change.
    pub fn change_key(&self) -> String {
        change_key(&self.guid, self.record.change)
    }

    /// Returns the content: that of the task, or what the flagged message says as a task.
    pub fn task(&self, tenant: &Tenant) -> Task {
        if let Some(task) = self.record.task() {
            return Task::clone(task);
        }
        let said = tenant.properties(&self.record);
        let status = if self.record.flags.flag == FlagStatus::Complete { "completed" } else { "notStarted" };
        let mut task = Task::new(json!({"title": said.subject, "status": status}).as_object().unwrap_or(&Map::new()));
        task.settle(self.record.modified);
        let link = json!({
            "applicationName": "Outlook", "displayName": said.subject, "externalId": said.internet_message_id,
            "webUrl": format!("https://outlook.office365.com/owa/?ItemID={}", self.id().replace('=', "%3D")),
        });
        task.links.extend(link.as_object().map(|link| (0, link.clone())));
        task
    }
}

/// Refuses names that are not properties of a task.
///
/// # Errors
/// 400 for such a name.
pub fn check_select(query: &Query) -> Result<(), ApiError> {
    let known: Vec<&str> = TASK_FIELDS.iter().map(|(name, _)| *name).chain(OTHERS).collect();
    query.select().check("TodoTask", &known)
}

/// Returns a task as Graph shows it, also its empty fields. Times that are not set are missing.
pub fn full(tenant: &Tenant, view: &View) -> Map<String, Value> {
    let (record, task) = (&view.record, view.task(tenant));
    let mut out = Map::new();
    for (name, kind) in TASK_FIELDS {
        let default = match kind {
            TaskField::Text => json!(""),
            TaskField::Flag => json!(false),
            TaskField::Word(words) => json!(words[0]),
            TaskField::Body => json!({"content": "", "contentType": "text"}),
            TaskField::Day | TaskField::Time | TaskField::Recurrence => continue,
        };
        out.insert(name.to_owned(), default);
    }
    let categories = record.extra.as_deref().map_or(&[][..], |extra| &extra.categories);
    out.extend(
        [
            ("@odata.etag", json!(format!("W/\"{}\"", view.change_key()))),
            ("id", json!(view.id())),
            ("createdDateTime", json!(clock::iso(record.created))),
            ("lastModifiedDateTime", json!(clock::iso(record.modified))),
            ("categories", json!(categories)),
            ("hasAttachments", json!(!task.attachments.is_empty())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    out.extend(task.fields);
    out
}

/// Returns a task with the properties to show.
pub fn task_json(tenant: &Tenant, view: &View, select: &Select) -> Value {
    let mut task = full(tenant, view);
    select.retain(&mut task);
    Value::Object(task)
}

/// Returns the steps of a task as Graph shows them.
pub fn checklist(tenant: &Tenant, view: &View) -> Vec<Value> {
    parts(view, view.task(tenant).checklist)
}

/// Returns the links of a task as Graph shows them.
pub fn links(tenant: &Tenant, view: &View) -> Vec<Value> {
    parts(view, view.task(tenant).links)
}

fn parts(view: &View, parts: impl IntoIterator<Item = (u32, Map<String, Value>)>) -> Vec<Value> {
    let with_id = |(number, mut part): (u32, Map<String, Value>)| {
        part.insert("id".to_owned(), json!(part_id(&view.guid, view.key.0, number)));
        Value::Object(part)
    };
    parts.into_iter().map(with_id).collect()
}
