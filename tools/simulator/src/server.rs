//! The server: from an HTTP request to the function that answers it, and what every answer carries.
//!
//! The layers, from the outside: ids of the request and bodies of errors (here), then faults, sign-in and throttling,
//! then the functions of `directory` and `mail`. All of them see a request as a [`Route`].

mod error;
mod route;

pub use error::ApiError;
pub use route::{NoRoute, Operation, Route, Version};

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::Application;
use crate::counters::Counters;
use crate::faults::Faults;
use crate::odata::{Preferences, Query};
use crate::tenant::id::IdFormat;
use crate::tenant::{Kind, Mailbox, Tenant, User};
use crate::throttle::Limits;
use crate::{control, directory, mail};

/// Bodies of requests to Graph may be this long: 4 MB, the limit of Exchange's JSON and MIME.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What all requests share.
#[derive(Debug)]
pub struct State {
    /// Where clients find the server, without a slash at the end.
    pub url: String,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// The registered application.
    pub application: Application,
    /// What clients did.
    pub counters: Counters,
    /// How much is too much.
    pub limits: RwLock<Limits>,
    /// What goes wrong.
    pub faults: RwLock<Faults>,
}

/// A request to Graph.
#[derive(Clone, Debug)]
pub struct Call {
    /// What all requests share.
    pub state: Arc<State>,
    /// What is asked for.
    pub route: Route,
    /// Query options.
    pub query: Query,
    /// Preferences.
    pub preferences: Preferences,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Answer to a call.
pub type Answer = Result<Response, ApiError>;

/// Returns the whole service.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .merge(crate::auth::router())
        .nest("/control", control::router())
        .fallback(graph)
        .layer(middleware::from_fn(finish))
        .with_state(state)
}

/// Gives every answer its ids, and every error its body.
async fn finish(request: Request, next: Next) -> Response {
    let request_id = random_uuid();
    let client_request_id = request.headers().get("client-request-id").cloned();
    let control = request.uri().path().starts_with("/control/");
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let client = client_request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or(&request_id);
        let body = error.body(&request_id, client).to_string();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *response.body_mut() = Body::from(body);
    }
    if !control {
        let headers = response.headers_mut();
        let id = HeaderValue::from_str(&request_id).expect("a UUID is ASCII");
        headers.insert("request-id", id.clone());
        headers.insert("client-request-id", client_request_id.unwrap_or(id));
        headers.insert(
            "x-ms-ags-diagnostic",
            HeaderValue::from_static(
                r#"{"ServerInfo":{"DataCenter":"Simulator","Slice":"E","Ring":"5","ScaleUnit":"000","RoleInstance":"SIM"}}"#,
            ),
        );
    }
    response
}

/// Returns a UUID that nobody has seen.
pub fn random_uuid() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

async fn graph(Extract(state): Extract<Arc<State>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let route = match Route::parse(&parts.method, parts.uri.path()) {
        Ok(route) => route,
        Err(NoRoute::UnknownSegment(segment)) => return Err(ApiError::unknown_segment(&segment)),
        Err(NoRoute::MethodNotAllowed) => {
            let text = "Specified HTTP method is not allowed for the request target.";
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Request_BadRequest", text));
        }
        Err(NoRoute::NotGraph) => {
            return Err(ApiError::bad_request("BadRequest", format!("Invalid version: {}", parts.uri.path())));
        }
    };
    crate::auth::check_bearer(&state, &route, &parts.headers)?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ErrorRequestEntityTooLarge", "The request is too large.")
    })?;
    let shared = Arc::clone(&state);
    let counted = shared.counters.begin(&route, shared.mailbox_of(&route), body.len());
    let call = Call {
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        preferences: Preferences::parse(&parts.headers),
        headers: parts.headers,
        state,
        route,
        body,
    };
    let applied = call.preferences.applied();
    let mut answer = dispatch(&call);
    if let (Ok(response), Some(applied)) = (&mut answer, applied)
        && let Ok(applied) = HeaderValue::from_str(&applied)
    {
        response.headers_mut().insert("preference-applied", applied);
    }
    drop(counted);
    answer
}

