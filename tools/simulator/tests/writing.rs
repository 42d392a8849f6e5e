//! What a restore does: folders and messages written over HTTP, and what the service makes of them.

mod client;

use base64::{Engine, engine::general_purpose::STANDARD};
use client::{Client, IMMUTABLE};
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_simulator::{NewMessage, Options, Organisation, Simulator, Switches, Unreadable};

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
        let organisation = Organisation { users: 1, messages: 0, ..Organisation::default() };
        let simulator =
            Simulator::start(Options { organisation, switches, ..Options::default() }).expect("a simulator");
        let client = Client::new(&simulator);
        let user = simulator.tenant().users()[0].id.clone();
        Self { simulator, client, user }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1.0/users/{}/{rest}", self.user)
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

    fn refused(&self, method: Method, rest: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.client.json(method, &self.path(rest), body);
        (status, answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error in {answer}")).to_owned())
    }

    fn mime(&self, id: &str) -> String {
        String::from_utf8(self.client.bytes(&self.path(&format!("messages/{id}/$value")), &[])).expect("text")
    }

    fn put(&self, folder: &str, mime: &str) -> String {
        let message = NewMessage { mime: mime.as_bytes().to_vec(), ..NewMessage::default() };
        self.simulator.tenant().add_message(&self.user, folder, message).expect("a message")
    }
}

fn id(body: &Value) -> String {
    body["id"].as_str().unwrap_or_else(|| panic!("no id in {body}")).to_owned()
}

