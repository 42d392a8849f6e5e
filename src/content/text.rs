//! A mail as the text that people read. The text view shows it, and `grep` searches it.
//!
//! ```text
//! From: Jörg Müller <joerg@example.org>       the main headers, decoded
//! Subject: Grüße
//!
//! the body as UTF-8: plain text as it is, HTML as text without wrapped lines
//!
//! Attachments:
//! - plan.pdf, 48213 bytes                     names and sizes, not the content
//!
//! ======== Attached message ========         nested messages in the same form
//! ```
//!
//! Text in a multipart before its first boundary and behind its last one is shown in its place, without sentences about
//! MIME. A multipart that is encoded as a whole is shown like any other.
//!
//! Of a `multipart/alternative`, the plain text is shown, and those lines of the HTML that have words which the plain
//! text lacks.
//!
//! Invariants, for any input:
//! - The text is valid UTF-8 with LF for line endings and no other control characters than tabs. It is at most about
//!   [`TEXT_BYTES_MAX`] long. If something was left out, the text says so.
//! - Time is linear in the message. Besides the message, memory holds the positions of its parts, one decoded part and
//!   the text.
//! - The same message always gives the same text, because sizes and deduplication depend on it.

mod html;
mod outside;

use crate::content::mail;
use crate::content::mail::address::one_line;
use crate::content::mail::charset::{self, Charset};
use crate::content::mail::structure::{Kind, Outside, PARTS_MAX, Part, Structure};
use crate::content::mail::words;
use ahash::AHashSet;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Maximum length of the text of a mail, in bytes. The rest is left out.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// Maximum depth of encoded messages in encoded messages, because each level holds another copy in memory.
const ENCODED_DEPTH_MAX: usize = 8;

/// The headers that are shown, in this order.
const SHOWN: [&str; 7] = ["From", "To", "Cc", "Bcc", "Reply-To", "Date", "Subject"];

/// Returns the text of a mail. `whole` says whether `message` is all of it; from the start of a mail comes the start of
/// its text.
pub fn of_mail(message: &[u8], whole: bool) -> String {
    let mut text = Text { out: String::new(), parts_left: PARTS_MAX, cut: false };
    text.read(message, 0);
    if text.cut || !whole {
        text.line("");
        text.line("[The message is longer than what is shown here as text.]");
    }
    text.out
}

/// Returns the text that a page of HTML shows.
pub fn of_html(html: &str) -> String {
    html::to_text(html)
}

struct Text {
    out: String,
    /// Number of parts that may still be read.
    parts_left: usize,
    /// True if something was left out.
    cut: bool,
}

/// A nested message that is still to be shown.
enum Waiting {
    /// The message is not encoded; holds the number of its first part.
    Clear(usize),
    /// The message is encoded; holds the number of the part that it is encoded in.
    Encoded(usize),
}

/// The text of one part that people read.
struct Body {
    /// The number of the `multipart/alternative` that the part belongs to.
    alternative: Option<usize>,
    is_html: bool,
    text: String,
}

impl Text {
    /// Writes the text of a message and of all messages in it. `depth` is the number of encoded messages around it.
    fn read(&mut self, message: &[u8], depth: usize) {
        let message = mail::readable(message);
        let structure = Structure::of(&message, self.parts_left);
        let opened = structure.opened(&message);
        let structure = opened.as_ref().map_or(structure, |opened| Structure::of(opened, self.parts_left));
        self.cut |= structure.incomplete;
        self.parts_left = self.parts_left.saturating_sub(structure.parts.len());
        // The messages that are still to be shown. The next one is the last in the list.
        let mut waiting = vec![Waiting::Clear(0)];
        while let Some(next) = waiting.pop() {
            if self.is_full() {
                self.cut = true;
                return;
            }
            let root = match next {
                Waiting::Clear(root) => root,
                Waiting::Encoded(number) => {
                    self.encoded(&structure.parts[number], depth);
                    continue;
                }
            };
            if root > 0 {
                self.rule();
            }
            self.message(&structure, root);
            let first = waiting.len();
            for (number, part) in structure.leaves(root) {
                if part.kind == Kind::Message {
                    waiting.push(Waiting::Clear(number + 1));
                } else if part.is_message() {
                    waiting.push(Waiting::Encoded(number));
                }
            }
            waiting[first..].reverse();
        }
    }

