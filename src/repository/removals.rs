//! Records of what was removed on purpose.

use super::loading::{load_limited, names};
use super::{Repository, RepositoryError, Result, SEALED_LEN_MAX};
use crate::backend::{ObjectKind, ObjectName};
use crate::cbor::{MapWriter, Writer};
use crate::compress::{Compressor, META_LEVEL};
use crate::crypto::{Purpose, random};
use crate::id::{KeyId, SnapshotId};
use crate::sealed::{self, OpenError};

const GC_VERSION: u64 = 1;

impl Repository {
    /// Leaves a record that these were removed on purpose, before they are.
    pub(super) fn record_removal(&self, keys: &[KeyId], snapshots: &[SnapshotId]) -> Result<()> {
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
        Ok(self.backend.save(ObjectName::gc(id), &record)?)
    }

    /// Returns the names of the records of what was removed on purpose.
    ///
    /// # Errors
    /// What the storage gives.
    pub fn removal_records(&self) -> Result<Vec<ObjectName>> {
        names(&*self.backend, ObjectKind::Gc)
    }

    /// Returns the key slots and snapshots that were removed on purpose.
    ///
    /// # Errors
    /// [`RepositoryError::Sealed`] for a damaged record, or what the storage gives.
    pub fn removed(&self) -> Result<(Vec<KeyId>, Vec<SnapshotId>)> {
        let records = self.removal_records()?.into_iter().map(|name| self.load_removals(name));
        let (keys, snapshots): (Vec<_>, Vec<_>) = records.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((keys.concat(), snapshots.concat()))
    }

    /// Reads one of those records: the key slots and snapshots that were removed.
    ///
    /// # Errors
    /// [`RepositoryError::Sealed`] when it is damaged, or what the storage gives.
    pub fn load_removals(&self, name: ObjectName) -> Result<(Vec<KeyId>, Vec<SnapshotId>)> {
        let (mut keys, mut snapshots) = (Vec::new(), Vec::new());
        let (sealed, _turn) = load_limited(&*self.backend, name, SEALED_LEN_MAX, &self.turns)?;
        let record = sealed::open_bound(&self.keys, Purpose::Gc, name.id_bytes(), sealed)
            .map_err(|source| RepositoryError::Sealed { name, source })?;
        let mut reader = crate::cbor::Reader::new(&record);
        let mut version = None;
        let read = reader.fields(|key, value| {
            match key {
                1 => version = Some(value.uint()?),
                3 => (0..value.array()?).try_for_each(|_| value.array_of().map(|id| keys.push(KeyId(id))))?,
                4 => (0..value.array()?).try_for_each(|_| value.array_of().map(|id| snapshots.push(SnapshotId(id))))?,
                _ => return Ok::<_, crate::cbor::CborError>(false),
            }
            Ok(true)
        });
        if read.is_err() || !reader.is_empty() || version != Some(GC_VERSION) {
            return Err(RepositoryError::Sealed { name, source: OpenError::Malformed });
        }
        Ok((keys, snapshots))
    }
}
