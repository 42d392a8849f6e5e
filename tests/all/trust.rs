//! Objects in a repository that this program did not write, or that somebody changed: objects of later versions,
//! snapshots with wrong times, an earlier state of the whole repository, objects of other repositories, and junk.

use crate::common;
use crate::laboratory;

use common::{Lab, fails, noise, text, write};
use laboratory::{Laboratory, Shape};
use serde_json::{Value, json};
use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use strongroom::backend::local::Local;
use strongroom::backend::{Backend, BackendError, ObjectKind, ObjectName, Operation};
use strongroom::format::cbor::{MapWriter, Writer};
use strongroom::format::compress::Compressor;
use strongroom::format::crypto::Purpose;
use strongroom::format::sealed;
use strongroom::repository::Repository;
use strongroom::repository::check::{CheckOptions, check};
use strongroom::repository::local_state::LocalState;

const YEAR_S: i64 = 365 * 24 * 60 * 60;

fn encoded(fields: impl FnOnce(&mut MapWriter)) -> Vec<u8> {
    let (mut map, mut out) = (MapWriter::default(), Writer::new());
    fields(&mut map);
    map.finish(&mut out);
    out.into_bytes()
}

/// Stores one object of each kind as a later version of this program might write it.
fn write_like_a_later_version(repository: &Repository) -> Vec<ObjectName> {
    let compressor = || Compressor::new(1);
    let keys = repository.keys();
    let sealed = |purpose, plain: &[u8]| sealed::seal(keys, purpose, plain, &mut compressor());
    let version = |map: &mut MapWriter| {
        map.field(1).uint(2);
        map.field(2).text("whatever that means");
    };
    let named = |make: fn([u8; 32]) -> ObjectName, bytes: Vec<u8>| (make(*blake3::hash(&bytes).as_bytes()), bytes);
    let mut objects = vec![
        named(ObjectName::snapshot, sealed(Purpose::Snapshot, &encoded(version))),
        named(ObjectName::index, sealed(Purpose::Index, &[2, 0, 0, 0, 9, 9])),
    ];
    let footer = sealed(Purpose::PackFooter, &[2, 1, 0, 0, 9, 9]);
    let len = (footer.len() as u32).to_le_bytes();
    objects.push(named(ObjectName::pack, [&footer[..], &len, b"SRP1"].concat()));
    let id = [7; 16];
    let record = sealed::seal_bound(keys, Purpose::Gc, &id, &encoded(version), &mut compressor());
    objects.push((ObjectName::gc(id), record));
    let head = encoded(|map| {
        map.field(1).uint(1);
        map.field(2).uint(3);
    });
    let info = encoded(|map| {
        map.field(1).uint(1);
        map.field(3).text("a token");
    });
    let bound = [repository.id().as_bytes(), &id[..], &head].concat();
    let info = sealed::seal_bound(keys, Purpose::KeyInfo, &bound, &info, &mut compressor());
    let mut slot = Writer::new();
    slot.array(2).bytes(&head).bytes(&info);
    objects.push((ObjectName::key(id), slot.into_bytes()));
    for (name, bytes) in &objects {
        repository.backend().save(*name, bytes).unwrap();
    }
    objects.into_iter().map(|(name, _)| name).collect()
}

fn warnings_of(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect()
}

