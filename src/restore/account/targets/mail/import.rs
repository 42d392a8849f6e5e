//! Imports items from the streams as which they were exported ([`crate::source::graph::exchange`]). A stream holds
//! everything, also what neither the MIME form nor the properties of a message hold.
//!
//! An import cannot mark the message that it makes, and makes another one each time it is sent. So:
//!
//! - The journal says that an item is about to be imported, durably, before the request is sent. The mark is set right
//!   after it.
//! - If it is not clear whether an import arrived, its message is looked for: one with the same `Message-ID`, times and
//!   subject, with the mark that the item had when it was exported (mostly none), which was not there before. Such a
//!   message is taken for the item. Only if there is none, the import is sent again.
//! - Messages that look the same are imported one after the other, so that none is taken for another.
//!
//! A message that the service does not import is created from its MIME form. The report says how many there were, and
//! why.

use super::backed_up::BackedUpProperties;
use crate::format::entry::{Content, Entry};
use crate::repository::read_error::ReadError;
use crate::restore::account::context::{Context, MailboxContext};
use crate::restore::account::existing_items::TargetFolder;
use crate::restore::account::journal::Key;
use crate::restore::account::mark::Mark;
use crate::restore::account::outcome::{ItemError, ItemOutcome};
use crate::restore::account::patience::Patience;
use crate::restore::account::retry::{ATTEMPTS_MAX, LOOKS_MAX, wait};
use crate::restore::account::target::Task;
use crate::runtime::blocking;
use crate::source::graph::exchange::{Exchange, ImportFolder, Session, import_request, is_unavailable};
use crate::source::graph::mail::Mailbox;
use crate::source::graph::write::{Standing, same_name};
use crate::source::graph::{ErrorKind, GraphError};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex as Turn, MutexGuard, OnceCell, RwLock};
use tokio::time::Instant;

/// The well-known names of folders, and their ids.
type WellKnownFolders = HashMap<&'static str, String>;

/// Number of locks that messages share. Messages that look the same have the same lock, and are imported one after the
/// other.
const TURNS: usize = 64;
/// Maximum number of attempts at an import that is refused for a reason that may pass.
const REFUSED_ATTEMPTS_MAX: u32 = 4;
/// The size of the pieces in which a stream is read, in bytes.
const PIECE_BYTES: usize = 3 << 20;
/// Maximum depth of the folders of a mailbox (Exchange Online: "Mailbox folder limits").
const DEPTH_MAX: usize = 300;

/// Imports into one mailbox.
pub(super) struct Importer {
    mailbox: Mailbox,
    exchange: OnceCell<Option<Exchange>>,
    /// True if nothing can be imported at all.
    closed: AtomicBool,
    session: Turn<Option<Session>>,
    /// Held for reading as long as a message exists without its mark.
    unmarked: RwLock<()>,
    folders: Turn<KnownFolders>,
    turns: Vec<Turn<()>>,
    random: RandomState,
    /// The number of messages that have a stream and were not imported, by the reason.
    created_otherwise: Mutex<BTreeMap<String, u64>>,
}

/// What is known of folders.
#[derive(Default)]
struct KnownFolders {
    /// The id that a folder has for the import, by the id that it has for mail. `None` if the import does not know it.
    ids: HashMap<String, Option<String>>,
    /// The folders in a folder, by its id for the import.
    children: HashMap<String, Vec<ImportFolder>>,
}

/// Why an item was not imported.
enum Obstacle {
    /// The item has to be created from its MIME form, for this reason.
    Otherwise(String),
    Error(ItemError),
}

impl<E: Into<ItemError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Importer {
    /// Starts with nothing known.
    pub fn new(mailbox: Mailbox) -> Self {
        Self {
            mailbox,
            exchange: OnceCell::new(),
            closed: AtomicBool::new(false),
            session: Turn::new(None),
            unmarked: RwLock::new(()),
            folders: Turn::default(),
            turns: (0..TURNS).map(|_| Turn::new(())).collect(),
            random: RandomState::new(),
            created_otherwise: Mutex::default(),
        }
    }

    /// Returns the lock that is held for reading as long as a message exists without its mark.
    pub fn unmarked(&self) -> &RwLock<()> {
        &self.unmarked
    }

