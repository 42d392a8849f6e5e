//! Events of calendars: appointments and series, with the exceptions and the cancelled days of a series.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Map, Value, json};

use super::content::{read_attachment, written_attachment};
use super::series::Recurrence;
use super::zones::{self, CUSTOM, instant, local, shifted_end, zone, zone_or_utc};
use crate::mime::Attachment;

/// Kind of a field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventField {
    /// A text.
    Text,
    /// True or false, with the value that it has if the client gives none.
    Flag(bool),
    /// A number of minutes.
    Minutes,
    /// One of these words; the first one if the client gives none.
    Word(&'static [&'static str]),
    /// Text with its type.
    Body,
    /// Who is invited.
    Attendees,
    /// A place.
    Place,
    /// Several places.
    Places,
}

/// The fields of an event in v1.0 that a client can write (Graph: "event resource type"), apart from its times, its
/// recurrence and its categories.
pub const EVENT_FIELDS: [(&str, EventField); 16] = [
    ("allowNewTimeProposals", EventField::Flag(true)),
    ("attendees", EventField::Attendees),
    ("body", EventField::Body),
    ("hideAttendees", EventField::Flag(false)),
    ("importance", EventField::Word(&["normal", "low", "high"])),
    ("isOnlineMeeting", EventField::Flag(false)),
    ("isReminderOn", EventField::Flag(true)),
    ("location", EventField::Place),
    ("locations", EventField::Places),
    (
        "onlineMeetingProvider",
        EventField::Word(&["unknown", "teamsForBusiness", "skypeForBusiness", "skypeForConsumer"]),
    ),
    ("reminderMinutesBeforeStart", EventField::Minutes),
    ("responseRequested", EventField::Flag(true)),
    ("sensitivity", EventField::Word(&["normal", "personal", "private", "confidential"])),
    ("showAs", EventField::Word(&["busy", "unknown", "free", "tentative", "oof", "workingElsewhere"])),
    ("subject", EventField::Text),
    ("transactionId", EventField::Text),
];

/// Minutes between a reminder and the start, if the client does not say.
pub const REMINDER_MINUTES: i64 = 15;

/// The fields that say when an event is.
pub const TIMES: [&str; 4] = ["start", "end", "isAllDay", "recurrence"];

/// An appointment, or what is common to the occurrences of a series, or an exception of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Appointment {
    /// Its fields in the form of v1.0, without its times and without those that have their default value. May contain
    /// names that are not in [`EVENT_FIELDS`], such as `organizer` and `responseStatus`: those of a meeting that
    /// somebody else organised, and fields that no client knows.
    pub fields: Map<String, Value>,
    /// When it begins, by the clocks in its zone.
    pub start: DateTime,
    /// When it ends, by the clocks in its zone.
    pub end: DateTime,
    /// Name of the zone by whose rules it takes place.
    pub zone: String,
    /// The shown names of the zones in which its start and its end were entered.
    pub original_zones: (String, String),
    /// True if it lasts for whole days, in whatever zone one looks at it.
    pub all_day: bool,
    /// Its attachments. Their numbers are unique in the whole series.
    pub attachments: Vec<Attachment>,
}

/// An occurrence that was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    /// What is in the place of the occurrence.
    pub appointment: Appointment,
    /// Change number of its last change.
    pub change: u64,
    /// When it last changed.
    pub modified: i64,
}

/// The content of an event of a calendar.
#[derive(Clone, Debug, PartialEq)]
pub struct CalendarEvent {
    /// Identifies the event in all mailboxes: the bytes at the end of its global object id.
    pub uid: [u8; 16],
    /// What it is; for a series, its first occurrence by the pattern.
    pub appointment: Appointment,
    /// The pattern of a series.
    pub recurrence: Option<Recurrence>,
    /// Changed occurrences by their day.
    pub exceptions: BTreeMap<Date, Exception>,
    /// The days of occurrences that were deleted.
    pub cancelled: BTreeSet<Date>,
    /// How often the pattern changed. The ids of occurrences contain it.
    pub pattern_edition: u32,
    /// Number of attachments that the event ever had.
    pub attachments_made: u32,
}

