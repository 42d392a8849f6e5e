//! The contact folders of a mailbox, their names in the snapshot, and which of them belong to it.
//!
//! The default folder stands in the snapshot as [`CONTACTS`], and all others lie in it. Its id is asked for once, as it
//! never changes. The others are listed by every run, because the service tells no changes of nested folders.

use super::CONTACTS;
use crate::backup::collection::folder_names::FolderNames;
use crate::backup::collection::plan::{Planned, Standing};
use crate::backup::collection::state::{FolderState, Ledger, path_of};
use crate::backup::context::Context;
use crate::content::names::contact_folder_name;
use crate::source::graph::GraphError;
use crate::source::graph::contacts::{ContactFolder, Contacts, DEFAULT_FOLDER};
use std::collections::{HashMap, HashSet};

/// Finds out which folders there are, what they are called in the snapshot, and which of them belong to it.
///
/// # Errors
/// See [`GraphError`].
pub async fn plan(context: &Context, contacts: &Contacts, standing: &Standing<'_>) -> Result<Planned, GraphError> {
    let known = standing.folders_before();
    let default = match known.iter().find(|folder| is_default(folder) && folder.id != DEFAULT_FOLDER) {
        Some(before) => Some(before.id.clone()),
        None => contacts.default_folder().await?.map(|folder| folder.id),
    };
    let nested = known.iter().filter(|folder| !is_default(folder)).map(|folder| folder.id.as_str());
    let mut listed = contacts.folders(default.as_deref(), &nested.collect::<Vec<_>>()).await?;
    keep_what_is_still_there(contacts, known, default.as_deref(), &mut listed).await?;
    let mut folders = in_order(default.as_deref(), &listed);
    for folder in &mut folders {
        if let Some(old) = known.iter().find(|old| old.id == folder.id) {
            *folder = FolderState {
                parent: folder.parent.take(),
                display: std::mem::take(&mut folder.display),
                ..old.clone()
            };
        }
    }
    FolderNames::new(known, &standing.taken).name(&mut folders, |folder| contact_folder_name(&folder.display));
    select(context, &standing.path, &mut folders, default.is_some());
    Ok(Planned { folders, link: None, root: None })
}

fn is_default(folder: &FolderState) -> bool {
    folder.well_known.as_deref() == Some(DEFAULT_FOLDER)
}

/// Asks for each folder of the previous snapshot that is not listed now. A listing that was cut short takes nothing
/// away. A folder that was moved to Deleted Items still exists, but lies in no contact folder.
async fn keep_what_is_still_there(
    contacts: &Contacts,
    known: &[FolderState],
    default: Option<&str>,
    listed: &mut Vec<ContactFolder>,
) -> Result<(), GraphError> {
    for folder in known.iter().filter(|folder| !is_default(folder)) {
        if listed.iter().any(|now| now.id == folder.id) {
            continue;
        }
        let mut found = contacts.folder(&folder.id).await?;
        // Parents come before their children in `known`, and are in `listed` by now if they still exist.
        let is_placed = |found: &ContactFolder| {
            let parent = found.parent_folder_id.as_deref();
            default.is_none() || parent == default || listed.iter().any(|now| Some(now.id.as_str()) == parent)
        };
        found.take_if(|found| !is_placed(found));
        listed.extend(found);
    }
    Ok(())
}