/// Answers a call whose right to ask has been checked.
pub fn dispatch(call: &Call) -> Answer {
    use Operation as O;
    match call.route.operation {
        O::ListOrganizations => directory::organizations(call),
        O::ListSkus => directory::subscribed_skus(call),
        O::ListDeletedUsers => directory::list_deleted_users(call),
        O::ListLicenses => directory::license_details(call),
        O::ListUsers => directory::list_users(call),
        O::CountUsers => directory::count_users(call),
        O::GetUser => directory::get_user(call),
        O::GetMailboxSettings => directory::mailbox_settings(call),
        O::ListFolders => mail::folders::list(call),
        O::ListChildFolders => mail::folders::list_children(call),
        O::GetFolder => mail::folders::get(call),
        O::FoldersDelta => mail::delta::folders(call),
        O::ListMessages => mail::messages::list(call),
        O::CountMessages => mail::messages::count(call),
        O::GetMessage => mail::messages::get(call),
        O::GetMessageValue => mail::messages::value(call),
        O::MessagesDelta => mail::delta::messages(call),
        other => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("The simulator does not do {} yet.", other.name()),
        )),
    }
}

impl Call {
    /// Returns the user that the path names.
    ///
    /// # Errors
    /// 404 if nobody has this id or name.
    pub fn user(&self) -> Result<Arc<User>, ApiError> {
        let name = self.route.user.as_deref().unwrap_or_default();
        let user =
            if name == "me" { self.state.tenant.users().into_iter().next() } else { self.state.tenant.user(name) };
        user.ok_or_else(|| ApiError::resource_not_found(name))
    }

    /// Calls `f` with the mailbox of the user that the path names, locked.
    ///
    /// # Errors
    /// What Exchange says of users without mailbox, or what `f` says.
    pub fn with_mailbox<T>(&self, f: impl FnOnce(&mut Mailbox) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let name = self.route.user.as_deref().unwrap_or_default();
        let user = self.user().map_err(|_| {
            ApiError::new(StatusCode::NOT_FOUND, "ErrorInvalidUser", format!("The requested user '{name}' is invalid."))
        })?;
        match (user.kind, user.mailbox()) {
            (Kind::OutsidePolicy, _) => {
                Err(ApiError::new(StatusCode::FORBIDDEN, "ErrorAccessDenied", "Access to OData is disabled."))
            }
            (_, Some(mailbox)) => f(&mut mailbox.lock()),
            // The same user can get either answer; it depends on which server is asked.
            (Kind::OnPremises, None) => Err(no_mailbox(0)),
            (_, None) => Err(no_mailbox(user.next_probe())),
        }
    }

    /// Returns the format in which ids are wanted.
    pub fn id_format(&self) -> IdFormat {
        if self.preferences.immutable_ids { IdFormat::Immutable } else { IdFormat::Default }
    }

    /// Returns how many rows a page has: what is asked for, at most `max`.
    ///
    /// # Errors
    /// 400 if `$top` is no number, or none that is allowed.
    pub fn page_size(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        let top = self.query.number("$top")?;
        if let Some(top) = top.filter(|top| *top == 0 || *top > max) {
            return Err(ApiError::bad_request(
                "ErrorInvalidRequest",
                format!(
                    "The limit of '{max}' for Top query has been exceeded. The value from the incoming request is '{top}'."
                ),
            ));
        }
        Ok(top.or(self.preferences.page_size_max).unwrap_or(default).min(max))
    }

    /// Returns the body as JSON of this shape.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::bad_request("UnableToDeserializePostBody", format!("were unable to deserialize: {error}"))
        })
    }

    /// Returns `http://host/v1.0/$metadata#what`, the context of an answer.
    pub fn context(&self, what: &str) -> String {
        format!("{}/{}/$metadata#{what}", self.state.url, self.route.version.name())
    }

    /// Returns an absolute link to `path` of the same version, with `query`.
    pub fn link(&self, path: &str, query: &Query) -> String {
        format!("{}/{}/{path}?{}", self.state.url, self.route.version.name(), query.encode())
    }
}

fn no_mailbox(probe: u64) -> ApiError {
    if probe.is_multiple_of(2) {
        let text = "The mailbox is either inactive, soft-deleted, or is hosted on-premise.";
        ApiError::new(StatusCode::NOT_FOUND, "MailboxNotEnabledForRESTAPI", text)
    } else {
        ApiError::new(StatusCode::NOT_FOUND, "ResourceNotFound", "Resource could not be discovered.")
    }
}

/// Returns a JSON answer.
pub fn json_answer(status: StatusCode, body: &Value) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static(
        "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8",
    );
    (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// Returns a page of a collection.
pub fn collection(context: String, rows: Vec<Value>, annotations: Vec<(&str, Value)>) -> Response {
    let mut body = json!({"@odata.context": context, "value": rows});
    let object = body.as_object_mut().expect("an object was just made");
    object.extend(annotations.into_iter().map(|(name, value)| (name.to_owned(), value)));
    json_answer(StatusCode::OK, &body)
}
