//! Cuts a mail into the bytes around its attachments and the attachments themselves, decoded.
//!
//! Base64 hides a document from deduplication and from compression. [`split`] therefore finds the base64 bodies of a
//! MIME message and hands out their decoded bytes together with a [`Base64Form`], the layout of the text: everything
//! that is needed to give back the exact original. What has no such layout stays as it is, as [`Segment::Raw`].
//!
//! Invariants:
//! - The segments, put together, are the message, for any input whatever. Each decoded body is rendered again with the
//!   code that restores use and compared with the message before it is kept.
//! - Time is linear in the message: the scan only moves forward. Memory is bounded by the message's size.
//!
//! Because every split is proven, finding the bodies need not be exact, and the scan is liberal and light: it looks for
//! `Content-Transfer-Encoding: base64` fields, wherever they stand, and tries the lines after the next blank line. It
//! parses neither multipart boundaries nor nesting, so that attachments of messages nested at any depth are found
//! alike, also where the structure around them is broken. A message that is itself encoded in base64 is decoded as a
//! blob.
//!
//! A body of which only a part has a regular layout (a footer of a mailing list, a line cut or joined on the way,
//! missing padding, wrong padding bits) is split into runs that do, with raw bytes between them.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Decoded bodies smaller than this stay raw: what a reference to a chunk of their own costs, and what compression
/// loses when they are torn from their neighbours, is about what decoding them would save.
pub const DECODED_BYTES_MIN: usize = 512;

/// A comment inside a `Content-Transfer-Encoding` field is given up after this many bytes, so that many unclosed
/// comments cannot make the scan quadratic.
const COMMENT_BYTES_MAX: usize = 256;

/// Bytes of base64 text that are rendered at a time; a multiple of 4, and small enough to stay in the L1 cache.
const PIECE_BYTES: usize = 8192;

/// How an attachment's base64 text was laid out: enough to give back the exact bytes from the decoded ones.
///
/// The text itself is canonical (standard alphabet, padded, unused bits zero), so that only its lines are described.
/// Lines may have any length. (If that is no multiple of 4, the padding can be torn apart by a line ending; the last
/// one or two bytes then stay raw.) Any value of the fields is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base64Form {
    /// Characters in each full line, without its line ending; need not be a multiple of 4. 0 means that the text is one
    /// unbroken line.
    pub line_len: u32,
    /// Lines end with CR LF; otherwise with LF alone.
    pub crlf: bool,
    /// The last line has its line ending, too.
    pub final_eol: bool,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Bytes that are kept as they are.
    Raw(&'a [u8]),
    /// A body, or a regular part of one, that was base64 text.
    Base64 {
        /// What the text encodes; at least [`DECODED_BYTES_MIN`] bytes.
        decoded: Vec<u8>,
        /// How to give back the text.
        form: Base64Form,
    },
}

/// Cuts `message` into segments that, put together, are `message`: always, for any input.
///
/// No two raw segments are neighbours, and none is empty; a message without base64 bodies is one raw segment.
pub fn split(message: &[u8]) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut raw_start = 0;
    let mut at = 0;
    while let Some(body) = find_body(message, at) {
        at = body;
        // An empty run ends the body: a blank line, a boundary, or text that is not base64.
        while let Some(run) = Run::scan(message, at) {
            if run.decoded.len() >= DECODED_BYTES_MIN && run.is_proven(message) {
                push_raw(&mut segments, &message[raw_start..run.range.start]);
                raw_start = run.range.end;
                segments.push(Segment::Base64 { decoded: run.decoded, form: run.form });
            }
            at = line_start_from(message, run.range.end);
        }
    }
    push_raw(&mut segments, &message[raw_start..]);
    segments
}

fn push_raw<'a>(segments: &mut Vec<Segment<'a>>, bytes: &'a [u8]) {
    if !bytes.is_empty() {
        segments.push(Segment::Raw(bytes));
    }
}

impl Base64Form {
    /// Returns the length of the text that encodes `decoded_len` bytes.
    pub fn encoded_len(&self, decoded_len: u64) -> u64 {
        let inner = self.inner_len(decoded_len);
        if self.final_eol && inner > 0 { inner.saturating_add(self.eol().len() as u64) } else { inner }
    }

