//! Objects as files in a folder of a local (or locally mounted) file system.
//!
//! [`Backend::save`] writes a temporary file beside its target, syncs it, renames it and syncs the folder. So a name
//! only ever shows a whole object, even if the process is killed or the power fails. A crash may leave behind a file
//! called `.tmp-...`, which listings skip and [`Local::remove_stale_temporaries`] removes.
//!
//! - If a name must not be overwritten, the file is placed by a rename that fails if the name exists (or by a hard
//!   link, where the file system has no such rename). So if two processes save the same name, exactly one wins.
//! - Files have mode 0600 and folders 0700; a umask can only take permissions away.
//! - [`Backend::load_range`] reads with `pread` through a small cache of open files, and holds no lock while it reads.
//!   An open file stays readable after another process removes its name; our own `remove` and a replacing `save` close
//!   it.
//! - `save` never creates the root, and the root is held open: a disk that was unmounted is an error, not an empty
//!   repository.
//!
//! Some file systems cannot sync a folder. They are accepted, but there a power loss may undo the last saves.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::{Backend, BackendError, ObjectKind, ObjectName, Operation};
use crate::local_files;

const TEMPORARY_PREFIX: &str = ".tmp-";
const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");
const TEMPORARY_NAME_TRIES_MAX: u32 = 16;

/// A backend in a folder.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    /// Held open so that the file system cannot be unmounted; else we might write to the empty mount point below.
    _root_file: File,
    /// Folders that are known to exist durably.
    folders: Mutex<HashSet<PathBuf>>,
    open_files: Mutex<OpenFiles>,
    temporary_next: AtomicU64,
}

#[derive(Debug)]
struct OpenFiles {
    /// Increases whenever a file is replaced or removed. A thread that opened a file before that does not put it into
    /// the cache.
    epoch: u64,
    files: LruCache<ObjectName, Arc<OpenFile>>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    bytes: u64,
}

