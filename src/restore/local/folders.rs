//! The folders from the target down to where a walk is, open and reached name by name.

use super::extended::Extended;
use super::{Reason, id_of, kind_of, look, mtime_of};
use crate::format::entry::{Entry, Timestamp, is_legal_name};
use crate::restore::plan::DEPTH_MAX;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// Folders on the way to where the walk is that stay open.
const OPEN_FOLDERS_MAX: usize = 64;

pub(super) const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder. Its last holder gives it its times and permissions, by [`super::Run::release`].
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) finish: OnceLock<Finish>,
}

impl Folder {
    fn new(fd: OwnedFd) -> Arc<Self> {
        Arc::new(Self { fd, finish: OnceLock::new() })
    }
}

/// What a folder gets when everything in it is done.
pub(super) struct Finish {
    /// Where it is, for reports.
    pub(super) path: Vec<u8>,
    pub(super) attributes: Attributes,
}

#[derive(Clone)]
pub(super) struct Attributes {
    /// `None` leaves the time that writing gave it.
    pub(super) mtime: Option<Timestamp>,
    /// For what is ours to change.
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

/// Opens the folder `name`. With `open_up`, one of our own that keeps even us from working in it is made to let us;
/// what access it gave before is returned.
fn open_folder(above: &OwnedFd, name: &[u8], open_up: bool) -> Result<(OwnedFd, Stat, Option<Access>), Errno> {
    let opened = rustix::fs::openat(above, name, FOLDER_FLAGS, Mode::empty());
    let (fd, before) = match opened {
        Err(Errno::ACCESS) if open_up => {
            // To hold on to it takes no permission of its own, and does not follow a link.
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

/// Gives us all permissions of a folder that is ours and keeps us from working in it.
pub(super) fn open_up_by(stat: &Stat, set_mode: impl FnOnce(Mode) -> Result<(), Errno>) -> Result<(), Errno> {
    if keeps_us_out(stat) { set_mode(Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700)) } else { Ok(()) }
}

/// Returns whether a folder is ours and keeps us from working in it. Nothing keeps root.
pub(super) fn keeps_us_out(stat: &Stat) -> bool {
    let user = rustix::process::geteuid();
    !user.is_root() && stat.st_uid == user.as_raw() && stat.st_mode & 0o700 != 0o700
}

pub(super) fn access_of(stat: &Stat) -> Access {
    let mode = Some((stat.st_mode & 0o7777) as u16);
    Access { mode, owner: Some((stat.st_uid, stat.st_gid)), extended: Extended::default() }
}

/// The folders from the target down to where the walk is.
pub(super) struct Folders {
    pub(super) root: Arc<Folder>,
    pub(super) levels: Vec<Level>,
    /// The levels from this one on are open.
    first_open: usize,
    /// Our own folders may be made to let us work in them.
    open_up: bool,
}

pub(super) struct Level {
    name: Box<[u8]>,
    id: (u64, u64),
    open: Option<Arc<Folder>>,
    /// The time it had when it was entered.
    pub(super) mtime: Timestamp,
    /// The access it gave, where it was made to let us work in it.
    pub(super) opened_up: Option<Access>,
    /// What it gets in the end, if anything.
    pub(super) finish: Option<Attributes>,
}

impl Folders {
    /// Begins at `root`, to look only.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Folder::new(root), levels: Vec::new(), first_open: 0, open_up: false }
    }

    /// Begins at `root`, to write. Folders of our own may be made to let us; `before` is what access the root gave.
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

    /// Opens the lower half of what may be open, going down from the root.
    fn reopen(&mut self) -> Result<(), Errno> {
        let first_open = self.levels.len().saturating_sub(OPEN_FOLDERS_MAX / 2);
        let mut above = self.root.clone();
        let mut opened = Vec::new();
        for (depth, level) in self.levels.iter().enumerate() {
            // What was opened up is so until it is left.
            let fd = rustix::fs::openat(&above.fd, &*level.name, FOLDER_FLAGS, Mode::empty())?;
            if id_of(&rustix::fs::fstat(&fd)?) != level.id {
                // Somebody put another folder here since.
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

    /// Goes into a folder that exists; `false` if there is nothing under the name.
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
            // Ours: it will be opened up when something is written, and until then nobody knows what is in it.
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

    /// Closes folders far above, except those whose files are still being written.
    fn close_some(&mut self) {
        while self.levels.len() - self.first_open > OPEN_FOLDERS_MAX {
            let open = &mut self.levels[self.first_open].open;
            // Only this thread hands folders out, so a sole holder stays it.
            if open.as_ref().is_some_and(|folder| Arc::strong_count(folder) > 1) {
                break;
            }
            *open = None;
            self.first_open += 1;
        }
    }

    /// Goes up one folder, and returns the one left if it is open. It knows by then what it gets; `path` is for
    /// reports.
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

    /// Returns the path below the target.
    pub(super) fn path(&self) -> Vec<u8> {
        self.levels.iter().map(|level| &*level.name).collect::<Vec<_>>().join(&b'/')
    }
}
