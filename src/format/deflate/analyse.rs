//! Finds the corrections of a parsed stream.

use super::bits::{BitReader, BitWriter};
use super::codes::{Frequencies, Token, WINDOW};
use super::corrections::{Content, Correction, Exception, Flush, Writer};
use super::encode::{copy_bits, prefers_fixed};
use super::parameters::Parameters;
use super::parse::{Block, Kind, Parsed};
use super::predictor::Predictor;
use super::steps_max;
use super::trees::Trees;

/// Finds the corrections. None if that takes too many steps.
pub(super) fn analyse(stream: &[u8], parsed: &Parsed, flushes: &[Flush], parameters: Parameters) -> Option<Vec<u8>> {
    let predictor = Predictor::new(&parsed.plain, parameters);
    let writer = Writer::default();
    let mut analysis = Analysis { stream, parsed, parameters, flushes, flushes_done: 0, predictor, writer };
    let mut tokens = parsed.tokens.as_slice();
    for block in &parsed.blocks {
        let own = tokens.split_off(..block.tokens).expect("blocks count their tokens");
        analysis.block(block, own)?;
    }
    Some(analysis.writer.finish(&parameters, parsed.padding, flushes))
}

struct Analysis<'a> {
    stream: &'a [u8],
    parsed: &'a Parsed,
    parameters: Parameters,
    flushes: &'a [Flush],
    flushes_done: usize,
    predictor: Predictor<'a>,
    writer: Writer,
}

impl Analysis<'_> {
    fn block(&mut self, block: &Block, tokens: &[Token]) -> Option<()> {
        let position = self.predictor.position();
        if block.is_flush {
            let flush = self.flushes[self.flushes_done];
            debug_assert_eq!(flush.position, position);
            self.flushes_done += 1;
            if flush.full {
                self.predictor.forget();
            }
            return Some(());
        }
        let next_flush = self.flushes.get(self.flushes_done).map_or(self.parsed.plain.len(), |flush| flush.position);
        self.predictor.set_end(next_flush);
        if let Kind::Stored { padding } = block.kind {
            let content = Content::Stored { padding, length: block.plain_len };
            self.writer.exception(&Exception { last: block.last, content });
            self.predictor.skip(block.plain_len);
            return Some(());
        }
        let mut frequencies = Frequencies::new();
        for &token in tokens {
            frequencies.count(token, self.parsed.plain[self.predictor.position()]);
            self.token(token);
        }
        if self.predictor.steps() > steps_max(self.parsed.plain.len()) {
            return None;
        }
        self.close(block, next_flush, &frequencies);
        Some(())
    }

    #[inline]
    fn token(&mut self, token: Token) {
        let predicted = self.predictor.predict();
        if predicted == token {
            self.writer.token();
        } else {
            let length = token.length();
            let correction = if token.is_literal() {
                Correction::Literal
            } else if let Some(hops) = self.predictor.hops_by_distance(length, token.distance()) {
                Correction::Hops { length, hops }
            } else {
                Correction::Distance { length, distance: token.distance() }
            };
            self.writer.correction(predicted, correction);
        }
        self.predictor.accept(token);
    }

    /// Compares a block with what would have been predicted of it.
    fn close(&mut self, block: &Block, next_flush: usize, frequencies: &Frequencies) {
        let plain_len = self.parsed.plain.len();
        let position = self.predictor.position();
        let full = block.tokens == self.parameters.block_tokens;
        let ends_as_predicted =
            block.tokens <= self.parameters.block_tokens && (full || position == next_flush) && position <= next_flush;
        let last = position == plain_len && self.flushes_done == self.flushes.len() && !full;
        let trees = Trees::new(frequencies);
        let fixed = prefers_fixed(frequencies, &trees);
        let tokens = (!ends_as_predicted).then_some(block.tokens);
        let as_predicted = ends_as_predicted && last == block.last;
        match &block.kind {
            Kind::Dynamic { header } => {
                let kept = self.header(header);
                let mut predicted = BitWriter::default();
                trees.write_header(&mut predicted);
                let same = predicted.finish() == kept;
                if as_predicted && same && !fixed {
                    return self.writer.block();
                }
                let header = (!same).then_some((kept.as_slice(), (header.end - header.start) as usize));
                self.writer.exception(&Exception { last: block.last, content: Content::Dynamic { tokens, header } });
            }
            _ if as_predicted && fixed => self.writer.block(),
            _ => self.writer.exception(&Exception { last: block.last, content: Content::Fixed { tokens } }),
        }
    }

    /// The bits that say a block's code lengths.
    fn header(&self, range: &std::ops::Range<u64>) -> Vec<u8> {
        let byte = (range.start / 8) as usize;
        let mut reader = BitReader::new(&self.stream[byte..]);
        reader.take((range.start % 8) as u32);
        let mut writer = BitWriter::default();
        copy_bits(&mut reader, &mut writer, range.end - range.start);
        writer.finish()
    }
}

/// Finds the flushes of a stream, and which of them were full: no copy behind reaches back over them.
pub(super) fn flushes(parsed: &Parsed) -> Vec<Flush> {
    let (mut flushes, mut position, mut next) = (Vec::new(), 0, 0);
    for block in &parsed.blocks {
        if block.is_flush {
            let full = !reaches_back(&parsed.tokens[next..], position);
            flushes.push(Flush { position, full });
        }
        position += block.plain_len;
        next += block.tokens;
    }
    flushes
}

/// Tells whether one of the tokens copies what is before them. Stored blocks between them are not counted, which makes
/// the answer a guess there.
fn reaches_back(tokens: &[Token], position: usize) -> bool {
    let mut behind = 0;
    for token in tokens.iter().take(1024) {
        if token.distance() > behind {
            return true;
        }
        behind += token.length();
        if behind > WINDOW {
            break;
        }
    }
    // At the very end there is no telling, and nothing to forget.
    tokens.is_empty() || position == 0
}
