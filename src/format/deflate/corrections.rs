//! The corrections as bytes: parameters, flushes, exceptional blocks and tokens (docs/repository-format.md,
//! "Deflated streams").

use super::RecreateError;
use super::codes::{LENGTH_MAX, LENGTH_MIN, Token, WINDOW};
use super::parameters::Parameters;
use super::varint::{ByteReader, put};

/// The version of the corrections and of the predictor.
const VERSION: u8 = 1;

/// A place where the maker emptied its buffers: an empty stored block ends the bytes that it had seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flush {
    pub(super) position: usize,
    /// The maker forgot all that was before.
    pub(super) full: bool,
}

/// A block that is not as predicted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Exception<'a> {
    pub(super) last: bool,
    pub(super) content: Content<'a>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content<'a> {
    Stored {
        padding: u8,
        length: usize,
    },
    /// `tokens` is None where the block ends where it was predicted to.
    Fixed {
        tokens: Option<usize>,
    },
    /// `header` is None where the code lengths are as predicted, else the bits and their number.
    Dynamic {
        tokens: Option<usize>,
        header: Option<(&'a [u8], usize)>,
    },
}

/// A token that is not as predicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Correction {
    Literal,
    /// The distance is that of a candidate: this many matching ones are nearer.
    Hops {
        length: usize,
        hops: usize,
    },
    Distance {
        length: usize,
        distance: usize,
    },
}

/// Collects corrections.
#[derive(Default)]
pub(super) struct Writer {
    blocks: Vec<u8>,
    blocks_as_predicted: u64,
    gaps: Vec<u8>,
    tokens: Vec<u8>,
    distances: Vec<u8>,
    tokens_as_predicted: u64,
}

const LAST: u8 = 4;
const TOKENS: u8 = 8;
const HEADER: u8 = 16;

impl Writer {
    /// Notes a block that is as predicted.
    pub(super) fn block(&mut self) {
        self.blocks_as_predicted += 1;
    }

    /// Notes a block that is not as predicted.
    pub(super) fn exception(&mut self, exception: &Exception) {
        let out = &mut self.blocks;
        put(out, self.blocks_as_predicted);
        self.blocks_as_predicted = 0;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let last = flag(exception.last, LAST);
        match exception.content {
            Content::Stored { padding, length } => {
                out.push(last | padding << 3);
                put(out, length as u64);
            }
            Content::Fixed { tokens } => {
                out.push(1 | last | flag(tokens.is_some(), TOKENS));
                tokens.into_iter().for_each(|tokens| put(out, tokens as u64));
            }
            Content::Dynamic { tokens, header } => {
                out.push(2 | last | flag(tokens.is_some(), TOKENS) | flag(header.is_some(), HEADER));
                tokens.into_iter().for_each(|tokens| put(out, tokens as u64));
                if let Some((bits, count)) = header {
                    put(out, count as u64);
                    out.extend_from_slice(bits);
                }
            }
        }
    }

    /// Notes a token that is as predicted.
    #[inline]
    pub(super) fn token(&mut self) {
        self.tokens_as_predicted += 1;
    }

    /// Notes a token that is not as `predicted`.
    pub(super) fn correction(&mut self, predicted: Token, correction: Correction) {
        put(&mut self.gaps, self.tokens_as_predicted);
        self.tokens_as_predicted = 0;
        let (length, explicit, number) = match correction {
            Correction::Literal => return put(&mut self.tokens, 0),
            Correction::Hops { length, hops } => (length, 0, hops),
            Correction::Distance { length, distance } => (length, 1, distance - 1),
        };
        put(&mut self.tokens, 1 + 2 * length_code(predicted, length) as u64 + explicit);
        put(&mut self.distances, number as u64);
    }

    /// Returns the corrections.
    pub(super) fn finish(self, parameters: &Parameters, padding: u8, flushes: &[Flush]) -> Vec<u8> {
        let mut out = vec![VERSION];
        parameters.write(&mut out);
        out.push(padding);
        put(&mut out, flushes.len() as u64);
        let mut before = 0;
        for flush in flushes {
            put(&mut out, 2 * (flush.position - before) as u64 + u64::from(flush.full));
            before = flush.position;
        }
        for part in [&self.blocks, &self.gaps, &self.tokens] {
            put(&mut out, part.len() as u64);
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&self.distances);
        out
    }
}

/// A length as a number: small if it is near what was predicted.
fn length_code(predicted: Token, length: usize) -> usize {
    if predicted.is_literal() {
        length - LENGTH_MIN
    } else if length >= predicted.length() {
        2 * (length - predicted.length())
    } else {
        2 * (predicted.length() - length) - 1
    }
}

/// Reads corrections.
pub(super) struct Reader<'a> {
    pub(super) parameters: Parameters,
    pub(super) padding: u8,
    pub(super) flushes: Vec<Flush>,
    blocks: ByteReader<'a>,
    blocks_as_predicted: usize,
    gaps: ByteReader<'a>,
    tokens: ByteReader<'a>,
    distances: ByteReader<'a>,
    tokens_as_predicted: usize,
}

