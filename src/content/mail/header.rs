//! The header of a message or part: where it ends, and its fields.
//!
//! A header ends with an empty line. Many mails lost that line, and many have a line in the header that is no field.
//! Such a line ends the header unless fields follow that only headers have and that this header did not have yet.
//!
//! Everything is a slice of the message. Only values that a caller asks for are copied. Each step takes linear time.

use super::date;
use std::borrow::Cow;

/// Maximum length of a field's name in bytes. Real names have less than 60; a line without a colon in this many bytes
/// is no field.
const FIELD_NAME_BYTES_MAX: usize = 100;
/// Number of lines behind a line that is no field in which the next field must stand. Otherwise the header has ended.
const JUNK_LINES_MAX: usize = 4;
/// Maximum length of a value that is unfolded and decoded, in bytes. Several thousand recipients fit; the rest is
/// ignored.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The byte order mark that some programs write before text in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Fields that only headers have, and each header at most once.
const SINGLE: [&str; 14] = [
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "sender",
    "reply-to",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];
/// Other fields that only headers have. All names that begin with `X-`, `Content-`, `Resent-`, `List-` or `ARC-` count,
/// too.
const TELLING: [&str; 12] = [
    "received",
    "return-path",
    "delivered-to",
    "envelope-to",
    "dkim-signature",
    "authentication-results",
    "received-spf",
    "organization",
    "user-agent",
    "importance",
    "status",
    "errors-to",
];

/// A header, as it stands in a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header<'a> {
    bytes: &'a [u8],
    /// True if lines may end with CR alone.
    cr: bool,
}

/// A field of a header.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name, without blanks.
    pub name: &'a [u8],
    /// Its value as it stands in the message: folded, with the line ending.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Returns whether the field has this name. Case does not count.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// A message or part in its two halves.
#[derive(Clone, Copy, Debug)]
pub struct Halves<'a> {
    /// The header.
    pub header: Header<'a>,
    /// The bytes behind the empty line that ends the header.
    pub body: &'a [u8],
    /// Number of bytes before the body: the header, the empty line, and what was skipped before the header.
    pub body_start: usize,
}

/// Returns the length of the first line of `bytes`, its ending included. `cr` says whether CR alone ends a line.
pub fn line_len(bytes: &[u8], cr: bool) -> usize {
    if !cr {
        return memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
    }
    match memchr::memchr2(b'\n', b'\r', bytes) {
        Some(end) if bytes[end..].starts_with(b"\r\n") => end + 2,
        Some(end) => end + 1,
        None => bytes.len(),
    }
}

/// Returns the first line of `bytes`, and the rest.
fn split_line(bytes: &[u8], cr: bool) -> (&[u8], &[u8]) {
    bytes.split_at(line_len(bytes, cr))
}

/// Returns a line without its ending. The ending may have been converted several times (CR CR LF).
pub fn without_eol(line: &[u8]) -> &[u8] {
    let mut line = line.strip_suffix(b"\n").unwrap_or(line);
    while let Some(rest) = line.strip_suffix(b"\r") {
        line = rest;
    }
    line
}

fn is_blank(line: &[u8]) -> bool {
    without_eol(line).is_empty()
}

/// Returns whether the lines of a text end with CR alone. The first line must, and the next line must not show that its
/// CR was a stray byte.
pub fn ends_lines_with_cr(text: &[u8]) -> bool {
    // If LF comes first, a later CR alone is part of its line.
    let Some(end) = memchr::memchr2(b'\r', b'\n', text).filter(|&end| text[end] == b'\r') else { return false };
    let behind = &text[end + 1..];
    match behind.first() {
        None => true,
        Some(b'\n') => false,
        // CR CR LF is one line ending. CR CR without LF are two line endings.
        Some(b'\r') => behind.iter().find(|&&byte| byte != b'\r') != Some(&b'\n'),
        Some(b' ' | b'\t') => true,
        Some(_) => split_field(&behind[..line_len(behind, true)]).is_some() || !behind.contains(&b'\n'),
    }
}

