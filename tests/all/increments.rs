//! What a further backup costs and keeps: little for small changes, nothing for none. And what it does with items that
//! cannot be read, with items that go away, and when it is interrupted.

mod mailboxes;
mod unchanged;

use crate::common;

use common::{Lab, PATIENCE, assert_same_tree, eventually, no_fuse, noise, read_tree, run, spam_assassin, text, write};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

/// Returns the counts of a report that are not 0.
fn counts(report: &Value) -> Value {
    report["items"].as_object().unwrap().iter().filter(|(_, count)| **count != 0).map(pair).collect()
}

fn pair((name, count): (&String, &Value)) -> (String, Value) {
    (name.clone(), count.clone())
}

fn added(report: &Value) -> u64 {
    report["bytes"]["added"].as_u64().unwrap()
}

/// Returns by how many bytes the repository grew.
fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, size)| size).sum()
}

/// Runs a backup that must add its snapshot and no other object.
#[track_caller]
fn adds_only_its_snapshot(lab: &Lab, backup: impl FnOnce() -> Value) -> Value {
    let before = lab.objects();
    let report = backup();
    let after = lab.objects();
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.len() == 1 && new[0].starts_with("snapshots/"), "{new:?}");
    assert!(before.keys().all(|name| after.contains_key(name)), "nothing is gone");
    assert_eq!((added(&report), &report["bytes"]["stored"]), (0, &0.into()));
    report
}

fn set_mtime(path: &Path, time: SystemTime) {
    File::options().read(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// Waits until the files written so far are old enough for their time stamps to be trusted.
fn let_stamps_age(newest: &Path) {
    let stat = newest.symlink_metadata().unwrap();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    eventually("the time stamps are trusted", PATIENCE, || now() > stat.ctime() + 2);
}

#[test]
fn small_changes_in_a_large_folder() {
    const MAILS: usize = 20_000;
    const GROWTH_BYTES_MAX: u64 = 256 << 10;
    let lab = Lab::new();
    let source = lab.dir("source");
    let mail = |number: usize| {
        let body = blake3::hash(&number.to_le_bytes()).to_hex().repeat(12);
        format!("From: {number}@contoso.com\r\nTo: alice@contoso.com\r\nSubject: Mail {number}\r\n\r\n{body}\r\n")
    };
    let path = |number: usize| source.join(format!("Inbox/{number:05}.eml"));
    for number in 0..MAILS {
        write(&path(number), mail(number));
    }
    write(&source.join("readme.txt"), "This is Alice's mail.\n");
    let backup = || lab.backup(&source, "mail");
    let first = backup();
    assert_eq!(counts(&first), json!({ "new": MAILS + 1 }));
    assert!(added(&first) > 16_000_000);

    let unchanged = adds_only_its_snapshot(&lab, backup);
    assert_eq!(counts(&unchanged), json!({ "unchanged": MAILS + 1 }));
    assert_eq!(unchanged["bytes"]["source"], first["bytes"]["source"]);
    // Once more, now that the time stamps are trusted.
    let_stamps_age(&source.join("readme.txt"));
    adds_only_its_snapshot(&lab, backup);
    assert_eq!(counts(&adds_only_its_snapshot(&lab, backup)), json!({ "unchanged": MAILS + 1 }));

    #[track_caller]
    fn small(lab: &Lab, expected: Value, backup: impl Fn() -> Value) {
        let before = lab.objects();
        assert_eq!(counts(&backup()), expected);
        let growth = growth(&before, &lab.objects());
        eprintln!("{expected}: {growth} bytes");
        assert!(growth < GROWTH_BYTES_MAX, "the repository grew by {growth} bytes");
    }
    // One byte changes.
    File::options().write(true).open(path(12_345)).unwrap().write_all_at(b"X", 200).unwrap();
    small(&lab, json!({ "changed": 1, "unchanged": MAILS }), backup);
    // Only a time stamp changes.
    set_mtime(&path(777), SystemTime::UNIX_EPOCH);
    small(&lab, json!({ "changed": 1, "unchanged": MAILS }), backup);
    // One file is added, one removed, one renamed.
    write(&path(MAILS), mail(MAILS));
    fs::remove_file(path(0)).unwrap();
    fs::rename(path(1), path(MAILS + 1)).unwrap();
    small(&lab, json!({ "new": 1, "deleted": 1, "moved": 1, "unchanged": MAILS - 1 }), backup);
    // The whole folder is renamed.
    fs::rename(source.join("Inbox"), source.join("Archive")).unwrap();
    small(&lab, json!({ "moved": MAILS, "unchanged": 1 }), backup);
    // Everything in it is deleted.
    let archive = read_tree(&source);
    fs::remove_dir_all(source.join("Archive")).unwrap();
    small(&lab, json!({ "deleted": MAILS, "unchanged": 1 }), backup);

    // The local state is a cache: deleting it loses nothing.
    fs::remove_dir_all(lab.state()).unwrap();
    assert_eq!(counts(&adds_only_its_snapshot(&lab, backup)), json!({ "unchanged": 1 }));
    let listed = lab.run(["ls", "-R", "latest~2:Archive"], 0);
    assert_eq!(text(&listed.stdout).lines().count(), archive.len() - 2, "all but the folder itself and the readme");
    lab.run(["check", "--read-data"], 0);
}

#[test]
fn deleted_local_state_costs_no_storage() {
    let (lab, source) = (Lab::new(), spam_assassin());
    lab.backup(&source, "mail");
    fs::remove_dir_all(lab.state()).unwrap();
    let report = adds_only_its_snapshot(&lab, || lab.backup(&source, "mail"));
    assert_eq!(counts(&report), json!({ "unchanged": 6046 }));
    // Another machine, with another name of the set.
    fs::remove_dir_all(lab.state()).unwrap();
    let report = adds_only_its_snapshot(&lab, || lab.backup(&source, "mail of bob"));
    assert_eq!(counts(&report), json!({ "new": 6046 }));
}

/// Watches which files of a folder are opened.
struct Watch(OwnedFd);

impl Watch {
    fn new(folder: &Path) -> Watch {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&fd, folder, inotify::WatchFlags::OPEN).unwrap();
        Watch(fd)
    }

    /// Returns the names of the files opened since the last call.
    fn opened(&self) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut names = BTreeSet::new();
        while let Ok(event) = events.next() {
            // An event of the folder itself has no name.
            names.extend(event.file_name().map(|name| text(name.to_bytes())));
        }
        names
    }
}

