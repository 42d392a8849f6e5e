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

/// Returns the text that a page shows.
pub(super) fn to_text(html: &str) -> String {
    let mut page = Page::default();
    let mut rest = html;
    // Behind the last end of a comment, one that begins would hide all that follows. Old mail programs took it for a tag.
    let mut unended = &html[html.rfind("-->").unwrap_or(0)..];
    while let Some(at) = unended.find("<!--") {
        page.read(&rest[..rest.len() - unended.len() + at]);
        unended = unended[at..].split_once('>').map_or("", |(_, after)| after);
        rest = unended;
    }
    page.read(rest);
    page.out
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
                self.preformatted += usize::from(name == b"pre");
            }
            CallbackEvent::EndTag { name } => {
                self.tag(name);
                self.hidden = false;
                self.preformatted = self.preformatted.saturating_sub(usize::from(name == b"pre"));
            }
            CallbackEvent::String { value } if !self.hidden => {
                let text = String::from_utf8_lossy(value);
                text.chars().for_each(|char| self.char(char));
            }
            _ => {}
        }
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
