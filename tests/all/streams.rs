//! `fidelity = "full"`: for every message the snapshot also has the service's export stream, and the stream is of the
//! same version as the message.

use crate::laboratory;

use laboratory::{Laboratory, Shape, cases, change, switches};
use proptest::prelude::*;
use std::collections::BTreeMap;
use strongroom::backup::tenant::TenantReport;
use strongroom::format::entry::Entry;
use strongroom_simulator::exchange::Item;
use strongroom_simulator::faults::Rule;
use strongroom_simulator::{Fault, Faults, FlagStatus, NewMessage, Switches, Unreadable, permissions};

fn laboratory(seed: u64, users: usize, messages: usize) -> Laboratory {
    let mut lab = Laboratory::new(Shape { seed, users, messages, ..Shape::default() });
    lab.options.streams = true;
    lab
}

/// Returns the stream of every message in a snapshot, by the id of the message. `None` if a message has no stream.
fn streams(lab: &Laboratory, report: &TenantReport) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut streams = BTreeMap::new();
    let reader = lab.reader();
    lab.walk(&reader, report.snapshot.directory(), "", &mut |_, entry: &Entry, _| {
        let Some(id) = entry.facts.source_id.clone() else { return };
        let stream = entry.stream().map(|content| {
            let mut bytes = Vec::new();
            reader.read(content, 0, usize::MAX, &mut bytes).expect("the bytes of a stream");
            bytes
        });
        streams.insert(id, stream);
    });
    streams
}

/// Compares every stream of a snapshot with the tenant, and returns how many there are.
#[track_caller]
fn assert_streams(lab: &Laboratory, report: &TenantReport, lacking: u64) -> usize {
    lab.assert_truth(report);
    let streams = streams(lab, report);
    let tenant = lab.simulator.tenant();
    let mut without = 0;
    for user in lab.mailboxes() {
        for message in tenant.true_messages(&user).expect("a mailbox") {
            match streams.get(&message.id) {
                Some(Some(stream)) => {
                    let item = Item::import(stream).expect("a stream as it was exported");
                    assert_eq!(item.mime, message.mime);
                    assert_eq!(item.facts.read, message.properties["isRead"]);
                    assert_eq!(message.properties["flag"]["flagStatus"], item.facts.flag.as_str());
                }
                Some(None) => without += 1,
                None => {}
            }
        }
    }
    assert_eq!((without, report.ledger.streamless), (lacking, lacking));
    streams.len()
}

/// Returns the ids of a user's messages in a snapshot.
fn backed_up(lab: &Laboratory, user: &str, report: &TenantReport) -> Vec<String> {
    let streams = streams(lab, report);
    let ids =
        lab.simulator.tenant().true_messages(user).expect("a mailbox").map(|message| message.id).collect::<Vec<_>>();
    ids.into_iter().filter(|id| streams.contains_key(id)).collect()
}

fn requests(lab: &Laboratory, operation: &str) -> u64 {
    let requests = lab.simulator.counters().by_operation;
    requests.iter().find_map(|(name, count)| (*name == operation).then_some(*count)).unwrap_or(0)
}

