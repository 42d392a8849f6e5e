//! Pieces as files in a folder, at most so many bytes of them, the ones that were used last.
//!
//! ```text
//! FOLDER/<first two digits of the id>/<kind>-<id>.<number>
//! "SRPIECE1" | BLAKE3 over the object's name, the number and the piece (32) | the piece
//! ```
//!
//! A piece is written beside its place and renamed, without a sync: what a crash leaves is found out by its sum. The time of a
//! file says when it was last used, roughly. The folder is counted now and then, after so much was written that
//! it cannot have grown beyond its size, and the oldest pieces go, to the minute. Nothing here ever fails: a piece is there or not.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::{PIECE_LEN, PieceId};
use crate::backend::{ObjectKind, ObjectName};

const MAGIC: &[u8; 8] = b"SRPIECE1";
const HEADER_LEN: usize = MAGIC.len() + blake3::OUT_LEN;
const TEMPORARY_PREFIX: &str = ".tmp-";
/// What a crash left of a piece that was being written is older than any that still is.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// A piece's time is set anew when it is so old.
const USED_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// How long nothing is written after writing failed.
const PAUSE: Duration = Duration::from_secs(30);
/// Two users of a folder together may write four of these parts of its size before they count it.
const STEPS: u64 = 32;
/// Tells programs that make backups to leave the folder out (https://bford.info/cachedir/).
const TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");

/// The folder of a cache.
pub struct Disk {
    folder: PathBuf,
    bytes_max: u64,
    pause: Duration,
    /// Written since the folder was counted.
    added: AtomicU64,
    counting: Mutex<()>,
    /// Writing failed; nothing is written before.
    paused_until: Mutex<Option<Instant>>,
    /// The file system is full: more has to go than the size asks for.
    is_full: AtomicBool,
    has_warned: AtomicBool,
    temporary_next: AtomicU64,
}

impl Disk {
    pub fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self::with_pause(folder, bytes_max, PAUSE)
    }

    pub fn with_pause(folder: PathBuf, bytes_max: u64, pause: Duration) -> Self {
        // Absolute, as the process may change its working folder (a mount in the background does).
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            folder,
            bytes_max,
            pause,
            // Others may have filled it: nothing is written before it is counted.
            added: AtomicU64::new(u64::MAX / 2),
            counting: Mutex::default(),
            paused_until: Mutex::default(),
            is_full: AtomicBool::default(),
            has_warned: AtomicBool::default(),
            temporary_next: AtomicU64::new(now.as_nanos() as u64),
        }
    }

    fn subfolder(&self, name: ObjectName) -> PathBuf {
        self.folder.join(&id_of(name)[..2])
    }

    /// Returns where the piece lies, if it is here.
    pub fn path(&self, id: &PieceId) -> PathBuf {
        self.subfolder(id.name).join(format!("{}{}", file_prefix(id.name), id.number))
    }

    /// Returns the piece, if it is here and whole.
    pub fn load(&self, id: &PieceId) -> Option<Bytes> {
        let path = self.path(id);
        match read(&path, id) {
            Ok(piece) => Some(piece),
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    tracing::debug!(object = %id.name, piece = id.number, "a piece in the cache is damaged");
                    let _ = fs::remove_file(path);
                }
                None
            }
        }
    }

    /// Keeps the piece, if it can be kept.
    pub fn store(&self, id: &PieceId, piece: &[u8]) {
        let step = self.bytes_max / STEPS;
        let is_paused = self.paused_until.lock().is_some_and(|until| Instant::now() < until);
        if is_paused || self.bytes_max < PIECE_LEN as u64 {
            return;
        }
        if self.added.load(Ordering::Relaxed) >= step {
            self.count();
        }
        // Another thread still counts, and so much more cannot be written before it is done.
        if self.added.load(Ordering::Relaxed) >= 2 * step.max(1) {
            return;
        }
        self.added.fetch_add(used_len((HEADER_LEN + piece.len()) as u64), Ordering::Relaxed);
        match self.write(id, piece) {
            Ok(()) => *self.paused_until.lock() = None,
            Err(error) => self.pause(&error),
        }
    }

    fn write(&self, id: &PieceId, piece: &[u8]) -> io::Result<()> {
        let folder = self.subfolder(id.name);
        let number = self.temporary_next.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}-{number:x}", process::id()));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let mut file = match create() {
            // Not there yet, or somebody deleted it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_folder(&folder)?;
                create()?
            }
            created => created?,
        };
        let written = (|| {
            file.write_all(MAGIC)?;
            file.write_all(sum(id, piece).as_bytes())?;
            file.write_all(piece)?;
            fs::rename(&temporary, self.path(id))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let tag = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.folder.join(TAG.0));
        // Only useful to others.
        let _ = tag.and_then(|mut tag| tag.write_all(TAG.1));
        Ok(())
    }

    fn pause(&self, error: &io::Error) {
        *self.paused_until.lock() = Some(Instant::now() + self.pause);
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            self.is_full.store(true, Ordering::Relaxed);
            // Makes room first.
            self.added.store(u64::MAX / 2, Ordering::Relaxed);
        }
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(folder = %self.folder.display(), %error, "the cache cannot be written; reading goes on without");
        }
    }

    /// Forgets one piece.
    pub fn remove(&self, id: &PieceId) {
        let _ = fs::remove_file(self.path(id));
    }

    /// Forgets all pieces of an object.
    pub fn remove_object(&self, name: ObjectName) {
        let prefix = file_prefix(name);
        let Ok(entries) = fs::read_dir(self.subfolder(name)) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|file| file.starts_with(&prefix)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Counts the folder, and removes the pieces that were not used for longest until there is room again for what several processes
    /// may add before they count.
    fn count(&self) {
        let Some(_alone) = self.counting.try_lock() else { return };
        let now = SystemTime::now();
        let mut bytes_by_age = BTreeMap::<u64, u64>::new();
        let counted = self.each_piece(&mut |path, stat| {
            let age = stat.modified().ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            if !is_piece(path) {
                if age >= TEMPORARY_AGE_MAX {
                    let _ = fs::remove_file(path);
                }
                return;
            }
            *bytes_by_age.entry(age.as_secs() / 60).or_default() += used_len(stat.len());
        });
        if let Err(error) = counted {
            return self.pause(&error);
        }
        let total: u64 = bytes_by_age.values().sum();
        let mut kept_max = self.bytes_max - 4 * (self.bytes_max / STEPS);
        if self.is_full.swap(false, Ordering::Relaxed) {
            kept_max = kept_max.min(total / 8 * 7);
        }
        let mut excess = total.saturating_sub(kept_max);
        for bytes in bytes_by_age.values_mut().rev() {
            *bytes = excess.min(*bytes);
            excess -= *bytes;
        }
        if total > kept_max {
            self.remove_oldest(now, bytes_by_age);
        }
        self.added.store(0, Ordering::Relaxed);
    }

    /// Removes so many bytes of each age, in minutes before `now`.
    fn remove_oldest(&self, now: SystemTime, mut bytes_by_age: BTreeMap<u64, u64>) {
        let removed = self.each_piece(&mut |path, stat| {
            let age = stat.modified().ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            if let Some(excess) = bytes_by_age.get_mut(&(age.as_secs() / 60))
                && *excess > 0
                && is_piece(path)
                && fs::remove_file(path).is_ok()
            {
                *excess = excess.saturating_sub(used_len(stat.len()));
            }
        });
        if let Err(error) = removed {
            self.pause(&error);
        }
    }

    /// Calls `visit` for every file of ours: pieces, and what is to become one.
    fn each_piece(&self, visit: &mut dyn FnMut(&Path, &Metadata)) -> io::Result<()> {
        for folder in entries(&self.folder)? {
            let is_ours = folder.file_name().is_some_and(|name| name.len() == 2);
            for path in if is_ours { entries(&folder)? } else { Vec::new() } {
                let is_ours = is_piece(&path) || file_name(&path).starts_with(TEMPORARY_PREFIX);
                // Others remove, too.
                if is_ours && let Ok(stat) = fs::symlink_metadata(&path) {
                    visit(&path, &stat);
                }
            }
        }
        Ok(())
    }
}

