//! Index objects: which blob is where, for a group of packs.
//!
//! ```text
//! header (16): version 1, 3 zero bytes, packs P, blocks B, blobs C
//! P x 40:  pack id (32), kind (1), 3 zero bytes, number of blocks (4)
//! B x 12:  offset in the pack (4), sealed length (4), plaintext length (4)     in the order of the packs
//! C x 44:  blob id (32), block (4, counted over the whole object), offset (4), length (4)     sorted by id
//! ```
//!
//! All numbers are little-endian. The whole object is sealed as one piece. An index repeats what the footers of its
//! packs say, so that a reader need not read all footers. docs/repository-format.md, "Index".

use crate::format::id::{BlobId, PackId};
use crate::format::pack::{BlockLocation, Footer, Location, PackKind};

const VERSION: u8 = 1;
const HEADER_LEN: usize = 16;
const PACK_RECORD_LEN: usize = 40;
const BLOCK_RECORD_LEN: usize = 12;
const BLOB_RECORD_LEN: usize = 44;

/// Number of blobs in its packs at which an index object is written. That is about 2 MB: small enough to read at once,
/// and a backup holds several copies of one in memory.
pub const BLOBS_PER_OBJECT: usize = 50_000;

/// Why authentic bytes are not an index that this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Counts, kinds or references are inconsistent.
    #[error("the index is malformed")]
    Malformed,
    /// A later version of the program wrote the index.
    #[error("the index has version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// The index lists a pack of a kind that only a later version of the program knows.
    #[error("the index lists a pack of kind {0}, which this program does not know")]
    Kind(u8),
}

