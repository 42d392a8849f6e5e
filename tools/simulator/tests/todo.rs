//! To Do as a client reads and writes it: lists, tasks, steps, links, attachments and deltas, over real HTTP.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Client, IMMUTABLE};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Map, Value, json};
use strongroom_simulator::{
    Attachment, Fault, Faults, FlagStatus, ListFacts, NewMessage, NewTask, Options, Organisation, Payload, Simulator,
    Switches, TrueAttachment, TrueTask, UserSpec,
};

struct Scene {
    simulator: Simulator,
    client: Client,
    user: String,
    /// Id of the default list.
    list: String,
}

impl Scene {
    fn new() -> Self {
        Self::with(Switches::default())
    }

    fn with(switches: Switches) -> Self {
        let organisation = Organisation { users: 1, messages: 0, contacts: 0, ..Organisation::default() };
        let options = Options { organisation, switches, ..Options::default() };
        let simulator = Simulator::start(options).expect("a simulator");
        let client = Client::new(&simulator);
        let user = simulator.tenant().users()[0].id.clone();
        let list = simulator.tenant().true_task_lists(&user).expect("a mailbox")[0].id.clone();
        Self { simulator, client, user, list }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1.0/users/{}/todo/lists/{}", self.user, rest.replace(' ', "%20"))
    }

