//! What became of one item.

use crate::repository::read_error::ReadError;
use crate::restore::chain;
use crate::runtime::Panicked;
use crate::source::graph::{ErrorKind, GraphError};

/// What became of an item that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It was restored.
    Restored,
    /// It exists, unchanged.
    AlreadyThere,
    /// It exists, was changed since, and was left as it is.
    Skipped,
}

/// Why an item was not restored.
#[derive(Debug)]
pub(super) enum ItemError {
    /// The reason concerns this item alone.
    Item(String),
    /// The repository does not answer. Nothing was made of the item yet.
    Repository(String),
    /// The service did not answer, or its answer makes no sense.
    Unanswered(GraphError),
    /// The reason concerns the whole mailbox.
    Mailbox(GraphError),
}

impl ItemError {
    /// Returns the reason for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Item(reason) | Self::Repository(reason) => reason.clone(),
            Self::Unanswered(error) | Self::Mailbox(error) => chain(error),
        }
    }
}

impl From<ReadError> for ItemError {
    fn from(error: ReadError) -> Self {
        let reason = chain(&error);
        if error.is_damage() { Self::Item(reason) } else { Self::Repository(reason) }
    }
}

impl From<GraphError> for ItemError {
    fn from(error: GraphError) -> Self {
        use ErrorKind::{Cancelled, Denied, MissingPermission, NoMailbox, QuotaExceeded, SignIn, Throttled};
        match error.kind() {
            Cancelled | Denied | MissingPermission | NoMailbox | QuotaExceeded | SignIn | Throttled => {
                Self::Mailbox(error)
            }
            ErrorKind::Unavailable => Self::Unanswered(error),
            _ => Self::Item(chain(&error)),
        }
    }
}

impl From<Panicked> for ItemError {
    fn from(fault: Panicked) -> Self {
        Self::Item(fault.to_string())
    }
}

impl From<std::io::Error> for ItemError {
    fn from(error: std::io::Error) -> Self {
        Self::Item(format!("could not keep the journal of the restore: {error}"))
    }
}
