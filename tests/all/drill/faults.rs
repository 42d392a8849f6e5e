//! Restores while requests fail, answers are lost, and other restores work in the same mailbox.

use super::*;

#[test]
fn a_storm_of_faults_neither_loses_nor_doubles_anything() {
    for seed in 1..=u64::from(cases(2)) {
        let lab = laboratory(seed, 1);
        let tenant = lab.simulator.tenant();
        add_hard_cases(&tenant);
        let users = lab.mailboxes();
        let backup = lab.back_up().expect("a backup");
        let before: Vec<_> = users.iter().map(|user| dump(&tenant, user)).collect();
        users.iter().for_each(|user| wipe(&tenant, user));
        lab.simulator.reset_counters();
        lab.simulator.set_faults(Faults::bad_day(seed, 6));
        let report = lab.restore(&backup, &[]);
        assert!(lab.simulator.counters().faults > 20, "seed {seed}");
        lab.simulator.set_faults(Faults::default());
        assert_whole(&report);
        for (user, before) in users.iter().zip(&before) {
            assert_same(before, &dump(&tenant, user));
        }
        nothing_was_sent(&lab.simulator);
    }
}

#[test]
fn a_message_whose_answer_was_lost_is_found_and_not_made_again() {
    let lab = laboratory(8, 1);
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let backup = lab.back_up().expect("a backup");
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    let lost = |contains: &str, fault| Rule {
        method: Some("POST".to_owned()),
        contains: contains.to_owned(),
        skip: 1,
        times: Some(12),
        fault,
    };
    let rules = vec![lost("/messages", Fault::LostAnswerTimeout), lost("/childFolders", Fault::LostAnswer)];
    lab.simulator.set_faults(Faults { rules, ..Faults::default() });
    let report = lab.restore(&backup, &[]);
    assert!(lab.simulator.counters().faults >= 12);
    assert_whole(&report);
    assert_same(&before, &dump(&tenant, &user));
}

/// Gateways answer with an error, and the service does the work two seconds later, for messages and for attachments.
#[test]
fn regression_work_that_is_done_seconds_after_an_error_answer_makes_no_twin() {
    let lab = laboratory(8, 1);
    let tenant = lab.simulator.tenant();
    let user = add_hard_cases(&tenant);
    let backup = lab.back_up().expect("a backup");
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    let rules = vec![
        lost("/attachments", Fault::LateWork, 0, 3),
        lost("/messages", Fault::LateWork, 1, 12),
        lost("/childFolders", Fault::LateWork, 1, 2),
    ];
    lab.simulator.set_faults(Faults { rules, ..Faults::default() });
    let report = lab.restore(&backup, &[&format!("Users/{user}")]);
    assert!(lab.simulator.counters().faults >= 14, "{}", lab.simulator.counters().faults);
    assert_whole(&report);
    assert_same(&before, &dump(&tenant, &user));
}

/// The work is done so late that the message was made again. One of the two is deleted, and no other message with the
/// mark is.
#[test]
fn a_late_twin_is_deleted_and_messages_of_others_stay() {
    let lab = Laboratory::new(Shape { seed: 3, users: 1, messages: 3, ..Shape::default() });
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let mime = b"From: a@b.c\r\nSubject: Canary\r\nMessage-ID: <canary@b.c>\r\n\r\nText\r\n".to_vec();
    tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("a message");
    let backup = lab.back_up().expect("a backup");
    let path = paths_in(&lab, &backup, &format!("Users/{user}/Outlook/Inbox"))
        .into_iter()
        .find(|path| path.contains("Canary"))
        .expect("the canary");
    wipe(&tenant, &user);
    let rules = vec![lost("/messages", Fault::LateWork, 0, 1)];
    lab.simulator.set_faults(Faults { rules, late_ms: 20_000, ..Faults::default() });
    let canaries = || {
        let of_record = |mailbox: &mut Mailbox| {
            let all = mailbox
                .messages()
                .filter(|(_, record)| record.extra.as_deref().is_some_and(|e| !e.extended.is_empty()));
            all.map(|(key, record)| (key, record.extra.clone())).collect::<Vec<_>>()
        };
        tenant.with_mailbox(&user, of_record).expect("a mailbox")
    };
    let interfere = || {
        eventually("it was made again", Duration::from_secs(60), || !canaries().is_empty());
        // A message that another machine made at the same time has the same mark, but another job.
        let mut extra = canaries()[0].1.as_deref().cloned().expect("extended properties");
        extra.extended.retain(|id, _| !id.ends_with("StrongroomItemJob"));
        let mime = b"Subject: Of another machine\r\n\r\nText\r\n".to_vec();
        let id = tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("a message");
        let mark = |mailbox: &mut Mailbox| {
            let key = mailbox.resolve_message(&id).expect("the message");
            let set = |record: &mut Record| record.extra = Some(Arc::new(extra));
            mailbox.change_message(key, 1_793_700_000, set).expect("a message");
        };
        tenant.with_mailbox(&user, mark).expect("a mailbox");
    };
    let report = std::thread::scope(|scope| {
        scope.spawn(interfere);
        lab.restore(&backup, &[&path])
    });
    assert_whole(&report);
    assert_eq!(report.restored, 1);
    assert_eq!(lab.simulator.counters().by_operation.get("CreateMessage"), Some(&2), "the late one was done");
    let subjects = dump(&tenant, &user)["inbox"].clone();
    let of = |subject: &str| subjects.iter().filter(|message| message.contains(subject)).count();
    assert_eq!((of("Canary"), of("Of another machine")), (1, 1), "{subjects:?}");
}

