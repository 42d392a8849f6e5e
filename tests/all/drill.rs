//! The disaster drill: an organisation is backed up, a mailbox is lost and restored, and the result is compared with
//! the original.
//!
//! Mailboxes are compared in a canonical form (`dump`), which leaves out only what docs/coverage.md names as lost.
//! `make drill` runs the drill with larger numbers (STRONGROOM_DRILL_MESSAGES, STRONGROOM_SEEDS).

use crate::common;
use crate::exact;
use crate::laboratory;

use common::{Lab, PATIENCE, eventually, run, text, write};
use exact::{add_what_json_loses, exact, folders_of};
use laboratory::{Laboratory, Shape, cases, client_of, client_to, limited_client_of};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strongroom::backend::local::Local;
use strongroom::backup::tenant::TenantReport;
use strongroom::repository::reader::CacheSizes;
use strongroom::repository::{IndexSearch, Repository};
use strongroom::restore::{AccountOptions, AccountPlan, AccountTarget, Report, RestoreError, WhenExists};
use strongroom::source::graph::{self, Client};
use strongroom_simulator::faults::Rule;
use strongroom_simulator::mime::{self, Payload};
use strongroom_simulator::tenant::{Mailbox, Record};
use strongroom_simulator::throttle::Rate;
use strongroom_simulator::{
    Fault, Faults, FlagStatus, Kind, Limits, Locale, NewMessage, Options, Organisation, Simulator, Switches, Tenant,
    TrueMessage, UserSpec, permissions,
};

/// Returns how many messages each mailbox holds.
fn messages(usually: usize) -> usize {
    std::env::var("STRONGROOM_DRILL_MESSAGES").ok().and_then(|number| number.parse().ok()).unwrap_or(usually)
}

fn laboratory(seed: u64, users: usize) -> Laboratory {
    Laboratory::new(Shape { seed, users, messages: messages(60), ..Shape::default() })
}

/// Returns the content of a mailbox, folder by folder, without ids, versions and the times of writes.
fn dump(tenant: &Tenant, user: &str) -> BTreeMap<String, Vec<String>> {
    let folders = folders_of(tenant, user);
    let mut dump: BTreeMap<_, _> = folders.values().map(|path| (path.clone(), Vec::new())).collect();
    for message in tenant.true_messages(user).expect("a mailbox") {
        if let Some(path) = folders.get(&message.folder) {
            dump.get_mut(path).expect("every folder is there").push(canonical(&message));
        }
    }
    dump.values_mut().for_each(|messages| messages.sort());
    dump
}

/// Returns the canonical form of a message, for comparison.
fn canonical(message: &TrueMessage) -> String {
    let mut properties = message.properties.clone();
    let object = properties.as_object_mut().expect("an object");
    for of_the_store in ["changeKey", "createdDateTime", "parentFolderId"] {
        object.remove(of_the_store);
    }
    // A message that came without a Message-ID gets one in the form that Exchange gives it.
    if properties["internetMessageId"].as_str().is_some_and(|id| id.len() > 80 && id.ends_with("@contoso.com>")) {
        properties["internetMessageId"] = Value::Null;
    }
    let is_draft = properties["isDraft"] == true;
    let said = mime::parse(&message.mime);
    let has_none = said.from.is_none() && properties["internetMessageId"].is_null();
    let of_content = |name: &str| {
        let name = name.to_ascii_lowercase();
        // The service rewrites the headers that describe the content. It also rewrites all headers of a draft, and of a
        // message without headers.
        name.starts_with("content-") || name == "mime-version" || is_draft || has_none
    };
    let headers: Vec<_> = said.headers.iter().filter(|(name, _)| !of_content(name)).collect();
    let people = |people: &[mime::Recipient]| {
        people.iter().map(|one| format!("{}<{}>", one.name, one.address)).collect::<Vec<_>>()
    };
    let mut attached: Vec<_> = said.attachments.iter().map(attachment).collect();
    attached.sort_by_key(Value::to_string);
    json!({
        "properties": properties,
        "headers": headers,
        "to": people(&said.to), "cc": people(&said.cc), "bcc": people(&said.bcc), "replyTo": people(&said.reply_to),
        "html": said.body.html,
        "body": said.body.content.split_whitespace().collect::<Vec<_>>().join(" "),
        "attachments": attached,
    })
    .to_string()
}

