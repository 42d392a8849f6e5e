//! Generated contacts: ordinary ones, and those that break careless programs.

use serde_json::{Map, Value, json};
use strongroom_corpora::office;
use strongroom_corpora::rng::Rng;

use crate::tenant::{Mailbox, NewContact};

const GIVEN: [&str; 10] = ["Pavel", "Zoë", "José", "Małgorzata", "明", "さくら", "Anne-Marie", "Олег", "Ada", "O'Neil"];
const SURNAMES: [&str; 10] =
    ["Bansky", "Müller", "Ångström", "Żółć", "王", "佐藤", "van der Berg", "Иванов", "de la Cruz", "D'Arcy"];
const COMPANIES: [&str; 5] = ["Fabrikam, Inc.", "Trey Research", "Büro & Söhne GmbH", "株式会社コントソ", "A; B"];
const CITIES: [&str; 5] = ["Redmond", "München", "東京", "São Paulo", "Kyiv"];
const FOLDERS: [&str; 6] = ["Friends", "Tennis & Golf", "Lieferanten", "古い友人", "a/b", "Family: near"];

/// Returns the name of a folder. Different calls sometimes give the same name.
pub fn folder_name(rng: &mut Rng) -> String {
    let name = *rng.pick(&FOLDERS);
    if rng.chance(50) { name.to_owned() } else { format!("{name} {}", rng.below(100)) }
}

fn phone(rng: &mut Rng) -> String {
    format!("+1 425 555 {:04}", rng.below(10_000))
}

fn address(rng: &mut Rng) -> Value {
    json!({
        "street": format!("{} Main St.\r\nSuite {}", rng.below(900) + 1, rng.below(90)),
        "city": *rng.pick(&CITIES),
        "postalCode": format!("{:05}", rng.below(100_000)),
        "countryOrRegion": "United States of America",
    })
}

/// Returns an ordinary contact: a name, and some of the other fields.
pub fn contact(rng: &mut Rng) -> NewContact {
    let (given, surname) = (*rng.pick(&GIVEN), *rng.pick(&SURNAMES));
    let number = rng.below(100_000);
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    put("givenName", json!(given));
    put("surname", json!(surname));
    let emails = rng.geometric(3).max(1);
    let email =
        |nth| json!({"name": format!("{given} {surname}"), "address": format!("person{number}.{nth}@fabrikam.com")});
    put("emailAddresses", (0..emails).map(email).collect());
    if rng.chance(60) {
        put("mobilePhone", json!(phone(rng)));
    }
    if rng.chance(50) {
        put("companyName", json!(*rng.pick(&COMPANIES)));
        put("jobTitle", json!("Buyer"));
        put("businessPhones", (0..=rng.below(2)).map(|_| json!(phone(rng))).collect());
        put("businessAddress", address(rng));
    }
    if rng.chance(30) {
        put("homePhones", json!([phone(rng)]));
        put("homeAddress", address(rng));
    }
    if rng.chance(30) {
        put(
            "birthday",
            json!(format!("{}-{:02}-{:02}T11:59:00Z", 1930 + rng.below(80), 1 + rng.below(12), 1 + rng.below(28))),
        );
        put("spouseName", json!(*rng.pick(&GIVEN)));
        put("children", json!([*rng.pick(&GIVEN), *rng.pick(&GIVEN)]));
    }
    if rng.chance(40) {
        put(
            "personalNotes",
            json!(format!("Met at {}.\r\nLikes \"tea\"; \\ no coffee, {}", rng.pick(&CITIES), rng.below(1000))),
        );
    }
    let photo = rng.chance(15).then(|| photo(rng));
    let categories = if rng.chance(10) { vec!["Red category".to_owned()] } else { Vec::new() };
    let created = Some(office::BEGIN + rng.below((office::END - office::BEGIN) as u64) as i64);
    NewContact { fields, photo, categories, created }
}

/// Returns the changed fields of an edit; null removes a field.
pub fn edit(rng: &mut Rng) -> Map<String, Value> {
    let change = match rng.below(4) {
        0 => json!({"mobilePhone": phone(rng)}),
        1 => json!({"personalNotes": format!("Note {}", rng.below(1000)), "jobTitle": null}),
        2 => json!({"displayName": format!("{} {}", rng.pick(&GIVEN), rng.pick(&SURNAMES))}),
        _ => json!({"emailAddresses": [], "homeAddress": address(rng)}),
    };
    let Value::Object(change) = change else { unreachable!("each change is an object") };
    change
}

