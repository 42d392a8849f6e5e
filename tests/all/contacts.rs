//! Backups of contacts. After each run every contact of the tenant is in the snapshot as a vCard, with its whole JSON
//! and its photo; a move is a move, and nothing leaves without proof. Mail does not suffer if contacts fail.

use crate::common;
use crate::laboratory;

use common::{Lab, PATIENCE, eventually, no_fuse, quiet, run, text, walk, write};
use laboratory::{Laboratory, Shape};
use proptest::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use strongroom::backup::tenant::TenantReport;
use strongroom::content::contact::photo_of;
use strongroom::content::names::contact_folder_name;
use strongroom_simulator::{
    Fault, Faults, NewContact, NewMessage, Options, Organisation, Simulator, Switches, Tenant, UserSpec,
};

/// A contact as it is, or as it stands in a snapshot.
#[derive(Clone, Debug, PartialEq)]
struct Contact {
    /// The names of its folders below `Outlook/Contacts`.
    folders: Vec<String>,
    properties: Value,
    photo: Option<Vec<u8>>,
}

/// Makes a laboratory whose set takes contacts as well. Photos that change are told of, as no backup can see others.
fn laboratory(shape: Shape) -> Laboratory {
    let switches = Switches { photo_changes_show: true, ..shape.switches.clone() };
    let mut lab = Laboratory::new(Shape { switches, ..shape });
    lab.options.contacts = true;
    lab
}

fn jpeg(content: &str) -> Vec<u8> {
    [b"\xff\xd8\xff\xe0", content.as_bytes(), b"\xff\xd9"].concat()
}

fn named(name: &str) -> NewContact {
    let fields = json!({ "displayName": name, "givenName": name });
    NewContact { fields: object(fields), ..NewContact::default() }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Returns the JSON of a contact without what every reader sees in another way.
fn comparable(mut properties: Value) -> Value {
    let object = properties.as_object_mut().expect("a contact");
    object.retain(|name, _| !["id", "parentFolderId"].contains(&name.as_str()) && !name.starts_with('@'));
    properties
}

/// Returns the contacts of a user that lie in the default folder and in those below it, by id. A folder that was
/// discarded lies in Deleted Items, where the service shows no contacts.
fn truth(tenant: &Tenant, user: &str) -> BTreeMap<String, Contact> {
    let truth = tenant.truth(user).expect("a mailbox");
    let default = truth.contact_folders.iter().find(|folder| folder.path.len() == 1).expect("the default folder");
    let top = default.path.clone();
    let folders: BTreeMap<_, _> = truth
        .contact_folders
        .into_iter()
        .filter(|folder| !folder.hidden && folder.path.starts_with(&top))
        .map(|folder| (folder.id, folder.path))
        .collect();
    let contacts = truth.contacts.into_iter().filter_map(|contact| {
        let folders = folders.get(&contact.folder)?.iter().skip(1).map(|name| contact_folder_name(name)).collect();
        let photo = contact.photo.filter(|photo| !photo.is_empty());
        Some((contact.id, Contact { folders, properties: comparable(contact.properties), photo }))
    });
    contacts.collect()
}

/// Returns the contacts in a snapshot: the users' folders, and in each the contacts by id.
fn contacts_in(lab: &Laboratory, report: &TenantReport) -> BTreeMap<String, BTreeMap<String, Contact>> {
    let reader = lab.reader();
    let mut users: BTreeMap<String, BTreeMap<String, Contact>> = BTreeMap::new();
    lab.walk(&reader, report.snapshot.directory(), "", &mut |path, entry, vcard| {
        let names: Vec<_> = path.split('/').collect();
        let ["Users", user, "Outlook", _, folders @ .., file] = names.as_slice() else { panic!("{path}") };
        if !file.ends_with(".vcf") {
            return;
        }
        let mut json = Vec::new();
        reader.read(entry.payload.as_ref().expect("a payload"), 0, usize::MAX, &mut json).expect("its JSON");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        let id = entry.facts.source_id.clone().expect("an id");
        assert_eq!((&json["id"], &json["changeKey"]), (&json!(id), &json!(entry.facts.change_key)), "{path}");
        let vcard_text = std::str::from_utf8(vcard).expect("a vCard is UTF-8");
        let ends =
            vcard_text.starts_with("BEGIN:VCARD\r\nVERSION:4.0\r\nFN:") && vcard_text.ends_with("\r\nEND:VCARD\r\n");
        assert!(ends, "{path}: {vcard_text}");
        let unfolded = vcard_text.replace("\r\n ", "");
        assert!(unfolded.contains(&format!("\r\nUID:{id}\r\n")), "{path}: {unfolded}");
        let contact = Contact {
            folders: folders.iter().map(|name| (*name).to_owned()).collect(),
            properties: comparable(json),
            photo: photo_of(vcard),
        };
        let twice = users.entry((*user).to_owned()).or_default().insert(id, contact);
        assert_eq!(twice, None, "{path} stands in two places");
    });
    users
}

/// Compares the contacts of a snapshot with those of the tenant.
#[track_caller]
fn assert_contacts(lab: &Laboratory, report: &TenantReport) {
    let found = contacts_in(lab, report);
    let tenant = lab.simulator.tenant();
    for user in lab.mailboxes() {
        let expected = truth(&tenant, &user);
        let found = found.get(&user.to_lowercase()).cloned().unwrap_or_default();
        let ids = |contacts: &BTreeMap<String, Contact>| contacts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&expected), "{user}");
        for (id, expected) in expected {
            let found = &found[&id];
            assert_eq!(found.properties, expected.properties, "{user}");
            let photos = (found.photo.as_ref().map(Vec::len), expected.photo.as_ref().map(Vec::len));
            assert!(found.photo == expected.photo, "the photo of {}: {photos:?}", expected.properties);
            // A name that is taken gets a number.
            let is_called = |(found, wanted): (&String, &String)| {
                found == wanted || found.strip_prefix(&**wanted).is_some_and(|rest| rest.starts_with(" ("))
            };
            let same = found.folders.len() == expected.folders.len()
                && found.folders.iter().zip(&expected.folders).all(is_called);
            assert!(same, "{:?} in place of {:?}", found.folders, expected.folders);
        }
    }
}

