//! What changes in a tree of which most did not change is noticed, whatever it is.

use super::{Watch, added, adds_only_its_snapshot, counts, let_stamps_age};
use crate::common::{Lab, assert_same_tree, read_tree, text, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A tree of several folders, whose time stamps are trusted, and which was backed up.
fn settled(lab: &Lab) -> PathBuf {
    let source = lab.dir("source");
    for folder in ["a", "b", "b/deep/er", "c"] {
        for number in 0..20 {
            write(&source.join(format!("{folder}/{number:02}.txt")), format!("{number} in {folder}"));
        }
    }
    fs::hard_link(source.join("a/05.txt"), source.join("c/linked.txt")).unwrap();
    symlink("a/05.txt", source.join("link")).unwrap();
    write(&source.join("newest"), "newest");
    let_stamps_age(&source.join("newest"));
    lab.backup(&source, "files");
    source
}

fn restored(lab: &Lab, name: &str) -> PathBuf {
    let back = lab.path(name);
    lab.run(args!["restore", "latest", "--to", format!("local:{}", back.display())], 0);
    back
}

/// Backs up after a change. The report must have these counts, and the snapshot must be what the source is.
#[track_caller]
fn assert_noticed(lab: &Lab, source: &Path, what: &str, expected: Value) {
    let report = lab.backup(source, "files");
    assert_eq!(counts(&report), expected, "{what}");
    let back = restored(lab, what);
    assert_same_tree(&read_tree(source), &read_tree(&back));
    adds_only_its_snapshot(lab, || lab.backup(source, "files"));
}

#[test]
fn every_kind_of_change_is_noticed_in_the_midst_of_what_did_not_change() {
    let lab = Lab::new();
    let source = settled(&lab);
    let path = |name: &str| source.join(name);
    assert_eq!(counts(&adds_only_its_snapshot(&lab, || lab.backup(&source, "files"))), json!({ "unchanged": 83 }));
    write(&path("b/deep/er/07.txt"), "changed");
    assert_noticed(&lab, &source, "content", json!({ "changed": 1, "unchanged": 82 }));
    fs::set_permissions(path("b/03.txt"), Permissions::from_mode(0o600)).unwrap();
    assert_noticed(&lab, &source, "permissions", json!({ "changed": 1, "unchanged": 82 }));
    fs::set_permissions(path("b/deep"), Permissions::from_mode(0o700)).unwrap();
    assert_noticed(&lab, &source, "permissions of a folder", json!({ "unchanged": 83 }));
    fs::remove_file(path("a/19.txt")).unwrap();
    assert_noticed(&lab, &source, "the last file of a folder is removed", json!({ "deleted": 1, "unchanged": 82 }));
    write(&path("a/99.txt"), "new");
    assert_noticed(&lab, &source, "a file is added at the end", json!({ "new": 1, "unchanged": 82 }));
    write(&path("b/new/file"), "in a new folder");
    assert_noticed(&lab, &source, "a folder is added", json!({ "new": 1, "unchanged": 83 }));
    fs::rename(path("b/deep"), path("b/moved")).unwrap();
    assert_noticed(&lab, &source, "a folder is renamed", json!({ "moved": 20, "unchanged": 64 }));
    fs::remove_dir_all(path("b/moved")).unwrap();
    assert_noticed(&lab, &source, "a folder is removed", json!({ "deleted": 20, "unchanged": 64 }));
    fs::create_dir(path("b/moved")).unwrap();
    assert_noticed(&lab, &source, "an empty folder takes its place", json!({ "unchanged": 64 }));
    fs::remove_file(path("link")).unwrap();
    symlink("a/06.txt", path("link")).unwrap();
    assert_noticed(&lab, &source, "a link leads elsewhere", json!({ "changed": 1, "unchanged": 63 }));
    fs::remove_file(path("c/03.txt")).unwrap();
    fs::create_dir(path("c/03.txt")).unwrap();
    assert_noticed(&lab, &source, "a folder takes the name of a file", json!({ "deleted": 1, "unchanged": 63 }));
    lab.run(["check", "--read-data"], 0);
}

/// The other name of a hard-linked file lies in a folder in which nothing else happens.
#[test]
fn a_hard_link_that_changed_elsewhere_is_noticed() {
    let lab = Lab::new();
    let source = settled(&lab);
    let links = |back: &Path| fs::metadata(back.join("a/05.txt")).unwrap().nlink();
    assert_eq!(links(&restored(&lab, "before")), 2);
    fs::write(source.join("c/linked.txt"), "written through the other name").unwrap();
    assert_noticed(&lab, &source, "written", json!({ "changed": 2, "unchanged": 81 }));
    assert_eq!(text(&lab.run(["cat", "latest:a/05.txt"], 0).stdout), "written through the other name");
    fs::remove_file(source.join("c/linked.txt")).unwrap();
    assert_noticed(&lab, &source, "removed", json!({ "deleted": 1, "changed": 1, "unchanged": 81 }));
    assert_eq!(links(&lab.path("removed")), 1);
    fs::hard_link(source.join("a/05.txt"), source.join("b/other name")).unwrap();
    lab.backup(&source, "files");
    assert_eq!(links(&restored(&lab, "linked")), 2);
}

/// Nothing is taken over from a snapshot that is damaged or gone, or without the local state of the run that made it.
#[test]
fn without_a_sound_previous_snapshot_the_next_one_is_complete() {
    let lab = Lab::new();
    let source = settled(&lab);
    let everything = read_tree(&source);
    let watch = Watch::new(&source.join("a"));
    let snapshot = |lab: &Lab| {
        let listed = lab.objects().into_keys().find(|name| name.starts_with("snapshots/")).unwrap();
        lab.repository().join(listed)
    };
    // The only snapshot is damaged, then gone.
    let path = snapshot(&lab);
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    assert_eq!(counts(&lab.backup(&source, "files")), json!({ "new": 83 }));
    assert_eq!(watch.opened(), BTreeSet::new(), "the files are known by their facts");
    fs::remove_file(&path).unwrap();
    fs::remove_file(snapshot(&lab)).unwrap();
    assert_eq!(counts(&lab.backup(&source, "files")), json!({ "new": 83 }));
    assert_same_tree(&everything, &read_tree(&restored(&lab, "gone")));
    // A pack with metadata or content is gone.
    for _ in 0..2 {
        let before = lab.objects();
        let pack = before.keys().find(|name| name.starts_with("packs/")).unwrap();
        fs::remove_file(lab.repository().join(pack)).unwrap();
        watch.opened();
        let report = lab.backup(&source, "files");
        assert!(watch.opened().len() >= 19, "all files are read again, perhaps a/05.txt by its other name");
        assert!(added(&report) > 0 && counts(&report) == json!({ "unchanged": 83 }), "{report}");
        assert_same_tree(&everything, &read_tree(&restored(&lab, &format!("without {}", pack.replace('/', " ")))));
    }
    // Another machine, or an earlier version of this program, made the previous snapshot.
    fs::remove_dir_all(lab.state()).unwrap();
    adds_only_its_snapshot(&lab, || lab.backup(&source, "files"));
    assert!(watch.opened().len() >= 19, "all files are read, perhaps a/05.txt by its other name");
    adds_only_its_snapshot(&lab, || lab.backup(&source, "files"));
    assert_eq!(watch.opened(), BTreeSet::new());
    assert_same_tree(&everything, &read_tree(&restored(&lab, "without state")));
}
