//! Cuts a mail into the bytes around its attachments and the attachments themselves, decoded.
//!
//! Base64 hides a document from deduplication and from compression. [`split`] therefore finds the base64 bodies of a
//! MIME message and hands out their decoded bytes together with a [`Base64Form`], the layout of the text: everything
//! that is needed to give back the exact original. What has no such layout stays as it is, as [`Segment::Raw`].
//!
//! Invariants:
//! - The segments, put together, are the message, for any input whatever. Each decoded body is rendered again with the
//!   code that restores use and compared with the message before it is kept.
//! - Time is linear in the message: the scan only moves forward. Memory is bounded by the message's size.
//!
//! [`crate::content::mail`] says which parts a mail has and how their contents travelled. A mail without a field that
//! announces base64 is not taken apart at all. Outside of those parts the fields count wherever they begin a line: so
//! what is attached to a mail that a report quotes in clear is found, and what lies behind a damaged structure. A
//! nested message that is itself encoded in base64 is decoded as a blob.
//!
//! A body of which only a part has a regular layout (a footer of a mailing list, a line cut or joined on the way,
//! missing padding, wrong padding bits, other line endings from some line on) is split into runs that do, with raw
//! bytes between them. Text that has a blank at each line's end, or CR alone, has no layout that a [`Base64Form`] can
//! say, and stays raw.

mod form;
mod run;

pub use form::Base64Form;

use crate::content::mail::find::FieldFinder;
use crate::content::mail::header;
use crate::content::mail::structure::{Kind, PARTS_MAX, Structure};
use crate::content::mail::transfer::Encoding;
use run::Run;
use std::ops::Range;

/// Decoded bodies smaller than this stay raw: what a reference to a chunk of their own costs, and what compression
/// loses when they are torn from their neighbours, is about what decoding them would save.
pub const DECODED_BYTES_MIN: usize = 512;

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Bytes that are kept as they are.
    Raw(&'a [u8]),
    /// A body, or a regular part of one, that was base64 text.
    Base64 {
        /// What the text encodes; at least [`DECODED_BYTES_MIN`] bytes.
        decoded: Vec<u8>,
        /// How to give back the text.
        form: Base64Form,
    },
}

/// Cuts `message` into segments that, put together, are `message`: always, for any input.
///
/// No two raw segments are neighbours, and none is empty; a message without base64 bodies is one raw segment.
pub fn split(message: &[u8]) -> Vec<Segment<'_>> {
    let mut cutter = Cutter { message, segments: Vec::new(), raw_start: 0, cr: false };
    if let Some(first) = announced(message, 0) {
        let structure = Structure::of(message, PARTS_MAX);
        cutter.cr = structure.cr;
        let mut at = first;
        for body in base64_bodies(message, &structure) {
            cutter.cut_clear(at..body.start.max(at));
            cutter.cut_body(body.clone());
            at = body.end;
        }
        cutter.cut_clear(at..message.len());
    }
    cutter.push_raw(message.len());
    cutter.segments
}

/// Returns where the field stands that announces the next body in base64 at or after `from`.
fn announced(message: &[u8], from: usize) -> Option<usize> {
    static FINDER: FieldFinder<25> = FieldFinder::new(b"content-transfer-encoding");
    let mut from = from;
    loop {
        let (at, field) = FINDER.find(message, from)?;
        if Encoding::named(field.value) == Encoding::Base64 {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Returns where the bodies stand whose parts say that they are base64 and that look like it, in their order.
fn base64_bodies(message: &[u8], structure: &Structure<'_>) -> impl Iterator<Item = Range<usize>> {
    let leaves = structure.parts.iter().filter(|part| part.kind == Kind::Leaf && part.encoding == Encoding::Base64);
    leaves.filter(|part| part.encoding.is_encoded(part.body)).map(|part| {
        // The line ending before a boundary belongs to the boundary, and ends the last line all the same.
        let end = part.body_start + part.body.len();
        let eol = match message[end..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        part.body_start..end + eol
    })
}

/// A message that is being cut, from its start on.
struct Cutter<'a> {
    message: &'a [u8],
    segments: Vec<Segment<'a>>,
    /// Where the raw bytes begin that are in no segment yet.
    raw_start: usize,
    /// Lines may end with CR alone.
    cr: bool,
}

impl Cutter<'_> {
    /// Cuts the runs out of a body in base64.
    fn cut_body(&mut self, body: Range<usize>) {
        let message = &self.message[..body.end];
        let mut at = body.start;
        while at < body.end {
            at = match Run::scan(message, at) {
                Some(run) => line_from(message, self.keep(run)),
                None => next_line(message, at),
            };
        }
    }

    /// Cuts the runs out of what fields announce in a stretch outside of such bodies. There a line that is no base64
    /// ends them: a blank line, a boundary, or text.
    fn cut_clear(&mut self, clear: Range<usize>) {
        let message = &self.message[..clear.end];
        let mut at = clear.start;
        while let Some(field) = announced(message, at) {
            at = field + header::split_part(&message[field..], self.cr).body_start;
            while matches!(message[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
                at = next_line(message, at);
            }
            while let Some(run) = Run::scan(message, at) {
                at = line_from(message, self.keep(run));
            }
        }
    }

    /// Makes a segment of a run that is long enough, and returns where it ends.
    fn keep(&mut self, run: Run) -> usize {
        let end = run.range.end;
        if run.decoded.len() >= DECODED_BYTES_MIN && run.is_proven(self.message) {
            self.push_raw(run.range.start);
            self.raw_start = end;
            self.segments.push(Segment::Base64 { decoded: run.decoded, form: run.form });
        }
        end
    }

    /// Makes a segment of the raw bytes before `end`.
    fn push_raw(&mut self, end: usize) {
        if self.raw_start < end {
            self.segments.push(Segment::Raw(&self.message[self.raw_start..end]));
        }
    }
}

/// Returns where the first line begins at or after `at`.
fn line_from(message: &[u8], at: usize) -> usize {
    if message[..at].ends_with(b"\n") { at } else { next_line(message, at) }
}

fn next_line(message: &[u8], at: usize) -> usize {
    at + header::line_len(&message[at..], false)
}

#[cfg(test)]
mod tests;
