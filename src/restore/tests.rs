//! Tests restores to real folders: they give back what was backed up, and a hostile repository writes nothing
//! elsewhere.

use super::*;
use crate::backend::ObjectName;
use crate::backend::mem::Mem;
use crate::backup::{BackupOptions, backup};
use crate::format::cbor::Writer;
use crate::format::crypto::Cipher;
use crate::format::entry::{ChunkRef, Content, Directory, EntryKind, NodeRef, RefMut, Segment, Timestamp};
use crate::format::keyslot::PasswordCost;
use crate::format::node::{self, BlobRef, Child, NewNode, Node, NodeError};
use crate::format::snapshot::Snapshot;
use crate::repository::local_state::LocalState;
use crate::repository::reader::CacheSizes;
use crate::repository::store::{NewChunk, Store, Texture};
use crate::repository::tree::TreeBuilder;
use crate::repository::tree::build::Cutter;
use crate::repository::{CreateOptions, IndexSearch, Repository};
use crate::source::files::Files;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;

struct Fixture {
    mem: Arc<Mem>,
    repository: Arc<Repository>,
    state: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let mem = Arc::new(Mem::new());
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = CreateOptions { cipher: Cipher::Aes256Siv, cost };
        let (repository, _) = Repository::create(mem.clone(), b"password", &options).unwrap();
        Self { mem, repository: Arc::new(repository), state: TempDir::new().unwrap() }
    }

    fn local(&self) -> LocalState {
        LocalState::open(self.state.path(), &self.repository).unwrap()
    }

    fn back_up(&self, dir: &Path) -> Snapshot {
        let options = BackupOptions { set: "test".to_owned(), host: "here".to_owned() };
        let mut source = Files::new(dir, &[]);
        let (progress, cancel) = Default::default();
        let report = backup(&self.repository, self.local(), &mut source, &options, &progress, &cancel).unwrap();
        assert_eq!(report.failures, []);
        report.snapshot
    }

    fn reader(&self) -> Reader {
        self.repository.reader(Box::new(IndexSearch::new(self.repository.clone())), CacheSizes::default())
    }

    /// Stores objects that `make` builds by hand, and returns the root entry that `make` returns.
    fn build(&self, make: impl FnOnce(&mut Builder<'_>) -> Directory) -> Entry {
        let store = Store::new(self.repository.clone(), self.local(), Vec::new());
        let dir = make(&mut Builder { repository: &self.repository, store: &store });
        store.finish().unwrap();
        Entry::new(b"root", EntryKind::Directory(dir), Timestamp::default())
    }

    fn restore(&self, root: &Entry, dir: &Path, when_exists: WhenExists) -> Report {
        self.restore_paths(root, &[], dir, when_exists).unwrap()
    }

    fn restore_paths(
        &self,
        root: &Entry,
        paths: &[&[u8]],
        dir: &Path,
        when_exists: WhenExists,
    ) -> Result<Report, RestoreError> {
        let (reader, cancel) = (self.reader(), AtomicBool::new(false));
        let paths: Vec<_> = paths.iter().map(|path| path.to_vec()).collect();
        let plan = RestorePlan::to_folder(&reader, root, &paths, dir, when_exists, &cancel)?;
        let progress = Progress::default();
        let report = plan.execute(&progress, &cancel)?;
        assert_eq!(temporaries(dir), 0);
        if report.stopped.is_none() {
            assert_eq!(progress.items.load(Ordering::Relaxed), plan.survey().items);
            assert_eq!(progress.bytes.load(Ordering::Relaxed), plan.survey().bytes);
        }
        Ok(report)
    }
}

struct Builder<'a> {
    repository: &'a Repository,
    store: &'a Store,
}

