//! `strongroom backup --set` and the commands after it, with the real program, a simulated organisation, and real
//! mounts.

use crate::common;

use common::{Lab, PATIENCE, eventually, no_fuse, run, text, walk, write};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use strongroom::content::names::safe_name;
use strongroom_simulator::{Faults, NewMessage, Options, Organisation, Simulator, Unreadable};

/// An organisation, and a laboratory with a repository whose configuration has the set `everyone`.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new(organisation: Organisation) -> Office {
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
        let office = Office { simulator, lab: Lab::new() };
        let (url, tenant) = (office.simulator.url(), office.simulator.tenant_id());
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{tenant}\"\nclient_id = \"{}\"\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\nclient_secret = {{ env = \"CONTOSO_SECRET\" }}\n\
             [sets.everyone]\ntenant = \"contoso\"\n",
            office.simulator.client_id()
        );
        write(&office.lab.path("strongroom.toml"), text);
        office
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        command
    }

    /// Backs up the set and returns the report.
    #[track_caller]
    fn back_up(&self, exit: i32) -> Value {
        let output = run(&mut self.command(&["backup", "--set", "everyone", "--json"]), exit);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }

    /// Returns the content of every mail folder, by its path in a snapshot: the hashes of the messages' bytes.
    fn truth(&self) -> Vec<(PathBuf, BTreeSet<String>)> {
        let tenant = self.simulator.tenant();
        let mut folders = Vec::new();
        for user in tenant.users() {
            let name = user.principal_name();
            let Ok(truth) = tenant.truth(&name) else { continue };
            let hidden: Vec<_> = truth.folders.iter().filter(|f| f.hidden || f.search).map(|f| &f.path).collect();
            let shown = truth.folders.iter().filter(|folder| {
                folder.visible
                    && !folder.path.is_empty()
                    && !hidden.iter().any(|hidden| folder.path.starts_with(hidden))
            });
            for folder in shown {
                let mails = truth.messages.iter().filter(|message| message.folder == folder.id);
                let mut path = PathBuf::from(format!("Users/{}/Outlook", safe_name(&name.to_lowercase(), "")));
                path.extend(folder.path.iter().map(|name| safe_name(name, "")));
                let mails = mails.map(|message| blake3::hash(&message.mime).to_hex().to_string());
                folders.push((path, mails.collect::<BTreeSet<_>>()));
            }
        }
        folders.retain(|(_, mails)| !mails.is_empty());
        folders
    }

    fn downloads(&self) -> u64 {
        let counts = self.simulator.counters().by_operation;
        counts.iter().filter(|(operation, _)| operation.contains("$value")).map(|(_, count)| count).sum()
    }
}

/// Returns the same for a snapshot that is mounted at `root`.
fn mounted(root: &Path) -> Vec<(PathBuf, BTreeSet<String>)> {
    let mut folders: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    walk(root, &mut |path, stat| {
        if stat.is_file() {
            let folder = path.parent().unwrap().strip_prefix(root).unwrap().to_owned();
            let hash = blake3::hash(&fs::read(path).unwrap()).to_hex().to_string();
            folders.entry(folder).or_default().insert(hash);
        }
    });
    folders.into_iter().collect()
}

/// Compares only the contents of folders. The names differ if a snapshot cannot keep them, or if several folders share
/// one.
#[track_caller]
fn assert_same(truth: &[(PathBuf, BTreeSet<String>)], found: &[(PathBuf, BTreeSet<String>)]) {
    let contents = |folders: &[(PathBuf, BTreeSet<String>)]| folders.iter().map(|(_, mails)| mails.clone()).collect();
    let (expected, there): (BTreeSet<_>, BTreeSet<_>) = (contents(truth), contents(found));
    let lacking = truth.iter().filter(|(_, mails)| !there.contains(mails)).collect::<Vec<_>>();
    let odd = found.iter().filter(|(_, mails)| !expected.contains(mails)).collect::<Vec<_>>();
    assert!(lacking.is_empty() && odd.is_empty(), "true but not found: {lacking:#?}\nfound but not true: {odd:#?}");
    assert_eq!(truth.len(), found.len());
}

