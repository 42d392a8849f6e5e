//! Contacts that were lost and restored by the real program: what the mailbox holds afterwards is compared with what it
//! held before.

use crate::common;

use common::{Lab, PATIENCE, eventually, run, text, write};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use strongroom_simulator::faults::Rule;
use strongroom_simulator::tenant::NewContact;
use strongroom_simulator::{Fault, Faults, Options, Organisation, Simulator, Tenant, TrueContact};

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a small picture";
/// Where the addresses stand that the service does not accept.
const IN_NOTES: &str = "E-mail addresses that the service did not accept:";

/// The real program, with a repository and an organisation whose mail and contacts are backed up.
struct Office {
    simulator: Simulator,
    tenant: Arc<Tenant>,
    lab: Lab,
}

impl Office {
    fn new(users: usize) -> Self {
        let organisation = Organisation { users, messages: 4, contacts: 6, ..Organisation::default() };
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
        let lab = Lab::new();
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nendpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n\
             client_secret = {{ env = \"CONTOSO_SECRET\" }}\n\
             [sets.everyone]\ntenant = \"contoso\"\nservices = [\"mail\", \"contacts\"]\n",
            simulator.tenant_id(),
            simulator.client_id(),
            url = simulator.url()
        );
        write(&lab.path("strongroom.toml"), text);
        let tenant = simulator.tenant();
        Self { simulator, tenant, lab }
    }

    fn user(&self, number: usize) -> String {
        self.tenant.users()[number].principal_name()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        command
    }

    #[track_caller]
    fn json(&self, args: &[&str], exit: i32) -> Value {
        let output = run(self.command(args).arg("--json"), exit);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }

    /// Kills the program when `now` says so. Returns how many runs were killed: none if the work was done before.
    fn killed_when(&self, args: &[&str], now: impl Fn() -> bool) -> u32 {
        let mut command = self.command(args);
        let command = command.arg("--quiet").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program");
        eventually("it is far enough", PATIENCE, || now() || child.try_wait().expect("a child").is_some());
        let _ = child.kill();
        child.wait().expect("a child").signal().is_some().into()
    }

    /// Adds a contact of each kind that is hard to restore. Returns their number.
    fn add_hard_contacts(&self, user: &str) -> usize {
        let add = |folder: &str, fields: Value, photo: Option<&[u8]>| {
            let contact = NewContact { photo: photo.map(<[u8]>::to_vec), ..NewContact::with(fields) };
            self.tenant.add_contact(user, folder, contact).expect("a folder for contacts")
        };
        let clients = self.tenant.add_contact_folder(user, "contacts", "Clients & Co").expect("a folder");
        let old = self.tenant.add_contact_folder(user, &clients, "Old").expect("a folder");
        let address = |city: &str| json!({ "street": "Am Markt 1\r\nHof", "city": city, "countryOrRegion": "Germany" });
        add(
            "contacts",
            json!({
                "givenName": "Ann", "surname": "Böll", "middleName": "Q.", "title": "Dr.", "generation": "Jr.",
                "displayName": "Ann B.", "fileAs": "Böll (Ann)", "nickName": "Annie", "initials": "A.B.",
                "companyName": "Contoso; Ltd", "department": "R&D", "officeLocation": "12", "jobTitle": "Head",
                "profession": "Engineer", "businessHomePage": "https://contoso.com/a", "assistantName": "Bob",
                "manager": "Carol", "spouseName": "Dave", "children": ["Eve", "Fay"], "birthday": "1980-02-29T11:59:00Z",
                "personalNotes": "first\r\nsecond", "imAddresses": ["sip:ann@contoso.com"], "mobilePhone": "3",
                "businessPhones": ["1", "2"], "homePhones": ["4"], "businessAddress": address("Köln"),
                "homeAddress": address("Bonn"), "otherAddress": address("Ulm"), "yomiGivenName": "an",
                "yomiSurname": "böl", "yomiCompanyName": "kontoso",
                "emailAddresses": [{"name": "Ann", "address": "ann@contoso.com"}, {"address": "/o=x/cn=ann"}],
            }),
            Some(JPEG),
        );
        add(&clients, json!({ "surname": "Photo" }), Some(&[JPEG, b" of somebody else"].concat()));
        add(&old, json!({ "companyName": "No person" }), None);
        // Two that say the same are two.
        add(&old, json!({ "surname": "Twin" }), None);
        add(&old, json!({ "surname": "Twin" }), None);
        5
    }
}

/// Returns the contacts of a user, folder by folder, without ids, versions and the times of writes.
fn dump(tenant: &Tenant, user: &str) -> BTreeMap<String, Vec<String>> {
    let folders = tenant.true_contact_folders(user).expect("a mailbox");
    let visible = folders.iter().filter(|folder| folder.visible && !folder.hidden);
    let paths: BTreeMap<_, _> = visible.map(|folder| (folder.id.clone(), folder.path[1..].join("/"))).collect();
    let mut dump: BTreeMap<_, _> = paths.values().map(|path| (path.clone(), Vec::new())).collect();
    for contact in tenant.true_contacts(user).expect("a mailbox") {
        if let Some(path) = paths.get(&contact.folder) {
            dump.get_mut(path).expect("every folder is there").push(canonical(&contact));
        }
    }
    dump.values_mut().for_each(|contacts| contacts.sort());
    dump
}

fn canonical(contact: &TrueContact) -> String {
    let mut properties = contact.properties.clone();
    let object = properties.as_object_mut().expect("an object");
    for of_the_store in ["changeKey", "createdDateTime", "lastModifiedDateTime"] {
        object.remove(of_the_store);
    }
    let emails = object["emailAddresses"].as_array().cloned().unwrap_or_default();
    let emails = emails.into_iter().map(|email| {
        // The service gives an address without a name the address as its name.
        let name = email.get("name").unwrap_or(&email["address"]);
        json!({ "name": name, "address": email["address"] })
    });
    object["emailAddresses"] = emails.collect();
    for repeated in ["primaryEmailAddress", "secondaryEmailAddress", "tertiaryEmailAddress"] {
        object.remove(repeated);
    }
    json!({ "properties": properties, "photo": contact.photo }).to_string()
}

/// Deletes all contacts, and all folders for them.
fn wipe(tenant: &Tenant, user: &str) {
    for contact in tenant.true_contacts(user).expect("a mailbox") {
        tenant.delete_contact(user, &contact.id).expect("a contact");
    }
    for folder in tenant.true_contact_folders(user).expect("a mailbox") {
        if folder.well_known.is_none() && folder.visible && !folder.hidden {
            // It may be gone already, with its parent folder.
            let _ = tenant.delete_folder(user, &folder.id);
        }
    }
    assert!(dump(tenant, user).values().all(Vec::is_empty), "{:#?}", dump(tenant, user));
}

/// Prints the contacts that differ, and not all.
#[track_caller]
fn assert_same(before: &BTreeMap<String, Vec<String>>, after: &BTreeMap<String, Vec<String>>) {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "the folders");
    for (folder, contacts) in before {
        let lacking: Vec<_> = contacts.iter().filter(|contact| !after[folder].contains(contact)).collect();
        let odd: Vec<_> = after[folder].iter().filter(|contact| !contacts.contains(contact)).collect();
        assert!(lacking.is_empty() && odd.is_empty(), "{folder:?}\nlacks {lacking:#?}\nhas {odd:#?}");
        assert_eq!(contacts.len(), after[folder].len(), "contacts in {folder:?}");
    }
}

