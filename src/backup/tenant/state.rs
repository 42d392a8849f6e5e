//! What a snapshot says of a mailbox beside its tree: where to ask for changes, and the ledger.
//!
//! It is JSON and stands in the snapshot that holds the tree it describes, so that any machine can continue from there
//! (docs/repository-format.md, "Source state").

use super::Context;
use super::previous::ItemKey;
use crate::backup::splitter::Splitter;
use crate::format::entry::{Directory, Entry, EntryKind, Timestamp};
use crate::format::snapshot::Snapshot;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::store::StoreError;
use crate::repository::tree::build::Cutter;
use crate::repository::tree::{self, TreeBuilder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::AddAssign;

const VERSION: u32 = 1;
/// The organisation stands under this.
const TENANT: &str = "tenant";
/// The counts stand under this.
const LEDGER: &str = "ledger";
/// States that are stored at a time.
const STATES_AT_ONCE: usize = 16;

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
    /// Whether export streams belong to the snapshot, and what lacks one was counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streams: bool,
    /// Which comparison everything in it has passed (`mailbox::audit`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compared: u32,
    /// The name up to which that has been looked at, where there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<String>,
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

fn is_zero(number: &u32) -> bool {
    *number == 0
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
    /// Of all that stands there, what has no export stream although the set asks for them.
    #[serde(default)]
    pub streamless: u64,
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
        self.streamless += other.streamless;
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

    /// Reads what a snapshot whose states are `parts` knows of the mailbox of the user with this id; `None` if it knows
    /// nothing, or a later version wrote it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(reader: &Reader, parts: &Directory, user: &str) -> Result<Option<Self>, ReadError> {
        let found = tree::find(reader, parts, part_name(ItemKey::of(user)).as_bytes())?;
        let Some(found) = found.filter(|found| found.entry().facts.source_id.as_deref() == Some(user)) else {
            return Ok(None);
        };
        let Some(content) = found.entry().content() else { return Ok(None) };
        let mut json = Vec::new();
        reader.read(content, 0, usize::MAX, &mut json)?;
        let state = serde_json::from_slice(&json).ok();
        Ok(state.filter(|state: &Self| state.version == VERSION))
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

/// What a snapshot says of an organisation as a whole.
#[derive(Debug, Clone, Default)]
pub struct TenantState {
    /// The id of the organisation, if it is known.
    pub tenant: Option<String>,
    /// The counts of all mailboxes together.
    pub ledger: Ledger,
}

impl TenantState {
    /// Reads the state out of a snapshot; `None` if it is not one of an organisation.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        let tenant = snapshot.source_state.get(TENANT)?;
        let tenant = Some(String::from_utf8_lossy(tenant).into_owned()).filter(|tenant| !tenant.is_empty());
        let ledger = snapshot.source_state.get(LEDGER).and_then(|json| serde_json::from_slice(json).ok());
        Some(Self { tenant, ledger: ledger.unwrap_or_default() })
    }

    /// Returns what stands in the snapshot.
    pub fn encode(&self) -> BTreeMap<String, Vec<u8>> {
        let tenant = self.tenant.clone().unwrap_or_default().into_bytes();
        let ledger = serde_json::to_vec(&self.ledger).expect("numbers can be written as JSON");
        BTreeMap::from([(TENANT.to_owned(), tenant), (LEDGER.to_owned(), ledger)])
    }
}

impl Context {
    /// Returns what the snapshot before knows of the mailbox of the user with this id, if that can be read.
    ///
    /// # Errors
    /// When the repository cannot be read. Where it is damaged, or written by a later version, the mailbox is listed
    /// anew.
    pub fn state_before(&self, user: &str) -> Result<Option<MailboxState>, ReadError> {
        let Some(parts) = &self.parts_before else { return Ok(None) };
        match MailboxState::read(&self.reader, parts, user) {
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "what the last snapshot knows of a mailbox cannot be read");
                Ok(None)
            }
            read => read,
        }
    }

    /// Keeps what the next run needs to know of the mailbox of the user with this id, until all of it goes into the
    /// repository: thousands of mailboxes would fill the memory.
    pub fn keep_state(&self, user: &str, state: &MailboxState) -> Result<(), StoreError> {
        let json = serde_json::to_vec(state).expect("strings and numbers can be written as JSON");
        let len = (user.len() as u32).to_be_bytes();
        let value = [len.as_slice(), user.as_bytes(), &json].concat();
        Ok(self.store.local().put_aside(self.states, &ItemKey::of(user).0, &value)?)
    }

    /// Stores the states that were kept, as a directory in the order of their names.
    pub fn store_states(&self, splitter: &mut Splitter) -> Result<Directory, StoreError> {
        let cutter = Cutter::new(self.repository.keys(), self.repository.config().node_size);
        let mut builder = TreeBuilder::new(cutter);
        let mut after = None;
        loop {
            let rows = self.store.local().set_aside(self.states, after.as_deref(), STATES_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, value) in &rows {
                let intact = "the local state gives back what this run wrote, authenticated";
                let (len, rest) = value.split_first_chunk().expect(intact);
                let (user, json) = rest.split_at(u32::from_be_bytes(*len) as usize);
                let key = ItemKey(*key.first_chunk().expect(intact));
                let kind = EntryKind::File(splitter.split_payload(json)?);
                let mut entry = Entry::new(part_name(key).as_bytes(), kind, Timestamp::default());
                entry.facts.source_id = Some(String::from_utf8_lossy(user).into_owned());
                builder.push(entry, &mut &*self.store)?;
            }
            splitter.flush()?;
        }
        builder.finish(&mut &*self.store)
    }
}

/// Ids come from outside; what stands for them is a name in any case, and sorts as the keys do.
fn part_name(key: ItemKey) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
