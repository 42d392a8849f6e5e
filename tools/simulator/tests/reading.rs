//! What a client sees that signs in and reads: over real HTTP.

mod client;

use std::collections::{BTreeMap, BTreeSet};

use client::{Client, IMMUTABLE};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use strongroom_simulator::{NewMessage, Options, Organisation, Simulator, Switches, UserSpec};

fn start(users: usize, messages: usize) -> Simulator {
    start_with(users, messages, Switches::default())
}

fn start_with(users: usize, messages: usize, switches: Switches) -> Simulator {
    let organisation = Organisation { users, messages, ..Organisation::default() };
    Simulator::start(Options { organisation, switches, ..Options::default() }).expect("a simulator")
}

fn mail(subject: &str) -> NewMessage {
    let mime = format!("From: a@contoso.com\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\n{subject}\r\n");
    NewMessage { mime: mime.into_bytes(), ..NewMessage::default() }
}

#[test]
fn what_is_read_is_the_truth() {
    let simulator = start(2, 60);
    let client = Client::new(&simulator);
    for user in client.all("/v1.0/users?$select=id&$top=1", &[]) {
        let user = user["id"].as_str().expect("an id");
        let truth = simulator.tenant().truth(user).expect("a mailbox");
        let mut found = BTreeMap::new();
        // What can be recovered lies in a tree of its own, which only its name opens.
        let recoverable = client.get(&format!("/v1.0/users/{user}/mailFolders/recoverableitemsdeletions")).1;
        let recoverable = recoverable["id"].as_str().expect("an id").to_owned();
        for folder in client.folders(user).into_iter().chain([recoverable]) {
            let path = format!("/v1.0/users/{user}/mailFolders/{folder}/messages?$select=id,subject,changeKey&$top=7");
            for message in client.all(&path, &[IMMUTABLE]) {
                let id = message["id"].as_str().expect("an id").to_owned();
                let mime = client.bytes(&format!("/v1.0/users/{user}/messages/{id}/$value"), &[IMMUTABLE]);
                found.insert(id, (folder.clone(), mime, message));
            }
        }
        assert_eq!(found.len(), truth.messages.len());
        for message in truth.messages {
            let (folder, mime, json) = &found[&message.id];
            assert_eq!((folder, mime), (&message.folder, &message.mime));
            assert_eq!(json["changeKey"], message.properties["changeKey"]);
            assert_eq!(json["subject"], message.properties["subject"]);
        }
    }
    assert_eq!(simulator.counters().mails_sent, 0);
}

#[test]
fn without_a_token_nothing_is_shown() {
    let simulator = start(1, 1);
    let client = Client::new(&simulator);
    let (status, body) = client.get_with("/v1.0/users", &[("authorization", "Bearer nonsense")]);
    assert_eq!((status, body["error"]["code"].as_str()), (401, Some("InvalidAuthenticationToken")));
    assert!(body["error"]["innerError"]["request-id"].is_string());
    simulator.expire_tokens();
    assert_eq!(client.get("/v1.0/users").0, 401);
}

#[test]
fn a_move_changes_the_default_id_only() {
    let simulator = start(1, 0);
    let client = Client::new(&simulator);
    let tenant = simulator.tenant();
    let user = tenant.users()[0].id.clone();
    let immutable = tenant.add_message(&user, "inbox", mail("one")).expect("a message");
    let before = client.get(&format!("/v1.0/users/{user}/messages/{immutable}")).1;
    let before = before["id"].as_str().expect("an id").to_owned();
    assert_eq!((immutable.len(), before.len()), (72, 152));
    tenant.move_message(&user, &immutable, "archive").expect("a move");
    tenant.move_message(&user, &immutable, "inbox").expect("a move back");
    let (status, body) = client.get(&format!("/v1.0/users/{user}/messages/{before}"));
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("ErrorItemNotFound")));
    let (status, body) = client.get(&format!("/v1.0/users/{user}/messages/{immutable}"));
    assert_eq!(status, 200);
    assert_ne!(body["id"], before.as_str());
}

