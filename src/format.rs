//! The bytes of a repository (docs/repository-format.md): how each object is written, read, named, compressed and
//! sealed. Nothing here reads or writes a file.

pub mod cbor;
pub mod compress;
pub mod crypto;
pub mod id;
pub mod sealed;

pub mod chunker;
pub mod index;
pub mod pack;

pub mod entry;
pub mod node;

pub mod config;
pub mod keyslot;
pub mod snapshot;
