//! Finding blobs without local state.

use super::{Repository, RepositoryError};
use crate::backend::{BackendError, ObjectName};
use crate::id::{BlobId, IndexId, PackId};
use crate::index::Index;
use crate::pack::Location;
use crate::reader::{Lookup, ReadError};
use parking_lot::Mutex;
use std::sync::Arc;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Looks blobs up in the index objects, one after the other: for readers without local state, which seldom need it.
pub struct IndexSearch {
    repository: Arc<Repository>,
    /// The object that answered last, which often answers next.
    last: Mutex<Option<(IndexId, Arc<Index>)>>,
}

impl IndexSearch {
    /// Creates a search over the index objects that there are when it is asked.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository, last: Mutex::new(None) }
    }

    fn search(&self, blob: &BlobId) -> Result<Option<Location>> {
        let last = self.last.lock().as_ref().and_then(|(_, index)| index.find(blob));
        if let Some(location) = last
            && self.is_there(location.block.pack)?
        {
            return Ok(Some(location));
        }
        for id in self.repository.index_ids()? {
            let index = match self.repository.load_index(id) {
                Ok(index) => Arc::new(index),
                Err(error) if error.is_damage() => continue,
                Err(error) => return Err(error),
            };
            if let Some(location) = index.find(blob)
                && self.is_there(location.block.pack)?
            {
                *self.last.lock() = Some((id, index));
                return Ok(Some(location));
            }
        }
        Ok(None)
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
    fn find(&self, blob: &BlobId) -> std::result::Result<Option<Location>, ReadError> {
        self.search(blob).map_err(|error| ReadError::Index(Box::new(error)))
    }
}
