//! Makes a stream again from its plain bytes and its corrections.

use super::RecreateError;
use super::bits::BitWriter;
use super::codes::Token;
use super::corrections::{Content, Correction, Exception, Flush, Reader};
use super::encode::{self, Collected};
use super::matcher::common;
use super::predictor::Predictor;
use super::steps_max;
use super::trees::Trees;

/// Where the tokens of a block end.
#[derive(Clone, Copy)]
pub(super) struct BlockEnd {
    /// After this many tokens.
    pub(super) tokens: usize,
    /// At this position, whatever the number of tokens is.
    pub(super) position: usize,
}

/// Makes the stream again and hands its parts to `sink`.
pub(super) fn recreate(
    plain: &[u8],
    corrections: &[u8],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), RecreateError>,
) -> Result<(), RecreateError> {
    if u32::try_from(plain.len()).is_err() {
        return Err(RecreateError::Plain("they are more than 4 GiB"));
    }
    let reader = Reader::new(corrections, plain.len())?;
    let predictor = Predictor::new(plain, reader.parameters);
    let mut recreation =
        Recreation { plain, reader, predictor, flushes_done: 0, writer: BitWriter::default(), block: Collected::new() };
    loop {
        let last = recreation.block()?;
        if last {
            break;
        }
        recreation.writer.drain(sink)?;
    }
    recreation.finish(sink)
}

struct Recreation<'a> {
    plain: &'a [u8],
    reader: Reader<'a>,
    predictor: Predictor<'a>,
    flushes_done: usize,
    writer: BitWriter,
    block: Collected,
}

impl Recreation<'_> {
    /// Makes one block. Returns whether it is the last.
    fn block(&mut self) -> Result<bool, RecreateError> {
        let position = self.predictor.position();
        if let Some(&Flush { position: at, full }) = self.reader.flushes.get(self.flushes_done)
            && at <= position
        {
            self.flushes_done += 1;
            if full {
                self.predictor.forget();
            }
            encode::stored(&mut self.writer, false, 0, &[]).expect("nothing is short enough");
            return Ok(false);
        }
        self.predictor.set_end(self.next_flush());
        match self.reader.block()? {
            None => self.predicted(),
            Some(exception) => self.exception(&exception),
        }
    }

    /// The position of the next flush, or the end.
    fn next_flush(&self) -> usize {
        self.reader.flushes.get(self.flushes_done).map_or(self.plain.len(), |flush| flush.position)
    }

    /// Makes a block that is as predicted.
    fn predicted(&mut self) -> Result<bool, RecreateError> {
        let tokens = self.reader.parameters.block_tokens;
        self.collect(BlockEnd { tokens, position: self.next_flush() })?;
        let at_end = self.predictor.position() == self.plain.len() && self.flushes_done == self.reader.flushes.len();
        let last = at_end && self.block.tokens.len() < tokens;
        let trees = Trees::new(&self.block.frequencies);
        if encode::prefers_fixed(&self.block.frequencies, &trees) {
            encode::fixed(&mut self.writer, last, &self.block, self.plain);
        } else {
            encode::dynamic(&mut self.writer, last, &trees, &self.block, self.plain);
        }
        Ok(last)
    }

    fn exception(&mut self, exception: &Exception) -> Result<bool, RecreateError> {
        let last = exception.last;
        match exception.content {
            Content::Stored { padding, length } => {
                let start = self.predictor.position();
                let bytes = self.plain.get(start..start + length).ok_or(RecreateError::Plain("they end too early"))?;
                encode::stored(&mut self.writer, last, padding, bytes).ok_or(PADDING)?;
                self.predictor.skip(length);
            }
            Content::Fixed { tokens } => {
                self.collect_for(tokens)?;
                encode::fixed(&mut self.writer, last, &self.block, self.plain);
            }
            Content::Dynamic { tokens, header: None } => {
                self.collect_for(tokens)?;
                let trees = Trees::new(&self.block.frequencies);
                encode::dynamic(&mut self.writer, last, &trees, &self.block, self.plain);
            }
            Content::Dynamic { tokens, header: Some(header) } => {
                self.collect_for(tokens)?;
                encode::kept(&mut self.writer, last, header, &self.block, self.plain)
                    .ok_or(RecreateError::Corrections("the code lengths of a block do not fit"))?;
            }
        }
        Ok(last)
    }

    /// Collects as many tokens as an exception says, or as are predicted.
    fn collect_for(&mut self, tokens: Option<usize>) -> Result<(), RecreateError> {
        let predicted = BlockEnd { tokens: self.reader.parameters.block_tokens, position: self.next_flush() };
        self.collect(tokens.map_or(predicted, |tokens| BlockEnd { tokens, position: usize::MAX }))
    }

    /// Collects the tokens of a block.
    fn collect(&mut self, end: BlockEnd) -> Result<(), RecreateError> {
        self.block.begin(self.predictor.position());
        // A flush that lies inside of the block bounds what the maker saw only up to it.
        while self.block.tokens.len() < end.tokens && self.predictor.position() < end.position {
            let at = self.predictor.position();
            let Some(&byte) = self.plain.get(at) else {
                return Err(RecreateError::Plain("they end too early"));
            };
            let predicted = self.predictor.predict();
            let token = match self.reader.token(predicted)? {
                None => predicted,
                Some(correction) => self.corrected(correction)?,
            };
            self.block.frequencies.count(token, byte);
            self.block.tokens.push(token);
            self.predictor.accept(token);
        }
        if self.predictor.steps() > steps_max(self.plain.len()) {
            return Err(RecreateError::Steps);
        }
        Ok(())
    }

    /// The token of a correction. Its bytes must be those of the plain bytes.
    fn corrected(&mut self, correction: Correction) -> Result<Token, RecreateError> {
        const WRONG: RecreateError = RecreateError::Corrections("a copy does not match the plain bytes");
        if self.predictor.steps() > steps_max(self.plain.len()) {
            return Err(RecreateError::Steps);
        }
        let (length, distance) = match correction {
            Correction::Literal => return Ok(Token::LITERAL),
            Correction::Hops { length, hops } => (length, self.predictor.distance_by_hops(length, hops).ok_or(WRONG)?),
            Correction::Distance { length, distance } => (length, distance),
        };
        let at = self.predictor.position();
        let from = at.checked_sub(distance).ok_or(WRONG)?;
        let here = self.plain.get(at..at + length).ok_or(WRONG)?;
        if common(&self.plain[from..from + length], here) < length {
            return Err(WRONG);
        }
        Ok(Token::copy(length, distance))
    }

    fn finish(mut self, sink: &mut dyn FnMut(&[u8]) -> Result<(), RecreateError>) -> Result<(), RecreateError> {
        if self.predictor.position() != self.plain.len() || self.flushes_done != self.reader.flushes.len() {
            return Err(RecreateError::Plain("they go on behind the end"));
        }
        self.reader.finish()?;
        encode::pad(&mut self.writer, self.reader.padding).ok_or(PADDING)?;
        self.writer.drain(sink)
    }
}

const PADDING: RecreateError = RecreateError::Corrections("the padding is too long");