fn attachment(attachment: &mime::Attachment) -> Value {
    let bytes = match &attachment.payload {
        Payload::File(bytes) | Payload::Message(bytes) => blake3::hash(bytes).to_string(),
        other => panic!("{other:?} does not come from MIME"),
    };
    // An attachment without a name gets one, and a nested message becomes a file.
    let name = Some(attachment.name.trim_end_matches(".eml")).filter(|name| !name.starts_with("ATT"));
    json!([name, attachment.content_type, attachment.inline, attachment.content_id, bytes])
}

/// Deletes everything in a mailbox, including the user's own folders.
fn wipe(tenant: &Tenant, user: &str) {
    let ids: Vec<_> = tenant.true_messages(user).expect("a mailbox").map(|message| message.id).collect();
    for id in ids {
        tenant.delete_message(user, &id).expect("a message");
    }
    let own = tenant.true_folders(user).expect("a mailbox");
    let own = own.into_iter().filter(|folder| folder.well_known.is_none() && folder.visible && !folder.hidden);
    for folder in own {
        // It may be gone already, with its parent folder.
        let _ = tenant.delete_folder(user, &folder.id);
    }
    assert!(dump(tenant, user).values().all(Vec::is_empty));
}

#[track_caller]
fn assert_whole(report: &Report) {
    assert!(report.stopped.is_none(), "{:?}", report.stopped);
    let shown = report.failures.iter().map(|failure| (String::from_utf8_lossy(&failure.path), &failure.error));
    assert_eq!(report.failed, 0, "{:#?}", shown.collect::<Vec<_>>());
}

/// Prints what differs, and not two whole mailboxes.
#[track_caller]
fn assert_same(before: &BTreeMap<String, Vec<String>>, after: &BTreeMap<String, Vec<String>>) {
    let names = |dump: &BTreeMap<String, Vec<String>>| dump.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(before), names(after), "the folders");
    for (folder, messages) in before {
        let lacking: Vec<_> = messages.iter().filter(|message| !after[folder].contains(message)).take(2).collect();
        let odd: Vec<_> = after[folder].iter().filter(|message| !messages.contains(message)).take(2).collect();
        assert!(lacking.is_empty() && odd.is_empty(), "{folder}\nlacks {lacking:#?}\nhas {odd:#?}");
        let twice: Vec<_> = after[folder].windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert_eq!(messages.len(), after[folder].len(), "{folder}; twice {twice:#?}");
    }
}

fn nothing_was_sent(simulator: &Simulator) {
    let counts = simulator.counters();
    assert_eq!((counts.mails_sent, counts.invitations_sent), (0, 0));
}

#[test]
fn a_lost_mailbox_comes_back_and_a_second_restore_changes_nothing() {
    for seed in 1..=u64::from(cases(2)) {
        let lab = laboratory(seed, 2);
        let tenant = lab.simulator.tenant();
        let users = lab.mailboxes();
        let backup = lab.back_up().expect("a backup");
        let before: Vec<_> = users.iter().map(|user| dump(&tenant, user)).collect();
        wipe(&tenant, &users[0]);
        let report = lab.restore(&backup, &[]);
        assert_whole(&report);
        assert_eq!((report.restored, report.already_there), (held(&before[0]), held(&before[1])), "seed {seed}");
        for (user, before) in users.iter().zip(&before) {
            assert_same(before, &dump(&tenant, user));
        }
        lab.simulator.reset_counters();
        let again = lab.restore(&backup, &[]);
        assert_whole(&again);
        assert_eq!((again.restored, again.folders), (0, 0));
        assert_eq!(again.already_there, held(&before[0]) + held(&before[1]));
        let requests = lab.simulator.counters().by_operation;
        assert!(!requests.keys().any(|operation| operation.contains("Create")), "{requests:?}");
        assert_same(&before[0], &dump(&tenant, &users[0]));
        nothing_was_sent(&lab.simulator);
    }
}

