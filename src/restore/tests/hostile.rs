//! Hostile repositories and targets: nothing is written outside the target, and nobody gets more permissions.

use super::*;

#[test]
fn folders_and_files_never_take_each_others_place() {
    for when_exists in [WhenExists::Skip, WhenExists::Overwrite, WhenExists::KeepBoth] {
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        write(from.path().join("folder/in it"), "x");
        write(from.path().join("file"), "file");
        symlink("t", from.path().join("link")).unwrap();
        write(from.path().join("last"), "last");
        write(to.path().join("folder"), "a file");
        fs::create_dir_all(to.path().join("file/empty")).unwrap();
        fs::create_dir_all(to.path().join("link")).unwrap();
        let fixture = Fixture::new();
        let root = fixture.back_up(from.path()).root;
        let report = fixture.restore(&root, to.path(), when_exists);
        assert_eq!(fs::read(to.path().join("folder")).unwrap(), b"a file");
        assert!(to.path().join("file/empty").is_dir() && to.path().join("link").is_dir());
        let failed: Vec<_> = report.failures.iter().map(|failure| failure.path.as_slice()).collect();
        if when_exists == WhenExists::KeepBoth {
            assert_eq!((report.restored, report.failed, failed.as_slice()), (3, 2, [b"folder".as_slice()].as_slice()));
        } else {
            // A folder counts with everything in it.
            assert_eq!((report.restored, report.failed), (1, 4));
            assert_eq!(failed, [b"file".as_slice(), b"folder", b"link"]);
        }
    }
}

#[test]
fn links_in_the_target_are_never_followed() {
    for when_exists in [WhenExists::Skip, WhenExists::Overwrite, WhenExists::KeepBoth] {
        let (from, to, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
        write(from.path().join("folder/below/file"), "new");
        write(from.path().join("file"), "new");
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        write(outside.path().join("victim"), "old");
        fs::create_dir_all(to.path().join("folder")).unwrap();
        symlink(outside.path(), to.path().join("folder/below")).unwrap();
        symlink(outside.path().join("victim"), to.path().join("file")).unwrap();
        symlink(outside.path(), to.path().join("link")).unwrap();
        let before = (scan(outside.path()), fs::metadata(outside.path()).unwrap().mtime_nsec());
        let fixture = Fixture::new();
        let root = fixture.back_up(from.path()).root;
        let report = fixture.restore(&root, to.path(), when_exists);
        assert_eq!((scan(outside.path()), fs::metadata(outside.path()).unwrap().mtime_nsec()), before);
        let failed: Vec<_> = report.failures.iter().map(|failure| failure.path.as_slice()).collect();
        assert_eq!(failed, [b"folder/below".as_slice()]);
        assert!(report.failures[0].error.contains("is not followed"));
        assert!(to.path().join("folder/below").is_symlink());
        match when_exists {
            WhenExists::Skip => assert_eq!(report.skipped, 2),
            WhenExists::KeepBoth => assert_eq!(report.restored, 2),
            WhenExists::Overwrite => {
                // The links were replaced, not their targets.
                assert_eq!(fs::read(to.path().join("file")).unwrap(), b"new");
                assert!(!to.path().join("file").is_symlink());
                assert_eq!(fs::read_link(to.path().join("link")).unwrap().as_os_str(), "/etc/passwd");
            }
        }
    }
}

#[test]
fn the_target_itself_may_be_a_link() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(from.path().join("file"), "x");
    fs::create_dir(to.path().join("real")).unwrap();
    symlink("real", to.path().join("chosen")).unwrap();
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    assert_eq!(fixture.restore(&root, &to.path().join("chosen"), WhenExists::Skip).restored, 1);
    assert_eq!(fs::read(to.path().join("real/file")).unwrap(), b"x");
}