#[track_caller]
fn nothing_was_sent(simulator: &Simulator) {
    let counts = simulator.counters();
    assert_eq!((counts.mails_sent, counts.invitations_sent), (0, 0));
}

#[track_caller]
fn assert_counts(report: &Value, restored: usize, already_there: usize) {
    let counts = ["restored", "already_there", "skipped", "failed"].map(|name| report[name].clone());
    assert_eq!(counts, [json!(restored), json!(already_there), json!(0), json!(0)], "{report}");
}

#[test]
fn contacts_that_were_lost_come_back_as_they_were_and_a_second_restore_makes_nothing() {
    let office = Office::new(1);
    let user = office.user(0);
    office.add_hard_contacts(&user);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &user);
    let total: usize = before.values().map(Vec::len).sum();
    wipe(&office.tenant, &user);
    let path = format!("latest:Users/{user}/Outlook/Contacts");
    let args = ["restore", &path, "--to", "original"];
    let planned = office.json(&[&args[..], &["--dry-run"]].concat(), 0);
    assert_eq!(planned["restored"], json!(total), "{planned}");
    assert!(dump(&office.tenant, &user).values().all(Vec::is_empty), "a dry run makes nothing");
    assert_counts(&office.json(&args, 0), total, 0);
    assert_same(&before, &dump(&office.tenant, &user));
    assert_counts(&office.json(&args, 0), 0, total);
    // A machine that does not remember the restore finds the contacts by their marks.
    std::fs::remove_dir_all(office.lab.state()).expect("a state folder");
    assert_counts(&office.json(&args, 0), 0, total);
    assert_same(&before, &dump(&office.tenant, &user));
    nothing_was_sent(&office.simulator);
}

