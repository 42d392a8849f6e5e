//! Tries what a backup needs, with the smallest requests that show whether it is allowed. Reports what works, what is
//! refused, and which permission is missing.
//!
//! Trying decides, not the token. A role that the token lacks may have been assigned in Exchange (Exchange: RBAC for
//! Applications). A role that the token has may be limited to other mailboxes (Graph: limiting application permissions
//! to specific mailboxes). The token's roles only help to tell these cases apart.

use super::auth::Claims;
use super::client::Client;
use super::directory::{self, Organization, User};
use super::error::{ErrorKind, GraphError};
use super::mail::Mailbox;
use super::request::Request;
use super::tasks::Tasks;
use super::urls::path;
use serde::Deserialize;

/// Maximum number of mailboxes that are tried until one has a message to read.
pub const MAILBOXES_TRIED_MAX: usize = 50;

/// A permission in Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// The name for an application that acts as itself.
    pub application: &'static str,
    /// The name for an application that acts on behalf of a person.
    pub delegated: &'static str,
    /// True if a backup is impossible without it.
    pub is_required: bool,
}

/// Lists the users; on behalf of a person, reads that user only.
pub const USERS: Permission = Permission { application: "User.Read.All", delegated: "User.Read", is_required: true };
/// Reads the organisation.
pub const ORGANIZATION: Permission =
    Permission { application: "Organization.Read.All", delegated: "User.Read", is_required: false };
/// Reads mail.
pub const MAIL: Permission = Permission { application: "Mail.Read", delegated: "Mail.Read", is_required: true };
/// Reads contacts.
pub const CONTACTS: Permission =
    Permission { application: "Contacts.Read", delegated: "Contacts.Read", is_required: true };
/// Writes contacts, and reads them, too.
const CONTACTS_WRITTEN: Permission =
    Permission { application: "Contacts.ReadWrite", delegated: "Contacts.ReadWrite", is_required: false };
/// Reads calendars.
pub const CALENDARS: Permission =
    Permission { application: "Calendars.Read", delegated: "Calendars.Read", is_required: true };
/// Writes calendars, and reads them, too.
const CALENDARS_WRITTEN: Permission =
    Permission { application: "Calendars.ReadWrite", delegated: "Calendars.ReadWrite", is_required: false };
/// Reads tasks.
pub const TASKS: Permission = Permission { application: "Tasks.Read.All", delegated: "Tasks.Read", is_required: true };
/// Writes tasks, and reads them, too.
const TASKS_WRITTEN: Permission =
    Permission { application: "Tasks.ReadWrite.All", delegated: "Tasks.ReadWrite", is_required: false };
/// Reads the kind of a mailbox.
pub const SETTINGS: Permission =
    Permission { application: "MailboxSettings.Read", delegated: "MailboxSettings.Read", is_required: false };
/// Restores mail.
pub const RESTORE: Permission =
    Permission { application: "Mail.ReadWrite", delegated: "Mail.ReadWrite", is_required: false };

/// Finds mailboxes and folders in the import and export API. Only full fidelity needs this permission and the next one.
pub const EXCHANGE: Permission =
    Permission { application: "MailboxFolder.Read.All", delegated: "MailboxFolder.Read", is_required: true };
/// Exports messages as streams.
pub const EXPORT: Permission =
    Permission { application: "MailboxItem.Export.All", delegated: "MailboxItem.Export", is_required: true };
/// Exports and imports messages.
pub const IMPORT: Permission = Permission {
    application: "MailboxItem.ImportExport.All",
    delegated: "MailboxItem.ImportExport",
    is_required: false,
};

/// The result of a check.
#[derive(Debug)]
pub enum Outcome {
    /// It works.
    Works(String),
    /// It is refused because the permission is missing.
    Missing(String),
    /// The permission is granted, but not for the mailboxes that were tried.
    Closed(String),
    /// There was nothing to try it on.
    Unproven(String),
    /// It failed for another reason.
    Failed(GraphError),
}