#[test]
fn facts_are_believed_only_when_all_of_them_agree() {
    let lab = Lab::new();
    let source = lab.dir("source");
    let path = |name: &str| source.join(name);
    let names = ["rewritten", "replaced", "same", "touched"];
    for name in names {
        write(&path(name), format!("old content of {name}"));
    }
    let backup = || lab.backup(&source, "files");
    let all = BTreeSet::from(names.map(str::to_owned));
    let watch = Watch::new(&source);
    backup();
    assert_eq!(watch.opened(), all);
    let_stamps_age(&path("touched"));
    backup();
    assert_eq!(watch.opened(), all, "files that had just been written are read once more");
    adds_only_its_snapshot(&lab, backup);
    assert_eq!(watch.opened(), BTreeSet::new(), "an unchanged file is not read");

    // The size is the same, and the modification time is set back. Only the change time shows the difference.
    let mtime = |name: &str| path(name).metadata().unwrap().modified().unwrap();
    let before = mtime("rewritten");
    write(&path("rewritten"), "new content of rewritten");
    set_mtime(&path("rewritten"), before);
    // Another file takes the name, with the same size and modification time.
    let before = mtime("replaced");
    write(&lab.path("other"), "new content of replaced");
    set_mtime(&lab.path("other"), before);
    fs::rename(lab.path("other"), path("replaced")).unwrap();
    set_mtime(&path("touched"), SystemTime::UNIX_EPOCH);
    let_stamps_age(&path("touched"));
    watch.opened();
    let report = backup();
    assert_eq!(watch.opened(), BTreeSet::from(["replaced", "rewritten", "touched"].map(str::to_owned)));
    assert_eq!(counts(&report), json!({ "changed": 3, "unchanged": 1 }));
    for name in ["rewritten", "replaced"] {
        let found = lab.run(args!["cat", format!("latest:{name}")], 0).stdout;
        assert_eq!(text(&found), format!("new content of {name}"));
    }
    // Facts belong to a set, so another set reads the files itself.
    lab.backup(&source, "other set");
    assert_eq!(watch.opened(), all);
    backup();
    assert_eq!(watch.opened(), BTreeSet::new());
    fs::remove_dir_all(lab.state()).unwrap();
    adds_only_its_snapshot(&lab, backup);
    assert_eq!(watch.opened(), all, "without local state everything is read");
}

