//! Events as JSON: appointments, series, occurrences and exceptions, in the zone that the client asks for.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::extended::{self, MULTI, SINGLE};
use crate::mail::json::{preview, shown_body};
use crate::mime::Body;
use crate::odata::{Query, Select};
use crate::server::{ApiError, Call, Version};
use crate::tenant::event::{EVENT_FIELDS, EventField, REMINDER_MINUTES};
use crate::tenant::id::{IdFormat, MailboxGuid, change_key};
use crate::tenant::series::Recurrence;
use crate::tenant::zones::{local_text, zone};
use crate::tenant::{Appointment, CalendarEvent, ItemKind, Mailbox, Occurrence, Record, User, occurrence_id};

/// Properties of every event that a client cannot write, and those that are written in another way.
const OTHERS: [&str; 30] = [
    "id",
    "changeKey",
    "createdDateTime",
    "lastModifiedDateTime",
    "categories",
    "bodyPreview",
    "cancelledOccurrences",
    "end",
    "hasAttachments",
    "iCalUId",
    "isAllDay",
    "isCancelled",
    "isDraft",
    "isOrganizer",
    "onlineMeeting",
    "onlineMeetingUrl",
    "organizer",
    "originalEndTimeZone",
    "originalStart",
    "originalStartTimeZone",
    "recurrence",
    "responseStatus",
    "seriesMasterId",
    "start",
    "type",
    "webLink",
    "calendar",
    "exceptionOccurrences",
    "attachments",
    "instances",
];

/// Properties that only beta has.
const ONLY_IN_BETA: [&str; 2] = ["uid", "occurrenceId"];

/// The time that stands for none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A copy of an event's record, to use without the mailbox's lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The mailbox.
    pub guid: MailboxGuid,
    /// The event, or the occurrence of a series.
    pub at: Occurrence,
    /// The record of the event at that time.
    pub record: Record,
}

impl View {
    /// Returns the view of an event or of an occurrence.
    pub fn new(mailbox: &Mailbox, at: Occurrence, record: &Record) -> Self {
        Self { guid: mailbox.guid, at, record: record.clone() }
    }

    /// Returns the view of an occurrence of the same series.
    #[must_use]
    pub fn on(&self, day: Date) -> Self {
        Self { at: Occurrence { day: Some(day), ..self.at }, ..self.clone() }
    }

    /// Returns its id.
    pub fn id(&self, format: IdFormat) -> String {
        occurrence_id(&self.guid, &self.record, self.at.event, self.at.day, format)
    }

    /// Returns the id of its series.
    fn series_id(&self, format: IdFormat) -> String {
        occurrence_id(&self.guid, &self.record, self.at.event, None, format)
    }

    /// Returns the content.
    ///
    /// # Panics
    /// Panics if the record is that of another item.
    pub fn event(&self) -> &CalendarEvent {
        self.record.event().expect("views are made of events")
    }

    /// Returns what takes place.
    pub fn appointment(&self) -> Appointment {
        let event = self.event();
        self.at.day.map_or_else(|| event.appointment.clone(), |day| event.on(day))
    }

    /// Returns the number and the time of the last change. An exception has its own.
    fn last_change(&self) -> (u64, i64) {
        let exception = self.at.day.and_then(|day| self.event().exceptions.get(&day)).filter(|one| one.change > 0);
        exception.map_or((self.record.change, self.record.modified), |one| (one.change, one.modified))
    }

    /// Returns the change key, which is new after every change that shows.
    pub fn change_key(&self) -> String {
        change_key(&self.guid, self.last_change().0)
    }

    /// Returns `type`.
    fn kind(&self) -> &'static str {
        match (self.at.day, self.event()) {
            (Some(day), event) if event.exceptions.contains_key(&day) => "exception",
            (Some(_), _) => "occurrence",
            (None, event) if event.recurrence.is_some() => "seriesMaster",
            (None, _) => "singleInstance",
        }
    }

    fn extended_property(&self, id: &str) -> Option<Value> {
        let canonical = extended::canonical(id);
        if let Some(value) = self.record.extra.as_deref().and_then(|extra| extra.extended.get(&canonical)) {
            return Some(value.clone());
        }
        match canonical.as_str() {
            "string 0x1a" => ItemKind::Event.class().map(|class| json!(class)),
            "string 0x37" => Some(json!(self.appointment().text("subject"))),
            "systemtime 0x3007" => Some(json!(clock::iso(self.record.created))),
            "systemtime 0x3008" => Some(json!(clock::iso(self.last_change().1))),
            _ => None,
        }
    }
}

