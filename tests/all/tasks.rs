//! Backups of tasks. After each run every task of the tenant is in the snapshot as an iCalendar file, with its whole
//! JSON, its steps, links and files; nothing leaves without proof. Mail does not suffer if tasks fail.

use crate::common;
use crate::laboratory;

use common::{Lab, PATIENCE, eventually, no_fuse, quiet, run, text, walk, write};
use laboratory::{Laboratory, Shape};
use proptest::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use strongroom::backup::tenant::TenantReport;
use strongroom::content::names::task_list_name;
use strongroom_simulator::{
    Attachment, Fault, Faults, ListFacts, NewTask, Options, Organisation, Payload, Simulator, Tenant,
};

/// A task as it is, or as it stands in a snapshot.
#[derive(Clone, Debug, PartialEq)]
struct Task {
    /// The name of its list.
    list: String,
    /// All that the service says of it, with its steps and links.
    properties: Value,
    /// The names and bytes of its files.
    files: Vec<(String, Vec<u8>)>,
}

/// Makes a laboratory whose set takes tasks as well.
fn laboratory(shape: Shape) -> Laboratory {
    let mut lab = Laboratory::new(shape);
    lab.options.tasks = true;
    lab
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn named(title: &str) -> NewTask {
    NewTask::with(json!({ "title": title }))
}

fn file(name: &str, bytes: &[u8]) -> Attachment {
    Attachment {
        number: 0,
        name: name.to_owned(),
        content_type: "application/octet-stream".to_owned(),
        inline: false,
        content_id: None,
        content_location: None,
        payload: Payload::File(Arc::new(bytes.to_vec())),
    }
}

/// Returns the JSON of a task without ids and what is noted of the request.
fn comparable(mut properties: Value) -> Value {
    let object = properties.as_object_mut().expect("a task");
    object.retain(|name, _| name != "id" && !name.contains('@'));
    for parts in ["checklistItems", "linkedResources"] {
        let parts = object.get_mut(parts).and_then(Value::as_array_mut);
        parts.into_iter().flatten().for_each(|part| _ = part.as_object_mut().expect("a part").remove("id"));
    }
    properties
}

/// Returns the tasks of a user that are in lists of theirs, by the ids of the list and the task.
fn truth(tenant: &Tenant, user: &str) -> BTreeMap<String, Task> {
    let truth = tenant.truth(user).expect("a mailbox");
    let own = truth.task_lists.iter().filter(|list| list.is_owner);
    let names: BTreeMap<_, _> = own.map(|list| (list.id.clone(), list.name.clone())).collect();
    let tasks = truth.tasks.into_iter().filter_map(|task| {
        let list = task_list_name(names.get(&task.list)?);
        let files = task.attachments.into_iter().map(|file| (file.name, file.bytes)).collect();
        let mut properties = comparable(task.properties);
        properties["checklistItems"] = task.checklist.into();
        properties["linkedResources"] = task.links.into();
        Some((format!("{} {}", task.list, task.id), Task { list, properties, files }))
    });
    tasks.collect()
}

/// Returns the tasks in a snapshot: the users' folders, and in each the tasks by id.
fn tasks_in(lab: &Laboratory, report: &TenantReport) -> BTreeMap<String, BTreeMap<String, Task>> {
    let reader = lab.reader();
    let mut users: BTreeMap<String, BTreeMap<String, Task>> = BTreeMap::new();
    lab.walk(&reader, report.snapshot.directory(), "", &mut |path, entry, ics| {
        let names: Vec<_> = path.split('/').collect();
        if !path.ends_with(".ics") {
            return;
        }
        let ["Users", user, "Outlook", "Tasks", list, _] = names.as_slice() else { panic!("{path}") };
        let mut json = Vec::new();
        reader.read(entry.payload.as_ref().expect("a payload"), 0, usize::MAX, &mut json).expect("its JSON");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        let id = entry.facts.source_id.clone().expect("an id");
        let both = format!("{} {}", json["@strongroom.list"].as_str().unwrap(), json["id"].as_str().unwrap());
        assert_eq!((&both, json["@odata.etag"].as_str()), (&id, entry.facts.change_key.as_deref()), "{path}");
        let text = std::str::from_utf8(ics).expect("an iCalendar file is UTF-8").replace("\r\n ", "");
        assert!(text.starts_with("BEGIN:VCALENDAR\r\n") && text.ends_with("\r\nEND:VCALENDAR\r\n"), "{path}: {text}");
        assert_eq!(text.matches("\r\nBEGIN:VTODO\r\n").count(), 1, "{path}: {text}");
        let attached = text.lines().filter(|line| line.starts_with("ATTACH;ENCODING=BASE64;"));
        let files = attached.map(|line| {
            let (parameters, value) = line.rsplit_once(':').expect("a value");
            let name = parameters.split(';').find_map(|one| one.strip_prefix("FILENAME=")).expect("a name");
            (name.trim_matches('"').to_owned(), base64(value))
        });
        let task = Task { list: (*list).to_owned(), files: files.collect(), properties: comparable(json) };
        let twice = users.entry((*user).to_owned()).or_default().insert(id, task);
        assert_eq!(twice, None, "{path} stands in two places");
    });
    users
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("no base64"),
    };
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        bits = (bits << 6) | u32::from(value(byte));
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Compares the tasks of a snapshot with those of the tenant.
#[track_caller]
fn assert_tasks(lab: &Laboratory, report: &TenantReport) {
    let found = tasks_in(lab, report);
    let tenant = lab.simulator.tenant();
    for user in lab.mailboxes() {
        let expected = truth(&tenant, &user);
        let mut found = found.get(&user.to_lowercase()).cloned().unwrap_or_default();
        // The service makes tasks of flagged mails, which are not among the true tasks.
        let lists = tenant.truth(&user).expect("a mailbox").task_lists;
        let flagged = lists.into_iter().find(|list| list.well_known == "flaggedEmails");
        found.retain(|id, _| !flagged.as_ref().is_some_and(|list| id.starts_with(&format!("{} ", list.id))));
        let ids = |tasks: &BTreeMap<String, Task>| tasks.keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&expected), "{user}");
        for (id, expected) in expected {
            let found = &found[&id];
            assert_eq!(found.properties, expected.properties, "{user}");
            assert_eq!(found.files.len(), expected.files.len(), "{}", expected.properties);
            let bytes = |task: &Task| task.files.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>();
            assert_eq!(bytes(found), bytes(&expected), "the files of {}", expected.properties);
            // A name that is taken gets a number.
            let is_called = found.list == expected.list
                || found.list.strip_prefix(&*expected.list).is_some_and(|rest| rest.starts_with(" ("));
            assert!(is_called, "{:?} in place of {:?}", found.list, expected.list);
        }
    }
}

