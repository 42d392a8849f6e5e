//! Calendars and events of a mailbox, and direct changes of them for tests and the control API.

use std::sync::Arc;

use jiff::civil::Date;
use serde_json::{Map, Value};
use strongroom_corpora::rng::Rng;

use super::event::{Appointment, CalendarEvent, Exception};
use super::id::{FolderKey, IdFormat, MailboxGuid, MessageKey, Named};
use super::{
    Arrival, CalendarFacts, Content, Extended, Extra, Flags, Folder, ItemKind, Mailbox, MailboxError, Record, Tenant,
    TenantError, message_id,
};
use crate::clock;
use crate::mime::Attachment;

/// An occurrence of a series that somebody changed.
#[derive(Clone, Debug, Default)]
pub struct NewException {
    /// The day of the occurrence by the pattern, such as `2026-03-02`.
    pub day: String,
    /// What is different from the series, in the form of v1.0.
    pub fields: Map<String, Value>,
    /// More attachments than the series has.
    pub attachments: Vec<Attachment>,
}

/// An event to add to a calendar, as if its user had written it.
#[derive(Clone, Debug, Default)]
pub struct NewEvent {
    /// Its fields in the form of v1.0, with its times and its recurrence. They are not checked: see
    /// [`CalendarEvent::new`].
    pub fields: Map<String, Value>,
    /// Names of categories.
    pub categories: Vec<String>,
    /// Its attachments.
    pub attachments: Vec<Attachment>,
    /// Changed occurrences.
    pub exceptions: Vec<NewException>,
    /// The days of deleted occurrences.
    pub cancelled: Vec<String>,
    /// True if the service shows its zone as one that an old program made up.
    pub custom_zone: bool,
    /// Identifies the event in all mailboxes; new if absent.
    pub uid: Option<[u8; 16]>,
    /// When it was created, in seconds since 1970; now if absent.
    pub created: Option<i64>,
}

/// A calendar to add to a mailbox.
#[derive(Clone, Debug, Default)]
pub struct NewCalendar {
    /// Its name.
    pub name: String,
    /// What else it has.
    pub facts: CalendarFacts,
}

/// What an id of an event names: an event, or an occurrence of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The event or the series.
    pub event: MessageKey,
    /// The day of the occurrence by the pattern; `None` for the event itself.
    pub day: Option<Date>,
}

impl NewEvent {
    /// Returns an event with these fields.
    ///
    /// # Panics
    /// Panics if `fields` is not an object.
    pub fn with(fields: Value) -> Self {
        let Value::Object(fields) = fields else { panic!("the fields of an event are an object, not {fields}") };
        Self { fields, ..Self::default() }
    }

    /// Returns the item to add to `folder`. `new_uid` identifies it if it is not to have the identity of another event.
    pub fn arrival(self, folder: FolderKey, new_uid: [u8; 16]) -> Arrival {
        let Self { fields, categories, attachments, exceptions, cancelled, custom_zone, uid, created } = self;
        let created = created.unwrap_or_else(clock::now);
        let mut event = CalendarEvent::new(uid.unwrap_or(new_uid), &fields);
        if custom_zone {
            event.hide_zone();
        }
        for attachment in attachments {
            event.attach(None, attachment);
        }
        for exception in exceptions {
            let Ok(day) = exception.day.parse() else { continue };
            let place = event.exception_mut(day);
            place.modified = created;
            place.appointment.set_fields(&exception.fields);
            place.appointment.set_times(&exception.fields);
            for attachment in exception.attachments {
                event.attach(Some(day), attachment);
            }
        }
        for day in cancelled.iter().filter_map(|day| day.parse().ok()) {
            event.cancel(day);
        }
        event_arrival(folder, event, categories, created)
    }
}

/// Returns the item for an event.
pub(crate) fn event_arrival(folder: FolderKey, event: CalendarEvent, categories: Vec<String>, created: i64) -> Arrival {
    let extra = (!categories.is_empty()).then(|| Arc::new(Extra { categories, ..Extra::default() }));
    Arrival {
        folder,
        content: Content::Event(Arc::new(event)),
        // An event counts as read.
        flags: Flags { read: true, ..Flags::default() },
        received: created,
        created,
        extra,
    }
}

