//! What becomes of the messages that a round told of: decided, downloaded where need be, split, and put into the tree.

mod reading;

use self::reading::read;
use super::Context;
use super::content::{self, Pieces, ROOM_AT_ONCE_MAX};
use super::edits::Edits;
use super::previous::{ItemKey, Place, Previous};
use super::state::FailedItem;
use super::streams::{BACKFILLED_MAX, Exports, Stream, Wanted};
use crate::CONTENT_LOG;
use crate::backup::BackupError;
use crate::backup::splitter::{Split, SplitError, Splitter};
use crate::content::names::{UniqueNames, mail_name};
use crate::format::cbor;
use crate::format::entry::{Content, Directory, Entry, EntryKind, Facts, Timestamp, marks};
use crate::repository::read_error::ReadError;
use crate::repository::store::StoreError;
use crate::repository::tree::Entries;
use crate::runtime::{blocking, guarded};
use crate::source::graph::GraphError;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::{Message, MessageRow};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A mailbox answers so many requests at a time (Graph: "Outlook service limits").
const DOWNLOADS_AT_ONCE: usize = 4;
/// So many messages of a folder that failed are kept by name. Where there are more, the folder is listed in full by the
/// next run, which finds them again.
const FAILED_KEPT_MAX: usize = 1000;

/// Properties that are other when the message's own bytes may be other.
const TELL_OF_CONTENT: [&str; 13] = [
    "subject",
    "bodyPreview",
    "hasAttachments",
    "sentDateTime",
    "receivedDateTime",
    "internetMessageId",
    "from",
    "sender",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "replyTo",
    "isDraft",
];
/// Properties that change without the message's own bytes, and explain a new version.
const TELL_OF_MARKS: [&str; 6] =
    ["isRead", "flag", "categories", "importance", "inferenceClassification", "parentFolderId"];

/// A folder that is being worked on.
pub struct Work {
    /// Its number among the folders of the mailbox.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// Its path from the snapshot's root.
    pub path: String,
    /// Its tree in the snapshot before.
    pub base: Option<Directory>,
    /// What was done so far.
    pub done: Mutex<Done>,
}

/// What was done in a folder so far.
pub struct Done {
    /// What changes in its tree.
    pub edits: Edits,
    names: Option<UniqueNames>,
    /// No more messages come.
    has_all: bool,
    /// Messages that were written.
    pub stored: u64,
    /// Messages that could not be read as they are now, up to [`FAILED_KEPT_MAX`] of them.
    pub failed: Vec<FailedItem>,
    /// How many more there were.
    pub failed_unnamed: u64,
    /// Those of them that stand as they were before.
    pub failed_but_there: u64,
    /// Messages that were gone when they were to be read, and had never been read before.
    pub vanished: u64,
    /// Messages that had to be built from their parts.
    pub reconstructed: u64,
    /// Messages that stand in another folder now.
    pub moved_out: u64,
    /// Messages without an export stream, of which the set asks for one.
    pub streamless: u64,
    /// Messages that were exported though nothing else of them is new.
    backfilled: usize,
}

impl Done {
    /// Notes a message that could not be read.
    pub fn fail(&mut self, failed: FailedItem) {
        if self.failed.len() < FAILED_KEPT_MAX {
            self.failed.push(failed);
        } else {
            self.failed_unnamed += 1;
        }
    }
}

impl Work {
    /// Starts the work on a folder.
    pub fn new(context: &Context, index: usize, id: String, path: String, base: Option<Directory>) -> Self {
        let done = Done {
            edits: Edits::new(context.area()),
            names: None,
            has_all: false,
            stored: 0,
            failed: Vec::new(),
            failed_unnamed: 0,
            failed_but_there: 0,
            vanished: 0,
            reconstructed: 0,
            moved_out: 0,
            streamless: 0,
            backfilled: 0,
        };
        Self { index, id, path, base, done: Mutex::new(done) }
    }

    /// Gives memory back: no more messages come for this folder.
    ///
    /// # Errors
    /// When the local state fails.
    pub fn rest(&self, context: &Context) -> Result<(), StoreError> {
        let mut done = self.done.lock();
        done.names = None;
        done.has_all = true;
        // Where there is a tree already, a few changes in memory are applied to it without reading all of it.
        if self.base.is_none() { done.edits.set_aside(&context.store) } else { Ok(()) }
    }

