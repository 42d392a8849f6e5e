//! Decides how many users are worked on at a time.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::time::Duration;

/// Time between two checks of whether all users wait for the limits of the service.
const PAUSE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Minimum pause after which the work on another user begins. Shorter pauses are over before it could use them.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Maximum number of users at work if all of them wait for the limits of the service, in halves of `at_once`. It is low,
/// because each user takes memory: up to 4 MiB with twenty thousand messages.
const HALVES_MAX: usize = 5;

/// The users who are worked on. Usually there are `at_once` of them. If all of them wait for the limits of the service,
/// as long as `pause` says, there are more.
pub struct Working<I, F, P> {
    waiting: I,
    running: FuturesUnordered<F>,
    at_once: usize,
    pause: P,
}

impl<I: Iterator<Item = F>, F: Future, P: Fn() -> Option<Duration>> Working<I, F, P> {
    /// Plans the work that `waiting` returns. `pause` returns how long no request can make progress, if that is so.
    pub fn new(waiting: I, at_once: usize, pause: P) -> Self {
        Self { waiting, running: FuturesUnordered::new(), at_once, pause }
    }

    /// Returns the outcome of the user whose work ends first, or `None` after the last one.
    pub async fn next(&mut self) -> Option<F::Output> {
        loop {
            let missing = self.at_once.saturating_sub(self.running.len());
            self.running.extend(self.waiting.by_ref().take(missing));
            tokio::select! {
                outcome = self.running.next() => return outcome,
                () = tokio::time::sleep(PAUSE_POLL_INTERVAL) => {}
            }
            let idle = (self.pause)().is_some_and(|pause| pause >= PAUSE_MIN);
            if idle {
                let room = (self.at_once * HALVES_MAX / 2).saturating_sub(self.running.len());
                self.running.extend(self.waiting.by_ref().take(self.at_once.min(room)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Returns how many of twenty users are begun if the first ones wait, with two at once.
    async fn begun(pause: Option<Duration>) -> usize {
        let begun = Cell::new(0);
        let users = (0..20).map(|_| async {
            begun.set(begun.get() + 1);
            std::future::pending::<()>().await;
        });
        let mut working = Working::new(users, 2, || pause);
        let done = tokio::time::timeout(Duration::from_secs(60), working.next()).await;
        assert!(done.is_err(), "nothing ends here");
        begun.get()
    }

    #[tokio::test(start_paused = true)]
    async fn mailboxes_that_wait_for_their_limits_hold_up_no_others() {
        assert_eq!(begun(None).await, 2);
        assert_eq!(begun(Some(PAUSE_MIN / 2)).await, 2);
        assert_eq!(begun(Some(Duration::from_secs(600))).await, 2 * HALVES_MAX / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_makes_room_for_one_and_no_more() {
        let (underway, most) = (Cell::new(0), Cell::new(0));
        let users = (1..=40).map(|number| {
            let (underway, most) = (&underway, &most);
            async move {
                underway.set(underway.get() + 1);
                most.set(most.get().max(underway.get()));
                tokio::time::sleep(Duration::from_secs(60 * number)).await;
                underway.set(underway.get() - 1);
            }
        });
        let mut working = Working::new(users, 4, || Some(Duration::from_secs(600)));
        while working.next().await.is_some() {}
        assert_eq!((underway.get(), most.get()), (0, 4 * HALVES_MAX / 2));
    }
}
