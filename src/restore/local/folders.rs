//! The open folders from the target to the current position of the walk. Each was opened by name in the one above.

use super::extended::Extended;
use super::{Reason, id_of, kind_of, look, mtime_of};
use crate::format::entry::{Entry, Timestamp, is_legal_name};
use crate::restore::plan::DEPTH_MAX;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// Maximum number of folders on the path of the walk that stay open.
const OPEN_FOLDERS_MAX: usize = 64;

pub(super) const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder. Its last user gives it its times and permissions, with [`super::Run::release`].
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) finish: OnceLock<Finish>,
}

impl Folder {
    fn new(fd: OwnedFd) -> Arc<Self> {
        Arc::new(Self { fd, finish: OnceLock::new() })
    }
}

/// The attributes that a folder gets when everything in it is done.
pub(super) struct Finish {
    /// The path of the folder, for reports.
    pub(super) path: Vec<u8>,
    pub(super) attributes: Attributes,
}

#[derive(Clone)]
pub(super) struct Attributes {
    /// The modification time. `None` leaves the time that writing set.
    pub(super) mtime: Option<Timestamp>,
    /// Owner, permissions and attributes. `None` leaves them as they are.
    pub(super) access: Option<Access>,
}

#[derive(Clone)]
pub(super) struct Access {
    pub(super) mode: Option<u16>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) extended: Extended,
}

impl Access {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { mode: entry.mode, owner: entry.owner, extended: Extended::of(entry) }
    }
}

/// Opens the folder `name`. With `open_up`, a folder that belongs to us and forbids us to work in it is made
/// accessible, and its former access is returned.
fn open_folder(above: &OwnedFd, name: &[u8], open_up: bool) -> Result<(OwnedFd, Stat, Option<Access>), Errno> {
    let opened = rustix::fs::openat(above, name, FOLDER_FLAGS, Mode::empty());
    let (fd, before) = match opened {
        Err(Errno::ACCESS) if open_up => {
            // PATH needs no permission on the folder itself and does not follow a link.
            let place = rustix::fs::openat(above, name, FOLDER_FLAGS | OFlags::PATH, Mode::empty())?;
            let before = rustix::fs::fstat(&place)?;
            open_up_by(&before, |mode| rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), mode))?;
            let fd = rustix::fs::openat(above, name, FOLDER_FLAGS, Mode::empty())?;
            if id_of(&rustix::fs::fstat(&fd)?) != id_of(&before) {
                return Err(Errno::STALE);
            }
            (fd, before)
        }
        opened => {
            let fd = opened?;
            let before = rustix::fs::fstat(&fd)?;
            if open_up {
                open_up_by(&before, |mode| rustix::fs::fchmod(&fd, mode))?;
            }
            (fd, before)
        }
    };
    let access = (open_up && keeps_us_out(&before)).then(|| access_of(&before));
    Ok((fd, before, access))
}

/// If a folder belongs to us and forbids us to work in it, gives us all permissions.
pub(super) fn open_up_by(stat: &Stat, set_mode: impl FnOnce(Mode) -> Result<(), Errno>) -> Result<(), Errno> {
    if keeps_us_out(stat) { set_mode(Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700)) } else { Ok(()) }
}

/// Returns whether a folder belongs to us and forbids us to work in it. No permission stops root.
pub(super) fn keeps_us_out(stat: &Stat) -> bool {
    let user = rustix::process::geteuid();
    !user.is_root() && stat.st_uid == user.as_raw() && stat.st_mode & 0o700 != 0o700
}

pub(super) fn access_of(stat: &Stat) -> Access {
    let mode = Some((stat.st_mode & 0o7777) as u16);
    Access { mode, owner: Some((stat.st_uid, stat.st_gid)), extended: Extended::default() }
}

/// The folders from the target to the current position of the walk.
pub(super) struct Folders {
    pub(super) root: Arc<Folder>,
    pub(super) levels: Vec<Level>,
    /// The index of the first open level. All levels below it are open, too.
    first_open: usize,
    /// True if folders that belong to us may be made accessible.
    open_up: bool,
}

pub(super) struct Level {
    name: Box<[u8]>,
    id: (u64, u64),
    open: Option<Arc<Folder>>,
    /// The modification time when the walk entered the folder.
    pub(super) mtime: Timestamp,
    /// The former access, if the folder was made accessible.
    pub(super) opened_up: Option<Access>,
    /// The attributes that the folder gets at the end, if any.
    pub(super) finish: Option<Attributes>,
}

