//! A task as an iCalendar file with one VTODO (RFC 5545, 3.6.2), which task lists and calendars open.
//!
//! The crate `calcard` writes and folds the lines. This module says which property holds what.
//!
//! Invariants, for any task whatever:
//! - The same task gives the same bytes.
//! - The bytes are one task: no text can end a line or begin another property. Line breaks in texts become LF, other
//!   control characters are left out, and quotes in parameters become apostrophes.
//! - Days are days: a task is due on a date, wherever its reader lives.

use super::event::rule_of_days;
use super::ical::{calendar, clean, date, is_date, parameter, time};
use super::names::safe_name;
use super::text;
use bytes::Bytes;
use calcard::icalendar::{
    ICalendar, ICalendarAction, ICalendarComponent, ICalendarComponentType, ICalendarEntry, ICalendarParameter,
    ICalendarParameterName, ICalendarProperty, ICalendarStatus, ICalendarValue, ICalendarValueType, Uri,
};
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};

/// The name of a task that has no title.
const UNNAMED: &str = "Unnamed task";
/// The property that holds the steps of a task, as JSON.
const CHECKLIST: &str = "X-STRONGROOM-CHECKLIST";

/// What is known of a task. Texts are empty if they are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// The id.
    pub uid: String,
    /// What is to be done.
    pub title: String,
    /// More about it.
    pub body: Body,
    /// How far it is.
    pub status: Status,
    /// How important it is.
    pub importance: Importance,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it was changed last.
    pub changed: Option<Timestamp>,
    /// The day on which it begins.
    pub start: Option<Date>,
    /// The day on which it is due.
    pub due: Option<Date>,
    /// When it was completed.
    pub completed: Option<Timestamp>,
    /// When to remind of it.
    pub reminder: Option<Timestamp>,
    /// How it recurs (Graph: patternedRecurrence).
    pub recurrence: Option<Value>,
    /// The day with which the recurrence begins.
    pub recurs_from: Option<Date>,
    /// Categories.
    pub categories: Vec<String>,
    /// Its steps, in their order.
    pub steps: Vec<Step>,
    /// The addresses of what belongs to it elsewhere, such as a mail.
    pub links: Vec<String>,
    /// Its files.
    pub files: Vec<AttachedFile>,
}

/// The text of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Plain text.
    Text(String),
    /// A page of HTML.
    Html(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// How far a task is (Graph: taskStatus).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// Not begun.
    #[default]
    Open,
    /// Begun.
    Begun,
    /// Done.
    Done,
    /// Somebody else has to do something first.
    Waiting,
    /// Put off.
    Deferred,
}

/// How important a task is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Importance {
    /// Less than others.
    Low,
    /// As others.
    #[default]
    Normal,
    /// More than others.
    High,
}

/// A step of a task (Graph: checklistItem).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What is to be done.
    pub title: String,
    /// True if it was done.
    pub is_done: bool,
}

