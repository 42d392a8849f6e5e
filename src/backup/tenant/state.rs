//! What a snapshot says of a mailbox beside its tree: what it is for, and the states of its collections.
//!
//! It is JSON and stands in the snapshot that holds the tree it describes, so that any machine can continue from there
//! (docs/repository-format.md, "Source state").

pub use crate::backup::collection::state::{CollectionState, FolderState, Ledger};

use crate::backup::collection::item::ItemKey;
use crate::backup::context::Context;
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
    /// Its mail.
    #[serde(flatten)]
    pub mail: CollectionState,
}

impl MailboxState {
    /// Makes the state of a mailbox, called `name` in the snapshot.
    pub fn new(name: String, purpose: Option<String>, mail: CollectionState) -> Self {
        Self { version: VERSION, name, purpose, kept: None, mail }
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

    /// Returns the counts of everything in it together.
    pub fn ledger(&self) -> Ledger {
        self.mail.ledger()
    }

    /// Counts everything as carried over from an earlier run, except what failed.
    pub fn carry(&mut self) {
        self.mail.carry();
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
