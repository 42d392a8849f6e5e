//! Points in time as Graph writes them.

use jiff::Timestamp;

/// When the tenant's first account was created: 2024-01-08 00:00.
pub const BEGIN: i64 = strongroom_corpora::office::BEGIN;

/// Returns the current time in seconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Returns a time in the form `2026-11-21T22:00:00Z`.
pub fn iso(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Parses a time as Graph and its clients write it. Returns seconds since 1970.
pub fn parse(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}
