//! How long a restore takes at least, by what the service lets one application send to one mailbox.
//!
//! Requests and bytes are limited for each mailbox by itself (Graph: "Outlook service limits"), so the mailbox that
//! takes the longest decides.

use crate::source::graph::Limits;
use std::fmt;
use std::time::Duration;

/// Every message is made by one request and read back by another.
const REQUESTS_PER_ITEM: u64 = 2;
/// Below this nobody needs to be told.
const WORTH_TELLING: Duration = Duration::from_secs(15 * 60);

/// What goes to one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The mailbox, as it is named in the snapshot or on the command line.
    pub mailbox: String,
    /// How many items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The parts of it: their names, items and bytes.
    pub parts: Vec<(String, u64, u64)>,
}

impl Load {
    /// Returns how long it takes at least.
    pub fn time_min(&self) -> Duration {
        time_min(self.items, self.bytes)
    }
}

/// Returns how long it takes at least to restore so many items of so many bytes to one mailbox.
fn time_min(items: u64, bytes: u64) -> Duration {
    let limits = Limits::default();
    // What fits into the first window goes at once.
    let windows = |amount: u64, max: u64| (amount.saturating_sub(1) / max) as u32;
    let requests =
        limits.mailbox_window.saturating_mul(windows(items * REQUESTS_PER_ITEM, limits.mailbox_requests.into()));
    let sent = limits.upload_window.saturating_mul(windows(bytes, limits.upload_bytes));
    requests.max(sent)
}

/// Returns the time of the mailbox that takes the longest.
pub(super) fn longest(loads: &[Load]) -> Option<&Load> {
    loads.iter().max_by_key(|load| load.time_min())
}

/// Says how long it takes, and how it can be split, where that is worth telling.
pub(super) fn remark(loads: &[Load]) -> Option<String> {
    let longest = longest(loads).filter(|load| load.time_min() >= WORTH_TELLING)?;
    let mut text = format!(
        "{} takes at least {}: the service lets an application send 150 MB in five minutes and 10,000 requests in ten to one \
         mailbox",
        longest.mailbox,
        Shown(longest.time_min())
    );
    let mut parts: Vec<_> = longest.parts.iter().collect();
    if parts.len() > 1 {
        parts.sort_by_key(|(_, items, bytes)| time_min(*items, *bytes));
        let parts =
            parts.iter().take(8).map(|(name, items, bytes)| format!("{name}: {}", Shown(time_min(*items, *bytes))));
        text += &format!(
            "; what is needed first can be restored first, and what is there by then is passed over ({})",
            parts.collect::<Vec<_>>().join(", ")
        );
    }
    Some(text)
}

/// A time for people.
pub(super) struct Shown(pub Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.as_secs().div_ceil(60);
        match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
            (0, 0, minutes) => write!(f, "{minutes} min"),
            (0, hours, minutes) => write!(f, "{hours} h {minutes} min"),
            (days, hours, _) => write!(f, "{days} d {hours} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(items: u64, bytes: u64) -> Load {
        let parts = vec![("Inbox".to_owned(), items / 2, bytes / 2), ("Archive".to_owned(), items / 2, bytes / 2)];
        Load { mailbox: "alice".to_owned(), items, bytes, parts }
    }

    #[test]
    fn fifty_gigabytes_take_more_than_a_day() {
        assert_eq!(load(1, 50_000_000_000).time_min(), Duration::from_secs(333 * 300));
        assert_eq!(load(10_000, 0).time_min(), Duration::from_secs(600));
        assert_eq!(load(5_000, 150_000_000).time_min(), Duration::ZERO);
        let text = remark(&[load(1, 50_000_000_000), load(1, 1)]).expect("worth telling");
        assert!(text.contains("at least 1 d 3 h") && text.contains("Inbox: 13 h 50 min"), "{text}");
        assert_eq!(remark(&[load(100, 1_000_000)]), None);
    }
}
