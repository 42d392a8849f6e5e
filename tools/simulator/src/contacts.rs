//! Personal contacts: folders, contacts, their photos, and deltas of their changes.
//!
//! Folders for contacts stand in the same tree as mail folders, and contacts are items like messages. Each API shows
//! its own.

pub mod delta;
pub mod folders;
pub mod input;
pub mod items;
pub mod json;
pub mod photo;
pub mod write;