fn ids_of(snapshots: &Value) -> Vec<String> {
    let with_time = snapshots.as_array().unwrap().iter().filter(|row| !row["time"].is_null());
    with_time.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_repository_with_objects_of_a_later_version_stays_usable() {
    let (lab, home) = Lab::with_file("content\n");
    let repository = lab.open();
    let later = write_like_a_later_version(&repository);
    let snapshot = later.iter().find(|name| name.kind() == ObjectKind::Snapshot).unwrap();
    let short = snapshot.path()["snapshots/".len()..][..8].to_owned();

    write(&home.join("file"), "other content\n");
    let report = lab.backup(&home, "home");
    assert_eq!((&report["status"], &report["items"]["changed"]), (&json!("ok"), &json!(1)));
    let warnings = warnings_of(&report);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let expected = format!("snapshot {short} is left out: the snapshot has version 2");
    assert!(warnings[0].starts_with(&expected), "{warnings:?}");
    assert!(warnings[1].contains("2 objects are of a later version"), "{warnings:?}");
    // If somebody deletes the later snapshot, the new snapshot shows that it is missing.
    let made = repository.snapshots().unwrap().readable.pop().unwrap().1;
    assert!(made.parents.iter().any(|id| ObjectName::snapshot(id.0) == *snapshot));

    let listed = lab.json(["snapshots"]);
    assert_eq!(ids_of(&listed).len(), 2);
    assert_eq!((&listed[0]["later"], listed[2]["id"] == report["snapshot"]), (&json!(true), true), "{listed}");
    let said = text(&lab.run(["snapshots"], 0).stderr);
    assert!(said.contains(&short) && said.contains("a later version of this program shows it"), "{said}");
    assert_eq!(lab.run(["cat", "latest:file"], 0).stdout, b"other content\n");
    lab.run(["stats"], 0);

    let report = lab.json_with_exit(["check", "--read-data"], 3);
    assert_eq!((&report["sound"], &report["problems"], &report["lost"]), (&json!(true), &json!([]), &json!([])));
    let told: Vec<_> = report["later"].as_array().unwrap().iter().map(|object| object["object"].as_str()).collect();
    assert_eq!(told.len(), later.len(), "{report}");
    assert!(later.iter().all(|name| told.contains(&Some(&*name.path()))), "{report}");
    assert!(text(&lab.run(["check"], 3).stdout).contains("sound as far as this version can tell"));

    let slots = lab.json(["key", "list"]);
    assert_eq!(slots.as_array().unwrap().iter().filter(|slot| !slot["error"].is_null()).count(), 1);
    // The unreadable record may be the one that removes the other slots.
    let recovery = slots.as_array().unwrap().iter().find(|slot| slot["kind"] == "recovery").unwrap();
    let said = fails(&mut lab.command(["key", "remove", recovery["id"].as_str().unwrap()]), 1);
    assert!(said.contains("1 records of removals are of a later version"), "{said}");
    assert_eq!(lab.json(["key", "list"]), slots);
    let objects = lab.objects();
    assert!(later.iter().all(|name| objects.contains_key(&name.path())), "nothing of it was taken away");

    if !common::no_fuse() {
        let mut mount = lab.mount_foreground(&[]);
        assert_eq!(fs::read(mount.path("latest/file")).unwrap(), b"other content\n");
        assert_eq!(fs::read_dir(mount.path("snapshots")).unwrap().count(), 2);
        mount.signal(rustix::process::Signal::TERM);
        let (_, said) = mount.wait();
        assert_eq!(said.matches(&format!("snapshot {short} is left out")).count(), 1, "{said}");
    }
}

#[test]
fn a_snapshot_from_the_future_is_not_the_latest() {
    let lab = Lab::new();
    let home = lab.dir("home");
    for content in ["first\n", "second\n"] {
        write(&home.join("file"), content);
        lab.backup(&home, "home");
    }
    // The first snapshot again, as a machine would make it whose clock is a year ahead.
    let repository = lab.open();
    let mut snapshot = repository.snapshots().unwrap().readable.remove(0).1;
    snapshot.started.secs += YEAR_S;
    snapshot.finished.secs += YEAR_S;
    let ahead = repository.save_snapshot(&snapshot).unwrap();

    assert_eq!(lab.run(["cat", "latest:file"], 0).stdout, b"second\n");
    assert_eq!(lab.run(["cat", "latest:home:file"], 0).stdout, b"second\n");
    assert_eq!(lab.run(["cat", "latest~1:file"], 0).stdout, b"first\n");
    let listed = lab.json(["snapshots"]);
    let marks: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["ahead"].as_bool().unwrap()).collect();
    assert_eq!(marks, [false, false, true]);
    let is_told = |said: &str| said.contains("1 snapshots have a time in the future") && said.contains(&ahead.short());
    let said = text(&lab.run(["snapshots"], 0).stderr);
    assert!(is_told(&said), "{said}");
    let report = lab.json(["check"]);
    let warnings = warnings_of(&report);
    assert!(warnings.len() == 1 && warnings[0].contains("has a time in the future"), "{warnings:?}");

    // The next backup continues from the snapshot that is really the latest.
    write(&home.join("other"), "new\n");
    let report = lab.backup(&home, "home");
    assert!(warnings_of(&report).iter().any(|warning| is_told(warning)), "{report}");
    assert_eq!((&report["items"]["new"], &report["items"]["unchanged"]), (&json!(1), &json!(1)));
    if !common::no_fuse() {
        let mount = lab.mount(&[]);
        assert_eq!(fs::read(mount.path("latest/file")).unwrap(), b"second\n");
        assert_eq!(fs::read_dir(mount.path("snapshots")).unwrap().count(), 4);
        mount.unmount();
    }
}

