//! One mailbox: its folders and their rounds, what really left it, its messages, its tree and its ledger.

use super::content::{self, blocking};
use super::folders::{self, Planned};
use super::items::{self, Mail, Work};
use super::previous::{ItemKey, Previous, message_id};
use super::rounds::{Listed, Round, go_round};
use super::state::{FailedItem, FolderState, Ledger, MailboxState};
use super::{Account, Context, OUTLOOK, REPORT_NAME, USERS, ends_the_run};
use crate::backup::BackupError;
use crate::entry::{Content, Directory, Entry, EntryKind, Timestamp};
use crate::snapshot::Failure;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::Message;
use crate::source::graph::{ErrorKind, GraphError, directory};
use crate::store::StoreError;
use crate::tree::{self, Entries};
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A mailbox answers so many requests at a time (Graph: "Outlook service limits").
const ROUNDS_AT_ONCE: usize = 4;
/// Messages that are decided, downloaded and stored together.
const BATCH_ITEMS: usize = 64;
/// Batches under way: one is downloaded while another is split.
const BATCHES_AT_ONCE: usize = 2;
/// Of more departures than this, so many are proven, spread over all.
const DEPARTURES_PROVEN_MAX: usize = 1000;
/// Losing half of at least so many messages is worth a warning.
const MASS_LOSS_ITEMS_MIN: usize = 50;

/// What became of a mailbox.
pub struct Outcome {
    /// The id of its user.
    pub user: String,
    /// The name of the user's folder.
    pub name: String,
    /// What stands for it in the snapshot.
    pub kept: Kept,
    /// What could not be read.
    pub failures: Vec<Failure>,
    /// What somebody should know although nothing failed.
    pub warnings: Vec<String>,
    /// Whether the application may not read it.
    pub denied: bool,
}

/// What stands for a mailbox in the snapshot.
pub enum Kept {
    /// Nothing, and that is as it should be: for this reason.
    Skipped(String),
    /// Nothing, and that is a failure.
    Nothing,
    /// What the snapshot before has.
    Before(Box<Entry>, MailboxState),
    /// The user's folder as this run has made it.
    Made(Box<(Entry, MailboxState)>),
}

/// Why a mailbox was not backed up: for a reason of its own, or one that ends the run.
enum Stop {
    Mailbox(GraphError),
    Run(BackupError),
}

impl<E: Into<BackupError>> From<E> for Stop {
    fn from(error: E) -> Self {
        match error.into() {
            BackupError::Graph(error) if !ends_the_run(&error) => Stop::Mailbox(error),
            error => Stop::Run(error),
        }
    }
}

