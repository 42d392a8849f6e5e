//! To Do: task lists, tasks, their steps, links and attachments, and deltas.
//!
//! Lists stand in the same tree as mail folders, and tasks are items like messages. The ids of tasks are those that change
//! when a task moves, whatever the client prefers. The list of flagged messages shows messages as tasks.

pub mod attachments;
pub mod delta;
pub mod input;
pub mod json;
pub mod lists;
pub mod parts;
pub mod tasks;
