//! Reads whole packs and verifies every blob in them.

use super::{Result, is_damage, with_cause};
use crate::format::crypto::Keys;
use crate::format::id::{BlobId, PackId};
use crate::format::node;
use crate::format::pack::{self, Footer, Location, PackKind};
use crate::format::sealed;
use crate::repository::Repository;

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
    let bytes = match repository.load_pack(id) {
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
    let mut offset = 0;
    for block in &footer.blocks {
        let end = offset + block.len as usize;
        let plaintext = bytes
            .get(offset..end)
            .and_then(|sealed| sealed::open(repository.keys(), footer.kind.purpose(), sealed.to_vec()).ok());
        offset = end;
        let mut at = 0;
        for blob in &block.blobs {
            let found = plaintext.as_deref().and_then(|plaintext| plaintext.get(at..at + blob.len as usize));
            at += blob.len as usize;
            if !found.is_some_and(|bytes| is_own(repository.keys(), footer.kind, blob.id, bytes)) {
                read.bad.push(blob.id);
            }
        }
    }
    if !read.bad.is_empty() {
        read.errors.push(format!("{} of its blobs cannot be read", read.bad.len()));
    }
    Ok(read)
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
