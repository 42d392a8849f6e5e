//! Entries of a directory, and the content they refer to.
//!
//! An entry is CBOR with integer keys in ascending order. A reader keeps fields that it does not know and writes them
//! again (docs/repository-format.md, "Entries"). A *hint* says where a chunk was written. In memory it is part of the
//! reference; in a node it is stored beside the entries. It is never part of an entry's bytes.

mod facts;
mod segment;
pub mod system;

pub use self::facts::{Facts, marks};
pub use self::segment::{ChunkRef, Content, NodeRef, Segment};
pub(crate) use self::segment::{RefMut, for_each_ref, read_segments, write_segments};
use self::system::{INLINE_BYTES_MAX, Link, Special, SystemFacts, read_attributes, write_attributes};
use crate::format::cbor::{CborError, Fields, MapWriter, Reader, Writer};
use crate::format::id::NodeId;

/// Maximum length of an entry name in bytes, as on Linux.
pub const NAME_LEN_MAX: usize = 255;

/// A point in time, with the precision of file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub secs: i64,
    /// Additional nanoseconds, less than a second.
    pub nanos: u32,
}

/// Totals over everything below a directory, or below a part of it. They are added up while trees are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Entries of this directory itself.
    pub entries: u64,
    /// Entries of this directory itself that are directories.
    pub dirs: u64,
    /// Entries at any depth: the number of entries that a preorder walk visits.
    pub items: u64,
    /// Entries at any depth that are not directories: files and symbolic links.
    pub files: u64,
    /// Total size in bytes, as presented, of files at any depth.
    pub bytes: u64,
}

impl Sums {
    /// Adds `other`. Returns `None` if a sum exceeds 64 bits.
    pub fn checked_add(self, other: Sums) -> Option<Sums> {
        Some(Sums {
            entries: self.entries.checked_add(other.entries)?,
            dirs: self.dirs.checked_add(other.dirs)?,
            items: self.items.checked_add(other.items)?,
            files: self.files.checked_add(other.files)?,
            bytes: self.bytes.checked_add(other.bytes)?,
        })
    }

    pub(crate) fn write(self, out: &mut Writer) {
        out.array(5).uint(self.entries).uint(self.dirs).uint(self.items).uint(self.files).uint(self.bytes);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        if reader.array()? != 5 {
            return Err(CborError::Unexpected { expected: "five sums" });
        }
        Ok(Sums {
            entries: reader.uint()?,
            dirs: reader.uint()?,
            items: reader.uint()?,
            files: reader.uint()?,
            bytes: reader.uint()?,
        })
    }
}

/// The tree of a directory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Directory {
    /// Its root node.
    pub root: NodeRef,
    /// Totals over everything in it.
    pub sums: Sums,
}

/// The kind of an entry, with its content.
#[derive(Debug, Clone, PartialEq)]
pub enum EntryKind {
    /// A file.
    File(Content),
    /// A directory.
    Directory(Directory),
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
}

/// Writes fields of later versions. Later versions only add keys above all known ones, so these come last.
fn write_unknown(unknown: &[(u64, Box<[u8]>)], map: &mut MapWriter) {
    for (key, value) in unknown {
        map.field(*key).raw(value);
    }
}

/// A name in a directory, and the item it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name: any bytes that Linux allows in a name.
    pub name: Box<[u8]>,
    /// The kind of the entry, with its content.
    pub kind: EntryKind,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// Permission bits (07777), if the source has permissions.
    pub mode: Option<u16>,
    /// User id and group id of the owner, if the source has owners.
    pub owner: Option<(u32, u32)>,
    /// Facts about the item, such as the subject of a mail.
    pub facts: Facts,
    /// The source's own description of the item. Restoring with full fidelity needs it.
    pub payload: Option<Content>,
    /// Further contents with their keys, which are in [`FURTHER_CONTENTS`]: a mail's text at [`TEXT`], the stream that
    /// the service exported at [`STREAM`], and contents that later versions wrote.
    pub contents: Vec<(u64, Content)>,
    /// Further facts from a file system, if there are any.
    pub system: Option<Box<SystemFacts>>,
    /// Fields that a later version wrote.
    pub unknown: Fields,
}

/// Keys of an entry whose values are contents, in every version. So a reader finds their references and hints even if
/// it does not know what a content is for.
pub const FURTHER_CONTENTS: std::ops::RangeInclusive<u64> = 16..=31;

/// The key of a mail's text ([`crate::content::text`]).
pub const TEXT: u64 = 16;

/// The key of the stream in which the service exports a whole item.
pub const STREAM: u64 = 17;

/// The key of extended attributes that are too long to be stored in the entry itself.
pub const ATTRIBUTES: u64 = 18;

/// The keys of [`SystemFacts`].
const INLINE_ATTRIBUTES: u64 = 32;
const SPECIAL: u64 = 33;
const LINK: u64 = 34;

/// Why an entry could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The entry is not the expected CBOR.
    #[error("the entry is malformed")]
    Cbor(#[from] CborError),
    /// The name is empty, too long, `.` or `..`, or contains `/` or a zero byte.
    #[error("the entry has an illegal name")]
    Name,
    /// A field is missing, or fields contradict each other.
    #[error("the entry is incomplete")]
    Incomplete,
}

