//! Reads blobs from the location that a reference holds (its hint), or else from the location that the index gives.
//! Every byte is verified before it is returned.
//!
//! A block is fetched with one range read, authenticated, decompressed and kept in a cache that is limited in bytes.
//! Every chunk is compared with its id before its bytes are returned, every node before it is decoded. If the hint
//! leads to no block (the pack was rewritten) or to a damaged one, the reader asks the index for another location.
//!
//! If a read needs several blocks, they are decrypted together ([`together`]).
//!
//! Methods may be called from any thread. If two threads want a block at once, it is fetched once.

mod ahead;
mod archive;
mod together;

use self::ahead::Ahead;
use self::archive::{Archive, Archives};
use crate::backend::{Backend, ObjectName};
use crate::format::crypto::Keys;
use crate::format::entry::{ChunkRef, Content, NodeRef, Segment};
use crate::format::id::{BlobId, NodeId};
use crate::format::node::{self, Node, NodeKind};
use crate::format::pack::{BlockLocation, Location, PackKind};
use crate::format::sealed;
use crate::repository::read_error::ReadError;
use crate::repository::tree::NodeSource;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// An index over the whole repository: says where blobs are.
pub trait Lookup: Send + Sync {
    /// Returns where `blob` is, or `None` if no pack holds it.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn find(&self, blob: &BlobId) -> Result<Option<Location>, ReadError> {
        self.find_elsewhere(blob, &[])
    }

    /// Returns a location of `blob` that is not among `tried`, or `None` if no other is known.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn find_elsewhere(&self, blob: &BlobId, tried: &[Location]) -> Result<Option<Location>, ReadError>;
}

/// Maximum number of locations that are tried for one blob. An honest repository has one, and one more for each time
/// that the blob was damaged and stored again.
const PLACES_TRIED_MAX: usize = 8;

/// Number of bytes of content for which blocks are prepared at a time: as many as fit in the blocks of a large file
/// that are decrypted together.
const STRETCH_LEN: u64 = 2 << 20;
/// Maximum depth of content lists within lists. Each level multiplies the length by hundreds, so no honest repository
/// nests deeper.
const LIST_DEPTH_MAX: usize = 8;

/// The size of a reader's caches, in bytes of memory.
#[derive(Debug, Clone, Copy)]
pub struct CacheSizes {
    /// The cache of decoded content blocks.
    pub blocks: usize,
    /// The cache of decoded tree nodes.
    pub nodes: usize,
    /// The cache of what was made again of archives that were taken apart.
    pub archives: usize,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self { blocks: 32 << 20, nodes: 16 << 20, archives: 16 << 20 }
    }
}

/// Reads chunks, contents and nodes of a repository.
pub struct Reader {
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    lookup: Box<dyn Lookup>,
    blocks: Cache<BlockLocation, Mutex<Option<Arc<Block>>>>,
    nodes: Cache<NodeId, Node>,
    archives: Archives,
    ahead: Option<Ahead>,
    decoded: AtomicU64,
    delivered: AtomicU64,
}

/// How many bytes of content a reader has decoded, and how many of them callers asked for. If `decoded` is much larger,
/// the reader decodes blocks of which little is read, or the same blocks again and again.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Plaintext bytes of the blocks that were fetched and decoded.
    pub decoded: u64,
    /// Bytes that were returned to callers.
    pub delivered: u64,
}

/// The plaintext of a block.
struct Block {
    plaintext: Vec<u8>,
    /// The offsets of chunks that were compared with their ids.
    proven: Mutex<HashSet<u32>>,
}

impl Reader {
    /// Creates a reader with empty caches.
    pub fn new(backend: Arc<dyn Backend>, keys: Arc<Keys>, lookup: Box<dyn Lookup>, sizes: CacheSizes) -> Self {
        let (blocks, nodes) = (Cache::new(sizes.blocks), Cache::new(sizes.nodes));
        let archives = Archives::new(sizes.archives);
        let (decoded, delivered) = Default::default();
        Self { backend, keys, lookup, blocks, nodes, archives, ahead: None, decoded, delivered }
    }

    /// Returns the traffic so far. Tree nodes are not counted.
    pub fn traffic(&self) -> Traffic {
        let [decoded, delivered] = [&self.decoded, &self.delivered].map(|count| count.load(Ordering::Relaxed));
        Traffic { decoded, delivered }
    }