impl Record {
    /// Returns the content of an event; `None` for other items.
    pub fn event(&self) -> Option<&Arc<CalendarEvent>> {
        match &self.content {
            Content::Event(event) => Some(event),
            _ => None,
        }
    }

    /// Returns the content of an event, for changes; `None` for other items.
    pub fn event_mut(&mut self) -> Option<&mut CalendarEvent> {
        match &mut self.content {
            Content::Event(event) => Some(Arc::make_mut(event)),
            _ => None,
        }
    }
}

/// Returns the id of an occurrence of a series, or of an event if there is no day.
pub fn occurrence_id(
    mailbox: &MailboxGuid,
    record: &Record,
    key: MessageKey,
    day: Option<Date>,
    format: IdFormat,
) -> String {
    let (Some(day), Some(event)) = (day, record.event()) else { return message_id(mailbox, key, record.moves, format) };
    let moves = (format == IdFormat::Default).then_some(record.moves);
    let since_1970 = Date::constant(1970, 1, 1).until(day).map_or(0, |span| span.get_days());
    Named::Occurrence { event: key, moves, edition: event.pattern_edition, day: since_1970 }.encode(mailbox)
}

/// Returns the day with this number since 1970.
fn day_of(number: i32) -> Option<Date> {
    Date::constant(1970, 1, 1).checked_add(jiff::Span::new().try_days(number).ok()?).ok()
}

impl Mailbox {
    /// Returns a new identity for an event.
    pub fn new_uid(&self) -> [u8; 16] {
        let purpose = format!("event {}", self.latest_change());
        let seed = u64::from_le_bytes(self.guid[..8].try_into().expect("eight bytes"));
        Rng::for_purpose(seed, &purpose).bytes(16).try_into().expect("sixteen bytes")
    }

    /// Returns the calendars, the default one first. One that was deleted is none.
    pub fn calendars(&self) -> Vec<FolderKey> {
        let (top, bin) = (self.well_known("msgfolderroot"), self.well_known("deleteditems"));
        let is_in = |key, outer: Option<FolderKey>| outer.is_some_and(|outer| self.lies_in(key, outer));
        let all = self.folders().filter(|(_, folder)| folder.holds() == ItemKind::Event).map(|(key, _)| key);
        let mut all: Vec<FolderKey> = all.filter(|key| is_in(*key, top) && !is_in(*key, bin)).collect();
        all.sort_by_key(|key| (Some(*key) != self.well_known("calendar"), *key));
        all
    }

    /// Adds a calendar.
    ///
    /// # Errors
    /// [`MailboxError::FolderExists`] if a calendar has this name.
    pub fn add_calendar(&mut self, calendar: NewCalendar) -> Result<FolderKey, MailboxError> {
        let NewCalendar { name, facts } = calendar;
        let parent = self.well_known("calendar").ok_or(MailboxError::NotFound)?;
        let same =
            |key: &FolderKey| self.folder(*key).is_some_and(|one| one.name.to_lowercase() == name.to_lowercase());
        if self.calendars().iter().any(same) {
            return Err(MailboxError::FolderExists);
        }
        let class = "IPF.Appointment".to_owned();
        Ok(self.insert_folder(Folder { class, calendar: facts, ..Folder::new(&name, Some(parent)) }))
    }

    /// Returns the events of a calendar, in the order of their creation.
    pub fn events_in(&self, calendar: FolderKey) -> Vec<MessageKey> {
        let events = self.items_of(ItemKind::Event).filter(|(_, record)| record.folder == calendar);
        events.map(|(key, _)| key).collect()
    }

    /// Returns the event or the occurrence with this id. An occurrence that was deleted, or is not in the pattern, is
    /// none.
    pub fn resolve_event(&self, id: &str) -> Option<Occurrence> {
        if let Some(event) = self.resolve_item(id) {
            return (self.kind_of(event) == ItemKind::Event).then_some(Occurrence { event, day: None });
        }
        let Some(Named::Occurrence { event, moves, edition, day }) = Named::decode(id, &self.guid) else { return None };
        let record = self.message(event)?;
        let content = record.event()?;
        let day = day_of(day)?;
        let current = moves.is_none_or(|moves| moves == record.moves) && edition == content.pattern_edition;
        (current && content.has(day)).then_some(Occurrence { event, day: Some(day) })
    }

