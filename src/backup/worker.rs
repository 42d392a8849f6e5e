//! Turns the steps of a walk into entries: reads and splits the items that may have changed.

use super::batches::{Batch, Ticket};
use super::describe::{describe, entry_of, link_key, unknown_folder};
use super::folders::Digest;
use super::splitter::{Split, SplitError, Splitter};
use super::unchanged::{SameLeaf, Step};
use super::{BackupError, Run};
use crate::format::cbor;
use crate::format::crypto::Keys;
use crate::format::entry::system::SystemFacts;
use crate::format::entry::{self, Directory, Entry, EntryKind};
use crate::repository::store::StoreError;
use crate::runtime::guarded;
use crate::source::{Content, Item, ItemKind, Meta};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

/// Maximum number of times that an item is read if it keeps changing while it is read.
const READINGS_MAX: usize = 3;

/// The result of a step.
pub(super) enum Outcome {
    /// A folder. Its tree is not known before its end.
    Enter {
        entry: Box<Entry>,
        path: Vec<u8>,
        digest: Option<Digest>,
    },
    Leave,
    /// An entry. `changing` is its path if the item kept changing while it was read. If the walk finds the same digest
    /// again, the entry is the same.
    Entry {
        entry: Box<Entry>,
        digest: Option<Digest>,
        changing: Option<Vec<u8>>,
    },
    Failed {
        path: Vec<u8>,
        error: String,
    },
    Skipped {
        path: Vec<u8>,
        reason: &'static str,
    },
    /// A leaf in which nothing changed.
    Leaf(Box<SameLeaf>),
    /// Nothing changed in the whole source.
    Nothing(Directory),
}

pub(super) struct Done {
    pub number: u64,
    pub outcomes: Vec<Outcome>,
    _ticket: Ticket,
}

/// The entry of an item.
struct Made {
    entry: Entry,
    /// True if its bytes are certainly from one moment.
    is_stable: bool,
    /// True if it is certainly the entry of the item that the walk found.
    is_as_walked: bool,
}

/// A thread's state for turning items into entries.
pub(super) struct Worker<'a> {
    run: &'a Run<'a>,
    keys: &'a Keys,
    splitter: Splitter,
    /// Facts to store once the chunks of the batch were handed to the store.
    facts: Vec<([u8; 32], Vec<u8>)>,
}

impl<'a> Worker<'a> {
    pub fn new(run: &'a Run<'a>, splitter: Splitter) -> Self {
        Self { run, keys: run.repository.keys(), splitter, facts: Vec::new() }
    }

    /// # Errors
    /// If storing fails. The failure of an item is an [`Outcome`].
    pub fn batch(&mut self, batch: Batch) -> Result<Done, BackupError> {
        let Batch { number, steps, ticket } = batch;
        let outcomes = steps.into_iter().map(|step| self.process(step)).collect::<Result<_, _>>()?;
        self.finish_batch()?;
        Ok(Done { number, outcomes, _ticket: ticket })
    }

    fn process(&mut self, step: Step) -> Result<Outcome, StoreError> {
        Ok(match step {
            Step::Enter { meta, path, digest } => {
                self.run.lost.note(&meta, &path);
                let mut entry = entry_of(&meta, unknown_folder());
                describe(&mut entry, meta, None, &mut self.splitter)?;
                Outcome::Enter { entry: Box::new(entry), path, digest }
            }
            Step::Leave => Outcome::Leave,
            Step::Failed { path, error } => Outcome::Failed { path, error },
            Step::Skipped { path, reason } => Outcome::Skipped { path, reason },
            Step::Leaf(leaf) => Outcome::Leaf(leaf),
            Step::Nothing(dir) => Outcome::Nothing(dir),
            Step::Folder { meta, digest, dir } => {
                let mut entry = entry_of(&meta, EntryKind::Directory(dir));
                describe(&mut entry, meta, None, &mut self.splitter)?;
                Outcome::Entry { entry: Box::new(entry), digest: Some(digest), changing: None }
            }
            Step::Item { item, digest } => {
                let path = item.path.clone();
                self.run.progress.current.lock().clone_from(&path);
                // A fault of this program in one item must not stop the backup of all others.
                let made = guarded(|| self.entry(*item));
                match made.unwrap_or_else(|fault| Err(SplitError::Item(io::Error::other(fault)))) {
                    Ok(Made { entry, is_stable, is_as_walked }) => {
                        self.run.progress.items.fetch_add(1, Ordering::Relaxed);
                        self.run.progress.bytes.fetch_add(entry.sums().bytes, Ordering::Relaxed);
                        let (digest, changing) = (digest.filter(|_| is_as_walked), (!is_stable).then_some(path));
                        Outcome::Entry { entry: Box::new(entry), digest, changing }
                    }
                    // The item was deleted after the walk saw it. It is left out, as if the walk had come later.
                    Err(SplitError::Item(error)) if error.kind() == io::ErrorKind::NotFound => {
                        Outcome::Skipped { path, reason: "deleted before it was read" }
                    }
                    Err(SplitError::Item(error)) => Outcome::Failed { path, error: error.to_string() },
                    Err(SplitError::Store(error)) => return Err(error),
                }
            }
        })
    }

