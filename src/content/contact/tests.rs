use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn parsed(vcard: &[u8]) -> VCard {
    let mut parser = Parser::new(std::str::from_utf8(vcard).expect("a vCard is UTF-8")).strict();
    let Entry::VCard(card) = parser.entry() else { panic!("not a vCard") };
    assert_eq!(parser.entry(), Entry::Eof, "nothing stands behind it");
    card
}

/// Returns the lines of a vCard as every reader unfolds them.
fn lines(card: &Card) -> Vec<String> {
    let text = String::from_utf8(card.vcard()).unwrap();
    let unfolded = text.replace("\r\n ", "");
    let (lines, rest) = unfolded.rsplit_once("\r\n").unwrap();
    assert_eq!(rest, "");
    lines.split("\r\n").map(str::to_owned).collect()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn alice() -> Card {
    Card {
        uid: text("AAkALgAAA-_b="),
        revised: Some(1_793_525_400),
        display_name: text("Alice \"Al\" Smith"),
        file_as: text("Smith, Alice"),
        surname: text("Smith"),
        given_name: text("Alice"),
        middle_name: text("B."),
        title: text("Dr."),
        generation: text("Jr."),
        nickname: text("Al, the first"),
        company: text("Contoso; Inc."),
        department: text("R&D"),
        job_title: text("Head"),
        emails: vec![text("alice@contoso.com"), text("/o=ExchangeLabs/cn=Alice")],
        phones: vec![Phone { place: Some(Place::Work), number: text("+49 89 1;2") }],
        mobile: text("0171"),
        addresses: vec![
            Address {
                place: Some(Place::Home),
                street: text("Main St 1\r\nFloor 2"),
                city: text("Bonn"),
                ..Address::default()
            },
            Address { country: text("Italy"), ..Address::default() },
        ],
        home_page: text("www.contoso.com/a,b"),
        messengers: vec![text("sip:alice@contoso.com"), text("alice")],
        birthday: Some(jiff::civil::date(1980, 2, 29)),
        children: vec![text("Bob"), text("Eve")],
        categories: vec![text("Friends, old")],
        notes: text("a\\b\r\nBEGIN:VCARD\u{2028}\u{0}x"),
        photo: Some(Bytes::from_static(b"\xff\xd8\xff picture")),
        ..Card::default()
    }
}

#[test]
fn a_contact_is_a_vcard() {
    let expected = [
        "BEGIN:VCARD",
        "VERSION:4.0",
        "FN:Alice \"Al\" Smith",
        "N:Smith;Alice;B.;Dr.;Jr.",
        "NICKNAME:Al\\, the first",
        "ORG:Contoso\\; Inc.;R&D",
        "TITLE:Head",
        "EMAIL;PREF=1:alice@contoso.com",
        "EMAIL:/o=ExchangeLabs/cn=Alice",
        "TEL;TYPE=WORK:+49 89 1\\;2",
        "TEL;TYPE=CELL:0171",
        "ADR;TYPE=HOME:;;Main St 1\\nFloor 2;Bonn;;;",
        "ADR:;;;;;;Italy",
        "URL;VALUE=TEXT:www.contoso.com/a\\,b",
        "IMPP:sip:alice@contoso.com",
        "IMPP;VALUE=TEXT:alice",
        "BDAY:19800229",
        "X-FILE-AS:Smith\\, Alice",
        "X-CHILDREN:Bob",
        "X-CHILDREN:Eve",
        "CATEGORIES:Friends\\, old",
        "NOTE:a\\\\b\\nBEGIN:VCARD\\nx",
        "PHOTO:data:image/jpeg;base64,/9j/IHBpY3R1cmU=",
        "UID:AAkALgAAA-_b=",
        "REV:20261101T093000Z",
        "END:VCARD",
    ];
    assert_eq!(lines(&alice()), expected);
    assert_eq!(alice().vcard(), alice().vcard());
}

#[test]
fn a_contact_that_says_nothing_has_a_name_all_the_same() {
    assert_eq!(lines(&Card::default()), ["BEGIN:VCARD", "VERSION:4.0", "FN:Unnamed contact", "END:VCARD"]);
    assert_eq!(Card::default().file_name(), "Unnamed contact.vcf");
    let mut card = Card { emails: vec![text("a@b.example")], ..Card::default() };
    assert_eq!(card.file_name(), "a@b.example.vcf");
    card.company = text("Contoso/East");
    assert_eq!(card.file_name(), "Contoso-East.vcf");
    card.surname = text("Smith");
    assert_eq!(card.name(), "Smith");
    card.file_as = text("Smith, A.");
    assert_eq!(card.file_name(), "Smith, A.vcf");
    card.display_name = text(" \r\n\u{7}");
    assert_eq!(card.name(), "Smith, A.", "white space is no name");
    card.display_name = text("Alice Smith");
    assert_eq!(card.file_name(), "Alice Smith.vcf");
}

#[test]
fn lines_are_folded_between_characters() {
    let card = Card { notes: "ü".repeat(400), ..alice() };
    let vcard = String::from_utf8(card.vcard()).unwrap();
    assert!(vcard.split("\r\n").all(|line| line.len() <= 76), "{vcard}");
    assert!(lines(&card).contains(&format!("NOTE:{}", card.notes)));
}

#[test]
fn a_photo_is_found_again() {
    for photo in [&b"\xff\xd8\xff 1"[..], b"\x89PNG 22", b"GIF8", b"BM", b"\0\0;,\\"] {
        let card = Card { photo: Some(Bytes::copy_from_slice(photo)), ..alice() };
        assert_eq!(photo_of(&card.vcard()).as_deref(), Some(photo));
    }
    assert_eq!(photo_of(&Card { photo: None, ..alice() }.vcard()), None);
    assert_eq!(photo_of(b"BEGIN:VCARD\r\nPHOTO:http://x/\r\nEND:VCARD\r\n"), None);
    assert_eq!(photo_of(b"\xff"), None);
}

/// Texts with much of what ends lines, properties and values.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ -~\r\n\t\u{0}\u{b}\u{85}\u{2028}üß\u{1F600}\\\\;,:\"^]{0,40}",
        2 => "(\r\n|\n|\r|\\\\|;|,|:|\"| |\t|END:VCARD|BEGIN:VCARD|TEL:1|=|\\\\n){0,12}",
        1 => any::<String>(),
        1 => "[a-zü ;,]{70,200}",
    ]
}