    /// Changes an event, or an occurrence so that it becomes an exception. If the change is `quiet`, only the exception
    /// has a new change key, and no delta tells of it.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if there is no such event.
    pub fn change_event(
        &mut self,
        at: Occurrence,
        quiet: bool,
        now: i64,
        edit: impl FnOnce(&mut CalendarEvent),
    ) -> Result<(), MailboxError> {
        let change = self.latest_change() + 1;
        let edit = |record: &mut Record| {
            let Some(event) = record.event_mut() else { return };
            edit(event);
            if let Some(exception) = at.day.and_then(|day| event.exceptions.get_mut(&day)) {
                (exception.change, exception.modified) = (change, now);
            }
        };
        if quiet && at.day.is_some() {
            self.next_change();
            return self.change_unnoticed(at.event, edit);
        }
        self.change_message(at.event, now, edit)
    }
}

impl Mailbox {
    /// Sets the categories of an event, and adds extended properties, as part of a change that was just made.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if there is no such event.
    pub fn set_event_extra(
        &mut self,
        event: MessageKey,
        categories: Option<Vec<String>>,
        mut extended: Extended,
    ) -> Result<(), MailboxError> {
        if categories.is_none() && extended.is_empty() {
            return Ok(());
        }
        self.change_unnoticed(event, |record| {
            let extra = Self::extra(record);
            if let Some(categories) = categories {
                extra.categories = categories;
            }
            extra.extended.append(&mut extended);
        })
    }
}

/// Sets fields of an event, or of an occurrence, without checking them.
fn set(event: &mut CalendarEvent, day: Option<Date>, fields: &Map<String, Value>) {
    match day {
        None => event.set(fields),
        Some(day) => {
            let appointment: &mut Appointment = &mut event.exception_mut(day).appointment;
            appointment.set_fields(fields);
            appointment.set_times(fields);
        }
    }
}

