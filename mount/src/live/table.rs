//! The inode numbers and open files below `restore/`.
//!
//! A path gets a number when the kernel first hears of it. It keeps the number while the kernel refers to it, while an
//! entry below it is known, or while it is being written. So the table is as large as the kernel's own cache.
//!
//! Its lock is held only briefly: never while the outbox is asked, and never while waiting for a [`Writing`].

use super::writing::Writing;
use crate::fs::Stat;
use crate::inode::{Ino, fixed};
use crate::outbox::Item;
use crate::view::Time;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Where the bytes of a node are.
#[derive(Clone)]
pub(super) enum Content {
    /// In the outbox, which answers everything about the node.
    Outbox,
    /// In a file that is being written, or that has a temporary name.
    Writing(Arc<Writing>),
    /// Nowhere: the node is `COMMIT`, which is not a real file.
    Commit,
}

pub(super) struct Node {
    /// Folder and name; `None` if the file was removed while open.
    place: Option<(Ino, Vec<u8>)>,
    references: u64,
    pub(super) content: Content,
    /// The modification time that a program set on a folder or a text.
    pub(super) mtime: Option<Time>,
    /// True for a text of the outbox, which grows while it is read.
    pub(super) text: bool,
    /// True if the node is a file, as far as known.
    pub(super) file: bool,
    /// The attributes of a folder that the kernel last got, and when: the kernel asks again after each file that is
    /// created in the folder.
    pub(super) folder: Option<(Instant, Stat)>,
}

/// What an open file or folder refers to.
#[derive(Clone)]
pub(super) enum Handle {
    Writing { ino: Ino, writing: Arc<Writing>, writes: bool },
    Outbox(Ino),
    Folder(Option<Arc<[Item]>>),
    Commit,
}

#[derive(Default)]
pub(super) struct Table {
    nodes: HashMap<Ino, Node>,
    names: HashMap<Ino, HashMap<Vec<u8>, Ino>>,
    handles: HashMap<u64, Handle>,
    inos: u64,
    handles_made: u64,
}

impl Table {
    pub(super) fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    pub(super) fn child(&self, folder: Ino, name: &[u8]) -> Option<Ino> {
        self.names.get(&folder)?.get(name).copied()
    }

    /// Returns the file that is being written at this node.
    pub(super) fn writing(&self, ino: Ino) -> Option<&Arc<Writing>> {
        match &self.nodes.get(&ino)?.content {
            Content::Writing(writing) => Some(writing),
            _ => None,
        }
    }

    /// Returns the files that are being written in `folder`, with their names.
    pub(super) fn written_in(&self, folder: Ino) -> Vec<(Vec<u8>, Arc<Writing>)> {
        let names = self.names.get(&folder).into_iter().flatten();
        names.filter_map(|(name, ino)| Some((name.clone(), self.writing(*ino)?.clone()))).collect()
    }

    /// Returns all files that are being written.
    pub(super) fn all_written(&self) -> Vec<(Ino, Arc<Writing>)> {
        self.nodes.keys().filter_map(|ino| Some((*ino, self.writing(*ino)?.clone()))).collect()
    }

    pub(super) fn place(&self, ino: Ino) -> Option<(Ino, &[u8])> {
        self.nodes.get(&ino)?.place.as_ref().map(|(folder, name)| (*folder, name.as_slice()))
    }

