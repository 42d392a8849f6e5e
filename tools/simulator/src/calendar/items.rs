//! Reads events: listings, single events, the occurrences of a series, and views of a time.

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::attachments;
use super::json::{Shape, View};
use super::paths::{calendar_path, check_path, readable_calendar, view, view_of};
use crate::odata::Query;
use crate::server::{
    Answer, ApiError, Call, PAGE_ROWS, PAGE_ROWS_MAX, Version, collection, json_answer, page_of_matches,
};

/// `GET /users/{u}/calendars/{c}/events` and `GET /users/{u}/events` (the default calendar): appointments and series
pub fn list(call: &Call) -> Answer {
    if call.query.get("$search").is_some() {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "The simulator does not search."));
    }
    check_expand(&call.query, &["attachments"])?;
    let filter = call.query.filter()?;
    let order = call.query.order_by();
    let mut shape = Shape::new(call, &call.query)?;
    let (views, calendar) = call.with_mailbox(|mailbox| {
        let calendar = readable_calendar(call, mailbox)?;
        let keys = mailbox.events_in(calendar).into_iter();
        let views: Vec<View> = keys.filter_map(|key| view_of(mailbox, key).ok()).collect();
        Ok((views, mailbox.folder_id(calendar)))
    })?;
    let path = format!("{}/events", calendar_path(call, &calendar)?);
    if filter.is_none() && order.is_empty() {
        return plain_page(call, &shape, &views, &path);
    }
    let markers: Vec<String> = filter.iter().flat_map(|filter| filter.texts_compared_with("id")).collect();
    let asked = shape.extended.clone();
    shape.extended.extend(markers);
    let needed = filter.iter().flat_map(|filter| filter.properties()).chain(order.iter().map(|(name, _)| name.clone()));
    shape.select = shape.select.needing(needed);
    let mut rows: Vec<Value> =
        views.iter().map(|view| with_expanded(call, Value::Object(shape.full(view)), view)).collect();
    for (name, descending) in order.iter().rev() {
        let pointer = format!("/{name}");
        rows.sort_by_cached_key(|row| match row.pointer(&pointer) {
            Some(Value::String(text)) => text.to_lowercase(),
            other => other.map(Value::to_string).unwrap_or_default(),
        });
        if *descending {
            rows.reverse();
        }
    }
    if let Some(filter) = &filter {
        rows.retain(|row| filter.holds(row));
        rows.iter_mut().for_each(|row| crate::extended::forget(row, &asked));
    }
    page_of_matches(call, rows, &path)
}

/// Returns a page of views in their order. Only its own rows are made.
fn plain_page(call: &Call, shape: &Shape, views: &[View], path: &str) -> Answer {
    let size = call.page_size(PAGE_ROWS, PAGE_ROWS_MAX)?;
    let skip = call.query.number("$skip")?.unwrap_or(0);
    let page = views.iter().skip(skip).take(size);
    let rows = page.map(|view| with_expanded(call, shape.event(view), view)).collect();
    let mut annotations = Vec::new();
    if call.query.is_true("$count") {
        annotations.push(("@odata.count", json!(views.len())));
    }
    if skip + size < views.len() {
        let mut query = call.query.clone();
        query.set("$skip", Some((skip + size).to_string()));
        annotations.push(("@odata.nextLink", json!(call.link(path, &query))));
    }
    Ok(collection(call.context(path), rows, annotations))
}

fn with_expanded(call: &Call, mut row: Value, view: &View) -> Value {
    if let Some(expand) = call.query.expand().iter().find(|expand| expand.name == "attachments") {
        row["attachments"] = json!(attachments::rows(call, view, &Query::parse_options(&expand.options)));
    }
    row
}

/// Refuses expansions other than extended properties and those in `allowed`.
fn check_expand(query: &Query, allowed: &[&str]) -> Result<(), ApiError> {
    let extended = ["singlevalueextendedproperties", "multivalueextendedproperties"];
    let unknown = |name: &str| !extended.contains(&name) && !allowed.contains(&name);
    match query.expand().into_iter().find(|expand| unknown(&expand.name)) {
        None => Ok(()),
        Some(expand) => Err(ApiError::bad_request(
            "RequestBroker--ParseUri",
            format!("Could not find a property named '{}' on type 'Microsoft.OutlookServices.Event'.", expand.name),
        )),
    }
}

