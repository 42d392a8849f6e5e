//! The recipe of an archive that was taken apart: how to make the archive from what is in it.
//!
//! The *material* of an archive is one content with four areas:
//!
//! ```text
//! recipe | corrections of all streams | loose bytes | body: the plain bytes of streams, and longer verbatim bytes
//! ```
//!
//! The recipe lists the pieces of the archive in order. A piece is either copied (from the loose bytes or from the
//! body) or a deflate stream that is made again from its plain bytes and its corrections ([`crate::format::deflate`]).
//! Short bytes between the streams, which change with every version of a document, stand together in the loose area, so
//! that they do not disturb the body. docs/repository-format.md, "Archives".

use crate::format::cbor::{CborError, Reader, Writer};
use std::ops::Range;

/// Maximum length in bytes of a recipe.
pub const RECIPE_LEN_MAX: usize = 1 << 20;
/// Maximum length in bytes of what one stream holds.
pub const PLAIN_LEN_MAX: u64 = 16 << 20;
/// Maximum length in bytes of one stream, and of its corrections.
pub const STREAM_LEN_MAX: u64 = 32 << 20;
/// Length of a check in bytes.
pub const CHECK_LEN: usize = 8;

/// The first bytes of the BLAKE3 of a stream. They show if the stream was made again wrongly. They are no protection
/// against an attacker: the chunks of the material are.
pub type Check = [u8; CHECK_LEN];

/// Returns the check of a stream.
pub fn check_of(stream: &[u8]) -> Check {
    *blake3::hash(stream).as_bytes().first_chunk().expect("a hash is longer")
}

/// A piece of an archive, as the recipe lists it. Lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of the loose area.
    Loose {
        /// Length of the piece.
        len: u64,
    },
    /// The next bytes of the body.
    Body {
        /// Length of the piece.
        len: u64,
    },
    /// A deflate stream.
    Stream {
        /// Length of the stream.
        len: u64,
        /// Number of the next bytes of the body that the stream holds.
        plain_len: u64,
        /// Number of the next bytes of the corrections that belong to it.
        corrections_len: u64,
        /// The check of the stream.
        check: Check,
    },
}

/// Encodes a recipe.
pub fn encode(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Loose { len } => _ = out.array(2).uint(0).uint(*len),
            Piece::Body { len } => _ = out.array(2).uint(1).uint(*len),
            Piece::Stream { len, plain_len, corrections_len, check } => {
                out.array(5).uint(2).uint(*len).uint(*plain_len).uint(*corrections_len).bytes(check);
            }
        }
    }
    out.into_bytes()
}

/// Where the bytes of a piece come from, as ranges of the material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Copied from here on.
    Copied {
        /// Where the bytes begin in the material.
        at: u64,
    },
    /// A deflate stream.
    Stream {
        /// What the stream holds.
        plain: Range<u64>,
        /// Its corrections.
        corrections: Range<u64>,
        /// Its check.
        check: Check,
    },
}

/// A piece of an archive with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The range of the archive's bytes.
    pub range: Range<u64>,
    /// Where they come from.
    pub origin: Origin,
}

/// A decoded recipe: the pieces of the archive in order. None is empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipe {
    pieces: Vec<Placed>,
}

impl Recipe {
    /// Decodes a recipe. `len` is the length in bytes of the archive, `material_len` that of the material.
    ///
    /// # Errors
    /// If it is no recipe, or does not make exactly `len` bytes from exactly `material_len` bytes.
    pub fn decode(bytes: &[u8], len: u64, material_len: u64) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let listed: Vec<_> = (0..reader.array()?).map(|_| read_piece(&mut reader)).collect::<Result<_, _>>()?;
        if !reader.is_empty() {
            return Err(CborError::Unexpected { expected: "the end of the recipe" });
        }
        let sum = |part: fn(&Piece) -> u64| {
            listed.iter().try_fold(0u64, |sum, piece| sum.checked_add(part(piece))).ok_or(CborError::Range)
        };
        let corrections_len = sum(|piece| match piece {
            Piece::Stream { corrections_len, .. } => *corrections_len,
            _ => 0,
        })?;
        let loose_len = sum(|piece| if let Piece::Loose { len } = piece { *len } else { 0 })?;
        let mut corrections_at = bytes.len() as u64;
        let mut loose_at = corrections_at.checked_add(corrections_len).ok_or(CborError::Range)?;
        let mut body_at = loose_at.checked_add(loose_len).ok_or(CborError::Range)?;
        let take = |at: &mut u64, len: u64| {
            let start = *at;
            *at = start.checked_add(len).ok_or(CborError::Range)?;
            Ok::<_, CborError>(start..*at)
        };
        let (mut start, mut pieces) = (0, Vec::with_capacity(listed.len()));
        for piece in listed {
            let (len, origin) = match piece {
                Piece::Loose { len } => (len, Origin::Copied { at: take(&mut loose_at, len)?.start }),
                Piece::Body { len } => (len, Origin::Copied { at: take(&mut body_at, len)?.start }),
                Piece::Stream { len, plain_len, corrections_len, check } => {
                    let plain = take(&mut body_at, plain_len)?;
                    let corrections = take(&mut corrections_at, corrections_len)?;
                    (len, Origin::Stream { plain, corrections, check })
                }
            };
            pieces.push(Placed { range: take(&mut start, len)?, origin });
        }
        if start != len || body_at != material_len {
            return Err(CborError::Range);
        }
        Ok(Self { pieces })
    }

    /// Returns the pieces that hold bytes of `range`, with their numbers.
    pub fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (usize, &Placed)> {
        let first = self.pieces.partition_point(|piece| piece.range.end <= range.start);
        let end = range.end;
        self.pieces.iter().enumerate().skip(first).take_while(move |(_, piece)| piece.range.start < end)
    }

    /// Returns the most bytes of memory that a recipe of `len` encoded bytes occupies: each piece takes three of them.
    pub fn memory_len_max(len: usize) -> usize {
        len / 3 * size_of::<Placed>()
    }
}

