//! Sends requests, and repeats them if that helps.
//!
//! One attempt waits at the gate, takes a token, sends the request and reads the answer. `answer` interprets the
//! result, and [`super::retry`] decides whether there is another attempt. Each attempt has its own `client-request-id`,
//! which is also logged.

use super::answer::{Refusal, refusal};
use super::auth::Authenticator;
use super::cloud::Endpoints;
use super::connection::Connection;
use super::error::{ErrorKind, GraphError};
use super::expected::{Expected, Seen};
use super::http::{Http, NoAnswer, guid, has_an_end};
use super::json;
use super::pace::Arrival;
use super::request::{Method, Payload, Request, Scope, Target};
use super::retry::{Attempts, Fault, RetryPolicy, random};
use super::throttle::{Affected, Gate, Permit};
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, debug_span, warn};
use url::Url;

mod batch;
#[cfg(test)]
mod tests;

/// Maximum size of a JSON answer, in bytes. A page of five hundred messages with their bodies has tens of megabytes.
const JSON_BYTES_MAX: u64 = 64 << 20;
/// Answers of at least this many bytes count as large. At most [`LARGE_AT_ONCE_MAX`] of them are in memory at the same
/// time; others wait.
const LARGE_BYTES_MIN: usize = 8 << 20;
const LARGE_AT_ONCE_MAX: usize = 2;
/// Maximum number of bytes that are read of an error's body.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Counts what went over the network since the client was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that were sent to Graph, including repeated ones.
    pub requests: u64,
    /// Requests that the service refused for lack of capacity.
    pub throttled: u64,
    /// Bytes received in the bodies of successful answers, after decompression.
    pub bytes_received: u64,
}

