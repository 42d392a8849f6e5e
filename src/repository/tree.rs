//! Directories as prolly trees: sorted maps from name to entry, stored in nodes.
//!
//! Records are serialised in order. A node ends after a record if a keyed hash of the record's name, weighed with the
//! record's length, says so. Nodes of the next level list these nodes and are cut in the same way, until one node is
//! left: the root. Whether a node ends after a record depends on that record alone. So a set of entries has exactly one
//! tree, whatever the order of its changes, and a change rewrites only the nodes on its path. The record of a child
//! node holds sums over everything below it, so counting, numbering and seeking cost one walk from root to leaf.
//!
//! This module reads trees. [`build`] makes a tree from sorted entries, [`edit`] changes one, [`diff`] compares two.

pub mod build;
pub mod diff;
pub mod edit;

use crate::format::entry::{Directory, Entry, NodeRef, Sums};
use crate::format::node::{NewNode, Node, NodeKind};
use crate::repository::read_error::ReadError;
use std::sync::Arc;

pub use build::TreeBuilder;
pub use diff::{Change, diff};
pub use edit::edit;

/// Reads nodes: from the repository, or from a map in tests.
pub trait NodeSource {
    /// Returns the node. Its bytes are compared with its id.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn node(&self, node: &NodeRef) -> Result<Arc<Node>, ReadError>;
}

/// Takes new nodes. Children come before their parents.
pub trait NodeSink {
    /// The error of the sink.
    type Error;

    /// Stores `node`, unless it is stored already.
    ///
    /// # Errors
    /// When the node could not be taken.
    fn put(&mut self, node: NewNode) -> Result<(), Self::Error>;
}

/// An entry and its position.
#[derive(Debug, Clone)]
pub struct FoundEntry {
    leaf: Arc<Node>,
    position: usize,
    /// Sums over all entries of the directory before this one.
    pub before: Sums,
}

impl FoundEntry {
    /// Returns the entry.
    pub fn entry(&self) -> &Entry {
        &leaf_entries(&self.leaf)[self.position]
    }

    /// Returns the entries that follow in the same node, nearest first. The directory may have more in later nodes.
    pub fn following(&self) -> impl Iterator<Item = &Entry> {
        leaf_entries(&self.leaf)[self.position + 1..].iter()
    }

    /// Returns the entries that come before in the same node, nearest first.
    pub fn preceding(&self) -> impl Iterator<Item = &Entry> {
        leaf_entries(&self.leaf)[..self.position].iter().rev()
    }
}

fn leaf_entries(node: &Node) -> &[Entry] {
    match &node.kind {
        NodeKind::Leaf(entries) => entries,
        _ => &[],
    }
}

/// Loads a node that must lie at `level`, or at any level of a tree when `level` is `None`.
fn load(source: &dyn NodeSource, node: &NodeRef, level: Option<u8>) -> Result<Arc<Node>, ReadError> {
    let loaded = source.node(node)?;
    let found = match &loaded.kind {
        NodeKind::Leaf(_) => Some(0),
        NodeKind::Inner { level, .. } => Some(*level),
        NodeKind::List(_) => None,
    };
    if found.is_none() || (level.is_some() && found != level) {
        return Err(ReadError::malformed_node(node.id, "stands at the wrong level"));
    }
    Ok(loaded)
}

/// Walks from the root to the record that `choose` picks in each node.
///
/// If `choose` returns a position after the last record, the walk ends with `None`.
fn descend(
    source: &dyn NodeSource,
    dir: &Directory,
    mut choose: impl FnMut(&Node, Sums) -> usize,
) -> Result<Option<FoundEntry>, ReadError> {
    let mut before = Sums::default();
    let mut node = load(source, &dir.root, None)?;
    loop {
        let position = choose(&node, before);
        let child = match &node.kind {
            NodeKind::Leaf(entries) if position < entries.len() => {
                before = add(before, node.sums_before(position), &dir.root)?;
                return Ok(Some(FoundEntry { leaf: node, position, before }));
            }
            NodeKind::Inner { level, children } if position < children.len() => (&children[position], level - 1),
            _ => return Ok(None),
        };
        before = add(before, node.sums_before(position), &dir.root)?;
        let (child, level) = child;
        node = load(source, &child.node, Some(level))?;
    }
}

fn add(before: Sums, more: Sums, root: &NodeRef) -> Result<Sums, ReadError> {
    before.checked_add(more).ok_or_else(|| ReadError::malformed_node(root.id, "has sums that overflow"))
}

/// Finds the entry called `name`.
///
/// # Errors
/// See [`ReadError`].
pub fn find(source: &dyn NodeSource, dir: &Directory, name: &[u8]) -> Result<Option<FoundEntry>, ReadError> {
    let found = descend(source, dir, |node, _| match &node.kind {
        NodeKind::Leaf(entries) => entries.partition_point(|entry| &*entry.name < name),
        NodeKind::Inner { children, .. } => children.partition_point(|child| &*child.last < name),
        NodeKind::List(_) => 0,
    })?;
    Ok(found.filter(|found| &*found.entry().name == name))
}

