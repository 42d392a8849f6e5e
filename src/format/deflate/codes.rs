//! Symbols, codes and code lengths (RFC 1951, 3.2).

/// Lengths and distances of one symbol: the least value and the number of extra bits (RFC 1951, 3.2.5).
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) base: u16,
    pub(super) extra: u8,
}

pub(super) const END_OF_BLOCK: usize = 256;
pub(super) const LITERAL_CODES: usize = 286;
pub(super) const DISTANCE_CODES: usize = 30;
pub(super) const LENGTH_MIN: usize = 3;
pub(super) const LENGTH_MAX: usize = 258;
pub(super) const WINDOW: usize = 32768;

/// The order in which the lengths of the code length codes stand (RFC 1951, 3.2.7).
pub(super) const LENGTH_CODE_ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

pub(super) const LENGTHS: [Span; 29] = {
    let mut spans = [Span { base: 258, extra: 0 }; 29];
    let mut base = 3;
    let mut at = 0;
    while at < 28 {
        let extra = if at < 8 { 0 } else { at / 4 - 1 };
        spans[at] = Span { base, extra: extra as u8 };
        base += 1 << extra;
        at += 1;
    }
    spans
};

pub(super) const DISTANCES: [Span; DISTANCE_CODES] = {
    let mut spans = [Span { base: 0, extra: 0 }; DISTANCE_CODES];
    let mut base = 1;
    let mut at = 0;
    while at < DISTANCE_CODES {
        let extra = if at < 4 { 0 } else { at / 2 - 1 };
        spans[at] = Span { base, extra: extra as u8 };
        base += 1 << extra;
        at += 1;
    }
    spans
};

/// Index into [`LENGTHS`] for each length minus 3.
const LENGTH_SYMBOLS: [u8; 256] = {
    let mut symbols = [28; 256];
    let mut length = 3;
    while length < 258 {
        let mut at = 27;
        while LENGTHS[at].base as usize > length {
            at -= 1;
        }
        symbols[length - 3] = at as u8;
        length += 1;
    }
    symbols
};

/// Index into [`DISTANCES`] for each distance minus 1 up to 256, then for (distance - 1) / 128.
const DISTANCE_SYMBOLS: [u8; 512] = {
    let mut symbols = [0; 512];
    let mut at = 0;
    while at < 512 {
        let distance = if at < 256 { at + 1 } else { (at - 256) * 128 + 1 };
        let mut symbol = DISTANCE_CODES - 1;
        while DISTANCES[symbol].base as usize > distance {
            symbol -= 1;
        }
        symbols[at] = symbol as u8;
        at += 1;
    }
    symbols
};

#[inline]
pub(super) fn length_symbol(length: usize) -> usize {
    usize::from(LENGTH_SYMBOLS[(length - LENGTH_MIN) & 255])
}

#[inline]
pub(super) fn distance_symbol(distance: usize) -> usize {
    let least = distance - 1;
    usize::from(DISTANCE_SYMBOLS[if least < 256 { least } else { 256 + (least >> 7 & 255) }])
}

/// A literal, or a copy of `length` bytes from `distance` bytes before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    length: u16,
    distance: u16,
}

impl Token {
    pub(super) const LITERAL: Self = Self { length: 1, distance: 0 };

    pub(super) fn copy(length: usize, distance: usize) -> Self {
        debug_assert!((LENGTH_MIN..=LENGTH_MAX).contains(&length) && (1..=WINDOW).contains(&distance));
        Self { length: length as u16, distance: distance as u16 }
    }

    /// The number of plain bytes that it stands for.
    #[inline]
    pub(super) fn length(self) -> usize {
        usize::from(self.length)
    }

    /// 0 for a literal.
    #[inline]
    pub(super) fn distance(self) -> usize {
        usize::from(self.distance)
    }

    #[inline]
    pub(super) fn is_literal(self) -> bool {
        self.distance == 0
    }
}

