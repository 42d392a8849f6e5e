//! The collections that a backup knows.

pub mod contacts;
pub mod mail;
pub mod tasks;