#[test]
fn folders_are_shallow_in_v1_and_flat_in_beta() {
    let simulator = start(1, 0);
    let client = Client::new(&simulator);
    let user = simulator.tenant().users()[0].id.clone();
    let names = |path: &str| -> BTreeSet<String> {
        let rows = client.all(&format!("/{path}"), &[]);
        rows.iter().map(|row| row["displayName"].as_str().expect("a name").to_owned()).collect()
    };
    let shallow = names(&format!("v1.0/users/{user}/mailFolders"));
    let flat = names(&format!("beta/users/{user}/mailFolders"));
    let hidden = names(&format!("v1.0/users/{user}/mailFolders?includeHiddenFolders=true&$top=100"));
    assert!(shallow.contains("Inbox") && !shallow.contains("Falcon") && flat.contains("Falcon"));
    assert!(!shallow.contains("PersonMetadata") && hidden.contains("PersonMetadata"));
    assert_eq!(client.get(&format!("/v1.0/users/{user}/mailFolders/clutter")).0, 404);
    let (status, body) = client.get(&format!("/v1.0/users/{user}/mailFolders/recoverableitemsdeletions"));
    assert_eq!((status, body["displayName"].as_str()), (200, Some("Deletions")));
}

#[test]
fn extended_properties_come_with_expand_only() {
    let simulator = start(1, 0);
    let client = Client::new(&simulator);
    let tenant = simulator.tenant();
    let user = tenant.users()[0].id.clone();
    let id = tenant.add_message(&user, "inbox", mail("one")).expect("a message");
    let size = tenant.truth(&user).expect("a mailbox").messages[0].mime.len().to_string();
    let expand = "$expand=singleValueExtendedProperties($filter=id eq 'Integer 0x0E08' or id eq 'String 0x001A')";
    let path = format!("/v1.0/users/{user}/messages/{id}?$select=subject&{}", expand.replace(' ', "%20"));
    let body = client.get(&path).1;
    let expected =
        serde_json::json!([{"id": "Integer 0x0E08", "value": size}, {"id": "String 0x001A", "value": "IPM.Note"}]);
    assert_eq!(body["singleValueExtendedProperties"], expected);
    assert!(body.get("body").is_none());
}

#[test]
fn what_is_no_property_cannot_be_selected() {
    let simulator = start(1, 1);
    let client = Client::new(&simulator);
    let user = simulator.tenant().users()[0].id.clone();
    for (path, status) in [
        ("v1.0/users/{u}/messages?$select=id,size", 400),
        ("v1.0/users/{u}/mailFolders/inbox/messages/delta?$select=itemClass", 400),
        ("v1.0/users/{u}/mailFolders?$select=wellKnownName", 400),
        ("beta/users/{u}/mailFolders?$select=wellKnownName", 200),
        ("v1.0/users/{u}/messages?$search=%22x%22", 501),
    ] {
        assert_eq!(client.get(&format!("/{}", path.replace("{u}", &user))).0, status, "{path}");
    }
}

#[test]
fn bodies_are_sanitised_unless_asked_not_to() {
    let simulator = start(1, 0);
    let client = Client::new(&simulator);
    let tenant = simulator.tenant();
    let user = tenant.users()[0].id.clone();
    let mime = b"Content-Type: text/html\r\n\r\n<p>Hi</p><script>alert(1)</script>".to_vec();
    let id = tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("a message");
    let body = |prefer: &str| {
        let (_, body) = client.get_with(&format!("/v1.0/users/{user}/messages/{id}"), &[("prefer", prefer)]);
        (body["body"]["contentType"].as_str().map(str::to_owned), body["body"]["content"].as_str().map(str::to_owned))
    };
    let html = |text: &str| (Some("html".to_owned()), Some(text.to_owned()));
    assert_eq!(body("x"), html("<p>Hi</p>"));
    assert_eq!(body("outlook.allow-unsafe-html"), html("<p>Hi</p><script>alert(1)</script>"));
    let (kind, text) = body("outlook.body-content-type=\"text\"");
    assert_eq!((kind.as_deref(), text.as_deref().map(str::trim)), (Some("text"), Some("Hi")));
}

#[test]
fn headers_are_not_shown_in_sent_items() {
    let simulator = start(1, 0);
    let client = Client::new(&simulator);
    let tenant = simulator.tenant();
    let user = tenant.users()[0].id.clone();
    let id = tenant.add_message(&user, "inbox", mail("one")).expect("a message");
    let path = format!("/v1.0/users/{user}/messages/{id}?$select=internetMessageHeaders");
    assert_eq!(client.get(&path).1["internetMessageHeaders"][1]["name"], "Subject");
    tenant.move_message(&user, &id, "sentitems").expect("moved");
    assert!(client.get(&path).1.get("internetMessageHeaders").is_none());
}