    /// Returns the path below `restore/`; `None` if the node or a folder above it has no name any more.
    pub(super) fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let (mut names, mut at) = (Vec::new(), ino);
        while at != fixed::RESTORE {
            let (folder, name) = self.place(at)?;
            names.push(name);
            at = folder;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// Returns the number of the node at this path, if the kernel knows it.
    pub(super) fn at(&self, path: &[u8]) -> Option<Ino> {
        if path.is_empty() {
            return Some(fixed::RESTORE);
        }
        path.split(|byte| *byte == b'/').try_fold(fixed::RESTORE, |folder, name| self.child(folder, name))
    }

    /// Returns the node with this name, and counts one more reference of the kernel to it. Adds the node if it is
    /// missing.
    pub(super) fn refer(&mut self, folder: Ino, name: &[u8]) -> (Ino, &mut Node) {
        let ino = match self.child(folder, name) {
            Some(ino) => ino,
            None => {
                let ino = self.add(Some((folder, name.to_vec())));
                self.names.entry(folder).or_default().insert(name.to_vec(), ino);
                ino
            }
        };
        let node = self.nodes.get_mut(&ino).expect("every name leads to a node");
        node.references += 1;
        (ino, node)
    }

    /// The same as [`Table::refer`], for a node without a name.
    pub(super) fn refer_nameless(&mut self) -> (Ino, &mut Node) {
        let ino = self.add(None);
        let node = self.nodes.get_mut(&ino).expect("just added");
        node.references += 1;
        (ino, node)
    }

    fn add(&mut self, place: Option<(Ino, Vec<u8>)>) -> Ino {
        let ino = Ino(fixed::LIVE_FIRST.0 + self.inos);
        self.inos += 1;
        let node = Node {
            place,
            references: 0,
            content: Content::Outbox,
            mtime: None,
            text: false,
            file: false,
            folder: None,
        };
        self.nodes.insert(ino, node);
        ino
    }

    pub(super) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.references = node.references.saturating_sub(count);
            self.settle(ino);
        }
    }

    /// Removes the node if nothing needs it any more, and then the folders that were kept only because of it.
    pub(super) fn settle(&mut self, mut ino: Ino) {
        while let Some(node) = self.nodes.get(&ino)
            && node.references == 0
            && !matches!(node.content, Content::Writing(_))
            && !self.names.contains_key(&ino)
        {
            let folder = node.place.as_ref().map(|(folder, _)| *folder);
            self.take_name(ino);
            self.nodes.remove(&ino);
            let Some(folder) = folder else { break };
            ino = folder;
        }
    }

    /// Removes the name of the node. Programs that have the file open can go on.
    pub(super) fn take_name(&mut self, ino: Ino) {
        let Some((folder, name)) = self.nodes.get_mut(&ino).and_then(|node| node.place.take()) else { return };
        if let Some(names) = self.names.get_mut(&folder) {
            names.remove(&name);
            if names.is_empty() {
                self.names.remove(&folder);
            }
        }
    }

    /// Gives the node another name. A node that had this name loses it.
    pub(super) fn rename(&mut self, ino: Ino, folder: Ino, name: &[u8]) {
        if let Some(before) = self.child(folder, name)
            && before != ino
        {
            self.take_name(before);
        }
        self.take_name(ino);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.place = Some((folder, name.to_vec()));
            self.names.entry(folder).or_default().insert(name.to_vec(), ino);
        }
    }

    pub(super) fn open(&mut self, handle: Handle) -> u64 {
        self.handles_made += 1;
        self.handles.insert(self.handles_made, handle);
        self.handles_made
    }

    pub(super) fn handle(&self, number: u64) -> Option<&Handle> {
        self.handles.get(&number)
    }

    pub(super) fn handle_mut(&mut self, number: u64) -> Option<&mut Handle> {
        self.handles.get_mut(&number)
    }

    pub(super) fn close(&mut self, number: u64) -> Option<Handle> {
        self.handles.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_that_nobody_needs() {
        let mut table = Table::default();
        let (folder, _) = table.refer(fixed::RESTORE, b"contoso");
        let (file, _) = table.refer(folder, b"a.eml");
        assert_eq!(table.refer(folder, b"a.eml").0, file);
        assert_eq!((table.path(file), table.at(b"contoso/a.eml")), (Some(b"contoso/a.eml".to_vec()), Some(file)));
        table.forget(folder, 1);
        assert_eq!(table.path(file).unwrap(), b"contoso/a.eml", "a folder is kept for what lies in it");
        table.forget(file, 1);
        assert!(table.node(file).is_some());
        table.forget(file, 1);
        assert!(table.nodes.is_empty() && table.names.is_empty());
        assert_ne!(table.refer(fixed::RESTORE, b"contoso").0, folder, "no number twice");
    }

    #[test]
    fn names_move_and_go() {
        let mut table = Table::default();
        let (a, b) = (table.refer(fixed::RESTORE, b"a").0, table.refer(fixed::RESTORE, b"b").0);
        table.rename(a, fixed::RESTORE, b"b");
        assert_eq!((table.path(a).unwrap(), table.path(b), table.at(b"a")), (b"b".to_vec(), None, None));
        table.forget(b, 1);
        table.take_name(a);
        assert_eq!(table.at(b"b"), None);
        table.forget(a, 1);
        assert!(table.nodes.is_empty() && table.names.is_empty());
    }
}
