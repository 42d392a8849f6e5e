//! Decides which request is sent next: the rules of [`super::Gate`], without waiting and without locks. Time is an
//! argument.

use super::window::Window;
use super::{Affected, Limits, MAILBOX_CONCURRENCY_MAX};
use crate::source::graph::request::Scope;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// The percentage of a limit that is used. The service counts requests when they arrive, not when they were sent, so
/// requests can meet on the way. The rest is kept for these.
const USED_PERCENT: u64 = 96;
/// Number of consecutive successes after which a mailbox that refused a request may have one more in flight. If each
/// such step ended in another refusal, only half a percent of the requests would be refused.
const SUCCESSES_PER_PLACE: u32 = 200;
/// After this many new lanes, idle lanes are removed.
const LANES_PER_SWEEP: usize = 256;

/// The key of a request in the queue of its lane: unknown sizes first, then the largest, then the order of arrival.
pub(super) type QueueKey = (Option<Reverse<u64>>, u64);

/// What the rules need to know about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Roughly how many bytes the answer will have.
    pub(super) size_hint: Option<u64>,
    /// How many bytes the request carries.
    pub(super) upload: u64,
    /// As how many requests it counts: a batch counts as all requests in it.
    pub(super) requests: u64,
}

/// The waiting requests, the requests in flight, and what was sent before.
pub(super) struct Schedule {
    limits: Limits,
    origin: Instant,
    in_flight: usize,
    window: AdaptiveWindow,
    fence: Fence,
    /// How long a request waits for a service that accepts nothing at all.
    patience: Duration,
    lanes: HashMap<Scope, Lane>,
    /// Lanes that may have a request to send. Each is in the queue at most once; they take turns.
    ready: VecDeque<Scope>,
    /// Lanes that wait until a certain time.
    timed: BinaryHeap<Reverse<Timed>>,
    sequence: u64,
    lanes_added: usize,
}

/// Maximum number of requests in flight for the whole tenant. It grows by one for each window full of successes, and is
/// halved after a refusal.
struct AdaptiveWindow {
    size: f64,
    ceiling: f64,
    rounds: Rounds,
}

/// Counts rounds of refusals. Refusals of requests that were in flight at the same time are one round.
#[derive(Default)]
struct Rounds {
    last: Option<Instant>,
    count: u32,
}

impl Rounds {
    /// Records the refusal of a request that was sent at `sent`. Returns true if it begins a new round.
    fn refused(&mut self, sent: Instant, now: Instant) -> bool {
        let is_new = self.last.is_none_or(|last| sent > last);
        if is_new {
            self.last = Some(now);
            self.count = self.count.saturating_add(1);
        }
        // A late refusal of a round can arrive after a success has reset the count.
        self.count = self.count.max(1);
        is_new
    }

    fn succeeded(&mut self) {
        self.count = 0;
    }
}

/// Makes requests wait until a certain time, and knows when that is too long.
#[derive(Default)]
struct Fence {
    until: Option<Instant>,
    /// Time of the first refusal since the last success.
    refused_since: Option<Instant>,
    /// True if it lasts longer than any request waits.
    is_closed: bool,
}

impl Fence {
    /// Makes requests wait until `until`. If by then everything will have been refused for longer than `patience`,
    /// closes the fence, so that requests give up.
    fn hold(&mut self, until: Instant, patience: Duration, now: Instant) {
        // A refusal long after the last one has nothing to do with it.
        let is_old = self.until.is_some_and(|until| now.saturating_duration_since(until) > patience);
        let since = self.refused_since.filter(|_| !is_old).unwrap_or(now);
        self.refused_since = Some(since);
        let until = self.until.map_or(until, |before| before.max(until));
        self.until = Some(until);
        self.is_closed = until.saturating_duration_since(since) > patience;
    }

    fn succeeded(&mut self) {
        self.refused_since = None;
    }

    /// Returns the time until which requests must wait, if it is in the future.
    fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    /// Returns the time until which requests must wait, if that is longer than any request waits.
    fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.until(now).filter(|_| self.is_closed)
    }
}

impl AdaptiveWindow {
    fn places(&self) -> usize {
        // The size is between 1 and the ceiling, so the cast loses only the fraction.
        self.size as usize
    }

    fn succeeded(&mut self) {
        self.size = (self.size + 1.0 / self.size).min(self.ceiling);
        self.rounds.succeeded();
    }

    fn refused(&mut self, sent: Instant, now: Instant) -> u32 {
        if self.rounds.refused(sent, now) {
            self.size = (self.size / 2.0).max(1.0);
        }
        self.rounds.count
    }
}

