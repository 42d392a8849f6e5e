//! Reads vCards of any version and of any program.
//!
//! What [`Card`] has no field for is left out, except telephone numbers of faxes and pagers: they go to the notes.

use super::{Address, Card, Phone, Place};
use crate::content::contact::photo_of;
use calcard::common::PartialDateTime;
use calcard::vcard::{VCard, VCardEntry, VCardParameterName, VCardProperty, VCardValue};
use calcard::{Entry, Parser};
use jiff::civil::Date;

/// Types of telephones that are no telephones to speak into.
const MACHINES: [&str; 3] = ["fax", "pager", "modem"];

impl Card {
    /// Reads a file that holds one vCard.
    ///
    /// # Errors
    /// The reason if it holds none, or several.
    pub fn read(vcard: &[u8]) -> Result<Self, &'static str> {
        let text = String::from_utf8_lossy(vcard);
        let mut parser = Parser::new(text.strip_prefix('\u{feff}').unwrap_or(&text));
        let Entry::VCard(card) = parser.entry() else { return Err("it is no vCard") };
        if matches!(parser.entry(), Entry::VCard(_)) {
            return Err("it holds several contacts; put each of them into a file of its own");
        }
        let mut read = Self { photo: photo_of(vcard).map(Into::into), ..Self::default() };
        card.entries.iter().for_each(|entry| read.take(entry));
        let preferred = preferred_email(&card);
        read.emails.sort_by_key(|email| Some(email) != preferred.as_ref());
        Ok(read)
    }

    fn take(&mut self, entry: &VCardEntry) {
        let mut parts = texts(entry).into_iter();
        let mut next = || parts.next().unwrap_or_default();
        match &entry.name {
            VCardProperty::Uid => self.uid = next(),
            VCardProperty::Fn => self.display_name = next(),
            VCardProperty::N => {
                [self.surname, self.given_name, self.middle_name, self.title, self.generation] =
                    std::array::from_fn(|_| next());
            }
            VCardProperty::Nickname => self.nickname = next(),
            VCardProperty::Org => [self.company, self.department] = std::array::from_fn(|_| next()),
            VCardProperty::Title => self.job_title = next(),
            VCardProperty::Role => self.profession = next(),
            VCardProperty::Email => self.emails.extend(Some(next()).filter(|email| !email.is_empty())),
            VCardProperty::Tel => self.take_phone(entry, &next()),
            VCardProperty::Adr => self.addresses.extend(address(entry, next)),
            VCardProperty::Url => self.home_page = next(),
            VCardProperty::Impp => self.messengers.extend(Some(next()).filter(|address| !address.is_empty())),
            VCardProperty::Bday => self.birthday = entry.values.first().and_then(day),
            VCardProperty::Note => self.notes = joined(&next(), &self.notes),
            VCardProperty::Categories => self.categories.extend(parts.filter(|name| !name.is_empty())),
            VCardProperty::Other(name) => self.take_other(&name.to_ascii_uppercase(), next()),
            _ => {}
        }
    }

    /// Takes a property that vCards do not define, by the name that [`Card::vcard`] gives it.
    fn take_other(&mut self, name: &str, text: String) {
        match name {
            "X-FILE-AS" => self.file_as = text,
            "X-INITIALS" => self.initials = text,
            "X-OFFICE" => self.office = text,
            "X-ASSISTANT" => self.assistant = text,
            "X-MANAGER" => self.manager = text,
            "X-SPOUSE" => self.spouse = text,
            "X-CHILDREN" => self.children.push(text),
            "X-YOMI-GIVEN-NAME" | "X-PHONETIC-FIRST-NAME" => self.phonetic_given_name = text,
            "X-YOMI-SURNAME" | "X-PHONETIC-LAST-NAME" => self.phonetic_surname = text,
            "X-YOMI-COMPANY-NAME" | "X-PHONETIC-ORG" => self.phonetic_company = text,
            _ => {}
        }
    }

    fn take_phone(&mut self, entry: &VCardEntry, number: &str) {
        let number = number.strip_prefix("tel:").unwrap_or(number).to_owned();
        let types = types(entry);
        let is = |kind: &str| types.iter().any(|one| one == kind);
        if number.is_empty() {
        } else if let Some(machine) = MACHINES.iter().find(|machine| is(machine)) {
            self.notes = joined(&self.notes, &format!("{machine}: {number}"));
        } else if is("cell") && self.mobile.is_empty() {
            self.mobile = number;
        } else {
            self.phones.push(Phone { place: place(&types), number });
        }
    }
}

/// Returns two texts, one below the other.
fn joined(first: &str, second: &str) -> String {
    let space = if first.is_empty() || second.is_empty() { "" } else { "\n" };
    format!("{first}{space}{second}")
}

/// Returns the texts of all values of a property. A list within a value becomes one text.
fn texts(entry: &VCardEntry) -> Vec<String> {
    let text = |value: &VCardValue| match value {
        VCardValue::Component(parts) => parts.join(", "),
        VCardValue::Integer(number) => number.to_string(),
        value => value.as_text().unwrap_or_default().to_owned(),
    };
    entry.values.iter().map(text).collect()
}

/// Returns the types of a property, in lower case.
fn types(entry: &VCardEntry) -> Vec<String> {
    let types = entry.parameters(&VCardParameterName::Type).filter_map(|value| value.as_text());
    types.flat_map(|text| text.split(',')).map(str::to_ascii_lowercase).collect()
}

fn place(types: &[String]) -> Option<Place> {
    let is = |kind: &str| types.iter().any(|one| one == kind);
    if is("work") { Some(Place::Work) } else { is("home").then_some(Place::Home) }
}

