//! Records of objects that were removed on purpose.

use super::loading::{each_concurrently, load_limited, names};
use super::{Repository, RepositoryError, Result, SEALED_LEN_MAX};
use crate::backend::{Backend, ObjectKind, ObjectName};
use crate::format::cbor::{MapWriter, Writer};
use crate::format::compress::{Compressor, META_LEVEL};
use crate::format::crypto::{Purpose, random};
use crate::format::id::{KeyId, SnapshotId};
use crate::format::sealed::{self, OpenError};
use parking_lot::Mutex;
use std::collections::HashSet;

pub(super) const GC_VERSION: u64 = 1;

/// The objects that were removed on purpose.
#[derive(Debug, Clone, Default)]
pub struct Removals {
    /// The key slots that were removed.
    pub keys: HashSet<KeyId>,
    /// The snapshots that were removed.
    pub snapshots: HashSet<SnapshotId>,
    /// The number of records that a later version of this program wrote. They may name more objects.
    pub unread: usize,
}

impl Repository {
    /// Stores a record that these objects are being removed on purpose, and returns its name. Call it before the
    /// removal.
    pub(super) fn record_removal(&self, keys: &[KeyId], snapshots: &[SnapshotId]) -> Result<ObjectName> {
        let mut map = MapWriter::default();
        map.field(1).uint(GC_VERSION);
        map.field(2).int(jiff::Timestamp::now().as_second());
        let field = map.field(3).array(keys.len());
        keys.iter().for_each(|id| _ = field.bytes(id.as_bytes()));
        let field = map.field(4).array(snapshots.len());
        snapshots.iter().for_each(|id| _ = field.bytes(id.as_bytes()));
        let mut out = Writer::new();
        map.finish(&mut out);
        let id: [u8; 16] = random();
        let record =
            sealed::seal_bound(&self.keys, Purpose::Gc, &id, &out.into_bytes(), &mut Compressor::new(META_LEVEL));
        let name = ObjectName::gc(id);
        self.backend.save(name, &record)?;
        Ok(name)
    }

    /// Returns the names of all records of removals.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn removal_records(&self) -> Result<Vec<ObjectName>> {
        names(&*self.backend, ObjectKind::Gc)
    }

    /// Returns the key slots and snapshots that were removed on purpose. Damaged records are passed over; `check` names
    /// them.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`] if the storage fails.
    pub fn removed(&self) -> Result<Removals> {
        let removals = Mutex::new(Removals::default());
        each_concurrently(&self.removal_records()?, |name| {
            match self.load_removals(*name) {
                Ok((keys, snapshots)) => {
                    let mut removals = removals.lock();
                    removals.keys.extend(keys);
                    removals.snapshots.extend(snapshots);
                }
                Err(error) if error.is_of_later_version() => removals.lock().unread += 1,
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        Ok(removals.into_inner())
    }

    /// Reads one record of a removal and returns the key slots and snapshots that it names.
    ///
    /// # Errors
    /// [`RepositoryError::Sealed`] when it is damaged, [`RepositoryError::RecordVersion`], or an error of the storage.
    pub fn load_removals(&self, name: ObjectName) -> Result<(Vec<KeyId>, Vec<SnapshotId>)> {
        let (mut keys, mut snapshots) = (Vec::new(), Vec::new());
        let (sealed, _turn) = load_limited(&*self.backend, name, SEALED_LEN_MAX, &self.turns)?;
        let record = sealed::open_bound(&self.keys, Purpose::Gc, name.id_bytes(), sealed)
            .map_err(|source| RepositoryError::Sealed { name, source })?;
        let mut reader = crate::format::cbor::Reader::new(&record);
        let mut version = None;
        let read = reader.fields(|key, value| {
            match key {
                // The version comes first. In another version the rest may have another meaning.
                1 => match value.uint()? {
                    GC_VERSION => version = Some(GC_VERSION),
                    other => return Err(Unread::Version(other)),
                },
                3 => (0..value.array()?).try_for_each(|_| value.array_of().map(|id| keys.push(KeyId(id))))?,
                4 => (0..value.array()?).try_for_each(|_| value.array_of().map(|id| snapshots.push(SnapshotId(id))))?,
                _ => return Ok(false),
            }
            Ok(true)
        });
        match read {
            Err(Unread::Version(version)) => Err(RepositoryError::RecordVersion { name, version }),
            Ok(_) if reader.is_empty() && version.is_some() => Ok((keys, snapshots)),
            _ => Err(RepositoryError::Sealed { name, source: OpenError::Malformed }),
        }
    }
}

/// Why a record could not be read.
enum Unread {
    Malformed,
    Version(u64),
}

impl From<crate::format::cbor::CborError> for Unread {
    fn from(_: crate::format::cbor::CborError) -> Self {
        Unread::Malformed
    }
}
