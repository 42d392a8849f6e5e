//! Values with parameters: `Content-Type` and `Content-Disposition` (RFC 2045, 2183). Names may be written as RFC 2231
//! or RFC 2047 say, or as programs of all ages write them.

use super::charset::{self, Charset};
use super::header::unfolded;
use super::words::{self, hex};

/// Maximum number of parameters of one value. More are ignored.
const PARAMS_MAX: usize = 1000;

/// A value and its parameters.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// The text before the parameters, in lower case and without comments: `text/plain`, `attachment`.
    pub value: String,
    list: Vec<Param>,
}

#[derive(Clone, Debug)]
struct Param {
    /// The name in lower case, without what RFC 2231 appends.
    name: Vec<u8>,
    /// The number of the section: 2 in `name*2`.
    section: Option<u32>,
    /// True for `name*`: the value is percent-encoded, and the first section names a charset.
    extended: bool,
    value: Vec<u8>,
}

impl Params {
    /// Reads the value of a field.
    pub fn parse(value: &[u8]) -> Self {
        let mut line = unfolded(value);
        if line.starts_with(b"=?") {
            line = words::decode(&line, None).into_bytes().into();
        }
        let mut rest = Rest { line: &line, halves: std::str::from_utf8(&line).is_err(), shifts: true };
        let mut value = rest.unquoted();
        value.retain(|byte| !byte.is_ascii_whitespace() && *byte != b'"');
        let mut params = Self { value: String::from_utf8_lossy(&value).to_lowercase(), list: Vec::new() };
        while params.list.len() < PARAMS_MAX {
            let Some(param) = rest.param() else { break };
            params.list.push(param);
        }
        params
    }

    /// Returns the decoded bytes of a parameter, and their charset if the parameter names one (RFC 2231).
    fn bytes(&self, name: &str) -> Option<(Vec<u8>, Option<Charset>)> {
        let named = || self.list.iter().filter(|param| param.name == name.as_bytes() && !param.value.is_empty());
        if let Some(whole) = named().find(|param| param.extended && param.section.is_none()) {
            return Some(joined(&[whole]));
        }
        let mut sections: Vec<&Param> = named().filter(|param| param.section.is_some()).collect();
        // Of two sections with one number, the first counts.
        sections.sort_by_key(|param| param.section);
        sections.dedup_by_key(|param| param.section);
        if !sections.is_empty() {
            return Some(joined(&sections));
        }
        named().next().map(|param| (param.value.clone(), None))
    }

    /// Returns a parameter as bytes, for a boundary.
    pub fn raw(&self, name: &str) -> Option<Vec<u8>> {
        self.bytes(name).map(|(bytes, _)| bytes)
    }

    /// Returns a parameter as text. `charset` is the charset of the message; it is used for bytes that are not encoded.
    pub fn text(&self, name: &str, charset: Option<Charset>) -> Option<String> {
        let (bytes, own) = self.bytes(name)?;
        let text = match own {
            Some(_) => charset::decode_as(&bytes, own).into_owned(),
            None => words::decode(&bytes, charset),
        };
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// Joins the sections of a parameter. Bytes are joined before they are decoded, because a letter may be split over two
/// sections.
fn joined(sections: &[&Param]) -> (Vec<u8>, Option<Charset>) {
    let (mut bytes, mut label) = (Vec::new(), None);
    for (at, section) in sections.iter().enumerate() {
        let mut value = &*section.value;
        if !section.extended {
            bytes.extend_from_slice(value);
            continue;
        }
        if at == 0 {
            let mut quotes = memchr::memchr_iter(b'\'', value);
            if let (Some(first), Some(second)) = (quotes.next(), quotes.next()) {
                label = Some(String::from_utf8_lossy(&value[..first]).into_owned());
                value = &value[second + 1..];
            }
        }
        unescape(value, &mut bytes);
    }
    // An unknown charset becomes UTF-8, not none: a value that names a charset holds no encoded words.
    let charset = label.map(|label| Charset::named(&label).unwrap_or(Charset::Web(encoding_rs::UTF_8)));
    (bytes, charset)
}

fn unescape(mut text: &[u8], bytes: &mut Vec<u8>) {
    while let Some((&byte, after)) = text.split_first() {
        match (byte, after.first_chunk().and_then(|digits| hex(*digits))) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                text = &after[2..];
            }
            _ => {
                bytes.push(byte);
                text = after;
            }
        }
    }
}

