//! The folders of the restore targets, as they are in the organisations now. They are asked for when somebody looks,
//! and the answers are kept for a while.
//!
//! ```text
//! original/...                                              back to where a file came from; folders are only names
//! TENANT/Users/ACCOUNT/Outlook/FOLDER/...                   into that folder of that mailbox
//! TENANT/Users/ACCOUNT/Outlook/Contacts/FOLDER/...          into that folder for contacts
//! ```
//!
//! Accounts and folders have the same names as in a snapshot ([`crate::content::names`]). Folders that every mailbox
//! has are shown with their names in that mailbox, and their English names work too. Nothing can be dropped into
//! folders from which the service sends mail by itself.

use super::Organisation;
use crate::backup::tenant::{CONTACTS, OUTLOOK, REPORT_NAME, USERS};
use crate::content::names::{UniqueNames, contact_folder_name, mail_folder_name, safe_name};
use crate::restore::{ItemRestorer, Kind, chain};
use crate::source::graph::contacts::{ContactFolder, Contacts, DEFAULT_FOLDER};
use crate::source::graph::mail::{Mailbox, WELL_KNOWN};
use crate::source::graph::model::MailFolder;
use crate::source::graph::{Client, ErrorKind, GraphError, directory};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_mount::OutboxError;

/// Maximum number of remembered accounts that were looked up one by one.
const ASKED_MAX: usize = 1000;

const ROOT: &str = "msgfolderroot";
/// Well-known folders that accept no files: the service would send or remove items in them.
const CLOSED_FOLDERS: [&str; 2] = ["outbox", "scheduled"];

/// The name of the folder whose files go back to where they came from.
pub const ORIGINAL: &str = "original";
/// The name of the folder of reports.
pub const JOBS: &str = "jobs";

/// An organisation that users can restore to.
pub struct Target {
    /// Its name in the configuration.
    pub name: String,
    /// The `tenant_id` of the configuration: the id of the organisation, or a domain.
    pub tenant_id: String,
    /// The connection to it.
    pub client: Client,
    /// Why nothing may be restored to it. `None` if restores are allowed.
    pub closed: Option<String>,
    /// Puts items into the mailboxes.
    pub restorer: ItemRestorer,
    users: tokio::sync::Mutex<Kept<BTreeMap<String, String>>>,
    /// Names of accounts that were looked up one by one: when, and the id of the user, if there is one.
    asked: Mutex<HashMap<String, (Instant, Option<String>)>>,
    mailboxes: Mutex<HashMap<String, Arc<Tree>>>,
    organisation: tokio::sync::OnceCell<String>,
    /// How long answers stay valid.
    believed: Duration,
}

/// An answer of the service, and when it came.
struct Kept<T>(Option<(Instant, Arc<T>)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Kept<T> {
    fn fresh(&self, believed: Duration) -> Option<Arc<T>> {
        self.0.as_ref().filter(|(at, _)| at.elapsed() < believed).map(|(_, value)| value.clone())
    }

    /// Stores the answer. If the service did not answer, the last answer stays valid.
    fn keep(&mut self, asked: Result<T, GraphError>) -> Result<Arc<T>, GraphError> {
        match (asked, &self.0) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                self.0 = Some((Instant::now(), value.clone()));
                Ok(value)
            }
            (Err(error), Some((_, value))) if error.is_transient() => Ok(value.clone()),
            (Err(error), _) => Err(error),
        }
    }
}

/// The folders of a mailbox, by their parent folder.
struct Tree {
    mailbox: Mailbox,
    contacts: Contacts,
    /// The id of the folder that holds all contacts.
    default_contacts: tokio::sync::OnceCell<String>,
    well_known: tokio::sync::OnceCell<HashMap<String, &'static str>>,
    children: tokio::sync::Mutex<HashMap<String, Kept<Vec<Folder>>>>,
    believed: Duration,
}

/// A folder of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its id.
    pub id: String,
    /// Its name in the mount.
    pub name: String,
    /// True if items may be put into it.
    pub accepts: bool,
    /// The kind of its items.
    pub kind: Kind,
}

