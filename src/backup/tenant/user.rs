//! Backs up what one user has, one collection after the other, and says what stands in the snapshot where that failed.
//!
//! All collections lie in the user's folder [`OUTLOOK`]. Each of them succeeds or fails by itself: if the contacts may
//! not be read, the mail is backed up, and the contacts stay as the previous snapshot has them.

use super::state::MailboxState;
use crate::backup::BackupError;
use crate::backup::collection::plan::{Owner, Standing};
use crate::backup::collection::run::back_up as back_up_collection;
use crate::backup::collection::state::{CollectionState, tops_of};
use crate::backup::collection::{Assembled, Collection, Report, Tops, join, unfinished_key};
use crate::backup::collections::calendars::{CALENDAR, Calendars};
use crate::backup::collections::contacts::{CONTACTS, Contacts};
use crate::backup::collections::mail::{self, Mail};
use crate::backup::collections::tasks::{TASKS, Tasks};
use crate::backup::context::{Context, Ended, OUTLOOK, USERS, ends_the_run};
use crate::format::entry::{Directory, Entry};
use crate::format::snapshot::Failure;
use crate::repository::tree;
use crate::runtime::blocking;
use crate::source::graph::directory::{self, User};
use crate::source::graph::{ErrorKind, GraphError};
use std::sync::Arc;

/// A user who is to be backed up.
pub struct Account {
    /// The user as the directory describes it.
    pub user: User,
    /// The name of the user's folder in the snapshot.
    pub name: String,
    /// The user's folder in the previous snapshot.
    pub before: Option<UserBefore>,
}

/// A user's folder in the previous snapshot.
#[derive(Clone)]
pub struct UserBefore {
    /// The entry of the folder.
    pub entry: Entry,
    /// True if everything under it is stored.
    pub is_whole: bool,
}

/// What became of a user.
pub struct Outcome {
    /// The id of the user.
    pub user: String,
    /// The name of the user's folder in the snapshot.
    pub name: String,
    /// What stands for the user in the snapshot.
    pub kept: Kept,
    /// What people should know.
    pub report: Report,
    /// For each collection that was asked for: whether the application may read it.
    pub access: Vec<Access>,
    /// What items lack that the set asks for.
    pub lacking: Vec<Lacking>,
}

/// What stands for a user in the snapshot.
pub enum Kept {
    /// Nothing, and that is no failure. The text says why.
    Skipped(String),
    /// Nothing, and that is a failure.
    Nothing,
    /// The folder of the previous snapshot, and its state.
    Before(Box<Entry>, Option<Box<MailboxState>>),
    /// A folder that this run made.
    Made(Box<Made>),
}

/// A user's folder that this run made.
pub struct Made {
    /// The entry of the folder.
    pub entry: Entry,
    /// The state for the next run.
    pub state: MailboxState,
    /// True unless a collection was carried over of which pieces may be missing.
    pub is_whole: bool,
    /// The keys under which this machine remembers what it stored, until the folder stands in a snapshot.
    pub unfinished: Vec<[u8; 32]>,
}

/// Whether the application may read a collection of a user.
pub struct Access {
    /// The collection, by what its items are called.
    pub items: &'static str,
    /// True if it was read.
    pub is_read: bool,
    /// True if the service refused access.
    pub is_denied: bool,
}

/// What items lack that the set asks for.
pub struct Lacking {
    /// What the items are called: `messages`.
    pub noun: &'static str,
    /// What they lack.
    pub what: &'static str,
    /// The number of items that lack it.
    pub items: u64,
    /// Why the first item that was asked for has none.
    pub why: Option<String>,
}

/// What the previous snapshot has of a user.
struct Before {
    /// The state that the run continues from. `None` if a piece of the user's folder is missing.
    state: Option<MailboxState>,
    /// The user's folder, if the run continues from it.
    entry: Option<Entry>,
    /// The user's folder and its state, for what cannot be read.
    kept: Option<Standby>,
}

/// What stands in the snapshot if nothing better can be had.
struct Standby {
    entry: Entry,
    state: Option<MailboxState>,
}

impl Before {
    fn of(context: &Context, account: &Account) -> Result<Self, BackupError> {
        let Some(UserBefore { entry, is_whole }) = &account.before else {
            return Ok(Self { state: None, entry: None, kept: None });
        };
        let known = context.state_before(&account.user.id)?;
        // If a piece is missing, everything is listed anew. What is still stored is found again.
        let state = known.clone().filter(|_| *is_whole);
        let kept = Standby { entry: entry.clone(), state: known };
        Ok(Self { entry: state.is_some().then(|| entry.clone()), state, kept: Some(kept) })
    }
}

