//! A repository on far storage is read fast: few requests, many at a time, and nothing twice. Every request to the far
//! storage takes 20 ms.

use crate::common;

use common::{Lab, Mount, PATIENCE, fails, names, no_fuse, text, write};
use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use strongroom::backend::cached::{CacheOptions, Cached};
use strongroom::backend::delayed::Delayed;
use strongroom::backend::faulty::{Call, Fault, Faulty};
use strongroom::backend::local::Local;
use strongroom::backend::{ObjectKind, Operation};
use strongroom::backup::{BackupOptions, Progress, backup};
use strongroom::format::entry::{Facts, Timestamp};
use strongroom::format::keyslot::PasswordCost;
use strongroom::format::snapshot::Snapshot;
use strongroom::repository::local_state::LocalState;
use strongroom::repository::reader::CacheSizes;
use strongroom::repository::{CreateOptions, IndexSearch, Repository};
use strongroom::source::{Content, Event, Item, ItemKind, Meta, Sink, Source};
use strongroom::view::{Layout, RepositoryCatalog};
use strongroom_corpora::office::{language, paragraphs};
use strongroom_corpora::rng::Rng;
use strongroom_corpora::words::Vocabulary;
use strongroom_mount::{Catalog, Mounted, Options, Side, Target};
use tempfile::TempDir;

const DELAY: Duration = Duration::from_millis(20);
const PASSWORD: &[u8] = b"password";
/// The text in one mail of a hundred.
const NEEDLE: &str = "Zeppelin-4711";

/// Folders of mails that are generated during the walk: the name of each, and its number of mails.
struct Mailbox(Vec<(&'static str, u64)>);

struct Mail(Vec<u8>);

impl Content for Mail {
    fn len_hint(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&*self.0))
    }
}

fn meta(name: &str) -> Meta {
    Meta { name: name.as_bytes().into(), mtime: Timestamp { secs: 1_700_000_000, nanos: 0 }, ..Meta::default() }
}

fn mail(vocabulary: &Vocabulary, folder: &str, number: u64) -> Vec<u8> {
    let mut rng = Rng::new(number);
    let language = language(&mut rng);
    let words = match folder {
        "Inbox" => paragraphs(vocabulary, &mut rng, language).join("\r\n\r\n"),
        _ => number.to_string(),
    };
    let needle = if number.is_multiple_of(100) { NEEDLE } else { "" };
    format!("From: a@contoso.com\r\nSubject: {number}\r\n\r\n{words} {needle}\r\n").into_bytes()
}

