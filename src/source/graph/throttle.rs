//! When a request may leave.

use std::time::Duration;

/// What the service allows. The published numbers; Microsoft changes them without notice, so all can be replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests to one mailbox in [`Limits::mailbox_window`].
    pub mailbox_requests: u32,
    /// The time in which they are counted.
    pub mailbox_window: Duration,
    /// Requests to one mailbox at the same time; never more than four.
    pub mailbox_concurrency: usize,
    /// Bytes sent to one mailbox in [`Limits::upload_window`].
    pub upload_bytes: u64,
    /// The time in which they are counted.
    pub upload_window: Duration,
    /// Requests to the directory in [`Limits::directory_window`].
    pub directory_requests: u32,
    /// The time in which they are counted.
    pub directory_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox_requests: 10_000,
            mailbox_window: Duration::from_secs(600),
            mailbox_concurrency: 4,
            upload_bytes: 150_000_000,
            upload_window: Duration::from_secs(300),
            // 3,500 resource units, the allowance of the smallest tenants, at 3 a request, the dearest that are made here.
            directory_requests: 1_166,
            directory_window: Duration::from_secs(10),
        }
    }
}