/// Adds a mailbox with one message of every kind that is hard to restore. Returns the name of its user.
fn add_hard_cases(tenant: &Tenant) -> String {
    let spec = UserSpec {
        principal_name: "hard".to_owned(),
        display_name: "Hard Cases".to_owned(),
        kind: Kind::Licensed,
        locale: Locale::German,
    };
    tenant.add_user(spec);
    let user = tenant.users().last().expect("a user").principal_name();
    let add = |folder: &str, message: NewMessage| tenant.add_message(&user, folder, message).expect("a folder");
    let head = |subject: &str, kind: &str| {
        format!(
            "Received: from mx.example.com by contoso.com; Mon, 2 Nov 2026 09:30:07 +0000\r\nFrom: \"B, Bob\" <bob@example.com>\r\n\
             To: hard@contoso.com\r\nCc: =?utf-8?Q?J=C3=BCrgen?= <juergen@contoso.com>\r\nSubject: {subject}\r\n\
             Date: Mon, 2 Nov 2026 09:30:00 +0000\r\nMessage-ID: <{}@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n",
            blake3::hash(subject.as_bytes()).to_hex()
        )
    };
    let part = |headers: &str, bytes: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        let lines: Vec<_> = text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        format!("--b\r\n{headers}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n", lines.join("\r\n"))
    };
    let mixed = |subject: &str, parts: &[String]| {
        let text = "--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Hello <img src=\"cid:logo\"></p>\r\n";
        let head = head(subject, "multipart/mixed; boundary=b");
        format!("{head}\r\n{text}{}--b--\r\n", parts.concat()).into_bytes()
    };
    let file = |name: &str| {
        format!(
            "Content-Type: application/octet-stream; name={name}\r\nContent-Disposition: attachment; filename={name}"
        )
    };
    let at = |seconds: i64| Some(1_793_600_000 + seconds);
    let bytes: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let logo = "Content-Type: image/png; name=logo.png\r\nContent-Disposition: inline; filename=logo.png\r\nContent-ID: <logo>";
    let large = [
        part(logo, &bytes[..500]),
        part(&file("huge.bin"), &bytes),
        part(&file("middle.bin"), &bytes[..2_900_000]),
        part(&file("small.bin"), b"x"),
    ];
    add(
        "inbox",
        NewMessage {
            mime: mixed("Large", &large),
            received: at(1),
            flag: FlagStatus::Flagged,
            ..NewMessage::default()
        },
    );
    let nested =
        format!("--b\r\nContent-Type: message/rfc822\r\n\r\n{}\r\nInner text\r\n", head("Inner", "text/plain"));
    add("inbox", NewMessage { mime: mixed("Nested", &[nested]), received: at(2), read: true, ..NewMessage::default() });
    let signed = "multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=b";
    let entity = "--b\r\nContent-Type: text/plain\r\n\r\nSigned  with blanks \r\n--b\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7s\r\n\r\nMIIB\r\n--b--\r\n";
    let signed = format!("{}\r\n{entity}", head("Signed", signed)).into_bytes();
    add("inbox", NewMessage { mime: signed, received: at(3), ..NewMessage::default() });
    let sealed = head("Sealed", "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m");
    let sealed = format!(
        "{sealed}Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7m\r\n\r\nAAECAwQF\r\n"
    );
    add("inbox", NewMessage { mime: sealed.into_bytes(), received: at(4), ..NewMessage::default() });
    let latin =
        "Content-Type: text/csv; charset=iso-8859-1; name=a.csv\r\nContent-Disposition: attachment; filename=a.csv";
    add(
        "archive",
        NewMessage {
            mime: mixed("Latin", &[part(latin, b"Gr\xfc\xdfe;1\r\n")]),
            received: at(5),
            ..NewMessage::default()
        },
    );
    let plain = format!(
        "{}\r\nPlain text, no HTML: <b>not bold</b>\r\n\r\n&amp; so on\r\n",
        head("Plain", "text/plain; charset=utf-8")
    );
    let categories = vec!["Red category".to_owned(), "Ä".to_owned()];
    add(
        "sentitems",
        NewMessage { mime: plain.into_bytes(), received: at(6), read: true, categories, ..NewMessage::default() },
    );
    let draft = b"To: bob@example.com\r\nSubject: Not sent yet\r\n\r\nHalf a sent".to_vec();
    add("drafts", NewMessage { mime: draft, received: at(7), read: true, draft: true, ..NewMessage::default() });
    // Two messages with the same bytes, and an empty one.
    for _ in 0..2 {
        let twin = format!("{}\r\nTwice\r\n", head("Twin", "text/plain"));
        add("inbox", NewMessage { mime: twin.into_bytes(), received: at(8), ..NewMessage::default() });
    }
    add("inbox", NewMessage { mime: Vec::new(), received: at(9), ..NewMessage::default() });
    let odd = tenant.add_folder(&user, "inbox", "a/b: 会议 \u{202e}").expect("a folder");
    let deep = tenant.add_folder(&user, &odd, "..").expect("a folder");
    tenant.add_folder(&user, "msgfolderroot", "Empty").expect("a folder");
    add(
        &deep,
        NewMessage {
            mime: format!("{}\r\nDeep\r\n", head("Deep", "text/plain")).into_bytes(),
            received: at(10),
            ..NewMessage::default()
        },
    );
    user
}

