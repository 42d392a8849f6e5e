//! HTML as text: its words in the order of the source, a line for each block, nothing wrapped.
//!
//! The tokenizer follows the HTML standard and takes linear time. No tree is built: broken nesting, on which building
//! one can take quadratic time, does not matter here.

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use std::convert::Infallible;

/// Elements that begin and end on a line of their own.
const BLOCKS: [&[u8]; 30] = [
    b"address",
    b"article",
    b"aside",
    b"body",
    b"center",
    b"dd",
    b"details",
    b"dir",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"figure",
    b"footer",
    b"form",
    b"header",
    b"hr",
    b"html",
    b"li",
    b"main",
    b"menu",
    b"nav",
    b"ol",
    b"option",
    b"section",
    b"summary",
    b"tbody",
    b"thead",
    b"tr",
    b"ul",
];
/// Blocks with an empty line around them.
const PARAGRAPHS: [&[u8]; 10] = [b"blockquote", b"h1", b"h2", b"h3", b"h4", b"h5", b"h6", b"p", b"pre", b"table"];
/// Elements whose text nobody sees. The tokenizer gives it as one string, up to their own end tag.
const HIDDEN: [&[u8]; 6] = [b"iframe", b"noembed", b"noframes", b"script", b"style", b"title"];

/// Elements whose content is no markup, and swallows all that follows where its end is missing. What scripts hold is
/// nothing that anybody wrote to be read.
const RAW: [&str; 7] = ["iframe", "noembed", "noframes", "style", "textarea", "title", "xmp"];

/// The tokenizer takes the content of `noscript` for text, as browsers with scripts do; people who read mail have none.
/// Pages in it that lie deeper in each other than this lose their tags alone.
const NOSCRIPT_DEPTH_MAX: usize = 4;

/// Returns the text that a page shows.
pub(super) fn to_text(html: &str) -> String {
    let mut page = Page::default();
    let mut done = 0;
    for start in unended(html) {
        // It may lie in a tag that was passed over.
        if start >= done {
            page.read(&html[done..start]);
            done = html[start..].find('>').map_or(html.len(), |end| start + end + 1);
        }
    }
    page.read(&html[done..]);
    page.out
}

/// Returns where comments and elements begin that never end, and would hide all that follows. Old mail programs took
/// such comments for tags.
fn unended(html: &str) -> Vec<usize> {
    let comments = html.rfind("-->").unwrap_or(0);
    let mut starts: Vec<usize> = html[comments..].match_indices("<!--").map(|(at, _)| comments + at).collect();
    let lower = html.to_ascii_lowercase();
    for name in RAW {
        let end = lower.rfind(&format!("</{name}")).unwrap_or(0);
        let is_tag = |at: &usize| !lower[at + 1 + name.len()..].starts_with(|char: char| char.is_ascii_alphanumeric());
        starts.extend(lower[end..].match_indices(&format!("<{name}")).map(|(at, _)| end + at).filter(is_tag));
    }
    starts.sort_unstable();
    starts
}

/// Returns a text without its tags: of kinds of marked-up text that are older than HTML.
pub(super) fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        rest = match after.strip_prefix('<') {
            Some(after) => {
                out.push('<');
                after
            }
            None => after.split_once('>').map_or("", |(_, after)| after),
        };
    }
    out + rest
}

/// The text so far, and what is due before the next word.
#[derive(Default)]
struct Page {
    out: String,
    space: bool,
    /// 1 for a new line, 2 for an empty line between.
    newlines: usize,
    hidden: bool,
    preformatted: usize,
    /// The next text is the content of a `noscript`.
    noscript: bool,
    /// How many of them are open.
    noscript_depth: usize,
}

impl Page {
    fn read(&mut self, html: &str) {
        let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
            self.take(event);
            None
        });
        emitter.naively_switch_states(true);
        // Reading from memory cannot fail.
        let Ok(()) = Tokenizer::new_with_emitter(html, emitter).finish();
    }

    fn take(&mut self, event: CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.tag(name);
                self.hidden = HIDDEN.contains(&name);
                self.noscript = name == b"noscript";
                self.preformatted += usize::from(name == b"pre");
            }
            CallbackEvent::EndTag { name } => {
                self.tag(name);
                self.hidden = false;
                self.noscript = false;
                self.preformatted = self.preformatted.saturating_sub(usize::from(name == b"pre"));
            }
            CallbackEvent::String { value } if self.noscript => {
                self.noscript(&String::from_utf8_lossy(value));
            }
            CallbackEvent::String { value } if !self.hidden => {
                let text = String::from_utf8_lossy(value);
                text.chars().for_each(|char| self.char(char));
            }
            _ => {}
        }
    }

    /// Reads the content of a `noscript`, which is HTML.
    fn noscript(&mut self, html: &str) {
        let preformatted = self.preformatted;
        self.noscript = false;
        if self.noscript_depth < NOSCRIPT_DEPTH_MAX {
            self.noscript_depth += 1;
            self.read(html);
            self.noscript_depth -= 1;
        } else {
            without_tags(html).chars().for_each(|char| self.char(char));
        }
        (self.hidden, self.noscript, self.preformatted) = (false, false, preformatted);
    }

    fn tag(&mut self, name: &[u8]) {
        match name {
            b"br" => self.newlines = (self.newlines + 1).min(2),
            b"td" | b"th" => self.space = true,
            _ if PARAGRAPHS.contains(&name) => self.newlines = 2,
            _ if BLOCKS.contains(&name) => self.newlines = self.newlines.max(1),
            _ => {}
        }
    }

    fn char(&mut self, char: char) {
        match char {
            '\n' if self.preformatted > 0 => self.newlines = (self.newlines + 1).min(2),
            // Who searches for a phrase types spaces, and no hyphens that are not seen.
            '\u{a0}' => self.space = true,
            '\u{ad}' | '\u{200b}' | '\u{feff}' => {}
            _ if char.is_ascii_whitespace() || char.is_control() => self.space = true,
            _ => {
                self.separate();
                self.out.push(char);
            }
        }
    }

    /// Writes what is due before a word.
    fn separate(&mut self) {
        if self.newlines > 0 {
            let there = if self.out.is_empty() { self.newlines } else { 0 };
            (there..self.newlines).for_each(|_| self.out.push('\n'));
        } else if self.space && !self.out.is_empty() {
            self.out.push(' ');
        }
        (self.newlines, self.space) = (0, false);
    }
}
