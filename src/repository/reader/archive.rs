//! Makes archives again that were taken apart ([`crate::format::recipe`]).
//!
//! A range of an archive needs its recipe and those of its streams that the range touches. Both are kept in a cache
//! that is limited in bytes. So reading an archive in order makes each stream once, and reading a few bytes anywhere
//! makes one stream of at most [`PLAIN_LEN_MAX`](crate::format::recipe::PLAIN_LEN_MAX) bytes.

use super::{Reader, STRETCH_LEN, Shard, overlap};
use crate::format::cbor::Writer;
use crate::format::deflate::recreate;
use crate::format::entry::{Segment, write_segments};
use crate::format::recipe::{Check, Origin, RECIPE_LEN_MAX, Recipe, check_of};
use crate::repository::read_error::ReadError;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Length in bytes of what a stream holds from which only one stream is made at a time: making one takes several times
/// this length in memory.
const LONG_PLAIN_LEN: u64 = 1 << 20;

/// An archive that is read.
#[derive(Clone, Copy)]
pub(super) struct Archive<'a> {
    pub len: u64,
    pub recipe_len: u32,
    pub material: &'a [Segment],
    /// How deep its segment is nested.
    pub depth: usize,
}

/// Identifies a recipe, or with a number the stream of a piece.
type Key = ([u8; 32], Option<usize>);

/// Recipes and streams of archives.
pub(super) struct Archives {
    made: Mutex<Shard<Key, Mutex<Option<Made>>>>,
    len_max: usize,
    long: Mutex<()>,
}

#[derive(Clone)]
enum Made {
    Recipe(Arc<Recipe>),
    Stream(Arc<Vec<u8>>),
}

impl Archives {
    pub fn new(len_max: usize) -> Self {
        Self { made: Mutex::new(Shard::new()), len_max, long: Mutex::default() }
    }

    /// Returns what is kept under `key`. If there is nothing, calls `make`, which makes something of about `len` bytes.
    /// If two threads want the same, one makes it and the other waits.
    fn get_or_make(
        &self,
        key: Key,
        len: usize,
        make: impl FnOnce() -> Result<Made, ReadError>,
    ) -> Result<Made, ReadError> {
        let slot = self.made.lock().get_or_insert(key, self.len_max, || (Mutex::new(None), len));
        let mut slot = slot.lock();
        if let Some(made) = &*slot {
            return Ok(made.clone());
        }
        Ok(slot.insert(make()?).clone())
    }
}

impl Archive<'_> {
    fn key(&self) -> [u8; 32] {
        let mut out = Writer::new();
        out.uint(self.recipe_len.into());
        write_segments(self.material, &mut out);
        *blake3::hash(&out.into_bytes()).as_bytes()
    }

    fn malformed(what: &'static str) -> ReadError {
        ReadError::Archive { what }
    }
}

impl Reader {
    /// Appends the range `wanted` of the bytes of an archive.
    pub(super) fn read_archive(
        &self,
        archive: Archive<'_>,
        wanted: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let key = archive.key();
        let recipe = self.recipe(archive, key)?;
        for (number, piece) in recipe.overlapping(&wanted) {
            let part = overlap(&wanted, piece.range.start, piece.range.end - piece.range.start);
            match &piece.origin {
                Origin::Copied { at } => self.read_material(archive, at + part.start..at + part.end, out)?,
                Origin::Stream { plain, corrections, check } => {
                    let len = (piece.range.end - piece.range.start) as usize;
                    let made = self.archives.get_or_make((key, Some(number)), len, || {
                        let stream = self.stream(archive, plain, corrections, check)?;
                        let is_right = stream.len() == len;
                        if is_right { Ok(Made::Stream(Arc::new(stream))) } else { Err(wrongly_made()) }
                    })?;
                    let Made::Stream(stream) = made else { return Err(wrongly_made()) };
                    out.extend_from_slice(&stream[part.start as usize..part.end as usize]);
                }
            }
        }
        Ok(())
    }

    fn recipe(&self, archive: Archive<'_>, key: [u8; 32]) -> Result<Arc<Recipe>, ReadError> {
        let len = archive.recipe_len as usize;
        if len > RECIPE_LEN_MAX {
            return Err(Archive::malformed("has a recipe that is too long"));
        }
        let made = self.archives.get_or_make((key, None), Recipe::memory_len_max(len), || {
            let mut bytes = Vec::with_capacity(len);
            self.read_material(archive, 0..len as u64, &mut bytes)?;
            let material_len = archive.material.iter().map(Segment::len).sum();
            let recipe = Recipe::decode(&bytes, archive.len, material_len);
            Ok(Made::Recipe(Arc::new(recipe.map_err(|_| Archive::malformed("has a malformed recipe"))?)))
        })?;
        match made {
            Made::Recipe(recipe) => Ok(recipe),
            Made::Stream(_) => Err(Archive::malformed("has no recipe")),
        }
    }

    fn stream(
        &self,
        archive: Archive<'_>,
        plain: &Range<u64>,
        corrections: &Range<u64>,
        check: &Check,
    ) -> Result<Vec<u8>, ReadError> {
        let plain_len = plain.end - plain.start;
        let _turn = (plain_len >= LONG_PLAIN_LEN).then(|| self.archives.long.lock());
        let mut bytes = [Vec::with_capacity(plain_len as usize), Vec::new()];
        for (range, bytes) in [plain, corrections].into_iter().zip(&mut bytes) {
            self.read_material(archive, range.clone(), bytes)?;
        }
        let [plain, corrections] = bytes;
        let stream = recreate(&plain, &corrections).map_err(|_| wrongly_made())?;
        if check_of(&stream) == *check { Ok(stream) } else { Err(wrongly_made()) }
    }

    fn read_material(&self, archive: Archive<'_>, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let (start, len) = (out.len(), range.end - range.start);
        let mut at = range.start;
        while at < range.end {
            let stretch = at..range.end.min(at + STRETCH_LEN);
            at = stretch.end;
            self.prepare(archive.material, &stretch);
            self.read_segments(archive.material, stretch, archive.depth + 1, out)?;
        }
        // The sums of the recipe were compared with the length of the material.
        if (out.len() - start) as u64 == len {
            Ok(())
        } else {
            Err(Archive::malformed("is shorter than its recipe says"))
        }
    }
}

fn wrongly_made() -> ReadError {
    Archive::malformed("has a stream that cannot be made again as it was")
}
