//! The directory of a tenant: the organisation, its users, and the kind of mailbox that each has.
//!
//! A user is identified by `id`, because names and addresses change. Neither a licence nor an enabled account proves
//! that there is a mailbox, and the lack of one does not prove the opposite: shared mailboxes have no licence and a
//! disabled account. So every user is listed, and each mailbox is tried.

use super::client::Client;
use super::error::{ErrorKind, GraphError};
use super::pages::Ends;
use super::request::{Request, Scope};
use super::urls::path;
use serde::{Deserialize, Deserializer};

/// Maximum number of users on a page (Graph: List users).
const USERS_PER_PAGE: &str = "999";

/// Maximum number of users in an organisation. Without a special arrangement, Entra allows some hundred thousand.
const USERS_MAX: usize = 1_000_000;
/// Maximum number of bytes in the names and ids of all users together.
const USERS_BYTES_MAX: usize = 512 << 20;

/// The properties that are read of each user. `mailboxSettings` cannot be read from the collection.
const USER_PROPERTIES: &str = "id,userPrincipalName,mail,displayName,accountEnabled,userType,\
    assignedPlans,onPremisesSyncEnabled";

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// The directory id, which never changes.
    pub id: String,
    /// The name of the organisation.
    #[serde(default, deserialize_with = "or_default")]
    pub display_name: String,
    /// The domains of the organisation.
    #[serde(default)]
    pub verified_domains: Vec<Domain>,
}

/// A domain of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Domain {
    /// The name of the domain.
    pub name: String,
    /// True for the domain that the organisation began with. It stays for ever.
    #[serde(default)]
    pub is_initial: bool,
}

impl Organization {
    /// Returns the organisation's initial domain, such as `contoso.onmicrosoft.com`. It never changes.
    pub fn initial_domain(&self) -> Option<&str> {
        self.verified_domains.iter().find(|domain| domain.is_initial).map(|domain| domain.name.as_str())
    }
}

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The id, which never changes.
    pub id: String,
    /// The name to sign in with; empty for a few unusual objects.
    #[serde(default, deserialize_with = "or_default")]
    user_principal_name: String,
    #[serde(default, deserialize_with = "or_default")]
    mail: String,
    /// The display name.
    #[serde(default, deserialize_with = "or_default")]
    pub display_name: String,
    /// True if the account is enabled.
    #[serde(default, deserialize_with = "or_default")]
    pub account_enabled: bool,
    /// True if a plan for Exchange Online is in force. The plans themselves are most of a user's data, and are not
    /// kept.
    #[serde(default, rename = "assignedPlans", deserialize_with = "has_exchange")]
    is_licensed: bool,
    /// `Member` or `Guest`; empty for some accounts created before 2014.
    #[serde(default, deserialize_with = "or_default")]
    user_type: String,
    #[serde(default, deserialize_with = "or_default")]
    on_premises_sync_enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    #[serde(default, deserialize_with = "or_default")]
    service: String,
    #[serde(default, deserialize_with = "or_default")]
    capability_status: String,
}

/// Reads `null` as the default, because a property that is not set may be null or missing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a user's plans, and returns true if one for Exchange Online is in force.
fn has_exchange<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let plans: Option<Vec<Plan>> = Option::deserialize(deserializer)?;
    let in_force = |plan: &Plan| ["Enabled", "Warning"].contains(&plan.capability_status.as_str());
    Ok(plans.iter().flatten().any(|plan| plan.service.eq_ignore_ascii_case("exchange") && in_force(plan)))
}

impl User {
    /// Returns the name of the user's folder in a snapshot: the user principal name in lower case. If there is none,
    /// the mail address, and otherwise the id.
    pub fn name(&self) -> String {
        let names = [&self.user_principal_name, &self.mail, &self.id];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or(&self.id).to_lowercase()
    }

    /// Returns true if the user has a licence for Exchange Online that is in force. Days of grace count.
    pub fn is_licensed(&self) -> bool {
        self.is_licensed
    }

    /// Returns the number of bytes in the user's texts.
    fn text_bytes(&self) -> usize {
        [&self.id, &self.user_principal_name, &self.mail, &self.display_name, &self.user_type]
            .map(String::len)
            .iter()
            .sum()
    }

    /// Returns true if the user belongs to another organisation, where the user's mail is. A guest that the
    /// organisation's own directory brought in may have a mailbox like any member.
    pub fn is_guest(&self) -> bool {
        self.user_type == "Guest" && !self.on_premises_sync_enabled
    }

    /// Returns the scope whose limits apply to requests about the user's mailbox.
    pub fn scope(&self) -> Scope {
        Scope::mailbox(&self.id)
    }
}

