//! Packs: the files in which blocks are stored.
//!
//! ```text
//! block | block | ... | footer (sealed) | footer length (4, little-endian) | "SRP1"
//! ```
//!
//! The footer lists the blocks and the blobs in them, so that all indexes can be rebuilt from packs alone. The id of a
//! pack is the BLAKE3 of all its bytes, so anyone can detect damage without a key. Data packs hold content; metadata
//! packs hold tree nodes and content lists. Browsing a snapshot reads only metadata packs.
//!
//! docs/repository-format.md, "Packs".

use crate::format::compress::Compressor;
use crate::format::crypto::{Keys, Purpose};
use crate::format::id::{BlobId, PackId};
use crate::format::sealed;

/// The last bytes of every pack.
pub const MAGIC: [u8; 4] = *b"SRP1";
/// Length in bytes of the footer length and the magic, which follow the footer.
pub const TRAILER_LEN: usize = 8;
const FOOTER_VERSION: u8 = 1;
const FOOTER_HEADER_LEN: usize = 12;
const BLOCK_RECORD_LEN: usize = 12;
const BLOB_RECORD_LEN: usize = 36;

/// The kind of a pack: content or metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackKind {
    /// Content chunks.
    Data,
    /// Tree nodes and content lists.
    Meta,
}

impl PackKind {
    /// Returns the number for the kind in footers and indexes.
    pub fn code(self) -> u8 {
        match self {
            PackKind::Data => 1,
            PackKind::Meta => 2,
        }
    }

    /// Returns the kind with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(PackKind::Data),
            2 => Some(PackKind::Meta),
            _ => None,
        }
    }

    /// Returns the purpose for which the blocks of such packs are sealed.
    pub fn purpose(self) -> Purpose {
        match self {
            PackKind::Data => Purpose::DataBlock,
            PackKind::Meta => Purpose::MetaBlock,
        }
    }
}

/// Location of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockLocation {
    /// The pack that holds the block.
    pub pack: PackId,
    /// Offset in the pack, in bytes.
    pub offset: u32,
    /// Sealed length in bytes.
    pub len: u32,
}

/// Location of a blob: its block, and its position in the block's plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The block that holds the blob.
    pub block: BlockLocation,
    /// Offset in the block's plaintext, in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// A blob as a footer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRecord {
    /// The id.
    pub id: BlobId,
    /// Plaintext length in bytes.
    pub len: u32,
}

/// A block as a footer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRecord {
    /// Sealed length in bytes.
    pub len: u32,
    /// Plaintext length in bytes.
    pub plaintext_len: u32,
    /// The blobs in the block, one after the other without gaps.
    pub blobs: Vec<BlobRecord>,
}

/// The content of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Content or metadata.
    pub kind: PackKind,
    /// The blocks, one after the other from the first byte of the pack.
    pub blocks: Vec<BlockRecord>,
}

/// Why a footer could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The last bytes are not the trailer of a pack.
    #[error("the last bytes are not the trailer of a pack")]
    NoTrailer,
    /// The envelope of the footer could not be opened.
    #[error("could not open the footer")]
    Footer(#[source] sealed::OpenError),
    /// The footer is authentic, but contradicts itself or the pack.
    #[error("the footer is malformed")]
    Malformed,
    /// A later version of the program wrote the footer.
    #[error("the footer has version {0}, this program reads version {FOOTER_VERSION}")]
    Version(u8),
    /// The pack is of a kind that only a later version of the program knows.
    #[error("the pack is of kind {0}, which this program does not know")]
    Kind(u8),
}

impl PackError {
    /// Returns whether the footer is authentic, but written by a later version of the program.
    pub fn is_of_later_version(&self) -> bool {
        match self {
            PackError::Footer(source) => matches!(source, sealed::OpenError::UnknownForm(_)),
            PackError::Version(_) | PackError::Kind(_) => true,
            PackError::NoTrailer | PackError::Malformed => false,
        }
    }
}

