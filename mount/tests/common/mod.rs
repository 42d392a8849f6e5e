//! Helpers for all test programs.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod model;
pub mod outbox;
pub mod walk;

use model::{Model, Shelf, Tree};
use outbox::{Basket, INBOX};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strongroom_mount::{Mounted, Options, Target, mount};
use tempfile::TempDir;

/// Maximum waiting time. Long enough for a machine that is busy with other work.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted folder.
pub struct Fixture {
    // This field is dropped first, so that the mount ends before its folder is removed.
    pub mounted: Mounted,
    pub folder: TempDir,
}

impl Fixture {
    pub fn new(target: Target, options: &Options) -> Fixture {
        let folder = TempDir::with_prefix("strongroom-mount-").unwrap();
        let mounted = mount(target, folder.path(), options).unwrap();
        Fixture { mounted, folder }
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }
}

/// Returns true, and prints that the test is skipped, if nothing can be mounted here.
pub fn no_fuse() -> bool {
    let missing = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err();
    if missing {
        eprintln!("SKIPPED: /dev/fuse cannot be opened here, and this test mounts");
    }
    missing
}

/// Waits until `condition` is true. Fails if that takes longer than `within`.
#[track_caller]
pub fn eventually(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so after {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether the mount table has a mount at `path`.
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.to_str().unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// Returns the errno of a failed operation.
#[track_caller]
pub fn code<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => Errno::from_raw_os_error(error.raw_os_error().expect("from the system")),
    }
}

/// Held during each test, so that tests run one at a time: a child process that starts closes its copies of all files
/// that are open in this process, including those of other tests.
static ALONE: Mutex<()> = Mutex::new(());

/// A mount with an outbox in memory.
pub struct Dropping {
    pub mount: Fixture,
    pub basket: Arc<Basket>,
    outside: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Dropping {
    pub fn new() -> Dropping {
        Dropping::over(&Shelf::new(&[(1, "one", &Model::new(Tree::empty()))]))
    }

    pub fn over(shelf: &Arc<Shelf>) -> Dropping {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let basket = Basket::new();
        let target = Target::Restoring(shelf.clone(), Arc::new(outbox::Handle(basket.clone())));
        let options = Options { poll_interval: Duration::from_millis(100), ..Options::default() };
        let mount = Fixture::new(target, &options);
        let outside = TempDir::with_prefix("strongroom-outside-").unwrap();
        Dropping { mount, basket, outside, _alone: alone }
    }

    /// Returns a path below `restore/`.
    pub fn path(&self, below: &str) -> PathBuf {
        self.mount.path("restore").join(below)
    }

    /// Returns a path in a folder into which files can be dropped.
    pub fn inbox(&self, below: &str) -> PathBuf {
        self.path(INBOX).join(below)
    }

    /// Creates a file on another file system and returns its path.
    pub fn outside(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.outside.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    /// Runs a program in the inbox. Returns its output, as an error if it failed.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.inbox(""))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    #[track_caller]
    pub fn sh(&self, script: &str) {
        self.tool("bash", &["-ec", script]).unwrap();
    }

    /// Waits until exactly these paths were restored.
    #[track_caller]
    pub fn restored(&self, paths: &[&str]) {
        eventually(PATIENCE, &format!("restored: {paths:?}, not {:?}", self.basket.restored_paths()), || {
            self.basket.restored_paths() == paths
        });
    }

    /// Waits until this file was the last one restored.
    #[track_caller]
    pub fn restored_last(&self, name: &str, bytes: &[u8]) {
        eventually(PATIENCE, &format!("{name} is restored"), || {
            self.basket.restored().last() == Some(&(format!("{INBOX}/{name}"), bytes.to_vec()))
        });
    }

    /// Waits until neither the name nor any draft exists.
    #[track_caller]
    pub fn gone(&self, name: &str) {
        eventually(PATIENCE, &format!("{name} is gone"), || !self.inbox(name).exists() && self.basket.drafts() == 0);
    }

    #[track_caller]
    pub fn nothing_restored(&self) {
        assert_eq!(self.basket.restored_paths(), Vec::<String>::new());
    }
}