#[test]
fn two_sets_in_one_repository() {
    let lab = Lab::new();
    let (alice, bob) = (lab.dir("alice"), lab.dir("bob"));
    write(&alice.join("a.txt"), "of Alice");
    write(&alice.join("shared.bin"), noise(1, 300_000));
    write(&bob.join("b.txt"), "of Bob");
    write(&bob.join("elsewhere/shared.bin"), noise(1, 300_000));
    assert!(added(&lab.backup(&alice, "alice")) > 300_000);
    let report = lab.backup(&bob, "bob");
    assert!(added(&report) < 5_000, "what both have is stored once, and {} were added", added(&report));
    assert_eq!(counts(&report), json!({ "new": 2 }));
    // Each set is compared with its own last snapshot.
    assert_eq!(counts(&lab.backup(&alice, "alice")), json!({ "unchanged": 2 }));
    assert_eq!(text(&lab.run(["cat", "latest:bob:b.txt"], 0).stdout), "of Bob");
    assert_eq!(text(&lab.run(["cat", "latest:alice:a.txt"], 0).stdout), "of Alice");
    let listed = lab.json(["snapshots"]);
    let sets: Vec<_> = listed.as_array().unwrap().iter().map(|snapshot| snapshot["set"].as_str().unwrap()).collect();
    assert_eq!(sets, ["alice", "bob", "alice"]);
}

#[test]
fn an_attachment_in_many_places_is_stored_once() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    const LEN: usize = 400_000;
    let lab = Lab::new();
    let source = lab.dir("source");
    let attachment = noise(2, LEN);
    let encoded = STANDARD.encode(&attachment);
    let lines: Vec<_> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    for number in 0..10 {
        let to = format!("user{number}@contoso.com");
        let mail = format!(
            "From: alice@contoso.com\r\nTo: {to}\r\nSubject: Report {number}\r\nMIME-Version: 1.0\r\nContent-Type: \
             multipart/mixed; boundary=\"b{number}\"\r\n\r\n--b{number}\r\nContent-Type: text/plain\r\n\r\nDear {to}, see \
             below.\r\n--b{number}\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: \
             base64\r\n\r\n{}\r\n--b{number}--\r\n",
            lines.join("\r\n")
        );
        write(&source.join(format!("{to}/Inbox/report.eml")), mail);
    }
    let mails = lab.backup(&source, "mail");
    let once = LEN as u64..LEN as u64 + 20_000;
    assert!(once.contains(&added(&mails)), "{} bytes added for ten mails", added(&mails));
    write(&source.join("OneDrive/report.bin"), &attachment);
    let file = lab.backup(&source, "mail");
    assert!(added(&file) < 10_000, "{} bytes added for the same as a file", added(&file));
    assert_eq!(lab.run(["cat", "latest:OneDrive/report.bin"], 0).stdout, attachment);
    let report = fs::read(source.join("user7@contoso.com/Inbox/report.eml")).unwrap();
    assert!(lab.run(["cat", "latest:user7@contoso.com/Inbox/report.eml"], 0).stdout == report);
}

#[test]
fn skipped_files_are_named_in_a_remark() {
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("file"), "content");
    // The local state, when it is inside the source.
    let backup = |more: &[&str]| {
        let mut command = lab.command(args!["backup", "--files", &source]);
        run(command.args(more).env("STRONGROOM_STATE_DIR", source.join("state")), 0)
    };
    let said = text(&backup(&[]).stderr);
    assert!(said.contains("skipped: state: the repository or its local state"), "{said}");
    assert_eq!(text(&lab.run(["ls", "latest"], 0).stdout).lines().count(), 1);
    // With `--quiet` nothing is printed.
    assert_eq!(text(&backup(&["--quiet"]).stderr), "");
}

