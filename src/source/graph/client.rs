//! Sends requests, and sends them again where that helps.
//!
//! One attempt: wait at the gate, take a token, send, read. What comes of it is judged (`answer`), and whether there
//! is another attempt is decided ([`super::retry`]). Each attempt has a `client-request-id` of its own, which the log
//! has too.

use super::answer::{Refusal, refusal};
use super::auth::{Authenticator, Credential, TokenCache};
use super::cloud::Endpoints;
use super::error::{ErrorKind, GraphError};
use super::expected::{Expected, Seen};
use super::http::{Http, NoAnswer, guid, has_an_end, too_large};
use super::json;
use super::pace::{Arrival, Pace};
use super::request::{Method, Payload, Request, Scope, Target};
use super::retry::{Attempts, Fault, RetryPolicy, random};
use super::throttle::{Gate, Limits, Permit, Whose};
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

#[cfg(test)]
mod tests;

/// A page of five hundred messages with their bodies has tens of megabytes.
const JSON_BYTES_MAX: u64 = 64 << 20;
/// Answers that are longer than this wait for each other: of them [`LARGE_AT_ONCE_MAX`] are in memory at the same time.
const LARGE_BYTES_MIN: usize = 8 << 20;
const LARGE_AT_ONCE_MAX: usize = 2;
/// What is read of the body of an error.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// How a tenant is reached.
#[derive(Clone)]
pub struct Connection {
    /// The cloud's hosts.
    pub endpoints: Endpoints,
    /// The id of the tenant, or one of its verified domains.
    pub tenant_id: String,
    /// Who signs in.
    pub credential: Credential,
    /// What leads out; without one, what the environment says.
    pub proxy: Option<Url>,
    /// Requests in flight at the same time, at most.
    pub concurrency: usize,
    /// What the service allows.
    pub limits: Limits,
    /// How long to go on when it does not work.
    pub retry: RetryPolicy,
    /// How slowly answers may come.
    pub pace: Pace,
    /// Where refresh tokens are kept; only [`Credential::Login`] needs one.
    pub state: Option<TokenCache>,
}

impl Connection {
    /// Returns a connection with everything else as published: 16 requests in flight, no proxy, no cache.
    pub fn new(endpoints: Endpoints, tenant_id: impl Into<String>, credential: Credential) -> Self {
        Self {
            endpoints,
            tenant_id: tenant_id.into(),
            credential,
            proxy: None,
            concurrency: 16,
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            pace: Pace::default(),
            state: None,
        }
    }
}

impl fmt::Debug for Connection {
    /// Leaves out the proxy, whose URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoints", &self.endpoints)
            .field("tenant_id", &self.tenant_id)
            .field("credential", &self.credential)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// What went over the wire since the client was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests to Graph that were sent, the repeated ones too.
    pub requests: u64,
    /// Of these, refused for want of capacity.
    pub throttled: u64,
    /// Bytes received in bodies of successes, unpacked.
    pub bytes_received: u64,
}

