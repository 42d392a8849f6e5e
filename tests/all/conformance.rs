//! Compares the mount with the kernel's own file systems. A random tree is backed up by the real engine and mounted by
//! the real program; its source folder is mounted read-only. Both must answer every question in the same way, down to
//! errno. Answers that have to differ (inode numbers, access times, sizes of folders) are compared with
//! docs/semantics.md.

use crate::common;

use common::{Lab, PATIENCE, eventually, no_fuse, noise, tool, walk, write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a caller may wait if the storage fails. Our answer comes at once; the rest is for a busy machine.
const FAILURE_TIME_MAX: Duration = Duration::from_secs(10);

/// One entry of a random tree. An entry whose name is taken is left out.
#[derive(Clone, Debug)]
struct Seed {
    parent: usize,
    name: usize,
    kind: SeedKind,
    mode: u32,
    /// Seconds since 1970.
    mtime: i64,
}

#[derive(Clone, Debug)]
enum SeedKind {
    Folder,
    File(usize),
    Link(usize),
}

/// Only a few names, so that they occur together in one folder and below each other.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"A",
    b"same",
    b"same.txt",
    b" ",
    b"new\nline",
    b"-rf",
    b"\xff\xfe",
    "é".as_bytes(),
    b"...",
    &[b'x'; 255],
];
/// No link leads out of the mount: the first of the two file systems would change what is there.
const TARGETS: [&str; 7] = ["a", "same/a", "../same", ".", "nowhere/at/all", "/nowhere/at/all", "b"];
const SIZES: [usize; 8] = [0, 1, 511, 4096, 4097, 70_000, 131_072, 1_500_000];

fn seed() -> impl Strategy<Value = Seed> {
    let kind = prop_oneof![
        3 => Just(SeedKind::Folder),
        4 => (0..SIZES.len()).prop_map(SeedKind::File),
        2 => (0..TARGETS.len()).prop_map(SeedKind::Link),
    ];
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o000), Just(0o4711), Just(0o1777)];
    (any::<usize>(), 0..NAMES.len(), kind, mode, -1_000_000_000..4_000_000_000_i64)
        .prop_map(|(parent, name, kind, mode, mtime)| Seed { parent, name, kind, mode, mtime })
}

/// Writes the tree and returns the paths that the questions are about, including its root.
fn plant(root: &Path, seeds: &[Seed]) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::new()];
    let mut paths = vec![PathBuf::new()];
    for seed in seeds {
        let below = folders[seed.parent % folders.len()].join(OsStr::from_bytes(NAMES[seed.name]));
        let path = root.join(&below);
        if path.symlink_metadata().is_ok() || below.components().count() > 8 {
            continue;
        }
        match seed.kind {
            SeedKind::Folder => {
                fs::create_dir(&path).unwrap();
                folders.push(below.clone());
            }
            SeedKind::File(size) => fs::write(&path, noise(paths.len() as u64, SIZES[size])).unwrap(),
            SeedKind::Link(target) => symlink(TARGETS[target], &path).unwrap(),
        }
        if !matches!(seed.kind, SeedKind::Link(_)) {
            fs::set_permissions(&path, Permissions::from_mode(seed.mode)).unwrap();
        }
        set_mtime(&path, seed.mtime);
        paths.push(below);
    }
    for folder in folders.iter().rev() {
        set_mtime(&root.join(folder), 1_000_000_000 + folder.as_os_str().len() as i64);
    }
    paths
}

