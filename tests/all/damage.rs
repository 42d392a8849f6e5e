//! Whatever damages the bytes of a repository: `check --read-data` finds it, and no reader gets wrong bytes.

use crate::common;

use common::{Lab, PASSWORD, noise, run, text, write};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use strongroom::backend::{ObjectKind, ObjectName};

/// Files by their paths.
type Content = BTreeMap<String, Vec<u8>>;

/// A repository with three snapshots, their contents, and objects of every kind.
struct Vault {
    lab: Lab,
    source: PathBuf,
    /// The snapshots, oldest first.
    snapshots: Vec<(String, Content)>,
    recovery: Vec<String>,
}

impl Vault {
    fn new() -> Self {
        let lab = Lab::empty();
        let made = lab.json(["init", "--password-memory", "1"]);
        let recovery = vec![made["recovery_key"].as_str().unwrap().to_owned()];
        let source = lab.dir("source");
        let mut vault = Self { lab, source, snapshots: Vec::new(), recovery };
        vault.add_recovery_key();
        let removed = [vault.add_recovery_key(), vault.add_recovery_key()];
        for number in 0..3u64 {
            vault.change(number);
            vault.backup();
        }
        for id in removed {
            vault.lab.run(["key", "remove", &id], 0);
            vault.recovery.pop();
        }
        vault
    }

    fn add_recovery_key(&mut self) -> String {
        let added = self.lab.json(["key", "add", "--recovery", "--label", "spare"]);
        self.recovery.push(added["recovery_key"].as_str().unwrap().to_owned());
        added["id"].as_str().unwrap().to_owned()
    }

    /// Writes files that fill several blocks. Several versions share some of them.
    fn change(&self, number: u64) {
        let file = |name: &str, content: &[u8]| write(&self.source.join(name), content);
        file(&format!("large/{number}.bin"), &noise(number, 1_200_000));
        file("changing", &[noise(10, 700_000), noise(11 + number, 500_000)].concat());
        file(&format!("folder {number}/note.txt"), format!("note {number}\n").repeat(10_000).as_bytes());
        file(&format!("folder {number}/other.txt"), b"short\n");
        for mail in 0..10 {
            let subject = format!("Subject: {number} {mail}\r\n\r\nHello\r\n");
            file(&format!("mail {number}/{mail}.eml"), subject.as_bytes());
        }
    }

    fn backup(&mut self) -> String {
        let report = self.lab.backup(&self.source, "home");
        let id = report["snapshot"].as_str().unwrap().to_owned();
        self.snapshots.push((id.clone(), content_of(&self.source)));
        id
    }

    fn objects(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        let names = self.lab.objects().into_keys().map(|name| name.parse::<ObjectName>().unwrap());
        names.map(|name| (name, fs::read(self.file(name)).unwrap())).collect()
    }

    fn file(&self, name: ObjectName) -> PathBuf {
        self.lab.repository().join(name.path())
    }

    /// Checks every byte with `secret`. Returns the exit code and, if there is one, the report.
    fn check(&self, secret: &str, what: &str) -> (i32, Option<Value>) {
        let mut command = self.lab.command(["check", "--read-data", "--json"]);
        let output = command.env("STRONGROOM_PASSWORD", secret).output().unwrap();
        assert_polite(&output, what);
        let code = output.status.code().unwrap();
        let report = serde_json::from_slice(&output.stdout).ok();
        assert_eq!(report.is_some(), code == 0 || text(&output.stdout).starts_with('{'), "{what}");
        (code, report)
    }

    fn assert_sound(&self, what: &str) {
        let (code, report) = self.check(PASSWORD, what);
        assert_eq!(code, 0, "{what}: {report:?}");
        assert_eq!(report.unwrap()["sound"], true, "{what}");
    }

    /// Reads every file of a snapshot through a mount. Returns the unreadable paths and the log.
    fn read_mounted(&self, id: &str, expected: &Content) -> (BTreeSet<String>, String) {
        let log = self.log();
        let logged = fs::read(&log).map_or(0, |bytes| bytes.len());
        let mount = self.lab.mount(&["--snapshot", id]);
        let mut failed = BTreeSet::new();
        for (path, content) in expected {
            match fs::read(mount.path(path)) {
                Ok(bytes) => assert!(bytes == *content, "wrong bytes in {path}"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(5), "{path}: {error}");
                    failed.insert(path.clone());
                }
            }
        }
        mount.unmount();
        let said = fs::read(log).unwrap();
        (failed, text(&said[logged..]))
    }

    fn log(&self) -> PathBuf {
        let folders = fs::read_dir(self.lab.state()).unwrap();
        let folder = folders.map(|entry| entry.unwrap().path()).find(|path| path.join("index").is_dir());
        folder.expect("the state of the repository").join("mount.log")
    }
}

