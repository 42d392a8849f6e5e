//! Compares a mounted tree with the model, through the kernel.
#![allow(dead_code, reason = "each test program uses its own part")]

use super::Fixture;
use super::model::{Entry, Model, Tree};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use strongroom_mount::Kind;

/// Names that Linux allows but that break careless programs.
pub fn hostile() -> Tree {
    let mut tree = Tree::empty();
    let names: [&[u8]; 14] = [
        b"\xff\xfe\x80",
        b"new\nline",
        b" leading and trailing ",
        b"trailing.",
        b"...",
        b"-rf",
        b"back\\slash \" ' $(touch x) `x` *?",
        "naïve ☃ 😀".as_bytes(),
        b"Case",
        b"case",
        b"\x01\x7f",
        &[b'x'; 255],
        &[0xff; 255],
        b"empty",
    ];
    for (n, name) in names.iter().enumerate() {
        tree = tree.with(&[name], Tree::File(vec![n as u8; n * 100]));
        tree = tree.with(&[b"below", name, name], Tree::File(name.to_vec()));
    }
    tree.with(&[b"link"], Tree::Link(b"below/\xff\xfe\x80".to_vec())).with(&[b"empty dir"], Tree::empty())
}

/// Compares what the kernel shows at `path` with the model. Returns the inode numbers of all entries.
pub fn same_as_model(path: &Path, model: &Model, rank: usize, device: u64) -> BTreeMap<PathBuf, u64> {
    let entry: &Entry = &model.entries[rank];
    let (stat, attr) = (fs::symlink_metadata(path).unwrap(), &entry.attr);
    let kind = match attr.kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Symlink => 0o120_000,
    };
    assert_eq!(stat.mode(), kind | u32::from(attr.mode), "{path:?}");
    assert_eq!((stat.uid(), stat.gid(), stat.dev()), (attr.uid, attr.gid, device), "{path:?}");
    assert_eq!((stat.size(), stat.blocks(), stat.blksize()), (attr.size, attr.size.div_ceil(512), 4096), "{path:?}");
    assert_eq!((stat.nlink(), stat.rdev()), (attr.links.into(), 0), "{path:?}");
    let time = (attr.mtime.secs, i64::from(attr.mtime.nanos));
    assert_eq!([(stat.mtime(), stat.mtime_nsec()), (stat.atime(), stat.atime_nsec())], [time; 2], "{path:?}");
    assert_eq!((stat.ctime(), stat.ctime_nsec()), time, "{path:?}");

    let mut numbers = BTreeMap::from([(path.to_owned(), stat.ino())]);
    match &entry.tree {
        Tree::File(bytes) => assert_eq!(&fs::read(path).unwrap(), bytes, "{path:?}"),
        Tree::Link(target) => assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), target),
        Tree::Directory(_) => {
            let listed: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            let names: Vec<_> = listed.iter().map(|name| name.as_bytes()).collect();
            let expected: Vec<_> = entry.children.iter().map(|child| model.entries[*child].name.as_slice()).collect();
            assert_eq!(names, expected, "in order: {path:?}");
            for (name, child) in listed.iter().zip(&entry.children) {
                numbers.extend(same_as_model(&path.join(name), model, *child, device));
            }
        }
        _ => {}
    }
    numbers
}

pub fn walk(mount: &Fixture, below: &str, model: &Model) -> BTreeMap<PathBuf, u64> {
    let root = mount.path(below);
    let numbers = same_as_model(&root, model, 0, fs::metadata(&root).unwrap().dev());
    numbers.into_iter().map(|(path, ino)| (path.strip_prefix(&root).unwrap().to_owned(), ino)).collect()
}
