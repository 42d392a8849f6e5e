//! The envelope around everything encrypted. It compresses if that saves space, then encrypts and authenticates.
//!
//! ```text
//! tag (16) | ciphertext of: compression (1) | plaintext length (4, little-endian) | body
//! ```
//!
//! The plaintext length is checked before memory of that size is allocated.

use crate::format::compress;
use crate::format::crypto::{Keys, Message, Purpose, TAG_LEN};
use std::borrow::Cow;

/// Length in bytes of the header before the body, inside the ciphertext.
const HEADER_LEN: usize = 5;
/// Number of bytes that the envelope adds to a body.
pub const OVERHEAD: usize = TAG_LEN + HEADER_LEN;
const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// Maximum plaintext length of an envelope, in bytes: far more than any block or index needs, but small enough to
/// allocate.
pub const PLAINTEXT_LEN_MAX: usize = 256 << 20;

/// Why a sealed piece could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is damaged, was tampered with, or was sealed under another key.
    #[error("the sealed data failed authentication")]
    NotAuthentic,
    /// It is authentic, but its header contradicts the body.
    #[error("the sealed data contradicts its own header")]
    Malformed,
    /// It is authentic, but only a later version of the program knows its compression.
    #[error("the sealed data is compressed in a way that this program does not know (number {0})")]
    UnknownForm(u8),
    /// It is authentic, but zstd cannot decompress it.
    #[error("the sealed data could not be decompressed")]
    Compression(#[source] std::io::Error),
}

/// Seals `plaintext` for `purpose`. `compressor` compresses it if that saves space.
pub fn seal(keys: &Keys, purpose: Purpose, plaintext: &[u8], compressor: &mut compress::Compressor) -> Vec<u8> {
    seal_bound(keys, purpose, &[], plaintext, compressor)
}

/// Seals `plaintext` and binds it to `bound`. The same `bound` is needed to open it.
pub fn seal_bound(
    keys: &Keys,
    purpose: Purpose,
    bound: &[u8],
    plaintext: &[u8],
    compressor: &mut compress::Compressor,
) -> Vec<u8> {
    let mut sealed = pack(plaintext, compressor);
    keys.encrypt(purpose, bound, &mut sealed);
    sealed
}

/// Seals several plaintexts, each with what it is bound to. Encrypts them side by side; see [`Keys::encrypt_many`].
pub fn seal_many<'a>(
    keys: &Keys,
    purpose: Purpose,
    plaintexts: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    compressor: &mut compress::Compressor,
) -> Vec<Vec<u8>> {
    let mut sealed: Vec<_> = plaintexts.clone().map(|(_, plaintext)| pack(plaintext, compressor)).collect();
    let messages = plaintexts.zip(&mut sealed).map(|((bound, _), buffer)| Message { bound, buffer });
    keys.encrypt_many(purpose, &mut messages.collect::<Vec<_>>());
    sealed
}

/// Returns the envelope of `plaintext` before it is encrypted, with room for the tag.
fn pack(plaintext: &[u8], compressor: &mut compress::Compressor) -> Vec<u8> {
    assert!(plaintext.len() <= PLAINTEXT_LEN_MAX, "callers cut their data long before {PLAINTEXT_LEN_MAX} bytes");
    let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
    sealed.resize(OVERHEAD, 0);
    let compression = if compressor.append(plaintext, &mut sealed) {
        ZSTD
    } else {
        sealed.extend_from_slice(plaintext);
        STORED
    };
    sealed[TAG_LEN] = compression;
    sealed[TAG_LEN + 1..OVERHEAD].copy_from_slice(&(plaintext.len() as u32).to_le_bytes());
    sealed
}

/// Opens what [`seal`] made and returns the plaintext.
///
/// # Errors
/// See [`OpenError`]; nothing is returned of a piece that is not authentic.
pub fn open(keys: &Keys, purpose: Purpose, sealed: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    open_bound(keys, purpose, &[], sealed)
}

/// Opens what [`seal_bound`] made.
///
/// # Errors
/// See [`open`].
pub fn open_bound(keys: &Keys, purpose: Purpose, bound: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    let opened = keys.decrypt(purpose, bound, &mut sealed).map_err(|_| OpenError::NotAuthentic)?;
    if let Cow::Owned(plaintext) = unpack(opened)? {
        return Ok(plaintext);
    }
    sealed.drain(..OVERHEAD);
    Ok(sealed)
}

