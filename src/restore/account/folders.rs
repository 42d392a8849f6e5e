//! Which folders of the target correspond to folders of the snapshot. They are found by their well-known names, then by
//! their names, and created if they are missing.
//!
//! A folder that every mailbox has is found by its well-known name, whatever it is called (Graph: mailFolder). Nothing
//! is put into folders in which the service acts by itself: their items go to an ordinary folder with a similar name.

use super::route::Named;
use super::target::{ChildFolder, FolderRule, Target};
use crate::source::graph::GraphError;
use crate::source::graph::write::same_name;
use std::collections::HashMap;
use std::sync::Arc;

/// A folder of the target that corresponds to a folder of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MappedFolder {
    /// The id. `None` in a dry run if the folder does not exist yet.
    pub id: Option<String>,
    /// True if this run created it, so that it must be empty.
    pub is_new: bool,
}

impl MappedFolder {
    const ABSENT: Self = Self { id: None, is_new: true };

    fn existing(id: &str) -> Self {
        Self { id: Some(id.to_owned()), is_new: false }
    }
}

/// The folders of one mailbox.
pub(super) struct Folders<T> {
    target: Arc<T>,
    /// False in a dry run.
    creates: bool,
    /// The ids of the folders that have a well-known name.
    well_known: Arc<HashMap<&'static str, String>>,
    /// The path of the folder that everything is put below. Empty for the root.
    into: Vec<String>,
    /// The folders in a folder, by its id. Each folder is listed once.
    children: HashMap<String, Vec<ChildFolder>>,
    /// The number of folders that were created, or would be.
    pub created: u64,
}

impl<T: Target> Folders<T> {
    /// Finds the folders that have a well-known name. `creates` is false in a dry run.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn new(target: Arc<T>, into: &[String], creates: bool) -> Result<Self, GraphError> {
        let well_known = target.well_known_folders().await?;
        Ok(Self { target, creates, well_known, into: into.to_vec(), children: HashMap::new(), created: 0 })
    }

    /// Returns true if everything goes below a folder that the user named.
    pub fn has_own_root(&self) -> bool {
        !self.into.is_empty()
    }

    /// Returns the folder that everything goes below.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn root(&mut self) -> Result<MappedFolder, GraphError> {
        let root = self.well_known.get(T::ROOT);
        let mut folder =
            MappedFolder::existing(root.ok_or_else(|| GraphError::malformed("finding well-known folders"))?);
        for (number, name) in self.into.clone().into_iter().enumerate() {
            // `--to TENANT:Users/NAME/Outlook/Inbox` means the inbox, whatever it is called.
            let well_known = (number == 0).then(|| T::folder_meant(&name)).flatten();
            folder = match well_known.and_then(|known| self.well_known.get(known)) {
                Some(id) => MappedFolder::existing(id),
                None => self.called(&folder, &name).await?,
            };
        }
        Ok(folder)
    }

    /// Returns the folder that corresponds to `folder` of the snapshot, in `parent`. `is_empty` says that nothing will
    /// be put into it.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn below(
        &mut self,
        parent: &MappedFolder,
        folder: &Named,
        is_empty: bool,
    ) -> Result<MappedFolder, GraphError> {
        let rule = folder.well_known.as_deref().map_or(FolderRule::SameName, T::folder_rule);
        match (rule, folder.well_known.as_deref().and_then(|known| self.well_known.get(known))) {
            (FolderRule::SameWellKnown, Some(id)) if self.into.is_empty() => Ok(MappedFolder::existing(id)),
            (FolderRule::Apart, _) if is_empty => Ok(MappedFolder::ABSENT),
            (FolderRule::Apart, _) => self.called(parent, &format!("{} (restored)", folder.display)).await,
            _ => self.called(parent, &folder.display).await,
        }
    }

    /// Returns the folder called `name` in `parent`. Creates it if it is missing.
    async fn called(&mut self, parent: &MappedFolder, name: &str) -> Result<MappedFolder, GraphError> {
        let Some(above) = parent.id.clone() else {
            self.created += 1;
            return Ok(MappedFolder::ABSENT);
        };
        if !self.children.contains_key(&above) {
            let children = match parent.is_new {
                true => Vec::new(),
                false => self.target.child_folders(&above).await?,
            };
            self.children.insert(above.clone(), children);
        }
        let children = self.children.get_mut(&above).expect("listed above");
        let exact = children.iter().find(|child| child.name == name);
        if let Some(child) = exact.or_else(|| children.iter().find(|child| same_name(&child.name, name))) {
            return Ok(MappedFolder::existing(&child.id));
        }
        self.created += 1;
        if !self.creates {
            return Ok(MappedFolder::ABSENT);
        }
        let made = self.target.make_folder(&above, name).await?;
        children.push(ChildFolder { id: made.id.clone(), name: name.to_owned() });
        Ok(MappedFolder { id: Some(made.id), is_new: made.is_new })
    }
}
