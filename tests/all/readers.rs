//! Sixty-four readers at once, while snapshots come and go. No reader gets an error or wrong bytes, none is stuck,
//! memory does not grow, and the mount ends at once.
//!
//! `make readers` runs it for ten minutes; the ordinary suite for `STRONGROOM_READERS_S` seconds, five if not set.

use crate::common;

use common::{Lab, Mount, PATIENCE, eventually, names, no_fuse, noise, quiet, walk, write};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const READERS: usize = 64;
const FOLDERS: usize = 24;
const MAILS: usize = 40;
/// Length of the large file in each folder, in bytes.
const LARGE_BYTES: usize = (6 << 20) / FOLDERS;
const NEEDLE: &str = "heliograph";
/// Maximum time for one action of a reader, on a busy machine with so many readers.
const STUCK: Duration = Duration::from_secs(120);
/// Maximum growth of memory between the two halves of the test, in KiB. The allocator and the kernel's counting may add
/// a little.
const GROWTH_KIB_MAX: u64 = 12 << 10;

/// Writes folders of mails, each with a large file that does not compress. Returns the paths of all files below `root`.
fn plant(root: &Path) -> Vec<PathBuf> {
    for folder in 0..FOLDERS {
        for mail in 0..MAILS {
            let number = folder * MAILS + mail;
            let word = if number.is_multiple_of(37) { NEEDLE } else { "semaphore" };
            let body: String = noise(number as u64, 3_000).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
            let mail = format!(
                "From: a@contoso.com\r\nSubject: {number} {word}\r\nMessage-ID: <{number}@x>\r\n\r\n{body}\r\n"
            );
            write(&root.join(format!("{folder:02}/{number:04}.eml")), mail);
        }
        write(&root.join(format!("{folder:02}/large.bin")), noise(folder as u64, LARGE_BYTES));
    }
    let mut files = Vec::new();
    walk(root, &mut |path, metadata| {
        if metadata.is_file() {
            files.push(path.strip_prefix(root).unwrap().to_owned());
        }
    });
    files
}

/// The two places that readers compare: the source folder and the mount.
struct Views<'a> {
    source: &'a Path,
    mounted: PathBuf,
    files: &'a [PathBuf],
    /// The output of ripgrep and tar for the source.
    found: String,
    archived: String,
    copies: PathBuf,
}

fn found(below: &Path) -> String {
    quiet(Command::new("rg").args(["--count", "--sort=path", "--no-config", NEEDLE]).current_dir(below))
}

/// Through a pipe: `tar` reads no file if it writes to /dev/null itself.
fn archived(below: &Path) -> String {
    const TAR: &str = "tar -c --sort=name --format=ustar . | sha256sum";
    quiet(Command::new("sh").args(["-c", TAR]).current_dir(below))
}

impl Views<'_> {
    /// Does the action of the reader with this number once. `random` is different each time.
    fn read(&self, reader: usize, random: u64) {
        let file = &self.files[random as usize % self.files.len()];
        match reader % 8 {
            0 => assert_eq!(found(&self.mounted), self.found),
            1 => assert_eq!(archived(&self.mounted), self.archived),
            2 => {
                let copy = self.copies.join(reader.to_string());
                let folder = file.parent().unwrap();
                quiet(Command::new("cp").arg("-r").arg(self.mounted.join(folder)).arg(&copy));
                quiet(Command::new("diff").arg("-r").arg(self.source.join(folder)).arg(&copy));
                fs::remove_dir_all(copy).unwrap();
            }
            3 => {
                let is_there = |path: &Path| path.symlink_metadata().unwrap();
                let (expected, there) = (is_there(&self.source.join(file)), is_there(&self.mounted.join(file)));
                assert_eq!((expected.len(), expected.mtime()), (there.len(), there.mtime()), "{file:?}");
                assert!(self.mounted.join(file).with_extension("absent").symlink_metadata().is_err());
            }
            4 | 5 => {
                let (expected, there) =
                    (fs::read(self.source.join(file)).unwrap(), fs::read(self.mounted.join(file)).unwrap());
                assert!(expected == there, "{file:?} differs");
            }
            6 => {
                let large = self.files.iter().filter(|file| file.ends_with("large.bin"));
                let large = large.clone().nth(random as usize % large.count()).unwrap();
                let offset = random % (LARGE_BYTES - 4096) as u64;
                let pieces = [self.source, &self.mounted].map(|view| {
                    let mut piece = [0; 4096];
                    File::open(view.join(large)).unwrap().read_exact_at(&mut piece, offset).unwrap();
                    piece
                });
                assert!(pieces[0] == pieces[1], "{large:?} differs at {offset}");
            }
            _ => {
                let mut files = 0;
                walk(&self.mounted, &mut |_, metadata| files += usize::from(metadata.is_file()));
                assert_eq!(files, self.files.len());
            }
        }
    }
}