    /// Gives a name that nothing else in the folder has. `folders` are the names of the folders in it.
    fn claim(&self, context: &Context, wanted: &str) -> Result<String, ReadError> {
        let mut done = self.done.lock();
        assert!(!done.has_all, "names that were given are forgotten");
        if done.names.is_none() {
            let mut names = UniqueNames::new();
            names.reserve(super::REPORT_NAME);
            if let Some(base) = &self.base {
                for found in Entries::new(&*context.reader, base)? {
                    names.reserve(&String::from_utf8_lossy(&found?.entry().name));
                }
            }
            done.names = Some(names);
        }
        let names = done.names.as_mut().expect("made above");
        Ok(names.claim(wanted))
    }
}

/// The folders of one mailbox that are being worked on, and what it had before.
pub struct Mail {
    /// The id of its user.
    pub user: String,
    /// What the snapshot before has.
    pub previous: Previous,
    /// The folders, by their ids.
    pub works: HashMap<String, Work>,
    /// Messages that failed in the run before, too.
    pub failed_before: HashSet<String>,
    /// Messages whose stored bytes are not what was said of them.
    pub suspects: HashSet<ItemKey>,
    /// Folders, by their ids, whose messages may have been stored without being compared.
    pub uncompared: HashSet<String>,
    /// What exports them, where the set asks for that.
    pub exports: Option<Arc<Exports>>,
}

/// What is to be done with a message.
enum Plan {
    /// It stands where and as it stood.
    Nothing,
    /// Its bytes are known: these, with new properties.
    Known(Box<Entry>),
    /// Its bytes must be read; the entry is what stood for it before, if anything.
    Read(Option<Box<Entry>>),
}

/// What was read of a message.
enum Reading {
    Known(Box<Entry>),
    Whole(Vec<bytes::Bytes>),
    Split(Box<Split>),
    Rebuilt(Vec<u8>),
    /// It is not there any more.
    Gone,
    Failed(String),
}

/// Takes a batch of messages that a round of the folder told of.
///
/// # Errors
/// What ends the run, or (the inner error) the work on this mailbox.
pub async fn process(
    context: &Arc<Context>,
    mailbox: &Mailbox,
    mail: &Arc<Mail>,
    folder: &str,
    messages: Vec<Message>,
) -> Result<Result<(), GraphError>, BackupError> {
    context.check()?;
    let planned = {
        let (context, mail, folder) = (context.clone(), mail.clone(), folder.to_owned());
        blocking(move || {
            let plan = |message: Message| mail.plan(&context, &folder, &message).map(|plan| (message, plan));
            messages.into_iter().map(plan).collect::<Result<Vec<_>, ReadError>>()
        })
        .await?
    };
    let mut planned = planned.into_iter().filter(|(_, plan)| !matches!(plan, Plan::Nothing)).peekable();
    // As many at a time as there is room for in memory.
    while planned.peek().is_some() {
        let (mut slice, mut room) = (Vec::new(), 0);
        // The stream of a message is about as long as the message.
        let times = if mail.exports.is_some() { 2 } else { 1 };
        let room_of = |message: &Message| times * content::room_of(message.row.size());
        while let Some((message, plan)) =
            planned.next_if(|(message, _)| room == 0 || room + room_of(message) <= ROOM_AT_ONCE_MAX)
        {
            room += room_of(&message);
            slice.push((message, plan));
        }
        let _room = context.splitters.room(room).await;
        if let Err(error) = take_slice(context, mailbox, mail, folder, slice).await? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

async fn take_slice(
    context: &Arc<Context>,
    mailbox: &Mailbox,
    mail: &Arc<Mail>,
    folder: &str,
    slice: Vec<(Message, Plan)>,
) -> Result<Result<(), GraphError>, BackupError> {
    let reading = slice.into_iter().map(|(message, plan)| async {
        let (reading, before) = match plan {
            Plan::Nothing => unreachable!("filtered out"),
            Plan::Known(entry) => (Ok(Ok(Reading::Known(entry.clone()))), Some(entry)),
            Plan::Read(before) => {
                let again = mail.failed_before.contains(&message.row.id);
                (read(context, mailbox, &message, again).await, before)
            }
        };
        reading.map(|reading| reading.map(|reading| (message, reading, before)))
    });
    let read: Vec<_> = futures_util::stream::iter(reading).buffered(DOWNLOADS_AT_ONCE).collect().await;
    let mut items = Vec::with_capacity(read.len());
    for item in read {
        match item? {
            Ok(item) => items.push(item),
            Err(error) => return Ok(Err(error)),
        }
    }
    context.check()?;
    let streams = match &mail.exports {
        Some(exports) => exports.fetch(context, mailbox, items.iter().filter_map(wanted_stream)).await?,
        None => HashMap::new(),
    };
    let (shared, mail, folder) = (context.clone(), mail.clone(), folder.to_owned());
    content::with_splitter(context, move |splitter| {
        let work = &mail.works[&folder];
        let mut writer = Writer { context: &shared, mail: &mail, work, splitter, streams, facts: Vec::new() };
        for (message, reading, before) in items {
            // A fault of this program that one message brings out must not keep all others from being stored.
            let written = guarded(|| writer.write(&message, reading, before.clone()));
            written.unwrap_or_else(|fault| writer.fail(&message, fault.to_string(), before))?;
        }
        writer.finish()
    })
    .await?;
    Ok(Ok(()))
}

/// Returns what is to be exported of an item that was read: nothing where the stream of this version is there.
fn wanted_stream((message, reading, _): &(Message, Reading, Option<Box<Entry>>)) -> Option<Wanted> {
    let is_there = match reading {
        Reading::Known(entry) => stream_of(entry, &message.row).is_some(),
        Reading::Whole(_) | Reading::Split(_) | Reading::Rebuilt(_) => false,
        Reading::Gone | Reading::Failed(_) => true,
    };
    let Message { row, .. } = message;
    let wanted = || Wanted { id: row.id.clone(), change_key: row.change_key.clone(), size: row.size() };
    (!is_there).then(wanted)
}

/// Returns the stream of an entry if it is that of the version that `row` tells of.
fn stream_of<'a>(entry: &'a Entry, row: &MessageRow) -> Option<&'a Content> {
    entry.stream().filter(|_| row.change_key.is_some() && entry.facts.change_key == row.change_key)
}