#[test]
fn a_repository_that_was_put_back_to_an_earlier_state_is_noticed() {
    let (lab, home) = Lab::with_file("content\n");
    let copy = lab.path("copy");
    common::tool("cp", args!["-a", lab.repository(), &copy]);
    write(&home.join("file"), "other content\n");
    lab.backup(&home, "home");
    let words = "1 snapshots and 0 key slots that this machine has seen are gone";
    assert!(!text(&lab.run(["snapshots"], 0).stderr).contains(words));
    fs::remove_dir_all(lab.repository()).unwrap();
    fs::rename(&copy, lab.repository()).unwrap();

    let said = text(&lab.run(["snapshots"], 0).stderr);
    assert_eq!(said.matches(words).count(), 1, "{said}");
    if !common::no_fuse() {
        let at = lab.new_mount_point();
        let said = text(&lab.run(args!["mount", &at], 0).stderr);
        common::Mount::at(&at).unmount();
        assert_eq!(said.matches(words).count(), 1, "{said}");
    }
    let report = lab.backup(&home, "home");
    assert_eq!(warnings_of(&report).iter().filter(|warning| warning.starts_with(words)).count(), 1, "{report}");
    lab.json_with_exit(["check"], 13);
    // A machine that has seen nothing reports nothing, and makes no state folder.
    fs::remove_dir_all(lab.state()).unwrap();
    assert!(!text(&lab.run(["snapshots"], 0).stderr).contains("are gone"));
    assert!(!lab.state().exists());
}

#[test]
fn a_pack_of_absurd_length_is_damage_and_the_others_are_looked_at() {
    let lab = Lab::new();
    let home = lab.dir("home");
    for number in 0..3u8 {
        write(&home.join(format!("{number}")), noise(number.into(), 100_000));
        lab.backup(&home, "home");
    }
    let is_pack = |name: &&String| name.starts_with("packs/");
    let mut packs: Vec<_> = lab.objects().keys().filter(is_pack).cloned().collect();
    packs.sort_by_key(|name| std::cmp::Reverse(lab.objects()[name]));
    let file = |name: &str| fs::File::options().write(true).open(lab.repository().join(name)).unwrap();
    file(&packs[0]).set_len(1 << 40).unwrap();
    file(&packs[1]).set_len(1000).unwrap();
    let report = lab.json_with_exit(["check", "--read-data"], 13);
    let told = report["problems"].as_array().unwrap();
    for pack in &packs[..2] {
        assert!(told.iter().any(|problem| problem["object"] == pack.as_str()), "{pack}: {report}");
    }
    let said = |what: &str| told.iter().any(|problem| problem["error"].as_str().unwrap().contains(what));
    assert!(said("is 1099511627776 bytes long, more than such an object can have"), "{report}");
    let lost: Vec<_> = report["lost"].as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect();
    assert!(lost.iter().any(|path| *path != lost[0]), "both are found: {lost:?}");
    assert_eq!(report["snapshots"], 3);
    // A backup still works.
    write(&home.join("new"), "new\n");
    assert_eq!(lab.backup(&home, "home")["status"], "ok");
}

/// A disk with one bad sector.
struct BadSector {
    local: Local,
    bad: ObjectName,
    /// True if nothing can be read any more.
    away: bool,
}

impl BadSector {
    fn read<T>(&self, name: ObjectName, read: Result<T, BackendError>) -> Result<T, BackendError> {
        let source = std::io::Error::from_raw_os_error(5);
        if name == self.bad || self.away { Err(BackendError::from_io(Operation::Load, name, source)) } else { read }
    }
}