/// How to show events.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The properties to show.
    pub select: Select,
    /// Format of ids.
    pub format: IdFormat,
    /// Extended properties with one value, in the spelling of the request.
    pub extended: Vec<String>,
    multi_extended: Vec<String>,
    version: Version,
    zone: (TimeZone, String),
    text_body: bool,
    unsafe_html: bool,
    /// Name and address of the owner of the mailbox.
    owner: Value,
}

/// Returns a person as Graph shows one.
pub fn person(name: &str, address: &str) -> Value {
    json!({"name": name, "address": address})
}

impl Shape {
    /// Returns the shape for a call, with the options of `query`.
    ///
    /// # Errors
    /// 400 if `$select` contains a name that is not a property of an event, or if the zone is unknown.
    pub fn new(call: &Call, query: &Query) -> Result<Self, ApiError> {
        let version = call.route.version;
        let hidden = version == Version::V1 && call.state.tenant.switches().series_details_in_beta_only;
        let known = EVENT_FIELDS.iter().map(|(name, _)| *name).chain(OTHERS);
        let known = known.filter(|name| !hidden || !["cancelledOccurrences", "exceptionOccurrences"].contains(name));
        let in_beta = ONLY_IN_BETA.into_iter().filter(|_| version == Version::Beta);
        let known: Vec<&str> = known.chain(in_beta).collect();
        query.select().check("Event", &known)?;
        let mut shape = Self::whole(&*call.user()?);
        shape.select = query.select();
        shape.format = call.id_format();
        shape.extended = extended::wanted(query, "singlevalueextendedproperties");
        shape.multi_extended = extended::wanted(query, "multivalueextendedproperties");
        shape.version = version;
        shape.text_body = call.preferences.text_body;
        shape.unsafe_html = call.preferences.unsafe_html;
        if let Some(name) = &call.preferences.time_zone {
            let zone = zone(name).ok_or_else(|| {
                let text = format!(
                    "A valid TimeZone value must be specified. The following TimeZone value is not supported: '{name}'."
                );
                ApiError::bad_request("TimeZoneNotSupportedException", text)
            })?;
            shape.zone = (zone, name.clone());
        }
        Ok(shape)
    }

    /// Returns the shape in which events are shown by default.
    ///
    /// # Errors
    /// 400 if the zone that the client prefers is unknown.
    pub fn default_of(call: &Call) -> Result<Self, ApiError> {
        Self::new(call, &Query::default())
    }

    /// Returns the shape of v1.0 with immutable ids, all properties, times in UTC, and bodies as they are.
    pub fn whole(owner: &User) -> Self {
        Self {
            select: Select::default(),
            format: IdFormat::Immutable,
            extended: Vec::new(),
            multi_extended: Vec::new(),
            version: Version::V1,
            zone: (TimeZone::UTC, "UTC".to_owned()),
            text_body: false,
            unsafe_html: true,
            owner: person(&owner.display_name(), &owner.principal_name()),
        }
    }

