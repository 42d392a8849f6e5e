//! What a folder's round tells: which messages there are, or which came, changed and left since the last one.
//!
//! The rows go to the local state, in the order of their dates, so that neighbours in time become neighbours in storage
//! and memory does not grow with the folder: it holds 40 bytes for each.

use super::Context;
use super::previous::ItemKey;
use super::state::{FailedItem, FolderState};
use crate::backup::BackupError;
use crate::repository::store::StoreError;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::Message;
use crate::source::graph::{ErrorKind, GraphError};
use futures_util::StreamExt;
use std::collections::HashMap;

/// A round that the service breaks off is begun anew this often.
const ROUNDS_MAX: usize = 4;
/// A mailbox answers so many requests at a time (Graph: "Outlook service limits").
const ASKED_AT_ONCE: usize = 4;

/// Ids are longer than this nowhere (immutable ones have 150 letters, those of shared folders 300).
const ID_LEN_MAX: usize = 1024;
/// Messages that a round of changes says have left are kept in memory, up to so many. Where more left, the folder is
/// listed in full.
const LEFT_MAX: usize = 100_000;

/// A complete round.
pub struct Listed {
    /// Whether it told of everything there is, rather than of changes.
    pub full: bool,
    /// Where to ask next time.
    pub link: Option<String>,
    /// The area of the local state that holds the rows.
    area: u64,
    /// The messages it told of, with their dates, by which their rows are found.
    pub rows: HashMap<ItemKey, i64>,
    /// The messages that left, with their ids. A listing of everything has none: what it does not tell of has left.
    pub left: HashMap<ItemKey, String>,
    /// Messages that failed before, and of which nothing can be had now either.
    pub unreadable: Vec<FailedItem>,
    /// Messages that failed before, and lie elsewhere now.
    pub moved: Vec<Message>,
}

/// How a round ended.
pub enum Round {
    /// It is complete.
    Complete(Box<Listed>),
    /// The folder is gone.
    Gone,
    /// It cannot be completed.
    Failed(GraphError),
}

