//! Drops files into the outbox, without a mount. Checks how they are recognised, how they are restored to a simulated
//! organisation, and what the mailboxes hold then.

mod contents;
mod waiting;

use crate::laboratory;

use laboratory::{Laboratory, Shape, nothing_was_sent};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strongroom::backend::faulty::{self, Faulty};
use strongroom::backend::local::Local;
use strongroom::backup::tenant::TenantReport;
use strongroom::format::entry::Entry;
use strongroom::outbox::{
    BELIEVED, Options, Organisation, RunningOutbox, ask_to_commit, folder, history, locks, signed_out,
};
use strongroom::repository::reader::CacheSizes;
use strongroom::repository::tree::{self, Entries};
use strongroom::repository::{IndexSearch, Repository};
use strongroom_mount::{ItemKind, Outbox, OutboxError, State, Time};
use strongroom_simulator::faults::Rule;
use strongroom_simulator::tenant::Folder;
use strongroom_simulator::{
    Fault, Faults, FlagStatus, Kind, Locale, NewMessage, Switches, Tenant, TrueMessage, UserSpec,
};

const PATIENCE: Duration = Duration::from_secs(60);
const AN_HOUR: Duration = Duration::from_secs(3600);

/// An organisation with a backup, with Alice and Bob.
struct House {
    lab: Laboratory,
    tenant: Arc<Tenant>,
    alice: String,
    bob: String,
    backup: TenantReport,
}

#[derive(Clone, Copy, Default)]
struct How {
    waits: bool,
    synchronous: bool,
    rest: Duration,
    closed: bool,
    /// `None` is the usual value, as for users.
    believed: Option<Duration>,
}

impl House {
    fn new(messages: usize) -> Self {
        let lab = Laboratory::new(Shape { seed: 1, users: 2, messages, ..Shape::default() });
        let tenant = lab.simulator.tenant();
        let users = lab.mailboxes();
        let message = NewMessage {
            mime: mail("Canary budget", "bob@example.com"),
            received: Some(1_793_600_000),
            flag: FlagStatus::Flagged,
            categories: vec!["Red category".to_owned()],
            ..NewMessage::default()
        };
        tenant.add_message(&users[0], "inbox", message).unwrap();
        let backup = lab.back_up().unwrap();
        Self { tenant, alice: users[0].clone(), bob: users[1].clone(), lab, backup }
    }

    fn open(&self, how: How) -> RunningOutbox {
        self.open_beside(how, None)
    }

    fn open_beside(&self, how: How, other: Option<(&str, &Laboratory)>) -> RunningOutbox {
        self.open_of(&self.lab.repository, how, other)
    }

    fn open_of(&self, repository: &Arc<Repository>, how: How, other: Option<(&str, &Laboratory)>) -> RunningOutbox {
        let organisations = [("contoso", &self.lab)].into_iter().chain(other).map(|(name, lab)| Organisation {
            name: name.to_owned(),
            tenant_id: lab.simulator.tenant_id().to_owned(),
            client: lab.client(),
            closed: how.closed.then(|| "it is read-only".to_owned()),
        });
        let options = Options {
            folder: folder(&self.lab.folder.path().join("state"), &self.lab.repository),
            locks: locks(&self.lab.folder.path().join("state")),
            waits: how.waits,
            synchronous: how.synchronous,
            rest: how.rest,
            believed: how.believed.unwrap_or(BELIEVED),
            sets: HashMap::new(),
        };
        let lookup = IndexSearch::new(repository.clone());
        let reader = Arc::new(repository.reader(Box::new(lookup), CacheSizes::default()));
        RunningOutbox::start(repository, reader, organisations.collect(), options).unwrap()
    }

    /// Returns the names and bytes of the mails in a folder of the snapshot.
    fn mails(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        let reader = self.lab.reader();
        let found = tree::find_path(&reader, self.backup.snapshot.directory(), path.as_bytes()).unwrap().unwrap();
        let entries = Entries::new(&reader, found.entry().directory().unwrap()).unwrap();
        let entries: Vec<Entry> = entries.map(|found| found.unwrap().entry().clone()).collect();
        let files = entries.iter().filter(|entry| entry.facts.source_id.is_some());
        let files = files.filter_map(|entry| {
            let mut bytes = Vec::new();
            reader.read(entry.content()?, 0, usize::MAX, &mut bytes).unwrap();
            Some((String::from_utf8(entry.name.to_vec()).unwrap(), bytes))
        });
        files.collect()
    }