impl Folder {
    /// Returns the folder that holds all contacts. Its id is a well-known name, so nobody has to be asked.
    fn contacts() -> Self {
        Self { id: DEFAULT_FOLDER.to_owned(), name: CONTACTS.to_owned(), accepts: true, kind: Kind::Contacts }
    }
}

/// The meaning of a path below a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetFolder {
    /// The target itself, which holds `Users`.
    Tenant,
    /// `Users`, which holds the accounts.
    Users,
    /// An account, which holds `Outlook`.
    Account,
    /// The mailbox of the user with this id, which holds folders.
    Mailbox(String),
    /// A folder in the mailbox of the user with this id.
    Folder(String, Folder),
}

impl Target {
    /// Makes a target. Sends no request. Answers stay valid for `believed`.
    pub fn new(organisation: Organisation, restorer: ItemRestorer, believed: Duration) -> Self {
        let Organisation { name, tenant_id, client, closed } = organisation;
        Self {
            name,
            tenant_id,
            client,
            closed,
            restorer,
            believed,
            users: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
            mailboxes: Mutex::default(),
            organisation: tokio::sync::OnceCell::new(),
        }
    }

    /// Returns the id of the organisation.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn organisation(&self) -> Result<&str, GraphError> {
        let ask = async || Ok(directory::organization(&self.client).await?.id);
        self.organisation.get_or_try_init(ask).await.map(String::as_str)
    }

    /// Returns what is at `names`, a path below the target.
    ///
    /// # Errors
    /// [`OutboxError::NotFound`], [`OutboxError::Denied`], [`OutboxError::Unreachable`].
    pub async fn find(&self, names: &[&str]) -> Result<TargetFolder, OutboxError> {
        let (account, below) = match names {
            [] => return Ok(TargetFolder::Tenant),
            [USERS] => return Ok(TargetFolder::Users),
            [USERS, account, below @ ..] => (*account, below),
            _ => return Err(OutboxError::NotFound),
        };
        let user = self.user(account).await?.ok_or(OutboxError::NotFound)?;
        let folders = match below {
            [] => return Ok(TargetFolder::Account),
            [OUTLOOK, folders @ ..] => folders,
            _ => return Err(OutboxError::NotFound),
        };
        let tree = self.tree(&user);
        let mut found: Option<Folder> = None;
        for name in folders {
            let child = tree.child(found.as_ref(), name).await.map_err(refused)?;
            found = Some(child.ok_or(OutboxError::NotFound)?);
        }
        Ok(found.map_or(TargetFolder::Mailbox(user.clone()), |folder| TargetFolder::Folder(user, folder)))
    }

    /// Returns the names in `target_folder`, each with whether files may be dropped there.
    ///
    /// # Errors
    /// Those of [`Target::find`].
    pub async fn list(&self, target_folder: &TargetFolder) -> Result<Vec<(String, bool)>, OutboxError> {
        let folders = match target_folder {
            TargetFolder::Tenant => return Ok(vec![(USERS.to_owned(), false)]),
            TargetFolder::Users => {
                let users = self.users().await.map_err(refused)?;
                return Ok(users.keys().map(|name| (name.clone(), false)).collect());
            }
            TargetFolder::Account => return Ok(vec![(OUTLOOK.to_owned(), self.closed.is_none())]),
            TargetFolder::Mailbox(user) => self.tree(user).children(None).await,
            TargetFolder::Folder(user, folder) => self.tree(user).children(Some(folder)).await,
        };
        let folders = folders.map_err(refused)?;
        let accepts = |folder: &Folder| folder.accepts && self.closed.is_none();
        Ok(folders.iter().map(|folder| (folder.name.clone(), accepts(folder))).collect())
    }

    /// Makes the folder `name` in `target_folder`, or finds the existing one.
    ///
    /// # Errors
    /// [`OutboxError::NotPermitted`] where no folder can be made, and those of [`Target::find`].
    pub async fn make(&self, target_folder: &TargetFolder, name: &str) -> Result<(), OutboxError> {
        let (user, parent) = match target_folder {
            TargetFolder::Mailbox(user) => (user, None),
            TargetFolder::Folder(user, folder) if folder.accepts => (user, Some(folder)),
            _ => return Err(OutboxError::NotPermitted),
        };
        let tree = self.tree(user);
        if tree.child(parent, name).await.map_err(refused)?.is_some() {
            return Ok(());
        }
        let kind = parent.map_or(Kind::Mail, |parent| parent.kind);
        let parent = parent.map_or(ROOT, |parent| &parent.id);
        let (made, shown) = match kind {
            Kind::Mail => (tree.mailbox.make_folder(parent, name).await, mail_folder_name(name)),
            Kind::Contacts => {
                let made = tree.contacts.make_folder(parent, name).await;
                (made.map(|made| (made.id, made.is_new)), contact_folder_name(name))
            }
        };
        let mut children = tree.children.lock().await;
        match (&made, children.get_mut(parent).and_then(|kept| kept.0.as_mut())) {
            // The new folder is added to the kept list, so that copying a tree of folders does not list each folder
            // again.
            (Ok((id, true)), Some((_, folders))) if shown == name => {
                let folder = Folder { id: id.clone(), name: name.to_owned(), accepts: true, kind };
                Arc::make_mut(folders).push(folder);
            }
            _ => drop(children.remove(parent)),
        }
        made.map(drop).map_err(refused)
    }

    /// Returns the id that the service gave a folder in the mailbox of `user`.
    ///
    /// # Errors
    /// See [`GraphError`]. There is none if the mailbox has no such folder.
    pub async fn id_of(&self, user: &str, folder: &Folder) -> Result<Option<String>, GraphError> {
        if folder.kind == Kind::Mail || folder.id != DEFAULT_FOLDER {
            return Ok(Some(folder.id.clone()));
        }
        let tree = self.tree(user);
        if let Some(id) = tree.default_contacts.get() {
            return Ok(Some(id.clone()));
        }
        let Some(found) = tree.contacts.default_folder().await? else { return Ok(None) };
        // The id never changes.
        Ok(Some(tree.default_contacts.get_or_init(async || found.id).await.clone()))
    }

    /// Returns the id of the user whose folder is called `name`.
    async fn user(&self, name: &str) -> Result<Option<String>, OutboxError> {
        let known = self.users.lock().await.fresh(self.believed);
        if let Some(users) = known {
            return Ok(users.get(name).cloned());
        }
        let asked = self.asked.lock().get(name).filter(|(at, _)| at.elapsed() < self.believed).cloned();
        if let Some((_, user)) = asked {
            return Ok(user);
        }
        // An address is looked up by itself, without listing a hundred thousand users. A name that is no address needs
        // the list.
        if name.contains('@') {
            let found = match directory::user(&self.client, name).await {
                Err(error) if error.kind() == ErrorKind::BadRequest => None,
                found => found.map_err(refused)?,
            };
            let user = found.filter(|user| folder_of(user) == name).map(|user| user.id);
            let mut asked = self.asked.lock();
            if asked.len() >= ASKED_MAX {
                asked.clear();
            }
            asked.insert(name.to_owned(), (Instant::now(), user.clone()));
            return Ok(user);
        }
        Ok(self.users().await.map_err(refused)?.get(name).cloned())
    }

    /// Returns the ids of the users, by the names of their folders.
    async fn users(&self) -> Result<Arc<BTreeMap<String, String>>, GraphError> {
        let mut kept = self.users.lock().await;
        if let Some(users) = kept.fresh(self.believed) {
            return Ok(users);
        }
        let listed = directory::users(&self.client).await;
        let listed = listed.map(|users| {
            let users = users.into_iter().filter(|user| !user.is_guest());
            users.map(|user| (folder_of(&user), user.id)).collect()
        });
        kept.keep(listed)
    }

    fn tree(&self, user: &str) -> Arc<Tree> {
        let mut trees = self.mailboxes.lock();
        let made = || {
            Arc::new(Tree {
                mailbox: Mailbox::new(self.client.clone(), user, false),
                contacts: Contacts::new(self.client.clone(), user),
                default_contacts: tokio::sync::OnceCell::new(),
                well_known: tokio::sync::OnceCell::new(),
                children: tokio::sync::Mutex::default(),
                believed: self.believed,
            })
        };
        trees.entry(user.to_owned()).or_insert_with(made).clone()
    }
}

