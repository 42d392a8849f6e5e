//! A local folder: Maildir, trees of .eml files, and everything else a file system holds.
//!
//! Names are taken as bytes. Symbolic links are kept as links and never followed; devices, sockets and named pipes are
//! passed over. A folder that changes while it is read gives what was there at some moment of the walk.

use super::{Content, Event, Item, ItemKind, Meta, Sink, Source};
use crate::entry::{Facts, Timestamp, is_legal_name};
use crate::snapshot::ROOT_NAME;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file whose time stamps are this close to now may change again without showing it: its facts are not believed.
const RACY_SECS: i64 = 2;

/// A folder of the local file system.
pub struct Files {
    root: PathBuf,
    /// Folders that are not walked into: the repository and the local state, should they lie inside.
    excluded: Vec<(u64, u64)>,
    /// Device and inode of the root, as far as there is one.
    identity: Option<(u64, u64)>,
    now: i64,
}

impl Files {
    /// Creates a source of everything under `root`, without the folders `excluded`.
    pub fn new(root: &Path, excluded: &[PathBuf]) -> Self {
        let excluded = excluded.iter().filter_map(|path| identity(path)).collect();
        Self { root: root.to_owned(), excluded, identity: identity(root), now: jiff::Timestamp::now().as_second() }
    }

    fn walk_folder(&self, folder: &Path, path: &[u8], names: Vec<Vec<u8>>, sink: &mut Sink<'_>) -> ControlFlow<()> {
        names.into_iter().try_for_each(|name| self.walk_entry(folder, path, name, sink))
    }

    fn walk_entry(&self, folder: &Path, path: &[u8], name: Vec<u8>, sink: &mut Sink<'_>) -> ControlFlow<()> {
        let full = folder.join(OsStr::from_bytes(&name));
        let mut path = path.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        // Other systems' file systems allow names that are longer in bytes than a folder of a snapshot does.
        if !is_legal_name(&name) {
            return sink(Event::Failed {
                name: name.into(),
                path,
                error: "its name is longer than 255 bytes".to_owned(),
            });
        }
        let stat = match std::fs::symlink_metadata(&full) {
            Ok(stat) => stat,
            // Deleted between listing and looking: it is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return ControlFlow::Continue(()),
            Err(error) => return sink(failed(name, path, &error)),
        };
        let meta = meta_of(&name, &stat);
        if stat.is_dir() {
            return self.walk_subfolder(&full, path, meta, &stat, sink);
        }
        let kind = if stat.is_symlink() {
            match std::fs::read_link(&full) {
                Ok(target) => ItemKind::Symlink(target.into_os_string().into_vec().into()),
                Err(error) => return sink(failed(name, path, &error)),
            }
        } else if stat.is_file() {
            let content = Box::new(FileContent { path: full, len: stat.len() });
            ItemKind::File { content, fingerprint: fingerprint_of(&stat, self.now) }
        } else {
            return sink(Event::Skipped { path, reason: "a device, socket or named pipe" });
        };
        sink(Event::Item(Box::new(Item { meta, path, kind, facts: Facts::default() })))
    }

    fn walk_subfolder(
        &self,
        full: &Path,
        path: Vec<u8>,
        meta: Meta,
        stat: &Metadata,
        sink: &mut Sink<'_>,
    ) -> ControlFlow<()> {
        if self.excluded.contains(&(stat.dev(), stat.ino())) {
            return sink(Event::Skipped { path, reason: "the repository or its local state" });
        }
        // A folder that cannot be listed is a failure, not an empty folder, so it is listed before it is announced.
        let names = match sorted_names(full) {
            Ok(names) => names,
            Err(error) => return sink(failed(meta.name.into_vec(), path, &error)),
        };
        sink(Event::Enter { meta, path: path.clone() })?;
        self.walk_folder(full, &path, names, sink)?;
        sink(Event::Leave)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|stat| (stat.dev(), stat.ino()))
}

fn sorted_names(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().into_vec());
    }
    names.sort_unstable();
    Ok(names)
}

impl Source for Files {
    fn root(&self) -> io::Result<Meta> {
        let stat = std::fs::metadata(&self.root)?;
        if !stat.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(meta_of(ROOT_NAME, &stat))
    }

    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
        let names = sorted_names(&self.root)?;
        Ok(self.walk_folder(&self.root, b"", names, sink))
    }

    fn finish(&self) -> io::Result<()> {
        if identity(&self.root) == self.identity {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the folder went away, or another took its place, while it was read",
        ))
    }
}

fn failed(name: Vec<u8>, path: Vec<u8>, error: &io::Error) -> Event {
    Event::Failed { name: name.into(), path, error: error.to_string() }
}

fn meta_of(name: &[u8], stat: &Metadata) -> Meta {
    Meta {
        name: name.into(),
        mtime: Timestamp { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 },
        mode: Some((stat.mode() & 0o7777) as u16),
        owner: Some((stat.uid(), stat.gid())),
    }
}

/// What changes whenever a file's content does: size, mtime, ctime, inode.
type StatKey = [i64; 6];

fn key_of(stat: &Metadata) -> StatKey {
    let inode = stat.ino().cast_signed();
    [stat.size().cast_signed(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec(), inode]
}

fn fingerprint_of(stat: &Metadata, now: i64) -> Vec<u8> {
    if stat.ctime() + RACY_SECS > now {
        return Vec::new();
    }
    stamp_of(stat)
}

fn stamp_of(stat: &Metadata) -> Vec<u8> {
    key_of(stat).iter().flat_map(|number| number.to_le_bytes()).collect()
}

struct FileContent {
    path: PathBuf,
    len: u64,
}

impl Content for FileContent {
    fn len_hint(&self) -> u64 {
        self.len
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        // Not through a link that was put here since, and not waiting for the writer of a pipe that was.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Reading for a backup is no use of the file; only its owner and root may ask for that.
        let fd = rustix::fs::open(&self.path, flags | OFlags::NOATIME, Mode::empty())
            .or_else(|_| rustix::fs::open(&self.path, flags, Mode::empty()))?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is no longer a file"));
        }
        Ok(Box::new(file))
    }

    fn stamp(&self) -> Vec<u8> {
        std::fs::symlink_metadata(&self.path).map(|stat| stamp_of(&stat)).unwrap_or_default()
    }
}
