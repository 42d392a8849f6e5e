//! What the previous snapshot has of a collection: its folders, and the place of each item in them.

use super::item::{ItemKey, item_id};
use super::state::{FolderState, path_of};
use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Entries};
use std::collections::HashMap;

/// The place of an item: the number of its folder, and its own number there.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    folder: u32,
    number: u32,
}

/// A collection in the previous snapshot.
#[derive(Default)]
pub struct Previous {
    folders: Vec<(String, Directory)>,
    items: HashMap<ItemKey, Place>,
}

impl Previous {
    /// Finds the folders of `state` below `root`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn folders(reader: &Reader, root: &Directory, state: &[FolderState]) -> Result<Self, ReadError> {
        let mut folders = Vec::new();
        for (index, folder) in state.iter().enumerate() {
            let found = tree::find_path(reader, root, path_of(state, index).as_bytes())?;
            if let Some(dir) = found.as_ref().and_then(|found| found.entry().directory()) {
                folders.push((folder.id.clone(), *dir));
            }
        }
        Ok(Self { folders, items: HashMap::new() })
    }

    /// Reads the places of all items. Each takes about 30 bytes of memory.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn load_items(&mut self, reader: &Reader) -> Result<(), ReadError> {
        for (folder, (_, dir)) in (0..).zip(&self.folders) {
            for (number, found) in (0..).zip(Entries::new(reader, dir)?) {
                let found = found?;
                if let Some(id) = item_id(found.entry()) {
                    self.items.insert(ItemKey::of(id), Place { folder, number });
                }
            }
        }
        Ok(())
    }

    /// Returns the ids of the folders.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().map(|(id, _)| id.as_str())
    }

    /// Returns the directory of the folder with the id `id`.
    pub fn folder(&self, id: &str) -> Option<&Directory> {
        self.folders.iter().find(|(folder, _)| folder == id).map(|(_, dir)| dir)
    }

    /// Returns the place of an item. There are none before [`Self::load_items`].
    pub fn place(&self, item: ItemKey) -> Option<Place> {
        self.items.get(&item).copied()
    }

    /// Returns the id of the folder that a place is in.
    pub fn folder_of(&self, place: Place) -> &str {
        &self.folders[place.folder as usize].0
    }

    /// Returns the entry at a place.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn entry(&self, reader: &Reader, place: Place) -> Result<Option<Entry>, ReadError> {
        let (_, dir) = &self.folders[place.folder as usize];
        Ok(tree::nth(reader, dir, u64::from(place.number))?.map(|found| found.entry().clone()))
    }
}
