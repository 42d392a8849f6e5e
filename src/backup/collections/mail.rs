//! The mail of a mailbox as a collection: messages, as their exact bytes.
//!
//! What is particular to mail: a message's bytes are downloaded, held against what the list said of them, or put
//! together from its parts (`reading`); marks change a message's version without its bytes; a set may ask for the
//! stream as which the service exports a message (`streams`, `owed`); and what an earlier version stored is looked
//! through once (`audit`).

mod arriving;
mod audit;
mod folders;
mod owed;
mod reading;
mod streams;

use self::arriving::Pieces;
use self::audit::suspect;
use self::streams::{BACKFILLED_MAX, Exports, Stream, Wanted};
use crate::backup::collection::item::Item;
use crate::backup::collection::listed::{Departed, Rounds};
use crate::backup::collection::plan::{Plan, Planned, Standing};
use crate::backup::collection::previous::Previous;
use crate::backup::collection::state::FolderState;
use crate::backup::collection::{Amendments, Collection, Fetched, FolderNow, Reading, Source};
use crate::backup::context::{Context, Ended};
use crate::backup::splitter::{Split, SplitError, Splitter};
use crate::content::names::mail_name;
use crate::format::entry::{Content, Entry, EntryKind, Facts, Timestamp, marks};
use crate::repository::read_error::ReadError;
use crate::source::graph::GraphError;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::{MailFolder, Message, MessageRow};
use crate::source::graph::round::Round;
use bytes::Bytes;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

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

/// What entries lack of which [`Collection::lacks`] speaks, for a warning.
pub const LACKING: &str = "the stream that fidelity = \"full\" asks for";

/// The mail of a mailbox.
pub struct Mail {
    mailbox: Mailbox,
    /// What exports messages, where the set asks for that.
    exports: Option<Exports>,
}

/// What was read of a message.
pub enum Body {
    /// All of it.
    Whole(Vec<Bytes>),
    /// A long one, which was stored while it arrived.
    Split(Box<Split>),
    /// One that was built from its parts.
    Rebuilt(Vec<u8>),
}

impl Mail {
    /// Names the mail of the user with this id.
    pub fn new(context: &Context, user: &str) -> Self {
        let mailbox = Mailbox::new(context.client.clone(), user, context.options.hidden_folders);
        Self { mailbox, exports: context.options.streams.then(Exports::default) }
    }

    /// Returns why the first message without an export stream has none.
    pub fn why_lacking(&self) -> Option<String> {
        self.exports.as_ref().and_then(Exports::why_not)
    }
}

impl Item for Message {
    fn id(&self) -> &str {
        &self.row.id
    }

    fn version(&self) -> Option<&str> {
        self.row.change_key.as_deref()
    }

    fn folder(&self) -> Option<&str> {
        self.row.parent_folder_id.as_deref()
    }

    fn date(&self) -> Option<i64> {
        self.row.date()
    }

    fn is_removed(&self) -> bool {
        self.row.removed.is_some()
    }

    fn json(&self) -> &str {
        self.raw.get()
    }
}

impl Collection for Mail {
    type Item = Message;
    type Body = Body;
    /// Streams that were exported, by the ids of their messages.
    type Extra = HashMap<String, Stream>;

    const ITEMS: &'static str = "messages";
    const LISTING: &'static str = "listing messages";
    /// Earlier versions used "mail", and stored messages there without comparing them.
    const UNFINISHED: &'static [u8] = b"\0compared mail\0";

    async fn plan(&self, context: &Context, standing: &Standing<'_>) -> Result<Planned, GraphError> {
        folders::plan(context, &self.mailbox, standing).await
    }

    async fn exists(&self) -> Result<bool, GraphError> {
        Ok(self.mailbox.folder("inbox").await?.is_some())
    }

    async fn folder(&self, context: &Context, id: &str) -> Result<Option<FolderNow>, GraphError> {
        let folder = self.mailbox.folder(id).await?;
        Ok(folder.map(|folder| {
            let is_wanted = is_wanted(context, &folder);
            FolderNow { parent: folder.parent_folder_id, is_wanted }
        }))
    }

    fn may_follow(&self, link: &str) -> bool {
        self.mailbox.may_follow(link)
    }

    fn changes(&self, folder: &str, link: Option<&str>) -> Round<Message> {
        self.mailbox.messages(folder, link)
    }

    fn listing(&self, folder: &str) -> Round<Message> {
        self.mailbox.plain_messages(folder)
    }

    async fn item(&self, id: &str) -> Result<Option<Message>, GraphError> {
        self.mailbox.message(id).await
    }

    fn owes(&self, folder: &FolderState) -> bool {
        self.owes_streams(folder) || audit::owes_comparison(folder)
    }

    async fn amend(
        &self,
        context: &Arc<Context>,
        plan: &Plan<'_>,
        previous: &Previous,
        rounds: &mut Rounds<Message>,
        departed: &Departed,
    ) -> Result<Amendments, Ended> {
        let lacking = self.owed_streams(context, plan, previous, (rounds, departed)).await?;
        let audited = audit::audit(context, plan, previous, rounds, departed).await?;
        Ok(Amendments { lacking, ..audited })
    }

