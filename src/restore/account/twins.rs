//! Takes back what a restore has made twice.
//!
//! When the answer to a request that makes a message is lost, the message is looked for ([`Patience`]) before the
//! request is sent again. If the service does the work of the first request later than that, there are two messages. So
//! after a message was delivered for which a request was sent more than once, its folder is looked at again for a
//! while.
//!
//! Only what all of these hold for is taken back: it bears the mark of the item, it bears the name of this very job
//! ([`Journal::job`], which another machine, or a restore of another snapshot, does not have), and the message that was
//! delivered stands beside it.

use super::deliver::Delivery;
use super::journal::Key;
use super::patience::Patience;
use super::there::Mark;
use crate::source::graph::GraphError;
use std::io;
use tokio::time::Instant;

/// A message that was delivered, for which requests were sent whose fate is not known.
pub(super) struct Doubt<'a> {
    pub folder: &'a str,
    pub mark: &'a Mark,
    pub key: Key,
    /// The message that was delivered.
    pub id: &'a str,
    /// How many others there can be.
    pub twins_max: u32,
}

impl Delivery {
    /// Looks for twins of a message until [`Patience`] ends or as many were taken back as there can be.
    ///
    /// # Errors
    /// See [`GraphError`]; or when the journal cannot be kept. It is then still noted that there may be twins.
    pub async fn take_back_twins(&self, doubt: &Doubt<'_>) -> Result<Result<(), io::Error>, GraphError> {
        let mut patience = Patience::since(Instant::now());
        let mut left = doubt.twins_max;
        while left > 0 && patience.has_another_look().await {
            left = left.saturating_sub(self.take_back_twins_now(doubt).await?);
        }
        Ok(self.journal.lock().ended(doubt.key))
    }

    /// Takes back the twins that are there. Returns how many.
    async fn take_back_twins_now(&self, doubt: &Doubt<'_>) -> Result<u32, GraphError> {
        let job = self.journal.lock().job().to_owned();
        let mut marked = self.mailbox.marked_by_jobs(doubt.folder, &doubt.mark.text(true)).await?;
        marked.extend(self.mailbox.marked_by_jobs(doubt.folder, &doubt.mark.text(false)).await?);
        let is_there = marked.iter().any(|message| message.id == doubt.id);
        let twins = marked.iter().filter(|message| message.id != doubt.id && message.job.as_deref() == Some(&job));
        let mut taken_back = 0;
        for twin in twins.filter(|_| is_there).take(doubt.twins_max as usize) {
            self.mailbox.take_back_message(&twin.id).await?;
            tracing::info!("a message that the service made late was there twice; the later one was taken back");
            taken_back += 1;
        }
        Ok(taken_back)
    }
}
