//! Sealed notes about items: the facts that identify an unchanged file, the items that an unfinished run has read, and
//! values that a run sets aside for itself.

use super::{LocalError, LocalState, prefixed};
use crate::format::crypto::{Message, Purpose};
use crate::format::sealed;
use rocksdb::{Direction, IteratorMode, WriteBatch};
use std::borrow::Cow;

/// A key and the value that was set aside under it.
pub type Aside = (Vec<u8>, Vec<u8>);

impl LocalState {
    /// Returns the facts under `key`, a keyed hash of a file's path, unless they are missing or damaged.
    pub fn facts(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let sealed = self.db.get(prefixed(b'f', key)).ok()??;
        sealed::open_bound(&self.keys, Purpose::LocalState, key, sealed).ok()
    }

    /// Stores `facts` under their keys. They are sealed, because they hold names and subjects.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn put_facts<'a>(&self, facts: impl Iterator<Item = (&'a [u8; 32], &'a [u8])>) -> Result<(), LocalError> {
        let facts: Vec<_> = facts.collect();
        let values = facts.iter().map(|(key, value)| (key.as_slice(), *value));
        let mut batch = WriteBatch::default();
        for ((key, _), sealed) in facts.iter().zip(self.seal(values)) {
            batch.put(prefixed(b'f', *key), sealed);
        }
        self.write(batch)
    }

    /// Seals values, each bound to its key.
    fn seal<'a>(&self, values: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<Vec<u8>> {
        sealed::seal_many(&self.keys, Purpose::LocalState, values, &mut self.compressor.lock())
    }

    /// Removes the facts under these keys.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn drop_facts(&self, keys: impl Iterator<Item = [u8; 32]>) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        keys.for_each(|key| batch.delete(prefixed(b'f', &key)));
        self.write(batch)
    }

    /// Removes the facts of all files.
    #[cfg(test)]
    pub(crate) fn forget_facts(&self) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        batch.delete_range(*b"f", *b"g");
        self.write(batch)?;
        self.flush()
    }

    /// Returns the record of a folder under `key`, a keyed hash of its path, unless it is missing or damaged.
    pub fn folder_record(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let key = prefixed(b'g', key);
        let sealed = self.db.get(&key).ok()??;
        sealed::open_bound(&self.keys, Purpose::LocalState, &key, sealed).ok()
    }

    /// Stores records of folders under their keys.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn put_folders<'a>(&self, folders: impl Iterator<Item = (&'a [u8; 32], &'a [u8])>) -> Result<(), LocalError> {
        let records: Vec<_> = folders.map(|(key, record)| (prefixed(b'g', key), record)).collect();
        let sealed = self.seal(records.iter().map(|(key, record)| (key.as_slice(), *record)));
        let mut batch = WriteBatch::default();
        for ((key, _), sealed) in records.iter().zip(sealed) {
            batch.put(key, sealed);
        }
        self.write(batch)
    }

    /// Removes the record of a folder.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn drop_folder(&self, key: &[u8; 32]) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        batch.delete(prefixed(b'g', key));
        self.write(batch)
    }

    /// Returns what an earlier, unfinished run noted of an item of `owner`, unless it is missing or damaged.
    pub fn unfinished(&self, owner: &[u8; 32], item: &[u8]) -> Option<Vec<u8>> {
        let key = unfinished(owner, item);
        let sealed = self.db.get(&key).ok()??;
        sealed::open_bound(&self.keys, Purpose::LocalState, &key, sealed).ok()
    }

    /// Notes items of `owner` that a run has read, until a snapshot holds them. If the run does not finish, the next
    /// run need not read these items again.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn put_unfinished<'a>(
        &self,
        owner: &[u8; 32],
        items: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), LocalError> {
        let values: Vec<_> = items.map(|(item, value)| (unfinished(owner, item), value)).collect();
        let sealed = self.seal(values.iter().map(|(key, value)| (key.as_slice(), *value)));
        let mut batch = WriteBatch::default();
        values.iter().zip(sealed).for_each(|((key, _), sealed)| batch.put(key, sealed));
        self.write(batch)
    }

    /// Removes the notes of all items of `owner`.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn drop_unfinished(&self, owner: &[u8; 32]) -> Result<(), LocalError> {
        let from = unfinished(owner, &[]);
        let mut batch = WriteBatch::default();
        // The end of the range is longer than the key of any item.
        batch.delete_range(from.clone(), [&from[..], &[0xff; UNFINISHED_ITEM_LEN + 1]].concat());
        self.write(batch)
    }

    /// Sets `value` aside under `key` in `area`, sealed, for this run only.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn put_aside(&self, area: u64, key: &[u8], value: &[u8]) -> Result<(), LocalError> {
        let key = aside(area, key);
        let mut batch = WriteBatch::default();
        let sealed = sealed::seal_bound(&self.keys, Purpose::LocalState, &key, value, &mut self.compressor.lock());
        batch.put(&key, sealed);
        self.write(batch)
    }

    /// Removes the value that was set aside under `key` in `area`, if there is one.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn drop_aside(&self, area: u64, key: &[u8]) -> Result<(), LocalError> {
        let mut batch = WriteBatch::default();
        batch.delete(aside(area, key));
        self.write(batch)
    }

    /// Returns up to `max` of the values set aside in `area`, in the order of their keys, beginning after the key
    /// `after`.
    ///
    /// # Errors
    /// [`LocalError::Database`], or [`LocalError::Unsound`].
    pub fn set_aside(&self, area: u64, after: Option<&[u8]>, max: usize) -> Result<Vec<Aside>, LocalError> {
        let prefix = aside(area, &[]);
        let start = match after {
            // The smallest key that is greater than `after`.
            Some(after) => [&prefix, after, &[0]].concat(),
            None => prefix.clone(),
        };
        let mut found = Vec::new();
        for item in self.db.iterator(IteratorMode::From(&start, Direction::Forward)).take(max) {
            let (key, sealed) = item.map_err(|source| self.failed(source))?;
            if !key.starts_with(&prefix) {
                break;
            }
            found.push((key, sealed));
        }
        let messages = found.iter_mut().map(|(key, sealed)| Message { bound: key, buffer: sealed }).collect();
        let opened: Vec<_> = sealed::open_many(&self.keys, Purpose::LocalState, messages)
            .map(|value| value.map(Cow::into_owned).map_err(|_| LocalError::Unsound { path: self.path.clone() }))
            .collect::<Result<_, _>>()?;
        Ok(found.iter().zip(opened).map(|((key, _), value)| (key[prefix.len()..].to_vec(), value)).collect())
    }

    /// Removes all values that were set aside in `area`, or in all areas.
    ///
    /// # Errors
    /// [`LocalError::Database`].
    pub fn clear_aside(&self, area: Option<u64>) -> Result<(), LocalError> {
        let (from, to) = match area {
            Some(area) => (aside(area, &[]), aside(area + 1, &[])),
            None => (vec![b't'], vec![b't' + 1]),
        };
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        self.write(batch)
    }
}

