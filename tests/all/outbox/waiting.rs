//! Dropped files that wait: for a commit, for a sign-in, for the service, for the next mount.

use super::*;

#[test]
fn waiting_files_are_restored_at_a_commit_and_reported() {
    let house = House::new(3);
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    let path = format!("{}/own.eml", house.inbox_of(&house.bob));
    let other = format!("{}/regretted.eml", house.inbox_of(&house.bob));
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    drop_file(outbox, &other, &mail("Regretted", "x@y.z")).unwrap();
    assert_eq!((state(outbox, &path), state(outbox, &other)), (State::Waiting, State::Waiting));
    assert_eq!(outbox.read(path.as_bytes(), 0, 8).unwrap(), b"Received");
    outbox.withdraw(other.as_bytes()).unwrap();
    assert!(matches!(outbox.item(other.as_bytes()), Err(OutboxError::NotFound)));
    assert!(house.called(&house.bob, "My own").is_empty());
    // Another process asks for the commit, as `restore commit` does.
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    assert!(ask_to_commit(&at).unwrap());
    restored(outbox, &path);
    assert_eq!(house.called(&house.bob, "My own").len(), 1);
    assert!(house.called(&house.bob, "Regretted").is_empty());
    assert_eq!(names(outbox, "jobs").len(), 1);
    let text = reports(outbox);
    assert!(text.contains("1 restored") && text.contains(&format!("done       {path}")), "{text}");
    assert!(outbox.take_changes().contains(&path.into_bytes()));
    assert!(outbox.take_changes().is_empty());
    let jobs = history(&at, &house.lab.repository).unwrap();
    assert_eq!(jobs.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    running.stop();
    assert_eq!(std::fs::read_dir(at.join("staged")).unwrap().count(), 0, "what is restored is not kept");
    // The folder of the outbox holds no readable part of the dropped files.
    for entry in files_below(&at) {
        let bytes = std::fs::read(&entry).unwrap();
        for secret in ["My own", "Regretted", "regretted", "x@y.z", "own.eml"] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} in {}", entry.display());
        }
    }
}

#[test]
fn a_synchronous_seal_returns_when_it_is_restored() {
    let house = House::new(3);
    // A caller that waits for the file gets it restored at once, without a rest.
    let running = house.open(How { synchronous: true, rest: AN_HOUR, ..How::default() });
    let outbox = &*running.outbox();
    let inbox = house.inbox_of(&house.bob);
    let mut draft = outbox.begin(inbox.as_bytes()).unwrap();
    draft.write(0, &mail("My own", "x@y.z")).unwrap();
    draft.seal(format!("{inbox}/own.eml").as_bytes(), None).unwrap();
    assert_eq!(house.called(&house.bob, "My own").len(), 1);
    assert!(matches!(draft.write(3, b"x"), Err(OutboxError::NotPermitted)));
    draft.release();
    restored(outbox, &format!("{inbox}/own.eml"));
}

#[test]
fn a_synchronous_close_says_what_fsync_said() {
    let house = House::new(3);
    house.lab.simulator.set_permissions(["User.Read.All", "Mail.Read", "Organization.Read.All"]);
    let running = house.open(How { synchronous: true, ..How::default() });
    let outbox = &*running.outbox();
    let path = format!("{}/own.eml", house.inbox_of(&house.bob));
    let mut draft = outbox.begin(path.rsplit_once('/').unwrap().0.as_bytes()).unwrap();
    draft.write(0, &mail("My own", "x@y.z")).unwrap();
    for call in ["fsync", "close"] {
        let refused = draft.seal(path.as_bytes(), None);
        assert!(matches!(refused, Err(OutboxError::Denied { .. })), "{call}: {refused:?}");
    }
    draft.release();
    assert!(matches!(state(outbox, &path), State::Failed { .. }), "it stays listed, with the reason");
}