/// A client of Graph for one tenant. Clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    endpoints: Endpoints,
    tenant_id: String,
    http: Http,
    auth: Authenticator,
    gate: Arc<Gate>,
    retry: RetryPolicy,
    /// Limits how many large answers are in memory.
    large: Arc<Semaphore>,
    cancelled: watch::Sender<bool>,
    requests: AtomicU64,
    throttled: AtomicU64,
    bytes_received: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Client {
    /// Creates a client. Sends nothing yet.
    ///
    /// # Errors
    /// If the certificate or the proxy of `connection` cannot be used, or if a login has no token cache.
    pub fn new(connection: Connection) -> Result<Self, GraphError> {
        let http = Http::new(&connection)?;
        let auth = Authenticator::new(&connection, http.clone(), connection.retry.clone())?;
        Ok(Self(Arc::new(Shared {
            tenant_id: connection.tenant_id,
            http,
            auth,
            gate: Gate::new(connection.concurrency, connection.limits, connection.retry.throttled_max),
            retry: connection.retry,
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE_MAX)),
            endpoints: connection.endpoints,
            cancelled: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
        })))
    }

    /// Signs in, to find out whether that works. Returns the claims of the token, if they can be read.
    ///
    /// # Errors
    /// [`ErrorKind::SignIn`] if the service refuses; [`ErrorKind::Unavailable`] if it cannot be reached.
    pub async fn sign_in(&self) -> Result<Option<super::auth::Claims>, GraphError> {
        let token = self.unless_cancelled("sign-in", self.0.auth.token()).await?;
        Ok(super::auth::claims_of(token.expose()))
    }

    /// Sends `request`, and reads the answer as JSON. The service has been seen to send raw control characters and
    /// halves of surrogate pairs; both are accepted.
    ///
    /// # Errors
    /// The last failure, once no further attempt makes sense.
    pub async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, GraphError> {
        self.json_that(request, |_| Ok(())).await
    }

    /// Like [`Client::json`], but repeats the request until `check` accepts the answer: an answer may be complete and
    /// still be about something else.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::Malformed`] with the reason from `check`.
    pub async fn json_that<T: DeserializeOwned>(
        &self,
        request: Request,
        check: impl Fn(&T) -> Result<(), &'static str>,
    ) -> Result<T, GraphError> {
        let label = request.label;
        let read = |body: &Bytes| {
            let read = json::read(body).map_err(|error| Failure::of_json(label, body.len(), &error))?;
            check(&read).map_err(|why| Failure::of_another(label, why))?;
            Ok(read)
        };
        self.json_with(&request, read).await.map(|(answer, _)| answer)
    }

    /// Sends `request` until `read` understands the whole JSON answer. Returns what `read` made of it. A large answer
    /// comes with a permit for the memory that it takes; while holding one, do not wait for another answer.
    pub(super) async fn json_with<T>(
        &self,
        request: &Request,
        read: impl Fn(&Bytes) -> Result<T, Failure>,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), GraphError> {
        let mut request = request.clone();
        request.headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        self.whole(&request, JSON_BYTES_MAX, read).await
    }

    /// Sends `request`, and returns the whole body, of at most `max` bytes. A body may be empty.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::TooLarge`] if there are more bytes.
    pub async fn bytes(&self, request: Request, max: u64) -> Result<Bytes, GraphError> {
        self.whole(&request, max, |body| Ok(body.clone())).await.map(|(body, _)| body)
    }

    /// Like [`Client::bytes`], but repeats the request until `expected` accepts the answer.
    ///
    /// # Errors
    /// As [`Client::bytes`]; [`ErrorKind::Malformed`] with the reason.
    pub async fn bytes_of(&self, request: Request, max: u64, mut expected: Expected) -> Result<Bytes, GraphError> {
        let label = request.label;
        let read = |body: &Bytes| match expected.accept(&Seen::of(body)) {
            Ok(()) => Ok(body.clone()),
            Err(why) => Err(Failure::of_another(label, why)),
        };
        self.whole(&request, max, read).await.map(|(body, _)| body)
    }

    /// Starts to count attempts for a caller that reads a body and checks it by itself.
    pub fn patience(&self) -> Patience {
        Patience { client: self.clone(), attempts: Attempts::default() }
    }

    /// Sends `request`, and returns the body as it arrives.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn body(&self, request: Request) -> Result<Body, GraphError> {
        self.unless_cancelled(request.label, async {
            let mut attempts = RequestAttempts::new(&self.0, &request)?;
            loop {
                match attempts.attempt().await {
                    Ok(body) => return Ok(body),
                    Err(failure) => attempts.recover(failure).await?,
                }
            }
        })
        .await
    }

    /// Returns the tenant as the configuration names it: by its id, or by one of its domains.
    pub fn tenant_id(&self) -> &str {
        &self.0.tenant_id
    }

    /// Ends all requests, those in flight and all later ones, with [`ErrorKind::Cancelled`].
    pub fn cancel(&self) {
        self.0.cancelled.send_replace(true);
    }

    /// If no request can make progress because of the service's limits, returns how long that will last.
    pub fn pause(&self) -> Option<Duration> {
        self.0.gate.pause()
    }

    /// Returns what went over the network so far.
    pub fn counters(&self) -> Counters {
        Counters {
            requests: self.0.requests.load(Ordering::Relaxed),
            throttled: self.0.throttled.load(Ordering::Relaxed),
            bytes_received: self.0.bytes_received.load(Ordering::Relaxed),
        }
    }

    /// Sends `request` until `read` understands the whole answer.
    async fn whole<T>(
        &self,
        request: &Request,
        max: u64,
        mut read: impl FnMut(&Bytes) -> Result<T, Failure>,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), GraphError> {
        self.unless_cancelled(request.label, async {
            let mut attempts = RequestAttempts::new(&self.0, request)?;
            loop {
                let answer = match attempts.attempt().await {
                    // The service has carried out the request. From here on, a repetition does the same again.
                    Ok(mut body) => {
                        let rest = body.rest(max).await.map_err(Failure::after_success);
                        drop(body);
                        rest.and_then(|(body, room)| read(&body).map(|answer| (answer, room)))
                    }
                    Err(failure) => Err(failure),
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => attempts.recover(failure).await?,
                }
            }
        })
        .await
    }

    /// Returns true if a request to `target` may be sent.
    pub(super) fn leads_somewhere(&self, target: Target) -> bool {
        Request::new(Method::GET, target, Scope::Directory).resolve(&self.0.endpoints).is_ok()
    }

    async fn unless_cancelled<T>(
        &self,
        label: &'static str,
        work: impl Future<Output = Result<T, GraphError>>,
    ) -> Result<T, GraphError> {
        tokio::select! {
            biased;
            () = cancellation(&self.0) => Err(GraphError::new(ErrorKind::Cancelled, label)),
            result = work => result,
        }
    }
}

