//! Changes a tree in time proportional to the change.
//!
//! Whether a node ends after a record depends on that record alone. So an edit touches only the nodes that hold the
//! edited names and, if the last record of a node is removed, the node after it. The replacements are edits of the
//! level above. The result is exactly the tree that building from scratch gives.

use super::build::{Cutter, OpenNode, Record};
use super::{NodeSink, NodeSource, TreeBuilder, load};
use crate::format::entry::{Directory, Entry, NodeRef};
use crate::format::id::NodeId;
use crate::format::node::{Child, Node, NodeKind};
use crate::repository::read_error::ReadError;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Edits of one level: the new record for each name, or `None` to remove it.
type Edits = BTreeMap<Box<[u8]>, Option<Record>>;

/// Applies `changes` to `dir` and returns the new directory. `changes` holds the new entry for each name, or `None` to
/// remove it.
///
/// Removing a name that does not exist changes nothing.
///
/// # Errors
/// When nodes cannot be read or the sink cannot take one.
pub fn edit<S>(
    source: &dyn NodeSource,
    dir: &Directory,
    changes: BTreeMap<Box<[u8]>, Option<Entry>>,
    cutter: Cutter<'_>,
    sink: &mut S,
) -> Result<Directory, S::Error>
where
    S: NodeSink,
    S::Error: From<ReadError>,
{
    if changes.is_empty() {
        return Ok(*dir);
    }
    let root = load(source, &dir.root, None)?;
    let top = match &root.kind {
        NodeKind::Inner { level, .. } => *level,
        _ => 0,
    };
    let mut edits: Edits =
        changes.into_iter().map(|(name, entry)| (name, entry.map(|mut entry| Record::of_entry(&mut entry)))).collect();
    let mut editor = Editor { source, root: dir.root, cutter, sink, fresh: HashMap::new() };
    for level in 0..=top {
        edits = editor.edit_level(level, edits)?;
    }
    editor.finish(top, edits)
}

struct Editor<'a, S> {
    source: &'a dyn NodeSource,
    root: NodeRef,
    cutter: Cutter<'a>,
    sink: &'a mut S,
    /// Nodes made by this edit, which `source` may not know yet. The value is the child of a node with a single child.
    fresh: HashMap<NodeId, Option<Directory>>,
}

/// A node of the old tree.
struct OldNode {
    node: Arc<Node>,
    last: Box<[u8]>,
    /// True if it is the last node of its level.
    is_last: bool,
}

