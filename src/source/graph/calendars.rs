//! The calendars in a mailbox, and the events in them.
//!
//! The deltas of calendars are not good enough for a backup: that of a view tells of a fixed time only and reports
//! false removals, and that of events is not promised outside of beta. So a calendar is listed in full by every run,
//! with the version of each event: one request for about a thousand events. Events whose version is new are read whole
//! ([`Calendars::event`]).
//!
//! No request asks for a time zone: the service tells all times in UTC then, and names the zones in which an event was
//! created and a series repeats.

mod attachments;
mod whole;

pub use self::attachments::{Attachment, sizes};
pub use self::whole::WholeEvent;

use super::client::Client;
use super::error::{ErrorKind, GraphError};
use super::expected::Expected;
use super::mail::{IMMUTABLE_IDS, found};
use super::model::{EmailAddress, parse_date};
use super::pages::Ends;
use super::request::{Request, Scope};
use super::round::Round;
use super::urls::path;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Preferred number of events on a page.
const PAGE_SIZE: &str = "odata.maxpagesize=999";
/// A heavy calendar answers large pages with an empty 503, and smaller ones in full.
const SMALLER_PAGES: [&str; 2] = ["odata.maxpagesize=100", "odata.maxpagesize=10"];
const CALENDARS_PER_PAGE: &str = "250";
/// Maximum number of calendars and of groups of calendars in a mailbox. Each of them costs a request in every run.
/// People have at most a few dozen.
const CALENDARS_MAX: usize = 10_000;
/// The properties that are requested of every event in a list: what names and dates its file, and its version.
const ROW_FIELDS: &str = "id,changeKey,createdDateTime,lastModifiedDateTime,subject,start,isAllDay,\
    originalStartTimeZone,type,hasAttachments";

/// A calendar (Graph: calendar).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Calendar {
    /// The id, which stays the same when the calendar is renamed.
    pub id: String,
    /// The name that people see.
    pub name: Option<String>,
    /// True for the calendar that every mailbox has.
    #[serde(default)]
    pub is_default_calendar: Option<bool>,
    /// Whose calendar it is. Calendars that others share are listed, too.
    pub owner: Option<EmailAddress>,
}

impl Calendar {
    fn is_default(&self) -> bool {
        self.is_default_calendar == Some(true)
    }

    fn address(&self) -> Option<&str> {
        self.owner.as_ref()?.address.as_deref().filter(|address| !address.is_empty())
    }
}

/// A row of a listing: the properties that this program uses, and the whole text.
#[derive(Debug, Clone)]
pub struct Event {
    /// The properties that this program uses.
    pub row: EventRow,
    /// The JSON text as it came.
    pub raw: Box<RawValue>,
}

/// The properties of an event that a backup decides by.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRow {
    /// The immutable id.
    pub id: String,
    /// The version of the event. It differs after every change.
    pub change_key: Option<String>,
    /// When the event was created.
    pub created_date_time: Option<String>,
    /// When the event was changed last.
    pub last_modified_date_time: Option<String>,
    /// `seriesMaster` for a series.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// True if it has attachments that its text does not show.
    pub has_attachments: Option<bool>,
    /// The calendar that the event lies in. A list does not say it; [`Calendars::row`] adds it.
    pub calendar: Option<CalendarId>,
}

/// The id of a calendar.
#[derive(Debug, Clone, Deserialize)]
pub struct CalendarId {
    /// The id; empty if the event lies in no calendar.
    pub id: String,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let row = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { row, raw })
    }
}

impl EventRow {
    /// Returns when the event was changed last, in seconds since 1970 (UTC). If that is unknown, returns when it was
    /// created.
    pub fn date(&self) -> Option<i64> {
        [&self.last_modified_date_time, &self.created_date_time].into_iter().flatten().find_map(|text| parse_date(text))
    }

    /// Returns true if the event is a series.
    pub fn is_series(&self) -> bool {
        self.kind.as_deref() == Some("seriesMaster")
    }
}

/// The calendars of a user.
#[derive(Clone)]
pub struct Calendars {
    client: Client,
    user: Arc<str>,
    /// True once v1.0 has shown that it does not tell how the instances of a series differ.
    beta: Arc<AtomicBool>,
}

impl Calendars {
    /// Names the calendars of the user with the id `user`.
    pub fn new(client: Client, user: &str) -> Self {
        Self { client, user: user.into(), beta: Arc::new(AtomicBool::new(false)) }
    }

    fn path(&self, segments: &[&str]) -> String {
        path(&[&["users", &*self.user], segments].concat())
    }

    fn get(&self, label: &'static str, segments: &[&str]) -> Request {
        Request::get(self.path(segments), Scope::Mailbox(self.user.clone())).labelled(label).prefer(IMMUTABLE_IDS)
    }

