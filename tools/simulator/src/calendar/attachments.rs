//! Attachments of events, which are those of mail. An exception has its own, an occurrence those of its series.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::json::View;
use super::outbox::send_updates;
use super::paths::{resolve, view, view_at};
use crate::clock;
use crate::mail::attachments::{As, attachment_json, value_of};
use crate::mail::input;
use crate::mail::json::View as ItemView;
use crate::mime::Attachment;
use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, State, collection, json_answer};
use crate::tenant::Occurrence;
use crate::tenant::id::{IdFormat, Named};
use crate::uploads::{self, Target};

/// Returns the record of an event as the mail API sees it.
fn item(view: &View) -> ItemView {
    ItemView::of_record(view.guid, view.at.event, view.record.clone())
}

/// Returns the attachments of an event as JSON, with the options of `query`.
pub fn rows(call: &Call, view: &View, query: &Query) -> Vec<Value> {
    view.appointment().attachments.iter().map(|attachment| show(call, view, attachment, query)).collect()
}

fn show(call: &Call, view: &View, attachment: &Attachment, query: &Query) -> Value {
    let expand_item = query.expand().iter().any(|expand| expand.name == "microsoft.graph.itemattachment/item");
    let shape = As { format: call.id_format(), version: call.route.version, expand_item };
    attachment_json(call, &item(view), attachment, &query.select(), &shape)
}

/// `GET /users/{u}/events/{e}/attachments`
pub fn list(call: &Call) -> Answer {
    let view = view(call)?;
    let rows = rows(call, &view, &call.query);
    let context = format!("users('{}')/events('{}')/attachments", call.user()?.id, view.id(call.id_format()));
    Ok(collection(call.context(&context), rows, Vec::new()))
}

/// `GET /users/{u}/events/{e}/attachments/{a}`
pub fn get(call: &Call) -> Answer {
    let (view, attachment) = find(call)?;
    let mut body = show(call, &view, &attachment, &call.query);
    body["@odata.context"] = json!(call.context("attachments/$entity"));
    Ok(json_answer(StatusCode::OK, &body))
}

/// `GET /users/{u}/events/{e}/attachments/{a}/$value`
pub fn value(call: &Call) -> Answer {
    value_of(&find(call)?.1)
}

/// Returns the attachment in the path, and its event.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn find(call: &Call) -> Result<(View, Attachment), ApiError> {
    let view = view(call)?;
    let id = call.route.attachment.as_deref().unwrap_or_default();
    let named = Named::decode(id, &view.guid);
    let Some(Named::Attachment { message, moves, number, .. }) = named else { return Err(ApiError::invalid_id()) };
    let current = message == view.at.event && moves.is_none_or(|moves| moves == view.record.moves);
    let found = view.appointment().attachments.into_iter().find(|attachment| current && attachment.number == number);
    found.map(|attachment| (view, attachment)).ok_or_else(ApiError::item_not_found)
}

/// `POST /users/{u}/events/{e}/attachments`
pub fn create(call: &Call) -> Answer {
    let attachment = input::attachment(&call.json()?, call.route.version)?;
    let (at, lagging) = call.with_mailbox(|mailbox| {
        let at = resolve(call, mailbox)?;
        Ok((at, mailbox.lagging.remove(&at.event)))
    })?;
    // Right after an event was created, some servers do not know it yet.
    if lagging {
        return Err(ApiError::item_not_found());
    }
    let number = attach(&call.state, &call.user()?.id, at, attachment)?;
    let view = view(call)?;
    let appointment = view.appointment();
    let attachment = appointment.attachments.iter().find(|one| one.number == number);
    let mut body = show(call, &view, attachment.ok_or_else(ApiError::item_not_found)?, &Query::default());
    body["@odata.context"] = json!(call.context("attachments/$entity"));
    Ok(json_answer(StatusCode::CREATED, &body))
}

/// Adds an attachment to an event and returns its number. An occurrence becomes an exception.
///
/// # Errors
/// 404 if the event is gone.
pub fn attach(state: &State, user: &str, at: Occurrence, attachment: Attachment) -> Result<u32, ApiError> {
    let quiet = state.tenant.switches().quiet_exceptions;
    let mut number = 0;
    let view = state.tenant.with_mailbox(user, |mailbox| {
        mailbox.change_event(at, quiet, clock::now(), |event| number = event.attach(at.day, attachment))?;
        view_at(mailbox, at)
    })??;
    send_updates(state, &view.appointment());
    Ok(number)
}

/// Returns the default id of an attachment.
///
/// # Errors
/// 404 if the event is gone.
pub fn id(state: &State, user: &str, at: Occurrence, number: u32) -> Result<String, ApiError> {
    let view = state.tenant.with_mailbox(user, |mailbox| view_at(mailbox, at))??;
    let (moves, edition) = (Some(view.record.moves), view.record.edition);
    Ok(Named::Attachment { message: at.event, moves, edition, number }.encode(&view.guid))
}

/// `DELETE /users/{u}/events/{e}/attachments/{a}`
pub fn delete(call: &Call) -> Answer {
    let (view, attachment) = find(call)?;
    let quiet = call.state.tenant.switches().quiet_exceptions;
    call.with_mailbox(|mailbox| {
        Ok(mailbox.change_event(view.at, quiet, clock::now(), |event| event.detach(view.at.day, attachment.number))?)
    })?;
    send_updates(&call.state, &view.appointment());
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/events/{e}/attachments/createUploadSession`
pub fn create_session(call: &Call) -> Answer {
    let view = view(call)?;
    let target = Target { user: call.user()?.id.clone(), message: view.at.event, day: view.at.day };
    uploads::open(call, target, &format!("events('{}')", view.id(IdFormat::Immutable)))
}
