//! Applies the decision of [`FaultEngine`] to a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use serde_json::json;
use strongroom_corpora::rng::Rng;

use super::{Fault, Faults, Subject, careless, hostile};
use crate::connection::Connection;
use crate::server::{ApiError, Operation, Route, State};
use crate::tenant::id::IdFormat;
use crate::tenant::{ItemKind, Tenant};

/// Time for the first part of a body to reach the client before the connection breaks.
const FLUSH: Duration = Duration::from_millis(20);
/// Number of pieces of a trickling body.
const PIECES: usize = 8;

/// Middleware: passes requests on, and breaks those that the tenant's [`FaultEngine`](super::FaultEngine) selects.
pub async fn inject(Extract(state): Extract<Arc<State>>, mut request: Request, next: Next) -> Response {
    let engine = &state.faults;
    let connection = request.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
    let subject = Subject {
        method: request.method().clone(),
        url: request.uri().path_and_query().map_or_else(String::new, |url| {
            percent_encoding::percent_decode_str(url.as_str()).decode_utf8_lossy().into_owned()
        }),
        has_connection: connection.is_some(),
    };
    let (fault, rng) = engine.decide(&subject);
    let Some(fault) = fault else { return next.run(request).await };
    tracing::debug!(?fault, "injected");
    let faults = engine.faults();
    // A rule may break the connection of a request inside a batch, which has no connection of its own.
    let connection = match connection {
        Some(connection) => connection,
        None if fault.breaks_connection() => return StatusCode::GATEWAY_TIMEOUT.into_response(),
        None => Connection::default(),
    };
    if let Some(response) = refusal(fault, &faults) {
        return response;
    }
    match fault {
        Fault::ResetBefore => reset(&connection),
        Fault::Slow => {
            tokio::time::sleep(Duration::from_millis(faults.slow_ms)).await;
            next.run(request).await
        }
        Fault::LostAnswer => {
            next.run(request).await;
            reset(&connection)
        }
        Fault::LostAnswerTimeout => {
            next.run(request).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Fault::LateWork => {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else { return reset(&connection) };
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(faults.late_ms)).await;
                next.run(Request::from_parts(parts, Body::from(body))).await;
            });
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Fault::ItemChanges => {
            let route = Route::parse(request.method(), request.uri().path());
            let response = next.run(request).await;
            if let Ok(route) = route {
                change_item(&state.tenant, &route);
            }
            response
        }
        Fault::FolderVanishes => {
            if let Ok(route) = Route::parse(request.method(), request.uri().path()) {
                delete_folder(&state.tenant, &route);
            }
            next.run(request).await
        }
        fault if fault.is_hostile() => {
            request.headers_mut().remove(header::ACCEPT_ENCODING);
            let path = request.uri().path_and_query().map_or("", |path| path.as_str());
            let (url, pause) = (format!("{}{path}", state.url), Duration::from_millis(faults.slow_ms));
            hostile::answer(fault, next.run(request).await, &url, pause, rng).await
        }
        fault if fault.is_careless() => next.run(careless::falsified(fault, request).await).await,
        Fault::OtherBody => other_body(&state.tenant, request, next, rng).await,
        _ => damage(fault, next.run(request).await, rng, connection, &faults).await,
    }
}

