//! `$batch`: several requests in one ("Combine multiple HTTP requests using JSON batching").
//!
//! Each inner request passes the same checks as a request on its own: permission, throttling, faults. Requests without
//! dependencies run at the same time, as in the service. So if a batch has more requests for a mailbox than the mailbox
//! accepts at the same time, the others get 429, inside an answer that is 200. The answers come in no particular order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, join_all};
use http_body_util::BodyExt as _;
use percent_encoding::{AsciiSet, CONTROLS};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strongroom_corpora::rng::Rng;
use tower::{Service, ServiceExt as _};

/// Maximum number of requests in a batch.
const REQUESTS_MAX: usize = 20;

/// Characters that are illegal in URLs but occur in the URLs of batches, because those are JSON strings.
const NOT_IN_URLS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}').add(b'|');

/// Marks a request that is part of a batch.
#[derive(Debug, Clone, Copy)]
pub struct InBatch;

/// Why a whole batch was refused; 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBatch(String);

#[derive(Deserialize)]
struct Batch {
    requests: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    id: String,
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    depends_on: Vec<String>,
}

/// Runs the batch in `body` and returns the body of the answer.
///
/// Inner requests go to `service` under `version` (such as `/v1.0`), with the token of the batch. If `queue` is true,
/// they run one after another. The order of the answers is derived from `seed`.
///
/// # Errors
/// [`BadBatch`] if the batch itself is wrong; then no request was executed.
pub async fn run<S>(
    service: S,
    version: &str,
    outer: &HeaderMap,
    body: &[u8],
    queue: bool,
    seed: u64,
) -> Result<Value, BadBatch>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send,
{
    let steps = parse(body)?;
    let mut done: HashMap<String, u16> = HashMap::new();
    let mut answers = Vec::with_capacity(steps.len());
    let mut waiting = steps;
    while !waiting.is_empty() {
        let is_ready = |step: &Step| step.depends_on.iter().all(|id| done.contains_key(&key(id)));
        let (ready, rest): (Vec<Step>, Vec<Step>) = waiting.into_iter().partition(is_ready);
        waiting = rest;
        let mut run: Vec<BoxFuture<'_, (u16, Value)>> = Vec::with_capacity(ready.len());
        for step in &ready {
            if step.depends_on.iter().any(|id| done[&key(id)] >= 400) {
                run.push(Box::pin(std::future::ready(failed_dependency(step))));
            } else {
                run.push(Box::pin(dispatch(service.clone(), version, outer, step)));
            }
        }
        let mut round = Vec::with_capacity(ready.len());
        if queue {
            for step in run {
                round.push(step.await);
            }
        } else {
            round = join_all(run).await;
        }
        for (step, (status, answer)) in ready.iter().zip(round) {
            done.insert(key(&step.id), status);
            answers.push(answer);
        }
    }
    let mut rng = Rng::for_purpose(seed, "batch");
    for last in (1..answers.len()).rev() {
        answers.swap(last, rng.index(last + 1));
    }
    Ok(json!({"responses": answers}))
}

fn parse(body: &[u8]) -> Result<Vec<Step>, BadBatch> {
    let batch: Batch =
        serde_json::from_slice(body).map_err(|error| BadBatch(format!("Invalid batch payload format: {error}")))?;
    if batch.requests.is_empty() {
        return Err(BadBatch("A batch holds at least one request.".into()));
    }
    if batch.requests.len() > REQUESTS_MAX {
        return Err(BadBatch(format!("Number of batch request steps exceeds the maximum value of {REQUESTS_MAX}.")));
    }
    let mut ids = HashSet::new();
    for step in &batch.requests {
        if !ids.insert(key(&step.id)) {
            return Err(BadBatch(format!("Request id '{}' is used more than once.", step.id)));
        }
        let has_content_type = step.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
        if step.body.is_some() && !has_content_type {
            return Err(BadBatch(format!("Request '{}' has a body, but no Content-Type in its headers.", step.id)));
        }
    }
    for step in &batch.requests {
        if let Some(unknown) = step.depends_on.iter().find(|id| !ids.contains(&key(id))) {
            return Err(BadBatch(format!("Request '{}' depends on '{unknown}', which is not in the batch.", step.id)));
        }
    }
    if has_cycle(&batch.requests) {
        return Err(BadBatch("The dependsOn of a request leads back to itself.".into()));
    }
    Ok(batch.requests)
}

fn has_cycle(steps: &[Step]) -> bool {
    let mut waiting: Vec<&Step> = steps.iter().collect();
    loop {
        let ids: HashSet<String> = waiting.iter().map(|step| key(&step.id)).collect();
        let count = waiting.len();
        waiting.retain(|step| step.depends_on.iter().any(|id| ids.contains(&key(id))));
        if waiting.len() == count {
            return count > 0;
        }
    }
}

