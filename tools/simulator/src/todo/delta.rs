//! Deltas of task lists, and of the tasks in a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::{View, check_select, task_json};
use super::lists::{self, list_json};
use super::tasks::{list_path, view_of};
use crate::delta::{Items, folders_with, read, removed, sync_state_lost};
use crate::odata::{Query, token};
use crate::server::{Answer, ApiError, Call, collection};
use crate::tenant::id::{FolderKey, IdFormat, MessageKey};
use crate::tenant::{Folder, ItemKind, Mailbox, message_id};

/// Name of the type of a list.
const LIST: &str = "todoTaskList";
/// Name of the type of a task.
const TASK: &str = "todoTask";

/// `GET /users/{u}/todo/lists/delta`. It does not tell of changes of tasks.
pub fn task_lists(call: &Call) -> Answer {
    lists::check_select(&call.query)?;
    let path = format!("users('{}')/todo/lists", call.user()?.id);
    let show = |mailbox: &Mailbox, key: FolderKey, query: &Query| {
        mailbox.folder(key).filter(|folder| folder.holds() == ItemKind::Task)?;
        if !mailbox.task_lists().contains(&key) {
            return Some(removed(LIST, mailbox.folder_id(key)));
        }
        let mut row = list_json(mailbox, key);
        query.select().retain(row.as_object_mut()?);
        row["@odata.type"] = json!("#microsoft.graph.todoTaskList");
        Some(row)
    };
    folders_with(call, &path, LIST, show, |id, held| (held == ItemKind::Task).then_some(id))
}

/// `GET /users/{u}/todo/lists/{l}/tasks/delta`
pub fn tasks(call: &Call) -> Answer {
    let list = call.with_mailbox(|mailbox| lists::resolve(call, mailbox))?;
    let shows_flagged = |mailbox: &mut Mailbox| Ok(mailbox.folder(list).is_some_and(Folder::shows_flagged));
    if call.with_mailbox(shows_flagged)? {
        return flagged(call, list);
    }
    let page = read(call, Items::Only(ItemKind::Task), |_, _| Ok(list), View::new)?;
    check_select(&page.frozen)?;
    let (path, select) = (format!("{}/tasks", list_path(call)?), page.frozen.select());
    page.answer(call, &path, TASK, |view| task_json(&call.state.tenant, view, &select))
}

/// The state in a link of the delta of flagged messages.
#[derive(Serialize, Deserialize)]
struct Token {
    generation: u64,
    list: u32,
    /// The messages that the client knows as tasks, with their moves and change numbers.
    known: BTreeMap<u32, (u32, u64)>,
    select: Option<String>,
}

/// Answers the delta of the list of flagged messages, on one page.
fn flagged(call: &Call, list: FolderKey) -> Answer {
    let before: Option<Token> = match call.query.get("$deltatoken") {
        Some(text) => {
            let bad = || ApiError::bad_request("SyncStateInvalid", "The sync state is invalid. Badly formed token.");
            Some(token::open(text).ok_or_else(bad)?)
        }
        None => None,
    };
    let select = before.as_ref().map_or_else(|| call.query.get("$select").map(str::to_owned), |one| one.select.clone());
    let mut options = Query::default();
    options.set("$select", select.clone());
    check_select(&options)?;
    let (views, guid, generation) = call.with_mailbox(|mailbox| {
        if let Some(before) = before.as_ref().filter(|one| one.generation != mailbox.generation || one.list != list.0) {
            return Err(sync_state_lost(before.generation, mailbox.generation));
        }
        let views = mailbox.tasks_in(list).into_iter().filter_map(|key| view_of(mailbox, key).ok());
        Ok((views.collect::<Vec<View>>(), mailbox.guid, mailbox.generation))
    })?;
    let known: BTreeMap<u32, (u32, u64)> =
        views.iter().map(|view| (view.key.0, (view.record.moves, view.record.change))).collect();
    let before = before.map(|before| before.known).unwrap_or_default();
    let new = views.iter().filter(|view| before.get(&view.key.0) != known.get(&view.key.0));
    let mut rows: Vec<Value> = new
        .map(|view| {
            let mut row = task_json(&call.state.tenant, view, &options.select());
            row["@odata.type"] = json!("#microsoft.graph.todoTask");
            row
        })
        .collect();
    // A message that moved is another task.
    let gone = before.iter().filter(|(key, (moves, _))| known.get(key).is_none_or(|(now, _)| now != moves));
    rows.extend(
        gone.map(|(key, (moves, _))| removed(TASK, message_id(&guid, MessageKey(*key), *moves, IdFormat::Default))),
    );
    let mut query = Query::default();
    query.set("$deltatoken", Some(token::seal(&Token { generation, list: list.0, known, select })));
    let link = call.link(&format!("{}/tasks/delta", list_path(call)?), &query);
    let context = call.context(&format!("Collection({TASK})"));
    Ok(collection(context, rows, vec![("@odata.deltaLink", json!(link))]))
}
