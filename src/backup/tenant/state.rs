//! The state of a user: the purpose of the mailbox, and the states of its collections. The state of an organisation.
//!
//! A snapshot holds the states as JSON, beside the trees that they describe. So any machine can continue from the
//! snapshot (docs/repository-format.md, "Source state").

pub use crate::backup::collection::state::{CollectionState, FolderState, Ledger, tops_of};

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
/// The key of the organisation's id in the source state of a snapshot.
const TENANT: &str = "tenant";
/// The key of the counts in the source state of a snapshot.
const LEDGER: &str = "ledger";
/// Number of states that are read from the local state at a time.
const STATES_AT_ONCE: usize = 16;

/// What the next run needs to know of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxState {
    version: u32,
    /// The name of its user's folder in the snapshot.
    pub name: String,
    /// The purpose of the mailbox: `user`, `shared`, `room`, `equipment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Why the mailbox is kept although the service does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The state of the mail. It has no folders if the mail was never backed up.
    #[serde(flatten)]
    pub mail: CollectionState,
    /// The state of the contacts, if they were backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<CollectionState>,
    /// The state of the tasks, if they were backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<CollectionState>,
    /// The state of the calendars, if they were backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendars: Option<CollectionState>,
}

impl MailboxState {
    /// Makes the state of the mailbox of a user whose folder is called `name`.
    pub fn new(
        name: String,
        purpose: Option<String>,
        mail: CollectionState,
        contacts: Option<CollectionState>,
        tasks: Option<CollectionState>,
        calendars: Option<CollectionState>,
    ) -> Self {
        Self { version: VERSION, name, purpose, kept: None, mail, contacts, tasks, calendars }
    }

    /// Reads the state of the user with the id `user` from `parts`, the directory of states in a snapshot. Returns
    /// `None` if there is none, or if a later version wrote it.
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

    /// Returns the sum of the counts of all collections.
    pub fn ledger(&self) -> Ledger {
        let mut sum = self.mail.ledger();
        self.contacts
            .iter()
            .chain(&self.tasks)
            .chain(&self.calendars)
            .for_each(|collection| sum += collection.ledger());
        sum
    }

    /// Counts everything as carried over from an earlier run, except what failed.
    pub fn carry(&mut self) {
        self.mail.carry();
        self.contacts.iter_mut().chain(&mut self.tasks).chain(&mut self.calendars).for_each(CollectionState::carry);
    }
}

/// The state of an organisation.
#[derive(Debug, Clone, Default)]
pub struct TenantState {
    /// The id of the organisation, if it is known.
    pub tenant: Option<String>,
    /// The sum of the counts of all users.
    pub ledger: Ledger,
}

impl TenantState {
    /// Reads the state from a snapshot. Returns `None` if the snapshot is not one of an organisation.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        let tenant = snapshot.source_state.get(TENANT)?;
        let tenant = Some(String::from_utf8_lossy(tenant).into_owned()).filter(|tenant| !tenant.is_empty());
        let ledger = snapshot.source_state.get(LEDGER).and_then(|json| serde_json::from_slice(json).ok());
        Some(Self { tenant, ledger: ledger.unwrap_or_default() })
    }

    /// Returns the source state of a snapshot.
    pub fn encode(&self) -> BTreeMap<String, Vec<u8>> {
        let tenant = self.tenant.clone().unwrap_or_default().into_bytes();
        let ledger = serde_json::to_vec(&self.ledger).expect("numbers can be written as JSON");
        BTreeMap::from([(TENANT.to_owned(), tenant), (LEDGER.to_owned(), ledger)])
    }
}

impl Context {
    /// Returns the state that the user with the id `user` has in the previous snapshot. Returns `None` if that is
    /// damaged, or if a later version wrote it: the mailbox is listed anew then.
    ///
    /// # Errors
    /// If the repository cannot be read.
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

    /// Keeps the state of the user with the id `user` in the local state until all of them go into the repository.
    /// Thousands of states would fill the memory.
    pub fn keep_state(&self, user: &str, state: &MailboxState) -> Result<(), StoreError> {
        let json = serde_json::to_vec(state).expect("strings and numbers can be written as JSON");
        let len = (user.len() as u32).to_be_bytes();
        let value = [len.as_slice(), user.as_bytes(), &json].concat();
        Ok(self.store.local().put_aside(self.states, &ItemKey::of(user).0, &value)?)
    }

    /// Stores the states that were kept, as a directory sorted by name.
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

/// Returns the name of a user's state. Ids come from outside and may not be legal names, so their keys are used. The
/// names sort as the keys do.
fn part_name(key: ItemKey) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