impl Appointment {
    /// Returns a field's text; empty if it has none.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the invited people.
    pub fn attendees(&self) -> &[Value] {
        self.fields.get("attendees").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns whether somebody else organised it.
    pub fn is_of_others(&self) -> bool {
        self.fields.get("isOrganizer") == Some(&json!(false))
    }

    /// Returns when it begins and ends.
    pub fn instants(&self) -> (Timestamp, Timestamp) {
        let zone = zone_or_utc(&self.zone);
        (instant(self.start, &zone), instant(self.end, &zone))
    }

    /// Returns whether some of it is between `from` and `to`.
    pub fn is_within(&self, from: Timestamp, to: Timestamp) -> bool {
        is_within(self.instants(), from, to)
    }

    /// Returns its start and end as clocks in `zone` show them. Days without a time are the same everywhere.
    pub fn shown_in(&self, zone: &TimeZone) -> (DateTime, DateTime) {
        if self.all_day {
            return (self.start, self.end);
        }
        let (start, end) = self.instants();
        (local(start, zone), local(end, zone))
    }

    /// Returns this appointment on another day, at the same time of day.
    pub fn on(&self, day: Date) -> Self {
        let (start, end) = self.times_on(day);
        Self { start, end, ..self.clone() }
    }

    fn times_on(&self, day: Date) -> (DateTime, DateTime) {
        let start = day.to_datetime(self.start.time());
        (start, shifted_end(start, self.start, self.end))
    }

    /// Sets fields without checking them; null removes one.
    pub fn set_fields(&mut self, fields: &Map<String, Value>) {
        for (name, value) in fields.iter().filter(|(name, _)| !TIMES.contains(&name.as_str())) {
            match value {
                Value::Null => drop(self.fields.remove(name)),
                value => drop(self.fields.insert(name.clone(), value.clone())),
            }
        }
    }

    /// Sets the times that `fields` names, in the zones that they name.
    pub fn set_times(&mut self, fields: &Map<String, Value>) {
        let day = |at: DateTime| at.date().to_datetime(Time::midnight());
        self.all_day = fields.get("isAllDay").and_then(Value::as_bool).unwrap_or(self.all_day);
        let start = fields.get("start").and_then(read_time);
        let end = fields.get("end").and_then(read_time);
        if let Some((start, name)) = start {
            let length = (self.start, self.end);
            self.start = start;
            self.end = shifted_end(start, length.0, length.1);
            self.zone = if zone(&name).is_some() { name.clone() } else { "UTC".to_owned() };
            self.original_zones.0 = name;
        }
        if let Some((end, name)) = end {
            // An all-day event has the same days in every zone.
            let there = if self.all_day { end } else { moved(end, &name, &self.zone) };
            self.end = there;
            self.original_zones.1 = name;
        }
        if self.all_day {
            (self.start, self.end) = (day(self.start), day(self.end));
            if self.end <= self.start {
                self.end = self.start.saturating_add(1.day());
            }
        }
        self.end = self.end.max(self.start);
    }

    /// Enters the times in another zone. The instants stay the same.
    fn enter_in(&mut self, name: &str) {
        if zone(name).is_none() || self.zone == name {
            return;
        }
        if !self.all_day {
            self.start = moved(self.start, &self.zone, name);
            self.end = moved(self.end, &self.zone, name);
        }
        name.clone_into(&mut self.zone);
    }
}

fn is_within((start, end): (Timestamp, Timestamp), from: Timestamp, to: Timestamp) -> bool {
    start < to && (end > from || start >= from)
}

/// Returns the time in the zone named `to` at which it is `at` in the zone named `from`.
fn moved(at: DateTime, from: &str, to: &str) -> DateTime {
    if from == to { at } else { local(instant(at, &zone_or_utc(from)), &zone_or_utc(to)) }
}

/// Reads a time with the name of its zone.
pub fn read_time(value: &Value) -> Option<(DateTime, String)> {
    let at = zones::parse_local(value["dateTime"].as_str()?)?;
    Some((at, value["timeZone"].as_str().unwrap_or("UTC").to_owned()))
}

impl CalendarEvent {
    /// Returns an event with these fields in the form of v1.0, its times and its recurrence among them. Unlike those of
    /// a request, they are not checked. Without a start, it takes place at the beginning of 2026.
    pub fn new(uid: [u8; 16], fields: &Map<String, Value>) -> Self {
        let start = DateTime::constant(2026, 1, 1, 0, 0, 0, 0);
        let appointment = Appointment {
            fields: Map::new(),
            start,
            end: start,
            zone: "UTC".to_owned(),
            original_zones: ("UTC".to_owned(), "UTC".to_owned()),
            all_day: false,
            attachments: Vec::new(),
        };
        let mut event = Self {
            uid,
            appointment,
            recurrence: None,
            exceptions: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            pattern_edition: 0,
            attachments_made: 0,
        };
        event.set(fields);
        event.pattern_edition = 0;
        event
    }

