//! Compares the file system's logic with the model, without a mount.

mod common;

use common::model::{Model, Shelf, Tree};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strongroom_mount::error::{FsError, errno};
use strongroom_mount::fs::{Fs, Lookup, Presentation, Stat, TTL_CHANGING, TTL_FOREVER};
use strongroom_mount::inode::{Ino, fixed};
use strongroom_mount::{Kind, Target, ViewError};

const AS_STORED: Presentation = Presentation { owner: None, mounted_by: (7, 8), xattr: true };

fn alone(model: &Arc<Model>) -> Fs {
    Fs::new(Target::View(model.clone()), AS_STORED).unwrap()
}

/// Lists `dir` in pages of `page` entries, as the kernel does.
fn list(fs: &Fs, dir: Ino, page: usize) -> Vec<(Vec<u8>, Stat)> {
    let mut entries = Vec::new();
    let mut offset = 0;
    loop {
        let mut room = page;
        let before = entries.len();
        fs.list(dir, offset, &mut |listed| {
            if room == 0 {
                return false;
            }
            room -= 1;
            offset = listed.next;
            entries.push((listed.name.to_vec(), listed.stat));
            true
        })
        .unwrap();
        if entries.len() == before {
            return entries;
        }
    }
}

fn lookup(fs: &Fs, dir: Ino, name: &[u8]) -> Option<Stat> {
    match fs.lookup(dir, name).unwrap() {
        Lookup::Entry(stat) => Some(stat),
        Lookup::Nothing(_) => None,
    }
}

fn read(fs: &Fs, file: Ino, piece: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = fs.read(file, bytes.len() as u64, piece).unwrap();
        if more.is_empty() {
            return bytes;
        }
        bytes.extend(more);
    }
}

/// Compares everything below `ino` with the model's entry at `rank`. Returns the number of entries.
fn agrees(fs: &Fs, ino: Ino, model: &Model, rank: usize, parent: Ino, page: usize) -> usize {
    let entry = &model.entries[rank];
    let stat = fs.stat(ino).unwrap();
    assert_eq!((stat.ino, stat.kind, stat.size, stat.mtime), (ino, entry.attr.kind, entry.attr.size, entry.attr.mtime));
    assert_eq!((stat.mode, stat.uid, stat.gid), (entry.attr.mode, entry.attr.uid, entry.attr.gid));
    assert_eq!((stat.links, stat.blocks()), (entry.attr.links, entry.attr.size.div_ceil(512)));
    match &entry.tree {
        Tree::File(bytes) => assert_eq!(&read(fs, ino, page), bytes),
        Tree::Link(target) => assert_eq!(&fs.read_link(ino).unwrap(), target),
        Tree::Directory(_) => {
            let listed = list(fs, ino, page);
            assert_eq!((listed[0].0.as_slice(), listed[0].1.ino), (b".".as_slice(), ino));
            assert_eq!((listed[1].0.as_slice(), listed[1].1.ino), (b"..".as_slice(), parent));
            assert_eq!(lookup(fs, ino, b"..").unwrap().ino, parent);
            assert_eq!(listed.len() - 2, entry.children.len());
            let mut count = 1;
            for ((name, stat), child) in listed[2..].iter().zip(&entry.children) {
                assert_eq!(name, &model.entries[*child].name);
                assert_eq!(lookup(fs, ino, name), Some(*stat), "listing and lookup tell the same");
                count += agrees(fs, stat.ino, model, *child, ino, page);
            }
            return count;
        }
        other => panic!("{other:?} is not generated here"),
    }
    1
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = (1..=255_u8).prop_filter("no slash", |byte| *byte != b'/');
    prop::collection::vec(byte, 1..12).prop_filter("no dots", |name| name != b"." && name != b"..")
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Tree::File),
        name().prop_map(Tree::Link),
        Just(Tree::empty()),
    ];
    let directory = leaf
        .prop_recursive(5, 60, 8, |inner| prop::collection::btree_map(name(), inner, 0..8).prop_map(Tree::Directory));
    prop::collection::btree_map(name(), directory, 0..8).prop_map(Tree::Directory)
}