    fn canary(&self) -> (String, Vec<u8>) {
        let mails = self.mails(&format!("Users/{}/Outlook/Inbox", self.alice));
        mails.into_iter().find(|(name, _)| name.contains("Canary")).unwrap()
    }

    fn inbox_of(&self, user: &str) -> String {
        format!("contoso/Users/{user}/Outlook/Inbox")
    }

    fn called<'a>(&'a self, user: &str, subject: &'a str) -> Vec<TrueMessage> {
        let messages = self.tenant.true_messages(user).unwrap();
        messages.filter(|message| message.properties["subject"] == subject).collect()
    }
}

fn mail(subject: &str, from: &str) -> Vec<u8> {
    let id = blake3::hash(subject.as_bytes()).to_hex();
    format!(
        "Received: from mx.example.com by contoso.com; Mon, 2 Nov 2026 09:30:07 +0000\r\nFrom: Bob <{from}>\r\nTo: a@contoso.com\r\n\
         Subject: {subject}\r\nDate: Mon, 2 Nov 2026 09:30:00 +0000\r\nMessage-ID: <{id}@example.com>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain\r\n\r\nThe text of {subject}\r\n"
    )
    .into_bytes()
}

fn drop_file(outbox: &dyn Outbox, path: &str, bytes: &[u8]) -> Result<(), OutboxError> {
    let mut draft = outbox.begin(path.rsplit_once('/').unwrap().0.as_bytes())?;
    // A program may write the end of a file first.
    let middle = bytes.len() / 2;
    draft.write(middle as u64, &bytes[middle..])?;
    draft.write(0, &bytes[..middle])?;
    draft.seal(path.as_bytes(), None)?;
    draft.release();
    Ok(())
}

fn state(outbox: &dyn Outbox, path: &str) -> State {
    match outbox.item(path.as_bytes()).unwrap().kind {
        ItemKind::Dropped { state, .. } => state,
        other => panic!("{other:?}"),
    }
}

