//! The calendars of a mailbox as a collection: each event or series an iCalendar file for people and programs.
//!
//! What is particular to calendars: the service reports changes of them only in ways that lose some, so every run lists
//! each calendar in full, and reads the events whose version is new. An event comes in several answers: the event with
//! the changed instances of its series, the cancelled instances, the attachments. All of them, as they came, are the
//! payload of the entry (`payload`), and a restore is made from that. The file is made from the same answers.
//!
//! A row is older than what is read of its event. If the event changes in between, the version of the row differs from
//! the next one, and the event is read again by the next run.
//!
//! The service need not give a series a new version if only one of its instances changes. So every series is read again
//! in an interval (`TenantOptions::listed_anew`), which begins at another time for each calendar.

mod folders;
mod payload;
mod reading;

use self::payload::{StoredAttachment, StoredEvent};

use crate::backup::collection::item::{Item, ItemKey};
use crate::backup::collection::listed::{Departed, Rounds};
use crate::backup::collection::plan::{Plan, Planned, Standing};
use crate::backup::collection::previous::Previous;
use crate::backup::collection::state::FolderState;
use crate::backup::collection::{Amendments, Collection, Examined, FolderNow, Reading, Source};
use crate::backup::context::{Context, Ended};
use crate::backup::splitter::{SplitError, Splitter};
use crate::backup::splitters::{WHOLE_BYTES_MAX, room_of};
use crate::content::event;
use crate::format::entry::{Entry, EntryKind, Facts, Timestamp};
use crate::source::graph::GraphError;
use crate::source::graph::calendars::{Calendars as Service, Event};
use crate::source::graph::round::Round;
use parking_lot::Mutex;
use std::sync::Arc;

/// The name of the default calendar in a user's `Outlook`, in every language. The others lie in it.
pub const CALENDAR: &str = "Calendar";

/// Memory that is set aside for an event without attachments, in bytes. Few series have more, with all their changed
/// instances.
const EVENT_ROOM_BYTES: u64 = 256 << 10;
/// Number of rows that are read from the local state at a time.
const ROWS_AT_ONCE: usize = 64;

/// The calendars of a mailbox.
pub struct Calendars {
    service: Service,
    /// The ids of the calendars, once they are known.
    known: Mutex<Vec<String>>,
}

/// What was read of an event.
pub struct Body {
    whole: StoredEvent,
    /// True if something of it could not be read.
    is_partial: bool,
}

impl Calendars {
    /// Names the calendars of the user with the id `user`.
    pub fn new(context: &Context, user: &str) -> Self {
        Self { service: Service::new(context.client.clone(), user), known: Mutex::new(Vec::new()) }
    }

    /// Returns the number of the interval in which a run is, for a calendar. Intervals begin at another time for each
    /// calendar, so that not all of them are read again on one day.
    fn interval(context: &Context, calendar: &str) -> u32 {
        let length = context.options.listed_anew.as_secs() as i64;
        if length == 0 {
            // Each run is an interval of its own, also if several begin in one second.
            return context.started.nanos;
        }
        let key = ItemKey::of(calendar).0;
        let shift = i64::from(u32::from_be_bytes([key[0], key[1], key[2], key[3]])) % length;
        u32::try_from((context.started.secs + shift) / length).unwrap_or(u32::MAX)
    }
}

impl Item for Event {
    fn id(&self) -> &str {
        &self.row.id
    }

    fn version(&self) -> Option<&str> {
        self.row.change_key.as_deref()
    }

    fn folder(&self) -> Option<&str> {
        self.row.calendar.as_ref().map(|calendar| calendar.id.as_str())
    }

    fn date(&self) -> Option<i64> {
        self.row.date()
    }

    fn is_removed(&self) -> bool {
        false
    }

    fn is_whole(&self) -> bool {
        // A row of a list does not say in which calendar the event lies: it is the one that was listed.
        self.row.change_key.is_some()
    }

    fn json(&self) -> &str {
        self.raw.get()
    }
}

impl Collection for Calendars {
    type Item = Event;
    type Body = Body;
    type Extra = ();

    const ITEMS: &'static str = "events";
    const LISTING: &'static str = "listing events";
    const UNFINISHED: &'static [u8] = b"\0events\0";