/// What became of one collection of a user.
enum Part {
    /// The set does not ask for it.
    NotAsked,
    /// It was backed up.
    Made(Box<Assembled>),
    /// It could not be read.
    Failed(GraphError),
}

impl Part {
    fn error(&self) -> Option<&GraphError> {
        if let Part::Failed(error) = self { Some(error) } else { None }
    }

    fn access(&self, items: &'static str) -> Option<Access> {
        let is_denied = self.error().is_some_and(|error| error.kind() == ErrorKind::Denied);
        let is_read = matches!(self, Part::Made(_));
        (!matches!(self, Part::NotAsked)).then_some(Access { items, is_read, is_denied })
    }
}

/// What became of all collections of a user.
struct Parts {
    mail: Part,
    contacts: Part,
    tasks: Part,
    calendars: Part,
}

impl Parts {
    fn all(&self) -> [(&'static str, &Part); 4] {
        [
            (Mail::ITEMS, &self.mail),
            (Contacts::ITEMS, &self.contacts),
            (Tasks::ITEMS, &self.tasks),
            (Calendars::ITEMS, &self.calendars),
        ]
    }
}

/// Backs up one user.
///
/// # Errors
/// Errors that end the run. Errors that concern only this user are in the outcome.
pub async fn back_up(context: Arc<Context>, account: Account) -> Result<Outcome, BackupError> {
    let before = blocking({
        let context = context.clone();
        move || Before::of(&context, &account).map(|before| (account, before))
    });
    let (account, before) = before.await?;
    let mut work = Work { context: &context, account: &account, outlook: None, before, outcome: Outcome::of(&account) };
    context.check()?;
    context.progress.current.lock().clone_from(&format!("{USERS}/{}", account.name).into_bytes());
    work.outlook = work.outlook_before()?;
    let parts = work.parts().await?;
    work.outcome.access.extend(parts.all().into_iter().filter_map(|(items, part)| part.access(items)));
    work.close(parts).await
}

impl Outcome {
    fn of(account: &Account) -> Self {
        Self {
            user: account.user.id.clone(),
            name: account.name.clone(),
            kept: Kept::Nothing,
            report: Report::default(),
            access: Vec::new(),
            lacking: Vec::new(),
        }
    }

    /// Keeps what the previous snapshot has of a user of whom nothing could be read.
    fn stands_as_before(&mut self, before: Before, error: &GraphError) {
        let reason = match error.kind() {
            ErrorKind::NoMailbox | ErrorKind::NotFound => "has no mailbox that can be reached",
            ErrorKind::Denied => "is outside of what the application may read",
            _ => "could not be read",
        };
        let is_denied = error.kind() == ErrorKind::Denied;
        let Some(Standby { entry, mut state }) = before.kept else {
            self.kept = Kept::Skipped(reason.to_owned());
            if !has_no_mailbox(error) && !is_denied {
                self.fail(OUTLOOK, error.to_string());
                self.kept = Kept::Nothing;
            }
            return;
        };
        let known = state.as_ref().is_some_and(|state| state.kept.is_some());
        match has_no_mailbox(error) {
            true if !known => {
                self.report.warnings.push(format!("{} {reason} any more; the last backup is kept", self.name));
                state.iter_mut().for_each(|state| state.kept = Some(reason.to_owned()));
            }
            true => {}
            false => self.fail(OUTLOOK, error.to_string()),
        }
        if before.state.is_none() {
            self.fail(OUTLOOK, PIECES_MISSING.to_owned());
        }
        self.kept = Kept::Before(Box::new(entry), state.map(Box::new));
    }

    /// Notes a failure at `path` in the user's folder.
    fn fail(&mut self, path: &str, error: String) {
        self.report.failures.push(Failure { path: format!("{USERS}/{}/{path}", self.name).into_bytes(), error });
    }
}

const PIECES_MISSING: &str = "pieces of the last backup are missing, and nothing can be read in their place";

fn has_no_mailbox(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::NoMailbox | ErrorKind::NotFound)
}

/// The work on one user.
struct Work<'a> {
    context: &'a Arc<Context>,
    account: &'a Account,
    /// The folder [`OUTLOOK`] in the previous snapshot, if the run continues from it.
    outlook: Option<Entry>,
    before: Before,
    outcome: Outcome,
}

