//! Outlook mail: folders, messages, their bytes, and deltas of their changes.

pub mod attachments;
pub mod delta;
pub mod extended;
pub mod folders;
pub mod input;
pub mod json;
pub mod messages;
pub mod outlook;
pub mod write;
