//! Why something could not be read from a repository.

use crate::backend::BackendError;
use crate::format::id::{BlobId, NodeId, PackId};
use crate::format::node::NodeError;
use crate::format::sealed::OpenError;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No pack holds the blob.
    #[error("{blob} is in no pack")]
    Missing {
        /// The blob.
        blob: BlobId,
    },
    /// The storage failed.
    #[error("could not read the repository")]
    Backend(#[from] BackendError),
    /// A block does not open.
    #[error("block at byte {offset} of pack {pack} {source}")]
    Block {
        /// The pack that holds the block.
        pack: PackId,
        /// Where the block begins in the pack, in bytes.
        offset: u32,
        /// What is wrong with the block.
        source: OpenError,
    },
    /// A block opens, but does not hold the right bytes.
    #[error("the bytes stored for {blob} do not match its id")]
    Mismatch {
        /// The blob that should be there.
        blob: BlobId,
    },
    /// A node has the right id, but cannot be decoded.
    #[error("node {node} is not readable")]
    Node {
        /// The node.
        node: NodeId,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// A node has the right id, but another place in the tree than it should.
    #[error("node {node} {what}")]
    MalformedNode {
        /// The node.
        node: NodeId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An archive that was taken apart cannot be made again.
    #[error("an archive {what}")]
    Archive {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The local index could not be read.
    #[error("could not read the local index")]
    Index(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ReadError {
    pub(crate) fn malformed_node(node: NodeId, what: &'static str) -> Self {
        ReadError::MalformedNode { node, what }
    }

    /// Returns true if the repository is damaged, false if it is only out of reach for now.
    pub fn is_damage(&self) -> bool {
        match self {
            ReadError::Backend(error) => {
                matches!(error, BackendError::NotFound { .. } | BackendError::Short { .. })
            }
            ReadError::Index(_) => false,
            _ => true,
        }
    }
}