#[test]
fn files_wait_while_the_sign_in_has_expired_and_go_on_when_it_works_again() {
    let house = House::new(3);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let inbox = house.inbox_of(&house.bob);
    outbox.list(inbox.as_bytes()).unwrap();
    let authority = house.lab.simulator.authority();
    authority.change_rules(|rules| rules.secrets_expired = true);
    authority.expire_tokens();
    let paths = [format!("{inbox}/one.eml"), format!("{inbox}/two.eml"), format!("original/{}", house.canary().0)];
    drop_file(outbox, &paths[0], &mail("One", "x@y.z")).unwrap();
    drop_file(outbox, &paths[1], &mail("Two", "x@y.z")).unwrap();
    drop_file(outbox, &paths[2], &house.canary().1).unwrap();
    // `finish` returns although files wait: only a person can sign in.
    let left = running.finish(&AtomicBool::new(false)).unwrap();
    assert_eq!((left.queued, left.failed), (3, 0));
    let reason = running.signed_out().unwrap();
    assert!(reason.contains("AADSTS7000222"), "{reason}");
    let state_folder = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    assert_eq!(signed_out(&state_folder, house.lab.repository.keys()), Some(reason), "another process can tell");
    let reports = outbox.list(b"jobs").unwrap();
    let report = [&b"jobs/"[..], &reports[0].name].concat();
    let report = String::from_utf8(outbox.read(&report, 0, 1 << 20).unwrap()).unwrap();
    assert!(report.contains("signs in again") && report.contains("3 to do"), "{report}");
    // A file that was not sent yet can be withdrawn.
    outbox.withdraw(paths[1].as_bytes()).unwrap();
    authority.change_rules(|rules| rules.secrets_expired = false);
    restored(outbox, &paths[0]);
    restored(outbox, &paths[2]);
    assert_eq!(running.signed_out(), None);
    assert_eq!(signed_out(&state_folder, house.lab.repository.keys()), None);
    assert_eq!((house.called(&house.bob, "One").len(), house.called(&house.bob, "Two").len()), (1, 0));
}