/// Counts the attempts of a caller that checks answers by itself, and waits between them.
pub struct Patience {
    client: Client,
    attempts: Attempts,
}

impl Patience {
    /// Waits before the attempt after `error`. Returns false if there is no further attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`].
    pub async fn wait(&mut self, error: &GraphError) -> Result<bool, GraphError> {
        let fault = match error.kind() {
            ErrorKind::Unavailable => Fault::Broken,
            ErrorKind::Malformed => Fault::Doubtful,
            _ => return Ok(false),
        };
        let Client(shared) = &self.client;
        let Some(wait) = self.attempts.next(&shared.retry, fault, 0, Instant::now(), random()) else {
            return Ok(false);
        };
        // Broken mail of real people is met in every backup: no warning as long as asking again may help.
        debug!(%error, wait_ms = wait.as_millis() as u64, "the answer was rejected, asking again");
        self.client
            .unless_cancelled("waiting", async {
                sleep(wait).await;
                Ok(true)
            })
            .await
    }
}

async fn cancellation(shared: &Shared) {
    // The sender is in the same struct, so waiting cannot fail.
    let _ = shared.cancelled.subscribe().wait_for(|&cancelled| cancelled).await;
}

/// Where the JSON was wrong. The parser's own message is not used, because it may quote the content.
#[derive(Debug, thiserror::Error)]
#[error("{what} at line {line}, column {column}")]
struct JsonError {
    what: &'static str,
    line: usize,
    column: usize,
}

impl JsonError {
    fn of(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Data => "a value of another type",
            Category::Eof => "the end of the text",
            Category::Syntax | Category::Io => "text that is not JSON",
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

/// A request and its attempts.
struct RequestAttempts<'a> {
    shared: &'a Arc<Shared>,
    request: &'a Request,
    url: Url,
    attempts: Attempts,
    sent: u32,
    /// If the request is a batch, the number of requests in it.
    batched: u64,
}

/// A failed attempt.
pub(super) struct Failure {
    error: GraphError,
    fault: Option<Fault>,
    affected: Affected,
    /// True if the service may have carried out the request in spite of the failure.
    ambiguous: bool,
    /// Kept until it is known how long other requests must wait.
    permit: Option<Permit>,
}

impl Failure {
    fn new(error: GraphError, fault: Option<Fault>) -> Self {
        Self { error, fault, affected: Affected::Scope, ambiguous: false, permit: None }
    }

    /// Returns the failure for an answer that is not the expected JSON.
    pub(super) fn of_json(label: &'static str, len: usize, error: &serde_json::Error) -> Self {
        // JSON of another shape will most likely come again. Text that is not JSON was damaged on its way.
        let fault = if error.is_data() { Fault::Doubtful } else { Fault::Broken };
        let why = match len {
            0 => "the answer is empty".to_owned(),
            len => format!("{len} bytes are not the JSON that was expected"),
        };
        let error = GraphError::new(ErrorKind::Malformed, label).explained(why).with(JsonError::of(error));
        Self { ambiguous: true, ..Self::new(error, Some(fault)) }
    }

    /// Returns the failure for an answer that began as a success but cannot be used.
    pub(super) fn after_success(error: GraphError) -> Self {
        let fault = error.is_transient().then_some(Fault::Broken);
        Self { ambiguous: true, ..Self::new(error, fault) }
    }

    /// Returns the failure for an answer that is complete but not what was asked for.
    fn of_another(label: &'static str, why: &'static str) -> Self {
        let error = GraphError::new(ErrorKind::Malformed, label).explained(why.into());
        Self { ambiguous: true, ..Self::new(error, Some(Fault::Broken)) }
    }

