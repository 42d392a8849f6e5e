//! An event or a whole series as an iCalendar file (RFC 5545), which calendars open.
//!
//! The input is what the service says (Graph: event): the event or the master of a series, the changed instances of the
//! series, the dates of its cancelled instances, and the attachments of all of these. The file has one VEVENT for the
//! event, and one with a RECURRENCE-ID for each changed instance. The crate `calcard` writes and folds the lines, and
//! the VTIMEZONE of each zone. This module says which property holds what.
//!
//! - A series repeats in its own zone, never in UTC. So the instances keep their hour when clocks change.
//! - A zone that nobody can name is replaced by one with a fixed offset, in which the days are right.
//! - The content of attachments is not in [`Calendar::text`]: [`Calendar::places`] says where its base64 text belongs.
//!   So whoever stores the file can store each attachment as what it is.
//! - There is no METHOD: the file invites nobody.
//!
//! Invariants, for any event whatever:
//! - The same event gives the same bytes.
//! - No text can end a line or begin another property. Line breaks in texts become LF, and other control characters are
//!   left out.

mod properties;
mod reading;
mod recurrence;
#[cfg(test)]
mod tests;
mod zone;

use self::properties::{Entries, describe, is_media_type, parameter, people, states};
use self::recurrence::Beginning;
use self::zone::{Zone, partial, partial_date, partial_utc};
use super::ical::clean;
use super::names::safe_name;
use calcard::common::PartialDateTime;
use calcard::icalendar::{
    ICalendar, ICalendarAction, ICalendarComponent, ICalendarComponentType, ICalendarDuration, ICalendarEntry,
    ICalendarParameter, ICalendarParameterName, ICalendarProperty, ICalendarValue, ICalendarValueType, Uri,
};
use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use std::collections::BTreeSet;

const PRODUCT: &str = "-//Strongroom//Strongroom//EN";
/// The rules of a zone are written for so many years after the beginning of a series without an end.
const ZONE_YEARS: i64 = 20;
/// They are written at least up to this year.
const ZONE_YEAR_MIN: i64 = 2040;
const SECONDS_PER_YEAR: i64 = 31_556_952;

/// An event or a series, with all that belongs to it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The event, or the master of the series (Graph: event). Its `exceptionOccurrences` are the changed instances.
    pub event: &'a Value,
    /// The ids of the cancelled instances (Graph: `cancelledOccurrences`).
    pub cancelled: &'a [String],
    /// The attachments of the event and of the changed instances.
    pub attachments: &'a [Attached],
}

/// An attachment.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The id of the event or changed instance that it belongs to.
    pub event: String,
    /// Its properties (Graph: attachment), without its content.
    pub properties: Value,
    /// True if its content is known.
    pub has_content: bool,
}

/// An iCalendar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// The text of the file, without the contents of attachments.
    pub text: String,
    /// Where the base64 text of attachments belongs: positions in the text, in their order, and the numbers of the
    /// attachments.
    pub places: Vec<(usize, usize)>,
}

/// Returns the file name for an event, such as `2026-11-01 09.30 Budget.ics`, with the time at the place of the event.
pub fn file_name(event: &Value) -> String {
    let subject = clean(text(event, "subject"));
    let subject = if subject.trim().is_empty() { "no subject" } else { &subject };
    let stem = match start_shown(event) {
        Some(date) => format!("{date} {subject}"),
        None => format!("undated {subject}"),
    };
    safe_name(&stem, ".ics")
}

fn start_shown(event: &Value) -> Option<String> {
    if is_all_day(event) {
        return Some(day_of(event, "start", &Zone::utc())?.to_string());
    }
    let zone = Zone::named(text(event, "originalStartTimeZone")).unwrap_or_else(Zone::utc);
    Some(zone.local(instant_of(event, "start")?)?.strftime("%Y-%m-%d %H.%M").to_string())
}

/// Returns the date of a cancelled instance: the id ends with it. Ids may contain dots, too.
pub fn cancelled_date(id: &str) -> Option<Date> {
    id.rsplit_once('.')?.1.parse().ok()
}

/// Returns the changed instances of a series.
pub fn exceptions(event: &Value) -> impl Iterator<Item = &Value> {
    list(event, "exceptionOccurrences")
}