/// The queue of one mailbox, or of the directory.
struct Lane {
    waiting: BTreeMap<QueueKey, Load>,
    in_flight: usize,
    /// How many requests may be in flight now, and the maximum of that number.
    places: usize,
    places_max: usize,
    successes: u32,
    rounds: Rounds,
    requests: Window,
    uploads: Window,
    fence: Fence,
    /// True if the lane is in `ready`.
    is_ready: bool,
    /// The earliest time of this lane in `timed`.
    timed: Option<Instant>,
}

struct Timed {
    at: Instant,
    scope: Scope,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Lane {
    fn new(scope: &Scope, limits: &Limits, origin: Instant) -> Self {
        let used = |limit: u64| (limit * USED_PERCENT / 100).max(1);
        let (requests, length, places) = match scope {
            Scope::Mailbox(_) => {
                let places = limits.mailbox_concurrency.clamp(1, MAILBOX_CONCURRENCY_MAX);
                (limits.mailbox_requests, limits.mailbox_window, places)
            }
            Scope::Directory => (limits.directory_requests, limits.directory_window, usize::MAX),
        };
        Self {
            waiting: BTreeMap::new(),
            in_flight: 0,
            places,
            places_max: places,
            successes: 0,
            rounds: Rounds::default(),
            requests: Window::new(used(requests.into()), length, origin),
            uploads: Window::new(used(limits.upload_bytes), limits.upload_window, origin),
            fence: Fence::default(),
            is_ready: false,
            timed: None,
        }
    }

    fn ready_at(&mut self, now: Instant, load: Load) -> Instant {
        let budget = self.requests.ready_at(now, load.requests).max(self.uploads.ready_at(now, load.upload));
        self.fence.until(now).map_or(budget, |fence| budget.max(fence))
    }

    fn refused(&mut self, sent: Instant, now: Instant) -> u32 {
        self.successes = 0;
        // The directory has no limit on requests in flight.
        if self.rounds.refused(sent, now) && self.places <= MAILBOX_CONCURRENCY_MAX {
            self.places = (self.places - 1).max(1);
        }
        self.rounds.count
    }

    fn succeeded(&mut self) {
        self.rounds.succeeded();
        self.fence.succeeded();
        if self.places < self.places_max {
            self.successes += 1;
            if self.successes >= SUCCESSES_PER_PLACE {
                self.successes = 0;
                self.places += 1;
            }
        }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.waiting.is_empty()
            && self.in_flight == 0
            && !self.is_ready
            && self.timed.is_none()
            && self.places == self.places_max
            && self.fence.until(now).is_none()
            && self.requests.is_idle(now)
            && self.uploads.is_idle(now)
    }
}

impl Schedule {
    pub(super) fn new(concurrency: usize, limits: Limits, patience: Duration, origin: Instant) -> Self {
        let ceiling = concurrency.max(1) as f64;
        Self {
            limits,
            origin,
            in_flight: 0,
            window: AdaptiveWindow { size: ceiling, ceiling, rounds: Rounds::default() },
            fence: Fence::default(),
            patience,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            timed: BinaryHeap::new(),
            sequence: 0,
            lanes_added: 0,
        }
    }

    /// Adds a waiting request, and returns its key.
    pub(super) fn enqueue(&mut self, now: Instant, scope: &Scope, load: Load) -> QueueKey {
        self.sequence += 1;
        let key = (load.size_hint.map(Reverse), self.sequence);
        if !self.lanes.contains_key(scope) {
            self.sweep(now);
            self.lanes.insert(scope.clone(), Lane::new(scope, &self.limits, self.origin));
        }
        let lane = self.lanes.get_mut(scope).expect("it was inserted if it was missing");
        lane.waiting.insert(key, load);
        // The request may be ready although the lane waits for a time: the others may carry more bytes.
        make_ready(lane, scope, &mut self.ready);
        key
    }

    /// Removes a waiting request. Returns false if it was no longer waiting.
    pub(super) fn withdraw(&mut self, scope: &Scope, key: QueueKey) -> bool {
        self.lanes.get_mut(scope).is_some_and(|lane| lane.waiting.remove(&key).is_some())
    }

