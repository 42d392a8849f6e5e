//! Somebody hostile answers in the service's place. Every run ends, memory and repository stay small, and the next run
//! against the real service is complete.

use crate::common;
use crate::laboratory;

use common::{Lab, PATIENCE, eventually, walk, write};
use laboratory::{Laboratory, Shape, client_of};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use strongroom::backup::tenant::TenantReport;
use strongroom_simulator::{Fault, Faults, Options, Organisation, Simulator};

const ALWAYS: u32 = u32::MAX;

fn laboratory(users: usize) -> Laboratory {
    Laboratory::new(Shape { seed: 5, users, messages: 20, ..Shape::default() })
}

/// Returns the id and the path of the folder of `user` with the most messages.
fn fullest_folder(lab: &Laboratory, user: &str) -> (String, Vec<String>) {
    let truth = lab.simulator.tenant().truth(user).expect("a mailbox");
    let count = |id: &str| truth.messages.iter().filter(|message| message.folder == id).count();
    lab.visible_folders(user).into_iter().max_by_key(|(id, _)| count(id)).expect("a folder")
}

#[track_caller]
fn assert_whole(lab: &Laboratory) -> TenantReport {
    lab.simulator.set_faults(Faults::default());
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert!(report.ledger.adds_up());
    lab.assert_truth(&report);
    report
}

#[test]
fn a_link_to_itself_fails_its_folder_and_no_other() {
    let lab = laboratory(2);
    let user = lab.mailboxes().swap_remove(0);
    let (folder, path) = fullest_folder(&lab, &user);
    let rule = format!("{folder}/messages/delta");
    lab.simulator.set_faults(Faults::default().with_rule(&rule, ALWAYS, Fault::LinkToItself));
    let report = lab.back_up().expect("a backup");
    let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
    assert!(String::from_utf8_lossy(&failure.path).ends_with(path.last().expect("a name")), "{failure:?}");
    assert!(failure.error.contains("a page that was already read"), "{failure:?}");
    assert!(report.ledger.stored > 10, "{:?}", report.ledger);
    assert_whole(&lab);
}

/// If changes cannot be read, for whatever reason, the backup lists everything.
#[test]
fn changes_without_end_and_without_sense_are_found_by_a_listing() {
    let lab = laboratory(1);
    let user = lab.mailboxes().swap_remove(0);
    assert_eq!(lab.back_up().expect("a backup").failures, []);
    let (folder, _) = fullest_folder(&lab, &user);
    let rule = format!("{folder}')/messages/delta?$deltatoken=");
    for fault in [Fault::LinkToItself, Fault::EndlessRemovals] {
        let gone = lab.simulator.tenant().truth(&user).expect("a mailbox").messages;
        let gone = gone.into_iter().find(|message| message.folder == folder).expect("a message");
        lab.simulator.tenant().delete_message(&user, &gone.id).expect("it was there");
        lab.simulator.set_faults(Faults::default().with_rule(&rule, ALWAYS, fault));
        let report = lab.back_up().expect("a backup");
        assert!(lab.simulator.counters().faults > 0, "{fault:?}");
        assert_eq!(report.failures, [], "{fault:?}");
        lab.assert_truth(&report);
        lab.simulator.reset_counters();
    }
    assert_whole(&lab);
}

/// The link is not kept. Otherwise it would fail in each later run.
#[test]
fn regression_a_link_to_another_host_failed_its_folder_for_ever() {
    let lab = laboratory(1);
    let user = lab.mailboxes().swap_remove(0);
    let faults = Faults::default().with_rule("messages/delta", ALWAYS, Fault::StrayLink);
    lab.simulator.set_faults(faults.with_rule("mailFolders/delta", ALWAYS, Fault::StrayLink));
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, [], "what the pages told is true");
    lab.assert_truth(&report);
    assert_whole(&lab);
    lab.simulator.reset_counters();
    assert_whole(&lab);
    let folders = lab.visible_folders(&user).len() as u64;
    assert!(lab.requests_of(&user) <= folders + 2, "the run before has listed everything, and has the links now");
}

/// The same organisation at another address: the links of the old address lead nowhere.
#[test]
fn regression_other_endpoints_failed_every_folder_for_ever() {
    let lab = laboratory(1);
    assert_eq!(lab.back_up().expect("a backup").failures, []);
    let organisation = Organisation { seed: 5, users: 1, messages: 20, ..Organisation::default() };
    let moved = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    assert_eq!(moved.tenant_id(), lab.simulator.tenant_id());
    assert_ne!(moved.url(), lab.simulator.url());
    lab.simulator.reset_counters();
    let report = lab.back_up_with(client_of(&moved)).expect("a backup");
    assert_eq!(report.failures, []);
    lab.assert_truth(&report);
    assert_eq!((report.ledger.stored, report.snapshot.summary.added_bytes), (0, 0), "nothing is fetched again");
    assert_eq!(lab.simulator.counters().requests, 0);
}

