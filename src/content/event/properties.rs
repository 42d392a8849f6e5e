//! The properties of an event that do not say when it is, and the list that properties are collected in.

use super::{list, text};
use crate::content::event::zone::partial_utc;
use crate::content::ical::clean;
use crate::content::text::of_html;
use calcard::icalendar::{
    ICalendarClassification, ICalendarComponent, ICalendarEntry, ICalendarParameter, ICalendarParticipationRole,
    ICalendarParticipationStatus, ICalendarProperty, ICalendarStatus, ICalendarTransparency, ICalendarUserTypes,
    ICalendarValue, Uri,
};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What stands in a mail address as it is, in a URI (RFC 6068, 2). Commas and semicolons do not: `calcard` would put a
/// backslash before them.
const IN_ADDRESS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b'+')
    .remove(b'!')
    .remove(b'$')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'/')
    .remove(b'=');
/// Adds what the event is about, and where it is.
pub(super) fn describe(entries: &mut Entries, json: &Value) {
    entries.text(ICalendarProperty::Summary, text(json, "subject"));
    let body = json.get("body");
    let content = body.map_or("", |body| text(body, "content"));
    let is_html = body.is_some_and(|body| text(body, "contentType").eq_ignore_ascii_case("html"));
    match is_html {
        true => {
            let plain = of_html(content);
            entries.text(ICalendarProperty::Description, plain.trim());
            if !plain.trim().is_empty() || content.contains("<img") {
                let html = ICalendarProperty::Other("X-ALT-DESC".to_owned());
                entries.text_with(html, Some(ICalendarParameter::fmttype("text/html".to_owned())), content);
            }
        }
        false => entries.text(ICalendarProperty::Description, content),
    }
    let names: Vec<_> = list(json, "locations").map(|place| text(place, "displayName")).collect();
    let place = json.get("location");
    let name = place.map_or("", |place| text(place, "displayName"));
    let joined = names.join("; ");
    entries.text(ICalendarProperty::Location, if name.is_empty() { &joined } else { name });
    let coordinates = place.and_then(|place| place.get("coordinates"));
    let coordinate = |name: &str| coordinates?.get(name)?.as_f64();
    if let (Some(latitude), Some(longitude)) = (coordinate("latitude"), coordinate("longitude")) {
        let values = vec![ICalendarValue::Float(latitude), ICalendarValue::Float(longitude)];
        entries.0.entries.push(ICalendarEntry::new(ICalendarProperty::Geo).with_values(values));
    }
    let categories: Vec<_> = list(json, "categories").filter_map(Value::as_str).map(clean).collect();
    let categories: Vec<_> = categories.into_iter().filter(|name| !name.is_empty()).map(ICalendarValue::Text).collect();
    if !categories.is_empty() {
        entries.0.entries.push(ICalendarEntry::new(ICalendarProperty::Categories).with_values(categories));
    }
    let meeting = json.get("onlineMeeting").map_or("", |meeting| text(meeting, "joinUrl"));
    let link = if meeting.is_empty() { text(json, "onlineMeetingUrl") } else { meeting };
    entries.text(ICalendarProperty::Other("X-MICROSOFT-SKYPETEAMSMEETINGURL".to_owned()), link);
}

/// Adds who takes part. Only a meeting has an organiser (RFC 5545, 3.8.4.3).
pub(super) fn people(entries: &mut Entries, json: &Value) {
    let attendees: Vec<_> = list(json, "attendees").collect();
    let is_own = json.get("isOrganizer") != Some(&Value::Bool(false));
    if let Some(organizer) = json.get("organizer").and_then(|organizer| organizer.get("emailAddress"))
        && !(attendees.is_empty() && is_own)
        && !text(organizer, "address").is_empty()
    {
        entries.person(ICalendarProperty::Organizer, organizer, Vec::new());
    }
    let asks = json.get("responseRequested") != Some(&Value::Bool(false));
    for attendee in attendees {
        let Some(address) = attendee.get("emailAddress") else { continue };
        let (kind, role) = match text(attendee, "type").to_ascii_lowercase().as_str() {
            "optional" => (None, ICalendarParticipationRole::OptParticipant),
            "resource" => (Some(ICalendarUserTypes::Resource), ICalendarParticipationRole::NonParticipant),
            _ => (None, ICalendarParticipationRole::ReqParticipant),
        };
        let response = attendee.get("status").map_or("", |status| text(status, "response"));
        let answer = match response.to_ascii_lowercase().as_str() {
            "accepted" | "organizer" => ICalendarParticipationStatus::Accepted,
            "declined" => ICalendarParticipationStatus::Declined,
            "tentativelyaccepted" => ICalendarParticipationStatus::Tentative,
            _ => ICalendarParticipationStatus::NeedsAction,
        };
        let mut parameters: Vec<_> = kind.into_iter().map(ICalendarParameter::cutype).collect();
        parameters.push(ICalendarParameter::role(role));
        parameters.push(ICalendarParameter::partstat(answer));
        parameters.push(ICalendarParameter::rsvp(asks));
        entries.person(ICalendarProperty::Attendee, address, parameters);
    }
}

