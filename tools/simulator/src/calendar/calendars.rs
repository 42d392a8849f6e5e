//! Calendars and their groups. The default calendar is in the list like all others, and so are calendars that others
//! share.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::json::person;
use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, json_answer, page};
use crate::tenant::id::{FolderKey, change_key};
use crate::tenant::{CalendarFacts, ItemKind, Mailbox, NewCalendar, User};

const PROPERTIES: [&str; 14] = [
    "id",
    "name",
    "color",
    "hexColor",
    "isDefaultCalendar",
    "isRemovable",
    "canEdit",
    "canShare",
    "canViewPrivateItems",
    "changeKey",
    "owner",
    "allowedOnlineMeetingProviders",
    "defaultOnlineMeetingProvider",
    "isTallyingResponses",
];

/// Name of the group that every mailbox has.
const DEFAULT_GROUP: &str = "My Calendars";

fn check_select(query: &Query) -> Result<(), ApiError> {
    query.select().check("Calendar", &PROPERTIES)
}

/// Returns the calendar in the path, or the default one.
///
/// # Errors
/// 404 if there is none, 400 if the id is invalid.
pub fn resolve(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
    let Some(id) = call.route.folder.as_deref() else {
        return mailbox.well_known("calendar").ok_or_else(ApiError::item_not_found);
    };
    // Only an id names a calendar. Well-known names are names of folders.
    if id.len() < 60 {
        return Err(ApiError::invalid_id());
    }
    let found = mailbox.resolve_folder(id);
    let is_calendar = |key: &FolderKey| mailbox.folder(*key).is_some_and(|folder| folder.holds() == ItemKind::Event);
    found.filter(is_calendar).ok_or_else(ApiError::item_not_found)
}

fn calendar_json(mailbox: &Mailbox, key: FolderKey, owner: &User) -> Value {
    let Some(folder) = mailbox.folder(key) else { return Value::Null };
    let is_default = folder.well_known == Some("calendar");
    let CalendarFacts { owner: other, read_only, color, .. } = &folder.calendar;
    let is_own = other.is_none();
    let owner = match other {
        Some((name, address)) => person(name, address),
        None => person(&owner.display_name(), &owner.principal_name()),
    };
    json!({
        "id": mailbox.folder_id(key),
        "name": folder.name,
        "color": if color.is_empty() { "auto" } else { color },
        "hexColor": "",
        "isDefaultCalendar": is_default,
        "isRemovable": !is_default,
        "canEdit": !read_only,
        "canShare": is_own && !read_only,
        "canViewPrivateItems": is_own,
        "changeKey": change_key(&mailbox.guid, folder.change),
        "owner": owner,
        "allowedOnlineMeetingProviders": ["teamsForBusiness"],
        "defaultOnlineMeetingProvider": "teamsForBusiness",
        "isTallyingResponses": is_own,
    })
}

/// Returns the names of the groups, the default one first.
fn groups(mailbox: &Mailbox) -> Vec<String> {
    let mut names = vec![DEFAULT_GROUP.to_owned()];
    for key in mailbox.calendars() {
        let group = mailbox.folder(key).and_then(|folder| folder.calendar.group.clone());
        names.extend(group.filter(|group| !names.contains(group)));
    }
    names
}

fn group_json(call: &Call, name: &str, number: usize) -> Result<Value, ApiError> {
    let id = crate::odata::token::seal(&(&call.user()?.id, "group", name));
    let class =
        if number == 0 { "0006f0b7-0000-0000-c000-000000000046" } else { "00000000-0000-0000-0000-000000000000" };
    Ok(json!({"id": id, "name": name, "classId": class, "changeKey": id[..24]}))
}

/// Returns the name of the group in the path; `None` for the default group.
fn group_of(call: &Call) -> Result<Option<String>, ApiError> {
    let Some(id) = call.route.group.as_deref() else { return Ok(None) };
    let opened: Option<(String, String, String)> = crate::odata::token::open(id);
    let user = call.user()?.id.clone();
    let (_, _, name) =
        opened.filter(|(of, kind, _)| *of == user && kind == "group").ok_or_else(ApiError::item_not_found)?;
    if !call.with_mailbox(|mailbox| Ok(groups(mailbox)))?.contains(&name) {
        return Err(ApiError::item_not_found());
    }
    Ok((name != DEFAULT_GROUP).then_some(name))
}

