//! The gate against models of the service, in simulated time.

use super::schedule::{Load, Schedule};
use super::*;
use futures_util::FutureExt;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20 * 60);

impl Permit {
    fn refused_for(&self, affected: Affected, wait: Duration) {
        self.refused(affected);
        self.hold(affected, wait);
    }
}

fn mailbox(number: usize) -> Scope {
    Scope::mailbox(&format!("user-{number}"))
}

fn enter(gate: &Arc<Gate>, number: usize) -> std::pin::Pin<Box<impl Future<Output = Permit> + use<>>> {
    let gate = Arc::clone(gate);
    Box::pin(async move { gate.enter(&mailbox(number), None, 0).await.expect("nothing is closed") })
}

/// Lets all tasks run that can, without time passing.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn four_at_a_time_for_a_mailbox_and_a_ceiling_for_all() {
    let gate = Gate::new(10, Limits::default(), PATIENCE);
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let per_mailbox: Vec<_> = (0..5).map(|_| (AtomicUsize::new(0), AtomicUsize::new(0))).collect();
    let enter = |number: usize| {
        let (gate, now, most, of_one) = (&gate, &now, &most, &per_mailbox[number]);
        async move {
            let permit = gate.enter(&mailbox(number), None, 0).await.expect("nothing is closed");
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            of_one.1.fetch_max(of_one.0.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(SECOND).await;
            now.fetch_sub(1, Ordering::Relaxed);
            of_one.0.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        }
    };
    let start = Instant::now();
    futures_util::future::join_all((0..100).map(|n| enter(n % 5))).await;
    assert_eq!(most.into_inner(), 10);
    assert!(per_mailbox.iter().all(|(_, most)| most.load(Ordering::Relaxed) <= MAILBOX_CONCURRENCY_MAX));
    assert_eq!(start.elapsed(), 10 * SECOND, "no place stays empty while somebody waits for it");
}