#[test]
fn contacts_are_backed_up_as_they_are_and_then_by_what_changes() {
    let lab = laboratory(Shape { users: 3, messages: 5, ..Shape::default() });
    let user = lab.mailboxes().remove(0);
    for odd in strongroom_simulator::generate::contacts::odd() {
        lab.simulator.tenant().add_contact(&user, "contacts", odd).expect("a contact");
    }
    let first = lab.back_up().expect("a backup");
    assert_eq!(first.failures, []);
    lab.assert_truth(&first);
    assert_contacts(&lab, &first);
    assert!(first.ledger.adds_up(), "{:?}", first.ledger);

    lab.simulator.reset_counters();
    let second = lab.back_up().expect("a backup");
    assert_contacts(&lab, &second);
    let summary = second.snapshot.summary;
    assert_eq!((summary.new, summary.changed, summary.moved, summary.deleted), (0, 0, 0, 0));
    assert_eq!(summary.added_bytes, 0, "nothing is stored but the snapshot");
    assert_eq!(second.ledger.carried, second.ledger.enumerated);
    assert_eq!(first.snapshot.root.directory(), second.snapshot.root.directory());
    let tenant = lab.simulator.tenant();
    for user in lab.mailboxes() {
        let mail = lab.visible_folders(&user).len() as u64 + 2;
        let folders = tenant.truth(&user).expect("a mailbox").contact_folders;
        let folders = folders.iter().filter(|folder| !folder.hidden).count() as u64;
        // Nobody tells how many folders lie in a folder, so each one is asked, together with all others.
        let requests = lab.requests_of(&user);
        let asked = if folders == 1 { 2 } else { folders };
        assert!(requests <= mail + folders + asked, "{user}: {requests} requests for {folders} folders of contacts");
    }
}