fn folder_of(user: &directory::User) -> String {
    safe_name(&user.name(), "")
}

impl Tree {
    /// Returns the folders in the folder `parent`, or the top folders of the mailbox.
    async fn children(&self, parent: Option<&Folder>) -> Result<Arc<Vec<Folder>>, GraphError> {
        let mut children = self.children.lock().await;
        let id = parent.map_or(ROOT, |parent| &parent.id);
        let kept = children.entry(id.to_owned()).or_default();
        if let Some(folders) = kept.fresh(self.believed) {
            return Ok(folders);
        }
        if let Some(parent) = parent.filter(|parent| parent.kind == Kind::Contacts) {
            let listed = self.contacts.folders_in(&parent.id).await;
            return kept.keep(listed.map(named_for_contacts));
        }
        let well_known = self.well_known.get_or_try_init(async || self.mailbox.well_known().await).await?;
        let listed = match parent {
            None => self.mailbox.top_folders().await,
            Some(parent) => self.mailbox.child_folders(&parent.id).await,
        };
        // Every mailbox has contacts, and they do not stand among the folders for mail.
        let contacts = parent.is_none().then(Folder::contacts);
        kept.keep(listed.map(|folders| named(folders, well_known, contacts)))
    }

    /// Returns the folder called `name` in `parent`. At the top, the English name of a well-known folder works too.
    async fn child(&self, parent: Option<&Folder>, name: &str) -> Result<Option<Folder>, GraphError> {
        if parent.is_none() && name == CONTACTS {
            return Ok(Some(Folder::contacts()));
        }
        let folders = self.children(parent).await?;
        if let Some(folder) = folders.iter().find(|folder| folder.name == name) {
            return Ok(Some(folder.clone()));
        }
        let english = WELL_KNOWN.iter().find(|(_, english)| parent.is_none() && *english == name);
        let well_known = self.well_known.get();
        let meant = |(known, _): &(&str, &str)| {
            let id = well_known?.iter().find(|(_, name)| *name == known)?.0;
            folders.iter().find(|folder| folder.id == *id).cloned()
        };
        Ok(english.and_then(meant))
    }
}

