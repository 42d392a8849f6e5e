//! The stream an item is exported as: all of it, in a form that only the service can read.
//!
//! The real one is Exchange's FastTransfer format, undocumented, and clients are told to keep it as it is. So is this one:
//! masked, so that no client is tempted to look inside, and with other bytes for every export if asked to.
//!
//! ```text
//! 0   8   magic
//! 8   8   number of the export, which the mask follows from
//! 16  n   masked and deflated: length of the JSON (4 bytes), JSON of everything MIME does not carry, MIME
//! ```

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strongroom_corpora::rng::Rng;

const MAGIC: [u8; 8] = [0x01, 0x00, 0x03, 0x40, 0x0b, 0x00, 0x4d, 0x66];
/// What a stream may unpack to; the largest message a tenant can allow is 150 MB.
const UNPACKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// An item outside of any mailbox.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Item {
    /// What MIME does not carry.
    pub facts: Facts,
    /// Its MIME.
    pub mime: Vec<u8>,
}

/// What MIME does not carry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// When it was received, in seconds since 1970.
    pub received: i64,
    /// When it was created.
    pub created: i64,
    /// Was read.
    pub read: bool,
    /// Was never sent.
    pub draft: bool,
    /// Name of the follow-up flag's status.
    pub flag: String,
    /// Dates of the follow-up flag.
    pub flag_dates: BTreeMap<String, Value>,
    /// Goes to the "Other" inbox.
    pub other: bool,
    /// Was answered or forwarded.
    pub last_verb: u8,
    /// Names of categories.
    pub categories: Vec<String>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// Message class, if it is not that of a plain message.
    pub class: Option<String>,
    /// Importance, if it is another than the MIME says.
    pub importance: Option<String>,
}

/// The bytes are no stream of ours, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The data is not a valid stream.")]
pub struct NotAStream;

impl Item {
    /// Packs the item; streams with different `number` share no bytes worth mentioning.
    pub fn export(&self, number: u64) -> Vec<u8> {
        let facts = serde_json::to_vec(&self.facts).expect("facts are plain JSON");
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        let len = u32::try_from(facts.len()).expect("facts are short").to_le_bytes();
        for part in [&len[..], &facts, &self.mime] {
            packed.write_all(part).expect("a vector takes everything");
        }
        let mut packed = packed.finish().expect("a vector takes everything");
        mask(number, &mut packed);
        [&MAGIC[..], &number.to_le_bytes(), &packed].concat()
    }

    /// Unpacks an item.
    ///
    /// # Errors
    /// [`NotAStream`] for anything that [`Self::export`] did not make, whole and unchanged.
    pub fn import(stream: &[u8]) -> Result<Self, NotAStream> {
        let (head, packed) = stream.split_at_checked(16).ok_or(NotAStream)?;
        if head[..8] != MAGIC {
            return Err(NotAStream);
        }
        let number = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
        let mut packed = packed.to_vec();
        mask(number, &mut packed);
        let mut bytes = Vec::new();
        // Deflate ends with a checksum, so a stream that was cut or changed does not unpack.
        let unpacked = ZlibDecoder::new(&packed[..]).take(UNPACKED_BYTES_MAX).read_to_end(&mut bytes);
        unpacked.map_err(|_| NotAStream)?;
        let (len, rest) = bytes.split_at_checked(4).ok_or(NotAStream)?;
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        let (facts, mime) = rest.split_at_checked(len).ok_or(NotAStream)?;
        Ok(Self { facts: serde_json::from_slice(facts).map_err(|_| NotAStream)?, mime: mime.to_vec() })
    }
}

fn mask(number: u64, bytes: &mut [u8]) {
    let mut rng = Rng::for_purpose(number, "export");
    for chunk in bytes.chunks_mut(8) {
        for (byte, mask) in chunk.iter_mut().zip(rng.next_u64().to_le_bytes()) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stream_gives_the_item_back_whole(mime: Vec<u8>, received: i64, draft: bool, number: u64, name in ".*") {
            let facts = Facts { received, draft, categories: vec![name], ..Facts::default() };
            let item = Item { facts, mime };
            prop_assert_eq!(Item::import(&item.export(number)), Ok(item));
        }

        #[test]
        fn a_stream_that_was_cut_or_changed_is_refused(mime: Vec<u8>, at: prop::sample::Index, cut: bool) {
            let mut stream = Item { mime, ..Item::default() }.export(1);
            let at = at.index(stream.len());
            if cut { stream.truncate(at) } else { stream[at] ^= 0xff }
            prop_assert_eq!(Item::import(&stream), Err(NotAStream));
        }
    }

    #[test]
    fn two_exports_share_nothing_unless_they_have_the_same_number() {
        let item = Item { mime: b"Subject: x\r\n\r\n".repeat(50), ..Item::default() };
        let (first, second) = (item.export(1), item.export(2));
        assert_eq!(first, item.export(1));
        let equal = first[16..].iter().zip(&second[16..]).filter(|(a, b)| a == b).count();
        assert!(equal * 10 < first.len(), "{equal} of {} bytes are equal", first.len());
        assert!(!first.windows(7).any(|window| window == b"Subject"));
    }
}
