//! Brings single items to the mailboxes of one organisation, as they come: what was dropped into a mount.
//!
//! It stands beside the plan, which restores a part of a snapshot as a whole, and delivers the same way: every message
//! bears a mark, and counts as restored once it was read back. Of the first items that come to a folder each is asked
//! for by itself; when more come, what stands there is listed once for all of them, and what seems to be there is asked
//! for again. Nothing is overwritten: what is there, though changed since, stays as it is.

use super::deliver::{Delivery, Outcome, Trouble};
use super::folders::{Folders, Place};
use super::guide::{ASKED_MAX, Spot};
use super::import::Importer;
use super::journal::Journal;
use super::lock::MailboxLock;
use super::route;
use super::there::{Found, Mark, There};
use super::{AccountOptions, AccountTarget, Contents, Context, ITEMS_AT_ONCE, ROOM_BYTES, ROOM_PIECE_BYTES};
use crate::format::crypto::Keys;
use crate::format::entry::{Content, Entry};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::reader::Reader;
use crate::restore::{RestoreError, WhenExists, chain};
use crate::runtime::blocking;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::{Client, ErrorKind, GraphError, directory};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{RwLock, Semaphore};

/// Folders whose messages are remembered at a time, and for how long: somebody may be at work in them.
const SPOTS_MAX: usize = 32;
const SPOT_FRESH: Duration = Duration::from_secs(300);
/// A mailbox stays locked for so long after the last item, as more may come; and what is known of it stays known.
const LINGER: Duration = Duration::from_secs(5);
const IN_USE: &str = "another restore is at work in this mailbox";
/// Items that are alike wait for each other; others hardly ever do.
const TURNS: usize = 64;

/// Reads the bytes of an item at a range, fewer where it ends before.
pub type Bytes = Arc<dyn Fn(Range<usize>) -> io::Result<Vec<u8>> + Send + Sync>;

/// An item that is to be brought.
pub struct Parcel {
    /// What it is.
    pub entry: Entry,
    /// Its bytes, if they stand in no repository.
    pub bytes: Option<Bytes>,
    /// The id of the user whose mailbox it came from, if that is known.
    pub owner: Option<String>,
}

/// Where an item of a snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The id of the user.
    pub user: String,
    /// The id of the folder.
    pub folder: String,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// It was restored.
    Restored,
    /// It stood there.
    AlreadyThere,
    /// It stands there, was changed since, and was left as it is.
    LeftAsItIs,
}

/// Why an item was not brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It never will be.
    ForGood(String),
    /// Nothing may be written there.
    Denied(String),
    /// It may be later.
    ForNow(String),
    /// The service takes nothing from this application until somebody signs in again.
    SignIn(String),
    /// It should not be; but the service has been seen to change its mind.
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

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Item(reason) => Self::Doubtful(reason),
            Trouble::Away(reason) => Self::ForNow(reason),
            Trouble::Unanswered(error) | Trouble::Mailbox(error) => error.into(),
        }
    }
}

/// Where items are read: in the repository, or where they were staged.
struct Anywhere {
    reader: Arc<Reader>,
    /// Those that are on their way, by content, with how many are.
    staged: Mutex<HashMap<[u8; 32], (usize, Bytes)>>,
}

impl Contents for Anywhere {
    fn read_range(&self, content: &Content, range: Range<usize>) -> Result<Vec<u8>, Trouble> {
        let staged = self.staged.lock().get(content.identity().as_bytes()).map(|(_, bytes)| bytes.clone());
        match staged {
            Some(bytes) => bytes(range).map_err(|error| Trouble::Item(chain(&error))),
            None => self.reader.read_range(content, range),
        }
    }
}

/// Keeps an item's bytes at hand while it lives.
struct AtHand<'a>(&'a Anywhere, [u8; 32]);

impl<'a> AtHand<'a> {
    fn new(at: &'a Anywhere, parcel: &Parcel) -> Option<Self> {
        let content = *parcel.entry.content()?.identity().as_bytes();
        let bytes = parcel.bytes.clone()?;
        at.staged.lock().entry(content).or_insert((0, bytes)).0 += 1;
        Some(Self(at, content))
    }
}

impl Drop for AtHand<'_> {
    fn drop(&mut self) {
        let mut staged = self.0.staged.lock();
        if let Some((count, _)) = staged.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                staged.remove(&self.1);
            }
        }
    }
}

