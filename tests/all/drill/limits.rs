//! Restores at the limits of the service, and the memory that they take.

use super::*;

/// The window of the limits in these tests.
const WINDOW: Duration = Duration::from_secs(2);

/// The client's window is longer by the time that a request may be under way. In five minutes that is nothing, in two
/// seconds it is much.
const CLIENT_WINDOW: Duration = Duration::from_millis(2_100);

/// Limits that never make anybody wait.
fn unlimited() -> graph::Limits {
    graph::Limits { mailbox_requests: u32::MAX, upload_bytes: u64::MAX / 1_000, ..graph::Limits::default() }
}

/// Restores with these limits, and returns how long it took. Fails if the service refused a request.
fn paced(lab: &Laboratory, backup: &TenantReport, limits: graph::Limits, service: Limits) -> Duration {
    lab.simulator.set_limits(service);
    lab.simulator.reset_counters();
    let client = limited_client_of(&lab.simulator, limits);
    let plan = lab.plan(client, backup, &[], lab.to(AccountTarget::Original)).expect("a plan");
    let started = Instant::now();
    let report = plan.execute(&Arc::default(), &Arc::default());
    let took = started.elapsed();
    assert_whole(&report);
    assert_eq!(lab.simulator.counters().throttled, 0);
    took
}

/// Compares the time taken for `amount` with the earliest possible end. What fits into one window goes at once.
#[track_caller]
fn assert_paced(amount: u64, limit: u64, took: Duration) {
    let windows = amount.div_ceil(limit) - 1;
    assert!(windows >= 4, "{amount} is too little to tell");
    let earliest = CLIENT_WINDOW * windows as u32;
    eprintln!("{amount} in {took:?}, at {limit} in {CLIENT_WINDOW:?}: {earliest:?} at the earliest");
    assert!(
        took.as_secs_f64() <= earliest.as_secs_f64() / 0.9,
        "{amount} in {took:?}, which {earliest:?} would do for"
    );
}

/// Backs up a mailbox with this many messages and empties it. Returns its user.
fn lost_mailbox(messages: usize, streams: bool) -> (Laboratory, TenantReport, String) {
    let limits = Some(Limits::none());
    let mut lab = Laboratory::new(Shape { seed: 1, users: 1, messages, limits, ..Shape::default() });
    lab.options.streams = streams;
    let user = lab.mailboxes()[0].clone();
    let backup = lab.back_up_with(limited_client_of(&lab.simulator, unlimited())).expect("a backup");
    wipe(&lab.simulator.tenant(), &user);
    (lab, backup, user)
}

#[test]
fn a_restore_uses_nine_tenths_of_the_request_limit() {
    for streams in [false, true] {
        let (lab, backup, user) = lost_mailbox(messages(500), streams);
        let limits = graph::Limits { mailbox_requests: 200, mailbox_window: CLIENT_WINDOW, ..unlimited() };
        let rate = Rate { max: 200, window_ms: WINDOW.as_millis() as u64 };
        let took = paced(&lab, &backup, limits, Limits { mailbox_requests: Some(rate), ..Limits::none() });
        assert_paced(lab.requests_of(&user), 200, took);
    }
}

/// The published limits, in real time.
#[test]
#[ignore = "takes as long as the service lets it: twenty minutes for 10,200 messages (make drill-pace)"]
fn a_mailbox_is_restored_as_quickly_as_the_published_limits_allow() {
    let (lab, backup, user) = lost_mailbox(messages(10_200), true);
    let took = paced(&lab, &backup, graph::Limits::default(), Limits::default());
    let windows = |amount: u64, limit: u64| amount.div_ceil(limit).saturating_sub(1) as u32;
    let (requests, bytes) = (lab.requests_of(&user), lab.simulator.counters().bytes_received);
    let by_requests = Duration::from_secs(600) * windows(requests, 10_000);
    let by_bytes = Duration::from_secs(300) * windows(bytes, 150_000_000);
    let earliest = by_requests.max(by_bytes);
    eprintln!("{requests} requests with {bytes} bytes in {took:?}, which the limits allow in {earliest:?}");
    assert!(took.as_secs_f64() <= earliest.as_secs_f64() / 0.9, "{took:?}, not {earliest:?}");
}

