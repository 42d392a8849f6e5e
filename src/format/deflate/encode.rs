//! Writes blocks of a deflate stream.

use super::bits::{BitReader, BitWriter};
use super::codes::{
    DISTANCES, END_OF_BLOCK, Frequencies, LENGTHS, Token, canonical_codes, distance_symbol, fixed_lengths,
    length_symbol,
};
use super::parse::code_lengths;
use super::trees::{Trees, content_bits};

/// The tokens of a block that is being collected.
pub(super) struct Collected {
    pub(super) tokens: Vec<Token>,
    pub(super) frequencies: Frequencies,
    /// Where the block begins in the plain bytes.
    pub(super) start: usize,
}

impl Collected {
    pub(super) fn new() -> Self {
        Self { tokens: Vec::new(), frequencies: Frequencies::new(), start: 0 }
    }

    pub(super) fn begin(&mut self, start: usize) {
        self.tokens.clear();
        self.frequencies = Frequencies::new();
        self.start = start;
    }
}

/// Codes for literals, lengths and distances, as they are written.
struct Codes {
    literals: [(u16, u8); 288],
    distances: [(u16, u8); 30],
}

impl Codes {
    /// None if the lengths need more codes than there are.
    fn new(literals: &[u8], distances: &[u8]) -> Option<Self> {
        let mut codes = Self { literals: [(0, 0); 288], distances: [(0, 0); 30] };
        let mut bits = [0; 288];
        canonical_codes(literals, &mut bits)?;
        for (code, (&bits, &length)) in codes.literals.iter_mut().zip(bits.iter().zip(literals)) {
            *code = (bits, length);
        }
        canonical_codes(distances, &mut bits)?;
        for (code, (&bits, &length)) in codes.distances.iter_mut().zip(bits.iter().zip(distances)) {
            *code = (bits, length);
        }
        Some(codes)
    }

    /// Tells whether each symbol that occurs has a code.
    fn cover(&self, frequencies: &Frequencies) -> bool {
        let covered = |(&count, &(_, length)): (&u32, &(u16, u8))| count == 0 || length > 0;
        frequencies.literals.iter().zip(&self.literals).all(covered)
            && frequencies.distances.iter().zip(&self.distances).all(covered)
    }
}

/// Tells whether zlib would take the fixed codes for a block: they are not longer in whole bytes.
pub(super) fn prefers_fixed(frequencies: &Frequencies, trees: &Trees) -> bool {
    let (literals, distances) = fixed_lengths();
    let bytes = |bits: u64| (bits + 3).div_ceil(8);
    bytes(content_bits(frequencies, &literals, &distances)) <= bytes(trees.bits)
}

/// Writes a block with the fixed codes.
pub(super) fn fixed(writer: &mut BitWriter, last: bool, block: &Collected, plain: &[u8]) {
    let (literals, distances) = fixed_lengths();
    let codes = Codes::new(&literals, &distances).expect("the fixed codes are a code");
    writer.put(u64::from(last) | 1 << 1, 3);
    tokens(writer, &codes, block, plain);
}

/// Writes a block with the codes that zlib builds.
pub(super) fn dynamic(writer: &mut BitWriter, last: bool, trees: &Trees, block: &Collected, plain: &[u8]) {
    let codes = Codes::new(&trees.literals, &trees.distances).expect("built lengths are a code");
    writer.put(u64::from(last) | 2 << 1, 3);
    trees.write_header(writer);
    tokens(writer, &codes, block, plain);
}

/// Writes a block whose code lengths were kept. None if they are none, or do not fit the tokens.
pub(super) fn kept(
    writer: &mut BitWriter,
    last: bool,
    header: (&[u8], usize),
    block: &Collected,
    plain: &[u8],
) -> Option<()> {
    let mut reader = BitReader::new(header.0);
    let lengths = code_lengths(&mut reader)?;
    if reader.position() != header.1 as u64 {
        return None;
    }
    let codes = Codes::new(&lengths.literals, &lengths.distances)?;
    if !codes.cover(&block.frequencies) {
        return None;
    }
    writer.put(u64::from(last) | 2 << 1, 3);
    copy_bits(&mut BitReader::new(header.0), writer, header.1 as u64);
    tokens(writer, &codes, block, plain);
    Some(())
}

/// Copies `count` bits.
pub(super) fn copy_bits(reader: &mut BitReader, writer: &mut BitWriter, mut count: u64) {
    while count > 0 {
        let some = count.min(32) as u32;
        writer.put(u64::from(reader.take(some)), some);
        count -= u64::from(some);
    }
}

/// Writes a stored block.
pub(super) fn stored(writer: &mut BitWriter, last: bool, padding: u8, bytes: &[u8]) -> Option<()> {
    writer.put(u64::from(last), 3);
    pad(writer, padding)?;
    let length = u16::try_from(bytes.len()).ok()?;
    writer.put(u64::from(length) | u64::from(!length) << 16, 32);
    writer.bytes(bytes);
    Some(())
}

/// Writes the bits up to the byte boundary. None if `padding` has more.
pub(super) fn pad(writer: &mut BitWriter, padding: u8) -> Option<()> {
    let room = writer.room();
    if u32::from(padding) >> room != 0 {
        return None;
    }
    writer.put(u64::from(padding), room);
    Some(())
}

fn tokens(writer: &mut BitWriter, codes: &Codes, block: &Collected, plain: &[u8]) {
    let mut at = block.start;
    for &token in &block.tokens {
        let length = token.length();
        if token.is_literal() {
            let (code, bits) = codes.literals[usize::from(plain[at])];
            writer.put(u64::from(code), u32::from(bits));
        } else {
            copy(writer, codes, token);
        }
        at += length;
    }
    let (code, bits) = codes.literals[END_OF_BLOCK];
    writer.put(u64::from(code), u32::from(bits));
}

/// Writes a copy: at most 48 bits.
#[inline]
fn copy(writer: &mut BitWriter, codes: &Codes, token: Token) {
    let symbol = length_symbol(token.length());
    let (code, bits) = codes.literals[257 + symbol];
    let span = LENGTHS[symbol];
    let mut value = u64::from(code) | ((token.length() - usize::from(span.base)) as u64) << bits;
    let mut count = u32::from(bits + span.extra);
    let symbol = distance_symbol(token.distance());
    let (code, bits) = codes.distances[symbol];
    let span = DISTANCES[symbol];
    value |= u64::from(code) << count;
    count += u32::from(bits);
    value |= ((token.distance() - usize::from(span.base)) as u64) << count;
    count += u32::from(span.extra);
    writer.put(value, count);
}
