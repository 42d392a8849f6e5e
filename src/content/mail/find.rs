//! Finds the fields of one name in a whole message, without reading its headers one by one.
//!
//! One quick search tells that a message has no such field. The search also finds fields in headers that are part of no
//! structure: in a mail that a report quotes in clear, or behind a damaged part.

use super::header::{self, Field};

/// Number of values that a pair of bytes has in the search.
const PAIRS: usize = 1 << 10;

/// Searches for one field name. The name is in lower case; the search ignores case.
pub struct FieldFinder<const N: usize> {
    name: &'static [u8; N],
    /// For each [`pair`], how far the end of the comparison may move on when that pair stands there (Horspool's search,
    /// by pairs: single letters of a long name are so frequent that most moves would be short). 0 for the last pair of
    /// the name.
    shifts: [u8; PAIRS],
}

/// Returns a number for two bytes: the same for letters in both cases, and for some other bytes.
const fn pair(first: u8, second: u8) -> usize {
    (first as usize & 0x1f) << 5 | second as usize & 0x1f
}

impl<const N: usize> FieldFinder<N> {
    /// Makes a finder of a name in lower case. The last two letters of the name must occur only once in it: then the
    /// search takes at most one step for each byte of the text.
    pub const fn new(name: &'static [u8; N]) -> Self {
        assert!(2 < N && N < 256);
        let mut shifts = [N as u8 - 1; PAIRS];
        let last = pair(name[N - 2], name[N - 1]);
        let mut at = 1;
        while at < N {
            let pair = pair(name[at - 1], name[at]);
            assert!(at == N - 1 || pair != last);
            shifts[pair] = (N - 1 - at) as u8;
            at += 1;
        }
        Self { name, shifts }
    }

    /// Returns the first field of this name at or after `from` that stands at the start of a line, and its position.
    pub fn find<'a>(&self, message: &'a [u8], from: usize) -> Option<(usize, Field<'a>)> {
        let mut from = from;
        loop {
            let at = self.find_name(message, from)?;
            from = at + N;
            let before = &message[..at];
            let is_line_start =
                matches!(before.last(), None | Some(b'\n' | b'\r')) || before == header::BYTE_ORDER_MARK;
            // CR may end a value: this is right for headers with any line endings.
            if is_line_start
                && let Some(field) = header::first_field(&message[at..], true)
                && field.name.len() == N
            {
                return Some((at, field));
            }
        }
    }

    fn find_name(&self, message: &[u8], from: usize) -> Option<usize> {
        let mut last = from + N - 1;
        while last < message.len() {
            let shift = usize::from(self.shifts[pair(message[last - 1], message[last])]);
            if shift > 0 {
                last += shift;
                continue;
            }
            if message[last + 1 - N..=last].eq_ignore_ascii_case(self.name) {
                return Some(last + 1 - N);
            }
            last += N - 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINDER: FieldFinder<7> = FieldFinder::new(b"subject");

    #[test]
    fn fields_are_found_at_the_starts_of_lines() {
        let message =
            b"SUBject : a\r\n b\r\nX-Subject: c\n\n> Subject: d\nSubjects: e\nSubject\ntext\rsubjecT:f\rsubject";
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((at, field)) = FINDER.find(message, from) {
            found.push((at, String::from_utf8_lossy(field.value).trim().to_owned()));
            from = at + 1;
        }
        let last = message.windows(7).position(|window| window == b"subjecT").expect("it stands there");
        assert_eq!(found, [(0, "a\r\n b".to_owned()), (last, "f".to_owned())]);
        assert!(FINDER.find("\u{feff}Subject: x".as_bytes(), 0).is_some());
        assert!(FINDER.find(b"Subject: x", 1).is_none());
        assert!(FINDER.find(b"", 0).is_none());
    }
}
