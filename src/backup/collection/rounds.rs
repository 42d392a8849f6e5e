//! Goes through the rounds of a collection: asks the service for each folder what changed in it, or what is in it.

use super::Collection;
use super::item::{Item, ItemKey};
use super::listed::{Listed, Rounds};
use super::plan::Plan;
use super::state::{FailedItem, FolderState};
use crate::backup::BackupError;
use crate::backup::context::{Context, Ended, ends_the_run};
use crate::source::graph::round::ItemPage;
use crate::source::graph::throttle::MAILBOX_CONCURRENCY_MAX;
use crate::source::graph::{ErrorKind, GraphError};
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};

/// Maximum number of rounds over one folder in a run. A round that the service breaks off is begun anew.
const ROUNDS_MAX: usize = 4;
/// Number of rows that are read from the local state at a time.
const ROWS_AT_ONCE: usize = 64;
/// Maximum length of an id, in bytes. Immutable ids have up to 150, and ids in shared folders 300.
const ID_LEN_MAX: usize = 1024;
/// Maximum number of items that left in one round of changes. They are kept in memory. If more items left, the folder
/// is listed in full.
const LEFT_MAX: usize = 100_000;

/// How a round over one folder ended.
enum Round<I> {
    /// The round is complete.
    Complete(Box<Listed<I>>),
    /// The folder is gone.
    Gone,
    /// The round cannot be completed.
    Failed(GraphError),
}

/// Goes through the rounds of all folders that belong to the snapshot. If a round fails, its folder stays as it was.
///
/// # Errors
/// Errors that end the work on the collection, or the run.
pub async fn go<C: Collection>(context: &Context, collection: &C, plan: &Plan<'_>) -> Result<Rounds<C::Item>, Ended> {
    let selected: Vec<_> = (0..plan.folders.len()).filter(|index| plan.folders[*index].selected).collect();
    let asked = selected.len();
    let going = selected.into_iter().map(|index| async move {
        go_round(context, collection, &plan.folders[index]).await.map(|round| (index, round))
    });
    let gone: Vec<_> = futures_util::stream::iter(going).buffer_unordered(MAILBOX_CONCURRENCY_MAX).collect().await;
    let mut rounds =
        Rounds { complete: HashMap::new(), gone: HashSet::new(), failed: HashMap::new(), listed_anew: HashSet::new() };
    let (mut denied, mut refused) = (None, 0);
    for round in gone {
        let (index, round) = round?;
        match round {
            Round::Complete(listed) => _ = rounds.complete.insert(index, *listed),
            Round::Gone => _ = rounds.gone.insert(index),
            Round::Failed(error) if error.kind() == ErrorKind::Unavailable && error.status().is_none() => {
                return Err(Ended::Mailbox(error));
            }
            Round::Failed(error) if error.kind() == ErrorKind::QuotaExceeded => return Err(Ended::Mailbox(error)),
            Round::Failed(error) => {
                rounds.failed.insert(index, error.to_string());
                if error.kind() == ErrorKind::Denied {
                    refused += 1;
                    denied = Some(error);
                }
            }
        }
    }
    if let Some(error) = denied.filter(|_| refused == asked) {
        return Err(Ended::Mailbox(error));
    }
    if !rounds.gone.is_empty() && !collection.exists().await? {
        // The whole mailbox is gone, not only some folders.
        return Err(Ended::Mailbox(GraphError::no_mailbox(C::LISTING)));
    }
    Ok(rounds)
}

/// Goes through a round over the folder: of changes if that is possible, else of everything.
///
/// # Errors
/// Errors that end the run. Errors that concern only the folder are in the answer.
async fn go_round<C: Collection>(
    context: &Context,
    collection: &C,
    folder: &FolderState,
) -> Result<Round<C::Item>, BackupError> {
    // A link may lead to another host, because the endpoints were changed or because the service gave out a bad link.
    let mut link = folder.link.as_deref().filter(|link| collection.may_follow(link));
    let mut by_changes = true;
    for attempt in 1.. {
        context.check()?;
        let mut filling = Filling { context, collection, folder, listed: Listed::new(context, link.is_none()) };
        let error = match filling.fill(link, by_changes).await {
            Ok(()) => return Ok(Round::Complete(Box::new(filling.listed))),
            Err(Ended::Run(error)) => return Err(error),
            Err(Ended::Item(error) | Ended::Mailbox(error)) => error,
        };
        filling.listed.clear(context)?;
        match error.kind() {
            // The next round lists everything. It has no rows for items that left: `departures` finds those by
            // comparing.
            ErrorKind::Resync if attempt < ROUNDS_MAX => link = None,
            // Such a folder is listed in full by every run.
            ErrorKind::DeltaUnsupported if by_changes => (link, by_changes) = (None, false),
            // If the answer makes no sense twice, the link may be the cause. A listing needs none.
            ErrorKind::Malformed if attempt < ROUNDS_MAX => _ = link.take_if(|_| attempt > 1),
            ErrorKind::BadRequest | ErrorKind::TooLarge if link.is_some() => link = None,
            ErrorKind::NotFound => match collection.folder(context, &folder.id).await {
                Ok(None) => return Ok(Round::Gone),
                // The folder exists, so it was the link that was not found.
                Ok(Some(_)) if attempt < ROUNDS_MAX => link = None,
                Ok(Some(_)) => return Ok(Round::Failed(error)),
                Err(error) => return Ok(Round::Failed(error)),
            },
            _ => return Ok(Round::Failed(error)),
        }
    }
    unreachable!("the last attempt returns")
}

