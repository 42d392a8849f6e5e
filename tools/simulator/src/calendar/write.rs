//! Creates, changes and deletes events. There is no switch that keeps the service from sending: an event with attendees
//! sends invitations, its changes send updates, and its end sends cancellations. All of them are only counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use strongroom_corpora::rng::Rng;

use super::calendars;
use super::input::Input;
use super::json::{Shape, View};
use super::outbox::{send, send_cancellations};
use super::paths::{check_path, resolve, view, view_at};
use crate::clock;
use crate::server::{Answer, ApiError, Call, json_answer};
use crate::tenant::id::FolderKey;
use crate::tenant::{Appointment, Arrival, CalendarEvent, Extra, ItemKind, Mailbox, Occurrence, event_arrival};

/// Returns the calendar in the path, if its user may write into it.
fn writable_calendar(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    let key = calendars::resolve(call, mailbox)?;
    check_writable(mailbox, key)?;
    Ok(key)
}

fn check_writable(mailbox: &Mailbox, calendar: FolderKey) -> Result<(), ApiError> {
    if mailbox.folder(calendar).is_some_and(|folder| folder.calendar.read_only) {
        let text = "Access is denied. Check credentials and try again.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ErrorAccessDenied", text));
    }
    Ok(())
}

/// `POST /users/{u}/events` (into the default calendar) and `POST /users/{u}/calendars/{c}/events`
pub fn create(call: &Call) -> Answer {
    let mut input = Input::read(&call.json::<Map<String, Value>>()?, call.route.version)?;
    input.check_new()?;
    // The service sets these itself.
    for overwritten in ["systemtime 0x3007", "systemtime 0x3008", "string 0x1a"] {
        input.extended.remove(overwritten);
    }
    let lags = call.state.tenant.switches().new_messages_lag;
    let (view, is_new) = call.with_mailbox(|mailbox| {
        let calendar = writable_calendar(call, mailbox)?;
        // A repeated request finds what the first one made.
        if let Some(known) = with_transaction(mailbox, input.fields.get("transactionId")) {
            return Ok((view_at(mailbox, known)?, false));
        }
        let mut event = CalendarEvent::new(mailbox.new_uid(), &Map::new());
        input.apply(&mut event)?;
        event.pattern_edition = 0;
        for attachment in input.attachments.clone() {
            event.attach(None, attachment);
        }
        let is_meeting = make_meeting(&mut event.appointment, false, mailbox.latest_change());
        let categories = input.categories.clone().unwrap_or_default();
        let mut arrival = event_arrival(calendar, event, categories.clone(), clock::now());
        if !input.extended.is_empty() {
            let extra = Extra { categories, extended: input.extended.clone(), ..Extra::default() };
            arrival = Arrival { extra: Some(Arc::new(extra)), ..arrival };
        }
        let key = mailbox.add_message(arrival)?;
        if lags {
            mailbox.lagging.insert(key);
        }
        count_meeting(call, is_meeting);
        Ok((view_at(mailbox, Occurrence { event: key, day: None })?, true))
    })?;
    if is_new {
        send(&call.state, &[], view.event().appointment.attendees());
    }
    let mut response = json_answer(StatusCode::CREATED, &shown(call, &view)?);
    let location = format!(
        "{}/{}/users('{}')/events('{}')",
        call.state.url,
        call.route.version.name(),
        call.user()?.id,
        view.id(call.id_format())
    );
    let location = HeaderValue::from_str(&location).expect("ids are ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Returns the event that was created with this `transactionId`.
fn with_transaction(mailbox: &Mailbox, id: Option<&Value>) -> Option<Occurrence> {
    let id = id.filter(|id| id.is_string())?;
    let same = |event: &Arc<CalendarEvent>| event.appointment.fields.get("transactionId") == Some(id);
    let mut events = mailbox.items_of(ItemKind::Event);
    events.find(|(_, record)| record.event().is_some_and(same)).map(|(event, _)| Occurrence { event, day: None })
}

/// Makes the online meeting of an event that is to have one and had none before. Returns whether it made one.
fn make_meeting(appointment: &mut Appointment, had_one: bool, seed: u64) -> bool {
    let wants_one = appointment.fields.get("isOnlineMeeting") == Some(&json!(true));
    if !wants_one || had_one {
        return false;
    }
    let url = format!("https://teams.microsoft.com/l/meetup-join/{}", Rng::new(seed).uuid());
    appointment.fields.insert("onlineMeetingProvider".to_owned(), json!("teamsForBusiness"));
    appointment.fields.insert("onlineMeeting".to_owned(), json!({"joinUrl": url}));
    true
}

fn count_meeting(call: &Call, made: bool) {
    call.state.counters.online_meetings_made.fetch_add(u64::from(made), Ordering::Relaxed);
}

fn shown(call: &Call, view: &View) -> Result<Value, ApiError> {
    let mut body = Shape::default_of(call)?.event(view);
    body["@odata.context"] = json!(call.context(&format!("users('{}')/events/$entity", call.user()?.id)));
    Ok(body)
}

/// Returns the event in the path and checks that it may be written.
fn writable(call: &Call) -> Result<View, ApiError> {
    check_path(call)?;
    let before = view(call)?;
    call.with_mailbox(|mailbox| check_writable(mailbox, before.record.folder))?;
    call.check_etag(&before.change_key())?;
    Ok(before)
}

/// `PATCH /users/{u}/events/{e}`: an event, a series, or an occurrence, which becomes an exception
pub fn update(call: &Call) -> Answer {
    let mut input = Input::read(&call.json::<Map<String, Value>>()?, call.route.version)?;
    let before = writable(call)?;
    let old = before.appointment();
    let had_one = old.fields.get("isOnlineMeeting") == Some(&json!(true));
    // It identifies the request that made the event.
    input.fields.remove("transactionId");
    if before.at.day.is_some() && !input.extended.is_empty() {
        let text = "The simulator does not write extended properties of an occurrence.";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text));
    }
    let quiet = call.state.tenant.switches().quiet_exceptions;
    let (after, made) = call.with_mailbox(|mailbox| {
        let at = resolve(call, mailbox)?;
        // It is checked on a copy: an event that is refused stays as it was.
        let mut event = view_at(mailbox, at)?.event().clone();
        let seed = mailbox.latest_change();
        let made = match at.day {
            None => {
                input.apply(&mut event)?;
                make_meeting(&mut event.appointment, had_one, seed)
            }
            Some(day) => {
                let appointment = &mut event.exception_mut(day).appointment;
                input.apply_to_occurrence(appointment)?;
                make_meeting(appointment, had_one, seed)
            }
        };
        mailbox.change_event(at, quiet, clock::now(), |place| *place = event)?;
        if at.day.is_none() {
            mailbox.set_event_extra(at.event, input.categories.take(), std::mem::take(&mut input.extended))?;
        }
        Ok((view_at(mailbox, at)?, made))
    })?;
    count_meeting(call, made);
    let new = after.appointment();
    if !old.is_of_others() {
        send(&call.state, old.attendees(), new.attendees());
    }
    Ok(json_answer(StatusCode::OK, &shown(call, &after)?))
}