    /// Writes the text of an encoded nested message.
    fn encoded(&mut self, part: &Part<'_>, depth: usize) {
        if depth == ENCODED_DEPTH_MAX || self.parts_left == 0 {
            self.cut = true;
            return;
        }
        let encoded = part.encoded();
        let message = encoded.decoded(TEXT_BYTES_MAX);
        self.cut |= message.len() >= TEXT_BYTES_MAX && !encoded.is_identity();
        self.rule();
        self.read(&message, depth + 1);
    }

    fn rule(&mut self) {
        self.line("");
        self.line("======== Attached message ========");
    }

    fn message(&mut self, structure: &Structure<'_>, root: usize) {
        let charset = structure.charset(root);
        let header = structure.parts[root].header;
        let mut values: [Option<&[u8]>; SHOWN.len()] = [None; SHOWN.len()];
        for field in header.fields() {
            if let Some(number) = SHOWN.iter().position(|name| field.is(name))
                && values[number].is_none()
                && !field.value.trim_ascii().is_empty()
            {
                values[number] = Some(field.value);
            }
        }
        for (name, value) in SHOWN.iter().zip(values) {
            let value = value.map(|value| one_line(&words::decode(value, charset)));
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                self.line(&format!("{name}: {value}"));
            }
        }
        self.line("");
        self.bodies(structure, root);
        self.attachments(structure, root, charset);
    }

    fn bodies(&mut self, structure: &Structure<'_>, root: usize) {
        let mut bodies: Vec<Body> = Vec::new();
        let mut len = 0;
        let mut outside = structure.outside(root).peekable();
        let mut leaves = structure.leaves(root).filter(|(_, part)| is_body(part)).peekable();
        loop {
            let left = TEXT_BYTES_MAX.saturating_sub(self.out.len() + len);
            let number = leaves.peek().map(|(number, _)| *number);
            let body = if let Some(outside) = outside.next_if(|next| number.is_none_or(|number| next.next <= number)) {
                Body { alternative: None, is_html: false, text: self.outside(structure, outside, left) }
            } else if let Some((_, part)) = leaves.next() {
                Body { alternative: part.alternative, is_html: part.is_html(), text: self.body(part, left) }
            } else {
                break;
            };
            if left == 0 {
                self.cut = true;
                break;
            }
            len += body.text.len();
            bodies.push(body);
        }
        // For each `multipart/alternative` with HTML, the words of its plain parts.
        let with_html: HashSet<usize> =
            bodies.iter().filter(|body| body.is_html).filter_map(|body| body.alternative).collect();
        let mut plain: HashMap<usize, AHashSet<&str>> = HashMap::new();
        for body in bodies.iter().filter(|body| !body.is_html) {
            if let Some(group) = body.alternative.filter(|group| with_html.contains(group)) {
                plain.entry(group).or_default().extend(words_in(&body.text));
            }
        }
        for body in &bodies {
            let words = body.alternative.and_then(|group| plain.get(&group));
            let shown = match words.filter(|words| body.is_html && !words.is_empty()) {
                Some(words) => what_is_new(&body.text, words),
                None => Cow::Borrowed(&*body.text),
            };
            if !shown.is_empty() {
                self.out.push_str(&shown);
                if !shown.ends_with('\n') {
                    self.out.push('\n');
                }
            }
        }
    }

    /// Returns at most about `left` bytes of the text of a part.
    fn body(&mut self, part: &Part<'_>, left: usize) -> String {
        let (text, whole) = part.text(TEXT_BYTES_MAX);
        self.cut |= !whole;
        let mut body = match part.media_type() {
            _ if part.is_html() => html::to_text(&text),
            "text/enriched" | "text/richtext" => clean(&html::without_tags(&text)),
            _ => clean(&text),
        };
        self.shorten(&mut body, left);
        body
    }

    /// Returns at most about `left` bytes of a text outside of all parts.
    fn outside(&mut self, structure: &Structure<'_>, outside: &Outside<'_>, left: usize) -> String {
        let bytes = &outside.text[..outside.text.len().min(TEXT_BYTES_MAX)];
        self.cut |= bytes.len() < outside.text.len();
        let mut text = clean(&charset::decode_as(bytes, None));
        if outside.next == outside.parent + 1 && structure.parts[outside.parent].end > outside.next {
            text = outside::without_notes(&text);
        }
        self.shorten(&mut text, left);
        text.trim_matches('\n').to_owned()
    }

    fn shorten(&mut self, text: &mut String, len_max: usize) {
        if text.len() > len_max {
            self.cut = true;
            text.truncate(text.floor_char_boundary(len_max));
        }
    }

    fn attachments(&mut self, structure: &Structure<'_>, root: usize, charset: Option<Charset>) {
        let mut is_first = true;
        for (_, part) in structure.leaves(root) {
            let name = part.file_name(charset);
            if is_body(part) && name.is_none() {
                continue;
            }
            if std::mem::take(&mut is_first) {
                self.line("");
                self.line("Attachments:");
            }
            if self.is_full() {
                self.cut = true;
                return;
            }
            let name = name.unwrap_or_else(|| one_line(part.media_type()));
            let len = match part.kind {
                Kind::Message => part.body.len(),
                _ => part.encoded().decoded_len(),
            };
            self.line(&format!("- {name}, {len} bytes"));
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

/// Returns whether people read the text of a part as the body of the mail.
fn is_body(part: &Part<'_>) -> bool {
    part.kind == Kind::Leaf && part.is_text() && !part.is_attachment()
}

fn words_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Returns the lines with words that are not in `known`. If these lines are more than half of the text, returns all of
/// it.
fn what_is_new<'a>(text: &'a str, known: &AHashSet<&str>) -> Cow<'a, str> {
    let mut new = String::new();
    let (mut letters, mut new_letters) = (0, 0);
    for line in text.lines() {
        let len: usize = words_in(line).map(str::len).sum();
        letters += len;
        if words_in(line).any(|word| !known.contains(word)) {
            new_letters += len;
            new.push_str(line);
            new.push('\n');
        }
    }
    if new_letters * 2 > letters { text.into() } else { new.into() }
}

