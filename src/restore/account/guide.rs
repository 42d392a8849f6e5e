//! Leads through what goes to one mailbox: each item with the folder that it goes to, and what stands there already.
//!
//! The walk through the snapshot reads nodes, which may wait for a disk, so it has a thread of its own and hands on
//! what it meets through a short channel. Folders of the target are asked for when something is put there.

use super::folders::{Folders, Place};
use super::maildir::{self, Maildirs};
use super::route::{Named, Part, Route};
use super::there::There;
use crate::backup::tenant::REPORT_NAME;
use crate::format::entry::{Directory, Entry, Sums};
use crate::repository::reader::Reader;
use crate::repository::tree::Entries;
use crate::restore::chain;
use crate::restore::plan::{Selection, Step, Walk};
use crate::runtime::{Fault, guarded};
use crate::source::graph::GraphError;
use crate::source::graph::mail::Mailbox;
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use tokio::sync::{RwLock, mpsc};

/// What the walk may be ahead.
const EVENTS_MAX: usize = 64;
/// Maximum number of items of a folder that are asked for one by one. For more, the folder is listed: it may hold a
/// million others.
pub(super) const ASKED_MAX: u64 = 24;
/// Folders of a mailbox lie no deeper (Exchange Online: "Mailbox folder limits").
const DEPTH_MAX: usize = 300;

/// A folder of the target, with what stands there.
pub(super) struct Spot {
    /// Its id; none in a dry run where it is not there yet.
    pub folder: Option<String>,
    pub there: Mutex<There>,
    /// Whether it was not listed, and each item is asked for by itself.
    pub asks: bool,
}

/// What is met on the way.
pub(super) enum Met {
    /// An item, and where it goes.
    Item { entry: Box<Entry>, path: Vec<u8>, spot: Arc<Spot> },
    /// Entries of the folder at `path` cannot be read; `entries` is their number.
    Unreadable { path: Vec<u8>, entries: u64, error: String },
}

enum Event {
    /// The part with this number begins.
    Part(usize),
    /// A folder, by its name and those of the folders between. Without a name it is the mailbox itself.
    Enter(Vec<Named>, Inside),
    /// A folder whose items go where those of the folder around it go.
    Stay(Inside),
    Leave,
    Item(Box<Entry>, Vec<u8>),
    Unreadable(Vec<u8>, u64, String),
}

/// What is in a folder of the snapshot.
#[derive(Default)]
struct Inside {
    /// Whether there is nothing at all.
    is_empty: bool,
    /// How many items are directly in it.
    items: u64,
    /// The ids of the items directly in it, hashed.
    ids: Vec<u64>,
}

/// A level of the way: where it is in the target, and the spot once it was needed.
struct Level {
    place: Place,
    /// How many items come to it, and the ids of those that have one, hashed.
    items: u64,
    expected: Vec<u64>,
    spot: Option<Arc<Spot>>,
}

impl Level {
    fn new(place: Place, items: u64, expected: Vec<u64>) -> Self {
        Self { place, items, expected, spot: None }
    }
}

/// The way through one route.
pub(super) struct Guide<'a> {
    mailbox: &'a Mailbox,
    pub folders: Folders,
    route: Arc<Route>,
    events: mpsc::Receiver<Event>,
    levels: Vec<Level>,
    random: RandomState,
    /// Ids of items that were asked for one by one.
    single: Vec<u64>,
    /// The spot of the last of those.
    last: Option<(Place, Arc<Spot>)>,
    /// Held by whoever imports an item until it is marked: what stands somewhere is only looked at when nobody does,
    /// lest an item that just arrived be taken for one that was there.
    pub unmarked: Arc<RwLock<()>>,
}

