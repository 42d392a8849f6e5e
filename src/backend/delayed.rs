//! A backend with added latency, like one behind a network: for tests and measurements.
//!
//! Every request waits for a fixed delay before it begins; a listing counts as one request. Far from the storage, what
//! matters is the number of requests, and how many of them wait for others. Both are counted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Backend, BackendError, ObjectKind, ObjectName, Operation};

/// Wraps a backend and delays every request to it.
pub struct Delayed<B> {
    inner: B,
    delay: Duration,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(Operation, ObjectKind), u64>,
    /// Length of the longest chain of requests in which each began after the previous one had ended.
    rounds: u64,
    /// Number of resets so far. A request that began before the last reset is not counted.
    resets: u64,
}

impl<B: Backend> Delayed<B> {
    /// Wraps `inner`; every request takes `delay` longer.
    pub fn new(inner: B, delay: Duration) -> Self {
        Self { inner, delay, counts: Mutex::default() }
    }

    /// Returns how many requests there were.
    pub fn requests(&self) -> u64 {
        self.counts.lock().requests.values().sum()
    }

    /// Returns how many requests did `operation` on objects of `kind`.
    pub fn requests_of(&self, operation: Operation, kind: ObjectKind) -> u64 {
        self.counts.lock().requests.get(&(operation, kind)).copied().unwrap_or_default()
    }

    /// Returns how many requests ran one after the other. Concurrent requests count once. The caller waited for the
    /// delay at least this many times.
    pub fn rounds(&self) -> u64 {
        self.counts.lock().rounds
    }

    /// Sets all counts to zero.
    pub fn reset(&self) {
        let mut counts = self.counts.lock();
        *counts = Counts { resets: counts.resets + 1, ..Counts::default() };
    }

    fn request<T>(&self, operation: Operation, kind: ObjectKind, run: impl FnOnce() -> T) -> T {
        let (round, resets) = {
            let mut counts = self.counts.lock();
            *counts.requests.entry((operation, kind)).or_default() += 1;
            (counts.rounds + 1, counts.resets)
        };
        thread::sleep(self.delay);
        let done = run();
        let mut counts = self.counts.lock();
        if counts.resets == resets {
            counts.rounds = counts.rounds.max(round);
        }
        done
    }
}

impl<B: Backend> Backend for Delayed<B> {
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        self.request(Operation::Save, name.kind(), || self.inner.save(name, data))
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        self.request(Operation::Load, name.kind(), || self.inner.load(name))
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        self.request(Operation::LoadRange, name.kind(), || self.inner.load_range(name, range))
    }

    fn load_up_to(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        self.request(Operation::LoadRange, name.kind(), || self.inner.load_up_to(name, range))
    }

    fn drop_local_copy(&self, name: ObjectName, range: Range<u64>) -> bool {
        self.inner.drop_local_copy(name, range)
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        self.request(Operation::List, kind, || self.inner.list(kind, each))
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        self.request(Operation::Size, name.kind(), || self.inner.size(name))
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        self.request(Operation::Remove, name.kind(), || self.inner.remove(name))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mem::Mem;
    use super::super::testing::{self, listing, name};
    use super::*;
    use std::time::Instant;

    #[test]
    fn keeps_the_contract() {
        testing::suite(|| Box::new(Delayed::new(Mem::new(), Duration::ZERO)));
    }

    #[test]
    fn every_request_takes_its_time_and_those_beside_each_other_the_same() {
        const DELAY: Duration = Duration::from_millis(30);
        let delayed = Delayed::new(Mem::new(), DELAY);
        let pack = name(ObjectKind::Pack, 1);
        let begun = Instant::now();
        delayed.save(pack, b"bytes").unwrap();
        assert_eq!(listing(&delayed, ObjectKind::Pack).len(), 1);
        assert!(begun.elapsed() >= 2 * DELAY);
        assert_eq!((delayed.requests(), delayed.rounds()), (2, 2));

        delayed.reset();
        let begun = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begun.wait();
                    delayed.load_up_to(pack, 0..9).unwrap()
                });
            }
        });
        assert_eq!(delayed.requests_of(Operation::LoadRange, ObjectKind::Pack), 8);
        // A slow thread may have begun after another had ended, so there may be more than one round.
        assert!((1..=7).contains(&delayed.rounds()), "{}", delayed.rounds());
    }
}
