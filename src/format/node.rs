//! Metadata nodes: the pieces in which trees and long content lists are stored.
//!
//! A node is stored as `canonical length (4) | canonical bytes | hints`. Its id is the keyed hash of the canonical
//! bytes alone. The hints say where each reference in the canonical bytes was written, in the same order. Two copies of
//! a node may have different hints. So equal directories stay equal when their packs are rewritten, and a walk through
//! a snapshot needs no index. docs/repository-format.md, "Nodes" and "Hints".

use crate::format::cbor::{CborError, Reader, Writer};
use crate::format::entry::{self, ChunkRef, Entry, EntryError, NodeRef, RefMut, Segment, Sums};
use crate::format::id::{BlobId, NodeId, PackId};
use crate::format::pack::{BlockLocation, Location};

const LEAF: u64 = 0;
const INNER: u64 = 1;
const LIST: u64 = 2;

/// Maximum level of an inner node. Levels start at 1; a tree of a billion entries needs five.
pub const LEVEL_MAX: u8 = 30;

/// Why a node with the right id could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The node is not the expected CBOR.
    #[error("the node is malformed")]
    Cbor(#[from] CborError),
    /// One of its entries is invalid.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Its records are not in ascending order, or it has no records but needs some.
    #[error("the node is out of order")]
    Order,
    /// Its hints do not match its references.
    #[error("the hints are malformed")]
    Hints,
}

/// A child as its parent lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// The greatest name below the child.
    pub last: Box<[u8]>,
    /// The reference to the child.
    pub node: NodeRef,
    /// Totals over everything below the child.
    pub sums: Sums,
}

impl Child {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.array(3).bytes(&self.last).bytes(self.node.id.as_bytes());
        self.sums.write(out);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        if reader.array()? != 3 {
            return Err(CborError::Unexpected { expected: "a child" });
        }
        let last = reader.bytes()?.into();
        let node = NodeRef { id: NodeId(reader.array_of()?), hint: None };
        Ok(Child { last, node, sums: Sums::read(reader)? })
    }
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Entries of a directory, in ascending order of their names.
    Leaf(Vec<Entry>),
    /// Children one level below, in order.
    Inner {
        /// Distance to the leaves.
        level: u8,
        /// The children.
        children: Vec<Child>,
    },
    /// Segments of a content that is too long for its entry.
    List(Vec<Segment>),
}

/// A decoded node.
#[derive(Debug, Clone)]
pub struct Node {
    /// The content of the node.
    pub kind: NodeKind,
    /// For each record the totals over the records before it, and at the end the totals over all records. Empty for
    /// lists.
    before: Vec<Sums>,
    /// Length in bytes of the canonical bytes, for the caches.
    len: usize,
}

impl Node {
    /// Decodes canonical bytes.
    ///
    /// # Errors
    /// See [`NodeError`]: names must ascend, levels must be in range, sums must not overflow.
    pub fn decode(canonical: &[u8]) -> Result<Self, NodeError> {
        let mut reader = Reader::new(canonical);
        let kind = match (reader.array()?, reader.uint()?) {
            (2, LEAF) => {
                let count = reader.array()?;
                let mut entries: Vec<_> = (0..count).map(|_| Entry::read(&mut reader)).collect::<Result<_, _>>()?;
                entries.shrink_to_fit();
                NodeKind::Leaf(entries)
            }
            (3, INNER) => {
                let level = reader.uint_as()?;
                let count = reader.array()?;
                if !(1..=LEVEL_MAX).contains(&level) || count == 0 {
                    return Err(NodeError::Order);
                }
                let children = (0..count).map(|_| Child::read(&mut reader)).collect::<Result<_, _>>()?;
                NodeKind::Inner { level, children }
            }
            (2, LIST) => NodeKind::List(entry::read_segments(&mut reader)?),
            _ => return Err(CborError::Unexpected { expected: "a node" }.into()),
        };
        if !reader.is_empty() {
            return Err(CborError::Unexpected { expected: "the end of the node" }.into());
        }
        let before = match &kind {
            NodeKind::Leaf(entries) => {
                check_order(entries.iter().map(|entry| &*entry.name))?;
                running_sums(entries.iter().map(Entry::sums))?
            }
            NodeKind::Inner { children, .. } => {
                check_order(children.iter().map(|child| &*child.last))?;
                running_sums(children.iter().map(|child| child.sums))?
            }
            NodeKind::List(_) => Vec::new(),
        };
        Ok(Node { kind, before, len: canonical.len() })
    }

