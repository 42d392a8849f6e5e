//! The reference model: snapshots as trees in memory, with which mounts are compared.
//!
//! Files can also fail in the ways that a repository can fail, see [`Tree::Damaged`] and [`Tree::Panics`].
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use strongroom_mount::{Attr, Catalog, Kind, Rank, Side, SnapshotInfo, Time, Totals, View, ViewError};

#[derive(Clone, Debug)]
pub enum Tree {
    Directory(BTreeMap<Vec<u8>, Tree>),
    File(Vec<u8>),
    /// A file of this many zero bytes, which are not stored.
    Zeros(u64),
    Link(Vec<u8>),
    /// A file of 10 bytes that cannot be read, or a directory that cannot be listed.
    Damaged(Kind),
    Panics(Kind),
}

impl Tree {
    pub fn empty() -> Tree {
        Tree::Directory(BTreeMap::new())
    }

    /// Adds `tree` at the path `path`, and the directories on the way.
    pub fn with(mut self, path: &[&[u8]], tree: Tree) -> Tree {
        self.insert(path, tree);
        self
    }

    fn insert(&mut self, path: &[&[u8]], tree: Tree) {
        let Tree::Directory(entries) = self else { panic!("a file is in the way") };
        match path {
            [] => panic!("a path has at least one name"),
            [name] => drop(entries.insert(name.to_vec(), tree)),
            [name, rest @ ..] => entries.entry(name.to_vec()).or_insert_with(Tree::empty).insert(rest, tree),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Tree::Directory(_) => Kind::Directory,
            Tree::File(_) | Tree::Zeros(_) => Kind::File,
            Tree::Link(_) => Kind::Symlink,
            Tree::Damaged(kind) | Tree::Panics(kind) => *kind,
        }
    }
}

pub struct Entry {
    pub name: Vec<u8>,
    pub parent: usize,
    pub children: Vec<usize>,
    pub attr: Attr,
    pub tree: Tree,
}

/// A tree whose entries are in rank order.
pub struct Model {
    pub entries: Vec<Entry>,
}

impl Model {
    pub fn new(root: Tree) -> Arc<Model> {
        let mut model = Model { entries: Vec::new() };
        model.add(Vec::new(), 0, root);
        Arc::new(model)
    }

    fn add(&mut self, name: Vec<u8>, parent: usize, tree: Tree) -> usize {
        let rank = self.entries.len();
        let kind = tree.kind();
        let number = rank as u64;
        // All attributes differ, and some are rare: set-user-id, times before 1970, nanoseconds.
        let mode = match kind {
            Kind::Directory => 0o755,
            Kind::Symlink => 0o777,
            Kind::File => [0o644, 0o600, 0o755, 0o4755, 0o400, 0o000][rank % 6],
        };
        let mtime = Time {
            secs: if rank % 7 == 3 { -1_000_000 - number as i64 } else { 1_700_000_000 + number as i64 },
            nanos: (number * 7_654_321 % 1_000_000_000) as u32,
        };
        let size = match &tree {
            Tree::File(bytes) | Tree::Link(bytes) => bytes.len() as u64,
            Tree::Zeros(size) => *size,
            Tree::Damaged(Kind::File) | Tree::Panics(Kind::File) => 10,
            _ => 0,
        };
        let attr = Attr {
            rank: Rank(number),
            kind,
            size,
            mtime,
            mode,
            uid: 1000 + (number % 5) as u32,
            gid: 2000 + (number % 3) as u32,
            links: 1,
        };
        let (children, tree) = match tree {
            Tree::Directory(entries) => (entries, Tree::empty()),
            tree => (BTreeMap::new(), tree),
        };
        self.entries.push(Entry { name, parent, children: Vec::new(), attr, tree });
        let children: Vec<usize> = children.into_iter().map(|(name, tree)| self.add(name, rank, tree)).collect();
        if kind == Kind::Directory {
            let subdirectories = children.iter().filter(|child| self.entries[**child].attr.kind == Kind::Directory);
            self.entries[rank].attr.links = 2 + subdirectories.count() as u32;
        }
        self.entries[rank].children = children;
        rank
    }

    fn entry(&self, rank: Rank) -> Result<&Entry, ViewError> {
        usize::try_from(rank.0).ok().and_then(|index| self.entries.get(index)).ok_or(ViewError::NotFound)
    }

    fn directory(&self, rank: Rank) -> Result<&Entry, ViewError> {
        let entry = self.entry(rank)?;
        if entry.attr.kind != Kind::Directory {
            return Err(ViewError::NotADirectory);
        }
        fails(&entry.tree)?;
        Ok(entry)
    }
}

fn fails(tree: &Tree) -> Result<(), ViewError> {
    match tree {
        Tree::Damaged(_) => Err(ViewError::Damaged { what: "block 7 of pack 1234".to_owned() }),
        Tree::Panics(_) => panic!("a bug in a view"),
        _ => Ok(()),
    }
}

