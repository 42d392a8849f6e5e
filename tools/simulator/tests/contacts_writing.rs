//! What a restore of contacts does: folders, contacts and photos written over HTTP, and what the service makes of them.

mod client;

use client::{Client, IMMUTABLE};
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_simulator::faults::Rule;
use strongroom_simulator::{Fault, Faults, Options, Organisation, Simulator, Switches, TrueContact};

struct Scene {
    simulator: Simulator,
    client: Client,
    user: String,
}

impl Scene {
    fn new() -> Self {
        Self::with(Switches::default())
    }

    fn with(switches: Switches) -> Self {
        let organisation = Organisation { users: 1, messages: 0, contacts: 0, ..Organisation::default() };
        let options = Options { organisation, switches, ..Options::default() };
        let simulator = Simulator::start(options).expect("a simulator");
        let client = Client::new(&simulator);
        let user = simulator.tenant().users()[0].id.clone();
        Self { simulator, client, user }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1.0/users/{}/{}", self.user, rest.replace(' ', "%20"))
    }

    fn get(&self, rest: &str) -> Value {
        let (status, body) = self.client.get(&self.path(rest));
        assert_eq!(status, 200, "{rest}: {body}");
        body
    }

    fn post(&self, rest: &str, body: &Value) -> Value {
        let (status, answer) = self.client.post(&self.path(rest), body);
        assert_eq!(status, 201, "{rest}: {answer}");
        answer
    }

    fn patch(&self, rest: &str, body: &Value) -> Value {
        let (status, answer) = self.client.json(Method::PATCH, &self.path(rest), body);
        assert_eq!(status, 200, "{rest}: {answer}");
        answer
    }