/// Returns how many requests of the operations whose names contain `what` were sent since the counters were reset.
fn asked(simulator: &Simulator, what: &str) -> u64 {
    let operations = simulator.counters().by_operation;
    let wanted = operations.iter().filter(|(name, _)| name.to_lowercase().contains(what));
    wanted.map(|(_, count)| count).sum()
}

/// Returns how many tasks were requested by their ids since the counters were reset.
fn read(simulator: &Simulator) -> u64 {
    simulator.counters().by_operation.get("GetTask").copied().unwrap_or(0)
}

/// Returns how many requests about tasks were sent since the counters were reset.
fn asked_for_tasks(simulator: &Simulator) -> u64 {
    asked(simulator, "task")
}

/// Adds tasks of every kind to the mailbox of a user: in the default list, in one of the user's, and in one of others.
fn add_every_kind(tenant: &Tenant, user: &str) {
    let own =
        tenant.add_task_list(user, "a/b: Ours.ics", ListFacts { shared: true, of_others: false }).expect("a list");
    let others = tenant.add_task_list(user, "Theirs", ListFacts { shared: true, of_others: true }).expect("a list");
    let due = |at: &str, zone: &str| json!({ "dateTime": at, "timeZone": zone });
    let step = |name: &str, done: bool| object(json!({ "displayName": name, "isChecked": done }));
    let link =
        json!({ "applicationName": "Contoso", "displayName": "Ticket", "webUrl": "https://contoso.com/1?a=1,2" });
    let whole = NewTask {
        categories: vec!["Red category".to_owned()],
        checklist: vec![step("the half", true), step("the whole; \"all\"", false)],
        links: vec![object(link)],
        attachments: vec![file("list \"1\".bin", b"\0\x01\xff milk"), file("empty", b""), file("long", &[7; 100_000])],
        ..NewTask::with(json!({
            "title": "Buy milk; and \"more\",\r\nEND:VTODO\r\nX-EVIL:1", "status": "waitingOnOthers", "importance": "high",
            "body": { "content": "<p>At the <b>shop</b></p>", "contentType": "html" }, "isReminderOn": true,
            "dueDateTime": due("2026-11-04T00:00:00", "Tokyo Standard Time"),
            "startDateTime": due("2026-11-03T00:00:00", "Pacific Standard Time"),
            "reminderDateTime": due("2026-11-04T07:00:00", "UTC"),
            "recurrence": { "pattern": { "type": "weekly", "interval": 2, "daysOfWeek": ["monday", "friday"],
                    "firstDayOfWeek": "sunday" },
                "range": { "type": "endDate", "startDate": "2026-11-02", "endDate": "2027-01-31" } },
        }))
    };
    tenant.add_task(user, &own, whole).expect("a list");
    tenant.add_task(user, &own, named("")).expect("a list");
    tenant.add_task(user, &others, named("Theirs")).expect("a list");
    let done =
        json!({ "title": "Done", "status": "completed", "body": { "content": "1\r\n2", "contentType": "text" } });
    tenant.add_task(user, "tasks", NewTask::with(done)).expect("a list");
    for number in 0..30 {
        tenant.add_task(user, "tasks", named(&format!("Same name {}", number % 3))).expect("a list");
    }
}

