//! A target: the items of one kind in a mailbox, such as its mail, as the service lets them be found, created,
//! completed and compared.
//!
//! ```text
//! route (what goes to whom) ─► planned items (into which folder, what exists there) ─► delivery ─► report
//!                                      │                                                  │
//!                                      └──────────────── Target ◄─────────────────────────┘
//! ```
//!
//! [`Target`] has what the service says and what is particular to the items of one kind. Everything else is written
//! once, in the modules beside this one, and holds for every kind:
//! - the same restore twice creates nothing twice, also after lost answers and after a crash;
//! - an item counts as restored once it was read back and compared;
//! - nothing is deleted, except what `--when-exists overwrite` replaces and what the restore itself created: half an
//!   item, or the second of two.

use super::context::{Context, MailboxContext};
use super::existing_items::{ExistingItem, Likeness, TargetFolder};
use super::mark::Mark;
use super::outcome::{ItemError, ItemOutcome};
use crate::format::entry::Entry;
use crate::source::graph::GraphError;
use crate::source::graph::write::Marked;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::{RwLock, RwLockWriteGuard};

/// Takes the items that exist, one after the other.
pub(super) type EachItem<'a> = &'a mut (dyn FnMut(ExistingItem) + Send);

/// The items of one kind in a mailbox.
///
/// Every request that creates something is sent once. After an ambiguous error, the caller looks for the item by its
/// mark before it tries again.
pub(super) trait Target: Send + Sync + Sized + 'static {
    /// An item of the snapshot that was read, and is ready to be created.
    type Item: Send + Sync + 'static;

    /// Why an entry is not restored that is not of this kind: `it is no mail`.
    const NOT_OF_THIS_KIND: &'static str;
    /// The well-known name of the folder that holds all others.
    const ROOT: &'static str;
    /// Maximum number of items of a folder that are asked for one by one. If there are more, the folder is listed.
    const ASKED_MAX: u64;

    /// Returns true if a backup took the entry for an item of this kind, or if its name says so.
    fn is_of_this_kind(entry: &Entry) -> bool;

    /// Returns what to do with the folder that has this well-known name.
    fn folder_rule(well_known: &str) -> FolderRule;

    /// Returns the well-known name of the folder that people call `name`, if there is one and items may be restored
    /// directly into it.
    fn folder_meant(name: &str) -> Option<&'static str>;

    /// Returns the folders that every mailbox has, by their well-known names.
    fn well_known_folders(&self)
    -> impl Future<Output = Result<Arc<HashMap<&'static str, String>>, GraphError>> + Send;

    /// Lists the folders directly in `parent` that items can be put into.
    fn child_folders(&self, parent: &str) -> impl Future<Output = Result<Vec<ChildFolder>, GraphError>> + Send;

    /// Creates the folder `name` in `parent`, or finds the existing one.
    fn make_folder(&self, parent: &str, name: &str) -> impl Future<Output = Result<MadeFolder, GraphError>> + Send;

    /// Returns the likeness of an item of the snapshot. May read the item, so it is called on a thread. `None` if it
    /// has none, or cannot be read.
    fn likeness(context: &Context, entry: &Entry) -> Option<Likeness>;

    /// Calls `each` with every item in `folder`.
    fn list_existing(&self, folder: &str, each: EachItem<'_>) -> impl Future<Output = Result<(), GraphError>> + Send;

    /// Calls `each` with all items in `folder` that may correspond to `entry`, and perhaps with others.
    fn find_existing(
        &self,
        folder: &str,
        entry: &Entry,
        each: EachItem<'_>,
    ) -> impl Future<Output = Result<(), GraphError>> + Send;

    /// Returns the item with this id if it exists in `folder`.
    fn existing_item(
        &self,
        id: &str,
        folder: &str,
    ) -> impl Future<Output = Result<Option<ExistingItem>, GraphError>> + Send;

    /// Returns the items in `folder` that have this mark.
    fn marked(&self, folder: &str, mark: &str) -> impl Future<Output = Result<Vec<Marked>, GraphError>> + Send;

    /// Reads an item that goes to `folder`. Called on a thread.
    ///
    /// # Errors
    /// [`ItemError`].
    fn read(context: &Context, entry: &Entry, folder: &str) -> Result<Self::Item, ItemError>;

    /// Returns the request that creates an item. The caller adds the mark.
    ///
    /// # Errors
    /// The reason if the service cannot take the item at all.
    fn request(item: &Self::Item) -> Result<NewItem, String>;

    /// Creates an item in `folder` from its properties, and returns its id.
    fn create(&self, folder: &str, properties: &Value) -> impl Future<Output = Result<String, GraphError>> + Send;

    /// Changes properties of an item. Repeating the same change does no harm.
    fn change(&self, id: &str, properties: &Value) -> impl Future<Output = Result<(), GraphError>> + Send;

    /// Adds the parts of the item that are missing. `parts_left` is their number if the item was just created (see
    /// [`NewItem::parts_left`]). Returns true if a part may have been added twice.
    fn complete(
        &self,
        mailbox: &MailboxContext,
        item: &Self::Item,
        id: &str,
        parts_left: Option<usize>,
    ) -> impl Future<Output = Result<bool, ItemError>> + Send;

    /// Adds parts that are missing, and removes parts that were added twice. Called after [`Target::complete`] said
    /// that this may have happened, and the item differs from what it should be.
    fn repair(
        &self,
        mailbox: &MailboxContext,
        item: &Self::Item,
        id: &str,
    ) -> impl Future<Output = Result<(), ItemError>> + Send;

    /// Reads an item back, and returns how it differs from what it should be. `None` if it does not.
    fn difference(
        &self,
        item: &Self::Item,
        id: &str,
        folder: &str,
        stage: Stage,
    ) -> impl Future<Output = Result<Option<String>, GraphError>> + Send;

    /// Deletes an item as a person would, so that it can be recovered. It is not an error if it does not exist.
    fn delete(&self, id: &str) -> impl Future<Output = Result<(), GraphError>> + Send;

    /// Deletes an item that this restore has created, for good if the service can do that.
    fn take_back(&self, id: &str) -> impl Future<Output = Result<(), GraphError>> + Send;

    /// Returns true if an attempt to restore the item may be interrupted before the item has its mark.
    fn may_lack_mark(_entry: &Entry) -> bool {
        false
    }

    /// Restores an item in another way than by [`Target::create`]. Returns `None` if it has to be created.
    /// `is_alike` is true if an existing item was taken for it because of its likeness.
    fn restore_otherwise(
        &self,
        _mailbox: &MailboxContext,
        _task: &Task<'_>,
        _is_alike: bool,
    ) -> impl Future<Output = Result<Option<ItemOutcome>, ItemError>> + Send {
        async { Ok(None) }
    }

    /// Returns the lock that is held for reading as long as an item exists without its mark. `None` if there never is
    /// such an item.
    fn unmarked(&self) -> Option<&RwLock<()>> {
        None
    }

    /// Waits until every item has its mark. As long as the guard lives, no item is created without one: otherwise an
    /// item that just arrived would be taken for one that was there before.
    fn all_marked(&self) -> impl Future<Output = Option<RwLockWriteGuard<'_, ()>>> + Send {
        async {
            match self.unmarked() {
                Some(lock) => Some(lock.write().await),
                None => None,
            }
        }
    }

    /// Returns what restored items have lost, with the number of items.
    fn losses(&self) -> BTreeMap<Loss, u64> {
        BTreeMap::new()
    }
}