impl Backend for BadSector {
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        self.local.save(name, data)
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        self.read(name, self.local.load(name))
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        self.read(name, self.local.load_range(name, range))
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        self.local.list(kind, each)
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        self.local.size(name)
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        self.local.remove(name)
    }

    fn describe(&self) -> String {
        self.local.describe()
    }
}

#[test]
fn an_unreadable_sector_is_damage_but_an_unreachable_disk_is_not() {
    let (lab, _) = Lab::with_file(noise(1, 100_000));
    let is_pack = |name: &&String| name.starts_with("packs/");
    let largest = lab.objects().keys().filter(is_pack).max_by_key(|name| lab.objects()[*name]).unwrap().clone();
    let bad: ObjectName = largest.parse().unwrap();
    let opened = |away| {
        let keys = lab.open().handover();
        let backend = BadSector { local: Local::open(lab.repository()).unwrap(), bad, away };
        Arc::new(Repository::open_handed_over(Arc::new(backend), &keys).unwrap())
    };
    let check = |away: bool| {
        let (options, cancel) = (CheckOptions { read_data: Some(100) }, AtomicBool::new(false));
        check(&opened(away), options, &lab.dir(&format!("scratch-{away}")), Default::default(), &cancel)
    };
    let report = check(false).unwrap();
    assert!(report.problems.iter().any(|problem| problem.object == largest), "{:?}", report.problems);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert_eq!(report.damaged.len(), 1);
    assert!(check(true).is_err(), "a storage that is away is no damage");
}

#[test]
fn a_config_of_another_repository_is_no_wrong_password() {
    let (lab, other) = (Lab::new(), Lab::new());
    write(&lab.path("home/file"), "content\n");
    lab.backup(&lab.path("home"), "home");
    let config = |lab: &Lab| lab.repository().join("config");
    let own = fs::read(config(&lab)).unwrap();
    let wrong = |lab: &Lab| fails(lab.command(["snapshots"]).env("STRONGROOM_PASSWORD", "wrong"), 12);

    fs::copy(config(&other), config(&lab)).unwrap();
    let said = fails(&mut lab.command(["snapshots"]), 13);
    assert!(said.contains("the password is right, but the object `config` belongs to another repository"), "{said}");
    assert!(said.contains("Hint: put the `config` of this repository back"), "{said}");
    wrong(&lab);

    for junk in [&b""[..], b"<html>not found</html>", &noise(1, 5000), &own[1..], &own[..own.len() / 2]] {
        fs::write(config(&lab), junk).unwrap();
        let said = fails(&mut lab.command(["snapshots"]), 13);
        assert!(said.contains("the config object is damaged") && said.contains("Hint: put `config` back"), "{said}");
    }
    fs::remove_file(config(&lab)).unwrap();
    let said = fails(&mut lab.command(["snapshots"]), 13);
    assert!(said.contains("holds backups, but the object `config`") && said.contains("is missing"), "{said}");
    // `init` does not make a new repository there: that would remove the key slots.
    let keys = |lab: &Lab| fs::read_dir(lab.repository().join("keys")).unwrap().count();
    let said = fails(&mut lab.command(["init", "--password-memory", "1"]), 13);
    assert!(said.contains("is missing") && keys(&lab) == 2, "{said}");
    fs::write(config(&lab), &own).unwrap();
    assert_eq!(lab.run(["cat", "latest:file"], 0).stdout, b"content\n");
    assert!(wrong(&lab).contains("no key slot opens with this password (tried 2)"));
}

#[test]
fn a_mount_reports_junk_objects_once() {
    if common::no_fuse() {
        return;
    }
    let (lab, home) = Lab::with_file("content\n");
    let whole = lab.json(["snapshots"]).as_array().unwrap().len();
    for number in 0..500u64 {
        let name = format!("snapshots/{number:064x}");
        write(&lab.repository().join(name), noise(number, 100));
    }
    let mut mount = lab.mount_foreground(&[]);
    for number in 0..3 {
        // Once the new snapshot shows, the list has been read again.
        write(&home.join("file"), format!("content {number}\n"));
        lab.backup(&home, "home");
        common::eventually("the new snapshot shows", common::PATIENCE, || {
            fs::read_dir(mount.path("snapshots")).unwrap().count() == whole + number + 1
        });
    }
    mount.signal(rustix::process::Signal::TERM);
    let (_, said) = mount.wait();
    assert!(said.contains("cannot be read and are left out"), "{said}");
    assert!(said.lines().count() < 30, "{} lines:\n{said}", said.lines().count());
}