fn read_piece(reader: &mut Reader<'_>) -> Result<Piece, CborError> {
    let fields = reader.array()?;
    let (kind, len) = (reader.uint()?, reader.uint()?);
    let piece = match (kind, fields) {
        (0, 2) => Piece::Loose { len },
        (1, 2) => Piece::Body { len },
        (2, 5) => {
            let (plain_len, corrections_len, check) = (reader.uint()?, reader.uint()?, reader.array_of()?);
            if plain_len > PLAIN_LEN_MAX || corrections_len > STREAM_LEN_MAX || len > STREAM_LEN_MAX {
                return Err(CborError::Range);
            }
            Piece::Stream { len, plain_len, corrections_len, check }
        }
        _ => return Err(CborError::Unexpected { expected: "a piece of an archive" }),
    };
    if len == 0 { Err(CborError::Range) } else { Ok(piece) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: [Piece; 4] = [
        Piece::Loose { len: 30 },
        Piece::Stream { len: 100, plain_len: 400, corrections_len: 7, check: [9; CHECK_LEN] },
        Piece::Body { len: 5000 },
        Piece::Loose { len: 22 },
    ];

    #[test]
    fn every_piece_finds_its_bytes_in_the_material() {
        let bytes = encode(&PIECES);
        let head = bytes.len() as u64;
        let material_len = head + 7 + 52 + 5400;
        let recipe = Recipe::decode(&bytes, 5152, material_len).expect("a recipe");
        let body = head + 7 + 52;
        let stream = Origin::Stream { plain: body..body + 400, corrections: head..head + 7, check: [9; CHECK_LEN] };
        let expected = [
            (0..30, Origin::Copied { at: head + 7 }),
            (30..130, stream),
            (130..5130, Origin::Copied { at: body + 400 }),
            (5130..5152, Origin::Copied { at: head + 37 }),
        ];
        assert_eq!(recipe.pieces, expected.map(|(range, origin)| Placed { range, origin }));
        let numbers = |range| recipe.overlapping(&range).map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(0..1), [0]);
        assert_eq!(numbers(29..131), [0, 1, 2]);
        assert_eq!(numbers(130..5130), [2]);
        assert_eq!(numbers(5151..9999), [3]);
    }

    #[test]
    fn a_recipe_that_makes_other_lengths_is_refused() {
        let bytes = encode(&PIECES);
        let material_len = bytes.len() as u64 + 7 + 52 + 5400;
        for (len, material) in [(5151, material_len), (5153, material_len), (5152, material_len - 1)] {
            assert_eq!(Recipe::decode(&bytes, len, material), Err(CborError::Range));
        }
        for end in 0..bytes.len() {
            assert!(Recipe::decode(&bytes[..end], 5152, material_len).is_err());
        }
        let stream = |len, plain_len| Piece::Stream { len, plain_len, corrections_len: 0, check: [0; CHECK_LEN] };
        let wrong = [
            vec![Piece::Loose { len: 0 }],
            vec![stream(0, 1)],
            vec![stream(1, PLAIN_LEN_MAX + 1)],
            vec![Piece::Loose { len: u64::MAX }, Piece::Loose { len: 2 }],
            vec![Piece::Body { len: u64::MAX }, Piece::Loose { len: 2 }],
        ];
        for pieces in wrong {
            assert!(Recipe::decode(&encode(&pieces), 1, 1).is_err(), "{pieces:?}");
        }
    }
}
