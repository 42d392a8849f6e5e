//! Decodes blocks on its own threads before they are asked for.
//!
//! Somebody who reads a folder file by file soon needs the block after the current one. Decoding that block in the
//! background hides most of its cost. The caller guesses which blocks come next. A wrong guess costs the time of one
//! block on an otherwise idle core, so guesses are dropped when the threads are busy.
//!
//! If loading a block takes no longer than decoding it, one thread is enough and only one runs. If the storage is far
//! away, more blocks are loaded at a time: as many as one thread decodes while one block arrives.

use super::Reader;
use crate::format::pack::{BlockLocation, PackKind};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Maximum number of waiting guesses for each thread. With more, the blocks would have been read before their turn.
const WAITING_MAX: usize = 2;
/// Maximum number of blocks that are loaded ahead at a time.
const THREADS_MAX: usize = 8;

/// The queue of the threads that decode ahead. The threads end with their reader.
pub(super) struct Ahead {
    reader: Weak<Reader>,
    guesses: Sender<BlockLocation>,
    wanted: Receiver<BlockLocation>,
    threads: Mutex<usize>,
    pace: Mutex<Pace>,
}

/// How long a block takes, in seconds: a moving average of the last blocks.
#[derive(Default)]
struct Pace {
    loading: f64,
    decoding: f64,
}

impl Pace {
    fn record(&mut self, loading: Duration, decoding: Duration) {
        let follow = |average: &mut f64, new: Duration| *average += (new.as_secs_f64() - *average) / 8.0;
        follow(&mut self.loading, loading);
        follow(&mut self.decoding, decoding);
    }

    /// Returns how many blocks to load at a time, so that one is always ready to decode.
    fn depth(&self) -> usize {
        // At least 1 ms: storage that answers faster is near, even if small blocks decode much faster.
        let blocks = self.loading / self.decoding.max(0.001);
        (1 + blocks as usize).min(THREADS_MAX)
    }
}

impl Ahead {
    /// Starts a thread, or returns `None` if the system gives none. Reading still works then, without decoding ahead.
    pub fn start(reader: Weak<Reader>) -> Option<Self> {
        let (guesses, wanted) = bounded(WAITING_MAX * THREADS_MAX);
        let ahead = Self { reader, guesses, wanted, threads: Mutex::new(0), pace: Mutex::default() };
        let has_one = ahead.have_threads(1);
        has_one.then_some(ahead)
    }

    /// Starts threads until there are `wanted`. Returns false if the system gives no more.
    fn have_threads(&self, wanted: usize) -> bool {
        let mut threads = self.threads.lock();
        while *threads < wanted {
            let (reader, wanted) = (self.reader.clone(), self.wanted.clone());
            let decode = move || wanted.iter().map_while(|block| decode(&reader, block)).for_each(drop);
            if std::thread::Builder::new().name("read-ahead".to_owned()).spawn(decode).is_err() {
                return false;
            }
            *threads += 1;
        }
        true
    }

    /// Records how long it took to load and to decode a block.
    pub fn record(&self, loading: Duration, decoding: Duration) {
        self.pace.lock().record(loading, decoding);
    }
}

/// Decodes a block unless the cache has it. Returns `None` when the reader is gone.
fn decode(reader: &Weak<Reader>, block: BlockLocation) -> Option<()> {
    let reader = reader.upgrade()?;
    // A block may be guessed twice, and another thread may have begun it.
    if !reader.blocks.contains(&block)
        && let Err(error) = reader.block(block, PackKind::Data)
    {
        // A caller who really reads this block gets the same error and can act on it.
        tracing::debug!(%error, "decoding ahead failed");
    }
    Some(())
}

impl Reader {
    /// Returns the reader in an `Arc`, with threads that decode blocks ahead.
    pub fn reading_ahead(self) -> Arc<Reader> {
        Arc::new_cyclic(|reader| Reader { ahead: Ahead::start(reader.clone()), ..self })
    }

    /// Returns how many blocks [`Reader::guess`] takes at the moment.
    pub fn guesses_wanted(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.pace.lock().depth())
    }

    /// Says that content in these blocks will probably be read next, in this order. Blocks that find no room in the
    /// queue are dropped.
    pub fn guess(&self, blocks: impl Iterator<Item = BlockLocation>) {
        let Some(ahead) = &self.ahead else { return };
        let depth = self.guesses_wanted();
        let mut new = Vec::new();
        for block in blocks {
            if !new.contains(&block) && !self.blocks.contains(&block) {
                new.push(block);
            }
            if new.len() == depth {
                break;
            }
        }
        ahead.have_threads(depth);
        for block in new {
            if ahead.guesses.len() >= WAITING_MAX * depth {
                return;
            }
            match ahead.guesses.try_send(block) {
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mem::Mem;
    use crate::backend::{Backend, ObjectName};
    use crate::format::compress::Compressor;
    use crate::format::crypto::{Cipher, Keys, MasterKey};
    use crate::format::entry::{ChunkRef, Content, Segment};
    use crate::format::pack::{BlobRecord, Location, PackBuilder};
    use crate::format::sealed;
    use crate::repository::reader::CacheSizes;
    use crate::repository::reader::tests::Nowhere;
    use std::time::{Duration, Instant};

    #[test]
    fn so_many_blocks_are_loaded_at_a_time_as_are_decoded_while_one_arrives() {
        let depth = |loading_us, decoding_us| {
            let mut pace = Pace::default();
            (0..50).for_each(|_| {
                pace.record(Duration::from_micros(loading_us), Duration::from_micros(decoding_us));
            });
            pace.depth()
        };
        assert_eq!(Pace::default().depth(), 1);
        assert_eq!(depth(300, 3000), 1, "a disk");
        assert_eq!(depth(300, 20), 1, "a disk, and blocks of nothing");
        assert_eq!(depth(10_000, 3000), 4);
        assert_eq!(depth(200_000, 3000), THREADS_MAX);
    }

    #[test]
    fn what_was_guessed_rightly_needs_the_storage_no_more() {
        let keys = Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::Aes256Siv));
        let bytes = b"the content of the block that comes next".as_slice();
        let (id, len) = (keys.chunk_id(bytes), bytes.len() as u32);
        let sealed = sealed::seal(&keys, PackKind::Data.purpose(), bytes, &mut Compressor::new(1));
        let mut builder = PackBuilder::new(PackKind::Data, 0);
        builder.push(&sealed, vec![BlobRecord { id: id.into(), len }]);
        let pack = builder.finish(&keys, &mut Compressor::new(1));
        let (backend, name) = (Arc::new(Mem::default()), ObjectName::pack(pack.id.0));
        backend.save(name, &pack.bytes).expect("room");
        let block = BlockLocation { pack: pack.id, offset: 0, len: sealed.len() as u32 };
        let chunk = ChunkRef { id, len, hint: Some(Location { block, offset: 0, len }) };
        let content = Content { segments: vec![Segment::Raw(vec![chunk])] };

        let reader = Reader::new(backend.clone(), keys, Box::new(Nowhere), CacheSizes::default()).reading_ahead();
        reader.guess(content.blocks());
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_decoded = || reader.blocks.get(&block).is_some_and(|slot| slot.lock().is_some());
        while !is_decoded() {
            assert!(Instant::now() < deadline, "nothing was decoded");
            std::thread::yield_now();
        }
        backend.remove(name).expect("it is there");
        let mut read = Vec::new();
        reader.read(&content, 0, usize::MAX, &mut read).expect("it is in memory");
        assert_eq!(read, bytes);
    }
}
