//! Mail folders.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::paths::{destination, find_folder, resolve_folder};
use crate::clock;
use crate::extended;
use crate::odata::{Query, Select};
use crate::server::{Answer, ApiError, Call, Version, json_answer, page};
use crate::tenant::id::FolderKey;
use crate::tenant::{Folder, ItemKind, Mailbox, MailboxError, Search, UNNAMED};

const PROPERTIES: [&str; 7] =
    ["id", "displayName", "parentFolderId", "childFolderCount", "unreadItemCount", "totalItemCount", "isHidden"];

/// Refuses names that are not properties of a folder. Its well-known name is a property only in beta.
///
/// # Errors
/// 400 for such a name.
pub fn check_select(call: &Call, query: &Query) -> Result<(), ApiError> {
    let well_known: &[&str] = if call.route.version == Version::Beta { &["wellKnownName"] } else { &[] };
    query.select().check("MailFolder", &[PROPERTIES.as_slice(), well_known].concat())
}

/// `GET /users/{u}/mailFolders`: in v1.0 the children of the top folder, in beta all folders
pub fn list(call: &Call) -> Answer {
    check_select(call, &call.query)?;
    let hidden = call.query.is_true("includeHiddenFolders");
    let rows = call.with_mailbox(|mailbox| {
        let top = mailbox.well_known("msgfolderroot").ok_or_else(ApiError::item_not_found)?;
        let keys = match call.route.version {
            Version::V1 => children(mailbox, top),
            Version::Beta => mailbox.subtree(top).split_off(1),
        };
        Ok(rows(call, mailbox, keys, hidden))
    })?;
    let path = format!("users('{}')/mailFolders", call.user()?.id);
    page(call, rows, &path)
}

/// `GET /users/{u}/mailFolders/{f}/childFolders`
pub fn list_children(call: &Call) -> Answer {
    check_select(call, &call.query)?;
    let hidden = call.query.is_true("includeHiddenFolders");
    let (rows, id) = call.with_mailbox(|mailbox| {
        let parent = resolve_folder(call, mailbox)?;
        Ok((rows(call, mailbox, children(mailbox, parent), hidden), mailbox.folder_id(parent)))
    })?;
    page(call, rows, &format!("users('{}')/mailFolders('{id}')/childFolders", call.user()?.id))
}

/// `GET /users/{u}/mailFolders/{f}`
pub fn get(call: &Call) -> Answer {
    check_select(call, &call.query)?;
    let mut body = call.with_mailbox(|mailbox| {
        let key = resolve_folder(call, mailbox)?;
        Ok(folder_json(call, mailbox, key, &call.query.select(), &call.query))
    })?;
    body["@odata.context"] = json!(call.context(&format!("users('{}')/mailFolders/$entity", call.user()?.id)));
    Ok(json_answer(StatusCode::OK, &body))
}

fn children(mailbox: &Mailbox, parent: FolderKey) -> Vec<FolderKey> {
    mailbox.folder(parent).map(|folder| folder.children.clone()).unwrap_or_default()
}

/// Returns whether the API of mail lists a folder. It lists only folders for messages.
pub fn is_listed(folder: &Folder, hidden: bool) -> bool {
    (hidden || !folder.hidden) && folder.holds() == ItemKind::Message
}

fn rows(call: &Call, mailbox: &Mailbox, keys: Vec<FolderKey>, hidden: bool) -> Vec<Value> {
    let select = call.query.select();
    let needed = call.query.filter().ok().flatten().map(|filter| filter.properties()).unwrap_or_default();
    let select = select.needing(needed);
    let shown = keys.into_iter().filter(|key| mailbox.folder(*key).is_some_and(|folder| is_listed(folder, hidden)));
    shown.map(|key| folder_json(call, mailbox, key, &select, &call.query)).collect()
}

