//! Passes requests below `restore/`, with their replies, to threads that may wait for a network.

use super::{GENERATION, absent, attributes, code, file_type};
use crate::error::FsError;
use crate::fs::{BLOCK_SIZE_BYTES, Listed, Lookup, Stat};
use crate::inode::Ino;
use crate::live::{Live, Opened, STATE_ATTRIBUTE};
use crate::outbox::OutboxError;
use crate::view::Time;
use crate::workers::Workers;
use fuser::{
    FileHandle, FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
};
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Free space to report, in bytes. The space left in an account is unknown, but file managers check the free space
/// before they copy.
const FREE_BYTES: u64 = 1 << 40;

pub(super) struct LiveAdapter {
    live: Arc<Live>,
    workers: Workers,
}

/// A reply that can carry an error.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, error: &FsError);
}

macro_rules! can_refuse {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, error: &FsError) {
                self.error(code(error));
            }
        }
    )*};
}
can_refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen);
can_refuse!(ReplyWrite, ReplyXattr);

/// Returns whether the flags of an open ask to truncate the file.
pub(super) fn truncates(flags: OpenFlags) -> bool {
    has(flags.0, OFlags::TRUNC)
}

fn has(flags: i32, flag: OFlags) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(flag)
}

fn answer_opened(opened: Opened) -> (FileHandle, FopenFlags) {
    let flags = if opened.uncached { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
    (FileHandle(opened.handle), flags)
}

fn answer_empty(result: Result<(), FsError>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.refuse(&error),
    }
}

fn answer_entry(result: Result<Stat, FsError>, reply: ReplyEntry) {
    match result {
        Ok(stat) => reply.entry(&stat.ttl, &attributes(&stat), GENERATION),
        Err(error) => reply.refuse(&error),
    }
}

fn time(time: TimeOrNow) -> Time {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { secs: whole(since.as_secs()), nanos: since.subsec_nanos() },
        Err(before) => {
            // For times before 1970, fuser 0.18 counts the nanoseconds backwards, contrary to the usual convention.
            let before = before.duration();
            Time { secs: -whole(before.as_secs()), nanos: before.subsec_nanos() }
        }
    }
}

impl LiveAdapter {
    pub(super) fn start(live: Arc<Live>) -> io::Result<LiveAdapter> {
        Ok(LiveAdapter { live, workers: Workers::start()? })
    }

    /// Runs `work`, which must reply, on another thread. Replies EAGAIN if too many requests are waiting.
    fn dispatch<R: Refuse>(&self, reply: R, work: impl FnOnce(&Live, R) + Send + 'static) {
        if self.workers.has_room() {
            self.dispatch_always(reply, work);
        } else {
            reply.refuse(&FsError::Busy);
        }
    }

    /// Runs `work`, which must reply, on another thread, no matter how many requests are waiting. For closing files:
    /// the kernel does not send that twice, and there are no more such requests than open files.
    fn dispatch_always<R: Refuse>(&self, reply: R, work: impl FnOnce(&Live, R) + Send + 'static) {
        let live = self.live.clone();
        self.workers.add(move || work(&live, reply));
    }

    pub(super) fn lookup(&self, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.dispatch(reply, move |live, reply| match live.lookup(Ino(folder.0), &name) {
            Ok(Lookup::Entry(stat)) => reply.entry(&stat.ttl, &attributes(&stat), GENERATION),
            Ok(Lookup::Nothing(ttl)) => reply.entry(&ttl, &absent(), GENERATION),
            Err(error) => reply.refuse(&error),
        });
    }

    /// Runs on this thread, because it never waits, and the kernel sends hundreds of thousands of these when it drops
    /// its caches.
    pub(super) fn forget(&self, ino: INodeNo, count: u64) {
        self.live.forget(Ino(ino.0), count);
    }

    pub(super) fn getattr(&self, ino: INodeNo, reply: ReplyAttr) {
        self.dispatch(reply, move |live, reply| match live.stat(Ino(ino.0)) {
            Ok(stat) => reply.attr(&stat.ttl, &attributes(&stat)),
            Err(error) => reply.refuse(&error),
        });
    }

    pub(super) fn setattr(
        &self,
        ino: INodeNo,
        size: Option<u64>,
        mtime: Option<TimeOrNow>,
        fh: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.dispatch(reply, move |live, reply| {
            match live.change(Ino(ino.0), fh.map(|fh| fh.0), size, mtime.map(time)) {
                Ok(stat) => reply.attr(&stat.ttl, &attributes(&stat)),
                Err(error) => reply.refuse(&error),
            }
        });
    }

    pub(super) fn mkdir(&self, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.dispatch(reply, move |live, reply| answer_entry(live.make_folder(Ino(folder.0), &name), reply));
    }

    pub(super) fn unlink(&self, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.dispatch(reply, move |live, reply| answer_empty(live.remove(Ino(folder.0), &name), reply));
    }

