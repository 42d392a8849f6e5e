//! Open folders of a source. Each entry of a folder is reached through the folder's descriptor, one name at a time, and
//! never through a symbolic link. So an entry that is renamed or replaced during the walk cannot lead out of the
//! source.
//!
//! Only a limited number of folders stays open. A folder that was closed is opened again from the nearest open folder
//! above it, and must still have the same inode number.

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

/// Maximum number of folders that stay open, not counting the roots and those that a thread is using. By default a
/// process may have 1024 descriptors, and the local state needs many of them.
const OPEN_FOLDERS_MAX: usize = 128;
/// Size of the buffer for listing a folder, in bytes.
const LISTING_BYTES: usize = 32 << 10;

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Device and inode number.
pub(super) type Id = (u64, u64);

pub(super) fn id_of(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// A folder of a source.
pub(super) struct Folder {
    /// The folder that this one lies in; `None` for a root, which stays open.
    above: Option<Arc<Folder>>,
    name: Box<[u8]>,
    pub(super) id: Id,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    open_folders: Arc<OpenFolders>,
}

/// A name in a folder.
pub(super) struct Name {
    pub(super) bytes: Box<[u8]>,
    /// Whether the entry is a folder; `None` if the listing does not say.
    pub(super) is_folder: Option<bool>,
}

impl Folder {
    /// Opens a root. `path` comes from the user, so it may contain symbolic links.
    pub(super) fn root(path: &Path, open_folders: &Arc<OpenFolders>) -> Result<(Arc<Self>, Stat), Errno> {
        let fd = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok((Self::new(None, b"", &stat, fd, open_folders), stat))
    }

    fn new(
        above: Option<Arc<Self>>,
        name: &[u8],
        stat: &Stat,
        fd: OwnedFd,
        open_folders: &Arc<OpenFolders>,
    ) -> Arc<Self> {
        let fd = Mutex::new(Some(Arc::new(fd)));
        Arc::new(Self { above, name: name.into(), id: id_of(stat), fd, open_folders: open_folders.clone() })
    }

    /// Opens the folder `name` in this folder.
    pub(super) fn enter(self: &Arc<Self>, name: &[u8]) -> Result<(Arc<Self>, Stat), Errno> {
        let fd = rustix::fs::openat(&*self.fd()?, name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let folder = Self::new(Some(self.clone()), name, &stat, fd, &self.open_folders);
        self.open_folders.add(&folder);
        Ok((folder, stat))
    }

    /// Returns the folder's descriptor. Opens the folder again if it was closed.
    pub(super) fn fd(self: &Arc<Self>) -> Result<Arc<OwnedFd>, Errno> {
        let mut closed = Vec::new();
        let mut folder = self;
        let mut fd = loop {
            if let Some(fd) = &*folder.fd.lock() {
                break fd.clone();
            }
            closed.push(folder);
            // A root is never closed.
            folder = folder.above.as_ref().ok_or(Errno::BADF)?;
        };
        for folder in closed.into_iter().rev() {
            let opened = rustix::fs::openat(&*fd, &*folder.name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
            if id_of(&rustix::fs::fstat(&opened)?) != folder.id {
                // Another folder took its place.
                return Err(Errno::STALE);
            }
            fd = Arc::new(opened);
            *folder.fd.lock() = Some(fd.clone());
            self.open_folders.add(folder);
        }
        Ok(fd)
    }

    /// Returns the names in the folder, in ascending order of their bytes.
    pub(super) fn names(self: &Arc<Self>) -> Result<Vec<Name>, Errno> {
        let fd = self.fd()?;
        if self.above.is_none() {
            // A second walk lists the roots once more; all other folders are opened anew.
            rustix::fs::seek(&*fd, SeekFrom::Start(0))?;
        }
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BYTES];
        let mut entries = RawDir::new(&*fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let is_folder = match entry.file_type() {
                FileType::Unknown => None,
                kind => Some(kind == FileType::Directory),
            };
            let bytes = entry.file_name().to_bytes();
            if bytes != b"." && bytes != b".." {
                names.push(Name { bytes: bytes.into(), is_folder });
            }
        }
        names.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
        Ok(names)
    }
}

impl Drop for Folder {
    /// Drops the folders above one by one. Nested drops would need a stack frame for each level of a deep tree.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut folder) = above.and_then(Arc::into_inner) {
            above = folder.above.take();
        }
    }
}

/// The open folders that may be closed. The one opened last is at the end.
#[derive(Default)]
pub(super) struct OpenFolders(Mutex<VecDeque<Weak<Folder>>>);

impl OpenFolders {
    fn add(&self, folder: &Arc<Folder>) {
        let mut folders = self.0.lock();
        folders.push_back(Arc::downgrade(folder));
        let oldest = if folders.len() > OPEN_FOLDERS_MAX { folders.pop_front() } else { None };
        drop(folders);
        if let Some(folder) = oldest.and_then(|folder| folder.upgrade()) {
            *folder.fd.lock() = None;
        }
    }
}
