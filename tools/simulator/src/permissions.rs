//! Which permission a route needs, and the answer to a request without it.
//!
//! The table follows the "Permissions" section of each operation's page. Each list begins with the least privileged
//! permission; all others in it open the route too. The two families answer differently: directory routes with
//! `Authorization_RequestDenied`, mailbox routes with `ErrorAccessDenied`. Mailboxes outside an application access
//! policy get a message of their own ("Limiting application permissions to specific Exchange Online mailboxes").

use axum::http::Method;

use crate::auth::{AccessPolicy, Caller, ExchangeRole, Rules};
use crate::server::{Operation, Route};

/// Application permissions that are granted by default: those that a full backup and restore needs, and the permission
/// to send mail, which a backup must never use. With that permission, a mail sent by mistake is counted instead of
/// refused.
pub const APPLICATION: &[&str] = &[
    "Mail.Send",
    "User.Read.All",
    "Organization.Read.All",
    "MailboxSettings.ReadWrite",
    "Mail.ReadWrite",
    "Calendars.ReadWrite",
    "Contacts.ReadWrite",
    "Tasks.ReadWrite.All",
    "MailboxFolder.ReadWrite.All",
    "MailboxItem.ReadWrite.All",
    "MailboxItem.ImportExport.All",
];

/// Delegated permissions that have consent by default.
pub const DELEGATED: &[&str] = &[
    "User.Read",
    "User.Read.All",
    "Organization.Read.All",
    "MailboxSettings.ReadWrite",
    "Mail.Read",
    "Mail.ReadWrite",
    "Calendars.ReadWrite",
    "Contacts.ReadWrite",
    "Tasks.ReadWrite",
    "MailboxFolder.ReadWrite",
    "MailboxItem.ReadWrite",
    "MailboxItem.ImportExport",
];

/// The system that guards a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The directory: users, organisation, licences.
    Directory,
    /// Exchange, under application access policies.
    Mailbox,
    /// Exchange routes to which application access policies do not apply: tasks and mailbox import/export.
    MailboxBeyondPolicy,
}

/// The permissions that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// The system that guards the route.
    pub family: Family,
    /// One of these application permissions is needed.
    pub application: &'static [&'static str],
    /// One of these delegated permissions is needed.
    pub delegated: &'static [&'static str],
}

/// Why a known request is not allowed; always 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Forbidden {
    /// The code of the error.
    pub code: &'static str,
    /// The text of the error.
    pub message: &'static str,
}

const USERS: &[&str] = &["User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"];
const USERS_DELEGATED: &[&str] = &["User.Read", "User.ReadBasic.All", "User.Read.All", "Directory.Read.All"];
const ORGANIZATION: &[&str] = &["Organization.Read.All", "Directory.Read.All", "Directory.ReadWrite.All"];
const SETTINGS: &[&str] = &["MailboxSettings.Read", "MailboxSettings.ReadWrite"];
const SETTINGS_WRITE: &[&str] = &["MailboxSettings.ReadWrite"];
const MAIL_BASIC: &[&str] = &[
    "Mail.ReadBasic.All",
    "Mail.ReadBasic",
    "Mail.Read",
    "Mail.ReadWrite",
    "Mail.Read.Shared",
    "Mail.ReadWrite.Shared",
];
const MAIL: &[&str] = &["Mail.Read", "Mail.ReadWrite"];
const MAIL_WRITE: &[&str] = &["Mail.ReadWrite"];
const CONTACTS: &[&str] = &["Contacts.Read", "Contacts.ReadWrite"];
const CONTACTS_WRITE: &[&str] = &["Contacts.ReadWrite"];
const CALENDARS: &[&str] = &["Calendars.Read", "Calendars.ReadWrite"];
const CALENDARS_WRITE: &[&str] = &["Calendars.ReadWrite"];
const TASKS: &[&str] = &["Tasks.Read.All", "Tasks.ReadWrite.All"];
const TASKS_DELEGATED: &[&str] = &["Tasks.Read", "Tasks.ReadWrite"];
/// Permissions to write tasks, of which the delta of tasks may need one, too.
pub const TASKS_WRITE: &[&str] = &["Tasks.ReadWrite.All"];
const TASKS_WRITE_DELEGATED: &[&str] = &["Tasks.ReadWrite"];
const MAIL_SEND: &[&str] = &["Mail.Send"];
const FOLDER: &[&str] = &["MailboxFolder.Read.All", "MailboxFolder.ReadWrite.All"];
const FOLDER_DELEGATED: &[&str] = &["MailboxFolder.Read", "MailboxFolder.ReadWrite"];
const FOLDER_WRITE: &[&str] = &["MailboxFolder.ReadWrite.All"];
const FOLDER_WRITE_DELEGATED: &[&str] = &["MailboxFolder.ReadWrite"];
const ITEM: &[&str] = &["MailboxItem.Read.All", "MailboxItem.ReadWrite.All"];
const ITEM_DELEGATED: &[&str] = &["MailboxItem.Read", "MailboxItem.ReadWrite"];
const ITEM_WRITE: &[&str] = &["MailboxItem.ReadWrite.All"];
const ITEM_WRITE_DELEGATED: &[&str] = &["MailboxItem.ReadWrite"];
const EXPORT: &[&str] = &["MailboxItem.Export.All", "MailboxItem.ImportExport.All"];
const EXPORT_DELEGATED: &[&str] = &["MailboxItem.Export", "MailboxItem.ImportExport"];
const IMPORT: &[&str] = &["MailboxItem.ImportExport.All"];
const IMPORT_DELEGATED: &[&str] = &["MailboxItem.ImportExport"];

