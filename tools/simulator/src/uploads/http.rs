//! Upload sessions over HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::any;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{AttachmentItem, Progress, Target, UploadError};
use crate::calendar;
use crate::mail::{attachments, paths};
use crate::mime::{Attachment, Payload};
use crate::server::{Answer, ApiError, BODY_BYTES_MAX, Call, State, json_answer};
use crate::tenant::id::IdFormat;
use crate::tenant::{ItemKind, Mailbox, Occurrence, message_id};

#[derive(Deserialize)]
struct CreateRequest {
    #[serde(rename = "AttachmentItem", alias = "attachmentItem")]
    item: AttachmentItem,
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let (status, code) = error.status_and_code();
        let status = StatusCode::from_u16(status).expect("a status of HTTP");
        Self::new(status, code, error.to_string())
    }
}

/// `POST /users/{u}/messages/{m}/attachments/createUploadSession`
///
/// # Errors
/// 404 if the message does not exist, 400 if the attachment cannot have a session.
pub fn create_session(call: &Call) -> Answer {
    let user = call.user()?;
    let (key, message) = call.with_mailbox(|mailbox| {
        let key = paths::resolve_message(call, mailbox)?;
        Ok((key, message_id(&mailbox.guid, key, 0, IdFormat::Immutable)))
    })?;
    let target = Target { user: user.id.clone(), message: key, day: None };
    open(call, target, &format!("messages('{message}')"))
}

/// Opens a session for an attachment of `target`, whose place is `item` in URLs.
///
/// # Errors
/// 400 if the attachment cannot have a session.
pub fn open(call: &Call, target: Target, item: &str) -> Answer {
    let request: CreateRequest = call.json()?;
    let user = target.user.clone();
    let session = call.state.uploads.create(target, request.item, Timestamp::now())?;
    let upload_url = format!(
        "{}/outlook.office.com/api/g{}/users('{user}')/{item}/AttachmentSessions('{}')?authtoken={}",
        call.state.url,
        call.route.version.name(),
        &session.token[..40],
        session.token
    );
    let body = json!({
        "@odata.context": call.context("microsoft.graph.uploadSession"),
        "uploadUrl": upload_url,
        "expirationDateTime": session.expires.to_string(),
        "nextExpectedRanges": ["0-"],
    });
    Ok(json_answer(StatusCode::CREATED, &body))
}

/// Returns the routes of the host in upload URLs.
pub fn router() -> Router<Arc<State>> {
    Router::new().route("/outlook.office.com/api/{version}/{user}/{message}/{session}", any(session))
}

async fn session(
    Extract(state): Extract<Arc<State>>,
    Path(_): Path<(String, String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::AUTHORIZATION) && state.tenant.switches().refuse_tokens_on_urls {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "ErrorAccessDenied",
            "The request must not carry a token.",
        ));
    }
    let token = query.get("authtoken").map_or("", String::as_str);
    let target = state.uploads.target(token, Timestamp::now())?;
    // An attachment of a task goes to Graph itself.
    if state.tenant.with_mailbox(&target.user, |mailbox| mailbox.kind_of(target.message))? == ItemKind::Task {
        return Err(UploadError::Unknown.into());
    }
    let len = if parts.method == Method::PUT { content_length(&parts.headers)? } else { 0 };
    let entry = state.enter_by_url("UploadAttachment", &target.user, len)?;
    let answer = match parts.method {
        Method::PUT => {
            let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
                let text = "A range must not be longer than 4 MB.";
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ErrorRequestEntityTooLarge", text)
            })?;
            state.counters.received(body.len());
            put(&state, token, &parts.headers, &body)?
        }
        Method::GET => progress(state.uploads.status(token, Timestamp::now())?),
        Method::DELETE => {
            state.uploads.cancel(token)?;
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    Ok(entry.hold(answer))
}

fn content_length(headers: &HeaderMap) -> Result<u64, ApiError> {
    let len = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    len.ok_or_else(|| ApiError::new(StatusCode::LENGTH_REQUIRED, "ErrorInvalidRequest", "Content-Length is required."))
}

fn put(state: &State, token: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
    match state.uploads.put(token, range, body, Timestamp::now())? {
        Progress::Next { from, expires } => Ok(progress((from, expires))),
        Progress::Complete { target, item, bytes } => {
            let (kind, message) = state.tenant.with_mailbox(&target.user, |mailbox| {
                let is_event = mailbox.kind_of(target.message) == ItemKind::Event;
                let kind = if is_event { "Events" } else { "Messages" };
                (kind, message_id(&mailbox.guid, target.message, 0, IdFormat::Immutable))
            })?;
            let id = attach(state, &target, item, bytes)?;
            let location = format!(
                "https://outlook.office.com/api/v2.0/Users('{}')/{kind}('{message}')/Attachments('{id}')",
                target.user
            );
            Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
        }
    }
}

/// The capital letter of the property and the number without a dash are as in the service's answers.
fn progress((from, expires): (u64, Timestamp)) -> axum::response::Response {
    let body = json!({"ExpirationDateTime": expires.to_string(), "nextExpectedRanges": [from.to_string()]});
    json_answer(StatusCode::OK, &body)
}

/// Adds an attachment to a message and returns its id.
fn attach(state: &State, target: &Target, item: AttachmentItem, bytes: Vec<u8>) -> Result<String, ApiError> {
    let attachment = Attachment {
        number: 0,
        name: item.name,
        content_type: item.content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
        inline: item.is_inline,
        content_id: item.content_id,
        content_location: None,
        payload: Payload::File(Arc::new(bytes)),
    };
    let is_event = |mailbox: &mut Mailbox| mailbox.kind_of(target.message) == ItemKind::Event;
    if state.tenant.with_mailbox(&target.user, is_event)? {
        let at = Occurrence { event: target.message, day: target.day };
        let number = calendar::attachments::attach(state, &target.user, at, attachment)?;
        return calendar::attachments::id(state, &target.user, at, number);
    }
    let number = attachments::attach(&state.tenant, &target.user, target.message, attachment)?;
    Ok(attachments::ids(&state.tenant, &target.user, target.message, number)?.0)
}
