//! Changes task lists and tasks.

use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::{patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Done, Made, Shared};
use crate::mail::input;
use crate::server::{ApiError, State, Version};
use crate::tenant::{ListFacts, NewTask};

/// Returns the routes.
pub fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/users/{user}/taskLists", post(add_list))
        .route("/users/{user}/tasks", post(add_task))
        .route("/users/{user}/tasks/{task}", patch(change_task).delete(delete_task))
}

#[derive(Deserialize)]
struct ListInput {
    name: String,
    #[serde(flatten)]
    facts: ListFacts,
}

async fn add_list(Extract(state): Shared, Path(user): Path<String>, Json(input): Json<ListInput>) -> Made {
    let id = state.tenant.add_task_list(&user, &input.name, input.facts)?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TaskInput {
    list: Option<String>,
    fields: Map<String, Value>,
    categories: Option<Vec<String>>,
    checklist: Vec<Map<String, Value>>,
    links: Vec<Map<String, Value>>,
    attachments: Vec<Value>,
}

async fn add_task(Extract(state): Shared, Path(user): Path<String>, Json(input): Json<TaskInput>) -> Made {
    let attachments = input.attachments.iter().map(|value| input::attachment(value, Version::V1));
    let task = NewTask {
        fields: input.fields,
        categories: input.categories.unwrap_or_default(),
        checklist: input.checklist,
        links: input.links,
        attachments: attachments.collect::<Result<_, ApiError>>()?,
        created: None,
    };
    let list = input.list.unwrap_or_else(|| "tasks".to_owned());
    let id = state.tenant.add_task(&user, &list, task)?;
    Ok(Json(json!({ "id": id })))
}

/// Answers with the id of the task, which is another one if it moved.
async fn change_task(
    Extract(state): Shared,
    Path((user, task)): Path<(String, String)>,
    Json(input): Json<TaskInput>,
) -> Made {
    let tenant = &state.tenant;
    if !input.fields.is_empty() {
        tenant.change_task(&user, &task, &input.fields)?;
    }
    if let Some(categories) = input.categories {
        tenant.set_task_categories(&user, &task, categories)?;
    }
    let id = match input.list {
        Some(list) => tenant.move_task(&user, &task, &list)?,
        None => task,
    };
    Ok(Json(json!({ "id": id })))
}

async fn delete_task(Extract(state): Shared, Path((user, task)): Path<(String, String)>) -> Done {
    state.tenant.delete_task(&user, &task)?;
    Ok(StatusCode::NO_CONTENT)
}
