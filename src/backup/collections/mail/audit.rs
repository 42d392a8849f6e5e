//! Messages that an earlier version may have stored although they were cut off, or something else in their place.
//!
//! Nothing ever tells of them again: their versions do not change. So what stands in a folder is held against what the
//! service said of it then ([`Expected`]), once, and what is suspicious is fetched again. It costs no request, only
//! reading: the start and the end of each message, and all of it where these are not enough. A run looks through
//! [`LOOKED_AT_MAX`] messages of a mailbox, and the state says how far it came.

use crate::backup::BackupError;
use crate::backup::collection::item::{ItemKey, item_id};
use crate::backup::collection::listed::{Departed, Names, Rounds};
use crate::backup::collection::plan::Plan;
use crate::backup::collection::previous::Previous;
use crate::backup::collection::state::FolderState;
use crate::backup::collection::{Amendments, Examined};
use crate::backup::context::{Context, Ended};
use crate::format::entry::{Directory, Entry};
use crate::repository::read_error::ReadError;
use crate::repository::tree::Entries;
use crate::runtime::blocking;
use crate::source::graph::expected::{Expected, Seen, Verdict};
use crate::source::graph::model::Message;
use std::sync::Arc;

/// The comparison that everything in a folder has passed once it stands in the folder's state. A stricter one gets the
/// next number, and each folder is looked through once more.
pub const COMPARED: u32 = 1;
/// Maximum number of messages of a mailbox that are examined in one run, so that a large old mailbox does not hold up
/// the run.
pub const LOOKED_AT_MAX: usize = 10_000;
/// The start of a message: nearly every header is shorter.
const START_BYTES: usize = 64 << 10;
/// The end of a message, where its last part is closed.
const END_BYTES: usize = 4 << 10;
/// So much of a message is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What came of looking through a folder.
struct Looked {
    /// Messages to be fetched again: their ids, and what the service said of them.
    suspects: Vec<(String, Message)>,
    /// How many were looked at.
    count: usize,
    /// The name of the last one, if there are more.
    to: Option<String>,
}

/// Returns whether messages of a folder may have been stored without being compared.
pub fn owes_comparison(folder: &FolderState) -> bool {
    folder.compared < COMPARED
}

/// Looks through what was stored without being compared, adds what is suspicious to the rows of the rounds, and returns
/// it.
///
/// # Errors
/// What ends the run.
pub async fn audit(
    context: &Arc<Context>,
    plan: &Plan<'_>,
    previous: &Previous,
    rounds: &mut Rounds<Message>,
    departed: &Departed,
) -> Result<Amendments, Ended> {
    let mut audited = Amendments::default();
    let owing = plan.folders.iter().filter(|folder| owes_comparison(folder));
    audited.unexamined = owing.map(|folder| folder.id.clone()).collect();
    let mut left = LOOKED_AT_MAX;
    for (index, folder) in plan.folders.iter().enumerate().filter(|(_, folder)| owes_comparison(folder)) {
        let Some(listed) = rounds.complete.get_mut(&index) else { continue };
        let looked = match previous.folder(&folder.id).copied() {
            // All of it is stored by this version.
            None => Looked { suspects: Vec::new(), count: 0, to: None },
            Some(_) if left == 0 => continue,
            Some(base) => {
                let (context, after) = (context.clone(), folder.compared_to.clone());
                let gone = departed.get(&index).cloned().unwrap_or_default();
                blocking(move || look_through(&context, &base, after.as_deref(), &gone, left)).await?
            }
        };
        left -= looked.count;
        for (id, told) in looked.suspects {
            audited.suspects.insert(ItemKey::of(&id));
            if !listed.tells_of(&id) {
                listed.take(&told, context)?;
            }
        }
        let compared = if looked.to.is_none() { COMPARED } else { folder.compared };
        audited.examined.insert(index, Examined { compared, compared_to: looked.to });
    }
    if !audited.suspects.is_empty() {
        let messages = audited.suspects.len();
        tracing::warn!(messages, "stored messages are not what was said of them, fetching them again");
    }
    Ok(audited)
}

/// Looks at up to `max` messages of a folder, from behind the name `after` on.
fn look_through(
    context: &Context,
    folder: &Directory,
    after: Option<&str>,
    gone: &Names,
    max: usize,
) -> Result<Looked, BackupError> {
    let mut looked = Looked { suspects: Vec::new(), count: 0, to: None };
    let mut last = None;
    for found in Entries::new(&*context.reader, folder)? {
        let found = found?;
        let entry = found.entry();
        let is_done = after.is_some_and(|after| *entry.name <= *after.as_bytes());
        let Some(id) = item_id(entry).filter(|_| !is_done && !gone.contains(&entry.name)) else { continue };
        context.check()?;
        if looked.count == max {
            // Only names that are text can be kept; this program gives no others.
            looked.to = last;
            break;
        }
        looked.count += 1;
        last = Some(String::from_utf8_lossy(&entry.name).into_owned());
        if let Some(told) = suspect(context, entry)? {
            looked.suspects.push((id.to_owned(), told));
        }
    }
    Ok(looked)
}

/// Returns what the service said of a message that does not agree with what is stored of it.
///
/// # Errors
/// When the repository cannot be read; what is damaged there is left to `check`.
pub fn suspect(context: &Context, entry: &Entry) -> Result<Option<Message>, ReadError> {
    match compare(context, entry) {
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "a stored message cannot be compared");
            Ok(None)
        }
        compared => compared,
    }
}

fn compare(context: &Context, entry: &Entry) -> Result<Option<Message>, ReadError> {
    let (Some(content), Some(payload)) = (entry.content(), &entry.payload) else { return Ok(None) };
    if entry.facts.reconstructed {
        return Ok(None);
    }
    let reader = &context.reader;
    let mut told = Vec::new();
    reader.read(payload, 0, usize::MAX, &mut told)?;
    let Ok(told) = serde_json::from_slice::<Message>(&told) else { return Ok(None) };
    let (expected, len) = (Expected::message(&told.row), content.len());
    let mut piece = Vec::new();
    let mut seen = Seen::default();
    if len > (START_BYTES + END_BYTES) as u64 {
        let end = len - END_BYTES as u64;
        reader.read(content, 0, START_BYTES, &mut piece)?;
        seen.push(&piece);
        seen.skip(end - START_BYTES as u64);
        piece.clear();
        reader.read(content, end, END_BYTES, &mut piece)?;
        seen.push(&piece);
        if expected.judge(&seen) == Verdict::Right {
            return Ok(None);
        }
        seen = Seen::default();
    }
    for start in (0..len).step_by(PIECE_BYTES) {
        piece.clear();
        reader.read(content, start, PIECE_BYTES, &mut piece)?;
        seen.push(&piece);
    }
    Ok((expected.judge(&seen) != Verdict::Right).then_some(told))
}