impl Event<'_> {
    /// Returns the event as an iCalendar file.
    ///
    /// # Errors
    /// The reason why that is impossible: the event does not say when it is.
    pub fn calendar(&self) -> Result<Calendar, &'static str> {
        let start = instant_of(self.event, "start").ok_or("the event does not say when it begins")?;
        let series = self.event.get("recurrence").filter(|recurrence| recurrence.is_object());
        let zone = zone_of(self.event, series, start);
        let mut writer = Writer { of: self, zone: &zone, components: Vec::new(), zones: BTreeSet::new() };
        writer.components.push(component(ICalendarComponentType::VCalendar));
        writer.head();
        writer.event(self.event, None)?;
        for exception in exceptions(self.event) {
            let original = original_start(exception).ok_or("a changed instance does not say which one it is")?;
            writer.event(exception, Some(original))?;
        }
        Ok(writer.finish(start, series))
    }
}

/// Returns the zone in which an event is, or in which a series repeats.
fn zone_of(event: &Value, series: Option<&Value>, start: Timestamp) -> Zone {
    let range = series.and_then(|series| series.get("range"));
    // The zone of the range is the one by which Outlook expands the series. The other one is only shown.
    let named = range.and_then(|range| Zone::named(text(range, "recurrenceTimeZone")));
    let named = named.or_else(|| Zone::named(text(event, "originalStartTimeZone")));
    named.unwrap_or_else(|| {
        let first = range.and_then(|range| text(range, "startDate").get(..10)?.parse().ok());
        first.map_or_else(Zone::utc, |first| Zone::guessed(start, first))
    })
}

fn component(kind: ICalendarComponentType) -> ICalendarComponent {
    ICalendarComponent::new(kind)
}

/// Collects the components of a file.
struct Writer<'a> {
    of: &'a Event<'a>,
    zone: &'a Zone,
    components: Vec<ICalendarComponent>,
    /// The names of the zones that the properties refer to.
    zones: BTreeSet<String>,
}

/// A point in time, as a property says it.
enum Moment {
    Day(Date),
    Utc(Timestamp),
    /// What the clocks show in a zone.
    In(String, DateTime),
}

impl Moment {
    /// Returns the same time of the day some days later.
    fn later(self, days: i32) -> Option<Self> {
        Some(match self {
            _ if days == 0 => self,
            Self::Day(day) => Self::Day(day.checked_add(days.days()).ok()?),
            Self::Utc(at) => Self::Utc(at.checked_add((i64::from(days) * 24).hours()).ok()?),
            Self::In(id, local) => Self::In(id, local.checked_add(days.days()).ok()?),
        })
    }
}

