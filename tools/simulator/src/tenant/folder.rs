//! Folders: their names, their places, and for each the log that its message delta reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{FolderKey, MessageKey};

/// A folder of a mailbox.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Name for display; may hold any character.
    pub name: String,
    /// The folder it lies in; none for the root.
    pub parent: Option<FolderKey>,
    /// The name that is the same in every language.
    pub well_known: Option<&'static str>,
    /// Listed on request only.
    pub hidden: bool,
    /// Container class, such as `IPF.Note`.
    pub class: String,
    /// Set for a search folder, whose messages live elsewhere.
    pub search: Option<Search>,
    /// Folders inside, in the order in which they came.
    pub children: Vec<FolderKey>,
    /// Number of messages.
    pub total: u32,
    /// Number of messages not read.
    pub unread: u32,
    /// Change number of its last change.
    pub change: u64,
    /// Where it stands in the mailbox's log of folders.
    pub log_position: u32,
    /// What happened to its messages.
    pub log: Log,
    /// Its messages, newest first; made when a listing asks for it.
    pub order: Option<Arc<Vec<MessageKey>>>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, serde_json::Value>,
}

/// What a search folder searches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The OData filter.
    pub filter: String,
    /// Whether folders within the sources are searched too.
    pub nested: bool,
    /// Where it searches.
    pub sources: Vec<FolderKey>,
}

impl Folder {
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
        }
    }
}

/// What happened to the messages of a folder, oldest first: four bytes an event.
///
/// A message's last event is the one at its record's `log_position`; earlier ones are passed over, so a round of a delta
/// that reads from a position to the end tells of each message once.
#[derive(Clone, Debug, Default)]
pub struct Log {
    events: Vec<u32>,
    /// How often a message had moved when it left: what its default id was until then.
    moves_of_removed: BTreeMap<u32, u32>,
}

/// An event of a [`Log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The message came or changed.
    Changed(MessageKey),
    /// The message came, but a client that was here before is not told.
    CameUnnoticed(MessageKey),
    /// The message, which had moved so often, left.
    Removed(MessageKey, u32),
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

    /// Returns how many events there were.
    pub fn len(&self) -> u32 {
        u32::try_from(self.events.len()).expect("a folder sees fewer than four billion changes")
    }

    /// Returns whether nothing ever happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Makes room for `additional` events.
    pub fn reserve(&mut self, additional: usize) {
        self.events.reserve_exact(additional);
    }
}
