//! The server: passes an HTTP request to the function that answers it, and adds what every answer has.
//!
//! The layers, from the outside: request ids and bodies of errors (here); faults; then for requests to Graph the gate
//! (sign-in, permissions, throttling) and the functions of `directory`, `mail` and `contacts`, which get the request as
//! a [`Route`].

mod error;
mod gate;
mod gzip;
mod route;

pub use error::ApiError;
pub use gate::Entry;
pub use route::{NoRoute, Operation, Route, Version};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::Authority;
use crate::batch::{self, InBatch};
use crate::counters::Counters;
use crate::faults::{self, FaultEngine};
use crate::odata::{Preferences, Query};
use crate::tenant::id::IdFormat;
use crate::tenant::{Kind, Mailbox, Tenant, User};
use crate::throttle::Throttle;
use crate::uploads::Uploads;
use crate::{Options, auth, contacts, control, directory, exchange, mail, uploads};

/// Maximum length of the body of a request to Graph: 4 MB, Exchange's limit for JSON and MIME.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of rows in a page of Outlook's collections, if the client asks for no other number.
pub const PAGE_ROWS: usize = 10;
/// Maximum number of rows in a page of Outlook's collections.
pub const PAGE_ROWS_MAX: usize = 1000;

/// The state that all requests share.
#[derive(Debug)]
pub struct State {
    /// Root URL of the server, without a slash at the end.
    pub url: String,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Sign-in, and the permissions of the application.
    pub authority: Arc<Authority>,
    /// Counts what clients do.
    pub counters: Arc<Counters>,
    /// Enforces the throttling limits.
    pub throttle: Arc<Throttle>,
    /// Injects faults.
    pub faults: FaultEngine,
    /// Upload sessions of large attachments.
    pub uploads: Uploads,
    /// Exports and import sessions.
    pub transfers: exchange::Transfers,
}

impl State {
    /// Returns the state of a simulator with the root URL `url`.
    ///
    /// # Errors
    /// Fails if the corpus cannot be listed.
    pub fn new(url: String, options: Options) -> std::io::Result<Self> {
        let Options { organisation, limits, faults, switches, certificates, rules, .. } = options;
        let tenant = Arc::new(Tenant::new(&organisation, switches)?);
        Ok(Self {
            url,
            authority: Arc::new(auth::for_tenant(&tenant, certificates, rules)),
            counters: Arc::default(),
            throttle: Arc::new(Throttle::new(limits)),
            faults: FaultEngine::new(faults),
            uploads: Uploads::new(organisation.seed),
            transfers: exchange::Transfers::new(organisation.seed),
            tenant,
        })
    }
}

/// A request to Graph.
#[derive(Clone, Debug)]
pub struct Call {
    /// The state that all requests share.
    pub state: Arc<State>,
    /// HTTP method.
    pub method: Method,
    /// The operation, and what it applies to.
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
    let graph = Router::new()
        .merge(uploads::router())
        .merge(exchange::router())
        .nest("/control", control::router())
        .fallback(graph)
        .with_state(Arc::clone(&state));
    Router::new()
        .merge(auth::router(Arc::clone(&state.authority)))
        .merge(graph)
        .layer(middleware::from_fn_with_state(state, faults::inject))
        .layer(middleware::from_fn(finish))
}

/// Returns the routes for requests inside a batch: the same as for other requests, but only to Graph.
fn inner(state: Arc<State>) -> Router {
    Router::new()
        .fallback(graph)
        .with_state(Arc::clone(&state))
        .layer(middleware::from_fn_with_state(state, faults::inject))
        .layer(middleware::from_fn(finish))
}

/// Adds ids to every answer, and a body to every error.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
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

