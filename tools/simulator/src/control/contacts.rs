//! Changes contacts and adds folders for them.

use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::{patch, post};
use axum::{Json, Router};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Done, Made, Shared, bad, present};
use crate::server::{ApiError, State};
use crate::tenant::NewContact;

/// Returns the routes.
pub fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/users/{user}/contactFolders", post(add_folder))
        .route("/users/{user}/contacts", post(add_contact))
        .route("/users/{user}/contacts/{contact}", patch(change_contact).delete(delete_contact))
}

#[derive(Deserialize)]
struct NewFolder {
    #[serde(default = "default_folder")]
    parent: String,
    name: String,
}

fn default_folder() -> String {
    "contacts".to_owned()
}

async fn add_folder(Extract(state): Shared, Path(user): Path<String>, Json(folder): Json<NewFolder>) -> Made {
    let id = state.tenant.add_contact_folder(&user, &folder.parent, &folder.name)?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContactInput {
    folder: Option<String>,
    fields: Map<String, Value>,
    /// `Some(None)` removes the photo.
    #[serde(deserialize_with = "present")]
    photo: Option<Option<String>>,
    categories: Option<Vec<String>>,
}

fn photo(base64: Option<String>) -> Result<Option<Vec<u8>>, ApiError> {
    let decode = |text: String| STANDARD.decode(text).map_err(|error| bad("photo", &error.to_string()));
    base64.map(decode).transpose()
}

async fn add_contact(Extract(state): Shared, Path(user): Path<String>, Json(input): Json<ContactInput>) -> Made {
    let folder = input.folder.unwrap_or_else(default_folder);
    let contact = NewContact {
        fields: input.fields,
        photo: photo(input.photo.flatten())?,
        categories: input.categories.unwrap_or_default(),
        created: None,
    };
    let id = state.tenant.add_contact(&user, &folder, contact)?;
    Ok(Json(json!({ "id": id })))
}

async fn change_contact(
    Extract(state): Shared,
    Path((user, contact)): Path<(String, String)>,
    Json(input): Json<ContactInput>,
) -> Done {
    let tenant = &state.tenant;
    if !input.fields.is_empty() {
        tenant.change_contact(&user, &contact, &input.fields)?;
    }
    if let Some(new) = input.photo {
        tenant.set_contact_photo(&user, &contact, photo(new)?)?;
    }
    if let Some(categories) = input.categories {
        tenant.set_contact_categories(&user, &contact, categories)?;
    }
    if let Some(folder) = input.folder {
        tenant.move_contact(&user, &contact, &folder)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_contact(Extract(state): Shared, Path((user, contact)): Path<(String, String)>) -> Done {
    state.tenant.delete_contact(&user, &contact)?;
    Ok(StatusCode::NO_CONTENT)
}