/// Ends lines with LF, and replaces other control characters except tabs by spaces.
fn clean(text: &str) -> String {
    // A line ending that was converted twice.
    let text = if text.contains("\r\r\n") { Cow::Owned(text.replace("\r\r\n", "\n")) } else { Cow::Borrowed(text) };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut clean = String::with_capacity(text.len());
    // The start of the text that was not copied yet.
    let mut copied = 0;
    let mut at = 0;
    while let Some(len) = text.as_bytes()[at..].iter().position(may_begin_control) {
        at += len;
        let char = text[at..].chars().next().expect("a byte that begins a letter stands there");
        let next = at + char.len_utf8();
        if char.is_control() && !matches!(char, '\n' | '\t') {
            clean.push_str(&text[copied..at]);
            match char {
                '\r' if text.as_bytes().get(next) == Some(&b'\n') => {}
                '\r' => clean.push('\n'),
                _ => clean.push(' '),
            }
            copied = next;
        }
        at = next;
    }
    clean.push_str(&text[copied..]);
    clean
}

/// Returns whether a byte is, or begins, a control character other than tab and LF.
fn may_begin_control(byte: &u8) -> bool {
    matches!(byte, 0..=8 | 0x0b..=0x1f | 0x7f | 0xc2)
}

#[cfg(test)]
mod tests;