/// The part of a value that was not read yet.
struct Rest<'a> {
    line: &'a [u8],
    /// True if the text may have two-byte letters whose second byte looks like a backslash (Shift_JIS, Big5, GBK).
    halves: bool,
    /// True if quotes and semicolons between `ESC $` and the next `ESC` are halves of letters (ISO-2022). False once
    /// such a stretch did not end.
    shifts: bool,
}

impl Rest<'_> {
    /// Skips blanks, semicolons and comments.
    fn skip(&mut self) {
        loop {
            self.line = self.line.trim_ascii_start();
            match self.line.first() {
                Some(b';' | b',') => self.line = &self.line[1..],
                Some(b'(') => match comment_len(self.line) {
                    Some(len) => self.line = &self.line[len..],
                    None => return,
                },
                _ => return,
            }
        }
    }

    fn param(&mut self) -> Option<Param> {
        loop {
            self.skip();
            if self.line.is_empty() {
                return None;
            }
            let len = memchr::memchr2(b'=', b';', self.line).unwrap_or(self.line.len());
            if self.line.get(len) == Some(&b'=') {
                let name = self.line[..len].trim_ascii().to_ascii_lowercase();
                self.line = self.line[len + 1..].trim_ascii_start();
                let (name, section, extended) = split_name(&name);
                let (name, value) = (name.to_vec(), self.value());
                return Some(Param { name, section, extended, value });
            }
            // Skip a word without a value.
            self.line = &self.line[len..];
        }
    }

    fn value(&mut self) -> Vec<u8> {
        if self.line.first() == Some(&b'"') {
            if let Some(value) = self.quoted() {
                return value;
            }
            self.line = &self.line[1..];
        }
        if self.line.first() == Some(&b'(')
            && let Some(len) = comment_len(self.line)
            && self.line[len..].first().is_some_and(|byte| !matches!(byte, b';'))
        {
            self.line = self.line[len..].trim_ascii_start();
        }
        self.unquoted()
    }

    /// Reads a quoted value. None if the last quote is missing.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let found = self.find_quoted().or_else(|| {
            self.shifts = false;
            self.find_quoted()
        });
        let (value, len) = found?;
        self.line = &self.line[len..];
        Some(value)
    }

    /// Returns a quoted value, and its length with the quotes. A backslash before any other character stands for
    /// itself: `C:\temp`.
    fn find_quoted(&self) -> Option<(Vec<u8>, usize)> {
        let mut value = Vec::new();
        let mut at = 1;
        // `half`: the byte before is the first half of a letter. `shifted`: all bytes are halves of letters.
        let (mut half, mut shifted) = (false, false);
        loop {
            let (byte, next) = (*self.line.get(at)?, self.line.get(at + 1).copied());
            if byte == 0x1b {
                shifted = self.shifts && next == Some(b'$');
            }
            match (byte, next) {
                (b'"', _) if !shifted => return Some((value, at + 1)),
                (b'\\', Some(quoted @ (b'"' | b'\\'))) if !shifted && !half => {
                    value.push(quoted);
                    at += 2;
                }
                _ => {
                    value.push(byte);
                    at += 1;
                    half = self.halves && byte >= 0x81 && !half;
                }
            }
        }
    }

    /// Reads an unquoted value up to the next semicolon, or up to the next parameter if the semicolon is missing. The
    /// value may have blanks in it.
    fn unquoted(&mut self) -> Vec<u8> {
        let mut at = 0;
        let mut end = None;
        while end.is_none() {
            at += match self.line[at..].iter().position(|byte| matches!(byte, b';' | b' ' | b'\t' | 0x1b)) {
                Some(len) => len,
                None => break,
            };
            if self.line[at] == 0x1b {
                let is_shift = self.line[at + 1..].starts_with(b"$");
                let end = if is_shift { memchr::memchr(0x1b, &self.line[at + 1..]) } else { None };
                at += 1 + end.unwrap_or(0);
                continue;
            }
            let behind = self.line[at..].trim_ascii_start();
            let blanks = self.line.len() - at - behind.len();
            match behind.first() {
                _ if blanks == 0 => end = Some(at),
                // A comment at the end of the value.
                Some(b'(') if comment_len(behind).is_some_and(|len| ends(behind[len..].trim_ascii_start())) => {
                    end = Some(at)
                }
                _ if begins_param(behind) => end = Some(at),
                _ => at += blanks,
            }
        }
        let (value, rest) = self.line.split_at(end.unwrap_or(self.line.len()));
        self.line = rest;
        value.trim_ascii().to_vec()
    }
}

