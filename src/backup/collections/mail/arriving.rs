//! The bytes of messages on their way from the network, which is async, to the splitters, which are threads.

use crate::backup::context::Ended;
use crate::backup::splitter::{Split, SplitError, Splitter};
use crate::backup::splitters::{self, Splitters, WHOLE_BYTES_MAX};
use crate::runtime::guarded;
use crate::source;
use crate::source::graph::expected::Seen;
use crate::source::graph::{Body, GraphError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;

/// No message is longer than 250 MB: the service takes 150 MB (Exchange Online limits), and base64 adds a third.
const MESSAGE_BYTES_MAX: u64 = 250_000_000;
/// A message may be so many times as long as its listed size. Text as quoted-printable has three times its length, and
/// may come twice, as text and as HTML.
const LISTED_SIZE_FACTOR: u64 = 8;
/// A message may be so much longer beside that: its size may tell of a compressed body.
const LISTED_SIZE_SLACK: u64 = 4 << 20;
/// Pieces of a long message between the network and its splitter.
const PIECES_WAITING_MAX: usize = 16;

/// Returns how much room a message may take in memory, given the size that the store beneath gives.
pub fn room_of(size: Option<u64>) -> u32 {
    // Attachments travel as base64.
    splitters::room_of(size.map(|size| size.saturating_mul(4) / 3))
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
/// [`Ended::Item`] when the message breaks off or is too long; it may be tried again.
pub async fn split_long(
    splitters: &Arc<Splitters>,
    start: Vec<Bytes>,
    mut body: Box<Body>,
    seen: &mut Seen,
    size: Option<u64>,
) -> Result<Split, Ended> {
    let len = size.unwrap_or(0).max(start.iter().map(Bytes::len).sum::<usize>() as u64);
    let next = async || {
        let piece = body.chunk().await?;
        piece.iter().for_each(|piece| seen.push(piece));
        Ok(piece)
    };
    let lengths = Lengths { about: len, max: len_max(size) };
    split_arriving(splitters, start, lengths, next, |splitter, message| splitter.split(message)).await
}

/// How long something may be that arrives.
pub struct Lengths {
    /// About how long it is.
    pub about: u64,
    /// What is longer has no end, or is something else.
    pub max: u64,
}

/// Splits what `next` brings, after `start`, while it arrives.
///
/// # Errors
/// [`Ended::Item`] with the error of `next`, or one that says that what came could not be taken.
pub async fn split_arriving<T: Send + 'static>(
    splitters: &Arc<Splitters>,
    start: Vec<Bytes>,
    lengths: Lengths,
    next: impl AsyncFnMut() -> Result<Option<Bytes>, GraphError>,
    split: impl FnOnce(&mut Splitter, &dyn source::Content) -> Result<T, SplitError> + Send + 'static,
) -> Result<T, Ended> {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    let received = start.iter().map(|piece| piece.len() as u64).sum::<u64>();
    let arriving = Arriving { start: Mutex::new(start), rest: Mutex::new(receiver), len: lengths.about };
    let splitting = splitters.run(move |splitter| match guarded(|| split(splitter, &arriving)) {
        Ok(Ok(split)) => Ok(Ok(split)),
        Ok(Err(SplitError::Store(error))) => Err(error),
        Ok(Err(SplitError::Item(_))) => Ok(Err(GraphError::malformed("reading a message"))),
        Err(fault) => Ok(Err(GraphError::fault("reading a message", fault))),
    });
    let (split, received) = tokio::join!(splitting, receive(sender, received, lengths.max, next));
    let split = split?;
    received.and(split).map_err(Ended::Item)
}

/// Hands on what `next` brings, until it ends or more than `max` bytes came.
async fn receive(
    sender: mpsc::Sender<Option<Bytes>>,
    mut received: u64,
    max: u64,
    mut next: impl AsyncFnMut() -> Result<Option<Bytes>, GraphError>,
) -> Result<(), GraphError> {
    loop {
        match next().await? {
            Some(piece) => {
                received += piece.len() as u64;
                if received > max {
                    return Err(GraphError::endless("reading a message", max));
                }
                if sender.send(Some(piece)).await.is_err() {
                    return Ok(());
                }
            }
            None => {
                // Only this tells a whole message from one that broke off.
                let _ = sender.send(None).await;
                return Ok(());
            }
        }
    }
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
