//! Stores the items that the rounds reported: decides what is to be done with each, reads it if necessary, splits it,
//! and puts it into the tree of its folder.

use super::edits::Edits;
use super::item::{Item, ItemKey};
use super::listed::{Listed, Rounds};
use super::plan::Plan;
use super::previous::{Place, Previous};
use super::state::FailedItem;
use super::{Amendments, Collection, Fetched, Reading, Source};
use crate::CONTENT_LOG;
use crate::backup::context::{Context, Ended, REPORT_NAME};
use crate::backup::splitter::{SplitError, Splitter};
use crate::backup::splitters::ROOM_AT_ONCE_MAX;
use crate::content::names::UniqueNames;
use crate::format::cbor;
use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::store::StoreError;
use crate::repository::tree::Entries;
use crate::runtime::{blocking, guarded};
use crate::source::graph::throttle::MAILBOX_CONCURRENCY_MAX;
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Number of items that are decided, read and stored together.
const BATCH_ITEMS: usize = 64;
/// Number of batches at work: one is read while another is split.
const BATCHES_AT_ONCE: usize = 2;
/// Maximum number of failed items of a folder that its state names. If there are more, the next run lists the whole
/// folder, and finds them again.
const FAILED_KEPT_MAX: usize = 1000;

/// A folder that is being worked on.
pub struct Work {
    /// Its number among the folders of the collection.
    pub index: usize,
    /// Its id.
    id: String,
    /// Its path from the snapshot's root.
    path: String,
    /// Its directory in the previous snapshot.
    base: Option<Directory>,
    /// What was done so far.
    pub done: Mutex<Done>,
}

/// What was done in a folder so far.
pub struct Done {
    /// What changes in the tree of the folder.
    pub edits: Edits,
    names: Option<UniqueNames>,
    /// True if no more items come.
    has_all: bool,
    /// The number of items that were written.
    pub stored: u64,
    /// The first [`FAILED_KEPT_MAX`] items that could not be read as they are now.
    pub failed: Vec<FailedItem>,
    /// The number of further items that could not be read.
    pub failed_unnamed: u64,
    /// The number of failed items of which an older version stays.
    pub failed_but_there: u64,
    /// The number of items that were gone before they could be read for the first time.
    pub vanished: u64,
    /// The number of items that had to be built from their parts.
    pub reconstructed: u64,
    /// The number of items that are in another folder now.
    pub moved_out: u64,
    /// The number of items that lack something that the set asks for ([`Collection::lacks`]).
    pub lacking: u64,
    /// The number of unchanged items that were completed.
    completed: usize,
}

impl Done {
    /// Notes an item that could not be read.
    fn fail(&mut self, failed: FailedItem) {
        if self.failed.len() < FAILED_KEPT_MAX {
            self.failed.push(failed);
        } else {
            self.failed_unnamed += 1;
        }
    }
}

impl Work {
    /// Starts the work on a folder.
    fn new(context: &Context, index: usize, id: String, path: String, base: Option<Directory>) -> Self {
        let done = Done {
            edits: Edits::new(context.area()),
            names: None,
            has_all: false,
            stored: 0,
            failed: Vec::new(),
            failed_unnamed: 0,
            failed_but_there: 0,
            vanished: 0,
            reconstructed: 0,
            moved_out: 0,
            lacking: 0,
            completed: 0,
        };
        Self { index, id, path, base, done: Mutex::new(done) }
    }

    /// Frees memory once no more items come for this folder.
    fn rest(&self, context: &Context) -> Result<(), StoreError> {
        let mut done = self.done.lock();
        done.names = None;
        done.has_all = true;
        // A few changes in memory can be applied to an existing tree without reading all of it.
        if self.base.is_none() { done.edits.set_aside(&context.store) } else { Ok(()) }
    }

