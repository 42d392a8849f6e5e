//! Sign-in: client credentials, and the check of bearer tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Form, Path, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use strongroom_corpora::rng::Rng;

use crate::odata::token;
use crate::server::{ApiError, Route, State};

/// The application that is registered in the tenant.
#[derive(Debug)]
pub struct Application {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    generation: AtomicU64,
}

impl Application {
    /// Returns the application of the tenant with this seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::for_purpose(seed, "application");
        Self { client_id: rng.uuid(), client_secret: rng.token(40), generation: AtomicU64::new(0) }
    }

    /// Makes every token useless.
    pub fn expire_tokens(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Deserialize)]
struct TokenRequest {
    client_id: String,
    client_secret: String,
    grant_type: String,
}

/// Returns the token endpoint.
pub fn router() -> Router<Arc<State>> {
    Router::new().route("/{tenant}/oauth2/v2.0/token", post(issue))
}

async fn issue(
    Extract(state): Extract<Arc<State>>,
    Path(tenant): Path<String>,
    Form(request): Form<TokenRequest>,
) -> Response {
    let application = &state.application;
    let known = [&state.tenant.id, &state.tenant.domain].iter().any(|name| name.eq_ignore_ascii_case(&tenant));
    let (error, code) = match () {
        () if !known => ("invalid_request", 90002),
        () if request.grant_type != "client_credentials" => ("unsupported_grant_type", 70003),
        () if request.client_id != application.client_id => ("unauthorized_client", 700_016),
        () if request.client_secret != application.client_secret => ("invalid_client", 7_000_215),
        () => {
            state.counters.tokens_issued.fetch_add(1, Ordering::Relaxed);
            let access = token::seal(&(application.generation.load(Ordering::Relaxed), crate::server::random_uuid()));
            let body =
                json!({"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": access});
            return Json(body).into_response();
        }
    };
    let body = json!({"error": error, "error_description": format!("AADSTS{code}: refused."), "error_codes": [code]});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// Checks that a request carries a token that is still good.
///
/// # Errors
/// 401 if it does not.
pub fn check_bearer(state: &State, _route: &Route, headers: &HeaderMap) -> Result<(), ApiError> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let generation = bearer.and_then(token::open::<(u64, String)>).map(|(generation, _)| generation);
    if generation == Some(state.application.generation.load(Ordering::Relaxed)) {
        return Ok(());
    }
    let text =
        if bearer.is_some() { "Lifetime validation failed, the token is expired." } else { "Access token is empty." };
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", text))
}
