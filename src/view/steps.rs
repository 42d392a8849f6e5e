//! Detects that files are being read one after the other, in order.

/// Number of recently read files that are remembered. Each can be the last one of another reader.
const STEPS_KEPT: usize = 8;
/// Maximum distance in rank between a file and the next one that the same reader reads.
const STEP_MAX: u64 = 3;

/// The files that were read last. Several programs may read in order at the same time.
#[derive(Default)]
pub struct Steps {
    /// The rank of each file, and how many files the same reader has read in order before it.
    places: [(u64, u32); STEPS_KEPT],
    oldest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

impl Steps {
    /// Records that the file at `rank` was read. If the file follows one that was read before, returns the direction,
    /// and how many files the same reader has read in order before it.
    pub fn step(&mut self, rank: u64) -> Option<(Direction, u32)> {
        // Folders may lie between two files, so their ranks need not be adjacent.
        let near = |(before, _): &(u64, u32)| before.abs_diff(rank) <= STEP_MAX && *before != rank && *before != 0;
        let Some(at) = self.places.iter().position(near) else {
            self.places[self.oldest] = (rank, 0);
            self.oldest = (self.oldest + 1) % STEPS_KEPT;
            return None;
        };
        let (before, run) = self.places[at];
        self.places[at] = (rank, run.saturating_add(1));
        Some((if before < rank { Direction::Up } else { Direction::Down }, self.places[at].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_in_order_is_detected_among_other_readers() {
        let mut steps = Steps::default();
        assert_eq!(steps.step(100), None);
        assert_eq!(steps.step(5000), None);
        assert_eq!(steps.step(101), Some((Direction::Up, 1)));
        assert_eq!(steps.step(4998), Some((Direction::Down, 1)));
        assert_eq!(steps.step(103), Some((Direction::Up, 2)));
        assert_eq!(steps.step(103), None, "the same again is no step");
        assert_eq!(steps.step(900), None);
        (10_000..10_000 + 10 * STEPS_KEPT as u64).step_by(10).for_each(|rank| _ = steps.step(rank));
        assert_eq!(steps.step(104), None, "what was long ago is forgotten");
    }
}
