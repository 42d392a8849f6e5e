//! Local folders: Maildir, trees of .eml files, and everything else that a file system holds.
//!
//! Names are bytes. Symbolic links are stored as links and never followed. Everything below a source is reached through
//! descriptors (see `folder`), so a file or folder that is renamed or replaced during the walk cannot lead out of the
//! source. Devices, sockets and named pipes are stored as such and never opened. The extended attributes of a file are
//! read together with its content; if the file's change time did not change, its attributes did not change either. A
//! folder that changes during the walk is stored as it was at some moment of the walk.
//!
//! A single source becomes the root of the snapshot. If there are several, each becomes a folder in the root, named
//! after the last part of its path.

mod attributes;
mod content;
pub mod exclude;
mod folder;

use super::{Event, Item, ItemKind, Meta, Sink, Source};
use crate::content::mail::is_named_as_mail;
use crate::format::entry::system::{Link, Special};
use crate::format::entry::{Facts, Timestamp, is_legal_name};
use crate::format::snapshot::ROOT_NAME;
use content::FileContent;
use exclude::Exclusions;
use folder::{Folder, Id, Name, id_of};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that changed at most this many seconds ago may change again within the same time stamp. Such a file gets no
/// fingerprint, so the next backup reads it again.
const RACY_SECS: i64 = 2;
/// Version of the facts that are remembered beside a file's stamp. A new version makes all old stamps differ, so all
/// files are read again. Version 2 added the extended attributes.
const STAMP_VERSION: i64 = 2;
/// Maximum depth of folders, and maximum length of a path in bytes. Each item carries its path through the backup, so
/// longer paths would take too much memory.
const DEPTH_MAX: usize = 2048;
const PATH_LEN_MAX: usize = 16 << 10;

/// The file that marks a cache folder, and the bytes that it begins with (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What a backup leaves out of its sources.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leaves out paths that these patterns match.
    pub exclude: Exclusions,
    /// Leaves out what lies on another file system than its source.
    pub one_file_system: bool,
    /// Leaves out the content of folders with a CACHEDIR.TAG.
    pub exclude_caches: bool,
    /// Leaves out the content of folders that hold one of these names.
    pub exclude_if_present: Vec<Vec<u8>>,
}

/// A source that reads folders of the local file system.
pub struct Files {
    roots: Vec<Root>,
    /// Folders that the walk does not enter: the repository and the local state, if they lie inside a source.
    excluded: Vec<Id>,
    options: Options,
    now: i64,
}

/// One folder that the user named as a source.
struct Root {
    path: PathBuf,
    /// The name of its folder in the snapshot, if there are several sources.
    name: Option<Box<[u8]>>,
    opened: Result<(Arc<Folder>, Stat), Errno>,
}

impl Files {
    /// Creates a source of everything under `root`, except the folders in `excluded`.
    pub fn new(root: &Path, excluded: &[PathBuf]) -> Self {
        Self::of_all(&[root.to_owned()], excluded, Options::default())
    }

    /// Creates a source of everything under `roots`, except the folders in `excluded` and what `options` leave out. The
    /// second of two folders called `name` becomes `name (2)`.
    pub fn of_all(roots: &[PathBuf], excluded: &[PathBuf], options: Options) -> Self {
        let open_folders = Arc::default();
        let mut opened: Vec<_> = roots
            .iter()
            .map(|path| Root { path: path.clone(), name: None, opened: Folder::root(path, &open_folders) })
            .collect();
        if roots.len() > 1 {
            name_all(&mut opened);
        }
        let excluded = excluded.iter().filter_map(|path| identity(path)).collect();
        Self { roots: opened, excluded, options, now: jiff::Timestamp::now().as_second() }
    }

    /// Returns the name of each source in the snapshot, in the order in which they were given. Returns nothing if there
    /// is only one source.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().filter_map(|root| root.name.as_deref())
    }
}

/// Gives every root a unique name.
fn name_all(roots: &mut [Root]) {
    for at in 0..roots.len() {
        let name = roots[at].path.file_name().map_or(&b"root"[..], OsStrExt::as_bytes);
        let is_taken = |name: &[u8]| roots[..at].iter().any(|root| root.name.as_deref() == Some(name));
        let numbered = |number: usize| {
            let tag = format!(" ({number})").into_bytes();
            [&name[..name.len().min(crate::format::entry::NAME_LEN_MAX - tag.len())], &tag].concat()
        };
        let mut free = std::iter::once(name.to_vec()).chain((2..).map(numbered)).filter(|name| !is_taken(name));
        let free = free.next().expect("there are more numbers than sources");
        roots[at].name = Some(free.into());
    }
}

fn identity(path: &Path) -> Option<Id> {
    rustix::fs::stat(path).ok().map(|stat| id_of(&stat))
}

