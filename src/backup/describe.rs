//! Fills an entry with everything but its content: name, times, owner, and other facts of the file system.

use crate::backup::splitter::Splitter;
use crate::format::cbor::Writer;
use crate::format::entry::system::{INLINE_BYTES_MAX, Link, Special, SystemFacts, attributes_len, write_attributes};
use crate::format::entry::{Entry, EntryKind};
use crate::repository::store::StoreError;
use crate::source::Meta;
use parking_lot::Mutex;

/// Returns an entry with the facts that every item has.
pub(super) fn entry_of(meta: &Meta, kind: EntryKind) -> Entry {
    let mut entry = Entry::new(&meta.name, kind, meta.mtime);
    entry.mode = meta.mode;
    entry.owner = meta.owner;
    entry
}

/// Returns the kind of a folder's entry until its tree is made.
pub(super) fn unknown_folder() -> EntryKind {
    EntryKind::Symlink(Box::default())
}

/// Adds the facts that only some items have. Attributes that are too long for an entry are stored as a content of their
/// own.
pub(super) fn describe(
    entry: &mut Entry,
    meta: Meta,
    special: Option<Special>,
    splitter: &mut Splitter,
) -> Result<(), StoreError> {
    let Meta { attributes, link, .. } = meta;
    let mut system = SystemFacts { attributes, special, link };
    if attributes_len(&system.attributes) > INLINE_BYTES_MAX {
        let mut bytes = Writer::new();
        write_attributes(&std::mem::take(&mut system.attributes), &mut bytes);
        entry.set_attributes_content(Some(splitter.split_payload(&bytes.into_bytes())?));
    }
    entry.set_system(system);
    Ok(())
}

/// Returns the key under which a file with several names is remembered. No path equals it, because it begins with a
/// zero byte.
pub(super) fn link_key(link: Link) -> Vec<u8> {
    [&[0][..], &link.file_system.to_le_bytes(), &link.inode.to_le_bytes()].concat()
}

/// The number of items whose attributes could not all be read, and the first of them.
#[derive(Default)]
pub(super) struct Lost(Mutex<(u64, Option<String>)>);

impl Lost {
    /// Counts `path` if attributes are missing in `meta`. Returns whether they are.
    pub(super) fn note(&self, meta: &Meta, path: &[u8]) -> bool {
        let Some(error) = &meta.attributes_lost else { return false };
        let mut lost = self.0.lock();
        lost.0 += 1;
        lost.1.get_or_insert_with(|| format!("{}: {error}", String::from_utf8_lossy(path)));
        true
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        let (count, first) = self.0.into_inner();
        let warning = |first| format!("extended attributes of {count} items could not be read, the first of {first}");
        first.map(warning).into_iter().collect()
    }
}
