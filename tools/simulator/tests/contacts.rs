//! Contacts as a client reads them: folders, contacts, photos and deltas, over real HTTP.

mod client;

use std::collections::{BTreeMap, BTreeSet};

use client::{Client, IMMUTABLE};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Map, Value, json};
use strongroom_simulator::{
    Fault, Faults, NewContact, NewMessage, Options, Organisation, Simulator, Switches, TrueContact, UserSpec,
};

struct Scene {
    simulator: Simulator,
    client: Client,
    user: String,
}

impl Scene {
    /// A user without contacts.
    fn new() -> Self {
        Self::with(Switches::default(), 0)
    }

    fn with(switches: Switches, contacts: usize) -> Self {
        let organisation = Organisation { users: 1, messages: 0, contacts, ..Organisation::default() };
        let options = Options { organisation, switches, ..Options::default() };
        let simulator = Simulator::start(options).expect("a simulator");
        let client = Client::new(&simulator);
        let user = simulator.tenant().users()[0].id.clone();
        Self { simulator, client, user }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1.0/users/{}/{}", self.user, rest.replace(' ', "%20"))
    }

    fn all(&self, rest: &str) -> Vec<Value> {
        self.client.all(&self.path(rest), &[IMMUTABLE])
    }

    fn get(&self, rest: &str) -> (u16, Value) {
        self.client.get(&self.path(rest))
    }

    fn add(&self, folder: &str, fields: Value) -> String {
        self.simulator.tenant().add_contact(&self.user, folder, NewContact::with(fields)).expect("a contact")
    }

    fn folder(&self, parent: &str, name: &str) -> String {
        self.simulator.tenant().add_contact_folder(&self.user, parent, name).expect("a folder")
    }

    fn truth(&self) -> Vec<TrueContact> {
        self.simulator.tenant().true_contacts(&self.user).expect("a mailbox")
    }
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned()
}

