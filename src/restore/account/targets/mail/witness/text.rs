//! Compares a text with bytes, by other code than [`crate::content::mail::charset`].

use super::encodings::Decoded;
use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};

/// Length of the end of a text that has to be equal, in bytes.
const END_LEN: usize = 12;

/// Returns true if a text has letters that are compared.
pub(super) fn has_letters(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

/// Returns true if `text` is what `decoded` says in the charset called `label`, followed by the footer.
pub(super) fn is_text_of(text: &str, decoded: &Decoded<'_>, label: Option<&str>) -> bool {
    let bytes = decoded.bytes();
    if decoded.footer.is_empty() {
        return is_text(text, &bytes, label);
    }
    // The footer is in a charset of its own, and stands behind a line break, which may be a tag.
    let Ok(footer) = std::str::from_utf8(decoded.footer) else {
        let all = [&bytes, &b"\n"[..], decoded.footer].concat();
        return is_alike(text, &all, None);
    };
    let said = letters(text).collect::<String>();
    let footer = letters(footer).collect::<String>();
    let before = said.strip_suffix(&*footer);
    before.is_some_and(|before| {
        let without_break = before.strip_suffix("br").unwrap_or(before);
        is_text(before, &bytes, label) || is_text(without_break, &bytes, label)
    })
}

fn letters(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|char| char.is_alphanumeric())
}

fn is_text(text: &str, bytes: &[u8], label: Option<&str>) -> bool {
    let same = |other: &str| letters(text).eq(letters(other));
    let marked = match bytes {
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        _ => None,
    };
    if let Some(encoding) = marked {
        return same(&encoding.decode_with_bom_removal(bytes).0) || is_alike(text, bytes, None);
    }
    let named = label.and_then(|label| Encoding::for_label(label.as_bytes())).filter(|named| *named != REPLACEMENT);
    // Charsets that shift are ASCII, too: there the letters are others.
    let is_shifted = bytes.contains(&0x1b) || label.is_some_and(is_shifting);
    if let Ok(plain) = std::str::from_utf8(bytes)
        && !is_shifted
    {
        let is_single_byte = named.is_some_and(|named| named != UTF_8);
        return same(plain)
            || is_single_byte && named.is_some_and(|named| same(&read(named, bytes).0))
            // One that browsers do not know: it may be another charset of one byte a letter.
            || !plain.is_ascii() && label.is_some() && named.is_none() && is_alike(text, bytes, None);
    }
    let (decoded, is_clear) = named.map(|named| read(named, bytes)).unwrap_or_default();
    if is_clear && same(&decoded) {
        return true;
    }
    if is_shifted && named.is_none() {
        // Only that there is something can be told.
        return text.trim().is_empty() == bytes.trim_ascii().is_empty();
    }
    is_alike(text, bytes, Some(decoded.as_str()).filter(|decoded| !decoded.is_empty()))
}

/// Returns whether a charset of this name may write letters by others that are ASCII.
fn is_shifting(label: &str) -> bool {
    let label = label.to_ascii_lowercase();
    ["utf-7", "utf7", "hz", "2022", "utf-16", "utf-32", "utf16", "utf32", "ucs", "unicode"]
        .iter()
        .any(|name| label.contains(name))
}

fn read(encoding: &'static Encoding, bytes: &[u8]) -> (String, bool) {
    let (text, has_errors) = encoding.decode_without_bom_handling(bytes);
    (text.into_owned(), !has_errors)
}

