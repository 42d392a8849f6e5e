//! The parts of a message: bodies, attachments and nested messages, as slices of it (RFC 2045, 2046).
//!
//! Where the structure is broken the parts are found as Python's `email` does: a header ends where no field stands, an
//! outer boundary ends all inner parts, a missing one ends with the message.

use super::Bytes;
use super::decode::{self, Encoding};
use crate::mail;
use mail_parser::{ContentType, HeaderName, HeaderValue, Message, MessageParser, MimeHeaders};
use std::borrow::Cow;

/// Parts of a mail that are looked at, with those of nested messages.
pub(super) const PARTS_MAX: usize = 10_000;
/// Multiparts in multiparts are looked into so deep.
const DEPTH_MAX: usize = 16;
/// What of a header is read.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// HTML without a charset in its part's header may name one in its first bytes.
const META_BYTES_MAX: usize = 2048;

/// Splits a message or part into header and body. A line that is no field ends the header, too.
pub(super) fn split_header(part: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in part.split_inclusive(|&byte| byte == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            return (&part[..at], &part[at + line.len()..]);
        }
        let is_folded = at > 0 && matches!(line[0], b' ' | b'\t');
        if !is_folded && mail::split_field(line).is_none() {
            return part.split_at(at);
        }
        at += line.len();
    }
    (part, b"")
}

/// What a header says, decoded.
#[derive(Clone)]
pub(super) struct Header(Option<Message<'static>>);

impl Header {
    pub(super) fn parse(header: &[u8]) -> Self {
        let header = &header[..header.len().min(HEADER_BYTES_MAX)];
        let parsed = parse(header);
        if std::str::from_utf8(header).is_ok() {
            return Self(parsed);
        }
        // Bytes that nobody encoded: in the charset of the body, most likely.
        let charset = Self(parsed).charset();
        Self(parse(decode::to_utf8(header, charset.as_deref()).as_bytes()))
    }

    /// Returns the text of a field, decoded (RFC 2047).
    pub(super) fn text(&self, name: HeaderName<'static>) -> Option<&str> {
        let value = self.0.as_ref()?.header(name)?;
        let text = match value {
            HeaderValue::Text(text) => text.as_ref(),
            HeaderValue::TextList(texts) => texts.first()?,
            _ => return None,
        };
        Some(text.trim()).filter(|text| !text.is_empty())
    }

    fn content_type(&self) -> Option<&ContentType<'_>> {
        self.0.as_ref()?.content_type()
    }

    fn charset(&self) -> Option<String> {
        self.content_type()?.attribute("charset").map(str::to_owned)
    }

    fn is(&self, kind: &str, subtype: &str) -> bool {
        self.content_type().is_some_and(|content| {
            content.ctype().eq_ignore_ascii_case(kind)
                && content.subtype().unwrap_or_default().eq_ignore_ascii_case(subtype)
        })
    }

    fn boundary(&self) -> Option<&str> {
        let content = self.content_type().filter(|content| content.ctype().eq_ignore_ascii_case("multipart"))?;
        content.attribute("boundary").map(str::trim_end).filter(|boundary| !boundary.is_empty())
    }

    fn encoding(&self) -> Encoding {
        let name = self.0.as_ref().and_then(|header| header.content_transfer_encoding()).unwrap_or_default();
        Encoding::named(name.trim())
    }

    fn file_name(&self) -> Option<&str> {
        self.0.as_ref()?.attachment_name().map(str::trim).filter(|name| !name.is_empty())
    }

    fn is_attachment(&self) -> bool {
        self.0.as_ref().and_then(|header| header.content_disposition()).is_some_and(ContentType::is_attachment)
    }
}

fn parse(header: &[u8]) -> Option<Message<'static>> {
    let mut parser = MessageParser::new()
        .header_content_type(HeaderName::ContentType)
        .header_content_type(HeaderName::ContentDisposition)
        .header_text(HeaderName::ContentTransferEncoding)
        .default_header_ignore();
    for (_, name) in super::SHOWN {
        parser = parser.header_text(name);
    }
    parser.parse_headers(header).map(Message::into_owned)
}

/// A part that has no parts.
pub(super) struct Leaf<'a> {
    header: Cow<'a, Header>,
    body: &'a [u8],
    kind: Kind,
    /// The innermost group of alternatives around it, by number.
    pub(super) alternative: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Html,
    Message,
    Other,
}