#[test]
fn illegal_names_are_refused_before_anything_is_written() {
    let long = vec![b'n'; 256];
    for name in [b"..".as_slice(), b".", b"", b"a/b", b"/etc", b"../x", b"nul\0", &long] {
        let bytes = Entry::new(name, EntryKind::Symlink(b"t".as_slice().into()), Timestamp::default()).encode();
        let refused = Node::decode(&node::leaf(1, &bytes)).unwrap_err();
        assert!(matches!(refused, NodeError::Entry(crate::format::entry::EntryError::Name)), "{refused:?}");

        let outer = TempDir::new().unwrap();
        let dir = outer.path().join("a/target");
        let fixture = Fixture::new();
        let root = fixture.build(|builder| {
            let evil = builder.file(name, b"evil");
            let folder = builder.folder(b"inner", Vec::new());
            let child = builder.leaf(&[evil], name);
            let evil_folder =
                Entry { kind: EntryKind::Directory(Directory { root: child.node, sums: child.sums }), ..folder };
            let good = builder.file(b"good", b"good");
            builder.tree(vec![good, evil_folder])
        });
        let report = fixture.restore(&root, &dir, WhenExists::Overwrite);
        assert_eq!((report.restored, report.failed), (1, 1), "{:?}", report.failures);
        assert!(report.failures[0].error.contains("illegal name"), "{}", report.failures[0].error);
        let names: Vec<_> = scan(outer.path()).into_keys().map(|name| printable(&name)).collect();
        assert_eq!(names, ["a", "a/target", "a/target/good", "a/target/inner"]);
    }
}

#[test]
fn a_name_given_twice_leads_nowhere_else() {
    for when_exists in [WhenExists::Skip, WhenExists::Overwrite, WhenExists::KeepBoth] {
        for link_first in [true, false] {
            let (to, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            let fixture = Fixture::new();
            let root = fixture.build(|builder| {
                let link = builder.link(b"x", outside.path().as_os_str().as_bytes());
                let file = builder.file(b"file", b"evil");
                let folder = builder.folder(b"x", vec![file]);
                let (first, second) = if link_first { (link, folder) } else { (folder, link) };
                // One leaf with both entries is refused. Two leaves with one entry each are in order.
                let leaf = node::leaf(2, &[first.encode(), second.encode()].concat());
                assert_eq!(Node::decode(&leaf).unwrap_err(), NodeError::Order);
                let children = [builder.leaf(&[first], b"x"), builder.leaf(&[second], b"y")];
                builder.inner(&children)
            });
            let report = fixture.restore(&root, to.path(), when_exists);
            assert_eq!(scan(outside.path()), BTreeMap::new());
            assert!(report.failures.iter().all(|failure| failure.path == b"x"), "{:?}", report.failures);
            // The entry that came first stays. A link may be restored beside the folder under another name.
            let (folder, link) = (report.folders, report.restored - report.folders);
            match when_exists {
                WhenExists::KeepBoth => assert!(folder == 1 && link == 1 || report.failed == 2, "{report:?}"),
                _ => assert!(folder + link == 1 && report.failed > 0, "{report:?}"),
            }
        }
    }
}

#[test]
fn files_given_twice_do_not_replace_each_other_unasked() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let root = fixture.build(|builder| {
        let (one, two) = (builder.file(b"x", b"one"), builder.file(b"x", b"two"));
        let children = [builder.leaf(&[one], b"x"), builder.leaf(&[two], b"y")];
        builder.inner(&children)
    });
    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!((report.restored, report.skipped, report.failed), (1, 1, 0));
}

#[test]
fn links_that_no_system_takes_are_told_beforehand() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let long = vec![b't'; 4096];
    let root = fixture.build(|builder| {
        let links = [(b"a", b"".as_slice()), (b"b", b"x\0y"), (b"c", &long), (b"d", &long[..4095])];
        let links = links.map(|(name, target)| builder.link(name, target));
        builder.tree(links.into())
    });
    let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
    let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
    assert_eq!((plan.survey().impossible, plan.survey().items), (3, 4));
    let report = plan.execute(&Progress::default(), &cancel).unwrap();
    assert_eq!((report.restored, report.failed), (1, 3));
}

#[test]
fn permissions_without_an_owner_give_nobody_more() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let root = fixture.build(|builder| {
        let mut unowned = builder.file(b"a", b"#!/bin/sh");
        unowned.mode = Some(0o6755);
        let mut nobodys = builder.file(b"b", b"#!/bin/sh");
        (nobodys.mode, nobodys.owner) = (Some(0o4755), Some((u32::MAX, u32::MAX)));
        let mut folder = builder.folder(b"c", Vec::new());
        folder.mode = Some(0o3777);
        let plain = builder.file(b"d", b"");
        builder.tree(vec![unowned, nobodys, folder, plain])
    });
    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!(report.failures, []);
    let modes: Vec<_> = scan(to.path()).into_values().map(|seen| seen.mode).collect();
    assert_eq!(modes[..3], [0o755, 0o755, 0o1777]);
    // The umask decides.
    assert!(modes[3] & 0o600 == 0o600 && modes[3] & 0o111 == 0);
}