#[test]
fn a_search_folder_shows_what_lives_elsewhere() {
    let simulator = start(1, 0);
    let client = Client::new(&simulator);
    let tenant = simulator.tenant();
    let user = tenant.users()[0].id.clone();
    for subject in ["RE: one", "two"] {
        tenant.add_message(&user, "inbox", mail(subject)).expect("a message");
    }
    let listed = client.all(&format!("/v1.0/users/{user}/mailFolders?$top=50"), &[]);
    let search = listed.iter().find(|row| row["@odata.type"] == "#microsoft.graph.mailSearchFolder").expect("one");
    let id = search["id"].as_str().expect("an id");
    let found = client.all(&format!("/v1.0/users/{user}/mailFolders/{id}/messages?$select=subject"), &[]);
    assert_eq!(found.iter().map(|row| row["subject"].as_str()).collect::<Vec<_>>(), [Some("RE: one")]);
}

#[test]
fn an_expired_delta_is_gone() {
    let simulator = start(1, 30);
    let client = Client::new(&simulator);
    let user = simulator.tenant().users()[0].id.clone();
    let (rows, link) = client.delta(&format!("/v1.0/users/{user}/mailFolders/inbox/messages/delta?$select=id"), &[]);
    assert!(!rows.is_empty());
    simulator.expire_deltas();
    let (status, body) = client.get(&link);
    assert_eq!((status, body["error"]["code"].as_str()), (410, Some("SyncStateNotFound")));
}

#[test]
fn a_link_to_the_next_page_dies_when_told() {
    let simulator = start_with(1, 80, Switches { next_links_live: Some(3), ..Switches::default() });
    let client = Client::new(&simulator);
    let user = simulator.tenant().users()[0].id.clone();
    let path = format!("/v1.0/users/{user}/mailFolders/inbox/messages/delta?$select=id");
    let next = client.get(&path).1["@odata.nextLink"].as_str().expect("a second page").to_owned();
    assert_eq!(client.get(&next).0, 200);
    for _ in 0..3 {
        client.get(&path);
    }
    assert_eq!(client.get(&next).0, 410);
}

#[test]
fn top_caps_a_whole_delta() {
    let simulator = start(1, 80);
    let client = Client::new(&simulator);
    let user = simulator.tenant().users()[0].id.clone();
    let path = format!("/v1.0/users/{user}/mailFolders/inbox/messages/delta?$select=id&$top=12");
    assert_eq!(client.delta(&path, &["odata.maxpagesize=5"]).0.len(), 12);
}

#[derive(Clone, Debug)]
enum Op {
    Add { folder: usize },
    Read { pick: usize, read: bool },
    Change { pick: usize },
    Move { pick: usize, folder: usize },
    Delete { pick: usize },
    Follow { folder: usize, page: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3_usize).prop_map(|folder| Op::Add { folder }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, read)| Op::Read { pick, read }),
        1 => any::<usize>().prop_map(|pick| Op::Change { pick }),
        3 => (any::<usize>(), 0..3_usize).prop_map(|(pick, folder)| Op::Move { pick, folder }),
        2 => any::<usize>().prop_map(|pick| Op::Delete { pick }),
        3 => (0..3_usize, 1..6_usize).prop_map(|(folder, page)| Op::Follow { folder, page }),
    ]
}

/// A client's copy of a folder, as its delta has told it so far.
#[derive(Default)]
struct Copy {
    messages: BTreeMap<String, String>,
    link: Option<String>,
}

impl Copy {
    fn follow(&mut self, client: &Client, first: &str, prefer: &[&str]) {
        let (rows, link) = client.delta(self.link.as_deref().unwrap_or(first), prefer);
        for row in rows {
            let id = row["id"].as_str().expect("an id").to_owned();
            match row.get("@removed") {
                Some(_) => drop(self.messages.remove(&id)),
                None => drop(self.messages.insert(id, row["changeKey"].as_str().expect("a key").to_owned())),
            }
        }
        self.link = Some(link);
    }
}