    /// Returns the failure for a request that got no answer.
    fn in_transport(label: &'static str, reason: NoAnswer) -> Self {
        let NoAnswer::Broken(error) = reason else {
            let error = GraphError::new(ErrorKind::Unavailable, label).explained("no answer in time".into());
            return Self { ambiguous: true, ..Self::new(error, Some(Fault::Broken)) };
        };
        let why = match () {
            () if error.is_timeout() => "no answer in time",
            () if error.is_connect() => "no connection",
            () => "the connection broke",
        };
        // If there was no connection, nothing was sent.
        let ambiguous = !error.is_connect();
        let error = GraphError::new(ErrorKind::Unavailable, label).explained(why.into()).with(error.without_url());
        Self { ambiguous, ..Self::new(error, Some(Fault::Broken)) }
    }
}

impl<'a> RequestAttempts<'a> {
    fn new(shared: &'a Arc<Shared>, request: &'a Request) -> Result<Self, GraphError> {
        let url = request.resolve(&shared.endpoints)?;
        Ok(Self { shared, request, url, attempts: Attempts::default(), sent: 0, batched: 0 })
    }

    /// Sends the request once.
    async fn attempt(&mut self) -> Result<Body, Failure> {
        let Request { scope, size_hint, payload, label, .. } = self.request;
        let gate = &self.shared.gate;
        let permit = match self.batched {
            0 => gate.enter(scope, *size_hint, payload.len()).await,
            requests => gate.enter_with_batch(scope, payload.len(), requests).await,
        };
        let permit = permit.map_err(|closed| {
            let why = format!("the service accepts no requests for another {} s", closed.wait.as_secs());
            Failure::new(GraphError::new(ErrorKind::Throttled, label).explained(why), None)
        })?;
        self.sent += 1;
        let id = guid(crate::format::crypto::random());
        let span = debug_span!("graph", label, client_request_id = id);
        self.exchange(permit, &id).instrument(span).await
    }

