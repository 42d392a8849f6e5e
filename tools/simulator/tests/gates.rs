//! What stands between a client and the mailboxes: sign-in, permissions, budgets, faults. Over real HTTP.

mod client;

use std::collections::BTreeSet;

use client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_simulator::auth::{AccessPolicy, DeviceAnswer};
use strongroom_simulator::faults::Rule;
use strongroom_simulator::throttle::Rate;
use strongroom_simulator::{Fault, Faults, Limits, NewMessage, Options, Organisation, Rules, Simulator};

fn start() -> Simulator {
    start_with(Limits::default(), Rules::default())
}

fn start_with(limits: Limits, rules: Rules) -> Simulator {
    let organisation = Organisation { users: 2, messages: 30, ..Organisation::default() };
    Simulator::start(Options { organisation, limits, rules, ..Options::default() }).expect("a simulator")
}

fn user_ids(simulator: &Simulator) -> Vec<String> {
    simulator.tenant().users().iter().map(|user| user.id.clone()).collect()
}

fn mail(body: &str) -> NewMessage {
    let mime = format!("From: a@contoso.com\r\nSubject: one\r\n\r\n{body}\r\n");
    NewMessage { mime: mime.into_bytes(), ..NewMessage::default() }
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

/// A request that may end in an error of the transport, which is returned as text.
fn try_get(client: &Client, path: &str) -> Result<(u16, Vec<u8>), String> {
    client
        .try_send(Method::GET, path, &[], None)
        .map(|reply| (reply.status, reply.bytes))
        .map_err(|error| format!("{error:?}"))
}

#[test]
fn a_missing_permission_is_named_by_who_guards_the_route() {
    let simulator = start();
    let user = &user_ids(&simulator)[0];
    simulator.set_permissions(["User.Read.All"]);
    let client = Client::new(&simulator);
    assert_eq!(client.get("/v1.0/users").0, 200);
    let (status, body) = client.get(&format!("/v1.0/users/{user}/mailFolders"));
    assert_eq!((status, code(&body)), (403, "ErrorAccessDenied"));
    simulator.set_permissions(["Mail.Read"]);
    assert_eq!(client.get("/v1.0/users").0, 200, "the old token has the old permissions");
    let client = Client::new(&simulator);
    let (status, body) = client.get("/v1.0/users");
    assert_eq!((status, code(&body)), (403, "Authorization_RequestDenied"));
    assert_eq!(client.get(&format!("/v1.0/users/{user}/mailFolders")).0, 200);
}

#[test]
fn a_mailbox_outside_of_the_policy_says_so() {
    let simulator = start();
    let users = user_ids(&simulator);
    let policy = AccessPolicy::RestrictTo(BTreeSet::from([users[0].clone()]));
    simulator.authority().change_rules(|rules| rules.access_policy = policy);
    let client = Client::new(&simulator);
    let inbox = |user: &str| client.get(&format!("/v1.0/users/{user}/mailFolders/inbox"));
    assert_eq!(inbox(&users[0]).0, 200);
    let (status, body) = inbox(&users[1]);
    assert_eq!((status, body["error"]["message"].as_str()), (403, Some("Access to OData is disabled.")));
}

#[test]
fn a_budget_belongs_to_a_mailbox_under_all_its_names() {
    let limits = Limits { mailbox_requests: Some(Rate::per(3, 600)), ..Limits::default() };
    let simulator = start_with(limits, Rules::default());
    let client = Client::new(&simulator);
    let users = simulator.tenant().users();
    let by_id = format!("/v1.0/users/{}/mailFolders/inbox", users[0].id);
    let by_name = format!("/v1.0/users/{}/mailFolders/inbox", users[0].principal_name().to_uppercase());
    for path in [&by_id, &by_name, &by_id] {
        assert_eq!(client.get(path).0, 200, "{path}");
    }
    let reply = client.send(Method::GET, &by_name, &[], None);
    assert_eq!((reply.status, code(&reply.json())), (429, "ApplicationThrottled"));
    let wait: u64 = reply.headers["retry-after"].to_str().expect("ASCII").parse().expect("seconds");
    assert!((590..=600).contains(&wait), "{wait}");
    assert_eq!(client.get(&format!("/v1.0/users/{}/mailFolders/inbox", users[1].id)).0, 200);
    assert_eq!((simulator.counters().throttled, simulator.counters().by_mailbox[&users[0].id]), (1, 4));
}

#[test]
fn the_directory_is_paid_in_units() {
    let limits = Limits { identity_units: Some(Rate::per(5, 600)), ..Limits::default() };
    let simulator = start_with(limits, Rules::default());
    let client = Client::new(&simulator);
    let units = |path: &str| {
        let reply = client.send(Method::GET, path, &[], None);
        let header = |name: &str| reply.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
        (reply.status, header("x-ms-resource-unit"), header("x-ms-throttle-information"))
    };
    assert_eq!(units("/v1.0/users"), (200, Some("2".into()), None));
    assert_eq!(units("/v1.0/users?$select=id"), (200, Some("1".into()), None));
    assert_eq!(units("/v1.0/users?$top=5&$expand=manager"), (200, Some("2".into()), None));
    assert_eq!(units("/v1.0/users"), (429, None, Some("ResourceUnitLimitExceeded".into())));
}

#[test]
fn a_place_is_free_when_the_answer_was_read() {
    let simulator = start();
    let user = &user_ids(&simulator)[0];
    // More than the buffers of a connection take: the answer is under way until the client reads it.
    let large = "x".repeat(48 << 20);
    let id = simulator.tenant().add_message(user, "inbox", mail(&large)).expect("a message");
    let client = Client::new(&simulator);
    let url = format!("{}/v1.0/users/{user}/messages/{id}/$value", simulator.url());
    client.block_on(async {
        let ask = || client.http().get(&url).bearer_auth(client.token()).send();
        for round in 0..3 {
            let mut open = Vec::new();
            for _ in 0..4 {
                let response = ask().await.expect("an answer");
                assert_eq!(response.status(), 200, "round {round}");
                open.push(response);
            }
            let fifth = ask().await.expect("an answer");
            assert_eq!(fifth.status(), 429);
            let body: Value = fifth.json().await.expect("JSON");
            assert_eq!(body["error"]["message"], "Application is over its MailboxConcurrency limit.");
            for response in open {
                assert!(response.bytes().await.expect("a body").len() > large.len());
            }
        }
    });
    assert_eq!(simulator.counters().peak_concurrency[user], 5);
}

fn batch(client: &Client, requests: Vec<Value>) -> Vec<u64> {
    let (status, body) = client.post("/v1.0/$batch", &json!({"requests": requests}));
    assert_eq!(status, 200, "{body}");
    let mut answers: Vec<(u64, u64)> = body["responses"]
        .as_array()
        .expect("answers")
        .iter()
        .map(|answer| (answer["id"].as_str().unwrap().parse().unwrap(), answer["status"].as_u64().unwrap()))
        .collect();
    answers.sort_unstable();
    answers.into_iter().map(|(_, status)| status).collect()
}

#[test]
fn a_batch_is_metered_request_by_request() {
    let simulator = start();
    let users = user_ids(&simulator);
    let client = Client::new(&simulator);
    let get = |id: usize, user: &str| json!({"id": id.to_string(), "method": "GET", "url": format!("/users/{user}/mailFolders/inbox")});
    let chain = |id: usize| {
        let mut step = get(id, &users[0]);
        if id > 0 {
            step["dependsOn"] = json!([(id - 1).to_string()]);
        }
        step
    };
    assert_eq!(batch(&client, (0..20).map(chain).collect()), [200; 20]);
    let side_by_side = batch(&client, (0..20).map(|id| get(id, &users[0])).collect());
    assert_eq!(side_by_side.iter().filter(|status| **status == 200).count(), 4);
    assert_eq!(side_by_side.iter().filter(|status| **status == 429).count(), 16);
    let two_mailboxes = batch(&client, (0..8).map(|id| get(id, &users[id % 2])).collect());
    assert_eq!(two_mailboxes, [200; 8]);
    assert_eq!(simulator.counters().by_mailbox[&users[0]], 20 + 20 + 4);
    simulator.set_limits(Limits { queue_batches: true, ..Limits::default() });
    assert_eq!(batch(&client, (0..20).map(|id| get(id, &users[0])).collect()), [200; 20]);
}

#[test]
fn a_bad_day_hides_nothing_from_who_tries_again() {
    let (mut again, mut faults) = (0, 0);
    for seed in 0..3 {
        let simulator = start();
        let user = &user_ids(&simulator)[0];
        let client = Client::new(&simulator);
        let path = |skip: usize| format!("/v1.0/users/{user}/messages?$select=id,changeKey&$top=3&$skip={skip}");
        let expected: Vec<Value> = (0..30).step_by(3).map(|skip| client.get(&path(skip)).1["value"].clone()).collect();
        simulator.set_faults(Faults::bad_day(seed, 2));
        let mut found = Vec::new();
        let mut attempts = 0;
        for skip in (0..30).step_by(3) {
            // No more often in a row than the faults allow.
            let rows = (0..=4).find_map(|_| {
                attempts += 1;
                let (status, body) = try_get(&client, &path(skip)).ok()?;
                let body: Value = serde_json::from_slice(&body).ok()?;
                (status == 200).then(|| body["value"].clone())
            });
            found.push(rows.unwrap_or_else(|| panic!("seed {seed}: {skip} stayed broken")));
        }
        assert_eq!(found, expected, "seed {seed}");
        again += attempts - 10;
        faults += simulator.counters().faults;
    }
    assert!(again > 0 && faults > 0, "nothing went wrong");
}

#[test]
fn an_answer_can_be_lost_after_the_work_was_done() {
    for fault in [Fault::LostAnswer, Fault::LostAnswerTimeout] {
        let simulator = start();
        let user = &user_ids(&simulator)[0];
        let client = Client::new(&simulator);
        let (mailbox, folder, data) = exported(&client, user);
        let import_url = session(&client, &mailbox);
        simulator.set_faults(Faults::default().with_rule("importItem", 1, fault));
        let before = simulator.tenant().truth(user).expect("a mailbox").messages.len();
        let body = json!({"FolderId": folder, "Mode": "create", "Data": data}).to_string().into_bytes();
        let reply = client.try_send(Method::POST, &import_url, &[("authorization", "")], Some(body));
        assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 504));
        assert_eq!(simulator.tenant().truth(user).expect("a mailbox").messages.len(), before + 1, "{fault:?}");
    }
}

