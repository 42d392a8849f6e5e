//! The collections that a backup knows.

pub mod calendars;
pub mod contacts;
pub mod mail;
pub mod tasks;
