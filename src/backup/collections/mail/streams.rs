//! The streams as which the service exports messages whole ([`crate::source::graph::exchange`]), kept beside their
//! bytes where a set asks for full fidelity.
//!
//! A stream belongs to one version of a message: it is kept only if the version that was exported is the one that was
//! told of, and never outlives it. It is no part of what makes a message safe: what cannot be exported is stored
//! without its stream, counted, and asked for again by later runs.

use super::arriving::{Lengths, len_max, split_arriving};
use crate::backup::context::{Context, Ended, ends_the_run};
use crate::backup::splitters::WHOLE_BYTES_MAX;
use crate::format::entry::Content;
use crate::source::graph::exchange::{EXPORT_ITEMS_MAX, Exchange, Exported, is_unavailable};
use crate::source::graph::expected::{Expected, Seen, Verdict};
use crate::source::graph::mail::Mailbox;
use crate::source::graph::throttle::MAILBOX_CONCURRENCY_MAX;
use crate::source::graph::{ErrorKind, GraphError};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::OnceCell;

/// Maximum number of unchanged messages of a folder that get a stream in one run.
pub const BACKFILLED_MAX: usize = 10_000;
/// Maximum number of bytes of messages in one request.
const BATCH_BYTES_MAX: u64 = 6 << 20;
/// An export that breaks off is asked for again, so often in all; each time the client tries several times itself.
const ATTEMPTS_MAX: usize = 3;

/// A message whose stream is wanted.
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// Its version.
    pub change_key: Option<String>,
    /// About how long it is.
    pub size: Option<u64>,
}

impl Wanted {
    fn len(&self) -> u64 {
        self.size.unwrap_or(WHOLE_BYTES_MAX)
    }
}

/// A stream that was exported.
pub enum Stream {
    /// All of it.
    Bytes(Bytes),
    /// A long one, which was stored while it arrived.
    Stored(Content),
}

/// What exports the messages of one mailbox.
#[derive(Default)]
pub struct Exports {
    exchange: OnceCell<Option<Exchange>>,
    closed: AtomicBool,
    /// Why a message has no stream: the first reason.
    why_not: Mutex<Option<String>>,
}

/// A message that is asked for: under this id, not its immutable one.
type Asked<'a> = (&'a Wanted, &'a str);

impl Exports {
    /// Returns the mailbox as the export knows it, if it does.
    ///
    /// # Errors
    /// What ends the run.
    pub async fn open(&self, mailbox: &Mailbox) -> Result<Option<&Exchange>, Ended> {
        let opening = async || match mailbox.exchange().await {
            Ok(exchange) => Ok(Some(exchange)),
            Err(error) => self.note_error(error).map(|()| {
                self.closed.store(true, Ordering::Relaxed);
                None
            }),
        };
        let exchange = self.exchange.get_or_try_init(opening).await?;
        Ok(exchange.as_ref().filter(|_| !self.are_closed()))
    }

    /// Returns whether nothing more can be exported in this run.
    pub fn are_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Returns why the first message without a stream has none.
    pub fn why_not(&self) -> Option<String> {
        self.why_not.lock().clone()
    }

    fn note(&self, why: impl FnOnce() -> String) {
        self.why_not.lock().get_or_insert_with(why);
    }

