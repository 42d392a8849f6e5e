//! Cuts bytes into chunks at positions that the content decides (FastCDC 2020), so that an edit changes only the chunks
//! that it touches.
//!
//! The rolling hash uses a table derived from the master key. With a public table, the lengths of chunks would tell an
//! outsider which known files a repository holds. Readers do not need this module. A test still pins the boundaries: if
//! they moved, the next backup would store everything again.

use crate::format::crypto::Keys;
use fastcdc::v2020::{Normalization, cut_gear, select_masks};

/// The lengths of chunks, in bytes. All three are even, as FastCDC requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// Minimum length. Only the last chunk may be shorter.
    pub min: u32,
    /// Average length.
    pub avg: u32,
    /// Maximum length.
    pub max: u32,
}

/// The chunk sizes of a repository, stored in its `config`. All writers must use the same sizes, or nothing
/// deduplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkerParams {
    /// For files shorter than `large_from`.
    pub small: ChunkSizes,
    /// For files of at least `large_from` bytes: fewer, longer chunks keep lists and indexes short.
    pub large: ChunkSizes,
    /// Length in bytes from which a file is large.
    pub large_from: u64,
}

impl Default for ChunkerParams {
    fn default() -> Self {
        Self {
            small: ChunkSizes { min: 16 << 10, avg: 64 << 10, max: 256 << 10 },
            large: ChunkSizes { min: 64 << 10, avg: 256 << 10, max: 1 << 20 },
            large_from: 32 << 20,
        }
    }
}

/// Finds the boundaries of chunks.
pub struct Chunker {
    params: ChunkerParams,
    gear: [u64; 256],
    /// The table shifted left by one bit: FastCDC 2020 advances two bytes per step.
    gear_shifted: [u64; 256],
}

impl Chunker {
    /// Creates a chunker with the table derived from `keys`.
    pub fn new(params: ChunkerParams, keys: &Keys) -> Self {
        let gear = keys.gear_table();
        Self { params, gear, gear_shifted: gear.map(|word| word << 1) }
    }

    /// Returns the chunk sizes for content of `len` bytes in total.
    pub fn sizes_for(&self, len: u64) -> ChunkSizes {
        if len < self.params.large_from { self.params.small } else { self.params.large }
    }

    /// Returns the length of the first chunk of `data`.
    ///
    /// `data` must hold at least `sizes.max` bytes, or all the rest of the content.
    pub fn cut(&self, data: &[u8], sizes: ChunkSizes) -> usize {
        let (mask_small, mask_large) = select_masks(sizes.avg as usize, Normalization::Level1);
        let (_, len) = cut_gear(
            data,
            sizes.min as usize,
            sizes.avg as usize,
            sizes.max as usize,
            mask_small,
            mask_large,
            mask_small << 1,
            mask_large << 1,
            &self.gear,
            &self.gear_shifted,
        );
        len
    }

    /// Cuts all of `data`, which is one whole content.
    pub fn chunks<'a>(&self, mut data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let sizes = self.sizes_for(data.len() as u64);
        std::iter::from_fn(move || {
            if data.is_empty() {
                return None;
            }
            let (chunk, rest) = data.split_at(self.cut(data, sizes));
            data = rest;
            Some(chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};

    fn chunker(key: u8) -> Chunker {
        let keys = Keys::derive(&MasterKey::from_bytes([key; 32]), Cipher::Aes256Siv);
        Chunker::new(ChunkerParams::default(), &keys)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn lengths(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
        chunker.chunks(data).map(<[u8]>::len).collect()
    }

    #[test]
    fn an_inserted_byte_moves_few_boundaries() {
        let (chunker, mut data) = (chunker(1), noise(8 << 20));
        let before: std::collections::HashSet<_> = chunker.chunks(&data).map(blake3::hash).collect();
        data.insert(3 << 20, b'!');
        let changed = chunker.chunks(&data).filter(|chunk| !before.contains(&blake3::hash(chunk))).count();
        assert!(changed <= 3, "{changed} chunks changed");
    }

    #[test]
    fn boundaries_depend_on_the_key_and_respect_the_limits() {
        let data = noise(4 << 20);
        let (ours, theirs) = (lengths(&chunker(1), &data), lengths(&chunker(2), &data));
        assert_ne!(ours, theirs);
        let sizes = ChunkerParams::default().small;
        assert_eq!(ours.iter().sum::<usize>(), data.len());
        assert!(ours[..ours.len() - 1].iter().all(|len| (sizes.min as usize..=sizes.max as usize).contains(len)));
    }

    #[test]
    fn boundaries_are_pinned() {
        assert_eq!(lengths(&chunker(1), &noise(512 << 10)), PINNED);
    }

    const PINNED: [usize; 9] = [87596, 72253, 90929, 18996, 35852, 97662, 65664, 32445, 22891];
}
