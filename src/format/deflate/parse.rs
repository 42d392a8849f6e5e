//! Takes a deflate stream apart into blocks, tokens and plain bytes (RFC 1951, 3.2.3).

use super::bits::BitReader;
use super::codes::{
    DISTANCES, Decoder, END_OF_BLOCK, LENGTH_CODE_ORDER, LENGTH_MAX, LENGTHS, Token, WINDOW, fixed_lengths,
};

/// What a block's header says about its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Plain bytes. `padding` are the bits between the header and the next byte boundary.
    Stored {
        padding: u8,
    },
    Fixed,
    /// `header` is the place of the code lengths in the stream, in bits.
    Dynamic {
        header: std::ops::Range<u64>,
    },
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) last: bool,
    /// 0 in stored blocks.
    pub(super) tokens: usize,
    pub(super) plain_len: usize,
    /// It is what zlib writes at a flush: an empty stored block that is not the last, with no other empty block right
    /// before it.
    pub(super) is_flush: bool,
}

/// A whole stream.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) blocks: Vec<Block>,
    pub(super) tokens: Vec<Token>,
    pub(super) plain: Vec<u8>,
    /// Bits behind the last block, up to the byte boundary.
    pub(super) padding: u8,
    pub(super) stream_len: usize,
}

/// The two codes of a block.
pub(super) struct Decoders {
    literals: Decoder,
    distances: Decoder,
}

/// The code lengths of a dynamic block.
pub(super) struct CodeLengths {
    pub(super) literals: Vec<u8>,
    pub(super) distances: Vec<u8>,
}

/// Reads the stream at the beginning of `stream`. None if there is none, or if it has more than `plain_max` bytes.
pub(super) fn parse(stream: &[u8], plain_max: usize) -> Option<Parsed> {
    let mut reader = BitReader::new(stream);
    let mut parsed = Parsed::default();
    let mut behind_empty = false;
    loop {
        let last = reader.take(1) == 1;
        let start = (parsed.plain.len(), parsed.tokens.len());
        let kind = match reader.take(2) {
            0 => stored(&mut reader, &mut parsed, plain_max)?,
            1 => {
                let (literals, distances) = fixed_lengths();
                let decoders = Decoders { literals: Decoder::new(&literals)?, distances: Decoder::new(&distances)? };
                tokens(&mut reader, &decoders, &mut parsed, plain_max)?;
                Kind::Fixed
            }
            2 => {
                let begin = reader.position();
                let lengths = code_lengths(&mut reader)?;
                let header = begin..reader.position();
                let decoders = Decoders {
                    literals: Decoder::new(&lengths.literals)?,
                    distances: Decoder::new(&lengths.distances)?,
                };
                tokens(&mut reader, &decoders, &mut parsed, plain_max)?;
                Kind::Dynamic { header }
            }
            _ => return None,
        };
        if reader.overrun() {
            return None;
        }
        let plain_len = parsed.plain.len() - start.0;
        let is_flush = kind == Kind::Stored { padding: 0 } && plain_len == 0 && !last && !behind_empty;
        behind_empty = plain_len == 0 && !is_flush;
        parsed.blocks.push(Block { kind, last, tokens: parsed.tokens.len() - start.1, plain_len, is_flush });
        if last {
            break;
        }
    }
    parsed.padding = reader.align();
    parsed.stream_len = usize::try_from(reader.position() / 8).ok()?;
    Some(parsed)
}

fn stored(reader: &mut BitReader, parsed: &mut Parsed, plain_max: usize) -> Option<Kind> {
    let padding = reader.align();
    let (length, complement) = (reader.take(16), reader.take(16));
    if length != !complement & 0xffff || parsed.plain.len() + length as usize > plain_max {
        return None;
    }
    parsed.plain.extend_from_slice(reader.bytes(length as usize)?);
    Some(Kind::Stored { padding })
}

/// Reads the code lengths of a dynamic block (RFC 1951, 3.2.7).
pub(super) fn code_lengths(reader: &mut BitReader) -> Option<CodeLengths> {
    let literals = reader.take(5) as usize + 257;
    let distances = reader.take(5) as usize + 1;
    let order = reader.take(4) as usize + 4;
    if literals > 286 || distances > 30 {
        return None;
    }
    let mut own = [0; 19];
    for &symbol in &LENGTH_CODE_ORDER[..order] {
        own[usize::from(symbol)] = reader.take(3) as u8;
    }
    let decoder = Decoder::new(&own)?;
    let mut lengths = Vec::with_capacity(literals + distances);
    while lengths.len() < literals + distances {
        reader.refill();
        let (symbol, bits) = decoder.decode(reader.peek())?;
        reader.drop_bits(bits);
        let (value, times) = match symbol {
            16 => (*lengths.last()?, reader.take(2) + 3),
            17 => (0, reader.take(3) + 3),
            18 => (0, reader.take(7) + 11),
            length => (length as u8, 1),
        };
        lengths.extend((0..times).map(|_| value));
    }
    if lengths.len() > literals + distances || reader.overrun() {
        return None;
    }
    let distances = lengths.split_off(literals);
    Some(CodeLengths { literals: lengths, distances })
}

/// Reads the tokens of one block up to its end (RFC 1951, 3.2.5).
fn tokens(reader: &mut BitReader, decoders: &Decoders, parsed: &mut Parsed, plain_max: usize) -> Option<()> {
    let Parsed { tokens, plain, .. } = parsed;
    loop {
        reader.refill();
        let (symbol, bits) = decoders.literals.decode(reader.peek())?;
        reader.drop_bits(bits);
        if symbol < END_OF_BLOCK {
            plain.push(symbol as u8);
            tokens.push(Token::LITERAL);
        } else if symbol == END_OF_BLOCK {
            return (plain.len() <= plain_max).then_some(());
        } else {
            let token = copy(reader, decoders, symbol)?;
            append(plain, token)?;
            tokens.push(token);
        }
        // Behind the end the bits are zero, which may be a code: the limit ends that as well.
        if plain.len() > plain_max {
            return None;
        }
    }
}

/// Reads the rest of a length and a distance. At most 48 bits, which one refill has.
#[inline]
fn copy(reader: &mut BitReader, decoders: &Decoders, symbol: usize) -> Option<Token> {
    let span = LENGTHS.get(symbol - 257)?;
    let length = usize::from(span.base) + (reader.peek() & ((1 << span.extra) - 1)) as usize;
    reader.drop_bits(u32::from(span.extra));
    // 258 has a code of its own; as 227 + 31 it could not be told from that.
    if length == LENGTH_MAX && span.extra > 0 {
        return None;
    }
    let (symbol, bits) = decoders.distances.decode(reader.peek())?;
    reader.drop_bits(bits);
    let span = DISTANCES.get(symbol)?;
    let distance = usize::from(span.base) + (reader.peek() & ((1 << span.extra) - 1)) as usize;
    reader.drop_bits(u32::from(span.extra));
    (distance <= WINDOW).then(|| Token::copy(length, distance))
}

/// Appends what a copy stands for. It may overlap with what it appends.
#[inline]
fn append(plain: &mut Vec<u8>, token: Token) -> Option<()> {
    let start = plain.len().checked_sub(token.distance())?;
    if token.distance() >= token.length() {
        plain.extend_from_within(start..start + token.length());
    } else {
        for at in start..start + token.length() {
            plain.push(plain[at]);
        }
    }
    Some(())
}