/// Returns what a request needs; `None` for a batch, whose requests are checked one by one.
pub fn requirement(route: &Route, method: &Method) -> Option<Requirement> {
    use Family::{Directory, Mailbox, MailboxBeyondPolicy as Beyond};
    use Operation as O;
    let (family, application, delegated) = match route.operation {
        O::Batch => return None,
        O::ListOrganizations => (Directory, ORGANIZATION, &["User.Read", "Organization.Read.All"][..]),
        O::ListSkus => (Directory, ORGANIZATION, ORGANIZATION),
        O::ListUsers
        | O::UsersDelta
        | O::CountUsers
        | O::ListDeletedUsers
        | O::GetUser
        | O::ListLicenses
        | O::TranslateIds => (Directory, USERS, USERS_DELEGATED),
        O::GetMailboxSettings | O::ListCategories | O::ListRules => (Mailbox, SETTINGS, SETTINGS),
        O::UpdateMailboxSettings | O::CreateCategory | O::CreateRule => (Mailbox, SETTINGS_WRITE, SETTINGS_WRITE),
        O::ListFolders
        | O::FoldersDelta
        | O::GetFolder
        | O::ListChildFolders
        | O::ListMessages
        | O::CountMessages
        | O::MessagesDelta
        | O::GetMessage => (Mailbox, MAIL_BASIC, MAIL_BASIC),
        O::GetMessageValue | O::ListAttachments | O::GetAttachment | O::GetAttachmentValue => (Mailbox, MAIL, MAIL),
        O::CreateFolder
        | O::UpdateFolder
        | O::DeleteFolder
        | O::PermanentlyDeleteFolder
        | O::MoveFolder
        | O::CopyFolder
        | O::CreateChildFolder
        | O::CreateMessage
        | O::UpdateMessage
        | O::DeleteMessage
        | O::PermanentlyDeleteMessage
        | O::MoveMessage
        | O::CopyMessage
        | O::CreateAttachment
        | O::CreateUploadSession
        | O::DeleteAttachment => (Mailbox, MAIL_WRITE, MAIL_WRITE),
        O::SendMail => (Mailbox, MAIL_SEND, MAIL_SEND),
        O::ListContactFolders
        | O::ContactFoldersDelta
        | O::GetContactFolder
        | O::ListContactChildFolders
        | O::ListContacts
        | O::CountContacts
        | O::ContactsDelta
        | O::GetContact
        | O::GetContactPhoto
        | O::GetContactPhotoValue => (Mailbox, CONTACTS, CONTACTS),
        O::CreateContactFolder
        | O::UpdateContactFolder
        | O::DeleteContactFolder
        | O::PermanentlyDeleteContactFolder
        | O::CreateContactChildFolder
        | O::CreateContact
        | O::UpdateContact
        | O::DeleteContact
        | O::PermanentlyDeleteContact
        | O::UpdateContactPhoto => (Mailbox, CONTACTS_WRITE, CONTACTS_WRITE),
        O::ListCalendars
        | O::ListCalendarGroups
        | O::ListGroupCalendars
        | O::GetCalendar
        | O::ListEvents
        | O::CountEvents
        | O::EventsDelta
        | O::GetEvent
        | O::ListInstances
        | O::ListCalendarView
        | O::CalendarViewDelta
        | O::ListEventAttachments
        | O::GetEventAttachment
        | O::GetEventAttachmentValue => (Mailbox, CALENDARS, CALENDARS),
        O::CreateCalendar
        | O::UpdateCalendar
        | O::DeleteCalendar
        | O::CreateEvent
        | O::UpdateEvent
        | O::DeleteEvent
        | O::PermanentlyDeleteEvent
        | O::CancelEvent
        | O::AnswerEvent
        | O::CreateEventAttachment
        | O::CreateEventUploadSession
        | O::DeleteEventAttachment => (Mailbox, CALENDARS_WRITE, CALENDARS_WRITE),
        O::ListTaskLists
        | O::TaskListsDelta
        | O::GetTaskList
        | O::ListTasks
        | O::TasksDelta
        | O::GetTask
        | O::ListChecklistItems
        | O::ListLinkedResources
        | O::GetChecklistItem
        | O::GetLinkedResource
        | O::ListTaskAttachments
        | O::GetTaskAttachment
        | O::GetTaskAttachmentValue => (Beyond, TASKS, TASKS_DELEGATED),
        O::CreateTaskList
        | O::UpdateTaskList
        | O::DeleteTaskList
        | O::CreateTask
        | O::UpdateTask
        | O::DeleteTask
        | O::WriteChecklistItem
        | O::WriteLinkedResource
        | O::CreateTaskAttachment
        | O::CreateTaskUploadSession
        | O::DeleteTaskAttachment
        | O::UploadTaskAttachment => (Beyond, TASKS_WRITE, TASKS_WRITE_DELEGATED),
        O::GetExchangeSettings => (Beyond, FOLDER, FOLDER_DELEGATED),
        O::ExchangeMailbox => {
            let is_read = method == Method::GET || method == Method::HEAD;
            let path: Vec<String> = route.rest.iter().skip(1).map(|segment| segment.to_ascii_lowercase()).collect();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let (application, delegated) = match (path.as_slice(), is_read) {
                (["exportitems"], _) => (EXPORT, EXPORT_DELEGATED),
                (["createimportsession"], _) => (IMPORT, IMPORT_DELEGATED),
                ([.., "items"] | [.., "items", _], true) => (ITEM, ITEM_DELEGATED),
                ([.., "items"] | [.., "items", _], false) => (ITEM_WRITE, ITEM_WRITE_DELEGATED),
                (_, true) => (FOLDER, FOLDER_DELEGATED),
                (_, false) => (FOLDER_WRITE, FOLDER_WRITE_DELEGATED),
            };
            (Beyond, application, delegated)
        }
    };
    Some(Requirement { family, application, delegated })
}