    async fn exchange(&self, permit: Permit, id: &str) -> Result<Body, Failure> {
        let (shared, label) = (self.shared, self.request.label);
        let token = match self.request.takes_token() {
            true => Some(shared.auth.token().await.map_err(|error| Failure::new(error, None))?),
            false => None,
        };
        let authorization = token.as_ref().map(|token| {
            token.header().ok_or_else(|| {
                let error = GraphError::new(ErrorKind::SignIn, label).explained("the token is not text".into());
                Failure::new(error, None)
            })
        });
        let authorization = authorization.transpose()?;
        let started = Instant::now();
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let upload = self.request.payload.len();
        let response = match shared.http.send(self.compose(authorization, id), upload).await {
            Ok(response) => response,
            Err(reason) => return Err(Failure::in_transport(label, reason)),
        };
        let status = response.status();
        debug!(attempt = self.sent, status = status.as_u16(), ms = started.elapsed().as_millis() as u64, "answered");
        if status.is_success() {
            permit.succeeded();
            if !has_an_end(&response, self.request.is_uncoded()) {
                let why = "the answer ends with its connection: it could have been cut off".into();
                let error = GraphError::new(ErrorKind::Unavailable, label).explained(why);
                return Err(Failure::after_success(error));
            }
            let arrival = Arrival::new(shared.http.pace);
            return Ok(Body { shared: Arc::clone(shared), response, arrival, label, permit });
        }
        let headers = response.headers().clone();
        // The body of the error may be missing: the status is enough.
        let body = shared.http.read_all(response, ERROR_BYTES_MAX, label).await.unwrap_or_default();
        let Refusal { error, fault, affected, ambiguous } = refusal(self.request, status, &headers, &body);
        match fault {
            Some(Fault::Unauthorized) => match &token {
                Some(token) => shared.auth.invalidate(token),
                // The permission is part of the URL, so a new token would not help.
                None => {
                    let error = GraphError::new(ErrorKind::Unavailable, label);
                    let error = error.explained("the permission for the upload has expired".into());
                    return Err(Failure::new(error.answered(status.as_u16(), None, None), None));
                }
            },
            Some(Fault::Throttled(_)) => {
                shared.throttled.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        Err(Failure { error, fault, affected, ambiguous, permit: Some(permit) })
    }

    fn compose(&self, authorization: Option<HeaderValue>, id: &str) -> reqwest::RequestBuilder {
        let request = self.request;
        let mut headers = request.headers.clone();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        headers.insert("client-request-id", HeaderValue::from_str(id).expect("a GUID is a header"));
        headers.insert("return-client-request-id", HeaderValue::from_static("true"));
        if let Ok(prefer) = HeaderValue::from_str(&request.prefer.join(", "))
            && !prefer.is_empty()
        {
            headers.insert("prefer", prefer);
        }
        if request.scope == Scope::Directory {
            // A low priority, because a backup should not slow down the tenant's own work (Graph: throttling limits,
            // identity and access).
            headers.insert("x-ms-throttle-priority", HeaderValue::from_static("low"));
        }
        let mut builder = self.shared.http.client.request(request.method.clone(), self.url.clone());
        if let Payload::Bytes(media_type, bytes) = &request.payload {
            headers.insert(CONTENT_TYPE, media_type.clone());
            builder = builder.body(bytes.clone());
        }
        builder.headers(headers)
    }

    /// Waits for the next attempt.
    ///
    /// # Errors
    /// The failure itself, if there is no further attempt.
    async fn recover(&mut self, failure: Failure) -> Result<(), GraphError> {
        let Failure { error, fault, affected, ambiguous, permit } = failure;
        let error = if ambiguous && !self.request.replay { error.ambiguous() } else { error };
        let Some(fault) = fault.filter(|_| !error.is_ambiguous()) else { return Err(error) };
        let refusals = match (fault, &permit) {
            (Fault::Throttled(_), Some(permit)) => permit.refused(affected),
            _ => 0,
        };
        let wait = self.attempts.next(&self.shared.retry, fault, refusals, Instant::now(), random());
        if let (Fault::Throttled(hint), Some(permit)) = (fault, permit) {
            // The gate makes this request wait together with all others. If this request gives up, the others must
            // still wait.
            permit.hold(affected, wait.or(hint).unwrap_or_default());
            drop(permit);
            let wait_ms = wait.unwrap_or_default().as_millis() as u64;
            debug!(%error, ?affected, wait_ms, attempt = self.sent, "throttled");
            return wait.map(drop).ok_or(error);
        }
        let Some(wait) = wait else { return Err(error) };
        warn!(%error, wait_ms = wait.as_millis() as u64, attempt = self.sent, "request failed, trying again");
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
        Ok(())
    }
}

/// A body that is still arriving. It counts as a request in flight until it is dropped.
pub struct Body {
    shared: Arc<Shared>,
    response: Response,
    arrival: Arrival,
    label: &'static str,
    permit: Permit,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("label", &self.label).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Body {
    /// Returns the next bytes, or `None` after the last ones.
    ///
    /// # Errors
    /// A transient error if the body ends early or arrives too slowly. The caller may then send the request again from
    /// the start.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, GraphError> {
        let chunk = tokio::select! {
            biased;
            () = cancellation(&self.shared) => return Err(GraphError::new(ErrorKind::Cancelled, self.label)),
            chunk = self.arrival.chunk(&mut self.response, self.label) => chunk?,
        };
        if let Some(chunk) = &chunk {
            self.shared.bytes_received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(chunk)
    }

    /// Returns the HTTP status, which is one of success.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns the headers of the answer.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the rest of the body. If it is large, a permit for the memory that it takes comes with it.
    async fn rest(&mut self, max: u64) -> Result<(Bytes, Option<OwnedSemaphorePermit>), GraphError> {
        let first = self.chunk().await?.unwrap_or_default();
        if first.len() as u64 > max {
            return Err(GraphError::endless(self.label, max));
        }
        let Some(second) = self.chunk().await? else { return Ok((first, None)) };
        let (mut body, mut room) = (BytesMut::from(first), None);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if (body.len() + chunk.len()) as u64 > max {
                return Err(GraphError::endless(self.label, max));
            }
            if body.len() > LARGE_BYTES_MIN && room.is_none() {
                let large = self.shared.large.clone().acquire_owned();
                room = Some(large.await.expect("the semaphore is never closed"));
            }
            body.extend_from_slice(&chunk);
            next = self.chunk().await?;
        }
        Ok((body.freeze(), room))
    }
}
