//! Writes messages: creates them from JSON and from MIME, changes, moves, copies and deletes them. Nothing here sends
//! mail.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::input::Input;
use super::json::{Shape, View};
use super::paths::{destination, find_folder, resolve_folder, resolve_message, view};
use crate::clock;
use crate::mime::{self, Properties};
use crate::server::{Answer, ApiError, Call, json_answer};
use crate::tenant::id::{FolderKey, MessageKey};
use crate::tenant::{Arrival, Content, Extra, Flags, Mailbox, Record};

/// PidTagMessageFlags: mfRead and mfUnsent ([MS-OXCMSG] 2.2.1.6).
const FLAG_READ: i64 = 1;
const FLAG_UNSENT: i64 = 8;

/// `POST /users/{u}[/mailFolders/{f}]/messages`
pub fn create(call: &Call) -> Answer {
    let content_type = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let arrival = if content_type.to_ascii_lowercase().starts_with("text/plain") {
        from_mime(&call.body)?
    } else {
        from_json(Input::read(&call.json::<Map<String, Value>>()?, call.route.version)?)
    };
    let lags = call.state.tenant.switches().new_messages_lag;
    let view = call.with_mailbox(|mailbox| {
        let folder = target_folder(call, mailbox)?;
        let key = mailbox.add_message(Arrival { folder, ..arrival })?;
        if lags {
            mailbox.lagging.insert(key);
        }
        view_of(mailbox, key)
    })?;
    created(call, &view)
}

fn target_folder(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    match &call.route.folder {
        Some(_) => resolve_folder(call, mailbox),
        None => find_folder(mailbox, "drafts"),
    }
}

/// Returns a message from MIME: a draft, received now. Only the time when it was sent comes from its headers.
fn from_mime(body: &[u8]) -> Result<Arrival, ApiError> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mime = STANDARD.decode(text).map_err(|_| {
        ApiError::bad_request("ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
    })?;
    let now = clock::now();
    Ok(Arrival {
        folder: FolderKey(0),
        content: Content::Mime(Arc::new(mime)),
        flags: Flags { read: true, draft: true, ..Flags::default() },
        received: now,
        created: now,
        extra: None,
    })
}

/// Returns a message from JSON: a draft, received now, unless extended properties say otherwise. They can do so only at
/// creation.
fn from_json(mut input: Input) -> Arrival {
    let now = clock::now();
    let mut said = Properties::default();
    input.apply(&mut said);
    let time = |text: Option<String>| text.and_then(|text| clock::parse(&text));
    let message_flags = input.take("integer 0xe07").and_then(|text| text.parse::<i64>().ok());
    said.sent = time(input.take("systemtime 0x39"));
    said.transport_headers = input.take("string 0x7d").filter(|block| !block.trim().is_empty());
    if let Some(block) = &said.transport_headers {
        said.headers = mime::parse(format!("{block}\r\n\r\n").as_bytes()).headers;
    }
    let received = time(input.take("systemtime 0xe06")).unwrap_or(now);
    // The mailbox sets these itself.
    for overwritten in ["systemtime 0x3007", "systemtime 0x3008"] {
        input.take(overwritten);
    }
    let last_verb = input.take("integer 0x1081").and_then(|text| text.parse().ok()).unwrap_or(0);
    let class = input.take("string 0x1a").filter(|class| class != "IPM.Note");
    let (flag, flag_dates) = input.flag.clone().unwrap_or_default();
    let flags = Flags {
        read: input.read.or(message_flags.map(|flags| flags & FLAG_READ != 0)).unwrap_or(true),
        draft: message_flags.is_none_or(|flags| flags & FLAG_UNSENT != 0),
        flag,
        other: input.other.unwrap_or(false),
        last_verb,
    };
    let extra = Extra {
        categories: input.categories.take().unwrap_or_default(),
        flag: flag_dates,
        extended: std::mem::take(&mut input.extended),
        class,
        ..Extra::default()
    };
    let extra = (extra != Extra::default()).then(|| Arc::new(extra));
    let content = Content::Properties(Arc::new(said));
    Arrival { folder: FolderKey(0), content, flags, received, created: now, extra }
}

/// Returns the view of a message in the mailbox.
fn view_of(mailbox: &Mailbox, key: MessageKey) -> Result<View, ApiError> {
    let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
    Ok(View::new(mailbox, key, record))
}

fn shown(call: &Call, view: &View) -> Result<Value, ApiError> {
    let shape = Shape::default_of(call);
    let mut body = shape.message(&call.state.tenant, view);
    body["@odata.context"] = json!(call.context(&format!("users('{}')/messages/$entity", call.user()?.id)));
    Ok(body)
}

