//! A mail as the text that people read: what the text view shows, and what `grep` finds.
//!
//! ```text
//! From: Jörg Müller <joerg@example.org>       the main headers, decoded
//! Subject: Grüße
//!
//! the body as UTF-8: plain text as it is, HTML as text without wrapped lines
//!
//! Attachments:
//! - plan.pdf, 48213 bytes                     names and sizes; what is in them stays out
//!
//! ======== Attached message ========         nested messages in the same form
//! ```
//!
//! Of alternatives the plain one is shown, and the HTML one too where the plain one says much less.
//!
//! Invariants, for any input whatever:
//! - The text is valid UTF-8 with LF for line endings and no other control characters than tabs, and at most
//!   [`TEXT_BYTES_MAX`] long, some lines more or less. Where something was left out, the text says so.
//! - Time is linear in the message, with the depth of nesting as a factor, and that is bounded. Beside the message, memory
//!   holds one decoded part and the text.
//! - The same message gives the same text: sizes and deduplication rely on it.
//!
//! The parts are found by [`parts`], not by the parser that reads the headers: that one nests as deep as a message asks
//! it to, and decodes all attachments into memory.

mod decode;
mod html;
mod parts;

use self::parts::{Header, Leaf, Leaves};
use crate::mail;
use mail_parser::HeaderName;
use std::borrow::Cow;
use std::collections::HashMap;

/// The text of a mail ends after this many bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// Messages in messages in messages: so deep are they looked into.
const NESTED_MAX: usize = 8;
/// An HTML alternative is shown too where it has this many times as many letters and digits as the plain one.
const HTML_EXCESS: usize = 2;

/// The headers that are shown, as people look for them.
const SHOWN: [(&str, HeaderName<'static>); 7] = [
    ("From", HeaderName::From),
    ("To", HeaderName::To),
    ("Cc", HeaderName::Cc),
    ("Bcc", HeaderName::Bcc),
    ("Reply-To", HeaderName::ReplyTo),
    ("Date", HeaderName::Date),
    ("Subject", HeaderName::Subject),
];

/// Returns the text of a mail. `whole` is whether `message` is all of it; the start of a mail gives the start of its text.
pub fn of_mail(message: &[u8], whole: bool) -> String {
    let mut text = Text { out: String::new(), parts_left: parts::PARTS_MAX, cut: false };
    text.message(mail::without_from_line(message), 0);
    if text.cut || !whole {
        text.line("");
        text.line("[The message is longer than what is shown here as text.]");
    }
    text.out
}

struct Text {
    out: String,
    /// How many more parts are looked at.
    parts_left: usize,
    /// Something was left out.
    cut: bool,
}

impl Text {
    fn message(&mut self, message: &[u8], depth: usize) {
        let (header, body) = parts::split_header(message);
        let header = Header::parse(header);
        self.headers(&header);
        let leaves = Leaves::collect(&header, body, &mut self.parts_left);
        self.cut |= leaves.incomplete;
        self.bodies(&leaves);
        self.attachments(&leaves);
        for leaf in leaves.all.iter().filter(|leaf| leaf.is_message()) {
            if depth == NESTED_MAX || self.is_full() {
                self.cut = true;
                return;
            }
            self.line("");
            self.line("======== Attached message ========");
            self.message(mail::without_from_line(&leaf.decoded(usize::MAX)), depth + 1);
        }
    }

    fn headers(&mut self, header: &Header) {
        for (label, name) in SHOWN {
            if let Some(value) = header.text(name) {
                self.line(&format!("{label}: {}", decode::one_line(value)));
            }
        }
        self.line("");
    }

    fn bodies(&mut self, leaves: &Leaves<'_>) {
        let mut bodies: Vec<(&Leaf<'_>, String)> = Vec::new();
        let mut len = 0;
        for leaf in leaves.all.iter().filter(|leaf| leaf.is_body()) {
            let left = TEXT_BYTES_MAX.saturating_sub(self.out.len() + len);
            if left == 0 {
                self.cut = true;
                break;
            }
            let body = self.body(leaf, left);
            len += body.len();
            bodies.push((leaf, body));
        }
        // Letters of the plain and the HTML parts of each group of alternatives.
        let mut letters: HashMap<usize, [usize; 2]> = HashMap::new();
        for (leaf, body) in &bodies {
            if let Some(alternative) = leaf.alternative {
                letters.entry(alternative).or_default()[usize::from(leaf.is_html())] += letters_in(body);
            }
        }
        for (leaf, body) in &bodies {
            let [plain, html] = leaf.alternative.map_or([0, 0], |alternative| letters[&alternative]);
            let is_needless = leaf.is_html() && html < plain.saturating_mul(HTML_EXCESS);
            if !is_needless && !body.is_empty() {
                self.out.push_str(body);
                if !body.ends_with('\n') {
                    self.out.push('\n');
                }
            }
        }
    }

    /// Returns the text of a part, about `left` bytes at most.
    fn body(&mut self, leaf: &Leaf<'_>, left: usize) -> String {
        let decoded = leaf.decoded(TEXT_BYTES_MAX);
        self.cut |= decoded.len() >= TEXT_BYTES_MAX;
        let text = decode::to_utf8(&decoded, leaf.charset(&decoded).as_deref());
        let mut body = match leaf.is_html() {
            true => html::to_text(&text),
            false => decode::clean(&text),
        };
        if !leaf.footer().is_empty() {
            body.push('\n');
            body.push_str(&decode::clean(&decode::to_utf8(leaf.footer(), None)));
        }
        if body.len() > left {
            self.cut = true;
            body.truncate(body.floor_char_boundary(left));
        }
        body
    }

    fn attachments(&mut self, leaves: &Leaves<'_>) {
        let mut attachments = leaves.all.iter().filter(|leaf| leaf.is_listed()).peekable();
        if attachments.peek().is_some() {
            self.line("");
            self.line("Attachments:");
        }
        for leaf in attachments {
            if self.is_full() {
                self.cut = true;
                return;
            }
            self.line(&format!("- {}, {} bytes", decode::one_line(&leaf.name()), leaf.decoded_len()));
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn is_full(&self) -> bool {
        self.out.len() >= TEXT_BYTES_MAX
    }
}

fn letters_in(text: &str) -> usize {
    text.chars().filter(|char| char.is_alphanumeric()).count()
}

/// Bytes that may have been decoded.
type Bytes<'a> = Cow<'a, [u8]>;

#[cfg(test)]
mod tests;