#[test]
fn contacts_that_never_left_stay_and_those_that_changed_are_treated_as_asked() {
    let office = Office::new(1);
    let user = office.user(0);
    office.add_hard_contacts(&user);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &user);
    let total: usize = before.values().map(Vec::len).sum();
    let args = ["restore", "latest", "--to", "original"];
    let report = office.json(&args, 0);
    assert_eq!((&report["restored"], &report["failed"]), (&json!(0), &json!(0)), "{report}");
    assert_same(&before, &dump(&office.tenant, &user));
    let changed = office.tenant.true_contacts(&user).expect("a mailbox");
    let changed = changed.iter().find(|contact| contact.properties["surname"] == "Böll").expect("the contact");
    let fields = json!({ "jobTitle": "Intern" });
    office.tenant.change_contact(&user, &changed.id, fields.as_object().unwrap()).expect("a contact");
    let after_change = dump(&office.tenant, &user);
    let report = office.json(&args, 0);
    assert_eq!((&report["restored"], &report["skipped"]), (&json!(0), &json!(1)), "{report}");
    assert_same(&after_change, &dump(&office.tenant, &user));
    let report = office.json(&[&args[..], &["--when-exists", "keep-both"]].concat(), 0);
    assert_eq!(report["restored"], json!(1), "{report}");
    let both = dump(&office.tenant, &user);
    assert_eq!(both.values().map(Vec::len).sum::<usize>(), total + 1);
    assert!(both[""].iter().any(|contact| contact.contains("Intern")));
    assert!(before[""].iter().all(|contact| both[""].contains(contact)));
    nothing_was_sent(&office.simulator);
}

#[test]
fn a_changed_contact_is_replaced_if_asked() {
    let office = Office::new(1);
    let user = office.user(0);
    office.add_hard_contacts(&user);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &user);
    for contact in office.tenant.true_contacts(&user).expect("a mailbox") {
        let fields = json!({ "jobTitle": "Intern" });
        office.tenant.change_contact(&user, &contact.id, fields.as_object().unwrap()).expect("a contact");
    }
    let path = format!("latest:Users/{user}/Outlook/Contacts");
    office.json(&["restore", &path, "--to", "original", "--when-exists", "overwrite"], 0);
    assert_same(&before, &dump(&office.tenant, &user));
    nothing_was_sent(&office.simulator);
}