    pub(super) fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), reply: ReplyEmpty) {
        let owned = |(folder, name): (INodeNo, &OsStr)| (Ino(folder.0), name.as_bytes().to_vec());
        let (from, to) = (owned(from), owned(to));
        self.dispatch(reply, move |live, reply| answer_empty(live.rename((from.0, &from.1), (to.0, &to.1)), reply));
    }

    pub(super) fn create(&self, folder: INodeNo, name: &OsStr, flags: i32, reply: ReplyCreate) {
        let name = name.as_bytes().to_vec();
        let exclusive = has(flags, OFlags::EXCL);
        self.dispatch(reply, move |live, reply| match live.create(Ino(folder.0), &name, exclusive) {
            Ok((stat, opened)) => {
                let (fh, flags) = answer_opened(opened);
                reply.created(&stat.ttl, &attributes(&stat), GENERATION, fh, flags);
            }
            Err(error) => reply.refuse(&error),
        });
    }

    pub(super) fn open(&self, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        self.dispatch(reply, move |live, reply| match live.open(Ino(ino.0), writes, truncates(flags)) {
            Ok(opened) => {
                let (fh, flags) = answer_opened(opened);
                reply.opened(fh, flags);
            }
            Err(error) => reply.refuse(&error),
        });
    }

    pub(super) fn read(&self, fh: FileHandle, offset: u64, size: u32, reply: ReplyData) {
        self.dispatch(reply, move |live, reply| match live.read(fh.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.refuse(&error),
        });
    }

    pub(super) fn write(&self, fh: FileHandle, offset: u64, data: &[u8], reply: ReplyWrite) {
        let written = u32::try_from(data.len()).expect("a request holds at most 1 MiB");
        let data = data.to_vec();
        self.dispatch(reply, move |live, reply| match live.write(fh.0, offset, &data) {
            Ok(()) => reply.written(written),
            Err(error) => reply.refuse(&error),
        });
    }

    pub(super) fn fallocate(&self, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        if mode != 0 {
            return reply.refuse(&FsError::Unsupported);
        }
        let len = offset.saturating_add(length);
        self.dispatch(reply, move |live, reply| answer_empty(live.extend(fh.0, len), reply));
    }

    pub(super) fn flush(&self, fh: FileHandle, pid: u32, reply: ReplyEmpty) {
        self.dispatch_always(reply, move |live, reply| answer_empty(live.flush(fh.0, pid), reply));
    }

    pub(super) fn fsync(&self, fh: FileHandle, reply: ReplyEmpty) {
        self.dispatch(reply, move |live, reply| answer_empty(live.sync(fh.0), reply));
    }

    pub(super) fn release(&self, fh: FileHandle, reply: ReplyEmpty) {
        self.dispatch_always(reply, move |live, reply| {
            live.release(fh.0);
            reply.ok();
        });
    }

    pub(super) fn opendir(&self, reply: ReplyOpen) {
        reply.opened(FileHandle(self.live.open_folder()), FopenFlags::empty());
    }

    pub(super) fn releasedir(&self, fh: FileHandle, reply: ReplyEmpty) {
        self.live.close_folder(fh.0);
        reply.ok();
    }

    pub(super) fn readdir(&self, folder: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.dispatch(reply, move |live, mut reply| {
            let mut emit = |listed: Listed<'_>| {
                let (ino, kind) = (listed.stat.ino, file_type(listed.stat.kind));
                let taken = !reply.add(INodeNo(ino.0), listed.next, kind, OsStr::from_bytes(listed.name));
                // Plain readdir returns names, not inodes, so there is no reference to count.
                if taken && !matches!(listed.name, b"." | b"..") {
                    live.forget(ino, 1);
                }
                taken
            };
            match live.list(Ino(folder.0), fh.0, offset, &mut emit) {
                Ok(()) => reply.ok(),
                Err(error) => reply.refuse(&error),
            }
        });
    }

    pub(super) fn readdirplus(&self, folder: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.dispatch(reply, move |live, mut reply| {
            let mut emit = |listed: Listed<'_>| {
                let (stat, name) = (&listed.stat, OsStr::from_bytes(listed.name));
                !reply.add(INodeNo(stat.ino.0), listed.next, name, &stat.ttl, &attributes(stat), GENERATION)
            };
            match live.list(Ino(folder.0), fh.0, offset, &mut emit) {
                Ok(()) => reply.ok(),
                Err(error) => reply.refuse(&error),
            }
        });
    }

    pub(super) fn statfs(&self, reply: ReplyStatfs) {
        let blocks = FREE_BYTES / u64::from(BLOCK_SIZE_BYTES);
        reply.statfs(blocks, blocks, blocks, 0, 0, BLOCK_SIZE_BYTES, 255, BLOCK_SIZE_BYTES);
    }

    /// `ls -l` asks for other attributes of every file. It stops after EOPNOTSUPP, and the outbox is not asked.
    pub(super) fn getxattr(&self, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name.as_bytes() != STATE_ATTRIBUTE.as_bytes() {
            return reply.refuse(&FsError::Unsupported);
        }
        self.dispatch(reply, move |live, reply| {
            super::answer_xattr(live.state(Ino(ino.0)).map(String::into_bytes), size, reply);
        });
    }

    pub(super) fn listxattr(&self, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.dispatch(reply, move |live, reply| {
            let names = live.state(Ino(ino.0)).map(|_| format!("{STATE_ATTRIBUTE}\0").into_bytes());
            let names = match names {
                Err(FsError::NoAttribute) => Err(FsError::Unsupported),
                names => names,
            };
            super::answer_xattr(names, size, reply);
        });
    }
}

/// Refuses operations that delete or overwrite, or that create what an account cannot hold.
pub(super) fn forbid<R: Refuse>(reply: R) {
    reply.refuse(&OutboxError::NotPermitted.into());
}

impl Drop for LiveAdapter {
    fn drop(&mut self) {
        let live = self.live.clone();
        self.workers.add(move || live.end());
    }
}