impl Source for Mailbox {
    fn root(&self) -> io::Result<Meta> {
        Ok(meta("root"))
    }

    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
        let vocabulary = Vocabulary::new(1);
        for (folder, count) in &self.0 {
            let _ = sink(Event::Enter { meta: meta(folder), path: folder.as_bytes().to_vec() });
            for number in 0..*count {
                let name = format!("2026-11-01 {number:05} A mail about something.eml");
                let content = Box::new(Mail(mail(&vocabulary, folder, number)));
                let _ = sink(Event::Item(Box::new(Item {
                    meta: meta(&name),
                    path: format!("{folder}/{name}").into_bytes(),
                    kind: ItemKind::File { content, fingerprint: Vec::new() },
                    facts: Facts::default(),
                })));
            }
            let _ = sink(Event::Leave);
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A far repository in its own laboratory.
struct Far {
    folder: TempDir,
    snapshot: Snapshot,
}

impl Far {
    /// Creates it with a snapshot of these folders, by near storage.
    fn new(folders: &[(&'static str, u64)]) -> Far {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::create(folder.path().join("repository")).unwrap();
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let repository = Arc::new(Repository::create(Arc::new(local), PASSWORD, &options).unwrap().0);
        let state = LocalState::open(&folder.path().join("state"), &repository).unwrap();
        let options = BackupOptions { set: "mail".to_owned(), host: "here".to_owned() };
        let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
        let mut mailbox = Mailbox(folders.to_vec());
        let report = backup(&repository, state, &mut mailbox, &options, &progress, &cancel).unwrap();
        Far { folder, snapshot: report.snapshot }
    }

    fn near(&self) -> Local {
        Local::open(self.folder.path().join("repository")).unwrap()
    }

    /// Returns the far storage and a cache with this name in front of it, as in a new process.
    fn way(&self, cache: &str) -> (Arc<Delayed<Local>>, Arc<Cached>) {
        let delayed = Arc::new(Delayed::new(self.near(), DELAY));
        let options = CacheOptions { folder: self.folder.path().join(cache), bytes_max: 1 << 30 };
        (delayed.clone(), Arc::new(Cached::new(delayed, &options)))
    }

    fn open(&self, cache: &str) -> (Arc<Delayed<Local>>, Repository) {
        let (delayed, cached) = self.way(cache);
        (delayed, Repository::open(cached, PASSWORD).unwrap())
    }

    /// Stores copies of the snapshot with other times, until there are `count` snapshots.
    fn have_snapshots(&self, count: i64) {
        let near = Repository::open(Arc::new(self.near()), PASSWORD).unwrap();
        for number in 1..count {
            let mut snapshot = self.snapshot.clone();
            snapshot.started.secs += number * 60;
            near.save_snapshot(&snapshot).unwrap();
        }
    }

    fn mount(&self, repository: Repository, name: &str) -> (Mounted, PathBuf) {
        let at = self.folder.path().join(name);
        fs::create_dir_all(&at).unwrap();
        let at = at.canonicalize().unwrap();
        let repository = Arc::new(repository);
        let search = IndexSearch::new(repository.clone());
        let reader = repository.reader(Box::new(search), CacheSizes::default()).reading_ahead();
        let catalog = RepositoryCatalog::new(repository, reader, Layout::Items, Some(at.clone()));
        // Regular polls would be counted too, so there are none.
        let options = Options { poll_interval: Duration::from_secs(3600), ..Options::default() };
        (strongroom_mount::mount(Target::Catalog(Arc::new(catalog)), &at, &options).unwrap(), at)
    }
}

/// Runs a tool. Returns how many lines it wrote and how long it took.
fn timed(command: &mut Command) -> (usize, Duration) {
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (output.stdout.split(|byte| *byte == b'\n').count() - 1, begun.elapsed())
}

#[test]
fn find_and_rg_over_slow_storage_wait_little_and_not_again() {
    const MANY: u64 = 50_000;
    const INBOX: u64 = 5_000;
    if no_fuse() {
        return;
    }
    let far = Far::new(&[("Archive", MANY), ("Inbox", INBOX)]);

    let (delayed, repository) = far.open("cache of find");
    let (mounted, at) = far.mount(repository, "cold find");
    let archive = at.join("latest/Archive").canonicalize().unwrap();
    let (found, took) = timed(Command::new("find").arg(archive).args(["-type", "f"]));
    let rounds = delayed.rounds();
    eprintln!("find over {MANY} mails, cold: {took:.2?}, {rounds} rounds of {} requests", delayed.requests());
    assert_eq!(found as u64, MANY);
    assert!(rounds <= 50, "{rounds} rounds: a second of waiting");
    mounted.unmount().unwrap();

    // The second time may ask for objects outside packs, and for requests that were still under way when the first
    // mount ended.
    for (which, packs_max) in [("cold", 150), ("the second time", 2)] {
        let (delayed, repository) = far.open("cache of rg");
        let (mounted, at) = far.mount(repository, which);
        let inbox = at.join("latest/Inbox").canonicalize().unwrap();
        let (found, took) = timed(Command::new("rg").args(["-l", NEEDLE]).arg(inbox));
        let rounds = delayed.rounds();
        eprintln!("rg over {INBOX} mails, {which}: {took:.2?}, {rounds} rounds of {} requests", delayed.requests());
        assert_eq!(found as u64, INBOX / 100);
        let packs = delayed.requests_of(Operation::LoadRange, ObjectKind::Pack);
        assert!(packs <= packs_max && rounds <= 4 + packs_max, "{packs} requests, {rounds} rounds");
        mounted.unmount().unwrap();
    }
}

#[test]
fn opening_a_repository_takes_few_rounds_with_many_snapshots() {
    const SNAPSHOTS: i64 = 100;
    if no_fuse() {
        return;
    }
    let far = Far::new(&[("Inbox", 30)]);
    far.have_snapshots(SNAPSHOTS);

    let (delayed, repository) = far.open("cache");
    // First the config, then the list of key slots, then all slots at once.
    assert_eq!((delayed.rounds(), delayed.requests()), (3, 4));
    // As in the process in the background.
    let (delayed, cached) = far.way("cache");
    let handed_over = Repository::open_handed_over(cached, &repository.handover()).unwrap();
    assert_eq!(delayed.requests(), 0);
    let (mounted, at) = far.mount(handed_over, "first");
    assert_eq!(names(at.join("snapshots")).len() as i64, SNAPSHOTS);
    assert_eq!(names(at.join("latest/Inbox")).len(), 30);
    // First the list of snapshots, then the snapshots, sixteen at a time, then the root, the folder, and look-ups of
    // the kernel.
    let (rounds, requests) = (delayed.rounds(), delayed.requests());
    eprintln!("mount to the first listing, {SNAPSHOTS} snapshots: {rounds} rounds of {requests} requests");
    assert!(rounds <= 1 + 7 + 2 + 3, "{rounds} rounds");
    assert!(requests <= 1 + SNAPSHOTS as u64 + 4, "{requests} requests");
    mounted.unmount().unwrap();

    let (delayed, repository) = far.open("cache");
    let (mounted, at) = far.mount(repository, "second");
    assert_eq!(names(at.join("latest/Inbox")).len(), 30);
    assert_eq!((delayed.rounds(), delayed.requests()), (4, 5), "the snapshots are nearby");
    mounted.unmount().unwrap();
}

/// Returns a catalog of all snapshots over storage that fails on request.
fn catalog(far: &Far) -> (Arc<Faulty<Local>>, RepositoryCatalog) {
    let storage = Arc::new(Faulty::new(far.near()));
    let repository = Arc::new(Repository::open(storage.clone(), PASSWORD).unwrap());
    let search = IndexSearch::new(repository.clone());
    let reader = Arc::new(repository.reader(Box::new(search), CacheSizes::default()));
    (storage, RepositoryCatalog::new(repository, reader, Layout::Items, None))
}

fn loads_a_snapshot(call: &Call) -> bool {
    call.operation == Operation::LoadRange && call.kind == ObjectKind::Snapshot
}

#[test]
fn storage_that_fails_is_not_asked_for_every_snapshot_and_what_it_gave_is_kept() {
    const SNAPSHOTS: u64 = 200;
    const GOOD: u64 = 20;
    let far = Far::new(&[("Inbox", 3)]);
    far.have_snapshots(SNAPSHOTS as i64);
    let (storage, catalog) = catalog(&far);
    storage.plan(GOOD..u64::MAX, Fault::Fail(io::ErrorKind::TimedOut), loads_a_snapshot);
    catalog.snapshots().unwrap_err();
    let asked = || storage.calls_of(Operation::LoadRange, ObjectKind::Snapshot);
    assert!(asked() <= GOOD + 16, "{} requests", asked());
    let before = asked();
    storage.heal();
    assert_eq!(catalog.snapshots().unwrap().len() as u64, SNAPSHOTS);
    assert_eq!(asked() - before, SNAPSHOTS - GOOD);
}

#[test]
fn a_snapshot_that_is_known_is_opened_while_others_are_being_loaded() {
    let far = Far::new(&[("Inbox", 3)]);
    let (storage, catalog) = &catalog(&far);
    let known = catalog.snapshots().unwrap()[0].id;
    far.have_snapshots(2);
    let ((loading, is_loading), (go_on, held_up)) = (mpsc::channel(), mpsc::channel::<()>());
    storage.plan(0..0, Fault::Lose, move |call| {
        if loads_a_snapshot(call) {
            loading.send(()).unwrap();
            let _ = held_up.recv();
        }
        false
    });
    std::thread::scope(|scope| {
        let refresh = scope.spawn(|| catalog.snapshots().unwrap().len());
        is_loading.recv_timeout(PATIENCE).unwrap();
        let (opened, is_open) = mpsc::channel();
        scope.spawn(move || opened.send(catalog.open(&known, Side::Items).is_ok()));
        let waited = is_open.recv_timeout(Duration::from_secs(10));
        drop(go_on);
        assert_eq!(waited, Ok(true), "opening waited for the storage");
        assert_eq!(refresh.join().unwrap(), 2);
    });
}

fn take_away(path: &Path) {
    fs::rename(path, path.with_extension("away")).unwrap();
}

fn bring_back(path: &Path) {
    fs::rename(path.with_extension("away"), path).unwrap();
}

#[test]
fn the_program_reads_from_its_cache_and_proves_what_is_stored() {
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("Inbox/one.eml"), "Subject: one\r\n\r\nThe first.\r\n");
    write(&source.join("Inbox/two.eml"), "Subject: two\r\n\r\nThe second.\r\n");
    lab.backup(&source, "mail");
    let cache = lab.path("cache");
    let cat = |args: &[&str]| lab.run(["cat", "latest:Inbox/one.eml"].iter().chain(args), 0).stdout;
    let expected = b"Subject: one\r\n\r\nThe first.\r\n";
    assert_eq!(cat(&[]), expected);
    assert!(!cache.exists(), "a folder has no cache unless somebody asks for one");
    let cache_text = cache.to_str().unwrap();
    assert_eq!(cat(&["--cache-dir", cache_text, "--cache-size", "0"]), expected);
    assert!(!cache.exists());
    assert_eq!(cat(&["--cache-dir", cache_text]), expected);
    assert!(cache.join("CACHEDIR.TAG").exists());

    // No pack is asked for again.
    let packs = lab.repository().join("packs");
    take_away(&packs);
    assert_eq!(cat(&["--cache-dir", cache_text, "--cache-size", "64M"]), expected);
    fails(&mut lab.command(["cat", "latest:Inbox/one.eml"]), 13);
    lab.run(["check", "--cache-dir", cache_text], 13);
    bring_back(&packs);

    // With the settings of the configuration, and through a mount in the background.
    let toml = format!("[repositories.share]\nurl = {:?}\ncache_dir = \"near\"\n", lab.repository());
    write(&lab.path("config/strongroom/strongroom.toml"), toml);
    if !no_fuse() {
        let at = lab.new_mount_point();
        let mut mount = lab.command(["mount", "--repo", "share"]);
        common::run(mount.arg(&at), 0);
        let mounted = Mount::at(&at);
        assert_eq!(fs::read(at.join("latest/Inbox/one.eml")).unwrap(), expected);
        mounted.unmount();
        take_away(&packs);
        let mut cat = lab.command(["cat", "latest:Inbox/one.eml", "--repo", "share"]);
        assert_eq!(common::run(&mut cat, 0).stdout, expected, "kept beside the configuration");
        assert!(lab.path("config/strongroom/near/CACHEDIR.TAG").exists());
        bring_back(&packs);

        let inside = at.join("cache");
        let outside = at.parent().unwrap().to_owned();
        for cache in [inside, at.clone(), outside] {
            let mut mount = lab.command(["mount", "--foreground"]);
            let said = fails(mount.arg("--cache-dir").arg(&cache).arg(&at), 1);
            assert!(said.contains("holds the cache"), "{cache:?}: {said}");
        }
    }

    // Sizes that are too small to be meant.
    for size in ["20", "1K", "63M"] {
        let said = fails(&mut lab.command(["snapshots", "--cache-size", size]), 2);
        assert!(said.contains("is too small") && said.contains("20G"), "{said}");
    }
    for below in ["", "packs", "packs/not/there"] {
        let mut command = lab.command(["snapshots", "--cache-dir"]);
        let said = fails(command.arg(lab.repository().join(below)), 2);
        assert!(said.contains("would lie in the repository"), "{said}");
    }
}
