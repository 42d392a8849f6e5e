//! A few threads with a bounded queue, for requests that may take as long as the network takes.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

/// Number of requests that are processed at the same time.
const THREADS: usize = 8;
/// Maximum number of requests that wait in the queue. Each write request holds up to 1 MiB, so the queue holds at most
/// about 128 MiB.
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

/// The threads and their queue. After this is dropped, the threads finish the queue and end; the drop does not wait for
/// them.
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

    /// Returns whether the queue has room for another job.
    pub(crate) fn has_room(&self) -> bool {
        self.0.state.lock().jobs.len() < WAITING_MAX
    }

    /// Adds a job, even if the queue is full, because the closing of a file must not get lost.
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
            // A job that panics drops its reply, and dropping the reply answers the request with an error.
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
