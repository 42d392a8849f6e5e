//! The splitters of a run over an organisation, which are threads, and the room in memory for what waits for them.

use super::splitter::Splitter;
use crate::format::chunker::Chunker;
use crate::repository::Repository;
use crate::repository::store::{Store, StoreError};
use crate::runtime::blocking;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Items up to this length wait in memory for their turn; longer ones stream.
pub const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Maximum number of bytes of all items that wait in memory.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Room for items is given out in pieces of this size.
const ROOM_BYTES: u64 = 64 << 10;
/// So much room is taken at once, for items that are downloaded together.
pub const ROOM_AT_ONCE_MAX: u32 = 256;

/// The splitters of a run, each for one thread at a time, and the room for what waits for them.
pub struct Splitters {
    idle: Mutex<Vec<Splitter>>,
    free: Arc<Semaphore>,
    room: Semaphore,
    /// Long items are taken one at a time: taking one apart needs several times its length.
    long: Semaphore,
    /// So are items that are built from their parts. They need requests while they have their turn, which those that
    /// stream do not: so it is a turn of its own, and nobody waits for somebody who waits for him.
    rebuilt: Semaphore,
}

impl Splitters {
    /// Makes one for each core.
    pub fn new(repository: &Repository, store: &Arc<Store>) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let chunker = Arc::new(Chunker::new(repository.config().chunker, repository.keys()));
        let idle =
            (0..count).map(|_| Splitter::new(store.clone(), repository.keys().clone(), chunker.clone())).collect();
        Self {
            idle: Mutex::new(idle),
            free: Arc::new(Semaphore::new(count)),
            room: Semaphore::new(WAITING_BYTES_MAX / ROOM_BYTES as usize),
            long: Semaphore::new(1),
            rebuilt: Semaphore::new(1),
        }
    }

    /// Waits for room for items that are downloaded together. It is taken at once and for all of them: whoever has
    /// room waits for no more of it.
    pub async fn room(&self, pieces: u32) -> SemaphorePermit<'_> {
        self.room.acquire_many(pieces).await.expect("the semaphore is never closed")
    }

    /// Waits until no item is being built from its parts, and keeps others waiting as long as the permit lives.
    pub async fn one_rebuilt(&self) -> SemaphorePermit<'_> {
        self.rebuilt.acquire().await.expect("the semaphore is never closed")
    }

    /// Waits until no long item is being worked on, and keeps others waiting as long as the permit lives.
    pub async fn one_long(&self) -> SemaphorePermit<'_> {
        self.long.acquire().await.expect("the semaphore is never closed")
    }

    /// Runs `work` on a thread with a splitter, and hands on what it has collected. Work on an item in it is
    /// [`guarded`](crate::runtime::guarded), or the splitter is lost.
    ///
    /// # Errors
    /// Those of `work`, and when nothing can be stored.
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

/// Returns how many pieces of room an item of `bytes` takes in memory, or one whose length is not known.
pub fn room_of(bytes: Option<u64>) -> u32 {
    (bytes.unwrap_or(WHOLE_BYTES_MAX).min(WHOLE_BYTES_MAX) / ROOM_BYTES + 1) as u32
}
