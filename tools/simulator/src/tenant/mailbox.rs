//! A mailbox: folders, records of messages, and the logs that deltas need.
//!
//! Everything here is quick and runs under the mailbox's lock. Contents are made elsewhere, from copies of records.
//! Each change gets the next change number, and is written into the log of its folder (messages) or of the mailbox
//! (folders).

mod folders;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::folder::{Event, Folder};
use super::id::{FolderKey, IdFormat, MailboxGuid, MessageKey, Named};
use super::locale::Locale;
use super::message::{Content, Extra, Flags, ItemKind, Record, Unreadable};

/// The root, which users do not see.
pub const ROOT: FolderKey = FolderKey(0);

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxError {
    /// There is no such folder or message.
    #[error("the item was not found in the mailbox")]
    NotFound,
    /// A sibling already has this name.
    #[error("a folder with the specified name already exists")]
    FolderExists,
    /// An item that was deleted twice can only be deleted permanently.
    #[error("the item is in the recoverable items")]
    NotDeletable,
    /// Well-known folders cannot be changed, and no folder can be inside itself.
    #[error("the folder cannot be renamed, moved or deleted")]
    Refused,
}

/// The mailbox of a user.
#[derive(Debug)]
pub struct Mailbox {
    /// Identifies the mailbox inside ids.
    pub guid: MailboxGuid,
    /// Language of the names of default folders.
    pub locale: Locale,
    /// Categories: name and colour.
    pub categories: Vec<(String, String)>,
    /// Rules of the inbox, as Graph shows them.
    pub rules: Vec<Value>,
    /// Generation of the delta state. Delta tokens of an earlier generation are refused.
    pub generation: u64,
    /// Number of delta tokens issued.
    pub tokens: u64,
    /// Items so new that attaching to them fails once.
    pub lagging: BTreeSet<MessageKey>,
    /// Mailbox settings that were changed, as Graph shows them.
    pub settings: BTreeMap<String, Value>,
    /// True if deltas show a move only as a removal from the source folder.
    pub moves_show_only_as_removal: bool,
    folders: Vec<Option<Folder>>,
    /// The items of all kinds.
    messages: Vec<Option<Record>>,
    /// Every key that was ever given to an item that is no message, and its kind.
    other_kinds: BTreeMap<MessageKey, ItemKind>,
    /// Number of messages.
    live: usize,
    folder_log: Vec<FolderEvent>,
    change: u64,
    /// All messages, newest first, as of a change number.
    order: Option<(u64, Arc<Vec<MessageKey>>)>,
}

/// An event in the mailbox's log of folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderEvent {
    /// The folder was added or changed.
    Changed(FolderKey),
    /// The folder was removed. It was for items of this kind.
    Removed(FolderKey, ItemKind),
}

/// An item to add to a mailbox.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The folder to add it to.
    pub folder: FolderKey,
    /// Source of its content.
    pub content: Content,
    /// State that is not in the content.
    pub flags: Flags,
    /// When it was received.
    pub received: i64,
    /// When it was created in the mailbox.
    pub created: i64,
    /// State that few messages have.
    pub extra: Option<Arc<Extra>>,
}

impl Mailbox {
    /// Returns a mailbox with the default folders and no messages.
    pub fn new(guid: MailboxGuid, locale: Locale) -> Self {
        let mut mailbox = Self {
            guid,
            locale,
            categories: Vec::new(),
            rules: Vec::new(),
            generation: 1,
            tokens: 0,
            lagging: BTreeSet::new(),
            settings: BTreeMap::new(),
            order: None,
            moves_show_only_as_removal: false,
            folders: vec![Some(Folder { well_known: Some("root"), ..Folder::new("Root", None) })],
            messages: Vec::new(),
            other_kinds: BTreeMap::new(),
            live: 0,
            folder_log: Vec::new(),
            change: 0,
        };
        for default in super::locale::DEFAULT_FOLDERS {
            let parent = match default.parent {
                "root" => ROOT,
                name => mailbox.well_known(name).expect("parents stand before their children"),
            };
            let folder = Folder {
                well_known: default.well_known,
                hidden: default.hidden,
                class: default.class.to_owned(),
                ..Folder::new(locale.name(default), Some(parent))
            };
            mailbox.insert_folder(folder);
        }
        mailbox
    }

    pub(super) fn next_change(&mut self) -> u64 {
        self.change += 1;
        self.change
    }

    /// Returns the number of the latest change.
    pub fn latest_change(&self) -> u64 {
        self.change
    }

    /// Returns the record of an item of any kind.
    pub fn message(&self, key: MessageKey) -> Option<&Record> {
        self.messages.get(key.0 as usize)?.as_ref()
    }

    /// Returns every message.
    pub fn messages(&self) -> impl Iterator<Item = (MessageKey, &Record)> {
        self.items().filter(|(_, record)| record.kind() == ItemKind::Message)
    }

    /// Returns every contact, in the order of their creation.
    pub fn contacts(&self) -> impl Iterator<Item = (MessageKey, &Record)> {
        self.items_of(ItemKind::Contact)
    }

