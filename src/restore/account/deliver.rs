//! Brings one item into a mailbox: made, completed, compared; or found there, and left.
//!
//! The one request that makes a message gives it its mark, and as much of what is attached as fits in. What does not
//! fit follows, and as long as it does the mark says that the message is not complete. So whatever is interrupted, the
//! next run sees what there is, and completes it rather than making it again.
//!
//! An item that was exported as a stream goes back as that stream where the service takes it ([`super::import`]).

use super::Context;
use super::file::{File, FileBytes};
use super::guide::Spot;
use super::import::Importer;
use super::journal::{Journal, Key};
use super::message::Mail;
use super::patience::Patience;
use super::there::{Found, Mark};
use super::twins::Doubt;
use super::verify::{Attached, Expected, Told, attached, print};
use crate::format::entry::{Content, Entry};
use crate::repository::read_error::ReadError;
use crate::restore::{WhenExists, chain};
use crate::runtime::{Fault, blocking, guarded};
use crate::source::graph::mail::Mailbox;
use crate::source::graph::write::{ATTACHMENT_WHOLE_BYTES_MAX, RANGE_BYTES_MAX, job_property, mark_property};
use crate::source::graph::{ErrorKind, GraphError};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often something is tried whose answer was lost, each time after a look at what became of it.
pub(super) const ATTEMPTS_MAX: u32 = 7;
/// How often a message is read back before it counts as different from what it should be.
pub(super) const LOOKS_MAX: u32 = 3;
/// The first wait before that; it doubles. What was just made is not known everywhere at once.
const WAIT: Duration = Duration::from_millis(100);

/// The mailbox that items are brought into.
pub(super) struct Delivery {
    pub context: Arc<Context>,
    pub mailbox: Mailbox,
    pub journal: Mutex<Journal>,
    pub importer: Importer,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Restored,
    AlreadyThere,
    Skipped,
}

/// Why an item was not restored.
#[derive(Debug)]
pub(super) enum Trouble {
    /// For a reason of its own.
    Item(String),
    /// The repository does not answer. Nothing has been made of it yet.
    Away(String),
    /// The service did not answer, or not with sense.
    Unanswered(GraphError),
    /// As nothing else would be.
    Mailbox(GraphError),
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        let reason = chain(&error);
        if error.is_damage() { Self::Item(reason) } else { Self::Away(reason) }
    }
}

impl From<GraphError> for Trouble {
    fn from(error: GraphError) -> Self {
        use ErrorKind::{Cancelled, Denied, MissingPermission, NoMailbox, QuotaExceeded, SignIn, Throttled};
        match error.kind() {
            Cancelled | Denied | MissingPermission | NoMailbox | QuotaExceeded | SignIn | Throttled => {
                Self::Mailbox(error)
            }
            ErrorKind::Unavailable => Self::Unanswered(error),
            _ => Self::Item(chain(&error)),
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Item(fault.to_string())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Item(format!("could not keep the journal of the restore: {error}"))
    }
}

/// What is to be done with an item, given what stands in its place.
enum Plan {
    Make,
    /// Make it, and then delete what stands there.
    Replace(Old),
    /// A restore made it; see whether it is whole.
    Check {
        complete: bool,
    },
    Leave(Outcome),
}

enum Old {
    Id(String),
    Marked(Mark),
}

/// Returns what happens to an item in whose place `found` stands.
fn plan(found: Found, entry: &Entry, when_exists: WhenExists) -> Plan {
    match (found, when_exists) {
        (Found::Nothing, _) => Plan::Make,
        (Found::Itself | Found::Alike, _) => Plan::Leave(Outcome::AlreadyThere),
        (Found::Restored { complete }, _) => Plan::Check { complete },
        (Found::Changed | Found::OtherVersion(_), WhenExists::Skip) => Plan::Leave(Outcome::Skipped),
        (Found::Changed | Found::OtherVersion(_), WhenExists::KeepBoth) => Plan::Make,
        (Found::Changed, WhenExists::Overwrite) => {
            Plan::Replace(Old::Id(entry.facts.source_id.clone().unwrap_or_default()))
        }
        (Found::OtherVersion(mark), WhenExists::Overwrite) => Plan::Replace(Old::Marked(mark)),
    }
}

impl Delivery {
    /// Brings an item to its place.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn deliver(&self, entry: &Entry, spot: &Spot, found: Found) -> Result<Outcome, Trouble> {
        let folder = spot.folder.as_deref().expect("folders are made before anything is put there");
        let mark = Mark::of(entry, &self.context.keys);
        // What looks like it may be what an import made that was interrupted before it could be marked.
        if found == Found::Alike
            && entry.stream().is_some()
            && self.journal.lock().begun_at(&mark.key(folder)).is_some()
        {
            return Ok(self.import(entry, spot, &mark, true).await?.unwrap_or(Outcome::AlreadyThere));
        }
        match plan(found, entry, self.context.options.when_exists) {
            Plan::Leave(outcome) => Ok(outcome),
            Plan::Check { complete } => {
                let key = mark.key(folder);
                let is_clear = {
                    let journal = self.journal.lock();
                    journal.is_verified(&key) && !journal.is_doubtful(&key)
                };
                if complete && is_clear {
                    return Ok(Outcome::AlreadyThere);
                }
                self.check(entry, folder, &mark, complete).await
            }
            Plan::Make => self.make(entry, spot, folder, &mark).await,
            Plan::Replace(old) => {
                self.make(entry, spot, folder, &mark).await?;
                let old = match old {
                    Old::Id(id) => Some(id),
                    Old::Marked(mark) => self.mailbox.marked(folder, &mark.text(true)).await?.into_iter().next(),
                };
                // The new one stands already: what goes wrong from here on leaves one too many, never one too few.
                if let Some(old) = old {
                    self.mailbox.delete_message(&old).await?;
                }
                Ok(Outcome::Restored)
            }
        }
    }