proptest! {
    #[test]
    fn walk_agrees_with_model(tree in tree(), page in 1..7_usize, strange in name()) {
        let model = Model::new(tree);
        let fs = alone(&model);
        prop_assert_eq!(agrees(&fs, fixed::ROOT, &model, 0, fixed::ROOT, page), model.entries.len());
        let known = model.entries[0].children.iter().any(|child| model.entries[*child].name == strange);
        prop_assert_eq!(lookup(&fs, fixed::ROOT, &strange).is_some(), known);

        let shelf = Shelf::new(&[(1, "one", &model), (2, "two", &model)]);
        shelf.text.store(true, Ordering::Relaxed);
        let fs = Fs::new(Target::Catalog(shelf), AS_STORED).unwrap();
        for (folder, name) in [fixed::SNAPSHOTS, fixed::TEXT].into_iter().flat_map(|at| [(at, "one"), (at, "two")]) {
            let root = lookup(&fs, folder, name.as_bytes()).unwrap().ino;
            prop_assert_eq!(agrees(&fs, root, &model, 0, folder, page), model.entries.len());
        }
    }
}

fn small() -> Arc<Model> {
    Model::new(
        Tree::empty()
            .with(&[b"file"], Tree::File(b"0123456789".to_vec()))
            .with(&[b"dir", b"inner"], Tree::File(vec![]))
            .with(&[b"link"], Tree::Link(b"file".to_vec()))
            .with(&[b"broken"], Tree::Damaged(Kind::File))
            .with(&[b"buggy"], Tree::Panics(Kind::File))
            .with(&[b"broken dir"], Tree::Damaged(Kind::Directory))
            .with(&[b"buggy dir"], Tree::Panics(Kind::Directory)),
    )
}

fn code<T: std::fmt::Debug>(result: Result<T, FsError>) -> rustix::io::Errno {
    errno(&result.unwrap_err())
}

#[test]
fn wrong_kinds_are_refused() {
    use rustix::io::Errno;
    let fs = alone(&small());
    let [file, dir, link] =
        [b"file".as_slice(), b"dir", b"link"].map(|name| lookup(&fs, fixed::ROOT, name).unwrap().ino);
    assert_eq!(code(fs.read(dir, 0, 10)), Errno::ISDIR);
    assert_eq!(code(fs.read(link, 0, 10)), Errno::INVAL);
    assert_eq!(code(fs.read_link(file)), Errno::INVAL);
    assert_eq!(code(fs.lookup(file, b"x")), Errno::NOTDIR);
    assert_eq!(code(fs.list(file, 2, &mut |_| true)), Errno::NOTDIR);
    assert_eq!(code(fs.lookup(dir, &[b'x'; 256])), Errno::NAMETOOLONG);
    assert_eq!(code(fs.stat(Ino(1000))), Errno::NOENT);
    assert_eq!(code(fs.stat(Ino(5 << 40 | 1))), Errno::STALE);
    assert_eq!(code(fs.stat(Ino(1 << 63 | 1))), Errno::STALE);
    assert_eq!(code(fs.stat(Ino(0))), Errno::STALE);
}

#[test]
fn reading_ends_at_the_end() {
    let fs = alone(&small());
    let file = lookup(&fs, fixed::ROOT, b"file").unwrap().ino;
    assert_eq!(fs.read(file, 7, 100).unwrap(), b"789");
    assert_eq!(fs.read(file, 10, 100).unwrap(), b"");
    assert_eq!(fs.read(file, 1 << 60, 100).unwrap(), b"");
    let fs = Fs::new(Target::Catalog(Shelf::new(&[])), AS_STORED).unwrap();
    let whole = read(&fs, fixed::README, 7);
    assert_eq!(whole, b"A shelf of 0.\n");
    assert_eq!(fs.stat(fixed::README).unwrap().size, whole.len() as u64);
    assert_eq!(fs.read(fixed::README, u64::MAX, 7).unwrap(), b"");
}

#[test]
fn damage_and_panics_cost_one_operation() {
    let fs = alone(&small());
    for name in [b"broken".as_slice(), b"buggy"] {
        let ino = lookup(&fs, fixed::ROOT, name).unwrap().ino;
        assert_eq!(code(fs.read(ino, 0, 10)), rustix::io::Errno::IO);
    }
    for name in [b"broken dir".as_slice(), b"buggy dir"] {
        let ino = lookup(&fs, fixed::ROOT, name).unwrap().ino;
        assert_eq!(code(fs.list(ino, 0, &mut |_| true)), rustix::io::Errno::IO);
        assert_eq!(code(fs.lookup(ino, b"x")), rustix::io::Errno::IO);
    }
    assert_eq!(read(&fs, lookup(&fs, fixed::ROOT, b"file").unwrap().ino, 4), b"0123456789");
}

