//! Restores single items to the mailboxes of one organisation, as they come: files that were dropped into a mount.
//!
//! It stands beside the plan, which restores a part of a snapshot as a whole, and restores each item in the same way:
//! every item bears a mark, and counts as restored once it was read back. The first items that go to a folder are each
//! asked for. If more come, the folder is listed once for all of them, and an item that seems to exist is asked for
//! again. Nothing is overwritten: an item that exists, and was changed since, stays as it is.

mod open_mailbox;
mod staged;

use self::open_mailbox::{OpenItems, OpenMailbox};
use self::staged::StagedOrStored;
use super::context::{Context, ITEMS_AT_ONCE, MailboxContext};
use super::existing_items::Counterpart;
use super::journal::Journal;
use super::lock::MailboxLock;
use super::mark::Mark;
use super::options::{AccountOptions, AccountTarget};
use super::outcome::{ItemError, ItemOutcome};
use super::route::{self, Kind, Part};
use super::target::Target;
use crate::format::crypto::Keys;
use crate::format::entry::Entry;
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::reader::Reader;
use crate::restore::{RestoreError, WhenExists, chain};
use crate::runtime::blocking;
use crate::source::graph::{Client, ErrorKind, GraphError, directory};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::open_mailbox::Origin;
pub use self::staged::ReadRange;

/// How long a mailbox stays locked after its last item, as more may come.
const LINGER: Duration = Duration::from_secs(5);
const NO_MAILBOX: &str = "it came from no mailbox";
const IN_USE: &str = "another restore is at work in this mailbox";

/// An item that is to be restored.
pub struct SingleItem {
    /// Its entry.
    pub entry: Entry,
    /// Reads its bytes, if they lie in no repository.
    pub bytes: Option<ReadRange>,
    /// The id of the user whose mailbox it came from, if that is known.
    pub owner: Option<String>,
}

/// Why an item was not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It never will be.
    ForGood(String),
    /// Nothing may be written there.
    Denied(String),
    /// It may be later.
    ForNow(String),
    /// The service accepts nothing from this application until somebody signs in again.
    SignIn(String),
    /// It probably never will be; but the service has been seen to change its mind.
    Doubtful(String),
    /// The program ends.
    Cancelled,
}

impl From<GraphError> for Refused {
    fn from(error: GraphError) -> Self {
        match error.kind() {
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::Throttled | ErrorKind::Unavailable => Self::ForNow(chain(&error)),
            ErrorKind::Denied | ErrorKind::MissingPermission => Self::Denied(chain(&error)),
            ErrorKind::SignIn => Self::SignIn(chain(&error)),
            ErrorKind::NoMailbox | ErrorKind::QuotaExceeded => Self::ForGood(chain(&error)),
            _ => Self::Doubtful(chain(&error)),
        }
    }
}

impl From<ItemError> for Refused {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Item(reason) => Self::Doubtful(reason),
            ItemError::Repository(reason) => Self::ForNow(reason),
            ItemError::Unanswered(error) | ItemError::Mailbox(error) => error.into(),
        }
    }
}

/// Restores items to the mailboxes of one organisation.
pub struct ItemRestorer {
    context: Arc<Context>,
    staged: Arc<StagedOrStored>,
    mailboxes: Mutex<HashMap<String, Arc<OpenMailbox>>>,
    /// Mailboxes of which the log says that another restore is at work in them.
    in_use: Mutex<HashSet<String>>,
}

impl ItemRestorer {
    /// Creates a restorer. Sends no request. `journals` is the folder in which this machine remembers what was
    /// restored; `locks` is the folder of the locks of mailboxes.
    pub fn new(reader: Arc<Reader>, keys: Arc<Keys>, client: Client, journals: PathBuf, locks: PathBuf) -> Self {
        let staged = Arc::new(StagedOrStored::new(reader.clone()));
        let options = AccountOptions {
            target: AccountTarget::Original,
            into: Vec::new(),
            when_exists: WhenExists::Skip,
            mailboxes_at_once: 1,
            journals,
            locks,
        };
        // The items are not of one snapshot.
        let context = Context::new(reader, staged.clone(), keys, client, SnapshotId([0; 32]), options);
        Self { context: Arc::new(context), staged, mailboxes: Mutex::default(), in_use: Mutex::default() }
    }

