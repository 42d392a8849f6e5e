//! What all parts of a run over an organisation share, and what an error ends.

use super::splitters::Splitters;
use super::{BackupError, BackupOptions, Progress};
use crate::format::entry::{Directory, Entry, EntryKind, Timestamp};
use crate::repository::Repository;
use crate::repository::reader::Reader;
use crate::repository::store::{Store, StoreError};
use crate::repository::tree::TreeBuilder;
use crate::repository::tree::build::Cutter;
use crate::source::graph::{Client, ErrorKind, GraphError};
use crate::source::selection::Selection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The folder at the root of a snapshot that holds the users' folders.
pub const USERS: &str = "Users";
/// The folder in a user's folder that holds the mailbox.
pub const OUTLOOK: &str = "Outlook";
/// The name of the file that says what is missing in a folder of the snapshot.
pub const REPORT_NAME: &str = "_report.txt";

/// What a run over an organisation has to do.
#[derive(Debug, Clone)]
pub struct TenantOptions {
    /// The name of the set, and this machine.
    pub backup: BackupOptions,
    /// The paths that belong to the set.
    pub selection: Selection,
    /// True if the set takes the users' mail.
    pub mail: bool,
    /// True if the set takes the users' contacts.
    pub contacts: bool,
    /// True to back up the tasks of mailboxes.
    pub tasks: bool,
    /// True to back up the calendars of mailboxes.
    pub calendars: bool,
    /// True if users without a licence are left out: shared, room and equipment mailboxes.
    pub licensed_only: bool,
    /// True if the set takes mail folders that Outlook does not show.
    pub hidden_folders: bool,
    /// True if the set takes deleted messages that can still be recovered.
    pub recoverable_items: bool,
    /// True if each message is also stored as the stream that the service exports.
    pub streams: bool,
    /// Number of users who are worked on at a time. If all of them wait for the service's limits, there are more.
    pub mailboxes_at_once: usize,
    /// Maximum time after which a folder is listed in full instead of by changes. That finds a change that the service
    /// never reported. It costs a request for 500 items, and nothing is downloaded twice.
    pub listed_anew: Duration,
}

/// What all parts of a run share.
pub struct Context {
    /// The repository that the snapshot goes to.
    pub repository: Arc<Repository>,
    /// Stores new content.
    pub store: Arc<Store>,
    /// Reads the previous snapshot.
    pub reader: Arc<Reader>,
    /// Sends requests to the service.
    pub client: Client,
    /// Turns bytes into content.
    pub splitters: Arc<Splitters>,
    /// What the run has to do.
    pub options: TenantOptions,
    /// The time at which the run began.
    pub started: Timestamp,
    /// The progress of the run, for people.
    pub progress: Arc<Progress>,
    /// Set to true when somebody asks to stop.
    pub cancel: Arc<AtomicBool>,
    /// The number of the next free area of the local state.
    pub next_area: AtomicU64,
    /// The directory with the states of the users in the previous snapshot.
    pub parts_before: Option<Directory>,
    /// The area of the local state that holds the users' states of this run.
    pub states: u64,
}

impl Context {
    /// Returns an area of the local state that nothing else uses in this run.
    pub fn area(&self) -> u64 {
        self.next_area.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns an error once somebody has asked to stop.
    ///
    /// # Errors
    /// [`BackupError::Interrupted`].
    pub fn check(&self) -> Result<(), BackupError> {
        if self.cancel.load(Ordering::Relaxed) { Err(BackupError::Interrupted) } else { Ok(()) }
    }

    /// Makes a directory of entries. They must be sorted by name.
    ///
    /// # Errors
    /// If nodes cannot be stored.
    pub fn directory(&self, entries: impl Iterator<Item = Entry>) -> Result<Directory, StoreError> {
        let cutter = Cutter::new(self.repository.keys(), self.repository.config().node_size);
        let mut builder = TreeBuilder::new(cutter);
        for entry in entries {
            builder.push(entry, &mut &*self.store)?;
        }
        builder.finish(&mut &*self.store)
    }

    /// Makes the entry of a folder. Its time is that of the run that changed the folder last.
    pub fn folder_entry(&self, name: &str, dir: Directory, before: Option<&Entry>) -> Entry {
        let unchanged = before.filter(|before| before.directory().is_some_and(|old| old.root == dir.root));
        let mtime = unchanged.map_or(Timestamp { secs: self.started.secs, nanos: 0 }, |before| before.mtime);
        Entry::new(name.as_bytes(), EntryKind::Directory(dir), mtime)
    }
}

/// What an error ends.
pub enum Ended {
    /// The work on one item or one folder.
    Item(GraphError),
    /// The work on one collection of one user.
    Mailbox(GraphError),
    /// The run.
    Run(BackupError),
}

/// An error of the service ends the work on one collection, unless it concerns all users ([`ends_the_run`]). Code that
/// knows that only one item is concerned says [`Ended::Item`].
impl<E: Into<BackupError>> From<E> for Ended {
    fn from(error: E) -> Self {
        match error.into() {
            BackupError::Graph(error) if !ends_the_run(&error) => Ended::Mailbox(error),
            error => Ended::Run(error),
        }
    }
}

/// Returns true if an error concerns all users.
pub fn ends_the_run(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::SignIn | ErrorKind::Cancelled)
}
