//! What is dropped into the outbox, without a mount: recognised, brought to a simulated organisation, and what it holds then.

mod laboratory;

use laboratory::{Laboratory, Shape};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use strongroom::backup::tenant::TenantReport;
use strongroom::entry::Entry;
use strongroom::outbox::{Options, Organisation, RunningOutbox, ask_to_commit, folder, history};
use strongroom::tree::{self, Entries};
use strongroom_mount::{ItemKind, Outbox, OutboxError, State};
use strongroom_simulator::{FlagStatus, Locale, NewMessage, Simulator, Switches, Tenant, TrueMessage, UserSpec};

const PATIENCE: Duration = Duration::from_secs(60);

/// An organisation with a backup, and Alice and Bob in it.
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
    closed: bool,
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
        let organisation = Organisation {
            name: "contoso".to_owned(),
            tenant_id: self.lab.simulator.tenant_id().to_owned(),
            client: self.lab.client(),
            closed: how.closed.then(|| "it is read-only".to_owned()),
        };
        let options = Options {
            folder: folder(&self.lab.folder.path().join("state"), &self.lab.repository),
            waits: how.waits,
            synchronous: how.synchronous,
            sets: HashMap::new(),
        };
        let reader = Arc::new(self.lab.reader());
        RunningOutbox::start(&self.lab.repository, reader, vec![organisation], options).unwrap()
    }

    /// Returns the mails of a folder of the snapshot: names and bytes.
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
    // As a program may write: from behind.
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

/// Waits until it is clear what became of a file.
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
fn restored(outbox: &dyn Outbox, path: &str) {
    assert_eq!(settled(outbox, path), State::Done, "{path}");
}

fn names(outbox: &dyn Outbox, path: &str) -> Vec<String> {
    let items = outbox.list(path.as_bytes()).unwrap();
    let mut names: Vec<_> = items.into_iter().map(|item| String::from_utf8(item.name).unwrap()).collect();
    names.sort();
    names
}

fn nothing_was_sent(simulator: &Simulator) {
    let counts = simulator.counters();
    assert_eq!((counts.mails_sent, counts.invitations_sent), (0, 0));
}

