//! Loads several blocks and decrypts them together, which takes a third of the time that one after the other takes.

use super::{Block, LIST_DEPTH_MAX, Reader, decoded_len_guess, overlap};
use crate::backend::ObjectName;
use crate::format::crypto::Message;
use crate::format::entry::{ChunkRef, Segment};
use crate::format::node::NodeKind;
use crate::format::pack::{BlockLocation, PackKind};
use crate::format::sealed;
use crate::repository::tree::NodeSource;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Maximum number of blocks that are loaded together, one for each lane of the cipher.
pub(super) const TOGETHER_MAX: usize = 8;

impl Reader {
    /// Loads content blocks and decrypts them together. This only saves time: a block that another thread is loading is
    /// left out, and so is one that fails. Whoever needs it calls [`Reader::block`] and gets the error.
    pub(super) fn load_together(&self, blocks: &[BlockLocation]) {
        let guess = |at: &BlockLocation| decoded_len_guess(at.len as usize);
        let slot = |at: &BlockLocation| self.blocks.get_or_insert(*at, || (Mutex::new(None), guess(at)));
        let slots: Vec<_> = blocks.iter().map(|at| (*at, slot(at))).collect();
        // Nobody waits for a lock while it holds others.
        let free = slots.iter().filter_map(|(at, slot)| Some((*at, slot.try_lock()?)));
        let mut missing: Vec<_> = free.filter(|(_, slot)| slot.is_none()).collect();

        let begun = Instant::now();
        let load = |at: &BlockLocation| self.backend.load_range(ObjectName::pack(at.pack.0), super::stored_range(*at));
        let mut loaded: Vec<_> = missing.iter().map_while(|(at, _)| load(at).ok()).collect();
        missing.truncate(loaded.len());
        let (count, loading) = (loaded.len() as u32, begun.elapsed());
        if count == 0 {
            return;
        }
        let messages = loaded.iter_mut().map(|bytes| Message::unbound(bytes)).collect();
        let opened = sealed::open_many(&self.keys, PackKind::Data.purpose(), messages);
        for ((at, mut slot), plaintext) in missing.into_iter().zip(opened) {
            let Ok(plaintext) = plaintext.map(Cow::into_owned) else { continue };
            self.blocks.resize(&at, plaintext.len());
            self.decoded.fetch_add(plaintext.len() as u64, Ordering::Relaxed);
            *slot = Some(Arc::new(Block { plaintext, proven: Mutex::default() }));
        }
        if let Some(ahead) = &self.ahead {
            ahead.record(loading / count, (begun.elapsed() - loading) / count);
        }
    }

    /// Loads the blocks together that the range `wanted` of `segments` needs and the cache lacks, if there are several.
    pub(super) fn prepare(&self, segments: &[Segment], wanted: &Range<u64>) {
        let mut missing = Missing { reader: self, blocks: Vec::new(), room: self.blocks.shard_len_max };
        missing.add_segments(segments, wanted, 0);
        if missing.blocks.len() > 1 {
            self.load_together(&missing.blocks);
        }
    }
}

/// Blocks that the cache lacks.
struct Missing<'a> {
    reader: &'a Reader,
    blocks: Vec<BlockLocation>,
    /// How many more bytes they may have when they are decoded. So the blocks of one call do not push each other out of
    /// the cache.
    room: usize,
}

impl Missing<'_> {
    fn add_segments(&mut self, segments: &[Segment], wanted: &Range<u64>, depth: usize) {
        let mut start = 0;
        for segment in segments {
            let part = overlap(wanted, start, segment.len());
            start += segment.len();
            if part.is_empty() {
                continue;
            }
            match segment {
                Segment::Raw(chunks) => self.add_chunks(chunks, &part),
                Segment::Base64 { form, decoded_len, chunks } => {
                    self.add_chunks(chunks, &form.decoded_span(part, *decoded_len));
                }
                Segment::Base64Of { form, decoded_len, segments } => {
                    self.add_segments(segments, &form.decoded_span(part, *decoded_len), depth + 1);
                }
                // Its recipe says what a range of it needs, so its material is prepared when it is read.
                Segment::Deflated { .. } => {}
                // Whatever is wrong with the list, reading it says so.
                Segment::List { node, .. } => {
                    if depth <= LIST_DEPTH_MAX
                        && let Ok(listed) = self.reader.node(node)
                        && let NodeKind::List(segments) = &listed.kind
                    {
                        self.add_segments(segments, &part, depth + 1);
                    }
                }
            }
        }
    }

    fn add_chunks(&mut self, chunks: &[ChunkRef], wanted: &Range<u64>) {
        let mut start = 0;
        for chunk in chunks {
            let part = overlap(wanted, start, chunk.len.into());
            start += u64::from(chunk.len);
            if let (false, Some(hint)) = (part.is_empty(), chunk.hint)
                && !self.blocks.contains(&hint.block)
                && !self.reader.blocks.contains(&hint.block)
            {
                let len = decoded_len_guess(hint.block.len as usize);
                if self.blocks.len() == TOGETHER_MAX || len > self.room {
                    return;
                }
                self.room -= len;
                self.blocks.push(hint.block);
            }
        }
    }
}
