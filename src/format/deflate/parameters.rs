//! What a stream's maker was set to: zlib's levels, strategies and memory levels, and some others'.

use super::RecreateError;
use super::codes::{LENGTH_MAX, LENGTH_MIN, WINDOW};
use super::varint::{ByteReader, put};

/// How the next token is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// Literals only (zlib's strategy Z_HUFFMAN_ONLY, and stored blocks).
    Literals,
    /// Copies of the byte before only (Z_RLE).
    Runs,
    /// The longest match here (levels 1 to 3, `deflate_fast`).
    Greedy,
    /// The longest match here, unless the next byte begins a longer one (levels 4 to 9, `deflate_slow`).
    Lazy,
}

/// The settings of the predictor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parameters {
    pub(super) method: Method,
    /// Lazy: behind a match of at least this length only a quarter of `chain` is searched for a longer one.
    pub(super) good: usize,
    /// Lazy: behind a match of at least this length none is searched. Greedy: positions inside of longer copies are
    /// not entered into the chains.
    pub(super) lazy: usize,
    /// A match of at least this length ends a search.
    pub(super) nice: usize,
    /// The number of candidates that a search looks at.
    pub(super) chain: usize,
    /// Lazy: a match of 3 bytes at a greater distance is none.
    pub(super) too_far: usize,
    /// Lazy: a shorter match is none (Z_FILTERED: 6).
    pub(super) length_min: usize,
    /// zlib's memLevel + 7.
    pub(super) hash_bits: u32,
    /// A block ends after this number of tokens: 2^(memLevel + 6) - 1 in zlib.
    pub(super) block_tokens: usize,
}

/// No fewer tokens make a block by themselves, so that blocks cost no more than tokens do. It is zlib's smallest.
pub(super) const BLOCK_TOKENS_MIN: usize = 127;
pub(super) const BLOCK_TOKENS_MAX: usize = 1 << 30;
pub(super) const CHAIN_MAX: usize = 4096;

impl Parameters {
    /// zlib's level (1 to 9) with the given memory level; the strategy is the default one.
    pub(super) fn zlib(level: usize, memory_level: u32) -> Self {
        use Method::{Greedy, Lazy};
        let (method, good, lazy, nice, chain) = match level {
            1 => (Greedy, 4, 4, 8, 4),
            2 => (Greedy, 4, 5, 16, 8),
            3 => (Greedy, 4, 6, 32, 32),
            4 => (Lazy, 4, 4, 16, 16),
            5 => (Lazy, 8, 16, 32, 32),
            6 => (Lazy, 8, 16, 128, 128),
            7 => (Lazy, 8, 32, 128, 256),
            8 => (Lazy, 32, 128, LENGTH_MAX, 1024),
            _ => (Lazy, 32, LENGTH_MAX, LENGTH_MAX, 4096),
        };
        let (hash_bits, block_tokens) = (memory_level + 7, (1 << (memory_level + 6)) - 1);
        Self { method, good, lazy, nice, chain, too_far: 4096, length_min: LENGTH_MIN, hash_bits, block_tokens }
    }

    /// Appends the parameters to the corrections.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(match self.method {
            Method::Literals => 0,
            Method::Runs => 1,
            Method::Greedy => 2,
            Method::Lazy => 3,
        });
        for number in [self.good, self.lazy, self.nice, self.chain, self.too_far, self.length_min] {
            put(out, number as u64);
        }
        out.push(self.hash_bits as u8);
        put(out, self.block_tokens as u64);
    }

    /// Reads what [`Parameters::write`] wrote.
    pub(super) fn read(reader: &mut ByteReader) -> Result<Self, RecreateError> {
        let method = match reader.byte()? {
            0 => Method::Literals,
            1 => Method::Runs,
            2 => Method::Greedy,
            3 => Method::Lazy,
            _ => return Err(RecreateError::Corrections("there is no such method")),
        };
        let good = reader.number_in(0, LENGTH_MAX)?;
        let lazy = reader.number_in(0, LENGTH_MAX)?;
        let nice = reader.number_in(LENGTH_MIN, LENGTH_MAX)?;
        let chain = reader.number_in(1, CHAIN_MAX)?;
        let too_far = reader.number_in(0, WINDOW)?;
        let length_min = reader.number_in(LENGTH_MIN, LENGTH_MAX)?;
        let hash_bits = reader.number_in(8, 16)? as u32;
        let block_tokens = reader.number_in(BLOCK_TOKENS_MIN, BLOCK_TOKENS_MAX)?;
        Ok(Self { method, good, lazy, nice, chain, too_far, length_min, hash_bits, block_tokens })
    }
}