impl Local {
    /// Creates the folder `path` and its parents, and opens it. Creates and removes nothing else.
    ///
    /// The folder may exist if it is empty or holds a repository, even an unfinished one. Whether a repository exists
    /// already is found out when the config is saved.
    ///
    /// # Errors
    /// [`BackendError::ForeignFolder`] if anything else lies in it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref();
        let failed = |source| BackendError::Folder { path: path.to_owned(), source };
        make_folder_with_parents(&std::path::absolute(path).map_err(failed)?).map_err(failed)?;
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            let found = entry.file_name().to_string_lossy().into_owned();
            let is_ours = ObjectKind::ALL
                .into_iter()
                .any(|kind| kind.folder() == found && is_folder == (kind != ObjectKind::Config))
                || found.starts_with(TEMPORARY_PREFIX)
                // The root folder of a new ext4 file system contains this folder.
                || found == "lost+found";
            if !is_ours {
                return Err(BackendError::ForeignFolder { path: path.to_owned(), found });
            }
        }
        Self::open(path)
    }

    /// Opens the folder `path`. Does not check whether it holds a repository.
    ///
    /// # Errors
    /// [`BackendError::NoFolder`] if there is no such folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref();
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => BackendError::NoFolder { path: path.to_owned() },
            _ => BackendError::Folder { path: path.to_owned(), source },
        };
        // Absolute, because the process may change its working directory (a mount in the background does).
        let root = fs::canonicalize(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        let root_file =
            options.read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed()).open(&root).map_err(failed)?;
        // Starts at the time of day, because in different containers processes may have the same process id.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            root,
            _root_file: root_file,
            folders: Mutex::default(),
            open_files: Mutex::new(OpenFiles { epoch: 0, files: LruCache::new(OPEN_FILES_MAX) }),
            temporary_next: AtomicU64::new(now.as_nanos() as u64),
        })
    }

    /// Removes temporary files that a crash left behind and that were last written at least `age` ago. Returns how many
    /// it removed. `age` must be longer than any save may take: a day is a good choice.
    ///
    /// # Errors
    /// [`BackendError::List`]; some files may be removed by then.
    pub fn remove_stale_temporaries(&self, age: Duration) -> Result<u64, BackendError> {
        let mut removed = 0;
        for kind in ObjectKind::ALL {
            self.each_file(kind, &mut |path, file| {
                // A file with a time in the future is not stale.
                let is_stale = |modified: SystemTime| modified.elapsed().is_ok_and(|elapsed| elapsed >= age);
                if file.starts_with(TEMPORARY_PREFIX) && is_stale(fs::metadata(path)?.modified()?) {
                    fs::remove_file(path)?;
                    removed += 1;
                }
                Ok(())
            })
            .map_err(|source| BackendError::List { kind, source })?;
        }
        Ok(removed)
    }

    fn path(&self, name: ObjectName) -> PathBuf {
        self.root.join(name.path())
    }

    /// Calls `each` with the path and the file name of all files where objects of `kind` may lie. Skips files that
    /// vanish in the meantime ([`ErrorKind::NotFound`] from `each`).
    fn each_file(&self, kind: ObjectKind, each: &mut dyn FnMut(&Path, &str) -> io::Result<()>) -> io::Result<()> {
        let folders = match kind {
            ObjectKind::Config => vec![self.root.clone()],
            ObjectKind::Pack => {
                let mut folders = Vec::with_capacity(256);
                self.each_entry(&self.root.join(kind.folder()), &mut |path, folder| {
                    if folder.len() == 2 && fs::metadata(path)?.is_dir() {
                        folders.push(path.to_owned());
                    }
                    Ok(())
                })?;
                folders
            }
            _ => vec![self.root.join(kind.folder())],
        };
        folders.iter().try_for_each(|folder| self.each_entry(folder, each))
    }

    fn each_entry(&self, folder: &Path, each: &mut dyn FnMut(&Path, &str) -> io::Result<()>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            // Folders are created on demand, so a missing folder holds no objects. But if the root is missing, the
            // repository is gone: that is an error.
            Err(error) if error.kind() == ErrorKind::NotFound => return fs::metadata(&self.root).map(drop),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if let Some(file) = entry.file_name().to_str() {
                match each(&entry.path(), file) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    done => done?,
                }
            }
        }
        Ok(())
    }

    /// Creates `folder` and its missing parents below the root.
    fn prepare_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root || self.folders.lock().contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.prepare_folder(parent)?;
        }
        make_folder(folder)?;
        self.folders.lock().insert(folder.to_owned());
        Ok(())
    }

    /// Writes `data` to a new temporary file in `folder`, and returns its path once the content is durable.
    fn write_temporary(&self, folder: &Path, data: &[u8]) -> io::Result<PathBuf> {
        let (path, mut file) = self.create_temporary(folder)?;
        match file.write_all(data).and_then(|()| file.sync_all()) {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn create_temporary(&self, folder: &Path) -> io::Result<(PathBuf, File)> {
        let mut tries = 0;
        loop {
            let number = self.temporary_next.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMPORARY_PREFIX}{}-{number:x}", process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TEMPORARY_NAME_TRIES_MAX => {
                    tries += 1
                }
                opened => return Ok((path, opened?)),
            }
        }
    }

    /// Makes the changes in `folder` durable. If `folder` is missing, makes its removal durable by syncing the root.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match sync_folder(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => sync_folder(&self.root),
            synced => synced,
        }
    }

    /// Returns the open file from the cache if it has at least `wanted` bytes; otherwise opens it again.
    fn open_file(&self, name: ObjectName, wanted: u64) -> io::Result<Arc<OpenFile>> {
        let cached = self.open_files.lock().files.get(&name).cloned();
        // A file that is too short is damaged; another process may have replaced it since.
        if let Some(open) = cached.filter(|open| open.bytes >= wanted) {
            return Ok(open);
        }
        let epoch = self.open_files.lock().epoch;
        let file = open_object(&self.path(name))?;
        let bytes = file.metadata()?.len();
        let open = Arc::new(OpenFile { file, bytes });
        self.keep_open(name, epoch, &open);
        Ok(open)
    }

    /// Puts `open` into the cache, unless a file was replaced or removed since `epoch`, which was read before `open`
    /// was opened.
    fn keep_open(&self, name: ObjectName, epoch: u64, open: &Arc<OpenFile>) {
        let mut open_files = self.open_files.lock();
        // Objects of other kinds are read once, and whole.
        if name.kind() == ObjectKind::Pack && open_files.epoch == epoch {
            open_files.files.put(name, Arc::clone(open));
        }
    }

    /// Reads `range`, which lay within the file when it was opened.
    fn read(&self, name: ObjectName, open: &OpenFile, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let failed = |source| BackendError::from_io(Operation::LoadRange, name, source);
        let bytes = usize::try_from(range.end - range.start).map_err(|_| failed(ErrorKind::OutOfMemory.into()))?;
        let mut data = Vec::with_capacity(bytes);
        while data.len() < bytes {
            let at = range.start + data.len() as u64;
            match rustix::io::pread(&open.file, spare_capacity(&mut data), at) {
                Ok(0) => return Err(BackendError::Short { name, wanted: range.end, got: at }),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // Close the file, so that a retry opens it again: its handle may be stale (NFS).
                    self.forget_open_file(name);
                    return Err(failed(error.into()));
                }
            }
        }
        data.truncate(bytes);
        Ok(data)
    }

    fn forget_open_file(&self, name: ObjectName) {
        let mut open_files = self.open_files.lock();
        open_files.epoch += 1;
        open_files.files.pop(&name);
    }
}

impl Backend for Local {
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        let failed = |source| BackendError::from_io(Operation::Save, name, source);
        let path = self.path(name);
        let folder = path.parent().expect("objects lie below the root");
        let may_replace = name.kind().is_content_addressed();

