//! The parts of a message: bodies, attachments and nested messages, as slices of it (RFC 2045, 2046).
//!
//! One pass over the lines that begin with `--` finds all parts, however deep they lie. Each such line is compared with
//! the boundaries of the open multiparts, the innermost first. An outer boundary ends all inner parts. A missing
//! boundary counts as the end of the message. A boundary counts only as a whole line. If a multipart declares no
//! boundary, or a wrong one, the first line that looks like a boundary and has the header of a part behind it is used.
//!
//! Nested messages that are not encoded are read in the same pass. Encoded nested messages are leaves: to see their
//! parts, decode them and read them as messages of their own.
//!
//! Time is linear in the message, with at most [`DEPTH_MAX`] comparisons for each line that begins with `--`. Memory
//! holds at most [`PARTS_MAX`] parts. Parts beyond these bounds are not separated, and [`Structure::incomplete`] says
//! so.

mod opened;

use super::address::one_line;
use super::charset::{self, Charset};
use super::header::{self, Halves, Header, line_len};
use super::params::Params;
use super::transfer::{Encoded, Encoding};

/// Maximum number of parts in a message, those of nested messages included, because each part takes memory.
pub const PARTS_MAX: usize = 10_000;
/// Maximum depth of multiparts and messages in each other, because each boundary is compared with all that are open.
/// Real mails have up to 20.
pub const DEPTH_MAX: usize = 100;
/// Maximum number of `Content-Type` fields that are read in one header. More are ignored.
const TYPES_MAX: usize = 8;
/// Number of lines at the start of a body without a declared type in which the first boundary is looked for.
const PREAMBLE_LINES_MAX: usize = 8;
/// Minimum number of letters and digits in an undeclared boundary if no field stands behind it.
const UNDECLARED_LEN_MIN: usize = 8;

/// The three kinds of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The part has parts of its own.
    Multipart,
    /// The part is a message that is not encoded. The next part in the list is that message itself.
    Message,
    /// The part has a content and no parts.
    Leaf,
}

/// A part of a message.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The header of the part. The first part has the header of the message.
    pub header: Header<'a>,
    /// The bytes behind the header.
    pub body: &'a [u8],
    /// The position of the body in the message.
    pub body_start: usize,
    /// Whether the part has parts, is a message, or has a content.
    pub kind: Kind,
    /// Its `Content-Type` with the parameters.
    pub content: Params,
    /// Its `Content-Disposition` with the parameters.
    pub disposition: Params,
    /// The encoding of the content.
    pub encoding: Encoding,
    /// The number of the part that this part lies in.
    pub parent: Option<usize>,
    /// The number of the innermost `multipart/alternative` around this part in the same message.
    pub alternative: Option<usize>,
    /// The number of the first part behind this one that does not lie in it.
    pub end: usize,
}

/// Text in a multipart that belongs to no part: it stands before the first boundary or behind the last one.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a> {
    /// The number of the multipart.
    pub parent: usize,
    /// The number of the first part behind the text.
    pub next: usize,
    /// The text; never only blanks.
    pub text: &'a [u8],
}

/// The structure of a message.
#[derive(Clone, Debug)]
pub struct Structure<'a> {
    /// All parts in their order. The first one is the message itself.
    pub parts: Vec<Part<'a>>,
    /// All text of multiparts that belongs to no part, in its order.
    pub outside: Vec<Outside<'a>>,
    /// True if the message has more parts, or deeper ones, than the limits allow.
    pub incomplete: bool,
    /// True if lines may end with CR alone.
    pub cr: bool,
}

/// A multipart whose end was not read yet.
struct Frame {
    part: usize,
    boundary: Option<Vec<u8>>,
    /// A boundary that is used without being declared.
    undeclared: Option<Vec<u8>>,
    has_parts: bool,
    /// True once the last boundary was read.
    closed: bool,
}

impl Frame {
    /// Returns whether `line` is the last boundary; none if `line` is no boundary.
    fn is_boundary(&self, line: &[u8]) -> Option<bool> {
        let is = |boundary: &Option<Vec<u8>>| boundary.as_ref().and_then(|boundary| is_boundary(line, boundary));
        is(&self.boundary).or_else(|| is(&self.undeclared))
    }
}