impl<'a> Guide<'a> {
    /// Starts the walk.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn new(
        mailbox: &'a Mailbox,
        into: &[String],
        makes: bool,
        reader: Arc<Reader>,
        root: Entry,
        route: Arc<Route>,
    ) -> Result<Self, GraphError> {
        let folders = Folders::new(mailbox, into, makes).await?;
        let random = RandomState::new();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let items = route.parts.iter().filter(|part| part.entry.directory().is_none());
        let single = items.filter_map(|part| id_of(&part.entry, &random)).collect();
        let (walked, hashing) = (route.clone(), random.clone());
        tokio::task::spawn_blocking(move || walk(&reader, &root, &walked, &hashing, &sender));
        let (levels, last, unmarked) = (Vec::new(), None, Arc::default());
        Ok(Self { mailbox, folders, route, events, levels, random, single, last, unmarked })
    }

    /// Returns what comes next, or `None` at the end.
    ///
    /// # Errors
    /// See [`GraphError`]: a folder of the target that cannot be had ends the way.
    pub async fn next(&mut self) -> Result<Option<Met>, GraphError> {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Part(number) => self.begin(number).await?,
                Event::Enter(names, inside) => {
                    let mut place = self.levels.last().expect("a part begins with a place").place.clone();
                    for name in &names {
                        place = self.folders.below(&place, name, inside.is_empty).await?;
                    }
                    self.levels.push(Level::new(place, inside.items, inside.ids));
                }
                Event::Stay(inside) => {
                    let around = self.levels.last().expect("a part begins with a place").place.clone();
                    // Others may have put something there by now.
                    let place = Place { is_new: false, ..around };
                    self.levels.push(Level::new(place, inside.items, inside.ids));
                }
                Event::Leave => drop(self.levels.pop()),
                Event::Item(entry, path) => {
                    let spot = self.spot().await?;
                    if spot.asks {
                        self.ask(&spot, &entry).await?;
                    }
                    return Ok(Some(Met::Item { entry, path, spot }));
                }
                Event::Unreadable(path, entries, error) => {
                    return Ok(Some(Met::Unreadable { path, entries, error }));
                }
            }
        }
        Ok(None)
    }

    /// Finds the place of what a part lies in.
    async fn begin(&mut self, number: usize) -> Result<(), GraphError> {
        let route = self.route.clone();
        let part = &route.parts[number];
        let mut place = self.folders.root().await?;
        // Below a folder of one's own, a thing arrives under its last name.
        let above = if self.folders.has_own_root() { &[][..] } else { &part.above };
        for folder in above {
            place = self.folders.below(&place, folder, false).await?;
        }
        let is_single = |part: &&Part| part.entry.directory().is_none();
        let items = route.parts.iter().filter(is_single).count() as u64;
        self.levels = vec![Level::new(place, items, self.single.clone())];
        Ok(())
    }

    async fn spot(&mut self) -> Result<Arc<Spot>, GraphError> {
        let is_single = self.levels.len() == 1;
        let level = self.levels.last_mut().expect("an item lies in a place");
        if let Some(spot) = &level.spot {
            return Ok(spot.clone());
        }
        if let Some((_, spot)) = self.last.as_ref().filter(|(place, _)| is_single && *place == level.place) {
            return Ok(spot.clone());
        }
        let mut there = There::new(self.random.clone(), &std::mem::take(&mut level.expected));
        let is_old = level.place.id.is_some() && !level.place.is_new;
        let asks = is_old && level.items <= ASKED_MAX;
        if let Some(folder) = level.place.id.as_deref().filter(|_| is_old && !asks) {
            let _nothing_arrives = self.unmarked.write().await;
            self.mailbox.standing(folder, |message| there.add(&message)).await?;
        }
        let spot = Arc::new(Spot { folder: level.place.id.clone(), there: Mutex::new(there), asks });
        level.spot = Some(spot.clone());
        if is_single {
            self.last = Some((level.place.clone(), spot.clone()));
        }
        Ok(spot)
    }
}

impl Guide<'_> {
    /// Asks for what may stand in the place of one item, where its folder was not listed for the sake of a few.
    async fn ask(&self, spot: &Spot, entry: &Entry) -> Result<(), GraphError> {
        let Some(folder) = spot.folder.as_deref() else { return Ok(()) };
        let facts = &entry.facts;
        let _nothing_arrives = self.unmarked.write().await;
        let each = |message| spot.there.lock().add(&message);
        self.mailbox.alike(folder, facts.message_id.as_deref(), facts.date, each).await
    }
}