/// Gives folders the same names as in a snapshot. `other` is a folder of another kind that stands among them.
fn named(
    mut folders: Vec<MailFolder>,
    well_known: &HashMap<String, &'static str>,
    other: Option<Folder>,
) -> Vec<Folder> {
    folders.retain(|folder| !folder.is_search() && !folder.is_hidden);
    folders.sort_by(|a, b| (&a.display_name, &a.id).cmp(&(&b.display_name, &b.id)));
    let mut names = UniqueNames::new();
    names.reserve(REPORT_NAME);
    other.iter().for_each(|other| _ = names.reserve(&other.name));
    let folder = |folder: MailFolder| Folder {
        name: names.claim(&mail_folder_name(folder.display_name.as_deref().unwrap_or_default())),
        accepts: !well_known.get(&folder.id).is_some_and(|known| CLOSED_FOLDERS.contains(known)),
        id: folder.id,
        kind: Kind::Mail,
    };
    folders.into_iter().map(folder).chain(other).collect()
}

/// Gives folders for contacts the same names as in a snapshot.
fn named_for_contacts(mut folders: Vec<ContactFolder>) -> Vec<Folder> {
    folders.sort_by(|a, b| (&a.display_name, &a.id).cmp(&(&b.display_name, &b.id)));
    let mut names = UniqueNames::new();
    names.reserve(REPORT_NAME);
    let folder = |folder: ContactFolder| Folder {
        name: names.claim(&contact_folder_name(folder.display_name.as_deref().unwrap_or_default())),
        accepts: true,
        id: folder.id,
        kind: Kind::Contacts,
    };
    folders.into_iter().map(folder).collect()
}

/// Turns an error of the service into one that a file system can report.
pub fn refused(error: GraphError) -> OutboxError {
    use ErrorKind::{Denied, MissingPermission, NoMailbox, NotFound, QuotaExceeded, SignIn};
    let reason = chain(&error);
    match error.kind() {
        NotFound | NoMailbox => OutboxError::NotFound,
        Denied | MissingPermission | QuotaExceeded | SignIn => OutboxError::Denied { reason },
        _ => OutboxError::Unreachable { reason },
    }
}