/// Splits `Name: value`. None if there is no name before a colon, or if the name has blanks in it.
pub fn split_field(line: &[u8]) -> Option<Field<'_>> {
    let start = &line[..line.len().min(FIELD_NAME_BYTES_MAX)];
    let colon = memchr::memchr(b':', start)?;
    let name = start[..colon].trim_ascii_end();
    // A line that begins with dashes is the boundary of a part.
    let is_name = !name.is_empty()
        && !name.starts_with(b"--")
        && !name.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    is_name.then_some(Field { name, value: &line[colon + 1..] })
}

/// Returns the field at the start of `bytes`.
pub fn first_field(bytes: &[u8], cr: bool) -> Option<Field<'_>> {
    read_field(bytes, cr).0
}

/// Returns the field at the start of `bytes` and its length with all folds. If the first line is no field, returns the
/// length of that line.
fn read_field(bytes: &[u8], cr: bool) -> (Option<Field<'_>>, usize) {
    let mut len = line_len(bytes, cr);
    let Some(field) = split_field(&bytes[..len]) else { return (None, len) };
    let name_len = len - field.value.len();
    while matches!(bytes.get(len), Some(b' ' | b'\t')) {
        len += line_len(&bytes[len..], cr);
    }
    (Some(Field { name: field.name, value: &bytes[name_len..len] }), len)
}

fn position(names: &[&str], name: &[u8]) -> Option<usize> {
    names.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn has_prefix(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The fields that a header has had so far: one bit for each name in [`SINGLE`].
#[derive(Clone, Copy, Default)]
struct Seen(u32);

impl Seen {
    fn add(&mut self, field: Field<'_>) {
        self.0 |= position(&SINGLE, field.name).map_or(0, |at| 1 << at);
    }

    /// Returns whether `line` is a field that can follow in a header that has these fields already.
    fn goes_on_with(self, line: &[u8]) -> bool {
        let Some(field) = split_field(line) else { return false };
        match position(&SINGLE, field.name) {
            Some(at) => self.0 & (1 << at) == 0,
            None => {
                position(&TELLING, field.name).is_some()
                    || ["x-", "content-", "resent-", "list-", "arc-"]
                        .iter()
                        .any(|prefix| has_prefix(field.name, prefix))
            }
        }
    }
}

/// Splits a message into header and body. A byte order mark, empty lines and an mbox From_ line before the header are
/// skipped.
pub fn split_message(message: &[u8]) -> Halves<'_> {
    let cr = ends_lines_with_cr(message.strip_prefix(BYTE_ORDER_MARK).unwrap_or(message));
    split_inner_message(message, cr)
}

/// Splits a nested message into header and body. `cr` says whether lines of the outer message end with CR alone.
pub fn split_inner_message(message: &[u8], cr: bool) -> Halves<'_> {
    let mut start = message.strip_prefix(BYTE_ORDER_MARK).unwrap_or(message);
    let mut first = start;
    loop {
        let (line, rest) = split_line(first, cr);
        let is_from_line = line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ");
        if is_from_line && split_field(line).is_none() {
            (start, first) = (rest, rest);
        } else if !line.is_empty() && line.trim_ascii().is_empty() {
            // Empty lines before a header are skipped. Before anything else they end an empty header.
            first = rest;
        } else {
            let is_header =
                Seen::default().goes_on_with(line) || go_on(rest, cr, Seen::default()) && is_before_field(line);
            start = if is_header { first } else { start };
            break;
        }
    }
    halves(message, start, cr)
}

/// Returns whether a line that is no field may stand before the first field: the rest of a line that was cut off, or a
/// line that a program wrote there.
fn is_before_field(line: &[u8]) -> bool {
    !line.starts_with(b"--")
}

/// Splits a part of a multipart into header and body. `cr` says whether lines of the message end with CR alone.
pub fn split_part(part: &[u8], cr: bool) -> Halves<'_> {
    halves(part, part, cr)
}