        let old_bytes = match fs::metadata(&path) {
            Ok(_) if !may_replace => return Err(BackendError::Exists { name }),
            Ok(metadata) => Some(metadata.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // Compare the bytes: after a system crash a file may have the right length but the wrong bytes. Then it is
        // written again.
        if old_bytes == Some(data.len() as u64) && holds(&path, data).map_err(failed)? {
            // Another process may have just renamed the file and not yet synced the folder.
            return sync_folder(folder).map_err(failed);
        }

        self.prepare_folder(folder).map_err(failed)?;
        let temporary = match self.write_temporary(folder, data) {
            // Somebody removed a folder that we had remembered as existing.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.folders.lock().clear();
                self.prepare_folder(folder).and_then(|()| self.write_temporary(folder, data))
            }
            written => written,
        }
        .map_err(failed)?;

        let placed = if may_replace { fs::rename(&temporary, &path) } else { rename_new(&temporary, &path) };
        if let Err(error) = placed {
            let _ = fs::remove_file(&temporary);
            return Err(match error.kind() {
                ErrorKind::AlreadyExists if !may_replace => BackendError::Exists { name },
                _ => failed(error),
            });
        }
        if old_bytes.is_some() {
            self.forget_open_file(name);
        }
        sync_folder(folder).map_err(failed)
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        let failed = |source| BackendError::from_io(Operation::Load, name, source);
        let mut data = Vec::new();
        open_object(&self.path(name)).and_then(|mut file| file.read_to_end(&mut data)).map_err(failed)?;
        Ok(data)
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let wanted = range.end.max(range.start);
        let open =
            self.open_file(name, wanted).map_err(|source| BackendError::from_io(Operation::LoadRange, name, source))?;
        // Check before allocating memory: the range may come from a damaged index.
        if open.bytes < wanted {
            return Err(BackendError::Short { name, wanted, got: open.bytes });
        }
        self.read(name, &open, range.start..wanted)
    }

    fn load_up_to(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let wanted = range.end.max(range.start);
        let open =
            self.open_file(name, wanted).map_err(|source| BackendError::from_io(Operation::LoadRange, name, source))?;
        if open.bytes < range.start {
            return Err(BackendError::Short { name, wanted, got: open.bytes });
        }
        self.read(name, &open, range.start..wanted.min(open.bytes))
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        self.each_file(kind, &mut |path, _| {
            let below_root = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            let name = below_root.and_then(|path| path.parse::<ObjectName>().ok()).filter(|name| name.kind() == kind);
            if let Some(name) = name {
                let metadata = fs::metadata(path)?;
                if metadata.is_file() {
                    each(name, metadata.len());
                }
            }
            Ok(())
        })
        .map_err(|source| BackendError::List { kind, source })
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        let stat = fs::metadata(self.path(name));
        stat.and_then(|stat| if stat.is_file() { Ok(stat.len()) } else { Err(ErrorKind::NotFound.into()) })
            .map_err(|source| BackendError::from_io(Operation::Size, name, source))
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        let path = self.path(name);
        let removed = fs::remove_file(&path);
        self.forget_open_file(name);
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(|source| BackendError::from_io(Operation::Remove, name, source))?,
        }
        // Sync even if the file was already gone: whoever removed it may not have synced the folder yet.
        self.sync_folder(path.parent().expect("objects lie below the root")).map_err(|source| BackendError::Io {
            operation: Operation::Remove,
            name,
            source,
        })
    }

    fn describe(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

/// Returns whether `path` is a regular file with exactly these bytes.
fn holds(path: &Path, data: &[u8]) -> io::Result<bool> {
    let mut held = Vec::with_capacity(data.len());
    match open_object(path) {
        Ok(mut file) => file.read_to_end(&mut held)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(held == data)
}

/// Opens an object. Anything but a regular file counts as not found, as in a listing.
fn open_object(path: &Path) -> io::Result<File> {
    local_files::open(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => ErrorKind::NotFound.into(),
        _ => error,
    })
}

/// Renames `from` to `to`; fails with [`ErrorKind::AlreadyExists`] if `to` exists.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let error = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        Err(error) => io::Error::from(error),
    };
    match error.kind() {
        // NFS and several FUSE file systems do not support this rename.
        ErrorKind::InvalidInput | ErrorKind::Unsupported => link_new(from, to),
        _ => Err(error),
    }
}

/// Does the same as [`rename_new`], with a hard link.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => {}
        // If the answer of an NFS server is lost, the client sends the request again, and then finds our own link.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && fs::metadata(from)?.nlink() == 2 => {}
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            // The file system supports neither, so another process may create `to` between the check and the rename.
            // Names of these kinds are random, except for the config, which is written once.
            if fs::exists(to)? {
                return Err(ErrorKind::AlreadyExists.into());
            }
            return fs::rename(from, to);
        }
        Err(error) => return Err(error),
    }
    // The object is in place. If removing the second name fails, it is only one more stale temporary file.
    let _ = fs::remove_file(from);
    Ok(())
}

/// Creates the folder `path` if it is missing. Either way the folder is durable when this returns.
fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        // Another thread or process created the folder, and may not have synced its parent yet.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made?,
    }
    path.parent().map_or(Ok(()), sync_folder)
}

fn make_folder_with_parents(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), make_folder_with_parents)?;
    make_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems cannot sync a folder (SMB, several FUSE ones), and there is no better way on them.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests;
