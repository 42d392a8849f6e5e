//! Errors of Graph, in kinds that a caller treats differently.
//!
//! The text of an error says what was asked for and what the service answered: a status, a code, and the request id
//! that the service's support needs. It never holds content: no addresses, no subjects, no URLs. The service's own
//! words may hold content, so only [`GraphError::detail`] returns them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What a caller needs to know about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object does not exist, or no longer exists.
    NotFound,
    /// The user has no mailbox that Graph can reach: unlicensed, on premises, inactive.
    NoMailbox,
    /// The delta token is too old or was lost. List the collection again from the start; that listing does not name
    /// deleted items.
    Resync,
    /// The collection cannot report changes. List it in full each time.
    DeltaUnsupported,
    /// Access is refused, because of a policy for this mailbox or because a permission is missing.
    Denied,
    /// A permission for the directory is missing.
    MissingPermission,
    /// The mailbox is full. The service does not even list its changes.
    QuotaExceeded,
    /// The service cannot read this item, and never will.
    ItemCorrupt,
    /// The request was not valid.
    BadRequest,
    /// The object already exists, or was changed in the meantime.
    Conflict,
    /// The object is locked.
    Locked,
    /// There are more bytes than the caller or the service allows.
    TooLarge,
    /// The service kept refusing the request for lack of capacity.
    Throttled,
    /// The service or the network failed, and still failed after several attempts.
    Unavailable,
    /// Signing in failed.
    SignIn,
    /// The request was given up because the program ends.
    Cancelled,
    /// The answer cannot be what was asked for, or it contains a link that must not be followed.
    Malformed,
    /// This program failed while it read the answer.
    Fault,
}

impl ErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "was not found",
            Self::NoMailbox => "met a user without a mailbox",
            Self::Resync => "needs a new listing",
            Self::DeltaUnsupported => "cannot report changes",
            Self::Denied => "was denied",
            Self::MissingPermission => "lacks a permission",
            Self::QuotaExceeded => "met a mailbox over its quota",
            Self::ItemCorrupt => "met an item that the service cannot read",
            Self::BadRequest => "was refused as not valid",
            Self::Conflict => "met an object that already exists or was changed",
            Self::Locked => "met a locked object",
            Self::TooLarge => "is too large",
            Self::Throttled => "was throttled for too long",
            Self::Unavailable => "did not get through",
            Self::SignIn => "failed",
            Self::Cancelled => "was cancelled",
            Self::Malformed => "got an answer that makes no sense",
            Self::Fault => "got an answer on which this program failed",
        }
    }
}

/// A failed request. `Debug` and `Display` show no content.
#[derive(Clone)]
pub struct GraphError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    label: &'static str,
    status: Option<u16>,
    code: Option<Box<str>>,
    request_id: Option<Box<str>>,
    /// Our own explanation.
    explanation: Option<String>,
    /// The service's words, which may hold anything.
    detail: Option<Box<str>>,
    ambiguous: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl GraphError {
    /// Creates an error of `kind`. `label` says what was being done.
    pub(crate) fn new(kind: ErrorKind, label: &'static str) -> Self {
        Self(Box::new(Inner {
            kind,
            label,
            status: None,
            code: None,
            request_id: None,
            explanation: None,
            detail: None,
            ambiguous: false,
            source: None,
        }))
    }

    /// Creates the error for an answer that makes no sense.
    pub fn malformed(label: &'static str) -> Self {
        Self::new(ErrorKind::Malformed, label)
    }

    /// Creates the error for an answer on which this program failed.
    pub(crate) fn fault(label: &'static str, fault: crate::runtime::Panicked) -> Self {
        Self::new(ErrorKind::Fault, label).explained(fault.to_string())
    }

    /// Creates the error for a mailbox that does not exist, or no longer exists.
    pub fn no_mailbox(label: &'static str) -> Self {
        Self::new(ErrorKind::NoMailbox, label)
    }

    /// Creates the error for a service that has not answered any request for a while.
    pub fn silent(label: &'static str) -> Self {
        Self::new(ErrorKind::Unavailable, label).explained("the service has not answered for a while".into())
    }

    /// Creates the error for an answer that has more than the `max` bytes it may have.
    pub fn endless(label: &'static str, max: u64) -> Self {
        Self::new(ErrorKind::TooLarge, label).explained(format!("the answer has more than {max} bytes"))
    }

    /// Makes the error of an answer whose connection ended before the answer did.
    pub(crate) fn cut_off(label: &'static str, error: reqwest::Error) -> Self {
        Self::new(ErrorKind::Unavailable, label).explained("the answer was cut off".into()).with(error.without_url())
    }

    /// Creates the error for an answer with more than `max` of `what`.
    pub fn too_many(label: &'static str, what: &str, max: usize) -> Self {
        Self::new(ErrorKind::TooLarge, label).explained(format!("there are more than {max} {what}"))
    }

    /// Adds our own explanation, which becomes part of the text.
    pub(crate) fn explained(mut self, explanation: String) -> Self {
        self.0.explanation = Some(explanation);
        self
    }

    /// Adds the cause.
    pub(crate) fn with(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Adds the status, the code and the request id of the answer.
    pub(crate) fn answered(mut self, status: u16, code: Option<&str>, request_id: Option<&str>) -> Self {
        self.0.status = Some(status);
        self.0.code = code.map(Into::into);
        self.0.request_id = request_id.map(Into::into);
        self
    }

    /// Adds the service's own words, which are not part of the text.
    pub(crate) fn detailed(mut self, detail: &str) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Marks the error as ambiguous: the service may have carried out the request.
    pub(crate) fn ambiguous(mut self) -> Self {
        self.0.ambiguous = true;
        self
    }

    /// Makes an error of another kind of this one. Its facts stay.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Returns true if the text contains our own explanation.
    pub(crate) fn has_explanation(&self) -> bool {
        self.0.explanation.is_some()
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the most specific code from the service, such as `ErrorItemNotFound` or `AADSTS7000215`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Returns the HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the request id, by which the service's support finds the request.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Returns the service's own words. They may name people and items: show them to the user who asked, but never log
    /// them.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Returns true if the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Throttled | ErrorKind::Unavailable)
    }

    /// Returns true if the service may have carried out the request although it failed. Before sending it again, check
    /// whether the object that it should have created exists.
    pub fn is_ambiguous(&self) -> bool {
        self.0.ambiguous
    }
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, label, status, code, request_id, explanation, .. } = &*self.0;
        write!(f, "{label} {}", kind.words())?;
        if let Some(explanation) = explanation {
            write!(f, ": {explanation}")?;
        }
        let facts = [
            status.map(|status| format!("status {status}")),
            code.as_ref().map(|code| format!("code {code}")),
            request_id.as_ref().map(|id| format!("request {id}")),
        ];
        let facts: Vec<_> = facts.into_iter().flatten().collect();
        if facts.is_empty() { Ok(()) } else { write!(f, " ({})", facts.join(", ")) }
    }
}

impl fmt::Debug for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GraphError::{:?}({self}", self.0.kind)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        f.write_str(")")
    }
}

impl Error for GraphError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
