//! Lists, adds and removes the key slots of an open repository.

use super::loading::load_short;
use super::opening::SLOTS_MAX;
use super::{Repository, RepositoryError, Result, SMALL_LEN_MAX};
use crate::backend::{Backend, BackendError, ObjectKind, ObjectName};
use crate::format::crypto::random;
use crate::format::id::KeyId;
use crate::format::keyslot::{PasswordCost, RecoveryKey, Slot, SlotError, SlotInfo, SlotKind};

/// A key slot in a list.
#[derive(Debug, Clone)]
pub struct SlotEntry {
    /// The id of the slot.
    pub id: KeyId,
    /// The kind of secret that opens the slot and what its creator noted, or why the slot cannot be read.
    pub slot: std::result::Result<(SlotKind, SlotInfo), SlotError>,
    /// True if this slot opened the repository.
    pub in_use: bool,
}

impl Repository {
    pub(super) fn add_password_slot(&self, id: KeyId, password: &[u8], cost: PasswordCost, label: &str) -> Result<()> {
        let info = slot_info(label);
        let slot = Slot::for_password((self.id(), id), (&self.master, &self.keys), password, cost, &info)
            .ok_or(RepositoryError::Cost)?;
        Ok(self.backend.save(ObjectName::key(id.0), &slot)?)
    }

    pub(super) fn add_recovery_slot(&self, id: KeyId, recovery: &RecoveryKey, label: &str) -> Result<()> {
        let slot = Slot::for_recovery((self.id(), id), (&self.master, &self.keys), recovery, &slot_info(label));
        Ok(self.backend.save(ObjectName::key(id.0), &slot)?)
    }

    /// Adds a slot for another password.
    ///
    /// # Errors
    /// [`RepositoryError::TooManySlots`], or an error of the storage.
    pub fn add_password(&self, password: &[u8], cost: PasswordCost, label: &str) -> Result<KeyId> {
        self.refuse_too_many()?;
        let id = KeyId(random());
        self.add_password_slot(id, password, cost, label)?;
        Ok(id)
    }

    /// Adds a slot for a new recovery key and returns the key. No other copy of the key exists. Calls `show` with the
    /// id and the key before it stores the slot. If `show` fails, no slot is stored, so there is never a key that
    /// nobody saw.
    ///
    /// # Errors
    /// An error of `show`, [`RepositoryError::TooManySlots`], or an error of the storage.
    pub fn add_recovery<E: From<RepositoryError>>(
        &self,
        label: &str,
        show: impl FnOnce(KeyId, &RecoveryKey) -> std::result::Result<(), E>,
    ) -> std::result::Result<(KeyId, RecoveryKey), E> {
        self.refuse_too_many()?;
        let (id, recovery) = (KeyId(random()), RecoveryKey::generate());
        show(id, &recovery)?;
        self.add_recovery_slot(id, &recovery, label)?;
        Ok((id, recovery))
    }

    fn refuse_too_many(&self) -> Result<()> {
        let count = self.key_ids()?.len();
        if count < SLOTS_MAX { Ok(()) } else { Err(RepositoryError::TooManySlots { count }) }
    }

    /// Lists the key slots, including those that cannot be read.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn slots(&self) -> Result<Vec<SlotEntry>> {
        let mut slots = Vec::new();
        for id in self.key_ids()? {
            let object = match load_short(&*self.backend, ObjectName::key(id.0), SMALL_LEN_MAX) {
                Ok(object) => object,
                // An object of that length is no slot.
                Err(RepositoryError::TooLong { .. }) => Vec::new(),
                // The slot was removed after it was listed.
                Err(RepositoryError::Backend(BackendError::NotFound { .. })) => continue,
                Err(error) => return Err(error),
            };
            let slot = Slot::prove(&object, (self.id(), id), &self.keys);
            slots.push(SlotEntry { id, slot, in_use: id == self.opened_with });
        }
        Ok(slots)
    }

    /// Removes the slot whose id begins with `asked`, and leaves a record of the removal.
    ///
    /// Two people who remove the last two slots at the same time must not both succeed. So each first writes the record
    /// and then looks again for another slot of which no record says that it was removed. The later of the two sees the
    /// other's record and takes back his own.
    ///
    /// # Errors
    /// [`RepositoryError::LastSlot`] or [`RepositoryError::SlotsContested`] if nothing else would open the repository,
    /// [`RepositoryError::NoSlot`] if no slot or more than one matches.
    pub fn remove_slot(&self, asked: &str) -> Result<KeyId> {
        let slots = self.slots()?;
        let matching: Vec<_> = slots.iter().filter(|slot| slot.id.to_string().starts_with(asked)).collect();
        let [slot] = matching.as_slice() else {
            return Err(RepositoryError::NoSlot { asked: asked.to_owned() });
        };
        let id = slot.id;
        if !self.another_opens(id)? {
            return Err(RepositoryError::LastSlot { key: id });
        }
        let record = self.record_removal(&[id], &[])?;
        match self.another_opens(id) {
            Ok(true) => {}
            refused => {
                self.backend.remove(record)?;
                return Err(refused.err().unwrap_or(RepositoryError::SlotsContested));
            }
        }
        self.backend.remove(ObjectName::key(id.0))?;
        Ok(id)
    }

    /// Returns whether another slot than `without` opens the repository. A slot does not count if a record says that it
    /// was removed.
    fn another_opens(&self, without: KeyId) -> Result<bool> {
        // The slots are listed before the records: a slot that is removed between the two listings is in a record by
        // then.
        let slots = self.slots()?;
        let removed = self.removed()?;
        if removed.unread > 0 {
            return Err(RepositoryError::UnreadRecords { unread: removed.unread });
        }
        Ok(slots.iter().any(|slot| slot.id != without && slot.slot.is_ok() && !removed.keys.contains(&slot.id)))
    }

    /// Returns the ids of the key slots.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn key_ids(&self) -> Result<Vec<KeyId>> {
        Ok(self.ids(ObjectKind::Key)?.into_iter().map(KeyId).collect())
    }
}

