//! Reads whole packs and verifies every blob in them.

use super::{Result, is_damage, with_cause};
use crate::format::crypto::{Keys, Message};
use crate::format::id::{BlobId, PackId};
use crate::format::node;
use crate::format::pack::{self, Footer, Location, PackKind};
use crate::format::sealed;
use crate::repository::Repository;

/// Maximum number of blocks that are opened together, and of their bytes. Two for each lane of the cipher, so that
/// lanes seldom run empty; few enough bytes that they stay in the processor's cache.
const TOGETHER_MAX: usize = 16;
const TOGETHER_BYTES_MAX: usize = 2 << 20;

/// The result of reading a whole pack.
pub(super) struct ReadPack {
    pub id: PackId,
    /// The number of bytes read.
    pub len: u64,
    pub errors: Vec<String>,
    pub bad: Vec<BlobId>,
    /// Set if a later version of this program wrote the pack: its bytes are unchanged, but their meaning is unknown.
    pub later: Option<String>,
}

/// Reads a pack. Anything wrong with it, its length too, is reported as damage of this pack, and the check goes on.
pub(super) fn read_pack(repository: &Repository, id: PackId) -> Result<ReadPack> {
    let mut read = ReadPack { id, len: 0, errors: Vec::new(), bad: Vec::new(), later: None };
    let mut bytes = match repository.load_pack(id) {
        Ok(bytes) => bytes,
        Err(error) if is_damage(repository, &error) => {
            read.errors.push(with_cause(&error));
            read.bad = blobs_of(footer_from_indexes(repository, id)?);
            return Ok(read);
        }
        Err(error) => return Err(error),
    };
    read.len = bytes.len() as u64;
    if *blake3::hash(&bytes).as_bytes() != id.0 {
        read.errors.push("its name is not the hash of its bytes".to_owned());
    }
    let footer = match pack::footer_of(repository.keys(), &bytes) {
        Ok(footer) => footer,
        Err(error) if error.is_of_later_version() => {
            read.later = Some(with_cause(&error));
            return Ok(read);
        }
        Err(_) => match footer_from_indexes(repository, id)? {
            Some(footer) => footer,
            None => return Ok(read),
        },
    };
    read.bad = bad_blobs(repository.keys(), &footer, &mut bytes);
    if !read.bad.is_empty() {
        read.errors.push(format!("{} of its blobs cannot be read", read.bad.len()));
    }
    Ok(read)
}

/// Returns the blobs of the pack with these `bytes` that cannot be read, or whose bytes are not those of their ids.
fn bad_blobs(keys: &Keys, footer: &Footer, bytes: &mut [u8]) -> Vec<BlobId> {
    let (mut bad, mut rest) = (Vec::new(), bytes);
    let mut blocks = footer.blocks.iter().peekable();
    while blocks.peek().is_some() {
        let (mut together, mut sealed, mut len) = (Vec::new(), Vec::new(), 0);
        while together.len() < TOGETHER_MAX
            && let Some(block) = blocks.next_if(|block| len == 0 || len + block.len as usize <= TOGETHER_BYTES_MAX)
        {
            // A pack that is too short lacks its last blocks.
            match rest.split_off_mut(..block.len as usize) {
                Some(piece) => sealed.push(Message::unbound(piece)),
                None => rest = &mut [],
            }
            len += block.len as usize;
            together.push(block);
        }
        let mut opened = sealed::open_many(keys, footer.kind.purpose(), sealed);
        for block in together {
            let plaintext = opened.next().and_then(|plaintext| plaintext.ok());
            bad.extend(bad_in_block(keys, footer.kind, block, plaintext.as_deref()));
        }
    }
    bad
}

/// Returns the blobs of a block whose bytes in `plaintext` are not those of their ids; all if it could not be opened.
fn bad_in_block<'a>(
    keys: &'a Keys,
    kind: PackKind,
    block: &'a pack::BlockRecord,
    plaintext: Option<&'a [u8]>,
) -> impl Iterator<Item = BlobId> {
    let mut at = 0;
    let is_bad = move |blob: &&pack::BlobRecord| {
        let found = plaintext.and_then(|plaintext| plaintext.get(at..at + blob.len as usize));
        at += blob.len as usize;
        !found.is_some_and(|bytes| is_own(keys, kind, blob.id, bytes))
    };
    block.blobs.iter().filter(is_bad).map(|blob| blob.id)
}

fn blobs_of(footer: Option<Footer>) -> Vec<BlobId> {
    footer.iter().flat_map(|footer| &footer.blocks).flat_map(|block| &block.blobs).map(|blob| blob.id).collect()
}

