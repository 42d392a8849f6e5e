//! The fields of a task that clients send as JSON, checked as the service checks them.
//!
//! An unknown property fails the whole request. A property that only the service sets is silently ignored.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::clock;
use crate::extended;
use crate::server::ApiError;
use crate::tenant::event::read_time;
use crate::tenant::series::Recurrence;
use crate::tenant::task::{TASK_FIELDS, Task, TaskField};
use crate::tenant::zones::zone;

/// Properties that only the service sets.
const SET_BY_SERVICE: [&str; 5] =
    ["id", "createdDateTime", "lastModifiedDateTime", "bodyLastModifiedDateTime", "hasAttachments"];

/// The fields in a request. A field that is not mentioned is not in it.
#[derive(Clone, Debug, Default)]
pub struct Input {
    fields: Map<String, Value>,
    checklist: Vec<Map<String, Value>>,
    links: Vec<Map<String, Value>>,
    /// `categories`
    pub categories: Option<Vec<String>>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
}

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::bad_request("UnableToDeserializePostBody", text)
}

fn wrong_type(name: &str) -> ApiError {
    refused(format!("Cannot convert the value of property '{name}' to its expected type."))
}

fn unknown(name: &str, kind: &str) -> ApiError {
    refused(format!("The property '{name}' does not exist on type 'microsoft.graph.{kind}'."))
}

impl Input {
    /// Reads a task.
    ///
    /// # Errors
    /// 400 for an unknown property, for a value of the wrong type, and for an invalid time or recurrence.
    pub fn read(object: &Map<String, Value>) -> Result<Self, ApiError> {
        let mut input = Self::default();
        for (name, value) in object {
            let is = |known: &&str| known.eq_ignore_ascii_case(name);
            if let Some((name, kind)) = TASK_FIELDS.iter().find(|(known, _)| is(known)) {
                let value = if value.is_null() { Value::Null } else { field(name, *kind, value)? };
                input.fields.insert((*name).to_owned(), value);
            } else if is(&"categories") {
                let all = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
                let all = all.map(|text| text.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name)));
                input.categories = Some(all.collect::<Result<_, _>>()?);
            } else if is(&"checklistItems") {
                let all = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
                input.checklist = all.map(step).collect::<Result<_, _>>()?;
            } else if is(&"linkedResources") {
                let all = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
                input.links = all.map(link).collect::<Result<_, _>>()?;
            } else if [extended::SINGLE, extended::MULTI].iter().any(is) {
                for property in value.as_array().ok_or_else(|| wrong_type(name))? {
                    let (id, value) = extended::read(property)?;
                    input.extended.insert(id, value);
                }
            } else if !(SET_BY_SERVICE.iter().any(is) || name.contains('@')) {
                return Err(unknown(name, "todoTask"));
            }
        }
        Ok(input)
    }

    /// Copies the fields into a task.
    pub fn apply(&self, task: &mut Task, now: i64) {
        task.set(&self.fields);
        if self.fields.contains_key("body") {
            task.fields.insert("bodyLastModifiedDateTime".to_owned(), json!(clock::iso(now)));
        }
        for step in &self.checklist {
            let number = task.next_part();
            task.checklist.insert(number, step.clone());
        }
        for link in &self.links {
            let number = task.next_part();
            task.links.insert(number, link.clone());
        }
        task.settle(now);
    }
}

