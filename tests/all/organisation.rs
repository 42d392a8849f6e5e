//! Backups of an organisation, against a tenant that changes and fails. After each run the snapshot is right, item by
//! item and byte by byte, and the earlier snapshots are unchanged.

use crate::earlier;
use crate::laboratory;

use earlier::store_as_earlier;
use laboratory::{Laboratory, Shape};
use proptest::prelude::*;
use std::time::Duration;
use strongroom::backup::tenant::state::Ledger;
use strongroom::format::snapshot::Snapshot;
use strongroom_simulator::{Fault, Faults, NewMessage, Switches, Unreadable};

#[test]
fn a_tenant_is_backed_up_as_it_is_and_then_by_what_changes() {
    let lab = Laboratory::new(Shape { users: 3, messages: 40, ..Shape::default() });
    let first = lab.back_up().expect("a backup");
    assert_eq!(first.failures, []);
    lab.assert_truth(&first);
    assert!(first.ledger.adds_up() && first.ledger.enumerated > 100, "{:?}", first.ledger);
    assert_eq!(first.ledger.stored, first.ledger.enumerated);

    lab.simulator.reset_counters();
    let second = lab.back_up().expect("a backup");
    lab.assert_truth(&second);
    let summary = second.snapshot.summary;
    assert_eq!((summary.new, summary.changed, summary.moved, summary.deleted), (0, 0, 0, 0));
    assert_eq!(summary.added_bytes, 0, "nothing is stored but the snapshot");
    assert_eq!(second.ledger.carried, first.ledger.enumerated);
    assert_eq!(first.snapshot.root.directory(), second.snapshot.root.directory());
    for user in lab.mailboxes() {
        let (requests, folders) = (lab.requests_of(&user), lab.visible_folders(&user).len() as u64);
        assert!(requests <= folders + 2, "{user}: {requests} requests for {folders} folders");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: laboratory::cases(6),
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_run_ends_with_what_is_true(
        seed in 0u64..1000,
        rounds in proptest::collection::vec(proptest::collection::vec(laboratory::change(), 1..12), 1..5),
        switches in laboratory::switches(),
    ) {
        let lab = Laboratory::new(Shape { seed, users: 2, messages: 12, switches, ..Shape::default() });
        let first = lab.back_up().expect("a backup");
        lab.assert_truth(&first);
        let mut before = vec![lab.remember(first)];
        for changes in rounds {
            for change in &changes {
                lab.apply(change);
            }
            let report = lab.back_up().expect("a backup");
            prop_assert_eq!(&report.failures, &vec![]);
            lab.assert_truth(&report);
            prop_assert!(report.ledger.adds_up());
            before.push(lab.remember(report));
            before.iter().for_each(|remembered| lab.assert_remembered(remembered));
        }
        prop_assert_eq!(lab.simulator.counters().mails_sent, 0);
    }
}

#[test]
fn a_move_that_shows_only_as_removal_is_a_move() {
    let switches = Switches { moves_show_only_as_removal: true, ..Switches::default() };
    let lab = Laboratory::new(Shape { users: 1, messages: 10, switches, ..Shape::default() });
    let user = lab.mailboxes().remove(0);
    let message = NewMessage { mime: b"Subject: wanderer\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
    let id = lab.simulator.tenant().add_message(&user, "inbox", message).expect("an inbox");
    lab.back_up().expect("a backup");
    lab.simulator.tenant().move_message(&user, &id, "archive").expect("an archive");
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    lab.assert_truth(&report);
    assert_eq!(report.snapshot.summary.moved, 1, "{:?}", report.snapshot.summary);
    assert_eq!(report.snapshot.summary.deleted, 0);
}

#[test]
fn a_message_that_came_and_moved_on_is_found_though_only_its_removal_shows() {
    let switches = Switches { moves_show_only_as_removal: true, ..Switches::default() };
    let lab = Laboratory::new(Shape { users: 1, messages: 10, switches, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    lab.back_up().expect("a backup");
    let message = NewMessage { mime: b"Subject: wanderer\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
    let id = tenant.add_message(&user, "inbox", message).expect("an inbox");
    tenant.move_message(&user, &id, "archive").expect("an archive");
    let report = lab.back_up().expect("a backup");
    lab.assert_truth(&report);
    assert_eq!((report.snapshot.summary.new, report.failures), (1, vec![]));
}

#[test]
fn the_snapshot_itself_stays_small_however_many_mailboxes_there_are() {
    let lab = Laboratory::new(Shape { users: 20, messages: 3, ..Shape::default() });
    let report = lab.back_up().expect("a backup");
    let bytes = report.snapshot.encode();
    assert!(bytes.len() < 2048, "{} bytes", bytes.len());
}

#[test]
fn a_mailbox_whose_state_is_lost_is_listed_anew() {
    let lab = Laboratory::new(Shape { users: 2, messages: 10, ..Shape::default() });
    let report = lab.back_up().expect("a backup");
    // This snapshot is the newest one until the next run begins.
    let without = Snapshot { source_parts: None, started: report.snapshot.finished, ..report.snapshot.clone() };
    lab.repository.save_snapshot(&without).expect("a snapshot");
    let user = lab.mailboxes().remove(0);
    let message = NewMessage { mime: b"Subject: new\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
    lab.simulator.tenant().add_message(&user, "inbox", message).expect("an inbox");
    lab.simulator.reset_counters();
    let again = lab.back_up().expect("a backup");
    lab.assert_truth(&again);
    let added = again.snapshot.summary.added_bytes;
    assert!(added < report.snapshot.summary.added_bytes / 2, "{added} bytes were stored again");
    let third = lab.back_up().expect("a backup");
    assert_eq!(third.ledger.carried, third.ledger.enumerated, "and from there it goes on by changes");
}

#[test]
fn what_moved_out_of_a_folder_before_it_was_deleted_is_kept() {
    let switches = Switches { moves_show_only_as_removal: true, ..Switches::default() };
    let lab = Laboratory::new(Shape { users: 1, messages: 10, switches, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let folder = tenant.add_folder(&user, "inbox", "Old project").expect("a folder");
    let message = NewMessage { mime: b"Subject: saved\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
    let id = tenant.add_message(&user, &folder, message).expect("a folder");
    lab.back_up().expect("a backup");
    tenant.move_message(&user, &id, "archive").expect("an archive");
    tenant.delete_folder(&user, &folder).expect("a folder");
    let report = lab.back_up().expect("a backup");
    lab.assert_truth(&report);
    assert_eq!(report.failures, vec![]);
}

#[test]
fn a_folder_is_listed_in_full_from_time_to_time() {
    let switches = Switches { moves_show_only_as_removal: true, ..Switches::default() };
    let mut lab = Laboratory::new(Shape { users: 1, messages: 10, switches, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let visible = lab.visible_folders(&user);
    let folders = tenant.true_folders(&user).expect("a mailbox");
    let unseen = folders.iter().find(|folder| !folder.search && !visible.contains_key(&folder.id)).expect("one");
    let message = NewMessage { mime: b"Subject: from nowhere\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
    let id = tenant.add_message(&user, &unseen.id, message).expect("a folder");
    let before = lab.back_up().expect("a backup");
    // The message moves to a folder that the backup does not read, so no list of changes shows it.
    tenant.move_message(&user, &id, "archive").expect("an archive");
    let still = lab.back_up().expect("a backup");
    assert_eq!(still.snapshot.root.directory(), before.snapshot.root.directory());
    lab.options.listed_anew = Duration::ZERO;
    let after = lab.back_up().expect("a backup");
    lab.assert_truth(&after);
    assert_eq!((after.snapshot.summary.new, after.ledger.stored), (1, 1));
}

#[test]
fn every_kind_of_user_is_taken_for_what_it_is() {
    let lab = Laboratory::new(Shape { users: 1, messages: 5, every_kind: true, ..Shape::default() });
    let report = lab.back_up().expect("a backup");
    // A full mailbox cannot be listed, which is a failure that somebody should know of. Users without a mailbox are no
    // failures.
    let failed: Vec<_> = report.failures.iter().map(|failure| String::from_utf8_lossy(&failure.path)).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(report.failures[0].error.contains("over its quota"), "{failed:?}");
    let skipped: Vec<_> = report.skipped.iter().map(|(name, _)| name.split('@').next().unwrap_or_default()).collect();
    assert_eq!(skipped, ["board", "dana.unlicensed", "old.server"]);
    assert_eq!(report.warnings, Vec::<String>::new());
}

#[test]
fn a_storm_of_faults_ends_complete() {
    let lab = Laboratory::new(Shape { users: 3, messages: 60, ..Shape::default() });
    for seed in 0..3 {
        lab.simulator.set_faults(Faults::bad_day(seed, 5));
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, [], "seed {seed}");
        assert!(report.ledger.adds_up(), "seed {seed}: {:?}", report.ledger);
        lab.assert_truth(&report);
        lab.simulator.tenant().expire_deltas();
    }
    assert!(lab.simulator.counters().faults > 50, "{:?}", lab.simulator.counters());
}

/// Adds a message of several parts to the first mailbox. Returns the laboratory, and the path of the request for the
/// message's bytes.
fn with_a_message_of_parts(shape: Shape) -> (Laboratory, String) {
    let lab = Laboratory::new(shape);
    let user = lab.mailboxes().remove(0);
    let part = "Content-Type: text/plain\r\n\r\n".to_owned() + &"The quick brown fox.\r\n".repeat(40_000);
    let mime = format!(
        "From: fox@contoso.com\r\nSubject: of parts\r\nMessage-ID: <parts@contoso.com>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{part}--b\r\n{part}--b--\r\n"
    );
    let message = NewMessage { mime: mime.into_bytes(), ..NewMessage::default() };
    let id = lab.simulator.tenant().add_message(&user, "inbox", message).expect("an inbox");
    (lab, format!("/messages/{id}/$value"))
}

/// Asserts two things. If `fault` passes, the client asks again and gets the message. If it does not, the message
/// fails, and is stored in a later run when it can be read.
fn assert_never_stored(fault: Fault, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let (lab, value) = with_a_message_of_parts(Shape { users: 1, messages: 6, ..Shape::default() });
        let passing = Faults { seed, ..Faults::default() }.with_rule(&value, 2, fault);
        lab.simulator.set_faults(passing);
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, [], "{fault:?}, seed {seed}");
        lab.assert_truth(&report);

        let (lab, value) = with_a_message_of_parts(Shape { users: 1, messages: 6, ..Shape::default() });
        lab.simulator.set_faults(Faults { seed, ..Faults::default() }.with_rule(&value, u32::MAX, fault));
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures.len(), 1, "{fault:?}, seed {seed}: {:?}", report.failures);
        let Ledger { enumerated, stored, failed, .. } = report.ledger;
        assert_eq!((failed, stored + 1), (1, enumerated), "{fault:?}, seed {seed}");
        assert_eq!(report.snapshot.summary.failed, 1);
        lab.simulator.set_faults(Faults::default());
        let report = lab.back_up().expect("a backup");
        assert_eq!((report.failures.len(), report.ledger.failed), (0, 0), "{fault:?}, seed {seed}");
        lab.assert_truth(&report);
    }
}

#[test]
fn an_answer_that_is_something_else_is_never_stored() {
    assert_never_stored(Fault::OtherBody, 0..3);
}

#[test]
fn an_answer_that_is_cut_off_without_a_length_is_never_stored() {
    assert_never_stored(Fault::CutWithoutLength, 0..1);
    assert_never_stored(Fault::CutWithoutLengthKeepAlive, 0..1);
}

#[test]
fn a_message_that_is_cut_off_in_a_whole_answer_is_asked_for_again() {
    for seed in 0..4 {
        let (lab, value) = with_a_message_of_parts(Shape { users: 1, messages: 2, ..Shape::default() });
        lab.simulator.set_faults(Faults { seed, ..Faults::default() }.with_rule(&value, 1, Fault::ShortBody));
        lab.assert_truth(&lab.back_up().expect("a backup"));
    }
}

#[test]
fn what_an_earlier_version_stored_cut_off_or_as_something_else_is_fetched_again() {
    let (lab, _) = with_a_message_of_parts(Shape { users: 2, messages: 30, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let add = |name: &str| {
        let mime = format!("From: fox@contoso.com\r\nSubject: {name}\r\n\r\nwhole\r\n").into_bytes();
        tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox")
    };
    let moving = ["an error", "a page", "another", "nothing"].map(add)[0].clone();
    let report = lab.back_up().expect("a backup");
    store_as_earlier(&lab, &report, &|path, bytes| match () {
        () if path.contains("of parts") => Some(bytes[..bytes.len() / 3].to_vec()),
        () if path.contains("an error") => Some(b"{\"error\":{\"code\":\"UnknownError\"}}".to_vec()),
        () if path.contains("a page") => Some(b"<html>Sign in</html>".to_vec()),
        () if path.contains("another") => Some(b"From: a@b.c\r\nSubject: Lunch\r\n\r\nYes\r\n".to_vec()),
        () if path.contains("nothing") => Some(Vec::new()),
        () => None,
    });
    // A message that moves is trusted no more than one that stays.
    tenant.move_message(&user, &moving, "archive").expect("an archive");
    lab.simulator.reset_counters();
    let downloads = || lab.simulator.counters().by_operation.get("GetMessageValue").copied().unwrap_or(0);
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    lab.assert_truth(&report);
    assert_eq!(downloads(), 5, "what was whole is not fetched again");
    assert_eq!(report.snapshot.summary.changed, 4, "{:?}", report.snapshot.summary);
    let report = lab.back_up().expect("a backup");
    lab.assert_truth(&report);
    assert_eq!(downloads(), 5, "once is enough");
}

#[test]
fn what_cannot_be_fetched_again_is_a_failure_until_it_can() {
    let (lab, value) = with_a_message_of_parts(Shape { users: 1, messages: 6, ..Shape::default() });
    let report = lab.back_up().expect("a backup");
    store_as_earlier(&lab, &report, &|path, bytes| {
        path.contains("of parts").then(|| bytes[..bytes.len() / 3].to_vec())
    });
    lab.simulator.set_faults(Faults::default().with_rule(&value, u32::MAX, Fault::CutWithoutLength));
    let report = lab.back_up().expect("a backup");
    assert_eq!((report.failures.len(), report.ledger.failed), (1, 1), "{:?}", report.failures);
    lab.simulator.set_faults(Faults::default());
    let report = lab.back_up().expect("a backup");
    assert_eq!((report.failures.len(), report.ledger.failed), (0, 0), "{:?}", report.failures);
    lab.assert_truth(&report);
}

#[test]
fn an_answer_about_another_message_proves_no_departure() {
    for seed in 0..6 {
        let lab = Laboratory::new(Shape { users: 1, messages: 8, ..Shape::default() });
        let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
        let message = NewMessage { mime: b"Subject: leaving\r\n\r\nbye\r\n".to_vec(), ..NewMessage::default() };
        let id = tenant.add_message(&user, "inbox", message).expect("an inbox");
        lab.back_up().expect("a backup");
        tenant.move_message(&user, &id, "recoverableitemsdeletions").expect("a folder");
        let astray = Faults { seed, ..Faults::default() }.with_rule(&format!("/messages/{id}?"), 2, Fault::OtherBody);
        lab.simulator.set_faults(astray);
        let report = lab.back_up().expect("a backup");
        assert_eq!(lab.simulator.counters().faults, 2, "seed {seed}: it was asked for");
        assert_eq!(report.failures, [], "seed {seed}");
        lab.assert_truth(&report);
    }
}

#[test]
fn few_changes_cost_few_requests() {
    let lab = Laboratory::new(Shape { users: 1, messages: 1000, ..Shape::default() });
    lab.back_up().expect("a backup");
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let ids: Vec<_> = tenant.true_messages(&user).expect("a mailbox").map(|message| message.id).collect();
    for (number, id) in ids.iter().step_by(100).enumerate() {
        match number % 2 {
            0 => tenant.set_read(&user, id, number % 4 == 0).expect("a message"),
            _ => tenant.change_message(&user, id, b"Subject: new\r\n\r\nnew\r\n".to_vec()).expect("a message"),
        }
    }
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    lab.assert_truth(&report);
    let (requests, folders) = (lab.requests_of(&user), lab.visible_folders(&user).len() as u64);
    assert!(requests <= folders + 2 + 10, "{requests} requests for {folders} folders and 10 changes");
    let (added, all) = (report.snapshot.summary.added_bytes, report.snapshot.summary.source_bytes);
    assert!(added < all / 20, "{added} bytes new of {all}");
}

#[test]
fn a_user_who_leaves_is_reported_and_kept() {
    let lab = Laboratory::new(Shape { users: 2, messages: 10, ..Shape::default() });
    let first = lab.back_up().expect("a backup");
    let user = lab.mailboxes().remove(1);
    lab.simulator.tenant().remove_user(&user).expect("a user");
    for run in 0..2 {
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, []);
        assert_eq!(report.warnings.len(), usize::from(run == 0), "told once: {:?}", report.warnings);
        assert_eq!(report.snapshot.directory().sums.files, first.snapshot.directory().sums.files);
    }
}

#[test]
fn a_message_that_failed_and_moved_is_found_again() {
    let switches = Switches { moves_show_only_as_removal: true, ..Switches::default() };
    let lab = Laboratory::new(Shape { users: 1, messages: 10, switches, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let message = NewMessage { mime: b"Subject: sick\r\n\r\nbody\r\n".to_vec(), ..NewMessage::default() };
    let id = tenant.add_message(&user, "inbox", message).expect("an inbox");
    tenant.mark_unreadable(&user, &id, Some(Unreadable::CorruptData)).expect("a message");
    assert_eq!(lab.back_up().expect("a backup").failures.len(), 1);
    tenant.move_message(&user, &id, "archive").expect("an archive");
    tenant.mark_unreadable(&user, &id, None).expect("a message");
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    lab.assert_truth(&report);
}

#[test]
fn thousands_of_moves_and_deletions_are_believed_once_proved() {
    let lab = Laboratory::new(Shape { users: 1, messages: 1500, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    lab.back_up().expect("a backup");
    let mut messages: Vec<_> = tenant.true_messages(&user).expect("a mailbox").map(|message| message.id).collect();
    for id in messages.split_off(messages.len() / 2) {
        tenant.move_message(&user, &id, "archive").expect("an archive");
    }
    // A deleted message can still be read, but in a folder that the backup does not read.
    for id in messages.iter().skip(100) {
        tenant.move_message(&user, id, "recoverableitemsdeletions").expect("a folder");
    }
    tenant.expire_deltas();
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    lab.assert_truth(&report);
}

#[test]
fn names_of_folders_that_are_exchanged_lose_nothing() {
    let lab = Laboratory::new(Shape { users: 1, messages: 10, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let folders = ["left", "right"].map(|name| {
        let folder = tenant.add_folder(&user, "inbox", name).expect("a folder");
        let mime = format!("Subject: {name}\r\n\r\n{name}\r\n").into_bytes();
        tenant.add_message(&user, &folder, NewMessage { mime, ..NewMessage::default() }).expect("a message");
        folder
    });
    lab.assert_truth(&lab.back_up().expect("a backup"));
    for (folder, name) in folders.iter().zip(["other", "left"]) {
        tenant.rename_folder(&user, folder, name).expect("a name");
    }
    tenant.rename_folder(&user, &folders[0], "right").expect("a name");
    lab.assert_truth(&lab.back_up().expect("a backup"));
    assert!(lab.back_up().expect("a backup").ledger.adds_up());
}