impl Builder<'_> {
    fn tree(&mut self, entries: Vec<Entry>) -> Directory {
        let cutter = Cutter::new(self.repository.keys(), self.repository.config().node_size);
        let mut builder = TreeBuilder::new(cutter);
        entries.into_iter().for_each(|entry| builder.push(entry, &mut self.store).unwrap());
        builder.finish(&mut self.store).unwrap()
    }

    /// Makes a leaf of entries in any order. Returns it as a child whose greatest name is `last`.
    fn leaf(&mut self, entries: &[Entry], last: &[u8]) -> Child {
        let bytes: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
        let sums = entries
            .iter()
            .fold(Default::default(), |sum: crate::format::entry::Sums, entry| sum.checked_add(entry.sums()).unwrap());
        let mut refs = Vec::new();
        for entry in &mut entries.to_vec() {
            let collected = entry.for_each_ref(&mut |reference| {
                refs.push(match reference {
                    RefMut::Chunk(chunk) => BlobRef::Chunk(chunk.id.into()),
                    RefMut::Node(node) => BlobRef::Node(node.id.into()),
                });
                Ok::<_, std::convert::Infallible>(())
            });
            let Ok(()) = collected;
        }
        let node = self.node(node::leaf(entries.len(), &bytes), refs);
        Child { last: last.into(), node, sums }
    }

    fn inner(&mut self, children: &[Child]) -> Directory {
        let mut bytes = Writer::new();
        children.iter().for_each(|child| child.write(&mut bytes));
        let refs = children.iter().map(|child| BlobRef::Node(child.node.id.into())).collect();
        let root = self.node(node::inner(1, children.len(), &bytes.into_bytes()), refs);
        let sums = children
            .iter()
            .fold(Default::default(), |sum: crate::format::entry::Sums, child| sum.checked_add(child.sums).unwrap());
        Directory { root, sums }
    }

    fn node(&mut self, canonical: Vec<u8>, refs: Vec<BlobRef>) -> NodeRef {
        let id = self.repository.keys().node_id(&canonical);
        self.store.put_node(NewNode { id, canonical, refs }).unwrap();
        NodeRef { id, hint: None }
    }

    fn file(&mut self, name: &[u8], bytes: &[u8]) -> Entry {
        let id = self.repository.keys().chunk_id(bytes);
        self.store.append([NewChunk { id, bytes, texture: Texture::Text }].into_iter()).unwrap();
        let chunk = ChunkRef { id, len: bytes.len() as u32, hint: None };
        let content = Content { segments: vec![Segment::Raw(vec![chunk])] };
        Entry::new(name, EntryKind::File(content), Timestamp { secs: 1000, nanos: 7 })
    }

    fn folder(&mut self, name: &[u8], entries: Vec<Entry>) -> Entry {
        Entry::new(name, EntryKind::Directory(self.tree(entries)), Timestamp { secs: 2000, nanos: 8 })
    }

    fn link(&mut self, name: &[u8], target: &[u8]) -> Entry {
        Entry::new(name, EntryKind::Symlink(target.into()), Timestamp { secs: 3000, nanos: 9 })
    }
}

/// The visible facts of an item: permissions, time, and content (the target of a link; nothing for a folder).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: u32,
    mode: u32,
    mtime: (i64, i64),
    bytes: Vec<u8>,
}

fn scan(dir: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let bytes = if stat.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if stat.is_symlink() {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let relative = path.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec();
            let mode = if stat.is_symlink() { 0 } else { stat.mode() & 0o7777 };
            let kind = stat.mode() & 0o170000;
            seen.insert(relative, Seen { kind, mode, mtime: (stat.mtime(), stat.mtime_nsec()), bytes });
        }
    }
    seen
}

fn temporaries(dir: &Path) -> usize {
    let is_temporary = |path: &&Vec<u8>| String::from_utf8_lossy(path).contains(".strongroom-restore-");
    if dir.exists() && dir.read_dir().is_ok() { scan(dir).keys().filter(is_temporary).count() } else { 0 }
}

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Returns bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

#[derive(Debug, Clone)]
enum Thing {
    File { len: usize, hole: bool, mode: u32, mtime: (i64, i64) },
    Link { target: Vec<u8>, mtime: (i64, i64) },
    Folder { entries: BTreeMap<Vec<u8>, Thing>, mode: u32, mtime: (i64, i64) },
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let legal = |name: &Vec<u8>| crate::format::entry::is_legal_name(name);
    let any_bytes = proptest::collection::vec(1u8..=255, 1..40).prop_filter("legal", legal);
    prop_oneof![
        4 => any_bytes,
        1 => "[a-c]{1,2}".prop_map(String::into_bytes),
        1 => Just("📅 Besprechung. ".as_bytes().to_vec()),
        1 => Just(vec![b'n'; 255]),
    ]
}

fn times() -> impl Strategy<Value = (i64, i64)> {
    (-1_000_000_000i64..4_000_000_000, 0i64..1_000_000_000)
}

