//! Attachments of tasks: files of up to 25 MB. The URL of an upload session is one of Graph, and needs a token.

use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::json::View;
use super::tasks::{list_path, resolve_own, view, view_of};
use crate::clock;
use crate::mime::{Attachment, Payload};
use crate::server::{Answer, ApiError, Call, collection, json_answer};
use crate::tenant::id::Named;
use crate::uploads::{AttachmentItem, Progress, SIZE_BYTES_MIN, Target};

/// Maximum size of an attachment in bytes.
const SIZE_BYTES_MAX: u64 = 25_000_000;

fn bytes(attachment: &Attachment) -> &[u8] {
    match &attachment.payload {
        Payload::File(bytes) | Payload::Message(bytes) => bytes,
        Payload::Item(_) | Payload::Reference(_) => &[],
    }
}

fn show(view: &View, attachment: &Attachment, with_bytes: bool) -> Value {
    let (moves, edition) = (Some(view.record.moves), view.record.edition);
    let id = Named::Attachment { message: view.key, moves, edition, number: attachment.number }.encode(&view.guid);
    let mut out = json!({
        "@odata.type": "#microsoft.graph.taskFileAttachment",
        "id": id,
        "name": attachment.name,
        "contentType": attachment.content_type,
        "size": bytes(attachment).len(),
        "lastModifiedDateTime": clock::iso(view.record.modified),
    });
    if with_bytes {
        out["contentBytes"] = json!(STANDARD.encode(bytes(attachment)));
    }
    out
}

fn task_path(call: &Call) -> Result<String, ApiError> {
    Ok(format!("{}/tasks('{}')", list_path(call)?, call.route.task.as_deref().unwrap_or_default()))
}

/// `GET .../tasks/{t}/attachments`: without their bytes
pub fn list(call: &Call) -> Answer {
    let view = view(call)?;
    let task = view.task(&call.state.tenant);
    let rows = task.attachments.iter().map(|attachment| show(&view, attachment, false)).collect();
    Ok(collection(call.context(&format!("{}/attachments", task_path(call)?)), rows, Vec::new()))
}

/// Returns the attachment in the path, and its task.
fn find(call: &Call) -> Result<(View, Attachment), ApiError> {
    let view = view(call)?;
    let id = call.route.attachment.as_deref().unwrap_or_default();
    let named = Named::decode(id, &view.guid);
    let Some(Named::Attachment { message, moves: Some(moves), number, .. }) = named else {
        return Err(ApiError::invalid_id());
    };
    let current = message == view.key && moves == view.record.moves;
    let attachments = view.task(&call.state.tenant).attachments;
    let found = attachments.into_iter().find(|attachment| current && attachment.number == number);
    found.map(|attachment| (view, attachment)).ok_or_else(ApiError::item_not_found)
}

/// `GET .../tasks/{t}/attachments/{a}`
pub fn get(call: &Call) -> Answer {
    let (view, attachment) = find(call)?;
    let mut body = show(&view, &attachment, true);
    body["@odata.context"] = json!(call.context(&format!("{}/attachments/$entity", task_path(call)?)));
    Ok(json_answer(StatusCode::OK, &body))
}

/// `GET .../tasks/{t}/attachments/{a}/$value`
pub fn value(call: &Call) -> Answer {
    let (_, attachment) = find(call)?;
    let kind = HeaderValue::from_str(&attachment.content_type);
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Ok(([(header::CONTENT_TYPE, kind)], bytes(&attachment).to_vec()).into_response())
}