fn content_of(root: &Path) -> Content {
    let mut content = Content::new();
    common::walk(root, &mut |path, stat| {
        if stat.is_file() {
            content.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
        }
    });
    content
}

fn assert_polite(output: &Output, what: &str) {
    let said = text(&output.stderr);
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{what}: {said}");
    assert!(output.status.code().is_some(), "{what}: {}", output.status);
}

fn flip(bytes: &[u8], at: usize, bit: u8) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    Some(bytes)
}

/// Returns the offset of the footer of a pack.
fn footer_start(pack: &[u8]) -> usize {
    let trailer = pack.len() - 8;
    let len = u32::from_le_bytes(pack[trailer..trailer + 4].try_into().unwrap());
    trailer - len as usize
}

/// Returns every damage that is done to one object: its name, and the bytes that it leaves, if any.
fn damages(name: ObjectName, bytes: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let len = bytes.len();
    let mut places = BTreeSet::from([0, len / 3, len / 2, len - 1]);
    if name.kind() == ObjectKind::Pack {
        let footer = footer_start(bytes);
        places.extend([footer - 1, (footer + len - 8) / 2, len - 8]);
    }
    let flips =
        places.iter().map(|at| (format!("bit flipped in byte {at} of {len}"), flip(bytes, *at, (at % 8) as u8)));
    let cuts = [len - 1, len / 2, 0].map(|left| (format!("cut to {left} of {len}"), Some(bytes[..left].to_vec())));
    let grown = ("a byte added".to_owned(), Some([bytes, b"x"].concat()));
    flips.chain(cuts).chain([grown, ("deleted".to_owned(), None)]).collect()
}

/// Asserts that a check reports the damage to the object `name`.
fn assert_found(vault: &Vault, name: ObjectName, what: &str) {
    let what = format!("{name}: {what}");
    let (code, report) = vault.check(PASSWORD, &what);
    match (name.kind(), code) {
        (_, 13) => {}
        // Without a config there is no repository. Every key slot is bound to the id in the config.
        (ObjectKind::Config, 10) => return assert!(what.ends_with("deleted"), "{what}"),
        (ObjectKind::Config, 12) => return,
        // The slot of this very password is damaged. Another secret still opens the repository and shows the damage.
        (ObjectKind::Key, 12) => {
            let checks = vault.recovery.iter().map(|secret| vault.check(secret, &what));
            let found: Vec<_> = checks.filter(|(code, _)| *code != 12).collect();
            assert!(!found.is_empty(), "{what}: nothing opens any more");
            for (code, report) in found {
                assert_eq!((code, &report.unwrap()["sound"]), (13, &Value::Bool(false)), "{what}");
            }
            return;
        }
        _ => panic!("{what}: exit code {code}, {report:?}"),
    }
    match report {
        Some(report) => {
            assert_eq!(report["sound"], false, "{what}");
            let problems = report["problems"].as_array().unwrap();
            assert!(!problems.is_empty(), "{what}");
            // If an index object is gone, its packs are reported. If a record of removals is gone, the removed key
            // slots are reported.
            let objects: Vec<_> = problems.iter().map(|problem| problem["object"].as_str().unwrap()).collect();
            let is_gone = !vault.file(name).exists();
            let named = match name.kind() {
                ObjectKind::Index if is_gone => objects.iter().all(|object| object.starts_with("packs/")),
                ObjectKind::Gc if is_gone => objects.iter().all(|object| object.starts_with("keys/")),
                _ => objects.contains(&name.path().as_str()),
            };
            assert!(named, "{what}: {report}");
        }
        None => assert_eq!(name.kind(), ObjectKind::Config, "{what}: a report is made"),
    }
}