impl Work<'_> {
    fn outlook_before(&self) -> Result<Option<Entry>, BackupError> {
        let Some(user) = self.before.entry.as_ref().and_then(Entry::directory) else { return Ok(None) };
        let found = tree::find(&*self.context.reader, user, OUTLOOK.as_bytes())?;
        Ok(found.map(|found| found.entry().clone()))
    }

    fn base(&self) -> Option<Directory> {
        self.outlook.as_ref().and_then(Entry::directory).copied()
    }

    /// Backs up each collection that the set asks for. If the user has no mailbox, the rest is not tried.
    async fn parts(&mut self) -> Result<Parts, BackupError> {
        let options = &self.context.options;
        let mail = match options.mail {
            true => self.mail().await?,
            false => Part::NotAsked,
        };
        let is_without = mail.error().is_some_and(has_no_mailbox);
        let kept = self.before.kept.as_ref().and_then(|kept| kept.state.as_ref());
        let mut taken = names_of(&mail, kept.map(|state| &state.mail));
        let contacts = match options.contacts && !is_without {
            true => self.contacts(taken.iter().cloned().chain(self.reserved(false)).collect()).await?,
            false => Part::NotAsked,
        };
        let kept = self.before.kept.as_ref().and_then(|kept| kept.state.as_ref());
        taken.extend(names_of(&contacts, kept.and_then(|state| state.contacts.as_ref())));
        let tasks = match options.tasks && !is_without {
            true => self.tasks(taken.iter().cloned().chain(self.reserved_for_calendars()).collect()).await?,
            false => Part::NotAsked,
        };
        let kept = self.before.kept.as_ref().and_then(|kept| kept.state.as_ref());
        taken.extend(names_of(&tasks, kept.and_then(|state| state.tasks.as_ref())));
        let calendars = match options.calendars && !is_without {
            true => self.calendars(taken).await?,
            false => Part::NotAsked,
        };
        Ok(Parts { mail, contacts, tasks, calendars })
    }

    /// Returns the names that collections have or should get which are backed up later than the mail, or later than the
    /// contacts.
    fn reserved(&self, for_mail: bool) -> Vec<String> {
        let options = &self.context.options;
        let contacts = (for_mail && options.contacts).then(|| self.name_of_contacts());
        let tasks = options.tasks.then(|| self.name_of_tasks());
        contacts.into_iter().chain(tasks).chain(self.reserved_for_calendars()).collect()
    }

    /// Returns the name that the calendars have or should get, which are backed up last.
    fn reserved_for_calendars(&self) -> Option<String> {
        self.context.options.calendars.then(|| self.name_of_calendars())
    }

    async fn mail(&mut self) -> Result<Part, BackupError> {
        let mail = Arc::new(Mail::new(self.context, &self.account.user.id));
        let state = self.before.state.as_ref().map(|state| state.mail.clone());
        let part = self.part(&mail, state.as_ref(), self.reserved(true)).await?;
        if let Part::Made(made) = &part {
            let (items, why) = (made.state.ledger().streamless, mail.why_lacking());
            self.outcome.lacking.push(Lacking { noun: Mail::ITEMS, what: mail::LACKING, items, why });
        }
        Ok(part)
    }

    async fn contacts(&mut self, taken: Vec<String>) -> Result<Part, BackupError> {
        let contacts = Arc::new(Contacts::new(self.context, &self.account.user.id));
        let state = self.before.state.as_ref().and_then(|state| state.contacts.clone());
        self.part(&contacts, state.as_ref(), taken).await
    }

    async fn tasks(&mut self, taken: Vec<String>) -> Result<Part, BackupError> {
        let tasks = Arc::new(Tasks::new(self.context, &self.account.user.id));
        let state = self.before.state.as_ref().and_then(|state| state.tasks.clone());
        self.part(&tasks, state.as_ref(), taken).await
    }

    async fn calendars(&mut self, taken: Vec<String>) -> Result<Part, BackupError> {
        let calendars = Arc::new(Calendars::new(self.context, &self.account.user.id));
        let state = self.before.state.as_ref().and_then(|state| state.calendars.clone());
        self.part(&calendars, state.as_ref(), taken).await
    }

    /// Backs up one collection.
    ///
    /// # Errors
    /// Errors that end the run.
    async fn part<C: Collection>(
        &mut self,
        collection: &Arc<C>,
        before: Option<&CollectionState>,
        taken: Vec<String>,
    ) -> Result<Part, BackupError> {
        let standing = Standing {
            owner: Owner { id: &self.account.user.id, name: &self.account.name },
            path: format!("{USERS}/{}/{OUTLOOK}", self.account.name),
            taken,
            base: self.base(),
            before,
        };
        match back_up_collection(self.context, collection, standing, &mut self.outcome.report).await {
            Ok(made) => Ok(Part::Made(Box::new(made))),
            Err(ended) => Ok(Part::Failed(self.of_this_user(ended).await?)),
        }
    }

    /// Returns an error if it concerns only this user.
    ///
    /// # Errors
    /// An error that ends the run.
    async fn of_this_user(&self, ended: Ended) -> Result<GraphError, BackupError> {
        let client = &self.context.client;
        match ended {
            // One mailbox may refuse a token that is good for all others.
            Ended::Run(BackupError::Graph(error))
                if error.kind() == ErrorKind::SignIn && error.status() == Some(401) =>
            {
                directory::users_exist(client).await?;
                Ok(error)
            }
            Ended::Run(error) => Err(error),
            Ended::Mailbox(error) | Ended::Item(error) => {
                // If the service answers nobody, the mailbox is not the cause.
                if error.kind() == ErrorKind::Unavailable {
                    directory::users_exist(client).await?;
                }
                Ok(error)
            }
        }
    }

    /// Returns the name that the contacts have, or should get.
    fn name_of_contacts(&self) -> String {
        let known = self.before.kept.as_ref().and_then(|kept| kept.state.as_ref()?.contacts.as_ref());
        top_of(known, CONTACTS)
    }

    /// Returns the name that the tasks have, or should get.
    fn name_of_tasks(&self) -> String {
        let known = self.before.kept.as_ref().and_then(|kept| kept.state.as_ref()?.tasks.as_ref());
        top_of(known, TASKS)
    }

    /// Returns the name that the calendars have, or should get.
    fn name_of_calendars(&self) -> String {
        let known = self.before.kept.as_ref().and_then(|kept| kept.state.as_ref()?.calendars.as_ref());
        top_of(known, CALENDAR)
    }

    /// Decides what stands for the user in the snapshot.
    async fn close(mut self, parts: Parts) -> Result<Outcome, BackupError> {
        let all = parts.all();
        let is_read = all.iter().any(|(_, part)| matches!(part, Part::Made(_)));
        let error = match all.iter().find_map(|(_, part)| part.error()).filter(|_| !is_read).cloned() {
            Some(error) => error,
            None => match self.folder(parts).await {
                Ok(made) => {
                    self.outcome.kept = Kept::Made(Box::new(made));
                    return Ok(self.outcome);
                }
                Err(ended) => self.of_this_user(ended).await?,
            },
        };
        self.outcome.stands_as_before(self.before, &error);
        Ok(self.outcome)
    }

    /// Makes the user's folder of the collections.
    async fn folder(&mut self, parts: Parts) -> Result<Made, Ended> {
        let (context, account) = (self.context, self.account);
        let purpose = match &self.before.state {
            Some(state) => state.purpose.clone(),
            None => purpose(context, account).await?,
        };
        let known = self.before.kept.as_ref().and_then(|kept| kept.state.clone());
        let (mail_before, contacts_before, tasks_before, calendars_before) = known
            .map_or((None, None, None, None), |state| (Some(state.mail), state.contacts, state.tasks, state.calendars));
        let mut joined = Joined { tops: Vec::new(), unfinished: Vec::new(), is_whole: true };
        let mail = self.take::<Mail>(parts.mail, mail_before, OUTLOOK.to_owned(), &mut joined)?;
        let path = format!("{OUTLOOK}/{}", self.name_of_contacts());
        let contacts = self.take::<Contacts>(parts.contacts, contacts_before, path, &mut joined)?;
        let path = format!("{OUTLOOK}/{}", self.name_of_tasks());
        let tasks = self.take::<Tasks>(parts.tasks, tasks_before, path, &mut joined)?;
        let path = format!("{OUTLOOK}/{}", self.name_of_calendars());
        let calendars = self.take::<Calendars>(parts.calendars, calendars_before, path, &mut joined)?;
        let Joined { tops, unfinished, is_whole } = joined;
        let dir = join(context, self.base(), tops).await?;
        let outlook = context.folder_entry(OUTLOOK, dir, self.outlook.as_ref());
        let dir = blocking({
            let context = context.clone();
            move || context.directory(std::iter::once(outlook))
        });
        let mut entry = context.folder_entry(&account.name, dir.await?, self.before.entry.as_ref());
        entry.facts.source_id = Some(account.user.id.clone());
        let mail = mail.unwrap_or_default();
        let state = MailboxState::new(account.name.clone(), purpose, mail, contacts, tasks, calendars);
        Ok(Made { entry, state, is_whole, unfinished })
    }

    /// Takes what stands in the snapshot for a collection, and returns its state. `before` is the state that the
    /// previous snapshot has, and `path` names the collection in a failure.
    fn take<C: Collection>(
        &mut self,
        part: Part,
        before: Option<CollectionState>,
        path: String,
        joined: &mut Joined,
    ) -> Result<Option<CollectionState>, BackupError> {
        let stood = match &before {
            Some(state) => self.stood(state)?,
            None => None,
        };
        match part {
            Part::Made(made) => {
                let Assembled { tops, state } = *made;
                joined.tops.push(tops);
                joined.unfinished.push(unfinished_key::<C>(self.context, &self.account.user.id));
                Ok(Some(state))
            }
            Part::NotAsked => {
                // The set took the collection before, and does not any more: it leaves the snapshot.
                joined.tops.extend(stood.map(|tops| Tops { now: Vec::new(), ..tops }));
                Ok(None)
            }
            Part::Failed(error) => {
                let Some((tops, mut state)) = stood.zip(before).filter(|(tops, _)| !tops.now.is_empty()) else {
                    // A refusal is counted for all users together ([`Access`]).
                    if error.kind() != ErrorKind::Denied {
                        self.outcome.fail(&path, error.to_string());
                    }
                    return Ok(None);
                };
                self.outcome.fail(&path, error.to_string());
                if self.before.state.is_none() {
                    self.outcome.fail(&path, PIECES_MISSING.to_owned());
                    joined.is_whole = false;
                }
                state.carry();
                joined.tops.push(tops);
                Ok(Some(state))
            }
        }
    }

    /// Returns the top folders of a collection as the previous snapshot has them; `None` if they cannot be read.
    fn stood(&self, state: &CollectionState) -> Result<Option<Tops>, BackupError> {
        let Some(kept) = &self.before.kept else { return Ok(None) };
        let Some(user) = kept.entry.directory() else { return Ok(None) };
        let find = || {
            let outlook = tree::find(&*self.context.reader, user, OUTLOOK.as_bytes())?;
            let outlook = outlook.and_then(|found| found.entry().directory().copied());
            outlook.map(|outlook| Tops::kept(self.context, &outlook, state)).transpose()
        };
        match find() {
            Ok(Some(tops)) if self.outlook.is_none() => Ok(Some(Tops { had: Vec::new(), ..tops })),
            Err(error) if error.is_damage() => Ok(None),
            found => Ok(found?),
        }
    }
}