/// Talks to Graph for one tenant. Clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    endpoints: Endpoints,
    tenant_id: String,
    http: Http,
    auth: Authenticator,
    gate: Arc<Gate>,
    retry: RetryPolicy,
    /// Room for large answers.
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
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// When the certificate or the proxy of `connection` cannot be used, or a login has no token cache.
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

    /// Signs in, to find out whether that works. Returns what the token says it allows, if it says.
    ///
    /// # Errors
    /// [`ErrorKind::SignIn`] when the service refuses, [`ErrorKind::Unavailable`] when it cannot be asked.
    pub async fn sign_in(&self) -> Result<Option<super::auth::Claims>, GraphError> {
        let token = self.unless_cancelled("sign-in", self.0.auth.token()).await?;
        Ok(super::auth::claims_of(token.expose()))
    }

    /// Asks, and reads the answer as JSON. Raw control characters and halves of surrogate pairs, which the service has
    /// been seen to send, do not spoil it.
    ///
    /// # Errors
    /// What was not answered after all attempts that make sense.
    pub async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, GraphError> {
        self.json_that(request, |_| Ok(())).await
    }

    /// Asks as [`Client::json`] does, until `check` finds nothing wrong with the answer: one may be whole, and about
    /// something else.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::Malformed`] with what `check` says.
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

    /// Asks for JSON until `read` understands the whole answer. With what it makes of it comes the room that a large
    /// answer takes in memory. Whoever has that must not wait for another answer.
    pub(super) async fn json_with<T>(
        &self,
        request: &Request,
        read: impl Fn(&Bytes) -> Result<T, Failure>,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), GraphError> {
        let mut request = request.clone();
        request.headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        self.whole(&request, JSON_BYTES_MAX, read).await
    }

    /// Asks, and returns the whole body, of `max` bytes at most. A body may be empty.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::TooLarge`] when there are more bytes.
    pub async fn bytes(&self, request: Request, max: u64) -> Result<Bytes, GraphError> {
        self.whole(&request, max, |body| Ok(body.clone())).await.map(|(body, _)| body)
    }

    /// Asks as [`Client::bytes`] does, until the answer can be what is expected.
    ///
    /// # Errors
    /// As [`Client::bytes`]; [`ErrorKind::Malformed`] with what is wrong.
    pub async fn bytes_of(&self, request: Request, max: u64, mut expected: Expected) -> Result<Bytes, GraphError> {
        let label = request.label;
        let read = |body: &Bytes| match expected.accept(&Seen::of(body)) {
            Ok(()) => Ok(body.clone()),
            Err(why) => Err(Failure::of_another(label, why)),
        };
        self.whole(&request, max, read).await.map(|(body, _)| body)
    }

    /// Begins to count attempts at something of which a caller judges the answers: a body that it reads by itself.
    pub fn patience(&self) -> Patience {
        Patience { client: self.clone(), attempts: Attempts::default() }
    }

    /// Asks, and returns the body as it arrives.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn body(&self, request: Request) -> Result<Body, GraphError> {
        self.unless_cancelled(request.label, async {
            let mut course = Course::new(&self.0, &request)?;
            loop {
                match course.attempt().await {
                    Ok(body) => return Ok(body),
                    Err(failure) => course.recover(failure).await?,
                }
            }
        })
        .await
    }

    /// Returns the organisation as the configuration names it: by its id, or one of its domains.
    pub fn tenant_id(&self) -> &str {
        &self.0.tenant_id
    }

    /// Ends everything that is under way or asked for from now on with [`ErrorKind::Cancelled`].
    pub fn cancel(&self) {
        self.0.cancelled.send_replace(true);
    }

    /// Returns for how long the service's limits let no request leave, if nothing else can be done meanwhile.
    pub fn pause(&self) -> Option<Duration> {
        self.0.gate.pause()
    }

    /// Returns what went over the wire so far.
    pub fn counters(&self) -> Counters {
        Counters {
            requests: self.0.requests.load(Ordering::Relaxed),
            throttled: self.0.throttled.load(Ordering::Relaxed),
            bytes_received: self.0.bytes_received.load(Ordering::Relaxed),
        }
    }

    /// Asks until `read` understands the whole answer.
    async fn whole<T>(
        &self,
        request: &Request,
        max: u64,
        mut read: impl FnMut(&Bytes) -> Result<T, Failure>,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), GraphError> {
        self.unless_cancelled(request.label, async {
            let mut course = Course::new(&self.0, request)?;
            loop {
                let answer = match course.attempt().await {
                    // The service did what it was asked for: from here on another attempt does it again.
                    Ok(body) => {
                        let rest = body.rest(max).await.map_err(Failure::after_success);
                        rest.and_then(|(body, room)| read(&body).map(|answer| (answer, room)))
                    }
                    Err(failure) => Err(failure),
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => course.recover(failure).await?,
                }
            }
        })
        .await
    }

    /// Returns whether a request to `target` has somewhere to go.
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

/// The attempts of a caller that judges answers by itself, and the waits between them.
pub struct Patience {
    client: Client,
    attempts: Attempts,
}

impl Patience {
    /// Waits until the next attempt may begin after `error`, and returns whether there is one.
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
        warn!(%error, wait_ms = wait.as_millis() as u64, "the answer is not taken, asking again");
        self.client
            .unless_cancelled("waiting", async {
                sleep(wait).await;
                Ok(true)
            })
            .await
    }
}

async fn cancellation(shared: &Shared) {
    // The sender lives in the same struct: waiting cannot fail.
    let _ = shared.cancelled.subscribe().wait_for(|&cancelled| cancelled).await;
}

/// Where JSON ceased to make sense. The parser's own words may quote what it read.
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
            Category::Data => "something of another kind",
            Category::Eof => "the end of the text",
            Category::Syntax | Category::Io => "something that is no JSON",
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

/// One request on its way through its attempts.
struct Course<'a> {
    shared: &'a Arc<Shared>,
    request: &'a Request,
    url: Url,
    attempts: Attempts,
    sent: u32,
}

/// An attempt that failed.
pub(super) struct Failure {
    error: GraphError,
    fault: Option<Fault>,
    whose: Whose,
    /// Whether it may have been carried out all the same.
    ambiguous: bool,
    /// Kept until it is known how long others must wait.
    permit: Option<Permit>,
}

impl Failure {
    fn new(error: GraphError, fault: Option<Fault>) -> Self {
        Self { error, fault, whose: Whose::Scope, ambiguous: false, permit: None }
    }

    /// An answer that is not the JSON that was expected.
    pub(super) fn of_json(label: &'static str, len: usize, error: &serde_json::Error) -> Self {
        // JSON of another shape will most likely come again; what is no JSON was damaged on its way.
        let fault = if error.is_data() { Fault::Doubtful } else { Fault::Broken };
        let why = match len {
            0 => "the answer is empty".to_owned(),
            len => format!("{len} bytes are not the JSON that was expected"),
        };
        let error = GraphError::new(ErrorKind::Malformed, label).explained(why).with(JsonError::of(error));
        Self { ambiguous: true, ..Self::new(error, Some(fault)) }
    }