fn is_boundary(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    if rest.trim_ascii().is_empty() {
        return Some(false);
    }
    rest.strip_prefix(b"--").is_some_and(|rest| rest.trim_ascii().is_empty()).then_some(true)
}

impl<'a> Structure<'a> {
    /// Reads the structure of a message, at most `parts_max` parts of it, and never more than [`PARTS_MAX`].
    pub fn of(message: &'a [u8], parts_max: usize) -> Self {
        let halves = header::split_message(message);
        let cr = halves.header.ends_lines_with_cr();
        let mut reading = Reading {
            message,
            structure: Structure { parts: Vec::new(), outside: Vec::new(), incomplete: false, cr },
            outside_start: None,
            frames: Vec::new(),
            open: Vec::new(),
            parts_max: parts_max.clamp(1, PARTS_MAX),
        };
        reading.begin(halves, None, 0);
        reading.read();
        let Structure { parts, outside, .. } = &mut reading.structure;
        // A multipart that turned out to have no parts is a leaf, and its whole body is its content.
        outside.retain(|outside| parts[outside.parent].kind == Kind::Multipart);
        reading.structure
    }

    /// Returns the leaves of the message that begins with part `root`, and the messages nested in it, but not the
    /// leaves of those.
    pub fn leaves(&self, root: usize) -> impl Iterator<Item = (usize, &Part<'a>)> {
        let end = self.parts.get(root).map_or(0, |part| part.end);
        let mut at = root;
        std::iter::from_fn(move || {
            while at < end {
                let (number, part) = (at, &self.parts[at]);
                at = if part.kind == Kind::Multipart { at + 1 } else { part.end };
                if part.kind != Kind::Multipart {
                    return Some((number, part));
                }
            }
            None
        })
    }

    /// Returns the text outside of all parts in the message that begins with part `root`, without that of nested
    /// messages.
    pub fn outside(&self, root: usize) -> impl Iterator<Item = &Outside<'a>> {
        let end = self.parts.get(root).map_or(0, |part| part.end);
        let first = self.outside.partition_point(|outside| outside.next <= root);
        let inside = self.outside[first..].iter().take_while(move |outside| outside.next <= end);
        inside.filter(move |outside| self.root_of(outside.parent) == root)
    }

    /// Returns the number of the first part of the message that this part belongs to.
    fn root_of(&self, number: usize) -> usize {
        let mut number = number;
        while let Some(parent) = self.parts[number].parent {
            if self.parts[parent].kind == Kind::Message {
                break;
            }
            number = parent;
        }
        number
    }

    /// Returns the charset that the message at part `root` names for its text. If it names none and its header has
    /// unencoded letters beyond ASCII, returns the charset that its text seems to be in.
    pub fn charset(&self, root: usize) -> Option<Charset> {
        /// Number of bytes of text that are enough to detect a charset.
        const SAMPLE_BYTES: usize = 16 << 10;
        let part = self.parts.get(root)?;
        let named = part.charset().or_else(|| self.leaves(root).find_map(|(_, part)| part.charset()));
        if named.is_some() || part.header.bytes().is_ascii() {
            return named;
        }
        let (_, text) = self.leaves(root).find(|(_, part)| part.is_text())?;
        let sample = text.encoded().decoded(SAMPLE_BYTES);
        charset::detect(&sample)
    }
}

/// The state while a message is read.
struct Reading<'a> {
    message: &'a [u8],
    structure: Structure<'a>,
    frames: Vec<Frame>,
    /// The numbers of the open parts, the innermost last.
    open: Vec<usize>,
    /// The position where text outside of all parts begins, if the last thing read was not a part.
    outside_start: Option<usize>,
    parts_max: usize,
}

