//! The stream in which an item is exported: the whole item, in a form that only the service can read.
//!
//! The real stream has Exchange's undocumented FastTransfer format, and clients must keep it unchanged. This one is
//! masked, so that no client looks inside. If requested, every export has other bytes.
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
/// Maximum unpacked length of a stream in bytes. The largest message that a tenant can allow is 150 MB.
const UNPACKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// An item that is in no mailbox.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Item {
    /// What MIME cannot express.
    pub facts: Facts,
    /// Its MIME.
    pub mime: Vec<u8>,
}

/// Facts about an item that MIME cannot express.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// When it was received, in seconds since 1970.
    pub received: i64,
    /// When it was created.
    pub created: i64,
    /// True if the message was read.
    pub read: bool,
    /// True if the message was never sent.
    pub draft: bool,
    /// Name of the status of the follow-up flag.
    pub flag: String,
    /// Dates of the follow-up flag.
    pub flag_dates: BTreeMap<String, Value>,
    /// True if the message belongs to the "Other" inbox.
    pub other: bool,
    /// Verb of the last answer or forward; 0 if none.
    pub last_verb: u8,
    /// Names of categories.
    pub categories: Vec<String>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// Message class, if it is not the class of a plain message.
    pub class: Option<String>,
    /// Importance, if it differs from the one in the MIME.
    pub importance: Option<String>,
}

/// The bytes are not a stream of this simulator, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The data is not a valid stream.")]
pub struct NotAStream;

impl Item {
    /// Packs the item. Streams with different `number` have practically no bytes in common.
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
    /// [`NotAStream`] for anything but the whole, unchanged output of [`Self::export`].
    pub fn import(stream: &[u8]) -> Result<Self, NotAStream> {
        let (head, packed) = stream.split_at_checked(16).ok_or(NotAStream)?;
        if head[..8] != MAGIC {
            return Err(NotAStream);
        }
        let number = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
        let mut packed = packed.to_vec();
        mask(number, &mut packed);
        let mut bytes = Vec::new();
        // A deflate stream ends with a checksum, so a truncated or changed stream does not unpack.
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
