//! The bytes of a file: segments, and the chunks and nodes that they refer to.
//!
//! docs/repository-format.md, "Content".

use crate::content::mime::Base64Form;
use crate::format::cbor::{CborError, Reader, Writer};
use crate::format::id::{ChunkId, NodeId};
use crate::format::pack::{BlockLocation, Location};

/// A reference to a content chunk.
#[derive(Debug, Clone, Copy)]
pub struct ChunkRef {
    /// The chunk.
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
    /// Where the chunk was when the reference was stored.
    pub hint: Option<Location>,
}

impl PartialEq for ChunkRef {
    /// Ignores the hint: two references to the same chunk are equal.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.len == other.len
    }
}

/// A reference to a metadata node.
#[derive(Debug, Clone, Copy)]
pub struct NodeRef {
    /// The node.
    pub id: NodeId,
    /// Where the node was when the reference was stored.
    pub hint: Option<Location>,
}

impl PartialEq for NodeRef {
    /// Ignores the hint: two references to the same node are equal.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// A piece of content.
#[derive(Debug, Clone, PartialEq)]
pub enum Segment {
    /// The bytes of the chunks, as they are.
    Raw(Vec<ChunkRef>),
    /// The bytes of the chunks, encoded as base64.
    Base64 {
        /// The layout of the base64 text.
        form: Base64Form,
        /// Length in bytes of all chunks together.
        decoded_len: u64,
        /// The chunks of the decoded bytes.
        chunks: Vec<ChunkRef>,
    },
    /// Segments stored in a node of their own, for content with too many chunks for its entry.
    List {
        /// Length in bytes of the content that these segments produce.
        len: u64,
        /// The node that lists the segments.
        node: NodeRef,
    },
    /// The bytes that segments stand for, encoded as base64.
    Base64Of {
        /// The layout of the base64 text.
        form: Base64Form,
        /// Length in bytes of all segments together.
        decoded_len: u64,
        /// The segments of the decoded bytes.
        segments: Vec<Segment>,
    },
    /// An archive that was taken apart: what its deflate streams hold, and how to make the archive of it again
    /// ([`crate::format::recipe`]).
    Deflated {
        /// Length in bytes of the archive.
        len: u64,
        /// Length in bytes of the recipe, which the material begins with.
        recipe_len: u32,
        /// The recipe, and all that it uses.
        material: Vec<Segment>,
    },
}

/// Where a segment stands. Decides which kinds of segments are allowed there, so that segments nest at most twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Content,
    Base64,
    Material,
}

/// Maximum length in bytes of what a base64 text encodes, if it consists of segments. The length of the text then fits
/// 64 bits, whatever its lines look like.
const DECODED_LEN_MAX: u64 = 1 << 48;

fn chunks_len(chunks: &[ChunkRef]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
}

impl Segment {
    /// Returns the length in bytes of the content that the segment produces.
    pub fn len(&self) -> u64 {
        match self {
            Segment::Raw(chunks) => chunks_len(chunks),
            Segment::Base64 { form, decoded_len, .. } => form.encoded_len(*decoded_len),
            Segment::Base64Of { form, decoded_len, .. } => form.encoded_len(*decoded_len),
            Segment::List { len, .. } | Segment::Deflated { len, .. } => *len,
        }
    }

    /// Returns whether the segment produces no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Segment::Raw(chunks) => {
                out.array(2).uint(0);
                write_chunks(chunks, out);
            }
            Segment::Base64 { form, chunks, .. } => {
                out.array(4).uint(1).uint(u64::from(form.line_len)).uint(flags_of(*form));
                write_chunks(chunks, out);
            }
            Segment::List { len, node } => {
                out.array(3).uint(2).uint(*len).bytes(node.id.as_bytes());
            }
            Segment::Deflated { len, recipe_len, material } => {
                out.array(4).uint(3).uint(*len).uint(u64::from(*recipe_len));
                write_segments(material, out);
            }
            Segment::Base64Of { form, segments, .. } => {
                out.array(4).uint(4).uint(u64::from(form.line_len)).uint(flags_of(*form));
                write_segments(segments, out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, within: Within) -> Result<Self, CborError> {
        let len = reader.array()?;
        match (reader.uint()?, len) {
            (0, 2) => Ok(Segment::Raw(read_chunks(reader)?)),
            (1, 4) if within == Within::Content => {
                let form = read_form(reader)?;
                let chunks = read_chunks(reader)?;
                Ok(Segment::Base64 { form, decoded_len: chunks_len(&chunks), chunks })
            }
            (2, 3) => {
                Ok(Segment::List { len: reader.uint()?, node: NodeRef { id: NodeId(reader.array_of()?), hint: None } })
            }
            (3, 4) if within != Within::Material => {
                let (len, recipe_len) = (reader.uint()?, reader.uint_as()?);
                Ok(Segment::Deflated { len, recipe_len, material: read_segments_within(reader, Within::Material)? })
            }
            (4, 4) if within == Within::Content => {
                let form = read_form(reader)?;
                let segments = read_segments_within(reader, Within::Base64)?;
                let decoded_len = segments.iter().map(Segment::len).sum();
                if decoded_len > DECODED_LEN_MAX {
                    return Err(CborError::Range);
                }
                Ok(Segment::Base64Of { form, decoded_len, segments })
            }
            _ => Err(CborError::Unexpected { expected: "a segment" }),
        }
    }

    /// Returns the chunks that the segment refers to itself, not through a list node.
    pub fn chunks(&self) -> Box<dyn Iterator<Item = &ChunkRef> + '_> {
        match self {
            Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => Box::new(chunks.iter()),
            Segment::List { .. } => Box::new(std::iter::empty()),
            Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
                Box::new(segments.iter().flat_map(Segment::chunks))
            }
        }
    }
}

