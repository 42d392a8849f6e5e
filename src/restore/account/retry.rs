//! How often something is tried again, and how long to wait before.

use std::time::Duration;

/// Maximum number of attempts at a request whose answer was lost. Before each, the caller looks what became of the
/// attempt before.
pub(super) const ATTEMPTS_MAX: u32 = 7;
/// Maximum number of times that an item is read back before it counts as different from what it should be. An answer
/// may come from a server that does not know of the last change yet, and any answer may be wrong.
pub(super) const LOOKS_MAX: u32 = 3;
/// The wait after the first attempt. It doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Waits after this attempt, the first of which is 1.
pub(super) async fn wait(attempt: u32) {
    tokio::time::sleep(FIRST_WAIT * 2u32.pow(attempt - 1)).await;
}
