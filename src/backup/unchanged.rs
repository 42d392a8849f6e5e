//! Recognises on the walk what did not change since the previous snapshot.
//!
//! The walk passes by the records of the previous run (`folders`). A leaf whose entries all look as they did then
//! becomes one step, and so does a folder in which nothing changed. So unchanged entries are neither looked up nor
//! encoded again. Entries of a leaf wait until the leaf is complete; folders wait until something in them changed. If a
//! leaf is not as it was, its entries go their own way, one by one.

use super::Progress;
use super::folders::{Digest, FolderRecord, FolderRoot, LeafRecord, digest_of_folder, digest_of_item};
use crate::format::crypto::Keys;
use crate::format::entry::Directory;
use crate::format::id::NodeId;
use crate::repository::local_state::LocalState;
use crate::source::{Event, Item, ItemKind, Meta};
use std::ops::ControlFlow::{self, Continue};
use std::sync::atomic::Ordering;

/// What the backup does next.
pub(super) enum Step {
    /// A folder begins in which something changed.
    Enter {
        meta: Meta,
        path: Vec<u8>,
        digest: Option<Digest>,
    },
    /// The folder that was entered last ends.
    Leave,
    /// An item that must be looked at.
    Item {
        item: Box<Item>,
        digest: Option<Digest>,
    },
    Failed {
        path: Vec<u8>,
        error: String,
    },
    Skipped {
        path: Vec<u8>,
        reason: &'static str,
    },
    /// A folder in which nothing changed.
    Folder {
        meta: Meta,
        digest: Digest,
        dir: Directory,
    },
    /// A leaf in which nothing changed.
    Leaf(Box<SameLeaf>),
    /// Nothing changed in the whole source.
    Nothing(Directory),
}

/// A leaf in which nothing changed.
pub(super) struct SameLeaf {
    pub leaf: LeafRecord,
    /// The digests of its entries, if they are known.
    pub digests: Vec<Digest>,
    /// The folders among its entries.
    pub folders: Vec<FolderRoot>,
}

/// Takes the steps. If it returns `Break`, the walk ends early.
pub(super) type Output<'o> = dyn FnMut(Step) -> ControlFlow<()> + 'o;

/// Turns the events of a walk into steps; see the module.
pub(super) struct Unchanged<'a> {
    keys: &'a Keys,
    local: &'a LocalState,
    set: &'a str,
    progress: &'a Progress,
    /// The folders from the root to the current position of the walk.
    levels: Vec<Level>,
}

struct Level {
    path: Vec<u8>,
    name: Box<[u8]>,
    /// Facts and digest of the folder, until its [`Step::Enter`] is given out. The root has none.
    own: Option<(Meta, Option<Digest>)>,
    /// What the previous run knew of the folder. Without it, every item is looked at.
    record: Option<FolderRecord>,
    /// True while nothing was given out of this folder, because nothing changed so far.
    is_waiting: bool,
    /// The number of leaves that the walk has passed.
    leaf: usize,
    /// The number of the record's folders that the walk has passed.
    folders: usize,
    /// The digest of the current leaf so far.
    hasher: blake3::Hasher,
    /// False once an entry of the current leaf was given out.
    is_same: bool,
    /// The entries of the current leaf, while it looks as it did.
    pending: Vec<Step>,
    /// The digests of the entries of the last leaf that is as it was.
    digests: Vec<Digest>,
}