#[test]
fn json_makes_a_draft_of_now_unless_mapi_says_otherwise() {
    let scene = Scene::new();
    let draft =
        scene.post("mailFolders/inbox/messages", &json!({"subject": "a", "receivedDateTime": "2020-01-02T03:04:07Z"}));
    assert_eq!((draft["isDraft"].as_bool(), draft["isRead"].as_bool()), (Some(true), Some(true)));
    assert_ne!(draft["receivedDateTime"], "2020-01-02T03:04:07Z");

    let restored = scene.post("mailFolders/inbox/messages", &json!({
        "subject": "Grüße", "isRead": false, "body": {"contentType": "HTML", "content": "<p>Hi</p>"},
        "from": {"emailAddress": {"name": "Zoé", "address": "zoe@fabrikam.com"}},
        "toRecipients": [{"emailAddress": {"address": "bob@contoso.com"}}],
        "internetMessageId": "<1@fabrikam.com>", "categories": ["Red"], "flag": {"flagStatus": "Flagged"},
        "singleValueExtendedProperties": [
            {"id": "Integer 0x0E07", "value": "4"},
            {"id": "SystemTime 0x0039", "value": "2020-01-02T03:04:05Z"},
            {"id": "SystemTime 0x0E06", "value": "2020-01-02T03:04:07Z"},
            {"id": "String 0x007D", "value": "Received: from x\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\nFrom: zoe@fabrikam.com\r\n"},
            {"id": "String {66F5A359-4659-4830-9070-00040EC6AC6E} Name Marker", "value": "42"},
        ],
    }));
    let shown = scene.get(&format!("messages/{}?$select=isDraft,isRead,receivedDateTime,sentDateTime,categories,flag,subject,internetMessageHeaders", id(&restored)));
    for (name, value) in [
        ("isDraft", json!(false)),
        ("isRead", json!(false)),
        ("receivedDateTime", json!("2020-01-02T03:04:07Z")),
        ("sentDateTime", json!("2020-01-02T03:04:05Z")),
        ("categories", json!(["Red"])),
        ("flag", json!({"flagStatus": "flagged"})),
        ("subject", json!("Grüße")),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    assert_eq!(shown["internetMessageHeaders"][0], json!({"name": "Received", "value": "from x"}));
    let mime = scene.mime(&id(&restored));
    assert!(mime.starts_with("Received: from x\r\n") && mime.contains("<p>Hi</p>"), "{mime}");
    assert_eq!(mime, scene.mime(&id(&restored)));

    let marker = "singleValueExtendedProperties/Any(ep: ep/id eq 'String {66f5a359-4659-4830-9070-00040ec6ac6e} Name Marker' and ep/value eq '42')";
    let found = scene.client.all(&scene.path(&format!("messages?$filter={}", marker.replace(' ', "%20"))), &[]);
    assert_eq!(found.iter().map(id).collect::<Vec<_>>(), [id(&restored)]);
}

#[test]
fn a_draft_stays_a_draft() {
    let scene = Scene::new();
    let draft = id(&scene.post("messages", &json!({"subject": "a"})));
    let later = json!({"singleValueExtendedProperties": [{"id": "Integer 0x0E07", "value": "1"}]});
    let (status, body) = scene.client.json(Method::PATCH, &scene.path(&format!("messages/{draft}")), &later);
    assert_eq!((status, body["isDraft"].as_bool()), (200, Some(true)));
}

#[test]
fn mime_makes_a_draft_with_the_very_bytes() {
    let scene = Scene::new();
    let mime = "From: a@b.c\r\nSubject: Exact\r\nDate: Mon, 2 Nov 2026 09:30:00 +0000\r\n\r\nBytes\r\n";
    let send = |body: &str| {
        let headers = [("content-type", "text/plain")];
        let reply = scene.client.send(Method::POST, &scene.path("messages"), &headers, Some(body.as_bytes().to_vec()));
        (reply.status, reply.json())
    };
    let (status, created) = send(&STANDARD.encode(mime));
    assert_eq!(
        (status, created["isDraft"].as_bool(), created["sentDateTime"].as_str()),
        (201, Some(true), Some("2026-11-02T09:30:00Z"))
    );
    assert_eq!(scene.mime(&id(&created)), mime);
    let (status, error) = send("no base64!");
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("ErrorMimeContentInvalidBase64String")));
    assert_eq!(send(&"A".repeat(4 * 1024 * 1024 + 4)).0, 413);
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let scene = Scene::new();
    let message = scene.put("inbox", "Subject: Received\r\n\r\nText\r\n");
    let path = format!("messages/{message}");
    assert_eq!(
        scene.refused(Method::PATCH, &path, &json!({"subject": "b"})),
        (400, "ErrorInvalidPropertySet".to_owned())
    );
    assert_eq!(
        scene.refused(Method::PATCH, &path, &json!({"sujet": "b"})),
        (400, "UnableToDeserializePostBody".to_owned())
    );
    let change = json!({"isRead": true, "categories": ["Blue"], "importance": "high"}).to_string().into_bytes();
    let headers = [("if-match", "W/\"other\""), ("content-type", "application/json")];
    assert_eq!(scene.client.send(Method::PATCH, &scene.path(&path), &headers, Some(change.clone())).status, 412);
    let before = scene.get(&path);
    let headers =
        [("if-match", before["@odata.etag"].as_str().expect("an etag")), ("content-type", "application/json")];
    let after = scene.client.send(Method::PATCH, &scene.path(&path), &headers, Some(change)).json();
    assert_eq!((after["isRead"].as_bool(), after["importance"].as_str()), (Some(true), Some("high")));
    assert_ne!(after["changeKey"], before["changeKey"]);
    assert_eq!(scene.mime(&message), "Subject: Received\r\n\r\nText\r\n");
}

#[test]
fn deleted_messages_go_step_by_step() {
    let scene = Scene::new();
    let message = scene.put("inbox", "Subject: a\r\n\r\n");
    let path = format!("messages/{message}");
    let place = || {
        let parent = scene.get(&path)["parentFolderId"].as_str().expect("a folder").to_owned();
        scene.get(&format!("mailFolders/{parent}"))["displayName"].as_str().expect("a name").to_owned()
    };
    for expected in ["Deleted Items", "Deletions"] {
        assert_eq!(scene.client.send(Method::DELETE, &scene.path(&path), &[], None).status, 204);
        assert_eq!(place(), expected);
    }
    assert_eq!(scene.refused(Method::DELETE, &path, &json!({})), (403, "ErrorAccessDenied".to_owned()));
    assert_eq!(scene.client.post(&scene.path(&format!("{path}/permanentDelete")), &json!({})).0, 204);
    assert_eq!(place(), "Purges");
}

