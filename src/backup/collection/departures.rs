//! Proves which items left their folders. One answer is not enough to remove an item from the snapshot.
//!
//! Each item that is said to have left is requested by its id. If more than [`DEPARTURES_PROVEN_MAX`] items left one
//! folder, a sample of this size is requested, spread over all of them. If one of the sample is still in the folder,
//! the whole round is not believed. If one lies in another folder of the backup, all items are requested. README and
//! docs/cli.md say so.

use super::Collection;
use super::item::{Item, ItemKey, item_id};
use super::listed::{Departed, Listed, Names, Rounds};
use super::plan::Plan;
use super::previous::Previous;
use super::state::FailedItem;
use crate::backup::BackupError;
use crate::backup::context::{Context, Ended};
use crate::format::entry::Directory;
use crate::repository::tree::Entries;
use crate::source::graph::throttle::MAILBOX_CONCURRENCY_MAX;
use crate::source::graph::{ErrorKind, GraphError};
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};

/// Maximum number of departures in one folder that are all proven. Of more, a sample of this size is.
const DEPARTURES_PROVEN_MAX: usize = 1000;

/// The answer to the request for an item.
enum Answer<I> {
    Gone,
    There(Box<I>),
    Unreadable(String),
}

impl<I> Answer<I> {
    fn item(self) -> Option<I> {
        if let Answer::There(item) = self { Some(*item) } else { None }
    }
}

/// An item that is said to have left.
struct Departure {
    item: ItemKey,
    id: String,
    /// Its name in the previous snapshot.
    name: Box<[u8]>,
}

/// What was found out about departures. Nothing of it is applied yet.
struct Findings<I> {
    departed: Departed,
    /// Items that exist, although they were said to have left.
    elsewhere: Vec<I>,
    /// The numbers of folders whose rounds are not believed.
    contradicted: Vec<usize>,
    /// Items that the service cannot read, with the numbers of their folders.
    unreadable: Vec<(usize, FailedItem)>,
}

/// Proves which items left their folders. Returns their names in the previous snapshot, for each folder.
///
/// An item that is said to have left, or that a full listing does not have, is requested by its id. If it still exists,
/// it is added to the round of the folder that it lies in now.
///
/// # Errors
/// Errors that end the work on the collection, or the run.
pub async fn prove<C: Collection>(
    context: &Context,
    collection: &C,
    plan: &Plan<'_>,
    previous: &Previous,
    rounds: &mut Rounds<C::Item>,
) -> Result<Departed, Ended> {
    let proving = Proving { context, collection, plan, previous };
    let mut findings =
        Findings { departed: Departed::new(), elsewhere: Vec::new(), contradicted: Vec::new(), unreadable: Vec::new() };
    for index in rounds.complete.keys() {
        proving.folder(*index, rounds, &mut findings).await?;
    }
    for id in folders_gone(plan, rounds, previous) {
        let Some(dir) = previous.folder(id) else { continue };
        let lost = proving.standing(dir, |item| !rounds.have(*item))?;
        findings
            .elsewhere
            .extend(proving.ask_some(id, &lost).await?.into_iter().filter_map(|(_, answer)| answer.item()));
    }
    let Findings { mut departed, mut elsewhere, contradicted, unreadable } = findings;
    for (index, failed) in unreadable {
        rounds.complete.get_mut(&index).expect("a round that was just looked at").unreadable.push(failed);
    }
    elsewhere.extend(rounds.complete.values_mut().flat_map(|listed| std::mem::take(&mut listed.moved)));
    for index in contradicted {
        // Nothing in this round is believed.
        if let Some(listed) = rounds.complete.remove(&index) {
            listed.clear(context)?;
        }
        departed.remove(&index);
        let error = format!("the service says that many {} left which it still has", C::ITEMS);
        rounds.failed.insert(index, error);
    }
    for item in elsewhere {
        proving.place(&item, rounds, &mut departed).await?;
    }
    proving.moves_told_of_once(rounds, &mut departed)?;
    Ok(departed)
}

/// Returns the ids of the folders in the previous snapshot that the collection does not have any more.
pub fn folders_gone<'p, I>(
    plan: &Plan<'_>,
    rounds: &Rounds<I>,
    previous: &'p Previous,
) -> impl Iterator<Item = &'p str> {
    previous.ids().filter(|id| plan.number(id).is_none_or(|now| rounds.gone.contains(&now)))
}

/// What all steps of the proof use.
struct Proving<'a, C> {
    context: &'a Context,
    collection: &'a C,
    plan: &'a Plan<'a>,
    previous: &'a Previous,
}

