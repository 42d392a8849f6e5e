//! Names the folders of a collection in the snapshot.

use super::state::FolderState;
use crate::backup::context::REPORT_NAME;
use crate::content::names::UniqueNames;
use std::collections::HashMap;

/// Gives folders names that differ within the folder that they lie in.
pub struct FolderNames<'a> {
    before: &'a [FolderState],
    /// Names of top folders that others have.
    taken: &'a [String],
}

impl<'a> FolderNames<'a> {
    /// `before` are the folders of the previous snapshot. New top folders get no name in `taken`, which are those of
    /// other collections in the same directory.
    pub fn new(before: &'a [FolderState], taken: &'a [String]) -> Self {
        Self { before, taken }
    }

    /// Names the folders. A folder keeps its name as long as its display name and its place are the same; any other
    /// folder gets the name that `wanted` returns, with a number if that is taken.
    pub fn name(&self, folders: &mut [FolderState], wanted: impl Fn(&FolderState) -> String) {
        let mut names: HashMap<Option<String>, UniqueNames> = HashMap::new();
        for folder in &mut *folders {
            let in_parent = names.entry(folder.parent.clone()).or_insert_with(|| {
                let mut names = UniqueNames::new();
                names.reserve(REPORT_NAME);
                names
            });
            folder.name = self.name_before(folder).filter(|name| in_parent.reserve(name)).unwrap_or_default();
        }
        if let Some(tops) = names.get_mut(&None) {
            self.taken.iter().for_each(|name| _ = tops.reserve(name));
        }
        for folder in folders.iter_mut().filter(|folder| folder.name.is_empty()) {
            let in_parent = names.get_mut(&folder.parent).expect("the loop above met every parent");
            folder.name = in_parent.claim(&wanted(folder));
        }
    }

    fn name_before(&self, folder: &FolderState) -> Option<String> {
        let is_it =
            |old: &&FolderState| old.id == folder.id && old.display == folder.display && old.parent == folder.parent;
        self.before.iter().find(is_it).map(|old| old.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(id: &str, parent: Option<&str>, display: &str) -> FolderState {
        let (id, parent, display) = (id.to_owned(), parent.map(str::to_owned), display.to_owned());
        FolderState { id, parent, display, ..FolderState::default() }
    }

    fn named(folders: &[FolderState], before: &[FolderState], taken: &[&str]) -> Vec<FolderState> {
        let taken: Vec<_> = taken.iter().map(|name| (*name).to_owned()).collect();
        let mut folders = folders.to_vec();
        FolderNames::new(before, &taken).name(&mut folders, |folder| folder.display.clone());
        folders
    }

    fn names(folders: &[FolderState]) -> Vec<&str> {
        folders.iter().map(|folder| folder.name.as_str()).collect()
    }

    #[test]
    fn a_new_top_folder_does_not_take_a_name_of_another_collection() {
        let folders = [folder("1", None, "contacts"), folder("2", Some("1"), "Contacts"), folder("3", None, "Inbox")];
        assert_eq!(names(&named(&folders, &[], &["Contacts"])), ["contacts (2)", "Contacts", "Inbox"]);
        let before = named(&folders, &[], &[]);
        assert_eq!(names(&named(&folders, &before, &["Contacts"])), ["contacts", "Contacts", "Inbox"], "names stay");
    }

    #[test]
    fn a_folder_that_is_renamed_or_moved_gets_a_new_name() {
        let before = named(&[folder("1", None, "a"), folder("2", None, "a"), folder("3", None, "b")], &[], &[]);
        assert_eq!(names(&before), ["a", "a (2)", "b"]);
        let now = [folder("2", None, "a"), folder("3", Some("2"), "b"), folder("1", None, "b")];
        assert_eq!(names(&named(&now, &before, &[])), ["a (2)", "b", "b"]);
    }
}