/// Returns the value of a field in the form in which it is stored.
fn field(name: &str, kind: TaskField, value: &Value) -> Result<Value, ApiError> {
    match kind {
        TaskField::Text => Ok(json!(value.as_str().ok_or_else(|| wrong_type(name))?)),
        TaskField::Flag => Ok(json!(value.as_bool().ok_or_else(|| wrong_type(name))?)),
        TaskField::Word(words) => {
            let text = value.as_str().ok_or_else(|| wrong_type(name))?;
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            Ok(json!(word.ok_or_else(|| wrong_type(name))?))
        }
        TaskField::Body => {
            let body = value.as_object().ok_or_else(|| wrong_type(name))?;
            if let Some(part) = body.keys().find(|part| !["content", "contentType"].contains(&part.as_str())) {
                return Err(unknown(part, "itemBody"));
            }
            let kind = body.get("contentType").and_then(Value::as_str).unwrap_or("text").to_ascii_lowercase();
            if !["text", "html"].contains(&kind.as_str()) {
                return Err(wrong_type("contentType"));
            }
            Ok(json!({"content": body.get("content").and_then(Value::as_str).unwrap_or_default(), "contentType": kind}))
        }
        TaskField::Day | TaskField::Time => {
            let (_, zone_name) = read_time(value).ok_or_else(|| wrong_type(name))?;
            zone(&zone_name).ok_or_else(|| {
                ApiError::bad_request("invalidRequest", format!("The time zone '{zone_name}' is not supported."))
            })?;
            Ok(value.clone())
        }
        TaskField::Recurrence => {
            Ok(Recurrence::read(value).map_err(|why| ApiError::bad_request("invalidRequest", why))?.to_json())
        }
    }
}

fn part(value: &Value, known: &[&str], kind: &str) -> Result<Map<String, Value>, ApiError> {
    let mut part = value.as_object().ok_or_else(|| wrong_type(kind))?.clone();
    let is_known = |name: &String| known.contains(&name.as_str()) || name == "id" || name.contains('@');
    if let Some(name) = part.keys().find(|name| !is_known(name)) {
        return Err(unknown(name, kind));
    }
    part.retain(|name, value| name != "id" && !name.contains('@') && !value.is_null());
    Ok(part)
}

/// Reads a step of a task.
///
/// # Errors
/// 400 for an unknown property.
pub fn step(value: &Value) -> Result<Map<String, Value>, ApiError> {
    let mut step = part(value, &["displayName", "isChecked", "checkedDateTime", "createdDateTime"], "checklistItem")?;
    for (name, is_right) in [("displayName", Value::is_string as fn(&Value) -> bool), ("isChecked", Value::is_boolean)]
    {
        if step.get(name).is_some_and(|value| !is_right(value)) {
            return Err(wrong_type(name));
        }
    }
    step.entry("isChecked").or_insert_with(|| json!(false));
    step.insert("createdDateTime".to_owned(), json!(clock::iso(clock::now())));
    if step["isChecked"] == json!(true) {
        step.entry("checkedDateTime").or_insert_with(|| json!(clock::iso(clock::now())));
    } else {
        step.remove("checkedDateTime");
    }
    Ok(step)
}

/// Reads a link of a task.
///
/// # Errors
/// 400 for an unknown property, or a value that is no text.
pub fn link(value: &Value) -> Result<Map<String, Value>, ApiError> {
    let link = part(value, &["applicationName", "displayName", "externalId", "webUrl"], "linkedResource")?;
    match link.iter().find(|(_, value)| !value.is_string()) {
        Some((name, _)) => Err(wrong_type(name)),
        None => Ok(link),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let read = |value: &Value| Input::read(value.as_object().expect("an object"));
        for value in [
            json!({"subject": "a"}),
            json!({"title": 1}),
            json!({"status": "done"}),
            json!({"dueDateTime": "2026-01-01"}),
            json!({"dueDateTime": {"dateTime": "2026-01-01T00:00:00", "timeZone": "x"}}),
            json!({"recurrence": {}}),
            json!({"checklistItems": [{"title": "a"}]}),
            json!({"linkedResources": [{"webUrl": 1}]}),
        ] {
            assert_eq!(read(&value).expect_err("an error").status, 400, "{value}");
        }
        for value in [
            json!({"id": "x", "createdDateTime": "y", "hasAttachments": true, "@odata.etag": "z"}),
            json!({"title": "a", "dueDateTime": null, "status": "Completed", "checklistItems": [{"displayName": "a"}]}),
        ] {
            assert!(read(&value).is_ok(), "{value}");
        }
    }
}