impl<C: Collection> Proving<'_, C> {
    /// Proves which items left one folder, according to its round.
    async fn folder(
        &self,
        index: usize,
        rounds: &Rounds<C::Item>,
        findings: &mut Findings<C::Item>,
    ) -> Result<(), Ended> {
        let listed = &rounds.complete[&index];
        let left = self.left(index, listed)?;
        // If the round of another folder has the item, it moved there. That proves that it left.
        let (moved, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|departure| rounds.have(departure.item));
        let is_sampled = rest.len() > DEPARTURES_PROVEN_MAX;
        let id = self.plan.folders[index].id.as_str();
        let mut stays = HashSet::new();
        for (departure, answer) in self.ask_some(id, &rest).await? {
            match answer {
                Answer::Gone => {}
                Answer::There(item) => {
                    if is_sampled && item.folder() == Some(id) {
                        findings.contradicted.push(index);
                    }
                    stays.insert(departure.item);
                    findings.elsewhere.push(*item);
                }
                Answer::Unreadable(reason) => {
                    stays.insert(departure.item);
                    let name = String::from_utf8_lossy(&departure.name).into_owned();
                    findings.unreadable.push((index, FailedItem { id: departure.id.clone(), name, reason }));
                }
            }
        }
        let names = findings.departed.entry(index).or_default();
        names.extend(moved.into_iter().map(|departure| departure.name));
        names.extend(rest.into_iter().filter(|left| !stays.contains(&left.item)).map(|left| left.name));
        let strays = self.strays(index, listed, rounds);
        findings
            .elsewhere
            .extend(self.ask_some(id, &strays).await?.into_iter().filter_map(|(_, answer)| answer.item()));
        Ok(())
    }

    /// Requests items that are said to have left the folder with the id `id`. Of very many, only a sample is requested,
    /// unless one of the sample lies in another folder.
    async fn ask_some<'d>(
        &self,
        id: &str,
        departures: &'d [Departure],
    ) -> Result<Vec<(&'d Departure, Answer<C::Item>)>, Ended> {
        let step = departures.len().div_ceil(DEPARTURES_PROVEN_MAX).max(1);
        let answers = self.ask(departures.iter().step_by(step)).await?;
        let have_moved = answers.iter().any(|(_, answer)| self.is_elsewhere(answer, id));
        if step > 1 && have_moved { self.ask(departures.iter()).await } else { Ok(answers) }
    }

    /// Returns true if the item lies in a folder of the backup other than the one with the id `id`.
    fn is_elsewhere(&self, answer: &Answer<C::Item>, id: &str) -> bool {
        let Answer::There(item) = answer else { return false };
        let now = item.folder().filter(|now| *now != id).and_then(|now| self.plan.number(now));
        now.is_some_and(|now| self.plan.folders[now].selected)
    }

    async fn ask<'d>(
        &self,
        departures: impl Iterator<Item = &'d Departure>,
    ) -> Result<Vec<(&'d Departure, Answer<C::Item>)>, Ended> {
        let asking = departures.map(|departure| async move {
            match self.collection.item(&departure.id).await {
                Ok(None) => Ok((departure, Answer::Gone)),
                Ok(Some(item)) => Ok((departure, Answer::There(Box::new(item)))),
                Err(error) if error.kind() == ErrorKind::ItemCorrupt => {
                    Ok((departure, Answer::Unreadable(error.to_string())))
                }
                Err(error) => Err(error),
            }
        });
        let asking = futures_util::stream::iter(asking).buffer_unordered(MAILBOX_CONCURRENCY_MAX);
        let answers: Vec<_> = asking.collect().await;
        Ok(answers.into_iter().collect::<Result<_, GraphError>>()?)
    }

    /// Returns the items of the previous snapshot that are not in the folder any more, according to its round.
    fn left(&self, index: usize, listed: &Listed<C::Item>) -> Result<Vec<Departure>, BackupError> {
        let folder = &self.plan.folders[index].id;
        if listed.full {
            let Some(dir) = self.previous.folder(folder) else { return Ok(Vec::new()) };
            return self.standing(dir, |item| !listed.rows.contains_key(item));
        }
        let mut left = Vec::new();
        for (item, id) in &listed.left {
            let here = self.previous.place(*item).filter(|place| self.previous.folder_of(*place) == folder);
            if let Some(place) = here
                && let Some(entry) = self.previous.entry(&self.context.reader, place)?
            {
                left.push(Departure { item: *item, id: id.clone(), name: entry.name });
            }
        }
        Ok(left)
    }

    /// Returns the items of a folder in the previous snapshot for which `is_wanted` is true.
    fn standing(
        &self,
        folder: &Directory,
        is_wanted: impl Fn(&ItemKey) -> bool,
    ) -> Result<Vec<Departure>, BackupError> {
        let mut standing = Vec::new();
        for found in Entries::new(&*self.context.reader, folder)? {
            let found = found?;
            let Some(id) = item_id(found.entry()) else { continue };
            let item = ItemKey::of(id);
            if is_wanted(&item) {
                standing.push(Departure { item, id: id.to_owned(), name: found.entry().name.clone() });
            }
        }
        Ok(standing)
    }

    /// Returns the items that came and left since the last round, and that the round of no other folder has. They may
    /// have moved: a move may show up only as a removal.
    fn strays(&self, index: usize, listed: &Listed<C::Item>, rounds: &Rounds<C::Item>) -> Vec<Departure> {
        if listed.full {
            // It may report items that left long ago.
            return Vec::new();
        }
        let failed: HashSet<_> = self.plan.folders[index].failed.iter().map(|failed| failed.id.as_str()).collect();
        let is_stray = |item: &ItemKey, id: &str| {
            self.previous.place(*item).is_none() && !rounds.have(*item) && !failed.contains(id)
        };
        let left = listed.left.iter().filter(|(item, id)| is_stray(item, id));
        left.map(|(item, id)| Departure { item: *item, id: id.clone(), name: Box::default() }).collect()
    }

    /// Adds an item that exists to the round of the folder that it lies in now.
    async fn place(
        &self,
        item: &C::Item,
        rounds: &mut Rounds<C::Item>,
        departed: &mut HashMap<usize, Names>,
    ) -> Result<(), Ended> {
        let Proving { context, plan, previous, .. } = self;
        let parent = item.folder();
        let place = previous.place(ItemKey::of(item.id()));
        let old = place.and_then(|place| plan.number(previous.folder_of(place)));
        let now = parent.and_then(|parent| plan.number(parent));
        if let Some(listed) = now.and_then(|now| rounds.complete.get_mut(&now)) {
            listed.take(item, context)?;
        } else if self.may_belong(now, parent, rounds).await? {
            // The folder could not be listed, or was created since. So the item stays where it was, and the next run
            // lists that folder in full. If the item is new, the next run lists the folder that it lies in now.
            if let Some(listed) = old.and_then(|old| rounds.complete.get_mut(&old)) {
                listed.link = None;
            } else if let Some(now) = now {
                rounds.listed_anew.insert(now);
            }
            return Ok(());
        }
        if let (Some(old), Some(place)) = (old.filter(|old| Some(*old) != now), place)
            && rounds.complete.contains_key(&old)
            && let Some(entry) = previous.entry(&context.reader, place)?
        {
            departed.entry(old).or_default().insert(entry.name);
        }
        Ok(())
    }

    /// Returns true if a folder without a round belongs to the backup: its round failed, or it was created meanwhile.
    async fn may_belong(
        &self,
        number: Option<usize>,
        id: Option<&str>,
        rounds: &Rounds<C::Item>,
    ) -> Result<bool, GraphError> {
        if let Some(number) = number {
            return Ok(self.plan.folders[number].selected && !rounds.gone.contains(&number));
        }
        let Some(id) = id else { return Ok(false) };
        let Some(folder) = self.collection.folder(self.context, id).await? else { return Ok(false) };
        let is_known = |parent: &str| self.plan.number(parent).is_some();
        let is_placed = folder.parent == self.plan.root || folder.parent.as_deref().is_some_and(is_known);
        Ok(folder.is_wanted && is_placed)
    }

    /// Removes items from folders whose rounds do not report yet that they left, if the round of another folder has
    /// them.
    fn moves_told_of_once(
        &self,
        rounds: &Rounds<C::Item>,
        departed: &mut HashMap<usize, Names>,
    ) -> Result<(), BackupError> {
        for item in rounds.complete.values().flat_map(|listed| listed.rows.keys()) {
            let Some(place) = self.previous.place(*item) else { continue };
            let old = self.plan.number(self.previous.folder_of(place));
            let has_left = |old: &usize| rounds.complete.get(old).is_some_and(|old| !old.rows.contains_key(item));
            let Some(old) = old.filter(has_left) else { continue };
            if let Some(entry) = self.previous.entry(&self.context.reader, place)? {
                departed.entry(old).or_default().insert(entry.name);
            }
        }
        Ok(())
    }
}
