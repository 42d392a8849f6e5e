//! From the bytes of a part to text: transfer encodings, charsets, and what text must not hold.
//!
//! Everything is lenient: what is broken is taken as it stands, so that the rest can be read.

use super::Bytes;
use crate::mime::{NO_VALUE, VALUES};
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode_char;
use std::borrow::Cow;

/// How a part's bytes travelled (RFC 2045, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Identity,
    Base64,
    QuotedPrintable,
}

impl Encoding {
    pub(super) fn named(name: &str) -> Self {
        if name.eq_ignore_ascii_case("base64") {
            Encoding::Base64
        } else if name.eq_ignore_ascii_case("quoted-printable") {
            Encoding::QuotedPrintable
        } else {
            Encoding::Identity
        }
    }

    /// Decodes `encoded` until `len_max` bytes have come, or a few more.
    pub(super) fn decode(self, encoded: &[u8], len_max: usize) -> Bytes<'_> {
        match self {
            Encoding::Identity => Cow::Borrowed(&encoded[..encoded.len().min(len_max)]),
            Encoding::Base64 => Cow::Owned(base64(encoded, len_max)),
            Encoding::QuotedPrintable => {
                let mut decoded = Vec::new();
                quoted_printable(encoded, &mut |bytes| {
                    decoded.extend_from_slice(bytes);
                    decoded.len() < len_max
                });
                Cow::Owned(decoded)
            }
        }
    }

    /// Returns how long `encoded` is when it is decoded.
    pub(super) fn decoded_len(self, encoded: &[u8]) -> usize {
        match self {
            Encoding::Identity => encoded.len(),
            Encoding::Base64 => {
                let is_char = |byte: &&u8| VALUES[usize::from(**byte)] != NO_VALUE;
                encoded.iter().filter(is_char).count() * 3 / 4
            }
            Encoding::QuotedPrintable => {
                let mut len = 0;
                quoted_printable(encoded, &mut |bytes| {
                    len += bytes.len();
                    true
                });
                len
            }
        }
    }
}

/// Splits base64 text from what a mailing list appended to it in clear, behind an empty line.
pub(super) fn split_footer(encoded: &[u8]) -> (&[u8], &[u8]) {
    let is_encoded = |byte: &u8| VALUES[usize::from(*byte)] != NO_VALUE || *byte == b'=';
    let (mut at, mut begun, mut after_empty) = (0, false, false);
    for line in encoded.split_inclusive(|&byte| byte == b'\n') {
        let text = line.trim_ascii();
        if begun && after_empty && !text.iter().all(is_encoded) {
            return encoded.split_at(at);
        }
        begun |= !text.is_empty();
        after_empty = text.is_empty();
        at += line.len();
    }
    (encoded, b"")
}

/// Passes over what is no base64; padding ends a group, and another text may follow.
fn base64(encoded: &[u8], len_max: usize) -> Vec<u8> {
    let mut decoded = Vec::with_capacity((encoded.len() / 4 * 3 + 3).min(len_max.saturating_add(3)));
    let (mut group, mut count) = (0_u32, 0);
    for &byte in encoded {
        let value = VALUES[usize::from(byte)];
        if value != NO_VALUE {
            group = group << 6 | u32::from(value);
            count += 1;
        }
        if count == 4 || byte == b'=' {
            push_group(group, count, &mut decoded);
            (group, count) = (0, 0);
            if decoded.len() >= len_max {
                return decoded;
            }
        }
    }
    push_group(group, count, &mut decoded);
    decoded
}

/// A group of 2 characters holds a byte, of 3 two, of 4 three.
fn push_group(group: u32, count: usize, decoded: &mut Vec<u8>) {
    let bytes = (group << (6 * (4 - count))).to_be_bytes();
    decoded.extend_from_slice(&bytes[1..count.max(1)]);
}

/// Hands out decoded pieces until `each` returns false. An escape that is none stands for itself.
fn quoted_printable(encoded: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) {
    for line in encoded.split_inclusive(|&byte| byte == b'\n') {
        let trimmed = line.trim_ascii_end();
        let ending = &line[line.len() - usize::from(line.ends_with(b"\n"))..];
        let (mut rest, ending) = match trimmed.strip_suffix(b"=") {
            Some(rest) => (rest, &b""[..]),
            None => (trimmed, ending),
        };
        while let Some(at) = rest.iter().position(|&byte| byte == b'=') {
            let decoded = rest[at..].get(1..3).and_then(|hex| quoted_printable_decode_char(hex[0], hex[1]));
            let (byte, len) = decoded.map_or((b'=', 1), |byte| (byte, 3));
            if !each(&rest[..at]) || !each(&[byte]) {
                return;
            }
            rest = &rest[at + len..];
        }
        if !each(rest) || !each(ending) {
            return;
        }
    }
}

/// Decodes text in `charset`. Where none is named, or one that nobody knows, it is UTF-8 if it can be, else Windows-1252.
pub(super) fn to_utf8<'a>(bytes: &'a [u8], charset: Option<&str>) -> Cow<'a, str> {
    let charset = charset.unwrap_or_default().trim();
    let is_utf8 = ["utf-8", "utf8", "unicode-1-1-utf-8"].iter().any(|name| charset.eq_ignore_ascii_case(name));
    if is_utf8 {
        return String::from_utf8_lossy(bytes);
    }
    // Programs that say ASCII and send something else are many.
    let is_ascii = ["us-ascii", "ascii", "ansi_x3.4-1968"].iter().any(|name| charset.eq_ignore_ascii_case(name));
    let decoder = if is_ascii { None } else { charset_decoder(charset.as_bytes()) };
    if let Some(decode) = decoder {
        return decode(bytes).into();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => charset_decoder(b"windows-1252")
            .map_or_else(|| String::from_utf8_lossy(bytes), |decode| decode(bytes).into()),
    }
}

/// Gives lines LF as their ending, and replaces other control characters but tabs by spaces.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => clean.push('\n'),
            '\n' | '\t' => clean.push(char),
            _ if char.is_control() => clean.push(' '),
            _ => clean.push(char),
        }
    }
    clean
}

/// Makes one line of a text, its words one space apart and without control characters.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|char: char| char.is_whitespace() || char.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