/// Returns a folder as JSON.
pub fn folder_json(call: &Call, mailbox: &Mailbox, key: FolderKey, select: &Select, query: &Query) -> Value {
    let Some(folder) = mailbox.folder(key) else { return Value::Null };
    let hidden = query.is_true("includeHiddenFolders");
    let child_count =
        folder.children.iter().filter(|child| mailbox.folder(**child).is_some_and(|child| is_listed(child, hidden)));
    let shown_in = |count: fn(&Folder) -> u32| match &folder.search {
        // The messages in a search folder count in their own folders.
        Some(search) => search.sources.iter().filter_map(|source| mailbox.folder(*source)).map(count).sum(),
        None => count(folder),
    };
    let mut out = json!({
        "id": mailbox.folder_id(key),
        "displayName": folder.name,
        "parentFolderId": folder.parent.map(|parent| mailbox.folder_id(parent)),
        "childFolderCount": child_count.count(),
        "unreadItemCount": shown_in(|folder| folder.unread),
        "totalItemCount": shown_in(|folder| folder.total),
        "isHidden": folder.hidden,
    });
    let object = out.as_object_mut().expect("an object was just made");
    if call.route.version == Version::Beta {
        let name = folder.well_known.filter(|name| !UNNAMED.contains(name));
        object.insert("wellKnownName".to_owned(), json!(name));
    }
    if let Some(search) = &folder.search {
        let sources: Vec<String> = search.sources.iter().map(|source| mailbox.folder_id(*source)).collect();
        object.insert("@odata.type".to_owned(), json!("#microsoft.graph.mailSearchFolder"));
        object.insert("isSupported".to_owned(), json!(true));
        object.insert("filterQuery".to_owned(), json!(search.filter));
        object.insert("includeNestedFolders".to_owned(), json!(search.nested));
        object.insert("sourceFolderIds".to_owned(), json!(sources));
    }
    let needed = select.clone();
    object.retain(|name, _| name == "id" || name.starts_with('@') || needed.wants(name));
    let wanted = extended::wanted(query, "singlevalueextendedproperties");
    let found = wanted.iter().filter_map(|id| {
        let canonical = extended::canonical(id);
        let value = match canonical.as_str() {
            "string 0x3613" => json!(folder.class),
            _ => folder.extended.get(&canonical)?.clone(),
        };
        Some(json!({"id": id, "value": value}))
    });
    let found: Vec<Value> = found.collect();
    if !found.is_empty() {
        object.insert(extended::SINGLE.to_owned(), json!(found));
    }
    out
}

/// The properties of a folder in a request.
#[derive(Debug, Default)]
struct FolderInput {
    name: Option<String>,
    hidden: Option<bool>,
    search: Option<(String, bool, Vec<String>)>,
    extended: Vec<(String, Value)>,
}

fn read_folder(call: &Call) -> Result<FolderInput, ApiError> {
    let object: Map<String, Value> = call.json()?;
    let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
    let known = ["displayName", "isHidden", "filterQuery", "includeNestedFolders", "sourceFolderIds", "wellKnownName"];
    let passed_over = ["id", "parentFolderId", "childFolderCount", "unreadItemCount", "totalItemCount", "isSupported"];
    let unknown = object.keys().find(|name| {
        let name = name.as_str();
        !(known.contains(&name) || passed_over.contains(&name) || name.contains('@') || name == extended::SINGLE)
    });
    if let Some(name) = unknown {
        let text = format!("The property '{name}' does not exist on type 'microsoft.graph.mailFolder'.");
        return Err(ApiError::bad_request("UnableToDeserializePostBody", text));
    }
    let is_search = text("@odata.type").is_some_and(|kind| kind.to_ascii_lowercase().ends_with("mailsearchfolder"));
    let search = is_search.then(|| {
        let sources = object.get("sourceFolderIds").and_then(Value::as_array).cloned().unwrap_or_default();
        (
            text("filterQuery").unwrap_or_default(),
            object.get("includeNestedFolders").and_then(Value::as_bool).unwrap_or(false),
            sources.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        )
    });
    let extended = object.get(extended::SINGLE).and_then(Value::as_array).cloned().unwrap_or_default();
    let extended = extended.iter().map(extended::read).collect::<Result<_, _>>()?;
    Ok(FolderInput {
        name: text("displayName"),
        hidden: object.get("isHidden").and_then(Value::as_bool),
        search,
        extended,
    })
}

