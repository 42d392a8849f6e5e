//! The targets: one module for each kind of item.

pub mod contacts;
pub mod mail;
