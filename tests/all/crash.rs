//! Kills a backup at any instant, and lets the storage fail at any write. Everything from before is still there, a
//! check says so, and the next backup completes.

use crate::{archives, common};

use common::{Lab, NodeContent, Tree, assert_same_tree, noise, read_tree, text, write};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use strongroom::backend::faulty::{Call, Fault, Faulty};
use strongroom::backend::mem::Mem;
use strongroom::backend::{ObjectKind, ObjectName, Operation};
use strongroom::backup::{BackupError, BackupOptions, Progress, Report, backup};
use strongroom::format::entry::{Directory, EntryKind};
use strongroom::format::id::SnapshotId;
use strongroom::format::keyslot::PasswordCost;
use strongroom::repository::check::{CheckOptions, CheckReport, check};
use strongroom::repository::local_state::LocalState;
use strongroom::repository::reader::{CacheSizes, Reader};
use strongroom::repository::tree::Entries;
use strongroom::repository::{CreateOptions, IndexSearch, Repository};
use strongroom::source::files::Files;

/// The random number generator SplitMix64.
struct Random(u64);

impl Random {
    /// Returns a generator and prints its seed. STRONGROOM_SEED sets the seed.
    fn from_env() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = number_from_env("STRONGROOM_SEED").unwrap_or(now);
        eprintln!("STRONGROOM_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}

fn mail(number: usize, attachment: &[u8]) -> Vec<u8> {
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, attachment);
    let lines: Vec<_> = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    let head = format!(
        "From: alice@example.com\r\nTo: bob@example.com\r\nSubject: message {number}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"x\"\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nHello, {number}.\r\n\
         --x\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    format!("{head}{}\r\n--x--\r\n", lines.join("\r\n")).into_bytes()
}

/// Writes a few megabytes: mails with attachments, some of them shared by several mails, a bigger file and small ones.
fn make_source(root: &Path) {
    for number in 0..120 {
        let attachment = noise(number / 2, 1_000 + 97 * number as usize);
        write(&root.join(format!("mail/{}/{number}.eml", number % 4)), mail(number as usize, &attachment));
    }
    for number in 0..200 {
        write(&root.join(format!("notes/{number}.txt")), format!("note {number}\n").repeat(number % 17));
    }
    write(&root.join("big.bin"), noise(1 << 40, 3 << 20));
    if archives::can_make() {
        for seed in ["a", "b", "c"] {
            archives::document("plain", 6, seed, 0, &root.join(format!("{seed}.docx")));
        }
        let attached = fs::read(root.join("a.docx")).unwrap();
        write(&root.join("mail/with a document.eml"), mail(1000, &attached));
    }
}

/// Changes a little everywhere, so that the next backup has work.
fn change_source(root: &Path, random: &mut Random) {
    let number = random.below(120);
    write(&root.join(format!("mail/{}/{number}.eml", number % 4)), mail(number, &noise(random.next(), 20_000)));
    write(&root.join(format!("notes/{}.txt", random.below(200))), format!("{}\n", random.next()));
    if archives::can_make() {
        archives::document("plain", 6, "b", random.below(500) as u32, &root.join("b.docx"));
    }
    write(&root.join(format!("new/{}", random.below(30))), noise(random.next(), 100_000 + random.below(400_000)));
    let _ = fs::remove_file(root.join(format!("new/{}", random.below(30))));
    let big = File::options().write(true).open(root.join("big.bin")).unwrap();
    big.write_all_at(&noise(random.next(), 5_000), random.below(3 << 20) as u64).unwrap();
}

/// A repository, and the expected content of each of its snapshots.
struct Killing {
    lab: Lab,
    source: PathBuf,
    snapshots: BTreeMap<String, Tree>,
    random: Random,
}

impl Killing {
    fn new() -> Self {
        let lab = archives::lab_by_content();
        let source = lab.dir("source");
        make_source(&source);
        let mut killing = Self { lab, source, snapshots: BTreeMap::new(), random: Random::from_env() };
        killing.backup();
        killing
    }

    /// Runs a backup to its end and returns how long it took.
    fn backup(&mut self) -> Duration {
        let started = Instant::now();
        let report = self.lab.backup(&self.source, "home");
        let took = started.elapsed();
        assert_eq!(report["status"], "ok");
        assert_eq!(self.meet_snapshots(), 1, "a backup makes one snapshot");
        self.assert_reads(report["snapshot"].as_str().unwrap());
        took
    }

    /// Starts a backup, kills it after `wait`, and returns whether it had ended before.
    fn kill_backup(&self, wait: Duration) -> bool {
        let arguments = args!["backup", "--files", &self.source, "--as", "home"];
        let mut command = self.lab.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // This sleep waits for nothing: the moment of the kill is the point.
        thread::sleep(wait);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        let ended = output.status.code().is_some();
        assert!(!ended || output.status.success(), "{}: {}", output.status, text(&output.stderr));
        ended
    }

    /// Notes new snapshots, which hold the current source. Fails if a snapshot is gone.
    fn meet_snapshots(&mut self) -> usize {
        let listed = self.lab.json(["snapshots"]);
        let ids: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        for id in self.snapshots.keys() {
            assert!(ids.contains(id), "snapshot {id} is gone");
        }
        let come: Vec<_> = ids.into_iter().filter(|id| !self.snapshots.contains_key(id)).collect();
        assert!(come.len() <= 1, "one backup makes one snapshot at most");
        let count = come.len();
        self.snapshots.extend(come.into_iter().map(|id| (id, read_tree(&self.source))));
        count
    }

    fn assert_sound(&self, options: &[&str]) -> serde_json::Value {
        let report = self.lab.json(["check"].iter().chain(options));
        assert_eq!(report["sound"], true);
        assert_eq!(report["snapshots"], self.snapshots.len());
        report
    }

    /// Lists a snapshot and compares paths, kinds and sizes with the expected content.
    fn assert_lists(&self, id: &str) {
        let output = self.lab.run(["ls", "-R", "--json", id], 0);
        let mut listed = BTreeMap::new();
        for line in text(&output.stdout).lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let size = (entry["type"] == "file").then(|| entry["size"].as_u64().unwrap());
            listed.insert(entry["path"].as_str().unwrap().as_bytes().to_vec(), size);
        }
        let size_of = |content: &NodeContent| match content {
            NodeContent::File(size, _) => Some(*size),
            _ => None,
        };
        let expected: BTreeMap<_, _> =
            self.snapshots[id].iter().map(|(path, node)| (path.clone(), size_of(&node.content))).collect();
        assert_eq!(listed, expected);
    }

    /// Reads every byte of a snapshot through a mount.
    fn assert_reads(&self, id: &str) {
        if common::no_fuse() {
            return;
        }
        let mount = self.lab.mount(&["--snapshot", id]);
        assert_same_tree(&self.snapshots[id], &read_tree(&mount.path("")));
        mount.unmount();
    }

    /// Checks that every file is an object by its name, or a temporary file, which no listing shows.
    fn assert_tidy(&self) {
        for name in self.lab.objects().into_keys() {
            let is_temporary = Path::new(&name).file_name().unwrap().to_str().unwrap().starts_with(".tmp-");
            assert_eq!(name.parse::<ObjectName>().is_ok(), !is_temporary, "{name}");
        }
    }

    fn some_ids(&mut self) -> Vec<String> {
        let ids: Vec<_> = self.snapshots.keys().cloned().collect();
        let picks = [self.random.below(ids.len()), self.random.below(ids.len())];
        picks.map(|pick| ids[pick].clone()).to_vec()
    }
}

#[test]
fn a_backup_killed_at_any_moment_leaves_everything_sound() {
    let kills = number_from_env("STRONGROOM_KILLS").unwrap_or(200);
    let mut killing = Killing::new();
    let mut typical = Duration::ZERO;
    for _ in 0..3 {
        change_source(&killing.source, &mut killing.random);
        typical = typical.max(killing.backup());
    }
    let (mut ended, mut committed, mut left_packs) = (0, 0, 0);
    for round in 1..=kills {
        change_source(&killing.source, &mut killing.random);
        // From before the program's first line to a little after its last.
        let wait = typical.mul_f64(1.05 * (killing.random.next() % 10_000) as f64 / 10_000.0);
        let has_ended = killing.kill_backup(wait);
        let has_committed = killing.meet_snapshots() == 1;
        assert!(has_committed || !has_ended, "what ended well has made a snapshot");
        ended += u32::from(has_ended);
        committed += u32::from(has_committed && !has_ended);

        let report = killing.assert_sound(if round % 20 == 0 { &["--read-data"] } else { &[] });
        left_packs += u32::from(report["packs_without_index"] != 0);
        killing.assert_tidy();
        for id in killing.some_ids() {
            killing.assert_lists(&id);
        }
        if round % 10 == 0 {
            for id in killing.some_ids() {
                killing.assert_reads(&id);
            }
            // Other work on the machine makes runs longer or shorter.
            typical = (typical + killing.backup()) / 2;
            let report = killing.assert_sound(&[]);
            assert_eq!(report["packs_without_index"], 0, "the next backup takes them in");
        }
    }
    eprintln!(
        "{kills} kills within about {typical:?}: {left_packs} left packs without an index, {committed} came between the commit \
         and the end, {ended} too late; {} snapshots",
        killing.snapshots.len()
    );
    // The test proves nothing if too many kills came too late, or before anything was stored.
    assert!(kills < 50 || ended < kills as u32 / 3, "{ended} of {kills} came too late");
    assert!(kills < 50 || left_packs > 0, "no kill fell between packs and index");
    let ids: Vec<_> = killing.snapshots.keys().cloned().collect();
    ids.iter().for_each(|id| killing.assert_lists(id));
    killing.assert_sound(&["--read-data"]);
}

#[test]
fn killed_runs_leave_no_temporary_files_for_long() {
    let lab = Lab::new();
    write(&lab.path("source/file"), "content");
    lab.backup(&lab.path("source"), "set");
    let folder = fs::read_dir(lab.repository().join("packs")).unwrap().next().unwrap().unwrap().path();
    let (old, new) = (folder.join(".tmp-old"), lab.repository().join("index/.tmp-new"));
    for path in [&old, &new] {
        write(path, "half an obj");
    }
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    File::options().write(true).open(&old).unwrap().set_modified(two_days_ago).unwrap();
    assert_eq!(lab.json(["check"])["sound"], true);
    lab.backup(&lab.path("source"), "set");
    assert!(!old.exists(), "taken away by the next backup");
    assert!(new.exists(), "somebody may be writing it");
    assert_eq!(lab.json(["check", "--read-data"])["sound"], true);
}

#[test]
fn an_interrupted_backup_keeps_what_it_stored() {
    let lab = Lab::new();
    let source = lab.dir("source");
    for number in 0..8 {
        write(&source.join(number.to_string()), noise(number, 8 << 20));
    }
    let mut command = lab.command(args!["backup", "--files", &source]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    common::eventually("the first pack is stored", common::PATIENCE, || {
        lab.objects().keys().any(|name| name.parse::<ObjectName>().is_ok_and(|name| name.kind() == ObjectKind::Pack))
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    if output.status.code() == Some(0) {
        eprintln!("SKIPPED: the backup was quicker than the signal");
        return;
    }
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted") && !said.contains("panicked"), "{said}");
    assert_eq!(lab.json(["check", "--read-data"])["sound"], true);
    let report = lab.backup(&source, "set");
    assert!(report["bytes"]["added"].as_u64().unwrap() < 64 << 20, "what was stored is not stored again");
    assert_eq!(lab.json(["check", "--read-data"])["sound"], true);
}

// Faults of the storage, tested with the library.

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

const SECRET: &[u8] = b"secret";

/// A repository in memory with two snapshots, and the source of a third that fills more than one pack.
struct Bench {
    work: tempfile::TempDir,
    stored: Mem,
    earlier: BTreeMap<SnapshotId, Content>,
    source: PathBuf,
    expected: Content,
    states: usize,
    is_turn_without_state: bool,
}

/// The result of a backup to a faulty storage.
struct Run {
    storage: Arc<Faulty<Mem>>,
    state: PathBuf,
    result: Result<Report, BackupError>,
}

impl Bench {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let source = work.path().join("source");
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let storage = Arc::new(Faulty::new(Mem::new()));
        let options = CreateOptions { cost, ..CreateOptions::default() };
        Repository::create(storage.clone(), SECRET, &options).unwrap();
        let mut bench = Self {
            work,
            stored: Mem::new(),
            earlier: BTreeMap::new(),
            source,
            expected: Content::new(),
            states: 0,
            is_turn_without_state: false,
        };
        for number in 0..40 {
            write(&bench.source.join(format!("mail/{number}.eml")), mail(number, &noise(number as u64, 3_000)));
        }
        write(&bench.source.join("big"), noise(100, 2 << 20));
        for version in 0..2 {
            write(&bench.source.join("version"), format!("{version}\n"));
            let state = bench.new_state();
            let report = bench.try_backup(&open(&storage), &state).unwrap();
            let content = content_of_folder(&bench.source);
            bench.earlier.insert(report.id, content);
        }
        bench.stored = storage.inner().clone();
        write(&bench.source.join("version"), "2\n");
        write(&bench.source.join("mail/7.eml"), mail(7, &noise(7, 5_000)));
        write(&bench.source.join("huge"), noise(101, 36 << 20));
        fs::remove_file(bench.source.join("mail/8.eml")).unwrap();
        bench.expected = content_of_folder(&bench.source);
        bench
    }

    fn new_state(&mut self) -> PathBuf {
        self.states += 1;
        self.work.path().join(format!("state-{}", self.states))
    }

    fn try_backup(&self, repository: &Arc<Repository>, state: &Path) -> Result<Report, BackupError> {
        let local = LocalState::open(state, repository).unwrap();
        let options = BackupOptions { set: "set".to_owned(), host: "host".to_owned() };
        let mut files = Files::new(&self.source, &[]);
        backup(repository, local, &mut files, &options, &Progress::default(), &AtomicBool::new(false))
    }

    /// Backs up to a copy of the storage that has the faults of `plan`.
    fn run(&mut self, plan: impl FnOnce(&Faulty<Mem>)) -> Run {
        let storage = Arc::new(Faulty::new(self.stored.clone()));
        let repository = open(&storage);
        let state = self.new_state();
        plan(&storage);
        let result = self.try_backup(&repository, &state);
        storage.heal();
        Run { storage, state, result }
    }

    /// Checks every byte, with the local state of the run.
    fn check(&mut self, run: &Run) -> CheckReport {
        let repository = open(&run.storage);
        let remembered = LocalState::open(&run.state, &repository).unwrap().remembered().unwrap();
        let scratch = self.new_state();
        let options = CheckOptions { read_data: Some(100) };
        check(&repository, options, &scratch, remembered, &AtomicBool::new(false)).unwrap()
    }

    fn assert_earlier_reads(&self, run: &Run) {
        let repository = open(&run.storage);
        for (id, expected) in &self.earlier {
            assert_eq!(&content_of(&repository, *id).unwrap(), expected, "snapshot {id}");
        }
    }

    /// Backs up to the repaired storage, first with the local state of the faulty run and then without it.
    fn assert_next_backup_completes(&mut self, mut run: Run, is_sound: bool) {
        self.is_turn_without_state = !self.is_turn_without_state;
        if self.is_turn_without_state {
            run.state = self.new_state();
        }
        let repository = open(&run.storage);
        let report = self.try_backup(&repository, &run.state).unwrap();
        assert!(report.failures.is_empty());
        assert_eq!(content_of(&repository, report.id).unwrap(), self.expected);
        self.assert_earlier_reads(&run);
        let checked = self.check(&run);
        assert_eq!(checked.packs_without_index, 0);
        assert!(checked.lost.is_empty(), "{checked:?}");
        assert!(!is_sound || checked.is_sound(), "{checked:?}");
    }
}

fn open(storage: &Arc<Faulty<Mem>>) -> Arc<Repository> {
    Arc::new(Repository::open(storage.clone(), SECRET).unwrap())
}

fn content_of_folder(root: &Path) -> Content {
    let mut content = Content::new();
    common::walk(root, &mut |path, stat| {
        if stat.is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().as_bytes().to_vec();
            content.insert(name, fs::read(path).unwrap());
        }
    });
    content
}

/// Returns every byte of a snapshot.
fn content_of(repository: &Arc<Repository>, id: SnapshotId) -> Result<Content, Box<dyn std::error::Error>> {
    let snapshot = repository.load_snapshot(id)?;
    let lookup = Box::new(IndexSearch::new(repository.clone()));
    let reader = repository.reader(lookup, CacheSizes::default());
    let mut content = Content::new();
    read_folder(&reader, snapshot.directory(), &[], &mut content)?;
    Ok(content)
}

fn read_folder(
    reader: &Reader,
    folder: &Directory,
    path: &[u8],
    content: &mut Content,
) -> Result<(), Box<dyn std::error::Error>> {
    for found in Entries::new(reader, folder)? {
        let found = found?;
        let entry = found.entry();
        let path = if path.is_empty() { entry.name.to_vec() } else { [path, b"/", &entry.name].concat() };
        match &entry.kind {
            EntryKind::Directory(folder) => read_folder(reader, folder, &path, content)?,
            EntryKind::File(file) => {
                let mut bytes = Vec::new();
                reader.read(file, 0, file.len() as usize, &mut bytes)?;
                content.insert(path, bytes);
            }
            EntryKind::Symlink(_) => {}
        }
    }
    Ok(())
}

fn is_write(call: &Call) -> bool {
    call.operation.is_write()
}

/// Returns the kinds of objects that the backup of the bench writes, in order.
fn writes(bench: &mut Bench) -> Vec<ObjectKind> {
    let run = bench.run(|_| {});
    run.result.as_ref().unwrap();
    let count = |kind| run.storage.calls_of(Operation::Save, kind);
    let (packs, indexes, snapshots) = (count(ObjectKind::Pack), count(ObjectKind::Index), count(ObjectKind::Snapshot));
    assert_eq!(run.storage.calls(Operation::Save), packs + indexes + snapshots);
    assert_eq!(run.storage.calls(Operation::Remove), 0);
    assert!(packs >= 3 && indexes == 1 && snapshots == 1, "two packs of content and one of nodes at least");
    let kinds = [(ObjectKind::Pack, packs), (ObjectKind::Index, indexes), (ObjectKind::Snapshot, snapshots)];
    kinds.into_iter().flat_map(|(kind, count)| (0..count).map(move |_| kind)).collect()
}

#[test]
fn a_backup_stopped_at_any_write_leaves_everything_sound() {
    let mut bench = Bench::new();
    let writes = writes(&mut bench);
    for n in 0..writes.len() as u64 {
        let error = if n % 2 == 0 { ErrorKind::StorageFull } else { ErrorKind::TimedOut };
        let run = bench.run(|storage| storage.plan(n..u64::MAX, Fault::Fail(error), is_write));
        assert!(run.result.is_err(), "write {n} is needed");
        assert!(run.storage.faults() > 0);
        let checked = bench.check(&run);
        assert!(checked.is_sound(), "after write {n}: {checked:?}");
        assert_eq!(checked.snapshots, 2);
        bench.assert_earlier_reads(&run);
        bench.assert_next_backup_completes(run, true);
    }
}

#[test]
fn a_single_failed_write_ends_the_backup_and_harms_nothing() {
    let mut bench = Bench::new();
    let writes = writes(&mut bench);
    for (n, kind) in (0..).zip(writes) {
        for fault in [Fault::ShortWrite, Fault::Unconfirmed(ErrorKind::TimedOut)] {
            let run = bench.run(|storage| storage.plan(n..n + 1, fault, is_write));
            assert!(run.result.is_err(), "{fault:?} of write {n}");
            let checked = bench.check(&run);
            assert!(checked.is_sound(), "{fault:?} of write {n}: {checked:?}");
            // A commit that was not confirmed may have happened. Then the snapshot is complete.
            let is_there = kind == ObjectKind::Snapshot && fault != Fault::ShortWrite;
            assert_eq!(checked.snapshots, 2 + usize::from(is_there));
            bench.assert_earlier_reads(&run);
            bench.assert_next_backup_completes(run, true);
        }
    }
}

/// A file system that does not keep the order of writes may leave half a file under its name.
#[test]
fn a_torn_write_is_found_and_harms_nothing_else() {
    let mut bench = Bench::new();
    let writes = writes(&mut bench);
    for (n, kind) in (0..).zip(writes) {
        let run = bench.run(|storage| storage.plan(n..u64::MAX, Fault::Torn, is_write));
        assert!(run.result.is_err());
        let checked = bench.check(&run);
        assert!(!checked.is_sound(), "half a {kind} is found");
        assert!(checked.problems.iter().all(|problem| problem.object.starts_with(kind.folder())), "{checked:?}");
        assert!(checked.lost.is_empty(), "nothing needs it: {checked:?}");
        bench.assert_earlier_reads(&run);
        bench.assert_next_backup_completes(run, false);
    }
}

#[test]
fn a_storage_that_loses_what_it_confirmed_is_found_out() {
    let mut bench = Bench::new();
    let writes = writes(&mut bench);
    for (n, kind) in (0..).zip(writes) {
        let run = bench.run(|storage| storage.plan(n..n + 1, Fault::Lose, is_write));
        let report = match &run.result {
            Ok(report) => report,
            // The loss is noticed when the new tree is compared with the one before. Then there is no snapshot.
            Err(error) => {
                assert_eq!(kind, ObjectKind::Pack, "loss of write {n} shows at once: {error}");
                bench.assert_earlier_reads(&run);
                let repository = open(&run.storage);
                let next = bench.try_backup(&repository, &run.state).unwrap();
                assert_eq!(content_of(&repository, next.id).unwrap(), bench.expected);
                continue;
            }
        };
        let checked = bench.check(&run);
        assert!(!checked.is_sound(), "a lost {kind} is found (write {n})");
        let read = content_of(&open(&run.storage), report.id);
        match kind {
            ObjectKind::Pack => assert!(!checked.lost.is_empty() && read.is_err(), "{checked:?}"),
            // The hints lead to everything, without the index.
            ObjectKind::Index => assert!(checked.lost.is_empty() && read.unwrap() == bench.expected, "{checked:?}"),
            _ => assert!(checked.lost.is_empty() && read.is_err(), "{checked:?}"),
        }
        assert!(checked.lost.iter().all(|item| item.snapshot == report.id), "{checked:?}");
        bench.assert_earlier_reads(&run);

        // While the source exists, the next backup is complete again, with and without the local state.
        let storage = run.storage.inner().clone();
        for state in [run.state, bench.new_state()] {
            let storage = Arc::new(Faulty::new(storage.clone()));
            let repository = open(&storage);
            let next = bench.try_backup(&repository, &state).unwrap();
            assert_eq!(content_of(&repository, next.id).unwrap(), bench.expected, "after the loss of a {kind}");
            let again = Run { storage, state, result: Ok(next) };
            bench.assert_earlier_reads(&again);
            assert!(bench.check(&again).lost.iter().all(|item| Some(item.snapshot) == Some(report.id)));
        }
    }
}

/// What a backup reads from the repository decides what it stores. If it reads wrong bytes, it may fail or store too
/// much, but it must never store anything unsound.
#[test]
fn a_backup_that_misreads_the_storage_stores_nothing_unsound() {
    let mut bench = Bench::new();
    fs::remove_file(bench.source.join("huge")).unwrap();
    bench.expected = content_of_folder(&bench.source);
    let seeds = number_from_env("STRONGROOM_SEEDS").unwrap_or(15);
    let (mut faults, mut completed) = (0, 0);
    for seed in 0..seeds {
        let run = bench.run(|storage| storage.at_random(seed, 4, &[Fault::FlipBit, Fault::Truncate, Fault::Swap]));
        faults += run.storage.faults();
        let checked = bench.check(&run);
        assert!(checked.is_sound(), "seed {seed}: {checked:?}");
        bench.assert_earlier_reads(&run);
        if let Ok(report) = &run.result {
            assert_eq!(content_of(&open(&run.storage), report.id).unwrap(), bench.expected, "seed {seed}");
            completed += 1;
        }
        bench.assert_next_backup_completes(run, true);
    }
    eprintln!("{faults} faults in {seeds} runs, of which {completed} completed");
    assert!(faults > seeds / 2 && completed > 0);
}

#[test]
fn a_killed_run_locks_nobody_out() {
    let lab = Lab::new();
    write(&lab.path("source/file"), noise(1, 40 << 20));
    let mut command = lab.command(args!["backup", "--files", lab.path("source")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = lab.state();
    common::eventually("the local state is in use", common::PATIENCE, || {
        let mut found = false;
        if state.exists() {
            common::walk(&state, &mut |path, _| found |= path.ends_with("index/LOCK"));
        }
        found
    });
    child.kill().unwrap();
    child.wait().unwrap();
    lab.run(args!["backup", "--files", lab.path("source")], 0);
}
