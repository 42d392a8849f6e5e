//! Decides how far to fetch ahead: measures requests, and detects readers that read in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::PIECE_LEN;
use crate::backend::ObjectName;

/// Maximum number of bytes fetched ahead of one reader.
const WINDOW_LEN_MAX: u64 = 8 << 20;
/// Minimum time of a request, in seconds. If requests are quicker, fetching ahead gains nothing.
const LATENCY_MIN: f64 = 0.001;
/// Number of latest requests that the estimate uses.
const REQUESTS_JUDGED: usize = 16;
/// Maximum number of readers that are tracked.
const STREAMS_MAX: usize = 16;
/// Maximum distance in bytes, in either direction, between the end of a reader's last range and the start of its next,
/// if this still counts as reading in order. Blocks of another kind may lie between.
const GAP_LEN_MAX: u64 = 2 * PIECE_LEN as u64;

/// Measured cost of requests: the time each took, and the transfer rate.
#[derive(Debug, Default)]
pub struct Pace {
    /// Times of the last requests in seconds, the latest at the end. `rate` is in bytes per second.
    times: VecDeque<f64>,
    rate: f64,
}

impl Pace {
    /// Notes that a request for `len` bytes took `elapsed`.
    pub fn record(&mut self, len: usize, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64().max(1e-6);
        if self.times.len() == REQUESTS_JUDGED {
            self.times.pop_front();
        }
        self.times.push_back(elapsed);
        // The time of the quickest request estimates the latency: what passes before the first byte arrives.
        let before = self.times.iter().copied().fold(elapsed, f64::min);
        let rate = len as f64 / (elapsed - before).max(elapsed / 10.0);
        self.rate = if self.rate == 0.0 { rate } else { self.rate * 0.8 + rate * 0.2 };
    }

    /// Returns how many bytes to keep under way, so that data always arrives: twice what arrives in the time of one
    /// request. Returns 0 if requests are so quick that fetching ahead gains nothing.
    pub fn window(&self) -> u64 {
        // Use the median: a few very quick or very slow requests say little about the next one.
        let mut times: Vec<_> = self.times.iter().copied().collect();
        times.sort_unstable_by(f64::total_cmp);
        let usual = times.get(times.len() / 2).copied().unwrap_or_default();
        if usual < LATENCY_MIN {
            return 0;
        }
        ((2.0 * usual * self.rate) as u64).clamp(PIECE_LEN as u64, WINDOW_LEN_MAX)
    }
}

/// The tracked readers. The one that read last is at the end.
#[derive(Debug, Default)]
pub struct Streams(VecDeque<Stream>);

#[derive(Debug)]
struct Stream {
    name: ObjectName,
    /// Offset where its last range ended.
    next: u64,
    /// Number of bytes that it read in order.
    run: u64,
    /// Offset up to which the pack was read or fetched ahead.
    ahead: u64,
}

impl Streams {
    /// Notes that `range` is read, and returns the range to fetch ahead. That range is never longer than what was read
    /// in order before. It is empty while at least half of `window` is already fetched.
    pub fn step(&mut self, name: ObjectName, range: &Range<u64>, window: u64) -> Range<u64> {
        let goes_on = |stream: &Stream| {
            stream.name == name && stream.next.abs_diff(range.start) <= GAP_LEN_MAX && range.end > stream.next
        };
        let known = self.0.iter().rposition(goes_on).and_then(|at| self.0.remove(at));
        let is_new = known.is_none();
        if self.0.len() == STREAMS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(known.unwrap_or(Stream { name, next: range.end, run: 0, ahead: range.end }));
        let Some(stream) = self.0.back_mut().filter(|_| !is_new) else { return 0..0 };
        stream.run += range.end - range.start;
        stream.next = range.end;
        let window = window.min(stream.run);
        let from = stream.ahead.max(range.end);
        let to = range.end.saturating_add(window);
        if from >= range.end.saturating_add(window.div_ceil(2)) {
            return 0..0;
        }
        stream.ahead = to;
        from..to
    }