#[test]
fn a_restore_uses_nine_tenths_of_the_upload_limit() {
    let lab = Laboratory::new(Shape { seed: 1, users: 1, messages: 0, ..Shape::default() });
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    for number in 0..120 {
        let mut mime = format!("Subject: {number}\r\nMessage-ID: <{number}@x>\r\n\r\n").into_bytes();
        mime.resize(100_000, b'x');
        tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox");
    }
    let backup = lab.back_up().expect("a backup");
    wipe(&tenant, &user);
    let limits = graph::Limits { upload_bytes: 2_000_000, upload_window: CLIENT_WINDOW, ..graph::Limits::default() };
    let rate = Rate { max: 2_000_000, window_ms: WINDOW.as_millis() as u64 };
    let took = paced(&lab, &backup, limits, Limits { mailbox_upload_bytes: Some(rate), ..Limits::default() });
    assert_paced(lab.simulator.counters().bytes_received, 2_000_000, took);
}

/// The variable with the arguments of the child process, one a line: the repository, the folder of its journals, the
/// snapshot, and how to reach the organisation.
const CHILD: &str = "STRONGROOM_DRILL_CHILD";

/// Restores for the test below, in a process of its own, so that its memory can be measured.
#[test]
#[ignore = "a part of another test"]
fn restore_as_a_child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let asked: Vec<_> = asked.lines().collect();
    let [repository, journals, wanted, url, tenant, client_id, secret] = asked.try_into().expect("seven lines");
    let backend = Local::open(repository).expect("a folder");
    let repository = Arc::new(Repository::open(Arc::new(backend), b"password").expect("a repository"));
    let mut snapshots = repository.snapshots().expect("snapshots").readable.into_iter();
    let (id, snapshot) = snapshots.find(|(id, _)| id.to_string() == wanted).expect("the snapshot");
    let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());
    let client = client_to(url, tenant, client_id, secret, unlimited());
    let options = AccountOptions {
        target: AccountTarget::Original,
        into: Vec::new(),
        when_exists: WhenExists::Skip,
        mailboxes_at_once: 4,
        locks: std::path::Path::new(journals).join("locks"),
        journals: journals.into(),
    };
    let plan = AccountPlan::new(&repository, Arc::new(reader), client, (id, &snapshot), &[], options);
    let report = plan.expect("a plan").execute(&Arc::default(), &Arc::default());
    assert_whole(&report);
    let status = std::fs::read_to_string("/proc/self/status").expect("what the kernel says of this process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the most that it had");
    println!("\nrestored {} peak {}", report.restored, peak.trim().trim_end_matches(" kB"));
}

/// Returns the peak memory, in KiB, for restoring a folder with this many messages.
fn memory_for_a_folder(messages: usize, streams: bool) -> u64 {
    let limits = Some(Limits::none());
    let mut lab = Laboratory::new(Shape { seed: 1, users: 1, limits, ..Shape::default() });
    lab.options.streams = streams;
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    wipe(&tenant, &user);
    for number in 0..messages {
        let text = "It is what it is, and was what it was.\r\n".repeat(number % 50);
        let mime = format!("From: a@b.c\r\nSubject: {number}\r\nMessage-ID: <{number}@x>\r\n\r\n{text}").into_bytes();
        tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox");
    }
    let backup = lab.back_up_with(limited_client_of(&lab.simulator, unlimited())).expect("a backup");
    wipe(&tenant, &user);
    let folder = |name: &str| lab.folder.path().join(name).to_string_lossy().into_owned();
    let simulator = &lab.simulator;
    let (repository, journals, snapshot) = (folder("repository"), folder("journals"), backup.id.to_string());
    let organisation =
        [simulator.url(), simulator.tenant_id(), simulator.client_id(), simulator.client_secret()].join("\n");
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "drill::limits::restore_as_a_child", "--ignored", "--nocapture"]);
    // The same settings as the program gives its allocator.
    child.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "1048576");
    child.env(CHILD, [repository, journals, snapshot, organisation].join("\n"));
    let said = text(&run(&mut child, 0).stdout);
    let said = said.lines().find_map(|line| line.strip_prefix("restored ")).expect("what it has restored").to_owned();
    let (restored, peak) = said.split_once(" peak ").expect("two numbers");
    assert_eq!(restored.parse(), Ok(messages));
    assert_eq!(dump(&tenant, &user)["inbox"].len(), messages);
    peak.trim().parse().expect("a number")
}

#[test]
fn memory_does_not_grow_with_the_folder() {
    for streams in [false, true] {
        let all = messages(2_000);
        // Caches are as full with half of the messages as with all.
        let [half, whole] = [all / 2, all].map(|messages| memory_for_a_folder(messages, streams));
        eprintln!("{half} KiB for {} messages of a folder, {whole} KiB for {all}; streams: {streams}", all / 2);
        // Memory may grow by a few hashes for each message of the folder.
        let hashes = all as u64 / 8;
        assert!(whole < half + 40 * 1024 + hashes && whole < 300 * 1024, "{half} KiB, then {whole} KiB");
    }
}
