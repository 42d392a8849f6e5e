//! What everything in a run over an organisation shares, and what an error in it ends.

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

/// Where the users' folders stand in a snapshot.
pub const USERS: &str = "Users";
/// Where a user's mailbox stands in the user's folder.
pub const OUTLOOK: &str = "Outlook";
/// The file in a folder of the snapshot that says what is missing there.
pub const REPORT_NAME: &str = "_report.txt";

/// What a run over an organisation is asked to do.
#[derive(Debug, Clone)]
pub struct TenantOptions {
    /// The set and this machine.
    pub backup: BackupOptions,
    /// What of the organisation belongs to the set.
    pub selection: Selection,
    /// Whether users without a licence are left out: shared, room and equipment mailboxes.
    pub licensed_only: bool,
    /// Whether folders that Outlook does not show belong to the set.
    pub hidden_folders: bool,
    /// Whether what was deleted and can still be had back belongs to the set.
    pub recoverable_items: bool,
    /// Whether each message is also kept as the stream as which the service exports it.
    pub streams: bool,
    /// How many mailboxes are worked on at a time; more where all of these wait for the service's limits.
    pub mailboxes_at_once: usize,
    /// After how long a folder is listed in full rather than by changes: a change that the service never told of is
    /// found then. It costs a request for a thousand messages, and nothing is downloaded twice.
    pub listed_anew: Duration,
}

/// What everything in a run shares.
pub struct Context {
    /// Where the snapshot goes.
    pub repository: Arc<Repository>,
    /// Stores what is new.
    pub store: Arc<Store>,
    /// Reads the snapshot before.
    pub reader: Arc<Reader>,
    /// Asks the service.
    pub client: Client,
    /// Turn bytes into content.
    pub splitters: Arc<Splitters>,
    /// What the run is asked to do.
    pub options: TenantOptions,
    /// When the run began.
    pub started: Timestamp,
    /// How far the run is.
    pub progress: Arc<Progress>,
    /// Set when somebody asks to stop.
    pub cancel: Arc<AtomicBool>,
    /// The next area of the local state to be given out.
    pub next_area: AtomicU64,
    /// The states of mailboxes in the snapshot before.
    pub parts_before: Option<Directory>,
    /// The area of the local state that holds the states of this run.
    pub states: u64,
}

impl Context {
    /// Returns an area of the local state that nobody else uses in this run.
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

    /// Makes a directory of entries, which come in the order of their names.
    ///
    /// # Errors
    /// When nodes cannot be stored.
    pub fn directory(&self, entries: impl Iterator<Item = Entry>) -> Result<Directory, StoreError> {
        let cutter = Cutter::new(self.repository.keys(), self.repository.config().node_size);
        let mut builder = TreeBuilder::new(cutter);
        for entry in entries {
            builder.push(entry, &mut &*self.store)?;
        }
        builder.finish(&mut &*self.store)
    }

    /// Makes the entry of a folder. Its time is that of the run that changed it.
    pub fn folder_entry(&self, name: &str, dir: Directory, before: Option<&Entry>) -> Entry {
        let unchanged = before.filter(|before| before.directory().is_some_and(|old| old.root == dir.root));
        let mtime = unchanged.map_or(Timestamp { secs: self.started.secs, nanos: 0 }, |before| before.mtime);
        Entry::new(name.as_bytes(), EntryKind::Directory(dir), mtime)
    }
}

/// What an error ends.
pub enum Ended {
    /// The work on one item or one folder. All others go on.
    Item(GraphError),
    /// The work on one mailbox.
    Mailbox(GraphError),
    /// The run.
    Run(BackupError),
}

/// An answer of the service ends the work on the mailbox, unless it concerns all mailboxes; whoever knows that it
/// concerns one item says so.
impl<E: Into<BackupError>> From<E> for Ended {
    fn from(error: E) -> Self {
        match error.into() {
            BackupError::Graph(error) if !ends_the_run(&error) => Ended::Mailbox(error),
            error => Ended::Run(error),
        }
    }
}

/// Says whether an error concerns more than the mailbox at hand.
pub fn ends_the_run(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::SignIn | ErrorKind::Cancelled)
}
