//! Test data for Strongroom: an office tenant as plain files, trees that break careless programs, and mailboxes in
//! older formats.
//!
//! Everything here is a pure function of a seed. The same seed and sizes give the same names, bytes and times on every
//! machine, so that failing tests and measurements can be repeated. The only source of randomness is [`rng::Rng`], and
//! no floating point is used where rounding could differ.
//!
//! - [`office`] writes the tenant; it builds on [`words`] (text), [`documents`] (attachments) and [`mail`] (messages);
//! - [`edit`] changes a tenant as a working day would;
//! - [`hostile`] writes names, files and messages that break careless programs;
//! - [`mailbox`] turns a folder of `.eml` files into mbox or Maildir;
//! - [`date`], [`files`] and [`rng`] are helpers for all of them.

pub mod date;
pub mod documents;
pub mod edit;
pub mod files;
pub mod hostile;
pub mod mail;
pub mod mailbox;
pub mod office;
pub mod rng;
pub mod words;