/// Flips a byte in the middle of the largest pack, and returns its path in the repository.
fn damage_largest_pack(lab: &Lab) -> String {
    let packs = lab.objects().into_iter().filter(|(name, _)| name.starts_with("packs/"));
    let pack = packs.max_by_key(|(_, len)| *len).unwrap().0;
    flip(lab, &pack);
    pack
}

fn flip(lab: &Lab, pack: &str) {
    let file = lab.repository().join(pack);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_backup_stores_again_what_check_found_damaged() {
    let lab = Lab::new();
    let home = lab.dir("home");
    let content: Vec<_> = (0..4u64).map(|number| noise(number, 700_000)).collect();
    for (number, bytes) in content.iter().enumerate() {
        write(&home.join(format!("{number}")), bytes);
    }
    let first = lab.backup(&home, "home")["snapshot"].as_str().unwrap().to_owned();
    let damaged = damage_largest_pack(&lab);
    let added = |report: &Value| report["bytes"]["added"].as_u64().unwrap();
    assert_eq!(added(&lab.backup(&home, "home")), 0, "nobody knows yet");
    let lost = |report: &Value| report["lost"].as_array().unwrap().len();
    let report = lab.json_with_exit(["check", "--read-data"], 13);
    assert!(lost(&report) > 0 && report["problems"][0]["object"] == damaged.as_str(), "{report}");
    let path = report["lost"][0]["path"].as_str().unwrap().to_owned();

    // With a new file, so that the new pack differs from the damaged one.
    write(&home.join("new"), noise(9, 100_000));
    assert!(added(&lab.backup(&home, "home")) >= 2_800_000, "all that the damaged pack holds");
    let read = |lab: &Lab| lab.run(args!["cat", format!("{first}:{path}")], 0).stdout;
    assert!(read(&lab) == content[path.parse::<usize>().unwrap()], "the first snapshot finds it in the new pack");
    let report = lab.json_with_exit(["check", "--read-data"], 13);
    assert_eq!(lost(&report), 0, "{report}");
    assert_eq!(report["problems"][0]["object"], damaged.as_str(), "it is damaged all the same");
    assert_eq!(added(&lab.backup(&home, "home")), 0, "once is enough");
    // A machine without local state reads it as well, even without the damaged pack.
    fs::remove_dir_all(lab.state()).unwrap();
    assert!(read(&lab) == content[path.parse::<usize>().unwrap()]);
    fs::remove_file(lab.repository().join(&damaged)).unwrap();
    assert!(read(&lab) == content[path.parse::<usize>().unwrap()]);
    assert_eq!(lost(&lab.json_with_exit(["check"], 13)), 0);
}

#[test]
fn a_damaged_pack_is_replaced_or_trusted_again_once_repaired() {
    // Only one block: several blocks are in a pack in the order in which they were sealed.
    let (lab, home) = Lab::with_file(noise(1, 100_000));
    let added = |report: &Value| report["bytes"]["added"].as_u64().unwrap();
    // The same content makes the same pack, which replaces the damaged one.
    damage_largest_pack(&lab);
    lab.run(["check", "--read-data"], 13);
    assert!(added(&lab.backup(&home, "home")) >= 100_000);
    assert_eq!(lab.json(["check", "--read-data"])["sound"], true);
    // The damaged pack is replaced by a good copy.
    let damaged = damage_largest_pack(&lab);
    lab.run(["check", "--read-data"], 13);
    flip(&lab, &damaged);
    // Only reading the pack shows that it is good again.
    lab.run(["check"], 0);
    lab.run(["check", "--read-data"], 0);
    assert_eq!(added(&lab.backup(&home, "home")), 0);
    assert_eq!(lab.json(["check"])["packs_without_index"], 0);
    // Walking the trees finds a damaged folder.
    let is_meta = |name: &String| name.starts_with("packs/") && *name != damaged;
    let meta = lab.objects().into_keys().find(is_meta).unwrap();
    flip(&lab, &meta);
    lab.run(["check"], 13);
    assert!(added(&lab.backup(&home, "home")) > 0);
    assert_eq!(lab.json(["check", "--read-data"])["sound"], true);
}

/// When files are removed, their facts in the local state are removed too.
#[test]
fn facts_of_a_deleted_file_are_dropped() {
    let lab = Lab::new();
    let home = lab.dir("home");
    for number in 0..50 {
        write(&home.join(format!("{number}")), format!("content {number}\n"));
    }
    lab.backup(&home, "home");
    let repository = lab.open();
    let remembered = |name: &str| {
        let local = LocalState::open(&lab.state(), &repository).unwrap();
        local.facts(&repository.keys().local_path("home", name.as_bytes())).is_some()
    };
    // A file that was written just now is never taken for unchanged.
    common::eventually("they are old enough to be remembered", common::PATIENCE, || {
        lab.backup(&home, "home");
        remembered("7") && remembered("8") && remembered("9")
    });
    fs::remove_file(home.join("7")).unwrap();
    fs::rename(home.join("8"), home.join("moved")).unwrap();
    lab.backup(&home, "home");
    assert!(!remembered("7") && !remembered("8"));
    assert!(remembered("9"));
}

#[test]
fn the_log_of_mounts_does_not_grow_for_ever() {
    if common::no_fuse() {
        return;
    }
    let (lab, _) = Lab::with_file("content\n");
    let folder = lab.state().join(lab.open().id().to_string());
    let log = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let junk = |number: u8| {
        let name = format!("snapshots/{}", format!("{number:02x}").repeat(32));
        write(&lab.repository().join(&name), "junk");
        name[10..18].to_owned()
    };
    // Two mounts write to one log file. The second mount finds it renamed.
    let mounts = [lab.mount(&[]), lab.mount(&[])];
    let long = "a line of an earlier day\n".repeat(400_000);
    fs::write(folder.join("mount.log"), &long).unwrap();
    for number in 1..=3 {
        let short = junk(number);
        let told = || log("mount.log").matches(&format!("snapshot {short} is left out")).count();
        common::eventually("both have told of it", common::PATIENCE, || told() == 2);
    }
    assert!(log("mount.log.1") == long, "the earlier lines are kept");
    assert!(log("mount.log").len() < 10_000);
    mounts.into_iter().for_each(common::Mount::unmount);
}

/// Messages with a damaged chunk are downloaded again, although nothing changed.
#[test]
fn messages_in_a_damaged_pack_are_downloaded_anew() {
    let laboratory = Laboratory::new(Shape { seed: 5, users: 3, messages: 40, ..Shape::default() });
    laboratory.back_up().unwrap();
    let root = laboratory.folder.path();
    let mut packs = Vec::new();
    laboratory.repository.backend().list(ObjectKind::Pack, &mut |name, len| packs.push((len, name))).unwrap();
    let damaged = packs.into_iter().max().unwrap().1;
    let file = root.join("repository").join(damaged.path());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let check = || {
        let (options, cancel) = (CheckOptions { read_data: Some(100) }, AtomicBool::new(false));
        let scratch = tempfile::tempdir().unwrap();
        check(&laboratory.repository, options, scratch.path(), Default::default(), &cancel).unwrap()
    };
    let report = check();
    assert!(!report.lost.is_empty() && report.damaged.len() == 1, "{:?}", report.problems);
    let mut local = LocalState::open(&root.join("state"), &laboratory.repository).unwrap();
    local.note_damage(&report.damaged, &report.proven).unwrap();
    drop(local);
    let report = laboratory.back_up().unwrap();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    laboratory.assert_truth(&report);
    assert_eq!(check().lost, []);
    // After that there is nothing to download any more.
    let report = laboratory.back_up().unwrap();
    assert_eq!(report.snapshot.summary.added_bytes, 0, "{:?}", report.snapshot.summary);
}
