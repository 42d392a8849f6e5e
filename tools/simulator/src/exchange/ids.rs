//! The ids that this API has for mailboxes and folders.

use crate::server::ApiError;
use crate::tenant::Tenant;
use crate::tenant::id::MailboxGuid;

/// How folder ids of this API begin. The rest of an id is the same as in `mailFolders`.
const ID_PREFIX: &str = "NJWt";
/// How folder ids of `mailFolders` begin.
const MAIL_FOLDER_ID_PREFIX: &str = "AQMk";

/// Returns the id of a mailbox in this API.
pub fn mailbox_id(guid: &MailboxGuid, tenant: &Tenant) -> String {
    let hex: String = guid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("MBX:{}-{}-{}-{}-{}@{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..], tenant.id)
}

/// Returns the id of the user whose mailbox has this id.
pub fn owner(tenant: &Tenant, id: &str) -> Option<String> {
    let users = tenant.users();
    let found = users.iter().find(|user| {
        user.mailbox().is_some_and(|mailbox| {
            let guid = mailbox.lock().guid;
            mailbox_id(&guid, tenant).eq_ignore_ascii_case(id)
        })
    })?;
    Some(found.id.clone())
}

/// Converts a folder id of `mailFolders` to one of this API.
pub(super) fn to_exchange_id(id: &str) -> String {
    id.replacen(MAIL_FOLDER_ID_PREFIX, ID_PREFIX, 1)
}

/// Converts a folder id of this API to one of `mailFolders`. Well-known names are the same in both.
pub(super) fn to_mail_folder_id(id: &str) -> Result<String, ApiError> {
    match id.strip_prefix(ID_PREFIX) {
        Some(rest) => Ok(format!("{MAIL_FOLDER_ID_PREFIX}{rest}")),
        None if id.len() < 60 => Ok(id.to_owned()),
        None => Err(ApiError::item_not_found()),
    }
}
