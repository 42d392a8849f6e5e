//! Makes text of bytes, in every charset that mails name, and in a likely one if they name none or a wrong one.
//!
//! The first of these that applies decides: a byte order mark; the named charset, if the bytes can be read in it and
//! are not plainly UTF-8; UTF-8, if the bytes are valid; a detector; Windows-1252. U+FFFD stands only for bytes that
//! mean nothing in any of these.
//!
//! Time and memory are linear in the number of bytes.

mod labels;
mod shifted;
mod tables;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use std::borrow::Cow;

/// Maximum number of bytes that the detector looks at, because it is slow. It gets only words that are not ASCII.
const DETECTED_BYTES_MAX: usize = 16 << 10;
/// Number of bytes at the start of a text that are searched for words that are not ASCII.
const SEARCHED_BYTES_MAX: usize = 1 << 20;
/// Minimum number of letters beyond ASCII before UTF-8 is preferred to a named charset in which every byte is a letter.
const UTF8_LETTERS_MIN: usize = 3;

/// A charset that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// A charset that browsers know.
    Web(&'static Encoding),
    /// A charset with one byte for each letter. Holds the letters of the bytes from 0x80 on.
    Table(&'static str),
    /// RFC 2152.
    Utf7,
    /// Two bytes a unit; little-endian unless the bytes show otherwise.
    Utf16 {
        /// True if the label says big-endian.
        big: bool,
    },
    /// Four bytes a letter.
    Utf32 {
        /// True if the label says big-endian.
        big: bool,
    },
    /// RFC 1843.
    Hz,
    /// ISO-2022 with all its registered sets: JP, KR and CN.
    Iso2022 {
        /// True if the label says Korean.
        korean: bool,
    },
}

impl Charset {
    /// Returns the charset that `label` means. None if the label says nothing: unknown, `default`, `8bit`, ASCII.
    pub fn named(label: &str) -> Option<Self> {
        labels::find(label)
    }

    /// Returns whether ASCII bytes may mean other letters in this charset.
    fn is_shifted(self) -> bool {
        !matches!(self, Charset::Web(_) | Charset::Table(_))
    }

    /// Returns whether each byte is a letter, so that no text is malformed.
    fn is_single_byte(self) -> bool {
        match self {
            Charset::Web(encoding) => encoding.is_single_byte(),
            Charset::Table(_) => true,
            _ => false,
        }
    }

    /// Decodes `bytes`, and returns whether all of them could be decoded.
    fn read(self, bytes: &[u8]) -> (Cow<'_, str>, bool) {
        match self {
            Charset::Web(encoding) => {
                let (text, failed) = encoding.decode_without_bom_handling(bytes);
                (text, !failed)
            }
            Charset::Table(letters) => {
                let text = table(bytes, letters);
                let good = !text.contains('\u{fffd}');
                (text.into(), good)
            }
            Charset::Utf7 => shifted::utf7(bytes),
            Charset::Utf16 { big } => shifted::utf16(bytes, big),
            Charset::Utf32 { big } => shifted::utf32(bytes, big),
            Charset::Hz => shifted::hz(bytes),
            Charset::Iso2022 { korean } => shifted::iso2022(bytes, korean),
        }
    }
}

/// Returns `bytes` as text, read in the charset named `label`.
pub fn decode<'a>(bytes: &'a [u8], label: Option<&str>) -> Cow<'a, str> {
    decode_as(bytes, label.and_then(Charset::named))
}

