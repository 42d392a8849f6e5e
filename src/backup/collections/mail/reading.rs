//! Reads what a message holds: its bytes as the service has them, or put together of its parts where it cannot give
//! them.

use super::Body;
use super::arriving::{self, Download};
use crate::backup::collection::Reading;
use crate::backup::context::{Context, Ended, ends_the_run};
use crate::backup::splitters::WHOLE_BYTES_MAX;
use crate::source::graph::client::Patience;
use crate::source::graph::eml::{self, Attachment};
use crate::source::graph::expected::Expected;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::Message;
use crate::source::graph::{ErrorKind, GraphError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::SemaphorePermit;

/// After so many answers that are something else it is asked what the message is now.
const OTHERS_BEFORE_ASKING: usize = 2;
/// Larger attachments are not put into a message that is built from its parts.
const ATTACHMENT_BYTES_MAX: u64 = 150 << 20;
/// Larger ones are put into such a message as attachments, not where its body shows them.
const PICTURE_BYTES_MAX: u64 = 4 << 20;

/// A message that is being downloaded.
struct Downloading<'a> {
    context: &'a Arc<Context>,
    mailbox: &'a Mailbox,
    message: &'a Message,
    /// What is known of its bytes.
    expected: Expected,
    patience: Patience,
    /// How many answers were something else.
    others: usize,
    /// The turn for long messages, once it has it.
    turn: Option<SemaphorePermit<'a>>,
}

/// What one attempt at a message came to.
enum Attempt {
    /// Its bytes.
    Read(Body),
    /// It is longer than it was said to be. Its turn has come now, and it is asked for again.
    Longer,
    /// The answer broke off, or was something else. It may be tried again.
    Broken(GraphError),
    /// The client has tried as often as is worth it.
    GivenUp(GraphError),
}

/// Reads a message.
///
/// # Errors
/// What ends the work on the mailbox, or the run.
pub async fn read(
    context: &Arc<Context>,
    mailbox: &Mailbox,
    message: &Message,
    failed_before: bool,
) -> Result<Reading<Body>, Ended> {
    let is_long = message.row.size().is_some_and(|size| size > WHOLE_BYTES_MAX);
    let turn = if is_long { Some(context.splitters.one_long().await) } else { None };
    let (expected, patience) = (Expected::message(&message.row), mailbox.patience());
    let mut downloading = Downloading { context, mailbox, message, expected, patience, others: 0, turn };
    let error = loop {
        context.check()?;
        let error = match downloading.attempt().await? {
            Attempt::Read(body) => return Ok(Reading::New(body)),
            Attempt::Longer => continue,
            Attempt::GivenUp(error) => break error,
            Attempt::Broken(error) => error,
        };
        if error.kind() == ErrorKind::Malformed && downloading.is_gone().await? {
            return Ok(Reading::Gone);
        }
        if !downloading.patience.wait(&error).await.map_err(|error| Ended::Run(error.into()))? {
            break error;
        }
    };
    drop(downloading);
    read_otherwise(context, mailbox, message, failed_before, error).await
}

impl Downloading<'_> {
    /// Asks for the message once.
    async fn attempt(&mut self) -> Result<Attempt, Ended> {
        let (id, size) = (&self.message.row.id, self.message.row.size());
        let body = match self.mailbox.mime(id, size).await {
            Ok(body) => body,
            Err(error) if ends_the_run(&error) => return Err(error.into()),
            Err(error) => return Ok(Attempt::GivenUp(error)),
        };
        let downloaded = arriving::download(body).await;
        if self.turn.is_none() && matches!(downloaded, Ok(Download::Long(..))) {
            // It is asked for again when its turn has come. Meanwhile it must not keep a place among the requests of
            // the mailbox: whoever has the turn needs one.
            drop(downloaded);
            self.turn = Some(self.context.splitters.one_long().await);
            return Ok(Attempt::Longer);
        }
        match self.take(downloaded).await {
            Ok(body) => Ok(Attempt::Read(body)),
            Err(Ended::Item(error)) if ends_the_run(&error) => Err(error.into()),
            Err(Ended::Item(error)) => Ok(Attempt::Broken(error)),
            Err(ended) => Err(ended),
        }
    }

    /// Takes what was downloaded if it is the message.
    async fn take(&mut self, downloaded: Result<Download, GraphError>) -> Result<Body, Ended> {
        let other = |why| Ended::Item(other(why));
        match downloaded.map_err(Ended::Item)? {
            Download::Whole(pieces, seen) => {
                self.expected.accept(&seen).map_err(other)?;
                Ok(Body::Whole(pieces))
            }
            Download::Long(start, body, mut seen) => {
                if let Some(why) = self.expected.refuses_start(&seen) {
                    return Err(other(why));
                }
                let size = self.message.row.size();
                let split = arriving::split_long(&self.context.splitters, start, body, &mut seen, size).await?;
                self.expected.accept(&seen).map_err(other)?;
                Ok(Body::Split(Box::new(split)))
            }
        }
    }

    /// Asks what the message is now, after several answers that were something else: it may be the list that is old by
    /// now. Returns whether it is gone.
    async fn is_gone(&mut self) -> Result<bool, Ended> {
        self.others += 1;
        if self.others != OTHERS_BEFORE_ASKING {
            return Ok(false);
        }
        match self.mailbox.message(&self.message.row.id).await {
            Ok(None) => return Ok(true),
            Ok(Some(now)) if now.row.change_key != self.message.row.change_key => {
                self.expected = Expected::message(&now.row);
            }
            Ok(Some(_)) => {}
            Err(error) if ends_the_run(&error) => return Err(error.into()),
            Err(_) => {}
        }
        Ok(false)
    }
}