    /// Returns the path of something in the default list.
    fn tasks(&self, rest: &str) -> String {
        self.path(&format!("{}/tasks{rest}", self.list))
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.client.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.client.post(path, body);
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    fn patch(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.client.json(Method::PATCH, path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn delete(&self, path: &str) -> u16 {
        self.client.send(Method::DELETE, path, &[], None).status
    }

    fn add(&self, fields: Value) -> String {
        self.simulator.tenant().add_task(&self.user, "tasks", NewTask::with(fields)).expect("a task")
    }

    fn truth(&self) -> Vec<TrueTask> {
        self.simulator.tenant().true_tasks(&self.user).expect("a mailbox")
    }
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned()
}

fn texts(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| text(row, name)).collect()
}

fn ids(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().map(|row| text(row, "id")).collect()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn without_id(part: &Value) -> Value {
    Value::Object(object(part.clone()).into_iter().filter(|(name, _)| name != "id").collect())
}

fn at(time: &str, zone: &str) -> Value {
    json!({"dateTime": time, "timeZone": zone})
}

fn daily() -> Value {
    json!({
        "pattern": {"type": "daily", "interval": 1},
        "range": {"type": "noEnd", "startDate": "2026-03-02", "recurrenceTimeZone": "UTC"},
    })
}

fn file(name: &str, bytes: &[u8]) -> Attachment {
    Attachment {
        number: 0,
        name: name.to_owned(),
        content_type: "text/plain".to_owned(),
        inline: false,
        content_id: None,
        content_location: None,
        payload: Payload::File(Arc::new(bytes.to_vec())),
    }
}

#[test]
fn what_is_read_is_the_truth_also_if_it_hurts() {
    let organisation =
        Organisation { users: 2, messages: 0, contacts: 0, tasks: 40, hurting: true, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let client = Client::new(&simulator);
    let (mut steps, mut links, mut files) = (0, 0, 0);
    for user in simulator.tenant().users() {
        let truth = simulator.tenant().truth(&user.id).expect("a mailbox");
        let root = format!("/v1.0/users/{}/todo/lists", user.id);
        let lists = client.all(&root, &[]);
        let shown: Vec<_> =
            lists.iter().map(|row| (text(row, "id"), text(row, "displayName"), row["isOwner"].clone())).collect();
        let expected = truth.task_lists.iter().map(|one| (one.id.clone(), one.name.clone(), json!(one.is_owner)));
        assert_eq!(shown, expected.collect::<Vec<_>>());
        let mut found = BTreeMap::new();
        for (list, ..) in shown {
            for row in client.all(&format!("{root}/{list}/tasks?$top=7"), &[IMMUTABLE]) {
                found.insert(text(&row, "id"), (list.clone(), row));
            }
        }
        assert!(truth.tasks.len() > 20 && found.len() == truth.tasks.len(), "{}", found.len());
        for task in truth.tasks {
            let (list, row) = &found[&task.id];
            assert_eq!((list, without_id(row)), (&task.list, task.properties));
            let path = format!("{root}/{list}/tasks/{}", task.id);
            let whole = client.get(&format!("{path}?$expand=checklistItems,linkedResources")).1;
            let parts =
                |name: &str| -> Vec<Value> { whole[name].as_array().expect("parts").iter().map(without_id).collect() };
            assert_eq!(
                (parts("checklistItems"), parts("linkedResources")),
                (task.checklist.clone(), task.links.clone())
            );
            let rows = client.all(&format!("{path}/attachments"), &[]);
            let read = |row: &Value| TrueAttachment {
                name: text(row, "name"),
                content_type: text(row, "contentType"),
                inline: false,
                content_id: None,
                bytes: client.bytes(&format!("{path}/attachments/{}/$value", text(row, "id")), &[]),
            };
            assert_eq!(rows.iter().map(read).collect::<Vec<_>>(), task.attachments);
            assert_eq!(row["hasAttachments"], json!(!rows.is_empty()));
            (steps, links, files) = (steps + task.checklist.len(), links + task.links.len(), files + rows.len());
        }
    }
    assert!(steps > 20 && links > 3 && files > 8, "{steps} {links} {files}");
}

#[test]
fn lists_say_whose_they_are_and_two_may_have_one_name() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let own = text(&scene.post(&scene.path(""), &json!({"displayName": "Groceries"})), "id");
    let twin = text(&scene.post(&scene.path(""), &json!({"displayName": "Groceries"})), "id");
    assert_ne!(own, twin);
    let facts = ListFacts { shared: true, of_others: true };
    let others = tenant.add_task_list(&scene.user, "Dana's", facts).expect("a list");
    let rows = scene.client.all(&scene.path("?$top=2"), &[]);
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (text(row, "wellknownListName"), row["isOwner"] == true, row["isShared"] == true))
        .collect();
    let none = || "none".to_owned();
    let expected = [
        ("defaultList".to_owned(), true, false),
        (none(), true, false),
        (none(), true, false),
        (none(), false, true),
        ("flaggedEmails".to_owned(), true, false),
    ];
    assert_eq!(shown, expected);
    assert_eq!(text(&rows[3], "id"), others);
    assert_eq!(scene.patch(&scene.path(&own), &json!({"displayName": "Food"}))["displayName"], "Food");
    assert_eq!(scene.delete(&scene.path(&twin)), 204);
    assert_eq!(scene.client.get(&scene.path(&twin)).0, 404);
    let flagged = text(&rows[4], "id");
    for fixed in [&scene.list, &flagged] {
        assert_eq!(scene.delete(&scene.path(fixed)), 400);
        assert_eq!(scene.client.json(Method::PATCH, &scene.path(fixed), &json!({"displayName": "x"})).0, 400);
    }
    assert_eq!(scene.client.post(&scene.path(""), &json!({"displayName": " "})).0, 400);
    assert_eq!(scene.client.post(&scene.path(""), &json!({"name": "x"})).0, 400);
    for (path, status) in [
        (scene.path("tasks"), 400),
        (scene.path("?$select=name"), 400),
        (format!("/v1.0/users/{}/todo", scene.user), 400),
        (scene.tasks("/nonsense"), 400),
        (scene.tasks("?$select=subject"), 400),
        (scene.tasks("?$expand=checklistItems"), 400),
    ] {
        assert_eq!(scene.client.get(&path).0, status, "{path}");
    }
    // Lists are no mail folders.
    let mail =
        scene.client.all(&format!("/v1.0/users/{}/mailFolders?$top=100&includeHiddenFolders=true", scene.user), &[]);
    assert!(!mail.iter().any(|row| ["Tasks", "Food", "Flagged Emails"].contains(&text(row, "displayName").as_str())));
}

#[test]
fn a_task_that_moves_has_another_id() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let other = tenant.add_task_list(&scene.user, "Other", ListFacts::default()).expect("a list");
    let task = scene.add(json!({"title": "A"}));
    let delta = |list: &str| scene.path(&format!("{list}/tasks/delta"));
    let (rows, link) = scene.client.delta(&delta(&scene.list), &[IMMUTABLE]);
    let (none, other_link) = scene.client.delta(&delta(&other), &[]);
    assert_eq!((ids(&rows), none.len()), ([task.clone()].into(), 0));
    assert_eq!(rows[0]["@odata.type"], "#microsoft.graph.todoTask");
    let moved = tenant.move_task(&scene.user, &task, &other).expect("moved");
    assert_ne!(task, moved);
    assert_eq!(scene.client.get(&scene.tasks(&format!("/{task}"))).0, 404);
    assert_eq!(scene.client.get(&scene.tasks(&format!("/{moved}"))).0, 404, "it is in the other list");
    assert_eq!(scene.get(&scene.path(&format!("{other}/tasks/{moved}")))["title"], "A");
    let gone = json!({"@odata.type": "#microsoft.graph.todoTask", "id": task, "@removed": {"reason": "deleted"}});
    assert_eq!(scene.client.delta(&link, &[IMMUTABLE]).0, [gone]);
    assert_eq!(ids(&scene.client.delta(&other_link, &[]).0), [moved].into());
    scene.simulator.expire_deltas();
    assert_eq!(scene.client.get(&link).0, 410);
}

#[test]
fn the_delta_of_lists_does_not_tell_of_tasks() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let (rows, link) = scene.client.delta(&scene.path("delta"), &[]);
    assert_eq!(rows.len(), 2);
    scene.add(json!({"title": "A"}));
    let (rows, link) = scene.client.delta(&link, &[]);
    assert!(rows.is_empty(), "{rows:?}");
    let list = tenant.add_task_list(&scene.user, "New", ListFacts::default()).expect("a list");
    tenant.add_folder(&scene.user, "msgfolderroot", "Mail").expect("a folder");
    let (rows, link) = scene.client.delta(&link, &[]);
    assert_eq!((ids(&rows), &rows[0]["@odata.type"]), ([list.clone()].into(), &json!("#microsoft.graph.todoTaskList")));
    tenant.delete_folder(&scene.user, &list).expect("deleted");
    assert_eq!(scene.client.delta(&link, &[]).0[0]["@removed"]["reason"], "deleted");
}