/// Returns the names of the top folders of a collection, as they will stand in the snapshot. `before` is the state that
/// the previous snapshot has.
fn names_of(part: &Part, before: Option<&CollectionState>) -> Vec<String> {
    let state = match part {
        Part::Made(made) => Some(&made.state),
        Part::Failed(_) => before,
        Part::NotAsked => None,
    };
    state.map_or_else(Vec::new, |state| tops_of(&state.folders).map(str::to_owned).collect())
}

/// Returns the name of the only top folder of a collection, or the usual one if there is none.
fn top_of(known: Option<&CollectionState>, usual: &str) -> String {
    known.and_then(|state| tops_of(&state.folders).next()).unwrap_or(usual).to_owned()
}

/// What the collections of a user bring into the folder [`OUTLOOK`].
struct Joined {
    tops: Vec<Tops>,
    unfinished: Vec<[u8; 32]>,
    is_whole: bool,
}

/// Returns the purpose of the mailbox, unless the permission to ask is missing.
async fn purpose(context: &Context, account: &Account) -> Result<Option<String>, GraphError> {
    match directory::purpose(&context.client, &account.user).await {
        Ok(purpose) => Ok(Some(purpose).filter(|purpose| !purpose.is_empty())),
        Err(error) if ends_the_run(&error) => Err(error),
        // A backup without the purpose is better than none.
        Err(_) => Ok(None),
    }
}
