//! The changes of one folder. They are collected in any order, and applied to its tree together.
//!
//! A few changes stay in memory. More go to the local state in sorted runs, which are merged in the end. So memory does
//! not grow with the folder. Names are part of the sealed values there, never of the keys.

use crate::backup::context::Context;
use crate::format::cbor;
use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::store::{Store, StoreError};
use crate::repository::tree::build::Cutter;
use crate::repository::tree::{self, Entries, TreeBuilder};
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of changes in memory. These are applied to the tree one by one. More changes go to the local state,
/// and are merged with the tree in one pass.
const IN_MEMORY_MAX: usize = 512;
/// Maximum number of changes that stay in memory while the folder waits ([`Edits::set_aside`]).
const IDLE_IN_MEMORY_MAX: usize = 32;
/// Number of changes of a sorted run that are read from the local state at a time.
const READ_AT_ONCE: usize = 32;

/// What some names of a folder stand for after the changes.
pub struct Edits {
    area: u64,
    /// The number of sorted runs in the local state.
    runs: u32,
    recent: BTreeMap<Box<[u8]>, Option<Entry>>,
}

impl Edits {
    /// Starts with no change. Nothing else may use `area` of the local state.
    pub fn new(area: u64) -> Self {
        Self { area, runs: 0, recent: BTreeMap::new() }
    }

    /// Returns true if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.runs == 0
    }

    /// Puts `entry` into the folder, in place of what has its name.
    ///
    /// # Errors
    /// If the local state fails.
    pub fn put(&mut self, entry: Entry, store: &Store) -> Result<(), StoreError> {
        self.note(entry.name.clone(), Some(entry), store)
    }

    /// Removes what is called `name`, unless something is put there, too, before or after this call.
    ///
    /// # Errors
    /// If the local state fails.
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

    /// Moves the changes in memory to the local state, unless there are only a few.
    ///
    /// # Errors
    /// If the local state fails.
    pub fn set_aside(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.recent.len() > IDLE_IN_MEMORY_MAX { self.spill(store) } else { Ok(()) }
    }

    fn spill(&mut self, store: &Store) -> Result<(), StoreError> {
        for (number, (name, entry)) in (0u32..).zip(std::mem::take(&mut self.recent)) {
            let key = [self.runs.to_be_bytes(), number.to_be_bytes()].concat();
            let len = (name.len() as u16).to_be_bytes();
            let entry = entry.map(|entry| entry.encode()).unwrap_or_default();
            let value = [len.as_slice(), &name, &entry].concat();
            store.local().put_aside(self.area, &key, &value)?;
        }
        self.runs += 1;
        Ok(())
    }

    /// Applies the changes to the directory `before`, and returns the new directory.
    ///
    /// # Errors
    /// If nodes cannot be read or stored.
    pub fn apply(mut self, before: Option<&Directory>, context: &Context) -> Result<Directory, StoreError> {
        let store = &*context.store;
        let cutter = Cutter::new(context.repository.keys(), context.repository.config().node_size);
        match before {
            Some(before) if self.runs == 0 => tree::edit(&*context.reader, before, self.recent, cutter, &mut &*store),
            None if self.runs == 0 => {
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
        let mut runs: Vec<_> = (0..self.runs).map(|run| SortedRun::new(self.area, run)).collect();
        while let Some((name, entry)) = next_change(&mut runs, &context.store)? {
            while let Some(found) = old.as_mut().and_then(|old| old.next_if(|old| is_before(old, &name))) {
                builder.push(found?.entry().clone(), sink)?;
            }
            if let Some(replaced) = old.as_mut().and_then(|old| old.next_if(|old| is_called(old, &name))) {
                replaced?;
            }
            if let Some(entry) = entry {
                builder.push(entry, sink)?;
            }
        }
        for found in old.into_iter().flatten() {
            builder.push(found?.entry().clone(), sink)?;
        }
        builder.finish(sink)
    }
}

type NamedChange = (Vec<u8>, Option<Entry>);

/// Takes the change with the smallest name from all runs. If several runs have this name, a change that puts something
/// there wins, and among those the last one.
fn next_change(runs: &mut [SortedRun], store: &Store) -> Result<Option<NamedChange>, StoreError> {
    let mut least: Option<Vec<u8>> = None;
    for run in &mut *runs {
        if let Some((name, _)) = run.peek(store)?
            && least.as_ref().is_none_or(|least| name < least)
        {
            least = Some(name.clone());
        }
    }
    let Some(name) = least else { return Ok(None) };
    let mut entry = None;
    for run in runs {
        if run.peek(store)?.is_some_and(|(found, _)| *found == name) {
            let (_, change) = run.ahead.pop_front().expect("peeked at");
            entry = change.or(entry);
        }
    }
    Ok(Some((name, entry)))
}

/// Changes sorted by name, as one spill wrote them.
struct SortedRun {
    area: u64,
    run: u32,
    next: u32,
    ended: bool,
    ahead: VecDeque<NamedChange>,
}

impl SortedRun {
    fn new(area: u64, run: u32) -> Self {
        Self { area, run, next: 0, ended: false, ahead: VecDeque::new() }
    }

    fn peek(&mut self, store: &Store) -> Result<Option<&NamedChange>, StoreError> {
        if self.ahead.is_empty() && !self.ended {
            let run = self.run.to_be_bytes();
            let after = match (self.next, self.run) {
                (0, 0) => None,
                // The first change of a run follows the last one of the run before.
                (0, number) => Some([(number - 1).to_be_bytes(), [0xff; 4]].concat()),
                (next, _) => Some([run, (next - 1).to_be_bytes()].concat()),
            };
            for (key, value) in store.local().set_aside(self.area, after.as_deref(), READ_AT_ONCE)? {
                if !key.starts_with(&run) {
                    break;
                }
                self.next += 1;
                self.ahead.push_back(read_change(&value));
            }
            self.ended = self.ahead.is_empty();
        }
        Ok(self.ahead.front())
    }
}

fn read_change(value: &[u8]) -> NamedChange {
    let intact = "the local state gives back what this run wrote, authenticated";
    let (len, rest) = value.split_first_chunk().expect(intact);
    let (name, entry) = rest.split_at(u16::from_be_bytes(*len).into());
    let entry = (!entry.is_empty()).then(|| Entry::read(&mut cbor::Reader::new(entry)).expect(intact));
    (name.to_vec(), entry)
}

type FoundResult = Result<tree::FoundEntry, ReadError>;

/// Returns true if an entry comes before `name`. An error counts as before everything, so that it is returned at once.
fn is_before(found: &FoundResult, name: &[u8]) -> bool {
    found.as_ref().map_or(true, |found| *found.entry().name < *name)
}

fn is_called(found: &FoundResult, name: &[u8]) -> bool {
    found.as_ref().is_ok_and(|found| *found.entry().name == *name)
}
