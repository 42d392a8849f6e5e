//! What a restore to accounts is asked to do.

use crate::restore::WhenExists;
use std::path::PathBuf;

/// Where a restore goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountTarget {
    /// To the accounts that everything came from.
    Original,
    /// To this user: a user principal name, or an id.
    User(String),
}

/// What a restore to accounts is asked to do.
#[derive(Debug, Clone)]
pub struct AccountOptions {
    /// The accounts that everything goes to.
    pub target: AccountTarget,
    /// The folder of the mailbox that everything goes below, from the top down. If it is empty, everything goes to the
    /// folders that it came from.
    pub into: Vec<String>,
    /// What to do with an item that exists.
    pub when_exists: WhenExists,
    /// Maximum number of mailboxes that are restored to at the same time.
    pub mailboxes_at_once: usize,
    /// The folder in which this machine remembers what was restored.
    pub journals: PathBuf,
    /// The folder of the locks of mailboxes. All restores on this machine share it.
    pub locks: PathBuf,
}
