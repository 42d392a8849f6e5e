//! Strongroom backs up a Microsoft 365 organisation, or a folder, into a deduplicated, encrypted repository, and shows
//! every snapshot as ordinary folders.
//!
//! The modules in the order in which data flows. docs/architecture.md is the map.

pub mod mail;
pub mod mbox;
pub mod mime;
pub mod names;
pub mod shown;
pub mod text;

pub mod cbor;
pub mod compress;
pub mod crypto;
pub mod id;
pub mod record_log;
pub mod runtime;
pub mod sealed;

pub mod chunker;
pub mod entry;
pub mod index;
pub mod node;
pub mod pack;
pub mod tree;

pub mod backend;
pub mod config;
pub mod keyslot;
pub mod local;
pub mod local_files;
pub mod reader;
pub mod repository;
pub mod snapshot;
pub mod store;

pub mod backup;
pub mod selection;
pub mod source;
pub mod splitter;

pub mod check;
pub mod compare;
pub mod select;
pub mod view;
pub mod webdav;

pub mod cli;
pub mod outbox;
pub mod restore;
pub mod settings;

/// The target of log events that name what is backed up or restored. The program shows them only with `--log-content`.
pub const CONTENT_LOG: &str = "strongroom::content";
