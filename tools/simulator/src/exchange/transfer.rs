//! Export and import of whole items.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ids::to_mail_folder_id;
use super::stream::{Facts, Item};
use crate::clock;
use crate::mail::json::View;
use crate::mail::paths;
use crate::mime::Importance;
use crate::server::{Answer, ApiError, Call, State, json_answer};
use crate::tenant::id::IdFormat;
use crate::tenant::{
    Arrival, CalendarEvent, Contact, Content, Extra, FlagStatus, Flags, ItemKind, Mailbox, Record, Task, Tenant,
    Unreadable,
};

/// Maximum number of items in one export.
const EXPORT_MAX: usize = 20;
/// Maximum length of the body of an import, in bytes: 150 MB as base64, and a little more.
const IMPORT_BYTES_MAX: usize = 210 * 1024 * 1024;

#[derive(Deserialize)]
struct ExportRequest {
    #[serde(rename = "itemIds", alias = "ItemIds", alias = "itemids")]
    item_ids: Vec<String>,
}

/// `POST .../exportItems`: failures are rows too, and rows come in no particular order
pub(super) fn export(call: &Call) -> Answer {
    let ids = call.json::<ExportRequest>()?.item_ids;
    if ids.is_empty() || ids.len() > EXPORT_MAX {
        let text = format!("The number of items to export must be between 1 and {EXPORT_MAX}.");
        return Err(ApiError::bad_request("ErrorInvalidRequest", text));
    }
    let found = call.with_mailbox(|mailbox| {
        let view = |id: &String| {
            let key = mailbox.resolve_item(id)?;
            Some(View::new(mailbox, key, mailbox.message(key)?))
        };
        Ok(ids.iter().map(view).collect::<Vec<_>>())
    })?;
    let export = call.state.transfers.next_export();
    let tenant = &call.state.tenant;
    let number = if tenant.switches().unstable_exports { export + 1 } else { 0 };
    let mut rows: Vec<Value> = ids
        .iter()
        .zip(found)
        .map(|(id, view)| match view {
            None => failed_row(id, "ErrorItemNotFound", "The specified object was not found in the store."),
            Some(view) if unreadable(&view.record) == Some(Unreadable::CorruptData) => {
                failed_row(id, "ErrorCorruptData", "Data is corrupt.")
            }
            Some(view) => {
                let data = STANDARD.encode(item(tenant, &view).export(number));
                json!({"itemId": id, "changeKey": view.change_key(), "data": data})
            }
        })
        .collect();
    let shift = (export as usize) % rows.len();
    rows.rotate_left(shift);
    let context = call.context("Collection(microsoft.graph.exportItemResponse)");
    Ok(json_answer(StatusCode::OK, &json!({"@odata.context": context, "value": rows})))
}

fn unreadable(record: &Record) -> Option<Unreadable> {
    record.extra.as_deref().and_then(|extra| extra.unreadable)
}

fn failed_row(id: &str, code: &str, message: &str) -> Value {
    json!({"itemId": id, "changeKey": null, "error": {"code": code, "message": message}})
}

fn item(tenant: &Tenant, view: &View) -> Item {
    let (record, extra) = (&view.record, view.record.extra.as_deref().cloned().unwrap_or_default());
    let facts = Facts {
        received: record.received,
        created: record.created,
        read: record.flags.read,
        draft: record.flags.draft,
        flag: record.flags.flag.name().to_owned(),
        flag_dates: extra.flag,
        other: record.flags.other,
        last_verb: record.flags.last_verb,
        categories: extra.categories,
        extended: extra.extended,
        class: record.kind().class().map(str::to_owned).or(extra.class),
        importance: extra.importance.map(|importance| importance.name().to_owned()),
    };
    Item { facts, mime: tenant.mime(&view.guid, view.key, record).to_vec() }
}

/// `POST .../createImportSession`
pub(super) fn create_session(call: &Call, mailbox: &str) -> Answer {
    let (token, expires) = call.state.transfers.open(call.user()?.id.clone(), Timestamp::now());
    let url = format!(
        "{}/outlook.office365.com/api/g{}/Mailboxes('{mailbox}')/importItem?authtoken={token}",
        call.state.url,
        call.route.version.name()
    );
    let context = call.context("microsoft.graph.mailboxItemImportSession");
    let body = json!({"@odata.context": context, "importUrl": url, "expirationDateTime": expires.to_string()});
    Ok(json_answer(StatusCode::OK, &body))
}

/// Returns the routes of the host in import URLs.
pub fn router() -> Router<Arc<State>> {
    Router::new().route("/outlook.office365.com/api/{version}/{mailbox}/importItem", post(import))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ImportRequest {
    folder_id: String,
    mode: String,
    data: String,
    #[serde(default)]
    item_id: Option<String>,
    #[serde(default)]
    change_key: Option<String>,
}

async fn import(
    Extract(state): Extract<Arc<State>>,
    Path(_): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Answer {
    let unauthorized = |text| ApiError::new(StatusCode::UNAUTHORIZED, "ErrorAccessDenied", text);
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::AUTHORIZATION) && state.tenant.switches().refuse_tokens_on_urls {
        return Err(unauthorized("The request must not carry a token."));
    }
    let token = query.get("authtoken").map_or("", String::as_str);
    let user = state.transfers.user(token, Timestamp::now()).ok_or_else(|| unauthorized("The token has expired."))?;
    let len = parts.headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok()).unwrap_or(0);
    let entry = state.enter_by_url("ImportItem", &user, len)?;
    let body = axum::body::to_bytes(body, IMPORT_BYTES_MAX).await.map_err(|_| {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ErrorRequestEntityTooLarge", "The request is too large.")
    })?;
    state.counters.received(body.len());
    let request: ImportRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("ErrorInvalidRequest", format!("The request is invalid: {error}")))?;
    let (item_id, change_key) = work(state, request, user).await?;
    Ok(entry.hold(json_answer(StatusCode::OK, &json!({"itemId": item_id, "changeKey": change_key}))))
}

