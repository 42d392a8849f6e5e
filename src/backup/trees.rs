//! Builds the trees of a snapshot from the outcomes of the walk, and the records by which the next run recognises what
//! did not change (`folders`).

use super::BackupError;
use super::commit::is_whole;
use super::folders::{Digest, FolderRecord, LeafRecord};
use super::unchanged::SameLeaf;
use super::worker::Outcome;
use crate::CONTENT_LOG;
use crate::format::crypto::Keys;
use crate::format::entry::{Directory, Entry, EntryKind, NodeRef};
use crate::format::node::{Child, NodeKind};
use crate::format::snapshot::Failure;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::store::{Store, StoreError};
use crate::repository::tree::build::Cutter;
use crate::repository::tree::{self, NodeSource, TreeBuilder};

/// Maximum number of failures and remarks that a report lists. All failures are counted.
const REPORTED_MAX: usize = 100_000;
/// Number of folder records that are written together.
const RECORDS_AT_ONCE: usize = 256;

/// The result of the walk.
pub(super) struct Trees {
    pub root: Entry,
    pub failed: u64,
    pub failures: Vec<Failure>,
    pub skipped: Vec<(Vec<u8>, &'static str)>,
    pub changing: Vec<Vec<u8>>,
}

/// Where the trees come from and go to.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub store: &'a Store,
    pub keys: &'a Keys,
    pub node_size: u32,
    pub set: &'a str,
    pub reader: &'a Reader,
    pub previous: Option<&'a Directory>,
}

/// Builds trees from outcomes.
pub(super) struct Assembler<'a> {
    around: Surroundings<'a>,
    /// The folders from the root to the current position of the walk.
    folders: Vec<Folder<'a>>,
    /// Records that are not written yet, by their keys.
    records: Vec<([u8; 32], Vec<u8>)>,
    trees: Trees,
}

/// A folder that is being built.
struct Folder<'a> {
    entry: Entry,
    path: Vec<u8>,
    digest: Option<Digest>,
    builder: TreeBuilder<'a>,
    /// The last leaf of the folder in the previous snapshot, in which nothing changed. It ends only because the folder
    /// ended, so it stays a leaf only if nothing follows.
    last_leaf: Option<SameLeaf>,
    leaves: Vec<LeafRecord>,
    folders: Vec<super::folders::FolderRoot>,
    /// The digest of the open leaf so far; `None` if one of its entries must be looked at again.
    hasher: Option<blake3::Hasher>,
}

impl<'a> Folder<'a> {
    fn new(entry: Entry, path: Vec<u8>, digest: Option<Digest>, builder: TreeBuilder<'a>) -> Self {
        let hasher = Some(blake3::Hasher::new());
        Self { entry, path, digest, builder, last_leaf: None, leaves: Vec::new(), folders: Vec::new(), hasher }
    }

    /// Adds an entry behind all others.
    fn push(&mut self, entry: Entry, digest: Option<Digest>, mut store: &Store) -> Result<(), StoreError> {
        if let Some(dir) = entry.directory() {
            self.folders.push((entry.name.clone(), dir.root.id));
        }
        match (digest, &mut self.hasher) {
            (Some(digest), Some(hasher)) => _ = hasher.update(&digest),
            _ => self.hasher = None,
        }
        self.builder.push(entry, &mut store)?;
        self.note_leaf(true);
        Ok(())
    }

    /// Notes the leaf that was closed last, if that is not noted yet.
    fn note_leaf(&mut self, is_cut: bool) {
        let Some(child) = self.builder.take_closed_leaf() else { return };
        let digest = self.hasher.replace(blake3::Hasher::new()).map(|hasher| *hasher.finalize().as_bytes());
        self.leaves.push(LeafRecord { child, digest, is_cut });
    }

    fn push_leaf(&mut self, leaf: SameLeaf, mut store: &Store) -> Result<(), StoreError> {
        self.folders.extend(leaf.folders);
        self.builder.push_leaf(&leaf.leaf.child, &mut store)?;
        self.leaves.push(leaf.leaf);
        Ok(())
    }

    /// Ends the folder, and returns its entry and its record.
    fn finish(mut self, mut store: &Store) -> Result<(Entry, FolderRecord), StoreError> {
        match self.last_leaf.take() {
            Some(leaf) => self.push_leaf(leaf, store)?,
            None => {
                self.builder.close_leaf(&mut store)?;
                self.note_leaf(false);
            }
        }
        let dir = self.builder.finish(&mut store)?;
        self.entry.kind = EntryKind::Directory(dir);
        Ok((self.entry, FolderRecord { dir, leaves: self.leaves, folders: self.folders }))
    }
}

impl<'a> Assembler<'a> {
    /// Begins with the root, whose entry has no tree yet.
    pub fn new(around: Surroundings<'a>, root: Entry) -> Self {
        let builder = TreeBuilder::new(Cutter::new(around.keys, around.node_size));
        let folders = vec![Folder::new(root.clone(), Vec::new(), None, builder)];
        let (failures, skipped, changing) = Default::default();
        let trees = Trees { root, failed: 0, failures, skipped, changing };
        Self { around, folders, records: Vec::new(), trees }
    }

