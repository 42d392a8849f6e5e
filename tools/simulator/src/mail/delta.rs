//! Deltas of the messages in a folder, and of mail folders.

use super::folders::{self, check_select, folder_json};
use super::json::{Shape, View};
use super::paths::find_folder;
use crate::delta::{Items, folders_with, read};
use crate::odata::Query;
use crate::server::{Answer, Call};
use crate::tenant::id::FolderKey;
use crate::tenant::{ItemKind, Mailbox};

/// `GET /users/{u}/mailFolders/{f}/messages/delta`
pub fn messages(call: &Call) -> Answer {
    let user = call.user()?;
    let page = read(call, Items::Only(ItemKind::Message), find_folder, View::new)?;
    let tenant = &call.state.tenant;
    let shape = Shape::new(call, &page.frozen)?;
    let folder = call.with_mailbox(|mailbox| Ok(mailbox.folder_id(page.folder)))?;
    let path = format!("users('{}')/mailFolders('{folder}')/messages", user.id);
    page.answer(call, &path, "message", |view| shape.message(tenant, view))
}

/// `GET /users/{u}/mailFolders/delta`
pub fn folders(call: &Call) -> Answer {
    let path = format!("users('{}')/mailFolders", call.user()?.id);
    // In later calls the token contains the options of the first call.
    check_select(call, &call.query)?;
    let show = |mailbox: &Mailbox, key: FolderKey, query: &Query| {
        let hidden = query.is_true("includeHiddenFolders");
        let listed = mailbox.folder(key).is_some_and(|folder| folders::is_listed(folder, hidden));
        listed.then(|| folder_json(call, mailbox, key, &query.select(), query))
    };
    folders_with(call, &path, "mailFolder", show, |id, held| (held == ItemKind::Message).then_some(id))
}
