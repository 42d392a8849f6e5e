//! Reads items that may lie in no repository: dropped files, from where they were staged.

use crate::format::entry::Content;
use crate::repository::reader::Reader;
use crate::restore::account::context::Contents;
use crate::restore::account::outcome::ItemError;
use crate::restore::chain;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Reads the bytes of an item at a range, or fewer if it ends before.
pub type ReadRange = Arc<dyn Fn(Range<usize>) -> io::Result<Vec<u8>> + Send + Sync>;

/// Reads items from where they were staged, or else from the repository.
pub(super) struct StagedOrStored {
    reader: Arc<Reader>,
    /// The staged items that are being restored, by the hash of their content.
    staged: Mutex<HashMap<[u8; 32], StagedItem>>,
}

struct StagedItem {
    read: ReadRange,
    /// The number of restores that use it.
    users: usize,
}

impl StagedOrStored {
    pub fn new(reader: Arc<Reader>) -> Self {
        Self { reader, staged: Mutex::default() }
    }

    /// Makes the bytes of a staged item readable as long as the guard lives.
    pub fn stage(&self, content: &Content, read: ReadRange) -> StagedGuard<'_> {
        let content = *content.identity().as_bytes();
        self.staged.lock().entry(content).or_insert(StagedItem { read, users: 0 }).users += 1;
        StagedGuard { items: self, content }
    }
}

impl Contents for StagedOrStored {
    fn read_range(&self, content: &Content, range: Range<usize>) -> Result<Vec<u8>, ItemError> {
        let staged = self.staged.lock().get(content.identity().as_bytes()).map(|item| item.read.clone());
        match staged {
            Some(read) => read(range).map_err(|error| ItemError::Item(chain(&error))),
            None => self.reader.read_range(content, range),
        }
    }
}

/// Keeps the bytes of a staged item readable.
pub(super) struct StagedGuard<'a> {
    items: &'a StagedOrStored,
    content: [u8; 32],
}

impl Drop for StagedGuard<'_> {
    fn drop(&mut self) {
        let mut staged = self.items.staged.lock();
        if let Some(item) = staged.get_mut(&self.content) {
            item.users -= 1;
            if item.users == 0 {
                staged.remove(&self.content);
            }
        }
    }
}
