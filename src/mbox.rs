//! Reads mbox files, message by message.
//!
//! An mbox file (RFC 4155) is a row of messages, each after a line `From sender date` (the "From_ line") and, but for
//! the last, followed by a blank line. There is no standard for what a From_ line looks like, nor for how body lines
//! that look like one are kept apart from it; [`Messages`] takes the files of all common writers:
//!
//! - A From_ line stands at the start of the file or after a blank line, starts with `From `, and holds a time of day,
//!   a year of four digits, and a month's or weekday's name. A paragraph that begins with "From here on" is none.
//! - Lines quoted as `>From ` (mboxo, mboxrd, mboxcl) are kept as they are. Which of them the writer quoted cannot be
//!   known for sure (mboxo does not quote what was quoted already), and a backup keeps what the file holds.
//! - `Content-Length` fields are not trusted, as programs that edited the file often left them wrong. In the rare
//!   mboxcl2 files, which quote nothing, an unquoted line that passes for a From_ line is therefore taken for one.
//!
//! A message's bytes are exactly those of the file after the From_ line, line endings included, without the one blank
//! line that ends it. Memory is bounded by the largest message.

use std::io::{self, BufRead, Read as _};

/// Messages larger than this are an error. Exchange Online stops at 150 MB; a file in which no further From_ line is
/// found must not fill the memory.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Where words of a From_ line are looked for; longer lines are not From_ lines for what stands behind this.
const FROM_LINE_BYTES_MAX: usize = 1024;

const NAMES: [&[u8]; 19] = [
    b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun", b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul",
    b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// A message and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MboxMessage {
    /// Where the From_ line starts in the file.
    pub offset: u64,
    /// Where the message itself starts in the file.
    pub start: u64,
    /// The From_ line without its line ending.
    pub from_line: Vec<u8>,
    /// The message, as it stands in the file.
    pub message: Vec<u8>,
}

/// Why a file could not be read as mbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MboxError {
    /// The file begins with something else than a From_ line.
    #[error("not an mbox file: it does not begin with a line `From <sender> <date>`")]
    NotMbox,
    /// There was no From_ line for too long.
    #[error("message at offset {offset} of the mbox file is larger than {limit} bytes")]
    TooLarge {
        /// Where the message's From_ line starts.
        offset: u64,
        /// The largest size that is read.
        limit: usize,
    },
    /// The file could not be read.
    #[error("could not read the mbox file at offset {offset}")]
    Read {
        /// How far the file was read.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Iterates over the messages of an mbox file; ends after the first error.
///
/// An empty file is an mbox without messages. Blank lines before the first message are ignored.
#[derive(Debug)]
pub struct Messages<R> {
    input: R,
    message_bytes_max: usize,
    /// Bytes read so far.
    offset: u64,
    /// The line read last, with its ending.
    line: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been read.
    Start,
    /// The line read last is the From_ line of a message, and began here.
    FromLine(u64),
    Ended,
}

impl<R: BufRead> Messages<R> {
    /// Starts at the beginning of `input`.
    pub fn new(input: R) -> Self {
        Self::with_limit(input, MESSAGE_BYTES_MAX)
    }

    /// Like [`Messages::new`], with another limit than [`MESSAGE_BYTES_MAX`] for the size of a message.
    pub fn with_limit(input: R, message_bytes_max: usize) -> Self {
        Messages { input, message_bytes_max, offset: 0, line: Vec::new(), state: State::Start }
    }

    /// Reads the message whose From_ line was read last, and the next From_ line.
    fn read_message(&mut self, offset: u64) -> Result<MboxMessage, MboxError> {
        let from_line = without_eol(&self.line).to_vec();
        let start = self.offset;
        let mut message = Vec::new();
        let mut after_blank = false;
        loop {
            let line_offset = self.offset;
            if !self.read_line()? {
                self.state = State::Ended;
                break;
            }
            if after_blank && is_from_line(&self.line) {
                self.state = State::FromLine(line_offset);
                break;
            }
            if message.len() + self.line.len() > self.message_bytes_max {
                return Err(MboxError::TooLarge { offset, limit: self.message_bytes_max });
            }
            after_blank = without_eol(&self.line).is_empty();
            message.extend_from_slice(&self.line);
        }
        if after_blank {
            message.truncate(without_eol(&message).len());
        }
        Ok(MboxMessage { offset, start, from_line, message })
    }

    /// Reads up to the first From_ line. Returns its offset, or none if the file is empty.
    fn read_start(&mut self) -> Result<Option<u64>, MboxError> {
        loop {
            let offset = self.offset;
            if !self.read_line()? {
                return Ok(None);
            }
            if is_from_line(&self.line) {
                return Ok(Some(offset));
            }
            if !without_eol(&self.line).is_empty() {
                return Err(MboxError::NotMbox);
            }
        }
    }

    /// Reads a line, or the start of one that is longer than a message may be. Returns false at the end of the file.
    fn read_line(&mut self) -> Result<bool, MboxError> {
        self.line.clear();
        let limit = self.message_bytes_max.saturating_add(FROM_LINE_BYTES_MAX) as u64;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut self.line);
        let read = read.map_err(|source| MboxError::Read { offset: self.offset, source })?;
        self.offset += read as u64;
        Ok(read > 0)
    }
}