/// Compares what people see of a message.
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
    // Again, under this name and another; and in the life after this one.
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
    // What was restored is a different file for ever.
    assert!(matches!(drop_file(outbox, &path, &mail("Other", "x@y.z")), Err(OutboxError::NotPermitted)));
    assert!(matches!(outbox.withdraw(path.as_bytes()), Err(OutboxError::NotPermitted)));
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn what_was_deleted_goes_back_to_where_it_came_from_and_what_stands_there_stays() {
    let house = House::new(10);
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let (name, bytes) = house.canary();
    let lost = house.called(&house.alice, "Canary budget").remove(0);
    let own = mail("Nobody knows this", "x@y.z");
    let path = format!("original/{name}");
    drop_file(outbox, &path, &bytes).unwrap();
    restored(outbox, &path);
    assert_eq!(house.called(&house.alice, "Canary budget"), std::slice::from_ref(&lost), "it stood there");
    house.tenant.delete_message(&house.alice, &lost.id).unwrap();
    let below = format!("original/Users/{}/Outlook/Inbox/{name}", house.alice);
    for folder in ["original/Users", &format!("original/Users/{}", house.alice)] {
        outbox.make_folder(folder.as_bytes()).unwrap();
    }
    assert!(matches!(drop_file(outbox, &below, &bytes), Err(OutboxError::NotFound)), "its folder is missing");
    for folder in ["Outlook", "Outlook/Inbox"] {
        outbox.make_folder(format!("original/Users/{}/{folder}", house.alice).as_bytes()).unwrap();
    }
    drop_file(outbox, &below, &bytes).unwrap();
    restored(outbox, &below);
    let inbox = lost.folder.clone();
    let back: Vec<_> =
        house.called(&house.alice, "Canary budget").into_iter().filter(|message| message.folder == inbox).collect();
    assert_eq!(back.len(), 1);
    assert_alike(&lost.properties, &back[0].properties);
    assert!(house.called(&house.bob, "Canary budget").is_empty());
    assert!(matches!(drop_file(outbox, "original/own.eml", &own), Err(OutboxError::Unknown { .. })));
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
    for (name, bytes, error) in [
        ("a.txt", &b"Just some text"[..], "NotMail"),
        ("a.eml", b"\x89PNG\r\n\x1a\n", "NotMail"),
        ("a.ics", b"BEGIN:VCALENDAR\r\n", "NotMail"),
        ("a.vcf", b"BEGIN:VCARD\r\n", "NotMail"),
    ] {
        let refused = drop_file(outbox, &format!("{inbox}/{name}"), bytes).unwrap_err();
        assert!(format!("{refused:?}").starts_with(error), "{name}: {refused:?}");
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
fn folders_are_those_of_the_mailbox_and_can_be_made() {
    let house = House::new(3);
    let spec = UserSpec { principal_name: "hans".to_owned(), locale: Locale::German, ..UserSpec::default() };
    house.tenant.add_user(spec);
    let hans = house.tenant.users().last().unwrap().principal_name();
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    assert_eq!(names(outbox, ""), ["contoso", "jobs", "original"]);
    assert_eq!(names(outbox, "contoso"), ["Users"]);
    let users = names(outbox, "contoso/Users");
    assert!(users.contains(&house.alice) && users.contains(&hans), "{users:?}");
    assert_eq!(names(outbox, &format!("contoso/Users/{hans}")), ["Outlook"]);
    let root = format!("contoso/Users/{hans}/Outlook");
    let folders = names(outbox, &root);
    assert!(folders.contains(&"Posteingang".to_owned()), "{folders:?}");
    // Its English name leads there, too.
    let path = format!("{root}/Inbox/own.eml");
    outbox.make_folder(format!("{root}/Inbox").as_bytes()).unwrap();
    drop_file(outbox, &path, &mail("My own", "x@y.z")).unwrap();
    restored(outbox, &path);
    assert_eq!(names(outbox, &root), folders);
    // The folder that sends takes nothing.
    let out = format!("{root}/Postausgang");
    assert!(matches!(outbox.begin(out.as_bytes()).err(), Some(OutboxError::NotPermitted)));
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
    // From another process, as `restore commit` does.
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    assert!(ask_to_commit(&at).unwrap());
    restored(outbox, &path);
    assert_eq!(house.called(&house.bob, "My own").len(), 1);
    assert!(house.called(&house.bob, "Regretted").is_empty());
    let [report] = &names(outbox, "jobs")[..] else { panic!("one job") };
    let text = String::from_utf8(outbox.read(format!("jobs/{report}").as_bytes(), 0, 1 << 20).unwrap()).unwrap();
    assert!(text.contains("1 restored") && text.contains(&format!("done       {path}")), "{text}");
    assert!(outbox.news().contains(&path.into_bytes()));
    assert!(outbox.news().is_empty());
    let jobs = history(&at, &house.lab.repository).unwrap();
    assert_eq!(jobs.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    running.stop();
    assert_eq!(std::fs::read_dir(at.join("staged")).unwrap().count(), 0, "what is restored is not kept");
    // Nothing that was dropped can be read on this machine.
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
    let running = house.open(How { synchronous: true, ..How::default() });
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
    // The next one is refused when it is begun.
    let refused = outbox.begin(inbox.as_bytes()).err();
    assert!(matches!(refused, Some(OutboxError::Denied { .. })), "{refused:?}");
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
        house.lab.simulator.set_faults(strongroom_simulator::Faults::bad_day(seed, 4));
        let running = house.open(How::default());
        for (name, bytes) in lives.next().unwrap_or_default() {
            drop_file(&*running.outbox(), &format!("{to}/{name}"), bytes).unwrap();
            subjects.push(name.clone());
        }
        // In the middle of it.
        running.stop();
    }
    house.lab.simulator.set_faults(strongroom_simulator::Faults::default());
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
    // One is deleted, one comes; the second snapshot lacks the first.
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
    // What stands in two mailboxes needs a path to be told apart.
    let twin = mail("Twin", "x@y.z");
    let refused = drop_file(outbox, "original/Twin.eml", &twin);
    assert!(matches!(refused, Err(OutboxError::Unknown { .. })), "{refused:?}");
    running.stop();
    drop(first);
    // What is known of contents is a cache.
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