fn set_mtime(path: &Path, secs: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The source folder, mounted read-only at a second place.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(source: &Path, at: PathBuf) -> ReadOnly {
        rustix::mount::mount_bind(source, &at).unwrap();
        let mount = ReadOnly(at);
        rustix::mount::mount_remount(&mount.0, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        mount
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A question to a file system about a path. `other` is the second path of a call that takes two.
#[derive(Clone, Debug)]
struct Question {
    path: usize,
    /// A number that picks the text appended to the path.
    tail: usize,
    other: usize,
    call: Call,
    offset: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Stat,
    Lstat,
    Statx,
    Names,
    Read,
    Readlink,
    Access,
    OpenWriting,
    OpenFolder,
    Create,
    CreateNew,
    Unlink,
    Rmdir,
    Mkdir,
    Mknod,
    Rename,
    Link,
    Symlink,
    Chmod,
    Chown,
    Utimens,
    Setxattr,
    Removexattr,
    Getxattr,
    Seek,
    Fsync,
    ReadFolder,
    Write,
}

const CALLS: [Call; 28] = {
    use Call::*;
    [
        Stat,
        Lstat,
        Statx,
        Names,
        Read,
        Readlink,
        Access,
        OpenWriting,
        OpenFolder,
        Create,
        CreateNew,
        Unlink,
        Rmdir,
        Mkdir,
        Mknod,
        Rename,
        Link,
        Symlink,
        Chmod,
        Chown,
        Utimens,
        Setxattr,
        Removexattr,
        Getxattr,
        Seek,
        Fsync,
        ReadFolder,
        Write,
    ]
};

const TAILS: [&str; 9] = ["", "", "", "/", "/.", "/..", "/nothing", "/a", "/same"];

fn question() -> impl Strategy<Value = Question> {
    let offset = prop_oneof![0..10_u64, 0..200_000_u64, 1_499_000..1_501_000_u64, Just(u64::from(u32::MAX))];
    let len = prop_oneof![0..10_usize, 0..300_000_usize];
    (any::<usize>(), 0..TAILS.len(), any::<usize>(), 0..CALLS.len(), offset, len).prop_map(
        |(path, tail, other, call, offset, len)| Question { path, tail, other, call: CALLS[call], offset, len },
    )
}

/// The part of an answer that must be the same.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Stat { kind: FileType, mode: u32, owner: (u32, u32), size: Option<u64>, mtime: (i64, i64) },
    Names(BTreeSet<Vec<u8>>),
    Bytes(Vec<u8>),
    Position(u64),
}

fn ask(root: &Path, paths: &[PathBuf], question: &Question) -> Result<Answer, Errno> {
    let below = |pick: usize| root.join(&paths[pick % paths.len()]);
    let mut path = below(question.path).into_os_string();
    path.push(TAILS[question.tail]);
    let (path, other) = (PathBuf::from(path), below(question.other));
    let mode = Mode::from_raw_mode(0o600);
    let open = |flags| rustix::fs::open(&path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, mode);
    let reading = || open(OFlags::RDONLY).map(File::from);
    let done = |result: Result<(), Errno>| result.map(|()| Answer::Done);
    let errno = |error: std::io::Error| Errno::from_io_error(&error).expect("the system's own error");
    match question.call {
        Call::Stat => rustix::fs::stat(&path).map(|stat| stat_answer(&stat)),
        Call::Lstat => rustix::fs::lstat(&path).map(|stat| stat_answer(&stat)),
        Call::Statx => {
            let all = rustix::fs::StatxFlags::ALL;
            rustix::fs::statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, all)
                .map(|stat| Answer::Position(stat.stx_mode.into()))
        }
        Call::Names => names(&path).map(|names| Answer::Names(names.into_iter().map(|(name, _)| name).collect())),
        Call::Read => {
            let mut bytes = vec![0; question.len];
            let read = reading()?.read_at(&mut bytes, question.offset).map_err(errno)?;
            bytes.truncate(read);
            Ok(Answer::Bytes(bytes))
        }
        Call::Readlink => rustix::fs::readlink(&path, Vec::new()).map(|target| Answer::Bytes(target.into_bytes())),
        Call::Access => {
            // No combination with writing. If neither access is allowed, a read-only file system and a read-only mount
            // give different errors.
            let asked =
                [Access::EXISTS, Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK, Access::READ_OK | Access::EXEC_OK];
            done(rustix::fs::access(&path, asked[question.len % asked.len()]))
        }
        Call::OpenWriting => {
            let flags = [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC, OFlags::RDWR | OFlags::APPEND];
            open(flags[question.len % flags.len()]).map(|_| Answer::Done)
        }
        Call::OpenFolder => open(OFlags::RDONLY | OFlags::DIRECTORY).map(|_| Answer::Done),
        Call::Create => open(OFlags::WRONLY | OFlags::CREATE).map(|_| Answer::Done),
        Call::CreateNew => open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).map(|_| Answer::Done),
        Call::Unlink => done(rustix::fs::unlink(&path)),
        Call::Rmdir => done(rustix::fs::rmdir(&path)),
        Call::Mkdir => done(rustix::fs::mkdir(&path, mode)),
        Call::Mknod => done(rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0)),
        Call::Rename => done(rustix::fs::rename(&path, &other)),
        Call::Link => done(rustix::fs::link(&path, &other)),
        Call::Symlink => done(rustix::fs::symlink("target", &path)),
        Call::Chmod => done(rustix::fs::chmod(&path, mode)),
        Call::Chown => done(rustix::fs::chown(&path, Some(Uid::from_raw(1)), Some(Gid::from_raw(1)))),
        Call::Utimens => {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let times = Timestamps { last_access: now, last_modification: now };
            done(rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()))
        }
        Call::Setxattr => done(rustix::fs::setxattr(&path, "user.test", b"value", XattrFlags::empty())),
        Call::Removexattr => done(rustix::fs::removexattr(&path, "user.test")),
        // A file system may have no attributes at all. Both must say that there is none of this name.
        Call::Getxattr => match rustix::fs::getxattr(&path, "user.test", &mut [0; 16][..]) {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(Answer::Done),
            Err(error) => Err(error),
            Ok(len) => Ok(Answer::Position(len as u64)),
        },
        Call::Seek => {
            let file = reading()?;
            if file.metadata().map_err(errno)?.is_dir() {
                return Ok(Answer::Done);
            }
            rustix::fs::seek(&file, SeekFrom::End(-1)).map(Answer::Position)
        }
        Call::Fsync => done(reading().and_then(rustix::fs::fsync)),
        Call::ReadFolder => reading()?.read(&mut [0; 16]).map(|read| Answer::Position(read as u64)).map_err(errno),
        Call::Write => reading()?.write_at(b"x", question.offset).map(|_| Answer::Done).map_err(errno),
    }
}