/// A file of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachedFile {
    /// Its name.
    pub name: String,
    /// Its media type; empty if it is not known.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Task {
    /// Returns the file name of the task, such as `Buy milk.ics`.
    pub fn file_name(&self) -> String {
        safe_name(&self.name(), ".ics")
    }

    fn name(&self) -> String {
        let title = clean(&self.title).replace('\n', " ");
        if title.trim().is_empty() { UNNAMED.to_owned() } else { title.trim().to_owned() }
    }

    /// Returns the task as an iCalendar file.
    pub fn ics(&self) -> Vec<u8> {
        let mut calendar = calendar();
        calendar.component_ids = vec![1];
        let mut components = vec![calendar, self.todo()];
        if let Some(alarm) = self.alarm() {
            components[1].component_ids = vec![2];
            components.push(alarm);
        }
        let mut text = String::new();
        ICalendar { components }.write_to(&mut text).expect("writing to a string cannot fail");
        text.into_bytes()
    }

    fn todo(&self) -> ICalendarComponent {
        let mut todo = ICalendarComponent::new(ICalendarComponentType::VTodo);
        let uid: String = self.uid.chars().filter(char::is_ascii_graphic).collect();
        todo.add_uid(if uid.is_empty() { "unknown" } else { &uid });
        // A file must say when it was made (RFC 5545, 3.8.7.2). This one is made anew whenever the task changes.
        todo.add_dtstamp(time(self.changed.or(self.created).unwrap_or_default()));
        let created = self.created.map(|created| (ICalendarProperty::Created, created));
        let changed = self.changed.map(|changed| (ICalendarProperty::LastModified, changed));
        created.into_iter().chain(changed).for_each(|(name, at)| todo.add_property(name, time(at)));
        todo.add_property(ICalendarProperty::Summary, self.name());
        let description = self.description();
        if !description.is_empty() {
            todo.add_property(ICalendarProperty::Description, description);
        }
        if let Body::Html(html) = &self.body {
            let kind = ICalendarParameter::fmttype("text/html".to_owned());
            let html = clean(html);
            todo.add_property_with_params(ICalendarProperty::Other("X-ALT-DESC".to_owned()), [kind], html);
        }
        self.add_progress(&mut todo);
        self.add_days(&mut todo);
        for category in self.categories.iter().map(clean).filter(|category| !category.is_empty()) {
            todo.add_property(ICalendarProperty::Categories, category);
        }
        self.add_links(&mut todo);
        if !self.steps.is_empty() {
            let steps = self.steps.iter().map(|step| json!({ "displayName": step.title, "isChecked": step.is_done }));
            let steps = clean(steps.collect::<serde_json::Value>().to_string());
            // Some readers take back what is escaped only of what says that it is text.
            let entry = ICalendarEntry::new(ICalendarProperty::Other(CHECKLIST.to_owned()));
            let entry = entry.with_param(ICalendarParameter::value(ICalendarValueType::Text));
            todo.entries.push(entry.with_value(steps));
        }
        for file in &self.files {
            todo.entries.push(file.entry());
        }
        todo
    }

    /// Returns the text of the task, with its steps at the end.
    fn description(&self) -> String {
        let text = match &self.body {
            Body::Text(text) => clean(text),
            Body::Html(html) => clean(text::of_html(html)),
        };
        let step = |step: &Step| {
            let mark = if step.is_done { "- [x]" } else { "- [ ]" };
            format!("{mark} {}", clean(&step.title).replace('\n', " "))
        };
        let steps = self.steps.iter().map(step).collect::<Vec<_>>().join("\n");
        let text = text.trim();
        if text.is_empty() || steps.is_empty() { format!("{text}{steps}") } else { format!("{text}\n\n{steps}") }
    }

    fn add_progress(&self, todo: &mut ICalendarComponent) {
        let status = match self.status {
            Status::Open => ICalendarStatus::NeedsAction.into(),
            Status::Begun => ICalendarStatus::InProcess.into(),
            Status::Done => ICalendarStatus::Completed.into(),
            // RFC 5545 has no word for these. A name with `X-` is left alone by programs that do not know it.
            Status::Waiting => ICalendarValue::Text("X-WAITING".to_owned()),
            Status::Deferred => ICalendarValue::Text("X-DEFERRED".to_owned()),
        };
        todo.add_property(ICalendarProperty::Status, status);
        let percent = if self.status == Status::Done { 100 } else { 0 };
        todo.add_property(ICalendarProperty::PercentComplete, ICalendarValue::Integer(percent));
        let priority = match self.importance {
            Importance::High => 1,
            Importance::Normal => 5,
            Importance::Low => 9,
        };
        todo.add_property(ICalendarProperty::Priority, ICalendarValue::Integer(priority));
        if let Some(completed) = self.completed {
            todo.add_property(ICalendarProperty::Completed, time(completed));
        }
    }

    fn add_days(&self, todo: &mut ICalendarComponent) {
        // What recurs must have a start (RFC 5545, 3.6.2), and nothing starts after it is due (3.8.2.3).
        let recurs_from = self.recurrence.is_some().then(|| self.recurs_from.or(self.due)).flatten();
        let start = self.start.or(recurs_from);
        let start = match self.due {
            Some(due) => start.map(|start| start.min(due)),
            None => start,
        };
        if let Some(start) = start {
            todo.add_property_with_params(ICalendarProperty::Dtstart, [is_date()], date(start));
        }
        if let Some(due) = self.due {
            todo.add_property_with_params(ICalendarProperty::Due, [is_date()], date(due));
        }
        let rule = self.recurrence.as_ref().zip(start).and_then(|(how, start)| rule_of_days(how, start));
        rule.into_iter().for_each(|rule| todo.add_property(ICalendarProperty::Rrule, rule));
    }

    fn add_links(&self, todo: &mut ICalendarComponent) {
        // A task has one URL. Further ones are attached.
        let names = std::iter::once(ICalendarProperty::Url).chain(std::iter::repeat(ICalendarProperty::Attach));
        let links = self.links.iter().filter(|link| is_link(link));
        for (name, link) in names.zip(links) {
            // calcard escapes commas and semicolons, which RFC 5545 leaves as they are in URIs (3.3.13).
            let link = link.replace(',', "%2C").replace(';', "%3B");
            let kind = ICalendarParameter::value(ICalendarValueType::Uri);
            todo.add_property_with_params(name, [kind], ICalendarValue::Uri(Uri::Location(link)));
        }
    }

    fn alarm(&self) -> Option<ICalendarComponent> {
        let at = self.reminder?;
        let mut alarm = ICalendarComponent::new(ICalendarComponentType::VAlarm);
        alarm.add_property(ICalendarProperty::Action, ICalendarAction::Display);
        alarm.add_property(ICalendarProperty::Description, self.name());
        let kind = ICalendarParameter::value(ICalendarValueType::DateTime);
        alarm.add_property_with_params(ICalendarProperty::Trigger, [kind], time(at));
        Some(alarm)
    }
}

