//! Extracts the streams from the answer to an export while it arrives, so a long stream is never in memory as text.
//!
//! The values of `data` are decoded on the way, and replaced by their numbers. The rest of the answer is small, and is
//! read as JSON at the end.

use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;

/// Maximum size of an answer without its streams, in bytes. It describes at most twenty items.
const REST_BYTES_MAX: usize = 256 << 10;
/// Length of the longest escape in a JSON string: a UTF-16 code unit, `\uXXXX`.
const ESCAPE_LEN: usize = 6;
const DATA: &[u8] = b"data";

/// Where the next byte of the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Outside strings.
    Outside,
    /// In a string that began at `start` of the rest. `escaped` says whether the next byte is escaped.
    InString { start: usize, escaped: bool },
    /// In the value of `data`.
    InData,
}

/// Splits the text of an answer into streams and the rest.
pub(super) struct Extractor {
    at: At,
    rest: Vec<u8>,
    /// Whether the last string was `data`, and whether a colon followed.
    named: bool,
    expected: bool,
    /// Number of streams that have begun.
    count: usize,
    /// Letters of base64 that do not form a whole group yet.
    group: Vec<u8>,
    /// The start of an escape that continues in the next piece.
    escape: Vec<u8>,
}

impl Default for Extractor {
    fn default() -> Self {
        Self {
            at: At::Outside,
            rest: Vec::new(),
            named: false,
            expected: false,
            count: 0,
            group: Vec::new(),
            escape: Vec::new(),
        }
    }
}

fn malformed(why: &str) -> GraphError {
    // The answer was cut off or damaged on its way. It may arrive complete the next time.
    GraphError::new(ErrorKind::Malformed, "exporting messages").explained(why.to_owned())
}