/// Runs the import in the background. It completes even if the client disconnects or the gateway times out.
async fn work(state: Arc<State>, request: ImportRequest, user: String) -> Result<(String, String), ApiError> {
    let switches = state.tenant.switches();
    let work = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(switches.imports_take_ms)).await;
        request.apply(&state, &user)
    });
    let patience = switches.imports_answer_within_ms.map_or(Duration::MAX, Duration::from_millis);
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done.expect("an import does not panic"),
        Err(_) => Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "UnknownError", "")),
    }
}

impl ImportRequest {
    fn apply(&self, state: &State, user: &str) -> Result<(String, String), ApiError> {
        let invalid = |text: &str| ApiError::bad_request("ErrorInvalidRequest", text);
        let stream = STANDARD.decode(&self.data).map_err(|_| invalid("Data is not base64."))?;
        let item =
            Item::import(&stream).map_err(|error| ApiError::bad_request("ErrorCorruptData", error.to_string()))?;
        let folder_id = to_mail_folder_id(&self.folder_id)?;
        let is_update = match self.mode.to_ascii_lowercase().as_str() {
            "create" => false,
            "update" => true,
            _ => return Err(invalid("Mode must be 'create' or 'update'.")),
        };
        let result = state.tenant.with_mailbox(user, |mailbox| {
            let folder = paths::find_folder(mailbox, &folder_id)?;
            let key = match (is_update, &self.item_id, &self.change_key) {
                (false, None, None) => mailbox.add_message(arrival(folder, item))?,
                (false, ..) => return Err(invalid("ItemId and ChangeKey are not allowed when an item is created.")),
                (true, Some(item_id), Some(change_key)) => {
                    let key = mailbox.resolve_item(item_id).ok_or_else(ApiError::item_not_found)?;
                    let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
                    if record.folder != folder {
                        return Err(ApiError::item_not_found());
                    }
                    if View::new(mailbox, key, record).change_key() != *change_key {
                        let text = "The send or update operation could not be performed because the change key does not match.";
                        return Err(ApiError::new(StatusCode::CONFLICT, "ErrorIrresolvableConflict", text));
                    }
                    mailbox.change_message(key, clock::now(), |record| update(record, item))?;
                    key
                }
                (true, ..) => return Err(invalid("ItemId and ChangeKey are required when an item is updated.")),
            };
            identify(mailbox, key)
        });
        result.map_err(ApiError::from)?
    }
}

fn identify(mailbox: &Mailbox, key: crate::tenant::id::MessageKey) -> Result<(String, String), ApiError> {
    let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
    let view = View::new(mailbox, key, record);
    Ok((view.id(IdFormat::Default), view.change_key()))
}

/// Returns the content of an imported item.
fn content(item: &mut Item) -> Content {
    let bytes = std::mem::take(&mut item.mime);
    let class = item.facts.class.as_deref();
    let is = |kind: ItemKind| class.is_some() && class == kind.class();
    let of_other_kind = match () {
        () if is(ItemKind::Contact) => Contact::from_json(&bytes).map(|it| Content::Contact(Arc::new(it))),
        () if is(ItemKind::Task) => Task::from_json(&bytes).map(|it| Content::Task(Arc::new(it))),
        () if is(ItemKind::Event) => CalendarEvent::from_json(&bytes).map(|it| Content::Event(Arc::new(it))),
        () => None,
    };
    if of_other_kind.is_some() {
        item.facts.class = None;
    }
    of_other_kind.unwrap_or_else(|| Content::Mime(Arc::new(bytes)))
}

fn arrival(folder: crate::tenant::id::FolderKey, mut item: Item) -> Arrival {
    let content = content(&mut item);
    let (flags, extra) = state_of(&item.facts);
    Arrival {
        folder,
        content,
        flags,
        received: item.facts.received,
        created: item.facts.created,
        extra: (extra != Extra::default()).then(|| Arc::new(extra)),
    }
}

fn update(record: &mut Record, mut item: Item) {
    let content = content(&mut item);
    // An item does not change its kind.
    if content.kind() == record.kind() {
        record.content = content;
    }
    let (flags, extra) = state_of(&item.facts);
    record.flags = flags;
    record.received = item.facts.received;
    record.edition += 1;
    record.extra = (extra != Extra::default()).then(|| Arc::new(extra));
}

fn state_of(facts: &Facts) -> (Flags, Extra) {
    let flags = Flags {
        read: facts.read,
        draft: facts.draft,
        flag: FlagStatus::from_name(&facts.flag).unwrap_or_default(),
        other: facts.other,
        last_verb: facts.last_verb,
    };
    let extra = Extra {
        categories: facts.categories.clone(),
        flag: facts.flag_dates.clone(),
        extended: facts.extended.clone(),
        class: facts.class.clone(),
        importance: facts.importance.as_deref().and_then(Importance::from_name),
        unreadable: None,
    };
    (flags, extra)
}