    /// Forgets what it has seen in the mailboxes, because it may change before the next item comes.
    pub fn forget(&self) {
        self.mailboxes.lock().clear();
    }

    /// Lets other restores into the mailboxes to which nothing was restored for a while, and forgets what is known of
    /// them.
    pub fn rest(&self) {
        let is_in_use =
            |mailbox: &Arc<OpenMailbox>| Arc::strong_count(mailbox) > 1 || mailbox.used.lock().elapsed() < LINGER;
        self.mailboxes.lock().retain(|_, mailbox| is_in_use(mailbox));
    }

    /// Returns the mailbox of `user`, which nobody else restores to.
    fn mailbox(&self, user: &str) -> Result<Arc<OpenMailbox>, Refused> {
        let mut mailboxes = self.mailboxes.lock();
        if let Some(mailbox) = mailboxes.get(user) {
            *mailbox.used.lock() = Instant::now();
            return Ok(mailbox.clone());
        }
        let run = self.context.clone();
        let lock = self.lock(user)?;
        let journal = Journal::open(&run.options.journals, &run.journal_name(user), run.keys.clone());
        let journal = Mutex::new(journal.map_err(|error| Refused::ForNow(chain(&error)))?);
        let context = Arc::new(MailboxContext { run, journal });
        let mailbox = Arc::new(OpenMailbox::new(lock, &context, user, ITEMS_AT_ONCE));
        mailboxes.insert(user.to_owned(), mailbox.clone());
        Ok(mailbox)
    }

    fn lock(&self, user: &str) -> Result<MailboxLock, Refused> {
        let run = &self.context;
        let lock = MailboxLock::try_take(&run.options.locks, run.client.tenant_id(), user);
        let Some(lock) = lock.map_err(|error| Refused::ForNow(chain(&error)))? else {
            if self.in_use.lock().insert(user.to_owned()) {
                tracing::warn!(
                    user,
                    "another restore is at work in this mailbox; what was dropped goes on when it has ended"
                );
            }
            return Err(Refused::ForNow(IN_USE.to_owned()));
        };
        self.in_use.lock().remove(user);
        Ok(lock)
    }

    /// Returns the id of the user whose mailbox the item at `path` of a snapshot came from.
    pub async fn owner(&self, snapshot: &Arc<(SnapshotId, Snapshot)>, path: &[u8]) -> Option<String> {
        let (reader, of, at) = (self.context.reader.clone(), snapshot.clone(), path.to_vec());
        blocking(move || route::owner(&reader, &of.1, &at)).await.ok()
    }

