//! A contact as a vCard 4.0 (RFC 6350), which address books open.
//!
//! The crate `calcard` writes and folds the lines. This module says which property holds what, and keeps to what strict
//! readers understand.
//!
//! Invariants, for any contact whatever:
//! - The same contact gives the same bytes.
//! - The bytes are one vCard: no text can end a line or begin another property. Line breaks in texts become LF, other
//!   control characters are left out, and no text from outside stands in a parameter.
//! - A card has a name (`FN`), which the RFC demands.

mod read;
#[cfg(test)]
mod tests;

use super::ical::clean;
use super::names::safe_name;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use calcard::common::PartialDateTime;
use calcard::vcard::{
    VCard, VCardEntry, VCardParameter, VCardProperty, VCardType, VCardValue, VCardValueType, VCardVersion,
};
use calcard::{Entry, Parser};
use jiff::Timestamp;
use jiff::civil::Date;
use std::ops::Range;

/// The first and the last line of a vCard.
const BEGIN: &[u8] = b"BEGIN:VCARD";
const END: &[u8] = b"END:VCARD";
/// The name of a contact that says nothing of itself.
const UNNAMED: &str = "Unnamed contact";

/// What is known of a person or company. Texts are empty if they are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// The id.
    pub uid: String,
    /// When it was changed last, in seconds since 1970 (UTC).
    pub revised: Option<i64>,
    /// The name that people see.
    pub display_name: String,
    /// The name under which it is sorted.
    pub file_as: String,
    /// The family name.
    pub surname: String,
    /// The first name.
    pub given_name: String,
    /// Further first names.
    pub middle_name: String,
    /// What stands before the name: `Dr.`.
    pub title: String,
    /// What stands behind the name: `Jr.`.
    pub generation: String,
    /// The initials.
    pub initials: String,
    /// The nickname.
    pub nickname: String,
    /// The company.
    pub company: String,
    /// The department in it.
    pub department: String,
    /// The office.
    pub office: String,
    /// The position in the company.
    pub job_title: String,
    /// What the person does for a living.
    pub profession: String,
    /// Mail addresses, the most important first.
    pub emails: Vec<String>,
    /// Telephones that stay where they are.
    pub phones: Vec<Phone>,
    /// The mobile phone.
    pub mobile: String,
    /// Postal addresses.
    pub addresses: Vec<Address>,
    /// The page in the web.
    pub home_page: String,
    /// Addresses for instant messages.
    pub messengers: Vec<String>,
    /// The birthday.
    pub birthday: Option<Date>,
    /// The assistant's name.
    pub assistant: String,
    /// The manager's name.
    pub manager: String,
    /// The name of husband or wife.
    pub spouse: String,
    /// The children's names.
    pub children: Vec<String>,
    /// How the first name is spoken.
    pub phonetic_given_name: String,
    /// How the family name is spoken.
    pub phonetic_surname: String,
    /// How the company's name is spoken.
    pub phonetic_company: String,
    /// Categories.
    pub categories: Vec<String>,
    /// Notes.
    pub notes: String,
    /// A picture.
    pub photo: Option<Bytes>,
}

/// A telephone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phone {
    /// Where it is.
    pub place: Option<Place>,
    /// Its number, in any form.
    pub number: String,
}

/// A postal address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// Whose it is.
    pub place: Option<Place>,
    /// The street and the number.
    pub street: String,
    /// The town.
    pub city: String,
    /// The state or province.
    pub state: String,
    /// The postal code.
    pub postal_code: String,
    /// The country.
    pub country: String,
}

impl Address {
    /// Returns true if nothing of it is known.
    pub fn is_empty(&self) -> bool {
        [&self.street, &self.city, &self.state, &self.postal_code, &self.country].iter().all(|text| text.is_empty())
    }
}

/// Where a telephone or an address belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To the work.
    Work,
    /// To the home.
    Home,
}

impl Place {
    fn as_type(self) -> VCardType {
        match self {
            Place::Work => VCardType::Work,
            Place::Home => VCardType::Home,
        }
    }
}

impl Card {
    /// Returns the file name of the contact, such as `Alice Smith.vcf`.
    pub fn file_name(&self) -> String {
        safe_name(&self.name(), ".vcf")
    }