fn flags_of(form: Base64Form) -> u64 {
    u64::from(form.crlf) | u64::from(form.final_eol) << 1
}

fn read_form(reader: &mut Reader<'_>) -> Result<Base64Form, CborError> {
    let (line_len, flags) = (reader.uint_as()?, reader.uint()?);
    if flags > 3 {
        return Err(CborError::Range);
    }
    Ok(Base64Form { line_len, crlf: flags & 1 != 0, final_eol: flags & 2 != 0 })
}

const CHUNK_REF_LEN: usize = 36;

fn write_chunks(chunks: &[ChunkRef], out: &mut Writer) {
    let mut bytes = Vec::with_capacity(chunks.len() * CHUNK_REF_LEN);
    for chunk in chunks {
        bytes.extend_from_slice(chunk.id.as_bytes());
        bytes.extend(chunk.len.to_le_bytes());
    }
    out.bytes(&bytes);
}

fn read_chunks(reader: &mut Reader<'_>) -> Result<Vec<ChunkRef>, CborError> {
    let (records, rest) = reader.bytes()?.as_chunks::<CHUNK_REF_LEN>();
    if !rest.is_empty() {
        return Err(CborError::Range);
    }
    let chunk = |record: &[u8; CHUNK_REF_LEN]| {
        let (id, len) = record.split_first_chunk().expect("a record is longer than an id");
        ChunkRef { id: ChunkId(*id), len: u32::from_le_bytes(len.try_into().expect("36 - 32 bytes")), hint: None }
    };
    Ok(records.iter().map(chunk).collect())
}

/// Writes segments as an array.
pub(crate) fn write_segments(segments: &[Segment], out: &mut Writer) {
    out.array(segments.len());
    segments.iter().for_each(|segment| segment.write(out));
}

/// Reads what [`write_segments`] wrote.
pub(crate) fn read_segments(reader: &mut Reader<'_>) -> Result<Vec<Segment>, CborError> {
    read_segments_within(reader, Within::Content)
}

fn read_segments_within(reader: &mut Reader<'_>, within: Within) -> Result<Vec<Segment>, CborError> {
    let count = reader.array()?;
    let mut segments: Vec<_> = (0..count).map(|_| Segment::read(reader, within)).collect::<Result<_, _>>()?;
    // Most contents have one segment, and caches hold many entries, so free the spare capacity.
    segments.shrink_to_fit();
    // Check the sum of all lengths once, so that later sums cannot overflow.
    segments.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len())).ok_or(CborError::Range)?;
    Ok(segments)
}

/// The bytes of a file, as segments in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// The segments.
    pub segments: Vec<Segment>,
}

impl Content {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Returns whether the content has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the blocks that hold the chunks, as far as the hints say. For long content, whose chunks are listed in a
    /// node of their own, returns none.
    pub fn blocks(&self) -> impl Iterator<Item = BlockLocation> {
        let chunks = self.segments.iter().flat_map(Segment::chunks);
        chunks.filter_map(|chunk| chunk.hint).map(|hint| hint.block)
    }

    /// Returns a hash that is equal for two contents if they consist of the same chunks.
    pub fn identity(&self) -> blake3::Hash {
        let mut out = Writer::new();
        write_segments(&self.segments, &mut out);
        blake3::hash(&out.into_bytes())
    }
}

/// A reference held by a node. References are visited in the order in which their hints are stored.
pub(crate) enum RefMut<'a> {
    Chunk(&'a mut ChunkRef),
    Node(&'a mut NodeRef),
}

/// Calls `each` for every reference in `segments`, in order.
pub(crate) fn for_each_ref<E>(
    segments: &mut [Segment],
    each: &mut impl FnMut(RefMut<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for segment in segments {
        match segment {
            Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => {
                chunks.iter_mut().try_for_each(|chunk| each(RefMut::Chunk(chunk)))?;
            }
            Segment::List { node, .. } => each(RefMut::Node(node))?,
            Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
                for_each_ref(segments, each)?;
            }
        }
    }
    Ok(())
}