    /// Returns how many messages that have a stream were not imported, by the reason.
    pub fn created_otherwise(&self) -> BTreeMap<String, u64> {
        self.created_otherwise.lock().clone()
    }

    /// Imports an item from the stream as which it was exported. Returns `None` if it has to be created from its MIME
    /// form. `taken` returns how many messages that look like it correspond to other items.
    ///
    /// # Errors
    /// [`ItemError`].
    pub async fn restore(
        &self,
        mailbox: &MailboxContext,
        well_known: &WellKnownFolders,
        task: &Task<'_>,
        stream: &Content,
        taken: &(dyn Fn() -> usize + Sync),
    ) -> Result<Option<ItemOutcome>, ItemError> {
        let imported = match backed_up(&mailbox.run, task.entry).await? {
            Some(backed_up) => self.import(mailbox, well_known, task, stream, backed_up, taken).await,
            None => Err(Obstacle::Otherwise("what the service said of it cannot be read".to_owned())),
        };
        match imported {
            Ok(outcome) => Ok(Some(outcome)),
            Err(Obstacle::Error(error)) => Err(error),
            Err(Obstacle::Otherwise(why)) => {
                *self.created_otherwise.lock().entry(why).or_default() += 1;
                Ok(None)
            }
        }
    }

    async fn import(
        &self,
        mailbox: &MailboxContext,
        well_known: &WellKnownFolders,
        task: &Task<'_>,
        stream: &Content,
        backed_up: BackedUpProperties,
        taken: &(dyn Fn() -> usize + Sync),
    ) -> Result<ItemOutcome, Obstacle> {
        let _turn = self.turn(&backed_up).await;
        let _unmarked = self.unmarked.read().await;
        let Task { folder, folder_id, mark, .. } = *task;
        let import = Import { importer: self, mailbox, folder, folder_id, mark, backed_up, taken: taken() };
        let begun_at = mailbox.journal.lock().begun_at(&import.key());
        let orphan = match begun_at {
            Some(begun_at) => import.orphan(begun_at.into()).await?,
            None => None,
        };
        let (id, outcome) = match orphan {
            Some(id) => (id, ItemOutcome::AlreadyThere),
            None => {
                let exchange = self.exchange().await?;
                let target = match self.folder(exchange, well_known, folder_id).await {
                    Ok(target) => target,
                    Err(error) if is_unavailable(&error) => None,
                    Err(error) => return Err(error.into()),
                };
                let unknown = || Obstacle::Otherwise("its folder was not found for the import".to_owned());
                let request = request(&mailbox.run, &target.ok_or_else(unknown)?, stream).await?;
                (import.make(exchange, request).await?, ItemOutcome::Restored)
            }
        };
        import.mark_and_compare(&id).await?;
        Ok(outcome)
    }

