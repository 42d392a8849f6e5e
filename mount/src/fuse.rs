//! The thin adapter between fuser and [`Fs`]: takes requests apart, calls, answers. Decides nothing but how the kernel caches.
//!
//! What makes the mount quick (each was measured with 100,000 files; docs/semantics.md, "Caching"):
//! - `open` and `opendir` are answered ENOSYS where the kernel offers that, so it opens by itself from then on and keeps
//!   pages and listings. Without that, a warm walk that reads every file sends three requests a file.
//! - readdirplus always: "auto" stops delivering attributes as soon as a program did not look at them, and then pays a
//!   lookup for each file it opens.
//! - No extended attributes unless asked for: `ls -l` asks for two a file, and only ENOSYS ends the questions.

use crate::error::{FsError, errno};
use crate::fs::{BLOCK_SIZE_BYTES, Found, Fs, Listed, Stat, TTL_FOREVER};
use crate::inode::Ino;
use crate::requests::{Operation, Requests};
use crate::view::{Kind, READ_SIZE_BYTES_MAX, Time};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How many requests the kernel may have in the air for read-ahead.
const BACKGROUND_REQUESTS_MAX: u16 = 64;

pub(crate) struct Adapter {
    fs: Arc<Fs>,
    requests: Arc<Requests>,
    /// Whether the kernel does without `open` when told so.
    no_open: bool,
    no_opendir: bool,
}

impl Adapter {
    pub(crate) fn new(fs: Arc<Fs>, requests: Arc<Requests>) -> Adapter {
        Adapter { fs, requests, no_open: false, no_opendir: false }
    }

