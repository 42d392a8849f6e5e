//! A selection of a snapshot to restore, and the walk through it.
//!
//! The walk returns steps in depth-first order. It is a loop over a stack of its own, so a deep tree takes heap memory
//! and no call stack. It holds one position for each folder on its path, so memory does not grow with the number of
//! items. At a damaged node it reports the damage and continues behind it.

use super::{RestoreError, printable};
use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Entries, FoundEntry, NodeSource};
use std::collections::BTreeMap;

/// Maximum depth of folders that are restored. No honest tree is deeper, and longer paths would fill the memory.
pub(super) const DEPTH_MAX: usize = 4096;

/// The parts of a snapshot that are to be restored.
pub(super) enum Selection {
    /// Everything in the root of the snapshot.
    Everything(Box<Entry>),
    /// Single items and folders, each under its last name.
    Parts(Vec<Part>),
}

pub(super) struct Part {
    /// The path in the snapshot, without empty names.
    path: Vec<u8>,
    found: FoundEntry,
}

impl Selection {
    pub fn new(reader: &Reader, root: &Entry, paths: &[Vec<u8>]) -> Result<Self, RestoreError> {
        let not_in_snapshot = |path: &[u8]| RestoreError::NotInSnapshot { path: printable(path) };
        let dir = root.directory().ok_or_else(|| not_in_snapshot(b"/"))?;
        let mut parts = BTreeMap::<Box<[u8]>, Part>::new();
        let mut everything = paths.is_empty();
        for asked in paths {
            let path =
                asked.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/');
            if path.is_empty() {
                everything = true;
                continue;
            }
            let found = tree::find_path(reader, dir, &path)?.ok_or_else(|| not_in_snapshot(asked))?;
            let name = found.entry().name.clone();
            match parts.get(&name) {
                Some(other) if other.path != path => {
                    let [first, second, name] = [&other.path, &path, &*name].map(printable);
                    return Err(RestoreError::SameName { first, second, name });
                }
                _ => drop(parts.insert(name, Part { path, found })),
            }
        }
        if everything {
            // If the root node is damaged, nothing of the snapshot can be read.
            reader.node(&dir.root)?;
            return Ok(Selection::Everything(Box::new(root.clone())));
        }
        Ok(Selection::Parts(parts.into_values().collect()))
    }
}

/// A step of a walk. [`Walk::path`] returns its path.
pub(super) enum Step {
    /// A folder. All steps up to its [`Step::Leave`] lie in it, unless [`Walk::skip`] is called.
    Enter(FoundEntry),
    /// A file or symbolic link.
    Item(FoundEntry),
    /// The end of the folder that was entered last.
    Leave,
    /// A number of `entries` in the folder that was entered last could not be read.
    Unreadable { entries: u64, error: ReadError },
}

pub(super) struct Walk<'a> {
    reader: &'a Reader,
    /// The parts of the selection that come next.
    parts: std::slice::Iter<'a, Part>,
    /// The folders on the path of the walk. The root of the snapshot is among them only if all of it is selected.
    levels: Vec<Level<'a>>,
    has_root_level: bool,
    path: Vec<u8>,
}

struct Level<'a> {
    dir: Directory,
    entries: Position<'a>,
    /// Number of entries that were returned or lost.
    passed: u64,
    path_len: usize,
}

enum Position<'a> {
    NotBegun,
    At(Entries<'a>),
    /// No further entry can be read.
    Lost,
}

impl<'a> Walk<'a> {
    pub fn new(reader: &'a Reader, selection: &'a Selection) -> Self {
        let (root, parts) = match selection {
            Selection::Everything(root) => (root.directory(), [].as_slice()),
            Selection::Parts(parts) => (None, parts.as_slice()),
        };
        let levels: Vec<_> = root.map(|dir| Level::new(*dir, 0)).into_iter().collect();
        Self { reader, parts: parts.iter(), has_root_level: !levels.is_empty(), levels, path: Vec::new() }
    }

    /// Returns the path in the snapshot that the last step was about.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Skips the rest of the folder that was entered last. No [`Step::Leave`] follows for it.
    pub fn skip(&mut self) {
        self.levels.pop();
    }

    /// Returns the next step, or `None` at the end.
    pub fn step(&mut self) -> Option<Step> {
        let Some(level) = self.levels.last_mut() else {
            let part = self.parts.next()?;
            self.path.clone_from(&part.path);
            return Some(self.give(part.found.clone()));
        };
        self.path.truncate(level.path_len);
        match level.next(self.reader) {
            Some(Ok(found)) => {
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&found.entry().name);
                Some(self.give(found))
            }
            Some(Err((entries, error))) => Some(Step::Unreadable { entries, error }),
            None => {
                self.levels.pop();
                if self.has_root_level && self.levels.is_empty() { None } else { Some(Step::Leave) }
            }
        }
    }

    fn give(&mut self, found: FoundEntry) -> Step {
        match found.entry().directory() {
            Some(dir) => {
                self.levels.push(Level::new(*dir, self.path.len()));
                Step::Enter(found)
            }
            None => Step::Item(found),
        }
    }
}

impl<'a> Level<'a> {
    fn new(dir: Directory, path_len: usize) -> Self {
        Self { dir, entries: Position::NotBegun, passed: 0, path_len }
    }

    fn next(&mut self, reader: &'a Reader) -> Option<Result<FoundEntry, (u64, ReadError)>> {
        let next = match &mut self.entries {
            Position::At(entries) => entries.next(),
            Position::NotBegun => match Entries::new(reader, &self.dir) {
                Ok(mut entries) => {
                    let first = entries.next();
                    self.entries = Position::At(entries);
                    first
                }
                Err(error) => Some(Err(error)),
            },
            Position::Lost => None,
        };
        match next? {
            Ok(found) => {
                self.passed += 1;
                Some(Ok(found))
            }
            Err(error) => {
                let first_lost = self.passed;
                self.resume(reader);
                Some(Err(((self.passed - first_lost).max(1), error)))
            }
        }
    }

    /// Finds the next readable entry behind the one where reading failed.
    ///
    /// A lost node may hold hundreds of entries, or thousands of such nodes. So the steps double until an entry is
    /// readable, and a binary search between the last two steps finds the first one.
    fn resume(&mut self, reader: &'a Reader) {
        let total = self.dir.sums.entries.max(self.passed);
        let readable = |number| match Entries::from_number(reader, &self.dir, number) {
            Ok(mut entries) => match entries.next() {
                Some(Ok(_)) => Entries::from_number(reader, &self.dir, number).ok(),
                _ => None,
            },
            Err(_) => None,
        };
        let (mut bad, mut step) = (self.passed, 1u64);
        let (mut good, mut entries) = loop {
            let number = bad.saturating_add(step);
            if number >= total {
                break (total, None);
            }
            match readable(number) {
                Some(entries) => break (number, Some(entries)),
                None => (bad, step) = (number, step.saturating_mul(2)),
            }
        };
        while bad + 1 < good {
            let middle = bad + (good - bad) / 2;
            match readable(middle) {
                Some(found) => (good, entries) = (middle, Some(found)),
                None => bad = middle,
            }
        }
        self.passed = good;
        self.entries = entries.map_or(Position::Lost, Position::At);
    }
}