impl Extractor {
    /// Takes the next bytes of the text. Adds the decoded bytes to the last of `streams`, or to new ones, and returns
    /// how many these were.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    pub fn push(&mut self, mut text: &[u8], streams: &mut Vec<Vec<u8>>) -> Result<usize, GraphError> {
        let before: usize = streams.iter().map(Vec::len).sum();
        while !text.is_empty() {
            text = match self.at {
                At::InData => self.data(text, streams)?,
                _ => self.text(text, streams)?,
            };
        }
        Ok(streams.iter().map(Vec::len).sum::<usize>() - before)
    }

    /// Takes the text up to the next stream. Returns what follows.
    fn text<'a>(&mut self, text: &'a [u8], streams: &mut Vec<Vec<u8>>) -> Result<&'a [u8], GraphError> {
        for (place, &byte) in text.iter().enumerate() {
            self.rest.push(byte);
            match (&mut self.at, byte) {
                (At::InString { escaped, .. }, _) if *escaped => *escaped = false,
                (At::InString { escaped, .. }, b'\\') => *escaped = true,
                (At::InString { start, .. }, b'"') => {
                    self.named = self.rest[*start..self.rest.len() - 1].eq_ignore_ascii_case(DATA);
                    self.at = At::Outside;
                }
                (At::InString { .. }, _) => {}
                (_, b'"') if self.expected => {
                    (self.at, self.expected) = (At::InData, false);
                    self.rest.extend_from_slice(self.count.to_string().as_bytes());
                    self.count += 1;
                    streams.push(Vec::new());
                    return Ok(&text[place + 1..]);
                }
                (_, b'"') => self.at = At::InString { start: self.rest.len(), escaped: false },
                (_, b':') => self.expected = std::mem::take(&mut self.named),
                (_, b' ' | b'\t' | b'\r' | b'\n') => {}
                _ => (self.named, self.expected) = (false, false),
            }
        }
        match self.rest.len() > REST_BYTES_MAX {
            true => Err(malformed("it is longer than the requested items can be")),
            false => Ok(&[]),
        }
    }

    /// Takes the letters of a stream, up to its end. Returns what follows.
    fn data<'a>(&mut self, text: &'a [u8], streams: &mut Vec<Vec<u8>>) -> Result<&'a [u8], GraphError> {
        if streams.is_empty() {
            // The caller may have taken away the bytes that came before.
            streams.push(Vec::new());
        }
        let stream = streams.last_mut().expect("pushed above");
        if !self.escape.is_empty() {
            return self.escaped(text, stream);
        }
        let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        self.letters(&text[..end.unwrap_or(text.len())], stream)?;
        let Some(end) = end else { return Ok(&[]) };
        match text[end] {
            b'"' => {
                if !self.group.is_empty() {
                    return Err(malformed("a stream is incomplete base64"));
                }
                self.rest.push(b'"');
                self.at = At::Outside;
            }
            _ => self.escape.push(b'\\'),
        }
        Ok(&text[end + 1..])
    }

    /// Takes an escape inside a stream: some writers escape `+` and `/`, which occur in base64.
    fn escaped<'a>(&mut self, text: &'a [u8], stream: &mut Vec<u8>) -> Result<&'a [u8], GraphError> {
        let (byte, text) = text.split_first().expect("the caller has looked");
        self.escape.push(*byte);
        let letter = match self.escape.as_slice() {
            [_, b'u', hex @ ..] if hex.len() == ESCAPE_LEN - 2 => {
                let hex = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                hex.ok_or_else(|| malformed("a stream is not base64"))?
            }
            [_, b'u', ..] => return Ok(text),
            [_, letter] => *letter,
            _ => return Err(malformed("a stream is not base64")),
        };
        self.escape.clear();
        self.letters(&[letter], stream)?;
        Ok(text)
    }

    fn letters(&mut self, mut letters: &[u8], stream: &mut Vec<u8>) -> Result<(), GraphError> {
        let not_base64 = |_| malformed("a stream is not base64");
        if !self.group.is_empty() {
            let missing = letters.len().min(4 - self.group.len());
            self.group.extend_from_slice(&letters[..missing]);
            letters = &letters[missing..];
            if self.group.len() < 4 {
                return Ok(());
            }
            STANDARD.decode_vec(&self.group, stream).map_err(not_base64)?;
            self.group.clear();
        }
        let (groups, rest) = letters.split_at(letters.len() / 4 * 4);
        STANDARD.decode_vec(groups, stream).map_err(not_base64)?;
        self.group.extend_from_slice(rest);
        Ok(())
    }

    /// Reads the rest of the answer as JSON. Call it after the last piece.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    pub fn finish<T: DeserializeOwned>(self) -> Result<T, GraphError> {
        json::read(&self.rest).map_err(|_| malformed("it is not the JSON that was expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn extract(text: &[u8], cut: usize) -> Result<(Value, Vec<Vec<u8>>), GraphError> {
        let (mut extractor, mut streams) = (Extractor::default(), Vec::new());
        for piece in text.chunks(cut.max(1)) {
            extractor.push(piece, &mut streams)?;
        }
        Ok((extractor.finish()?, streams))
    }

    proptest! {
        #[test]
        fn streams_come_out_however_the_text_was_cut(streams: Vec<Vec<u8>>, cut in 1usize..40, pretty: bool) {
            let rows: Vec<_> = streams.iter().map(|stream| {
                json!({"itemId": "a\\\"data\":", "data": STANDARD.encode(stream), "error": null, "x": {"data": null}})
            }).collect();
            let value = json!({ "@odata.context": "x", "value": rows });
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => value.to_string(),
            };
            // Escaped as the JSON encoder of .NET does.
            let text = text.replace('+', "\\u002B").replace('/', "\\/");
            let (rest, found) = extract(text.as_bytes(), cut).unwrap();
            prop_assert_eq!(found, streams);
            for (number, row) in rest["value"].as_array().unwrap().iter().enumerate() {
                prop_assert_eq!(&row["data"], &number.to_string());
                prop_assert_eq!(&row["itemId"], "a\\\"data\":");
            }
        }

        #[test]
        fn an_answer_that_is_cut_or_damaged_is_an_error(
            stream in prop::collection::vec(any::<u8>(), 1..50),
            at: prop::sample::Index,
        ) {
            let text = json!({"value": [{"itemId": "a", "data": STANDARD.encode(stream)}]}).to_string();
            let cut = at.index(text.len());
            prop_assert!(extract(&text.as_bytes()[..cut], 7).is_err());
            let mut strange = text.into_bytes();
            strange[cut] = b'!';
            let _ = extract(&strange, 7);
        }
    }
}
