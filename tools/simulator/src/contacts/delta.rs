//! Deltas of the contacts in a folder, and of folders for contacts.

use super::folders::{check_select, find, folder_json};
use super::json::{Shape, View};
use crate::delta::{Items, folders_with, read, removed};
use crate::odata::Query;
use crate::server::{Answer, Call};
use crate::tenant::id::FolderKey;
use crate::tenant::{Folder, ItemKind, Mailbox};

/// Name of the type of a folder.
const FOLDER: &str = "contactFolder";

/// `GET /users/{u}/contactFolders/{f}/contacts/delta`
pub fn contacts(call: &Call) -> Answer {
    let user = call.user()?;
    let page = read(call, Items::Only(ItemKind::Contact), find, View::new)?;
    let shape = Shape::new(call, &page.frozen)?;
    let folder = call.with_mailbox(|mailbox| Ok(mailbox.folder_id(page.folder)))?;
    let path = format!("users('{}')/contactFolders('{folder}')/contacts", user.id);
    page.answer(call, &path, "contact", |view| shape.contact(view))
}

/// `GET /users/{u}/contactFolders/delta`: all folders in the default folder, at every depth
pub fn folders(call: &Call) -> Answer {
    let path = format!("users('{}')/contactFolders", call.user()?.id);
    check_select(&call.query)?;
    let hidden = call.state.tenant.switches().machine_made_contact_folders;
    let show = |mailbox: &Mailbox, key: FolderKey, query: &Query| {
        let default = mailbox.well_known("contacts")?;
        let folder: &Folder = mailbox.folder(key).filter(|folder| folder.holds_contacts())?;
        if key == default || (folder.hidden && !hidden) {
            return None;
        }
        if !mailbox.lies_in(key, default) {
            return Some(removed(FOLDER, mailbox.folder_id(key)));
        }
        let mut row = folder_json(mailbox, key);
        query.select().retain(row.as_object_mut()?);
        Some(row)
    };
    folders_with(call, &path, FOLDER, show, |id, held| (held == ItemKind::Contact).then_some(id))
}
