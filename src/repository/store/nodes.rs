//! Writes nodes into metadata packs, each node with the locations of everything it refers to.

use super::{Store, StoreError, StoreState};
use crate::format::compress::{Compressor, META_LEVEL};
use crate::format::crypto::Keys;
use crate::format::id::{BlobId, NodeId};
use crate::format::node::{self, BlobLocation, BlobRef, NewNode};
use crate::format::pack::{BlobRecord, PackBuilder, PackKind};
use crate::format::sealed;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Length at which a block of nodes is closed, in bytes. Blocks are short, so that finding one entry decodes little
/// (docs/decisions/0025-short-blocks-of-metadata.md).
const NODE_BLOCK_SIZE: usize = 32 << 10;

/// Nodes that wait until the content that they refer to is stored.
#[derive(Default)]
pub(super) struct NodeQueue {
    pub nodes: Vec<NewNode>,
    pub queued: HashSet<NodeId>,
    /// The canonical bytes of all these nodes together.
    pub bytes: usize,
}

/// Writes nodes into metadata packs; see the module.
pub(super) struct NodeWriter<'a> {
    shared: &'a StoreState,
    keys: Arc<Keys>,
    compressor: Compressor,
    builder: PackBuilder,
    plaintext: Vec<u8>,
    blobs: Vec<BlobRecord>,
    /// Where the nodes of the open pack are: number of the block, offset, length.
    own: HashMap<BlobId, (usize, u32, u32)>,
    /// Where the blocks of the open pack are: offset, sealed length.
    own_blocks: Vec<(u32, u32)>,
}

impl<'a> NodeWriter<'a> {
    pub fn new(shared: &'a StoreState) -> Self {
        Self {
            shared,
            keys: shared.repository.keys().clone(),
            compressor: Compressor::new(META_LEVEL),
            builder: PackBuilder::new(PackKind::Meta, shared.repository.config().pack_size),
            plaintext: Vec::new(),
            blobs: Vec::new(),
            own: HashMap::new(),
            own_blocks: Vec::new(),
        }
    }

    pub fn push(&mut self, node: &NewNode) -> Result<(), StoreError> {
        let places: Vec<_> = node.refs.iter().map(|reference| self.place(*reference)).collect::<Result<_, _>>()?;
        let stored = node::encode_stored(node, &places);
        let offset = self.plaintext.len() as u32;
        self.plaintext.extend_from_slice(&stored);
        let id = BlobId::from(node.id);
        self.blobs.push(BlobRecord { id, len: stored.len() as u32 });
        self.own.insert(id, (self.own_blocks.len(), offset, stored.len() as u32));
        if self.plaintext.len() >= NODE_BLOCK_SIZE {
            self.close_block()?;
        }
        if self.builder.len() >= self.shared.repository.config().pack_size as usize {
            self.close_pack()?;
        }
        Ok(())
    }

    fn place(&self, reference: BlobRef) -> Result<BlobLocation, StoreError> {
        let Some((block, offset, len)) = self.own.get(&reference.id()).copied() else {
            return Store::location(&self.shared.local, reference.id()).map(BlobLocation::Stored);
        };
        Ok(match self.own_blocks.get(block) {
            Some((block_offset, block_len)) => {
                BlobLocation::OwnPack { block_offset: *block_offset, block_len: *block_len, offset, len }
            }
            None => BlobLocation::OwnBlock { offset, len },
        })
    }

    fn close_block(&mut self) -> Result<(), StoreError> {
        if self.blobs.is_empty() {
            return Ok(());
        }
        let purpose = PackKind::Meta.purpose();
        let bytes = sealed::seal(&self.keys, purpose, &self.plaintext, &mut self.compressor);
        // A flipped bit in a folder's node would lose the folder. So every sealed block is opened once before it is
        // stored.
        if sealed::open(&self.keys, purpose, bytes.clone()).ok().as_deref() != Some(&self.plaintext) {
            return Err(StoreError::Unsound);
        }
        self.own_blocks.push((self.builder.len() as u32, bytes.len() as u32));
        self.builder.push(&bytes, std::mem::take(&mut self.blobs));
        self.plaintext.clear();
        Ok(())
    }

    fn close_pack(&mut self) -> Result<(), StoreError> {
        self.close_block()?;
        if self.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::replace(
            &mut self.builder,
            PackBuilder::new(PackKind::Meta, self.shared.repository.config().pack_size),
        );
        self.own.clear();
        self.own_blocks.clear();
        self.shared.save_pack(builder.finish(&self.keys, &mut self.compressor))
    }

    pub fn finish(mut self) -> Result<(), StoreError> {
        self.close_pack()
    }
}
