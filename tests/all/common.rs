//! Shared by the end-to-end tests: a laboratory with a repository, the real program, real mounts, and trees that are
//! compared in everything that counts.
#![allow(dead_code, reason = "a helper may be for one module alone")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use strongroom::backend::local::Local;
use strongroom::repository::Repository;
use tempfile::TempDir;

/// Long enough for a machine that has other work, too.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PASSWORD: &str = "correct horse";

/// Arguments of any text type: `args!["backup", "--files", &dir]`.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($arg)),*] };
}

/// Opens the repository in `folder` with the password of all tests.
pub fn open(folder: &Path) -> Repository {
    let backend = Arc::new(Local::open(folder).unwrap());
    Repository::open(backend, PASSWORD.as_bytes()).unwrap()
}

/// A folder with a repository, local state, and room for everything else. Dropping it removes the folder.
pub struct Lab {
    folder: TempDir,
    mounts: AtomicUsize,
}

impl Lab {
    /// Creates the folder and a repository with a cheap password.
    pub fn new() -> Lab {
        let lab = Lab::empty();
        lab.run(["init", "--password-memory", "1"], 0);
        lab
    }

    /// Creates a laboratory, and backs up the folder `home` as the set `home`. The folder has one file, `file`, with
    /// this content. Returns the folder, too.
    pub fn with_file(content: impl AsRef<[u8]>) -> (Lab, PathBuf) {
        let lab = Lab::new();
        let home = lab.dir("home");
        write(&home.join("file"), content);
        lab.backup(&home, "home");
        (lab, home)
    }

    /// Opens the repository in this process.
    pub fn open(&self) -> Repository {
        open(&self.repository())
    }

    /// Creates the folder without a repository.
    pub fn empty() -> Lab {
        // Canonical, so that the path is the same as in the mount table.
        let parent = std::env::temp_dir().canonicalize().unwrap();
        let folder = tempfile::Builder::new().prefix("strongroom-test-").tempdir_in(parent).unwrap();
        Lab { folder, mounts: AtomicUsize::new(0) }
    }

    /// Returns the path `below` in the laboratory.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Creates a folder, with its parents.
    pub fn dir(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Returns the program with this repository, state and password, and without the caller's own configuration.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"STRONGROOM_")) {
            command.env_remove(name);
        }
        command.env("STRONGROOM_REPO", self.repository()).env("STRONGROOM_STATE_DIR", self.state());
        command.env("XDG_CONFIG_HOME", self.path("config"));
        command.env("STRONGROOM_PASSWORD", PASSWORD).current_dir(self.folder.path());
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end. Asserts the exit code `exit`.
    #[track_caller]
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>, exit: i32) -> Output {
        run(&mut self.command(args), exit)
    }

    /// Runs the program with `--json`. Asserts success and returns the JSON document.
    #[track_caller]
    pub fn json(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Value {
        self.json_with_exit(args, 0)
    }

    /// Like [`Lab::json`] with another exit code.
    #[track_caller]
    pub fn json_with_exit(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>, exit: i32) -> Value {
        let output = run(self.command(args).arg("--json"), exit);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}:\n{}", text(&output.stdout)))
    }

    /// Backs up a folder and returns the report. Asserts that all files could be read.
    #[track_caller]
    pub fn backup(&self, dir: &Path, set: &str) -> Value {
        self.json(args!["backup", "--files", dir, "--as", set])
    }

    /// Returns every object of the repository with its size, by its path there.
    pub fn objects(&self) -> BTreeMap<String, u64> {
        let root = self.repository();
        let mut objects = BTreeMap::new();
        walk(&root, &mut |path, stat| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if stat.is_file() {
                objects.insert(name, stat.len());
            }
        });
        objects
    }

    /// Mounts in the background on a new folder, as `strongroom mount DIR` does, with further arguments.
    #[track_caller]
    pub fn mount(&self, args: &[&str]) -> Mount {
        let at = self.new_mount_point();
        self.run(args!["mount", &at].into_iter().chain(args.iter().map(OsString::from)), 0);
        Mount::at(&at)
    }

    /// Mounts on a new folder in a foreground process, and waits until it is mounted.
    #[track_caller]
    pub fn mount_foreground(&self, args: &[&str]) -> Mount {
        let at = self.new_mount_point();
        let mut command = self.command(args!["mount", &at, "--foreground"]);
        let child = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
        let mut mount = Mount { at, child: Some(child) };
        eventually("mounted", PATIENCE, || {
            assert_eq!(mount.child.as_mut().unwrap().try_wait().unwrap(), None, "the mount ended");
            is_mounted(&mount.at)
        });
        mount
    }

    pub fn new_mount_point(&self) -> PathBuf {
        self.dir(&format!("mount-{}", self.mounts.fetch_add(1, Ordering::Relaxed)))
    }
}