impl Folders {
    /// Begins at `root`, only to look.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Folder::new(root), levels: Vec::new(), first_open: 0, open_up: false }
    }

    /// Begins at `root`, to write. Folders that belong to us may be made accessible. `before` is the former access of
    /// the root if that was made accessible.
    pub(super) fn to_write(root: OwnedFd, before: Option<Access>) -> Self {
        let folders = Self { open_up: true, ..Self::new(root) };
        if before.is_some() {
            let attributes = Attributes { mtime: None, access: before };
            let _ = folders.root.finish.set(Finish { path: Vec::new(), attributes });
        }
        folders
    }

    /// Returns the folder that the walk is in.
    pub(super) fn current(&mut self) -> Result<Arc<Folder>, Errno> {
        if !self.levels.is_empty() && self.first_open == self.levels.len() {
            self.reopen()?;
        }
        Ok(self.levels.last().and_then(|level| level.open.as_ref()).unwrap_or(&self.root).clone())
    }

    /// Opens the last [`OPEN_FOLDERS_MAX`] / 2 levels again, by name from the root.
    fn reopen(&mut self) -> Result<(), Errno> {
        let first_open = self.levels.len().saturating_sub(OPEN_FOLDERS_MAX / 2);
        let mut above = self.root.clone();
        let mut opened = Vec::new();
        for (depth, level) in self.levels.iter().enumerate() {
            // A folder that was made accessible stays so until the walk leaves it.
            let fd = rustix::fs::openat(&above.fd, &*level.name, FOLDER_FLAGS, Mode::empty())?;
            if id_of(&rustix::fs::fstat(&fd)?) != level.id {
                // Another folder has this name now.
                return Err(Errno::STALE);
            }
            above = Folder::new(fd);
            if depth >= first_open {
                opened.push(above.clone());
            }
        }
        for (level, folder) in self.levels[first_open..].iter_mut().zip(opened) {
            level.open = Some(folder);
        }
        self.first_open = first_open;
        Ok(())
    }

    /// Enters an existing folder. Returns false if nothing has that name.
    pub(super) fn try_enter(&mut self, name: &[u8]) -> Result<bool, Reason> {
        let failed = |error| Reason::io("open the folder", error);
        if self.levels.len() >= DEPTH_MAX {
            return Err(Reason::Is("it lies deeper than 4096 folders"));
        }
        if !is_legal_name(name) {
            return Err(Reason::Is("its name is illegal"));
        }
        let above = self.current().map_err(failed)?;
        match open_folder(&above.fd, name, self.open_up) {
            Ok((fd, stat, opened_up)) => {
                let (id, mtime, open) = (id_of(&stat), mtime_of(&stat), Some(Folder::new(fd)));
                self.levels.push(Level { name: name.into(), id, open, mtime, opened_up, finish: None });
                self.close_some();
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            // The folder belongs to us and forbids us to read it. The run will make it accessible; until then its
            // contents are unknown.
            Err(Errno::ACCESS) if !self.open_up && self.is_ours(&above.fd, name) => Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => match look(above.fd.as_fd(), name) {
                Ok(Some(stat)) if kind_of(&stat) == FileType::Symlink => {
                    Err(Reason::Is("a symbolic link stands where the folder should be, and is not followed"))
                }
                _ => Err(Reason::Is("something that is no folder stands where the folder should be")),
            },
            Err(error) => Err(failed(error)),
        }
    }

    fn is_ours(&self, above: &OwnedFd, name: &[u8]) -> bool {
        look(above.as_fd(), name).is_ok_and(|stat| stat.is_some_and(|stat| keeps_us_out(&stat)))
    }

    /// Closes folders far above, except those in which files are still being written.
    fn close_some(&mut self) {
        while self.levels.len() - self.first_open > OPEN_FOLDERS_MAX {
            let open = &mut self.levels[self.first_open].open;
            // Only this thread hands folders out, so a folder without other users stays without.
            if open.as_ref().is_some_and(|folder| Arc::strong_count(folder) > 1) {
                break;
            }
            *open = None;
            self.first_open += 1;
        }
    }

    /// Leaves a folder, and returns it if it is open. Its attributes are set in it by then. `path` is for reports.
    pub(super) fn leave(&mut self, path: &[u8]) -> Result<Option<Arc<Folder>>, Errno> {
        let Some(Level { finish: wanted, .. }) = self.levels.last() else { return Ok(None) };
        let opened = if wanted.is_some() { self.current().map(drop) } else { Ok(()) };
        let level = self.levels.pop().expect("there was a last one");
        self.first_open = self.first_open.min(self.levels.len());
        if let (Some(folder), Some(attributes)) = (&level.open, level.finish) {
            let _ = folder.finish.set(Finish { path: path.to_vec(), attributes });
        }
        opened.map(|()| level.open)
    }

    /// Returns the path of the current folder below the target.
    pub(super) fn path(&self) -> Vec<u8> {
        self.levels.iter().map(|level| &*level.name).collect::<Vec<_>>().join(&b'/')
    }
}
