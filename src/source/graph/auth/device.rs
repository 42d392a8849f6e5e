//! Signing in on another device: a code is shown here and typed there (RFC 8628; Entra: device authorization grant).

use super::oauth::{self, NoToken, Refused};
use super::{SignedIn, delegated_scope, remember};
use crate::source::graph::connection::Connection;
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::http::Http;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::debug;
use zeroize::Zeroizing;

/// How much longer to wait between two questions when the service asks to slow down (RFC 8628, 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// Maximum lifetime of a code, in seconds, whatever the service says. The interval between two requests has its own
/// maximum.
const EXPIRES_IN_S_MAX: u64 = 60 * 60;
const INTERVAL_S_MAX: u64 = 60;
/// The interval between two requests, in seconds, if the service names none (RFC 8628, 3.2).
const INTERVAL_DEFAULT_S: u64 = 5;

/// What the person who signs in must be shown.
#[derive(Clone)]
pub struct Prompt {
    /// The code to type.
    pub user_code: String,
    /// The page on which to type the code.
    pub verification_uri: String,
    /// A sentence with the page and the code, usually in the service's words.
    pub message: String,
    /// How long the code is valid.
    pub expires_in: Duration,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct DeviceText {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    expires_in: u64,
    #[serde(default = "interval_default")]
    interval: u64,
    #[serde(default)]
    message: String,
}

fn interval_default() -> u64 {
    INTERVAL_DEFAULT_S
}

/// Signs a person in. Calls `show` with what the person must do, waits until it is done, and stores the sign-in in the
/// token cache of `connection`.
///
/// # Errors
/// [`ErrorKind::SignIn`] if the person declined, was refused or took too long. [`GraphError::detail`] has the service's
/// words.
pub async fn sign_in(connection: &Connection, show: impl FnOnce(&Prompt)) -> Result<SignedIn, GraphError> {
    super::cache_of(connection)?;
    let (http, policy) = (Http::new(connection)?, &connection.retry);
    let client_id = connection.credential.client_id();
    let url = |operation| connection.endpoints.oauth(&connection.tenant_id, operation);
    let form = [("client_id", client_id), ("scope", &delegated_scope(connection))];
    let body = oauth::post(&http, policy, &url("devicecode"), &form).await?;
    let text: DeviceText = serde_json::from_slice(&body).map_err(|_| {
        GraphError::new(ErrorKind::Malformed, "sign-in").explained("the answer holds no device code".into())
    })?;
    let device_code = Zeroizing::new(text.device_code);
    let expires_in = Duration::from_secs(text.expires_in.min(EXPIRES_IN_S_MAX));
    let deadline = Instant::now() + expires_in;
    let message = match text.message.is_empty() {
        false => text.message,
        true => format!("To sign in, open {} and enter the code {}", text.verification_uri, text.user_code),
    };
    show(&Prompt { user_code: text.user_code, verification_uri: text.verification_uri, message, expires_in });

    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", client_id),
        ("device_code", &device_code),
    ];
    let mut interval = Duration::from_secs(text.interval.min(INTERVAL_S_MAX)).max(policy.delay_min);
    loop {
        sleep(interval).await;
        if Instant::now() >= deadline {
            return Err(too_late());
        }
        match oauth::token(&http, policy, &url("token"), &form).await {
            Ok(grant) => return remember(connection, grant),
            Err(NoToken::Refused(refused)) => interval = after_refusal(refused, interval)?,
            // The person may be typing the code right now, so go on after a transient failure until the code expires.
            Err(NoToken::Failed(error)) if error.is_transient() => debug!(%error, "the token endpoint did not answer"),
            Err(NoToken::Failed(error)) => return Err(error),
        }
    }
}

/// Returns how long to wait before the next request, if the refusal means "not yet". Otherwise returns the error.
fn after_refusal(refused: Refused, interval: Duration) -> Result<Duration, GraphError> {
    match &*refused.word {
        "authorization_pending" => Ok(interval),
        "slow_down" => Ok(interval + SLOW_DOWN),
        "expired_token" => Err(too_late()),
        "authorization_declined" | "access_denied" => Err(refused.error.explained("the sign-in was declined".into())),
        _ => Err(refused.error),
    }
}

fn too_late() -> GraphError {
    let why = "nobody entered the code in time: start again (a code has been seen to work for only five minutes)";
    GraphError::new(ErrorKind::SignIn, "sign-in").explained(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_refusals_are_for_now() {
        let after = |word: &str| {
            let error = GraphError::new(ErrorKind::SignIn, "sign-in").detailed("AADSTS1: because");
            after_refusal(Refused { word: word.to_owned(), error }, Duration::from_secs(5))
        };
        assert_eq!(after("authorization_pending").unwrap(), Duration::from_secs(5));
        assert_eq!(after("slow_down").unwrap(), Duration::from_secs(10));
        for word in ["expired_token", "authorization_declined", "bad_verification_code", "invalid_grant"] {
            assert_eq!(after(word).unwrap_err().kind(), ErrorKind::SignIn, "{word}");
        }
        assert_eq!(after("authorization_declined").unwrap_err().detail(), Some("AADSTS1: because"));
    }
}
