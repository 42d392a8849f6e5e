//! The splitters of a run over an organisation: they run on threads, and share the room in memory for waiting items.

use super::splitter::{Rules, Splitter};
use crate::repository::Repository;
use crate::repository::store::{Store, StoreError};
use crate::runtime::blocking;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum length in bytes of an item that waits for a splitter in memory. Longer ones stream.
pub const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Maximum number of bytes of all items that wait in memory. 256 short ones fit, which is more than the limits of a
/// service let arrive while a few are split.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Room is given out in pieces of this many bytes.
const ROOM_BYTES: u64 = 64 << 10;
/// Maximum number of pieces of room for items that are downloaded together.
pub const ROOM_AT_ONCE_MAX: u32 = 256;

/// The splitters of a run and the room for waiting items. A thread takes a splitter, uses it and returns it.
pub struct Splitters {
    idle: Mutex<Vec<Splitter>>,
    free: Arc<Semaphore>,
    room: Semaphore,
    /// One permit: long items are split one at a time, because splitting needs several times their length.
    long: Semaphore,
    /// One permit: items that are built from their parts are built one at a time, for the same reason. The permit is
    /// not that of `long`, because building sends requests while it holds the permit, and a request may wait for a
    /// streaming item that needs `long`.
    rebuilt: Semaphore,
}

impl Splitters {
    /// Makes one splitter for each core.
    pub fn new(repository: &Repository, store: &Arc<Store>) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let rules = Rules::of(repository);
        let idle = (0..count).map(|_| Splitter::new(store.clone(), rules.clone())).collect();
        Self {
            idle: Mutex::new(idle),
            free: Arc::new(Semaphore::new(count)),
            room: Semaphore::new(WAITING_BYTES_MAX / ROOM_BYTES as usize),
            long: Semaphore::new(1),
            rebuilt: Semaphore::new(1),
        }
    }

    /// Waits for room for items that are downloaded together. Take all of it at once: a caller that holds room must not
    /// wait for more, or two callers could wait for each other.
    pub async fn room(&self, pieces: u32) -> SemaphorePermit<'_> {
        self.room.acquire_many(pieces).await.expect("the semaphore is never closed")
    }

    /// Waits for the turn to build an item from its parts. The turn lasts as long as the permit.
    pub async fn one_rebuilt(&self) -> SemaphorePermit<'_> {
        self.rebuilt.acquire().await.expect("the semaphore is never closed")
    }

    /// Waits for the turn to split a long item. The turn lasts as long as the permit.
    pub async fn one_long(&self) -> SemaphorePermit<'_> {
        self.long.acquire().await.expect("the semaphore is never closed")
    }

    /// Runs `work` on a thread with a splitter, then flushes the splitter. `work` must guard its work on items
    /// ([`guarded`](crate::runtime::guarded)), because a panic loses the splitter.
    ///
    /// # Errors
    /// The errors of `work`, and if storing fails.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Splitter) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let splitters = self.clone();
        blocking(move || {
            let mut splitter = splitters.idle.lock().pop().expect("a permit stands for a splitter");
            let done = work(&mut splitter).and_then(|done| splitter.flush().map(|()| done));
            splitters.idle.lock().push(splitter);
            drop(permit);
            done
        })
        .await
    }
}

/// Returns the number of pieces of room for an item of `bytes`. `None` means that its length is unknown.
pub fn room_of(bytes: Option<u64>) -> u32 {
    (bytes.unwrap_or(WHOLE_BYTES_MAX).min(WHOLE_BYTES_MAX) / ROOM_BYTES + 1) as u32
}