    /// Counts a request and opens the span in which it is served.
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

/// The attributes in the answer "there is no such entry, and you may remember that": inode 0.
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

/// Inode numbers are never used a second time for something else.
const GENERATION: Generation = Generation(0);

/// Operations that would change something. The kernel refuses most of them itself, since the mount is read-only.
macro_rules! refuse {
    ($($operation:ident($($name:ident: $type:ty),*) -> $reply:ty;)*) => {$(
        #[allow(clippy::too_many_arguments)]
        fn $operation(&self, _: &Request, $($name: $type,)* reply: $reply) {
            $(let _ = $name;)*
            self.requests.count(Operation::Change);
            reply.error(code(&FsError::ReadOnly));
        }
    )*};
}

/// Operations that are not offered. The kernel does without, and for most of these does not ask again.
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
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        ] {
            if config.add_capabilities(wanted).is_err() {
                tracing::debug!(capability = ?wanted, "the kernel does not offer this");
            }
        }
        self.no_open = offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // Sets the largest request for reading, too. The kernel lowers it to fs.fuse.max_pages_limit.
        let size = u32::try_from(READ_SIZE_BYTES_MAX).expect("1 MiB fits");
        config.set_max_write(size).map_err(|_| io::Error::other("1 MiB requests are refused"))?;
        config.set_max_background(BACKGROUND_REQUESTS_MAX).map_err(|_| io::Error::other("64 requests are refused"))?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _span = self.request(Operation::Lookup, request, parent);
        match self.fs.lookup(Ino(parent.0), name.as_bytes()) {
            Ok(Found::Entry(stat)) => reply.entry(&stat.ttl, &attributes(&stat), GENERATION),
            Ok(Found::Nothing(ttl)) => reply.entry(&ttl, &absent(), GENERATION),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        // No span and no counting: dropping caches sends these by the hundred thousand.
        self.fs.forget(Ino(ino.0), count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _span = self.request(Operation::Getattr, request, ino);
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
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
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
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _span = self.request(Operation::Read, request, ino);
        match self.fs.read(Ino(ino.0), offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _span = self.request(Operation::Opendir, request, ino);
        if self.no_opendir {
            reply.error(code(&FsError::NotOffered));
        } else if self.fs.changes(Ino(ino.0)) {
            reply.opened(FileHandle(0), FopenFlags::empty());
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _span = self.request(Operation::Readdir, request, ino);
        let mut emit = |listed: Listed<'_>| {
            let kind = file_type(listed.stat.kind);
            let taken = !reply.add(INodeNo(listed.stat.ino.0), listed.next, kind, OsStr::from_bytes(listed.name));
            // Plain readdir hands out names, not inodes: there is no reference to count.
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

    fn readdirplus(&self, request: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let _span = self.request(Operation::Readdirplus, request, ino);
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
        let space = self.fs.space();
        reply.statfs(space.blocks, 0, 0, space.files, 0, BLOCK_SIZE_BYTES, 255, BLOCK_SIZE_BYTES);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _span = self.request(Operation::Xattr, request, ino);
        answer_xattr(self.fs.xattr(Ino(ino.0), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _span = self.request(Operation::Xattr, request, ino);
        answer_xattr(self.fs.xattr_names(Ino(ino.0)), size, reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _span = self.request(Operation::Access, request, ino);
        let error = if mask.contains(AccessFlags::W_OK) { FsError::ReadOnly } else { FsError::NotOffered };
        reply.error(code(&error));
    }

    refuse! {
        setattr(ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
            atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>, fh: Option<FileHandle>,
            crtime: Option<SystemTime>, chgtime: Option<SystemTime>, bkuptime: Option<SystemTime>,
            flags: Option<BsdFileFlags>) -> ReplyAttr;
        mknod(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32) -> ReplyEntry;
        mkdir(parent: INodeNo, name: &OsStr, mode: u32, umask: u32) -> ReplyEntry;
        unlink(parent: INodeNo, name: &OsStr) -> ReplyEmpty;
        rmdir(parent: INodeNo, name: &OsStr) -> ReplyEmpty;
        symlink(parent: INodeNo, name: &OsStr, target: &Path) -> ReplyEntry;
        rename(parent: INodeNo, name: &OsStr, newparent: INodeNo, newname: &OsStr, flags: RenameFlags) -> ReplyEmpty;
        link(ino: INodeNo, newparent: INodeNo, newname: &OsStr) -> ReplyEntry;
        create(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32) -> ReplyCreate;
        write(ino: INodeNo, fh: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags, flags: OpenFlags,
            lock_owner: Option<LockOwner>) -> ReplyWrite;
        fallocate(ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32) -> ReplyEmpty;
        setxattr(ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32) -> ReplyEmpty;
        removexattr(ino: INodeNo, name: &OsStr) -> ReplyEmpty;
        copy_file_range(ino_in: INodeNo, fh_in: FileHandle, offset_in: u64, ino_out: INodeNo, fh_out: FileHandle,
            offset_out: u64, len: u64, flags: CopyFileRangeFlags) -> ReplyWrite;
    }

    not_offered! {
        flush(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner) -> ReplyEmpty, FsError::NotOffered;
        fsync(ino: INodeNo, fh: FileHandle, datasync: bool) -> ReplyEmpty, FsError::NotOffered;
        fsyncdir(ino: INodeNo, fh: FileHandle, datasync: bool) -> ReplyEmpty, FsError::NotOffered;
        lseek(ino: INodeNo, fh: FileHandle, offset: i64, whence: i32) -> ReplyLseek, FsError::NotOffered;
        bmap(ino: INodeNo, blocksize: u32, idx: u64) -> ReplyBmap, FsError::NotOffered;
        poll(ino: INodeNo, fh: FileHandle, ph: PollNotifier, events: PollEvents, flags: PollFlags)
            -> ReplyPoll, FsError::NotOffered;
        getlk(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32)
            -> ReplyLock, FsError::NotOffered;
        setlk(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32, sleep: bool)
            -> ReplyEmpty, FsError::NotOffered;
        ioctl(ino: INodeNo, fh: FileHandle, flags: IoctlFlags, cmd: u32, in_data: &[u8], out_size: u32)
            -> ReplyIoctl, FsError::NoCommand;
    }
}

/// Answers with the value, or with its length if the caller only asked how large its buffer has to be.
fn answer_xattr(value: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(code(&FsError::BufferTooSmall)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(code(&error)),
    }
}
