//! Adapts the mount's files to `dav-server`: paths instead of inode numbers, futures instead of blocking calls.
//!
//! WebDAV has no symbolic links. The mount's own link, `latest`, is shown as the folder that it leads to. Links in a
//! snapshot are not shown, because most of them lead out of it.

use crate::format::id::SnapshotId;
use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavFileSystem, DavMetaData, FsError as DavError, FsFuture, FsResult, FsStream, OpenOptions,
    ReadDirMeta,
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use hyper::body::{Buf, Bytes};
use std::fmt;
use std::future;
use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use strongroom_mount::error::FsError;
use strongroom_mount::fs::{BLOCK_SIZE_BYTES, Fs, Lookup, Presentation, Stat};
use strongroom_mount::inode::fixed;
use strongroom_mount::{Kind, Target, ViewError};

/// Number of entries that are read from a folder at a time. It limits the memory of a listing of any size.
const PAGE_ENTRIES: usize = 256;
/// The last second of the year 9999, which is the last that an HTTP date can express.
const HTTP_SECONDS_MAX: u64 = 253_402_300_799;

/// The tree of files that is served.
pub(super) struct Tree {
    fs: Fs,
    /// The id of the snapshot, if the tree shows only one.
    only: Option<SnapshotId>,
}

/// A file or folder in the tree. While it exists, its snapshot stays readable, even if the repository forgets the
/// snapshot.
struct Entry {
    tree: Arc<Tree>,
    stat: Stat,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tree.fs.forget(self.stat.ino, 1);
    }
}

/// One name in a folder.
struct Listed {
    name: Vec<u8>,
    stat: Stat,
}

impl Tree {
    pub(super) fn new(target: Target, only: Option<SnapshotId>) -> Result<Tree, FsError> {
        // Owners and permissions are not shown, because every client may read everything.
        let presentation = Presentation { owner: Some((0, 0)), mounted_by: (0, 0), xattr: false };
        Ok(Tree { fs: Fs::new(target, presentation)?, only })
    }

    pub(super) fn refresh(&self) -> Result<(), FsError> {
        self.fs.refresh().map(drop)
    }

    /// Finds the entry at `path`.
    fn find(self: &Arc<Self>, path: &[u8]) -> Result<Entry, FsError> {
        let root = Entry { tree: self.clone(), stat: self.fs.stat(fixed::ROOT)? };
        names(path).try_fold(root, |dir, name| dir.child(name))
    }

    /// Returns an entity tag, which differs for different versions of the content. An entry of a snapshot never
    /// changes.
    fn tag(&self, stat: &Stat) -> Option<String> {
        let snapshot = self.only.map(|id| id.0).or_else(|| self.fs.snapshot_id(stat.ino));
        match (snapshot, stat.kind) {
            (Some(id), _) => Some(format!("{}-{:x}", SnapshotId(id), stat.ino.0)),
            (None, Kind::File) => Some(format!("{:x}-{:x}-{:x}", stat.ino.0, stat.mtime.secs, stat.size)),
            // The mount's own folders change, so they have no tag.
            (None, _) => None,
        }
    }

