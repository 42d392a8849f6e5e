//! The thin adapter between fuser and [`Fs`]: decodes requests, calls `Fs`, and replies. It decides nothing but how the
//! kernel caches.
//!
//! What makes the mount quick (each measured with 100,000 files; docs/semantics.md, "Caching"):
//! - `open` and `opendir` are answered with ENOSYS if the kernel supports that. From then on the kernel opens files by
//!   itself, and keeps pages and listings. Without that, a warm walk that reads every file sends three requests per
//!   file.
//! - Always readdirplus: the mode "auto" stops delivering attributes as soon as a program did not look at them, and
//!   then costs a lookup for each file that a program opens.
//! - No extended attributes, unless they were requested: `ls -l` asks for two per file, and only ENOSYS ends these
//!   requests.
//!
//! ENOSYS counts for the whole mount. So a mount with `restore/` must not answer it if `restore/` needs the request:
//! there, files are opened and closed. `fuse::live` handles the requests below `restore/`.

mod live;

use crate::error::{FsError, errno};
use crate::fs::{BLOCK_SIZE_BYTES, Fs, Listed, Lookup, Stat, TTL_FOREVER};
use crate::inode::{Ino, fixed};
use crate::live::Live;
use crate::requests::{Operation, Requests};
use crate::view::{Kind, READ_SIZE_BYTES_MAX, Time};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use live::LiveAdapter;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Maximum number of read-ahead requests that the kernel may send at the same time.
const BACKGROUND_REQUESTS_MAX: u16 = 64;

pub(crate) struct Adapter {
    fs: Arc<Fs>,
    requests: Arc<Requests>,
    /// Whether the kernel stops sending `open` after an ENOSYS. `no_opendir` says the same for `opendir`.
    no_open: bool,
    no_opendir: bool,
    /// Serves `restore/`, if the mount has it.
    live: Option<LiveAdapter>,
}

impl Adapter {
    /// Returns an adapter for `fs`, and for `live` below `restore/`.
    ///
    /// # Errors
    /// If threads could not be started.
    pub(crate) fn new(fs: Arc<Fs>, live: Option<Arc<Live>>, requests: Arc<Requests>) -> io::Result<Adapter> {
        let live = live.map(LiveAdapter::start).transpose()?;
        Ok(Adapter { fs, requests, no_open: false, no_opendir: false, live })
    }

    /// Returns the adapter that serves `ino`, if `ino` is `restore/` or below it.
    fn live(&self, ino: INodeNo) -> Option<&LiveAdapter> {
        self.live.as_ref().filter(|_| Ino(ino.0).is_live())
    }

    /// The same as [`Adapter::live`], but not for `restore/` itself, which `fs` serves.
    fn below_live(&self, ino: INodeNo) -> Option<&LiveAdapter> {
        self.live(ino).filter(|_| Ino(ino.0) != fixed::RESTORE)
    }

    /// Changes an error about extended attributes for mounts with `restore/`: the kernel must then keep asking.
    fn about_xattr<T>(&self, result: Result<T, FsError>) -> Result<T, FsError> {
        match result {
            Err(FsError::NotOffered) if self.live.is_some() => Err(FsError::Unsupported),
            result => result,
        }
    }

    /// Counts a request and enters the tracing span for it.
    fn request(&self, operation: Operation, request: &Request, ino: INodeNo) -> tracing::span::EnteredSpan {
        self.requests.count(operation);
        tracing::debug_span!("fuse", op = operation.name(), req = request.unique().0, ino = ino.0).entered()
    }
}

fn code(error: &FsError) -> Errno {
    Errno::from_i32(errno(error).raw_os_error())
}

