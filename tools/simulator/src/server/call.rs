//! A request to Graph as those who answer it see it, and the forms of their answers.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ApiError;
use super::route::Route;
use super::state::State;
use crate::odata::{Preferences, Query};
use crate::tenant::id::IdFormat;
use crate::tenant::{Kind, Mailbox, User};

/// Maximum length of the body of a request to Graph: 4 MB, Exchange's limit for JSON and MIME.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of rows in a page of Outlook's collections, if the client asks for no other number.
pub const PAGE_ROWS: usize = 10;
/// Maximum number of rows in a page of Outlook's collections.
pub const PAGE_ROWS_MAX: usize = 1000;

/// A request to Graph.
#[derive(Clone, Debug)]
pub struct Call {
    /// The state that all requests share.
    pub state: Arc<State>,
    /// HTTP method.
    pub method: Method,
    /// The operation, and what it applies to.
    pub route: Route,
    /// Query options.
    pub query: Query,
    /// Preferences.
    pub preferences: Preferences,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Answer to a call.
pub type Answer = Result<Response, ApiError>;

impl Call {
    /// Returns the user in the path.
    ///
    /// # Errors
    /// 404 if no user has this id or name.
    pub fn user(&self) -> Result<Arc<User>, ApiError> {
        let name = self.route.user.as_deref().unwrap_or_default();
        self.state.tenant.user(name).ok_or_else(|| ApiError::resource_not_found(name))
    }

    /// Calls `f` with the locked mailbox of the user in the path.
    ///
    /// # Errors
    /// Exchange's error for users without a mailbox, or the error of `f`.
    pub fn with_mailbox<T>(&self, f: impl FnOnce(&mut Mailbox) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let name = self.route.user.as_deref().unwrap_or_default();
        let user = self.user().map_err(|_| {
            ApiError::new(StatusCode::NOT_FOUND, "ErrorInvalidUser", format!("The requested user '{name}' is invalid."))
        })?;
        match (user.kind, user.mailbox()) {
            (Kind::OutsidePolicy, _) => {
                Err(ApiError::new(StatusCode::FORBIDDEN, "ErrorAccessDenied", "Access to OData is disabled."))
            }
            (_, Some(mailbox)) => f(&mut mailbox.lock()),
            // The same user can get either answer, depending on which server answers.
            (Kind::OnPremises, None) => Err(no_mailbox(0)),
            (_, None) => Err(no_mailbox(user.next_probe())),
        }
    }

    /// Returns the requested format of ids.
    pub fn id_format(&self) -> IdFormat {
        if self.preferences.immutable_ids { IdFormat::Immutable } else { IdFormat::Default }
    }

    /// Returns the number of rows in a page: the requested number, at most `max`.
    ///
    /// # Errors
    /// 400 if `$top` is not a number, or not an allowed one.
    pub fn page_size(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        let top = self.query.number("$top")?;
        if let Some(top) = top.filter(|top| *top == 0 || *top > max) {
            return Err(ApiError::bad_request(
                "ErrorInvalidRequest",
                format!(
                    "The limit of '{max}' for Top query has been exceeded. The value from the incoming request is '{top}'."
                ),
            ));
        }
        Ok(top.or(self.preferences.page_size_max).unwrap_or(default).min(max))
    }

    /// Checks that the item still has the change key of `If-Match`, if the client sent one.
    ///
    /// # Errors
    /// 412 if the item has changed since.
    pub fn check_etag(&self, change_key: &str) -> Result<(), ApiError> {
        let wanted = self.headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        if wanted.is_none_or(|wanted| wanted == "*" || wanted.contains(change_key)) {
            return Ok(());
        }
        let text = "The send or update operation could not be performed because the change key passed in the request does \
                    not match the current change key for the item.";
        Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "ErrorIrresolvableConflict", text))
    }

    /// Returns the body, parsed from JSON.
    ///
    /// # Errors
    /// 400 if the body does not have this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::bad_request("UnableToDeserializePostBody", format!("were unable to deserialize: {error}"))
        })
    }

    /// Returns `http://host/v1.0/$metadata#what`, the context URL of an answer.
    pub fn context(&self, what: &str) -> String {
        format!("{}/{}/$metadata#{what}", self.state.url, self.route.version.name())
    }

    /// Returns an absolute link to `path` in the same version of the API, with `query`.
    pub fn link(&self, path: &str, query: &Query) -> String {
        format!("{}/{}/{path}?{}", self.state.url, self.route.version.name(), query.encode())
    }
}

fn no_mailbox(probe: u64) -> ApiError {
    if probe.is_multiple_of(2) {
        let text = "The mailbox is either inactive, soft-deleted, or is hosted on-premise.";
        ApiError::new(StatusCode::NOT_FOUND, "MailboxNotEnabledForRESTAPI", text)
    } else {
        ApiError::new(StatusCode::NOT_FOUND, "ResourceNotFound", "Resource could not be discovered.")
    }
}

/// Returns a JSON answer.
pub fn json_answer(status: StatusCode, body: &Value) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static(
        "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8",
    );
    (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// Returns the page that a call asks for of the rows that match its filter. The rows still have all that the filter
/// needs. `path` is the path of the collection.
///
/// # Errors
/// 400 if the query is invalid.
pub fn page(call: &Call, mut rows: Vec<Value>, path: &str) -> Answer {
    if let Some(filter) = call.query.filter()? {
        rows.retain(|row| filter.holds(row));
    }
    page_of_matches(call, rows, path)
}

/// Returns the page that a call asks for of rows that all match its filter.
///
/// # Errors
/// 400 if the query is invalid.
pub fn page_of_matches(call: &Call, rows: Vec<Value>, path: &str) -> Answer {
    let size = call.page_size(PAGE_ROWS, PAGE_ROWS_MAX)?;
    let skip = call.query.number("$skip")?.unwrap_or(0);
    let total = rows.len();
    let select = call.query.select();
    let mut rows: Vec<Value> = rows.into_iter().skip(skip).take(size).collect();
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        select.retain(row);
    }
    let mut annotations = Vec::new();
    if call.query.is_true("$count") {
        annotations.push(("@odata.count", json!(total)));
    }
    if skip + size < total {
        let mut query = call.query.clone();
        query.set("$skip", Some((skip + size).to_string()));
        annotations.push(("@odata.nextLink", json!(call.link(path, &query))));
    }
    Ok(collection(call.context(path), rows, annotations))
}

/// Returns a page of a collection.
pub fn collection(context: String, rows: Vec<Value>, annotations: Vec<(&str, Value)>) -> Response {
    let mut body = json!({"@odata.context": context, "value": rows});
    let object = body.as_object_mut().expect("an object was just made");
    object.extend(annotations.into_iter().map(|(name, value)| (name.to_owned(), value)));
    json_answer(StatusCode::OK, &body)
}
