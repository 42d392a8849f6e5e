//! The mail of a mailbox as a target.
//!
//! What is particular to mail: a message is created from the parts of its stored bytes ([`message`]), after a second
//! look at these bytes has found the same ([`witness`]); files that do not fit into the request are attached afterwards
//! ([`attachments`]); a message that was exported as a stream goes back as that stream ([`import`]).

mod attachments;
mod backed_up;
mod compare;
mod file;
mod fingerprint;
mod import;
mod message;
mod witness;

use self::backed_up::BackedUpProperties;
use self::compare::Expected;
use self::import::Importer;
use self::message::Mail;
use super::super::context::{Context, MailboxContext};
use super::super::existing_items::{ExistingItem, Likeness};
use super::super::outcome::{ItemError, ItemOutcome};
use super::super::target::{ChildFolder, EachItem, FolderRule, Loss, MadeFolder, NewItem, Stage, Target, Task};
use crate::content::mail as reader;
use crate::format::entry::{Content, Entry};
use crate::runtime::guarded;
use crate::source::graph::mail::{Mailbox, RECOVERABLE_ITEMS, WELL_KNOWN};
use crate::source::graph::model::{Message as StoredMessage, parse_date};
use crate::source::graph::write::{Marked, Standing, same_name};
use crate::source::graph::{Client, ErrorKind, GraphError};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::{OnceCell, RwLock};

pub use self::message::attached_files;

/// Well-known folders that a restored message may be put into.
const SHARED_FOLDERS: [&str; 12] = [
    "inbox",
    "sentitems",
    "drafts",
    "deleteditems",
    "junkemail",
    "archive",
    "conversationhistory",
    "clutter",
    "syncissues",
    "conflicts",
    "localfailures",
    "serverfailures",
];
/// Well-known folders whose messages the service acts on: it sends them, or removes them.
const APART_FOLDERS: [&str; 3] = ["outbox", "scheduled", RECOVERABLE_ITEMS];
/// The loss of a message that has an export stream, and was created from its MIME form instead.
const WITHOUT_STREAM: &str = "messages went back from MIME, without what only their export streams hold";

/// The mail of a mailbox.
pub struct MailTarget {
    mailbox: Mailbox,
    importer: Importer,
    well_known: OnceCell<Arc<HashMap<&'static str, String>>>,
}

/// A message that was read from the snapshot.
pub(in crate::restore::account) struct MailItem {
    /// The stored MIME form, from which large files are read again.
    content: Content,
    mail: Mail,
    expected: Expected,
    /// What the service said of the message. Read only if the message has an export stream, since it may have been
    /// imported.
    backed_up: Option<BackedUpProperties>,
}

impl MailTarget {
    /// Names the mail of the user with this id.
    pub fn new(client: Client, user: &str) -> Self {
        // Hidden folders are included, because a new folder cannot have the name of one of them.
        let mailbox = Mailbox::new(client, user, true);
        Self { importer: Importer::new(mailbox.clone()), mailbox, well_known: OnceCell::new() }
    }
}

/// Returns the existing item that a row describes.
fn existing(row: Standing) -> ExistingItem {
    let likeness = likeness_of(row.internet_message_id.as_deref(), row.received.or(row.sent));
    ExistingItem { id: row.id, version: row.change_key, mark: row.mark, likeness }
}

fn likeness_of(message_id: Option<&str>, time: Option<i64>) -> Option<Likeness> {
    let id = message_id?.trim_matches(['<', '>', ' ']);
    (!id.is_empty()).then(|| Likeness(format!("{id}\n{}", time.map_or_else(String::new, |time| time.to_string()))))
}

impl Target for MailTarget {
    type Item = MailItem;

    const NOT_OF_THIS_KIND: &'static str = "it is no mail";
    const ROOT: &'static str = "msgfolderroot";
    // A folder may hold a million other messages, so a few are asked for by themselves.
    const ASKED_MAX: u64 = 24;

