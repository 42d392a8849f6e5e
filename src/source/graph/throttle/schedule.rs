//! Who goes next: the rules of [`super::Gate`] without waiting and without locks. Time is an argument.

use super::window::Window;
use super::{Limits, MAILBOX_CONCURRENCY_MAX, Whose};
use crate::source::graph::request::Scope;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Share of a limit that is used, in percent. The service counts when a request arrives, not when it left; the rest is
/// for those that met on the way.
const USED_PERCENT: u64 = 96;
/// After so many requests without a refusal a mailbox that refused one gets a place back: were they to end in one more
/// refusal, that would be half a percent.
const SUCCESSES_PER_PLACE: u32 = 200;
/// Lanes are looked through for forgotten ones when so many were added.
const LANES_PER_SWEEP: usize = 256;

/// Place in the queue of a lane: unknown sizes first, then the largest, then the order of arrival.
pub(super) type Place = (Option<Reverse<u64>>, u64);

/// What a request is about to do, as far as the rules care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Roughly how many bytes the answer will have.
    pub(super) size_hint: Option<u64>,
    /// How many bytes it carries.
    pub(super) upload: u64,
}

/// Requests that wait and requests in flight, and since when.
pub(super) struct Schedule {
    limits: Limits,
    origin: Instant,
    in_flight: usize,
    window: AdaptiveWindow,
    fence: Fence,
    /// How long it is worth to wait for a service that takes nothing at all.
    patience: Duration,
    lanes: HashMap<Scope, Lane>,
    /// Lanes that may be able to go, each once, in turns.
    ready: VecDeque<Scope>,
    /// Lanes that wait for a time.
    timed: BinaryHeap<Reverse<Timed>>,
    sequence: u64,
    lanes_added: usize,
}

/// How many requests of the whole tenant may be in flight: one more for each window full of successes, half as many
/// after a refusal.
struct AdaptiveWindow {
    size: f64,
    ceiling: f64,
    rounds: Rounds,
}

/// Counts refusals by rounds: those of requests that were under way together are one.
#[derive(Default)]
struct Rounds {
    last: Option<Instant>,
    count: u32,
}

impl Rounds {
    /// Notes a refusal of a request that left at `sent`, and returns whether it begins a round.
    fn refused(&mut self, sent: Instant, now: Instant) -> bool {
        let is_new = self.last.is_none_or(|last| sent > last);
        if is_new {
            self.last = Some(now);
            self.count = self.count.saturating_add(1);
        }
        // A straggler of a round that a success ended.
        self.count = self.count.max(1);
        is_new
    }

    fn succeeded(&mut self) {
        self.count = 0;
    }
}

/// Keeps requests waiting until a time, and knows when that is of no use.
#[derive(Default)]
struct Fence {
    until: Option<Instant>,
    /// When the service refused a request first after it had taken one.
    refused_since: Option<Instant>,
    /// Whether it stands for longer than anybody waits.
    is_closed: bool,
}

impl Fence {
    /// Lets nobody pass before `until`. Whoever has been refused everything for `patience` by then does not wait for
    /// it.
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

    /// Returns until when nobody passes, if it stands.
    fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    /// Returns until when nobody passes, if that is longer than anybody waits.
    fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.until(now).filter(|_| self.is_closed)
    }
}

