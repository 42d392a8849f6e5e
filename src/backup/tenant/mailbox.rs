//! One mailbox: its folders and their rounds, what really left it, its messages, its tree and its ledger.

mod assemble;
mod audit;
mod departures;
mod owed;

pub use self::audit::suspect;

use super::folders::{self, Planned};
use super::items::{self, Mail, Work};
use super::previous::{ItemKey, Previous};
use super::rounds::{Listed, Round, go_round};
use super::state::MailboxState;
use super::streams::Exports;
use super::{Account, Context, OUTLOOK, USERS, ends_the_run};
use crate::backup::BackupError;
use crate::format::entry::{Directory, Entry};
use crate::format::snapshot::Failure;
use crate::repository::tree;
use crate::runtime::blocking;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::{ErrorKind, GraphError, directory};
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A mailbox answers so many requests at a time (Graph: "Outlook service limits").
const ROUNDS_AT_ONCE: usize = 4;
/// Messages that are decided, downloaded and stored together.
const BATCH_ITEMS: usize = 64;
/// Batches under way: one is downloaded while another is split.
const BATCHES_AT_ONCE: usize = 2;
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
    /// How many more messages could not be read.
    pub failed_unnamed: u64,
    /// What somebody should know although nothing failed.
    pub warnings: Vec<String>,
    /// Whether the application may not read it.
    pub denied: bool,
    /// How many messages stand there without an export stream although the set asks for them, and why the first of
    /// those that were asked for has none.
    pub streamless: (u64, Option<String>),
}

/// What stands for a mailbox in the snapshot.
pub enum Kept {
    /// Nothing, and that is as it should be: for this reason.
    Skipped(String),
    /// Nothing, and that is a failure.
    Nothing,
    /// What the snapshot before has.
    Before(Box<Entry>, Option<MailboxState>),
    /// The user's folder as this run has made it.
    Made(Box<(Entry, MailboxState)>),
}

/// What the snapshot before has of a mailbox.
struct Standing {
    /// What the run continues from; none if a piece of it is missing.
    before: Option<MailboxState>,
    /// The user's folder, if the run continues from it.
    entry: Option<Entry>,
    /// What stands for it where nothing better can be had.
    kept: Option<(Entry, Option<MailboxState>)>,
}

impl Standing {
    fn of(context: &Context, account: &Account) -> Result<Self, BackupError> {
        let Some((entry, is_whole)) = &account.standing else {
            return Ok(Self { before: None, entry: None, kept: None });
        };
        let state = context.state_before(&account.user.id)?;
        // Where a piece is missing the mailbox is listed anew; what is there of it is found again.
        let before = state.clone().filter(|_| *is_whole);
        Ok(Self { entry: before.is_some().then(|| entry.clone()), before, kept: Some((entry.clone(), state)) })
    }
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
        failed_unnamed: 0,
        warnings: Vec::new(),
        denied: false,
        streamless: (0, None),
    };
    let standing = blocking({
        let context = context.clone();
        move || Standing::of(&context, &account).map(|standing| (account, standing))
    });
    let (account, standing) = standing.await?;
    match make(&context, &account, &standing, &mut outcome).await {
        Ok(made) => outcome.kept = Kept::Made(Box::new(made)),
        // One mailbox may refuse a token that is good for all others.
        Err(Stop::Run(BackupError::Graph(error)))
            if error.kind() == ErrorKind::SignIn && error.status() == Some(401) && {
                directory::users_exist(&context.client).await?;
                true
            } =>
        {
            outcome.stands_as_before(standing, &error);
        }
        Err(Stop::Run(error)) => return Err(error),
        Err(Stop::Mailbox(error)) => {
            // Where nobody answers at all it is not the mailbox's fault.
            if error.kind() == ErrorKind::Unavailable {
                directory::users_exist(&context.client).await?;
            }
            outcome.stands_as_before(standing, &error);
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn stands_as_before(&mut self, standing: Standing, error: &GraphError) {
        let reason = match error.kind() {
            ErrorKind::NoMailbox | ErrorKind::NotFound => "has no mailbox that can be reached",
            ErrorKind::Denied => "is outside of what the application may read",
            _ => "could not be read",
        };
        self.denied = error.kind() == ErrorKind::Denied;
        let has_none = matches!(error.kind(), ErrorKind::NoMailbox | ErrorKind::NotFound);
        let Some((entry, mut state)) = standing.kept else {
            self.kept = Kept::Skipped(reason.to_owned());
            if !has_none && !self.denied {
                self.fail(error.to_string());
                self.kept = Kept::Nothing;
            }
            return;
        };
        let known = state.as_ref().is_some_and(|state| state.kept.is_some());
        match has_none {
            true if !known => {
                self.warnings.push(format!("{} {reason} any more; the last backup is kept", self.name));
                state.iter_mut().for_each(|state| state.kept = Some(reason.to_owned()));
            }
            true => {}
            false => self.fail(error.to_string()),
        }
        if standing.before.is_none() {
            self.fail("pieces of the last backup are missing, and nothing can be read in their place".to_owned());
        }
        self.kept = Kept::Before(Box::new(entry), state);
    }

    fn fail(&mut self, error: String) {
        self.failures.push(Failure { path: format!("{USERS}/{}/{OUTLOOK}", self.name).into_bytes(), error });
    }
}

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
    /// What exports messages, where the set asks for that.
    exports: Option<Arc<Exports>>,
}

