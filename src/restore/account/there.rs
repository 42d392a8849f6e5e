//! Which items stand in a folder of the target already.
//!
//! An item is known again by its immutable id, where it never left; by the mark that a restore gave it; and else by its
//! `Message-ID` and the time at which it arrived. A folder may hold a million messages, so only hashes are kept of
//! them, and those are keyed anew in each run: nobody can send two mails that meet in one.

use super::journal::Key;
use crate::format::crypto::Keys;
use crate::format::entry::Entry;
use crate::source::graph::write::Standing;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// Separates what an item is from its version.
const VERSION_AT: char = '.';
/// Ends the mark of a message that is not complete yet.
const INCOMPLETE: char = '+';

/// What a restored message is marked with: which item of the repository it is, and which version of it. Without the
/// repository's key it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    item: String,
    version: u32,
}

impl Mark {
    /// Returns the mark of an item.
    pub fn of(entry: &Entry, keys: &Keys) -> Self {
        // No path of the local state begins with a zero byte.
        let hash =
            |what: &[u8], of: &[&[u8]]| keys.local_path("restore", &[&[0], what, &[0], &of.concat()[..]].concat());
        let content = entry.content().map(|content| content.identity());
        let content = content.as_ref().map_or(&[][..], |hash| hash.as_bytes());
        let facts = &entry.facts;
        let item = match &facts.source_id {
            Some(id) => hash(b"id", &[id.as_bytes()]),
            None => hash(b"content", &[content]),
        };
        let version = match &facts.change_key {
            Some(version) => hash(b"version", &[version.as_bytes()]),
            None => hash(b"version", &[content]),
        };
        let version = u32::from_le_bytes(*version.first_chunk().expect("a hash has four bytes"));
        Self { item: hex(&item[..16]), version }
    }

    /// Returns the text that stands in the mailbox.
    pub fn text(&self, complete: bool) -> String {
        let end = if complete { "" } else { "+" };
        format!("{}{VERSION_AT}{:08x}{end}", self.item, self.version)
    }

    /// Returns the key under which the journal knows the item in `folder`.
    pub fn key(&self, folder: &str) -> Key {
        let hash = blake3::hash([self.text(true).as_bytes(), b"\0", folder.as_bytes()].concat().as_slice());
        *hash.as_bytes().first_chunk().expect("a hash has sixteen bytes")
    }

    fn read(text: &str) -> Option<(&str, u32, bool)> {
        let complete = !text.ends_with(INCOMPLETE);
        let (item, version) = text.trim_end_matches(INCOMPLETE).split_once(VERSION_AT)?;
        Some((item, u32::from_str_radix(version, 16).ok()?, complete))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands in the place of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// The item itself, as it was.
    Itself,
    /// The item itself, in another version.
    Changed,
    /// What a restore made of it; perhaps not all of it.
    Restored { complete: bool },
    /// What a restore made of another version of it.
    OtherVersion(Mark),
    /// A message with the same `Message-ID` that arrived at the same time.
    Alike,
}

/// What stands in a folder.
pub(super) struct There {
    random: RandomState,
    /// Items of the snapshot that never left: id -> version.
    ids: HashMap<u64, u64>,
    /// What restores made: item and version -> whether it is complete.
    marks: HashMap<u64, bool>,
    /// Of which items: item -> one of the versions.
    versions: HashMap<u64, u32>,
    /// How many others there are of a kind, and how many of them stand for an item.
    alike: HashMap<u64, (u32, u32)>,
    /// All messages that are known to stand there.
    known: HashSet<u64>,
}

impl There {
    /// Returns an empty folder, in which the items of the snapshot are to be recognised whose ids, hashed by `random`,
    /// `expected` holds.
    pub fn new(random: RandomState, expected: &[u64]) -> Self {
        let ids = expected.iter().map(|id| (*id, 0)).collect();
        let (marks, versions) = (HashMap::new(), HashMap::new());
        Self { random, ids, marks, versions, alike: HashMap::new(), known: HashSet::new() }
    }

    /// Returns whether a message is known to stand there.
    pub fn knows(&self, id: &str) -> bool {
        self.known.contains(&self.random.hash_one(id))
    }

    /// Notes a message that was just put there.
    pub fn know(&mut self, id: &str) {
        self.known.insert(self.random.hash_one(id));
    }

    /// Notes a message that stands there. It may be told of several times.
    pub fn add(&mut self, message: &Standing) {
        if !self.known.insert(self.random.hash_one(message.id.as_str())) {
            return;
        }
        if let Some(version) = self.ids.get_mut(&self.random.hash_one(message.id.as_str())) {
            *version = self.random.hash_one(&message.change_key) | 1;
        } else if let Some((item, version, complete)) = message.mark.as_deref().and_then(Mark::read) {
            *self.marks.entry(self.random.hash_one((item, version))).or_default() |= complete;
            self.versions.insert(self.random.hash_one(item), version);
        } else if let Some(key) =
            self.alike_key(message.internet_message_id.as_deref(), message.received.or(message.sent))
        {
            self.alike.entry(key).or_default().0 += 1;
        }
    }

    /// Notes an item that was just restored.
    pub fn restored(&mut self, mark: &Mark) {
        self.marks.insert(self.random.hash_one((mark.item.as_str(), mark.version)), true);
        self.versions.insert(self.random.hash_one(mark.item.as_str()), mark.version);
    }

    fn alike_key(&self, message_id: Option<&str>, time: Option<i64>) -> Option<u64> {
        let id = message_id?.trim_matches(['<', '>', ' ']);
        (!id.is_empty()).then(|| self.random.hash_one((id, time)))
    }