/// `POST /users/{u}/mailFolders` and `POST /users/{u}/mailFolders/{f}/childFolders`
pub fn create(call: &Call) -> Answer {
    let input = read_folder(call)?;
    let name = input.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::bad_request("ErrorInvalidRequest", "The display name of a folder must not be empty."));
    }
    let body = call.with_mailbox(|mailbox| {
        let parent = match &call.route.folder {
            Some(_) => resolve_folder(call, mailbox)?,
            None => find_folder(mailbox, "msgfolderroot")?,
        };
        let key = match &input.search {
            Some((filter, nested, sources)) => {
                let sources = sources.iter().map(|id| find_folder(mailbox, id)).collect::<Result<_, _>>()?;
                let search = Search { filter: filter.clone(), nested: *nested, sources };
                mailbox.add_search_folder(parent, name, search)?
            }
            None => mailbox.add_folder(parent, name, input.hidden.unwrap_or(false))?,
        };
        for (id, value) in &input.extended {
            mailbox.set_folder_property(key, id.clone(), value.clone())?;
        }
        Ok(folder_json(call, mailbox, key, &Select::default(), &Query::default()))
    })?;
    with_context(call, body, StatusCode::CREATED)
}

fn with_context(call: &Call, mut body: Value, status: StatusCode) -> Answer {
    body["@odata.context"] = json!(call.context(&format!("users('{}')/mailFolders/$entity", call.user()?.id)));
    Ok(json_answer(status, &body))
}

/// `PATCH /users/{u}/mailFolders/{f}`: the name, and extended properties; `isHidden` can only be set at creation
pub fn update(call: &Call) -> Answer {
    let input = read_folder(call)?;
    let body = call.with_mailbox(|mailbox| {
        let key = resolve_folder(call, mailbox)?;
        if let Some(name) = &input.name {
            mailbox.rename_folder(key, name)?;
        }
        for (id, value) in &input.extended {
            mailbox.set_folder_property(key, id.clone(), value.clone())?;
        }
        Ok(folder_json(call, mailbox, key, &Select::default(), &Query::default()))
    })?;
    with_context(call, body, StatusCode::OK)
}

/// `POST /users/{u}/mailFolders/{f}/move`
pub fn move_to(call: &Call) -> Answer {
    let body = call.with_mailbox(|mailbox| {
        let (key, target) = (resolve_folder(call, mailbox)?, destination(call, mailbox)?);
        mailbox.move_folder(key, target)?;
        Ok(folder_json(call, mailbox, key, &Select::default(), &Query::default()))
    })?;
    with_context(call, body, StatusCode::CREATED)
}

/// `POST /users/{u}/mailFolders/{f}/copy`
pub fn copy_to(call: &Call) -> Answer {
    let body = call.with_mailbox(|mailbox| {
        let (key, target) = (resolve_folder(call, mailbox)?, destination(call, mailbox)?);
        if mailbox.lies_in(target, key) {
            return Err(MailboxError::Refused.into());
        }
        let copy = copy(mailbox, key, target)?;
        Ok(folder_json(call, mailbox, copy, &Select::default(), &Query::default()))
    })?;
    with_context(call, body, StatusCode::CREATED)
}

fn copy(mailbox: &mut Mailbox, key: FolderKey, target: FolderKey) -> Result<FolderKey, ApiError> {
    let folder = mailbox.folder(key).ok_or_else(ApiError::item_not_found)?;
    let (name, hidden, children) = (folder.name.clone(), folder.hidden, folder.children.clone());
    let copied = mailbox.add_folder(target, &name, hidden)?;
    for message in mailbox.listing(Some(key)).iter() {
        mailbox.copy_item(*message, copied, clock::now())?;
    }
    for child in children {
        copy(mailbox, child, copied)?;
    }
    Ok(copied)
}

/// `DELETE /users/{u}/mailFolders/{f}`: to Deleted Items, and from there permanently
pub fn delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let (key, deleted) = (resolve_folder(call, mailbox)?, find_folder(mailbox, "deleteditems")?);
        if mailbox.lies_in(key, deleted) {
            mailbox.remove_folder(key)?;
        } else {
            mailbox.discard_folder(key, deleted)?;
        }
        Ok(())
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/mailFolders/{f}/permanentDelete`
pub fn permanently_delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = resolve_folder(call, mailbox)?;
        Ok(mailbox.remove_folder(key)?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