impl AttachedFile {
    fn entry(&self) -> ICalendarEntry {
        let mut parameters = Vec::new();
        if is_media_type(&self.media_type) {
            parameters.push(ICalendarParameter::fmttype(self.media_type.clone()));
        }
        let name = ICalendarParameterName::Other("FILENAME".to_owned());
        parameters.push(ICalendarParameter::new(name, parameter(&self.name)));
        // calcard writes the encoding, but not the type that belongs to it.
        parameters.push(ICalendarParameter::value(ICalendarValueType::Binary));
        let mut entry = ICalendarEntry::new(ICalendarProperty::Attach).with_params(parameters);
        entry.values.push(ICalendarValue::Binary(self.bytes.to_vec()));
        entry
    }
}

/// Returns true if a text is the address of a page, in characters that stand in a line as they are.
fn is_link(text: &str) -> bool {
    let is_page = text.starts_with("https://") || text.starts_with("http://");
    is_page && text.chars().all(|char| char.is_ascii_graphic() && !"\"<>\\^`{|}".contains(char))
}

fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || "!#$&-^_.+".contains(char))
    };
    text.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}

#[cfg(test)]
mod tests {
    use super::*;
    use calcard::{Entry, Parser};

    fn every_other_day(range: Value) -> Value {
        json!({ "pattern": { "type": "daily", "interval": 2 }, "range": range })
    }

    fn whole() -> Task {
        let step = |title: &str, is_done| Step { title: title.to_owned(), is_done };
        Task {
            uid: "AAMk=".to_owned(),
            title: "Buy milk; and \"more\",\r\nsoon".to_owned(),
            body: Body::Html("<p>At the <b>shop</b></p>".to_owned()),
            status: Status::Begun,
            importance: Importance::High,
            created: "2026-11-01T09:30:00Z".parse().ok(),
            changed: "2026-11-02T09:30:00Z".parse().ok(),
            start: Some(jiff::civil::date(2026, 11, 3)),
            due: Some(jiff::civil::date(2026, 11, 4)),
            completed: None,
            reminder: "2026-11-04T07:00:00Z".parse().ok(),
            recurrence: Some(every_other_day(json!({ "type": "numbered", "numberOfOccurrences": 3 }))),
            recurs_from: Some(jiff::civil::date(2026, 11, 4)),
            categories: vec!["Red, light".to_owned()],
            steps: vec![step("the whole", false), step("the half", true)],
            links: vec!["https://contoso.com/a?b=c,d".to_owned(), "javascript:alert(1)".to_owned()],
            files: vec![AttachedFile {
                name: "list \"1\".txt".to_owned(),
                media_type: "text/plain".to_owned(),
                bytes: Bytes::from_static(b"milk"),
            }],
        }
    }

