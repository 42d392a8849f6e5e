//! The directory and its people, the control API, and mailboxes that hurt or are large.

mod client;

use std::collections::BTreeMap;

use client::{Client, IMMUTABLE};
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_simulator::{Kind, Locale, Options, Organisation, Simulator, Switches, UserSpec};

fn start(organisation: Organisation) -> (Simulator, Client) {
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let client = Client::new(&simulator);
    (simulator, client)
}

fn small() -> Organisation {
    Organisation { users: 1, messages: 3, ..Organisation::default() }
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[test]
fn everybody_is_listed_and_answers_for_the_mailbox() {
    let (simulator, client) = start(Organisation { every_kind: true, ..small() });
    let listed = client.all("/v1.0/users?$select=id,userPrincipalName,userType,accountEnabled&$top=4", &[]);
    assert_eq!(listed.len(), simulator.tenant().users().len());
    let mut seen = BTreeMap::new();
    for user in simulator.tenant().users() {
        // Names with apostrophes, hashes and letters beyond ASCII reach the same user as the id.
        let by_name = client.get(&format!("/v1.0/users/{}", encoded(&user.principal_name()))).1;
        assert_eq!(by_name["id"], user.id.as_str(), "{}", user.principal_name());
        let (status, body) = client.get(&format!("/v1.0/users/{}/mailFolders/inbox", user.id));
        seen.insert(
            format!("{:?}", user.kind),
            (status, body["error"]["code"].as_str().unwrap_or_default().to_owned()),
        );
    }
    let code = |kind: Kind| seen[&format!("{kind:?}")].clone();
    for kind in [Kind::Licensed, Kind::Shared, Kind::Room, Kind::Equipment, Kind::NullType, Kind::OverQuota] {
        assert_eq!(code(kind).0, 200, "{kind:?}");
    }
    assert_eq!(code(Kind::OutsidePolicy), (403, "ErrorAccessDenied".to_owned()));
    assert_eq!(code(Kind::OnPremises), (404, "MailboxNotEnabledForRESTAPI".to_owned()));
    let unlicensed = simulator.tenant().users().into_iter().find(|user| user.kind == Kind::Unlicensed).expect("one");
    let mut codes = [(); 2].map(|()| {
        client.get(&format!("/v1.0/users/{}/mailFolders/inbox", unlicensed.id)).1["error"]["code"]
            .as_str()
            .map(str::to_owned)
    });
    codes.sort();
    assert_eq!(codes, [Some("MailboxNotEnabledForRESTAPI".to_owned()), Some("ResourceNotFound".to_owned())]);
    let full = simulator.tenant().users().into_iter().find(|user| user.kind == Kind::OverQuota).expect("one");
    let delta = client.get(&format!("/v1.0/users/{}/mailFolders/inbox/messages/delta", full.id));
    assert_eq!((delta.0, delta.1["error"]["code"].as_str()), (403, Some("ErrorQuotaExceeded")));
    let deleted = client.all("/v1.0/directory/deletedItems/microsoft.graph.user", &[]);
    assert_eq!(deleted.len(), 1);
}

#[test]
fn collections_refuse_what_they_cannot_do() {
    let (_simulator, client) = start(Organisation { every_kind: true, ..small() });
    assert_eq!(client.get("/v1.0/users?$select=id,mailboxSettings").0, 501);
    assert_eq!(client.get("/v1.0/users?$skip=1").0, 400);
    let filter = "/v1.0/users?$select=id,userType&$filter=userType%20ne%20'Guest'";
    assert_eq!(client.get(filter).0, 400);
    let path = format!("{filter}&$count=true");
    let (status, page) = client.get_with(&path, &[("consistencylevel", "eventual")]);
    assert_eq!(status, 200);
    let types: Vec<&Value> = page["value"].as_array().expect("rows").iter().map(|row| &row["userType"]).collect();
    assert!(types.contains(&&Value::Null) && !types.contains(&&json!("Guest")));
    assert_eq!(page["@odata.count"].as_u64(), Some(types.len() as u64));
    assert!(client.get("/v1.0/users").1["value"][0].get("accountEnabled").is_none());
}

#[test]
fn folders_have_names_in_the_language_of_the_mailbox() {
    let (simulator, client) = start(small());
    for (locale, inbox) in [
        (Locale::English, "Inbox"),
        (Locale::German, "Posteingang"),
        (Locale::French, "Boîte de réception"),
        (Locale::ChineseTraditional, "收件匣"),
        (Locale::ChineseSimplified, "收件箱"),
        (Locale::Japanese, "受信トレイ"),
    ] {
        let spec = UserSpec { principal_name: format!("user.{}", locale.tag()), locale, ..UserSpec::default() };
        let user = simulator.tenant().add_user(spec);
        assert_eq!(client.get(&format!("/v1.0/users/{user}/mailFolders/inbox")).1["displayName"], inbox);
        let settings = client.get(&format!("/v1.0/users/{user}/mailboxSettings")).1;
        assert_eq!(settings["language"]["locale"], locale.tag());
    }
}

#[test]
fn the_purpose_of_a_mailbox_comes_in_two_shapes() {
    let (simulator, client) = start(small());
    let path = format!("/v1.0/users/{}/mailboxSettings", simulator.tenant().users()[0].id);
    assert_eq!(client.get(&path).1["userPurpose"], "user");
    assert_eq!(client.get(&format!("{path}/userPurpose")).1["value"], "user");
    simulator.set_switches(Switches { user_purpose_is_object: true, ..Switches::default() });
    assert_eq!(client.get(&path).1["userPurpose"], json!({"value": "user"}));
    assert_eq!(client.get(&format!("{path}/userPurpose")).1["value"], "user");
}

#[test]
fn the_directory_has_a_delta() {
    let (simulator, client) = start(small());
    let (rows, link) = client.delta("/v1.0/users/delta?$select=userPrincipalName", &[]);
    assert_eq!(rows.len(), 1);
    let (rows, link) = client.delta(&link, &[]);
    assert_eq!(rows.len(), 0);
    let user = simulator.tenant().users()[0].id.clone();
    simulator.tenant().rename_user(&user, "new@contoso.com", "New").expect("renamed");
    let (rows, link) = client.delta(&link, &[]);
    assert_eq!(rows, [json!({"id": user, "userPrincipalName": "new@contoso.com"})]);
    simulator.tenant().remove_user(&user).expect("removed");
    assert_eq!(client.delta(&link, &[]).0[0]["@removed"]["reason"], "changed");
    assert_eq!(client.get("/v1.0/users/new@contoso.com").0, 404);
}

#[test]
fn the_control_api_does_what_the_library_does() {
    let (simulator, client) = start(small());
    let user = client.post("/control/users", &json!({"principalName": "eva", "kind": "shared", "locale": "de-DE"})).1;
    let user = user["id"].as_str().expect("an id").to_owned();
    let folder = client.post(&format!("/control/users/{user}/folders"), &json!({"name": "a/b"})).1;
    let folder = folder["id"].as_str().expect("an id").to_owned();
    let message = json!({"folder": folder, "mime": "U3ViamVjdDogYQ0KDQo=", "received": "2020-01-02T03:04:05Z", "flag": "flagged"});
    let message = client.post(&format!("/control/users/{user}/messages"), &message).1;
    let message = message["id"].as_str().expect("an id").to_owned();
    let path = format!("/control/users/{user}/messages/{message}");
    let change = |body: &Value| client.json(Method::PATCH, &path, body).0;
    assert_eq!(
        change(&json!({"read": true, "categories": ["x"], "unreadable": "corruptData", "folder": "inbox"})),
        204
    );
    assert_eq!(client.get(&format!("/v1.0/users/{user}/messages/{message}/$value")).0, 500);
    assert_eq!(change(&json!({"unreadable": null, "mime": "U3ViamVjdDogYg0KDQo="})), 204);
    assert_eq!(client.bytes(&format!("/v1.0/users/{user}/messages/{message}/$value"), &[]), b"Subject: b\r\n\r\n");

    let lines = client.send(Method::GET, &format!("/control/users/{user}/truth"), &[], None).bytes;
    let truth: Vec<String> = simulator.tenant().truth(&user).expect("a mailbox").lines().collect();
    assert_eq!(String::from_utf8(lines).expect("text").lines().collect::<Vec<_>>(), truth);
    let last: Value = serde_json::from_str(truth.last().expect("a line")).expect("JSON");
    assert_eq!(last["message"]["properties"]["receivedDateTime"], "2020-01-02T03:04:05Z");
    assert_eq!(client.get("/control/counters").1["byOperation"]["GetMessageValue"], 2);
    assert_eq!(client.json(Method::PUT, "/control/switches", &json!({"unstableMime": true})).0, 204);
    assert!(simulator.tenant().switches().unstable_mime);
    assert_eq!(client.send(Method::DELETE, &path, &[], None).status, 204);
    assert_eq!(client.send(Method::DELETE, &path, &[], None).status, 404);
}

#[test]
fn what_hurts_is_served_byte_for_byte() {
    let (simulator, client) = start(Organisation { hurting: true, ..small() });
    let user = simulator.tenant().user("hurt@contoso.com").expect("the user that hurts").id.clone();
    let truth = simulator.tenant().truth(&user).expect("a mailbox");
    let names: Vec<&str> = truth.folders.iter().filter_map(|folder| folder.path.last()).map(String::as_str).collect();
    assert!(["a/b", "..", "README", "readme", "\u{1}control\u{1f}"].iter().all(|name| names.contains(name)));
    let mut found = 0;
    for folder in client.folders(&user) {
        let rows = client.all(&format!("/v1.0/users/{user}/mailFolders/{folder}/messages?$top=50"), &[IMMUTABLE]);
        for row in rows {
            let id = row["id"].as_str().expect("an id");
            let expected = truth.messages.iter().find(|message| message.id == id).expect("a true message");
            let value = client.bytes(&format!("/v1.0/users/{user}/messages/{id}/$value"), &[IMMUTABLE]);
            assert!(value == expected.mime, "{:?}", String::from_utf8_lossy(&value[..value.len().min(200)]));
            found += 1;
        }
    }
    assert_eq!(found, truth.messages.len());
}

#[test]
fn a_corpus_is_shared_out_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let mails: Vec<(String, Vec<u8>)> = (0..7)
        .map(|number| (format!("{number}.eml"), format!("Subject: {number}\n\nbare line feeds {number}").into_bytes()))
        .collect();
    for (name, mail) in &mails {
        std::fs::write(dir.path().join(name), mail).expect("written");
    }
    let (simulator, _) = start(Organisation { users: 2, corpus: Some(dir.path().to_owned()), ..small() });
    let tenant = simulator.tenant();
    let users = tenant.users();
    let mut found: Vec<Vec<u8>> = users
        .iter()
        .flat_map(|user| tenant.truth(&user.id).expect("a mailbox").messages)
        .map(|message| message.mime)
        .collect();
    found.sort();
    assert_eq!(found, mails.into_iter().map(|(_, mail)| mail).collect::<Vec<_>>());
}

