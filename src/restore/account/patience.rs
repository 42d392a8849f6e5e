//! How long to look for what a request may have created, if its answer was lost or came from a gateway.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long to look after the request broke off. Gateways give up while the service is still at work, and a new item is
/// not found at once.
const PATIENCE: Duration = Duration::from_secs(15);
/// The wait before the second look. It doubles up to [`LONGEST_MOMENT`], which is short, so that Ctrl-C is noticed.
const FIRST_MOMENT: Duration = Duration::from_millis(100);
const LONGEST_MOMENT: Duration = Duration::from_secs(2);

/// The looks for what a request may have created.
pub(super) struct Patience {
    end: Instant,
    /// The wait before the next look. `None` after the last look.
    moment: Option<Duration>,
}

impl Patience {
    /// Allows looks until [`PATIENCE`] after `broken_off`, and at least one.
    pub fn since(broken_off: Instant) -> Self {
        Self { end: broken_off + PATIENCE, moment: Some(Duration::ZERO) }
    }

    /// Waits until the next look is due. Returns false after the last look.
    pub async fn has_another_look(&mut self) -> bool {
        let Some(moment) = self.moment else { return false };
        sleep_until(self.end.min(Instant::now() + moment)).await;
        self.moment = (Instant::now() < self.end).then(|| (moment * 2).clamp(FIRST_MOMENT, LONGEST_MOMENT));
        true
    }
}