fn ids(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().map(|row| text(row, "id")).collect()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Returns all folders for contacts, found as a client finds them: the default folder by its name, the others by lists.
fn folders(client: &Client, user: &str) -> Vec<(Vec<String>, String)> {
    let (status, default) = client.get(&format!("/v1.0/users/{user}/contactFolders/Contacts"));
    assert_eq!(status, 200, "{default}");
    let mut found = vec![(vec![text(&default, "displayName")], text(&default, "id"))];
    let mut left = vec![(found[0].0.clone(), format!("/v1.0/users/{user}/contactFolders"))];
    while let Some((path, list)) = left.pop() {
        for row in client.all(&list, &[]) {
            let path = [path.clone(), vec![text(&row, "displayName")]].concat();
            let id = text(&row, "id");
            left.push((path.clone(), format!("/v1.0/users/{user}/contactFolders/{id}/childFolders?$top=2")));
            found.push((path, id));
        }
    }
    found
}

#[test]
fn what_is_read_is_the_truth_also_if_it_hurts() {
    let organisation = Organisation { users: 2, messages: 0, contacts: 40, hurting: true, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let client = Client::new(&simulator);
    for user in simulator.tenant().users() {
        let truth = simulator.tenant().truth(&user.id).expect("a mailbox");
        let folders = folders(&client, &user.id);
        let shown: BTreeSet<_> = folders.iter().cloned().collect();
        let visible = truth.contact_folders.iter().filter(|folder| !folder.hidden);
        assert_eq!(shown, visible.map(|folder| (folder.path.clone(), folder.id.clone())).collect());
        let mut found = BTreeMap::new();
        for (_, folder) in folders {
            for row in
                client.all(&format!("/v1.0/users/{}/contactFolders/{folder}/contacts?$top=7", user.id), &[IMMUTABLE])
            {
                assert_eq!(row["parentFolderId"], folder.as_str());
                let id = text(&row, "id");
                let path = format!("/v1.0/users/{}/contacts/{id}/photo/$value", user.id);
                let photo = client.send(Method::GET, &path, &[], None);
                let photo = (photo.status == 200).then_some(photo.bytes);
                found.insert(id, (folder.clone(), row, photo));
            }
        }
        assert!(truth.contacts.len() >= 29 && found.len() == truth.contacts.len(), "{}", found.len());
        for contact in truth.contacts {
            let (folder, row, photo) = &found[&contact.id];
            assert_eq!((folder, photo), (&contact.folder, &contact.photo));
            let shown = object(row.clone()).into_iter().filter(|(name, _)| contact.properties.get(name).is_some());
            assert_eq!(Value::Object(shown.collect()), contact.properties);
        }
    }
    assert_eq!(simulator.counters().mails_sent, 0);
}

#[test]
fn the_default_folder_has_a_name_and_stands_in_no_list() {
    let scene = Scene::new();
    let default = scene.get("contactFolders/contacts").1;
    let inner = scene.folder("contacts", "Friends");
    let deep = scene.folder(&inner, "Tennis");
    assert_eq!(ids(&scene.all("contactFolders")), [inner.clone()].into());
    assert_eq!(
        ids(&scene.all(&format!("contactFolders/{}/childFolders", text(&default, "id")))),
        [inner.clone()].into()
    );
    assert_eq!(ids(&scene.all(&format!("contactFolders/{inner}/childFolders"))), [deep.clone()].into());
    assert_eq!(scene.get(&format!("contactFolders/{deep}")).1["parentFolderId"], inner.as_str());
    assert_eq!(object(default), object(scene.get("contactFolders/Contacts").1));

    // It is empty, so its id does not follow from a contact in it.
    assert!(scene.all("contacts?$top=1&$select=parentFolderId").is_empty());
    assert_eq!(scene.get("contacts/$count").1, 0);
    assert_eq!(scene.client.delta(&scene.path("contactFolders/contacts/contacts/delta"), &[]).0, Vec::<Value>::new());

    // Mail does not list it, and counts no child there.
    let mail = scene.all("mailFolders?$top=100&includeHiddenFolders=true");
    assert!(!mail.iter().any(|row| row["displayName"] == "Contacts"), "{mail:?}");
    assert!(!mail.iter().any(|row| row["displayName"] == "Friends"));
    for (rest, status) in [
        ("contactFolders/inbox", 400),
        ("contactFolders?$select=totalItemCount", 400),
        ("contactFolders/contacts/frobs", 400),
        ("contacts/delta", 400),
        ("contacts?$select=phones", 400),
        ("contacts?$search=%22x%22", 501),
    ] {
        assert_eq!(scene.get(rest).0, status, "{rest}");
    }
}

#[test]
fn folders_that_programs_made_are_listed_when_told() {
    let scene = Scene::with(Switches { machine_made_contact_folders: true, ..Switches::default() }, 0);
    let names: BTreeSet<String> = scene.all("contactFolders").iter().map(|row| text(row, "displayName")).collect();
    assert_eq!(names, ["GAL Contacts", "Recipient Cache"].map(str::to_owned).into());
}

#[test]
fn contacts_of_a_user_are_those_of_the_default_folder_and_an_id_finds_each() {
    let scene = Scene::new();
    let friends = scene.folder("contacts", "Friends");
    let (near, far) =
        (scene.add("contacts", json!({"surname": "Near"})), scene.add(&friends, json!({"surname": "Far"})));
    assert_eq!(ids(&scene.all("contacts")), [near.clone()].into());
    assert_eq!(ids(&scene.all(&format!("contactFolders/{friends}/contacts"))), [far.clone()].into());
    assert_eq!(scene.get(&format!("contacts/{far}?$select=surname")).1["surname"], "Far");
    assert_eq!(scene.get(&format!("contactFolders/{friends}/contacts/{far}")).0, 200);
    assert_eq!(scene.get(&format!("contactFolders/contacts/contacts/{far}")).0, 404);
    assert_eq!(scene.get("contacts/nonsense").0, 400);
    // Contacts are no messages, and messages no contacts.
    let mime = b"Subject: a\r\n\r\n".to_vec();
    let message = NewMessage { mime, ..NewMessage::default() };
    let message = scene.simulator.tenant().add_message(&scene.user, "inbox", message).expect("a message");
    for rest in [format!("messages/{near}"), format!("messages/{near}/$value"), format!("contacts/{message}")] {
        let (status, body) = scene.get(&rest);
        assert_eq!((status, body["error"]["code"].as_str()), (404, Some("ErrorItemNotFound")), "{rest}");
    }
    assert_eq!(ids(&scene.all("messages?$select=id")), [message].into());
}

#[test]
fn both_versions_show_the_same_contact_in_another_shape() {
    let scene = Scene::new();
    let id = scene.add(
        "contacts",
        json!({"surname": "A", "homePhones": ["1"], "homeAddress": {"city": "X"}, "emailAddresses": [{"address": "a@b.c"}]}),
    );
    let (status, v1) = scene.get(&format!("contacts/{id}"));
    let beta = scene.client.get(&scene.path(&format!("contacts/{id}")).replace("v1.0", "beta")).1;
    assert_eq!((status, &v1["homePhones"], &v1["birthday"]), (200, &json!(["1"]), &Value::Null));
    assert_eq!(v1["primaryEmailAddress"], json!({"address": "a@b.c"}));
    assert!(v1.get("phones").is_none() && beta.get("homePhones").is_none());
    assert_eq!(beta["phones"], json!([{"type": "home", "number": "1"}]));
    assert_eq!(beta["postalAddresses"], json!([{"type": "home", "city": "X"}]));
    assert_eq!(v1["changeKey"], beta["changeKey"]);
}

#[test]
fn lists_can_be_cut_filtered_and_ordered() {
    let scene = Scene::new();
    let name = |number: usize| format!("Person {number:02}");
    for number in 0..25 {
        let email = json!([{"name": "x", "address": format!("{number}@fabrikam.com")}]);
        scene.add("contacts", json!({"displayName": name(number), "emailAddresses": email}));
    }
    let (_, page) = scene.get("contacts?$select=displayName&$count=true");
    assert_eq!((page["value"].as_array().map(Vec::len), page["@odata.count"].as_u64()), (Some(10), Some(25)));
    let first = object(page["value"][0].clone());
    assert_eq!(first.keys().collect::<Vec<_>>(), ["@odata.etag", "displayName", "id"]);
    assert_eq!(scene.all("contacts?$top=4&$skip=3").len(), 22);
    let found =
        scene.all("contacts?$filter=emailAddresses/any(a:a/address eq '7@fabrikam.com')&$select=id,displayName");
    assert_eq!(found.iter().map(|row| text(row, "displayName")).collect::<Vec<_>>(), [name(7)]);
    let last = scene.all("contacts?$orderby=displayName desc&$top=1000");
    assert_eq!(text(&last[0], "displayName"), name(24));
    assert_eq!(scene.get("contacts?$top=1001").0, 400);
}

#[test]
fn a_contact_without_a_photo_has_none() {
    let scene = Scene::new();
    let plain = scene.add("contacts", json!({"surname": "A"}));
    let (status, body) = scene.get(&format!("contacts/{plain}/photo/$value"));
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("ErrorItemNotFound")));
    assert_eq!(scene.get(&format!("contacts/{plain}/photo")).0, 404);
    let photo = NewContact { photo: Some(vec![0xff, 0xd8, 7]), ..NewContact::with(json!({"surname": "B"})) };
    let shown = scene.simulator.tenant().add_contact(&scene.user, "contacts", photo).expect("a contact");
    let reply = scene.client.send(Method::GET, &scene.path(&format!("contacts/{shown}/photo/$value")), &[], None);
    assert_eq!((reply.status, reply.bytes.as_slice()), (200, &[0xff, 0xd8, 7][..]));
    assert_eq!(reply.headers["content-type"], "image/jpeg");
    assert_eq!(scene.get(&format!("contacts/{shown}/photo")).1["@odata.mediaContentType"], "image/jpeg");
}

