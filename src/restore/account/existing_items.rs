//! The items that exist in a folder of the target, and which of them corresponds to an item of the snapshot.
//!
//! An item of the snapshot is recognised by its immutable id, if it never left; by the mark that a restore gave it; and
//! otherwise by its [`Likeness`]. A folder may hold a million items, so only hashes of them are kept. The hashes have a
//! key that is new in each run, so nobody can send two mails with the same hash.

use super::mark::Mark;
use crate::format::entry::Entry;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// What two items have in common that are the same item without the same id or mark. For mail, the `Message-ID` and the
/// time of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Likeness(pub String);

/// An item that exists in a folder of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExistingItem {
    /// The immutable id.
    pub id: String,
    /// The version.
    pub version: Option<String>,
    /// The mark that a restore gave it.
    pub mark: Option<String>,
    pub likeness: Option<Likeness>,
}

/// A folder of the target, and the items that exist in it.
pub(super) struct TargetFolder {
    /// The id of the folder. `None` in a dry run if the folder does not exist yet.
    pub id: Option<String>,
    pub existing: Mutex<ExistingItems>,
    /// True if the folder was not listed. Then the caller asks for each item before it looks for its counterpart.
    pub is_asked: bool,
}

/// The item of the target that corresponds to an item of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counterpart {
    /// There is none.
    None,
    /// The item itself, unchanged.
    Itself,
    /// The item itself, in another version.
    Changed,
    /// An item that a restore made of this version.
    Restored {
        /// False if the restore was not finished with it.
        complete: bool,
    },
    /// An item that a restore made of another version, with its mark.
    OtherVersion(Mark),
    /// An item with the same [`Likeness`].
    Alike,
}

/// How many items have the same [`Likeness`].
#[derive(Debug, Clone, Copy, Default)]
struct AlikeItems {
    all: u32,
    /// How many of them were found to correspond to an item of the snapshot.
    taken: u32,
}

/// The items that exist in a folder.
pub(super) struct ExistingItems {
    random: RandomState,
    /// The versions of items of the snapshot that never left, by id. The version is zero until the item is found.
    versions_by_id: HashMap<u64, u64>,
    /// Items that restores made, by item and version, with whether they are complete.
    restored: HashMap<u64, bool>,
    /// One version of each item that restores made.
    restored_versions: HashMap<u64, u32>,
    /// Items without a mark, by likeness.
    alike: HashMap<u64, AlikeItems>,
    /// The ids of all items.
    ids: HashSet<u64>,
}

impl ExistingItems {
    /// Creates an empty folder. `expected` holds the ids, hashed by `random`, of the items of the snapshot that belong
    /// into the folder.
    pub fn new(random: RandomState, expected: &[u64]) -> Self {
        Self {
            random,
            versions_by_id: expected.iter().map(|id| (*id, 0)).collect(),
            restored: HashMap::new(),
            restored_versions: HashMap::new(),
            alike: HashMap::new(),
            ids: HashSet::new(),
        }
    }