#[tokio::test(start_paused = true)]
async fn mailboxes_take_turns_and_the_largest_goes_first() {
    let gate = Gate::new(1, Limits::default(), PATIENCE);
    let held = gate.enter(&mailbox(9), None, 0).await.expect("nothing is closed");
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    let waiting = [(0, Some(5)), (0, Some(500)), (0, None), (0, Some(50)), (1, Some(1)), (1, Some(2)), (2, None)];
    for (number, size) in waiting {
        let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
        tasks.spawn(async move {
            let _permit = gate.enter(&mailbox(number), size, 0).await.expect("nothing is closed");
            order.lock().push((number, size));
        });
        settle().await;
    }
    drop(held);
    tasks.join_all().await;
    let expected = [(0, None), (1, Some(2)), (2, None), (0, Some(500)), (1, Some(1)), (0, Some(50)), (0, Some(5))];
    assert_eq!(*order.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_up_exactly_the_requests_that_it_concerns() {
    let gate = Gate::new(16, Limits::default(), PATIENCE);
    let start = Instant::now();
    let passes = |scope: Scope| {
        let gate = &gate;
        async move {
            drop(gate.enter(&scope, None, 0).await.expect("nothing is closed"));
            start.elapsed()
        }
    };
    let permit = gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed");
    permit.refused_for(Affected::Scope, 30 * SECOND);
    drop(permit);
    let all = || futures_util::future::join3(passes(mailbox(0)), passes(mailbox(1)), passes(Scope::Directory));
    assert_eq!(all().await, (30 * SECOND, Duration::ZERO, Duration::ZERO));

    let permit = gate.enter(&Scope::Directory, None, 0).await.expect("nothing is closed");
    permit.refused_for(Affected::Scope, 10 * SECOND);
    // A shorter wait does not shorten a longer one.
    permit.refused_for(Affected::Scope, SECOND);
    drop(permit);
    assert_eq!(all().await, (30 * SECOND, 30 * SECOND, 40 * SECOND));

    let permit = gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed");
    permit.refused_for(Affected::Tenant, 60 * SECOND);
    drop(permit);
    assert_eq!(all().await, (100 * SECOND, 100 * SECOND, 100 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_requests_that_already_wait() {
    let gate = Gate::new(2, Limits::default(), PATIENCE);
    let start = Instant::now();
    let first = gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed");
    let second = gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed");
    let third = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move {
            drop(gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed"));
            start.elapsed()
        }
    });
    settle().await;
    first.refused_for(Affected::Scope, 20 * SECOND);
    drop(first);
    advance(5 * SECOND).await;
    second.refused_for(Affected::Scope, 20 * SECOND);
    drop(second);
    assert_eq!(third.await.unwrap(), 25 * SECOND);
}

/// The request that sleeps on behalf of all may be dropped. Another one must then wake the others.
#[tokio::test(start_paused = true)]
async fn leaving_early_leaves_nobody_asleep() {
    let gate = Gate::new(4, Limits::default(), PATIENCE);
    let start = Instant::now();
    let permit = gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed");
    permit.refused_for(Affected::Scope, 10 * SECOND);
    drop(permit);
    let spawn = || {
        let gate = Arc::clone(&gate);
        tokio::spawn(async move {
            drop(gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed"));
            start.elapsed()
        })
    };
    let (sleeper, next, last) = (spawn(), spawn(), spawn());
    settle().await;
    sleeper.abort();
    settle().await;
    next.abort();
    assert_eq!(last.await.unwrap(), 10 * SECOND);
    // The dropped requests do not count: the whole window is free, one less than before the refusal.
    let permits = futures_util::future::join_all((0..3).map(|_| enter(&gate, 0))).await;
    assert_eq!((permits.len(), start.elapsed()), (3, 10 * SECOND));
}

/// After a refusal for two hours, no request waits, neither those that were waiting nor later ones.
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_given_up_by_all() {
    let gate = Gate::new(2, Limits::default(), PATIENCE);
    let start = Instant::now();
    let (first, second) = (enter(&gate, 0).await, enter(&gate, 0).await);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.enter(&mailbox(0), None, 0).await.map(drop) })
        })
        .collect();
    let cancelled = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.enter(&mailbox(0), None, 0).await.map(drop) }
    });
    settle().await;
    first.refused_for(Affected::Scope, 7_200 * SECOND);
    // The request is told to give up, but dropped before it notices.
    cancelled.abort();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Err(Closed { wait: 7_200 * SECOND }));
    }
    drop((first, second));
    assert_eq!(gate.enter(&mailbox(0), None, 0).await.map(drop), Err(Closed { wait: 7_200 * SECOND }));
    drop(enter(&gate, 1).await);
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waited, and no other mailbox is held up");
    // Afterwards requests are sent again, and the first success opens the gate.
    advance(7_200 * SECOND).await;
    enter(&gate, 0).await.succeeded();
    let permit = enter(&gate, 0).await;
    permit.refused_for(Affected::Tenant, 3_600 * SECOND);
    for number in 0..3 {
        assert!(gate.enter(&mailbox(number), None, 0).await.is_err(), "what the tenant refuses concerns all");
    }
    drop(permit);
    advance(3_600 * SECOND).await;
    for number in 0..3 {
        drop(enter(&gate, number).await);
    }
}

