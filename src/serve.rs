//! Ways to the snapshots over a network.

pub mod webdav;
