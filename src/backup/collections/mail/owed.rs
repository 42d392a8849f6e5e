//! Streams that messages of the snapshot before lack: since the set did not ask for them then, or they could not be
//! had.

use super::Mail;
use super::streams::BACKFILLED_MAX;
use crate::backup::BackupError;
use crate::backup::collection::item::item_id;
use crate::backup::collection::listed::{Departed, Listed, Names, Rounds};
use crate::backup::collection::plan::Plan;
use crate::backup::collection::previous::Previous;
use crate::backup::collection::state::FolderState;
use crate::backup::context::{Context, Ended};
use crate::format::entry::{Directory, Entry};
use crate::repository::tree::Entries;
use crate::runtime::blocking;
use crate::source::graph::model::Message;
use std::collections::HashMap;
use std::sync::Arc;

impl Mail {
    /// Returns whether messages of a folder lack their streams, or may.
    pub(super) fn owes_streams(&self, folder: &FolderState) -> bool {
        self.exports.is_some() && (!folder.streams || folder.ledger.streamless > 0)
    }

    /// Adds messages that lack their streams to the rows of the rounds, and returns for each folder how many more there
    /// are: a run takes up to [`BACKFILLED_MAX`] of a folder, so that those of an old mailbox do not keep it from
    /// coming to an end.
    pub(super) async fn owed_streams(
        &self,
        context: &Arc<Context>,
        plan: &Plan<'_>,
        previous: &Previous,
        (rounds, departed): (&mut Rounds<Message>, &Departed),
    ) -> Result<HashMap<usize, u64>, Ended> {
        let mut owed = HashMap::new();
        let Some(exports) = &self.exports else { return Ok(owed) };
        // A listing of everything tells of them itself.
        let is_owing =
            |(index, listed): &(&usize, &Listed<Message>)| !listed.full && self.owes_streams(&plan.folders[**index]);
        let owing: Vec<_> = rounds.complete.iter().filter(is_owing).map(|(index, _)| *index).collect();
        for index in owing {
            let folder = &plan.folders[index];
            let Some(base) = previous.folder(&folder.id).copied() else { continue };
            let is_open = exports.open(&self.mailbox).await?.is_some();
            if !is_open && folder.streams {
                owed.insert(index, folder.ledger.streamless);
                continue;
            }
            let mut listed = rounds.complete.remove(&index).expect("it was just listed");
            let (context, gone) = (context.clone(), departed.get(&index).cloned().unwrap_or_default());
            let (listed, left) = blocking(move || {
                let left = take_owed(&context, &mut listed, &base, &gone, if is_open { BACKFILLED_MAX } else { 0 });
                (listed, left)
            })
            .await;
            rounds.complete.insert(index, listed);
            owed.insert(index, left?);
        }
        Ok(owed)
    }
}

/// Takes up to `max` messages of `base` that lack their streams into the rows, and returns how many are left.
fn take_owed(
    context: &Context,
    listed: &mut Listed<Message>,
    base: &Directory,
    gone: &Names,
    max: usize,
) -> Result<u64, BackupError> {
    let (mut taken, mut left) = (0, 0);
    for found in Entries::new(&*context.reader, base)? {
        let found = found?;
        let entry = found.entry();
        let is_told_of = || item_id(entry).is_none_or(|id| listed.tells_of(id));
        if entry.stream().is_some() || gone.contains(&entry.name) || is_told_of() {
            continue;
        }
        match (taken < max).then(|| told_then(context, entry)).flatten() {
            Some(message) => {
                listed.take(&message, context)?;
                taken += 1;
            }
            None => left += 1,
        }
    }
    Ok(left)
}

/// Returns what the service said of a message when it was stored.
fn told_then(context: &Context, entry: &Entry) -> Option<Message> {
    let mut json = Vec::new();
    context.reader.read(entry.payload.as_ref()?, 0, usize::MAX, &mut json).ok()?;
    let message: Message = serde_json::from_slice(&json).ok()?;
    let is_same = message.row.change_key.is_some()
        && message.row.change_key == entry.facts.change_key
        && Some(&message.row.id) == entry.facts.source_id.as_ref();
    is_same.then_some(message)
}