/// The kind of mailbox that a user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mailbox {
    /// The mailbox of a person.
    User,
    /// A mailbox that several people share.
    Shared,
    /// The mailbox of a room.
    Room,
    /// The mailbox of equipment, such as a projector or a car.
    Equipment,
    /// A mailbox whose owner is in another forest.
    Linked,
    /// A mailbox of unknown kind, or one whose kind may not be read because the permission for its settings is missing.
    Other,
    /// No mailbox that the service can reach.
    None,
    /// A mailbox that this application may not read.
    Denied,
    /// A mailbox over its quota. The service does not list its changes.
    Full,
}

impl Mailbox {
    /// Returns the name of the kind, for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Mailbox::User => "user",
            Mailbox::Shared => "shared",
            Mailbox::Room => "room",
            Mailbox::Equipment => "equipment",
            Mailbox::Linked => "linked",
            Mailbox::Other => "other",
            Mailbox::None => "none",
            Mailbox::Denied => "denied",
            Mailbox::Full => "full",
        }
    }

    /// Returns true if the mailbox can be read.
    pub fn is_readable(self) -> bool {
        !matches!(self, Mailbox::None | Mailbox::Denied | Mailbox::Full)
    }

    fn from_purpose(purpose: &str) -> Mailbox {
        match purpose {
            "user" => Mailbox::User,
            "shared" => Mailbox::Shared,
            "room" => Mailbox::Room,
            "equipment" => Mailbox::Equipment,
            "linked" => Mailbox::Linked,
            _ => Mailbox::Other,
        }
    }
}

/// Returns the organisation. Needs `Organization.Read.All`.
///
/// # Errors
/// [`GraphError`]; [`ErrorKind::Malformed`] if the answer holds no organisation.
pub async fn organization(client: &Client) -> Result<Organization, GraphError> {
    const LABEL: &str = "reading the organisation";
    let request = Request::get(path(&["organization"]), Scope::Directory).labelled(LABEL);
    let page = client.page(&request.query("$select", "id,displayName,verifiedDomains")).await?;
    page.rows().next().unwrap_or_else(|| Err(GraphError::new(ErrorKind::Malformed, LABEL)))
}

/// Lists all users, including guests, rooms and disabled accounts. Needs `User.Read.All`.
///
/// # Errors
/// [`GraphError`].
pub async fn users(client: &Client) -> Result<Vec<User>, GraphError> {
    let request = Request::get(path(&["users"]), Scope::Directory).labelled("listing users");
    let request = request.query("$select", USER_PROPERTIES).query("$top", USERS_PER_PAGE);
    let (mut pages, mut users, mut bytes) = (client.pages(request, Ends::Plainly), Vec::new(), 0);
    while let Some(page) = pages.next().await? {
        for user in page.rows::<User>() {
            let user = user?;
            bytes += user.text_bytes();
            if users.len() >= USERS_MAX || bytes > USERS_BYTES_MAX {
                return Err(GraphError::too_many("listing users", "users", USERS_MAX));
            }
            users.push(user);
        }
    }
    Ok(users)
}