#[test]
fn regression_a_file_deleted_before_it_was_read_was_a_failure() {
    let lab = Lab::new();
    let source = lab.dir("source");
    // Large files keep every thread busy reading, while the walk of the folder is already past them.
    let threads = std::thread::available_parallelism().unwrap().get();
    for number in 0..threads {
        File::create(source.join(format!("a{number}"))).unwrap().set_len(512 << 20).unwrap();
    }
    write(&source.join("b vanishes"), "gone");
    write(&source.join("c stays"), "here");
    let watch = Watch::new(&source);
    let mut command = lab.command(args!["backup", "--files", &source, "--as", "files"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut opened = BTreeSet::new();
    eventually("every thread has something to read", PATIENCE, || {
        opened.append(&mut watch.opened());
        opened.len() == threads
    });
    fs::remove_file(source.join("b vanishes")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let listed = text(&lab.run(["ls", "latest"], 0).stdout);
    assert!(listed.contains("c stays") && !listed.contains("vanishes"), "{listed}");
}

#[test]
fn items_that_fail_are_listed_and_carried_over() {
    if no_fuse() {
        return;
    }
    // The source is the mount of another backup. Its repository is damaged, so reading a file fails, even for root.
    let origin = Lab::new();
    let files = origin.dir("files");
    let contents: BTreeMap<_, _> = (0..4).map(|number| (format!("file {number}"), noise(number, 3 << 20))).collect();
    for (name, content) in &contents {
        write(&files.join("folder").join(name), content);
    }
    origin.backup(&files, "files");
    let lab = Lab::new();
    {
        let mount = origin.mount(&["--snapshot", "latest"]);
        lab.backup(&mount.path(""), "files");
    }
    let (pack, size) = origin.objects().into_iter().max_by_key(|(_, size)| *size).unwrap();
    let pack = File::options().read(true).write(true).open(origin.repository().join(pack)).unwrap();
    let mut byte = [0];
    pack.read_exact_at(&mut byte, size / 2).unwrap();
    pack.write_all_at(&[byte[0] ^ 1], size / 2).unwrap();

    let mount = origin.mount(&["--snapshot", "latest"]);
    let source = mount.path("");
    // Without the facts of the earlier run, so that everything is read.
    fs::remove_dir_all(lab.state()).unwrap();
    let report = lab.json_with_exit(args!["backup", "--files", &source, "--as", "files"], 3);
    assert_eq!(report["status"], "partial");
    let failures = report["failures"].as_array().unwrap();
    // One block is damaged. Two files that are read at the same time can share it.
    assert!((1..=2).contains(&failures.len()), "{report}");
    for failure in failures {
        let error = failure["error"].as_str().unwrap();
        assert!(error.to_lowercase().contains("input/output error"), "{error}");
    }
    assert_eq!(counts(&report), json!({ "unchanged": 4, "failed": failures.len() }));
    // The failed files are as in the snapshot before.
    for (name, content) in &contents {
        assert!(lab.run(args!["cat", format!("latest:folder/{name}")], 0).stdout == *content, "{name}");
    }
    // A set that never had the file leaves it out. People are told as well.
    let output = lab.run(args!["backup", "--files", &source, "--as", "fresh"], 3);
    let (said, listed) = (text(&output.stderr), text(&lab.run(["ls", "-R", "latest:fresh"], 0).stdout));
    for failure in failures {
        let path = failure["path"].as_str().unwrap();
        assert!(said.contains(&format!("failed: {path}: ")), "{said}");
        assert!(!listed.contains(path), "{listed}");
    }
    assert_eq!(listed.lines().count(), 1 + contents.len() - failures.len(), "{listed}");
    assert!(text(&output.stdout).contains(&format!("{} failed", failures.len())), "{}", text(&output.stdout));
    assert_eq!(lab.json(["snapshots"])[2]["failed"], failures.len());
    lab.run(["check", "--read-data"], 0);
}

/// A process that is killed when a test fails.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    #[track_caller]
    fn exit_code(&mut self, within: Duration) -> Option<i32> {
        eventually("the process ends", within, || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone, unless a test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const HALFWAY_BYTES: usize = 160 << 20;

/// Starts a backup of incompressible data and stops it (SIGSTOP) when a part of the data is stored.
fn halfway(lab: &Lab, source: &Path) -> Running {
    for number in 0..40 {
        write(&source.join(format!("{number}.bin")), noise(number, HALFWAY_BYTES / 40));
    }
    let packs = || lab.objects().into_iter().filter(|(name, _)| name.starts_with("packs/") && !name.contains(".tmp-"));
    let running = Running::start(&mut lab.command(args!["backup", "--files", source, "--as", "large"]));
    eventually("a first pack is stored", PATIENCE, || packs().count() > 0);
    running.signal(Signal::STOP);
    let stored: u64 = packs().map(|(_, size)| size).sum();
    assert!(stored < HALFWAY_BYTES as u64 * 3 / 4, "stopped too late to be of use");
    running
}

#[test]
fn one_backup_at_a_time_and_interrupted_ones_are_continued() {
    let lab = Lab::new();
    let source = lab.dir("large");
    let mut halfway = halfway(&lab, &source);
    // While this run has the local state, another one is refused.
    let small = lab.dir("small");
    write(&small.join("file"), "content");
    let output = lab.run(args!["backup", "--files", &small], 11);
    assert!(text(&output.stderr).contains("Hint: "), "{}", text(&output.stderr));
    // With its own state folder, another run works at the same time.
    run(lab.command(args!["backup", "--files", &small]).env("STRONGROOM_STATE_DIR", lab.path("state-2")), 0);

    halfway.signal(Signal::INT);
    halfway.signal(Signal::CONT);
    assert_eq!(halfway.exit_code(PATIENCE), Some(130));
    assert_eq!(lab.json(["snapshots"]).as_array().unwrap().len(), 1, "it left no snapshot");
    lab.run(["check"], 0);

    let before: u64 = lab.objects().values().sum();
    let report = lab.backup(&source, "large");
    let stored = before.min(HALFWAY_BYTES as u64);
    assert!(stored > 30 << 20, "the interrupted run left {stored} bytes");
    let left = HALFWAY_BYTES as u64 - stored;
    assert!(added(&report) < left + (2 << 20), "{} bytes added although {stored} were there", added(&report));
    assert_eq!(counts(&report), json!({ "new": 40 }));
    adds_only_its_snapshot(&lab, || lab.backup(&source, "large"));
    let check = lab.json(["check", "--read-data"]);
    assert_eq!((&check["sound"], &check["packs_without_index"]), (&true.into(), &0.into()));
    if !no_fuse() {
        let mount = lab.mount(&["--snapshot", "latest:large"]);
        assert_same_tree(&read_tree(&source), &read_tree(&mount.path("")));
    }
}

#[test]
fn regression_an_interrupt_waited_for_a_giant_file() {
    let lab = Lab::new();
    let source = lab.dir("source");
    // Holes are read quickly, but reading this many takes hours.
    File::create(source.join("giant")).unwrap().set_len(4 << 40).unwrap();
    let watch = Watch::new(&source);
    let mut running = Running::start(&mut lab.command(args!["backup", "--files", &source]));
    eventually("it reads", PATIENCE, || !watch.opened().is_empty());
    running.signal(Signal::INT);
    assert_eq!(running.exit_code(Duration::from_secs(10)), Some(130));
}

#[test]
fn a_backup_while_mounted_appears_in_the_mount() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("file"), "one");
    lab.backup(&source, "files");
    let mount = lab.mount(&[]);
    let content = || fs::read_to_string(mount.path("latest/file")).unwrap();
    assert_eq!(content(), "one");
    let first = fs::read_link(mount.path("latest")).unwrap();
    write(&source.join("file"), "two");
    lab.backup(&source, "files");
    eventually("the new snapshot is shown", Duration::from_secs(5), || content() == "two");
    assert_eq!(fs::read_dir(mount.path("snapshots")).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(mount.path(first).join("file")).unwrap(), "one", "the older one is as it was");
    let names: BTreeSet<_> =
        fs::read_dir(mount.path("snapshots")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let latest = fs::read_link(mount.path("latest")).unwrap();
    let newest = latest.file_name().unwrap();
    assert!(latest.starts_with("snapshots") && names.contains(newest));
    assert!(newest.as_bytes().windows(5).any(|window| window == b"files"));
}
