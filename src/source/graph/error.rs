//! What went wrong, in kinds that a caller treats differently.
//!
//! The text of an error says what was asked for and what the service answered: a status, a code, and the id under which
//! its support finds the request. It never holds what an answer was about: no addresses, no subjects, no URLs. What the
//! service said in words may hold such things, and is only given out by [`GraphError::detail`].

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What a caller has to know of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It does not exist, or no longer.
    NotFound,
    /// The user has no mailbox that Graph can reach: unlicensed, on premises, inactive.
    NoMailbox,
    /// The delta token is too old or was lost: list the collection again from the start. The listing has no tombstones.
    Resync,
    /// The collection cannot be asked for changes at all: list it in full each time.
    DeltaUnsupported,
    /// Access is refused, by a policy for this mailbox or for want of a permission.
    Denied,
    /// A permission for the directory is missing.
    MissingPermission,
    /// The mailbox is full; even its changes cannot be listed.
    QuotaExceeded,
    /// The service cannot read this item, and never will.
    ItemCorrupt,
    /// The request was wrong.
    BadRequest,
    /// It is there already, or was changed meanwhile.
    Conflict,
    /// It is locked.
    Locked,
    /// More bytes than the caller or the service allows.
    TooLarge,
    /// The service did not stop to refuse it for want of capacity.
    Throttled,
    /// The service or the way to it does not work, and did not after a while.
    Unavailable,
    /// Nobody could be signed in.
    SignIn,
    /// It was given up because the program ends.
    Cancelled,
    /// The answer cannot be what was asked for, or leads astray.
    Malformed,
    /// This program failed on the answer.
    Fault,
}

impl ErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "was not found",
            Self::NoMailbox => "met a user without a mailbox",
            Self::Resync => "needs a new listing",
            Self::DeltaUnsupported => "is not possible for changes",
            Self::Denied => "was denied",
            Self::MissingPermission => "lacks a permission",
            Self::QuotaExceeded => "met a mailbox over its quota",
            Self::ItemCorrupt => "met an item that the service cannot read",
            Self::BadRequest => "was refused as wrong",
            Self::Conflict => "met something in its place",
            Self::Locked => "met a lock",
            Self::TooLarge => "is too large",
            Self::Throttled => "was throttled for too long",
            Self::Unavailable => "did not get through",
            Self::SignIn => "failed",
            Self::Cancelled => "was cancelled",
            Self::Malformed => "got an answer that makes no sense",
            Self::Fault => "got an answer that cannot be dealt with",
        }
    }
}

/// A failed request. `Debug` and `Display` hold no content.
#[derive(Clone)]
pub struct GraphError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    label: &'static str,
    status: Option<u16>,
    code: Option<Box<str>>,
    request_id: Option<Box<str>>,
    /// Our own words about it.
    explanation: Option<String>,
    /// The service's words, which may hold anything.
    detail: Option<Box<str>>,
    ambiguous: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl GraphError {
    /// Makes an error of `kind` met while doing what `label` says.
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

    /// Makes the error of an answer that makes no sense.
    pub fn malformed(label: &'static str) -> Self {
        Self::new(ErrorKind::Malformed, label)
    }

    /// Makes the error of an answer on which this program fails.
    pub(crate) fn fault(label: &'static str, fault: crate::runtime::Fault) -> Self {
        Self::new(ErrorKind::Fault, label).explained(fault.to_string())
    }

    /// Makes the error of a mailbox that is not there, or no longer.
    pub fn no_mailbox(label: &'static str) -> Self {
        Self::new(ErrorKind::NoMailbox, label)
    }

    /// Makes the error of a service that has not answered for a while, whatever was asked.
    pub fn silent(label: &'static str) -> Self {
        Self::new(ErrorKind::Unavailable, label).explained("the service has not answered for a while".into())
    }

    /// Makes the error of an answer that goes on after `max` bytes, which are more than it can have.
    pub fn endless(label: &'static str, max: u64) -> Self {
        super::http::too_large(label, max)
    }

    /// Makes the error of an answer with more than `max` of what it tells of.
    pub fn too_many(label: &'static str, what: &str, max: usize) -> Self {
        Self::new(ErrorKind::TooLarge, label).explained(format!("there are more than {max} {what}"))
    }

    /// Adds our own words, which stand in the text.
    pub(crate) fn explained(mut self, explanation: String) -> Self {
        self.0.explanation = Some(explanation);
        self
    }

    /// Adds what caused it.
    pub(crate) fn with(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Adds what the service answered.
    pub(crate) fn answered(mut self, status: u16, code: Option<&str>, request_id: Option<&str>) -> Self {
        self.0.status = Some(status);
        self.0.code = code.map(Into::into);
        self.0.request_id = request_id.map(Into::into);
        self
    }

    /// Adds the service's own words, which are kept out of the text.
    pub(crate) fn detailed(mut self, detail: &str) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Notes that the request may have been carried out all the same.
    pub(crate) fn ambiguous(mut self) -> Self {
        self.0.ambiguous = true;
        self
    }

    /// Returns whether our own words stand in the text.
    pub(crate) fn has_explanation(&self) -> bool {
        self.0.explanation.is_some()
    }

    /// Returns what a caller has to know of it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the most specific code the service gave, such as `ErrorItemNotFound` or `AADSTS7000215`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Returns the HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the id under which the service's support finds the request.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Returns the service's own words. They may name people and items: show them to whoever asked, never log them.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Returns whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Throttled | ErrorKind::Unavailable)
    }

    /// Returns whether the request may have been carried out although it failed. Before it is sent again, look whether
    /// what it should have made is there.
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
