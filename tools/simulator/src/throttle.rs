//! Throttling: the budgets that Graph gives an application, and the answers if one is exceeded.
//!
//! There are two pools. The Outlook pool is per application and mailbox: requests per ten minutes, concurrent requests,
//! megabytes uploaded per five minutes. The identity pool is per application and tenant, in resource units. One more
//! limit applies to all requests. All numbers are settings. Every request counts, including refused ones ("Microsoft
//! Graph service-specific throttling limits", "Microsoft Graph throttling guidance").
//!
//! Windows slide. A window is stored in a hundred slots, not request by request. A slot is forgotten when its *first*
//! moment leaves the window, so a client that keeps exactly to the limit is never refused.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

/// Number of slots of a window.
const SLOTS: u32 = 100;

/// A maximum amount per window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Maximum amount in a window.
    pub max: u64,
    /// Length of the window in milliseconds.
    pub window_ms: u64,
}

impl Rate {
    /// Returns the rate of `max` per `seconds`.
    pub const fn per(max: u64, seconds: u64) -> Self {
        Self { max, window_ms: seconds * 1000 }
    }
}

/// Form of `Retry-After`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryAfter {
    /// Whole seconds, rounded up.
    #[default]
    Seconds,
    /// An HTTP date (RFC 9110, 10.2.3).
    Date,
    /// No header, as a few services do.
    Absent,
}

/// The limits. `None` means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Requests to one mailbox.
    pub mailbox_requests: Option<Rate>,
    /// Maximum number of concurrent requests to one mailbox.
    pub mailbox_concurrency: Option<u32>,
    /// Bytes in the bodies of POST, PATCH and PUT to one mailbox.
    pub mailbox_upload_bytes: Option<Rate>,
    /// Resource units of the identity pool.
    pub identity_units: Option<Rate>,
    /// Changes to the directory.
    pub identity_writes: Option<Rate>,
    /// Requests of any kind.
    pub requests: Option<Rate>,
    /// Seconds to wait after too many concurrent requests.
    pub concurrency_retry_after_s: u64,
    /// Form in which clients are told when to come back.
    pub retry_after: RetryAfter,
    /// Runs the requests of a batch one after another, instead of refusing those that exceed the concurrency.
    pub queue_batches: bool,
    /// How long every request occupies its mailbox, in milliseconds. Without it, a request is answered so quickly that
    /// the next one rarely overlaps, and a client that sends too many concurrent requests may go unnoticed.
    pub service_time_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox_requests: Some(Rate::per(10_000, 600)),
            mailbox_concurrency: Some(4),
            mailbox_upload_bytes: Some(Rate::per(150_000_000, 300)),
            identity_units: Some(Rate::per(3_500, 10)),
            identity_writes: Some(Rate::per(3_000, 150)),
            requests: Some(Rate::per(130_000, 10)),
            concurrency_retry_after_s: 1,
            retry_after: RetryAfter::Seconds,
            queue_batches: false,
            service_time_ms: 0,
        }
    }
}

impl Limits {
    /// Returns limits that never refuse.
    pub fn none() -> Self {
        Self {
            mailbox_requests: None,
            mailbox_concurrency: None,
            mailbox_upload_bytes: None,
            identity_units: None,
            identity_writes: None,
            requests: None,
            ..Self::default()
        }
    }

    /// Returns the limits of a tenant with `users` users. Small tenants have a smaller identity pool.
    pub fn for_tenant(users: usize) -> Self {
        let units = match users {
            0..50 => 3_500,
            50..=500 => 5_000,
            _ => 8_000,
        };
        Self { identity_units: Some(Rate::per(units, 10)), ..Self::default() }
    }
}