fn things() -> impl Strategy<Value = Thing> {
    let len = prop_oneof![Just(0), 1usize..300, 60_000usize..200_000, Just(1 << 20), Just((1 << 20) + 70_000)];
    let leaf = prop_oneof![
        3 => (len, any::<bool>(), 0u32..0o10000, times())
            .prop_map(|(len, hole, mode, mtime)| Thing::File { len, hole, mode: mode | 0o400, mtime }),
        1 => (proptest::collection::vec(1u8..=255, 1..300), times())
            .prop_map(|(target, mtime)| Thing::Link { target, mtime }),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        (proptest::collection::btree_map(names(), inner, 0..8), 0u32..0o10000, times())
            .prop_map(|(entries, mode, mtime)| Thing::Folder { entries, mode: mode | 0o700, mtime })
    })
}

fn make(path: &Path, thing: &Thing) {
    let (mode, mtime) = match thing {
        Thing::File { len, hole, mode, mtime } => {
            let mut bytes = noise(*len, *len as u64);
            if *hole {
                bytes.iter_mut().skip(1000).for_each(|byte| *byte = 0);
            }
            fs::write(path, bytes).unwrap();
            (Some(*mode), mtime)
        }
        Thing::Link { target, mtime } => {
            symlink(OsStr::from_bytes(target), path).unwrap();
            (None, mtime)
        }
        Thing::Folder { entries, mode, mtime } => {
            fs::create_dir(path).unwrap();
            entries.iter().for_each(|(name, below)| make(&path.join(OsStr::from_bytes(name)), below));
            (Some(*mode), mtime)
        }
    };
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    set_mtime(path, mtime.0, mtime.1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_was_backed_up_comes_back(entries in proptest::collection::btree_map(names(), things(), 0..8)) {
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let root = Thing::Folder { entries, mode: 0o750, mtime: (1_700_000_000, 123_456_789) };
        let (from, to) = (from.path().join("from"), to.path().join("new/to"));
        make(&from, &root);
        let fixture = Fixture::new();
        let snapshot = fixture.back_up(&from);
        let before = scan(&from);
        let report = fixture.restore(&snapshot.root, &to, WhenExists::Skip);
        prop_assert_eq!(&report.failures, &[]);
        prop_assert!(report.stopped.is_none());
        prop_assert_eq!(scan(&to), before.clone());
        let stat = fs::metadata(&to).unwrap();
        prop_assert_eq!((stat.mode() & 0o7777, stat.mtime_nsec()), (0o750, 123_456_789));
        // A second run has nothing to do and touches nothing.
        for when_exists in [WhenExists::Skip, WhenExists::KeepBoth] {
            let again = fixture.restore(&snapshot.root, &to, when_exists);
            prop_assert_eq!((again.restored, again.folders, again.skipped, again.failed), (0, 0, 0, 0));
            prop_assert_eq!(again.already_there, report.restored);
            prop_assert_eq!(scan(&to), before.clone());
        }
        let over = fixture.restore(&snapshot.root, &to, WhenExists::Overwrite);
        prop_assert_eq!((over.restored, over.failed), (report.restored, 0));
        prop_assert_eq!(scan(&to), before);
    }
}

#[test]
fn paths_get_their_last_names() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(from.path().join("Users/alice/Inbox/1.eml"), "one");
    write(from.path().join("Users/alice/Sent/2.eml"), "two");
    write(from.path().join("Users/bob/Inbox/3.eml"), "three");
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let paths: &[&[u8]] = &[b"/Users/alice//Inbox/", b"Users/alice/Sent/2.eml", b"Users/alice/Inbox"];
    let report = fixture.restore_paths(&root, paths, to.path(), WhenExists::Skip).unwrap();
    assert_eq!((report.restored, report.folders, report.bytes), (2, 1, 6));
    let names: Vec<_> = scan(to.path()).into_keys().collect();
    assert_eq!(names, [b"2.eml".to_vec(), b"Inbox".to_vec(), b"Inbox/1.eml".to_vec()]);

    let twice: &[&[u8]] = &[b"Users/alice/Inbox", b"Users/bob/Inbox"];
    let error = fixture.restore_paths(&root, twice, to.path(), WhenExists::Skip).unwrap_err();
    assert!(matches!(error, RestoreError::SameName { .. }), "{error}");
    for missing in [b"Users/carol".as_slice(), b"Users/alice/Sent/2.eml/x", b"..", b"Users/../Users"] {
        let error = fixture.restore_paths(&root, &[missing], to.path(), WhenExists::Skip).unwrap_err();
        assert!(matches!(error, RestoreError::NotInSnapshot { .. }), "{error}");
    }
    write(to.path().join("file"), "");
    let error = fixture.restore_paths(&root, &[], &to.path().join("file"), WhenExists::Skip).unwrap_err();
    assert!(matches!(error, RestoreError::Target { .. }), "{error}");
}