    fn refused(&self, method: Method, rest: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.client.json(method, &self.path(rest), body);
        (status, answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error in {answer}")).to_owned())
    }

    fn put_photo(&self, contact: &str, kind: &str, photo: Vec<u8>) -> u16 {
        let path = self.path(&format!("contacts/{contact}/photo/$value"));
        self.client.send(Method::PUT, &path, &[("content-type", kind)], Some(photo)).status
    }

    fn delete(&self, rest: &str) -> u16 {
        self.client.send(Method::DELETE, &self.path(rest), &[], None).status
    }

    fn truth(&self) -> Vec<TrueContact> {
        self.simulator.tenant().true_contacts(&self.user).expect("a mailbox")
    }
}

fn id(body: &Value) -> String {
    body["id"].as_str().unwrap_or_else(|| panic!("no id in {body}")).to_owned()
}

#[test]
fn a_contact_is_stored_as_it_was_given() {
    let scene = Scene::new();
    let given = json!({
        "assistantName": "Ass", "birthday": "1976-02-29T11:59:00Z", "businessAddress": {"street": "1\r\n2", "city": "Köln"},
        "businessHomePage": "http://x", "businessPhones": ["1", "2"], "children": ["A", "B", "C"], "companyName": "Contoso",
        "department": "D", "displayName": "Shown", "emailAddresses": [
            {"name": "One", "address": "one@x.com"},
            {"name": "Two", "address": "/o=ExchangeLabs/ou=x/cn=Recipients/cn=two"},
            {"name": "Three, a name alone"},
        ],
        "fileAs": "Filed", "generation": "Jr.", "givenName": "Zoë", "homeAddress": {"postalCode": "1"},
        "homePhones": ["3"], "imAddresses": ["sip:x"], "initials": "Z", "jobTitle": "J", "manager": "M",
        "middleName": "Q", "mobilePhone": "4", "nickName": "N", "officeLocation": "O", "otherAddress": {"state": "S"},
        "personalNotes": "line\r\nline", "profession": "P", "spouseName": "S", "surname": "王", "title": "Dr.",
        "yomiCompanyName": "コ", "yomiGivenName": "ゾ", "yomiSurname": "オウ", "categories": ["Red"],
    });
    // Fields that the service sets are ignored.
    let mut sent = given.clone();
    for (name, value) in [
        ("id", json!("x")),
        ("changeKey", json!("y")),
        ("createdDateTime", json!("2001-01-01T00:00:00Z")),
        ("parentFolderId", json!("z")),
        ("secondaryEmailAddress", json!({"address": "other@x.com"})),
    ] {
        sent[name] = value;
    }
    let created = scene.post("contacts", &sent);
    let shown = scene.get(&format!("contacts/{}", id(&created)));
    for (name, value) in given.as_object().expect("an object") {
        assert_eq!(&shown[name], value, "{name}");
        assert_eq!(&created[name], value, "{name}");
    }
    assert_eq!(shown["primaryEmailAddress"]["address"], "one@x.com");
    assert_eq!(shown["secondaryEmailAddress"]["name"], "Two");
    assert_eq!(shown["tertiaryEmailAddress"], json!({"name": "Three, a name alone"}));
    assert_ne!(shown["createdDateTime"], "2001-01-01T00:00:00Z");
    assert_eq!(shown["parentFolderId"], scene.get("contactFolders/contacts")["id"]);
}

#[test]
fn what_is_missing_is_computed_and_a_birthday_is_a_day() {
    let scene = Scene::new();
    let contact =
        scene.post("contacts", &json!({"givenName": "Pavel", "surname": "Bansky", "birthday": "1980-05-06T00:00:00Z"}));
    assert_eq!(
        (contact["displayName"].as_str(), contact["fileAs"].as_str()),
        (Some("Pavel Bansky"), Some("Bansky, Pavel"))
    );
    assert_eq!(contact["birthday"], "1980-05-06T11:59:00Z");
    let path = format!("contacts/{}", id(&contact));
    scene.patch(&path, &json!({"fileAs": "Mine"}));
    assert_eq!(scene.patch(&path, &json!({"jobTitle": "x"}))["fileAs"], "Mine");
    assert_eq!(scene.patch(&path, &json!({"surname": "Novak"}))["fileAs"], "Novak, Pavel");
}

#[test]
fn what_the_service_cannot_hold_is_refused_and_nothing_is_made() {
    let scene = Scene::new();
    let email = |address: &str| json!({"emailAddresses": [{"name": "x", "address": address}]});
    for (body, code) in [
        (json!({"sirname": "x"}), "UnableToDeserializePostBody"),
        (json!({"gender": "x"}), "UnableToDeserializePostBody"),
        (json!({"displayName": ["x"]}), "UnableToDeserializePostBody"),
        (email(""), "ErrorInvalidRecipients"),
        (email("not an address"), "ErrorInvalidRecipients"),
        (json!({"businessPhones": ["1", "2", "3"]}), "ErrorInvalidProperty"),
    ] {
        assert_eq!(scene.refused(Method::POST, "contacts", &body), (400, code.to_owned()), "{body}");
    }
    let beta = scene.path("contacts").replace("v1.0", "beta");
    assert_eq!(scene.client.post(&beta, &json!({"surname": "x"})).0, 400);
    assert_eq!(scene.truth(), []);
    let contact = id(&scene.post("contacts", &json!({"surname": "x"})));
    let path = format!("contacts/{contact}");
    assert_eq!(scene.refused(Method::PATCH, &path, &email("no")), (400, "ErrorInvalidRecipients".to_owned()));
    let headers = [("if-match", "W/\"other\""), ("content-type", "application/json")];
    let body = Some(json!({"surname": "y"}).to_string().into_bytes());
    assert_eq!(scene.client.send(Method::PATCH, &scene.path(&path), &headers, body).status, 412);
    assert_eq!(scene.get(&path)["surname"], "x");
}

#[test]
fn a_change_touches_only_what_it_names() {
    let scene = Scene::new();
    let contact = scene.post(
        "contacts",
        &json!({
            "surname": "A", "homePhones": ["1"], "homeAddress": {"city": "X"}, "emailAddresses": [{"address": "a@b.c"}],
        }),
    );
    let path = format!("contacts/{}", id(&contact));
    let first = scene.path("contactFolders/contacts/contacts/delta");
    let (_, link) = scene.client.delta(&first, &[]);
    let change =
        json!({"homePhones": [], "homeAddress": null, "categories": ["x"], "emailAddresses": [{"address": "d@e.f"}]});
    let changed = scene.patch(&path, &change);
    assert_eq!(changed["surname"], "A");
    assert_eq!((&changed["homePhones"], &changed["homeAddress"]), (&json!([]), &json!({})));
    assert_eq!(changed["emailAddresses"], json!([{"name": "d@e.f", "address": "d@e.f"}]));
    assert_ne!(changed["changeKey"], contact["changeKey"]);
    let (rows, _) = scene.client.delta(&link, &[]);
    assert_eq!((rows.len(), &rows[0]["categories"]), (1, &json!(["x"])));
}

#[test]
fn a_marker_finds_a_contact_again() {
    let scene = Scene::new();
    let marked = |value: &str| {
        json!({"surname": value, "singleValueExtendedProperties": [
            {"id": "String {66F5A359-4659-4830-9070-00040EC6AC6E} Name Marker", "value": value},
            {"id": "String 0x3A24", "value": "fax"},
        ]})
    };
    let folder = id(&scene.post("contactFolders", &json!({"displayName": "Restored"})));
    let contacts = format!("contactFolders/{folder}/contacts");
    let one = id(&scene.post(&contacts, &marked("1")));
    scene.post(&contacts, &marked("2"));
    let marker = "String {66f5a359-4659-4830-9070-00040ec6ac6e} Name Marker";
    let filter = format!(
        "$filter=singleValueExtendedProperties/Any(ep: ep/id eq '{marker}' and ep/value eq '1')&$select=surname"
    );
    let found = scene.client.all(&scene.path(&format!("{contacts}?{filter}")), &[]);
    assert_eq!(found.iter().map(id).collect::<Vec<_>>(), [one.as_str()]);
    assert!(found[0].get("singleValueExtendedProperties").is_none(), "{}", found[0]);
    let expand = "$expand=singleValueExtendedProperties($filter=id eq 'String 0x3a24' or id eq 'String 0x001A')";
    let expected = json!([{"id": "String 0x3a24", "value": "fax"}, {"id": "String 0x001A", "value": "IPM.Contact"}]);
    for rest in [format!("contacts/{one}?{expand}"), format!("contacts/{one}?$select=surname&{expand}")] {
        assert_eq!(scene.get(&rest)["singleValueExtendedProperties"], expected, "{rest}");
    }
    let listed = scene.client.all(&scene.path(&format!("{contacts}?$select=id&{expand}")), &[]);
    assert_eq!(listed[1]["singleValueExtendedProperties"], expected);
    let (rows, _) = scene.client.delta(&scene.path(&format!("{contacts}/delta?$select=id&{expand}")), &[]);
    assert_eq!(rows[0]["singleValueExtendedProperties"], expected);
    assert!(scene.get(&format!("contacts/{one}")).get("singleValueExtendedProperties").is_none());
}

#[test]
fn photos_are_put_as_jpeg_up_to_four_megabytes() {
    let scene = Scene::new();
    let contact = id(&scene.post("contacts", &json!({"surname": "A"})));
    let photo = vec![0xff, 0xd8, 0xff, 0xe0, 1, 2, 3];
    assert_eq!(scene.put_photo(&contact, "text/plain", photo.clone()), 400);
    assert_eq!(scene.put_photo(&contact, "image/jpeg", Vec::new()), 400);
    assert_eq!(scene.put_photo(&contact, "image/jpeg", vec![7; (4 << 20) + 1]), 413);
    assert_eq!(scene.truth()[0].photo, None);
    assert_eq!(scene.put_photo(&contact, "image/jpeg", photo.clone()), 200);
    assert_eq!(scene.truth()[0].photo, Some(photo.clone()));
    assert_eq!(scene.client.bytes(&scene.path(&format!("contacts/{contact}/photo/$value")), &[]), photo);
    let folder = id(&scene.post("contactFolders", &json!({"displayName": "Other"})));
    let elsewhere = format!("contactFolders/{folder}/contacts/{contact}/photo/$value");
    assert_eq!(scene.client.get(&scene.path(&elsewhere)).0, 404);
}

#[test]
fn folders_are_created_once_and_keep_their_id() {
    let scene = Scene::new();
    let folder = id(&scene.post("contactFolders", &json!({"displayName": "Größe/Maß"})));
    let default = id(&scene.get("contactFolders/contacts"));
    assert_eq!(scene.get(&format!("contactFolders/{folder}"))["parentFolderId"], default.as_str());
    let taken = (409, "ErrorFolderExists".to_owned());
    assert_eq!(scene.refused(Method::POST, "contactFolders", &json!({"displayName": "größe/maß"})), taken);
    let by_name = "contactFolders/contacts/childFolders";
    assert_eq!(scene.refused(Method::POST, by_name, &json!({"displayName": "Größe/Maß"})), taken);
    let inner = id(&scene.post(&format!("contactFolders/{folder}/childFolders"), &json!({"displayName": "Inner"})));
    for body in [json!({}), json!({"displayName": ""}), json!({"displayName": "x", "isHidden": true})] {
        assert_eq!(scene.refused(Method::POST, "contactFolders", &body).0, 400, "{body}");
    }
    let renamed = scene.patch(&format!("contactFolders/{inner}"), &json!({"displayName": "Renamed"}));
    assert_eq!((id(&renamed), renamed["displayName"].as_str()), (inner.clone(), Some("Renamed")));
    assert_eq!(scene.refused(Method::PATCH, "contactFolders/contacts", &json!({"displayName": "x"})).0, 400);
    assert_eq!(scene.delete("contactFolders/contacts"), 400);

    // Deleted, a folder lies in the mail with its contacts; deleted once more, it is gone.
    let contact = id(&scene.post(&format!("contactFolders/{inner}/contacts"), &json!({"surname": "A"})));
    assert_eq!(scene.delete(&format!("contactFolders/{folder}")), 204);
    assert!(scene.client.all(&scene.path("contactFolders"), &[]).is_empty());
    let deleted = id(&scene.get("mailFolders/deleteditems"));
    assert_eq!(scene.get(&format!("contactFolders/{folder}"))["parentFolderId"], deleted.as_str());
    assert!(scene.client.all(&scene.path("mailFolders/deleteditems/childFolders"), &[]).is_empty());
    assert_eq!(scene.get(&format!("contacts/{contact}"))["surname"], "A");
    assert_eq!(scene.delete(&format!("contactFolders/{folder}")), 204);
    assert_eq!(scene.client.get(&scene.path(&format!("contacts/{contact}"))).0, 404);
}

#[test]
fn deleted_contacts_go_step_by_step() {
    let scene = Scene::new();
    let contact = id(&scene
        .client
        .get_with(
            &scene.path(&format!("contacts/{}", id(&scene.post("contacts", &json!({"surname": "A"}))))),
            &[("prefer", IMMUTABLE)],
        )
        .1);
    let path = format!("contacts/{contact}");
    for expected in ["deleteditems", "recoverableitemsdeletions"] {
        assert_eq!(scene.delete(&path), 204);
        assert_eq!(scene.get(&path)["parentFolderId"], scene.get(&format!("mailFolders/{expected}"))["id"]);
    }
    assert_eq!(scene.delete(&path), 403);
    assert_eq!(scene.client.post(&scene.path(&format!("{path}/permanentDelete")), &json!({})).0, 204);
    assert!(scene.client.all(&scene.path("contacts"), &[]).is_empty());
}

#[test]
fn a_new_contact_takes_no_photo_at_first_when_told() {
    let scene = Scene::with(Switches { new_messages_lag: true, ..Switches::default() });
    let contact = id(&scene.post("contacts", &json!({"surname": "A"})));
    assert_eq!(scene.put_photo(&contact, "image/jpeg", vec![0xff, 0xd8]), 404);
    assert_eq!(scene.put_photo(&contact, "image/jpeg", vec![0xff, 0xd8]), 200);
}

#[test]
fn answers_get_lost_and_what_is_written_is_falsified() {
    let scene = Scene::new();
    let fault = |method: &str, contains: &str, fault| {
        let rule = Rule { method: Some(method.into()), contains: contains.into(), skip: 0, times: Some(1), fault };
        scene.simulator.set_faults(Faults { rules: vec![rule], late_ms: 1, ..Faults::default() });
    };
    fault("POST", "/contacts", Fault::LostAnswerTimeout);
    let new = json!({"surname": "A", "personalNotes": "1234"});
    assert_eq!(scene.client.post(&scene.path("contacts"), &new).0, 504);
    assert_eq!(scene.truth().len(), 1, "the work was done");
    fault("POST", "/contacts", Fault::CutsText);
    let cut = scene.post("contacts", &new);
    assert_eq!(cut["personalNotes"], "12");
    fault("PUT", "/photo", Fault::ChangesBytes);
    assert_eq!(scene.put_photo(&id(&cut), "image/jpeg", vec![0xff, 0xd8, 4]), 200);
    assert_eq!(scene.client.bytes(&scene.path(&format!("contacts/{}/photo/$value", id(&cut))), &[]), [0xff, 0xd8, 5]);
    fault("POST", "/contacts", Fault::LateWork);
    assert_eq!(scene.client.post(&scene.path("contacts"), &new).0, 504);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while scene.truth().len() < 3 {
        assert!(std::time::Instant::now() < deadline, "the late work never came");
        std::thread::yield_now();
    }
}
