//! The fields of an event that clients send as JSON, checked as the service checks them.
//!
//! An unknown property fails the whole request. A property that only the service sets is silently ignored.

use std::collections::BTreeMap;

use jiff::civil::{DateTime, Time};
use serde_json::{Map, Value, json};

use crate::extended;
use crate::mail::input::attachment;
use crate::mime::Attachment;
use crate::server::{ApiError, Version};
use crate::tenant::event::{EVENT_FIELDS, EventField, read_time};
use crate::tenant::series::Recurrence;
use crate::tenant::zones::{instant, zone, zone_or_utc};
use crate::tenant::{Appointment, CalendarEvent};

/// Properties that only the service sets.
const SET_BY_SERVICE: [&str; 21] = [
    "id",
    "changeKey",
    "createdDateTime",
    "lastModifiedDateTime",
    "bodyPreview",
    "cancelledOccurrences",
    "hasAttachments",
    "iCalUId",
    "isCancelled",
    "isDraft",
    "isOrganizer",
    "onlineMeeting",
    "onlineMeetingUrl",
    "organizer",
    "originalEndTimeZone",
    "originalStart",
    "originalStartTimeZone",
    "responseStatus",
    "seriesMasterId",
    "type",
    "webLink",
];

/// Maximum number of attendees of a meeting.
const ATTENDEES_MAX: usize = 500;

/// The fields in a request. A field that is not mentioned is not in it.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// New values of fields, the times among them, in the form in which they are stored. Null removes a field.
    pub fields: Map<String, Value>,
    /// `categories`
    pub categories: Option<Vec<String>>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// `attachments`
    pub attachments: Vec<Attachment>,
}

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::bad_request("UnableToDeserializePostBody", text)
}

fn wrong_type(name: &str) -> ApiError {
    refused(format!("Cannot convert the value of property '{name}' to its expected type."))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::bad_request("ErrorPropertyValidationFailure", text)
}

fn unknown(name: &str, kind: &str) -> ApiError {
    refused(format!(
        "The property '{name}' does not exist on type 'microsoft.graph.{kind}'. Make sure to only use property names that \
         are defined by the type."
    ))
}

impl Input {
    /// Reads an event.
    ///
    /// # Errors
    /// 400 for an unknown property, for a value of the wrong type, and for an invalid address, time or recurrence.
    pub fn read(object: &Map<String, Value>, version: Version) -> Result<Self, ApiError> {
        let mut input = Self::default();
        for (name, value) in object {
            input.read_property(name, value, version)?;
        }
        input.settle_places();
        Ok(input)
    }

    /// Makes `location` and `locations` say the same, if the client gave one of them.
    fn settle_places(&mut self) {
        let (one, all) = (self.fields.get("location").cloned(), self.fields.get("locations").cloned());
        match (one, all) {
            (Some(one), None) => {
                let all = if one.is_null() { Value::Null } else { json!([one]) };
                self.fields.insert("locations".to_owned(), all);
            }
            (None, Some(all)) => drop(self.fields.insert("location".to_owned(), all[0].clone())),
            _ => {}
        }
    }

    fn read_property(&mut self, name: &str, value: &Value, version: Version) -> Result<(), ApiError> {
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        if let Some((name, kind)) = EVENT_FIELDS.iter().find(|(known, _)| is(known)) {
            let value = if value.is_null() { Value::Null } else { field(name, *kind, value)? };
            self.fields.insert((*name).to_owned(), value);
        } else if is(&"start") || is(&"end") {
            let (_, zone_name) = read_time(value).ok_or_else(|| wrong_type(name))?;
            check_zone(&zone_name)?;
            self.fields.insert(name.to_ascii_lowercase(), value.clone());
        } else if is(&"isAllDay") {
            self.fields.insert("isAllDay".to_owned(), json!(value.as_bool().ok_or_else(|| wrong_type(name))?));
        } else if is(&"recurrence") {
            self.fields.insert("recurrence".to_owned(), recurrence(value)?);
        } else if is(&"categories") {
            self.categories = Some(texts(name, value)?);
        } else if is(&"attachments") {
            let all = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
            self.attachments = all.map(|value| attachment(value, version)).collect::<Result<_, _>>()?;
        } else if [extended::SINGLE, extended::MULTI].iter().any(is) {
            for property in value.as_array().ok_or_else(|| wrong_type(name))? {
                let (id, value) = extended::read(property)?;
                self.extended.insert(id, value);
            }
        } else if !(SET_BY_SERVICE.iter().any(is) || name.contains('@')) {
            return Err(unknown(name, "event"));
        }
        Ok(())
    }