/// Returns how many requests about contacts were sent since the counters were reset, and how many batches are among
/// them.
fn sent_for_contacts(simulator: &Simulator) -> (u64, u64) {
    let operations = simulator.counters().by_operation;
    let count = |is_wanted: fn(&str) -> bool| {
        let wanted = operations.iter().filter(|(name, _)| is_wanted(&name.to_lowercase()));
        wanted.map(|(_, count)| count).sum::<u64>()
    };
    // All lists of folders are in batches.
    let alone = count(|name| name.contains("contact") && !name.contains("folders"));
    let batches = count(|name| name.contains("batch"));
    (alone + batches, batches)
}

/// Returns a laboratory with one user who has folders in folders, and the number of all contact folders.
fn nested(more: usize) -> (Laboratory, String, u64) {
    let mut lab = laboratory(Shape { users: 1, messages: 1, ..Shape::default() });
    lab.options.mail = false;
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let mut parent = "contacts".to_owned();
    for number in 0..more {
        let folder = tenant.add_contact_folder(&user, &parent, &format!("Folder {number}")).expect("a folder");
        tenant.add_contact(&user, &folder, named(&format!("In {number}"))).expect("a contact");
        if number % 3 == 0 {
            parent = folder;
        }
    }
    let folders = tenant.truth(&user).expect("a mailbox").contact_folders;
    let folders = folders.iter().filter(|folder| !folder.hidden).count() as u64;
    (lab, user, folders)
}

#[test]
fn an_unchanged_mailbox_costs_two_requests_more_than_it_has_contact_folders() {
    for more in [0, 1, 7, 30] {
        let (lab, user, folders) = nested(more);
        assert_contacts(&lab, &lab.back_up().expect("a backup"));
        lab.simulator.reset_counters();
        let report = lab.back_up().expect("a backup");
        assert_eq!((report.snapshot.summary.changed, report.snapshot.summary.new), (0, 0));
        let (requests, batches) = sent_for_contacts(&lab.simulator);
        assert!(requests <= folders + 2, "{requests} requests for {folders} folders");
        assert_eq!(batches, folders.max(2).div_ceil(20), "{folders} folders");
        let peak = lab.simulator.counters().peak_concurrency.into_values().max().expect("a mailbox");
        assert!(peak <= 4, "{user}: {peak} requests at the same time");
        assert_eq!(lab.simulator.counters().throttled, 0);
    }
}

#[test]
fn a_folder_that_is_throttled_or_fails_in_a_batch_costs_the_others_nothing() {
    let (lab, user, folders) = nested(9);
    let tenant = lab.simulator.tenant();
    lab.back_up().expect("a backup");
    let known = tenant.truth(&user).expect("a mailbox").contact_folders;
    let id_of = |name: &str| {
        let found = known.iter().find(|folder| folder.path.last().is_some_and(|last| last == name));
        found.expect("a folder").id.clone()
    };
    let asked = |simulator: &Simulator| {
        let operations = simulator.counters().by_operation;
        let lists = operations.iter().filter(|(name, _)| name.to_lowercase().contains("folders"));
        lists.map(|(_, count)| count).sum::<u64>()
    };
    for (fault, more) in [
        (Fault::TooManyRequests, 1),
        (Fault::TooManyRequestsBare, 1),
        (Fault::UnavailableEmpty, 1),
        (Fault::InvalidToken, 1),
        (Fault::InvalidJson, 1),
        (Fault::NotFound, 0),
    ] {
        lab.simulator.set_faults(Faults::default().with_rule("/childFolders", 1, fault));
        lab.simulator.reset_counters();
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, [], "{fault:?}");
        assert_eq!(lab.simulator.counters().faults, 1, "{fault:?}");
        assert_contacts(&lab, &report);
        // What was answered is not asked again.
        let found = asked(&lab.simulator);
        assert!(found <= folders + more + 1, "{fault:?}: {found} lists of {folders} folders");
    }
    // One folder is gone, and there is a new one in another.
    lab.simulator.set_faults(Faults::default());
    let new = tenant.add_contact_folder(&user, &id_of("Folder 8"), "New").expect("a folder");
    tenant.add_contact(&user, &new, named("New")).expect("a contact");
    tenant.delete_folder(&user, &id_of("Folder 1")).expect("a folder");
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_contacts(&lab, &report);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: laboratory::cases(4), max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_of_changes_ends_with_what_is_true(
        seed in 0u64..1000,
        rounds in proptest::collection::vec(proptest::collection::vec(laboratory::change(), 4..20), 3),
        choices in proptest::collection::vec(any::<u64>(), 3..12),
        switches in laboratory::switches(),
    ) {
        let lab = laboratory(Shape { seed, users: 2, messages: 4, switches, ..Shape::default() });
        let first = lab.back_up().expect("a backup");
        lab.assert_truth(&first);
        assert_contacts(&lab, &first);
        let mut before = vec![lab.remember(first)];
        for changes in rounds {
            changes.iter().for_each(|change| lab.apply(change));
            for (number, choice) in choices.iter().enumerate() {
                let users = lab.mailboxes();
                let user = &users[number % users.len()];
                lab.simulator.tenant().change_contacts_at_random(user, *choice).expect("a mailbox");
            }
            let report = lab.back_up().expect("a backup");
            prop_assert_eq!(&report.failures, &vec![]);
            lab.assert_truth(&report);
            assert_contacts(&lab, &report);
            prop_assert!(report.ledger.adds_up());
            before.push(lab.remember(report));
            before.iter().for_each(|remembered| lab.assert_remembered(remembered));
        }
    }
}

