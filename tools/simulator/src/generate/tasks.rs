//! Generated task lists and tasks: ordinary ones, and those that break careless programs.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use strongroom_corpora::office;
use strongroom_corpora::rng::Rng;

use super::events::file;
use crate::mime::{Attachment, Payload};
use crate::tenant::id::FolderKey;
use crate::tenant::{ListFacts, Mailbox, NewTask};

const TITLES: [&str; 7] = ["Buy milk", "Order; \"soon\"", "Größe prüfen", "買い物", "a/b\\c", "Call Zoë", "Файл"];
const LISTS: [&str; 5] = ["Groceries", "Größe & Maß", "家", "a/b", "Work: near"];

/// Returns the name of a list. Different calls sometimes give the same name.
pub fn list_name(rng: &mut Rng) -> String {
    let name = *rng.pick(&LISTS);
    if rng.chance(50) { name.to_owned() } else { format!("{name} {}", rng.below(100)) }
}

fn day(rng: &mut Rng) -> Value {
    let zone = *rng.pick(&["UTC", "Pacific Standard Time", "Tokyo Standard Time"]);
    let day = format!("{}-{:02}-{:02}T00:00:00.0000000", 2024 + rng.below(3), 1 + rng.below(12), 1 + rng.below(28));
    json!({"dateTime": day, "timeZone": zone})
}

fn recurrence(rng: &mut Rng) -> Value {
    let pattern = match rng.below(3) {
        0 => json!({"type": "daily", "interval": 1 + rng.below(3)}),
        1 => json!({"type": "weekly", "interval": 1, "daysOfWeek": ["monday", "friday"], "firstDayOfWeek": "sunday"}),
        _ => json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31}),
    };
    json!({"pattern": pattern, "range": {"type": "noEnd", "startDate": "2025-01-06", "recurrenceTimeZone": "UTC"}})
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { unreachable!("it was made as an object") };
    object
}

/// Returns a step of a task.
pub fn step(rng: &mut Rng) -> Map<String, Value> {
    let mut step = json!({"displayName": format!("Step {}", rng.below(1000)), "isChecked": rng.chance(40)});
    if step["isChecked"] == json!(true) {
        step["checkedDateTime"] = json!("2026-02-03T04:05:06Z");
    }
    object(step)
}

/// Returns an ordinary task: a title, and some of the other fields.
pub fn task(rng: &mut Rng) -> NewTask {
    let number = rng.below(100_000);
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    put("title", json!(format!("{} {number}", rng.pick(&TITLES))));
    let statuses = ["notStarted", "inProgress", "completed", "waitingOnOthers", "deferred"];
    put("status", json!(*rng.pick(&statuses)));
    put("importance", json!(*rng.pick(&["low", "normal", "high"])));
    if rng.chance(60) {
        put("body", json!({"content": format!("Notes {number}\r\nline; two"), "contentType": "text"}));
        put("bodyLastModifiedDateTime", json!("2026-02-03T04:05:06Z"));
    }
    if rng.chance(60) {
        put("dueDateTime", day(rng));
    }
    if rng.chance(20) {
        put("startDateTime", day(rng));
    }
    if rng.chance(20) {
        put("isReminderOn", json!(true));
        put(
            "reminderDateTime",
            json!({"dateTime": "2026-02-03T16:30:00.0000000", "timeZone": "Pacific Standard Time"}),
        );
    }
    if rng.chance(20) {
        put("recurrence", recurrence(rng));
    }
    let checklist = if rng.chance(40) { (0..=rng.below(4)).map(|_| step(rng)).collect() } else { Vec::new() };
    let link = json!({"applicationName": "Contoso", "displayName": format!("Ticket {number}"), "externalId": number.to_string(),
                      "webUrl": format!("https://contoso.com/{number}?a=1,2")});
    let links = if rng.chance(20) { vec![object(link)] } else { Vec::new() };
    let attachments = if rng.chance(20) { vec![file(rng, "list.bin")] } else { Vec::new() };
    let categories = if rng.chance(15) { vec!["Red category".to_owned()] } else { Vec::new() };
    let created = Some(office::BEGIN + rng.below((office::END - office::BEGIN) as u64) as i64);
    NewTask { fields, categories, checklist, links, attachments, created }
}

