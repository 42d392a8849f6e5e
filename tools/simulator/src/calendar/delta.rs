//! Deltas of events.
//!
//! v1.0 has only that of a view: occurrences, exceptions and appointments in a fixed time. A change of something that is
//! not in that time, or no longer, is reported as a removal. That an occurrence was deleted is not reported at all.
//! beta also has a delta of appointments and series without a time.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::items::{window, within};
use super::json::{Shape, View};
use super::paths::{calendar_path, readable_calendar, view_of};
use crate::clock;
use crate::delta::{Items, read, removed, sync_state_lost};
use crate::odata::{Query, token};
use crate::server::{Answer, ApiError, Call, PAGE_ROWS, PAGE_ROWS_MAX, Version, collection};
use crate::tenant::id::{FolderKey, MessageKey};
use crate::tenant::{Event, ItemKind, Mailbox, Occurrence, message_id};

/// Returns the empty 503 of a calendar that is too heavy for pages of this length.
fn too_heavy(call: &Call, mailbox: &Mailbox, calendar: FolderKey) -> bool {
    let switches = call.state.tenant.switches();
    let events = mailbox.folder(calendar).map_or(0, |folder| u64::from(folder.total));
    let rows = call.preferences.page_size_max.unwrap_or(PAGE_ROWS) as u64;
    switches.heavy_calendar_events.is_some_and(|heavy| events >= heavy) && rows > switches.heavy_calendar_rows
}

/// `GET /beta/users/{u}/calendars/{c}/events/delta`
pub fn events(call: &Call) -> Answer {
    if call.route.version == Version::V1 {
        return Err(ApiError::bad_request(
            "ErrorInvalidRequest",
            "This request is not supported. Change tracking of events requires a calendar view.",
        ));
    }
    let calendar = call.with_mailbox(|mailbox| {
        let calendar = readable_calendar(call, mailbox)?;
        Ok((!too_heavy(call, mailbox, calendar)).then(|| mailbox.folder_id(calendar)))
    })?;
    let Some(calendar) = calendar else { return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()) };
    let find = |mailbox: &Mailbox, _: &str| readable_calendar(call, mailbox);
    let page = read(call, Items::Only(ItemKind::Event), find, |mailbox, event, record| {
        View::new(mailbox, Occurrence { event, day: None }, record)
    })?;
    let shape = Shape::new(call, &page.frozen)?;
    let path = format!("{}/events", calendar_path(call, &calendar)?);
    page.answer(call, &path, "event", |view| untrustworthy(shape.event(view), view))
}

/// Replaces the time of the last change by that of the creation: rows of deltas have no trustworthy one.
fn untrustworthy(mut row: Value, view: &View) -> Value {
    if let Some(time) = row.get_mut("lastModifiedDateTime") {
        *time = json!(clock::iso(view.record.created));
    }
    row
}

/// The state in a link of the delta of a view.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Token {
    generation: u64,
    serial: u64,
    calendar: u32,
    /// Position in the calendar's log up to which the client has read.
    position: u32,
    /// Number of the rows of the event at that position that the client has.
    rows: usize,
    /// Length of the log when the first round began; 0 in later rounds.
    initial_until: u32,
    /// True if the link continues a round.
    next: bool,
    /// The time, in seconds since 1970.
    window: (i64, i64),
}

