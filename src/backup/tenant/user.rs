//! What one user has: its collections, and what stands for them where they cannot be read.

use super::Account;
use super::state::MailboxState;
use crate::backup::BackupError;
use crate::backup::collection::plan::{Owner, Standing};
use crate::backup::collection::run::back_up as back_up_collection;
use crate::backup::collection::{Report, unfinished_key};
use crate::backup::collections::mail::{self, Mail};
use crate::backup::context::{Context, Ended, OUTLOOK, USERS, ends_the_run};
use crate::format::entry::Entry;
use crate::format::snapshot::Failure;
use crate::repository::tree;
use crate::runtime::blocking;
use crate::source::graph::{ErrorKind, GraphError, directory};
use std::sync::Arc;

/// What became of a user.
pub struct Outcome {
    /// The user's id.
    pub user: String,
    /// The name of the user's folder.
    pub name: String,
    /// What stands for it in the snapshot.
    pub kept: Kept,
    /// What somebody should know.
    pub report: Report,
    /// Whether the application may not read it.
    pub denied: bool,
    /// What its items lack that the set asks for.
    pub lacking: Option<Lacking>,
}

/// What stands for a user in the snapshot.
pub enum Kept {
    /// Nothing, and that is as it should be: for this reason.
    Skipped(String),
    /// Nothing, and that is a failure.
    Nothing,
    /// What the snapshot before has.
    Before(Box<Entry>, Option<MailboxState>),
    /// The user's folder as this run has made it.
    Made(Box<Made>),
}

/// A user's folder as this run has made it.
pub struct Made {
    /// Its entry.
    pub entry: Entry,
    /// What the next run needs to know of it.
    pub state: MailboxState,
    /// Under which name this machine remembers what it stored until it stands in a snapshot.
    pub unfinished: [u8; 32],
}

/// What items lack that the set asks for.
pub struct Lacking {
    /// What they lack.
    pub what: &'static str,
    /// How many items lack it.
    pub items: u64,
    /// Why the first of those that were asked for has none.
    pub why: Option<String>,
}

/// What the snapshot before has of a user.
struct Before {
    /// What the run continues from; none if a piece of it is missing.
    state: Option<MailboxState>,
    /// The user's folder, if the run continues from it.
    entry: Option<Entry>,
    /// What stands for it where nothing better can be had.
    kept: Option<(Entry, Option<MailboxState>)>,
}

impl Before {
    fn of(context: &Context, account: &Account) -> Result<Self, BackupError> {
        let Some((entry, is_whole)) = &account.standing else {
            return Ok(Self { state: None, entry: None, kept: None });
        };
        let known = context.state_before(&account.user.id)?;
        // Where a piece is missing the mailbox is listed anew; what is there of it is found again.
        let state = known.clone().filter(|_| *is_whole);
        Ok(Self { entry: state.is_some().then(|| entry.clone()), state, kept: Some((entry.clone(), known)) })
    }
}

/// Backs one user up.
///
/// # Errors
/// What ends the run. What concerns the user alone is in the outcome.
pub async fn back_up(context: Arc<Context>, account: Account) -> Result<Outcome, BackupError> {
    let mut outcome = Outcome {
        user: account.user.id.clone(),
        name: account.name.clone(),
        kept: Kept::Nothing,
        report: Report::default(),
        denied: false,
        lacking: None,
    };
    let before = blocking({
        let context = context.clone();
        move || Before::of(&context, &account).map(|before| (account, before))
    });
    let (account, before) = before.await?;
    match make(&context, &account, &before, &mut outcome).await {
        Ok(made) => outcome.kept = Kept::Made(Box::new(made)),
        // One mailbox may refuse a token that is good for all others.
        Err(Ended::Run(BackupError::Graph(error)))
            if error.kind() == ErrorKind::SignIn && error.status() == Some(401) && {
                directory::users_exist(&context.client).await?;
                true
            } =>
        {
            outcome.stands_as_before(before, &error);
        }
        Err(Ended::Run(error)) => return Err(error),
        Err(Ended::Mailbox(error) | Ended::Item(error)) => {
            // Where nobody answers at all it is not the mailbox's fault.
            if error.kind() == ErrorKind::Unavailable {
                directory::users_exist(&context.client).await?;
            }
            outcome.stands_as_before(before, &error);
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn stands_as_before(&mut self, before: Before, error: &GraphError) {
        let reason = match error.kind() {
            ErrorKind::NoMailbox | ErrorKind::NotFound => "has no mailbox that can be reached",
            ErrorKind::Denied => "is outside of what the application may read",
            _ => "could not be read",
        };
        self.denied = error.kind() == ErrorKind::Denied;
        let has_none = matches!(error.kind(), ErrorKind::NoMailbox | ErrorKind::NotFound);
        let Some((entry, mut state)) = before.kept else {
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
                self.report.warnings.push(format!("{} {reason} any more; the last backup is kept", self.name));
                state.iter_mut().for_each(|state| state.kept = Some(reason.to_owned()));
            }
            true => {}
            false => self.fail(error.to_string()),
        }
        if before.state.is_none() {
            self.fail("pieces of the last backup are missing, and nothing can be read in their place".to_owned());
        }
        self.kept = Kept::Before(Box::new(entry), state);
    }

    fn fail(&mut self, error: String) {
        self.report.failures.push(Failure { path: format!("{USERS}/{}/{OUTLOOK}", self.name).into_bytes(), error });
    }
}

/// Backs the user's collections up, and makes the user's folder.
async fn make(
    context: &Arc<Context>,
    account: &Account,
    before: &Before,
    outcome: &mut Outcome,
) -> Result<Made, Ended> {
    context.check()?;
    context.progress.current.lock().clone_from(&format!("{USERS}/{}", account.name).into_bytes());
    let user_dir = before.entry.as_ref().and_then(Entry::directory);
    let old = match user_dir {
        Some(dir) => tree::find(&*context.reader, dir, OUTLOOK.as_bytes())?.map(|found| found.entry().clone()),
        None => None,
    };
    let standing = Standing {
        owner: Owner { id: &account.user.id, name: &account.name },
        path: format!("{USERS}/{}/{OUTLOOK}", account.name),
        base: old.as_ref().and_then(Entry::directory).copied(),
        before: before.state.as_ref().map(|state| &state.mail),
    };
    let mail = Arc::new(Mail::new(context, &account.user.id));
    let made = back_up_collection(context, &mail, standing, &mut outcome.report).await?;
    outcome.lacking =
        Some(Lacking { what: mail::LACKING, items: made.state.ledger().streamless, why: mail.why_lacking() });
    let purpose = match &before.state {
        Some(state) => state.purpose.clone(),
        None => purpose(context, account).await?,
    };
    let outlook = context.folder_entry(OUTLOOK, made.dir, old.as_ref());
    let dir = blocking({
        let context = context.clone();
        move || context.directory(std::iter::once(outlook))
    });
    let mut entry = context.folder_entry(&account.name, dir.await?, before.entry.as_ref());
    entry.facts.source_id = Some(account.user.id.clone());
    let state = MailboxState::new(account.name.clone(), purpose, made.state);
    Ok(Made { entry, state, unfinished: unfinished_key::<Mail>(context, &account.user.id) })
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