    /// Returns the name that people see. A contact without one is called by the next best thing that it has.
    pub fn name(&self) -> String {
        let full = format!("{} {}", self.given_name, self.surname);
        let email = self.emails.first().map_or("", String::as_str);
        let names = [&self.display_name, &self.file_as, &full, &self.company, email].map(clean);
        let name = names.iter().map(|name| name.trim()).find(|name| !name.is_empty());
        name.unwrap_or(UNNAMED).to_owned()
    }

    /// Returns the contact as a vCard.
    pub fn vcard(&self) -> Vec<u8> {
        let card = VCard { entries: self.entries() };
        let mut text = String::new();
        card.write_to(&mut text, VCardVersion::V4_0).expect("writing to a string cannot fail");
        text.into_bytes()
    }

    fn entries(&self) -> Vec<VCardEntry> {
        let mut entries = Entries(Vec::new());
        entries.text(VCardProperty::Fn, &self.name());
        let name = [&self.surname, &self.given_name, &self.middle_name, &self.title, &self.generation];
        entries.list(VCardProperty::N, &name.map(String::as_str));
        entries.text(VCardProperty::Nickname, &self.nickname);
        // An empty name of the company stays, where there is a department.
        match (self.company.is_empty(), self.department.is_empty()) {
            (_, false) => entries.list(VCardProperty::Org, &[&self.company, &self.department]),
            (_, true) => entries.list(VCardProperty::Org, &[&self.company]),
        }
        entries.text(VCardProperty::Title, &self.job_title);
        entries.text(VCardProperty::Role, &self.profession);
        self.reachable(&mut entries);
        if let Some(date) = self.birthday {
            entries.0.push(VCardEntry::new(VCardProperty::Bday).with_value(VCardValue::PartialDateTime(day(date))));
        }
        self.others(&mut entries);
        self.categories.iter().for_each(|category| entries.text(VCardProperty::Categories, category));
        entries.text(VCardProperty::Note, &self.notes);
        if let Some(photo) = &self.photo {
            // As text and not as bytes: `calcard` escapes the comma of bytes, and strict readers stumble over that.
            let uri = format!("data:{};base64,{}", media_type(photo), STANDARD.encode(photo));
            entries.0.push(VCardEntry::new(VCardProperty::Photo).with_value(uri));
        }
        let uid: String = self.uid.chars().filter(|char| char.is_ascii_graphic()).collect();
        if !uid.is_empty() {
            entries.0.push(VCardEntry::new(VCardProperty::Uid).with_value(uid));
        }
        if let Some(time) = self.revised.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            let time = time.strftime("%Y%m%dT%H%M%SZ").to_string();
            entries.0.push(VCardEntry::new(VCardProperty::Rev).with_value(time));
        }
        entries.0
    }

    /// Adds how to reach the contact.
    fn reachable(&self, entries: &mut Entries) {
        for (number, email) in self.emails.iter().enumerate() {
            let preferred = (number == 0).then(|| VCardParameter::pref(1));
            entries.text_with(VCardProperty::Email, email, preferred);
        }
        for phone in &self.phones {
            let place = phone.place.map(|place| VCardParameter::typ(place.as_type()));
            entries.text_with(VCardProperty::Tel, &phone.number, place);
        }
        entries.text_with(VCardProperty::Tel, &self.mobile, Some(VCardParameter::typ(VCardType::Cell)));
        for address in &self.addresses {
            let Address { place, street, city, state, postal_code, country } = address;
            // The first two are the box and the floor, for which the street stands, too.
            let parts = ["", "", street, city, state, postal_code, country];
            entries.list(VCardProperty::Adr, &parts);
            if let (Some(place), Some(entry)) = (place, entries.0.last_mut()) {
                entry.add_param(VCardParameter::typ(place.as_type()));
            }
        }
        entries.uri(VCardProperty::Url, &self.home_page);
        self.messengers.iter().for_each(|address| entries.uri(VCardProperty::Impp, address));
    }

    /// Adds what vCards have no property for.
    fn others(&self, entries: &mut Entries) {
        let others = [
            ("X-FILE-AS", &self.file_as),
            ("X-INITIALS", &self.initials),
            ("X-OFFICE", &self.office),
            ("X-ASSISTANT", &self.assistant),
            ("X-MANAGER", &self.manager),
            ("X-SPOUSE", &self.spouse),
            ("X-YOMI-GIVEN-NAME", &self.phonetic_given_name),
            ("X-YOMI-SURNAME", &self.phonetic_surname),
            ("X-YOMI-COMPANY-NAME", &self.phonetic_company),
        ];
        for (name, text) in others {
            entries.text(VCardProperty::Other(name.to_owned()), text);
        }
        let children = self.children.iter();
        children.for_each(|child| entries.text(VCardProperty::Other("X-CHILDREN".to_owned()), child));
    }
}

