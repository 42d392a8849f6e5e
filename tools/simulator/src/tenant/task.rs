//! Tasks of To Do: what they are, their steps, and their links to other things.

use std::collections::BTreeMap;

use jiff::civil::{Date, Time};
use serde_json::{Map, Value, json};
use strongroom_corpora::rng::Rng;

use super::content::{read_attachment, written_attachment};
use super::series::Recurrence;
use super::zones::{instant, local, local_text, parse_local, zone_or_utc};
use crate::mime::Attachment;

/// Kind of a field of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskField {
    /// A text.
    Text,
    /// True or false.
    Flag,
    /// One of these words; the first one if the client gives none.
    Word(&'static [&'static str]),
    /// Text with its type.
    Body,
    /// A day: the service keeps midnight, in the zone that the client names.
    Day,
    /// A point in time.
    Time,
    /// When the task comes again.
    Recurrence,
}

/// The fields of a task that a client can write (Graph: "todoTask resource type"), apart from its categories.
pub const TASK_FIELDS: [(&str, TaskField); 10] = [
    ("body", TaskField::Body),
    ("completedDateTime", TaskField::Day),
    ("dueDateTime", TaskField::Day),
    ("importance", TaskField::Word(&["normal", "low", "high"])),
    ("isReminderOn", TaskField::Flag),
    ("recurrence", TaskField::Recurrence),
    ("reminderDateTime", TaskField::Time),
    ("startDateTime", TaskField::Day),
    ("status", TaskField::Word(&["notStarted", "inProgress", "completed", "waitingOnOthers", "deferred"])),
    ("title", TaskField::Text),
];

/// The content of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Its fields, without those that have their default value. Times are in UTC. May contain names that are not in
    /// [`TASK_FIELDS`].
    pub fields: Map<String, Value>,
    /// Its steps by their number, in the form of Graph without their ids.
    pub checklist: BTreeMap<u32, Map<String, Value>>,
    /// Its links by their number, in the form of Graph without their ids.
    pub links: BTreeMap<u32, Map<String, Value>>,
    /// Its attachments, all of them files.
    pub attachments: Vec<Attachment>,
    /// Number of steps, links and attachments that it ever had.
    pub parts_made: u32,
}

impl Task {
    /// Returns a task with these fields in the form of Graph. Unlike those of a request, they are not checked.
    pub fn new(fields: &Map<String, Value>) -> Self {
        let mut task = Self::default();
        task.set(fields);
        task
    }

    /// Returns a field's text; empty if it has none.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns whether it is done.
    pub fn is_completed(&self) -> bool {
        self.text("status") == "completed"
    }

    /// Sets fields; null removes one. Days and times are stored in UTC.
    pub fn set(&mut self, fields: &Map<String, Value>) {
        for (name, value) in fields {
            let kind = TASK_FIELDS.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind);
            let value = match kind {
                Some(TaskField::Day) => in_utc(value, true),
                Some(TaskField::Time) => in_utc(value, false),
                _ => value.clone(),
            };
            if value.is_null() {
                self.fields.remove(name);
            } else {
                self.fields.insert(name.clone(), value);
            }
        }
    }

    /// Returns the number of the next step, link or attachment.
    pub fn next_part(&mut self) -> u32 {
        self.parts_made += 1;
        self.parts_made - 1
    }

    /// Adds an attachment and returns its number.
    pub fn attach(&mut self, attachment: Attachment) -> u32 {
        let number = self.next_part();
        self.attachments.push(Attachment { number, ..attachment });
        number
    }

    /// Notes when the task was completed, or that it is no longer completed.
    pub fn settle(&mut self, now: i64) {
        if !self.is_completed() {
            self.fields.remove("completedDateTime");
        } else if !self.fields.contains_key("completedDateTime") {
            let today = local(jiff::Timestamp::from_second(now).unwrap_or_default(), &jiff::tz::TimeZone::UTC).date();
            self.fields.insert("completedDateTime".to_owned(), midnight(today));
        }
    }

    /// Returns the task that comes after this one, if it comes again: open, with the next day of its pattern.
    pub fn next(&self) -> Option<Self> {
        let mut recurrence = Recurrence::read(self.fields.get("recurrence")?).ok()?;
        let due = self.fields.get("dueDateTime").and_then(|due| parse_local(due["dateTime"].as_str()?));
        let last = due.map_or_else(|| recurrence.start(), |due| due.date());
        let next = recurrence.days().find(|day| *day > last)?;
        recurrence.begin(next);
        let mut task = self.clone();
        for gone in ["status", "completedDateTime", "startDateTime"] {
            task.fields.remove(gone);
        }
        task.fields.insert("recurrence".to_owned(), recurrence.to_json());
        task.fields.insert("dueDateTime".to_owned(), midnight(next));
        for step in task.checklist.values_mut() {
            step.insert("isChecked".to_owned(), json!(false));
            step.remove("checkedDateTime");
        }
        Some(task)
    }

    /// Returns everything in one document, to be exported.
    pub fn to_json(&self) -> Vec<u8> {
        let parts = |parts: &BTreeMap<u32, Map<String, Value>>| -> Value {
            parts.iter().map(|(number, part)| json!([number, part])).collect()
        };
        json!({
            "fields": self.fields,
            "checklist": parts(&self.checklist),
            "links": parts(&self.links),
            "attachments": self.attachments.iter().map(written_attachment).collect::<Vec<_>>(),
            "partsMade": self.parts_made,
        })
        .to_string()
        .into_bytes()
    }

    /// Returns the task in a document of [`Self::to_json`].
    pub fn from_json(document: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(document).ok()?;
        let parts = |name: &str| -> Option<BTreeMap<u32, Map<String, Value>>> {
            let parts = document[name].as_array()?.iter();
            parts.map(|part| Some((u32::try_from(part[0].as_u64()?).ok()?, part[1].as_object()?.clone()))).collect()
        };
        Some(Self {
            fields: document["fields"].as_object()?.clone(),
            checklist: parts("checklist")?,
            links: parts("links")?,
            attachments: document["attachments"].as_array()?.iter().map(read_attachment).collect::<Option<_>>()?,
            parts_made: u32::try_from(document["partsMade"].as_u64()?).ok()?,
        })
    }
}

