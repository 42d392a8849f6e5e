//! Generated tenants of any size: the same seed gives the same people, mail, contacts, events and tasks.
//!
//! A generated message is only a number; the [`library`](crate::library) makes its bytes when somebody asks for them.

pub mod contacts;
pub mod events;
mod storm;
pub mod tasks;

pub use crate::library::Organisation;

use std::sync::Arc;

use serde_json::json;
use strongroom_corpora::hostile;
use strongroom_corpora::office;
use strongroom_corpora::rng::Rng;

use crate::tenant::id::FolderKey;
use crate::tenant::{
    Arrival, Content, Extra, FlagStatus, Flags, Folder, Kind, Locale, Mailbox, NewContact, Search, Tenant, UserSpec,
};

/// Fills a new tenant.
pub fn populate(tenant: &Tenant, organisation: &Organisation) {
    for number in 0..organisation.users {
        let person = office::employee(organisation.seed, number);
        let user = tenant.add_user(UserSpec {
            principal_name: person.address,
            display_name: person.name,
            kind: Kind::Licensed,
            locale: Locale::ALL[number % Locale::ALL.len()],
        });
        let filled = tenant.with_mailbox(&user, |mailbox| fill(tenant, mailbox, organisation, number as u64));
        filled.expect("the user was just added, with a mailbox");
    }
    if organisation.every_kind {
        add_every_kind(tenant, organisation);
    }
    if organisation.hurting {
        add_hurting(tenant, organisation);
    }
}

/// Folder names that no file system accepts unchanged, in addition to those of [`hostile::names`].
const FOLDER_NAMES: [&str; 9] =
    ["a/b", "/", ".", "..", "../../etc", "\u{1}control\u{1f}", "nul\u{0}inside", "README", "  "];

/// Adds a mailbox whose folders and messages have names and bytes that break careless programs.
fn add_hurting(tenant: &Tenant, organisation: &Organisation) {
    let user = tenant.add_user(UserSpec {
        principal_name: "hurt".to_owned(),
        display_name: "Names/and\\bytes: that \u{202e}hurt\u{7}".to_owned(),
        kind: Kind::Licensed,
        locale: Locale::English,
    });
    let filled = tenant.with_mailbox(&user, |mailbox| {
        let top = mailbox.well_known("msgfolderroot").expect("every mailbox has it");
        let odd = mailbox.insert_folder(Folder::new("Odd names", Some(top)));
        let names = hostile::names().into_iter().chain(FOLDER_NAMES.map(str::to_owned));
        for name in names {
            let folder = mailbox.insert_folder(Folder::new(&name, Some(odd)));
            put(mailbox, folder, format!("Subject: {}\r\n\r\nIn a folder.\r\n", name.escape_default()).into_bytes());
        }
        let mut deep = mailbox.insert_folder(Folder::new("Deep", Some(top)));
        for level in 0..60 {
            deep = mailbox.insert_folder(Folder::new(&format!("Level {level}"), Some(deep)));
        }
        put(mailbox, deep, b"Subject: Deep\r\n\r\nHow far down.\r\n".to_vec());
        let bytes = mailbox.insert_folder(Folder::new("Odd bytes", Some(top)));
        for (_, mime) in hostile::mails() {
            put(mailbox, bytes, mime);
        }
        // Two identical messages, as migrations create them.
        for _ in 0..2 {
            put(mailbox, bytes, b"Message-ID: <twin@contoso.com>\r\nSubject: Twin\r\n\r\nTwice.\r\n".to_vec());
        }
        add_odd_contacts(mailbox);
        if organisation.events > 0 {
            events::add_odd(mailbox, &FOLDER_NAMES);
        }
        if organisation.tasks > 0 {
            tasks::add_odd(mailbox, &FOLDER_NAMES);
        }
    });
    filled.expect("the user was just added, with a mailbox");
}

fn add_odd_contacts(mailbox: &mut Mailbox) {
    let default = mailbox.well_known("contacts").expect("every mailbox has it");
    for contact in contacts::odd() {
        mailbox.add_message(contact.arrival(default)).expect("every mailbox has the folder");
    }
    let mut deep = default;
    for name in FOLDER_NAMES {
        deep = mailbox.add_contact_folder(deep, name).expect("the folder is empty");
        let contact = NewContact { created: Some(office::BEGIN), ..NewContact::with(json!({"surname": name})) };
        mailbox.add_message(contact.arrival(deep)).expect("the folder was just made");
    }
}

fn put(mailbox: &mut Mailbox, folder: FolderKey, mime: Vec<u8>) {
    let arrival = Arrival {
        folder,
        content: Content::Mime(Arc::new(mime)),
        flags: Flags::default(),
        received: office::BEGIN,
        created: office::BEGIN,
        extra: None,
    };
    mailbox.add_message(arrival).expect("the folder was just made");
}

