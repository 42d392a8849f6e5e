//! The items that go to one mailbox, one after the other, each with the folder that it goes to and with what exists
//! there.
//!
//! The walk through the snapshot ([`super::walk`]) has a thread of its own, because reading nodes may wait for a disk.
//! It sends what it meets through a short channel. The folders of the target are asked for when an item goes to them.

use super::context::Context;
use super::existing_items::{Counterpart, ExistingItems, TargetFolder};
use super::folders::{Folders, MappedFolder};
use super::mark::Mark;
use super::route::Part;
use super::target::Target;
use super::walk::{FolderContents, WalkEvent, hash_of_id, walk};
use crate::format::entry::Entry;
use crate::source::graph::GraphError;
use parking_lot::Mutex;
use std::hash::RandomState;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Maximum number of events that the walk is ahead.
const EVENTS_MAX: usize = 64;

/// What goes to a mailbox.
pub(super) enum PlannedItem {
    /// An item, the folder that it goes to, and what exists there in its place.
    Item { entry: Box<Entry>, path: Vec<u8>, folder: Arc<TargetFolder>, counterpart: Counterpart },
    /// Entries of the folder at `path` of the snapshot cannot be read; `entries` is their number.
    Unreadable { path: Vec<u8>, entries: u64, error: String },
}

/// A folder of the snapshot that the walk is in.
struct Level {
    /// The corresponding folder of the target.
    mapped: MappedFolder,
    contents: FolderContents,
    /// The folder with what exists in it, once an item went there.
    folder: Option<Arc<TargetFolder>>,
}

/// A folder that single items went to.
struct LastFolder {
    mapped: MappedFolder,
    folder: Arc<TargetFolder>,
}

/// The items of one kind that go to one mailbox.
pub(super) struct PlannedItems<T> {
    target: Arc<T>,
    context: Arc<Context>,
    pub folders: Folders<T>,
    parts: Arc<[Part]>,
    events: mpsc::Receiver<WalkEvent>,
    levels: Vec<Level>,
    random: RandomState,
    /// The items that were asked for one by one.
    single: FolderContents,
    /// The folder of the last single item.
    last: Option<LastFolder>,
}

impl<T: Target> PlannedItems<T> {
    /// Starts the walk through `parts`. `root` is the root of the snapshot; `creates` is false in a dry run.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn new(
        context: Arc<Context>,
        target: Arc<T>,
        root: Entry,
        parts: Arc<[Part]>,
        creates: bool,
    ) -> Result<Self, GraphError> {
        let folders = Folders::new(target.clone(), &context.options.into, creates).await?;
        let random = RandomState::new();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let single = single_items(&parts, &random);
        let (walked, run, hashing) = (parts.clone(), context.clone(), random.clone());
        tokio::task::spawn_blocking(move || walk::<T>(&run, &root, &walked, &hashing, &sender));
        Ok(Self { target, context, folders, parts, events, levels: Vec::new(), random, single, last: None })
    }

    /// Returns the next item, or `None` after the last one.
    ///
    /// # Errors
    /// See [`GraphError`]. No other item follows if a folder of the target cannot be found or created.
    pub async fn next(&mut self) -> Result<Option<PlannedItem>, GraphError> {
        while let Some(event) = self.events.recv().await {
            match event {
                WalkEvent::Part(number) => self.begin(number).await?,
                WalkEvent::Enter { names, contents } => {
                    let mut mapped = self.around();
                    for name in &names {
                        mapped = self.folders.below(&mapped, name, contents.is_empty).await?;
                    }
                    self.levels.push(Level { mapped, contents, folder: None });
                }
                WalkEvent::Stay(contents) => {
                    // Other items may have been put there by now.
                    let mapped = MappedFolder { is_new: false, ..self.around() };
                    self.levels.push(Level { mapped, contents, folder: None });
                }
                WalkEvent::Leave => drop(self.levels.pop()),
                WalkEvent::Item { entry, path, likeness } => {
                    let folder = self.folder().await?;
                    if folder.is_asked {
                        self.ask(&folder, &entry).await?;
                    }
                    let mark = Mark::of(&entry, &self.context.keys);
                    let counterpart = folder.existing.lock().find(&entry, &mark, likeness.as_ref());
                    return Ok(Some(PlannedItem::Item { entry, path, folder, counterpart }));
                }
                WalkEvent::Unreadable { path, entries, error } => {
                    return Ok(Some(PlannedItem::Unreadable { path, entries, error }));
                }
            }
        }
        Ok(None)
    }

    /// Returns the folder of the target that corresponds to the folder that the walk is in.
    fn around(&self) -> MappedFolder {
        self.levels.last().expect("a part begins with a folder").mapped.clone()
    }

    /// Finds the folder that a part goes to.
    async fn begin(&mut self, number: usize) -> Result<(), GraphError> {
        let parts = self.parts.clone();
        let part = &parts[number];
        let mut mapped = self.folders.root().await?;
        // If the user named a folder, a part goes directly into it, under its last name.
        let above = if self.folders.has_own_root() { &[][..] } else { &part.above };
        for folder in above {
            mapped = self.folders.below(&mapped, folder, false).await?;
        }
        self.levels = vec![Level { mapped, contents: self.single.clone(), folder: None }];
        Ok(())
    }

    /// Returns the folder that the next item goes to, with what exists there.
    async fn folder(&mut self) -> Result<Arc<TargetFolder>, GraphError> {
        let is_single = self.levels.len() == 1;
        let level = self.levels.last_mut().expect("an item is in a folder");
        if let Some(folder) = &level.folder {
            return Ok(folder.clone());
        }
        if let Some(last) = self.last.as_ref().filter(|last| is_single && last.mapped == level.mapped) {
            return Ok(last.folder.clone());
        }
        let mut existing = ExistingItems::new(self.random.clone(), &std::mem::take(&mut level.contents.ids));
        let is_old = level.mapped.id.is_some() && !level.mapped.is_new;
        let is_asked = is_old && level.contents.items <= T::ASKED_MAX;
        if let Some(id) = level.mapped.id.as_deref().filter(|_| is_old && !is_asked) {
            let _all_marked = self.target.all_marked().await;
            self.target.list_existing(id, &mut |item| existing.add(&item)).await?;
        }
        let id = level.mapped.id.clone();
        let folder = Arc::new(TargetFolder { id, existing: Mutex::new(existing), is_asked });
        level.folder = Some(folder.clone());
        if is_single {
            self.last = Some(LastFolder { mapped: level.mapped.clone(), folder: folder.clone() });
        }
        Ok(folder)
    }

    /// Asks for what may exist in the place of one item, because its folder was not listed.
    async fn ask(&self, folder: &TargetFolder, entry: &Entry) -> Result<(), GraphError> {
        let Some(id) = folder.id.as_deref() else { return Ok(()) };
        let _all_marked = self.target.all_marked().await;
        self.target.find_existing(id, entry, &mut |item| folder.existing.lock().add(&item)).await
    }
}

/// Returns what is known of the parts that are items.
fn single_items(parts: &[Part], random: &RandomState) -> FolderContents {
    let single = || parts.iter().filter(|part: &&Part| part.entry.directory().is_none());
    let ids = single().filter_map(|part| hash_of_id(&part.entry, random)).collect();
    FolderContents { is_empty: false, items: single().count() as u64, ids }
}
