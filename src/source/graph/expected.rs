//! Compares what was downloaded with what a list said about it.
//!
//! A status of 200 proves nothing. The service has answered a message with nothing and with `{}`. Proxies answer with
//! HTML pages, and a broken cache with what somebody else asked for. So everything that is downloaded passes through
//! this module. [`Expected`] is what a list said about an item. [`Seen`] records what matters about the bytes while
//! they arrive. [`Expected::accept`] decides whether these bytes can be the item. A rejected answer is requested again
//! like any broken answer, and the item fails in the end.
//!
//! The service writes many facts differently in a list and in a message, so there are three verdicts.
//! [`Verdict::Wrong`] needs proof: facts that contradict each other, and no facts that outweigh them. A
//! [`Verdict::Doubtful`] answer is requested once more, and is accepted if the next answer has the same length: a
//! service that always answers like this means it, and no message may be refused for good for an oddity.
//! docs/decisions/0014-answers-are-compared.md lists what is compared.
//!
//! To support the payload of another service, add a constructor to [`Expected`], and a kind with what that service's
//! list says: an exact size, a hash, a media type. [`Expected::id`] is for answers in JSON.

mod mail;

use self::mail::ListedFacts;
use super::model::MessageRow;
use crate::content::mail::HEADER_BYTES_MAX;
use crate::content::mail::header::{split_field, split_message};
use memchr::memmem;
use serde_json::Value;

/// Maximum number of bytes that the mailbox store adds to an attachment's size for data such as its name.
const OVERHEAD_BYTES_MAX: u64 = 64 << 10;

