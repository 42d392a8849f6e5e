//! Facts that a file system knows beyond content, owner, permissions and time: extended attributes, access control
//! lists, capabilities, hard links, pipes, sockets and devices. A backup keeps them and a restore brings them back, or
//! reports those that it cannot restore.

use crate::common;

use common::{Lab, no_fuse, noise, run, text, write};
use rustix::fs::{AtFlags, CWD, FileType, XattrFlags, makedev};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Attributes = BTreeMap<String, Vec<u8>>;

const NOBODY: u32 = 65534;

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Returns all extended attributes of the file at `path`, except those that the machine gives to every file.
fn attributes(path: &Path) -> Attributes {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = text(&names[..len]);
    let names = names.split('\0').filter(|name| !name.is_empty() && *name != "security.selinux");
    let value = |name: &str| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_owned(), value(name))).collect()
}

/// An access control list in the kernel's form (linux/posix_acl_xattr.h): the owner, one named user, the group, a mask
/// and others.
fn acl(user: u32) -> Vec<u8> {
    let undefined = u32::MAX;
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 6u16, undefined), (2, 4, user), (4, 4, undefined), (0x10, 4, undefined), (0x20, 0, undefined)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `cap_net_bind_service=ep` in the kernel's form (linux/capability.h, version 2).
fn capability() -> Vec<u8> {
    [0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn not_root() -> bool {
    let missing = !rustix::process::geteuid().is_root();
    if missing {
        eprintln!("SKIPPED: only root may set what this test is about");
    }
    missing
}

/// Makes a tree with every kind of attribute that this user may set.
fn make_source(lab: &Lab) -> PathBuf {
    let source = lab.dir("source");
    for name in ["plain", "tagged", "long", "listed", "read-only", "folder/inside", "link target"] {
        write(&source.join(name), name);
    }
    set(&source.join("tagged"), "user.mime_type", b"text/plain");
    set(&source.join("tagged"), "user.empty", b"");
    // Too long for an entry.
    set(&source.join("long"), "user.long", &noise(1, 3000));
    set(&source.join("listed"), "system.posix_acl_access", &acl(NOBODY));
    set(&source.join("read-only"), "user.note", b"written before");
    fs::set_permissions(source.join("read-only"), Permissions::from_mode(0o400)).unwrap();
    set(&source.join("folder"), "user.folder", b"folders too");
    set(&source.join("folder"), "system.posix_acl_default", &acl(NOBODY));
    fs::set_permissions(source.join("folder"), Permissions::from_mode(0o550)).unwrap();
    symlink("link target", source.join("symlink")).unwrap();
    rustix::fs::mknodat(CWD, source.join("pipe"), FileType::Fifo, 0o640.into(), 0).unwrap();
    drop(UnixListener::bind(source.join("socket")).unwrap());
    source
}

fn restore(lab: &Lab, to: &Path) -> Value {
    lab.json(args!["restore", "latest", "--to", format!("local:{}", to.display())])
}

#[track_caller]
fn assert_alike(source: &Path, back: &Path, names: &[&str]) {
    for name in names {
        let (expected, found) = (source.join(name), back.join(name));
        assert_eq!(attributes(&expected), attributes(&found), "{name}");
        let [expected, found] = [expected, found].map(|path| path.symlink_metadata().unwrap());
        assert_eq!(expected.file_type(), found.file_type(), "{name}");
        let facts = |stat: &fs::Metadata| (stat.mode(), stat.mtime(), stat.mtime_nsec(), stat.uid(), stat.rdev());
        assert_eq!(facts(&expected), facts(&found), "{name}");
    }
}

const ALL: [&str; 10] =
    ["plain", "tagged", "long", "listed", "read-only", "folder", "folder/inside", "symlink", "pipe", "socket"];

#[test]
fn attributes_lists_and_special_files_come_back() {
    let lab = Lab::new();
    let source = make_source(&lab);
    let report = lab.backup(&source, "files");
    assert_eq!((&report["skipped"], &report["warnings"]), (&json!([]), &json!([])));
    let back = lab.path("back");
    let report = restore(&lab, &back);
    assert_eq!((&report["failed"], &report["warnings"]), (&json!(0), &json!([])), "{report}");
    assert_alike(&source, &back, &ALL);
    // A second restore, when everything exists already.
    let report = restore(&lab, &back);
    assert_eq!((&report["restored"], &report["already_there"]), (&json!(0), &json!(10)), "{report}");
    lab.run(["check", "--read-data"], 0);
    // The kinds that a listing shows.
    let listed = text(&lab.run(["ls", "latest", "--json"], 0).stdout);
    let kinds = listed.lines().map(|line| serde_json::from_str(line).unwrap());
    let kinds: BTreeMap<String, Value> =
        kinds.map(|line: Value| (line["path"].as_str().unwrap().to_owned(), line["type"].clone())).collect();
    assert_eq!((&kinds["pipe"], &kinds["socket"], &kinds["plain"]), (&json!("fifo"), &json!("socket"), &json!("file")));
}

#[test]
fn what_only_root_may_set_comes_back_for_root() {
    if not_root() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    for name in ["server", "trusted"] {
        write(&source.join(name), name);
    }
    fs::set_permissions(source.join("server"), Permissions::from_mode(0o4755)).unwrap();
    lchown(source.join("server"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(source.join("server"), Permissions::from_mode(0o4755)).unwrap();
    set(&source.join("server"), "security.capability", &capability());
    symlink("server", source.join("symlink")).unwrap();
    set(&source.join("trusted"), "trusted.note", b"for administrators");
    set(&source.join("symlink"), "trusted.note", b"of the link itself");
    let device = source.join("null");
    let has_device = rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, 0o660.into(), makedev(1, 3)).is_ok();
    if has_device {
        lchown(&device, Some(0), Some(6)).unwrap();
    }
    lab.backup(&source, "files");
    let names: Vec<_> =
        ["server", "trusted", "symlink", "null"].into_iter().take(3 + usize::from(has_device)).collect();
    let back = lab.path("back");
    let report = restore(&lab, &back);
    assert_eq!((&report["failed"], &report["warnings"]), (&json!(0), &json!([])), "{report}");
    assert_alike(&source, &back, &names);

    // Another user restores the files, and is told once which attributes could not be set.
    let (program, theirs) = (lab.path("strongroom"), lab.path("theirs"));
    let built = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
    let template = lab.command(args!["restore", "latest", "--json", "--to", format!("local:{}", theirs.display())]);
    let mut command = Command::new(&program);
    command.args(template.get_args()).stdin(Stdio::null());
    for (name, value) in template.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        command.env(name, value);
    }
    common::walk(&lab.path(""), &mut |path, _| {
        if path != program && !path.starts_with(&source) && !path.starts_with(&back) {
            lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    });
    lchown(lab.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    command.current_dir(lab.path("")).uid(NOBODY).gid(NOBODY);
    let report: Value = serde_json::from_slice(&run(&mut command, 0).stdout).unwrap();
    assert_eq!((&report["failed"], &report["restored"]), (&json!(0), &json!(3)), "{report}");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("3 items lack extended attributes"), "{warnings}");
    assert_eq!(has_device, warnings.contains("1 device files were left out"), "{warnings}");
    assert_eq!(fs::metadata(theirs.join("server")).unwrap().mode() & 0o7777, 0o755, "no power over another user");
    assert!(attributes(&theirs.join("server")).is_empty());
}

#[test]
fn a_change_of_attributes_alone_is_noticed() {
    let lab = Lab::new();
    let source = make_source(&lab);
    let backup = || lab.backup(&source, "files");
    backup();
    // A second backup notes the facts, once the time stamps are old enough.
    let newest = ALL.iter().map(|name| source.join(name).symlink_metadata().unwrap().ctime()).max().unwrap();
    let age = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - newest;
    common::eventually("the time stamps are trusted", common::PATIENCE, || age() > 2);
    backup();
    let before = lab.objects();
    let report = backup();
    assert_eq!((&report["items"]["unchanged"], &report["bytes"]["added"]), (&json!(10), &json!(0)), "{report}");
    assert_eq!(lab.objects().len(), before.len() + 1, "one snapshot more and nothing else");
    // The attributes of files that were not read again are still in the snapshot.
    restore(&lab, &lab.path("back"));
    assert_alike(&source, &lab.path("back"), &ALL);

    set(&source.join("tagged"), "user.mime_type", b"text/html");
    set(&source.join("folder"), "user.folder", b"other");
    rustix::fs::lremovexattr(source.join("long"), "user.long").unwrap();
    let report = backup();
    // Folders do not count as items.
    assert_eq!((&report["items"]["changed"], &report["items"]["unchanged"]), (&json!(2), &json!(8)), "{report}");
    let differing = text(&lab.run(["diff", "latest~1", "latest"], 0).stdout);
    assert_eq!(differing, "T long\nT tagged\n");
    restore(&lab, &lab.path("back again"));
    assert_alike(&source, &lab.path("back again"), &ALL);
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// A tree of hard-linked files in several folders.
fn linked(lab: &Lab) -> PathBuf {
    let source = lab.dir("linked");
    write(&source.join("a/first"), noise(7, 100_000));
    write(&source.join("a/alone"), "alone");
    for name in ["a/second", "b/third", "z"] {
        fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        fs::hard_link(source.join("a/first"), source.join(name)).unwrap();
    }
    write(&source.join("b/other"), "other");
    fs::hard_link(source.join("b/other"), source.join("b/other too")).unwrap();
    source
}

#[test]
fn hard_links_come_back_as_such() {
    let lab = Lab::new();
    let source = linked(&lab);
    fs::set_permissions(source.join("a"), Permissions::from_mode(0o555)).unwrap();
    lab.backup(&source, "files");
    let back = lab.path("back");
    let report = restore(&lab, &back);
    assert_eq!((&report["restored"], &report["bytes"], &report["warnings"]), (&json!(7), &json!(100_010), &json!([])));
    common::assert_same_tree(&common::read_tree(&source), &common::read_tree(&back));
    let check = |back: &Path| {
        let first = inode(back.join("a/first"));
        assert!(["a/second", "b/third", "z"].iter().all(|name| inode(back.join(name)) == first));
        assert_eq!(inode(back.join("b/other")), inode(back.join("b/other too")));
        assert_eq!(fs::metadata(back.join("a/first")).unwrap().nlink(), 4);
        assert_eq!(fs::metadata(back.join("a/alone")).unwrap().nlink(), 1);
    };
    check(&back);
    // A missing name is linked to the file that exists.
    for name in ["b/third", "z", "b/other too"] {
        fs::remove_file(back.join(name)).unwrap();
    }
    assert_eq!(restore(&lab, &back)["restored"], 3);
    check(&back);
    // Everything is restored again, in place of the existing files.
    let to = format!("local:{}", back.display());
    lab.run(args!["restore", "latest", "--to", &to, "--when-exists", "overwrite"], 0);
    check(&back);
    common::assert_same_tree(&common::read_tree(&source), &common::read_tree(&back));
    // A part of the tree without the first name of the file.
    lab.run(args!["restore", "latest:b", "latest:z", "--to", format!("local:{}", lab.path("part").display())], 0);
    assert_eq!(inode(lab.path("part/b/third")), inode(lab.path("part/z")));
    assert_eq!(fs::metadata(lab.path("part/z")).unwrap().nlink(), 2);
}

#[test]
fn a_link_is_not_followed_to_what_took_its_place() {
    let lab = Lab::new();
    let source = linked(&lab);
    lab.backup(&source, "files");
    let back = lab.path("back");
    // Another file has the first name, and on the way to it is a link that leads elsewhere.
    write(&back.join("a/first"), "something else");
    let report = restore(&lab, &back);
    assert_eq!((&report["skipped"], &report["failed"]), (&json!(1), &json!(0)), "{report}");
    assert!(report["warnings"].to_string().contains("3 further names"), "{report}");
    assert_eq!(fs::read(back.join("a/first")).unwrap(), b"something else");
    for name in ["a/second", "b/third", "z"] {
        assert!(fs::read(back.join(name)).unwrap() == noise(7, 100_000), "{name}");
        assert_ne!(inode(back.join(name)), inode(back.join("a/first")));
    }
}

#[test]
fn names_of_one_file_are_read_once_and_known_by_each() {
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("0"), noise(3, 1 << 20));
    for name in 1..50 {
        fs::hard_link(source.join("0"), source.join(name.to_string())).unwrap();
    }
    let newest = fs::metadata(source.join("0")).unwrap().ctime();
    let age = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - newest;
    common::eventually("the time stamps are trusted", common::PATIENCE, || age() > 2);
    let report = lab.backup(&source, "files");
    assert_eq!(report["items"]["new"], 50);
    // A new name changes the file's times and facts, but its content is not stored again.
    fs::hard_link(source.join("0"), source.join("new")).unwrap();
    fs::remove_file(source.join("7")).unwrap();
    let report = lab.backup(&source, "files");
    assert!(report["bytes"]["added"].as_u64().unwrap() < 100_000, "{report}");
    // A file with only one name left is an ordinary file.
    for name in 1..50 {
        let _ = fs::remove_file(source.join(name.to_string()));
    }
    fs::remove_file(source.join("new")).unwrap();
    let report = lab.backup(&source, "files");
    assert_eq!((&report["items"]["deleted"], &report["items"]["changed"]), (&json!(49), &json!(1)), "{report}");
}

#[test]
fn a_mount_shows_special_files_as_empty_and_links_as_files() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = make_source(&lab);
    fs::hard_link(source.join("plain"), source.join("plain too")).unwrap();
    lab.backup(&source, "files");
    let mount = lab.mount(&["--snapshot", "latest"]);
    for name in ["pipe", "socket"] {
        let stat = fs::symlink_metadata(mount.path(name)).unwrap();
        assert!(stat.is_file() && !stat.file_type().is_fifo() && stat.len() == 0, "{name}");
        // Reading a pipe returns at once and does not wait for a writer.
        assert_eq!(fs::read(mount.path(name)).unwrap(), b"", "{name}");
    }
    for name in ["plain", "plain too"] {
        assert_eq!(fs::metadata(mount.path(name)).unwrap().nlink(), 1);
        assert_eq!(fs::read(mount.path(name)).unwrap(), b"plain");
    }
    assert_ne!(inode(mount.path("plain")), inode(mount.path("plain too")));
    mount.unmount();
}

#[test]
fn a_file_system_without_attributes_is_told_once() {
    if not_root() {
        return;
    }
    let lab = Lab::new();
    let source = make_source(&lab);
    for number in 0..20 {
        write(&source.join(format!("more/{number}")), "content");
        set(&source.join(format!("more/{number}")), "user.number", b"some");
    }
    lab.backup(&source, "files");
    // A file system without attributes, links, pipes and sockets.
    let (image, place) = (lab.path("image"), lab.dir("fat"));
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let made = Command::new("mkfs.vfat").arg(&image).output().is_ok_and(|output| output.status.success());
    let mounted = || Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place).output();
    if !made || !mounted().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no FAT file system can be made and mounted here");
        return;
    }
    let report = lab.json_with_exit(args!["restore", "latest:more", "--to", format!("local:{}", place.display())], 0);
    let _ = Command::new("umount").arg("-l").arg(&place).status();
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().starts_with("20 items lack"), "{report}");
}

#[test]
fn times_of_special_files_are_kept() {
    let lab = Lab::new();
    let source = lab.dir("source");
    let pipe = source.join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 42 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, &pipe, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    lab.backup(&source, "files");
    // An existing pipe at its path is fine. A file there is not, and stays.
    restore(&lab, &lab.path("back"));
    assert_alike(&source, &lab.path("back"), &["pipe"]);
    write(&lab.path("other/pipe"), "a file");
    let report = restore(&lab, &lab.path("other"));
    assert_eq!((&report["skipped"], &report["failed"]), (&json!(1), &json!(0)));
    assert_eq!(fs::read(lab.path("other/pipe")).unwrap(), b"a file");
}
