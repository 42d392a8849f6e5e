//! The items of a folder, of every class: with their sizes, but without their content.

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::{Map, Value, json};

use super::ExchangeMailbox;
use crate::clock;
use crate::delta::{self, Items};
use crate::extended;
use crate::mail::json::View;
use crate::mail::{mapi, paths};
use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, PAGE_ROWS, PAGE_ROWS_MAX, collection, json_answer};
use crate::tenant::Mailbox;
use crate::tenant::id::{IdFormat, MessageKey};

/// `GET .../folders/{f}/items`
pub(super) fn list(call: &Call, exchange: &ExchangeMailbox) -> Answer {
    let size = call.page_size(PAGE_ROWS, PAGE_ROWS_MAX)?;
    let skip = call.query.number("$skip")?.unwrap_or(0);
    let (views, total) = call.with_mailbox(|mailbox| {
        let folder = paths::resolve_folder(call, mailbox)?;
        let messages = mailbox.listing(Some(folder));
        let others = mailbox.others().filter(|(_, record)| record.folder == folder).map(|(key, _)| key);
        let keys: Vec<MessageKey> = messages.iter().copied().chain(others).collect();
        let page = keys.iter().skip(skip).take(size);
        let views: Vec<View> = page.filter_map(|key| Some(View::new(mailbox, *key, mailbox.message(*key)?))).collect();
        Ok((views, keys.len()))
    })?;
    let rows = views.iter().map(|view| row(call, view, &call.query)).collect();
    let path = items_path(call, exchange)?;
    let mut annotations = Vec::new();
    if skip + size < total {
        let mut query = call.query.clone();
        query.set("$skip", Some((skip + size).to_string()));
        annotations.push(("@odata.nextLink", json!(call.link(&path, &query))));
    }
    Ok(collection(call.context(&path), rows, annotations))
}

/// `GET .../folders/{f}/items/delta`
pub(super) fn delta(call: &Call, exchange: &ExchangeMailbox) -> Answer {
    let page = delta::read(call, Items::Any, paths::find_folder, View::new)?;
    let path = items_path(call, exchange)?;
    let frozen = page.frozen.clone();
    page.answer(call, &path, "mailboxItem", |view| row(call, view, &frozen))
}

/// `GET .../folders/{f}/items/{i}`
pub(super) fn get(call: &Call, _exchange: &ExchangeMailbox) -> Answer {
    let view = call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
        Ok(View::new(mailbox, key, record))
    })?;
    let mut body = row(call, &view, &call.query);
    body["@odata.context"] = json!(call.context("mailboxItem"));
    Ok(json_answer(StatusCode::OK, &body))
}

/// `DELETE .../folders/{f}/items/{i}?disposalType=softDelete|hardDelete`
pub(super) fn delete(call: &Call) -> Answer {
    let is_soft = match call.query.get("disposalType") {
        Some(kind) if kind.eq_ignore_ascii_case("softDelete") => true,
        Some(kind) if kind.eq_ignore_ascii_case("hardDelete") => false,
        _ => {
            return Err(ApiError::bad_request("ErrorInvalidRequest", "The parameter 'disposalType' is required."));
        }
    };
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        match mailbox.well_known("recoverableitemsdeletions").filter(|_| is_soft) {
            Some(bin) => mailbox.move_message(key, bin, clock::now())?,
            None => mailbox.remove_message(key)?,
        }
        Ok(())
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Returns the key of the item in the path. It may be of any kind, but must be in the folder in the path.
fn resolve(call: &Call, mailbox: &Mailbox) -> Result<MessageKey, ApiError> {
    let folder = paths::resolve_folder(call, mailbox)?;
    let key = mailbox.resolve_item(call.route.message.as_deref().unwrap_or_default());
    key.filter(|key| mailbox.message(*key).is_some_and(|record| record.folder == folder))
        .ok_or_else(ApiError::item_not_found)
}

fn items_path(call: &Call, exchange: &ExchangeMailbox) -> Result<String, ApiError> {
    let id = call.with_mailbox(|mailbox| {
        let folder = paths::resolve_folder(call, mailbox)?;
        Ok(super::ids::to_exchange_id(&mailbox.folder_id(folder)))
    })?;
    Ok(format!("{}/folders('{id}')/items", exchange.path))
}

fn row(call: &Call, view: &View, query: &Query) -> Value {
    let (record, select) = (&view.record, query.select());
    let tenant = &call.state.tenant;
    let mime_len = || tenant.mime(&view.guid, view.key, record).len();
    let mut row = Map::new();
    row.insert("@odata.type".into(), json!("#microsoft.graph.mailboxItem"));
    row.insert("@odata.etag".into(), json!(format!("W/\"{}\"", view.change_key())));
    row.insert("id".into(), json!(view.id(IdFormat::Default)));
    row.insert("createdDateTime".into(), json!(clock::iso(record.created)));
    row.insert("lastModifiedDateTime".into(), json!(clock::iso(record.modified)));
    row.insert("changeKey".into(), json!(view.change_key()));
    row.insert("categories".into(), json!(record.extra.as_deref().map_or(&[][..], |extra| &extra.categories)));
    row.insert("type".into(), json!(mapi::class(record)));
    if select.wants("size") {
        row.insert("size".into(), json!(mime_len()));
    }
    select.retain(&mut row);
    let wanted = extended::wanted(query, "singlevalueextendedproperties");
    if !wanted.is_empty() {
        let said = view.said(tenant);
        let found = wanted
            .iter()
            .filter_map(|id| Some(json!({"id": id, "value": mapi::of_message(id, record, said, mime_len)?})));
        let found: Vec<Value> = found.collect();
        if !found.is_empty() {
            row.insert("singleValueExtendedProperties".into(), json!(found));
        }
    }
    Value::Object(row)
}
