//! The control API: lets tests and scripts change the tenant without the clients' knowledge, over HTTP and without
//! signing in.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /control/application` | the tenant's id, and what to sign in with |
//! | `GET /control/users`, `POST /control/users` | lists users, or adds one (see [`UserSpec`]) |
//! | `PATCH`, `DELETE /control/users/{u}` | renames, deletes |
//! | `GET /control/users/{u}/truth` | the mailbox as JSON lines: folders, folders for contacts, calendars, task lists, messages, events, tasks, contacts |
//! | `POST /control/users/{u}/folders` | adds a folder: `parent`, `name`, `hidden` |
//! | `PATCH`, `DELETE /control/users/{u}/folders/{f}` | renames (`name`), moves (`parent`); removes permanently |
//! | `POST /control/users/{u}/messages` | adds a message: `folder`, `mime` (base64), `received`, `read`, `draft`, `flag`, `categories` |
//! | `PATCH`, `DELETE /control/users/{u}/messages/{m}` | changes any of `mime`, `read`, `flag`, `categories`, `folder`, `unreadable`; deletes permanently |
//! | `POST /control/users/{u}/contactFolders` | adds a folder for contacts: `parent`, `name`; the requests for folders change it |
//! | `POST /control/users/{u}/contacts` | adds a contact: `folder`, `fields`, `photo` (base64), `categories` |
//! | `PATCH`, `DELETE /control/users/{u}/contacts/{c}` | changes any of `fields` (null removes one), `photo`, `categories`, `folder`; deletes permanently |
//! | `POST /control/users/{u}/calendars` | adds a calendar: `name`, `owner` (name and address), `readOnly`, `group`, `color`, `broken`; the requests for folders change it |
//! | `PATCH /control/users/{u}/calendars/{c}` | replaces all of these but the name |
//! | `POST /control/users/{u}/events` | adds an event: `calendar`, `fields`, `categories`, `attachments`, `exceptions` (each with `day`, `fields`, `attachments`), `cancelled` (days), `customZone` |
//! | `PATCH`, `DELETE /control/users/{u}/events/{e}` | changes any of `fields`, `categories`, `attachments` (adds them), `calendar`; deletes permanently |
//! | `PATCH`, `DELETE /control/users/{u}/events/{e}/occurrences/{day}` | changes `fields` of an occurrence, or adds `attachments`; deletes it |
//! | `POST /control/users/{u}/taskLists` | adds a task list: `name`, `shared`, `ofOthers`; the requests for folders change it |
//! | `POST /control/users/{u}/tasks` | adds a task: `list`, `fields`, `categories`, `checklist`, `links`, `attachments` |
//! | `PATCH`, `DELETE /control/users/{u}/tasks/{t}` | changes any of `fields`, `categories`, `list`, and returns the id, which is new after a move; deletes permanently |
//! | `GET`, `DELETE /control/counters` | returns what clients did; sets the counts to zero |
//! | `GET`, `PUT /control/switches` | how the service behaves (see [`Switches`]) |
//! | `GET`, `PUT /control/rules` | what the administrator decided (see [`Rules`](crate::auth::Rules)) |
//! | `GET`, `PUT /control/limits` | the throttling limits (see [`Limits`](crate::Limits)) |
//! | `GET`, `PUT /control/faults` | the injected faults (see [`Faults`](crate::Faults)) |
//! | `GET /control/faults/injected` | how often each fault happened |
//! | `POST /control/expire-tokens`, `/control/expire-deltas`, `/control/expire-import-sessions` | makes tokens invalid |
//! | `POST /control/revoke-sessions` | signs everybody out: refresh tokens are refused as well |
//! | `POST /control/devices/{user_code}/approve` | signs in on a device, as the user would on the page |

mod contacts;
mod events;
mod gates;
mod tasks;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::Switches;
use crate::clock;
use crate::counters::Counts;
use crate::server::{ApiError, State};
use crate::tenant::{FlagStatus, NewMessage, Tenant, Unreadable, UserSpec};

type Shared = Extract<Arc<State>>;
type Done = Result<StatusCode, ApiError>;
type Made = Result<Json<Value>, ApiError>;

