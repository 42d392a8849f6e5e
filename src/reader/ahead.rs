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
    use crate::backend::{Backend, ObjectKind};
    use crate::entry::{ChunkRef, Content, Segment};
    use crate::keyslot::PasswordCost;
    use crate::local::LocalState;
    use crate::reader::CacheSizes;
    use crate::repository::{CreateOptions, IndexSearch, Repository};
    use crate::store::{NewChunk, Store, Texture};
    use std::time::{Duration, Instant};

    #[test]
    fn what_was_guessed_rightly_needs_the_storage_no_more() {
        let backend = Arc::new(Mem::default());
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let (repository, _) = Repository::create(backend.clone(), b"password", &options).expect("a repository");
        let repository = Arc::new(repository);
        let folder = tempfile::tempdir().expect("a folder");
        let local = LocalState::open(folder.path(), &repository).expect("local state");
        let store = Store::new(repository.clone(), local, Vec::new());
        let bytes = b"the content of the block that comes next".as_slice();
        let id = repository.keys().chunk_id(bytes);
        store.append(std::iter::once(NewChunk { id, bytes, texture: Texture::Text })).expect("room");
        let (local, _) = store.finish().expect("stored");
        let hint = Store::location(&local, id.into()).expect("its place");
        let chunks = vec![ChunkRef { id, len: bytes.len() as u32, hint: Some(hint) }];
        let content = Content { segments: vec![Segment::Raw(chunks)] };

        let search = Box::new(IndexSearch::new(repository.clone()));
        let reader = repository.reader(search, CacheSizes::default()).reading_ahead();
        reader.guess(content.blocks());
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_decoded = || reader.blocks.get(&hint.block).is_some_and(|slot| slot.lock().is_some());
        while !is_decoded() {
            assert!(Instant::now() < deadline, "nothing was decoded");
            std::thread::yield_now();
        }
        let mut packs = Vec::new();
        backend.list(ObjectKind::Pack, &mut |name, _| packs.push(name)).expect("a listing");
        packs.into_iter().for_each(|pack| backend.remove(pack).expect("it is there"));
        let mut read = Vec::new();
        reader.read(&content, 0, usize::MAX, &mut read).expect("it is in memory");
        assert_eq!(read, bytes);
    }
}
