//! The collections there are.

pub mod mail;
