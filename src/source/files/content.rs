//! The bytes of a file, read later than the walk met it.

use super::folder::Folder;
use super::{io_error, meta_of, stamp_of};
use crate::source::{Content, Meta};
use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

pub(super) struct FileContent {
    folder: Arc<Folder>,
    name: Box<[u8]>,
    len: u64,
    opened: Mutex<Option<Opened>>,
}

/// The file as it was opened last. Another one may have its name since, or have had it before.
struct Opened {
    file: Arc<File>,
    stamp: Vec<u8>,
    meta: Meta,
}

impl FileContent {
    pub(super) fn new(folder: &Arc<Folder>, name: &[u8], len: u64) -> Self {
        Self { folder: folder.clone(), name: name.into(), len, opened: Mutex::new(None) }
    }
}

impl Content for FileContent {
    fn len_hint(&self) -> u64 {
        self.len
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let folder = self.folder.fd().map_err(io_error)?;
        // Not through a link that was put here since, and not waiting for the writer of a pipe that was.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Reading for a backup is no use of the file; only its owner and root may ask for that.
        let fd = rustix::fs::openat(&*folder, &*self.name, flags | OFlags::NOATIME, Mode::empty())
            .or_else(|_| rustix::fs::openat(&*folder, &*self.name, flags, Mode::empty()))?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is no longer a file"));
        }
        let file = Arc::new(File::from(fd));
        let meta = meta_of(&self.name, &stat);
        *self.opened.lock() = Some(Opened { file: file.clone(), stamp: stamp_of(&stat), meta });
        Ok(Box::new(Reading(file)))
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

struct Reading(Arc<File>);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}
