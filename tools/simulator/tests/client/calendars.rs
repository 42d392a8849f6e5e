//! A user with calendars, for tests of what a client reads of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use strongroom_simulator::{
    Attachment, CalendarFacts, NewCalendar, NewEvent, Options, Organisation, Payload, Simulator, Switches, TrueEvent,
};

use super::{Client, IMMUTABLE};

/// The year of most events here.
pub const YEAR: &str = "startDateTime=2026-01-01T00:00:00Z&endDateTime=2027-01-01T00:00:00Z";

pub struct Scene {
    pub simulator: Simulator,
    pub client: Client,
    pub user: String,
}

impl Scene {
    /// A user with an empty calendar.
    pub fn new() -> Self {
        Self::with(Switches::default(), 0)
    }

    pub fn with(switches: Switches, events: usize) -> Self {
        let organisation = Organisation { users: 1, messages: 0, contacts: 0, events, ..Organisation::default() };
        let options = Options { organisation, switches, ..Options::default() };
        let simulator = Simulator::start(options).expect("a simulator");
        let client = Client::new(&simulator);
        let user = simulator.tenant().users()[0].id.clone();
        Self { simulator, client, user }
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/v1.0/users/{}/{}", self.user, rest.replace(' ', "%20"))
    }

    pub fn beta(&self, rest: &str) -> String {
        self.path(rest).replace("v1.0", "beta")
    }

    pub fn all(&self, rest: &str) -> Vec<Value> {
        self.client.all(&self.path(rest), &[IMMUTABLE])
    }

    pub fn get(&self, rest: &str) -> (u16, Value) {
        self.client.get_with(&self.path(rest), &[("prefer", IMMUTABLE)])
    }

    pub fn add(&self, fields: Value) -> String {
        self.add_event(NewEvent::with(fields))
    }

    pub fn add_event(&self, event: NewEvent) -> String {
        self.simulator.tenant().add_event(&self.user, "calendar", event).expect("an event")
    }

    pub fn calendar(&self, name: &str, facts: CalendarFacts) -> String {
        let calendar = NewCalendar { name: name.to_owned(), facts };
        self.simulator.tenant().add_calendar(&self.user, calendar).expect("a calendar")
    }

    pub fn truth(&self) -> Vec<TrueEvent> {
        self.simulator.tenant().true_events(&self.user).expect("a mailbox")
    }
}

pub fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned()
}

pub fn texts(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| text(row, name)).collect()
}

pub fn ids(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().map(|row| text(row, "id")).collect()
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

pub fn at(time: &str, zone: &str) -> Value {
    json!({"dateTime": time, "timeZone": zone})
}

pub fn starts(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["start"]["dateTime"].as_str().expect("a start")[..16].to_owned()).collect()
}

/// An hour on a day in the year of the scenes, in UTC.
pub fn hour(subject: &str, day: &str) -> Value {
    json!({"subject": subject, "start": at(&format!("{day}T10:00:00"), "UTC"), "end": at(&format!("{day}T11:00:00"), "UTC")})
}

/// Wednesdays at nine on the west coast, from 4 March 2026 on. The clocks change on 8 March.
pub fn weekly() -> Value {
    json!({
        "subject": "Weekly",
        "start": at("2026-03-04T09:00:00", "Pacific Standard Time"),
        "end": at("2026-03-04T10:00:00", "Pacific Standard Time"),
        "recurrence": {
            "pattern": {"type": "weekly", "interval": 1, "daysOfWeek": ["wednesday"]},
            "range": {"type": "noEnd", "startDate": "2026-03-04", "recurrenceTimeZone": "Pacific Standard Time"},
        },
    })
}

pub fn file(name: &str, bytes: &[u8]) -> Attachment {
    Attachment {
        number: 0,
        name: name.to_owned(),
        content_type: "text/plain".to_owned(),
        inline: false,
        content_id: None,
        content_location: None,
        payload: Payload::File(Arc::new(bytes.to_vec())),
    }
}