#[test]
fn a_plan_counts_and_changes_nothing() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(from.path().join("a/same"), "same");
    write(from.path().join("a/other"), "other");
    write(from.path().join("a/new"), "new");
    write(from.path().join("b/deep/file"), "12345");
    write(from.path().join("c/file"), "x");
    symlink("nowhere", from.path().join("c/link")).unwrap();
    set_mtime(&from.path().join("a/same"), 5, 6);
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
    let plan_when = |dir: &Path, when| RestorePlan::to_folder(&reader, &root, &[], dir, when, &cancel).unwrap();
    let plan = |dir: &Path| plan_when(dir, WhenExists::Skip);

    let absent = to.path().join("absent");
    let survey = plan(&absent).survey().clone();
    assert_eq!((survey.folders, survey.items, survey.bytes, survey.existing), (4, 6, 18, 0));
    assert_eq!((survey.new_folders, survey.new, survey.new_bytes), (4, 6, 18));
    assert!(survey.bytes_free > Some(0));
    assert!(!absent.exists());

    write(to.path().join("a/same"), "four");
    set_mtime(&to.path().join("a/same"), 5, 6);
    write(to.path().join("a/other"), "4");
    symlink("a", to.path().join("c")).unwrap();
    let before = scan(to.path());
    let plan = plan(to.path());
    let survey = plan.survey();
    assert_eq!((survey.folders, survey.items, survey.bytes), (4, 6, 18));
    assert_eq!((survey.existing, survey.alike, &survey.conflicts), (2, 1, &vec![b"a/other".to_vec()]));
    assert_eq!((survey.impossible, survey.problems.len()), (3, 1));
    assert_eq!(survey.problems[0].path, b"c");
    let shown = plan.to_string();
    assert!(shown.contains("6 items (18 bytes) and 4 folders to "), "{shown}");
    assert!(shown.contains("\n  a/other\n") && shown.contains("\n  c: a symbolic link stands where"), "{shown}");
    assert_eq!(scan(to.path()), before);

    // The content of `same` is not compared. `new` and `b/deep/file` are new.
    for (when_exists, expected) in [
        (WhenExists::Skip, (2, 8, 2, 1, 1)),
        (WhenExists::Overwrite, (4, 17, 2, 0, 0)),
        (WhenExists::KeepBoth, (3, 13, 2, 1, 0)),
    ] {
        let report = plan_when(to.path(), when_exists).expected();
        let Report { restored, bytes, folders, already_there, skipped, failed, .. } = report;
        assert_eq!((restored, bytes, folders, already_there, skipped), expected, "{when_exists:?}");
        assert_eq!((failed, report.failures.len()), (3, 1));
    }

    let cancelled = AtomicBool::new(true);
    let error = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancelled).err().unwrap();
    assert!(matches!(error, RestoreError::Interrupted));
}

