//! Builds a tree from sorted entries.

use super::NodeSink;
use crate::format::cbor::Writer;
use crate::format::crypto::Keys;
use crate::format::entry::{Directory, Entry, NodeRef, RefMut, Sums};
use crate::format::id::NodeId;
use crate::format::node::{self, BlobRef, Child, LEVEL_MAX, NewNode};

/// Decides where nodes end. Two trees can only be equal if the same rule cut them, so `config` holds the node size of
/// the repository.
#[derive(Clone, Copy)]
pub struct Cutter<'a> {
    keys: &'a Keys,
    node_size: u32,
}

impl<'a> Cutter<'a> {
    /// Creates the rule that makes nodes of about `node_size` bytes.
    pub fn new(keys: &'a Keys, node_size: u32) -> Self {
        Self { keys, node_size }
    }

    /// Returns whether a node of `level` ends after the record called `name` that takes `len` bytes.
    ///
    /// The chance is `len / node_size`, so nodes have about `node_size` bytes whatever the size of the records. In
    /// inner nodes the chance is at most a quarter, so that every level is smaller than the one below.
    pub(crate) fn ends_after(&self, level: u8, name: &[u8], len: usize) -> bool {
        let chance = (len as u64).saturating_mul(u64::MAX / u64::from(self.node_size.max(1)));
        let chance = if level == 0 { chance } else { chance.min(u64::MAX / 4) };
        let mut key = Vec::with_capacity(1 + name.len());
        key.push(level);
        key.extend_from_slice(name);
        self.keys.node_cut(&key) < chance
    }

    pub(crate) fn node_id(&self, canonical: &[u8]) -> NodeId {
        self.keys.node_id(canonical)
    }
}

/// One record of a level: an entry (level 0) or a child node (higher levels).
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub name: Box<[u8]>,
    pub bytes: Vec<u8>,
    pub refs: Vec<BlobRef>,
    pub sums: Sums,
}

impl Record {
    pub(crate) fn of_entry(entry: &mut Entry) -> Self {
        let mut refs = Vec::new();
        let collected = entry.for_each_ref(&mut |reference| {
            refs.push(match reference {
                RefMut::Chunk(chunk) => BlobRef::Chunk(chunk.id.into()),
                RefMut::Node(node) => BlobRef::Node(node.id.into()),
            });
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = collected;
        Record { name: entry.name.clone(), bytes: entry.encode(), refs, sums: entry.sums() }
    }

    pub(crate) fn of_child(child: &Child) -> Self {
        let mut out = Writer::new();
        child.write(&mut out);
        let refs = vec![BlobRef::Node(child.node.id.into())];
        Record { name: child.last.clone(), bytes: out.into_bytes(), refs, sums: child.sums }
    }
}

/// The node of one level that is being filled.
#[derive(Default)]
pub(crate) struct OpenNode {
    bytes: Vec<u8>,
    count: usize,
    refs: Vec<BlobRef>,
    sums: Sums,
    last: Box<[u8]>,
}

impl OpenNode {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// # Panics
    /// When sums exceed 64 bits. No real directory is that large, and [`node::Node::decode`] refuses such sums in
    /// stored nodes.
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes.extend_from_slice(&record.bytes);
        self.count += 1;
        self.refs.extend_from_slice(&record.refs);
        self.sums = self.sums.checked_add(record.sums).expect("a directory holds less than 2^64 bytes");
        self.last = record.name;
    }

    /// Finishes the node, hands it to `sink`, and returns the record of it for its parent.
    pub(crate) fn close<S: NodeSink>(self, level: u8, cutter: Cutter<'_>, sink: &mut S) -> Result<Child, S::Error> {
        let canonical = match level {
            0 => node::leaf(self.count, &self.bytes),
            _ => node::inner(level, self.count, &self.bytes),
        };
        let id = cutter.node_id(&canonical);
        sink.put(NewNode { id, canonical, refs: self.refs })?;
        Ok(Child { last: self.last, node: NodeRef { id, hint: None }, sums: self.sums })
    }
}

#[derive(Default)]
struct Level {
    open: OpenNode,
    /// The number of closed nodes. `first` is the first of them.
    closed: u64,
    first: Option<Directory>,
}

/// Builds one directory from entries that arrive in ascending order of their names. Holds one open node a level in
/// memory.
pub struct TreeBuilder<'a> {
    cutter: Cutter<'a>,
    levels: Vec<Level>,
    first: u8,
    /// The leaf that was closed last, until it is taken.
    closed_leaf: Option<Child>,
}