    async fn exchange(&self) -> Result<&Exchange, Obstacle> {
        let looking = async || match self.mailbox.exchange().await {
            Ok(exchange) => Ok(Some(exchange)),
            Err(error) if is_unavailable(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let exchange = self.exchange.get_or_try_init(looking).await?.as_ref();
        exchange.filter(|_| !self.closed.load(Ordering::Relaxed)).ok_or_else(closed)
    }

    /// Returns an open import session.
    async fn session(&self, exchange: &Exchange) -> Result<Session, Obstacle> {
        let mut session = self.session.lock().await;
        if let Some(open) = session.as_ref().filter(|session| !session.has_ended()) {
            return Ok(open.clone());
        }
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        match exchange.import_session().await {
            Ok(new) => Ok(session.insert(new).clone()),
            Err(error) if is_unavailable(&error) => {
                self.closed.store(true, Ordering::Relaxed);
                Err(closed())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the id that a folder has for the import. It may differ from the id that mail has for it. So the folder
    /// is found by name, down from the nearest folder with a well-known name.
    async fn folder(
        &self,
        exchange: &Exchange,
        well_known: &WellKnownFolders,
        folder: &str,
    ) -> Result<Option<String>, GraphError> {
        let mut known = self.folders.lock().await;
        let mut way = Vec::new();
        let mut at = folder.to_owned();
        let mut id = loop {
            if let Some(id) = known.ids.get(&at) {
                break id.clone();
            }
            if let Some((name, _)) = well_known.iter().find(|(_, id)| **id == at) {
                let found = exchange.well_known_folder(name).await?;
                break known.ids.entry(at).or_insert(found.map(|folder| folder.id)).clone();
            }
            let above = self.mailbox.folder(&at).await?.filter(|_| way.len() < DEPTH_MAX);
            let Some((above, parent)) = above.and_then(|mut above| above.parent_folder_id.take().map(|p| (above, p)))
            else {
                break None;
            };
            way.push((std::mem::replace(&mut at, parent), above.display_name.unwrap_or_default()));
        };
        for (folder, name) in way.into_iter().rev() {
            id = match id {
                Some(parent) => known.child(exchange, &parent, &name).await?,
                None => None,
            };
            known.ids.insert(folder, id.clone());
        }
        Ok(id)
    }

    /// Waits until no message that looks the same is being imported.
    async fn turn(&self, backed_up: &BackedUpProperties) -> MutexGuard<'_, ()> {
        let hash = self.random.hash_one((&backed_up.message_id, backed_up.received));
        self.turns[hash as usize % TURNS].lock().await
    }
}

impl KnownFolders {
    async fn child(&mut self, exchange: &Exchange, parent: &str, name: &str) -> Result<Option<String>, GraphError> {
        let find = |children: &[ImportFolder]| {
            let called = |child: &&ImportFolder| child.display_name.as_deref() == Some(name);
            let alike = |child: &&ImportFolder| child.display_name.as_deref().is_some_and(|n| same_name(n, name));
            let found = children.iter().find(called).or_else(|| children.iter().find(alike));
            found.map(|child| child.id.clone())
        };
        if let Some(found) = self.children.get(parent).and_then(|children| find(children)) {
            return Ok(Some(found));
        }
        // It may have been made since they were listed.
        let children = exchange.folders_in(parent).await?;
        let found = find(&children);
        self.children.insert(parent.to_owned(), children);
        Ok(found)
    }
}

fn closed() -> Obstacle {
    Obstacle::Otherwise("this application may not import there, or the cloud has no import".to_owned())
}

/// Returns what the service said of an item when it was backed up, if that is known.
async fn backed_up(run: &Arc<Context>, entry: &Entry) -> Result<Option<BackedUpProperties>, ItemError> {
    let Some(payload) = entry.payload.clone() else { return Ok(None) };
    let run = run.clone();
    blocking(move || {
        let mut json = Vec::new();
        run.reader.read(&payload, 0, usize::MAX, &mut json)?;
        Ok(BackedUpProperties::read(&json))
    })
    .await
}

/// Builds the request that imports a stream. The stream is never in memory beside it.
async fn request(run: &Arc<Context>, folder: &str, stream: &Content) -> Result<Bytes, ItemError> {
    let (run, folder, stream) = (run.clone(), folder.to_owned(), stream.clone());
    let request = blocking(move || {
        import_request(&folder, stream.len(), |take| {
            let mut piece = Vec::new();
            for offset in (0..stream.len()).step_by(PIECE_BYTES) {
                piece.clear();
                run.reader.read(&stream, offset, PIECE_BYTES, &mut piece)?;
                take(&piece);
            }
            Ok::<_, ReadError>(())
        })
    });
    Ok(request.await?)
}

/// An item with a stream that is being imported.
struct Import<'a> {
    importer: &'a Importer,
    mailbox: &'a MailboxContext,
    folder: &'a TargetFolder,
    folder_id: &'a str,
    mark: &'a Mark,
    backed_up: BackedUpProperties,
    /// How many messages that look like it correspond to other items.
    taken: usize,
}

impl Import<'_> {
    fn key(&self) -> Key {
        self.mark.key(self.folder_id)
    }

    /// Imports the item once, however often the answer is lost, and returns an id of it.
    async fn make(&self, exchange: &Exchange, request: Bytes) -> Result<String, Obstacle> {
        let (importer, key) = (self.importer, self.key());
        let mut attempt = 1;
        let mut is_clear = true;
        loop {
            let session = importer.session(exchange).await?;
            self.mailbox.journal.lock().begun(key)?;
            let error = match exchange.import(&session, request.clone()).await {
                Ok(id) => return Ok(id),
                Err(error) => error,
            };
            if error.is_ambiguous() {
                is_clear = false;
                let mut patience = Patience::since(Instant::now());
                while patience.has_another_look().await {
                    if let Some(id) = self.made().await? {
                        return Ok(id);
                    }
                }
            } else if error.status() == Some(401) {
                *importer.session.lock().await = None;
            } else if attempt < REFUSED_ATTEMPTS_MAX && may_pass(&error) {
                wait(attempt).await;
            } else {
                if is_clear && error.kind() != ErrorKind::Cancelled {
                    // If the item is created otherwise now, nobody has to look for this import.
                    self.mailbox.journal.lock().ended(key)?;
                }
                return Err(refused(importer, error));
            }
            if attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            attempt += 1;
        }
    }

    /// Returns the messages that an import of this item may have made.
    async fn candidates(&self) -> Result<Vec<Standing>, GraphError> {
        let mut candidates = Vec::new();
        let BackedUpProperties { message_id, received, .. } = &self.backed_up;
        let each = |row: Standing| candidates.extend(Some(row).filter(|row| self.backed_up.may_be(row)));
        self.importer.mailbox.alike(self.folder_id, message_id.as_deref(), *received, each).await?;
        Ok(candidates)
    }

    /// Returns the message that this run has made of the item although the answer was lost. It was not there before.
    async fn made(&self) -> Result<Option<String>, GraphError> {
        let candidates = self.candidates().await?;
        let existing = self.folder.existing.lock();
        Ok(candidates.into_iter().map(|row| row.id).find(|id| !existing.contains(id)))
    }

    /// Returns the message that an earlier attempt has made of the item, if there is one that corresponds to no other
    /// item. The attempt was over at `begun_at`, or began then.
    async fn orphan(&self, begun_at: Instant) -> Result<Option<String>, GraphError> {
        let mut patience = Patience::since(begun_at);
        while patience.has_another_look().await {
            let candidates = self.candidates().await?;
            if candidates.len() > self.taken {
                return Ok(candidates.into_iter().next().map(|row| row.id));
            }
        }
        Ok(None)
    }

    /// Gives the message its mark, and compares it with what was backed up.
    async fn mark_and_compare(&self, id: &str) -> Result<(), Obstacle> {
        let mut found = self.mark(id).await?;
        let mut attempt = 1;
        while let Some(difference) = self.backed_up.difference(&found, self.folder_id, true) {
            if attempt == LOOKS_MAX {
                return Err(ItemError::Item(difference).into());
            }
            wait(attempt).await;
            attempt += 1;
            let again = self.importer.mailbox.message(found["id"].as_str().unwrap_or(id)).await?;
            found = again.and_then(|again| serde_json::from_str(again.raw.get()).ok()).unwrap_or(found);
        }
        self.mailbox.journal.lock().verified(self.key())?;
        Ok(())
    }

    /// Gives the message its mark, and returns what the service says of it then.
    async fn mark(&self, id: &str) -> Result<Value, Obstacle> {
        let mailbox = &self.importer.mailbox;
        let mut id = id.to_owned();
        let mut attempt = 1;
        loop {
            let error = match mailbox.mark_message(&id, &self.mark.text(true)).await {
                Ok(found) => {
                    found["id"].as_str().iter().for_each(|id| self.folder.existing.lock().add_id(id));
                    return Ok(found);
                }
                Err(error) => error,
            };
            // A message that was just made is not known to every server at once. The import may also give it another id
            // than mail does.
            let may_pass = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::BadRequest | ErrorKind::Conflict);
            if !may_pass || attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            wait(attempt).await;
            id = self.made().await?.unwrap_or(id);
            attempt += 1;
        }
    }
}

/// Returns true if a refused import may be accepted a moment later. Not every server knows a folder that was just made.
fn may_pass(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Locked | ErrorKind::Conflict)
}

/// Returns what follows from an import that was refused, and did not happen.
fn refused(importer: &Importer, error: GraphError) -> Obstacle {
    use ErrorKind::{BadRequest, Conflict, Denied, ItemCorrupt, Locked, MissingPermission, NotFound, TooLarge};
    match error.kind() {
        Denied | MissingPermission => {
            importer.closed.store(true, Ordering::Relaxed);
            closed()
        }
        BadRequest | Conflict | ItemCorrupt | Locked | NotFound | TooLarge => {
            let code = error.code().unwrap_or("no reason given");
            Obstacle::Otherwise(format!("the service did not import it ({code})"))
        }
        _ => error.into(),
    }
}