/// An item of the snapshot, and where it is to be restored.
pub(super) struct Task<'a> {
    pub entry: &'a Entry,
    pub folder: &'a TargetFolder,
    /// The id of the folder.
    pub folder_id: &'a str,
    pub mark: &'a Mark,
}

/// A request that creates an item.
pub(super) struct NewItem {
    /// The properties of the item, with the parts that fit into the request.
    pub properties: Map<String, Value>,
    /// The number of parts that did not fit, the last ones of the item. They are added afterwards.
    pub parts_left: usize,
}

/// What is known of an item that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// This run has created it a moment ago. Nobody can have changed it.
    New,
    /// An earlier run has created it, and this run has completed it.
    Completed,
    /// An earlier run has created and completed it.
    Old,
}

/// What to do with a folder that has a well-known name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderRule {
    /// Its items go to the folder with the same well-known name, whatever that is called.
    SameWellKnown,
    /// Its items go to an ordinary folder of a similar name, because the service would act on them in such a folder.
    Apart,
    /// Its items go to a folder of the same name.
    SameName,
}

/// A folder of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChildFolder {
    pub id: String,
    pub name: String,
}

/// A folder that was created or found.
pub(super) struct MadeFolder {
    pub id: String,
    /// True if it was created.
    pub is_new: bool,
}

/// What items lost although they were restored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Loss {
    /// What happened to them, to be read behind their number: `messages went back from MIME`.
    pub what: &'static str,
    /// The reason.
    pub why: String,
}

impl Loss {
    /// Returns the remark for the report.
    pub fn remark(&self, items: u64) -> String {
        format!("{items} {}: {}", self.what, self.why)
    }
}