    fn meta(&self, stat: Stat, shown_in: ShownIn) -> Box<dyn DavMetaData> {
        let tag = self.tag(&stat).map(|tag| match shown_in {
            ShownIn::Header => tag,
            ShownIn::Property => format!("\"{tag}\""),
        });
        Box::new(Meta { stat, tag })
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

impl Entry {
    /// Returns the entry called `name` in this folder. If it is one of the mount's own links, returns what it leads to.
    fn child(&self, name: &[u8]) -> Result<Entry, FsError> {
        let child = self.named(name)?;
        if !self.is_own_link(&child.stat) {
            return Ok(child);
        }
        let target = self.tree.fs.read_link(child.stat.ino)?;
        let start = Entry { tree: self.tree.clone(), stat: self.stat };
        // The link leads only through folders, so there is no second link to follow.
        names(&target).try_fold(start, |dir, name| dir.named(name))
    }

    fn named(&self, name: &[u8]) -> Result<Entry, FsError> {
        match self.tree.fs.lookup(self.stat.ino, name)? {
            Lookup::Entry(stat) => Ok(Entry { tree: self.tree.clone(), stat }),
            Lookup::Nothing(_) => Err(ViewError::NotFound.into()),
        }
    }

    fn is_own_link(&self, child: &Stat) -> bool {
        child.kind == Kind::Symlink && self.tree.fs.changes(self.stat.ino)
    }

    /// Returns the entries from `offset` on, and the offset of the next page. Returns `None` at the end of the folder.
    fn page(&self, offset: u64) -> Result<Option<(Vec<Listed>, u64)>, FsError> {
        let fs = &self.tree.fs;
        let mut page = Vec::with_capacity(PAGE_ENTRIES);
        let mut next = offset;
        fs.list(self.stat.ino, offset, &mut |listed| {
            if page.len() == PAGE_ENTRIES {
                return false;
            }
            next = listed.next;
            if !matches!(listed.name, b"." | b"..") {
                page.push(Listed { name: listed.name.to_vec(), stat: listed.stat });
            }
            true
        })?;
        if next == offset {
            return Ok(None);
        }
        for listed in &mut page {
            // The listing need not hold this entry: the folder itself keeps the snapshot readable.
            fs.forget(listed.stat.ino, 1);
            if self.is_own_link(&listed.stat) {
                listed.stat = self.child(&listed.name)?.stat;
            }
        }
        page.retain(|listed| listed.stat.kind != Kind::Symlink);
        Ok(Some((page, next)))
    }
}

/// Runs a blocking function on the pool of threads.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, FsError> + Send + 'static) -> FsResult<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result.map_err(|error| dav_error(&error)),
        // A panic in a view is caught below this level, so this happens only when the program ends.
        Err(_) => Err(DavError::GeneralFailure),
    }
}

fn dav_error(error: &FsError) -> DavError {
    match error {
        FsError::View(ViewError::NotFound | ViewError::NotADirectory) | FsError::Stale => DavError::NotFound,
        FsError::NameTooLong => DavError::NotFound,
        FsError::View(ViewError::IsADirectory | ViewError::Invalid) => DavError::Forbidden,
        _ => DavError::GeneralFailure,
    }
}

/// The tree as one request sees it.
#[derive(Clone)]
pub(super) struct Files {
    tree: Arc<Tree>,
    /// Set if a listing could not be finished. `dav-server` itself ignores that error.
    failed: Arc<AtomicBool>,
}

impl Files {
    pub(super) fn new(tree: Arc<Tree>, failed: Arc<AtomicBool>) -> Box<Files> {
        Box::new(Files { tree, failed })
    }

    async fn find(&self, path: &DavPath) -> FsResult<Entry> {
        let (tree, path) = (self.tree.clone(), path.as_bytes().to_vec());
        let entry = blocking(move || tree.find(&path)).await?;
        if entry.stat.kind == Kind::Symlink { Err(DavError::NotFound) } else { Ok(entry) }
    }
}

impl DavFileSystem for Files {
    fn open<'a>(&'a self, path: &'a DavPath, options: OpenOptions) -> FsFuture<'a, Box<dyn DavFile>> {
        async move {
            if options.write || options.append || options.truncate || options.create || options.create_new {
                return Err(DavError::Forbidden);
            }
            let entry = self.find(path).await?;
            Ok(Box::new(File { entry: Arc::new(entry), offset: 0 }) as Box<dyn DavFile>)
        }
        .boxed()
    }

