//! A collection: the items of one kind that a service keeps in folders, such as a user's mail.
//!
//! ```text
//! plan (which folders) ─► rounds (what changed) ─► departures (what really left) ─► store (read, split) ─► assemble
//! ```
//!
//! The trait [`Collection`] says how a service is asked and what is particular to its items. The modules below hold
//! everything else, once for all collections. They keep these promises:
//! - An item leaves the snapshot only if a complete round says that it left *and* a request for the item itself
//!   confirms this.
//! - What cannot be read stays in the snapshot as it was. It is listed as a failure, and every run tries it again.
//! - Every item that a listing enumerates is stored, carried over or failed ([`state::Ledger`]).
//! - A folder in which nothing changed costs one request, and its items are not looked at.

mod assemble;
mod departures;
mod edits;
pub mod folder_names;
pub mod item;
pub mod listed;
pub mod plan;
pub mod previous;
mod rounds;
pub mod run;
pub mod state;
mod store;

pub use self::assemble::{Assembled, Tops, join};
pub use self::store::unfinished_key;

use self::item::{Item, ItemKey};
use self::listed::{Departed, Rounds};
use self::plan::{Plan, Planned, Standing};
use self::previous::Previous;
use self::state::FolderState;
use super::context::{Context, Ended};
use super::splitter::{SplitError, Splitter};
use crate::format::entry::Entry;
use crate::format::snapshot::Failure;
use crate::repository::read_error::ReadError;
use crate::source::graph::GraphError;
use crate::source::graph::round::Round;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How a service is asked for a collection, and what is particular to its items.
pub trait Collection: Send + Sync + Sized + 'static {
    /// An item, as a row of a listing describes it.
    type Item: Item;
    /// What was read of an item, on its way to a splitter.
    type Body: Send + 'static;
    /// What was read beside the bodies of some items.
    type Extra: Default + Send + 'static;

    /// What messages to people call the items: `messages`.
    const ITEMS: &'static str;
    /// What errors say was being done when a listing failed: `listing messages`.
    const LISTING: &'static str;
    /// The prefix of the key under which this machine remembers what an unfinished run stored; the user's id follows.
    /// It begins with a zero byte, because no path does.
    const UNFINISHED: &'static [u8];

    /// Finds out which folders there are. `standing` says where the collection stands in the snapshot, and what the
    /// previous snapshot has of it.
    async fn plan(&self, context: &Context, standing: &Standing<'_>) -> Result<Planned, GraphError>;

    /// Returns true if the service still has the collection at all.
    async fn exists(&self) -> Result<bool, GraphError>;

    /// Returns the folder with the id `id`, if there is one.
    async fn folder(&self, context: &Context, id: &str) -> Result<Option<FolderNow>, GraphError>;

    /// Returns true if a link that the service gave out may be followed.
    fn may_follow(&self, link: &str) -> bool;

    /// Begins a round over the items of a folder: those that changed since `link` was given out, or all without a link.
    fn changes(&self, folder: &str, link: Option<&str>) -> Round<Self::Item>;

    /// Begins a round over all items of a folder, for a service that cannot report changes.
    fn listing(&self, folder: &str) -> Round<Self::Item>;

    /// Returns the row that a listing would have for the item, in whichever folder it lies now.
    async fn item(&self, id: &str) -> Result<Option<Self::Item>, GraphError>;

    /// Returns true if items of a folder have to be looked at although nothing in it changed.
    fn owes(&self, _folder: &FolderState) -> bool {
        false
    }

    /// Adds items to the rounds that did not change, but have to be read or completed. Called once the departures are
    /// proven.
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

    /// Returns true if the stored bytes of an item contradict what the service said about the item then.
    fn is_suspect(&self, _context: &Context, _before: &Entry) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// Returns true if the new version of an item differs only in properties that do not touch the bytes of its file.
    fn has_same_bytes(&self, _context: &Context, _before: &Entry, _item: &Self::Item) -> bool {
        false
    }

    /// Returns true if an entry lacks something that the set asks for, so that later runs try again.
    fn lacks(&self, _entry: &Entry) -> bool {
        false
    }

    /// Returns true if this run may complete one more unchanged item of a folder, after `completed` others.
    fn may_complete(&self, _completed: usize) -> bool {
        false
    }

    /// Returns how much memory an item takes, in pieces of room ([`room_of`](super::splitters::room_of)).
    fn room(&self, item: &Self::Item) -> u32;

    /// Reads an item. `failed_before` is true if the item failed in the previous run, too.
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

    /// Returns the file name for an item that is new in the snapshot.
    fn name(&self, item: &Self::Item) -> String;

    /// Stores an item, and returns its entry. The caller adds the name, and the row of the item as the payload if the
    /// entry has none. Called on a thread.
    fn entry(
        &self,
        splitter: &mut Splitter,
        item: &Self::Item,
        source: Source<Self::Body>,
        extra: &mut Self::Extra,
    ) -> Result<Entry, SplitError>;

    /// Notes in the state of a folder what is particular to the collection, once its items are stored. `all_named` is
    /// true if the state names every item that failed.
    fn close(&self, _folder: &mut FolderState, _all_named: bool) {}
}

/// A folder as it is now.
pub struct FolderNow {
    /// The id of the folder that it lies in.
    pub parent: Option<String>,
    /// True if such folders belong to the backup.
    pub is_wanted: bool,
}

/// What [`Collection::amend`] found.
#[derive(Default)]
pub struct Amendments {
    /// Items that are read again, whatever their version.
    pub suspects: HashSet<ItemKey>,
    /// The ids of folders whose items have not all been compared yet ([`Collection::is_suspect`]).
    pub unexamined: HashSet<String>,
    /// For each folder, by its number: how many items lack something and were left for a later run.
    pub lacking: HashMap<usize, u64>,
    /// For each folder, by its number: how far it was examined.
    pub examined: HashMap<usize, Examined>,
}

/// How far a folder was examined.
pub struct Examined {
    /// The number of the comparison that everything in the folder has passed.
    pub compared: u32,
    /// The name of the last item that the next comparison has reached. `None` if that one is complete.
    pub compared_to: Option<String>,
}

/// What was read of an item.
pub enum Reading<B> {
    /// The bytes are known: those of this entry.
    Known(Box<Entry>),
    /// The bytes came from the service.
    New(B),
    /// The item is gone.
    Gone,
    /// The item cannot be read, for this reason.
    Failed(String),
}

/// An item, and what was read of it.
pub struct Fetched<C: Collection> {
    /// The row of the item.
    pub item: C::Item,
    /// What was read.
    pub reading: Reading<C::Body>,
    /// The entry of the item in the previous snapshot.
    pub before: Option<Box<Entry>>,
}

/// Where the bytes of an entry come from.
pub enum Source<B> {
    /// They are those of another entry.
    Known(Box<Entry>),
    /// They came from the service.
    New(B),
}

/// What a run over a collection has to tell people.
#[derive(Default)]
pub struct Report {
    /// What could not be read.
    pub failures: Vec<Failure>,
    /// The number of further items that could not be read.
    pub failed_unnamed: u64,
    /// What people should know although nothing failed.
    pub warnings: Vec<String>,
}
