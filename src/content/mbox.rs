//! Cuts mbox files into mails.
//!
//! An mbox file is a row of mails, each behind a line `From <sender> <date>` (the *separator*) and mostly followed by a
//! blank line. There is no standard for the form of that line, for blank lines, or for how lines of a body that look
//! like a separator are kept apart from it. [`Mails`] takes the files of all common programs, by these rules:
//!
//! - A separator is a `From ` line of a form that programs write ([`separator`]) with the header of a mail behind it
//!   ([`header`]). How many fields that header must have depends on the form, on whether a blank line stands before,
//!   and on whether the file has had such separators already. The first line of the file may stand without a header.
//! - A `From ` line in the header of a mail, or at the start of a part of it, is no separator.
//! - `Content-Length` is believed only if a separator or the end of the file stands where it says; lines that look like
//!   separators before that are then text (mboxcl2). Programs that edit a file often leave it wrong.
//! - Lines quoted as `>From ` (mboxo, mboxrd, mboxcl) are kept as they are: which of them the writer quoted cannot be
//!   known.
//! - Lines end with LF, CRLF or CR, also in one file. Zero bytes, as a lost block leaves them, end a line.
//! - MMDF files, with `^A^A^A^A` around each mail, are cut at these lines.
//! - A file that begins with a mail without a separator, or with the rest of one, has that as its first mail.
//!
//! No byte is lost: a file is, for each mail in order, what stands before it (its separator), the mail, and what stands
//! behind it (the one blank line that ends it). Where a mail is cut depends on what stands up to the header behind the
//! next separator, so mails that are appended do not change those before. Memory is a window of about 1 MiB, whatever
//! the file or a mail in it, and every byte is looked at a bounded number of times.

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

/// What must be seen behind a separator to judge it.
const LOOK_AHEAD: usize = header::HEADER_BYTES_MAX + 2 * separator::LINE_BYTES_MAX;
/// How much is searched at a time, at least.
const STEP: usize = 64 << 10;
/// How much is read where a `Content-Length` says that a mail ends.
const PEEK: usize = 8 << 10;
/// Blank lines and zero bytes before the first mail, up to so many, count as part of its separator.
const LEAD_BYTES_MAX: usize = 32 << 10;
/// Maximum number of separators that may stand in a row before one mail.
const SEPARATORS_MAX: usize = 4;
const BOM: &[u8] = b"\xef\xbb\xbf";
const MMDF: &[u8] = b"\x01\x01\x01\x01";

/// Where a mail is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// What stands before it: its separator with the line end; for the first mail also what the file begins with.
    pub before: Range<u64>,
    /// Its bytes.
    pub range: Range<u64>,
    /// What stands behind it: the blank line that ends it, if there is one.
    pub behind: Range<u64>,
    /// Length of its header with the blank line; of a header that does not end soon, of all that may be one.
    pub header_len: u64,
    /// The date in its separator, as it stands there.
    pub date: Vec<u8>,
}