    /// Sets fields of an appointment or of a whole series; null removes one. If the pattern of a series changes, or the
    /// time of day, its exceptions and cancelled days are forgotten, as in Outlook.
    pub fn set(&mut self, fields: &Map<String, Value>) {
        self.appointment.set_fields(fields);
        if !TIMES.iter().any(|name| fields.contains_key(*name)) {
            return;
        }
        let pattern = |event: &Self| {
            let at = &event.appointment;
            (event.recurrence.clone(), at.start, at.end, at.zone.clone(), at.all_day)
        };
        let before = pattern(self);
        self.appointment.set_times(fields);
        match fields.get("recurrence") {
            Some(Value::Null) => self.recurrence = None,
            Some(recurrence) => self.recurrence = Recurrence::read(recurrence).ok(),
            None if fields.contains_key("start") => {
                if let Some(recurrence) = &mut self.recurrence {
                    recurrence.begin(self.appointment.start.date());
                }
            }
            None => {}
        }
        if let Some(recurrence) = &mut self.recurrence {
            self.appointment.enter_in(&recurrence.zone);
            if let Some(first) = recurrence.first() {
                self.appointment = self.appointment.on(first);
                recurrence.begin(first);
            }
        }
        if before != pattern(self) {
            self.exceptions.clear();
            self.cancelled.clear();
            self.pattern_edition += 1;
        }
    }

    /// Shows the zone as one that an old program made up.
    pub fn hide_zone(&mut self) {
        self.appointment.original_zones = (CUSTOM.to_owned(), CUSTOM.to_owned());
    }

    /// Returns whether the series has an occurrence or an exception on this day.
    pub fn has(&self, day: Date) -> bool {
        !self.cancelled.contains(&day) && self.recurrence.as_ref().is_some_and(|recurrence| recurrence.has(day))
    }

    /// Returns what takes place on a day of the series: the exception, or the occurrence.
    pub fn on(&self, day: Date) -> Appointment {
        self.exceptions.get(&day).map_or_else(|| self.appointment.on(day), |changed| changed.appointment.clone())
    }

    /// Returns when the occurrence of this day begins by the pattern.
    pub fn original_start(&self, day: Date) -> Timestamp {
        instant(self.appointment.on(day).start, &zone_or_utc(&self.appointment.zone))
    }

    /// Returns the days of the series on which something takes place between `from` and `to`, in the order of the days.
    pub fn days_within(&self, from: Timestamp, to: Timestamp) -> Vec<Date> {
        let Some(recurrence) = &self.recurrence else { return Vec::new() };
        let zone = zone_or_utc(&self.appointment.zone);
        let timed = recurrence.days().map(|day| {
            let (start, end) = self.appointment.times_on(day);
            (day, (instant(start, &zone), instant(end, &zone)))
        });
        let by_pattern =
            timed.take_while(|(_, (start, _))| *start < to).filter(|(_, times)| is_within(*times, from, to));
        let unchanged = |day: &Date| !self.exceptions.contains_key(day) && !self.cancelled.contains(day);
        let mut days: Vec<Date> = by_pattern.map(|(day, _)| day).filter(unchanged).collect();
        // Exceptions may be far away from their day.
        let changed = self.exceptions.iter().filter(|(_, exception)| exception.appointment.is_within(from, to));
        days.extend(changed.map(|(day, _)| *day));
        days.sort_unstable();
        days
    }

    /// Returns the exception of a day. If there is none, it becomes one, with copies of the series' attachments.
    pub fn exception_mut(&mut self, day: Date) -> &mut Exception {
        if !self.exceptions.contains_key(&day) {
            let mut appointment = self.appointment.on(day);
            for attachment in &mut appointment.attachments {
                attachment.number = self.attachments_made;
                self.attachments_made += 1;
            }
            self.exceptions.insert(day, Exception { appointment, change: 0, modified: 0 });
        }
        self.exceptions.get_mut(&day).expect("it was just added")
    }

    /// Deletes the occurrence of a day.
    pub fn cancel(&mut self, day: Date) {
        self.exceptions.remove(&day);
        self.cancelled.insert(day);
    }

    /// Adds an attachment to the event, or to the exception of a day, and returns its number.
    pub fn attach(&mut self, day: Option<Date>, attachment: Attachment) -> u32 {
        if let Some(day) = day {
            self.exception_mut(day);
        }
        let number = self.attachments_made;
        self.attachments_made += 1;
        let place = day.and_then(|day| self.exceptions.get_mut(&day)).map(|exception| &mut exception.appointment);
        place.unwrap_or(&mut self.appointment).attachments.push(Attachment { number, ..attachment });
        number
    }