#[test]
fn a_new_photo_shows_only_when_told() {
    for shows in [false, true] {
        let scene = Scene::with(Switches { photo_changes_show: shows, ..Switches::default() }, 0);
        let contact = scene.add("contacts", json!({"surname": "A"}));
        let delta = |from: &str| scene.client.delta(from, &[IMMUTABLE]);
        let (before, link) = delta(&scene.path("contactFolders/contacts/contacts/delta"));
        scene.simulator.tenant().set_contact_photo(&scene.user, &contact, Some(vec![1])).expect("a photo");
        let (rows, _) = delta(&link);
        assert_eq!(rows.len(), usize::from(shows));
        let now = scene.get(&format!("contacts/{contact}")).1;
        assert_eq!(now["changeKey"] != before[0]["changeKey"], shows);
    }
}

#[test]
fn a_move_changes_the_default_id_and_a_deleted_contact_lies_in_the_mail() {
    let scene = Scene::new();
    let friends = scene.folder("contacts", "Friends");
    let contact = scene.add("contacts", json!({"surname": "A"}));
    let before = text(&scene.get(&format!("contacts/{contact}")).1, "id");
    assert_eq!((contact.len(), before.len()), (72, 152));
    let first = scene.path("contactFolders/contacts/contacts/delta?$select=surname");
    let (rows, link) = scene.client.delta(&first, &[IMMUTABLE]);
    assert_eq!((rows.len(), rows[0]["surname"].as_str()), (1, Some("A")));
    let tenant = scene.simulator.tenant();
    tenant.move_contact(&scene.user, &contact, &friends).expect("moved");
    assert_eq!(scene.get(&format!("contacts/{before}")).0, 404);
    assert_eq!(scene.get(&format!("contacts/{contact}")).1["parentFolderId"], friends.as_str());
    let gone = json!({"@odata.type": "#microsoft.graph.contact", "id": contact, "@removed": {"reason": "deleted"}});
    assert_eq!(scene.client.delta(&link, &[IMMUTABLE]).0, [gone]);

    // A deleted contact is not shown by the mail folder, but it can be read by its immutable id.
    tenant.discard_contact(&scene.user, &contact).expect("discarded");
    let deleted = text(&scene.get("mailFolders/deleteditems").1, "id");
    assert!(scene.all("mailFolders/deleteditems/messages").is_empty());
    assert_eq!(scene.client.delta(&scene.path("mailFolders/deleteditems/messages/delta"), &[]).0, Vec::<Value>::new());
    let shown = scene.get(&format!("contacts/{contact}")).1;
    assert_eq!(shown["parentFolderId"], deleted.as_str());
    assert!(scene.all(&format!("contactFolders/{friends}/contacts")).is_empty());
    tenant.delete_contact(&scene.user, &contact).expect("deleted");
    assert_eq!(scene.get(&format!("contacts/{contact}")).0, 404);
    assert_eq!(scene.client.delta(&scene.path("mailFolders/deleteditems/messages/delta"), &[]).0, Vec::<Value>::new());
}

