//! The folders of a mailbox: one tree for all kinds of items.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{FolderEvent, Mailbox, MailboxError, ROOT};
use crate::tenant::folder::{CalendarFacts, Folder, Search};
use crate::tenant::id::{FolderKey, Named};
use crate::tenant::locale::UNNAMED;
use crate::tenant::message::ItemKind;

impl Mailbox {
    /// Returns a folder.
    pub fn folder(&self, key: FolderKey) -> Option<&Folder> {
        self.folders.get(key.0 as usize)?.as_ref()
    }

    pub(super) fn folder_mut(&mut self, key: FolderKey) -> Option<&mut Folder> {
        self.folders.get_mut(key.0 as usize)?.as_mut()
    }

    /// Returns every folder.
    pub fn folders(&self) -> impl Iterator<Item = (FolderKey, &Folder)> {
        self.folders
            .iter()
            .enumerate()
            .filter_map(|(key, folder)| Some((FolderKey(u32::try_from(key).ok()?), folder.as_ref()?)))
    }

    /// Returns the folder with this well-known name; case does not matter.
    pub fn well_known(&self, name: &str) -> Option<FolderKey> {
        self.folders()
            .find(|(_, folder)| folder.well_known.is_some_and(|known| known.eq_ignore_ascii_case(name)))
            .map(|(key, _)| key)
    }

    /// Returns the folder with this id or well-known name.
    pub fn resolve_folder(&self, id_or_name: &str) -> Option<FolderKey> {
        match Named::decode(id_or_name, &self.guid) {
            Some(Named::Folder(key)) => self.folder(key).map(|_| key),
            _ if UNNAMED.iter().any(|name| name.eq_ignore_ascii_case(id_or_name)) => None,
            _ => self.well_known(id_or_name),
        }
    }

    /// Returns whether `inner` is `outer` or inside it.
    pub fn lies_in(&self, inner: FolderKey, outer: FolderKey) -> bool {
        let mut at = Some(inner);
        while let Some(key) = at {
            if key == outer {
                return true;
            }
            at = self.folder(key).and_then(|folder| folder.parent);
        }
        false
    }

    /// Returns `key` and every folder inside it, parents before children.
    pub fn subtree(&self, key: FolderKey) -> Vec<FolderKey> {
        let mut found = vec![key];
        let mut at = 0;
        while at < found.len() {
            found.extend(self.folder(found[at]).map(|folder| folder.children.clone()).unwrap_or_default());
            at += 1;
        }
        found
    }

    /// Adds a folder under `parent`.
    ///
    /// # Errors
    /// [`MailboxError::FolderExists`] if a sibling has the same name in any case; [`MailboxError::NotFound`] if
    /// `parent` does not exist.
    pub fn add_folder(&mut self, parent: FolderKey, name: &str, hidden: bool) -> Result<FolderKey, MailboxError> {
        self.check_name(parent, name, None)?;
        Ok(self.insert_folder(Folder { hidden, ..Folder::new(name, Some(parent)) }))
    }

    /// Adds a search folder under `parent`.
    ///
    /// # Errors
    /// Those of [`Self::add_folder`].
    pub fn add_search_folder(
        &mut self,
        parent: FolderKey,
        name: &str,
        search: Search,
    ) -> Result<FolderKey, MailboxError> {
        self.check_name(parent, name, None)?;
        Ok(self.insert_folder(Folder { search: Some(search), ..Folder::new(name, Some(parent)) }))
    }

    /// Adds a folder without checking the names of its siblings: old mailboxes contain siblings whose names differ only
    /// in case.
    pub fn insert_folder(&mut self, folder: Folder) -> FolderKey {
        let key = FolderKey(u32::try_from(self.folders.len()).expect("fewer than four billion folders"));
        let parent = folder.parent;
        self.folders.push(Some(folder));
        if let Some(parent) = parent.and_then(|parent| self.folder_mut(parent)) {
            parent.children.push(key);
        }
        self.touch_folder(key);
        key
    }

    fn check_name(&self, parent: FolderKey, name: &str, except: Option<FolderKey>) -> Result<(), MailboxError> {
        let parent = self.folder(parent).ok_or(MailboxError::NotFound)?;
        let taken = parent
            .children
            .iter()
            .filter(|child| Some(**child) != except)
            .any(|child| self.folder(*child).is_some_and(|child| child.name.to_lowercase() == name.to_lowercase()));
        if taken { Err(MailboxError::FolderExists) } else { Ok(()) }
    }

    /// Records in the log that a folder changed.
    pub fn touch_folder(&mut self, key: FolderKey) {
        let change = self.next_change();
        let position = u32::try_from(self.folder_log.len()).expect("fewer than four billion changes");
        self.folder_log.push(FolderEvent::Changed(key));
        if let Some(folder) = self.folder_mut(key) {
            (folder.change, folder.log_position) = (change, position);
        }
    }

