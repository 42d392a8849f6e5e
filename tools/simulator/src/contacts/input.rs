//! The fields of a contact that clients send as JSON, checked as the service checks them.
//!
//! An unknown property fails the whole request. A property that only the service sets, and one that follows from
//! others, is silently ignored.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::extended;
use crate::server::{ApiError, Version};
use crate::tenant::contact::{ADDRESS_PARTS, Contact, DERIVED_EMAILS, EMAILS_MAX, FIELDS, FieldKind};

/// Properties that only the service sets.
const SET_BY_SERVICE: [&str; 5] = ["id", "changeKey", "createdDateTime", "lastModifiedDateTime", "parentFolderId"];

/// The fields in a request. A field that is not mentioned is not in it.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// New values of fields, in the form in which they are stored. Null removes a field.
    fields: Map<String, Value>,
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

fn too_many(name: &str, max: usize) -> ApiError {
    ApiError::bad_request("ErrorInvalidProperty", format!("The property '{name}' can hold {max} values."))
}

impl Input {
    /// Reads a contact.
    ///
    /// # Errors
    /// 400 for an unknown property, for a value of the wrong type, and for an invalid address.
    pub fn read(object: &Map<String, Value>, version: Version) -> Result<Self, ApiError> {
        if version == Version::Beta {
            return Err(refused("The simulator writes contacts only in v1.0, as beta has another shape."));
        }
        let mut input = Self::default();
        for (name, value) in object {
            input.read_property(name, value)?;
        }
        Ok(input)
    }

    fn read_property(&mut self, name: &str, value: &Value) -> Result<(), ApiError> {
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        if let Some((name, kind)) = FIELDS.iter().find(|(known, _)| is(known)) {
            let value = if value.is_null() { Value::Null } else { field(name, *kind, value)? };
            self.fields.insert((*name).to_owned(), value);
        } else if name.eq_ignore_ascii_case("categories") {
            self.categories = Some(texts(name, value)?);
        } else if [extended::SINGLE, extended::MULTI].iter().any(is) {
            for property in value.as_array().ok_or_else(|| wrong_type(name))? {
                let (id, value) = extended::read(property)?;
                self.extended.insert(id, value);
            }
        } else if !(SET_BY_SERVICE.iter().any(is) || DERIVED_EMAILS.iter().any(is) || name.contains('@')) {
            return Err(refused(format!(
                "The property '{name}' does not exist on type 'microsoft.graph.contact'. Make sure to only use property \
                 names that are defined by the type."
            )));
        }
        Ok(())
    }

    /// Copies the fields into `contact`, and computes the names that follow from others and are not in the request.
    pub fn apply(&self, contact: &mut Contact) {
        let names = ["givenName", "middleName", "surname", "generation", "companyName"];
        if names.iter().any(|name| self.fields.contains_key(*name)) {
            // The service computes it anew. A client that wants its own must send it along.
            contact.fields.remove("fileAs");
        }
        for (name, value) in &self.fields {
            let is_empty = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty);
            if is_empty {
                contact.fields.remove(name);
            } else {
                contact.fields.insert(name.clone(), value.clone());
            }
        }
        contact.name();
    }
}

/// Returns the value of a field in the form in which it is stored.
fn field(name: &str, kind: FieldKind, value: &Value) -> Result<Value, ApiError> {
    match kind {
        FieldKind::Text => Ok(json!(value.as_str().ok_or_else(|| wrong_type(name))?)),
        FieldKind::Texts(max) => {
            let texts = texts(name, value)?;
            if texts.len() > max { Err(too_many(name, max)) } else { Ok(json!(texts)) }
        }
        FieldKind::Day => {
            let text = value.as_str().ok_or_else(|| wrong_type(name))?;
            let day: jiff::Timestamp = text.parse().map_err(|_| wrong_type(name))?;
            // The service keeps the day alone, and shows it at this hour.
            Ok(json!(format!("{}T11:59:00Z", day.strftime("%Y-%m-%d"))))
        }
        FieldKind::Address => address(name, value),
        FieldKind::Emails => {
            let emails = value.as_array().ok_or_else(|| wrong_type(name))?;
            if emails.len() > EMAILS_MAX {
                return Err(too_many(name, EMAILS_MAX));
            }
            emails.iter().map(email).collect()
        }
    }
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    let texts = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
    texts.map(|text| text.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name))).collect()
}

fn address(name: &str, value: &Value) -> Result<Value, ApiError> {
    let mut address = Map::new();
    for (part, value) in value.as_object().ok_or_else(|| wrong_type(name))? {
        match value {
            _ if part.contains('@') => {}
            _ if !ADDRESS_PARTS.contains(&part.as_str()) => {
                let text = format!("The property '{part}' does not exist on type 'microsoft.graph.physicalAddress'.");
                return Err(refused(text));
            }
            Value::Null => {}
            Value::String(_) => drop(address.insert(part.clone(), value.clone())),
            _ => return Err(wrong_type(part)),
        }
    }
    Ok(Value::Object(address))
}

