//! Changes calendars and events.

use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::{patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Done, Made, Shared};
use crate::mail::input;
use crate::mime::Attachment;
use crate::server::{ApiError, State, Version};
use crate::tenant::{CalendarFacts, NewCalendar, NewEvent, NewException};

/// Returns the routes.
pub fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/users/{user}/calendars", post(add_calendar))
        .route("/users/{user}/calendars/{calendar}", patch(change_calendar))
        .route("/users/{user}/events", post(add_event))
        .route("/users/{user}/events/{event}", patch(change_event).delete(delete_event))
        .route("/users/{user}/events/{event}/occurrences/{day}", patch(change_occurrence).delete(cancel_occurrence))
}

#[derive(Deserialize)]
struct CalendarInput {
    name: String,
    #[serde(flatten)]
    facts: CalendarFacts,
}

async fn add_calendar(Extract(state): Shared, Path(user): Path<String>, Json(input): Json<CalendarInput>) -> Made {
    let CalendarInput { name, facts } = input;
    let id = state.tenant.add_calendar(&user, NewCalendar { name, facts })?;
    Ok(Json(json!({ "id": id })))
}

async fn change_calendar(
    Extract(state): Shared,
    Path((user, calendar)): Path<(String, String)>,
    Json(facts): Json<CalendarFacts>,
) -> Done {
    state.tenant.set_calendar_facts(&user, &calendar, facts)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ExceptionInput {
    day: String,
    fields: Map<String, Value>,
    attachments: Vec<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EventInput {
    calendar: Option<String>,
    fields: Map<String, Value>,
    categories: Option<Vec<String>>,
    attachments: Vec<Value>,
    exceptions: Vec<ExceptionInput>,
    cancelled: Vec<String>,
    custom_zone: bool,
}

/// Reads attachments in the form of Graph.
fn attachments(values: &[Value]) -> Result<Vec<Attachment>, ApiError> {
    values.iter().map(|value| input::attachment(value, Version::Beta)).collect()
}

async fn add_event(Extract(state): Shared, Path(user): Path<String>, Json(input): Json<EventInput>) -> Made {
    let exceptions = input.exceptions.into_iter().map(|ExceptionInput { day, fields, attachments: files }| {
        Ok(NewException { day, fields, attachments: attachments(&files)? })
    });
    let event = NewEvent {
        fields: input.fields,
        categories: input.categories.unwrap_or_default(),
        attachments: attachments(&input.attachments)?,
        exceptions: exceptions.collect::<Result<_, ApiError>>()?,
        cancelled: input.cancelled,
        custom_zone: input.custom_zone,
        uid: None,
        created: None,
    };
    let calendar = input.calendar.unwrap_or_else(|| "calendar".to_owned());
    let id = state.tenant.add_event(&user, &calendar, event)?;
    Ok(Json(json!({ "id": id })))
}

async fn change_event(
    Extract(state): Shared,
    Path((user, event)): Path<(String, String)>,
    Json(input): Json<EventInput>,
) -> Done {
    let tenant = &state.tenant;
    if !input.fields.is_empty() {
        tenant.change_event(&user, &event, &input.fields)?;
    }
    if let Some(categories) = input.categories {
        tenant.set_event_categories(&user, &event, categories)?;
    }
    for attachment in attachments(&input.attachments)? {
        tenant.attach_to_event(&user, &event, None, attachment)?;
    }
    if let Some(calendar) = input.calendar {
        tenant.move_event(&user, &event, &calendar)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_event(Extract(state): Shared, Path((user, event)): Path<(String, String)>) -> Done {
    state.tenant.delete_event(&user, &event)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change_occurrence(
    Extract(state): Shared,
    Path((user, event, day)): Path<(String, String, String)>,
    Json(input): Json<EventInput>,
) -> Done {
    if !input.fields.is_empty() {
        state.tenant.change_occurrence(&user, &event, &day, &input.fields)?;
    }
    for attachment in attachments(&input.attachments)? {
        state.tenant.attach_to_event(&user, &event, Some(&day), attachment)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn cancel_occurrence(Extract(state): Shared, Path((user, event, day)): Path<(String, String, String)>) -> Done {
    state.tenant.cancel_occurrence(&user, &event, &day)?;
    Ok(StatusCode::NO_CONTENT)
}