/// `POST .../tasks/{t}/attachments`
pub fn create(call: &Call) -> Answer {
    let body: serde_json::Map<String, Value> = call.json()?;
    let refused = |text: String| ApiError::bad_request("UnableToDeserializePostBody", text);
    let known = ["name", "contentType", "contentBytes", "size", "id", "lastModifiedDateTime"];
    if let Some(name) = body.keys().find(|name| !known.contains(&name.as_str()) && !name.contains('@')) {
        return Err(refused(format!(
            "The property '{name}' does not exist on type 'microsoft.graph.taskFileAttachment'."
        )));
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    if !text("@odata.type").is_none_or(|kind| kind.eq_ignore_ascii_case("#microsoft.graph.taskFileAttachment")) {
        return Err(refused("Only files can be attached to a task.".to_owned()));
    }
    let bytes = STANDARD.decode(text("contentBytes").unwrap_or_default());
    let bytes = bytes.map_err(|_| refused("Cannot convert the value of property 'contentBytes'.".to_owned()))?;
    if bytes.len() as u64 >= SIZE_BYTES_MIN {
        return Err(ApiError::bad_request("invalidRequest", "Attachments of 3 MB and more need an upload session."));
    }
    let name =
        text("name").ok_or_else(|| ApiError::bad_request("invalidRequest", "The attachment must have a name."))?;
    let (view, number) = attach(call, name, text("contentType"), bytes)?;
    let task = view.task(&call.state.tenant);
    let attachment = task.attachments.iter().find(|one| one.number == number).ok_or_else(ApiError::item_not_found)?;
    Ok(json_answer(StatusCode::CREATED, &show(&view, attachment, false)))
}

/// Adds an attachment to the task in the path, and returns the task and the attachment's number.
fn attach(call: &Call, name: String, content_type: Option<String>, bytes: Vec<u8>) -> Result<(View, u32), ApiError> {
    let attachment = Attachment {
        number: 0,
        name,
        content_type: content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
        inline: false,
        content_id: None,
        content_location: None,
        payload: Payload::File(Arc::new(bytes)),
    };
    call.with_mailbox(|mailbox| {
        let key = resolve_own(call, mailbox)?;
        let mut number = 0;
        mailbox.change_task(key, clock::now(), |task| number = task.attach(attachment))?;
        Ok((view_of(mailbox, key)?, number))
    })
}

/// `DELETE .../tasks/{t}/attachments/{a}`
pub fn delete(call: &Call) -> Answer {
    let (view, attachment) = find(call)?;
    call.with_mailbox(|mailbox| {
        resolve_own(call, mailbox)?;
        let without = |task: &mut crate::tenant::Task| task.attachments.retain(|one| one.number != attachment.number);
        Ok(mailbox.change_task(view.key, clock::now(), without)?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
struct CreateRequest {
    #[serde(rename = "attachmentInfo", alias = "AttachmentInfo")]
    item: AttachmentItem,
}

/// `POST .../tasks/{t}/attachments/createUploadSession`
pub fn create_session(call: &Call) -> Answer {
    let item = call.json::<CreateRequest>()?.item;
    let key = call.with_mailbox(|mailbox| resolve_own(call, mailbox))?;
    if item.size > SIZE_BYTES_MAX {
        return Err(ApiError::bad_request("invalidRequest", "An attachment of a task can have 25 MB."));
    }
    let target = Target { user: call.user()?.id.clone(), message: key, day: None };
    let session = call.state.uploads.create(target, item, Timestamp::now())?;
    let place = task_path(call)?;
    let url = format!("{}/{}/{place}/attachmentSessions/{}", call.state.url, call.route.version.name(), session.token);
    let body = json!({
        "@odata.context": call.context("microsoft.graph.uploadSession"),
        "uploadUrl": url,
        "expirationDateTime": session.expires.to_string(),
        "nextExpectedRanges": ["0-"],
    });
    Ok(json_answer(StatusCode::CREATED, &body))
}

/// `GET` and `DELETE .../attachmentSessions/{s}`, and `PUT .../attachmentSessions/{s}/content`
pub fn session(call: &Call) -> Answer {
    let (token, now) = (call.route.part.as_deref().unwrap_or_default(), Timestamp::now());
    let key = call.with_mailbox(|mailbox| resolve_own(call, mailbox))?;
    let target = call.state.uploads.target(token, now)?;
    if target.message != key || target.user != call.user()?.id {
        return Err(ApiError::item_not_found());
    }
    match call.method {
        Method::DELETE => {
            call.state.uploads.cancel(token)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Method::PUT => {
            let range = call.headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
            match call.state.uploads.put(token, range.unwrap_or_default(), &call.body, now)? {
                Progress::Next { from, expires } => Ok(progress(from, expires)),
                Progress::Complete { item, bytes, .. } => {
                    let (view, number) = attach(call, item.name, item.content_type, bytes)?;
                    let task = view.task(&call.state.tenant);
                    let id =
                        task.attachments.iter().find(|one| one.number == number).map(|one| show(&view, one, false));
                    let id = id.and_then(|one| one["id"].as_str().map(str::to_owned)).unwrap_or_default();
                    let location = format!("{}/v1.0/{}/attachments/{id}", call.state.url, task_path(call)?);
                    Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
                }
            }
        }
        _ => {
            let (from, expires) = call.state.uploads.status(token, now)?;
            Ok(progress(from, expires))
        }
    }
}

fn progress(from: u64, expires: Timestamp) -> Response {
    let body = json!({"expirationDateTime": expires.to_string(), "nextExpectedRanges": [format!("{from}-")]});
    json_answer(StatusCode::OK, &body)
}