    fn read_dir<'a>(&'a self, path: &'a DavPath, _: ReadDirMeta) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        let failed = self.failed.clone();
        async move {
            let note = move |error: &DavError| {
                tracing::debug!(%error, "a listing is broken off");
                failed.store(true, Ordering::Relaxed);
            };
            let dir = Arc::new(self.find(path).await.inspect_err(&note)?);
            let pages = stream::try_unfold((dir, 0), |(dir, offset)| async move {
                let reading = dir.clone();
                let page = blocking(move || reading.page(offset)).await?;
                Ok(page.map(|(entries, next)| (stream::iter(entries.into_iter().map(Ok)), (dir, next))))
            });
            let tree = self.tree.clone();
            let entries = pages.try_flatten().map_ok(move |listed: Listed| {
                let meta = tree.meta(listed.stat, ShownIn::Property);
                Box::new(DirEntry { name: listed.name, meta }) as Box<dyn DavDirEntry>
            });
            Ok(entries.inspect_err(note).boxed())
        }
        .boxed()
    }

    fn metadata<'a>(&'a self, path: &'a DavPath) -> FsFuture<'a, Box<dyn DavMetaData>> {
        async move {
            let entry = self.find(path).await?;
            Ok(self.tree.meta(entry.stat, ShownIn::Property))
        }
        .boxed()
    }

    fn get_quota(&self) -> FsFuture<'_, (u64, Option<u64>)> {
        let tree = self.tree.clone();
        async move {
            let blocks = blocking(move || Ok(tree.fs.space().blocks)).await?;
            let used = blocks.saturating_mul(BLOCK_SIZE_BYTES.into());
            Ok((used, Some(used)))
        }
        .boxed()
    }
}

struct DirEntry {
    name: Vec<u8>,
    meta: Box<dyn DavMetaData>,
}

impl DavDirEntry for DirEntry {
    fn name(&self) -> Vec<u8> {
        self.name.clone()
    }

    fn metadata(&self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        future::ready(Ok(self.meta.clone())).boxed()
    }
}

/// Where an entity tag is shown. `dav-server` adds the quotes in a header, but not in a property, where they belong as
/// well (RFC 4918, 15.6).
#[derive(Clone, Copy)]
enum ShownIn {
    Header,
    Property,
}

#[derive(Clone, Debug)]
struct Meta {
    stat: Stat,
    tag: Option<String>,
}

impl DavMetaData for Meta {
    fn len(&self) -> u64 {
        if self.is_dir() { 0 } else { self.stat.size }
    }

    /// A time before 1970 or after 9999 is shown as the nearest time that HTTP can express.
    fn modified(&self) -> FsResult<SystemTime> {
        let secs = u64::try_from(self.stat.mtime.secs).unwrap_or(0).min(HTTP_SECONDS_MAX);
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
    }

    fn is_dir(&self) -> bool {
        self.stat.kind == Kind::Directory
    }

    fn etag(&self) -> Option<String> {
        self.tag.clone()
    }
}

struct File {
    entry: Arc<Entry>,
    offset: u64,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("ino", &self.entry.stat.ino).field("offset", &self.offset).finish()
    }
}

impl DavFile for File {
    fn metadata(&mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        future::ready(Ok(self.entry.tree.meta(self.entry.stat, ShownIn::Header))).boxed()
    }

    fn read_bytes(&mut self, count: usize) -> FsFuture<'_, Bytes> {
        async move {
            let (entry, offset) = (self.entry.clone(), self.offset);
            let bytes = blocking(move || entry.tree.fs.read(entry.stat.ino, offset, count)).await?;
            // The caller asks only for bytes within the size. If bytes were missing, `dav-server` would send zeros
            // instead.
            if bytes.is_empty() {
                return Err(DavError::GeneralFailure);
            }
            self.offset += bytes.len() as u64;
            Ok(bytes.into())
        }
        .boxed()
    }

    fn seek(&mut self, position: SeekFrom) -> FsFuture<'_, u64> {
        let SeekFrom::Start(offset) = position else {
            return future::ready(Err(DavError::NotImplemented)).boxed();
        };
        self.offset = offset;
        future::ready(Ok(offset)).boxed()
    }

    fn write_buf(&mut self, _: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        future::ready(Err(DavError::Forbidden)).boxed()
    }

    fn write_bytes(&mut self, _: Bytes) -> FsFuture<'_, ()> {
        future::ready(Err(DavError::Forbidden)).boxed()
    }

    fn flush(&mut self) -> FsFuture<'_, ()> {
        future::ready(Ok(())).boxed()
    }
}