/// Returns the user with this id or user principal name, if there is one.
///
/// # Errors
/// [`GraphError`].
pub async fn user(client: &Client, name: &str) -> Result<Option<User>, GraphError> {
    let request = Request::get(path(&["users", name]), Scope::Directory).labelled("looking for a user");
    match client.json(request.query("$select", USER_PROPERTIES)).await {
        Ok(user) => Ok(Some(user)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Checks that the directory answers.
///
/// # Errors
/// [`GraphError`].
pub async fn users_exist(client: &Client) -> Result<(), GraphError> {
    let request = Request::get(path(&["users"]), Scope::Directory).query("$select", "id").query("$top", "1");
    client.page(&request.labelled("checking whether the service answers")).await.map(drop)
}

/// Returns the person who signed in, if the application acts on behalf of one.
///
/// # Errors
/// [`GraphError`].
pub async fn me(client: &Client) -> Result<User, GraphError> {
    let request = Request::get(path(&["me"]), Scope::Directory).labelled("reading the user who signed in");
    client.json(request.query("$select", USER_PROPERTIES)).await
}

/// Returns the kind of mailbox that `user` has. Needs `Mail.ReadBasic.All`, and `MailboxSettings.Read` for the kind.
///
/// # Errors
/// [`GraphError`] if the answer says nothing about the mailbox. That is not the same as [`Mailbox::None`].
pub async fn mailbox(client: &Client, user: &User) -> Result<Mailbox, GraphError> {
    match inbox(client, user).await {
        Ok(_) => {}
        Err(error) => return state_of(&error).ok_or(error),
    }
    match purpose(client, user).await {
        Ok(purpose) => Ok(Mailbox::from_purpose(&purpose)),
        // Without the permission for its settings, a mailbox can still be read.
        Err(error) => match error.kind() {
            ErrorKind::Denied | ErrorKind::MissingPermission | ErrorKind::NotFound | ErrorKind::NoMailbox => {
                Ok(Mailbox::Other)
            }
            _ => Err(error),
        },
    }
}

/// Returns what an error says about the mailbox, if it says anything.
fn state_of(error: &GraphError) -> Option<Mailbox> {
    match error.kind() {
        // The service may use either kind of error for the same user, because it has several ways to say this.
        ErrorKind::NoMailbox | ErrorKind::NotFound => Some(Mailbox::None),
        ErrorKind::Denied | ErrorKind::MissingPermission => Some(Mailbox::Denied),
        ErrorKind::QuotaExceeded => Some(Mailbox::Full),
        _ => None,
    }
}

/// An inbox. It is read only to find out whether the mailbox can be read.
#[derive(Deserialize)]
pub struct Inbox {
    /// The number of items in the folder.
    #[serde(default, rename = "totalItemCount")]
    pub total_item_count: u64,
}

/// Reads the inbox of `user`. Every mailbox has one.
///
/// # Errors
/// [`GraphError`]; [`ErrorKind::NoMailbox`] or [`ErrorKind::NotFound`] if there is no mailbox.
pub async fn inbox(client: &Client, user: &User) -> Result<Inbox, GraphError> {
    let request = Request::get(path(&["users", &user.id, "mailFolders", "inbox"]), user.scope());
    client.json(request.labelled("looking for a mailbox")).await
}

/// Returns the service's name for the kind of mailbox that `user` has. Needs `MailboxSettings.Read`.
///
/// # Errors
/// [`GraphError`].
pub async fn purpose(client: &Client, user: &User) -> Result<String, GraphError> {
    let request = Request::get(path(&["users", &user.id, "mailboxSettings"]), user.scope());
    let settings: Settings = client.json(request.labelled("reading mailbox settings")).await?;
    Ok(match settings.user_purpose {
        Some(Purpose::Plain(value) | Purpose::Wrapped { value }) => value,
        None => String::new(),
    })
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "userPurpose")]
    user_purpose: Option<Purpose>,
}

/// According to the metadata this is a plain value; samples in the documentation show an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Purpose {
    Plain(String),
    Wrapped { value: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(value: serde_json::Value) -> User {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_user_is_named_by_principal_name_then_address_then_id() {
        let named = |upn, mail| user(json!({ "id": "AB", "userPrincipalName": upn, "mail": mail })).name();
        assert_eq!(named(json!("Alice@Contoso.com"), json!("other@contoso.com")), "alice@contoso.com");
        assert_eq!(named(json!(null), json!("Alice@contoso.com")), "alice@contoso.com");
        assert_eq!(user(json!({ "id": "AB" })).name(), "ab");
    }

    #[test]
    fn a_licence_is_a_plan_for_exchange_that_is_in_force() {
        let licensed = |plans| user(json!({ "id": "a", "assignedPlans": plans })).is_licensed();
        let plan = |service: &str, status: &str| json!({ "service": service, "capabilityStatus": status, "x": 1 });
        assert!(licensed(json!([plan("SharePoint", "Enabled"), plan("exchange", "Enabled")])));
        assert!(licensed(json!([plan("exchange", "Warning")])));
        for plans in [json!(null), json!([]), json!([plan("exchange", "Deleted")]), json!([plan("teams", "Enabled")])] {
            assert!(!licensed(plans.clone()), "{plans}");
        }
    }

    #[test]
    fn the_kind_of_a_mailbox_is_read_in_both_shapes() {
        let purpose = |value| match serde_json::from_value::<Settings>(value).unwrap().user_purpose {
            Some(Purpose::Plain(value) | Purpose::Wrapped { value }) => Some(value),
            None => None,
        };
        assert_eq!(purpose(json!({ "userPurpose": "shared" })).unwrap(), "shared");
        assert_eq!(purpose(json!({ "userPurpose": { "value": "room" } })).unwrap(), "room");
        assert_eq!(purpose(json!({ "timeZone": "UTC" })), None);
        assert_eq!(Mailbox::from_purpose("unknownFutureValue"), Mailbox::Other);
    }

    #[test]
    fn an_error_of_a_mailbox_says_what_it_is_or_nothing() {
        let state = |kind| state_of(&GraphError::new(kind, "test"));
        assert_eq!(state(ErrorKind::NoMailbox), Some(Mailbox::None));
        assert_eq!(state(ErrorKind::NotFound), Some(Mailbox::None));
        assert_eq!(state(ErrorKind::Denied), Some(Mailbox::Denied));
        assert_eq!(state(ErrorKind::QuotaExceeded), Some(Mailbox::Full));
        for kind in [ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::SignIn, ErrorKind::Malformed] {
            assert_eq!(state(kind), None, "{kind:?} proves nothing");
        }
    }
}
