//! Takes archives apart: finds the deflate streams in them, and stores what the streams hold.
//!
//! An archive is taken apart only as far as [`take_apart`] proves that each stream can be made again byte for byte, and
//! only where that saves space. All decisions depend on the bytes and on sizes alone, never on time, so that the same
//! archive always gives the same content.

use super::{ListBuilder, SplitError, Splitter, texture_of};
use crate::content::zip::{self, Member, Method};
use crate::format::chunker::ChunkSizes;
use crate::format::compress::{Compressor, DATA_LEVEL};
use crate::format::deflate::{Limits, Taken, take_apart};
use crate::format::entry::{ChunkRef, Segment};
use crate::format::recipe::{self, Origin, PLAIN_LEN_MAX, Piece, RECIPE_LEN_MAX, Recipe, STREAM_LEN_MAX};
use crate::repository::store::Texture;
use crate::runtime::guarded;
use std::ops::Range;
use std::sync::Arc;

/// Maximum length in bytes of an archive that is taken apart. Longer ones are mostly pictures and films.
pub(super) const ARCHIVE_LEN_MAX: u64 = 32 << 20;
/// Maximum number of bytes that the streams of one item hold together, and how many they may hold for each byte of the
/// item beside [`ITEM_PLAIN_LEN_MIN`]. Documents have 5 to 20 times their length. What takes a computer long to inflate
/// must not be cheap to send.
const ITEM_PLAIN_LEN_MAX: u64 = 64 << 20;
const ITEM_PLAIN_LEN_MIN: u64 = 1 << 20;
const ITEM_RATIO_MAX: u64 = 32;
/// How many bytes one stream may hold for each of its bytes.
const STREAM_RATIO_MAX: u64 = 256;
/// Minimum length in bytes of a stream that is taken apart. A shorter one saves less than its place in the recipe
/// takes.
const STREAM_LEN_MIN: usize = 128;
/// A stream is taken apart only if its corrections are shorter than this part of it.
const CORRECTIONS_SHARE_MAX: usize = 4;
/// Number of bytes that are compressed at a time to find out how small an archive gets: as many as a block holds.
const BLOCK_LEN: usize = 128 << 10;
/// Minimum length in bytes of a piece of the body that gets chunks of its own. So the same part of two documents, such
/// as a theme, a style sheet or a picture, is stored once. Shorter pieces share chunks.
const OWN_CHUNKS_LEN_MIN: usize = 4 << 10;
/// Number of bytes in all streams of an archive from which only one archive is taken apart at a time.
const LONG_PLAIN_LEN: u64 = 4 << 20;
/// Maximum number of references to chunks of the material in an entry. A changed document stores its references anew,
/// and with them those of its neighbours in the folder, so more of them stand in a list node.
const MATERIAL_REFS_MAX: usize = 3;

/// Returns how many bytes the streams of an item of `len` bytes may hold together.
pub(super) fn plain_len_max(len: u64) -> u64 {
    ITEM_PLAIN_LEN_MAX.min(len.saturating_mul(ITEM_RATIO_MAX).saturating_add(ITEM_PLAIN_LEN_MIN))
}

/// An archive that was taken apart.
pub(super) struct Apart {
    recipe_len: u32,
    /// The chunks of its material.
    chunks: Vec<ChunkRef>,
}

impl Apart {
    pub(super) fn chunks_len(&self) -> usize {
        self.chunks.len()
    }
}

/// Identifies an archive and which of its members are to be taken apart, while the program runs.
fn key_of(bytes: &[u8], chosen: &[bool]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    chosen.iter().for_each(|chosen| _ = hasher.update(&[u8::from(*chosen)]));
    *hasher.finalize().as_bytes()
}