/// More blocks or tokens than there can be.
const NEVER: usize = usize::MAX;

impl<'a> Reader<'a> {
    pub(super) fn new(corrections: &'a [u8], plain_len: usize) -> Result<Self, RecreateError> {
        let mut reader = ByteReader::new(corrections);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(RecreateError::Version(version));
        }
        let parameters = Parameters::read(&mut reader)?;
        let padding = reader.byte()?;
        let flushes = flushes(&mut reader, plain_len)?;
        let (blocks, gaps, tokens) = (reader.part()?, reader.part()?, reader.part()?);
        let mut read = Self {
            parameters,
            padding,
            flushes,
            blocks,
            blocks_as_predicted: 0,
            gaps,
            tokens,
            distances: reader,
            tokens_as_predicted: 0,
        };
        read.blocks_as_predicted = gap(&mut read.blocks)?;
        read.tokens_as_predicted = gap(&mut read.gaps)?;
        Ok(read)
    }

    /// Returns the next block's exception. None if it is as predicted.
    pub(super) fn block(&mut self) -> Result<Option<Exception<'a>>, RecreateError> {
        if self.blocks_as_predicted > 0 {
            self.blocks_as_predicted -= 1;
            return Ok(None);
        }
        let flags = self.blocks.byte()?;
        let reader = &mut self.blocks;
        let kind = flags & 3;
        let tokens = if kind > 0 && flags & TOKENS != 0 { Some(reader.number()?) } else { None };
        let content = match kind {
            0 => Content::Stored { padding: flags >> 3, length: reader.number_in(0, 0xffff)? },
            1 if flags & !(3 | LAST | TOKENS) == 0 => Content::Fixed { tokens },
            2 if flags & !(3 | LAST | TOKENS | HEADER) == 0 => {
                let header = if flags & HEADER != 0 {
                    let count = reader.number()?;
                    Some((reader.bytes(count.div_ceil(8))?, count))
                } else {
                    None
                };
                Content::Dynamic { tokens, header }
            }
            _ => return Err(RecreateError::Corrections("there is no such block")),
        };
        self.blocks_as_predicted = gap(&mut self.blocks)?;
        Ok(Some(Exception { last: flags & LAST != 0, content }))
    }

    /// Returns the next token's correction. None if it is as `predicted`.
    #[inline]
    pub(super) fn token(&mut self, predicted: Token) -> Result<Option<Correction>, RecreateError> {
        if self.tokens_as_predicted > 0 {
            self.tokens_as_predicted -= 1;
            return Ok(None);
        }
        self.corrected(predicted).map(Some)
    }

    fn corrected(&mut self, predicted: Token) -> Result<Correction, RecreateError> {
        let code = self.tokens.number()?;
        self.tokens_as_predicted = gap(&mut self.gaps)?;
        let Some(code) = code.checked_sub(1) else { return Ok(Correction::Literal) };
        let (explicit, code) = (code % 2 == 1, code / 2);
        let length = if predicted.is_literal() {
            Some(code + LENGTH_MIN)
        } else if code % 2 == 0 {
            Some(predicted.length() + code / 2)
        } else {
            predicted.length().checked_sub(code / 2 + 1)
        };
        let length = length.filter(|length| (LENGTH_MIN..=LENGTH_MAX).contains(length));
        let length = length.ok_or(RecreateError::Corrections("a copy has an impossible length"))?;
        if explicit {
            Ok(Correction::Distance { length, distance: self.distances.number_in(0, WINDOW - 1)? + 1 })
        } else {
            Ok(Correction::Hops { length, hops: self.distances.number()? })
        }
    }

    /// Fails if something is left.
    pub(super) fn finish(&self) -> Result<(), RecreateError> {
        let done =
            self.blocks.is_empty() && self.gaps.is_empty() && self.tokens.is_empty() && self.distances.is_empty();
        // A gap that was read announces a correction behind it.
        if done && self.blocks_as_predicted > NEVER / 2 && self.tokens_as_predicted > NEVER / 2 {
            Ok(())
        } else {
            Err(RecreateError::Corrections("they go on behind the end"))
        }
    }
}

/// Reads how many are as predicted before the next correction. Behind the last one all are.
fn gap(reader: &mut ByteReader) -> Result<usize, RecreateError> {
    if reader.is_empty() { Ok(NEVER) } else { reader.number() }
}

fn flushes(reader: &mut ByteReader, plain_len: usize) -> Result<Vec<Flush>, RecreateError> {
    let count = reader.number()?;
    let mut flushes = Vec::new();
    let mut position = 0;
    for _ in 0..count {
        let number = reader.number()?;
        position += number / 2;
        if position > plain_len {
            return Err(RecreateError::Corrections("a flush is behind the end"));
        }
        flushes.push(Flush { position, full: number % 2 == 1 });
    }
    Ok(flushes)
}
