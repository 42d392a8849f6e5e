//! The encodings of parts (RFC 2045, 6). Decoding is as lenient as in mail programs.

use super::header::{ends_lines_with_cr, line_len, unfolded, without_eol};
use super::words::{self, hex};
use super::{base64, params};
use std::borrow::Cow;

/// A `Content-Transfer-Encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The bytes are not encoded.
    #[default]
    Identity,
    /// RFC 2045, 6.8.
    Base64,
    /// RFC 2045, 6.7.
    QuotedPrintable,
    /// The encoding that Unix programs used before MIME.
    Uuencode,
}

/// A body, split into its encoded text and what others appended in clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded<'a> {
    encoding: Encoding,
    /// The encoded text.
    text: &'a [u8],
    /// Text in clear behind it, such as the footer of a mailing list.
    pub footer: &'a [u8],
}

impl Encoding {
    /// Returns the encoding that the value of a field names. Comments, quotes and semicolons are ignored.
    pub fn named(value: &[u8]) -> Self {
        let mut value = value.trim_ascii_start();
        while let Some(len) = params::comment_len(value) {
            value = value[len..].trim_ascii_start();
        }
        let words;
        if value.starts_with(b"=?") {
            words = words::decode(&unfolded(value), None);
            value = words.as_bytes();
        }
        let start = value.iter().position(u8::is_ascii_alphanumeric).unwrap_or(value.len());
        let value = &value[start..];
        let is = |names: &[&str]| {
            names.iter().any(|name| value.get(..name.len()).is_some_and(|v| v.eq_ignore_ascii_case(name.as_bytes())))
        };
        if is(&["base64", "base-64", "b64", "x-base64"]) {
            Encoding::Base64
        } else if is(&["quoted-printable", "quoted printable", "quoted_printable", "quotedprintable", "qp"]) {
            Encoding::QuotedPrintable
        } else if is(&["x-uu", "uuencode", "x-uue", "uue"]) {
            Encoding::Uuencode
        } else {
            Encoding::Identity
        }
    }

    /// Returns whether `body` really is in this encoding and must be decoded. Of base64, the first line tells.
    pub fn is_encoded(self, body: &[u8]) -> bool {
        match self {
            Encoding::Identity => false,
            Encoding::Base64 => is_base64(body),
            Encoding::QuotedPrintable | Encoding::Uuencode => true,
        }
    }

    /// Splits `body` into its encoded text and a footer. A body that claims to be base64 and is not stays as it is.
    pub fn of(self, body: &[u8]) -> Encoded<'_> {
        match self {
            Encoding::Base64 if !is_base64(body) => Encoded { encoding: Encoding::Identity, text: body, footer: b"" },
            Encoding::Base64 => {
                let (text, footer) = split_footer(body);
                Encoded { encoding: self, text, footer }
            }
            _ => Encoded { encoding: self, text: body, footer: b"" },
        }
    }
}

impl<'a> Encoded<'a> {
    /// Returns whether the content is the bytes of the message themselves.
    pub fn is_identity(&self) -> bool {
        self.encoding == Encoding::Identity
    }

    /// Returns the decoded content: at least the first `len_max` bytes, if there are as many.
    pub fn decoded(&self, len_max: usize) -> Cow<'a, [u8]> {
        let text = self.text;
        match self.encoding {
            Encoding::Identity => Cow::Borrowed(&text[..text.len().min(len_max)]),
            // Four characters are three bytes. The reserve is for characters that are skipped; if it was not enough,
            // decode all.
            Encoding::Base64 => {
                let enough = len_max.saturating_mul(3) / 2 + 1024;
                if text.len() <= enough {
                    return base64::decode(text).into();
                }
                let decoded = base64::decode(&text[..enough]);
                if decoded.len() < len_max { base64::decode(text).into() } else { decoded.into() }
            }
            Encoding::QuotedPrintable => {
                let mut decoded = Vec::with_capacity(text.len().min(len_max.saturating_add(1024)));
                quoted_printable(text, &mut |bytes| {
                    decoded.extend_from_slice(bytes);
                    decoded.len() < len_max
                });
                decoded.into()
            }
            Encoding::Uuencode => uuencoded(text).into(),
        }
    }

    /// Returns the length of the whole decoded content.
    pub fn decoded_len(&self) -> usize {
        match self.encoding {
            Encoding::Identity => self.text.len(),
            Encoding::Base64 => base64::decoded_len(self.text),
            Encoding::QuotedPrintable => {
                let mut len = 0;
                quoted_printable(self.text, &mut |bytes| {
                    len += bytes.len();
                    true
                });
                len
            }
            Encoding::Uuencode => uuencoded(self.text).len(),
        }
    }
}

