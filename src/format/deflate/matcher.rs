//! A model of zlib's search for copies (its `deflate.c`): hash chains over the plain bytes seen so far.

use std::ops::Range;

use super::codes::{LENGTH_MAX, WINDOW};
use super::parameters::CHAIN_MAX;

const MASK: usize = WINDOW - 1;
/// zlib keeps this many bytes of its window free: 258 + 3 + 1.
pub(super) const DISTANCE_MAX: usize = WINDOW - 262;

/// A copy that was found: `length` bytes from `distance` before. A length under 3 means none.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) length: usize,
    pub(super) distance: usize,
}

/// What bounds a search.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// A match of this length is taken at once.
    pub(super) nice: usize,
    /// The number of candidates.
    pub(super) chain: usize,
}

/// Positions of the plain bytes by the hash of the three bytes there. 0 means none, so position 0 is never found.
pub(super) struct Chains {
    head: Vec<u32>,
    /// For each position of the last 32 KiB the position before with the same hash.
    prev: Box<[u32; WINDOW]>,
    shift: u32,
    mask: u32,
    /// Positions below it are forgotten.
    floor: usize,
    /// Candidates that were looked at so far.
    pub(super) steps: u64,
}

impl Chains {
    pub(super) fn new(hash_bits: u32) -> Self {
        let prev = vec![0; WINDOW].into_boxed_slice().try_into().expect("the length is the window's");
        let size = 1 << hash_bits;
        Self { head: vec![0; size], prev, shift: hash_bits.div_ceil(3), mask: size as u32 - 1, floor: 1, steps: 0 }
    }

    /// Forgets all positions below `floor`.
    pub(super) fn forget(&mut self, floor: usize) {
        self.floor = self.floor.max(floor);
    }

    /// Enters positions that three bytes of `plain` begin at.
    #[inline]
    pub(super) fn enter(&mut self, plain: &[u8], positions: Range<usize>) {
        let bytes = &plain[positions.start..positions.end + 2];
        for (triple, at) in bytes.windows(3).zip(positions) {
            let (a, b, c) = (u32::from(triple[0]), u32::from(triple[1]), u32::from(triple[2]));
            let hash = a << (2 * self.shift) ^ b << self.shift ^ c;
            let head = &mut self.head[(hash & self.mask) as usize];
            self.prev[at & MASK] = *head;
            *head = at as u32;
        }
    }

    /// Looks for the longest copy at `at`, which was entered, that is longer than `best`. Only bytes before `end`
    /// count.
    #[inline]
    pub(super) fn longest(&mut self, plain: &[u8], at: usize, end: usize, best: usize, bounds: Bounds) -> Match {
        let mut found = Match { length: best, distance: 0 };
        let limit = at.saturating_sub(DISTANCE_MAX);
        let mut candidate = self.prev[at & MASK] as usize;
        let reach = LENGTH_MAX.min(end - at);
        if candidate < self.floor || candidate < limit || best >= reach {
            return found;
        }
        let limit = limit.max(self.floor - 1);
        let nice = bounds.nice.min(end - at);
        let here = &plain[at..at + reach];
        let mut tail = u16::from_le_bytes([here[best - 1], here[best]]);
        let mut left = bounds.chain;
        let mut best = best;
        loop {
            left -= 1;
            let there = &plain[candidate..candidate + reach];
            if u16::from_le_bytes([there[best - 1], there[best]]) == tail {
                let length = common(here, there);
                if length > best {
                    best = length;
                    found = Match { length, distance: at - candidate };
                    if length >= nice {
                        break;
                    }
                    tail = u16::from_le_bytes([here[best - 1], here[best]]);
                }
            }
            candidate = self.prev[candidate & MASK] as usize;
            if candidate <= limit || left == 0 {
                break;
            }
        }
        self.steps += (bounds.chain - left) as u64;
        found
    }

    /// The candidates at `at`, which was entered, the nearest first: at most [`CHAIN_MAX`].
    pub(super) fn candidates(&mut self, at: usize) -> impl Iterator<Item = usize> {
        let mut last = at;
        let steps = &mut self.steps;
        let (prev, floor) = (&self.prev, self.floor);
        std::iter::from_fn(move || {
            *steps += 1;
            let candidate = prev[last & MASK] as usize;
            let valid = candidate >= floor && at - candidate <= DISTANCE_MAX;
            last = candidate;
            valid.then_some(candidate)
        })
        .take(CHAIN_MAX)
    }
}

/// Length of the beginning that both have in common. They are equally long.
#[inline]
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let mut length = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let a = u64::from_le_bytes(a.try_into().expect("8 bytes"));
        let b = u64::from_le_bytes(b.try_into().expect("8 bytes"));
        if a != b {
            return length + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let rest = a[length..].iter().zip(&b[length..]);
    length + rest.take_while(|(a, b)| a == b).count()
}
