//! How long one looks for what a request may have made whose answer was lost, or was an error of something on the way.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What a request may have made is looked for until so long after it broke off. Gateways give up while the service is
/// still at work (docs: "lateWork" of the simulator), and what was made takes a moment to be found.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks there is a moment, which doubles. It stays short, so that Ctrl-C is noticed.
const FIRST_MOMENT: Duration = Duration::from_millis(100);
const LONGEST_MOMENT: Duration = Duration::from_secs(2);

/// The looks at what became of a request.
pub(super) struct Patience {
    end: Instant,
    /// How long to wait before the next look, unless none follows.
    moment: Option<Duration>,
}

impl Patience {
    /// Lasts until [`PATIENCE`] after the request broke off, and for one look at least.
    pub fn since(broken_off: Instant) -> Self {
        Self { end: broken_off + PATIENCE, moment: Some(Duration::ZERO) }
    }

    /// Waits for the moment of the next look. Returns `false` after the last.
    pub async fn has_another_look(&mut self) -> bool {
        let Some(moment) = self.moment else { return false };
        sleep_until(self.end.min(Instant::now() + moment)).await;
        self.moment = (Instant::now() < self.end).then(|| (moment * 2).clamp(FIRST_MOMENT, LONGEST_MOMENT));
        true
    }
}