impl Listed {
    fn new(context: &Context, full: bool) -> Self {
        Self {
            full,
            link: None,
            area: context.area(),
            rows: HashMap::new(),
            left: HashMap::new(),
            unreadable: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Takes a row. Of several rows for one message the last one counts.
    pub fn take(&mut self, message: &Message, context: &Context) -> Result<(), StoreError> {
        let item = ItemKey::of(&message.row.id);
        self.forget(item, context)?;
        if message.row.removed.is_some() {
            self.leave(&message.row.id);
            return Ok(());
        }
        self.left.remove(&item);
        let date = message.row.date().unwrap_or(i64::MIN);
        self.rows.insert(item, date);
        let raw = message.raw.get().as_bytes();
        Ok(context.store.local().put_aside(self.area, &row_key(item, date), raw)?)
    }

    /// Notes that the message with this id left.
    fn leave(&mut self, id: &str) {
        if !self.full {
            self.left.insert(ItemKey::of(id), id.to_owned());
        }
    }

    /// Forgets the row of a message.
    pub fn forget(&mut self, item: ItemKey, context: &Context) -> Result<(), StoreError> {
        if let Some(date) = self.rows.remove(&item) {
            context.store.local().drop_aside(self.area, &row_key(item, date))?;
        }
        Ok(())
    }

    /// Returns up to `max` rows from behind `after` on, in the order of their dates, and where to go on.
    pub fn rows_after(
        &self,
        after: Option<&[u8]>,
        max: usize,
        context: &Context,
    ) -> Result<(Vec<Message>, Option<Vec<u8>>), StoreError> {
        let rows = context.store.local().set_aside(self.area, after, max)?;
        let last = rows.last().map(|(key, _)| key.clone());
        let messages = rows.iter().map(|(_, raw)| serde_json::from_slice(raw).expect("it was read from the same text"));
        Ok((messages.collect(), last))
    }

    /// Returns whether it told of nothing.
    pub fn is_quiet(&self) -> bool {
        !self.full
            && self.rows.is_empty()
            && self.left.is_empty()
            && self.unreadable.is_empty()
            && self.moved.is_empty()
    }

    /// Returns whether it told of the message with this id, be it that it left.
    pub fn tells_of(&self, id: &str) -> bool {
        let item = ItemKey::of(id);
        self.rows.contains_key(&item) || self.left.contains_key(&item)
    }

    /// Takes everything away that was put aside.
    pub fn clear(&self, context: &Context) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        Ok(context.store.local().clear_aside(Some(self.area))?)
    }
}

fn row_key(item: ItemKey, date: i64) -> Vec<u8> {
    // Flipping the sign puts dates before 1970 first.
    let date = (date as u64) ^ (1 << 63);
    [date.to_be_bytes().as_slice(), &item.0].concat()
}

/// Goes through a round over the folder: of changes where that is possible, else of everything.
///
/// # Errors
/// What ends the run. What concerns the folder alone is in the answer.
pub async fn go_round(context: &Context, mailbox: &Mailbox, folder: &FolderState) -> Result<Round, BackupError> {
    // A link that leads elsewhere, since the endpoints are others now or since somebody gave out a bad one, tells
    // nothing.
    let mut link = folder.link.as_deref().filter(|link| mailbox.may_follow(link));
    let mut by_changes = true;
    for attempt in 1.. {
        context.check()?;
        let mut listed = Listed::new(context, link.is_none());
        let error = match fill(context, mailbox, folder, link, by_changes, &mut listed).await? {
            Ok(()) => return Ok(Round::Complete(Box::new(listed))),
            Err(error) => error,
        };
        listed.clear(context)?;
        if super::ends_the_run(&error) {
            return Err(error.into());
        }
        match error.kind() {
            // The listing that follows knows no departures: they are found by comparing.
            ErrorKind::Resync if attempt < ROUNDS_MAX => link = None,
            // Such a folder is listed in full each time.
            ErrorKind::DeltaUnsupported if by_changes => (link, by_changes) = (None, false),
            // What makes no sense for the second time will not the third time. A listing needs no link.
            ErrorKind::Malformed if attempt < ROUNDS_MAX => _ = link.take_if(|_| attempt > 1),
            ErrorKind::BadRequest | ErrorKind::TooLarge if link.is_some() => link = None,
            ErrorKind::NotFound => match mailbox.folder(&folder.id).await {
                Ok(None) => return Ok(Round::Gone),
                // It is there, so it was the link that was not found.
                Ok(Some(_)) if attempt < ROUNDS_MAX => link = None,
                Ok(Some(_)) => return Ok(Round::Failed(error)),
                Err(error) => return Ok(Round::Failed(error)),
            },
            _ => return Ok(Round::Failed(error)),
        }
    }
    unreachable!("the last attempt returns")
}

async fn fill(
    context: &Context,
    mailbox: &Mailbox,
    folder: &FolderState,
    link: Option<&str>,
    by_changes: bool,
    listed: &mut Listed,
) -> Result<Result<(), GraphError>, BackupError> {
    let mut round = if by_changes { mailbox.messages(&folder.id, link) } else { mailbox.plain_messages(&folder.id) };
    loop {
        context.check()?;
        let page = match round.next().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        };
        let mut partial: HashMap<ItemKey, String> = HashMap::new();
        for message in page.rows() {
            let message = match message {
                Ok(message) if message.row.id.len() <= ID_LEN_MAX => message,
                Ok(_) => return Ok(Err(GraphError::malformed("listing messages"))),
                Err(error) => return Ok(Err(error)),
            };
            context.check()?;
            let row = &message.row;
            // A row may tell only what changed, and then says that there is something to read again.
            if row.removed.is_none() && (row.change_key.is_none() || row.parent_folder_id.is_none()) {
                partial.insert(ItemKey::of(&row.id), row.id.clone());
                continue;
            }
            partial.remove(&ItemKey::of(&row.id));
            listed.take(&message, context)?;
            if listed.left.len() > LEFT_MAX {
                return Ok(Err(GraphError::too_many("listing messages", "messages that left", LEFT_MAX)));
            }
        }
        drop(page);
        for id in partial.into_values() {
            context.check()?;
            match mailbox.message(&id).await {
                Ok(Some(whole)) => listed.take(&whole, context)?,
                Ok(None) => listed.leave(&id),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    listed.link = round.link();
    // What failed before changes for nobody else, so no round tells of it. One that is said to have left may lie
    // elsewhere, and nobody else tells of that either.
    let untold: Vec<_> =
        folder.failed.iter().filter(|failed| !listed.rows.contains_key(&ItemKey::of(&failed.id))).collect();
    let asking = untold.into_iter().map(|failed| async move { (failed, mailbox.message(&failed.id).await) });
    let mut asking = std::pin::pin!(futures_util::stream::iter(asking).buffer_unordered(ASKED_AT_ONCE));
    while let Some((failed, answer)) = asking.next().await {
        context.check()?;
        match answer {
            Ok(Some(message)) if message.row.parent_folder_id.as_ref() == Some(&folder.id) => {
                listed.take(&message, context)?;
            }
            Ok(Some(elsewhere)) => {
                listed.leave(&failed.id);
                listed.moved.push(elsewhere);
            }
            Ok(None) => listed.leave(&failed.id),
            Err(error) if super::ends_the_run(&error) || error.is_transient() => return Ok(Err(error)),
            Err(error) => listed.unreadable.push(FailedItem { reason: error.to_string(), ..failed.clone() }),
        }
    }
    Ok(Ok(()))
}
