//! What really left a folder: nothing is taken out of the tree because one answer said so.
//!
//! What is said to have left is asked for by its id. Of more than [`DEPARTURES_PROVEN_MAX`] in one folder so many are
//! asked for, spread over all: one that is still in the folder discredits the whole round, and one that lies in another
//! folder of the backup has all of them asked for. README and docs/cli.md say so.

use super::{Making, ROUNDS_AT_ONCE, Stop};
use crate::backup::BackupError;
use crate::backup::tenant::previous::{ItemKey, Previous, message_id};
use crate::backup::tenant::rounds::Listed;
use crate::backup::tenant::state::{FailedItem, FolderState};
use crate::format::entry::Directory;
use crate::repository::tree::Entries;
use crate::source::graph::model::Message;
use crate::source::graph::{ErrorKind, GraphError};
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};

/// Of more departures than this, so many are proven, spread over all.
const DEPARTURES_PROVEN_MAX: usize = 1000;
/// Rows that are read at a time.
const ROWS_AT_ONCE: usize = 64;

/// What asking for a message came to.
enum Answer {
    Gone,
    There(Box<Message>),
    Unreadable(String),
}

impl Answer {
    fn message(self) -> Option<Message> {
        if let Answer::There(message) = self { Some(*message) } else { None }
    }

    /// Returns whether the message lies in another folder of the backup than the one with this id.
    fn is_elsewhere(&self, id: &str, folders: &[FolderState]) -> bool {
        let Answer::There(message) = self else { return false };
        let parent = message.row.parent_folder_id.as_deref();
        parent != Some(id) && folders.iter().any(|folder| folder.selected && Some(folder.id.as_str()) == parent)
    }
}

/// A message that is said to have left: its id, and its name in the snapshot before.
type Departure = (ItemKey, String, Box<[u8]>);

