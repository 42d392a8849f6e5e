//! Decides when a request may be sent, so that the service need not refuse it.
//!
//! Every request waits at the gate for a permit, and keeps it until its answer was read. The gate knows the published
//! limits (Graph: throttling limits) and learns from refusals:
//!
//! - For each mailbox, at most four requests are in flight. It also gets no more requests in ten minutes, and no more
//!   bytes in five, than the service allows. If a mailbox refuses a request, it gets one request in flight fewer for a
//!   while.
//! - For the whole tenant, a window limits the requests in flight. It grows by one for each window full of successes.
//!   It is halved if the service refuses a request because of a limit of the tenant.
//! - After a refusal, all requests that it concerns (those to the mailbox, the directory or the tenant) wait for as
//!   long as the service says. If that is longer than any request may wait, they give up, and so do requests that
//!   arrive later.
//! - Mailboxes take turns. A mailbox that must wait does not hold up any other.
//!
//! This module does not decide what counts as a refusal (see `answer`), or how long to wait if the service does not say
//! (see [`super::retry`]).

mod schedule;
#[cfg(test)]
mod tests;
mod window;

use super::request::Scope;
use parking_lot::Mutex;
use schedule::{Load, QueueKey, Schedule};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Maximum number of requests in flight to one mailbox, whatever is configured. The service accepts no more.
pub const MAILBOX_CONCURRENCY_MAX: usize = 4;

/// The limits of the service. These are the published numbers. Microsoft changes them without notice, so each can be
/// replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Maximum number of requests to one mailbox in [`Limits::mailbox_window`].
    pub mailbox_requests: u32,
    /// The time over which they are counted.
    pub mailbox_window: Duration,
    /// Maximum number of requests in flight to one mailbox. Values above [`MAILBOX_CONCURRENCY_MAX`] count as that.
    pub mailbox_concurrency: usize,
    /// Maximum number of bytes sent to one mailbox in [`Limits::upload_window`].
    pub upload_bytes: u64,
    /// The time over which they are counted.
    pub upload_window: Duration,
    /// Maximum number of requests to the directory in [`Limits::directory_window`].
    pub directory_requests: u32,
    /// The time over which they are counted.
    pub directory_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox_requests: 10_000,
            mailbox_window: Duration::from_secs(600),
            mailbox_concurrency: MAILBOX_CONCURRENCY_MAX,
            upload_bytes: 150_000_000,
            upload_window: Duration::from_secs(300),
            // The smallest tenants have 3,500 resource units. The most expensive request in this program costs 3.
            directory_requests: 1_166,
            directory_window: Duration::from_secs(10),
        }
    }
}

/// Whom a refusal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affected {
    /// The mailbox, or the directory, that the request was sent to.
    Scope,
    /// All requests of this application to the tenant.
    Tenant,
}

/// Gives out permits to send requests.
pub(crate) struct Gate {
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    /// The waiting requests, by their number.
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// The numbers of waiting requests that must give up.
    given_up: HashSet<u64>,
    /// The waiting request that sleeps on behalf of all, until the next time at which one may be sent.
    sleeper: Option<(u64, Instant)>,
}

impl State {
    /// Wakes all requests that may be sent now. Makes sure that one of the others calls `dispatch` again when more may
    /// be sent.
    fn dispatch(&mut self, now: Instant) {
        for (_, number) in self.schedule.dispatch(now) {
            if let Some(notify) = self.waiting.remove(&number) {
                notify.notify_one();
            }
        }
        self.sleeper = self.sleeper.filter(|(number, _)| self.waiting.contains_key(number));
        let Some(wake) = self.schedule.next_wake(now) else { return };
        if self.sleeper.is_some_and(|(_, until)| until <= wake) {
            return;
        }
        let number = self.sleeper.map(|(number, _)| number).or_else(|| self.waiting.keys().next().copied());
        if let Some(number) = number {
            self.sleeper = Some((number, wake));
            self.waiting[&number].notify_one();
        }
    }
}

impl Gate {
    /// Creates a gate. No request waits longer than `patience` for a service that accepts nothing at all.
    pub(crate) fn new(concurrency: usize, limits: Limits, patience: Duration) -> Arc<Self> {
        let schedule = Schedule::new(concurrency, limits, patience, Instant::now());
        let (waiting, given_up) = (BTreeMap::new(), HashSet::new());
        Arc::new(Self { state: Mutex::new(State { schedule, waiting, given_up, sleeper: None }) })
    }

