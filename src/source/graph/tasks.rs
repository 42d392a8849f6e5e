//! The tasks of a user (Microsoft To Do): lists, what changed in them, whole tasks and their files.
//!
//! Traps of the service (Graph: todoTaskList, todoTask):
//! - A task is known only in its list: it has no address without the list, and its row does not name the list. So the
//!   list is noted in every row ([`LIST`]), and an item is known by both ids together ([`Task::id`]). A task that moves to
//!   another list gets another id.
//! - The row of a listing lacks the steps and the links of a task. They come with the task itself, if it is asked for
//!   them.
//! - A task has no change key. Its entity tag is its version.
//! - Lists that others share appear in the mailboxes of all who use them. They belong to their owner.
//! - Some tenants refuse what changed although they list tasks.

mod todo;

use super::client::Client;
use super::error::GraphError;
use super::expected::Expected;
use super::mail::{PAGE_SIZE, found};
use super::model::parse_date;
use super::pages::Ends;
use super::request::{Request, Scope};
use super::round::Round;
use super::urls::path;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;

/// The name under which the id of its list is noted in the JSON of a task.
pub const LIST: &str = "@strongroom.list";
/// The well-known name of the list with the flagged mails, as tasks.
pub const FLAGGED_EMAILS: &str = "flaggedEmails";
/// Stands between the id of a list and that of a task in it. No id has one.
const SEPARATOR: char = ' ';
/// Maximum number of lists of a user. Each costs a request in every run. People have at most a few dozen.
const LISTS_MAX: usize = 10_000;
/// Maximum number of files of a task that are listed.
const FILES_MAX: usize = 1_000;
/// Maximum number of bytes of a file (Graph: 25 MB), with some room.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A list of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskList {
    /// The id.
    pub id: String,
    /// The name that people see.
    pub display_name: Option<String>,
    /// True if it belongs to this user.
    #[serde(default = "yes")]
    pub is_owner: bool,
    /// True if others use it, too.
    #[serde(default)]
    pub is_shared: bool,
    /// The well-known name; `none` if it has none.
    pub wellknown_list_name: Option<String>,
}

fn yes() -> bool {
    true
}

impl TaskList {
    /// Returns true if the list belongs to another user, in whose backup it is.
    pub fn is_of_others(&self) -> bool {
        self.is_shared && !self.is_owner
    }
}

/// A task, as a listing or a request for it describes it.
pub struct Task {
    /// The id of the list and that of the task.
    id: String,
    /// The properties that a backup looks at.
    pub row: TaskRow,
    /// The JSON text, with the list noted in it.
    pub raw: Box<RawValue>,
}

/// The properties of a task that a backup looks at.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRow {
    /// The id, in the list.
    pub id: String,
    /// The id of the list.
    #[serde(rename = "@strongroom.list", default)]
    pub list: String,
    #[serde(rename = "@odata.etag")]
    etag: Option<String>,
    created_date_time: Option<String>,
    last_modified_date_time: Option<String>,
    /// True if the task has files.
    #[serde(default)]
    pub has_attachments: bool,
    title: Option<IgnoredAny>,
    /// Present if the task left the list.
    #[serde(rename = "@removed")]
    pub removed: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let row: TaskRow = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        if row.list.is_empty() || row.list.contains(SEPARATOR) {
            return Err(serde::de::Error::custom("a task of no list"));
        }
        Ok(Self { id: format!("{}{SEPARATOR}{}", row.list, row.id), row, raw })
    }
}

impl Task {
    /// Returns the id of the list and that of the task, as one text.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the version of the task.
    pub fn version(&self) -> Option<&str> {
        self.row.etag.as_deref().or(self.row.last_modified_date_time.as_deref())
    }

    /// Returns true if the row has what a listing tells of a task. Steps and links are not among that.
    pub fn is_whole(&self) -> bool {
        self.row.title.is_some() && self.version().is_some()
    }

    /// Returns when the task was created, in seconds since 1970 (UTC).
    pub fn created(&self) -> Option<i64> {
        parse_date(self.row.created_date_time.as_deref()?)
    }

    /// Returns when the task was changed last, in seconds since 1970 (UTC).
    pub fn changed(&self) -> Option<i64> {
        parse_date(self.row.last_modified_date_time.as_deref()?)
    }
}

/// A file of a task that was listed, with all that the list says of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct TaskFile(Value);

impl TaskFile {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// Returns the media type; empty if it is not known.
    pub fn media_type(&self) -> &str {
        self.text("contentType")
    }

