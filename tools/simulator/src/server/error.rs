//! Errors in the form that Graph uses.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::tenant::{MailboxError, TenantError};

/// An error of the service: a status, a code by which clients decide, and a text for people.
///
/// As a response it has no body yet. The outermost layer of the server adds the body, because it contains the request's
/// ids.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// Status of the answer.
    pub status: StatusCode,
    /// `error.code`.
    pub code: Cow<'static, str>,
    /// `error.message`.
    pub message: String,
    /// Additional headers, such as `Retry-After`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// Returns an error with this status, code and text.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), headers: Vec::new() }
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns 400 with this code.
    pub fn bad_request(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Returns Exchange's error for an item that does not exist.
    pub fn item_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ErrorItemNotFound",
            "The specified object was not found in the store., The process failed to get the correct properties.",
        )
    }

    /// Returns Exchange's error for an invalid id.
    pub fn invalid_id() -> Self {
        Self::bad_request("ErrorInvalidIdMalformed", "Id is malformed.")
    }

    /// Returns the directory's error for an object that does not exist.
    pub fn resource_not_found(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "Request_ResourceNotFound",
            format!(
                "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
            ),
        )
    }

    /// Returns Graph's error for an unknown path.
    pub fn unknown_segment(segment: &str) -> Self {
        Self::bad_request("BadRequest", format!("Resource not found for the segment '{segment}'."))
    }

    /// Returns the error's JSON.
    pub fn body(&self, request_id: &str, client_request_id: &str) -> Value {
        let date = crate::clock::iso(crate::clock::now());
        json!({"error": {"code": self.code, "message": self.message, "innerError": {
            "date": date.trim_end_matches('Z'), "request-id": request_id, "client-request-id": client_request_id,
        }}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.headers_mut().extend(self.headers.iter().cloned());
        response.extensions_mut().insert(self);
        response
    }
}

impl From<MailboxError> for ApiError {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::NotFound => Self::item_not_found(),
            MailboxError::FolderExists => {
                Self::new(StatusCode::CONFLICT, "ErrorFolderExists", "A folder with the specified name already exists.")
            }
            MailboxError::NotDeletable => Self::new(
                StatusCode::FORBIDDEN,
                "ErrorAccessDenied",
                "Access is denied. Check credentials and try again.",
            ),
            MailboxError::Refused => Self::bad_request(
                "ErrorDeleteDistinguishedFolder",
                "Distinguished folders cannot be renamed, moved or deleted.",
            ),
        }
    }
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Mailbox(error) => error.into(),
            TenantError::NoUser(user) => Self::resource_not_found(&user),
            _ => Self::new(StatusCode::NOT_FOUND, "ErrorItemNotFound", error.to_string()),
        }
    }
}
