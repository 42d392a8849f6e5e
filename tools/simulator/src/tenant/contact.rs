//! Contacts: the fields that a client can write, their kinds, and the photo.

use std::sync::Arc;

use serde_json::{Map, Value, json};

/// Kind of a field of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A text, or null.
    Text,
    /// A list of texts, with the maximum number of texts that Outlook can hold.
    Texts(usize),
    /// A day, shown as a point in time at a fixed hour, or null.
    Day,
    /// A postal address.
    Address,
    /// A list of e-mail addresses.
    Emails,
}

/// Maximum number of e-mail addresses of a contact.
pub const EMAILS_MAX: usize = 3;

/// The fields of a contact in v1.0 that a client can write (Graph: "contact resource type").
pub const FIELDS: [(&str, FieldKind); 32] = [
    ("assistantName", FieldKind::Text),
    ("birthday", FieldKind::Day),
    ("businessAddress", FieldKind::Address),
    ("businessHomePage", FieldKind::Text),
    ("businessPhones", FieldKind::Texts(2)),
    ("children", FieldKind::Texts(usize::MAX)),
    ("companyName", FieldKind::Text),
    ("department", FieldKind::Text),
    ("displayName", FieldKind::Text),
    ("emailAddresses", FieldKind::Emails),
    ("fileAs", FieldKind::Text),
    ("generation", FieldKind::Text),
    ("givenName", FieldKind::Text),
    ("homeAddress", FieldKind::Address),
    ("homePhones", FieldKind::Texts(2)),
    ("imAddresses", FieldKind::Texts(usize::MAX)),
    ("initials", FieldKind::Text),
    ("jobTitle", FieldKind::Text),
    ("manager", FieldKind::Text),
    ("middleName", FieldKind::Text),
    ("mobilePhone", FieldKind::Text),
    ("nickName", FieldKind::Text),
    ("officeLocation", FieldKind::Text),
    ("otherAddress", FieldKind::Address),
    ("personalNotes", FieldKind::Text),
    ("profession", FieldKind::Text),
    ("spouseName", FieldKind::Text),
    ("surname", FieldKind::Text),
    ("title", FieldKind::Text),
    ("yomiCompanyName", FieldKind::Text),
    ("yomiGivenName", FieldKind::Text),
    ("yomiSurname", FieldKind::Text),
];

/// Names of the fields that follow from the first, second and third of `emailAddresses`.
pub const DERIVED_EMAILS: [&str; EMAILS_MAX] = ["primaryEmailAddress", "secondaryEmailAddress", "tertiaryEmailAddress"];

/// Parts of a postal address (Graph: "physicalAddress resource type").
pub const ADDRESS_PARTS: [&str; 5] = ["street", "city", "state", "countryOrRegion", "postalCode"];

/// The content of a contact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contact {
    /// Its fields in the form of v1.0, without those that are empty. May contain names that are not in [`FIELDS`]: the
    /// type is open, and the service may show fields that no client knows.
    pub fields: Map<String, Value>,
    /// The bytes of its photo.
    pub photo: Option<Arc<Vec<u8>>>,
}

impl Contact {
    /// Returns a contact with these fields. Unlike a request of a client, they are not checked: real mailboxes contain
    /// contacts that the service would refuse today.
    pub fn new(fields: Map<String, Value>) -> Self {
        let mut contact = Self { fields, photo: None };
        contact.name();
        contact
    }

    /// Returns a field's text; empty if it has none.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Computes `displayName` and `fileAs` if they are missing, as the service does.
    pub fn name(&mut self) {
        let joined = |names: &[&str], with: &str| {
            let parts: Vec<&str> = names.iter().map(|name| self.text(name)).filter(|text| !text.is_empty()).collect();
            parts.join(with)
        };
        let first_email = || {
            let email = self.fields.get("emailAddresses").and_then(|emails| emails.get(0));
            email.and_then(|email| email.get("address")).and_then(Value::as_str).unwrap_or_default()
        };
        let shown = joined(&["givenName", "middleName", "surname", "generation"], " ");
        let given = joined(&["givenName", "middleName"], " ");
        let filed = match (self.text("surname"), given.as_str()) {
            ("", "") => String::new(),
            ("", given) => given.to_owned(),
            (surname, "") => surname.to_owned(),
            (surname, given) => format!("{surname}, {given}"),
        };
        let otherwise = [self.text("companyName"), first_email()].into_iter().find(|text| !text.is_empty());
        let otherwise = otherwise.unwrap_or_default().to_owned();
        for (name, computed) in [("displayName", shown), ("fileAs", filed)] {
            let computed = if computed.is_empty() { otherwise.clone() } else { computed };
            if self.text(name).is_empty() && !computed.is_empty() {
                self.fields.insert(name.to_owned(), json!(computed));
            }
        }
    }

    /// Returns everything in one document, to be exported.
    pub fn to_json(&self) -> Vec<u8> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let photo = self.photo.as_ref().map(|photo| STANDARD.encode(photo.as_slice()));
        json!({"fields": self.fields, "photo": photo}).to_string().into_bytes()
    }

    /// Returns the contact in a document of [`Self::to_json`].
    pub fn from_json(document: &[u8]) -> Option<Self> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let document: Value = serde_json::from_slice(document).ok()?;
        let photo = document["photo"].as_str().and_then(|photo| STANDARD.decode(photo).ok());
        Some(Self { fields: document["fields"].as_object()?.clone(), photo: photo.map(Arc::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(fields: Value) -> Contact {
        Contact::new(fields.as_object().expect("an object").clone())
    }

    #[test]
    fn missing_names_are_computed() {
        for (fields, shown, filed) in [
            (json!({"givenName": "Pavel", "surname": "Bansky"}), "Pavel Bansky", "Bansky, Pavel"),
            (json!({"givenName": "Pavel"}), "Pavel", "Pavel"),
            (json!({"surname": "Bansky", "fileAs": "P"}), "Bansky", "P"),
            (json!({"companyName": "Contoso"}), "Contoso", "Contoso"),
            (json!({"emailAddresses": [{"address": "a@b.c"}]}), "a@b.c", "a@b.c"),
            (json!({}), "", ""),
        ] {
            let contact = contact(fields.clone());
            assert_eq!((contact.text("displayName"), contact.text("fileAs")), (shown, filed), "{fields}");
        }
    }

    #[test]
    fn an_exported_contact_comes_back_whole() {
        let contact = Contact { photo: Some(Arc::new(vec![1, 2, 255])), ..contact(json!({"surname": "Ä"})) };
        assert_eq!(Contact::from_json(&contact.to_json()), Some(contact));
        assert_eq!(Contact::from_json(b"Subject: x\r\n\r\n"), None);
    }
}
