//! Outlook mail: folders, messages, their bytes, and deltas of their changes.

pub mod attachments;
pub mod delta;
pub mod folders;
pub mod input;
pub mod json;
pub mod mapi;
pub mod messages;
pub mod outlook;
pub mod paths;
pub mod write;
