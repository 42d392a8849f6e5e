//! Writes chunks and nodes into a repository: the stages between a source and the backend.
//!
//! ```text
//! append ─► open blocks ─► sealers (compress, encrypt) ─► packer ─► storer (hash, fsync) ─► local index ─► index objects
//! put_node ─► queue of nodes ─► flush: waits until all content is stored, then seals and stores the nodes
//! ```
//!
//! Every stage has its own threads and every channel between stages is short. So the stages work at the same time and
//! memory stays flat: about `2 x pack size + (channel lengths + blocks being sealed) x block size`.
//!
//! A node holds the location of everything it refers to, so nodes are written after their content. They wait in a
//! queue, which is written out when it holds [`NODE_QUEUE_BYTES_MAX`] bytes. Nothing that [`Store::finish`] has
//! confirmed is ever lost. The next run finds the packs of an interrupted run through their footers.

mod nodes;

use self::nodes::{NodeQueue, NodeWriter};
use crate::format::compress::{Compressor, DATA_LEVEL, META_LEVEL};
use crate::format::crypto::{Keys, Message};
use crate::format::entry::Segment;
use crate::format::id::{BlobId, ChunkId, NodeId, PackId};
use crate::format::index::BLOBS_PER_OBJECT;
use crate::format::node::{NewNode, Node, NodeError};
use crate::format::pack::{BlobRecord, Footer, Location, Pack, PackBuilder, PackKind};
use crate::format::sealed;
use crate::repository::local_state::{LocalError, LocalState};
use crate::repository::tree::NodeSink;
use crate::repository::{Repository, RepositoryError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Canonical bytes of waiting nodes at which the queue is written out.
const NODE_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Maximum number of blocks that wait for a sealer.
const OPEN_BLOCKS_WAITING_MAX: usize = 8;
/// Maximum number of blocks that wait for the packer.
const SEALED_BLOCKS_WAITING_MAX: usize = 4;
/// Maximum number of blocks that a sealer encrypts together, one for each lane of the cipher.
const SEALED_TOGETHER_MAX: usize = 8;

/// Why something could not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Another thread failed before. [`Store::finish`] reports its error.
    #[error("storing was given up after an earlier error")]
    GivenUp,
    /// A node refers to a blob that is not stored: a fault of this program, noticed before it does harm.
    #[error("a node refers to {blob}, which is not stored")]
    Lost {
        /// The blob that is not stored.
        blob: BlobId,
    },
    /// A new node could not be decoded again: a fault of this program, noticed before it does harm.
    #[error("a new node could not be decoded again")]
    Node {
        /// What is wrong with the node.
        source: NodeError,
    },
    /// A block did not open right after it was sealed: memory or processor are faulty.
    #[error("a block did not open after it was sealed; is the machine's memory sound?")]
    Unsound,
}

impl From<LocalError> for StoreError {
    fn from(error: LocalError) -> Self {
        StoreError::Repository(error.into())
    }
}

impl From<crate::repository::read_error::ReadError> for StoreError {
    fn from(error: crate::repository::read_error::ReadError) -> Self {
        StoreError::Repository(error.into())
    }
}

/// What kind of bytes a chunk holds. Chunks of one kind share blocks, which compress better then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texture {
    /// Text: headers, bodies, markup, source code.
    Text,
    /// Everything else.
    Binary,
    /// The description that a service gives of an item. They resemble each other, and reading an item does not need
    /// them.
    Payload,
    /// Text extracted from mails. Searching reads it; reading the mails does not.
    Reading,
    /// The form in which a service exports an item. Only a restore reads it.
    Stream,
}

impl Texture {
    const ALL: [Texture; 5] = [Texture::Text, Texture::Binary, Texture::Payload, Texture::Reading, Texture::Stream];
}

/// A chunk that may be new to the repository.
pub struct NewChunk<'a> {
    /// Its id.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The kind of its bytes.
    pub texture: Texture,
}

/// How many bytes were stored so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredBytes {
    /// Bytes of new chunks before compression.
    pub added_bytes: u64,
    /// Bytes of packs and index objects.
    pub stored_bytes: u64,
}

/// A block before it is sealed.
struct OpenBlock {
    number: u64,
    plaintext: Vec<u8>,
    blobs: Vec<BlobRecord>,
}