    /// Decodes a stored node with its hints. `at` is the block that holds the node.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn decode_stored(stored: &[u8], at: BlockLocation) -> Result<Self, NodeError> {
        let (canonical, hints) = split_stored(stored).ok_or(NodeError::Hints)?;
        let mut node = Self::decode(canonical)?;
        let filled =
            HintReader::new(hints, at).and_then(|mut hints| node.for_each_ref(&mut |reference| hints.fill(reference)));
        // Hints are optional: if they are malformed, readers ask the index.
        if filled.is_err() {
            let Ok(()) = node.for_each_ref(&mut |reference| {
                match reference {
                    RefMut::Chunk(chunk) => chunk.hint = None,
                    RefMut::Node(node) => node.hint = None,
                }
                Ok::<_, std::convert::Infallible>(())
            });
        }
        Ok(node)
    }

    /// Returns the totals over everything below the node.
    pub fn sums(&self) -> Sums {
        self.before.last().copied().unwrap_or_default()
    }

    /// Returns the totals over the records before the one at `position`.
    pub fn sums_before(&self, position: usize) -> Sums {
        self.before[position]
    }

    /// Returns the position of the first record for which `reached` is true. `reached` gets the totals up to and
    /// including that record.
    pub(crate) fn position_by(&self, reached: impl Fn(&Sums) -> bool) -> usize {
        self.before.get(1..).unwrap_or_default().partition_point(|sums| !reached(sums))
    }

    /// Returns roughly how many bytes of memory the node occupies.
    pub fn memory_len(&self) -> usize {
        3 * self.len + self.before.len() * size_of::<Sums>() + size_of::<Self>()
    }

    /// Calls `each` for every reference, in the order in which hints are stored.
    pub(crate) fn for_each_ref<E>(&mut self, each: &mut impl FnMut(RefMut<'_>) -> Result<(), E>) -> Result<(), E> {
        match &mut self.kind {
            NodeKind::Leaf(entries) => entries.iter_mut().try_for_each(|entry| entry.for_each_ref(each)),
            NodeKind::Inner { children, .. } => {
                children.iter_mut().try_for_each(|child| each(RefMut::Node(&mut child.node)))
            }
            NodeKind::List(segments) => entry::for_each_ref(segments, each),
        }
    }
}

fn check_order<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> Result<(), NodeError> {
    let Some(mut last) = names.next() else { return Ok(()) };
    for name in names {
        if name <= last {
            return Err(NodeError::Order);
        }
        last = name;
    }
    Ok(())
}

fn running_sums(records: impl ExactSizeIterator<Item = Sums>) -> Result<Vec<Sums>, NodeError> {
    let mut before = Vec::with_capacity(records.len() + 1);
    let mut sum = Sums::default();
    before.push(sum);
    for record in records {
        sum = sum.checked_add(record).ok_or(CborError::Range)?;
        before.push(sum);
    }
    Ok(before)
}

/// Encodes the canonical bytes of a leaf from `count` encoded entries.
pub(crate) fn leaf(count: usize, entries: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(2).uint(LEAF).array(count).raw(entries);
    out.into_bytes()
}

/// Encodes the canonical bytes of an inner node from `count` encoded children.
pub(crate) fn inner(level: u8, count: usize, children: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(3).uint(INNER).uint(u64::from(level)).array(count).raw(children);
    out.into_bytes()
}