    /// Makes the item: as the stream as which it was exported, or of what its parts say.
    async fn make(&self, entry: &Entry, spot: &Spot, folder: &str, mark: &Mark) -> Result<Outcome, Trouble> {
        if let Some(outcome) = self.import(entry, spot, mark, false).await? {
            return Ok(outcome);
        }
        let item = Item::read(self, entry, folder, mark).await?;
        let id = item.make().await?;
        spot.there.lock().know(&id);
        Ok(Outcome::Restored)
    }

    /// Returns what the service said of an item when it was backed up, if that is known.
    ///
    /// # Errors
    /// [`Trouble`] where it cannot be read.
    pub async fn told(&self, entry: &Entry) -> Result<Option<Told>, Trouble> {
        let (context, payload) = (self.context.clone(), entry.payload.clone());
        let Some(payload) = payload else { return Ok(None) };
        blocking(move || {
            let mut json = Vec::new();
            let read = context.reader.read(&payload, 0, usize::MAX, &mut json);
            Ok(read.map(|()| Told::read(&json))?)
        })
        .await
    }

    /// Returns whether a message is what the service said of the item: so it is compared where it may have been
    /// imported.
    async fn is_as_told(&self, entry: &Entry, folder: &str, id: &str) -> Result<bool, Trouble> {
        let Some(told) = self.told(entry).await?.filter(|_| entry.stream().is_some()) else { return Ok(false) };
        let found = self.mailbox.message(id).await?;
        let found = found.and_then(|found| serde_json::from_str::<Value>(found.raw.get()).ok());
        Ok(found.is_some_and(|found| told.difference(&found, folder, false).is_none()))
    }

    /// Completes and compares what an earlier run made.
    async fn check(&self, entry: &Entry, folder: &str, mark: &Mark, complete: bool) -> Result<Outcome, Trouble> {
        let noted = self.journal.lock().id_of(&mark.key(folder)).map(str::to_owned);
        let item = Item::read(self, entry, folder, mark).await?;
        let marked = self.mailbox.marked(folder, &mark.text(complete)).await?;
        let id = noted.filter(|noted| marked.contains(noted)).or_else(|| marked.into_iter().next());
        // It was listed a while ago, and may have been deleted since.
        let Some(id) = id else { return item.make().await.map(|_| Outcome::Restored) };
        let outcome = match complete {
            true => {
                match self.is_as_told(entry, folder, &id).await? {
                    true => self.journal.lock().verified(mark.key(folder))?,
                    false => item.compare(&id, false, false).await?,
                }
                Outcome::AlreadyThere
            }
            false => {
                item.finish(&id, None).await?;
                Outcome::Restored
            }
        };
        if self.journal.lock().is_doubtful(&mark.key(folder)) {
            item.take_back_twins(&id, ATTEMPTS_MAX).await?;
        }
        Ok(outcome)
    }
}

/// An item on its way.
struct Item<'a> {
    delivery: &'a Delivery,
    /// The mail as it is stored, of which large files are read again.
    content: Content,
    mail: Mail,
    expected: Expected,
    folder: &'a str,
    mark: &'a Mark,
}

impl<'a> Item<'a> {
    async fn read(delivery: &'a Delivery, entry: &Entry, folder: &'a str, mark: &'a Mark) -> Result<Self, Trouble> {
        let (context, entry) = (delivery.context.clone(), entry.clone());
        let to = folder.to_owned();
        let (content, mail, expected) = blocking(move || {
            let (content, mail) = context.read(&entry)?;
            let expected = Expected::of(&mail, &to);
            Ok::<_, Trouble>((content, mail, expected))
        })
        .await?;
        Ok(Self { delivery, content, mail, expected, folder, mark })
    }

