//! The lists of tasks of a user, their names in the snapshot, and which of them belong to it.
//!
//! The service has no folder that holds the lists. In the snapshot they lie in [`TASKS`].

use super::TASKS;
use crate::backup::collection::folder_names::FolderNames;
use crate::backup::collection::plan::{Planned, Standing};
use crate::backup::collection::state::{FolderState, Ledger, path_of};
use crate::backup::context::Context;
use crate::content::names::task_list_name;
use crate::source::graph::GraphError;
use crate::source::graph::tasks::{TaskList, Tasks};

/// The id of the folder that holds the lists. No list has it: the ids of the service are long.
pub const ROOT: &str = "tasks";

/// Finds out which lists there are, what they are called in the snapshot, and which of them belong to it.
///
/// # Errors
/// See [`GraphError`].
pub async fn plan(context: &Context, tasks: &Tasks, standing: &Standing<'_>) -> Result<Planned, GraphError> {
    let known = standing.folders_before();
    let mut listed = tasks.lists().await?;
    // A listing that was cut short takes nothing away.
    for folder in known.iter().filter(|folder| folder.id != ROOT) {
        if !listed.iter().any(|list| list.id == folder.id) {
            listed.extend(tasks.list(&folder.id).await?);
        }
    }
    // They are in the backup of their owner.
    listed.retain(|list| !list.is_of_others());
    listed.sort_by(|a, b| (&a.display_name, &a.id).cmp(&(&b.display_name, &b.id)));
    let root = FolderState { id: ROOT.to_owned(), display: TASKS.to_owned(), ..FolderState::default() };
    let mut folders: Vec<_> = std::iter::once(root).chain(listed.into_iter().map(state_of)).collect();
    for folder in &mut folders {
        if let Some(old) = known.iter().find(|old| old.id == folder.id) {
            let FolderState { parent, display, well_known, .. } = std::mem::take(folder);
            *folder = FolderState { parent, display, well_known, ..old.clone() };
        }
    }
    FolderNames::new(known, &standing.taken).name(&mut folders, |folder| task_list_name(&folder.display));
    select(context, &standing.path, &mut folders);
    Ok(Planned { folders, link: None, root: Some(ROOT.to_owned()) })
}

fn state_of(list: TaskList) -> FolderState {
    FolderState {
        id: list.id,
        parent: Some(ROOT.to_owned()),
        display: list.display_name.unwrap_or_default(),
        well_known: list.wellknown_list_name.filter(|name| name != "none"),
        ..FolderState::default()
    }
}

/// Decides which lists belong to the snapshot.
fn select(context: &Context, root: &str, folders: &mut [FolderState]) {
    for index in 0..folders.len() {
        let path = path_of(folders, index);
        // Patterns mean the tasks by their usual name, even if a mail folder took that name first.
        let (_, below) = path.split_once('/').map_or(("", String::new()), |(top, below)| (top, format!("/{below}")));
        let (path, usual) = (format!("{root}/{path}"), format!("{root}/{TASKS}{below}"));
        // The folder that holds the lists has no tasks of its own.
        let selected = folders[index].id != ROOT && context.options.selection.selects_either(&path, &usual);
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
