//! A mailbox that single items are being restored to: its lock, its journal, and what is known of its folders, for the
//! items of each kind.

use crate::format::entry::Entry;
use crate::format::id::SnapshotId;
use crate::restore::account::context::MailboxContext;
use crate::restore::account::delivery::Delivery;
use crate::restore::account::existing_items::{Counterpart, ExistingItems, Likeness, TargetFolder};
use crate::restore::account::folders::Folders;
use crate::restore::account::lock::MailboxLock;
use crate::restore::account::mark::Mark;
use crate::restore::account::route::Kind;
use crate::restore::account::target::Target;
use crate::restore::account::targets::contacts::ContactsTarget;
use crate::restore::account::targets::mail::MailTarget;
use crate::source::graph::GraphError;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{MutexGuard, Semaphore};

/// Maximum number of folders whose items are remembered.
const FOLDERS_MAX: usize = 32;
/// How long the items of a folder are remembered. Somebody may be at work in it.
const FOLDER_FRESH: Duration = Duration::from_secs(300);
/// Number of locks that items share. Only the same item has to wait for itself, and others hardly ever do.
const TURNS: usize = 64;

/// The folder that an item of a snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The id of the user.
    pub user: String,
    /// The id of the folder.
    pub folder: String,
    /// The kind of the items in the folder.
    pub kind: Kind,
}

/// A mailbox that single items are being restored to.
pub(super) struct OpenMailbox {
    /// No other restore works in the mailbox meanwhile.
    _lock: MailboxLock,
    pub used: Mutex<Instant>,
    /// Limits the number of items that are restored at a time.
    pub slots: Semaphore,
    pub mail: OpenItems<MailTarget>,
    pub contacts: OpenItems<ContactsTarget>,
}

impl OpenMailbox {
    /// Opens a mailbox whose lock was taken. At most `at_once` items are restored at a time.
    pub fn new(lock: MailboxLock, mailbox: &Arc<MailboxContext>, user: &str, at_once: usize) -> Self {
        let client = &mailbox.run.client;
        let mail = Arc::new(MailTarget::new(client.clone(), user));
        let contacts = Arc::new(ContactsTarget::new(client.clone(), user));
        Self {
            _lock: lock,
            used: Mutex::new(Instant::now()),
            slots: Semaphore::new(at_once),
            mail: OpenItems::new(Delivery { mailbox: mailbox.clone(), target: mail }),
            contacts: OpenItems::new(Delivery { mailbox: mailbox.clone(), target: contacts }),
        }
    }
}

/// The items of one kind in a mailbox, as far as they are known.
pub(super) struct OpenItems<T> {
    pub delivery: Delivery<T>,
    turns: [tokio::sync::Mutex<()>; TURNS],
    random: RandomState,
    folders: tokio::sync::Mutex<HashMap<String, KnownFolder>>,
    pub origins: tokio::sync::Mutex<OriginFolders<T>>,
}

/// What is known of a folder.
struct KnownFolder {
    since: Instant,
    folder: Arc<TargetFolder>,
    /// The number of items that were asked for one by one.
    asked: u64,
    is_listed: bool,
}

/// The folders that items came from.
pub(super) struct OriginFolders<T> {
    folders: Option<Folders<T>>,
    /// By the snapshot, and the path of the folder in it.
    pub known: HashMap<(SnapshotId, Vec<u8>), Origin>,
}

impl<T> Default for OriginFolders<T> {
    fn default() -> Self {
        Self { folders: None, known: HashMap::new() }
    }
}

impl<T: Target> OriginFolders<T> {
    pub async fn folders(&mut self, target: &Arc<T>) -> Result<&mut Folders<T>, GraphError> {
        if self.folders.is_none() {
            self.folders = Some(Folders::new(target.clone(), &[], true).await?);
        }
        Ok(self.folders.as_mut().expect("made above"))
    }
}

impl<T: Target> OpenItems<T> {
    /// Starts without any knowledge.
    pub fn new(delivery: Delivery<T>) -> Self {
        Self {
            delivery,
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            random: RandomState::new(),
            folders: tokio::sync::Mutex::default(),
            origins: tokio::sync::Mutex::default(),
        }
    }

