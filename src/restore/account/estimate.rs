//! How long a restore takes at least, given what the service allows one application to send to one mailbox.
//!
//! The service limits requests and bytes for each mailbox by itself (Graph: "Outlook service limits"). So the mailbox
//! that takes the longest decides.

use super::route::Route;
use crate::repository::reader::Reader;
use crate::repository::tree::Entries;
use crate::restore::printable;
use crate::source::graph::Limits;
use std::fmt;
use std::time::Duration;

/// Number of requests for each item: one creates it, and one reads it back.
const REQUESTS_PER_ITEM: u64 = 2;
/// A restore that takes less time is not remarked on.
const WORTH_TELLING: Duration = Duration::from_secs(15 * 60);

/// What goes to one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The mailbox, as it is named in the snapshot or on the command line.
    pub mailbox: String,
    /// The number of items.
    pub items: u64,
    /// The number of their bytes.
    pub bytes: u64,
    /// The folders in it.
    pub parts: Vec<LoadPart>,
}

/// A folder that goes to a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPart {
    /// The name of the folder.
    pub name: String,
    /// The number of items.
    pub items: u64,
    /// The number of their bytes.
    pub bytes: u64,
}

/// Returns how much goes to a mailbox. For a whole mailbox, also how much there is in each folder.
pub(super) fn load_of(reader: &Reader, route: &Route) -> Load {
    let mut load = Load { mailbox: route.to.name().to_owned(), items: 0, bytes: 0, parts: Vec::new() };
    // Tasks and events are not restored.
    for part in route.mail.iter().chain(&*route.contacts) {
        let size = part.size();
        load.items += size.items;
        load.bytes = load.bytes.saturating_add(size.bytes);
        let below = part.entry.directory().and_then(|dir| Entries::new(reader, dir).ok());
        for found in below.into_iter().flatten().flatten() {
            let sums = found.entry().sums();
            if found.entry().directory().is_some() && sums.files > 0 {
                let name = printable(&found.entry().name);
                load.parts.push(LoadPart { name, items: sums.files, bytes: sums.bytes });
            }
        }
    }
    load
}

impl Load {
    /// Returns the minimum time for this mailbox.
    pub fn time_min(&self) -> Duration {
        time_min(self.items, self.bytes)
    }
}

/// Returns the minimum time for this many items with this many bytes to one mailbox.
fn time_min(items: u64, bytes: u64) -> Duration {
    let limits = Limits::default();
    // What fits into the first window is sent at once.
    let windows = |amount: u64, max: u64| (amount.saturating_sub(1) / max) as u32;
    let requests =
        limits.mailbox_window.saturating_mul(windows(items * REQUESTS_PER_ITEM, limits.mailbox_requests.into()));
    let sent = limits.upload_window.saturating_mul(windows(bytes, limits.upload_bytes));
    requests.max(sent)
}

/// Returns the mailbox that takes the longest.
pub(super) fn longest(loads: &[Load]) -> Option<&Load> {
    loads.iter().max_by_key(|load| load.time_min())
}

/// Returns a text that says how long the restore takes and how it can be split. `None` if it takes less than
/// [`WORTH_TELLING`].
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
        parts.sort_by_key(|part| time_min(part.items, part.bytes));
        let parts = parts.iter().take(8);
        let parts = parts.map(|part| format!("{}: {}", part.name, Shown(time_min(part.items, part.bytes))));
        text += &format!(
            "; what is needed first can be restored first, and what is there by then is passed over ({})",
            parts.collect::<Vec<_>>().join(", ")
        );
    }
    Some(text)
}

/// Shows a time to people.
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
        let part = |name: &str| LoadPart { name: name.to_owned(), items: items / 2, bytes: bytes / 2 };
        let parts = ["Inbox", "Archive"].map(part).to_vec();
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
