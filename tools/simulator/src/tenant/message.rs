//! Messages: a small record each, and the content it points to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::id::FolderKey;
use crate::mime::{Importance, Properties};

/// What is kept of a message. A million of these is what a large mailbox costs, so it stays under 100 bytes.
#[derive(Clone, Debug)]
pub struct Record {
    /// The folder it lies in.
    pub folder: FolderKey,
    /// Where its folder's log last speaks of it.
    pub log_position: u32,
    /// Where its folder's log first speaks of it since it came.
    pub entered: u32,
    /// How often it has moved.
    pub moves: u32,
    /// Edition of its content; ids of attachments end with it.
    pub edition: u32,
    /// State that is in no content.
    pub flags: Flags,
    /// Change number of its last change.
    pub change: u64,
    /// When it was received, in seconds since 1970.
    pub received: i64,
    /// When it was created in the mailbox.
    pub created: i64,
    /// When it last changed.
    pub modified: i64,
    /// Where its content comes from.
    pub content: Content,
    /// What few messages have.
    pub extra: Option<Arc<Extra>>,
}

/// State of a message that MIME does not carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Was read.
    pub read: bool,
    /// Was never sent.
    pub draft: bool,
    /// The follow-up flag.
    pub flag: FlagStatus,
    /// Goes to the "Other" inbox.
    pub other: bool,
    /// Was answered (102, 103) or forwarded (104); 0 if neither.
    pub last_verb: u8,
}

/// The follow-up flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlagStatus {
    /// None.
    #[default]
    NotFlagged,
    /// To be done.
    Flagged,
    /// Done.
    Complete,
}

impl FlagStatus {
    /// Returns its name in Graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFlagged => "notFlagged",
            Self::Flagged => "flagged",
            Self::Complete => "complete",
        }
    }

    /// Returns the status of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::NotFlagged, Self::Flagged, Self::Complete]
            .into_iter()
            .find(|status| status.name().eq_ignore_ascii_case(name))
    }
}

/// Where a message's content comes from.
#[derive(Clone, Debug)]
pub enum Content {
    /// Made from the tenant's seed and this number whenever it is asked for.
    Generated(u64),
    /// The file of the corpus with this number.
    Corpus(u32),
    /// These bytes.
    Mime(Arc<Vec<u8>>),
    /// Properties given as JSON; the MIME is rendered from them.
    Properties(Arc<Properties>),
}

/// What few messages have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Names of categories.
    pub categories: Vec<String>,
    /// Dates of the follow-up flag, as Graph shows them.
    pub flag: BTreeMap<String, Value>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// Class, if it is not `IPF.Note`'s `IPM.Note`.
    pub class: Option<String>,
    /// Importance, if it was changed since the content came.
    pub importance: Option<Importance>,
    /// Why it cannot be read, ever.
    pub unreadable: Option<Unreadable>,
}

/// Why a message cannot be read, however often one tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unreadable {
    /// 500 `ErrorCorruptData`, whatever is asked of it.
    CorruptData,
    /// 400 `ErrorInvalidRecipients`, whatever is asked of it.
    InvalidRecipients,
    /// 400 `ErrorCannotOpenFileAttachment` for its MIME and for what is attached; its properties can be read.
    CannotOpenFileAttachment,
    /// 500 `ErrorCorruptData` for its MIME; its properties and what is attached can be read.
    NoMime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_records_are_small() {
        assert!(size_of::<Option<Record>>() < 100, "{}", size_of::<Option<Record>>());
    }
}
