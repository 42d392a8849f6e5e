//! Keeps local copies of packs, snapshots and index objects of a distant backend, in a folder that may be deleted at
//! any time.
//!
//! [`Cached`] answers [`Backend::load_range`] of packs from pieces of [`PIECE_LEN`] bytes, each stored as a file
//! (`disk`). One reader fetches the missing pieces of a range; other readers who need the same pieces wait for that
//! fetch. A request fetches up to 4 neighbouring pieces, and up to 4 requests run at the same time. If a reader reads a
//! pack in order, the cache fetches the next pieces in the background: as many bytes as arrive during about two
//! requests (`pace`). Snapshots and index objects are also kept, whole, because every run reads them again.
//!
//! Invariants kept here:
//! - the cache holds the same encrypted bytes as the backend; no plaintext reaches the disk;
//! - a piece is returned only if its checksum proves that it is complete and the right one; a damaged piece is fetched
//!   again. If the bytes were already wrong when they arrived, the reader reports it ([`Backend::drop_local_copy`]), and the copy
//!   is dropped;
//! - the cache never hides the backend: if anything goes wrong with the cache, the backend is asked, and its answer
//!   counts.
//!
//! One thread (`keeper`) writes the pieces to the disk. While its queue is full, further pieces are not kept.
//!
//! Several processes may share a folder. A reader may still see an object for a while after another process removed it,
//! as the contract allows.

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

/// Length of a piece in bytes; only the last piece of a pack may be shorter. See docs/performance.md, "Repositories far
/// away", for why this size.
pub const PIECE_LEN: usize = 256 << 10;
/// Maximum number of pieces that one request fetches. More pieces need several requests, which run at the same time.
const REQUEST_PIECES_MAX: usize = 4;
/// Maximum number of concurrent requests for one waiting reader. All background fetching together may use the same
/// number.
const REQUESTS_MAX: usize = 4;
/// Maximum number of background requests that wait to be sent. While the queue is full, nothing more is fetched ahead.
const AHEAD_WAITING_MAX: usize = 16;
/// Number of most recently fetched pieces kept in memory (64 of 256 KiB, 16 MiB in all), as a reader may want a piece
/// before it is on the disk.
const RECENT_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");
/// Number of pieces being fetched at which fetching ahead stops. More would evict each other from memory before they
/// are read.
const UNDER_WAY_MAX: usize = RECENT_MAX.get() / 2;
/// Maximum time that dropping the cache waits for pending writes.
const LAST_WRITES_MAX: Duration = Duration::from_secs(5);
/// Maximum length in bytes of a range that is served from pieces. Readers never want more at once, but a damaged index
/// may ask for more.
const RANGE_LEN_MAX: u64 = 32 << 20;

/// The folder of a cache, and its maximum size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder. It is created when it is first needed.
    pub folder: PathBuf,
    /// Maximum number of bytes that the folder may hold.
    pub bytes_max: u64,
}

/// Wraps a distant backend, and keeps what was read from it in a local folder.
pub struct Cached {
    shared: Arc<Shared>,
    /// Queue of the threads that fetch ahead. They start with the first piece to fetch ahead, and end with the cache.
    ahead: OnceLock<Option<Sender<Vec<Claim>>>>,
}

struct Shared {
    inner: Arc<dyn Backend>,
    keeper: Keeper,
    pieces: Mutex<Pieces>,
    pace: Mutex<Pace>,
    streams: Mutex<Streams>,
    /// True once the cache was dropped. Pieces that wait to be fetched ahead are then skipped.
    is_over: AtomicBool,
}

/// The pieces in memory and those being fetched.
struct Pieces {
    /// Pieces that some thread is committed to fetch.
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

/// Identifies a piece of an object. Pieces are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PieceId {
    name: ObjectName,
    number: u32,
}

/// Receives the bytes of a piece; `None` if they could not be fetched.
type Slot = OnceLock<Option<Bytes>>;

/// A piece that a reader needs.
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

/// The duty to fill a slot. Dropping the claim unfilled sets the slot to `None`.
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
        // Unless the piece was forgotten in the meantime; another claim may be fetching it again.
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
    /// Wraps `inner`. The folder is first touched when something is read. An unusable folder causes one warning, and
    /// every read goes to the backend.
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

    /// Starts to fetch the pieces after `range` in the background, if the pack is being read in order.
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