    /// Removes the attachment with this number from the event, or from the exception of a day.
    pub fn detach(&mut self, day: Option<Date>, number: u32) {
        let Some(day) = day else {
            self.appointment.attachments.retain(|attachment| attachment.number != number);
            return;
        };
        // An occurrence has the attachments of its series. As an exception, it has copies with other numbers.
        let nth = self.on(day).attachments.iter().position(|attachment| attachment.number == number);
        let attachments = &mut self.exception_mut(day).appointment.attachments;
        if let Some(nth) = nth.filter(|nth| *nth < attachments.len()) {
            attachments.remove(nth);
        }
    }

    /// Returns `iCalUId`: the global object id. That of an occurrence contains its day.
    pub fn ical_uid(&self, day: Option<Date>) -> String {
        const CLASS: &str = "040000008200E00074C5B7101A82E008";
        let day = day.map_or_else(
            || "00000000".to_owned(),
            |day| format!("{:04X}{:02X}{:02X}", day.year(), day.month(), day.day()),
        );
        let data: String = self.uid.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{CLASS}{day}0000000000000000000000000000000010000000{data}")
    }
}

// The document of an export.
impl CalendarEvent {
    /// Returns everything in one document, to be exported.
    pub fn to_json(&self) -> Vec<u8> {
        let exceptions = self.exceptions.iter().map(|(day, exception)| {
            let Exception { appointment, change, modified } = exception;
            json!({"day": day.to_string(), "appointment": written(appointment), "change": change, "modified": modified})
        });
        json!({
            "uid": self.uid,
            "appointment": written(&self.appointment),
            "recurrence": self.recurrence.as_ref().map(Recurrence::to_json),
            "exceptions": exceptions.collect::<Vec<_>>(),
            "cancelled": self.cancelled.iter().map(Date::to_string).collect::<Vec<_>>(),
            "attachmentsMade": self.attachments_made,
        })
        .to_string()
        .into_bytes()
    }

