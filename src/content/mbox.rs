//! Cuts mbox files into mails.
//!
//! An mbox file is a row of mails. Before each stands a line `From <sender> <date>` (the *separator*), and mostly a
//! blank line behind it. There is no standard for the form of that line, for blank lines, or for lines of a body that
//! look like a separator. [`Mails`] reads the files of all common programs, by these rules:
//!
//! - A separator is a `From ` line in a form that programs write ([`separator`]), with the header of a mail behind it
//!   ([`header`]). The number of fields that the header must have depends on the form, on whether a blank line stands
//!   before, and on whether the file had such separators already. The first line of the file may stand without a
//!   header.
//! - A `From ` line in the header of a mail, or at the start of one of its parts, is no separator.
//! - `Content-Length` counts only if it leads to a separator or to the end of the file. Then lines that look like
//!   separators before that place are text (mboxcl2). Programs that edit a file often leave a wrong length.
//! - Lines quoted as `>From ` (mboxo, mboxrd, mboxcl) are kept as they are, because nobody can know which of them the
//!   writer quoted.
//! - Lines end with LF, CRLF or CR, also in one file. Zero bytes, which a lost block of a disk leaves, end a line.
//! - MMDF files have `^A^A^A^A` around each mail and are cut at these lines.
//! - If a file begins without a separator, the bytes up to the first separator are its first mail: a whole mail, or the
//!   rest of one.
//!
//! No byte is lost: a file is, for each mail in order, the bytes before it (its separator), the mail, and the bytes
//! behind it (the one blank line that ends it). Where a mail is cut depends only on bytes up to the header behind the
//! next separator, so appending mails does not change the mails before. Memory is a window of about 1 MiB, whatever the
//! size of the file or of a mail. Every byte is looked at a bounded number of times.

mod header;
mod lines;
mod separator;
mod window;

pub use self::window::ReadAt;

use self::header::{Ended, Header};
use self::lines::{blank_line_len_before, eol_len, eol_len_before, line_end};
use self::separator::Shape;
use self::window::{LOOK_BACK, Window};
use memchr::memmem::Finder;
use std::io;
use std::ops::Range;

/// Number of bytes that must be in memory from a separator on to judge it.
const LOOK_AHEAD: usize = header::HEADER_BYTES_MAX + 2 * separator::LINE_BYTES_MAX;
/// Minimum number of bytes that are searched at a time.
const STEP: usize = 64 << 10;
/// Number of bytes that are read at the place where a `Content-Length` says that a mail ends.
const PEEK: usize = 8 << 10;
/// Maximum number of blank lines and zero bytes, in bytes, before the first mail. They belong to its separator.
const LEAD_BYTES_MAX: usize = 32 << 10;
/// Maximum number of separators in a row before one mail.
const SEPARATORS_MAX: usize = 4;
const BOM: &[u8] = b"\xef\xbb\xbf";
const MMDF: &[u8] = b"\x01\x01\x01\x01";

/// The position of a mail in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The bytes before the mail: its separator with the line end; for the first mail also all before that.
    pub before: Range<u64>,
    /// The bytes of the mail.
    pub range: Range<u64>,
    /// The bytes behind the mail: the blank line or MMDF mark that ends it, if there is one.
    pub behind: Range<u64>,
    /// Length of the header with its blank line. If no blank line ends the header, the length of the whole mail.
    pub header_len: u64,
    /// The date in the separator, as it stands there.
    pub date: Vec<u8>,
}