/// Checks that `caller` fulfils `requirement`. `user_id` is the owner of the data, if the directory knows that user.
///
/// # Errors
/// [`Forbidden`] with the text of the service.
pub fn check(
    rules: &Rules,
    caller: &Caller,
    requirement: &Requirement,
    user_id: Option<&str>,
) -> Result<(), Forbidden> {
    let denied = match requirement.family {
        Family::Directory => Forbidden {
            code: "Authorization_RequestDenied",
            message: "Insufficient privileges to complete the operation.",
        },
        Family::Mailbox | Family::MailboxBeyondPolicy => {
            Forbidden { code: "ErrorAccessDenied", message: "Access is denied. Check credentials and try again." }
        }
    };
    match caller {
        Caller::User { id, scopes } => {
            let is_own = requirement.family == Family::Directory || user_id == Some(id);
            if is_own && holds(scopes, requirement.delegated) { Ok(()) } else { Err(denied) }
        }
        Caller::Application { roles } => {
            if requirement.family == Family::Mailbox && is_assigned(&rules.exchange_roles, requirement, user_id) {
                return Ok(());
            }
            if !holds(roles, requirement.application) {
                return Err(denied);
            }
            if requirement.family == Family::Mailbox && !is_inside(&rules.access_policy, user_id) {
                return Err(Forbidden { code: "ErrorAccessDenied", message: "Access to OData is disabled." });
            }
            Ok(())
        }
    }
}