/// Returns how many photos were asked for since the counters were reset.
fn photos_asked(simulator: &Simulator) -> u64 {
    let operations = simulator.counters().by_operation;
    let of_photos = operations.iter().filter(|(name, _)| name.to_lowercase().contains("photo"));
    of_photos.map(|(_, count)| count).sum()
}

#[test]
fn a_contact_that_moves_keeps_its_file_and_one_that_goes_leaves() {
    let lab = laboratory(Shape { users: 1, messages: 2, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let crew = tenant.add_contact_folder(&user, "contacts", "Crew").expect("a folder");
    let inner = tenant.add_contact_folder(&user, &crew, "Old").expect("a folder");
    // It was changed long ago: the file says when, in seconds, so a new date makes a new file.
    let with_photo = NewContact { photo: Some(jpeg("moves")), created: Some(1_700_000_000), ..named("Moves") };
    let moves = tenant.add_contact(&user, "contacts", with_photo).expect("a contact");
    let goes = tenant.add_contact(&user, &crew, named("Goes")).expect("a contact");
    let discarded = tenant.add_contact(&user, "contacts", named("Discarded")).expect("a contact");
    assert_contacts(&lab, &lab.back_up().expect("a backup"));

    tenant.move_contact(&user, &moves, &inner).expect("a contact");
    tenant.delete_contact(&user, &goes).expect("a contact");
    tenant.discard_contact(&user, &discarded).expect("a contact");
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    assert_contacts(&lab, &report);
    let found = contacts_in(&lab, &report);
    assert_eq!(found[&user.to_lowercase()][&moves].folders, ["Crew", "Old"]);
    let summary = report.snapshot.summary;
    // Where it lies is new, and so is the date of its last change in the file.
    assert_eq!((summary.new, summary.moved, summary.deleted), (1, 0, 3), "{summary:?}");
    assert!(photos_asked(&lab.simulator) <= 1, "photos of contacts that did not change are not asked for");

    // The folder goes, and its contacts with it.
    tenant.delete_folder(&user, &crew).expect("a folder");
    assert_contacts(&lab, &lab.back_up().expect("a backup"));
}

#[test]
fn a_contact_leaves_only_if_it_is_gone_itself() {
    let lab = laboratory(Shape { users: 1, messages: 2, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let id = tenant.add_contact(&user, "contacts", named("Stays")).expect("a contact");
    lab.back_up().expect("a backup");
    // A full listing that does not have the contact says that it left. Asking for it says that it did not.
    tenant.discard_contact(&user, &id).expect("a contact");
    let astray = Faults::default().with_rule(&format!("/contacts/{id}"), u32::MAX, Fault::InternalError);
    lab.simulator.set_faults(astray);
    let report = lab.back_up().expect("a backup");
    assert!(lab.simulator.counters().faults > 0, "it was asked for");
    let kept = contacts_in(&lab, &report);
    assert!(kept[&user.to_lowercase()].contains_key(&id), "without an answer it stays");
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert!(String::from_utf8_lossy(&report.failures[0].path).ends_with("/Outlook/Contacts"), "{:?}", report.failures);
    lab.assert_truth(&report);
    lab.simulator.set_faults(Faults::default());
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_contacts(&lab, &report);
}

#[test]
fn without_the_permission_mail_is_backed_up_and_contacts_stand() {
    let lab = laboratory(Shape { users: 2, messages: 3, ..Shape::default() });
    let first = lab.back_up().expect("a backup");
    assert_contacts(&lab, &first);
    let before = contacts_in(&lab, &first);
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let message = NewMessage { mime: b"Subject: new\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
    tenant.add_message(&user, "inbox", message).expect("an inbox");
    tenant.add_contact(&user, "contacts", named("New")).expect("a contact");
    let all = lab.simulator.authority().rules().roles;
    let without = |rules: &mut strongroom_simulator::auth::Rules| {
        rules.roles.retain(|role| !role.starts_with("Contacts."));
    };
    lab.simulator.authority().change_rules(without);
    let report = lab.back_up().expect("mail is backed up");
    lab.assert_truth(&report);
    assert_eq!(contacts_in(&lab, &report), before, "contacts stand as they were");
    let texts: Vec<_> = report.failures.iter().map(|failure| failure.error.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("may read the contacts of nobody")), "{texts:?}");
    let of_users = report.failures.iter().filter(|failure| failure.path.ends_with(b"/Outlook/Contacts")).count();
    assert_eq!((of_users, report.failures.len()), (lab.mailboxes().len(), lab.mailboxes().len() + 1), "{texts:?}");
    assert!(report.ledger.adds_up(), "{:?}", report.ledger);

    lab.simulator.authority().change_rules(|rules| rules.roles = all);
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_contacts(&lab, &report);
}

#[test]
fn without_the_permission_from_the_start_one_line_says_so() {
    let lab = laboratory(Shape { users: 3, messages: 3, ..Shape::default() });
    lab.simulator.authority().change_rules(|rules| rules.roles.retain(|role| !role.starts_with("Contacts.")));
    let report = lab.back_up().expect("mail is backed up");
    lab.assert_truth(&report);
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert_eq!((report.snapshot.summary.failed, report.skipped.len()), (1, 0));
}

#[test]
fn lost_deltas_lose_no_contact() {
    let lab = laboratory(Shape { users: 2, messages: 2, ..Shape::default() });
    lab.back_up().expect("a backup");
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let ids: Vec<_> = truth(&tenant, &user).into_keys().collect();
    tenant.delete_contact(&user, &ids[0]).expect("a contact");
    tenant.change_contact(&user, &ids[1], &object(json!({"jobTitle": "new"}))).expect("a contact");
    tenant.expire_deltas();
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_contacts(&lab, &report);
    assert_eq!(photos_asked(&lab.simulator), 1, "only the photo of what changed is asked for");
}

#[test]
fn a_photo_in_a_storm_of_faults_is_right_or_asked_for_again() {
    let lab = laboratory(Shape { users: 2, messages: 4, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    for number in 0..20 {
        let contact = NewContact { photo: Some(jpeg(&"photo ".repeat(number * 50))), ..named(&format!("N{number}")) };
        tenant.add_contact(&user, "contacts", contact).expect("a contact");
    }
    for seed in 0..3 {
        lab.simulator.set_faults(Faults::bad_day(seed, 5));
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, [], "seed {seed}");
        assert_contacts(&lab, &report);
        tenant.expire_deltas();
    }
    let cut = Faults::default().with_rule("/photo/$value", 3, Fault::CutWithoutLength);
    for number in 0..5 {
        let contact = NewContact { photo: Some(jpeg(&"cut ".repeat(200 + number))), ..named("Cut") };
        tenant.add_contact(&user, "contacts", contact).expect("a contact");
    }
    lab.simulator.set_faults(cut);
    assert_contacts(&lab, &lab.back_up().expect("a backup"));
}

#[test]
fn a_mail_folder_called_contacts_and_the_contacts_share_a_mailbox() {
    let mut lab = laboratory(Shape { users: 2, messages: 2, ..Shape::default() });
    let (tenant, users) = (lab.simulator.tenant(), lab.mailboxes());
    let add = |user: &str| {
        let folder = tenant.add_folder(user, "msgfolderroot", "Contacts").expect("a folder");
        let message = NewMessage { mime: b"Subject: in it\r\n\r\nhere\r\n".to_vec(), ..NewMessage::default() };
        tenant.add_message(user, &folder, message).expect("a folder");
    };
    // One user has the mail folder before contacts are backed up, the other one gets it later.
    add(&users[0]);
    lab.options.contacts = false;
    lab.assert_truth(&lab.back_up().expect("a backup"));
    lab.options.contacts = true;
    let report = lab.back_up().expect("a backup");
    add(&users[1]);
    let paths = |report: &TenantReport| {
        let mut paths = Vec::new();
        lab.walk(&lab.reader(), report.snapshot.directory(), "", &mut |path, _, _| paths.push(path.to_owned()));
        paths
    };
    let (name, other) = (users[0].to_lowercase(), users[1].to_lowercase());
    let has = |paths: &[String], start: String, end: &str| {
        paths.iter().any(|path| path.starts_with(&start) && path.ends_with(end))
    };
    let found = paths(&report);
    assert!(has(&found, format!("Users/{name}/Outlook/Contacts/"), ".eml"), "the mail folder keeps its name");
    assert!(has(&found, format!("Users/{name}/Outlook/Contacts (2)/"), ".vcf"), "{found:#?}");
    let report = lab.back_up().expect("a backup");
    let found = paths(&report);
    assert!(has(&found, format!("Users/{other}/Outlook/Contacts/"), ".vcf"), "the contacts keep their name");
    assert!(has(&found, format!("Users/{other}/Outlook/Contacts (2)/"), ".eml"), "{found:#?}");
    assert_contacts(&lab, &report);
    lab.options.contacts = false;
    let report = lab.back_up().expect("a backup");
    lab.assert_truth(&report);
    assert!(contacts_in(&lab, &report).is_empty(), "a set that does not take contacts any more has none");
}

#[test]
fn a_user_whose_default_folder_is_empty_and_one_without_contacts_are_no_failure() {
    let lab = laboratory(Shape { users: 1, messages: 2, ..Shape::default() });
    let tenant = lab.simulator.tenant();
    let id = tenant.add_user(UserSpec { principal_name: "newcomer".to_owned(), ..UserSpec::default() });
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_contacts(&lab, &report);
    let folder = tenant.add_contact_folder(&id, "contacts", "Only").expect("a folder");
    tenant.add_contact(&id, &folder, named("Deep")).expect("a contact");
    assert_contacts(&lab, &lab.back_up().expect("a backup"));
}

/// An organisation, and a laboratory with a repository whose configuration has the set `everyone`.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new(organisation: Organisation) -> Office {
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
        let lab = Lab::new();
        let (url, tenant, client) = (simulator.url(), simulator.tenant_id(), simulator.client_id());
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{tenant}\"\nclient_id = \"{client}\"\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\nclient_secret = {{ env = \"CONTOSO_SECRET\" }}\n\
             [sets.everyone]\ntenant = \"contoso\"\nservices = [\"mail\", \"contacts\"]\n"
        );
        write(&lab.path("strongroom.toml"), text);
        Office { simulator, lab }
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
}

#[test]
fn a_killed_run_and_an_interrupted_one_are_continued_and_store_nothing_twice() {
    let office = Office::new(Organisation { users: 1, messages: 2, contacts: 0, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    const CONTACTS: usize = 200;
    for number in 0..CONTACTS {
        let contact = NewContact { photo: Some(jpeg(&format!("{number}"))), ..named(&format!("Contact {number}")) };
        tenant.add_contact(&user, "contacts", contact).expect("a contact");
    }
    let args = ["backup", "--set", "everyone"];
    for signal in [Signal::KILL, Signal::INT] {
        office.simulator.reset_counters();
        let mut child = office.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        eventually("some contacts are read", PATIENCE, || photos_asked(&office.simulator) as usize > CONTACTS / 2);
        kill_process(Pid::from_child(&child), signal).expect("a child");
        assert!(!child.wait().expect("a child").success(), "it ended before {signal:?}");
        assert_eq!(office.lab.json(["snapshots"]).as_array().map(Vec::len), Some(0), "{signal:?} left no snapshot");
    }
    // What the interrupted run read is stored, and this machine remembers it.
    office.simulator.reset_counters();
    office.json(&args, 0);
    let asked = photos_asked(&office.simulator) as usize;
    assert!(asked < CONTACTS, "{asked} photos were fetched, as if nothing had been stored");
    let listed = office.lab.run(["ls", "-R", &format!("latest:Users/{}/Outlook/Contacts", user.to_lowercase())], 0);
    let listed = text(&listed.stdout);
    assert_eq!(listed.matches(".vcf").count(), CONTACTS, "each contact once");
    assert!(!listed.contains(" (2).vcf"), "{listed}");
    office.json(&["check", "--read-data"], 0);
}

#[test]
fn the_mount_shows_contacts_that_vobject_reads() {
    if no_fuse() {
        return;
    }
    let office = Office::new(Organisation { users: 2, messages: 2, every_kind: true, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    let hostile = NewContact {
        fields: object(json!({
            "displayName": "Eve \"; \\ , \r\nEND:VCARD\r\nX-EVIL:1", "surname": "a;b,c", "personalNotes": "1\r\n2\n\n3",
            "companyName": "A;B", "emailAddresses": [{"name": "x", "address": "eve@contoso.com"}],
        })),
        photo: Some(jpeg("eve")),
        ..NewContact::default()
    };
    tenant.add_contact(&user, "contacts", hostile).expect("a contact");
    // One of the mailboxes is over its quota.
    office.json(&["backup", "--set", "everyone"], 3);
    let mount = office.lab.mount(&["--snapshot", "latest"]);
    let mut files = 0;
    walk(&mount.path("Users"), &mut |path, stat| {
        files += usize::from(path.extension().is_some_and(|extension| extension == "vcf"));
        if stat.is_file() {
            assert_eq!(fs::read(path).expect("a file").len() as u64, stat.len());
        }
    });
    assert!(files >= truth(&tenant, &user).len(), "{files} files");
    vobject_reads(&mount.path("Users"), files);
}

/// Lets Python's vobject, which is strict, read every vCard under a folder.
fn vobject_reads(folder: &Path, files: usize) {
    let python = || Command::new(std::env::var("STRONGROOM_PYTHON").unwrap_or_else(|_| "python3".to_owned()));
    let is_there = python().args(["-c", "import vobject"]).output().is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("skipped: needs python3 with the package vobject");
        return;
    }
    let script = r#"
import pathlib, sys, vobject
cards = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.vcf")):
    text = path.read_bytes().decode()
    found = list(vobject.readComponents(text))
    assert len(found) == 1, path
    card = found[0]
    assert card.version.value == "4.0" and card.fn.value, path
    assert "x-evil" not in card.contents, path
    if card.fn.value.startswith("Eve"):
        assert card.fn.value == 'Eve "; \\ , \nEND:VCARD\nX-EVIL:1', card.fn.value
        assert card.n.value.family == "a;b,c", card.n.value.family
        assert card.note.value == "1\n2\n\n3", card.note.value
        assert card.email.value == "eve@contoso.com"
        # vobject ends the value at the comma, which RFC 6350 does not escape in a URI.
        assert card.photo.value.startswith("data:image/jpeg;base64"), card.photo.value
    cards += 1
print(cards)
"#;
    let said = quiet(python().args(["-B", "-c", script]).arg(folder));
    assert_eq!(said.trim_end(), files.to_string());
}