#[test]
fn the_delta_of_folders_tells_of_folders_for_contacts_alone() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let friends = scene.folder("contacts", "Friends");
    let inner = scene.folder(&friends, "Tennis");
    let (rows, link) = scene.client.delta(&scene.path("contactFolders/delta"), &[]);
    assert_eq!(ids(&rows), [friends.clone(), inner.clone()].into());
    let (mail, mail_link) = scene.client.delta(&scene.path("mailFolders/delta"), &[]);
    assert!(!ids(&mail).contains(&friends));
    tenant.rename_folder(&scene.user, &inner, "Golf").expect("renamed");
    tenant.add_folder(&scene.user, "msgfolderroot", "Mail").expect("a folder");
    let (rows, link) = scene.client.delta(&link, &[]);
    assert_eq!(rows.iter().map(|row| text(row, "displayName")).collect::<Vec<_>>(), ["Golf"]);
    tenant.delete_folder(&scene.user, &friends).expect("deleted");
    let (rows, _) = scene.client.delta(&link, &[]);
    assert!(rows.iter().all(|row| row["@removed"]["reason"] == "deleted"));
    assert_eq!(ids(&rows), [friends.clone(), inner].into());
    let (mail, _) = scene.client.delta(&mail_link, &[]);
    assert_eq!(mail.iter().map(|row| text(row, "displayName")).collect::<Vec<_>>(), ["Mail"]);
    let (status, body) = scene.get(&format!("contactFolders/{friends}/contacts/delta"));
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("ErrorItemNotFound")));
}

