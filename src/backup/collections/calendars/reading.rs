//! Reads an event whole: the event, the instances of its series, and the attachments of all of them.

use super::{Body, StoredAttachment, StoredEvent};
use crate::backup::collection::Reading;
use crate::backup::context::{Context, Ended, ends_the_run};
use crate::backup::splitters::WHOLE_BYTES_MAX;
use crate::source::graph::calendars::{Calendars, Event, WholeEvent, sizes};
use crate::source::graph::{ErrorKind, GraphError};
use serde_json::Value;
use std::sync::Arc;

/// Maximum number of bytes that the attachments of an event have together: as many as the service allows at most for a
/// message.
const ATTACHMENTS_BYTES_MAX: u64 = 150 << 20;

/// Reads an event. `failed_before` is true if it failed in the previous run, too.
///
/// # Errors
/// Errors that end the work on the calendars, or the run.
pub async fn read(
    context: &Arc<Context>,
    calendars: &Calendars,
    event: &Event,
    failed_before: bool,
) -> Result<Reading<Body>, Ended> {
    let id = &event.row.id;
    let error = match whole(context, calendars, event, failed_before).await {
        Ok(body) => return Ok(Reading::New(body)),
        Err(error) if ends_the_run(&error) => return Err(error.into()),
        Err(error) => error,
    };
    match error.kind() {
        // Other events of this user will fail in the same way.
        ErrorKind::Throttled | ErrorKind::Denied => Err(Ended::Mailbox(error)),
        // An attachment may be gone, too: its id changes when the event is changed.
        ErrorKind::NotFound | ErrorKind::Unavailable => match calendars.row(id, &[]).await {
            Ok(None) => Ok(Reading::Gone),
            Err(second) if ends_the_run(&second) => Err(second.into()),
            // If nothing of the calendars can be had, this event is not the cause.
            Err(second) if second.is_transient() => match calendars.default().await {
                Ok(_) => Ok(Reading::Failed(error.to_string())),
                Err(third) => Err(third.into()),
            },
            Ok(Some(_)) | Err(_) => Ok(Reading::Failed(error.to_string())),
        },
        _ => Ok(Reading::Failed(error.to_string())),
    }
}

async fn whole(
    context: &Arc<Context>,
    calendars: &Calendars,
    event: &Event,
    failed_before: bool,
) -> Result<Body, GraphError> {
    let whole = calendars.event(&event.row.id, event.row.is_series()).await?;
    let mut listed = Vec::new();
    for owner in whole.ids() {
        let attachments = calendars.attachments(&owner).await?;
        listed.extend(attachments.into_iter().map(|attachment| (owner.clone(), attachment)));
    }
    let size = sizes(&listed);
    if size > ATTACHMENTS_BYTES_MAX {
        let why = format!("its attachments have {size} bytes, more than {ATTACHMENTS_BYTES_MAX}");
        return Err(GraphError::new(ErrorKind::TooLarge, "reading an event").explained(why));
    }
    let _turn = if size > WHOLE_BYTES_MAX { Some(context.splitters.one_rebuilt().await) } else { None };
    let WholeEvent { raw, further, cancelled } = whole;
    let mut stored = StoredEvent { event: raw, further, cancelled, attachments: Vec::new() };
    let mut left = ATTACHMENTS_BYTES_MAX;
    for (owner, properties) in &listed {
        let attachment = attachment(calendars, owner, properties, left, failed_before).await?;
        left = left.saturating_sub(attachment.content.as_ref().map_or(0, |content| content.len() as u64));
        stored.attachments.push(attachment);
    }
    let is_partial = stored.attachments.iter().any(|attachment| attachment.missing.is_some());
    Ok(Body { whole: stored, is_partial })
}

/// Reads an attachment. One that the service can never read is left out, so that the rest of the event is kept.
async fn attachment(
    calendars: &Calendars,
    event: &str,
    listed: &Value,
    bytes_max: u64,
    failed_before: bool,
) -> Result<StoredAttachment, GraphError> {
    match calendars.attachment(event, listed, bytes_max).await {
        Ok(read) => Ok(StoredAttachment {
            event: read.event,
            properties: read.properties,
            content: read.content,
            missing: None,
        }),
        Err(error)
            if error.kind() == ErrorKind::ItemCorrupt
                || failed_before && !error.is_transient() && !ends_the_run(&error) && !is_of_all(&error) =>
        {
            let properties = serde_json::value::to_raw_value(listed).expect("JSON can be written as JSON");
            let missing = Some(error.to_string());
            Ok(StoredAttachment { event: event.to_owned(), properties, content: None, missing })
        }
        Err(error) => Err(error),
    }
}

/// Returns true if an error concerns the whole mailbox.
fn is_of_all(error: &GraphError) -> bool {
    matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Denied | ErrorKind::MissingPermission)
}