/// The parts of an archive, in the order in which its material holds them.
struct Parts<'a> {
    pieces: Vec<Piece>,
    corrections: Vec<u8>,
    loose: Vec<u8>,
    body: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn loose(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.loose.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Loose { len }) => *len += bytes.len() as u64,
            _ => self.pieces.push(Piece::Loose { len: bytes.len() as u64 }),
        }
    }

    fn verbatim(&mut self, bytes: &'a [u8]) {
        if bytes.len() < OWN_CHUNKS_LEN_MIN {
            return self.loose(bytes);
        }
        self.body.push(bytes);
        self.pieces.push(Piece::Body { len: bytes.len() as u64 });
    }

    fn stream(&mut self, stream: &[u8], taken: &'a Taken) {
        self.corrections.extend_from_slice(&taken.corrections);
        self.body.push(&taken.plain);
        self.pieces.push(Piece::Stream {
            len: stream.len() as u64,
            plain_len: taken.plain.len() as u64,
            corrections_len: taken.corrections.len() as u64,
            check: recipe::check_of(stream),
        });
    }

    /// Lists the parts of `archive`. `taken` holds what became of each member.
    fn of(archive: &'a [u8], members: &[Member], taken: &'a [Option<Taken>]) -> Self {
        let mut parts = Parts { pieces: Vec::new(), corrections: Vec::new(), loose: Vec::new(), body: Vec::new() };
        let mut at = 0;
        for (member, taken) in members.iter().zip(taken) {
            parts.loose(&archive[at..member.data.start]);
            let data = &archive[member.data.clone()];
            match taken {
                None => parts.verbatim(data),
                Some(taken) => {
                    let (stream, rest) = data.split_at(taken.stream_len);
                    parts.stream(stream, taken);
                    parts.loose(rest);
                }
            }
            at = member.data.end;
        }
        parts.loose(&archive[at..]);
        parts
    }

    /// Returns whether `recipe` puts every byte of `archive` where it was. That the streams can be made again was
    /// proven when they were taken apart.
    fn makes(&self, archive: &[u8], recipe: &[u8], head: &[u8], taken: &[Option<Taken>]) -> bool {
        let body_len: usize = self.body.iter().map(|part| part.len()).sum();
        let material_len = (head.len() + body_len) as u64;
        let Ok(recipe) = Recipe::decode(recipe, archive.len() as u64, material_len) else { return false };
        let (mut streams, mut body, mut body_at) = (taken.iter().flatten(), self.body.iter(), head.len() as u64);
        let mut next_of_body = |range: Range<u64>| {
            let part = body.next().filter(|_| range.start == body_at)?;
            body_at = range.end;
            (part.len() as u64 == range.end - range.start).then_some(*part)
        };
        recipe.overlapping(&(0..archive.len() as u64)).all(|(_, piece)| {
            let original = &archive[piece.range.start as usize..piece.range.end as usize];
            match &piece.origin {
                Origin::Copied { at } if *at < head.len() as u64 => head[*at as usize..].starts_with(original),
                Origin::Copied { at } => next_of_body(*at..at + original.len() as u64) == Some(original),
                Origin::Stream { plain, corrections, check } => streams.next().is_some_and(|taken| {
                    let kept = head.get(corrections.start as usize..corrections.end as usize);
                    original.len() == taken.stream_len
                        && *check == recipe::check_of(original)
                        && kept == Some(&taken.corrections[..])
                        && next_of_body(plain.clone()) == Some(&taken.plain[..])
                }),
            }
        })
    }
}