/// Encodes an index object for `packs`.
pub fn encode(packs: &[(PackId, Footer)]) -> Vec<u8> {
    let blocks = packs.iter().map(|(_, footer)| footer.blocks.len()).sum::<usize>();
    let mut blobs = Vec::new();
    let mut block_number = 0u32;
    for (_, footer) in packs {
        for block in &footer.blocks {
            let mut offset = 0;
            for blob in &block.blobs {
                blobs.push((blob.id, block_number, offset, blob.len));
                offset += blob.len;
            }
            block_number += 1;
        }
    }
    blobs.sort_unstable();

    let len = HEADER_LEN + packs.len() * PACK_RECORD_LEN + blocks * BLOCK_RECORD_LEN + blobs.len() * BLOB_RECORD_LEN;
    let mut bytes = Vec::with_capacity(len);
    bytes.extend([VERSION, 0, 0, 0]);
    for count in [packs.len(), blocks, blobs.len()] {
        bytes.extend((count as u32).to_le_bytes());
    }
    for (id, footer) in packs {
        bytes.extend(id.0);
        bytes.extend([footer.kind.code(), 0, 0, 0]);
        bytes.extend((footer.blocks.len() as u32).to_le_bytes());
    }
    for (_, footer) in packs {
        let mut offset = 0u32;
        for block in &footer.blocks {
            for number in [offset, block.len, block.plaintext_len] {
                bytes.extend(number.to_le_bytes());
            }
            offset += block.len;
        }
    }
    for (id, block, offset, len) in blobs {
        bytes.extend(id.0);
        for number in [block, offset, len] {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes
}

/// Returns the number of packs, the number of blocks, and the offsets where the records of blocks and of blobs begin.
fn layout(bytes: &[u8]) -> Option<(usize, usize, usize, usize)> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    if header[1..4] != [0, 0, 0] {
        return None;
    }
    let [packs, blocks, blobs] = [4, 8, 12].map(|at| word(header, at) as usize);
    let blocks_start = HEADER_LEN.checked_add(packs.checked_mul(PACK_RECORD_LEN)?)?;
    let blobs_start = blocks_start.checked_add(blocks.checked_mul(BLOCK_RECORD_LEN)?)?;
    let end = blobs_start.checked_add(blobs.checked_mul(BLOB_RECORD_LEN)?)?;
    (bytes.len() == end).then_some((packs, blocks, blocks_start, blobs_start))
}

/// A decoded index object. Lookups search its bytes directly.
pub struct Index {
    bytes: Vec<u8>,
    packs: Vec<(PackId, PackKind)>,
    /// The pack of each block, as a position in `packs`.
    pack_of_block: Vec<u32>,
    blocks_start: usize,
    blobs_start: usize,
}

impl Index {
    /// Decodes an index object.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn decode(bytes: Vec<u8>) -> Result<Self, IndexError> {
        match bytes.first() {
            None => return Err(IndexError::Malformed),
            Some(&VERSION) => {}
            Some(other) => return Err(IndexError::Version(*other)),
        }
        Self::decode_checked(bytes)
    }

    fn decode_checked(bytes: Vec<u8>) -> Result<Self, IndexError> {
        let (packs, blocks, blocks_start, blobs_start) = layout(&bytes).ok_or(IndexError::Malformed)?;
        let mut names = Vec::with_capacity(packs);
        let mut pack_of_block = Vec::with_capacity(blocks);
        for record in bytes[HEADER_LEN..blocks_start].chunks_exact(PACK_RECORD_LEN) {
            let number = names.len() as u32;
            if record[33..36] != [0, 0, 0] {
                return Err(IndexError::Malformed);
            }
            let id = PackId::from_slice(&record[..32]).ok_or(IndexError::Malformed)?;
            names.push((id, PackKind::from_code(record[32]).ok_or(IndexError::Kind(record[32]))?));
            let count = word(record, 36) as usize;
            if count > blocks - pack_of_block.len() {
                return Err(IndexError::Malformed);
            }
            pack_of_block.resize(pack_of_block.len() + count, number);
        }
        let index = Self { bytes, packs: names, pack_of_block, blocks_start, blobs_start };
        let sound = index.pack_of_block.len() == blocks
            && index.records().all(|record| (word(record, 32) as usize) < blocks)
            && index.records().is_sorted_by(|a, b| a[..32] <= b[..32]);
        if sound { Ok(index) } else { Err(IndexError::Malformed) }
    }

    fn records(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes[self.blobs_start..].chunks_exact(BLOB_RECORD_LEN)
    }

    /// Returns the packs that the index covers.
    pub fn packs(&self) -> &[(PackId, PackKind)] {
        &self.packs
    }

    /// Returns every blob with its location, sorted by id.
    pub fn locations(&self) -> impl ExactSizeIterator<Item = (BlobId, Location)> + '_ {
        self.records().map(|record| self.location(record))
    }

    /// Returns a location of the blob.
    pub fn find(&self, id: &BlobId) -> Option<Location> {
        self.find_all(id).next()
    }

    /// Returns all locations of the blob.
    pub fn find_all(&self, id: &BlobId) -> impl Iterator<Item = Location> + '_ {
        let id = *id;
        let count = self.records().len();
        let record = |at: usize| &self.bytes[self.blobs_start + at * BLOB_RECORD_LEN..][..BLOB_RECORD_LEN];
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if record(middle)[..32] < id.0[..] { low = middle + 1 } else { high = middle }
        }
        self.records()
            .skip(low)
            .take_while(move |record| record[..32] == id.0[..])
            .map(|record| self.location(record).1)
    }

    fn location(&self, record: &[u8]) -> (BlobId, Location) {
        let id = BlobId(record[..32].try_into().expect("a record holds 44 bytes"));
        let number = word(record, 32) as usize;
        let block = &self.bytes[self.blocks_start + number * BLOCK_RECORD_LEN..];
        let pack = self.packs[self.pack_of_block[number] as usize].0;
        let block = BlockLocation { pack, offset: word(block, 0), len: word(block, 4) };
        (id, Location { block, offset: word(record, 36), len: word(record, 40) })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a range of four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::{BlobRecord, BlockRecord};
    use proptest::prelude::*;

    fn footers() -> impl Strategy<Value = Vec<(PackId, Footer)>> {
        let blob = (any::<[u8; 32]>(), 0u32..5000).prop_map(|(id, len)| BlobRecord { id: BlobId(id), len });
        let block = (1u32..5000, proptest::collection::vec(blob, 0..5)).prop_map(|(len, blobs)| BlockRecord {
            len,
            plaintext_len: blobs.iter().map(|blob| blob.len).sum(),
            blobs,
        });
        let footer = (any::<bool>(), proptest::collection::vec(block, 0..5))
            .prop_map(|(data, blocks)| Footer { kind: if data { PackKind::Data } else { PackKind::Meta }, blocks });
        proptest::collection::vec((any::<[u8; 32]>().prop_map(PackId), footer), 0..5)
    }

    proptest! {
        #[test]
        fn an_index_says_what_the_footers_say(packs in footers()) {
            let index = Index::decode(encode(&packs)).unwrap();
            let told: Vec<_> = packs.iter().flat_map(|(id, footer)| footer.locations(*id)).collect();
            prop_assert_eq!(index.locations().len(), told.len());
            for (id, location) in told {
                prop_assert_eq!(index.find(&id), Some(location));
            }
            prop_assert_eq!(index.find(&BlobId([0xee; 32])), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(packs in footers(), at: usize, value: u8, bytes: Vec<u8>) {
            let mut damaged = encode(&packs);
            let at = at % damaged.len();
            damaged[at] = value;
            if let Ok(index) = Index::decode(damaged) {
                index.locations().for_each(drop);
            }
            let _ = Index::decode(bytes);
        }
    }
}
