//! The properties of a contact (Graph: contact): which of them are restored, and how two contacts are compared.

use crate::restore::account::existing_items::Likeness;
use crate::source::graph::contacts::PROPERTIES;
use serde_json::{Map, Value, json};

/// The properties that only the service sets.
const SET_BY_SERVICE: [&str; 4] = ["changeKey", "createdDateTime", "lastModifiedDateTime", "parentFolderId"];
/// Properties that the service computes if a contact lacks them.
const COMPUTED_PROPERTIES: [&str; 2] = ["displayName", "fileAs"];
/// What stands before the addresses that were moved to the notes.
const MOVED_ADDRESSES: &str = "E-mail addresses that the service did not accept:";

/// Returns the names of the properties that are restored. All others are the service's own (among them `id`, and
/// addresses that repeat those of `emailAddresses`), or are not known to be accepted.
fn restored() -> impl Iterator<Item = &'static str> {
    PROPERTIES.into_iter().filter(|name| !SET_BY_SERVICE.contains(name))
}

/// The properties of a contact, without empty ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Takes the properties that are restored, and are not empty.
    pub fn new(properties: &Map<String, Value>) -> Self {
        let restored = restored().filter_map(|name| Some((name.to_owned(), without_empty(properties.get(name)?)?)));
        Self(restored.collect())
    }

    /// Returns the properties to send.
    pub fn properties(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the likeness of a contact: two contacts are alike if they say the same. How it is filed does not count,
    /// because the service computes that if it is missing.
    pub fn likeness(&self) -> Likeness {
        let compared = self.0.iter().filter(|(name, _)| *name != "fileAs");
        let compared: Map<String, Value> =
            compared.map(|(name, value)| (name.clone(), comparable(name, value))).collect();
        let text = serde_json::to_vec(&compared).expect("texts can be written as JSON");
        Likeness(blake3::hash(&text).to_hex().to_string())
    }

    /// Returns the names of the properties in which `found` differs.
    pub fn differences(&self, found: &Fields) -> Vec<&'static str> {
        let is_computed = |name: &str| COMPUTED_PROPERTIES.contains(&name) && !self.0.contains_key(name);
        let of = |fields: &Fields, name: &str| fields.0.get(name).map(|value| comparable(name, value));
        restored().filter(|name| !is_computed(name) && of(self, name) != of(found, name)).collect()
    }

    /// Returns the contact with the addresses that the service does not accept in its notes. These are the addresses
    /// that are not valid, or all if none of them looks invalid. Returns `None` if there are no addresses.
    pub fn with_addresses_in_notes(&self) -> Option<Self> {
        let all = self.0.get("emailAddresses")?.as_array()?;
        let is_invalid = |email: &&Value| !is_valid(email["address"].as_str().unwrap_or_default());
        let has_invalid = all.iter().any(|email| is_invalid(&email));
        let (moved, kept): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|email| !has_invalid || is_invalid(email));
        let mut fields = self.clone();
        match kept.is_empty() {
            true => fields.0.remove("emailAddresses"),
            false => fields.0.insert("emailAddresses".to_owned(), json!(kept)),
        };
        let lines = moved.into_iter().map(shown).collect::<Vec<_>>();
        fields.add_note(MOVED_ADDRESSES, &lines);
        Some(fields)
    }

    /// Adds lines to the notes, below a heading.
    pub fn add_note(&mut self, heading: &str, lines: &[String]) {
        let notes = self.0.get("personalNotes").and_then(Value::as_str).unwrap_or_default();
        let space = if notes.is_empty() { "" } else { "\n\n" };
        let notes = format!("{notes}{space}{heading}\n{}", lines.join("\n"));
        self.0.insert("personalNotes".to_owned(), json!(notes));
    }
}

/// Returns an address for people: `Bob <bob>`.
fn shown(email: &Value) -> String {
    let text = |name: &str| email[name].as_str().unwrap_or_default();
    match (text("name"), text("address")) {
        ("", address) => address.to_owned(),
        (name, "") => name.to_owned(),
        (name, address) if name == address => address.to_owned(),
        (name, address) => format!("{name} <{address}>"),
    }
}

/// Returns true if an address has the form of an SMTP address or of an X.500 name.
fn is_valid(address: &str) -> bool {
    let (local, domain) = address.rsplit_once('@').unwrap_or_default();
    let is_smtp = !local.is_empty() && !domain.is_empty();
    let is_plain = !address.contains(|char: char| char.is_control() || char.is_whitespace() || ",;<>".contains(char));
    (is_smtp && is_plain) || address.to_ascii_lowercase().starts_with("/o=")
}

/// Returns a value without its empty parts. `None` if nothing is left.
fn without_empty(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| value.clone()),
        Value::Array(all) => {
            let all: Vec<_> = all.iter().filter_map(without_empty).collect();
            (!all.is_empty()).then(|| all.into())
        }
        Value::Object(parts) => {
            let parts = parts.iter().filter(|(name, _)| !name.contains('@'));
            let parts: Map<_, _> =
                parts.filter_map(|(name, part)| Some((name.clone(), without_empty(part)?))).collect();
            (!parts.is_empty()).then(|| parts.into())
        }
        _ => Some(value.clone()),
    }
}