    /// Returns a name that nothing else in the folder has: `wanted`, with a number if it is taken.
    fn claim(&self, context: &Context, wanted: &str) -> Result<String, ReadError> {
        let mut done = self.done.lock();
        assert!(!done.has_all, "names that were given are forgotten");
        if done.names.is_none() {
            let mut names = UniqueNames::new();
            names.reserve(REPORT_NAME);
            if let Some(base) = &self.base {
                for found in Entries::new(&*context.reader, base)? {
                    names.reserve(&String::from_utf8_lossy(&found?.entry().name));
                }
            }
            done.names = Some(names);
        }
        let names = done.names.as_mut().expect("made above");
        Ok(names.claim(wanted))
    }
}

/// The folders of one collection that are being worked on, and what the previous snapshot has of it.
pub struct Stock<C: Collection> {
    collection: Arc<C>,
    /// The key under which this machine remembers what it stored until that is in a snapshot.
    unfinished: [u8; 32],
    /// What the previous snapshot has.
    pub previous: Previous,
    /// The folders, by their ids.
    pub works: HashMap<String, Work>,
    /// The ids of items that failed in the previous run.
    failed_before: HashSet<String>,
    /// What the collection adds to the rounds.
    pub amendments: Amendments,
}

/// What is to be done with an item.
enum Decision {
    /// Nothing: it is where and as it was.
    Nothing,
    /// Its bytes are known, and its properties may be new.
    Known(Box<Entry>),
    /// Its bytes must be read. The entry is that of the previous snapshot.
    Read(Option<Box<Entry>>),
}

/// An item, and what is to be done with it.
struct Decided<I> {
    item: I,
    decision: Decision,
}

/// Returns the key under which this machine remembers what it stored of a user's collection until that is in a
/// snapshot.
pub fn unfinished_key<C: Collection>(context: &Context, user: &str) -> [u8; 32] {
    let path = [C::UNFINISHED, user.as_bytes()].concat();
    context.repository.keys().local_path(&context.options.backup.set, &path)
}

impl<C: Collection> Stock<C> {
    /// Starts the work on the folders that have complete rounds. Items may also leave folders whose rounds failed.
    pub fn new(
        context: &Context,
        collection: &Arc<C>,
        plan: &Plan<'_>,
        rounds: &Rounds<C::Item>,
        previous: Previous,
        amendments: Amendments,
    ) -> Self {
        let is_worked_on = |index: &usize| {
            let folder = &plan.folders[*index];
            let stands = folder.selected && previous.folder(&folder.id).is_some() && !rounds.gone.contains(index);
            rounds.complete.contains_key(index) || stands
        };
        let works = (0..plan.folders.len()).filter(is_worked_on).map(|index| {
            let id = plan.folders[index].id.clone();
            let base = previous.folder(&id).copied();
            (id.clone(), Work::new(context, index, id, plan.path(index), base))
        });
        let works = works.collect();
        let failed = plan.folders.iter().flat_map(|folder| folder.failed.iter().map(|failed| failed.id.clone()));
        let unfinished = unfinished_key::<C>(context, plan.standing.owner.id);
        let failed_before = failed.collect();
        Self { collection: collection.clone(), unfinished, previous, works, failed_before, amendments }
    }

    /// Notes the items of a folder that its round found unreadable.
    pub fn note_unreadable(&self, folder: &str, listed: &mut Listed<C::Item>) {
        let work = &self.works[folder];
        let mut done = work.done.lock();
        done.lacking = self.amendments.lacking.get(&work.index).copied().unwrap_or(0);
        for failed in std::mem::take(&mut listed.unreadable) {
            done.failed_but_there += u64::from(self.stood_in(&failed.id, folder));
            done.fail(failed);
        }
    }

    /// Returns true if the item with the id `id` was in the folder in the previous snapshot.
    fn stood_in(&self, id: &str, folder: &str) -> bool {
        let place = self.previous.place(ItemKey::of(id));
        place.is_some_and(|place| self.previous.folder_of(place) == folder)
    }

