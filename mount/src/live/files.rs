//! Opens, writes and closes files, and decides when a file is complete.
//!
//! `close` arrives as two requests. A flush arrives for each descriptor that is closed; its answer is what `close`
//! returns. A release arrives when the last descriptor of an open file is gone; nobody waits for its answer. So a file
//! is sealed at the flush, and handed over at the release of its last handle.

use super::scratch::is_scratch;
use super::table::{Content, Handle};
use super::writing::{Locked, Writing};
use super::{COMMIT, Live, Opened, failed, now};
use crate::catalog::NAME_LENGTH_BYTES_MAX;
use crate::error::FsError;
use crate::fs::Stat;
use crate::inode::{Ino, fixed};
use crate::outbox::{ItemKind, OutboxError};
use crate::view::{READ_SIZE_BYTES_MAX, Time};
use std::sync::Arc;

/// Flags in `/proc/<pid>/stat` of a process that is exiting because of a signal (PF_EXITING and PF_SIGNALED,
/// linux/sched.h).
const KILLED: u64 = 0x4 | 0x400;

impl Live {
    /// Creates and opens a file. The entry counts as one reference.
    pub(crate) fn create(&self, folder: Ino, name: &[u8], exclusive: bool) -> Result<(Stat, Opened), FsError> {
        if name.len() > NAME_LENGTH_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        if folder == fixed::RESTORE && name == COMMIT {
            return self.commit();
        }
        let path = {
            let mut table = self.table.lock();
            if let Some(ino) = table.child(folder, name).filter(|ino| table.writing(*ino).is_some()) {
                if exclusive {
                    return Err(FsError::Exists);
                }
                table.refer(folder, name);
                drop(table);
                let opened = self.open(ino, true, true).inspect_err(|_| self.forget(ino, 1))?;
                return Ok((self.stat(ino)?, opened));
            }
            table.path(folder).ok_or(OutboxError::NotFound)?
        };
        let writing = self.begin(&path)?;
        let mut table = self.table.lock();
        let (ino, node) = table.refer(folder, name);
        node.content = Content::Writing(writing.clone());
        (node.mtime, node.text, node.file, node.folder) = (None, false, true, None);
        let stat = self.writing_stat(ino, &writing);
        let handle = table.open(Handle::Writing { ino, writing, writes: true });
        Ok((stat, Opened { handle, uncached: false }))
    }

    /// Starts the restore. No file is created, but the kernel needs an inode and a handle until the file is closed.
    fn commit(&self) -> Result<(Stat, Opened), FsError> {
        self.outbox.commit().map_err(|error| failed("commit", error))?;
        let mut table = self.table.lock();
        let (ino, node) = table.refer_nameless();
        node.content = Content::Commit;
        let handle = table.open(Handle::Commit);
        drop(table);
        let stat = self.file_stat(ino, 0, 0o600, now(), std::time::Duration::ZERO);
        Ok((stat, Opened { handle, uncached: true }))
    }

    /// Opens a file: for writing if `writes`, and truncated if `empty`.
    pub(crate) fn open(&self, ino: Ino, writes: bool, empty: bool) -> Result<Opened, FsError> {
        let changes = writes || empty;
        let folder = {
            let mut table = self.table.lock();
            let node = table.node(ino).ok_or(FsError::Stale)?;
            let uncached = node.text;
            match &node.content {
                Content::Commit => {
                    return Ok(Opened { handle: table.open(Handle::Commit), uncached: true });
                }
                Content::Writing(writing) if !empty || !writing.is_sealed() => {
                    let writing = writing.clone();
                    // A sealed file can be opened for writing, as GLib does to check for permission, but writes to it
                    // fail.
                    let writes = changes && !writing.is_sealed();
                    writing.opened(writes);
                    let handle = table.open(Handle::Writing { ino, writing: writing.clone(), writes });
                    drop(table);
                    if empty {
                        let cut = writing.lock().set_len(0);
                        cut.inspect_err(|_| self.release(handle))?;
                    }
                    return Ok(Opened { handle, uncached });
                }
                Content::Outbox if changes && node.text => return Err(OutboxError::NotPermitted.into()),
                Content::Outbox if !empty => {
                    return Ok(Opened { handle: table.open(Handle::Outbox(ino)), uncached });
                }
                // A file that was dropped can be dropped again: begin a new draft.
                _ => {
                    let (folder, _) = table.place(ino).ok_or(FsError::Stale)?;
                    table.path(folder).ok_or(FsError::Stale)?
                }
            }
        };
        let writing = self.begin(&folder)?;
        let mut table = self.table.lock();
        table.node_mut(ino).ok_or(FsError::Stale)?.content = Content::Writing(writing.clone());
        let handle = table.open(Handle::Writing { ino, writing, writes: true });
        Ok(Opened { handle, uncached: false })
    }