#[test]
fn a_resting_file_can_be_withdrawn_until_a_commit() {
    let house = House::new(3);
    let inbox = house.inbox_of(&house.bob);
    let at = |name: &str| format!("{inbox}/{name}.eml");
    let running = house.open(How { rest: AN_HOUR, ..How::default() });
    let first = running.outbox();
    let outbox = &*first;
    for name in ["Regretted", "Kept"] {
        drop_file(outbox, &at(name), &mail(name, "x@y.z")).unwrap();
        assert_eq!(state(outbox, &at(name)), State::Queued);
    }
    outbox.withdraw(at("Regretted").as_bytes()).unwrap();
    assert!(matches!(outbox.item(at("Regretted").as_bytes()), Err(OutboxError::NotFound)));
    outbox.commit().unwrap();
    restored(outbox, &at("Kept"));
    drop_file(outbox, &at("Later"), &mail("Later", "x@y.z")).unwrap();
    // `finish` commits, too.
    assert_eq!(running.finish(&AtomicBool::new(false)).unwrap().queued, 0);
    running.stop();
    drop(first);
    let running = house.open(How { rest: Duration::from_millis(100), ..How::default() });
    let outbox = &*running.outbox();
    drop_file(outbox, &at("By itself"), &mail("By itself", "x@y.z")).unwrap();
    restored(outbox, &at("By itself"));
    let came = ["Regretted", "Kept", "Later", "By itself"].map(|name| house.called(&house.bob, name).len());
    assert_eq!(came, [0, 1, 1, 1]);
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn waiting_files_survive_a_restart() {
    let house = House::new(3);
    let (name, bytes) = house.canary();
    let how = How { waits: true, ..How::default() };
    let running = house.open(how);
    let first = running.outbox();
    let outbox = &*first;
    let path = format!("original/Kept/{name}");
    make_folders(outbox, &path);
    outbox.make_folder(b"original/Only a name").unwrap();
    let mut draft = outbox.begin(b"original/Kept").unwrap();
    draft.write(0, &bytes).unwrap();
    draft.seal(path.as_bytes(), Some(Time { secs: 1, nanos: 1 })).unwrap();
    let mtime = |outbox: &dyn Outbox| outbox.item(path.as_bytes()).unwrap().mtime;
    assert_eq!(mtime(outbox), Time { secs: 1, nanos: 1 });
    // Some programs set the time of a file after they have closed it. That may be before or after the file is released.
    outbox.set_mtime(path.as_bytes(), Time { secs: 2, nanos: 0 }).unwrap();
    draft.release();
    assert_eq!(mtime(outbox), Time { secs: 2, nanos: 0 });
    outbox.set_mtime(path.as_bytes(), Time { secs: -3, nanos: 7 }).unwrap();
    assert!(matches!(outbox.set_mtime(b"original/Kept", Time::default()), Err(OutboxError::NotFound)));
    running.stop();
    drop(first);
    let running = house.open(how);
    let outbox = &*running.outbox();
    assert_eq!(names(outbox, "original"), ["Kept"]);
    assert_eq!((state(outbox, &path), mtime(outbox)), (State::Waiting, Time { secs: -3, nanos: 7 }));
    assert_eq!(outbox.read(path.as_bytes(), 0, bytes.len() + 1).unwrap(), bytes);
    outbox.commit().unwrap();
    restored(outbox, &path);
    let [found] = &house.called(&house.alice, "Canary budget")[..] else { panic!("not once") };
    assert_ne!(found.properties["receivedDateTime"], "1969-12-31T23:59:57Z", "a mail's times are its own");
    let since = Instant::now();
    while !matches!(outbox.read(path.as_bytes(), 0, 1), Err(OutboxError::NotFound)) {
        assert!(since.elapsed() < PATIENCE, "the bytes of what was restored are kept");
        std::thread::sleep(Duration::from_millis(5));
    }
    outbox.set_mtime(path.as_bytes(), Time { secs: 4, nanos: 0 }).unwrap();
    assert_eq!(mtime(outbox), Time { secs: 4, nanos: 0 }, "it is listed until the end");
}

#[test]
fn unreachable_files_are_tried_on_and_refused_ones_three_times() {
    let house = House::new(3);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let path = format!("{}/own.eml", house.inbox_of(&house.bob));
    let fail = |fault| {
        let (method, contains) = (Some("POST".to_owned()), "/messages".to_owned());
        let rule = Rule { method, contains, skip: 0, times: None, fault };
        house.lab.simulator.reset_counters();
        house.lab.simulator.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    };
    let faults = || house.lab.simulator.counters().faults;
    // An error that will not pass, as far as the client can tell.
    fail(Fault::NotFound);
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    let State::Failed { reason } = settled(outbox, &path) else { panic!("it was restored") };
    assert!(!reason.is_empty());
    assert_eq!(faults(), 3, "tried three times");
    assert_eq!((told(outbox, "failed"), told(outbox, "done")), (1, 0));
    // The service does not answer for longer than the client tries a request by itself.
    fail(Fault::UnavailableEmpty);
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    let since = Instant::now();
    // More attempts than for a refused file. Before each, the outbox looks for an item that the last attempt may have
    // made.
    while faults() < 4 {
        assert!(since.elapsed() < PATIENCE, "it is not tried on: {}", state(outbox, &path));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(state(outbox, &path), State::Queued | State::Uploading));
    house.lab.simulator.set_faults(Faults::default());
    restored(outbox, &path);
    assert_eq!(house.called(&house.bob, "My own").len(), 1);
    assert_eq!((told(outbox, "failed"), told(outbox, "done")), (0, 1), "the later drop counts");
}

/// The outbox waits for a mailbox in which another restore works. A mount lets others into a mailbox when it has
/// nothing to do there.
#[test]
fn dropped_files_wait_for_another_restore_in_the_mailbox() {
    let house = House::new(3);
    let running = house.open(How::default());
    let kept = running.outbox();
    let outbox = &*kept;
    let path = |n: usize| format!("{}/{n}.eml", house.inbox_of(&house.bob));
    drop_file(outbox, &path(0), &mail("First", "x@y.z")).unwrap();
    restored(outbox, &path(0));
    let locked: Vec<_> = files_below(&locks(&house.lab.folder.path().join("state")));
    let [lock] = &locked[..] else { panic!("{locked:?}") };
    let lock = std::fs::File::open(lock).unwrap();
    eventually("the mount lets others in", || lock.try_lock().is_ok());
    drop_file(outbox, &path(1), &mail("Second", "x@y.z")).unwrap();
    // Its turn comes before that of the next file, which is for another mailbox.
    let other = format!("{}/other.eml", house.inbox_of(&house.alice));
    drop_file(outbox, &other, &mail("Other", "x@y.z")).unwrap();
    restored(outbox, &other);
    assert!(matches!(state(outbox, &path(1)), State::Queued | State::Uploading), "{}", state(outbox, &path(1)));
    assert!(house.called(&house.bob, "Second").is_empty());
    lock.unlock().unwrap();
    restored(outbox, &path(1));
    assert_eq!(house.called(&house.bob, "Second").len(), 1);
}

#[test]
fn dropped_files_wait_while_the_repository_is_unreachable() {
    let house = House::new(3);
    let (name, canary) = house.canary();
    let backend = Arc::new(Faulty::new(Local::open(house.lab.folder.path().join("repository")).unwrap()));
    let repository = Arc::new(Repository::open(backend.clone(), b"password").unwrap());
    let running = house.open_of(&repository, How { waits: true, ..How::default() }, None);
    let outbox = &*running.outbox();
    let paths = [format!("original/{name}"), format!("{}/{name}", house.inbox_of(&house.bob))];
    for path in &paths {
        drop_file(outbox, path, &canary).unwrap();
    }
    eventually("all snapshots are known", || {
        let unknown = drop_file(outbox, "original/unknown.eml", &mail("Unknown", "x@y.z"));
        matches!(unknown, Err(OutboxError::Unknown { .. }))
    });
    let away = faulty::Fault::Fail(std::io::ErrorKind::TimedOut);
    backend.plan(0..u64::MAX, away, |_| true);
    outbox.commit().unwrap();
    // More attempts than for a refused file.
    eventually("it is tried on", || backend.faults() >= 8);
    for path in &paths {
        assert!(matches!(state(outbox, path), State::Queued | State::Uploading), "{path}: {}", state(outbox, path));
    }
    backend.heal();
    paths.iter().for_each(|path| restored(outbox, path));
    assert_eq!(house.called(&house.bob, "Canary budget").len(), 1);
}

#[test]
fn regression_a_flipped_bit_in_the_journal_loses_no_dropped_file() {
    let house = House::new(3);
    let how = How { waits: true, ..How::default() };
    let running = house.open(how);
    let path = |n: usize| format!("{}/{n}.eml", house.inbox_of(&house.bob));
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    let len = || std::fs::metadata(at.join("journal")).unwrap().len();
    let mut ends = Vec::new();
    for n in 0..10 {
        drop_file(&*running.outbox(), &path(n), &mail(&format!("Number {n}"), "x@y.z")).unwrap();
        ends.push(len());
    }
    running.stop();
    let mut journal = std::fs::read(at.join("journal")).unwrap();
    // A byte in the record of the fifth file.
    journal[((ends[3] + ends[4]) / 2) as usize] ^= 1;
    std::fs::write(at.join("journal"), &journal).unwrap();
    let known: usize = history(&at, &house.lab.repository).unwrap().values().map(Vec::len).sum();
    assert_eq!(known, 9, "who only looks sees what is whole");
    let running = house.open(how);
    let kept = running.outbox();
    let outbox = &*kept;
    assert_eq!(files_below(&at.join("staged")).len(), 10);
    assert_eq!(std::fs::read(at.join("journal.damaged-1")).unwrap(), journal);
    let [lost] = &names(outbox, "original")[..] else { panic!("{:?}", names(outbox, "original")) };
    let lost = format!("original/{lost}");
    let State::Failed { reason } = state(outbox, &lost) else { panic!("{}", state(outbox, &lost)) };
    assert!(reason.contains("damaged on the disk"), "{reason}");
    assert_eq!(outbox.read(lost.as_bytes(), 0, 1 << 20).unwrap(), mail("Number 4", "x@y.z"));
    assert!(reports(outbox).contains("1 failed"));
    outbox.commit().unwrap();
    for n in (0..10).filter(|n| *n != 4) {
        restored(outbox, &path(n));
        assert_eq!(house.called(&house.bob, &format!("Number {n}")).len(), 1);
    }
    outbox.withdraw(lost.as_bytes()).unwrap();
    drop(kept);
    running.stop();
    house.open(how).stop();
    assert!(files_below(&at.join("staged")).is_empty());
}
