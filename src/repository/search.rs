//! Finds blobs without local state.

use super::{Repository, RepositoryError};
use crate::backend::{Backend, BackendError, ObjectName};
use crate::format::id::{BlobId, IndexId, PackId};
use crate::format::index::Index;
use crate::format::pack::Location;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Lookup;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Maximum number of remembered searches that found nothing.
const MISSED_MAX: usize = 100_000;

/// Looks blobs up in the index objects, one object after the other. For readers without local state, which seldom need
/// a look-up.
pub struct IndexSearch {
    repository: Arc<Repository>,
    /// The index object that answered the last look-up. It often answers the next one too.
    last: Mutex<Option<(IndexId, Arc<Index>)>>,
    missed: Mutex<Missed>,
}

/// Searches that found nothing. When a pack is damaged, readers ask for its blobs again and again.
#[derive(Default)]
struct Missed {
    /// The index objects that existed then. If they change, the searches are forgotten.
    indexes: Vec<IndexId>,
    blobs: HashSet<(BlobId, Vec<Location>)>,
}

impl IndexSearch {
    /// Creates a search. Each look-up lists the index objects anew.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository, last: Mutex::default(), missed: Mutex::default() }
    }

    /// Returns a location of `blob` that is not among `tried`.
    fn search(&self, blob: &BlobId, tried: &[Location]) -> Result<Option<Location>> {
        let last = self.last.lock().as_ref().and_then(|(_, index)| self.other(index, blob, tried));
        if let Some(location) = last
            && self.is_there(location.block.pack)?
        {
            return Ok(Some(location));
        }
        let indexes = self.repository.index_ids()?;
        let asked = (*blob, tried.to_vec());
        {
            let mut missed = self.missed.lock();
            if missed.indexes != indexes {
                *missed = Missed { indexes: indexes.clone(), blobs: HashSet::new() };
            }
            if missed.blobs.contains(&asked) {
                return Ok(None);
            }
        }
        let mut unread = None;
        for id in indexes {
            let index = match self.repository.load_index(id) {
                Ok(index) => Arc::new(index),
                Err(error) if error.is_damage() => continue,
                Err(error) if error.is_of_later_version() => {
                    unread = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(location) = self.other(&index, blob, tried)
                && self.is_there(location.block.pack)?
            {
                *self.last.lock() = Some((id, index));
                return Ok(Some(location));
            }
        }
        match unread {
            // The unread index object may list the blob, so the blob must not be reported as missing.
            Some(error) if tried.is_empty() => Err(error),
            _ => {
                let blobs = &mut self.missed.lock().blobs;
                if blobs.len() < MISSED_MAX {
                    blobs.insert(asked);
                }
                Ok(None)
            }
        }
    }

    fn other(&self, index: &Index, blob: &BlobId, tried: &[Location]) -> Option<Location> {
        index.find_all(blob).find(|location| !tried.contains(location))
    }

    /// Returns whether the pack exists. An index object may list a pack that got lost, and another index object may
    /// list a newer copy of the blob.
    fn is_there(&self, pack: PackId) -> Result<bool> {
        match self.repository.backend.size(ObjectName::pack(pack.0)) {
            Ok(_) => Ok(true),
            Err(BackendError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Lookup for IndexSearch {
    fn find_elsewhere(&self, blob: &BlobId, tried: &[Location]) -> std::result::Result<Option<Location>, ReadError> {
        self.search(blob, tried).map_err(|error| ReadError::Index(Box::new(error)))
    }
}