/// Why a file could not be read as mbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MboxError {
    /// The file has no mail.
    #[error("not an mbox file: it has no line `From <sender> <date>` with the header of a mail behind it")]
    NotMbox,
    /// The file is of another kind.
    #[error("not an mbox file, but {0}")]
    Other(&'static str),
    /// The file could not be read.
    #[error("could not read the mbox file at offset {offset}")]
    Read {
        /// The offset where reading failed, in bytes.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The first bytes of other kinds of files, and the name of each kind.
const OTHERS: [(&[u8], &str); 16] = [
    (b"\x1f\x8b", "a file that was compressed with gzip: unpack it (gunzip) and back up what comes out"),
    (b"\x1f\x9d", "a file that was compressed with compress: unpack it (uncompress) and back up what comes out"),
    (b"BZh", "a file that was compressed with bzip2: unpack it (bunzip2) and back up what comes out"),
    (b"\xfd7zXZ\0", "a file that was compressed with xz: unpack it (unxz) and back up what comes out"),
    (b"\x28\xb5\x2f\xfd", "a file that was compressed with zstd: unpack it (unzstd) and back up what comes out"),
    (b"\x04\x22\x4d\x18", "a file that was compressed with lz4: unpack it (unlz4) and back up what comes out"),
    (b"PK\x03\x04", "a ZIP archive: unpack it and back up the mbox files in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it and back up the mbox files in it"),
    (b"Rar!", "a RAR archive: unpack it and back up the mbox files in it"),
    (b"!BDN", "an Outlook data file (.pst, .ost): export its mails from Outlook"),
    (b"\xcf\xad\x12\xfe", "an Outlook Express folder (.dbx): convert it to mbox (readdbx)"),
    (b"*mbx*", "a mailbox in the mbx form of UW-IMAP: convert it to mbox (mailutil copy)"),
    (b"BABYL OPTIONS", "a Babyl file of Emacs: convert it to mbox (b2m, or unrmail in Emacs)"),
    (
        b"// <!-- <mdb:mork",
        "an index of Thunderbird (.msf): the mails are in the file beside it that is called the same without .msf",
    ),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF-", "a PDF document"),
];

fn other_than_mbox(start: &[u8]) -> Option<&'static str> {
    let is_tar = start.get(257..262) == Some(b"ustar");
    let utf16 = [&b"\xff\xfe"[..], b"\xfe\xff", b"F\0r\0o\0m\0", b"\0F\0r\0o\0m"];
    if is_tar {
        Some("a tar archive: unpack it and back up the mbox files in it")
    } else if utf16.iter().any(|mark| start.starts_with(mark)) {
        Some("text in UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    } else {
        OTHERS.iter().find_map(|(magic, what)| start.starts_with(magic).then_some(*what))
    }
}

/// Iterates over the mails of an mbox file. Ends after the first error.
///
/// An empty file, or one with blank lines alone, is an mbox without mails.
#[derive(Debug)]
pub struct Mails<R> {
    window: Window<R>,
    state: State,
    /// The shapes of separators that the file had so far, as bits.
    familiar: u8,
    /// True if the file has blank lines behind its separators.
    blank_behind: bool,
    /// The header that was read last, and its position. Several candidates on one line have the same header behind
    /// them.
    last_header: Option<(u64, Header)>,
    from: Finder<'static>,
    mmdf: Finder<'static>,
}

#[derive(Clone, Debug)]
enum State {
    Start,
    Mail(Current),
    /// Between two mails of an MMDF file. Holds the position up to which the file is done.
    Mmdf(u64),
    Ended,
}

/// The mail whose start was found last.
#[derive(Clone, Debug)]
struct Current {
    before: Range<u64>,
    date: Vec<u8>,
    header: Header,
    /// The position where the search for the next separator begins.
    search: u64,
    /// The position of the next separator, if `Content-Length` proved it.
    certain: Option<u64>,
    /// True if the file begins with bytes that may not be a mail.
    doubtful: bool,
}

/// A separator.
struct Found {
    /// The end of the mail before.
    at: u64,
    /// The start of the next line.
    next: u64,
    shape: Shape,
    date: Vec<u8>,
}

fn bit(shape: Shape) -> u8 {
    1 << shape as u8
}

impl<R: ReadAt> Mails<R> {
    /// Starts at the beginning of `input`.
    pub fn new(input: R) -> Self {
        Mails {
            window: Window::new(input),
            state: State::Start,
            familiar: 0,
            blank_behind: false,
            last_header: None,
            from: Finder::new(b"From"),
            mmdf: Finder::new(MMDF),
        }
    }

    fn show(&mut self, at: u64, len: usize) -> Result<usize, MboxError> {
        self.window.show(at, len).map_err(|source| MboxError::Read { offset: at, source })
    }

    /// Finds the first mail, and skips what stands before it.
    fn start(&mut self) -> Result<(), MboxError> {
        self.show(0, LEAD_BYTES_MAX + LOOK_AHEAD)?;
        let bytes = self.window.bytes();
        if let Some(what) = other_than_mbox(bytes) {
            return Err(MboxError::Other(what));
        }
        let bom = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
        let lead = lead_len(&bytes[bom..]) + bom;
        if lead == bytes.len() && self.window.at_end() {
            self.state = State::Ended;
            return if bytes.contains(&0) { Err(MboxError::Other("nothing but zero bytes")) } else { Ok(()) };
        }
        let rest = &bytes[lead.min(LEAD_BYTES_MAX)..];
        if mmdf_line_len(rest).is_some() {
            self.state = State::Mmdf(0);
            return Ok(());
        }
        let (end, next) = line_end(rest, 0);
        let header = header::read(&rest[next..]);
        let line = separator::read(&rest[..end]);
        let is_separator = match line.map(|line| line.shape) {
            Some(Shape::Full) => true,
            Some(_) => header.known() >= 1,
            // A form that no known program writes.
            None => rest.starts_with(b"From ") && header.known() >= 3 && header.strays == 0,
        };
        if lead > LEAD_BYTES_MAX {
            self.state = State::Mail(Current::without_separator(0..0, Header::default(), true));
        } else if is_separator {
            let line = line.map(|line| (line.shape, line.date.to_vec()));
            let (shape, date) = line.unwrap_or((Shape::Odd, Vec::new()));
            let next = (lead + next) as u64;
            self.begin(Found { at: 0, next, shape, date })?;
        } else {
            let header = header::read(rest);
            let is_mail = header.known() >= 2 && header.strays == 0;
            let lead = if is_mail { lead as u64 } else { 0 };
            self.state = State::Mail(Current::without_separator(0..lead, header, !is_mail));
        }
        Ok(())
    }

    /// Begins the mail behind a separator.
    fn begin(&mut self, found: Found) -> Result<(), MboxError> {
        let Found { at, next, shape, date } = found;
        self.familiar |= bit(shape);
        let index = self.show(next, SEPARATORS_MAX * separator::LINE_BYTES_MAX + LOOK_AHEAD)?;
        let bytes = &self.window.bytes()[index..];
        let mut start = 0;
        for _ in 1..SEPARATORS_MAX {
            if !bytes[start..].starts_with(b"From") {
                break;
            }
            let (end, next) = line_end(bytes, start);
            if separator::read(&bytes[start..end]).is_some() {
                start = next;
            }
        }
        let mut header = match self.last_header {
            Some((at, header)) if at == next + start as u64 => header,
            _ => header::read(&bytes[start..]),
        };
        let blank = eol_len(&bytes[start..]);
        let mut blank_behind = self.blank_behind;
        if blank > 0
            && let Some(behind) = header_behind_blank(&bytes[start + blank..])
        {
            (start, header, blank_behind) = (start + blank, behind, true);
        }
        self.blank_behind = blank_behind;
        let start = next + start as u64;
        let mut current = Current { before: at..start, date, header, search: start, certain: None, doubtful: false };
        if header.ended == Ended::Blank
            && let Some(len) = header.content_length
            && let Some(end) = (start + header.end as u64).checked_add(len).filter(|end| *end <= i64::MAX as u64)
            && let Some(end) = self.end_of_mail_at(end)?
        {
            (current.search, current.certain) = (end, Some(end));
        }
        self.state = State::Mail(current);
        Ok(())
    }

    /// Returns the position of the separator or the end of the file behind a mail that ends at `end`. None if neither
    /// stands there.
    fn end_of_mail_at(&self, end: u64) -> Result<Option<u64>, MboxError> {
        const BACK: usize = 4;
        let Some(from) = end.checked_sub(BACK as u64) else { return Ok(None) };
        let bytes = self.window.peek(from, PEEK).map_err(|source| MboxError::Read { offset: from, source })?;
        if bytes.len() < BACK {
            return Ok(None);
        }
        let mut at = BACK;
        for _ in 0..2 {
            at += eol_len(&bytes[at..]);
        }
        if at == bytes.len() {
            return Ok(Some(from + at as u64));
        }
        let (line, next) = line_end(&bytes, at);
        let separator = separator::read(&bytes[at..line]).filter(|_| eol_len_before(&bytes[..at]) > 0);
        let is_separator =
            separator.is_some_and(|line| self.has_header(line.shape, true, &header::read(&bytes[next..])));
        Ok(is_separator.then_some(from + at as u64))
    }

    /// Returns whether `header` has enough fields to stand behind a separator of this shape.
    fn has_header(&self, shape: Shape, after_blank: bool, header: &Header) -> bool {
        let familiar = self.familiar & bit(shape) != 0;
        let wanted = match (shape, after_blank) {
            (Shape::Full, true) => 1,
            (Shape::Full, false) if familiar => 1,
            (Shape::Full, false) => 2,
            (Shape::Bare | Shape::Dash | Shape::Sender, true) if familiar => 1,
            (Shape::Bare | Shape::Dash | Shape::Sender, _) => 2,
            (Shape::Odd, true) if familiar => 2,
            (Shape::Odd, _) => 3,
        };
        header.known() >= wanted && (shape == Shape::Full || header.strays == 0 || header.known() >= wanted + 2)
    }

    /// Finds the separator behind the current mail. None if the mail goes on to the end of the file.
    fn find_next(&mut self, current: &Current) -> Result<Option<Found>, MboxError> {
        let mut at = current.search;
        loop {
            let index = self.show(at, LOOK_AHEAD + STEP)?;
            let len = self.window.bytes().len();
            let safe = if self.window.at_end() { len } else { len - LOOK_AHEAD };
            let mut from = index;
            while from < safe {
                let Some(found) = self.from.find(&self.window.bytes()[from..len.min(safe + 3)]) else { break };
                from += found;
                if let Some(found) = self.judge(from, current) {
                    return Ok(Some(found));
                }
                from += 4;
            }
            at = self.window.start() + safe as u64;
            if self.window.at_end() {
                return Ok(None);
            }
        }
    }

    /// Returns the separator at `index` of the window, where `From` stands, if it is one.
    fn judge(&mut self, index: usize, current: &Current) -> Option<Found> {
        let bytes = self.window.bytes();
        if bytes.get(index + 4).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            return None;
        }
        let absolute = |index: usize| self.window.start() + index as u64;
        let is_start = |index: usize| absolute(index) == current.before.end;
        let (before, after_hole) = line_start(&bytes[..index], is_start(index))?;
        let within_line = before == index && !after_hole && !is_start(index) && eol_len_before(&bytes[..index]) == 0;
        // Before the byte order mark is the start of this mail: there is nothing to cut.
        if absolute(before) < current.before.end {
            return None;
        }
        let (end, next) = line_end(&bytes[..bytes.len().min(index + 2 * separator::LINE_BYTES_MAX)], index);
        if within_line && end - index > separator::USUAL_BYTES_MAX {
            return None;
        }
        let line = separator::read(&bytes[index..end])?;
        let (shape, date) = (line.shape, line.date.to_vec());
        let found = Found { at: absolute(before), next: absolute(next), shape, date };
        if current.certain == Some(found.at) {
            return Some(found);
        }
        let behind = match self.last_header {
            Some((at, header)) if at == found.next => header,
            _ => self.header_at(&bytes[next..]),
        };
        let mail_start = current.before.end.saturating_sub(self.window.start()) as usize;
        let after_blank =
            after_hole || is_start(before) || blank_line_len_before(&bytes[mail_start.min(before)..before]) > 0;
        // Inside a header, another mail can only begin if a field that no mail has twice stands before it and behind
        // it.
        let offset = usize::try_from(found.at - current.before.end).unwrap_or(usize::MAX);
        let in_header =
            offset < current.header.end || (offset == current.header.end && current.header.ended == Ended::FromLine);
        let may_stand_here = if in_header {
            current.header.is_own_before(offset) && behind.is_own()
        } else {
            let from = before.saturating_sub(LOOK_BACK).max(mail_start.min(before));
            !header::ends_with_part_header(&bytes[from..before])
        };
        self.last_header = Some((found.next, behind));
        let is_enough = match within_line {
            true => shape == Shape::Full && !in_header && is_whole(&behind),
            false => self.has_header(shape, after_blank, &behind),
        };
        (may_stand_here && is_enough).then_some(found)
    }

    /// Reads the header that begins with `bytes`. In a file that has a blank line behind each separator, it stands
    /// behind that line.
    fn header_at(&self, bytes: &[u8]) -> Header {
        match eol_len(bytes) {
            blank if blank > 0 && self.blank_behind => header_behind_blank(&bytes[blank..]).unwrap_or_default(),
            _ => header::read(bytes),
        }
    }

    /// Returns the current mail, which ends at `end`.
    fn finish(&self, current: Current, end: u64) -> Mail {
        let start = current.before.end;
        let from = start.max(self.window.start()) - self.window.start();
        let bytes = &self.window.bytes()[from as usize..(end - self.window.start()) as usize];
        let behind = end - blank_line_len_before(bytes) as u64..end;
        let range = start..behind.start;
        let len = range.end - range.start;
        let header_len = if current.header.ended == Ended::Blank { (current.header.end as u64).min(len) } else { len };
        Mail { before: current.before, range, behind, header_len, date: current.date }
    }

    fn next_mail(&mut self) -> Result<Option<Mail>, MboxError> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Start => self.start()?,
                State::Ended => return Ok(None),
                State::Mmdf(at) => return self.next_of_mmdf(at),
                State::Mail(current) => {
                    let found = self.find_next(&current)?;
                    if found.is_none() && current.doubtful {
                        return Err(MboxError::NotMbox);
                    }
                    let end = found.as_ref().map_or(self.window.end(), |found| found.at);
                    let mail = self.finish(current, end);
                    if let Some(found) = found {
                        self.begin(found)?;
                    }
                    return Ok(Some(mail));
                }
            }
        }
    }

    /// Returns the next mail of an MMDF file, at or after `at`.
    ///
    /// A line with the mark stands before and behind each mail. If one of them was lost, the bytes between two such
    /// lines are still a mail.
    fn next_of_mmdf(&mut self, at: u64) -> Result<Option<Mail>, MboxError> {
        let index = self.show(at, LEAD_BYTES_MAX + LOOK_AHEAD)?;
        let bytes = &self.window.bytes()[index..];
        // The marks before the mail, perhaps behind blank lines.
        let bom = if at == 0 && bytes.starts_with(BOM) { BOM.len() } else { 0 };
        let lead = bom + lead_len(&bytes[bom..bytes.len().min(LEAD_BYTES_MAX)]);
        let mut start = if mmdf_line_len(&bytes[lead..]).is_some() { lead } else { 0 };
        for _ in 0..SEPARATORS_MAX {
            start += mmdf_line_len(&bytes[start..]).unwrap_or(0);
        }
        let (line, next) = line_end(bytes, start);
        let mut date = Vec::new();
        if bytes[start..].starts_with(b"From")
            && let Some(line) = separator::read(&bytes[start..line])
        {
            date = line.date.to_vec();
            start = next;
        }
        if start == 0 && bytes.is_empty() {
            return Ok(None);
        }
        let header = header::read(&bytes[start..]);
        let start = at + start as u64;
        let current = Current { before: at..start, date, header, search: start, certain: None, doubtful: false };
        let (end, line) = self.find_mmdf_line(start)?;
        let mut mail = self.finish(current, end);
        // The blank line at the end belongs to the mail, because the mark ends the mail.
        mail.range.end = end;
        mail.behind = end..end + line;
        // Blank bytes and rests of marks at the end of the file are no mail.
        let index = self.show(mail.behind.end, STEP)?;
        let rest = &self.window.bytes()[index..];
        if rest.len() <= LEAD_BYTES_MAX && rest.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 1)) {
            mail.behind.end += rest.len() as u64;
        }
        self.state = State::Mmdf(mail.behind.end);
        Ok(Some(mail))
    }

    /// Returns the position and length of the next line with an MMDF mark, or the end of the file and 0.
    fn find_mmdf_line(&mut self, start: u64) -> Result<(u64, u64), MboxError> {
        let mut at = start;
        loop {
            let index = self.show(at, LOOK_AHEAD + STEP)?;
            let bytes = self.window.bytes();
            let safe = if self.window.at_end() { bytes.len() } else { bytes.len() - LOOK_AHEAD };
            let absolute = |index: usize| self.window.start() + index as u64;
            let mut from = index;
            while from < safe {
                let Some(found) = self.mmdf.find(&bytes[from..bytes.len().min(safe + 3)]) else { break };
                from += found;
                let is_line = absolute(from) == start || eol_len_before(&bytes[..from]) > 0;
                if let Some(len) = mmdf_line_len(&bytes[from..]).filter(|_| is_line) {
                    return Ok((absolute(from), len as u64));
                }
                from += 1;
            }
            at = absolute(safe);
            if self.window.at_end() {
                return Ok((at, 0));
            }
        }
    }
}