#[test]
fn extended_attributes() {
    let fs = alone(&small());
    let file = lookup(&fs, fixed::ROOT, b"file").unwrap().ino;
    assert_eq!(fs.xattr(file, b"user.strongroom.subject").unwrap(), b"caf\xc3\xa9 \xff");
    assert_eq!(fs.xattr_names(file).unwrap(), b"user.strongroom.rank\0user.strongroom.subject\0");
    assert!(matches!(fs.xattr(file, b"user.other"), Err(FsError::NoAttribute)));
    assert!(matches!(fs.xattr(file, b"security.capability"), Err(FsError::NoAttribute)));
    let off = Fs::new(Target::View(small()), Presentation { xattr: false, ..AS_STORED }).unwrap();
    assert!(matches!(off.xattr(file, b"user.strongroom.subject"), Err(FsError::NotOffered)));
    assert!(matches!(off.xattr_names(file), Err(FsError::NotOffered)));
}

#[test]
fn owner_can_be_the_mounting_user() {
    let mine = Presentation { owner: Some((42, 43)), ..AS_STORED };
    let fs = Fs::new(Target::View(small()), mine).unwrap();
    for (name, stat) in list(&fs, fixed::ROOT, 100).into_iter().skip(2) {
        assert_eq!((stat.uid, stat.gid), (42, 43), "{name:?}");
        let readable = if stat.kind == Kind::Directory { 0o500 } else { 0o400 };
        assert_eq!(stat.mode & readable, readable, "{name:?}");
    }
}

#[test]
fn catalog_layout() {
    let model = small();
    let shelf = Shelf::new(&[(1, "old", &model), (2, "new", &model)]);
    let fs = Fs::new(Target::Catalog(shelf.clone()), AS_STORED).unwrap();
    let names =
        |dir| list(&fs, dir, 2).into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect::<Vec<_>>();
    assert_eq!(names(fixed::ROOT), [".", "..", "README.txt", "latest", "snapshots"]);
    assert_eq!(names(fixed::SNAPSHOTS), [".", "..", "old", "new"]);
    assert_eq!(shelf.opened.load(Ordering::Relaxed), 0, "listing opens no snapshot");
    assert_eq!(fs.read_link(fixed::LATEST).unwrap(), b"snapshots/new");
    assert_eq!(fs.stat(fixed::LATEST).unwrap().size, 13);
    assert_eq!(fs.stat(fixed::SNAPSHOTS).unwrap().links, 4);
    assert_eq!(fs.stat(fixed::SNAPSHOTS).unwrap().ttl, TTL_CHANGING);

    let root = lookup(&fs, fixed::SNAPSHOTS, b"new").unwrap();
    assert_eq!(root.ttl, TTL_CHANGING, "its name can go away");
    assert_eq!(lookup(&fs, root.ino, b"file").unwrap().ttl, TTL_FOREVER);
    assert_eq!(fs.lookup(root.ino, b"none").unwrap(), Lookup::Nothing(TTL_FOREVER));
    assert_eq!(fs.lookup(fixed::SNAPSHOTS, b"none").unwrap(), Lookup::Nothing(TTL_CHANGING));
    assert_eq!(shelf.opened.load(Ordering::Relaxed), 1);

    let old = lookup(&fs, fixed::SNAPSHOTS, b"old").unwrap();
    assert_ne!(old.ino, root.ino);
    let again = Fs::new(Target::Catalog(shelf), AS_STORED).unwrap();
    assert_eq!(lookup(&again, fixed::SNAPSHOTS, b"old").unwrap(), old, "numbers survive a remount");
}

#[test]
fn the_sides_of_a_snapshot_are_folders_of_their_own() {
    let model = small();
    let shelf = Shelf::new(&[(1, "one", &model)]);
    shelf.text.store(true, Ordering::Relaxed);
    let fs = Fs::new(Target::Catalog(shelf.clone()), AS_STORED).unwrap();
    let names = list(&fs, fixed::ROOT, 2).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names, [b".".as_slice(), b"..", b"README.txt", b"latest", b"snapshots", b"text"]);
    assert_eq!(fs.read_link(fixed::LATEST).unwrap(), b"snapshots/one");
    assert_eq!(fs.stat(fixed::ROOT).unwrap().links, 4);
    let [items, text] = [b"snapshots".as_slice(), b"text"].map(|side| {
        let shelf = lookup(&fs, fixed::ROOT, side).unwrap();
        lookup(&fs, shelf.ino, b"one").unwrap().ino
    });
    assert_eq!((items.slot(), items.rank()), (text.slot(), text.rank()));
    assert_ne!(items, text);
    assert_eq!(lookup(&fs, text, b"..").unwrap().ino, fixed::TEXT);

    shelf.text.store(false, Ordering::Relaxed);
    let fs = Fs::new(Target::Catalog(shelf), AS_STORED).unwrap();
    assert_eq!(lookup(&fs, fixed::ROOT, b"text"), None);
}

