//! What the path of a request names, and its body: a folder, a message, the target of a move.

use serde::Deserialize;

use super::json::View;
use crate::server::{ApiError, Call};
use crate::tenant::Mailbox;
use crate::tenant::id::{FolderKey, MessageKey};

/// Returns the folder in the path.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve_folder(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    find_folder(mailbox, call.route.folder.as_deref().unwrap_or_default())
}

/// Returns the folder with this id or well-known name.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn find_folder(mailbox: &Mailbox, id_or_name: &str) -> Result<FolderKey, ApiError> {
    let absent = ["clutter", "scheduled", "conversationhistory", "archive"];
    mailbox.resolve_folder(id_or_name).ok_or_else(|| {
        // A long text was once an id, of another mailbox or of a folder that is gone. A short text is a name that
        // Exchange does not know.
        let known = id_or_name.len() >= 60 || absent.iter().any(|name| name.eq_ignore_ascii_case(id_or_name));
        if known { ApiError::item_not_found() } else { ApiError::invalid_id() }
    })
}

/// Returns the message in the path.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid, and the service's error for a message that cannot be read.
pub fn view(call: &Call) -> Result<View, ApiError> {
    call.with_mailbox(|mailbox| {
        let key = resolve_message(call, mailbox)?;
        let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
        Ok(View::new(mailbox, key, record))
    })
}

/// Returns the key of the message in the path.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve_message(call: &Call, mailbox: &Mailbox) -> Result<MessageKey, ApiError> {
    let id = call.route.message.as_deref().unwrap_or_default();
    let key = mailbox.resolve_message(id).ok_or_else(|| {
        // An old id, or one of another mailbox, has the form of an id. Anything else is malformed.
        if id.len() >= 60 { ApiError::item_not_found() } else { ApiError::invalid_id() }
    })?;
    if let Some(folder) = &call.route.folder {
        let folder = find_folder(mailbox, folder)?;
        if mailbox.message(key).is_some_and(|record| record.folder != folder) {
            return Err(ApiError::item_not_found());
        }
    }
    Ok(key)
}

#[derive(Deserialize)]
struct Destination {
    #[serde(rename = "destinationId", alias = "DestinationId")]
    id: String,
}

/// Returns the destination folder that the body of the request names.
///
/// # Errors
/// 400 and 404 if there is none.
pub fn destination(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    find_folder(mailbox, &call.json::<Destination>()?.id)
}