impl<'a> Reading<'a> {
    /// Begins a part and, if the part is a message, that message too. `start` is the position of the part in the
    /// message.
    fn begin(&mut self, halves: Halves<'a>, parent: Option<usize>, start: usize) {
        let (mut halves, mut parent, mut start) = (halves, parent, start);
        loop {
            let number = self.structure.parts.len();
            let mut part = self.part(halves, parent, start);
            let body = &self.message[part.body_start..];
            let is_deep = self.open.len() >= DEPTH_MAX;
            let boundary = part.boundary();
            let is_multipart =
                part.content.value.starts_with("multipart") || part.is_undeclared_multipart(body, self.structure.cr);
            let is_message = part.is_message() && !part.encoding.is_encoded(body);
            self.structure.incomplete |= is_deep && (is_multipart || is_message);
            if !is_deep && is_multipart {
                part.kind = Kind::Multipart;
                self.frames.push(Frame { part: number, boundary, undeclared: None, has_parts: false, closed: false });
            } else if !is_deep && is_message && number + 1 < self.parts_max {
                part.kind = Kind::Message;
            }
            let (kind, body_start) = (part.kind, part.body_start);
            self.structure.parts.push(part);
            self.open.push(number);
            if kind != Kind::Message {
                self.outside_start = (kind == Kind::Multipart).then_some(body_start);
                return;
            }
            (parent, start) = (Some(number), body_start);
            halves = header::split_inner_message(&self.message[start..], self.structure.cr);
        }
    }

    fn part(&self, halves: Halves<'a>, parent: Option<usize>, start: usize) -> Part<'a> {
        let header = halves.header;
        let (mut types, mut disposition, mut encoding) = (Vec::new(), None, None);
        for field in header.fields().filter(|field| field.name.len() >= 12 && !field.value.trim_ascii().is_empty()) {
            if field.is("Content-Type") && types.len() < TYPES_MAX {
                types.push(field.value);
            } else if field.is("Content-Disposition") {
                disposition = disposition.or(Some(field.value));
            } else if field.is("Content-Transfer-Encoding") {
                encoding = encoding.or(Some(field.value));
            }
        }
        // Of several types, take one that declares a boundary: its parts exist for a reason.
        let mut types = types.into_iter().map(Params::parse);
        let first = types.next().unwrap_or_default();
        let multipart = if first.value.starts_with("multipart/") {
            None
        } else {
            types.find(|kind| kind.raw("boundary").is_some())
        };
        let parent_part = parent.map(|parent| &self.structure.parts[parent]);
        let in_digest = parent_part.is_some_and(|part| part.content.value == "multipart/digest");
        let mut content = multipart.unwrap_or(first);
        if content.value.is_empty() && in_digest {
            content.value = "message/rfc822".to_owned();
        }
        let alternative = match (parent, parent_part) {
            (Some(number), Some(part)) if part.content.value == "multipart/alternative" => Some(number),
            (_, Some(part)) if part.kind == Kind::Multipart => part.alternative,
            _ => None,
        };
        Part {
            header,
            body: halves.body,
            body_start: start + halves.body_start,
            kind: Kind::Leaf,
            content,
            disposition: disposition.map(Params::parse).unwrap_or_default(),
            encoding: encoding.map(Encoding::named).unwrap_or_default(),
            parent,
            alternative,
            end: 0,
        }
    }

    fn read(&mut self) {
        let cr = self.structure.cr;
        let finder = memchr::memmem::Finder::new(b"\n--");
        let mut at = self.structure.parts.last().map_or(0, |part| part.body_start);
        let mut is_line_start = true;
        while !self.frames.is_empty() {
            // Go to the next line that begins with dashes.
            let rest = &self.message[at..];
            if !(is_line_start && rest.starts_with(b"--")) {
                let next = match cr {
                    false => finder.find(rest).map(|found| found + 1),
                    true => next_dashes(rest),
                };
                let Some(next) = next else { break };
                at += next;
            }
            let line = &self.message[at..at + line_len(&self.message[at..], cr)];
            match self.boundary(line, at + line.len()) {
                Some((frame, ends)) => {
                    self.end_outside(at);
                    self.close(frame, at);
                    if self.structure.parts.len() >= self.parts_max {
                        self.structure.incomplete = true;
                        return self.end(at);
                    }
                    at += line.len();
                    self.frames[frame].closed = ends;
                    if ends {
                        self.outside_start = Some(at);
                    } else {
                        self.frames[frame].has_parts = true;
                        let halves = header::split_part(&self.message[at..], cr);
                        self.begin(halves, Some(self.frames[frame].part), at);
                        at = self.structure.parts.last().map_or(at, |part| part.body_start);
                    }
                }
                None => at += line.len(),
            }
            is_line_start = true;
        }
        self.end(self.message.len());
    }

    /// Returns the multipart that `line` is a boundary of, and whether it is the last boundary.
    fn boundary(&mut self, line: &[u8], end: usize) -> Option<(usize, bool)> {
        let find = |closed: bool| {
            let frames = self.frames.iter().enumerate().rev().filter(|(_, frame)| frame.closed == closed);
            frames.filter_map(|(number, frame)| Some((number, frame.is_boundary(line)?))).next()
        };
        // A boundary that comes after the last boundary of a multipart continues that multipart.
        if let Some(found) = find(false).or_else(|| find(true).filter(|(_, ends)| !ends)) {
            return Some(found);
        }
        let cr = self.structure.cr;
        let top =
            self.frames.last_mut().filter(|frame| !frame.has_parts && frame.undeclared.is_none() && !frame.closed)?;
        let undeclared = undeclared_boundary(line, &self.message[end..], cr)?;
        top.undeclared = Some(undeclared.to_vec());
        Some((self.frames.len() - 1, false))
    }

    /// Ends all parts inside a multipart, before the line at `at`.
    fn close(&mut self, frame: usize, at: usize) {
        let part = self.frames[frame].part;
        self.frames.truncate(frame + 1);
        let before = without_eol(&self.message[..at]).len();
        while let Some(open) = self.open.pop_if(|open| *open > part) {
            self.end_part(open, before);
        }
    }

    /// Ends the text outside of parts, if any, before the line at `at`.
    fn end_outside(&mut self, at: usize) {
        if let (Some(start), Some(frame)) = (self.outside_start.take(), self.frames.last()) {
            let text = without_eol(&self.message[start..at]);
            if !text.trim_ascii().is_empty() {
                self.structure.outside.push(Outside { parent: frame.part, next: self.structure.parts.len(), text });
            }
        }
    }

    /// Ends all parts at `at`.
    fn end(&mut self, at: usize) {
        self.end_outside(at);
        while let Some(open) = self.open.pop() {
            self.end_part(open, at);
        }
    }

    fn end_part(&mut self, number: usize, at: usize) {
        let end = self.structure.parts.len();
        let part = &mut self.structure.parts[number];
        part.end = end;
        part.body = self.message.get(part.body_start..at).unwrap_or_default();
        // A multipart without parts is shown as text.
        if part.kind == Kind::Multipart && end == number + 1 {
            part.kind = Kind::Leaf;
        }
    }
}

fn next_dashes(rest: &[u8]) -> Option<usize> {
    let mut at = line_len(rest, true);
    while at < rest.len() {
        if rest[at..].starts_with(b"--") {
            return Some(at);
        }
        at += line_len(&rest[at..], true);
    }
    None
}

/// Returns the boundary in `line` if it looks like one that was not declared: the header of a part stands behind it.
fn undeclared_boundary<'b>(line: &'b [u8], behind: &[u8], cr: bool) -> Option<&'b [u8]> {
    let boundary = line.strip_prefix(b"--")?.trim_ascii();
    let next = &behind[..line_len(behind, cr)];
    let is_field = header::split_field(next)
        .is_some_and(|field| field.name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")));
    let letters = boundary.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
    let is_long = letters >= UNDECLARED_LEN_MIN && !boundary.contains(&b' ') && next.trim_ascii().is_empty();
    (letters > 0 && (is_field || is_long)).then_some(boundary)
}

