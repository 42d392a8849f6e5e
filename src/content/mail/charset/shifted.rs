//! Charsets in which ASCII bytes stand for other letters, and charsets of several bytes a unit.

use encoding_rs::{BIG5, EUC_JP, EUC_KR, Encoding, GBK, SHIFT_JIS, UTF_16BE, UTF_16LE};
use std::borrow::Cow;

/// A text, and whether every byte of it could be read.
type Read<'a> = (Cow<'a, str>, bool);

/// Decodes UTF-7 (RFC 2152). Bytes beyond ASCII are not UTF-7; they are read in a likely charset.
pub(super) fn utf7(bytes: &[u8]) -> Read<'_> {
    if !bytes.is_ascii() {
        return (super::guess(bytes), false);
    }
    let (mut text, mut good) = (String::with_capacity(bytes.len()), true);
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'+', rest) {
        text.extend(rest[..at].iter().copied().map(char::from));
        let shifted = &rest[at + 1..];
        let len = shifted.iter().take_while(|&&byte| value(byte).is_some()).count();
        let units = units(&shifted[..len]);
        match (shifted.get(len), len) {
            (Some(b'-'), 0) => text.push('+'),
            (_, 0) => text.push('+'),
            _ => {
                for unit in char::decode_utf16(units) {
                    good &= unit.is_ok();
                    text.push(unit.unwrap_or('\u{fffd}'));
                }
            }
        }
        rest = shifted[len..].strip_prefix(b"-").unwrap_or(&shifted[len..]);
    }
    text.extend(rest.iter().copied().map(char::from));
    (text.into(), good)
}

fn value(byte: u8) -> Option<u32> {
    Some(
        match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }
        .into(),
    )
}

fn units(chars: &[u8]) -> Vec<u16> {
    let (mut bits, mut count) = (0_u32, 0);
    let mut units = Vec::with_capacity(chars.len() * 3 / 8 + 1);
    for value in chars.iter().filter_map(|&byte| value(byte)) {
        bits = bits << 6 | value;
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push((bits >> count) as u16);
            bits &= (1 << count) - 1;
        }
    }
    units
}

/// Decodes UTF-16. If most letters are ASCII, their zero bytes show the byte order.
pub(super) fn utf16(bytes: &[u8], big: bool) -> Read<'_> {
    let zeros = |odd: usize| bytes.iter().skip(odd).step_by(2).filter(|&&byte| byte == 0).count();
    let (first, second) = (zeros(0), zeros(1));
    if first + second == 0 && (std::str::from_utf8(bytes).is_ok() || !bytes.len().is_multiple_of(2)) {
        // The text has no zero bytes: only its label says UTF-16.
        return (super::guess(bytes), false);
    }
    let big = if first == second { big } else { first > second };
    let encoding: &'static Encoding = if big { UTF_16BE } else { UTF_16LE };
    let (text, failed) = encoding.decode_without_bom_handling(bytes);
    (text, !failed)
}

/// Decodes UTF-32.
pub(super) fn utf32(bytes: &[u8], big: bool) -> Read<'_> {
    if !bytes.contains(&0) {
        return (super::guess(bytes), false);
    }
    let zeros = |at: usize| bytes.iter().skip(at).step_by(4).filter(|&&byte| byte == 0).count();
    let (first, last) = (zeros(0), zeros(3));
    let big = if first == last { big } else { first > last };
    let (mut text, mut good) = (String::with_capacity(bytes.len() / 2), true);
    for unit in bytes.chunks(4) {
        let number = unit.try_into().map(|unit| if big { u32::from_be_bytes(unit) } else { u32::from_le_bytes(unit) });
        let letter = number.ok().and_then(char::from_u32);
        good &= letter.is_some();
        match letter {
            Some('\u{feff}') if text.is_empty() => {}
            letter => text.push(letter.unwrap_or('\u{fffd}')),
        }
    }
    (text.into(), good)
}