/// Returns the id in lower case, because ids are compared without regard to case.
fn key(id: &str) -> String {
    id.to_lowercase()
}

async fn dispatch<S>(service: S, version: &str, outer: &HeaderMap, step: &Step) -> (u16, Value)
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send,
{
    let request = match request(version, outer, step) {
        Ok(request) => request,
        Err(BadBatch(reason)) => return failure(step, 400, "BadRequest", &reason),
    };
    let Ok(response) = service.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return failure(step, 502, "BadGateway", "The answer broke off."),
    };
    let mut headers = Map::new();
    for (name, value) in &parts.headers {
        if let (false, Ok(value)) = (name == header::CONTENT_LENGTH, value.to_str()) {
            headers.insert(canonical(name), value.into());
        }
    }
    let mut answer = json!({"id": step.id, "status": status, "headers": headers});
    if !body.is_empty() {
        let is_json = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let json = is_json.then(|| serde_json::from_slice(&body).ok()).flatten();
        answer["body"] = json.unwrap_or_else(|| STANDARD.encode(&body).into());
    }
    (status, answer)
}

fn request(version: &str, outer: &HeaderMap, step: &Step) -> Result<Request, BadBatch> {
    if step.url.contains("://") {
        // The service reads an absolute URL as a path whose first segment is the scheme.
        let scheme = step.url.split('/').next().unwrap_or_default();
        return Err(BadBatch(format!("Resource not found for the segment '{scheme}'.")));
    }
    let url = format!("{version}/{}", step.url.trim_start_matches('/'));
    let url = percent_encoding::utf8_percent_encode(&url, NOT_IN_URLS).to_string();
    let method = Method::from_bytes(step.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| BadBatch(format!("The method '{}' is unknown.", step.method)))?;
    let mut headers = HeaderMap::new();
    for name in [header::AUTHORIZATION, header::HOST] {
        if let Some(value) = outer.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    for (name, value) in &step.headers {
        let pair = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, value) = pair.ok_or_else(|| BadBatch(format!("The header '{name}' is invalid.")))?;
        headers.append(name, value);
    }
    let body = body(step, &headers)?;
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .body(Body::from(body))
        .map_err(|_| BadBatch(format!("The URL '{}' is invalid.", step.url)))?;
    *request.headers_mut() = headers;
    request.extensions_mut().insert(InBatch);
    Ok(request)
}

/// Returns the bytes of a body: JSON as it is, anything else decoded from base64.
fn body(step: &Step, headers: &HeaderMap) -> Result<Bytes, BadBatch> {
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    match &step.body {
        None => Ok(Bytes::new()),
        Some(Value::String(text)) if !is_json => match STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(BadBatch(format!("The body of request '{}' is neither JSON nor base64.", step.id))),
        },
        Some(json) => Ok(json.to_string().into()),
    }
}

fn failed_dependency(step: &Step) -> (u16, Value) {
    failure(step, 424, "FailedDependency", "A request this one depends on has failed.")
}

fn failure(step: &Step, status: u16, code: &str, message: &str) -> (u16, Value) {
    let body = json!({"error": {"code": code, "message": message}});
    let headers = json!({"Content-Type": "application/json"});
    (status, json!({"id": step.id, "status": status, "headers": headers, "body": body}))
}