fn stat_answer(stat: &rustix::fs::Stat) -> Answer {
    let kind = FileType::from_raw_mode(stat.st_mode);
    Answer::Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        // Each file system has its own sizes of folders.
        size: (kind != FileType::Directory).then_some(stat.st_size as u64),
        mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}

/// Lists a folder by the system call, without `.` and `..`, with inode numbers.
fn names(path: &Path) -> Result<Vec<(Vec<u8>, u64)>, Errno> {
    let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push((name.to_vec(), entry.ino()));
        }
    }
    Ok(names)
}

fn not_root() -> bool {
    let missing = !rustix::process::geteuid().is_root();
    if missing {
        eprintln!("SKIPPED: this test mounts a folder a second time, as only root may");
    }
    missing
}

#[test]
fn answers_are_those_of_a_read_only_folder() {
    if no_fuse() || not_root() {
        return;
    }
    let cases = std::env::var("STRONGROOM_SEEDS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(8);
    let config = Config { cases, max_shrink_iters: 64, failure_persistence: None, ..Config::default() };
    let tree = proptest::collection::vec(seed(), 1..60);
    let questions = proptest::collection::vec(question(), 400);
    let asked = TestRunner::new(config).run(&(tree, questions), |(seeds, questions)| {
        let lab = Lab::new();
        let source = lab.dir("source");
        // The tree is in a subfolder, so that `..` stays inside.
        let paths = plant(&lab.dir("source/tree"), &seeds);
        lab.backup(&source, "random");
        let plain = ReadOnly::new(&source, lab.dir("plain"));
        let mount = lab.mount(&["--snapshot", "latest"]);
        for question in &questions {
            let expected = ask(&plain.0.join("tree"), &paths, question);
            let found = ask(&mount.path("tree"), &paths, question);
            let path = &paths[question.path % paths.len()];
            prop_assert_eq!(found, expected, "{:?} of {:?}, {:?}", question, path, TAILS[question.tail]);
        }
        folders_are_sound(&mount.path("tree"), &paths);
        prop_assert_eq!(found_by_find(&mount.path("")), found_by_find(&plain.0));
        Ok(())
    });
    asked.unwrap_or_else(|error| panic!("{error}"));
}

/// Returns what find(1) finds. It relies on link counts, and takes two folders with the same number for a loop.
fn found_by_find(root: &Path) -> BTreeSet<String> {
    let found = tool(
        "find",
        args![root, "(", "-type", "d", "-printf", "%m %T@ %P\\0", ")", "-o", "-printf", "%y %m %s %T@ %P %l\\0"],
    );
    found.split('\0').map(str::to_owned).collect()
}

/// Returns the inode numbers by path.
fn walked(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    walk(root, &mut |path, stat| _ = found.insert(path.strip_prefix(root).unwrap().to_owned(), stat.ino()));
    found
}

/// Checks what docs/semantics.md says about inode numbers, links, blocks and positions, where a plain folder differs.
fn folders_are_sound(root: &Path, paths: &[PathBuf]) {
    let mut by_number = HashMap::new();
    for below in paths {
        let path = root.join(below);
        let stat = path.symlink_metadata().unwrap();
        assert_eq!(by_number.insert(stat.ino(), below), None, "two entries have the number of {below:?}");
        assert_eq!(stat.blocks(), stat.len().div_ceil(512), "{below:?}");
        if !stat.is_dir() {
            assert_eq!(stat.nlink(), 1);
            continue;
        }
        let listed = names(&path).unwrap();
        let folders =
            listed.iter().filter(|(name, _)| path.join(OsStr::from_bytes(name)).symlink_metadata().unwrap().is_dir());
        assert_eq!(stat.nlink(), 2 + folders.count() as u64, "{below:?}");
        for (name, ino) in &listed {
            let child = path.join(OsStr::from_bytes(name));
            assert_eq!(child.symlink_metadata().unwrap().ino(), *ino, "readdir and stat agree");
            if child.symlink_metadata().unwrap().is_dir() {
                assert_eq!(child.join("..").metadata().unwrap().ino(), stat.ino(), ".. of {child:?}");
            }
        }
        listing_goes_on_from_any_place(&path, &listed);
    }
}

fn listing_goes_on_from_any_place(path: &Path, listed: &[(Vec<u8>, u64)]) {
    let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    // The buffer holds only a few entries: the longest name takes 280 bytes.
    let mut buffer = Vec::with_capacity(300);
    let mut seen = Vec::new();
    let mut entries = rustix::fs::RawDir::new(&folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        seen.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    assert_eq!(seen.len(), listed.len() + 2);
    for (position, (name, cookie)) in seen.iter().enumerate() {
        rustix::fs::seek(&folder, SeekFrom::Start(*cookie)).unwrap();
        let mut buffer = Vec::with_capacity(4096);
        let mut rest = rustix::fs::RawDir::new(&folder, buffer.spare_capacity_mut());
        let next = rest.next().map(|entry| entry.unwrap().file_name().to_bytes().to_vec());
        assert_eq!(next.as_ref(), seen.get(position + 1).map(|(name, _)| name), "after {}", name.escape_ascii());
    }
}

#[test]
fn inode_numbers_are_the_same_each_time() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    for number in 0..300 {
        write(&source.join(format!("{}/same/same/{number}", number % 7)), "content");
    }
    lab.backup(&source, "files");
    let [first, second] = [lab.mount(&[]), lab.mount(&[])];
    let numbers = walked(&first.path("latest").canonicalize().unwrap());
    assert_eq!(numbers.len(), 300 + 3 * 7);
    assert_eq!(numbers.values().collect::<BTreeSet<_>>().len(), numbers.len());
    assert_eq!(numbers, walked(&first.path("latest").canonicalize().unwrap()));
    assert_eq!(numbers, walked(&second.path("latest").canonicalize().unwrap()), "another process");
    // find(1) takes two folders with the same number for a loop.
    assert_eq!(tool("find", args![first.path("latest/"), "-name", "same"]).lines().count(), 14);
    assert_eq!(tool("find", args!["-L", first.path("latest/"), "-type", "f"]).lines().count(), 300);
}

/// A laboratory with a small file and a file of noise that is larger than our caches.
fn lab_with_a_large_file() -> (Lab, Vec<u8>) {
    let lab = Lab::new();
    let source = lab.dir("source");
    let content = noise(7, 96 << 20);
    write(&source.join("large"), &content);
    write(&source.join("small"), "small");
    lab.backup(&source, "files");
    (lab, content)
}

fn packs(lab: &Lab) -> Vec<PathBuf> {
    lab.objects()
        .into_keys()
        .filter(|name| name.starts_with("packs/"))
        .map(|name| lab.repository().join(name))
        .collect()
}

/// Reads the file from end to end in pieces, and returns how many reads failed. The others must return the right bytes.
#[track_caller]
fn failures(file: &File, content: &[u8]) -> usize {
    const PIECE: usize = 1 << 20;
    let mut failures = 0;
    for (number, expected) in content.chunks(PIECE).enumerate() {
        let mut piece = vec![0; expected.len()];
        let started = Instant::now();
        match file.read_exact_at(&mut piece, (number * PIECE) as u64) {
            Ok(()) => assert!(piece == expected, "wrong bytes at piece {number}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
                failures += 1;
            }
        }
        assert!(started.elapsed() < FAILURE_TIME_MAX, "piece {number} took {:?}", started.elapsed());
    }
    failures
}

#[test]
fn a_pack_deleted_under_an_open_file_costs_its_bytes_alone() {
    if no_fuse() {
        return;
    }
    let (lab, content) = lab_with_a_large_file();
    let mount = lab.mount(&["--snapshot", "latest"]);
    let file = File::open(mount.path("large")).unwrap();
    let packs = packs(&lab);
    let largest = packs.iter().max_by_key(|pack| (pack.metadata().unwrap().len(), (*pack).clone())).unwrap();
    fs::remove_file(largest).unwrap();
    let failed = failures(&file, &content);
    assert!((1..=96).contains(&failed), "{failed} of 96 pieces");
    assert!(packs.len() < 5 || failed < 96, "other packs can be read");
    assert_eq!(tool("ls", args![mount.path("")]), "large\nsmall\n");
    drop(file);
    mount.unmount();
}

#[test]
fn a_backend_that_was_away_is_used_again() {
    if no_fuse() {
        return;
    }
    let (lab, content) = lab_with_a_large_file();
    let mount = lab.mount(&[]);
    let file = File::open(mount.path("latest/large")).unwrap();
    let away = lab.path("away");
    fs::rename(lab.repository(), &away).unwrap();
    assert!(failures(&file, &content) > 0, "what no cache holds is an error");
    assert!(fs::read_dir(mount.path("snapshots")).unwrap().count() == 1, "the list stays as it was");
    fs::rename(&away, lab.repository()).unwrap();
    // It works at once: nothing remembers the error.
    assert_eq!(failures(&file, &content), 0);
    write(&lab.path("source/new"), "new");
    lab.backup(&lab.path("source"), "files");
    eventually("a new snapshot is seen again", PATIENCE, || mount.path("latest/new").exists());
    drop(file);
    mount.unmount();
}

#[test]
fn a_stopped_process_is_waited_for_and_then_answers() {
    if no_fuse() {
        return;
    }
    let (lab, content) = lab_with_a_large_file();
    let mount = lab.mount(&["--snapshot", "latest"]);
    let file = File::open(mount.path("large")).unwrap();
    mount.signal(Signal::STOP);
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let failed = failures_without_limit(&file, &content);
        sender.send(()).unwrap();
        failed
    });
    let early = receiver.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "nothing is answered while nobody is there to answer");
    mount.signal(Signal::CONT);
    receiver.recv_timeout(PATIENCE).expect("an answer after it goes on");
    assert_eq!(reader.join().unwrap(), 0);
    mount.unmount();
}