/// `GET /users/{u}/calendars/{c}/events/$count`
pub fn count(call: &Call) -> Answer {
    let count = call.with_mailbox(|mailbox| Ok(mailbox.events_in(readable_calendar(call, mailbox)?).len()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain")], count.to_string()).into_response())
}

/// `GET /users/{u}/events/{e}` and `GET /users/{u}/calendars/{c}/events/{e}`
pub fn get(call: &Call) -> Answer {
    check_path(call)?;
    let hidden = call.route.version == Version::V1 && call.state.tenant.switches().series_details_in_beta_only;
    let details: &[&str] = if hidden { &["attachments"] } else { &["attachments", "exceptionoccurrences"] };
    check_expand(&call.query, details)?;
    let shape = Shape::new(call, &call.query)?;
    let view = view(call)?;
    let mut body = with_expanded(call, shape.event(&view), &view);
    let is_series = view.at.day.is_none() && view.event().recurrence.is_some();
    if let Some(expand) = call.query.expand().iter().find(|expand| expand.name == "exceptionoccurrences") {
        let options = Query::parse_options(&expand.options);
        let shape = Shape::new(call, &options)?;
        let days = view.event().exceptions.keys().filter(|_| is_series);
        body["exceptionOccurrences"] = days.map(|day| shape.event(&view.on(*day))).collect();
    }
    // It is shown only if requested, and only of a single series.
    if call.query.select().names("cancelledOccurrences") && is_series {
        body["cancelledOccurrences"] = json!(shape.cancelled(&view));
    }
    body["@odata.context"] = json!(call.context(&format!("users('{}')/events/$entity", call.user()?.id)));
    Ok(json_answer(StatusCode::OK, &body))
}

/// Returns the time that a call is about.
///
/// # Errors
/// 400 if it does not say both its ends, or if they are not in order.
pub fn window(query: &Query) -> Result<(Timestamp, Timestamp), ApiError> {
    let refused = |text: String| ApiError::bad_request("ErrorInvalidParameter", text);
    let read = |name: &str| -> Result<Timestamp, ApiError> {
        let text = query.get(name).unwrap_or_default();
        if text.is_empty() {
            let text = "This request requires a time window specified by the query string parameters StartDateTime and \
                        EndDateTime.";
            return Err(refused(text.to_owned()));
        }
        let with_zone = text.parse::<Timestamp>().ok();
        // Without an offset it is a time in UTC. A `+` in a query is a space.
        let without = || {
            let local: Option<jiff::civil::DateTime> = text.parse().ok();
            local.and_then(|local| local.to_zoned(jiff::tz::TimeZone::UTC).ok()).map(|zoned| zoned.timestamp())
        };
        let found = with_zone.or_else(|| text.replace(' ', "+").parse().ok()).or_else(without);
        found.ok_or_else(|| refused(format!("The value '{text}' of parameter '{name}' is not a valid time.")))
    };
    let (from, to) = (read("startDateTime")?, read("endDateTime")?);
    if to < from {
        return Err(refused("The end of the time window must not be before its start.".to_owned()));
    }
    Ok((from, to))
}

/// Returns what of an event takes place in a time: the event itself, or occurrences and exceptions.
pub fn within(view: &View, from: Timestamp, to: Timestamp) -> Vec<View> {
    let event = view.event();
    if event.recurrence.is_none() {
        let is_within = event.appointment.is_within(from, to);
        return is_within.then(|| view.clone()).into_iter().collect();
    }
    event.days_within(from, to).into_iter().map(|day| view.on(day)).collect()
}

fn page_within(call: &Call, views: &[View], path: &str) -> Answer {
    check_expand(&call.query, &["attachments"])?;
    let (from, to) = window(&call.query)?;
    let shape = Shape::new(call, &call.query)?;
    let mut found: Vec<View> = views.iter().flat_map(|view| within(view, from, to)).collect();
    found.sort_by_cached_key(|view| (view.appointment().instants().0, view.at.event, view.at.day));
    if let Some(filter) = call.query.filter()? {
        let mut shape = shape.clone();
        shape.select = shape.select.needing(filter.properties());
        found.retain(|view| filter.holds(&Value::Object(shape.full(view))));
    }
    plain_page(call, &shape, &found, path)
}

/// `GET /users/{u}/events/{e}/instances?startDateTime&endDateTime`
pub fn instances(call: &Call) -> Answer {
    let view = view(call)?;
    if view.at.day.is_some() || view.event().recurrence.is_none() {
        let text = "The specified object must be a recurring series master.";
        return Err(ApiError::bad_request("ErrorInvalidRequest", text));
    }
    let path = format!("users('{}')/events('{}')/instances", call.user()?.id, view.id(call.id_format()));
    page_within(call, std::slice::from_ref(&view), &path)
}

/// `GET /users/{u}/calendars/{c}/calendarView` and `GET /users/{u}/calendarView?startDateTime&endDateTime`
pub fn calendar_view(call: &Call) -> Answer {
    let (views, calendar) = call.with_mailbox(|mailbox| {
        let calendar = readable_calendar(call, mailbox)?;
        let keys = mailbox.events_in(calendar).into_iter();
        let views: Vec<View> = keys.filter_map(|key| view_of(mailbox, key).ok()).collect();
        Ok((views, mailbox.folder_id(calendar)))
    })?;
    page_within(call, &views, &format!("{}/calendarView", calendar_path(call, &calendar)?))
}
