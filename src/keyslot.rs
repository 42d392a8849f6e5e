//! Key slots: the master key, wrapped for a password or for the recovery key.
//!
//! A slot's object is a CBOR array of two byte strings: the *head*, which says how to get at the master key, and the
//! *information*, sealed under a key derived from the master key and bound to the head, so that whoever can open the
//! repository can prove every slot whole. docs/repository-format.md, "Key slots".

use crate::cbor::{self, CborError, MapWriter};
use crate::compress::Compressor;
use crate::crypto::{Cipher, Keys, MasterKey, Purpose, SivKey, TAG_LEN, random};
use crate::id::{KeyId, RepositoryId};
use crate::sealed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::{Zeroize, Zeroizing};

const VERSION: u64 = 1;
const SALT_LEN: usize = 16;
const KIND_PASSWORD: u64 = 1;
const KIND_RECOVERY: u64 = 2;
/// The context under which a key that wraps the master key is derived.
const WRAP_CONTEXT: &str = "strongroom format 1: key slot";

/// What it costs to try a password (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for PasswordCost {
    /// The second recommendation of RFC 9106, section 4: 64 MiB, three passes, four lanes.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl PasswordCost {
    /// Refuses what would let a forged slot take all memory or time.
    fn is_sane(self) -> bool {
        (8..=1 << 20).contains(&self.memory_kib) && (1..=16).contains(&self.passes) && (1..=16).contains(&self.lanes)
    }

    fn derive(self, password: &[u8], salt: &[u8]) -> Option<SivKey> {
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(64)).ok()?;
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut key = Zeroizing::new([0; 64]);
        argon2.hash_password_into(password, salt, &mut *key).ok()?;
        Some(SivKey::derive(WRAP_CONTEXT, &*key))
    }
}

/// The recovery key: 32 random bytes, written as 44 characters of base64.
pub struct RecoveryKey(Zeroizing<[u8; 32]>);

impl RecoveryKey {
    /// Makes a new one.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// Reads one from what a person typed, or returns `None` where it cannot be one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim_ascii()).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// Returns the 44 characters that are shown once.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(*self.0))
    }

    fn siv_key(&self) -> SivKey {
        SivKey::derive(WRAP_CONTEXT, &*self.0)
    }
}

/// What a slot can be opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// A password.
    Password,
    /// The recovery key.
    Recovery,
}

impl SlotKind {
    /// Returns the word for it in lists.
    pub fn name(self) -> &'static str {
        match self {
            SlotKind::Password => "password",
            SlotKind::Recovery => "recovery",
        }
    }
}

/// What key holders know about a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What its maker called it.
    pub label: String,
}

/// The bytes are not a key slot that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key slot is damaged or of a later version")]
pub struct MalformedSlot;

impl From<CborError> for MalformedSlot {
    fn from(_: CborError) -> Self {
        MalformedSlot
    }
}

/// A key slot as it is stored.
#[derive(Debug, Clone)]
pub struct Slot {
    /// What opens it.
    pub kind: SlotKind,
    head: Vec<u8>,
    cost: Option<(PasswordCost, Vec<u8>)>,
    wrapped: Vec<u8>,
    info: Vec<u8>,
}

impl Slot {
    /// Wraps `master` for `password`.
    pub fn for_password(
        place: (RepositoryId, KeyId),
        keys: (&MasterKey, &Keys),
        password: &[u8],
        cost: PasswordCost,
        info: &SlotInfo,
    ) -> Option<Vec<u8>> {
        let salt: [u8; SALT_LEN] = random();
        let wrapping = cost.derive(password, &salt).filter(|_| cost.is_sane())?;
        Some(Self::seal(place, keys, SlotKind::Password, Some((cost, salt)), &wrapping, info))
    }

    /// Wraps `master` for `recovery`.
    pub fn for_recovery(
        place: (RepositoryId, KeyId),
        keys: (&MasterKey, &Keys),
        recovery: &RecoveryKey,
        info: &SlotInfo,
    ) -> Vec<u8> {
        Self::seal(place, keys, SlotKind::Recovery, None, &recovery.siv_key(), info)
    }

    fn seal(
        place: (RepositoryId, KeyId),
        (master, keys): (&MasterKey, &Keys),
        kind: SlotKind,
        cost: Option<(PasswordCost, [u8; 16])>,
        wrapping: &SivKey,
        info: &SlotInfo,
    ) -> Vec<u8> {
        let mut wrapped = vec![0; TAG_LEN];
        wrapped.extend_from_slice(master.expose());
        wrapping.encrypt(Cipher::Aes256Siv, &[WRAP_CONTEXT.as_bytes(), &binding(place)], &mut wrapped);

        let mut map = MapWriter::default();
        map.field(1).uint(VERSION);
        map.field(2).uint(if kind == SlotKind::Password { KIND_PASSWORD } else { KIND_RECOVERY });
        if let Some((cost, salt)) = cost {
            let numbers = [cost.memory_kib, cost.passes, cost.lanes].map(u64::from);
            let field = map.field(3).array(4);
            numbers.into_iter().for_each(|number| _ = field.uint(number));
            field.bytes(&salt);
        }
        map.field(4).bytes(&wrapped);
        let mut head = cbor::Writer::new();
        map.finish(&mut head);
        let head = head.into_bytes();

        let mut map = MapWriter::default();
        map.field(1).uint(VERSION);
        map.field(2).int(info.created);
        map.field(3).text(&info.label);
        let mut plain = cbor::Writer::new();
        map.finish(&mut plain);
        let bound = [&binding(place)[..], &head].concat();
        let info = sealed::seal_bound(keys, Purpose::KeyInfo, &bound, &plain.into_bytes(), &mut Compressor::new(1));

        let mut object = cbor::Writer::new();
        object.array(2).bytes(&head).bytes(&info);
        object.into_bytes()
    }

