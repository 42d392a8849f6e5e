//! What the rounds over the folders of a collection told.
//!
//! The rows go to the local state, in the order of their dates, so that neighbours in time become neighbours in storage
//! and memory does not grow with the folder: it holds 40 bytes for each.

use super::item::{Item, ItemKey};
use super::state::FailedItem;
use crate::backup::context::Context;
use crate::repository::store::StoreError;
use std::collections::{HashMap, HashSet};

/// The names of entries that leave a folder of the snapshot before.
pub type Names = HashSet<Box<[u8]>>;

/// What left, by the numbers of the folders: proven.
pub type Departed = HashMap<usize, Names>;

/// How the rounds over the folders of a collection ended, by the numbers of the folders.
pub struct Rounds<I> {
    /// The rounds that are complete.
    pub complete: HashMap<usize, Listed<I>>,
    /// Folders that were gone when their rounds were to begin.
    pub gone: HashSet<usize>,
    /// Why rounds are not to be believed. Their folders stay as they were.
    pub failed: HashMap<usize, String>,
    /// Folders without a complete round that the next run lists in full.
    pub listed_anew: HashSet<usize>,
}

impl<I> Rounds<I> {
    /// Returns whether a folder's round told that the item is there.
    pub fn have(&self, item: ItemKey) -> bool {
        self.complete.values().any(|listed| listed.rows.contains_key(&item))
    }
}

/// A complete round over a folder.
pub struct Listed<I> {
    /// Whether it told of everything there is, rather than of changes.
    pub full: bool,
    /// Where to ask next time.
    pub link: Option<String>,
    /// The area of the local state that holds the rows.
    area: u64,
    /// The items it told of, with their dates, by which their rows are found.
    pub rows: HashMap<ItemKey, i64>,
    /// The items that left, with their ids. A listing of everything has none: what it does not tell of has left.
    pub left: HashMap<ItemKey, String>,
    /// Items that failed before, and of which nothing can be had now either.
    pub unreadable: Vec<FailedItem>,
    /// Items that failed before, and lie elsewhere now.
    pub moved: Vec<I>,
}

impl<I: Item> Listed<I> {
    /// Begins a round: a full one, or one of changes.
    pub fn new(context: &Context, full: bool) -> Self {
        Self {
            full,
            link: None,
            area: context.area(),
            rows: HashMap::new(),
            left: HashMap::new(),
            unreadable: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Takes a row. Of several rows for one item the last one counts.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn take(&mut self, row: &I, context: &Context) -> Result<(), StoreError> {
        let item = ItemKey::of(row.id());
        self.forget(item, context)?;
        if row.is_removed() {
            self.leave(row.id());
            return Ok(());
        }
        self.left.remove(&item);
        let date = row.date().unwrap_or(i64::MIN);
        self.rows.insert(item, date);
        Ok(context.store.local().put_aside(self.area, &row_key(item, date), row.json().as_bytes())?)
    }

    /// Notes that the item with this id left.
    pub fn leave(&mut self, id: &str) {
        if !self.full {
            self.left.insert(ItemKey::of(id), id.to_owned());
        }
    }

    /// Forgets the row of an item.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn forget(&mut self, item: ItemKey, context: &Context) -> Result<(), StoreError> {
        if let Some(date) = self.rows.remove(&item) {
            context.store.local().drop_aside(self.area, &row_key(item, date))?;
        }
        Ok(())
    }

    /// Returns up to `max` rows from behind `after` on, in the order of their dates, and where to go on.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn rows_after(
        &self,
        after: Option<&[u8]>,
        max: usize,
        context: &Context,
    ) -> Result<(Vec<I>, Option<Vec<u8>>), StoreError> {
        let rows = context.store.local().set_aside(self.area, after, max)?;
        let last = rows.last().map(|(key, _)| key.clone());
        let items = rows.iter().map(|(_, json)| serde_json::from_slice(json).expect("it was read from the same text"));
        Ok((items.collect(), last))
    }

    /// Returns whether it told of nothing.
    pub fn is_quiet(&self) -> bool {
        !self.full
            && self.rows.is_empty()
            && self.left.is_empty()
            && self.unreadable.is_empty()
            && self.moved.is_empty()
    }

    /// Returns whether it told of the item with this id, be it that it left.
    pub fn tells_of(&self, id: &str) -> bool {
        let item = ItemKey::of(id);
        self.rows.contains_key(&item) || self.left.contains_key(&item)
    }

    /// Takes everything away that was put aside.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn clear(&self, context: &Context) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        Ok(context.store.local().clear_aside(Some(self.area))?)
    }
}

fn row_key(item: ItemKey, date: i64) -> Vec<u8> {
    // Flipping the sign puts dates before 1970 first.
    let date = (date as u64) ^ (1 << 63);
    [date.to_be_bytes().as_slice(), &item.0].concat()
}
