//! Servers that show snapshots over a network.

pub mod webdav;
