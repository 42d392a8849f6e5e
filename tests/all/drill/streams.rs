//! Restores with full fidelity: messages go back as export streams, and each of them only once.

use super::*;

/// An organisation of one user with the hard cases, backed up with full fidelity.
fn full(seed: u64) -> (Laboratory, Vec<String>) {
    let mut lab = laboratory(seed, 1);
    lab.options.streams = true;
    let tenant = lab.simulator.tenant();
    add_hard_cases(&tenant);
    let users = lab.mailboxes();
    users.iter().for_each(|user| add_what_json_loses(&tenant, user));
    (lab, users)
}

#[test]
fn with_full_fidelity_everything_comes_back_to_the_last_bit() {
    let (lab, users) = full(3);
    let tenant = lab.simulator.tenant();
    let backup = lab.back_up().expect("a backup");
    assert_eq!(backup.ledger.streamless, 0);
    let before: Vec<_> = users.iter().map(|user| exact(&tenant, user)).collect();
    users.iter().for_each(|user| wipe(&tenant, user));
    lab.simulator.set_switches(Switches { refuse_tokens_on_urls: true, ..Switches::default() });
    lab.simulator.reset_counters();
    let report = lab.restore(&backup, &[]);
    assert_whole(&report);
    let all: u64 = before.iter().map(held).sum();
    assert_eq!((report.restored, report.remarks.as_slice()), (all, &[][..]));
    for (user, before) in users.iter().zip(&before) {
        assert_same(before, &exact(&tenant, user));
    }
    // One request imports the message. Another one sets the mark and returns what is compared.
    let requests = lab.simulator.counters().by_operation;
    let count = |name: &str| requests.iter().find(|(operation, _)| **operation == *name).map_or(0, |(_, count)| *count);
    assert_eq!((count("ImportItem"), count("UpdateMessage"), count("CreateMessage")), (all, all, 0), "{requests:?}");
    lab.simulator.reset_counters();
    let again = lab.restore(&backup, &[]);
    assert_whole(&again);
    assert_eq!((again.restored, again.already_there), (0, all));
    assert_eq!(lab.simulator.counters().by_operation.get("ImportItem"), None);
    // A restored message is backed up, lost and restored like any other, although its stream holds the mark of the
    // first restore.
    let second = lab.back_up().expect("a backup");
    users.iter().for_each(|user| wipe(&tenant, user));
    let rule = lost("importItem", Fault::LostAnswer, 2, 9);
    lab.simulator.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    assert_whole(&lab.restore(&second, &[]));
    for (user, before) in users.iter().zip(&before) {
        assert_same(before, &exact(&tenant, user));
    }
    nothing_was_sent(&lab.simulator);
}

#[test]
fn an_import_whose_answer_was_lost_is_found_and_not_made_again() {
    let (lab, users) = full(8);
    let tenant = lab.simulator.tenant();
    let backup = lab.back_up().expect("a backup");
    let before: Vec<_> = users.iter().map(|user| exact(&tenant, user)).collect();
    users.iter().for_each(|user| wipe(&tenant, user));
    let rules = vec![lost("importItem", Fault::LostAnswer, 1, 20), lost("importItem", Fault::LostAnswerTimeout, 0, 10)];
    lab.simulator.set_faults(Faults { rules, ..Faults::default() });
    let report = lab.restore(&backup, &[]);
    assert!(lab.simulator.counters().faults >= 30);
    assert_whole(&report);
    assert!(report.remarks.is_empty(), "{:?}", report.remarks);
    for (user, before) in users.iter().zip(&before) {
        assert_same(before, &exact(&tenant, user));
    }
}

/// A gateway gives up and answers with an error, but the work is done all the same.
#[test]
fn an_import_that_the_service_ends_late_is_waited_for_and_not_made_again() {
    let mut lab = Laboratory::new(Shape { seed: 9, users: 1, messages: 6, ..Shape::default() });
    lab.options.streams = true;
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let backup = lab.back_up().expect("a backup");
    let before = exact(&tenant, &user);
    wipe(&tenant, &user);
    let late = Switches { imports_take_ms: 3_000, imports_answer_within_ms: Some(200), ..Switches::default() };
    lab.simulator.set_switches(late);
    let report = lab.restore(&backup, &[]);
    assert_whole(&report);
    assert!(report.remarks.is_empty(), "{:?}", report.remarks);
    assert_eq!(lab.simulator.counters().by_operation.get("ImportItem"), Some(&report.restored));
    assert_same(&before, &exact(&tenant, &user));
}

