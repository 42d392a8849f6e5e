//! Objects in memory, for tests.
//!
//! Follows the contract of [`Backend`] strictly: listings run backwards, so that no code comes to rely on their order.
//! A clone copies everything stored, and is cheap enough to take after each write of a test.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Backend, BackendError, ObjectKind, ObjectName};

/// A backend that lives as long as the process.
#[derive(Debug, Default)]
pub struct Mem {
    objects: Mutex<BTreeMap<ObjectName, Arc<Vec<u8>>>>,
}

impl Mem {
    /// Returns an empty backend.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the bytes of `name` without the backend's knowledge, as a failing disk would. Returns whether the object
    /// exists.
    pub fn damage(&self, name: ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.objects.lock().get_mut(&name) {
            Some(data) => {
                change(Arc::make_mut(data));
                true
            }
            None => false,
        }
    }

    fn get(&self, name: ObjectName) -> Result<Arc<Vec<u8>>, BackendError> {
        self.objects.lock().get(&name).cloned().ok_or(BackendError::NotFound { name })
    }
}

impl Clone for Mem {
    fn clone(&self) -> Self {
        Self { objects: Mutex::new(self.objects.lock().clone()) }
    }
}

impl Backend for Mem {
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        let mut objects = self.objects.lock();
        match objects.get(&name) {
            Some(_) if !name.kind().is_content_addressed() => return Err(BackendError::Exists { name }),
            Some(old) if old.as_slice() == data => {}
            _ => drop(objects.insert(name, Arc::new(data.to_vec()))),
        }
        Ok(())
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        Ok(self.get(name)?.to_vec())
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let data = self.get(name)?;
        let wanted = range.end.max(range.start);
        let part = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(wanted).ok())
            .and_then(|(start, end)| data.get(start..end));
        part.map(<[u8]>::to_vec).ok_or(BackendError::Short { name, wanted, got: data.len() as u64 })
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        // Collect the names first, so that `each` may call this backend.
        let found: Vec<_> = {
            let objects = self.objects.lock();
            objects.iter().filter(|(name, _)| name.kind() == kind).map(|(&name, data)| (name, data.len())).collect()
        };
        for (name, bytes) in found.into_iter().rev() {
            each(name, bytes as u64);
        }
        Ok(())
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        Ok(self.get(name)?.len() as u64)
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        self.objects.lock().remove(&name);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn keeps_the_contract() {
        testing::suite(|| Box::new(Mem::new()));
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let name = testing::name(ObjectKind::Pack, 1);
        let mem = Mem::new();
        mem.save(name, b"whole").unwrap();
        let before = mem.clone();
        assert!(mem.damage(name, |data| data.truncate(2)));
        assert!(!mem.damage(ObjectName::config(), Vec::clear));
        assert_eq!((mem.load(name).unwrap(), before.load(name).unwrap()), (b"wh".to_vec(), b"whole".to_vec()));
    }
}