#[test]
fn what_claims_to_be_another_name_of_a_file_is_one_only_if_it_is_equal() {
    use crate::format::entry::system::{Link, SystemFacts};
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let linked = |mut entry: Entry| {
        let link = Some(Link { file_system: 0, inode: 5 });
        entry.set_system(SystemFacts { link, ..SystemFacts::default() });
        entry
    };
    let root = fixture.build(|builder| {
        let mut entries = vec![
            linked(builder.file(b"a", b"one")),
            linked(builder.file(b"b", b"one")),
            linked(builder.file(b"c", b"other")),
            linked(builder.file(b"d", b"one")),
        ];
        // The same bytes with other permissions are a different file.
        entries[3].mode = Some(0o640);
        builder.tree(entries)
    });
    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!((report.restored, report.bytes, report.failures), (4, 11, vec![]));
    assert_eq!(report.remarks, ["2 further names of hard-linked files became files of their own"]);
    let inode = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
    assert!(inode("a") == inode("b") && inode("a") != inode("c") && inode("a") != inode("d"));
    assert_eq!(fs::read(to.path().join("c")).unwrap(), b"other");
    assert_eq!(fs::metadata(to.path().join("d")).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn devices_without_an_owner_and_damaged_attributes_give_nobody_more() {
    use crate::format::entry::system::{Attribute, Special, SystemFacts};
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let root = fixture.build(|builder| {
        let mut device = Entry::new(b"disk", EntryKind::File(Content::default()), Timestamp::default());
        device.mode = Some(0o666);
        let special = Some(Special::BlockDevice { major: 8, minor: 0 });
        device.set_system(SystemFacts { special, ..SystemFacts::default() });
        let mut server = builder.file(b"server", b"#!/bin/sh");
        let attribute = |name: &str, value: &[u8]| Attribute { name: name.as_bytes().into(), value: value.into() };
        let capability =
            attribute("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let attributes = vec![capability, attribute("user.note", b"kept")];
        server.set_system(SystemFacts { attributes, ..SystemFacts::default() });
        // The content for long attributes is not a list of attributes.
        let mut wrong = builder.file(b"wrong", b"content");
        let Entry { kind: EntryKind::File(content), .. } = builder.file(b"x", b"no attributes") else { unreachable!() };
        wrong.set_attributes_content(Some(content));
        builder.tree(vec![device, server, wrong])
    });
    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!((report.restored, report.failures), (2, vec![]));
    assert!(
        report.remarks.iter().any(|remark| remark.starts_with("1 device files were left out")),
        "{:?}",
        report.remarks
    );
    assert!(report.remarks.iter().any(|remark| remark.starts_with("2 items lack")), "{:?}", report.remarks);
    assert!(!to.path().join("disk").exists());
    let server = to.path().join("server");
    let get = |name: &str| rustix::fs::getxattr(&server, name, [0; 64].as_mut_slice());
    assert!(get("security.capability").is_err() && get("user.note") == Ok(4));
    assert_eq!(fs::read(to.path().join("wrong")).unwrap(), b"content");
}

#[test]
fn owners_come_back_where_we_may_set_them() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may give files away");
        return;
    }
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(from.path().join("folder/file"), "x");
    symlink("t", from.path().join("link")).unwrap();
    for (name, id) in [("folder", 1001), ("folder/file", 1002), ("link", 1003)] {
        std::os::unix::fs::lchown(from.path().join(name), Some(id), Some(id + 10)).unwrap();
    }
    fs::set_permissions(from.path().join("folder/file"), fs::Permissions::from_mode(0o6711)).unwrap();
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    assert_eq!(fixture.restore(&root, to.path(), WhenExists::Skip).failures, []);
    for (name, id) in [("folder", 1001), ("folder/file", 1002), ("link", 1003)] {
        let stat = fs::symlink_metadata(to.path().join(name)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (id, id + 10), "{name}");
    }
    assert_eq!(fs::metadata(to.path().join("folder/file")).unwrap().mode() & 0o7777, 0o6711);
}