fn id_of(entry: &Entry, random: &RandomState) -> Option<u64> {
    entry.facts.source_id.as_deref().map(|id| random.hash_one(id))
}

/// Walks through the parts of a route until they end or nobody listens any more.
fn walk(reader: &Reader, root: &Entry, route: &Route, random: &RandomState, to: &mpsc::Sender<Event>) {
    for (number, part) in route.parts.iter().enumerate() {
        if to.blocking_send(Event::Part(number)).is_err() {
            return;
        }
        let walked = guarded(|| walk_part(reader, root, part, random, to));
        // What was not reached of it is told of as one thing: how much it is nobody knows.
        let told = |fault: Fault| to.blocking_send(Event::Unreadable(part.path.clone(), 1, fault.to_string())).ok();
        if walked.unwrap_or_else(told).is_none() {
            return;
        }
    }
}

fn walk_part(reader: &Reader, root: &Entry, part: &Part, random: &RandomState, to: &mpsc::Sender<Event>) -> Option<()> {
    let send = |event| to.blocking_send(event).ok();
    let selection = match Selection::new(reader, root, std::slice::from_ref(&part.path)) {
        Ok(selection) => selection,
        Err(crate::restore::RestoreError::Read(error)) => {
            return send(Event::Unreadable(part.path.clone(), 1, chain(&error)));
        }
        // It was found a moment ago.
        Err(_) => return Some(()),
    };
    let is_everything = matches!(selection, Selection::Everything(_));
    // Mailboxes of an organisation are none; there every folder is what it is called.
    let mut maildirs = (part.prefix_len == 0).then(Maildirs::default);
    if let Some(dir) = part.entry.directory().filter(|_| is_everything) {
        maildirs.iter_mut().for_each(|maildirs| drop(maildirs.enter(reader, &part.entry)));
        send(Event::Enter(Vec::new(), look_inside(reader, dir, random)))?;
    }
    let mut walk = Walk::new(reader, &selection);
    let mut depth = 0;
    while let Some(step) = walk.step() {
        match step {
            Step::Enter(found) => {
                depth += 1;
                let sums = found.entry().sums();
                if depth > DEPTH_MAX {
                    let error = "it lies deeper than folders of a mailbox can".to_owned();
                    send(Event::Unreadable(walk.path().to_vec(), sums.items, error))?;
                    walk.skip();
                    depth -= 1;
                    continue;
                }
                let inside = found.entry().directory().map(|dir| look_inside(reader, dir, random)).unwrap_or_default();
                let folder = maildirs.as_mut().map_or(maildir::Folder::Own, |way| way.enter(reader, found.entry()));
                let named = |display: String| Named { display, well_known: None };
                send(match folder {
                    maildir::Folder::Own => Event::Enter(part.name_of(walk.path()).into_iter().collect(), inside),
                    maildir::Folder::Around => Event::Stay(inside),
                    maildir::Folder::Named(names) => Event::Enter(names.into_iter().map(named).collect(), inside),
                })?;
            }
            Step::Leave => {
                depth -= 1;
                maildirs.iter_mut().for_each(Maildirs::leave);
                send(Event::Leave)?;
            }
            // What a backup says of itself is nobody's mail.
            Step::Item(found) if part.prefix_len > 0 && *found.entry().name == *REPORT_NAME.as_bytes() => {}
            Step::Item(found) => send(Event::Item(Box::new(found.entry().clone()), walk.path().to_vec()))?,
            Step::Unreadable { entries, error } => {
                send(Event::Unreadable(walk.path().to_vec(), entries, chain(&error)))?
            }
        }
    }
    Some(())
}

/// What cannot be read is told of by the walk.
fn look_inside(reader: &Reader, dir: &Directory, random: &RandomState) -> Inside {
    let entries = Entries::new(reader, dir).into_iter().flatten();
    let ids = entries.filter_map(|found| id_of(found.ok()?.entry(), random)).collect();
    let Sums { entries, dirs, .. } = dir.sums;
    Inside { is_empty: entries == 0, items: entries.saturating_sub(dirs), ids }
}