    fn get_beta(&self, label: &'static str, segments: &[&str]) -> Request {
        let request = Request::get_beta(self.path(segments), Scope::Mailbox(self.user.clone()));
        request.labelled(label).prefer(IMMUTABLE_IDS)
    }

    /// Returns the default calendar; `None` if there is none.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn default(&self) -> Result<Option<Calendar>, GraphError> {
        found(self.client.json(self.get("looking for the calendar", &["calendar"])).await)
    }

    /// Lists the calendars that belong to the owner of the mailbox, the default one first. The list of calendars has
    /// only those of the default group, so each group is listed.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn list(&self) -> Result<Vec<Calendar>, GraphError> {
        let mut all: Vec<Calendar> = Vec::new();
        for group in self.groups().await? {
            match self.pages(&["calendarGroups", &group, "calendars"]).await {
                Ok(calendars) => all.extend(calendars),
                // The group vanished after it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if all.len() > CALENDARS_MAX {
                return Err(GraphError::too_many("listing calendars", "calendars", CALENDARS_MAX));
            }
        }
        if all.is_empty() {
            all = self.pages(&["calendars"]).await?;
        }
        if !all.iter().any(Calendar::is_default) {
            let default = self.default().await?.map(|default| Calendar { is_default_calendar: Some(true), ..default });
            all.retain(|calendar| default.as_ref().is_none_or(|default| default.id != calendar.id));
            all.extend(default);
        }
        Ok(own(all))
    }

    async fn groups(&self) -> Result<Vec<String>, GraphError> {
        #[derive(Deserialize)]
        struct Group {
            id: String,
        }
        let request = self.get("listing groups of calendars", &["calendarGroups"]).query("$top", CALENDARS_PER_PAGE);
        match self.client.collect::<Group>(request, CALENDARS_MAX).await {
            Ok(groups) => Ok(groups.into_iter().map(|group| group.id).collect()),
            // Some mailboxes have no groups.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::BadRequest) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn pages(&self, segments: &[&str]) -> Result<Vec<Calendar>, GraphError> {
        let request = self.get("listing calendars", segments).query("$top", CALENDARS_PER_PAGE);
        self.client.collect(request, CALENDARS_MAX).await
    }

    /// Returns a calendar by its id.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn calendar(&self, id: &str) -> Result<Option<Calendar>, GraphError> {
        let request = self.get("reading a calendar", &["calendars", id]);
        let answer = self.client.json_that(request, |found: &Calendar| Expected::id(id, &found.id)).await;
        match answer {
            // That is what the service calls an id of another kind.
            Err(error) if error.kind() == ErrorKind::BadRequest => Ok(None),
            answer => found(answer),
        }
    }

    /// Starts to list all events of a calendar: single ones, and the masters of series.
    pub fn listing(&self, calendar: &str) -> Round<Event> {
        let request = self.get("listing events", &["calendars", calendar, "events"]).query("$select", ROW_FIELDS);
        let pages = self.client.pages(request.prefer(PAGE_SIZE), Ends::Plainly);
        Round::new(pages.with_smaller(PAGE_SIZE, &SMALLER_PAGES))
    }

    /// Returns the row that a listing would have for the event, and the calendar that it lies in now. `calendars` are
    /// those that are known.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn row(&self, id: &str, calendars: &[String]) -> Result<Option<Event>, GraphError> {
        let request = self.get("looking for an event", &["events", id]).query("$select", ROW_FIELDS);
        let Some(event) = found(self.client.json_that(request, |one: &Event| Expected::id(id, &one.row.id)).await)?
        else {
            return Ok(None);
        };
        let calendar = self.calendar_of(id, calendars).await?.unwrap_or_default();
        let text = event.raw.get().trim_end();
        let calendar = serde_json::json!({ "id": calendar });
        let Some(start) = text.strip_suffix('}') else { return Err(GraphError::malformed("looking for an event")) };
        let raw = format!("{start},\"calendar\":{calendar}}}");
        serde_json::from_str(&raw).map(Some).map_err(|_| GraphError::malformed("looking for an event"))
    }

    /// Returns the id of the calendar that an event lies in. There is none for an event in Deleted Items.
    async fn calendar_of(&self, id: &str, calendars: &[String]) -> Result<Option<String>, GraphError> {
        const LABEL: &str = "looking for the calendar of an event";
        let request = self.get(LABEL, &["events", id, "calendar"]).query("$select", "id");
        match self.client.json::<CalendarId>(request).await {
            Ok(calendar) => return Ok(Some(calendar.id)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::BadRequest) => {}
            Err(error) => return Err(error),
        }
        // Not every version of the service says it. But it finds an event only in the calendar that the event lies in.
        for calendar in calendars {
            let request = self.get(LABEL, &["calendars", calendar, "events", id]).query("$select", "id");
            if found(self.client.json::<CalendarId>(request).await)?.is_some() {
                return Ok(Some(calendar.clone()));
            }
        }
        Ok(None)
    }
}