    /// Returns the range of decoded bytes that is needed to render the range `encoded` of the text.
    ///
    /// What of `encoded` lies past the end of the text is ignored.
    pub fn decoded_span(&self, encoded: Range<u64>, decoded_len: u64) -> Range<u64> {
        let chars = self.chars_before(encoded.start, decoded_len)..self.chars_before(encoded.end, decoded_len);
        let start = (chars.start / 4 * 3).min(decoded_len);
        if chars.is_empty() {
            return start..start;
        }
        start..chars.end.div_ceil(4).saturating_mul(3).min(decoded_len)
    }

    /// Appends exactly the range `encoded` of the text to `out`, given the bytes of [`Base64Form::decoded_span`].
    ///
    /// What of `encoded` lies past the end of the text is ignored. If `decoded` is shorter than the span, which is a
    /// mistake of the caller, the text ends early.
    pub fn render(&self, encoded: Range<u64>, decoded_len: u64, decoded: &[u8], out: &mut Vec<u8>) {
        debug_assert_eq!(decoded.len() as u64, span_len(self.decoded_span(encoded.clone(), decoded_len)));
        let (line_chars, eol) = (self.line_chars(decoded_len), self.eol());
        let inner_len = self.inner_len(decoded_len);
        let mut text = Text::new(decoded, (self.chars_before(encoded.start, decoded_len) % 4) as usize);
        let mut at = encoded.start;
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

    /// Returns the length of the text without the line ending of its last line.
    fn inner_len(&self, decoded_len: u64) -> u64 {
        let chars = char_count(decoded_len);
        let inner_eols = chars.div_ceil(self.line_chars(decoded_len)).saturating_sub(1);
        chars.saturating_add(inner_eols.saturating_mul(self.eol().len() as u64))
    }

    fn eol(&self) -> &'static [u8] {
        if self.crlf { b"\r\n" } else { b"\n" }
    }

    fn line_chars(&self, decoded_len: u64) -> u64 {
        if self.line_len == 0 { char_count(decoded_len).max(1) } else { self.line_len.into() }
    }

    /// Returns how many base64 characters stand before `offset` in the text.
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

fn char_count(decoded_len: u64) -> u64 {
    decoded_len.div_ceil(3).saturating_mul(4)
}

/// Base64 text without line endings, encoded piece by piece.
struct Text<'a> {
    decoded: &'a [u8],
    piece: [u8; PIECE_BYTES],
    unread: Range<usize>,
}

impl<'a> Text<'a> {
    /// Starts `skip` characters into the encoding of `decoded`.
    fn new(decoded: &'a [u8], skip: usize) -> Self {
        let mut text = Text { decoded, piece: [0; PIECE_BYTES], unread: 0..0 };
        text.fill();
        text.unread.start = skip.min(text.unread.end);
        text
    }

    fn fill(&mut self) {
        let (now, later) = self.decoded.split_at(self.decoded.len().min(PIECE_BYTES / 4 * 3));
        let len = STANDARD.encode_slice(now, &mut self.piece).expect("a piece holds what 3/4 of its bytes encode to");
        self.decoded = later;
        self.unread = 0..len;
    }

    /// Returns the next characters: at most `count`, none only at the end.
    fn take(&mut self, count: u64) -> &[u8] {
        if self.unread.is_empty() {
            self.fill();
        }
        let start = self.unread.start;
        self.unread.start += count.min(self.unread.len() as u64) as usize;
        &self.piece[start..self.unread.start]
    }
}

/// The longest stretch of base64 text of one form from the start of a line.
struct Run {
    range: Range<usize>,
    decoded: Vec<u8>,
    form: Base64Form,
}