/// Brings items to the mailboxes of one organisation.
pub struct Courier {
    context: Arc<Context>,
    anywhere: Arc<Anywhere>,
    stops: Mutex<HashMap<String, Arc<Stop>>>,
    /// Mailboxes in which others were at work, as far as that was told.
    in_use: Mutex<HashSet<String>>,
}

/// A mailbox on the way.
struct Stop {
    /// Nobody else restores to it meanwhile.
    _lock: MailboxLock,
    used: Mutex<Instant>,
    delivery: Delivery,
    places: Semaphore,
    turns: [tokio::sync::Mutex<()>; TURNS],
    random: RandomState,
    spots: tokio::sync::Mutex<HashMap<String, Seen>>,
    homes: tokio::sync::Mutex<Homes>,
    /// Held as long as there is a message without its mark, and by those who look what is there.
    unmarked: Arc<RwLock<()>>,
}

/// What is known of a folder.
struct Seen {
    since: Instant,
    spot: Arc<Spot>,
    /// How many items were asked for one by one.
    asked: u64,
    is_listed: bool,
}

/// The folders that things came from.
#[derive(Default)]
struct Homes {
    folders: Option<Folders>,
    /// By snapshot, and path there.
    known: HashMap<(SnapshotId, Vec<u8>), Home>,
}

impl Homes {
    async fn folders(&mut self, delivery: &Delivery) -> Result<&mut Folders, GraphError> {
        if self.folders.is_none() {
            self.folders = Some(Folders::new(&delivery.mailbox, &[], true).await?);
        }
        Ok(self.folders.as_mut().expect("made above"))
    }
}

impl Courier {
    /// Makes a courier. `journals` is where this machine remembers what was brought, `locks` where the locks of
    /// mailboxes are.
    pub fn new(reader: Arc<Reader>, keys: Arc<Keys>, client: Client, journals: PathBuf, locks: PathBuf) -> Self {
        let anywhere = Arc::new(Anywhere { reader: reader.clone(), staged: Mutex::default() });
        let options = AccountOptions {
            target: AccountTarget::Original,
            into: Vec::new(),
            when_exists: WhenExists::Skip,
            mailboxes_at_once: 1,
            journals,
            locks,
        };
        let context = Context {
            reader,
            contents: anywhere.clone(),
            keys,
            client,
            // What is brought is not of one snapshot.
            snapshot: SnapshotId([0; 32]),
            options,
            room: Semaphore::new((ROOM_BYTES / ROOM_PIECE_BYTES) as usize),
        };
        Self { context: Arc::new(context), anywhere, stops: Mutex::default(), in_use: Mutex::default() }
    }

    /// Forgets what it has seen in the mailboxes: it may change before the next item comes.
    pub fn forget(&self) {
        self.stops.lock().clear();
    }

    /// Lets other restores into the mailboxes to which nothing was brought for a while. What is known of these is
    /// forgotten, as it may be otherwise afterwards.
    pub fn rest(&self) {
        let is_in_use = |stop: &Arc<Stop>| Arc::strong_count(stop) > 1 || stop.used.lock().elapsed() < LINGER;
        self.stops.lock().retain(|_, stop| is_in_use(stop));
    }

    fn stop(&self, user: &str) -> Result<Arc<Stop>, Refused> {
        let mut stops = self.stops.lock();
        if let Some(stop) = stops.get(user) {
            *stop.used.lock() = Instant::now();
            return Ok(stop.clone());
        }
        let context = self.context.clone();
        let lock = MailboxLock::try_take(&context.options.locks, context.client.tenant_id(), user);
        let lock = lock.map_err(|error| Refused::ForNow(chain(&error)))?;
        let Some(lock) = lock else {
            if self.in_use.lock().insert(user.to_owned()) {
                tracing::warn!(
                    user,
                    "another restore is at work in this mailbox; what was dropped goes on when it has ended"
                );
            }
            return Err(Refused::ForNow(IN_USE.to_owned()));
        };
        self.in_use.lock().remove(user);
        let name = context.journal_name(user);
        let journal = Journal::open(&context.options.journals, &name, context.keys.clone());
        let journal = Mutex::new(journal.map_err(|error| Refused::ForNow(chain(&error)))?);
        // Hidden folders count: a new one cannot have the name of one of them.
        let mailbox = Mailbox::new(context.client.clone(), user, true);
        let importer = Importer::new(mailbox.clone());
        let stop = Arc::new(Stop {
            _lock: lock,
            used: Mutex::new(Instant::now()),
            delivery: Delivery { context, mailbox, journal, importer },
            places: Semaphore::new(ITEMS_AT_ONCE),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            random: RandomState::new(),
            spots: tokio::sync::Mutex::default(),
            homes: tokio::sync::Mutex::default(),
            unmarked: Arc::default(),
        });
        stops.insert(user.to_owned(), stop.clone());
        Ok(stop)
    }

