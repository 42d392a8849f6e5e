//! Sends several requests to one mailbox as one (Graph: "Combine multiple HTTP requests using JSON batching").
//!
//! The service counts each request of a batch against the limits of the mailbox, and may refuse or fail each one by
//! itself inside an answer that is a success. It would run up to four of them at the same time, and refuse the others.
//! So here each request depends on the one before it: the service runs one after the other, and a batch takes one
//! place in flight, like any other request. Four batches may run side by side. The price is that a request that
//! fails keeps those behind it from being run (424). They go into the next batch. This costs nothing as long as
//! failures are rare.

use super::super::answer::{Refusal, refusal};
use super::super::error::{ErrorKind, GraphError};
use super::super::json::{Texts, mend};
use super::super::request::{Method, Payload, Request};
use super::super::retry::{Attempts, Fault, random};
use super::super::throttle::Permit;
use super::super::urls::path;
use super::{Client, Failure, JSON_BYTES_MAX, RequestAttempts};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

/// Maximum number of requests in a batch (Graph: JSON batching).
const REQUESTS_MAX: usize = 20;
/// The status of a request that was not run because one that it depends on failed.
const FAILED_DEPENDENCY: u16 = 424;

/// A request on its way through batches.
struct Batched<'a, T> {
    request: &'a Request,
    /// The URL below the version, as batches have it.
    url: String,
    attempts: Attempts,
    result: Option<Result<T, GraphError>>,
}

/// The answer to one request of a batch.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// What a batch was answered.
struct Answered {
    /// The answers, by the position of the request in the batch.
    answers: HashMap<usize, Answer>,
    /// Kept until it is known how long other requests must wait.
    permit: Permit,
}

impl Client {
    /// Sends reads of one mailbox, up to 20 in one request, until `read` understands each answer. Returns a result for
    /// each of them. A read that fails or is throttled is sent again as if it had been sent alone; what was answered
    /// stands.
    pub(in super::super) async fn batch<T>(
        &self,
        requests: &[Request],
        read: impl Fn(&Request, &Bytes) -> Result<T, Failure>,
    ) -> Vec<Result<T, GraphError>> {
        if let [request] = requests {
            return vec![self.json_with(request, |body| read(request, body)).await.map(|(answer, _)| answer)];
        }
        let mut all: Vec<_> = requests.iter().map(|request| self.batched(request)).collect();
        loop {
            let waiting = all.iter_mut().filter(|batched| batched.result.is_none());
            let mut batch: Vec<_> = waiting.take(REQUESTS_MAX).collect();
            let Some(first) = batch.first().map(|batched| batched.request) else { break };
            // A batch counts against the limits of one mailbox.
            batch.retain(|batched| batched.request.scope == first.scope);
            match self.send_batch(&batch).await {
                Ok(answered) => {
                    let wait = self.settle(&mut batch, answered, &read).await;
                    let waiting = async {
                        sleep(wait).await;
                        Ok(())
                    };
                    if let Err(error) = self.unless_cancelled(first.label, waiting).await {
                        batch.into_iter().for_each(|batched| batched.give_up(&error));
                    }
                }
                // The batch as a whole was not answered.
                Err(error) => batch.into_iter().for_each(|batched| batched.give_up(&error)),
            }
        }
        all.into_iter().map(|batched| batched.result.expect("the loop ends when all have one")).collect()
    }

