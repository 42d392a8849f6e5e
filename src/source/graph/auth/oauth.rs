//! Requests to the token endpoint, and their repetition (Entra: OAuth 2.0 on the identity platform).

use super::aadsts;
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::http::{Http, NoAnswer};
use crate::source::graph::retry::{Attempts, Fault, RetryPolicy, random, retry_after};
use reqwest::header::{DATE, RETRY_AFTER};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use zeroize::Zeroizing;

/// Maximum size of an answer, in bytes. Answers have a few kilobytes; tokens of users with many groups are larger.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Maximum lifetime that is assumed for a token, in seconds, whatever the service says. The service's longest-lived
/// tokens last 28 hours, and it refuses a token that has expired.
const LIFETIME_S_MAX: u64 = 24 * 60 * 60;

/// What the token endpoint granted.
pub(super) struct Grant {
    pub(super) access_token: Zeroizing<String>,
    pub(super) lifetime: Duration,
    pub(super) refresh_token: Option<Zeroizing<String>>,
    /// The permissions that a person's sign-in has, separated by blanks.
    pub(super) scope: String,
}

/// A refusal by the token endpoint (RFC 6749, 5.2).
pub(super) struct Refused {
    /// The error code, such as `invalid_grant`.
    pub(super) word: String,
    pub(super) error: GraphError,
}

/// Why there is no token.
pub(super) enum NoToken {
    /// The service refused.
    Refused(Refused),
    /// The service did not answer, or its answer could not be read.
    Failed(GraphError),
}

impl From<NoToken> for GraphError {
    fn from(reason: NoToken) -> Self {
        match reason {
            NoToken::Refused(refused) => refused.error,
            NoToken::Failed(error) => error,
        }
    }
}

#[derive(Deserialize)]
struct GrantText {
    access_token: String,
    expires_in: u64,
    refresh_token: Option<String>,
    #[serde(default)]
    scope: String,
}

#[derive(Deserialize)]
struct RefusedText {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u64>,
}

/// Requests a token at `url`. Repeats the request if that may help.
pub(super) async fn token(
    http: &Http,
    policy: &RetryPolicy,
    url: &str,
    form: &[(&str, &str)],
) -> Result<Grant, NoToken> {
    let body = post(http, policy, url, form).await?;
    let text: GrantText = serde_json::from_slice(&body).map_err(|_| NoToken::Failed(malformed()))?;
    Ok(Grant {
        access_token: Zeroizing::new(text.access_token),
        lifetime: Duration::from_secs(text.expires_in.min(LIFETIME_S_MAX)),
        refresh_token: text.refresh_token.map(Zeroizing::new),
        scope: text.scope,
    })
}

fn malformed() -> GraphError {
    GraphError::new(ErrorKind::Malformed, "sign-in").explained("the answer holds no token".into())
}

/// Posts `form` to `url`, and returns the body of a successful answer. Repeats the request if that may help.
pub(super) async fn post(
    http: &Http,
    policy: &RetryPolicy,
    url: &str,
    form: &[(&str, &str)],
) -> Result<Zeroizing<Vec<u8>>, NoToken> {
    let mut attempts = Attempts::default();
    let mut sent = 0;
    loop {
        sent += 1;
        let (fault, error) = match attempt(http, url, form).await? {
            Ok(body) => return Ok(body),
            Err(passing) => passing,
        };
        match attempts.next(policy, fault, sent, Instant::now(), random()) {
            Some(wait) => {
                warn!(%error, wait_ms = wait.as_millis() as u64, "sign-in failed, trying again");
                sleep(wait).await;
            }
            None => return Err(NoToken::Failed(error)),
        }
    }
}

type Passing = (Fault, GraphError);

/// Posts once. The inner error is a transient one.
async fn attempt(
    http: &Http,
    url: &str,
    form: &[(&str, &str)],
) -> Result<Result<Zeroizing<Vec<u8>>, Passing>, NoToken> {
    let broken = |reason: NoAnswer| {
        let error = GraphError::new(ErrorKind::Unavailable, "sign-in");
        let error = match reason {
            NoAnswer::Late => error.explained("no answer in time".into()),
            NoAnswer::Broken(reason) => error.with(reason.without_url()),
        };
        (Fault::Broken, error)
    };
    let response = match http.send(http.client.post(url).form(form), 0).await {
        Ok(response) => response,
        Err(reason) => return Ok(Err(broken(reason))),
    };
    let status = response.status();
    let text = |name| response.headers().get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    let wait = text(RETRY_AFTER).and_then(|value| retry_after(value, text(DATE)));
    let body = match http.read_all(response, ANSWER_BYTES_MAX, "sign-in").await {
        Ok(body) => Zeroizing::new(body.to_vec()),
        Err(error) if error.is_transient() => return Ok(Err((Fault::Broken, error))),
        Err(error) => return Err(NoToken::Failed(error)),
    };
    debug!(status = status.as_u16(), "token endpoint answered");
    if status.is_success() {
        // The body was cut off without any sign of it.
        return match serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
            Ok(_) => Ok(Ok(body)),
            Err(_) => Ok(Err((Fault::Broken, malformed()))),
        };
    }
    let error = |kind| GraphError::new(kind, "sign-in").answered(status.as_u16(), None, None);
    if status == 429 || (status == 503 && wait.is_some()) {
        return Ok(Err((Fault::Throttled(wait), error(ErrorKind::Throttled))));
    }
    match serde_json::from_slice::<RefusedText>(&body) {
        // RFC 6749 defines this code for a service that is busy.
        Ok(refused) if !status.is_server_error() && refused.error != "temporarily_unavailable" => {
            Err(NoToken::Refused(refusal(status.as_u16(), refused)))
        }
        _ if status.is_server_error() || status == 408 || status.is_client_error() => {
            // A gateway on the way answers in its own form. Most of these failures pass within a moment.
            Ok(Err((Fault::Broken, error(ErrorKind::Unavailable))))
        }
        _ => Err(NoToken::Failed(error(ErrorKind::Malformed))),
    }
}

fn refusal(status: u16, refused: RefusedText) -> Refused {
    let number = refused.error_codes.first();
    let code = match number {
        Some(number) => format!("AADSTS{number}"),
        None => {
            refused.error.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(64).collect()
        }
    };
    let mut error = GraphError::new(ErrorKind::SignIn, "sign-in")
        .answered(status, Some(&code), None)
        .detailed(&refused.error_description);
    if let Some(advice) = number.and_then(|&number| aadsts::advice(number)) {
        error = error.explained(advice.into());
    }
    Refused { word: refused.error, error }
}