/// Starts the threads that fetch ahead. If they cannot be started, nothing is fetched ahead, and everything else still
/// works.
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
    /// Returns the pieces, and a claim for each piece that is neither in memory nor being fetched.
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

    /// Fills the slots from the disk, and fetches those not on the disk from the backend with up to `requests_max`
    /// concurrent requests.
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
                // If no further thread can be started, the threads that exist send all requests.
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
    }

    /// Fetches consecutive pieces with one request.
    fn fetch(&self, request: Vec<Claim>) {
        let (Some(first), Some(last)) = (request.first(), request.last()) else { return };
        let (name, first, end) = (first.id.name, first.id.number, last.id.number + 1);
        let range = start_of(first)..start_of(end);
        let removals = self.keeper.disk().removals();
        let begun = Instant::now();
        let bytes = match self.inner.load_up_to(name, range.clone()) {
            Ok(bytes) => bytes,
            Err(error) => {
                // The readers that wait for these pieces then ask the backend themselves and handle its error.
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
            // Copy the bytes, so that a piece in memory does not keep the buffer of the whole request alive.
            let (id, piece) = (claim.id, Bytes::copy_from_slice(bytes));
            claim.fill(piece.clone());
            self.keeper.keep(id, piece, removals);
        }
    }

    /// Drops all pieces of an object that was removed or replaced.
    fn removed(&self, name: ObjectName) {
        if name.kind().is_content_addressed() {
            self.forget(name, &(0..u64::MAX));
        }
    }

    /// Drops the pieces that hold `range`.
    fn forget(&self, name: ObjectName, range: &Range<u64>) {
        // Clear the disk first: another thread may just have loaded a piece from there into memory.
        if range.end.saturating_sub(range.start) > RANGE_LEN_MAX || range.end > start_of(u32::MAX) {
            self.keeper.disk().remove_object(name);
            self.pieces.lock().forget(|id| id.name == name);
        } else {
            let numbers = numbers(range);
            self.keeper.disk().remove(name, numbers.clone());
            self.pieces.lock().forget(|id| id.name == name && numbers.contains(&id.number));
        }
    }

    /// Returns the first `len_max` bytes of an object, or all of it if it is shorter. Keeps the object if it is
    /// complete and at most [`RANGE_LEN_MAX`] bytes long.
    fn load_whole(&self, name: ObjectName, len_max: u64) -> Result<Vec<u8>, BackendError> {
        if let Some(bytes) = self.whole_from_disk(name, len_max) {
            return Ok(bytes);
        }
        let removals = self.keeper.disk().removals();
        let bytes = self.inner.load_up_to(name, 0..len_max)?;
        if (bytes.len() as u64) < len_max && (bytes.len() as u64) <= RANGE_LEN_MAX {
            // The last piece is always shorter than the others, even if it is empty. So a reader knows where the object
            // ends.
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

/// Why the pieces do not cover the requested range.
#[derive(Debug, PartialEq)]
enum Incomplete {
    /// A piece could not be fetched.
    Piece,
    /// A piece ends before the range does.
    Bytes,
}

/// Waits for the pieces, and returns the bytes `range` of the object. `pieces` are the pieces that contain the range.
fn assemble(pieces: &[Wanted], range: &Range<u64>) -> Result<Vec<u8>, Incomplete> {
    let len = (range.end - range.start) as usize;
    let mut bytes = Vec::with_capacity(len);
    let mut skip = (range.start % PIECE_LEN as u64) as usize;
    for piece in pieces {
        let piece = piece.wait().ok_or(Incomplete::Piece)?;
        let part = piece.get(std::mem::take(&mut skip)..).ok_or(Incomplete::Bytes)?;
        bytes.extend_from_slice(&part[..part.len().min(len - bytes.len())]);
        if bytes.len() < len && piece.len() < PIECE_LEN {
            return Err(Incomplete::Bytes);
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
        // Only the backend can say whether an empty range lies inside the pack.
        let in_pieces =
            name.kind() == ObjectKind::Pack && (1..=RANGE_LEN_MAX).contains(&len) && range.end <= start_of(u32::MAX);
        if !in_pieces {
            return self.shared.inner.load_range(name, range);
        }
        let (pieces, claims) = self.shared.claim(name, numbers(&range));
        self.fetch_ahead(name, &range);
        self.shared.obtain(claims, REQUESTS_MAX);
        assemble(&pieces, &range).or_else(|incomplete| {
            // The backend decides. If it has the bytes, then pieces that ended too early are wrong.
            let loaded = self.shared.inner.load_range(name, range.clone())?;
            if incomplete == Incomplete::Bytes {
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
            // Packs are read whole only once, and would evict everything else.
            _ => self.shared.inner.load_up_to(name, range),
        }
    }

    fn drop_local_copy(&self, name: ObjectName, range: Range<u64>) -> bool {
        self.shared.forget(name, &range);
        self.shared.inner.drop_local_copy(name, range);
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