/// Each refusal is shorter than a request waits, but another one follows it. Twenty requests must not take turns in
/// waiting.
#[tokio::test(start_paused = true)]
async fn a_service_that_accepts_nothing_is_waited_for_once() {
    let gate = Gate::new(16, Limits::default(), PATIENCE);
    let start = Instant::now();
    let ask = || {
        let gate = Arc::clone(&gate);
        async move {
            loop {
                match gate.enter(&mailbox(0), None, 0).await {
                    Ok(permit) => permit.refused_for(Affected::Scope, 500 * SECOND),
                    Err(_) => return,
                }
            }
        }
    };
    futures_util::future::join_all((0..20).map(|_| ask())).await;
    assert!(start.elapsed() <= PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_nobody_takes_goes_to_another_request() {
    let gate = Gate::new(1, Limits::default(), PATIENCE);
    let permit = enter(&gate, 0).await;
    let mut left = enter(&gate, 1);
    assert!(left.as_mut().now_or_never().is_none());
    // The request is granted here, but dropped before it notices.
    drop(permit);
    drop(left);
    assert!(enter(&gate, 2).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn refusals_for_the_tenant_halve_the_window_once_per_round() {
    let gate = Gate::new(16, Limits::default(), PATIENCE);
    let all = |n: usize| futures_util::future::join_all((0..n).map(|number| enter(&gate, number)));
    let permits = all(16).await;
    for permit in &permits[..5] {
        permit.refused_for(Affected::Tenant, SECOND);
    }
    drop(permits);
    // All sixteen requests were sent before the first refusal, so the window is halved once.
    let permits = all(8).await;
    let mut ninth = enter(&gate, 9);
    assert!(ninth.as_mut().now_or_never().is_none());
    // A window full of successes makes room for one more.
    for permit in &permits {
        permit.succeeded();
    }
    permits.first().expect("eight").succeeded();
    drop(permits);
    drop(ninth.await);
    let permits = all(9).await;
    let mut tenth = enter(&gate, 10);
    assert!(tenth.as_mut().now_or_never().is_none());
    drop(permits);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_refuses_gets_a_place_less_for_a_while() {
    let gate = Gate::new(16, Limits::default(), PATIENCE);
    let free_places = async || {
        let mut permits = Vec::new();
        loop {
            let mut next = enter(&gate, 0);
            match next.as_mut().now_or_never() {
                Some(permit) => permits.push(permit),
                None => return permits.len(),
            }
        }
    };
    assert_eq!(free_places().await, 4);
    let permit = gate.enter(&mailbox(0), None, 0).await.expect("nothing is closed");
    assert_eq!((permit.refused(Affected::Scope), permit.refused(Affected::Scope)), (1, 1), "one round");
    assert_eq!(free_places().await, 2, "three, of which one is taken");
    advance(SECOND).await;
    let later = enter(&gate, 0).await;
    assert_eq!((later.refused(Affected::Scope), later.refused(Affected::Tenant)), (2, 1));
    drop(later);
    assert_eq!(free_places().await, 1);
    for _ in 0..400 {
        permit.succeeded();
    }
    advance(SECOND).await;
    drop(permit);
    assert_eq!(free_places().await, 4);
    assert_eq!(enter(&gate, 0).await.refused(Affected::Scope), 1, "a success ends the row");
}

/// A mailbox on the service's side. It counts every arrival in its window exactly.
struct Service {
    limits: Limits,
    arrivals: HashMap<usize, VecDeque<Instant>>,
    in_flight: HashMap<usize, usize>,
    answered: usize,
    refused: usize,
}

impl Service {
    fn arrive(&mut self, number: usize) -> Option<Duration> {
        let now = Instant::now();
        let arrivals = self.arrivals.entry(number).or_default();
        while arrivals.front().is_some_and(|&at| at + self.limits.mailbox_window <= now) {
            arrivals.pop_front();
        }
        arrivals.push_back(now);
        let in_flight = self.in_flight.entry(number).or_default();
        *in_flight += 1;
        let is_over = arrivals.len() > self.limits.mailbox_requests as usize;
        if is_over || *in_flight > self.limits.mailbox_concurrency {
            self.refused += 1;
            return Some(10 * SECOND);
        }
        self.answered += 1;
        None
    }
}

/// An hour with the published limits, more work than they allow, and a network on which every request takes another
/// time.
#[tokio::test(start_paused = true)]
async fn nine_tenths_of_the_limits_are_used_and_nothing_is_refused() {
    const MAILBOXES: usize = 3;
    const HOUR: Duration = Duration::from_secs(3_600);
    let gate = Gate::new(16, Limits::default(), PATIENCE);
    let service = Arc::new(Mutex::new(Service {
        limits: Limits::default(),
        arrivals: HashMap::new(),
        in_flight: HashMap::new(),
        answered: 0,
        refused: 0,
    }));
    let end = Instant::now() + HOUR;
    let mut tasks = JoinSet::new();
    for worker in 0..MAILBOXES * 6 {
        let (gate, service, number) = (Arc::clone(&gate), Arc::clone(&service), worker % MAILBOXES);
        let mut random = worker as u64;
        let mut millis = move |most: u64| {
            // Knuth's MMIX generator; any generator will do.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Duration::from_millis((random >> 33) % most)
        };
        tasks.spawn(async move {
            loop {
                let permit = gate.enter(&mailbox(number), None, 0).await.expect("nothing is closed");
                if Instant::now() >= end {
                    return;
                }
                sleep(millis(60)).await;
                let refusal = service.lock().arrive(number);
                match refusal {
                    Some(wait) => permit.refused_for(Affected::Scope, wait),
                    None => permit.succeeded(),
                }
                sleep(millis(120)).await;
                *service.lock().in_flight.get_mut(&number).expect("it arrived") -= 1;
                sleep(millis(30)).await;
                drop(permit);
            }
        });
    }
    tasks.join_all().await;
    let service = service.lock();
    let allowed = MAILBOXES * 6 * 10_000;
    assert!(service.answered >= allowed * 9 / 10, "{} of {allowed}", service.answered);
    assert_eq!(service.refused, 0, "of {}", service.answered);
}

#[derive(Debug, Clone)]
struct Arrival {
    after_ms: u64,
    mailbox: usize,
    size: Option<u64>,
    upload: u64,
    /// How long the service takes; whether it refuses, and whom.
    takes_ms: u64,
    refusal: Option<(bool, u64)>,
    /// After how long a wait the caller leaves, if it does.
    patience_ms: Option<u64>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let refusal = prop::option::weighted(0.1, (any::<bool>(), 0u64..5_000));
    let uploads = prop_oneof![4 => Just(0u64), 1 => 1u64..400];
    let patience = prop::option::weighted(0.1, 0u64..5_000);
    (0u64..400, 0usize..4, any::<Option<u16>>(), uploads, 0u64..2_000, refusal, patience).prop_map(
        |(after_ms, mailbox, size, upload, takes_ms, refusal, patience_ms)| Arrival {
            after_ms,
            mailbox,
            size: size.map(u64::from),
            upload,
            takes_ms,
            refusal,
            patience_ms,
        },
    )
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Ends { number: u64, mailbox: usize },
    Leaves { number: u64, mailbox: usize },
    Arrives { index: usize },
}

proptest! {
    /// In whatever order requests arrive, no limit is ever exceeded, and every request gets its turn.
    #[test]
    fn no_limit_is_overrun(arrivals in prop::collection::vec(arrival(), 1..150), concurrency in 1usize..12) {
        let limits = Limits {
            mailbox_requests: 20,
            mailbox_window: 10 * SECOND,
            upload_bytes: 500,
            upload_window: 7 * SECOND,
            mailbox_concurrency: 9,
            ..Limits::default()
        };
        let start = Instant::now();
        let mut schedule = Schedule::new(concurrency, limits.clone(), PATIENCE, start);
        let mut agenda = BTreeSet::new();
        let mut at = start;
        for (index, arrival) in arrivals.iter().enumerate() {
            at += Duration::from_millis(arrival.after_ms);
            agenda.insert((at, Happening::Arrives { index }));
        }
        let mut waiting = HashMap::new();
        let mut sent: HashMap<usize, Vec<(Instant, u64)>> = HashMap::new();
        let mut in_flight: HashMap<usize, usize> = HashMap::new();
        let mut fences: HashMap<Option<usize>, Instant> = HashMap::new();
        let mut sent_at = HashMap::new();
        let mut done = 0;
        let mut now = start;
        loop {
            let wake = schedule.next_wake(now);
            let next = agenda.first().map(|(at, _)| *at);
            let Some(soonest) = wake.into_iter().chain(next).min() else { break };
            now = now.max(soonest);
            while agenda.first().is_some_and(|(at, _)| *at <= now) {
                match agenda.pop_first().expect("there is a first").1 {
                    Happening::Arrives { index } => {
                        let arrival = &arrivals[index];
                        let load = Load { size_hint: arrival.size, upload: arrival.upload, requests: 1 };
                        let key = schedule.enqueue(now, &mailbox(arrival.mailbox), load);
                        waiting.insert(key.1, (key, index));
                        if let Some(patience) = arrival.patience_ms {
                            let leaves = Happening::Leaves { number: key.1, mailbox: arrival.mailbox };
                            agenda.insert((now + Duration::from_millis(patience), leaves));
                        }
                    }
                    Happening::Leaves { number, mailbox: of } => {
                        if let Some((key, _)) = waiting.remove(&number) {
                            prop_assert!(schedule.withdraw(&mailbox(of), key));
                            done += 1;
                        }
                    }
                    Happening::Ends { number, mailbox: of } => {
                        let (index, left) = sent_at.remove(&number).expect("it was sent");
                        match arrivals[index as usize].refusal {
                            Some((is_tenant, wait_ms)) => {
                                let affected = if is_tenant { Affected::Tenant } else { Affected::Scope };
                                let wait = Duration::from_millis(wait_ms);
                                prop_assert!(schedule.refused(&mailbox(of), affected, left, now) >= 1);
                                prop_assert_eq!(schedule.hold(&mailbox(of), affected, now + wait, now), vec![]);
                                let fence = fences.entry((!is_tenant).then_some(of)).or_insert(now);
                                *fence = (*fence).max(now + wait);
                            }
                            None => schedule.succeeded(&mailbox(of)),
                        }
                        schedule.finish(&mailbox(of));
                        *in_flight.get_mut(&of).expect("it was sent") -= 1;
                        done += 1;
                    }
                }
            }
            for key in schedule.dispatch(now) {
                let (_, index) = waiting.remove(&key.1).expect("it waited");
                let arrival = &arrivals[index];
                let of = arrival.mailbox;
                for fence in [None, Some(of)] {
                    prop_assert!(fences.get(&fence).is_none_or(|&fence| fence <= now), "sent in spite of a refusal");
                }
                *in_flight.entry(of).or_default() += 1;
                prop_assert!(in_flight[&of] <= MAILBOX_CONCURRENCY_MAX);
                prop_assert!(in_flight.values().sum::<usize>() <= concurrency);
                let log = sent.entry(of).or_default();
                log.push((now, arrival.upload));
                let recent = |window: Duration| log.iter().filter(move |(at, _)| *at + window > now);
                prop_assert!(recent(limits.mailbox_window).count() <= 20);
                let uploads = recent(limits.upload_window).map(|(_, bytes)| bytes);
                let uploads: Vec<_> = uploads.filter(|&&bytes| bytes > 0).collect();
                prop_assert!(uploads.iter().copied().sum::<u64>() <= 500 || uploads.len() == 1);
                sent_at.insert(key.1, (index as u64, now));
                let end = now + Duration::from_millis(arrival.takes_ms);
                agenda.insert((end, Happening::Ends { number: key.1, mailbox: of }));
            }
        }
        prop_assert_eq!(done, arrivals.len(), "somebody still waits");
        prop_assert!(now < at + 600 * SECOND, "it took too long");
    }
}