/// Opens several sealed pieces in place. Decrypts all of them side by side, at once (see [`Keys::decrypt_many`]), and
/// decompresses each as the iterator comes to it. Returns one result for each: a damaged piece fails alone.
pub fn open_many<'a>(
    keys: &Keys,
    purpose: Purpose,
    mut sealed: Vec<Message<'a>>,
) -> impl Iterator<Item = Result<Cow<'a, [u8]>, OpenError>> + use<'a> {
    let proven = keys.decrypt_many(purpose, &mut sealed);
    sealed.into_iter().zip(proven).map(|(piece, proven)| {
        proven.map_err(|_| OpenError::NotAuthentic)?;
        let opened: &'a [u8] = piece.buffer;
        unpack(&opened[TAG_LEN..])
    })
}

/// Returns the plaintext of a decrypted envelope.
fn unpack(opened: &[u8]) -> Result<Cow<'_, [u8]>, OpenError> {
    let (header, body) = opened.split_first_chunk::<HEADER_LEN>().ok_or(OpenError::Malformed)?;
    let plaintext_len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if plaintext_len > PLAINTEXT_LEN_MAX {
        return Err(OpenError::Malformed);
    }
    match header[0] {
        STORED if body.len() == plaintext_len => Ok(body.into()),
        ZSTD => {
            let plaintext = compress::decompress(body, plaintext_len).map_err(OpenError::Compression)?;
            if plaintext.len() == plaintext_len { Ok(plaintext.into()) } else { Err(OpenError::Malformed) }
        }
        STORED => Err(OpenError::Malformed),
        other => Err(OpenError::UnknownForm(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(bytes: Vec<u8>, repeat in 1usize..50, pmac: bool) {
            let keys = Keys::derive(&MasterKey::from_bytes([1; 32]), Cipher::ALL[usize::from(pmac)]);
            let plaintext = bytes.repeat(repeat);
            let sealed = seal(&keys, Purpose::Index, &plaintext, &mut compress::Compressor::new(3));
            prop_assert!(sealed.len() <= plaintext.len() + OVERHEAD);
            prop_assert_eq!(open(&keys, Purpose::Index, sealed.clone()).unwrap(), plaintext);
            prop_assert!(open(&keys, Purpose::Snapshot, sealed).is_err());
        }

        #[test]
        fn what_is_sealed_together_opens_together_and_alone(
            pieces in prop::collection::vec((any::<[u8; 3]>(), any::<Vec<u8>>(), 0usize..50), 0..12),
            damaged in 0usize..12,
            pmac: bool,
        ) {
            let keys = Keys::derive(&MasterKey::from_bytes([1; 32]), Cipher::ALL[usize::from(pmac)]);
            let plain: Vec<_> = pieces.iter().map(|(_, bytes, repeat)| bytes.repeat(*repeat)).collect();
            let texts = pieces.iter().zip(&plain).map(|((bound, ..), plain)| (&bound[..], &plain[..]));
            let compressor = &mut compress::Compressor::new(3);
            let mut sealed = seal_many(&keys, Purpose::Index, texts.clone(), compressor);
            for ((bound, plain), sealed) in texts.zip(&sealed) {
                prop_assert_eq!(&seal_bound(&keys, Purpose::Index, bound, plain, compressor), sealed);
                prop_assert_eq!(open_bound(&keys, Purpose::Index, bound, sealed.clone()).unwrap(), plain);
            }
            if let Some(sealed) = sealed.get_mut(damaged) {
                *sealed.last_mut().expect("longer than a tag") ^= 1;
            }
            let bounds = pieces.iter().map(|(bound, ..)| &bound[..]);
            let messages = bounds.zip(&mut sealed).map(|(bound, buffer)| Message { bound, buffer }).collect();
            for (number, (opened, plain)) in open_many(&keys, Purpose::Index, messages).zip(&plain).enumerate() {
                match opened {
                    Ok(opened) => prop_assert!(number != damaged && *opened == **plain),
                    Err(error) => prop_assert!(number == damaged && matches!(error, OpenError::NotAuthentic)),
                }
            }
        }
    }
}