/// Returns a part without its last line ending, which belongs to the boundary behind it.
fn without_eol(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}

impl<'a> Part<'a> {
    /// Returns the media type, such as `text/html`. A part without a type is `text/plain`.
    pub fn media_type(&self) -> &str {
        match self.content.value.as_str() {
            "" | "text" | "plain" | "text/" => "text/plain",
            "html" => "text/html",
            value => value,
        }
    }

    /// Returns whether the part is a message, encoded or not.
    pub fn is_message(&self) -> bool {
        matches!(self.media_type(), "message/rfc822" | "message/global" | "message/news" | "message/rfc2822")
    }

    /// Returns whether the part is HTML.
    pub fn is_html(&self) -> bool {
        matches!(self.media_type(), "text/html" | "text/x-html" | "application/xhtml+xml")
    }

    /// Returns whether the part is text, HTML included. Multiparts without parts and the delivery reports of servers
    /// count as text.
    pub fn is_text(&self) -> bool {
        let kind = self.media_type();
        kind.starts_with("text/")
            || kind.starts_with("multipart")
            || matches!(kind, "message/delivery-status" | "message/disposition-notification" | "application/xhtml+xml")
            // A piece of a message that was sent in several pieces (RFC 2046, 5.2.2).
            || kind == "message/partial"
            // A value that is no media type says nothing; most mails are text.
            || !kind.contains('/') && self.name_field().is_none()
    }

