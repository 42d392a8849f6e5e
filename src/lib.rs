//! Strongroom backs up a Microsoft 365 organisation, or a folder, into a deduplicated, encrypted repository, and shows
//! every snapshot as ordinary folders.
//!
//! The rooms in the order in which data flows. docs/architecture.md is the map.

pub mod content;
pub mod source;

pub mod backend;
pub mod format;
pub mod repository;

pub mod backup;
pub mod outbox;
pub mod restore;

pub mod serve;
pub mod view;

pub mod cli;
pub mod settings;

pub mod local_files;
pub mod record_log;
pub mod runtime;
pub mod shown;

/// The target of log events that name what is backed up or restored. The program shows them only with `--log-content`.
pub const CONTENT_LOG: &str = "strongroom::item_names";