/// A check, and its result.
#[derive(Debug)]
pub struct Check {
    /// What was tried.
    pub what: &'static str,
    /// The permission that it needs.
    pub permission: Permission,
    /// The result.
    pub outcome: Outcome,
}

impl Check {
    /// Returns true if a backup can go on: the check passed, or its permission is not required.
    pub fn is_fine(&self) -> bool {
        match self.outcome {
            Outcome::Works(_) => true,
            Outcome::Missing(_) | Outcome::Closed(_) | Outcome::Unproven(_) | Outcome::Failed(_) => {
                !self.permission.is_required
            }
        }
    }
}

fn refusal(error: GraphError, detail: &str) -> Outcome {
    match error.kind() {
        ErrorKind::Denied | ErrorKind::MissingPermission => Outcome::Missing(detail.to_owned()),
        _ => Outcome::Failed(error),
    }
}

/// Tries to read the organisation.
pub async fn organization(client: &Client) -> (Option<Organization>, Check) {
    let (organization, outcome) = match directory::organization(client).await {
        Ok(organization) => {
            let detail = format!("{} ({})", organization.display_name, organization.id);
            (Some(organization), Outcome::Works(detail))
        }
        Err(error) => (None, refusal(error, "the organisation's name cannot be read")),
    };
    (organization, Check { what: "organisation", permission: ORGANIZATION, outcome })
}

/// Tries to list the users. If `delegated`, tries to read the user who signed in.
pub async fn users(client: &Client, delegated: bool) -> (Vec<User>, Check) {
    let found = match delegated {
        true => directory::me(client).await.map(|user| vec![user]),
        false => directory::users(client).await,
    };
    let (users, outcome) = match found {
        Ok(users) if delegated => {
            let detail =
                "only the user who signed in; an application that signs in as itself sees all users".to_owned();
            (users, Outcome::Works(detail))
        }
        Ok(users) => {
            let detail = format!("{} users", users.len());
            (users, Outcome::Works(detail))
        }
        Err(error) => (Vec::new(), refusal(error, "the users cannot be listed")),
    };
    (users, Check { what: "users", permission: USERS, outcome })
}

/// The number of mailboxes that were tried, by their state.
#[derive(Default)]
struct Tried {
    empty: usize,
    denied: usize,
    full: usize,
    none: usize,
}