/// Returns whether a body that claims to be base64 can be: nearly all characters of its first line are base64, and the
/// line is no sentence.
fn is_base64(body: &[u8]) -> bool {
    /// Number of bytes of a body that are looked at. Parts in parts have bodies that overlap, so each byte may be
    /// looked at once for each of them.
    const SAMPLE_BYTES_MAX: usize = 4 << 10;
    let sample = &body[..body.len().min(SAMPLE_BYTES_MAX)];
    let line = sample.trim_ascii_start();
    let line = &line[..line_len(line, false)];
    let (mut chars, mut others) = (0_usize, 0_usize);
    for &byte in line {
        match byte {
            _ if base64::is_char(byte) || byte == b'=' => chars += 1,
            b' ' | b'\t' | b'\r' | b'\n' | 0 => {}
            _ => others += 1,
        }
    }
    if others * 8 > chars || is_junk_in_each_line(sample) {
        return false;
    }
    // Several short words that decode to something else than text are a sentence.
    let words = || line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (count, longest) = words().fold((0, 0), |(count, longest), word: &[u8]| (count + 1, longest.max(word.len())));
    // Two groups of base64 with a blank between them are `AAEC AwQF`, but not `Dear customer`.
    let is_plain = |word: &[u8]| word.iter().skip(1).all(u8::is_ascii_lowercase);
    let are_groups = count == 2 && words().all(|word| word.len() % 4 == 0) && !words().all(is_plain);
    count < 2 || longest > 24 || are_groups || !line.is_ascii() || is_text(&base64::decode(line))
}

/// Returns whether each line has more than a stray byte that is not base64, such as a table with commas between its
/// columns.
fn is_junk_in_each_line(sample: &[u8]) -> bool {
    /// Number of lines that are looked at.
    const LINES_MAX: usize = 8;
    let is_junk = |byte: &&u8| !base64::is_char(**byte) && !matches!(**byte, b'=' | b' ' | b'\t' | 0);
    let lines = sample.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).take(LINES_MAX).collect();
    lines.len() > 1 && lines.iter().all(|line| line.iter().filter(is_junk).count() * 20 > line.len())
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(|char: char| char.is_control() && !char.is_whitespace()))
}

/// Splits base64 text from the text in clear behind it. That text can only begin where base64 may end: behind padding,
/// an empty line, or a line that is shorter than the lines before.
fn split_footer(whole: &[u8]) -> (&[u8], &[u8]) {
    // A boundary that lacks the line ending before it: `AAEC==--boundary--`.
    let end = memchr::memmem::find(whole, b"=--").map_or(whole.len(), |at| at + 1);
    let encoded = &whole[..end];
    let cr = ends_lines_with_cr(encoded);
    let (mut at, mut longest, mut may_end) = (0, 0, false);
    // `is_padded`: the last line ends with padding. `has_ended`: an empty line stands behind such a line.
    let (mut is_padded, mut has_ended) = (false, false);
    while at < encoded.len() {
        let len = line_len(&encoded[at..], cr);
        let line = encoded[at..at + len].trim_ascii();
        if line.is_empty() {
            may_end |= longest > 0;
            has_ended |= is_padded;
        } else if may_end && !is_more(line) || longest > 0 && is_rule(line) || has_ended && is_word(line) {
            return whole.split_at(at);
        } else {
            is_padded = line.ends_with(b"=");
            has_ended = false;
            may_end = is_padded || line.len() < longest;
            longest = longest.max(line.len());
        }
        at += len;
    }
    whole.split_at(end)
}

/// Returns whether a line is a rule as footers and signatures begin with. Its characters may be in the alphabet for
/// URLs.
fn is_rule(line: &[u8]) -> bool {
    line.len() > 1 && line.iter().all(|byte| matches!(byte, b'-' | b'_' | b'*'))
}