    /// Returns every item of a kind other than messages, in the order of their creation.
    pub fn items_of(&self, kind: ItemKind) -> impl Iterator<Item = (MessageKey, &Record)> {
        self.others().filter(move |(_, record)| record.kind() == kind)
    }

    /// Returns every item that is no message, in the order of their creation.
    pub fn others(&self) -> impl Iterator<Item = (MessageKey, &Record)> {
        self.other_kinds.keys().filter_map(|key| Some((*key, self.message(*key)?)))
    }

    /// Returns the kind of the item to which a key belongs or belonged.
    pub fn kind_of(&self, key: MessageKey) -> ItemKind {
        self.other_kinds.get(&key).copied().unwrap_or(ItemKind::Message)
    }

    fn items(&self) -> impl Iterator<Item = (MessageKey, &Record)> {
        self.messages
            .iter()
            .enumerate()
            .filter_map(|(key, record)| Some((MessageKey(u32::try_from(key).ok()?), record.as_ref()?)))
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns whether there are no messages.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Reserves space for exactly `additional` messages in `folder`.
    pub fn reserve(&mut self, folder: FolderKey, additional: usize) {
        self.messages.reserve_exact(additional);
        if let Some(folder) = self.folder_mut(folder) {
            folder.log.reserve(additional);
        }
    }

    /// Returns the message with this id: its immutable id, or the default id of its current place.
    pub fn resolve_message(&self, id: &str) -> Option<MessageKey> {
        self.resolve_item(id).filter(|key| self.kind_of(*key) == ItemKind::Message)
    }

    /// Returns the contact with this id: its immutable id, or the default id of its current place.
    pub fn resolve_contact(&self, id: &str) -> Option<MessageKey> {
        self.resolve_item(id).filter(|key| self.kind_of(*key) == ItemKind::Contact)
    }

    /// Returns the item of any kind with this id.
    pub fn resolve_item(&self, id: &str) -> Option<MessageKey> {
        match Named::decode(id, &self.guid)? {
            Named::Message(key) => self.message(key).map(|_| key),
            Named::MessageInPlace(key, moves) => {
                self.message(key).is_some_and(|record| record.moves == moves).then_some(key)
            }
            _ => None,
        }
    }

    /// Returns the id of an item.
    pub fn message_id(&self, key: MessageKey, record: &Record, format: IdFormat) -> String {
        message_id(&self.guid, key, record.moves, format)
    }

    /// Returns the id of a folder.
    pub fn folder_id(&self, key: FolderKey) -> String {
        Named::Folder(key).encode(&self.guid)
    }

    /// Adds an item to a folder.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the folder does not exist.
    pub fn add_message(&mut self, arrival: Arrival) -> Result<MessageKey, MailboxError> {
        let Arrival { folder, content, flags, received, created, extra } = arrival;
        self.folder(folder).ok_or(MailboxError::NotFound)?;
        let key = MessageKey(u32::try_from(self.messages.len()).expect("fewer than a billion messages"));
        let kind = content.kind();
        let change = self.next_change();
        let place = self.folder_mut(folder).ok_or(MailboxError::NotFound)?;
        let position = place.log.push(Event::Changed(key));
        place.count(&flags, true);
        self.messages.push(Some(Record {
            folder,
            log_position: position,
            entered: position,
            moves: 0,
            edition: 0,
            flags,
            change,
            received,
            created,
            modified: created,
            content,
            extra,
        }));
        if kind != ItemKind::Message {
            self.other_kinds.insert(key, kind);
        }
        self.live += usize::from(kind == ItemKind::Message);
        Ok(key)
    }

    /// Changes an item without moving it. `edit` may set everything but its place.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the message does not exist.
    pub fn change_message(
        &mut self,
        key: MessageKey,
        now: i64,
        edit: impl FnOnce(&mut Record),
    ) -> Result<(), MailboxError> {
        let change = self.next_change();
        let record = self.messages.get_mut(key.0 as usize).and_then(Option::as_mut).ok_or(MailboxError::NotFound)?;
        let place = self.folders.get_mut(record.folder.0 as usize).and_then(Option::as_mut);
        let place = place.ok_or(MailboxError::NotFound)?;
        place.count(&record.flags, false);
        edit(record);
        place.count(&record.flags, true);
        record.change = change;
        record.modified = now;
        record.log_position = place.log.push(Event::Changed(key));
        Ok(())
    }

    /// Makes a message unreadable or readable again. No delta shows this.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the message does not exist.
    pub fn mark_unreadable(&mut self, key: MessageKey, why: Option<Unreadable>) -> Result<(), MailboxError> {
        self.change_unnoticed(key, |record| Self::extra(record).unreadable = why)
    }

    /// Changes an item so that neither a delta nor its change key shows it.
    pub(super) fn change_unnoticed(
        &mut self,
        key: MessageKey,
        edit: impl FnOnce(&mut Record),
    ) -> Result<(), MailboxError> {
        edit(self.messages.get_mut(key.0 as usize).and_then(Option::as_mut).ok_or(MailboxError::NotFound)?);
        Ok(())
    }

    /// Moves an item. Its immutable id stays.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the message or the folder does not exist.
    pub fn move_message(&mut self, key: MessageKey, target: FolderKey, now: i64) -> Result<(), MailboxError> {
        self.folder(target).ok_or(MailboxError::NotFound)?;
        let mut record = self.message(key).cloned().ok_or(MailboxError::NotFound)?;
        record.change = self.next_change();
        let unnoticed = self.moves_show_only_as_removal;
        if let Some(source) = self.folder_mut(record.folder) {
            source.log.push(Event::Removed(key, record.moves));
            source.count(&record.flags, false);
        }
        if let Some(place) = self.folder_mut(target) {
            let event = if unnoticed { Event::CameUnnoticed(key) } else { Event::Changed(key) };
            record.log_position = place.log.push(event);
            record.entered = record.log_position;
            place.count(&record.flags, true);
        }
        record.folder = target;
        record.moves += 1;
        record.modified = now;
        self.messages[key.0 as usize] = Some(record);
        Ok(())
    }

    /// Copies an item into a folder and returns the copy.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the item or the folder does not exist.
    pub fn copy_item(&mut self, key: MessageKey, target: FolderKey, now: i64) -> Result<MessageKey, MailboxError> {
        let Record { content, flags, received, extra, .. } = self.message(key).ok_or(MailboxError::NotFound)?.clone();
        self.add_message(Arrival { folder: target, content, flags, received, created: now, extra })
    }

    /// Moves an item to Deleted Items, or from there to the recoverable items. If `straight`, it goes there at once.
    ///
    /// # Errors
    /// [`MailboxError::NotDeletable`] if it is in the recoverable items already, [`MailboxError::NotFound`] if it does
    /// not exist.
    pub fn discard_item(&mut self, key: MessageKey, straight: bool, now: i64) -> Result<(), MailboxError> {
        let place = self.message(key).ok_or(MailboxError::NotFound)?.folder;
        let known = |name| self.well_known(name).ok_or(MailboxError::NotFound);
        let (deleted, recoverable) = (known("deleteditems")?, known("recoverableitemsdeletions")?);
        if place == recoverable {
            return Err(MailboxError::NotDeletable);
        }
        let target = if straight || self.lies_in(place, deleted) { recoverable } else { deleted };
        self.move_message(key, target, now)
    }

    /// Removes an item permanently.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the message does not exist.
    pub fn remove_message(&mut self, key: MessageKey) -> Result<(), MailboxError> {
        let record = self.messages.get_mut(key.0 as usize).and_then(Option::take).ok_or(MailboxError::NotFound)?;
        self.live -= usize::from(record.kind() == ItemKind::Message);
        self.next_change();
        if let Some(place) = self.folder_mut(record.folder) {
            place.log.push(Event::Removed(key, record.moves));
            place.count(&record.flags, false);
        }
        Ok(())
    }

    /// Returns the messages of a folder, or of the whole mailbox, newest first.
    pub fn listing(&mut self, folder: Option<FolderKey>) -> Arc<Vec<MessageKey>> {
        let known = match folder {
            Some(folder) => self.folder(folder).and_then(|folder| folder.order.clone()),
            None => self.order.clone().filter(|(change, _)| *change == self.change).map(|(_, order)| order),
        };
        if let Some(order) = known {
            return order;
        }
        let inside = |record: &Record| folder.is_none_or(|folder| record.folder == folder);
        let mut keys: Vec<MessageKey> =
            self.messages().filter(|(_, record)| inside(record)).map(|(key, _)| key).collect();
        self.sort_newest_first(&mut keys);
        let keys = Arc::new(keys);
        match folder {
            Some(folder) => {
                if let Some(folder) = self.folder_mut(folder) {
                    folder.order = Some(Arc::clone(&keys));
                }
            }
            None => self.order = Some((self.change, Arc::clone(&keys))),
        }
        keys
    }

    fn sort_newest_first(&self, keys: &mut [MessageKey]) {
        keys.sort_by_cached_key(|key| {
            (std::cmp::Reverse(self.message(*key).map_or(0, |record| record.received)), *key)
        });
    }

    /// Returns the extended properties and other rare state of a message, for changes.
    pub fn extra(record: &mut Record) -> &mut Extra {
        Arc::make_mut(record.extra.get_or_insert_default())
    }
}

impl Folder {
    /// Adds or subtracts a message in the counts, and invalidates the cached order of listings.
    fn count(&mut self, flags: &Flags, comes: bool) {
        let step = |count: &mut u32, counted: bool| {
            let by = u32::from(counted);
            *count = if comes { *count + by } else { *count - by };
        };
        step(&mut self.total, true);
        step(&mut self.unread, !flags.read);
        self.order = None;
    }
}

/// Returns the id of a message that has moved `moves` times.
pub fn message_id(mailbox: &MailboxGuid, key: MessageKey, moves: u32, format: IdFormat) -> String {
    match format {
        IdFormat::Default => Named::MessageInPlace(key, moves).encode(mailbox),
        IdFormat::Immutable => Named::Message(key).encode(mailbox),
    }
}

/// Properties by name, as stored in [`Folder`] and [`Extra`].
pub type Extended = BTreeMap<String, Value>;