    /// Grants all requests that may be sent now, and returns their keys. [`Schedule::finish`] must be called for each
    /// of them.
    pub(super) fn dispatch(&mut self, now: Instant) -> Vec<QueueKey> {
        let mut granted = Vec::new();
        while let Some(Reverse(timed)) = self.timed.peek()
            && timed.at <= now
        {
            let Some(Reverse(Timed { at, scope })) = self.timed.pop() else { break };
            if let Some(lane) = self.lanes.get_mut(&scope) {
                if lane.timed == Some(at) {
                    lane.timed = None;
                }
                make_ready(lane, &scope, &mut self.ready);
            }
        }
        if self.fence.until(now).is_some() {
            return granted;
        }
        while self.in_flight < self.window.places()
            && let Some(scope) = self.ready.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&scope) else { continue };
            lane.is_ready = false;
            // A full lane becomes ready again when one of its requests ends.
            if lane.in_flight >= lane.places {
                continue;
            }
            let Some((&key, &load)) = lane.waiting.first_key_value() else { continue };
            let ready_at = lane.ready_at(now, load);
            if ready_at > now {
                if lane.timed.is_none_or(|timed| ready_at < timed) {
                    lane.timed = Some(ready_at);
                    self.timed.push(Reverse(Timed { at: ready_at, scope }));
                }
                continue;
            }
            lane.waiting.remove(&key);
            lane.requests.charge(now, load.requests);
            lane.uploads.charge(now, load.upload);
            lane.in_flight += 1;
            self.in_flight += 1;
            granted.push(key);
            // The lane goes to the end of the queue: every other mailbox has its turn first.
            make_ready(lane, &scope, &mut self.ready);
        }
        granted
    }

    /// Returns when to call `dispatch` again if no request ends before. Returns `None` if only the end of a request can
    /// help.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        if let Some(fence) = self.fence.until(now) {
            return Some(fence);
        }
        if self.in_flight >= self.window.places() {
            return None;
        }
        self.timed.peek().map(|Reverse(timed)| timed.at)
    }

    /// Returns true if no request is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }

    /// Records that a request was answered without a refusal.
    pub(super) fn succeeded(&mut self, scope: &Scope) {
        self.window.succeeded();
        self.fence.succeeded();
        if let Some(lane) = self.lanes.get_mut(scope) {
            lane.succeeded();
        }
    }

    /// Records that a request that was sent at `sent` was refused. Returns the number of consecutive rounds of refusals
    /// for `affected`.
    pub(super) fn refused(&mut self, scope: &Scope, affected: Affected, sent: Instant, now: Instant) -> u32 {
        match affected {
            Affected::Tenant => self.window.refused(sent, now),
            Affected::Scope => self.lanes.get_mut(scope).map_or(1, |lane| lane.refused(sent, now)),
        }
    }

    /// Makes the requests that `affected` concerns wait until `until`. If that is too long, removes them from the queue
    /// and returns their keys.
    pub(super) fn hold(&mut self, scope: &Scope, affected: Affected, until: Instant, now: Instant) -> Vec<QueueKey> {
        let fence = match affected {
            Affected::Tenant => &mut self.fence,
            Affected::Scope => match self.lanes.get_mut(scope) {
                Some(lane) => &mut lane.fence,
                None => return Vec::new(),
            },
        };
        fence.hold(until, self.patience, now);
        if fence.closed_until(now).is_none() {
            return Vec::new();
        }
        let give_up = |lane: &mut Lane| std::mem::take(&mut lane.waiting).into_keys();
        match affected {
            Affected::Tenant => self.lanes.values_mut().flat_map(give_up).collect(),
            Affected::Scope => self.lanes.get_mut(scope).into_iter().flat_map(give_up).collect(),
        }
    }

    /// Returns the time until which no request to `scope` may be sent, if that is longer than any request waits.
    pub(super) fn closed_until(&self, scope: &Scope, now: Instant) -> Option<Instant> {
        let lane = self.lanes.get(scope).and_then(|lane| lane.fence.closed_until(now));
        lane.max(self.fence.closed_until(now))
    }

    /// Ends a granted request.
    pub(super) fn finish(&mut self, scope: &Scope) {
        self.in_flight -= 1;
        if let Some(lane) = self.lanes.get_mut(scope) {
            lane.in_flight -= 1;
            make_ready(lane, scope, &mut self.ready);
        }
    }

    /// From time to time, removes mailboxes that had no requests for a while. So a large tenant takes no more memory
    /// than a small one.
    fn sweep(&mut self, now: Instant) {
        self.lanes_added += 1;
        if self.lanes_added >= LANES_PER_SWEEP.max(self.lanes.len() / 2) {
            self.lanes_added = 0;
            self.lanes.retain(|_, lane| !lane.is_idle(now));
        }
    }
}

fn make_ready(lane: &mut Lane, scope: &Scope, ready: &mut VecDeque<Scope>) {
    if !lane.is_ready && !lane.waiting.is_empty() {
        lane.is_ready = true;
        ready.push_back(scope.clone());
    }
}