/// Returns whether a line is a word that people wrote, not the start of another base64 text.
fn is_word(line: &[u8]) -> bool {
    line.len() < 20 && !line.ends_with(b"=")
}

/// Returns whether a line continues base64 text.
fn is_more(line: &[u8]) -> bool {
    let chars = line.iter().filter(|&&byte| base64::is_char(byte)).count();
    let padding = line.iter().rev().take_while(|&&byte| byte == b'=').count();
    // A stray byte in a long line is damage; in a short line it shows that the line is text.
    let junk = line.len() - chars - padding;
    // The boundary of another multipart is no base64 either.
    !is_rule(line) && !line.starts_with(b"--") && (junk == 0 || line.len() > 60 && junk <= 2 && !line.contains(&b' '))
}

/// Calls `each` with decoded pieces until it returns false. An invalid escape stands for itself.
fn quoted_printable(encoded: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) {
    let cr = ends_lines_with_cr(encoded);
    let mut at = 0;
    while at < encoded.len() {
        let line = &encoded[at..at + line_len(&encoded[at..], cr)];
        at += line.len();
        let ending = &line[without_eol(line).len()..];
        // Blanks at the end of a line were added on the way.
        let trimmed = line.trim_ascii_end();
        let (mut rest, ending) = match trimmed.strip_suffix(b"=") {
            Some(rest) => (rest, &b""[..]),
            None => (trimmed, ending),
        };
        while let Some(escape) = memchr::memchr(b'=', rest) {
            let decoded = rest[escape + 1..].first_chunk().and_then(|digits| hex(*digits));
            let (byte, len) = decoded.map_or((b'=', 1), |byte| (byte, 3));
            if !each(&rest[..escape]) || !each(&[byte]) {
                return;
            }
            rest = &rest[escape + len..];
        }
        if !each(rest) || !each(ending) {
            return;
        }
    }
}

