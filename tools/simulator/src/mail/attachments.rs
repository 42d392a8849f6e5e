//! Attachments: files, items and references.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::input;
use super::json::{Shape, View};
use super::paths::{resolve_message, view};
use crate::clock;
use crate::mime::{self, Attachment, Payload, Properties};
use crate::odata::{Query, Select};
use crate::server::{Answer, ApiError, Call, Version, collection, json_answer};
use crate::tenant::id::{IdFormat, MessageKey, Named};
use crate::tenant::{Content, Mailbox, Tenant, Unreadable};

/// Number of bytes that MAPI adds to the length of an attachment's content.
const OVERHEAD: usize = 178;

/// `GET /users/{u}/messages/{m}/attachments`
pub fn list(call: &Call) -> Answer {
    let view = view(call)?;
    view.check_readable()?;
    let select = call.query.select();
    let said = view.said(&call.state.tenant);
    if select.wants("contentBytes") {
        check_openable(&view)?;
        // If the contents are too long in total, the whole list fails. There are no pages.
        let bytes: usize = said.attachments.iter().map(size).sum();
        if call.state.tenant.switches().attachment_list_bytes_max.is_some_and(|max| bytes as u64 > max) {
            return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "UnknownError", ""));
        }
    }
    let rows = rows(call, &view, &call.query);
    let context = format!("users('{}')/messages('{}')/attachments", call.user()?.id, view.id(call.id_format()));
    Ok(collection(call.context(&context), rows, Vec::new()))
}

/// Returns the attachments of a message as JSON, with the options of `query`.
pub fn rows(call: &Call, view: &View, query: &Query) -> Vec<Value> {
    let said = view.said(&call.state.tenant);
    said.attachments.iter().map(|attachment| show(call, view, attachment, query)).collect()
}

/// `GET /users/{u}/messages/{m}/attachments/{a}`
pub fn get(call: &Call) -> Answer {
    let (view, attachment) = find(call)?;
    let mut body = show(call, &view, &attachment, &call.query);
    body["@odata.context"] = json!(call.context("attachments/$entity"));
    Ok(json_answer(StatusCode::OK, &body))
}

/// `GET /users/{u}/messages/{m}/attachments/{a}/$value`
pub fn value(call: &Call) -> Answer {
    value_of(&find(call)?.1)
}

/// Returns the bytes of an attachment.
///
/// # Errors
/// 405 for an attachment that is a link.
pub fn value_of(attachment: &Attachment) -> Answer {
    let (kind, bytes) = match &attachment.payload {
        Payload::File(bytes) => (attachment.content_type.clone(), bytes.to_vec()),
        Payload::Message(mime) => ("text/plain".to_owned(), mime.to_vec()),
        Payload::Item(item) => ("text/plain".to_owned(), plain_item(item)),
        Payload::Reference(_) => {
            let text = "Raw value of a reference attachment is not supported.";
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "ErrorInvalidRequest", text));
        }
    };
    let kind = axum::http::HeaderValue::from_str(&kind);
    let kind = kind.unwrap_or(axum::http::HeaderValue::from_static("application/octet-stream"));
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// Returns the attachment in the path, and its message.
fn find(call: &Call) -> Result<(View, Attachment), ApiError> {
    let view = view(call)?;
    view.check_readable()?;
    check_openable(&view)?;
    let id = call.route.attachment.as_deref().unwrap_or_default();
    let named = Named::decode(id, &view.guid);
    let Some(Named::Attachment { message, moves, edition, number }) = named else { return Err(ApiError::invalid_id()) };
    let current =
        message == view.key && edition == view.record.edition && moves.is_none_or(|moves| moves == view.record.moves);
    let said = view.said(&call.state.tenant);
    let found = said.attachments.iter().find(|attachment| current && attachment.number == number).cloned();
    found.map(|attachment| (view, attachment)).ok_or_else(ApiError::item_not_found)
}

fn check_openable(view: &View) -> Result<(), ApiError> {
    match view.record.extra.as_ref().and_then(|extra| extra.unreadable) {
        Some(unreadable @ Unreadable::CannotOpenFileAttachment) => Err(unreadable.into()),
        _ => Ok(()),
    }
}