impl Writer<'_> {
    fn head(&mut self) {
        let calendar = &mut self.components[0];
        calendar.add_property(ICalendarProperty::Version, "2.0");
        calendar.add_property(ICalendarProperty::Prodid, PRODUCT);
    }

    /// Adds the event itself, or the changed instance that began at `original`.
    fn event(&mut self, json: &Value, original: Option<Timestamp>) -> Result<(), &'static str> {
        let mut entries = Entries(component(ICalendarComponentType::VEvent));
        let uid = ["iCalUId", "uid", "id"].map(|name| clean(text(self.of.event, name)));
        let uid = uid.iter().find(|uid| !uid.is_empty()).ok_or("the event has no id")?;
        entries.text(ICalendarProperty::Uid, uid);
        self.stamps(&mut entries, json);
        self.times(&mut entries, json, original)?;
        if original.is_none() {
            self.series(&mut entries)?;
        }
        describe(&mut entries, json);
        people(&mut entries, json);
        states(&mut entries, json);
        self.attachments(&mut entries, json);
        let number = self.components.len() as u32;
        self.components[0].component_ids.push(number);
        self.components.push(entries.0);
        self.alarm(json, number);
        Ok(())
    }

    fn stamps(&self, entries: &mut Entries, json: &Value) {
        let changed = stamp(json, "lastModifiedDateTime").or_else(|| stamp(json, "createdDateTime"));
        // The property must be there.
        entries.time(ICalendarProperty::Dtstamp, changed.unwrap_or(Timestamp::UNIX_EPOCH));
        if let Some(created) = stamp(json, "createdDateTime") {
            entries.time(ICalendarProperty::Created, created);
        }
        if let Some(changed) = changed {
            entries.time(ICalendarProperty::LastModified, changed);
        }
    }

    fn times(&mut self, entries: &mut Entries, json: &Value, original: Option<Timestamp>) -> Result<(), &'static str> {
        let is_series = self.of.event.get("recurrence").is_some_and(Value::is_object);
        let is_master = is_series && original.is_none();
        if let Some(original) = original {
            let moment = match is_all_day(self.of.event) {
                true => Moment::Day(day_at(original, self.zone).ok_or(ODD_TIME)?),
                false => self.moment(original, true)?,
            };
            self.entry(entries, ICalendarProperty::RecurrenceId, moment);
        }
        let shift = if is_master { self.days_to_first().unwrap_or(0) } else { 0 };
        for (name, property) in [("start", ICalendarProperty::Dtstart), ("end", ICalendarProperty::Dtend)] {
            let Some(at) = instant_of(json, name) else {
                // An event without an end ends when it begins (RFC 5545, 3.6.1).
                if name == "end" { continue } else { return Err("an instance does not say when it begins") }
            };
            let moment = match is_all_day(json) {
                true => Moment::Day(day_of(json, name, self.zone).ok_or(ODD_TIME)?),
                false if is_series => self.moment(at, is_master)?,
                false => match Zone::named(text(json, if name == "start" { START_ZONE } else { END_ZONE })) {
                    Some(zone) => moment_in(&zone, at, false)?,
                    None => Moment::Utc(at),
                },
            };
            self.entry(entries, property, moment.later(shift).ok_or(ODD_TIME)?);
        }
        Ok(())
    }

    /// Returns how many days after its beginning the series has its first instance.
    fn days_to_first(&self) -> Option<i32> {
        let event = self.of.event;
        let begins = match is_all_day(event) {
            true => day_of(event, "start", self.zone)?,
            false => self.zone.local(instant_of(event, "start")?)?.date(),
        };
        recurrence::days_to_first(event.get("recurrence")?, begins)
    }

    fn series(&mut self, entries: &mut Entries) -> Result<(), &'static str> {
        let Some(recurrence) = self.of.event.get("recurrence").filter(|recurrence| recurrence.is_object()) else {
            return Ok(());
        };
        let is_all_day = is_all_day(self.of.event);
        let local = match is_all_day {
            true => day_of(self.of.event, "start", self.zone).map(|day| day.to_datetime(Time::midnight())),
            false => instant_of(self.of.event, "start").and_then(|start| self.zone.local(start)),
        };
        let local = local.ok_or(ODD_TIME)?;
        match recurrence::rule(recurrence, &Beginning { local, zone: self.zone, is_all_day }) {
            Some(rule) => entries.0.add_property(ICalendarProperty::Rrule, rule),
            None => entries.text(ICalendarProperty::Comment, "This series repeats in a way that Strongroom cannot say"),
        }
        let days: BTreeSet<Date> = self.of.cancelled.iter().filter_map(|id| cancelled_date(id)).collect();
        for day in days {
            let moment = match (is_all_day, self.zone.id()) {
                (true, _) => Moment::Day(day),
                (false, Some(id)) => Moment::In(id.to_owned(), day.to_datetime(local.time())),
                (false, None) => {
                    Moment::Utc(self.zone.instant_or_later(day.to_datetime(local.time())).ok_or(ODD_TIME)?)
                }
            };
            self.entry(entries, ICalendarProperty::Exdate, moment);
        }
        Ok(())
    }

    /// Returns an instant as a property of the series says it.
    fn moment(&self, at: Timestamp, always_local: bool) -> Result<Moment, &'static str> {
        moment_in(self.zone, at, always_local)
    }

    fn entry(&mut self, entries: &mut Entries, property: ICalendarProperty, moment: Moment) {
        let (value, parameter) = match moment {
            Moment::Day(day) => (partial_date(day), Some(ICalendarParameter::value(ICalendarValueType::Date))),
            Moment::Utc(at) => (partial_utc(at), None),
            Moment::In(id, local) => {
                self.zones.insert(id.clone());
                (partial(local), Some(ICalendarParameter::tzid(id)))
            }
        };
        entries.add(property, parameter, value.unwrap_or_else(PartialDateTime::default));
    }

    /// Adds the attachments of an event. A line that ends with its colon waits for the base64 text.
    fn attachments(&self, entries: &mut Entries, json: &Value) {
        for attached in self.of.attachments.iter().filter(|attached| attached.event == text(json, "id")) {
            let properties = &attached.properties;
            let name = parameter(text(properties, "name"));
            let name = Some(ICalendarParameter::filename(name)).filter(|_| !text(properties, "name").is_empty());
            let kind = parameter(text(properties, "contentType"));
            let kind =
                Some(ICalendarParameter::fmttype(kind)).filter(|_| is_media_type(text(properties, "contentType")));
            let entry = ICalendarEntry::new(ICalendarProperty::Attach).with_param_opt(kind).with_param_opt(name);
            let address = text(properties, "sourceUrl");
            if attached.has_content {
                let encoding = ICalendarParameterName::Other("ENCODING".to_owned());
                let entry = entry
                    .with_param(ICalendarParameter::new(encoding, "BASE64".to_owned()))
                    .with_param(ICalendarParameter::value(ICalendarValueType::Binary))
                    .with_value("");
                entries.0.entries.push(entry);
            } else if address.starts_with("https://") && address.bytes().all(|byte| byte.is_ascii_graphic()) {
                entries.0.entries.push(entry.with_value(Uri::Location(address.to_owned())));
            } else {
                let note = clean(format!("Attachment: {}", text(properties, "name")));
                entries.text(ICalendarProperty::Comment, &note);
            }
        }
    }

    fn alarm(&mut self, json: &Value, event: u32) {
        let minutes = json.get("reminderMinutesBeforeStart").and_then(Value::as_i64);
        let Some(minutes) = minutes.filter(|_| json.get("isReminderOn") == Some(&Value::Bool(true))) else { return };
        let mut alarm = Entries(component(ICalendarComponentType::VAlarm));
        alarm.0.add_property(ICalendarProperty::Action, ICalendarAction::Display);
        let subject = clean(text(json, "subject"));
        alarm.text(ICalendarProperty::Description, if subject.is_empty() { "Reminder" } else { &subject });
        let trigger = ICalendarDuration {
            neg: minutes > 0,
            minutes: u32::try_from(minutes.unsigned_abs()).unwrap_or(u32::MAX),
            ..ICalendarDuration::default()
        };
        alarm.0.add_property(ICalendarProperty::Trigger, trigger);
        let number = self.components.len() as u32;
        self.components[event as usize].component_ids.push(number);
        self.components.push(alarm.0);
    }

    /// Adds the zones, and writes the file.
    fn finish(self, start: Timestamp, series: Option<&Value>) -> Calendar {
        let waiting: Vec<_> = self.waiting();
        let mut calendar = ICalendar { components: self.components };
        // Not `add_missing_timezones`: what it writes depends on the day on which it is called.
        let year = 1970 + start.as_second().div_euclid(SECONDS_PER_YEAR);
        let last = match series.map(recurrence::last_year) {
            Some(Some(last)) => last + 2,
            Some(None) => (year + ZONE_YEARS).max(ZONE_YEAR_MIN),
            None => year + 2,
        };
        let begins = |year: i64| (year - 1970) * SECONDS_PER_YEAR;
        let last = last.clamp(year + 1, year + 1000);
        for id in &self.zones {
            calendar.add_timezone(id, begins(year - 1), begins(last));
        }
        let text = calendar.to_string();
        let mut places = Vec::new();
        let mut from = 0;
        for (line, attachment) in waiting {
            // A line that begins with a property's name stands nowhere else: texts have no line breaks, and a folded
            // line begins with a blank.
            let Some(at) = text[from..].find(&line) else { continue };
            from += at + line.len();
            places.push((from - LINE_END.len(), attachment));
        }
        Calendar { text, places }
    }

    /// Returns the lines that wait for the content of an attachment, in the order of the file, with the numbers of the
    /// attachments.
    fn waiting(&self) -> Vec<(String, usize)> {
        let mut lines = Vec::new();
        let events = std::iter::once(self.of.event).chain(exceptions(self.of.event));
        let ids = events.map(|event| text(event, "id"));
        let with_content = |id: &str| {
            let mine = self.of.attachments.iter().enumerate();
            mine.filter(|(_, one)| one.event == id && one.has_content).map(|(number, _)| number).collect::<Vec<_>>()
        };
        let numbers = ids.flat_map(with_content);
        let entries = self.components.iter().flat_map(|component| &component.entries);
        let waits = |entry: &&ICalendarEntry| {
            entry.name == ICalendarProperty::Attach && entry.values == [ICalendarValue::Text(String::new())]
        };
        for (entry, number) in entries.filter(waits).zip(numbers) {
            let mut line = String::from(LINE_END);
            entry.write_to(&mut line).expect("writing to a string cannot fail");
            lines.push((line, number));
        }
        lines
    }
}

