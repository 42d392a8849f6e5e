//! What is to be restored: a selection of a snapshot, and the walk through it.
//!
//! The walk gives steps in depth-first order. It is a loop over a stack, so the depth of a tree costs heap and never
//! stack; it holds one position a folder on the way, so its memory does not grow with the number of items. Where a node
//! is damaged it says so and continues behind it.

use super::{RestoreError, printable};
use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Entries, Found, NodeSource};
use std::collections::BTreeMap;

/// Folders deeper than this are not restored: no honest tree has them, and paths would fill the memory.
pub(super) const DEPTH_MAX: usize = 4096;

/// What was asked for.
pub(super) enum Selection {
    /// What the root of the snapshot holds.
    Everything(Box<Entry>),
    /// Single items and folders, each under its last name.
    Parts(Vec<Part>),
}

pub(super) struct Part {
    /// The path in the snapshot, without empty names.
    path: Vec<u8>,
    found: Found,
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
            // Without its root node, nothing of a snapshot can be read.
            reader.node(&dir.root)?;
            return Ok(Selection::Everything(Box::new(root.clone())));
        }
        Ok(Selection::Parts(parts.into_values().collect()))
    }
}

/// What a walk meets. [`Walk::path`] says where.
pub(super) enum Step {
    /// A folder; everything up to its [`Step::Leave`] lies in it, unless [`Walk::skip`] is called.
    Enter(Found),
    /// A file or symbolic link.
    Item(Found),
    /// The end of the folder entered last.
    Leave,
    /// Entries of the folder entered last could not be read; `entries` is their number.
    Unreadable { entries: u64, error: ReadError },
}

pub(super) struct Walk<'a> {
    reader: &'a Reader,
    /// What of the selection is still to come.
    parts: std::slice::Iter<'a, Part>,
    /// The folders on the way, the root of the snapshot among them only when all of it is walked.
    levels: Vec<Level<'a>>,
    has_root_level: bool,
    path: Vec<u8>,
}

struct Level<'a> {
    dir: Directory,
    entries: Position<'a>,
    /// How many entries came, or were lost.
    passed: u64,
    path_len: usize,
}

enum Position<'a> {
    NotBegun,
    At(Entries<'a>),
    /// Nothing more can be read.
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

    /// Returns the path in the snapshot of what the last step was about.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Passes over what is left of the folder entered last. There is no [`Step::Leave`] for it.
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

    fn give(&mut self, found: Found) -> Step {
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

    fn next(&mut self, reader: &'a Reader) -> Option<Result<Found, (u64, ReadError)>> {
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

    /// Finds the next entry that can be read, behind the one where reading failed.
    ///
    /// Steps double until one lands behind the damage, then the edge is sought between: a lost node holds hundreds of
    /// entries, or thousands of such nodes.
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