#[test]
fn what_is_there_is_kept_replaced_or_joined() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(from.path().join("a/Budget.xlsx"), "new");
    write(from.path().join("a/same"), "same");
    symlink("target", from.path().join("a/link")).unwrap();
    set_mtime(&from.path().join("a/Budget.xlsx"), 50, 60);
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let at = |name: &str| to.path().join("a").join(name);
    write(at("Budget.xlsx"), "old");
    write(at("same"), "same");
    write(at("mine"), "mine");
    symlink("other", at("link")).unwrap();
    set_mtime(&to.path().join("a"), 77, 0);

    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!((report.restored, report.already_there, report.skipped, report.failed), (0, 1, 2, 0));
    assert_eq!(fs::read(at("Budget.xlsx")).unwrap(), b"old");
    assert_eq!(fs::metadata(to.path().join("a")).unwrap().mtime(), 77);

    let report = fixture.restore(&root, to.path(), WhenExists::KeepBoth);
    assert_eq!((report.restored, report.already_there, report.skipped, report.failed), (2, 1, 0, 0));
    assert_eq!(fs::read(at("Budget.xlsx")).unwrap(), b"old");
    let kept: Vec<_> = scan(&to.path().join("a")).into_iter().filter(|(name, _)| name.contains(&b'(')).collect();
    let [(budget, seen), (link, target)] = kept.as_slice() else { panic!("{kept:?}") };
    assert!(budget.starts_with(b"Budget (restored 2") && budget.ends_with(b").xlsx"), "{}", printable(budget));
    assert_eq!((seen.bytes.as_slice(), seen.mtime), (b"new".as_slice(), (50, 60)));
    assert!(link.starts_with(b"link (restored 2") && target.bytes == b"target");

    let inode = fs::metadata(at("Budget.xlsx")).unwrap().ino();
    let held = fs::File::open(at("Budget.xlsx")).unwrap();
    let report = fixture.restore(&root, to.path(), WhenExists::Overwrite);
    assert_eq!((report.restored, report.failed), (3, 0));
    assert_eq!(fs::read(at("Budget.xlsx")).unwrap(), b"new");
    // The old file was replaced by a rename, not overwritten.
    assert_ne!(fs::metadata(at("Budget.xlsx")).unwrap().ino(), inode);
    assert_eq!(std::io::read_to_string(held).unwrap(), "old");
    assert_eq!(fs::read_link(at("link")).unwrap().as_os_str(), "target");
    assert_eq!(fs::read(at("mine")).unwrap(), b"mine");
}

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

#[test]
fn an_interrupted_restore_is_completed_by_the_next() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for number in 0..1500 {
        write(from.path().join(format!("{}/{}/{number}", number / 100, number / 20)), number.to_string());
    }
    for path in scan(from.path()).keys() {
        set_mtime(&from.path().join(OsStr::from_bytes(path)), 1_600_000_000, path.len() as i64);
    }
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let (reader, cancel, progress) = (fixture.reader(), AtomicBool::new(false), Progress::default());
    let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.items.load(Ordering::Relaxed) < 100 {
                std::hint::spin_loop();
            }
            cancel.store(true, Ordering::Relaxed);
        });
        plan.execute(&progress, &cancel).unwrap()
    });
    assert!(matches!(report.stopped, Some(RestoreError::Interrupted)));
    assert!(report.restored >= 100 && report.restored < 1500, "{}", report.restored);
    let (expected, half) = (scan(from.path()), scan(to.path()));
    assert!(half.iter().all(|(path, seen)| expected[path] == *seen));
    let rest = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!((rest.restored + report.restored, rest.already_there), (1500, report.restored));
    assert_eq!(scan(to.path()), expected);
}

#[test]
fn holes_stay_holes() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = from.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 100 << 20).unwrap();
    file.set_len((192 << 20) + 5).unwrap();
    write(from.path().join("zeros"), vec![0; 70_000]);
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    assert_eq!(fixture.restore(&root, to.path(), WhenExists::Skip).failures, []);
    let stat = fs::metadata(to.path().join("sparse")).unwrap();
    assert_eq!(stat.len(), (192 << 20) + 5);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    assert!(fs::read(to.path().join("sparse")).unwrap() == fs::read(path).unwrap());
    assert_eq!(fs::read(to.path().join("zeros")).unwrap(), vec![0; 70_000]);
}

#[test]
fn deep_trees_need_few_descriptors_and_no_stack() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    const DEPTH: usize = 2000;
    let root = fixture.build(|builder| {
        // Two files: one comes before the folder below, one behind it.
        let (before, after) = (builder.file(b"a", b"before"), builder.file(b"z", b"after"));
        let mut dir = builder.tree(vec![before.clone(), after.clone()]);
        for _ in 0..DEPTH {
            let mut below = Entry::new(b"d", EntryKind::Directory(dir), Timestamp { secs: 4000, nanos: 4 });
            below.mode = Some(0o755);
            dir = builder.tree(vec![before.clone(), below, after.clone()]);
        }
        dir
    });
    let small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let report = std::thread::scope(|scope| {
        let run = || {
            let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
            let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
            plan.execute(&Progress::default(), &cancel).unwrap()
        };
        small_stack.spawn_scoped(scope, run).unwrap().join().unwrap()
    });
    assert_eq!(report.failures, []);
    assert_eq!((report.folders, report.restored), (DEPTH as u64, 2 * (DEPTH as u64 + 1)));
    // Removed from the top, because no path is long enough.
    for depth in 0..=DEPTH {
        assert_eq!(fs::read(to.path().join("a")).unwrap(), b"before", "{depth}");
        assert_eq!(fs::read(to.path().join("z")).unwrap(), b"after", "{depth}");
        fs::remove_file(to.path().join("a")).unwrap();
        fs::remove_file(to.path().join("z")).unwrap();
        if depth < DEPTH {
            let stat = fs::metadata(to.path().join("d")).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec(), stat.mode() & 0o7777), (4000, 4, 0o755), "{depth}");
            fs::rename(to.path().join("d"), to.path().join("e")).unwrap();
            for name in ["a", "d", "z"] {
                let inner = to.path().join("e").join(name);
                if inner.exists() {
                    fs::rename(inner, to.path().join(name)).unwrap();
                }
            }
            fs::remove_dir(to.path().join("e")).unwrap();
        }
    }
}

