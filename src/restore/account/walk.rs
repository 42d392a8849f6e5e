//! The walk through what goes to one mailbox: the folders and items of the snapshot, in their order.

use super::context::Context;
use super::existing_items::Likeness;
use super::maildir::{self, Maildirs};
use super::route::{Named, Part};
use super::target::Target;
use crate::backup::tenant::REPORT_NAME;
use crate::format::entry::{Directory, Entry, Sums};
use crate::repository::reader::Reader;
use crate::repository::tree::Entries;
use crate::restore::plan::{Selection, Step, Walk};
use crate::restore::{RestoreError, chain};
use crate::runtime::{Panicked, guarded};
use std::hash::{BuildHasher, RandomState};
use tokio::sync::mpsc;

/// Maximum depth of the folders of a mailbox (Exchange Online: "Mailbox folder limits").
const DEPTH_MAX: usize = 300;
/// The reason for a folder that is deeper.
const TOO_DEEP: &str = "it lies deeper than folders of a mailbox can";

/// What the walk meets.
pub(super) enum WalkEvent {
    /// The part with this number begins.
    Part(usize),
    /// A folder. `names` are its name and those of the folders between it and the folder around it. They are empty for
    /// the mailbox itself.
    Enter {
        names: Vec<Named>,
        contents: FolderContents,
    },
    /// A folder whose items go to the same folder as those of the folder around it.
    Stay(FolderContents),
    /// The end of the folder that was entered last.
    Leave,
    Item {
        entry: Box<Entry>,
        path: Vec<u8>,
        likeness: Option<Likeness>,
    },
    /// Entries of the folder at `path` cannot be read; `entries` is their number.
    Unreadable {
        path: Vec<u8>,
        entries: u64,
        error: String,
    },
}

/// What a folder of the snapshot holds.
#[derive(Debug, Clone, Default)]
pub(super) struct FolderContents {
    /// True if it has neither items nor folders.
    pub is_empty: bool,
    /// The number of items directly in it.
    pub items: u64,
    /// The hashes of the ids of the items directly in it.
    pub ids: Vec<u64>,
}

/// Returns the hash of the immutable id of an item.
pub(super) fn hash_of_id(entry: &Entry, random: &RandomState) -> Option<u64> {
    entry.facts.source_id.as_deref().map(|id| random.hash_one(id))
}

/// The receiver of the events is gone.
struct NobodyListens;

/// Sends the events of a walk.
struct Walker<'a> {
    context: &'a Context,
    root: &'a Entry,
    random: &'a RandomState,
    to: &'a mpsc::Sender<WalkEvent>,
}

/// Walks through the parts that go to a mailbox, and sends what it meets, until the end or until nobody listens any
/// more.
pub(super) fn walk<T: Target>(
    context: &Context,
    root: &Entry,
    parts: &[Part],
    random: &RandomState,
    to: &mpsc::Sender<WalkEvent>,
) {
    let walker = Walker { context, root, random, to };
    for (number, part) in parts.iter().enumerate() {
        if walker.send(WalkEvent::Part(number)).is_err() {
            return;
        }
        let walked = guarded(|| walker.walk_part::<T>(part));
        // Nobody knows how many items were not reached, so they count as one.
        let failed = |fault: Panicked| walker.unreadable(&part.path, 1, fault.to_string());
        if walked.unwrap_or_else(failed).is_err() {
            return;
        }
    }
}

impl Walker<'_> {
    fn send(&self, event: WalkEvent) -> Result<(), NobodyListens> {
        self.to.blocking_send(event).map_err(|_| NobodyListens)
    }

    fn unreadable(&self, path: &[u8], entries: u64, error: String) -> Result<(), NobodyListens> {
        self.send(WalkEvent::Unreadable { path: path.to_vec(), entries, error })
    }

    fn walk_part<T: Target>(&self, part: &Part) -> Result<(), NobodyListens> {
        let reader = &*self.context.reader;
        let selection = match Selection::new(reader, self.root, std::slice::from_ref(&part.path)) {
            Ok(selection) => selection,
            Err(RestoreError::Read(error)) => return self.unreadable(&part.path, 1, chain(&error)),
            // It was found a moment ago.
            Err(_) => return Ok(()),
        };
        // The folders of a mailbox are not those of a Maildir, whatever they are called.
        let mut maildirs = (part.prefix_len == 0).then(Maildirs::default);
        if let (Selection::Everything(_), Some(dir)) = (&selection, part.entry.directory()) {
            maildirs.iter_mut().for_each(|maildirs| drop(maildirs.enter(reader, &part.entry)));
            self.send(WalkEvent::Enter { names: Vec::new(), contents: self.contents(dir) })?;
        }
        let mut walk = Walk::new(reader, &selection);
        let mut depth = 0;
        while let Some(step) = walk.step() {
            match step {
                Step::Enter(_) if part.excluded.iter().any(|excluded| excluded.path == walk.path()) => {
                    walk.skip();
                }
                Step::Enter(found) if depth == DEPTH_MAX => {
                    self.unreadable(walk.path(), found.entry().sums().items, TOO_DEEP.to_owned())?;
                    walk.skip();
                }
                Step::Enter(found) => {
                    depth += 1;
                    self.enter(reader, part, found.entry(), walk.path(), maildirs.as_mut())?;
                }
                Step::Leave => {
                    depth -= 1;
                    maildirs.iter_mut().for_each(Maildirs::leave);
                    self.send(WalkEvent::Leave)?;
                }
                // The report of a backup is not an item.
                Step::Item(found) if part.prefix_len > 0 && *found.entry().name == *REPORT_NAME.as_bytes() => {}
                Step::Item(found) => {
                    let likeness = T::likeness(self.context, found.entry());
                    let (entry, path) = (Box::new(found.entry().clone()), walk.path().to_vec());
                    self.send(WalkEvent::Item { entry, path, likeness })?;
                }
                Step::Unreadable { entries, error } => self.unreadable(walk.path(), entries, chain(&error))?,
            }
        }
        Ok(())
    }

    /// Sends that the walk enters a folder.
    fn enter(
        &self,
        reader: &Reader,
        part: &Part,
        folder: &Entry,
        path: &[u8],
        maildirs: Option<&mut Maildirs>,
    ) -> Result<(), NobodyListens> {
        let contents = folder.directory().map(|dir| self.contents(dir)).unwrap_or_default();
        let named = |display: String| Named { display, well_known: None };
        self.send(match maildirs.map_or(maildir::Folder::Own, |maildirs| maildirs.enter(reader, folder)) {
            maildir::Folder::Own => WalkEvent::Enter { names: part.name_of(path).into_iter().collect(), contents },
            maildir::Folder::Around => WalkEvent::Stay(contents),
            maildir::Folder::Named(names) => {
                WalkEvent::Enter { names: names.into_iter().map(named).collect(), contents }
            }
        })
    }

    /// Returns what a folder holds. The walk itself reports what cannot be read.
    fn contents(&self, dir: &Directory) -> FolderContents {
        let entries = Entries::new(&*self.context.reader, dir).into_iter().flatten();
        let ids = entries.filter_map(|found| hash_of_id(found.ok()?.entry(), self.random)).collect();
        let Sums { entries, dirs, .. } = dir.sums;
        FolderContents { is_empty: entries == 0, items: entries.saturating_sub(dirs), ids }
    }
}
