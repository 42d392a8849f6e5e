//! Reads what a message holds: its bytes as the service has them, or put together of its parts where it cannot give
//! them.

use super::Reading;
use crate::backup::BackupError;
use crate::backup::tenant::content::{self, Download, WHOLE_BYTES_MAX};
use crate::backup::tenant::{Context, ends_the_run};
use crate::source::graph::eml::{self, Attachment};
use crate::source::graph::expected::Expected;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::Message;
use crate::source::graph::{ErrorKind, GraphError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::sync::Arc;

/// After so many answers that are something else it is asked what the message is now.
const OTHERS_BEFORE_ASKING: usize = 2;
/// Larger attachments are not put into a message that is built from its parts.
const ATTACHMENT_BYTES_MAX: u64 = 150 << 20;
/// Larger ones are put into such a message as attachments, not where its body shows them.
const PICTURE_BYTES_MAX: u64 = 4 << 20;

/// Reads a message. The outer error ends the run, the inner one the work on the mailbox.
pub(super) async fn read(
    context: &Arc<Context>,
    mailbox: &Mailbox,
    message: &Message,
    failed_before: bool,
) -> Result<Result<Reading, GraphError>, BackupError> {
    let (id, size) = (&message.row.id, message.row.size());
    let is_long = size.is_some_and(|size| size > WHOLE_BYTES_MAX);
    let mut turn = if is_long { Some(context.splitters.one_long().await) } else { None };
    let mut expected = Expected::message(&message.row);
    let (mut patience, mut others) = (mailbox.patience(), 0);
    let error = loop {
        context.check()?;
        let body = match mailbox.mime(id, size).await {
            Ok(body) => body,
            Err(error) if ends_the_run(&error) => return Err(error.into()),
            // The client has been patient enough.
            Err(error) => break error,
        };
        let downloaded = content::download(body).await;
        if turn.is_none() && matches!(downloaded, Ok(Download::Long(..))) {
            // Longer than it was said to be: it is asked for again when its turn has come. Meanwhile it must not keep a
            // place among the requests of the mailbox: whoever has the turn needs one.
            drop(downloaded);
            turn = Some(context.splitters.one_long().await);
            continue;
        }
        let error = match downloaded {
            Ok(Download::Long(start, body, mut seen)) => match expected.refuses_start(&seen) {
                Some(why) => other(why),
                None => match content::split_long(context, start, body, &mut seen, size).await? {
                    Ok(split) => match expected.accept(&seen) {
                        Ok(()) => return Ok(Ok(Reading::Split(Box::new(split)))),
                        Err(why) => other(why),
                    },
                    Err(error) => error,
                },
            },
            Ok(Download::Whole(pieces, seen)) => match expected.accept(&seen) {
                Ok(()) => return Ok(Ok(Reading::Whole(pieces))),
                Err(why) => other(why),
            },
            Err(error) => error,
        };
        if ends_the_run(&error) {
            return Err(error.into());
        }
        if error.kind() == ErrorKind::Malformed {
            others += 1;
            if others == OTHERS_BEFORE_ASKING {
                // It may be the list that is old by now.
                match mailbox.message(id).await {
                    Ok(None) => return Ok(Ok(Reading::Gone)),
                    Ok(Some(now)) if now.row.change_key != message.row.change_key => {
                        expected = Expected::message(&now.row);
                    }
                    Ok(Some(_)) => {}
                    Err(error) if ends_the_run(&error) => return Err(error.into()),
                    Err(_) => {}
                }
            }
        }
        match patience.wait(&error).await {
            Ok(true) => {}
            Ok(false) => break error,
            Err(error) => return Err(error.into()),
        }
    };
    drop(turn);
    match error.kind() {
        // Not for this message alone.
        ErrorKind::Throttled | ErrorKind::Denied => Ok(Err(error)),
        ErrorKind::Unavailable | ErrorKind::NotFound if !failed_before => Ok(match mailbox.message(id).await {
            Ok(None) => Ok(Reading::Gone),
            Ok(Some(_)) => Ok(Reading::Failed(error.to_string())),
            // Nothing else of the mailbox can be had either.
            Err(second) if second.is_transient() => Err(second),
            Err(_) => Ok(Reading::Failed(error.to_string())),
        }),
        // The service has it; a later version of this program will read it.
        ErrorKind::Fault => Ok(Ok(Reading::Failed(error.to_string()))),
        kind if kind == ErrorKind::ItemCorrupt || failed_before => {
            tracing::debug!(%error, "a message is built from its parts");
            match rebuild(context, mailbox, id).await {
                Ok(bytes) => Ok(Ok(Reading::Rebuilt(bytes))),
                Err(second) if ends_the_run(&second) => Err(second.into()),
                Err(second) if second.kind() == ErrorKind::NotFound => Ok(Ok(Reading::Gone)),
                Err(second) => Ok(Ok(Reading::Failed(format!("{error}; {second}")))),
            }
        }
        _ => Ok(Ok(Reading::Failed(error.to_string()))),
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
