//! Steps and links of a task.

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::input;
use super::json::{checklist, links};
use super::tasks::{list_path, resolve_own, view, view_of};
use crate::clock;
use crate::server::{Answer, ApiError, Call, json_answer, page};
use crate::tenant::Task;
use crate::tenant::task::part_id;

/// Which parts of a task a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// `checklistItems`
    Checklist,
    /// `linkedResources`
    Links,
}

impl Parts {
    fn name(self) -> &'static str {
        match self {
            Self::Checklist => "checklistItems",
            Self::Links => "linkedResources",
        }
    }

    fn of(self, task: &mut Task) -> &mut std::collections::BTreeMap<u32, Map<String, Value>> {
        match self {
            Self::Checklist => &mut task.checklist,
            Self::Links => &mut task.links,
        }
    }

    fn rows(self, call: &Call) -> Result<Vec<Value>, ApiError> {
        let view = view(call)?;
        Ok(match self {
            Self::Checklist => checklist(&call.state.tenant, &view),
            Self::Links => links(&call.state.tenant, &view),
        })
    }

    fn read(self, value: &Value) -> Result<Map<String, Value>, ApiError> {
        match self {
            Self::Checklist => input::step(value),
            Self::Links => input::link(value),
        }
    }
}

/// `GET` and `POST .../tasks/{t}/checklistItems` and `.../linkedResources`
pub fn collection(call: &Call, parts: Parts) -> Answer {
    if call.method != Method::POST {
        let path = format!(
            "{}/tasks('{}')/{}",
            list_path(call)?,
            call.route.task.as_deref().unwrap_or_default(),
            parts.name()
        );
        return page(call, parts.rows(call)?, &path);
    }
    let part = parts.read(&call.json()?)?;
    let body = call.with_mailbox(|mailbox| {
        let key = resolve_own(call, mailbox)?;
        let mut number = 0;
        mailbox.change_task(key, clock::now(), |task| {
            number = task.next_part();
            parts.of(task).insert(number, part.clone());
        })?;
        let mut body = Value::Object(part);
        body["id"] = json!(part_id(&mailbox.guid, key.0, number));
        Ok(body)
    })?;
    Ok(json_answer(StatusCode::CREATED, &body))
}

/// `GET`, `PATCH` and `DELETE .../tasks/{t}/checklistItems/{c}` and `.../linkedResources/{r}`
pub fn one(call: &Call, parts: Parts) -> Answer {
    let id = call.route.part.clone().unwrap_or_default();
    if call.method == Method::GET || call.method == Method::HEAD {
        let found = parts.rows(call)?.into_iter().find(|row| row["id"] == id.as_str());
        return Ok(json_answer(StatusCode::OK, &found.ok_or_else(ApiError::item_not_found)?));
    }
    let change = if call.method == Method::PATCH { Some(call.json::<Map<String, Value>>()?) } else { None };
    let body = call.with_mailbox(|mailbox| {
        let key = resolve_own(call, mailbox)?;
        let view = view_of(mailbox, key)?;
        let mut task = view.task(&call.state.tenant);
        let all = parts.of(&mut task);
        let number = all.keys().copied().find(|number| part_id(&mailbox.guid, key.0, *number) == id);
        let number = number.ok_or_else(ApiError::item_not_found)?;
        let mut body = Value::Null;
        match change {
            None => drop(all.remove(&number)),
            Some(change) => {
                let mut part = all.get(&number).cloned().unwrap_or_default();
                let created = part.get("createdDateTime").cloned();
                part.extend(change);
                let mut part = parts.read(&Value::Object(part))?;
                part.extend(created.map(|created| ("createdDateTime".to_owned(), created)));
                all.insert(number, part.clone());
                body = Value::Object(part);
                body["id"] = json!(id);
            }
        }
        mailbox.change_task(key, clock::now(), |place| *place = task)?;
        Ok(body)
    })?;
    if body.is_null() { Ok(StatusCode::NO_CONTENT.into_response()) } else { Ok(json_answer(StatusCode::OK, &body)) }
}