    /// Decides what is to be done with an item.
    fn decide(&self, context: &Context, folder: &str, item: &C::Item) -> Result<Decision, ReadError> {
        let place = self.previous.place(ItemKey::of(item.id()));
        let before = match place {
            Some(place) => self.previous.entry(&context.reader, place)?,
            None => None,
        };
        let Some((place, before)) = place.zip(before) else {
            return Ok(match self.remembered(context, item) {
                Some(entry) => Decision::Known(Box::new(entry)),
                None => Decision::Read(None),
            });
        };
        let stays = self.previous.folder_of(place) == folder;
        if self.is_doubted(context, folder, item, (place, &before))? {
            return Ok(Decision::Read(Some(Box::new(before))));
        }
        let same_version = item.version().is_some() && before.facts.change_key.as_deref() == item.version();
        if same_version && stays {
            return Ok(self.complete(context, folder, item, before));
        }
        if same_version || self.collection.has_same_bytes(context, &before, item) {
            return Ok(Decision::Known(Box::new(before)));
        }
        Ok(match self.remembered(context, item) {
            Some(entry) => Decision::Known(Box::new(Entry { name: before.name, ..entry })),
            None => Decision::Read(Some(Box::new(before))),
        })
    }

    /// Returns true if the entry of an item is not trusted, whatever its version: the item failed in the previous run,
    /// or an earlier version of this program may have stored something else for it.
    fn is_doubted(
        &self,
        context: &Context,
        folder: &str,
        item: &C::Item,
        (place, before): (Place, &Entry),
    ) -> Result<bool, ReadError> {
        if self.failed_before.contains(item.id()) || self.amendments.suspects.contains(&ItemKey::of(item.id())) {
            return Ok(true);
        }
        // An item that moves out of such a folder is not examined there.
        let old_folder = self.previous.folder_of(place);
        let is_unseen = old_folder != folder && self.amendments.unexamined.contains(old_folder);
        Ok(is_unseen && self.collection.is_suspect(context, before)?)
    }

    /// Decides what is to be done with an unchanged item. It may lack something that can be read now.
    fn complete(&self, context: &Context, folder: &str, item: &C::Item, before: Entry) -> Decision {
        if !self.collection.lacks(&before) {
            return Decision::Nothing;
        }
        // An unfinished run may have fetched it.
        if let Some(known) = self.remembered(context, item).filter(|known| !self.collection.lacks(known)) {
            return Decision::Known(Box::new(Entry { name: before.name, ..known }));
        }
        let mut done = self.works[folder].done.lock();
        if !self.collection.may_complete(done.completed) {
            done.lacking += 1;
            return Decision::Nothing;
        }
        done.completed += 1;
        Decision::Known(Box::new(before))
    }

    /// Returns the entry that an unfinished run stored for an item, if all of its content is still stored.
    fn remembered(&self, context: &Context, item: &C::Item) -> Option<Entry> {
        let version = item.version()?;
        let facts = context.store.local().unfinished(&self.unfinished, item.id().as_bytes())?;
        let entry = Entry::read(&mut cbor::Reader::new(&facts)).ok()?;
        let is_stored = |segment| context.store.has_segment(segment).unwrap_or(false);
        let complete = entry.all_contents().flat_map(|content| &content.segments).all(is_stored);
        (entry.facts.change_key.as_deref() == Some(version) && complete).then_some(entry)
    }
}

/// Reads and stores the items that the rounds reported, folder by folder, sorted by date.
///
/// # Errors
/// Errors that end the work on the collection, or the run.
pub async fn take_rows<C: Collection>(
    context: &Arc<Context>,
    rounds: &Rounds<C::Item>,
    stock: &Arc<Stock<C>>,
) -> Result<(), Ended> {
    let mut works: Vec<_> = stock.works.values().collect();
    works.sort_unstable_by_key(|work| work.index);
    for work in works {
        let Some(listed) = rounds.complete.get(&work.index) else { continue };
        if !listed.rows.is_empty() {
            context.progress.current.lock().clone_from(&work.path.clone().into_bytes());
        }
        let batches = futures_util::stream::unfold(None::<Vec<u8>>, |after| async move {
            match listed.rows_after(after.as_deref(), BATCH_ITEMS, context) {
                Ok((_, None)) => None,
                Ok((items, last)) => Some((Ok(items), last)),
                Err(error) => Some((Err(error), None)),
            }
        });
        let working = batches.map(|items| async { take_batch(context, stock, &work.id, items?).await });
        let mut working = std::pin::pin!(working.buffered(BATCHES_AT_ONCE));
        while let Some(done) = working.next().await {
            done?;
        }
        work.rest(context)?;
    }
    Ok(())
}

