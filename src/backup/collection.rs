//! A collection: items of one kind in folders, such as a user's mail, as a service holds them.
//!
//! ```text
//! plan (which folders) ─► rounds (what changed) ─► departures (what really left) ─► store (read, split) ─► assemble
//! ```
//!
//! [`Collection`] is what a service says and what is particular to its items. Everything else stands once, in the
//! modules below, and holds for each collection:
//! - an item is taken out of the tree only when a complete round says that it left *and* asking for the item itself
//!   says so too;
//! - what cannot be read stays as it was, is listed, and is tried again;
//! - every item that was enumerated is stored, carried over or failed ([`state::Ledger`]);
//! - a folder in which nothing changed costs one request, and its items are not looked at.

mod assemble;
mod departures;
mod edits;
pub mod item;
pub mod listed;
pub mod plan;
pub mod previous;
mod rounds;
pub mod run;
pub mod state;
mod store;

pub use self::store::unfinished_key;

use self::item::{Item, ItemKey};
use self::listed::{Departed, Rounds};
use self::plan::{Plan, Planned};
use self::previous::Previous;
use self::state::{CollectionState, FolderState};
use super::context::{Context, Ended};
use super::splitter::{SplitError, Splitter};
use crate::format::entry::Entry;
use crate::format::snapshot::Failure;
use crate::repository::read_error::ReadError;
use crate::source::graph::GraphError;
use crate::source::graph::round::Round;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a service says of a collection, and what is particular to its items.
pub trait Collection: Send + Sync + Sized + 'static {
    /// An item as listings tell of it.
    type Item: Item;
    /// What was read of an item, on its way to a splitter.
    type Body: Send + 'static;
    /// What was read beside the bodies of some items.
    type Extra: Default + Send + 'static;

    /// What messages call its items: `messages`.
    const ITEMS: &'static str;
    /// Under this (and the user) a machine remembers what a run stored that did not come to its end. It begins with a
    /// zero byte, as no path does.
    const UNFINISHED: &'static [u8];

    /// Finds out which folders there are. `path` is where the collection stands in the snapshot.
    async fn plan(
        &self,
        context: &Context,
        path: &str,
        before: Option<&CollectionState>,
    ) -> Result<Planned, GraphError>;

    /// Returns whether the service still has the collection at all.
    async fn exists(&self) -> Result<bool, GraphError>;

    /// Returns the folder with this id, if there is one.
    async fn folder(&self, context: &Context, id: &str) -> Result<Option<FolderNow>, GraphError>;

    /// Returns whether a link that the service gave out may be followed.
    fn may_follow(&self, link: &str) -> bool;

    /// Begins a round over the items of a folder: what changed since `link` was given out, or everything.
    fn changes(&self, folder: &str, link: Option<&str>) -> Round<Self::Item>;

    /// Begins a round over everything in a folder, for a service that cannot tell changes.
    fn listing(&self, folder: &str) -> Round<Self::Item>;

    /// Returns what a listing would tell of the item, wherever it lies now.
    async fn item(&self, id: &str) -> Result<Option<Self::Item>, GraphError>;

    /// Returns whether items of a folder have to be looked at although nothing in it changed.
    fn owes(&self, _folder: &FolderState) -> bool {
        false
    }

    /// Adds items to the rounds that the service does not tell of, since they did not change, but which have to be read
    /// or completed. Called once the departures are proven.
    async fn amend(
        &self,
        _context: &Arc<Context>,
        _plan: &Plan<'_>,
        _previous: &Previous,
        _rounds: &mut Rounds<Self::Item>,
        _departed: &Departed,
    ) -> Result<Amendments, Ended> {
        Ok(Amendments::default())
    }

    /// Returns whether what is stored of an item is not what the service said of it then.
    fn is_suspect(&self, _context: &Context, _before: &Entry) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// Returns whether the new version of an item is explained by properties that do not touch the bytes of its file.
    fn has_same_bytes(&self, _context: &Context, _before: &Entry, _item: &Self::Item) -> bool {
        false
    }

    /// Returns whether an entry lacks something that the set asks for, so that later runs try again.
    fn lacks(&self, _entry: &Entry) -> bool {
        false
    }

    /// Returns whether one more unchanged item of a folder may be completed in this run, after so many of them.
    fn may_complete(&self, _completed: usize) -> bool {
        false
    }

    /// Returns how much room an item takes in memory ([`room_of`](super::splitters::room_of)).
    fn room(&self, item: &Self::Item) -> u32;

    /// Reads an item. `failed_before` says whether it failed in the run before, too.
    async fn read(
        &self,
        context: &Arc<Context>,
        item: &Self::Item,
        failed_before: bool,
    ) -> Result<Reading<Self::Body>, Ended>;

    /// Reads what belongs to some items beside their bodies.
    async fn read_extra(&self, _context: &Arc<Context>, _fetched: &[Fetched<Self>]) -> Result<Self::Extra, Ended> {
        Ok(Self::Extra::default())
    }

    /// Returns what an item that is new here is called.
    fn name(&self, item: &Self::Item) -> String;

    /// Stores an item, and returns its entry without name and payload, which the caller adds. Called on a thread.
    fn entry(
        &self,
        splitter: &mut Splitter,
        item: &Self::Item,
        source: Source<Self::Body>,
        extra: &mut Self::Extra,
    ) -> Result<Entry, SplitError>;

    /// Notes in a folder's state what is particular to the collection, once its items are stored. `all_named` says
    /// whether all items that failed are kept by name.
    fn close(&self, _folder: &mut FolderState, _all_named: bool) {}
}

/// A folder as it is now.
pub struct FolderNow {
    /// The folder it lies in.
    pub parent: Option<String>,
    /// Whether such folders belong to the backup.
    pub is_wanted: bool,
}

/// What [`Collection::amend`] found.
#[derive(Default)]
pub struct Amendments {
    /// Items that are read again, whatever their version.
    pub suspects: HashSet<ItemKey>,
    /// The ids of folders with items that have not been looked at yet ([`Collection::is_suspect`]).
    pub unexamined: HashSet<String>,
    /// How many items of a folder lack something and were left for a later run.
    pub lacking: HashMap<usize, u64>,
    /// How far folders were examined.
    pub examined: HashMap<usize, Examined>,
}

/// How far a folder was examined.
pub struct Examined {
    /// The comparison that everything in it has passed.
    pub compared: u32,
    /// The name up to which the next one has come, where it has not come to the end.
    pub compared_to: Option<String>,
}

/// What was read of an item.
pub enum Reading<B> {
    /// Its bytes are known: those of this entry.
    Known(Box<Entry>),
    /// They came from the service.
    New(B),
    /// It is not there any more.
    Gone,
    /// It cannot be read, for this reason.
    Failed(String),
}

/// An item, and what was read of it.
pub struct Fetched<C: Collection> {
    /// What the service told of it.
    pub item: C::Item,
    /// What was read.
    pub reading: Reading<C::Body>,
    /// What stands for it in the snapshot before.
    pub before: Option<Box<Entry>>,
}

/// Where an entry's bytes come from.
pub enum Source<B> {
    /// They are those of another entry.
    Known(Box<Entry>),
    /// They came from the service.
    New(B),
}

/// What somebody should know of a run over a collection.
#[derive(Default)]
pub struct Report {
    /// What could not be read.
    pub failures: Vec<Failure>,
    /// How many more items could not be read.
    pub failed_unnamed: u64,
    /// What somebody should know although nothing failed.
    pub warnings: Vec<String>,
}
