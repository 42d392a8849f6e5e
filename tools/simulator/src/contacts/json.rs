//! Contacts as JSON, in the shape of v1.0 or of beta.

use serde_json::{Map, Value, json};

use crate::clock;
use crate::extended::{self, MULTI, SINGLE};
use crate::odata::{Query, Select};
use crate::server::{ApiError, Call, Version};
use crate::tenant::contact::{ADDRESS_PARTS, Contact, DERIVED_EMAILS, FIELDS, FieldKind};
use crate::tenant::id::{IdFormat, MailboxGuid, MessageKey, Named, change_key};
use crate::tenant::{ItemKind, Mailbox, Record, message_id};

/// Properties of every item.
const OF_ITEM: [&str; 6] =
    ["id", "changeKey", "createdDateTime", "lastModifiedDateTime", "categories", "parentFolderId"];

/// Properties that beta has in place of some of v1.0.
const ONLY_IN_BETA: [&str; 7] =
    ["phones", "postalAddresses", "websites", "gender", "isFavorite", "weddingAnniversary", "flag"];

/// Properties of v1.0 that beta shows in another form, or not at all.
const NOT_IN_BETA: [&str; 7] = [
    "businessPhones",
    "homePhones",
    "mobilePhone",
    "businessAddress",
    "homeAddress",
    "otherAddress",
    "businessHomePage",
];

/// A copy of a contact's record, to use without the mailbox's lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The mailbox.
    pub guid: MailboxGuid,
    /// The contact.
    pub key: MessageKey,
    /// Its record at that time.
    pub record: Record,
}

impl View {
    /// Returns the view of a contact.
    pub fn new(mailbox: &Mailbox, key: MessageKey, record: &Record) -> Self {
        Self { guid: mailbox.guid, key, record: record.clone() }
    }

    /// Returns the id of the contact.
    pub fn id(&self, format: IdFormat) -> String {
        message_id(&self.guid, self.key, self.record.moves, format)
    }

    /// Returns the change key, which is new after every change that shows.
    pub fn change_key(&self) -> String {
        change_key(&self.guid, self.record.change)
    }

    fn extended_property(&self, id: &str) -> Option<Value> {
        let canonical = extended::canonical(id);
        if let Some(value) = self.record.extra.as_deref().and_then(|extra| extra.extended.get(&canonical)) {
            return Some(value.clone());
        }
        let text = |name: &str| self.record.contact().map(|contact| json!(contact.text(name)));
        match canonical.as_str() {
            "string 0x1a" => ItemKind::Contact.class().map(|class| json!(class)),
            "string 0x3001" => text("displayName"),
            "string 0x3a06" => text("givenName"),
            "string 0x3a11" => text("surname"),
            "systemtime 0x3007" => Some(json!(clock::iso(self.record.created))),
            "systemtime 0x3008" => Some(json!(clock::iso(self.record.modified))),
            _ => None,
        }
    }
}

/// How to show contacts.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The properties to show.
    pub select: Select,
    format: IdFormat,
    version: Version,
    /// Extended properties with one value, in the spelling of the request.
    pub extended: Vec<String>,
    multi_extended: Vec<String>,
}

impl Shape {
    /// Returns the shape for a call, with the options of `query`.
    ///
    /// # Errors
    /// 400 if `$select` contains a name that is not a property of a contact in this version of the API.
    pub fn new(call: &Call, query: &Query) -> Result<Self, ApiError> {
        let version = call.route.version;
        let names = FIELDS.iter().map(|(name, _)| *name).chain(OF_ITEM).chain(DERIVED_EMAILS);
        let known: Vec<&str> = match version {
            Version::V1 => names.collect(),
            Version::Beta => names.filter(|name| !NOT_IN_BETA.contains(name)).chain(ONLY_IN_BETA).collect(),
        };
        query.select().check("Contact", &known)?;
        Ok(Self { version, ..Self::of(query, call.id_format()) })
    }

    /// Returns the shape in which contacts are shown by default.
    pub fn default_of(call: &Call) -> Self {
        Self { version: call.route.version, ..Self::of(&Query::default(), call.id_format()) }
    }

    /// Returns the shape of v1.0 with immutable ids and all properties.
    pub fn whole() -> Self {
        Self::of(&Query::default(), IdFormat::Immutable)
    }

    fn of(query: &Query, format: IdFormat) -> Self {
        Self {
            select: query.select(),
            format,
            version: Version::V1,
            extended: extended::wanted(query, "singlevalueextendedproperties"),
            multi_extended: extended::wanted(query, "multivalueextendedproperties"),
        }
    }