    /// Returns the id of the user whose mailbox the item at `path` of a snapshot came from.
    pub async fn owner(&self, snapshot: &Arc<(SnapshotId, Snapshot)>, path: &[u8]) -> Option<String> {
        let (reader, of, at) = (self.context.reader.clone(), snapshot.clone(), path.to_vec());
        blocking(move || route::owner(&reader, &of.1, &at)).await.ok()
    }

    /// Returns where the item at `path` of a snapshot came from. Its folder is made if it is gone.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn home(&self, snapshot: &Arc<(SnapshotId, Snapshot)>, path: &[u8]) -> Result<Home, Refused> {
        let (reader, of, at) = (self.context.reader.clone(), snapshot.clone(), path.to_vec());
        let owner = blocking(move || route::owner(&reader, &of.1, &at)).await.map_err(unreadable)?;
        let stop = self.stop(&owner)?;
        let folder_path = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |end| &path[..end]);
        let key = (snapshot.0, folder_path.to_vec());
        let mut homes = stop.homes.lock().await;
        if let Some(home) = homes.known.get(&key) {
            return Ok(home.clone());
        }
        let (reader, of, at) = (self.context.reader.clone(), snapshot.clone(), path.to_vec());
        let routes = blocking(move || route::routes(&reader, &of.1, &[at], &AccountTarget::Original)).await;
        let route = routes.map_err(unreadable)?.into_iter().next();
        let part = route.as_ref().and_then(|route| route.parts.first());
        let part = part.ok_or_else(|| Refused::ForGood("it came from no mailbox".to_owned()))?;
        let user = directory::user(&self.context.client, &owner).await?;
        let user = user.ok_or_else(|| Refused::ForGood("the organisation has no such user any more".to_owned()))?;
        let folders = homes.folders(&stop.delivery).await?;
        let mut place: Place = folders.root().await?;
        for folder in &part.above {
            place = folders.below(&place, folder, false).await?;
        }
        let folder = place.id.ok_or_else(|| Refused::ForGood("its folder could not be made".to_owned()))?;
        let home = Home { user: user.id, folder };
        homes.known.insert(key, home.clone());
        Ok(home)
    }

    /// Brings an item into a folder of the mailbox of `user`; both are ids. However often it is asked to, also after a
    /// crash, the item stands there once.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn bring(&self, user: &str, folder: &str, parcel: &Parcel) -> Result<Brought, Refused> {
        let stop = self.stop(user)?;
        let brought = self.bring_to(&stop, user, folder, parcel).await;
        if brought.is_err() {
            // What is believed of the mailbox may be wrong.
            stop.spots.lock().await.remove(folder);
            *stop.homes.lock().await = Homes::default();
        }
        brought
    }

    async fn bring_to(&self, stop: &Stop, user: &str, folder: &str, parcel: &Parcel) -> Result<Brought, Refused> {
        let _place = stop.places.acquire().await.expect("the semaphore is never closed");
        let entry = &parcel.entry;
        let mark = Mark::of(entry, &self.context.keys);
        // The same item, dropped twice at a time, is brought once and found there once.
        let turn = stop.random.hash_one(mark.text(true)) as usize % TURNS;
        let _turn = stop.turns[turn].lock().await;
        let spot = stop.spot(folder, entry).await?;
        let mut found = spot.there.lock().find(entry, &mark);
        if found != Found::Nothing {
            // Somebody may have deleted it since the folder was looked at.
            found = stop.find_now(folder, entry, &mark).await?;
        }
        if found == Found::Nothing && parcel.owner.as_deref() == Some(user) {
            found = stop.itself(entry, folder).await?;
        }
        if entry.stream().is_some() {
            stop.prepare_import().await?;
        }
        let _room = self.context.room(entry).await;
        let _at_hand = AtHand::new(&self.anywhere, parcel);
        let brought = match stop.delivery.deliver(entry, &spot, found).await? {
            Outcome::Restored => {
                spot.there.lock().restored(&mark);
                // The folder may have been listed anew meanwhile.
                if let Some(now) = stop.spots.lock().await.get(folder).filter(|now| !Arc::ptr_eq(&now.spot, &spot)) {
                    now.spot.there.lock().restored(&mark);
                }
                Brought::Restored
            }
            Outcome::AlreadyThere => Brought::AlreadyThere,
            Outcome::Skipped => Brought::LeftAsItIs,
        };
        Ok(brought)
    }

    /// Makes durable what is known of items on their way.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        let stops: Vec<_> = self.stops.lock().values().cloned().collect();
        stops.iter().try_for_each(|stop| stop.delivery.journal.lock().sync())
    }
}

