//! Folders for contacts. The default folder has the well-known name `contacts`, and no collection lists it.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, json_answer, page};
use crate::tenant::id::FolderKey;
use crate::tenant::{Folder, Mailbox};

const PROPERTIES: [&str; 3] = ["id", "displayName", "parentFolderId"];

/// Refuses names that are not properties of a folder for contacts, such as a count.
///
/// # Errors
/// 400 for such a name.
pub fn check_select(query: &Query) -> Result<(), ApiError> {
    query.select().check("ContactFolder", &PROPERTIES)
}

/// `GET /users/{u}/contactFolders` (the children of the default folder) and `.../contactFolders/{f}/childFolders`
pub fn list(call: &Call) -> Answer {
    check_select(&call.query)?;
    let hidden = call.state.tenant.switches().machine_made_contact_folders;
    let (rows, id) = call.with_mailbox(|mailbox| {
        let parent = resolve(call, mailbox)?;
        let children = mailbox.folder(parent).map(|folder| folder.children.clone()).unwrap_or_default();
        let listed = children.into_iter().filter(|key| {
            mailbox.folder(*key).is_some_and(|folder| folder.holds_contacts() && (hidden || !folder.hidden))
        });
        let rows = listed.map(|key| folder_json(mailbox, key)).collect();
        Ok((rows, mailbox.folder_id(parent)))
    })?;
    let user = call.user()?.id.clone();
    let path = match call.route.folder {
        Some(_) => format!("users('{user}')/contactFolders('{id}')/childFolders"),
        None => format!("users('{user}')/contactFolders"),
    };
    page(call, rows, &path)
}

/// `GET /users/{u}/contactFolders/{f}`
pub fn get(call: &Call) -> Answer {
    check_select(&call.query)?;
    let mut body = call.with_mailbox(|mailbox| Ok(folder_json(mailbox, resolve(call, mailbox)?)))?;
    if let Some(object) = body.as_object_mut() {
        call.query.select().retain(object);
    }
    with_context(call, body, StatusCode::OK)
}

/// Returns the folder in the path, or the default folder.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    find(mailbox, call.route.folder.as_deref().unwrap_or("contacts"))
}

/// Returns the folder for contacts with this id or well-known name.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn find(mailbox: &Mailbox, id_or_name: &str) -> Result<FolderKey, ApiError> {
    let found = mailbox.resolve_folder(id_or_name);
    found.filter(|key| mailbox.folder(*key).is_some_and(Folder::holds_contacts)).ok_or_else(|| {
        // A long text was once an id, of another mailbox or of a folder that is gone.
        if id_or_name.len() >= 60 { ApiError::item_not_found() } else { ApiError::invalid_id() }
    })
}

/// Returns a folder as JSON.
pub fn folder_json(mailbox: &Mailbox, key: FolderKey) -> Value {
    let Some(folder) = mailbox.folder(key) else { return Value::Null };
    json!({
        "id": mailbox.folder_id(key),
        "displayName": folder.name,
        "parentFolderId": folder.parent.map(|parent| mailbox.folder_id(parent)),
    })
}

fn with_context(call: &Call, mut body: Value, status: StatusCode) -> Answer {
    body["@odata.context"] = json!(call.context(&format!("users('{}')/contactFolders/$entity", call.user()?.id)));
    Ok(json_answer(status, &body))
}

/// Returns the name of the folder in a request.
fn read_name(call: &Call) -> Result<Option<String>, ApiError> {
    let object: Map<String, Value> = call.json()?;
    let known = |name: &String| PROPERTIES.contains(&name.as_str()) || name.contains('@');
    if let Some(name) = object.keys().find(|name| !known(name)) {
        let text = format!("The property '{name}' does not exist on type 'microsoft.graph.contactFolder'.");
        return Err(ApiError::bad_request("UnableToDeserializePostBody", text));
    }
    let name = object.get("displayName").and_then(Value::as_str).map(str::to_owned);
    if name.as_deref() == Some("") {
        return Err(ApiError::bad_request("ErrorInvalidRequest", "The display name of a folder must not be empty."));
    }
    Ok(name)
}

/// `POST /users/{u}/contactFolders` (in the default folder) and `POST .../contactFolders/{f}/childFolders`
pub fn create(call: &Call) -> Answer {
    let name = read_name(call)?;
    let name = name.ok_or_else(|| ApiError::bad_request("ErrorInvalidRequest", "A folder needs a display name."))?;
    let body = call.with_mailbox(|mailbox| {
        let parent = resolve(call, mailbox)?;
        let key = mailbox.add_contact_folder(parent, &name)?;
        Ok(folder_json(mailbox, key))
    })?;
    with_context(call, body, StatusCode::CREATED)
}

/// `PATCH /users/{u}/contactFolders/{f}`: the name
pub fn update(call: &Call) -> Answer {
    let name = read_name(call)?;
    let body = call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        if let Some(name) = &name {
            mailbox.rename_folder(key, name)?;
        }
        Ok(folder_json(mailbox, key))
    })?;
    with_context(call, body, StatusCode::OK)
}

/// `DELETE /users/{u}/contactFolders/{f}`: to Deleted Items, and from there permanently
pub fn delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        let deleted = mailbox.well_known("deleteditems").ok_or_else(ApiError::item_not_found)?;
        if mailbox.lies_in(key, deleted) {
            mailbox.remove_folder(key)?;
        } else {
            mailbox.discard_folder(key, deleted)?;
        }
        Ok(())
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/contactFolders/{f}/permanentDelete`
pub fn permanently_delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        Ok(mailbox.remove_folder(key)?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
