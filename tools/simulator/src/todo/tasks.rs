//! Reads and writes tasks.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::input::Input;
use super::json::{View, check_select, checklist, full, links, task_json};
use super::lists;
use crate::clock;
use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, json_answer, page_of_matches};
use crate::tenant::id::{FolderKey, MessageKey};
use crate::tenant::{Arrival, Extra, Folder, ItemKind, Mailbox, Task, task_arrival};

/// Returns the path of the list that a call is about.
pub fn list_path(call: &Call) -> Result<String, ApiError> {
    let list = call.route.folder.as_deref().unwrap_or_default();
    Ok(format!("users('{}')/todo/lists('{list}')", call.user()?.id))
}

/// Refuses expansions other than those in `allowed`.
fn check_expand(query: &Query, allowed: &[&str]) -> Result<(), ApiError> {
    match query.expand().into_iter().find(|expand| !allowed.contains(&expand.name.as_str())) {
        None => Ok(()),
        Some(expand) => Err(ApiError::bad_request(
            "RequestBroker--ParseUri",
            format!("Could not find a property named '{}' on type 'Microsoft.OutlookServices.TodoTask'.", expand.name),
        )),
    }
}

/// `GET /users/{u}/todo/lists/{l}/tasks`
pub fn list(call: &Call) -> Answer {
    check_select(&call.query)?;
    check_expand(&call.query, &[])?;
    let filter = call.query.filter()?;
    let views = call.with_mailbox(|mailbox| {
        let keys = mailbox.tasks_in(lists::resolve(call, mailbox)?).into_iter();
        Ok(keys.filter_map(|key| view_of(mailbox, key).ok()).collect::<Vec<View>>())
    })?;
    let tenant = &call.state.tenant;
    let mut rows: Vec<Value> = views.iter().map(|view| Value::Object(full(tenant, view))).collect();
    for (name, descending) in call.query.order_by().iter().rev() {
        let pointer = format!("/{name}");
        rows.sort_by_cached_key(|row| row.pointer(&pointer).map(Value::to_string).unwrap_or_default().to_lowercase());
        if *descending {
            rows.reverse();
        }
    }
    if let Some(filter) = &filter {
        rows.retain(|row| filter.holds(row));
    }
    page_of_matches(call, rows, &format!("{}/tasks", list_path(call)?))
}

/// Returns the key of the task in the path.
///
/// # Errors
/// 404 if there is none in the list in the path, 400 if the id is invalid.
pub fn resolve(call: &Call, mailbox: &Mailbox) -> Result<MessageKey, ApiError> {
    let list = lists::resolve(call, mailbox)?;
    let id = call.route.task.as_deref().unwrap_or_default();
    let key = mailbox
        .resolve_task(id)
        .ok_or_else(|| if id.len() >= 60 { ApiError::item_not_found() } else { ApiError::invalid_id() })?;
    let is_inside = match mailbox.kind_of(key) {
        ItemKind::Task => mailbox.message(key).is_some_and(|record| record.folder == list),
        _ => mailbox.folder(list).is_some_and(Folder::shows_flagged),
    };
    if is_inside { Ok(key) } else { Err(ApiError::item_not_found()) }
}

/// Returns the key of the task in the path, if it is no flagged message.
///
/// # Errors
/// Those of [`resolve`], and 400 for a flagged message.
pub fn resolve_own(call: &Call, mailbox: &Mailbox) -> Result<MessageKey, ApiError> {
    let key = resolve(call, mailbox)?;
    check_no_message(mailbox, lists::resolve(call, mailbox)?)?;
    Ok(key)
}

fn check_no_message(mailbox: &Mailbox, list: FolderKey) -> Result<(), ApiError> {
    if mailbox.folder(list).is_some_and(Folder::shows_flagged) {
        return Err(ApiError::bad_request("invalidRequest", "Tasks of flagged messages cannot be written."));
    }
    Ok(())
}

/// Returns the view of a task in the mailbox.
///
/// # Errors
/// 404 if there is none.
pub fn view_of(mailbox: &Mailbox, key: MessageKey) -> Result<View, ApiError> {
    let record = mailbox.message(key).ok_or_else(ApiError::item_not_found)?;
    Ok(View::new(mailbox, key, record))
}

