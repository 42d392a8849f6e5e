//! Cuts a mail into its attachments, decoded, and the bytes around them.
//!
//! Base64 hides a document from deduplication and compression. [`split`] finds the base64 bodies of a MIME message and
//! returns their decoded bytes together with a [`Base64Form`], the layout of the text. From both, a restore makes
//! exactly the original text. Text without such a layout stays as it is, as [`Segment::Raw`].
//!
//! Invariants:
//! - The segments, joined, are the message, for any input. Each decoded body is encoded again with the code that
//!   restores use, and compared with the message, before it is kept.
//! - Time is linear in the message, because the scan only moves forward. Memory is bounded by the size of the message.
//!
//! [`crate::content::mail`] says which parts a mail has and how they are encoded. A mail without a field that announces
//! base64 is not parsed at all. Outside of the parts that are base64, a field that announces base64 counts wherever it
//! begins a line. So attachments are found in a mail that a report quotes in clear, and behind a damaged structure. A
//! nested message that is itself encoded in base64 is decoded as a blob.
//!
//! A body that has a regular layout only in places (a footer of a mailing list, a line cut or joined on the way,
//! missing padding, wrong padding bits, line endings that change) is split into regular runs with raw bytes between
//! them. Text with a blank at the end of each line, or with CR alone, stays raw, because [`Base64Form`] cannot describe
//! it.

mod form;
mod run;

pub use form::Base64Form;

use crate::content::mail::find::FieldFinder;
use crate::content::mail::header;
use crate::content::mail::structure::{Kind, PARTS_MAX, Structure};
use crate::content::mail::transfer::Encoding;
use run::Run;
use std::ops::Range;

/// Minimum length of a decoded body, in bytes; smaller ones stay raw. A chunk of their own costs a reference, and
/// compression works worse without the neighbouring bytes: about as much as decoding would save.
pub const DECODED_BYTES_MIN: usize = 512;

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Bytes that are kept as they are.
    Raw(&'a [u8]),
    /// A base64 body, or a regular run of one.
    Base64 {
        /// The decoded bytes; at least [`DECODED_BYTES_MIN`].
        decoded: Vec<u8>,
        /// The layout of the base64 text.
        form: Base64Form,
    },
}

/// Cuts `message` into segments. For any input, the segments joined are `message`.
///
/// No two raw segments are neighbours, and none is empty. A message without base64 bodies is one raw segment.
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

/// Returns the position of the next field at or after `from` that announces a base64 body.
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

/// Returns the ranges of the bodies that are declared as base64 and look like it, in their order.
fn base64_bodies(message: &[u8], structure: &Structure<'_>) -> impl Iterator<Item = Range<usize>> {
    let leaves = structure.parts.iter().filter(|part| part.kind == Kind::Leaf && part.encoding == Encoding::Base64);
    leaves.filter(|part| part.encoding.is_encoded(part.body)).map(|part| {
        // The line ending before a boundary belongs to the boundary, but here it ends the last line of the body, too.
        let end = part.body_start + part.body.len();
        let eol = match message[end..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        part.body_start..end + eol
    })
}

/// The state while a message is cut, from its start to its end.
struct Cutter<'a> {
    message: &'a [u8],
    segments: Vec<Segment<'a>>,
    /// The start of the raw bytes that are in no segment yet.
    raw_start: usize,
    /// True if lines may end with CR alone.
    cr: bool,
}

impl Cutter<'_> {
    /// Cuts the runs out of a base64 body.
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

    /// Cuts the runs out of a stretch outside of such bodies, behind each field that announces base64. Here a line that
    /// is not base64 ends the body: a blank line, a boundary, or text.
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

    /// Makes a segment of a run if it is long enough. Returns the end of the run.
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

/// Returns the start of the first line at or after `at`.
fn line_from(message: &[u8], at: usize) -> usize {
    if message[..at].ends_with(b"\n") { at } else { next_line(message, at) }
}

fn next_line(message: &[u8], at: usize) -> usize {
    at + header::line_len(&message[at..], false)
}

#[cfg(test)]
mod tests;