#[test]
fn new_and_changed_messages_are_exported_and_no_others() {
    let lab = laboratory(1, 2, 60);
    lab.simulator.reset_counters();
    let first = lab.back_up().expect("a backup");
    let held = assert_streams(&lab, &first, 0);
    // One request exports up to twenty messages of a folder. Each mailbox takes one more request for its name in the
    // export service.
    let exports = requests(&lab, "ExchangeMailbox");
    assert!(exports <= held as u64 / 4, "{exports} exports for {held} messages");
    assert_eq!(requests(&lab, "GetExchangeSettings"), 2);
    lab.simulator.reset_counters();
    let quiet = lab.back_up().expect("a backup");
    assert_eq!((quiet.snapshot.summary.changed, requests(&lab, "ExchangeMailbox")), (0, 0));
    assert_eq!(requests(&lab, "GetExchangeSettings"), 0);
    // A flag changes the stream and not the bytes. A new message has both.
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let ids = backed_up(&lab, &user, &first);
    tenant.set_flag(&user, &ids[0], FlagStatus::Complete).expect("a message");
    tenant.move_message(&user, &ids[1], "archive").expect("a message");
    let mime = b"From: a@b.c\r\nSubject: New\r\n\r\nNew\r\n".to_vec();
    tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox");
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    assert_streams(&lab, &report, 0);
    assert_eq!(requests(&lab, "GetMessageValue"), 1);
    assert!(requests(&lab, "ExchangeMailbox") <= 3);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn a_set_that_asks_for_streams_later_gets_them_without_reading_messages_again() {
    let mut lab = laboratory(2, 2, 50);
    lab.options.streams = false;
    let plain = lab.back_up().expect("a backup");
    assert!(streams(&lab, &plain).values().all(Option::is_none));
    lab.options.streams = true;
    lab.simulator.reset_counters();
    let full = lab.back_up().expect("a backup");
    assert_streams(&lab, &full, 0);
    assert_eq!((requests(&lab, "GetMessageValue"), full.snapshot.summary.new), (0, 0));
    let (before, after) = (&plain.snapshot.summary, &full.snapshot.summary);
    eprintln!(
        "{} messages of {} bytes take {} bytes, their streams of {} bytes {} more",
        before.new, before.source_bytes, before.stored_bytes, after.added_bytes, after.stored_bytes
    );
    // Without the option no streams are fetched. Unchanged messages keep theirs.
    lab.options.streams = false;
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let id = backed_up(&lab, &user, &full)[0].clone();
    tenant.set_flag(&user, &id, FlagStatus::Complete).expect("a message");
    lab.simulator.reset_counters();
    let plain = lab.back_up().expect("a backup");
    let left = streams(&lab, &plain);
    assert_eq!((left.values().filter(|stream| stream.is_none()).count(), plain.ledger.streamless), (1, 0));
    assert_eq!((left[&id].is_none(), requests(&lab, "ExchangeMailbox")), (true, 0));
    lab.options.streams = true;
    let full = lab.back_up().expect("a backup");
    assert_streams(&lab, &full, 0);
    assert_eq!(full.snapshot.summary.changed, 1);
}

#[test]
fn what_cannot_be_exported_is_kept_without_a_stream_counted_and_tried_again() {
    let lab = laboratory(3, 1, 40);
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let whole = lab.back_up().expect("a backup");
    assert_streams(&lab, &whole, 0);
    let ids = backed_up(&lab, &user, &whole);
    let corrupt = |why| ids[..3].iter().for_each(|id| tenant.mark_unreadable(&user, id, why).expect("a message"));
    ids[..3].iter().for_each(|id| tenant.set_flag(&user, id, FlagStatus::Complete).expect("a message"));
    // Only the export refuses them: their bytes are known.
    corrupt(Some(Unreadable::CorruptData));
    let lacking = lab.back_up().expect("a backup");
    assert_eq!(lacking.ledger.streamless, 3, "{:?}", lacking.failures);
    let lacks = |id: &&String| streams(&lab, &lacking)[*id].is_none();
    assert_eq!(ids.iter().filter(lacks).count(), 3);
    assert!(
        lacking.warnings.iter().any(|warning| warning.contains("3 messages in 1 mailboxes")),
        "{:?}",
        lacking.warnings
    );
    corrupt(None);
    let again = lab.back_up().expect("a backup");
    assert_streams(&lab, &again, 0);
}

#[test]
fn without_the_permission_or_in_another_cloud_the_backup_is_whole_without_streams() {
    let lab = laboratory(4, 2, 30);
    let allowed: Vec<_> =
        permissions::APPLICATION.iter().copied().filter(|name| !name.starts_with("MailboxItem")).collect();
    lab.simulator.set_permissions(allowed);
    lab.simulator.expire_tokens();
    let report = lab.back_up().expect("a backup");
    let held = streams(&lab, &report).len() as u64;
    // Folders have ids, too, so `held` may be larger.
    assert!(report.ledger.streamless > 50 && report.ledger.streamless <= held);
    assert_streams(&lab, &report, report.ledger.streamless);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert!(
        report.warnings[0].contains("2 mailboxes") && report.warnings[0].contains("denied"),
        "{:?}",
        report.warnings
    );
    lab.simulator.reset_counters();
    let quiet = lab.back_up().expect("a backup");
    assert_eq!(quiet.ledger.streamless, report.ledger.streamless);
    assert_eq!(quiet.snapshot.summary.changed, 0);
    lab.simulator.set_permissions(permissions::APPLICATION.iter().copied());
    lab.simulator.set_switches(Switches { no_import_export: true, ..Switches::default() });
    let nowhere = lab.back_up().expect("a backup");
    assert_eq!((nowhere.ledger.streamless, nowhere.snapshot.summary.changed), (report.ledger.streamless, 0));
    lab.simulator.set_switches(Switches::default());
    lab.simulator.reset_counters();
    let full = lab.back_up().expect("a backup");
    assert_streams(&lab, &full, 0);
    assert_eq!(requests(&lab, "GetMessageValue"), 0);
}

#[test]
fn long_messages_are_exported_one_by_one_while_they_arrive() {
    let lab = laboratory(5, 1, 5);
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    for number in 0..3u8 {
        let mut mime = format!("Subject: {number}\r\nMessage-ID: <{number}@x>\r\n\r\n").into_bytes();
        mime.extend((0..9_000_000u32).map(|n| b'a' + (n.wrapping_mul(2_654_435_761 + u32::from(number)) >> 28) as u8));
        tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox");
    }
    let cut = Rule {
        method: Some("POST".to_owned()),
        contains: "exportItems".to_owned(),
        skip: 1,
        times: Some(2),
        fault: Fault::CloseInBody,
    };
    lab.simulator.set_faults(Faults { rules: vec![cut], ..Faults::default() });
    let report = lab.back_up().expect("a backup");
    assert_eq!(lab.simulator.counters().faults, 2);
    assert_streams(&lab, &report, 0);
}

#[test]
fn in_a_storm_a_stream_may_lack_for_a_run_and_is_never_wrong() {
    for seed in 1..=u64::from(cases(3)) {
        let lab = laboratory(seed, 2, 40);
        lab.simulator.set_switches(Switches { unstable_exports: true, ..Switches::default() });
        lab.simulator.set_faults(Faults::bad_day(seed, 8));
        let mut report = lab.back_up().expect("a backup");
        assert_streams(&lab, &report, report.ledger.streamless);
        lab.simulator.set_faults(Faults::default());
        report = lab.back_up().expect("a backup");
        assert_streams(&lab, &report, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(6), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_between_runs_every_stream_is_of_its_version(
        seed in 0u64..1000,
        switches in switches(),
        rounds in prop::collection::vec((prop::collection::vec(change(), 0..12), any::<bool>()), 1..4),
    ) {
        let mut lab = Laboratory::new(Shape { seed, users: 2, messages: 12, switches, ..Shape::default() });
        for (changes, streams) in rounds {
            lab.options.streams = streams;
            changes.iter().for_each(|change| lab.apply(change));
            lab.assert_truth(&lab.back_up().expect("a backup"));
        }
        lab.options.streams = true;
        let report = lab.back_up().expect("a backup");
        assert_streams(&lab, &report, 0);
    }
}
