//! Turns the bytes of an item into content: reads them, takes mails apart, cuts chunks, hashes them, and gives new
//! chunks to the store.
//!
//! A [`Splitter`] belongs to one thread and keeps its buffers. New chunks of small items are collected and appended
//! together, so that neighbours in a folder become neighbours in a block.

mod archive;
mod rules;

pub use self::rules::Rules;

use self::archive::{ARCHIVE_LEN_MAX, plain_len_max};
use crate::content::mail::{self, base64};
use crate::content::mime::{self, Base64Form};
use crate::content::text;
use crate::content::zip;
use crate::format::chunker::ChunkSizes;
use crate::format::compress::Compressor;
use crate::format::entry::{ChunkRef, Content, Facts, NodeRef, RefMut, Segment, for_each_ref};
use crate::format::id::ChunkId;
use crate::format::node::{self, BlobRef, NewNode};
use crate::repository::store::{NewChunk, Store, StoreError, Texture};
use crate::runtime::guarded;
use crate::source;
use std::io::{self, Read};
use std::sync::Arc;

/// Maximum length in bytes of an item that is read whole. Longer ones are read through a window.
const WHOLE_LEN_MAX: u64 = 4 << 20;
/// Maximum length in bytes of a mail that is read whole, so that it can be taken apart. The default limit of Exchange
/// Online is 35 MB; organisations may raise it to 150 MB. A longer mail is cut like any other file.
const MAIL_LEN_MAX: u64 = 40 << 20;
/// Number of bytes at the start of an item that decide whether it is text.
const SNIFF_LEN: usize = 8 << 10;
/// New chunks are appended to the store when this many bytes are collected.
const COLLECTED_BYTES_MAX: usize = 1 << 20;
/// Maximum number of references in an entry. Content with more of them gets list nodes.
const INLINE_REFS_MAX: usize = 128;
/// Minimum and maximum number of references in a list node. Between them, the id of the last chunk decides whether the
/// node ends: after about 1024 references on average.
const LIST_REFS_MIN: usize = 256;
const LIST_REFS_MAX: usize = 4096;
const LIST_CUT_MASK: u16 = 0x3ff;

