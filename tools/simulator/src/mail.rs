//! Outlook mail: folders, messages, their bytes, and what changed since.

pub mod delta;
pub mod extended;
pub mod folders;
pub mod json;
pub mod messages;