fn created(call: &Call, view: &View) -> Answer {
    let mut response = json_answer(StatusCode::CREATED, &shown(call, view)?);
    let location = format!(
        "{}/{}/users('{}')/messages('{}')",
        call.state.url,
        call.route.version.name(),
        call.user()?.id,
        view.id(call.id_format())
    );
    let location = HeaderValue::from_str(&location).expect("ids are ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `PATCH /users/{u}/messages/{m}`
pub fn update(call: &Call) -> Answer {
    let input = Input::read(&call.json::<Map<String, Value>>()?, call.route.version)?;
    let before = view(call)?;
    call.check_etag(&before.change_key())?;
    if input.changes_content() && !before.record.flags.draft {
        let text = "Set action is invalid for a property that can be changed in drafts only.";
        return Err(ApiError::bad_request("ErrorInvalidPropertySet", text));
    }
    // Compute the new content before locking the mailbox again. From then on, the draft is rendered from its
    // properties.
    let content = input.changes_content().then(|| {
        let mut said = Properties::clone(before.said(&call.state.tenant));
        input.apply(&mut said);
        Content::Properties(Arc::new(said))
    });
    let view = call.with_mailbox(|mailbox| {
        let key = resolve_message(call, mailbox)?;
        mailbox.change_message(key, clock::now(), |record| change(record, input, content))?;
        view_of(mailbox, key)
    })?;
    Ok(json_answer(StatusCode::OK, &shown(call, &view)?))
}

fn change(record: &mut Record, mut input: Input, content: Option<Content>) {
    if let Some(content) = content {
        record.content = content;
        record.edition += 1;
    }
    if let Some(read) = input.read {
        record.flags.read = read;
    }
    if let Some(other) = input.other {
        record.flags.other = other;
    }
    if let Some((status, dates)) = input.flag.take() {
        record.flags.flag = status;
        Mailbox::extra(record).flag = dates;
    }
    if let Some(categories) = input.categories.take() {
        Mailbox::extra(record).categories = categories;
    }
    if let Some(importance) = input.importance {
        Mailbox::extra(record).importance = Some(importance);
    }
    if let Some(verb) = input.take("integer 0x1081").and_then(|text| text.parse().ok()) {
        record.flags.last_verb = verb;
    }
    // These can be set only when a message is created.
    for fixed in ["integer 0xe07", "systemtime 0xe06", "systemtime 0x39", "systemtime 0x3007", "systemtime 0x3008"] {
        input.take(fixed);
    }
    if !input.extended.is_empty() {
        Mailbox::extra(record).extended.append(&mut input.extended);
    }
}

/// `POST /users/{u}/messages/{m}/move`
pub fn move_to(call: &Call) -> Answer {
    let view = call.with_mailbox(|mailbox| {
        let (key, target) = (resolve_message(call, mailbox)?, destination(call, mailbox)?);
        mailbox.move_message(key, target, clock::now())?;
        view_of(mailbox, key)
    })?;
    created(call, &view)
}

/// `POST /users/{u}/messages/{m}/copy`
pub fn copy_to(call: &Call) -> Answer {
    let view = call.with_mailbox(|mailbox| {
        let (key, target) = (resolve_message(call, mailbox)?, destination(call, mailbox)?);
        let copy = mailbox.copy_item(key, target, clock::now())?;
        view_of(mailbox, copy)
    })?;
    created(call, &view)
}

/// `DELETE /users/{u}/messages/{m}`: to Deleted Items, from there to the recoverable items, and no further
pub fn delete(call: &Call) -> Answer {
    let straight = call.state.tenant.switches().deletes_go_to_recoverable_items;
    let before = view(call)?;
    call.check_etag(&before.change_key())?;
    call.with_mailbox(|mailbox| {
        let key = resolve_message(call, mailbox)?;
        Ok(mailbox.discard_item(key, straight, clock::now())?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/messages/{m}/permanentDelete`
pub fn permanently_delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = resolve_message(call, mailbox)?;
        let purges = mailbox.well_known("recoverableitemspurges").ok_or_else(ApiError::item_not_found)?;
        Ok(mailbox.move_message(key, purges, clock::now())?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All operations that would send mail. They only increase the counter.
pub fn send(call: &Call) -> Answer {
    call.user()?;
    call.state.counters.mails_sent.fetch_add(1, Ordering::Relaxed);
    Ok(accepted())
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}
