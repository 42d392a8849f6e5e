//! Stores pieces as files in a folder.
//!
//! ```text
//! FOLDER/<first two digits of the id>/<kind>-<id>.<number>
//! "SRPIECE1" | BLAKE3 over the object's name, the number and the piece (32) | the piece
//! ```
//!
//! A piece is written to a temporary file and renamed, without a sync: its checksum reveals what a crash damaged. The
//! modification time of a file says when it was last used, to about 10 minutes. If a piece cannot be read, it counts as
//! missing; errors are reported only when writing.
//!
//! A folder that other users can write to, or that is reached through a link, is neither read nor changed: whoever can
//! write there could make this user create and remove files elsewhere.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::OFlags;

use super::{PIECE_LEN, PieceId};
use crate::backend::{ObjectKind, ObjectName};
use crate::local_files::{self, require_own};

const MAGIC: &[u8; 8] = b"SRPIECE1";
const HEADER_LEN: usize = MAGIC.len() + blake3::OUT_LEN;
/// Maximum length in bytes of a file that holds a piece.
pub const FILE_LEN_MAX: u64 = (HEADER_LEN + PIECE_LEN) as u64;
const TEMPORARY_PREFIX: &str = ".piece-";
/// Age from which the modification time of a used piece is set again. A smaller value would write to the disk more
/// often.
const USED_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// Name and content of a file that tells backup programs to leave the folder out (https://bford.info/cachedir/).
const TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");

/// The folder of a cache.
pub struct Disk {
    folder: PathBuf,
    /// Number of removals so far. A piece whose fetch began before the latest removal is not kept.
    removals: AtomicU64,
    /// Held while a piece gets its final name and while pieces are removed, so that no piece appears after its removal.
    changing: Mutex<()>,
}

/// A file that belongs to the cache.
pub struct CacheFile {
    pub path: PathBuf,
    pub stat: Metadata,
    /// True for a piece that is still being written, or that a crash left unfinished.
    pub is_temporary: bool,
}

impl Disk {
    pub fn new(folder: PathBuf) -> Self {
        // Absolute, because the process may change its working directory (a mount in the background does).
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        Self { folder, removals: AtomicU64::default(), changing: Mutex::default() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn subfolder(&self, name: ObjectName) -> PathBuf {
        self.folder.join(&id_of(name)[..2])
    }

    /// Returns the folder that holds the pieces of an object, if it exists and only this user can write to it.
    fn own_subfolder(&self, name: ObjectName) -> io::Result<PathBuf> {
        let subfolder = self.subfolder(name);
        require_own(&self.folder)?;
        require_own(&subfolder)?;
        Ok(subfolder)
    }

    /// Creates the folder for the pieces of an object if it is missing, and returns it.
    fn make_subfolder(&self, name: ObjectName) -> io::Result<PathBuf> {
        local_files::own_folder(&self.folder)?;
        let tag = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.folder.join(TAG.0));
        // Ignore errors: only other programs use the tag.
        let _ = tag.and_then(|mut tag| tag.write_all(TAG.1));
        local_files::own_folder(&self.subfolder(name))?;
        self.own_subfolder(name)
    }

    /// Returns the piece, if it is on the disk and undamaged.
    pub fn load(&self, id: &PieceId) -> Option<Bytes> {
        let path = self.own_subfolder(id.name).ok()?.join(file_name(id));
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

    /// Returns the number of removals so far. Read it before a fetch begins, and pass it to [`Disk::store`].
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Writes a piece, unless something was removed since `removals` was read. `temporary` is the number of the
    /// temporary file. Returns the length of the file in bytes.
    pub fn store(&self, id: &PieceId, piece: &[u8], removals: u64, temporary: u64) -> io::Result<u64> {
        let folder = match self.own_subfolder(id.name) {
            // The folder does not exist yet, or somebody deleted it.
            Err(error) if error.kind() == ErrorKind::NotFound => self.make_subfolder(id.name)?,
            folder => folder?,
        };
        let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}-{temporary:x}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = (|| {
            file.write_all(&[MAGIC, &sum(id, piece).as_bytes()[..], piece].concat())?;
            let _changing = self.changing.lock();
            match self.removals() == removals {
                true => fs::rename(&temporary, folder.join(file_name(id))),
                false => fs::remove_file(&temporary),
            }?;
            Ok((HEADER_LEN + piece.len()) as u64)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn begin_removal(&self) -> MutexGuard<'_, ()> {
        let changing = self.changing.lock();
        self.removals.fetch_add(1, Ordering::SeqCst);
        changing
    }

    /// Removes the pieces `numbers` of an object.
    pub fn remove(&self, name: ObjectName, numbers: Range<u32>) {
        let _changing = self.begin_removal();
        let Ok(folder) = self.own_subfolder(name) else { return };
        for number in numbers {
            let _ = fs::remove_file(folder.join(file_name(&PieceId { name, number })));
        }
    }

    /// Removes all pieces of an object.
    pub fn remove_object(&self, name: ObjectName) {
        let _changing = self.begin_removal();
        let prefix = file_prefix(name);
        let Ok(entries) = self.own_subfolder(name).and_then(fs::read_dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|file| file.starts_with(&prefix)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Calls `visit` for every file that belongs to the cache.
    pub fn each_file(&self, visit: &mut dyn FnMut(CacheFile)) -> io::Result<()> {
        match require_own(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            own => own?,
        }
        for folder in entries(&self.folder)? {
            let is_ours = folder.file_name().is_some_and(|name| name.len() == 2) && require_own(&folder).is_ok();
            for path in if is_ours { entries(&folder)? } else { Vec::new() } {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let is_temporary = is_temporary(name);
                // Another process may have removed the file.
                if (is_temporary || is_piece(name))
                    && let Ok(stat) = fs::symlink_metadata(&path)
                {
                    visit(CacheFile { path, stat, is_temporary });
                }
            }
        }
        Ok(())
    }
}

/// Returns the paths in a folder; an empty list if the folder is missing or is not a folder.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read(path: &Path, id: &PieceId) -> io::Result<Bytes> {
    // Do not follow links, and do not block on pipes or devices.
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

/// Sets the modification time of a used file to now, if it is at least [`USED_AGE_MAX`] old.
fn note_use(file: &File, stat: &Metadata) {
    let now = SystemTime::now();
    if stat.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age >= USED_AGE_MAX)) {
        // Ignore errors: on a read-only file system nothing is removed either, so the time does not matter.
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

fn file_name(id: &PieceId) -> String {
    format!("{}{}", file_prefix(id.name), id.number)
}

fn file_prefix(name: ObjectName) -> String {
    format!("{}-{}.", name.kind(), id_of(name))
}

/// Returns whether `name` is the file name of a piece. Other files in the folder are not ours to remove.
fn is_piece(name: &str) -> bool {
    let Some((kind, rest)) = name.split_once('-') else { return false };
    let Some((id, number)) = rest.split_once('.') else { return false };
    let is_kind = ObjectKind::ALL.iter().any(|known| known.folder() == kind);
    is_kind
        && id.len() == 64
        && is_all(id, |byte| byte.is_ascii_hexdigit())
        && is_all(number, |byte| byte.is_ascii_digit())
}

/// Returns whether `name` is the name of a temporary file of this cache.
fn is_temporary(name: &str) -> bool {
    let numbers = name.strip_prefix(TEMPORARY_PREFIX).and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(process, number)| {
        is_all(process, |byte| byte.is_ascii_digit()) && is_all(number, |byte| byte.is_ascii_hexdigit())
    })
}

fn is_all(text: &str, what: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(what)
}
