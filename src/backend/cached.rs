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
//! Several processes may share a folder. What was removed by another one may be seen for a while, as the contract allows.

mod disk;
mod pace;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError, bounded};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use self::disk::Disk;
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
/// Pieces kept in memory: those under way, and those that came last, which may be wanted before they are on the disk. 16 MiB.
const RECENT_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::new(64).expect("64 is not zero");
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
    disk: Disk,
    recent: Mutex<LruCache<PieceId, Arc<Slot>>>,
    /// How often something was removed or replaced. What was fetched before is not kept any more; who keeps something holds
    /// the lock, so that nothing is kept after its removal.
    removals: RwLock<u64>,
    pace: Mutex<Pace>,
    streams: Mutex<Streams>,
}

/// A piece of an object, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PieceId {
    name: ObjectName,
    number: u32,
}

/// Where the bytes of a piece appear; none if they could not be had.
type Slot = OnceLock<Option<Bytes>>;

/// The duty to fill a slot. Who drops it has given up.
struct Claim {
    shared: Arc<Shared>,
    id: PieceId,
    slot: Arc<Slot>,
}

impl Claim {
    fn fill(self, piece: Bytes) {
        let _ = self.slot.set(Some(piece));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.slot.set(None).is_ok() {
            // Who asks next begins anew.
            let mut recent = self.shared.recent.lock();
            if recent.peek(&self.id).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
                recent.pop(&self.id);
            }
        }
    }
}

impl Cached {
    /// Wraps `inner`. The folder is not looked at before something is read: one that cannot be used costs a warning, and time.
    pub fn new(inner: Arc<dyn Backend>, options: &CacheOptions) -> Self {
        Self::with_disk(inner, Disk::new(options.folder.clone(), options.bytes_max))
    }

    fn with_disk(inner: Arc<dyn Backend>, disk: Disk) -> Self {
        let shared = Shared {
            inner,
            disk,
            recent: Mutex::new(LruCache::new(RECENT_MAX)),
            removals: RwLock::default(),
            pace: Mutex::default(),
            streams: Mutex::default(),
        };
        Self { shared: Arc::new(shared), ahead: OnceLock::new() }
    }

    /// Has the pieces behind `range` fetched, if the pack is being read in order.
    fn fetch_ahead(&self, name: ObjectName, range: &Range<u64>) {
        let window = self.shared.pace.lock().window();
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
        let fetch = move || wanted.iter().for_each(|claims| shared.obtain(claims));
        thread::Builder::new().name(format!("fetch-ahead-{number}")).spawn(fetch).ok()?;
    }
    Some(jobs)
}

impl Shared {
    /// Returns where the pieces appear, and the duty to fetch those that nobody has or fetches.
    fn claim(self: &Arc<Self>, name: ObjectName, numbers: Range<u32>) -> (Vec<Arc<Slot>>, Vec<Claim>) {
        let mut claims = Vec::new();
        let mut recent = self.recent.lock();
        let slots = numbers.map(|number| {
            let id = PieceId { name, number };
            let slot = recent.get_or_insert(id, || {
                let slot = Arc::<Slot>::default();
                claims.push(Claim { shared: self.clone(), id, slot: slot.clone() });
                slot
            });
            slot.clone()
        });
        (slots.collect(), claims)
    }

