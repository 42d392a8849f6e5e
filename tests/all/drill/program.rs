//! Restores with the real program: it is killed, interrupted and measured.

use super::*;

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
fn a_restore_that_is_killed_repeatedly_makes_no_message_twice() {
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
fn an_import_that_is_killed_repeatedly_makes_no_message_twice() {
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
fn hostile_names_and_real_mail_come_back() {
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

#[test]
fn memory_does_not_grow_with_the_mailbox() {
    let (small, large) = (memory_for(200), memory_for(2_000));
    eprintln!("{small} KiB for 200 messages, {large} KiB for 2,000");
    assert!(large < small + 40 * 1024 && large < 300 * 1024, "{small} KiB, then {large} KiB");
}
