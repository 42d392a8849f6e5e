//! A copy nearby of what lies far away: packs in pieces, in a folder that may be deleted at any time.
//!
//! [`Cached`] serves [`Backend::load_range`] of packs from pieces of [`PIECE_LEN`] bytes, each a file (`disk`). Pieces that are
//! missing are fetched with one request, with several at a time where many are, and by one of those who want them; the
//! others wait for it. Who reads a pack in order has the pieces behind fetched meanwhile, so many as arrive in the time that a request
//! takes (`pace`). Snapshots and index objects are kept as well, whole, as each run reads them again.
//!
//! Invariants kept here:
//! - what is kept is what the backend stores, encrypted; nothing in clear reaches the disk;
//! - a piece is given out only if it is the piece it is called by, and whole: what rotted is fetched anew. Bytes that were
//!   wrong before they came here are dropped when their reader says so ([`Backend::doubt`]);
//! - the cache never stands between a reader and the backend: whatever goes wrong with it, the backend is asked, and what it
//!   says is the answer.
//!
//! What is kept is written by a thread of its own (`keeper`), and what finds it busy is not kept.
//!
//! Several processes may share a folder. What was removed by another one may be seen for a while, as the contract allows.

mod disk;
mod keeper;
mod pace;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError, bounded};
use lru::LruCache;
use parking_lot::Mutex;

use self::keeper::Keeper;
use self::pace::{Pace, Streams};
use super::{Backend, BackendError, ObjectKind, ObjectName};

/// The bytes of a piece, but for the last of a pack, which may be shorter: docs/performance.md, "Repositories far away".
pub const PIECE_LEN: usize = 256 << 10;
/// The most pieces that one request fetches; more are fetched by several at a time.
const REQUEST_PIECES_MAX: usize = 4;
/// Requests at a time for one reader who waits, and as many for everything that is fetched ahead.
const REQUESTS_MAX: usize = 4;
/// Requests that wait to be sent for what is fetched ahead. What finds them all taken is not fetched ahead.
const AHEAD_WAITING_MAX: usize = 16;
/// Pieces kept in memory, those that came last: they may be wanted before they are on the disk. 16 MiB.
const RECENT_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");
/// Pieces under way from which on no others are fetched ahead: they would drive each other out before they are read.
const UNDER_WAY_MAX: usize = RECENT_MAX.get() / 2;
/// How long the end of a cache waits for what is being written.
const LAST_WRITES_MAX: Duration = Duration::from_secs(5);
/// No reader wants more at once; a range that a damaged index gives may be longer.
const RANGE_LEN_MAX: u64 = 32 << 20;

/// Where a cache lies, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder; it is made when it is needed.
    pub folder: PathBuf,
    /// The most bytes that lie in it.
    pub bytes_max: u64,
}

/// Wraps a backend that is far away, and keeps what was read of it in a folder nearby.
pub struct Cached {
    shared: Arc<Shared>,
    /// Runs from the first piece that is fetched ahead; its threads end with the cache.
    ahead: OnceLock<Option<Sender<Vec<Claim>>>>,
}

struct Shared {
    inner: Arc<dyn Backend>,
    keeper: Keeper,
    pieces: Mutex<Pieces>,
    pace: Mutex<Pace>,
    streams: Mutex<Streams>,
    /// The cache is gone, and nobody waits for what would be fetched ahead.
    is_over: AtomicBool,
}

/// The pieces in memory.
struct Pieces {
    /// Those that somebody has the duty to fetch.
    under_way: HashMap<PieceId, Arc<Slot>>,
    recent: LruCache<PieceId, Bytes>,
}

impl Pieces {
    fn forget(&mut self, is_meant: impl Fn(&PieceId) -> bool) {
        self.under_way.retain(|id, _| !is_meant(id));
        let meant: Vec<_> = self.recent.iter().map(|(id, _)| *id).filter(is_meant).collect();
        meant.iter().for_each(|id| _ = self.recent.pop(id));
    }
}

/// A piece of an object, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PieceId {
    name: ObjectName,
    number: u32,
}

/// Where the bytes of a piece appear; none if they could not be had.
type Slot = OnceLock<Option<Bytes>>;

