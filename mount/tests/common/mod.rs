//! What the test programs share.
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

/// Long enough for a machine that does other things, too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with something mounted on it.
pub struct Fixture {
    // Dropped first: unmounts before the folder is removed.
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

/// Whether to skip a test that needs to mount. Says so.
pub fn no_fuse() -> bool {
    let missing = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err();
    if missing {
        eprintln!("SKIPPED: /dev/fuse cannot be opened here, and this test mounts");
    }
    missing
}

/// Waits until `condition` holds, and fails if it does not within `within`.
#[track_caller]
pub fn eventually(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so after {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether something is mounted at `path`, from the mount table.
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.to_str().unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// What the system said.
#[track_caller]
pub fn code<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => Errno::from_raw_os_error(error.raw_os_error().expect("from the system")),
    }
}

/// A child process closes all files of its parent on its way to another program, those of other tests, too: one at a time.
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

    /// A path below `restore/`.
    pub fn path(&self, below: &str) -> PathBuf {
        self.mount.path("restore").join(below)
    }

    /// A path in a folder that takes files.
    pub fn inbox(&self, below: &str) -> PathBuf {
        self.path(INBOX).join(below)
    }

    /// A file on another file system.
    pub fn outside(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.outside.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    /// Runs a program in the inbox; what it printed is an error if it failed.
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

    /// Waits until exactly these were restored.
    #[track_caller]
    pub fn restored(&self, paths: &[&str]) {
        eventually(PATIENCE, &format!("restored: {paths:?}, not {:?}", self.basket.restored_paths()), || {
            self.basket.restored_paths() == paths
        });
    }

    /// Waits until the last that was restored is this.
    #[track_caller]
    pub fn restored_last(&self, name: &str, bytes: &[u8]) {
        eventually(PATIENCE, &format!("{name} is restored"), || {
            self.basket.restored().last() == Some(&(format!("{INBOX}/{name}"), bytes.to_vec()))
        });
    }

    /// Waits until nothing is there any more, neither name nor draft.
    #[track_caller]
    pub fn gone(&self, name: &str) {
        eventually(PATIENCE, &format!("{name} is gone"), || !self.inbox(name).exists() && self.basket.drafts() == 0);
    }

    #[track_caller]
    pub fn nothing_restored(&self) {
        assert_eq!(self.basket.restored_paths(), Vec::<String>::new());
    }
}