/// Finds out what becomes of a message whose bytes cannot be had, because of `error`.
async fn read_otherwise(
    context: &Arc<Context>,
    mailbox: &Mailbox,
    message: &Message,
    failed_before: bool,
    error: GraphError,
) -> Result<Reading<Body>, Ended> {
    let id = &message.row.id;
    match error.kind() {
        // Not for this message alone.
        ErrorKind::Throttled | ErrorKind::Denied => Err(Ended::Mailbox(error)),
        ErrorKind::Unavailable | ErrorKind::NotFound if !failed_before => match mailbox.message(id).await {
            Ok(None) => Ok(Reading::Gone),
            Ok(Some(_)) => Ok(Reading::Failed(error.to_string())),
            // Nothing else of the mailbox can be had either.
            Err(second) if second.is_transient() => Err(Ended::Mailbox(second)),
            Err(_) => Ok(Reading::Failed(error.to_string())),
        },
        // The service has it; a later version of this program will read it.
        ErrorKind::Fault => Ok(Reading::Failed(error.to_string())),
        kind if kind == ErrorKind::ItemCorrupt || failed_before => {
            tracing::debug!(%error, "a message is built from its parts");
            match rebuild(context, mailbox, id).await {
                Ok(bytes) => Ok(Reading::New(Body::Rebuilt(bytes))),
                Err(second) if ends_the_run(&second) => Err(second.into()),
                Err(second) if second.kind() == ErrorKind::NotFound => Ok(Reading::Gone),
                Err(second) => Ok(Reading::Failed(format!("{error}; {second}"))),
            }
        }
        _ => Ok(Reading::Failed(error.to_string())),
    }
}

/// Makes the error of an answer that is not the message.
fn other(why: &'static str) -> GraphError {
    GraphError::malformed("reading a message").explained(why.to_owned())
}

async fn rebuild(context: &Context, mailbox: &Mailbox, id: &str) -> Result<Vec<u8>, GraphError> {
    let _one_at_a_time = context.splitters.one_rebuilt().await;
    let properties = mailbox.properties(id).await?;
    let mut attachments = Vec::new();
    for properties in mailbox.attachments(id).await? {
        let Some(attachment) = properties.get("id").and_then(Value::as_str) else { continue };
        if is_picture_in_the_body(&properties)
            && let Ok(whole) = mailbox.attachment_whole(id, attachment).await
            && let Some(content) = whole.get("contentBytes").and_then(Value::as_str)
            && let Ok(content) = STANDARD.decode(content)
        {
            attachments.push(Attachment { properties: whole, content: Ok(content.into()) });
            continue;
        }
        match mailbox.attachment(id, &properties, ATTACHMENT_BYTES_MAX).await {
            // What may pass must not be cast into a message that is then taken for good.
            Err(error) if ends_the_run(&error) || error.is_transient() => return Err(error),
            content => attachments.push(Attachment { properties, content: content.map_err(|error| error.to_string()) }),
        }
    }
    Ok(eml::build(&properties, &attachments))
}

fn is_picture_in_the_body(properties: &Value) -> bool {
    let size = properties.get("size").and_then(Value::as_u64);
    properties.get("isInline").and_then(Value::as_bool) == Some(true) && size.is_some_and(|s| s <= PICTURE_BYTES_MAX)
}