    /// Returns true if an item with this id is known to exist.
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(&self.random.hash_one(id))
    }

    /// Adds the id of an item that was just created.
    pub fn add_id(&mut self, id: &str) {
        self.ids.insert(self.random.hash_one(id));
    }

    /// Adds an item that exists. The same item may be added several times.
    pub fn add(&mut self, item: &ExistingItem) {
        let id = self.random.hash_one(item.id.as_str());
        if !self.ids.insert(id) {
            return;
        }
        if let Some(version) = self.versions_by_id.get_mut(&id) {
            *version = self.random.hash_one(&item.version) | 1;
        } else if let Some(mark) = item.mark.as_deref().and_then(Mark::parse) {
            *self.restored.entry(self.random.hash_one((mark.item, mark.version))).or_default() |= mark.complete;
            self.restored_versions.insert(self.random.hash_one(mark.item), mark.version);
        } else if let Some(likeness) = &item.likeness {
            self.alike.entry(self.random.hash_one(likeness)).or_default().all += 1;
        }
    }

    /// Adds an item that was just restored.
    pub fn add_restored(&mut self, mark: &Mark) {
        self.restored.insert(self.random.hash_one((mark.item.as_str(), mark.version)), true);
        self.restored_versions.insert(self.random.hash_one(mark.item.as_str()), mark.version);
    }

    /// Returns what corresponds to an item of the snapshot. One existing item corresponds to one item only.
    pub fn find(&mut self, entry: &Entry, mark: &Mark, likeness: Option<&Likeness>) -> Counterpart {
        let facts = &entry.facts;
        let id = facts.source_id.as_ref().map(|id| self.random.hash_one(id.as_str()));
        let known = id.and_then(|id| self.versions_by_id.get(&id)).copied().filter(|version| *version != 0);
        if known == Some(self.random.hash_one(&facts.change_key) | 1) {
            return Counterpart::Itself;
        }
        if let Some(&complete) = self.restored.get(&self.random.hash_one((mark.item.as_str(), mark.version))) {
            return Counterpart::Restored { complete };
        }
        if known.is_some() {
            return Counterpart::Changed;
        }
        if let Some(&version) = self.restored_versions.get(&self.random.hash_one(mark.item.as_str())) {
            return Counterpart::OtherVersion(Mark { item: mark.item.clone(), version });
        }
        let hash = likeness.map(|likeness| self.random.hash_one(likeness));
        match hash.and_then(|hash| self.alike.get_mut(&hash)).filter(|alike| alike.taken < alike.all) {
            Some(alike) => {
                alike.taken += 1;
                Counterpart::Alike
            }
            None => Counterpart::None,
        }
    }

    /// Returns how many items with this likeness correspond to items of the snapshot.
    pub fn taken(&self, likeness: Option<&Likeness>) -> usize {
        let hash = likeness.map(|likeness| self.random.hash_one(likeness));
        hash.and_then(|hash| self.alike.get(&hash)).map_or(0, |alike| alike.taken as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, Keys, MasterKey};
    use crate::format::entry::{Content, EntryKind, Timestamp};

    fn keys() -> Keys {
        Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0])
    }

    fn entry(id: &str, version: &str) -> Entry {
        let kind = EntryKind::File(Content::default());
        let mut entry = Entry::new(b"a.eml", kind, Timestamp { secs: 0, nanos: 0 });
        entry.facts.source_id = Some(id.to_owned());
        entry.facts.change_key = Some(version.to_owned());
        entry
    }

    fn likeness() -> Likeness {
        Likeness("x".to_owned())
    }

    fn existing(id: &str, version: &str, mark: Option<String>) -> ExistingItem {
        ExistingItem { id: id.to_owned(), version: Some(version.to_owned()), mark, likeness: Some(likeness()) }
    }

    fn find(items: &mut ExistingItems, entry: &Entry) -> Counterpart {
        items.find(entry, &Mark::of(entry, &keys()), Some(&likeness()))
    }

    #[test]
    fn items_are_known_by_id_then_by_mark_then_by_likeness() {
        let (one, two, three) = (entry("1", "a"), entry("2", "a"), entry("3", "a"));
        let mark = |entry: &Entry| Mark::of(entry, &keys());
        let random = RandomState::new();
        let expected = ["1", "2", "3"].map(|id| random.hash_one(id));
        let mut items = ExistingItems::new(random, &expected);
        items.add(&existing("1", "a", None));
        items.add(&existing("99", "z", Some(mark(&two).text(true))));
        assert_eq!(find(&mut items, &one), Counterpart::Itself);
        let other = entry("1", "b");
        assert_eq!(find(&mut items, &other), Counterpart::Changed);
        items.add(&existing("97", "z", Some(mark(&other).text(true))));
        assert_eq!(find(&mut items, &other), Counterpart::Restored { complete: true });
        assert_eq!(find(&mut items, &two), Counterpart::Restored { complete: true });
        let newer = entry("2", "b");
        assert_eq!(find(&mut items, &newer), Counterpart::OtherVersion(mark(&two)));
        // An existing item corresponds to one item only, even if two items of the snapshot are alike.
        assert_eq!(find(&mut items, &three), Counterpart::None);
        items.add(&existing("98", "z", None));
        assert_eq!(find(&mut items, &three), Counterpart::Alike);
        assert_eq!(find(&mut items, &three), Counterpart::None);
    }

    #[test]
    fn a_restore_that_was_not_finished_is_recognised() {
        let one = entry("1", "a");
        let mut items = ExistingItems::new(RandomState::new(), &[]);
        items.add(&existing("5", "z", Some(Mark::of(&one, &keys()).text(false))));
        assert_eq!(find(&mut items, &one), Counterpart::Restored { complete: false });
    }

    #[test]
    fn what_stands_for_an_item_is_counted_and_what_is_there_is_known() {
        let twins = [entry("1", "a"), entry("2", "a")];
        let mut items = ExistingItems::new(RandomState::new(), &[]);
        // An item that is added twice counts once.
        (0..2).for_each(|_| items.add(&existing("9", "z", None)));
        assert_eq!((items.contains("9"), items.contains("8"), items.taken(Some(&likeness()))), (true, false, 0));
        assert_eq!(find(&mut items, &twins[0]), Counterpart::Alike);
        assert_eq!(items.taken(Some(&likeness())), 1);
        assert_eq!(find(&mut items, &twins[1]), Counterpart::None);
    }
}