#[test]
fn a_wait_of_years_fails_its_mailbox_at_once_and_no_other() {
    let lab = laboratory(2);
    let users = lab.mailboxes();
    let id = lab.simulator.tenant().user(&users[0]).expect("a user").id.clone();
    let faults = Faults { retry_after_s: 3_155_760_000, ..Faults::default() };
    lab.simulator.set_faults(faults.with_rule(&format!("users/{id}/mailFolders"), ALWAYS, Fault::TooManyRequests));
    let begin = Instant::now();
    let report = lab.back_up().expect("a backup");
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert!(!report.failures.is_empty());
    for failure in &report.failures {
        assert!(failure.error.contains("throttled for too long"), "{failure:?}");
    }
    assert!(report.ledger.stored > 10, "the other mailbox is whole: {:?}", report.ledger);
    let counts = lab.simulator.counters();
    assert!(counts.throttled + counts.faults < 20, "it is left alone: {counts:?}");
    assert_whole(&lab);
}

/// The list says how long a message is. A body that is much longer is not that message.
#[test]
fn a_message_without_end_does_not_fill_the_repository() {
    let lab = laboratory(1);
    let user = lab.mailboxes().swap_remove(0);
    let (folder, _) = fullest_folder(&lab, &user);
    let truth = lab.simulator.tenant().truth(&user).expect("a mailbox");
    let message = truth.messages.iter().find(|message| message.folder == folder).expect("a message");
    assert!(message.mime.len() < 1 << 20, "a short one");
    let rule = format!("{}/$value", message.id);
    lab.simulator.set_faults(Faults::default().with_rule(&rule, ALWAYS, Fault::Endless));
    let report = lab.back_up().expect("a backup");
    let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
    assert!(failure.error.contains("the answer has more than"), "{failure:?}");
    let mut stored = 0;
    walk(&lab.folder.path().join("repository"), &mut |_, stat| stored += stat.len());
    assert!(stored < 32 << 20, "{stored} bytes");
    // The message failed before. Now it may be built from its parts, or read.
    assert_whole(&lab);
}

/// The real program against an organisation, with one set.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new() -> Office {
        let organisation = Organisation { seed: 3, users: 1, messages: 4, ..Organisation::default() };
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
        let office = Office { simulator, lab: Lab::new() };
        let (url, tenant, client) =
            (office.simulator.url(), office.simulator.tenant_id(), office.simulator.client_id());
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{tenant}\"\nclient_id = \"{client}\"\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\nclient_secret = {{ env = \"CONTOSO_SECRET\" }}\n\
             [sets.everyone]\ntenant = \"contoso\"\n"
        );
        write(&office.lab.path("strongroom.toml"), text);
        office
    }

    fn backup(&self) -> Running {
        self.start(&["backup", "--set", "everyone"])
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut command: Command = self.lab.command(args);
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// A process that is killed when a test fails.
struct Running(Child);

impl Running {
    /// Returns the peak memory of the process so far, in bytes, while it runs.
    fn peak_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }
}

impl Running {
    /// Interrupts the program, and asserts that it ends at once.
    #[track_caller]
    fn is_interrupted(&mut self) {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        eventually("it ends", PATIENCE, || self.0.try_wait().unwrap().is_some());
        assert_eq!(self.0.wait().unwrap().code(), Some(130));
        println!("ended after {:?}", begin.elapsed());
        // On an idle machine it takes a second.
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every folder is listed by a page of six million rows. Each such page alone took 3.6 GB.
#[test]
fn millions_of_rows_take_little_memory_and_can_be_interrupted() {
    let office = Office::new();
    office.simulator.set_faults(Faults::default().with_rule("messages/delta", ALWAYS, Fault::ManyRows));
    let mut backup = office.backup();
    let mut peak = 0;
    eventually("the backup ends", PATIENCE, || {
        peak = backup.peak_bytes().unwrap_or(0).max(peak);
        backup.0.try_wait().unwrap().is_some()
    });
    assert_eq!(backup.0.wait().unwrap().code(), Some(3), "the folders failed, and are listed");
    assert!(peak > 16 << 20 && peak < 800 << 20, "{} MiB", peak >> 20);

    let seen = || office.simulator.state().faults.injected().get(&Fault::ManyRows).copied().unwrap_or(0);
    let before = seen();
    let mut backup = office.backup();
    eventually("a page is on its way", PATIENCE, || seen() > before);
    backup.is_interrupted();
}

/// The service asks for a pause of ten minutes. A restore waits for it, but not after Ctrl-C.
#[test]
fn a_restore_that_waits_for_the_service_can_be_interrupted() {
    let office = Office::new();
    let mut backup = office.backup();
    eventually("the backup ends", PATIENCE, || backup.0.try_wait().unwrap().is_some());
    assert_eq!(backup.0.wait().unwrap().code(), Some(0));
    for args in [
        &["restore", "latest:everyone", "--to", "original"][..],
        &["restore", "latest:everyone", "--to", "original", "--dry-run"],
    ] {
        office.simulator.reset_counters();
        let faults = Faults { retry_after_s: 600, ..Faults::default() };
        office.simulator.set_faults(faults.with_rule("/v1.0/users/", ALWAYS, Fault::TooManyRequests));
        let mut restore = office.start(args);
        eventually("it is refused", PATIENCE, || office.simulator.counters().faults > 0);
        restore.is_interrupted();
    }
}