/// A mount of the real program. Dropping it unmounts, whatever happened.
pub struct Mount {
    at: PathBuf,
    /// The process, if it was started with `--foreground`.
    child: Option<Child>,
}

impl Mount {
    /// Takes over a background mount that another command made.
    #[track_caller]
    pub fn at(at: &Path) -> Mount {
        assert!(is_mounted(at), "mounted when the command returns");
        Mount { at: at.to_owned(), child: None }
    }

    /// Returns the path `below` in the mount.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.at.join(below)
    }

    /// Returns the process that serves the mount.
    pub fn pid(&self) -> Pid {
        match &self.child {
            Some(child) => Pid::from_child(child),
            None => background_process(&self.at).expect("a process serves the mount"),
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end of a foreground process. Returns its exit code and its standard error.
    #[track_caller]
    pub fn wait(&mut self) -> (Option<i32>, String) {
        let child = self.child.as_mut().expect("a mount in the foreground");
        eventually("the process of the mount ends", PATIENCE, || child.try_wait().unwrap().is_some());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    }

    /// Unmounts and waits until the process has ended.
    #[track_caller]
    pub fn unmount(mut self) {
        tool("fusermount3", args!["-u", &self.at]);
        eventually("the mount is gone", PATIENCE, || !is_mounted(&self.at));
        match &mut self.child {
            Some(child) => assert!(child.wait().unwrap().success()),
            None => eventually("the process has ended", PATIENCE, || background_process(&self.at).is_none()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for option in ["-u", "-uz"] {
            if is_mounted(&self.at) {
                let _ = Command::new("fusermount3").arg(option).arg(&self.at).stderr(Stdio::null()).status();
            }
        }
        if let Some(child) = &mut self.child {
            // The process ends by itself now, unless something is wrong with it.
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Finds the background process that `strongroom mount` left for the folder `at`.
fn background_process(at: &Path) -> Option<Pid> {
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        words.contains(&b"--background".as_slice()) && words.contains(&at.as_os_str().as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_it).find_map(Pid::from_raw)
}

/// Returns true if a test that mounts must be skipped, and prints that.
pub fn no_fuse() -> bool {
    let missing = File::options().read(true).write(true).open("/dev/fuse").is_err();
    if missing {
        eprintln!("SKIPPED: /dev/fuse cannot be opened here, and this test mounts");
    }
    missing
}

/// Returns whether something is mounted at `path`, according to the mount table.
pub fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Compared as paths, which ignores a slash at the end.
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|mounted| Path::new(mounted) == path))
}

/// Waits until `condition` holds, and fails if it does not within `within`.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so after {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `command` to its end. Asserts the exit code `exit`.
#[track_caller]
pub fn run(command: &mut Command, exit: i32) -> Output {
    let output = command.output().unwrap();
    if output.status.code() != Some(exit) {
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        panic!("{command:?} ended with {} instead of {exit}:\n{err}\n{out}", output.status);
    }
    output
}

/// Runs a command that must fail with `exit`. Returns its message, which must have the form in docs/cli.md.
#[track_caller]
pub fn fails(command: &mut Command, exit: i32) -> String {
    let output = run(command, exit);
    let said = text(&output.stderr);
    assert!(output.stdout.is_empty(), "results of a failure: {}", text(&output.stdout));
    assert_is_error(&said);
    said
}

#[track_caller]
pub fn assert_is_error(said: &str) {
    let mut lines = said.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("Error: ")), "{said}");
    let mut hints = 0;
    for line in lines {
        assert!(hints == 0, "the hint is last: {said}");
        hints += usize::from(line.starts_with("Hint: "));
        assert!(line.starts_with("Caused by: ") || line.starts_with("Hint: "), "{said}");
    }
    // Parts of Rust types and stack traces.
    for trace in ["panicked", "RUST_BACKTRACE", "::", "Some(", "Err(", "Error {", " { ", "Os {"] {
        assert!(!said.contains(trace), "`{trace}` in: {said}");
    }
}

/// Runs a tool that must succeed without complaints, and returns its output.
#[track_caller]
pub fn tool(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    quiet(Command::new(program).args(args))
}

/// Like [`tool`], for an existing command.
#[track_caller]
pub fn quiet(command: &mut Command) -> String {
    let output = run(command.env("LC_ALL", "C.UTF-8"), 0);
    assert!(output.stderr.is_empty(), "{command:?} complained:\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Calls `visit` for everything under `dir`, but not for `dir` itself. Does not follow links.
pub fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        visit(&path, &stat);
        if stat.is_dir() {
            walk(&path, visit);
        }
    }
}

/// The facts of a file that a backup promises to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub content: NodeContent,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub mode: u32,
    pub owner: (u32, u32),
}