    /// Fills the slots from the disk, and those that are not there from the backend.
    fn obtain(&self, claims: Vec<Claim>) {
        let mut requests: Vec<Vec<Claim>> = Vec::new();
        for claim in claims {
            if let Some(piece) = self.disk.load(&claim.id) {
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
        while let Some(last) = requests.pop() {
            let beside = requests.split_off(requests.len().saturating_sub(REQUESTS_MAX - 1));
            thread::scope(|scope| {
                for request in beside {
                    scope.spawn(|| self.fetch(request));
                }
                self.fetch(last);
            });
        }
    }

    /// Fetches pieces that lie behind one another with one request.
    fn fetch(&self, request: Vec<Claim>) {
        let (Some(first), Some(last)) = (request.first(), request.last()) else { return };
        let (name, first, end) = (first.id.name, first.id.number, last.id.number + 1);
        let range = start_of(first)..start_of(end);
        let removals = *self.removals.read();
        let begun = Instant::now();
        let bytes = match self.inner.load_up_to(name, range.clone()) {
            Ok(bytes) => Bytes::from(bytes),
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
        let mut pieces = Vec::with_capacity(request.len());
        for (claim, start) in request.into_iter().zip((0..).step_by(PIECE_LEN)) {
            if start < bytes.len() {
                let piece = bytes.slice(start..bytes.len().min(start + PIECE_LEN));
                pieces.push((claim.id, piece.clone()));
                claim.fill(piece);
            }
        }
        self.keep(removals, &pieces);
    }

    /// Writes the pieces to the disk, unless something was removed since `removals` was seen.
    fn keep(&self, removals: u64, pieces: &[(PieceId, Bytes)]) {
        let current = self.removals.read();
        if *current == removals {
            pieces.iter().for_each(|(id, piece)| self.disk.store(id, piece));
        }
    }

    /// Drops what is kept of an object that was removed or replaced.
    fn removed(&self, name: ObjectName) {
        if name.kind().is_content_addressed() {
            let mut removals = self.removals.write();
            *removals += 1;
            self.forget_recent(|id| id.name == name);
            self.disk.remove_object(name);
        }
    }

    fn forget_recent(&self, is_meant: impl Fn(&PieceId) -> bool) {
        let mut recent = self.recent.lock();
        let meant: Vec<_> = recent.iter().map(|(id, _)| *id).filter(is_meant).collect();
        meant.iter().for_each(|id| _ = recent.pop(id));
    }

    /// Drops the pieces that hold `range`.
    fn forget(&self, name: ObjectName, range: &Range<u64>) {
        if range.end.saturating_sub(range.start) > RANGE_LEN_MAX || range.end > start_of(u32::MAX) {
            self.forget_recent(|id| id.name == name);
            return self.disk.remove_object(name);
        }
        let numbers = numbers(range);
        self.forget_recent(|id| id.name == name && numbers.contains(&id.number));
        numbers.for_each(|number| self.disk.remove(&PieceId { name, number }));
    }

    /// Returns an object that is loaded whole, up to `len_max` bytes of it.
    fn load_whole(&self, name: ObjectName, len_max: u64) -> Result<Vec<u8>, BackendError> {
        if let Some(bytes) = self.whole_from_disk(name, len_max) {
            return Ok(bytes);
        }
        let removals = *self.removals.read();
        let bytes = self.inner.load_up_to(name, 0..len_max)?;
        if (bytes.len() as u64) < len_max && (bytes.len() as u64) <= RANGE_LEN_MAX {
            let all = Bytes::copy_from_slice(&bytes);
            // The last piece is a short one, and be it empty.
            let starts = (0..=all.len()).step_by(PIECE_LEN);
            let piece = |(number, start): (u32, usize)| {
                (PieceId { name, number }, all.slice(start..all.len().min(start + PIECE_LEN)))
            };
            self.keep(removals, &(0..).zip(starts).map(piece).collect::<Vec<_>>());
        }
        Ok(bytes)
    }

    fn whole_from_disk(&self, name: ObjectName, len_max: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for number in 0.. {
            let piece = self.disk.load(&PieceId { name, number })?;
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

/// Returns the bytes `range` of an object of which `slots` are the pieces that hold it, once they are there; none if they do not
/// hold all of it.
fn assemble(slots: &[Arc<Slot>], range: &Range<u64>) -> Option<Vec<u8>> {
    let len = (range.end - range.start) as usize;
    let mut bytes = Vec::with_capacity(len);
    let mut skip = (range.start % PIECE_LEN as u64) as usize;
    for slot in slots {
        let piece = slot.wait().as_ref()?;
        let part = piece.get(std::mem::take(&mut skip)..)?;
        bytes.extend_from_slice(&part[..part.len().min(len - bytes.len())]);
        if bytes.len() < len && piece.len() < PIECE_LEN {
            return None;
        }
    }
    Some(bytes)
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
        let (slots, claims) = self.shared.claim(name, numbers(&range));
        self.fetch_ahead(name, &range);
        self.shared.obtain(claims);
        match assemble(&slots, &range) {
            Some(bytes) => Ok(bytes),
            None => {
                // Pieces that are too short, or could not be had: the backend says what there is. If it has what was asked for,
                // the pieces are wrong.
                let loaded = self.shared.inner.load_range(name, range.clone());
                if loaded.is_ok() {
                    self.shared.forget(name, &range);
                }
                loaded
            }
        }
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