#[test]
fn a_damaged_item_fails_alone() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for number in 0..6 {
        write(from.path().join(format!("{number}")), noise(3 << 20, number));
    }
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let packs = fixture.repository.packs().unwrap();
    let (pack, len) = packs.into_iter().max_by_key(|(_, len)| *len).unwrap();
    assert!(fixture.mem.damage(ObjectName::pack(pack.0), |bytes| bytes[len as usize / 2] ^= 1));
    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert!(report.failed >= 1 && report.restored >= 4, "{report:?}");
    assert!(report.failures[0].error.contains(&pack.to_string()[..8]), "{}", report.failures[0].error);
    let (expected, found) = (scan(from.path()), scan(to.path()));
    assert_eq!(found.len() as u64, report.restored);
    assert!(found.iter().all(|(path, seen)| expected[path] == *seen));
}

#[test]
fn a_lost_node_takes_only_its_own_entries_along() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let mut lost = 0;
    let root = fixture.build(|builder| {
        let mut children = Vec::new();
        for leaf in 0..20 {
            let names: Vec<_> = (0..30).map(|number| format!("{leaf:02}-{number:02}")).collect();
            let mut entries: Vec<_> = names.iter().map(|name| builder.file(name.as_bytes(), name.as_bytes())).collect();
            // Damage three leaves, two of them neighbours.
            if [3, 4, 11].contains(&leaf) {
                entries.iter_mut().for_each(|entry| entry.name = b"..".as_slice().into());
                lost += 30;
            }
            children.push(builder.leaf(&entries, names.last().unwrap().as_bytes()));
        }
        let dir = builder.inner(&children);
        let folder = Entry::new(b"folder", EntryKind::Directory(dir), Timestamp::default());
        let after = builder.file(b"later", b"later");
        builder.tree(vec![folder, after])
    });
    let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
    let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
    assert_eq!((plan.survey().impossible, plan.survey().problems.len()), (lost, 2));
    let report = plan.execute(&Progress::default(), &cancel).unwrap();
    assert_eq!((report.restored, report.failed), (20 * 30 + 1 - lost, lost));
    assert!(report.failures.iter().all(|failure| failure.path == b"folder"), "{:?}", report.failures);
}

#[test]
fn a_full_disk_stops_the_run_and_keeps_what_is_done() {
    struct Small(TempDir);
    impl Drop for Small {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
    let to = TempDir::new().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("none", to.path(), "tmpfs", flags, Some(c"size=2m")) {
        eprintln!("skipped: no file system can be mounted here ({error})");
        return;
    }
    let to = Small(to);
    let from = TempDir::new().unwrap();
    for number in 0..16 {
        write(from.path().join(format!("{number:02}")), noise(300_000, number));
    }
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let dir = to.0.path().join("dir");
    let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
    let plan = RestorePlan::to_folder(&reader, &root, &[], &dir, WhenExists::Skip, &cancel).unwrap();
    assert_eq!(plan.survey().bytes_free, Some(2 << 20));
    assert!(plan.to_string().contains("room for 2097152 bytes only"), "{plan}");
    let report = fixture.restore(&root, &dir, WhenExists::Skip);
    let Some(RestoreError::TargetFull { path, source }) = &report.stopped else { panic!("{report:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(path.len(), 2);
    let (expected, found) = (scan(from.path()), scan(&dir));
    assert!(report.restored >= 3 && found.len() as u64 == report.restored, "{report:?}");
    assert!(found.iter().all(|(path, seen)| expected[path] == *seen));
}
