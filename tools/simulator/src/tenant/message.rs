//! Items, which are messages, contacts, events and tasks: a small record for each, and a reference to its content.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::contact::Contact;
use super::event::CalendarEvent;
use super::id::FolderKey;
use super::task::Task;
use crate::mime::{Importance, Properties};

/// The stored state of an item. Large mailboxes have a million of these, so each stays under 100 bytes.
#[derive(Clone, Debug)]
pub struct Record {
    /// The folder that contains it.
    pub folder: FolderKey,
    /// Position of its last event in its folder's log.
    pub log_position: u32,
    /// Position of its first event in its folder's log since it was added there.
    pub entered: u32,
    /// Number of moves so far.
    pub moves: u32,
    /// Edition of its content. The ids of its attachments contain it.
    pub edition: u32,
    /// State that is not in the content.
    pub flags: Flags,
    /// Change number of its last change.
    pub change: u64,
    /// When it was received, in seconds since 1970.
    pub received: i64,
    /// When it was created in the mailbox.
    pub created: i64,
    /// When it last changed.
    pub modified: i64,
    /// Source of its content.
    pub content: Content,
    /// State that few messages have.
    pub extra: Option<Arc<Extra>>,
}

impl Record {
    /// Returns the kind of the item.
    pub fn kind(&self) -> ItemKind {
        self.content.kind()
    }
}

/// Kind of an item, and of the items that a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A message.
    Message,
    /// A contact.
    Contact,
    /// An event of a calendar: one appointment, or a series.
    Event,
    /// A task.
    Task,
}

impl ItemKind {
    /// Returns the class of the items of this kind; `None` for messages, which have several.
    pub fn class(self) -> Option<&'static str> {
        match self {
            Self::Message => None,
            Self::Contact => Some("IPM.Contact"),
            Self::Event => Some("IPM.Appointment"),
            Self::Task => Some("IPM.Task"),
        }
    }

    /// Returns the kind of the items in folders of this class, such as `IPF.Contact.GalContacts`.
    pub fn of_folder_class(class: &str) -> Self {
        let class = class.to_ascii_lowercase();
        let is = |name: &str| class.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        match () {
            () if is("ipf.contact") => Self::Contact,
            () if is("ipf.appointment") => Self::Event,
            () if is("ipf.task") => Self::Task,
            () => Self::Message,
        }
    }
}

/// State of a message that MIME cannot express.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// True if it was read.
    pub read: bool,
    /// True if it was never sent.
    pub draft: bool,
    /// The follow-up flag.
    pub flag: FlagStatus,
    /// True if it belongs to the "Other" inbox.
    pub other: bool,
    /// Verb of the last answer (102, 103) or forward (104); 0 if neither.
    pub last_verb: u8,
}

/// Status of the follow-up flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlagStatus {
    /// Not flagged.
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

    /// Returns the status with this name; case does not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::NotFlagged, Self::Flagged, Self::Complete]
            .into_iter()
            .find(|status| status.name().eq_ignore_ascii_case(name))
    }
}

/// Source of a message's content.
#[derive(Clone, Debug)]
pub enum Content {
    /// Generated on each use from the tenant's seed and this number.
    Generated(u64),
    /// The file of the corpus with this number.
    Corpus(u32),
    /// These bytes.
    Mime(Arc<Vec<u8>>),
    /// Properties that came as JSON. The MIME is rendered from them.
    Properties(Arc<Properties>),
    /// The item is a contact, not a message.
    Contact(Arc<Contact>),
    /// The item is an event of a calendar.
    Event(Arc<CalendarEvent>),
    /// The item is a task.
    Task(Arc<Task>),
}

impl Content {
    /// Returns the kind of the item.
    pub fn kind(&self) -> ItemKind {
        match self {
            Self::Generated(_) | Self::Corpus(_) | Self::Mime(_) | Self::Properties(_) => ItemKind::Message,
            Self::Contact(_) => ItemKind::Contact,
            Self::Event(_) => ItemKind::Event,
            Self::Task(_) => ItemKind::Task,
        }
    }
}

/// State that few messages have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Names of categories.
    pub categories: Vec<String>,
    /// Dates of the follow-up flag, as Graph shows them.
    pub flag: BTreeMap<String, Value>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// Message class, if it is not `IPM.Note`.
    pub class: Option<String>,
    /// Importance, if it was changed after the content came.
    pub importance: Option<Importance>,
    /// Why it can never be read; `None` for readable messages.
    pub unreadable: Option<Unreadable>,
}

/// Why a message can never be read, no matter how often a client tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unreadable {
    /// 500 `ErrorCorruptData` for every request.
    CorruptData,
    /// 400 `ErrorInvalidRecipients` for every request.
    InvalidRecipients,
    /// 400 `ErrorCannotOpenFileAttachment` for its MIME and its attachments; its properties can be read.
    CannotOpenFileAttachment,
    /// 500 `ErrorCorruptData` for its MIME; its properties and its attachments can be read.
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
