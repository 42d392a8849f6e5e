//! A second look at a stored mail: does the message to be created hold everything that the mail holds, and nothing
//! else?
//!
//! [`Mail`] comes from the one reader of mail ([`crate::content::mail`]). A mistake of that reader would be written
//! into a mailbox, and reading the message back could not find it. So before anything is written, this module goes over
//! the stored bytes in its own way, and looks for each part in the message. It shares no code with the reader: it has
//! its own lines, boundaries, decoders ([`encodings`]), charsets ([`text`]) and names ([`names`]), and it builds no
//! tree.
//!
//! It walks from boundary to boundary. Each piece between two boundaries must be one of these:
//!
//! - an attached file: the same length, the same hash, and a name that the fields of the piece say;
//! - the text: the same letters and digits in the same order;
//! - the plain form of a text that is HTML, in a `multipart/alternative`, which the service makes itself;
//! - what is around the parts of a multipart (docs/coverage.md).
//!
//! At the end, no file may be left that is in no piece. If a broken mail can be read in several right ways, each is
//! accepted. Two things are never accepted: a file that is the base64 text of a file, and a file that ends before its
//! text does.
//!
//! The time is linear in the size of the mail. Only the decoded text is in memory; files are hashed piece by piece.

mod encodings;
mod names;
mod text;

use self::encodings::{Decoded, Form};
use super::file::File;
use super::fingerprint::{Fingerprint, Fingerprinter};
use super::message::Mail;
use std::ops::Range;

/// Maximum number of lines in which a first boundary is looked for if nothing declares one.
const PREAMBLE_LINES_MAX: usize = 8;
/// Minimum number of letters and digits of an undeclared boundary that is not followed by a field.
const UNDECLARED_LETTERS_MIN: usize = 8;
/// Maximum depth of multiparts that are encoded as a whole. Deeper ones count as text.
const ENCODED_DEPTH_MAX: usize = 8;
/// Maximum length of a field's name, in bytes.
const FIELD_NAME_BYTES_MAX: usize = 100;

/// Returns how `mail` differs from the stored bytes `mime`. `None` if it does not.
pub(super) fn objection(mime: &[u8], mail: &Mail) -> Option<String> {
    let mut walk = Walk {
        mime,
        cr: ends_lines_with_cr(mime),
        known: Vec::new(),
        left: mail.files.iter().collect(),
        body: Some(mail.body()),
        html: mail.html,
        number: 0,
        is_one_file: false,
        depth: 0,
    };
    walk.all().err().map(|what| format!("two ways of reading it differ, so nothing was made of it: {what}"))
}

/// A boundary that was declared or used before.
struct Known {
    line: Vec<u8>,
    /// True if its multipart holds several forms of the same.
    alternative: bool,
    /// True if the parts of its multipart are messages by default.
    digest: bool,
    /// True after its last line.
    closed: bool,
}

/// The walk over a stored mail.
struct Walk<'a, 'f> {
    mime: &'a [u8],
    /// True if lines end with CR alone.
    cr: bool,
    /// The boundaries around the current place, the innermost last.
    known: Vec<Known>,
    /// The files that were not found in the mail yet.
    left: Vec<&'f File>,
    /// The text, until it is found.
    body: Option<&'f str>,
    html: bool,
    /// The number of pieces so far.
    number: usize,
    /// True if all parts together are one file, which was found.
    is_one_file: bool,
    /// The depth of multiparts that are encoded as a whole.
    depth: usize,
}

/// A field of a header.
struct Field<'a> {
    /// The name, in lower case.
    name: Vec<u8>,
    /// The value, unfolded.
    value: Vec<u8>,
    /// The value as it is in the mail.
    raw: &'a [u8],
}

/// The bytes between two boundaries.
struct Piece<'a> {
    fields: Vec<Field<'a>>,
    /// Where the body may begin: at one place, or at two if the header is broken.
    starts: Vec<usize>,
    /// The media type, in lower case.
    kind: String,
}

impl Piece<'_> {
    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let named = self.fields.iter().filter(|field| field.name == name);
        named.map(|field| field.value.trim_ascii()).find(|value| !value.is_empty())
    }

    /// Returns its `Content-Type`. If it has several, returns one with a boundary.
    fn content_type(&self) -> &[u8] {
        let first = self.value(b"content-type").unwrap_or_default();
        if names::kind(first).starts_with("multipart/") {
            return first;
        }
        let mut all = self.fields.iter().filter(|field| field.name == b"content-type").map(|field| &*field.value);
        all.find(|value| names::boundary(value).is_some()).unwrap_or(first)
    }

    fn is_multipart(&self) -> bool {
        self.kind.starts_with("multipart")
    }

    fn is_message(&self) -> bool {
        ["message/rfc822", "message/global", "message/news", "message/rfc2822"].contains(&self.kind.as_str())
    }

    fn is_attachment(&self) -> bool {
        let disposition = self.value(b"content-disposition").unwrap_or_default();
        disposition.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"attachment"))
    }

    fn form(&self) -> Form {
        self.value(b"content-transfer-encoding").map(Form::named).unwrap_or_default()
    }
}