impl Footer {
    /// Returns every blob with its location, given the id of the pack.
    pub fn locations(&self, pack: PackId) -> impl Iterator<Item = (BlobId, Location)> + '_ {
        let mut block_offset = 0;
        self.blocks.iter().flat_map(move |block| {
            let at = BlockLocation { pack, offset: block_offset, len: block.len };
            block_offset += block.len;
            let mut offset = 0;
            block.blobs.iter().map(move |blob| {
                let location = Location { block: at, offset, len: blob.len };
                offset += blob.len;
                (blob.id, location)
            })
        })
    }

    /// Returns the number of blobs in the pack.
    pub fn blobs(&self) -> usize {
        self.blocks.iter().map(|block| block.blobs.len()).sum()
    }

    /// Returns the total sealed length of all blocks, in bytes.
    pub fn blocks_len(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.len)).sum()
    }

    fn encode(&self) -> Vec<u8> {
        let blobs = self.blobs();
        let mut bytes =
            Vec::with_capacity(FOOTER_HEADER_LEN + self.blocks.len() * BLOCK_RECORD_LEN + blobs * BLOB_RECORD_LEN);
        bytes.extend([FOOTER_VERSION, self.kind.code(), 0, 0]);
        bytes.extend((self.blocks.len() as u32).to_le_bytes());
        bytes.extend((blobs as u32).to_le_bytes());
        for block in &self.blocks {
            bytes.extend(block.len.to_le_bytes());
            bytes.extend(block.plaintext_len.to_le_bytes());
            bytes.extend((block.blobs.len() as u32).to_le_bytes());
        }
        for blob in self.blocks.iter().flat_map(|block| &block.blobs) {
            bytes.extend(blob.id.0);
            bytes.extend(blob.len.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        match bytes.first() {
            Some(&FOOTER_VERSION) | None => {}
            Some(other) => return Err(PackError::Version(*other)),
        }
        let (header, rest) = bytes.split_first_chunk::<FOOTER_HEADER_LEN>().ok_or(PackError::Malformed)?;
        let kind = PackKind::from_code(header[1]).ok_or(PackError::Kind(header[1]))?;
        Self::decode_blocks(kind, header, rest).ok_or(PackError::Malformed)
    }

    fn decode_blocks(kind: PackKind, header: &[u8; FOOTER_HEADER_LEN], rest: &[u8]) -> Option<Self> {
        if header[2..4] != [0, 0] {
            return None;
        }
        let (blocks, blobs) = (word(&header[4..]) as usize, word(&header[8..]) as usize);
        let (block_bytes, blob_bytes) = rest.split_at_checked(blocks.checked_mul(BLOCK_RECORD_LEN)?)?;
        if blob_bytes.len() != blobs.checked_mul(BLOB_RECORD_LEN)? {
            return None;
        }
        let mut records = blob_bytes.chunks_exact(BLOB_RECORD_LEN).map(|record| BlobRecord {
            id: BlobId(record[..32].try_into().expect("a record holds 36 bytes")),
            len: word(&record[32..]),
        });
        let mut decoded = Vec::with_capacity(blocks);
        for record in block_bytes.chunks_exact(BLOCK_RECORD_LEN) {
            let count = word(&record[8..]) as usize;
            let blobs: Vec<_> = records.by_ref().take(count).collect();
            let plaintext_len = word(&record[4..]);
            let sum = blobs.iter().map(|blob| u64::from(blob.len)).sum::<u64>();
            if blobs.len() != count || sum != u64::from(plaintext_len) {
                return None;
            }
            decoded.push(BlockRecord { len: word(record), plaintext_len, blobs });
        }
        let footer = Footer { kind, blocks: decoded };
        (records.next().is_none() && footer.blocks_len() <= u64::from(u32::MAX)).then_some(footer)
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("the caller gives four bytes"))
}

/// Collects sealed blocks for one pack.
#[derive(Debug)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    footer: Footer,
}

/// A finished pack that can be stored.
#[derive(Debug)]
pub struct Pack {
    /// The id.
    pub id: PackId,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The footer.
    pub footer: Footer,
}

/// Space for the last block and the footer, which come on top of the size at which a pack is closed.
const LAST_BLOCK_AND_FOOTER_LEN: usize = 1 << 20;

impl PackBuilder {
    /// Creates an empty pack. Reserves a little more than `size` bytes, because growing the buffer would double its
    /// memory.
    pub fn new(kind: PackKind, size: u32) -> Self {
        Self {
            bytes: Vec::with_capacity(size as usize + LAST_BLOCK_AND_FOOTER_LEN),
            footer: Footer { kind, blocks: Vec::new() },
        }
    }