const LINE_END: &str = "\r\n";
const ODD_TIME: &str = "the event has a time that no calendar knows";
const START_ZONE: &str = "originalStartTimeZone";
const END_ZONE: &str = "originalEndTimeZone";

/// Returns an instant as a property says it: what the clocks show in a zone, if that means no other instant.
fn moment_in(zone: &Zone, at: Timestamp, always_local: bool) -> Result<Moment, &'static str> {
    let Some(id) = zone.id() else { return Ok(Moment::Utc(at)) };
    let local = zone.local(at).ok_or(ODD_TIME)?;
    let is_sure = zone.instant(local).is_some_and(|again| again.as_second() == at.as_second());
    Ok(if is_sure || always_local { Moment::In(id.to_owned(), local) } else { Moment::Utc(at) })
}

fn is_all_day(event: &Value) -> bool {
    event.get("isAllDay") == Some(&Value::Bool(true))
}

/// Returns a property that is a date and a time in a zone (Graph: dateTimeTimeZone).
fn local_of<'a>(event: &'a Value, name: &str) -> Option<(DateTime, &'a str)> {
    let value = event.get(name)?;
    Some((text(value, "dateTime").trim_end_matches('Z').parse().ok()?, text(value, "timeZone")))
}

fn instant_of(event: &Value, name: &str) -> Option<Timestamp> {
    let (local, zone) = local_of(event, name)?;
    // The service tells times in UTC unless it is asked for something else.
    Zone::named(zone).unwrap_or_else(Zone::utc).instant_or_later(local)
}