fn midnight(day: Date) -> Value {
    json!({"dateTime": local_text(day.to_datetime(Time::midnight())), "timeZone": "UTC"})
}

/// Returns a time in UTC; for a day, its midnight in the zone that the value names.
fn in_utc(value: &Value, is_day: bool) -> Value {
    let Some(at) = value["dateTime"].as_str().and_then(parse_local) else { return Value::Null };
    let zone = zone_or_utc(value["timeZone"].as_str().unwrap_or("UTC"));
    let at = if is_day { at.date().to_datetime(Time::midnight()) } else { at };
    let at = local(instant(at, &zone), &jiff::tz::TimeZone::UTC);
    json!({"dateTime": local_text(at), "timeZone": "UTC"})
}

/// Returns the id of a step or a link of a task.
pub fn part_id(mailbox: &[u8; 16], task: u32, number: u32) -> String {
    let seed = u64::from_le_bytes(mailbox[..8].try_into().expect("eight bytes"));
    Rng::for_purpose(seed, &format!("part {task} {number}")).uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(fields: Value) -> Task {
        Task::new(fields.as_object().expect("an object"))
    }

    fn daily(range: Value) -> Value {
        let mut range = range;
        range["startDate"] = json!("2026-03-30");
        json!({"pattern": {"type": "daily", "interval": 2}, "range": range})
    }

    #[test]
    fn days_are_midnights_in_the_zone_of_the_client() {
        let task = task(json!({
            "dueDateTime": {"dateTime": "2026-01-05T14:30:00", "timeZone": "Pacific Standard Time"},
            "reminderDateTime": {"dateTime": "2026-01-05T14:30:00", "timeZone": "Pacific Standard Time"},
        }));
        assert_eq!(task.fields["dueDateTime"], json!({"dateTime": "2026-01-05T08:00:00.0000000", "timeZone": "UTC"}));
        assert_eq!(task.fields["reminderDateTime"]["dateTime"], "2026-01-05T22:30:00.0000000");
    }

    #[test]
    fn a_task_that_comes_again_has_a_next_one() {
        let mut task = task(json!({
            "title": "T", "status": "completed", "recurrence": daily(json!({"type": "noEnd"})),
            "dueDateTime": {"dateTime": "2026-04-01T00:00:00", "timeZone": "UTC"},
        }));
        task.settle(0);
        let step = json!({"displayName": "a", "isChecked": true, "checkedDateTime": "2026-01-01T00:00:00Z"});
        task.checklist.insert(0, step.as_object().expect("an object").clone());
        let next = task.next().expect("a next task");
        assert_eq!(next.fields["dueDateTime"]["dateTime"], "2026-04-03T00:00:00.0000000");
        assert_eq!(next.fields["recurrence"]["range"]["startDate"], "2026-04-03");
        assert!(!next.is_completed() && !next.fields.contains_key("completedDateTime"));
        assert_eq!(
            next.checklist[&0],
            json!({"displayName": "a", "isChecked": false}).as_object().expect("an object").clone()
        );
        assert_eq!(Task::from_json(&task.to_json()), Some(task.clone()));
        let ends = daily(json!({"type": "endDate", "endDate": "2026-04-02"}));
        task.fields.insert("recurrence".to_owned(), ends);
        assert_eq!(task.next(), None);
        task.fields.remove("recurrence");
        assert_eq!(task.next(), None);
    }
}