/// Applies random changes and follows the deltas of three folders in between; in the end the copies are the folders.
fn deltas_reproduce_the_folders(simulator: &Simulator, client: &Client, ops: &[Op], immutable: bool) {
    let tenant = simulator.tenant();
    // Somebody new for each case: a mailbox without a past.
    let user = tenant.add_user(UserSpec { principal_name: tenant.users().len().to_string(), ..UserSpec::default() });
    let folders = ["inbox", "archive", "drafts"];
    let mut copies: [Copy; 3] = Default::default();
    let first = |folder: &str| format!("/v1.0/users/{user}/mailFolders/{folder}/messages/delta?$select=changeKey");
    let mut ids: Vec<String> = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        match *op {
            Op::Add { folder } => {
                ids.push(tenant.add_message(&user, folders[folder], mail(&number.to_string())).expect("added"));
            }
            Op::Follow { folder, page } => {
                let page = format!("odata.maxpagesize={page}");
                let prefer = if immutable { vec![page.as_str(), IMMUTABLE] } else { vec![page.as_str()] };
                copies[folder].follow(client, &first(folders[folder]), &prefer);
            }
            _ if ids.is_empty() => {}
            Op::Read { pick, read } => tenant.set_read(&user, &ids[pick % ids.len()], read).expect("read"),
            Op::Change { pick } => {
                tenant.change_message(&user, &ids[pick % ids.len()], mail("changed").mime).expect("changed");
            }
            Op::Move { pick, folder } => {
                tenant.move_message(&user, &ids[pick % ids.len()], folders[folder]).expect("moved");
            }
            Op::Delete { pick } => {
                tenant.delete_message(&user, &ids.swap_remove(pick % ids.len())).expect("deleted");
            }
        }
    }
    for (folder, copy) in folders.iter().zip(&mut copies) {
        let prefer: &[&str] = if immutable { &[IMMUTABLE] } else { &[] };
        copy.follow(client, &first(folder), prefer);
        let listed = client.all(&format!("/v1.0/users/{user}/mailFolders/{folder}/messages?$select=changeKey"), prefer);
        let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
        let listed: BTreeMap<String, String> =
            listed.iter().map(|row| (text(row, "id"), text(row, "changeKey"))).collect();
        assert_eq!(copy.messages, listed, "{folder}");
    }
}

fn for_random_changes(switches: Switches, immutable: bool) {
    let simulator = start_with(1, 0, switches);
    let client = Client::new(&simulator);
    let mut runner = TestRunner::new(ProptestConfig { cases: 100, ..ProptestConfig::with_source_file(file!()) });
    let ops = prop::collection::vec(op(), 1..60);
    let run = runner.run(&ops, |ops| {
        deltas_reproduce_the_folders(&simulator, &client, &ops, immutable);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn following_deltas_reproduces_the_folders() {
    for_random_changes(Switches::default(), true);
}

#[test]
fn following_deltas_reproduces_the_folders_under_default_ids() {
    for_random_changes(Switches::default(), false);
}

#[test]
fn so_does_following_a_service_that_repeats_itself() {
    let switches =
        Switches { duplicate_rows: true, removed_in_first_round: true, empty_pages: true, ..Switches::default() };
    for_random_changes(switches, true);
}

#[test]
fn pages_hold_everything_once() {
    let simulator = start(1, 57);
    let client = Client::new(&simulator);
    let user = simulator.tenant().users()[0].id.clone();
    for top in [1, 2, 3, 7, 19, 56, 57, 58, 1000] {
        let rows = client.all(&format!("/v1.0/users/{user}/messages?$select=receivedDateTime&$top={top}"), &[]);
        let ids: BTreeSet<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        assert_eq!((rows.len(), ids.len()), (57, 57), "{top}");
        let times: Vec<&str> = rows.iter().filter_map(|row| row["receivedDateTime"].as_str()).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "{top}");
    }
}

#[test]
fn a_move_can_show_as_a_removal_only() {
    let simulator = start_with(1, 0, Switches { moves_show_only_as_removal: true, ..Switches::default() });
    let client = Client::new(&simulator);
    let tenant = simulator.tenant();
    let user = tenant.users()[0].id.clone();
    let delta = |folder: &str| format!("/v1.0/users/{user}/mailFolders/{folder}/messages/delta?$select=id");
    let id = tenant.add_message(&user, "inbox", mail("one")).expect("a message");
    let (_, inbox) = client.delta(&delta("inbox"), &[IMMUTABLE]);
    let (_, archive) = client.delta(&delta("archive"), &[IMMUTABLE]);
    tenant.move_message(&user, &id, "archive").expect("moved");
    let (rows, _) = client.delta(&inbox, &[IMMUTABLE]);
    assert_eq!((rows.len(), rows[0]["@removed"]["reason"].as_str()), (1, Some("deleted")));
    let (rows, archive) = client.delta(&archive, &[IMMUTABLE]);
    assert!(rows.is_empty());
    // A client that begins anew sees it. Other clients see it once it changes.
    assert_eq!(client.delta(&delta("archive"), &[IMMUTABLE]).0.len(), 1);
    tenant.set_read(&user, &id, true).expect("read");
    assert_eq!(client.delta(&archive, &[IMMUTABLE]).0.len(), 1);
}