/// Returns `bytes` as text, read in `charset`, or in a likely one if that is none.
pub fn decode_as(bytes: &[u8], charset: Option<Charset>) -> Cow<'_, str> {
    if let Some((charset, mark_len)) = marked(bytes) {
        return charset.read(&bytes[mark_len..]).0;
    }
    let Some(charset) = charset else { return guess(bytes) };
    if bytes.is_ascii() && !charset.is_shifted() {
        return guess(bytes);
    }
    if charset == Charset::Web(UTF_8) {
        return utf8(bytes);
    }
    let is_utf8 = std::str::from_utf8(bytes).ok();
    if charset.is_single_byte() {
        let is_latin = charset == Charset::Web(WINDOWS_1252);
        let least = if is_latin { 1 } else { UTF8_LETTERS_MIN };
        if let Some(text) = is_utf8.filter(|text| text.chars().filter(|char| !char.is_ascii()).count() >= least) {
            return text.into();
        }
        return with_quotes(charset.read(bytes).0);
    }
    let (text, good) = charset.read(bytes);
    if good {
        return text;
    }
    if let Some(text) = is_utf8.filter(|_| !bytes.is_ascii()) {
        return text.into();
    }
    let guessed = guess(bytes);
    // One letter that was cut at the end is no reason to read all others in another charset.
    let lost = |text: &str| text.chars().filter(|char| *char == '\u{fffd}').count();
    let letters = text.chars().filter(|char| !char.is_ascii()).count();
    if lost(&text) * 4 > letters && lost(&guessed) < lost(&text) { guessed } else { text }
}

/// Returns whether `bytes` can be read in `charset` without a loss.
pub fn can_read(bytes: &[u8], charset: Charset) -> bool {
    charset.read(bytes).1
}

/// Returns the charset of a byte order mark, and the length of the mark.
fn marked(bytes: &[u8]) -> Option<(Charset, usize)> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => std::str::from_utf8(bytes).is_ok().then_some((Charset::Web(UTF_8), 3)),
        [0xff, 0xfe, 0, 0, ..] if bytes.len().is_multiple_of(4) => Some((Charset::Utf32 { big: false }, 4)),
        [0, 0, 0xfe, 0xff, ..] => Some((Charset::Utf32 { big: true }, 4)),
        [0xff, 0xfe, ..] => Some((Charset::Web(encoding_rs::UTF_16LE), 2)),
        [0xfe, 0xff, ..] => Some((Charset::Web(encoding_rs::UTF_16BE), 2)),
        _ => None,
    }
}

/// Decodes bytes whose charset is unknown.
fn guess(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.is_ascii() {
        let is_shifted = memchr::memmem::find(bytes, b"\x1b$").is_some();
        return match std::str::from_utf8(bytes) {
            Ok(text) if !is_shifted => text.into(),
            _ => shifted::iso2022(bytes, false).0,
        };
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    with_quotes(decode_detected(bytes))
}

/// Returns the charset that a text seems to be in; none if it is ASCII or UTF-8.
pub fn detect(bytes: &[u8]) -> Option<Charset> {
    // The last letter may have been cut.
    let is_utf8 = std::str::from_utf8(bytes).err().is_none_or(|error| error.error_len().is_none());
    (!is_utf8).then(|| Charset::Web(detected(bytes)))
}

fn detected(bytes: &[u8]) -> &'static Encoding {
    let sample = words_beyond_ascii(&bytes[..bytes.len().min(SEARCHED_BYTES_MAX)]);
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(&sample, true);
    let guessed = detector.guess(None, Utf8Detection::Deny);
    // The byte of a pound sign is a Polish letter in other charsets. A text with signs alone shows no language.
    let is_central = [encoding_rs::ISO_8859_2, encoding_rs::WINDOWS_1250, encoding_rs::WINDOWS_1257].contains(&guessed);
    let has_signs_alone = sample.iter().all(|byte| byte.is_ascii() || (0x80..=0xbf).contains(byte));
    if is_central && has_signs_alone { WINDOWS_1252 } else { guessed }
}

/// Returns the words of a text that are not ASCII, with the blanks around them. ASCII words say nothing of a charset,
/// and the detector is slow.
fn words_beyond_ascii(bytes: &[u8]) -> Vec<u8> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let mut words = Vec::new();
    let mut rest = bytes;
    while words.len() < DETECTED_BYTES_MAX
        && let Some(at) = rest.iter().position(|byte| !byte.is_ascii())
    {
        let start = rest[..at].iter().rposition(is_blank).unwrap_or(0);
        let end = rest[at..].iter().position(is_blank).map_or(rest.len(), |len| at + len);
        words.extend_from_slice(&rest[start..end]);
        rest = &rest[end..];
    }
    words.truncate(DETECTED_BYTES_MAX);
    words.push(b' ');
    words
}