struct SealedBlock {
    number: u64,
    bytes: Vec<u8>,
    blobs: Vec<BlobRecord>,
}

enum ToPacker {
    Block(SealedBlock),
    /// Asks the packer to store everything up to this block, then answer.
    Flush {
        below: u64,
        done: Sender<()>,
    },
}

enum ToStorer {
    Pack(Box<Pack>),
    Answer(Sender<()>),
}

/// Chunks that were appended, but are not in the local index yet.
#[derive(Default)]
struct Blocks {
    /// The block that is being filled, for each texture.
    open: [(Vec<u8>, Vec<BlobRecord>); Texture::ALL.len()],
    underway: HashSet<ChunkId>,
    next_number: u64,
}

struct StoreState {
    repository: Arc<Repository>,
    local: LocalState,
    blocks: Mutex<Blocks>,
    /// Packs that no index object lists yet.
    unindexed: Mutex<Vec<(PackId, Footer)>>,
    error: Mutex<Option<StoreError>>,
    failed: AtomicBool,
    added_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

/// Writes into a repository; see the module. Methods may be called from any thread.
pub struct Store {
    shared: Arc<StoreState>,
    to_sealers: Option<Sender<OpenBlock>>,
    to_packer: Option<Sender<ToPacker>>,
    nodes: Mutex<NodeQueue>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Starts the threads. `adopted` are packs that no index object lists ([`LocalState::sync`]); this run will index
    /// them.
    pub fn new(repository: Arc<Repository>, local: LocalState, adopted: Vec<(PackId, Footer)>) -> Self {
        let shared = Arc::new(StoreState {
            repository,
            local,
            blocks: Mutex::default(),
            unindexed: Mutex::new(adopted),
            error: Mutex::default(),
            failed: AtomicBool::new(false),
            added_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
        });
        let (to_sealers, sealer_input) = bounded(OPEN_BLOCKS_WAITING_MAX);
        let (to_packer, packer_input) = bounded(SEALED_BLOCKS_WAITING_MAX);
        // One pack is being filled while another is stored. The faster of the two stages waits for the other.
        let (to_storer, storer_input) = bounded(0);
        let sealers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = Vec::new();
        for _ in 0..sealers {
            let (shared, input, output) = (shared.clone(), sealer_input.clone(), to_packer.clone());
            threads.push(std::thread::spawn(move || seal_blocks(&shared, sealers, &input, &output)));
        }
        let (packing, storing) = (shared.clone(), shared.clone());
        threads.push(std::thread::spawn(move || pack_blocks(&packing, &packer_input, &to_storer)));
        threads.push(std::thread::spawn(move || store_packs(&storing, &storer_input)));
        Self { shared, to_sealers: Some(to_sealers), to_packer: Some(to_packer), nodes: Mutex::default(), threads }
    }

    /// Returns the local state.
    pub fn local(&self) -> &LocalState {
        &self.shared.local
    }

    /// Returns how much was stored so far.
    pub fn stored(&self) -> StoredBytes {
        StoredBytes {
            added_bytes: self.shared.added_bytes.load(Ordering::Relaxed),
            stored_bytes: self.shared.stored_bytes.load(Ordering::Relaxed),
        }
    }

    /// Returns whether a pack holds the chunk. A chunk that was appended and is not stored yet does not count.
    ///
    /// # Errors
    /// When the local index fails.
    pub fn has_chunk(&self, id: ChunkId) -> Result<bool, StoreError> {
        Ok(self.shared.local.find_blob(&id.into())?.is_some())
    }