#[test]
fn another_body_is_whole_and_wrong() {
    let simulator = start();
    let user = &user_ids(&simulator)[0];
    let client = Client::new(&simulator);
    let truth = simulator.tenant().truth(user).expect("a mailbox");
    let message = &truth.messages[0];
    let path = format!("/v1.0/users/{user}/messages/{}/$value", message.id);
    let (mut kinds, seeds) = (BTreeSet::new(), 40);
    for seed in 0..seeds {
        simulator.set_faults(Faults { seed, ..Faults::default() }.with_rule("/$value", 1, Fault::OtherBody));
        let (status, body) = try_get(&client, &path).expect("an answer");
        assert_eq!(status, 200);
        assert_ne!(body, message.mime, "seed {seed}");
        kinds.insert(match body.as_slice() {
            b"" => "nothing",
            [b'{', ..] => "an error",
            [b'<', ..] => "a page",
            other => {
                assert!(truth.messages.iter().any(|message| message.mime == other), "seed {seed}: nobody's message");
                "another message"
            }
        });
        assert_eq!(try_get(&client, &path).expect("an answer"), (200, message.mime.clone()), "seed {seed}");
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn an_answer_can_be_cut_off_without_a_word() {
    use std::io::{Read, Write};
    let simulator = start();
    let user = &user_ids(&simulator)[0];
    let client = Client::new(&simulator);
    let message = simulator.tenant().truth(user).expect("a mailbox").messages.remove(0);
    let path = format!("/v1.0/users/{user}/messages/{}/$value", message.id);
    for (fault, connection) in
        [(Fault::CutWithoutLength, "close"), (Fault::CutWithoutLengthKeepAlive, "keep-alive"), (Fault::ShortBody, "")]
    {
        simulator.set_faults(Faults::default().with_rule("/$value", 1, fault));
        let mut stream = std::net::TcpStream::connect(simulator.url().trim_start_matches("http://")).expect("a server");
        let token = client.token();
        let ask =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(ask.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an orderly end");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let is_framed = head.contains("content-length:") || head.contains("transfer-encoding:");
        assert_eq!(is_framed, fault == Fault::ShortBody, "{fault:?}: {head}");
        assert!(head.contains(&format!("connection: {connection}")), "{fault:?}: {head}");
        if !is_framed {
            assert!(message.mime.starts_with(&answer[end..]) && answer.len() - end < message.mime.len(), "{fault:?}");
        }
    }
}

#[test]
fn things_change_while_they_are_read() {
    let simulator = start();
    let tenant = simulator.tenant();
    let user = &user_ids(&simulator)[0];
    let client = Client::new(&simulator);
    let id = tenant.add_message(user, "inbox", mail("text")).expect("a message");
    let folder = tenant.add_folder(user, "inbox", "Project").expect("a folder");
    let change_key =
        || client.get(&format!("/v1.0/users/{user}/messages/{id}?$select=changeKey")).1["changeKey"].clone();
    let value = || client.bytes(&format!("/v1.0/users/{user}/messages/{id}/$value"), &[]);
    let delta = format!("/v1.0/users/{user}/mailFolders/{folder}/messages/delta");

    let before = (change_key(), value());
    let vanish = Rule {
        method: None,
        contains: "/messages/delta".into(),
        skip: 1,
        times: Some(1),
        fault: Fault::FolderVanishes,
    };
    let mut faults = Faults::default().with_rule("$value", 1, Fault::ItemChanges);
    faults.rules.push(vanish);
    simulator.set_faults(faults);
    assert_eq!(value(), before.1, "it changes after it was read");
    assert_ne!(change_key(), before.0);
    assert_eq!(value(), [b"X-Edition: 1\r\n", &before.1[..]].concat());
    assert_eq!(client.get(&delta).0, 200);
    let (status, body) = client.get(&delta);
    assert_eq!((status, code(&body)), (404, "ErrorItemNotFound"));
}

#[test]
fn a_delta_expires_at_any_page_and_stays_dead() {
    let simulator = start();
    let user = &user_ids(&simulator)[0];
    let client = Client::new(&simulator);
    let page = client.get(&format!("/v1.0/users/{user}/mailFolders/delta?$select=id")).1;
    let next = page["@odata.nextLink"].as_str().expect("a second page").to_owned();
    simulator.set_faults(Faults::default().with_rule("/mailFolders/delta?$skiptoken", 1, Fault::DeltaExpired));
    for _ in 0..2 {
        let (status, body) = client.get(&next);
        assert_eq!((status, code(&body)), (410, "SyncStateNotFound"));
    }
}

#[test]
fn a_user_who_signed_in_on_a_device_is_me() {
    let rules = Rules { device_answers: vec![DeviceAnswer::AwaitPage], device_interval_s: 0, ..Rules::default() };
    let simulator = start_with(Limits::default(), rules);
    let client = Client::new(&simulator);
    let (status, body) = client.get("/v1.0/me");
    assert_eq!((status, code(&body)), (400, "BadRequest"), "the application is nobody: {body}");

    let form = |path: &str, fields: &[(&str, &str)]| {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", value.replace(':', "%3A"))).collect();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", "")];
        let path = format!("/{}/oauth2/v2.0/{path}", simulator.tenant_id());
        client.send(Method::POST, &path, &headers, Some(body.join("&").into_bytes())).json()
    };
    let client_id = ("client_id", simulator.client_id());
    let device = form("devicecode", &[client_id, ("scope", "Mail.Read User.Read offline_access")]);
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
    let poll = || form("token", &[client_id, grant, ("device_code", device["device_code"].as_str().expect("a code"))]);
    assert_eq!(poll()["error"], "authorization_pending");
    let page =
        format!("{}?user_code={}", device["verification_uri"].as_str().unwrap(), device["user_code"].as_str().unwrap());
    assert_eq!(client.get(&page).0, 200);
    let bearer = format!("Bearer {}", poll()["access_token"].as_str().expect("a token"));
    let me = |path: &str| client.get_with(path, &[("authorization", &bearer)]);
    let users = user_ids(&simulator);
    assert_eq!(me("/v1.0/me").1["id"], users[0].as_str());
    assert_eq!(me("/v1.0/me/mailFolders/inbox").0, 200);
    assert_eq!(me(&format!("/v1.0/users/{}/mailFolders/inbox", users[1])).0, 403);
    assert_eq!(me("/v1.0/me/mailboxSettings").0, 403, "there was no scope for it");
}

#[test]
fn a_large_attachment_comes_in_ranges() {
    let simulator = start();
    let user = &user_ids(&simulator)[0];
    let id = simulator.tenant().add_message(user, "inbox", mail("text")).expect("a message");
    let client = Client::new(&simulator);
    let create = |size: u64| {
        let item = json!({"AttachmentItem": {"attachmentType": "file", "name": "a.bin", "size": size}});
        client.post(&format!("/v1.0/users/{user}/messages/{id}/attachments/createUploadSession"), &item)
    };
    let (status, body) = create(2_000_000);
    assert_eq!((status, code(&body)), (400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"));
    let content: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let (status, body) = create(content.len() as u64);
    assert_eq!((status, &body["nextExpectedRanges"]), (201, &json!(["0-"])));
    let url = body["uploadUrl"].as_str().expect("a URL").to_owned();
    let put = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{}", to - 1, content.len());
        let headers = [("authorization", ""), ("content-range", range.as_str())];
        client.send(Method::PUT, &url, &headers, Some(content[from..to].to_vec()))
    };
    assert_eq!(put(10, 20).status, 416);
    let first = put(0, 3_000_000);
    assert_eq!((first.status, &first.json()["nextExpectedRanges"]), (200, &json!(["3000000"])));
    assert!(first.json()["ExpirationDateTime"].is_string());
    let last = put(3_000_000, content.len());
    assert_eq!((last.status, last.bytes.len()), (201, 0));
    assert!(last.headers["location"].to_str().expect("ASCII").contains("/Attachments('"));
    assert_eq!(put(0, 10).status, 404, "the session is over");
    let mime = client.bytes(&format!("/v1.0/users/{user}/messages/{id}/$value"), &[]);
    assert!(mime.len() > content.len() * 4 / 3, "the attachment is in the message");
}

/// Returns the mailbox id, the inbox's id and the export of its first message.
fn exported(client: &Client, user: &str) -> (String, String, String) {
    let settings = client.get(&format!("/v1.0/users/{user}/settings/exchange")).1;
    let mailbox = settings["primaryMailboxId"].as_str().expect("an id").to_owned();
    let root = format!("/v1.0/admin/exchange/mailboxes/{mailbox}");
    let folder = client.get(&format!("{root}/folders/inbox")).1["id"].as_str().expect("an id").to_owned();
    let items = client.all(&format!("{root}/folders/{folder}/items"), &[]);
    let rows = client.post(&format!("{root}/exportItems"), &json!({"itemIds": [items[0]["id"]]})).1;
    let data = rows["value"][0]["data"].as_str().unwrap_or_else(|| panic!("no data in {rows}")).to_owned();
    (mailbox, folder, data)
}

fn session(client: &Client, mailbox: &str) -> String {
    let path = format!("/v1.0/admin/exchange/mailboxes/{mailbox}/createImportSession");
    let (status, body) = client.post(&path, &json!({}));
    assert_eq!(status, 200, "{body}");
    body["importUrl"].as_str().expect("a URL").to_owned()
}

#[test]
fn an_item_is_the_same_in_another_mailbox() {
    let simulator = start();
    let (tenant, users) = (simulator.tenant(), user_ids(&simulator));
    let client = Client::new(&simulator);
    let id = tenant
        .add_message(&users[0], "archive", NewMessage { read: true, received: Some(1_700_000_000), ..mail("x") })
        .unwrap();
    tenant.set_categories(&users[0], &id, vec!["Red".into()]).unwrap();
    let mailbox = |user: &str| {
        client.get(&format!("/v1.0/users/{user}/settings/exchange")).1["primaryMailboxId"].as_str().unwrap().to_owned()
    };
    let (from, to) = (mailbox(&users[0]), mailbox(&users[1]));
    let item = client
        .all(&format!("/v1.0/admin/exchange/mailboxes/{from}/folders/archive/items"), &[])
        .into_iter()
        .find(|item| item["categories"] == json!(["Red"]))
        .expect("the item");
    assert!(item["size"].as_u64() > Some(0) && item["type"] == "IPM.Note" && item.get("subject").is_none());

    let ids = json!({"itemIds": ["gone", item["id"]]});
    let rows = client.post(&format!("/v1.0/admin/exchange/mailboxes/{from}/exportItems"), &ids).1["value"].clone();
    let row = |id: &Value| rows.as_array().unwrap().iter().find(|row| row["itemId"] == *id).unwrap().clone();
    assert_eq!(row(&json!("gone"))["error"]["code"], "ErrorItemNotFound");
    assert_eq!(row(&item["id"])["changeKey"], item["changeKey"]);

    let folder = client.get(&format!("/v1.0/admin/exchange/mailboxes/{to}/folders/archive")).1;
    let import_url = session(&client, &to);
    let import = |body: Value| {
        let headers = [("authorization", ""), ("content-type", "application/json")];
        let reply = client.send(Method::POST, &import_url, &headers, Some(body.to_string().into_bytes()));
        (reply.status, reply.json())
    };
    let data = row(&item["id"])["data"].clone();
    let (status, created) = import(json!({"FolderId": folder["id"], "Mode": "create", "Data": data}));
    assert_eq!(status, 200, "{created}");
    let there = |user: &str, wanted: &dyn Fn(&Value) -> bool| {
        let truth = tenant.truth(user).expect("a mailbox");
        truth.messages.into_iter().find(|message| wanted(&message.properties)).expect("the message")
    };
    let is_red = |properties: &Value| properties["categories"] == json!(["Red"]);
    let (source, copy) = (there(&users[0], &is_red), there(&users[1], &is_red));
    assert_eq!(source.mime, copy.mime);
    for name in ["isRead", "isDraft", "receivedDateTime", "flag", "categories"] {
        assert_eq!(source.properties[name], copy.properties[name], "{name}");
    }

    let update = |key: &Value| json!({"FolderId": folder["id"], "Mode": "update", "Data": data, "ItemId": created["itemId"], "ChangeKey": key});
    let mut both = update(&created["changeKey"]);
    both["Mode"] = json!("create");
    assert_eq!(import(both).0, 400);
    assert_eq!(import(json!({"FolderId": folder["id"], "Mode": "update", "Data": data})).0, 400);
    assert_eq!(import(update(&json!("old"))).0, 409);
    let (status, updated) = import(update(&created["changeKey"]));
    assert_eq!((status, &updated["itemId"]), (200, &created["itemId"]));
    assert_ne!(updated["changeKey"], created["changeKey"]);
    assert_eq!(import(json!({"FolderId": folder["id"], "Mode": "create", "Data": "AAAA"})).0, 400);
    let twenty_one = json!({"itemIds": vec!["x"; 21]});
    assert_eq!(client.post(&format!("/v1.0/admin/exchange/mailboxes/{from}/exportItems"), &twenty_one).0, 400);
    client.send(Method::POST, "/control/expire-import-sessions", &[], None);
    assert_eq!(import(json!({"FolderId": folder["id"], "Mode": "create", "Data": data})).0, 401);
}

#[test]
fn folders_of_the_import_api_have_ids_and_deltas_of_their_own() {
    let simulator = start();
    let (tenant, user) = (simulator.tenant(), &user_ids(&simulator)[0]);
    let client = Client::new(&simulator);
    let settings = client.get(&format!("/v1.0/users/{user}/settings/exchange")).1;
    let root = format!("/v1.0/admin/exchange/mailboxes/{}", settings["primaryMailboxId"].as_str().unwrap());
    let ids = |rows: &[Value]| -> BTreeSet<String> {
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let here = ids(&client.all(&format!("{root}/folders"), &[]));
    let there = ids(&client.all(&format!("/v1.0/users/{user}/mailFolders"), &[]));
    assert!(here.is_disjoint(&there) && !here.is_empty());

    let (rows, link) = client.delta(&format!("{root}/folders/delta"), &[]);
    assert!(ids(&rows).is_superset(&here));
    let (status, created) = client
        .post(&format!("{root}/folders/inbox/childFolders"), &json!({"displayName": "People", "type": "IPF.Contact"}));
    assert_eq!((status, &created["type"]), (201, &json!("IPF.Contact")));
    let (rows, link) = client.delta(&link, &[]);
    assert!(rows.iter().any(|row| row["id"] == created["id"] && row["displayName"] == "People"), "{rows:?}");
    let path = format!("{root}/folders/{}", created["id"].as_str().unwrap());
    assert_eq!(client.send(Method::DELETE, &path, &[], None).status, 204);
    let (rows, _) = client.delta(&link, &[]);
    assert!(rows.iter().any(|row| row["id"] == created["id"] && row["@removed"].is_object()), "{rows:?}");

    let items = format!("{root}/folders/inbox/items/delta");
    let (_, link) = client.delta(&items, &[]);
    let id = tenant.add_message(user, "inbox", mail("new")).unwrap();
    let (rows, link) = client.delta(&link, &[]);
    let item = rows[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!((rows.len(), rows[0]["type"].as_str()), (1, Some("IPM.Note")));
    tenant.move_message(user, &id, "archive").unwrap();
    let (rows, _) = client.delta(&link, &[]);
    assert_eq!((rows[0]["id"].as_str(), rows[0]["@removed"].is_object()), (Some(item.as_str()), true));
}

#[test]
fn json_is_compressed_for_who_takes_it_so() {
    let simulator = start();
    let client = Client::new(&simulator);
    let url = format!("{}/v1.0/users/{}/messages?$top=10", simulator.url(), user_ids(&simulator)[0]);
    let http = reqwest::Client::builder().no_gzip().build().expect("a client");
    let ask = |coding: &'static str| {
        client.block_on(async {
            let request = http.get(&url).bearer_auth(client.token()).header("accept-encoding", coding);
            let response = request.send().await.expect("an answer");
            (response.headers().get("content-encoding").cloned(), response.bytes().await.expect("a body"))
        })
    };
    let (coding, plain) = ask("identity");
    assert_eq!(coding, None);
    let (coding, packed) = ask("deflate, gzip");
    assert_eq!(coding.expect("a coding"), "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).expect("gzip");
    assert_eq!(unpacked, plain);
    assert!(packed.len() * 2 < plain.len());
}