    /// Returns the entry of an item.
    fn entry(&mut self, item: Item) -> Result<Made, SplitError> {
        let Item { meta, path, kind, facts } = item;
        let (content, fingerprint) = match kind {
            ItemKind::File { content, fingerprint } => (Cancellable { content, cancel: self.run.cancel }, fingerprint),
            other => {
                let (kind, special) = match other {
                    ItemKind::Symlink(target) => (EntryKind::Symlink(target), None),
                    // Versions that do not know special files see an empty file.
                    ItemKind::Special(special) => (EntryKind::File(entry::Content::default()), Some(special)),
                    ItemKind::File { .. } => unreachable!("taken above"),
                };
                self.run.lost.note(&meta, &path);
                let mut entry = entry_of(&meta, kind);
                describe(&mut entry, meta, special, &mut self.splitter)?;
                return Ok(Made { entry, is_stable: true, is_as_walked: true });
            }
        };
        // A file with several names is read once, under the first of them.
        let key = match meta.link {
            Some(link) => self.keys.local_path(self.run.set, &link_key(link)),
            None => self.keys.local_path(self.run.set, &path),
        };
        if let Some(known) = self.unchanged(&key, &fingerprint)? {
            // The name, owner and permissions may have changed although the content is the same.
            let Entry { kind, facts, contents, system, .. } = known;
            let attributes = system.map(|system| system.attributes).unwrap_or_default();
            let mut entry = Entry { facts, contents, ..entry_of(&meta, kind) };
            entry.set_system(SystemFacts { attributes, special: None, link: meta.link });
            return Ok(Made { entry, is_stable: true, is_as_walked: true });
        }
        let (split, stamp) = self.split(&content)?;
        let walked = (meta.mtime, meta.mode, meta.owner, meta.link);
        // The facts of the open file whose bytes were read.
        let meta = content.meta().unwrap_or(meta);
        let is_same = (meta.mtime, meta.mode, meta.owner, meta.link) == walked;
        let is_lacking = self.run.lost.note(&meta, &path);
        let mut entry = entry_of(&meta, EntryKind::File(split.content));
        entry.set_text(split.text);
        entry.facts = split.facts.or(facts);
        describe(&mut entry, meta, None, &mut self.splitter)?;
        let is_as_walked = !is_lacking && !fingerprint.is_empty() && stamp.as_ref() == Some(&fingerprint);
        if is_as_walked {
            self.facts.push((key, remembered(&fingerprint, &entry)));
        }
        Ok(Made { entry, is_stable: stamp.is_some(), is_as_walked: is_as_walked && is_same })
    }

    /// Splits an item. Also returns its stamp if it did not change during the reading. An item that changed is read
    /// again.
    fn split(&mut self, content: &dyn Content) -> Result<(Split, Option<Vec<u8>>), SplitError> {
        let mut readings = 0;
        loop {
            let split = self.splitter.split(content)?;
            readings += 1;
            let (before, after) = content.stamps();
            let stayed = before == after;
            if stayed || readings == READINGS_MAX {
                return Ok((split, stayed.then_some(after)));
            }
        }
    }

    /// Returns the remembered entry of a file if its fingerprint is unchanged and its content is stored.
    fn unchanged(&self, key: &[u8; 32], fingerprint: &[u8]) -> Result<Option<Entry>, StoreError> {
        if fingerprint.is_empty() {
            return Ok(None);
        }
        let Some(bytes) = self.run.store.local().facts(key) else { return Ok(None) };
        let Some((found, entry)) = bytes.split_at_checked(fingerprint.len()) else { return Ok(None) };
        let Ok(entry) = Entry::read(&mut cbor::Reader::new(entry)) else { return Ok(None) };
        // The remembered chunks may have been pruned, or may never have become durable.
        let mut complete = found == fingerprint && entry.content().is_some();
        for segment in entry.all_contents().flat_map(|content| &content.segments) {
            complete = complete && self.run.store.has_segment(segment)?;
        }
        Ok(complete.then_some(entry))
    }

    fn finish_batch(&mut self) -> Result<(), StoreError> {
        self.splitter.flush()?;
        let facts = self.facts.iter().map(|(key, value)| (key, value.as_slice()));
        self.run.store.local().put_facts(facts)?;
        self.facts.clear();
        Ok(())
    }
}

/// Content whose reading ends when the run is cancelled. Reading a giant file could take hours.
struct Cancellable<'a, T> {
    content: T,
    cancel: &'a AtomicBool,
}

impl Content for Cancellable<'_, Box<dyn Content>> {
    fn len_hint(&self) -> u64 {
        self.content.len_hint()
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Cancellable { content: self.content.open()?, cancel: self.cancel }))
    }

    fn stamps(&self) -> (Vec<u8>, Vec<u8>) {
        self.content.stamps()
    }

    fn is_mail(&self) -> bool {
        self.content.is_mail()
    }

    fn meta(&self) -> Option<Meta> {
        self.content.meta()
    }
}

impl Read for Cancellable<'_, Box<dyn Read + '_>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            // `ErrorKind::Interrupted` would make readers try again.
            return Err(io::Error::other("interrupted"));
        }
        self.content.read(buffer)
    }
}

fn remembered(fingerprint: &[u8], entry: &Entry) -> Vec<u8> {
    let mut bytes = fingerprint.to_vec();
    bytes.extend(entry.encode());
    bytes
}