fn slot_info(label: &str) -> SlotInfo {
    SlotInfo { created: jiff::Timestamp::now().as_second(), label: label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mem::Mem;
    use crate::repository::{CreateOptions, RepositoryError};
    use parking_lot::Mutex;
    use std::ops::Range;
    use std::sync::Arc;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 8, passes: 1, lanes: 1 };

    fn created(backend: Arc<dyn Backend>) -> Repository {
        let options = CreateOptions { cost: CHEAP, ..CreateOptions::default() };
        Repository::create(backend, b"first", &options).expect("created").0
    }

    #[test]
    fn a_password_opens_whatever_other_slots_there_are() {
        let backend = Arc::new(Mem::new());
        let repository = created(backend.clone());
        for number in 0..100 {
            repository.add_password(format!("password {number}").as_bytes(), CHEAP, "").expect("a slot");
        }
        // Objects that are no slots do not use up the limit of work.
        for number in 0..200u8 {
            backend.save(ObjectName::key([number; 16]), b"junk").expect("room");
        }
        for number in 0..100 {
            let opened = Repository::open(backend.clone(), format!("password {number}").as_bytes());
            assert!(opened.is_ok(), "password {number}: {:?}", opened.err());
        }
        let refused = Repository::open(backend.clone(), b"wrong").err();
        assert!(matches!(refused, Some(RepositoryError::NoKeyFits { tried: 102, untried: 200 })), "{refused:?}");

        // A slot beyond the maximum would never be tried, so it is not added.
        for number in 0..1000u64 {
            let id = *blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().expect("16 of 32 bytes");
            backend.save(ObjectName::key(id), b"junk").expect("room");
        }
        let refused = repository.add_password(b"one more", CHEAP, "").err();
        assert!(matches!(refused, Some(RepositoryError::TooManySlots { .. })), "{refused:?}");
    }

    /// A backend that calls `meddle` once, before or after a record of a removal is stored.
    struct Meddled {
        backend: Arc<Mem>,
        before: bool,
        meddle: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl Backend for Meddled {
        fn save(&self, name: ObjectName, data: &[u8]) -> std::result::Result<(), BackendError> {
            let meddle = || {
                let meddle = (name.kind() == ObjectKind::Gc).then(|| self.meddle.lock().take()).flatten();
                meddle.into_iter().for_each(|meddle| meddle());
            };
            if self.before {
                meddle();
            }
            self.backend.save(name, data)?;
            meddle();
            Ok(())
        }

        fn load(&self, name: ObjectName) -> std::result::Result<Vec<u8>, BackendError> {
            self.backend.load(name)
        }

        fn load_range(&self, name: ObjectName, range: Range<u64>) -> std::result::Result<Vec<u8>, BackendError> {
            self.backend.load_range(name, range)
        }

        fn list(
            &self,
            kind: ObjectKind,
            each: &mut dyn FnMut(ObjectName, u64),
        ) -> std::result::Result<(), BackendError> {
            self.backend.list(kind, each)
        }

        fn size(&self, name: ObjectName) -> std::result::Result<u64, BackendError> {
            self.backend.size(name)
        }

        fn remove(&self, name: ObjectName) -> std::result::Result<(), BackendError> {
            self.backend.remove(name)
        }

        fn describe(&self) -> String {
            self.backend.describe()
        }
    }

    #[test]
    fn two_who_remove_the_last_two_slots_at_once_leave_one() {
        for before in [true, false] {
            let backend = Arc::new(Mem::new());
            let created = created(backend.clone());
            let [one, other] = created.key_ids().expect("listed")[..] else { panic!("a password and a recovery key") };
            let meddled = Arc::new(Meddled { backend: backend.clone(), before, meddle: Mutex::default() });
            let here = Repository::open(meddled.clone(), b"first").expect("it opens");
            let there = Repository::open(backend.clone(), b"first").expect("it opens");
            *meddled.meddle.lock() = Some(Box::new(move || {
                let removed = there.remove_slot(&other.to_string());
                assert_eq!(removed.is_ok(), before, "{removed:?}");
            }));
            let removed = here.remove_slot(&one.to_string());
            assert_eq!(removed.is_ok(), !before, "{removed:?}");
            let left = created.key_ids().expect("listed");
            assert_eq!(left, [if before { one } else { other }]);
            // The refused removal left no record: no record says that the remaining slot was removed.
            let removed = created.removed().expect("readable");
            assert_eq!(removed.keys.len(), 1);
            assert!(!removed.keys.contains(&left[0]));
            let last = created.remove_slot(&left[0].to_string());
            assert!(matches!(last, Err(RepositoryError::LastSlot { .. })), "{last:?}");
        }
    }
}