    fn mailbox(&self) -> &Mailbox {
        &self.delivery.mailbox
    }

    /// Makes the message, completes and compares it, and returns its id.
    async fn make(&self) -> Result<String, Trouble> {
        let (mut request, after) = self.mail.request().map_err(Trouble::Item)?;
        let mark = self.mark.text(after.is_empty());
        let extended = request.entry("singleValueExtendedProperties").or_insert_with(|| json!([]));
        let extended = extended.as_array_mut().expect("it was made an array");
        extended.extend([mark_property(&mark), job_property(self.delivery.journal.lock().job())]);
        let request = Value::Object(request);
        let (id, twins_max) = self.create(&request, &mark).await?;
        self.delivery.journal.lock().made(self.key(), &id)?;
        let done = match after.is_empty() {
            true => self.compare(&id, true, false).await,
            false => self.finish(&id, Some(after)).await,
        };
        done?;
        if twins_max > 0 {
            self.take_back_twins(&id, twins_max).await?;
        }
        Ok(id)
    }

    fn key(&self) -> Key {
        self.mark.key(self.folder)
    }

    async fn take_back_twins(&self, id: &str, twins_max: u32) -> Result<(), Trouble> {
        let doubt = Doubt { folder: self.folder, mark: self.mark, key: self.key(), id, twins_max };
        Ok(self.delivery.take_back_twins(&doubt).await??)
    }

    /// Makes the message once, however often the answer is lost, and whenever the service does the work. Returns its
    /// id, and how many others there may come to be all the same.
    async fn create(&self, request: &Value, mark: &str) -> Result<(String, u32), Trouble> {
        let begun_at = self.delivery.journal.lock().begun_at(&self.key());
        if let Some(begun_at) = begun_at
            && let Some(id) = self.made_since(begun_at.into(), mark).await?
        {
            return Ok((id, 0));
        }
        let mut unclear = u32::from(begun_at.is_some());
        let mut attempt = 1;
        loop {
            self.delivery.journal.lock().sending(self.key())?;
            if unclear > 0 {
                self.delivery.journal.lock().doubtful(self.key())?;
            }
            let error = match self.mailbox().create_message(self.folder, request).await {
                Ok(id) => return Ok((id, unclear)),
                Err(error) => error,
            };
            if !error.is_ambiguous() {
                // A request that was broken off may arrive all the same.
                if unclear == 0 && error.kind() != ErrorKind::Cancelled {
                    self.delivery.journal.lock().ended(self.key())?;
                }
                return Err(error.into());
            }
            if attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            if let Some(id) = self.made_since(Instant::now(), mark).await? {
                return Ok((id, unclear));
            }
            unclear += 1;
            attempt += 1;
        }
    }

