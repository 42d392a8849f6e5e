//! Streams that messages of the snapshot before lack: since the set did not ask for them then, or they could not be
//! had.

use super::{Making, Stop};
use crate::backup::BackupError;
use crate::backup::tenant::Context;
use crate::backup::tenant::previous::{Previous, message_id};
use crate::backup::tenant::rounds::Listed;
use crate::backup::tenant::streams::BACKFILLED_MAX;
use crate::format::entry::{Directory, Entry};
use crate::repository::tree::Entries;
use crate::runtime::blocking;
use crate::source::graph::model::Message;
use std::collections::{HashMap, HashSet};

type Names = HashSet<Box<[u8]>>;

impl Making<'_> {
    /// Returns whether messages of a folder lack their streams, or may.
    pub(super) fn owes_streams(&self, index: usize) -> bool {
        let folder = &self.state.folders[index];
        self.exports.is_some() && (!folder.streams || folder.ledger.streamless > 0)
    }

    /// Adds messages that lack their streams to the rows of the rounds, and returns for each folder how many more there
    /// are: a run takes up [`BACKFILLED_MAX`] of a folder, so that those of an old mailbox do not keep it from coming
    /// to an end.
    pub(super) async fn owed_streams(
        &self,
        rounds: &mut HashMap<usize, Listed>,
        previous: &Previous,
        departed: &HashMap<usize, Names>,
    ) -> Result<HashMap<usize, u64>, Stop> {
        let mut owed = HashMap::new();
        let Some(exports) = &self.exports else { return Ok(owed) };
        // A listing of everything tells of them itself.
        let owing: Vec<_> = rounds
            .iter()
            .filter(|(index, listed)| !listed.full && self.owes_streams(**index))
            .map(|(i, _)| *i)
            .collect();
        for index in owing {
            let folder = &self.state.folders[index];
            let Some(base) = previous.folder(&folder.id).copied() else { continue };
            let is_open = exports.open(&self.mailbox).await?.is_some();
            if !is_open && folder.streams {
                owed.insert(index, folder.ledger.streamless);
                continue;
            }
            let mut listed = rounds.remove(&index).expect("it was just listed");
            let (context, gone) = (self.context.clone(), departed.get(&index).cloned().unwrap_or_default());
            let (listed, left) = blocking(move || {
                let left = take_owed(&context, &mut listed, &base, &gone, if is_open { BACKFILLED_MAX } else { 0 });
                (listed, left)
            })
            .await;
            rounds.insert(index, listed);
            owed.insert(index, left?);
        }
        Ok(owed)
    }
}

/// Takes up to `max` messages of `base` that lack their streams into the rows, and returns how many are left.
fn take_owed(
    context: &Context,
    listed: &mut Listed,
    base: &Directory,
    gone: &Names,
    max: usize,
) -> Result<u64, BackupError> {
    let (mut taken, mut left) = (0, 0);
    for found in Entries::new(&*context.reader, base)? {
        let found = found?;
        let entry = found.entry();
        let is_told_of = || message_id(entry).is_none_or(|id| listed.tells_of(id));
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