/// Returns the day on which an event of whole days begins or ends. Whole days belong to no zone: the service tells them
/// as midnights.
fn day_of(event: &Value, name: &str, zone: &Zone) -> Option<Date> {
    let (local, _) = local_of(event, name)?;
    match local.time() == Time::midnight() {
        true => Some(local.date()),
        false => day_at(instant_of(event, name)?, zone),
    }
}

/// Returns the day that begins at an instant, in UTC or in the zone.
fn day_at(at: Timestamp, zone: &Zone) -> Option<Date> {
    let utc = Zone::utc().local(at)?;
    let local = zone.local(at)?;
    Some(if utc.time() != Time::midnight() && local.time() == Time::midnight() { local.date() } else { utc.date() })
}

/// Returns when a changed instance would have begun. Without a change of its time, that is when it begins.
fn original_start(exception: &Value) -> Option<Timestamp> {
    stamp(exception, "originalStart").or_else(|| instant_of(exception, "start"))
}

/// Returns a time in UTC, if it is set: the year 1 means that it is not.
fn stamp(event: &Value, name: &str) -> Option<Timestamp> {
    let at: Timestamp = text(event, name).parse().ok()?;
    (at.as_second() > -62_000_000_000).then_some(at)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Returns the rule of something that recurs on whole days from `first` on, such as a task (Graph:
/// patternedRecurrence). `None` for a pattern that this version does not know.
pub fn rule_of_days(recurrence: &Value, first: Date) -> Option<calcard::icalendar::ICalendarRecurrenceRule> {
    let zone = Zone::utc();
    let beginning = Beginning { local: first.to_datetime(Time::midnight()), zone: &zone, is_all_day: true };
    recurrence::rule(recurrence, &beginning)
}