impl View for Model {
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError> {
        Ok(self.entry(rank)?.attr)
    }

    fn lookup(&self, dir: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        let children = &self.directory(dir)?.children;
        let found = children.binary_search_by(|child| self.entries[*child].name.as_slice().cmp(name));
        Ok(found.ok().map(|index| self.entries[children[index]].attr))
    }

    fn parent(&self, rank: Rank) -> Result<Rank, ViewError> {
        Ok(Rank(self.entry(rank)?.parent as u64))
    }

    fn list(&self, dir: Rank, start: u64, emit: &mut dyn FnMut(&[u8], Attr, u64) -> bool) -> Result<(), ViewError> {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        for (position, child) in self.directory(dir)?.children.iter().enumerate().skip(start) {
            let entry = &self.entries[*child];
            if !emit(&entry.name, entry.attr, position as u64 + 1) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError> {
        let entry = self.entry(file)?;
        fails(&entry.tree)?;
        let end = (offset + size as u64).min(entry.attr.size);
        match &entry.tree {
            Tree::File(bytes) => Ok(bytes[offset.min(end) as usize..end as usize].to_vec()),
            Tree::Zeros(_) => Ok(vec![0; end.saturating_sub(offset) as usize]),
            Tree::Directory(_) => Err(ViewError::IsADirectory),
            _ => Err(ViewError::Invalid),
        }
    }

    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError> {
        match &self.entry(link)?.tree {
            Tree::Link(target) => Ok(target.clone()),
            _ => Err(ViewError::Invalid),
        }
    }

    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError> {
        let rank = self.entry(rank)?.attr.rank;
        Ok(vec![
            ("user.strongroom.rank".to_owned(), rank.to_string().into_bytes()),
            ("user.strongroom.subject".to_owned(), b"caf\xc3\xa9 \xff".to_vec()),
            ("security.capability".to_owned(), b"a name that must not be shown".to_vec()),
        ])
    }

    fn totals(&self) -> Totals {
        let files = self.entries.iter().filter(|entry| entry.attr.kind == Kind::File);
        Totals { entries: self.entries.len() as u64, bytes: files.map(|entry| entry.attr.size).sum() }
    }
}

/// A catalog that tests can change while it is mounted.
#[derive(Default)]
pub struct Shelf {
    snapshots: Mutex<Vec<(SnapshotInfo, Arc<Model>)>>,
    pub opened: AtomicU64,
    pub fails: std::sync::atomic::AtomicBool,
    /// Whether the catalog also shows a text side, with the same trees.
    pub text: std::sync::atomic::AtomicBool,
}

impl Shelf {
    pub fn new(snapshots: &[(u8, &str, &Arc<Model>)]) -> Arc<Shelf> {
        let shelf = Arc::new(Shelf::default());
        for (number, name, model) in snapshots {
            shelf.add(*number, name, model);
        }
        shelf
    }

    pub fn add(&self, number: u8, name: &str, model: &Arc<Model>) {
        let time = Time { secs: 1_700_000_000 + i64::from(number), nanos: 0 };
        let info = SnapshotInfo { id: [number; 32], name: name.to_owned(), time, ahead: false };
        self.snapshots.lock().unwrap().push((info, model.clone()));
    }

    pub fn remove(&self, number: u8) {
        self.snapshots.lock().unwrap().retain(|(info, _)| info.id[0] != number);
    }
}

impl Catalog for Shelf {
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ViewError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(ViewError::Backend { source: "the disk is away".into() });
        }
        Ok(self.snapshots.lock().unwrap().iter().map(|(info, _)| info.clone()).collect())
    }

    fn readme(&self) -> String {
        format!("A shelf of {}.\n", self.snapshots.lock().unwrap().len())
    }

    fn shows(&self, side: Side) -> bool {
        side == Side::Items || self.text.load(Ordering::Relaxed)
    }

    fn open(&self, id: &[u8; 32], _: Side) -> Result<Arc<dyn View>, ViewError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let snapshots = self.snapshots.lock().unwrap();
        let (_, model) = snapshots.iter().find(|(info, _)| info.id == *id).ok_or(ViewError::NotFound)?;
        Ok(model.clone())
    }
}

/// Returns a tree of `directories` folders with `files` files of about 4 KiB each, and one file of 64 MiB.
pub fn office(directories: usize, files: usize) -> Tree {
    let mut root = Tree::empty().with(&[b"big.bin"], Tree::Zeros(64 << 20));
    for d in 0..directories {
        let mut folder = BTreeMap::new();
        for f in 0..files {
            let line = format!("message {f} of folder {d}: nothing to see here, move along\n");
            let mut text = line.repeat(4096 / line.len()).into_bytes();
            if f % 100 == 7 {
                text.extend_from_slice(b"NEEDLEWORD\n");
            }
            folder.insert(format!("{f:05}.eml").into_bytes(), Tree::File(text));
        }
        root = root.with(&[format!("folder {d:03}").as_bytes()], Tree::Directory(folder));
    }
    root
}