/// Encodes the canonical bytes of a content list.
pub fn list(segments: &[Segment]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(2).uint(LIST);
    entry::write_segments(segments, &mut out);
    out.into_bytes()
}

/// A reference whose location is looked up when the node that contains it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobRef {
    /// To a chunk of content.
    Chunk(BlobId),
    /// To another node.
    Node(BlobId),
}

impl BlobRef {
    /// Returns the id of the chunk or node.
    pub fn id(self) -> BlobId {
        match self {
            BlobRef::Chunk(id) | BlobRef::Node(id) => id,
        }
    }
}

/// A node that waits to be stored.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Its id.
    pub id: NodeId,
    /// Its canonical bytes.
    pub canonical: Vec<u8>,
    /// The references in it, in the order in which hints are stored.
    pub refs: Vec<BlobRef>,
}

/// Location of a referenced blob, relative to the node that is being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobLocation {
    /// The location is unknown; readers ask the index.
    Unknown,
    /// In the same block as the node itself.
    OwnBlock {
        /// Offset in the plaintext of the block, in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
    },
    /// In an earlier block of the same pack. The id of that pack is not known yet.
    OwnPack {
        /// Offset of the block in the pack, in bytes.
        block_offset: u32,
        /// Sealed length of the block in bytes.
        block_len: u32,
        /// Offset in the plaintext of the block, in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
    },
    /// In a pack that is already stored.
    Stored(Location),
}

mod tag {
    pub const UNKNOWN: u64 = 0;
    /// Directly after the previous reference.
    pub const NEXT: u64 = 1;
    /// In the same block as the previous reference. The offset follows.
    pub const SAME_BLOCK: u64 = 2;
    /// In the node's own block. The offset follows.
    pub const OWN_BLOCK: u64 = 3;
    /// In the node's own pack. Block offset, block length and offset follow.
    pub const OWN_PACK: u64 = 4;
    /// In another pack: the tag is this number plus the pack's position in the table. Block offset, block length and
    /// offset follow.
    pub const PACKS: u64 = 5;
}

/// Encodes a node as it is stored. `places` are the locations of its references, in order.
pub fn encode_stored(node: &NewNode, places: &[BlobLocation]) -> Vec<u8> {
    let mut packs: Vec<PackId> = Vec::new();
    let mut tail = Vec::new();
    let mut previous: Option<(BlobLocation, u32)> = None;
    for (reference, place) in node.refs.iter().zip(places) {
        let (block, offset, len) = match *place {
            BlobLocation::Unknown => {
                varint(tag::UNKNOWN, &mut tail);
                continue;
            }
            BlobLocation::OwnBlock { offset, len } => (BlobLocation::OwnBlock { offset: 0, len: 0 }, offset, len),
            BlobLocation::OwnPack { block_offset, block_len, offset, len } => {
                (BlobLocation::OwnPack { block_offset, block_len, offset: 0, len: 0 }, offset, len)
            }
            BlobLocation::Stored(Location { block, offset, len }) => {
                (BlobLocation::Stored(Location { block, offset: 0, len: 0 }), offset, len)
            }
        };
        match (previous, block) {
            (Some((same, end)), _) if same == block && end == offset => varint(tag::NEXT, &mut tail),
            (Some((same, _)), _) if same == block => varints(&[tag::SAME_BLOCK, offset.into()], &mut tail),
            (_, BlobLocation::OwnBlock { .. }) => varints(&[tag::OWN_BLOCK, offset.into()], &mut tail),
            (_, BlobLocation::OwnPack { block_offset, block_len, .. }) => {
                varints(&[tag::OWN_PACK, block_offset.into(), block_len.into(), offset.into()], &mut tail);
            }
            (_, BlobLocation::Stored(Location { block, .. })) => {
                let number = packs.iter().position(|pack| *pack == block.pack).unwrap_or_else(|| {
                    packs.push(block.pack);
                    packs.len() - 1
                });
                let numbers = [tag::PACKS + number as u64, block.offset.into(), block.len.into(), offset.into()];
                varints(&numbers, &mut tail);
            }
            (_, BlobLocation::Unknown) => unreachable!("handled above"),
        }
        if matches!(reference, BlobRef::Node(_)) {
            varint(len.into(), &mut tail);
        }
        previous = Some((block, offset + len));
    }
    let mut stored = Vec::with_capacity(4 + node.canonical.len() + 1 + packs.len() * PackId::LEN + tail.len());
    stored.extend((node.canonical.len() as u32).to_le_bytes());
    stored.extend_from_slice(&node.canonical);
    varint(packs.len() as u64, &mut stored);
    packs.iter().for_each(|pack| stored.extend_from_slice(pack.as_bytes()));
    stored.extend(tail);
    stored
}

