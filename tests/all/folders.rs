//! Backups of folders: what is left out, several sources, and what the report says about them.

use crate::common;

use common::{Lab, PATIENCE, eventually, fails, no_fuse, run, text, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

/// Returns the paths of a snapshot in order. Folders end with a slash.
fn paths(lab: &Lab, snapshot: &str) -> Vec<String> {
    let listed = text(&lab.run(["ls", "-R", snapshot, "--json"], 0).stdout);
    let path = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let slash = if entry["type"] == "directory" { "/" } else { "" };
        format!("{}{slash}", entry["path"].as_str().unwrap())
    };
    listed.lines().map(path).collect()
}

#[test]
fn what_is_excluded_stays_out_of_the_snapshot() {
    let lab = Lab::new();
    let home = lab.path("home");
    for path in ["a.tmp", "b.txt", "sub/a.tmp", "sub/keep.tmp", "cache/x", "sub/cache/y", "logs/old", "marked/x"] {
        write(&home.join(path), path);
    }
    write(&home.join("marked/.nobackup"), "");
    write(&home.join("sub/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n");
    write(&lab.path("patterns"), "# what nobody needs\n*.tmp\n\nlogs/\n");
    let absolute = home.join("cache");
    let report = lab.json(args![
        "backup",
        "--files",
        &home,
        "--exclude-file",
        lab.path("patterns"),
        "--exclude",
        "!keep.tmp",
        "--exclude",
        &absolute,
        "--exclude-caches",
        "--exclude-if-present",
        ".nobackup"
    ]);
    let expected =
        ["b.txt", "marked/", "marked/.nobackup", "sub/", "sub/cache/", "sub/cache/CACHEDIR.TAG", "sub/keep.tmp"];
    assert_eq!(paths(&lab, "latest"), expected);
    let skipped: Vec<_> = report["skipped"].as_array().unwrap().iter().map(|one| one["path"].clone()).collect();
    assert_eq!(skipped, ["marked", "sub/cache"]);
    // Files that were backed up before and are excluded now are not in the new snapshot.
    lab.run(args!["backup", "--files", &home, "--exclude", "*"], 0);
    assert_eq!(paths(&lab, "latest"), Vec::<String>::new());
}

#[test]
fn wrong_exclusions_are_told_before_anything_is_done() {
    let lab = Lab::new();
    let home = lab.dir("home");
    let refused = |more: &[&str], words: &[&str]| {
        let mut command = lab.command(args!["backup", "--files", &home]);
        // The error comes before the password is asked for.
        let said = fails(command.args(more).env_remove("STRONGROOM_PASSWORD"), 2);
        assert!(words.iter().all(|word| said.contains(word)), "{more:?}: {said}");
    };
    refused(&["--exclude", "a[b"], &["`a[b`", "]"]);
    refused(&["--exclude", home.to_str().unwrap()], &["all of a source"]);
    refused(&["--exclude-if-present", "a/b"], &["a/b", "name"]);
    refused(&["--files", "home", "--as", "x"], &["home is given twice"]);
    refused(&["--files", "elsewhere"], &["--as NAME"]);
    lab.run(["backup", "--all", "--exclude", "x"], 2);
    let pipe = lab.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for file in [lab.path("no such file"), pipe] {
        let said = fails(&mut lab.command(args!["backup", "--files", &home, "--exclude-file", &file]), 1);
        assert!(said.contains("could not read the patterns"), "{said}");
    }
    assert_eq!(lab.json(["snapshots"]), json!([]));
}

#[test]
fn several_folders_make_one_snapshot() {
    let lab = Lab::new();
    write(&lab.path("one/data/a"), "a");
    write(&lab.path("two/data/b"), "b");
    write(&lab.path("notes/c"), "c");
    let sources = ["--files", "one/data", "--files", "two/data", "--files", "notes"];
    let backup = |exit| {
        let command = ["backup", "--as", "several"].iter().chain(&sources);
        lab.json_with_exit(command, exit)
    };
    assert_eq!(backup(0)["items"]["new"], 3);
    let expected = ["data/", "data/a", "data (2)/", "data (2)/b", "notes/", "notes/c"];
    assert_eq!(paths(&lab, "latest"), expected);
    write(&lab.path("notes/c"), "changed");
    let report = backup(0);
    assert_eq!((&report["items"]["changed"], &report["items"]["unchanged"]), (&json!(1), &json!(2)));
    // A folder may be missing, for example because its disk is not mounted. Then it stays as in the snapshot before.
    fs::rename(lab.path("two/data"), lab.path("away")).unwrap();
    let report = backup(3);
    assert_eq!(report["failures"][0]["path"], "data (2)");
    assert_eq!((&report["items"]["unchanged"], &report["items"]["deleted"]), (&json!(3), &json!(0)));
    assert_eq!(paths(&lab, "latest"), expected);
    fs::rename(lab.path("away"), lab.path("two/data")).unwrap();
    assert_eq!(backup(0)["items"]["unchanged"], 3);
    lab.run(args!["restore", "latest:data (2)", "--to", format!("local:{}", lab.path("back").display())], 0);
    assert_eq!(fs::read(lab.path("back/data (2)/b")).unwrap(), b"b");
}

#[test]
fn a_link_as_source_is_named_after_the_path_given() {
    let lab = Lab::new();
    write(&lab.path("volumes/1234/file"), "content");
    symlink("volumes/1234", lab.path("home")).unwrap();
    for (path, set) in [("home", "home"), ("home/", "home"), ("volumes/1234", "1234"), ("volumes/..", "")] {
        let report = lab.json(["backup", "--files", path]);
        let expected =
            if set.is_empty() { lab.path("").file_name().unwrap().to_str().unwrap().to_owned() } else { set.into() };
        assert_eq!(report["set"], expected, "{path}");
    }
    lab.run(["backup", "--files", "home", "--files", "volumes", "--as", "both"], 0);
    assert_eq!(paths(&lab, "latest"), ["home/", "home/file", "volumes/", "volumes/1234/", "volumes/1234/file"]);
}

#[test]
fn a_backup_keeps_out_of_strongrooms_own_mounts() {
    if no_fuse() {
        return;
    }
    let (lab, home) = Lab::with_file("content");
    let mounted = lab.dir("home/mounted");
    lab.run(args!["mount", &mounted], 0);
    let mount = common::Mount::at(&mounted);
    let report = lab.backup(&home, "home");
    assert_eq!(report["skipped"], json!([{ "path": "mounted", "reason": "a mount of Strongroom" }]));
    assert_eq!(paths(&lab, "latest"), ["file"]);
    // A mount that is itself named is backed up.
    lab.backup(&mounted.join("latest"), "copy");
    assert_eq!(paths(&lab, "latest:copy"), ["file"]);
    mount.unmount();
}

#[test]
fn one_file_system_leaves_the_place_of_another() {
    if no_fuse() {
        return;
    }
    // A mount of another repository is left out anyway. So this test needs another file system, which only root can
    // mount.
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may mount a tmpfs");
        return;
    }
    let lab = Lab::new();
    write(&lab.path("home/file"), "content");
    let place = lab.dir("home/other");
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&place).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    }
    let _unmount = Unmount(&place);
    write(&place.join("inside"), "content");
    let home = lab.path("home");
    lab.backup(&home, "home");
    assert_eq!(paths(&lab, "latest"), ["file", "other/", "other/inside"]);
    let report = lab.json(args!["backup", "--files", &home, "--one-file-system"]);
    assert_eq!(report["skipped"], json!([{ "path": "other", "reason": "another file system" }]));
    assert_eq!(paths(&lab, "latest"), ["file", "other/"]);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_report_tells_what_changed_while_it_was_read() {
    let lab = Lab::new();
    let home = lab.dir("home");
    write(&home.join("still"), "content");
    let path = home.join("moving");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut command = lab.command(args!["backup", "--files", &home, "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The times of the file change all the while.
    let touched = File::options().write(true).open(&path).unwrap();
    eventually("the backup ends", PATIENCE, || {
        for _ in 0..100 {
            touched.set_modified(std::time::SystemTime::now()).unwrap();
        }
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["changed_while_read"], json!(["moving"]));
    assert!(text(&output.stderr).contains("changed while it was read, three times: moving"));
    let quiet = run(&mut lab.command(args!["backup", "--files", &home, "--json"]), 0);
    let report: Value = serde_json::from_slice(&quiet.stdout).unwrap();
    let keys: BTreeSet<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(keys.is_superset(&["skipped", "warnings", "changed_while_read"].into()), "{keys:?}");
    assert_eq!(report["changed_while_read"], json!([]));
}

#[test]
fn regression_a_deep_tree_overflowed_the_stack() {
    use rustix::fs::{Mode, OFlags};
    let lab = Lab::new();
    let source = lab.dir("source");
    let deepest = || {
        let open = |folder: &std::os::fd::OwnedFd| {
            rustix::fs::openat(folder, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        let mut folder = rustix::fs::open(&source, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..2040 {
            let _ = rustix::fs::mkdirat(&folder, "d", Mode::RWXU);
            folder = open(&folder);
        }
        folder
    };
    let change = |text: &[u8]| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = rustix::fs::openat(deepest(), "file", flags, Mode::RWXU).unwrap();
        rustix::io::write(&file, text).unwrap();
    };
    change(b"one");
    lab.backup(&source, "deep");
    change(b"other");
    assert_eq!(lab.backup(&source, "deep")["items"]["changed"], 1);
    assert_eq!(text(&lab.run(["diff", "latest~1", "latest"], 0).stdout).lines().count(), 1);
    lab.run(["check", "--read-data"], 0);
    assert_eq!(text(&lab.run(["ls", "-R", "latest"], 0).stdout).lines().count(), 2041);
    lab.run(args!["restore", "latest", "--to", format!("local:{}", lab.path("back").display())], 0);
    // `fs::remove_dir_all` would keep a folder open for each level.
    common::tool("rm", args!["-rf", &source, lab.path("back")]);
}