#[test]
fn flagged_messages_are_tasks_that_nobody_can_write() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let flagged = text(scene.client.all(&scene.path(""), &[]).last().expect("a list"), "id");
    let tasks = scene.path(&format!("{flagged}/tasks"));
    let (none, link) = scene.client.delta(&format!("{tasks}/delta?$select=title"), &[]);
    assert!(none.is_empty());
    let mime = b"Subject: Read me\r\n\r\n".to_vec();
    let message = NewMessage { mime, flag: FlagStatus::Flagged, ..NewMessage::default() };
    let message = tenant.add_message(&scene.user, "inbox", message).expect("a message");
    let rows = scene.client.all(&tasks, &[]);
    assert_eq!(
        (texts(&rows, "title"), text(&rows[0], "status")),
        (vec!["Read me".to_owned()], "notStarted".to_owned())
    );
    let task = format!("{tasks}/{}", text(&rows[0], "id"));
    assert_eq!(
        scene.get(&format!("{task}?$expand=linkedResources"))["linkedResources"][0]["applicationName"],
        "Outlook"
    );
    let (rows, link) = scene.client.delta(&link, &[]);
    assert_eq!(texts(&rows, "title"), ["Read me"]);
    assert_eq!(scene.client.post(&tasks, &json!({"title": "x"})).0, 400);
    assert_eq!(scene.client.json(Method::PATCH, &task, &json!({"title": "x"})).0, 400);
    assert_eq!(scene.delete(&task), 400);
    tenant.set_flag(&scene.user, &message, FlagStatus::Complete).expect("flagged");
    let (rows, link) = scene.client.delta(&link, &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!(scene.get(&task)["status"], "completed");
    tenant.set_flag(&scene.user, &message, FlagStatus::NotFlagged).expect("flagged");
    assert_eq!(scene.client.delta(&link, &[]).0[0]["@removed"]["reason"], "deleted");
    assert!(scene.client.all(&tasks, &[]).is_empty());
    assert!(scene.truth().is_empty());
}

