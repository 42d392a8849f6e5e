//! Items that go back as the streams as which they were exported ([`crate::source::graph::exchange`]): with everything
//! that neither MIME nor the properties of a message carry.
//!
//! An import cannot mark what it makes, and makes it again whenever it is asked again. So:
//!
//! - that an item is about to be imported is durable in the journal before, and its mark is set right after;
//! - whenever it is not clear whether an import arrived, what it would have made is looked for: a message with the same
//!   `Message-ID`, times and subject, which bears the mark that the item had when it was exported (most often none) and
//!   was not there before. It is taken for the item; only if there is none, the import is tried again;
//! - twins, which such a look could mistake for each other, go one after the other.
//!
//! What the service does not import goes back as all other items do, and the report says how many did, and why.

use super::deliver::{ATTEMPTS_MAX, Delivery, LOOKS_MAX, Outcome, Trouble, wait};
use super::guide::Spot;
use super::journal::Key;
use super::patience::Patience;
use super::there::Mark;
use super::verify::Told;
use crate::format::entry::{Content, Entry};
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Mutex as Turn, MutexGuard, OnceCell, RwLock};
use tokio::time::Instant;

/// Of twins, which share one of so many turns, one is imported at a time.
const TURNS: usize = 64;
/// An import that is refused is tried so often, where it may pass.
const REFUSED_ATTEMPTS_MAX: u32 = 4;
/// A stream is read in pieces of so many bytes.
const PIECE_BYTES: usize = 3 << 20;
/// Folders of a mailbox lie no deeper (Exchange Online: "Mailbox folder limits").
const DEPTH_MAX: usize = 300;

/// Imports into one mailbox.
pub(super) struct Importer {
    mailbox: Mailbox,
    exchange: OnceCell<Option<Exchange>>,
    /// Whether nothing can be imported at all.
    closed: AtomicBool,
    session: Turn<Option<Session>>,
    /// Folders that every mailbox has, by their ids.
    well_known: OnceLock<HashMap<String, &'static str>>,
    unmarked: OnceLock<Arc<RwLock<()>>>,
    folders: Turn<Known>,
    turns: Vec<Turn<()>>,
    random: RandomState,
    /// Why items went back otherwise, and how many.
    otherwise: Mutex<BTreeMap<String, u64>>,
}

/// What was found out of folders.
#[derive(Default)]
struct Known {
    /// How the import knows a folder that mail knows by this id, if it does.
    ids: HashMap<String, Option<String>>,
    /// What lies in a folder, by its id in the import.
    children: HashMap<String, Vec<ImportFolder>>,
}

/// What keeps an item from being imported.
enum Obstacle {
    /// It is to be brought otherwise, for this reason.
    Otherwise(String),
    Trouble(Trouble),
}