/// Tries to read mail and settings in a mailbox of one of `users`, in this order.
pub async fn mail(client: &Client, users: &[&User], claims: Option<&Claims>) -> Vec<Check> {
    let mut tried = Tried::default();
    let mut open = None;
    let mut outcome = None;
    for user in users.iter().take(MAILBOXES_TRIED_MAX) {
        let read = match directory::inbox(client, user).await {
            Ok(_) => {
                open = Some(*user);
                read_message(client, user).await
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(Read::Message) => {
                outcome = Some(works(&tried));
                break;
            }
            Ok(Read::Nothing) => tried.empty += 1,
            Ok(Read::Refused) => {
                let detail = "folders can be listed, but messages cannot be read: Mail.ReadBasic is not enough";
                outcome = Some(Outcome::Missing(detail.to_owned()));
                break;
            }
            Err(error) => match error.kind() {
                ErrorKind::NoMailbox | ErrorKind::NotFound => tried.none += 1,
                ErrorKind::Denied | ErrorKind::MissingPermission => tried.denied += 1,
                ErrorKind::QuotaExceeded => tried.full += 1,
                _ => {
                    outcome = Some(Outcome::Failed(error));
                    break;
                }
            },
        }
    }
    let outcome = outcome.unwrap_or_else(|| unread(&tried, claims, &[MAIL, RESTORE]));
    let mut checks = vec![Check { what: "mail", permission: MAIL, outcome }];
    if let Some(user) = open {
        let outcome = match directory::purpose(client, user).await {
            Ok(_) => Outcome::Works("the kinds of mailboxes can be read".to_owned()),
            Err(error) => refusal(error, "the kinds of mailboxes cannot be read"),
        };
        checks.push(Check { what: "mailbox settings", permission: SETTINGS, outcome });
    }
    checks
}

fn works(tried: &Tried) -> Outcome {
    Outcome::Works(match tried.denied {
        0 => "a message was read".to_owned(),
        denied => format!("a message was read; {denied} other mailboxes are closed to this application"),
    })
}

/// Tries to read the contacts of one of `users`, in this order.
pub async fn contacts(client: &Client, users: &[&User], claims: Option<&Claims>) -> Check {
    let outcome = outlook_items(client, users, claims, "contacts", &[CONTACTS, CONTACTS_WRITTEN]).await;
    Check { what: "contacts", permission: CONTACTS, outcome }
}

/// Tries to read the calendars of one of `users`, in this order.
pub async fn calendars(client: &Client, users: &[&User], claims: Option<&Claims>) -> Check {
    let outcome = outlook_items(client, users, claims, "events", &[CALENDARS, CALENDARS_WRITTEN]).await;
    Check { what: "calendars", permission: CALENDARS, outcome }
}

/// Tries to list the items of one of `users` that lie below this name in the user. Each permission in `any` is enough.
async fn outlook_items(
    client: &Client,
    users: &[&User],
    claims: Option<&Claims>,
    items: &'static str,
    any: &[Permission],
) -> Outcome {
    let mut tried = Tried::default();
    for user in users.iter().take(MAILBOXES_TRIED_MAX) {
        let request = Request::get(path(&["users", &user.id, items]), user.scope());
        let request = request.labelled("looking for an item").query("$select", "id").query("$top", "1");
        let Err(error) = client.page(&request).await else {
            return Outcome::Works(match tried.denied {
                0 => format!("{items} can be read"),
                denied => format!("{items} can be read; {denied} other mailboxes are closed to this application"),
            });
        };
        match error.kind() {
            ErrorKind::NoMailbox | ErrorKind::NotFound => tried.none += 1,
            ErrorKind::Denied | ErrorKind::MissingPermission => tried.denied += 1,
            ErrorKind::QuotaExceeded => tried.full += 1,
            _ => return Outcome::Failed(error),
        }
    }
    unread(&tried, claims, any)
}

/// Tries to read the tasks of one of `users`, in this order: the lists, and what changed in one of them.
pub async fn tasks(client: &Client, users: &[&User], claims: Option<&Claims>) -> Check {
    let check = |outcome| Check { what: "tasks", permission: TASKS, outcome };
    let mut tried = Tried::default();
    for user in users.iter().take(MAILBOXES_TRIED_MAX) {
        let tasks = Tasks::new(client.clone(), &user.id);
        let error = match tasks.lists().await {
            Ok(lists) => {
                let list = lists.iter().find(|list| !list.is_of_others());
                let changes = match list {
                    Some(list) => tasks.changes(&list.id, None).next().await.map(drop),
                    None => Ok(()),
                };
                return check(match changes {
                    Ok(()) => Outcome::Works("tasks can be read".to_owned()),
                    Err(error) if error.kind() == ErrorKind::DeltaUnsupported => Outcome::Works(
                        "tasks can be read, but not what changed in them: each run lists them all".to_owned(),
                    ),
                    Err(error) => Outcome::Failed(error),
                });
            }
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NoMailbox | ErrorKind::NotFound => tried.none += 1,
            ErrorKind::Denied | ErrorKind::MissingPermission => tried.denied += 1,
            ErrorKind::QuotaExceeded => tried.full += 1,
            _ => return check(Outcome::Failed(error)),
        }
    }
    let is_granted = claims.is_some_and(|claims| grants(claims, &[TASKS, TASKS_WRITTEN]));
    check(match tried.denied {
        // No policy of Exchange applies to tasks.
        denied if denied > 0 && is_granted => Outcome::Closed(format!(
            "the permission is granted, but this organisation does not let applications read tasks: access was denied \
             to those of all {denied} users tried"
        )),
        _ => unread(&tried, claims, &[TASKS, TASKS_WRITTEN]),
    })
}

/// Returns the result if nothing could be read in any mailbox. Each permission in `any` is enough to read.
fn unread(tried: &Tried, claims: Option<&Claims>, any: &[Permission]) -> Outcome {
    if tried.empty > 0 {
        return Outcome::Works("folders were read, but there was no message to try".to_owned());
    }
    let is_granted = claims.is_some_and(|claims| grants(claims, any));
    match (tried.denied, is_granted) {
        (0, true) => Outcome::Unproven(format!(
            "no mailbox was found to try: {} users without one, {} over their quota",
            tried.none, tried.full
        )),
        // The service says of some users that they have no mailbox, when in fact the permission is missing.
        (0, false) => Outcome::Missing(format!("no mailbox could be reached: tried {} users", tried.none)),
        (denied, true) => {
            Outcome::Closed(format!("the permission is granted, but a policy closes all {denied} mailboxes tried"))
        }
        (denied, false) => Outcome::Missing(format!("access was denied to all {denied} mailboxes tried")),
    }
}

/// Checks by the token whether mail can be restored. Trying it would change something.
pub fn restore(claims: Option<&Claims>) -> Check {
    Check { what: "restoring mail", permission: RESTORE, outcome: in_token(claims, RESTORE) }
}

/// Checks by the token whether messages can be imported.
pub fn import(claims: Option<&Claims>) -> Check {
    Check { what: "importing", permission: IMPORT, outcome: in_token(claims, IMPORT) }
}

fn in_token(claims: Option<&Claims>, permission: Permission) -> Outcome {
    match claims {
        Some(claims) if grants(claims, &[permission]) => Outcome::Works("granted".to_owned()),
        Some(_) => Outcome::Missing("not in the token; only restoring to this tenant needs it".to_owned()),
        None => Outcome::Unproven("the token does not say".to_owned()),
    }
}

/// Tries to export a message of one of `users`, in this order.
pub async fn export(client: &Client, users: &[&User]) -> Check {
    let check = |permission, outcome| Check { what: "exporting", permission, outcome };
    let mut refused = None;
    for user in users.iter().take(MAILBOXES_TRIED_MAX) {
        let exchange = match Mailbox::new(client.clone(), &user.id, false).exchange().await {
            Ok(exchange) => exchange,
            Err(error) if matches!(error.kind(), ErrorKind::NoMailbox | ErrorKind::NotFound) => continue,
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        // No message has this id. The service says so if exports are allowed; otherwise it refuses access.
        let outcome = match exchange.export(&["AAMkNone"], 0).await {
            Ok(_) => Outcome::Works("messages can be exported".to_owned()),
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                Outcome::Works("messages can be exported".to_owned())
            }
            Err(error) => refusal(error, "messages are stored without the stream that fidelity = \"full\" adds"),
        };
        return check(EXPORT, outcome);
    }
    let outcome = match refused {
        Some(error) => refusal(error, "the mailbox import and export API cannot be reached"),
        None => Outcome::Unproven("no mailbox was found in the import and export API: is it in this cloud?".to_owned()),
    };
    check(EXCHANGE, outcome)
}

/// Returns true if the token holds one of the permissions in `any`.
fn grants(claims: &Claims, any: &[Permission]) -> bool {
    let has = |permission: &Permission| {
        claims.roles.iter().any(|role| role == permission.application)
            || claims.scp.split_whitespace().any(|scope| scope == permission.delegated)
    };
    any.iter().any(has)
}

/// How much of a mailbox could be read.
enum Read {
    Message,
    /// The mailbox has no message.
    Nothing,
    /// There is a message, but its content is refused.
    Refused,
}

#[derive(Deserialize)]
struct Message {
    id: String,
}

/// Starts to read a message as a backup does. With a permission such as `Mail.ReadBasic`, properties can be read but
/// not the content.
async fn read_message(client: &Client, user: &User) -> Result<Read, GraphError> {
    let request = Request::get(path(&["users", &user.id, "messages"]), user.scope()).labelled("looking for a message");
    let page = client.page(&request.query("$select", "id").query("$top", "1")).await?;
    let first = page.rows::<Message>().next().transpose()?;
    drop(page);
    let Some(message) = first else { return Ok(Read::Nothing) };
    let content = path(&["users", &user.id, "messages", &message.id, "$value"]);
    // The message may have a hundred megabytes. The start of the answer is enough, and the rest is not fetched.
    match client.body(Request::get(content, user.scope()).labelled("reading a message")).await {
        Ok(_) => Ok(Read::Message),
        Err(error) => match error.kind() {
            ErrorKind::Denied | ErrorKind::MissingPermission => Ok(Read::Refused),
            // The service tried to deliver it, so reading is allowed.
            ErrorKind::ItemCorrupt => Ok(Read::Message),
            // The message was deleted just now.
            ErrorKind::NotFound => Ok(Read::Nothing),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(roles: &[&str], scp: &str) -> Claims {
        Claims { roles: roles.iter().map(|&role| role.to_owned()).collect(), scp: scp.to_owned(), ..Claims::default() }
    }

    #[test]
    fn all_mailboxes_denied_means_a_missing_permission_or_a_policy() {
        let tried = Tried { denied: 3, none: 1, ..Tried::default() };
        let mail = [MAIL, RESTORE];
        let outcome = |roles: &[&str], scp: &str| unread(&tried, Some(&claims(roles, scp)), &mail);
        assert!(matches!(unread(&tried, None, &mail), Outcome::Missing(_)));
        assert!(matches!(outcome(&["User.Read.All"], ""), Outcome::Missing(_)));
        assert!(matches!(outcome(&["Mail.Read"], ""), Outcome::Closed(_)));
        assert!(matches!(outcome(&["Mail.ReadWrite"], ""), Outcome::Closed(_)));
        assert!(matches!(outcome(&[], "openid Mail.Read"), Outcome::Closed(_)));
        let nobody = Tried { none: 4, ..Tried::default() };
        assert!(matches!(unread(&nobody, Some(&claims(&["Mail.Read"], "")), &mail), Outcome::Unproven(_)));
        assert!(matches!(unread(&nobody, Some(&claims(&[], "")), &mail), Outcome::Missing(_)));
        assert!(matches!(unread(&Tried { empty: 1, ..tried }, None, &mail), Outcome::Works(_)));
        let contacts = [CONTACTS, CONTACTS_WRITTEN];
        let of_mail = claims(&["Mail.Read"], "");
        assert!(matches!(unread(&nobody, Some(&of_mail), &contacts), Outcome::Missing(_)));
    }

    #[test]
    fn only_what_a_backup_needs_makes_it_impossible() {
        let check = |permission, outcome| Check { what: "", permission, outcome };
        assert!(!check(MAIL, Outcome::Missing(String::new())).is_fine());
        assert!(!check(USERS, Outcome::Failed(GraphError::new(ErrorKind::Unavailable, "test"))).is_fine());
        assert!(check(SETTINGS, Outcome::Missing(String::new())).is_fine());
        assert!(restore(Some(&claims(&["Mail.Read"], ""))).is_fine());
        assert!(matches!(restore(Some(&claims(&["Mail.ReadWrite"], ""))).outcome, Outcome::Works(_)));
        assert!(matches!(restore(None).outcome, Outcome::Unproven(_)));
    }
}
