//! Encoded words (RFC 2047, 2231): text beyond ASCII in header fields.
//!
//! Programs split letters, and the state of a charset, over two words. So the bytes of neighbouring words in one
//! charset are joined before they are decoded. Words are also read where the standard forbids them: in quotes, in the
//! middle of other text, without a blank between them, with blanks in them, or cut off at the end.

use super::base64;
use super::charset::{self, Charset};
use std::borrow::Cow;

/// Maximum length of a charset's name with its language, in bytes.
const LABEL_BYTES_MAX: usize = 80;

/// Decodes the encoded words in a value, which may be folded. Everything else is read in `charset`, the charset of the
/// message.
///
/// The text has no line endings.
pub fn decode(value: &[u8], charset: Option<Charset>) -> String {
    let mut out = Text { text: String::with_capacity(value.len()), words: None, charset };
    let value = value.trim_ascii();
    let mut at = 0;
    let mut plain = 0;
    while let Some(found) = memchr::memmem::find(&value[at..], b"=?") {
        let start = at + found;
        let Some(word) = Word::read(&value[start..]) else {
            at = start + 2;
            continue;
        };
        out.plain(&value[plain..start]);
        at = start + word.len;
        plain = at;
        out.word(word);
    }
    out.plain(&value[plain..]);
    out.flush();
    out.text
}

/// An encoded word with its text decoded into bytes.
struct Word<'a> {
    label: Cow<'a, str>,
    bytes: Vec<u8>,
    /// Number of bytes that the word takes in the value.
    len: usize,
}

impl<'a> Word<'a> {
    /// Reads the word at the start of `value`.
    fn read(value: &'a [u8]) -> Option<Self> {
        let inner = &value[2..];
        let label_len = memchr::memchr(b'?', &inner[..inner.len().min(LABEL_BYTES_MAX)])?;
        let label = String::from_utf8_lossy(&inner[..label_len]);
        if label.contains(|char: char| char.is_whitespace()) {
            return None;
        }
        let encoding = *inner.get(label_len + 1)?;
        if inner.get(label_len + 2) != Some(&b'?') {
            return None;
        }
        let text = &inner[label_len + 3..];
        let start = 2 + label_len + 3;
        let (text, len) = match end_of_text(text) {
            Some(end) if text[end..].starts_with(b"?=") => (&text[..end], start + end + 2),
            // The word was cut off: `=?utf-8?B?R3LDvMOf`.
            None if !text.contains(&b' ') && Charset::named(&label).is_some() => (text, value.len()),
            _ => return None,
        };
        let bytes = match encoding.to_ascii_uppercase() {
            b'B' => base64::decode(text),
            b'Q' => quoted(text),
            _ => return None,
        };
        let label = match label.find('*') {
            Some(at) => Cow::Owned(label[..at].to_owned()),
            None => label,
        };
        Some(Self { label, bytes, len })
    }
}

/// Returns where the text of a word ends: at `?=`, or where another word begins. None if neither comes.
fn end_of_text(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'?', text).find(|&at| {
        let is_start = at > 0 && text[at - 1] == b'=';
        text.get(at + 1) == Some(&b'=') || is_start
    })
}

/// Decodes the Q encoding. Folds inside a word are left out.
fn quoted(text: &[u8]) -> Vec<u8> {
    let text = once_encoded(text);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = &*text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first_chunk().and_then(|digits| hex(*digits))) {
            (b'_', _) => bytes.push(b' '),
            (b'=', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => bytes.push(byte),
        }
    }
    bytes
}

/// Returns the text of a word without folds. If it has UTF-8 letters beyond ASCII, some program took bytes for Latin-1
/// and wrote them in UTF-8; then returns those bytes.
fn once_encoded(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() && memchr::memchr2(b'\r', b'\n', text).is_none() {
        return text.into();
    }
    let mut unfolded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        unfolded.extend_from_slice(&rest[..at]);
        rest = rest[at..].trim_ascii_start();
    }
    unfolded.extend_from_slice(rest);
    let letters = std::str::from_utf8(&unfolded).ok();
    let single: Option<Vec<u8>> =
        letters.and_then(|letters| letters.chars().map(|char| u8::try_from(char).ok()).collect());
    single.unwrap_or(unfolded).into()
}

/// Neighbouring words in one charset.
struct Words {
    label: String,
    bytes: Vec<u8>,
    /// Where the bytes of each word begin.
    starts: Vec<usize>,
}

struct Text {
    text: String,
    words: Option<Words>,
    charset: Option<Charset>,
}

impl Text {
    /// Adds the text between words. Blanks alone between two words are left out.
    fn plain(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || (self.words.is_some() && bytes.trim_ascii().is_empty()) {
            return;
        }
        self.flush();
        let decoded = raw(bytes, self.charset);
        let mut fold = false;
        for char in decoded.chars() {
            match char {
                '\r' | '\n' => fold = true,
                ' ' | '\t' if fold => {}
                _ => {
                    if std::mem::take(&mut fold) {
                        self.text.push(' ');
                    }
                    self.text.push(char);
                }
            }
        }
        if fold {
            self.text.push(' ');
        }
    }