impl Tenant {
    fn with_event<T>(
        &self,
        user: &str,
        event: &str,
        f: impl FnOnce(&mut Mailbox, Occurrence) -> Result<T, TenantError>,
    ) -> Result<T, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let at = mailbox.resolve_event(event).ok_or_else(|| TenantError::NoEvent(event.to_owned()))?;
            f(mailbox, at)
        })?
    }

    /// Returns the occurrence of a day (such as `2026-03-02`) of the series with this id.
    fn with_occurrence<T>(
        &self,
        user: &str,
        series: &str,
        day: &str,
        f: impl FnOnce(&mut Mailbox, Occurrence) -> Result<T, TenantError>,
    ) -> Result<T, TenantError> {
        let none = || TenantError::NoEvent(format!("{series} on {day}"));
        let day: Date = day.parse().map_err(|_| none())?;
        self.with_event(user, series, |mailbox, at| {
            let event = mailbox.message(at.event).and_then(Record::event);
            event.filter(|event| event.has(day)).ok_or_else(none)?;
            f(mailbox, Occurrence { day: Some(day), ..at })
        })
    }

    /// Adds a calendar and returns its id. It is renamed and removed like a folder.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user or mailbox, or if a calendar has the name.
    pub fn add_calendar(&self, user: &str, calendar: NewCalendar) -> Result<String, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let key = mailbox.add_calendar(calendar)?;
            Ok(mailbox.folder_id(key))
        })?
    }

    /// Changes what a calendar has besides its name.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or calendar.
    pub fn set_calendar_facts(&self, user: &str, calendar: &str, facts: CalendarFacts) -> Result<(), TenantError> {
        self.with_folder(user, calendar, |mailbox, key| mailbox.set_calendar_facts(key, facts))
    }

    /// Adds an event to a calendar (an id, or `calendar` for the default one) and returns its immutable id.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or calendar.
    pub fn add_event(&self, user: &str, calendar: &str, event: NewEvent) -> Result<String, TenantError> {
        self.with_folder(user, calendar, |mailbox, calendar| {
            let uid = mailbox.new_uid();
            let key = mailbox.add_message(event.arrival(calendar, uid))?;
            Ok(message_id(&mailbox.guid, key, 0, IdFormat::Immutable))
        })
    }

    /// Sets fields of an event, of a series, or of the occurrence with this id; null removes a field.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or event.
    pub fn change_event(&self, user: &str, event: &str, fields: &Map<String, Value>) -> Result<(), TenantError> {
        let quiet = self.switches().quiet_exceptions;
        self.with_event(user, event, |mailbox, at| {
            Ok(mailbox.change_event(at, quiet, clock::now(), |event| set(event, at.day, fields))?)
        })
    }

    /// Sets fields of the occurrence of a day (such as `2026-03-02`) of a series, which becomes an exception.
    /// [`crate::Switches::quiet_exceptions`] decides whether the series shows it.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn change_occurrence(
        &self,
        user: &str,
        series: &str,
        day: &str,
        fields: &Map<String, Value>,
    ) -> Result<(), TenantError> {
        let quiet = self.switches().quiet_exceptions;
        self.with_occurrence(user, series, day, |mailbox, at| {
            Ok(mailbox.change_event(at, quiet, clock::now(), |event| set(event, at.day, fields))?)
        })
    }

    /// Deletes the occurrence of a day of a series.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn cancel_occurrence(&self, user: &str, series: &str, day: &str) -> Result<(), TenantError> {
        let quiet = self.switches().quiet_exceptions;
        self.with_occurrence(user, series, day, |mailbox, at| {
            let cancel = |event: &mut CalendarEvent| at.day.into_iter().for_each(|day| event.cancel(day));
            Ok(mailbox.change_event(at, quiet, clock::now(), cancel)?)
        })
    }

    /// Adds an attachment to an event, or to the occurrence of a day of a series, which becomes an exception.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn attach_to_event(
        &self,
        user: &str,
        event: &str,
        day: Option<&str>,
        attachment: Attachment,
    ) -> Result<(), TenantError> {
        let quiet = self.switches().quiet_exceptions;
        let attach = |mailbox: &mut Mailbox, at: Occurrence| {
            let attach = |event: &mut CalendarEvent| {
                event.attach(at.day, attachment);
            };
            Ok(mailbox.change_event(at, quiet, clock::now(), attach)?)
        };
        match day {
            None => self.with_event(user, event, attach),
            Some(day) => self.with_occurrence(user, event, day, attach),
        }
    }

    /// Removes the attachment with this name from an event or from all exceptions of a series that have it.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn detach_from_event(&self, user: &str, event: &str, name: &str) -> Result<(), TenantError> {
        self.with_event(user, event, |mailbox, at| {
            Ok(mailbox.change_event(at, false, clock::now(), |event| {
                let exceptions = event.exceptions.values_mut().map(|Exception { appointment, .. }| appointment);
                for place in exceptions.chain([&mut event.appointment]) {
                    place.attachments.retain(|attachment| attachment.name != name);
                }
            })?)
        })
    }

    /// Sets the categories of an event.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn set_event_categories(&self, user: &str, event: &str, categories: Vec<String>) -> Result<(), TenantError> {
        self.with_event(user, event, |mailbox, at| {
            let set = |record: &mut Record| Mailbox::extra(record).categories = categories;
            Ok(mailbox.change_message(at.event, clock::now(), set)?)
        })
    }

    /// Moves an event to another calendar. Its immutable id stays.
    ///
    /// # Errors
    /// Those of [`Self::change_event`], and [`TenantError::NoFolder`].
    pub fn move_event(&self, user: &str, event: &str, target: &str) -> Result<(), TenantError> {
        self.with_event(user, event, |mailbox, at| {
            let target = mailbox.resolve_folder(target).ok_or_else(|| TenantError::NoFolder(target.to_owned()))?;
            Ok(mailbox.move_message(at.event, target, clock::now())?)
        })
    }

    /// Moves an event to Deleted Items, as deleting it in Outlook does. It can still be read by its immutable id.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn discard_event(&self, user: &str, event: &str) -> Result<(), TenantError> {
        self.move_event(user, event, "deleteditems")
    }

    /// Deletes an event permanently.
    ///
    /// # Errors
    /// Those of [`Self::change_event`].
    pub fn delete_event(&self, user: &str, event: &str) -> Result<(), TenantError> {
        self.with_event(user, event, |mailbox, at| Ok(mailbox.remove_message(at.event)?))
    }
}