impl Level {
    fn new(path: Vec<u8>, own: Option<(Meta, Option<Digest>)>, record: Option<FolderRecord>) -> Self {
        let name = own.as_ref().map(|(meta, _)| meta.name.clone()).unwrap_or_default();
        Self {
            path,
            name,
            own,
            record,
            is_waiting: true,
            leaf: 0,
            folders: 0,
            hasher: blake3::Hasher::new(),
            is_same: true,
            pending: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// Returns the name with which the current leaf ended; `None` if there are no more leaves.
    fn last(&self) -> Option<&[u8]> {
        self.record.as_ref().and_then(|record| record.leaves.get(self.leaf)).map(|leaf| &*leaf.child.last)
    }

    /// Returns the step for the leaf at this position.
    fn same_leaf(&self, position: usize, digests: Vec<Digest>) -> Option<Step> {
        let record = self.record.as_ref()?;
        let (leaf, folders) = (record.leaves.get(position)?.clone(), record.folders_in(position).to_vec());
        Some(Step::Leaf(Box::new(SameLeaf { leaf, digests, folders })))
    }
}

impl<'a> Unchanged<'a> {
    /// `root` is the root of the previous snapshot's tree. `None` if there is none, or if something in it may be lost.
    pub fn new(
        keys: &'a Keys,
        local: &'a LocalState,
        set: &'a str,
        progress: &'a Progress,
        root: Option<NodeId>,
    ) -> Self {
        let mut unchanged = Self { keys, local, set, progress, levels: Vec::new() };
        let record = root.and_then(|root| unchanged.load(b"", root));
        unchanged.levels.push(Level { is_waiting: record.is_some(), ..Level::new(Vec::new(), None, record) });
        unchanged
    }

    /// Takes the next event of the walk.
    pub fn take(&mut self, event: Event, output: &mut Output<'_>) -> ControlFlow<()> {
        match event {
            Event::Item(item) => {
                self.advance(&item.meta.name, output)?;
                let is_last = self.is_last(&item.meta.name);
                let digest = digest_of_item(&item);
                self.add(Step::Item { item, digest }, digest, output)?;
                if is_last { self.end_leaf(output) } else { Continue(()) }
            }
            Event::Enter { meta, path } => {
                self.advance(&meta.name, output)?;
                let record = self.expected(&meta.name).and_then(|root| self.load(&path, root));
                let digest = digest_of_folder(&meta);
                let must_look = record.is_none() || digest.is_none();
                self.levels.push(Level::new(path, Some((meta, digest)), record));
                if must_look { self.give_out(output) } else { Continue(()) }
            }
            Event::Leave => self.leave(output),
            Event::Failed { name, path, error } => {
                self.advance(&name, output)?;
                self.give_out(output)?;
                output(Step::Failed { path, error })
            }
            Event::Skipped { path, reason } => {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                self.advance(name, output)?;
                self.give_out(output)?;
                output(Step::Skipped { path, reason })
            }
        }
    }

    /// Ends the walk. Call this after the last event.
    pub fn finish(&mut self, output: &mut Output<'_>) -> ControlFlow<()> {
        self.end_folder(output)?;
        match self.levels.pop() {
            Some(Level { is_waiting: true, record: Some(record), .. }) => output(Step::Nothing(record.dir)),
            _ => Continue(()),
        }
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().expect("a walk does not leave its root")
    }

    fn is_last(&mut self, name: &[u8]) -> bool {
        self.top().last() == Some(name)
    }

    /// Ends the leaves whose names all come before `name`.
    fn advance(&mut self, name: &[u8], output: &mut Output<'_>) -> ControlFlow<()> {
        while self.top().last().is_some_and(|last| last < name) {
            self.end_leaf(output)?;
        }
        Continue(())
    }

    fn add(&mut self, step: Step, digest: Option<Digest>, output: &mut Output<'_>) -> ControlFlow<()> {
        let top = self.top();
        match digest {
            Some(digest) if top.is_same && top.last().is_some() => {
                top.hasher.update(&digest);
                top.pending.push(step);
                Continue(())
            }
            _ => {
                self.give_out(output)?;
                output(step)
            }
        }
    }

    fn end_leaf(&mut self, output: &mut Output<'_>) -> ControlFlow<()> {
        let top = self.levels.last_mut().expect("a walk does not leave its root");
        let found = Some(*top.hasher.finalize().as_bytes());
        let position = top.leaf;
        let is_same = top.is_same
            && top
                .record
                .as_ref()
                .and_then(|record| record.leaves.get(position))
                .is_some_and(|leaf| leaf.digest == found);
        if is_same {
            top.digests.clear();
            for step in top.pending.drain(..) {
                top.digests.extend(match &step {
                    Step::Item { item, digest } => {
                        if let ItemKind::File { content, .. } = &item.kind {
                            self.progress.bytes.fetch_add(content.len_hint(), Ordering::Relaxed);
                        }
                        self.progress.items.fetch_add(1, Ordering::Relaxed);
                        *digest
                    }
                    Step::Folder { digest, .. } => Some(*digest),
                    _ => None,
                });
            }
            if !top.is_waiting {
                let digests = top.digests.clone();
                top.same_leaf(position, digests).map_or(Continue(()), &mut *output)?;
            }
        } else {
            self.give_out(output)?;
        }
        let top = self.top();
        top.leaf += 1;
        top.hasher.reset();
        top.is_same = true;
        Continue(())
    }

    /// Gives out everything that waits, because something changed in the current folder. Until their ends, the current
    /// leaves of all folders above are no longer as they were.
    fn give_out(&mut self, output: &mut Output<'_>) -> ControlFlow<()> {
        for level in &mut self.levels {
            if std::mem::take(&mut level.is_waiting) {
                if let Some((meta, digest)) = level.own.take() {
                    output(Step::Enter { meta, path: level.path.clone(), digest })?;
                }
                for position in 0..level.leaf {
                    let is_last = position + 1 == level.leaf;
                    let digests = if is_last { level.digests.clone() } else { Vec::new() };
                    level.same_leaf(position, digests).map_or(Continue(()), &mut *output)?;
                }
            }
            level.is_same = false;
            level.pending.drain(..).try_for_each(&mut *output)?;
        }
        Continue(())
    }

    /// Ends the leaves and forgets the folders that the walk did not find any more.
    fn end_folder(&mut self, output: &mut Output<'_>) -> ControlFlow<()> {
        while self.top().last().is_some() {
            self.end_leaf(output)?;
        }
        self.pass_folders(None);
        Continue(())
    }

    fn leave(&mut self, output: &mut Output<'_>) -> ControlFlow<()> {
        self.end_folder(output)?;
        let level = self.levels.pop().expect("a walk leaves only what it entered");
        let is_last = self.is_last(&level.name);
        match level {
            Level { is_waiting: true, own: Some((meta, Some(digest))), record: Some(record), path, .. } => {
                *self.progress.current.lock() = path;
                self.add(Step::Folder { meta, digest, dir: record.dir }, Some(digest), output)?;
            }
            _ => output(Step::Leave)?,
        }
        if is_last { self.end_leaf(output) } else { Continue(()) }
    }

    /// Returns the root of the tree that the folder `name` had in the current folder.
    fn expected(&mut self, name: &[u8]) -> Option<NodeId> {
        self.pass_folders(Some(name));
        let top = self.top();
        let (found, root) = top.record.as_ref()?.folders.get(top.folders)?;
        if **found != *name {
            return None;
        }
        top.folders += 1;
        Some(*root)
    }

    /// Forgets the folders that the record has before `end`, and that the walk did not find any more.
    fn pass_folders(&mut self, end: Option<&[u8]>) {
        let top = self.top();
        let Some(record) = &top.record else { return };
        let rest = &record.folders[top.folders..];
        let gone = &rest[..end.map_or(rest.len(), |end| rest.partition_point(|(name, _)| **name < *end))];
        let path_of =
            |name: &[u8]| if top.path.is_empty() { name.to_vec() } else { [&top.path, &b"/"[..], name].concat() };
        let paths: Vec<_> = gone.iter().map(|(name, _)| path_of(name)).collect();
        top.folders += paths.len();
        self.forget(paths);
    }

    /// Removes the records of these folders and of all folders below.
    fn forget(&self, mut paths: Vec<Vec<u8>>) {
        while let Some(path) = paths.pop() {
            let key = self.keys.local_path(self.set, &path);
            let record = self.local.folder_record(&key).and_then(|record| FolderRecord::decode(&record).ok());
            let folders = record.into_iter().flat_map(|record| record.folders);
            paths.extend(folders.map(|(name, _)| [&path, &b"/"[..], &name].concat()));
            // A record that stays takes room and does no harm.
            if let Err(error) = self.local.drop_folder(&key) {
                tracing::warn!(%error, "the record of a folder that is gone could not be removed");
            }
        }
    }

    /// Returns the record of the folder at `path`, if it is of the tree with this root.
    fn load(&self, path: &[u8], root: NodeId) -> Option<FolderRecord> {
        let record = self.local.folder_record(&self.keys.local_path(self.set, path))?;
        FolderRecord::decode(&record).ok().filter(|record| record.dir.root.id == root)
    }
}

#[cfg(test)]
mod tests;
