//! Runs work on items: on threads if it takes long, and guarded, so that a bad item ends nothing but itself.
//!
//! Items contain data from strangers. If an item triggers a bug of this program, the item becomes a failure in the
//! report, and the run continues with the other items. A bug that does not concern a single item still ends the run.

use futures_util::FutureExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// This program panicked on an item. The log says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this program panicked on this item, which is a fault of the program")]
pub struct Panicked;

/// Runs `work` on one item.
///
/// # Errors
/// [`Panicked`] if `work` panics. Whatever it was changing then stays half changed, so nothing else may depend on it.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

/// The same as [`guarded`], for asynchronous work.
///
/// # Errors
/// [`Panicked`] if it panics.
pub async fn guarded_async<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Panicked)
}

/// Runs work that takes long or waits for a disk on a thread. If the work panics, this panics too.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down, and drops this future as well.
        Err(_) => std::future::pending().await,
    }
}

/// Runs `work` on one item on a thread.
///
/// # Errors
/// [`Panicked`] if it panics.
pub async fn guarded_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    blocking(|| guarded(work)).await
}

/// Panics if `bytes` start with a mail that asks for it in a header: no real mail is known on which this program
/// panics.
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
            Err(Panicked)
        );
        assert_eq!(
            guarded_async(async { blocking(|| -> u8 { panic!("as the test asks") }).await }).await,
            Err(Panicked)
        );
        assert_eq!(guarded_blocking(|| -> u8 { panic!("as the test asks") }).await, Err(Panicked));
        assert_eq!(guarded_blocking(|| 7).await, Ok(7));
    }
}