/// Whether bytes can be the item that was requested. The reasons reveal no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing contradicts it.
    Right,
    /// Something is odd, but may be correct.
    Doubtful(&'static str),
    /// The bytes are something else, or not all of the item.
    Wrong(&'static str),
}

/// What a list said about an item, and how the answers so far were doubtful.
#[derive(Debug)]
pub struct Expected {
    kind: Kind,
    /// The length of the last doubtful answer.
    doubted: Option<u64>,
}

#[derive(Debug)]
enum Kind {
    Message(Box<ListedFacts>),
    /// An attachment: its size in the mailbox store, and whether it may be text that looks like the answer of a server.
    Attachment {
        size: Option<u64>,
        may_be_markup: bool,
        is_item: bool,
    },
    /// A message as an export stream. Nothing is known about it in advance: it is compressed, and only the service can
    /// read it.
    Stream,
    /// A picture, of which nothing is known in advance.
    Photo,
}

/// How pictures begin and end: JPEG, PNG, GIF. What ends otherwise may be cut off.
const PICTURES: [(&[u8], &[u8]); 3] =
    [(b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG", b"IEND\xae\x42\x60\x82"), (b"GIF8", b"\x3b")];
/// Number of bytes at the end of a payload that are recorded.
const END_BYTES: usize = 8;

impl Expected {
    /// Expects the bytes of the message that `row` describes.
    pub fn message(row: &MessageRow) -> Self {
        Self { kind: Kind::Message(Box::new(ListedFacts::of(row))), doubted: None }
    }

    /// Expects the bytes of the attachment that `properties` (Graph: attachment) describe.
    pub fn attachment(properties: &Value) -> Self {
        let text = |name: &str| properties.get(name).and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        let (kind, name) = (text("contentType"), text("name"));
        let markup = ["html", "xml", "json", "svg", "javascript"];
        let may_be_markup = kind.is_empty()
            || kind == "application/octet-stream"
            || markup.iter().any(|markup| kind.contains(markup) || name.ends_with(markup))
            || name.ends_with(".htm");
        let kind = Kind::Attachment {
            size: properties.get("size").and_then(Value::as_u64),
            may_be_markup,
            is_item: text("@odata.type").ends_with("itemattachment"),
        };
        Self { kind, doubted: None }
    }

    /// Expects a message as an export stream. The id and the version are checked separately.
    pub fn stream() -> Self {
        Self { kind: Kind::Stream, doubted: None }
    }

    /// Expects a picture of which nothing is known in advance.
    pub fn photo() -> Self {
        Self { kind: Kind::Photo, doubted: None }
    }

    /// Accepts an answer, or returns why it must be requested again.
    ///
    /// # Errors
    /// What is wrong or odd about the answer.
    pub fn accept(&mut self, seen: &Seen) -> Result<(), &'static str> {
        match self.judge(seen) {
            Verdict::Right => Ok(()),
            Verdict::Doubtful(_) if self.doubted == Some(seen.len) => Ok(()),
            Verdict::Doubtful(why) => {
                self.doubted = Some(seen.len);
                Err(why)
            }
            Verdict::Wrong(why) => {
                self.doubted = None;
                Err(why)
            }
        }
    }

    /// Returns whether a complete answer can be the item.
    pub fn judge(&self, seen: &Seen) -> Verdict {
        match &self.kind {
            Kind::Message(told) => match (told.compare(seen), told.is_cut(seen)) {
                (wrong @ Verdict::Wrong(_), _) | (_, wrong @ Verdict::Wrong(_)) => wrong,
                (Verdict::Right, cut) => cut,
                (odd, _) => odd,
            },
            Kind::Attachment { size, may_be_markup, is_item } => {
                let looks = seen.looks_like_an_answer();
                let size = size.unwrap_or(0);
                let is_short = seen.len.saturating_mul(2) + OVERHEAD_BYTES_MAX < size;
                let is_long = seen.len > size.saturating_mul(2) + OVERHEAD_BYTES_MAX && size > 0;
                match () {
                    () if looks && (*is_item || is_short) => Verdict::Wrong("it is the answer of a server"),
                    () if seen.len == 0 && size > OVERHEAD_BYTES_MAX => Verdict::Wrong("it is empty"),
                    () if looks && !may_be_markup => Verdict::Doubtful("it looks like the answer of a server"),
                    () if seen.len == 0 && size > 0 => Verdict::Doubtful("it is empty"),
                    () if is_short || is_long => Verdict::Doubtful("it has another size"),
                    () => Verdict::Right,
                }
            }
            Kind::Stream if seen.is_empty() => Verdict::Wrong("it is empty"),
            Kind::Stream if seen.looks_like_an_answer() => Verdict::Wrong("it is the answer of a server"),
            Kind::Stream => Verdict::Right,
            Kind::Photo if seen.looks_like_an_answer() => Verdict::Wrong("it is the answer of a server"),
            Kind::Photo => match PICTURES.iter().find(|(start, _)| seen.head.starts_with(start)) {
                // Nothing is known of a photo in advance, so some that people have may be odd.
                None if seen.is_empty() => Verdict::Doubtful("it is empty"),
                None => Verdict::Doubtful("it does not begin like a picture"),
                Some((_, end)) if !seen.end.ends_with(end) => Verdict::Doubtful("it does not end like a picture"),
                Some(_) => Verdict::Right,
            },
        }
    }

    /// Returns why an answer that has begun to arrive cannot be the item. The rest need not be read then.
    pub fn refuses_start(&self, seen: &Seen) -> Option<&'static str> {
        let Kind::Message(told) = &self.kind else { return None };
        match told.compare(seen) {
            Verdict::Wrong(why) => Some(why),
            _ => None,
        }
    }

    /// Compares the id in a JSON answer with the id that was requested.
    ///
    /// # Errors
    /// If the two differ.
    pub fn id(asked: &str, answered: &str) -> Result<(), &'static str> {
        // Both alphabets of base64 occur, with and without padding.
        let plain = |id: &str| id.trim_end_matches('=').replace('/', "-").replace('+', "_");
        if plain(asked) == plain(answered) { Ok(()) } else { Err("it is about another item") }
    }
}

