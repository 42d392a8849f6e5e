//! What a contact of the service says, as a card.

use super::Contact;
use crate::content::contact::{Address, Card, Phone, Place};
use bytes::Bytes;
use serde_json::Value;

impl Contact {
    /// Returns what the contact says, together with its photo. A property of an unexpected type counts as unset.
    pub fn card(&self, photo: Option<Bytes>) -> Card {
        let json: Value = serde_json::from_str(self.raw.get()).unwrap_or_default();
        let text = |name: &str| text(&json, name);
        let texts = |name: &str| texts(&json, name);
        let business = texts("businessPhones").into_iter().map(|number| Phone { place: Some(Place::Work), number });
        let home = texts("homePhones").into_iter().map(|number| Phone { place: Some(Place::Home), number });
        let addresses =
            [("businessAddress", Some(Place::Work)), ("homeAddress", Some(Place::Home)), ("otherAddress", None)];
        Card {
            uid: self.row.id.clone(),
            revised: self.row.date(),
            display_name: text("displayName"),
            file_as: text("fileAs"),
            surname: text("surname"),
            given_name: text("givenName"),
            middle_name: text("middleName"),
            title: text("title"),
            generation: text("generation"),
            initials: text("initials"),
            nickname: text("nickName"),
            company: text("companyName"),
            department: text("department"),
            office: text("officeLocation"),
            job_title: text("jobTitle"),
            profession: text("profession"),
            emails: addresses_of(&json),
            phones: business.chain(home).collect(),
            mobile: text("mobilePhone"),
            addresses: addresses.into_iter().filter_map(|(name, place)| address(json.get(name)?, place)).collect(),
            home_page: text("businessHomePage"),
            messengers: texts("imAddresses"),
            birthday: date(&text("birthday")),
            assistant: text("assistantName"),
            manager: text("manager"),
            spouse: text("spouseName"),
            children: texts("children"),
            phonetic_given_name: text("yomiGivenName"),
            phonetic_surname: text("yomiSurname"),
            phonetic_company: text("yomiCompanyName"),
            categories: texts("categories"),
            notes: text("personalNotes"),
            photo,
        }
    }
}

fn text(json: &Value, name: &str) -> String {
    json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(json: &Value, name: &str) -> Vec<String> {
    let list = json.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn addresses_of(json: &Value) -> Vec<String> {
    let list = json.get("emailAddresses").and_then(Value::as_array);
    list.into_iter().flatten().map(|email| text(email, "address")).filter(|address| !address.is_empty()).collect()
}

/// Returns an address (Graph: physicalAddress), unless nothing of it is set.
fn address(json: &Value, place: Option<Place>) -> Option<Address> {
    let address = Address {
        place,
        street: text(json, "street"),
        city: text(json, "city"),
        state: text(json, "state"),
        postal_code: text(json, "postalCode"),
        country: text(json, "countryOrRegion"),
    };
    (!address.is_empty()).then_some(address)
}

/// Returns the date of a birthday. The service adds a fixed time of the day, which means nothing. The year 1 stands for
/// an unset date.
fn date(text: &str) -> Option<jiff::civil::Date> {
    let date: jiff::civil::Date = text.get(..10)?.parse().ok()?;
    (date.year() > 1).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn card(json: Value) -> Card {
        serde_json::from_value::<Contact>(json).unwrap().card(None)
    }

    #[test]
    fn a_birthday_is_a_date() {
        let birthday = |text: &str| card(json!({ "id": "A", "birthday": text })).birthday.map(|date| date.to_string());
        assert_eq!(birthday("1980-02-29T11:59:00Z").as_deref(), Some("1980-02-29"));
        assert_eq!(birthday("1980-02-29T23:59:59.9999999+14:00").as_deref(), Some("1980-02-29"));
        for unset in ["0001-01-01T00:00:00Z", "", "1980-13-01T00:00:00Z", "1980", "tomorrow, no"] {
            assert_eq!(birthday(unset), None, "{unset}");
        }
    }

    #[test]
    fn what_has_another_type_counts_as_unset() {
        let odd = card(json!({
            "id": "A", "displayName": 7, "businessPhones": "1",
            "emailAddresses": [null, {"address": null}, {"address": ""}], "homeAddress": [],
            "children": [1, "Bob", null], "otherAddress": {"city": "", "street": null},
        }));
        let expected = Card { uid: "A".to_owned(), children: vec!["Bob".to_owned()], ..Card::default() };
        assert_eq!(odd, expected);
    }
}