/// Returns the routes under `/control`.
pub fn router() -> Router<Arc<State>> {
    gates::router()
        .merge(contacts::router())
        .merge(events::router())
        .merge(tasks::router())
        .route("/application", get(application))
        .route("/users", get(users).post(add_user))
        .route("/users/{user}", patch(rename_user).delete(remove_user))
        .route("/users/{user}/truth", get(truth))
        .route("/users/{user}/folders", post(add_folder))
        .route("/users/{user}/folders/{folder}", patch(change_folder).delete(delete_folder))
        .route("/users/{user}/messages", post(add_message))
        .route("/users/{user}/messages/{message}", patch(change_message).delete(delete_message))
        .route("/counters", get(counters).delete(reset_counters))
        .route("/switches", get(switches).put(set_switches))
        .route("/expire-tokens", post(expire_tokens))
        .route("/expire-deltas", post(expire_deltas))
}

async fn application(Extract(state): Shared) -> Json<Value> {
    Json(json!({
        "url": state.url,
        "tenantId": state.tenant.id,
        "clientId": state.authority.registration().client_id,
        "clientSecret": state.authority.registration().secrets[0].value,
    }))
}

async fn users(Extract(state): Shared) -> Json<Value> {
    let rows = state.tenant.all_users().into_iter().map(|user| {
        json!({
            "id": user.id,
            "principalName": user.principal_name(),
            "displayName": user.display_name(),
            "kind": user.kind,
            "deleted": user.is_deleted(),
            "messages": user.mailbox().map(|mailbox| mailbox.lock().len()),
        })
    });
    Json(rows.collect())
}

