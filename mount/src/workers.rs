//! A few threads with a bounded queue, for requests that may take as long as a network.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

/// How many requests are worked on at a time.
const THREADS: usize = 8;
/// How many more may wait. A request to write holds up to 1 MiB.
const WAITING_MAX: usize = 128;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    ended: bool,
}

/// Dropping it lets the threads end after what is in the queue, without waiting for them.
pub(crate) struct Workers(Arc<Queue>);

impl Workers {
    pub(crate) fn start() -> io::Result<Workers> {
        let workers = Workers(Arc::default());
        for number in 0..THREADS {
            let queue = workers.0.clone();
            thread::Builder::new().name(format!("mount-restore-{number}")).spawn(move || queue.work())?;
        }
        Ok(workers)
    }

    /// Returns whether another job may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.0.state.lock().jobs.len() < WAITING_MAX
    }

    /// Adds a job, also beyond the bound: that something was closed must not get lost.
    pub(crate) fn add(&self, job: impl FnOnce() + Send + 'static) {
        self.0.state.lock().jobs.push_back(Box::new(job));
        self.0.changed.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn work(&self) {
        while let Some(job) = self.next() {
            // What the job had to answer is answered with an error when it is dropped.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a request below restore/ panicked");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }
}