    /// Returns a contact in this shape. It may still contain properties that only a filter or an order needs.
    pub fn full(&self, view: &View) -> Value {
        let record = &view.record;
        let change_key = view.change_key();
        let mut out = record.contact().map(|contact| fields_of(contact)).unwrap_or_default();
        if self.version == Version::Beta {
            out = in_beta(out);
        }
        let categories = record.extra.as_deref().map(|extra| extra.categories.clone()).unwrap_or_default();
        out.extend([
            ("@odata.etag".to_owned(), json!(format!("W/\"{change_key}\""))),
            ("id".to_owned(), json!(view.id(self.format))),
            ("changeKey".to_owned(), json!(change_key)),
            ("createdDateTime".to_owned(), json!(clock::iso(record.created))),
            ("lastModifiedDateTime".to_owned(), json!(clock::iso(record.modified))),
            ("categories".to_owned(), json!(categories)),
            ("parentFolderId".to_owned(), json!(Named::Folder(record.folder).encode(&view.guid))),
        ]);
        for (name, ids) in [(SINGLE, &self.extended), (MULTI, &self.multi_extended)] {
            let found = ids.iter().filter_map(|id| {
                let value = view.extended_property(id).filter(|value| value.is_array() == (name == MULTI))?;
                Some(json!({"id": id, "value": value}))
            });
            let found: Vec<Value> = found.collect();
            if !found.is_empty() {
                out.insert(name.to_owned(), json!(found));
            }
        }
        Value::Object(out)
    }

    /// Returns a contact in this shape.
    pub fn contact(&self, view: &View) -> Value {
        let mut contact = self.full(view);
        if let Some(object) = contact.as_object_mut() {
            self.select.retain(object);
        }
        contact
    }
}

/// Returns all fields of a contact as v1.0 shows them, also the empty ones.
fn fields_of(contact: &Contact) -> Map<String, Value> {
    let mut out = contact.fields.clone();
    for (name, kind) in FIELDS {
        let empty = || match kind {
            _ if name == "personalNotes" => json!(""),
            FieldKind::Text | FieldKind::Day => Value::Null,
            FieldKind::Texts(_) | FieldKind::Emails => json!([]),
            FieldKind::Address => json!({}),
        };
        out.entry(name).or_insert_with(empty);
    }
    for (nth, name) in DERIVED_EMAILS.into_iter().enumerate() {
        let email = out["emailAddresses"].get(nth).cloned().unwrap_or_default();
        out.insert(name.to_owned(), email);
    }
    out
}

/// Converts fields to the shape of beta, which has other names for phones, addresses and web sites.
fn in_beta(mut fields: Map<String, Value>) -> Map<String, Value> {
    let mut phones = Vec::new();
    for (name, kind) in [("homePhones", "home"), ("businessPhones", "business"), ("mobilePhone", "mobile")] {
        let numbers = match fields.get(name) {
            Some(Value::Array(numbers)) => numbers.clone(),
            Some(Value::String(number)) => vec![json!(number)],
            _ => Vec::new(),
        };
        phones.extend(numbers.into_iter().map(|number| json!({"type": kind, "number": number})));
    }
    let mut addresses = Vec::new();
    for (name, kind) in [("homeAddress", "home"), ("businessAddress", "business"), ("otherAddress", "other")] {
        if let Some(Value::Object(parts)) = fields.get(name)
            && ADDRESS_PARTS.iter().any(|part| parts.contains_key(*part))
        {
            let mut parts = parts.clone();
            parts.insert("type".to_owned(), json!(kind));
            addresses.push(Value::Object(parts));
        }
    }
    let page = fields.get("businessHomePage").filter(|page| page.is_string());
    let websites: Vec<Value> = page.into_iter().map(|page| json!({"type": "work", "address": page})).collect();
    fields.retain(|name, _| !NOT_IN_BETA.contains(&name.as_str()));
    fields.extend([
        ("phones".to_owned(), json!(phones)),
        ("postalAddresses".to_owned(), json!(addresses)),
        ("websites".to_owned(), json!(websites)),
        ("gender".to_owned(), Value::Null),
        ("isFavorite".to_owned(), Value::Null),
        ("weddingAnniversary".to_owned(), Value::Null),
        ("flag".to_owned(), json!({"flagStatus": "notFlagged"})),
    ]);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(fields: Value) -> Map<String, Value> {
        fields_of(&Contact::new(fields.as_object().expect("an object").clone()))
    }

    #[test]
    fn every_field_is_shown_also_the_empty_ones() {
        let shown = contact(json!({"surname": "A", "emailAddresses": [{"address": "a@b.c"}], "unknown": 1}));
        for (name, expected) in [
            ("birthday", Value::Null),
            ("homePhones", json!([])),
            ("homeAddress", json!({})),
            ("personalNotes", json!("")),
            ("primaryEmailAddress", json!({"address": "a@b.c"})),
            ("secondaryEmailAddress", Value::Null),
            ("unknown", json!(1)),
        ] {
            assert_eq!(shown[name], expected, "{name}");
        }
        assert_eq!(shown.len(), FIELDS.len() + DERIVED_EMAILS.len() + 1);
    }

    #[test]
    fn beta_has_another_shape() {
        let shown = in_beta(contact(json!({
            "businessPhones": ["1", "2"], "mobilePhone": "3", "homeAddress": {"city": "X"}, "businessHomePage": "http://x",
        })));
        assert_eq!(shown["phones"].as_array().map(Vec::len), Some(3));
        assert_eq!(shown["postalAddresses"], json!([{"type": "home", "city": "X"}]));
        assert_eq!(shown["websites"], json!([{"type": "work", "address": "http://x"}]));
        assert!(shown.get("mobilePhone").is_none() && shown.get("homeAddress").is_none());
    }
}
