//! What the rounds over the folders of a collection reported.
//!
//! The rows go to the local state, sorted by date. So items of about the same time are stored next to each other, and
//! memory holds only about 40 bytes for each item.

use super::item::{Item, ItemKey};
use super::state::FailedItem;
use crate::backup::context::Context;
use crate::repository::store::StoreError;
use std::collections::{HashMap, HashSet};

/// The names of entries that leave a folder of the previous snapshot.
pub type Names = HashSet<Box<[u8]>>;

/// What left for sure, by the numbers of the folders.
pub type Departed = HashMap<usize, Names>;

/// How the rounds over the folders of a collection ended, by the numbers of the folders.
pub struct Rounds<I> {
    /// The rounds that are complete.
    pub complete: HashMap<usize, Listed<I>>,
    /// Folders that were gone when their rounds were to begin.
    pub gone: HashSet<usize>,
    /// Why rounds failed. Their folders stay as they were.
    pub failed: HashMap<usize, String>,
    /// Folders without a complete round that the next run lists in full.
    pub listed_anew: HashSet<usize>,
}

impl<I> Rounds<I> {
    /// Returns true if a round reported that the item is in its folder.
    pub fn have(&self, item: ItemKey) -> bool {
        self.complete.values().any(|listed| listed.rows.contains_key(&item))
    }
}

/// A complete round over a folder.
pub struct Listed<I> {
    /// True if the round listed all items, false if it listed changes.
    pub full: bool,
    /// The link for the next run, which tells changes.
    pub link: Option<String>,
    /// The area of the local state that holds the rows.
    area: u64,
    /// The items that the round listed, with their dates. The date is part of the key of a row.
    pub rows: HashMap<ItemKey, i64>,
    /// The items that left, with their ids. A full listing has none: what it does not list has left.
    pub left: HashMap<ItemKey, String>,
    /// Items that failed in the previous run, and cannot be read now either.
    pub unreadable: Vec<FailedItem>,
    /// Items that failed in the previous run, and lie in another folder now.
    pub moved: Vec<I>,
}

impl<I: Item> Listed<I> {
    /// Begins a round: a full one if `full`, else one of changes.
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

    /// Adds a row. If an item has several rows, the last one counts.
    ///
    /// # Errors
    /// If the local state fails.
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

    /// Notes that the item with the id `id` left.
    pub fn leave(&mut self, id: &str) {
        if !self.full {
            self.left.insert(ItemKey::of(id), id.to_owned());
        }
    }

    /// Removes the row of an item.
    ///
    /// # Errors
    /// If the local state fails.
    pub fn forget(&mut self, item: ItemKey, context: &Context) -> Result<(), StoreError> {
        if let Some(date) = self.rows.remove(&item) {
            context.store.local().drop_aside(self.area, &row_key(item, date))?;
        }
        Ok(())
    }

    /// Returns up to `max` rows behind the key `after`, sorted by date, and the key of the last of them.
    ///
    /// # Errors
    /// If the local state fails.
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

    /// Returns true if the round reported nothing.
    pub fn is_quiet(&self) -> bool {
        !self.full
            && self.rows.is_empty()
            && self.left.is_empty()
            && self.unreadable.is_empty()
            && self.moved.is_empty()
    }

    /// Returns true if the round reported the item with the id `id`, or that it left.
    pub fn tells_of(&self, id: &str) -> bool {
        let item = ItemKey::of(id);
        self.rows.contains_key(&item) || self.left.contains_key(&item)
    }

    /// Removes all rows from the local state.
    ///
    /// # Errors
    /// If the local state fails.
    pub fn clear(&self, context: &Context) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        Ok(context.store.local().clear_aside(Some(self.area))?)
    }
}

fn row_key(item: ItemKey, date: i64) -> Vec<u8> {
    // With the sign bit flipped, dates before 1970 come first.
    let date = (date as u64) ^ (1 << 63);
    [date.to_be_bytes().as_slice(), &item.0].concat()
}