/// Backs one mailbox up.
///
/// # Errors
/// What ends the run. What concerns the mailbox alone is in the outcome.
pub async fn back_up(context: Arc<Context>, account: Account) -> Result<Outcome, BackupError> {
    let mut outcome = Outcome {
        user: account.user.id.clone(),
        name: account.name.clone(),
        kept: Kept::Nothing,
        failures: Vec::new(),
        warnings: Vec::new(),
        denied: false,
    };
    match make(&context, &account, &mut outcome).await {
        Ok(made) => outcome.kept = Kept::Made(Box::new(made)),
        // One mailbox may refuse a token that is good for all others.
        Err(Stop::Run(BackupError::Graph(error)))
            if error.kind() == ErrorKind::SignIn && error.status() == Some(401) && {
                directory::users_exist(&context.client).await?;
                true
            } =>
        {
            outcome.stands_as_before(&account, &error);
        }
        Err(Stop::Run(error)) => return Err(error),
        Err(Stop::Mailbox(error)) => {
            // Where nobody answers at all it is not the mailbox's fault.
            if error.kind() == ErrorKind::Unavailable {
                directory::users_exist(&context.client).await?;
            }
            outcome.stands_as_before(&account, &error);
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn stands_as_before(&mut self, account: &Account, error: &GraphError) {
        let reason = match error.kind() {
            ErrorKind::NoMailbox | ErrorKind::NotFound => "has no mailbox that can be reached",
            ErrorKind::Denied => "is outside of what the application may read",
            _ => "could not be read",
        };
        self.denied = error.kind() == ErrorKind::Denied;
        let has_none = matches!(error.kind(), ErrorKind::NoMailbox | ErrorKind::NotFound);
        let Some((entry, state)) = account.kept.clone() else {
            self.kept = Kept::Skipped(reason.to_owned());
            if !has_none && !self.denied {
                self.fail(error.to_string());
                self.kept = Kept::Nothing;
            }
            return;
        };
        let mut state = state;
        match has_none {
            true if state.kept.is_none() => {
                self.warnings.push(format!("{} {reason} any more; the last backup is kept", self.name));
                state.kept = Some(reason.to_owned());
            }
            true => {}
            false => self.fail(error.to_string()),
        }
        if account.before.is_none() {
            self.fail("pieces of the last backup are missing, and nothing can be read in their place".to_owned());
        }
        self.kept = Kept::Before(Box::new(entry), state);
    }

    fn fail(&mut self, error: String) {
        self.failures.push(Failure { path: format!("{USERS}/{}/{OUTLOOK}", self.name).into_bytes(), error });
    }
}

/// What asking for a message came to.
enum Answer {
    Gone,
    There(Box<Message>),
    Unreadable(String),
}

impl Answer {
    /// Returns whether the message lies in another folder of the backup than the one with this id.
    fn is_elsewhere(&self, id: &str, folders: &[FolderState]) -> bool {
        let Answer::There(message) = self else { return false };
        let parent = message.row.parent_folder_id.as_deref();
        parent != Some(id) && folders.iter().any(|folder| folder.selected && Some(folder.id.as_str()) == parent)
    }
}

/// A message that is said to have left: its id, and its name in the snapshot before.
type Departure = (ItemKey, String, Box<[u8]>);

/// A mailbox on its way into the tree.
struct Making<'a> {
    context: &'a Arc<Context>,
    mailbox: Mailbox,
    state: MailboxState,
    before: Option<&'a MailboxState>,
    /// Its folder in the snapshot before.
    base: Option<Directory>,
    /// What the folders at the top lie in.
    root: Option<String>,
    /// Folders, by their numbers, that were gone when their rounds were to begin.
    gone: HashSet<usize>,
    /// Folders, by their ids, that have no place in the tree.
    left_out: HashSet<String>,
}

async fn make(context: &Arc<Context>, account: &Account, outcome: &mut Outcome) -> Result<(Entry, MailboxState), Stop> {
    context.check()?;
    context.progress.current.lock().clone_from(&format!("{USERS}/{}", account.name).into_bytes());
    let mailbox = Mailbox::new(context.client.clone(), &account.user.id, context.options.hidden_folders);
    let before = account.before.as_ref();
    let Planned { folders, link, root } = folders::plan(context, &mailbox, &account.name, before).await?;
    let purpose = match before.and_then(|before| before.purpose.clone()) {
        Some(purpose) => Some(purpose),
        None if before.is_some() => None,
        None => purpose(context, account).await?,
    };
    let mut state = MailboxState::new(account.name.clone());
    state.folders = folders;
    state.folder_link = link;
    state.hidden = context.options.hidden_folders;
    state.purpose = purpose;
    let user_dir = account.entry.as_ref().and_then(Entry::directory);
    let base = match user_dir {
        Some(dir) => tree::find(&*context.reader, dir, OUTLOOK.as_bytes()).map_err(BackupError::from)?,
        None => None,
    };
    let old = base.as_ref().map(|found| found.entry().clone());
    let base = old.as_ref().and_then(Entry::directory).copied();
    let mut previous = Previous::default();
    if let (Some(base), Some(before)) = (&base, before) {
        previous = Previous::folders(&context.reader, base, before).map_err(BackupError::from)?;
    }
    for folder in &mut state.folders {
        // Changes need something that they change.
        folder.link.take_if(|_| previous.folder(&folder.id).is_none());
    }
    let mut making =
        Making { context, mailbox, state, before, base, root, gone: HashSet::new(), left_out: HashSet::new() };
    let rounds = making.rounds().await?;
    let outlook = making.tree(rounds, previous, outcome).await?;
    let Making { mut state, left_out, .. } = making;
    state.folders.retain(|folder| !left_out.contains(&folder.id));
    let outlook = context.folder_entry(OUTLOOK, outlook, old.as_ref());
    let dir = blocking({
        let context = context.clone();
        move || context.directory(std::iter::once(outlook))
    });
    let mut entry = context.folder_entry(&account.name, dir.await?, account.entry.as_ref());
    entry.facts.source_id = Some(account.user.id.clone());
    Ok((entry, state))
}

/// Returns what the mailbox is for, unless the permission to ask is missing.
async fn purpose(context: &Context, account: &Account) -> Result<Option<String>, GraphError> {
    match directory::purpose(&context.client, &account.user).await {
        Ok(purpose) => Ok(Some(purpose).filter(|purpose| !purpose.is_empty())),
        Err(error) if ends_the_run(&error) => Err(error),
        // Not worth a backup.
        Err(_) => Ok(None),
    }
}

impl Making<'_> {
    /// Goes through the rounds of all folders; one that fails keeps its folder as it was.
    async fn rounds(&mut self) -> Result<HashMap<usize, Listed>, Stop> {
        let selected: Vec<_> =
            (0..self.state.folders.len()).filter(|index| self.state.folders[*index].selected).collect();
        let going = selected.into_iter().map(|index| {
            let (context, mailbox, folder) = (self.context, &self.mailbox, &self.state.folders[index]);
            async move { go_round(context, mailbox, folder).await.map(|round| (index, round)) }
        });
        let gone: Vec<_> = futures_util::stream::iter(going).buffer_unordered(ROUNDS_AT_ONCE).collect().await;
        let mut rounds = HashMap::new();
        let (mut denied, asked) = (None, gone.len());
        let mut refused = 0;
        for round in gone {
            let (index, round) = round?;
            match round {
                Round::Complete(listed) => _ = rounds.insert(index, *listed),
                Round::Gone => _ = self.gone.insert(index),
                Round::Failed(error) if error.kind() == ErrorKind::Unavailable && error.status().is_none() => {
                    return Err(Stop::Mailbox(error));
                }
                Round::Failed(error) if error.kind() == ErrorKind::QuotaExceeded => return Err(Stop::Mailbox(error)),
                Round::Failed(error) => {
                    self.state.folders[index].error = Some(error.to_string());
                    if error.kind() == ErrorKind::Denied {
                        refused += 1;
                        denied = Some(error);
                    }
                }
            }
        }
        if let Some(error) = denied.filter(|_| refused == asked) {
            return Err(Stop::Mailbox(error));
        }
        if !self.gone.is_empty() && self.mailbox.folder("inbox").await?.is_none() {
            // Not the folders are gone, but the mailbox.
            return Err(Stop::Mailbox(GraphError::no_mailbox("listing messages")));
        }
        Ok(rounds)
    }

    /// Makes the mailbox's tree from what the rounds told.
    async fn tree(
        &mut self,
        mut rounds: HashMap<usize, Listed>,
        mut previous: Previous,
        outcome: &mut Outcome,
    ) -> Result<Directory, Stop> {
        let quiet = rounds.values().all(Listed::is_quiet);
        if !quiet {
            let context = self.context.clone();
            let loading = move || previous.load_items(&context.reader).map(|()| previous);
            previous = blocking(loading).await.map_err(BackupError::from)?;
        }
        self.settle_conflicts(&mut rounds).await?;
        let departed = self.departures(&mut rounds, &previous).await?;
        let mail = Arc::new(self.mail(previous, &rounds));
        for (index, listed) in &mut rounds {
            let work = &mail.works[&self.state.folders[*index].id];
            let mut done = work.done.lock();
            for failed in std::mem::take(&mut listed.unreadable) {
                let place = mail.previous.place(ItemKey::of(&failed.id));
                done.failed_but_there +=
                    u64::from(place.is_some_and(|place| mail.previous.folder_of(place) == work.id));
                done.failed.push(failed);
            }
        }
        for (index, entries) in &departed {
            let Some(work) = mail.works.get(&self.state.folders[*index].id) else { continue };
            let mut done = work.done.lock();
            entries.iter().try_for_each(|name| done.edits.remove(name, &self.context.store))?;
        }
        self.take_rows(&rounds, &mail).await?;
        for (index, listed) in &rounds {
            listed.clear(self.context)?;
            let folder = &mut self.state.folders[*index];
            folder.link.clone_from(&listed.link);
            folder.error = None;
        }
        let gone: HashMap<usize, u64> = departed.iter().map(|(index, names)| (*index, names.len() as u64)).collect();
        self.assemble(mail, &rounds, &gone, outcome).await
    }

    /// Decides for messages that several folders' rounds told of, since they moved meanwhile, where they are now.
    async fn settle_conflicts(&mut self, rounds: &mut HashMap<usize, Listed>) -> Result<(), Stop> {
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
                let (messages, last) = listed.rows_after(after.as_deref(), BATCH_ITEMS, self.context)?;
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
    /// A message that is said to have left, or is not told of by a listing of everything, is asked for by itself. One that
    /// is still there is taken for what it is, wherever it lies now.
    async fn departures(
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
            let (mut stays, mut answers) = (HashSet::new(), self.ask(rest.iter().step_by(step)).await?);
            if step > 1 && answers.iter().any(|(_, answer)| answer.is_elsewhere(id, &self.state.folders)) {
                // Many have moved within the backup: each is looked for.
                answers = self.ask(rest.iter()).await?;
            }
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

    /// Asks for messages that are said to have left.
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
            // Its folder could not be listed, or was made since: it stays, and where it was is listed anew next time.
            if let Some(listed) = old.and_then(|old| rounds.get_mut(&old)) {
                listed.link = None;
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
        for found in Entries::new(&**reader, dir)? {
            let found = found?;
            let Some(id) = message_id(found.entry()) else { continue };
            let item = ItemKey::of(id);
            if !listed.rows.contains_key(&item) {
                left.push((item, id.to_owned(), found.entry().name.clone()));
            }
        }
        Ok(left)
    }

    fn mail(&self, previous: Previous, rounds: &HashMap<usize, Listed>) -> Mail {
        // Messages may leave a folder whose own round failed.
        let is_worked_on = |index: &usize| {
            let folder = &self.state.folders[*index];
            let stands = folder.selected && previous.folder(&folder.id).is_some() && !self.gone.contains(index);
            rounds.contains_key(index) || stands
        };
        let works = (0..self.state.folders.len()).filter(is_worked_on).map(|index| {
            let id = self.state.folders[index].id.clone();
            let base = previous.folder(&id).copied();
            (id.clone(), Work::new(self.context, index, id, self.path(index), base))
        });
        let works = works.collect();
        let failed = self.state.folders.iter().flat_map(|folder| folder.failed.iter().map(|failed| failed.id.clone()));
        let failed_before = failed.collect();
        Mail { user: self.mailbox.user().to_owned(), previous, works, failed_before }
    }

    /// Reads and stores what the rounds told of, folder by folder, in the order of the dates.
    async fn take_rows(&self, rounds: &HashMap<usize, Listed>, mail: &Arc<Mail>) -> Result<(), Stop> {
        for (index, listed) in rounds {
            let folder = self.state.folders[*index].id.as_str();
            if !listed.rows.is_empty() {
                self.context.progress.current.lock().clone_from(&mail.works[folder].path.clone().into_bytes());
            }
            let batches = futures_util::stream::unfold(None::<Vec<u8>>, |after| async move {
                match listed.rows_after(after.as_deref(), BATCH_ITEMS, self.context) {
                    Ok((_, None)) => None,
                    Ok((messages, last)) => Some((Ok(messages), last)),
                    Err(error) => Some((Err(error), None)),
                }
            });
            let working = batches.map(|messages| async {
                items::process(self.context, &self.mailbox, mail, folder, messages.map_err(BackupError::from)?).await
            });
            let mut working = std::pin::pin!(working.buffered(BATCHES_AT_ONCE));
            while let Some(done) = working.next().await {
                done??;
            }
        }
        Ok(())
    }

    /// Builds the trees of the folders, children before their parents, and closes the ledger.
    async fn assemble(
        &mut self,
        mail: Arc<Mail>,
        rounds: &HashMap<usize, Listed>,
        gone: &HashMap<usize, u64>,
        outcome: &mut Outcome,
    ) -> Result<Directory, Stop> {
        let mail = Arc::into_inner(mail).expect("all batches have ended");
        let Mail { previous, works, .. } = mail;
        let items_before = self.before.map_or(0, |before| before.ledger().enumerated) as usize;
        let mut children: HashMap<Option<String>, Vec<Entry>> = HashMap::new();
        let mut works: HashMap<usize, Work> = works.into_values().map(|work| (work.index, work)).collect();
        for index in (0..self.state.folders.len()).rev() {
            let folder = &self.state.folders[index];
            let below = children.remove(&Some(folder.id.clone())).unwrap_or_default();
            let stands = folder.selected && !self.gone.contains(&index);
            if !stands && below.is_empty() {
                self.left_out.insert(folder.id.clone());
                continue;
            }
            if !stands {
                // Only a way to what lies below.
                let folder = &mut self.state.folders[index];
                (folder.link, folder.ledger, folder.error) = (None, Ledger::default(), None);
                folder.failed.clear();
            }
            let folder = &self.state.folders[index];
            let work = works.remove(&index);
            let base = previous.folder(&folder.id).copied().filter(|_| stands);
            let had = self.had(base.as_ref(), Some(&folder.id))?;
            let done = work.map(|work| work.done.into_inner());
            let mut edits = match done.as_ref() {
                Some(_) => None,
                None => Some(super::edits::Edits::new(self.context.area())),
            };
            let mut ledger = None;
            if let Some(done) = done {
                match rounds.contains_key(&index) {
                    true => ledger = Some((done.stored, done.failed_but_there, done.vanished)),
                    // It stands as it was, but for what is elsewhere now.
                    false => {
                        let ledger = &mut self.state.folders[index].ledger;
                        ledger.carried += std::mem::take(&mut ledger.stored);
                        ledger.carried = ledger.carried.saturating_sub(done.moved_out);
                        ledger.enumerated = ledger.enumerated.saturating_sub(done.moved_out);
                    }
                }
                if done.reconstructed > 0 {
                    let what =
                        format!("{} messages in {} were built from their parts", done.reconstructed, self.path(index));
                    outcome.warnings.push(what);
                }
                if rounds.contains_key(&index) {
                    self.state.folders[index].failed = done.failed;
                }
                edits = Some(done.edits);
            }
            let edits = edits.expect("made in either case");
            let report = self.report(index, outcome).await?;
            let dir = apply(self.context, edits, base, had, below, report).await?;
            let folder = &self.state.folders[index];
            let before = base.as_ref();
            let entry = self.entry_of(&folder.name, dir, before, &folder.id)?;
            children
                .entry(folder.parent.clone().filter(|p| self.state.folders.iter().any(|f| f.id == *p)))
                .or_default()
                .push(entry);
            if let Some((stored, failed_but_there, vanished)) = ledger {
                let in_tree = dir.sums.entries - dir.sums.dirs - u64::from(self.has_report(index));
                self.close_ledger(index, &rounds[&index], &previous, gone.get(&index).copied().unwrap_or(0), vanished);
                let folder = &mut self.state.folders[index];
                let ledger = &mut folder.ledger;
                if rounds[&index].full && ledger.enumerated < ledger.counted {
                    let (counted, enumerated) = (ledger.counted, ledger.enumerated);
                    let known = self.before.is_some_and(|before| {
                        before.folders.iter().any(|old| old.id == folder.id && old.ledger.counted == counted)
                    });
                    if !known {
                        let path = format!("{USERS}/{}/{OUTLOOK}: {}", self.state.name, folder.display);
                        outcome
                            .warnings
                            .push(format!("{path}: the service counts {counted} items, and listed {enumerated}"));
                    }
                    if enumerated == 0 {
                        folder.link = None;
                    }
                }
                ledger.stored = stored;
                ledger.failed = folder.failed.len() as u64;
                ledger.carried = in_tree.saturating_sub(stored + failed_but_there);
                if !ledger.adds_up() {
                    // A fault of ours or of the service's: say so, and look at everything again next time.
                    let Ledger { enumerated, stored, carried, failed, .. } = *ledger;
                    let error = format!(
                        "{enumerated} messages were told of, but {stored} stored, {carried} carried over, {failed} failed"
                    );
                    outcome.failures.push(Failure { path: self.path(index).into_bytes(), error });
                    self.state.folders[index].link = None;
                    self.state.folders[index].ledger.enumerated = stored + carried + failed;
                }
            } else {
                super::carry_ledger(&mut self.state.folders[index]);
            }
        }
        let tops = children.remove(&None).unwrap_or_default();
        let had = self.had(self.base.as_ref(), None)?;
        let edits = super::edits::Edits::new(self.context.area());
        let root = apply(self.context, edits, self.base, had, tops, None).await?;
        let items_now = self.state.ledger().enumerated as usize;
        if items_before >= MASS_LOSS_ITEMS_MIN && items_now < items_before / 2 {
            let name = &self.state.name;
            outcome.warnings.push(format!(
                "{name} has lost most of its messages: {items_before} before, {items_now} now; the snapshots before still have them"
            ));
        }
        Ok(root)
    }

    fn path(&self, index: usize) -> String {
        format!("{USERS}/{}/{OUTLOOK}/{}", self.state.name, self.state.path(index))
    }

    fn has_report(&self, index: usize) -> bool {
        !self.state.folders[index].failed.is_empty() || self.state.folders[index].error.is_some()
    }

    /// Returns the names of folders, and of the report, that stood in a folder.
    fn had(&self, base: Option<&Directory>, id: Option<&str>) -> Result<Vec<Entry>, BackupError> {
        let (Some(base), Some(before)) = (base, self.before) else { return Ok(Vec::new()) };
        let is_child = |folder: &&FolderState| match (folder.parent.as_deref(), id) {
            (Some(parent), Some(id)) => parent == id,
            (parent, None) => parent.is_none_or(|parent| !before.folders.iter().any(|f| f.id == parent)),
            (None, Some(_)) => false,
        };
        let names = before.folders.iter().filter(is_child).map(|folder| folder.name.as_str());
        let mut had = Vec::new();
        for name in names.chain([REPORT_NAME]) {
            let found = tree::find(&*self.context.reader, base, name.as_bytes())?;
            had.extend(found.map(|found| found.entry().clone()));
        }
        Ok(had)
    }

    fn entry_of(&self, name: &str, dir: Directory, before: Option<&Directory>, id: &str) -> Result<Entry, BackupError> {
        // A folder that is as it was keeps its time, wherever it stands now.
        let old = match (before, self.before, &self.base) {
            (Some(_), Some(before), Some(base)) => {
                let index = before.folders.iter().position(|folder| folder.id == id);
                match index {
                    Some(index) => tree::find_path(&*self.context.reader, base, before.path(index).as_bytes())?,
                    None => None,
                }
            }
            _ => None,
        };
        let mut entry = self.context.folder_entry(name, dir, old.as_ref().map(|old| old.entry()));
        entry.facts.source_id = Some(id.to_owned());
        Ok(entry)
    }

    fn close_ledger(&mut self, index: usize, listed: &Listed, previous: &Previous, gone: u64, vanished: u64) {
        let folder = &mut self.state.folders[index];
        if listed.full {
            folder.ledger.enumerated = (listed.rows.len() as u64).saturating_sub(vanished);
            return;
        }
        let here = |item: &ItemKey| previous.place(*item).is_some_and(|place| previous.folder_of(place) == folder.id);
        let failed_before = self.before.and_then(|before| before.folders.iter().find(|old| old.id == folder.id));
        let failed_before: HashSet<ItemKey> =
            failed_before.into_iter().flat_map(|old| &old.failed).map(|failed| ItemKey::of(&failed.id)).collect();
        let is_new = |item: &&ItemKey| !here(item) && !failed_before.contains(item);
        let new = listed.rows.keys().filter(is_new).count() as u64;
        let never_read = |item: &&ItemKey| failed_before.contains(item) && !here(item);
        let given_up = listed.left.keys().filter(never_read).count() as u64;
        folder.ledger.enumerated = (folder.ledger.enumerated + new).saturating_sub(gone + given_up + vanished);
    }

    /// Says in the folder itself what is missing there.
    async fn report(&self, index: usize, outcome: &mut Outcome) -> Result<Option<Entry>, Stop> {
        if !self.has_report(index) {
            return Ok(None);
        }
        let folder = &self.state.folders[index];
        let path = self.path(index);
        let mut text = String::from("What could not be backed up here, as of the run that made this snapshot.\r\n");
        text += "It is tried again by every run; what an earlier run had read stands as it was then.\r\n\r\n";
        if let Some(error) = &folder.error {
            outcome.failures.push(Failure { path: path.clone().into_bytes(), error: error.clone() });
            text += &format!("The folder as a whole: {error}\r\n");
        }
        for failed in &folder.failed {
            let path = format!("{path}/{}", failed.name).into_bytes();
            outcome.failures.push(Failure { path, error: failed.reason.clone() });
            text += &format!("{}: {}\r\n", failed.name, failed.reason);
        }
        let content: Content =
            content::with_splitter(self.context, move |splitter| splitter.split_payload(text.as_bytes())).await?;
        let mtime = Timestamp { secs: self.context.started.secs, nanos: 0 };
        Ok(Some(Entry::new(REPORT_NAME.as_bytes(), EntryKind::File(content), mtime)))
    }
}

/// Applies what changes in a folder: messages, then the folders in it and the report.
async fn apply(
    context: &Arc<Context>,
    mut edits: super::edits::Edits,
    base: Option<Directory>,
    had: Vec<Entry>,
    below: Vec<Entry>,
    report: Option<Entry>,
) -> Result<Directory, StoreError> {
    let context = context.clone();
    blocking(move || {
        let store = &context.store;
        for old in &had {
            if below.iter().chain(&report).all(|now| now.name != old.name) {
                edits.remove(&old.name, store)?;
            }
        }
        for now in below.into_iter().chain(report) {
            // A report that says the same keeps its time.
            let same = |old: &&Entry| {
                old.name == now.name && old.kind == now.kind && (now.directory().is_none() || old.facts == now.facts)
            };
            if had.iter().find(same).is_none() {
                edits.put(now, store)?;
            }
        }
        match base {
            Some(base) if edits.is_empty() => Ok(base),
            base => edits.apply(base.as_ref(), &context),
        }
    })
    .await
}