    /// Returns the number of bytes. The service may count a few more than there are.
    pub fn size(&self) -> u64 {
        self.0.get("size").and_then(Value::as_u64).unwrap_or(0)
    }
}

/// The tasks of a user.
#[derive(Clone)]
pub struct Tasks {
    client: Client,
    user: Arc<str>,
}

impl Tasks {
    /// Names the tasks of the user with the id `user`.
    pub fn new(client: Client, user: &str) -> Self {
        Self { client, user: user.into() }
    }

    fn get(&self, label: &'static str, segments: &[&str]) -> Request {
        let path = path(&[&["users", &*self.user, "todo", "lists"], segments].concat());
        Request::get(path, Scope::Mailbox(self.user.clone())).labelled(label)
    }

    /// Lists the lists of the user. Those of others are among them.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn lists(&self) -> Result<Vec<TaskList>, GraphError> {
        let all: Vec<TaskList> = self.client.collect(self.get("listing task lists", &[]), LISTS_MAX).await?;
        let mut seen = HashSet::new();
        Ok(all.into_iter().filter(|list| seen.insert(list.id.clone())).collect())
    }

    /// Returns the list with the id `id`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn list(&self, id: &str) -> Result<Option<TaskList>, GraphError> {
        let request = self.get("reading a task list", &[id]);
        let check = |list: &TaskList| Expected::id(id, &list.id);
        found(self.client.json_that(request, check).await)
    }

    /// Returns true if a delta link may be followed.
    pub fn may_follow(&self, link: &str) -> bool {
        self.client.may_follow(link)
    }

    /// Starts to list the tasks of `list`: those that changed since `link` was given out, or all of them without a link.
    pub fn changes(&self, list: &str, link: Option<&str>) -> Round<Task> {
        const LABEL: &str = "listing tasks";
        let request = match link {
            Some(link) => Request::follow(link.to_owned(), Scope::Mailbox(self.user.clone())).labelled(LABEL),
            None => self.get(LABEL, &[list, "tasks", "delta"]),
        };
        let pages = self.client.pages(request.prefer(PAGE_SIZE), Ends::WithDeltaLink);
        Round::new(pages).noting(LIST, list).that_may_be_refused()
    }

    /// Starts to list all tasks of `list`, for a tenant that does not tell what changed.
    pub fn listing(&self, list: &str) -> Round<Task> {
        let request = self.get("listing tasks in full", &[list, "tasks"]);
        Round::new(self.client.pages(request.prefer(PAGE_SIZE), Ends::Plainly)).noting(LIST, list)
    }

    /// Returns a whole task by its id, which is that of [`Task::id`].
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn task(&self, id: &str) -> Result<Option<Task>, GraphError> {
        let Some((list, task)) = id.split_once(SEPARATOR) else { return Ok(None) };
        let request = self.get("reading a task", &[list, "tasks", task]);
        let request = request.query("$expand", "checklistItems,linkedResources");
        let answer = self.client.json_that::<Box<RawValue>>(request, |found| match read(found, list) {
            Some(found) => Expected::id(task, &found.row.id),
            None => Err("it is no task"),
        });
        Ok(found(answer.await)?.and_then(|found| read(&found, list)))
    }

    /// Lists the files of a task.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn files(&self, task: &TaskRow) -> Result<Vec<TaskFile>, GraphError> {
        let request = self.get("listing the files of a task", &[&task.list, "tasks", &task.id, "attachments"]);
        self.client.collect(request, FILES_MAX).await
    }

    /// Returns the bytes of a file.
    ///
    /// # Errors
    /// See [`GraphError`]. It is an error if there are more than the service accepts.
    pub async fn file(&self, task: &TaskRow, file: &TaskFile) -> Result<Bytes, GraphError> {
        let segments = [&*task.list, "tasks", &task.id, "attachments", file.text("id"), "$value"];
        let request = self.get("reading a file of a task", &segments).uncoded().size_hint(file.size());
        self.client.bytes_of(request, FILE_BYTES_MAX, Expected::attachment(&file.0)).await
    }
}

