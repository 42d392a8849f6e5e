//! Decides whether the header of a mail stands behind a separator.

use super::lines::line_end;
use super::separator;

/// Maximum number of bytes of a header that are read. The fields that identify a mail stand in front of that.
pub(super) const HEADER_BYTES_MAX: usize = 64 << 10;
/// Maximum number of lines among the first ones of a header that are no fields.
const STRAY_LINES_MAX: usize = 2;
/// Maximum length of a field's name, in bytes. A line without a colon in this many bytes is no field.
const NAME_BYTES_MAX: usize = 100;

/// Fields that say who wrote a mail, when, and what about. No mail has them twice.
const OWN: [&str; 4] = ["from", "subject", "date", "message-id"];

/// Other fields that mails have.
const KNOWN: [&str; 24] = [
    "to",
    "cc",
    "bcc",
    "sender",
    "reply-to",
    "received",
    "return-path",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-length",
    "delivered-to",
    "envelope-to",
    "x-mozilla-status",
    "x-mozilla-status2",
    "x-mozilla-keys",
    "status",
    "x-status",
    "x-uid",
    "in-reply-to",
    "references",
    "organization",
    "apparently-to",
    "newsgroups",
];

/// Prefixes of names that only mails use.
const KNOWN_BEGINNINGS: [&str; 6] = ["x-", "resent-", "list-", "arc-", "dkim-", "authentication-"];

/// What is known of a header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    /// The fields of [`OWN`], [`KNOWN`] and [`KNOWN_BEGINNINGS`] that the header has, as bits in this order.
    fields: u64,
    /// The position of the first field of [`OWN`].
    own_at: Option<usize>,
    /// Number of lines that are no fields.
    pub(super) strays: usize,
    /// The value of `Content-Length`, if it is a number.
    pub(super) content_length: Option<u64>,
    /// The end of the header: behind the blank line, or before the line that ended it.
    pub(super) end: usize,
    /// What ended it.
    pub(super) ended: Ended,
}

/// What ended a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ended {
    /// A blank line; [`Header::end`] is behind it.
    Blank,
    /// A line that may be the separator of the next mail.
    FromLine,
    /// A line that is no field, the end of the bytes, or [`HEADER_BYTES_MAX`].
    #[default]
    Otherwise,
}

impl Header {
    /// Returns the number of different fields of mails in the header.
    pub(super) fn known(&self) -> u32 {
        self.fields.count_ones()
    }

    /// Returns whether the header has a field of [`OWN`].
    pub(super) fn is_own(&self) -> bool {
        self.own_at.is_some()
    }

    /// Returns whether a field of [`OWN`] stands before `at`.
    pub(super) fn is_own_before(&self, at: usize) -> bool {
        self.own_at.is_some_and(|own| own < at)
    }

    fn add(&mut self, line: &[u8], at: usize) -> bool {
        let Some(colon) = memchr::memchr(b':', &line[..line.len().min(NAME_BYTES_MAX)]) else { return false };
        let name = line[..colon].trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return false;
        }
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        if let Some(bit) = OWN.iter().position(is) {
            self.fields |= 1 << bit;
            self.own_at = self.own_at.or(Some(at));
        } else if let Some(bit) = KNOWN.iter().position(is) {
            self.fields |= 1 << (OWN.len() + bit);
            if name.eq_ignore_ascii_case(b"content-length") {
                let value = line[colon + 1..].trim_ascii();
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok());
                self.content_length = self.content_length.or(number);
            }
        } else {
            let begins =
                |known: &&str| name.len() > known.len() && name[..known.len()].eq_ignore_ascii_case(known.as_bytes());
            if let Some(bit) = KNOWN_BEGINNINGS.iter().position(begins) {
                self.fields |= 1 << (OWN.len() + KNOWN.len() + bit);
            }
        }
        true
    }
}

/// Reads the header at the start of `bytes`, which may end in the middle of it.
///
/// Separators of other programs at the start, quoted (`>From `) or not, are skipped: an imported file has them.
pub(super) fn read(bytes: &[u8]) -> Header {
    let bytes = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let mut header = Header::default();
    let mut fields = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        let (end, next) = line_end(bytes, at);
        let line = &bytes[at..end];
        if line.is_empty() {
            header.end = next;
            header.ended = Ended::Blank;
            return header;
        }
        header.end = at;
        let is_from_line = |line: &[u8]| line.starts_with(b"From") && separator::read(line).is_some();
        if header.is_own() && is_from_line(line) {
            header.ended = Ended::FromLine;
            return header;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            header.strays += usize::from(fields == 0);
        } else if header.add(line, at) {
            fields += 1;
        } else if !line.starts_with(b">From") {
            header.strays += 1;
        }
        if header.strays > STRAY_LINES_MAX {
            return header;
        }
        at = next;
    }
    header.end = at;
    header
}

/// Returns whether `before` ends with the header of a part and its blank line, so that the next line is inside that
/// part.
pub(super) fn ends_with_part_header(before: &[u8]) -> bool {
    let mut lines = before.rsplit(|byte| *byte == b'\n').map(|line| line.trim_ascii_end()).skip(1);
    if lines.next() != Some(b"") {
        return false;
    }
    let mut content = false;
    for line in lines {
        if line.starts_with(b"--") && line.len() > 2 {
            return content;
        }
        let is_field = line.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
        if line.is_empty() || !(is_field || line.starts_with(b" ") || line.starts_with(b"\t")) {
            return false;
        }
        content |= is_field;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_mails_are_counted_once() {
        let header = read(b"From: a\r\nTO: b\r\n c: d\r\nto: e\r\nX-A: f\r\nx-b: g\r\nOther: h\r\nContent-Length: 12\r\n\r\nDate: x\r\n");
        assert_eq!((header.known(), header.strays, header.content_length), (4, 0, Some(12)));
        assert_eq!((header.ended, header.end), (Ended::Blank, 78));
        assert!(header.is_own() && header.is_own_before(1) && !header.is_own_before(0));
        assert_eq!(read(b"From: a\rTo: b\r\rDate: x").known(), 2);
    }

    #[test]
    fn separators_of_other_programs_are_passed_over() {
        let header =
            read(b"X-Mozilla-Keys: \n>From - Mon Mar 02 10:00:00 2026\nFrom a@b Mon Mar 02 10:00:00 2026\nFrom: a\n\n");
        assert_eq!((header.known(), header.ended), (2, Ended::Blank));
        let header = read(b"From: a\nFrom a@b Mon Mar 02 10:00:00 2026\nTo: b\n\n");
        assert_eq!((header.known(), header.ended, header.end), (1, Ended::FromLine, 8));
    }

    #[test]
    fn prose_is_no_header() {
        for text in ["", "\n", "I said: no\nreally\nnot\n", "and\nthen\nthere\nSubject: x\n", " \n\t\n x: y\nFrom: a\n"]
        {
            assert_eq!(read(text.as_bytes()).known(), 0, "{text:?}");
        }
    }

    #[test]
    fn header_of_a_part_is_seen() {
        for (before, expected) in [
            ("\n--b\nContent-Type: message/rfc822\n\n", true),
            ("--b\r\nContent-Type: text/plain;\r\n\tcharset=x\r\n\r\n", true),
            ("\n--b\n\n", false),
            ("\n--b\nContent-Type: text/plain\n\ntext\n\n", false),
            ("Content-Type: text/plain\n\n", false),
            ("\n--b--\n\n", false),
            ("", false),
        ] {
            assert_eq!(ends_with_part_header(before.as_bytes()), expected, "{before:?}");
        }
    }
}