/// `GET /users/{u}/calendarGroups`
pub fn list_groups(call: &Call) -> Answer {
    let names = call.with_mailbox(|mailbox| Ok(groups(mailbox)))?;
    let rows = names.iter().enumerate().map(|(number, name)| group_json(call, name, number));
    let rows = rows.collect::<Result<_, _>>()?;
    page(call, rows, &format!("users('{}')/calendarGroups", call.user()?.id))
}

/// `GET /users/{u}/calendars` (the default group alone) and `GET /users/{u}/calendarGroups/{g}/calendars`
pub fn list(call: &Call) -> Answer {
    check_select(&call.query)?;
    let (group, user) = (group_of(call)?, call.user()?);
    let rows = call.with_mailbox(|mailbox| {
        let all = mailbox.calendars().into_iter();
        let listed = all.filter(|key| mailbox.folder(*key).is_some_and(|folder| folder.calendar.group == group));
        Ok(listed.map(|key| calendar_json(mailbox, key, &user)).collect())
    })?;
    let path = match &call.route.group {
        Some(group) => format!("users('{}')/calendarGroups('{group}')/calendars", user.id),
        None => format!("users('{}')/calendars", user.id),
    };
    page(call, rows, &path)
}

/// `GET /users/{u}/calendars/{c}` and `GET /users/{u}/calendar`
pub fn get(call: &Call) -> Answer {
    check_select(&call.query)?;
    let user = call.user()?;
    let mut body = call.with_mailbox(|mailbox| Ok(calendar_json(mailbox, resolve(call, mailbox)?, &user)))?;
    if let Some(object) = body.as_object_mut() {
        call.query.select().retain(object);
    }
    with_context(call, body, StatusCode::OK)
}

fn with_context(call: &Call, mut body: Value, status: StatusCode) -> Answer {
    body["@odata.context"] = json!(call.context(&format!("users('{}')/calendars/$entity", call.user()?.id)));
    Ok(json_answer(status, &body))
}

/// Returns the name and the colour of the calendar in a request.
fn read_body(call: &Call) -> Result<(Option<String>, Option<String>), ApiError> {
    let object: Map<String, Value> = call.json()?;
    let known = |name: &String| PROPERTIES.contains(&name.as_str()) || name.contains('@');
    if let Some(name) = object.keys().find(|name| !known(name)) {
        let text = format!("The property '{name}' does not exist on type 'microsoft.graph.calendar'.");
        return Err(ApiError::bad_request("UnableToDeserializePostBody", text));
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
    let name = text("name");
    if name.as_deref() == Some("") {
        return Err(ApiError::bad_request("ErrorInvalidRequest", "The name of a calendar must not be empty."));
    }
    Ok((name, text("color")))
}

/// `POST /users/{u}/calendars`
pub fn create(call: &Call) -> Answer {
    let (name, color) = read_body(call)?;
    let name = name.ok_or_else(|| ApiError::bad_request("ErrorInvalidRequest", "A calendar needs a name."))?;
    let user = call.user()?;
    let body = call.with_mailbox(|mailbox| {
        let facts = CalendarFacts { color: color.unwrap_or_default(), ..CalendarFacts::default() };
        let key = mailbox.add_calendar(NewCalendar { name, facts })?;
        Ok(calendar_json(mailbox, key, &user))
    })?;
    with_context(call, body, StatusCode::CREATED)
}

/// `PATCH /users/{u}/calendars/{c}`: the name and the colour
pub fn update(call: &Call) -> Answer {
    let (name, color) = read_body(call)?;
    let user = call.user()?;
    let body = call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        if let Some(name) = &name {
            mailbox.rename_folder(key, name)?;
        }
        if let Some(color) = color {
            let facts = mailbox.folder(key).map(|folder| folder.calendar.clone()).unwrap_or_default();
            mailbox.set_calendar_facts(key, CalendarFacts { color, ..facts })?;
        }
        Ok(calendar_json(mailbox, key, &user))
    })?;
    with_context(call, body, StatusCode::OK)
}

/// `DELETE /users/{u}/calendars/{c}`: to Deleted Items. The default calendar cannot be deleted.
pub fn delete(call: &Call) -> Answer {
    call.with_mailbox(|mailbox| {
        let key = resolve(call, mailbox)?;
        let deleted = mailbox.well_known("deleteditems").ok_or_else(ApiError::item_not_found)?;
        Ok(mailbox.discard_folder(key, deleted)?)
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