    /// Checks that a new event has a start and an end.
    ///
    /// # Errors
    /// 400 if one is missing.
    pub fn check_new(&self) -> Result<(), ApiError> {
        for name in ["start", "end"] {
            if !self.fields.contains_key(name) {
                return Err(invalid(format!("The property '{name}' is required.")));
            }
        }
        Ok(())
    }

    /// Copies the fields into an event.
    ///
    /// # Errors
    /// 400 if its times do not fit together.
    pub fn apply(&self, event: &mut CalendarEvent) -> Result<(), ApiError> {
        self.check_times(&event.appointment)?;
        event.set(&self.fields);
        if let Some(recurrence) = event.recurrence.as_mut().filter(|recurrence| recurrence.zone.is_empty()) {
            recurrence.zone.clone_from(&event.appointment.zone);
        }
        if self.fields.get("recurrence").is_some_and(Value::is_object)
            && event.recurrence.as_ref().is_none_or(|recurrence| recurrence.first().is_none())
        {
            return Err(invalid("The recurrence has no occurrence."));
        }
        Ok(())
    }

    /// Copies the fields into an occurrence of a series.
    ///
    /// # Errors
    /// 400 if its times do not fit together, and for a recurrence.
    pub fn apply_to_occurrence(&self, appointment: &mut Appointment) -> Result<(), ApiError> {
        if self.fields.get("recurrence").is_some_and(|value| !value.is_null()) {
            let text = "Recurrence cannot be set on an occurrence of a series.";
            return Err(ApiError::bad_request("ErrorRecurrencePropertyNotAllowed", text));
        }
        self.check_times(appointment)?;
        appointment.set_fields(&self.fields);
        appointment.set_times(&self.fields);
        if let Some(categories) = &self.categories {
            appointment.fields.insert("categories".to_owned(), json!(categories));
        }
        Ok(())
    }

    /// Checks that the end is not before the start, and that whole days begin and end at midnight in one zone.
    fn check_times(&self, before: &Appointment) -> Result<(), ApiError> {
        let given = |name: &str| self.fields.get(name).and_then(read_time);
        let all_day = self.fields.get("isAllDay").and_then(Value::as_bool).unwrap_or(before.all_day);
        let start = given("start").unwrap_or_else(|| (before.start, before.zone.clone()));
        let length = before.start.duration_until(before.end);
        let end = given("end").unwrap_or_else(|| (start.0.saturating_add(length), start.1.clone()));
        let is_midnight = |at: DateTime| at.time() == Time::midnight();
        if all_day && !(is_midnight(start.0) && is_midnight(end.0) && zone(&start.1) == zone(&end.1)) {
            return Err(invalid(
                "The Event.Start and Event.End properties of an all-day event must be at midnight in the same time zone.",
            ));
        }
        if all_day && end.0 <= start.0 {
            return Err(invalid("An all-day event must last for at least 24 hours."));
        }
        let instant = |(at, name): &(DateTime, String)| instant(*at, &zone_or_utc(name));
        if !all_day && instant(&end) < instant(&start) {
            return Err(invalid("The end of the event must not be before its start."));
        }
        Ok(())
    }
}

fn check_zone(name: &str) -> Result<(), ApiError> {
    if zone(name).is_some() {
        return Ok(());
    }
    let text =
        format!("A valid TimeZone value must be specified. The following TimeZone value is not supported: '{name}'.");
    Err(ApiError::bad_request("TimeZoneNotSupportedException", text))
}

