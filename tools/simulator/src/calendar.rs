//! Calendars: events, series with their exceptions and cancelled days, views of a time, and deltas.
//!
//! Calendars stand in the same tree as mail folders, and events are items like messages. Each API shows its own.

pub mod attachments;
pub mod calendars;
pub mod delta;
pub mod input;
pub mod items;
pub mod json;
pub mod outbox;
pub mod paths;
pub mod write;