/// Returns the calendars without those of other people, the default one first. Who does not say whose calendar it is
/// keeps it.
fn own(mut calendars: Vec<Calendar>) -> Vec<Calendar> {
    let mut seen = HashSet::new();
    calendars.retain(|calendar| seen.insert(calendar.id.clone()));
    let owner = calendars.iter().find(|one| one.is_default()).and_then(Calendar::address).map(str::to_lowercase);
    calendars.retain(|calendar| match (&owner, calendar.address()) {
        (Some(owner), Some(address)) => address.to_lowercase() == *owner || calendar.is_default(),
        _ => true,
    });
    calendars.sort_by_key(|calendar| !calendar.is_default());
    calendars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::graph::testing::{Service, answer, error, json};
    use serde_json::json as value;

    fn calendar(id: &str, is_default: bool, owner: Option<&str>) -> Calendar {
        let owner = owner.map(|owner| value!({ "name": "x", "address": owner }));
        serde_json::from_value(value!({ "id": id, "name": id, "isDefaultCalendar": is_default, "owner": owner }))
            .unwrap()
    }

    #[test]
    fn calendars_of_others_are_left_to_them() {
        let all = vec![
            calendar("a", false, Some("ALICE@contoso.com")),
            calendar("b", false, Some("bob@contoso.com")),
            calendar("c", true, Some("alice@contoso.com")),
            calendar("d", false, None),
            calendar("a", false, Some("alice@contoso.com")),
        ];
        let ids: Vec<_> = own(all).into_iter().map(|calendar| calendar.id).collect();
        assert_eq!(ids, ["c", "a", "d"]);
        let ids: Vec<_> =
            own(vec![calendar("b", false, Some("bob@contoso.com"))]).into_iter().map(|one| one.id).collect();
        assert_eq!(ids, ["b"], "nobody knows the owner");
    }

    #[tokio::test]
    async fn smaller_pages_are_asked_for_if_large_ones_get_an_empty_503() {
        let empty = || answer("503 Service Unavailable", "", "");
        let page = |ids: &[&str]| {
            let rows: Vec<_> = ids.iter().map(|id| value!({ "id": id })).collect();
            json("200 OK", &value!({ "value": rows }).to_string())
        };
        let service = Service::start((0..6).map(|_| empty()).chain([page(&["a", "b"])])).await;
        let mut round = Calendars::new(service.client(), "u").listing("c");
        let first = round.next().await.expect("a page").expect("a page");
        assert_eq!(first.rows().count(), 2);
        drop(first);
        assert!(round.next().await.expect("an end").is_none());
        let asked = service.requests("/events");
        assert!(asked[0].contains("odata.maxpagesize=999") && asked[6].contains("odata.maxpagesize=100"), "{asked:?}");
        // A calendar that gives no page at all is a failure, not an empty calendar.
        let service = Service::start((0..40).map(|_| empty())).await;
        let mut round = Calendars::new(service.client(), "u").listing("c");
        assert_eq!(round.next().await.map(|_| ()).unwrap_err().kind(), ErrorKind::Unavailable);
        let asked = service.requests("/events");
        assert!(
            asked
                .last()
                .is_some_and(|last| last.contains("odata.maxpagesize=10,") || last.contains("maxpagesize=10\r"))
        );
    }

    #[tokio::test]
    async fn an_event_is_found_in_its_calendar() {
        let row = || json("200 OK", r#"{"id":"e","changeKey":"1"}"#);
        let missing = || error("404 Not Found", "ErrorItemNotFound");
        let calendars = ["c1".to_owned(), "c2".to_owned()];
        let service = Service::start([row(), json("200 OK", r#"{"id":"c9"}"#)]).await;
        let found = Calendars::new(service.client(), "u").row("e", &calendars).await.expect("a row").expect("a row");
        assert_eq!(found.row.calendar.expect("a calendar").id, "c9");
        let service = Service::start([row(), missing(), missing(), json("200 OK", r#"{"id":"e"}"#)]).await;
        let found = Calendars::new(service.client(), "u").row("e", &calendars).await.expect("a row").expect("a row");
        assert_eq!(found.row.calendar.expect("a calendar").id, "c2");
        let service = Service::start([row(), missing(), missing(), missing()]).await;
        let found = Calendars::new(service.client(), "u").row("e", &calendars).await.expect("a row").expect("a row");
        assert_eq!(found.row.calendar.expect("none").id, "");
        let service = Service::start([missing()]).await;
        assert!(Calendars::new(service.client(), "u").row("e", &calendars).await.expect("an answer").is_none());
    }
}