#[test]
fn real_mail_and_names_that_hurt_are_mounted_byte_for_byte() {
    if no_fuse() {
        return;
    }
    let corpus = std::env::var_os("STRONGROOM_CORPUS").map(PathBuf::from);
    if corpus.is_none() {
        eprintln!("STRONGROOM_CORPUS is not set: generated mail stands in for the corpus");
    }
    let office = Office::new(Organisation { users: 2, messages: 30, hurting: true, corpus, ..Organisation::default() });
    let report = office.back_up(0);
    let ledger = &report["ledger"];
    assert_eq!(ledger["enumerated"], ledger["stored"]);
    let mount = office.lab.mount(&["--snapshot", "latest"]);
    let (truth, found) = (office.truth(), mounted(&mount.path("")));
    assert_same(&truth, &found);
    let plain = |folders: &[(PathBuf, BTreeSet<String>)]| -> BTreeMap<PathBuf, BTreeSet<String>> {
        let inbox = folders.iter().filter(|(path, _)| path.ends_with("Inbox") || path.ends_with("Posteingang"));
        inbox.cloned().collect()
    };
    assert_eq!(plain(&truth), plain(&found));
    assert!(!plain(&truth).is_empty());
    mount.unmount();
    office.lab.run(["check", "--read-data"], 0);
}