impl Current {
    /// Returns the first mail of a file that begins without a separator.
    fn without_separator(before: Range<u64>, header: Header, doubtful: bool) -> Self {
        let search = before.end;
        Current { before, date: Vec::new(), header, search, certain: None, doubtful }
    }
}

impl<R: ReadAt> Iterator for Mails<R> {
    type Item = Result<Mail, MboxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mail = self.next_mail();
        if mail.is_err() {
            self.state = State::Ended;
        }
        mail.transpose()
    }
}

/// Returns the header at the start of `bytes`, if a program put a blank line between separator and header.
fn header_behind_blank(bytes: &[u8]) -> Option<Header> {
    Some(header::read(bytes)).filter(is_whole)
}

/// Returns whether only a mail can have this header.
fn is_whole(header: &Header) -> bool {
    header.known() >= 3 && header.is_own() && header.strays == 0
}

/// Returns the length of `before` up to the start of the line that follows it, and true if a lost block of the disk
/// stands there. `None` if no line can start behind `before`. `is_start` says that a mail starts there.
fn line_start(before: &[u8], is_start: bool) -> Option<(usize, bool)> {
    match before {
        [.., b'\n' | b'\r'] => Some((before.len(), false)),
        [.., 0] => Some((before.len(), true)),
        _ if is_start => Some((before.len(), false)),
        // A byte order mark belongs to the line.
        [line @ .., 0xef, 0xbb, 0xbf] if line.is_empty() || matches!(line, [.., b'\n' | b'\r' | 0]) => {
            Some((line.len(), line.ends_with(&[0])))
        }
        // A file was appended to another one whose last line had no line end.
        line => may_end_without_eol(line).then_some((line.len(), false)),
    }
}

/// Returns whether `text` may be the end of a file without a last line end. Its last line must have text and must not
/// end with a blank.
fn may_end_without_eol(text: &[u8]) -> bool {
    // The end of the line is enough, and a line may be long.
    let text = &text[text.len().saturating_sub(separator::USUAL_BYTES_MAX)..];
    let line = &text[text.iter().rposition(|byte| matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |at| at + 1)..];
    let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80;
    line.last().is_some_and(|byte| !byte.is_ascii_whitespace()) && line.iter().any(is_text)
}

/// Returns the length of the zero bytes and blank lines at the start of `bytes`.
fn lead_len(bytes: &[u8]) -> usize {
    let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
    if blank == bytes.len() {
        return blank;
    }
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    bytes[..blank].iter().rposition(is_end).map_or(0, |last| last + 1)
}

/// Returns the length of a line with an MMDF mark, its line end included.
fn mmdf_line_len(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(MMDF)?;
    let eol = eol_len(rest);
    (eol > 0 || rest.is_empty()).then_some(MMDF.len() + eol)
}

#[cfg(test)]
mod tests;