    fn unfolded(task: &Task) -> String {
        String::from_utf8(task.ics()).unwrap().replace("\r\n ", "")
    }

    #[test]
    fn a_task_says_what_it_is() {
        let text = unfolded(&whole());
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "UID:AAMk=",
            "DTSTAMP:20261102T093000Z",
            "CREATED:20261101T093000Z",
            "SUMMARY:Buy milk\\; and \"more\"\\, soon",
            "DESCRIPTION:At the shop\\n\\n- [ ] the whole\\n- [x] the half",
            "STATUS:IN-PROCESS",
            "PERCENT-COMPLETE:0",
            "PRIORITY:1",
            "DTSTART;VALUE=DATE:20261103",
            "DUE;VALUE=DATE:20261104",
            "RRULE:FREQ=DAILY;COUNT=3;INTERVAL=2",
            "CATEGORIES:Red\\, light",
            "URL;VALUE=URI:https://contoso.com/a?b=c%2Cd",
            "TRIGGER;VALUE=DATE-TIME:20261104T070000Z",
            "ATTACH;ENCODING=BASE64;FMTTYPE=text/plain;FILENAME=\"list '1'.txt\";VALUE=BINARY:bWlsaw==",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains("X-STRONGROOM-CHECKLIST;VALUE=TEXT:[{\"displayName\":\"the whole\"\\,"), "{text}");
        assert!(!text.contains("javascript"));
        assert_eq!(whole().file_name(), "Buy milk; and 'more', soon.ics");
    }

    #[test]
    fn nothing_in_a_text_ends_a_line() {
        let evil = "x\r\nEND:VTODO\u{2028}BEGIN:VTODO\0\u{7}";
        let task = Task {
            uid: evil.to_owned(),
            title: evil.to_owned(),
            body: Body::Text(evil.to_owned()),
            categories: vec![evil.to_owned()],
            steps: vec![Step { title: evil.to_owned(), is_done: true }],
            links: vec![format!("https://{evil}")],
            files: vec![AttachedFile { name: evil.to_owned(), media_type: evil.to_owned(), bytes: Bytes::new() }],
            ..Task::default()
        };
        let text = unfolded(&task);
        assert_eq!((text.matches("\r\nEND:VTODO\r\n").count(), text.matches("\r\nBEGIN:VTODO\r\n").count()), (1, 1));
        assert!(text.chars().all(|char| !char.is_control() || "\r\n\t".contains(char)), "{text:?}");
        let Entry::ICalendar(read) = Parser::new(&String::from_utf8(task.ics()).unwrap()).entry() else {
            panic!("no calendar: {text}")
        };
        assert_eq!(read.components.len(), 2);
    }

    #[test]
    fn what_recurs_has_a_start_that_is_not_after_it_is_due() {
        let recurrence = Some(every_other_day(json!({ "type": "noEnd", "startDate": "2026-11-03" })));
        let day = |day| Some(jiff::civil::date(2026, 11, day));
        let start = |start, due, recurs_from| {
            let text = unfolded(&Task { start, due, recurs_from, recurrence: recurrence.clone(), ..Task::default() });
            let line = text.lines().find_map(|line| line.strip_prefix("DTSTART;VALUE=DATE:202611"));
            assert_eq!(line.is_some(), text.contains("RRULE"));
            line.map(str::to_owned)
        };
        assert_eq!(start(day(1), day(2), day(3)).as_deref(), Some("01"));
        assert_eq!(start(None, day(2), day(3)).as_deref(), Some("02"));
        assert_eq!(start(None, None, day(3)).as_deref(), Some("03"));
        assert_eq!(start(day(9), day(2), None).as_deref(), Some("02"));
        assert_eq!(start(None, None, None), None);
        let text = unfolded(&Task::default());
        assert!(text.contains("SUMMARY:Unnamed task") && !text.contains("DESCRIPTION") && !text.contains("DTSTART"));
    }
}