/// Returns a new random UUID.
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
    let mut route = match Route::parse(&parts.method, parts.uri.path()) {
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
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let entry = state.enter(&mut route, &parts.method, &parts.headers, &query).inspect_err(|error| {
        if error.status == StatusCode::TOO_MANY_REQUESTS {
            state.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    if parts.extensions.get::<InBatch>().is_some() {
        if route.operation == Operation::Batch {
            return Err(ApiError::bad_request("BadRequest", "A batch cannot be in a batch."));
        }
        // All requests of a batch that run at the same time are admitted or refused before the first one is answered.
        tokio::task::yield_now().await;
    }
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ErrorRequestEntityTooLarge", "The request is too large.")
    })?;
    state.counters.received(body.len());
    if parts.method != Method::GET
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
        && let Some(mailbox) = state.mailbox_of(&route)
    {
        state.throttle.charge_upload(&mailbox, body.len() as u64, Instant::now());
    }
    if !state.service_time().is_zero() {
        tokio::time::sleep(state.service_time()).await;
    }
    if route.operation == Operation::Batch {
        return Ok(entry.hold(run_batch(&state, &route, &parts.headers, &body).await?));
    }
    let preferences = Preferences::parse(&parts.headers);
    let call = Call { state, method: parts.method, route, query, preferences, headers: parts.headers, body };
    let applied = call.preferences.applied();
    let mut response = dispatch(&call)?;
    if gzip::is_accepted(&call.headers) && !call.state.tenant.switches().uncompressed {
        response = gzip::compress(response).await;
    }
    if let Some(applied) = applied.and_then(|applied| HeaderValue::try_from(applied).ok()) {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(entry.hold(response))
}

async fn run_batch(state: &Arc<State>, route: &Route, headers: &HeaderMap, body: &[u8]) -> Answer {
    let version = format!("/{}", route.version.name());
    let queue = state.throttle.limits().queue_batches;
    let seed = state.counters.counts().requests;
    let inner = inner(Arc::clone(state));
    let answer = batch::run(inner, &version, headers, body, queue, seed).await;
    match answer {
        Ok(body) => Ok(json_answer(StatusCode::OK, &body)),
        Err(error) => Err(ApiError::bad_request("BadRequest", error.to_string())),
    }
}

/// Answers a call whose permissions were checked.
pub fn dispatch(call: &Call) -> Answer {
    use Operation as O;
    match call.route.operation {
        O::ListOrganizations => directory::organizations(call),
        O::ListSkus => directory::subscribed_skus(call),
        O::ListDeletedUsers => directory::list_deleted_users(call),
        O::ListLicenses => directory::license_details(call),
        O::ListUsers => directory::list_users(call),
        O::UsersDelta => directory::users_delta(call),
        O::CountUsers => directory::count_users(call),
        O::GetUser => directory::get_user(call),
        O::GetMailboxSettings => directory::mailbox_settings(call),
        O::UpdateMailboxSettings => directory::update_mailbox_settings(call),
        O::ListCategories => mail::outlook::list_categories(call),
        O::CreateCategory => mail::outlook::create_category(call),
        O::ListRules => mail::outlook::list_rules(call),
        O::CreateRule => mail::outlook::create_rule(call),
        O::TranslateIds => mail::outlook::translate_ids(call),
        O::CreateFolder | O::CreateChildFolder => mail::folders::create(call),
        O::UpdateFolder => mail::folders::update(call),
        O::MoveFolder => mail::folders::move_to(call),
        O::CopyFolder => mail::folders::copy_to(call),
        O::DeleteFolder => mail::folders::delete(call),
        O::PermanentlyDeleteFolder => mail::folders::permanently_delete(call),
        O::CreateMessage => mail::write::create(call),
        O::UpdateMessage => mail::write::update(call),
        O::MoveMessage => mail::write::move_to(call),
        O::CopyMessage => mail::write::copy_to(call),
        O::DeleteMessage => mail::write::delete(call),
        O::PermanentlyDeleteMessage => mail::write::permanently_delete(call),
        O::SendMail => mail::write::send(call),
        O::ListAttachments => mail::attachments::list(call),
        O::CreateAttachment => mail::attachments::create(call),
        O::GetAttachment => mail::attachments::get(call),
        O::GetAttachmentValue => mail::attachments::value(call),
        O::DeleteAttachment => mail::attachments::delete(call),
        O::ListFolders => mail::folders::list(call),
        O::ListChildFolders => mail::folders::list_children(call),
        O::GetFolder => mail::folders::get(call),
        O::FoldersDelta => mail::delta::folders(call),
        O::ListMessages => mail::messages::list(call),
        O::CountMessages => mail::messages::count(call),
        O::GetMessage => mail::messages::get(call),
        O::GetMessageValue => mail::messages::value(call),
        O::MessagesDelta => mail::delta::messages(call),
        O::CreateUploadSession => uploads::create_session(call),
        O::ListContactFolders | O::ListContactChildFolders => contacts::folders::list(call),
        O::CreateContactFolder | O::CreateContactChildFolder => contacts::folders::create(call),
        O::ContactFoldersDelta => contacts::delta::folders(call),
        O::GetContactFolder => contacts::folders::get(call),
        O::UpdateContactFolder => contacts::folders::update(call),
        O::DeleteContactFolder => contacts::folders::delete(call),
        O::PermanentlyDeleteContactFolder => contacts::folders::permanently_delete(call),
        O::ListContacts => contacts::items::list(call),
        O::CountContacts => contacts::items::count(call),
        O::CreateContact => contacts::write::create(call),
        O::ContactsDelta => contacts::delta::contacts(call),
        O::GetContact => contacts::items::get(call),
        O::UpdateContact => contacts::write::update(call),
        O::DeleteContact => contacts::write::delete(call),
        O::PermanentlyDeleteContact => contacts::write::permanently_delete(call),
        O::GetContactPhoto => contacts::photo::get(call),
        O::GetContactPhotoValue => contacts::photo::value(call),
        O::UpdateContactPhoto => contacts::photo::update(call),
        O::GetExchangeSettings | O::ExchangeMailbox => exchange::answer(call),
        other => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("The simulator does not do {} yet.", other.name()),
        )),
    }
}

