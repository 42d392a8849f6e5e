//! Decides whether and when a request is sent again.
//!
//! This depends on what went wrong (`Fault`), and how often. A busy service is given a long time. After a failure, a
//! request is sent a few more times. The waits grow, and have a random part so that many clients do not come back at
//! once. A final refusal is not tried again.

use std::time::Duration;
use tokio::time::Instant;

/// How often, and for how long, requests are sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Maximum time for which the service may refuse a request for lack of capacity before it is given up.
    pub throttled_max: Duration,
    /// Maximum number of attempts if the service or the network fails.
    pub attempts_max: u32,
    /// The wait after the first such failure. It doubles each time.
    pub delay_min: Duration,
    /// The longest wait after such a failure.
    pub delay_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            throttled_max: Duration::from_secs(20 * 60),
            attempts_max: 6,
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(5 * 60),
        }
    }
}

/// Maximum number of attempts after an answer that is usually true, such as "not found" without a code.
const DOUBTFUL_ATTEMPTS_MAX: u32 = 3;
/// Maximum wait that the service may ask for. The real service asks for minutes.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// Maximum number of attempts if the token is refused, each with a new token. The service sometimes refuses a new token
/// for a few seconds.
const UNAUTHORIZED_ATTEMPTS_MAX: u32 = 6;

/// What went wrong, as far as it matters for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The service lacks capacity, and may have said for how long.
    Throttled(Option<Duration>),
    /// The service or the network failed, or the answer was cut off.
    Broken,
    /// The token was refused.
    Unauthorized,
    /// The answer is most likely true, but sometimes is not.
    Doubtful,
}

/// The attempts at one request so far.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    throttled_since: Option<Instant>,
    broken: u32,
    unauthorized: u32,
    doubtful: u32,
}

impl Attempts {
    /// Returns how long to wait before the next attempt, or `None` if there is none. `random` is in `0.0..1.0`.
    ///
    /// `refusals` is how often in a row the service refused this request or its neighbours for lack of capacity. If
    /// each request counted only its own refusals, a hundred requests would keep trying at short intervals, and every
    /// attempt counts against the limits.
    pub(crate) fn next(
        &mut self,
        policy: &RetryPolicy,
        fault: Fault,
        refusals: u32,
        now: Instant,
        random: f64,
    ) -> Option<Duration> {
        match fault {
            Fault::Throttled(hint) => {
                let since = *self.throttled_since.get_or_insert(now);
                // Wait a little longer than the service asked: the clocks differ, and other requests were told the
                // same.
                let wait = match hint {
                    Some(hint) => hint + hint.mul_f64(0.05).min(Duration::from_secs(1)).mul_f64(random),
                    None => backoff(policy, 2 * policy.delay_min, refusals.max(1), random),
                };
                (now + wait <= since + policy.throttled_max).then_some(wait)
            }
            Fault::Broken => {
                self.broken += 1;
                (self.broken < policy.attempts_max).then(|| backoff(policy, policy.delay_min, self.broken, random))
            }
            Fault::Unauthorized => {
                self.unauthorized += 1;
                // The first time, the token has probably just expired.
                let wait = match self.unauthorized {
                    1 => Duration::ZERO,
                    n => backoff(policy, policy.delay_min, n - 1, random),
                };
                (self.unauthorized < UNAUTHORIZED_ATTEMPTS_MAX).then_some(wait)
            }
            Fault::Doubtful => {
                self.doubtful += 1;
                let wait = backoff(policy, policy.delay_min, self.doubtful, random);
                (self.doubtful < DOUBTFUL_ATTEMPTS_MAX).then_some(wait)
            }
        }
    }
}

/// Returns the wait after the `n`-th failure, counted from 1: between half and all of `first`, doubled `n - 1` times.
fn backoff(policy: &RetryPolicy, first: Duration, n: u32, random: f64) -> Duration {
    let full = first.saturating_mul(1 << (n - 1).min(20)).min(policy.delay_max);
    full.mul_f64(0.5 + random / 2.0)
}

/// Returns a random number in `0.0..1.0`.
pub(crate) fn random() -> f64 {
    f64::from(u32::from_le_bytes(crate::format::crypto::random())) / (f64::from(u32::MAX) + 1.0)
}

