//! The errors of the token endpoint, in the words of the identity platform.
//!
//! A client decides by `error` and `error_codes`; the text is for people. The numbers are those of "Microsoft Entra
//! authentication and authorization error codes". The status follows RFC 6749, 5.2: 401 if the client failed to
//! authenticate itself, 400 otherwise.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;

/// A refusal of the token, device code or authorize endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: AADSTS{code}: {text}")]
pub struct OauthError {
    /// The number after `AADSTS`.
    pub code: u32,
    /// The OAuth error code, such as `invalid_client`.
    pub error: &'static str,
    /// The text for people.
    pub text: String,
}

impl OauthError {
    pub(super) fn new(error: &'static str, code: u32, text: impl Into<String>) -> Self {
        Self { code, error, text: text.into() }
    }

    pub(super) fn missing(parameter: &str) -> Self {
        Self::new(
            "invalid_request",
            900_144,
            format!("The request body must contain the following parameter: '{parameter}'."),
        )
    }

    pub(super) fn invalid_grant(code: u32, text: impl Into<String>) -> Self {
        Self::new("invalid_grant", code, text)
    }

    pub(super) fn invalid_client(code: u32, text: impl Into<String>) -> Self {
        Self::new("invalid_client", code, text)
    }

    /// Returns the HTTP status of the error.
    pub fn status(&self) -> StatusCode {
        if self.error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST }
    }

    /// Returns the response with the body that real clients see. It contains the time `now`, `trace_id` and
    /// `correlation_id`.
    pub fn response(&self, now: Timestamp, trace_id: &str, correlation_id: &str) -> Response {
        let timestamp = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let body = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{}: {}\r\nTrace ID: {trace_id}\r\nCorrelation ID: {correlation_id}\r\nTimestamp: {timestamp}",
                self.code, self.text
            ),
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
        });
        (self.status(), [("cache-control", "no-store"), ("pragma", "no-cache")], Json(body)).into_response()
    }
}
