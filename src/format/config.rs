//! The `config` object: what a program must know before it has a key. Nothing in it is secret.
//!
//! Layout: `fields (CBOR map) | authentication code (32)`. The code is keyed: if somebody changed the parameters, the
//! repository does not open. docs/repository-format.md, "Config".

use crate::format::cbor::{CborError, MapWriter, Reader, Writer};
use crate::format::chunker::{ChunkSizes, ChunkerParams};
use crate::format::crypto::{Cipher, Keys};
use crate::format::id::RepositoryId;

/// The format version that this program writes.
pub const FORMAT_VERSION: u64 = 1;

/// The parameters that a repository was created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The id of the repository.
    pub id: RepositoryId,
    /// The cipher that seals everything in the repository.
    pub cipher: Cipher,
    /// The lengths of chunks.
    pub chunker: ChunkerParams,
    /// Plaintext length in bytes at which a block is closed.
    pub block_size: u32,
    /// Length of all its blocks, in bytes, at which a pack is closed.
    pub pack_size: u32,
    /// Average length of a tree node in bytes.
    pub node_size: u32,
}

/// Why a `config` cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The object is not the expected CBOR.
    #[error("the config object is damaged")]
    Malformed,
    /// A later version of the program wrote the object.
    #[error("the repository has format version {0}, this program reads version {FORMAT_VERSION}")]
    Version(u64),
    /// The repository needs a feature that this version does not know.
    #[error("the repository needs features of a later version of this program")]
    Features,
    /// The authentication code is wrong.
    #[error("the config object was changed: its authentication code is wrong")]
    NotAuthentic,
}

impl From<CborError> for ConfigError {
    fn from(_: CborError) -> Self {
        ConfigError::Malformed
    }
}

const MAC_LEN: usize = 32;

impl Config {
    /// Creates the parameters of a new repository.
    pub fn new(id: RepositoryId, cipher: Cipher) -> Self {
        Self {
            id,
            cipher,
            chunker: ChunkerParams::default(),
            block_size: 128 << 10,
            pack_size: 32 << 20,
            node_size: 8 << 10,
        }
    }

    /// Returns the bytes of the object.
    pub fn encode(&self, keys: &Keys) -> Vec<u8> {
        let mut map = MapWriter::default();
        map.field(1).uint(FORMAT_VERSION);
        map.field(2).bytes(self.id.as_bytes());
        map.field(3).text(self.cipher.name());
        for (key, sizes) in [(4, self.chunker.small), (5, self.chunker.large)] {
            let field = map.field(key).array(3);
            [sizes.min, sizes.avg, sizes.max].into_iter().for_each(|size| _ = field.uint(size.into()));
        }
        map.field(6).uint(self.chunker.large_from);
        map.field(7).uint(self.block_size.into());
        map.field(8).uint(self.pack_size.into());
        map.field(9).uint(self.node_size.into());
        let mut out = Writer::new();
        map.finish(&mut out);
        let mut bytes = out.into_bytes();
        let code = keys.config_mac(&bytes);
        bytes.extend(code.as_bytes());
        bytes
    }

    /// Decodes an object. Call [`Config::verify`] before trusting anything in it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ConfigError> {
        let (fields, _) = bytes.split_last_chunk::<MAC_LEN>().ok_or(ConfigError::Malformed)?;
        let mut version = None;
        let mut cipher = None;
        let mut sizes_given = 0;
        let mut known_features = true;
        let mut config = Config::new(RepositoryId([0; 16]), Cipher::Aes256Siv);
        let mut reader = Reader::new(fields);
        reader.fields(|key, value| {
            sizes_given += usize::from((4..=9).contains(&key));
            match key {
                1 => version = Some(value.uint()?),
                2 => config.id = RepositoryId(value.array_of()?),
                3 => cipher = Cipher::from_name(value.text()?),
                4 => config.chunker.small = read_sizes(value)?,
                5 => config.chunker.large = read_sizes(value)?,
                6 => config.chunker.large_from = value.uint()?,
                7 => config.block_size = value.uint_as()?,
                8 => config.pack_size = value.uint_as()?,
                9 => config.node_size = value.uint_as()?,
                // Features that a reader must know. This version knows none.
                10 => {
                    let features = value.array()?;
                    known_features = features == 0;
                    (0..features).try_for_each(|_| value.skip().map(drop))?;
                }
                _ => return Ok::<_, ConfigError>(false),
            }
            Ok(true)
        })?;
        match version {
            Some(FORMAT_VERSION) => {}
            Some(other) => return Err(ConfigError::Version(other)),
            None => return Err(ConfigError::Malformed),
        }
        if !known_features {
            return Err(ConfigError::Features);
        }
        config.cipher = cipher.ok_or(ConfigError::Malformed)?;
        let sane = reader.is_empty() && sizes_given == 6 && config.sizes_are_sane();
        if sane { Ok(config) } else { Err(ConfigError::Malformed) }
    }

    fn sizes_are_sane(&self) -> bool {
        let chunks_are_sane = |sizes: ChunkSizes| {
            let ChunkSizes { min, avg, max } = sizes;
            64 <= min
                && min <= avg
                && avg <= max
                && avg <= 16 << 20
                && max <= 64 << 20
                && [min, avg, max].iter().all(|size| size % 2 == 0)
        };
        chunks_are_sane(self.chunker.small)
            && chunks_are_sane(self.chunker.large)
            && (1 << 10..=64 << 20).contains(&self.block_size)
            && (1 << 10..=128 << 20).contains(&self.pack_size)
            && (64..=16 << 20).contains(&self.node_size)
    }

    /// Proves that a holder of `keys` wrote `bytes`.
    ///
    /// # Errors
    /// [`ConfigError::NotAuthentic`].
    pub fn verify(bytes: &[u8], keys: &Keys) -> Result<(), ConfigError> {
        let (fields, code) = bytes.split_last_chunk::<MAC_LEN>().ok_or(ConfigError::Malformed)?;
        // Comparing two `blake3::Hash` values takes constant time.
        if keys.config_mac(fields) == blake3::Hash::from_bytes(*code) { Ok(()) } else { Err(ConfigError::NotAuthentic) }
    }
}

fn read_sizes(value: &mut Reader<'_>) -> Result<ChunkSizes, ConfigError> {
    if value.array()? != 3 {
        return Err(ConfigError::Malformed);
    }
    Ok(ChunkSizes { min: value.uint_as()?, avg: value.uint_as()?, max: value.uint_as()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::MasterKey;

    #[test]
    fn a_config_comes_back_and_every_flipped_bit_is_seen() {
        let keys = Keys::derive(&MasterKey::from_bytes([4; 32]), Cipher::Aes256PmacSiv);
        let config = Config::new(RepositoryId([8; 16]), Cipher::Aes256PmacSiv);
        let bytes = config.encode(&keys);
        assert_eq!(Config::decode(&bytes), Ok(config));
        assert_eq!(Config::verify(&bytes, &keys), Ok(()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Config::verify(&damaged, &keys), Err(ConfigError::NotAuthentic));
            let _ = Config::decode(&damaged);
        }
    }
}
