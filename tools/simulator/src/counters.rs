//! Counts what clients do. Many tests check these counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// The counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Number of requests to Graph.
    pub requests: u64,
    /// Number of requests by operation.
    pub by_operation: BTreeMap<String, u64>,
    /// Number of requests by user id.
    pub by_mailbox: BTreeMap<String, u64>,
    /// Maximum number of concurrent requests, by user id.
    pub peak_concurrency: BTreeMap<String, u64>,
    /// Number of bytes in the bodies of requests.
    pub bytes_received: u64,
    /// Number of answers that told the client to wait.
    pub throttled: u64,
    /// Number of answers that a fault replaced or damaged.
    pub faults: u64,
    /// Number of issued tokens.
    pub tokens_issued: u64,
    /// Number of mails that would have been sent. A backup or restore sends none.
    pub mails_sent: u64,
    /// Number of invitations that would have been sent.
    pub invitations_sent: u64,
    /// Number of updates of meetings that would have been sent.
    pub updates_sent: u64,
    /// Number of cancellations of meetings that would have been sent.
    pub cancellations_sent: u64,
    /// Number of online meetings that would have been made.
    pub online_meetings_made: u64,
}

/// The running counts.
#[derive(Debug, Default)]
pub struct Counters {
    inner: Mutex<Inner>,
    /// Number of mails that would have been sent.
    pub mails_sent: AtomicU64,
    /// Number of invitations that would have been sent.
    pub invitations_sent: AtomicU64,
    /// Number of updates of meetings that would have been sent.
    pub updates_sent: AtomicU64,
    /// Number of cancellations of meetings that would have been sent.
    pub cancellations_sent: AtomicU64,
    /// Number of online meetings that would have been made.
    pub online_meetings_made: AtomicU64,
    /// Number of answers that told the client to wait.
    pub throttled: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    requests: u64,
    by_operation: BTreeMap<&'static str, u64>,
    by_mailbox: BTreeMap<String, Load>,
    bytes_received: u64,
}

#[derive(Debug, Default)]
struct Load {
    requests: u64,
    running: u64,
    peak: u64,
}

/// A request that is being answered. Dropping this ends it.
#[derive(Debug)]
pub struct Running {
    counters: Arc<Counters>,
    mailbox: Option<String>,
}

impl Counters {
    /// Counts a request for `operation` at its beginning, even if it is refused later.
    pub fn begin(self: &Arc<Self>, operation: &'static str, mailbox: Option<String>) -> Running {
        let mut inner = self.inner.lock();
        inner.requests += 1;
        *inner.by_operation.entry(operation).or_default() += 1;
        if let Some(mailbox) = &mailbox {
            let load = inner.by_mailbox.entry(mailbox.clone()).or_default();
            load.requests += 1;
            load.running += 1;
            load.peak = load.peak.max(load.running);
        }
        drop(inner);
        Running { counters: Arc::clone(self), mailbox }
    }

    /// Counts `bytes` of a request body.
    pub fn received(&self, bytes: usize) {
        self.inner.lock().bytes_received += bytes as u64;
    }

    /// Returns the current counts, except for faults and tokens, which are counted elsewhere.
    pub fn counts(&self) -> Counts {
        let inner = self.inner.lock();
        let by =
            |value: fn(&Load) -> u64| inner.by_mailbox.iter().map(|(id, load)| (id.clone(), value(load))).collect();
        Counts {
            requests: inner.requests,
            by_operation: inner.by_operation.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            by_mailbox: by(|load| load.requests),
            peak_concurrency: by(|load| load.peak),
            bytes_received: inner.bytes_received,
            throttled: self.throttled.load(Ordering::Relaxed),
            faults: 0,
            tokens_issued: 0,
            mails_sent: self.mails_sent.load(Ordering::Relaxed),
            invitations_sent: self.invitations_sent.load(Ordering::Relaxed),
            updates_sent: self.updates_sent.load(Ordering::Relaxed),
            cancellations_sent: self.cancellations_sent.load(Ordering::Relaxed),
            online_meetings_made: self.online_meetings_made.load(Ordering::Relaxed),
        }
    }

    /// Sets every count to zero. Requests that are being answered still count as concurrent.
    pub fn reset(&self) {
        let mut inner = self.inner.lock();
        let running = std::mem::take(&mut *inner).by_mailbox.into_iter().filter(|(_, load)| load.running > 0);
        inner.by_mailbox = running.map(|(id, load)| (id, Load { requests: 0, peak: load.running, ..load })).collect();
        let sent = [&self.mails_sent, &self.invitations_sent, &self.updates_sent, &self.cancellations_sent];
        for count in sent.into_iter().chain([&self.online_meetings_made, &self.throttled]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mailbox) = &self.mailbox
            && let Some(load) = self.counters.inner.lock().by_mailbox.get_mut(mailbox)
        {
            load.running -= 1;
        }
    }
}
