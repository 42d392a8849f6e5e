//! The layout of base64 text in lines, and how the text is written again.

use crate::content::mail::base64;
use std::ops::Range;

/// Number of bytes of base64 text that are rendered at a time: a multiple of 4, and small enough for the L1 cache.
const PIECE_BYTES: usize = 8192;

/// The layout of an attachment's base64 text: with it, the decoded bytes give exactly the original text.
///
/// The text itself is canonical (standard alphabet, padded, unused bits zero), so only its lines need a description.
/// Lines may have any length. (If the length is no multiple of 4, a line ending may split the padding; the last one or
/// two bytes then stay raw.) Any value of the fields is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base64Form {
    /// Number of characters in each full line, without the line ending; need not be a multiple of 4. 0 means that the
    /// text is one line.
    pub line_len: u32,
    /// True if lines end with CR LF, false if they end with LF.
    pub crlf: bool,
    /// True if the last line has a line ending, too.
    pub final_eol: bool,
}

impl Base64Form {
    /// Returns the length of the text that encodes `decoded_len` bytes.
    pub fn encoded_len(&self, decoded_len: u64) -> u64 {
        let inner = self.inner_len(decoded_len);
        if self.final_eol && inner > 0 { inner.saturating_add(self.eol().len() as u64) } else { inner }
    }

    /// Returns the range of decoded bytes that is needed to render the range `encoded` of the text.
    ///
    /// The part of `encoded` behind the end of the text is ignored.
    pub fn decoded_span(&self, encoded: Range<u64>, decoded_len: u64) -> Range<u64> {
        let chars = self.chars_before(encoded.start, decoded_len)..self.chars_before(encoded.end, decoded_len);
        let start = (chars.start / 4 * 3).min(decoded_len);
        if chars.is_empty() {
            return start..start;
        }
        start..chars.end.div_ceil(4).saturating_mul(3).min(decoded_len)
    }

    /// Appends exactly the range `encoded` of the text to `out`. `decoded` holds the bytes of
    /// [`Base64Form::decoded_span`].
    ///
    /// The part of `encoded` behind the end of the text is ignored. If `decoded` is shorter than the span, which is a
    /// mistake of the caller, the text ends early.
    pub fn render(&self, encoded: Range<u64>, decoded_len: u64, decoded: &[u8], out: &mut Vec<u8>) {
        debug_assert_eq!(decoded.len() as u64, span_len(self.decoded_span(encoded.clone(), decoded_len)));
        let (line_chars, eol) = (self.line_chars(decoded_len), self.eol());
        let inner_len = self.inner_len(decoded_len);
        let mut at = encoded.start;
        let mut decoded = decoded;
        // The quick way for whole lines of whole groups, as most texts have.
        let line_bytes = if line_chars.is_multiple_of(4) { line_chars / 4 * 3 } else { 0 };
        let stride = line_chars.saturating_add(eol.len() as u64);
        if line_bytes > 0 && at.is_multiple_of(stride) {
            let lines = (encoded.end.min(inner_len).saturating_sub(at) / stride).min(decoded.len() as u64 / line_bytes);
            let (now, later) = decoded.split_at((lines * line_bytes) as usize);
            let start = out.len();
            out.resize(start + (lines * stride) as usize, 0);
            if lines > 0 {
                let texts = out[start..].chunks_exact_mut(stride as usize);
                for (line, text) in now.chunks_exact(line_bytes as usize).zip(texts) {
                    base64::write(line, text);
                    text[line_chars as usize..].copy_from_slice(eol);
                }
            }
            decoded = later;
            at += lines * stride;
        }
        let mut text = Text::new(decoded, (self.chars_before(at, decoded_len) % 4) as usize);
        while at < encoded.end.min(inner_len) {
            let left = encoded.end.min(inner_len) - at;
            let column = at % line_chars.saturating_add(eol.len() as u64);
            let bytes = match column.checked_sub(line_chars) {
                None => text.take(left.min(line_chars - column)),
                Some(index) => &eol[index as usize..eol.len().min(index.saturating_add(left) as usize)],
            };
            if bytes.is_empty() {
                return;
            }
            out.extend_from_slice(bytes);
            at += bytes.len() as u64;
        }
        let end = encoded.end.min(self.encoded_len(decoded_len));
        if at < end {
            out.extend_from_slice(&eol[(at - inner_len) as usize..(end - inner_len) as usize]);
        }
    }

    /// Returns the length of the text without the ending of its last line.
    fn inner_len(&self, decoded_len: u64) -> u64 {
        let chars = char_count(decoded_len);
        let inner_eols = chars.div_ceil(self.line_chars(decoded_len)).saturating_sub(1);
        chars.saturating_add(inner_eols.saturating_mul(self.eol().len() as u64))
    }

    /// Returns the number of bytes of text to render at a time: some kilobytes, and whole lines unless lines are
    /// longer.
    pub(super) fn piece_len(&self) -> usize {
        let stride = self.line_len as usize + self.eol().len();
        if self.line_len == 0 || stride > PIECE_BYTES { PIECE_BYTES } else { PIECE_BYTES / stride * stride }
    }

    pub(super) fn eol(&self) -> &'static [u8] {
        if self.crlf { b"\r\n" } else { b"\n" }
    }

    fn line_chars(&self, decoded_len: u64) -> u64 {
        if self.line_len == 0 { char_count(decoded_len).max(1) } else { self.line_len.into() }
    }

    /// Returns the number of base64 characters before `offset` in the text.
    fn chars_before(&self, offset: u64, decoded_len: u64) -> u64 {
        let line_chars = self.line_chars(decoded_len);
        let stride = line_chars.saturating_add(self.eol().len() as u64);
        let chars = (offset / stride).saturating_mul(line_chars).saturating_add((offset % stride).min(line_chars));
        chars.min(char_count(decoded_len))
    }
}

fn span_len(span: Range<u64>) -> u64 {
    span.end.saturating_sub(span.start)
}

pub(super) fn char_count(decoded_len: u64) -> u64 {
    decoded_len.div_ceil(3).saturating_mul(4)
}

/// Base64 text without line endings, encoded piece by piece.
struct Text<'a> {
    decoded: &'a [u8],
    piece: Vec<u8>,
    /// Number of characters of the current piece that were returned.
    taken: usize,
}

impl<'a> Text<'a> {
    /// Begins `skip` characters into the encoding of `decoded`.
    fn new(decoded: &'a [u8], skip: usize) -> Self {
        let mut text = Text { decoded, piece: Vec::new(), taken: 0 };
        text.fill();
        text.taken = skip.min(text.piece.len());
        text
    }

    fn fill(&mut self) {
        let (now, later) = self.decoded.split_at(self.decoded.len().min(PIECE_BYTES / 4 * 3));
        self.piece.clear();
        base64::append(now, &mut self.piece);
        self.decoded = later;
        self.taken = 0;
    }

    /// Returns the next characters, at most `count`. Empty only at the end.
    fn take(&mut self, count: u64) -> &[u8] {
        if self.taken == self.piece.len() {
            self.fill();
        }
        let start = self.taken;
        self.taken += count.min((self.piece.len() - start) as u64) as usize;
        &self.piece[start..self.taken]
    }
}
