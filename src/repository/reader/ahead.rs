//! Decodes blocks on its own threads before they are asked for.
//!
//! Somebody who reads a folder file by file soon needs the block after the current one. Decoding that block in the
//! background hides most of its cost. The caller guesses which blocks come next. A wrong guess costs the time of a few
//! blocks on an otherwise idle core, so guesses are dropped when the threads are busy, and nobody guesses further ahead
//! than he has read.
//!
//! If loading a block takes no longer than decoding it, one thread is enough and only one runs. It decodes several
//! blocks together, as that is quicker ([`super::together`]). If the storage is far away, more blocks are loaded at a
//! time, each alone: as many as one thread decodes while one block arrives.

use super::Reader;
use super::together::TOGETHER_MAX;
use crate::format::pack::{BlockLocation, PackKind};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Maximum number of waiting groups of guesses for each thread. With more, the blocks would have been read before their
/// turn.
const WAITING_MAX: usize = 2;
/// Maximum number of blocks that are loaded ahead at a time.
const THREADS_MAX: usize = 8;

/// The queue of the threads that decode ahead. The threads end with their reader.
pub(super) struct Ahead {
    reader: Weak<Reader>,
    guesses: Sender<Vec<BlockLocation>>,
    wanted: Receiver<Vec<BlockLocation>>,
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
            let decode = move || wanted.iter().map_while(|group| decode(&reader, &group)).for_each(drop);
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

/// Decodes the blocks that the cache lacks. Returns `None` when the reader is gone.
fn decode(reader: &Weak<Reader>, group: &[BlockLocation]) -> Option<()> {
    let reader = reader.upgrade()?;
    let [block] = group else {
        reader.load_together(group);
        return Some(());
    };
    // A block may be guessed twice, and another thread may have begun it.
    if !reader.blocks.contains(block)
        && let Err(error) = reader.block(*block, PackKind::Data)
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

    /// Returns how many blocks a caller who has read `run` files in order should guess at the moment.
    pub fn guesses_wanted(&self, run: u32) -> usize {
        let Some(ahead) = &self.ahead else { return 0 };
        match ahead.pace.lock().depth() {
            1 => TOGETHER_MAX.min(run as usize),
            depth => depth,
        }
    }

    /// Says that content in these blocks will probably be read next, in this order. Takes up to `wanted` of them
    /// ([`Reader::guesses_wanted`]). Blocks that find no room in the queue are dropped.
    pub fn guess(&self, wanted: usize, blocks: impl Iterator<Item = BlockLocation>) {
        let Some(ahead) = &self.ahead else { return };
        let depth = ahead.pace.lock().depth();
        let is_near = depth == 1;
        let (mut next, mut missing) = (Vec::new(), Vec::new());
        for block in blocks {
            if !next.contains(&block) {
                next.push(block);
                if !self.blocks.contains(&block) {
                    missing.push(block);
                }
            }
            // Far storage is asked until so many blocks are on their way. From near storage, only the next blocks
            // matter, behind the one that is being read.
            let is_enough = if is_near { next.len() > wanted } else { missing.len() >= wanted };
            if is_enough {
                break;
            }
        }
        ahead.have_threads(depth);
        if is_near {
            // Blocks that have time wait until they are half of all, so that more are decoded together.
            let is_urgent = missing.first().is_some_and(|block| next.iter().take(2).any(|next| next == block));
            if is_urgent || 2 * missing.len() >= wanted {
                self.send_guess(ahead, depth, missing);
            }
        } else {
            missing.into_iter().for_each(|block| self.send_guess(ahead, depth, vec![block]));
        }
    }

    fn send_guess(&self, ahead: &Ahead, depth: usize, group: Vec<BlockLocation>) {
        if group.is_empty() || ahead.guesses.len() >= WAITING_MAX * depth {
            return;
        }
        match ahead.guesses.try_send(group) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
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
    use crate::format::id::{BlobId, ChunkId};
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

    /// Stores each content in a block of its own, all in one pack, and returns the content of all together.
    fn stored(keys: &Keys, backend: &Mem, contents: &[Vec<u8>]) -> (ObjectName, Content) {
        let compressor = &mut Compressor::new(1);
        let mut builder = PackBuilder::new(PackKind::Data, 0);
        for bytes in contents {
            let sealed = sealed::seal(keys, PackKind::Data.purpose(), bytes, compressor);
            builder.push(&sealed, vec![BlobRecord { id: keys.chunk_id(bytes).into(), len: bytes.len() as u32 }]);
        }
        let pack = builder.finish(keys, compressor);
        let chunk = |(id, at): (BlobId, Location)| ChunkRef { id: ChunkId(id.0), len: at.len, hint: Some(at) };
        let chunks = pack.footer.locations(pack.id).map(chunk).collect();
        let name = ObjectName::pack(pack.id.0);
        backend.save(name, &pack.bytes).expect("room");
        (name, Content { segments: vec![Segment::Raw(chunks)] })
    }

    fn is_decoded(reader: &Reader, block: &BlockLocation) -> bool {
        reader.blocks.get(block).is_some_and(|slot| slot.lock().is_some())
    }

    fn wait_until_decoded(reader: &Reader, block: &BlockLocation) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_decoded(reader, block) {
            assert!(Instant::now() < deadline, "nothing was decoded");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_guessed_rightly_needs_the_storage_no_more() {
        let keys = Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::Aes256Siv));
        let bytes = b"the content of the block that comes next".to_vec();
        let backend = Arc::new(Mem::default());
        let (name, content) = stored(&keys, &backend, std::slice::from_ref(&bytes));

        let reader = Reader::new(backend.clone(), keys, Box::new(Nowhere), CacheSizes::default()).reading_ahead();
        reader.guess(1, content.blocks());
        wait_until_decoded(&reader, &content.blocks().next().expect("one block"));
        backend.remove(name).expect("it is there");
        let mut read = Vec::new();
        reader.read(&content, 0, usize::MAX, &mut read).expect("it is in memory");
        assert_eq!(read, bytes);
    }

    #[test]
    fn from_near_storage_blocks_are_guessed_in_groups_that_grow_with_what_was_read() {
        let keys = Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::Aes256Siv));
        let contents: Vec<_> = (0..20).map(|number| vec![number; 1000]).collect();
        let backend = Arc::new(Mem::default());
        let (name, content) = stored(&keys, &backend, &contents);
        let blocks: Vec<_> = content.blocks().collect();