fn decode_detected(bytes: &[u8]) -> Cow<'_, str> {
    let guessed = detected(bytes);
    let (text, failed) = guessed.decode_without_bom_handling(bytes);
    if !failed || guessed == WINDOWS_1252 {
        return text;
    }
    // A few wrong bytes in a long text of two-byte letters: the rest is still read best in this charset.
    let lost = text.chars().filter(|char| *char == '\u{fffd}').count();
    if lost * 20 < text.chars().filter(|char| !char.is_ascii()).count() {
        return text;
    }
    WINDOWS_1252.decode_without_bom_handling(bytes).0
}

/// Decodes UTF-8, also if some bytes are not valid.
fn utf8(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return if memchr::memmem::find(bytes, b"\x1b$").is_some() && bytes.is_ascii() {
            guess(bytes)
        } else {
            text.into()
        };
    }
    let (mut good, mut bad) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|char| !char.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    if good < bad {
        return guess(bytes);
    }
    let mut text = String::with_capacity(bytes.len() + bad * 2);
    let mut left = bytes.len();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        left -= chunk.valid().len() + chunk.invalid().len();
        match chunk.invalid() {
            [] => {}
            // A letter that was cut at the end.
            cut if cut.len() > 1 && left == 0 => text.push('\u{fffd}'),
            single => text.push_str(&WINDOWS_1252.decode_without_bom_handling(single).0),
        }
    }
    text.into()
}

/// Replaces the control characters of ISO-8859 by what Windows uses their bytes for: quotes, dashes, the euro sign.
fn with_quotes(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_control = |char: char| ('\u{80}'..='\u{9f}').contains(&char);
    if !text.contains(is_control) {
        return text;
    }
    let replaced = text.chars().map(|char| {
        let byte = [u8::try_from(u32::from(char)).unwrap_or_default()];
        match is_control(char) {
            true => WINDOWS_1252.decode_without_bom_handling(&byte).0.chars().next().unwrap_or(char),
            false => char,
        }
    });
    replaced.collect::<String>().into()
}