/// Finds out from the index objects what a pack with a damaged footer holds.
fn footer_from_indexes(repository: &Repository, id: PackId) -> Result<Option<Footer>> {
    for index in repository.index_ids()? {
        let index = match repository.load_index(index) {
            Ok(index) => index,
            Err(error) if error.is_damage() || error.is_of_later_version() => continue,
            Err(error) => return Err(error),
        };
        if let Some((_, kind)) = index.packs().iter().find(|(pack, _)| *pack == id) {
            let mut found: Vec<_> = index.locations().filter(|(_, at)| at.block.pack == id).collect();
            found.sort_by_key(|(_, at)| (at.block.offset, at.offset));
            return Ok(Some(Footer { kind: *kind, blocks: blocks_of(&found) }));
        }
    }
    Ok(None)
}

fn blocks_of(blobs: &[(BlobId, Location)]) -> Vec<pack::BlockRecord> {
    let same_block = |a: &(BlobId, Location), b: &(BlobId, Location)| a.1.block == b.1.block;
    let block = |blobs: &[(BlobId, Location)]| pack::BlockRecord {
        len: blobs[0].1.block.len,
        plaintext_len: blobs.iter().map(|(_, at)| at.len).sum(),
        blobs: blobs.iter().map(|(id, at)| pack::BlobRecord { id: *id, len: at.len }).collect(),
    };
    blobs.chunk_by(same_block).map(block).collect()
}

fn is_own(keys: &Keys, kind: PackKind, id: BlobId, bytes: &[u8]) -> bool {
    match kind {
        PackKind::Data => BlobId::from(keys.chunk_id(bytes)) == id,
        PackKind::Meta => {
            node::split_stored(bytes).is_some_and(|(canonical, _)| BlobId::from(keys.node_id(canonical)) == id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::compress::Compressor;
    use crate::format::crypto::{Cipher, MasterKey};
    use crate::format::pack::{BlobRecord, PackBuilder};

    /// Finds the bad blobs by opening one block after the other.
    fn bad_one_by_one(keys: &Keys, footer: &Footer, bytes: &[u8]) -> Vec<BlobId> {
        let (mut bad, mut start) = (Vec::new(), 0);
        for block in &footer.blocks {
            let end = start + block.len as usize;
            let sealed = bytes.get(start..end).map(<[u8]>::to_vec);
            let plaintext = sealed.and_then(|sealed| sealed::open(keys, footer.kind.purpose(), sealed).ok());
            start = end;
            bad.extend(bad_in_block(keys, footer.kind, block, plaintext.as_deref()));
        }
        bad
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_damaged_block_among_many_is_reported_as_if_blocks_were_opened_one_by_one() {
        let long_block = [(Cipher::Aes256Siv, TOGETHER_BYTES_MAX)];
        for (cipher, long_len) in Cipher::ALL.map(|cipher| (cipher, 0)).into_iter().chain(long_block) {
            let keys = Keys::derive(&MasterKey::from_bytes([7; 32]), cipher);
            let compressor = &mut Compressor::new(1);
            let mut builder = PackBuilder::new(PackKind::Data, 0);
            // More blocks than are opened together, and in the last turn one that is as long as all together may be.
            for number in 0..40 {
                let long = if number == 7 { long_len } else { 0 };
                let chunks = [noise(100 + number), noise(number % 3), noise(long + 50 * number)];
                let blob = |chunk: &Vec<u8>| BlobRecord { id: keys.chunk_id(chunk).into(), len: chunk.len() as u32 };
                let sealed = sealed::seal(&keys, PackKind::Data.purpose(), &chunks.concat(), compressor);
                builder.push(&sealed, chunks.iter().map(blob).collect());
            }
            let pack = builder.finish(&keys, compressor);
            let bad = |bytes: &[u8], footer: &Footer| {
                let together = bad_blobs(&keys, footer, &mut bytes.to_vec());
                assert!(together == bad_one_by_one(&keys, footer, bytes), "{}", cipher.name());
                together
            };
            assert!(bad(&pack.bytes, &pack.footer).is_empty());
            let mut start = 0;
            for (number, block) in pack.footer.blocks.iter().enumerate() {
                let damaged: &[usize] = if long_len > 0 { &[7, 8] } else { &[0, 6, 7, 8, 15, 16, 23, 39] };
                if damaged.contains(&number) {
                    let mut bytes = pack.bytes.clone();
                    bytes[start + block.len as usize / 2] ^= 1;
                    assert_eq!(bad(&bytes, &pack.footer), block.blobs.iter().map(|blob| blob.id).collect::<Vec<_>>());
                }
                start += block.len as usize;
            }
            if long_len > 0 {
                continue;
            }
            // The pack is cut short: within a block, and between two.
            for len in [start - 1, start - pack.footer.blocks[39].len as usize, start / 2, 0] {
                assert!(bad(&pack.bytes[..len], &pack.footer).len() >= 3);
            }
            // The footer names other blobs than the block holds.
            let mut footer = pack.footer.clone();
            footer.blocks[20].blobs[1].id.0[0] ^= 1;
            assert_eq!(bad(&pack.bytes, &footer), [footer.blocks[20].blobs[1].id]);
        }
    }
}