/// Reads a recurrence. Without a zone it takes place in that of the start; an empty name is no zone.
fn recurrence(value: &Value) -> Result<Value, ApiError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    for (part, known) in [
        ("pattern", &["type", "interval", "month", "dayOfMonth", "daysOfWeek", "firstDayOfWeek", "index"][..]),
        ("range", &["type", "startDate", "endDate", "recurrenceTimeZone", "numberOfOccurrences"][..]),
    ] {
        let object = value[part].as_object().ok_or_else(|| wrong_type("recurrence"))?;
        if let Some(name) = object.keys().find(|name| !known.contains(&name.as_str()) && !name.contains('@')) {
            return Err(unknown(name, "patternedRecurrence"));
        }
    }
    match &value["range"]["recurrenceTimeZone"] {
        Value::Null => {}
        Value::String(name) => check_zone(name)?,
        _ => return Err(wrong_type("recurrenceTimeZone")),
    }
    let read = Recurrence::read(value).map_err(invalid)?;
    Ok(read.to_json())
}

/// Returns the value of a field in the form in which it is stored.
fn field(name: &str, kind: EventField, value: &Value) -> Result<Value, ApiError> {
    match kind {
        EventField::Text => Ok(json!(value.as_str().ok_or_else(|| wrong_type(name))?)),
        EventField::Flag(_) => Ok(json!(value.as_bool().ok_or_else(|| wrong_type(name))?)),
        EventField::Minutes => {
            let minutes = value.as_i64().filter(|minutes| i32::try_from(*minutes).is_ok());
            Ok(json!(minutes.ok_or_else(|| wrong_type(name))?))
        }
        EventField::Word(words) => word(name, words, value).map(|word| json!(word)),
        EventField::Body => {
            let object = object(name, value, &["contentType", "content"], "itemBody")?;
            let kind =
                object.get("contentType").map_or(Ok("text"), |kind| word("contentType", &["text", "html"], kind))?;
            let content = match object.get("content") {
                None | Some(Value::Null) => "",
                Some(content) => content.as_str().ok_or_else(|| wrong_type("content"))?,
            };
            Ok(json!({"contentType": kind, "content": content}))
        }
        EventField::Attendees => {
            let all = value.as_array().ok_or_else(|| wrong_type(name))?;
            if all.len() > ATTENDEES_MAX {
                return Err(invalid(format!("A meeting can have {ATTENDEES_MAX} attendees.")));
            }
            all.iter().map(attendee).collect()
        }
        EventField::Place => place(value),
        EventField::Places => value.as_array().ok_or_else(|| wrong_type(name))?.iter().map(place).collect(),
    }
}

fn word(name: &str, words: &[&'static str], value: &Value) -> Result<&'static str, ApiError> {
    let text = value.as_str().ok_or_else(|| wrong_type(name))?;
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied().ok_or_else(|| wrong_type(name))
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    let texts = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
    texts.map(|text| text.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name))).collect()
}

fn object<'a>(name: &str, value: &'a Value, known: &[&str], kind: &str) -> Result<&'a Map<String, Value>, ApiError> {
    let object = value.as_object().ok_or_else(|| wrong_type(name))?;
    match object.keys().find(|part| !known.contains(&part.as_str()) && !part.contains('@')) {
        None => Ok(object),
        Some(part) => Err(unknown(part, kind)),
    }
}

/// Reads an attendee. What somebody answered cannot be written.
fn attendee(value: &Value) -> Result<Value, ApiError> {
    let known = ["type", "status", "emailAddress", "proposedNewTime"];
    let attendee = object("attendees", value, &known, "attendee")?;
    let kind = attendee
        .get("type")
        .map_or(Ok("required"), |kind| word("type", &["required", "optional", "resource"], kind))?;
    let email = attendee.get("emailAddress").unwrap_or(&Value::Null);
    let email = object("emailAddress", email, &["name", "address"], "emailAddress")?;
    let text = |name: &str| email.get(name).and_then(Value::as_str).unwrap_or_default();
    let (name, address) = (text("name"), text("address"));
    if !address.contains('@') && !address.to_ascii_lowercase().starts_with("/o=") {
        return Err(ApiError::bad_request("ErrorInvalidRecipients", "At least one attendee is not valid."));
    }
    Ok(json!({
        "type": kind,
        "status": {"response": "none", "time": "0001-01-01T00:00:00Z"},
        "emailAddress": {"name": if name.is_empty() { address } else { name }, "address": address},
    }))
}

