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
    /// If archives are taken apart ([`crate::format::recipe`]), the lengths of the chunks of what is in them.
    pub archives: Option<ChunkSizes>,
}

/// How a repository stores archives: Office documents and other zip files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archives {
    /// By what is in them: they are taken apart. A changed document then stores what changed in it.
    ByContent,
    /// As they are.
    #[default]
    Whole,
}

impl Archives {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::ByContent, Self::Whole];

    /// Returns the name in the configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ByContent => "by-content",
            Self::Whole => "whole",
        }
    }

    /// Returns the way of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }
}

/// The feature of repositories in which archives are taken apart.
const ARCHIVES: &str = "deflated";

/// The lengths of chunks of what is in archives. A change inside a document stores one chunk, and each chunk costs
/// about 100 bytes of references (docs/decisions/0026-office-files.md).
pub const ARCHIVE_CHUNKS: ChunkSizes = ChunkSizes { min: 2 << 10, avg: 8 << 10, max: 32 << 10 };

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
            archives: None,
        }
    }

    /// Returns the bytes of the object.
    pub fn encode(&self, keys: &Keys) -> Vec<u8> {
        let mut map = MapWriter::default();
        map.field(1).uint(FORMAT_VERSION);
        map.field(2).bytes(self.id.as_bytes());
        map.field(3).text(self.cipher.name());
        write_sizes(self.chunker.small, map.field(4));
        write_sizes(self.chunker.large, map.field(5));
        map.field(6).uint(self.chunker.large_from);
        map.field(7).uint(self.block_size.into());
        map.field(8).uint(self.pack_size.into());
        map.field(9).uint(self.node_size.into());
        if let Some(sizes) = self.archives {
            map.field(10).array(1).text(ARCHIVES);
            write_sizes(sizes, map.field(11));
        }
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
        let (mut known_features, mut takes_apart) = (true, false);
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
                // Features that a reader must know. This version knows one.
                10 => {
                    for _ in 0..value.array()? {
                        match value.text()? {
                            ARCHIVES => takes_apart = true,
                            _ => known_features = false,
                        }
                    }
                }
                11 => config.archives = Some(read_sizes(value)?),
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
        // Without the feature key 11 means nothing.
        if !takes_apart {
            config.archives = None;
        }
        let sizes_given = sizes_given + usize::from(config.archives.is_some());
        let sizes_wanted = 6 + usize::from(takes_apart);
        let sane = reader.is_empty() && sizes_given == sizes_wanted && config.sizes_are_sane();
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
            && self.archives.is_none_or(chunks_are_sane)
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

fn write_sizes(sizes: ChunkSizes, out: &mut Writer) {
    out.array(3).uint(sizes.min.into()).uint(sizes.avg.into()).uint(sizes.max.into());
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
        let config =
            Config { archives: Some(ARCHIVE_CHUNKS), ..Config::new(RepositoryId([8; 16]), Cipher::Aes256PmacSiv) };
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

    /// An earlier version refuses every feature, so it refuses a repository with archives taken apart. This version
    /// refuses every other one.
    #[test]
    fn an_unknown_feature_is_refused() {
        let keys = Keys::derive(&MasterKey::from_bytes([4; 32]), Cipher::Aes256Siv);
        let plain = Config::new(RepositoryId([8; 16]), Cipher::Aes256Siv);
        let known = Config { archives: Some(ARCHIVE_CHUNKS), ..plain.clone() };
        let bytes = known.encode(&keys);
        let at = bytes.windows(ARCHIVES.len()).position(|window| window == ARCHIVES.as_bytes()).expect("its name");
        assert_eq!(bytes[at - 3..at - 1], [10, 0x81], "key 10, an array of one feature");
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert_eq!(Config::decode(&other), Err(ConfigError::Features));
        assert!(!plain.encode(&keys).windows(ARCHIVES.len()).any(|window| window == ARCHIVES.as_bytes()));
        assert_eq!(Config::decode(&plain.encode(&keys)), Ok(plain));
    }
}
