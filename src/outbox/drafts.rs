//! Files that are being written: what happens on `write`, `fsync` and `close`.

use super::cards::{self, holds_contacts};
use super::journal::{Dropped, Fate};
use super::live::ORIGINAL;
use super::queue::{self, Sealed};
use super::staging::{StagedFile, StagedId};
use super::{FILE_BYTES_MAX, OutboxState, now};
use crate::backup::splitter::{Nowhere, Rules, Split, SplitError, Splitter};
use crate::content::mail::{HEADER_BYTES_MAX, MailFacts, facts, is_named_as_mail, looks_like_mail};
use crate::format::entry::Content;
use crate::repository::Repository;
use crate::restore::{Kind, Refused};
use crate::source;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use strongroom_mount::{Draft, OutboxError, Time};

/// Length in bytes above which only one file is split at a time. Splitting takes several times the file's length in
/// memory.
const LONG_BYTES: u64 = 4 << 20;
/// Maximum number of idle splitters that are kept for the next files.
const IDLE_MAX: usize = 4;

/// Computes the identity that contents would have in the repository.
pub struct Identifier {
    rules: Arc<Rules>,
    idle: Mutex<Vec<Splitter>>,
    long: Mutex<()>,
}

impl Identifier {
    /// Makes an identifier for the repository.
    pub fn new(repository: &Repository) -> Self {
        Self { rules: Rules::of(repository), idle: Mutex::default(), long: Mutex::default() }
    }

    /// Splits `item` in the same way as a backup, and stores nothing.
    ///
    /// # Errors
    /// When the item cannot be read.
    pub fn split(&self, item: &dyn source::Content) -> io::Result<Split> {
        self.with_splitter(item.len_hint(), |splitter| splitter.split(item))
    }

    /// Splits a file that a backup makes, such as a vCard, in the same way as a backup, and stores nothing.
    ///
    /// # Errors
    /// If it cannot be split.
    pub fn split_made(&self, file: &[u8]) -> io::Result<Content> {
        self.with_splitter(file.len() as u64, |splitter| splitter.split_made(file))
    }

    fn with_splitter<T>(&self, len: u64, split: impl FnOnce(&mut Splitter) -> Result<T, SplitError>) -> io::Result<T> {
        let _long = (len > LONG_BYTES).then(|| self.long.lock());
        let made = || Splitter::new(Arc::new(Nowhere), self.rules.clone());
        let mut splitter = self.idle.lock().pop().unwrap_or_else(made);
        let split = split(&mut splitter);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(splitter);
        }
        match split {
            Ok(split) => Ok(split),
            Err(SplitError::Item(error)) => Err(error),
            Err(SplitError::Store(error)) => Err(io::Error::other(error)),
        }
    }
}

/// A file that is being written.
pub struct DraftFile {
    outbox: Arc<OutboxState>,
    /// `None` once it was handed over.
    file: Option<StagedFile>,
    state: DraftState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DraftState {
    /// Only the writer knows of the file.
    Written,
    /// The file is in the queue.
    Sealed(StagedId),
    /// The same content is in the queue already, so this file is not needed.
    Same,
}

impl DraftFile {
    /// Begins a file.
    pub fn new(outbox: Arc<OutboxState>) -> Self {
        let file = Some(outbox.staging.begin());
        Self { outbox, file, state: DraftState::Written }
    }

    /// Returns the file for a change. A sealed file is withdrawn from the queue and becomes a draft again.
    fn open(&mut self) -> Result<&mut StagedFile, OutboxError> {
        if let DraftState::Sealed(id) = self.state {
            match self.outbox.queue.lock().withdraw(id) {
                // Somebody has taken it back already.
                Err(OutboxError::NotFound) => {}
                done => done?,
            }
        }
        self.state = DraftState::Written;
        Ok(self.file.as_mut().expect("it is handed over last"))
    }

    fn file(&self) -> &StagedFile {
        self.file.as_ref().expect("it is handed over last")
    }