/// A piece that somebody wants.
enum Wanted {
    Here(Bytes),
    Coming(Arc<Slot>),
}

impl Wanted {
    fn wait(&self) -> Option<&Bytes> {
        match self {
            Wanted::Here(piece) => Some(piece),
            Wanted::Coming(slot) => slot.wait().as_ref(),
        }
    }
}

/// The duty to fill a slot. Who drops it has given up.
struct Claim {
    shared: Arc<Shared>,
    id: PieceId,
    slot: Arc<Slot>,
}

impl Claim {
    fn fill(self, piece: Bytes) {
        self.settle(Some(piece));
    }

    fn settle(&self, piece: Option<Bytes>) {
        let mut pieces = self.shared.pieces.lock();
        // Unless it was forgotten meanwhile, and perhaps is fetched anew.
        if pieces.under_way.get(&self.id).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
            pieces.under_way.remove(&self.id);
            if let Some(piece) = &piece {
                pieces.recent.put(self.id, piece.clone());
            }
        }
        drop(pieces);
        let _ = self.slot.set(piece);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.slot.get().is_none() {
            self.settle(None);
        }
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.keeper.settle(LAST_WRITES_MAX);
    }
}

impl Cached {
    /// Wraps `inner`. The folder is not looked at before something is read: one that cannot be used costs a warning, and time.
    pub fn new(inner: Arc<dyn Backend>, options: &CacheOptions) -> Self {
        Self::with_keeper(inner, Keeper::new(options.folder.clone(), options.bytes_max, keeper::PAUSE))
    }

    fn with_keeper(inner: Arc<dyn Backend>, keeper: Keeper) -> Self {
        let pieces = Pieces { under_way: HashMap::new(), recent: LruCache::new(RECENT_MAX) };
        let shared = Shared {
            inner,
            keeper,
            pieces: Mutex::new(pieces),
            pace: Mutex::default(),
            streams: Mutex::default(),
            is_over: AtomicBool::default(),
        };
        Self { shared: Arc::new(shared), ahead: OnceLock::new() }
    }

    /// Has the pieces behind `range` fetched, if the pack is being read in order.
    fn fetch_ahead(&self, name: ObjectName, range: &Range<u64>) {
        let has_room = self.shared.pieces.lock().under_way.len() < UNDER_WAY_MAX;
        let window = if has_room { self.shared.pace.lock().window() } else { 0 };
        let ahead = self.shared.streams.lock().step(name, range, window);
        if ahead.is_empty() {
            return;
        }
        let Some(jobs) = self.ahead.get_or_init(|| start_fetching(&self.shared)) else { return };
        let (_, mut claims) = self.shared.claim(name, numbers(&ahead));
        while !claims.is_empty() {
            let rest = claims.split_off(claims.len().min(REQUEST_PIECES_MAX));
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = jobs.try_send(claims) {
                return;
            }
            claims = rest;
        }
    }
}

/// Starts the threads that fetch ahead. Without them nothing is, and nothing else is lost.
fn start_fetching(shared: &Arc<Shared>) -> Option<Sender<Vec<Claim>>> {
    let (jobs, wanted) = bounded::<Vec<Claim>>(AHEAD_WAITING_MAX);
    for number in 0..REQUESTS_MAX {
        let (shared, wanted) = (shared.clone(), wanted.clone());
        let fetch = move || {
            for claims in wanted {
                if !shared.is_over.load(Ordering::Relaxed) {
                    shared.obtain(claims, 1);
                }
            }
        };
        thread::Builder::new().name(format!("fetch-ahead-{number}")).spawn(fetch).ok()?;
    }
    Some(jobs)
}

impl Shared {
    /// Returns the pieces, and the duty to fetch those that nobody has or fetches.
    fn claim(self: &Arc<Self>, name: ObjectName, numbers: Range<u32>) -> (Vec<Wanted>, Vec<Claim>) {
        let mut claims = Vec::new();
        let mut pieces = self.pieces.lock();
        let pieces = &mut *pieces;
        let wanted = numbers.map(|number| {
            let id = PieceId { name, number };
            if let Some(piece) = pieces.recent.get(&id) {
                return Wanted::Here(piece.clone());
            }
            let slot = pieces.under_way.entry(id).or_insert_with(|| {
                let slot = Arc::<Slot>::default();
                claims.push(Claim { shared: self.clone(), id, slot: slot.clone() });
                slot
            });
            Wanted::Coming(slot.clone())
        });
        (wanted.collect(), claims)
    }

