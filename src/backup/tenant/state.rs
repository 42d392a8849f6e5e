//! What a snapshot says of a mailbox beside its tree: where to ask for changes, and the ledger.
//!
//! It is JSON and stands in the snapshot that holds the tree it describes, so that any machine can continue from there
//! (docs/repository-format.md, "Source state").

use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::AddAssign;

const VERSION: u32 = 1;
/// The state of a mailbox stands under this and the id of its user.
const MAIL: &str = "mail/";
/// The organisation stands under this.
const TENANT: &str = "tenant";

/// What the next run needs to know of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxState {
    version: u32,
    /// The name of its user's folder in the snapshot.
    pub name: String,
    /// What the mailbox is for: `user`, `shared`, `room`, `equipment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Why it is kept although the service does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Whether folders that Outlook does not show are among them.
    #[serde(default)]
    pub hidden: bool,
    /// Where to ask what became of its folders; none if that is not to be relied on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_link: Option<String>,
    /// Its folders, parents before their children.
    pub folders: Vec<FolderState>,
}

/// What the next run needs to know of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderState {
    /// Its id.
    pub id: String,
    /// The folder it lies in; none, or one that is not listed, at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The name that people see.
    pub display: String,
    /// Its name in the snapshot.
    pub name: String,
    /// The name that it has in every mailbox, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_known: Option<String>,
    /// How many folders lay in it.
    #[serde(default)]
    pub children: u64,
    /// Whether its messages belong to the snapshot.
    #[serde(default)]
    pub selected: bool,
    /// Where to ask for changes of its messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When all of its messages were listed last, in seconds since 1970.
    #[serde(default)]
    pub listed: i64,
    /// The counts.
    #[serde(default)]
    pub ledger: Ledger,
    /// The messages that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedItem>,
    /// Why the folder as a whole could not be read; what stands in the snapshot is as it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A message that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItem {
    /// Its id.
    pub id: String,
    /// What it is or would be called.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Where every item of a folder went: `enumerated = stored + carried + failed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// What the service counted, of any kind; changes while one looks.
    pub counted: u64,
    /// What it listed.
    pub enumerated: u64,
    /// What this run wrote.
    pub stored: u64,
    /// What stands as an earlier run wrote it.
    pub carried: u64,
    /// What could not be read as it is now; an older version may stand in its place.
    pub failed: u64,
}

impl Ledger {
    /// Returns whether nothing is missing.
    pub fn adds_up(&self) -> bool {
        self.enumerated == self.stored + self.carried + self.failed
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.enumerated += other.enumerated;
        self.stored += other.stored;
        self.carried += other.carried;
        self.failed += other.failed;
    }
}

impl MailboxState {
    /// Starts the state of a mailbox that nothing is known of.
    pub fn new(name: String) -> Self {
        Self {
            version: VERSION,
            name,
            purpose: None,
            kept: None,
            hidden: false,
            folder_link: None,
            folders: Vec::new(),
        }
    }

    /// Returns the path of the folder at `index` below the mailbox.
    pub fn path(&self, index: usize) -> String {
        let folder = &self.folders[index];
        let parent = folder.parent.as_deref().and_then(|id| self.folders[..index].iter().position(|f| f.id == id));
        match parent {
            Some(parent) => format!("{}/{}", self.path(parent), folder.name),
            None => folder.name.clone(),
        }
    }

    /// Returns the counts of all folders together.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        self.folders.iter().filter(|folder| folder.selected).for_each(|folder| sum += folder.ledger);
        sum
    }
}

/// What a snapshot knows of an organisation.
#[derive(Debug, Clone, Default)]
pub struct TenantState {
    /// The id of the organisation, if it is known.
    pub tenant: Option<String>,
    /// The mailboxes by the ids of their users.
    pub mailboxes: BTreeMap<String, MailboxState>,
}

impl TenantState {
    /// Reads the state out of a snapshot; `None` if it is not one of an organisation.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        let tenant = snapshot.source_state.get(TENANT)?;
        let tenant = Some(String::from_utf8_lossy(tenant).into_owned()).filter(|tenant| !tenant.is_empty());
        let mailboxes = snapshot.source_state.iter().filter_map(|(key, value)| {
            let state: MailboxState = serde_json::from_slice(value).ok()?;
            // What a later version wrote is not understood: its mailbox is listed anew.
            (state.version == VERSION).then_some((key.strip_prefix(MAIL)?.to_owned(), state))
        });
        Some(Self { tenant, mailboxes: mailboxes.collect() })
    }

    /// Returns what stands in the snapshot.
    pub fn encode(&self) -> BTreeMap<String, Vec<u8>> {
        let mailboxes = self.mailboxes.iter().map(|(user, state)| {
            let json = serde_json::to_vec(state).expect("strings and numbers can be written as JSON");
            (format!("{MAIL}{user}"), json)
        });
        let tenant = (TENANT.to_owned(), self.tenant.clone().unwrap_or_default().into_bytes());
        std::iter::once(tenant).chain(mailboxes).collect()
    }

    /// Returns the counts of all mailboxes together.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        self.mailboxes.values().for_each(|mailbox| sum += mailbox.ledger());
        sum
    }
}