    fn is_suspect(&self, context: &Context, before: &Entry) -> Result<bool, ReadError> {
        Ok(suspect(context, before)?.is_some())
    }

    /// Returns whether the new version is explained by marks that do not touch the message's own bytes.
    fn has_same_bytes(&self, context: &Context, before: &Entry, message: &Message) -> bool {
        only_marks_differ(context, before, message)
    }

    fn lacks(&self, entry: &Entry) -> bool {
        self.exports.is_some() && entry.stream().is_none()
    }

    fn may_complete(&self, completed: usize) -> bool {
        self.exports.as_ref().is_some_and(|exports| !exports.are_closed()) && completed < BACKFILLED_MAX
    }

    fn room(&self, message: &Message) -> u32 {
        // The stream of a message is about as long as the message.
        let times = if self.exports.is_some() { 2 } else { 1 };
        times * arriving::room_of(message.row.size())
    }

    async fn read(
        &self,
        context: &Arc<Context>,
        message: &Message,
        failed_before: bool,
    ) -> Result<Reading<Body>, Ended> {
        reading::read(context, &self.mailbox, message, failed_before).await
    }

    async fn read_extra(
        &self,
        context: &Arc<Context>,
        fetched: &[Fetched<Self>],
    ) -> Result<HashMap<String, Stream>, Ended> {
        match &self.exports {
            Some(exports) => exports.fetch(context, &self.mailbox, fetched.iter().filter_map(wanted_stream)).await,
            None => Ok(HashMap::new()),
        }
    }

    fn name(&self, message: &Message) -> String {
        let row = &message.row;
        mail_name(row.date(), row.author().as_deref(), row.subject.as_deref())
    }

    fn entry(
        &self,
        splitter: &mut Splitter,
        message: &Message,
        source: Source<Body>,
        streams: &mut HashMap<String, Stream>,
    ) -> Result<Entry, SplitError> {
        let mut kept = None;
        let (split, rebuilt) = match source {
            Source::Known(entry) => {
                kept = stream_of(&entry, &message.row).cloned();
                let content = entry.content().cloned().unwrap_or_default();
                let text = entry.text().cloned();
                let rebuilt = entry.facts.reconstructed;
                (Split { content, facts: entry.facts, text }, rebuilt)
            }
            Source::New(Body::Split(split)) => (*split, false),
            Source::New(Body::Whole(pieces)) => (splitter.split(&Pieces(pieces))?, false),
            Source::New(Body::Rebuilt(bytes)) => (splitter.split(&Pieces(vec![bytes.into()]))?, true),
        };
        let stream = match (kept, streams.remove(&message.row.id)) {
            (Some(kept), _) | (None, Some(Stream::Stored(kept))) => Some(kept),
            (None, Some(Stream::Bytes(bytes))) => Some(splitter.split_export(&Pieces(vec![bytes]))?),
            (None, None) => None,
        };
        let mut entry = entry(message, split, rebuilt);
        entry.set_stream(stream);
        Ok(entry)
    }

    fn close(&self, folder: &mut FolderState, all_named: bool) {
        folder.streams = self.exports.is_some();
        if !all_named {
            // Those that are as they were, but not as they should be, are found by this alone.
            (folder.compared, folder.compared_to) = (0, None);
        }
    }
}

/// Returns whether such folders belong to the backup.
fn is_wanted(context: &Context, folder: &MailFolder) -> bool {
    !folder.is_search() && (context.options.hidden_folders || !folder.is_hidden)
}

/// Returns what is to be exported of a message that was read: nothing where the stream of this version is there.
fn wanted_stream(fetched: &Fetched<Mail>) -> Option<Wanted> {
    let row = &fetched.item.row;
    let is_there = match &fetched.reading {
        Reading::Known(entry) => stream_of(entry, row).is_some(),
        Reading::New(_) => false,
        Reading::Gone | Reading::Failed(_) => true,
    };
    let wanted = || Wanted { id: row.id.clone(), change_key: row.change_key.clone(), size: row.size() };
    (!is_there).then(wanted)
}

/// Returns the stream of an entry if it is that of the version that `row` tells of.
fn stream_of<'a>(entry: &'a Entry, row: &MessageRow) -> Option<&'a Content> {
    entry.stream().filter(|_| row.change_key.is_some() && entry.facts.change_key == row.change_key)
}

fn only_marks_differ(context: &Context, before: &Entry, message: &Message) -> bool {
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
    !is_draft && same_size && !TELL_OF_CONTENT.iter().any(|n| differs(n)) && TELL_OF_MARKS.iter().any(|n| differs(n))
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

/// Makes the entry of a message, without a name.
fn entry(message: &Message, split: Split, reconstructed: bool) -> Entry {
    let row = &message.row;
    let date = row.date().or(split.facts.date);
    let mtime = Timestamp { secs: date.unwrap_or(0), nanos: 0 };
    let mut entry = Entry::new(b"", EntryKind::File(split.content), mtime);
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
    entry.set_text(split.text);
    entry
}