/// Returns the task in the path.
///
/// # Errors
/// Those of [`resolve`].
pub fn view(call: &Call) -> Result<View, ApiError> {
    call.with_mailbox(|mailbox| view_of(mailbox, resolve(call, mailbox)?))
}

/// `GET /users/{u}/todo/lists/{l}/tasks/{t}`
pub fn get(call: &Call) -> Answer {
    check_select(&call.query)?;
    check_expand(&call.query, &["checklistitems", "linkedresources"])?;
    let (view, tenant) = (view(call)?, &call.state.tenant);
    let mut body = task_json(tenant, &view, &call.query.select());
    for expand in call.query.expand() {
        match expand.name.as_str() {
            "checklistitems" => body["checklistItems"] = json!(checklist(tenant, &view)),
            _ => body["linkedResources"] = json!(links(tenant, &view)),
        }
    }
    with_context(call, body, StatusCode::OK)
}

fn with_context(call: &Call, mut body: Value, status: StatusCode) -> Answer {
    body["@odata.context"] = json!(call.context(&format!("{}/tasks/$entity", list_path(call)?)));
    let mut response = json_answer(status, &body);
    if status == StatusCode::CREATED {
        let id = body["id"].as_str().unwrap_or_default();
        let location = format!("{}/{}/{}/tasks('{id}')", call.state.url, call.route.version.name(), list_path(call)?);
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

/// `POST /users/{u}/todo/lists/{l}/tasks`. A completed task that comes again makes its next one at once.
pub fn create(call: &Call) -> Answer {
    let input = Input::read(&call.json::<Map<String, Value>>()?)?;
    let view = call.with_mailbox(|mailbox| {
        let list = lists::resolve(call, mailbox)?;
        check_no_message(mailbox, list)?;
        let now = clock::now();
        let mut task = Task::default();
        input.apply(&mut task, now);
        let next = task.next().filter(|_| task.is_completed());
        let arrival = task_arrival(list, task, input.categories.clone().unwrap_or_default(), now);
        let key = mailbox.add_message(with_extended(arrival, &input))?;
        if let Some(next) = next {
            mailbox.add_message(task_arrival(list, next, input.categories.clone().unwrap_or_default(), now))?;
        }
        view_of(mailbox, key)
    })?;
    with_context(call, task_json(&call.state.tenant, &view, &Query::default().select()), StatusCode::CREATED)
}

fn with_extended(arrival: Arrival, input: &Input) -> Arrival {
    if input.extended.is_empty() {
        return arrival;
    }
    let mut extra = arrival.extra.as_deref().cloned().unwrap_or_default();
    extra.extended.extend(input.extended.clone());
    Arrival { extra: Some(Arc::new(Extra { ..extra })), ..arrival }
}

/// `PATCH /users/{u}/todo/lists/{l}/tasks/{t}`
pub fn update(call: &Call) -> Answer {
    let mut input = Input::read(&call.json::<Map<String, Value>>()?)?;
    call.check_etag(&view(call)?.change_key())?;
    let view = call.with_mailbox(|mailbox| {
        let (key, now) = (resolve_own(call, mailbox)?, clock::now());
        if let Some(categories) = input.categories.take() {
            mailbox.change_message(key, now, |record| Mailbox::extra(record).categories = categories)?;
        }
        mailbox.change_task(key, now, |task| input.apply(task, now))?;
        view_of(mailbox, key)
    })?;
    with_context(call, task_json(&call.state.tenant, &view, &Query::default().select()), StatusCode::OK)
}

/// `DELETE /users/{u}/todo/lists/{l}/tasks/{t}`
pub fn delete(call: &Call) -> Answer {
    call.check_etag(&view(call)?.change_key())?;
    let straight = call.state.tenant.switches().deletes_go_to_recoverable_items;
    call.with_mailbox(|mailbox| {
        let key = resolve_own(call, mailbox)?;
        Ok(mailbox.discard_item(key, straight, clock::now())?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