    fn batched<'a, T>(&self, request: &'a Request) -> Batched<'a, T> {
        let url = request.resolve(&self.0.endpoints).and_then(|url| {
            let root = format!("{}/v1.0", self.0.endpoints.graph_root());
            let is_read = request.method == Method::GET && matches!(request.payload, Payload::None);
            let url = url.as_str().strip_prefix(&root).filter(|_| is_read).map(str::to_owned);
            url.ok_or_else(|| {
                let error = GraphError::new(ErrorKind::BadRequest, request.label);
                error.explained("only reads of one version of the service go into a batch".into())
            })
        });
        let (url, result) = match url {
            Ok(url) => (url, None),
            Err(error) => (String::new(), Some(Err(error))),
        };
        Batched { request, url, attempts: Attempts::default(), result }
    }

    /// Sends a batch until the answer is one of a batch.
    async fn send_batch<T>(&self, batch: &[&mut Batched<'_, T>]) -> Result<Answered, GraphError> {
        let first = batch[0].request;
        let steps: Vec<_> = batch.iter().enumerate().map(|(number, batched)| batched.step(number)).collect();
        let outer = Request::post(path(&["$batch"]), first.scope.clone(), &json!({ "requests": steps }));
        // All of it only reads.
        let outer = outer.labelled(first.label).replayable(true);
        self.unless_cancelled(first.label, async {
            let mut attempts = RequestAttempts::new(&self.0, &outer)?;
            attempts.batched = batch.len() as u64;
            loop {
                let answered = match attempts.attempt().await {
                    Ok(mut body) => match body.rest(JSON_BYTES_MAX).await {
                        Ok((text, _)) => answers(&text, first.label).map(|answers| (answers, body)),
                        Err(error) => Err(Failure::after_success(error)),
                    },
                    Err(failure) => Err(failure),
                };
                match answered {
                    Ok((answers, body)) => return Ok(Answered { answers, permit: body.permit }),
                    Err(failure) => attempts.recover(failure).await?,
                }
            }
        })
        .await
    }

    /// Gives each request of a batch its answer. Those that are to be sent again stay without a result. Returns how
    /// long to wait before that.
    async fn settle<T>(
        &self,
        batch: &mut [&mut Batched<'_, T>],
        answered: Answered,
        read: impl Fn(&Request, &Bytes) -> Result<T, Failure>,
    ) -> Duration {
        let Answered { mut answers, permit } = answered;
        let mut longest = Duration::ZERO;
        let mut has_failed = false;
        for (number, batched) in batch.iter_mut().enumerate() {
            let failure = match answers.remove(&number) {
                // It was not run, so this is no answer.
                Some(answer) if answer.status == FAILED_DEPENDENCY && has_failed => continue,
                Some(answer) if (200..300).contains(&answer.status) => match read(batched.request, &answer.body) {
                    Ok(read) => {
                        batched.result = Some(Ok(read));
                        continue;
                    }
                    Err(failure) => failure,
                },
                Some(answer) => answer.failure(batched.request),
                None => {
                    let error = GraphError::new(ErrorKind::Unavailable, batched.request.label);
                    let error = error.explained("the answer to a batch lacks one of its requests".into());
                    Failure::new(error, Some(Fault::Broken))
                }
            };
            has_failed = true;
            longest = longest.max(self.again(batched, failure, &permit).await);
        }
        longest
    }

    /// Decides whether a request that failed in a batch is sent again. If so, returns how long to wait before that,
    /// unless the gate makes it wait.
    async fn again<T>(&self, batched: &mut Batched<'_, T>, failure: Failure, permit: &Permit) -> Duration {
        let Failure { error, fault, affected, .. } = failure;
        let Some(fault) = fault else {
            batched.result = Some(Err(error));
            return Duration::ZERO;
        };
        let is_throttled = matches!(fault, Fault::Throttled(_));
        match fault {
            Fault::Throttled(_) => _ = self.0.throttled.fetch_add(1, Ordering::Relaxed),
            Fault::Unauthorized => {
                if let Ok(token) = self.0.auth.token().await {
                    self.0.auth.invalidate(&token);
                }
            }
            Fault::Broken | Fault::Doubtful => {}
        }
        let refusals = if is_throttled { permit.refused(affected) } else { 0 };
        let wait = batched.attempts.next(&self.0.retry, fault, refusals, Instant::now(), random());
        if let Fault::Throttled(hint) = fault {
            permit.hold(affected, wait.or(hint).unwrap_or_default());
            debug!(%error, ?affected, "a request of a batch was throttled");
        } else if wait.is_some() {
            warn!(%error, "a request of a batch failed, trying again");
        }
        if wait.is_none() {
            batched.result = Some(Err(error));
        }
        wait.filter(|_| !is_throttled).unwrap_or_default()
    }
}

impl<T> Batched<'_, T> {
    /// Returns the request as a step of a batch, which waits for the step before it.
    fn step(&self, number: usize) -> Value {
        let mut headers: Map<String, Value> = Map::new();
        for (name, value) in &self.request.headers {
            headers.insert(name.to_string(), value.to_str().unwrap_or_default().into());
        }
        headers.entry("accept").or_insert("application/json".into());
        if !self.request.prefer.is_empty() {
            headers.insert("prefer".to_owned(), self.request.prefer.join(", ").into());
        }
        let mut step = json!({ "id": number.to_string(), "method": "GET", "url": self.url, "headers": headers });
        if let Some(before) = number.checked_sub(1) {
            step["dependsOn"] = json!([before.to_string()]);
        }
        step
    }

    fn give_up(&mut self, error: &GraphError) {
        self.result.get_or_insert_with(|| Err(error.clone()));
    }
}

impl Answer {
    /// Returns what the answer means if it is no success.
    fn failure(&self, request: &Request) -> Failure {
        let Ok(status) = StatusCode::from_u16(self.status) else {
            let error = GraphError::malformed(request.label).explained("a batch has a status that is none".into());
            return Failure::new(error, Some(Fault::Broken));
        };
        if self.status == FAILED_DEPENDENCY {
            let error = GraphError::new(ErrorKind::Unavailable, request.label).answered(self.status, None, None);
            let error = error.explained("a batch was ended although nothing in it failed".into());
            return Failure::new(error, Some(Fault::Broken));
        }
        let Refusal { error, fault, affected, ambiguous } = refusal(request, status, &self.headers, &self.body);
        Failure { error, fault, affected, ambiguous, permit: None }
    }
}

/// Reads the answers to a batch.
fn answers(body: &Bytes, label: &'static str) -> Result<HashMap<usize, Answer>, Failure> {
    let parsed = parse(body).or_else(|error| mend(body).map_or(Err(error), |mended| parse(&Bytes::from(mended))));
    parsed.map_err(|error| Failure::of_json(label, body.len(), &error))
}

fn parse(body: &Bytes) -> Result<HashMap<usize, Answer>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        responses: Texts<'a, REQUESTS_MAX>,
    }
    #[derive(Deserialize)]
    struct Response<'a> {
        id: String,
        status: u16,
        #[serde(default)]
        headers: Option<Map<String, Value>>,
        #[serde(borrow, default)]
        body: Option<&'a RawValue>,
    }
    let Envelope { responses: Texts(texts) } = serde_json::from_slice(body)?;
    let mut answers = HashMap::new();
    let mut twice = HashSet::new();
    for text in texts {
        let Response { id, status, headers, body: inner } = serde_json::from_str(text.get())?;
        // An answer to something else is dropped; the request that lacks one is sent again.
        let Ok(number) = id.parse() else { continue };
        let inner = inner.map_or_else(Bytes::new, |inner| body.slice_ref(inner.get().as_bytes()));
        let answer = Answer { status, headers: headers_of(headers.unwrap_or_default()), body: inner };
        if answers.insert(number, answer).is_some() {
            twice.insert(number);
        }
    }
    // Nobody knows which of two answers is the right one.
    answers.retain(|number, _| !twice.contains(number));
    Ok(answers)
}

fn headers_of(headers: Map<String, Value>) -> HeaderMap {
    let pairs = headers.into_iter().filter_map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    pairs.collect()
}