fn add_every_kind(tenant: &Tenant, organisation: &Organisation) {
    let special = [
        ("dana.unlicensed", "Dana Unlicensed", Kind::Unlicensed),
        ("info", "Contoso Information", Kind::Shared),
        ("room.falcon", "Room Falcon", Kind::Room),
        ("projector", "Projector", Kind::Equipment),
        ("eve_fabrikam.com#EXT#", "Eve (Guest)", Kind::Guest),
        ("o'brien", "Miles O'Brien", Kind::NullType),
        ("old.server", "Old Server", Kind::OnPremises),
        ("full.mailbox", "Full Mailbox", Kind::OverQuota),
        ("board", "Board of Directors", Kind::OutsidePolicy),
        ("left.company", "Left Company", Kind::SoftDeleted),
        ("zoë", "Zoë Ünïcode 名前", Kind::Licensed),
    ];
    for (number, (name, display, kind)) in special.into_iter().enumerate() {
        let user = tenant.add_user(UserSpec {
            principal_name: name.to_owned(),
            display_name: display.to_owned(),
            kind,
            locale: Locale::English,
        });
        if kind.has_mailbox() && kind != Kind::SoftDeleted {
            let few = Organisation {
                messages: organisation.messages.min(5),
                contacts: organisation.contacts.min(2),
                events: organisation.events.min(3),
                tasks: organisation.tasks.min(3),
                ..organisation.clone()
            };
            let number = (organisation.users + number) as u64;
            let filled = tenant.with_mailbox(&user, |mailbox| fill(tenant, mailbox, &few, number));
            filled.expect("the user was just added, with a mailbox");
        }
    }
}

/// Fills a mailbox with folders and messages. One message in five is in a folder that the user created.
fn fill(tenant: &Tenant, mailbox: &mut Mailbox, organisation: &Organisation, user: u64) {
    let mut rng = Rng::for_purpose(organisation.seed, &format!("mailbox {user}"));
    let known = |mailbox: &Mailbox, name: &str| mailbox.well_known(name).expect("every mailbox has it");
    let inbox = known(mailbox, "inbox");
    let top = known(mailbox, "msgfolderroot");
    let projects = mailbox.add_folder(top, "Projects", false).expect("a new name");
    let mut own = vec![projects];
    for name in ["Falcon", "Größe & Maß", "会议"] {
        own.push(mailbox.add_folder(projects, name, false).expect("a new name"));
    }
    own.push(mailbox.add_folder(inbox, "Newsletters", false).expect("a new name"));
    let search = Search { filter: "contains(subject, 'RE:')".to_owned(), nested: true, sources: vec![inbox] };
    mailbox.add_search_folder(top, "Answers", search).expect("a new name");
    let places = [
        (inbox, 45),
        (known(mailbox, "sentitems"), 20),
        (known(mailbox, "archive"), 8),
        (known(mailbox, "deleteditems"), 5),
        (known(mailbox, "junkemail"), 1),
        (known(mailbox, "recoverableitemsdeletions"), 1),
        (known(mailbox, "drafts"), 1),
    ];
    mailbox.categories = [("Red category", "preset0"), ("Project Falcon", "preset7")]
        .map(|(name, colour)| (name.to_owned(), colour.to_owned()))
        .to_vec();
    mailbox.rules = vec![json!({
        "id": "AQAAA0000001=", "displayName": "Newsletters", "sequence": 1, "isEnabled": true, "hasError": false,
        "isReadOnly": false, "conditions": {"senderContains": ["newsletter"]}, "actions": {"stopProcessingRules": true},
    })];
    mailbox.reserve(inbox, organisation.messages);
    let files = tenant.library().corpus_len();
    let share = files.div_ceil(organisation.users.max(1));
    let count = if organisation.corpus.is_some() { share } else { organisation.messages };
    for number in 0..count as u64 {
        let id = (user << 32) | number;
        let (content, sent) = if organisation.corpus.is_some() {
            let file = user as usize * share + number as usize;
            if file >= files {
                break;
            }
            (Content::Corpus(file as u32), tenant.library().corpus_date(file))
        } else {
            (Content::Generated(id), tenant.library().sent(id))
        };
        let mut roll = rng.below(100) as i64;
        let folder = places.iter().find(|(_, share)| {
            roll -= share;
            roll < 0
        });
        let folder = folder.map_or_else(|| *rng.pick(&own), |(folder, _)| *folder);
        let draft = Some(folder) == mailbox.well_known("drafts");
        let flag = match rng.below(40) {
            0 => FlagStatus::Complete,
            1 => FlagStatus::Flagged,
            _ => FlagStatus::NotFlagged,
        };
        let extra = rng
            .chance(3)
            .then(|| Arc::new(Extra { categories: vec!["Project Falcon".to_owned()], ..Extra::default() }));
        let flags = Flags { read: rng.chance(80), draft, flag, ..Flags::default() };
        let received = sent + 4;
        let arrival = Arrival { folder, content, flags, received, created: received, extra };
        mailbox.add_message(arrival).expect("the folder was just made");
    }
    contacts::fill(mailbox, organisation.seed, user, organisation.contacts);
    events::fill(mailbox, organisation.seed, user, organisation.events);
    tasks::fill(mailbox, organisation.seed, user, organisation.tasks);
}
