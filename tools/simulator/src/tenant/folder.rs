//! Folders: their names, their places, and the log from which a folder's message delta is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{FolderKey, MessageKey};
use super::message::ItemKind;

/// A folder of a mailbox.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Name for display; may contain any character.
    pub name: String,
    /// The folder that contains it; `None` for the root.
    pub parent: Option<FolderKey>,
    /// The name that is the same in every language.
    pub well_known: Option<&'static str>,
    /// True if it is listed only on request.
    pub hidden: bool,
    /// Container class, such as `IPF.Note`.
    pub class: String,
    /// Set for a search folder, which shows messages of other folders.
    pub search: Option<Search>,
    /// Its child folders, in the order of their creation.
    pub children: Vec<FolderKey>,
    /// Number of messages.
    pub total: u32,
    /// Number of unread messages.
    pub unread: u32,
    /// Change number of its last change.
    pub change: u64,
    /// Its position in the mailbox's log of folders.
    pub log_position: u32,
    /// Log of the changes of its messages.
    pub log: Log,
    /// Its messages, newest first. Computed when a listing needs it.
    pub order: Option<Arc<Vec<MessageKey>>>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, serde_json::Value>,
    /// What only a calendar has.
    pub calendar: CalendarFacts,
    /// What only a task list has.
    pub list: ListFacts,
}

/// What a search folder shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The OData filter.
    pub filter: String,
    /// Whether it also searches the folders inside its sources.
    pub nested: bool,
    /// The folders that it searches.
    pub sources: Vec<FolderKey>,
}

impl Folder {
    /// Returns the kind of the items that it is for. The API of mail lists only folders for messages.
    pub fn holds(&self) -> ItemKind {
        ItemKind::of_folder_class(&self.class)
    }

    /// Returns whether it is a folder for contacts.
    pub fn holds_contacts(&self) -> bool {
        self.holds() == ItemKind::Contact
    }

    /// Returns an empty mail folder.
    pub fn new(name: &str, parent: Option<FolderKey>) -> Self {
        Self {
            name: name.to_owned(),
            parent,
            well_known: None,
            hidden: false,
            class: "IPF.Note".to_owned(),
            search: None,
            children: Vec::new(),
            total: 0,
            unread: 0,
            change: 0,
            log_position: 0,
            log: Log::default(),
            order: None,
            extended: BTreeMap::new(),
            calendar: CalendarFacts::default(),
            list: ListFacts::default(),
        }
    }
}

/// What a task list has besides its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListFacts {
    /// True if its owner shares it.
    pub shared: bool,
    /// True if somebody else owns it.
    pub of_others: bool,
}

/// What a calendar has besides its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CalendarFacts {
    /// Name and address of its owner, if the calendar is that of somebody else.
    pub owner: Option<(String, String)>,
    /// True if its user cannot change it, as with a calendar from the internet.
    pub read_only: bool,
    /// Name of its group; the default group if absent.
    pub group: Option<String>,
    /// Its colour; `auto` if empty.
    pub color: String,
    /// True if listing its events fails with 500 for now.
    pub broken: bool,
}

/// Log of the changes of a folder's messages, oldest first, with four bytes per event.
///
/// The last event of a message is the one at its record's `log_position`. Readers skip earlier ones, so a round of a
/// delta that reads from a position to the end reports each message once.
#[derive(Clone, Debug, Default)]
pub struct Log {
    events: Vec<u32>,
    /// For each removal, the number of moves of the message until then. Its default id contained that number.
    moves_of_removed: BTreeMap<u32, u32>,
}

/// An event of a [`Log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The message was added or changed.
    Changed(MessageKey),
    /// The message was added, but clients that already know the folder are not told.
    CameUnnoticed(MessageKey),
    /// The message left the folder, after this many moves.
    Removed(MessageKey, u32),
}

impl Event {
    /// Returns the key of the item.
    pub fn key(self) -> MessageKey {
        match self {
            Self::Changed(key) | Self::CameUnnoticed(key) | Self::Removed(key, _) => key,
        }
    }
}

const REMOVED: u32 = 1 << 31;
const UNNOTICED: u32 = 1 << 30;
const KEY: u32 = UNNOTICED - 1;

impl Log {
    /// Adds an event and returns its position.
    pub fn push(&mut self, event: Event) -> u32 {
        let position = self.len();
        self.events.push(match event {
            Event::Changed(key) => key.0,
            Event::CameUnnoticed(key) => key.0 | UNNOTICED,
            Event::Removed(key, moves) => {
                self.moves_of_removed.insert(position, moves);
                key.0 | REMOVED
            }
        });
        position
    }

    /// Returns the event at `position`.
    pub fn get(&self, position: u32) -> Option<Event> {
        let event = *self.events.get(position as usize)?;
        let key = MessageKey(event & KEY);
        Some(match event & !KEY {
            REMOVED => Event::Removed(key, self.moves_of_removed.get(&position).copied().unwrap_or_default()),
            UNNOTICED => Event::CameUnnoticed(key),
            _ => Event::Changed(key),
        })
    }

    /// Returns the number of events.
    pub fn len(&self) -> u32 {
        u32::try_from(self.events.len()).expect("a folder sees fewer than four billion changes")
    }

    /// Returns whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Reserves space for `additional` events.
    pub fn reserve(&mut self, additional: usize) {
        self.events.reserve_exact(additional);
    }
}