    /// Calls `read` with `at`. If the block there is wrong, and the backend may have served it from a local copy, drops
    /// that copy and calls `read` once more: the stored block may be good.
    fn retry_without_copy<T>(
        &self,
        at: Location,
        read: impl Fn(Location) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        match read(at) {
            Err(ReadError::Block { .. } | ReadError::Mismatch { .. })
                if self.backend.drop_local_copy(ObjectName::pack(at.block.pack.0), stored_range(at.block)) =>
            {
                self.blocks.remove(&at.block);
                read(at)
            }
            result => result,
        }
    }

    /// Calls `read` with the hint, and then with each location that the index knows, until one succeeds. A blob that is
    /// damaged in one pack may be stored again in another.
    fn at_any_place<T>(
        &self,
        blob: BlobId,
        hint: Option<Location>,
        read: impl Fn(Location) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let (mut tried, mut next, mut failed) = (Vec::new(), hint, None);
        while tried.len() < PLACES_TRIED_MAX {
            let at = match next.take() {
                Some(at) => at,
                None => match self.lookup.find_elsewhere(&blob, &tried)? {
                    Some(at) => at,
                    None => break,
                },
            };
            match self.retry_without_copy(at, &read) {
                Ok(found) => return Ok(found),
                Err(error) => failed = Some(error),
            }
            tried.push(at);
        }
        Err(failed.unwrap_or(ReadError::Missing { blob }))
    }

    fn block(&self, at: BlockLocation, kind: PackKind) -> Result<Arc<Block>, ReadError> {
        let slot = self.blocks.get_or_insert(at, || (Mutex::new(None), decoded_len_guess(at.len as usize)));
        let mut slot = slot.lock();
        if let Some(block) = &*slot {
            return Ok(block.clone());
        }
        let block = Arc::new(Block { plaintext: self.load_block(at, kind)?, proven: Mutex::default() });
        self.blocks.resize(&at, block.plaintext.len());
        if kind == PackKind::Data {
            self.decoded.fetch_add(block.plaintext.len() as u64, Ordering::Relaxed);
        }
        *slot = Some(block.clone());
        Ok(block)
    }

    fn load_block(&self, at: BlockLocation, kind: PackKind) -> Result<Vec<u8>, ReadError> {
        let begun = Instant::now();
        let bytes = self.backend.load_range(ObjectName::pack(at.pack.0), stored_range(at))?;
        let loading = begun.elapsed();
        let failed = |source| ReadError::Block { pack: at.pack, offset: at.offset, source };
        let plaintext = sealed::open(&self.keys, kind.purpose(), bytes).map_err(failed)?;
        if let Some(ahead) = &self.ahead {
            ahead.record(loading, begun.elapsed() - loading);
        }
        Ok(plaintext)
    }

    fn chunk(&self, chunk: &ChunkRef) -> Result<(Arc<Block>, Range<usize>), ReadError> {
        let blob = BlobId::from(chunk.id);
        self.at_any_place(blob, chunk.hint, |location| {
            let block = self.block(location.block, PackKind::Data)?;
            let range = range_of(location);
            let bytes = block.plaintext.get(range.clone()).ok_or(ReadError::Mismatch { blob })?;
            if location.len != chunk.len {
                return Err(ReadError::Mismatch { blob });
            }
            if !block.proven.lock().contains(&location.offset) {
                if self.keys.chunk_id(bytes) != chunk.id {
                    return Err(ReadError::Mismatch { blob });
                }
                block.proven.lock().insert(location.offset);
            }
            Ok((block, range))
        })
    }

    fn read_node(&self, id: NodeId, at: Location) -> Result<Node, ReadError> {
        let blob = BlobId::from(id);
        let block = self.block(at.block, PackKind::Meta)?;
        let stored = block.plaintext.get(range_of(at)).ok_or(ReadError::Mismatch { blob })?;
        let (canonical, _) = node::split_stored(stored).ok_or(ReadError::Mismatch { blob })?;
        if self.keys.node_id(canonical) != id {
            return Err(ReadError::Mismatch { blob });
        }
        Node::decode_stored(stored, at.block).map_err(|source| ReadError::Node { node: id, source })
    }

    /// Appends `len` bytes of `content` from `offset` on to `out`, or fewer if the content ends before.
    ///
    /// # Errors
    /// See [`ReadError`]; `out` may then hold some of the bytes.
    pub fn read(&self, content: &Content, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let end = offset.saturating_add(len as u64).min(content.len());
        let before = out.len();
        let mut result = Ok(());
        let mut start = offset;
        while start < end && result.is_ok() {
            let stretch = start..end.min(start + STRETCH_LEN);
            start = stretch.end;
            self.prepare(&content.segments, &stretch);
            result = self.read_segments(&content.segments, stretch, 0, out);
        }
        self.delivered.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        result
    }

