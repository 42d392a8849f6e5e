//! Outlook mail: folders, messages, their bytes, and what changed since.

pub mod attachments;
pub mod delta;
pub mod extended;
pub mod folders;
pub mod input;
pub mod json;
pub mod messages;
pub mod outlook;
pub mod write;
