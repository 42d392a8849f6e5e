//! Tests with the real programs that a snapshot of any size is mounted, listed and read at the same cost and in
//! constant memory.
//!
//! `make scale` runs it at full size. The ordinary suite uses `STRONGROOM_SCALE_MAILS` mails, by default a hundred
//! thousand.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Maximum memory of the mount in KiB, whatever it shows.
const MEMORY_KIB_MAX: u64 = 150 << 10;
/// Number of mails of one user, without the large folder.
const MAILS_PER_USER: usize = 12_000;

fn number(variable: &str, usually: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

/// Returns the program that is built beside this package's own program.
fn strongroom() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_strongroom-scale")).with_file_name("strongroom");
    assert!(beside.exists(), "build the program first: {} is missing", beside.display());
    beside
}

/// A folder with a repository, its local state and a mount point.
struct Place(tempfile::TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns a command on the repository.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--repo").arg(self.path("repository")).arg("--password-file").arg(self.path("password"));
        command.arg("--state-dir").arg(self.path("state"));
        command
    }
}

struct Mounted {
    process: Child,
    at: PathBuf,
}

impl Mounted {
    /// Mounts the repository and waits until the folder shows something. Returns how long that took.
    fn new(place: &Place) -> (Self, Duration) {
        let at = place.path("mount");
        fs::create_dir(&at).unwrap();
        let started = Instant::now();
        let mut command = place.command(&strongroom());
        command.arg("mount").arg(&at).args(["--foreground", "--quiet"]);
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        let mounted = Self { process, at };
        while !mounted.at.join("latest").exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "the folder is not mounted");
            std::thread::sleep(Duration::from_millis(2));
        }
        (mounted, started.elapsed())
    }

    /// Returns the peak memory of the process so far.
    fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line of memory");
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Runs `work` on the folder. Prints how long it took, and the peak memory of the mount so far.
    fn measured<T>(&self, what: &str, work: impl FnOnce(&Path) -> T) -> T {
        let started = Instant::now();
        let done = work(&self.at.join("latest/Users"));
        let (took, peak) = (started.elapsed(), self.peak_kib());
        eprintln!("{what}: {took:?}, peak {} MiB", peak >> 10);
        assert!(peak < MEMORY_KIB_MAX, "after {what} the mount has had {peak} KiB");
        done
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        );
        let _ = self.process.wait();
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Returns the number of entries that find(1) finds while it reads the attributes of each.
fn found(folder: &Path) -> usize {
    let output = Command::new("find").arg(folder).args(["-type", "f", "-size", "+0", "-printf", "x"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.len()
}

#[test]
fn a_snapshot_of_any_size_is_shown_in_flat_memory() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: there is no /dev/fuse");
        return;
    }
    let (mails, large) = (number("STRONGROOM_SCALE_MAILS", 100_000), number("STRONGROOM_SCALE_FOLDER", 20_000));
    let place = Place(tempfile::tempdir().unwrap());
    let mut password =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place.path("password")).unwrap();
    std::io::Write::write_all(&mut password, b"a password\n").unwrap();
    assert!(place.command(&strongroom()).args(["init", "--quiet"]).stdout(Stdio::null()).status().unwrap().success());
    let started = Instant::now();
    let mut generate = place.command(Path::new(env!("CARGO_BIN_EXE_strongroom-scale")));
    generate.args(["--mails", &mails.to_string(), "--large-folder", &large.to_string()]);
    assert!(generate.status().unwrap().success());
    eprintln!("written in {:?}", started.elapsed());

    let (mounted, took) = Mounted::new(&place);
    eprintln!("mounted in {took:?}");
    let users = mounted.measured("listing the users", names);
    assert_eq!(users.len() as u64, mails.div_ceil(MAILS_PER_USER as u64));
    mounted.measured("listing two levels below one", |_| {
        let outlook = users[0].join("Outlook");
        names(&outlook).iter().for_each(|folder| assert!(!names(folder).is_empty()));
    });
    let of_one = mounted.measured("find over one user", |_| found(users.last().unwrap()));
    assert_eq!(of_one, MAILS_PER_USER + if users.len() == 1 { large as usize } else { 0 });
    let journal = users.iter().map(|user| user.join("Outlook/Journal")).find(|folder| folder.exists()).unwrap();
    let all = mounted.measured("listing the large folder", |_| names(&journal));
    assert_eq!(all.len() as u64, large);
    assert_eq!(mounted.measured("find over the large folder", |_| found(&journal)) as u64, large);
    mounted.measured("reading a hundred mails", |_| {
        for mail in all.iter().step_by((all.len() / 100).max(1)) {
            let mut text = String::new();
            fs::File::open(mail).unwrap().read_to_string(&mut text).unwrap();
            assert!(text.starts_with("From: "), "{text}");
        }
    });
}
