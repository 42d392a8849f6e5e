//! Which folders a collection has in a run, and what the snapshot before has in their place.

use super::previous::Previous;
use super::state::{CollectionState, FolderState, path_of};
use crate::backup::context::Context;
use crate::format::entry::Directory;
use crate::repository::read_error::ReadError;
use std::collections::HashMap;

/// The folders of a collection as the service has them now.
pub struct Planned {
    /// Parents before children. Links, ledgers and failures are those of the snapshot before.
    pub folders: Vec<FolderState>,
    /// Where to ask next time what became of them.
    pub link: Option<String>,
    /// The id of what the folders at the top lie in.
    pub root: Option<String>,
}

/// Whose collection it is.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// The id of the user.
    pub id: &'a str,
    /// The name of the user's folder in the snapshot.
    pub name: &'a str,
}

/// Where a collection stands in the snapshot, and what stood there before.
pub struct Standing<'a> {
    /// Whose it is.
    pub owner: Owner<'a>,
    /// Its path from the snapshot's root.
    pub path: String,
    /// Its directory in the snapshot before.
    pub base: Option<Directory>,
    /// What the snapshot before says of it.
    pub before: Option<&'a CollectionState>,
}

/// The folders of a collection in a run.
pub struct Plan<'a> {
    /// Where it stands, and what stood there before.
    pub standing: Standing<'a>,
    /// Parents before children.
    pub folders: Vec<FolderState>,
    /// Where to ask next time what became of them.
    pub link: Option<String>,
    /// The id of what the folders at the top lie in.
    pub root: Option<String>,
    numbers: HashMap<String, usize>,
}

impl<'a> Plan<'a> {
    /// Makes the plan, and finds the folders in the snapshot before. A folder is listed in full where nothing stands
    /// that changes could be applied to, and from time to time.
    ///
    /// # Errors
    /// When the snapshot before cannot be read.
    pub fn new(context: &Context, planned: Planned, standing: Standing<'a>) -> Result<(Self, Previous), ReadError> {
        let previous = match (&standing.base, standing.before) {
            (Some(base), Some(before)) => Previous::folders(&context.reader, base, &before.folders)?,
            _ => Previous::default(),
        };
        let Planned { mut folders, link, root } = planned;
        for folder in &mut folders {
            let is_due = context.started.secs - folder.listed >= context.options.listed_anew.as_secs() as i64;
            folder.link.take_if(|_| is_due || previous.folder(&folder.id).is_none());
        }
        let numbers = (0..).zip(&folders).map(|(index, folder)| (folder.id.clone(), index)).collect();
        Ok((Self { standing, folders, link, root, numbers }, previous))
    }

    /// Returns the number of the folder with this id.
    pub fn number(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    /// Returns a folder's path from the snapshot's root.
    pub fn path(&self, index: usize) -> String {
        format!("{}/{}", self.standing.path, path_of(&self.folders, index))
    }

    /// Returns the folders as the snapshot before has them.
    pub fn folders_before(&self) -> &'a [FolderState] {
        self.standing.before.map_or(&[], |before| &before.folders)
    }

    /// Returns what the snapshot before says of the folder with this id.
    pub fn folder_before(&self, id: &str) -> Option<&'a FolderState> {
        self.folders_before().iter().find(|folder| folder.id == id)
    }
}
