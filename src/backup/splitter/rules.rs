//! The rules by which a repository's writers cut content. All writers must follow the same, or nothing deduplicates.

use super::archive::Apart;
use crate::format::chunker::{ChunkSizes, Chunker};
use crate::format::crypto::Keys;
use crate::repository::Repository;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Number of archives that are remembered, and the number of chunks up to which: at most 10 MiB together, usually 2.
const SEEN_MAX: NonZeroUsize = NonZeroUsize::new(2048).expect("more than none");
const SEEN_CHUNKS_MAX: usize = 128;

/// The rules of one repository. All splitters of a run share them.
pub struct Rules {
    pub(super) keys: Arc<Keys>,
    pub(super) chunker: Chunker,
    /// If archives are taken apart, the lengths of the chunks of what is in them.
    pub(super) archives: Option<ChunkSizes>,
    turn: Mutex<()>,
    /// The archives that were met last, with what became of them.
    seen: Mutex<LruCache<[u8; 32], Option<Arc<Apart>>>>,
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
            seen: Mutex::new(LruCache::new(SEEN_MAX)),
        })
    }

    /// Waits for the turn to take a long archive apart, which needs several times its length in memory.
    pub(super) fn one_long(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Returns what became of an archive, if that is remembered: `None` in it if it is better stored as it is.
    pub(super) fn seen(&self, key: &[u8; 32]) -> Option<Option<Arc<Apart>>> {
        self.seen.lock().get(key).cloned()
    }

    /// Remembers what became of an archive.
    pub(super) fn remember(&self, key: [u8; 32], apart: Option<Arc<Apart>>) {
        if apart.as_ref().is_none_or(|apart| apart.chunks_len() <= SEEN_CHUNKS_MAX) {
            self.seen.lock().put(key, apart);
        }
    }
}
