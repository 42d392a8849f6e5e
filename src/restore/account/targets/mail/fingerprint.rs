//! The length and the hash of bytes: all that stays in memory of a large file, and all that two files are compared by.

/// The length and the hash of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::restore::account) struct Fingerprint {
    /// The length in bytes.
    pub len: u64,
    /// The BLAKE3 hash.
    pub hash: blake3::Hash,
}

impl Fingerprint {
    /// Returns the fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, hash: blake3::hash(bytes) }
    }
}

/// Computes the fingerprint of bytes that come in pieces.
#[derive(Default)]
pub(in crate::restore::account) struct Fingerprinter {
    /// The number of bytes so far.
    pub len: u64,
    hasher: blake3::Hasher,
}

impl Fingerprinter {
    /// Takes the next piece.
    pub fn take(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// Returns the fingerprint of all pieces so far.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint { len: self.len, hash: self.hasher.finalize() }
    }
}