prop_compose! {
    fn cards()(
        one in vec(texts(), 24),
        many in vec(vec(texts(), 0..4), 6),
        revised: Option<i64>,
        year in prop::option::of(1i16..9999),
        photo in prop::option::of(vec(any::<u8>(), 1..200)),
        places in vec(prop_oneof![Just(None), Just(Some(Place::Work)), Just(Some(Place::Home))], 4),
    ) -> Card {
        let mut one = one.into_iter();
        let mut one = || one.next().unwrap();
        let mut many = many.into_iter();
        let mut many = || many.next().unwrap();
        let phones = many().into_iter().zip(&places).map(|(number, place)| Phone { place: *place, number });
        let phones = phones.collect();
        let addresses = many().into_iter().zip(&places);
        let addresses = addresses
            .map(|(street, place)| Address {
                place: *place,
                city: street.chars().rev().collect(),
                postal_code: street.clone(),
                street,
                ..Address::default()
            })
            .collect();
        Card {
            uid: one(), revised, display_name: one(), file_as: one(), surname: one(), given_name: one(),
            middle_name: one(), title: one(), generation: one(), initials: one(), nickname: one(), company: one(),
            department: one(), office: one(), job_title: one(), profession: one(), emails: many(), phones,
            mobile: one(), addresses, home_page: one(), messengers: many(),
            birthday: year.map(|year| jiff::civil::date(year, 12, 31)),
            assistant: one(), manager: one(), spouse: one(), children: many(), phonetic_given_name: one(),
            phonetic_surname: one(), phonetic_company: one(), categories: many(), notes: one(),
            photo: photo.map(Bytes::from),
        }
    }
}

/// Returns the texts of a property, in the order of the card, each as the list of its parts.
fn values(card: &VCard, property: &VCardProperty) -> Vec<Vec<String>> {
    let of_value = |value: &VCardValue| match value {
        VCardValue::Text(text) => text.clone(),
        VCardValue::Component(parts) => parts.join(","),
        other => panic!("{property:?} is {other:?}"),
    };
    card.properties(property).map(|entry| entry.values.iter().map(of_value).collect()).collect()
}

fn wanted<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<Vec<String>> {
    let texts = texts.into_iter().map(clean).filter(|text| !text.is_empty());
    texts.map(|text| vec![text]).collect()
}

/// Lists of values lose white space around a value in `calcard`'s reader; writing keeps it.
fn without_space(values: Vec<Vec<String>>) -> Vec<String> {
    let squeezed = |text: &String| text.chars().filter(|char| !matches!(char, ' ' | '\t')).collect::<String>();
    values.concat().iter().map(squeezed).filter(|text| !text.is_empty()).collect()
}