fn system_time(time: Time) -> SystemTime {
    let nanos = time.nanos.min(999_999_999);
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let seconds = if time.secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    seconds
        .and_then(|seconds| seconds.checked_add(Duration::from_nanos(nanos.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

fn attributes(stat: &Stat) -> FileAttr {
    let mtime = system_time(stat.mtime);
    FileAttr {
        ino: INodeNo(stat.ino.0),
        size: stat.size,
        blocks: stat.blocks(),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(stat.kind),
        perm: stat.mode,
        nlink: stat.links,
        uid: stat.uid,
        gid: stat.gid,
        rdev: 0,
        blksize: BLOCK_SIZE_BYTES,
        flags: 0,
    }
}

/// Returns the attributes for the answer "this entry does not exist, and you may remember that": inode 0.
fn absent() -> FileAttr {
    let nothing = Stat {
        ino: Ino(0),
        kind: Kind::File,
        size: 0,
        mtime: Time::default(),
        mode: 0,
        uid: 0,
        gid: 0,
        links: 0,
        ttl: TTL_FOREVER,
    };
    attributes(&nothing)
}

const WITHOUT_RESTORE: [InitFlags; 2] = [InitFlags::FUSE_NO_OPEN_SUPPORT, InitFlags::FUSE_NO_OPENDIR_SUPPORT];
/// The first lets the kernel send an open with O_TRUNC as one request, which begins a new draft. With the second, the
/// kernel does not ask before each write whether it must remove a `security.capability`.
const WITH_RESTORE: [InitFlags; 2] = [InitFlags::FUSE_ATOMIC_O_TRUNC, InitFlags::FUSE_HANDLE_KILLPRIV_V2];

/// Always 0, because an inode number is never reused for another file.
const GENERATION: Generation = Generation(0);

/// Operations that only `restore/` supports. Elsewhere they would change a backup.
macro_rules! live_only {
    ($($operation:ident[$kind:ident]($ino:ident: INodeNo $(, $name:ident: $type:ty)*) -> $reply:ident: $answer:ty,
        $live:ident => $call:expr;)*) => {$(
        #[allow(clippy::too_many_arguments)]
        fn $operation(&self, request: &Request, $ino: INodeNo, $($name: $type,)* $reply: $answer) {
            $(let _ = &$name;)*
            let _span = self.request(Operation::$kind, request, $ino);
            match self.live($ino) {
                Some($live) => $call,
                None => $reply.error(code(&FsError::ReadOnly)),
            }
        }
    )*};
}

/// Operations that the mount does not support. The kernel does without them, and for most of them does not ask again.
macro_rules! not_offered {
    ($($operation:ident($($name:ident: $type:ty),*) -> $reply:ty, $error:expr;)*) => {$(
        #[allow(clippy::too_many_arguments)]
        fn $operation(&self, _: &Request, $($name: $type,)* reply: $reply) {
            $(let _ = $name;)*
            self.requests.count(Operation::Other);
            reply.error(code(&$error));
        }
    )*};
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPORT_SUPPORT,
        ]
        .into_iter()
        .chain(if self.live.is_some() { WITH_RESTORE } else { WITHOUT_RESTORE })
        {
            if config.add_capabilities(wanted).is_err() {
                tracing::debug!(capability = ?wanted, "the kernel does not offer this");
            }
        }
        self.no_open = self.live.is_none() && offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = self.live.is_none() && offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // This also sets the maximum size of read requests. The kernel lowers it to fs.fuse.max_pages_limit.
        let size = u32::try_from(READ_SIZE_BYTES_MAX).expect("1 MiB fits");
        config.set_max_write(size).map_err(|_| io::Error::other("1 MiB requests are refused"))?;
        config.set_max_background(BACKGROUND_REQUESTS_MAX).map_err(|_| io::Error::other("64 requests are refused"))?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _span = self.request(Operation::Lookup, request, parent);
        if let Some(live) = self.live(parent) {
            return live.lookup(parent, name, reply);
        }
        match self.fs.lookup(Ino(parent.0), name.as_bytes()) {
            Ok(Lookup::Entry(stat)) => reply.entry(&stat.ttl, &attributes(&stat), GENERATION),
            Ok(Lookup::Nothing(ttl)) => reply.entry(&ttl, &absent(), GENERATION),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        // No span and no counting: when the kernel drops its caches, it sends hundreds of thousands of these.
        match self.live(ino) {
            Some(live) => live.forget(ino, count),
            None => self.fs.forget(Ino(ino.0), count),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _span = self.request(Operation::Getattr, request, ino);
        if let Some(live) = self.below_live(ino) {
            return live.getattr(ino, reply);
        }
        match self.fs.stat(Ino(ino.0)) {
            Ok(stat) => reply.attr(&stat.ttl, &attributes(&stat)),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let _span = self.request(Operation::Readlink, request, ino);
        match self.fs.read_link(Ino(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _span = self.request(Operation::Open, request, ino);
        if let Some(live) = self.live(ino) {
            live.open(ino, flags, reply);
        } else if flags.acc_mode() != OpenAccMode::O_RDONLY || live::truncates(flags) {
            reply.error(code(&FsError::ReadOnly));
        } else if self.no_open {
            reply.error(code(&FsError::NotOffered));
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _span = self.request(Operation::Read, request, ino);
        if let Some(live) = self.live(ino) {
            return live.read(fh, offset, size, reply);
        }
        match self.fs.read(Ino(ino.0), offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _span = self.request(Operation::Opendir, request, ino);
        if let Some(live) = self.live(ino) {
            live.opendir(reply);
        } else if self.no_opendir {
            reply.error(code(&FsError::NotOffered));
        } else if self.fs.changes(Ino(ino.0)) {
            reply.opened(FileHandle(0), FopenFlags::empty());
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn readdir(&self, request: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _span = self.request(Operation::Readdir, request, ino);
        if let Some(live) = self.live(ino) {
            return live.readdir(ino, fh, offset, reply);
        }
        let mut emit = |listed: Listed<'_>| {
            let kind = file_type(listed.stat.kind);
            let taken = !reply.add(INodeNo(listed.stat.ino.0), listed.next, kind, OsStr::from_bytes(listed.name));
            // Plain readdir returns names, not inodes, so there is no reference to count.
            if taken && !matches!(listed.name, b"." | b"..") {
                self.fs.forget(listed.stat.ino, 1);
            }
            taken
        };
        match self.fs.list(Ino(ino.0), offset, &mut emit) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn readdirplus(&self, request: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let _span = self.request(Operation::Readdirplus, request, ino);
        if let Some(live) = self.live(ino) {
            return live.readdirplus(ino, fh, offset, reply);
        }
        let mut emit = |listed: Listed<'_>| {
            let (stat, name) = (&listed.stat, OsStr::from_bytes(listed.name));
            !reply.add(INodeNo(stat.ino.0), listed.next, name, &stat.ttl, &attributes(stat), GENERATION)
        };
        match self.fs.list(Ino(ino.0), offset, &mut emit) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _span = self.request(Operation::Statfs, request, ino);
        if let Some(live) = self.live(ino) {
            return live.statfs(reply);
        }
        let space = self.fs.space();
        reply.statfs(space.blocks, 0, 0, space.files, 0, BLOCK_SIZE_BYTES, 255, BLOCK_SIZE_BYTES);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _span = self.request(Operation::Xattr, request, ino);
        match self.below_live(ino) {
            Some(live) => live.getxattr(ino, name, size, reply),
            None => answer_xattr(self.about_xattr(self.fs.xattr(Ino(ino.0), name.as_bytes())), size, reply),
        }
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _span = self.request(Operation::Xattr, request, ino);
        match self.below_live(ino) {
            Some(live) => live.listxattr(ino, size, reply),
            None => answer_xattr(self.about_xattr(self.fs.xattr_names(Ino(ino.0))), size, reply),
        }
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _span = self.request(Operation::Access, request, ino);
        let error = if mask.contains(AccessFlags::W_OK) { FsError::ReadOnly } else { FsError::NotOffered };
        reply.error(code(&error));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _span = self.request(Operation::Change, request, ino);
        match (self.below_live(ino), self.live(ino)) {
            (Some(live), _) => live.setattr(ino, size, mtime, fh, reply),
            // `restore/` itself does not change. Report success, so that `cp -a` continues.
            (None, Some(_)) => match self.fs.stat(Ino(ino.0)) {
                Ok(stat) => reply.attr(&stat.ttl, &attributes(&stat)),
                Err(error) => reply.error(code(&error)),
            },
            (None, None) => reply.error(code(&FsError::ReadOnly)),
        }
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _span = self.request(Operation::Change, request, parent);
        let error = match (self.live(parent), self.live(newparent)) {
            (Some(_), Some(_)) if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) => {
                FsError::Exchange
            }
            (Some(live), Some(_)) => return live.rename((parent, name), (newparent, newname), reply),
            (None, Some(_)) => FsError::OtherFileSystem,
            (_, None) => FsError::ReadOnly,
        };
        reply.error(code(&error));
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, _: &OsStr, reply: ReplyEntry) {
        let _span = self.request(Operation::Change, request, ino);
        match self.live(newparent) {
            Some(_) => live::forbid(reply),
            None => reply.error(code(&FsError::ReadOnly)),
        }
    }

    fn flush(&self, request: &Request, ino: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let _span = self.request(Operation::Close, request, ino);
        match (self.live(ino), &self.live) {
            (Some(live), _) => live.flush(fh, request.pid(), reply),
            (None, Some(_)) => reply.ok(),
            (None, None) => reply.error(code(&FsError::NotOffered)),
        }
    }

    fn fsync(&self, request: &Request, ino: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let _span = self.request(Operation::Close, request, ino);
        match (self.live(ino), &self.live) {
            (Some(live), _) => live.fsync(fh, reply),
            (None, Some(_)) => reply.ok(),
            (None, None) => reply.error(code(&FsError::NotOffered)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        match self.live(ino) {
            Some(live) => live.release(fh, reply),
            None => reply.ok(),
        }
    }

    fn releasedir(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        match self.live(ino) {
            Some(live) => live.releasedir(fh, reply),
            None => reply.ok(),
        }
    }

    live_only! {
        mknod[Change](parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32) -> reply: ReplyEntry,
            _live => live::forbid(reply);
        mkdir[Change](parent: INodeNo, name: &OsStr, mode: u32, umask: u32) -> reply: ReplyEntry,
            live => live.mkdir(parent, name, reply);
        unlink[Change](parent: INodeNo, name: &OsStr) -> reply: ReplyEmpty, live => live.unlink(parent, name, reply);
        rmdir[Change](parent: INodeNo, name: &OsStr) -> reply: ReplyEmpty, _live => live::forbid(reply);
        symlink[Change](parent: INodeNo, name: &OsStr, target: &Path) -> reply: ReplyEntry,
            _live => live::forbid(reply);
        create[Change](parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32) -> reply: ReplyCreate,
            live => live.create(parent, name, flags, reply);
        write[Write](ino: INodeNo, fh: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags, flags: OpenFlags,
            lock_owner: Option<LockOwner>) -> reply: ReplyWrite, live => live.write(fh, offset, data, reply);
        fallocate[Write](ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32) -> reply: ReplyEmpty,
            live => live.fallocate(fh, offset, length, mode, reply);
        setxattr[Xattr](ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32) -> reply: ReplyEmpty,
            _live => reply.error(code(&FsError::Unsupported));
        removexattr[Xattr](ino: INodeNo, name: &OsStr) -> reply: ReplyEmpty,
            _live => reply.error(code(&FsError::Unsupported));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        ino_out: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _span = self.request(Operation::Change, request, ino_out);
        // After this answer the kernel copies by reading and writing.
        let error = if self.live(ino_out).is_some() { FsError::NotOffered } else { FsError::ReadOnly };
        reply.error(code(&error));
    }

    not_offered! {
        fsyncdir(ino: INodeNo, fh: FileHandle, datasync: bool) -> ReplyEmpty, FsError::NotOffered;
        lseek(ino: INodeNo, fh: FileHandle, offset: i64, whence: i32) -> ReplyLseek, FsError::NotOffered;
        bmap(ino: INodeNo, blocksize: u32, idx: u64) -> ReplyBmap, FsError::NotOffered;
        poll(ino: INodeNo, fh: FileHandle, ph: PollNotifier, events: PollEvents, flags: PollFlags)
            -> ReplyPoll, FsError::NotOffered;
        getlk(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32)
            -> ReplyLock, FsError::NotOffered;
        setlk(
            ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32, sleep: bool
        ) -> ReplyEmpty, FsError::NotOffered;
        ioctl(ino: INodeNo, fh: FileHandle, flags: IoctlFlags, cmd: u32, in_data: &[u8], out_size: u32)
            -> ReplyIoctl, FsError::NoCommand;
    }
}

/// Replies with the value, or with its length if the caller only asked for the buffer size.
fn answer_xattr(value: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(code(&FsError::BufferTooSmall)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(code(&error)),
    }
}
