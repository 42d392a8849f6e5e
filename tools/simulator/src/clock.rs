//! Points in time as Graph writes them.

use jiff::Timestamp;

/// When the tenant's first account was made: 2024-01-08 00:00.
pub const BEGIN: i64 = strongroom_corpora::office::BEGIN;

/// Returns the present time in seconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Returns `2026-11-21T22:00:00Z`.
pub fn iso(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Returns the seconds since 1970 of a time as Graph and its clients write it.
pub fn parse(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}