    /// Renames a folder.
    ///
    /// # Errors
    /// [`MailboxError::Refused`] for well-known folders, [`MailboxError::FolderExists`] if a sibling has the name.
    pub fn rename_folder(&mut self, key: FolderKey, name: &str) -> Result<(), MailboxError> {
        let folder = self.folder(key).ok_or(MailboxError::NotFound)?;
        let parent = folder.parent.filter(|_| folder.well_known.is_none()).ok_or(MailboxError::Refused)?;
        self.check_name(parent, name, Some(key))?;
        self.folder_mut(key).ok_or(MailboxError::NotFound)?.name = name.to_owned();
        self.touch_folder(key);
        Ok(())
    }

    /// Sets the container class of a folder, such as `IPF.Contact`.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the folder does not exist.
    pub fn set_folder_class(&mut self, key: FolderKey, class: String) -> Result<(), MailboxError> {
        self.folder_mut(key).ok_or(MailboxError::NotFound)?.class = class;
        Ok(())
    }

    /// Sets what a calendar has besides its name.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the folder does not exist.
    pub fn set_calendar_facts(&mut self, key: FolderKey, facts: CalendarFacts) -> Result<(), MailboxError> {
        self.folder_mut(key).ok_or(MailboxError::NotFound)?.calendar = facts;
        self.touch_folder(key);
        Ok(())
    }

    /// Sets an extended property of a folder.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if the folder does not exist.
    pub fn set_folder_property(&mut self, key: FolderKey, id: String, value: Value) -> Result<(), MailboxError> {
        self.folder_mut(key).ok_or(MailboxError::NotFound)?.extended.insert(id, value);
        self.touch_folder(key);
        Ok(())
    }

    /// Moves a folder with its content. It keeps its id. If its name already exists there, a number is appended.
    ///
    /// # Errors
    /// [`MailboxError::Refused`] for well-known folders and for moves into itself.
    pub fn move_folder(&mut self, key: FolderKey, target: FolderKey) -> Result<(), MailboxError> {
        let folder = self.folder(key).ok_or(MailboxError::NotFound)?;
        self.folder(target).ok_or(MailboxError::NotFound)?;
        let parent = folder.parent.filter(|_| folder.well_known.is_none()).ok_or(MailboxError::Refused)?;
        if self.lies_in(target, key) {
            return Err(MailboxError::Refused);
        }
        self.check_name(target, &folder.name, Some(key))?;
        if let Some(parent) = self.folder_mut(parent) {
            parent.children.retain(|child| *child != key);
        }
        if let Some(target) = self.folder_mut(target) {
            target.children.push(key);
        }
        if let Some(folder) = self.folder_mut(key) {
            folder.parent = Some(target);
        }
        self.touch_folder(key);
        Ok(())
    }

    /// Moves a folder like [`Self::move_folder`], under a new name if its name already exists there.
    ///
    /// # Errors
    /// [`MailboxError::Refused`] for well-known folders and for moves into itself.
    pub fn discard_folder(&mut self, key: FolderKey, target: FolderKey) -> Result<(), MailboxError> {
        let name = self.folder(key).ok_or(MailboxError::NotFound)?.name.clone();
        for number in 1.. {
            match self.move_folder(key, target) {
                Err(MailboxError::FolderExists) => {
                    let folder = self.folder_mut(key).ok_or(MailboxError::NotFound)?;
                    folder.name = format!("{name}{number}");
                }
                result => return result,
            }
        }
        unreachable!("some number is free")
    }

    /// Removes a folder with its content permanently.
    ///
    /// # Errors
    /// [`MailboxError::Refused`] for well-known folders.
    pub fn remove_folder(&mut self, key: FolderKey) -> Result<(), MailboxError> {
        let folder = self.folder(key).ok_or(MailboxError::NotFound)?;
        let parent = folder.parent.filter(|_| folder.well_known.is_none()).ok_or(MailboxError::Refused)?;
        if let Some(parent) = self.folder_mut(parent) {
            parent.children.retain(|child| *child != key);
        }
        let subtree: BTreeSet<FolderKey> = self.subtree(key).into_iter().collect();
        for slot in &mut self.messages {
            if let Some(record) = slot.take_if(|record| subtree.contains(&record.folder)) {
                self.live -= usize::from(record.kind() == ItemKind::Message);
            }
        }
        for gone in subtree {
            let folder = self.folders[gone.0 as usize].take();
            let held = folder.map_or(ItemKind::Message, |folder| folder.holds());
            self.next_change();
            self.folder_log.push(FolderEvent::Removed(gone, held));
        }
        Ok(())
    }

    /// Returns the log of folders, oldest event first.
    pub fn folder_log(&self) -> &[FolderEvent] {
        &self.folder_log
    }

    /// Returns the names on the path to a folder, from the top folder that the user sees, or from the root for folders
    /// outside of that.
    pub fn path(&self, key: FolderKey) -> Vec<String> {
        let top = self.well_known("msgfolderroot");
        let mut names = Vec::new();
        let mut at = Some(key);
        while let Some(key) = at.filter(|key| *key != ROOT && Some(*key) != top) {
            let Some(folder) = self.folder(key) else { break };
            names.push(folder.name.clone());
            at = folder.parent;
        }
        names.reverse();
        names
    }
}
