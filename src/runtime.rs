//! How work on items is run: on threads where it takes long, and guarded, so that one item ends nothing but itself.
//!
//! What stands in an item was written by strangers. If it brings out a fault of this program, the item becomes a
//! failure in the report, and all others go on. A fault that is not about one item still ends the run.

use futures_util::FutureExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// This program failed on an item: a panic, of which the log says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this program failed on it, which is a fault of the program")]
pub struct Fault;

/// Does `work` on one item.
///
/// # Errors
/// [`Fault`] if it panics. What `work` was changing stays as it was at that moment, so it must be nothing that others
/// rely on.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Fault)
}

/// Likewise, for work that waits for others.
///
/// # Errors
/// [`Fault`] if it panics.
pub async fn guarded_async<T>(work: impl Future<Output = T>) -> Result<T, Fault> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Fault)
}

/// Runs what takes long or waits for a disk on a thread of its own. A panic there is one here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and so does whoever waits here.
        Err(_) => std::future::pending().await,
    }
}

/// Does `work` on one item on a thread of its own.
///
/// # Errors
/// [`Fault`] if it panics.
pub async fn guarded_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    blocking(|| guarded(work)).await
}

/// Panics where a test asks for it in a mail: none is known on which this program fails by itself.
#[cfg(test)]
pub fn trip(bytes: &[u8], doing: &str) {
    let asks = format!("X-Test: this program fails when {doing}");
    let start = &bytes[..bytes.len().min(4096)];
    assert!(!start.windows(asks.len()).any(|window| window == asks.as_bytes()), "as the test asked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_fault_of_one_item() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(
            guarded(|| trip(b"Subject: a\r\nX-Test: this program fails when testing\r\n\r\n", "testing")),
            Err(Fault)
        );
        assert_eq!(guarded_async(async { blocking(|| -> u8 { panic!("as the test asks") }).await }).await, Err(Fault));
        assert_eq!(guarded_blocking(|| -> u8 { panic!("as the test asks") }).await, Err(Fault));
        assert_eq!(guarded_blocking(|| 7).await, Ok(7));
    }
}