#[test]
fn contacts_go_to_another_account_once_and_into_a_folder_of_ones_choice() {
    let office = Office::new(2);
    let (from, to) = (office.user(0), office.user(1));
    office.add_hard_contacts(&from);
    wipe(&office.tenant, &to);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &from);
    let total: usize = before.values().map(Vec::len).sum();
    let (path, target) = (format!("latest:Users/{from}/Outlook/Contacts"), format!("contoso:Users/{to}"));
    let args = ["restore", &path, "--to", &target];
    assert_counts(&office.json(&args, 0), total, 0);
    assert_same(&before, &dump(&office.tenant, &to));
    assert_counts(&office.json(&args, 0), 0, total);
    let path = format!("latest:Users/{from}/Outlook/Contacts/Clients & Co");
    let target = format!("contoso:Users/{to}/Outlook/Contacts/Copies");
    office.json(&["restore", &path, "--to", &target], 0);
    let after = dump(&office.tenant, &to);
    assert_eq!(after["Copies/Clients & Co/Old"], before["Clients & Co/Old"]);
    assert_same(&before, &dump(&office.tenant, &from));
    nothing_was_sent(&office.simulator);
}

#[test]
fn a_mailbox_is_restored_with_its_mail_and_its_contacts() {
    let office = Office::new(1);
    let user = office.user(0);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &user);
    let messages = || office.tenant.true_messages(&user).expect("a mailbox").count();
    let contacts: usize = before.values().map(Vec::len).sum();
    let mails = messages();
    wipe(&office.tenant, &user);
    let all: Vec<_> = office.tenant.true_messages(&user).expect("a mailbox").map(|message| message.id).collect();
    all.iter().for_each(|id| office.tenant.delete_message(&user, id).expect("a message"));
    let report = office.json(&["restore", "latest", "--to", "original"], 0);
    assert_counts(&report, mails + contacts, 0);
    assert_same(&before, &dump(&office.tenant, &user));
    assert_eq!(messages(), mails);
    nothing_was_sent(&office.simulator);
}

#[test]
fn a_contact_with_an_address_that_is_refused_keeps_it_in_its_notes_and_the_report_says_so() {
    let office = Office::new(1);
    let user = office.user(0);
    wipe(&office.tenant, &user);
    let emails = json!([{"name": "Bob", "address": "bob at home"}, {"name": "B", "address": "bob@contoso.com"}]);
    let fields = json!({ "surname": "Odd", "personalNotes": "x", "emailAddresses": emails });
    office.tenant.add_contact(&user, "contacts", NewContact::with(fields)).expect("a folder");
    office.json(&["backup", "--set", "everyone"], 0);
    wipe(&office.tenant, &user);
    let path = format!("latest:Users/{user}/Outlook/Contacts");
    let args = ["restore", &path, "--to", "original"];
    let report = office.json(&args, 0);
    assert_counts(&report, 1, 0);
    assert!(report["warnings"].to_string().contains("1 contacts have an e-mail address in their notes"), "{report}");
    let contacts = office.tenant.true_contacts(&user).expect("a mailbox");
    let [contact] = contacts.as_slice() else { panic!("{contacts:?}") };
    assert_eq!(contact.properties["emailAddresses"], json!([emails[1]]));
    assert_eq!(contact.properties["personalNotes"], format!("x\n\n{IN_NOTES}\nBob <bob at home>"));
    assert_counts(&office.json(&args, 0), 0, 1);
}

#[test]
fn an_application_that_may_not_write_contacts_restores_the_mail_and_says_why_no_contacts() {
    let office = Office::new(1);
    let user = office.user(0);
    office.json(&["backup", "--set", "everyone"], 0);
    let contacts: usize = dump(&office.tenant, &user).values().map(Vec::len).sum();
    let messages = || office.tenant.true_messages(&user).expect("a mailbox").count();
    let mails = messages();
    wipe(&office.tenant, &user);
    let all: Vec<_> = office.tenant.true_messages(&user).expect("a mailbox").map(|message| message.id).collect();
    all.iter().for_each(|id| office.tenant.delete_message(&user, id).expect("a message"));
    office.simulator.set_permissions(["User.Read.All", "Mail.ReadWrite", "Organization.Read.All", "Contacts.Read"]);
    let report = office.json(&["restore", "latest", "--to", "original"], 3);
    assert_eq!((&report["restored"], &report["failed"]), (&json!(mails), &json!(contacts)), "{report}");
    assert!(report["failures"].to_string().contains("was not tried"), "{report}");
    assert_eq!(messages(), mails);
    nothing_was_sent(&office.simulator);
}