#[test]
fn moves_and_copies() {
    let scene = Scene::new();
    let message = scene.put("inbox", "Subject: a\r\n\r\n");
    let before = id(&scene.get(&format!("messages/{message}")));
    let moved = scene.post(&format!("messages/{before}/move"), &json!({"destinationId": "archive"}));
    assert_ne!(id(&moved), before);
    assert_eq!(scene.client.get(&scene.path(&format!("messages/{before}"))).0, 404);
    let copy = scene.post(&format!("messages/{message}/copy"), &json!({"destinationId": "inbox"}));
    let listed = scene.client.all(&scene.path("messages?$select=id"), &[IMMUTABLE]);
    assert_eq!(listed.len(), 2);
    assert_eq!(scene.mime(&id(&copy)), scene.mime(&message));
}

#[test]
fn folders_are_created_once_and_keep_their_id() {
    let scene = Scene::new();
    let folder = id(&scene.post("mailFolders", &json!({"displayName": "Größe/Maß", "isHidden": true})));
    assert_eq!(
        scene.refused(Method::POST, "mailFolders", &json!({"displayName": "größe/maß"})),
        (409, "ErrorFolderExists".to_owned())
    );
    let inner = id(&scene.post(&format!("mailFolders/{folder}/childFolders"), &json!({"displayName": "Inner"})));
    let moved = scene.post(&format!("mailFolders/{inner}/move"), &json!({"destinationId": "archive"}));
    assert_eq!(id(&moved), inner);
    let (status, renamed) = scene.client.json(
        Method::PATCH,
        &scene.path(&format!("mailFolders/{inner}")),
        &json!({"displayName": "Renamed"}),
    );
    assert_eq!((status, renamed["displayName"].as_str()), (200, Some("Renamed")));
    assert_eq!(scene.refused(Method::DELETE, "mailFolders/inbox", &json!({})).0, 400);
    assert_eq!(scene.client.send(Method::DELETE, &scene.path(&format!("mailFolders/{inner}")), &[], None).status, 204);
    let deleted = scene.client.all(&scene.path("mailFolders/deleteditems/childFolders"), &[]);
    assert_eq!(deleted.iter().map(id).collect::<Vec<_>>(), [inner.as_str()]);
    let (rows, link) = scene.client.delta(&scene.path("mailFolders/delta"), &[]);
    assert!(rows.iter().any(|row| row["id"] == inner.as_str()));
    scene.simulator.tenant().delete_folder(&scene.user, &inner).expect("removed");
    let (rows, _) = scene.client.delta(&link, &[]);
    assert_eq!(
        rows,
        [json!({"@odata.type": "#microsoft.graph.mailFolder", "id": inner, "@removed": {"reason": "deleted"}})]
    );
    assert_eq!(scene.client.get(&scene.path(&format!("mailFolders/{inner}/messages/delta"))).0, 404);
}

#[test]
fn a_copied_folder_brings_everything() {
    let scene = Scene::new();
    let folder = id(&scene.post("mailFolders", &json!({"displayName": "Plans"})));
    let inner = id(&scene.post(&format!("mailFolders/{folder}/childFolders"), &json!({"displayName": "Inner"})));
    scene.put(&inner, "Subject: a\r\n\r\n");
    let copy = id(&scene.post(&format!("mailFolders/{folder}/copy"), &json!({"destinationId": "archive"})));
    let inside = scene.client.all(&scene.path(&format!("mailFolders/{copy}/childFolders")), &[]);
    assert_eq!((inside[0]["displayName"].as_str(), inside[0]["totalItemCount"].as_u64()), (Some("Inner"), Some(1)));
    let into_itself = json!({"destinationId": inner});
    assert_eq!(scene.refused(Method::POST, &format!("mailFolders/{folder}/move"), &into_itself).0, 400);
}

