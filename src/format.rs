//! The byte formats of a repository (docs/repository-format.md): how each object is named, encoded, decoded, compressed
//! and sealed. Nothing here does file I/O.

pub mod cbor;
pub mod compress;
pub mod crypto;
pub mod id;
pub mod sealed;

pub mod chunker;
pub mod deflate;
pub mod index;
pub mod pack;

pub mod entry;
pub mod node;
pub mod recipe;

pub mod config;
pub mod keyslot;
pub mod snapshot;