fn place(value: &Value) -> Result<Value, ApiError> {
    let known = [
        "displayName",
        "locationType",
        "uniqueId",
        "uniqueIdType",
        "address",
        "coordinates",
        "locationUri",
        "locationEmailAddress",
    ];
    let mut place = object("location", value, &known, "location")?.clone();
    place.retain(|name, value| !value.is_null() && !name.contains('@'));
    place.entry("displayName").or_insert_with(|| json!(""));
    place.entry("locationType").or_insert_with(|| json!("default"));
    place.entry("uniqueIdType").or_insert_with(|| json!("unknown"));
    Ok(Value::Object(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Input, ApiError> {
        Input::read(value.as_object().expect("an object"), Version::V1)
    }

    fn recurring(zone: Value) -> Value {
        json!({"recurrence": {
            "pattern": {"type": "daily", "interval": 1},
            "range": {"type": "noEnd", "startDate": "2026-01-01", "recurrenceTimeZone": zone},
        }})
    }

    #[test]
    fn values_are_checked() {
        let many: Vec<Value> = (0..501).map(|n| json!({"emailAddress": {"address": format!("{n}@b.c")}})).collect();
        for (value, code) in [
            (json!({"summary": "a"}), "UnableToDeserializePostBody"),
            (json!({"uid": "a"}), "UnableToDeserializePostBody"),
            (json!({"exceptionOccurrences": []}), "UnableToDeserializePostBody"),
            (json!({"subject": 1}), "UnableToDeserializePostBody"),
            (json!({"showAs": "maybe"}), "UnableToDeserializePostBody"),
            (json!({"start": "2026-01-01"}), "UnableToDeserializePostBody"),
            (json!({"start": {"dateTime": "2026-01-01T00:00:00", "timeZone": "x"}}), "TimeZoneNotSupportedException"),
            (json!({"body": {"type": "text"}}), "UnableToDeserializePostBody"),
            (json!({"location": {"name": "x"}}), "UnableToDeserializePostBody"),
            (json!({"attendees": [{"emailAddress": {"address": "nobody"}}]}), "ErrorInvalidRecipients"),
            (json!({"attendees": many}), "ErrorPropertyValidationFailure"),
            (recurring(json!("")), "TimeZoneNotSupportedException"),
            (recurring(json!("tzone://Microsoft/Custom")), "TimeZoneNotSupportedException"),
            (json!({"recurrence": {"pattern": {}, "range": {}}}), "ErrorPropertyValidationFailure"),
        ] {
            assert_eq!(read(value.clone()).expect_err("an error").code, code, "{value}");
        }
        for value in [
            json!({"id": "x", "organizer": 1, "iCalUId": "y", "type": "z", "@odata.etag": "z", "cancelledOccurrences": []}),
            json!({"subject": null, "location": null, "recurrence": null}),
            recurring(Value::Null),
            recurring(json!("Europe/Berlin")),
        ] {
            assert!(read(value.clone()).is_ok(), "{value}");
        }
    }

    #[test]
    fn times_fit_together() {
        let at = |time: &str, zone: &str| json!({"dateTime": format!("2026-01-{time}:00"), "timeZone": zone});
        for (start, end, all_day, fits) in [
            (at("01T10:00", "UTC"), at("01T09:00", "UTC"), false, false),
            (at("01T10:00", "Tokyo Standard Time"), at("01T09:00", "UTC"), false, true),
            (at("01T00:00", "UTC"), at("02T00:00", "UTC"), true, true),
            (at("01T00:00", "UTC"), at("01T00:00", "UTC"), true, false),
            (at("01T00:00", "UTC"), at("02T00:00", "Tokyo Standard Time"), true, false),
            (at("01T00:00", "UTC"), at("02T01:00", "UTC"), true, false),
        ] {
            let input = read(json!({"start": start, "end": end, "isAllDay": all_day})).expect("an input");
            let mut event = CalendarEvent::new([0; 16], &Map::new());
            assert_eq!(input.apply(&mut event).is_ok(), fits, "{:?}", input.fields);
        }
    }
}
