//! Typed identifiers, so that the id of a pack cannot be passed where the id of a chunk is expected.

use std::fmt;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal characters")]
pub struct ParseIdError {
    expected: usize,
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = ParseIdError { expected: 2 * N };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(error);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16).ok_or_else(|| error.clone())?;
        let low = char::from(pair[1]).to_digit(16).ok_or_else(|| error.clone())?;
        *byte = (high * 16 + low) as u8;
    }
    Ok(bytes)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// Returns the identifier with these bytes, or `None` if their number is wrong.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0[..4], f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

identifier!(
    /// Id of a content chunk: keyed BLAKE3 of its plaintext.
    ChunkId,
    32
);
identifier!(
    /// Id of a metadata node (of a tree or of a long content list): keyed BLAKE3 of its canonical bytes.
    NodeId,
    32
);
identifier!(
    /// Id of a pack: BLAKE3 of the stored bytes.
    PackId,
    32
);
identifier!(
    /// Id of an index object: BLAKE3 of the stored bytes.
    IndexId,
    32
);
identifier!(
    /// Id of a snapshot: BLAKE3 of the stored bytes.
    SnapshotId,
    32
);
identifier!(
    /// Id of a repository: random.
    RepositoryId,
    16
);
identifier!(
    /// Id of a key slot: random.
    KeyId,
    16
);

impl SnapshotId {
    /// Returns the first eight hexadecimal characters, as shown in lists.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

/// Id of a blob, which is a chunk or a node: what is stored in a block and listed in pack footers and indexes.
///
/// Chunks and nodes are hashed under different keys, so one table can hold both without a clash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

impl From<ChunkId> for BlobId {
    fn from(id: ChunkId) -> Self {
        BlobId(id.0)
    }
}

impl From<NodeId> for BlobId {
    fn from(id: NodeId) -> Self {
        BlobId(id.0)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..4], f)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_survive_text_and_refuse_other_text() {
        let id = KeyId([0xa7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "a7", "zz".repeat(16).as_str(), "é".repeat(16).as_str()] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad:?}");
        }
    }
}
