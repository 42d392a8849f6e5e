//! The gate: decides whether a request is allowed, and whether it must wait.
//!
//! It checks in the order of the service: first the token, then the permission, then the budgets. An admitted request
//! counts as concurrent until the last byte of its answer is handed over. So four concurrent requests mean four answers
//! under way.

use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};

use super::{ApiError, Operation, Route, State};
use crate::auth::Caller;
use crate::counters::Running;
use crate::odata::Query;
use crate::permissions::{self, Family};
use crate::throttle::{Cost, Permit, Refusal, RetryAfter};

/// An admitted request. Drop it when its answer is complete.
#[derive(Debug)]
pub struct Entry {
    permit: Permit,
    _running: Running,
}

impl State {
    /// Admits a request to Graph. Replaces `me` in `route` by the signed-in user.
    ///
    /// # Errors
    /// 401 without a valid token, 403 without permission, 429 if a budget is used up.
    pub fn enter(
        &self,
        route: &mut Route,
        method: &Method,
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Entry, ApiError> {
        let caller = self.caller(headers)?;
        if route.user.as_deref() == Some("me") {
            route.user = Some(match &caller {
                Caller::User { id, .. } => id.clone(),
                Caller::Application { .. } => {
                    let text = "/me request is only valid with delegated authentication flow.";
                    return Err(ApiError::bad_request("BadRequest", text));
                }
            });
        }
        let mailbox = self.mailbox_of(route);
        let running = self.counters.begin(route.operation.name(), mailbox.clone());
        let Some(mut requirement) = permissions::requirement(route, method) else {
            return self.admit(Cost::Free, running);
        };
        if route.operation == Operation::TasksDelta && self.tenant.switches().task_delta_needs_write {
            requirement.application = permissions::TASKS_WRITE;
        }
        self.authority
            .with_rules(|rules| permissions::check(rules, &caller, &requirement, mailbox.as_deref()))
            .map_err(|forbidden| ApiError::new(StatusCode::FORBIDDEN, forbidden.code, forbidden.message))?;
        let is_read = method == Method::GET || method == Method::HEAD;
        let cost = match (requirement.family, &mailbox) {
            (Family::Directory, _) => Cost::Identity { units: units(route.operation, query)?, write: !is_read },
            (_, Some(id)) => Cost::Mailbox { id, upload_bytes: if is_read { 0 } else { content_length(headers) } },
            (_, None) => Cost::Free,
        };
        self.admit(cost, running)
    }

    /// Admits a request that has its permission in its URL. Only the budgets are checked.
    ///
    /// # Errors
    /// 429 if a budget is used up.
    pub fn enter_by_url(&self, kind: &'static str, mailbox: &str, upload_bytes: u64) -> Result<Entry, ApiError> {
        let running = self.counters.begin(kind, Some(mailbox.to_owned()));
        self.admit(Cost::Mailbox { id: mailbox, upload_bytes }, running)
    }

    fn admit(&self, cost: Cost<'_>, running: Running) -> Result<Entry, ApiError> {
        let permit = self.throttle.admit(cost, Instant::now()).map_err(|refusal| self.throttled(refusal))?;
        Ok(Entry { permit, _running: running })
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.authority.verify(authorization, Timestamp::now()).map_err(|unauthorized| {
            let challenge = HeaderValue::from_static(
                "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", \
                 client_id=\"00000003-0000-0000-c000-000000000000\"",
            );
            ApiError::new(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", unauthorized.to_string())
                .with_header(header::WWW_AUTHENTICATE, challenge)
        })
    }

    fn throttled(&self, refusal: Refusal) -> ApiError {
        let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, refusal.code(), refusal.message());
        let seconds = refusal.retry_after_s();
        match self.throttle.limits().retry_after {
            RetryAfter::Seconds => error.headers.push((header::RETRY_AFTER, seconds.into())),
            RetryAfter::Date => {
                // A date has no fractions, so add one second, or the client might come too early.
                let seconds = i64::try_from(seconds + 1).unwrap_or(i64::MAX);
                let date = Timestamp::now() + SignedDuration::from_secs(seconds);
                let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                error.headers.push((header::RETRY_AFTER, HeaderValue::try_from(date).expect("a date is ASCII")));
            }
            RetryAfter::Absent => {}
        }
        if let Some(information) = refusal.information() {
            let registration = self.authority.registration();
            let scope = format!("Tenant_Application/ReadWrite/{}/{}", registration.client_id, registration.tenant_id);
            let scope = HeaderValue::try_from(scope).expect("ids are ASCII");
            error.headers.push((HeaderName::from_static("x-ms-throttle-scope"), scope));
            let information = HeaderValue::from_static(information);
            error.headers.push((HeaderName::from_static("x-ms-throttle-information"), information));
        }
        error
    }

    /// Returns how long every request occupies its mailbox.
    pub fn service_time(&self) -> Duration {
        Duration::from_millis(self.throttle.limits().service_time_ms)
    }
}

impl Entry {
    /// Adds the headers of the pool to an answer, and keeps the request counted as concurrent until the answer is
    /// handed over.
    pub fn hold(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(units) = self.permit.units {
            headers.insert("x-ms-resource-unit", units.into());
            if self.permit.used > 0.8 {
                let used = format!("{:.2}", self.permit.used);
                let used = HeaderValue::try_from(used).expect("a number is ASCII");
                headers.insert("x-ms-throttle-limit-percentage", used);
            }
        }
        let (mut parts, body) = response.into_parts();
        let exact = body.size_hint().exact();
        if exact == Some(0) {
            return Response::from_parts(parts, body);
        }
        if let Some(len) = exact {
            parts.headers.insert(header::CONTENT_LENGTH, len.into());
        }
        Response::from_parts(parts, self.follow(body, exact))
    }

    /// Returns the same body; when it ends, the request ends.
    ///
    /// The request ends just before the last bytes are sent, so that a client that has read them may send the next
    /// request at once.
    fn follow(self, body: Body, len: Option<u64>) -> Body {
        let begin = (Some(self), body.into_data_stream(), len);
        Body::from_stream(futures_util::stream::unfold(begin, |(mut entry, mut data, mut left)| async move {
            let chunk = data.next().await;
            if let (Some(left), Some(Ok(chunk))) = (&mut left, &chunk) {
                *left -= chunk.len() as u64;
            }
            if left == Some(0) || !matches!(chunk, Some(Ok(_))) {
                entry = None;
            }
            Some((chunk?, (entry, data, left)))
        }))
    }
}

fn content_length(headers: &HeaderMap) -> u64 {
    headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Returns the resource units of a request to the directory ("Identity and access service limits").
fn units(operation: Operation, query: &Query) -> Result<u64, ApiError> {
    let base = match operation {
        Operation::ListUsers | Operation::UsersDelta | Operation::ListDeletedUsers => 2,
        Operation::ListSkus => 3,
        _ => 1,
    };
    let less = u64::from(query.get("$select").is_some()) + u64::from(query.number("$top")?.is_some_and(|top| top < 20));
    let more = u64::from(query.get("$expand").is_some());
    Ok((base + more).saturating_sub(less).max(1))
}
