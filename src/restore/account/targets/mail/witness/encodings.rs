//! Decodes pieces a second time, without the tables and rules of [`crate::content::mail::transfer`].

use crate::restore::account::targets::mail::fingerprint::{Fingerprint, Fingerprinter};

/// A line of base64 text with at least this length is not a word of a footer.
const LONG_LINE_LEN: usize = 20;
/// A line with blanks counts as base64 if one of its words has at least this length.
const WORD_LEN_MIN: usize = 30;
/// A line with at least this length may hold some stray bytes.
const STRAY_LINE_LEN: usize = 60;
const STRAY_BYTES_MAX: usize = 2;
/// Maximum number of places that are tried as the end of a base64 text.
const ENDS_MAX: usize = 8;

/// An encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    Plain,
    Base64,
    QuotedPrintable,
    Uuencode,
}

impl Form {
    /// Returns the encoding that a `Content-Transfer-Encoding` means.
    pub fn named(value: &[u8]) -> Self {
        let word: String = value.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        let has = |names: &[&str]| names.iter().any(|name| word.contains(name));
        if has(&["base64", "base-64", "b64"]) {
            Form::Base64
        } else if has(&["quoted"]) || word.trim_matches(|char: char| !char.is_ascii_alphanumeric()) == "qp" {
            Form::QuotedPrintable
        } else if has(&["uuenc", "x-uu", "uue"]) {
            Form::Uuencode
        } else {
            Form::Plain
        }
    }
}

/// One way to read a piece.
pub(super) struct Decoded<'a> {
    form: Form,
    /// The encoded text.
    text: &'a [u8],
    /// The plain text after it.
    pub footer: &'a [u8],
}

impl Decoded<'_> {
    /// Returns true if it is encoded.
    pub fn is_encoded(&self) -> bool {
        self.form != Form::Plain
    }

    /// Returns the fingerprint of the decoded bytes.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprinter::default();
        self.each(&mut |bytes| fingerprint.take(bytes));
        fingerprint.finish()
    }

    /// Returns the decoded bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.each(&mut |bytes| all.extend_from_slice(bytes));
        all
    }

    fn each(&self, take: &mut dyn FnMut(&[u8])) {
        match self.form {
            Form::Plain => take(self.text),
            Form::Base64 => base64(self.text, take),
            Form::QuotedPrintable => quoted_printable(self.text, take),
            Form::Uuencode => uuencoded(self.text, take),
        }
    }
}

/// Returns the ways in which `raw` may be read, the most likely first.
pub(super) fn readings(form: Form, raw: &[u8]) -> Vec<Decoded<'_>> {
    if form != Form::Base64 {
        return vec![Decoded { form, text: raw, footer: b"" }];
    }
    let mut readings: Vec<_> =
        ends(raw).into_iter().map(|end| Decoded { form, text: &raw[..end], footer: &raw[end..] }).collect();
    if is_plain_after_all(form, raw) {
        readings.push(Decoded { form: Form::Plain, text: raw, footer: b"" });
    }
    readings
}

/// Returns true if a piece that says that it is encoded may be plain: its first line is a sentence.
pub(super) fn is_plain_after_all(form: Form, raw: &[u8]) -> bool {
    let line = raw.trim_ascii_start();
    let line = &line[..memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len())];
    form == Form::Base64 && !line.is_empty() && Line::of(line) != Line::Data
}

/// What a line is, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    /// It can be base64.
    Data,
    /// Somebody else wrote it.
    Other,
}

impl Line {
    fn of(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        let is_rule = line.starts_with(b"--")
            || line.len() > 1 && line.iter().all(|byte| matches!(byte, b'-' | b'_' | b'*' | b'~' | b'#'));
        let strays = line.iter().filter(|byte| sextet(**byte, b"+/-_").is_none() && !matches!(byte, b'=' | 0)).count();
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        // Words of people are shorter than pieces of base64.
        let are_blanks_strays = words.map(<[u8]>::len).max().unwrap_or(0) >= WORD_LEN_MIN;
        let blanks = line.iter().filter(|byte| byte.is_ascii_whitespace()).count();
        match line.len() {
            0 => Line::Empty,
            _ if is_rule => Line::Other,
            _ if strays == 0 => Line::Data,
            _ if strays == blanks && are_blanks_strays => Line::Data,
            len if len >= STRAY_LINE_LEN && strays <= STRAY_BYTES_MAX => Line::Data,
            _ => Line::Other,
        }
    }
}

/// Returns the places where a base64 text may end, the most likely first.
fn ends(whole: &[u8]) -> Vec<usize> {
    // Dashes after the padding belong to a boundary that lost its line ending.
    let raw = &whole[..memchr::memmem::find(whole, b"=--").map_or(whole.len(), |at| at + 1)];
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let lines = || {
        let mut at = 0;
        raw.split_inclusive(is_break).map(move |line| {
            at += line.len();
            (at - line.len(), line, Line::of(line))
        })
    };
    let is_long = |line: &[u8]| line.trim_ascii().len() >= LONG_LINE_LEN;
    let last_long = lines().filter(|(_, line, kind)| *kind == Line::Data && is_long(line)).map(|(at, ..)| at).max();
    let mut ends = Vec::new();
    let (mut longest, mut may_end, mut has_ended) = (0, false, false);
    for (at, line, kind) in lines() {
        let is_behind = longest > 0 && last_long.is_none_or(|last| at > last);
        match kind {
            Line::Empty => may_end |= longest > 0,
            Line::Other if is_behind => {
                ends.insert(0, at);
                has_ended = true;
                break;
            }
            Line::Other => {}
            Line::Data => {
                if is_behind && may_end && ends.len() < ENDS_MAX {
                    ends.push(at);
                }
                let len = line.trim_ascii().len();
                may_end = line.trim_ascii().ends_with(b"=") || len < longest;
                longest = longest.max(len);
            }
        }
    }
    if !has_ended {
        ends.insert(0, raw.len());
    }
    ends
}

