//! x
pub mod contents;
pub mod journal;
pub mod staging;
