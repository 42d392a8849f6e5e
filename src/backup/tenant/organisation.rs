//! Goes through the users of an organisation, and makes the root of the snapshot.

use super::gathered::Gathered;
use super::state::{Ledger, MailboxState, TenantState};
use super::user::{self, Account, Kept, Outcome, UserBefore};
use super::working::Working;
use crate::backup::BackupError;
use crate::backup::commit::is_whole;
use crate::backup::context::{Context, OUTLOOK, REPORT_NAME, USERS};
use crate::content::names::{UniqueNames, safe_name};
use crate::format::entry::{Directory, Entry};
use crate::format::snapshot::{ROOT_NAME, Snapshot};
use crate::repository::tree;
use crate::source::graph::ErrorKind;
use crate::source::graph::directory::{self, User};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The users' folders in the previous snapshot, by the ids of the users.
type UsersBefore = BTreeMap<String, UserBefore>;

/// A run over an organisation.
pub struct Organisation {
    context: Arc<Context>,
    /// The previous snapshot of the set.
    before: Option<Snapshot>,
    /// The users' folders in it.
    users: UsersBefore,
}

/// Everything that the snapshot is made of.
pub struct Whole {
    /// The root of the snapshot.
    pub root: Entry,
    /// The directory with the states of the users.
    pub parts: Directory,
    /// The number of bytes that storing this directory added.
    pub parts_bytes: u64,
    /// What was gathered from the users.
    pub gathered: Gathered,
}

impl Organisation {
    /// Finds the users' folders in the previous snapshot. `is_trusted` is true if all that it refers to is known to be
    /// stored.
    ///
    /// # Errors
    /// If the repository cannot be read.
    pub fn new(context: Arc<Context>, before: Option<Snapshot>, is_trusted: bool) -> Result<Self, BackupError> {
        let users = match &before {
            Some(before) => users_before(&context, before, is_trusted)?,
            None => UsersBefore::new(),
        };
        Ok(Self { context, before, users })
    }