fn holds(granted: &[String], any_of: &[&str]) -> bool {
    granted.iter().any(|granted| any_of.contains(&granted.as_str()))
}

fn is_assigned(roles: &[ExchangeRole], requirement: &Requirement, user_id: Option<&str>) -> bool {
    roles.iter().any(|role| {
        requirement.application.contains(&role.permission.as_str())
            && match (&role.mailboxes, user_id) {
                (None, _) => true,
                (Some(mailboxes), Some(user_id)) => mailboxes.contains(user_id),
                (Some(_), None) => false,
            }
    })
}

/// Returns whether the policy allows access to the user's mailbox. A missing mailbox is in no policy's scope; but that
/// it is missing is reported first.
fn is_inside(policy: &AccessPolicy, user_id: Option<&str>) -> bool {
    match (policy, user_id) {
        (AccessPolicy::None, _) | (_, None) => true,
        (AccessPolicy::RestrictTo(users), Some(user_id)) => users.contains(user_id),
        (AccessPolicy::Deny(users), Some(user_id)) => !users.contains(user_id),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn application(roles: &[&str]) -> Caller {
        Caller::Application { roles: roles.iter().map(|&role| role.to_owned()).collect() }
    }

    fn needs(method: Method, path: &str) -> Requirement {
        let route = Route::parse(&method, &format!("/v1.0/{path}")).expect("a known route");
        requirement(&route, &method).expect("the route is guarded")
    }

    fn decide(rules: &Rules, roles: &[&str], method: Method, path: &str, user_id: &str) -> Result<(), &'static str> {
        check(rules, &application(roles), &needs(method, path), Some(user_id)).map_err(|forbidden| forbidden.message)
    }

    #[test]
    fn the_least_permission_suffices_and_less_does_not() {
        const ACCESS: &str = "Access is denied. Check credentials and try again.";
        const PRIVILEGE: &str = "Insufficient privileges to complete the operation.";
        let rules = Rules::default();
        for (method, path, enough, too_little, message) in [
            (Method::GET, "users", "User.Read.All", "Mail.ReadWrite", PRIVILEGE),
            (Method::GET, "organization", "Organization.Read.All", "User.Read.All", PRIVILEGE),
            (Method::GET, "users/a/mailboxSettings", "MailboxSettings.Read", "Mail.Read", ACCESS),
            (Method::PATCH, "users/a/mailboxSettings", "MailboxSettings.ReadWrite", "MailboxSettings.Read", ACCESS),
            (Method::GET, "users/a/mailFolders", "Mail.ReadBasic.All", "User.Read.All", ACCESS),
            (Method::GET, "users/a/mailFolders('x')/messages/delta()", "Mail.ReadBasic.All", "User.Read.All", ACCESS),
            (Method::GET, "users/a/messages/m/$value", "Mail.Read", "Mail.ReadBasic.All", ACCESS),
            (Method::GET, "users/a/messages/m/attachments/x/$value", "Mail.Read", "Mail.ReadBasic.All", ACCESS),
            (Method::POST, "users/a/mailFolders/f/messages", "Mail.ReadWrite", "Mail.Read", ACCESS),
            (Method::GET, "users/a/contactFolders/f/contacts/delta", "Contacts.Read", "Mail.ReadWrite", ACCESS),
            (Method::GET, "users/a/contacts/c/photo/$value", "Contacts.Read", "Mail.ReadWrite", ACCESS),
            (Method::POST, "users/a/contacts", "Contacts.ReadWrite", "Contacts.Read", ACCESS),
            (Method::PUT, "users/a/contacts/c/photo/$value", "Contacts.ReadWrite", "Contacts.Read", ACCESS),
            (Method::GET, "users/a/calendars/c/events", "Calendars.Read", "Mail.ReadWrite", ACCESS),
            (Method::GET, "users/a/events/e/attachments/x/$value", "Calendars.Read", "Mail.ReadWrite", ACCESS),
            (Method::POST, "users/a/calendars/c/events", "Calendars.ReadWrite", "Calendars.Read", ACCESS),
            (Method::DELETE, "users/a/events/e", "Calendars.ReadWrite", "Calendars.Read", ACCESS),
            (Method::GET, "users/a/todo/lists/l/tasks/delta", "Tasks.Read.All", "Mail.ReadWrite", ACCESS),
            (Method::POST, "users/a/todo/lists/l/tasks", "Tasks.ReadWrite.All", "Tasks.Read.All", ACCESS),
            (Method::POST, "users/a/sendMail", "Mail.Send", "Mail.ReadWrite", ACCESS),
            (Method::GET, "admin/exchange/mailboxes/m/folders", "MailboxFolder.Read.All", "Mail.Read", ACCESS),
            (
                Method::GET,
                "admin/exchange/mailboxes/m/folders/f/items/delta",
                "MailboxItem.Read.All",
                "Mail.Read",
                ACCESS,
            ),
            (
                Method::POST,
                "admin/exchange/mailboxes/m/exportItems",
                "MailboxItem.Export.All",
                "MailboxItem.Read.All",
                ACCESS,
            ),
            (
                Method::POST,
                "admin/exchange/mailboxes/m/createImportSession",
                "MailboxItem.ImportExport.All",
                "MailboxItem.Export.All",
                ACCESS,
            ),
        ] {
            assert_eq!(decide(&rules, &[enough], method.clone(), path, "a"), Ok(()), "{method} {path}");
            assert_eq!(decide(&rules, &[too_little], method.clone(), path, "a"), Err(message), "{method} {path}");
            assert_eq!(decide(&rules, &[], method.clone(), path, "a"), Err(message), "{method} {path}");
        }
    }

    #[test]
    fn an_access_policy_closes_mailboxes_but_not_the_directory_nor_import_export() {
        let only_a = BTreeSet::from(["a".to_owned()]);
        let rules = Rules { access_policy: AccessPolicy::RestrictTo(only_a.clone()), ..Rules::default() };
        let roles = ["Mail.Read", "User.Read.All", "MailboxFolder.Read.All"];
        assert_eq!(decide(&rules, &roles, Method::GET, "users/a/messages", "a"), Ok(()));
        assert_eq!(decide(&rules, &roles, Method::GET, "users/b/messages", "b"), Err("Access to OData is disabled."));
        assert_eq!(decide(&rules, &roles, Method::GET, "users/b", "b"), Ok(()));
        assert_eq!(decide(&rules, &roles, Method::GET, "users/b/settings/exchange", "b"), Ok(()));
        assert_eq!(decide(&rules, &["Tasks.Read.All"], Method::GET, "users/b/todo/lists", "b"), Ok(()));

        let rules = Rules { access_policy: AccessPolicy::Deny(only_a), ..Rules::default() };
        assert_eq!(decide(&rules, &roles, Method::GET, "users/a/messages", "a"), Err("Access to OData is disabled."));
        assert_eq!(decide(&rules, &roles, Method::GET, "users/b/messages", "b"), Ok(()));
    }

    #[test]
    fn a_role_assigned_in_exchange_opens_mailboxes_without_any_role_in_the_token() {
        let role = ExchangeRole { permission: "Mail.Read".into(), mailboxes: Some(BTreeSet::from(["a".to_owned()])) };
        let rules = Rules { exchange_roles: vec![role], ..Rules::default() };
        assert_eq!(decide(&rules, &[], Method::GET, "users/a/messages/m/$value", "a"), Ok(()));
        assert!(decide(&rules, &[], Method::GET, "users/b/messages/m/$value", "b").is_err());
        assert!(decide(&rules, &[], Method::POST, "users/a/messages", "a").is_err());
    }

    #[test]
    fn a_signed_in_user_reaches_their_own_mailbox_only() {
        let rules = Rules::default();
        let caller = Caller::User { id: "a".into(), scopes: vec!["Mail.Read".into(), "User.Read.All".into()] };
        let decide = |path: &str, user: &str| check(&rules, &caller, &needs(Method::GET, path), Some(user)).is_ok();
        assert!(decide("users/a/messages", "a"));
        assert!(!decide("users/b/messages", "b"));
        assert!(decide("users/b", "b"));
        assert!(!decide("users/a/mailboxSettings", "a"), "there is no such scope in the token");
    }
}