impl Leaf<'_> {
    pub(super) fn is_message(&self) -> bool {
        self.kind == Kind::Message
    }

    pub(super) fn is_html(&self) -> bool {
        self.kind == Kind::Html
    }

    /// Returns whether its text is part of what people read.
    pub(super) fn is_body(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Html) && !self.header.is_attachment()
    }

    /// Returns whether it is listed by name.
    pub(super) fn is_listed(&self) -> bool {
        !self.is_body() || self.header.file_name().is_some()
    }

    /// Returns its content, the first `len_max` bytes at least if it has so many.
    pub(super) fn decoded(&self, len_max: usize) -> Bytes<'_> {
        self.header.encoding().decode(self.split_footer().0, len_max)
    }

    pub(super) fn decoded_len(&self) -> usize {
        self.header.encoding().decoded_len(self.split_footer().0)
    }

    /// Returns what follows the encoded text in clear.
    pub(super) fn footer(&self) -> &[u8] {
        self.split_footer().1
    }

    fn split_footer(&self) -> (&[u8], &[u8]) {
        match self.header.encoding() {
            Encoding::Base64 => decode::split_footer(self.body),
            _ => (self.body, b""),
        }
    }

    pub(super) fn name(&self) -> Cow<'_, str> {
        match (self.header.file_name(), self.header.content_type()) {
            (Some(name), _) => name.into(),
            (None, Some(content)) => format!("{}/{}", content.ctype(), content.subtype().unwrap_or("unknown")).into(),
            (None, None) => "unnamed".into(),
        }
    }

    /// Returns the charset that the part, or the HTML in it, names.
    pub(super) fn charset(&self, decoded: &[u8]) -> Option<String> {
        let named = self.header.charset();
        if named.is_some() || self.kind != Kind::Html {
            return named;
        }
        let start = String::from_utf8_lossy(&decoded[..decoded.len().min(META_BYTES_MAX)]).to_ascii_lowercase();
        let (_, value) = start.split_once("charset=")?;
        let value = value.trim_start_matches(['"', '\'', ' ']);
        let end = value.find(|char: char| !char.is_ascii_alphanumeric() && !"-_:.".contains(char));
        Some(value[..end.unwrap_or(value.len())].to_owned())
    }
}

/// The leaves of a message, in order; those of messages in it are not among them.
pub(super) struct Leaves<'a> {
    pub(super) all: Vec<Leaf<'a>>,
    /// There are more.
    pub(super) incomplete: bool,
    alternatives: usize,
}

/// Where a part stands.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    alternative: Option<usize>,
    in_digest: bool,
}

impl<'a> Leaves<'a> {
    /// Finds the leaves below a message with this header and body, and counts them down from `parts_left`.
    pub(super) fn collect(header: &'a Header, body: &'a [u8], parts_left: &mut usize) -> Self {
        let mut leaves = Leaves { all: Vec::new(), incomplete: false, alternatives: 0 };
        let place = Place { depth: 0, alternative: None, in_digest: false };
        leaves.part(Cow::Borrowed(header), body, place, parts_left);
        leaves
    }

    fn part(&mut self, header: Cow<'a, Header>, body: &'a [u8], mut place: Place, parts_left: &mut usize) {
        if *parts_left == 0 || place.depth > DEPTH_MAX {
            self.incomplete = true;
            return;
        }
        *parts_left -= 1;
        let children = header.boundary().and_then(|boundary| children(body, boundary.as_bytes()));
        let Some(children) = children else {
            let kind = kind_of(&header, place);
            self.all.push(Leaf { header, body, kind, alternative: place.alternative });
            return;
        };
        if header.is("multipart", "alternative") {
            self.alternatives += 1;
            place.alternative = Some(self.alternatives);
        }
        place.in_digest = header.is("multipart", "digest");
        place.depth += 1;
        for child in children {
            let (header, body) = split_header(child);
            self.part(Cow::Owned(Header::parse(header)), body, place, parts_left);
        }
    }
}

fn kind_of(header: &Header, place: Place) -> Kind {
    let Some(content) = header.content_type() else {
        return if place.in_digest { Kind::Message } else { Kind::Plain };
    };
    let subtype = content.subtype().unwrap_or_default().to_ascii_lowercase();
    match (content.ctype().to_ascii_lowercase().as_str(), subtype.as_str()) {
        ("text", "html") => Kind::Html,
        // A multipart without parts is shown as it is, and so is what a server says about a delivery.
        ("text" | "multipart", _) | ("message", "delivery-status") => Kind::Plain,
        ("message", "rfc822" | "global") => Kind::Message,
        _ => Kind::Other,
    }
}

/// Returns the parts between the boundaries, or none if there is no boundary at all.
fn children<'a>(body: &'a [u8], boundary: &[u8]) -> Option<Vec<&'a [u8]>> {
    let mut children = Vec::new();
    let mut start = None;
    let mut at = 0;
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        if let Some(ends) = is_boundary(line, boundary) {
            children.extend(start.map(|start| without_eol(&body[start..at.max(start)])));
            start = Some(at + line.len());
            if ends {
                return Some(children);
            }
            if children.len() >= PARTS_MAX {
                break;
            }
        }
        at += line.len();
    }
    children.push(&body[start?..]);
    Some(children)
}

/// Returns whether `line` is the last boundary, if it is one.
fn is_boundary(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let after = rest.strip_prefix(b"--");
    after.unwrap_or(rest).trim_ascii().is_empty().then_some(after.is_some())
}

/// The line ending before a boundary belongs to it.
fn without_eol(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}
