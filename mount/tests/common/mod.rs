//! What the test programs share.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod model;
pub mod walk;

use std::path::{Path, PathBuf};
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