impl Mail {
    fn plan(&self, context: &Context, folder: &str, message: &Message) -> Result<Plan, ReadError> {
        let row = &message.row;
        let place = self.previous.place(ItemKey::of(&row.id));
        let before = match place {
            Some(place) => self.previous.entry(&context.reader, place)?,
            None => None,
        };
        let Some((place, before)) = place.zip(before) else {
            return Ok(match self.remembered(context, message) {
                Some(entry) => Plan::Known(Box::new(entry)),
                None => Plan::Read(None),
            });
        };
        let stays = self.previous.folder_of(place) == folder;
        if self.is_doubted(context, folder, message, (place, &before))? {
            return Ok(Plan::Read(Some(Box::new(before))));
        }
        let same_version = row.change_key.is_some() && before.facts.change_key == row.change_key;
        if same_version && stays {
            return Ok(self.plan_stream(context, folder, message, before));
        }
        if same_version || self.only_marks_differ(context, &before, message) {
            return Ok(Plan::Known(Box::new(before)));
        }
        Ok(match self.remembered(context, message) {
            Some(entry) => Plan::Known(Box::new(Entry { name: before.name, ..entry })),
            None => Plan::Read(Some(Box::new(before))),
        })
    }

    /// Returns whether what stands for a message cannot be taken for it, whatever its version: it failed, or was stored
    /// by an earlier version as something else.
    fn is_doubted(
        &self,
        context: &Context,
        folder: &str,
        message: &Message,
        (place, before): (Place, &Entry),
    ) -> Result<bool, ReadError> {
        let id = &message.row.id;
        if self.failed_before.contains(id) || self.suspects.contains(&ItemKey::of(id)) {
            return Ok(true);
        }
        // What moves out of such a folder is not looked at there.
        let old_folder = self.previous.folder_of(place);
        let is_unseen = old_folder != folder && self.uncompared.contains(old_folder);
        Ok(is_unseen && super::mailbox::suspect(context, before)?.is_some())
    }

    /// Plans what is to be done with a message that is as it was: nothing, but that a stream may be owing.
    fn plan_stream(&self, context: &Context, folder: &str, message: &Message, before: Entry) -> Plan {
        let Some(exports) = self.exports.as_ref().filter(|_| before.stream().is_none()) else { return Plan::Nothing };
        // A run that did not come to its end may have fetched it.
        if let Some(known) = self.remembered(context, message).filter(|known| known.stream().is_some()) {
            return Plan::Known(Box::new(Entry { name: before.name, ..known }));
        }
        let mut done = self.works[folder].done.lock();
        if exports.are_closed() || done.backfilled >= BACKFILLED_MAX {
            done.streamless += 1;
            return Plan::Nothing;
        }
        done.backfilled += 1;
        Plan::Known(Box::new(before))
    }

