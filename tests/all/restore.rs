//! Restores by the real program: what comes back is what was backed up, what is there is treated as asked, and whatever
//! goes wrong is told by words and by the exit code.

use crate::common;

use common::{Lab, PATIENCE, Tree, assert_same_tree, eventually, noise, quiet, read_tree, run, text, walk, write};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Backs up a folder with a bit of everything, and returns it.
fn some_files(lab: &Lab) -> PathBuf {
    let source = lab.dir("source");
    for (name, content) in [
        ("Mail/Inbox/1.eml", "Subject: one\r\n\r\nHello\r\n".as_bytes()),
        ("Mail/Inbox/2.eml", b"Subject: two\r\n\r\nHello again\r\n"),
        ("Mail/Sent/1.eml", b"Subject: one\r\n\r\nHello yourself\r\n"),
        ("Docs/Budget.xlsx", &noise(1, 300_000)),
        ("Docs/deep/er/empty", b""),
        ("Docs/tool", b"#!/bin/sh\n"),
        ("with spaces, \u{e4}\u{1f600}\n and a line end", b"x"),
    ] {
        write(&source.join(name), content);
    }
    fs::create_dir(source.join("Docs/nothing in it")).unwrap();
    symlink("../Mail/Inbox", source.join("Docs/link")).unwrap();
    symlink("/nowhere/at all", source.join("dangling")).unwrap();
    for (name, mode) in [("Docs/tool", 0o750), ("Docs/Budget.xlsx", 0o400), ("Mail/Sent", 0o2750), ("Docs/deep", 0o500)]
    {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut paths = vec![source.clone()];
    walk(&source, &mut |path, _| paths.push(path.to_owned()));
    // From below, as nothing is written afterwards; some times lie before 1970.
    for (number, path) in paths.iter().enumerate().rev() {
        set_mtime(path, number as i64 * 100_000_000 - 300_000_000, number as i64 * 1_000_001);
    }
    lab.backup(&source, "files");
    source
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Returns the arguments of a restore of `what` to `dir`.
fn restore(what: &[&str], dir: &Path, more: &[&str]) -> Vec<OsString> {
    let mut to = OsString::from("local:");
    to.push(dir);
    let what = ["restore"].iter().chain(what).map(OsString::from);
    what.chain([OsString::from("--to"), to]).chain(more.iter().map(OsString::from)).collect()
}

/// Returns the part of `tree` under `folder`, with `folder` itself called `name`.
fn part(tree: &Tree, folder: &str, name: &str) -> Tree {
    let renamed = |path: &Vec<u8>| {
        let rest = path.strip_prefix(folder.as_bytes())?;
        (rest.is_empty() || rest[0] == b'/').then(|| [name.as_bytes(), rest].concat())
    };
    tree.iter().filter_map(|(path, node)| Some((renamed(path)?, node.clone()))).collect()
}

fn counts(report: &Value) -> [u64; 5] {
    ["restored", "already_there", "skipped", "failed", "folders"].map(|name| report[name].as_u64().unwrap())
}

fn assert_no_temporaries(dir: &Path) {
    walk(dir, &mut |path, _| {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(!name.starts_with(".strongroom-"), "{} was left behind", path.display());
    });
}

#[test]
fn a_whole_snapshot_comes_back_and_a_second_run_finds_it_there() {
    let lab = Lab::new();
    let source = some_files(&lab);
    let expected = read_tree(&source);
    let to = lab.path("new/restored");
    let output = lab.run(restore(&["latest"], &to, &[]), 0);
    let said = text(&output.stdout);
    assert!(
        said.starts_with("Restored 9 items (293 KiB) to ") && said.contains("  7 folders made, 0 items already"),
        "{said}"
    );
    assert_same_tree(&expected, &read_tree(&to));
    // As it was made for the restore, the folder itself is like the one that was backed up.
    let [was, is] = [&source, &to].map(|dir| fs::metadata(dir).unwrap());
    assert_eq!((was.mtime(), was.mtime_nsec(), was.mode()), (is.mtime(), is.mtime_nsec(), is.mode()));

    let output = lab.run(restore(&["latest"], &to, &[]), 0);
    let said = text(&output.stdout);
    assert!(said.starts_with("Restored 0 items (0 B) to ") && said.contains("9 items already there"), "{said}");
    let report = lab.json(restore(&["latest:files"], &to, &[]));
    let bytes = json!({ "restored": 0, "already_there": 9, "skipped": 0, "failed": 0, "folders": 0, "bytes": 0,
        "dry_run": false, "failures": [], "warnings": [] });
    assert_eq!(report, bytes);
    assert_same_tree(&expected, &read_tree(&to));
}

#[test]
fn folders_and_files_arrive_under_their_last_names() {
    let lab = Lab::new();
    let expected = read_tree(&some_files(&lab));
    let folder = lab.path("folder");
    assert_eq!(counts(&lab.json(restore(&["latest:Mail/Inbox"], &folder, &[]))), [2, 0, 0, 0, 1]);
    assert_same_tree(&part(&expected, "Mail/Inbox", "Inbox"), &read_tree(&folder));

    // The colon of the set and that of the path; a slash at the end is none of the name.
    let file = lab.path("file");
    assert_eq!(counts(&lab.json(restore(&["latest:files:/Docs/Budget.xlsx/"], &file, &[]))), [1, 0, 0, 0, 0]);
    assert_same_tree(&part(&expected, "Docs/Budget.xlsx", "Budget.xlsx"), &read_tree(&file));

    let several = lab.path("several");
    let what = ["latest:Docs/deep", "latest:Mail", "latest:dangling", "latest:Mail/"];
    let report = lab.json(restore(&what, &several, &[]));
    assert_eq!((counts(&report), &report["bytes"]), ([5, 0, 0, 0, 5], &84.into()));
    let mut all = part(&expected, "Docs/deep", "deep");
    all.extend(part(&expected, "Mail", "Mail"));
    all.extend(part(&expected, "dangling", "dangling"));
    assert_same_tree(&all, &read_tree(&several));

    // Relative to where the program runs.
    lab.run(["restore", "latest:Docs/tool", "--to", "local:relative"], 0);
    assert_eq!(fs::read(lab.path("relative/tool")).unwrap(), b"#!/bin/sh\n");
}

#[test]
fn several_snapshots_are_restored_in_the_order_they_are_named() {
    let lab = Lab::new();
    let source = lab.dir("source");
    for (number, names) in [["both", "old"], ["both", "new"]].iter().enumerate() {
        let _ = fs::remove_dir_all(&source);
        names.iter().for_each(|name| write(&source.join(name), format!("{name} {number}")));
        lab.backup(&source, "files");
    }
    let content = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let to = lab.path("to");
    let report = lab.json(restore(&["latest~1:old", "latest:both", "latest:new", "latest~1:both"], &to, &[]));
    // The older snapshot comes first with both of its files.
    assert_eq!(counts(&report), [3, 0, 1, 0, 0]);
    assert_eq!(["old", "new", "both"].map(|name| content(&to, name)), ["old 0", "new 1", "both 0"]);

    let dry = text(&lab.run(restore(&["latest", "latest~1"], &lab.path("dry"), &["--dry-run"]), 0).stdout);
    assert_eq!(dry.matches("From snapshot ").count(), 2, "{dry}");

    // A mistake in the last argument is told before anything is written.
    let untouched = lab.path("untouched");
    lab.run(restore(&["latest:new", "latest~1:new"], &untouched, &[]), 2);
    assert!(!untouched.exists());
}

/// A source, and a target where one name is taken by something else and one by the same.
fn half_there(lab: &Lab) -> PathBuf {
    let source = lab.dir("source");
    write(&source.join("folder/Budget.xlsx"), "from the backup");
    write(&source.join("folder/same"), "same");
    write(&source.join("folder/new"), "new");
    set_mtime(&source.join("folder/same"), 1_000_000, 1);
    lab.backup(&source, "files");
    let to = lab.dir("to");
    write(&to.join("folder/Budget.xlsx"), "mine");
    write(&to.join("folder/same"), "same");
    write(&to.join("folder/other"), "other");
    set_mtime(&to.join("folder/same"), 1_000_000, 1);
    to
}

fn contents(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(dir, &mut |path, stat| {
        if stat.is_file() {
            found.push((path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()));
        }
    });
    found.sort();
    found
}

fn assert_contents(dir: &Path, expected: &[(&str, &str)]) {
    let found = contents(dir);
    let found: Vec<_> = found.iter().map(|(name, content)| (&**name, &**content)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_there_stays_unless_somebody_asks() {
    let lab = Lab::new();
    let to = half_there(&lab);
    let output = lab.run(restore(&["latest"], &to, &[]), 0);
    let (said, remarks) = (text(&output.stdout), text(&output.stderr));
    assert!(said.contains("Restored 1 items") && said.contains("1 items already there, 1 skipped"), "{said}");
    assert!(remarks.contains("--when-exists"), "{remarks}");
    assert_contents(&to, &[("Budget.xlsx", "mine"), ("new", "new"), ("other", "other"), ("same", "same")]);
    assert_eq!(counts(&lab.json(restore(&["latest"], &to, &["--when-exists", "skip"]))), [0, 2, 1, 0, 0]);
}

#[test]
fn what_is_there_is_replaced_by_overwrite() {
    let lab = Lab::new();
    let to = half_there(&lab);
    let report = lab.json(restore(&["latest"], &to, &["--when-exists", "overwrite"]));
    assert_eq!(counts(&report), [3, 0, 0, 0, 0]);
    assert_contents(&to, &[("Budget.xlsx", "from the backup"), ("new", "new"), ("other", "other"), ("same", "same")]);
}

#[test]
fn what_is_there_is_joined_by_keep_both() {
    let lab = Lab::new();
    let to = half_there(&lab);
    let report = lab.json(restore(&["latest"], &to, &["--when-exists", "keep-both"]));
    assert_eq!(counts(&report), [2, 1, 0, 0, 0]);
    let found = contents(&to);
    let (kept, content) = &found[0];
    assert!(
        kept.starts_with("Budget (restored 20") && kept.ends_with(").xlsx") && content == "from the backup",
        "{kept}"
    );
    let rest: Vec<_> = found[1..].iter().map(|(name, content)| (&**name, &**content)).collect();
    assert_eq!(rest, [("Budget.xlsx", "mine"), ("new", "new"), ("other", "other"), ("same", "same")]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    for when_exists in ["skip", "overwrite", "keep-both"] {
        let lab = Lab::new();
        let to = half_there(&lab);
        let before = (read_tree(&to), fs::metadata(&to).unwrap().mtime());
        let more = ["--when-exists", when_exists, "--dry-run"];
        let said = text(&lab.run(restore(&["latest"], &to, &more), 0).stdout);
        assert!(said.contains("3 items (22 bytes) and 1 folders to ") && said.contains("2 names are taken"), "{said}");
        assert!(said.contains("\n  folder/Budget.xlsx\n") && said.ends_with("Nothing was written.\n"), "{said}");
        let mut dry = lab.json(restore(&["latest"], &to, &more));
        assert_eq!((read_tree(&to), fs::metadata(&to).unwrap().mtime()), before);
        // The forecast comes true.
        assert_eq!(dry.as_object_mut().unwrap().remove("conflicts"), Some(json!(["folder/Budget.xlsx"])));
        assert_eq!(std::mem::replace(&mut dry["dry_run"], json!(false)), true);
        assert_eq!(lab.json(restore(&["latest"], &to, &more[..2])), dry, "{when_exists}");

        let absent = lab.path("absent/folder");
        let dry = lab.json(restore(&["latest"], &absent, &more));
        assert_eq!((counts(&dry), &dry["bytes"], &dry["conflicts"]), ([3, 0, 0, 0, 1], &22.into(), &json!([])));
        assert!(!lab.path("absent").exists());
    }
}

/// Runs a restore that must fail with `exit`, write nothing to standard output, and name all of `words`.
#[track_caller]
fn refused(lab: &Lab, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>, exit: i32, words: &[&str]) {
    let output = lab.run(args, exit);
    let said = text(&output.stderr);
    assert_eq!(text(&output.stdout), "");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} in:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn wrong_usage_is_told_before_anything_is_written() {
    let lab = Lab::new();
    some_files(&lab);
    let to = lab.path("to");
    let words =
        ["Error: could not restore from snapshot ", "the snapshot has no \"Mail/Outbox\"", "Hint: `strongroom ls"];
    refused(&lab, restore(&["latest:Mail/Outbox"], &to, &[]), 2, &words);
    // Also beside everything, which it would be part of.
    refused(&lab, restore(&["latest", "latest:Mail/Outbox"], &to, &[]), 2, &["no \"Mail/Outbox\""]);
    refused(&lab, restore(&["latest:Docs/tool/below"], &to, &[]), 2, &["the snapshot has no"]);
    let words = ["\"Mail/Inbox/1.eml\" and \"Mail/Sent/1.eml\" would both become \"1.eml\"", "Hint: "];
    refused(&lab, restore(&["latest:Mail/Inbox/1.eml", "latest:Mail/Sent/1.eml"], &to, &[]), 2, &words);
    refused(&lab, restore(&["0123"], &to, &[]), 2, &["0123", "Hint: `strongroom snapshots`"]);
    refused(&lab, restore(&["latest"], &to, &["--when-exists", "ask"]), 2, &["skip, overwrite, keep-both"]);
    refused(&lab, restore(&[], &to, &[]), 2, &["SNAPSHOT[:PATH]"]);
    refused(&lab, ["restore", "latest"], 2, &["--to"]);
    for elsewhere in ["Local:x", "", "contoso:Sites/x", "contoso"] {
        refused(&lab, ["restore", "latest", "--to", elsewhere], 2, &["a target is `local:DIR`, `original`, or"]);
    }
    refused(&lab, ["restore", "latest", "--to", "original"], 2, &["this snapshot is not from an organisation"]);
    refused(&lab, ["restore", "latest", "--to", "contoso:Users/bob@contoso.com"], 2, &["no tenant"]);
    refused(&lab, restore(&["latest"], &to, &["--into", "x"]), 2, &["a folder of a mailbox"]);
    refused(&lab, ["restore", "latest", "--to", "/tmp/back"], 2, &["`local:/tmp/back`"]);
    refused(&lab, ["restore", "latest", "--to", "local:"], 2, &["lacks the folder"]);
    refused(&lab, ["restore", "latest", "--to", "local:~/back"], 2, &["\"local:$HOME/back\""]);
    for (own, what) in [(lab.repository().join("new"), "repository"), (lab.state(), "local state")] {
        refused(&lab, restore(&["latest"], &own, &[]), 2, &["lies in the", what]);
    }
    symlink(lab.repository(), lab.path("detour")).unwrap();
    refused(&lab, restore(&["latest"], &lab.path("detour/packs"), &[]), 2, &["lies in the repository"]);
    assert!(!to.exists() && !lab.path("~").exists() && !lab.repository().join("new").exists());

    let mut elsewhere = lab.command(restore(&["latest"], &to, &[]));
    run(elsewhere.env("STRONGROOM_REPO", lab.path("nowhere")), 10);
    run(lab.command(restore(&["latest"], &to, &[])).env("STRONGROOM_PASSWORD", "wrong"), 12);
    assert!(!to.exists());
}

#[test]
fn a_target_that_is_no_folder_is_left_alone() {
    let lab = Lab::new();
    some_files(&lab);
    let file = lab.path("file");
    write(&file, "content");
    for to in [&file, &file.join("below")] {
        let words = ["could not use the folder", "Caused by: Not a directory", "Hint: name a folder"];
        refused(&lab, restore(&["latest"], to, &[]), 1, &words);
        refused(&lab, restore(&["latest"], to, &["--dry-run"]), 1, &words);
    }
    assert_eq!(fs::read(&file).unwrap(), b"content");
}

#[test]
fn links_in_the_target_lead_nowhere() {
    let lab = Lab::new();
    let source = some_files(&lab);
    let (outside, to) = (lab.dir("outside"), lab.dir("to"));
    write(&outside.join("victim"), "untouched");
    fs::create_dir(to.join("Docs")).unwrap();
    symlink(&outside, to.join("Mail")).unwrap();
    symlink(outside.join("victim"), to.join("Docs/tool")).unwrap();
    let before = read_tree(&outside);
    let args = restore(&["latest"], &to, &["--when-exists", "overwrite"]);
    let output = lab.run(&args, 3);
    let said = text(&output.stderr);
    assert!(said.contains("failed: Mail: a symbolic link stands where the folder should be"), "{said}");
    let report = lab.json_with_exit(&args, 3);
    assert_eq!(report["failures"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["failures"][0]["path"], "Mail");
    lab.run(restore(&["latest"], &to, &["--dry-run"]), 3);
    assert_same_tree(&before, &read_tree(&outside));
    // A link in the place of a file is replaced, not written through.
    assert!(fs::symlink_metadata(to.join("Docs/tool")).unwrap().is_file());
    assert_same_tree(&part(&read_tree(&source), "Docs", "Docs"), &part(&read_tree(&to), "Docs", "Docs"));
}

#[test]
fn an_interrupted_restore_leaves_whole_files_and_goes_on() {
    let lab = Lab::new();
    let source = lab.dir("source");
    // The large one is begun first and takes seconds, although holes cost little.
    write(&source.join("0-large"), noise(0, 1 << 20));
    fs::File::options().append(true).open(source.join("0-large")).unwrap().set_len(1 << 30).unwrap();
    for number in 0..500 {
        write(&source.join(format!("folder/{number}")), number.to_string());
    }
    set_mtime(&source.join("folder"), 1_000_000, 7);
    lab.backup(&source, "files");
    let to = lab.path("to");
    let mut command = lab.command(restore(&["latest"], &to, &["--json"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Files that are still being written lie there under temporary names.
    let is_whole = |name: &std::ffi::OsStr| !name.to_string_lossy().starts_with(".strongroom-");
    let restored = |dir: &Path| {
        fs::read_dir(dir.join("folder"))
            .map_or(0, |dir| dir.filter(|e| is_whole(&e.as_ref().unwrap().file_name())).count())
    };
    eventually("it has begun", PATIENCE, || restored(&to) >= 20 || child.try_wait().unwrap().is_some());
    let interrupted = SystemTime::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(interrupted.elapsed().unwrap() < Duration::from_secs(10), "it ends within the large file");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted") && said.contains("Hint: what was restored stays"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = report["restored"].as_u64().unwrap();
    assert!((20..501).contains(&first), "{report}");
    assert!(!to.join("0-large").exists(), "no half file has its name");
    assert_no_temporaries(&to);
    let (expected, half) = (read_tree(&source), read_tree(&to));
    assert!(half.iter().all(|(path, node)| expected[path] == *node), "what is there is whole");

    let rest = lab.json(restore(&["latest"], &to, &[]));
    assert_eq!(counts(&rest), [501 - first, first, 0, 0, 0]);
    assert_same_tree(&expected, &read_tree(&to));
    assert!(fs::metadata(to.join("0-large")).unwrap().blocks() * 512 < 16 << 20, "holes stay holes");
}

/// Returns every pack of the repository, largest first.
/// Lets the program run as a user who is not root, and everything in the laboratory belong to them.
struct Ordinary<'a> {
    lab: &'a Lab,
    /// A name for the program where that user may run it.
    program: PathBuf,
}

const NOBODY: u32 = 65534;

impl<'a> Ordinary<'a> {
    fn new(lab: &'a Lab) -> Self {
        let (built, program) = (Path::new(env!("CARGO_BIN_EXE_strongroom")), lab.path("strongroom"));
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        Self { lab, program }
    }

    #[track_caller]
    fn json(&self, args: impl IntoIterator<Item = OsString>) -> Value {
        let template = self.lab.command(args);
        let mut command = Command::new(&self.program);
        command.args(template.get_args()).arg("--json").stdin(Stdio::null());
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        walk(&self.lab.path(""), &mut |path, _| {
            if path != self.program {
                lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        });
        lchown(self.lab.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
        command.current_dir(self.lab.path("")).uid(NOBODY).gid(NOBODY);
        serde_json::from_slice(&run(&mut command, 0).stdout).unwrap()
    }
}

#[test]
fn regression_an_interrupted_restore_could_not_go_on_in_read_only_folders() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root, to read everything and to run as another user");
        return;
    }
    let lab = Lab::new();
    let ordinary = Ordinary::new(&lab);
    let (source, back) = (lab.path("source"), lab.path("back"));
    let folders = [("", 0o755), ("read-only", 0o555), ("read-only/deep", 0o500), ("closed", 0o000), ("dark", 0o2311)];
    for (folder, _) in folders {
        for number in 0..10 {
            write(&source.join(folder).join(number.to_string()), format!("{folder} {number}"));
        }
    }
    // Only then does it belong to the user, who gives the permissions.
    ordinary.json(args!["snapshots"]);
    for (folder, mode) in folders.iter().rev() {
        fs::set_permissions(source.join(folder), fs::Permissions::from_mode(*mode)).unwrap();
        set_mtime(&source.join(folder), 1_500_000_000, 5);
    }
    // As root, who reads everything.
    lab.backup(&source, "files");
    let again = || ordinary.json(restore(&["latest"], &back, &[]));
    assert_eq!(counts(&again()), [50, 0, 0, 0, 4]);
    let whole = read_tree(&back);
    // What is there after a stop half way: some are missing, and their folders have their permissions already.
    let root = fs::metadata(&back).unwrap().permissions();
    for (folder, mode) in folders {
        let folder = back.join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        for number in 0..7 {
            fs::remove_file(folder.join(number.to_string())).unwrap();
        }
        set_mtime(&folder, 1_500_000_000, 5);
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    }
    // The target itself, too.
    fs::set_permissions(&back, fs::Permissions::from_mode(0o555)).unwrap();
    let report = again();
    assert_eq!(counts(&report), [35, 15, 0, 0, 0], "{report}");
    assert_eq!(fs::metadata(&back).unwrap().mode() & 0o7777, 0o555);
    fs::set_permissions(&back, root).unwrap();
    assert_same_tree(&whole, &read_tree(&back));
    assert_eq!(counts(&again()), [0, 50, 0, 0, 0]);
}

fn packs(lab: &Lab) -> Vec<PathBuf> {
    let mut packs: Vec<_> = lab.objects().into_iter().filter(|(name, _)| name.starts_with("packs/")).collect();
    packs.sort_by_key(|(_, len)| std::cmp::Reverse(*len));
    packs.into_iter().map(|(name, _)| lab.repository().join(name)).collect()
}

#[test]
fn damage_costs_what_lies_there_and_nothing_else() {
    let lab = Lab::new();
    let source = lab.dir("source");
    for number in 0..6 {
        write(&source.join(format!("folder/{number}.bin")), noise(number, 3 << 20));
    }
    lab.backup(&source, "files");
    let pack = packs(&lab).remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();

    let (to, json_to) = (lab.path("to"), lab.path("json"));
    let output = lab.run(restore(&["latest"], &to, &[]), 3);
    let report = lab.json_with_exit(restore(&["latest"], &json_to, &[]), 3);
    let failures = report["failures"].as_array().unwrap();
    assert!(!failures.is_empty() && failures.len() <= 2, "{report}");
    assert_eq!(counts(&report), [6 - failures.len() as u64, 0, 0, failures.len() as u64, 1]);
    let mut expected = read_tree(&source);
    let said = text(&output.stderr);
    for failure in failures {
        let path = failure["path"].as_str().unwrap();
        let line = format!("failed: {path}: {}\n", failure["error"].as_str().unwrap());
        assert_eq!(said.matches(&line).count(), 1, "{said}");
        expected.remove(path.as_bytes()).expect("a file of the source");
    }
    for dir in [&to, &json_to] {
        assert_same_tree(&expected, &read_tree(dir));
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_is_damage() {
    let lab = Lab::new();
    some_files(&lab);
    packs(&lab).iter().for_each(|pack| fs::remove_file(pack).unwrap());
    let to = lab.path("to");
    for what in ["latest", "latest:Mail"] {
        let words = ["could not read the snapshot", "Hint: `strongroom check --read-data`"];
        refused(&lab, restore(&[what], &to, &[]), 13, &words);
        refused(&lab, restore(&[what], &to, &["--dry-run"]), 13, &words);
    }
    assert!(!to.exists());
}

/// A small file system, as long as it lives.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_target_ends_the_run_and_keeps_what_is_done() {
    let lab = Lab::new();
    let at = lab.dir("small");
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("none", &at, "tmpfs", flags, Some(c"size=2m")) {
        eprintln!("SKIPPED: no file system can be mounted here ({error})");
        return;
    }
    let small = Small(at.clone());
    let source = lab.dir("source");
    for number in 0..16 {
        write(&source.join(format!("{number:02}")), noise(number, 300_000));
    }
    lab.backup(&source, "files");
    let to = small.0.join("to");
    let dry = text(&lab.run(restore(&["latest"], &to, &["--dry-run"]), 0).stdout);
    assert!(dry.contains("the target has room for 2097152 bytes only"), "{dry}");
    let output = lab.run(restore(&["latest"], &to, &["--json"]), 1);
    let said = text(&output.stderr);
    assert!(said.contains("the target takes nothing more") && said.contains("Hint: what was restored stays"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = report["restored"].as_u64().unwrap();
    assert!((3..8).contains(&first), "{report}");
    let (expected, found) = (read_tree(&source), read_tree(&to));
    assert_eq!(found.len() as u64, first);
    assert!(found.iter().all(|(path, node)| expected[path] == *node), "what is there is whole");

    rustix::mount::mount_remount(&at, flags, c"size=20m").unwrap();
    let rest = lab.json(restore(&["latest"], &to, &[]));
    assert_eq!(counts(&rest), [16 - first, first, 0, 0, 0]);
    assert_same_tree(&expected, &read_tree(&to));
}

#[test]
fn quiet_is_quiet_and_the_help_has_examples() {
    let lab = Lab::new();
    let to = half_there(&lab);
    quiet(lab.command(restore(&["latest"], &to, &["--quiet"])).stdin(Stdio::null()));
    let help =
        text(&Command::new(env!("CARGO_BIN_EXE_strongroom")).args(["restore", "--help"]).output().unwrap().stdout);
    for word in ["--when-exists", "keep-both", "[default: skip]", "Examples:", "Exit code 3", "--dry-run"] {
        assert!(help.contains(word), "{word} in:\n{help}");
    }
}