    fn is_of_this_kind(entry: &Entry) -> bool {
        // A contact has a payload, too.
        if super::contacts::is_named_as_contact(entry) {
            return false;
        }
        let facts = &entry.facts;
        let has_facts = [&facts.from, &facts.message_id, &facts.subject].iter().any(|fact| fact.is_some());
        entry.payload.is_some()
            || entry.text().is_some()
            || has_facts
            || facts.date.is_some()
            || reader::is_named_as_mail(&entry.name)
    }

    fn folder_rule(well_known: &str) -> FolderRule {
        if SHARED_FOLDERS.contains(&well_known) {
            FolderRule::SameWellKnown
        } else if APART_FOLDERS.contains(&well_known) {
            FolderRule::Apart
        } else {
            FolderRule::SameName
        }
    }

    fn folder_meant(name: &str) -> Option<&'static str> {
        let is_called = |known: &str| WELL_KNOWN.iter().any(|(id, english)| *id == known && same_name(english, name));
        SHARED_FOLDERS.iter().find(|known| is_called(known)).copied()
    }

    async fn well_known_folders(&self) -> Result<Arc<HashMap<&'static str, String>>, GraphError> {
        let ask = async || {
            let by_id = self.mailbox.well_known().await?;
            Ok::<_, GraphError>(Arc::new(by_id.into_iter().map(|(id, name)| (name, id)).collect()))
        };
        self.well_known.get_or_try_init(ask).await.cloned()
    }

    async fn child_folders(&self, parent: &str) -> Result<Vec<ChildFolder>, GraphError> {
        let children = self.mailbox.child_folders(parent).await?.into_iter().filter(|child| !child.is_search());
        let folder = |child: crate::source::graph::model::MailFolder| ChildFolder {
            id: child.id,
            name: child.display_name.unwrap_or_default(),
        };
        Ok(children.map(folder).collect())
    }

    async fn make_folder(&self, parent: &str, name: &str) -> Result<MadeFolder, GraphError> {
        let (id, is_new) = self.mailbox.make_folder(parent, name).await?;
        Ok(MadeFolder { id, is_new })
    }

    fn likeness(_context: &Context, entry: &Entry) -> Option<Likeness> {
        likeness_of(entry.facts.message_id.as_deref(), entry.facts.date)
    }

    async fn list_existing(&self, folder: &str, each: EachItem<'_>) -> Result<(), GraphError> {
        self.mailbox.standing(folder, |row| each(existing(row))).await
    }

    async fn find_existing(&self, folder: &str, entry: &Entry, each: EachItem<'_>) -> Result<(), GraphError> {
        let facts = &entry.facts;
        self.mailbox.alike(folder, facts.message_id.as_deref(), facts.date, |row| each(existing(row))).await
    }

    async fn existing_item(&self, id: &str, folder: &str) -> Result<Option<ExistingItem>, GraphError> {
        let message = match self.mailbox.message(id).await {
            // The id comes from another organisation.
            Err(error) if error.kind() == ErrorKind::BadRequest => None,
            message => message?,
        };
        let message = message.filter(|message| message.row.parent_folder_id.as_deref() == Some(folder));
        Ok(message.map(|message| {
            let received = message.row.received_date_time.as_deref().and_then(parse_date);
            ExistingItem {
                likeness: likeness_of(message.row.internet_message_id.as_deref(), received),
                mark: message.row.mark().map(str::to_owned),
                version: message.row.change_key,
                id: message.row.id,
            }
        }))
    }

    async fn marked(&self, folder: &str, mark: &str) -> Result<Vec<Marked>, GraphError> {
        self.mailbox.marked(folder, mark).await
    }

    fn read(context: &Context, entry: &Entry, folder: &str) -> Result<MailItem, ItemError> {
        let content = entry.content().ok_or_else(|| ItemError::Item("it is no file".to_owned()))?;
        let mime = context.contents.read(content)?;
        let payload = entry.payload.as_ref().map(|payload| context.contents.read(payload)).transpose()?;
        let is_mail = payload.is_some() || Self::is_of_this_kind(entry) || reader::looks_like_mail(&mime);
        if !is_mail || super::contacts::is_named_as_contact(entry) {
            return Err(ItemError::Item(Self::NOT_OF_THIS_KIND.to_owned()));
        }
        let stored = payload.as_ref().and_then(|json| serde_json::from_slice::<StoredMessage>(json).ok());
        let mail = guarded(|| proven(Mail::read(&mime, stored.as_ref()), &mime))?.map_err(ItemError::Item)?;
        let backed_up = payload.filter(|_| entry.stream().is_some());
        Ok(MailItem {
            content: content.clone(),
            expected: Expected::of(&mail, folder),
            mail,
            backed_up: backed_up.as_deref().and_then(BackedUpProperties::read),
        })
    }

    fn request(item: &MailItem) -> Result<NewItem, String> {
        let message::Request { properties, files_left } = item.mail.request()?;
        Ok(NewItem { properties, parts_left: files_left })
    }

    async fn create(&self, folder: &str, properties: &Value) -> Result<String, GraphError> {
        self.mailbox.create_message(folder, properties).await
    }

    async fn change(&self, id: &str, properties: &Value) -> Result<(), GraphError> {
        self.mailbox.change_message(id, properties).await
    }

    async fn complete(
        &self,
        mailbox: &MailboxContext,
        item: &MailItem,
        id: &str,
        parts_left: Option<usize>,
    ) -> Result<bool, ItemError> {
        self.attachments(mailbox, item, id).complete(parts_left).await
    }

    async fn repair(&self, mailbox: &MailboxContext, item: &MailItem, id: &str) -> Result<(), ItemError> {
        self.attachments(mailbox, item, id).repair().await
    }

    async fn difference(
        &self,
        item: &MailItem,
        id: &str,
        folder: &str,
        stage: Stage,
    ) -> Result<Option<String>, GraphError> {
        if let Some(backed_up) = item.backed_up.as_ref().filter(|_| stage == Stage::Old) {
            let found = self.mailbox.message(id).await?;
            let found = found.and_then(|found| serde_json::from_str::<Value>(found.raw.get()).ok());
            if found.is_some_and(|found| backed_up.difference(&found, folder, false).is_none()) {
                return Ok(None);
            }
        }
        item.expected.difference(&self.mailbox, id, stage == Stage::New).await
    }

    async fn delete(&self, id: &str) -> Result<(), GraphError> {
        self.mailbox.delete_message(id).await
    }

    async fn take_back(&self, id: &str) -> Result<(), GraphError> {
        self.mailbox.take_back_message(id).await
    }

    fn may_lack_mark(entry: &Entry) -> bool {
        entry.stream().is_some()
    }

    async fn restore_otherwise(
        &self,
        mailbox: &MailboxContext,
        task: &Task<'_>,
        is_alike: bool,
    ) -> Result<Option<ItemOutcome>, ItemError> {
        let Some(stream) = task.entry.stream() else { return Ok(None) };
        let well_known = self.well_known_folders().await?;
        let likeness = Self::likeness(&mailbox.run, task.entry);
        let taken = || {
            let taken = task.folder.existing.lock().taken(likeness.as_ref());
            taken.saturating_sub(usize::from(is_alike))
        };
        self.importer.restore(mailbox, &well_known, task, stream, &taken).await
    }

    fn unmarked(&self) -> Option<&RwLock<()>> {
        Some(self.importer.unmarked())
    }

    fn losses(&self) -> BTreeMap<Loss, u64> {
        let reasons = self.importer.created_otherwise();
        reasons.into_iter().map(|(why, items)| (Loss { what: WITHOUT_STREAM, why }, items)).collect()
    }
}

impl MailTarget {
    fn attachments<'a>(
        &'a self,
        mailbox: &'a MailboxContext,
        item: &'a MailItem,
        id: &'a str,
    ) -> attachments::Attachments<'a> {
        let files = &item.mail.files;
        attachments::Attachments { mailbox: &self.mailbox, run: &mailbox.run, content: &item.content, files, id }
    }
}

/// Returns `mail` if a second look at the stored bytes finds the same in them ([`witness`]).
///
/// # Errors
/// What the mail lacks, or has and should not.
fn proven(mail: Mail, mime: &[u8]) -> Result<Mail, String> {
    // A mail with too many parts is not created anyway.
    let objection = match mail.has_too_many_parts() {
        true => None,
        false => witness::objection(&reader::readable(mime), &mail),
    };
    objection.map_or(Ok(mail), Err)
}
