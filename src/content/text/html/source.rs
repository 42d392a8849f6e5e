//! Gives a page to the tokenizer so that its recursion stays flat.
//!
//! The tokenizer (html5gum 0.9) reads the values of attributes in double quotes recursively: `<p a="" b="">` is two
//! calls deep, and returns at the end of the tag. A tag with some thousand of them would overflow the stack of a
//! thread, which ends the process. The recursion also returns at a letter directly behind a quote, so [`Source`] adds
//! one behind every few values. To the tokenizer it is the name of another attribute, and nobody reads attributes.

use html5gum::{Readable, Reader, StringReader};
use std::convert::Infallible;

/// Maximum number of values in double quotes that are read in one recursion. A level takes 9 KiB of stack in a build
/// without optimisation.
const VALUES_MAX: u32 = 8;
/// The letter that is added.
const ADDED: u8 = b'x';

/// A page, read from memory.
pub(super) struct Source<'a> {
    page: StringReader<'a>,
    /// Number of quotes since a letter was added.
    quotes: u32,
    /// True if the last thing read was a quote that may end a value.
    is_behind_quote: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(page: &'a str) -> Self {
        Self { page: page.to_reader(), quotes: 0, is_behind_quote: false }
    }
}

// The tokenizer calls these for every few letters, so they are inlined into it.
impl Reader for Source<'_> {
    type Error = Infallible;

    #[inline(always)]
    fn read_byte(&mut self) -> Result<Option<u8>, Infallible> {
        if std::mem::take(&mut self.is_behind_quote) && self.quotes >= VALUES_MAX {
            self.quotes = 0;
            return Ok(Some(ADDED));
        }
        self.page.read_byte()
    }

    #[inline(always)]
    fn try_read_string(&mut self, text: &[u8], case_sensitive: bool) -> Result<bool, Infallible> {
        self.is_behind_quote = false;
        self.page.try_read_string(text, case_sensitive)
    }

    #[inline(always)]
    fn read_until<'b>(&'b mut self, ends: &[u8], char_buf: &'b mut [u8; 4]) -> Result<Option<&'b [u8]>, Infallible> {
        let read = self.page.read_until(ends, char_buf)?;
        // Where a quote is no end, it is text.
        self.is_behind_quote = read == Some(b"\"") && ends.contains(&b'"');
        self.quotes += u32::from(self.is_behind_quote);
        Ok(read)
    }
}