impl<R: BufRead> Iterator for Messages<R> {
    type Item = Result<MboxMessage, MboxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = match self.state {
            State::Start => self.read_start(),
            State::FromLine(offset) => Ok(Some(offset)),
            State::Ended => Ok(None),
        };
        let message = match offset {
            Ok(offset) => offset.map(|offset| self.read_message(offset)),
            Err(error) => Some(Err(error)),
        };
        if !matches!(message, Some(Ok(_))) {
            self.state = State::Ended;
        }
        message
    }
}

/// Says whether `line` is one that starts a message in an mbox file, wherever it stands.
///
/// Writers put the date as in `Tue Oct 01 09:30:00 2024`, some with a time zone before or after the year, and before it
/// an address, a dash, or anything else.
pub fn is_from_line(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From ") else { return false };
    let (mut time, mut year, mut name) = (false, false, false);
    for word in rest[..rest.len().min(FROM_LINE_BYTES_MAX)].split(u8::is_ascii_whitespace) {
        time |= is_time(word);
        year |= word.len() == 4 && word.iter().all(u8::is_ascii_digit);
        name |= NAMES.iter().any(|name| word.eq_ignore_ascii_case(name));
    }
    time && year && name
}

/// Says whether `word` is `h:mm`, `hh:mm` or `hh:mm:ss`.
fn is_time(word: &[u8]) -> bool {
    let mut fields = word.split(|&byte| byte == b':');
    let is_number = |field: &[u8]| matches!(field.len(), 1 | 2) && field.iter().all(u8::is_ascii_digit);
    matches!(word.iter().filter(|&&byte| byte == b':').count(), 1 | 2) && fields.all(is_number)
}

