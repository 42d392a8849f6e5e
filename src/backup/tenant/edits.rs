//! The changes of one folder, collected in any order and applied at once.
//!
//! A few are kept in memory; many go to the local state, which sorts them, so that memory does not grow with the folder.

use super::Context;
use crate::cbor;
use crate::compress::{Compressor, META_LEVEL};
use crate::entry::{Directory, Entry};
use crate::store::{Store, StoreError};
use crate::tree::build::Cutter;
use crate::tree::{self, Entries, TreeBuilder};
use std::collections::BTreeMap;

/// So many changes are kept in memory and applied to the tree that is there; more are merged with it in one pass.
const IN_MEMORY_MAX: usize = 2048;
/// So many are read from the local state at a time.
const READ_AT_ONCE: usize = 512;

/// What stands under some names of a folder afterwards.
pub struct Edits {
    area: u64,
    spilled: bool,
    recent: BTreeMap<Box<[u8]>, Option<Entry>>,
    compressor: Compressor,
}

impl Edits {
    /// Starts with no change. `area` of the local state is this folder's alone.
    pub fn new(area: u64) -> Self {
        Self { area, spilled: false, recent: BTreeMap::new(), compressor: Compressor::new(META_LEVEL) }
    }

    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty() && !self.spilled
    }

    /// Notes that `entry` stands under its name afterwards.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn put(&mut self, entry: Entry, store: &Store) -> Result<(), StoreError> {
        self.note(entry.name.clone(), Some(entry), store)
    }

    /// Notes that nothing stands under `name` afterwards, unless something is put there too, before or after.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn remove(&mut self, name: &[u8], store: &Store) -> Result<(), StoreError> {
        if self.recent.get(name).is_some_and(Option::is_some) {
            return Ok(());
        }
        self.note(name.into(), None, store)
    }

    fn note(&mut self, name: Box<[u8]>, entry: Option<Entry>, store: &Store) -> Result<(), StoreError> {
        self.recent.insert(name, entry);
        if self.recent.len() > IN_MEMORY_MAX { self.spill(store) } else { Ok(()) }
    }

    fn spill(&mut self, store: &Store) -> Result<(), StoreError> {
        self.spilled = true;
        for (name, entry) in std::mem::take(&mut self.recent) {
            let bytes = entry.map(|entry| entry.encode()).unwrap_or_default();
            store.local().put_aside(self.area, &name, &bytes, &mut self.compressor)?;
        }
        Ok(())
    }

    /// Applies the changes to `before` and returns the directory they make of it.
    ///
    /// # Errors
    /// When nodes cannot be read or stored.
    pub fn apply(mut self, before: Option<&Directory>, context: &Context) -> Result<Directory, StoreError> {
        let store = &*context.store;
        let cutter = Cutter::new(context.repository.keys(), context.repository.config().node_size);
        match before {
            Some(before) if !self.spilled => tree::edit(&*context.reader, before, self.recent, cutter, &mut &*store),
            None if !self.spilled => {
                let mut builder = TreeBuilder::new(cutter);
                for entry in self.recent.into_values().flatten() {
                    builder.push(entry, &mut &*store)?;
                }
                builder.finish(&mut &*store)
            }
            _ => {
                self.spill(store)?;
                let merged = self.merge(before, context, cutter)?;
                store.local().clear_aside(Some(self.area))?;
                Ok(merged)
            }
        }
    }

    fn merge(
        &self,
        before: Option<&Directory>,
        context: &Context,
        cutter: Cutter<'_>,
    ) -> Result<Directory, StoreError> {
        let sink = &mut &*context.store;
        let mut builder = TreeBuilder::new(cutter);
        let mut old = match before {
            Some(before) => Some(Entries::new(&*context.reader, before)?.peekable()),
            None => None,
        };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let changes = context.store.local().set_aside(self.area, after.as_deref(), READ_AT_ONCE)?;
            let Some((last, _)) = changes.last() else { break };
            after = Some(last.clone());
            for (name, bytes) in &changes {
                while let Some(found) = old.as_mut().and_then(|old| old.next_if(|old| is_before(old, name))) {
                    builder.push(found?.entry().clone(), sink)?;
                }
                if let Some(replaced) = old.as_mut().and_then(|old| old.next_if(|old| is_called(old, name))) {
                    replaced?;
                }
                if !bytes.is_empty() {
                    let entry = Entry::read(&mut cbor::Reader::new(bytes));
                    builder
                        .push(entry.expect("the local state gives back what this run wrote, authenticated"), sink)?;
                }
            }
        }
        for found in old.into_iter().flatten() {
            builder.push(found?.entry().clone(), sink)?;
        }
        builder.finish(sink)
    }
}

type FoundResult = Result<tree::Found, crate::reader::ReadError>;

/// An error counts as before everything, so that it is met at once.
fn is_before(found: &FoundResult, name: &[u8]) -> bool {
    found.as_ref().map_or(true, |found| *found.entry().name < *name)
}

fn is_called(found: &FoundResult, name: &[u8]) -> bool {
    found.as_ref().is_ok_and(|found| *found.entry().name == *name)
}
