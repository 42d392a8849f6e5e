//! Reads JSON with certain errors.
//!
//! Stored mail may hold control characters, which the service sometimes passes on unescaped inside strings. It may also
//! hold halves of surrogate pairs, where a text was cut in the middle of a character. Neither is valid JSON (RFC 8259),
//! but neither is a reason to lose a page of messages.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt::{self, Write};

/// Maximum number of values in an answer. A text of 64 MiB that consists of empty lists would take gigabytes once it is
/// parsed. A message with 1,500 recipients has ten thousand values.
const VALUES_MAX: usize = 200_000;

/// The text of the error for a list with too many elements.
const TOO_MANY: &str = "a list has too many elements";

/// The unparsed elements of a list, at most `MAX` of them.
pub(super) struct Texts<'a, const MAX: usize>(pub(super) Vec<&'a RawValue>);

/// Returns true if a list had more elements than its [`Texts`] may have.
pub(super) fn is_too_long(error: &serde_json::Error) -> bool {
    error.is_data() && error.to_string().starts_with(TOO_MANY)
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Texts<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Collect<MAX> {
            type Value = Texts<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element::<&'de RawValue>()? {
                    if texts.len() == MAX {
                        // The rest may be millions of elements, so it is not even looked at.
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

/// Parses `body` as JSON. If it is not valid, repairs it first: escapes control characters, and replaces halves of
/// surrogate pairs and bytes that are not UTF-8 by U+FFFD.
///
/// # Errors
/// If the body is not JSON even after the repair, has another type, or has more than [`VALUES_MAX`] values.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    // Every value except the first follows one of these characters.
    if body.len() > VALUES_MAX && count_outside_strings(body, b",[{") > VALUES_MAX {
        return Err(serde_json::Error::custom(format!("more than {VALUES_MAX} values")));
    }
    serde_json::from_slice(body).or_else(|error| match mend(body) {
        Some(mended) => serde_json::from_str(&mended),
        None => Err(error),
    })
}

/// Returns how many bytes outside strings are among `these`.
fn count_outside_strings(body: &[u8], these: &[u8]) -> usize {
    let (mut count, mut in_string, mut is_escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            byte => count += usize::from(!in_string && these.contains(byte)),
        }
    }
    count
}

/// Returns `body` with its strings repaired, or `None` if that changes nothing.
pub(super) fn mend(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let mut mended = String::with_capacity(text.len() + 64);
    let mut rest = &*text;
    let mut in_string = false;
    while let Some(letter) = rest.chars().next() {
        let mut len = letter.len_utf8();
        match letter {
            '"' => {
                in_string = !in_string;
                mended.push('"');
            }
            '\\' if in_string => {
                len = escape_len(rest);
                let escape = &rest[..len];
                mended.push_str(if is_half(escape) { "\\ufffd" } else { escape });
            }
            letter if in_string && letter < ' ' => {
                write!(mended, "\\u{:04x}", u32::from(letter)).expect("writing to a string cannot fail");
            }
            letter => mended.push(letter),
        }
        rest = &rest[len..];
    }
    (mended.as_bytes() != body).then_some(mended)
}

/// Returns the code unit that `text` begins with, in the form `\uXXXX`.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// Returns the length of the escape that `text` begins with. A pair of surrogates counts as one escape.
fn escape_len(text: &str) -> usize {
    match unit(text) {
        Some(0xd800..0xdc00) if matches!(unit(&text[6..]), Some(0xdc00..0xe000)) => 12,
        Some(_) => 6,
        // The backslash, and the character after it, of any length.
        None => text.chars().take(2).map(char::len_utf8).sum(),
    }
}

fn is_half(escape: &str) -> bool {
    escape.len() == 6 && matches!(unit(escape), Some(0xd800..0xe000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn strings_are_mended() {
        let read = |text: &[u8]| read::<Value>(text).ok();
        assert_eq!(read(b"{\"a\":\"x\x01\ny\"}"), Some(json!({ "a": "x\u{1}\ny" })));
        assert_eq!(read(br#"["\ud83d"]"#), Some(json!(["\u{fffd}"])));
        assert_eq!(
            read(br#"["\ude00x","\ud83d\ude00","\\ud83d","\ud83d\n"]"#),
            Some(json!(["\u{fffd}x", "😀", "\\ud83d", "\u{fffd}\n"]))
        );
        assert_eq!(read(b"[\"\xff\"]"), Some(json!(["\u{fffd}"])));
        // Control characters outside strings are left alone.
        assert_eq!(read(b"{\"a\":1\x01}"), None);
        for broken in [&b""[..], b"{\"a\":\"x\n", b"{\"a\":\"\\", b"[\"\\ud83d", b"[\"\\u12", b"<html>"] {
            assert_eq!(read(broken), None);
        }
    }

    #[test]
    fn millions_of_small_values_are_refused() {
        let list = |value: &str, count: usize| format!("[{}]", vec![value; count].join(","));
        for value in ["[]", "{}", "1", "{\"a\":[1,2]}"] {
            assert!(read::<Value>(list(value, 1000).as_bytes()).is_ok());
            assert!(read::<Value>(list(value, VALUES_MAX + 1).as_bytes()).unwrap_err().is_data());
        }
        // A string is one value, whatever it contains.
        let text = json!({ "body": "[{\"a\":1,\\\"},".repeat(VALUES_MAX) });
        assert_eq!(read::<Value>(text.to_string().as_bytes()).unwrap(), text);
    }

    proptest! {
        #[test]
        fn valid_json_is_unchanged(text in "\\PC*", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = json!({ "text": text });
            prop_assert_eq!(mend(value.to_string().as_bytes()), None);
            prop_assert_eq!(read::<Value>(value.to_string().as_bytes()).unwrap(), value);
            let _ = mend(&bytes);
        }
    }
}