    /// Returns the folder that the item at `path` of a snapshot came from. Creates the folder if it is gone.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn origin(&self, snapshot: &Arc<(SnapshotId, Snapshot)>, path: &[u8]) -> Result<Origin, Refused> {
        let (reader, of, at) = (self.context.reader.clone(), snapshot.clone(), path.to_vec());
        let owner = blocking(move || route::owner(&reader, &of.1, &at)).await.map_err(unreadable)?;
        let mailbox = self.mailbox(&owner)?;
        let folder_path = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |end| &path[..end]);
        let key = (snapshot.0, folder_path.to_vec());
        // All items of a folder are of one kind.
        let known = [mailbox.mail.known_origin(&key).await, mailbox.contacts.known_origin(&key).await];
        if let Some(origin) = known.into_iter().flatten().next() {
            return Ok(origin);
        }
        let (reader, of, at) = (self.context.reader.clone(), snapshot.clone(), path.to_vec());
        let routes = blocking(move || route::routes(&reader, &of.1, &[at], &AccountTarget::Original, &[])).await;
        let route = routes.map_err(unreadable)?.into_iter().next();
        let parts = route.as_ref().map(|route| (route.mail.first(), route.contacts.first()));
        match parts {
            Some((Some(part), _)) => self.find_origin(&mailbox.mail, key, Kind::Mail, &owner, part).await,
            Some((None, Some(part))) => self.find_origin(&mailbox.contacts, key, Kind::Contacts, &owner, part).await,
            _ => Err(Refused::ForGood(NO_MAILBOX.to_owned())),
        }
    }

    async fn find_origin<T: Target>(
        &self,
        items: &OpenItems<T>,
        key: (SnapshotId, Vec<u8>),
        kind: Kind,
        owner: &str,
        part: &Part,
    ) -> Result<Origin, Refused> {
        let mut origins = items.origins.lock().await;
        if let Some(origin) = origins.known.get(&key) {
            return Ok(origin.clone());
        }
        let user = directory::user(&self.context.client, owner).await?;
        let user = user.ok_or_else(|| Refused::ForGood("the organisation has no such user any more".to_owned()))?;
        let folders = origins.folders(&items.delivery.target).await?;
        let mut folder = folders.root().await?;
        for above in &part.above {
            folder = folders.below(&folder, above, false).await?;
        }
        let folder = folder.id.ok_or_else(|| Refused::ForGood("its folder could not be made".to_owned()))?;
        let origin = Origin { user: user.id, folder, kind };
        origins.known.insert(key, origin.clone());
        Ok(origin)
    }

    /// Restores an item to a folder of its kind in a mailbox. However often this is called, also after a crash, the
    /// item exists there once.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn restore(&self, to: &Origin, item: &SingleItem) -> Result<ItemOutcome, Refused> {
        let mailbox = self.mailbox(&to.user)?;
        let _slot = mailbox.slots.acquire().await.expect("the semaphore is never closed");
        match to.kind {
            Kind::Mail => self.restore_to(&mailbox.mail, &to.user, &to.folder, item).await,
            Kind::Contacts => self.restore_to(&mailbox.contacts, &to.user, &to.folder, item).await,
        }
    }

    async fn restore_to<T: Target>(
        &self,
        items: &OpenItems<T>,
        user: &str,
        folder: &str,
        item: &SingleItem,
    ) -> Result<ItemOutcome, Refused> {
        let restored = self.try_restore(items, user, folder, item).await;
        if restored.is_err() {
            // What is known of the mailbox may be wrong.
            items.forget(folder).await;
        }
        restored
    }

    async fn try_restore<T: Target>(
        &self,
        mailbox: &OpenItems<T>,
        user: &str,
        folder_id: &str,
        item: &SingleItem,
    ) -> Result<ItemOutcome, Refused> {
        let entry = &item.entry;
        let mark = Mark::of(entry, &self.context.keys);
        // The same item, dropped twice, is restored once and then found.
        let _turn = mailbox.turn(&mark).await;
        let folder = mailbox.folder(folder_id, entry).await?;
        let likeness = blocking({
            let (run, entry) = (self.context.clone(), entry.clone());
            move || T::likeness(&run, &entry)
        });
        let likeness = likeness.await;
        let mut counterpart = folder.existing.lock().find(entry, &mark, likeness.as_ref());
        if counterpart != Counterpart::None {
            // Somebody may have deleted it since the folder was looked at.
            counterpart = mailbox.find_now(folder_id, entry, &mark, likeness.as_ref()).await?;
        }
        if counterpart == Counterpart::None && item.owner.as_deref() == Some(user) {
            counterpart = mailbox.itself(entry, folder_id).await?;
        }
        let _room = self.context.room(entry).await;
        let staged = entry.content().zip(item.bytes.clone());
        let _staged = staged.map(|(content, read)| self.staged.stage(content, read));
        let outcome = mailbox.delivery.deliver(entry, &folder, counterpart).await?;
        if outcome == ItemOutcome::Restored {
            mailbox.note_restored(folder_id, &folder, &mark).await;
        }
        Ok(outcome)
    }

    /// Makes durable what is known of items that are being restored.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        let mailboxes: Vec<_> = self.mailboxes.lock().values().cloned().collect();
        // Items of all kinds share a journal.
        mailboxes.iter().try_for_each(|mailbox| mailbox.mail.delivery.mailbox.journal.lock().sync())
    }
}

fn unreadable(error: RestoreError) -> Refused {
    let reason = chain(&error);
    match error {
        RestoreError::Read(error) if !error.is_damage() => Refused::ForNow(reason),
        _ => Refused::ForGood(reason),
    }
}
