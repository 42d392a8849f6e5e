//! The calendars of a mailbox, their names in the snapshot, and which of them belong to it.
//!
//! The default calendar stands in the snapshot as [`CALENDAR`], and all others lie in it. Every run lists them, because
//! the service tells no changes of calendars.

use super::CALENDAR;
use crate::backup::collection::folder_names::FolderNames;
use crate::backup::collection::plan::{Planned, Standing};
use crate::backup::collection::state::{FolderState, Ledger, path_of};
use crate::backup::context::Context;
use crate::content::names::calendar_folder_name;
use crate::source::graph::GraphError;
use crate::source::graph::calendars::{Calendar, Calendars};

/// The well-known name of the default calendar in a state.
const DEFAULT: &str = "calendar";

/// Finds out which calendars there are, what they are called in the snapshot, and which of them belong to it.
///
/// # Errors
/// See [`GraphError`].
pub async fn plan(context: &Context, calendars: &Calendars, standing: &Standing<'_>) -> Result<Planned, GraphError> {
    let known = standing.folders_before();
    let mut listed = calendars.list().await?;
    keep_what_is_still_there(calendars, known, &mut listed).await?;
    let mut folders = in_order(&listed);
    for folder in &mut folders {
        if let Some(old) = known.iter().find(|old| old.id == folder.id) {
            *folder = FolderState {
                parent: folder.parent.take(),
                display: std::mem::take(&mut folder.display),
                well_known: folder.well_known.take(),
                ..old.clone()
            };
        }
    }
    FolderNames::new(known, &standing.taken).name(&mut folders, |folder| calendar_folder_name(&folder.display));
    let has_default = listed.first().is_some_and(|first| first.is_default_calendar == Some(true));
    select(context, &standing.path, &mut folders, has_default);
    Ok(Planned { folders, link: None, root: None })
}

/// Looks for each calendar of the previous snapshot that is not listed now. One list is not enough to remove a calendar.
/// A deleted calendar may still be found by its id, because it lies in Deleted Items. So the calendars are listed once
/// more if one is.
async fn keep_what_is_still_there(
    calendars: &Calendars,
    known: &[FolderState],
    listed: &mut Vec<Calendar>,
) -> Result<(), GraphError> {
    let mut again: Option<Vec<Calendar>> = None;
    for folder in known.iter().filter(|folder| folder.id != DEFAULT) {
        if listed.iter().any(|now| now.id == folder.id) || calendars.calendar(&folder.id).await?.is_none() {
            continue;
        }
        let second = match &again {
            Some(second) => second,
            None => again.insert(calendars.list().await?),
        };
        listed.extend(second.iter().find(|now| now.id == folder.id).cloned());
    }
    Ok(())
}

/// Returns the states of the calendars: the default one first, and all others in it.
fn in_order(listed: &[Calendar]) -> Vec<FolderState> {
    let (default, others) = match listed.split_first() {
        Some((first, others)) if first.is_default_calendar == Some(true) => (Some(first), others),
        _ => (None, listed),
    };
    // Without a default calendar there are no events of its own. Its state only leads to the calendars in it.
    let top = default.map_or(DEFAULT, |default| &default.id);
    let mut ordered = vec![FolderState {
        id: top.to_owned(),
        display: CALENDAR.to_owned(),
        well_known: Some(DEFAULT.to_owned()),
        ..FolderState::default()
    }];
    let mut others: Vec<_> = others.iter().collect();
    others.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    ordered.extend(others.into_iter().map(|calendar| FolderState {
        id: calendar.id.clone(),
        parent: Some(top.to_owned()),
        display: calendar.name.clone().unwrap_or_default(),
        ..FolderState::default()
    }));
    ordered
}

/// Decides which calendars belong to the snapshot. `has_default` is false if there is no default calendar.
fn select(context: &Context, root: &str, folders: &mut [FolderState], has_default: bool) {
    for index in 0..folders.len() {
        let path = path_of(folders, index);
        // Patterns mean the calendars by their usual name, even if a mail folder took that name first.
        let (_, below) = path.split_once('/').map_or(("", String::new()), |(top, below)| (top, format!("/{below}")));
        let (path, usual) = (format!("{root}/{path}"), format!("{root}/{CALENDAR}{below}"));
        let selected = context.options.selection.selects_either(&path, &usual) && (has_default || index > 0);
        let folder = &mut folders[index];
        if !(selected && folder.selected) {
            // What the previous snapshot does not have cannot be continued from there.
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
    use serde_json::json;

    fn calendar(id: &str, is_default: bool) -> Calendar {
        serde_json::from_value(json!({ "id": id, "name": id, "isDefaultCalendar": is_default })).unwrap()
    }

    #[test]
    fn every_calendar_lies_in_the_default_one() {
        let ordered = |listed: &[Calendar]| -> Vec<_> {
            in_order(listed).into_iter().map(|folder| (folder.id, folder.parent)).collect()
        };
        let pair = |id: &str, parent: Option<&str>| (id.to_owned(), parent.map(str::to_owned));
        let expected = [pair("top", None), pair("a", Some("top")), pair("b", Some("top"))];
        assert_eq!(ordered(&[calendar("top", true), calendar("b", false), calendar("a", false)]), expected);
        assert_eq!(ordered(&[calendar("b", false)]), [pair("calendar", None), pair("b", Some("calendar"))]);
    }
}
