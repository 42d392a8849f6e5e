//! Task lists.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, json_answer, page};
use crate::tenant::id::{FolderKey, change_key};
use crate::tenant::{Folder, ItemKind, ListFacts, Mailbox};

const PROPERTIES: [&str; 5] = ["id", "displayName", "isOwner", "isShared", "wellknownListName"];

/// Refuses names that are not properties of a list.
///
/// # Errors
/// 400 for such a name.
pub fn check_select(query: &Query) -> Result<(), ApiError> {
    query.select().check("TodoTaskList", &PROPERTIES)
}

/// Returns `wellknownListName`.
pub fn well_known(folder: &Folder) -> &'static str {
    match folder {
        folder if folder.shows_flagged() => "flaggedEmails",
        folder if folder.well_known == Some("tasks") => "defaultList",
        _ => "none",
    }
}

/// Returns a list as JSON.
pub fn list_json(mailbox: &Mailbox, key: FolderKey) -> Value {
    let Some(folder) = mailbox.folder(key) else { return Value::Null };
    json!({
        "@odata.etag": format!("W/\"{}\"", change_key(&mailbox.guid, folder.change)),
        "id": mailbox.folder_id(key),
        "displayName": folder.name,
        "isOwner": !folder.list.of_others,
        "isShared": folder.list.shared || folder.list.of_others,
        "wellknownListName": well_known(folder),
    })
}

/// Returns the list in the path.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    let id = call.route.folder.as_deref().unwrap_or_default();
    // Only an id names a list. Well-known names are names of folders.
    if id.len() < 60 {
        return Err(ApiError::invalid_id());
    }
    let is_list = |key: &FolderKey| mailbox.folder(*key).is_some_and(|folder| folder.holds() == ItemKind::Task);
    mailbox.resolve_folder(id).filter(is_list).ok_or_else(ApiError::item_not_found)
}

/// `GET /users/{u}/todo/lists`
pub fn list(call: &Call) -> Answer {
    check_select(&call.query)?;
    let rows =
        call.with_mailbox(|mailbox| Ok(mailbox.task_lists().into_iter().map(|key| list_json(mailbox, key)).collect()))?;
    page(call, rows, &format!("users('{}')/todo/lists", call.user()?.id))
}

/// `GET /users/{u}/todo/lists/{l}`
pub fn get(call: &Call) -> Answer {
    check_select(&call.query)?;
    let mut body = call.with_mailbox(|mailbox| Ok(list_json(mailbox, resolve(call, mailbox)?)))?;
    if let Some(object) = body.as_object_mut() {
        call.query.select().retain(object);
    }
    with_context(call, body, StatusCode::OK)
}

fn with_context(call: &Call, mut body: Value, status: StatusCode) -> Answer {
    body["@odata.context"] = json!(call.context(&format!("users('{}')/todo/lists/$entity", call.user()?.id)));
    Ok(json_answer(status, &body))
}

fn read_name(call: &Call) -> Result<Option<String>, ApiError> {
    let object: Map<String, Value> = call.json()?;
    let known = |name: &String| PROPERTIES.contains(&name.as_str()) || name.contains('@');
    if let Some(name) = object.keys().find(|name| !known(name)) {
        let text = format!("The property '{name}' does not exist on type 'microsoft.graph.todoTaskList'.");
        return Err(ApiError::bad_request("UnableToDeserializePostBody", text));
    }
    let name = object.get("displayName").and_then(Value::as_str).map(str::to_owned);
    if name.as_deref().is_some_and(|name| name.trim().is_empty()) {
        return Err(ApiError::bad_request("invalidRequest", "The name of a list must not be empty."));
    }
    Ok(name)
}

/// `POST /users/{u}/todo/lists`
pub fn create(call: &Call) -> Answer {
    let name = read_name(call)?.ok_or_else(|| ApiError::bad_request("invalidRequest", "A list needs a name."))?;
    let body = call.with_mailbox(|mailbox| {
        let key = mailbox.add_task_list(&name, ListFacts::default())?;
        Ok(list_json(mailbox, key))
    })?;
    with_context(call, body, StatusCode::CREATED)
}

/// `PATCH /users/{u}/todo/lists/{l}`: the name
pub fn update(call: &Call) -> Answer {
    let name = read_name(call)?;
    let body = call.with_mailbox(|mailbox| {
        let key = own(call, mailbox)?;
        if let Some(name) = &name {
            mailbox.rename_folder(key, name)?;
        }
        Ok(list_json(mailbox, key))
    })?;
    with_context(call, body, StatusCode::OK)
}

/// `DELETE /users/{u}/todo/lists/{l}`: with all its tasks
pub fn delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = own(call, mailbox)?;
        Ok(mailbox.remove_folder(key)?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Returns the list in the path, if it is one that its user made.
fn own(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    let key = resolve(call, mailbox)?;
    let is_fixed = mailbox.folder(key).is_some_and(|folder| well_known(folder) != "none");
    if is_fixed {
        return Err(ApiError::bad_request("invalidRequest", "A well-known list cannot be changed."));
    }
    Ok(key)
}