#[test]
fn a_task_is_written_with_its_days_and_words() {
    let scene = Scene::new();
    let made = scene.post(
        &scene.tasks(""),
        &json!({
            "title": "Order", "importance": "High", "categories": ["Red"], "createdDateTime": "2020-01-01T00:00:00Z",
            "body": {"content": "Notes", "contentType": "text"}, "isReminderOn": true,
            "dueDateTime": at("2026-01-05T14:30:00", "Pacific Standard Time"),
            "reminderDateTime": at("2026-01-05T14:30:00", "Pacific Standard Time"),
        }),
    );
    assert_eq!(made["dueDateTime"], at("2026-01-05T08:00:00.0000000", "UTC"), "midnight in the zone of the client");
    assert_eq!(made["reminderDateTime"], at("2026-01-05T22:30:00.0000000", "UTC"));
    assert_eq!(
        (&made["status"], &made["importance"], &made["categories"]),
        (&json!("notStarted"), &json!("high"), &json!(["Red"]))
    );
    assert!(made["createdDateTime"].as_str() > Some("2025"), "it cannot be written");
    assert!(made.get("startDateTime").is_none() && made["bodyLastModifiedDateTime"].is_string());
    let path = scene.tasks(&format!("/{}", text(&made, "id")));
    let send = |etag: &str| {
        let headers = [("content-type", "application/json"), ("if-match", etag)];
        scene.client.send(Method::PATCH, &path, &headers, Some(b"{\"title\": \"B\"}".to_vec())).status
    };
    assert_eq!((send("W/\"other\""), send(&text(&made, "@odata.etag"))), (412, 200));
    let changed = scene.patch(&path, &json!({"dueDateTime": null, "status": "inProgress"}));
    assert_eq!((text(&changed, "title"), text(&changed, "status")), ("B".to_owned(), "inProgress".to_owned()));
    assert!(changed.get("dueDateTime").is_none());
    let done = json!({"status": "completed", "completedDateTime": at("2026-01-04T10:00:00", "UTC")});
    assert_eq!(scene.patch(&path, &done)["completedDateTime"], at("2026-01-04T00:00:00.0000000", "UTC"));
    assert!(scene.patch(&path, &json!({"status": "notStarted"})).get("completedDateTime").is_none());
    let mark = "String {00020329-0000-0000-C000-000000000046} Name Mark";
    let marked = json!({"title": "C", "singleValueExtendedProperties": [{"id": mark, "value": "7"}]});
    scene.post(&scene.tasks(""), &marked);
    for body in [json!({"subject": "x"}), json!({"status": "done"}), json!({"dueDateTime": "2026-01-01"})] {
        assert_eq!(scene.client.post(&scene.tasks(""), &body).0, 400, "{body}");
    }
    assert_eq!(texts(&scene.client.all(&scene.tasks("?$filter=title eq 'C'&$select=title"), &[]), "title"), ["C"]);
    assert_eq!(scene.delete(&path), 204);
    assert_eq!((scene.client.get(&path).0, scene.client.all(&scene.tasks(""), &[]).len()), (404, 1));
    assert_eq!(scene.simulator.counters().mails_sent, 0);
}

#[test]
fn completing_a_task_that_comes_again_makes_the_next_one() {
    let scene = Scene::new();
    let due = at("2026-03-02T00:00:00", "UTC");
    let body = json!({"title": "Water", "recurrence": daily(), "dueDateTime": due, "checklistItems": [{"displayName": "Roses", "isChecked": true}]});
    let first = text(&scene.post(&scene.tasks(""), &body), "id");
    let path = scene.tasks(&format!("/{first}"));
    assert_eq!(scene.patch(&path, &json!({"status": "completed"}))["status"], "completed");
    let rows = scene.client.all(&scene.tasks(""), &[]);
    assert_eq!((rows.len(), text(&rows[1], "status")), (2, "notStarted".to_owned()));
    assert_eq!(rows[1]["dueDateTime"], at("2026-03-03T00:00:00.0000000", "UTC"));
    let next = scene.get(&format!("{}?$expand=checklistItems", scene.tasks(&format!("/{}", text(&rows[1], "id")))));
    assert_eq!(next["checklistItems"][0]["isChecked"], false);
    // To complete it once more changes nothing. A completed task makes its next one also when it is created.
    scene.patch(&path, &json!({"status": "completed"}));
    assert_eq!(scene.client.all(&scene.tasks(""), &[]).len(), 2);
    let completed = json!({"title": "Old", "status": "completed", "recurrence": daily(), "dueDateTime": due});
    scene.post(&scene.tasks(""), &completed);
    assert_eq!(scene.client.all(&scene.tasks(""), &[]).len(), 4);
    scene.post(&scene.tasks(""), &json!({"title": "Old", "status": "completed"}));
    assert_eq!(scene.client.all(&scene.tasks(""), &[]).len(), 5);
}