    /// Backs up all users that the set takes. `state` is the state of the organisation in the previous snapshot.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn back_up(self, state: TenantState) -> Result<Whole, BackupError> {
        let tenant = self.same_tenant(state.tenant).await?;
        let mut gathered = Gathered::new(TenantState { tenant, ledger: Ledger::default() });
        let accounts = self.accounts(directory::users(&self.context.client).await?);
        if accounts.is_empty() {
            gathered.warnings.push("the set takes no user at all".to_owned());
        }
        self.keep_the_gone(&accounts, &mut gathered)?;
        self.back_up_accounts(accounts, &mut gathered).await?;
        gathered.close()?;
        let root = self.root(std::mem::take(&mut gathered.folders))?;
        let stored = || self.context.store.stored().added_bytes;
        let before = stored();
        let context = self.context.clone();
        let parts = self.context.splitters.run(move |splitter| context.store_states(splitter)).await?;
        Ok(Whole { root, parts, parts_bytes: stored() - before, gathered })
    }

    /// Returns the id of the organisation. If it cannot be asked for, that is the one of the previous snapshot.
    async fn same_tenant(&self, before: Option<String>) -> Result<Option<String>, BackupError> {
        let now = match directory::organization(&self.context.client).await {
            Ok(organization) => organization.id,
            // The id only guards against mixing up two organisations.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::MissingPermission) => {
                return Ok(before);
            }
            Err(error) => return Err(error.into()),
        };
        match before {
            Some(before) if before != now => Err(BackupError::OtherTenant(self.context.options.backup.set.clone())),
            _ => Ok(Some(now)),
        }
    }

    /// Decides which users are backed up, what their folders are called, and in which order.
    fn accounts(&self, users: Vec<User>) -> Vec<Account> {
        let options = &self.context.options;
        let mut names = UniqueNames::new();
        names.reserve(REPORT_NAME);
        let mut accounts = Vec::new();
        let mut seen = HashSet::new();
        for user in users {
            // Pages may overlap.
            if user.is_guest() || (options.licensed_only && !user.is_licensed()) || !seen.insert(user.id.clone()) {
                continue;
            }
            let name = names.claim(&safe_name(&user.name(), ""));
            if self.is_selected(&name) {
                accounts.push(Account { name, before: self.users.get(&user.id).cloned(), user });
            }
        }
        // The largest come first, so that none of them is left alone at the end. A new one may be large.
        accounts.sort_by_key(|account| {
            let before = account.before.as_ref().and_then(|before| before.entry.directory());
            Reverse(before.map_or(u64::MAX, |dir| dir.sums.files))
        });
        accounts
    }

    /// Returns true if the set may take something of the user whose folder is called `name`.
    fn is_selected(&self, name: &str) -> bool {
        self.context.options.selection.may_contain(&format!("{USERS}/{name}/{OUTLOOK}"))
    }

    /// Keeps the folders of users whom the directory does not list any more.
    fn keep_the_gone(&self, accounts: &[Account], gathered: &mut Gathered) -> Result<(), BackupError> {
        let listed: HashSet<&str> = accounts.iter().map(|account| account.user.id.as_str()).collect();
        for (user, UserBefore { entry, is_whole }) in &self.users {
            let old_name = String::from_utf8_lossy(&entry.name).into_owned();
            if listed.contains(user.as_str()) || !self.is_selected(&old_name) {
                continue;
            }
            let mut state = self.context.state_before(user)?;
            if state.as_ref().is_none_or(|state| state.kept.is_none()) {
                gathered.warnings.push(format!(
                    "{old_name} is no longer among the users that the set takes; the last backup is kept"
                ));
            }
            if !is_whole {
                gathered.is_whole = false;
                let error = "pieces of the last backup are missing, and nobody can be asked for them";
                gathered.fail(format!("{USERS}/{old_name}/{OUTLOOK}"), error.to_owned());
            }
            // Another user may have the name by now.
            let mut names = UniqueNames::new();
            accounts.iter().for_each(|account| _ = names.reserve(&account.name));
            gathered.folders.keys().for_each(|name| _ = names.reserve(&String::from_utf8_lossy(name)));
            let name = names.claim(&old_name);
            if let Some(state) = &mut state {
                state.kept = Some("no longer among the users that the set takes".to_owned());
            }
            self.carry(user, &name, entry.clone(), state, gathered)?;
        }
        Ok(())
    }

    async fn back_up_accounts(&self, accounts: Vec<Account>, gathered: &mut Gathered) -> Result<(), BackupError> {
        let context = &self.context;
        let working = accounts.into_iter().map(|account| user::back_up(context.clone(), account));
        let mut working = Working::new(working, context.options.mailboxes_at_once, || context.client.pause());
        while let Some(outcome) = working.next().await {
            let outcome = outcome?;
            context.check()?;
            self.take(outcome, gathered)?;
        }
        Ok(())
    }

    /// Takes what became of a user.
    fn take(&self, outcome: Outcome, gathered: &mut Gathered) -> Result<(), BackupError> {
        gathered.note(outcome.report);
        let in_part = matches!(outcome.kept, Kept::Made(_));
        outcome.access.iter().for_each(|access| gathered.note_access(access, in_part));
        outcome.lacking.into_iter().for_each(|lacking| gathered.note_lacking(lacking));
        match outcome.kept {
            Kept::Skipped(reason) => gathered.skipped.push((outcome.name, reason)),
            Kept::Nothing => {}
            Kept::Before(entry, state) => {
                gathered.is_whole &= self.users.get(&outcome.user).is_some_and(|before| before.is_whole);
                self.carry(&outcome.user, &outcome.name, *entry, state.map(|state| *state), gathered)?;
            }
            Kept::Made(made) => {
                let user::Made { entry, state, is_whole, unfinished } = *made;
                gathered.is_whole &= is_whole;
                gathered.finished.extend(unfinished);
                gathered.folders.insert(entry.name.clone(), entry);
                gathered.state.ledger += state.ledger();
                self.context.keep_state(&outcome.user, &state)?;
            }
        }
        Ok(())
    }

    /// Carries a user's folder over from the previous snapshot, under the name `name`.
    fn carry(
        &self,
        user: &str,
        name: &str,
        mut entry: Entry,
        state: Option<MailboxState>,
        gathered: &mut Gathered,
    ) -> Result<(), BackupError> {
        entry.name = name.as_bytes().into();
        gathered.folders.insert(entry.name.clone(), entry);
        let Some(mut state) = state else { return Ok(()) };
        state.name = name.to_owned();
        state.carry();
        gathered.state.ledger += state.ledger();
        Ok(self.context.keep_state(user, &state)?)
    }

    /// Makes the root of the snapshot, which holds the folder of the users.
    fn root(&self, users: BTreeMap<Box<[u8]>, Entry>) -> Result<Entry, BackupError> {
        let before = self.before.as_ref().map(|before| before.root.clone());
        let users = self.context.directory(users.into_values())?;
        let old = before.as_ref().and_then(|root| {
            let found = tree::find(&*self.context.reader, root.directory()?, USERS.as_bytes()).ok()??;
            Some(found.entry().clone())
        });
        let users = self.context.folder_entry(USERS, users, old.as_ref());
        let root = self.context.directory(std::iter::once(users))?;
        let name = std::str::from_utf8(ROOT_NAME).expect("a literal");
        Ok(self.context.folder_entry(name, root, before.as_ref()))
    }
}

/// Returns the users' folders of a snapshot. A folder is left out if its own root is not stored.
fn users_before(context: &Context, before: &Snapshot, is_trusted: bool) -> Result<UsersBefore, BackupError> {
    let Context { reader, store, .. } = context;
    let mut users = UsersBefore::new();
    let Ok(Some(found)) = tree::find(&**reader, before.directory(), USERS.as_bytes()) else { return Ok(users) };
    let Some(dir) = found.entry().directory() else { return Ok(users) };
    for found in tree::Entries::new(&**reader, dir)? {
        let entry = found?.entry().clone();
        let Some(user) = entry.facts.source_id.clone() else { continue };
        let is_whole = is_trusted || is_whole(&entry, store, reader);
        if is_whole || entry.directory().is_some_and(|dir| store.has_node(dir.root.id).unwrap_or(false)) {
            users.insert(user, UserBefore { entry, is_whole });
        }
    }
    Ok(users)
}