#[test]
fn many_mailboxes_with_large_messages_do_not_wait_for_each_other() {
    let office = Office::new(Organisation { users: 20, messages: 20, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    for user in tenant.users() {
        for number in 0..4 {
            let mut mime = format!("Subject: large {number}\r\n\r\n").into_bytes();
            mime.resize((1 << 20) * (number + 1) * 2, b'x');
            tenant.add_message(&user.principal_name(), "inbox", NewMessage { mime, ..NewMessage::default() }).unwrap();
        }
    }
    let report = office.back_up(0);
    assert_eq!(report["ledger"]["enumerated"], report["ledger"]["stored"]);
}

#[test]
fn unreadable_messages_are_listed_and_stored_once_they_can_be_read() {
    let office = Office::new(Organisation { users: 1, messages: 30, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    let ids: Vec<_> = tenant.true_messages(&user).unwrap().map(|message| message.id).take(2).collect();
    let corrupt = |why| ids.iter().for_each(|id| tenant.mark_unreadable(&user, id, why).unwrap());
    // Neither the message nor its properties can be read, so it cannot be built from them either.
    corrupt(Some(Unreadable::CorruptData));
    let report = office.back_up(3);
    assert_eq!(report["status"], "partial");
    assert_eq!(report["failures"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["ledger"]["failed"], 2);
    let paths: Vec<_> = report["failures"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    let listing = text(&office.lab.run(["ls", "-R", "latest"], 0).stdout);
    assert!(listing.contains("_report.txt"), "{listing}");
    // The unreadable messages do not keep anything else from being backed up, in any run.
    let mime = b"Subject: later\r\n\r\nlater\r\n".to_vec();
    tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).unwrap();
    let again = office.back_up(3);
    assert_eq!((&again["ledger"]["failed"], &again["ledger"]["stored"]), (&2.into(), &1.into()), "{again}");
    let folder = Path::new(paths[0]).parent().unwrap().to_str().unwrap();
    let said = text(&office.lab.run(["cat", &format!("latest:{folder}/_report.txt")], 0).stdout);
    assert!(said.contains(Path::new(paths[0]).file_name().unwrap().to_str().unwrap()), "{said}");

    corrupt(None);
    let report = office.back_up(0);
    assert_eq!(report["ledger"]["stored"], 2, "{report}");
    let listing = text(&office.lab.run(["ls", "-R", "latest"], 0).stdout);
    assert!(!listing.contains("_report.txt"), "{listing}");
}

#[test]
fn a_message_that_the_service_cannot_give_is_built_from_its_parts_and_marked() {
    let office = Office::new(Organisation { users: 1, messages: 5, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    let mime = b"From: a@contoso.com\r\nSubject: corrupt\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n\
        <p>the body <img src=\"cid:picture-1\"></p>\r\n--b\r\nContent-Type: image/png; name=dot.png\r\n\
        Content-Disposition: inline; filename=dot.png\r\nContent-ID: <picture-1>\r\n\
        Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--b--\r\n"
        .to_vec();
    let message = NewMessage { mime, ..NewMessage::default() };
    let id = tenant.add_message(&user, "inbox", message).unwrap();
    tenant.mark_unreadable(&user, &id, Some(Unreadable::NoMime)).unwrap();
    let report = office.back_up(0);
    assert!(report["warnings"][0].as_str().unwrap().contains("built from their parts"), "{report}");
    let listing = text(&office.lab.run(["ls", "-R", "latest"], 0).stdout);
    let line = listing.lines().find(|line| line.contains("corrupt")).expect("it stands in the snapshot");
    let path = &line[line.find("Users/").expect("a path")..];
    let mail = text(&office.lab.run(["cat", &format!("latest:{path}")], 0).stdout);
    assert!(mail.starts_with("X-Strongroom-Reconstructed: yes") && mail.contains("the body"), "{mail}");
    assert!(mail.contains("Content-ID: <picture-1>") && mail.contains("iVBORw0KGgo="), "{mail}");
}

#[test]
fn killed_at_any_moment_the_next_run_ends_equal() {
    let office = Office::new(Organisation { users: 2, messages: 150, ..Organisation::default() });
    for requests in [3, 40, 90, 180, 260] {
        office.simulator.reset_counters();
        let mut command = office.command(&["backup", "--set", "everyone", "--quiet"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("so many requests", PATIENCE, || {
            office.simulator.counters().requests >= requests || child.try_wait().unwrap().is_some()
        });
        let _ = child.kill();
        child.wait().unwrap();
    }
    office.simulator.reset_counters();
    office.back_up(0);
    let (fresh, downloads) =
        (office.truth().iter().map(|(_, mails)| mails.len()).sum::<usize>() as u64, office.downloads());
    assert!(downloads < fresh, "{downloads} downloads although {fresh} messages were partly stored");
    if !no_fuse() {
        let mount = office.lab.mount(&["--snapshot", "latest"]);
        assert_same(&office.truth(), &mounted(&mount.path("")));
    }
    office.lab.run(["check", "--read-data"], 0);
}

#[test]
fn a_sign_in_that_is_revoked_ends_the_run_and_keeps_what_was_done() {
    let office = Office::new(Organisation { users: 1, messages: 40, ..Organisation::default() });
    let client_secret = "hunter2-is-not-it";
    let mut command = office.command(&["backup", "--set", "everyone"]);
    let said = common::fails(command.env("CONTOSO_SECRET", client_secret), 1);
    assert!(!said.contains("hunter2"), "no secret in an error: {said}");
    assert!(said.contains("secret"), "says what to look at: {said}");
    assert_eq!(text(&office.lab.run(["snapshots", "--json"], 0).stdout).trim(), "[]");
    office.back_up(0);
}

#[test]
fn a_mailbox_that_loses_most_messages_gives_a_warning() {
    let office = Office::new(Organisation { users: 1, messages: 80, ..Organisation::default() });
    let first = office.back_up(0);
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    let ids: Vec<_> = tenant.true_messages(&user).unwrap().map(|message| message.id).collect();
    for id in &ids[..70] {
        tenant.delete_message(&user, id).unwrap();
    }
    let output = run(&mut office.command(&["backup", "--set", "everyone"]), 0);
    assert!(text(&output.stderr).contains("warning:") && text(&output.stderr).contains("lost most"), "{output:?}");
    let snapshots = office.lab.json(["snapshots"]);
    assert_eq!(snapshots[0]["items"], first["ledger"]["enumerated"], "{snapshots}");
}

#[test]
fn the_log_holds_no_people_mail_or_secrets() {
    let office = Office::new(Organisation { users: 2, messages: 20, every_kind: true, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    let mime = b"From: Canary Bird <canary@aviary.example>\r\nSubject: Canarysubject\r\n\r\nCanarybody\r\n".to_vec();
    tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).unwrap();
    office.simulator.set_faults(Faults::bad_day(3, 10));
    let mut command = office.command(&["backup", "--set", "everyone", "-vvv"]);
    let output = command.env("STRONGROOM_LOG", "trace").output().unwrap();
    // Only the lines of the log. The list of failures names them, as it must.
    let log: String = text(&output.stderr)
        .lines()
        .filter(|line| {
            line.contains("TRACE") || line.contains("DEBUG") || line.contains("INFO") || line.contains("WARN")
        })
        .collect::<Vec<_>>()
        .join("\n");
    assert!(log.lines().count() > 100, "the log says something: {}", text(&output.stderr));
    let mut secrets = vec!["canary".to_owned(), office.simulator.client_secret().to_lowercase(), "eyj".to_owned()];
    for user in tenant.users() {
        secrets.push(user.principal_name().to_lowercase());
        let Ok(messages) = tenant.true_messages(&user.principal_name()) else { continue };
        let subjects = messages.filter_map(|m| m.properties["subject"].as_str().map(str::to_lowercase));
        secrets.extend(subjects.filter(|subject| subject.len() > 12));
    }
    let log = log.to_lowercase();
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "`{secret}` is in the log");
    }
    // With `--log-content` the log says more, but no secret and no text of a mail.
    let message = NewMessage { mime: b"Subject: Secondcanary\r\n\r\nCanarybody\r\n".to_vec(), ..NewMessage::default() };
    tenant.add_message(&user, "inbox", message).unwrap();
    let log = office.command(&["backup", "--set", "everyone", "-vv", "--log-content"]).output().unwrap();
    let log = text(&log.stderr).to_lowercase();
    assert!(log.contains("secondcanary") && log.contains(&user.to_lowercase()), "{log}");
    let secret = office.simulator.client_secret().to_lowercase();
    assert!(!log.contains("canarybody") && !log.contains(&secret) && !log.contains("eyj"), "{log}");
}