/// Reads a task, with its list noted in its JSON.
fn read(task: &RawValue, list: &str) -> Option<Task> {
    let rest = task.get().trim_start().strip_prefix('{')?;
    let list = serde_json::to_string(list).ok()?;
    serde_json::from_str(&format!("{{\"{LIST}\":{list},{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorKind;
    use super::super::testing::{Service, answer, error, json};
    use super::*;

    fn tasks(service: &Service) -> Tasks {
        Tasks::new(service.client(), "u")
    }

    #[tokio::test]
    async fn lists_of_others_are_told_apart() {
        let page = r#"{"value":[
            {"id":"1","displayName":"Tasks","isOwner":true,"isShared":false,"wellknownListName":"defaultList"},
            {"id":"2","displayName":"Ours","isOwner":true,"isShared":true,"wellknownListName":"none"},
            {"id":"3","displayName":"Theirs","isOwner":false,"isShared":true,"wellknownListName":"none"},
            {"id":"1","displayName":"Tasks"}]}"#;
        let service = Service::start([json("200 OK", page)]).await;
        let lists = tasks(&service).lists().await.unwrap();
        let told: Vec<_> = lists.iter().map(|list| (list.id.as_str(), list.is_of_others())).collect();
        assert_eq!(told, [("1", false), ("2", false), ("3", true)]);
    }

    #[tokio::test]
    async fn rows_name_their_list_and_the_whole_task_is_asked_for() {
        let page = r#"{"value":[{"id":"T/1","title":"a","lastModifiedDateTime":"2026-11-02T09:30:00Z"},{"id":"T2","@removed":{"reason":"deleted"}}],
            "@odata.deltaLink":"LINK"}"#;
        let whole = r#"{"id":"T-1=","title":"a","checklistItems":[],"linkedResources":[],"new":1.50}"#;
        let service = Service::start([]).await;
        service.graph([json("200 OK", &page.replace("LINK", &format!("{}/v1.0/x", service.url)))]);
        let mut round = tasks(&service).changes("L=", None);
        let page = round.next().await.unwrap().unwrap();
        let rows: Vec<Task> = page.rows().map(Result::unwrap).collect();
        assert_eq!((rows[0].id(), rows[0].is_whole(), rows[0].row.list.as_str()), ("L= T/1", true, "L="));
        assert_eq!((rows[1].id(), rows[1].row.removed.is_some()), ("L= T2", true));
        drop(page);
        assert!(round.next().await.unwrap().is_none() && round.link().is_some());
        service.graph([json("200 OK", r#"{"id":"other","title":"b"}"#), json("200 OK", whole)]);
        let task = tasks(&service).task(rows[0].id()).await.unwrap().expect("a task");
        assert!(task.raw.get().ends_with(r#""new":1.50}"#), "{}", task.raw.get());
        assert_eq!(task.id(), "L= T-1=");
        let asked = service.requests("/todo/lists/L%3D/tasks/T%2F1?$expand=checklistItems,linkedResources");
        assert_eq!(asked.len(), 2, "another task is not taken for it");
    }

    #[tokio::test]
    async fn where_changes_are_refused_tasks_are_listed() {
        let service = Service::start([error("403 Forbidden", "ErrorAccessDenied")]).await;
        let refused = tasks(&service).changes("L", None).next().await.err().unwrap();
        assert_eq!((refused.kind(), refused.status()), (ErrorKind::DeltaUnsupported, Some(403)));
        let service = Service::start([error("403 Forbidden", "ErrorAccessDenied")]).await;
        let refused = tasks(&service).listing("L").next().await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Denied);
    }

    #[tokio::test]
    async fn a_file_is_compared_with_what_the_list_says() {
        let listed = r#"{"value":[{"id":"F","name":"a.bin","contentType":"image/png","size":200000}]}"#;
        let task: Task = serde_json::from_str(r#"{"@strongroom.list":"L","id":"T"}"#).unwrap();
        let right = "x".repeat(200_000);
        let service = Service::start([
            json("200 OK", listed),
            answer("200 OK", "Content-Type: text/html", "<!DOCTYPE html><html></html>"),
            answer("200 OK", "", &right),
        ])
        .await;
        let tasks = tasks(&service);
        let files = tasks.files(&task.row).await.unwrap();
        assert_eq!((files[0].name(), files[0].media_type(), files[0].size()), ("a.bin", "image/png", 200_000));
        assert_eq!(tasks.file(&task.row, &files[0]).await.unwrap(), right);
    }

    #[test]
    fn a_task_is_known_by_its_list_and_its_id() {
        let task: Task = serde_json::from_str(
            r#"{"@strongroom.list":"L/=","id":"T","title":null,"new":[1.50],
                "@odata.etag":"W/\"x\"","createdDateTime":"1970-01-01T00:00:01Z"}"#,
        )
        .unwrap();
        assert_eq!((task.id(), task.version(), task.created()), ("L/= T", Some("W/\"x\""), Some(1)));
        assert!(!task.is_whole(), "without a title it is no task");
        assert!(task.raw.get().contains(r#""new":[1.50]"#));
        assert!(serde_json::from_str::<Task>(r#"{"id":"T"}"#).is_err());
    }
}