impl<S> Editor<'_, S>
where
    S: NodeSink,
    S::Error: From<ReadError>,
{
    /// Edits one level and returns the edits of the level above.
    fn edit_level(&mut self, level: u8, edits: Edits) -> Result<Edits, S::Error> {
        let mut above = Edits::new();
        let mut edits = edits.into_iter().peekable();
        let mut open = OpenNode::default();
        let mut only_child = None;
        let mut done: Option<Box<[u8]>> = None;
        let mut at_end = false;
        while !at_end {
            let next = match (open.is_empty(), edits.peek()) {
                (true, None) => break,
                (true, Some((name, _))) => self.old_node(level, name, false)?,
                (false, _) => self.old_node(level, done.as_deref().unwrap_or_default(), done.is_some())?,
            };
            let old = next.filter(|old| done.as_ref().is_none_or(|done| *done < old.last));
            at_end = old.as_ref().is_none_or(|old| old.is_last);
            let records = old.as_ref().map(|old| records_of(&old.node)).unwrap_or_default();
            let limit = old.as_ref().filter(|_| !at_end).map(|old| old.last.clone());
            if let Some(old) = old {
                above.insert(old.last.clone(), None);
                done = Some(old.last);
            }
            let until_limit = |name: &[u8]| limit.as_ref().is_none_or(|limit| *name <= **limit);
            let mut changed = Edits::new();
            while let Some((name, record)) = edits.next_if(|(name, _)| until_limit(name)) {
                changed.insert(name, record);
            }
            for record in merge(records, changed) {
                let ends = self.cutter.ends_after(level, &record.name, record.bytes.len());
                only_child = if open.is_empty() { single(&record) } else { None };
                open.push(record);
                if ends {
                    self.close(level, std::mem::take(&mut open), only_child.take(), &mut above)?;
                }
            }
        }
        if !open.is_empty() {
            self.close(level, open, only_child, &mut above)?;
        }
        Ok(above)
    }

    fn close(
        &mut self,
        level: u8,
        open: OpenNode,
        only_child: Option<Directory>,
        above: &mut Edits,
    ) -> Result<(), S::Error> {
        let child = open.close(level, self.cutter, self.sink)?;
        self.fresh.insert(child.node.id, only_child.filter(|_| level > 0));
        above.insert(child.last.clone(), Some(Record::of_child(&child)));
        Ok(())
    }

    /// Finds the old node of `level` that holds `name` or, with `behind`, the first name greater than `name`. If every
    /// name is less, returns the last node.
    fn old_node(&self, level: u8, name: &[u8], behind: bool) -> Result<Option<OldNode>, ReadError> {
        let mut node = load(self.source, &self.root, None)?;
        let mut is_last = true;
        let mut last = None;
        while let NodeKind::Inner { level: at, children } = &node.kind
            && *at > level
        {
            let before = |child: &Child| if behind { &*child.last <= name } else { &*child.last < name };
            let position = children.partition_point(before).min(children.len() - 1);
            is_last &= position + 1 == children.len();
            let child = &children[position];
            last = Some(child.last.clone());
            let below = load(self.source, &child.node, Some(at - 1))?;
            node = below;
        }
        let last = last.or_else(|| last_name(&node));
        Ok(last.map(|last| OldNode { node, last, is_last }))
    }

    /// Makes the root from the records that the edits of the top level give.
    fn finish(mut self, top: u8, edits: Edits) -> Result<Directory, S::Error> {
        let mut records: Vec<_> = edits.into_values().flatten().collect();
        if records.len() > 1 {
            let mut builder = TreeBuilder::above(self.cutter, top + 1);
            for record in records {
                builder.push_record(0, record, self.sink)?;
            }
            return builder.finish(self.sink);
        }
        let Some(record) = records.pop() else {
            return TreeBuilder::new(self.cutter).finish(self.sink);
        };
        let mut root = single(&record).expect("records above a level are children");
        // A root must not have a single child: that child becomes the root.
        while let Some(below) = self.only_child_of(&root)? {
            root = below;
        }
        Ok(root)
    }

    fn only_child_of(&mut self, root: &Directory) -> Result<Option<Directory>, ReadError> {
        if let Some(only_child) = self.fresh.get(&root.root.id) {
            return Ok(*only_child);
        }
        match &load(self.source, &root.root, None)?.kind {
            NodeKind::Inner { children, .. } if children.len() == 1 => {
                Ok(Some(Directory { root: children[0].node, sums: children[0].sums }))
            }
            _ => Ok(None),
        }
    }
}

/// Returns the child node of a record, if the record is one of an inner node.
fn single(record: &Record) -> Option<Directory> {
    match record.refs.as_slice() {
        [crate::format::node::BlobRef::Node(id)] => {
            Some(Directory { root: NodeRef { id: NodeId(id.0), hint: None }, sums: record.sums })
        }
        _ => None,
    }
}

fn records_of(node: &Node) -> Vec<Record> {
    match &node.kind {
        NodeKind::Leaf(entries) => entries.iter().map(|entry| Record::of_entry(&mut entry.clone())).collect(),
        NodeKind::Inner { children, .. } => children.iter().map(Record::of_child).collect(),
        NodeKind::List(_) => Vec::new(),
    }
}

fn last_name(node: &Node) -> Option<Box<[u8]>> {
    match &node.kind {
        NodeKind::Leaf(entries) => entries.last().map(|entry| entry.name.clone()),
        NodeKind::Inner { children, .. } => children.last().map(|child| child.last.clone()),
        NodeKind::List(_) => None,
    }
}

/// Returns `records` with `edits` applied, both in order.
fn merge(records: Vec<Record>, edits: Edits) -> impl Iterator<Item = Record> {
    let mut records = records.into_iter().peekable();
    let mut edits = edits.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let edit_first = match (records.peek(), edits.peek()) {
                (None, None) => return None,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(record), Some((name, _))) => *name <= record.name,
            };
            if !edit_first {
                return records.next();
            }
            let (name, record) = edits.next()?;
            records.next_if(|old| old.name == name);
            if record.is_some() {
                return record;
            }
        }
    })
}
