//! What the path of a request names: a calendar, an event, an occurrence.

use axum::http::StatusCode;

use super::calendars;
use super::json::View;
use crate::server::{ApiError, Call, Version};
use crate::tenant::id::{FolderKey, MessageKey};
use crate::tenant::{Mailbox, Occurrence};

/// Returns the path of the calendar that a call is about.
pub fn calendar_path(call: &Call, calendar: &str) -> Result<String, ApiError> {
    Ok(match call.route.folder {
        Some(_) => format!("users('{}')/calendars('{calendar}')", call.user()?.id),
        None => format!("users('{}')/calendar", call.user()?.id),
    })
}

/// Returns the calendar in the path, if listing its events works.
///
/// # Errors
/// Those of [`calendars::resolve`], and 500 for a shared calendar that is out of reach.
pub fn readable_calendar(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    let key = calendars::resolve(call, mailbox)?;
    if mailbox.folder(key).is_some_and(|folder| folder.calendar.broken) {
        let text = "Cannot open the calendar.";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(ApiError::new(status, "ErrorInternalServerTransientError", text));
    }
    Ok(key)
}

/// Returns the event or the occurrence in the path. A path without a calendar finds events in all of them.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve(call: &Call, mailbox: &Mailbox) -> Result<Occurrence, ApiError> {
    let id = call.route.event.as_deref().unwrap_or_default();
    let at = mailbox
        .resolve_event(id)
        .ok_or_else(|| if id.len() >= 60 { ApiError::item_not_found() } else { ApiError::invalid_id() })?;
    if call.route.folder.is_some() {
        let calendar = calendars::resolve(call, mailbox)?;
        if mailbox.message(at.event).is_some_and(|record| record.folder != calendar) {
            return Err(ApiError::item_not_found());
        }
    }
    Ok(at)
}

/// Returns the view of an event in the mailbox.
///
/// # Errors
/// 404 if there is none.
pub fn view_of(mailbox: &Mailbox, event: MessageKey) -> Result<View, ApiError> {
    view_at(mailbox, Occurrence { event, day: None })
}

/// Returns the view of an event or of an occurrence in the mailbox.
///
/// # Errors
/// 404 if there is none.
pub fn view_at(mailbox: &Mailbox, at: Occurrence) -> Result<View, ApiError> {
    let record = mailbox.message(at.event).filter(|record| record.event().is_some());
    Ok(View::new(mailbox, at, record.ok_or_else(ApiError::item_not_found)?))
}

/// Returns the event or the occurrence in the path.
///
/// # Errors
/// Those of [`resolve`].
pub fn view(call: &Call) -> Result<View, ApiError> {
    call.with_mailbox(|mailbox| view_at(mailbox, resolve(call, mailbox)?))
}

/// Refuses a path of beta that contains a calendar and an event: beta finds events only without their calendar.
///
/// # Errors
/// 400 for such a path.
pub fn check_path(call: &Call) -> Result<(), ApiError> {
    if call.route.version == Version::Beta && call.route.folder.is_some() {
        return Err(ApiError::bad_request("RequestBroker--ParseUri", "Resource not found for the segment 'events'."));
    }
    Ok(())
}