impl<E: Into<Trouble>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
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
            well_known: OnceLock::new(),
            unmarked: OnceLock::new(),
            folders: Turn::default(),
            turns: (0..TURNS).map(|_| Turn::new(())).collect(),
            random: RandomState::new(),
            otherwise: Mutex::default(),
        }
    }

    /// Notes which folders every mailbox has (their names, and the ids that mail has for them), and what is held as
    /// long as there is a message without its mark.
    pub fn know(&self, well_known: &HashMap<&'static str, String>, unmarked: &Arc<RwLock<()>>) {
        let by_id = || well_known.iter().map(|(name, id)| (id.clone(), *name)).collect();
        self.well_known.get_or_init(by_id);
        self.unmarked.get_or_init(|| unmarked.clone());
    }

    /// Returns why items that have a stream went back otherwise, and how many.
    pub fn otherwise(&self) -> BTreeMap<String, u64> {
        self.otherwise.lock().clone()
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

    /// Returns where to import, for now.
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

    /// Returns how the import knows a folder. Its ids need not be those of mail, so the folder is found as people
    /// would: from the nearest one that every mailbox has, by name.
    async fn folder(&self, exchange: &Exchange, folder: &str) -> Result<Option<String>, GraphError> {
        let mut known = self.folders.lock().await;
        let mut way = Vec::new();
        let mut at = folder.to_owned();
        let mut id = loop {
            if let Some(id) = known.ids.get(&at) {
                break id.clone();
            }
            if let Some(name) = self.well_known.get().and_then(|well_known| well_known.get(&at)) {
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

    /// Waits until no twin is being imported.
    async fn turn(&self, told: &Told) -> MutexGuard<'_, ()> {
        let hash = self.random.hash_one((&told.message_id, told.received));
        self.turns[hash as usize % TURNS].lock().await
    }
}

impl Known {
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

/// An item on its way, which has a stream.
struct Import<'a> {
    delivery: &'a Delivery,
    spot: &'a Spot,
    folder: &'a str,
    mark: &'a Mark,
    told: Told,
    /// How many messages that look like it stand for others.
    taken: usize,
}

impl Delivery {
    /// Brings an item as the stream as which it was exported. Returns `None` if it is to be brought otherwise.
    /// `is_alike` says that one of the messages that look like it was taken for it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn import(
        &self,
        entry: &Entry,
        spot: &Spot,
        mark: &Mark,
        is_alike: bool,
    ) -> Result<Option<Outcome>, Trouble> {
        let Some(stream) = entry.stream() else { return Ok(None) };
        let taken = || spot.there.lock().taken(entry).saturating_sub(usize::from(is_alike));
        let imported = match self.told(entry).await? {
            Some(told) => self.import_stream(stream, spot, mark, told, &taken).await,
            None => Err(Obstacle::Otherwise("what the service said of it cannot be read".to_owned())),
        };
        match imported {
            Ok(outcome) => Ok(Some(outcome)),
            Err(Obstacle::Trouble(trouble)) => Err(trouble),
            Err(Obstacle::Otherwise(why)) => {
                *self.importer.otherwise.lock().entry(why).or_default() += 1;
                Ok(None)
            }
        }
    }

    async fn import_stream(
        &self,
        stream: &Content,
        spot: &Spot,
        mark: &Mark,
        told: Told,
        taken: &(dyn Fn() -> usize + Sync),
    ) -> Result<Outcome, Obstacle> {
        let folder = spot.folder.as_deref().expect("folders are made before anything is put there");
        let _turn = self.importer.turn(&told).await;
        let _unmarked = match self.importer.unmarked.get() {
            Some(unmarked) => Some(unmarked.read().await),
            None => None,
        };
        let import = Import { delivery: self, spot, folder, mark, told, taken: taken() };
        let key = mark.key(folder);
        let begun_at = self.journal.lock().begun_at(&key);
        let orphan = match begun_at {
            Some(begun_at) => import.orphan(begun_at.into()).await?,
            None => None,
        };
        let (id, outcome) = match orphan {
            Some(id) => (id, Outcome::AlreadyThere),
            None => {
                let exchange = self.importer.exchange().await?;
                let target = match self.importer.folder(exchange, folder).await {
                    Ok(target) => target,
                    Err(error) if is_unavailable(&error) => None,
                    Err(error) => return Err(error.into()),
                };
                let unknown = || Obstacle::Otherwise("its folder was not found for the import".to_owned());
                let request = self.request(&target.ok_or_else(unknown)?, stream).await?;
                (import.make(exchange, request, key).await?, Outcome::Restored)
            }
        };
        let mut found = import.mark(&id).await?;
        let mut attempt = 1;
        while let Some(difference) = import.told.difference(&found, folder, true) {
            // Any answer may be a wrong one: a difference is one that is seen again.
            if attempt == LOOKS_MAX {
                return Err(Trouble::Item(difference).into());
            }
            wait(attempt).await;
            attempt += 1;
            let again = self.mailbox.message(found["id"].as_str().unwrap_or(&id)).await?;
            found = again.and_then(|again| serde_json::from_str(again.raw.get()).ok()).unwrap_or(found);
        }
        self.journal.lock().verified(key)?;
        Ok(outcome)
    }

    /// Puts the request together; the stream itself is never whole in memory beside it.
    async fn request(&self, folder: &str, stream: &Content) -> Result<Bytes, Trouble> {
        let (context, folder, stream) = (self.context.clone(), folder.to_owned(), stream.clone());
        let request = blocking(move || {
            import_request(&folder, stream.len(), |take| {
                let mut piece = Vec::new();
                for offset in (0..stream.len()).step_by(PIECE_BYTES) {
                    piece.clear();
                    context.reader.read(&stream, offset, PIECE_BYTES, &mut piece)?;
                    take(&piece);
                }
                Ok::<_, crate::repository::read_error::ReadError>(())
            })
        });
        Ok(request.await?)
    }
}

impl Import<'_> {
    /// Imports the item once, however often the answer is lost, and returns an id of it.
    async fn make(&self, exchange: &Exchange, request: Bytes, key: Key) -> Result<String, Obstacle> {
        let importer = &self.delivery.importer;
        let mut attempt = 1;
        let mut is_clear = true;
        loop {
            let session = importer.session(exchange).await?;
            self.delivery.journal.lock().begun(key)?;
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
                    // If it is made otherwise now, nobody has to wait for what this has made.
                    self.delivery.journal.lock().ended(key)?;
                }
                return Err(refused(importer, error));
            }
            if attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            attempt += 1;
        }
    }

    /// Returns what could be the item, as far as it was made without a mark.
    async fn candidates(&self) -> Result<Vec<Standing>, GraphError> {
        let mut candidates = Vec::new();
        let Told { message_id, received, .. } = &self.told;
        let mailbox = &self.delivery.mailbox;
        let each = |standing: Standing| candidates.extend(Some(standing).filter(|standing| self.told.may_be(standing)));
        mailbox.alike(self.folder, message_id.as_deref(), *received, each).await?;
        Ok(candidates)
    }

    /// Returns what this run has made of the item, although nobody said so: it was not there before.
    async fn made(&self) -> Result<Option<String>, GraphError> {
        let candidates = self.candidates().await?;
        let there = self.spot.there.lock();
        Ok(candidates.into_iter().map(|standing| standing.id).find(|id| !there.knows(id)))
    }

    /// Returns what an earlier attempt has made of the item, which was over at `begun_at` or began then, unless it
    /// stands for another one.
    async fn orphan(&self, begun_at: Instant) -> Result<Option<String>, GraphError> {
        let mut patience = Patience::since(begun_at);
        while patience.has_another_look().await {
            let candidates = self.candidates().await?;
            if candidates.len() > self.taken {
                return Ok(candidates.into_iter().next().map(|standing| standing.id));
            }
        }
        Ok(None)
    }

    /// Gives the message its mark, and returns what the service says of it then.
    async fn mark(&self, id: &str) -> Result<Value, Obstacle> {
        let mailbox = &self.delivery.mailbox;
        let mut id = id.to_owned();
        let mut attempt = 1;
        loop {
            let error = match mailbox.mark_message(&id, &self.mark.text(true)).await {
                Ok(found) => {
                    found["id"].as_str().iter().for_each(|id| self.spot.there.lock().know(id));
                    return Ok(found);
                }
                Err(error) => error,
            };
            // A message that was just made is not known to every server at once; nor need the import name it as mail
            // does.
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

/// Returns whether what was refused may be taken a moment later: not every server knows a folder that was just made.
fn may_pass(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Locked | ErrorKind::Conflict)
}

/// Decides what an import comes to that was refused, and did not happen.
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