    /// Notes an error, unless it ends the run.
    fn note_error(&self, error: GraphError) -> Result<(), Ended> {
        if ends_the_run(&error) {
            return Err(error.into());
        }
        tracing::debug!(%error, "messages are kept without their streams");
        self.note(|| error.to_string());
        if is_unavailable(&error) || error.kind() == ErrorKind::Throttled {
            self.closed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Exports messages; what comes back is the streams of those that could be had in the version that is wanted.
    ///
    /// # Errors
    /// What ends the run.
    pub async fn fetch(
        &self,
        context: &Arc<Context>,
        mailbox: &Mailbox,
        wanted: impl Iterator<Item = Wanted>,
    ) -> Result<HashMap<String, Stream>, Ended> {
        let wanted: Vec<_> = wanted.collect();
        let mut streams = HashMap::new();
        if wanted.is_empty() {
            return Ok(streams);
        }
        let Some(exchange) = self.open(mailbox).await? else { return Ok(streams) };
        let Some(ids) = self.ids(exchange, &wanted).await? else { return Ok(streams) };
        let asked = wanted.iter().filter_map(|wanted| match ids.get(&wanted.id) {
            Some(id) => Some((wanted, id.as_str())),
            None => {
                self.note(|| "the service does not know its id".to_owned());
                None
            }
        });
        let (long, short): (Vec<Asked>, Vec<Asked>) = asked.partition(|(wanted, _)| wanted.len() > WHOLE_BYTES_MAX);
        let exporting = batches(short).into_iter().map(|batch| self.export(context, exchange, batch));
        let mut exporting =
            std::pin::pin!(futures_util::stream::iter(exporting).buffer_unordered(MAILBOX_CONCURRENCY_MAX));
        while let Some(exported) = exporting.next().await {
            streams.extend(exported?);
        }
        for asked in long {
            streams.extend(self.export_long(context, exchange, asked).await?);
        }
        Ok(streams)
    }

    /// Returns by which ids messages are asked for: those that other programs use, which is all that is documented; or
    /// where nobody translates them, their immutable ones.
    async fn ids(&self, exchange: &Exchange, wanted: &[Wanted]) -> Result<Option<HashMap<String, String>>, Ended> {
        let immutable = || wanted.iter().map(|wanted| wanted.id.as_str());
        match exchange.ids_of(&immutable().collect::<Vec<_>>()).await {
            Ok(ids) => Ok(Some(ids)),
            Err(error) if is_unavailable(&error) => {
                Ok(Some(immutable().map(|id| (id.to_owned(), id.to_owned())).collect()))
            }
            Err(error) => self.note_error(error).map(|()| None),
        }
    }

    /// Exports some messages at once, or each by itself where that does not work.
    async fn export(
        &self,
        context: &Arc<Context>,
        exchange: &Exchange,
        batch: Vec<Asked<'_>>,
    ) -> Result<Vec<(String, Stream)>, Ended> {
        let ids: Vec<_> = batch.iter().map(|(_, id)| *id).collect();
        let size = batch.iter().map(|(wanted, _)| wanted.len()).sum();
        let mut attempt = 1;
        let error = loop {
            if self.are_closed() {
                return Ok(Vec::new());
            }
            context.check()?;
            match exchange.export(&ids, size).await {
                Ok(exported) => {
                    let (mut streams, odd) = self.accept(&batch, exported);
                    for asked in odd {
                        streams.extend(self.export_long(context, exchange, asked).await?);
                    }
                    return Ok(streams);
                }
                Err(error) if !may_pass(&error) || attempt == ATTEMPTS_MAX => break error,
                Err(_) => attempt += 1,
            }
        };
        if batch.len() > 1 && (may_pass(&error) || error.kind() == ErrorKind::TooLarge) {
            let mut streams = Vec::new();
            for asked in batch {
                streams.extend(self.export_long(context, exchange, asked).await?);
            }
            return Ok(streams);
        }
        self.note_error(error).map(|()| Vec::new())
    }

    /// Takes the streams that can be those of the messages, and returns the messages whose streams are odd.
    fn accept<'a>(&self, batch: &[Asked<'a>], exported: Vec<Exported>) -> (Vec<(String, Stream)>, Vec<Asked<'a>>) {
        let (mut streams, mut odd) = (Vec::new(), Vec::new());
        for (wanted, id) in batch {
            let row = exported.iter().find(|row| row.id == *id);
            match row.map(|row| (&row.stream, is_version(wanted, row.change_key.as_deref()))) {
                Some((Ok(stream), true)) if Expected::stream().judge(&Seen::of(stream)) != Verdict::Right => {
                    odd.push((*wanted, *id));
                }
                Some((Ok(stream), true)) => streams.push((wanted.id.clone(), Stream::Bytes(stream.clone()))),
                Some((Ok(_), false)) => self.note(|| "it changed while it was exported".to_owned()),
                Some((Err(why), _)) => self.note(|| why.clone()),
                None => self.note(|| "the service passed it over".to_owned()),
            }
        }
        (streams, odd)
    }

