//! The HTTP endpoints of the authority.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::grants::{AuthorizeRequest, TokenRequest};
use super::{Authority, OauthError};

type Fields = HashMap<String, String>;

/// Returns the routes of the authority.
pub fn router(authority: Arc<Authority>) -> Router {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/{tenant}/oauth2/v2.0/devicecode", post(device_code))
        .route("/{tenant}/oauth2/v2.0/authorize", get(authorize))
        .route("/{tenant}/adminconsent", get(admin_consent))
        .route("/{tenant}/v2.0/adminconsent", get(admin_consent))
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(openid_configuration))
        .route("/devicelogin", get(device_login))
        .with_state(authority)
}

async fn token(
    State(authority): State<Arc<Authority>>,
    Path(tenant): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    let request = token_request(tenant, &uri, &headers, form);
    let now = Timestamp::now();
    authority.answer(authority.token(&request, now), &headers, now)
}

async fn device_code(
    State(authority): State<Arc<Authority>>,
    Path(tenant): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    let request = token_request(tenant, &uri, &headers, form);
    let now = Timestamp::now();
    authority.answer(authority.device_code(&request, now), &headers, now)
}

async fn authorize(
    State(authority): State<Arc<Authority>>,
    Path(tenant): Path<String>,
    Query(query): Query<Fields>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let origin = origin(&uri, &headers);
    let request = AuthorizeRequest { tenant: &tenant, query: &query, origin: &origin };
    page(authority.authorize(&request, Timestamp::now()))
}

async fn admin_consent(
    State(authority): State<Arc<Authority>>,
    Path(tenant): Path<String>,
    Query(query): Query<Fields>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let origin = origin(&uri, &headers);
    page(authority.admin_consent(&AuthorizeRequest { tenant: &tenant, query: &query, origin: &origin }))
}

async fn device_login(State(authority): State<Arc<Authority>>, Query(query): Query<Fields>) -> Response {
    match query.get("user_code") {
        Some(code) if authority.approve_device(code) => {
            Html("<p>You have signed in. You may close this window.</p>").into_response()
        }
        Some(_) => (StatusCode::NOT_FOUND, Html("<p>That code didn't work.</p>")).into_response(),
        None => Html("<form><label>Code <input name='user_code'></label> <button>Next</button></form>").into_response(),
    }
}

async fn openid_configuration(
    State(authority): State<Arc<Authority>>,
    Path(tenant): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let now = Timestamp::now();
    let reply = authority.check_tenant(&tenant).map(|()| {
        let root = format!("{}/{tenant}/oauth2/v2.0", origin(&uri, &headers));
        json!({
            "issuer": format!("https://login.microsoftonline.com/{}/v2.0", authority.registration().tenant_id),
            "authorization_endpoint": format!("{root}/authorize"),
            "token_endpoint": format!("{root}/token"),
            "device_authorization_endpoint": format!("{root}/devicecode"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "response_types_supported": ["code"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
        })
    });
    authority.answer(reply, &headers, now)
}

impl Authority {
    fn answer(&self, reply: Result<Value, OauthError>, headers: &HeaderMap, now: Timestamp) -> Response {
        match reply {
            Ok(body) => {
                ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(body)).into_response()
            }
            Err(error) => {
                let trace_id = self.issued.lock().rng.uuid();
                let correlation_id = headers.get("client-request-id").and_then(|id| id.to_str().ok());
                error.response(now, &trace_id, correlation_id.unwrap_or(&trace_id))
            }
        }
    }
}

/// Redirects the browser, or shows the error.
fn page(target: Result<String, OauthError>) -> Response {
    match target {
        Ok(target) => Redirect::to(&target).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("AADSTS{}: {}", error.code, error.text)).into_response(),
    }
}

/// Reads a token request. A body that is not a form has no parameters; then the first required one is reported as
/// missing.
fn token_request(
    tenant: String,
    uri: &Uri,
    headers: &HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> TokenRequest {
    let basic = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|encoded| String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok())
        .and_then(|pair| pair.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned())));
    TokenRequest {
        tenant,
        url: format!("{}{}", origin(uri, headers), uri.path()),
        form: form.map(|Form(fields)| fields).unwrap_or_default(),
        basic,
    }
}

/// Returns scheme, host and port as the client wrote them.
fn origin(uri: &Uri, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str());
    format!("http://{}", authority.or(host).unwrap_or("localhost"))
}