/// Returns the header name in title case, as in the service's answers. Here it is in lower case.
fn canonical(name: &HeaderName) -> String {
    let title = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.as_str().split('-').map(title).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use parking_lot::Mutex;

    use super::*;

    /// A service that answers with the request itself, and fails if the path says so.
    fn echo() -> (Router, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let handler = move |request: Request| async move {
            let (parts, body) = request.into_parts();
            log.lock().push(parts.uri.to_string());
            let body = body.collect().await.unwrap().to_bytes();
            match parts.uri.path() {
                "/v1.0/fail" => (StatusCode::NOT_FOUND, axum::Json(json!({"error": {}}))).into_response(),
                "/v1.0/none" => StatusCode::NO_CONTENT.into_response(),
                "/v1.0/value" => ([("content-type", "text/plain")], "MIME").into_response(),
                _ => axum::Json(json!({
                    "method": parts.method.as_str(),
                    "authorization": parts.headers["authorization"].to_str().unwrap(),
                    "prefer": parts.headers.get("prefer").map(|value| value.to_str().unwrap()),
                    "body": String::from_utf8_lossy(&body),
                }))
                .into_response(),
            }
        };
        (Router::new().fallback(handler), seen)
    }

    async fn send(requests: Value) -> Result<BTreeMap<String, Value>, BadBatch> {
        let mut outer = HeaderMap::new();
        outer.insert("authorization", HeaderValue::from_static("Bearer t"));
        let body = json!({"requests": requests}).to_string();
        let reply = run(echo().0, "/v1.0", &outer, body.as_bytes(), false, 1).await?;
        let answers = reply["responses"].as_array().unwrap().clone();
        Ok(answers.into_iter().map(|answer| (answer["id"].as_str().unwrap().to_owned(), answer)).collect())
    }

    #[tokio::test]
    async fn inner_requests_are_whole_requests() {
        let answers = send(json!([
            {"id": "1", "method": "get", "url": "/users?$filter=displayName eq 'x'", "headers": {"Prefer": "p"}},
            {"id": "2", "method": "POST", "url": "users", "headers": {"Content-Type": "application/json"}, "body": {"a": 1}},
            {"id": "3", "method": "POST", "url": "/users", "headers": {"content-type": "text/plain"}, "body": "TUlNRQ=="},
            {"id": "4", "method": "GET", "url": "/value"},
            {"id": "5", "method": "DELETE", "url": "/none"},
            {"id": "6", "method": "GET", "url": "https://elsewhere/users"},
        ]))
        .await
        .unwrap();
        let body = |id: &str| answers[id]["body"].clone();
        assert_eq!(body("1"), json!({"method": "GET", "authorization": "Bearer t", "prefer": "p", "body": ""}));
        assert_eq!(body("2")["body"], r#"{"a":1}"#);
        assert_eq!(body("3")["body"], "MIME");
        assert_eq!((body("4"), &answers["4"]["headers"]["Content-Type"]), ("TUlNRQ==".into(), &"text/plain".into()));
        assert_eq!((&answers["5"]["status"], answers["5"].get("body")), (&204.into(), None));
        assert_eq!(answers["6"]["status"], 400);
    }

    #[tokio::test]
    async fn what_depends_on_a_failure_fails_and_is_not_tried() {
        let (service, seen) = echo();
        let body = json!({"requests": [
            {"id": "c", "method": "GET", "url": "/c", "dependsOn": ["B"]},
            {"id": "b", "method": "GET", "url": "/fail", "dependsOn": ["a"]},
            {"id": "a", "method": "GET", "url": "/a"},
            {"id": "d", "method": "GET", "url": "/d", "dependsOn": ["a"]},
        ]});
        let outer = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"))]);
        let reply = run(service, "/v1.0", &outer, body.to_string().as_bytes(), false, 1).await.unwrap();
        let mut statuses: Vec<_> = reply["responses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|answer| (answer["id"].as_str().unwrap(), answer["status"].as_u64().unwrap()))
            .collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [("a", 200), ("b", 404), ("c", 424), ("d", 200)]);
        assert_eq!(seen.lock()[0], "/v1.0/a");
        assert!(!seen.lock().contains(&"/v1.0/c".to_owned()));
    }

    #[tokio::test]
    async fn a_wrong_batch_is_refused_as_a_whole() {
        let get = |id: &str| json!({"id": id, "method": "GET", "url": "/x"});
        let numbers = |count: usize| Value::Array((0..count).map(|id| get(&id.to_string())).collect());
        assert!(send(numbers(20)).await.is_ok());
        assert!(send(numbers(21)).await.is_err());
        assert!(send(json!([])).await.is_err());
        assert!(send(json!([get("a"), get("A")])).await.is_err(), "ids are compared without regard to case");
        assert!(send(json!([{"id": "a", "method": "GET", "url": "/x", "dependsOn": ["b"]}])).await.is_err());
        assert!(send(json!([{"id": "a", "method": "GET", "url": "/x", "dependsOn": ["a"]}])).await.is_err());
        let ring = json!([get("x"), {"id": "a", "method": "GET", "url": "/x", "dependsOn": ["b"]},
                          {"id": "b", "method": "GET", "url": "/x", "dependsOn": ["a"]}]);
        assert!(send(ring).await.is_err());
        assert!(send(json!([{"id": "a", "method": "POST", "url": "/x", "body": {}}])).await.is_err());
        assert!(send(json!([{"method": "GET", "url": "/x"}])).await.is_err());
    }

    #[tokio::test]
    async fn answers_come_in_no_particular_order() {
        let requests: Vec<Value> =
            (0..20).map(|id| json!({"id": id.to_string(), "method": "GET", "url": "/x"})).collect();
        let body = json!({"requests": requests}).to_string();
        let outer = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"))]);
        let reply = run(echo().0, "/v1.0", &outer, body.as_bytes(), true, 5).await.unwrap();
        let ids: Vec<String> = reply["responses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|answer| answer["id"].as_str().unwrap().to_owned())
            .collect();
        assert_ne!(ids, (0..20).map(|id| id.to_string()).collect::<Vec<_>>());
    }
}