    /// If requests are waiting but none is in flight, returns how long until one may be sent.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let state = self.state.lock();
        if state.waiting.is_empty() || !state.schedule.is_quiet() {
            return None;
        }
        let now = Instant::now();
        state.schedule.next_wake(now).map(|wake| wake.saturating_duration_since(now))
    }

    /// Waits until a request to `scope` may be sent. It carries `upload` bytes, and its answer has about `size_hint`.
    ///
    /// # Errors
    /// [`Closed`] if the service must be left alone for longer than any request waits.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        scope: &Scope,
        size_hint: Option<u64>,
        upload: u64,
    ) -> Result<Permit, Closed> {
        self.enter_with(scope, Load { size_hint, upload, requests: 1 }).await
    }

    /// Waits until `requests` may be sent to `scope` as one that carries `upload` bytes. The service counts each, and
    /// runs one at a time.
    ///
    /// # Errors
    /// As [`Gate::enter`].
    pub(crate) async fn enter_with_batch(
        self: &Arc<Self>,
        scope: &Scope,
        upload: u64,
        requests: u64,
    ) -> Result<Permit, Closed> {
        self.enter_with(scope, Load { size_hint: None, upload, requests }).await
    }

    async fn enter_with(self: &Arc<Self>, scope: &Scope, load: Load) -> Result<Permit, Closed> {
        let notify = Arc::new(Notify::new());
        let mut waiter = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if let Some(until) = state.schedule.closed_until(scope, now) {
                return Err(Closed { wait: until.saturating_duration_since(now) });
            }
            let key = state.schedule.enqueue(now, scope, load);
            state.waiting.insert(key.1, Arc::clone(&notify));
            state.dispatch(now);
            Waiter { gate: Arc::clone(self), scope: scope.clone(), key, is_done: false }
        };
        loop {
            let alarm = {
                let mut state = self.state.lock();
                if state.given_up.remove(&waiter.key.1) {
                    waiter.is_done = true;
                    let now = Instant::now();
                    let until = state.schedule.closed_until(scope, now).unwrap_or(now);
                    return Err(Closed { wait: until.saturating_duration_since(now) });
                }
                if !state.waiting.contains_key(&waiter.key.1) {
                    break;
                }
                state.sleeper.filter(|&(number, _)| number == waiter.key.1).map(|(_, until)| until)
            };
            tokio::select! {
                () = notify.notified() => {}
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    let mut state = self.state.lock();
                    state.sleeper = None;
                    state.dispatch(Instant::now());
                }
            }
        }
        waiter.is_done = true;
        Ok(Permit { gate: Arc::clone(self), scope: scope.clone(), sent: Instant::now() })
    }
}

/// No request may be sent for longer than any request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// How long no request may be sent.
    pub(crate) wait: Duration,
}

/// A waiting request. Dropping it early undoes everything that it did.
struct Waiter {
    gate: Arc<Gate>,
    scope: Scope,
    key: QueueKey,
    is_done: bool,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.gate.state.lock();
        state.waiting.remove(&self.key.1);
        if state.given_up.remove(&self.key.1) {
            return;
        }
        if !state.schedule.withdraw(&self.scope, self.key) {
            // The request had been granted a permit, but was dropped before it noticed.
            state.schedule.finish(&self.scope);
        }
        state.dispatch(Instant::now());
    }
}

/// The right of one request to be in flight, until the permit is dropped.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    scope: Scope,
    sent: Instant,
}

impl Permit {
    /// Records that the service accepted the request.
    pub(crate) fn succeeded(&self) {
        self.gate.state.lock().schedule.succeeded(&self.scope);
    }

    /// Records that the service refused the request, and whom the refusal concerns. Returns the number of consecutive
    /// rounds of refusals.
    pub(crate) fn refused(&self, affected: Affected) -> u32 {
        self.gate.state.lock().schedule.refused(&self.scope, affected, self.sent, Instant::now())
    }

    /// Makes all requests that `affected` concerns wait for `wait`. If that is longer than any request waits, they give
    /// up.
    pub(crate) fn hold(&self, affected: Affected, wait: Duration) {
        let mut state = self.gate.state.lock();
        let now = Instant::now();
        for (_, number) in state.schedule.hold(&self.scope, affected, now + wait, now) {
            if let Some(notify) = state.waiting.remove(&number) {
                state.given_up.insert(number);
                notify.notify_one();
            }
        }
        // One of them may have been the request that sleeps on behalf of all.
        state.dispatch(now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.schedule.finish(&self.scope);
        state.dispatch(Instant::now());
    }
}