/// Returns the changed fields of an edit; null removes a field.
pub fn edit(rng: &mut Rng) -> Map<String, Value> {
    object(match rng.below(5) {
        0 => json!({"title": format!("Edited {}", rng.below(1000))}),
        1 => json!({"status": "completed"}),
        2 => json!({"status": "notStarted", "dueDateTime": day(rng)}),
        3 => {
            json!({"body": {"content": format!("Notes {}", rng.below(1000)), "contentType": "text"}, "importance": "high"})
        }
        _ => json!({"recurrence": recurrence(rng), "dueDateTime": null}),
    })
}

/// Adds lists and tasks to a mailbox: most in the default list, others in a second one, and one in a list that somebody
/// else shares.
pub fn fill(mailbox: &mut Mailbox, seed: u64, user: u64, count: usize) {
    if count == 0 {
        return;
    }
    let mut rng = Rng::for_purpose(seed, &format!("tasks {user}"));
    let default = mailbox.well_known("tasks").expect("every mailbox has it");
    let mut list =
        |name: &str, facts: ListFacts| mailbox.add_task_list(name, facts).expect("every mailbox has the place");
    let own = list("Groceries", ListFacts::default());
    let shared = list("With Zoë", ListFacts { shared: true, of_others: false });
    let others = list("Dana's list", ListFacts { shared: true, of_others: true });
    let put = |mailbox: &mut Mailbox, list: FolderKey, task: NewTask| {
        mailbox.add_message(task.arrival(list)).expect("the list was just made");
    };
    let places = [default, default, own, shared];
    for number in 0..count {
        put(mailbox, places[number % places.len()], task(&mut rng));
    }
    put(mailbox, others, task(&mut rng));
}

/// Adds lists and tasks with values that break careless programs.
pub fn add_odd(mailbox: &mut Mailbox, names: &[&str]) {
    let default = mailbox.well_known("tasks").expect("every mailbox has it");
    let created = Some(office::BEGIN);
    for task in odd() {
        mailbox.add_message(NewTask { created, ..task }.arrival(default)).expect("every mailbox has it");
    }
    // Lists may have the same name.
    for name in names.iter().chain(["README"].iter()) {
        let list = mailbox.add_task_list(name, ListFacts::default()).expect("every mailbox has the place");
        let task = NewTask { created, ..NewTask::with(json!({"title": name})) };
        mailbox.add_message(task.arrival(list)).expect("the list was just made");
    }
}

/// Returns tasks with values that break careless programs.
pub fn odd() -> Vec<NewTask> {
    let all = [
        json!({}),
        json!({"title": ""}),
        json!({"title": "BEGIN:VTODO\r\nEND:VCALENDAR"}),
        json!({"title": "\u{202e}Unicode\u{0} \u{1f468}\u{200d}\u{1f469} e\u{301}\u{1}\u{7}"}),
        json!({"title": "x".repeat(5_000)}),
        json!({"title": "Html", "body": {"content": "<p>a &lt; b</p>", "contentType": "html"}}),
        json!({"title": "Notes", "body": {"content": "Long; lines, \\ and\r\n\u{b}\t\u{2028}\n".repeat(20_000), "contentType": "text"}}),
        json!({"title": "Future", "wallets": [{"coin": 1.5}], "nothing": null}),
        json!({"title": "Long ago", "dueDateTime": {"dateTime": "1601-01-01T00:00:00", "timeZone": "UTC"}}),
    ];
    let mut all: Vec<NewTask> = all.into_iter().map(NewTask::with).collect();
    let mut rng = Rng::new(5);
    let named = |name: &str, payload: Payload, rng: &mut Rng| Attachment { payload, ..file(rng, name) };
    let attachments = vec![
        file(&mut rng, "../../etc/passwd"),
        file(&mut rng, "twin.bin"),
        file(&mut rng, "twin.bin"),
        named("empty", Payload::File(Arc::new(Vec::new())), &mut rng),
        named("large", Payload::File(Arc::new(Rng::new(6).bytes(4 << 20))), &mut rng),
    ];
    all.push(NewTask { attachments, ..NewTask::with(json!({"title": "Attachments"})) });
    let checklist = (0..100).map(|_| step(&mut rng)).collect();
    all.push(NewTask { checklist, ..NewTask::with(json!({"title": "Steps"})) });
    all
}