#[test]
fn the_same_seed_gives_the_same_tenant() {
    let truth = || {
        let (simulator, _) = start(Organisation { messages: 40, ..small() });
        let user = simulator.tenant().users()[0].principal_name();
        simulator.tenant().truth(&user).expect("a mailbox").lines().collect::<Vec<_>>()
    };
    assert_eq!(truth(), truth());
}

#[test]
fn unstable_mime_differs_and_says_the_same() {
    let (simulator, client) = start(Organisation { messages: 10, ..small() });
    simulator.set_switches(Switches { unstable_mime: true, ..Switches::default() });
    let user = simulator.tenant().users()[0].id.clone();
    let row = &client.all(&format!("/v1.0/users/{user}/messages?$select=id"), &[])[0];
    let path = format!("/v1.0/users/{user}/messages/{}/$value", row["id"].as_str().expect("an id"));
    let (one, two) = (client.bytes(&path, &[]), client.bytes(&path, &[]));
    assert_ne!(one, two);
    let said = |mime: &[u8]| strongroom_simulator::mime::parse(mime).body;
    assert_eq!(said(&one), said(&two));
}

#[test]
fn a_million_messages_are_there_at_once() {
    let (simulator, client) = start(Organisation { messages: 1_000_000, ..small() });
    let user = simulator.tenant().users()[0].id.clone();
    assert_eq!(client.get(&format!("/v1.0/users/{user}/messages/$count")).1, 1_000_000);
    let path = format!("/v1.0/users/{user}/mailFolders/inbox/messages/delta?$select=id");
    let (status, page) = client.get_with(&path, &[("prefer", "odata.maxpagesize=500")]);
    assert_eq!((status, page["value"].as_array().map(Vec::len)), (200, Some(500)));
    let resident = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: u64 = resident.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    assert!(pages * 4096 < (300 << 20), "{pages} pages");
}