fn unreadable(error: RestoreError) -> Refused {
    let reason = chain(&error);
    match error {
        RestoreError::Read(error) if !error.is_damage() => Refused::ForNow(reason),
        _ => Refused::ForGood(reason),
    }
}

impl Stop {
    /// Returns what stands in a folder, as far as it may be `entry`; some of it may be gone by now.
    async fn spot(&self, folder: &str, entry: &Entry) -> Result<Arc<Spot>, GraphError> {
        let listed = |seen: &Seen| seen.is_listed && seen.since.elapsed() < SPOT_FRESH;
        if let Some(seen) = self.spots.lock().await.get(folder).filter(|seen| listed(seen)) {
            return Ok(seen.spot.clone());
        }
        // Before the lock: for as long as a message without its mark is looked for, those who need not look are not
        // held up.
        let _nothing_arrives = self.unmarked.write().await;
        let mut spots = self.spots.lock().await;
        if spots.len() >= SPOTS_MAX && !spots.contains_key(folder) {
            spots.clear();
        }
        if spots.get(folder).is_some_and(|seen| seen.since.elapsed() >= SPOT_FRESH) {
            spots.remove(folder);
        }
        let there = || Mutex::new(There::new(self.random.clone(), &[]));
        let seen = spots.entry(folder.to_owned()).or_insert_with(|| Seen {
            since: Instant::now(),
            spot: Arc::new(Spot { folder: Some(folder.to_owned()), there: there(), asks: false }),
            asked: 0,
            is_listed: false,
        });
        let spot = seen.spot.clone();
        if seen.is_listed {
            return Ok(spot);
        }
        let each = |message| spot.there.lock().add(&message);
        let facts = &entry.facts;
        match seen.asked < ASKED_MAX {
            true => {
                let asked = self.delivery.mailbox.alike(folder, facts.message_id.as_deref(), facts.date, each);
                asked.await?;
                seen.asked += 1;
            }
            false => {
                self.delivery.mailbox.standing(folder, each).await?;
                seen.is_listed = true;
            }
        }
        Ok(spot.clone())
    }

    /// Returns what stands in the place of an item right now.
    async fn find_now(&self, folder: &str, entry: &Entry, mark: &Mark) -> Result<Found, GraphError> {
        let mut there = There::new(self.random.clone(), &[]);
        let facts = &entry.facts;
        let _nothing_arrives = self.unmarked.write().await;
        let each = |message| there.add(&message);
        self.delivery.mailbox.alike(folder, facts.message_id.as_deref(), facts.date, each).await?;
        Ok(there.find(entry, mark))
    }

    /// Says to the importer what it has to know of the mailbox.
    async fn prepare_import(&self) -> Result<(), GraphError> {
        let mut homes = self.homes.lock().await;
        let folders = homes.folders(&self.delivery).await?;
        self.delivery.importer.know(folders.well_known(), &self.unmarked);
        Ok(())
    }

    /// Looks whether the item itself stands in `folder`, where it came from.
    async fn itself(&self, entry: &Entry, folder: &str) -> Result<Found, GraphError> {
        let Some(id) = entry.facts.source_id.as_deref() else { return Ok(Found::Nothing) };
        let message = match self.delivery.mailbox.message(id).await {
            // An id of another organisation is none here.
            Err(error) if error.kind() == ErrorKind::BadRequest => None,
            message => message?,
        };
        Ok(match message.filter(|message| message.row.parent_folder_id.as_deref() == Some(folder)) {
            Some(message) if message.row.change_key == entry.facts.change_key => Found::Itself,
            Some(_) => Found::Changed,
            None => Found::Nothing,
        })
    }
}