proptest! {
    #[test]
    fn any_contact_is_one_vcard_with_its_texts(card in cards()) {
        let vcard = card.vcard();
        prop_assert_eq!(&vcard, &card.vcard());
        // What every program takes for a line is one that was meant as such.
        let text = std::str::from_utf8(&vcard).unwrap();
        prop_assert!(!text.chars().any(|char| char.is_control() && !"\r\n\t".contains(char)));
        let breaks = ['\u{85}', '\u{2028}', '\u{2029}'];
        prop_assert!(!text.contains(breaks));
        prop_assert_eq!(text.matches('\r').count(), text.matches("\r\n").count());
        prop_assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        let begins = lines(&card).iter().filter(|line| line.starts_with("BEGIN:")).count();
        prop_assert_eq!(begins, 1);

        let read = parsed(&vcard);
        prop_assert_eq!(values(&read, &VCardProperty::Fn), vec![vec![card.name()]]);
        for (property, texts) in [
            (VCardProperty::Title, vec![&card.job_title]),
            (VCardProperty::Role, vec![&card.profession]),
            (VCardProperty::Note, vec![&card.notes]),
            (VCardProperty::Email, card.emails.iter().collect()),
            (VCardProperty::Tel, card.phones.iter().map(|phone| &phone.number).chain([&card.mobile]).collect()),
            (VCardProperty::Other(text_of("X-FILE-AS")), vec![&card.file_as]),
            (VCardProperty::Other(text_of("X-SPOUSE")), vec![&card.spouse]),
            (VCardProperty::Other(text_of("X-CHILDREN")), card.children.iter().collect()),
            (VCardProperty::Url, vec![&card.home_page]),
            (VCardProperty::Impp, card.messengers.iter().collect()),
        ] {
            prop_assert_eq!(values(&read, &property), wanted(texts), "{:?}", property);
        }
        for (property, texts) in [
            (VCardProperty::Nickname, vec![&card.nickname]),
            (VCardProperty::Categories, card.categories.iter().collect()),
        ] {
            let (found, wanted) = (without_space(values(&read, &property)), without_space(wanted(texts)));
            prop_assert_eq!(found, wanted, "{:?}", property);
        }
        let name = [&card.surname, &card.given_name, &card.middle_name, &card.title, &card.generation].map(clean);
        let expected = if name.iter().all(String::is_empty) { vec![] } else { vec![name.to_vec()] };
        prop_assert_eq!(values(&read, &VCardProperty::N), expected);
        let addresses = card.addresses.iter().filter(|address| !clean(&address.street).is_empty());
        let parts = |address: &Address| {
            ["", "", &address.street, &address.city, "", &address.postal_code, ""].map(clean).to_vec()
        };
        prop_assert_eq!(values(&read, &VCardProperty::Adr), addresses.map(parts).collect::<Vec<_>>());
        prop_assert_eq!(photo_of(&vcard), card.photo.as_ref().map(|photo| photo.to_vec()));
        prop_assert_eq!(read.property(&VCardProperty::Bday).is_some(), card.birthday.is_some());
    }

    #[test]
    fn any_contact_has_a_sane_file_name(card in cards()) {
        let name = card.file_name();
        prop_assert!(name.ends_with(".vcf") && name.len() <= 205 && !name.contains(['/', '\n', '\0']), "{:?}", name);
    }
}

fn text_of(name: &str) -> String {
    name.to_owned()
}

#[test]
fn several_cards_in_a_file_are_told_apart() {
    let (one, two) = ("BEGIN:VCARD\r\nFN:A\r\nNOTE:x\r\n END:VCARD\r\nEND:VCARD\r\n", "begin:vcard\nFN:B\nend:vcard");
    let ranges =
        |file: &str| super::cards(file.as_bytes()).map(|all| all.into_iter().map(|at| file[at].to_owned()).collect());
    let both: Option<Vec<String>> = ranges(&format!("\u{feff}{one}\r\n\n{two}"));
    assert_eq!(both, Some(vec![one.to_owned(), two.to_owned()]));
    let nested = format!("BEGIN:VCARD\nAGENT:\n{two}\nEND:VCARD\n");
    assert_eq!(ranges(&nested), Some(vec![nested.clone()]));
    let begun = one.replace("END:VCARD\r\n", "");
    for other in ["", "\n", "Dear all\n", &format!("{one}and more"), &begun, "END:VCARD\n"] {
        assert_eq!(super::cards(other.as_bytes()), None, "{other:?}");
    }
    assert!(looks_like_vcard(b"\xef\xbb\xbf\nbegin:VCARD\n") && !looks_like_vcard(b"BEGIN:VCALENDAR"));
}