/// Finds the `number`-th entry, counted from 0 in order of names.
///
/// # Errors
/// See [`ReadError`].
pub fn nth(source: &dyn NodeSource, dir: &Directory, number: u64) -> Result<Option<FoundEntry>, ReadError> {
    descend(source, dir, |node, before| node.position_by(|sums| before.entries.saturating_add(sums.entries) > number))
}

/// Finds the `number`-th entry that is a directory, counted from 0 in order of names.
///
/// # Errors
/// See [`ReadError`].
pub fn nth_directory(source: &dyn NodeSource, dir: &Directory, number: u64) -> Result<Option<FoundEntry>, ReadError> {
    descend(source, dir, |node, before| node.position_by(|sums| before.dirs.saturating_add(sums.dirs) > number))
}

/// Finds an entry by `rank`, its number in a preorder walk of everything under `dir`, counted from 0. Returns that
/// entry if it is in `dir` itself, otherwise the directory in `dir` that contains it.
///
/// # Errors
/// See [`ReadError`].
pub fn at_rank(source: &dyn NodeSource, dir: &Directory, rank: u64) -> Result<Option<FoundEntry>, ReadError> {
    descend(source, dir, |node, before| node.position_by(|sums| before.items.saturating_add(sums.items) > rank))
}

/// Iterates over the entries of one directory in order.
pub struct Entries<'a> {
    source: &'a dyn NodeSource,
    /// The inner nodes above the current leaf, each with the position of the next child.
    stack: Vec<(Arc<Node>, usize)>,
    leaf: Option<(Arc<Node>, usize)>,
    before_leaf: Sums,
}

impl<'a> Entries<'a> {
    /// Starts at the first entry.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn new(source: &'a dyn NodeSource, dir: &Directory) -> Result<Self, ReadError> {
        Self::start(source, dir, |_, _| 0)
    }

    /// Starts at the first entry whose name is not less than `name`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn from_name(source: &'a dyn NodeSource, dir: &Directory, name: &[u8]) -> Result<Self, ReadError> {
        Self::start(source, dir, |node, _| match &node.kind {
            NodeKind::Leaf(entries) => entries.partition_point(|entry| &*entry.name < name),
            NodeKind::Inner { children, .. } => children.partition_point(|child| &*child.last < name),
            NodeKind::List(_) => 0,
        })
    }

    /// Starts at the `number`-th entry.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn from_number(source: &'a dyn NodeSource, dir: &Directory, number: u64) -> Result<Self, ReadError> {
        Self::start(source, dir, |node, before| {
            node.position_by(|sums| before.entries.saturating_add(sums.entries) > number)
        })
    }

    fn start(
        source: &'a dyn NodeSource,
        dir: &Directory,
        choose: impl Fn(&Node, Sums) -> usize,
    ) -> Result<Self, ReadError> {
        let mut entries = Self { source, stack: Vec::new(), leaf: None, before_leaf: Sums::default() };
        let mut node = load(source, &dir.root, None)?;
        loop {
            let position = choose(&node, entries.before_leaf);
            let (child, level) = match &node.kind {
                NodeKind::Inner { level, children } if position < children.len() => {
                    (children[position].node, level - 1)
                }
                NodeKind::Leaf(_) => {
                    entries.leaf = Some((node, position));
                    return Ok(entries);
                }
                _ => return Ok(entries),
            };
            entries.before_leaf = add(entries.before_leaf, node.sums_before(position), &dir.root)?;
            entries.stack.push((node, position + 1));
            node = load(source, &child, Some(level))?;
        }
    }

    fn next_leaf(&mut self) -> Result<Option<()>, ReadError> {
        if let Some((leaf, _)) = self.leaf.take() {
            self.before_leaf = self.before_leaf.checked_add(leaf.sums()).unwrap_or(self.before_leaf);
        }
        while let Some((node, position)) = self.stack.last_mut() {
            let NodeKind::Inner { level, children } = &node.kind else { break };
            let Some(child) = children.get(*position) else {
                self.stack.pop();
                continue;
            };
            *position += 1;
            let loaded = load(self.source, &child.node, Some(level - 1))?;
            match loaded.kind {
                NodeKind::Leaf(_) => {
                    self.leaf = Some((loaded, 0));
                    return Ok(Some(()));
                }
                _ => self.stack.push((loaded, 0)),
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<FoundEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (leaf, position) = self.leaf.as_mut()?;
            if *position < leaf_entries(leaf).len() {
                let before = self.before_leaf.checked_add(leaf.sums_before(*position)).unwrap_or(self.before_leaf);
                let found = FoundEntry { leaf: leaf.clone(), position: *position, before };
                *position += 1;
                return Some(Ok(found));
            }
            match self.next_leaf() {
                Ok(Some(())) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Finds the entry at `path` (names separated by `/`) under `dir`. Returns `None` if a name on the way does not exist.
///
/// An empty path means `dir` itself, which has no entry, so the result is `None` too.
///
/// # Errors
/// See [`ReadError`].
pub fn find_path(source: &dyn NodeSource, dir: &Directory, path: &[u8]) -> Result<Option<FoundEntry>, ReadError> {
    let mut dir = *dir;
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let Some(found) = find(source, &dir, name)? else { return Ok(None) };
        if names.peek().is_none() {
            return Ok(Some(found));
        }
        match found.entry().directory() {
            Some(below) => dir = *below,
            None => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