async fn make(
    context: &Arc<Context>,
    account: &Account,
    standing: &Standing,
    outcome: &mut Outcome,
) -> Result<(Entry, MailboxState), Stop> {
    context.check()?;
    context.progress.current.lock().clone_from(&format!("{USERS}/{}", account.name).into_bytes());
    let mailbox = Mailbox::new(context.client.clone(), &account.user.id, context.options.hidden_folders);
    let before = standing.before.as_ref();
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
    let user_dir = standing.entry.as_ref().and_then(Entry::directory);
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
        // Changes need something that they change, and are not believed for ever.
        let is_due = context.started.secs - folder.listed >= context.options.listed_anew.as_secs() as i64;
        folder.link.take_if(|_| is_due || previous.folder(&folder.id).is_none());
    }
    let (gone, left_out) = (HashSet::new(), HashSet::new());
    let exports = context.options.streams.then(Arc::<Exports>::default);
    let mut making = Making { context, mailbox, state, before, base, root, gone, left_out, exports };
    let rounds = making.rounds().await?;
    let outlook = making.tree(rounds, previous, outcome).await?;
    let Making { mut state, left_out, exports, .. } = making;
    state.folders.retain(|folder| !left_out.contains(&folder.id));
    outcome.streamless = (state.ledger().streamless, exports.and_then(|exports| exports.why_not()));
    let outlook = context.folder_entry(OUTLOOK, outlook, old.as_ref());
    let dir = blocking({
        let context = context.clone();
        move || context.directory(std::iter::once(outlook))
    });
    let mut entry = context.folder_entry(&account.name, dir.await?, standing.entry.as_ref());
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
        let is_owing = |index: usize| self.owes_streams(index) || self.owes_comparison(index);
        let is_quiet = |(index, listed): (&usize, &Listed)| listed.is_quiet() && !is_owing(*index);
        let quiet = rounds.iter().all(is_quiet) && self.folders_gone(&previous).next().is_none();
        if !quiet {
            let context = self.context.clone();
            let loading = move || previous.load_items(&context.reader).map(|()| previous);
            previous = blocking(loading).await.map_err(BackupError::from)?;
        }
        self.settle_conflicts(&mut rounds).await?;
        let departed = self.departures(&mut rounds, &previous).await?;
        let owed = self.owed_streams(&mut rounds, &previous, &departed).await?;
        let uncompared = self.uncompared();
        let suspects = self.audit(&mut rounds, &previous, &departed).await?;
        let mail = Mail { suspects, uncompared, ..self.mail(previous, &rounds) };
        let mail = Arc::new(mail);
        for (index, listed) in &mut rounds {
            let work = &mail.works[&self.state.folders[*index].id];
            let mut done = work.done.lock();
            done.streamless = owed.get(index).copied().unwrap_or(0);
            for failed in std::mem::take(&mut listed.unreadable) {
                let place = mail.previous.place(ItemKey::of(&failed.id));
                done.failed_but_there +=
                    u64::from(place.is_some_and(|place| mail.previous.folder_of(place) == work.id));
                done.fail(failed);
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
            if listed.full {
                folder.listed = self.context.started.secs;
            }
        }
        let gone: HashMap<usize, u64> = departed.iter().map(|(index, names)| (*index, names.len() as u64)).collect();
        self.assemble(mail, &rounds, &gone, outcome).await
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
        let exports = self.exports.clone();
        let (suspects, uncompared) = Default::default();
        let user = self.mailbox.user().to_owned();
        Mail { user, previous, works, failed_before, suspects, uncompared, exports }
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
            mail.works[folder].rest(self.context)?;
        }
        Ok(())
    }
}
