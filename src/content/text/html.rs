//! HTML as text: its words in the order of the source, a line for each block, no line wrapped.
//!
//! The tokenizer follows the HTML standard and takes linear time. No tree is built, because building one can take
//! quadratic time for broken nesting.

mod source;

use self::source::Source;
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
/// Blocks with an empty line before and behind them.
const PARAGRAPHS: [&[u8]; 10] = [b"blockquote", b"h1", b"h2", b"h3", b"h4", b"h5", b"h6", b"p", b"pre", b"table"];
/// Elements whose text nobody sees. The tokenizer returns that text as one string, up to the end tag of the element.
const HIDDEN: [&[u8]; 6] = [b"iframe", b"noembed", b"noframes", b"script", b"style", b"title"];

/// Elements whose content is not markup. If the end tag is missing, they swallow all that follows.
const RAW: [&[u8]; 8] = [b"iframe", b"noembed", b"noframes", b"script", b"style", b"textarea", b"title", b"xmp"];
/// The index of `script` in [`RAW`]: nobody reads its content, even if its end tag is missing.
const SCRIPT: usize = 3;

/// Maximum depth of `noscript` in `noscript` that is read as HTML. Deeper ones only lose their tags. The tokenizer
/// takes the content for text, as browsers with scripts do, but mail programs run no scripts and show it.
const NOSCRIPT_DEPTH_MAX: usize = 4;

/// Returns the text that a page shows.
pub(super) fn to_text(html: &str) -> String {
    let mut page = Page::default();
    let mut done = 0;
    for start in unended(html) {
        // The start may lie in a tag that was skipped.
        if start >= done {
            page.read(&html[done..start]);
            done = html[start..].find('>').map_or(html.len(), |end| start + end + 1);
        }
    }
    page.read(&html[done..]);
    page.out
}

/// Returns the positions of comments and elements that never end and would hide all that follows. Old mail programs
/// took such comments for tags.
///
/// Two passes over the text find them all. Those inside a comment or an element that does end are ignored.
fn unended(html: &str) -> Vec<usize> {
    let html = html.as_bytes();
    let last_comment_end = memchr::memmem::rfind(html, b"-->").unwrap_or(0);
    let mut last_ends = [0; RAW.len()];
    for at in memchr::memchr_iter(b'<', html) {
        if let Some(element) = html[at + 1..].strip_prefix(b"/").and_then(raw_element) {
            last_ends[element] = at;
        }
    }
    let mut starts = Vec::new();
    // `comment_end`: all before this position lies in a comment. `open`: the element that is open.
    let (mut comment_end, mut open) = (0, None);
    for at in memchr::memchr_iter(b'<', html) {
        let tag = &html[at + 1..];
        if at < comment_end {
            continue;
        }
        if let Some(element) = open {
            if tag.strip_prefix(b"/").and_then(raw_element) == Some(element) {
                open = None;
            }
        } else if tag.starts_with(b"!--") {
            // `<!-->` is a whole comment, so the search begins inside the start.
            match (at < last_comment_end).then(|| memchr::memmem::find(&tag[1..], b"-->")).flatten() {
                Some(len) => comment_end = at + len,
                None => starts.push(at),
            }
        } else if let Some(element) = raw_element(tag)
            && !tag.get(RAW[element].len()).is_some_and(u8::is_ascii_alphanumeric)
        {
            if at < last_ends[element] {
                open = Some(element);
            } else if element == SCRIPT {
                break;
            } else {
                starts.push(at);
            }
        }
    }
    starts
}

/// Returns the index in [`RAW`] of the name that `tag` begins with.
fn raw_element(tag: &[u8]) -> Option<usize> {
    // Most tags have another first letter, so this is quick.
    if !matches!(tag.first()?.to_ascii_lowercase(), b'i' | b'n' | b's' | b't' | b'x') {
        return None;
    }
    RAW.iter().position(|name| tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

/// Returns a text without its tags, for `text/enriched` and `text/richtext`, which are older than HTML.
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

/// The text so far, and the line breaks before the next word.
#[derive(Default)]
struct Page {
    out: String,
    space: bool,
    /// Number of line endings before the next word: 1 for a new line, 2 for an empty line between.
    newlines: usize,
    hidden: bool,
    preformatted: usize,
    /// True if the next text is the content of a `noscript`.
    noscript: bool,
    /// Number of `noscript` elements that are open.
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
        let Ok(()) = Tokenizer::new_with_emitter(Source::new(html), emitter).finish();
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
                self.text(&String::from_utf8_lossy(value));
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
            self.text(&without_tags(html));
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

    fn text(&mut self, mut text: &str) {
        while let Some(char) = text.chars().next() {
            let word = text.find(|char| is_blank(char) || is_unseen(char)).unwrap_or(text.len());
            if word > 0 {
                self.separate();
                self.out.push_str(&text[..word]);
                text = &text[word..];
            } else {
                self.blank(char);
                text = &text[char.len_utf8()..];
            }
        }
    }

    fn blank(&mut self, char: char) {
        match char {
            '\n' if self.preformatted > 0 => self.newlines = (self.newlines + 1).min(2),
            _ if is_unseen(char) => {}
            _ => self.space = true,
        }
    }

    /// Writes the line endings or the space before the next word.
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

/// Returns whether a letter counts as a space. People who search for a phrase type spaces.
fn is_blank(char: char) -> bool {
    char.is_ascii_whitespace() || char.is_control() || char == '\u{a0}'
}

/// Returns whether a letter is invisible, so that nobody searches for it.
fn is_unseen(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{200b}' | '\u{feff}')
}
