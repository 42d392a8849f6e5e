//! Photos of contacts.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use super::items::{resolve, view};
use crate::clock;
use crate::server::{Answer, ApiError, Call, json_answer};

/// The type of all photos: the service shows others converted to it.
const JPEG: &str = "image/jpeg";

fn photo(call: &Call) -> Result<Arc<Vec<u8>>, ApiError> {
    let photo = view(call)?.record.contact().and_then(|contact| contact.photo.clone());
    // The same code as for a contact that is gone: a client cannot tell them apart.
    photo.ok_or_else(ApiError::item_not_found)
}

/// `GET /users/{u}/contacts/{c}/photo/$value`
pub fn value(call: &Call) -> Answer {
    let bytes = photo(call)?.as_slice().to_vec();
    Ok(([(header::CONTENT_TYPE, JPEG)], bytes).into_response())
}

/// `GET /users/{u}/contacts/{c}/photo`
pub fn get(call: &Call) -> Answer {
    photo(call)?;
    let context = call.context(&format!("users('{}')/contacts/photo/$entity", call.user()?.id));
    let body =
        json!({"@odata.context": context, "@odata.mediaContentType": JPEG, "id": "1X1", "width": 1, "height": 1});
    Ok(json_answer(StatusCode::OK, &body))
}

/// `PUT` and `PATCH /users/{u}/contacts/{c}/photo/$value`
pub fn update(call: &Call) -> Answer {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with(JPEG) || call.body.is_empty() {
        return Err(ApiError::bad_request("ErrorInvalidRequest", "The request must carry a photo of type image/jpeg."));
    }
    let shows = call.state.tenant.switches().photo_changes_show;
    let photo = Arc::new(call.body.to_vec());
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        if mailbox.lagging.remove(&key) {
            return Err(ApiError::item_not_found());
        }
        Ok(mailbox.set_photo(key, Some(photo), shows, clock::now())?)
    })?;
    Ok(StatusCode::OK.into_response())
}