/// Decodes the lines between `begin` and `end`, or all lines if there is no `begin`.
fn uuencoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let has_begin = text.trim_ascii_start().starts_with(b"begin") || memchr::memmem::find(text, b"\nbegin ").is_some();
    let mut begun = !has_begin;
    for line in text.split(|&byte| byte == b'\n').map(without_eol) {
        if !begun {
            begun = line.starts_with(b"begin");
            continue;
        }
        let Some((&first, chars)) = line.split_first() else { continue };
        if line == b"end" {
            break;
        }
        let len = usize::from(first.wrapping_sub(32) & 0x3f);
        let start = decoded.len();
        for quad in chars.chunks(4) {
            let value = |at: usize| quad.get(at).map_or(0, |byte| byte.wrapping_sub(32) & 0x3f);
            let (a, b, c, d) = (value(0), value(1), value(2), value(3));
            decoded.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
        }
        decoded.truncate(start + len);
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine;
    use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn decoded(encoding: &str, text: &str) -> (String, String) {
        let encoded = Encoding::named(encoding.as_bytes()).of(text.as_bytes());
        let bytes = encoded.decoded(usize::MAX);
        assert_eq!(bytes.len(), encoded.decoded_len(), "{text:?}");
        (String::from_utf8_lossy(&bytes).into_owned(), String::from_utf8_lossy(encoded.footer).into_owned())
    }

    #[test]
    fn encodings_by_all_their_names() {
        for (value, encoding) in [
            ("base64", Encoding::Base64),
            ("BASE64;", Encoding::Base64),
            ("base64 (really)", Encoding::Base64),
            ("(a (nested) comment) \r\n\t(and another) \"Base64\"", Encoding::Base64),
            ("(base64", Encoding::Base64),
            ("(never closed base64", Encoding::Identity),
            (" \"quoted-printable\"", Encoding::QuotedPrintable),
            ("=?utf-8?Q?base64?=", Encoding::Base64),
            ("x-uuencode", Encoding::Uuencode),
            ("8bit", Encoding::Identity),
            ("", Encoding::Identity),
        ] {
            assert_eq!(Encoding::named(value.as_bytes()), encoding, "{value}");
        }
    }

    #[test]
    fn base64_is_read_as_far_as_it_goes() {
        for (text, expected, footer) in [
            ("SGVsbG8gd29ybGQ=", "Hello world", ""),
            ("SGVsbG8gd29ybGQ", "Hello world", ""),
            ("\n\nSGVs bG8g\td29y\nbGQ=\n", "Hello world", ""),
            ("SGVsb!G8=\nIHdvcmxk\nZ", "Hello world", ""),
            ("SGVs\0bG8gd29ybGQ===", "Hello world", ""),
            ("SGVsbG8=\nIHdvcmxk", "Hello world", ""),
            ("SGVsbG8gd29ybGQ=\n\n-- \nThe list\n", "Hello world", "-- \nThe list\n"),
            ("SGVsbG8gd29ybGQ=\n______\nList\n", "Hello world", "______\nList\n"),
            ("SGVsbG8g\nd29y\nThe list\n", "Hello wor", "The list\n"),
            ("SGVsbG8gd29ybGQ=\n\nRegards\nAnn\n", "Hello world", "Regards\nAnn\n"),
            ("SGVsbG8gd29ybGQ=--BB--\n", "Hello world", "--BB--\n"),
            ("firstname,lastname\nAnn,Lee\n", "firstname,lastname\nAnn,Lee\n", ""),
            ("Dear customer\n", "Dear customer\n", ""),
            ("SGVs bG8g", "Hello ", ""),
            ("SGVsbG8gd29ybGQ=\n--TheListTheList--\nx\n", "Hello world", "--TheListTheList--\nx\n"),
            ("w7_Dv8O_Pj4-Pz8_", "ÿÿÿ>>>???", ""),
            ("Email text that is not encoded at all", "Email text that is not encoded at all", ""),
            ("Dear all,\nthis: is (clear).\n", "Dear all,\nthis: is (clear).\n", ""),
        ] {
            assert_eq!(decoded("base64", text), (expected.to_owned(), footer.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn quoted_printable_is_read_as_far_as_it_goes() {
        for (text, expected) in [
            ("K=C3=B6ln a=b", "Köln a=b"),
            ("a=\nb=  \r\nc", "abc"),
            ("5 = 5 =zz=\n=4", "5 = 5 =zz=4"),
            ("a  \r\nb\t\n", "a\r\nb\n"),
            ("k=c3=b6 ?a=b&c=\n", "kö ?a=b&c"),
            ("a=\rb\rc", "ab\rc"),
        ] {
            assert_eq!(decoded("quoted-printable", text).0, expected, "{text:?}");
        }
    }

    #[test]
    fn uuencoded_files_are_read() {
        assert_eq!(decoded("x-uuencode", "begin 644 a.txt\n+2&5L;&\\@=V]R;&0\n`\nend\n").0, "Hello world");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(
            bytes in vec(any::<u8>(), 1..400),
            width in 4..90_usize,
            crlf: bool,
            url: bool,
            blank: bool,
        ) {
            let text = if url { URL_SAFE_NO_PAD.encode(&bytes) } else { STANDARD.encode(&bytes) };
            let lines = text.as_bytes().chunks(width);
            let lines: Vec<&str> = lines.map(|line| std::str::from_utf8(line).unwrap()).collect();
            let text = lines.join(if crlf { "\r\n" } else { "\n" }) + if blank { "\n\n\n" } else { "" };
            prop_assert_eq!(base64::decode(text.as_bytes()), bytes.clone());
            let mut written = b"before".to_vec();
            base64::append(&bytes, &mut written);
            prop_assert_eq!(written, [b"before", STANDARD.encode(&bytes).as_bytes()].concat());
            prop_assert_eq!(base64::decoded_len(text.as_bytes()), bytes.len());
            if !url {
                let encoded = Encoding::Base64.of(text.as_bytes());
                prop_assert_eq!(&*encoded.decoded(usize::MAX), &bytes[..]);
            }
        }

        #[test]
        fn any_bytes_are_decoded(bytes in vec(any::<u8>(), 0..300), text in "[A-Za-z=+/ _\r\n-]{0,200}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                for encoding in [Encoding::Base64, Encoding::QuotedPrintable, Encoding::Uuencode, Encoding::Identity] {
                    let encoded = encoding.of(bytes);
                    let all = encoded.decoded(usize::MAX);
                    prop_assert_eq!(all.len(), encoded.decoded_len());
                    let some = encoded.decoded(50);
                    let is_start = some.len() >= all.len().min(50) && all.starts_with(&some);
                    prop_assert!(is_start || encoding == Encoding::Base64);
                }
            }
        }
    }
}
