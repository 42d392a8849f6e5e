//! Creates, changes and deletes contacts.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::folders;
use super::input::Input;
use super::items::{resolve, view, view_of};
use super::json::{Shape, View};
use crate::clock;
use crate::server::{Answer, ApiError, Call, json_answer};
use crate::tenant::id::FolderKey;
use crate::tenant::{Arrival, Contact, Content, Extra, Flags, Mailbox};

/// `POST /users/{u}/contacts` (into the default folder) and `POST /users/{u}/contactFolders/{f}/contacts`
pub fn create(call: &Call) -> Answer {
    let arrival = arrival(Input::read(&call.json::<Map<String, Value>>()?, call.route.version)?);
    let lags = call.state.tenant.switches().new_messages_lag;
    let view = call.with_mailbox(|mailbox| {
        let folder = folders::resolve(call, mailbox)?;
        let key = mailbox.add_message(Arrival { folder, ..arrival })?;
        if lags {
            mailbox.lagging.insert(key);
        }
        view_of(mailbox, key)
    })?;
    let mut response = json_answer(StatusCode::CREATED, &shown(call, &view)?);
    let location = format!(
        "{}/{}/users('{}')/contacts('{}')",
        call.state.url,
        call.route.version.name(),
        call.user()?.id,
        view.id(call.id_format())
    );
    let location = HeaderValue::from_str(&location).expect("ids are ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn arrival(mut input: Input) -> Arrival {
    let now = clock::now();
    let mut contact = Contact::default();
    input.apply(&mut contact);
    forget_times(&mut input);
    let extra = Extra {
        categories: input.categories.take().unwrap_or_default(),
        extended: std::mem::take(&mut input.extended),
        ..Extra::default()
    };
    Arrival {
        folder: FolderKey(0),
        content: Content::Contact(Arc::new(contact)),
        flags: Flags { read: true, ..Flags::default() },
        received: now,
        created: now,
        extra: (extra != Extra::default()).then(|| Arc::new(extra)),
    }
}

/// Removes the properties that the mailbox sets itself.
fn forget_times(input: &mut Input) {
    for overwritten in ["systemtime 0x3007", "systemtime 0x3008", "string 0x1a"] {
        input.extended.remove(overwritten);
    }
}

fn shown(call: &Call, view: &View) -> Result<Value, ApiError> {
    let mut body = Shape::default_of(call).contact(view);
    body["@odata.context"] = json!(call.context(&format!("users('{}')/contacts/$entity", call.user()?.id)));
    Ok(body)
}

/// `PATCH /users/{u}/contacts/{c}`
pub fn update(call: &Call) -> Answer {
    let mut input = Input::read(&call.json::<Map<String, Value>>()?, call.route.version)?;
    forget_times(&mut input);
    call.check_etag(&view(call)?.change_key())?;
    let view = call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        mailbox.change_message(key, clock::now(), |record| {
            if let Some(contact) = record.contact_mut() {
                input.apply(contact);
            }
            if let Some(categories) = input.categories.take() {
                Mailbox::extra(record).categories = categories;
            }
            if !input.extended.is_empty() {
                Mailbox::extra(record).extended.append(&mut input.extended);
            }
        })?;
        view_of(mailbox, key)
    })?;
    Ok(json_answer(StatusCode::OK, &shown(call, &view)?))
}

/// `DELETE /users/{u}/contacts/{c}`: to Deleted Items, from there to the recoverable items, and no further
pub fn delete(call: &Call) -> Answer {
    call.check_etag(&view(call)?.change_key())?;
    let straight = call.state.tenant.switches().deletes_go_to_recoverable_items;
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        Ok(mailbox.discard_item(key, straight, clock::now())?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/contacts/{c}/permanentDelete`
pub fn permanently_delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        let purges = mailbox.well_known("recoverableitemspurges").ok_or_else(ApiError::item_not_found)?;
        Ok(mailbox.move_message(key, purges, clock::now())?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