    fn check(&self, path: &[u8]) -> Result<[u8; 32], OutboxError> {
        let file = self.file();
        let (folder, name) = queue::split(path);
        let takes = self.outbox.check_folder(folder)?;
        if file.len() > FILE_BYTES_MAX {
            return Err(OutboxError::TooLarge);
        }
        let is_original = path.starts_with(ORIGINAL.as_bytes()) && path.get(ORIGINAL.len()) == Some(&b'/');
        if takes != Some(Kind::Mail) && holds_contacts(file, name)? {
            cards::check(file)?;
            let split = |bytes: &[u8]| self.outbox.identifier.split_made(bytes);
            if is_original {
                let placed = cards::placed(file, split)?;
                placed.iter().try_for_each(|card| self.check_origin(&card.content.identity(), path))?;
            }
            return Ok(*split(&file.read(0, file.len() as usize)?)?.identity().as_bytes());
        }
        // Calendars cannot be restored yet. The text of a mail, and a file of many mails, are not a mail, although they
        // may begin like one.
        let name = name.to_ascii_lowercase();
        let is_other = [&b".ics"[..], b".vcf", b".txt", b".mbox"].iter().any(|end| name.ends_with(end));
        let start = file.read(0, HEADER_BYTES_MAX)?;
        // A file with the name of a mail must at least have a header with one known field.
        let is_poor_mail = || is_named_as_mail(path) && facts(&start) != MailFacts::default();
        if takes == Some(Kind::Contacts) || is_other || !(looks_like_mail(&start) || is_poor_mail()) {
            return Err(OutboxError::WrongKind);
        }
        let content = self.outbox.identifier.split(file)?.content.identity();
        if is_original {
            self.check_origin(&content, path)?;
        }
        Ok(*content.as_bytes())
    }

    /// Checks that a content can go back to where it came from. If the contents of the snapshots are not complete yet,
    /// the executor checks this later.
    fn check_origin(&self, content: &blake3::Hash, path: &[u8]) -> Result<(), OutboxError> {
        if self.outbox.contents.is_complete()
            && let Err(Refused::ForGood(reason)) = self.outbox.origin(content, path)
        {
            return Err(OutboxError::Unknown { reason });
        }
        Ok(())
    }
}

impl Draft for DraftFile {
    fn len(&self) -> u64 {
        self.file().len()
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), OutboxError> {
        if offset.saturating_add(bytes.len() as u64) > FILE_BYTES_MAX {
            return Err(OutboxError::TooLarge);
        }
        self.open()?.write(offset, bytes).map_err(storage)
    }

    fn set_len(&mut self, len: u64) -> Result<(), OutboxError> {
        if len > FILE_BYTES_MAX {
            return Err(OutboxError::TooLarge);
        }
        if len == self.len() {
            return Ok(());
        }
        self.open()?.set_len(len).map_err(storage)
    }

    fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, OutboxError> {
        self.file().read(offset, size).map_err(storage)
    }

    fn seal(&mut self, path: &[u8], mtime: Option<Time>) -> Result<(), OutboxError> {
        if let DraftState::Sealed(id) = self.state {
            let stands = self.outbox.queue.lock().item(id).is_some_and(|item| item.dropped.path == path);
            if stands {
                // `close` gives the same answer as `fsync` before.
                return if self.outbox.options.synchronous { self.outbox.wait_for(id) } else { Ok(()) };
            }
            // The file has another path now.
            self.open()?;
        }
        let content = self.check(path)?;
        let file = self.file.as_mut().expect("it is handed over last");
        file.sync().map_err(storage)?;
        let options = &self.outbox.options;
        let dropped = Dropped {
            id: file.id(),
            path: path.to_vec(),
            mtime: mtime.unwrap_or_else(now),
            len: file.len(),
            content,
            job: 0,
            fate: if options.waits { Fate::Waiting } else { Fate::Queued },
        };
        let id = dropped.id;
        let sealed = self.outbox.queue.lock().seal(dropped, now().secs)?;
        self.state = match sealed {
            Sealed::New(replaced) => {
                replaced.into_iter().for_each(|old| self.outbox.staging.remove(old));
                DraftState::Sealed(id)
            }
            Sealed::Same => DraftState::Same,
        };
        if options.synchronous && self.state == DraftState::Sealed(id) {
            self.outbox.release(id);
            self.outbox.wait_for(id)?;
        }
        Ok(())
    }

    fn release(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        let file = self.file.take();
        let is_wanted = match self.state {
            DraftState::Sealed(id) => self.outbox.release(id),
            DraftState::Written | DraftState::Same => false,
        };
        if !is_wanted {
            file.into_iter().for_each(StagedFile::discard);
        }
    }
}

impl OutboxState {
    /// Releases a sealed file. Returns whether it still exists.
    fn release(&self, id: StagedId) -> bool {
        let is_there = self.queue.lock().release(id);
        self.wake.notify_one();
        is_there
    }
}

fn storage(error: io::Error) -> OutboxError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OutboxError::Full,
        _ => OutboxError::Storage(error),
    }
}
