//! What an input takes: time on the processor for each byte, more time as it grows, and memory.

use crate::checks::check;
use crate::inputs::Kind;
use anyhow::{Result, bail, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;
use strongroom_corpora::rng::Rng;

/// Twice the input may take this much longer; what is linear takes twice as long.
const GROWTH_MAX: f64 = 2.5;
/// Maximum number of times that three lengths are measured before their times count as not linear.
const ROUNDS_MAX: usize = 16;
/// Twice the input is tried up to this length.
const GROWN_BYTES_MAX: usize = 2 << 20;
/// Shorter times say nothing.
const TIME_MIN: Duration = Duration::from_millis(4);
/// What takes less for each byte is bound by the caches: it grows a little faster than its input.
const TELLING_NS_PER_BYTE: f64 = 50.0;
/// Nothing may take longer: this is a second for 200 KB.
const NS_PER_BYTE_MAX: f64 = 5000.0;
/// What memory may grow while a grown input is read, for each of its bytes and beside.
const MEMORY_PER_BYTE_MAX: usize = 40;
const MEMORY_BASE_BYTES: usize = 64 << 20;

/// An input that can be made any length: a unit is repeated between a head and a tail.
pub struct Growing {
    head: Vec<u8>,
    unit: Vec<u8>,
    tail: Vec<u8>,
}

impl Growing {
    /// Takes a random piece of an input as the unit; all of it or all behind its header now and then.
    pub fn of(input: &[u8], rng: &mut Rng) -> Option<Self> {
        let body = input.windows(2).position(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
        let (from, to) = match rng.below(6) {
            0 => (0, input.len()),
            1 => (body, input.len()),
            _ if input.is_empty() => return None,
            _ => {
                let from = rng.index(input.len());
                let most = *rng.pick(&[2, 8, 30, 100, 1000]);
                (from, input.len().min(from + rng.between(1, most) as usize))
            }
        };
        let (head, tail) = (&input[..from], &input[to..]);
        let unit = &input[from..to];
        (!unit.is_empty() && head.len() + tail.len() < GROWN_BYTES_MAX / 64).then(|| Self {
            head: head.to_vec(),
            unit: unit.to_vec(),
            tail: tail.to_vec(),
        })
    }

    /// Returns the input with about `len` bytes.
    pub fn input(&self, len: usize) -> Vec<u8> {
        let copies = len.div_ceil(self.unit.len());
        [&self.head[..], &self.unit.repeat(copies), &self.tail].concat()
    }

    /// Makes it longer until its time says something, and compares the times of two lengths and of twice that.
    ///
    /// # Errors
    /// When time is more than linear, or memory out of bounds.
    pub fn check(&self, kind: Kind) -> Result<()> {
        let mut len = 32 << 10;
        let mut time = self.time(kind, len)?;
        while time < TIME_MIN && len < GROWN_BYTES_MAX {
            len *= 2;
            time = self.time(kind, len)?;
        }
        if time < TIME_MIN || len * 2 > GROWN_BYTES_MAX {
            return self.check_memory(kind);
        }
        let double = self.time(kind, 2 * len)?;
        if ratio(double, time) > GROWTH_MAX {
            self.compare(kind, len)?;
        }
        self.check_memory(kind)
    }

    /// Compares the times of `len` bytes, of twice that and of twice that again. Other programs may have had the
    /// caches of the processor, so the three are measured in turn, and the best of each counts.
    fn compare(&self, kind: Kind, len: usize) -> Result<()> {
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS_MAX {
            for (best, len) in best.iter_mut().zip([len, 2 * len, 4 * len]) {
                *best = self.time(kind, len)?.min(*best);
            }
            let per_byte = best[2].as_nanos() as f64 / (4 * len) as f64;
            if ratio(best[1], best[0]).min(ratio(best[2], best[1])) <= GROWTH_MAX || per_byte < TELLING_NS_PER_BYTE {
                return Ok(());
            }
        }
        bail!(
            "time is not linear with {:?}: {len} bytes took {:?}, twice as many {:.1} times as long, and again {:.1}",
            String::from_utf8_lossy(&self.unit[..self.unit.len().min(60)]),
            best[0],
            ratio(best[1], best[0]),
            ratio(best[2], best[1])
        );
    }

    fn time(&self, kind: Kind, len: usize) -> Result<Duration> {
        let input = self.input(len);
        let (time, _) = timed(|| check(kind, &input));
        let per_byte = time.as_nanos() as f64 / input.len() as f64;
        if per_byte > NS_PER_BYTE_MAX {
            let (time, _) = timed(|| check(kind, &input));
            let per_byte = time.as_nanos() as f64 / input.len() as f64;
            ensure!(per_byte <= NS_PER_BYTE_MAX, "time for a byte: {per_byte:.0} ns, {} bytes", input.len());
        }
        Ok(time)
    }

    fn check_memory(&self, kind: Kind) -> Result<()> {
        let input = self.input(512 << 10);
        // Begins the measurement of the peak anew (Linux 4.0; proc(5), clear_refs).
        if fs::write("/proc/self/clear_refs", "5").is_err() {
            return Ok(());
        }
        let before = memory("VmRSS:");
        // What does not hold is found where the input itself is checked.
        drop(check(kind, &input));
        let grown = memory("VmHWM:").saturating_sub(before);
        let most = MEMORY_BASE_BYTES + MEMORY_PER_BYTE_MAX * input.len();
        ensure!(grown <= most, "memory out of bounds: {grown} bytes for {} of input", input.len());
        Ok(())
    }
}

fn ratio(long: Duration, short: Duration) -> f64 {
    long.as_secs_f64() / short.as_secs_f64()
}

/// Runs something and returns how long this thread was on the processor.
pub fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let before = now();
    let result = run();
    (now().saturating_sub(before), result)
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Returns how long this process was on the processors.
pub fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Returns a line of /proc/self/status in bytes; 0 where there is none.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok()).unwrap_or(0) * 1024
}
