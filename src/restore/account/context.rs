//! What everything in a run shares, and what all restores to one mailbox share.

use super::journal::Journal;
use super::options::AccountOptions;
use super::outcome::ItemError;
use crate::format::crypto::Keys;
use crate::format::entry::{Content, Entry};
use crate::format::id::SnapshotId;
use crate::repository::reader::Reader;
use crate::source::graph::Client;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum number of items that are restored to one mailbox at a time. It is twice the number of requests that a
/// mailbox answers at a time, so that there is always a request to send while other items are read or compared.
pub(super) const ITEMS_AT_ONCE: usize = 8;
/// Maximum memory for the items of all mailboxes together, in bytes. A larger item is restored alone.
const ROOM_BYTES: u64 = 96 << 20;
/// The unit in which the memory is given out, in bytes. A semaphore counts no further than 32 bits.
const ROOM_PIECE_BYTES: u64 = 64 << 10;
/// The memory that an item takes, as a multiple of its size: its bytes, what was read from them, and the request.
const ROOM_FACTOR: u64 = 4;

/// Reads the contents of items.
pub(super) trait Contents: Send + Sync {
    /// Returns the bytes at `range` of a content, or fewer if it ends before.
    ///
    /// # Errors
    /// [`ItemError::Item`] or [`ItemError::Repository`].
    fn read_range(&self, content: &Content, range: Range<usize>) -> Result<Vec<u8>, ItemError>;

    /// Returns all bytes of a content.
    ///
    /// # Errors
    /// [`ItemError::Item`] or [`ItemError::Repository`].
    fn read(&self, content: &Content) -> Result<Vec<u8>, ItemError> {
        self.read_range(content, 0..usize::MAX)
    }
}

impl Contents for Reader {
    fn read_range(&self, content: &Content, range: Range<usize>) -> Result<Vec<u8>, ItemError> {
        let mut bytes = Vec::new();
        self.read(content, range.start as u64, range.len(), &mut bytes)?;
        Ok(bytes)
    }
}

/// What everything in a run shares.
pub(super) struct Context {
    pub reader: Arc<Reader>,
    pub contents: Arc<dyn Contents>,
    pub keys: Arc<Keys>,
    pub client: Client,
    pub snapshot: SnapshotId,
    pub options: AccountOptions,
    room: Semaphore,
}

/// What all restores to one mailbox share.
pub(super) struct MailboxContext {
    pub run: Arc<Context>,
    pub journal: Mutex<Journal>,
}

impl Context {
    /// Creates the context of a run. `contents` reads the bytes of items; `snapshot` names the journals.
    pub fn new(
        reader: Arc<Reader>,
        contents: Arc<dyn Contents>,
        keys: Arc<Keys>,
        client: Client,
        snapshot: SnapshotId,
        options: AccountOptions,
    ) -> Self {
        let room = Semaphore::new((ROOM_BYTES / ROOM_PIECE_BYTES) as usize);
        Self { reader, contents, keys, client, snapshot, options, room }
    }

    /// Waits until there is memory for an item.
    pub async fn room(&self, entry: &Entry) -> SemaphorePermit<'_> {
        let bytes = entry.size().max(entry.stream().map_or(0, Content::len));
        let pieces = (bytes.saturating_mul(ROOM_FACTOR) / ROOM_PIECE_BYTES + 1).min(ROOM_BYTES / ROOM_PIECE_BYTES);
        self.room.acquire_many(pieces as u32).await.expect("the semaphore is never closed")
    }

    /// Returns the name of the journal of what goes to the mailbox of `user`, an id.
    pub fn journal_name(&self, user: &str) -> String {
        let into = self.options.into.join("\0");
        let path = [&b"\0journal\0"[..], &self.snapshot.0, user.as_bytes(), b"\0", into.as_bytes()].concat();
        self.keys.local_path("restore", &path)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