#[derive(Clone, PartialEq, Eq)]
pub enum NodeContent {
    Folder,
    /// The size and the BLAKE3 hash of the content.
    File(u64, blake3::Hash),
    Symlink(Vec<u8>),
}

impl std::fmt::Debug for NodeContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeContent::Folder => write!(f, "folder"),
            NodeContent::File(size, hash) => write!(f, "file of {size} bytes, {}", &hash.to_hex()[..8]),
            NodeContent::Symlink(target) => write!(f, "link to {}", target.escape_ascii()),
        }
    }
}

/// Everything under a folder, by its path in the folder.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads everything under `dir`, with content; `dir` itself is not in the tree.
pub fn read_tree(dir: &Path) -> Tree {
    // `latest` in a mount is a link.
    let dir = dir.canonicalize().unwrap();
    let mut tree = Tree::new();
    walk(&dir, &mut |path, stat| {
        let name = path.strip_prefix(&dir).unwrap().as_os_str().as_bytes().to_vec();
        tree.insert(name, node(path, stat));
    });
    tree
}

fn node(path: &Path, stat: &fs::Metadata) -> Node {
    let content = if stat.is_dir() {
        NodeContent::Folder
    } else if stat.is_symlink() {
        NodeContent::Symlink(fs::read_link(path).unwrap().into_os_string().as_bytes().to_vec())
    } else {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|hasher| hasher.count()));
        let read = read.unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()));
        assert_eq!(read, stat.len(), "stat and read agree on the size of {}", path.display());
        NodeContent::File(read, hasher.finalize())
    };
    Node {
        content,
        mtime: (stat.mtime(), stat.mtime_nsec()),
        mode: stat.mode() & 0o7777,
        owner: (stat.uid(), stat.gid()),
    }
}

/// Fails if two trees differ in anything, and prints the differences.
#[track_caller]
pub fn assert_same_tree(expected: &Tree, found: &Tree) {
    const SHOWN_MAX: usize = 20;
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let mut differences = Vec::new();
    for name in names {
        let (expected, found) = (expected.get(name), found.get(name));
        if expected != found {
            differences.push(format!("{}:\n  expected {expected:?}\n  found    {found:?}", name.escape_ascii()));
        }
    }
    let shown = differences[..differences.len().min(SHOWN_MAX)].join("\n");
    assert!(differences.is_empty(), "{} differences:\n{shown}", differences.len());
}

/// Returns the folder with the Spam Assassin corpus. Fetches the corpus if it is missing.
pub fn spam_assassin() -> PathBuf {
    if let Some(dir) = std::env::var_os("STRONGROOM_CORPUS") {
        return dir.into();
    }
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(tmp).unwrap();
    // Test programs run at the same time, and only one of them may fetch.
    let lock = File::create(tmp.join("spam-assassin.lock")).unwrap();
    lock.lock().unwrap();
    let dir = tmp.join("spam-assassin");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/corpus-spamassassin.sh");
    run(Command::new(script).arg(&dir).stderr(Stdio::inherit()), 0);
    dir
}

/// Writes a file, with its folders.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(path).and_then(|mut file| file.write_all(content.as_ref())).unwrap();
}

/// Returns bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns the names in a directory, sorted.
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Lists the subcommands that the help of a command shows.
pub fn commands_of(lab: &Lab, command: &[&str]) -> Vec<String> {
    let help = text(&lab.run(command.iter().chain(&["--help"]), 0).stdout);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}