impl Splitter {
    /// Returns the segment of an archive that was taken apart, or `None` if `bytes` are better stored as they are.
    /// `has_turn` says whether the caller waited for [`super::Rules::one_long`].
    pub(super) fn split_archive(&mut self, bytes: &[u8], has_turn: bool) -> Result<Option<Segment>, SplitError> {
        let rules = self.rules.clone();
        if rules.archives.is_none() || bytes.len() as u64 > ARCHIVE_LEN_MAX {
            return Ok(None);
        }
        let Some(members) = zip::members(bytes) else { return Ok(None) };
        let mut plain_len = 0;
        let chosen: Vec<_> = members.iter().map(|member| self.choose(member, &mut plain_len)).collect();
        if plain_len == 0 {
            return Ok(None);
        }
        // Colleagues get the same attachments, and taking a document apart costs more than all the rest of a mail.
        let key = key_of(bytes, &chosen);
        let apart = match rules.seen(&key) {
            Some(None) => return Ok(None),
            Some(Some(apart)) if self.are_stored(&apart.chunks)? => Some(apart),
            _ => {
                let _turn = (plain_len > LONG_PLAIN_LEN && !has_turn).then(|| rules.one_long());
                let apart = self.take_archive(bytes, &members, &chosen)?.map(Arc::new);
                rules.remember(key, apart.clone());
                apart
            }
        };
        let Some(apart) = apart else { return Ok(None) };
        let material = self.material(&apart.chunks)?;
        Ok(Some(Segment::Deflated { len: bytes.len() as u64, recipe_len: apart.recipe_len, material }))
    }