/// The properties of a vCard. Empty ones are left out.
struct Entries(Vec<VCardEntry>);

impl Entries {
    fn text(&mut self, property: VCardProperty, text: &str) {
        self.text_with(property, text, None);
    }

    fn text_with(&mut self, property: VCardProperty, text: &str, parameter: Option<VCardParameter>) {
        let text = clean(text);
        if !text.is_empty() {
            self.0.push(VCardEntry::new(property).with_value(text).with_param_opt(parameter));
        }
    }

    /// Adds a property of several parts, in this order, unless all are empty.
    fn list(&mut self, property: VCardProperty, parts: &[&str]) {
        let parts: Vec<_> = parts.iter().map(clean).collect();
        if parts.iter().any(|part| !part.is_empty()) {
            let values = parts.into_iter().map(VCardValue::Text).collect();
            self.0.push(VCardEntry::new(property).with_values(values));
        }
    }

    /// Adds a property that should be a URI. One that is none is marked as text.
    fn uri(&mut self, property: VCardProperty, text: &str) {
        let text = clean(text);
        if !text.is_empty() {
            let as_text = (!is_uri(&text)).then(|| VCardParameter::value(VCardValueType::Text));
            self.0.push(VCardEntry::new(property).with_value(text).with_param_opt(as_text));
        }
    }
}

/// Returns true if the start of a file is that of a vCard.
pub fn looks_like_vcard(start: &[u8]) -> bool {
    let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start).trim_ascii_start();
    start.get(..BEGIN.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(BEGIN))
}

/// Returns where the vCards of a file stand, each with its last line break. `None` if the file has anything else, or
/// none.
pub fn cards(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut at = if file.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
    let (mut cards, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for line in file[at..].split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        // Only the end is trimmed: a line that begins with a space belongs to the line before.
        let text = line.trim_ascii_end();
        if text.eq_ignore_ascii_case(BEGIN) {
            if depth == 0 {
                start = at;
            }
            depth += 1;
        } else if text.eq_ignore_ascii_case(END) && depth > 0 {
            // Old vCards may hold others (vCard 2.1: AGENT).
            depth -= 1;
            if depth == 0 {
                cards.push(start..end);
            }
        } else if depth == 0 && !text.is_empty() {
            return None;
        }
        at = end;
    }
    (depth == 0 && !cards.is_empty()).then_some(cards)
}

/// Returns the photo in a vCard that [`Card::vcard`] made.
pub fn photo_of(vcard: &[u8]) -> Option<Vec<u8>> {
    let Entry::VCard(card) = Parser::new(std::str::from_utf8(vcard).ok()?).entry() else { return None };
    match card.property(&VCardProperty::Photo)?.values.first()? {
        VCardValue::Binary(photo) => Some(photo.data.clone()),
        VCardValue::Text(uri) => STANDARD.decode(uri.split_once(";base64,")?.1).ok(),
        _ => None,
    }
}

/// Returns whether a text is a URI (RFC 3986, 3) that stands in a line as it is.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char));
    is_scheme && !rest.is_empty() && rest.chars().all(|char| char.is_ascii_graphic() && !"\"<>\\^`{|}".contains(char))
}

fn day(date: Date) -> PartialDateTime {
    PartialDateTime {
        year: u16::try_from(date.year()).ok(),
        month: u8::try_from(date.month()).ok(),
        day: u8::try_from(date.day()).ok(),
        ..PartialDateTime::default()
    }
}

/// Returns what kind of picture it is, by its first bytes.
fn media_type(photo: &[u8]) -> &'static str {
    match photo {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'B', b'M', ..] => "image/bmp",
        // The service makes JPEG of what it is given.
        _ => "image/jpeg",
    }
}