    /// An answer that began as a success, and cannot be used.
    pub(super) fn after_success(error: GraphError) -> Self {
        let fault = error.is_transient().then_some(Fault::Broken);
        Self { ambiguous: true, ..Self::new(error, fault) }
    }

    /// An answer that is whole, and not what was asked for.
    fn of_another(label: &'static str, why: &'static str) -> Self {
        let error = GraphError::new(ErrorKind::Malformed, label).explained(why.into());
        Self { ambiguous: true, ..Self::new(error, Some(Fault::Broken)) }
    }

    /// No answer came.
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
        // Without a connection nothing was sent.
        let ambiguous = !error.is_connect();
        let error = GraphError::new(ErrorKind::Unavailable, label).explained(why.into()).with(error.without_url());
        Self { ambiguous, ..Self::new(error, Some(Fault::Broken)) }
    }
}

impl<'a> Course<'a> {
    fn new(shared: &'a Arc<Shared>, request: &'a Request) -> Result<Self, GraphError> {
        let url = request.resolve(&shared.endpoints)?;
        Ok(Self { shared, request, url, attempts: Attempts::default(), sent: 0 })
    }

    /// Sends once.
    async fn attempt(&mut self) -> Result<Body, Failure> {
        let Request { scope, size_hint, payload, label, .. } = self.request;
        let permit = self.shared.gate.enter(scope, *size_hint, payload.len()).await.map_err(|closed| {
            let why = format!("the service asks to be left alone for {} s more", closed.wait.as_secs());
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
                let error = GraphError::new(ErrorKind::SignIn, label).explained("the token is no text".into());
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
            return Ok(Body { shared: Arc::clone(shared), response, arrival, label, _permit: permit });
        }
        let headers = response.headers().clone();
        // The words may be missing: the status counts.
        let body = shared.http.read_all(response, ERROR_BYTES_MAX, label).await.unwrap_or_default();
        let Refusal { error, fault, whose, ambiguous } = refusal(self.request, status, &headers, &body);
        match fault {
            Some(Fault::Unauthorized) => match &token {
                Some(token) => shared.auth.invalidate(token),
                // The permission is in the URL: only another URL has a newer one.
                None => {
                    let error = GraphError::new(ErrorKind::Unavailable, label);
                    let error = error.explained("the permission of the upload has ended".into());
                    return Err(Failure::new(error.answered(status.as_u16(), None, None), None));
                }
            },
            Some(Fault::Throttled(_)) => {
                shared.throttled.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        Err(Failure { error, fault, whose, ambiguous, permit: Some(permit) })
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
            // A backup gives way to the tenant's own work (Graph: throttling limits, identity and access).
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
    /// The failure, if there is none.
    async fn recover(&mut self, failure: Failure) -> Result<(), GraphError> {
        let Failure { error, fault, whose, ambiguous, permit } = failure;
        let error = if ambiguous && !self.request.replay { error.ambiguous() } else { error };
        let Some(fault) = fault.filter(|_| !error.is_ambiguous()) else { return Err(error) };
        let refusals = match (fault, &permit) {
            (Fault::Throttled(_), Some(permit)) => permit.refused(whose),
            _ => 0,
        };
        let wait = self.attempts.next(&self.shared.retry, fault, refusals, Instant::now(), random());
        if let (Fault::Throttled(hint), Some(permit)) = (fault, permit) {
            // The gate makes this request wait like all others. When it gives up, the others still must.
            permit.hold(whose, wait.or(hint).unwrap_or_default());
            drop(permit);
            let wait_ms = wait.unwrap_or_default().as_millis() as u64;
            debug!(%error, ?whose, wait_ms, attempt = self.sent, "throttled");
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

/// A body on its way. Keeps its place among the requests in flight until it is dropped.
pub struct Body {
    shared: Arc<Shared>,
    response: Response,
    arrival: Arrival,
    label: &'static str,
    _permit: Permit,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("label", &self.label).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Body {
    /// Returns the next bytes, or `None` after the last.
    ///
    /// # Errors
    /// A transient one when the body ends early or comes too slowly; the caller asks for it again from the start.
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

    /// Returns the HTTP status, one of success.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns the headers of the answer.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns all that is still to come, with the room that it takes in memory if it is much.
    async fn rest(mut self, max: u64) -> Result<(Bytes, Option<OwnedSemaphorePermit>), GraphError> {
        let first = self.chunk().await?.unwrap_or_default();
        if first.len() as u64 > max {
            return Err(too_large(self.label, max));
        }
        let Some(second) = self.chunk().await? else { return Ok((first, None)) };
        let (mut body, mut room) = (BytesMut::from(first), None);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if (body.len() + chunk.len()) as u64 > max {
                return Err(too_large(self.label, max));
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
