//! Reads contacts: listings and single contacts.

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::folders;
use super::json::{Shape, View};
use crate::extended;
use crate::server::{Answer, ApiError, Call, json_answer, page_of_matches};
use crate::tenant::Mailbox;
use crate::tenant::id::MessageKey;

/// `GET /users/{u}/contacts` (the default folder alone) and `GET /users/{u}/contactFolders/{f}/contacts`
pub fn list(call: &Call) -> Answer {
    if call.query.get("$search").is_some() {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "The simulator does not search."));
    }
    let filter = call.query.filter()?;
    let mut shape = Shape::new(call, &call.query)?;
    let markers = filter.iter().flat_map(|filter| filter.texts_compared_with("id")).collect::<Vec<_>>();
    let (views, folder) = call.with_mailbox(|mailbox| {
        let folder = folders::resolve(call, mailbox)?;
        let keys = mailbox.contacts_in(folder).into_iter();
        let views: Vec<View> = keys.filter_map(|key| Some(View::new(mailbox, key, mailbox.message(key)?))).collect();
        Ok((views, mailbox.folder_id(folder)))
    })?;
    let asked = shape.extended.clone();
    shape.extended.extend(markers);
    let mut rows: Vec<Value> = views.iter().map(|view| shape.full(view)).collect();
    for (name, descending) in call.query.order_by().iter().rev() {
        rows.sort_by_cached_key(|row| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_lowercase));
        if *descending {
            rows.reverse();
        }
    }
    if let Some(filter) = &filter {
        rows.retain(|row| filter.holds(row));
        // Those that only the filter needed.
        rows.iter_mut().for_each(|row| extended::forget(row, &asked));
    }
    let user = call.user()?.id.clone();
    let path = match call.route.folder {
        Some(_) => format!("users('{user}')/contactFolders('{folder}')/contacts"),
        None => format!("users('{user}')/contacts"),
    };
    page_of_matches(call, rows, &path)
}

/// `GET /users/{u}/contacts/$count` and `GET /users/{u}/contactFolders/{f}/contacts/$count`
pub fn count(call: &Call) -> Answer {
    let count = call.with_mailbox(|mailbox| Ok(mailbox.contacts_in(folders::resolve(call, mailbox)?).len()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain")], count.to_string()).into_response())
}

/// Returns the key of the contact in the path. A path without a folder finds contacts in all folders.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve(call: &Call, mailbox: &Mailbox) -> Result<MessageKey, ApiError> {
    let id = call.route.contact.as_deref().unwrap_or_default();
    let key = mailbox
        .resolve_contact(id)
        .ok_or_else(|| if id.len() >= 60 { ApiError::item_not_found() } else { ApiError::invalid_id() })?;
    if let Some(folder) = &call.route.folder {
        let folder = folders::find(mailbox, folder)?;
        if mailbox.message(key).is_some_and(|record| record.folder != folder) {
            return Err(ApiError::item_not_found());
        }
    }
    Ok(key)
}

/// Returns the view of a contact in the mailbox.
///
/// # Errors
/// 404 if there is none.
pub fn view_of(mailbox: &Mailbox, key: MessageKey) -> Result<View, ApiError> {
    let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
    Ok(View::new(mailbox, key, record))
}

/// Returns the contact in the path.
///
/// # Errors
/// Those of [`resolve`].
pub fn view(call: &Call) -> Result<View, ApiError> {
    call.with_mailbox(|mailbox| view_of(mailbox, resolve(call, mailbox)?))
}

/// `GET /users/{u}/contacts/{c}` and `GET /users/{u}/contactFolders/{f}/contacts/{c}`
pub fn get(call: &Call) -> Answer {
    let shape = Shape::new(call, &call.query)?;
    let mut body = shape.contact(&view(call)?);
    body["@odata.context"] = json!(call.context(&format!("users('{}')/contacts/$entity", call.user()?.id)));
    Ok(json_answer(StatusCode::OK, &body))
}