/// Stores a batch of items of a folder, as many at a time as there is room for in memory.
async fn take_batch<C: Collection>(
    context: &Arc<Context>,
    stock: &Arc<Stock<C>>,
    folder: &str,
    items: Vec<C::Item>,
) -> Result<(), Ended> {
    context.check()?;
    let decided = {
        let (context, stock, folder) = (context.clone(), stock.clone(), folder.to_owned());
        blocking(move || {
            let decide =
                |item: C::Item| stock.decide(&context, &folder, &item).map(|decision| Decided { item, decision });
            items.into_iter().map(decide).collect::<Result<Vec<_>, ReadError>>()
        })
        .await?
    };
    let is_work = |decided: &Decided<C::Item>| !matches!(decided.decision, Decision::Nothing);
    let mut decided = decided.into_iter().filter(is_work).peekable();
    while decided.peek().is_some() {
        let (mut slice, mut room) = (Vec::new(), 0);
        let room_of = |decided: &Decided<C::Item>| stock.collection.room(&decided.item);
        while let Some(next) = decided.next_if(|next| room == 0 || room + room_of(next) <= ROOM_AT_ONCE_MAX) {
            room += room_of(&next);
            slice.push(next);
        }
        let _room = context.splitters.room(room).await;
        take_slice(context, stock, folder, slice).await?;
    }
    Ok(())
}

async fn take_slice<C: Collection>(
    context: &Arc<Context>,
    stock: &Arc<Stock<C>>,
    folder: &str,
    slice: Vec<Decided<C::Item>>,
) -> Result<(), Ended> {
    let collection = &*stock.collection;
    let reading = slice.into_iter().map(|Decided { item, decision }| async {
        let (reading, before) = match decision {
            Decision::Nothing => unreachable!("filtered out"),
            Decision::Known(entry) => (Reading::Known(entry.clone()), Some(entry)),
            Decision::Read(before) => {
                let again = stock.failed_before.contains(item.id());
                (collection.read(context, &item, again).await?, before)
            }
        };
        Ok(Fetched { item, reading, before })
    });
    let reading = futures_util::stream::iter(reading).buffered(MAILBOX_CONCURRENCY_MAX);
    let read: Vec<Result<Fetched<C>, Ended>> = reading.collect().await;
    let fetched = read.into_iter().collect::<Result<Vec<_>, Ended>>()?;
    context.check()?;
    let extra = collection.read_extra(context, &fetched).await?;
    let (shared, stock, folder) = (context.clone(), stock.clone(), folder.to_owned());
    let writing = context.splitters.run(move |splitter| {
        let work = &stock.works[&folder];
        let mut writer = Writer { context: &shared, stock: &stock, work, splitter, extra, facts: Vec::new() };
        for Fetched { item, reading, before } in fetched {
            // If this program has a fault that one item triggers, all other items must still be stored.
            let written = guarded(|| writer.write(&item, reading, before.clone()));
            written.unwrap_or_else(|fault| writer.fail(&item, fault.to_string(), before))?;
        }
        writer.finish()
    });
    Ok(writing.await?)
}

/// Puts items into the tree of their folder.
struct Writer<'a, C: Collection> {
    context: &'a Context,
    stock: &'a Stock<C>,
    work: &'a Work,
    splitter: &'a mut Splitter,
    /// What was read beside the bodies of the items.
    extra: C::Extra,
    facts: Vec<(String, Vec<u8>)>,
}