    /// Returns an event in this shape. It may still contain properties that only a filter or an order needs, but its
    /// text only if it is wanted.
    pub fn full(&self, view: &View) -> Map<String, Value> {
        let (event, record, appointment) = (view.event(), &view.record, view.appointment());
        let change_key = view.change_key();
        let mut out = Map::new();
        for (name, kind) in EVENT_FIELDS {
            out.insert(name.to_owned(), appointment.fields.get(name).cloned().unwrap_or_else(|| default_of(kind)));
        }
        let body = stored_body(&appointment);
        if self.select.wants("body") {
            out.insert("body".to_owned(), shown_body(&body, self.text_body, self.unsafe_html));
        }
        if self.select.wants("bodyPreview") {
            out.insert("bodyPreview".to_owned(), json!(preview(&body)));
        }
        let (start, end) = appointment.shown_in(&self.zone.0);
        let time = |at: DateTime| json!({"dateTime": local_text(at), "timeZone": self.zone.1});
        let id = view.id(self.format);
        let organized = json!({"response": "organizer", "time": NO_TIME});
        let day = view.at.day;
        out.extend(
            [
                ("@odata.etag", json!(format!("W/\"{change_key}\""))),
                ("id", json!(id)),
                ("changeKey", json!(change_key)),
                ("createdDateTime", json!(clock::iso(record.created))),
                ("lastModifiedDateTime", json!(clock::iso(view.last_change().1))),
                ("categories", json!(record.extra.as_deref().map_or(&[][..], |extra| &extra.categories))),
                ("start", time(start)),
                ("end", time(end)),
                ("isAllDay", json!(appointment.all_day)),
                ("originalStartTimeZone", json!(appointment.original_zones.0)),
                ("originalEndTimeZone", json!(appointment.original_zones.1)),
                // Inline attachments do not count, as with messages.
                ("hasAttachments", json!(appointment.attachments.iter().any(|attachment| !attachment.inline))),
                ("iCalUId", json!(event.ical_uid(day))),
                ("type", json!(view.kind())),
                ("recurrence", json!(event.recurrence.as_ref().filter(|_| day.is_none()).map(Recurrence::to_json))),
                ("seriesMasterId", json!(day.map(|_| view.series_id(self.format)))),
                ("originalStart", json!(day.map(|day| event.original_start(day).to_string()))),
                ("isCancelled", json!(false)),
                ("isDraft", json!(false)),
                ("isOrganizer", json!(true)),
                ("organizer", json!({"emailAddress": self.owner})),
                ("responseStatus", organized),
                ("onlineMeeting", Value::Null),
                ("onlineMeetingUrl", Value::Null),
                ("webLink", json!(web_link(&id))),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if self.version == Version::Beta {
            out.insert("uid".to_owned(), json!(event.ical_uid(None)));
            out.insert("occurrenceId".to_owned(), json!(day.map(|day| self.cancelled_id(view, day))));
        }
        // Fields that only the service sets, and those that no client knows.
        let is_written = |name: &String| EVENT_FIELDS.iter().any(|(known, _)| known == name);
        let others = appointment.fields.iter().filter(|(name, _)| !is_written(name));
        out.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        for (name, ids) in [(SINGLE, &self.extended), (MULTI, &self.multi_extended)] {
            let found = ids.iter().filter_map(|id| {
                let value = view.extended_property(id).filter(|value| value.is_array() == (name == MULTI))?;
                Some(json!({"id": id, "value": value}))
            });
            let found: Vec<Value> = found.collect();
            if !found.is_empty() {
                out.insert(name.to_owned(), json!(found));
            }
        }
        out
    }

    /// Returns an event in this shape.
    pub fn event(&self, view: &View) -> Value {
        let mut event = self.full(view);
        self.select.retain(&mut event);
        Value::Object(event)
    }

    /// Returns `cancelledOccurrences`: the deleted days of a series.
    pub fn cancelled(&self, view: &View) -> Vec<String> {
        view.event().cancelled.iter().map(|day| self.cancelled_id(view, *day)).collect()
    }

    fn cancelled_id(&self, view: &View, day: Date) -> String {
        format!("OID.{}.{day}", view.series_id(self.format))
    }
}

/// Returns the text of an appointment in the form in which the mail API keeps it.
fn stored_body(appointment: &Appointment) -> Body {
    let body = appointment.fields.get("body").cloned().unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    Body { html: !text("contentType").eq_ignore_ascii_case("text"), content: text("content") }
}

fn default_of(kind: EventField) -> Value {
    match kind {
        EventField::Text => Value::Null,
        EventField::Flag(value) => json!(value),
        EventField::Minutes => json!(REMINDER_MINUTES),
        EventField::Word(words) => json!(words[0]),
        EventField::Body => json!({"contentType": "html", "content": ""}),
        EventField::Attendees | EventField::Places => json!([]),
        EventField::Place => {
            json!({"displayName": "", "locationType": "default", "uniqueIdType": "unknown", "address": {}, "coordinates": {}})
        }
    }
}

fn web_link(id: &str) -> String {
    let id = id.replace('=', "%3D");
    format!("https://outlook.office365.com/owa/?itemid={id}&exvsurl=1&path=/calendar/item")
}