impl Run {
    /// Reads whole lines as long as the first, and the shorter last one.
    ///
    /// `start` must be the start of a line. Returns none if there is no base64 text at all.
    fn scan(message: &[u8], start: usize) -> Option<Self> {
        let text = &message[start..];
        let (line_len, crlf) = first_line(text);
        let eol: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let mut decoder = Decoder::default();
        let mut at = 0;
        while line_len > 0 && text[at..].get(line_len..).is_some_and(|rest| rest.starts_with(eol)) {
            if !decoder.feed_line(&text[at..at + line_len]) {
                break;
            }
            at += line_len + eol.len();
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

    /// Returns the length and the form of the text that begins `text` and encodes `decoded`.
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

    /// Renders the decoded bytes as a restore will and compares them with `message`.
    fn is_proven(&self, message: &[u8]) -> bool {
        let decoded_len = self.decoded.len() as u64;
        if self.form.encoded_len(decoded_len) != self.range.len() as u64 {
            return false;
        }
        let mut rendered = Vec::with_capacity(PIECE_BYTES);
        let mut offset = 0;
        message[self.range.clone()].chunks(PIECE_BYTES).all(|expected| {
            let encoded = offset..offset + expected.len() as u64;
            let span = self.form.decoded_span(encoded.clone(), decoded_len);
            offset = encoded.end;
            rendered.clear();
            self.form.render(
                encoded,
                decoded_len,
                &self.decoded[span.start as usize..span.end as usize],
                &mut rendered,
            );
            rendered == expected
        })
    }
}

/// Returns the length of the first line without its ending, and whether that is CR LF.
fn first_line(text: &[u8]) -> (usize, bool) {
    match text.iter().position(|&byte| byte == b'\n') {
        Some(end) if text[..end].ends_with(b"\r") => (end - 1, true),
        Some(end) => (end, false),
        None => (text.len(), false),
    }
}

/// Decodes canonical base64 text line by line.
#[derive(Default)]
struct Decoder {
    decoded: Vec<u8>,
    /// Values of characters whose group of four is not complete: lines may end inside a group.
    partial: [u8; 4],
    partial_len: usize,
}

impl Decoder {
    /// Decodes a line without padding. Returns false, and forgets the line, if it holds anything but the alphabet.
    fn feed_line(&mut self, line: &[u8]) -> bool {
        let before = (self.decoded.len(), self.partial, self.partial_len);
        // First completes the group that the line before began.
        let (head, rest) = line.split_at(line.len().min((4 - self.partial_len) % 4));
        let (groups, tail) = rest.split_at(rest.len() / 4 * 4);
        let good = self.feed_chars(head) && self.feed_groups(groups) && self.feed_chars(tail);
        if !good {
            self.decoded.truncate(before.0);
            (self.partial, self.partial_len) = (before.1, before.2);
        }
        good
    }

    fn feed_chars(&mut self, chars: &[u8]) -> bool {
        for &char in chars {
            let value = VALUES[usize::from(char)];
            if value == NO_VALUE {
                return false;
            }
            self.partial[self.partial_len] = value;
            self.partial_len += 1;
            if self.partial_len == 4 {
                let [a, b, c, d] = self.partial;
                self.decoded.extend_from_slice(&join(a, b, c, d));
                self.partial_len = 0;
            }
        }
        true
    }

    fn feed_groups(&mut self, groups: &[u8]) -> bool {
        let start = self.decoded.len();
        self.decoded.resize(start + groups.len() / 4 * 3, 0);
        // Looks whether anything was wrong once at the end, so that the loop has no branches.
        let mut seen = 0;
        for (group, bytes) in groups.chunks_exact(4).zip(self.decoded[start..].chunks_exact_mut(3)) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| VALUES[usize::from(group[i])]);
            seen |= a | b | c | d;
            bytes.copy_from_slice(&join(a, b, c, d));
        }
        seen < 64
    }

    /// Decodes what of the line at the start of `text` is still in form: at most `line_len` characters and padding.
    ///
    /// A line that goes on with other text is no base64, even if it starts with a word.
    fn feed_last_line(&mut self, text: &[u8], line_len: usize) {
        let line = &text[..text.len().min(line_len)];
        let chars = line.iter().take_while(|&&char| VALUES[usize::from(char)] != NO_VALUE).count();
        let pads = line[chars..].iter().take(2).take_while(|&&char| char == b'=').count();
        if text.get(chars + pads).is_some_and(|next| !next.is_ascii_whitespace()) {
            return;
        }
        if !self.feed_line(&line[..chars]) || self.partial_len + pads != 4 {
            return;
        }
        // Characters of a group that is not finished canonically are not in `decoded`, so they stay raw.
        match self.partial {
            [a, b, _, _] if pads == 2 && b & 0x0f == 0 => self.decoded.push(join(a, b, 0, 0)[0]),
            [a, b, c, _] if pads == 1 && c & 0x03 == 0 => self.decoded.extend_from_slice(&join(a, b, c, 0)[..2]),
            _ => {}
        }
    }
}

const fn join(a: u8, b: u8, c: u8, d: u8) -> [u8; 3] {
    [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]
}