/// Returns whether `name` is a legal name of one entry in a directory.
pub fn is_legal_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl Entry {
    /// Creates an entry that has only a name, a kind and a time.
    pub fn new(name: &[u8], kind: EntryKind, mtime: Timestamp) -> Self {
        Self {
            name: name.into(),
            kind,
            mtime,
            mode: None,
            owner: None,
            facts: Facts::default(),
            payload: None,
            contents: Vec::new(),
            system: None,
            unknown: Vec::new(),
        }
    }

    /// Returns what the entry adds to the totals of its directory.
    pub fn sums(&self) -> Sums {
        match &self.kind {
            EntryKind::File(content) => Sums { entries: 1, dirs: 0, items: 1, files: 1, bytes: content.len() },
            EntryKind::Symlink(_) => Sums { entries: 1, dirs: 0, items: 1, files: 1, bytes: 0 },
            EntryKind::Directory(dir) => {
                let Sums { items, files, bytes, .. } = dir.sums;
                Sums { entries: 1, dirs: 1, items: items.saturating_add(1), files, bytes }
            }
        }
    }

    /// Returns the size in bytes that a file system shows for the entry.
    pub fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::File(content) => content.len(),
            EntryKind::Symlink(target) => target.len() as u64,
            EntryKind::Directory(dir) => dir.sums.entries,
        }
    }

    /// Returns the directory's tree, if the entry is a directory.
    pub fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            EntryKind::Directory(dir) => Some(dir),
            _ => None,
        }
    }

    /// Returns the file's content, if the entry is a file.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            EntryKind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Returns the readable text of a mail, if it was stored.
    pub fn text(&self) -> Option<&Content> {
        self.further(TEXT)
    }

    /// Sets the readable text of a mail.
    pub fn set_text(&mut self, text: Option<Content>) {
        self.set_further(TEXT, text);
    }

    /// Returns the stream in which the service exported this version of the item, if it was stored.
    pub fn stream(&self) -> Option<&Content> {
        self.further(STREAM)
    }

    /// Sets the exported stream.
    pub fn set_stream(&mut self, stream: Option<Content>) {
        self.set_further(STREAM, stream);
    }

    /// Returns the content that holds the extended attributes, if they are not stored in the entry itself.
    pub fn attributes_content(&self) -> Option<&Content> {
        self.further(ATTRIBUTES)
    }

    /// Sets the content that holds the extended attributes.
    pub fn set_attributes_content(&mut self, attributes: Option<Content>) {
        self.set_further(ATTRIBUTES, attributes);
    }

    /// Returns the kind of special file, if the entry is one.
    pub fn special(&self) -> Option<Special> {
        self.system.as_ref().and_then(|system| system.special)
    }

    /// Returns the identity that all names of a hard-linked file share, if the file has several names.
    pub fn link(&self) -> Option<Link> {
        self.system.as_ref().and_then(|system| system.link)
    }

    /// Sets the facts from a file system.
    pub fn set_system(&mut self, system: SystemFacts) {
        self.system = (!system.is_empty()).then(|| Box::new(system));
    }

    fn further(&self, wanted: u64) -> Option<&Content> {
        self.contents.iter().find_map(|(key, content)| (*key == wanted).then_some(content))
    }

    fn set_further(&mut self, key: u64, content: Option<Content>) {
        self.contents.retain(|(other, _)| *other != key);
        // Insert at the place that keeps the keys ascending.
        let at = self.contents.partition_point(|(other, _)| *other < key);
        self.contents.splice(at..at, content.map(|content| (key, content)));
    }

    /// Returns all contents: the file's own content, the payload, and the further contents.
    pub fn all_contents(&self) -> impl Iterator<Item = &Content> {
        let further = self.contents.iter().map(|(_, content)| content);
        self.content().into_iter().chain(&self.payload).chain(further)
    }

    /// Writes the entry's canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        let mut map = MapWriter::default();
        map.field(1).bytes(&self.name);
        map.field(2).uint(match self.kind {
            EntryKind::File(_) => 0,
            EntryKind::Directory(_) => 1,
            EntryKind::Symlink(_) => 2,
        });
        map.field(3).int(self.mtime.secs);
        if self.mtime.nanos != 0 {
            map.field(4).uint(u64::from(self.mtime.nanos));
        }
        if let Some(mode) = self.mode {
            map.field(5).uint(u64::from(mode));
        }
        if let Some((uid, gid)) = self.owner {
            map.field(6).uint(u64::from(uid));
            map.field(7).uint(u64::from(gid));
        }
        match &self.kind {
            EntryKind::File(content) => write_segments(&content.segments, map.field(8)),
            EntryKind::Directory(dir) => dir.sums.write(map.field(9).array(2).bytes(dir.root.id.as_bytes())),
            EntryKind::Symlink(target) => {
                map.field(10).bytes(target);
            }
        }
        if !self.facts.is_empty() {
            self.facts.write(map.field(11));
        }
        if let Some(payload) = &self.payload {
            write_segments(&payload.segments, map.field(12));
        }
        let (below, above) = self.unknown.split_at(self.unknown.partition_point(|(key, _)| *key < 16));
        write_unknown(below, &mut map);
        for (key, content) in &self.contents {
            write_segments(&content.segments, map.field(*key));
        }
        if let Some(system) = &self.system {
            if !system.attributes.is_empty() {
                write_attributes(&system.attributes, map.field(INLINE_ATTRIBUTES));
            }
            if let Some(special) = system.special {
                special.write(map.field(SPECIAL));
            }
            if let Some(link) = system.link {
                link.write(map.field(LINK));
            }
        }
        write_unknown(above, &mut map);
        map.finish(out);
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// See [`EntryError`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, EntryError> {
        let mut entry = Entry::new(b"", EntryKind::Symlink(Box::default()), Timestamp::default());
        let (mut kind, mut uid, mut gid) = (None, None, None);
        let (mut content, mut dir, mut target) = (None, None, None);
        let mut system = SystemFacts::default();
        entry.unknown = reader.fields(|key, value| {
            match key {
                1 => entry.name = value.bytes()?.into(),
                2 => kind = Some(value.uint()?),
                3 => entry.mtime.secs = value.int()?,
                4 => entry.mtime.nanos = value.uint_as()?,
                5 => entry.mode = Some(value.uint_as()?),
                6 => uid = Some(value.uint_as()?),
                7 => gid = Some(value.uint_as()?),
                8 => content = Some(Content { segments: read_segments(value)? }),
                9 => {
                    if value.array()? != 2 {
                        return Err(CborError::Unexpected { expected: "a tree" });
                    }
                    let root = NodeRef { id: NodeId(value.array_of()?), hint: None };
                    dir = Some(Directory { root, sums: Sums::read(value)? });
                }
                10 => target = Some(value.bytes()?.into()),
                11 => entry.facts = Facts::read(value)?,
                12 => entry.payload = Some(Content { segments: read_segments(value)? }),
                key if FURTHER_CONTENTS.contains(&key) => {
                    entry.contents.push((key, Content { segments: read_segments(value)? }));
                }
                INLINE_ATTRIBUTES => system.attributes = read_attributes(value, INLINE_BYTES_MAX)?,
                SPECIAL => system.special = Some(Special::read(value)?),
                LINK => system.link = Some(Link::read(value)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        entry.kind = match (kind, content, dir, target) {
            (Some(0), Some(content), None, None) => EntryKind::File(content),
            (Some(1), None, Some(dir), None) => EntryKind::Directory(dir),
            (Some(2), None, None, Some(target)) => EntryKind::Symlink(target),
            _ => return Err(EntryError::Incomplete),
        };
        if uid.is_some() != gid.is_some() {
            return Err(EntryError::Incomplete);
        }
        entry.owner = uid.zip(gid);
        // A special file must look like an empty file to programs that do not know special files.
        if system.special.is_some() && entry.content().is_none_or(|content| !content.is_empty()) {
            return Err(EntryError::Incomplete);
        }
        entry.set_system(system);
        if entry.mtime.nanos >= 1_000_000_000 || entry.mode.is_some_and(|mode| mode > 0o7777) {
            return Err(CborError::Range.into());
        }
        if is_legal_name(&entry.name) { Ok(entry) } else { Err(EntryError::Name) }
    }

    /// Returns the entry's canonical bytes. Two entries are equal if their canonical bytes are.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.into_bytes()
    }

    /// Calls `each` for every reference to a chunk or node, in the order in which hints are stored.
    pub(crate) fn for_each_ref<E>(&mut self, each: &mut impl FnMut(RefMut<'_>) -> Result<(), E>) -> Result<(), E> {
        match &mut self.kind {
            EntryKind::File(content) => for_each_ref(&mut content.segments, each)?,
            EntryKind::Directory(dir) => each(RefMut::Node(&mut dir.root))?,
            EntryKind::Symlink(_) => {}
        }
        let contents = self.contents.iter_mut().map(|(_, content)| content);
        self.payload.iter_mut().chain(contents).try_for_each(|content| for_each_ref(&mut content.segments, each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::id::ChunkId;

    #[test]
    fn further_contents_stand_in_the_order_of_their_keys_whichever_was_set_first() {
        let content =
            |len| Content { segments: vec![Segment::Raw(vec![ChunkRef { id: ChunkId([7; 32]), len, hint: None }])] };
        let mut entry = Entry::new(b"a.eml", EntryKind::File(Content::default()), Timestamp::default());
        entry.contents = vec![(20, content(20))];
        entry.set_stream(Some(content(17)));
        entry.set_text(Some(content(16)));
        assert_eq!(entry.contents.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [16, 17, 20]);
        assert_eq!((entry.text().map(Content::len), entry.stream().map(Content::len)), (Some(16), Some(17)));
        assert_eq!(Entry::read(&mut Reader::new(&entry.encode())), Ok(entry.clone()));
        entry.set_stream(None);
        assert_eq!((entry.stream(), entry.contents.len()), (None, 2));
    }
}