#[test]
fn killed_again_and_again_a_restore_of_contacts_makes_nothing_twice() {
    let office = Office::new(1);
    let user = office.user(0);
    office.add_hard_contacts(&user);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &user);
    wipe(&office.tenant, &user);
    let path = format!("latest:Users/{user}/Outlook/Contacts");
    let args = ["restore", &path, "--to", "original"];
    let mut killed = 0;
    for requests in [6, 8, 10, 13, 16, 20] {
        office.simulator.reset_counters();
        killed += office.killed_when(&args, || office.simulator.counters().requests >= requests);
    }
    assert!(killed >= 2, "only {killed} restores were killed");
    let report = office.json(&args, 0);
    assert_eq!(report["failed"], json!(0), "{report}");
    assert_same(&before, &dump(&office.tenant, &user));
    nothing_was_sent(&office.simulator);
}

#[test]
fn lost_answers_make_no_contact_twice() {
    let office = Office::new(1);
    let user = office.user(0);
    office.add_hard_contacts(&user);
    office.json(&["backup", "--set", "everyone"], 0);
    let before = dump(&office.tenant, &user);
    wipe(&office.tenant, &user);
    let lost = |contains: &str, fault: Fault, skip: u32, times: u32| Rule {
        method: Some("POST".to_owned()),
        contains: contains.to_owned(),
        skip,
        times: Some(times),
        fault,
    };
    let rules = vec![
        lost("/contacts", Fault::LostAnswer, 0, 3),
        lost("/contacts", Fault::LateWork, 0, 2),
        lost("/childFolders", Fault::LostAnswer, 0, 1),
    ];
    office.simulator.set_faults(Faults { rules, ..Faults::default() });
    let path = format!("latest:Users/{user}/Outlook/Contacts");
    let report = office.json(&["restore", &path, "--to", "original"], 0);
    assert_eq!(report["failed"], json!(0), "{report}");
    assert!(office.simulator.counters().faults >= 5, "{}", office.simulator.counters().faults);
    assert_same(&before, &dump(&office.tenant, &user));
    nothing_was_sent(&office.simulator);
}

#[test]
fn vcards_of_other_programs_become_contacts() {
    let office = Office::new(1);
    let user = office.user(0);
    wipe(&office.tenant, &user);
    let folder = office.lab.dir("cards");
    let card = "BEGIN:VCARD\r\nVERSION:3.0\r\nN:Doe;John;;;\r\nFN:John Doe\r\nEMAIL:john@example.org\r\nTEL;TYPE=CELL:3\r\n\
        END:VCARD\r\n";
    write(&folder.join("John Doe.vcf"), card);
    write(&folder.join("two.vcf"), card.repeat(2));
    write(&folder.join("mail.eml"), "Subject: x\r\n\r\ny\r\n");
    office.lab.backup(&folder, "cards");
    let target = format!("contoso:Users/{user}/Outlook/Contacts");
    let report = office.json(&["restore", "latest:cards", "--to", &target], 3);
    assert_eq!((&report["restored"], &report["failed"]), (&json!(1), &json!(2)), "{report}");
    assert!(report["failures"].to_string().contains("several contacts"), "{report}");
    assert!(report["failures"].to_string().contains("it is no contact"), "{report}");
    let contacts = office.tenant.true_contacts(&user).expect("a mailbox");
    let [contact] = contacts.as_slice() else { panic!("{contacts:?}") };
    let fields = ["surname", "givenName", "displayName", "mobilePhone"].map(|name| contact.properties[name].clone());
    assert_eq!(fields, ["Doe", "John", "John Doe", "3"]);
    let report = office.json(&["restore", "latest:cards", "--to", &target], 3);
    assert_eq!((&report["restored"], &report["already_there"]), (&json!(0), &json!(1)), "{report}");
}