    /// Returns whether the part is attached, and not part of the text that people read.
    pub fn is_attachment(&self) -> bool {
        self.disposition.value == "attachment"
    }

    fn name_field(&self) -> Option<&Params> {
        let has = |params: &&Params, name: &str| params.raw(name).is_some();
        Some(&self.disposition)
            .filter(|params| has(params, "filename"))
            .or_else(|| Some(&self.content).filter(|params| has(params, "name")))
    }

    /// Returns the file name of the part. `charset` is the charset of the message; it is used for bytes that are not
    /// encoded.
    pub fn file_name(&self, charset: Option<Charset>) -> Option<String> {
        let own = || self.charset().or(charset);
        let name = |params: &Params, name: &str| params.text(name, own()).map(|name| one_line(&name));
        [
            (&self.disposition, "filename"),
            (&self.content, "name"),
            (&self.disposition, "name"),
            (&self.content, "filename"),
        ]
        .into_iter()
        .filter_map(|(params, param)| name(params, param))
        .find(|name| !name.is_empty())
    }

    /// Returns the charset that the part names.
    pub fn charset(&self) -> Option<Charset> {
        Charset::named(&self.content.text("charset", None)?)
    }

    /// Returns the content as it stands in the message, encoded.
    pub fn encoded(&self) -> Encoded<'a> {
        self.encoding.of(self.body)
    }

    /// Returns about the first `len_max` bytes of the text of the part, and whether they are all of it. The text
    /// includes a footer in clear behind an encoded text.
    pub fn text(&self, len_max: usize) -> (String, bool) {
        let encoded = self.encoded();
        let decoded = encoded.decoded(len_max);
        let charset = self.charset().or_else(|| self.meta_charset(&decoded));
        let mut text = charset::decode_as(&decoded, charset).into_owned();
        if !encoded.footer.is_empty() {
            text.push_str(if self.is_html() { "<br>\r\n" } else { "\r\n" });
            text.push_str(&charset::decode_as(encoded.footer, None));
        }
        (text, decoded.len() < len_max)
    }

    /// Returns the charset that the HTML names for itself.
    fn meta_charset(&self, decoded: &[u8]) -> Option<Charset> {
        /// Number of bytes at the start of a page that are searched for the charset.
        const META_BYTES_MAX: usize = 2048;
        if !self.is_html() {
            return None;
        }
        let start = String::from_utf8_lossy(&decoded[..decoded.len().min(META_BYTES_MAX)]).to_ascii_lowercase();
        let (_, value) = start.split_once("charset=").or_else(|| start.split_once("encoding="))?;
        let value = value.trim_start_matches(['"', '\'', ' ']);
        let end = value.find(|char: char| !char.is_ascii_alphanumeric() && !"-_:.".contains(char));
        let charset = Charset::named(&value[..end.unwrap_or(value.len())])?;
        // The name was found as ASCII, so the page is not in UTF-16 or UTF-32, whatever it says.
        (!matches!(charset, Charset::Utf16 { .. } | Charset::Utf32 { .. })).then_some(charset)
    }

    fn boundary(&self) -> Option<Vec<u8>> {
        let boundary = self.content.raw("boundary")?;
        let boundary = boundary.trim_ascii_end();
        (!boundary.is_empty()).then(|| boundary.to_vec())
    }

    /// Returns whether the part has parts although it declares no type.
    fn is_undeclared_multipart(&self, body: &[u8], cr: bool) -> bool {
        if !self.content.value.is_empty() {
            return false;
        }
        let mut rest = body;
        for _ in 0..PREAMBLE_LINES_MAX {
            let (line, behind) = rest.split_at(line_len(rest, cr));
            if line.starts_with(b"--") && header::split_field(&behind[..line_len(behind, cr)]).is_some() {
                return undeclared_boundary(line, behind, cr).is_some();
            }
            rest = behind;
        }
        false
    }
}

#[cfg(test)]
mod tests;
