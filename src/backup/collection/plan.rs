//! The folders of a collection in a run, and what the previous snapshot has in their place.

use super::previous::Previous;
use super::state::{CollectionState, FolderState, path_of};
use crate::backup::context::Context;
use crate::format::entry::Directory;
use crate::repository::read_error::ReadError;
use std::collections::HashMap;

/// The folders of a collection as the service has them now.
pub struct Planned {
    /// The folders, parents before children. Links, ledgers and failures are those of the previous snapshot.
    pub folders: Vec<FolderState>,
    /// The link for the next run, which tells changes of folders.
    pub link: Option<String>,
    /// The id of what the top folders lie in.
    pub root: Option<String>,
}

/// The user to whom a collection belongs.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// The id of the user.
    pub id: &'a str,
    /// The name of the user's folder in the snapshot.
    pub name: &'a str,
}

/// Where a collection stands in the snapshot, and what stood there before.
pub struct Standing<'a> {
    /// The user to whom the collection belongs.
    pub owner: Owner<'a>,
    /// The path of the directory that holds the top folders, from the root of the snapshot. Other collections may have
    /// their top folders there, too.
    pub path: String,
    /// The names in that directory that belong to other collections. A folder that is new gets another name.
    pub taken: Vec<String>,
    /// That directory in the previous snapshot.
    pub base: Option<Directory>,
    /// The state of the collection in the previous snapshot.
    pub before: Option<&'a CollectionState>,
}

impl<'a> Standing<'a> {
    /// Returns the folders of the previous snapshot.
    pub fn folders_before(&self) -> &'a [FolderState] {
        self.before.map_or(&[], |before| &before.folders)
    }
}

/// The folders of a collection in a run.
pub struct Plan<'a> {
    /// Where the collection stands, and what stood there before.
    pub standing: Standing<'a>,
    /// The folders, parents before children.
    pub folders: Vec<FolderState>,
    /// The link for the next run, which tells changes of folders.
    pub link: Option<String>,
    /// The id of what the top folders lie in.
    pub root: Option<String>,
    numbers: HashMap<String, usize>,
}

impl<'a> Plan<'a> {
    /// Makes the plan, and finds its folders in the previous snapshot. A folder is listed in full if the previous
    /// snapshot does not have it, or if [`TenantOptions::listed_anew`](crate::backup::tenant::TenantOptions) has
    /// passed.
    ///
    /// # Errors
    /// If the previous snapshot cannot be read.
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

    /// Returns the number of the folder with the id `id`.
    pub fn number(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    /// Returns the path of a folder, from the root of the snapshot.
    pub fn path(&self, index: usize) -> String {
        format!("{}/{}", self.standing.path, path_of(&self.folders, index))
    }

    /// Returns the folders of the previous snapshot.
    pub fn folders_before(&self) -> &'a [FolderState] {
        self.standing.folders_before()
    }

    /// Returns the state that the folder with the id `id` had in the previous snapshot.
    pub fn folder_before(&self, id: &str) -> Option<&'a FolderState> {
        self.folders_before().iter().find(|folder| folder.id == id)
    }
}