fn address(entry: &VCardEntry, mut next: impl FnMut() -> String) -> Option<Address> {
    // The first two are the box and the floor, which newer vCards put into the street.
    let [post_box, floor, street, city, state, postal_code, country] = std::array::from_fn(|_| next());
    let street = [post_box, floor, street].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
    let address = Address { place: place(&types(entry)), street, city, state, postal_code, country };
    (!address.is_empty()).then_some(address)
}

/// Returns a date with a year. Outlook does not know birthdays without one.
fn day(value: &VCardValue) -> Option<Date> {
    match value {
        VCardValue::PartialDateTime(PartialDateTime {
            year: Some(year), month: Some(month), day: Some(day), ..
        }) => Date::new(i16::try_from(*year).ok()?, i8::try_from(*month).ok()?, i8::try_from(*day).ok()?).ok(),
        value => value.as_text()?.get(..10)?.parse().ok(),
    }
}

/// Returns the address that the card marks as preferred.
fn preferred_email(card: &VCard) -> Option<String> {
    let is_preferred = |entry: &&VCardEntry| {
        entry.parameters(&VCardParameterName::Pref).next().is_some() || types(entry).iter().any(|kind| kind == "pref")
    };
    let preferred = card.entries.iter().filter(|entry| entry.name == VCardProperty::Email).find(is_preferred);
    preferred.and_then(|entry| texts(entry).into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn whole() -> Card {
        let text = str::to_owned;
        let address = |place| Address {
            place,
            street: text("Am Markt 1; 2\nHof"),
            city: text("Köln"),
            state: text("NRW"),
            postal_code: text("50667"),
            country: text("Germany"),
        };
        Card {
            uid: text("AAMk-1"),
            revised: None,
            display_name: text("Dr. Ann Böll, Jr."),
            file_as: text("Böll, Ann"),
            surname: text("Böll"),
            given_name: text("Ann"),
            middle_name: text("Q."),
            title: text("Dr."),
            generation: text("Jr."),
            initials: text("A.B."),
            nickname: text("Annie"),
            company: text("Contoso; Ltd"),
            department: text("R&D"),
            office: text("12"),
            job_title: text("Head"),
            profession: text("Engineer"),
            emails: vec![text("ann@contoso.com"), text("a@b.c")],
            phones: vec![
                Phone { place: Some(Place::Work), number: text("+49 1") },
                Phone { place: Some(Place::Home), number: text("2") },
            ],
            mobile: text("3"),
            addresses: vec![address(Some(Place::Work)), address(Some(Place::Home)), address(None)],
            home_page: text("https://contoso.com/a?b=c,d"),
            messengers: vec![text("sip:ann@contoso.com")],
            birthday: Some(jiff::civil::date(1980, 2, 29)),
            assistant: text("Bob"),
            manager: text("Carol"),
            spouse: text("Dave"),
            children: vec![text("Eve"), text("Fay, the second")],
            phonetic_given_name: text("an"),
            phonetic_surname: text("böl"),
            phonetic_company: text("kontoso"),
            categories: vec![text("Red"), text("Blue, light")],
            notes: text("first line\nsecond, with: signs; and \\"),
            photo: Some(Bytes::from_static(&[0xff, 0xd8, 0xff, 0, 1, 2])),
        }
    }

    #[test]
    fn a_card_that_was_written_is_read_again() {
        assert_eq!(Card::read(&whole().vcard()), Ok(whole()));
        let bare = Card { display_name: "A".to_owned(), ..Card::default() };
        assert_eq!(Card::read(&bare.vcard()), Ok(bare));
    }

    #[test]
    fn cards_of_other_programs_are_read() {
        let vcard = b"BEGIN:VCARD\r\nVERSION:3.0\r\nN:Doe;John;;;\r\nFN:John Doe\r\nORG:Example.com Inc.;Sales\r\n\
            EMAIL;TYPE=INTERNET:second@example.org\r\nEMAIL;TYPE=INTERNET,PREF:first@example.org\r\n\
            TEL;TYPE=WORK,VOICE:1\r\nTEL;TYPE=FAX,WORK:2\r\nTEL;TYPE=CELL:3\r\nTEL:4\r\n\
            ADR;TYPE=HOME:Box 7;;Main St;Town;;123;US\r\nBDAY:1970-01-31\r\nNOTE:n\r\nX-ABC:y\r\nEND:VCARD\r\n";
        let card = Card::read(vcard).expect("a card");
        assert_eq!((card.surname.as_str(), card.given_name.as_str()), ("Doe", "John"));
        assert_eq!((card.company.as_str(), card.department.as_str()), ("Example.com Inc.", "Sales"));
        assert_eq!(card.emails, ["first@example.org", "second@example.org"]);
        let phones: Vec<_> = card.phones.iter().map(|phone| (phone.place, phone.number.as_str())).collect();
        assert_eq!(phones, [(Some(Place::Work), "1"), (None, "4")]);
        assert_eq!((card.mobile.as_str(), card.addresses[0].street.as_str()), ("3", "Box 7\nMain St"));
        assert_eq!(card.birthday, Some(jiff::civil::date(1970, 1, 31)));
        assert_eq!(card.notes, "n\nfax: 2");
    }

    #[test]
    fn what_is_no_card_or_several_is_refused() {
        let one = whole().vcard();
        assert!(Card::read(&[&one[..], &one].concat()).unwrap_err().contains("several"));
        for other in [&b""[..], b"Subject: x\r\n\r\n", b"\xff\xd8\xff", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"] {
            assert!(Card::read(other).is_err(), "{other:?}");
        }
    }
}