/// Returns whether `text` can be what bytes say of which nobody knows the charset. `decoded` is what the one that is
/// named makes of them.
fn is_alike(text: &str, bytes: &[u8], decoded: Option<&str>) -> bool {
    let lost = |text: &str| text.matches('\u{fffd}').count();
    let invalid = String::from_utf8_lossy(bytes);
    // A letter that was lost, though it can be read.
    if lost(text) > decoded.map_or(usize::MAX, lost).min(lost(&invalid)).max(lost_at_end(bytes)) {
        return false;
    }
    let is_ascii_letter = |char: &char| char.is_ascii_alphanumeric();
    let ours = || text.chars().filter(is_ascii_letter);
    let theirs = || bytes.iter().map(|byte| char::from(*byte)).filter(is_ascii_letter);
    // The second byte of a letter may look like ASCII: ours are theirs with some left out.
    let mut rest = theirs();
    if bytes.contains(&0x1b) || bytes.contains(&0) || text.is_empty() {
        return text.is_empty() == bytes.trim_ascii().is_empty();
    }
    let is_kept = ours().all(|ours| rest.any(|theirs| theirs == ours));
    let (all, some) = (theirs().count(), ours().count());
    let foreign = bytes.iter().filter(|byte| !byte.is_ascii()).count();
    let letters = text.chars().filter(|char| !char.is_ascii()).count();
    // None of the letters beyond ASCII has more than four bytes; each second byte may have been one of the others.
    let is_enough = all - some.min(all) <= foreign && letters >= foreign.div_ceil(4);
    let ending = bytes.trim_ascii_end();
    let plain = ending.iter().rev().take(END_LEN).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    // The first of them may be half of a letter.
    let end = &ending[ending.len() - plain.saturating_sub(1)..];
    let begin = bytes.trim_ascii_start();
    let plain = begin.iter().take(END_LEN).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let is_whole =
        text.trim_end().as_bytes().ends_with(end) && text.trim_start().as_bytes().starts_with(&begin[..plain]);
    is_kept && is_enough && is_whole
}

/// A letter that is torn at the end is lost.
fn lost_at_end(bytes: &[u8]) -> usize {
    usize::from(bytes.last().is_some_and(|byte| !byte.is_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_from_what_was_lost_of_them() {
        for (text, bytes, label) in [
            ("Grüße, Bob", "Grüße,\r\n Bob".as_bytes(), Some("utf-8")),
            ("Grüße", "Grüße".as_bytes(), Some("iso-8859-1")),
            ("Grüße aus Köln", b"Gr\xfc\xdfe aus K\xf6ln", None),
            ("Grüße aus Köln", b"Gr\xfc\xdfe aus K\xf6ln", Some("utf-8")),
            ("Grüße aus Köln", b"Gr\x81\xe1e aus K\x94ln", Some("cp437")),
            ("日本語", b"\x93\xfa\x96{\x8c\xea", Some("cp932")),
            ("日本語", b"\x93\xfa\x96{\x8c\xea", Some("shift_jis")),
            ("日本語", b"\x1b$BF|K\\8l\x1b(B", Some("iso-2022-jp")),
            ("Grü", b"\xff\xfeG\0r\0\xfc\0", None),
            ("", b"", None),
        ] {
            assert!(is_text(text, bytes, label), "{text}");
        }
        for (text, bytes, label) in [
            ("Gr\u{fffd}\u{fffd}e aus K\u{fffd}ln", &b"Gr\xfc\xdfe aus K\xf6ln"[..], Some("iso-8859-1")),
            ("Gr??e aus K?ln", b"Gr\xfc\xdfe aus K\xf6ln", Some("iso-8859-1")),
            ("Gre aus Kln", b"Gr\xfc\xdfe aus K\xf6ln", None),
            ("Grüße aus", b"Gr\xfc\xdfe aus K\xf6ln", None),
            ("aus Köln", b"Gr\xfc\xdfe aus K\xf6ln", None),
            ("make ", b"make --BB first", None),
            ("GrÃ¼ÃŸe", "Grüße".as_bytes(), Some("utf-8")),
            ("\u{fffd}\u{fffd}{\u{fffd}", b"\x93\xfa\x96{\x8c\xea", Some("shift_jis")),
            ("a", b"", None),
            ("", b"a", None),
        ] {
            assert!(!is_text(text, bytes, label), "{text}");
        }
    }
}
