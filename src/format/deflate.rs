//! Deflate streams (RFC 1951) as their plain bytes and a few corrections.
//!
//! A stream's maker had choices: which copies to take, where blocks end, which codes to use. Most makers are zlib.
//! [`take_apart`] predicts each choice as zlib makes it and notes those that were others. [`recreate`] makes the same
//! predictions, applies the notes, and so makes the very same stream again. `docs/repository-format.md`, "Deflated
//! streams", has the predictor and the corrections to the last detail.

mod analyse;
mod bits;
mod choose;
mod codes;
mod corrections;
mod encode;
mod matcher;
mod parameters;
mod parse;
mod predictor;
mod recreate;
mod trees;
mod varint;

#[cfg(test)]
mod tests;

/// What bounds [`take_apart`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of plain bytes.
    pub plain_max: usize,
    /// Maximum number of plain bytes for each byte of the stream.
    pub ratio_max: usize,
}

/// A stream that was taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// What the stream stands for.
    pub plain: Vec<u8>,
    /// What [`recreate`] needs besides.
    pub corrections: Vec<u8>,
    /// Bytes of the stream, including the last one if only a part of it was used.
    pub stream_len: usize,
}

/// Why a stream could not be made again.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecreateError {
    /// The corrections were made by a later version of the program.
    #[error("corrections of a deflate stream are of version {0}, which this program does not know")]
    Version(u8),
    /// The corrections contradict themselves, or the plain bytes.
    #[error("corrections of a deflate stream are damaged: {0}")]
    Corrections(&'static str),
    /// There are too few plain bytes, or too many.
    #[error("plain bytes of a deflate stream do not belong to its corrections: {0}")]
    Plain(&'static str),
    /// More candidates would be looked at than [`take_apart`] allows.
    #[error("making a deflate stream again takes too many steps")]
    Steps,
    /// The function that takes the stream refused a part of it.
    #[error("a part of a deflate stream was refused")]
    Sink,
}

/// Returns how many candidates may be looked at for a stream. Only hostile streams need more.
fn steps_max(plain_len: usize) -> u64 {
    (1 << 22) + 128 * plain_len as u64
}

/// Takes the deflate stream at the beginning of `stream` apart.
///
/// None if there is none, if a limit is met, or if the stream could not be made again.
pub fn take_apart(stream: &[u8], limits: &Limits) -> Option<Taken> {
    let plain_max = limits.plain_max.min(stream.len().saturating_mul(limits.ratio_max)).min(u32::MAX as usize);
    let parsed = parse::parse(stream, plain_max)?;
    if parsed.plain.len() > parsed.stream_len.saturating_mul(limits.ratio_max) {
        return None;
    }
    let flushes = analyse::flushes(&parsed);
    let parameters = choose::choose(&parsed, &flushes);
    let corrections = analyse::analyse(stream, &parsed, &flushes, parameters)?;
    let mut expected = &stream[..parsed.stream_len];
    let compare = &mut |part: &[u8]| match expected.split_off(..part.len()) {
        Some(same) if same == part => Ok(()),
        _ => Err(RecreateError::Sink),
    };
    recreate::recreate(&parsed.plain, &corrections, compare).ok()?;
    let proven = expected.is_empty();
    proven.then_some(Taken { plain: parsed.plain, corrections, stream_len: parsed.stream_len })
}

/// Makes the stream again that was taken apart into `plain` and `corrections`.
///
/// # Errors
/// If the two do not belong together. Time and memory are bounded by their lengths.
pub fn recreate(plain: &[u8], corrections: &[u8]) -> Result<Vec<u8>, RecreateError> {
    let mut stream = Vec::with_capacity(plain.len() / 4);
    recreate_into(plain, corrections, &mut |part| {
        stream.extend_from_slice(part);
        Ok(())
    })?;
    Ok(stream)
}

/// Like [`recreate`], and hands the parts of the stream to `sink` as they are made: about one for each block.
///
/// # Errors
/// If `plain` and `corrections` do not belong together, or if the sink fails.
pub fn recreate_into(
    plain: &[u8],
    corrections: &[u8],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), RecreateError>,
) -> Result<(), RecreateError> {
    recreate::recreate(plain, corrections, sink)
}
