//! Drops files into the outbox, without a mount. Checks how they are recognised, how they are restored to a simulated
//! organisation, and what the mailboxes hold then.

use crate::laboratory;

use laboratory::{Laboratory, Shape};
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
    Fault, Faults, FlagStatus, Kind, Locale, NewMessage, Simulator, Switches, Tenant, TrueMessage, UserSpec,
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

fn nothing_was_sent(simulator: &Simulator) {
    let counts = simulator.counters();
    assert_eq!((counts.mails_sent, counts.invitations_sent), (0, 0));
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
fn a_mail_of_a_snapshot_comes_with_all_that_is_known_of_it_and_once() {
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
fn what_was_deleted_goes_back_to_where_it_came_from_and_what_stands_there_stays() {
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
fn any_mail_can_be_brought_and_nothing_else() {
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
        assert!(matches!(refused, Err(OutboxError::NotMail)), "{name}: {refused:?}");
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

#[test]
fn what_waits_goes_when_it_is_committed_and_reports_say_what_became_of_it() {
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
    assert!(outbox.news().contains(&path.into_bytes()));
    assert!(outbox.news().is_empty());
    let jobs = history(&at, &house.lab.repository).unwrap();
    assert_eq!(jobs.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    running.stop();
    assert_eq!(std::fs::read_dir(at.join("staged")).unwrap().count(), 0, "what is restored is not kept");
    // The folder of the outbox holds no readable part of the dropped files.
    for entry in walk(&at) {
        let bytes = std::fs::read(&entry).unwrap();
        for secret in ["My own", "Regretted", "regretted", "x@y.z", "own.eml"] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} in {}", entry.display());
        }
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
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
fn who_may_not_write_is_told() {
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
fn what_the_service_said_is_believed_for_a_minute_and_not_longer() {
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
fn while_the_snapshots_are_looked_through_close_takes_what_nobody_knows_and_it_fails_later() {
    let house = House::new(3);
    let (name, canary) = house.canary();
    // From here on the repository does not answer until the gate is open.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let backend = Arc::new(Faulty::new(Local::open(house.lab.folder.path().join("repository")).unwrap()));
    let repository = Arc::new(Repository::open(backend.clone(), b"password").unwrap());
    let waits = gate.clone();
    backend.plan(0..1, faulty::Fault::Delay(Duration::ZERO), move |_| waits.lock().is_err());
    let running = house.open_of(&repository, How::default(), None);
    let outbox = &*running.outbox();
    let (known, unknown) = (format!("original/{name}"), "original/unknown.eml");
    drop_file(outbox, &known, &canary).unwrap();
    drop_file(outbox, unknown, &mail("Unknown", "x@y.z")).unwrap();
    for path in [&known, unknown] {
        assert_eq!(state(outbox, path), State::Queued, "{path}");
    }
    drop(closed);
    restored(outbox, &known);
    let State::Failed { reason } = settled(outbox, unknown) else { panic!("it was restored") };
    assert!(reason.contains("no snapshot holds"), "{reason}");
    // Now that all contents are known, `close` itself refuses the file.
    let refused = drop_file(outbox, "original/unknown, too.eml", &mail("Unknown, too", "x@y.z"));
    assert!(matches!(refused, Err(OutboxError::Unknown { .. })), "{refused:?}");
}

#[test]
fn on_a_bad_day_and_over_many_lives_everything_is_restored_once() {
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

#[test]
fn every_snapshot_is_known_the_newest_and_those_made_meanwhile_too() {
    let house = House::new(10);
    let (name, old) = house.canary();
    let tenant = &house.tenant;
    let lost = house.called(&house.alice, "Canary budget").remove(0);
    // One message is deleted and one is added. The second snapshot lacks the first message.
    tenant.delete_message(&house.alice, &lost.id).unwrap();
    let message =
        |subject: &str| NewMessage { mime: mail(subject, "x@y.z"), flag: FlagStatus::Flagged, ..NewMessage::default() };
    let second = tenant.add_message(&house.alice, "inbox", message("Second")).unwrap();
    house.lab.back_up().unwrap();
    let running = house.open(How::default());
    let first = running.outbox();
    let outbox = &*first;
    let restore = |subject: &str, bytes: &[u8]| {
        let path = format!("original/{subject}.eml");
        drop_file(outbox, &path, bytes).unwrap();
        restored(outbox, &path);
        let found = house.called(&house.alice, subject);
        let back = found.iter().filter(|message| message.folder == lost.folder).collect::<Vec<_>>();
        assert_eq!(back.len(), 1, "{subject}");
        assert_eq!(back[0].properties["flag"]["flagStatus"], "flagged", "{subject}");
    };
    restore("Canary budget", &old);
    tenant.delete_message(&house.alice, &second).unwrap();
    restore("Second", &mail("Second", "x@y.z"));
    // A backup runs while the outbox is open.
    let third = tenant.add_message(&house.alice, "inbox", message("Third")).unwrap();
    for user in [&house.alice, &house.bob] {
        tenant.add_message(user, "inbox", message("Twin")).unwrap();
    }
    house.lab.back_up().unwrap();
    tenant.delete_message(&house.alice, &third).unwrap();
    restore("Third", &mail("Third", "x@y.z"));
    // A message that is in two mailboxes needs a path that names one of them.
    let twin = mail("Twin", "x@y.z");
    let refused = drop_file(outbox, "original/Twin.eml", &twin);
    assert!(matches!(refused, Err(OutboxError::Unknown { .. })), "{refused:?}");
    let of_alice = house.called(&house.alice, "Twin").remove(0);
    tenant.delete_message(&house.alice, &of_alice.id).unwrap();
    let below = format!("original/Users/{}/Outlook/Inbox/Twin.eml", house.alice);
    make_folders(outbox, &below);
    drop_file(outbox, &below, &twin).unwrap();
    restored(outbox, &below);
    let back = house.called(&house.alice, "Twin");
    assert_eq!(back.iter().filter(|message| message.folder == of_alice.folder).count(), 1);
    running.stop();
    drop(first);
    // The database of contents is a cache.
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    std::fs::remove_dir_all(at.join("contents")).unwrap();
    house.called(&house.alice, "Canary budget").iter().for_each(|message| {
        tenant.delete_message(&house.alice, &message.id).unwrap();
    });
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let path = format!("original/again {name}");
    drop_file(outbox, &path, &old).unwrap();
    restored(outbox, &path);
    assert!(house.called(&house.alice, "Canary budget").iter().any(|message| message.folder == lost.folder));
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn many_of_a_new_snapshot_at_a_time_are_all_known() {
    let house = House::new(3);
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    // The outbox knows the existing snapshots before the next one is made.
    drop_file(outbox, "original/first.eml", &house.canary().1).unwrap();
    outbox.commit().unwrap();
    restored(outbox, "original/first.eml");
    let subjects: Vec<_> = (0..40).map(|number| format!("New {number}")).collect();
    for subject in &subjects {
        let mime = mail(subject, "x@y.z");
        let message = NewMessage { mime, flag: FlagStatus::Flagged, ..NewMessage::default() };
        house.tenant.add_message(&house.alice, "inbox", message).unwrap();
    }
    house.lab.back_up().unwrap();
    let inbox = house.inbox_of(&house.bob);
    for subject in &subjects {
        drop_file(outbox, &format!("{inbox}/{subject}.eml"), &mail(subject, "x@y.z")).unwrap();
    }
    outbox.commit().unwrap();
    for subject in &subjects {
        restored(outbox, &format!("{inbox}/{subject}.eml"));
        let found = house.called(&house.bob, subject);
        assert_eq!(found.len(), 1, "{subject}");
        assert_eq!(found[0].properties["flag"]["flagStatus"], "flagged", "{subject} came without its marks");
    }
}

#[test]
fn what_stands_in_a_snapshot_that_is_forgotten_meanwhile_is_had_from_another() {
    let house = House::new(3);
    let (name, canary) = house.canary();
    let first = walk(&house.lab.folder.path().join("repository/snapshots"));
    house.tenant.add_message(&house.alice, "inbox", NewMessage::default()).unwrap();
    house.lab.back_up().unwrap();
    let lost = house.called(&house.alice, "Canary budget").remove(0);
    house.tenant.delete_message(&house.alice, &lost.id).unwrap();
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    // The message is known from whichever of the two snapshots was read first.
    for (n, path) in [format!("original/{name}"), format!("{}/{name}", house.inbox_of(&house.bob))].iter().enumerate() {
        eventually("all are known", || !matches!(drop_file(outbox, path, &canary), Err(OutboxError::Unknown { .. })));
        if n == 0 {
            assert_eq!(first.len(), 1);
            std::fs::remove_file(&first[0]).unwrap();
        }
        outbox.commit().unwrap();
        restored(outbox, path);
    }
    assert_eq!(house.called(&house.bob, "Canary budget")[0].properties["flag"]["flagStatus"], "flagged");
    let back = house.called(&house.alice, "Canary budget");
    assert_eq!(back.iter().filter(|message| message.folder == lost.folder).count(), 1);
}

#[test]
fn what_was_just_closed_can_be_withdrawn_unless_somebody_commits() {
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
fn what_waits_is_there_the_next_time_with_its_bytes_its_folder_and_its_time() {
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
fn the_same_bytes_under_two_names_are_one_message_unless_they_were_two_in_the_snapshot() {
    let house = House::new(3);
    let inbox = house.inbox_of(&house.bob);
    for _ in 0..2 {
        let twin = NewMessage { mime: mail("Twin", "x@y.z"), received: Some(1_793_600_000), ..NewMessage::default() };
        house.tenant.add_message(&house.alice, "inbox", twin).unwrap();
    }
    let second = house.lab.back_up().unwrap();
    let house = House { backup: second, ..house };
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    let paths = ["own.eml", "own copy.eml"].map(|name| format!("{inbox}/{name}"));
    for path in &paths {
        drop_file(outbox, path, &mail("My own", "x@y.z")).unwrap();
    }
    let twins = house.mails(&format!("Users/{}/Outlook/Inbox", house.alice));
    let twins: Vec<_> = twins.into_iter().filter(|(name, _)| name.contains("Twin")).collect();
    assert!(twins.len() == 2 && twins[0].0 != twins[1].0 && twins[0].1 == twins[1].1);
    for (name, bytes) in &twins {
        drop_file(outbox, &format!("{inbox}/{name}"), bytes).unwrap();
    }
    outbox.commit().unwrap();
    paths.iter().for_each(|path| restored(outbox, path));
    twins.iter().for_each(|(name, _)| restored(outbox, &format!("{inbox}/{name}")));
    assert_eq!((house.called(&house.bob, "My own").len(), house.called(&house.bob, "Twin").len()), (1, 2));
    let said = reports(outbox);
    assert_eq!(said.matches("it was there already").count(), 1, "{said}");
    assert_eq!(told(outbox, "done"), 4, "{said}");
}

#[test]
fn of_several_items_with_the_content_the_path_decides_and_then_the_time() {
    let house = House::new(3);
    let tenant = &house.tenant;
    let add = |folder: &str, category: &str| {
        let (mime, categories) = (mail("Ambiguous", "x@y.z"), vec![category.to_owned()]);
        let message = NewMessage { mime, categories, received: Some(1_793_600_000), ..NewMessage::default() };
        tenant.add_message(&house.alice, folder, message).unwrap()
    };
    add("inbox", "Inbox");
    let moved = add("archive", "Archive, old");
    let draft = NewMessage { mime: mail("A draft", "x@y.z"), draft: true, ..NewMessage::default() };
    tenant.add_message(&house.alice, "drafts", draft).unwrap();
    house.lab.back_up().unwrap();
    tenant.set_categories(&house.alice, &moved, vec!["Archive, new".to_owned()]).unwrap();
    let house = House { backup: house.lab.back_up().unwrap(), ..house };
    let named = |folder: &str, part: &str| {
        let mails = house.mails(&format!("Users/{}/Outlook/{folder}", house.alice));
        mails.into_iter().find(|(name, _)| name.contains(part)).unwrap()
    };
    let (name, bytes) = named("Archive", "Ambiguous");
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    for (folder, category) in [("Inbox", "Inbox"), ("Archive", "Archive, new")] {
        let path = format!("contoso/Users/{}/Outlook/{folder}/{name}", house.bob);
        drop_file(outbox, &path, &bytes).unwrap();
        restored(outbox, &path);
        let found = house.called(&house.bob, "Ambiguous");
        let has_it = |message: &TrueMessage| message.properties["categories"][0] == category;
        assert_eq!(found.iter().filter(|message| has_it(message)).count(), 1, "{folder}: {found:?}");
    }
    let (_, draft) = named("Drafts", "A draft");
    let path = format!("contoso/Users/{}/Outlook/Drafts/whatever.eml", house.bob);
    drop_file(outbox, &path, &draft).unwrap();
    restored(outbox, &path);
    assert_eq!(house.called(&house.bob, "A draft")[0].properties["isDraft"], true);
}

#[test]
fn what_is_unreachable_is_tried_on_and_what_is_refused_three_times_and_can_be_dropped_again() {
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
fn while_another_restore_is_at_work_in_a_mailbox_what_is_dropped_waits() {
    let house = House::new(3);
    let running = house.open(How::default());
    let kept = running.outbox();
    let outbox = &*kept;
    let path = |n: usize| format!("{}/{n}.eml", house.inbox_of(&house.bob));
    drop_file(outbox, &path(0), &mail("First", "x@y.z")).unwrap();
    restored(outbox, &path(0));
    let locked: Vec<_> = walk(&locks(&house.lab.folder.path().join("state")));
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
fn while_the_repository_is_away_what_was_dropped_waits() {
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
    assert_eq!(walk(&at.join("staged")).len(), 10);
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
    assert!(walk(&at.join("staged")).is_empty());
}

#[test]
fn what_no_snapshot_has_any_more_fails_and_can_be_taken_back() {
    let house = House::new(3);
    let (_, bytes) = house.canary();
    let how = How { waits: true, ..How::default() };
    let running = house.open(how);
    drop_file(&*running.outbox(), "original/lost.eml", &bytes).unwrap();
    running.stop();
    // The snapshots are removed, and the outbox forgets their contents.
    for entry in walk(&house.lab.folder.path().join("repository/snapshots")) {
        std::fs::remove_file(entry).unwrap();
    }
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    std::fs::remove_dir_all(at.join("contents")).unwrap();
    let running = house.open(how);
    let outbox = &*running.outbox();
    outbox.commit().unwrap();
    let State::Failed { reason } = settled(outbox, "original/lost.eml") else { panic!("it was restored") };
    assert!(reason.contains("no snapshot holds"), "{reason}");
    outbox.withdraw(b"original/lost.eml").unwrap();
    assert_eq!(names(outbox, "original"), Vec::<String>::new());
    assert!(names(outbox, "jobs").is_empty(), "nothing is told of what was taken back");
}
