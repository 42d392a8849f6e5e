//! Finding blobs without local state.

use super::{Repository, RepositoryError};
use crate::backend::{Backend, BackendError, ObjectName};
use crate::format::id::{BlobId, IndexId, PackId};
use crate::format::index::Index;
use crate::format::pack::Location;
use crate::repository::reader::{Lookup, ReadError};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Blobs of which it is remembered that they lie nowhere else, up to this many.
const MISSED_MAX: usize = 100_000;

/// Looks blobs up in the index objects, one after the other: for readers without local state, which seldom need it.
pub struct IndexSearch {
    repository: Arc<Repository>,
    /// The object that answered last, which often answers next.
    last: Mutex<Option<(IndexId, Arc<Index>)>>,
    missed: Mutex<Missed>,
}

/// Blobs that were looked for in vain: all that a damaged pack held is asked for, some of it again and again.
#[derive(Default)]
struct Missed {
    /// The index objects that there were.
    indexes: Vec<IndexId>,
    blobs: HashSet<(BlobId, Vec<Location>)>,
}

impl IndexSearch {
    /// Creates a search over the index objects that there are when it is asked.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository, last: Mutex::default(), missed: Mutex::default() }
    }

    /// Returns a place of `blob` that is none of `tried`.
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
            // It may stand there, so nobody may say that it is missing.
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

    /// Returns whether the pack exists: an index outlives a pack that got lost, and another may know a newer copy.
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
