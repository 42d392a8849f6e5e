//! Compares two snapshots: which items were added, removed, moved and changed.

use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::tree::{self, Change, Entries, NodeSource};
use std::collections::HashMap;

/// How an item differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The item is new.
    Added(Vec<u8>),
    /// The item is gone.
    Removed(Vec<u8>),
    /// The item has other content, or is of another kind.
    Changed(Vec<u8>),
    /// Only the item's time, permissions or owner changed.
    Touched(Vec<u8>),
    /// The item has another path: the old path, the new path.
    Moved(Vec<u8>, Vec<u8>),
}

/// Maximum number of added and removed items that are paired by content to find moves. With more, a move shows as a
/// removal and an addition.
const MOVES_CONSIDERED_MAX: usize = 250_000;

/// Calls `each` for every item that differs between `old` and `new`. Changed items, and added or removed items without
/// content, come first, in the order of the walk. Then come the other added and removed items by path, then the moved
/// ones.
///
/// # Errors
/// See [`ReadError`].
pub fn compare(
    source: &dyn NodeSource,
    old: &Directory,
    new: &Directory,
    each: &mut dyn FnMut(Difference),
) -> Result<(), ReadError> {
    let mut comparison = Comparison { source, each, came: Vec::new(), went: HashMap::new(), held: 0 };
    comparison.directories(old, new, b"")?;
    comparison.finish();
    Ok(())
}

struct Comparison<'a> {
    source: &'a dyn NodeSource,
    each: &'a mut dyn FnMut(Difference),
    /// Added items with content. They are held back until all added and removed items are known.
    came: Vec<(blake3::Hash, Vec<u8>)>,
    went: HashMap<blake3::Hash, Vec<Vec<u8>>>,
    held: usize,
}

impl Comparison<'_> {
    fn directories(&mut self, old: &Directory, new: &Directory, path: &[u8]) -> Result<(), ReadError> {
        let source = self.source;
        tree::diff(source, old, new, |change| match change {
            Change::Added(entry) => self.one_sided(entry, &join(path, &entry.name), true),
            Change::Removed(entry) => self.one_sided(entry, &join(path, &entry.name), false),
            Change::Changed(before, after) => self.both(before, after, join(path, &after.name)),
        })
    }

    fn both(&mut self, before: &Entry, after: &Entry, path: Vec<u8>) -> Result<(), ReadError> {
        match (before.directory(), after.directory()) {
            // A folder is not an item: only its contents count.
            (Some(before), Some(after)) => self.directories(before, after, &path),
            (None, None) => {
                let same = before.kind == after.kind && before.special() == after.special();
                (self.each)(if same { Difference::Touched(path) } else { Difference::Changed(path) });
                Ok(())
            }
            _ => {
                self.one_sided(before, &path, false)?;
                self.one_sided(after, &path, true)
            }
        }
    }

    fn one_sided(&mut self, entry: &Entry, path: &[u8], came: bool) -> Result<(), ReadError> {
        if let Some(dir) = entry.directory() {
            for found in Entries::new(self.source, dir)? {
                let found = found?;
                self.one_sided(found.entry(), &join(path, &found.entry().name), came)?;
            }
            return Ok(());
        }
        let content = entry.content().filter(|content| !content.is_empty() && self.held < MOVES_CONSIDERED_MAX);
        let Some(content) = content else {
            let path = path.to_vec();
            (self.each)(if came { Difference::Added(path) } else { Difference::Removed(path) });
            return Ok(());
        };
        self.held += 1;
        match came {
            true => self.came.push((content.identity(), path.to_vec())),
            false => self.went.entry(content.identity()).or_default().push(path.to_vec()),
        }
        Ok(())
    }

    fn finish(mut self) {
        let mut differences = Vec::new();
        let mut moves = Vec::new();
        for (content, to) in self.came {
            match self.went.get_mut(&content).and_then(Vec::pop) {
                Some(from) => moves.push(Difference::Moved(from, to)),
                None => differences.push((to.clone(), Difference::Added(to))),
            }
        }
        let went = self.went.into_values().flatten();
        differences.extend(went.map(|from| (from.clone(), Difference::Removed(from))));
        differences.sort_by(|(a, _), (b, _)| a.cmp(b));
        differences.into_iter().map(|(_, difference)| difference).chain(moves).for_each(self.each);
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}
