//! What a run over an organisation has gathered from its users so far.

use super::state::TenantState;
use super::user::{self, Access};
use crate::backup::BackupError;
use crate::backup::collection::Report;
use crate::backup::context::USERS;
use crate::format::entry::Entry;
use crate::format::snapshot::Failure;
use std::collections::BTreeMap;

/// Maximum number of failures of a run that are reported by name. The summary counts the others.
const FAILURES_NAMED_MAX: usize = 10_000;

/// What a run has gathered from the users.
pub struct Gathered {
    /// The users' folders, by their names.
    pub folders: BTreeMap<Box<[u8]>, Entry>,
    /// The state of the organisation.
    pub state: TenantState,
    /// True if everything that is carried over is stored.
    pub is_whole: bool,
    /// The number of items, folders and mailboxes that could not be read.
    pub failed: u64,
    /// The first [`FAILURES_NAMED_MAX`] of them.
    pub failures: Vec<Failure>,
    /// What people should know although nothing failed.
    pub warnings: Vec<String>,
    /// The users who were passed over, with the reason.
    pub skipped: Vec<(String, String)>,
    /// The keys under which this machine remembers what it read of the users whose folders this run made.
    pub finished: Vec<[u8; 32]>,
    /// What items lack, by what that is.
    lacking: BTreeMap<&'static str, Lacking>,
    /// How many users' collections may be read, by what their items are called.
    access: BTreeMap<&'static str, Counts>,
}

/// What items of several users lack.
struct Lacking {
    /// What the items are called.
    noun: &'static str,
    /// The number of users with such items.
    mailboxes: u64,
    /// The number of items.
    items: u64,
    /// Why the first item that was asked for lacks it.
    why: Option<String>,
}

/// How many users' collections of one kind were read.
#[derive(Default)]
struct Counts {
    read: u64,
    denied: u64,
    /// The number of users of whom something else was read, but not this.
    denied_in_part: u64,
}

impl Gathered {
    /// Starts with no user.
    pub fn new(state: TenantState) -> Self {
        Self {
            folders: BTreeMap::new(),
            state,
            is_whole: true,
            failed: 0,
            failures: Vec::new(),
            warnings: Vec::new(),
            skipped: Vec::new(),
            finished: Vec::new(),
            lacking: BTreeMap::new(),
            access: BTreeMap::new(),
        }
    }

    /// Notes a failure.
    pub fn fail(&mut self, path: String, error: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_NAMED_MAX {
            self.failures.push(Failure { path: path.into_bytes(), error });
        }
    }

    /// Notes what a run over a user has to tell.
    pub fn note(&mut self, report: Report) {
        self.failed += report.failures.len() as u64 + report.failed_unnamed;
        let room = FAILURES_NAMED_MAX.saturating_sub(self.failures.len());
        self.failures.extend(report.failures.into_iter().take(room));
        self.warnings.extend(report.warnings);
    }

    /// Notes what items of a user lack.
    pub fn note_lacking(&mut self, lacking: user::Lacking) {
        let none = Lacking { noun: lacking.noun, mailboxes: 0, items: 0, why: None };
        let all = self.lacking.entry(lacking.what).or_insert(none);
        all.mailboxes += u64::from(lacking.items > 0);
        all.items += lacking.items;
        all.why = all.why.take().or(lacking.why);
    }

    /// Notes whether a collection of a user may be read. `in_part` is true if anything of the user was read.
    pub fn note_access(&mut self, access: &Access, in_part: bool) {
        let counts = self.access.entry(access.items).or_default();
        counts.read += u64::from(access.is_read);
        counts.denied += u64::from(access.is_denied);
        counts.denied_in_part += u64::from(access.is_denied && in_part);
    }

    /// Says what concerns all users together, and sorts what is reported.
    ///
    /// # Errors
    /// [`BackupError::NothingAllowed`] if the application may read nothing at all.
    pub fn close(&mut self) -> Result<(), BackupError> {
        let access = std::mem::take(&mut self.access);
        let is_denied = |counts: &Counts| counts.denied > 0;
        if access.values().any(is_denied) && access.values().all(|counts| counts.read == 0) {
            // A policy lets some mailboxes be read. This is a missing permission.
            return Err(BackupError::NothingAllowed);
        }
        for (items, Counts { read, denied_in_part, .. }) in access {
            // A user of whom nothing may be read is among those that were passed over.
            match (read, denied_in_part) {
                (_, 0) => {}
                (0, _) => self.fail(
                    USERS.to_owned(),
                    format!("the application may read the {items} of nobody; `strongroom tenant test` says why"),
                ),
                (_, users) => self
                    .warnings
                    .push(format!("the application may read mailboxes, but not the {items} in them: {users} users")),
            }
        }
        self.warn_of_lacking();
        self.failures.sort_by(|a, b| a.path.cmp(&b.path));
        self.warnings.sort();
        self.skipped.sort();
        Ok(())
    }

    fn warn_of_lacking(&mut self) {
        for (what, Lacking { noun, mailboxes, items, why }) in std::mem::take(&mut self.lacking) {
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            if items > 0 {
                self.warnings.push(format!(
                    "{items} {noun} in {mailboxes} mailboxes are kept without {what}; later runs try again{why}"
                ));
            }
        }
    }
}