    /// Returns whether the pack has no blocks.
    pub fn is_empty(&self) -> bool {
        self.footer.blocks.is_empty()
    }

    /// Returns the total length of the blocks so far, in bytes. The next block begins at this offset.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a block that was sealed for this kind of pack.
    pub fn push(&mut self, sealed: &[u8], blobs: Vec<BlobRecord>) {
        let plaintext_len = blobs.iter().map(|blob| blob.len).sum();
        self.footer.blocks.push(BlockRecord { len: sealed.len() as u32, plaintext_len, blobs });
        self.bytes.extend_from_slice(sealed);
    }

    /// Adds the footer and the trailer, and computes the id.
    pub fn finish(mut self, keys: &Keys, compressor: &mut Compressor) -> Pack {
        let footer = sealed::seal(keys, Purpose::PackFooter, &self.footer.encode(), compressor);
        self.bytes.extend_from_slice(&footer);
        self.bytes.extend((footer.len() as u32).to_le_bytes());
        self.bytes.extend(MAGIC);
        let id = PackId(*blake3::hash(&self.bytes).as_bytes());
        Pack { id, bytes: self.bytes, footer: self.footer }
    }
}

/// Returns the length in bytes of the sealed footer, read from the last [`TRAILER_LEN`] bytes of a pack.
///
/// # Errors
/// [`PackError::NoTrailer`].
pub fn footer_len(trailer: &[u8], pack_len: u64) -> Result<u64, PackError> {
    let len = match trailer {
        [len @ .., b'S', b'R', b'P', b'1'] if len.len() == 4 => u64::from(word(len)),
        _ => return Err(PackError::NoTrailer),
    };
    if len + TRAILER_LEN as u64 <= pack_len { Ok(len) } else { Err(PackError::NoTrailer) }
}

/// Opens a sealed footer, and checks that it fits a pack of `pack_len` bytes.
///
/// # Errors
/// See [`PackError`].
pub fn open_footer(keys: &Keys, sealed_footer: Vec<u8>, pack_len: u64) -> Result<Footer, PackError> {
    let sealed_len = sealed_footer.len() as u64;
    let bytes = sealed::open(keys, Purpose::PackFooter, sealed_footer).map_err(PackError::Footer)?;
    let footer = Footer::decode(&bytes)?;
    if footer.blocks_len() + sealed_len + TRAILER_LEN as u64 == pack_len {
        Ok(footer)
    } else {
        Err(PackError::Malformed)
    }
}

/// Reads the footer of a whole pack.
///
/// # Errors
/// See [`PackError`].
pub fn footer_of(keys: &Keys, pack: &[u8]) -> Result<Footer, PackError> {
    let end = pack.len().checked_sub(TRAILER_LEN).ok_or(PackError::NoTrailer)?;
    let len = footer_len(&pack[end..], pack.len() as u64)? as usize;
    open_footer(keys, pack[end - len..end].to_vec(), pack.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::derive(&MasterKey::from_bytes([3; 32]), Cipher::Aes256Siv)
    }

    proptest! {
        #[test]
        fn a_footer_says_what_was_packed(blocks in vec(vec((any::<[u8; 32]>(), 0u32..1000), 0..5), 0..6)) {
            let keys = keys();
            let mut builder = PackBuilder::new(PackKind::Data, 1 << 10);
            for blobs in &blocks {
                let records = blobs.iter().map(|(id, len)| BlobRecord { id: BlobId(*id), len: *len });
                builder.push(&[9; 33], records.collect());
            }
            let pack = builder.finish(&keys, &mut Compressor::new(1));
            let pack_len = pack.bytes.len() as u64;
            let len = footer_len(&pack.bytes[pack.bytes.len() - TRAILER_LEN..], pack_len).unwrap() as usize;
            let start = pack.bytes.len() - TRAILER_LEN - len;
            let footer = open_footer(&keys, pack.bytes[start..][..len].to_vec(), pack_len).unwrap();
            prop_assert_eq!(&footer, &pack.footer);
            prop_assert_eq!(footer.locations(pack.id).count(), blocks.iter().map(Vec::len).sum::<usize>());
            prop_assert!(open_footer(&keys, pack.bytes[start..][..len].to_vec(), pack_len + 1).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Footer::decode(&bytes);
            let _ = footer_len(&bytes, bytes.len() as u64);
        }
    }
}