/// Adds what the event means for the day, and for whom it is.
pub(super) fn states(entries: &mut Entries, json: &Value) {
    let shows = text(json, "showAs").to_ascii_lowercase();
    let is_cancelled = json.get("isCancelled") == Some(&Value::Bool(true));
    let status = match (is_cancelled, shows.as_str()) {
        (true, _) => ICalendarStatus::Cancelled,
        (false, "tentative") => ICalendarStatus::Tentative,
        (false, _) => ICalendarStatus::Confirmed,
    };
    entries.0.add_property(ICalendarProperty::Status, status);
    let is_free = shows == "free";
    let takes = if is_free { ICalendarTransparency::Transparent } else { ICalendarTransparency::Opaque };
    entries.0.add_property(ICalendarProperty::Transp, takes);
    let busy = match shows.as_str() {
        "free" => "FREE",
        "tentative" => "TENTATIVE",
        "oof" => "OOF",
        "workingelsewhere" => "WORKINGELSEWHERE",
        _ => "BUSY",
    };
    entries.text(ICalendarProperty::Other("X-MICROSOFT-CDO-BUSYSTATUS".to_owned()), busy);
    let class = match text(json, "sensitivity").to_ascii_lowercase().as_str() {
        "personal" | "private" => ICalendarClassification::Private,
        "confidential" => ICalendarClassification::Confidential,
        _ => ICalendarClassification::Public,
    };
    entries.0.add_property(ICalendarProperty::Class, class);
    let priority = match text(json, "importance").to_ascii_lowercase().as_str() {
        "high" => 1,
        "low" => 9,
        _ => 5,
    };
    entries.0.add_property(ICalendarProperty::Priority, ICalendarValue::Integer(priority));
}

/// The properties of a component. Empty texts are left out.
pub(super) struct Entries(pub ICalendarComponent);

impl Entries {
    pub(super) fn text(&mut self, property: ICalendarProperty, text: &str) {
        self.text_with(property, None, text);
    }

    pub(super) fn text_with(&mut self, property: ICalendarProperty, parameter: Option<ICalendarParameter>, text: &str) {
        let text = clean(text);
        if !text.is_empty() {
            self.add(property, parameter, text);
        }
    }

    pub(super) fn time(&mut self, property: ICalendarProperty, at: Timestamp) {
        if let Some(value) = partial_utc(at) {
            self.add(property, None, value);
        }
    }

    pub(super) fn add(
        &mut self,
        property: ICalendarProperty,
        parameter: Option<ICalendarParameter>,
        value: impl Into<ICalendarValue>,
    ) {
        self.0.entries.push(ICalendarEntry::new(property).with_param_opt(parameter).with_value(value));
    }

    /// Adds a person by name and address (Graph: emailAddress).
    pub(super) fn person(&mut self, property: ICalendarProperty, person: &Value, parameters: Vec<ICalendarParameter>) {
        let (name, address) = (parameter(text(person, "name")), clean(text(person, "address")));
        let mut entry = ICalendarEntry::new(property).with_params(parameters);
        if !name.is_empty() {
            entry.add_param(ICalendarParameter::cn(name));
        }
        let address = match address.is_empty() {
            // That is how Outlook names people without an address.
            true => "invalid:nomail".to_owned(),
            false => format!("mailto:{}", utf8_percent_encode(address.trim(), IN_ADDRESS)),
        };
        self.0.entries.push(entry.with_value(Uri::Location(address)));
    }
}

/// Returns a text as it may stand in a parameter. The RFC knows no way to write a quotation mark or a line break there,
/// and some readers take a backslash for one.
pub(super) fn parameter(text: &str) -> String {
    let text = clean(text).replace('"', "'").replace(['\n', '\t'], " ").replace('\\', "/");
    text.trim().to_owned()
}

pub(super) fn is_media_type(kind: &str) -> bool {
    let token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b));
    kind.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}