/// What [`VALUES`] holds for other bytes.
pub(crate) const NO_VALUE: u8 = 0xff;

/// The value of each character of the base64 alphabet (RFC 4648, 4).
pub(crate) const VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NO_VALUE; 256];
    let mut value = 0;
    while value < 64 {
        values[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    values
};

const FIELD_NAME: &[u8] = b"content-transfer-encoding";

/// How far the end of a comparison may move on after seeing a byte there (Horspool's search, both cases).
const FIELD_NAME_SHIFTS: [u8; 256] = {
    let last = FIELD_NAME.len() - 1;
    let mut shifts = [FIELD_NAME.len() as u8; 256];
    let mut i = 0;
    while i < last {
        shifts[FIELD_NAME[i] as usize] = (last - i) as u8;
        shifts[FIELD_NAME[i].to_ascii_uppercase() as usize] = (last - i) as u8;
        i += 1;
    }
    shifts
};

/// Returns where the next body starts that is announced as base64 at or after `from`.
fn find_body(message: &[u8], mut from: usize) -> Option<usize> {
    while let Some(field) = find_field_name(message, from) {
        from = field + FIELD_NAME.len();
        let is_line_start = field == 0 || message[field - 1] == b'\n';
        if is_line_start && is_base64_value(&message[from..]) {
            return body_start(message, from);
        }
    }
    None
}

fn find_field_name(message: &[u8], from: usize) -> Option<usize> {
    let mut last = from + FIELD_NAME.len() - 1;
    // The name's last letter, "g", occurs once in it: wherever it is found the search moves on by the whole name, so
    // that no text makes this slower than one step a byte.
    while let Some(&byte) = message.get(last) {
        if byte | 0x20 == b'g' {
            let start = last + 1 - FIELD_NAME.len();
            if message[start..=last].eq_ignore_ascii_case(FIELD_NAME) {
                return Some(start);
            }
        }
        last += usize::from(FIELD_NAME_SHIFTS[usize::from(byte)]);
    }
    None
}

/// Says whether a field's text, from the end of its name, is `base64`; it may be folded, commented and quoted.
fn is_base64_value(text: &[u8]) -> bool {
    let Some(text) = text.trim_ascii_start().strip_prefix(b":") else { return false };
    let text = skip_comments(text);
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    let Some((value, after)) = text.split_at_checked(6) else { return false };
    value.eq_ignore_ascii_case(b"base64") && !after.first().is_some_and(|next| next.is_ascii_alphanumeric())
}

/// Skips comments, blanks and folds before a field's value (CFWS in RFC 5322, 3.2.2).
///
/// Blank lines are skipped as well: a field without value then takes the next line for it, which does no harm.
fn skip_comments(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        if !text.starts_with(b"(") {
            return text;
        }
        let mut depth = 0_usize;
        let end = text.iter().take(COMMENT_BYTES_MAX).position(|&byte| {
            match byte {
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(end) = end else { return text };
        text = &text[end + 1..];
    }
}

/// Returns the first line that is not blank, after the first that is.
fn body_start(message: &[u8], from: usize) -> Option<usize> {
    let mut at = line_start_from(message, from);
    while at < message.len() && blank_line(&message[at..]) == 0 {
        at = next_line(message, at);
    }
    while blank_line(&message[at..]) > 0 {
        at += blank_line(&message[at..]);
    }
    (at < message.len()).then_some(at)
}

/// Returns the length of the blank line that `text` starts with, 0 if it does not.
fn blank_line(text: &[u8]) -> usize {
    match text {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

/// Returns the start of the first line that starts at or after `at`, or the end of the message.
fn line_start_from(message: &[u8], at: usize) -> usize {
    if at == 0 || message[at - 1] == b'\n' { at } else { next_line(message, at) }
}

fn next_line(message: &[u8], at: usize) -> usize {
    message[at..].iter().position(|&byte| byte == b'\n').map_or(message.len(), |end| at + end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Puts the segments together again, as a restore would.
    fn join_segments(segments: &[Segment<'_>]) -> Vec<u8> {
        let mut message = Vec::new();
        for segment in segments {
            match segment {
                Segment::Raw(bytes) => message.extend_from_slice(bytes),
                Segment::Base64 { decoded, form } => {
                    let len = form.encoded_len(decoded.len() as u64);
                    form.render(0..len, decoded.len() as u64, decoded, &mut message);
                }
            }
        }
        message
    }

    fn bodies<'a>(segments: &'a [Segment<'_>]) -> Vec<(&'a [u8], Base64Form)> {
        let body = |segment: &'a Segment<'_>| match segment {
            Segment::Raw(_) => None,
            Segment::Base64 { decoded, form } => Some((decoded.as_slice(), *form)),
        };
        segments.iter().filter_map(body).collect()
    }

    /// Splits, checks that nothing is lost, and returns the decoded bodies.
    fn split_bodies(message: &[u8]) -> Vec<(Vec<u8>, Base64Form)> {
        let segments = split(message);
        assert!(join_segments(&segments) == message, "the segments are not the message");
        bodies(&segments).into_iter().map(|(bytes, form)| (bytes.to_vec(), form)).collect()
    }

    /// Bytes that no simple rule makes, so that a mistake in order or offset shows.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Lays out base64 text, written apart from the code under test; the last line has its ending.
    fn lay_out(bytes: &[u8], line_len: usize, eol: &str) -> String {
        let text = STANDARD.encode(bytes);
        let lines = text.as_bytes().chunks(line_len).map(|line| std::str::from_utf8(line).unwrap());
        lines.flat_map(|line| [line, eol]).collect()
    }

    fn part(header: &str, body: &str) -> Vec<u8> {
        format!("MIME-Version: 1.0\n{header}\n\n{body}").into_bytes()
    }

    const HEADER: &str = "Content-Transfer-Encoding: base64";

    #[test]
    fn mail_without_base64_is_one_raw_segment() {
        let message = b"Subject: hi\nContent-Transfer-Encoding: 7bit\n\nbase64\n";
        assert_eq!(split(message), [Segment::Raw(message)]);
        assert_eq!(split(b""), []);
    }

    #[test]
    fn attachment_of_a_multipart_mail_is_decoded() {
        let file = noise(10_000, 1);
        let text = lay_out(&file, 76, "\r\n");
        let message = format!(
            "From: a@b.c\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n\
             Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n\
             {text}\r\n--x--\r\n"
        );
        let segments = split(message.as_bytes());
        assert_eq!(join_segments(&segments), message.as_bytes());
        assert!(matches!(segments[..], [Segment::Raw(_), Segment::Base64 { .. }, Segment::Raw(b"\r\n--x--\r\n")]));
        let form = Base64Form { line_len: 76, crlf: true, final_eol: true };
        assert_eq!(bodies(&segments), [(&file[..], form)]);
    }

    #[test]
    fn field_is_found_however_it_is_written() {
        let text = lay_out(&noise(600, 2), 76, "\n");
        for header in [
            "content-transfer-encoding:base64",
            "CONTENT-TRANSFER-ENCODING : BASE64   ",
            "Content-Transfer-Encoding:\n\tbase64",
            "Content-Transfer-Encoding: (a (nested) comment) \"Base64\"",
            "Content-Transfer-Encoding: base64 (as it should be)\nX-Long: a\n b\n c",
            "Content-Transfer-Encoding: base64; x=y",
        ] {
            assert_eq!(split_bodies(&part(header, &text)).len(), 1, "{header:?}");
        }
        for header in [
            "Content-Transfer-Encoding: base64url",
            "Content-Transfer-Encoding: x-base64",
            "Content-Transfer-Encoding base64",
            "X-Content-Transfer-Encoding: base64",
            "Content-Transfer-Encoding: (never closed base64",
            "Content-Transfer-Encoding:",
        ] {
            assert_eq!(split_bodies(&part(header, &text)).len(), 0, "{header:?}");
        }
    }

    #[test]
    fn every_layout_of_lines_is_kept() {
        for line_len in [4_usize, 5, 60, 73, 76, 998] {
            for (eol, crlf) in [("\n", false), ("\r\n", true)] {
                for len in 600..606 {
                    if !line_len.is_multiple_of(4) && len % 3 != 0 {
                        continue;
                    }
                    let file = noise(len, len as u64);
                    let text = lay_out(&file, line_len, eol);
                    let unbroken = text.trim_end().len() == line_len || !text.trim_end().contains('\n');
                    let form = |final_eol| Base64Form {
                        line_len: if unbroken { 0 } else { line_len as u32 },
                        // Nothing shows the kind of line endings where there is none.
                        crlf: crlf && (final_eol || !unbroken),
                        final_eol,
                    };
                    assert_eq!(split_bodies(&part(HEADER, &text)), [(file.clone(), form(true))]);
                    assert_eq!(split_bodies(&part(HEADER, text.trim_end())), [(file, form(false))]);
                }
            }
        }
    }

    #[test]
    fn small_bodies_stay_raw() {
        let small = lay_out(&noise(DECODED_BYTES_MIN - 1, 3), 76, "\n");
        assert_eq!(split_bodies(&part(HEADER, &small)), []);
        let enough = lay_out(&noise(DECODED_BYTES_MIN, 3), 76, "\n");
        assert_eq!(split_bodies(&part(HEADER, &enough)).len(), 1);
    }

    #[test]
    fn text_after_the_body_stays_raw() {
        let file = noise(1000, 4);
        let text = lay_out(&file, 76, "\n");
        for tail in ["\n\n\n", "-- \nlist footer\n", "\n--x--", "Thanks\n", "   \n", "=\n", "\r\n"] {
            let found = split_bodies(&part(HEADER, &format!("{text}{tail}")));
            assert_eq!(found, [(file.clone(), Base64Form { line_len: 76, crlf: false, final_eol: true })], "{tail:?}");
        }
    }

    #[test]
    fn body_may_follow_several_blank_lines() {
        let text = lay_out(&noise(1000, 5), 60, "\n");
        assert_eq!(split_bodies(&part(HEADER, &format!("\n\r\n\n{text}"))).len(), 1);
    }

    #[test]
    fn unfinished_group_stays_raw() {
        let file = noise(1000, 6);
        let text = lay_out(&file, 76, "\n");
        // Padding is missing, padding is short, and bits that padding leaves unused are not zero.
        for end in ["", "=", "x=="] {
            let text = text.trim_end().trim_end_matches('=').to_string();
            let damaged = format!("{}{end}\n", if end == "x==" { &text[..text.len() - 1] } else { &text });
            let found = split_bodies(&part(HEADER, &damaged));
            assert_eq!(found, [(file[..999].to_vec(), Base64Form { line_len: 76, crlf: false, final_eol: false })]);
        }
    }

    #[test]
    fn damaged_line_splits_the_body_in_two() {
        let file = noise(57 * 100, 7);
        let text = lay_out(&file, 76, "\r\n");
        for damage in ["zzzz", "!", " ", "\n", "\r\n", "="] {
            let mut damaged = text.clone();
            damaged.insert_str(78 * 50 + 10, damage);
            let found = split_bodies(&part(HEADER, &damaged));
            // Of the damaged line itself whole groups before the damage may be kept.
            assert!(found[0].0[..57 * 50] == file[..57 * 50] && found[0].0.len() < 57 * 51, "{damage:?}");
            let kept: usize = found.iter().map(|(bytes, _)| bytes.len()).sum();
            // A line that does not look like base64 ends the body: what follows may be anything.
            let lost = if matches!(damage, "!" | "=") { file.len() / 2 } else { 57 * 4 };
            assert!(kept + lost >= file.len(), "{damage:?} kept {kept}");
        }
    }

    #[test]
    fn attachments_of_nested_messages_are_decoded() {
        let files = [noise(2000, 8), noise(3000, 9), noise(4000, 10)];
        let mut message = Vec::new();
        for (depth, file) in files.iter().enumerate().rev() {
            let text = lay_out(file, 76, "\n");
            let inner = std::mem::take(&mut message);
            message = format!(
                "Subject: {depth}\nContent-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n{HEADER}\n\n{text}\n\
                 --b{depth}\nContent-Type: message/rfc822\n\n"
            )
            .into_bytes();
            message.extend_from_slice(&inner);
            message.extend_from_slice(format!("\n--b{depth}--\n").as_bytes());
        }
        let found: Vec<_> = split_bodies(&message).into_iter().map(|(bytes, _)| bytes).collect();
        assert_eq!(found, files);
    }

    #[test]
    fn encoded_message_is_a_blob() {
        let inner = part(HEADER, &lay_out(&noise(2000, 11), 76, "\n"));
        let message = part(&format!("Content-Type: message/rfc822\n{HEADER}"), &lay_out(&inner, 76, "\n"));
        assert_eq!(split_bodies(&message).into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), [inner]);
    }

    #[test]
    fn forms_from_elsewhere_do_no_harm() {
        for line_len in [0, 1, u32::MAX] {
            for decoded_len in [0, 1, u64::MAX / 2, u64::MAX] {
                for (crlf, final_eol) in [(false, false), (false, true), (true, false), (true, true)] {
                    let form = Base64Form { line_len, crlf, final_eol };
                    assert!(form.encoded_len(decoded_len) >= decoded_len);
                    for range in [0..0, 0..1, 5..9, u64::MAX - 1..u64::MAX, 0..u64::MAX, Range { start: 9, end: 5 }] {
                        let span = form.decoded_span(range.clone(), decoded_len);
                        assert!(span.start <= span.end && span.end <= decoded_len);
                        if span.end - span.start < 100 {
                            let bytes = vec![0; (span.end - span.start) as usize];
                            form.render(range, decoded_len, &bytes, &mut Vec::new());
                        }
                    }
                }
            }
        }
        assert_eq!(Base64Form { line_len: 76, crlf: true, final_eol: true }.encoded_len(0), 0);
    }

    #[test]
    fn hostile_mail_takes_linear_time() {
        let size = 4 << 20;
        let field = "Content-Transfer-Encoding: base64\n";
        for unit in [
            field.to_string(),
            format!("{field}\n"),
            format!("{field}\nAAAA\n"),
            "Content-Transfer-Encoding: (((".to_string(),
            "\nContent-Transfer-Encoding: ((((((".to_string(),
            "\nContent-Transfer-Encoding:".to_string(),
            "encoding".to_string(),
            "g".to_string(),
            "AAAA\nAA\n".to_string(),
            "AAAA\nAAAAA\n".to_string(),
            "AAA=\n".to_string(),
            "A\n".to_string(),
            "A".to_string(),
            "=".to_string(),
            "\n".to_string(),
            "\r".to_string(),
        ] {
            let mut message = format!("{field}\n").into_bytes();
            message.extend_from_slice(unit.repeat(size / unit.len()).as_bytes());
            let start = std::time::Instant::now();
            assert_eq!(join_segments(&split(&message)).len(), message.len());
            // A quadratic search would take minutes; the limit leaves room for slow machines and builds.
            assert!(start.elapsed().as_secs() < 20, "{unit:?} took {:?}", start.elapsed());
        }
    }

    /// Chooses a line length, with those that mailers use being likely.
    fn line_lens() -> impl Strategy<Value = usize> {
        prop_oneof![Just(76), Just(72), Just(60), Just(64), 1..20_usize, 4..1000_usize]
    }

    /// Parts of mails and of things that only look like them.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let eol = || prop_oneof![Just("\n"), Just("\r\n")];
        let body = (0..4000_usize, any::<u64>(), line_lens(), eol(), eol(), 0..4_usize, any::<bool>()).prop_map(
            |(len, seed, line_len, eol, header_eol, cut, field)| {
                let mut text = lay_out(&noise(len, seed), line_len, eol);
                text.truncate(text.len().saturating_sub(cut));
                let header = if field { HEADER } else { "Content-Type: message/rfc822" };
                format!("--b{header_eol}{header}{header_eol}{header_eol}{text}").into_bytes()
            },
        );
        let fixed = prop_oneof![
            Just("\n"),
            Just("\r\n"),
            Just("\r"),
            Just("="),
            Just("=="),
            Just("--b\n"),
            Just("QQ==\n"),
            Just("QR==\n"),
            Just("Content-Transfer-Encoding: base64\n\n"),
            Just("Content-Transfer-Encoding: base64"),
            Just("\n\n"),
            Just("Subject: x\n"),
            Just("-- \nfooter text\n"),
            Just("AAAA"),
            Just("Thanks\n"),
        ];
        prop_oneof![
            4 => body,
            4 => fixed.prop_map(|text| text.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..100),
        ]
    }

    #[derive(Clone, Debug)]
    enum Edit {
        Insert(u8),
        Remove,
        Replace(u8),
        Truncate,
    }

    fn edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
        let byte = || prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r'), Just(b'='), Just(b'A'), Just(b' ')];
        let edit = prop_oneof![
            8 => byte().prop_map(Edit::Insert),
            8 => Just(Edit::Remove),
            8 => byte().prop_map(Edit::Replace),
            1 => Just(Edit::Truncate),
        ];
        vec((any::<usize>(), edit), 0..6)
    }

    fn mails() -> impl Strategy<Value = Vec<u8>> {
        (vec(pieces(), 0..8), edits()).prop_map(|(pieces, edits)| {
            let mut message = pieces.concat();
            for (pick, edit) in edits {
                if message.is_empty() {
                    break;
                }
                let at = pick % message.len();
                match edit {
                    Edit::Insert(byte) => message.insert(at, byte),
                    Edit::Remove => drop(message.remove(at)),
                    Edit::Replace(byte) => message[at] = byte,
                    Edit::Truncate => message.truncate(at),
                }
            }
            message
        })
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(message in vec(any::<u8>(), 0..2000), body in vec(any::<u8>(), 0..2000)) {
            prop_assert!(join_segments(&split(&message)) == message);
            let text = STANDARD.encode(body);
            let message = [b"Content-Transfer-Encoding: base64\n\n", &message[..], text.as_bytes()].concat();
            prop_assert!(join_segments(&split(&message)) == message);
        }

        #[test]
        fn any_mail_comes_back(message in mails(), picks in vec((any::<u64>(), any::<u64>()), 20)) {
            let segments = split(&message);
            prop_assert!(join_segments(&segments) == message);
            let mut at = 0;
            for segment in &segments {
                let (decoded, form) = match segment {
                    Segment::Raw(bytes) => {
                        prop_assert!(!bytes.is_empty());
                        at += bytes.len();
                        continue;
                    }
                    Segment::Base64 { decoded, form } => (decoded, form),
                };
                let decoded_len = decoded.len() as u64;
                let len = form.encoded_len(decoded_len);
                for &(a, b) in &picks {
                    let (a, b) = (a % (len + 1), b % (len + 1));
                    let range = a.min(b)..a.max(b);
                    let span = form.decoded_span(range.clone(), decoded_len);
                    let mut out = Vec::new();
                    form.render(range.clone(), decoded_len, &decoded[span.start as usize..span.end as usize], &mut out);
                    prop_assert!(out == message[at + range.start as usize..at + range.end as usize]);
                }
                at += len as usize;
            }
            prop_assert_eq!(at, message.len());
        }

        /// A body in form is found whole, whatever its layout.
        #[test]
        fn regular_bodies_are_decoded(
            len in DECODED_BYTES_MIN..5000,
            seed: u64,
            line_len in line_lens(),
            crlf: bool,
            tail in "(\n--b.*)?",
        ) {
            // Where lines may end inside a group, the padding may be torn apart; that group then stays raw.
            let len = if line_len.is_multiple_of(4) { len } else { len.next_multiple_of(3) };
            let file = noise(len, seed);
            let text = lay_out(&file, line_len, if crlf { "\r\n" } else { "\n" });
            let message = part(HEADER, &format!("{text}{tail}"));
            let found = split_bodies(&message);
            prop_assert_eq!(found.len(), 1);
            prop_assert!(found[0].0 == file);
        }
    }

    #[test]
    fn every_range_of_a_small_body_is_rendered() {
        for line_len in [0, 1, 3, 4, 7, 76] {
            for (crlf, final_eol) in [(false, false), (false, true), (true, false), (true, true)] {
                for decoded_len in [1, 2, 3, 38, 57] {
                    let file = noise(decoded_len, 12);
                    let form = Base64Form { line_len, crlf, final_eol };
                    let eol = if crlf { "\r\n" } else { "\n" };
                    let mut text = lay_out(&file, if line_len == 0 { 1000 } else { line_len as usize }, eol);
                    if !final_eol {
                        text.truncate(text.len() - eol.len());
                    }
                    assert_eq!(form.encoded_len(decoded_len as u64), text.len() as u64);
                    for start in 0..=text.len() {
                        for end in start..=text.len() {
                            let range = start as u64..end as u64;
                            let span = form.decoded_span(range.clone(), decoded_len as u64);
                            let mut out = Vec::new();
                            let bytes = &file[span.start as usize..span.end as usize];
                            form.render(range, decoded_len as u64, bytes, &mut out);
                            assert_eq!(out, text.as_bytes()[start..end], "{form:?} {start}..{end}");
                        }
                    }
                }
            }
        }
    }
}