/// Decodes HZ (RFC 1843): Chinese between `~{` and `~}`.
pub(super) fn hz(bytes: &[u8]) -> Read<'_> {
    let mut runs = Runs::default();
    let (mut rest, mut chinese) = (bytes, false);
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after.first()) {
            (b'~', Some(b'{')) => (chinese, rest) = (true, &after[1..]),
            (b'~', Some(b'}')) => (chinese, rest) = (false, &after[1..]),
            (b'~', Some(b'~')) if !chinese => {
                runs.push(None, b"~", 0);
                rest = &after[1..];
            }
            (b'~', Some(b'\n')) => rest = &after[1..],
            // A Chinese stretch ends with its line.
            (b'\n', _) => {
                chinese = false;
                runs.push(None, &[byte], 0);
                rest = after;
            }
            (0x21..=0x7e, Some(&second @ 0x21..=0x7e)) if chinese => {
                runs.push(Some(GBK), &[byte, second], 0x80);
                rest = &after[1..];
            }
            _ => {
                runs.push(None, &[byte], 0);
                rest = after;
            }
        }
    }
    runs.finish()
}

/// A set of letters that ISO-2022 can switch to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Ascii,
    /// JIS X 0201: ASCII with a yen sign in place of the backslash.
    Roman,
    /// Half-width katakana.
    Kana,
    Japanese,
    /// JIS X 0212.
    MoreJapanese,
    Chinese,
    Taiwanese,
    Korean,
    /// A set that no decoder knows.
    Unknown,
}

impl Set {
    fn of_escape(escape: &[u8]) -> Option<(Self, bool, usize)> {
        // The set, whether it waits for a shift, and the length of the escape without its first byte.
        Some(match escape {
            [b'(', b'B' | b'@' | b'A', ..] => (Set::Ascii, false, 2),
            // WHATWG Encoding, 12.2.1. `H` is the Swedish set; some programs wrote it for this one.
            [b'(', b'J' | b'H', ..] => (Set::Roman, false, 2),
            [b'(', b'I', ..] => (Set::Kana, false, 2),
            [b'$', b'@' | b'B', ..] => (Set::Japanese, false, 2),
            [b'$', b'A', ..] => (Set::Chinese, false, 2),
            [b'$', b'(', b'@' | b'B' | b'O' | b'Q', ..] => (Set::Japanese, false, 3),
            [b'$', b'(', b'D', ..] => (Set::MoreJapanese, false, 3),
            [b'$', b'(', b'C', ..] => (Set::Korean, false, 3),
            [b'$', b'(', b'A', ..] => (Set::Chinese, false, 3),
            [b'$', b'(', _, ..] => (Set::Unknown, false, 3),
            [b'$', b')', b'C', ..] => (Set::Korean, true, 3),
            [b'$', b')', b'A', ..] => (Set::Chinese, true, 3),
            [b'$', b')', b'G', ..] => (Set::Taiwanese, true, 3),
            [b'$', b')' | b'*' | b'+', _, ..] => (Set::Unknown, true, 3),
            [b'&', b'@', ..] => (Set::Unknown, true, 2),
            _ => return None,
        })
    }
}