#[test]
fn tasks_are_backed_up_as_they_are_and_then_by_what_changes() {
    let lab = laboratory(Shape { users: 3, messages: 5, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    add_every_kind(&tenant, &user);
    let first = lab.back_up().expect("a backup");
    assert_eq!(first.failures, []);
    lab.assert_truth(&first);
    assert_tasks(&lab, &first);
    assert!(first.ledger.adds_up(), "{:?}", first.ledger);

    lab.simulator.reset_counters();
    let second = lab.back_up().expect("a backup");
    assert_tasks(&lab, &second);
    let summary = second.snapshot.summary;
    assert_eq!((summary.new, summary.changed, summary.moved, summary.deleted), (0, 0, 0, 0));
    assert_eq!(summary.added_bytes, 0, "nothing is stored but the snapshot");
    assert_eq!(first.snapshot.root.directory(), second.snapshot.root.directory());
    let users = lab.mailboxes();
    let of_all: u64 = users.iter().map(|user| tenant.truth(user).expect("a mailbox").task_lists.len() as u64).sum();
    let requests = asked_for_tasks(&lab.simulator);
    assert!(requests <= of_all + 2 * users.len() as u64, "{requests} requests for {of_all} lists");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: laboratory::cases(3), max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_of_changes_ends_with_what_is_true(
        seed in 0u64..1000,
        rounds in proptest::collection::vec(proptest::collection::vec(any::<u64>(), 3..12), 3),
        switches in laboratory::switches(),
    ) {
        let lab = laboratory(Shape { seed, users: 2, messages: 3, switches, ..Shape::default() });
        let tenant = lab.simulator.tenant();
        for user in lab.mailboxes() {
            add_every_kind(&tenant, &user);
        }
        assert_tasks(&lab, &lab.back_up().expect("a backup"));
        for choices in rounds {
            for (number, choice) in choices.iter().enumerate() {
                let users = lab.mailboxes();
                tenant.change_tasks_at_random(&users[number % users.len()], *choice).expect("a mailbox");
            }
            let report = lab.back_up().expect("a backup");
            prop_assert_eq!(&report.failures, &vec![]);
            assert_tasks(&lab, &report);
            prop_assert!(report.ledger.adds_up());
        }
    }
}

#[test]
fn a_change_costs_one_task_and_what_goes_leaves() {
    let mut lab = laboratory(Shape { users: 1, messages: 1, ..Shape::default() });
    lab.options.mail = false;
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    add_every_kind(&tenant, &user);
    let list = tenant.add_task_list(&user, "Errands", ListFacts::default()).expect("a list");
    let changes = tenant.add_task(&user, "tasks", named("Changes")).expect("a list");
    let stepped = tenant.add_task(&user, &list, named("Gets a step")).expect("a list");
    let goes = tenant.add_task(&user, "tasks", named("Goes")).expect("a list");
    let with_file = NewTask { attachments: vec![file("a.bin", b"bytes")], ..named("Moves") };
    let moves = tenant.add_task(&user, "tasks", with_file).expect("a list");
    assert_tasks(&lab, &lab.back_up().expect("a backup"));

    tenant.change_task(&user, &changes, &object(json!({ "title": "Changed" }))).expect("a task");
    let step = |task: &mut strongroom_simulator::tenant::Task| {
        let number = task.next_part();
        task.checklist.insert(number, object(json!({ "displayName": "new", "isChecked": false })));
    };
    tenant.edit_task(&user, &stepped, step).expect("a task");
    tenant.delete_task(&user, &goes).expect("a task");
    let moved = tenant.move_task(&user, &moves, &list).expect("a task");
    assert_ne!(moved, moves, "the service gives it another id");
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_tasks(&lab, &report);
    // Three are read; two that left are asked for.
    assert_eq!(read(&lab.simulator), 5, "{:?}", lab.simulator.counters().by_operation);

    // A list of the same name, and one that goes with all its tasks.
    let twin = tenant.add_task_list(&user, "Errands", ListFacts::default()).expect("a list");
    tenant.add_task(&user, &twin, named("In the twin")).expect("a list");
    assert_tasks(&lab, &lab.back_up().expect("a backup"));
    tenant.delete_folder(&user, &list).expect("a list");
    assert_tasks(&lab, &lab.back_up().expect("a backup"));
}

#[test]
fn lost_deltas_lose_no_task_and_cost_no_task_that_did_not_change() {
    let mut lab = laboratory(Shape { users: 1, messages: 1, ..Shape::default() });
    lab.options.mail = false;
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    add_every_kind(&tenant, &user);
    let goes = tenant.add_task(&user, "tasks", named("Goes")).expect("a list");
    let changes = tenant.add_task(&user, "tasks", named("Changes")).expect("a list");
    lab.back_up().expect("a backup");
    tenant.delete_task(&user, &goes).expect("a task");
    tenant.change_task(&user, &changes, &object(json!({ "importance": "low" }))).expect("a task");
    tenant.expire_deltas();
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_tasks(&lab, &report);
    assert_eq!(read(&lab.simulator), 2, "{:?}", lab.simulator.counters().by_operation);
}

#[test]
fn a_task_that_cannot_be_read_is_one_failure_and_comes_later() {
    let mut lab = laboratory(Shape { users: 1, messages: 1, ..Shape::default() });
    lab.options.mail = false;
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    add_every_kind(&tenant, &user);
    let with_file = NewTask { attachments: vec![file("a.bin", b"bytes")], ..named("Bad") };
    let bad = tenant.add_task(&user, "tasks", with_file).expect("a list");
    let rule = format!("/tasks/{bad}/attachments");
    lab.simulator.set_faults(Faults::default().with_rule(&rule, u32::MAX, Fault::InternalError));
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert!(String::from_utf8_lossy(&report.failures[0].path).ends_with("/Bad.ics"), "{:?}", report.failures);
    assert!(report.ledger.adds_up(), "{:?}", report.ledger);
    let found = tasks_in(&lab, &report).remove(&user.to_lowercase()).expect("tasks");
    let missing: Vec<_> = truth(&tenant, &user).into_keys().filter(|id| !found.contains_key(id)).collect();
    assert!(missing.len() == 1 && missing[0].ends_with(&bad), "{missing:?}");
    lab.simulator.set_faults(Faults::default());
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_tasks(&lab, &report);
}

#[test]
fn in_a_storm_of_faults_every_task_is_right() {
    let mut lab = laboratory(Shape { users: 1, messages: 1, ..Shape::default() });
    lab.options.mail = false;
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    add_every_kind(&tenant, &user);
    for seed in 0..3 {
        lab.simulator.set_faults(Faults::bad_day(seed, 5));
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, [], "seed {seed}");
        assert_tasks(&lab, &report);
        tenant.expire_deltas();
        tenant
            .add_task(&user, "tasks", NewTask { attachments: vec![file("f", &[1; 5000])], ..named("More") })
            .expect("a list");
    }
}

#[test]
fn without_the_permission_mail_is_backed_up_and_tasks_stand() {
    let lab = laboratory(Shape { users: 2, messages: 3, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    add_every_kind(&tenant, &user);
    let first = lab.back_up().expect("a backup");
    assert_tasks(&lab, &first);
    let before = tasks_in(&lab, &first);
    tenant.add_task(&user, "tasks", named("New")).expect("a list");
    let all = lab.simulator.authority().rules().roles;
    lab.simulator.authority().change_rules(|rules| rules.roles.retain(|role| !role.starts_with("Tasks.")));
    let report = lab.back_up().expect("mail is backed up");
    lab.assert_truth(&report);
    assert_eq!(tasks_in(&lab, &report), before, "tasks stand as they were");
    let texts: Vec<_> = report.failures.iter().map(|failure| failure.error.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("may read the tasks of nobody")), "{texts:?}");
    lab.simulator.authority().change_rules(|rules| rules.roles = all);
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_tasks(&lab, &report);
}

/// An organisation, and a laboratory with a repository whose configuration has the set `everyone`.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new(organisation: Organisation) -> Office {
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
        let lab = Lab::new();
        let (url, tenant, client) = (simulator.url(), simulator.tenant_id(), simulator.client_id());
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{tenant}\"\nclient_id = \"{client}\"\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\nclient_secret = {{ env = \"CONTOSO_SECRET\" }}\n\
             [sets.everyone]\ntenant = \"contoso\"\nservices = [\"mail\", \"tasks\"]\n"
        );
        write(&lab.path("strongroom.toml"), text);
        Office { simulator, lab }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        command
    }

    #[track_caller]
    fn json(&self, args: &[&str], exit: i32) -> Value {
        let output = run(self.command(args).arg("--json"), exit);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }
}

