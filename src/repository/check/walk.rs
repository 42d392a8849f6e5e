//! Walks the trees of snapshots.

use super::{LostItem, LostPart, Result, with_cause};
use crate::format::entry::{ChunkRef, Content, Directory, Entry, EntryKind, NodeRef, Segment, Sums};
use crate::format::id::{BlobId, NodeId, PackId, SnapshotId};
use crate::format::node::{Node, NodeKind};
use crate::repository::RepositoryError;
use crate::repository::local_state::LocalState;
use crate::repository::read_error::ReadError;
use crate::repository::reader::{Lookup, Reader};
use crate::repository::tree::NodeSource;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Walks trees. Subtrees that were found sound once are not walked again.
pub(super) struct Walk<'a> {
    pub reader: &'a Reader,
    pub local: &'a LocalState,
    pub bad: &'a HashMap<BlobId, Vec<PackId>>,
    pub cancel: &'a AtomicBool,
    pub unindexed: &'a HashMap<BlobId, PackId>,
    /// Packs that a snapshot refers to and that no index object lists.
    pub needed: BTreeSet<PackId>,
    /// Packs with blocks that do not open.
    pub damaged: BTreeSet<PackId>,
    pub sound: HashSet<NodeId>,
    pub lost: Vec<LostItem>,
}

/// The result of walking one node.
pub(super) struct Walked {
    sums: Sums,
    last: Option<Box<[u8]>>,
}

impl Walk<'_> {
    fn lose(&mut self, snapshot: SnapshotId, path: &[u8], error: impl ToString) {
        self.lose_part(snapshot, path, LostPart::Item, error);
    }

    fn lose_part(&mut self, snapshot: SnapshotId, path: &[u8], part: LostPart, error: impl ToString) {
        self.lost.push(LostItem { snapshot, path: path.to_vec(), part, error: error.to_string() });
    }

    pub fn directory(&mut self, snapshot: SnapshotId, dir: &Directory, path: &mut Vec<u8>) -> Result<()> {
        let walked = self.node(snapshot, &dir.root, path)?;
        if walked.is_some_and(|walked| walked.sums != dir.sums) {
            self.lose(snapshot, path, "the folder's sums are wrong");
        }
        Ok(())
    }

    /// Walks the node and returns its sums and its last name, or `None` if the node cannot be read.
    fn node(&mut self, snapshot: SnapshotId, reference: &NodeRef, path: &mut Vec<u8>) -> Result<Option<Walked>> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(RepositoryError::Interrupted);
        }
        let lost_before = self.lost.len();
        let node = match self.load(reference) {
            Ok(node) => node,
            Err(error) if error.is_damage() => {
                self.lose(snapshot, path, with_cause(&error));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let last = match &node.kind {
            NodeKind::Leaf(entries) => entries.last().map(|entry| entry.name.clone()),
            NodeKind::Inner { children, .. } => children.last().map(|child| child.last.clone()),
            NodeKind::List(_) => None,
        };
        let walked = Walked { sums: node.sums(), last };
        if self.sound.contains(&reference.id) {
            return Ok(Some(walked));
        }
        match &node.kind {
            NodeKind::Leaf(entries) => entries.iter().try_for_each(|entry| self.entry(snapshot, entry, path))?,
            NodeKind::Inner { level, children } => {
                for child in children {
                    let below = self.node(snapshot, &child.node, path)?;
                    if let Some(below) = below
                        && (below.sums != child.sums || below.last.as_ref() != Some(&child.last))
                    {
                        self.lose(snapshot, path, format!("a node of level {level} does not fit what it lists"));
                    }
                }
            }
            NodeKind::List(_) => self.lose(snapshot, path, "a list of content stands where a folder should"),
        }
        if self.lost.len() == lost_before {
            self.sound.insert(reference.id);
        }
        Ok(Some(walked))
    }

    fn load(&mut self, reference: &NodeRef) -> std::result::Result<Arc<Node>, ReadError> {
        let blob = BlobId::from(reference.id);
        self.needed.extend(self.unindexed.get(&blob));
        if self.bad.contains_key(&blob) {
            return Err(ReadError::Mismatch { blob });
        }
        // A good hint is enough to read the node, but the index must know the node as well.
        let read = match self.local.find(&blob)? {
            Some(_) => self.reader.node(reference),
            None => Err(ReadError::Missing { blob }),
        };
        if let Err(ReadError::Block { pack, .. }) = &read {
            self.damaged.insert(*pack);
        }
        read
    }

    fn entry(&mut self, snapshot: SnapshotId, entry: &Entry, path: &mut Vec<u8>) -> Result<()> {
        let len = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        for (part, content) in parts_of(entry) {
            if let Err(error) = self.segments(&content.segments) {
                if !error.is_damage() {
                    return Err(error.into());
                }
                self.lose_part(snapshot, path, part, with_cause(&error));
            }
        }
        if let EntryKind::Directory(dir) = &entry.kind {
            self.directory(snapshot, dir, path)?;
        }
        path.truncate(len);
        Ok(())
    }

    fn segments(&mut self, segments: &[Segment]) -> std::result::Result<(), ReadError> {
        for segment in segments {
            match segment {
                Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => {
                    chunks.iter().try_for_each(|chunk| self.chunk(chunk))?;
                }
                Segment::List { len, node } => self.list(*len, node)?,
                Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
                    self.segments(segments)?;
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, len: u64, reference: &NodeRef) -> std::result::Result<(), ReadError> {
        let node = self.load(reference)?;
        let NodeKind::List(segments) = &node.kind else {
            return Err(ReadError::malformed_node(reference.id, "is no content list"));
        };
        if segments.iter().map(Segment::len).sum::<u64>() != len {
            return Err(ReadError::malformed_node(reference.id, "does not list the content it should"));
        }
        if self.sound.contains(&reference.id) {
            return Ok(());
        }
        self.segments(segments)?;
        self.sound.insert(reference.id);
        Ok(())
    }

    fn chunk(&mut self, chunk: &ChunkRef) -> std::result::Result<(), ReadError> {
        let blob = BlobId::from(chunk.id);
        self.needed.extend(self.unindexed.get(&blob));
        match self.local.find(&blob)? {
            None => Err(ReadError::Missing { blob }),
            Some(at) if at.len != chunk.len || self.bad.contains_key(&blob) => Err(ReadError::Mismatch { blob }),
            Some(_) => Ok(()),
        }
    }
}

/// Returns all contents of an entry, each with the part of the item that it holds.
fn parts_of(entry: &Entry) -> impl Iterator<Item = (LostPart, &Content)> {
    let own = entry.content().into_iter().map(|content| (LostPart::Item, content));
    let payload = entry.payload.iter().map(|content| (LostPart::Payload, content));
    let further = entry.contents.iter().map(|(key, content)| (LostPart::of_key(*key), content));
    own.chain(payload).chain(further)
}