fn resident_kib(mount: &Mount) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
}

/// Adds and removes a snapshot, and keeps a file of it open in the meantime.
fn come_and_go(lab: &Lab, mount: &Mount, round: u64) {
    let source = lab.dir("moving");
    // The source is small, so that the caches' share of it does not look like growth.
    let content = noise(round, 10_000);
    write(&source.join("file"), &content);
    let before = names(mount.path("snapshots"));
    let objects = lab.objects();
    lab.backup(&source, "moving");
    let shown = || names(mount.path("snapshots")).into_iter().find(|name| !before.contains(name));
    eventually("the new snapshot is shown", PATIENCE, || shown().is_some());
    let name = shown().unwrap();
    let open = File::open(mount.path("snapshots").join(&name).join("file")).unwrap();
    let mut first = [0; 10];
    open.read_exact_at(&mut first, 0).unwrap();
    let new: Vec<_> = lab.objects().into_keys().filter(|path| !objects.contains_key(path)).collect();
    let forgotten = new.iter().find(|path| path.starts_with("snapshots/")).expect("a snapshot");
    fs::remove_file(lab.repository().join(forgotten)).unwrap();
    eventually("the forgotten snapshot is gone", PATIENCE, || shown().is_none());
    let mut read = vec![0; content.len()];
    open.read_exact_at(&mut read, 0).unwrap();
    assert!(read == content, "what was open when the snapshot was forgotten");
}

/// Ends the readers when dropped, also if this thread fails: it would wait for them otherwise.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn sixty_four_readers_while_snapshots_come_and_go() {
    if no_fuse() {
        return;
    }
    let seconds = std::env::var("STRONGROOM_READERS_S").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let lab = Lab::new();
    let source = lab.dir("source");
    let files = plant(&source);
    lab.backup(&source, "steady");
    let mount = lab.mount_foreground(&[]);
    let steady = mount.path("snapshots").join(&names(mount.path("snapshots"))[0]);
    let views = Views {
        found: found(&source),
        archived: archived(&source),
        source: &source,
        mounted: steady,
        files: &files,
        copies: lab.dir("copies"),
    };
    assert_eq!(views.found.lines().count(), (FOLDERS * MAILS).div_ceil(37));

    let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let done = [const { AtomicU64::new(0) }; READERS];
    let half = Duration::from_secs(seconds) / 2;
    let mut peaks = [0; 2];
    std::thread::scope(|scope| {
        let ending = Ending(&is_over);
        for (reader, done) in done.iter().enumerate() {
            let (views, is_over) = (&views, &is_over);
            scope.spawn(move || {
                let mut random = reader as u64;
                while !is_over.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let began = Instant::now();
                    views.read(reader, random >> 20);
                    assert!(began.elapsed() < STUCK, "reader {reader} took {:?}", began.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                come_and_go(&lab, &mount, rounds.fetch_add(1, Ordering::Relaxed));
            }
        });
        // From then on the caches are full.
        eventually("every reader has been through", STUCK, || done.iter().all(|done| done.load(Ordering::Relaxed) > 0));
        let started = Instant::now();
        while started.elapsed() < 2 * half {
            let peak = &mut peaks[usize::from(started.elapsed() > half)];
            *peak = resident_kib(&mount).max(*peak);
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(ending);
    });
    let (done, rounds) = (done.map(AtomicU64::into_inner).iter().sum::<u64>(), rounds.into_inner());
    eprintln!("{seconds} s: {done} reads, {rounds} snapshots came and went, peaks {peaks:?} KiB");
    assert!(peaks[1] < peaks[0] + GROWTH_KIB_MAX, "from {} to {} KiB", peaks[0], peaks[1]);

    let leaving = Instant::now();
    mount.unmount();
    assert!(leaving.elapsed() < Duration::from_secs(2), "it took {:?} to unmount", leaving.elapsed());
}