    /// Exports one message, and stores its stream while it arrives.
    async fn export_long(
        &self,
        context: &Arc<Context>,
        exchange: &Exchange,
        (wanted, id): Asked<'_>,
    ) -> Result<Option<(String, Stream)>, Ended> {
        let _turn = context.splitters.one_long().await;
        let mut expected = Expected::stream();
        let mut attempt = 1;
        loop {
            if self.are_closed() {
                return Ok(None);
            }
            context.check()?;
            let mut seen = Seen::default();
            let error = match stream_one(context, exchange, wanted, id, &mut seen).await {
                Ok(Export::Stream { version, content }) if is_version(wanted, version.as_deref()) => {
                    match expected.accept(&seen) {
                        Ok(()) => return Ok(Some((wanted.id.clone(), Stream::Stored(content)))),
                        Err(why) => GraphError::malformed("exporting messages").explained(why.to_owned()),
                    }
                }
                Ok(Export::Stream { .. }) => {
                    self.note(|| "it changed while it was exported".to_owned());
                    return Ok(None);
                }
                Ok(Export::Refused(why)) => {
                    self.note(|| why);
                    return Ok(None);
                }
                Err(Ended::Item(error)) => error,
                Err(ended) => return Err(ended),
            };
            if !may_pass(&error) || attempt == ATTEMPTS_MAX {
                return self.note_error(error).map(|()| None);
            }
            attempt += 1;
        }
    }
}

/// What exporting one message came to.
enum Export {
    /// Its stream.
    Stream {
        /// The version that was exported.
        version: Option<String>,
        /// The stream, stored.
        content: Content,
    },
    /// The service does not give it, for this reason.
    Refused(String),
}

/// Exports one message and stores its stream, of which `seen` takes note.
///
/// # Errors
/// [`Ended::Item`] when the export failed; it may be tried again.
async fn stream_one(
    context: &Arc<Context>,
    exchange: &Exchange,
    wanted: &Wanted,
    id: &str,
    seen: &mut Seen,
) -> Result<Export, Ended> {
    let mut exporting = exchange.begin_export(&[id], wanted.len()).await.map_err(Ended::Item)?;
    let next = async || {
        let piece = exporting.next().await?;
        piece.iter().for_each(|piece| seen.push(piece));
        Ok(piece)
    };
    let lengths = Lengths { about: wanted.len(), max: len_max(wanted.size) };
    let splitting =
        split_arriving(&context.splitters, Vec::new(), lengths, next, |splitter, stream| splitter.split_export(stream));
    let content = splitting.await?;
    match exporting.finish().map_err(Ended::Item)? {
        Ok(version) => Ok(Export::Stream { version, content }),
        Err(why) => Ok(Export::Refused(why)),
    }
}

fn is_version(wanted: &Wanted, exported: Option<&str>) -> bool {
    wanted.change_key.is_some() && wanted.change_key.as_deref() == exported
}

fn may_pass(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Malformed)
}

/// Puts messages together as far as one request may ask for.
fn batches(asked: Vec<Asked<'_>>) -> Vec<Vec<Asked<'_>>> {
    let mut batches: Vec<Vec<Asked>> = Vec::new();
    let mut bytes = 0;
    for asked in asked {
        let len = asked.0.len();
        let open = batches.last_mut().filter(|open| open.len() < EXPORT_ITEMS_MAX && bytes + len <= BATCH_BYTES_MAX);
        match open {
            Some(open) => open.push(asked),
            None => {
                batches.push(vec![asked]);
                bytes = 0;
            }
        }
        bytes += len;
    }
    batches
}
