//! Tests restores to real folders: they give back what was backed up, and a hostile repository writes nothing
//! elsewhere.

mod damage;
mod hostile;

use super::*;
use crate::backend::ObjectName;
use crate::backend::mem::Mem;
use crate::backup::{BackupOptions, backup};
use crate::format::cbor::Writer;
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
        let options = CreateOptions { cost, ..CreateOptions::default() };
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