#[test]
fn deltas_of_contacts_obey_the_rules_of_those_of_mail() {
    let scene = Scene::with(Switches::default(), 40);
    let path = scene.path("contactFolders/contacts/contacts/delta?$select=surname");
    let size = ["odata.maxpagesize=5"];
    let (rows, link) = scene.client.delta(&path, &size);
    assert_eq!(
        rows.len(),
        scene
            .truth()
            .iter()
            .filter(|contact| { contact.folder == text(&scene.get("contactFolders/contacts").1, "id") })
            .count()
    );
    assert!(rows.iter().all(|row| row["@odata.type"] == "#microsoft.graph.contact" && row.get("title").is_none()));
    assert_eq!(scene.client.delta(&format!("{path}&$top=12"), &size).0.len(), 12);
    assert_eq!(scene.client.get(&format!("{path}&$filter=surname%20eq%20'a'")).0, 400);
    assert_eq!(scene.client.get(&path.replace("surname", "size")).0, 400);
    // A link belongs to its folder, and dies with the state of the service.
    let other = link
        .replace(&text(&scene.get("contactFolders/contacts").1, "id"), &text(&scene.all("contactFolders")[0], "id"));
    assert_eq!(scene.client.get(&other).0, 410);
    scene.simulator.expire_deltas();
    let (status, body) = scene.client.get(&link);
    assert_eq!((status, body["error"]["code"].as_str()), (410, Some("SyncStateNotFound")));

    scene.simulator.set_switches(Switches { next_links_live: Some(2), empty_pages: true, ..Switches::default() });
    let page = scene.client.get(&path).1;
    assert_eq!(page["value"], json!([]), "the first page is empty");
    let next = text(&page, "@odata.nextLink");
    for _ in 0..3 {
        scene.client.get(&path);
    }
    assert_eq!(scene.client.get(&next).0, 410);
}

#[test]
fn requests_need_the_permission_and_count_for_the_mailbox() {
    let scene = Scene::with(Switches::default(), 3);
    let id = scene.truth()[0].id.clone();
    scene.simulator.set_permissions(["Mail.ReadWrite", "User.Read.All"]);
    let mail_only = Client::new(&scene.simulator);
    for rest in
        ["contactFolders", "contacts", "contactFolders/contacts/contacts/delta", &format!("contacts/{id}/photo/$value")]
    {
        let (status, body) = mail_only.get(&scene.path(rest));
        assert_eq!((status, body["error"]["code"].as_str()), (403, Some("ErrorAccessDenied")), "{rest}");
    }
    scene.simulator.set_permissions(["Contacts.Read"]);
    let reader = Client::new(&scene.simulator);
    scene.simulator.reset_counters();
    assert_eq!(reader.get(&scene.path("contacts")).0, 200);
    assert_eq!(reader.post(&scene.path("contacts"), &json!({"surname": "x"})).0, 403);
    assert_eq!(reader.get(&scene.path("mailFolders")).0, 403);
    assert_eq!(scene.simulator.counters().by_mailbox[&scene.user], 3);
}

#[test]
fn a_batch_reads_contacts_and_photos() {
    let scene = Scene::new();
    let photo = NewContact { photo: Some(vec![0xff, 0xd8]), ..NewContact::with(json!({"surname": "B"})) };
    let id = scene.simulator.tenant().add_contact(&scene.user, "contacts", photo).expect("a contact");
    let url = |rest: &str| format!("/users/{}/contacts/{id}{rest}", scene.user);
    let batch = json!({"requests": [
        {"id": "1", "method": "GET", "url": url("?$select=surname")},
        {"id": "2", "method": "GET", "url": url("/photo/$value")},
    ]});
    let (status, body) = scene.client.post("/v1.0/$batch", &batch);
    assert_eq!(status, 200);
    let answers = body["responses"].as_array().expect("answers");
    let answer = |id: &str| answers.iter().find(|answer| answer["id"] == id).expect("an answer")["body"].clone();
    assert_eq!(answer("1")["surname"], "B");
    assert_eq!(answer("2"), "/9g=");
}