    /// Notes that `name` ended before the last fetched range did, so that nothing more of it is fetched ahead.
    pub fn end(&mut self, name: ObjectName) {
        self.0.iter_mut().filter(|stream| stream.name == name).for_each(|stream| stream.ahead = u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ObjectKind;
    use crate::backend::testing::name;

    const KIB: u64 = 1 << 10;

    #[test]
    fn the_window_fits_the_latency_and_the_rate() {
        let mut near = Pace::default();
        (0..100).for_each(|_| near.record(PIECE_LEN, Duration::from_micros(200)));
        assert_eq!(near.window(), 0);

        // 20 ms and 50 MB/s.
        let mut far = Pace::default();
        for len in [256 << 10, 64 << 10, 1 << 20, 512 << 10].repeat(20) {
            far.record(len, Duration::from_secs_f64(0.02 + len as f64 / 50e6));
        }
        let window = far.window();
        assert!((1 << 20..4 << 20).contains(&window), "{window}");

        // A few very quick or very slow requests change little.
        for millis in [0.3, 900.0, 0.3, 0.2, 900.0, 0.2] {
            far.record(PIECE_LEN, Duration::from_secs_f64(millis / 1e3));
            assert!(far.window() >= PIECE_LEN as u64, "{}", far.window());
        }
        // When a distant backend becomes near, or a near one distant, the window follows after some requests.
        (0..REQUESTS_JUDGED).for_each(|_| far.record(PIECE_LEN, Duration::from_micros(300)));
        assert_eq!(far.window(), 0);
        (0..REQUESTS_JUDGED).for_each(|_| near.record(1 << 20, Duration::from_millis(30)));
        assert!(near.window() >= 2 << 20, "{}", near.window());
    }

    #[test]
    fn only_reading_in_order_is_fetched_ahead_of_and_no_more_than_was_read() {
        let (pack, window) = (name(ObjectKind::Pack, 1), 4096 * KIB);
        let mut streams = Streams::default();
        for at in [9_000, 500, 20_000, 4_000, 70_000, 0] {
            assert_eq!(streams.step(pack, &(at * KIB..(at + 100) * KIB), window), 0..0, "a leap");
        }
        let (mut read, mut fetched) = (0, 0);
        for at in (100..60_000).step_by(100) {
            let ahead = streams.step(pack, &(at * KIB..(at + 100) * KIB), window);
            read += 100 * KIB;
            fetched += ahead.end - ahead.start;
            assert!(fetched <= 2 * read, "{fetched} fetched, {read} read");
            assert!(ahead.is_empty() || ahead.end <= (at + 100) * KIB + window);
        }
        assert!(fetched >= read);

        streams.end(pack);
        assert_eq!(streams.step(pack, &(60_000 * KIB..60_100 * KIB), window), 0..0, "there is no more");
    }

    #[test]
    fn readers_of_one_pack_do_not_disturb_each_other() {
        let pack = name(ObjectKind::Pack, 1);
        let mut streams = Streams::default();
        let mut fetched = 0;
        for step in 0..50 {
            for reader in 0..10 {
                let at = (reader * 100_000 + step * 100) * KIB;
                fetched += streams.step(pack, &(at..at + 100 * KIB), 1 << 20).count() as u64;
            }
        }
        assert!(fetched > 10 * 45 * 100 * KIB, "{fetched}");
        // Random reads do not disturb them either: the reader that was idle longest is forgotten, not the one that
        // began first.
        for step in 50..80 {
            let ranges = [step * 100, 5_000_000 + step * 9000, 7_000_000 - step * 9000];
            let ahead = ranges.map(|at| streams.step(pack, &(at * KIB..(at + 100) * KIB), 1 << 20));
            assert!(ahead[1].is_empty() && ahead[2].is_empty());
            fetched = if step == 50 { 0 } else { fetched + ahead[0].clone().count() as u64 };
        }
        assert!(fetched > 25 * 100 * KIB, "{fetched}");
    }
}
