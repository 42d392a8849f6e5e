//! Runs of base64 text in one layout: finds them, decodes them, and proves that encoding gives the same text.

use super::form::{Base64Form, char_count};
use crate::content::mail::base64;
use std::ops::Range;

/// Length in bytes within which nearly all lines end.
const USUAL_LINE_BYTES: usize = 1024;
/// Number of decoded bytes from which a run counts as long.
const LONG_BYTES: usize = 4096;

/// The longest stretch of base64 text in one layout from the start of a line.
pub(super) struct Run {
    /// The range of the text in the message.
    pub range: Range<usize>,
    /// The decoded bytes.
    pub decoded: Vec<u8>,
    /// The layout of the text.
    pub form: Base64Form,
}

impl Run {
    /// Reads whole lines as long as the first one, and a shorter last one.
    ///
    /// `start` must be the start of a line. Returns none if there is no base64 text.
    pub fn scan(message: &[u8], start: usize) -> Option<Self> {
        let text = &message[start..];
        let (line_len, crlf) = first_line(text);
        if line_len == 0 {
            return None;
        }
        let eol: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let mut decoder = Decoder::default();
        let mut at = 0;
        while text[at..].get(line_len..).is_some_and(|rest| rest.starts_with(eol)) {
            if !decoder.feed_line(&text[at..at + line_len]) {
                break;
            }
            at += line_len + eol.len();
            // A long run will probably go on: make room for all of it, so that its bytes are not moved again and again.
            if decoder.decoded.len() >= LONG_BYTES && decoder.decoded.capacity() < text.len() / 4 * 3 {
                decoder.decoded.reserve(text.len() / 4 * 3 - decoder.decoded.len());
            }
        }
        decoder.feed_last_line(&text[at..], line_len);
        let mut decoded = decoder.decoded;
        decoded.shrink_to_fit();
        Self::measure(text, &decoded, line_len, crlf).map(|(len, form)| Run {
            range: start..start + len,
            decoded,
            form,
        })
    }

    /// Returns the length and the layout of the text at the start of `text` that encodes `decoded`.
    fn measure(text: &[u8], decoded: &[u8], line_len: usize, crlf: bool) -> Option<(usize, Base64Form)> {
        if decoded.is_empty() {
            return None;
        }
        let decoded_len = decoded.len() as u64;
        let unbroken = char_count(decoded_len) <= line_len as u64;
        let line_len = if unbroken { 0 } else { u32::try_from(line_len).ok()? };
        let mut form = Base64Form { line_len, crlf, final_eol: false };
        let len = form.encoded_len(decoded_len) as usize;
        form.final_eol = text.get(len..)?.starts_with(form.eol());
        Some((len + if form.final_eol { form.eol().len() } else { 0 }, form))
    }

    /// Encodes the decoded bytes as a restore does, and compares the text with `message`.
    pub fn is_proven(&self, message: &[u8]) -> bool {
        let decoded_len = self.decoded.len() as u64;
        if self.form.encoded_len(decoded_len) != self.range.len() as u64 {
            return false;
        }
        let piece_len = self.form.piece_len();
        let mut rendered = Vec::with_capacity(piece_len);
        let mut offset = 0;
        message[self.range.clone()].chunks(piece_len).all(|expected| {
            let encoded = offset..offset + expected.len() as u64;
            let span = self.form.decoded_span(encoded.clone(), decoded_len);
            offset = encoded.end;
            rendered.clear();
            let decoded = &self.decoded[span.start as usize..span.end as usize];
            self.form.render(encoded, decoded_len, decoded, &mut rendered);
            rendered == expected
        })
    }
}

/// Returns the length of the first line without its ending, and whether it ends with CR LF. Of a long line with other
/// characters than those of base64, returns the length up to the first of these. So the time depends on how much text
/// is base64: in a mail without LF the first line is all the rest, and it may be asked for behind each field.
fn first_line(text: &[u8]) -> (usize, bool) {
    match memchr::memchr(b'\n', &text[..text.len().min(USUAL_LINE_BYTES)]) {
        Some(end) if text[..end].ends_with(b"\r") => (end - 1, true),
        Some(end) => (end, false),
        None => {
            let is_base64 = |byte: &u8| *byte == b'=' || base64::value_of(*byte).is_some();
            let len = text.iter().position(|byte| !is_base64(byte)).unwrap_or(text.len());
            (len, text[len..].starts_with(b"\r\n"))
        }
    }
}

/// The character whose bits are all zero.
const ZERO: u8 = b'A';

/// Decodes canonical base64 text line by line.
#[derive(Default)]
struct Decoder {
    decoded: Vec<u8>,
    /// The characters of an incomplete group of four. Lines may end inside a group.
    partial: [u8; 4],
    partial_len: usize,
}

impl Decoder {
    /// Decodes a line without padding. If the line has a character outside the alphabet, ignores the line and returns
    /// false.
    fn feed_line(&mut self, line: &[u8]) -> bool {
        let before = (self.decoded.len(), self.partial, self.partial_len);
        // Complete the group that the line before began.
        let (head, rest) = line.split_at(line.len().min((4 - self.partial_len) % 4));
        let (groups, tail) = rest.split_at(rest.len() / 4 * 4);
        let good = self.feed_chars(head) && base64::decode_groups(groups, &mut self.decoded) && self.feed_chars(tail);
        if !good {
            self.decoded.truncate(before.0);
            (self.partial, self.partial_len) = (before.1, before.2);
        }
        good
    }

    fn feed_chars(&mut self, chars: &[u8]) -> bool {
        for &char in chars {
            if base64::value_of(char).is_none() {
                return false;
            }
            self.partial[self.partial_len] = char;
            self.partial_len += 1;
            if self.partial_len == 4 {
                base64::decode_groups(&self.partial, &mut self.decoded);
                self.partial_len = 0;
            }
        }
        true
    }

    /// Decodes the regular part of the line at the start of `text`: at most `line_len` characters and padding.
    ///
    /// A line on which other text follows is not base64, even if it starts with a word in the alphabet.
    fn feed_last_line(&mut self, text: &[u8], line_len: usize) {
        let line = &text[..text.len().min(line_len)];
        let chars = line.iter().take_while(|&&char| base64::value_of(char).is_some()).count();
        let pads = line[chars..].iter().take(2).take_while(|&&char| char == b'=').count();
        if text.get(chars + pads).is_some_and(|next| !next.is_ascii_whitespace()) {
            return;
        }
        if !self.feed_line(&line[..chars]) || pads == 0 || self.partial_len + pads != 4 {
            return;
        }
        let mut group = self.partial;
        group[self.partial_len..].fill(ZERO);
        if base64::decode_groups(&group, &mut self.decoded) {
            let end = self.decoded.len() - pads;
            let is_canonical = self.decoded[end..].iter().all(|&byte| byte == 0);
            // The characters of an unfinished or not canonical group stay raw.
            self.decoded.truncate(if is_canonical { end } else { end + pads - 3 });
        }
    }
}