fn table(bytes: &[u8], letters: &str) -> String {
    let letters: Vec<char> = letters.chars().collect();
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 2);
    for &byte in bytes {
        text.push(match byte.checked_sub(0x80) {
            Some(upper) => letters.get(usize::from(upper)).copied().unwrap_or('\u{fffd}'),
            None => char::from(byte),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn charsets_by_all_their_names() {
        for (labels, bytes, text) in [
            (
                "utf-8 UTF8 utf8mb4 'utf-8' \"utf-8 utf-8? charset=utf-8 =?utf-8?Q?utf-8?= cp65001",
                &b"Gr\xc3\xbc\xc3\x9fe"[..],
                "Grüße",
            ),
            (
                "latin1 iso-8859-1 iso8859-1 iso-8859-1; ISO_8859-1:1987 8859-1 cp1252 windows1252 win-1252 ibm-1252 cp819 \
              iso-8859-15 iso-8859-1-windows-3.1-latin-1 ANSI default 8bit x-unknown unknown-8bit us-ascii",
                b"Gr\xfc\xdfe",
                "Grüße",
            ),
            ("ibm437 cp437 437 cp850 cp-850 ibm850 850 cp858 cp852", b"Gr\x81\xe1e", "Grüße"),
            ("utf-7 unicode-1-1-utf-7 x-unicode-2-0-utf-7", b"Gr+APwA3w-e", "Grüße"),
            ("iso-8859-2 latin2 cp1250 windows-1250 l2 iso8859_2", b"Dvo\xf8\xe1k", "Dvořák"),
            ("x-mac-ce x-mac-centraleurroman macce cp10029", b"Dvo\xde\x87k", "Dvořák"),
            ("koi8r koi8-r KOI8 cskoi8r", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
            ("windows1251 windows-1251 win1251 cp1251 x-cp1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
            ("cp866 ibm866 866", b"\x8f\xe0\xa8\xa2\xa5\xe2", "Привет"),
            ("gb2312 gbk cp936 x-gbk euc-cn gb2312-80 ms936 gb18030 chinese", b"\xbb\xe1\xd2\xe9", "会议"),
            ("hz-gb-2312 hz", b"~{;aRi~}", "会议"),
            ("big5 big-5 cp950 big5-hkscs cn-big5", b"\xb7|\xc4\xb3", "會議"),
            ("euc-kr ks_c_5601-1987 uhc cp949 windows-949 ksc5601 korean", b"\xc8\xb8\xc0\xc7", "회의"),
            ("iso-2022-kr csiso2022kr", b"\x1b$)C\x0eH8@G\x0f", "회의"),
            ("shift_jis x-sjis sjis cp932 windows-31j ms932 ms_kanji", b"\x93\xfa\x96{\x8c\xea", "日本語"),
            ("euc-jp cp51932 x-euc-jp eucjp-ms", b"\xc6\xfc\xcb\xdc\xb8\xec", "日本語"),
            (
                "iso-2022-jp iso-2022-jp-ms _iso-2022-jp$ESC cp50220 iso2022jp utf-8 x-unknown",
                b"\x1b$BF|K\\8l\x1b(B",
                "日本語",
            ),
            ("iso-2022-jp-ms", b"\x1b$B-!\x1b(B", "①"),
            ("iso-2022-jp", b"\x1b(I1\x1b(B", "ｱ"),
            ("iso-2022-jp", b"\x1b(J\\100~\x1b(B\\", "¥100~\\"),
            ("tis-620 iso-8859-11 windows-874 cp874", b"\xca\xc7\xd1\xca\xb4\xd5", "สวัสดี"),
            ("iso-8859-8-i iso-8859-8 logical windows-1255 cp1255", b"\xf9\xec\xe5\xed", "שלום"),
            ("utf-16 utf-16le ucs-2 unicode", b"G\0r\0\xfc\0", "Grü"),
            ("utf-16 utf-16be", b"\0G\0r\0\xfc", "Grü"),
            ("utf-32 utf-32be", b"\0\0\0G\0\0\0\xfc", "Gü"),
            ("utf-32 utf-32le", b"G\0\0\0\xfc\0\0\0", "Gü"),
        ] {
            for label in labels.split(' ').filter(|label| !label.is_empty()) {
                assert_eq!(decode(bytes, Some(label)), text, "{label}");
            }
        }
    }

    #[test]
    fn without_a_label_or_with_a_wrong_one() {
        for (label, bytes, text) in [
            (None, &b"Gr\xfc\xdfe aus K\xf6ln"[..], "Grüße aus Köln"),
            (None, "Grüße".as_bytes(), "Grüße"),
            (None, b"\xcf\xf0\xe8\xe2\xe5\xf2 \xe2\xf1\xe5\xec", "Привет всем"),
            (None, b"Houses rise \xa31,100 a week", "Houses rise £1,100 a week"),
            (Some("iso-8859-1"), "Grüße aus Köln".as_bytes(), "Grüße aus Köln"),
            (Some("iso-8859-2"), b"\x84Dvo\xf8\xe1k\x93", "„Dvořák“"),
            (Some("utf-8"), b"Gr\xfc\xdfe", "Grüße"),
            (Some("utf-8"), b"Gr\xc3\xbc\xc3\x9fe, K\xf6ln", "Grüße, Köln"),
            (Some("utf-8"), b"Gr\xc3\xbc\xc3\x9fe \xe2\x82", "Grüße \u{fffd}"),
            (Some("utf-8"), b"\xff\xfeG\0r\0\xfc\0", "Grü"),
            (Some("big5"), "Grüße".as_bytes(), "Grüße"),
        ] {
            assert_eq!(decode(bytes, label), text, "{label:?} {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_text(bytes in vec(any::<u8>(), 0..200), pick: prop::sample::Index) {
            const LABELS: [&str; 20] = [
                "utf-8", "utf-7", "utf-16", "utf-32", "hz", "iso-2022-jp", "iso-2022-kr", "iso-2022-cn", "gbk", "big5",
                "euc-kr", "shift_jis", "euc-jp", "cp437", "tcvn", "viscii", "iso-8859-2", "latin1", "unknown",
                "x-user-defined",
            ];
            decode(&bytes, Some(LABELS[pick.index(LABELS.len())]));
            decode(&bytes, Some(&String::from_utf8_lossy(&bytes)));
            decode(&bytes, None);
        }
    }
}