#[test]
fn what_is_hard_to_restore_comes_back_whole() {
    let lab = laboratory(3, 1);
    let tenant = lab.simulator.tenant();
    let user = add_hard_cases(&tenant);
    let backup = lab.back_up().expect("a backup");
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    // Right after a message was made, not every server knows it. And the list of attachments fails when it is long.
    let switches = Switches {
        new_messages_lag: true,
        attachment_list_bytes_max: Some(3 << 20),
        refuse_tokens_on_urls: true,
        ..Switches::default()
    };
    lab.simulator.set_switches(switches);
    let report = lab.restore(&backup, &[&format!("Users/{user}")]);
    assert_whole(&report);
    assert_same(&before, &dump(&tenant, &user));
    nothing_was_sent(&lab.simulator);
    // One of the twins is lost, and is restored beside the other.
    let twins =
        || tenant.true_messages(&user).expect("a mailbox").filter(|message| message.properties["subject"] == "Twin");
    let lost = twins().next().expect("a twin").id;
    tenant.delete_message(&user, &lost).expect("a message");
    assert_eq!(lab.restore(&backup, &[]).restored, 1);
    assert_eq!(twins().count(), 2);
}

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

fn lost(contains: &str, fault: Fault, skip: u32, times: u32) -> Rule {
    Rule { method: Some("POST".to_owned()), contains: contains.to_owned(), skip, times: Some(times), fault }
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
fn where_nothing_may_be_imported_all_comes_back_as_without_streams_and_is_said_once() {
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

#[test]
fn a_few_messages_are_asked_for_and_their_folder_is_not_listed() {
    for streams in [false, true] {
        let mut lab = Laboratory::new(Shape { seed: 14, users: 1, messages: 3_000, ..Shape::default() });
        lab.options.streams = streams;
        let tenant = lab.simulator.tenant();
        let user = lab.mailboxes()[0].clone();
        let backup = lab.back_up().expect("a backup");
        let before = dump(&tenant, &user);
        let paths = paths_in(&lab, &backup, &format!("Users/{user}/Outlook/Inbox"));
        let paths: Vec<_> = paths.iter().map(String::as_str).take(5).collect();
        let lost: Vec<_> = paths.iter().take(3).map(|path| id_at(&lab, &backup, path)).collect();
        lost.iter().for_each(|id| tenant.delete_message(&user, id).expect("a message"));
        lab.simulator.reset_counters();
        let report = lab.restore(&backup, &paths);
        assert_whole(&report);
        assert_eq!((report.restored, report.already_there), (3, 2));
        let requests = lab.requests_of(&user);
        eprintln!("{requests} requests for five messages of {}, three of them lost", held(&before));
        assert!(requests <= 45, "{:?}", lab.simulator.counters().by_operation);
        let again = lab.restore(&backup, &paths);
        assert_whole(&again);
        assert_eq!((again.restored, again.already_there), (0, 5));
        assert_eq!(dump(&tenant, &user)["inbox"], before["inbox"]);
    }
}

/// Returns the paths of the messages directly in a folder of a snapshot.
fn paths_in(lab: &Laboratory, backup: &TenantReport, folder: &str) -> Vec<String> {
    let mut paths = Vec::new();
    lab.walk(&lab.reader(), backup.snapshot.directory(), "", &mut |path, _, _| {
        let inside = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
        paths.extend(inside.filter(|rest| !rest.contains('/')).map(|_| path.to_owned()));
    });
    paths
}

fn id_at(lab: &Laboratory, backup: &TenantReport, wanted: &str) -> String {
    let mut id = None;
    lab.walk(&lab.reader(), backup.snapshot.directory(), "", &mut |path, entry, _| {
        if path == wanted {
            id.clone_from(&entry.facts.source_id);
        }
    });
    id.expect("a message")
}

fn held(dump: &BTreeMap<String, Vec<String>>) -> u64 {
    dump.values().map(Vec::len).sum::<usize>() as u64
}

#[track_caller]
fn restored(
    lab: &Laboratory,
    client: Client,
    backup: &TenantReport,
    paths: &[&str],
    options: AccountOptions,
) -> Report {
    let plan = lab.plan(client, backup, paths, options).expect("a plan");
    let report = plan.execute(&Arc::default(), &Arc::default());
    assert_whole(&report);
    report
}

#[test]
fn a_dry_run_says_what_the_restore_will_do_and_writes_nothing() {
    let lab = laboratory(4, 2);
    let tenant = lab.simulator.tenant();
    let user = &lab.mailboxes()[0];
    let backup = lab.back_up().expect("a backup");
    wipe(&tenant, user);
    let before = dump(&tenant, user);
    let plan = lab.plan(lab.client(), &backup, &[], lab.to(AccountTarget::Original)).expect("a plan");
    let survey = plan.survey(&Arc::default()).expect("a survey");
    assert_same(&before, &dump(&tenant, user));
    let (expected, report) = (survey.expected(), plan.execute(&Arc::default(), &Arc::default()));
    assert_whole(&report);
    assert_eq!((expected.restored, expected.bytes), (report.restored, report.bytes));
    assert_eq!((expected.already_there, expected.folders), (report.already_there, report.folders));
    assert!(survey.show(&plan).to_string().contains("it takes at least"));
}

#[test]
fn folders_meet_their_counterparts_in_a_chinese_mailbox_of_another_organisation() {
    let lab = laboratory(5, 1);
    let tenant = lab.simulator.tenant();
    let user = add_hard_cases(&tenant);
    let backup = lab.back_up().expect("a backup");
    let organisation = Organisation { seed: 77, users: 1, ..Organisation::default() };
    let other = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let locale = Locale::ChineseTraditional;
    other.tenant().add_user(UserSpec { principal_name: "chen".to_owned(), locale, ..UserSpec::default() });
    let chinese = other.tenant().users().last().expect("a user").principal_name();
    wipe(&other.tenant(), &chinese);
    let to = || lab.to(AccountTarget::User(chinese.clone()));
    let _ = restored(&lab, client_of(&other), &backup, &[&format!("Users/{user}")], to());
    assert_same(&dump(&tenant, &user), &dump(&other.tenant(), &chinese));
    let again = restored(&lab, client_of(&other), &backup, &[&format!("Users/{user}")], to());
    assert_eq!((again.restored, again.folders), (0, 0));
    nothing_was_sent(&other);
}

#[test]
fn several_people_come_into_one_mailbox_and_below_a_folder_of_it() {
    let lab = laboratory(6, 3);
    let tenant = lab.simulator.tenant();
    let users = lab.mailboxes();
    let backup = lab.back_up().expect("a backup");
    wipe(&tenant, &users[2]);
    let (first, second) = (dump(&tenant, &users[0]), dump(&tenant, &users[1]));
    let paths = [format!("Users/{}", users[0]), format!("Users/{}", users[1])];
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let to = lab.to(AccountTarget::User(users[2].clone()));
    let report = restored(&lab, lab.client(), &backup, &paths, to.clone());
    assert_eq!(report.restored, held(&first) + held(&second));
    let after = dump(&tenant, &users[2]);
    for folder in ["inbox", "sentitems", "msgfolderroot/Projects/Falcon"] {
        assert_eq!(after[folder].len(), first[folder].len() + second[folder].len(), "{folder}");
    }
    // Each named folder arrives under its last name, and a single message without its folder.
    let inbox = format!("Users/{}/Outlook/Inbox", users[0]);
    let into = AccountOptions { into: vec!["Old".to_owned(), "Mail".to_owned()], ..to };
    let _ = restored(&lab, lab.client(), &backup, &[&inbox], into.clone());
    let after = dump(&tenant, &users[2]);
    assert_eq!(after["msgfolderroot/Old/Mail/Inbox"], first["inbox"]);
    assert_eq!(after["msgfolderroot/Old/Mail/Inbox/Newsletters"], first["inbox/Newsletters"]);
    let again = restored(&lab, lab.client(), &backup, &[&inbox], into);
    assert_eq!((again.restored, again.folders), (0, 0));
}

#[test]
fn an_older_snapshot_brings_back_what_it_has_and_what_is_to_be_replaced() {
    let lab = laboratory(7, 1);
    let tenant = lab.simulator.tenant();
    let user = lab.mailboxes()[0].clone();
    let old = lab.back_up().expect("a backup");
    let before = dump(&tenant, &user);
    let folders = folders_of(&tenant, &user);
    let inbox = |message: &TrueMessage| folders.get(&message.folder).is_some_and(|folder| folder == "inbox");
    let messages: Vec<_> =
        tenant.true_messages(&user).expect("a mailbox").filter(inbox).map(|message| message.id).collect();
    for (number, id) in messages.iter().enumerate().take(12) {
        match number % 3 {
            0 => tenant.delete_message(&user, id).expect("a message"),
            1 => tenant.set_flag(&user, id, FlagStatus::Complete).expect("a message"),
            _ => tenant.set_categories(&user, id, vec!["Later".to_owned()]).expect("a message"),
        }
    }
    let changed = dump(&tenant, &user);
    lab.back_up().expect("a backup");
    let report = lab.restore(&old, &[]);
    assert_whole(&report);
    assert_eq!((report.restored, report.skipped), (4, 8));
    let to = |when_exists| AccountOptions { when_exists, ..lab.to(AccountTarget::Original) };
    let both = restored(&lab, lab.client(), &old, &[], to(WhenExists::KeepBoth));
    assert_eq!((both.restored, both.skipped), (8, 0));
    let both = restored(&lab, lab.client(), &old, &[], to(WhenExists::KeepBoth));
    assert_eq!((both.restored, both.skipped), (0, 0), "not a third one");
    assert_eq!(dump(&tenant, &user)["inbox"].len(), before["inbox"].len() + 8);
    // The other way round: existing messages are replaced, and the replaced ones can still be recovered.
    let lab = laboratory(7, 1);
    let tenant = lab.simulator.tenant();
    let old = lab.back_up().expect("a backup");
    for id in &messages[1..3] {
        tenant.set_flag(&user, id, FlagStatus::Complete).expect("a message");
    }
    let report = restored(
        &lab,
        lab.client(),
        &old,
        &[],
        AccountOptions { when_exists: WhenExists::Overwrite, ..lab.to(AccountTarget::Original) },
    );
    assert_eq!((report.restored, report.skipped), (2, 0));
    assert_eq!(dump(&tenant, &user)["inbox"], before["inbox"]);
    assert_eq!(dump(&tenant, &user)["deleteditems"].len(), changed["deleteditems"].len() + 2);
}

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
fn what_was_made_although_the_answer_was_lost_is_found_and_not_made_again() {
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
fn a_twin_that_comes_after_all_patience_is_taken_back_and_what_others_made_stays() {
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
fn nine_tenths_of_the_requests_that_a_mailbox_takes_are_used_and_no_more() {
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
fn nine_tenths_of_the_bytes_that_a_mailbox_takes_are_used_and_no_more() {
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

/// The real program, with a repository and the organisation `contoso` in its configuration.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new(organisation: Organisation) -> Self {
        Self::keeping("mime", organisation)
    }

    /// Makes an office that backs up with this fidelity.
    fn keeping(fidelity: &str, organisation: Organisation) -> Self {
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
        let lab = Lab::new();
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nendpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n\
             client_secret = {{ env = \"CONTOSO_SECRET\" }}\n[sets.everyone]\ntenant = \"contoso\"\nfidelity = \"{fidelity}\"\n",
            simulator.tenant_id(),
            simulator.client_id(),
            url = simulator.url()
        );
        write(&lab.path("strongroom.toml"), text);
        Self { simulator, lab }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        command
    }

    /// Kills the program each time `now` says so. Returns how many runs were killed: none if the work was done before.
    fn killed_when(&self, args: &[&str], now: impl Fn() -> bool) -> u32 {
        let mut command = self.command(args);
        let command = command.arg("--quiet").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program");
        eventually("it is far enough", PATIENCE, || now() || child.try_wait().expect("a child").is_some());
        let _ = child.kill();
        child.wait().expect("a child").signal().is_some().into()
    }

    #[track_caller]
    fn json(&self, args: &[&str], exit: i32) -> Value {
        let output = run(self.command(args).arg("--json"), exit);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }
}

#[test]
fn killed_again_and_again_a_restore_ends_whole_and_makes_nothing_twice() {
    let office = Office::new(Organisation { users: 1, messages: messages(60), ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let users = [tenant.users()[0].principal_name(), add_hard_cases(&tenant)];
    office.json(&["backup", "--set", "everyone"], 0);
    let before = users.each_ref().map(|user| dump(&tenant, user));
    users.iter().for_each(|user| wipe(&tenant, user));
    let args = ["restore", "latest", "--to", "original"];
    let mut killed = 0;
    for requests in [25, 40, 45, 50, 60, 70, 90] {
        office.simulator.reset_counters();
        killed += office.killed_when(&args, || office.simulator.counters().requests >= requests);
    }
    assert!(killed >= 3, "only {killed} restores were killed");
    let report = office.json(&args, 0);
    assert!(report["already_there"].as_u64() > Some(0), "{report}");
    for (user, before) in users.iter().zip(&before) {
        assert_same(before, &dump(&tenant, user));
    }
    let again = office.json(&args, 0);
    assert_eq!((&again["restored"], &again["failed"]), (&json!(0), &json!(0)));
    nothing_was_sent(&office.simulator);
}

#[test]
fn killed_again_and_again_an_import_ends_whole_and_makes_nothing_twice() {
    let office = Office::keeping("full", Organisation { users: 1, messages: messages(60), ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let users = [tenant.users()[0].principal_name(), add_hard_cases(&tenant)];
    users.iter().for_each(|user| add_what_json_loses(&tenant, user));
    office.json(&["backup", "--set", "everyone"], 0);
    let before = users.each_ref().map(|user| exact(&tenant, user));
    users.iter().for_each(|user| wipe(&tenant, user));
    let args = ["restore", "latest", "--to", "original"];
    let imported = || office.simulator.counters().by_operation.get("ImportItem").copied().unwrap_or(0);
    let mut killed = 0;
    for imports in [1, 2, 3, 5, 8, 3, 1, 4, 9] {
        office.simulator.reset_counters();
        killed += office.killed_when(&args, || imported() >= imports);
    }
    assert!(killed >= 3, "only {killed} restores were killed");
    let report = office.json(&args, 0);
    assert!(report["already_there"].as_u64() > Some(0), "{report}");
    for (user, before) in users.iter().zip(&before) {
        assert_same(before, &exact(&tenant, user));
    }
    let again = office.json(&args, 0);
    assert_eq!((&again["restored"], &again["failed"]), (&json!(0), &json!(0)));
    nothing_was_sent(&office.simulator);
}

/// The program is killed while a request is under way. The service does the work during the next restore.
#[test]
fn what_the_service_imports_after_the_program_was_killed_is_found_by_the_next_restore() {
    let office = Office::keeping("full", Organisation { users: 1, messages: 12, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    office.json(&["backup", "--set", "everyone"], 0);
    let before = exact(&tenant, &user);
    wipe(&tenant, &user);
    office.simulator.set_switches(Switches { imports_take_ms: 3_000, ..Switches::default() });
    let args = ["restore", "latest", "--to", "original"];
    let imported = || office.simulator.counters().by_operation.get("ImportItem").copied().unwrap_or(0);
    assert_eq!(office.killed_when(&args, || imported() >= 3), 1);
    let there = held(&exact(&tenant, &user));
    office.simulator.set_switches(Switches::default());
    let report = office.json(&args, 0);
    assert!(report["already_there"].as_u64() > Some(there), "{there} had been made when it was killed: {report}");
    assert_same(&before, &exact(&tenant, &user));
}

#[test]
fn the_program_restores_to_accounts_and_says_what_it_did() {
    let office = Office::new(Organisation { users: 2, messages: 20, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let [alice, bob] = [0, 1].map(|number| tenant.users()[number].principal_name());
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&tenant, &alice);
    let what = format!("latest:Users/{alice}");
    let to = format!("contoso:Users/{bob}/Outlook/From Alice");
    let planned = office.json(&["restore", &what, "--to", &to, "--dry-run"], 0);
    assert_eq!((&planned["restored"], &planned["dry_run"]), (&json!(held(&before)), &json!(true)));
    assert_eq!(planned["seconds_min"], 0);
    let said = run(&mut office.command(&["restore", &what, "--to", &to, "--dry-run"]), 0);
    assert!(text(&said.stdout).contains("Nothing was written."), "{}", text(&said.stdout));
    let said = run(&mut office.command(&["restore", &what, "--to", &to]), 0);
    assert!(text(&said.stdout).contains(&format!("Restored {} items", held(&before))), "{}", text(&said.stdout));
    assert_eq!(dump(&tenant, &bob)["msgfolderroot/From Alice/Inbox"], before["inbox"]);
    for (args, exit) in [
        (["restore", "latest", "--to", "contoso:Users/nobody@contoso.com"], 2),
        (["restore", "latest", "--to", "fabrikam:Users/bob"], 2),
        (["restore", "latest:Users/nobody", "--to", "original"], 2),
        (["restore", "latest", "--to", "somewhere"], 2),
    ] {
        run(&mut office.command(&args), exit);
    }
    // Mail from files can be restored to a mailbox, too.
    let mail = office.lab.dir("mail");
    write(&mail.join("a.eml"), b"From: a@b.c\r\nSubject: From a file\r\nDate: Mon, 2 Nov 2026 09:30:00 +0000\r\nMessage-ID: <f@x>\r\n\r\nHi\r\n");
    write(&mail.join("b.bin"), b"\0\x01\x02");
    office.lab.backup(&mail, "files");
    let report =
        office.json(&["restore", "latest:files", "--to", &format!("contoso:Users/{bob}"), "--into", "Files"], 3);
    assert_eq!((&report["restored"], &report["failed"]), (&json!(1), &json!(1)), "{report}");
    let again =
        office.json(&["restore", "latest:files", "--to", &format!("contoso:Users/{bob}"), "--into", "Files"], 3);
    assert_eq!((&again["restored"], &again["already_there"]), (&json!(0), &json!(1)), "{again}");
    assert!(dump(&tenant, &bob)["msgfolderroot/Files"][0].contains("From a file"));
}

#[test]
fn names_and_bytes_that_hurt_come_back_and_so_does_real_mail() {
    let corpus = std::env::var_os("STRONGROOM_CORPUS").map(std::path::PathBuf::from);
    if corpus.is_none() {
        eprintln!("STRONGROOM_CORPUS is not set: generated mail stands in for the corpus");
    }
    let lab = Laboratory::new(Shape { seed: 1, users: 4, messages: 30, hurting: true, corpus, ..Shape::default() });
    let tenant = lab.simulator.tenant();
    let users = lab.mailboxes();
    let backup = lab.back_up().expect("a backup");
    let before: Vec<_> = users.iter().map(|user| held(&dump(&tenant, user))).collect();
    users.iter().for_each(|user| wipe(&tenant, user));
    let report = lab.restore(&backup, &[]);
    assert_whole(&report);
    let after: Vec<_> = users.iter().map(|user| held(&dump(&tenant, user))).collect();
    assert_eq!((before.iter().sum(), &before), (report.restored, &after));
    let again = lab.restore(&backup, &[]);
    assert_whole(&again);
    assert_eq!((again.restored, again.folders), (0, 0));
}

#[test]
fn a_restore_that_is_interrupted_says_so_and_goes_on() {
    let office = Office::new(Organisation { users: 1, messages: 60, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&tenant, &user);
    wipe(&tenant, &user);
    office.simulator.reset_counters();
    office.simulator.set_limits(Limits { service_time_ms: 50, ..Limits::default() });
    let args = ["restore", "latest", "--to", "original", "--quiet"];
    let mut child = office.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
    eventually("so many requests", PATIENCE, || office.simulator.counters().requests > 40);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child");
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    office.simulator.set_limits(Limits::default());
    let report = office.json(&args, 0);
    assert!(report["already_there"].as_u64() > Some(0), "{report}");
    assert_same(&before, &dump(&tenant, &user));
}

/// Returns the peak memory of the program, in KiB, for restoring a mailbox with this many messages.
fn memory_for(messages: usize) -> u64 {
    let office = Office::new(Organisation { users: 1, messages, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    office.json(&["backup", "--set", "everyone"], 0);
    wipe(&tenant, &tenant.users()[0].principal_name());
    let args = ["restore", "latest", "--to", "original", "--quiet"];
    let mut child = office.command(&args).stdout(Stdio::null()).spawn().expect("the program");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    eventually("the end of the restore", 10 * PATIENCE, || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        child.try_wait().expect("a child").is_some()
    });
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    peak
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
    child.args(["--exact", "drill::restore_as_a_child", "--ignored", "--nocapture"]);
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

#[test]
fn memory_does_not_grow_with_the_mailbox() {
    let (small, large) = (memory_for(200), memory_for(2_000));
    eprintln!("{small} KiB for 200 messages, {large} KiB for 2,000");
    assert!(large < small + 40 * 1024 && large < 300 * 1024, "{small} KiB, then {large} KiB");
}