fn without_eol(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const FROM: &str = "From alice@example.org Tue Oct  1 09:30:00 2024";

    fn read(file: &[u8]) -> Vec<MboxMessage> {
        Messages::new(file).map(Result::unwrap).collect()
    }

    fn bodies(file: &str) -> Vec<String> {
        read(file.as_bytes()).into_iter().map(|item| String::from_utf8(item.message).unwrap()).collect()
    }

    #[test]
    fn messages_are_kept_as_they_stand() {
        let file =
            format!("{FROM}\r\nSubject: a\r\n\r\n>From here\r\n>>From there\r\n\r\n{FROM}\nSubject: b\n\nno end");
        let items = read(file.as_bytes());
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].from_line, FROM.as_bytes());
        assert_eq!(items[0].message, b"Subject: a\r\n\r\n>From here\r\n>>From there\r\n");
        assert_eq!(items[1].message, b"Subject: b\n\nno end");
        assert_eq!(items.iter().map(|item| item.offset).collect::<Vec<_>>(), [0, file.rfind("From a").unwrap() as u64]);
    }

    #[test]
    fn only_the_last_of_several_blank_lines_is_the_separator() {
        assert_eq!(bodies(&format!("{FROM}\na\n\n\n{FROM}\nb\n\n")), ["a\n\n", "b\n"]);
    }

    #[test]
    fn empty_files_and_messages_are_fine() {
        assert_eq!(bodies(""), [""; 0]);
        assert_eq!(bodies("\n\r\n"), [""; 0]);
        assert_eq!(bodies(FROM), [""]);
        assert_eq!(bodies(&format!("\n{FROM}\n\n{FROM}\n\n")), ["", ""]);
    }

    #[test]
    fn from_lines_of_many_writers_are_known() {
        for line in [
            FROM,
            "From - Tue Oct 01 12:00:00 2024",
            "From MAILER-DAEMON Fri Jul  8 12:08:34 2011\r\n",
            "From 1806429@xxx Mon Jan 01 00:00:00 +0000 2024",
            "From ???@??? Mon Jan 01 00:00:00 1997",
            "From a b Thu Nov 24 18:22 GMT 1986",
            "From 9f2c1b7e Mon Sep 17 00:00:00 2001",
        ] {
            assert!(is_from_line(line.as_bytes()), "{line}");
        }
        for line in
            ["From here on", "From: alice", "from a Tue Oct  1 09:30:00 2024", ">From a", "From Monday 12:30 on", ""]
        {
            assert!(!is_from_line(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn lines_that_only_begin_with_from_do_not_split() {
        let body = format!("a\n\nFrom now on\n{FROM}\nx\n");
        assert_eq!(bodies(&format!("{FROM}\n{body}\n{FROM}\nb\n")), [body.as_str(), "b\n"]);
    }

    #[test]
    fn other_files_are_refused() {
        for file in ["Subject: a\n\nb\n", "From here on\n", "\0\0\0", "\n x"] {
            let mut messages = Messages::new(file.as_bytes());
            assert!(matches!(messages.next(), Some(Err(MboxError::NotMbox))), "{file:?}");
            assert!(messages.next().is_none());
        }
    }

    #[test]
    fn too_large_a_message_is_an_error_with_its_offset() {
        for tail in ["x".repeat(2000), "x\n".repeat(1000)] {
            let file = format!("{FROM}\nsmall\n\n{FROM}\n{tail}");
            let items: Vec<_> = Messages::with_limit(file.as_bytes(), 1000).collect();
            let second = FROM.len() as u64 + 8;
            assert!(items[0].is_ok());
            assert!(matches!(items[1], Err(MboxError::TooLarge { offset, limit: 1000 }) if offset == second));
            assert_eq!(items.len(), 2);
        }
    }

    #[test]
    fn failed_read_is_reported_once() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
        let file = format!("{FROM}\nx");
        let items: Vec<_> = Messages::new(io::BufReader::new(io::Read::chain(file.as_bytes(), Broken))).collect();
        assert!(matches!(items[..], [Err(MboxError::Read { .. })]));
    }

    proptest! {
        #[test]
        fn written_messages_come_back(
            bodies in vec("([a-z]{0,9}|From [a-z ]{0,9}|>From [a-z]{0,9}|\t|\r|)(\n|\r\n){1,3}", 0..20),
            crlf: bool,
            last_blank: bool,
            buffer in 1..50_usize,
        ) {
            let eol = if crlf { "\r\n" } else { "\n" };
            let mut file = String::new();
            let mut offsets = Vec::new();
            for (i, body) in bodies.iter().enumerate() {
                offsets.push(file.len() as u64);
                // A blank line at the end of the file is always taken for the one that ends a message.
                let ends_blank = body.split_inclusive('\n').next_back().is_some_and(|line| line.trim_end().is_empty());
                let blank = if i + 1 < bodies.len() || last_blank || ends_blank { eol } else { "" };
                file += &format!("{FROM}{eol}{body}{blank}");
            }
            let input = io::BufReader::with_capacity(buffer, file.as_bytes());
            let items: Vec<_> = Messages::new(input).map(Result::unwrap).collect();
            prop_assert_eq!(items.len(), bodies.len());
            for ((item, body), offset) in items.iter().zip(&bodies).zip(offsets) {
                prop_assert_eq!(&item.message, body.as_bytes());
                prop_assert_eq!(&item.from_line, FROM.as_bytes());
                prop_assert_eq!(item.offset, offset);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(tail in vec(any::<u8>(), 0..500)) {
            let file = [FROM.as_bytes(), b"\n", &tail].concat();
            prop_assert!(Messages::new(&file[..]).all(|item| item.is_ok()));
            let _ = Messages::new(&tail[..]).count();
        }
    }
}