/// Replaces a successful answer by a complete answer with another body.
async fn other_body(tenant: &Tenant, request: Request, next: Next, mut rng: Rng) -> Response {
    let what = rng.between(0, 3);
    if what == 3
        && let Some(path) = neighbour(tenant, &request, &mut rng)
    {
        let (mut parts, body) = request.into_parts();
        parts.uri = path;
        return next.run(Request::from_parts(parts, body)).await;
    }
    let response = next.run(request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let kind = |kind: &'static str| [(header::CONTENT_TYPE, kind)];
    match what {
        0 => (kind("text/plain"), Body::empty()).into_response(),
        1 => {
            let page =
                "<!DOCTYPE html>\r\n<html><head><title>Sign in</title></head><body>Sign in to continue</body></html>";
            (kind("text/html"), page).into_response()
        }
        _ => {
            let error = r#"{"error":{"code":"UnknownError","message":"","innerError":{"date":"2026-11-02T09:30:00"}}}"#;
            (kind("application/json"), error).into_response()
        }
    }
}

/// Returns the URL of another message, contact or event in the same mailbox, if the request asks for one.
fn neighbour(tenant: &Tenant, request: &Request, rng: &mut Rng) -> Option<Uri> {
    let route = Route::parse(request.method(), request.uri().path()).ok()?;
    let (collection, value) = match route.operation {
        Operation::GetMessage => ("messages", ""),
        Operation::GetMessageValue => ("messages", "/$value"),
        Operation::GetContact => ("contacts", ""),
        Operation::GetContactPhotoValue => ("contacts", "/photo/$value"),
        Operation::GetEvent => ("events", ""),
        _ => return None,
    };
    let (user, item) = (route.user.as_deref()?, route.message.or(route.contact).or(route.event)?);
    let id = tenant.with_mailbox(user, |mailbox| {
        let key = mailbox.resolve_item(&item)?;
        let others: Vec<_> = match collection {
            "messages" => mailbox.listing(None).to_vec(),
            "contacts" => mailbox.contacts().map(|(key, _)| key).collect(),
            _ => mailbox.items_of(ItemKind::Event).map(|(key, _)| key).collect(),
        };
        let others: Vec<_> = others.into_iter().filter(|other| *other != key).collect();
        let other = *others.get(rng.between(0, others.len().checked_sub(1)? as u64) as usize)?;
        Some(mailbox.message_id(other, mailbox.message(other)?, IdFormat::Immutable))
    });
    let encode =
        |part: &str| percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string();
    let (user, id) = (encode(user), encode(&id.ok()??));
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    format!("/{}/users/{user}/{collection}/{id}{value}{query}", route.version.name()).parse().ok()
}

/// Gives the requested message one more header, the requested contact another note, the requested event another
/// subject, or the requested task another title.
fn change_item(tenant: &Tenant, route: &Route) {
    if let (Some(user), Some(contact)) = (&route.user, &route.contact) {
        change_contact(tenant, user, contact);
    }
    if let (Some(user), Some(event)) = (&route.user, &route.event) {
        change_event(tenant, user, event);
    }
    if let (Some(user), Some(task)) = (&route.user, &route.task) {
        change_task(tenant, user, task);
    }
    let (Some(user), Some(message)) = (&route.user, &route.message) else { return };
    let found = tenant.with_mailbox(user, |mailbox| {
        let key = mailbox.resolve_message(message)?;
        Some((mailbox.guid, key, mailbox.message(key)?.clone()))
    });
    let Ok(Some((guid, key, record))) = found else { return };
    let mime = tenant.mime(&guid, key, &record);
    let mime = [format!("X-Edition: {}\r\n", record.edition + 1).as_bytes(), &mime[..]].concat();
    if let Err(error) = tenant.change_message(user, message, mime) {
        tracing::debug!(%error, "the message did not change");
    }
}

fn change_contact(tenant: &Tenant, user: &str, contact: &str) {
    let changes = tenant.with_mailbox(user, |mailbox| mailbox.latest_change()).unwrap_or_default();
    let fields = [("personalNotes".to_owned(), json!(format!("Note {changes}")))].into_iter().collect();
    if let Err(error) = tenant.change_contact(user, contact, &fields) {
        tracing::debug!(%error, "the contact did not change");
    }
}

fn change_event(tenant: &Tenant, user: &str, event: &str) {
    let changes = tenant.with_mailbox(user, |mailbox| mailbox.latest_change()).unwrap_or_default();
    let fields = [("subject".to_owned(), json!(format!("Subject {changes}")))].into_iter().collect();
    if let Err(error) = tenant.change_event(user, event, &fields) {
        tracing::debug!(%error, "the event did not change");
    }
}

fn change_task(tenant: &Tenant, user: &str, task: &str) {
    let changes = tenant.with_mailbox(user, |mailbox| mailbox.latest_change()).unwrap_or_default();
    let fields = [("title".to_owned(), json!(format!("Title {changes}")))].into_iter().collect();
    if let Err(error) = tenant.change_task(user, task, &fields) {
        tracing::debug!(%error, "the task did not change");
    }
}

/// Deletes the requested folder, calendar or task list, unless it is one that every mailbox has.
fn delete_folder(tenant: &Tenant, route: &Route) {
    let (Some(user), Some(folder)) = (&route.user, &route.folder) else { return };
    if let Err(error) = tenant.delete_folder(user, folder) {
        tracing::debug!(%error, "the folder did not vanish");
    }
}

/// Returns the answer to a request that is refused before any work is done.
fn refusal(fault: Fault, faults: &Faults) -> Option<Response> {
    let error = |status, code: &'static str, message: &'static str| ApiError::new(status, code, message);
    let retry_after = HeaderValue::from(faults.retry_after_s);
    Some(match fault {
        Fault::TooManyRequests => error(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "Please retry again later.")
            .with_header(header::RETRY_AFTER, retry_after)
            .into_response(),
        Fault::TooManyRequestsBare => error(StatusCode::TOO_MANY_REQUESTS, "UnknownError", "").into_response(),
        Fault::InvalidToken => {
            error(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", "Signing key is invalid.").into_response()
        }
        Fault::PayloadRead => {
            let message = "IO error during request payload read. Please retry.";
            error(StatusCode::BAD_REQUEST, "RequestBodyRead", message).into_response()
        }
        Fault::NotFoundEmpty => StatusCode::NOT_FOUND.into_response(),
        Fault::NotFound => ApiError::item_not_found().into_response(),
        Fault::InternalError => {
            let message = "An internal server error occurred. Try again later.";
            error(StatusCode::INTERNAL_SERVER_ERROR, "ErrorInternalServerTransientError", message).into_response()
        }
        Fault::BadGateway => {
            let page = axum::response::Html("<html><body><h1>502 Bad Gateway</h1></body></html>");
            (StatusCode::BAD_GATEWAY, page).into_response()
        }
        Fault::Unavailable => {
            let message = "The service is temporarily unavailable.";
            error(StatusCode::SERVICE_UNAVAILABLE, "serviceNotAvailable", message)
                .with_header(header::RETRY_AFTER, retry_after)
                .into_response()
        }
        Fault::UnavailableEmpty => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fault::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT.into_response(),
        Fault::DeltaExpired => {
            let message = "The sync state generation is not found; generation=149;[highest=157][157][155][156].";
            error(StatusCode::GONE, "SyncStateNotFound", message).into_response()
        }
        _ => return None,
    })
}

/// Breaks the connection. The returned answer only makes the server write, and that write fails.
fn reset(connection: &Connection) -> Response {
    connection.reset();
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Damages the body of an answer. A body that is too short to cut, or that is not JSON where JSON is to be spoilt,
/// stays as it is.
async fn damage(fault: Fault, response: Response, mut rng: Rng, connection: Connection, faults: &Faults) -> Response {
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let spoils_json = matches!(fault, Fault::TruncatedJson | Fault::InvalidJson | Fault::EmptyJson);
    if spoils_json && !is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else { return reset(&connection) };
    if body.len() < 2 {
        return Response::from_parts(parts, Body::from(body));
    }
    // Send at least one byte, and leave out at least one.
    let cut = rng.between(1, body.len() as u64 - 1) as usize;
    if let Fault::CutWithoutLength | Fault::CutWithoutLengthKeepAlive = fault {
        let keeps_alive = fault == Fault::CutWithoutLengthKeepAlive;
        connection.say_instead([&head_without_length(&parts, keeps_alive), &body[..cut]].concat().into());
        return ([(header::CONNECTION, "close")], StatusCode::OK).into_response();
    }
    let body = match fault {
        Fault::Trickle => trickle(body, Duration::from_millis(faults.slow_ms / PIECES as u64)),
        Fault::ResetInBody => broken(body.slice(..cut), Some(connection)),
        Fault::CloseInBody => broken(body.slice(..cut), None),
        _ => {
            parts.headers.remove(header::CONTENT_LENGTH);
            match fault {
                Fault::TruncatedJson | Fault::ShortBody => Body::from(body.slice(..cut)),
                Fault::InvalidJson if rng.chance(50) => Body::from("<html><body>Sign in to continue</body></html>"),
                // Two commas after the first byte: outside of a string that is never valid JSON.
                Fault::InvalidJson => Body::from([&body[..1], b",,", &body[1..]].concat()),
                _ => Body::empty(),
            }
        }
    };
    // A promised length stays in the header, so that the client can notice that bytes are missing.
    Response::from_parts(parts, body)
}

/// Returns the head of an answer whose body ends with its connection (RFC 9112, 6.3).
fn head_without_length(parts: &Parts, keeps_alive: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
    for (name, value) in parts.headers.iter().filter(|(name, _)| !framing.contains(name)) {
        head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let connection = if keeps_alive { "keep-alive" } else { "close" };
    head.extend_from_slice(format!("connection: {connection}\r\n\r\n").as_bytes());
    head
}

/// Returns a body that fails after `part`. The server then closes the connection, or resets it if `reset` is given.
fn broken(part: Bytes, reset: Option<Connection>) -> Body {
    let stream = futures_util::stream::unfold(Some(part), move |part| {
        let reset = reset.clone();
        async move {
            if let Some(part) = part {
                return Some((Ok(part), None));
            }
            // While it waits for more, the server sends what it has.
            tokio::time::sleep(FLUSH).await;
            if let Some(connection) = reset {
                connection.reset();
            }
            Some((Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)), None))
        }
    });
    Body::from_stream(stream)
}

fn trickle(body: Bytes, pause: Duration) -> Body {
    let piece = body.len().div_ceil(PIECES);
    let stream = futures_util::stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let part = rest.split_to(piece.min(rest.len()));
        Some((Ok::<_, Infallible>(part), rest))
    });
    Body::from_stream(stream)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use parking_lot::Mutex;

    use super::*;
    use crate::Options;
    use crate::connection::Listener;

    const PATH: &str = "/v1.0/users/a/messages/delta?$deltatoken=x";

    /// Serves one JSON document over real TCP, and counts how often it was generated.
    struct Served {
        url: String,
        made: Arc<Mutex<u32>>,
    }

    async fn serve(fault: Fault) -> Served {
        let faults = Faults { slow_ms: 40, late_ms: 40, ..Faults::default() }.with_rule("delta", 1, fault);
        let state = Arc::new(State::new(String::new(), Options { faults, ..Options::default() }).unwrap());
        let made = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&made);
        let handler = move || {
            *counted.lock() += 1;
            std::future::ready(axum::Json(json!({"value": "0123456789".repeat(100)})))
        };
        let app = Router::new()
            .route("/v1.0/users/a/messages/delta", get(handler))
            .layer(from_fn_with_state(state, inject))
            .layer(from_fn(crate::server::finish));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PATH}", listener.local_addr().unwrap());
        let service = app.into_make_service_with_connect_info::<Connection>();
        tokio::spawn(async move { axum::serve(Listener::new(listener), service).await });
        Served { url, made }
    }

    /// Sends a request. Returns status and body, or the error and whether the head had arrived.
    async fn ask(served: &Served) -> Result<(u16, Vec<u8>), (bool, String)> {
        let debug = |error: reqwest::Error| format!("{error:?}");
        let response = reqwest::Client::new().get(&served.url).send().await.map_err(|error| (false, debug(error)))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| (true, debug(error)))?;
        Ok((status, body.to_vec()))
    }

    #[tokio::test]
    async fn every_fault_can_be_noticed_and_the_next_attempt_succeeds() {
        let apart = [Fault::DeltaExpired, Fault::LateWork, Fault::OtherBody];
        for fault in Fault::ALL.into_iter().filter(|fault| !apart.contains(fault) && *fault < Fault::ItemChanges) {
            let served = serve(fault).await;
            let outcome = ask(&served).await;
            let is_whole =
                matches!(&outcome, Ok((200, body)) if serde_json::from_slice::<serde_json::Value>(body).is_ok());
            assert_eq!(is_whole, matches!(fault, Fault::Slow | Fault::Trickle), "{fault:?}: {outcome:?}");
            assert_eq!(*served.made.lock() == 0, fault.is_before_work(), "{fault:?}");
            assert!(matches!(ask(&served).await, Ok((200, _))), "{fault:?} happens once");
        }
    }

    #[tokio::test]
    async fn late_work_is_done_after_the_answer() {
        let served = serve(Fault::LateWork).await;
        let asked = std::time::Instant::now();
        assert!(matches!(ask(&served).await, Ok((504, body)) if body.is_empty()));
        assert_eq!(*served.made.lock(), 0, "the answer comes first");
        while *served.made.lock() == 0 {
            assert!(asked.elapsed() < Duration::from_secs(60), "it was never done");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(asked.elapsed() >= Duration::from_millis(40), "{:?}", asked.elapsed());
    }

    #[tokio::test]
    async fn resets_are_resets_and_come_where_they_should() {
        for (fault, after_head, is_reset) in [
            (Fault::ResetBefore, false, true),
            (Fault::LostAnswer, false, true),
            (Fault::ResetInBody, true, true),
            (Fault::CloseInBody, true, false),
        ] {
            let (head_came, error) = ask(&serve(fault).await).await.unwrap_err();
            assert_eq!(head_came, after_head, "{fault:?}: {error}");
            assert_eq!(error.contains("ConnectionReset"), is_reset, "{fault:?}: {error}");
        }
    }

    #[tokio::test]
    async fn statuses_headers_and_bodies_are_those_of_the_service() {
        let answer = async |fault| {
            let response = reqwest::get(&serve(fault).await.url).await.unwrap();
            let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), retry_after, response.text().await.unwrap())
        };
        let (status, retry_after, body) = answer(Fault::TooManyRequests).await;
        assert_eq!((status, retry_after.as_deref()), (429, Some("1")));
        assert!(body.contains("TooManyRequests"));
        let (status, retry_after, body) = answer(Fault::TooManyRequestsBare).await;
        assert_eq!((status, retry_after), (429, None));
        assert!(body.contains(r#""code":"UnknownError""#) && body.contains(r#""message":"""#));
        assert_eq!(answer(Fault::UnavailableEmpty).await, (503, None, String::new()));
        assert_eq!(answer(Fault::GatewayTimeout).await, (504, None, String::new()));
        assert_eq!(answer(Fault::EmptyJson).await, (200, None, String::new()));
        let (status, _, body) = answer(Fault::DeltaExpired).await;
        assert_eq!(status, 410);
        assert!(body.contains("SyncStateNotFound"));
        assert!(!answer(Fault::TruncatedJson).await.2.is_empty());
    }
}