#[test]
fn a_storm_neither_loses_nor_doubles_what_is_imported() {
    for seed in 1..=u64::from(cases(2)) {
        let (lab, users) = full(seed);
        let tenant = lab.simulator.tenant();
        let backup = lab.back_up().expect("a backup");
        let before: Vec<_> = users.iter().map(|user| exact(&tenant, user)).collect();
        users.iter().for_each(|user| wipe(&tenant, user));
        lab.simulator.reset_counters();
        lab.simulator.set_faults(Faults::bad_day(seed, 6));
        let report = lab.restore(&backup, &[]);
        assert!(lab.simulator.counters().faults > 20, "seed {seed}");
        lab.simulator.set_faults(Faults::default());
        assert_whole(&report);
        for (user, before) in users.iter().zip(&before) {
            assert_same(before, &exact(&tenant, user));
        }
        nothing_was_sent(&lab.simulator);
    }
}

#[test]
fn without_the_right_to_import_messages_come_back_from_mime() {
    for (seed, no_permission) in [(11, true), (12, false)] {
        let (lab, users) = full(seed);
        let tenant = lab.simulator.tenant();
        let backup = lab.back_up().expect("a backup");
        let before: Vec<_> = users.iter().map(|user| dump(&tenant, user)).collect();
        users.iter().for_each(|user| wipe(&tenant, user));
        match no_permission {
            true => {
                let others = permissions::APPLICATION.iter().copied().filter(|name| !name.contains("ImportExport"));
                lab.simulator.set_permissions(others);
            }
            false => lab.simulator.set_switches(Switches { no_import_export: true, ..Switches::default() }),
        }
        let report = lab.restore(&backup, &[]);
        assert_whole(&report);
        let all: u64 = before.iter().map(held).sum();
        assert_eq!((report.restored, report.remarks.len()), (all, 1), "{:?}", report.remarks);
        assert!(report.remarks[0].starts_with(&format!("{all} messages went back from MIME")), "{:?}", report.remarks);
        for (user, before) in users.iter().zip(&before) {
            assert_same(before, &dump(&tenant, user));
        }
    }
}

#[test]
fn streams_go_to_other_people_into_folders_and_other_organisations() {
    let (lab, users) = full(13);
    let tenant = lab.simulator.tenant();
    let backup = lab.back_up().expect("a backup");
    let user = &users[1];
    let organisation = Organisation { seed: 78, users: 1, ..Organisation::default() };
    let other = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let locale = Locale::ChineseTraditional;
    other.tenant().add_user(UserSpec { principal_name: "chen".to_owned(), locale, ..UserSpec::default() });
    let chinese = other.tenant().users().last().expect("a user").principal_name();
    wipe(&other.tenant(), &chinese);
    let to = || lab.to(AccountTarget::User(chinese.clone()));
    let report = restored(&lab, client_of(&other), &backup, &[&format!("Users/{user}")], to());
    assert!(report.remarks.is_empty(), "{:?}", report.remarks);
    assert_same(&exact(&tenant, user), &exact(&other.tenant(), &chinese));
    // Upload sessions end too early, and the items of two people come into one new folder.
    let control = other.state().clone();
    let ending = std::thread::spawn(move || {
        eventually("some imports", PATIENCE, || control.counters.counts().by_operation.get("ImportItem") > Some(&30));
        control.transfers.expire_sessions();
    });
    other.reset_counters();
    let into = AccountOptions { into: vec!["Old".to_owned(), "Mail".to_owned()], ..to() };
    let paths: Vec<_> = users.iter().map(|user| format!("Users/{user}")).collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let report = restored(&lab, client_of(&other), &backup, &paths, into.clone());
    ending.join().expect("sessions that ended");
    assert!(report.remarks.is_empty(), "{:?}", report.remarks);
    let after = exact(&other.tenant(), &chinese);
    let below = after.iter().filter(|(folder, _)| folder.starts_with("msgfolderroot/Old/Mail/"));
    let all: u64 = users.iter().map(|user| held(&exact(&tenant, user))).sum();
    assert_eq!((report.restored, below.map(|(_, messages)| messages.len() as u64).sum()), (all, all));
    let again = restored(&lab, client_of(&other), &backup, &paths, into);
    assert_eq!((again.restored, again.folders), (0, 0));
    nothing_was_sent(&other);
}