    /// Returns whether the new version is explained by marks that do not touch the message's own bytes.
    fn only_marks_differ(&self, context: &Context, before: &Entry, message: &Message) -> bool {
        let Some(payload) = &before.payload else { return false };
        let mut old = Vec::new();
        if before.facts.reconstructed || context.reader.read(payload, 0, usize::MAX, &mut old).is_err() {
            return false;
        }
        let Ok(old) = serde_json::from_slice::<Message>(&old) else { return false };
        let (Ok(old_all), Ok(new_all)) =
            (serde_json::from_str::<Value>(old.raw.get()), serde_json::from_str::<Value>(message.raw.get()))
        else {
            return false;
        };
        let differs = |name: &str| old_all.get(name) != new_all.get(name);
        // Drafts change under the writer's hands, without a word of it in what is listed.
        let is_draft = new_all.get("isDraft").and_then(Value::as_bool) != Some(false);
        let same_size = old.row.size().is_some() && old.row.size() == message.row.size();
        !is_draft
            && same_size
            && !TELL_OF_CONTENT.iter().any(|n| differs(n))
            && TELL_OF_MARKS.iter().any(|n| differs(n))
    }

    /// Returns the entry of a message that a run read which did not come to its end.
    fn remembered(&self, context: &Context, message: &Message) -> Option<Entry> {
        let version = message.row.change_key.as_deref()?;
        let facts =
            context.store.local().unfinished(&unfinished_key(context, &self.user), message.row.id.as_bytes())?;
        let entry = Entry::read(&mut cbor::Reader::new(&facts)).ok()?;
        let is_stored = |segment| context.store.has_segment(segment).unwrap_or(false);
        let complete = entry.all_contents().flat_map(|content| &content.segments).all(is_stored);
        (entry.facts.change_key.as_deref() == Some(version) && complete).then_some(entry)
    }
}

/// Returns the name under which this machine remembers what was read of a user's mailbox until it stands in a snapshot.
pub(super) fn unfinished_key(context: &Context, user: &str) -> [u8; 32] {
    // No path begins with a zero byte. What stood under "mail" was stored without being compared.
    context.repository.keys().local_path(&context.options.backup.set, &[b"\0compared mail\0", user.as_bytes()].concat())
}

/// Puts messages into the tree of their folder.
struct Writer<'a> {
    context: &'a Context,
    mail: &'a Mail,
    work: &'a Work,
    splitter: &'a mut Splitter,
    /// Streams that were exported, by the ids of their messages.
    streams: HashMap<String, Stream>,
    facts: Vec<(String, Vec<u8>)>,
}