/// Waits until a file is settled, and returns its state.
#[track_caller]
fn settled(outbox: &dyn Outbox, path: &str) -> State {
    let since = Instant::now();
    loop {
        match state(outbox, path) {
            State::Queued | State::Uploading => {}
            state => return state,
        }
        assert!(since.elapsed() < PATIENCE, "{path} is still {}", state(outbox, path));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn restored(outbox: &dyn Outbox, path: &str) {
    assert_eq!(settled(outbox, path), State::Done, "{path}");
}

fn names(outbox: &dyn Outbox, path: &str) -> Vec<String> {
    let items = outbox.list(path.as_bytes()).unwrap();
    let mut names: Vec<_> = items.into_iter().map(|item| String::from_utf8(item.name).unwrap()).collect();
    names.sort();
    names
}

/// Returns the text of all reports.
fn reports(outbox: &dyn Outbox) -> String {
    let read = |name: &String| outbox.read(format!("jobs/{name}").as_bytes(), 0, 1 << 20).unwrap();
    names(outbox, "jobs").iter().map(|name| String::from_utf8(read(name)).unwrap()).collect()
}

/// Returns how many files have this state in the reports.
fn told(outbox: &dyn Outbox, fate: &str) -> usize {
    let of_file = format!("{fate:<10} ");
    reports(outbox).lines().filter(|line| line.starts_with(&of_file)).count()
}

/// Makes the parent folders of `path`.
fn make_folders(outbox: &dyn Outbox, path: &str) {
    for (at, _) in path.match_indices('/').skip(1) {
        outbox.make_folder(&path.as_bytes()[..at]).unwrap();
    }
}

/// Compares the parts of two messages that people see.
#[track_caller]
fn assert_alike(a: &Value, b: &Value) {
    for name in
        ["subject", "isRead", "flag", "categories", "receivedDateTime", "sentDateTime", "isDraft", "internetMessageId"]
    {
        assert_eq!(a[name], b[name], "{name}");
    }
}

#[test]
fn a_mail_of_a_snapshot_is_restored_once_with_all_its_properties() {
    let house = House::new(10);
    let running = house.open(How::default());
    let first = running.outbox();
    let outbox = &*first;
    let (name, bytes) = house.canary();
    let path = format!("{}/{name}", house.inbox_of(&house.bob));
    drop_file(outbox, &path, &bytes).unwrap();
    restored(outbox, &path);
    let original = house.called(&house.alice, "Canary budget").remove(0);
    let [found] = &house.called(&house.bob, "Canary budget")[..] else { panic!("not once") };
    assert_alike(&original.properties, &found.properties);
    assert_eq!(found.properties["flag"]["flagStatus"], "flagged");
    // The file is dropped again, under the same name and under another, and once more after a restart.
    drop_file(outbox, &path, &bytes).unwrap();
    let other = format!("{}/other.eml", house.inbox_of(&house.bob));
    drop_file(outbox, &other, &bytes).unwrap();
    restored(outbox, &other);
    running.stop();
    drop(first);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    drop_file(outbox, &path, &bytes).unwrap();
    restored(outbox, &path);
    assert_eq!(house.called(&house.bob, "Canary budget").len(), 1);
    // A restored file cannot be replaced or withdrawn.
    assert!(matches!(drop_file(outbox, &path, &mail("Other", "x@y.z")), Err(OutboxError::NotPermitted)));
    assert!(matches!(outbox.withdraw(path.as_bytes()), Err(OutboxError::NotPermitted)));
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn a_deleted_mail_goes_back_to_its_folder_and_existing_ones_stay() {
    let house = House::new(10);
    let running = house.open(How::default());
    let first = running.outbox();
    let outbox = &*first;
    let (name, bytes) = house.canary();
    let lost = house.called(&house.alice, "Canary budget").remove(0);
    let own = mail("Nobody knows this", "x@y.z");
    let path = format!("original/{name}");
    drop_file(outbox, &path, &bytes).unwrap();
    restored(outbox, &path);
    assert_eq!(house.called(&house.alice, "Canary budget"), std::slice::from_ref(&lost), "it stood there");
    // An item that was changed since stays as it is, and the report says so.
    house.tenant.set_categories(&house.alice, &lost.id, vec!["Blue category".to_owned()]).unwrap();
    drop_file(outbox, "original/changed.eml", &bytes).unwrap();
    restored(outbox, "original/changed.eml");
    let [changed] = &house.called(&house.alice, "Canary budget")[..] else { panic!("not one") };
    assert_eq!(changed.properties["categories"][0], "Blue category");
    let said = reports(outbox);
    assert!(said.contains(&format!("done       {path}\n           it was there already\n")), "{said}");
    let of_changed =
        "done       original/changed.eml\n           it is there, was changed since, and was left as it is\n";
    assert!(said.contains(of_changed), "{said}");
    house.tenant.delete_message(&house.alice, &lost.id).unwrap();
    let below = format!("original/Users/{}/Outlook/Inbox/{name}", house.alice);
    assert!(matches!(drop_file(outbox, &below, &bytes), Err(OutboxError::NotFound)), "its folder is missing");
    make_folders(outbox, &below);
    drop_file(outbox, &below, &bytes).unwrap();
    restored(outbox, &below);
    let inbox = lost.folder.clone();
    let back: Vec<_> =
        house.called(&house.alice, "Canary budget").into_iter().filter(|message| message.folder == inbox).collect();
    assert_eq!(back.len(), 1);
    assert_alike(&lost.properties, &back[0].properties);
    assert!(house.called(&house.bob, "Canary budget").is_empty());
    assert!(matches!(drop_file(outbox, "original/own.eml", &own), Err(OutboxError::Unknown { .. })));
    // Folders in `original/` are only names. After a restart a restored file is only in its report.
    assert_eq!(names(outbox, "original").len(), 3);
    running.stop();
    drop(first);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    assert!(names(outbox, "original").is_empty());
    assert_eq!(told(outbox, "done"), 3);
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn any_mail_can_be_dropped_and_no_other_file() {
    let house = House::new(3);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let inbox = house.inbox_of(&house.bob);
    let path = format!("{inbox}/own.eml");
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    restored(outbox, &path);
    let [found] = &house.called(&house.bob, "My own")[..] else { panic!("not once") };
    assert_eq!(found.properties["receivedDateTime"], "2026-11-02T09:30:07Z");
    assert_eq!(found.properties["isRead"], true);
    // The last of several servers counts. Its header is the first one.
    let last = b"Received: from b by c; Mon, 2 Nov 2026 10:00:00 +0000\r\n";
    drop_file(outbox, &format!("{inbox}/relayed.eml"), &[&last[..], &mail("Relayed", "x@y.z")].concat()).unwrap();
    restored(outbox, &format!("{inbox}/relayed.eml"));
    assert_eq!(house.called(&house.bob, "Relayed")[0].properties["receivedDateTime"], "2026-11-02T10:00:00Z");
    // A mail that does not say when it was received counts as received when it was sent.
    let sent = mail("Only sent", "x@y.z");
    let sent = &sent[sent.windows(5).position(|window| window == b"From:").unwrap()..];
    drop_file(outbox, &format!("{inbox}/sent.eml"), sent).unwrap();
    restored(outbox, &format!("{inbox}/sent.eml"));
    assert_eq!(house.called(&house.bob, "Only sent")[0].properties["receivedDateTime"], "2026-11-02T09:30:00Z");
    // A mail with the same Message-ID and the same time of arrival counts as the same mail.
    let received = Some("2026-11-02T09:30:07Z".parse::<jiff::Timestamp>().unwrap().as_second());
    let stands = NewMessage { mime: mail("Stands", "x@y.z"), received, ..NewMessage::default() };
    house.tenant.add_message(&house.bob, "inbox", stands).unwrap();
    drop_file(outbox, &format!("{inbox}/stands.eml"), &mail("Stands", "a@b.c")).unwrap();
    restored(outbox, &format!("{inbox}/stands.eml"));
    assert_eq!(house.called(&house.bob, "Stands").len(), 1);
    let own = mail("My own", "x@y.z");
    // A note to oneself is a mail too, because of its file name.
    drop_file(outbox, &format!("{inbox}/note.eml"), b"Subject: Note to self\r\n\r\nMilk\r\n").unwrap();
    restored(outbox, &format!("{inbox}/note.eml"));
    assert_eq!(house.called(&house.bob, "Note to self").len(), 1);
    for (name, bytes) in [
        ("a.eml", &b"Just some text"[..]),
        ("b.eml", b"\x89PNG\r\n\x1a\n"),
        ("c.eml", b"BEGIN:VCALENDAR\r\n"),
        ("d.eml", b"BEGIN:VCARD\r\n"),
        ("a.txt", &own),
        ("a.ics", &own),
        ("a.VCF", &own),
        ("a.mbox", &own),
    ] {
        let refused = drop_file(outbox, &format!("{inbox}/{name}"), bytes);
        assert!(matches!(refused, Err(OutboxError::WrongKind)), "{name}: {refused:?}");
    }
    for folder in ["", "jobs", "contoso", "contoso/Users", &format!("contoso/Users/{}/Outlook", house.bob)] {
        let refused = outbox.begin(folder.as_bytes()).err();
        assert!(matches!(refused, Some(OutboxError::NotPermitted)), "{folder}: {refused:?}");
    }
    for folder in ["fabrikam", "contoso/Users/nobody@contoso.com", &format!("contoso/Users/{}/OneDrive", house.bob)] {
        let refused = outbox.begin(folder.as_bytes()).err();
        assert!(matches!(refused, Some(OutboxError::NotFound)), "{folder}: {refused:?}");
    }
    let mut draft = outbox.begin(inbox.as_bytes()).unwrap();
    assert!(matches!(draft.write(200 << 20, b"x"), Err(OutboxError::TooLarge)));
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn each_organisation_of_the_configuration_has_its_folder() {
    let house = House::new(2);
    let other = Laboratory::new(Shape { seed: 2, users: 1, messages: 2, ..Shape::default() });
    let user = other.mailboxes()[0].clone();
    let running = house.open_beside(How::default(), Some(("fabrikam", &other)));
    let outbox = &*running.outbox();
    assert_eq!(names(outbox, ""), ["contoso", "fabrikam", "jobs", "original"]);
    assert_eq!(names(outbox, "fabrikam/Users"), [user.as_str()]);
    let (name, bytes) = house.canary();
    let path = format!("fabrikam/Users/{user}/Outlook/Inbox/{name}");
    drop_file(outbox, &path, &bytes).unwrap();
    restored(outbox, &path);
    let there = other.simulator.tenant();
    let mut arrived =
        there.true_messages(&user).unwrap().filter(|message| message.properties["subject"] == "Canary budget");
    let categories = arrived.next().map(|message| message.properties["categories"].clone());
    assert_eq!(categories, Some(json!(["Red category"])));
    assert!(arrived.next().is_none());
    assert_eq!(house.called(&house.alice, "Canary budget").len(), 1);
}

#[test]
fn folders_are_those_of_the_mailbox_and_can_be_made() {
    let house = House::new(3);
    let spec = UserSpec { principal_name: "hans".to_owned(), locale: Locale::German, ..UserSpec::default() };
    house.tenant.add_user(spec);
    let guest = UserSpec { principal_name: "guest".to_owned(), kind: Kind::Guest, ..UserSpec::default() };
    house.tenant.add_user(guest);
    let users = house.tenant.users();
    let hans = users.iter().map(|user| user.principal_name()).find(|name| name.starts_with("hans")).unwrap();
    house.tenant.add_hidden_folder(&hans, "msgfolderroot", "Hidden").unwrap();
    let scheduled = house.tenant.with_mailbox(&hans, |mailbox| {
        let top = mailbox.well_known("msgfolderroot");
        mailbox.insert_folder(Folder { well_known: Some("scheduled"), ..Folder::new("Geplant", top) });
    });
    scheduled.unwrap();
    house.tenant.add_search_folder(&hans, "msgfolderroot", "Search", "isRead eq false", "inbox").unwrap();
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    assert_eq!(names(outbox, ""), ["contoso", "jobs", "original"]);
    assert_eq!(names(outbox, "contoso"), ["Users"]);
    let users = names(outbox, "contoso/Users");
    assert!(users.contains(&house.alice) && users.contains(&hans), "{users:?}");
    assert!(!users.iter().any(|user| user.starts_with("guest")), "{users:?}");
    assert_eq!(names(outbox, &format!("contoso/Users/{hans}")), ["Outlook"]);
    let root = format!("contoso/Users/{hans}/Outlook");
    let folders = names(outbox, &root);
    assert!(folders.contains(&"Posteingang".to_owned()), "{folders:?}");
    assert!(!folders.iter().any(|name| name == "Hidden" || name == "Search"), "{folders:?}");
    // Answers stay valid for a while.
    house.lab.simulator.reset_counters();
    house.tenant.add_folder(&hans, "msgfolderroot", "Spät").unwrap();
    assert_eq!(names(outbox, &root), folders);
    assert_eq!(house.lab.simulator.counters().requests, 0);
    // The English name of the folder works too.
    let path = format!("{root}/Inbox/own.eml");
    outbox.make_folder(format!("{root}/Inbox").as_bytes()).unwrap();
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    restored(outbox, &path);
    assert_eq!(names(outbox, &root), folders);
    // Folders from which the service sends accept nothing.
    for closed in [&root, &format!("{root}/Postausgang"), &format!("{root}/Geplant")] {
        assert!(matches!(outbox.begin(closed.as_bytes()).err(), Some(OutboxError::NotPermitted)), "{closed}");
    }
    let made = format!("{root}/Projekte");
    for path in [made.clone(), format!("{made}/2026"), made.clone(), format!("{made}/2026")] {
        outbox.make_folder(path.as_bytes()).unwrap();
    }
    assert_eq!(names(outbox, &made), ["2026"]);
    let truth = house.tenant.true_folders(&hans).unwrap();
    let projects = truth.iter().filter(|folder| folder.path.first().is_some_and(|name| name == "Projekte"));
    assert_eq!(projects.count(), 2);
    for path in ["fabrikam", "contoso/Groups", "contoso/Users/nobody@contoso.com", "jobs/x"] {
        let refused = outbox.make_folder(path.as_bytes());
        assert!(matches!(refused, Err(OutboxError::NotPermitted)), "{path}: {refused:?}");
    }
    nothing_was_sent(&house.lab.simulator);
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_missing_permission_is_reported() {
    let house = House::new(3);
    let running = house.open(How { closed: true, ..How::default() });
    let inbox = house.inbox_of(&house.bob);
    let refused = running.outbox().begin(inbox.as_bytes()).err();
    assert!(matches!(refused, Some(OutboxError::Denied { .. })), "{refused:?}");
    running.stop();
    house.lab.simulator.set_permissions(["User.Read.All", "Mail.Read", "Organization.Read.All"]);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let path = format!("{inbox}/own.eml");
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    let State::Failed { reason } = settled(outbox, &path) else { panic!("it was restored") };
    assert!(reason.contains("denied"), "{reason}");
    // The next file there is refused when it is begun.
    let refused = outbox.begin(inbox.as_bytes()).err();
    assert!(matches!(refused, Some(OutboxError::Denied { .. })), "{refused:?}");
}

#[test]
fn answers_of_the_service_are_kept_for_a_minute() {
    assert_eq!(BELIEVED, Duration::from_secs(60));
    let believed = Duration::from_secs(1);
    let house = House::new(3);
    let running = house.open(How { believed: Some(believed), ..How::default() });
    let outbox = &*running.outbox();
    let users = "contoso/Users";
    let root = format!("{users}/{}/Outlook", house.bob);
    let known = [users, &root].map(|folder| (folder, Instant::now(), names(outbox, folder)));
    let spec = UserSpec { principal_name: "late".to_owned(), ..UserSpec::default() };
    house.tenant.add_user(spec);
    house.tenant.add_folder(&house.bob, "msgfolderroot", "Late").unwrap();
    for (folder, since, known) in known {
        eventually("what is new there is shown", || names(outbox, folder).len() > known.len());
        assert!(since.elapsed() >= believed, "{folder} was asked for too early");
    }
    // A missing folder is remembered as well.
    let (since, folder) = (Instant::now(), format!("{root}/Inbox/Later"));
    assert!(matches!(outbox.item(folder.as_bytes()), Err(OutboxError::NotFound)));
    house.tenant.add_folder(&house.bob, "inbox", "Later").unwrap();
    eventually("what was made meanwhile is found", || outbox.item(folder.as_bytes()).is_ok());
    assert!(since.elapsed() >= believed, "it was asked for too early");
    // A refusal is remembered, too.
    house.lab.simulator.set_permissions(["User.Read.All", "Mail.Read", "Organization.Read.All"]);
    house.lab.simulator.expire_tokens();
    let (since, inbox) = (Instant::now(), house.inbox_of(&house.bob));
    let path = format!("{inbox}/own.eml");
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    assert!(matches!(settled(outbox, &path), State::Failed { .. }));
    eventually("it is forgotten that nothing may be written", || outbox.begin(inbox.as_bytes()).is_ok());
    assert!(since.elapsed() >= believed, "it was forgotten too early");
}

#[test]
fn faults_and_restarts_lose_and_double_nothing() {
    let house = House::new(40);
    let switches = Switches { new_messages_lag: true, ..Switches::default() };
    house.lab.simulator.set_switches(switches);
    let mails = house.mails(&format!("Users/{}/Outlook/Inbox", house.alice));
    house.tenant.add_folder(&house.bob, "msgfolderroot", "From Alice").unwrap();
    let to = format!("contoso/Users/{}/Outlook/From Alice", house.bob);
    let mut subjects: Vec<String> = Vec::new();
    let mut all: Vec<(String, Vec<u8>)> = mails;
    all.extend((0..20).map(|n| (format!("own {n}.eml"), mail(&format!("Own {n}"), "x@y.z"))));
    let mut lives = all.chunks(all.len().div_ceil(4));
    for seed in 1..=4 {
        house.lab.simulator.set_faults(Faults::bad_day(seed, 4));
        let running = house.open(How::default());
        for (name, bytes) in lives.next().unwrap_or_default() {
            drop_file(&*running.outbox(), &format!("{to}/{name}"), bytes).unwrap();
            subjects.push(name.clone());
        }
        // The outbox stops in the middle of the restore.
        running.stop();
    }
    house.lab.simulator.set_faults(Faults::default());
    let running = house.open(How::default());
    let counts = running.finish(&AtomicBool::new(false)).unwrap();
    assert_eq!((counts.queued, counts.failed), (0, 0), "{counts:?}");
    let folder = house.tenant.true_folders(&house.bob).unwrap();
    let folder = folder.iter().find(|folder| folder.path == ["From Alice"]).unwrap().id.clone();
    let there = house.tenant.true_messages(&house.bob).unwrap().filter(|message| message.folder == folder).count();
    assert_eq!(there, all.len());
    nothing_was_sent(&house.lab.simulator);
}
