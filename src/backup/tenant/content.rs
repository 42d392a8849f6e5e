//! The bytes of messages on their way from the network, which is async, to the splitters, which are threads.

use super::Context;
use crate::backup::splitter::{Split, SplitError, Splitter};
use crate::format::chunker::Chunker;
use crate::repository::Repository;
use crate::repository::store::{Store, StoreError};
use crate::runtime::{blocking, guarded};
use crate::source;
use crate::source::graph::expected::Seen;
use crate::source::graph::{Body, GraphError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

/// Messages up to this length wait in memory for their turn; longer ones stream.
pub const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// No message is longer than 250 MB: the service takes 150 MB (Exchange Online limits), and base64 adds a third.
const MESSAGE_BYTES_MAX: u64 = 250_000_000;
/// A message may be so many times as long as its listed size. Text as quoted-printable has three times its length, and
/// may come twice, as text and as HTML.
const LISTED_SIZE_FACTOR: u64 = 8;
/// A message may be so much longer beside that: its size may tell of a compressed body.
const LISTED_SIZE_SLACK: u64 = 4 << 20;
/// So many bytes of messages wait in memory in all.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Room for messages is given out in pieces of this size.
const ROOM_BYTES: u64 = 64 << 10;
/// So much room is taken at once, for messages that are downloaded together.
pub const ROOM_AT_ONCE_MAX: u32 = 256;
/// Pieces of a long message between the network and its splitter.
const PIECES_WAITING_MAX: usize = 16;

/// The splitters of a run, each for one thread at a time, and the room for what waits for them.
pub struct Splitters {
    idle: Mutex<Vec<Splitter>>,
    free: Arc<Semaphore>,
    room: Semaphore,
    /// Long messages are taken one at a time: taking one apart needs several times its length.
    long: Semaphore,
    /// So are messages that are built from their parts. They need requests while they have their turn, which those that
    /// stream do not: so it is a turn of its own, and nobody waits for somebody who waits for him.
    rebuilt: Semaphore,
}

impl Splitters {
    /// Makes one for each core.
    pub fn new(repository: &Repository, store: &Arc<Store>) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let chunker = Arc::new(Chunker::new(repository.config().chunker, repository.keys()));
        let idle =
            (0..count).map(|_| Splitter::new(store.clone(), repository.keys().clone(), chunker.clone())).collect();
        Self {
            idle: Mutex::new(idle),
            free: Arc::new(Semaphore::new(count)),
            room: Semaphore::new(WAITING_BYTES_MAX / ROOM_BYTES as usize),
            long: Semaphore::new(1),
            rebuilt: Semaphore::new(1),
        }
    }

    /// Waits for room for messages that are downloaded together. It is taken at once and for all of them: whoever has
    /// room waits for no more of it.
    pub async fn room(&self, pieces: u32) -> SemaphorePermit<'_> {
        self.room.acquire_many(pieces).await.expect("the semaphore is never closed")
    }

    /// Waits until no message is being built from its parts, and keeps others waiting as long as the permit lives.
    pub async fn one_rebuilt(&self) -> SemaphorePermit<'_> {
        self.rebuilt.acquire().await.expect("the semaphore is never closed")
    }

    /// Waits until no long message is being worked on, and keeps others waiting as long as the permit lives.
    pub async fn one_long(&self) -> SemaphorePermit<'_> {
        self.long.acquire().await.expect("the semaphore is never closed")
    }
}

/// Runs `work` on a thread with a splitter, and hands on what it has collected. Work on an item in it is [`guarded`],
/// or the splitter is lost.
pub async fn with_splitter<T: Send + 'static>(
    context: &Arc<Context>,
    work: impl FnOnce(&mut Splitter) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let splitters = &context.splitters;
    let permit = splitters.free.clone().acquire_owned().await.expect("the semaphore is never closed");
    let context = context.clone();
    blocking(move || {
        let mut splitter = context.splitters.idle.lock().pop().expect("a permit stands for a splitter");
        let done = work(&mut splitter).and_then(|done| splitter.flush().map(|()| done));
        context.splitters.idle.lock().push(splitter);
        drop(permit);
        done
    })
    .await
}

/// Returns how much room a message may take in memory, given the size that the store beneath gives.
pub fn room_of(size: Option<u64>) -> u32 {
    // Attachments travel as base64.
    let bytes = size.map_or(WHOLE_BYTES_MAX, |size| size.saturating_mul(4) / 3);
    (bytes.min(WHOLE_BYTES_MAX) / ROOM_BYTES + 1) as u32
}

/// Returns how long a message may be, given the size that the store beneath gives. What is longer has no end, or is
/// another.
pub fn len_max(size: Option<u64>) -> u64 {
    let told = size.map(|size| size.saturating_mul(LISTED_SIZE_FACTOR).saturating_add(LISTED_SIZE_SLACK));
    told.map_or(MESSAGE_BYTES_MAX, |told| told.min(MESSAGE_BYTES_MAX))
}

/// A message that was downloaded, or has begun to be, and what was noted of its bytes.
pub enum Download {
    /// All of it.
    Whole(Vec<Bytes>, Seen),
    /// The start of a long one, and what is still to come.
    Long(Vec<Bytes>, Box<Body>, Seen),
}