/// Two snapshots are restored to one mailbox at the same time, by two runs of the program. Each waits for the other,
/// and finds the messages that the other made.
#[test]
fn regression_two_restores_into_one_mailbox_at_once_make_nothing_twice() {
    let lab = laboratory(5, 1);
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let backups = [lab.back_up().expect("a backup"), lab.back_up().expect("a second backup")];
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    let plan = |backup| lab.plan(lab.client(), backup, &[], lab.to(AccountTarget::Original)).expect("a plan");
    let plans = backups.each_ref().map(plan);
    let reports = std::thread::scope(|scope| {
        let running = plans.each_ref().map(|plan| scope.spawn(|| plan.execute(&Arc::default(), &Arc::default())));
        running.map(|running| running.join().expect("a restore"))
    });
    reports.iter().for_each(assert_whole);
    assert_eq!(reports.iter().map(|report| report.restored).sum::<u64>(), held(&before));
    assert_eq!(reports.iter().map(|report| report.already_there).sum::<u64>(), held(&before));
    assert_same(&before, &dump(&tenant, &user));
}

/// A run that waits for another restore can be stopped. A lock ends with its process.
#[test]
fn a_restore_that_waits_for_another_can_be_stopped() {
    let lab = laboratory(6, 1);
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let backup = lab.back_up().expect("a backup");
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    let plan = || lab.plan(lab.client(), &backup, &[], lab.to(AccountTarget::Original)).expect("a plan");
    let (first, second) = (plan(), plan());
    // The first restore does not end before it is stopped.
    let rule = Rule { method: None, contains: "/messages".to_owned(), skip: 0, times: None, fault: Fault::Slow };
    lab.simulator.set_faults(Faults { slow_ms: 600_000, rules: vec![rule], ..Faults::default() });
    let (stop_first, stop_second) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| first.execute(&Arc::default(), &stop_first));
        eventually("the first is at work", PATIENCE, || lab.simulator.counters().faults > 0);
        let waiting = scope.spawn(|| second.execute(&Arc::default(), &stop_second));
        stop_second.store(true, Ordering::Relaxed);
        let report = waiting.join().expect("a restore");
        assert!(matches!(report.stopped, Some(RestoreError::Interrupted)), "{:?}", report.stopped);
        assert_eq!((report.restored, report.failed), (0, 0));
        stop_first.store(true, Ordering::Relaxed);
        assert!(running.join().expect("a restore").stopped.is_some());
    });
    lab.simulator.set_faults(Faults::default());
    assert_whole(&lab.restore(&backup, &[]));
    assert_same(&before, &dump(&tenant, &user));
}

#[test]
fn a_message_with_an_attachment_that_fails_is_not_left_half() {
    let lab = laboratory(9, 1);
    let tenant = lab.simulator.tenant();
    let user = add_hard_cases(&tenant);
    let backup = lab.back_up().expect("a backup");
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    let rule =
        Rule { method: None, contains: "createUploadSession".to_owned(), skip: 0, times: None, fault: Fault::NotFound };
    lab.simulator.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    let path = format!("Users/{user}");
    let report = lab.restore(&backup, &[&path]);
    assert_eq!((report.failed, report.restored), (1, held(&before) - 1), "{:?}", report.failures);
    assert!(String::from_utf8_lossy(&report.failures[0].path).contains("Large"), "{:?}", report.failures);
    let large = || dump(&tenant, &user).values().flatten().filter(|message| message.contains("\"Large\"")).count();
    assert_eq!(large(), 0);
    lab.simulator.set_faults(Faults::default());
    let report = lab.restore(&backup, &[&path]);
    assert_whole(&report);
    assert_eq!(report.restored, 1);
    assert_same(&before, &dump(&tenant, &user));
}