        let reader = Reader::new(backend.clone(), keys, Box::new(Nowhere), CacheSizes::default()).reading_ahead();
        assert_eq!([1, 3, 8, 1000].map(|run| reader.guesses_wanted(run)), [1, 3, TOGETHER_MAX, TOGETHER_MAX]);
        let guess_after = |read: usize| reader.guess(TOGETHER_MAX, blocks[read..].iter().copied());
        guess_after(0);
        blocks[..=TOGETHER_MAX].iter().for_each(|block| wait_until_decoded(&reader, block));
        guess_after(1);
        assert!(reader.blocks.get(&blocks[TOGETHER_MAX + 1]).is_none(), "one block has time, and waits for others");
        guess_after(4);
        blocks[..=TOGETHER_MAX + 4].iter().for_each(|block| wait_until_decoded(&reader, block));
        reader.guess(TOGETHER_MAX, blocks[TOGETHER_MAX + 4..][..2].iter().copied());
        // One block that comes next is urgent.
        wait_until_decoded(&reader, &blocks[TOGETHER_MAX + 5]);
        guess_after(TOGETHER_MAX + 5);
        blocks.iter().for_each(|block| wait_until_decoded(&reader, block));
        backend.remove(name).expect("it is there");
        let mut read = Vec::new();
        reader.read(&content, 0, usize::MAX, &mut read).expect("it is in memory");
        assert!(read == contents.concat());
    }
}