fn size(attachment: &Attachment) -> usize {
    OVERHEAD
        + match &attachment.payload {
            Payload::File(bytes) | Payload::Message(bytes) => bytes.len(),
            Payload::Item(item) => item.to_string().len(),
            Payload::Reference(url) => url.len(),
        }
}

fn show(call: &Call, view: &View, attachment: &Attachment, query: &Query) -> Value {
    let expand = query.expand().iter().any(|expand| expand.name == "microsoft.graph.itemattachment/item");
    let as_of = As { format: call.id_format(), version: call.route.version, expand_item: expand };
    attachment_json(call, view, attachment, &query.select(), &as_of)
}

/// How to show an attachment.
#[derive(Clone, Copy, Debug)]
pub struct As {
    /// Format of its id.
    pub format: IdFormat,
    /// Version of the API.
    pub version: Version,
    /// Whether to include an attached item.
    pub expand_item: bool,
}

/// Returns an attachment as JSON.
pub fn attachment_json(call: &Call, view: &View, attachment: &Attachment, select: &Select, shape: &As) -> Value {
    let kind = match attachment.payload {
        Payload::File(_) => "#microsoft.graph.fileAttachment",
        Payload::Message(_) | Payload::Item(_) => "#microsoft.graph.itemAttachment",
        Payload::Reference(_) => "#microsoft.graph.referenceAttachment",
    };
    let is_item = matches!(attachment.payload, Payload::Message(_) | Payload::Item(_));
    let mut out = json!({
        "@odata.type": kind,
        "@odata.mediaContentType": attachment.content_type,
        "id": id(view, attachment.number, shape.format),
        "name": attachment.name,
        "contentType": if is_item { Value::Null } else { json!(attachment.content_type) },
        "size": size(attachment),
        "isInline": attachment.inline,
        "lastModifiedDateTime": clock::iso(view.record.modified),
    });
    let object = out.as_object_mut().expect("an object was just made");
    match &attachment.payload {
        Payload::File(bytes) => {
            object.insert("contentId".to_owned(), json!(attachment.content_id));
            object.insert("contentLocation".to_owned(), json!(attachment.content_location));
            if select.wants("contentBytes") {
                object.insert("contentBytes".to_owned(), json!(STANDARD.encode(bytes.as_slice())));
            }
        }
        Payload::Reference(url) if shape.version == Version::Beta => {
            object.insert("sourceUrl".to_owned(), json!(url));
            object.insert("providerType".to_owned(), json!("oneDriveBusiness"));
            object.insert("permission".to_owned(), json!("edit"));
            object.insert("isFolder".to_owned(), json!(false));
        }
        Payload::Message(_) | Payload::Item(_) | Payload::Reference(_) => {}
    }
    select.retain(object);
    if shape.expand_item {
        match &attachment.payload {
            Payload::Message(mime) => drop(object.insert("item".to_owned(), attached_message(call, mime))),
            Payload::Item(item) => drop(object.insert("item".to_owned(), Value::clone(item))),
            Payload::File(_) | Payload::Reference(_) => {}
        }
    }
    out
}

/// Returns an attached message as JSON. It is in no mailbox, so its id is empty.
fn attached_message(call: &Call, mime: &[u8]) -> Value {
    let said = mime::parse(mime);
    let sent = said.sent.unwrap_or_default();
    let view = View::of_content(Content::Mime(Arc::new(mime.to_vec())), sent);
    let Value::Object(mut item) = Shape::default_of(call).message(&call.state.tenant, &view) else {
        unreachable!("a message is an object")
    };
    for of_place in ["@odata.etag", "changeKey", "parentFolderId", "webLink", "conversationId"] {
        item.remove(of_place);
    }
    item.insert("@odata.type".to_owned(), json!("#microsoft.graph.message"));
    item.insert("id".to_owned(), json!(""));
    Value::Object(item)
}