/// A round over one folder, while it is being listed.
struct Filling<'a, C: Collection> {
    context: &'a Context,
    collection: &'a C,
    folder: &'a FolderState,
    listed: Listed<C::Item>,
}

impl<C: Collection> Filling<'_, C> {
    /// Reads all pages, then asks for the items that failed in the previous run.
    async fn fill(&mut self, link: Option<&str>, by_changes: bool) -> Result<(), Ended> {
        let mut round = match by_changes {
            true => self.collection.changes(&self.folder.id, link),
            false => self.collection.listing(&self.folder.id),
        };
        loop {
            self.context.check()?;
            let Some(page) = round.next().await? else { break };
            let partial = self.take_page(&page)?;
            drop(page);
            self.complete(partial).await?;
        }
        self.listed.link = round.link();
        self.ask_for_failed().await
    }

    /// Takes the rows of a page, and returns the ids of the items with partial rows.
    fn take_page(&mut self, page: &ItemPage<C::Item>) -> Result<Vec<String>, Ended> {
        let mut partial: HashMap<ItemKey, String> = HashMap::new();
        for row in page.rows() {
            let row = row?;
            if row.id().len() > ID_LEN_MAX {
                return Err(GraphError::malformed(C::LISTING).into());
            }
            self.context.check()?;
            // A partial row tells only what changed. The item has to be requested by its id.
            if !row.is_removed() && !row.is_whole() {
                partial.insert(ItemKey::of(row.id()), row.id().to_owned());
                continue;
            }
            partial.remove(&ItemKey::of(row.id()));
            self.listed.take(&row, self.context)?;
            if self.listed.left.len() > LEFT_MAX {
                return Err(GraphError::too_many(C::LISTING, &format!("{} that left", C::ITEMS), LEFT_MAX).into());
            }
        }
        Ok(partial.into_values().collect())
    }

    /// Asks for the items with partial rows.
    async fn complete(&mut self, partial: Vec<String>) -> Result<(), Ended> {
        let collection = self.collection;
        let asking = partial.into_iter().map(|id| async move { (collection.item(&id).await, id) });
        let mut asking = std::pin::pin!(futures_util::stream::iter(asking).buffer_unordered(MAILBOX_CONCURRENCY_MAX));
        while let Some((answer, id)) = asking.next().await {
            self.context.check()?;
            match answer? {
                Some(whole) => self.listed.take(&whole, self.context)?,
                None => self.listed.leave(&id),
            }
        }
        Ok(())
    }

    /// Asks for the items that failed in the previous run. They need not have changed since, so no row may report them.
    /// An item that is said to have left may lie in another folder, and no other round may report it there.
    async fn ask_for_failed(&mut self) -> Result<(), Ended> {
        let (collection, folder) = (self.collection, self.folder);
        let untold: Vec<_> =
            folder.failed.iter().filter(|failed| !self.listed.rows.contains_key(&ItemKey::of(&failed.id))).collect();
        let asking = untold.into_iter().map(|failed| async move { (failed, collection.item(&failed.id).await) });
        let mut asking = std::pin::pin!(futures_util::stream::iter(asking).buffer_unordered(MAILBOX_CONCURRENCY_MAX));
        while let Some((failed, answer)) = asking.next().await {
            self.context.check()?;
            match answer {
                Ok(Some(item)) if item.folder() == Some(&folder.id) => self.listed.take(&item, self.context)?,
                Ok(Some(elsewhere)) => {
                    self.listed.leave(&failed.id);
                    self.listed.moved.push(elsewhere);
                }
                Ok(None) => self.listed.leave(&failed.id),
                Err(error) if ends_the_run(&error) || error.is_transient() => return Err(error.into()),
                Err(error) => {
                    self.listed.unreadable.push(FailedItem { reason: error.to_string(), ..failed.clone() });
                }
            }
        }
        Ok(())
    }
}

/// Finds out where items are that the rounds of several folders reported because they moved meanwhile.
///
/// # Errors
/// Errors that end the work on the collection, or the run.
pub async fn settle_conflicts<C: Collection>(
    context: &Context,
    collection: &C,
    plan: &Plan<'_>,
    rounds: &mut Rounds<C::Item>,
) -> Result<(), Ended> {
    for (item, id) in reported_twice(context, rounds)? {
        let now = collection.item(&id).await?;
        for (index, listed) in &mut rounds.complete {
            if !listed.rows.contains_key(&item) {
                continue;
            }
            listed.forget(item, context)?;
            let folder = plan.folders[*index].id.as_str();
            if let Some(now) = now.as_ref().filter(|now| now.folder() == Some(folder)) {
                listed.take(now, context)?;
            }
        }
    }
    Ok(())
}

/// Returns the items that the rounds of several folders reported, with their ids.
fn reported_twice<I: Item>(context: &Context, rounds: &Rounds<I>) -> Result<HashMap<ItemKey, String>, Ended> {
    let mut ids = HashMap::new();
    let mut several: HashSet<ItemKey> = HashSet::new();
    {
        let mut first: HashSet<ItemKey> = HashSet::new();
        for listed in rounds.complete.values() {
            several.extend(listed.rows.keys().filter(|item| !first.insert(**item)));
        }
    }
    if several.is_empty() {
        return Ok(ids);
    }
    for listed in rounds.complete.values() {
        let mut after = None;
        loop {
            let (items, last) = listed.rows_after(after.as_deref(), ROWS_AT_ONCE, context)?;
            let Some(last) = last else { break };
            after = Some(last);
            let found = items.into_iter().map(|item| (ItemKey::of(item.id()), item.id().to_owned()));
            ids.extend(found.filter(|(item, _)| several.contains(item)));
        }
    }
    Ok(ids)
}