#[test]
fn the_test_of_a_tenant_says_what_tasks_need() {
    let office = Office::new(Organisation { users: 2, messages: 2, ..Organisation::default() });
    let row = |said: &Value| {
        let rows = said["checks"].as_array().expect("checks").clone();
        rows.into_iter().find(|row| row["service"] == "tasks").expect("a row for tasks")
    };
    let said = office.json(&["tenant", "test", "contoso"], 0);
    assert_eq!((&row(&said)["status"], &row(&said)["permission"]), (&json!("ok"), &json!("Tasks.Read.All")));
    office.simulator.authority().change_rules(|rules| rules.roles.retain(|role| !role.starts_with("Tasks.")));
    let said = office.json(&["tenant", "test", "contoso"], 1);
    assert_eq!(row(&said)["status"], "missing", "{said}");
    let steps =
        said["steps"].as_array().expect("steps").iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
    assert!(steps.contains("tick Tasks.Read.All,"), "{steps}");
}

#[test]
fn a_killed_run_and_an_interrupted_one_are_continued_and_store_nothing_twice() {
    let office = Office::new(Organisation { users: 1, messages: 2, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    const TASKS: usize = 200;
    for number in 0..TASKS {
        let task =
            NewTask { attachments: vec![file("f", format!("{number}").as_bytes())], ..named(&format!("T {number}")) };
        tenant.add_task(&user, "tasks", task).expect("a list");
    }
    let args = ["backup", "--set", "everyone"];
    for signal in [Signal::KILL, Signal::INT] {
        office.simulator.reset_counters();
        let mut child = office.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        eventually("some tasks are read", PATIENCE, || read(&office.simulator) as usize > TASKS / 2);
        kill_process(Pid::from_child(&child), signal).expect("a child");
        assert!(!child.wait().expect("a child").success(), "it ended before {signal:?}");
    }
    office.simulator.reset_counters();
    office.json(&args, 0);
    let again = read(&office.simulator) as usize;
    assert!(again < TASKS, "{again} tasks were read, as if nothing had been stored");
    let listed = office.lab.run(["ls", "-R", &format!("latest:Users/{}/Outlook/Tasks", user.to_lowercase())], 0);
    let listed = text(&listed.stdout);
    assert!(listed.matches(".ics").count() >= TASKS, "each task once");
    assert!(!listed.contains("T 7 (2).ics"), "{listed}");
    office.json(&["check", "--read-data"], 0);
}

#[test]
fn tasks_go_to_a_folder_and_a_restore_to_an_account_says_that_they_do_not() {
    let office = Office::new(Organisation { users: 1, messages: 2, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    add_every_kind(&tenant, &user);
    office.json(&["backup", "--set", "everyone"], 0);
    let tasks = format!("latest:Users/{}/Outlook/Tasks", user.to_lowercase());
    let to = office.lab.path("out");
    run(&mut office.command(&["restore", &tasks, "--to", &format!("local:{}", to.display())]), 0);
    let mut files = 0;
    walk(&to, &mut |path, _| files += usize::from(path.extension().is_some_and(|extension| extension == "ics")));
    assert!(files >= truth(&tenant, &user).len(), "{files} files");
    let said = office.command(&["restore", &tasks, "--to", "original"]).output().expect("the program");
    assert!(!said.status.success(), "{said:?}");
    let said = text(&[said.stdout, said.stderr].concat());
    assert!(said.contains("tasks cannot be restored to an account yet"), "{said}");
    // A survey of everything says so, too.
    let all = format!("latest:Users/{}", user.to_lowercase());
    let said = office.command(&["restore", &all, "--to", "original", "--dry-run"]).output().expect("the program");
    let said = text(&[said.stdout, said.stderr].concat());
    assert!(said.contains("tasks cannot be restored"), "{said}");
    laboratory::nothing_was_sent(&office.simulator);
}

#[test]
fn the_mount_shows_tasks_that_icalendar_reads() {
    if no_fuse() {
        return;
    }
    let office = Office::new(Organisation { users: 2, messages: 2, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    add_every_kind(&tenant, &user);
    office.json(&["backup", "--set", "everyone"], 0);
    let mount = office.lab.mount(&["--snapshot", "latest"]);
    let mut files = 0;
    walk(&mount.path("Users"), &mut |path, _| files += usize::from(path.extension().is_some_and(|end| end == "ics")));
    assert!(files >= truth(&tenant, &user).len(), "{files} files");
    icalendar_reads(&mount.path("Users"), files);
}

/// Lets Python's icalendar, which is strict, read every task under a folder.
fn icalendar_reads(folder: &Path, files: usize) {
    let python = || Command::new(std::env::var("STRONGROOM_PYTHON").unwrap_or_else(|_| "python3".to_owned()));
    let is_there = python().args(["-c", "import icalendar"]).output().is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("skipped: needs python3 with the package icalendar");
        return;
    }
    let script = r#"
import datetime, icalendar, json, pathlib, sys
tasks = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.ics")):
    calendar = icalendar.Calendar.from_ical(path.read_bytes())
    todos = [one for one in calendar.walk("VTODO")]
    assert len(todos) == 1 and not calendar.errors, path
    todo = todos[0]
    assert not todo.errors, (path, todo.errors)
    assert todo["UID"] and todo["SUMMARY"] and todo["DTSTAMP"].dt.tzinfo, path
    assert "X-EVIL" not in todo and "X-EVIL" not in calendar, path
    for name in ["DUE", "DTSTART"]:
        assert name not in todo or type(todo[name].dt) is datetime.date, (path, name)
    assert int(todo["PERCENT-COMPLETE"]) == (100 if todo["STATUS"] == "COMPLETED" else 0), path
    if todo["SUMMARY"].startswith("Buy milk; and"):
        assert todo["SUMMARY"] == 'Buy milk; and "more", END:VTODO X-EVIL:1', todo["SUMMARY"]
        assert todo["DESCRIPTION"] == 'At the shop\n\n- [x] the half\n- [ ] the whole; "all"', todo["DESCRIPTION"]
        assert (todo["DTSTART"].dt, todo["DUE"].dt) == (datetime.date(2026, 11, 3), datetime.date(2026, 11, 4)), todo
        assert todo["STATUS"] == "X-WAITING" and todo["PRIORITY"] == 1, todo
        rule = todo["RRULE"]
        assert rule["FREQ"] == ["WEEKLY"] and rule["INTERVAL"] == [2] and rule["BYDAY"] == ["MO", "FR"], rule
        assert rule["UNTIL"] == [datetime.date(2027, 1, 31)], rule
        steps = json.loads(todo["X-STRONGROOM-CHECKLIST"])
        assert [(s["displayName"], s["isChecked"]) for s in steps] == [("the half", True), ('the whole; "all"', False)]
        alarm = [one for one in todo.walk("VALARM")][0]
        assert alarm["TRIGGER"].dt == datetime.datetime(2026, 11, 4, 7, tzinfo=datetime.timezone.utc), alarm
        files = [one for one in todo["ATTACH"] if one.params.get("VALUE") == "BINARY"]
        assert [one.params["FILENAME"] for one in files] == ["list '1'.bin", "empty", "long"], files
    tasks += 1
print(tasks)
"#;
    let said = quiet(python().args(["-B", "-c", script]).arg(folder));
    assert_eq!(said.trim_end(), files.to_string());
}