impl<C: Collection> Writer<'_, C> {
    fn write(
        &mut self,
        item: &C::Item,
        reading: Reading<C::Body>,
        before: Option<Box<Entry>>,
    ) -> Result<(), StoreError> {
        let source = match reading {
            Reading::Known(entry) => Source::Known(entry),
            Reading::New(body) => Source::New(body),
            Reading::Gone => {
                // An item that was in this folder stays until a round says that it left.
                let stays = self.stock.stood_in(item.id(), &self.work.id);
                self.work.done.lock().vanished += u64::from(!stays);
                return Ok(());
            }
            Reading::Failed(reason) => return self.fail(item, reason, before),
        };
        let collection = &*self.stock.collection;
        let mut entry = match collection.entry(self.splitter, item, source, &mut self.extra) {
            Ok(entry) => entry,
            Err(SplitError::Store(error)) => return Err(error),
            Err(SplitError::Item(error)) => return self.fail(item, error.to_string(), before),
        };
        if entry.payload.is_none() {
            entry.payload = Some(self.splitter.split_payload(item.json().as_bytes())?);
        }
        let name = self.name(item, before.as_deref())?;
        entry.name = name.as_bytes().into();
        if collection.lacks(&entry) {
            self.work.done.lock().lacking += 1;
            if before.as_deref().is_some_and(|before| before.encode() == entry.encode()) {
                // It only had to be completed, and that failed.
                return Ok(());
            }
        }
        self.facts.push((item.id().to_owned(), entry.encode()));
        self.context.progress.items.fetch_add(1, Ordering::Relaxed);
        self.context.progress.bytes.fetch_add(entry.size(), Ordering::Relaxed);
        tracing::debug!(target: CONTENT_LOG, folder = self.work.path, name, "stored");
        let mut done = self.work.done.lock();
        done.stored += 1;
        done.reconstructed += u64::from(entry.facts.reconstructed);
        done.edits.put(entry, &self.context.store)
    }

    /// Returns the name of the item in this folder, and removes it from the folder that it was in.
    fn name(&self, item: &C::Item, before: Option<&Entry>) -> Result<String, StoreError> {
        let place = self.stock.previous.place(ItemKey::of(item.id()));
        let wanted = || match before {
            Some(before) => String::from_utf8_lossy(&before.name).into_owned(),
            None => self.stock.collection.name(item),
        };
        let Some((place, before)) = place.zip(before) else { return Ok(self.work.claim(self.context, &wanted())?) };
        let old_folder = self.stock.previous.folder_of(place);
        match self.stock.works.get(old_folder) {
            Some(work) if work.index == self.work.index => return Ok(wanted()),
            Some(work) => {
                let mut done = work.done.lock();
                done.moved_out += 1;
                done.edits.remove(&before.name, &self.context.store)?;
            }
            None => {}
        }
        Ok(self.work.claim(self.context, &wanted())?)
    }

    /// Keeps the entry that an unreadable item had before, and notes why it cannot be read.
    fn fail(&mut self, item: &C::Item, reason: String, before: Option<Box<Entry>>) -> Result<(), StoreError> {
        let name = self.name(item, before.as_deref())?;
        tracing::debug!(target: CONTENT_LOG, folder = self.work.path, name, reason, "could not be read");
        let mut done = self.work.done.lock();
        done.fail(FailedItem { id: item.id().to_owned(), name: name.clone(), reason });
        let Some(mut before) = before else { return Ok(()) };
        done.failed_but_there += 1;
        done.lacking += u64::from(self.stock.collection.lacks(&before));
        // The item may have moved, and have another name now.
        before.name = name.as_bytes().into();
        done.edits.put(*before, &self.context.store)
    }

    fn finish(self) -> Result<(), StoreError> {
        self.splitter.flush()?;
        let facts = self.facts.iter().map(|(id, value)| (id.as_bytes(), value.as_slice()));
        Ok(self.context.store.local().put_unfinished(&self.stock.unfinished, facts)?)
    }
}