/// A line that is a boundary.
struct Boundary {
    /// The position of the line.
    line: Range<usize>,
    ends: bool,
}

impl<'a> Walk<'a, '_> {
    fn all(&mut self) -> Result<(), String> {
        let mut at = Some(0);
        while let Some(start) = at {
            at = self.piece(start)?;
        }
        if let Some(file) = self.left.first() {
            let (name, len) = (&file.name, file.len());
            return Err(format!("{name:?} of {len} bytes would be attached, and the stored mail holds no such file"));
        }
        match self.body.is_some_and(text::has_letters) {
            true => Err("its text would be one that the stored mail does not hold".to_owned()),
            false => Ok(()),
        }
    }

    /// Looks at the piece that begins at `start`. Returns where the next one begins, if there is one.
    fn piece(&mut self, start: usize) -> Result<Option<usize>, String> {
        self.number += 1;
        let piece = self.header(start);
        let body = *piece.starts.last().expect("there is always one");
        if self.number == 1 && piece.kind == "multipart/signed" {
            self.find_signed(&piece);
        }
        let is_undeclared = piece.kind.is_empty() && self.has_undeclared(body);
        if piece.is_multipart() || is_undeclared {
            return self.multipart(&piece, body);
        }
        if piece.is_message()
            && let Some(end) = self.message(&piece)
        {
            return Ok(end.and_then(|end| self.pass(&end)));
        }
        let end = self.next_boundary(body, false);
        self.leaf(&piece, end.as_ref().map_or(self.mime.len(), |end| end.line.start), end.is_none())?;
        Ok(end.and_then(|end| self.pass(&end)))
    }

    /// Enters a multipart. Returns where its first part begins. A multipart without parts is a text.
    fn multipart(&mut self, piece: &Piece<'_>, body: usize) -> Result<Option<usize>, String> {
        let outer = self.known.len();
        let is = |kind: &str| piece.kind == kind;
        let (alternative, digest) = (is("multipart/alternative"), is("multipart/digest"));
        let known = |line: Vec<u8>| Known { line, alternative, digest, closed: false };
        self.known.extend(names::boundary(piece.content_type()).map(known));
        let mut first = self.next_boundary(body, true);
        // The last boundary may come first. Then parts may follow, or none.
        while let Some(found) = first.as_ref().filter(|found| found.ends && self.is_own(found, outer)) {
            first = self.next_boundary(found.line.end, false);
        }
        let is_known = |walk: &Self, found: &Boundary| walk.match_known(walk.line(found)).is_some();
        match &first {
            Some(found) if !is_known(self, found) => {
                let line = undeclared(self.line(found)).unwrap_or_default().to_vec();
                self.known.push(known(line));
            }
            Some(found) if self.is_own(found, outer) => {}
            _ => {
                let end = first.as_ref().map_or(self.mime.len(), |first| first.line.start);
                let own = self.known.split_off(outer);
                if !self.encoded(piece, own, body..end.max(body))? {
                    self.leaf(piece, end, first.is_none())?;
                }
            }
        }
        Ok(first.and_then(|first| self.pass(&first)))
    }

    /// Walks through the parts of a multipart that is encoded as a whole. Returns whether it is one. `own` is its
    /// boundary, and `range` is its body.
    fn encoded(&mut self, piece: &Piece<'_>, own: Vec<Known>, range: Range<usize>) -> Result<bool, String> {
        if piece.form() == Form::Plain || self.depth >= ENCODED_DEPTH_MAX {
            return Ok(false);
        }
        let readings = encodings::readings(piece.form(), &self.mime[range]);
        let Some(decoded) = readings.into_iter().find(Decoded::is_encoded) else { return Ok(false) };
        let bytes = decoded.bytes();
        let mut inner = Walk {
            mime: &bytes,
            known: own,
            left: std::mem::take(&mut self.left),
            depth: self.depth + 1,
            cr: self.cr,
            body: self.body,
            html: self.html,
            number: self.number,
            is_one_file: self.is_one_file,
        };
        let first = inner.next_boundary(0, true).filter(|first| !first.ends);
        let mut at = None;
        if let Some(first) = &first {
            if let (None, Some(line)) = (inner.match_known(inner.line(first)), undeclared(inner.line(first))) {
                inner.known.push(Known { line: line.to_vec(), alternative: false, digest: false, closed: false });
            }
            at = inner.pass(first);
        }
        while let Some(start) = at {
            at = inner.piece(start)?;
        }
        (self.body, self.number) = (inner.body, inner.number);
        self.left = inner.left;
        Ok(first.is_some())
    }

    /// Returns the line of a boundary, without blanks at its end.
    fn line(&self, boundary: &Boundary) -> &'a [u8] {
        self.mime[boundary.line.clone()].trim_ascii_end()
    }

    /// Returns true if a boundary is known, and not one of the first `outer`.
    fn is_own(&self, boundary: &Boundary, outer: usize) -> bool {
        self.match_known(self.line(boundary)).is_some_and(|(number, _)| number >= outer)
    }

    /// Passes a boundary. Returns where the next piece begins; after the last boundary of a multipart, the piece after
    /// the next boundary.
    fn pass(&mut self, boundary: &Boundary) -> Option<usize> {
        let mut line = boundary.line.clone();
        let mut ends = boundary.ends;
        loop {
            let (number, _) = self.match_known(self.mime[line.clone()].trim_ascii_end())?;
            self.known.truncate(number + 1);
            self.known[number].closed = ends;
            if !ends {
                return Some(line.end);
            }
            let next = self.next_boundary(line.end, false)?;
            (line, ends) = (next.line, next.ends);
        }
    }

    /// Returns the number of the known boundary that `line` is, and whether it is the last one of its multipart.
    fn match_known(&self, line: &[u8]) -> Option<(usize, bool)> {
        let find = |closed: bool| {
            let known = self.known.iter().enumerate().rev().filter(|(_, known)| known.closed == closed);
            known.filter_map(|(number, known)| Some((number, is_boundary(line, &known.line)?))).next()
        };
        find(false).or_else(|| find(true).filter(|(_, ends)| !ends))
    }

    /// Returns the first boundary from `at` on. With `any`, an undeclared boundary counts as well.
    fn next_boundary(&self, at: usize, any: bool) -> Option<Boundary> {
        let mut start = at;
        while start < self.mime.len() {
            let end = self.line_end(start);
            let line = &self.mime[start..end];
            if line.starts_with(b"--") {
                if let Some((_, ends)) = self.match_known(line.trim_ascii_end()) {
                    return Some(Boundary { line: start..end, ends });
                }
                if any && self.is_undeclared(line, end) {
                    return Some(Boundary { line: start..end, ends: false });
                }
            }
            start = end;
        }
        None
    }

    /// Returns true if a line looks like an undeclared boundary, judged by the line after it.
    fn is_undeclared(&self, line: &[u8], end: usize) -> bool {
        let Some(name) = undeclared(line.trim_ascii_end()) else { return false };
        let next = &self.mime[end..self.line_end(end)];
        let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
        let is_long = letters >= UNDECLARED_LETTERS_MIN && !name.contains(&b' ') && next.trim_ascii().is_empty();
        letters > 0 && (is_content_field(next) || is_long)
    }

    /// Returns true if a body without a declared type has parts.
    fn has_undeclared(&self, body: usize) -> bool {
        let mut at = body;
        for _ in 0..PREAMBLE_LINES_MAX {
            let end = self.line_end(at);
            let next = &self.mime[end..self.line_end(end)];
            if self.mime[at..end].starts_with(b"--") && field_name(next).is_some() {
                return self.is_undeclared(&self.mime[at..end], end);
            }
            at = end;
        }
        false
    }

    /// Looks for the file of a signed mail: the whole body, with the field that says what it is.
    fn find_signed(&mut self, piece: &Piece<'_>) {
        let Some(at) = self.left.iter().position(|file| file.content_type == "multipart/signed") else { return };
        let Some(field) = piece.fields.iter().find(|field| field.name == b"content-type") else { return };
        for &start in &piece.starts {
            let mut fingerprint = Fingerprinter::default();
            for bytes in [b"Content-Type:", field.raw.trim_ascii_end(), b"\r\n\r\n", &self.mime[start..]] {
                fingerprint.take(bytes);
            }
            if fingerprint.finish() == self.left[at].fingerprint {
                self.left.swap_remove(at);
                self.is_one_file = true;
                return;
            }
        }
    }

    /// Looks for the file of an attached message that is not encoded. It ends at a boundary around it. That is not
    /// always the next boundary, because a boundary inside the message may have the same name. Returns the boundary
    /// that ends it, or `None` if there is no such file.
    fn message(&mut self, piece: &Piece<'_>) -> Option<Option<Boundary>> {
        for &start in &piece.starts {
            if piece.form() != Form::Plain && !encodings::is_plain_after_all(piece.form(), &self.mime[start..]) {
                continue;
            }
            let mut fingerprint = Fingerprinter::default();
            let (mut at, mut done) = (start, start);
            loop {
                let next = self.next_boundary(at, false);
                let end = match &next {
                    Some(next) => self.without_eol(start, next.line.start),
                    None => self.mime.len(),
                };
                fingerprint.take(&self.mime[done.min(end)..end]);
                done = end.max(done);
                if self.take_file(piece, fingerprint.finish()).is_ok_and(|is_found| is_found) {
                    return Some(next);
                }
                let Some(next) = next else { break };
                at = next.line.end;
            }
        }
        None
    }

    /// Looks at a piece with a content that ends at `end`.
    fn leaf(&mut self, piece: &Piece<'_>, end: usize, is_last: bool) -> Result<(), String> {
        let mut seen = None;
        let is_plain_form = self.is_plain_form(piece);
        for &start in &piece.starts {
            let trimmed = self.without_eol(start, end);
            // If no boundary follows, the last line ending may belong to the content or not.
            let ends = if is_last { vec![end.max(start), trimmed] } else { vec![trimmed] };
            for end in ends {
                let raw = &self.mime[start..end];
                for decoded in encodings::readings(piece.form(), raw) {
                    let fingerprint = decoded.fingerprint();
                    if self.take_file(piece, fingerprint)? {
                        return Ok(());
                    }
                    if !is_plain_form && !piece.is_message() && self.take_body(piece, &decoded) {
                        return Ok(());
                    }
                    seen.get_or_insert(fingerprint.len);
                }
            }
        }
        if self.is_one_file || is_plain_form {
            return Ok(());
        }
        let kind = if piece.kind.is_empty() { "text/plain" } else { &piece.kind };
        let name = names::said(&piece.names()).map(|name| format!(", {name:?}")).unwrap_or_default();
        let len = seen.unwrap_or_default();
        Err(format!("its part {} ({kind}{name}, {len} bytes) is neither in the text nor attached", self.number))
    }

    /// Looks for a file with these bytes. Returns an error if there is one with another name.
    fn take_file(&mut self, piece: &Piece<'_>, fingerprint: Fingerprint) -> Result<bool, String> {
        let said = piece.names();
        let mut alike = self.left.iter().enumerate().filter(|(_, file)| file.fingerprint == fingerprint);
        let Some((first, file)) = alike.next() else { return Ok(false) };
        let mut all = std::iter::once((first, file)).chain(alike);
        if let Some((at, _)) = all.find(|(_, file)| names::are_same(&file.name, &said)) {
            self.left.swap_remove(at);
            return Ok(true);
        }
        let wrong = &self.left[first].name;
        let right = names::said(&said).unwrap_or_default();
        Err(format!("{right:?} of {} bytes would be attached as {wrong:?}", fingerprint.len))
    }

    fn take_body(&mut self, piece: &Piece<'_>, decoded: &Decoded<'_>) -> bool {
        let Some(body) = self.body else { return false };
        let label = names::charset(piece.content_type());
        let is_found = text::is_text_of(body, decoded, label.as_deref());
        if is_found {
            self.body = None;
        }
        is_found
    }

    /// Returns true if a piece is the plain form of a text that is HTML.
    fn is_plain_form(&self, piece: &Piece<'_>) -> bool {
        let is_plain = ["", "text", "plain", "text/", "text/plain"].contains(&piece.kind.as_str());
        let is_in_alternative = self.known.iter().any(|known| known.alternative);
        self.html && is_plain && is_in_alternative && !piece.is_attachment() && names::said(&piece.names()).is_none()
    }

    /// Reads the header of a piece.
    fn header(&self, start: usize) -> Piece<'a> {
        let mut at = start;
        if self.number == 1 {
            at = self.before_header();
        }
        let mut fields: Vec<Field<'a>> = Vec::new();
        let mut broken_at = None;
        let mut is_field = false;
        let mut raw_start = at;
        let first = at;
        let end = loop {
            let end = self.line_end(at);
            let line = &self.mime[at..end];
            let is_fold = matches!(line.first(), Some(b' ' | b'\t'));
            if line.is_empty() || without_cr_lf(line).is_empty() {
                break end;
            }
            if line.starts_with(b"--") {
                // A boundary. It may not be known yet.
                is_field = true;
                break at;
            }
            match (field_name(line), fields.last_mut()) {
                (Some(name), _) if !is_fold => {
                    is_field = true;
                    raw_start = at + memchr::memchr(b':', line).map_or(0, |colon| colon + 1);
                    let name = name.to_ascii_lowercase();
                    fields.push(Field { name, value: Vec::new(), raw: &self.mime[raw_start..end] });
                }
                (_, Some(field)) if is_fold && is_field => field.raw = &self.mime[raw_start..end],
                _ if is_fold && at == first && !line.trim_ascii().is_empty() => {}
                _ => {
                    is_field = false;
                    broken_at.get_or_insert(at);
                }
            }
            at = end;
        };
        // This line is no field. The empty line before the body is missing, or somebody added the line.
        let mut starts: Vec<usize> = broken_at.into_iter().collect();
        if broken_at.is_none() || is_field {
            starts.push(end);
        }
        let mut piece = Piece { fields, starts, kind: String::new() };
        for field in &mut piece.fields {
            field.value = names::unfolded(field.raw);
        }
        piece.kind = names::kind(piece.content_type());
        let is_digest = self.known.iter().rfind(|known| !known.closed).is_some_and(|known| known.digest);
        if piece.kind.is_empty() && is_digest && self.number > 1 {
            piece.kind = "message/rfc822".to_owned();
        }
        piece
    }

    /// Returns where the header of the mail begins: after a byte order mark, empty lines and an mbox From_ line.
    fn before_header(&self) -> usize {
        let mut at = if self.mime.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let begin = at;
        loop {
            let end = self.line_end(at);
            let line = &self.mime[at..end];
            if line.is_empty() {
                return begin;
            }
            let is_from = line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ");
            if !(is_from && field_name(line).is_none() || line.trim_ascii().is_empty()) {
                break;
            }
            at = end;
        }
        // Empty lines without a header after them end an empty header.
        if field_name(&self.mime[at..self.line_end(at)]).is_some() { at } else { begin }
    }

    /// Returns the end of the line that begins at `at`, with its line ending.
    fn line_end(&self, at: usize) -> usize {
        let rest = &self.mime[at.min(self.mime.len())..];
        let found = if self.cr { memchr::memchr2(b'\r', b'\n', rest) } else { memchr::memchr(b'\n', rest) };
        let Some(found) = found else { return self.mime.len() };
        let is_pair = rest[found] == b'\r' && rest.get(found + 1) == Some(&b'\n');
        at + found + if is_pair { 2 } else { 1 }
    }

    /// Returns `end` without the line ending before it, which belongs to the boundary.
    fn without_eol(&self, start: usize, end: usize) -> usize {
        let bytes = &self.mime[start.min(end)..end];
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        start.max(start.min(end) + bytes.len())
    }
}

