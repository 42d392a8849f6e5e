//! The bytes of a file, which are read some time after the walk found the file.

use super::folder::Folder;
use super::{attributes, io_error, link_of, meta_of, stamp_of};
use crate::source::{Content, Meta};
use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

pub(super) struct FileContent {
    folder: Arc<Folder>,
    name: Box<[u8]>,
    len: u64,
    /// The number of the file system that the file is on; see
    /// [`Link::file_system`](crate::format::entry::system::Link).
    file_system: u64,
    is_mail: bool,
    opened: Mutex<Option<Opened>>,
}

/// The file that was last opened. It may be another file than the walk found, or than the one that has the name now.
struct Opened {
    file: Arc<File>,
    stamp: Vec<u8>,
    meta: Meta,
}

impl FileContent {
    pub(super) fn new(folder: &Arc<Folder>, name: &[u8], len: u64, file_system: u64, is_mail: bool) -> Self {
        Self { folder: folder.clone(), name: name.into(), len, file_system, is_mail, opened: Mutex::new(None) }
    }
}

impl Content for FileContent {
    fn len_hint(&self) -> u64 {
        self.len
    }

    fn is_mail(&self) -> bool {
        self.is_mail
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let folder = self.folder.fd().map_err(io_error)?;
        // The file may have been replaced since the walk: do not follow a link, and do not wait for the writer of a
        // pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // A backup should not change the access time. Only the owner and root may open with O_NOATIME, so try again
        // without.
        let open = |flags| rustix::fs::openat(&*folder, &*self.name, flags, Mode::empty());
        let fd = open(flags | OFlags::NOATIME).or_else(|_| open(flags)).or_else(|error| match error {
            Errno::AGAIN => wait_for_lease(&open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?),
            error => Err(error),
        })?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no longer a regular file"));
        }
        let file = Arc::new(File::from(fd));
        let mut meta = meta_of(&self.name, &stat);
        (meta.attributes, meta.attributes_lost) = attributes::of_open(&file);
        meta.link = link_of(&stat, self.file_system);
        *self.opened.lock() = Some(Opened { file: file.clone(), stamp: stamp_of(&stat), meta });
        Ok(Box::new(OpenFile(file)))
    }

    fn stamps(&self) -> (Vec<u8>, Vec<u8>) {
        match &*self.opened.lock() {
            Some(opened) => {
                let now = rustix::fs::fstat(&opened.file).map(|stat| stamp_of(&stat)).unwrap_or_default();
                (opened.stamp.clone(), now)
            }
            None => Default::default(),
        }
    }

    fn meta(&self) -> Option<Meta> {
        self.opened.lock().as_ref().map(|opened| opened.meta.clone())
    }
}

/// Opens a file on which another program (a file server) holds a lease. The kernel asks that program to give the lease
/// up; only an open that waits succeeds.
fn wait_for_lease(held: &OwnedFd) -> Result<OwnedFd, Errno> {
    if FileType::from_raw_mode(rustix::fs::fstat(held)?.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN);
    }
    // Opens the same file again, whichever file has its name by now.
    let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
    rustix::fs::open(itself, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}

struct OpenFile(Arc<File>);

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}