/// Reads a message whose answer has begun; of a long one only the start.
///
/// # Errors
/// See [`GraphError`]; nobody has asked for it again.
pub async fn download(mut body: Body) -> Result<Download, GraphError> {
    let mut start = Vec::new();
    let mut seen = Seen::default();
    while let Some(piece) = body.chunk().await? {
        seen.push(&piece);
        start.push(piece);
        if seen.len() > WHOLE_BYTES_MAX {
            return Ok(Download::Long(start, Box::new(body), seen));
        }
    }
    // The pieces are slices of whatever was read from the network at once; waiting, they would keep all of it alive.
    let whole = if seen.is_empty() { Vec::new() } else { vec![Bytes::from(start.concat())] };
    Ok(Download::Whole(whole, seen))
}

/// Splits a long message while it arrives, and notes in `seen` what comes. The caller has the turn for long ones, since
/// before the download began: a body that nobody reads for a while is cut off.
///
/// # Errors
/// The outer error ends the run; the inner is the message's own, and it may be tried again.
pub async fn split_long(
    context: &Arc<Context>,
    start: Vec<Bytes>,
    mut body: Box<Body>,
    seen: &mut Seen,
    size: Option<u64>,
) -> Result<Result<Split, GraphError>, StoreError> {
    let len = size.unwrap_or(0).max(start.iter().map(Bytes::len).sum::<usize>() as u64);
    let next = async || {
        let piece = body.chunk().await?;
        piece.iter().for_each(|piece| seen.push(piece));
        Ok(piece)
    };
    split_arriving(context, start, len, len_max(size), next, |splitter, message| splitter.split(message)).await
}

/// Splits what `next` brings, after `start`, while it arrives: about `len` bytes, and `len_max` at most.
///
/// # Errors
/// The outer error ends the run; the inner is that of `next`, or says that what came could not be taken.
pub async fn split_arriving<T: Send + 'static>(
    context: &Arc<Context>,
    start: Vec<Bytes>,
    len: u64,
    len_max: u64,
    mut next: impl AsyncFnMut() -> Result<Option<Bytes>, GraphError>,
    split: impl FnOnce(&mut Splitter, &dyn source::Content) -> Result<T, SplitError> + Send + 'static,
) -> Result<Result<T, GraphError>, StoreError> {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    let mut received = start.iter().map(|piece| piece.len() as u64).sum::<u64>();
    let arriving = Arriving { start: Mutex::new(start), rest: Mutex::new(receiver), len };
    let splitting = with_splitter(context, move |splitter| match guarded(|| split(splitter, &arriving)) {
        Ok(Ok(split)) => Ok(Ok(split)),
        Ok(Err(SplitError::Store(error))) => Err(error),
        Ok(Err(SplitError::Item(_))) => Ok(Err(GraphError::malformed("reading a message"))),
        Err(fault) => Ok(Err(GraphError::fault("reading a message", fault))),
    });
    let receiving = async {
        loop {
            match next().await {
                Ok(Some(piece)) => {
                    received += piece.len() as u64;
                    if received > len_max {
                        drop(sender);
                        return Err(GraphError::endless("reading a message", len_max));
                    }
                    if sender.send(Some(piece)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => {
                    // Only this tells a whole message from one that broke off.
                    let _ = sender.send(None).await;
                    return Ok(());
                }
                Err(error) => {
                    drop(sender);
                    return Err(error);
                }
            }
        }
    };
    let (split, received) = tokio::join!(splitting, receiving);
    let split = split?;
    Ok(match (received, split) {
        (Err(error), _) => Err(error),
        (Ok(()), split) => split,
    })
}

/// A long message on its way; it can be read once.
struct Arriving {
    start: Mutex<Vec<Bytes>>,
    /// Pieces, then `None`; a channel that ends without is a message that broke off.
    rest: Mutex<mpsc::Receiver<Option<Bytes>>>,
    len: u64,
}

impl source::Content for Arriving {
    fn len_hint(&self) -> u64 {
        self.len
    }

    fn is_mail(&self) -> bool {
        true
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let start = std::mem::take(&mut *self.start.lock());
        Ok(Box::new(ArrivingReader { pieces: start.into_iter(), piece: Bytes::new(), rest: &self.rest, ended: false }))
    }
}

struct ArrivingReader<'a> {
    pieces: std::vec::IntoIter<Bytes>,
    piece: Bytes,
    rest: &'a Mutex<mpsc::Receiver<Option<Bytes>>>,
    ended: bool,
}

impl Read for ArrivingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.ended {
                return Ok(0);
            }
            self.piece = match self.pieces.next() {
                Some(piece) => piece,
                None => match self.rest.lock().blocking_recv() {
                    Some(Some(piece)) => piece,
                    Some(None) => {
                        self.ended = true;
                        return Ok(0);
                    }
                    None => return Err(io::Error::other("the message broke off")),
                },
            };
        }
        let len = buffer.len().min(self.piece.len());
        buffer[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

/// A message that is all there.
pub struct Pieces(pub Vec<Bytes>);

impl source::Content for Pieces {
    fn len_hint(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    fn is_mail(&self) -> bool {
        true
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let mut reader: Box<dyn Read> = Box::new(io::empty());
        match self.0.as_slice() {
            [] => {}
            [only] => reader = Box::new(only.as_ref()),
            pieces => {
                let whole: Vec<u8> = pieces.concat();
                reader = Box::new(io::Cursor::new(whole));
            }
        }
        Ok(reader)
    }
}