#[test]
fn check_finds_whatever_happens_to_any_object() {
    let vault = Vault::new();
    vault.assert_sound("before any damage");
    let objects = vault.objects();
    let kinds: BTreeSet<_> = objects.keys().map(ObjectName::kind).collect();
    assert_eq!(kinds, ObjectKind::ALL.into_iter().filter(|kind| *kind != ObjectKind::Lock).collect());
    let mut count = 0;
    for (name, bytes) in &objects {
        let file = vault.file(*name);
        for (what, damaged) in damages(*name, bytes) {
            match damaged {
                Some(damaged) => fs::write(&file, damaged).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            assert_found(&vault, *name, &what);
            fs::write(&file, bytes).unwrap();
            count += 1;
        }
        vault.assert_sound(&format!("{name} as it was"));
    }
    eprintln!("{count} damages in {} objects found", objects.len());
}

#[test]
fn check_finds_objects_that_changed_places() {
    let vault = Vault::new();
    let objects = vault.objects();
    let mut count = 0;
    for (one, one_bytes) in &objects {
        for (other, other_bytes) in objects.range(one..).skip(1).filter(|(other, _)| other.kind() == one.kind()) {
            fs::write(vault.file(*one), other_bytes).unwrap();
            fs::write(vault.file(*other), one_bytes).unwrap();
            assert_found(&vault, *one, &format!("changed places with {other}"));
            // One object is stored twice, and the other nowhere.
            fs::write(vault.file(*other), other_bytes).unwrap();
            assert_found(&vault, *one, &format!("replaced by {other}"));
            fs::write(vault.file(*one), one_bytes).unwrap();
            count += 2;
        }
    }
    assert!(count >= 20, "{count} exchanges");
    vault.assert_sound("everything as it was");
}

#[test]
fn a_machine_without_local_state_misses_what_later_snapshots_name() {
    let vault = Vault::new();
    fs::remove_dir_all(vault.lab.state()).unwrap();
    let newest = &vault.snapshots[2].0;
    let objects = vault.objects();
    let without_state = objects.iter().filter(|(name, _)| {
        matches!(name.kind(), ObjectKind::Key | ObjectKind::Snapshot | ObjectKind::Gc) && !name.path().ends_with(newest)
    });
    for (name, bytes) in without_state {
        fs::remove_file(vault.file(*name)).unwrap();
        let what = format!("{name}: deleted");
        let mut found = false;
        for secret in [PASSWORD, &vault.recovery[0]] {
            let (code, report) = vault.check(secret, &what);
            found |= code == 13 && report.unwrap()["sound"] == false;
            assert!(code == 13 || (code == 12 && name.kind() == ObjectKind::Key), "{what}: {code}");
        }
        assert!(found, "{what}");
        fs::write(vault.file(*name), bytes).unwrap();
        fs::remove_dir_all(vault.lab.state()).unwrap();
    }
    vault.assert_sound("everything as it was");
}

/// Damage must not make the machine forget which snapshots it has seen.
#[test]
fn regression_a_lost_pack_does_not_hide_a_lost_snapshot() {
    let mut vault = Vault::new();
    let newest = vault.snapshots.pop().unwrap().0;
    fs::remove_file(vault.lab.repository().join("snapshots").join(&newest)).unwrap();
    let pack = vault.objects().into_keys().find(|name| name.kind() == ObjectKind::Pack).unwrap();
    fs::remove_file(vault.file(pack)).unwrap();
    vault.backup();
    let (code, report) = vault.check(PASSWORD, "lost pack and snapshot");
    assert_eq!(code, 13);
    let report = report.unwrap();
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["object"] == format!("snapshots/{newest}")), "{report}");
}

/// Returns the paths that a check lists with a lost `part`, by snapshot.
fn lost_parts(report: &Value, part: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut lost: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for item in report["lost"].as_array().unwrap() {
        let [snapshot, path] = ["snapshot", "path"].map(|key| item[key].as_str().unwrap().to_owned());
        assert!(!item["error"].as_str().unwrap().is_empty());
        if item["part"] == part {
            lost.entry(snapshot).or_default().insert(path);
        }
    }
    lost
}

/// Returns the paths that a check lists as lost themselves, by snapshot.
fn lost_of(report: &Value) -> BTreeMap<String, BTreeSet<String>> {
    lost_parts(report, "item")
}

fn is_lost(lost: &BTreeSet<String>, path: &str) -> bool {
    lost.iter().any(|folder| folder.is_empty() || path == folder || path.starts_with(&format!("{folder}/")))
}