impl Source for Files {
    fn root(&self) -> io::Result<Meta> {
        let mut found = None::<Meta>;
        let mut failed = None;
        for root in &self.roots {
            match &root.opened {
                Ok((folder, stat)) => {
                    let meta = folder_meta(ROOT_NAME, folder, stat);
                    found = Some(match found {
                        Some(other) => Meta { mtime: other.mtime.max(meta.mtime), ..other },
                        // Owner, permissions and attributes of one source say nothing about the others.
                        None if root.name.is_some() => Meta { name: meta.name, mtime: meta.mtime, ..Meta::default() },
                        None => meta,
                    });
                }
                Err(error) => failed = failed.or(Some(*error)),
            }
        }
        found.ok_or_else(|| failed.unwrap_or(Errno::NOENT).into())
    }

    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
        let mut order: Vec<_> = (0..self.roots.len()).collect();
        order.sort_unstable_by(|a, b| self.roots[*a].name.cmp(&self.roots[*b].name));
        let mut devices = Vec::new();
        for source in order {
            let Root { name, opened, .. } = &self.roots[source];
            let listed = match opened {
                Ok((folder, stat)) => folder.names().map(|names| (folder, stat, names)),
                Err(error) => Err(*error),
            };
            let (folder, stat, names) = match (listed, name) {
                (Ok(listed), _) => listed,
                (Err(error), None) => return Err(error.into()),
                (Err(error), Some(name)) => {
                    if sink(failed(name, name.to_vec(), error)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    continue;
                }
            };
            let mut walk = Walk {
                files: self,
                source,
                device: stat.st_dev,
                path: name.as_deref().unwrap_or_default().to_vec(),
                below: name.as_ref().map_or(0, |name| name.len() + 1),
                levels: Vec::new(),
                own_devices: HashMap::new(),
                devices: &mut devices,
                sink,
            };
            let walked = match name {
                Some(name) => walk.named_root(folder_meta(name, folder, stat), folder, stat, names),
                None => walk.all(folder, stat, names),
            };
            if walked.is_break() {
                return Ok(walked);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn finish(&self) -> io::Result<()> {
        let is_there = |root: &Root| match &root.opened {
            Ok((folder, _)) => identity(&root.path) == Some(folder.id),
            // The walk has reported this root as failed.
            Err(_) => true,
        };
        if self.roots.iter().all(is_there) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the folder was removed or replaced while it was read"))
    }
}

/// A walk through one source.
struct Walk<'a, 's> {
    files: &'a Files,
    source: usize,
    /// The device of the source's root.
    device: u64,
    /// The path of the current item in the snapshot.
    path: Vec<u8>,
    /// Offset in a path where the part below the source begins.
    below: usize,
    levels: Vec<Level>,
    /// For each device that the walk met: whether it is a mount of this program.
    own_devices: HashMap<u64, bool>,
    /// The devices on which files with several names were found, in all sources. The position of a device is its
    /// number.
    devices: &'a mut Vec<u64>,
    sink: &'a mut Sink<'s>,
}

/// A folder between the source's root and the current item.
struct Level {
    folder: Arc<Folder>,
    device: u64,
    names: std::vec::IntoIter<Name>,
    /// The length of the folder's path, in bytes.
    path_len: usize,
}

impl Walk<'_, '_> {
    fn named_root(&mut self, meta: Meta, folder: &Arc<Folder>, stat: &Stat, names: Vec<Name>) -> ControlFlow<()> {
        (self.sink)(Event::Enter { meta, path: self.path.clone() })?;
        self.all(folder, stat, names)?;
        (self.sink)(Event::Leave)
    }

    fn all(&mut self, folder: &Arc<Folder>, stat: &Stat, names: Vec<Name>) -> ControlFlow<()> {
        self.push(folder.clone(), stat, names);
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            match level.names.next() {
                Some(name) => {
                    if !self.path.is_empty() {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(&name.bytes);
                    self.entry(name)?;
                }
                None => {
                    self.levels.pop();
                    if !self.levels.is_empty() {
                        (self.sink)(Event::Leave)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn push(&mut self, folder: Arc<Folder>, stat: &Stat, names: Vec<Name>) {
        let (names, path_len) = (names.into_iter(), self.path.len());
        self.levels.push(Level { folder, device: stat.st_dev, names, path_len });
    }

    /// Handles the name that the current path ends with.
    fn entry(&mut self, Name { bytes: name, is_folder }: Name) -> ControlFlow<()> {
        let (folder, device) =
            self.levels.last().map(|level| (level.folder.clone(), level.device)).expect("in a folder");
        // Check this before any call on the entry: such a call can hang or fail, and that may be why the user excluded
        // it.
        if self.is_excluded(is_folder == Some(true)) {
            return ControlFlow::Continue(());
        }
        // Some file systems of other operating systems allow names of more bytes than a snapshot does.
        if !is_legal_name(&name) {
            return self.fail(&name, "its name is longer than 255 bytes");
        }
        if self.path.len() > PATH_LEN_MAX {
            return self.fail(&name, "its path is longer than 16 KiB");
        }
        let looked = folder.fd().and_then(|fd| Ok((rustix::fs::statat(&*fd, &*name, AtFlags::SYMLINK_NOFOLLOW)?, fd)));
        let (stat, fd) = match looked {
            Ok(looked) => looked,
            // The entry was deleted after the folder was listed.
            Err(Errno::NOENT) => return ControlFlow::Continue(()),
            // This may be a mount of another user, or a mount whose process died.
            Err(Errno::ACCESS | Errno::NOTCONN) if strongroom_mount::is_own_mount(&self.full_path()) => {
                return self.skip(OWN_MOUNT);
            }
            Err(error) => return self.fail_by(&name, error),
        };
        let mut meta = meta_of(&name, &stat);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if is_folder.is_none() && self.is_excluded(true) => return ControlFlow::Continue(()),
            FileType::Directory => return self.enter(&folder, device, &name),
            FileType::Symlink => match rustix::fs::readlinkat(&*fd, &*name, Vec::new()) {
                Ok(target) => ItemKind::Symlink(target.into_bytes().into()),
                Err(error) => return self.fail_by(&name, error),
            },
            FileType::RegularFile => {
                let file_system = self.file_system(&stat);
                let len = u64::try_from(stat.st_size).unwrap_or_default();
                let source = &self.files.roots[self.source].path;
                let full = source.join(OsStr::from_bytes(&self.path[self.below..]));
                let is_mail = is_named_as_mail(full.as_os_str().as_bytes());
                let content = FileContent::new(&folder, &name, len, file_system, is_mail);
                meta.link = link_of(&stat, file_system);
                ItemKind::File { content: Box::new(content), fingerprint: fingerprint_of(&stat, self.files.now) }
            }
            kind => match special_of(kind, &stat) {
                Some(special) => ItemKind::Special(special),
                None => return self.skip("a kind of file that this program does not know"),
            },
        };
        if !matches!(kind, ItemKind::File { .. }) {
            (meta.attributes, meta.attributes_lost) = attributes::of_name(&*fd, &name);
        }
        let path = self.path.clone();
        (self.sink)(Event::Item(Box::new(Item { meta, path, kind, facts: Facts::default() })))
    }

    /// Returns the number of the file system of a file with several names; 0 for a file with one name.
    fn file_system(&mut self, stat: &Stat) -> u64 {
        if stat.st_nlink < 2 {
            return 0;
        }
        let known = self.devices.iter().position(|device| *device == stat.st_dev);
        let number = known.unwrap_or_else(|| {
            self.devices.push(stat.st_dev);
            self.devices.len() - 1
        });
        number as u64
    }

    fn is_excluded(&self, is_folder: bool) -> bool {
        self.files.options.exclude.excludes(self.source, &self.path[self.below..], is_folder)
    }

    fn enter(&mut self, above: &Arc<Folder>, device: u64, name: &[u8]) -> ControlFlow<()> {
        if self.levels.len() >= DEPTH_MAX {
            return self.fail(name, "it lies deeper than 2048 folders");
        }
        let (folder, stat) = match above.enter(name) {
            Ok(entered) => entered,
            Err(Errno::NOENT) => return ControlFlow::Continue(()),
            Err(error) => return self.fail_by(name, error),
        };
        if self.files.excluded.contains(&folder.id) {
            return self.skip("the repository or its local state");
        }
        if stat.st_dev != device && self.is_own_device(stat.st_dev) {
            return self.skip(OWN_MOUNT);
        }
        let meta = folder_meta(name, &folder, &stat);
        if self.files.options.one_file_system && stat.st_dev != self.device {
            // The folder itself is stored, so that the file system has a mount point after a restore.
            self.push(folder, &stat, Vec::new());
            self.skip("another file system")?;
            return (self.sink)(Event::Enter { meta, path: self.path.clone() });
        }
        // List the folder before it is entered: a folder that cannot be listed is a failure, not an empty folder.
        let mut names = match folder.names() {
            Ok(names) => names,
            Err(error) => return self.fail_by(name, error),
        };
        if let Some(reason) = self.tag(&folder, &mut names) {
            self.skip(reason)?;
        }
        self.push(folder, &stat, names);
        (self.sink)(Event::Enter { meta, path: self.path.clone() })
    }

    /// Looks for a name that marks the folder as not wanted. If there is one, keeps only such names and returns the
    /// reason.
    fn tag(&self, folder: &Arc<Folder>, names: &mut Vec<Name>) -> Option<&'static str> {
        let Options { exclude_caches, exclude_if_present, .. } = &self.files.options;
        let has = |names: &[Name], tag: &[u8]| names.binary_search_by(|name| (*name.bytes).cmp(tag)).is_ok();
        if *exclude_caches && has(names, CACHE_TAG) && is_cache(folder) {
            names.retain(|name| &*name.bytes == CACHE_TAG);
            return Some("a cache: only its CACHEDIR.TAG was backed up");
        }
        if exclude_if_present.iter().any(|tag| has(names, tag)) {
            names.retain(|name| exclude_if_present.iter().any(|tag| **tag == *name.bytes));
            return Some("its content, because it holds a name from --exclude-if-present");
        }
        None
    }

    fn is_own_device(&mut self, device: u64) -> bool {
        let is_own = || strongroom_mount::is_own_device(rustix::fs::major(device), rustix::fs::minor(device));
        *self.own_devices.entry(device).or_insert_with(is_own)
    }

    fn full_path(&self) -> PathBuf {
        let source = &self.files.roots[self.source].path;
        let source = std::fs::canonicalize(source).unwrap_or_else(|_| source.clone());
        source.join(OsStr::from_bytes(&self.path[self.below..]))
    }

    fn skip(&mut self, reason: &'static str) -> ControlFlow<()> {
        (self.sink)(Event::Skipped { path: self.path.clone(), reason })
    }

    fn fail(&mut self, name: &[u8], error: &str) -> ControlFlow<()> {
        (self.sink)(Event::Failed { name: name.into(), path: self.path.clone(), error: error.to_owned() })
    }

    fn fail_by(&mut self, name: &[u8], error: Errno) -> ControlFlow<()> {
        (self.sink)(failed(name, self.path.clone(), error))
    }
}

const OWN_MOUNT: &str = "a mount of Strongroom";

/// Returns true if the folder's CACHEDIR.TAG begins with the signature of one.
fn is_cache(folder: &Arc<Folder>) -> bool {
    let begins = |fd: &dyn std::os::fd::AsFd| -> Result<bool, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tag = rustix::fs::openat(fd.as_fd(), CACHE_TAG, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&tag)?.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let mut found = [0; CACHE_SIGNATURE.len()];
        let mut filled = 0;
        while filled < found.len() {
            match rustix::io::read(&tag, &mut found[filled..]) {
                Ok(0) => return Ok(false),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found == *CACHE_SIGNATURE)
    };
    folder.fd().and_then(|fd| begins(&*fd)).unwrap_or(false)
}

fn failed(name: &[u8], path: Vec<u8>, error: Errno) -> Event {
    Event::Failed { name: name.into(), path, error: io_error(error).to_string() }
}

fn io_error(error: Errno) -> io::Error {
    match error {
        Errno::STALE => io::Error::other("another folder took the place of the folder that held it"),
        error => error.into(),
    }
}

fn meta_of(name: &[u8], stat: &Stat) -> Meta {
    Meta {
        name: name.into(),
        mtime: Timestamp { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        mode: Some((stat.st_mode & 0o7777) as u16),
        owner: Some((stat.st_uid, stat.st_gid)),
        ..Meta::default()
    }
}

fn folder_meta(name: &[u8], folder: &Arc<Folder>, stat: &Stat) -> Meta {
    let mut meta = meta_of(name, stat);
    if let Ok(fd) = folder.fd() {
        (meta.attributes, meta.attributes_lost) = attributes::of_open(&*fd);
    }
    meta
}

/// Returns what identifies a file that has several names.
fn link_of(stat: &Stat, file_system: u64) -> Option<Link> {
    (stat.st_nlink > 1).then_some(Link { file_system, inode: stat.st_ino })
}

fn special_of(kind: FileType, stat: &Stat) -> Option<Special> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Some(match kind {
        FileType::Fifo => Special::Fifo,
        FileType::Socket => Special::Socket,
        FileType::CharacterDevice => Special::CharDevice { major, minor },
        FileType::BlockDevice => Special::BlockDevice { major, minor },
        _ => return None,
    })
}

fn fingerprint_of(stat: &Stat, now: i64) -> Vec<u8> {
    if stat.st_ctime + RACY_SECS > now { Vec::new() } else { stamp_of(stat) }
}

/// Returns a stamp that changes whenever the content or the attributes of a file change: size, mtime, ctime, inode.
fn stamp_of(stat: &Stat) -> Vec<u8> {
    let nanos = [stat.st_mtime_nsec, stat.st_ctime_nsec].map(|nanos| nanos as i64);
    let key =
        [STAMP_VERSION, stat.st_size, stat.st_mtime, nanos[0], stat.st_ctime, nanos[1], stat.st_ino.cast_signed()];
    let mut stamp = Vec::with_capacity(size_of_val(&key));
    key.iter().for_each(|number| stamp.extend_from_slice(&number.to_le_bytes()));
    stamp
}

#[cfg(test)]
mod tests;