impl Making<'_> {
    /// Decides for messages that several folders' rounds told of, since they moved meanwhile, where they are now.
    pub(super) async fn settle_conflicts(&mut self, rounds: &mut HashMap<usize, Listed>) -> Result<(), Stop> {
        let mut first: HashMap<ItemKey, usize> = HashMap::new();
        let mut several: HashSet<ItemKey> = HashSet::new();
        for (index, listed) in &*rounds {
            several.extend(listed.rows.keys().filter(|item| first.insert(**item, *index).is_some()));
        }
        if several.is_empty() {
            return Ok(());
        }
        drop(first);
        let mut ids = HashMap::new();
        for listed in rounds.values() {
            let mut after = None;
            loop {
                let (messages, last) = listed.rows_after(after.as_deref(), ROWS_AT_ONCE, self.context)?;
                let Some(last) = last else { break };
                after = Some(last);
                let found = messages.into_iter().map(|message| (ItemKey::of(&message.row.id), message.row.id));
                ids.extend(found.filter(|(item, _)| several.contains(item)));
            }
        }
        for (item, id) in ids {
            let now = self.mailbox.message(&id).await?;
            for (index, listed) in &mut *rounds {
                let here = now
                    .as_ref()
                    .filter(|now| now.row.parent_folder_id.as_deref() == Some(&self.state.folders[*index].id));
                if listed.rows.contains_key(&item) {
                    listed.forget(item, self.context)?;
                    if let Some(now) = here {
                        listed.take(now, self.context)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds out which messages left their folders, and proves it: for each folder their names in the snapshot before.
    ///
    /// A message that is said to have left, or is not told of by a listing of everything, is asked for by itself. One
    /// that is still there is taken for what it is, wherever it lies now.
    pub(super) async fn departures(
        &mut self,
        rounds: &mut HashMap<usize, Listed>,
        previous: &Previous,
    ) -> Result<HashMap<usize, HashSet<Box<[u8]>>>, Stop> {
        let mut departed: HashMap<usize, HashSet<Box<[u8]>>> = HashMap::new();
        let mut elsewhere = Vec::new();
        let mut contradicted = Vec::new();
        let mut unreadable = Vec::new();
        for (index, listed) in &*rounds {
            let left = self.left(*index, listed, previous)?;
            // What another folder's round tells of has moved: that proves it.
            let moved = |item: &ItemKey| rounds.values().any(|listed| listed.rows.contains_key(item));
            let (moved, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|(item, ..)| moved(item));
            let names = departed.entry(*index).or_default();
            names.extend(moved.into_iter().map(|(_, _, name)| name));
            let step = rest.len().div_ceil(DEPARTURES_PROVEN_MAX).max(1);
            let id = self.state.folders[*index].id.as_str();
            let (mut stays, answers) = (HashSet::new(), self.prove(id, &rest).await?);
            for (item, answer) in answers {
                match answer {
                    Answer::Gone => {}
                    Answer::There(message) => {
                        if step > 1 && message.row.parent_folder_id.as_deref() == Some(id) {
                            contradicted.push(*index);
                        }
                        stays.insert(item);
                        elsewhere.push(*message);
                    }
                    Answer::Unreadable(reason) => {
                        stays.insert(item);
                        let named = rest.iter().find(|(asked, ..)| *asked == item);
                        unreadable.extend(named.map(|(_, id, name)| {
                            let name = String::from_utf8_lossy(name).into_owned();
                            (*index, FailedItem { id: id.clone(), name, reason })
                        }));
                    }
                }
            }
            names.extend(rest.into_iter().filter(|(item, ..)| !stays.contains(item)).map(|(_, _, name)| name));
            let strays = self.strays(*index, listed, rounds, previous);
            let found = self.prove(id, &strays).await?.into_iter().filter_map(|(_, answer)| answer.message());
            elsewhere.extend(found);
        }
        for id in self.folders_gone(previous) {
            let Some(dir) = previous.folder(id) else { continue };
            let is_told_of = |item: &ItemKey| rounds.values().any(|listed| listed.rows.contains_key(item));
            let lost = self.standing(dir, |item| !is_told_of(item))?;
            elsewhere.extend(self.prove(id, &lost).await?.into_iter().filter_map(|(_, answer)| answer.message()));
        }
        for (index, failed) in unreadable {
            rounds.get_mut(&index).expect("a round that was just looked at").unreadable.push(failed);
        }
        elsewhere.extend(rounds.values_mut().flat_map(|listed| std::mem::take(&mut listed.moved)));
        for index in contradicted {
            // Nothing of this round is believed.
            if let Some(listed) = rounds.remove(&index) {
                listed.clear(self.context)?;
            }
            departed.remove(&index);
            let error = "the service says that many messages left which it still has";
            self.state.folders[index].error = Some(error.to_owned());
        }
        for message in elsewhere {
            self.place(&message, rounds, previous, &mut departed).await?;
        }
        // A move that the folder it left does not tell of yet.
        for listed in rounds.values() {
            for item in listed.rows.keys() {
                let Some(place) = previous.place(*item) else { continue };
                let old = self.state.folders.iter().position(|folder| folder.id == previous.folder_of(place));
                let Some(old) = old.filter(|old| rounds.get(old).is_some_and(|old| !old.rows.contains_key(item)))
                else {
                    continue;
                };
                if let Some(entry) = previous.entry(&self.context.reader, place).map_err(BackupError::from)? {
                    departed.entry(old).or_default().insert(entry.name);
                }
            }
        }
        Ok(departed)
    }

    /// Asks for messages that are said to have left the folder with this id: of very many only for some, unless one of
    /// those lies elsewhere.
    async fn prove(&self, id: &str, departures: &[Departure]) -> Result<Vec<(ItemKey, Answer)>, Stop> {
        let step = departures.len().div_ceil(DEPARTURES_PROVEN_MAX).max(1);
        let answers = self.ask(departures.iter().step_by(step)).await?;
        let have_moved = answers.iter().any(|(_, answer)| answer.is_elsewhere(id, &self.state.folders));
        if step > 1 && have_moved { self.ask(departures.iter()).await } else { Ok(answers) }
    }

    /// Returns the messages that came and left again since the last round, and that no other folder's round tells of: a
    /// move may show up only as a removal.
    fn strays(
        &self,
        index: usize,
        listed: &Listed,
        rounds: &HashMap<usize, Listed>,
        previous: &Previous,
    ) -> Vec<Departure> {
        if listed.full {
            // It may tell of what left long ago.
            return Vec::new();
        }
        let failed: HashSet<_> = self.state.folders[index].failed.iter().map(|failed| failed.id.as_str()).collect();
        let is_told_of = |item: &ItemKey| rounds.values().any(|listed| listed.rows.contains_key(item));
        let is_stray =
            |item: &ItemKey, id: &str| previous.place(*item).is_none() && !is_told_of(item) && !failed.contains(id);
        let left = listed.left.iter().filter(|(item, id)| is_stray(item, id));
        left.map(|(item, id)| (*item, id.clone(), Box::default())).collect()
    }

    /// Asks for messages.
    async fn ask(&self, departures: impl Iterator<Item = &Departure>) -> Result<Vec<(ItemKey, Answer)>, Stop> {
        let asking = departures.map(|(item, id, _)| async {
            match self.mailbox.message(id).await {
                Ok(None) => Ok((*item, Answer::Gone)),
                Ok(Some(message)) => Ok((*item, Answer::There(Box::new(message)))),
                Err(error) if error.kind() == ErrorKind::ItemCorrupt => {
                    Ok((*item, Answer::Unreadable(error.to_string())))
                }
                Err(error) => Err(error),
            }
        });
        let answers: Vec<_> = futures_util::stream::iter(asking).buffer_unordered(ROUNDS_AT_ONCE).collect().await;
        Ok(answers.into_iter().collect::<Result<_, GraphError>>()?)
    }

    /// Takes a message that is not where it was, or not told of, for what it is now.
    async fn place(
        &mut self,
        message: &Message,
        rounds: &mut HashMap<usize, Listed>,
        previous: &Previous,
        departed: &mut HashMap<usize, HashSet<Box<[u8]>>>,
    ) -> Result<(), Stop> {
        let number = |id: Option<&str>| self.state.folders.iter().position(|folder| Some(folder.id.as_str()) == id);
        let parent = message.row.parent_folder_id.as_deref();
        let place = previous.place(ItemKey::of(&message.row.id));
        let (old, now) = (number(place.map(|place| previous.folder_of(place))), number(parent));
        if let Some(listed) = now.and_then(|now| rounds.get_mut(&now)) {
            listed.take(message, self.context)?;
        } else if self.may_belong(now, parent).await? {
            // Its folder could not be listed, or was made since: it stays, and where it was is listed anew next time,
            // or where it is if it was nowhere before.
            if let Some(listed) = old.and_then(|old| rounds.get_mut(&old)) {
                listed.link = None;
            } else if let Some(now) = now {
                self.state.folders[now].link = None;
            }
            return Ok(());
        }
        if let (Some(old), Some(place)) = (old.filter(|old| Some(*old) != now), place)
            && rounds.contains_key(&old)
            && let Some(entry) = previous.entry(&self.context.reader, place).map_err(BackupError::from)?
        {
            departed.entry(old).or_default().insert(entry.name);
        }
        Ok(())
    }

    /// Returns whether a folder without a round belongs to the backup: one that failed, or that was made meanwhile.
    async fn may_belong(&self, number: Option<usize>, id: Option<&str>) -> Result<bool, GraphError> {
        if let Some(number) = number {
            return Ok(self.state.folders[number].selected && !self.gone.contains(&number));
        }
        let Some(id) = id else { return Ok(false) };
        let Some(folder) = self.mailbox.folder(id).await? else { return Ok(false) };
        let wanted = !folder.is_search() && (self.context.options.hidden_folders || !folder.is_hidden);
        let parent = folder.parent_folder_id;
        Ok(wanted && (parent == self.root || self.state.folders.iter().any(|known| Some(&known.id) == parent.as_ref())))
    }

    /// Returns the messages of the snapshot before that a round says are not in the folder any more.
    fn left(&self, index: usize, listed: &Listed, previous: &Previous) -> Result<Vec<Departure>, BackupError> {
        let folder = &self.state.folders[index].id;
        let reader = &self.context.reader;
        let mut left = Vec::new();
        if !listed.full {
            for (item, id) in &listed.left {
                let here = previous.place(*item).filter(|place| previous.folder_of(*place) == folder);
                if let Some(place) = here
                    && let Some(entry) = previous.entry(reader, place)?
                {
                    left.push((*item, id.clone(), entry.name));
                }
            }
            return Ok(left);
        }
        let Some(dir) = previous.folder(folder) else { return Ok(left) };
        self.standing(dir, |item| !listed.rows.contains_key(item))
    }

    /// Returns the messages of a folder in the snapshot before that are wanted.
    fn standing(
        &self,
        folder: &Directory,
        is_wanted: impl Fn(&ItemKey) -> bool,
    ) -> Result<Vec<Departure>, BackupError> {
        let mut standing = Vec::new();
        for found in Entries::new(&*self.context.reader, folder)? {
            let found = found?;
            let Some(id) = message_id(found.entry()) else { continue };
            let item = ItemKey::of(id);
            if is_wanted(&item) {
                standing.push((item, id.to_owned(), found.entry().name.clone()));
            }
        }
        Ok(standing)
    }

    /// Returns the ids of the folders in the snapshot before that the mailbox does not have any more.
    pub(super) fn folders_gone<'p>(&self, previous: &'p Previous) -> impl Iterator<Item = &'p str> {
        let is_gone = |id: &&str| {
            let now = self.state.folders.iter().position(|folder| folder.id == **id);
            now.is_none_or(|now| self.gone.contains(&now))
        };
        previous.ids().filter(is_gone)
    }
}