#[test]
fn faults_befall_contacts_too() {
    let scene = Scene::with(Switches::default(), 5);
    let id = scene.truth()[0].id.clone();
    let contact = scene.path(&format!("contacts/{id}"));
    let once = |contains: &str, fault| scene.simulator.set_faults(Faults::default().with_rule(contains, 1, fault));
    once("/contacts/", Fault::ItemChanges);
    let before = scene.client.get(&contact).1;
    let after = scene.client.get(&contact).1;
    assert_ne!(before["changeKey"], after["changeKey"]);
    assert_ne!(before["personalNotes"], after["personalNotes"]);
    once("/contactFolders/", Fault::FolderVanishes);
    let folder = text(&scene.all("contactFolders")[0], "id");
    assert_eq!(scene.get(&format!("contactFolders/{folder}/contacts")).0, 404);
    let link = scene.client.delta(&scene.path("contactFolders/contacts/contacts/delta"), &[]).1;
    once("/contacts/delta", Fault::DeltaExpired);
    assert_eq!(scene.client.get(&link).0, 410);
    assert_eq!(scene.client.get(&link).0, 410, "the link stays dead");
    // Whole answers with something else: now and then those of another contact.
    let mut others = 0;
    for seed in 0..20 {
        let faults = Faults { seed, ..Faults::default() }.with_rule("/contacts/", 1, Fault::OtherBody);
        scene.simulator.set_faults(faults);
        let (status, body) = scene.client.get_with(&contact, &[("prefer", IMMUTABLE)]);
        assert_eq!(status, 200);
        others += usize::from(body["id"].is_string() && body["id"] != id.as_str());
    }
    assert!(others > 0);
}

#[test]
fn the_control_api_changes_contacts() {
    let scene = Scene::new();
    let control = |rest: &str| format!("/control/users/{}/{rest}", scene.user);
    let folder = text(&scene.client.post(&control("contactFolders"), &json!({"name": "Friends"})).1, "id");
    let new =
        json!({"folder": folder, "fields": {"surname": "A", "title": "Dr."}, "photo": "AAEC", "categories": ["x"]});
    let id = text(&scene.client.post(&control("contacts"), &new).1, "id");
    let path = control(&format!("contacts/{id}"));
    let change = json!({"fields": {"title": null, "surname": "B"}, "photo": null, "folder": "contacts"});
    assert_eq!(scene.client.json(Method::PATCH, &path, &change).0, 204);
    let truth = scene.truth().remove(0);
    assert_eq!((truth.id.as_str(), truth.photo), (id.as_str(), None));
    assert_eq!(truth.properties["surname"], "B");
    assert_eq!((&truth.properties["title"], &truth.properties["categories"]), (&Value::Null, &json!(["x"])));
    let lines = scene.client.send(Method::GET, &control("truth"), &[], None).bytes;
    let expected: Vec<String> = scene.simulator.tenant().truth(&scene.user).expect("a mailbox").lines().collect();
    assert_eq!(String::from_utf8(lines).expect("text").lines().collect::<Vec<_>>(), expected);
    assert!(expected.last().expect("a line").starts_with("{\"contact\":"));
    assert_eq!(scene.client.send(Method::DELETE, &path, &[], None).status, 204);
    assert_eq!(scene.client.send(Method::DELETE, &path, &[], None).status, 404);
}

