//! The disaster drill: an organisation is backed up, a mailbox is lost and restored, and the result is compared with
//! the original.
//!
//! Mailboxes are compared in a canonical form (`dump`), which leaves out only what docs/coverage.md names as lost.
//! `make drill` runs the drill with larger numbers (STRONGROOM_DRILL_MESSAGES, STRONGROOM_SEEDS).

mod faults;
mod limits;
mod program;
mod streams;

use crate::common;
use crate::exact;
use crate::laboratory;

use common::{Lab, PATIENCE, eventually, run, text, write};
use exact::{add_what_json_loses, exact, folders_of};
use laboratory::{Laboratory, Shape, cases, client_of, client_to, limited_client_of, nothing_was_sent};
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

fn lost(contains: &str, fault: Fault, skip: u32, times: u32) -> Rule {
    Rule { method: Some("POST".to_owned()), contains: contains.to_owned(), skip, times: Some(times), fault }
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
    assert!(plan.show(&survey).to_string().contains("it takes at least"));
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