fn aside(area: u64, key: &[u8]) -> Vec<u8> {
    [b"t", area.to_be_bytes().as_slice(), key].concat()
}

/// Length of the hash that stands for an item in a key, in bytes.
const UNFINISHED_ITEM_LEN: usize = 32;

fn unfinished(owner: &[u8; 32], item: &[u8]) -> Vec<u8> {
    let item = if item.is_empty() { Vec::new() } else { blake3::keyed_hash(owner, item).as_bytes().to_vec() };
    [b"m", owner.as_slice(), &item].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mem::Mem;
    use crate::format::keyslot::PasswordCost;
    use crate::repository::{CreateOptions, Repository};
    use std::sync::Arc;

    #[test]
    fn what_was_not_finished_is_forgotten_for_one_owner_at_a_time() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let cost = PasswordCost { memory_kib: 8, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let repository = Repository::create(Arc::new(Mem::new()), b"password", &options).expect("created").0;
        let local = LocalState::open(&state.path().join("state"), &repository).expect("local state");
        // The range of the last owner is the last one among the keys of this kind.
        let owners = [[0; 32], [7; 32], [0xff; 32]];
        let items: Vec<_> = (0..100u8).map(|number| (vec![number; 3], vec![number; 50])).collect();
        for owner in &owners {
            let items = items.iter().map(|(item, value)| (item.as_slice(), value.as_slice()));
            local.put_unfinished(owner, items).expect("room");
        }
        let known = |owner| items.iter().filter(|(i, v)| local.unfinished(owner, i).as_ref() == Some(v)).count();
        assert_eq!(owners.each_ref().map(known), [100, 100, 100]);
        local.drop_unfinished(&owners[1]).expect("room");
        assert_eq!(owners.each_ref().map(known), [100, 0, 100]);
        local.drop_unfinished(&owners[2]).expect("room");
        assert_eq!(owners.each_ref().map(known), [100, 0, 0]);
    }
}