#[test]
fn attachments_of_three_kinds() {
    let scene = Scene::new();
    let message =
        id(&scene.post("messages", &json!({"subject": "a", "body": {"contentType": "text", "content": "b"}})));
    let path = format!("messages/{message}/attachments");
    let file = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "ä.bin", "contentType": "application/x-test",
        "isInline": true, "contentId": "img1", "contentBytes": STANDARD.encode([0, 1, 2, 255])});
    let file = id(&scene.post(&path, &file));
    // Inline attachments do not count.
    assert_eq!(scene.get(&format!("messages/{message}"))["hasAttachments"], false);
    let item = scene.post(&path, &json!({"@odata.type": "#microsoft.graph.itemAttachment", "name": "Inner",
        "item": {"@odata.type": "#microsoft.graph.message", "subject": "Inner", "body": {"contentType": "text", "content": "deep"}}}));
    let event = scene.post(
        &path,
        &json!({"@odata.type": "#microsoft.graph.itemAttachment", "name": "Event",
        "item": {"@odata.type": "microsoft.graph.event", "subject": "Party"}}),
    );
    assert_eq!(scene.get(&format!("messages/{message}"))["hasAttachments"], true);
    let listed = scene.get(&path)["value"].clone();
    let expanded = scene.get(&format!("messages/{message}?$select=id&$expand=attachments($select=name)"));
    assert_eq!(expanded["attachments"][0]["name"], "ä.bin");
    assert!(expanded["attachments"][0].get("contentBytes").is_none());
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    assert_eq!(listed[0]["contentBytes"], STANDARD.encode([0, 1, 2, 255]));
    assert!(listed[0]["size"].as_u64() > Some(4));
    assert_eq!(scene.client.bytes(&scene.path(&format!("{path}/{file}/$value")), &[]), [0, 1, 2, 255]);
    let inner =
        String::from_utf8(scene.client.bytes(&scene.path(&format!("{path}/{}/$value", id(&item))), &[])).expect("text");
    assert!(inner.contains("Subject: Inner") && inner.contains("deep"), "{inner}");
    let calendar = scene.client.bytes(&scene.path(&format!("{path}/{}/$value", id(&event))), &[]);
    assert!(calendar.starts_with(b"BEGIN:VCALENDAR"));
    let expanded = scene.get(&format!("{path}/{}?$expand=microsoft.graph.itemattachment/item", id(&item)));
    assert_eq!((expanded["item"]["id"].as_str(), expanded["item"]["subject"].as_str()), (Some(""), Some("Inner")));

    let reference = json!({"@odata.type": "#microsoft.graph.referenceAttachment", "name": "Link", "sourceUrl": "https://contoso.com/x"});
    assert_eq!(scene.refused(Method::POST, &path, &reference).0, 400);
    let (status, reference) = scene.client.post(&scene.path(&path).replace("v1.0", "beta"), &reference);
    assert_eq!(status, 201);
    assert_eq!(scene.client.get(&scene.path(&format!("{path}/{}/$value", id(&reference)))).0, 405);

    let nested = json!({"@odata.type": "#microsoft.graph.itemAttachment", "name": "x",
        "item": {"@odata.type": "#microsoft.graph.message", "subject": "x", "isDraft": false}});
    assert_eq!(scene.refused(Method::POST, &path, &nested).0, 400);
    assert_eq!(scene.client.send(Method::DELETE, &scene.path(&format!("{path}/{file}")), &[], None).status, 204);
    assert_eq!(scene.client.get(&scene.path(&format!("{path}/{file}"))).0, 404);
}

#[test]
fn attachments_of_received_mail_are_those_of_its_mime() {
    let scene = Scene::new();
    let mime = "Subject: a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
        Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\
        Content-Disposition: attachment; filename=a.pdf\r\n\r\nAAEC\r\n--b--\r\n";
    let message = scene.put("inbox", mime);
    let listed =
        scene.client.all(&scene.path(&format!("messages/{message}/attachments?$select=id,name")), &[IMMUTABLE]);
    assert_eq!((listed.len(), listed[0]["name"].as_str()), (1, Some("a.pdf")));
    assert!(listed[0].get("contentBytes").is_none());
    let value = scene.path(&format!("messages/{message}/attachments/{}/$value", id(&listed[0])));
    assert_eq!(scene.client.bytes(&value, &[]), [0, 1, 2]);
    // Ids of attachments die with the edition of the message.
    scene.simulator.tenant().change_message(&scene.user, &message, mime.as_bytes().to_vec()).expect("changed");
    assert_eq!(scene.client.get(&value).0, 404);
}

