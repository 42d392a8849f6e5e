//! What a task of the service says, as a task of a file.

use super::Task;
use crate::content::task::{AttachedFile, Body, Importance, Status, Step, Task as Todo};
use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Hours after which a moment belongs to the next day: see [`day`].
const NOON: SignedDuration = SignedDuration::from_hours(12);

impl Task {
    /// Returns what the task says, together with its files. A property of an unexpected type counts as unset.
    pub fn todo(&self, files: Vec<AttachedFile>) -> Todo {
        let json: Value = serde_json::from_str(self.raw.get()).unwrap_or_default();
        let time = |name: &str| json.get(name).and_then(Value::as_str)?.parse::<Timestamp>().ok().filter(is_set);
        let links = list(&json, "linkedResources").map(|link| text(link, "webUrl")).filter(|link| !link.is_empty());
        let step = |step: &Value| Step {
            title: text(step, "displayName"),
            is_done: step.get("isChecked").and_then(Value::as_bool).unwrap_or(false),
        };
        let is_reminder_on = json.get("isReminderOn").and_then(Value::as_bool).unwrap_or(true);
        let recurrence = json.get("recurrence").filter(|recurrence| recurrence.is_object());
        Todo {
            uid: self.row.id.clone(),
            title: text(&json, "title"),
            body: body(&json),
            status: match text(&json, "status").as_str() {
                "inProgress" => Status::Begun,
                "completed" => Status::Done,
                "waitingOnOthers" => Status::Waiting,
                "deferred" => Status::Deferred,
                _ => Status::Open,
            },
            importance: match text(&json, "importance").as_str() {
                "high" => Importance::High,
                "low" => Importance::Low,
                _ => Importance::Normal,
            },
            created: time("createdDateTime"),
            changed: time("lastModifiedDateTime"),
            start: day(json.get("startDateTime")),
            due: day(json.get("dueDateTime")),
            completed: moment(json.get("completedDateTime")),
            reminder: moment(json.get("reminderDateTime")).filter(|_| is_reminder_on),
            recurrence: recurrence.cloned(),
            recurs_from: recurrence.and_then(|recurrence| date(&recurrence["range"]["startDate"])),
            categories: list(&json, "categories").filter_map(Value::as_str).map(str::to_owned).collect(),
            steps: list(&json, "checklistItems").map(step).collect(),
            links: links.collect(),
            files,
        }
    }
}

fn text(json: &Value, name: &str) -> String {
    json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(json: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    json.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn body(json: &Value) -> Body {
    let body = &json["body"];
    let content = text(body, "content");
    match text(body, "contentType").as_str() {
        "html" if !content.trim().is_empty() => Body::Html(content),
        _ => Body::Text(content),
    }
}

/// Returns true unless the time stands for an unset one: the service writes the year 1 then.
fn is_set(time: &Timestamp) -> bool {
    time.as_second() > -62_000_000_000
}

/// Returns a local time and whether its zone is UTC (Graph: dateTimeTimeZone).
fn local(json: Option<&Value>) -> Option<(DateTime, bool)> {
    let json = json?;
    let at: DateTime = text(json, "dateTime").parse().ok()?;
    let zone = text(json, "timeZone").to_ascii_lowercase();
    let is_utc = ["", "utc", "etc/utc", "gmt", "etc/gmt"].contains(&zone.as_str());
    (at.year() > 1).then_some((at, is_utc))
}

/// Returns the day that is meant. The service keeps the midnight with which the day begins where the user lives, and
/// says it in UTC: 22:00 of the day before, for a user in Berlin. So the nearest midnight in UTC is meant. Only for users
/// 13 hours and more east of Greenwich that is the wrong one.
fn day(json: Option<&Value>) -> Option<Date> {
    let (at, is_utc) = local(json)?;
    if is_utc { at.checked_add(NOON).ok().map(DateTime::date) } else { Some(at.date()) }
}

/// Returns a moment. Of one in another zone than UTC only the day is taken: the service is not asked for other zones.
fn moment(json: Option<&Value>) -> Option<Timestamp> {
    let (at, is_utc) = local(json)?;
    let at = if is_utc { at } else { at.date().to_datetime(Time::midnight()) };
    jiff::tz::TimeZone::UTC.to_timestamp(at).ok()
}

fn date(json: &Value) -> Option<Date> {
    json.as_str()?.parse().ok().filter(|date: &Date| date.year() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn todo(mut properties: Value) -> Todo {
        properties["@strongroom.list"] = json!("L");
        properties["id"] = json!("T");
        serde_json::from_value::<Task>(properties).unwrap().todo(Vec::new())
    }

    #[test]
    fn a_day_is_the_one_that_is_meant() {
        let due = |at: &str, zone: &str| {
            let due = todo(json!({ "dueDateTime": { "dateTime": at, "timeZone": zone } })).due;
            due.map(|date| date.to_string())
        };
        for (at, zone, expected) in [
            ("2020-08-25T00:00:00.0000000", "UTC", "2020-08-25"),
            // Midnight in New York, Honolulu, Berlin, Delhi, Auckland in winter.
            ("2020-08-25T04:00:00.0000000", "UTC", "2020-08-25"),
            ("2020-08-25T10:00:00.0000000", "UTC", "2020-08-25"),
            ("2020-08-24T22:00:00.0000000", "UTC", "2020-08-25"),
            ("2020-08-24T18:30:00.0000000", "UTC", "2020-08-25"),
            ("2020-08-24T12:00:00.0000000", "UTC", "2020-08-25"),
            ("2020-12-31T23:00:00.0000000", "UTC", "2021-01-01"),
            // The service was asked in another zone.
            ("2020-08-25T00:00:00.0000000", "W. Europe Standard Time", "2020-08-25"),
            ("2020-08-25T22:00:00.0000000", "Europe/Berlin", "2020-08-25"),
        ] {
            assert_eq!(due(at, zone).as_deref(), Some(expected), "{at} {zone}");
        }
        for unset in ["0001-01-01T00:00:00.0000000", "", "soon", "2020-13-01T00:00:00"] {
            assert_eq!(due(unset, "UTC"), None, "{unset}");
        }
    }

    #[test]
    fn what_recurs_has_a_first_day() {
        let recurrence = json!({ "pattern": { "type": "daily" }, "range": { "startDate": "2017-09-04" } });
        let read = todo(json!({ "recurrence": recurrence }));
        assert_eq!((read.recurs_from, read.recurrence), (Some(jiff::civil::date(2017, 9, 4)), Some(recurrence)));
        let read = todo(json!({ "recurrence": null }));
        assert_eq!((read.recurs_from, read.recurrence), (None, None));
    }

    #[test]
    fn what_has_another_type_counts_as_unset() {
        let odd = todo(json!({
            "title": null, "status": 7, "body": "x", "categories": [1, "Red"], "checklistItems": [null, {}],
            "linkedResources": [{ "webUrl": null }, { "webUrl": "https://a.b" }], "recurrence": [],
            "reminderDateTime": { "dateTime": "2026-11-02T09:30:00.0000000", "timeZone": "UTC" }, "isReminderOn": false,
            "completedDateTime": { "dateTime": "2026-11-02T00:00:00.0000000", "timeZone": "UTC" },
        }));
        let expected = Todo {
            uid: "T".to_owned(),
            categories: vec!["Red".to_owned()],
            steps: vec![Step::default(), Step::default()],
            links: vec!["https://a.b".to_owned()],
            completed: "2026-11-02T00:00:00Z".parse().ok(),
            ..Todo::default()
        };
        assert_eq!(odd, expected);
    }
}