/// How often each symbol occurs in a block.
#[derive(Clone)]
pub(super) struct Frequencies {
    pub(super) literals: [u32; LITERAL_CODES],
    pub(super) distances: [u32; DISTANCE_CODES],
}

impl Frequencies {
    /// One end of block and nothing else.
    pub(super) fn new() -> Self {
        let mut literals = [0; LITERAL_CODES];
        literals[END_OF_BLOCK] = 1;
        Self { literals, distances: [0; DISTANCE_CODES] }
    }

    #[inline]
    pub(super) fn count(&mut self, token: Token, byte: u8) {
        if token.is_literal() {
            self.literals[usize::from(byte)] += 1;
        } else {
            self.literals[257 + length_symbol(token.length())] += 1;
            self.distances[distance_symbol(token.distance())] += 1;
        }
    }
}

/// The codes of the fixed block type (RFC 1951, 3.2.6).
pub(super) fn fixed_lengths() -> ([u8; 288], [u8; 30]) {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    (lengths, [5; 30])
}

/// Codes by canonical order, bits reversed so that they are written lowest bit first (RFC 1951, 3.2.2).
/// None if the lengths need more codes than there are.
pub(super) fn canonical_codes(lengths: &[u8], codes: &mut [u16]) -> Option<()> {
    let mut counts = [0u32; 16];
    for &length in lengths {
        counts[usize::from(length)] += 1;
    }
    counts[0] = 0;
    let mut next = [0u32; 16];
    let mut code = 0;
    for length in 1..16 {
        code = (code + counts[length - 1]) << 1;
        next[length] = code;
        if code + counts[length] > 1 << length {
            return None;
        }
    }
    for (&length, out) in lengths.iter().zip(codes) {
        if length > 0 {
            let code = &mut next[usize::from(length)];
            *out = (*code as u16).reverse_bits() >> (16 - length);
            *code += 1;
        }
    }
    Some(())
}

const FAST_BITS: u32 = 10;

/// Finds symbols by their codes: a table for codes of up to 10 bits, counting for longer ones.
pub(super) struct Decoder {
    /// Symbol * 16 + length; 0 where the code is longer or unknown.
    fast: Vec<u16>,
    /// Symbols in canonical order, with the number of codes of each length.
    symbols: Vec<u16>,
    counts: [u16; 16],
}

impl Decoder {
    /// None if the lengths need more codes than there are.
    pub(super) fn new(lengths: &[u8]) -> Option<Self> {
        let mut codes = vec![0; lengths.len()];
        canonical_codes(lengths, &mut codes)?;
        let mut counts = [0; 16];
        let mut fast = vec![0; 1 << FAST_BITS];
        for (symbol, (&length, &code)) in lengths.iter().zip(&codes).enumerate() {
            if length == 0 {
                continue;
            }
            counts[usize::from(length)] += 1;
            if u32::from(length) <= FAST_BITS {
                for at in (usize::from(code)..1 << FAST_BITS).step_by(1 << length) {
                    fast[at] = (symbol << 4) as u16 | u16::from(length);
                }
            }
        }
        let mut symbols = Vec::with_capacity(lengths.len());
        for wanted in 1..16 {
            symbols.extend((0..lengths.len() as u16).filter(|&symbol| lengths[usize::from(symbol)] == wanted));
        }
        Some(Self { fast, symbols, counts })
    }

    /// Returns the symbol whose code `bits` begins with, and the length of the code. None if there is none.
    #[inline]
    pub(super) fn decode(&self, bits: u64) -> Option<(usize, u32)> {
        let entry = self.fast[(bits & ((1 << FAST_BITS) - 1)) as usize];
        if entry != 0 { Some((usize::from(entry >> 4), u32::from(entry & 15))) } else { self.decode_long(bits) }
    }

    fn decode_long(&self, bits: u64) -> Option<(usize, u32)> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for length in 1..16 {
            code |= (bits >> (length - 1) & 1) as u32;
            let count = u32::from(self.counts[length as usize]);
            if code < first + count {
                return Some((usize::from(self.symbols[(index + code - first) as usize]), length));
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}