async fn add_user(Extract(state): Shared, Json(spec): Json<UserSpec>) -> Json<Value> {
    Json(json!({"id": state.tenant.add_user(spec)}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    principal_name: String,
    display_name: String,
}

async fn rename_user(Extract(state): Shared, Path(user): Path<String>, Json(names): Json<Names>) -> Done {
    state.tenant.rename_user(&user, &names.principal_name, &names.display_name)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_user(Extract(state): Shared, Path(user): Path<String>) -> Done {
    state.tenant.remove_user(&user)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Streams the truth, because a large mailbox must not be in memory as a whole.
async fn truth(Extract(state): Shared, Path(user): Path<String>) -> Result<Response, ApiError> {
    const LINES_AHEAD: usize = 16;
    let tenant = Arc::clone(&state.tenant);
    tenant.true_folders(&user)?;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(LINES_AHEAD);
    tokio::task::spawn_blocking(move || send_truth(&tenant, &user, &sender));
    let lines =
        futures_util::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response())
}

fn send_truth(tenant: &Tenant, user: &str, sender: &tokio::sync::mpsc::Sender<Result<String, std::io::Error>>) {
    let (Ok(folders), Ok(messages)) = (tenant.true_folders(user), tenant.true_messages(user)) else { return };
    let (Ok(contact_folders), Ok(contacts)) = (tenant.true_contact_folders(user), tenant.true_contacts(user)) else {
        return;
    };
    let (Ok(calendars), Ok(events)) = (tenant.true_calendars(user), tenant.true_events(user)) else { return };
    let (Ok(task_lists), Ok(tasks)) = (tenant.true_task_lists(user), tenant.true_tasks(user)) else { return };
    let folders = folders.into_iter().map(|folder| json!({ "folder": folder }));
    let contact_folders = contact_folders.into_iter().map(|folder| json!({ "contactFolder": folder }));
    let messages = messages.map(|message| json!({ "message": message }));
    let contacts = contacts.into_iter().map(|contact| json!({ "contact": contact }));
    let calendars = calendars.into_iter().map(|calendar| json!({ "calendar": calendar }));
    let events = events.into_iter().map(|event| json!({ "event": event }));
    let task_lists = task_lists.into_iter().map(|list| json!({ "taskList": list }));
    let tasks = tasks.into_iter().map(|task| json!({ "task": task }));
    let places = folders.chain(contact_folders).chain(calendars).chain(task_lists);
    for line in places.chain(messages).chain(events).chain(tasks).chain(contacts) {
        if sender.blocking_send(Ok(format!("{line}\n"))).is_err() {
            return; // The client has disconnected.
        }
    }
}

#[derive(Deserialize)]
struct NewFolder {
    #[serde(default = "top")]
    parent: String,
    name: String,
    #[serde(default)]
    hidden: bool,
}

fn top() -> String {
    "msgfolderroot".to_owned()
}

async fn add_folder(Extract(state): Shared, Path(user): Path<String>, Json(folder): Json<NewFolder>) -> Made {
    let NewFolder { parent, name, hidden } = folder;
    let id = match hidden {
        true => state.tenant.add_hidden_folder(&user, &parent, &name)?,
        false => state.tenant.add_folder(&user, &parent, &name)?,
    };
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
struct FolderChange {
    name: Option<String>,
    parent: Option<String>,
}

async fn change_folder(
    Extract(state): Shared,
    Path((user, folder)): Path<(String, String)>,
    Json(change): Json<FolderChange>,
) -> Done {
    if let Some(name) = change.name {
        state.tenant.rename_folder(&user, &folder, &name)?;
    }
    if let Some(parent) = change.parent {
        state.tenant.move_folder(&user, &folder, &parent)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_folder(Extract(state): Shared, Path((user, folder)): Path<(String, String)>) -> Done {
    state.tenant.delete_folder(&user, &folder)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MessageInput {
    folder: Option<String>,
    mime: Option<String>,
    received: Option<String>,
    read: Option<bool>,
    draft: Option<bool>,
    flag: Option<String>,
    categories: Option<Vec<String>>,
    /// `Some(None)` makes the message readable again.
    #[serde(deserialize_with = "present")]
    unreadable: Option<Option<Unreadable>>,
}

/// Distinguishes `null` from an absent field.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl MessageInput {
    fn mime(&self) -> Result<Option<Vec<u8>>, ApiError> {
        let decode = |text: &String| STANDARD.decode(text).map_err(|error| bad("mime", &error.to_string()));
        self.mime.as_ref().map(decode).transpose()
    }

    fn flag(&self) -> Result<Option<FlagStatus>, ApiError> {
        let read = |name: &String| FlagStatus::from_name(name).ok_or_else(|| bad("flag", name));
        self.flag.as_ref().map(read).transpose()
    }
}

fn bad(name: &str, why: &str) -> ApiError {
    ApiError::bad_request("BadRequest", format!("{name}: {why}"))
}

async fn add_message(Extract(state): Shared, Path(user): Path<String>, Json(input): Json<MessageInput>) -> Made {
    let received = input.received.as_ref().map(|text| clock::parse(text).ok_or_else(|| bad("received", text)));
    let message = NewMessage {
        mime: input.mime()?.unwrap_or_default(),
        received: received.transpose()?,
        read: input.read.unwrap_or(false),
        draft: input.draft.unwrap_or(false),
        flag: input.flag()?.unwrap_or_default(),
        categories: input.categories.unwrap_or_default(),
    };
    let id = state.tenant.add_message(&user, input.folder.as_deref().unwrap_or("inbox"), message)?;
    Ok(Json(json!({ "id": id })))
}

async fn change_message(
    Extract(state): Shared,
    Path((user, message)): Path<(String, String)>,
    Json(input): Json<MessageInput>,
) -> Done {
    let tenant = &state.tenant;
    if let Some(mime) = input.mime()? {
        tenant.change_message(&user, &message, mime)?;
    }
    if let Some(read) = input.read {
        tenant.set_read(&user, &message, read)?;
    }
    if let Some(flag) = input.flag()? {
        tenant.set_flag(&user, &message, flag)?;
    }
    if let Some(categories) = input.categories {
        tenant.set_categories(&user, &message, categories)?;
    }
    if let Some(unreadable) = input.unreadable {
        tenant.mark_unreadable(&user, &message, unreadable)?;
    }
    if let Some(folder) = input.folder {
        tenant.move_message(&user, &message, &folder)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_message(Extract(state): Shared, Path((user, message)): Path<(String, String)>) -> Done {
    state.tenant.delete_message(&user, &message)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn counters(Extract(state): Shared) -> Json<Counts> {
    Json(state.counts())
}

async fn reset_counters(Extract(state): Shared) -> StatusCode {
    state.reset_counts();
    StatusCode::NO_CONTENT
}

async fn switches(Extract(state): Shared) -> Json<Switches> {
    Json(state.tenant.switches())
}

async fn set_switches(Extract(state): Shared, Json(switches): Json<Switches>) -> StatusCode {
    state.tenant.set_switches(switches);
    StatusCode::NO_CONTENT
}

async fn expire_tokens(Extract(state): Shared) -> StatusCode {
    state.authority.expire_tokens();
    StatusCode::NO_CONTENT
}

async fn expire_deltas(Extract(state): Shared) -> StatusCode {
    state.tenant.expire_deltas();
    StatusCode::NO_CONTENT
}