    async fn plan(&self, context: &Context, standing: &Standing<'_>) -> Result<Planned, GraphError> {
        let planned = folders::plan(context, &self.service, standing).await?;
        *self.known.lock() = planned.folders.iter().map(|folder| folder.id.clone()).collect();
        Ok(planned)
    }

    async fn exists(&self) -> Result<bool, GraphError> {
        Ok(self.service.default().await?.is_some())
    }

    async fn folder(&self, _context: &Context, id: &str) -> Result<Option<FolderNow>, GraphError> {
        if id.is_empty() {
            // The event lies in no calendar.
            return Ok(None);
        }
        let calendar = self.service.calendar(id).await?;
        Ok(calendar.map(|_| FolderNow { parent: None, is_wanted: true }))
    }

    fn may_follow(&self, _link: &str) -> bool {
        false
    }

    fn changes(&self, folder: &str, _link: Option<&str>) -> Round<Event> {
        self.listing(folder)
    }

    fn listing(&self, folder: &str) -> Round<Event> {
        self.service.listing(folder)
    }

    async fn item(&self, id: &str) -> Result<Option<Event>, GraphError> {
        let known = self.known.lock().clone();
        self.service.row(id, &known).await
    }

    async fn amend(
        &self,
        context: &Arc<Context>,
        plan: &Plan<'_>,
        previous: &Previous,
        rounds: &mut Rounds<Event>,
        _departed: &Departed,
    ) -> Result<Amendments, Ended> {
        let mut amendments = Amendments::default();
        for (index, listed) in &rounds.complete {
            let folder = &plan.folders[*index];
            let interval = Self::interval(context, &folder.id);
            if folder.compared == interval {
                continue;
            }
            amendments.examined.insert(*index, Examined { compared: interval, compared_to: None });
            let mut after = None;
            loop {
                let (events, last) = listed.rows_after(after.as_deref(), ROWS_AT_ONCE, context)?;
                let Some(last) = last else { break };
                after = Some(last);
                let series = events.iter().filter(|event| event.row.is_series()).map(|event| ItemKey::of(event.id()));
                amendments.suspects.extend(series.filter(|series| previous.place(*series).is_some()));
            }
        }
        Ok(amendments)
    }

    fn close(&self, folder: &mut FolderState, _all_named: bool) {
        // Every run lists every calendar in full. A state without that time is the same after an unchanged run.
        folder.listed = 0;
    }

    fn room(&self, event: &Event) -> u32 {
        let has_attachments = event.row.has_attachments != Some(false);
        room_of(Some(if has_attachments { WHOLE_BYTES_MAX } else { EVENT_ROOM_BYTES }))
    }

    async fn read(&self, context: &Arc<Context>, event: &Event, failed_before: bool) -> Result<Reading<Body>, Ended> {
        reading::read(context, &self.service, event, failed_before).await
    }

    fn name(&self, event: &Event) -> String {
        event::file_name(&serde_json::from_str(event.raw.get()).unwrap_or_default())
    }

    fn entry(
        &self,
        splitter: &mut Splitter,
        event: &Event,
        source: Source<Body>,
        _extra: &mut (),
    ) -> Result<Entry, SplitError> {
        let (content, text, payload, reconstructed) = match source {
            Source::Known(entry) => {
                let content = entry.content().cloned().unwrap_or_default();
                (content, entry.text().cloned(), entry.payload.clone(), entry.facts.reconstructed)
            }
            Source::New(Body { whole, is_partial }) => {
                let (content, text) = whole.split_calendar(splitter)?;
                (content, text, Some(whole.split_payload(splitter)?), is_partial)
            }
        };
        let mtime = Timestamp { secs: event.row.date().unwrap_or(0), nanos: 0 };
        let mut entry = Entry::new(b"", EntryKind::File(content), mtime);
        entry.payload = payload;
        entry.set_text(text);
        // Subject, sender and date are facts of mails. An entry that has them is taken for a mail.
        entry.facts = Facts {
            source_id: Some(event.row.id.clone()),
            change_key: event.row.change_key.clone(),
            reconstructed,
            ..Facts::default()
        };
        Ok(entry)
    }
}
