//! A file that is being written: the outbox's draft, and how far it is from being complete.
//!
//! What others ask about it (length, whether it is sealed) is answered without waiting for a write or a seal that is on its way.

use super::now;
use crate::error::FsError;
use crate::outbox::{Draft, OutboxError};
use crate::view::Time;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How many files may be open for writing or have temporary names.
const WRITINGS_MAX: usize = 4096;

/// Counts the files that are being written.
#[derive(Clone, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

pub(super) struct Writing {
    len: AtomicU64,
    sealed: AtomicBool,
    /// How many open files lead here, and how many of them can be written to. Changed under the table's lock only.
    handles: AtomicU32,
    writers: AtomicU32,
    shown_mtime: Mutex<Time>,
    inner: Mutex<Inner>,
    count: Count,
}

pub(super) struct Inner {
    /// `None` once it was handed over or withdrawn.
    draft: Option<Box<dyn Draft>>,
    /// Whether something was written after the last flush.
    pub(super) unflushed: bool,
    /// Whether a process that was killed had it open last: what it wrote may be half of what it meant to.
    pub(super) abandoned: bool,
    /// The time that somebody gave it after writing.
    mtime: Option<Time>,
}

/// A [`Writing`] that nobody else writes or seals now.
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
        // After the count is in something that gives it back, whatever the outbox does.
        writing.inner.get_mut().draft = Some(draft()?);
        Ok(Arc::new(writing))
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns whether what it holds was checked and is durable: it was dropped, and is on its way.
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

    /// Returns whether it has to stay as it is for somebody who has it open: what was sealed can be read elsewhere.
    pub(super) fn is_held(&self) -> bool {
        let holders = if self.is_sealed() { &self.writers } else { &self.handles };
        holders.load(Ordering::Relaxed) > 0
    }

    /// Waits for whoever is writing or sealing. Never to be called with the table locked.
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

    /// Returns whether it was handed over, or withdrawn.
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

    /// Takes note of a time that somebody gave it; the last write before that does not count any more.
    pub(super) fn set_mtime(&mut self, mtime: Time) {
        self.inner.mtime = Some(mtime);
        *self.writing.shown_mtime.lock() = mtime;
    }

    /// Completes it as the file at `path`. What was sealed before, or holds nothing, stays as it is.
    pub(super) fn seal(&mut self, path: &[u8]) -> Result<(), FsError> {
        if self.writing.is_sealed() || self.writing.len() == 0 {
            return Ok(());
        }
        let mtime = self.inner.mtime;
        self.draft()?.seal(path, mtime)?;
        self.writing.sealed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Hands it over if it was sealed; otherwise it is discarded.
    pub(super) fn end(&mut self) {
        match self.inner.draft.take() {
            Some(draft) if self.writing.is_sealed() => draft.release(),
            _ => {}
        }
    }

    /// Discards it, also if it was sealed: it was withdrawn.
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
