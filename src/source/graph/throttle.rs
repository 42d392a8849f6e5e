//! When a request may leave, so that the service never has to refuse it.
//!
//! Every request waits at the gate for a permit and keeps it until its answer was read. The gate knows the
//! published limits (Graph: throttling limits) and learns from refusals:
//!
//! - of one mailbox no more than four requests are in flight, and no more leave in ten minutes, nor carry more bytes in
//!   five, than the service takes; a mailbox that refuses a request gets one place less for a while;
//! - of the whole tenant no more requests are in flight than a window, which grows by one for each window full of
//!   successes and is halved when the service refuses a request in the name of the tenant;
//! - a refusal keeps those waiting that it speaks of, for as long as it says: a mailbox, the directory or the tenant.
//!   Where the service takes nothing for longer than anybody waits, those who wait give up, and so do those who come
//!   meanwhile;
//! - mailboxes take turns. One that must wait holds up no other.
//!
//! Left to others: what a refusal is (`answer`) and how long to wait where it does not say ([`super::retry`]).

mod schedule;
#[cfg(test)]
mod tests;
mod window;

use super::request::Scope;
use parking_lot::Mutex;
use schedule::{Load, Place, Schedule};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Requests to one mailbox at the same time that the service takes, whatever is configured.
pub const MAILBOX_CONCURRENCY_MAX: usize = 4;

/// What the service allows. The published numbers; Microsoft changes them without notice, so all can be replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests to one mailbox in [`Limits::mailbox_window`].
    pub mailbox_requests: u32,
    /// The time in which they are counted.
    pub mailbox_window: Duration,
    /// Requests to one mailbox at the same time; never more than [`MAILBOX_CONCURRENCY_MAX`].
    pub mailbox_concurrency: usize,
    /// Bytes sent to one mailbox in [`Limits::upload_window`].
    pub upload_bytes: u64,
    /// The time in which they are counted.
    pub upload_window: Duration,
    /// Requests to the directory in [`Limits::directory_window`].
    pub directory_requests: u32,
    /// The time in which they are counted.
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
            // 3,500 resource units, the allowance of the smallest tenants, at 3 a request, the dearest that are made
            // here.
            directory_requests: 1_166,
            directory_window: Duration::from_secs(10),
        }
    }
}

/// Whom a refusal speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The mailbox, or the directory, that was asked.
    Scope,
    /// Everything this application asks of the tenant.
    Tenant,
}

/// Lets requests leave when they may.
pub(crate) struct Gate {
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    /// Those who wait, by their place's number.
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Those who waited, and are to give up.
    given_up: HashSet<u64>,
    /// The one of them who sleeps until the time at which somebody may go, on behalf of all.
    keeper: Option<(u64, Instant)>,
}

impl State {
    /// Lets everybody go who may, and sees to it that somebody looks again when more may.
    fn dispatch(&mut self, now: Instant) {
        for (_, number) in self.schedule.dispatch(now) {
            if let Some(notify) = self.waiting.remove(&number) {
                notify.notify_one();
            }
        }
        self.keeper = self.keeper.filter(|(number, _)| self.waiting.contains_key(number));
        let Some(wake) = self.schedule.next_wake(now) else { return };
        if self.keeper.is_some_and(|(_, until)| until <= wake) {
            return;
        }
        let number = self.keeper.map(|(number, _)| number).or_else(|| self.waiting.keys().next().copied());
        if let Some(number) = number {
            self.keeper = Some((number, wake));
            self.waiting[&number].notify_one();
        }
    }
}

impl Gate {
    /// Makes a gate. Nobody waits longer than `patience` for a service that takes nothing at all.
    pub(crate) fn new(concurrency: usize, limits: Limits, patience: Duration) -> Arc<Self> {
        let schedule = Schedule::new(concurrency, limits, patience, Instant::now());
        let (waiting, given_up) = (BTreeMap::new(), HashSet::new());
        Arc::new(Self { state: Mutex::new(State { schedule, waiting, given_up, keeper: None }) })
    }

    /// Returns for how long nothing at all can leave, although somebody waits and nothing is in flight.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let state = self.state.lock();
        if state.waiting.is_empty() || !state.schedule.is_quiet() {
            return None;
        }
        let now = Instant::now();
        state.schedule.next_wake(now).map(|wake| wake.saturating_duration_since(now))
    }

    /// Waits until a request to `scope` may leave, which carries `upload` bytes and brings about `size_hint`.
    ///
    /// # Errors
    /// [`Closed`] when the service is to be left alone for longer than anybody waits.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        scope: &Scope,
        size_hint: Option<u64>,
        upload: u64,
    ) -> Result<Permit, Closed> {
        let notify = Arc::new(Notify::new());
        let mut waiter = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if let Some(until) = state.schedule.closed_until(scope, now) {
                return Err(Closed { wait: until.saturating_duration_since(now) });
            }
            let place = state.schedule.enqueue(now, scope, Load { size_hint, upload });
            state.waiting.insert(place.1, Arc::clone(&notify));
            state.dispatch(now);
            Waiter { gate: Arc::clone(self), scope: scope.clone(), place, is_done: false }
        };
        loop {
            let alarm = {
                let mut state = self.state.lock();
                if state.given_up.remove(&waiter.place.1) {
                    waiter.is_done = true;
                    let now = Instant::now();
                    let until = state.schedule.closed_until(scope, now).unwrap_or(now);
                    return Err(Closed { wait: until.saturating_duration_since(now) });
                }
                if !state.waiting.contains_key(&waiter.place.1) {
                    break;
                }
                state.keeper.filter(|&(number, _)| number == waiter.place.1).map(|(_, until)| until)
            };
            tokio::select! {
                () = notify.notified() => {}
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    let mut state = self.state.lock();
                    state.keeper = None;
                    state.dispatch(Instant::now());
                }
            }
        }
        waiter.is_done = true;
        Ok(Permit { gate: Arc::clone(self), scope: scope.clone(), sent: Instant::now() })
    }
}

/// Nothing leaves, for longer than anybody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// For how long.
    pub(crate) wait: Duration,
}

/// One who waits. Dropped before its time, it leaves no trace.
struct Waiter {
    gate: Arc<Gate>,
    scope: Scope,
    place: Place,
    is_done: bool,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.gate.state.lock();
        state.waiting.remove(&self.place.1);
        if state.given_up.remove(&self.place.1) {
            return;
        }
        if !state.schedule.withdraw(&self.scope, self.place) {
            // It was let go, and never knew.
            state.schedule.finish(&self.scope);
        }
        state.dispatch(Instant::now());
    }
}

/// The right of one request to be in flight, until it is dropped.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    scope: Scope,
    sent: Instant,
}

impl Permit {
    /// Says that the service took the request.
    pub(crate) fn succeeded(&self) {
        self.gate.state.lock().schedule.succeeded(&self.scope);
    }

    /// Says that the service refused the request in the name of `whose`. Returns in how many rounds in a row it did.
    pub(crate) fn refused(&self, whose: Whose) -> u32 {
        self.gate.state.lock().schedule.refused(&self.scope, whose, self.sent, Instant::now())
    }

    /// Keeps all requests of `whose` waiting for `wait`; where that is longer than anybody waits, they give up.
    pub(crate) fn hold(&self, whose: Whose, wait: Duration) {
        let mut state = self.gate.state.lock();
        let now = Instant::now();
        for (_, number) in state.schedule.hold(&self.scope, whose, now + wait, now) {
            if let Some(notify) = state.waiting.remove(&number) {
                state.given_up.insert(number);
                notify.notify_one();
            }
        }
        // The one who slept on behalf of all may be among them.
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