fn failures_without_limit(file: &File, content: &[u8]) -> usize {
    let mut read = vec![0; content.len()];
    file.read_exact_at(&mut read, 0).map_or(1, |()| usize::from(read != content))
}

#[test]
fn a_stopped_process_that_is_killed_leaves_errors_and_no_mount() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_a_large_file();
    let mount = lab.mount(&["--snapshot", "latest"]);
    let file = File::open(mount.path("large")).unwrap();
    mount.signal(Signal::STOP);
    let reader =
        std::thread::spawn(move || file.read_at(&mut [0; 4096], 50 << 20).map_err(|error| error.raw_os_error()));
    mount.signal(Signal::KILL);
    // The kernel ends a request that waits for its answer, refuses one that comes later, or finds a page unread.
    let read = reader.join().unwrap();
    let expected = [Errno::CONNABORTED, Errno::NOTCONN, Errno::IO].map(|errno| Err(Some(errno.raw_os_error())));
    assert!(expected.contains(&read), "{read:?}");
    eventually("the mount is gone", PATIENCE, || !common::is_mounted(&mount.path("")));
    // The same folder can be mounted again.
    let at = mount.path("");
    lab.run(args!["mount", &at, "--snapshot", "latest"], 0);
    assert_eq!(fs::read_to_string(at.join("small")).unwrap(), "small");
}

#[test]
fn the_repository_and_a_folder_in_use_are_not_mounted_on() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    write(&lab.path("source/file"), "content");
    lab.backup(&lab.path("source"), "files");
    let before = lab.objects();
    let cases = [
        (lab.repository(), "the repository"),
        (lab.repository().join("packs"), "the repository"),
        (lab.path(""), "the repository"),
        (lab.path("source"), "is not empty"),
    ];
    for (at, why) in cases {
        for mode in ["--foreground", "--quiet"] {
            let said = common::text(&lab.run(args!["mount", &at, mode], 1).stderr);
            assert!(said.contains(why) && said.contains("Hint: "), "{}: {said}", at.display());
        }
    }
    assert_eq!(before, lab.objects());
    assert_eq!(fs::read_to_string(lab.path("source/file")).unwrap(), "content");
}