/// Splits a stored node into its canonical bytes and its hints.
pub(crate) fn split_stored(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = stored.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

/// Reads the hints and sets them in the references, in order.
struct HintReader<'a> {
    rest: &'a [u8],
    at: BlockLocation,
    packs: Vec<PackId>,
    previous: Option<Location>,
}

impl<'a> HintReader<'a> {
    fn new(hints: &'a [u8], at: BlockLocation) -> Result<Self, NodeError> {
        let mut reader = Self { rest: hints, at, packs: Vec::new(), previous: None };
        let count = usize::try_from(reader.varint()?).map_err(|_| NodeError::Hints)?;
        let len = count.checked_mul(PackId::LEN).ok_or(NodeError::Hints)?;
        let (packs, rest) = reader.rest.split_at_checked(len).ok_or(NodeError::Hints)?;
        reader.packs = packs.chunks_exact(PackId::LEN).filter_map(PackId::from_slice).collect();
        reader.rest = rest;
        Ok(reader)
    }

    fn varint(&mut self) -> Result<u64, NodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(NodeError::Hints)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(NodeError::Hints)
    }

    fn word(&mut self) -> Result<u32, NodeError> {
        u32::try_from(self.varint()?).map_err(|_| NodeError::Hints)
    }

    fn fill(&mut self, reference: RefMut<'_>) -> Result<(), NodeError> {
        let Some((block, offset)) = self.place()? else { return Ok(()) };
        let (slot, len) = match reference {
            RefMut::Chunk(ChunkRef { len, hint, .. }) => (hint, *len),
            RefMut::Node(NodeRef { hint, .. }) => (hint, self.word()?),
        };
        offset.checked_add(len).ok_or(NodeError::Hints)?;
        let location = Location { block, offset, len };
        self.previous = Some(location);
        *slot = Some(location);
        Ok(())
    }

    fn place(&mut self) -> Result<Option<(BlockLocation, u32)>, NodeError> {
        let tag = self.varint()?;
        let block = match tag {
            tag::UNKNOWN => return Ok(None),
            tag::NEXT | tag::SAME_BLOCK => {
                let previous = self.previous.ok_or(NodeError::Hints)?;
                if tag == tag::NEXT {
                    return Ok(Some((previous.block, previous.offset + previous.len)));
                }
                previous.block
            }
            tag::OWN_BLOCK => self.at,
            tag::OWN_PACK => BlockLocation { pack: self.at.pack, offset: self.word()?, len: self.word()? },
            _ => {
                let number = usize::try_from(tag - tag::PACKS).map_err(|_| NodeError::Hints)?;
                let pack = *self.packs.get(number).ok_or(NodeError::Hints)?;
                BlockLocation { pack, offset: self.word()?, len: self.word()? }
            }
        };
        Ok(Some((block, self.word()?)))
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varints(values: &[u64], out: &mut Vec<u8>) {
    values.iter().for_each(|value| varint(*value, out));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Content, EntryKind, Timestamp};
    use crate::format::id::ChunkId;
    use proptest::prelude::*;

    fn places() -> impl Strategy<Value = Vec<(BlobLocation, bool)>> {
        let small = || 0u32..4;
        let stored = (0u8..3, small(), small(), small(), small()).prop_map(|(pack, offset, block_len, at, len)| {
            let block = BlockLocation { pack: PackId([pack; 32]), offset, len: block_len };
            BlobLocation::Stored(Location { block, offset: at, len })
        });
        let place = prop_oneof![
            Just(BlobLocation::Unknown),
            (small(), small()).prop_map(|(offset, len)| BlobLocation::OwnBlock { offset, len }),
            (small(), small(), small(), small()).prop_map(|(block_offset, block_len, offset, len)| {
                BlobLocation::OwnPack { block_offset, block_len, offset, len }
            }),
            stored,
        ];
        proptest::collection::vec((place, any::<bool>()), 0..20)
    }

    fn len_of(place: BlobLocation) -> u32 {
        match place {
            BlobLocation::Unknown => 7,
            BlobLocation::OwnBlock { len, .. }
            | BlobLocation::OwnPack { len, .. }
            | BlobLocation::Stored(Location { len, .. }) => len,
        }
    }

    proptest! {
        #[test]
        fn hints_come_back_as_they_were_given(places in places()) {
            let segments: Vec<_> = places.iter().enumerate().map(|(number, (place, is_node))| match is_node {
                true => Segment::List { len: 1, node: NodeRef { id: NodeId([number as u8; 32]), hint: None } },
                false => {
                    let id = ChunkId([number as u8; 32]);
                    Segment::Raw(vec![ChunkRef { id, len: len_of(*place), hint: None }])
                }
            }).collect();
            let refs = places.iter().enumerate().map(|(number, (_, is_node))| {
                let id = BlobId([number as u8; 32]);
                if *is_node { BlobRef::Node(id) } else { BlobRef::Chunk(id) }
            }).collect();
            let node = NewNode { id: NodeId([0; 32]), canonical: list(&segments), refs };
            let stored = encode_stored(&node, &places.iter().map(|(place, _)| *place).collect::<Vec<_>>());
            let own = BlockLocation { pack: PackId([99; 32]), offset: 1000, len: 2000 };
            let mut decoded = Node::decode_stored(&stored, own).unwrap();
            let mut hints = Vec::new();
            decoded.for_each_ref(&mut |reference| {
                hints.push(match reference { RefMut::Chunk(chunk) => chunk.hint, RefMut::Node(node) => node.hint });
                Ok::<_, NodeError>(())
            }).unwrap();
            let expected: Vec<_> = places.iter().map(|(place, _)| match *place {
                BlobLocation::Unknown => None,
                BlobLocation::OwnBlock { offset, len } => Some(Location { block: own, offset, len }),
                BlobLocation::OwnPack { block_offset, block_len, offset, len } => {
                    let block = BlockLocation { pack: own.pack, offset: block_offset, len: block_len };
                    Some(Location { block, offset, len })
                }
                BlobLocation::Stored(location) => Some(location),
            }).collect();
            prop_assert_eq!(hints, expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, at in 0usize..300, value: u8) {
            let own = BlockLocation { pack: PackId([0; 32]), offset: 0, len: 0 };
            let _ = Node::decode_stored(&bytes, own);
            let _ = Node::decode(&bytes);
            let mut entry = Entry::new(b"name", EntryKind::File(Content { segments: vec![Segment::Raw(vec![
                ChunkRef { id: ChunkId([1; 32]), len: 5, hint: None }; 3])] }), Timestamp { secs: -5, nanos: 3 });
            entry.facts.subject = Some("subject".into());
            let mut damaged = leaf(1, &entry.encode());
            prop_assert_eq!(&Node::decode(&damaged).unwrap().kind, &NodeKind::Leaf(vec![entry]));
            let at = at % damaged.len();
            damaged[at] = value;
            let _ = Node::decode(&damaged);
        }
    }
}