    /// Appends the range `wanted` of the bytes that `segments` stand for.
    fn read_segments(
        &self,
        segments: &[Segment],
        wanted: Range<u64>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let mut start = 0;
        for segment in segments {
            let len = segment.len();
            let part = overlap(&wanted, start, len);
            if !part.is_empty() {
                self.read_segment(segment, part, depth, out)?;
            }
            start += len;
            if start >= wanted.end {
                break;
            }
        }
        Ok(())
    }

    fn read_segment(
        &self,
        segment: &Segment,
        part: Range<u64>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        match segment {
            Segment::Raw(chunks) => self.read_chunks(chunks, part, out),
            Segment::Base64 { form, decoded_len, chunks } => {
                let span = form.decoded_span(part.clone(), *decoded_len);
                let mut decoded = Vec::with_capacity((span.end - span.start) as usize);
                self.read_chunks(chunks, span, &mut decoded)?;
                form.render(part, *decoded_len, &decoded, out);
                Ok(())
            }
            Segment::Base64Of { form, decoded_len, segments } => {
                let span = form.decoded_span(part.clone(), *decoded_len);
                let mut decoded = Vec::with_capacity((span.end - span.start) as usize);
                self.read_segments(segments, span, depth + 1, &mut decoded)?;
                form.render(part, *decoded_len, &decoded, out);
                Ok(())
            }
            Segment::Deflated { len, recipe_len, material } => {
                let archive = Archive { len: *len, recipe_len: *recipe_len, material, depth };
                self.read_archive(archive, part, out)
            }
            Segment::List { len, node } => {
                let listed = self.node(node)?;
                let NodeKind::List(segments) = &listed.kind else {
                    return Err(ReadError::malformed_node(node.id, "is no content list"));
                };
                let sum = segments.iter().map(Segment::len).sum::<u64>();
                if depth > LIST_DEPTH_MAX || sum != *len {
                    return Err(ReadError::malformed_node(node.id, "does not list the content it should"));
                }
                self.read_segments(segments, part, depth + 1, out)
            }
        }
    }

    fn read_chunks(&self, chunks: &[ChunkRef], wanted: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut start = 0;
        for chunk in chunks {
            let part = overlap(&wanted, start, chunk.len.into());
            if !part.is_empty() {
                let (block, range) = self.chunk(chunk)?;
                out.extend_from_slice(&block.plaintext[range][part.start as usize..part.end as usize]);
            }
            start += u64::from(chunk.len);
            if start >= wanted.end {
                break;
            }
        }
        Ok(())
    }
}

impl NodeSource for Reader {
    fn node(&self, node: &NodeRef) -> Result<Arc<Node>, ReadError> {
        if let Some(cached) = self.nodes.get(&node.id) {
            return Ok(cached);
        }
        let read = self.at_any_place(node.id.into(), node.hint, |at| self.read_node(node.id, at))?;
        let len = read.memory_len();
        Ok(self.nodes.get_or_insert(node.id, || (read, len)))
    }
}

/// Returns a guess of the decoded length of a block of `len` stored bytes. The cache makes that much room beforehand.
/// The guess is limited: for incompressible data a long one would push out the very block that is being read.
fn decoded_len_guess(len: usize) -> usize {
    const BLOCK_LEN_USUAL_MAX: usize = 2 << 20;
    (4 * len).min(BLOCK_LEN_USUAL_MAX).max(len)
}

/// Returns the part of `wanted` that lies in a piece of `len` bytes at `start`, relative to the start of the piece.
fn overlap(wanted: &Range<u64>, start: u64, len: u64) -> Range<u64> {
    wanted.start.clamp(start, start + len) - start..wanted.end.clamp(start, start + len) - start
}

/// Returns the range of bytes that a block takes in its pack.
fn stored_range(at: BlockLocation) -> Range<u64> {
    u64::from(at.offset)..u64::from(at.offset) + u64::from(at.len)
}

fn range_of(location: Location) -> Range<usize> {
    let start = location.offset as usize;
    start..start + location.len as usize
}

/// Number of parts of a cache. Each has its own lock, so that threads seldom wait for each other.
const SHARDS: usize = 8;

/// An LRU cache that is limited in bytes. Each shard keeps at least one value.
struct Cache<K, V> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
    hasher: std::hash::RandomState,
    shard_len_max: usize,
}

struct Shard<K, V> {
    values: LruCache<K, (Arc<V>, usize)>,
    len: usize,
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    fn new(len_max: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(Shard::new()));
        Self { shards, hasher: std::hash::RandomState::new(), shard_len_max: len_max / SHARDS }
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        use std::hash::BuildHasher;
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Returns whether there is a value under `key`. Does not count as a use of the value.
    fn contains(&self, key: &K) -> bool {
        self.shard(key).lock().values.contains(key)
    }