/// Returns the paths in a folder; none where there is no folder.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read(path: &Path, id: &PieceId) -> io::Result<Bytes> {
    // Whatever else lies there must not make us wait.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let stat = file.metadata()?;
    let len = usize::try_from(stat.len()).unwrap_or(usize::MAX);
    if !stat.is_file() || !(HEADER_LEN..=HEADER_LEN + PIECE_LEN).contains(&len) {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(len);
    (&file).take(len as u64).read_to_end(&mut bytes)?;
    let (header, piece) = bytes.split_at_checked(HEADER_LEN).ok_or(ErrorKind::InvalidData)?;
    if header[..MAGIC.len()] != *MAGIC || header[MAGIC.len()..] != *sum(id, piece).as_bytes() {
        return Err(ErrorKind::InvalidData.into());
    }
    note_use(&file, &stat);
    Ok(Bytes::from(bytes).slice(HEADER_LEN..))
}

/// Sets the time of a file that was used, if it says something much earlier.
fn note_use(file: &File, stat: &Metadata) {
    let now = SystemTime::now();
    if stat.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age >= USED_AGE_MAX)) {
        // On a file system that is read-only nothing is removed either.
        let _ = file.set_modified(now);
    }
}

fn sum(id: &PieceId, piece: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.name.path().as_bytes()).update(&id.number.to_le_bytes()).update(piece);
    hasher.finalize()
}

/// Returns the id of an object in hexadecimal.
fn id_of(name: ObjectName) -> String {
    let path = name.path();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn file_prefix(name: ObjectName) -> String {
    format!("{}-{}.", name.kind(), id_of(name))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Whether a file is called as pieces are: what else lies in the folder is not ours to remove.
fn is_piece(path: &Path) -> bool {
    let Some((kind, rest)) = file_name(path).split_once('-') else { return false };
    let Some((id, number)) = rest.split_once('.') else { return false };
    ObjectKind::ALL.iter().any(|known| known.folder() == kind)
        && id.len() == 64
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns what a file of `len` bytes takes of a disk, roughly.
fn used_len(len: u64) -> u64 {
    len.next_multiple_of(4096)
}