/// Returns how long `Retry-After` says to wait, at most [`RETRY_AFTER_MAX`]. The value is in seconds, or an HTTP date
/// (RFC 9110, 10.2.3). A date is compared with the `Date` of the answer, not with the clock of this machine.
pub(crate) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // If there are too many digits for a number, the wait is long too.
        let wait = Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(RETRY_AFTER_MAX);
        // Zero says nothing about when the request would succeed.
        return (!wait.is_zero()).then_some(wait);
    }
    let parse = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let now = date.and_then(parse).unwrap_or_else(jiff::Timestamp::now);
    let wait = parse(value)?.duration_since(now);
    Duration::try_from(wait).ok().filter(|wait| !wait.is_zero()).map(|wait| wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits(fault: Fault, random: f64) -> Vec<Duration> {
        let policy = RetryPolicy::default();
        let mut attempts = Attempts::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        while let Some(wait) = attempts.next(&policy, fault, waits.len() as u32 + 1, now, random) {
            now += wait;
            waits.push(wait);
        }
        waits
    }

    #[test]
    fn a_failing_request_is_sent_six_times() {
        assert_eq!(waits(Fault::Broken, 1.0), [1, 2, 4, 8, 16].map(Duration::from_secs));
        assert_eq!(waits(Fault::Broken, 0.0), [500, 1_000, 2_000, 4_000, 8_000].map(Duration::from_millis));
    }

    #[test]
    fn a_busy_service_is_waited_for() {
        // As long as the service says, and a little more.
        let waits_told = waits(Fault::Throttled(Some(60 * SECOND)), 0.5);
        assert_eq!(waits_told.len(), 19);
        assert!(waits_told.iter().all(|&wait| wait > 60 * SECOND && wait < 61 * SECOND));
        assert!(waits(Fault::Throttled(Some(21 * 60 * SECOND)), 0.0).is_empty(), "longer than anybody waits");
        // Longer each time if the service does not say.
        let waits_untold = waits(Fault::Throttled(None), 1.0);
        assert_eq!(waits_untold[..8], [2, 4, 8, 16, 32, 64, 128, 256].map(Duration::from_secs));
        assert!(waits_untold[8..].iter().all(|&wait| wait == 300 * SECOND));
        assert!(waits_untold.iter().sum::<Duration>() <= 20 * 60 * SECOND);
    }

    #[test]
    fn a_refused_token_is_replaced_at_once_and_then_with_patience() {
        assert_eq!(waits(Fault::Unauthorized, 1.0), [0, 1, 2, 4, 8].map(Duration::from_secs));
        assert_eq!(waits(Fault::Doubtful, 1.0), [1, 2].map(Duration::from_secs));
    }

    #[test]
    fn faults_of_each_kind_are_counted_apart() {
        let (policy, now) = (RetryPolicy::default(), Instant::now());
        let mut attempts = Attempts::default();
        for _ in 0..2 {
            assert!(attempts.next(&policy, Fault::Doubtful, 0, now, 0.0).is_some());
            assert!(attempts.next(&policy, Fault::Throttled(None), 1, now, 0.0).is_some());
        }
        assert_eq!(attempts.next(&policy, Fault::Doubtful, 0, now, 0.0), None);
        assert_eq!(attempts.next(&policy, Fault::Broken, 0, now, 1.0), Some(SECOND));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", None), Some(120 * SECOND));
        assert_eq!(retry_after(" 1 ", None), Some(SECOND));
        assert_eq!(retry_after("0", None), None);
        assert_eq!(retry_after("-5", None), None);
        assert_eq!(retry_after("soon", None), None);
        let (date, later) = ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:29:30 GMT");
        assert_eq!(retry_after(later, Some(date)), Some(90 * SECOND));
        assert_eq!(retry_after(date, Some(later)), None, "a date gone by");
        assert!(retry_after("Wed, 21 Oct 2099 07:28:00 GMT", None).is_some());
        for years in ["4294967295", "18446744073709551616", "999999999999999999999999", "Thu, 31 Dec 9998 23:59:59 GMT"]
        {
            assert_eq!(retry_after(years, Some(date)), Some(RETRY_AFTER_MAX), "{years}");
        }
    }
}
