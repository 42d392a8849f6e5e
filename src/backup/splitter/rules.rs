//! The rules by which a repository's writers cut content. All writers must follow the same, or nothing deduplicates.

use crate::format::chunker::{ChunkSizes, Chunker};
use crate::format::crypto::Keys;
use crate::repository::Repository;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// The rules of one repository. All splitters of a run share them.
pub struct Rules {
    pub(super) keys: Arc<Keys>,
    pub(super) chunker: Chunker,
    /// If archives are taken apart, the lengths of the chunks of what is in them.
    pub(super) archives: Option<ChunkSizes>,
    turn: Mutex<()>,
}

impl Rules {
    /// Returns the rules of `repository`.
    pub fn of(repository: &Repository) -> Arc<Self> {
        let (config, keys) = (repository.config(), repository.keys());
        Arc::new(Self {
            keys: keys.clone(),
            chunker: Chunker::new(config.chunker, keys),
            archives: config.archives,
            turn: Mutex::default(),
        })
    }

    /// Waits for the turn to take a long archive apart, which needs several times its length in memory.
    pub(super) fn one_long(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }
}