    /// Returns what is known of the folder that an item came from.
    pub async fn known_origin(&self, key: &(SnapshotId, Vec<u8>)) -> Option<Origin> {
        self.origins.lock().await.known.get(key).cloned()
    }

    /// Waits until the same item is not being restored.
    pub async fn turn(&self, mark: &Mark) -> MutexGuard<'_, ()> {
        self.turns[self.random.hash_one(mark.text(true)) as usize % TURNS].lock().await
    }

    /// Forgets what is known of a folder, and of all folders that items came from.
    pub async fn forget(&self, folder: &str) {
        self.folders.lock().await.remove(folder);
        *self.origins.lock().await = OriginFolders::default();
    }

    /// Notes that an item was restored to `folder`, which is the one with this id.
    pub async fn note_restored(&self, id: &str, folder: &Arc<TargetFolder>, mark: &Mark) {
        folder.existing.lock().add_restored(mark);
        // The folder may have been listed again meanwhile.
        if let Some(now) = self.folders.lock().await.get(id).filter(|now| !Arc::ptr_eq(&now.folder, folder)) {
            now.folder.existing.lock().add_restored(mark);
        }
    }

    /// Returns a folder with those of its items that may correspond to `entry`. Some of them may be gone by now.
    pub async fn folder(&self, id: &str, entry: &Entry) -> Result<Arc<TargetFolder>, GraphError> {
        let is_fresh = |known: &KnownFolder| known.is_listed && known.since.elapsed() < FOLDER_FRESH;
        if let Some(known) = self.folders.lock().await.get(id).filter(|known| is_fresh(known)) {
            return Ok(known.folder.clone());
        }
        // This lock is taken first. Otherwise items that need not ask would wait while an item without its mark is
        // looked for.
        let _all_marked = self.delivery.target.all_marked().await;
        let mut folders = self.folders.lock().await;
        if folders.len() >= FOLDERS_MAX && !folders.contains_key(id) {
            folders.clear();
        }
        if folders.get(id).is_some_and(|known| known.since.elapsed() >= FOLDER_FRESH) {
            folders.remove(id);
        }
        let known = folders.entry(id.to_owned()).or_insert_with(|| self.unknown_folder(id));
        let folder = known.folder.clone();
        if known.is_listed {
            return Ok(folder);
        }
        let each = &mut |item| folder.existing.lock().add(&item);
        match known.asked < T::ASKED_MAX {
            true => {
                self.delivery.target.find_existing(id, entry, each).await?;
                known.asked += 1;
            }
            false => {
                self.delivery.target.list_existing(id, each).await?;
                known.is_listed = true;
            }
        }
        Ok(folder)
    }

    /// Returns what is known of a folder that nobody asked for.
    fn unknown_folder(&self, id: &str) -> KnownFolder {
        let existing = Mutex::new(ExistingItems::new(self.random.clone(), &[]));
        let folder = Arc::new(TargetFolder { id: Some(id.to_owned()), existing, is_asked: false });
        KnownFolder { since: Instant::now(), folder, asked: 0, is_listed: false }
    }

    /// Asks what exists in the place of an item right now.
    pub async fn find_now(
        &self,
        folder: &str,
        entry: &Entry,
        mark: &Mark,
        likeness: Option<&Likeness>,
    ) -> Result<Counterpart, GraphError> {
        let mut existing = ExistingItems::new(self.random.clone(), &[]);
        let _all_marked = self.delivery.target.all_marked().await;
        self.delivery.target.find_existing(folder, entry, &mut |item| existing.add(&item)).await?;
        Ok(existing.find(entry, mark, likeness))
    }

    /// Looks whether the item itself exists in `folder`, which it came from.
    pub async fn itself(&self, entry: &Entry, folder: &str) -> Result<Counterpart, GraphError> {
        let Some(id) = entry.facts.source_id.as_deref() else { return Ok(Counterpart::None) };
        Ok(match self.delivery.target.existing_item(id, folder).await? {
            Some(item) if item.version == entry.facts.change_key => Counterpart::Itself,
            Some(_) => Counterpart::Changed,
            None => Counterpart::None,
        })
    }
}