/// Splits `start`, which is the end of `whole`, into header and body.
fn halves<'a>(whole: &'a [u8], start: &'a [u8], cr: bool) -> Halves<'a> {
    let mut rest = start;
    let mut seen = Seen::default();
    let end = loop {
        let (line, after) = split_line(rest, cr);
        if is_blank(line) {
            break after;
        }
        if let Some(field) = split_field(line) {
            seen.add(field);
        } else if matches!(line[0], b' ' | b'\t') && (rest.len() < start.len() || !line.trim_ascii().is_empty()) {
            // A line of blanks alone is a fold, unless the line behind it is neither a field nor a fold.
            if line.trim_ascii().is_empty() && !is_blank(&after[..line_len(after, cr)]) {
                let next = &after[..line_len(after, cr)];
                if split_field(next).is_none() && !matches!(next.first(), Some(b' ' | b'\t')) {
                    break after;
                }
            }
        } else if line.starts_with(b"--") || !go_on(after, cr, seen) {
            // The empty line is missing: the body begins here.
            let at = start.len() - rest.len();
            return Halves {
                header: Header { bytes: &start[..at], cr },
                body: rest,
                body_start: whole.len() - rest.len(),
            };
        }
        rest = after;
    };
    let header = &start[..start.len() - rest.len()];
    Halves { header: Header { bytes: header, cr }, body: end, body_start: whole.len() - end.len() }
}

/// Returns whether the header goes on behind a line that is no field.
fn go_on(mut rest: &[u8], cr: bool, seen: Seen) -> bool {
    for _ in 0..JUNK_LINES_MAX {
        let (line, after) = split_line(rest, cr);
        if line.is_empty() || is_blank(line) || line.starts_with(b"--") {
            return false;
        }
        if split_field(line).is_some() {
            return seen.goes_on_with(line);
        }
        rest = after;
    }
    false
}

impl<'a> Header<'a> {
    /// Makes a header of any bytes.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, cr: ends_lines_with_cr(bytes) }
    }

    /// Returns the bytes of the header, without the empty line.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns whether lines may end with CR alone.
    pub fn ends_lines_with_cr(&self) -> bool {
        self.cr
    }

    /// Returns the fields in their order. Lines that are no fields are skipped.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let (mut rest, cr) = (self.bytes, self.cr);
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let (field, len) = read_field(rest, cr);
                rest = &rest[len..];
                if field.is_some() {
                    return field;
                }
            }
            None
        })
    }

    /// Returns the values of all fields of this name, as they stand in the message.
    pub fn all<'b>(&self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'b> {
        self.fields().filter(move |field| field.is(name)).map(|field| field.value)
    }

    /// Returns the value of the first field of this name that has a value, as it stands in the message.
    pub fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).find(|value| !value.trim_ascii().is_empty())
    }

    /// Returns when the message was written, by its sender's clock. If that date cannot be read, returns when the last
    /// server received the message.
    pub fn date(&self) -> Option<i64> {
        self.all("Date").find_map(date::parse).or_else(|| self.received())
    }

    /// Returns when the last server received the message. Each server puts its `Received` field before the others.
    pub fn received(&self) -> Option<i64> {
        let of = |value: &[u8]| {
            // The date is the last piece of the value. Text before the semicolon may look like a date, too.
            let at = memchr::memrchr(b';', value)?;
            date::parse(&value[at + 1..])
        };
        self.all("Received").find_map(of).or_else(|| self.all("Delivery-Date").find_map(date::parse))
    }
}