impl<'a> TreeBuilder<'a> {
    /// Starts an empty directory.
    pub fn new(cutter: Cutter<'a>) -> Self {
        Self::above(cutter, 0)
    }

    /// Starts at level `first`, for a tree whose lower levels exist already.
    pub(crate) fn above(cutter: Cutter<'a>, first: u8) -> Self {
        Self { cutter, levels: vec![Level::default()], first, closed_leaf: None }
    }

    /// Adds an entry. Its name must be greater than all names before.
    ///
    /// # Errors
    /// When the sink cannot take a node.
    ///
    /// # Panics
    /// When names do not ascend: the caller's order is wrong, and the tree would be wrong too.
    pub fn push<S: NodeSink>(&mut self, mut entry: Entry, sink: &mut S) -> Result<(), S::Error> {
        let open = &self.levels[0].open;
        let ascends = open.last < entry.name || (open.is_empty() && self.levels[0].closed == 0);
        assert!(ascends, "entries of a directory arrive in ascending order");
        self.push_record(0, Record::of_entry(&mut entry), sink)
    }

    /// Returns whether the next entry begins a leaf.
    pub(crate) fn is_between_leaves(&self) -> bool {
        self.levels[0].open.is_empty()
    }

    /// Returns the leaf that was closed since the last call, if one was. Call this after each entry.
    pub(crate) fn take_closed_leaf(&mut self) -> Option<Child> {
        self.closed_leaf.take()
    }

    /// Adds a leaf that is stored already. Its names must be greater than all names before.
    ///
    /// The leaf must end because of its last entry, or be the last one: then the tree is the same as from its entries.
    ///
    /// # Errors
    /// When the sink cannot take a node.
    ///
    /// # Panics
    /// When the last entry before does not end its leaf.
    pub(crate) fn push_leaf<S: NodeSink>(&mut self, leaf: &Child, sink: &mut S) -> Result<(), S::Error> {
        assert!(self.is_between_leaves(), "a leaf stands behind another leaf");
        self.push_child(0, leaf, sink)
    }

    /// Closes the open leaf, if it has entries. Nothing may follow.
    ///
    /// # Errors
    /// When the sink cannot take a node.
    pub(crate) fn close_leaf<S: NodeSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        if self.is_between_leaves() { Ok(()) } else { self.close(0, sink) }
    }

    pub(crate) fn push_record<S: NodeSink>(
        &mut self,
        position: usize,
        record: Record,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let level = self.first + position as u8;
        let ends = self.cutter.ends_after(level, &record.name, record.bytes.len());
        self.levels[position].open.push(record);
        if ends { self.close(position, sink) } else { Ok(()) }
    }

    fn close<S: NodeSink>(&mut self, position: usize, sink: &mut S) -> Result<(), S::Error> {
        let level = self.first + position as u8;
        assert!(level < LEVEL_MAX, "every level is smaller than the one below");
        let open = std::mem::take(&mut self.levels[position].open);
        let child = open.close(level, self.cutter, sink)?;
        if level == 0 {
            self.closed_leaf = Some(child.clone());
        }
        self.push_child(position, &child, sink)
    }

    /// Adds a closed node of the level at `position` to the level above.
    fn push_child<S: NodeSink>(&mut self, position: usize, child: &Child, sink: &mut S) -> Result<(), S::Error> {
        let below = &mut self.levels[position];
        // Kept so that the next name can be compared with it.
        below.open.last = child.last.clone();
        below.closed += 1;
        below.first.get_or_insert(Directory { root: child.node, sums: child.sums });
        if position + 1 == self.levels.len() {
            self.levels.push(Level::default());
        }
        self.push_record(position + 1, Record::of_child(child), sink)
    }

    /// Closes the open nodes and returns the directory.
    ///
    /// # Errors
    /// When the sink cannot take a node.
    pub fn finish<S: NodeSink>(mut self, sink: &mut S) -> Result<Directory, S::Error> {
        for position in 0.. {
            let level = &mut self.levels[position];
            if level.closed == 0 || !level.open.is_empty() {
                self.close(position, sink)?;
            }
            // The root is the only node of its level. If levels above it exist, they only hold this root.
            if let Level { closed: 1, first: Some(root), .. } = &self.levels[position] {
                return Ok(*root);
            }
        }
        unreachable!("the loop ends at the root")
    }
}