/// `GET /users/{u}/calendarView/delta` and `GET /users/{u}/calendars/{c}/calendarView/delta`
pub fn view(call: &Call) -> Answer {
    let text = call.query.get("$deltatoken").or_else(|| call.query.get("$skiptoken"));
    let mut token = match text {
        Some(text) => token::open::<Token>(text).ok_or_else(|| {
            ApiError::bad_request("SyncStateInvalid", "The sync state is invalid. Badly formed token.")
        })?,
        None => first_token(&call.query)?,
    };
    let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    let (from, to) = (at(token.window.0), at(token.window.1));
    let size = call.preferences.page_size_max.unwrap_or(PAGE_ROWS).min(PAGE_ROWS_MAX);
    let live = call.state.tenant.switches().next_links_live;
    let shape = Shape::default_of(call)?;
    let format = call.id_format();
    let read = call.with_mailbox(|mailbox| {
        let calendar = readable_calendar(call, mailbox)?;
        if too_heavy(call, mailbox, calendar) {
            return Ok(None);
        }
        mailbox.tokens += 1;
        let end = mailbox.folder(calendar).map_or(0, |folder| folder.log.len());
        if token.generation == 0 {
            (token.generation, token.calendar, token.initial_until) = (mailbox.generation, calendar.0, end);
        }
        let died = token.next && live.is_some_and(|live| mailbox.tokens - token.serial > live + 1);
        if token.generation != mailbox.generation || token.calendar != calendar.0 || token.position > end || died {
            return Err(sync_state_lost(token.generation, mailbox.generation));
        }
        token.serial = mailbox.tokens;
        let mut rows = Vec::new();
        while rows.len() < size && token.position < end {
            let folder = mailbox.folder(calendar).ok_or_else(ApiError::item_not_found)?;
            let event = folder.log.get(token.position).ok_or_else(ApiError::item_not_found)?;
            let of_event = rows_of(mailbox, calendar, &token, event, (from, to));
            let left = of_event.len().saturating_sub(token.rows);
            let taken = left.min(size - rows.len());
            rows.extend(of_event.into_iter().skip(token.rows).take(taken).map(|row| match row {
                Row::Shown(view) => {
                    let mut row = untrustworthy(shape.event(&view), &view);
                    row["@odata.type"] = json!("#microsoft.graph.event");
                    row
                }
                Row::Gone(key, moves) => removed("event", message_id(&mailbox.guid, key, moves, format)),
            }));
            if taken < left {
                token.rows += taken;
                break;
            }
            (token.position, token.rows) = (token.position + 1, 0);
        }
        Ok(Some((rows, token.position < end, mailbox.folder_id(calendar))))
    })?;
    let Some((rows, more, calendar)) = read else { return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()) };
    answer(call, token, rows, more, &calendar)
}

/// Returns the token of a first call. Its time is fixed from then on.
fn first_token(query: &Query) -> Result<Token, ApiError> {
    let refused = ["$select", "$expand", "$filter", "$orderby", "$search"];
    if let Some(name) = refused.into_iter().find(|name| query.get(name).is_some()) {
        let text = format!("The query option '{name}' is not supported for change tracking of a calendar view.");
        return Err(ApiError::bad_request("ErrorInvalidUrlQuery", text));
    }
    let (from, to) = window(query)?;
    Ok(Token {
        generation: 0,
        serial: 0,
        calendar: 0,
        position: 0,
        rows: 0,
        initial_until: 0,
        next: false,
        window: (from.as_second(), to.as_second()),
    })
}

/// A row of the delta of a view.
enum Row {
    /// Something that takes place in the time.
    Shown(Box<View>),
    /// An event that is gone, or of which nothing takes place in the time, with the number of its moves.
    Gone(MessageKey, u32),
}

/// Returns the rows for an event of the log.
fn rows_of(
    mailbox: &Mailbox,
    calendar: FolderKey,
    token: &Token,
    event: Event,
    (from, to): (Timestamp, Timestamp),
) -> Vec<Row> {
    let key = event.key();
    if mailbox.kind_of(key) != ItemKind::Event {
        return Vec::new();
    }
    let is_first_round = token.position < token.initial_until;
    match event {
        Event::Removed(..) if is_first_round => Vec::new(),
        Event::Removed(key, moves) => vec![Row::Gone(key, moves)],
        Event::Changed(_) | Event::CameUnnoticed(_) => {
            let Ok(view) = view_of(mailbox, key) else { return Vec::new() };
            let is_current = view.record.folder == calendar && view.record.log_position == token.position;
            let is_noticed = matches!(event, Event::Changed(_)) || is_first_round;
            if !is_current || !is_noticed {
                return Vec::new();
            }
            let found = within(&view, from, to);
            if found.is_empty() && !is_first_round {
                return vec![Row::Gone(key, view.record.moves)];
            }
            found.into_iter().map(|view| Row::Shown(Box::new(view))).collect()
        }
    }
}

fn answer(call: &Call, mut token: Token, rows: Vec<Value>, more: bool, calendar: &str) -> Answer {
    token.next = more;
    let (annotation, name) = if more { ("@odata.nextLink", "$skiptoken") } else { ("@odata.deltaLink", "$deltatoken") };
    if !more {
        token.initial_until = 0;
    }
    let mut query = Query::default();
    query.set(name, Some(token::seal(&token)));
    let link = call.link(&format!("{}/calendarView/delta", calendar_path(call, calendar)?), &query);
    Ok(collection(call.context("Collection(event)"), rows, vec![(annotation, json!(link))]))
}