/// The pool that a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost<'a> {
    /// The Outlook pool of a mailbox.
    Mailbox {
        /// The mailbox. Both names of a user give the same mailbox.
        id: &'a str,
        /// Length of the body in bytes, if it is an upload.
        upload_bytes: u64,
    },
    /// The identity pool.
    Identity {
        /// Resource units.
        units: u64,
        /// Whether the directory is changed.
        write: bool,
    },
    /// Only the limit on all requests.
    Free,
}

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::mailbox_requests`]
    MailboxRequests,
    /// [`Limits::mailbox_concurrency`]
    MailboxConcurrency,
    /// [`Limits::mailbox_upload_bytes`]
    MailboxUpload,
    /// [`Limits::identity_units`]
    IdentityUnits,
    /// [`Limits::identity_writes`]
    IdentityWrites,
    /// [`Limits::requests`]
    Requests,
}

/// Refusal of a request that exceeds a limit; 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The limit.
    pub limit: Limit,
    /// Time until the request would be admitted.
    pub wait: Duration,
}

impl Refusal {
    /// Returns the code of the error.
    pub fn code(&self) -> &'static str {
        match self.limit {
            Limit::MailboxRequests | Limit::MailboxConcurrency | Limit::MailboxUpload => "ApplicationThrottled",
            Limit::IdentityUnits | Limit::IdentityWrites | Limit::Requests => "TooManyRequests",
        }
    }

    /// Returns the text of the error.
    pub fn message(&self) -> &'static str {
        match self.limit {
            Limit::MailboxRequests => "Application is over its MailboxRequests limit.",
            Limit::MailboxConcurrency => "Application is over its MailboxConcurrency limit.",
            Limit::MailboxUpload => "Application is over its MailboxUpload limit.",
            Limit::IdentityUnits | Limit::IdentityWrites | Limit::Requests => "Too many requests",
        }
    }

    /// Returns the header `x-ms-throttle-information`, which only the identity pool sends.
    pub fn information(&self) -> Option<&'static str> {
        match self.limit {
            Limit::IdentityUnits => Some("ResourceUnitLimitExceeded"),
            Limit::IdentityWrites => Some("WriteLimitExceeded"),
            _ => None,
        }
    }

    /// Returns the seconds for `Retry-After`, rounded up, so that a client that waits this long is not refused again.
    pub fn retry_after_s(&self) -> u64 {
        (self.wait.as_millis().div_ceil(1000) as u64).max(1)
    }
}

/// An admitted request. Dropping it makes room for another request to the mailbox.
pub struct Permit {
    /// Resource units that the request took.
    pub units: Option<u64>,
    /// Usage of the identity pool; 1.0 is the limit.
    pub used: f64,
    mailbox: Option<(Arc<Throttle>, String)>,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("mailbox", &self.mailbox.as_ref().map(|(_, id)| id)).finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((throttle, id)) = self.mailbox.take() {
            throttle.release(&id);
        }
    }
}

/// Counts the requests of an application against [`Limits`].
#[derive(Debug)]
pub struct Throttle {
    limits: RwLock<Limits>,
    pools: Mutex<Pools>,
    begin: Instant,
}

#[derive(Debug, Default)]
struct Pools {
    mailboxes: HashMap<String, Mailbox>,
    units: Window,
    writes: Window,
    requests: Window,
}

#[derive(Debug, Default)]
struct Mailbox {
    requests: Window,
    upload: Window,
    in_flight: u32,
}

impl Throttle {
    /// Creates a throttle with nothing counted yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits: RwLock::new(limits), pools: Mutex::default(), begin: Instant::now() }
    }

    /// Returns the current limits.
    pub fn limits(&self) -> Limits {
        self.limits.read().clone()
    }

    /// Counts bytes of an upload whose length was not known in advance. If they exceed the limit, the next upload is
    /// refused.
    pub fn charge_upload(&self, mailbox: &str, bytes: u64, now: Instant) {
        let rate = self.limits.read().mailbox_upload_bytes;
        let now = now.saturating_duration_since(self.begin);
        if let Some(mailbox) = self.pools.lock().mailboxes.get_mut(mailbox) {
            let _ = mailbox.upload.take(rate, bytes, now, Limit::MailboxUpload);
        }
    }

    /// Replaces the limits and forgets what was counted so far, except for requests under way.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write() = limits;
        let mut pools = self.pools.lock();
        pools.units = Window::default();
        pools.writes = Window::default();
        pools.requests = Window::default();
        for mailbox in pools.mailboxes.values_mut() {
            mailbox.requests = Window::default();
            mailbox.upload = Window::default();
        }
    }

    /// Admits a request, or says which limit it exceeds.
    ///
    /// # Errors
    /// [`Refusal`] with the time to wait.
    pub fn admit(self: &Arc<Self>, cost: Cost<'_>, now: Instant) -> Result<Permit, Refusal> {
        let limits = self.limits.read();
        let now = now.saturating_duration_since(self.begin);
        let mut pools = self.pools.lock();
        pools.requests.take(limits.requests, 1, now, Limit::Requests)?;
        match cost {
            Cost::Free => Ok(Permit { units: None, used: 0.0, mailbox: None }),
            Cost::Identity { units, write } => {
                if write {
                    pools.writes.take(limits.identity_writes, 1, now, Limit::IdentityWrites)?;
                }
                pools.units.take(limits.identity_units, units, now, Limit::IdentityUnits)?;
                let used = limits.identity_units.map_or(0.0, |rate| pools.units.total as f64 / rate.max.max(1) as f64);
                Ok(Permit { units: Some(units), used, mailbox: None })
            }
            Cost::Mailbox { id, upload_bytes } => {
                let mailbox = match pools.mailboxes.get_mut(id) {
                    Some(mailbox) => mailbox,
                    None => pools.mailboxes.entry(id.to_owned()).or_default(),
                };
                mailbox.requests.take(limits.mailbox_requests, 1, now, Limit::MailboxRequests)?;
                if upload_bytes > 0 {
                    mailbox.upload.take(limits.mailbox_upload_bytes, upload_bytes, now, Limit::MailboxUpload)?;
                }
                if limits.mailbox_concurrency.is_some_and(|max| mailbox.in_flight >= max) {
                    let wait = Duration::from_secs(limits.concurrency_retry_after_s);
                    return Err(Refusal { limit: Limit::MailboxConcurrency, wait });
                }
                mailbox.in_flight += 1;
                Ok(Permit { units: None, used: 0.0, mailbox: Some((Arc::clone(self), id.to_owned())) })
            }
        }
    }

    fn release(&self, id: &str) {
        if let Some(mailbox) = self.pools.lock().mailboxes.get_mut(id) {
            mailbox.in_flight -= 1;
        }
    }
}

/// The amounts counted within the window.
#[derive(Debug, Default)]
struct Window {
    /// Slot number and amount, oldest first.
    slots: VecDeque<(u64, u64)>,
    total: u64,
}

impl Window {
    /// Counts `amount`, and refuses if the window then exceeds its maximum.
    fn take(&mut self, rate: Option<Rate>, amount: u64, now: Duration, limit: Limit) -> Result<(), Refusal> {
        let Some(rate) = rate else { return Ok(()) };
        let slot_us = (rate.window_ms * 1000 / u64::from(SLOTS)).max(1);
        let now_us = now.as_micros() as u64;
        let slot = now_us / slot_us;
        while let Some(&(first, amount)) = self.slots.front() {
            if first + u64::from(SLOTS) > slot {
                break;
            }
            self.slots.pop_front();
            self.total -= amount;
        }
        self.total += amount;
        match self.slots.back_mut() {
            Some((last, sum)) if *last == slot => *sum += amount,
            _ => self.slots.push_back((slot, amount)),
        }
        if self.total <= rate.max {
            return Ok(());
        }
        // If nothing else is counted, the same amount fits once enough has left the window. An amount larger than the
        // maximum never fits; the client must wait until the window is empty.
        let mut left = self.total;
        let free = self.slots.iter().find_map(|&(slot, sum)| {
            left -= sum;
            (left + amount <= rate.max).then_some(slot)
        });
        let last = self.slots.back().map_or(slot, |&(slot, _)| slot);
        let until_us = (free.unwrap_or(last) + u64::from(SLOTS)) * slot_us;
        Err(Refusal { limit, wait: Duration::from_micros(until_us.saturating_sub(now_us)) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn throttle(limits: Limits) -> (Arc<Throttle>, Instant) {
        let throttle = Arc::new(Throttle::new(limits));
        let begin = throttle.begin;
        (throttle, begin)
    }

    const A: Cost<'_> = Cost::Mailbox { id: "a", upload_bytes: 0 };
    const B: Cost<'_> = Cost::Mailbox { id: "b", upload_bytes: 0 };

    #[test]
    fn a_mailbox_takes_four_at_a_time_whatever_others_do() {
        let (throttle, now) = throttle(Limits::default());
        let mut permits: Vec<Permit> = (0..4).map(|_| throttle.admit(A, now).unwrap()).collect();
        let refusal = throttle.admit(A, now).unwrap_err();
        assert_eq!(refusal.limit, Limit::MailboxConcurrency);
        assert_eq!(refusal.message(), "Application is over its MailboxConcurrency limit.");
        assert_eq!(refusal.retry_after_s(), 1);
        throttle.admit(B, now).unwrap();
        permits.pop();
        throttle.admit(A, now).unwrap();
    }

    #[test]
    fn requests_are_counted_for_ten_minutes_and_refused_ones_count_too() {
        let (throttle, begin) = throttle(Limits::default());
        for _ in 0..10_000 {
            throttle.admit(A, begin).unwrap();
        }
        let at = begin + Duration::from_secs(300);
        let refusal = throttle.admit(A, at).unwrap_err();
        assert_eq!((refusal.limit, refusal.retry_after_s()), (Limit::MailboxRequests, 300));
        // The refused request at 300 s still counts at 600 s, when the first 10,000 have left the window.
        let at = begin + Duration::from_secs(600);
        for _ in 0..9_999 {
            throttle.admit(A, at).unwrap();
        }
        // Another 10,000 requests fit only after this one and the 9,999 have left the window.
        assert_eq!(throttle.admit(A, at).unwrap_err().retry_after_s(), 600);
    }

    #[test]
    fn uploads_are_counted_in_bytes() {
        let (throttle, now) = throttle(Limits::default());
        let upload = |bytes| Cost::Mailbox { id: "a", upload_bytes: bytes };
        throttle.admit(upload(150_000_000), now).unwrap();
        assert_eq!(throttle.admit(upload(1), now).unwrap_err().limit, Limit::MailboxUpload);
        throttle.admit(A, now).unwrap();
        throttle.admit(upload(1), now + Duration::from_secs(290)).unwrap_err();
        throttle.admit(upload(150_000_000 - 1), now + Duration::from_secs(300)).unwrap();
    }

    #[test]
    fn the_directory_is_counted_in_units() {
        let (throttle, now) = throttle(Limits { identity_units: Some(Rate::per(10, 10)), ..Limits::default() });
        let list = Cost::Identity { units: 2, write: false };
        for used in [0.2, 0.4, 0.6, 0.8, 1.0] {
            let permit = throttle.admit(list, now).unwrap();
            assert_eq!((permit.units, permit.used), (Some(2), used));
        }
        let refusal = throttle.admit(list, now + Duration::from_secs(4)).unwrap_err();
        assert_eq!(refusal.information(), Some("ResourceUnitLimitExceeded"));
        assert_eq!(refusal.retry_after_s(), 6);
    }

    #[test]
    fn new_limits_begin_with_empty_windows() {
        let (throttle, now) = throttle(Limits { mailbox_requests: Some(Rate::per(1, 60)), ..Limits::default() });
        throttle.admit(A, now).unwrap();
        throttle.admit(A, now).unwrap_err();
        throttle.set_limits(Limits::none());
        for _ in 0..100 {
            throttle.admit(A, now).unwrap();
        }
    }

    proptest! {
        /// Compares with a log of all requests: a client that keeps to the limit is never refused, and a client that
        /// waits as told is admitted.
        #[test]
        fn a_window_never_refuses_what_fits(gaps in proptest::collection::vec(0u64..400, 1..200)) {
            let rate = Rate { max: 5, window_ms: 1000 };
            let mut window = Window::default();
            let mut log: Vec<u64> = Vec::new();
            let mut at = 0;
            for gap in gaps {
                at += gap;
                let fits = log.iter().filter(|&&then| then + 1000 > at).count() < 5;
                log.push(at);
                let taken = window.take(Some(rate), 1, Duration::from_millis(at), Limit::Requests);
                if fits {
                    prop_assert!(taken.is_ok(), "refused at {at}: {log:?}");
                } else if let Err(refusal) = taken {
                    let mut later = Window { slots: window.slots.clone(), total: window.total };
                    let then = Duration::from_millis(at) + refusal.wait;
                    prop_assert!(later.take(Some(rate), 1, then, Limit::Requests).is_ok());
                }
            }
        }
    }
}