/// Why a file could not be read as mbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MboxError {
    /// There is no mail in it.
    #[error("not an mbox file: it has no line `From <sender> <date>` with the header of a mail behind it")]
    NotMbox,
    /// It is something else.
    #[error("not an mbox file, but {0}")]
    Other(&'static str),
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

/// What other files begin with, and what they are.
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

/// Iterates over the mails of an mbox file; ends after the first error.
///
/// A file that is empty or has nothing but blank lines is an mbox without mails.
#[derive(Debug)]
pub struct Mails<R> {
    window: Window<R>,
    state: State,
    /// The shapes of separators that the file had, as bits.
    familiar: u8,
    /// The file has blank lines behind its separators.
    blank_behind: bool,
    /// The header that was read last, and where it starts: several candidates on a line have the same behind them.
    last_header: Option<(u64, Header)>,
    from: Finder<'static>,
    mmdf: Finder<'static>,
}

#[derive(Clone, Debug)]
enum State {
    Start,
    Mail(Current),
    /// Outside of all mails of an MMDF file: what stands before the next one starts here.
    Mmdf(u64),
    Ended,
}

/// The mail whose start was found last.
#[derive(Clone, Debug)]
struct Current {
    before: Range<u64>,
    date: Vec<u8>,
    header: Header,
    /// Where to look for the next separator.
    search: u64,
    /// Where the next separator is for sure.
    certain: Option<u64>,
    /// The file begins with something that may be no mail.
    doubtful: bool,
}

/// A separator.
struct Found {
    /// Where the mail before ends.
    at: u64,
    /// Where its line ends.
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

    /// Reads up to the first mail.
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
            // Some form that no other program has.
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

    /// Returns where the separator or the end of the file is, if it is there that a mail ends at `end`.
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

    /// Returns whether `header` is enough behind a separator of this shape.
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

    /// Finds the separator behind the mail that was begun last. None: the mail goes on to the end of the file.
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

    /// Judges what begins with `From` at `index` of the window.
    fn judge(&mut self, index: usize, current: &Current) -> Option<Found> {
        let bytes = self.window.bytes();
        if bytes.get(index + 4).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            return None;
        }
        let absolute = |index: usize| self.window.start() + index as u64;
        let is_start = |index: usize| absolute(index) == current.before.end;
        let (before, after_hole) = match &bytes[..index] {
            [.., b'\n' | b'\r'] => (index, false),
            [.., 0] => (index, true),
            _ if is_start(index) => (index, false),
            [line @ .., 0xef, 0xbb, 0xbf] if line.is_empty() || matches!(line, [.., b'\n' | b'\r' | 0]) => {
                (line.len(), line.ends_with(&[0]))
            }
            // Files that were appended to one whose last line had no end.
            line if may_end_without_eol(line) => (index, false),
            _ => return None,
        };
        let within_line = before == index && !after_hole && !is_start(index) && eol_len_before(&bytes[..index]) == 0;
        // Behind a byte order mark at the start of the mail there is nothing that it would be cut from.
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
            _ => match eol_len(&bytes[next..]) {
                blank if blank > 0 && self.blank_behind => {
                    header_behind_blank(&bytes[next + blank..]).unwrap_or_default()
                }
                _ => header::read(&bytes[next..]),
            },
        };
        let mail_start = current.before.end.saturating_sub(self.window.start()) as usize;
        let after_blank =
            after_hole || is_start(before) || blank_line_len_before(&bytes[mail_start.min(before)..before]) > 0;
        // In the header of the mail, that of another one can only begin behind the fields that no mail has twice.
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

    /// Returns the mail that was begun last and ends at `end`.
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

    /// Returns the next mail of an MMDF file, of which everything before `at` is done.
    ///
    /// Each has a line before and one behind it. Where one of them was lost, what is between two lines is a mail all
    /// the same.
    fn next_of_mmdf(&mut self, at: u64) -> Result<Option<Mail>, MboxError> {
        let index = self.show(at, LEAD_BYTES_MAX + LOOK_AHEAD)?;
        let bytes = &self.window.bytes()[index..];
        // The lines in front, perhaps behind blank ones.
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
        // A blank line belongs to the mail: it is not what ends it.
        mail.range.end = end;
        mail.behind = end..end + line;
        // What is left at the end of the file if a line was lost is no mail.
        let index = self.show(mail.behind.end, STEP)?;
        let rest = &self.window.bytes()[index..];
        if rest.len() <= LEAD_BYTES_MAX && rest.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 1)) {
            mail.behind.end += rest.len() as u64;
        }
        self.state = State::Mmdf(mail.behind.end);
        Ok(Some(mail))
    }

    /// Returns where the next line of an MMDF file that bounds a mail starts, and its length; or the end of the file
    /// and 0.
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
    /// The start of a file that has no separator there.
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

/// Returns the header at the front of `bytes`, where a program put a blank line between separator and header.
fn header_behind_blank(bytes: &[u8]) -> Option<Header> {
    Some(header::read(bytes)).filter(is_whole)
}

/// Returns whether nothing but a mail has such a header.
fn is_whole(header: &Header) -> bool {
    header.known() >= 3 && header.is_own() && header.strays == 0
}

/// Returns whether the last line of a file, which has no line end, may end as `text` does: with text, no blank and no
/// mark of a quote.
fn may_end_without_eol(text: &[u8]) -> bool {
    // What stands further in front need not be looked at, and a line may be long.
    let text = &text[text.len().saturating_sub(separator::USUAL_BYTES_MAX)..];
    let line = &text[text.iter().rposition(|byte| matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |at| at + 1)..];
    let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80;
    line.last().is_some_and(|byte| !byte.is_ascii_whitespace()) && line.iter().any(is_text)
}

/// Returns the length of the zero bytes and lines of blanks at the front of `bytes`.
fn lead_len(bytes: &[u8]) -> usize {
    let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
    if blank == bytes.len() {
        return blank;
    }
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    bytes[..blank].iter().rposition(is_end).map_or(0, |last| last + 1)
}

/// Returns the length with its line end of a line that bounds a mail in an MMDF file.
fn mmdf_line_len(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(MMDF)?;
    let eol = eol_len(rest);
    (eol > 0 || rest.is_empty()).then_some(MMDF.len() + eol)
}

#[cfg(test)]
mod tests;
