//! Finds the fields of one name in a whole message, without reading its headers one by one.
//!
//! One quick search tells that a message has no such field. The search also finds fields in headers that are part of no
//! structure: in a mail that a report quotes in clear, or behind a damaged part.

use super::header::{self, Field};

/// Searches for the fields of one name, which is in lower case. The search ignores case.
pub struct FieldFinder(&'static [u8]);

impl FieldFinder {
    /// Makes a finder of a name in lower case.
    pub const fn new(name: &'static [u8]) -> Self {
        assert!(!name.is_empty());
        Self(name)
    }

    /// Returns the first field of this name at or after `from` that stands at the start of a line, and its position.
    pub fn find<'a>(&self, message: &'a [u8], from: usize) -> Option<(usize, Field<'a>)> {
        let first = match message.get(..from)? {
            b"" if message.starts_with(header::BYTE_ORDER_MARK) => Some(header::BYTE_ORDER_MARK.len()),
            header::BYTE_ORDER_MARK | b"" | [.., b'\n' | b'\r'] => Some(from),
            _ => None,
        };
        let others = memchr::memchr2_iter(b'\n', b'\r', &message[from..]).map(|end| from + end + 1);
        first.into_iter().chain(others).find_map(|at| self.field_at(message, at))
    }

    /// Returns the field of this name that begins at `at`.
    fn field_at<'a>(&self, message: &'a [u8], at: usize) -> Option<(usize, Field<'a>)> {
        let Self(name) = self;
        let rest = &message[at..];
        // The first letter alone tells nearly always.
        if rest.first()?.to_ascii_lowercase() != name[0] || !rest.get(..name.len())?.eq_ignore_ascii_case(name) {
            return None;
        }
        // CR may end a value: this is right for headers with any line endings.
        let field = header::first_field(rest, true)?;
        (field.name.len() == name.len()).then_some((at, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINDER: FieldFinder = FieldFinder::new(b"subject");

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