/// Returns the value of a base64 character. `others` are those for 62 and 63, twice.
fn sextet(byte: u8, others: &[u8; 4]) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        _ => 62 + others.iter().position(|other| *other == byte)? as u8 % 2,
    };
    Some(value.into())
}

pub(super) fn base64(text: &[u8], take: &mut dyn FnMut(&[u8])) {
    let is_for_urls = memchr::memchr2(b'-', b'_', text).is_some() && memchr::memchr2(b'+', b'/', text).is_none();
    let others = if is_for_urls { b"-_-_" } else { b"+/+/" };
    let mut piece = Vec::with_capacity(4096);
    // Bits that wait for others.
    let (mut bits, mut count) = (0_u32, 0_u32);
    for &byte in text {
        match sextet(byte, others) {
            Some(value) => {
                bits = bits << 6 | value;
                count += 6;
                if count == 24 {
                    piece.extend_from_slice(&bits.to_be_bytes()[1..]);
                    (bits, count) = (0, 0);
                }
            }
            None if byte == b'=' && count >= 12 => {
                piece.extend((1..=count / 8).map(|nth| (bits >> (count - 8 * nth)) as u8));
                (bits, count) = (0, 0);
            }
            None => {}
        }
        if piece.len() >= 4000 {
            take(&piece);
            piece.clear();
        }
    }
    piece.extend((1..=count / 8).map(|nth| (bits >> (count - 8 * nth)) as u8));
    take(&piece);
}

fn quoted_printable(text: &[u8], take: &mut dyn FnMut(&[u8])) {
    let is_cr = super::ends_lines_with_cr(text);
    for line in text.split_inclusive(|byte| *byte == b'\n' || is_cr && *byte == b'\r') {
        let content = line.trim_ascii_end();
        let eol = &line[super::without_cr_lf(line).len()..];
        let (content, eol) = match content.split_last() {
            Some((b'=', content)) => (content, &b""[..]),
            _ => (content, eol),
        };
        let mut decoded = Vec::with_capacity(content.len());
        let mut at = 0;
        while at < content.len() {
            let digit = |at: usize| content.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            match (content[at], digit(at + 1), digit(at + 2)) {
                (b'=', Some(high), Some(low)) => {
                    decoded.push((high * 16 + low) as u8);
                    at += 3;
                }
                (byte, ..) => {
                    decoded.push(byte);
                    at += 1;
                }
            }
        }
        take(&decoded);
        take(eol);
    }
}

fn uuencoded(text: &[u8], take: &mut dyn FnMut(&[u8])) {
    let lines = || text.split(|byte| *byte == b'\n').map(super::without_cr_lf);
    let begin = lines().position(|line| line.starts_with(b"begin"));
    for line in lines().skip(begin.map_or(0, |begin| begin + 1)).take_while(|line| *line != b"end") {
        let Some((&len, chars)) = line.split_first() else { continue };
        let value = |byte: u8| u32::from(byte.wrapping_sub(32) & 63);
        let mut decoded = Vec::with_capacity(48);
        for group in chars.chunks(4) {
            let bits = (0..4).fold(0, |bits, at| bits << 6 | group.get(at).map_or(0, |byte| value(*byte)));
            decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        decoded.truncate(value(len) as usize);
        take(&decoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travelled_comes_back() {
        for (form, text, bytes, footer) in [
            (Form::Base64, "SGVsbG8gd29ybGQ=", "Hello world", ""),
            (Form::Base64, "SGVsbG8gd29ybGQ", "Hello world", ""),
            (Form::Base64, "SGVs\0bG8g\r\nd29ybGQ=\r\n\r\n____\r\nThe list\r\n", "Hello world", "____\r\nThe list\r\n"),
            (Form::Base64, "SGVsbG8=\nIHdvcmxk", "Hello world", ""),
            (Form::Base64, "SGVsbG8gd29ybGQ====\nSee you: all", "Hello world", "See you: all"),
            (Form::QuotedPrintable, "a=\r\nb=3Dc  \r\nd=zz", "ab=c\r\nd=zz", ""),
            (Form::Uuencode, "begin 644 a\n+2&5L;&\\@=V]R;&0\n`\nend\n", "Hello world", ""),
            (Form::Plain, "SGVsbG8=", "SGVsbG8=", ""),
        ] {
            let readings = readings(form, text.as_bytes());
            let read = (String::from_utf8_lossy(&readings[0].bytes()).into_owned(), readings[0].footer);
            assert_eq!(read, (bytes.to_owned(), footer.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn what_is_base64_is_never_read_as_it_stands() {
        for text in ["SGVsbG8gd29ybGQ=", "SGVsbG8gd29y\0bGQ=\n\nThe list", "SGVs-bG8_"] {
            assert!(
                readings(Form::Base64, text.as_bytes()).iter().all(|reading| reading.form == Form::Base64),
                "{text}"
            );
        }
        assert!(is_plain_after_all(Form::Base64, b"Dear all, this is clear"));
    }
}
