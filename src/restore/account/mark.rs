//! The mark that a restored item bears in the mailbox, by which later restores find it again.

use super::journal::Key;
use crate::format::crypto::Keys;
use crate::format::entry::Entry;

/// Separates the item from its version.
const VERSION_AT: char = '.';
/// The last character of the mark of an item that is not complete yet.
const INCOMPLETE: char = '+';

/// Says which item of the repository a restored item is, and which version of it. It is a keyed hash, so it means
/// nothing to anybody who does not have the key of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// The item, in hexadecimal.
    pub item: String,
    /// The version of the item.
    pub version: u32,
}

/// A mark that was found in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedMark<'a> {
    pub item: &'a str,
    pub version: u32,
    /// False if the restore that set the mark was not finished with the item.
    pub complete: bool,
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

    /// Returns the text that is stored in the mailbox.
    pub fn text(&self, complete: bool) -> String {
        let end = if complete { "" } else { "+" };
        format!("{}{VERSION_AT}{:08x}{end}", self.item, self.version)
    }

    /// Returns the key of the item in `folder` in the journal.
    pub fn key(&self, folder: &str) -> Key {
        let hash = blake3::hash([self.text(true).as_bytes(), b"\0", folder.as_bytes()].concat().as_slice());
        *hash.as_bytes().first_chunk().expect("a hash has sixteen bytes")
    }

    /// Parses the text of a mark. Returns `None` if a restore did not write it.
    pub fn parse(text: &str) -> Option<ParsedMark<'_>> {
        let complete = !text.ends_with(INCOMPLETE);
        let (item, version) = text.trim_end_matches(INCOMPLETE).split_once(VERSION_AT)?;
        Some(ParsedMark { item, version: u32::from_str_radix(version, 16).ok()?, complete })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};
    use crate::format::entry::{Content, EntryKind, Timestamp};

    #[test]
    fn marks_say_nothing_without_the_key_and_tell_whether_all_is_there() {
        let keys = |byte| Keys::derive(&MasterKey::from_bytes([byte; 32]), Cipher::ALL[0]);
        let kind = EntryKind::File(Content::default());
        let mut entry = Entry::new(b"a.eml", kind, Timestamp { secs: 0, nanos: 0 });
        entry.facts.source_id = Some("1".to_owned());
        entry.facts.change_key = Some("a".to_owned());
        let mark = Mark::of(&entry, &keys(7));
        assert_ne!(mark, Mark::of(&entry, &keys(8)));
        let parsed = |complete| ParsedMark { item: mark.item.as_str(), version: mark.version, complete };
        assert_eq!(Mark::parse(&mark.text(false)), Some(parsed(false)));
        assert_eq!(Mark::parse(&mark.text(true)), Some(parsed(true)));
        assert_eq!(Mark::parse("somebody else's"), None);
    }
}