impl Writer<'_> {
    fn write(&mut self, message: &Message, reading: Reading, before: Option<Box<Entry>>) -> Result<(), StoreError> {
        let mut kept = None;
        let (split, rebuilt) = match reading {
            Reading::Known(entry) => {
                kept = stream_of(&entry, &message.row).cloned();
                let content = entry.content().cloned().unwrap_or_default();
                let text = entry.text().cloned();
                let rebuilt = entry.facts.reconstructed;
                (Ok(Split { content, facts: entry.facts, text }), rebuilt)
            }
            Reading::Split(split) => (Ok(*split), false),
            Reading::Whole(pieces) => (self.splitter.split(&Pieces(pieces)), false),
            Reading::Rebuilt(bytes) => (self.splitter.split(&Pieces(vec![bytes.into()])), true),
            Reading::Gone => {
                // What stands in this folder stays until a round says that it left.
                let stays = self.mail.previous.place(ItemKey::of(&message.row.id));
                let stays = stays.is_some_and(|place| self.mail.previous.folder_of(place) == self.work.id);
                self.work.done.lock().vanished += u64::from(!stays);
                return Ok(());
            }
            Reading::Failed(reason) => return self.fail(message, reason, before),
        };
        let split = match split {
            Ok(split) => split,
            Err(SplitError::Store(error)) => return Err(error),
            Err(SplitError::Item(error)) => return self.fail(message, error.to_string(), before),
        };
        let stream = match kept {
            Some(kept) => Some(kept),
            None => self.stream(&message.row.id)?,
        };
        let payload = self.splitter.split_payload(message.raw.get().as_bytes())?;
        let name = self.name(message, before.as_deref())?;
        let mut entry = entry(message, &name, split, payload, rebuilt);
        entry.set_stream(stream);
        if self.mail.exports.is_some() && entry.stream().is_none() {
            self.work.done.lock().streamless += 1;
            if before.as_deref().is_some_and(|before| before.encode() == entry.encode()) {
                // A stream was all that it lacked, and there is none.
                return Ok(());
            }
        }
        self.facts.push((message.row.id.clone(), entry.encode()));
        self.context.progress.items.fetch_add(1, Ordering::Relaxed);
        self.context.progress.bytes.fetch_add(entry.size(), Ordering::Relaxed);
        tracing::debug!(target: CONTENT_LOG, folder = self.work.path, name, "stored");
        let mut done = self.work.done.lock();
        done.stored += 1;
        done.reconstructed += u64::from(rebuilt);
        done.edits.put(entry, &self.context.store)
    }

    /// Stores the stream of a message, if it was exported.
    fn stream(&mut self, id: &str) -> Result<Option<Content>, StoreError> {
        match self.streams.remove(id) {
            None => Ok(None),
            Some(Stream::Stored(content)) => Ok(Some(content)),
            Some(Stream::Bytes(bytes)) => match self.splitter.split_export(&Pieces(vec![bytes])) {
                Ok(content) => Ok(Some(content)),
                Err(SplitError::Store(error)) => Err(error),
                Err(SplitError::Item(_)) => unreachable!("bytes in memory can be read"),
            },
        }
    }

    /// Returns the message's name here, and takes it out of the folder where it stood.
    fn name(&self, message: &Message, before: Option<&Entry>) -> Result<String, StoreError> {
        let row = &message.row;
        let place = self.mail.previous.place(ItemKey::of(&row.id));
        let wanted = || match before {
            Some(before) => String::from_utf8_lossy(&before.name).into_owned(),
            None => mail_name(row.date(), row.author().as_deref(), row.subject.as_deref()),
        };
        let Some((place, before)) = place.zip(before) else { return Ok(self.work.claim(self.context, &wanted())?) };
        let old_folder = self.mail.previous.folder_of(place);
        match self.mail.works.get(old_folder) {
            Some(work) if work.index == self.work.index => return Ok(wanted()),
            Some(work) => {
                let mut done = work.done.lock();
                done.moved_out += 1;
                done.edits.remove(&before.name, &self.context.store)?;
            }
            None => {}
        }
        Ok(self.work.claim(self.context, &wanted())?)
    }

    /// Keeps what stood for a message that cannot be read as it is now, and notes why.
    fn fail(&mut self, message: &Message, reason: String, before: Option<Box<Entry>>) -> Result<(), StoreError> {
        let name = self.name(message, before.as_deref())?;
        tracing::debug!(target: CONTENT_LOG, folder = self.work.path, name, reason, "could not be read");
        let mut done = self.work.done.lock();
        done.fail(FailedItem { id: message.row.id.clone(), name: name.clone(), reason });
        let Some(mut before) = before else { return Ok(()) };
        done.failed_but_there += 1;
        done.streamless += u64::from(self.mail.exports.is_some() && before.stream().is_none());
        // It may have moved.
        before.name = name.as_bytes().into();
        done.edits.put(*before, &self.context.store)
    }

    fn finish(self) -> Result<(), StoreError> {
        self.splitter.flush()?;
        let facts = self.facts.iter().map(|(id, value)| (id.as_bytes(), value.as_slice()));
        let owner = unfinished_key(self.context, &self.mail.user);
        Ok(self.context.store.local().put_unfinished(&owner, facts)?)
    }
}

fn marks_of(row: &MessageRow) -> u64 {
    let is_flagged = row.flag.as_ref().is_some_and(|flag| flag.flag_status.as_deref() == Some("flagged"));
    let set = [
        (row.is_read == Some(true), marks::READ),
        (is_flagged, marks::FLAGGED),
        (row.is_draft == Some(true), marks::DRAFT),
    ];
    set.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| mark).sum()
}

fn entry(message: &Message, name: &str, split: Split, payload: Content, reconstructed: bool) -> Entry {
    let row = &message.row;
    let date = row.date().or(split.facts.date);
    let mtime = Timestamp { secs: date.unwrap_or(0), nanos: 0 };
    let mut entry = Entry::new(name.as_bytes(), EntryKind::File(split.content), mtime);
    entry.facts = Facts {
        subject: row.subject.clone().or(split.facts.subject),
        from: row.author().or(split.facts.from),
        date,
        source_id: Some(row.id.clone()),
        change_key: row.change_key.clone(),
        reconstructed,
        marks: Some(marks_of(row)),
        ..split.facts
    };
    entry.payload = Some(payload);
    entry.set_text(split.text);
    entry
}