fn ends(rest: &[u8]) -> bool {
    rest.is_empty() || rest.starts_with(b";") || begins_param(rest)
}

/// Returns whether `text` begins with `name=`.
fn begins_param(text: &[u8]) -> bool {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*' | b'_');
    let len = text.iter().take(64).take_while(is_name).count();
    len > 1 && text.get(len) == Some(&b'=') && !text[len..].starts_with(b"==")
}

/// Returns the length of the comment at the start of `text`. None if there is no comment, or if it does not end.
pub(super) fn comment_len(text: &[u8]) -> Option<usize> {
    /// Maximum length of a comment in bytes, so that many comments without an end take little time.
    const COMMENT_BYTES_MAX: usize = 1000;
    if !text.starts_with(b"(") {
        return None;
    }
    let mut depth = 0_usize;
    let end = text.iter().take(COMMENT_BYTES_MAX).position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.map(|end| end + 1)
}

/// Splits `name*2*` into the name, the section's number, and whether the value is extended.
fn split_name(name: &[u8]) -> (&[u8], Option<u32>, bool) {
    let (bare, extended) = match name.strip_suffix(b"*") {
        Some(bare) => (bare, true),
        None => (name, false),
    };
    let Some(star) = memchr::memrchr(b'*', bare) else { return (bare, None, extended) };
    let number = std::str::from_utf8(&bare[star + 1..]).ok().and_then(|digits| digits.parse().ok());
    match number {
        Some(number) => (&bare[..star], Some(number), extended),
        None => (bare, None, extended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::testing::processor_time;
    use proptest::prelude::*;

    #[test]
    fn types_are_read() {
        for (value, kind, name, param) in [
            ("text/html; charset=utf-8", "text/html", "charset", "utf-8"),
            ("TEXT/HTML;CHARSET=\"utf-8\"", "text/html", "charset", "utf-8"),
            ("text / html (comment) ; charset = utf-8 (really)", "text/html", "charset", "utf-8"),
            ("multipart/mixed boundary=\"abc\"", "multipart/mixed", "boundary", "abc"),
            ("multipart/mixed; boundary=B B", "multipart/mixed", "boundary", "B B"),
            ("multipart/mixed (hello); boundary=(x)abc", "multipart/mixed", "boundary", "abc"),
            ("multipart/mixed; boundary=abc; boundary=xyz", "multipart/mixed", "boundary", "abc"),
            ("multipart/mixed; boundary=\"a\\\"b\"", "multipart/mixed", "boundary", "a\"b"),
            ("multipart/mixed; boundary=\" abc\"", "multipart/mixed", "boundary", "abc"),
            ("multipart/mixed; boundary=\"=_mixed\r\n 0053_=\"", "multipart/mixed", "boundary", "=_mixed 0053_="),
            ("multipart/mixed; boundary*=us-ascii''abc%2Bdef", "multipart/mixed", "boundary", "abc+def"),
            ("multipart/mixed;\r\n boundary=--b_0_8ab0\r\n \r\n", "multipart/mixed", "boundary", "--b_0_8ab0"),
            ("text/plain; charset=\"utf-8", "text/plain", "charset", "utf-8"),
            ("text/plain charset=utf-8 name=a.txt", "text/plain", "name", "a.txt"),
            ("=?utf-8?Q?text/html=3B_charset=3Dutf-8?=", "text/html", "charset", "utf-8"),
            ("text/plain; charset==?utf-8?Q?utf-8?=", "text/plain", "charset", "utf-8"),
            ("text/plain; charset=charset=utf-8", "text/plain", "charset", "charset=utf-8"),
            ("text/plain;;; x; charset=a", "text/plain", "charset", "a"),
        ] {
            let params = Params::parse(value.as_bytes());
            assert_eq!((&*params.value, params.text(name, None).as_deref()), (kind, Some(param)), "{value:?}");
        }
        assert_eq!(Params::parse(b"multipart/mixed; boundary=\" abc\"").raw("boundary").as_deref(), Some(&b" abc"[..]));
    }

    #[test]
    fn names_are_read() {
        for (value, name) in [
            ("attachment; filename=\"a.pdf\";", "a.pdf"),
            ("attachment; filename=a b (1).pdf", "a b (1).pdf"),
            ("attachment; filename=\"a \\\"quoted\\\" name.pdf\"", "a \"quoted\" name.pdf"),
            ("attachment; filename=\"C:\\temp\\a.pdf\"", "C:\\temp\\a.pdf"),
            ("attachment; filename=\"Übersicht März.xlsx\"", "Übersicht März.xlsx"),
            ("attachment; filename=\"=?UTF-8?B?w5xiZXJzaWNodC54bHN4?=\"", "Übersicht.xlsx"),
            ("attachment; filename==?UTF-8?B?w5xiZXJzaWNodC54bHN4?=", "Übersicht.xlsx"),
            ("attachment; filename==?UTF-8?Q?=C3=9Cber?= =?UTF-8?Q?sicht?=; size=1", "Übersicht"),
            ("attachment; filename*=utf-8''Hello-(123)-World.pdf", "Hello-(123)-World.pdf"),
            ("attachment; filename=plain.pdf; filename*=utf-8''%C3%BC.pdf", "ü.pdf"),
            ("attachment; filename*0*=UTF-8''Rechnung%20f%C3; filename*1*=%BCr.pdf", "Rechnung für.pdf"),
            ("attachment; filename*1*=%BCr.pdf; filename*0*=UTF-8''f%C3", "für.pdf"),
            ("attachment; filename*0*=ISO-8859-1''caf%E9;\r\n filename*1*=%20cr%E8me.pdf", "café crème.pdf"),
            ("attachment; filename*0*=UTF-8''a%20b; filename*1=100%25.pdf", "a b100%25.pdf"),
            (
                "attachment; filename*0=\"long name part one \"; filename*1=\"part two.pdf\"",
                "long name part one part two.pdf",
            ),
            ("attachment; filename*0=a; filename*2=c.pdf", "ac.pdf"),
            ("attachment; filename*0*=iso-2022-jp''%1B$B@A5a;\r\n filename*1*=%3Dq%1B(B.pdf", "請求書.pdf"),
            ("attachment; filename*0*=shift_jis''%90%BF%8B;\r\n filename*1*=%81%8F%91.pdf", "請求書.pdf"),
            (
                "attachment; filename*0=\"=?UTF-8?Q?=F0=9F=98=81=F0?=\r\n =?UTF-8?Q?=9F=98=8\"; filename*1=\"1.docx?=\"",
                "😁😁.docx",
            ),
        ] {
            assert_eq!(Params::parse(value.as_bytes()).text("filename", None).as_deref(), Some(name), "{value:?}");
        }
        assert_eq!(Params::parse(b"attachment; filename=\"\"").text("filename", None), None);
        let latin = Params::parse(b"attachment; filename=\"Gr\xfc\xdfe.txt\"");
        assert_eq!(latin.text("filename", None).as_deref(), Some("Grüße.txt"));
    }

    #[test]
    fn halves_of_letters_that_nobody_encoded_are_no_marks() {
        for (value, charset, name) in [
            (&b"attachment; filename=\"\x1b$B8+!\"\x1b(B.txt\"; size=1"[..], None, "見、.txt"),
            (b"attachment; filename=\x1b$B;3ED\x1b(B.txt; size=1", None, "山田.txt"),
            (b"attachment; filename=\"\x1b$B;3\"; size=1", None, "山"),
            (b"attachment; filename=\"\x91\xe3\x95\x5c\"; size=1", Charset::named("shift_jis"), "代表"),
            (b"attachment; filename=\"\xb3\x5c.doc\"; size=1", Charset::named("big5"), "許.doc"),
            (b"attachment; filename=\"Gr\xfc\xdfe \\\"x\\\".txt\"", Charset::named("iso-8859-1"), "Grüße \"x\".txt"),
            ("attachment; filename=\"Grüße\\\".txt\"".as_bytes(), None, "Grüße\".txt"),
        ] {
            let found = Params::parse(value).text("filename", charset);
            assert_eq!(found.as_deref(), Some(name), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn shifted_values_that_never_end_take_linear_time() {
        for unit in ["; a=\"\x1b$", "; a=\x1b$B", "\x1b$", "; a=\"\x1b$\x1b(", "; a=\"\\"] {
            let value = unit.repeat((1 << 20) / unit.len());
            let time = processor_time(|| drop(Params::parse(value.as_bytes())));
            assert!(time.as_secs() < 1, "{unit:?} took {time:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in "([a-z/;=\"' ()*0-9%\\\\-]|\r\n ){0,60}") {
            let params = Params::parse(value.as_bytes());
            for param in &params.list {
                params.text(&String::from_utf8_lossy(&param.name), None);
            }
        }
    }
}