    /// Returns what stands in the place of an item. One message stands for one item only.
    pub fn find(&mut self, entry: &Entry, mark: &Mark) -> Found {
        let facts = &entry.facts;
        let known = facts.source_id.as_ref().and_then(|id| self.ids.get(&self.random.hash_one(id.as_str())));
        let known = known.copied().filter(|version| *version != 0);
        if known == Some(self.random.hash_one(&facts.change_key) | 1) {
            return Found::Itself;
        }
        if let Some(&complete) = self.marks.get(&self.random.hash_one((mark.item.as_str(), mark.version))) {
            return Found::Restored { complete };
        }
        if known.is_some() {
            return Found::Changed;
        }
        if let Some(&version) = self.versions.get(&self.random.hash_one(mark.item.as_str())) {
            return Found::OtherVersion(Mark { item: mark.item.clone(), version });
        }
        let key = self.alike_key(facts.message_id.as_deref(), facts.date);
        match key.and_then(|key| self.alike.get_mut(&key)).filter(|(all, taken)| taken < all) {
            Some((_, taken)) => {
                *taken += 1;
                Found::Alike
            }
            None => Found::Nothing,
        }
    }

    /// Returns how many messages that look like an item stand for others.
    pub fn taken(&self, entry: &Entry) -> usize {
        let key = self.alike_key(entry.facts.message_id.as_deref(), entry.facts.date);
        key.and_then(|key| self.alike.get(&key)).map_or(0, |(_, taken)| *taken as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};
    use crate::format::entry::{Content, EntryKind, Timestamp};

    fn keys() -> Keys {
        Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0])
    }

    fn entry(id: &str, version: &str, message_id: &str) -> Entry {
        let kind = EntryKind::File(Content::default());
        let mut entry = Entry::new(b"a.eml", kind, Timestamp { secs: 0, nanos: 0 });
        entry.facts.source_id = Some(id.to_owned());
        entry.facts.change_key = Some(version.to_owned());
        entry.facts.message_id = Some(message_id.to_owned());
        entry.facts.date = Some(7);
        entry
    }

    fn standing(id: &str, version: &str, message_id: &str, mark: Option<String>) -> Standing {
        Standing {
            id: id.to_owned(),
            change_key: Some(version.to_owned()),
            internet_message_id: Some(format!("<{message_id}>")),
            subject: None,
            sent: Some(6),
            received: Some(7),
            mark,
        }
    }

    #[test]
    fn items_are_known_by_id_then_by_mark_then_by_message_id() {
        let keys = keys();
        let (one, two, three) = (entry("1", "a", "x"), entry("2", "a", "x"), entry("3", "a", "x"));
        let mark = |entry: &Entry| Mark::of(entry, &keys);
        let random = RandomState::new();
        let expected = ["1", "2", "3"].map(|id| random.hash_one(id));
        let mut there = There::new(random, &expected);
        there.add(&standing("1", "a", "x", None));
        there.add(&standing("99", "z", "x", Some(mark(&two).text(true))));
        assert_eq!(there.find(&one, &mark(&one)), Found::Itself);
        let other = entry("1", "b", "x");
        assert_eq!(there.find(&other, &mark(&other)), Found::Changed);
        there.add(&standing("97", "z", "x", Some(mark(&other).text(true))));
        assert_eq!(there.find(&other, &mark(&other)), Found::Restored { complete: true });
        assert_eq!(there.find(&two, &mark(&two)), Found::Restored { complete: true });
        let newer = entry("2", "b", "x");
        assert_eq!(there.find(&newer, &mark(&newer)), Found::OtherVersion(mark(&two)));
        // What stands for one item stands for no other, though they are twins.
        assert_eq!(there.find(&three, &mark(&three)), Found::Nothing);
        there.add(&standing("98", "z", "x", None));
        assert_eq!(there.find(&three, &mark(&three)), Found::Alike);
        assert_eq!(there.find(&three, &mark(&three)), Found::Nothing);
    }

    #[test]
    fn what_stands_for_an_item_is_counted_and_what_is_there_is_known() {
        let keys = keys();
        let twins = [entry("1", "a", "x"), entry("2", "a", "x")];
        let mut there = There::new(RandomState::new(), &[]);
        // A message that is told of twice is one.
        (0..2).for_each(|_| there.add(&standing("9", "z", "x", None)));
        assert_eq!((there.knows("9"), there.knows("8"), there.taken(&twins[0])), (true, false, 0));
        assert_eq!(there.find(&twins[0], &Mark::of(&twins[0], &keys)), Found::Alike);
        assert_eq!(there.taken(&twins[1]), 1);
        assert_eq!(there.find(&twins[1], &Mark::of(&twins[1], &keys)), Found::Nothing);
    }

    #[test]
    fn marks_say_nothing_without_the_key_and_tell_whether_all_is_there() {
        let other = Keys::derive(&MasterKey::from_bytes([8; 32]), Cipher::ALL[0]);
        let one = entry("1", "a", "x");
        assert_ne!(Mark::of(&one, &keys()), Mark::of(&one, &other));
        let mark = Mark::of(&one, &keys());
        assert_eq!(Mark::read(&mark.text(false)), Some((mark.item.as_str(), mark.version, false)));
        assert_eq!(Mark::read("somebody else's"), None);
        let mut there = There::new(RandomState::new(), &[]);
        there.add(&standing("5", "z", "x", Some(mark.text(false))));
        assert_eq!(there.find(&one, &mark), Found::Restored { complete: false });
    }
}