impl Call {
    /// Returns the user in the path.
    ///
    /// # Errors
    /// 404 if no user has this id or name.
    pub fn user(&self) -> Result<Arc<User>, ApiError> {
        let name = self.route.user.as_deref().unwrap_or_default();
        self.state.tenant.user(name).ok_or_else(|| ApiError::resource_not_found(name))
    }

    /// Calls `f` with the locked mailbox of the user in the path.
    ///
    /// # Errors
    /// Exchange's error for users without a mailbox, or the error of `f`.
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
            // The same user can get either answer, depending on which server answers.
            (Kind::OnPremises, None) => Err(no_mailbox(0)),
            (_, None) => Err(no_mailbox(user.next_probe())),
        }
    }

    /// Returns the requested format of ids.
    pub fn id_format(&self) -> IdFormat {
        if self.preferences.immutable_ids { IdFormat::Immutable } else { IdFormat::Default }
    }

    /// Returns the number of rows in a page: the requested number, at most `max`.
    ///
    /// # Errors
    /// 400 if `$top` is not a number, or not an allowed one.
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

    /// Checks that the item still has the change key of `If-Match`, if the client sent one.
    ///
    /// # Errors
    /// 412 if the item has changed since.
    pub fn check_etag(&self, change_key: &str) -> Result<(), ApiError> {
        let wanted = self.headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        if wanted.is_none_or(|wanted| wanted == "*" || wanted.contains(change_key)) {
            return Ok(());
        }
        let text = "The send or update operation could not be performed because the change key passed in the request does \
                    not match the current change key for the item.";
        Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "ErrorIrresolvableConflict", text))
    }

    /// Returns the body, parsed from JSON.
    ///
    /// # Errors
    /// 400 if the body does not have this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::bad_request("UnableToDeserializePostBody", format!("were unable to deserialize: {error}"))
        })
    }

    /// Returns `http://host/v1.0/$metadata#what`, the context URL of an answer.
    pub fn context(&self, what: &str) -> String {
        format!("{}/{}/$metadata#{what}", self.state.url, self.route.version.name())
    }

    /// Returns an absolute link to `path` in the same version of the API, with `query`.
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

/// Returns the page that a call asks for of the rows that match its filter. The rows still have all that the filter needs.
/// `path` is the path of the collection.
///
/// # Errors
/// 400 if the query is invalid.
pub fn page(call: &Call, mut rows: Vec<Value>, path: &str) -> Answer {
    if let Some(filter) = call.query.filter()? {
        rows.retain(|row| filter.holds(row));
    }
    page_of_matches(call, rows, path)
}

/// Returns the page that a call asks for of rows that all match its filter.
///
/// # Errors
/// 400 if the query is invalid.
pub fn page_of_matches(call: &Call, rows: Vec<Value>, path: &str) -> Answer {
    let size = call.page_size(PAGE_ROWS, PAGE_ROWS_MAX)?;
    let skip = call.query.number("$skip")?.unwrap_or(0);
    let total = rows.len();
    let select = call.query.select();
    let mut rows: Vec<Value> = rows.into_iter().skip(skip).take(size).collect();
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        select.retain(row);
    }
    let mut annotations = Vec::new();
    if call.query.is_true("$count") {
        annotations.push(("@odata.count", json!(total)));
    }
    if skip + size < total {
        let mut query = call.query.clone();
        query.set("$skip", Some((skip + size).to_string()));
        annotations.push(("@odata.nextLink", json!(call.link(path, &query))));
    }
    Ok(collection(call.context(path), rows, annotations))
}

/// Returns a page of a collection.
pub fn collection(context: String, rows: Vec<Value>, annotations: Vec<(&str, Value)>) -> Response {
    let mut body = json!({"@odata.context": context, "value": rows});
    let object = body.as_object_mut().expect("an object was just made");
    object.extend(annotations.into_iter().map(|(name, value)| (name.to_owned(), value)));
    json_answer(StatusCode::OK, &body)
}