/// Returns an event as iCalendar and a contact as vCard, with just enough in it to recognise it.
fn plain_item(item: &Value) -> Vec<u8> {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let contact = text("@odata.type").to_ascii_lowercase().ends_with("contact");
    let lines = if contact {
        format!("BEGIN:VCARD\r\nVERSION:3.0\r\nFN:{}\r\nEND:VCARD\r\n", text("displayName"))
    } else {
        format!(
            "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nSUMMARY:{}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
            text("subject")
        )
    };
    lines.into_bytes()
}

fn id(view: &View, number: u32, format: IdFormat) -> String {
    let moves = (format == IdFormat::Default).then_some(view.record.moves);
    Named::Attachment { message: view.key, moves, edition: view.record.edition, number }.encode(&view.guid)
}

/// `POST /users/{u}/messages/{m}/attachments`
pub fn create(call: &Call) -> Answer {
    let attachment = input::attachment(&call.json()?, call.route.version)?;
    // Right after a message was created, some servers do not know it yet.
    let lagging = call.with_mailbox(|mailbox| {
        let key = resolve_message(call, mailbox)?;
        Ok(mailbox.lagging.remove(&key))
    })?;
    if lagging {
        return Err(ApiError::item_not_found());
    }
    let before = view(call)?;
    let user = call.user()?.id.clone();
    let number = attach(&call.state.tenant, &user, before.key, attachment)?;
    let after = view(call)?;
    let said = after.said(&call.state.tenant);
    let Some(attachment) = said.attachments.iter().find(|one| one.number == number) else {
        return Err(ApiError::item_not_found());
    };
    let mut body = show(call, &after, attachment, &Query::default());
    body["@odata.context"] = json!(call.context("attachments/$entity"));
    Ok(json_answer(StatusCode::CREATED, &body))
}

/// Adds an attachment to a message and returns its number. From then on, the message is rendered from its properties.
///
/// # Errors
/// 404 if the message is gone.
pub fn attach(tenant: &Tenant, user: &str, message: MessageKey, attachment: Attachment) -> Result<u32, ApiError> {
    rewrite(tenant, user, message, |said| Ok(input::attach(said, attachment)))
}

/// Returns the default id and the immutable id of an attachment.
///
/// # Errors
/// 404 if the message is gone.
pub fn ids(tenant: &Tenant, user: &str, message: MessageKey, number: u32) -> Result<(String, String), ApiError> {
    let view = tenant.with_mailbox(user, |mailbox| current(mailbox, message))??;
    Ok((id(&view, number, IdFormat::Default), id(&view, number, IdFormat::Immutable)))
}

/// `DELETE /users/{u}/messages/{m}/attachments/{a}`
pub fn delete(call: &Call) -> Answer {
    let (view, attachment) = find(call)?;
    rewrite(&call.state.tenant, &call.user()?.id, view.key, |said| {
        let position = said.attachments.iter().position(|one| one.number == attachment.number);
        said.attachments.remove(position.ok_or_else(ApiError::item_not_found)?);
        Ok(())
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn current(mailbox: &Mailbox, key: MessageKey) -> Result<View, ApiError> {
    Ok(View::new(mailbox, key, mailbox.message(key).ok_or_else(ApiError::item_not_found)?))
}

/// Changes the content of a message. The content is parsed without holding the lock, so another writer may change the
/// message in the meantime. Then this starts again from the new content.
fn rewrite<T>(
    tenant: &Tenant,
    user: &str,
    key: MessageKey,
    edit: impl FnOnce(&mut Properties) -> Result<T, ApiError> + Clone,
) -> Result<T, ApiError> {
    loop {
        let before = tenant.with_mailbox(user, |mailbox| current(mailbox, key))??;
        let mut said = Properties::clone(before.said(tenant));
        let result = edit.clone()(&mut said)?;
        let content = Content::Properties(Arc::new(said));
        let written = tenant.with_mailbox(user, |mailbox| {
            if mailbox.message(key).is_some_and(|record| record.change != before.record.change) {
                return Ok(false);
            }
            mailbox.change_message(key, clock::now(), |record| record.content = content).map(|()| true)
        })??;
        if written {
            return Ok(result);
        }
    }
}