/// The import and export API sees folders and items of every class.
#[test]
fn an_exported_contact_can_be_imported() {
    let scene = Scene::new();
    let photo = NewContact { photo: Some(vec![1, 2, 3]), ..NewContact::with(json!({"surname": "Ä"})) };
    let id = scene.simulator.tenant().add_contact(&scene.user, "contacts", photo).expect("a contact");
    let mailbox = text(&scene.get("settings/exchange").1, "primaryMailboxId");
    let root = format!("/v1.0/admin/exchange/mailboxes/{mailbox}");
    let folder = scene.client.get(&format!("{root}/folders/contacts")).1;
    assert_eq!((folder["type"].as_str(), folder["totalItemCount"].as_u64()), (Some("IPF.Contact"), Some(1)));
    let items = scene.client.all(&format!("{root}/folders/contacts/items"), &[]);
    assert_eq!((items.len(), items[0]["type"].as_str()), (1, Some("IPM.Contact")));
    let exported = scene.client.post(&format!("{root}/exportItems"), &json!({"itemIds": [id]})).1;
    let session = scene.client.post(&format!("{root}/createImportSession"), &json!({})).1;
    let item = json!({"FolderId": folder["id"], "Mode": "create", "Data": exported["value"][0]["data"]});
    let (status, _) = scene.client.post(&text(&session, "importUrl"), &item);
    assert_eq!(status, 200);
    let contacts = scene.truth();
    assert_eq!(contacts.len(), 2);
    assert_ne!(contacts[0].id, contacts[1].id);
    assert_eq!((&contacts[0].photo, &contacts[0].folder), (&contacts[1].photo, &contacts[1].folder));
    assert_eq!(contacts[0].properties["displayName"], contacts[1].properties["displayName"]);
}

/// A client's copies of all folders, as their deltas have told it so far.
#[derive(Default)]
struct Copies {
    /// Contacts by folder and id, with their change keys.
    contacts: BTreeMap<String, BTreeMap<String, String>>,
    links: BTreeMap<String, String>,
}

impl Copies {
    fn follow(&mut self, client: &Client, user: &str, page: usize) {
        let page = format!("odata.maxpagesize={page}");
        let found: BTreeSet<String> = folders(client, user).into_iter().map(|(_, id)| id).collect();
        self.contacts.retain(|folder, _| found.contains(folder));
        self.links.retain(|folder, _| found.contains(folder));
        for folder in found {
            let first = format!("/v1.0/users/{user}/contactFolders/{folder}/contacts/delta?$select=changeKey");
            let (rows, link) = client.delta(self.links.get(&folder).unwrap_or(&first), &[&page, IMMUTABLE]);
            let copy = self.contacts.entry(folder.clone()).or_default();
            for row in rows {
                match row.get("@removed") {
                    Some(_) => drop(copy.remove(&text(&row, "id"))),
                    None => drop(copy.insert(text(&row, "id"), text(&row, "changeKey"))),
                }
            }
            self.links.insert(folder, link);
        }
    }
}

#[test]
fn deltas_reproduce_the_folders_after_a_storm() {
    let organisation = Organisation { users: 1, messages: 0, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let (client, tenant) = (Client::new(&simulator), simulator.tenant());
    let switches = any::<[bool; 3]>().prop_map(|[duplicates, removed, empty]| Switches {
        duplicate_rows: duplicates,
        removed_in_first_round: removed,
        empty_pages: empty,
        ..Switches::default()
    });
    let rounds = prop::collection::vec((prop::collection::vec(any::<u64>(), 1..25), 1..7_usize), 1..4);
    let mut runner = TestRunner::new(ProptestConfig { cases: 40, ..ProptestConfig::with_source_file(file!()) });
    let run = runner.run(&(rounds, switches), |(rounds, switches)| {
        simulator.set_switches(switches);
        let principal_name = tenant.all_users().len().to_string();
        let user = tenant.add_user(UserSpec { principal_name, ..UserSpec::default() });
        let mut copies = Copies::default();
        for (choices, page) in rounds {
            for choice in choices {
                tenant.change_contacts_at_random(&user, choice).expect("a change");
            }
            copies.follow(&client, &user, page);
            let mut truth: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
            for folder in tenant.true_contact_folders(&user).expect("a mailbox") {
                if !folder.hidden && folder.path.first().is_some_and(|name| name == "Contacts") {
                    truth.insert(folder.id, BTreeMap::new());
                }
            }
            for contact in tenant.true_contacts(&user).expect("a mailbox") {
                if let Some(folder) = truth.get_mut(&contact.folder) {
                    folder.insert(contact.id, text(&contact.properties, "changeKey"));
                }
            }
            prop_assert_eq!(&copies.contacts, &truth);
        }
        Ok(())
    });
    run.expect("the copies are the folders");
}