/// Sorts the folders so that parents stand before their children. The default folder is the only one at the top: what
/// lies in no other folder lies in that one.
fn in_order(default: Option<&str>, listed: &[ContactFolder]) -> Vec<FolderState> {
    // Without an id, the default folder has no contacts. Its state only leads to the folders in it.
    let top = default.unwrap_or(DEFAULT_FOLDER);
    let ids: HashSet<&str> = listed.iter().map(|folder| folder.id.as_str()).collect();
    let mut below: HashMap<&str, Vec<&ContactFolder>> = HashMap::new();
    for folder in listed {
        let parent = folder.parent_folder_id.as_deref().filter(|parent| ids.contains(parent) && *parent != folder.id);
        below.entry(parent.unwrap_or(top)).or_default().push(folder);
    }
    let mut ordered = vec![FolderState {
        id: top.to_owned(),
        display: CONTACTS.to_owned(),
        well_known: Some(DEFAULT_FOLDER.to_owned()),
        ..FolderState::default()
    }];
    let mut placed: HashSet<&str> = HashSet::from([top]);
    let mut parents = vec![top];
    loop {
        while let Some(parent) = parents.pop() {
            let mut children = below.remove(parent).unwrap_or_default();
            children.sort_by(|a, b| (&a.display_name, &a.id).cmp(&(&b.display_name, &b.id)));
            for child in children.into_iter().filter(|child| placed.insert(&child.id)) {
                ordered.push(state_of(child, parent));
                parents.push(&child.id);
            }
        }
        // Folders that lie in each other hang from nothing. The first of them is put into the default folder.
        let Some(stray) = listed.iter().find(|folder| placed.insert(&folder.id)) else { return ordered };
        ordered.push(state_of(stray, top));
        parents.push(&stray.id);
    }
}

fn state_of(folder: &ContactFolder, parent: &str) -> FolderState {
    FolderState {
        id: folder.id.clone(),
        parent: Some(parent.to_owned()),
        display: folder.display_name.clone().unwrap_or_default(),
        ..FolderState::default()
    }
}

/// Decides which folders belong to the snapshot. `has_default` is false if the default folder has no id.
fn select(context: &Context, root: &str, folders: &mut [FolderState], has_default: bool) {
    for index in 0..folders.len() {
        let path = path_of(folders, index);
        // Patterns mean the contacts by their usual name, even if a mail folder took that name first.
        let (_, below) = path.split_once('/').map_or(("", String::new()), |(top, below)| (top, format!("/{below}")));
        let (path, usual) = (format!("{root}/{path}"), format!("{root}/{CONTACTS}{below}"));
        let selected = context.options.selection.selects_either(&path, &usual) && (has_default || index > 0);
        let folder = &mut folders[index];
        if !(selected && folder.selected) {
            // What the previous snapshot does not have cannot be continued from there.
            folder.link = None;
            folder.failed.clear();
            folder.error = None;
            folder.ledger = Ledger::default();
        }
        folder.selected = selected;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(id: &str, parent: Option<&str>) -> ContactFolder {
        ContactFolder {
            id: id.to_owned(),
            display_name: Some(id.to_owned()),
            parent_folder_id: parent.map(str::to_owned),
        }
    }

    fn ordered(default: Option<&str>, listed: &[ContactFolder]) -> Vec<(String, Option<String>)> {
        in_order(default, listed).into_iter().map(|folder| (folder.id, folder.parent)).collect()
    }

    fn pairs(expected: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        expected.iter().map(|(id, parent)| ((*id).to_owned(), parent.map(str::to_owned))).collect()
    }

    #[test]
    fn every_folder_lies_below_the_default_one() {
        let listed = [folder("b", Some("a")), folder("a", Some("top")), folder("c", Some("root")), folder("d", None)];
        let expected = [("top", None), ("a", Some("top")), ("c", Some("top")), ("d", Some("top")), ("b", Some("a"))];
        assert_eq!(ordered(Some("top"), &listed), pairs(&expected));
        let expected = [("contacts", None), ("a", Some("contacts")), ("c", Some("contacts")), ("d", Some("contacts"))];
        assert_eq!(ordered(None, &listed)[..4], pairs(&expected));
        assert_eq!(ordered(None, &[]), pairs(&[("contacts", None)]));
    }

    #[test]
    fn folders_that_lie_in_each_other_are_not_lost() {
        let listed = [folder("a", Some("b")), folder("b", Some("a")), folder("c", Some("c"))];
        let expected = [("top", None), ("c", Some("top")), ("a", Some("top")), ("b", Some("a"))];
        assert_eq!(ordered(Some("top"), &listed), pairs(&expected));
    }
}
