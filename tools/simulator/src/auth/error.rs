//! The errors of the token endpoint, as the identity platform words them.
//!
//! A client decides by `error` and `error_codes`; the text is for people. The numbers are those of "Microsoft Entra
//! authentication and authorization error codes"; statuses follow RFC 6749, 5.2: 401 where the client itself failed to
//! prove who it is, 400 for the rest.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;

/// A refusal of the token, device code or authorize endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: AADSTS{code}: {text}")]
pub struct OauthError {
    /// The number behind `AADSTS`.
    pub code: u32,
    /// The OAuth error word, such as `invalid_client`.
    pub error: &'static str,
    /// What people read.
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

    /// Returns the status that goes with the error.
    pub fn status(&self) -> StatusCode {
        if self.error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST }
    }

    /// Returns the answer: the body real clients see, dated `now` and marked with `trace_id` and `correlation_id`.
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
