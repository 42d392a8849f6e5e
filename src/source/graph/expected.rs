//! Holds what was downloaded against what was said of it before.
//!
//! A status of 200 proves nothing: the service has answered a message with nothing and with `{}`, proxies answer with
//! pages of HTML, and a broken cache with what somebody else asked for. So whatever is downloaded passes this one
//! place. [`Expected`] is what a list told of an item, [`Seen`] notes what matters of the bytes while they come, and
//! [`Expected::accept`] says whether these can be the item. What is not accepted is asked for again like any broken
//! answer, and fails in the end.
//!
//! The service writes many facts differently in a list and in a message. So there are three verdicts.
//! [`Verdict::Wrong`] needs proof: facts that contradict each other and none that outweigh them. [`Verdict::Doubtful`]
//! is asked for once more, and accepted when the next answer is as long. A service that always answers so means it, and
//! no message is refused for good for an oddity. docs/decisions/0014-answers-are-compared.md lists what is compared.
//!
//! Another service's payload gets a constructor of [`Expected`] and a kind with what its list tells: an exact size, a
//! hash, a media type. [`Expected::id`] is for answers that are JSON.

mod mail;

use self::mail::Told;
use super::model::MessageRow;
use crate::content::mail::HEADER_BYTES_MAX;
use crate::content::mail::header::{split_field, split_message};
use memchr::memmem;
use serde_json::Value;

/// The store beneath counts what it keeps beside an attachment's bytes, such as its name, by so many bytes at most.
const OVERHEAD_BYTES_MAX: u64 = 64 << 10;

/// Whether bytes can be the item that was asked for. The reasons name no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Right,
    /// Something is odd that may be so.
    Doubtful(&'static str),
    /// It is something else, or not all of it.
    Wrong(&'static str),
}

/// What a list told of an item, and what was doubtful of the answers so far.
#[derive(Debug)]
pub struct Expected {
    kind: Kind,
    /// How long the last doubtful answer was.
    doubted: Option<u64>,
}

#[derive(Debug)]
enum Kind {
    Message(Box<Told>),
    /// What is attached: its size as the store counts it, and whether it may be text that looks like an answer of a
    /// server.
    Attachment {
        size: Option<u64>,
        may_be_markup: bool,
        is_item: bool,
    },
    /// A message as an export stream, of which nothing is known beforehand: it is compressed, and only the service
    /// reads it.
    Stream,
}

impl Expected {
    /// Expects the bytes of the message that `row` tells of.
    pub fn message(row: &MessageRow) -> Self {
        Self { kind: Kind::Message(Box::new(Told::of(row))), doubted: None }
    }

    /// Expects the bytes of the attachment that `properties` (Graph: attachment) tell of.
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

    /// Expects a message as a stream that the service exports. Its id and version come beside it.
    pub fn stream() -> Self {
        Self { kind: Kind::Stream, doubted: None }
    }

    /// Accepts an answer, or says why it is to be asked for again.
    ///
    /// # Errors
    /// What is wrong or odd about it.
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

    /// Returns whether what has come, all of it, can be the item.
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
                    () if looks && (*is_item || is_short) => Verdict::Wrong("it is an answer of a server"),
                    () if seen.len == 0 && size > OVERHEAD_BYTES_MAX => Verdict::Wrong("it is empty"),
                    () if looks && !may_be_markup => Verdict::Doubtful("it looks like an answer of a server"),
                    () if seen.len == 0 && size > 0 => Verdict::Doubtful("it is empty"),
                    () if is_short || is_long => Verdict::Doubtful("it has another size"),
                    () => Verdict::Right,
                }
            }
            Kind::Stream if seen.is_empty() => Verdict::Wrong("it is empty"),
            Kind::Stream if seen.looks_like_an_answer() => Verdict::Wrong("it is an answer of a server"),
            Kind::Stream => Verdict::Right,
        }
    }

    /// Returns why what has begun to come cannot be the item, so that the rest need not be read.
    pub fn refuses_start(&self, seen: &Seen) -> Option<&'static str> {
        let Kind::Message(told) = &self.kind else { return None };
        match told.compare(seen) {
            Verdict::Wrong(why) => Some(why),
            _ => None,
        }
    }

    /// Holds the id in an answer that is JSON against the one that was asked for.
    ///
    /// # Errors
    /// If it is another.
    pub fn id(asked: &str, answered: &str) -> Result<(), &'static str> {
        // Both alphabets of base64 occur, with padding and without.
        let plain = |id: &str| id.trim_end_matches('=').replace('/', "-").replace('+', "_");
        if plain(asked) == plain(answered) { Ok(()) } else { Err("it is about another item") }
    }
}

/// What matters of a payload, noted while it passes.
#[derive(Debug, Default)]
pub struct Seen {
    len: u64,
    /// The header of a mail, or the start of anything else.
    head: Vec<u8>,
    /// Whether the blank line after the header has come.
    has_header: bool,
    /// What closes the outermost multipart, once the header has come and says that there is one.
    closing: Option<Closing>,
}

/// Looks for the line that closes a multipart (RFC 2046, 5.1.1).
#[derive(Debug)]
struct Closing {
    finder: memmem::Finder<'static>,
    /// The last bytes, in which it may have begun.
    tail: Vec<u8>,
    found: bool,
}

impl Closing {
    fn push(&mut self, bytes: &[u8]) {
        if self.found {
            return;
        }
        let overlap = self.finder.needle().len() - 1;
        // Where two pieces meet, and then the piece itself.
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
    /// Notes what `bytes` hold.
    pub fn of(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        seen.push(bytes);
        seen
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.len += piece.len() as u64;
        if self.has_header {
            if let Some(closing) = &mut self.closing {
                closing.push(piece);
            }
            return;
        }
        // A blank line may begin at the end of the piece before.
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

    /// Returns how many bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes note of so many bytes that are not shown.
    pub fn skip(&mut self, len: u64) {
        self.len += len;
    }

    /// Returns whether the outermost multipart, if there is one, is closed.
    fn is_closed(&self) -> bool {
        self.closing.as_ref().is_none_or(|closing| closing.found)
    }

    /// Returns whether a field of a header comes first (RFC 5322, 2.2).
    fn begins_with_field(&self) -> bool {
        let start = crate::content::mail::readable(&self.head);
        let header = split_message(&start).header.bytes();
        let mut lines = header.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.trim_ascii().is_empty());
        let field = lines.next().and_then(split_field);
        field.is_some_and(|field| field.name.iter().all(u8::is_ascii_graphic))
    }

    /// Returns whether it is what servers and proxies answer with: a document of JSON, HTML or XML.
    fn looks_like_an_answer(&self) -> bool {
        let start = self.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.head).trim_ascii_start();
        let start = start[..start.len().min(64)].to_ascii_lowercase();
        let is_json = start.first() == Some(&b'{') && start[1..].trim_ascii_start().starts_with(b"\"");
        let is_markup =
            [&b"<!doctype html"[..], b"<html", b"<?xml", b"<head"].iter().any(|begin| start.starts_with(begin));
        is_json || start == b"{}" || is_markup
    }
}

/// Returns where the header ends, its blank line included.
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