impl AdaptiveWindow {
    fn places(&self) -> usize {
        // At least one, at most the ceiling: far from what a cast could lose.
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

/// A mailbox, or the directory.
struct Lane {
    waiting: BTreeMap<Place, Load>,
    in_flight: usize,
    /// How many may be in flight, and how many at the best of times.
    places: usize,
    places_max: usize,
    successes: u32,
    rounds: Rounds,
    requests: Window,
    uploads: Window,
    fence: Fence,
    /// Whether it stands in `ready`.
    is_ready: bool,
    /// Its earliest time in `timed`.
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
        let budget = self.requests.ready_at(now, 1).max(self.uploads.ready_at(now, load.upload));
        self.fence.until(now).map_or(budget, |fence| budget.max(fence))
    }

    fn refused(&mut self, sent: Instant, now: Instant) -> u32 {
        self.successes = 0;
        // The directory has no places to count.
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

    /// Lets a request wait, and returns its place.
    pub(super) fn enqueue(&mut self, now: Instant, scope: &Scope, load: Load) -> Place {
        self.sequence += 1;
        let place = (load.size_hint.map(Reverse), self.sequence);
        if !self.lanes.contains_key(scope) {
            self.sweep(now);
            self.lanes.insert(scope.clone(), Lane::new(scope, &self.limits, self.origin));
        }
        let lane = self.lanes.get_mut(scope).expect("it was inserted if it was missing");
        lane.waiting.insert(place, load);
        // It may be able to go although the lane waits for a time: the others may carry more than it.
        make_ready(lane, scope, &mut self.ready);
        place
    }

    /// Takes a request that waits out of the queue, and returns whether it was still there.
    pub(super) fn withdraw(&mut self, scope: &Scope, place: Place) -> bool {
        self.lanes.get_mut(scope).is_some_and(|lane| lane.waiting.remove(&place).is_some())
    }

    /// Lets everybody go who may, and returns their places. Each of them must be given back with [`Schedule::finish`].
    pub(super) fn dispatch(&mut self, now: Instant) -> Vec<Place> {
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
            // A lane that is full is made ready again by the next of its requests that ends.
            if lane.in_flight >= lane.places {
                continue;
            }
            let Some((&place, &load)) = lane.waiting.first_key_value() else { continue };
            let ready_at = lane.ready_at(now, load);
            if ready_at > now {
                if lane.timed.is_none_or(|timed| ready_at < timed) {
                    lane.timed = Some(ready_at);
                    self.timed.push(Reverse(Timed { at: ready_at, scope }));
                }
                continue;
            }
            lane.waiting.remove(&place);
            lane.requests.charge(now, 1);
            lane.uploads.charge(now, load.upload);
            lane.in_flight += 1;
            self.in_flight += 1;
            granted.push(place);
            // To the end of the row: every mailbox has its turn before this one has the next.
            make_ready(lane, &scope, &mut self.ready);
        }
        granted
    }

    /// Returns when to dispatch again although nothing ends until then, if that can help.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        if let Some(fence) = self.fence.until(now) {
            return Some(fence);
        }
        if self.in_flight >= self.window.places() {
            return None;
        }
        self.timed.peek().map(|Reverse(timed)| timed.at)
    }

    /// Returns whether nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }

    /// Notes that a request was answered, and not with a refusal.
    pub(super) fn succeeded(&mut self, scope: &Scope) {
        self.window.succeeded();
        self.fence.succeeded();
        if let Some(lane) = self.lanes.get_mut(scope) {
            lane.succeeded();
        }
    }

    /// Notes that a request that left at `sent` was refused. Returns in how many rounds in a row that happened to
    /// `whose`.
    pub(super) fn refused(&mut self, scope: &Scope, whose: Whose, sent: Instant, now: Instant) -> u32 {
        match whose {
            Whose::Tenant => self.window.refused(sent, now),
            Whose::Scope => self.lanes.get_mut(scope).map_or(1, |lane| lane.refused(sent, now)),
        }
    }

    /// Lets nobody of `whose` go before `until`. Returns the places of those who do not wait for that, since it is too
    /// long.
    pub(super) fn hold(&mut self, scope: &Scope, whose: Whose, until: Instant, now: Instant) -> Vec<Place> {
        let fence = match whose {
            Whose::Tenant => &mut self.fence,
            Whose::Scope => match self.lanes.get_mut(scope) {
                Some(lane) => &mut lane.fence,
                None => return Vec::new(),
            },
        };
        fence.hold(until, self.patience, now);
        if fence.closed_until(now).is_none() {
            return Vec::new();
        }
        let give_up = |lane: &mut Lane| std::mem::take(&mut lane.waiting).into_keys();
        match whose {
            Whose::Tenant => self.lanes.values_mut().flat_map(give_up).collect(),
            Whose::Scope => self.lanes.get_mut(scope).into_iter().flat_map(give_up).collect(),
        }
    }

    /// Returns until when nothing of `scope` goes, if that is longer than anybody waits.
    pub(super) fn closed_until(&self, scope: &Scope, now: Instant) -> Option<Instant> {
        let lane = self.lanes.get(scope).and_then(|lane| lane.fence.closed_until(now));
        lane.max(self.fence.closed_until(now))
    }

    /// Takes back the place of a request that was let go.
    pub(super) fn finish(&mut self, scope: &Scope) {
        self.in_flight -= 1;
        if let Some(lane) = self.lanes.get_mut(scope) {
            lane.in_flight -= 1;
            make_ready(lane, scope, &mut self.ready);
        }
    }

    /// Forgets mailboxes that were not asked for a while, now and then, so that a large tenant takes no more memory
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
