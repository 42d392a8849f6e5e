//! Key slots: the master key, wrapped for a password or for the recovery key.
//!
//! A slot's object is a CBOR array of two byte strings. The *head* says how to unwrap the master key. The *information*
//! is sealed under a key derived from the master key and bound to the head. So whoever can open the repository can
//! verify every byte of every slot. docs/repository-format.md, "Key slots".

use crate::format::cbor::{self, CborError, MapWriter};
use crate::format::compress::Compressor;
use crate::format::crypto::{Cipher, Keys, MasterKey, Purpose, SivKey, TAG_LEN, random};
use crate::format::id::{KeyId, RepositoryId};
use crate::format::sealed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::{Zeroize, Zeroizing};

const VERSION: u64 = 1;
const SALT_LEN: usize = 16;
const KIND_PASSWORD: u64 = 1;
const KIND_RECOVERY: u64 = 2;
/// Context of the key derivation for keys that wrap the master key. It is authenticated with what they wrap.
const WRAP_CONTEXT: &str = "strongroom format 1: key slot";

/// The cost of trying a password (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Number of passes over the memory.
    pub passes: u32,
    /// Number of lanes.
    pub lanes: u32,
}

impl Default for PasswordCost {
    /// Returns the second recommendation of RFC 9106, section 4: 64 MiB, three passes, four lanes.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl PasswordCost {
    /// Returns whether the cost is within limits: at most 1 GiB, 16 passes and 16 lanes. A forged slot could otherwise
    /// exhaust memory or time.
    fn is_sane(self) -> bool {
        (8..=1 << 20).contains(&self.memory_kib) && (1..=16).contains(&self.passes) && (1..=16).contains(&self.lanes)
    }

    fn derive(self, password: &[u8], salt: &[u8]) -> Option<SivKey> {
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(64)).ok()?;
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut key = Zeroizing::new([0; 64]);
        argon2.hash_password_into(password, salt, &mut *key).ok()?;
        Some(SivKey::derive(Cipher::Aes256Siv, WRAP_CONTEXT, &*key))
    }
}

/// The recovery key: 32 random bytes, written as 44 characters of base64.
pub struct RecoveryKey(Zeroizing<[u8; 32]>);

impl RecoveryKey {
    /// Generates a new recovery key.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// Parses a recovery key that a person typed. Returns `None` if the text cannot be one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim_ascii()).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// Returns the 44 characters, which are shown only once.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(*self.0))
    }

    fn siv_key(&self) -> SivKey {
        SivKey::derive(Cipher::Aes256Siv, WRAP_CONTEXT, &*self.0)
    }
}

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// A password.
    Password,
    /// The recovery key.
    Recovery,
}

impl SlotKind {
    /// Returns the word shown in lists.
    pub fn name(self) -> &'static str {
        match self {
            SlotKind::Password => "password",
            SlotKind::Recovery => "recovery",
        }
    }
}

/// The part of a slot that only key holders can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// When the slot was created, in seconds since 1970.
    pub created: i64,
    /// The label that the creator of the slot chose.
    pub label: String,
}

/// Why bytes are not a key slot that this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The object is damaged.
    #[error("the key slot is damaged")]
    Damaged,
    /// The slot is authentic, but a later version of the program wrote it.
    #[error("the key slot is of a kind or version that this program does not know")]
    Later,
}

impl From<CborError> for SlotError {
    fn from(_: CborError) -> Self {
        SlotError::Damaged
    }
}

/// A key slot as it is stored.
#[derive(Debug, Clone)]
pub struct Slot {
    /// What opens the slot.
    pub kind: SlotKind,
    cost: Option<(PasswordCost, Vec<u8>)>,
    wrapped: Vec<u8>,
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
        wrapping.encrypt(&[&binding(place)], &mut wrapped);

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
        seal_info(place, keys, &head.into_bytes(), info)
    }

    /// Reads a slot's object and verifies every bit of it. Needs the keys of the opened repository.
    ///
    /// # Errors
    /// [`SlotError::Damaged`], or [`SlotError::Later`] for an undamaged slot that this version cannot open.
    pub fn prove(object: &[u8], place: (RepositoryId, KeyId), keys: &Keys) -> Result<(SlotKind, SlotInfo), SlotError> {
        let (head, info) = split(object)?;
        let info = open_info(place, keys, head, info.to_vec())?;
        // The information authenticates the head. So a head that cannot be decoded is of a later version, not damaged.
        let slot = Self::decode(object).map_err(|_| SlotError::Later)?;
        Ok((slot.kind, info))
    }

    /// Reads a slot's object.
    ///
    /// # Errors
    /// [`SlotError::Damaged`], also for a slot of a later version: only [`Slot::prove`] can tell the two apart.
    pub fn decode(object: &[u8]) -> Result<Self, SlotError> {
        let (head, _) = split(object)?;
        let (mut version, mut kind, mut cost, mut wrapped) = (None, None, None, Vec::new());
        let mut head_reader = cbor::Reader::new(head);
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
                _ => return Err(SlotError::Damaged),
            }
            Ok(true)
        })?;
        let kind = match (kind, &cost) {
            (Some(KIND_PASSWORD), Some((cost, _))) if cost.is_sane() => SlotKind::Password,
            (Some(KIND_RECOVERY), None) => SlotKind::Recovery,
            _ => return Err(SlotError::Damaged),
        };
        let whole = head_reader.is_empty() && version == Some(VERSION) && wrapped.len() == TAG_LEN + MasterKey::LEN;
        if whole { Ok(Slot { kind, cost, wrapped }) } else { Err(SlotError::Damaged) }
    }

    /// Returns the cost of trying a password, in KiB of memory times passes. Trying a recovery key costs 0.
    pub fn work(&self) -> u64 {
        self.cost.as_ref().map_or(0, |(cost, _)| u64::from(cost.memory_kib) * u64::from(cost.passes))
    }

    /// Tries to open the slot with `secret`, a password or a recovery key.
    pub fn open(&self, place: (RepositoryId, KeyId), secret: &[u8]) -> OpenOutcome {
        let wrapping = match &self.cost {
            Some((cost, salt)) => cost.derive(secret, salt),
            None => RecoveryKey::parse(secret).map(|key| key.siv_key()),
        };
        let Some(wrapping) = wrapping else { return OpenOutcome::Unfit };
        let mut wrapped = self.wrapped.clone();
        if let Ok(opened) = wrapping.decrypt(&[&binding(place)], &mut wrapped) {
            let master = <[u8; MasterKey::LEN]>::try_from(&*opened).ok().map(MasterKey::from_bytes);
            opened.zeroize();
            return master.map_or(OpenOutcome::Unfit, OpenOutcome::Fits);
        }
        let unproven = wrapping.decrypt_unproven(&self.wrapped);
        unproven
            .and_then(|bytes| (*bytes).as_slice().try_into().ok())
            .map_or(OpenOutcome::Unfit, |bytes| OpenOutcome::Unproven(MasterKey::from_bytes(bytes)))
    }
}