    fn are_stored(&self, chunks: &[ChunkRef]) -> Result<bool, SplitError> {
        for chunk in chunks {
            if !self.sink.has_chunk(chunk.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the `chosen` members of an archive apart, and cuts what they hold. Returns `None` if that saves nothing.
    fn take_archive(&mut self, bytes: &[u8], members: &[Member], chosen: &[bool]) -> Result<Option<Apart>, SplitError> {
        let Some(sizes) = self.rules.archives else { return Ok(None) };
        let taken: Vec<_> = members
            .iter()
            .zip(chosen)
            .map(|(member, chosen)| chosen.then(|| Self::take_member(&bytes[member.data.clone()], member)).flatten())
            .collect();
        if taken.iter().all(Option::is_none) {
            return Ok(None);
        }
        let parts = Parts::of(bytes, members, &taken);
        let recipe = recipe::encode(&parts.pieces);
        if recipe.len() > RECIPE_LEN_MAX {
            return Ok(None);
        }
        let head = [&recipe[..], &parts.corrections, &parts.loose].concat();
        if !self.saves(&head, &parts.body, bytes.len()) {
            return Ok(None);
        }
        if !parts.makes(bytes, &recipe, &head, &taken) {
            tracing::error!("this program failed to take an archive apart; it is stored as it is");
            return Ok(None);
        }
        let mut chunks = Vec::new();
        self.cut(&head, sizes, Texture::Binary, &mut chunks)?;
        self.cut_body(&parts.body, sizes, &mut chunks)?;
        Ok(Some(Apart { recipe_len: recipe.len() as u32, chunks }))
    }

    /// Decides by the sizes of a member whether to take it apart, and takes them from what the item may hold.
    fn choose(&mut self, member: &Member, plain_len: &mut u64) -> bool {
        let len = member.data.len();
        let fits = member.method == Method::Deflated
            && (STREAM_LEN_MIN as u64..=STREAM_LEN_MAX).contains(&(len as u64))
            && member.plain_len > len as u64
            && member.plain_len <= PLAIN_LEN_MAX.min(len as u64 * STREAM_RATIO_MAX).min(self.plain_left);
        if fits {
            self.plain_left -= member.plain_len;
            *plain_len += member.plain_len;
        }
        fits
    }

    /// Takes the stream of a member apart, if that is proven and takes few corrections.
    fn take_member(data: &[u8], member: &Member) -> Option<Taken> {
        let limits = Limits { plain_max: member.plain_len as usize, ratio_max: STREAM_RATIO_MAX as usize };
        let taken = guarded(|| take_apart(data, &limits)).unwrap_or_else(|_| {
            tracing::error!("this program failed to take a deflate stream apart; it is stored as it is");
            None
        })?;
        let fits = (1..=data.len()).contains(&taken.stream_len)
            && taken.plain.len() as u64 <= PLAIN_LEN_MAX
            && taken.corrections.len() < taken.stream_len / CORRECTIONS_SHARE_MAX;
        fits.then_some(taken)
    }

    /// Returns whether the parts of an archive of `len` bytes take less space than the archive, which compression does
    /// not shrink any more.
    fn saves(&mut self, head: &[u8], body: &[&[u8]], len: usize) -> bool {
        let compressor = self.compressor.get_or_insert_with(|| Compressor::new(DATA_LEVEL));
        let (mut sum, mut open, mut packed) = (0, Vec::with_capacity(2 * BLOCK_LEN), Vec::new());
        let mut close = |open: &mut Vec<u8>| {
            packed.clear();
            sum += if compressor.append(open, &mut packed) { packed.len() } else { open.len() };
            open.clear();
        };
        for piece in std::iter::once(&head).chain(body).flat_map(|part| part.chunks(BLOCK_LEN)) {
            open.extend_from_slice(piece);
            if open.len() >= BLOCK_LEN {
                close(&mut open);
            }
        }
        close(&mut open);
        sum < len
    }

    /// Cuts the body: longer parts one by one, shorter ones together with their neighbours.
    fn cut_body(&mut self, body: &[&[u8]], sizes: ChunkSizes, chunks: &mut Vec<ChunkRef>) -> Result<(), SplitError> {
        let mut short = Vec::new();
        for part in body {
            if part.len() < OWN_CHUNKS_LEN_MIN {
                short.extend_from_slice(part);
                continue;
            }
            self.cut(&short, sizes, texture_of(&short), chunks)?;
            short.clear();
            self.cut(part, sizes, texture_of(part), chunks)?;
        }
        self.cut(&short, sizes, texture_of(&short), chunks)
    }

    fn cut(
        &mut self,
        mut bytes: &[u8],
        sizes: ChunkSizes,
        texture: Texture,
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), SplitError> {
        let rules = self.rules.clone();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(rules.chunker.cut(bytes, sizes));
            chunks.push(self.take(chunk, texture)?);
            bytes = rest;
        }
        Ok(())
    }

    fn material(&mut self, chunks: &[ChunkRef]) -> Result<Vec<Segment>, SplitError> {
        if chunks.len() <= MATERIAL_REFS_MAX {
            return Ok(vec![Segment::Raw(chunks.to_vec())]);
        }
        let mut lists = ListBuilder::default();
        for chunk in chunks {
            lists.push(*chunk, self)?;
        }
        lists.into_lists(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong recipe must not be stored: the archive is not in the source any more when somebody reads it.
    #[test]
    fn a_recipe_that_moves_a_byte_is_not_believed() {
        let stream = [7; 150];
        let taken = [
            Some(Taken { plain: vec![1; 9000], corrections: vec![2; 5], stream_len: 150 }),
            None,
            Some(Taken { plain: vec![3; 400], corrections: vec![4; 6], stream_len: 140 }),
        ];
        let archive = [&[8; 30][..], &stream, &[9; 40], &[6; 5000], &[5; 10], &[7; 140], &[8; 22]].concat();
        let member = |data| Member { data, plain_len: 0, method: Method::Deflated };
        let members = [member(30..180), member(220..5220), member(5230..5370)];
        let parts = Parts::of(&archive, &members, &taken);
        let made = |pieces: &[Piece]| {
            let recipe = recipe::encode(pieces);
            let head = [&recipe[..], &parts.corrections, &parts.loose].concat();
            parts.makes(&archive, &recipe, &head, &taken)
        };
        assert_eq!(parts.pieces.len(), 7);
        assert!(made(&parts.pieces));
        assert!(!made(&parts.pieces[1..]));
        for one in 0..parts.pieces.len() {
            for other in 0..one {
                let mut pieces = parts.pieces.clone();
                pieces.swap(one, other);
                assert_eq!(made(&pieces), pieces == parts.pieces, "{one} in place of {other}");
            }
        }
    }
}