/// Checks an e-mail address: only SMTP addresses and X.500 distinguished names are valid. An entry without an address
/// is a name alone.
fn email(value: &Value) -> Result<Value, ApiError> {
    let mut email = Map::new();
    for (part, value) in value.as_object().ok_or_else(|| wrong_type("emailAddresses"))? {
        match (part.as_str(), value) {
            (part, _) if part.contains('@') => {}
            ("name" | "address", Value::Null) => {}
            ("name" | "address", Value::String(_)) => drop(email.insert(part.clone(), value.clone())),
            ("name" | "address", _) => return Err(wrong_type(part)),
            _ => {
                let text = format!("The property '{part}' does not exist on type 'microsoft.graph.emailAddress'.");
                return Err(refused(text));
            }
        }
    }
    let address = email.get("address").and_then(Value::as_str);
    let is_smtp = |address: &str| {
        let (local, domain) = address.rsplit_once('@').unwrap_or_default();
        !local.is_empty() && !domain.is_empty() && !address.contains(|c: char| c.is_control() || " ,;<>".contains(c))
    };
    if address.is_some_and(|address| !is_smtp(address) && !address.to_ascii_lowercase().starts_with("/o=")) {
        return Err(ApiError::bad_request("ErrorInvalidRecipients", "At least one e-mail address is not valid."));
    }
    if !email.contains_key("name")
        && let Some(address) = address
    {
        email.insert("name".to_owned(), json!(address));
    }
    Ok(Value::Object(email))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Input, ApiError> {
        Input::read(value.as_object().expect("an object"), Version::V1)
    }

    fn stored(value: Value) -> Map<String, Value> {
        let mut contact = Contact::default();
        read(value).expect("a valid contact").apply(&mut contact);
        contact.fields
    }

    #[test]
    fn values_are_checked() {
        let many = |count: usize| -> Value { (0..count).map(|n| json!({"address": format!("{n}@b.c")})).collect() };
        for (value, code) in [
            (json!({"sirname": "a"}), "UnableToDeserializePostBody"),
            (json!({"surname": 1}), "UnableToDeserializePostBody"),
            (json!({"birthday": "yesterday"}), "UnableToDeserializePostBody"),
            (json!({"homeAddress": {"planet": "x"}}), "UnableToDeserializePostBody"),
            (json!({"photo": {}}), "UnableToDeserializePostBody"),
            (json!({"phones": []}), "UnableToDeserializePostBody"),
            (json!({"emailAddresses": many(4)}), "ErrorInvalidProperty"),
            (json!({"homePhones": ["1", "2", "3"]}), "ErrorInvalidProperty"),
            (json!({"emailAddresses": [{"address": ""}]}), "ErrorInvalidRecipients"),
            (json!({"emailAddresses": [{"address": "nobody"}]}), "ErrorInvalidRecipients"),
            (json!({"emailAddresses": [{"address": "a b@c"}]}), "ErrorInvalidRecipients"),
            (
                json!({"singleValueExtendedProperties": [{"id": "Integer 0x1", "value": "x"}]}),
                "ErrorInvalidPropertyForOperation",
            ),
        ] {
            assert_eq!(read(value.clone()).expect_err("an error").code, code, "{value}");
        }
        for value in [
            json!({"emailAddresses": many(3)}),
            json!({"emailAddresses": [{"address": "/o=ExchangeLabs/cn=x"}, {"name": "Only a name"}]}),
            json!({"id": "x", "changeKey": "y", "primaryEmailAddress": {"address": "nobody"}, "@odata.etag": "z"}),
            json!({"title": null, "homeAddress": null, "children": null}),
        ] {
            assert!(read(value.clone()).is_ok(), "{value}");
        }
    }

    #[test]
    fn what_is_stored_is_canonical() {
        let fields = stored(json!({
            "givenName": "A", "surname": "B", "birthday": "1980-05-06T00:00:00Z", "homePhones": [], "title": null,
            "homeAddress": {"city": "X", "state": null}, "otherAddress": {}, "emailAddresses": [{"address": "a@b.c"}],
        }));
        let expected = json!({
            "givenName": "A", "surname": "B", "displayName": "A B", "fileAs": "B, A", "birthday": "1980-05-06T11:59:00Z",
            "homeAddress": {"city": "X"}, "emailAddresses": [{"address": "a@b.c", "name": "a@b.c"}],
        });
        assert_eq!(Value::Object(fields), expected);
    }

    #[test]
    fn a_change_of_the_name_files_the_contact_anew_unless_told_otherwise() {
        let mut contact = Contact::new(stored(json!({"givenName": "A", "surname": "B", "fileAs": "Mine"})));
        assert_eq!(contact.text("fileAs"), "Mine");
        read(json!({"jobTitle": "x"})).expect("valid").apply(&mut contact);
        assert_eq!(contact.text("fileAs"), "Mine");
        read(json!({"surname": "C", "fileAs": "Still mine"})).expect("valid").apply(&mut contact);
        assert_eq!(contact.text("fileAs"), "Still mine");
        read(json!({"surname": "D"})).expect("valid").apply(&mut contact);
        assert_eq!((contact.text("fileAs"), contact.text("displayName")), ("D, A", "A B"));
    }
}
