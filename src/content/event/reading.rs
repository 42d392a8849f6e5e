//! The text of an event: what people read, for `grep`.

use super::zone::Zone;
use super::{Event, cancelled_date, day_of, exceptions, instant_of, is_all_day, list, text};
use crate::content::ical::clean;
use crate::content::text::of_html;
use serde_json::Value;
use std::fmt::Write;

impl Event<'_> {
    /// Returns what people read of the event: when and where it is, who takes part, and its text; then the same of each
    /// changed instance of a series.
    pub fn reading(&self) -> String {
        let mut out = String::new();
        self.part(&mut out, self.event);
        for exception in exceptions(self.event) {
            let original = text(exception, "originalStart").get(..10).unwrap_or_default();
            let _ = write!(out, "\n--- Changed: {}\n\n", clean(original));
            self.part(&mut out, exception);
        }
        out
    }

    fn part(&self, out: &mut String, json: &Value) {
        line(out, "Subject", text(json, "subject"));
        line(out, "When", &when(json).unwrap_or_default());
        if let Some(pattern) = json.get("recurrence").and_then(|recurrence| recurrence.get("pattern")) {
            line(out, "Repeats", text(pattern, "type"));
            let days: Vec<_> = self.cancelled.iter().filter_map(|id| cancelled_date(id)).collect();
            let days: Vec<_> = days.iter().map(ToString::to_string).collect();
            line(out, "Not on", &days.join(", "));
        }
        line(out, "Where", json.get("location").map_or("", |place| text(place, "displayName")));
        line(out, "Organizer", &json.get("organizer").map(person).unwrap_or_default());
        let attendees: Vec<_> = list(json, "attendees").map(person).collect();
        line(out, "Attendees", &attendees.join(", "));
        let categories: Vec<_> = list(json, "categories").filter_map(Value::as_str).collect();
        line(out, "Categories", &categories.join(", "));
        for attached in self.attachments.iter().filter(|attached| attached.event == text(json, "id")) {
            line(out, "Attachment", text(&attached.properties, "name"));
        }
        let Some(body) = json.get("body") else { return };
        let content = text(body, "content");
        let shown = match text(body, "contentType").eq_ignore_ascii_case("html") {
            true => of_html(content),
            false => clean(content),
        };
        let shown = shown.trim();
        if !shown.is_empty() {
            let _ = write!(out, "\n{shown}\n");
        }
    }
}

/// Adds a line, unless it would be empty.
fn line(out: &mut String, name: &str, text: &str) {
    let text = clean(text).replace('\n', " ");
    let text = text.trim();
    if !text.is_empty() {
        let _ = writeln!(out, "{name}: {text}");
    }
}

/// Returns when an event is, as clocks show it where it takes place.
fn when(json: &Value) -> Option<String> {
    let zone = Zone::named(text(json, "originalStartTimeZone")).unwrap_or_else(Zone::utc);
    if is_all_day(json) {
        return Some(day_of(json, "start", &zone)?.to_string());
    }
    let shown = |name: &str| Some(zone.local(instant_of(json, name)?)?.strftime("%Y-%m-%d %H:%M").to_string());
    let start = shown("start")?;
    let end = shown("end").map(|end| format!(" to {end}")).unwrap_or_default();
    Some(format!("{start}{end} ({})", zone.id().unwrap_or("UTC")))
}

/// Returns a person's name and address (Graph: recipient).
fn person(recipient: &Value) -> String {
    let Some(address) = recipient.get("emailAddress") else { return String::new() };
    let (name, address) = (text(address, "name"), text(address, "address"));
    if name.is_empty() || name == address { address.to_owned() } else { format!("{name} <{address}>") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_has_what_people_read() {
        let event = json!({
            "id": "1", "subject": "Lunch\r\nEvil: 1", "originalStartTimeZone": "W. Europe Standard Time",
            "start": {"dateTime": "2026-03-02T08:00:00", "timeZone": "UTC"},
            "end": {"dateTime": "2026-03-02T08:30:00", "timeZone": "UTC"},
            "location": {"displayName": "Harry's"}, "organizer": {"emailAddress": {"name": "A", "address": "a@b.c"}},
            "attendees": [{"emailAddress": {"name": "d@e.f", "address": "d@e.f"}}],
            "body": {"contentType": "html", "content": "<p>Bring it</p>"},
            "recurrence": {"pattern": {"type": "daily"}},
            "exceptionOccurrences": [{"id": "2", "subject": "Late", "originalStart": "2026-03-03T08:00:00Z"}],
        });
        let cancelled = ["OID.1.2026-03-04".to_owned()];
        let text = Event { event: &event, cancelled: &cancelled, attachments: &[] }.reading();
        let expected = "Subject: Lunch Evil: 1\nWhen: 2026-03-02 09:00 to 2026-03-02 09:30 (Europe/Berlin)\n\
            Repeats: daily\nNot on: 2026-03-04\nWhere: Harry's\nOrganizer: A <a@b.c>\nAttendees: d@e.f\n\nBring it\n\
            \n--- Changed: 2026-03-03\n\nSubject: Late\n";
        assert_eq!(text, expected);
    }
}
