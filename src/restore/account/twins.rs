//! Takes back items that a restore has created twice.
//!
//! If the answer to a request that creates an item is lost, the item is looked for ([`Patience`]) before the request is
//! sent again. If the service does the work of the first request later than that, there are two items. So if more than
//! one request was sent for an item, its folder is looked at again for a while after the item was restored.
//!
//! An item is taken back only if all of this holds: it bears the mark of the item, it bears the name of this job
//! ([`Journal::job`], which neither another machine nor a restore of another snapshot has), and the item that was
//! restored exists beside it.

use super::journal::{Journal, Key};
use super::mark::Mark;
use super::outcome::ItemError;
use super::patience::Patience;
use super::target::Target;
use crate::source::graph::GraphError;
use parking_lot::Mutex;
use tokio::time::Instant;

/// An item that was restored, and for which requests were sent whose fate is not known.
pub(super) struct Doubt<'a> {
    pub folder: &'a str,
    pub mark: &'a Mark,
    pub key: Key,
    /// The id of the item that was restored.
    pub id: &'a str,
    /// Maximum number of twins that there can be.
    pub twins_max: u32,
}

/// Looks for twins of an item until [`Patience`] ends, or until as many were taken back as there can be.
///
/// # Errors
/// [`ItemError`]. The journal then still says that there may be twins.
pub(super) async fn take_back_twins<T: Target>(
    target: &T,
    journal: &Mutex<Journal>,
    doubt: &Doubt<'_>,
) -> Result<(), ItemError> {
    let job = journal.lock().job().to_owned();
    let mut patience = Patience::since(Instant::now());
    let mut left = doubt.twins_max;
    while left > 0 && patience.has_another_look().await {
        left = left.saturating_sub(take_back_now(target, &job, doubt).await?);
    }
    Ok(journal.lock().ended(doubt.key)?)
}

/// Takes back the twins that exist now. Returns their number.
async fn take_back_now<T: Target>(target: &T, job: &str, doubt: &Doubt<'_>) -> Result<u32, GraphError> {
    let mut marked = target.marked(doubt.folder, &doubt.mark.text(true)).await?;
    marked.extend(target.marked(doubt.folder, &doubt.mark.text(false)).await?);
    if !marked.iter().any(|item| item.id == doubt.id) {
        return Ok(0);
    }
    let twins = marked.iter().filter(|item| item.id != doubt.id && item.job.as_deref() == Some(job));
    let mut taken_back = 0;
    for twin in twins.take(doubt.twins_max as usize) {
        target.take_back(&twin.id).await?;
        tracing::info!("an item that the service made late was there twice; the later one was taken back");
        taken_back += 1;
    }
    Ok(taken_back)
}