/// What matters about a payload, recorded while it arrives.
#[derive(Debug, Default)]
pub struct Seen {
    len: u64,
    /// The header of a mail, or the start of anything else.
    head: Vec<u8>,
    /// True once the blank line after the header has arrived.
    has_header: bool,
    /// The line that closes the outermost multipart, if the header says that there is one.
    closing: Option<Closing>,
    /// The last [`END_BYTES`] bytes.
    end: Vec<u8>,
}

/// Searches for the line that closes a multipart (RFC 2046, 5.1.1).
#[derive(Debug)]
struct Closing {
    finder: memmem::Finder<'static>,
    /// The last bytes of the piece before, in which the line may begin.
    tail: Vec<u8>,
    found: bool,
}

impl Closing {
    fn push(&mut self, bytes: &[u8]) {
        if self.found {
            return;
        }
        let overlap = self.finder.needle().len() - 1;
        // Search where two pieces meet, and then the piece itself.
        self.tail.extend_from_slice(&bytes[..bytes.len().min(overlap)]);
        self.found = self.finder.find(&self.tail).is_some() || self.finder.find(bytes).is_some();
        if bytes.len() >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - overlap..]);
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(overlap));
        }
    }
}

impl Seen {
    /// Records all of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        seen.push(bytes);
        seen
    }

    /// Records the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.len += piece.len() as u64;
        self.end.extend_from_slice(&piece[piece.len().saturating_sub(END_BYTES)..]);
        self.end.drain(..self.end.len().saturating_sub(END_BYTES));
        if self.has_header {
            if let Some(closing) = &mut self.closing {
                closing.push(piece);
            }
            return;
        }
        // The blank line may begin at the end of the piece before.
        let from = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(piece);
        let end = end_of_header(&self.head[from..]).map(|end| from + end);
        let Some(end) = end.or_else(|| (self.head.len() > HEADER_BYTES_MAX).then_some(HEADER_BYTES_MAX)) else {
            return;
        };
        self.has_header = true;
        let body = self.head.split_off(end);
        self.closing = mail::boundary(&self.head).map(|boundary| {
            let needle = [b"--", boundary.as_slice(), b"--"].concat();
            Closing { finder: memmem::Finder::new(&needle).into_owned(), tail: Vec::new(), found: false }
        });
        if let Some(closing) = &mut self.closing {
            closing.push(&body);
        }
    }

    /// Returns the number of bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Counts `len` bytes whose content is not shown to this module.
    pub fn skip(&mut self, len: u64) {
        self.len += len;
    }

    /// Returns true if the outermost multipart is closed, or if there is none.
    fn is_closed(&self) -> bool {
        self.closing.as_ref().is_none_or(|closing| closing.found)
    }

    /// Returns true if the bytes begin with a header field (RFC 5322, 2.2).
    fn begins_with_field(&self) -> bool {
        let start = crate::content::mail::readable(&self.head);
        let header = split_message(&start).header.bytes();
        let mut lines = header.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.trim_ascii().is_empty());
        let field = lines.next().and_then(split_field);
        field.is_some_and(|field| field.name.iter().all(u8::is_ascii_graphic))
    }

    /// Returns true if the bytes look like the answer of a server or proxy: a document in JSON, HTML or XML.
    fn looks_like_an_answer(&self) -> bool {
        let start = self.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.head).trim_ascii_start();
        let start = start[..start.len().min(64)].to_ascii_lowercase();
        let is_json = start.first() == Some(&b'{') && start[1..].trim_ascii_start().starts_with(b"\"");
        let is_markup =
            [&b"<!doctype html"[..], b"<html", b"<?xml", b"<head"].iter().any(|begin| start.starts_with(begin));
        is_json || start == b"{}" || is_markup
    }
}

/// Returns where the header ends, after its blank line.
fn end_of_header(bytes: &[u8]) -> Option<usize> {
    let mut lines = memchr::memchr_iter(b'\n', bytes);
    lines.find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