/// Decodes ISO-2022-JP, -KR and -CN with their variants: each switches between sets of letters by escapes.
///
/// `korean` says which set a shift means if no escape named one: the Korean one, or half-width katakana.
pub(super) fn iso2022(bytes: &[u8], korean: bool) -> Read<'_> {
    if !bytes.is_ascii() && !bytes.contains(&0x1b) {
        return (super::guess(bytes), false);
    }
    let mut runs = Runs::default();
    let (mut now, mut is_shifted) = (Set::Ascii, false);
    let mut shifted = if korean { Set::Korean } else { Set::Kana };
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            0x1b => {
                if let Some((set, waits, len)) = Set::of_escape(after) {
                    match waits {
                        true if set != Set::Unknown || after.first() == Some(&b'$') => shifted = set,
                        true => {}
                        false => now = set,
                    }
                    rest = &after[len..];
                } else {
                    runs.push(None, &[byte], 0);
                }
                continue;
            }
            0x0e => is_shifted = true,
            0x0f => is_shifted = false,
            // Shifts end with their line. So do escapes, if the text did not switch back.
            b'\n' | b'\r' => {
                (is_shifted, now) = (false, Set::Ascii);
                runs.push(None, &[byte], 0);
            }
            0x21..=0x7e => {
                let set = if is_shifted { shifted } else { now };
                let pair = after.first().copied().filter(|second| (0x21..=0x7e).contains(second));
                match (set, pair) {
                    (Set::Roman, _) if byte == b'\\' => runs.push(None, &[0xa5], 0),
                    (Set::Ascii | Set::Roman, _) => runs.push(None, &[byte], 0),
                    (Set::Kana, _) if byte <= 0x5f => runs.push(Some(EUC_JP), &[0x8e, byte | 0x80], 0),
                    (Set::Kana, _) => runs.push(None, &[byte], 0),
                    (_, None) => runs.push(None, &[byte], 0),
                    (set, Some(second)) => {
                        rest = &after[1..];
                        runs.push_pair(set, byte, second);
                    }
                }
            }
            // Bytes beyond ASCII are Shift_JIS, which programs mix into such texts: a letter has two bytes, or one from
            // 0xa1 to 0xdf.
            0x80.. => match after.first() {
                Some(&second) if second >= 0x40 && !(0xa1..=0xdf).contains(&byte) => {
                    runs.push(Some(SHIFT_JIS), &[byte, second], 0);
                    rest = &after[1..];
                }
                _ => runs.push(Some(SHIFT_JIS), &[byte], 0),
            },
            _ => runs.push(None, &[byte], 0),
        }
    }
    runs.finish()
}

/// Returns the Big5 code of a hanzi of the first plane of CNS 11643. Both have the same order, but rows of different
/// lengths.
fn cns_to_big5(row: u8, cell: u8) -> Option<[u8; 2]> {
    let (row, cell) = (u32::from(row - 0x21), u32::from(cell - 0x21));
    // The hanzi begin in row 36 (0x44) and at 0xa440. The symbols before them have another order.
    let index = row.checked_sub(35)? * 94 + cell;
    let (high, low) = (0xa4 + index / 157, index % 157);
    let low = if low < 63 { 0x40 + low } else { 0xa1 + low - 63 };
    Some([u8::try_from(high).ok()?, low as u8])
}

/// Collects bytes of one charset after another, and decodes them.
#[derive(Default)]
struct Runs {
    text: String,
    run: Vec<u8>,
    encoding: Option<&'static Encoding>,
    failed: bool,
}

impl Runs {
    /// Adds bytes, each with the bits of `high` set. `None` as encoding means ASCII.
    fn push(&mut self, encoding: Option<&'static Encoding>, bytes: &[u8], high: u8) {
        if encoding != self.encoding {
            self.flush();
            self.encoding = encoding;
        }
        self.run.extend(bytes.iter().map(|byte| byte | high));
    }

    /// Adds the letter that two bytes from 0x21 to 0x7e mean in a set of letters of two bytes.
    fn push_pair(&mut self, set: Set, first: u8, second: u8) {
        match set {
            Set::Japanese => self.push(Some(EUC_JP), &[first, second], 0x80),
            Set::MoreJapanese => self.push(Some(EUC_JP), &[0x8f, first, second], 0x80),
            Set::Chinese => self.push(Some(GBK), &[first, second], 0x80),
            Set::Korean => self.push(Some(EUC_KR), &[first, second], 0x80),
            Set::Taiwanese => match cns_to_big5(first, second) {
                Some(bytes) => self.push(Some(BIG5), &bytes, 0),
                None => self.lose(),
            },
            _ => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.flush();
        self.text.push('\u{fffd}');
        self.failed = true;
    }

    fn flush(&mut self) {
        match self.encoding {
            None => self.text.extend(self.run.iter().copied().map(char::from)),
            Some(encoding) => {
                let (text, failed) = encoding.decode_without_bom_handling(&self.run);
                self.text.push_str(&text);
                self.failed |= failed;
            }
        }
        self.run.clear();
    }

    fn finish<'a>(mut self) -> Read<'a> {
        self.flush();
        (self.text.into(), !self.failed)
    }
}