    /// Reads a slot's object.
    ///
    /// # Errors
    /// [`MalformedSlot`].
    pub fn decode(object: &[u8]) -> Result<Self, MalformedSlot> {
        let mut reader = cbor::Reader::new(object);
        if reader.array()? != 2 {
            return Err(MalformedSlot);
        }
        let (head, info) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
        let (mut version, mut kind, mut cost, mut wrapped) = (None, None, None, Vec::new());
        let mut head_reader = cbor::Reader::new(&head);
        head_reader.fields(|key, value| {
            match key {
                1 => version = Some(value.uint()?),
                2 => kind = Some(value.uint()?),
                3 if value.array()? == 4 => {
                    let numbers = PasswordCost {
                        memory_kib: value.uint_as()?,
                        passes: value.uint_as()?,
                        lanes: value.uint_as()?,
                    };
                    cost = Some((numbers, value.array_of::<SALT_LEN>()?.to_vec()));
                }
                4 => wrapped = value.bytes()?.to_vec(),
                _ => return Err(MalformedSlot),
            }
            Ok(true)
        })?;
        let kind = match (kind, &cost) {
            (Some(KIND_PASSWORD), Some((cost, _))) if cost.is_sane() => SlotKind::Password,
            (Some(KIND_RECOVERY), None) => SlotKind::Recovery,
            _ => return Err(MalformedSlot),
        };
        let whole = reader.is_empty()
            && head_reader.is_empty()
            && version == Some(VERSION)
            && wrapped.len() == TAG_LEN + MasterKey::LEN;
        if whole { Ok(Slot { kind, head, cost, wrapped, info }) } else { Err(MalformedSlot) }
    }

    /// Tries `secret`, a password or a recovery key, and returns the master key if it fits.
    pub fn open(&self, place: (RepositoryId, KeyId), secret: &[u8]) -> Option<MasterKey> {
        let wrapping = match &self.cost {
            Some((cost, salt)) => cost.derive(secret, salt)?,
            None => RecoveryKey::parse(secret)?.siv_key(),
        };
        let mut wrapped = self.wrapped.clone();
        let associated = [WRAP_CONTEXT.as_bytes(), &binding(place)];
        let opened = wrapping.decrypt(Cipher::Aes256Siv, &associated, &mut wrapped).ok()?;
        let master = <[u8; 32]>::try_from(&*opened).ok().map(MasterKey::from_bytes);
        opened.zeroize();
        master
    }

    /// Opens the information, which proves the whole slot.
    ///
    /// # Errors
    /// [`MalformedSlot`] when any bit of the slot is not as it was written.
    pub fn info(&self, place: (RepositoryId, KeyId), keys: &Keys) -> Result<SlotInfo, MalformedSlot> {
        let bound = [&binding(place)[..], &self.head].concat();
        let plain = sealed::open_bound(keys, Purpose::KeyInfo, &bound, self.info.clone()).map_err(|_| MalformedSlot)?;
        let mut info = SlotInfo { created: 0, label: String::new() };
        cbor::Reader::new(&plain).fields(|key, value| {
            match key {
                2 => info.created = value.int()?,
                3 => info.label = value.text()?.to_owned(),
                _ => return Ok::<_, MalformedSlot>(false),
            }
            Ok(true)
        })?;
        Ok(info)
    }
}

/// What ties a slot to its repository and its name, so that slots cannot be swapped.
fn binding((repository, key): (RepositoryId, KeyId)) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(repository.as_bytes());
    bytes[16..].copy_from_slice(key.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn place(key: u8) -> (RepositoryId, KeyId) {
        (RepositoryId([1; 16]), KeyId([key; 16]))
    }

    #[test]
    fn a_slot_opens_with_its_secret_alone_and_shows_every_flipped_bit() {
        let master = MasterKey::from_bytes([9; 32]);
        let keys = Keys::derive(&master, Cipher::Aes256Siv);
        let info = SlotInfo { created: 1_700_000_000, label: "ops".to_owned() };
        let recovery = RecoveryKey::generate();
        let password = Slot::for_password(place(1), (&master, &keys), b"secret", CHEAP, &info).expect("sane");
        let recovered = Slot::for_recovery(place(1), (&master, &keys), &recovery, &info);
        for (object, secret) in [(password, b"secret".to_vec()), (recovered, recovery.reveal().as_bytes().to_vec())] {
            let slot = Slot::decode(&object).expect("a slot");
            assert_eq!(slot.open(place(1), &secret).expect("it fits").expose(), master.expose());
            assert!(slot.open(place(1), b"other").is_none());
            assert!(slot.open(place(2), &secret).is_none(), "a slot under another name");
            assert_eq!(slot.info(place(1), &keys), Ok(info.clone()));
            for bit in 0..object.len() * 8 {
                let mut damaged = object.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let proven = Slot::decode(&damaged).and_then(|slot| slot.info(place(1), &keys));
                assert!(proven.is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn the_recovery_key_has_44_characters_and_forgives_white_space() {
        let key = RecoveryKey::generate();
        let text = key.reveal();
        assert_eq!(text.len(), 44);
        let typed = format!("  {}\n", *text);
        assert_eq!(RecoveryKey::parse(typed.as_bytes()).expect("it is one").reveal(), text);
        assert!(RecoveryKey::parse(b"a password").is_none());
    }
}