/// Why an item could not be turned into content.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The item could not be read. Other items may be readable.
    #[error(transparent)]
    Item(#[from] io::Error),
    /// Storing failed, so the run cannot go on.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores what a splitter makes.
pub trait Sink: Send + Sync {
    /// Returns whether the chunk is stored already.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn has_chunk(&self, id: ChunkId) -> Result<bool, StoreError>;

    /// Stores chunks next to each other.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn append(&self, chunks: &mut dyn Iterator<Item = NewChunk<'_>>) -> Result<(), StoreError>;

    /// Stores a node.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn put_node(&self, node: NewNode) -> Result<(), StoreError>;

    /// Returns whether the text of mails is to be stored, too.
    fn wants_text(&self) -> bool {
        true
    }
}

impl Sink for Store {
    fn has_chunk(&self, id: ChunkId) -> Result<bool, StoreError> {
        Store::has_chunk(self, id)
    }

    fn append(&self, chunks: &mut dyn Iterator<Item = NewChunk<'_>>) -> Result<(), StoreError> {
        Store::append(self, chunks)
    }

    fn put_node(&self, node: NewNode) -> Result<(), StoreError> {
        Store::put_node(self, node)
    }
}

/// A sink that stores nothing, for callers who only need to know the content's chunk ids.
pub struct Nowhere;

impl Sink for Nowhere {
    fn has_chunk(&self, _: ChunkId) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn append(&self, _: &mut dyn Iterator<Item = NewChunk<'_>>) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_node(&self, _: NewNode) -> Result<(), StoreError> {
        Ok(())
    }

    fn wants_text(&self) -> bool {
        false
    }
}

/// Splits items, one at a time.
pub struct Splitter {
    sink: Arc<dyn Sink>,
    rules: Arc<Rules>,
    buffer: Vec<u8>,
    collected: Vec<u8>,
    records: Vec<(ChunkId, usize, Texture)>,
    /// How many bytes the streams of the archives that are left in the item may hold.
    plain_left: u64,
    /// Tells how small the content of a stream gets.
    compressor: Option<Compressor>,
}

/// A piece of a file that this program makes.
pub enum Piece<'a> {
    /// Text that is stored as it is.
    Text(&'a [u8]),
    /// The base64 text of these bytes, in one line.
    File(&'a [u8]),
}

/// The layout of the base64 text of a [`Piece::File`].
const IN_ONE_LINE: Base64Form = Base64Form { line_len: 0, crlf: true, final_eol: false };

/// The content of an item, and what its bytes say about it.
pub struct Split {
    /// The content.
    pub content: Content,
    /// For a mail, its main headers.
    pub facts: Facts,
    /// For a mail, its text.
    pub text: Option<Content>,
}

impl Splitter {
    /// Creates a splitter that stores into `sink`.
    pub fn new(sink: Arc<dyn Sink>, rules: Arc<Rules>) -> Self {
        let (buffer, collected, records) = Default::default();
        Self { sink, rules, buffer, collected, records, plain_left: 0, compressor: None }
    }

    /// Reads `item` and returns its content. After [`Splitter::flush`], all its chunks are stored or in the store's
    /// queues.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn split(&mut self, item: &dyn source::Content) -> Result<Split, SplitError> {
        let mut reader = item.open()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // One byte more than announced, so that the same read shows the end.
        buffer.reserve(item.len_hint().min(WHOLE_LEN_MAX) as usize + 1);
        let split = self.split_from(&mut *reader, item.len_hint(), item.is_mail(), &mut buffer);
        // Give the memory of a long item back.
        buffer.truncate(0);
        buffer.shrink_to(WHOLE_LEN_MAX as usize * 2);
        self.buffer = buffer;
        split
    }

    fn split_from(
        &mut self,
        reader: &mut dyn Read,
        len: u64,
        is_known: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Split, SplitError> {
        let mut whole = fill(reader, buffer, WHOLE_LEN_MAX)?;
        let is_mail = is_known || mail::looks_like_mail(&buffer[..buffer.len().min(mail::HEADER_BYTES_MAX)]);
        // A mail that is announced as too long is not read whole at all.
        if is_mail && !whole && len <= MAIL_LEN_MAX {
            whole = fill(reader, buffer, MAIL_LEN_MAX)?;
        }
        let rules = self.rules.clone();
        let is_archive = !is_mail && rules.archives.is_some() && zip::looks_like_zip(buffer);
        let turn = (is_archive && !whole && len <= ARCHIVE_LEN_MAX).then(|| rules.one_long());
        if turn.is_some() {
            whole = fill(reader, buffer, ARCHIVE_LEN_MAX)?;
        }
        self.plain_left = plain_len_max(buffer.len() as u64);
        let facts = if is_mail { facts_of(buffer) } else { Facts::default() };
        // Make the text first: later, the start of a long mail is no longer in memory.
        let text = if is_mail && self.sink.wants_text() { self.split_text(buffer, whole)? } else { None };
        let content = match (whole, is_mail) {
            (true, true) => self.split_mail(buffer)?,
            (true, false) => {
                let segments =
                    match is_archive.then(|| self.split_archive(buffer, turn.is_some())).transpose()?.flatten() {
                        Some(archive) => vec![archive],
                        None => segments_of(self.split_bytes(buffer, texture_of(buffer))?),
                    };
                self.content(segments)?
            }
            (false, _) => self.split_stream(reader, len, texture_of(buffer), buffer)?,
        };
        Ok(Split { content, facts, text })
    }

    /// Returns the content of an export stream: bytes in a format that only the service reads.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn split_export(&mut self, stream: &dyn source::Content) -> Result<Content, SplitError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let len = stream.len_hint();
        let content = stream
            .open()
            .map_err(SplitError::Item)
            .and_then(|mut reader| self.split_stream(&mut *reader, len, Texture::Stream, &mut buffer));
        buffer.truncate(0);
        buffer.shrink_to(WHOLE_LEN_MAX as usize * 2);
        self.buffer = buffer;
        content
    }

    /// Returns the content of a file that this program made from what a service says of an item.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn split_made(&mut self, file: &[u8]) -> Result<Content, SplitError> {
        let chunks = self.split_bytes(file, texture_of(file))?;
        self.content(segments_of(chunks))
    }

    /// Returns the content of a file that this program made of text and of the base64 text of other files. The other
    /// files are stored as what they are, so that a copy in a mail costs nothing. `texture` is that of the text.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn split_pieces(&mut self, pieces: &[Piece<'_>], texture: Texture) -> Result<Content, SplitError> {
        let is_long = |bytes: &[u8]| bytes.len() >= mime::DECODED_BYTES_MIN;
        let files = pieces.iter().map(|piece| if let Piece::File(bytes) = piece { bytes.len() as u64 } else { 0 });
        self.plain_left = plain_len_max(files.sum());
        let (mut segments, mut text) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Text(bytes) => text.extend_from_slice(bytes),
                Piece::File(bytes) if !is_long(bytes) => base64::append(bytes, &mut text),
                Piece::File(bytes) => {
                    if !text.is_empty() {
                        segments.push(Segment::Raw(self.split_bytes(&text, texture)?));
                        text.clear();
                    }
                    segments.push(self.split_base64(bytes, IN_ONE_LINE)?);
                }
            }
        }
        if !text.is_empty() {
            segments.push(Segment::Raw(self.split_bytes(&text, texture)?));
        }
        self.content(segments)
    }

    /// Returns the content of the text that people read of an item, unless the repository takes no texts.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn split_reading(&mut self, text: &str) -> Result<Option<Content>, SplitError> {
        if !self.sink.wants_text() {
            return Ok(None);
        }
        let chunks = self.split_bytes(text.as_bytes(), Texture::Reading)?;
        self.content(segments_of(chunks)).map(Some)
    }

    /// Returns the content for facts about an item, such as the answer of a service or extended attributes.
    ///
    /// # Errors
    /// If storing fails.
    pub fn split_payload(&mut self, payload: &[u8]) -> Result<Content, StoreError> {
        let chunks = self.split_bytes(payload, Texture::Payload);
        match chunks.and_then(|chunks| self.content(segments_of(chunks))) {
            Ok(content) => Ok(content),
            Err(SplitError::Store(error)) => Err(error),
            Err(SplitError::Item(_)) => unreachable!("bytes in memory can be read"),
        }
    }

    /// Returns the text of a mail. `start` is the start of the mail, or all of it if `whole` is true.
    ///
    /// The text is a convenience, so a fault of this program in making it must not stop the backup of the mail.
    fn split_text(&mut self, start: &[u8], whole: bool) -> Result<Option<Content>, SplitError> {
        let made = guarded(|| text::of_mail(start, whole));
        let Ok(text) = made else {
            tracing::error!("this program failed to make the text of a mail; it is stored without");
            return Ok(None);
        };
        let chunks = self.split_bytes(text.as_bytes(), Texture::Reading)?;
        self.content(segments_of(chunks)).map(Some)
    }

    fn split_mail(&mut self, message: &[u8]) -> Result<Content, SplitError> {
        #[cfg(test)]
        crate::runtime::trip(message, "splitting");
        let mut segments = Vec::new();
        for part in mime::split(message) {
            segments.push(match part {
                mime::Segment::Raw(bytes) => Segment::Raw(self.split_bytes(bytes, Texture::Text)?),
                mime::Segment::Base64 { decoded, form } => self.split_base64(&decoded, form)?,
            });
        }
        self.content(segments)
    }

    /// Returns the segment of base64 text in this layout.
    fn split_base64(&mut self, decoded: &[u8], form: Base64Form) -> Result<Segment, SplitError> {
        let decoded_len = decoded.len() as u64;
        Ok(match self.split_archive(decoded, false)? {
            Some(archive) => Segment::Base64Of { form, decoded_len, segments: vec![archive] },
            None => {
                let chunks = self.split_bytes(decoded, texture_of(decoded))?;
                Segment::Base64 { form, decoded_len, chunks }
            }
        })
    }

    /// Cuts bytes that are all in memory.
    fn split_bytes(&mut self, bytes: &[u8], texture: Texture) -> Result<Vec<ChunkRef>, SplitError> {
        let rules = self.rules.clone();
        let mut refs = Vec::new();
        for chunk in rules.chunker.chunks(bytes) {
            refs.push(self.take(chunk, texture)?);
        }
        Ok(refs)
    }

    /// Cuts the bytes in `buffer` and the rest of `reader`, through a window that is a few chunks long.
    ///
    /// `len` is the length that the item announced. It decides the sizes of chunks, so that a file is cut like an
    /// attachment of the same length.
    fn split_stream(
        &mut self,
        reader: &mut dyn Read,
        len: u64,
        texture: Texture,
        buffer: &mut Vec<u8>,
    ) -> Result<Content, SplitError> {
        let sizes = self.rules.chunker.sizes_for(len.max(buffer.len() as u64));
        let window = buffer.len() as u64 + 2 * u64::from(sizes.max);
        let mut lists = ListBuilder::default();
        let mut at_end = false;
        loop {
            at_end = at_end || fill(reader, buffer, window)?;
            let cut = self.cut_window(buffer, sizes, at_end, texture, &mut lists)?;
            buffer.drain(..cut);
            if at_end {
                break;
            }
        }
        let segments = lists.finish(self)?;
        self.content(segments)
    }

    /// Cuts all chunks at the front of `window` whose ends are certain, and returns their total length.
    fn cut_window(
        &mut self,
        window: &[u8],
        sizes: ChunkSizes,
        at_end: bool,
        texture: Texture,
        lists: &mut ListBuilder,
    ) -> Result<usize, SplitError> {
        let mut start = 0;
        while start < window.len() && (at_end || window.len() - start >= sizes.max as usize) {
            let len = self.rules.chunker.cut(&window[start..], sizes);
            let chunk = self.take(&window[start..start + len], texture)?;
            lists.push(chunk, self)?;
            start += len;
        }
        Ok(start)
    }

    /// Computes the id of a chunk, and collects the chunk if the repository does not have it.
    fn take(&mut self, bytes: &[u8], texture: Texture) -> Result<ChunkRef, SplitError> {
        let id = self.rules.keys.chunk_id(bytes);
        if !self.sink.has_chunk(id)? {
            self.collected.extend_from_slice(bytes);
            self.records.push((id, bytes.len(), texture));
            if self.collected.len() >= COLLECTED_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(ChunkRef { id, len: bytes.len() as u32, hint: None })
    }

    /// Appends the collected chunks to the store.
    ///
    /// # Errors
    /// If storing fails.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let mut rest = self.collected.as_slice();
        let mut chunks = self.records.iter().map(|(id, len, texture)| {
            let (bytes, after) = rest.split_at(*len);
            rest = after;
            NewChunk { id: *id, bytes, texture: *texture }
        });
        self.sink.append(&mut chunks)?;
        self.collected.clear();
        self.records.clear();
        Ok(())
    }

    /// Makes content of segments. Uses list nodes if there are many references.
    fn content(&mut self, mut segments: Vec<Segment>) -> Result<Content, SplitError> {
        let refs = segments.iter().map(refs_in).sum::<usize>();
        if refs <= INLINE_REFS_MAX {
            // Thousands of entries wait in memory for the rest of their folder. Most have one segment of one chunk, and
            // room for four of both.
            shrink(&mut segments);
            return Ok(Content { segments });
        }
        let mut lists = ListBuilder::default();
        for segment in segments {
            lists.push_segment(segment, self)?;
        }
        let segments = lists.finish(self)?;
        // One level of lists divides the number of references by a thousand. If they are still too many, make lists of
        // lists.
        self.content(segments)
    }

    fn put_list(&mut self, mut segments: Vec<Segment>) -> Result<Segment, SplitError> {
        let mut refs = Vec::new();
        let collected = for_each_ref(&mut segments, &mut |reference| {
            refs.push(match reference {
                RefMut::Chunk(chunk) => BlobRef::Chunk(chunk.id.into()),
                RefMut::Node(node) => BlobRef::Node(node.id.into()),
            });
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = collected;
        // The store may write the list at once, with the places of its chunks. So they must be in the store before.
        self.flush()?;
        let len = segments.iter().map(Segment::len).sum();
        let canonical = node::list(&segments);
        let id = self.rules.keys.node_id(&canonical);
        self.sink.put_node(NewNode { id, canonical, refs })?;
        Ok(Segment::List { len, node: NodeRef { id, hint: None } })
    }
}

/// Collects references into list nodes whose ends depend on content, so that an edit of a long file changes few lists.
#[derive(Default)]
struct ListBuilder {
    lists: Vec<Segment>,
    open: Vec<Segment>,
    open_refs: usize,
}

impl ListBuilder {
    /// Adds a chunk of plain bytes.
    fn push(&mut self, chunk: ChunkRef, splitter: &mut Splitter) -> Result<(), SplitError> {
        match self.open.last_mut() {
            Some(Segment::Raw(chunks)) => chunks.push(chunk),
            _ => self.open.push(Segment::Raw(vec![chunk])),
        }
        self.open_refs += 1;
        self.close_if(u16::from_le_bytes([chunk.id.0[0], chunk.id.0[1]]), splitter)
    }

    fn push_segment(&mut self, segment: Segment, splitter: &mut Splitter) -> Result<(), SplitError> {
        self.open_refs += refs_in(&segment);
        let mark = match &segment {
            Segment::Raw(chunks) if chunks.len() > 1 => {
                self.open_refs -= chunks.len();
                return chunks.iter().try_for_each(|chunk| self.push(*chunk, splitter));
            }
            segment => last_ref(segment),
        };
        self.open.push(segment);
        self.close_if(mark.map_or(1, |id| u16::from_le_bytes([id[0], id[1]])), splitter)
    }

    fn close_if(&mut self, mark: u16, splitter: &mut Splitter) -> Result<(), SplitError> {
        let ends = self.open_refs >= LIST_REFS_MIN && mark & LIST_CUT_MASK == 0;
        if ends || self.open_refs >= LIST_REFS_MAX { self.close(splitter) } else { Ok(()) }
    }

    fn close(&mut self, splitter: &mut Splitter) -> Result<(), SplitError> {
        if !self.open.is_empty() {
            self.open_refs = 0;
            self.lists.push(splitter.put_list(std::mem::take(&mut self.open))?);
        }
        Ok(())
    }

    /// Returns the list segments, or the collected segments themselves if they are few.
    fn finish(self, splitter: &mut Splitter) -> Result<Vec<Segment>, SplitError> {
        if self.lists.is_empty() && self.open_refs <= INLINE_REFS_MAX {
            return Ok(self.open);
        }
        self.into_lists(splitter)
    }

    /// Returns the list segments, also if there are few references.
    fn into_lists(mut self, splitter: &mut Splitter) -> Result<Vec<Segment>, SplitError> {
        self.close(splitter)?;
        Ok(self.lists)
    }
}

/// Frees the spare capacity of segments.
fn shrink(segments: &mut Vec<Segment>) {
    segments.shrink_to_fit();
    for segment in segments {
        match segment {
            Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => chunks.shrink_to_fit(),
            Segment::List { .. } => {}
            Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => shrink(segments),
        }
    }
}

fn refs_in(segment: &Segment) -> usize {
    match segment {
        Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => chunks.len(),
        Segment::List { .. } => 1,
        Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
            segments.iter().map(refs_in).sum()
        }
    }
}