/// Returns the packs of content and those of nodes. A pack holds nodes if listing needs it.
fn packs_by_kind(vault: &Vault) -> (Vec<ObjectName>, Vec<ObjectName>) {
    let objects = vault.objects();
    let packs = objects.into_iter().filter(|(name, _)| name.kind() == ObjectKind::Pack);
    packs.partition_map(|(name, bytes)| {
        fs::remove_file(vault.file(name)).unwrap();
        let lists = vault.snapshots.iter().all(|(id, _)| {
            let output = vault.lab.command(["ls", "-R", id]).output().unwrap();
            assert!([Some(0), Some(13)].contains(&output.status.code()), "{}", text(&output.stderr));
            output.status.success()
        });
        fs::write(vault.file(name), bytes).unwrap();
        (lists, name)
    })
}

trait PartitionMap: Iterator + Sized {
    fn partition_map<T>(self, f: impl Fn(Self::Item) -> (bool, T)) -> (Vec<T>, Vec<T>) {
        let mut sides = (Vec::new(), Vec::new());
        for item in self {
            let (first, value) = f(item);
            if first { sides.0.push(value) } else { sides.1.push(value) }
        }
        sides
    }
}

impl<I: Iterator> PartitionMap for I {}

#[test]
fn a_damaged_item_is_an_error_and_a_log_line_and_never_wrong_bytes() {
    if common::no_fuse() {
        return;
    }
    let vault = Vault::new();
    let (data, meta) = packs_by_kind(&vault);
    assert!(data.len() >= 3 && meta.len() >= 3, "{data:?} {meta:?}");
    for (is_data, name) in data.iter().map(|name| (true, *name)).chain(meta.iter().map(|name| (false, *name))) {
        let bytes = fs::read(vault.file(name)).unwrap();
        let footer = footer_start(&bytes);
        for at in [0, footer / 2, footer - 1] {
            fs::write(vault.file(name), flip(&bytes, at, 3).unwrap()).unwrap();
            let what = format!("{name}, byte {at}");
            let (code, report) = vault.check(PASSWORD, &what);
            assert_eq!(code, 13, "{what}");
            let report = report.unwrap();
            assert_ne!(report["lost"], json!([]), "{what}: every block is needed by some snapshot");
            let lost = lost_of(&report);
            for (id, content) in &vault.snapshots {
                assert_reads(&vault, id, content, lost.get(id), is_data, &what);
            }
        }
        // Readers follow references and do not need the footer.
        fs::write(vault.file(name), flip(&bytes, (footer + bytes.len()) / 2, 3).unwrap()).unwrap();
        let (code, report) = vault.check(PASSWORD, "footer");
        assert_eq!(code, 13);
        assert_eq!(report.unwrap()["lost"], json!([]));
        fs::write(vault.file(name), &bytes).unwrap();
    }
    vault.assert_sound("everything as it was");
}

