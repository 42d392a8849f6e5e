//! Test data for Strongroom: an office tenant as plain files, trees that hurt, and mailboxes in older formats.
//!
//! Everything here is a pure function of a seed: the same seed and sizes give the same names, bytes and times on every
//! machine, so that a failing test and a measurement can be repeated. Nothing is random beyond [`rng::Rng`], and no
//! floating point is used where rounding could differ.
//!
//! - [`office`] writes the tenant; it builds on [`words`] (text), [`documents`] (attachments) and [`mail`] (messages);
//! - [`edit`] changes a tenant as a working day would;
//! - [`hostile`] writes names, files and messages that break careless programs;
//! - [`mailbox`] turns a folder of `.eml` files into mbox or Maildir;
//! - [`date`], [`files`] and [`rng`] are the ground below.

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