    /// Looks for the message that a request has made which broke off at `broken_off`.
    async fn made_since(&self, broken_off: Instant, mark: &str) -> Result<Option<String>, Trouble> {
        let mut patience = Patience::since(broken_off);
        while patience.has_another_look().await {
            if let Some(id) = self.mailbox().marked(self.folder, mark).await?.into_iter().next() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Attaches what is missing, says that the message is complete, and compares it. `missing` is known of a message
    /// that was just made.
    async fn finish(&self, id: &str, missing: Option<&[File]>) -> Result<(), Trouble> {
        let is_unclear = match self.complete(id, missing).await {
            Err(trouble @ (Trouble::Item(_) | Trouble::Away(_) | Trouble::Unanswered(_))) => {
                let reason = match trouble {
                    Trouble::Item(reason) | Trouble::Away(reason) => reason,
                    Trouble::Unanswered(error) | Trouble::Mailbox(error) => chain(&error),
                };
                // Half a message is worse than none.
                let left = self.mailbox().take_back_message(id).await.err();
                let left =
                    left.map(|error| format!("; what there is of it could not be taken back: {}", chain(&error)));
                return Err(Trouble::Item(format!("{reason}{}", left.unwrap_or_default())));
            }
            done => done?,
        };
        let mark = json!({ "singleValueExtendedProperties": [mark_property(&self.mark.text(true))] });
        self.mailbox().change_message(id, &mark).await?;
        self.compare(id, missing.is_some(), is_unclear).await
    }

    /// Attaches what is missing. Returns whether some of it may be attached twice, as it was not clear what became of a
    /// request.
    async fn complete(&self, id: &str, missing: Option<&[File]>) -> Result<bool, Trouble> {
        let mut missing: Vec<&File> = match missing {
            Some(missing) => missing.iter().collect(),
            None => self.missing(id).await?,
        };
        let mut attempt = 1;
        let mut is_unclear = false;
        loop {
            let mut failed = None;
            for (number, file) in missing.iter().enumerate() {
                let bytes = self.bytes_of(file).await?;
                if let Err(error) = self.attach(id, file, &bytes).await {
                    failed = Some((error, missing.len() - number));
                    break;
                }
            }
            let Some((error, left)) = failed else { return Ok(is_unclear) };
            // A message that was just made is not known to every server at once.
            let may_pass = error.is_ambiguous() || error.is_transient() || error.kind() == ErrorKind::NotFound;
            if !may_pass || attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            match error.is_ambiguous() {
                true => {
                    is_unclear = true;
                    self.wait_for_attachment(id, self.mail.files.len() - left).await?;
                }
                false => wait(attempt).await,
            }
            attempt += 1;
            missing = self.missing(id).await?;
        }
    }

    /// Waits until more is attached than `known`: what a request attaches whose answer was lost. Gives up after a
    /// while.
    async fn wait_for_attachment(&self, id: &str, known: usize) -> Result<(), Trouble> {
        let mut patience = Patience::since(Instant::now());
        while patience.has_another_look().await {
            if self.mailbox().attachments(id).await?.len() > known {
                break;
            }
        }
        Ok(())
    }

    /// Returns what is not attached yet, and takes away what is attached twice.
    async fn missing(&self, id: &str) -> Result<Vec<&File>, Trouble> {
        let mut there: Vec<(String, Attached)> = attached(self.mailbox(), id).await?;
        let mut missing = Vec::new();
        for file in &self.mail.files {
            match there.iter().position(|(_, there)| there.print == file.print) {
                Some(at) => drop(there.swap_remove(at)),
                None => missing.push(file),
            }
        }
        for (extra, _) in there {
            self.mailbox().detach(id, &extra).await?;
        }
        Ok(missing)
    }

    /// Returns the bytes of a file, read again if they did not stay in memory.
    async fn bytes_of(&self, file: &File) -> Result<Bytes, Trouble> {
        let (prefix, range, encoding) = match &file.bytes {
            FileBytes::Kept(bytes) => return Ok(bytes.clone()),
            FileBytes::InMail { prefix, range, encoding } => (prefix.clone(), range.clone(), *encoding),
        };
        let (context, content, wanted) = (self.delivery.context.clone(), self.content.clone(), file.print);
        blocking(move || {
            let stored = context.contents.read_range(&content, range)?;
            let bytes = guarded(|| FileBytes::decode(&prefix, encoding, &stored))?;
            match print(&bytes) == wanted {
                true => Ok(bytes),
                false => Err(Trouble::Item("what is attached to it changed while it was restored".to_owned())),
            }
        })
        .await
    }

    async fn attach(&self, id: &str, file: &File, bytes: &Bytes) -> Result<(), GraphError> {
        if bytes.len() <= ATTACHMENT_WHOLE_BYTES_MAX {
            return self.mailbox().attach(id, &file.json(bytes)).await;
        }
        let url = self.mailbox().begin_upload(id, &file.announcement()).await?;
        let len = bytes.len();
        for offset in (0..len).step_by(RANGE_BYTES_MAX) {
            let range = bytes.slice(offset..len.min(offset + RANGE_BYTES_MAX));
            self.mailbox().upload(&url, range, offset as u64, len as u64).await?;
        }
        Ok(())
    }

    /// Reads the message back; only then is it restored. If it `is_unclear` what became of requests that attach
    /// something, what is attached twice is taken away.
    async fn compare(&self, id: &str, fresh: bool, is_unclear: bool) -> Result<(), Trouble> {
        let mut attempt = 1;
        loop {
            match self.expected.difference(self.mailbox(), id, fresh).await? {
                None => break,
                Some(_) if is_unclear && attempt < ATTEMPTS_MAX => {
                    wait(attempt).await;
                    for file in self.missing(id).await? {
                        self.attach(id, file, &self.bytes_of(file).await?).await?;
                    }
                }
                // What was written a moment ago may be read from a server that does not know of it, and any answer may
                // be a wrong one: a difference is one that is seen again.
                Some(_) if attempt < LOOKS_MAX => wait(attempt).await,
                Some(difference) => return Err(Trouble::Item(difference)),
            }
            attempt += 1;
        }
        Ok(self.delivery.journal.lock().verified(self.key())?)
    }
}

pub(super) async fn wait(attempt: u32) {
    tokio::time::sleep(WAIT * 2u32.pow(attempt - 1)).await;
}