/// Returns the bytes of a JPEG file that shows nothing. Two photos are usually different.
pub fn photo(rng: &mut Rng) -> Vec<u8> {
    let comment = rng.bytes(200);
    let len = (comment.len() as u16 + 2).to_be_bytes();
    [&[0xff, 0xd8, 0xff, 0xfe][..], &len, &comment, &[0xff, 0xd9]].concat()
}

/// Returns contacts with values that break careless programs.
pub fn odd() -> Vec<NewContact> {
    let x500 =
        "/o=ExchangeLabs/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=0123456789abcdef-paul";
    let many: Vec<Value> = (0..300).map(|number| json!(format!("Child {number}"))).collect();
    let all = json!([
        {"givenName": "X.500", "emailAddresses": [{"name": "Paul", "address": x500}]},
        {"givenName": "Empty address", "emailAddresses": [{"name": "Nobody", "address": ""}, {"name": "Only a name"}]},
        {"givenName": "Born", "birthday": "1976-02-29T11:59:00Z"},
        {"givenName": "Born in no year", "birthday": "1604-12-31T11:59:00Z"},
        {"displayName": "\u{202e}Unicode\u{0} \u{1f468}\u{200d}\u{1f469} e\u{301}\u{1}\u{7}", "surname": "\u{feff}ﬁ"},
        {"surname": "Notes", "personalNotes": "Long lines; with, all \\ signs\r\n\u{b}\t\u{2028}\n".repeat(20_000)},
        {"surname": "Future", "pronouns": "they", "wallets": [{"coin": 1.5}], "nothing": null},
        {"displayName": "a/b\\c:d", "nickName": "..", "fileAs": "/"},
        {"displayName": "CON"},
        {"displayName": "BEGIN:VCARD\r\nVERSION:4.0\r\nEND:VCARD", "jobTitle": "TEL;TYPE=x:\"1\""},
        {"displayName": "x".repeat(1_000)},
        {},
        {"surname": "Family", "children": many, "imAddresses": ["sip:a@b", "skype;c,d"]},
        {"surname": "Addresses", "homeAddress": {"street": "1\r\n2\r\n3", "city": ";", "postalCode": ","},
         "otherAddress": {"countryOrRegion": "Côte d'Ivoire"}},
        {"surname": "Numbers", "businessPhones": ["", "ext. \"5\"; 6"], "mobilePhone": "☎"},
        {"displayName": "Twin", "emailAddresses": [{"name": "Twin", "address": "twin@contoso.com"}]},
        {"displayName": "Twin", "emailAddresses": [{"name": "Twin", "address": "twin@contoso.com"}]},
        {"displayName": "TWIN"},
    ]);
    let Value::Array(all) = all else { unreachable!("a list was just made") };
    let created = Some(office::BEGIN);
    let mut all: Vec<NewContact> =
        all.into_iter().map(|fields| NewContact { created, ..NewContact::with(fields) }).collect();
    let empty_photo = NewContact::with(json!({"surname": "No bytes"}));
    all.push(NewContact { photo: Some(Vec::new()), created, ..empty_photo });
    let large_photo = NewContact::with(json!({"surname": "Large photo"}));
    all.push(NewContact { photo: Some(Rng::new(1).bytes(3 << 20)), created, ..large_photo });
    all
}

/// Adds contacts to a mailbox: most in the default folder, the others in a folder and in one inside it.
pub fn fill(mailbox: &mut Mailbox, seed: u64, user: u64, count: usize) {
    if count == 0 {
        return;
    }
    let mut rng = Rng::for_purpose(seed, &format!("contacts {user}"));
    let default = mailbox.well_known("contacts").expect("every mailbox has it");
    let friends = mailbox.add_contact_folder(default, "Friends").expect("a new name");
    let inner = mailbox.add_contact_folder(friends, "Tennis & Golf").expect("a new name");
    let folders = [default, default, default, friends, inner];
    for number in 0..count {
        let contact = contact(&mut rng);
        mailbox.add_message(contact.arrival(folders[number % folders.len()])).expect("the folder was just made");
    }
}