/// Result of trying a secret on a slot.
pub enum OpenOutcome {
    /// The secret opened the slot; this is the master key.
    Fits(MasterKey),
    /// The secret does not open the slot in this repository, but this key came out of unwrapping. If `config` or the
    /// slot belongs to another repository, this may still be the master key of the stored data. It counts for nothing
    /// until it has opened something.
    Unproven(MasterKey),
    /// The secret does not have the form that this kind of slot needs.
    Unfit,
}

/// Returns a slot's object: the head, and the information that authenticates it.
fn seal_info(place: (RepositoryId, KeyId), keys: &Keys, head: &[u8], info: &SlotInfo) -> Vec<u8> {
    let mut map = MapWriter::default();
    map.field(1).uint(VERSION);
    map.field(2).int(info.created);
    map.field(3).text(&info.label);
    let mut plain = cbor::Writer::new();
    map.finish(&mut plain);
    let bound = [&binding(place)[..], head].concat();
    let info = sealed::seal_bound(keys, Purpose::KeyInfo, &bound, &plain.into_bytes(), &mut Compressor::new(1));
    let mut object = cbor::Writer::new();
    object.array(2).bytes(head).bytes(&info);
    object.into_bytes()
}

/// Splits a slot's object into its head and its information.
fn split(object: &[u8]) -> Result<(&[u8], &[u8]), SlotError> {
    let mut reader = cbor::Reader::new(object);
    if reader.array()? != 2 {
        return Err(SlotError::Damaged);
    }
    let (head, info) = (reader.bytes()?, reader.bytes()?);
    if reader.is_empty() { Ok((head, info)) } else { Err(SlotError::Damaged) }
}

fn open_info(place: (RepositoryId, KeyId), keys: &Keys, head: &[u8], info: Vec<u8>) -> Result<SlotInfo, SlotError> {
    let bound = [&binding(place)[..], head].concat();
    let plain = sealed::open_bound(keys, Purpose::KeyInfo, &bound, info).map_err(|_| SlotError::Damaged)?;
    let mut info = SlotInfo { created: 0, label: String::new() };
    cbor::Reader::new(&plain).fields(|key, value| {
        match key {
            2 => info.created = value.int()?,
            3 => info.label = value.text()?.to_owned(),
            _ => return Ok::<_, SlotError>(false),
        }
        Ok(true)
    })?;
    Ok(info)
}

/// Returns bytes that bind a slot to its repository and its id, so that slots cannot be swapped.
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
            assert!(
                matches!(slot.open(place(1), &secret), OpenOutcome::Fits(found) if found.expose() == master.expose())
            );
            assert!(!matches!(slot.open(place(1), b"other"), OpenOutcome::Fits(_)));
            // Under another id the slot does not open, but the unwrapped key is still returned.
            let tried = slot.open(place(2), &secret);
            assert!(matches!(tried, OpenOutcome::Unproven(found) if found.expose() == master.expose()));
            assert_eq!(Slot::prove(&object, place(1), &keys), Ok((slot.kind, info.clone())));
            for bit in 0..object.len() * 8 {
                let mut damaged = object.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Slot::prove(&damaged, place(1), &keys), Err(SlotError::Damaged), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_slot_of_a_later_version_is_told_from_a_damaged_one() {
        let (master, info) = (MasterKey::from_bytes([9; 32]), SlotInfo { created: 5, label: "token".to_owned() });
        let keys = Keys::derive(&master, Cipher::Aes256Siv);
        let slot = |fields: &dyn Fn(&mut MapWriter)| {
            let (mut map, mut head) = (MapWriter::default(), cbor::Writer::new());
            fields(&mut map);
            map.finish(&mut head);
            seal_info(place(1), &keys, &head.into_bytes(), &info)
        };
        let kind = slot(&|map| {
            map.field(1).uint(VERSION);
            map.field(2).uint(3);
        });
        let version = slot(&|map| _ = map.field(1).text("2, whatever that means"));
        for object in [kind, version] {
            assert_eq!(Slot::prove(&object, place(1), &keys), Err(SlotError::Later));
            assert_eq!(Slot::prove(&object, place(2), &keys), Err(SlotError::Damaged), "of another name");
            assert!(Slot::decode(&object).is_err());
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