/// The text of a mail is stored beside the mail. If only the text is lost, the report must not say that the mail is
/// lost.
#[test]
fn a_lost_text_is_told_as_such_and_the_mail_still_reads() {
    if common::no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    let mail = "Subject: Lease\r\n\r\nThe lease ends in May.\r\n";
    write(&source.join("1.eml"), mail);
    let id = lab.backup(&source, "home")["snapshot"].as_str().unwrap().to_owned();
    let mut seen = BTreeSet::new();
    for name in lab.objects().into_keys().filter(|name| name.starts_with("packs/")) {
        let file = lab.repository().join(name.parse::<ObjectName>().unwrap().path());
        let bytes = fs::read(&file).unwrap();
        for at in (0..footer_start(&bytes)).step_by(24) {
            fs::write(&file, flip(&bytes, at, 0).unwrap()).unwrap();
            let report = lab.json_with_exit(args!["check", "--read-data"], 13);
            let [is_mail, is_text] = ["item", "text"].map(|part| !lost_parts(&report, part).is_empty());
            let output = lab.command(["cat", "latest:1.eml"]).output().unwrap();
            assert_eq!(output.status.success(), !is_mail, "{name}, byte {at}: {report}");
            if is_text {
                assert_eq!(lost_parts(&report, "text"), BTreeMap::from([(id.clone(), ["1.eml".to_owned()].into())]));
                assert!(output.stdout == mail.as_bytes(), "{name}, byte {at}: wrong bytes");
                let said = text(&lab.run(["check", "--read-data"], 13).stdout);
                assert!(said.contains("1.eml (only its text; the mail itself can be read): "), "{said}");
                let mount = lab.mount(&["--snapshot", "latest", "--layout", "text"]);
                assert!(fs::read(mount.path("1.eml.txt")).is_err(), "{name}, byte {at}: a damaged text reads");
                mount.unmount();
            }
            seen.insert((is_mail, is_text));
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert!(seen.contains(&(true, false)) && seen.contains(&(false, true)), "{seen:?}");
}

fn assert_reads(
    vault: &Vault,
    id: &str,
    content: &Content,
    lost: Option<&BTreeSet<String>>,
    is_data: bool,
    what: &str,
) {
    let nothing = BTreeSet::new();
    let lost = lost.unwrap_or(&nothing);
    let (failed, log) = vault.read_mounted(id, content);
    let expected: BTreeSet<_> = content.keys().filter(|path| is_lost(lost, path)).cloned().collect();
    if is_data {
        assert_eq!(failed, expected, "{what}: `lost` lists exactly what cannot be read");
        assert!(expected.len() < content.len(), "{what}: other files still read");
    } else {
        assert!(failed.is_subset(&expected), "{what}: {failed:?} of {expected:?}");
    }
    assert_eq!(log.contains("could not read from the snapshot"), !failed.is_empty(), "{what}: {log}");
    assert!(!log.contains("panicked"), "{log}");

    let listing = vault.lab.command(["ls", "-R", id]).output().unwrap();
    assert_polite(&listing, what);
    let exit = if is_data || lost.is_empty() { 0 } else { 13 };
    assert_eq!(listing.status.code(), Some(exit), "{what}: ls {}", text(&listing.stderr));
    let shown = failed.iter().take(2).chain(content.keys().filter(|path| !failed.contains(*path)).take(1));
    for path in shown {
        let output = vault.lab.command(["cat", &format!("{id}:{path}")]).output().unwrap();
        assert_polite(&output, what);
        let said = text(&output.stderr);
        if failed.contains(path) {
            assert_eq!(output.status.code(), Some(13), "{what}: cat {path}: {said}");
            assert!(content[path].starts_with(&output.stdout), "{what}: wrong bytes from cat {path}");
            assert!(said.starts_with("Error: ") && said.contains("\nHint: "), "{said}");
        } else {
            assert_eq!(output.status.code(), Some(0), "{what}: cat {path}: {said}");
            assert!(content[path] == output.stdout, "{what}: wrong bytes from cat {path}");
        }
    }
}

#[test]
fn a_mount_in_the_foreground_logs_to_standard_error() {
    if common::no_fuse() {
        return;
    }
    let vault = Vault::new();
    for name in packs_by_kind(&vault).0 {
        let bytes = fs::read(vault.file(name)).unwrap();
        fs::write(vault.file(name), flip(&bytes, 0, 0).unwrap()).unwrap();
    }
    let mut mount = vault.lab.mount_foreground(&["--snapshot", "latest"]);
    let read = vault.snapshots[2].1.keys().filter(|path| fs::read(mount.path(path)).is_err()).count();
    assert!(read > 0);
    mount.signal(rustix::process::Signal::TERM);
    let (code, said) = mount.wait();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("could not read from the snapshot") && !said.contains("panicked"), "{said}");
    for secret in [PASSWORD, "note.txt", "folder"] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Whichever pack was lost, the next backup stores what the source still has.
#[test]
fn the_next_backup_heals_what_the_source_still_has() {
    let vault = Vault::new();
    let (data, meta) = packs_by_kind(&vault);
    let objects = vault.objects();
    let newest = &vault.snapshots[2].1;
    let losses: Vec<Vec<ObjectName>> = data
        .iter()
        .chain(&meta)
        .map(|name| vec![*name])
        .chain([data.clone(), meta.clone(), [data.clone(), meta.clone()].concat()])
        .collect();
    for (number, lost) in losses.iter().flat_map(|lost| [(0, lost), (1, lost)]) {
        let what = format!("{lost:?}, state {}", ["kept", "removed"][number]);
        // Each round begins with the same three backups and a local state that knows them.
        restore_objects(&vault, &objects);
        let state = vault.lab.path("state as it was");
        match state.exists() {
            true => {
                fs::remove_dir_all(vault.lab.state()).unwrap();
                common::tool("cp", args!["-a", &state, vault.lab.state()]);
            }
            false => _ = common::tool("cp", args!["-a", vault.lab.state(), &state]),
        }
        for name in lost {
            fs::remove_file(vault.file(*name)).unwrap();
        }
        if number == 1 {
            fs::remove_dir_all(vault.lab.state()).unwrap();
        }
        let report = vault.lab.backup(&vault.source, "home");
        assert_eq!(report["status"], "ok", "{what}");
        let id = report["snapshot"].as_str().unwrap();
        for (path, content) in newest {
            let output = vault.lab.run(["cat", &format!("{id}:{path}")], 0);
            assert!(output.stdout == *content, "{what}: {path}");
        }
        let (code, report) = vault.check(PASSWORD, &what);
        // The same content in the same order makes the same pack. Then nothing is missing any more.
        let is_back = lost.iter().all(|name| vault.file(*name).exists());
        assert_eq!(code, if is_back { 0 } else { 13 }, "{what}");
        let report = report.unwrap();
        let of_newest = report["lost"].as_array().unwrap().iter().find(|item| item["snapshot"] == id);
        assert_eq!(of_newest, None, "{what}");
        let lost = lost_of(&report);
        // An older snapshot has lost only what it does not share with the source.
        for (old, content) in &vault.snapshots[..2] {
            for path in content.keys().take(3) {
                let output = vault.lab.command(["cat", &format!("{old}:{path}")]).output().unwrap();
                assert_polite(&output, &what);
                let is_whole = output.status.success();
                assert_eq!(is_whole, !lost.get(old).is_some_and(|lost| is_lost(lost, path)), "{what}: {old}:{path}");
                assert!(!is_whole || output.stdout == content[path], "{what}: {old}:{path}");
            }
        }
    }
}

fn restore_objects(vault: &Vault, objects: &BTreeMap<ObjectName, Vec<u8>>) {
    for name in vault.objects().into_keys().filter(|name| !objects.contains_key(name)) {
        fs::remove_file(vault.file(name)).unwrap();
    }
    for (name, bytes) in objects {
        fs::write(vault.file(*name), bytes).unwrap();
    }
}

/// An unreadable item does not end a backup. It is listed, carried over if possible, and the exit code is 3.
#[test]
fn a_backup_of_damaged_files_lists_them_and_keeps_the_rest() {
    if common::no_fuse() {
        return;
    }
    // A mount of a damaged repository is a folder with files that nobody can read, not even root.
    let vault = Vault::new();
    let (data, _) = packs_by_kind(&vault);
    let other = Lab::new();
    let whole = vault.lab.mount(&["--snapshot", "latest"]);
    let first = other.backup(&whole.path(""), "copy");
    whole.unmount();
    for name in &data {
        let bytes = fs::read(vault.file(*name)).unwrap();
        fs::write(vault.file(*name), flip(&bytes, footer_start(&bytes) / 2, 0).unwrap()).unwrap();
    }
    let mount = vault.lab.mount(&["--snapshot", "latest"]);
    let content = &vault.snapshots[2].1;
    let unreadable: BTreeSet<_> =
        content.keys().filter(|path| fs::read(mount.path(path)).is_err()).map(String::as_str).collect();
    assert!(!unreadable.is_empty() && unreadable.len() < content.len());

    fs::remove_dir_all(other.state()).unwrap();
    let arguments = || args!["backup", "--files", mount.path(""), "--as", "copy"];
    let report = other.json_with_exit(arguments(), 3);
    assert_eq!(report["status"], "partial");
    assert_eq!(report["items"]["failed"], unreadable.len());
    let failures = report["failures"].as_array().unwrap();
    assert_eq!(failures.iter().map(|one| one["path"].as_str().unwrap()).collect::<BTreeSet<_>>(), unreadable);
    assert!(failures.iter().all(|one| one["error"].as_str().unwrap().contains("os error 5")));
    assert_eq!(report["bytes"]["source"], first["bytes"]["source"], "carried over from the snapshot before");
    let output = run(&mut other.command(arguments()), 3);
    let said = text(&output.stderr);
    assert!(unreadable.iter().all(|path| said.contains(&format!("failed: {path}: "))), "{said}");
    assert!(other.json(["snapshots"])[2]["failed"] == unreadable.len());
    assert_eq!(other.json(["check", "--read-data"])["sound"], true);
    for (path, bytes) in content {
        assert!(other.run(["cat", &format!("latest:{path}")], 0).stdout == *bytes, "{path}");
    }
    mount.unmount();
}
