//! The server: passes an HTTP request to the function that answers it, and adds what every answer has.
//!
//! The layers, from the outside: request ids and bodies of errors (here); faults; then for requests to Graph the gate
//! (sign-in, permissions, throttling) and the functions of `directory`, `mail`, `contacts`, `calendar` and `todo`,
//! which get the request as a [`Route`].

mod call;
mod error;
mod gate;
mod gzip;
mod operation;
mod route;
mod state;

pub use call::{
    Answer, BODY_BYTES_MAX, Call, PAGE_ROWS, PAGE_ROWS_MAX, collection, json_answer, page, page_of_matches,
};
pub use error::ApiError;
pub use gate::Entry;
pub use operation::Operation;
pub use route::{NoRoute, Route, Version};
pub use state::State;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::batch::{self, InBatch};
use crate::faults;
use crate::odata::{Preferences, Query};
use crate::todo::parts::{self, Parts};
use crate::{auth, calendar, contacts, control, directory, exchange, mail, todo, uploads};

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
        O::ListCalendars | O::ListGroupCalendars => calendar::calendars::list(call),
        O::ListCalendarGroups => calendar::calendars::list_groups(call),
        O::GetCalendar => calendar::calendars::get(call),
        O::ListEvents => calendar::items::list(call),
        O::CountEvents => calendar::items::count(call),
        O::EventsDelta => calendar::delta::events(call),
        O::GetEvent => calendar::items::get(call),
        O::ListInstances => calendar::items::instances(call),
        O::ListCalendarView => calendar::items::calendar_view(call),
        O::CalendarViewDelta => calendar::delta::view(call),
        O::ListEventAttachments => calendar::attachments::list(call),
        O::GetEventAttachment => calendar::attachments::get(call),
        O::GetEventAttachmentValue => calendar::attachments::value(call),
        O::CreateCalendar => calendar::calendars::create(call),
        O::UpdateCalendar => calendar::calendars::update(call),
        O::DeleteCalendar => calendar::calendars::delete(call),
        O::CreateEvent => calendar::write::create(call),
        O::UpdateEvent => calendar::write::update(call),
        O::DeleteEvent => calendar::write::delete(call),
        O::PermanentlyDeleteEvent => calendar::write::permanently_delete(call),
        O::CancelEvent => calendar::write::cancel(call),
        O::AnswerEvent => calendar::write::answer(call),
        O::CreateEventAttachment => calendar::attachments::create(call),
        O::CreateEventUploadSession => calendar::attachments::create_session(call),
        O::DeleteEventAttachment => calendar::attachments::delete(call),
        O::ListTaskLists => todo::lists::list(call),
        O::CreateTaskList => todo::lists::create(call),
        O::TaskListsDelta => todo::delta::task_lists(call),
        O::GetTaskList => todo::lists::get(call),
        O::UpdateTaskList => todo::lists::update(call),
        O::DeleteTaskList => todo::lists::delete(call),
        O::ListTasks => todo::tasks::list(call),
        O::CreateTask => todo::tasks::create(call),
        O::TasksDelta => todo::delta::tasks(call),
        O::GetTask => todo::tasks::get(call),
        O::UpdateTask => todo::tasks::update(call),
        O::DeleteTask => todo::tasks::delete(call),
        O::ListChecklistItems => parts::collection(call, Parts::Checklist),
        O::ListLinkedResources => parts::collection(call, Parts::Links),
        O::GetChecklistItem => parts::one(call, Parts::Checklist),
        O::GetLinkedResource => parts::one(call, Parts::Links),
        O::WriteChecklistItem if call.route.part.is_none() => parts::collection(call, Parts::Checklist),
        O::WriteLinkedResource if call.route.part.is_none() => parts::collection(call, Parts::Links),
        O::WriteChecklistItem => parts::one(call, Parts::Checklist),
        O::WriteLinkedResource => parts::one(call, Parts::Links),
        O::ListTaskAttachments => todo::attachments::list(call),
        O::CreateTaskAttachment => todo::attachments::create(call),
        O::CreateTaskUploadSession => todo::attachments::create_session(call),
        O::GetTaskAttachment => todo::attachments::get(call),
        O::GetTaskAttachmentValue => todo::attachments::value(call),
        O::DeleteTaskAttachment => todo::attachments::delete(call),
        O::UploadTaskAttachment => todo::attachments::session(call),
        O::GetExchangeSettings | O::ExchangeMailbox => exchange::answer(call),
        other => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("The simulator does not do {} yet.", other.name()),
        )),
    }
}