    /// Returns whether a pack holds everything that `segment` refers to.
    ///
    /// For a list only its node is looked up: nodes are stored after everything they refer to.
    ///
    /// # Errors
    /// When the local index fails.
    pub fn has_segment(&self, segment: &Segment) -> Result<bool, StoreError> {
        match segment {
            Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => {
                for chunk in chunks {
                    if !self.has_chunk(chunk.id)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Segment::List { node, .. } => self.has_node(node.id),
            Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
                for segment in segments {
                    if !self.has_segment(segment)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Returns whether a pack holds the node.
    ///
    /// # Errors
    /// When the local index fails.
    pub fn has_node(&self, id: NodeId) -> Result<bool, StoreError> {
        Ok(self.shared.local.find_blob(&id.into())?.is_some())
    }

    /// Stores the `chunks` next to each other, except for those that were appended before and are not stored yet.
    ///
    /// Callers ask [`Store::has_chunk`] first, because this method does not look into the index.
    ///
    /// # Errors
    /// [`StoreError::GivenUp`] when a later stage has failed.
    pub fn append<'a>(&self, chunks: impl Iterator<Item = NewChunk<'a>>) -> Result<(), StoreError> {
        let block_size = self.shared.repository.config().block_size as usize;
        // The lock numbers the full blocks, and they are sent in the order of their numbers.
        let mut full = Vec::new();
        {
            let mut blocks = self.shared.blocks.lock();
            for chunk in chunks {
                if !blocks.underway.insert(chunk.id) {
                    continue;
                }
                self.shared.added_bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                full.extend(blocks.add(&chunk, block_size));
            }
        }
        full.into_iter().try_for_each(|block| self.send_block(block))?;
        self.check()
    }

    fn send_block(&self, block: OpenBlock) -> Result<(), StoreError> {
        let sender = self.to_sealers.as_ref().ok_or(StoreError::GivenUp)?;
        sender.send(block).map_err(|_| StoreError::GivenUp)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.shared.failed.load(Ordering::Relaxed) { Err(StoreError::GivenUp) } else { Ok(()) }
    }

    /// Waits until everything appended so far is durable and in the local index.
    fn flush_content(&self) -> Result<(), StoreError> {
        let (rest, below) = {
            let mut blocks = self.shared.blocks.lock();
            let rest: Vec<_> = Texture::ALL.into_iter().filter_map(|t| blocks.close(t)).collect();
            (rest, blocks.next_number)
        };
        rest.into_iter().try_for_each(|block| self.send_block(block))?;
        let (done, wait) = bounded(1);
        let sender = self.to_packer.as_ref().ok_or(StoreError::GivenUp)?;
        sender.send(ToPacker::Flush { below, done }).map_err(|_| StoreError::GivenUp)?;
        loop {
            match wait.recv_timeout(Duration::from_secs(1)) {
                Ok(()) => return self.check(),
                // A stage that panicked does not answer, but it has set the error.
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(StoreError::GivenUp),
            }
        }
    }

    /// Stores a node, unless the repository has it. Children must come before their parents.
    ///
    /// # Errors
    /// When an earlier stage failed or the queue of nodes could not be written.
    pub fn put_node(&self, node: NewNode) -> Result<(), StoreError> {
        let mut nodes = self.nodes.lock();
        if nodes.queued.contains(&node.id) || self.shared.local.find_blob(&node.id.into())?.is_some() {
            return Ok(());
        }
        self.shared.added_bytes.fetch_add(node.canonical.len() as u64, Ordering::Relaxed);
        nodes.queued.insert(node.id);
        nodes.bytes += node.canonical.len();
        nodes.nodes.push(node);
        if nodes.bytes < NODE_QUEUE_BYTES_MAX {
            return Ok(());
        }
        self.flush_nodes(&mut nodes)
    }

    fn flush_nodes(&self, queue: &mut NodeQueue) -> Result<(), StoreError> {
        self.flush_content()?;
        let mut writer = NodeWriter::new(&self.shared);
        for node in std::mem::take(queue).nodes {
            writer.push(&node)?;
        }
        writer.finish()
    }

    /// Writes everything that waits, and the index objects. Returns when all of it is durable.
    ///
    /// # Errors
    /// The first error of any stage.
    pub fn finish(mut self) -> Result<(LocalState, StoredBytes), StoreError> {
        let written = self.flush_nodes(&mut self.nodes.lock()).and_then(|()| self.flush_content());
        self.stop();
        if let Some(error) = self.shared.error.lock().take() {
            return Err(error);
        }
        written?;
        let packs = std::mem::take(&mut *self.shared.unindexed.lock());
        self.shared.save_index(&packs)?;
        let stored = self.stored();
        let shared = self.shared.clone();
        drop(self);
        let shared = Arc::into_inner(shared).expect("all threads have ended");
        shared.local.flush()?;
        Ok((shared.local, stored))
    }

    fn stop(&mut self) {
        self.to_sealers = None;
        self.to_packer = None;
        for thread in self.threads.drain(..) {
            // The panic has been printed already. The other stages notice it by the closed channels.
            if thread.join().is_err() {
                self.shared.fail(StoreError::GivenUp);
            }
        }
    }

    /// Returns the location of a stored blob.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if it is not stored.
    pub fn location(local: &LocalState, blob: BlobId) -> Result<Location, StoreError> {
        local.find_blob(&blob)?.ok_or(StoreError::Lost { blob })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

impl NodeSink for &Store {
    type Error = StoreError;

    fn put(&mut self, node: NewNode) -> Result<(), StoreError> {
        // A node that readers refuse must not get into a tree: its whole folder would be unreadable.
        Node::decode(&node.canonical).map_err(|source| StoreError::Node { source })?;
        self.put_node(node)
    }
}

impl Blocks {
    fn add(&mut self, chunk: &NewChunk<'_>, block_size: usize) -> Option<OpenBlock> {
        let (plaintext, blobs) = &mut self.open[chunk.texture as usize];
        if plaintext.capacity() == 0 {
            plaintext.reserve_exact(block_size + chunk.bytes.len());
        }
        plaintext.extend_from_slice(chunk.bytes);
        blobs.push(BlobRecord { id: chunk.id.into(), len: chunk.bytes.len() as u32 });
        if plaintext.len() >= block_size { self.close(chunk.texture) } else { None }
    }

    fn close(&mut self, texture: Texture) -> Option<OpenBlock> {
        let (plaintext, blobs) = &mut self.open[texture as usize];
        if blobs.is_empty() {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        Some(OpenBlock { number, plaintext: std::mem::take(plaintext), blobs: std::mem::take(blobs) })
    }
}

impl StoreState {
    fn fail(&self, error: StoreError) {
        self.error.lock().get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Stores index objects that list `packs`, each with about [`BLOBS_PER_OBJECT`] blobs.
    fn save_index(&self, mut packs: &[(PackId, Footer)]) -> Result<(), StoreError> {
        while !packs.is_empty() {
            let mut blobs = 0;
            let fits = |(_, footer): &&(PackId, Footer)| {
                let before = blobs;
                blobs += footer.blobs();
                before < BLOBS_PER_OBJECT
            };
            let (group, rest) = packs.split_at(packs.iter().take_while(fits).count());
            let index = self.repository.save_index(group)?;
            self.local.mark_indexed(index, group.iter().map(|(id, _)| *id))?;
            packs = rest;
        }
        Ok(())
    }

    /// Stores a pack, then adds its blobs to the local index.
    fn save_pack(&self, pack: Pack) -> Result<(), StoreError> {
        let name = crate::backend::ObjectName::pack(pack.id.0);
        self.repository.backend().save(name, &pack.bytes).map_err(RepositoryError::from)?;
        self.stored_bytes.fetch_add(pack.bytes.len() as u64, Ordering::Relaxed);
        self.local.add_pack(pack.id, &pack.footer)?;
        let full = {
            let mut unindexed = self.unindexed.lock();
            unindexed.push((pack.id, pack.footer));
            let blobs = unindexed.iter().map(|(_, footer)| footer.blobs());
            (blobs.sum::<usize>() >= BLOBS_PER_OBJECT).then(|| std::mem::take(&mut *unindexed))
        };
        full.map_or(Ok(()), |packs| self.save_index(&packs))
    }
}

/// Sets the error if a stage panics, so that nobody waits for that stage.
struct OnPanic<'a>(&'a StoreState);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(StoreError::GivenUp);
        }
    }
}

/// Seals blocks, on each of `sealers` threads.
fn seal_blocks(shared: &StoreState, sealers: usize, input: &Receiver<OpenBlock>, output: &Sender<ToPacker>) {
    let _on_panic = OnPanic(shared);
    let (keys, purpose) = (shared.repository.keys(), PackKind::Data.purpose());
    let mut compressor = Compressor::new(DATA_LEVEL);
    for block in input {
        // Blocks that wait are sealed together, which is quicker, but no more than a fair share: the other sealers want
        // work as well.
        let share = (input.len() / sealers).min(SEALED_TOGETHER_MAX - 1);
        let blocks: Vec<_> = std::iter::once(block).chain(input.try_iter().take(share)).collect();
        let plaintexts = blocks.iter().map(|block| (&[][..], block.plaintext.as_slice()));
        let sealed = sealed::seal_many(keys, purpose, plaintexts, &mut compressor);
        // A bit may have flipped in memory since the chunks got their ids. Such damage would stay for ever: later
        // backups find the chunks in the index and do not store them again.
        let mut copies = sealed.clone();
        if !hold(keys, copies.iter_mut().zip(blocks.iter().map(|block| block.blobs.as_slice()))) {
            shared.fail(StoreError::Unsound);
            return;
        }
        for (block, bytes) in blocks.into_iter().zip(sealed) {
            let sealed = SealedBlock { number: block.number, bytes, blobs: block.blobs };
            if output.send(ToPacker::Block(sealed)).is_err() {
                return;
            }
        }
    }
}

/// Returns whether sealed blocks open and hold exactly their blobs, each with the bytes that its id stands for. Opens
/// them in place.
fn hold<'a>(keys: &Keys, blocks: impl Iterator<Item = (&'a mut Vec<u8>, &'a [BlobRecord])>) -> bool {
    let (sealed, blobs): (Vec<_>, Vec<_>) = blocks.map(|(sealed, blobs)| (Message::unbound(sealed), blobs)).unzip();
    let mut opened = sealed::open_many(keys, PackKind::Data.purpose(), sealed).zip(blobs);
    opened.all(|(plaintext, blobs)| plaintext.is_ok_and(|plaintext| holds(keys, &plaintext, blobs)))
}

/// Returns whether the plaintext of a block consists of exactly `blobs`.
fn holds(keys: &Keys, mut plaintext: &[u8], blobs: &[BlobRecord]) -> bool {
    let is_own = |blob: &BlobRecord| {
        let bytes = plaintext.split_off(..blob.len as usize);
        bytes.is_some_and(|bytes| BlobId::from(keys.chunk_id(bytes)) == blob.id)
    };
    blobs.iter().all(is_own) && plaintext.is_empty()
}

/// Puts blocks into packs in the order of their arrival. Answers a flush when all earlier blocks have arrived.
fn pack_blocks(shared: &StoreState, input: &Receiver<ToPacker>, output: &Sender<ToStorer>) {
    let _on_panic = OnPanic(shared);
    let mut packer = Packer {
        shared,
        output,
        compressor: Compressor::new(META_LEVEL),
        builder: PackBuilder::new(PackKind::Data, shared.repository.config().pack_size),
        complete_below: 0,
        ahead: BTreeSet::new(),
        flushes: Vec::new(),
    };
    for message in input {
        let sent = match message {
            ToPacker::Block(block) => packer.add(block),
            ToPacker::Flush { below, done } => {
                packer.flushes.push((below, done));
                packer.answer()
            }
        };
        if sent.is_none() {
            break;
        }
    }
}

struct Packer<'a> {
    shared: &'a StoreState,
    output: &'a Sender<ToStorer>,
    compressor: Compressor,
    builder: PackBuilder,
    /// All blocks with a lower number have arrived. `ahead` holds the higher numbers that have arrived.
    complete_below: u64,
    ahead: BTreeSet<u64>,
    flushes: Vec<(u64, Sender<()>)>,
}

impl Packer<'_> {
    fn add(&mut self, block: SealedBlock) -> Option<()> {
        self.builder.push(&block.bytes, block.blobs);
        self.ahead.insert(block.number);
        while self.ahead.remove(&self.complete_below) {
            self.complete_below += 1;
        }
        if self.builder.len() >= self.shared.repository.config().pack_size as usize {
            self.close()?;
        }
        self.answer()
    }

    fn close(&mut self) -> Option<()> {
        if self.builder.is_empty() {
            return Some(());
        }
        let builder = std::mem::replace(
            &mut self.builder,
            PackBuilder::new(PackKind::Data, self.shared.repository.config().pack_size),
        );
        let pack = builder.finish(self.shared.repository.keys(), &mut self.compressor);
        self.output.send(ToStorer::Pack(Box::new(pack))).ok()
    }

    fn answer(&mut self) -> Option<()> {
        while let Some(position) = self.flushes.iter().position(|(below, _)| *below <= self.complete_below) {
            let (_, done) = self.flushes.swap_remove(position);
            self.close()?;
            self.output.send(ToStorer::Answer(done)).ok()?;
        }
        Some(())
    }
}

fn store_packs(shared: &StoreState, input: &Receiver<ToStorer>) {
    let _on_panic = OnPanic(shared);
    for message in input {
        match message {
            // After an error the remaining packs are dropped, so that no earlier stage waits for room in a channel.
            ToStorer::Pack(_) if shared.failed.load(Ordering::Relaxed) => {}
            ToStorer::Pack(pack) => {
                let stored: Vec<_> =
                    pack.footer.blocks.iter().flat_map(|block| &block.blobs).map(|blob| blob.id).collect();
                match shared.save_pack(*pack) {
                    Ok(()) => {
                        let mut blocks = shared.blocks.lock();
                        stored.iter().for_each(|id| _ = blocks.underway.remove(&ChunkId(id.0)));
                    }
                    Err(error) => shared.fail(error),
                }
            }
            ToStorer::Answer(done) => _ = done.send(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mem::Mem;
    use crate::format::keyslot::PasswordCost;
    use crate::repository::CreateOptions;

    fn store(state: &std::path::Path) -> (Arc<Repository>, Store) {
        let cost = PasswordCost { memory_kib: 8, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let repository = Repository::create(Arc::new(Mem::new()), b"password", &options).expect("created").0;
        let local = LocalState::open(state, &repository).expect("local state");
        let repository = Arc::new(repository);
        (repository.clone(), Store::new(repository, local, Vec::new()))
    }

    #[test]
    fn a_chunk_that_went_bad_in_memory_is_not_stored() {
        let state = tempfile::tempdir().expect("a temporary folder");
        for flipped in [false, true] {
            let (repository, store) = store(&state.path().join(flipped.to_string()));
            let mut bytes = b"some content ".repeat(100);
            let id = repository.keys().chunk_id(&bytes);
            // The bit flips after the id was computed and before the block is sealed.
            bytes[700] ^= u8::from(flipped);
            store.append([NewChunk { id, bytes: &bytes, texture: Texture::Text }].into_iter()).expect("room");
            let finished = store.finish();
            assert_eq!(matches!(finished, Err(StoreError::Unsound)), flipped, "{:?}", finished.err());
            assert_eq!(repository.packs().expect("listed").is_empty(), flipped);
        }
    }

    #[test]
    fn a_block_is_held_against_every_blob_in_it() {
        let keys = Keys::derive(
            &crate::format::crypto::MasterKey::from_bytes([1; 32]),
            crate::format::crypto::Cipher::Aes256Siv,
        );
        let chunks: [&[u8]; 3] = [b"one", b"", b"three"];
        let record = |bytes: &[u8]| BlobRecord { id: keys.chunk_id(bytes).into(), len: bytes.len() as u32 };
        let blobs: Vec<_> = chunks.iter().map(|bytes| record(bytes)).collect();
        let seal = |plain: &[u8]| sealed::seal(&keys, PackKind::Data.purpose(), plain, &mut Compressor::new(1));
        // The block stands alone, and at each place among sound ones.
        let holds = |sealed: Vec<u8>, blobs: &[BlobRecord]| {
            let together = |before: usize, after: usize| {
                let sound = || (seal(b"one"), &blobs[..1]);
                let mut blocks: Vec<_> = (0..before).map(|_| sound()).collect();
                blocks.push((sealed.clone(), blobs));
                blocks.extend((0..after).map(|_| sound()));
                hold(&keys, blocks.iter_mut().map(|(sealed, blobs)| (sealed, *blobs)))
            };
            let alone = together(0, 0);
            assert!([(0, 9), (1, 0), (4, 4), (9, 1)].iter().all(|(before, after)| together(*before, *after) == alone));
            alone
        };
        assert!(holds(seal(b"onethree"), &blobs));
        assert!(!holds(seal(b"onethref"), &blobs) && !holds(seal(b"onethree!"), &blobs));
        assert!(!holds(seal(b"onethre"), &blobs) && !holds(seal(b"onethree"), &blobs[..2]));
        let mut sealed = seal(b"onethree");
        sealed[3] ^= 1;
        assert!(!holds(sealed, &blobs));
    }
}