#[test]
fn empty_catalog() {
    let fs = Fs::new(Target::Catalog(Shelf::new(&[])), AS_STORED).unwrap();
    assert_eq!(list(&fs, fixed::ROOT, 100).len(), 4, "no `latest`");
    assert_eq!(lookup(&fs, fixed::ROOT, b"latest"), None);
    assert_eq!(list(&fs, fixed::SNAPSHOTS, 100).len(), 2);
    assert_eq!((fs.space().blocks, fs.space().files), (0, 0));
}

#[test]
fn a_listing_goes_on_while_snapshots_come_and_go() {
    let model = small();
    let names: Vec<String> = (1..=9).map(|n| format!("snapshot {n}")).collect();
    let shelf = Shelf::new(&[]);
    for (number, name) in (1..).zip(&names) {
        shelf.add(number, name, &model);
    }
    let fs = Fs::new(Target::Catalog(shelf.clone()), AS_STORED).unwrap();
    let mut seen = Vec::new();
    let mut offset = 2;
    while {
        let before = seen.len();
        fs.list(fixed::SNAPSHOTS, offset, &mut |listed| {
            offset = listed.next;
            seen.push(String::from_utf8(listed.name.to_vec()).unwrap());
            false
        })
        .unwrap();
        seen.len() > before
    } {
        match seen.len() {
            3 => (1..=3).for_each(|number| shelf.remove(number)),
            5 => shelf.add(0, "older than all", &model),
            _ => {}
        }
        fs.refresh().unwrap();
    }
    assert_eq!(seen[..9], names, "each of those that stayed, once");
}

#[test]
fn a_failing_catalog_leaves_everything_as_it_was() {
    let model = small();
    let shelf = Shelf::new(&[(1, "one", &model)]);
    let fs = Fs::new(Target::Catalog(shelf.clone()), AS_STORED).unwrap();
    shelf.fails.store(true, Ordering::Relaxed);
    assert!(matches!(fs.refresh(), Err(FsError::View(ViewError::Backend { .. }))));
    assert!(lookup(&fs, fixed::SNAPSHOTS, b"one").is_some());
    assert!(Fs::new(Target::Catalog(shelf), AS_STORED).is_err(), "but it cannot be mounted so");
}

#[test]
fn references_are_counted() {
    let model = small();
    let shelf = Shelf::new(&[(1, "one", &model)]);
    let fs = Fs::new(Target::Catalog(shelf.clone()), AS_STORED).unwrap();
    let root = lookup(&fs, fixed::SNAPSHOTS, b"one").unwrap().ino;
    let file = lookup(&fs, root, b"file").unwrap().ino;
    // Two of the seven entries fit. The third is offered but not accepted.
    let mut room = 2;
    fs.list(root, 2, &mut |_| {
        room -= 1;
        room >= 0
    })
    .unwrap();
    shelf.remove(1);
    fs.refresh().unwrap();
    assert_eq!(lookup(&fs, fixed::SNAPSHOTS, b"one"), None);
    for ino in [root, file, file] {
        fs.forget(ino, 1);
        fs.refresh().unwrap();
        assert_eq!(fs.read(file, 0, 2).unwrap(), b"01", "still in use");
    }
    fs.forget(root, 1);
    fs.refresh().unwrap();
    assert!(matches!(fs.read(file, 0, 2), Err(FsError::Stale)));
    assert_eq!(Arc::strong_count(&model), 1, "the view was let go");
}

#[test]
fn a_large_directory_is_listed_by_offset() {
    let files: BTreeMap<_, _> = (0..20_000).map(|n| (format!("{n:06}").into_bytes(), Tree::File(vec![]))).collect();
    let fs = alone(&Model::new(Tree::Directory(files)));
    let entries = list(&fs, fixed::ROOT, 777);
    assert_eq!(entries.len(), 20_002);
    assert!(entries[2..].is_sorted_by(|a, b| a.0 < b.0 && a.1.ino < b.1.ino));
}
