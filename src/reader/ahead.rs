//! Decodes blocks on a thread of its own before they are asked for.
//!
//! Whoever reads a folder file by file needs the block behind the one it reads in next; decoding it meanwhile hides most of
//! what that costs. What to decode is a guess of the caller: a wrong one costs a block's time on an otherwise idle core,
//! so guesses that find the thread busy are dropped.

use super::Reader;
use crate::pack::{BlockLocation, PackKind};
use crossbeam_channel::{Sender, TrySendError, bounded};
use std::sync::{Arc, Weak};

/// Guesses that wait. More would be about what has been read by the time their turn comes.
const WAITING_MAX: usize = 2;

/// The way to the thread that decodes ahead; it ends with its reader.
pub(super) struct Ahead {
    blocks: Sender<BlockLocation>,
}

impl Ahead {
    /// Starts the thread. Without one nothing is decoded ahead, and nothing else is lost.
    pub fn start(reader: Weak<Reader>) -> Option<Self> {
        let (blocks, wanted) = bounded(WAITING_MAX);
        let decode = move || {
            for block in wanted {
                let Some(reader) = Weak::upgrade(&reader) else { return };
                // Whoever really reads it meets the error, too, and can do something about it.
                if let Err(error) = reader.block(block, PackKind::Data) {
                    tracing::debug!(%error, "decoding ahead failed");
                }
            }
        };
        std::thread::Builder::new().name("read-ahead".to_owned()).spawn(decode).ok()?;
        Some(Self { blocks })
    }

    /// Has the block decoded, unless others wait already.
    pub fn guess(&self, block: BlockLocation) {
        match self.blocks.try_send(block) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Reader {
    /// Returns the reader, shared, and able to decode blocks before they are asked for.
    pub fn reading_ahead(self) -> Arc<Reader> {
        Arc::new_cyclic(|reader| Reader { ahead: Ahead::start(reader.clone()), ..self })
    }

    /// Says that content in these blocks will probably be read next, in this order.
    pub fn guess(&self, mut blocks: impl Iterator<Item = BlockLocation>) {
        if let Some(ahead) = &self.ahead
            && let Some(block) = blocks.find(|block| !self.blocks.contains(block))
        {
            ahead.guess(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mem::Mem;
    use crate::backend::{Backend, ObjectName};
    use crate::compress::Compressor;
    use crate::crypto::{Cipher, Keys, MasterKey};
    use crate::entry::{ChunkRef, Content, Segment};
    use crate::id::BlobId;
    use crate::pack::{BlobRecord, Location, PackBuilder};
    use crate::reader::{CacheSizes, Lookup, ReadError};
    use crate::sealed;
    use std::time::{Duration, Instant};

    struct Nowhere;

    impl Lookup for Nowhere {
        fn find(&self, _: &BlobId) -> Result<Option<Location>, ReadError> {
            Ok(None)
        }
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