#[test]
fn steps_and_links_are_parts_of_a_task() {
    let scene = Scene::new();
    let task = scene.add(json!({"title": "A"}));
    let path = scene.tasks(&format!("/{task}"));
    let etag = || text(&scene.get(&path), "@odata.etag");
    let before = etag();
    let step = scene.post(&format!("{path}/checklistItems"), &json!({"displayName": "One", "isChecked": true}));
    assert!(step["checkedDateTime"].is_string() && step["createdDateTime"].is_string());
    assert_ne!(etag(), before);
    let link = json!({"applicationName": "Contoso", "displayName": "T", "externalId": "1", "webUrl": "https://x/y"});
    let link = scene.post(&format!("{path}/linkedResources"), &link);
    let whole = scene.get(&format!("{path}?$expand=checklistItems,linkedResources"));
    assert_eq!((&whole["checklistItems"][0], &whole["linkedResources"][0]), (&step, &link));
    let step_path = format!("{path}/checklistItems/{}", text(&step, "id"));
    let open = scene.patch(&step_path, &json!({"isChecked": false}));
    assert!(open.get("checkedDateTime").is_none() && open["displayName"] == "One");
    assert_eq!(open["createdDateTime"], step["createdDateTime"]);
    assert_eq!(scene.get(&step_path), open);
    assert_eq!(scene.delete(&step_path), 204);
    assert_eq!((scene.client.get(&step_path).0, scene.delete(&step_path)), (404, 404));
    let link_path = format!("{path}/linkedResources/{}", text(&link, "id"));
    assert_eq!(scene.patch(&link_path, &json!({"displayName": "U"}))["webUrl"], "https://x/y");
    assert_eq!(scene.client.all(&format!("{path}/linkedResources"), &[]).len(), 1);
    assert_eq!(scene.client.post(&format!("{path}/checklistItems"), &json!({"title": "x"})).0, 400);
    assert!(scene.get(&path).get("checklistItems").is_none());
}

#[test]
fn attachments_are_files_with_sessions_on_the_host_of_graph() {
    const SIZE: usize = 3_200_000;
    let scene = Scene::new();
    let task = scene.add(json!({"title": "A"}));
    let path = scene.tasks(&format!("/{task}/attachments"));
    let small = json!({"@odata.type": "#microsoft.graph.taskFileAttachment", "name": "a.txt", "contentType": "text/plain", "contentBytes": "SGVsbG8="});
    let made = scene.post(&path, &small);
    let one = format!("{path}/{}", text(&made, "id"));
    assert_eq!((&made["size"], made.get("contentBytes")), (&json!(5), None));
    assert!(scene.client.all(&path, &[])[0].get("contentBytes").is_none(), "a list has no bytes");
    assert_eq!(scene.get(&one)["contentBytes"], "SGVsbG8=");
    assert_eq!(scene.client.bytes(&format!("{one}/$value"), &[]), b"Hello");
    let other_kind = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": ""});
    assert_eq!(scene.client.post(&path, &other_kind).0, 400);

    let info = |size: usize| json!({"attachmentInfo": {"attachmentType": "file", "name": "large.bin", "size": size}});
    let create = format!("{path}/createUploadSession");
    assert_eq!(scene.client.post(&create, &info(1000)).0, 400);
    assert_eq!(scene.client.post(&create, &info(25_000_001)).0, 400);
    let url = text(&scene.post(&create, &info(SIZE)), "uploadUrl");
    assert!(url.starts_with(&format!("{}/v1.0/users('", scene.simulator.url())), "{url}");
    let bytes: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let content = format!("{url}/content");
    let put = |url: &str, from: usize, to: usize, more: &[(&str, &str)]| {
        let range = format!("bytes {from}-{}/{SIZE}", to - 1);
        let headers = [&[("content-range", range.as_str())], more].concat();
        scene.client.send(Method::PUT, url, &headers, Some(bytes[from..to].to_vec()))
    };
    // Short ones, because the service answers these without reading what comes, and then ends the connection.
    assert_eq!(put(&url, 0, 1_000, &[]).status, 405);
    assert_eq!(put(&content, 0, 1_000, &[("authorization", "")]).status, 401, "it needs a token");
    let first = put(&content, 0, 2_000_000, &[]);
    assert_eq!((first.status, &first.json()["nextExpectedRanges"]), (200, &json!(["2000000-"])));
    assert_eq!(put(&content, 0, 2_000_000, &[]).status, 416, "in order");
    let last = put(&content, 2_000_000, SIZE, &[]);
    assert_eq!(last.status, 201);
    let location = last.headers["location"].to_str().expect("text").to_owned();
    assert_eq!(scene.client.bytes(&format!("{location}/$value"), &[]), bytes);
    assert_eq!(scene.delete(&url), 404, "it is done");
    let cancelled = text(&scene.post(&create, &info(SIZE)), "uploadUrl");
    assert_eq!((scene.delete(&cancelled), scene.delete(&cancelled)), (204, 404));
    assert_eq!(scene.delete(&one), 204);
    let truth = scene.truth().remove(0);
    assert_eq!((truth.attachments.len(), &truth.attachments[0].name), (1, &"large.bin".to_owned()));
}

