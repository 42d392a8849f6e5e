//! The properties of a contact that is known only as a vCard.

use super::fields::Fields;
use crate::content::contact::{Address, Card, Phone, Place};
use serde_json::{Map, Value, json};

/// Maximum number of e-mail addresses of a contact in Outlook.
const EMAILS_MAX: usize = 3;
/// Maximum number of telephones at work, and of telephones at home.
const PHONES_MAX: usize = 2;
/// What stands in the notes before what Outlook has no field for.
const MORE: &str = "More addresses and telephones:";

/// The properties of a vCard.
pub(super) struct CardFields {
    pub fields: Fields,
    /// True if the notes hold something that Outlook has no field for.
    pub has_more: bool,
}

/// Reads the properties of a vCard.
///
/// # Errors
/// The reason if the file does not hold exactly one vCard.
pub(super) fn read(vcard: &[u8]) -> Result<CardFields, String> {
    let card = Card::read(vcard)?;
    let mut more = Vec::new();
    let mut properties = texts(&card);
    let mut put = |name: &str, value: Value| drop(properties.insert(name.to_owned(), value));
    let emails = |all: &[String]| all.iter().map(|email| json!({ "address": email })).collect::<Value>();
    put("emailAddresses", emails(&card.emails[..card.emails.len().min(EMAILS_MAX)]));
    more.extend(card.emails.iter().skip(EMAILS_MAX).cloned());
    let (business, home, mobile) = phones(&card, &mut more);
    put("businessPhones", json!(business));
    put("homePhones", json!(home));
    put("mobilePhone", json!(mobile));
    for (name, address) in addresses(&card, &mut more) {
        put(name, address);
    }
    put("imAddresses", json!(card.messengers));
    put("children", json!(card.children));
    put("categories", json!(card.categories));
    put("birthday", json!(card.birthday.map(|date| format!("{date}T11:59:00Z"))));
    let mut fields = Fields::new(&properties);
    if !more.is_empty() {
        fields.add_note(MORE, &more);
    }
    Ok(CardFields { fields, has_more: !more.is_empty() })
}

/// Returns the properties that are one text each.
fn texts(card: &Card) -> Map<String, Value> {
    let texts = [
        ("displayName", &card.display_name),
        ("fileAs", &card.file_as),
        ("surname", &card.surname),
        ("givenName", &card.given_name),
        ("middleName", &card.middle_name),
        ("title", &card.title),
        ("generation", &card.generation),
        ("initials", &card.initials),
        ("nickName", &card.nickname),
        ("companyName", &card.company),
        ("department", &card.department),
        ("officeLocation", &card.office),
        ("jobTitle", &card.job_title),
        ("profession", &card.profession),
        ("businessHomePage", &card.home_page),
        ("assistantName", &card.assistant),
        ("manager", &card.manager),
        ("spouseName", &card.spouse),
        ("yomiGivenName", &card.phonetic_given_name),
        ("yomiSurname", &card.phonetic_surname),
        ("yomiCompanyName", &card.phonetic_company),
        ("personalNotes", &card.notes),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect()
}

/// Returns the telephones at work, at home, and the mobile one. Adds to `more` those that find no room.
fn phones(card: &Card, more: &mut Vec<String>) -> (Vec<String>, Vec<String>, String) {
    let (mut business, mut home, mut mobile) = (Vec::new(), Vec::new(), card.mobile.clone());
    for Phone { place, number } in &card.phones {
        match place {
            Some(Place::Work) if business.len() < PHONES_MAX => business.push(number.clone()),
            Some(Place::Home) if home.len() < PHONES_MAX => home.push(number.clone()),
            None if mobile.is_empty() => mobile.clone_from(number),
            _ => more.push(number.clone()),
        }
    }
    (business, home, mobile)
}

/// Returns the postal addresses. Adds to `more` those that find no room.
fn addresses(card: &Card, more: &mut Vec<String>) -> Vec<(&'static str, Value)> {
    let mut found: Vec<(&'static str, Value)> = Vec::new();
    for address in &card.addresses {
        let Address { place, street, city, state, postal_code, country } = address;
        let name = match place {
            Some(Place::Work) => "businessAddress",
            Some(Place::Home) => "homeAddress",
            None => "otherAddress",
        };
        let is_free = |name: &&str| found.iter().all(|(taken, _)| taken != name);
        let Some(name) = [name, "otherAddress"].into_iter().find(is_free) else {
            let parts = [street, city, state, postal_code, country].map(String::as_str);
            more.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "));
            continue;
        };
        let value = json!({
            "street": street, "city": city, "state": state, "postalCode": postal_code, "countryOrRegion": country,
        });
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlook_has_no_field_for_is_in_the_notes() {
        let phone = |place, number: &str| Phone { place, number: number.to_owned() };
        let address = |city: &str| Address { place: Some(Place::Home), city: city.to_owned(), ..Address::default() };
        let card = Card {
            display_name: "A".to_owned(),
            notes: "x".to_owned(),
            emails: (0..5).map(|n| format!("{n}@b.c")).collect(),
            phones: ["1", "2", "3"]
                .map(|number| phone(Some(Place::Work), number))
                .into_iter()
                .chain([phone(None, "4")])
                .collect(),
            addresses: vec![address("C1"), address("C2"), address("C3")],
            ..Card::default()
        };
        let read = read(&card.vcard()).expect("a card");
        let properties = Value::Object(read.fields.properties().clone());
        assert!(read.has_more);
        assert_eq!(properties["personalNotes"], format!("x\n\n{MORE}\n3@b.c\n4@b.c\n3\nC3"));
        assert_eq!(properties["emailAddresses"].as_array().map(Vec::len), Some(3));
        assert_eq!((&properties["businessPhones"], &properties["mobilePhone"]), (&json!(["1", "2"]), &json!("4")));
        assert_eq!(
            (&properties["homeAddress"]["city"], &properties["otherAddress"]["city"]),
            (&json!("C1"), &json!("C2"))
        );
    }
}