impl Piece<'_> {
    /// Returns the names that its fields say.
    fn names(&self) -> Vec<names::Spelling> {
        names::spellings(self.value(b"content-disposition").unwrap_or_default(), self.content_type())
    }
}

fn without_cr_lf(line: &[u8]) -> &[u8] {
    let len = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &line[..len]
}

/// Returns true if the lines of a mail end with CR alone, judged by the first line.
fn ends_lines_with_cr(mime: &[u8]) -> bool {
    let Some(first) = memchr::memchr2(b'\r', b'\n', mime) else { return false };
    let eol = &mime[first..];
    let behind = eol.iter().find(|byte| **byte != b'\r');
    eol[0] == b'\r' && behind != Some(&b'\n')
}

/// Returns the name of the field that a line begins.
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', &line[..line.len().min(FIELD_NAME_BYTES_MAX)])?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && !name.starts_with(b"--") && !name.iter().any(u8::is_ascii_whitespace);
    is_name.then_some(name)
}

fn is_content_field(line: &[u8]) -> bool {
    field_name(line).and_then(|name| name.get(..8)).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
}

/// Returns whether `line` is the last boundary with this name. `None` if it is none of them.
fn is_boundary(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let behind = line.strip_prefix(b"--")?.strip_prefix(boundary)?.trim_ascii();
    match behind {
        b"" => Some(false),
        b"--" => line.strip_prefix(b"--")?.strip_prefix(boundary)?.starts_with(b"--").then_some(true),
        _ => None,
    }
}

fn undeclared(line: &[u8]) -> Option<&[u8]> {
    Some(line.strip_prefix(b"--")?.trim_ascii()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
