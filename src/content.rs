//! What is in items: pure functions on the bytes of mails, mbox files, contacts, events and tasks, and the names that
//! items are shown under.

pub mod contact;
pub mod event;
pub mod ical;
pub mod mail;
pub mod mbox;
pub mod mime;
pub mod names;
pub mod task;
pub mod text;
pub mod zip;

#[cfg(test)]
mod testing {
    use rustix::time::{ClockId, clock_gettime};
    use std::time::Duration;

    /// Returns how long something was on the processor. Other work on the machine does not count.
    pub(super) fn processor_time(run: impl FnOnce()) -> Duration {
        let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time since the thread began");
        let before = now();
        run();
        now() - before
    }
}