#[test]
fn new_messages_lag_when_told() {
    let scene = Scene::with(Switches { new_messages_lag: true, ..Switches::default() });
    let message = id(&scene.post("messages", &json!({"subject": "a"})));
    let file = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": "AAEC"});
    let path = format!("messages/{message}/attachments");
    assert_eq!(scene.refused(Method::POST, &path, &file), (404, "ErrorItemNotFound".to_owned()));
    scene.post(&path, &file);
}

#[test]
fn a_heavy_list_of_attachments_fails_as_a_whole() {
    let scene = Scene::with(Switches { attachment_list_bytes_max: Some(1000), ..Switches::default() });
    let message = id(&scene.post("messages", &json!({"subject": "a"})));
    let path = format!("messages/{message}/attachments");
    let content = STANDARD.encode(vec![7; 2000]);
    let file = id(&scene
        .post(&path, &json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": content})));
    assert_eq!(scene.client.get(&scene.path(&path)).0, 504);
    assert_eq!(scene.client.all(&scene.path(&format!("{path}?$select=id,name")), &[]).len(), 1);
    assert_eq!(scene.client.bytes(&scene.path(&format!("{path}/{file}/$value")), &[]), vec![7; 2000]);
}

#[test]
fn unreadable_messages_stay_so_and_are_listed() {
    let scene = Scene::new();
    let message = scene.put("inbox", "Subject: a\r\n\r\n");
    let tenant = scene.simulator.tenant();
    let (json, value) = (format!("messages/{message}"), format!("messages/{message}/$value"));
    let status = |path: &str| scene.client.get(&scene.path(path)).0;
    for (why, expected) in [
        (Some(Unreadable::CorruptData), (500, 500)),
        (Some(Unreadable::InvalidRecipients), (400, 400)),
        (Some(Unreadable::CannotOpenFileAttachment), (200, 400)),
        (Some(Unreadable::NoMime), (200, 500)),
        (None, (200, 200)),
    ] {
        tenant.mark_unreadable(&scene.user, &message, why).expect("marked");
        assert_eq!((status(&json), status(&value)), expected, "{why:?}");
        assert_eq!(scene.client.all(&scene.path("messages"), &[]).len(), 1);
    }
}

#[test]
fn ids_are_translated() {
    let scene = Scene::new();
    let immutable = scene.put("inbox", "Subject: a\r\n\r\n");
    let default = id(&scene.get(&format!("messages/{immutable}")));
    let translate = |ids: &[&str], from: &str, to: &str| -> Vec<Value> {
        let body = json!({"inputIds": ids, "sourceIdType": from, "targetIdType": to});
        let (status, body) = scene.client.post(&scene.path("translateExchangeIds"), &body);
        assert_eq!(status, 200, "{body}");
        body["value"].as_array().expect("rows").clone()
    };
    assert_eq!(translate(&[&default], "restId", "restImmutableEntryId")[0]["targetId"], immutable.as_str());
    for form in ["ewsId", "entryId", "immutableEntryId"] {
        let there = translate(&[&default], "restId", form)[0]["targetId"].as_str().expect("an id").to_owned();
        let target = if form == "immutableEntryId" { &immutable } else { &default };
        let kind = if form == "immutableEntryId" { "restImmutableEntryId" } else { "restId" };
        assert_eq!(translate(&[&there], form, kind)[0]["targetId"], target.as_str(), "{form}");
    }
    assert!(translate(&["nonsense"], "restId", "restImmutableEntryId")[0]["errorDetails"].is_object());
    let many: Vec<&str> = vec![&default; 1001];
    let body = json!({"inputIds": many, "sourceIdType": "restId", "targetIdType": "ewsId"});
    assert_eq!(scene.refused(Method::POST, "translateExchangeIds", &body).0, 400);
}

#[test]
fn what_would_be_sent_is_counted() {
    let scene = Scene::new();
    let draft = id(&scene.post("messages", &json!({"subject": "a"})));
    assert_eq!(scene.simulator.counters().mails_sent, 0);
    assert_eq!(scene.client.post(&scene.path(&format!("messages/{draft}/send")), &json!({})).0, 202);
    assert_eq!(scene.simulator.counters().mails_sent, 1);
}