    /// Takes the next outcome, in the order of the walk.
    pub fn take(&mut self, outcome: Outcome) -> Result<(), BackupError> {
        match outcome {
            Outcome::Enter { entry, path, digest } => {
                let builder = TreeBuilder::new(Cutter::new(self.around.keys, self.around.node_size));
                self.folders.push(Folder::new(*entry, path, digest, builder));
            }
            Outcome::Leave => {
                let folder = self.folders.pop().expect("a walk leaves only what it entered");
                let digest = folder.digest;
                let entry = self.end(folder)?;
                self.push(entry, digest)?;
            }
            Outcome::Entry { entry, digest, changing } => {
                self.trees.changing.extend(changing.filter(|_| self.trees.changing.len() < REPORTED_MAX));
                self.push(*entry, digest)?;
            }
            Outcome::Leaf(leaf) => self.leaf(*leaf)?,
            Outcome::Nothing(dir) => {
                self.folders.clear();
                self.trees.root.kind = EntryKind::Directory(dir);
            }
            Outcome::Failed { path, error } => {
                let carried = self.carry_over(&path)?;
                let shown = String::from_utf8_lossy(&path);
                tracing::debug!(target: CONTENT_LOG, path = %shown, error, carried, "could not be read");
                self.trees.failed += 1;
                if self.trees.failures.len() < REPORTED_MAX {
                    self.trees.failures.push(Failure { path, error });
                }
            }
            Outcome::Skipped { path, reason } if self.trees.skipped.len() < REPORTED_MAX => {
                self.trees.skipped.push((path, reason));
            }
            Outcome::Skipped { .. } => {}
        }
        Ok(())
    }

    fn top(&mut self) -> &mut Folder<'a> {
        self.folders.last_mut().expect("a walk does not leave its root")
    }

    fn push(&mut self, entry: Entry, digest: Option<Digest>) -> Result<(), BackupError> {
        let (store, top) = (self.around.store, self.top());
        if let Some(leaf) = top.last_leaf.take() {
            self.open_leaf(leaf)?;
        }
        Ok(self.top().push(entry, digest, store)?)
    }

    /// Takes over a leaf in which nothing changed.
    fn leaf(&mut self, leaf: SameLeaf) -> Result<(), BackupError> {
        let (store, top) = (self.around.store, self.top());
        if !top.builder.is_between_leaves() {
            // An entry before this leaf is gone or is another, so the leaf does not begin where it did.
            return self.open_leaf(leaf);
        }
        if leaf.leaf.is_cut {
            return Ok(top.push_leaf(leaf, store)?);
        }
        top.last_leaf = Some(leaf);
        Ok(())
    }

    /// Adds the entries of a leaf one by one.
    fn open_leaf(&mut self, leaf: SameLeaf) -> Result<(), BackupError> {
        let SameLeaf { leaf: LeafRecord { child: Child { node, .. }, .. }, digests, .. } = leaf;
        let (reader, store) = (self.around.reader, self.around.store);
        let hint = store.local().find_blob(&node.id.into())?;
        let loaded = reader.node(&NodeRef { hint, ..node })?;
        let NodeKind::Leaf(entries) = &loaded.kind else {
            return Err(ReadError::malformed_node(node.id, "is not the leaf that it was").into());
        };
        let are_known = digests.len() == entries.len();
        for (position, entry) in entries.iter().enumerate() {
            let digest = digests.get(position).copied().filter(|_| are_known);
            self.top().push(entry.clone(), digest, store)?;
        }
        Ok(())
    }

    /// Ends a folder, and notes its record.
    fn end(&mut self, folder: Folder<'a>) -> Result<Entry, StoreError> {
        let Surroundings { store, keys, set, .. } = self.around;
        let key = keys.local_path(set, &folder.path);
        let (entry, record) = folder.finish(store)?;
        self.records.push((key, record.encode()));
        if self.records.len() >= RECORDS_AT_ONCE {
            self.write_records()?;
        }
        Ok(entry)
    }

    fn write_records(&mut self) -> Result<(), StoreError> {
        let records = self.records.iter().map(|(key, record)| (key, record.as_slice()));
        self.around.store.local().put_folders(records)?;
        self.records.clear();
        Ok(())
    }

    /// Takes an item that cannot be read from the previous snapshot, if that has it.
    fn carry_over(&mut self, path: &[u8]) -> Result<bool, BackupError> {
        let Surroundings { store, reader, previous, .. } = self.around;
        let Some(previous) = previous else { return Ok(false) };
        // If the previous snapshot is damaged, nothing is carried over, and the run goes on.
        let Ok(Some(found)) = tree::find_path(reader, previous, path) else { return Ok(false) };
        let entry = found.entry().clone();
        if !is_whole(&entry, store, reader) {
            return Ok(false);
        }
        self.push(entry, None)?;
        Ok(true)
    }

    /// Ends the root.
    pub fn finish(mut self) -> Result<Trees, BackupError> {
        if let Some(root) = self.folders.pop() {
            self.trees.root = self.end(root)?;
        }
        self.write_records()?;
        Ok(self.trees)
    }
}