/// Returns a value on one line: each fold becomes a blank. A value longer than [`VALUE_BYTES_MAX`] is cut.
pub fn unfolded(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value[..value.len().min(VALUE_BYTES_MAX)].trim_ascii();
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut line = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        line.extend_from_slice(&rest[..at]);
        rest = rest[at..].trim_ascii_start();
        line.push(b' ');
    }
    line.extend_from_slice(rest);
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(halves: &Halves<'_>) -> Vec<String> {
        halves.header.fields().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect()
    }

    #[test]
    fn a_header_ends_where_it_ends() {
        for (message, fields, body) in [
            ("A: a\n b\nB: b\n\nbody", "A B", "body"),
            ("A: a\r\nB: b\r\n\r\nbody", "A B", "body"),
            ("A: a\r\r\nB: b\r\r\n\r\r\nbody", "A B", "body"),
            ("A: a\rB: b\r\rbody\rmore", "A B", "body\rmore"),
            ("A: a\rB: b\r\r\nbody\n", "A B", "body\n"),
            ("A: a", "A", ""),
            ("", "", ""),
            ("\nno header", "", "no header"),
            ("\n\nSubject: a\n\nbody", "Subject", "body"),
            (" \nSubject: a\n\nbody", "Subject", "body"),
            (" <a@b>\nSubject: a\n\nbody", "Subject", "body"),
            ("\u{feff}Subject: a\n\nbody", "Subject", "body"),
            ("From a@b Mon Mar  2 10:00:00 2026\nSubject: a\n\nbody", "Subject", "body"),
            (">From - Mon Mar  2 10:00:00 2026\nSubject: a\n\nbody", "Subject", "body"),
            ("From -\nSubject: a\n\nbody", "Subject", "body"),
            ("Microsoft Mail Internet Headers Version 2.0\nFrom: a\n\nbody", "From", "body"),
            ("Received: a\nX-Strange header\nFrom: a\n\nbody", "Received From", "body"),
            ("Subject: a\nDear all, this is it\nmore", "Subject", "Dear all, this is it\nmore"),
            ("Subject: a\nDear all,\nNote: it is late\n\nx", "Subject", "Dear all,\nNote: it is late\n\nx"),
            ("From: a\nSubject: a\nBob wrote:\nFrom: b\n\nx", "From Subject", "Bob wrote:\nFrom: b\n\nx"),
            ("Subject: a\n--B\nContent-Type: text/plain\n\nx", "Subject", "--B\nContent-Type: text/plain\n\nx"),
            ("Subject: a\n \nX-B: b\n\nbody", "Subject X-B", "body"),
            ("Subject: a\n \nbody and more\n", "Subject", "body and more\n"),
            ("A : a\nX-\u{e9}\0: b\n\nbody", "A X-\u{e9}\0", "body"),
        ] {
            let halves = split_message(message.as_bytes());
            assert_eq!(names(&halves).join(" "), fields, "{message:?}");
            assert_eq!(String::from_utf8_lossy(halves.body), body, "{message:?}");
            assert_eq!(message.len() - halves.body.len(), halves.body_start, "{message:?}");
        }
    }

    #[test]
    fn values_are_unfolded() {
        let header = Header::of(b"Subject: a\r\n  b\r\n\tc \r\nsubject: d\r\nTo:\r\nTo: e\r\n");
        assert_eq!(&*unfolded(header.raw("Subject").unwrap()), b"a b c");
        assert_eq!(header.all("SUBJECT").count(), 2);
        assert_eq!(header.raw("To").map(unfolded).as_deref(), Some(&b"e"[..]));
    }

    #[test]
    fn a_long_header_is_read_to_its_end() {
        let long = format!("X-Long: {}\nSubject: found\n\nbody", "x y\n z".repeat(500_000));
        let halves = split_message(long.as_bytes());
        assert_eq!(halves.header.raw("Subject").map(unfolded).as_deref(), Some(&b"found"[..]));
        assert_eq!(halves.body, b"body");
    }

    #[test]
    fn the_date_is_the_senders_or_the_last_servers() {
        let received =
            "Received: from b by c; Tue, 1 Oct 2024 11:32:00 +0000\nReceived: from a; Tue, 1 Oct 2024 11:31:00 +0000\n";
        let of = |text: &str| Header::of(text.as_bytes()).date();
        assert_eq!(of(&format!("{received}Date: Tue, 1 Oct 2024 13:30:00 +0200\n")), Some(1_727_782_200));
        assert_eq!(of(&format!("{received}Date: Tue, 1 Oct 0102 13:30:00 +0200\n")), Some(1_727_782_320));
        assert_eq!(of("Date: soon\n"), None);
    }

    proptest! {
        #[test]
        fn any_message_is_split_without_loss(message in "([ \\t]?[A-Za-z-]{0,8}:? ?[a-z]{0,5}[\\r\\n]{0,3}){0,20}") {
            let halves = split_message(message.as_bytes());
            prop_assert_eq!(&message.as_bytes()[halves.body_start..], halves.body);
            halves.header.fields().count();
            halves.header.date();
        }
    }
}
