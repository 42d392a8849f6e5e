//! A file that is being written: the draft of the outbox, and how far the file is from being complete.
//!
//! Its length, its time and whether it is sealed can be read without waiting for a running write or seal.

use super::now;
use crate::error::FsError;
use crate::outbox::{Draft, OutboxError};
use crate::view::Time;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Maximum number of files that are open for writing or have temporary names.
const WRITINGS_MAX: usize = 4096;

/// Number of files that are being written.
#[derive(Clone, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

pub(super) struct Writing {
    len: AtomicU64,
    sealed: AtomicBool,
    /// Number of open handles. Changed only while the table is locked.
    handles: AtomicU32,
    /// Number of open handles that can write. Changed only while the table is locked.
    writers: AtomicU32,
    shown_mtime: Mutex<Time>,
    inner: Mutex<Inner>,
    count: Count,
}

pub(super) struct Inner {
    /// `None` after the draft was handed over or withdrawn.
    draft: Option<Box<dyn Draft>>,
    /// True if something was written after the last flush.
    pub(super) unflushed: bool,
    /// True if a process that was killed closed the file last. The file may then be incomplete.
    pub(super) abandoned: bool,
    /// The modification time that a program set after the last write.
    mtime: Option<Time>,
}

/// Exclusive access to a [`Writing`], for writing or sealing.
pub(super) struct Locked<'a> {
    writing: &'a Writing,
    inner: MutexGuard<'a, Inner>,
}

impl Writing {
    /// Begins a file that one handle has open for writing.
    pub(super) fn begin(
        count: &Count,
        draft: impl FnOnce() -> Result<Box<dyn Draft>, OutboxError>,
    ) -> Result<Arc<Writing>, FsError> {
        let count = count.clone();
        if count.0.fetch_add(1, Ordering::Relaxed) >= WRITINGS_MAX {
            count.0.fetch_sub(1, Ordering::Relaxed);
            return Err(OutboxError::Full.into());
        }
        let mut writing = Writing {
            len: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
            handles: AtomicU32::new(1),
            writers: AtomicU32::new(1),
            shown_mtime: Mutex::new(now()),
            inner: Mutex::new(Inner { draft: None, unflushed: false, abandoned: false, mtime: None }),
            count,
        };
        // Only call `draft` now, when dropping `writing` gives the count back, even if `draft` fails or panics.
        writing.inner.get_mut().draft = Some(draft()?);
        Ok(Arc::new(writing))
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns whether the bytes were checked and are durable, so that the file counts as dropped.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed)
    }

    pub(super) fn mtime(&self) -> Time {
        *self.shown_mtime.lock()
    }

    pub(super) fn opened(&self, writes: bool) {
        self.handles.fetch_add(1, Ordering::Relaxed);
        self.writers.fetch_add(u32::from(writes), Ordering::Relaxed);
    }

    pub(super) fn closed(&self, writes: bool) {
        self.handles.fetch_sub(1, Ordering::Relaxed);
        self.writers.fetch_sub(u32::from(writes), Ordering::Relaxed);
    }

    /// Returns whether an open handle still needs the draft. A sealed file needs it only for writers, because readers
    /// can get its bytes from the outbox.
    pub(super) fn is_held(&self) -> bool {
        let holders = if self.is_sealed() { &self.writers } else { &self.handles };
        holders.load(Ordering::Relaxed) > 0
    }

    /// Waits for other threads that write or seal. Must not be called while the table is locked.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked { writing: self, inner: self.inner.lock() }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::ops::Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Locked<'_> {
    fn draft(&mut self) -> Result<&mut dyn Draft, FsError> {
        self.inner.draft.as_deref_mut().ok_or(FsError::Stale).map(|draft| draft as &mut dyn Draft)
    }

    /// Returns whether the draft was handed over or withdrawn.
    pub(super) fn has_ended(&self) -> bool {
        self.inner.draft.is_none()
    }

    pub(super) fn read(&mut self, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
        Ok(self.draft()?.read(offset, size)?)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        self.changed();
        let written = self.draft()?.write(offset, bytes);
        self.measure();
        Ok(written?)
    }

    pub(super) fn set_len(&mut self, len: u64) -> Result<(), FsError> {
        if len == self.writing.len() {
            return Ok(());
        }
        self.changed();
        let cut = self.draft()?.set_len(len);
        self.measure();
        Ok(cut?)
    }

    /// Sets the modification time, in place of the time of the last write.
    pub(super) fn set_mtime(&mut self, mtime: Time) {
        self.inner.mtime = Some(mtime);
        *self.writing.shown_mtime.lock() = mtime;
    }

    /// Completes the draft as the file at `path`. Does nothing if it is already sealed or is empty.
    pub(super) fn seal(&mut self, path: &[u8]) -> Result<(), FsError> {
        if self.writing.is_sealed() || self.writing.len() == 0 {
            return Ok(());
        }
        let mtime = self.inner.mtime;
        self.draft()?.seal(path, mtime)?;
        self.writing.sealed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Hands the draft over if it is sealed, and discards it otherwise.
    pub(super) fn end(&mut self) {
        match self.inner.draft.take() {
            Some(draft) if self.writing.is_sealed() => draft.release(),
            _ => {}
        }
    }

    /// Discards the draft even if it is sealed, because it was withdrawn.
    pub(super) fn discard(&mut self) {
        self.inner.draft = None;
    }

    fn changed(&mut self) {
        self.writing.sealed.store(false, Ordering::Relaxed);
        *self.writing.shown_mtime.lock() = now();
        self.inner.unflushed = true;
        self.inner.abandoned = false;
        self.inner.mtime = None;
    }

    fn measure(&mut self) {
        let len = self.inner.draft.as_ref().map_or(0, |draft| draft.len());
        self.writing.len.store(len, Ordering::Relaxed);
    }
}