    /// Returns up to `size` bytes of an open file.
    pub(crate) fn read(&self, handle: u64, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
        let size = size.min(READ_SIZE_BYTES_MAX);
        let mut bytes = match self.handle(handle)? {
            Handle::Writing { ino, writing, .. } => {
                let mut locked = writing.lock();
                // The file was handed over after it was opened.
                if locked.has_ended() { self.read_dropped(ino, offset, size)? } else { locked.read(offset, size)? }
            }
            Handle::Outbox(ino) => self.read_dropped(ino, offset, size)?,
            Handle::Commit => Vec::new(),
            Handle::Folder(_) => return Err(FsError::Stale),
        };
        // Never return more than was asked for: the kernel would not accept the answer.
        bytes.truncate(size);
        Ok(bytes)
    }

    fn read_dropped(&self, ino: Ino, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
        let path = self.table.lock().path(ino).ok_or(FsError::Stale)?;
        self.outbox.read(&path, offset, size).map_err(|error| failed("read", error))
    }

    pub(crate) fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        match self.handle(handle)? {
            Handle::Writing { writing, writes: true, .. } => writing.lock().write(offset, bytes),
            Handle::Commit => Ok(()),
            _ => Err(OutboxError::NotPermitted.into()),
        }
    }

    /// Handles the closing of a descriptor by the process `pid`. The result is what `close` returns.
    pub(crate) fn flush(&self, handle: u64, pid: u32) -> Result<(), FsError> {
        let Handle::Writing { ino, writing, writes: true } = self.handle(handle)? else { return Ok(()) };
        let mut locked = writing.lock();
        if writing.is_sealed() {
            return Ok(());
        }
        // A killed process closes its files too. Then the file may be incomplete.
        if locked.unflushed && was_killed(pid) {
            locked.abandoned = true;
            return Ok(());
        }
        locked.unflushed = false;
        self.seal(ino, &writing, &mut locked)
    }

    /// Makes the bytes written so far durable.
    pub(crate) fn sync(&self, handle: u64) -> Result<(), FsError> {
        let Handle::Writing { ino, writing, writes: true } = self.handle(handle)? else { return Ok(()) };
        self.seal(ino, &writing, &mut writing.lock())
    }

    /// Handles the end of the last descriptor of an open file.
    pub(crate) fn release(&self, handle: u64) {
        let (ino, writing) = {
            let mut table = self.table.lock();
            let Some(Handle::Writing { ino, writing, writes }) = table.close(handle) else { return };
            writing.closed(writes);
            (ino, writing)
        };
        self.finish_unless_held(ino, &writing);
    }

    /// Changes the length and the modification time.
    pub(crate) fn change(
        &self,
        ino: Ino,
        handle: Option<u64>,
        size: Option<u64>,
        mtime: Option<Time>,
    ) -> Result<Stat, FsError> {
        let open = handle.and_then(|handle| match self.handle(handle) {
            Ok(Handle::Writing { writing, writes: true, .. }) => Some(writing),
            _ => None,
        });
        let writing = match &open {
            Some(writing) => Some(writing.clone()),
            None => self.table.lock().writing(ino).cloned(),
        };
        if let Some(size) = size {
            match &writing {
                Some(writing) if open.is_some() || !writing.is_sealed() => writing.lock().set_len(size)?,
                Some(writing) if writing.len() == size => {}
                Some(_) => return Err(OutboxError::NotPermitted.into()),
                None => self.require_same_len(ino, size)?,
            }
        }
        if let Some(mtime) = mtime {
            self.set_mtime(ino, writing.as_deref(), mtime)?;
        }
        let stat = self.stat(ino)?;
        Ok(Stat { mtime: mtime.unwrap_or(stat.mtime), ..stat })
    }

    /// Reserves space for `len` bytes. This only extends the file to that length if it is shorter.
    pub(crate) fn extend(&self, handle: u64, len: u64) -> Result<(), FsError> {
        match self.handle(handle)? {
            Handle::Writing { writing, writes: true, .. } => {
                let mut locked = writing.lock();
                locked.set_len(len.max(writing.len()))
            }
            _ => Err(OutboxError::NotPermitted.into()),
        }
    }

    /// Hands over all sealed files and discards the others, because no program can close them any more.
    pub(crate) fn end(&self) {
        let written = self.table.lock().all_written();
        for (_, writing) in written {
            writing.lock().end();
        }
    }

    pub(super) fn begin(&self, folder: &[u8]) -> Result<Arc<Writing>, FsError> {
        Writing::begin(&self.count, || self.outbox.begin(folder))
    }

    /// Seals the file under its current name, unless that is a temporary one.
    fn seal(&self, ino: Ino, writing: &Arc<Writing>, locked: &mut Locked<'_>) -> Result<(), FsError> {
        match self.ordinary_path(ino, writing)? {
            Some(path) => locked.seal(&path),
            None => Ok(()),
        }
    }

    /// Returns the path under which the outbox may have the file; `None` if it has a temporary name or was removed.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] if another program is writing another file at this path.
    fn ordinary_path(&self, ino: Ino, writing: &Arc<Writing>) -> Result<Option<Vec<u8>>, OutboxError> {
        let table = self.table.lock();
        let Some((_, name)) = table.place(ino) else { return Ok(None) };
        match table.writing(ino) {
            Some(current) if !Arc::ptr_eq(current, writing) => Err(OutboxError::NotPermitted),
            Some(_) if !is_scratch(name) => Ok(table.path(ino)),
            _ => Ok(None),
        }
    }

    pub(super) fn finish_unless_held(&self, ino: Ino, writing: &Arc<Writing>) {
        if !writing.is_held() {
            self.finish(ino, writing);
        }
    }

    /// Called when no program has the file open any more. Hands it over if it is sealed, keeps it if it has a temporary
    /// name, and discards it otherwise.
    fn finish(&self, ino: Ino, writing: &Arc<Writing>) {
        let mut locked = writing.lock();
        // A memory mapping can write after the last close.
        if locked.unflushed && !locked.abandoned {
            locked.unflushed = false;
            if let Err(error) = self.seal(ino, writing, &mut locked) {
                tracing::warn!(%error, "could not seal a file written after its close; it is not restored");
            }
        }
        {
            let mut table = self.table.lock();
            if writing.is_held() {
                return;
            }
            let current = table.writing(ino).is_some_and(|current| Arc::ptr_eq(current, writing));
            let scratch = table.place(ino).is_some_and(|(_, name)| is_scratch(name));
            if current && scratch && !writing.is_sealed() {
                return;
            }
            if current && !writing.is_sealed() {
                self.drop_content(&mut table, ino);
            }
        }
        locked.end();
        let mut table = self.table.lock();
        if table.writing(ino).is_some_and(|current| Arc::ptr_eq(current, writing)) {
            self.drop_content(&mut table, ino);
        }
    }

    fn drop_content(&self, table: &mut super::Table, ino: Ino) {
        if let Some(node) = table.node_mut(ino) {
            node.content = Content::Outbox;
            table.settle(ino);
        }
    }

    fn handle(&self, handle: u64) -> Result<Handle, FsError> {
        self.table.lock().handle(handle).cloned().ok_or(FsError::Stale)
    }

    /// Checks that `len` is the current length. The length of a dropped file cannot change, but setting it to the same
    /// value succeeds.
    fn require_same_len(&self, ino: Ino, len: u64) -> Result<(), FsError> {
        let path = {
            let table = self.table.lock();
            match table.node(ino).ok_or(FsError::Stale)?.content {
                Content::Commit => return Ok(()),
                _ => table.path(ino).ok_or(FsError::Stale)?,
            }
        };
        match self.outbox.item(&path).map_err(|error| failed("item", error))?.kind {
            ItemKind::Dropped { len: now, .. } if now == len => Ok(()),
            _ => Err(OutboxError::NotPermitted.into()),
        }
    }

    /// Sets the modification time of a file. A draft passes it on when it is sealed, and the outbox shows it for a
    /// dropped file. For folders and texts it is only shown, as long as the kernel knows the inode.
    fn set_mtime(&self, ino: Ino, writing: Option<&Writing>, mtime: Time) -> Result<(), FsError> {
        if let Some(writing) = writing {
            let mut locked = writing.lock();
            locked.set_mtime(mtime);
            if !writing.is_sealed() {
                return Ok(());
            }
        }
        let path = {
            let mut table = self.table.lock();
            let node = table.node_mut(ino).ok_or(FsError::Stale)?;
            if !node.file || node.text {
                (node.mtime, node.folder) = (Some(mtime), None);
                return Ok(());
            }
            table.path(ino)
        };
        match path.map(|path| self.outbox.set_mtime(&path, mtime)) {
            // The file no longer has a name, or was withdrawn.
            None | Some(Err(OutboxError::NotFound)) => Ok(()),
            Some(set) => set.map_err(|error| failed("set_mtime", error)),
        }
    }
}

/// Returns whether the process is exiting because of a signal. It waits for our answer, so it still exists.
fn was_killed(pid: u32) -> bool {
    // Reading `stat` of a process in `execve` waits for the end of that call. But `execve` closes descriptors, and so
    // waits for us. So read `stat` only if the process has no memory any more, which means that it is exiting. `statm`
    // tells that without waiting.
    let memory = std::fs::read(format!("/proc/{pid}/statm"));
    if !memory.is_ok_and(|memory| memory.starts_with(b"0 0 ")) {
        return false;
    }
    let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { return false };
    // "pid (name) state ppid pgrp session tty tpgid flags ...", where the name may contain anything (proc_pid_stat(5)).
    let Some(end) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let fields = String::from_utf8_lossy(&stat[end + 1..]);
    let flags = fields.split_ascii_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KILLED == KILLED)
}
