//! Compares two directories and reads only the nodes that differ.

use super::{NodeSource, load};
use crate::format::entry::{Directory, Entry, NodeRef};
use crate::format::node::{Node, NodeKind};
use crate::repository::read_error::ReadError;
use std::cmp::Ordering;
use std::sync::Arc;

/// How a name differs between two directories.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Only the second directory has the name.
    Added(&'a Entry),
    /// Only the first directory has the name.
    Removed(&'a Entry),
    /// Both directories have the name, with other facts, other content or another subtree.
    Changed(&'a Entry, &'a Entry),
}

/// Calls `each` for every name that differs between `old` and `new`, in order. Does not enter subdirectories: a
/// subdirectory whose tree differs is reported as a changed entry.
///
/// # Errors
/// An error of reading nodes or of `each`.
pub fn diff<E: From<ReadError>>(
    source: &dyn NodeSource,
    old: &Directory,
    new: &Directory,
    mut each: impl FnMut(Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if old.root == new.root {
        return Ok(());
    }
    let mut old = Side::new(source, &old.root)?;
    let mut new = Side::new(source, &new.root)?;
    loop {
        match (old.head(), new.head()) {
            (None, None) => return Ok(()),
            (Some(Head::Node(node, _)), Some(Head::Node(other, _))) if node == other => {
                old.skip();
                new.skip();
            }
            // The same names may lie under nodes of different levels, so the node of the higher level is opened first.
            // If two nodes of one level differ, both are opened.
            (Some(Head::Node(_, level)), Some(Head::Node(_, other))) => {
                if level >= other {
                    old.open()?;
                }
                if other >= level {
                    new.open()?;
                }
            }
            (Some(Head::Node(..)), _) => old.open()?,
            (_, Some(Head::Node(..))) => new.open()?,
            (Some(Head::Entry(gone)), None) => {
                each(Change::Removed(gone))?;
                old.skip();
            }
            (None, Some(Head::Entry(come))) => {
                each(Change::Added(come))?;
                new.skip();
            }
            (Some(Head::Entry(before)), Some(Head::Entry(after))) => match before.name.cmp(&after.name) {
                Ordering::Less => {
                    each(Change::Removed(before))?;
                    old.skip();
                }
                Ordering::Greater => {
                    each(Change::Added(after))?;
                    new.skip();
                }
                Ordering::Equal => {
                    if before != after {
                        each(Change::Changed(before, after))?;
                    }
                    old.skip();
                    new.skip();
                }
            },
        }
    }
}

enum Head<'a> {
    /// A node and its level.
    Node(NodeRef, u8),
    Entry(&'a Entry),
}

/// One of the two trees, read from front to back. Nodes are opened only on request.
struct Side<'a> {
    source: &'a dyn NodeSource,
    stack: Vec<(Arc<Node>, usize)>,
}

impl<'a> Side<'a> {
    fn new(source: &'a dyn NodeSource, root: &NodeRef) -> Result<Self, ReadError> {
        let mut side = Self { source, stack: vec![(load(source, root, None)?, 0)] };
        side.settle();
        Ok(side)
    }

    fn head(&self) -> Option<Head<'_>> {
        let (node, position) = self.stack.last()?;
        match &node.kind {
            NodeKind::Leaf(entries) => Some(Head::Entry(&entries[*position])),
            NodeKind::Inner { level, children } => Some(Head::Node(children[*position].node, level - 1)),
            NodeKind::List(_) => None,
        }
    }

    fn skip(&mut self) {
        if let Some((_, position)) = self.stack.last_mut() {
            *position += 1;
        }
        self.settle();
    }

    /// Replaces the node at the head by its records.
    fn open(&mut self) -> Result<(), ReadError> {
        if let Some(Head::Node(node, level)) = self.head() {
            let opened = load(self.source, &node, Some(level))?;
            if let Some((_, position)) = self.stack.last_mut() {
                *position += 1;
            }
            self.stack.push((opened, 0));
            self.settle();
        }
        Ok(())
    }

    /// Drops nodes that are read to their end.
    fn settle(&mut self) {
        while let Some((node, position)) = self.stack.last() {
            let len = match &node.kind {
                NodeKind::Leaf(entries) => entries.len(),
                NodeKind::Inner { children, .. } => children.len(),
                NodeKind::List(_) => 0,
            };
            if *position < len {
                return;
            }
            self.stack.pop();
        }
    }
}