/// Returns a property in the form in which two of them are compared.
fn comparable(name: &str, value: &Value) -> Value {
    match name {
        // The service sets the hour itself.
        "birthday" => value.as_str().and_then(|text| text.get(..10)).into(),
        // It ends lines in its own way.
        "personalNotes" => {
            let text = value.as_str().unwrap_or_default().replace("\r\n", "\n");
            text.trim_end().to_owned().into()
        }
        "categories" => {
            let mut names: Vec<_> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            names.sort_unstable();
            names.into()
        }
        "emailAddresses" => value.as_array().into_iter().flatten().map(comparable_email).collect(),
        _ => value.clone(),
    }
}

/// Returns an address without its name if the name only repeats it: the service adds such a name.
fn comparable_email(email: &Value) -> Value {
    let address = email["address"].as_str().unwrap_or_default();
    let name = email["name"].as_str().filter(|name| *name != address).unwrap_or_default();
    json!([name, address])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: Value) -> Fields {
        Fields::new(json.as_object().expect("an object"))
    }

    #[test]
    fn only_what_the_service_accepts_is_sent() {
        let contact = fields(json!({
            "id": "A", "changeKey": "x", "createdDateTime": "2026-11-01T09:30:00Z", "parentFolderId": "F",
            "primaryEmailAddress": {"address": "a@b.c"}, "@odata.etag": "W/x", "new": 1, "surname": "Ä", "title": null,
            "nickName": "", "homePhones": [], "homeAddress": {"city": null, "@odata.type": "#x"}, "fileAs": "Z",
            "otherAddress": {"city": "Köln", "street": null},
        }));
        assert_eq!(
            Value::Object(contact.properties().clone()),
            json!({"surname": "Ä", "fileAs": "Z", "otherAddress": {"city": "Köln"}})
        );
    }

    #[test]
    fn what_the_service_writes_in_its_own_way_is_the_same() {
        let sent = fields(json!({
            "birthday": "1980-02-29T00:00:00Z", "personalNotes": "a\nb\n", "categories": ["b", "a"],
            "emailAddresses": [{"address": "a@b.c"}], "surname": "S",
        }));
        let found = fields(json!({
            "birthday": "1980-02-29T11:59:00Z", "personalNotes": "a\r\nb", "categories": ["a", "b"], "displayName": "S",
            "emailAddresses": [{"address": "a@b.c", "name": "a@b.c"}], "surname": "S", "fileAs": "S", "title": null,
        }));
        assert_eq!(sent.differences(&found), Vec::<&str>::new());
        assert_eq!(found.differences(&sent), ["displayName", "fileAs"]);
        let other = fields(json!({ "surname": "T", "homePhones": ["1"] }));
        assert_eq!(fields(json!({ "surname": "S" })).differences(&other), ["homePhones", "surname"]);
    }

    #[test]
    fn contacts_that_say_the_same_are_alike() {
        let one = json!({"surname": "S", "displayName": "S", "emailAddresses": [{"address": "a@b.c"}]});
        let same = json!({
            "id": "2", "surname": "S", "displayName": "S", "fileAs": "S", "changeKey": "y",
            "emailAddresses": [{"address": "a@b.c", "name": "a@b.c"}],
        });
        assert_eq!(fields(one.clone()).likeness(), fields(same).likeness());
        for (name, value) in [("surname", json!("T")), ("mobilePhone", json!("1")), ("emailAddresses", json!([]))] {
            let mut other = one.clone();
            other[name] = value;
            assert_ne!(fields(one.clone()).likeness(), fields(other).likeness(), "{name}");
        }
    }

    #[test]
    fn an_address_that_is_refused_goes_to_the_notes() {
        let good = json!({"address": "a@b.c", "name": "A"});
        let contact = fields(json!({
            "personalNotes": "x", "emailAddresses": [good, {"address": "bob", "name": "Bob"}, {"address": "/o=x/cn=y"}],
        }));
        let moved = contact.with_addresses_in_notes().expect("there are addresses");
        assert_eq!(
            Value::Object(moved.properties().clone()),
            json!({
                "personalNotes": format!("x\n\n{MOVED_ADDRESSES}\nBob <bob>"),
                "emailAddresses": [good, {"address": "/o=x/cn=y"}],
            })
        );
        // If none of them looks invalid, nobody knows which one it is.
        let moved = fields(json!({ "emailAddresses": [good] })).with_addresses_in_notes().expect("there is an address");
        let notes = format!("{MOVED_ADDRESSES}\nA <a@b.c>");
        assert_eq!(Value::Object(moved.properties().clone()), json!({ "personalNotes": notes }));
        assert_eq!(fields(json!({ "surname": "S" })).with_addresses_in_notes(), None);
    }
}
