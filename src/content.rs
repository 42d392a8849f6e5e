//! What is in items: pure functions on the bytes of mails and mbox files, and the names that items are shown under.

pub mod mail;
pub mod mbox;
pub mod mime;
pub mod names;
pub mod text;