    /// Returns the event in a document of [`Self::to_json`].
    pub fn from_json(document: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(document).ok()?;
        let uid = document["uid"].as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
        let uid: Vec<u8> = uid.collect::<Option<_>>()?;
        let day = |value: &Value| value.as_str().and_then(|text| text.parse::<Date>().ok());
        let exceptions = document["exceptions"].as_array()?.iter().map(|exception| {
            let changed = Exception {
                appointment: read_appointment(&exception["appointment"])?,
                change: exception["change"].as_u64()?,
                modified: exception["modified"].as_i64()?,
            };
            Some((day(&exception["day"])?, changed))
        });
        Some(Self {
            uid: uid.try_into().ok()?,
            appointment: read_appointment(&document["appointment"])?,
            recurrence: Recurrence::read(&document["recurrence"]).ok(),
            exceptions: exceptions.collect::<Option<_>>()?,
            cancelled: document["cancelled"].as_array()?.iter().map(day).collect::<Option<_>>()?,
            pattern_edition: 0,
            attachments_made: document["attachmentsMade"].as_u64().and_then(|number| u32::try_from(number).ok())?,
        })
    }
}

fn written(appointment: &Appointment) -> Value {
    json!({
        "fields": appointment.fields,
        "start": appointment.start.to_string(),
        "end": appointment.end.to_string(),
        "zone": appointment.zone,
        "originalZones": appointment.original_zones,
        "allDay": appointment.all_day,
        "attachments": appointment.attachments.iter().map(written_attachment).collect::<Vec<_>>(),
    })
}

fn read_appointment(value: &Value) -> Option<Appointment> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let attachments = value["attachments"].as_array()?.iter().map(read_attachment);
    Some(Appointment {
        fields: value["fields"].as_object()?.clone(),
        start: value["start"].as_str()?.parse().ok()?,
        end: value["end"].as_str()?.parse().ok()?,
        zone: text(&value["zone"])?,
        original_zones: (text(&value["originalZones"][0])?, text(&value["originalZones"][1])?),
        all_day: value["allDay"].as_bool()?,
        attachments: attachments.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mime::Payload;

    fn event(fields: Value) -> CalendarEvent {
        CalendarEvent::new([7; 16], fields.as_object().expect("an object"))
    }

    fn at(text: &str, zone: &str) -> Value {
        json!({"dateTime": text, "timeZone": zone})
    }

    fn weekly() -> CalendarEvent {
        event(json!({
            "subject": "Weekly",
            "start": at("2026-03-02T09:00:00", "Pacific Standard Time"),
            "end": at("2026-03-02T10:00:00", "Pacific Standard Time"),
            "recurrence": {
                "pattern": {"type": "weekly", "interval": 1, "daysOfWeek": ["wednesday"]},
                "range": {"type": "noEnd", "startDate": "2026-03-02", "recurrenceTimeZone": "Pacific Standard Time"},
            },
        }))
    }

    fn day(text: &str) -> Date {
        text.parse().expect("a day")
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_series_keeps_its_hour_when_the_clocks_change() {
        let event = weekly();
        assert_eq!(event.appointment.start.date(), day("2026-03-04"), "the first day that fits the pattern");
        let starts = |days: Vec<Date>| -> Vec<String> {
            days.into_iter().map(|day| event.on(day).instants().0.to_string()).collect()
        };
        let found = starts(event.days_within(time("2026-03-01T00:00:00Z"), time("2026-03-12T00:00:00Z")));
        assert_eq!(found, ["2026-03-04T17:00:00Z", "2026-03-11T16:00:00Z"]);
    }

    #[test]
    fn exceptions_and_cancelled_days_count() {
        let mut event = weekly();
        event.cancel(day("2026-03-11"));
        let moved = json!({"start": at("2026-05-01T09:00:00", "UTC"), "end": at("2026-05-01T09:30:00", "UTC")});
        event.exception_mut(day("2026-03-18")).appointment.set_times(moved.as_object().expect("an object"));
        let march = event.days_within(time("2026-03-01T00:00:00Z"), time("2026-03-27T00:00:00Z"));
        assert_eq!(march, [day("2026-03-04"), day("2026-03-25")]);
        let may = event.days_within(time("2026-05-01T00:00:00Z"), time("2026-05-02T00:00:00Z"));
        assert_eq!(may, [day("2026-03-18")]);
        assert!(event.has(day("2026-03-18")) && !event.has(day("2026-03-11")) && !event.has(day("2026-03-12")));
        assert_eq!(CalendarEvent::from_json(&event.to_json()), Some(event.clone()));
        let mut same = event.clone();
        same.set(
            json!({"subject": "Another", "start": at("2026-03-04T09:00:00", "Pacific Standard Time")})
                .as_object()
                .expect("an object"),
        );
        assert_eq!((same.exceptions.len(), same.cancelled.len(), same.pattern_edition), (1, 1, 0));
        event.set(json!({"start": at("2026-03-04T11:00:00", "Pacific Standard Time")}).as_object().expect("an object"));
        assert_eq!((event.exceptions.len(), event.cancelled.len(), event.pattern_edition), (0, 0, 1));
    }

    #[test]
    fn whole_days_are_the_same_everywhere() {
        let event = event(json!({
            "isAllDay": true, "start": at("2026-03-02T00:00:00", "Tokyo Standard Time"),
            "end": at("2026-03-03T00:00:00", "Tokyo Standard Time"),
        }));
        let shown = event.appointment.shown_in(&zone_or_utc("Pacific Standard Time")).0;
        assert_eq!(zones::local_text(shown), "2026-03-02T00:00:00.0000000");
        assert_eq!(event.appointment.instants().0.to_string(), "2026-03-01T15:00:00Z");
    }

    #[test]
    fn attachments_have_numbers_of_their_own_in_exceptions() {
        let mut event = weekly();
        let file = Attachment {
            number: 9,
            name: "a".to_owned(),
            content_type: "text/plain".to_owned(),
            inline: false,
            content_id: None,
            content_location: None,
            payload: Payload::File(Arc::new(vec![1])),
        };
        assert_eq!(event.attach(None, file.clone()), 0);
        assert_eq!(event.attach(Some(day("2026-03-11")), file), 2);
        let numbers: Vec<u32> =
            event.exceptions[&day("2026-03-11")].appointment.attachments.iter().map(|one| one.number).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(event.appointment.attachments.len(), 1);
    }

    #[test]
    fn the_identity_of_an_occurrence_contains_its_day() {
        let event = weekly();
        let (series, occurrence) = (event.ical_uid(None), event.ical_uid(Some(day("2026-03-11"))));
        assert_eq!((series.len(), occurrence.len()), (112, 112));
        assert_eq!(&occurrence[32..40], "07EA030B");
        assert_eq!(&series[40..], &occurrence[40..]);
    }
}