/// Returns the id of the last chunk or node that a segment refers to.
fn last_ref(segment: &Segment) -> Option<[u8; 32]> {
    match segment {
        Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => chunks.last().map(|chunk| chunk.id.0),
        Segment::List { node, .. } => Some(node.id.0),
        Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
            segments.last().and_then(last_ref)
        }
    }
}

fn segments_of(chunks: Vec<ChunkRef>) -> Vec<Segment> {
    if chunks.is_empty() { Vec::new() } else { vec![Segment::Raw(chunks)] }
}

/// Reads until `buffer` holds `len_max` bytes or the input ends. Returns whether it ended.
fn fill(reader: &mut dyn Read, buffer: &mut Vec<u8>, len_max: u64) -> io::Result<bool> {
    let missing = len_max.saturating_sub(buffer.len() as u64);
    let read = reader.take(missing).read_to_end(buffer)?;
    Ok((read as u64) < missing)
}

/// Returns whether bytes look like text: no zero byte and few other control characters near the start.
fn texture_of(bytes: &[u8]) -> Texture {
    let start = &bytes[..bytes.len().min(SNIFF_LEN)];
    let odd = start.iter().filter(|byte| matches!(byte, 1..=8 | 14..=26 | 28..=31)).count();
    if start.contains(&0) || odd * 50 > start.len() { Texture::Binary } else { Texture::Text }
}

fn facts_of(message: &[u8]) -> Facts {
    let mail::MailFacts { subject, from, to, message_id, date } = mail::facts(message);
    Facts { subject, from, to, message_id, date, ..Facts::default() }
}