    fn get(&self, key: &K) -> Option<Arc<V>> {
        self.shard(key).lock().values.get(key).map(|(value, _)| value.clone())
    }

    /// Returns the value under `key`. If there is none, calls `make`, which returns the value and its length in bytes.
    fn get_or_insert(&self, key: K, make: impl FnOnce() -> (V, usize)) -> Arc<V> {
        self.shard(&key).lock().get_or_insert(key, self.shard_len_max, make)
    }

    /// Removes the value under `key`.
    fn remove(&self, key: &K) {
        let mut shard = self.shard(key).lock();
        if let Some((_, len)) = shard.values.pop(key) {
            shard.len -= len;
        }
    }

    /// Corrects the length of the value under `key`, if it is still there.
    fn resize(&self, key: &K, len: usize) {
        let mut shard = self.shard(key).lock();
        if let Some((_, old)) = shard.values.peek_mut(key) {
            let old = std::mem::replace(old, len);
            shard.len = shard.len - old + len;
            shard.shrink(self.shard_len_max);
        }
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    fn new() -> Self {
        Self { values: LruCache::unbounded(), len: 0 }
    }

    fn get_or_insert(&mut self, key: K, len_max: usize, make: impl FnOnce() -> (V, usize)) -> Arc<V> {
        if let Some((value, _)) = self.values.get(&key) {
            return value.clone();
        }
        let (value, len) = make();
        let value = Arc::new(value);
        self.values.push(key, (value.clone(), len));
        self.len += len;
        self.shrink(len_max);
        value
    }

    fn shrink(&mut self, len_max: usize) {
        while self.len > len_max
            && self.values.len() > 1
            && let Some((_, (_, len))) = self.values.pop_lru()
        {
            self.len -= len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cached::{CacheOptions, Cached};
    use crate::backend::delayed::Delayed;
    use crate::backend::mem::Mem;
    use crate::format::compress::{Compressor, META_LEVEL};
    use crate::format::crypto::{Cipher, MasterKey};
    use crate::format::id::{ChunkId, PackId};
    use crate::format::pack::{BlobRecord, PackBuilder};

    /// A lookup that finds nothing: all blobs are where the hints say.
    pub(super) struct Nowhere;

    impl Lookup for Nowhere {
        fn find_elsewhere(&self, _: &BlobId, _: &[Location]) -> Result<Option<Location>, ReadError> {
            Ok(None)
        }
    }

    /// Seals each content into a block of its own, in one pack. Returns the pack, and where each block is.
    fn pack_of(keys: &Keys, contents: &[Vec<u8>]) -> (crate::format::pack::Pack, Vec<ChunkRef>) {
        let compressor = &mut Compressor::new(1);
        let mut builder = PackBuilder::new(PackKind::Data, 0);
        for bytes in contents {
            let blob = BlobRecord { id: keys.chunk_id(bytes).into(), len: bytes.len() as u32 };
            builder.push(&sealed::seal(keys, PackKind::Data.purpose(), bytes, compressor), vec![blob]);
        }
        let pack = builder.finish(keys, compressor);
        let chunk = |(id, at): (BlobId, Location)| ChunkRef { id: ChunkId(id.0), len: at.len, hint: Some(at) };
        let chunks = pack.footer.locations(pack.id).map(chunk).collect();
        (pack, chunks)
    }

    /// A read that needs many blocks decrypts them together. Each block is still fetched once, and a damaged one is
    /// reported as if it had been read alone; the others are read.
    #[test]
    fn a_read_of_many_blocks_fetches_each_once_and_a_damaged_one_fails_alone() {
        let keys = Arc::new(Keys::derive(&MasterKey::generate(), Cipher::Aes256Siv));
        let contents: Vec<Vec<u8>> = (0..20).map(|number| vec![number; 100_000 + usize::from(number)]).collect();
        let (pack, chunks) = pack_of(&keys, &contents);
        let stored = Arc::new(Delayed::new(Mem::new(), std::time::Duration::ZERO));
        let name = ObjectName::pack(pack.id.0);
        let reader = || Reader::new(stored.clone(), keys.clone(), Box::new(Nowhere), CacheSizes::default());
        let whole = Content { segments: vec![Segment::Raw(chunks.clone())] };
        let read = |reader: &Reader, offset, len| {
            let mut out = Vec::new();
            reader.read(&whole, offset, len, &mut out).map(|()| out)
        };

        stored.save(name, &pack.bytes).expect("room");
        stored.reset();
        let sound = reader();
        assert!(read(&sound, 0, usize::MAX).expect("sound") == contents.concat());
        assert_eq!(stored.requests(), 20);
        assert_eq!(sound.traffic().decoded, contents.concat().len() as u64);
        assert!(read(&sound, 150_000, 1 << 20).expect("sound") == contents.concat()[150_000..][..1 << 20]);
        assert_eq!(stored.requests(), 20, "all are in the cache");

        const DAMAGED: usize = 5;
        let mut bytes = pack.bytes.clone();
        bytes[chunks[DAMAGED].hint.expect("stored").block.offset as usize + 17] ^= 1;
        stored.remove(name).expect("it is there");
        stored.save(name, &bytes).expect("room");
        let damaged = reader();
        let failed = read(&damaged, 0, usize::MAX).expect_err("one block is damaged");
        let offset = chunks[DAMAGED].hint.expect("stored").block.offset;
        assert!(matches!(failed, ReadError::Block { offset: found, .. } if found == offset), "{failed}");
        let mut start = 0;
        for (number, bytes) in contents.iter().enumerate() {
            let result = read(&damaged, start, bytes.len());
            assert_eq!(result.is_ok_and(|read| read == *bytes), number != DAMAGED, "block {number}");
            start += bytes.len() as u64;
        }
    }

    /// The blocks of one read do not push each other out of a small cache, and readers of the same blocks do not wait
    /// for each other for ever.
    #[test]
    fn many_readers_with_a_small_cache_read_the_same_blocks() {
        let keys = Arc::new(Keys::derive(&MasterKey::generate(), Cipher::Aes256Siv));
        let contents: Vec<Vec<u8>> = (0..30).map(|number| vec![number; 20_000]).collect();
        let (pack, chunks) = pack_of(&keys, &contents);
        let stored = Arc::new(Mem::new());
        stored.save(ObjectName::pack(pack.id.0), &pack.bytes).expect("room");
        for blocks in [1, 100_000, 1 << 20, 48 << 20] {
            let sizes = CacheSizes { blocks, nodes: 1 << 20, archives: 0 };
            let reader = Reader::new(stored.clone(), keys.clone(), Box::new(Nowhere), sizes);
            std::thread::scope(|scope| {
                for reverse in [false, true, false, true] {
                    let mut chunks = chunks.clone();
                    let mut wanted = contents.clone();
                    if reverse {
                        chunks.reverse();
                        wanted.reverse();
                    }
                    let (content, reader) = (Content { segments: vec![Segment::Raw(chunks)] }, &reader);
                    scope.spawn(move || {
                        let mut out = Vec::new();
                        reader.read(&content, 0, usize::MAX, &mut out).expect("sound");
                        assert!(out == wanted.concat());
                    });
                }
            });
        }
    }

    /// Somebody who can write to the local copy but has no key can still swap authentic blocks.
    #[test]
    fn a_copy_that_has_another_block_there_is_read_past() {
        let keys = Arc::new(Keys::derive(&MasterKey::generate(), Cipher::Aes256Siv));
        let contents = [[1; 1000], [2; 1000]];
        let seal = |content: &[u8; 1000]| {
            sealed::seal(&keys, PackKind::Data.purpose(), content, &mut Compressor::new(META_LEVEL))
        };
        let blocks = contents.each_ref().map(seal);
        let (pack, len) = (PackId([7; 32]), blocks[0].len());
        let stored = Arc::new(Mem::new());
        let name = ObjectName::pack(pack.0);
        stored.save(name, &[&*blocks[1], &*blocks[0]].concat()).expect("room");
        let folder = tempfile::tempdir().expect("a folder");
        let options = CacheOptions { folder: folder.path().to_owned(), bytes_max: 1 << 30 };
        let open = || Arc::new(Cached::new(stored.clone(), &options));
        open().load_range(name, 0..2 * len as u64).expect("it is there");
        stored.damage(name, |bytes| bytes.rotate_left(len));

        let reader = Reader::new(open(), keys.clone(), Box::new(Nowhere), CacheSizes::default());
        for _ in 0..2 {
            for (number, content) in contents.iter().enumerate() {
                let block = BlockLocation { pack, offset: (number * len) as u32, len: len as u32 };
                let hint = Some(Location { block, offset: 0, len: 1000 });
                let chunk = ChunkRef { id: keys.chunk_id(content), len: 1000, hint };
                let mut read = Vec::new();
                let content_of = Content { segments: vec![Segment::Raw(vec![chunk])] };
                reader.read(&content_of, 0, 1000, &mut read).expect("it is well where it is stored");
                assert!(read == content);
            }
        }
    }
}