/// `DELETE /users/{u}/events/{e}`: to Deleted Items, from there to the recoverable items, and no further. An occurrence is
/// cancelled.
pub fn delete(call: &Call) -> Answer {
    let before = writable(call)?;
    let switches = call.state.tenant.switches();
    call.with_mailbox(|mailbox| {
        let at = resolve(call, mailbox)?;
        match at.day {
            Some(day) => {
                Ok(mailbox.change_event(at, switches.quiet_exceptions, clock::now(), |event| event.cancel(day))?)
            }
            None => Ok(mailbox.discard_item(at.event, switches.deletes_go_to_recoverable_items, clock::now())?),
        }
    })?;
    send_cancellations(&call.state, &before.appointment());
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/events/{e}/permanentDelete`
pub fn permanently_delete(call: &Call) -> Answer {
    let before = writable(call)?;
    call.with_mailbox(|mailbox| {
        let at = resolve(call, mailbox)?;
        if let Some(day) = at.day {
            return Ok(mailbox.change_event(at, false, clock::now(), |event| event.cancel(day))?);
        }
        let purges = mailbox.well_known("recoverableitemspurges").ok_or_else(ApiError::item_not_found)?;
        Ok(mailbox.move_message(at.event, purges, clock::now())?)
    })?;
    send_cancellations(&call.state, &before.appointment());
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /users/{u}/events/{e}/cancel`: only for the organizer
pub fn cancel(call: &Call) -> Answer {
    if writable(call)?.appointment().is_of_others() {
        let text = "Your request can't be completed. You need to be an organizer to cancel a meeting.";
        return Err(ApiError::bad_request("ErrorInvalidRequest", text));
    }
    delete(call)?;
    Ok(accepted())
}

/// `POST /users/{u}/events/{e}/accept`, `decline`, `tentativelyAccept` and `forward`
pub fn answer(call: &Call) -> Answer {
    let before = writable(call)?;
    let what = call.route.rest.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let is_forward = what == "forward";
    if !is_forward && !before.appointment().is_of_others() {
        let text =
            "Your request can't be completed. You can't respond to this meeting because you're the meeting organizer.";
        return Err(ApiError::bad_request("ErrorInvalidRequest", text));
    }
    if is_forward || body["sendResponse"] != json!(false) {
        call.state.counters.mails_sent.fetch_add(1, Ordering::Relaxed);
    }
    if is_forward {
        return Ok(accepted());
    }
    let response = match what.as_str() {
        "accept" => "accepted",
        "decline" => "declined",
        _ => "tentativelyAccepted",
    };
    call.with_mailbox(|mailbox| {
        let at = resolve(call, mailbox)?;
        if response == "declined" && at.day.is_none() {
            return Ok(mailbox.discard_item(at.event, false, clock::now())?);
        }
        let status = json!({"response": response, "time": clock::iso(clock::now())});
        Ok(mailbox.change_event(at, false, clock::now(), |event| {
            let place = match at.day {
                Some(day) => &mut event.exception_mut(day).appointment,
                None => &mut event.appointment,
            };
            place.fields.insert("responseStatus".to_owned(), status);
        })?)
    })?;
    Ok(accepted())
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}
