//! Drops files into a mount, with the real program, ordinary tools and a simulated organisation.

use crate::common;
use crate::exact;

use crate::laboratory::nothing_was_sent;
use common::{Lab, Mount, PATIENCE, eventually, fails, no_fuse, quiet, run, text, tool, walk, write};
use exact::exact;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use strongroom_simulator::{
    Faults, FlagStatus, NewMessage, Options, Organisation, Simulator, Tenant, TrueFolder, TrueMessage,
};

/// Closed files do not rest before they are restored.
const AT_ONCE: &str = "[restore]\ndelay_seconds = 0\n";

/// An organisation with Alice and Bob that is backed up, and the program with a configuration for it.
struct Office {
    simulator: Simulator,
    tenant: Arc<Tenant>,
    lab: Lab,
    alice: String,
    bob: String,
}

impl Office {
    fn new(messages: usize) -> Self {
        Self::with(messages, "", AT_ONCE)
    }

    fn with(messages: usize, of_tenant: &str, more: &str) -> Self {
        let organisation = Organisation { users: 2, messages, ..Organisation::default() };
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
        let tenant = simulator.tenant();
        let [alice, bob] = [0, 1].map(|number| tenant.users()[number].principal_name());
        let message = NewMessage {
            mime: mail("Canary budget"),
            received: Some(1_793_600_000),
            flag: FlagStatus::Flagged,
            categories: vec!["Red category".to_owned()],
            ..NewMessage::default()
        };
        tenant.add_message(&alice, "inbox", message).unwrap();
        let lab = Lab::new();
        write(&lab.path("secret"), simulator.client_secret());
        fs::set_permissions(lab.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let configuration = format!(
            "[tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = \"{}\" }}\n{of_tenant}\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n[sets.everyone]\ntenant = \"contoso\"\n{more}",
            simulator.tenant_id(),
            simulator.client_id(),
            lab.path("secret").display(),
            url = simulator.url(),
        );
        write(&lab.path("config/strongroom/strongroom.toml"), configuration);
        lab.json(args!["backup", "--set", "everyone"]);
        Self { tenant, alice, bob, simulator, lab }
    }

    /// Returns Alice's inbox in the newest snapshot.
    fn snapshot_inbox(&self, mount: &Mount) -> PathBuf {
        mount.path(format!("latest/Users/{}/Outlook/Inbox", self.alice))
    }

    fn bobs(&self, mount: &Mount, folder: &str) -> PathBuf {
        mount.path(format!("restore/contoso/Users/{}/Outlook/{folder}", self.bob))
    }

    /// Returns the messages of a folder.
    fn messages(&self, user: &str, folder: &[&str]) -> Vec<TrueMessage> {
        let folders = self.tenant.true_folders(user).unwrap();
        // The inbox has another name in a mailbox that is not English.
        let is_it = |one: &&TrueFolder| match folder {
            ["Inbox"] => one.well_known.as_deref() == Some("inbox"),
            path => one.path == *path,
        };
        let Some(folder) = folders.iter().find(is_it) else { return Vec::new() };
        self.tenant.true_messages(user).unwrap().filter(|message| message.folder == folder.id).collect()
    }

    /// Returns how many times each subject occurs in a folder.
    fn subjects(&self, user: &str, folder: &[&str]) -> BTreeMap<String, usize> {
        let mut subjects = BTreeMap::new();
        for message in self.messages(user, folder) {
            *subjects.entry(message.properties["subject"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        subjects
    }

    /// Fails if a log or the outbox contains a name, a subject, an address or text of a file.
    fn nothing_is_told(&self) {
        walk(&self.lab.state(), &mut |path, stat| {
            if !stat.is_file() || path.extension().is_some_and(|extension| extension == "sst") {
                return;
            }
            // RocksDB may have moved the file in the meantime.
            let Ok(bytes) = fs::read(path) else { return };
            for secret in ["Canary", "anary budget", "My own", "@example.com", "own.eml"] {
                let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!is_there, "{secret} in {}", path.display());
            }
        });
    }
}

fn mail(subject: &str) -> Vec<u8> {
    let id = blake3::hash(subject.as_bytes()).to_hex();
    format!(
        "Received: from mx.example.com by contoso.com; Mon, 2 Nov 2026 09:30:07 +0000\r\nFrom: Bob <bob@example.com>\r\n\
         To: a@contoso.com\r\nSubject: {subject}\r\nDate: Mon, 2 Nov 2026 09:30:00 +0000\r\nMessage-ID: <{id}@example.com>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nThe text of {subject}\r\n"
    )
    .into_bytes()
}

fn canary(folder: &Path) -> PathBuf {
    let names = common::names(folder);
    folder.join(names.iter().find(|name| name.contains("Canary")).expect("the canary"))
}

fn state(path: &Path) -> String {
    let mut value = [0; 500];
    match rustix::fs::getxattr(path, "user.strongroom.state", &mut value) {
        Ok(len) => text(&value[..len]),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

#[track_caller]
fn restored(path: &Path) {
    eventually(&format!("{} is restored", path.display()), PATIENCE, || {
        let state = state(path);
        assert!(!state.starts_with("failed"), "{}: {state}", path.display());
        state == "done"
    });
}

/// Returns the files below a folder of `restore/`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(folder, &mut |path, stat| files.extend(stat.is_file().then(|| path.to_owned())));
    files
}

#[track_caller]
fn all_restored(folder: &Path) -> usize {
    let files = files(folder);
    files.iter().for_each(|path| restored(path));
    files.len()
}

/// Runs a command that must fail, and returns its output.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(!output.status.success(), "{command:?}");
    text(&output.stderr)
}

#[test]
fn a_mail_is_copied_to_another_account_and_back_to_where_it_came_from() {
    if no_fuse() {
        return;
    }
    let office = Office::new(10);
    let mount = office.lab.mount(&["--restore"]);
    let from = canary(&office.snapshot_inbox(&mount));
    let to = office.bobs(&mount, "Inbox");
    assert_eq!(common::names(mount.path("restore")), ["contoso", "jobs", "original"]);
    tool("cp", args![&from, &to]);
    restored(&to.join(from.file_name().unwrap()));
    let lost = office.messages(&office.alice, &["Inbox"]);
    let lost = lost.iter().find(|message| message.properties["subject"] == "Canary budget").unwrap();
    let found = office.messages(&office.bob, &["Inbox"]);
    let found: Vec<_> = found.iter().filter(|message| message.properties["subject"] == "Canary budget").collect();
    assert_eq!(found.len(), 1);
    for name in ["isRead", "flag", "categories", "receivedDateTime", "sentDateTime", "isDraft", "internetMessageId"] {
        assert_eq!(lost.properties[name], found[0].properties[name], "{name}");
    }
    office.tenant.delete_message(&office.alice, &lost.id).unwrap();
    tool("cp", args!["-p", &from, mount.path("restore/original")]);
    restored(&mount.path("restore/original").join(from.file_name().unwrap()));
    assert_eq!(office.subjects(&office.alice, &["Inbox"])["Canary budget"], 1);
    // Items in an account are neither overwritten nor deleted.
    let dropped = to.join(from.file_name().unwrap());
    write(&office.lab.path("other.eml"), mail("My own"));
    for command in [
        Command::new("cp").args(args![office.lab.path("other.eml"), &dropped]),
        Command::new("rm").args(args!["-f", &dropped]),
        Command::new("rmdir").arg(&to),
        Command::new("mv").args(args![&to, office.bobs(&mount, "Elsewhere")]),
    ] {
        let said = refused(command);
        assert!(said.contains("not permitted") || said.contains("not empty"), "{said}");
    }
    // A restored file is still listed, but its bytes are not kept.
    let is_gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    eventually("its bytes are gone", PATIENCE, || fs::read(&dropped).is_err_and(is_gone));
    assert!(common::names(&to).iter().any(|name| from.file_name().unwrap() == name.as_str()));
    let [report] = &common::names(mount.path("restore/jobs"))[..] else { panic!("one job") };
    let report = fs::read_to_string(mount.path("restore/jobs").join(report)).unwrap();
    assert!(report.contains("2 restored"), "{report}");
    let jobs = office.lab.json(args!["restore", "jobs"]);
    assert_eq!(jobs[0]["files"].as_array().map(Vec::len), Some(2), "{jobs}");
    mount.unmount();
    nothing_was_sent(&office.simulator);
    office.nothing_is_told();
}

#[test]
fn whole_folders_are_copied_with_the_tools_that_people_use_and_each_mail_arrives_once() {
    if no_fuse() {
        return;
    }
    let office = Office::new(30);
    let mount = office.lab.mount(&["--restore"]);
    let inbox = office.snapshot_inbox(&mount);
    let expected = office.subjects(&office.alice, &["Inbox"]);
    let count = files(&inbox).len();
    let outlook = office.bobs(&mount, "");
    let at = |name: &str| outlook.join(name);
    // To another file system and back, as on a USB stick.
    let stick = office.lab.path("stick");
    tool("cp", args!["-r", &inbox, &stick]);
    tool("cp", args!["-r", &inbox, at("By cp")]);
    tool("cp", args!["-rT", &inbox, at("By cp")]);
    // Half of the files are there already.
    tool("mkdir", args![at("By rsync")]);
    for name in common::names(&stick).iter().step_by(2) {
        tool("cp", args!["-r", stick.join(name), at("By rsync")]);
    }
    tool("rsync", args!["-a", stick.join(""), at("By rsync")]);
    tool("rsync", args!["-a", "--ignore-times", stick.join(""), at("By rsync")]);
    tool("mkdir", args![at("By tar"), at("By mv")]);
    tool("tar", args!["-cf", office.lab.path("stick.tar"), "-C", &stick, "."]);
    // tar sets times and modes afterwards, also of folders.
    tool("tar", args!["-xf", office.lab.path("stick.tar"), "--no-overwrite-dir", "-C", at("By tar")]);
    let moved = office.lab.path("moved");
    tool("cp", args!["-r", &stick, &moved]);
    quiet(Command::new("sh").args(["-c", "mv \"$0\"/* \"$1\""]).arg(&moved).arg(at("By mv")));
    assert!(common::names(&moved).is_empty());
    for tool in ["By cp", "By rsync", "By tar", "By mv"] {
        assert_eq!(all_restored(&at(tool)), count, "{tool}");
        assert_eq!(office.subjects(&office.bob, &[tool]), expected, "{tool}");
    }
    nothing_was_sent(&office.simulator);
}

#[test]
fn mails_of_ones_own_are_imported_and_what_is_no_mail_is_refused_by_close() {
    if no_fuse() {
        return;
    }
    let office = Office::new(3);
    let mount = office.lab.mount(&["--restore"]);
    let to = office.bobs(&mount, "Inbox");
    let own = office.lab.path("own.eml");
    write(&own, mail("My own"));
    tool("cp", args![&own, &to]);
    restored(&to.join("own.eml"));
    assert_eq!(office.subjects(&office.bob, &["Inbox"])["My own"], 1);
    let large = office.lab.path("large.eml");
    let mut bytes = mail("Large");
    bytes.truncate(bytes.len() - 2);
    let part = "x".repeat(76) + "\r\n";
    bytes.extend(part.repeat(5_000_000 / part.len()).as_bytes());
    write(&large, bytes);
    let (text, calendar) = (office.lab.path("a.txt"), office.lab.path("a.ics"));
    write(&text, "Only text\n");
    write(&calendar, "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n");
    for no in [&text, &calendar] {
        let said = refused(Command::new("cp").arg(no).arg(&to));
        assert!(said.contains("Invalid argument"), "{said}");
        assert!(!to.join(no.file_name().unwrap()).exists(), "it is gone");
    }
    let said = refused(Command::new("cp").arg(&own).arg(mount.path("restore/original")));
    assert!(said.contains("No such device or address"), "{said}");
    tool("cp", args![&large, &to]);
    let path = to.join("large.eml");
    eventually("it is known that it cannot be", PATIENCE, || state(&path).starts_with("failed"));
    assert!(state(&path).contains("4 MB"), "{}", state(&path));
    // `restore jobs` shows the failure, and the file can be removed.
    let shown = office.lab.run(args!["restore", "jobs"], 0);
    assert!(common::text(&shown.stdout).contains("1 failed"), "{}", common::text(&shown.stdout));
    tool("rm", args![&path]);
    nothing_was_sent(&office.simulator);
    mount.unmount();
    office.nothing_is_told();
}

#[test]
fn dropped_files_wait_for_a_commit() {
    if no_fuse() {
        return;
    }
    let office = Office::with(3, "", "[restore]\ncommit = \"ask\"\n");
    let own = |n: usize| {
        let path = office.lab.path(format!("own {n}.eml"));
        write(&path, mail(&format!("My own {n}")));
        path
    };
    let mount = office.lab.mount(&["--restore"]);
    let to = office.bobs(&mount, "Inbox");
    let put = |n: usize| tool("cp", args![own(n), &to]);
    let at = |n: usize| to.join(format!("own {n}.eml"));
    put(1);
    put(2);
    assert_eq!(state(&at(1)), "waiting for commit");
    tool("rm", args![at(2)]);
    tool("touch", args![mount.path("restore/COMMIT")]);
    restored(&at(1));
    put(3);
    let told = office.lab.json(args!["restore", "commit"]);
    assert_eq!(told["told_mount"], true);
    restored(&at(3));
    put(4);
    // Only one mount with `--restore` at a time.
    let other = office.lab.new_mount_point();
    fails(&mut office.lab.command(args!["mount", &other, "--restore", "--foreground"]), 11);
    mount.unmount();
    let done = office.lab.json(args!["restore", "commit"]);
    assert_eq!((&done["restored"], &done["failed"]), (&Value::from(1), &Value::from(0)), "{done}");
    let subjects = office.subjects(&office.bob, &["Inbox"]);
    let there: BTreeSet<_> = subjects.keys().filter(|subject| subject.starts_with("My own")).collect();
    assert_eq!(there.len(), 3, "{there:?}");
    let again = office.lab.json(args!["restore", "commit"]);
    assert_eq!(again["restored"], 0);
}

#[test]
fn a_synchronous_close_waits_and_reports_a_refusal() {
    if no_fuse() {
        return;
    }
    let office = Office::new(3);
    let own = office.lab.path("own.eml");
    write(&own, mail("My own"));
    let mount = office.lab.mount(&["--restore", "--restore-sync"]);
    let to = office.bobs(&mount, "Inbox");
    tool("cp", args![&own, &to]);
    assert_eq!(office.subjects(&office.bob, &["Inbox"])["My own"], 1);
    office.simulator.set_permissions(["User.Read.All", "Mail.Read", "Organization.Read.All"]);
    office.simulator.expire_tokens();
    let other = office.lab.path("other.eml");
    write(&other, mail("Another"));
    let said = refused(Command::new("cp").arg(&other).arg(&to));
    assert!(said.contains("Permission denied"), "{said}");
    mount.unmount();
    let closed = Office::with(3, "read_only = true\n", "");
    let mount = closed.lab.mount(&["--restore"]);
    let said = refused(Command::new("cp").arg(&own).arg(closed.bobs(&mount, "Inbox")));
    assert!(said.contains("Permission denied"), "{said}");
    let to = format!("contoso:Users/{}", closed.bob);
    fails(&mut closed.lab.command(args!["restore", "latest", "--to", to]), 2);
    mount.unmount();
    let bare = Lab::new();
    let at = bare.new_mount_point();
    fails(&mut bare.command(args!["mount", &at, "--restore"]), 2);
}

#[test]
fn a_cancelled_copy_restores_nothing() {
    if no_fuse() {
        return;
    }
    let office = Office::with(3, "", "[restore]\ndelay_seconds = 3600\n");
    let mount = office.lab.mount(&["--restore"]);
    let to = office.bobs(&mount, "Inbox");
    let at = |name: &str| to.join(name);
    for name in ["regretted.eml", "own.eml"] {
        write(&office.lab.path(name), mail(&format!("My {name}")));
        tool("cp", args!["-p", office.lab.path(name), at(name)]);
        assert_eq!(state(&at(name)), "queued");
    }
    tool("rm", args![at("regretted.eml")]);
    assert!(!at("regretted.eml").exists());
    // Some tools set the time of a file after they have closed it. A listing shows the new time.
    tool("touch", args!["-d", "2001-01-01 00:00 UTC", at("own.eml")]);
    let listed = tool("ls", args!["-l", "--time-style=+%s", &to]);
    assert!(listed.contains(" 978307200 own.eml"), "{listed}");
    // Somebody who does not want to wait commits.
    tool("touch", args![mount.path("restore/COMMIT")]);
    restored(&at("own.eml"));
    let subjects = office.subjects(&office.bob, &["Inbox"]);
    assert_eq!((subjects.get("My own.eml"), subjects.get("My regretted.eml")), (Some(&1), None));
    nothing_was_sent(&office.simulator);
}

#[test]
fn with_full_fidelity_a_mail_goes_back_to_the_last_bit() {
    if no_fuse() {
        return;
    }
    let office = Office::with(12, "", &format!("fidelity = \"full\"\n{AT_ONCE}"));
    exact::add_what_json_loses(&office.tenant, &office.alice);
    office.lab.json(args!["backup", "--set", "everyone"]);
    let before = exact(&office.tenant, &office.alice);
    let of_inbox = &before["inbox"];
    assert!(of_inbox.iter().any(|message| message.contains("voted")), "there is something to lose");
    for message in office.messages(&office.alice, &["Inbox"]) {
        office.tenant.delete_message(&office.alice, &message.id).unwrap();
    }
    let mount = office.lab.mount(&["--restore"]);
    let (inbox, back) = (office.snapshot_inbox(&mount), format!("restore/original/Users/{}/Outlook", office.alice));
    tool("mkdir", args!["-p", mount.path(&back)]);
    tool("cp", args!["-r", &inbox, mount.path(&back)]);
    assert_eq!(all_restored(&mount.path(&back)), files(&inbox).len());
    let after = exact(&office.tenant, &office.alice);
    assert!(before["inbox"] == after["inbox"], "{:#?}\n\nbecame\n\n{:#?}", before["inbox"], after["inbox"]);
    // The files go to another user, too, and only once, however many times they are copied.
    for _ in 0..2 {
        tool("cp", args!["-rT", &inbox, office.bobs(&mount, "From Alice")]);
    }
    all_restored(&office.bobs(&mount, "From Alice"));
    let bobs = exact(&office.tenant, &office.bob);
    let (_, there) = bobs.iter().find(|(folder, _)| folder.ends_with("From Alice")).unwrap();
    assert!(before["inbox"] == *there, "{:#?}\n\nbecame\n\n{there:#?}", before["inbox"]);
    mount.unmount();
    nothing_was_sent(&office.simulator);
}

#[test]
fn killed_again_and_again_every_file_that_was_closed_is_restored_once() {
    if no_fuse() {
        return;
    }
    let office = Office::new(20);
    office.simulator.set_faults(Faults::bad_day(3, 3));
    let folder = office.lab.dir("own");
    office.tenant.add_folder(&office.bob, "msgfolderroot", "Saved").unwrap();
    let mut closed = BTreeSet::new();
    let mut tried = BTreeSet::new();
    let mut number = 0;
    for requests in [0, 30, 45, 60, 80, 100] {
        let mut mount = office.lab.mount_foreground(&["--restore"]);
        office.simulator.reset_counters();
        let to = office.bobs(&mount, "Saved");
        for _ in 0..6 {
            number += 1;
            let subject = format!("My own {number}");
            let path = folder.join(format!("{number}.eml"));
            write(&path, mail(&subject));
            tried.insert(subject.clone());
            let copied = Command::new("cp").arg(&path).arg(&to).output().unwrap();
            if copied.status.success() {
                closed.insert(subject);
            }
        }
        let left = || office.simulator.counters().requests >= requests;
        let is_idle = || files(&to).iter().all(|path| state(path) == "done");
        eventually("so many requests", PATIENCE, || left() || is_idle());
        mount.signal(rustix::process::Signal::KILL);
        mount.wait();
    }
    assert_eq!(closed, tried, "nothing was wrong when they were closed");
    // The next mount goes on. The last files need no mount: `restore commit` restores them.
    let mount = office.lab.mount(&["--restore"]);
    eventually("it has gone on", PATIENCE, || !office.subjects(&office.bob, &["Saved"]).is_empty());
    mount.unmount();
    office.simulator.set_faults(Faults::default());
    let done = office.lab.json(args!["restore", "commit"]);
    assert_eq!((&done["failed"], &done["left"]), (&Value::from(0), &Value::from(0)), "{done}");
    let subjects = office.subjects(&office.bob, &["Saved"]);
    assert_eq!(subjects.keys().cloned().collect::<BTreeSet<_>>(), closed);
    assert!(subjects.values().all(|count| *count == 1), "{subjects:?}");
    nothing_was_sent(&office.simulator);
    office.nothing_is_told();
}

#[test]
fn files_left_at_unmount_are_reported_and_restored_by_the_next_mount() {
    if no_fuse() {
        return;
    }
    let office = Office::new(3);
    let mut mount = office.lab.mount_foreground(&["--restore"]);
    let to = office.bobs(&mount, "Inbox");
    assert!(!common::names(&to).iter().any(|name| name == "own.eml"));
    let rule = strongroom_simulator::faults::Rule {
        method: Some("POST".to_owned()),
        contains: "/messages".to_owned(),
        skip: 0,
        times: None,
        fault: strongroom_simulator::Fault::Unavailable,
    };
    office.simulator.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    let own = office.lab.path("own.eml");
    write(&own, mail("My own"));
    tool("cp", args![&own, &to]);
    eventually("it is on its way", PATIENCE, || state(&to.join("own.eml")) == "uploading");
    mount.signal(rustix::process::Signal::INT);
    let (exit, said) = mount.wait();
    assert_eq!(exit, Some(0));
    assert!(said.contains("1 files are not restored yet"), "{said}");
    office.simulator.set_faults(Faults::default());
    let mount = office.lab.mount(&["--restore"]);
    restored(&office.bobs(&mount, "Inbox/own.eml"));
    assert_eq!(office.subjects(&office.bob, &["Inbox"])["My own"], 1);
    run(&mut office.lab.command(args!["snapshots"]), 0);
}

/// docs/cli.md: without `--log-content` no log names people, folders or subjects, at any level, not even a log line of
/// a library.
#[test]
fn the_log_of_a_mount_holds_no_people_or_mail() {
    if no_fuse() {
        return;
    }
    let office = Office::new(10);
    let inbox = |mount: &Mount| office.snapshot_inbox(mount);
    let log_path = || {
        let mut found = None;
        walk(&office.lab.state(), &mut |path, _| {
            found = path.ends_with("mount.log").then(|| path.to_owned()).or(found.take())
        });
        found.expect("a log")
    };
    let mut secrets = vec!["canary".to_owned(), "bob".to_owned(), "inbox".to_owned(), "users".to_owned()];
    secrets.extend([&office.alice, &office.bob].map(|name| name.to_lowercase()));
    for (level, variable) in [("-vv", None), ("-vvv", None), ("-vvv", Some("trace")), ("-q", Some("fuser=trace,trace"))]
    {
        let at = office.lab.new_mount_point();
        let mut command = office.lab.command(args!["mount", &at, "--restore", "--xattr", level]);
        command.envs(variable.map(|filter| ("STRONGROOM_LOG", filter)));
        run(&mut command, 0);
        let mount = Mount::at(&at);
        let mail = canary(&inbox(&mount));
        assert!(text(&fs::read(&mail).unwrap()).contains("Canary budget"));
        assert!(!inbox(&mount).join("Canary that is not there.eml").exists());
        assert!(rustix::fs::getxattr(&mail, "user.strongroom.subject", &mut [0u8; 500]).is_ok());
        let to = office.bobs(&mount, "Inbox/Canary folder");
        fs::create_dir_all(&to).unwrap();
        tool("cp", args![&mail, &to]);
        all_restored(&to);
        mount.unmount();
        let log = text(&fs::read(log_path()).unwrap()).to_lowercase();
        assert!(log.lines().count() > 5, "{level}: the log says something: {log}");
        for secret in &secrets {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "`{secret}` is in the log with {level} and {variable:?}");
        }
        fs::remove_file(log_path()).unwrap();
    }
    nothing_was_sent(&office.simulator);
}