#[test]
fn requests_need_the_permission() {
    let scene = Scene::new();
    let (reads, writes) = (scene.tasks(""), json!({"title": "x"}));
    scene.simulator.set_permissions(["Tasks.Read.All"]);
    let reader = Client::new(&scene.simulator);
    scene.simulator.reset_counters();
    assert_eq!((reader.get(&reads).0, reader.get(&scene.tasks("/delta")).0), (200, 200));
    assert_eq!(reader.post(&reads, &writes).0, 403);
    assert_eq!(scene.simulator.counters().by_mailbox[&scene.user], 3);
    scene.simulator.set_switches(Switches { task_delta_needs_write: true, ..Switches::default() });
    let (status, body) = reader.get(&scene.tasks("/delta"));
    assert_eq!((status, body["error"]["code"].as_str()), (403, Some("ErrorAccessDenied")));
    assert_eq!(reader.get(&reads).0, 200);
    scene.simulator.set_permissions(["Tasks.ReadWrite.All"]);
    let writer = Client::new(&scene.simulator);
    assert_eq!((writer.get(&scene.tasks("/delta")).0, writer.post(&reads, &writes).0), (200, 201));
    scene.simulator.set_permissions(["Calendars.ReadWrite", "Mail.ReadWrite"]);
    assert_eq!(Client::new(&scene.simulator).get(&scene.path("")).0, 403);
}

#[test]
fn faults_befall_tasks_too_and_the_control_api_changes_them() {
    let scene = Scene::new();
    let control = |rest: &str| format!("/control/users/{}/{rest}", scene.user);
    let list = text(&scene.client.post(&control("taskLists"), &json!({"name": "Dana's", "ofOthers": true})).1, "id");
    assert_eq!(scene.get(&scene.path(&list))["isOwner"], false);
    let attached = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": "AAEC"});
    let new = json!({
        "list": list, "fields": {"title": "A"}, "categories": ["x"], "checklist": [{"displayName": "S", "isChecked": false}],
        "links": [{"webUrl": "https://x"}], "attachments": [attached],
    });
    let id = text(&scene.client.post(&control("tasks"), &new).1, "id");
    let task = scene.path(&format!("{list}/tasks/{id}"));
    let once = |contains: &str, fault| scene.simulator.set_faults(Faults::default().with_rule(contains, 1, fault));
    once("/tasks/", Fault::ItemChanges);
    let (before, after) = (scene.get(&task), scene.get(&task));
    assert_ne!((&before["@odata.etag"], &before["title"]), (&after["@odata.etag"], &after["title"]));
    let change = json!({"fields": {"title": "B"}, "list": "tasks"});
    let (status, answer) = scene.client.json(Method::PATCH, &control(&format!("tasks/{id}")), &change);
    assert_eq!(status, 200);
    let moved = text(&answer, "id");
    let truth = scene.truth().remove(0);
    assert_eq!((&truth.id, &truth.list, truth.attachments.len()), (&moved, &scene.list, 1));
    assert_eq!((&truth.properties["title"], truth.links.len(), truth.checklist.len()), (&json!("B"), 1, 1));
    let lines = scene.client.send(Method::GET, &control("truth"), &[], None).bytes;
    let expected: Vec<String> = scene.simulator.tenant().truth(&scene.user).expect("a mailbox").lines().collect();
    assert_eq!(String::from_utf8(lines).expect("text").lines().collect::<Vec<_>>(), expected);
    assert!(expected.iter().any(|line| line.starts_with("{\"task\":")));
    assert_eq!(scene.delete(&control(&format!("tasks/{moved}"))), 204);
    assert_eq!(scene.delete(&control(&format!("tasks/{moved}"))), 404);
}