    fn word(&mut self, word: Word<'_>) {
        match &mut self.words {
            Some(words) if words.label.eq_ignore_ascii_case(&word.label) => {
                words.starts.push(words.bytes.len());
                words.bytes.extend_from_slice(&word.bytes);
            }
            _ => {
                self.flush();
                self.words = Some(Words { label: word.label.into_owned(), bytes: word.bytes, starts: vec![0] });
            }
        }
    }

    fn flush(&mut self) {
        let Some(words) = self.words.take() else { return };
        let charset = Charset::named(&words.label);
        let joined = charset::decode_as(&words.bytes, charset);
        // Joined, the words cannot be read: try each word by itself, as the standard wants.
        if joined.contains('\u{fffd}') && words.starts.len() > 1 {
            let ends = words.starts.iter().skip(1).copied().chain([words.bytes.len()]);
            let each = words
                .starts
                .iter()
                .zip(ends)
                .map(|(&start, end)| charset::decode_as(&words.bytes[start..end], charset));
            let each: String = each.collect();
            if each.matches('\u{fffd}').count() < joined.matches('\u{fffd}').count() {
                self.text.push_str(&each);
                return;
            }
        }
        self.text.push_str(&joined);
    }
}

/// Returns the byte of two hexadecimal digits.
pub(super) fn hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some((high? << 4 | low?) as u8)
}

/// Decodes unencoded bytes of a header: as UTF-8 if they are valid, else in the charset of the message, else in a
/// likely one.
pub fn raw(bytes: &[u8], charset: Option<Charset>) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0x1b) => text.into(),
        Err(_) if charset.is_some_and(|charset| charset::can_read(bytes, charset)) => {
            charset::decode_as(bytes, charset)
        }
        _ => charset::decode_as(bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_decoded() {
        for (value, text) in [
            ("plain", "plain"),
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?UTF-8?B?R3LDvMOfZSBhdXM=?==?UTF-8?B?IEvDtmxu?=", "Grüße aus Köln"),
            ("=?iso-8859-1?B?R3L832U=?=\r\n =?utf-8?Q?_x?= y", "Grüße x y"),
            ("=?UTF-8*DE?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("Re:=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=", "Re:Grüße"),
            ("\"=?UTF-8?B?SsO8cmdlbiwgQ2hlZg==?=\" <j@example.org>", "\"Jürgen, Chef\" <j@example.org>"),
            ("=?UTF-8?Q?J=C3?= =?UTF-8?Q?=BCrgen?=", "Jürgen"),
            ("=?UTF-8?B?SsM=?=\n\t=?utf-8?q?=BCrgen?=", "Jürgen"),
            ("=?GB2312?B?u+HS6c2o1g==?= =?GB2312?B?qtPryNWzzLCyxcU=?=", "会议通知与日程安排"),
            ("=?ISO-2022-JP?B?GyRCMnE1RCROTT0=?= =?ISO-2022-JP?B?RGokSyREJCQkRjNORycbKEI=?=", "会議の予定について確認"),
            ("=?Shift_JIS?B?ie+LY4LMlw==?= =?Shift_JIS?B?XJLogsmCwoKigsSKbZRG?=", "会議の予定について確認"),
            ("=?UTF-7?Q?Gr+APwA3w-e?=", "Grüße"),
            ("=?x-gbk?B?u+HS6Q==?=", "会议"),
            ("=?utf-8?Q?a b?= c", "a b c"),
            ("=?utf-8?Q?Gr=C3=BC=\r\n C3=9Fe?=", "Grüße"),
            ("=?utf-8?B?R3LDvMOfZQ", "Grüße"),
            ("=?utf-8?B?R3LDvMOfZQ?= =?utf-8?", "Grüße =?utf-8?"),
            ("a =? b ?= c =?x?Z?y?=", "a =? b ?= c =?x?Z?y?="),
            ("=?utf-8?Q??= a", " a"),
            ("=?unknown?Q?Gr=FC=DFe?=", "Grüße"),
            ("=?UTF-8?Q?pasiÅ\u{be}adÄ?= =?UTF-8?Q?=97jimÅ³_girlianda?=", "pasižadėjimų girlianda"),
            ("a\r\n b\n\tc", "a b c"),
        ] {
            assert_eq!(decode(value.as_bytes(), None), text, "{value:?}");
        }
    }

    #[test]
    fn bytes_that_nobody_encoded_are_in_the_charset_of_the_message() {
        let russian = b"\xcf\xf0\xe8\xe2\xe5\xf2";
        assert_eq!(decode(russian, Charset::named("windows-1251")), "Привет");
        assert_eq!(decode("Привет".as_bytes(), Charset::named("windows-1251")), "Привет");
        assert_eq!(decode(b"Gr\xfc\xdfe n21", None), "Grüße n21");
    }

    proptest! {
        #[test]
        fn any_value_becomes_text(value in "(=\\?|\\?=|utf-8|\\?[QB]\\?|[ \r\n]|=C3|é|[a-z_=+/]){0,30}") {
            decode(value.as_bytes(), None);
        }
    }
}