    /// Fills the slots from the disk, and those that are not there from the backend, with so many requests at a time.
    fn obtain(&self, claims: Vec<Claim>, requests_max: usize) {
        let mut requests: Vec<Vec<Claim>> = Vec::new();
        for claim in claims {
            if let Some(piece) = self.keeper.disk().load(&claim.id) {
                claim.fill(piece);
                continue;
            }
            match requests.last_mut() {
                Some(request)
                    if request.len() < REQUEST_PIECES_MAX
                        && request.last().is_some_and(|last| last.id.number + 1 == claim.id.number) =>
                {
                    request.push(claim);
                }
                _ => requests.push(vec![claim]),
            }
        }
        let beside = requests.len().min(requests_max);
        let requests = Mutex::new(requests.into_iter());
        let next = || requests.lock().next();
        let work = || {
            while let Some(request) = next() {
                self.fetch(request);
            }
        };
        thread::scope(|scope| {
            for _ in 1..beside {
                // Where no thread can be had this one sends them all.
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
    }

    /// Fetches pieces that lie behind one another with one request.
    fn fetch(&self, request: Vec<Claim>) {
        let (Some(first), Some(last)) = (request.first(), request.last()) else { return };
        let (name, first, end) = (first.id.name, first.id.number, last.id.number + 1);
        let range = start_of(first)..start_of(end);
        let removals = self.keeper.disk().removals();
        let begun = Instant::now();
        let bytes = match self.inner.load_up_to(name, range.clone()) {
            Ok(bytes) => bytes,
            Err(error) => {
                // Those who wait for the pieces ask for what they want themselves, and can do something about the error.
                tracing::debug!(object = %name, ?range, %error, "fetching pieces failed");
                if let BackendError::Short { .. } = error {
                    self.streams.lock().end(name);
                }
                return;
            }
        };
        self.pace.lock().record(bytes.len(), begun.elapsed());
        if (bytes.len() as u64) < range.end - range.start {
            self.streams.lock().end(name);
        }
        for (claim, bytes) in request.into_iter().zip(bytes.chunks(PIECE_LEN)) {
            // Copied, so that a piece in memory is not as large as the request it came with.
            let (id, piece) = (claim.id, Bytes::copy_from_slice(bytes));
            claim.fill(piece.clone());
            self.keeper.keep(id, piece, removals);
        }
    }

    /// Drops what is kept of an object that was removed or replaced.
    fn removed(&self, name: ObjectName) {
        if name.kind().is_content_addressed() {
            self.forget(name, &(0..u64::MAX));
        }
    }

    /// Drops the pieces that hold `range`.
    fn forget(&self, name: ObjectName, range: &Range<u64>) {
        // From the disk first: what was loaded from there a moment ago is in memory then.
        if range.end.saturating_sub(range.start) > RANGE_LEN_MAX || range.end > start_of(u32::MAX) {
            self.keeper.disk().remove_object(name);
            self.pieces.lock().forget(|id| id.name == name);
        } else {
            let numbers = numbers(range);
            self.keeper.disk().remove(name, numbers.clone());
            self.pieces.lock().forget(|id| id.name == name && numbers.contains(&id.number));
        }
    }

    /// Returns an object that is loaded whole, up to `len_max` bytes of it.
    fn load_whole(&self, name: ObjectName, len_max: u64) -> Result<Vec<u8>, BackendError> {
        if let Some(bytes) = self.whole_from_disk(name, len_max) {
            return Ok(bytes);
        }
        let removals = self.keeper.disk().removals();
        let bytes = self.inner.load_up_to(name, 0..len_max)?;
        if (bytes.len() as u64) < len_max && (bytes.len() as u64) <= RANGE_LEN_MAX {
            // The last piece is a short one, and be it empty.
            let starts = (0..=bytes.len()).step_by(PIECE_LEN);
            for (number, start) in (0..).zip(starts) {
                let piece = &bytes[start..bytes.len().min(start + PIECE_LEN)];
                self.keeper.keep(PieceId { name, number }, Bytes::copy_from_slice(piece), removals);
            }
        }
        Ok(bytes)
    }

    fn whole_from_disk(&self, name: ObjectName, len_max: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for number in 0.. {
            let piece = self.keeper.disk().load(&PieceId { name, number })?;
            bytes.extend_from_slice(&piece);
            if piece.len() < PIECE_LEN || bytes.len() as u64 >= len_max {
                break;
            }
        }
        bytes.truncate(usize::try_from(len_max).unwrap_or(usize::MAX));
        Some(bytes)
    }
}

/// Returns the numbers of the pieces that hold `range`.
fn numbers(range: &Range<u64>) -> Range<u32> {
    let number = |at: u64| u32::try_from(at).expect("ranges end within the pieces that have a number");
    number(range.start / PIECE_LEN as u64)..number(range.end.div_ceil(PIECE_LEN as u64))
}

fn start_of(number: u32) -> u64 {
    u64::from(number) * PIECE_LEN as u64
}

/// Why pieces do not hold what is wanted.
#[derive(Debug, PartialEq)]
enum Lacking {
    /// One could not be had.
    Piece,
    /// One ends before it should.
    Bytes,
}

/// Returns the bytes `range` of an object of which `pieces` hold it, once they are there.
fn assemble(pieces: &[Wanted], range: &Range<u64>) -> Result<Vec<u8>, Lacking> {
    let len = (range.end - range.start) as usize;
    let mut bytes = Vec::with_capacity(len);
    let mut skip = (range.start % PIECE_LEN as u64) as usize;
    for piece in pieces {
        let piece = piece.wait().ok_or(Lacking::Piece)?;
        let part = piece.get(std::mem::take(&mut skip)..).ok_or(Lacking::Bytes)?;
        bytes.extend_from_slice(&part[..part.len().min(len - bytes.len())]);
        if bytes.len() < len && piece.len() < PIECE_LEN {
            return Err(Lacking::Bytes);
        }
    }
    Ok(bytes)
}

impl Backend for Cached {
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        let saved = self.shared.inner.save(name, data);
        self.shared.removed(name);
        saved
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        self.shared.inner.load(name)
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let len = range.end.saturating_sub(range.start);
        // Whether an empty range lies inside of the pack, the backend knows.
        let in_pieces =
            name.kind() == ObjectKind::Pack && (1..=RANGE_LEN_MAX).contains(&len) && range.end <= start_of(u32::MAX);
        if !in_pieces {
            return self.shared.inner.load_range(name, range);
        }
        let (pieces, claims) = self.shared.claim(name, numbers(&range));
        self.fetch_ahead(name, &range);
        self.shared.obtain(claims, REQUESTS_MAX);
        assemble(&pieces, &range).or_else(|lacking| {
            // The backend says what there is. If it has what was asked for, pieces that are too short are wrong.
            let loaded = self.shared.inner.load_range(name, range.clone())?;
            if lacking == Lacking::Bytes {
                self.shared.forget(name, &range);
            }
            Ok(loaded)
        })
    }

    fn load_up_to(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        match name.kind() {
            ObjectKind::Snapshot | ObjectKind::Index if range.start == 0 && range.end > 0 => {
                self.shared.load_whole(name, range.end)
            }
            // Packs that are read whole are read once, and would drive out everything else.
            _ => self.shared.inner.load_up_to(name, range),
        }
    }

    fn doubt(&self, name: ObjectName, range: Range<u64>) -> bool {
        self.shared.forget(name, &range);
        self.shared.inner.doubt(name, range);
        true
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        self.shared.inner.list(kind, each)
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        self.shared.inner.size(name)
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        let removed = self.shared.inner.remove(name);
        self.shared.removed(name);
        removed
    }

    fn describe(&self) -> String {
        self.shared.inner.describe()
    }
}

#[cfg(test)]
mod tests;