/// The import and export API sees folders and items of every class.
#[test]
fn an_exported_task_can_be_imported() {
    let scene = Scene::new();
    let new =
        NewTask { attachments: vec![file("a", b"1")], ..NewTask::with(json!({"title": "Ä", "recurrence": daily()})) };
    let id = scene.simulator.tenant().add_task(&scene.user, "tasks", new).expect("a task");
    let exchange = scene.get(&format!("/v1.0/users/{}/settings/exchange", scene.user));
    let root = format!("/v1.0/admin/exchange/mailboxes/{}", text(&exchange, "primaryMailboxId"));
    let folder = scene.get(&format!("{root}/folders/tasks"));
    assert_eq!((folder["type"].as_str(), folder["totalItemCount"].as_u64()), (Some("IPF.Task"), Some(1)));
    let exported = scene.client.post(&format!("{root}/exportItems"), &json!({"itemIds": [id]})).1;
    let session = scene.client.post(&format!("{root}/createImportSession"), &json!({})).1;
    let item = json!({"FolderId": folder["id"], "Mode": "create", "Data": exported["value"][0]["data"]});
    assert_eq!(scene.client.post(&text(&session, "importUrl"), &item).0, 200);
    let tasks = scene.truth();
    assert_eq!((tasks.len(), &tasks[0].attachments), (2, &tasks[1].attachments));
    assert_eq!(tasks[0].properties["recurrence"], tasks[1].properties["recurrence"]);
}

#[test]
fn deltas_reproduce_the_lists_after_a_storm() {
    let organisation = Organisation { users: 1, messages: 0, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let (client, tenant) = (Client::new(&simulator), simulator.tenant());
    let switches = any::<[bool; 3]>().prop_map(|[duplicates, removed, empty]| Switches {
        duplicate_rows: duplicates,
        removed_in_first_round: removed,
        empty_pages: empty,
        ..Switches::default()
    });
    let rounds = prop::collection::vec((prop::collection::vec(any::<u64>(), 1..25), 1..7_usize), 1..4);
    let mut runner = TestRunner::new(ProptestConfig { cases: 25, ..ProptestConfig::with_source_file(file!()) });
    let run = runner.run(&(rounds, switches), |(rounds, switches)| {
        simulator.set_switches(switches);
        let principal_name = tenant.all_users().len().to_string();
        let user = tenant.add_user(UserSpec { principal_name, ..UserSpec::default() });
        let mut copies: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut links: BTreeMap<String, String> = BTreeMap::new();
        let root = format!("/v1.0/users/{user}/todo/lists");
        for (choices, page) in rounds {
            for choice in choices {
                tenant.change_tasks_at_random(&user, choice).expect("a change");
            }
            let lists = ids(&client.all(&root, &[]));
            copies.retain(|list, _| lists.contains(list));
            links.retain(|list, _| lists.contains(list));
            for list in lists {
                let first = format!("{root}/{list}/tasks/delta?$select=title");
                let page = format!("odata.maxpagesize={page}");
                let (rows, link) = client.delta(links.get(&list).unwrap_or(&first), &[&page]);
                let copy = copies.entry(list.clone()).or_default();
                for row in rows {
                    match row.get("@removed") {
                        Some(_) => drop(copy.remove(&text(&row, "id"))),
                        None => drop(copy.insert(text(&row, "id"), text(&row, "@odata.etag"))),
                    }
                }
                links.insert(list, link);
            }
            let lists = tenant.true_task_lists(&user).expect("a mailbox").into_iter();
            let mut truth: BTreeMap<_, BTreeMap<_, _>> = lists.map(|list| (list.id, BTreeMap::new())).collect();
            for task in tenant.true_tasks(&user).expect("a mailbox") {
                if let Some(list) = truth.get_mut(&task.list) {
                    list.insert(task.id, text(&task.properties, "@odata.etag"));
                }
            }
            prop_assert_eq!(&copies, &truth);
        }
        Ok(())
    });
    run.expect("the copies are the lists");
}
