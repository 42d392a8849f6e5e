//! A repository in memory, for tests of those who use one.

use crate::backend::mem::Mem;
use crate::backend::{Backend, ObjectName};
use crate::format::id::SnapshotId;
use crate::format::keyslot::PasswordCost;
use crate::repository::{CreateOptions, Repository};
use std::sync::Arc;

pub(crate) struct Scratch {
    stored: Arc<Mem>,
    pub repository: Arc<Repository>,
}

impl Scratch {
    pub fn new() -> Self {
        let cost = PasswordCost { memory_kib: 8, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let stored = Arc::new(Mem::new());
        let repository = Repository::create(stored.clone(), b"password", &options).expect("created").0;
        Self { stored, repository: Arc::new(repository) }
    }

    fn packs(&self) -> impl Iterator<Item = ObjectName> {
        self.repository.packs().expect("listed").into_keys().map(|id| ObjectName::pack(id.0))
    }

    pub fn remove_snapshot(&self, id: SnapshotId) {
        self.stored.remove(ObjectName::snapshot(id.0)).expect("it is there");
    }

    pub fn remove_packs(&self) {
        self.packs().for_each(|pack| self.stored.remove(pack).expect("it is there"));
    }

    /// Damages every block of every pack.
    pub fn damage_packs(&self) {
        for pack in self.packs() {
            let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 1);
            assert!(self.stored.damage(pack, flip));
        }
    }
}
