//! The Graph client against the simulated tenant. Checks that both understand the protocol in the same way, and how the
//! client handles limits, faults and every way of signing in.

use serde::Deserialize;
use serde_json::Value;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use strongroom::source::graph::auth::{browser, device};
use strongroom::source::graph::{
    Client, Connection, Credential, Endpoints, ErrorKind, GraphError, Limits, Request, RetryPolicy, Scope, TokenCache,
    path,
};
use strongroom_simulator::auth::{AccessPolicy, Certificate, DeviceAnswer};
use strongroom_simulator::throttle::{Rate, RetryAfter};
use strongroom_simulator::{Fault, Faults, Limits as ServiceLimits, Options, Organisation, Rules, Simulator};
use tempfile::TempDir;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

const CERTIFICATE: &str = include_str!("../../tools/simulator/src/auth/testdata/certificate.pem");
const KEY: &str = include_str!("../../tools/simulator/src/auth/testdata/key.pem");
const OTHER: &str = include_str!("../../tools/simulator/src/auth/testdata/other.pem");

fn start(options: Options) -> Simulator {
    let organisation = Organisation { users: 3, messages: 40, ..Organisation::default() };
    Simulator::start(Options { organisation, ..options }).expect("a simulator")
}

fn connection(simulator: &Simulator) -> Connection {
    let secret = Zeroizing::new(simulator.client_secret().to_owned());
    let credential = Credential::Secret { client_id: simulator.client_id().to_owned(), secret };
    let endpoints = Endpoints::parse(simulator.url(), simulator.url()).expect("URLs");
    let mut connection = Connection::new(endpoints, simulator.tenant_id(), credential);
    connection.retry = RetryPolicy {
        delay_min: Duration::from_millis(2),
        delay_max: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    connection
}

fn client(simulator: &Simulator) -> Client {
    Client::new(connection(simulator)).expect("a client")
}

fn login(simulator: &Simulator, folder: &TempDir) -> Connection {
    let mut connection = connection(simulator);
    connection.credential = Credential::Login { client_id: simulator.client_id().to_owned() };
    connection.state = Some(TokenCache::open(folder.path()).expect("a cache"));
    connection
}

fn users() -> Request {
    Request::get(path(&["users"]), Scope::Directory).labelled("listing users").query("$select", "id,userPrincipalName")
}

fn me() -> Request {
    Request::get(path(&["me", "mailFolders", "inbox"]), Scope::mailbox("me"))
}

fn inbox(user: &str) -> Request {
    Request::get(path(&["users", user, "mailFolders", "inbox"]), Scope::mailbox(user)).labelled("reading the inbox")
}

fn user_ids(simulator: &Simulator) -> Vec<String> {
    simulator.tenant().users().iter().map(|user| user.id.clone()).collect()
}

#[derive(Deserialize)]
struct Page {
    value: Vec<Value>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
}

/// Reads every message of a folder: the list page by page, then each message as a whole. Returns ids and bytes.
async fn read_folder(client: &Client, user: &str, folder: &str) -> Result<Vec<(String, Vec<u8>)>, GraphError> {
    let scope = Scope::mailbox(user);
    let prefer = |request: Request| request.prefer("odata.maxpagesize=7").prefer("IdType=\"ImmutableId\"");
    let first = path(&["users", user, "mailFolders", folder, "messages", "delta"]);
    let mut request = prefer(Request::get(first, scope.clone()).query("$select", "id"));
    let mut messages = Vec::new();
    loop {
        let page: Page = client.json(request).await?;
        for row in page.value {
            let id = row["id"].as_str().expect("rows have ids").to_owned();
            let value = path(&["users", user, "messages", &id, "$value"]);
            let bytes = client.bytes(prefer(Request::get(value, scope.clone()).uncoded()), 64 << 20).await?;
            messages.push((id, bytes.to_vec()));
        }
        match page.next {
            Some(next) => request = prefer(Request::follow(next, scope.clone())),
            None => break,
        }
    }
    messages.sort();
    Ok(messages)
}

/// Asserts that `client` reads all messages of all mailboxes unchanged.
async fn assert_reads_everything(simulator: &Simulator, client: &Client) {
    for user in user_ids(simulator) {
        let truth = simulator.tenant().truth(&user).expect("a mailbox");
        for folder in truth.folders.iter().filter(|folder| folder.visible && !folder.search) {
            let got = read_folder(client, &user, &folder.id).await.expect("everything can be read");
            let mut expected: Vec<_> = truth
                .messages
                .iter()
                .filter(|message| message.folder == folder.id)
                .map(|message| (message.id.clone(), message.mime.clone()))
                .collect();
            expected.sort();
            assert_eq!(got.len(), expected.len(), "in {:?}", folder.path);
            assert!(got == expected, "other messages in {:?}", folder.path);
        }
    }
}

/// Asks for the inboxes of all mailboxes as quickly as possible for `time`. Returns the number of answers.
async fn ask_for(simulator: &Simulator, client: &Client, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for user in user_ids(simulator) {
        for _ in 0..6 {
            let (client, user) = (client.clone(), user.clone());
            tasks.spawn(async move {
                let mut answers = 0;
                while Instant::now() < end {
                    let left = end.saturating_duration_since(Instant::now());
                    match tokio::time::timeout(left, client.json::<Value>(inbox(&user))).await {
                        Ok(answer) => drop(answer.expect("an inbox")),
                        Err(_) => break,
                    }
                    answers += 1;
                }
                answers
            });
        }
    }
    tasks.join_all().await.into_iter().sum()
}

/// Limits like the published ones, in a shorter window. The tests of the gate use the full size and a model of the
/// service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_tenths_of_the_limits_and_one_refusal_in_a_hundred() {
    const WINDOW_S: u64 = 4;
    const MAX: u64 = 200;
    let limits = ServiceLimits {
        mailbox_requests: Some(Rate::per(MAX, WINDOW_S)),
        service_time_ms: 5,
        ..ServiceLimits::default()
    };
    let simulator = start(Options { limits, ..Options::default() });
    let mut connection = connection(&simulator);
    connection.limits =
        Limits { mailbox_requests: MAX as u32, mailbox_window: Duration::from_secs(WINDOW_S), ..Limits::default() };
    let client = Client::new(connection).expect("a client");
    // Three windows: requests that become free at the end of a window may be used at once.
    let answers = ask_for(&simulator, &client, Duration::from_secs(3 * WINDOW_S)).await;

    let allowed = 3 * MAX * user_ids(&simulator).len() as u64;
    let counts = simulator.counters();
    println!("{answers} answers of {allowed}, {} refused", counts.throttled);
    assert!(answers * 10 >= allowed * 9, "{answers} answers of {allowed}, {} refused", counts.throttled);
    assert!(counts.throttled * 100 < answers, "{} of {answers} refused", counts.throttled);
    assert_eq!(counts.throttled, client.counters().throttled);
    for (_, peak) in counts.peak_concurrency {
        assert!(peak <= 4, "{peak} at a time");
    }
}

/// The client may know wrong limits. Then it learns the right ones, and every request is answered in the end.
#[tokio::test]
async fn a_service_that_allows_less_than_it_says() {
    for retry_after in [RetryAfter::Seconds, RetryAfter::Date, RetryAfter::Absent] {
        let limits = ServiceLimits {
            mailbox_requests: Some(Rate::per(20, 1)),
            mailbox_concurrency: Some(2),
            service_time_ms: 5,
            retry_after,
            ..ServiceLimits::default()
        };
        let simulator = start(Options { limits, ..Options::default() });
        let mut connection = connection(&simulator);
        // Long enough for a window of the service to pass.
        connection.retry.delay_max = Duration::from_secs(2);
        let client = Client::new(connection).expect("a client");
        let all = user_ids(&simulator).into_iter().flat_map(|user| (0..25).map(move |_| inbox(&user)));
        for answer in futures_util::future::join_all(all.map(|request| client.json::<Value>(request))).await {
            answer.expect("an inbox");
        }
        assert!(client.counters().throttled > 0, "{retry_after:?}");
        assert_eq!(client.counters().throttled, simulator.counters().throttled);
    }
}

#[tokio::test]
async fn every_fault_that_passes_is_survived() {
    let simulator = start(Options::default());
    let user = &user_ids(&simulator)[0];
    let truth = simulator.tenant().truth(user).expect("a mailbox");
    let message = &truth.messages[0];
    let client = client(&simulator);
    for fault in Fault::ALL {
        let times = match fault {
            Fault::NotFound | Fault::DeltaExpired | Fault::ItemChanges | Fault::FolderVanishes => continue,
            // Only a caller that knows the message notices these faults.
            Fault::OtherBody | Fault::ShortBody => continue,
            fault if fault.is_hostile() => continue,
            Fault::NotFoundEmpty | Fault::TooManyRequests | Fault::Unavailable | Fault::Slow | Fault::Trickle => 1,
            _ => 3,
        };
        for what in ["/$value", "mailFolders"] {
            simulator.set_faults(Faults { slow_ms: 20, ..Faults::default() }.with_rule(what, times, fault));
            let value = path(&["users", user, "messages", &message.id, "$value"]);
            let value = Request::get(value, Scope::mailbox(user)).prefer("IdType=\"ImmutableId\"").uncoded();
            let bytes = client.bytes(value, 64 << 20).await.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
            assert!(bytes == message.mime, "{fault:?} changed a message");
            let folder = client.json::<Value>(inbox(user)).await.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
            assert!(folder["id"].is_string(), "{fault:?}: {folder}");
        }
    }
}

#[tokio::test]
async fn faults_that_do_not_pass_have_names() {
    let simulator = start(Options::default());
    let user = &user_ids(&simulator)[0];
    let client = client(&simulator);
    let not_found = Faults::default().with_rule("mailFolders", 9, Fault::NotFound);
    simulator.set_faults(not_found);
    assert_eq!(client.json::<Value>(inbox(user)).await.unwrap_err().kind(), ErrorKind::NotFound);

    simulator.set_faults(Faults::default());
    let delta = path(&["users", user, "mailFolders", "inbox", "messages", "delta"]);
    let mut request = Request::get(delta, Scope::mailbox(user));
    let link = loop {
        let page: Value = client.json(request).await.unwrap();
        match page["@odata.nextLink"].as_str() {
            Some(next) => request = Request::follow(next.to_owned(), Scope::mailbox(user)),
            None => break page["@odata.deltaLink"].as_str().expect("the end has a link").to_owned(),
        }
    };
    let follow = || Request::follow(link.clone(), Scope::mailbox(user));
    client.json::<Value>(follow()).await.unwrap();
    simulator.expire_deltas();
    let error = client.json::<Value>(follow()).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Resync, Some(410)));
    let strangers = simulator.url().replace("127.0.0.1", "localhost");
    let astray = link.replace(simulator.url(), &strangers);
    let error = client.json::<Value>(Request::follow(astray, Scope::mailbox(user))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[tokio::test]
async fn everything_is_read_on_a_bad_day() {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("STRONGROOM_SEED={seed}");
    let faults = Faults { on_sign_in: true, ..Faults::bad_day(seed, 5) };
    // Retry-After has no fractions of a second, so these faults would make the test long. A caller that only reads
    // cannot notice a wrong body.
    let left_out = [Fault::TooManyRequests, Fault::Unavailable, Fault::OtherBody];
    let rates = faults.rates.iter().filter(|(fault, _)| !left_out.contains(fault));
    let rates = rates.map(|(&fault, &rate)| (fault, rate)).filter(|(fault, _)| *fault != Fault::DeltaExpired).collect();
    let simulator = start(Options { faults: Faults { rates, ..faults }, ..Options::default() });
    let client = client(&simulator);
    assert_reads_everything(&simulator, &client).await;
    assert!(simulator.counters().faults > 20, "{} faults", simulator.counters().faults);
}

#[tokio::test]
async fn tokens_that_end_are_replaced() {
    // Tokens live for four seconds, and are replaced in the last second.
    let rules = Rules { token_lifetime_s: Some(4), ..Rules::default() };
    let simulator = start(Options { rules, limits: ServiceLimits::none(), ..Options::default() });
    let mut connection = connection(&simulator);
    connection.limits.directory_requests = u32::MAX;
    let client = Client::new(connection).expect("a client");
    let begin = Instant::now();
    let mut asked = 0;
    while simulator.counters().tokens_issued < 2 {
        client.json::<Value>(users()).await.unwrap();
        asked += 1;
    }
    assert!(begin.elapsed() >= Duration::from_secs(3));
    assert_eq!(client.counters().requests, asked, "the second came before the first was refused");

    // All tokens expire at once, in the middle of a run.
    simulator.expire_tokens();
    let all = (0..30).map(|_| client.json::<Value>(users()));
    for answer in futures_util::future::join_all(all).await {
        answer.unwrap();
    }
    assert_eq!(simulator.counters().tokens_issued, 3);
}

#[tokio::test]
async fn a_sign_in_that_is_refused_says_what_to_do() {
    let simulator = start(Options::default());
    let refused = async |change: &dyn Fn(&mut Connection)| {
        let mut connection = connection(&simulator);
        change(&mut connection);
        let error = Client::new(connection).unwrap().json::<Value>(users()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn);
        assert!(error.detail().is_some_and(|detail| detail.starts_with("AADSTS")), "{:?}", error.detail());
        error.to_string()
    };
    let id = || simulator.client_id().to_owned();
    let secret = |text: &str| Zeroizing::new(text.to_owned());
    let wrong = |connection: &mut Connection| {
        connection.credential = Credential::Secret { client_id: id(), secret: secret("wrong") };
    };
    assert!(refused(&wrong).await.contains("the client secret is wrong"));
    let unknown = |connection: &mut Connection| {
        let client_id = "5f9c4a52-0f5b-4b4e-8d3b-000000000000".to_owned();
        connection.credential = Credential::Secret { client_id, secret: secret(simulator.client_secret()) };
    };
    assert!(refused(&unknown).await.contains("the application is not in this tenant"));
    let elsewhere = |connection: &mut Connection| connection.tenant_id = "fabrikam.com".to_owned();
    assert!(refused(&elsewhere).await.contains("there is no such tenant"));
    let stranger = |connection: &mut Connection| {
        connection.credential = Credential::Certificate { client_id: id(), pem: secret(&format!("{KEY}{OTHER}")) };
    };
    assert!(refused(&stranger).await.contains("upload the certificate"));
}

#[tokio::test]
async fn a_certificate_signs_in() {
    let certificates = vec![Certificate::new(CERTIFICATE.as_bytes()).expect("a certificate")];
    let rules = Rules { refuse_reused_assertions: true, ..Rules::default() };
    let simulator = start(Options { certificates, rules, ..Options::default() });
    let mut connection = connection(&simulator);
    let pem = Zeroizing::new(format!("{CERTIFICATE}{KEY}"));
    connection.credential = Credential::Certificate { client_id: simulator.client_id().to_owned(), pem };
    let client = Client::new(connection).unwrap();
    client.json::<Value>(users()).await.unwrap();
    simulator.expire_tokens();
    client.json::<Value>(users()).await.unwrap();
    assert_eq!(simulator.counters().tokens_issued, 2);
}

#[tokio::test]
async fn a_device_signs_in_and_stays_signed_in() {
    let rules = Rules {
        device_answers: vec![DeviceAnswer::Pending, DeviceAnswer::AwaitPage],
        device_interval_s: 0,
        single_use_refresh_tokens: true,
        ..Rules::default()
    };
    let simulator = start(Options { rules, ..Options::default() });
    let folder = TempDir::new().expect("a folder");
    let connection = login(&simulator, &folder);
    let signed_in = device::sign_in(&connection, |prompt| {
        assert!(prompt.message.contains(&prompt.user_code) && prompt.message.contains(&prompt.verification_uri));
        assert!(simulator.authority().approve_device(&prompt.user_code));
    });
    let signed_in = signed_in.await.unwrap();
    assert!(signed_in.scopes.iter().any(|scope| scope.ends_with("Mail.Read")), "{signed_in:?}");

    // Each of these clients is another run, with the cache that the run before left. Every refresh token works once.
    for _ in 0..3 {
        let client = Client::new(connection.clone()).unwrap();
        client.json::<Value>(me()).await.unwrap();
        simulator.expire_tokens();
        client.json::<Value>(me()).await.unwrap();
    }
    simulator.authority().revoke_sessions();
    let error = Client::new(connection.clone()).unwrap().json::<Value>(me()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert!(error.to_string().contains("`strongroom tenant login`"), "{error}");

    for (answer, words) in [(DeviceAnswer::Declined, "declined"), (DeviceAnswer::Expired, "in time")] {
        simulator.authority().change_rules(|rules| rules.device_answers = vec![answer]);
        let error = device::sign_in(&connection, |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_browser_signs_in() {
    let simulator = start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let connection = login(&simulator, &folder);
    // The simulated page signs in everybody who comes and sends the browser back. The real page asks questions first.
    let browser = |page: &url::Url| {
        let page = page.to_string();
        tokio::spawn(async move { reqwest::get(page).await?.text().await });
    };
    let signed_in = browser::sign_in(&connection, browser).await.unwrap();
    assert!(signed_in.scopes.iter().any(|scope| scope.ends_with("Mail.Read")), "{signed_in:?}");
    let client = Client::new(connection.clone()).unwrap();
    client.json::<Value>(me()).await.unwrap();
    let claims = client.sign_in().await.unwrap().expect("a token that says what it allows");
    assert_eq!((&*claims.tid, claims.roles.len()), (simulator.tenant_id(), 0));
    assert!(claims.scp.contains("Mail.Read"));
}

#[tokio::test]
async fn what_is_not_allowed_is_named() {
    let simulator = start(Options::default());
    let user = &user_ids(&simulator)[0];
    simulator.set_permissions(["User.Read.All"]);
    let client_without_mail = client(&simulator);
    assert_eq!(client_without_mail.json::<Value>(inbox(user)).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(client_without_mail.sign_in().await.unwrap().unwrap().roles, ["User.Read.All"]);
    simulator.set_permissions(["Mail.Read"]);
    let error = client(&simulator).json::<Value>(users()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::MissingPermission, Some("Authorization_RequestDenied")));
    let policy = AccessPolicy::Deny([user.clone()].into());
    simulator.authority().change_rules(|rules| rules.access_policy = policy);
    assert_eq!(client(&simulator).json::<Value>(inbox(user)).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(client(&simulator).json::<Value>(inbox("nobody")).await.unwrap_err().kind(), ErrorKind::NoMailbox);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics here").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log at the highest level, of this program and of all its libraries.
#[tokio::test]
async fn no_log_has_a_secret_or_a_person_in_it() {
    use tracing_subscriber::filter::dynamic_filter_fn;
    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::prelude::*;
    let log = Log::default();
    let writer = log.clone();
    // Only for this thread, on which the client runs too. The subscriber is that of the process: a subscriber of one
    // thread misses each log statement that another test of this file reached first.
    let here = thread::current().id();
    let is_here = dynamic_filter_fn(move |_, _| thread::current().id() == here);
    tracing_subscriber::registry().with(layer().with_writer(move || writer.clone()).with_filter(is_here)).init();
    let simulator = start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let login = login(&simulator, &folder);
    device::sign_in(&login, |prompt| {
        simulator.authority().approve_device(&prompt.user_code);
    })
    .await
    .unwrap();
    // After the device's sign-in: if the answer to that is lost, its code is used up.
    let faults = Faults { on_sign_in: true, ..Faults::bad_day(3, 6) };
    let rates = faults.rates.iter().filter(|(fault, _)| **fault != Fault::DeltaExpired);
    simulator.set_faults(Faults { rates: rates.map(|(&fault, &rate)| (fault, rate)).collect(), ..faults });
    let as_person = Client::new(login).unwrap();
    as_person.json::<Value>(me()).await.unwrap();
    let client = client(&simulator);
    client.json::<Value>(users()).await.unwrap();
    let users = simulator.tenant().users();
    let alice = users[0].principal_name();
    read_folder(&client, &alice, "inbox").await.unwrap();
    simulator.expire_tokens();
    client.json::<Value>(inbox("nobody@contoso.com")).await.unwrap_err();

    let log = String::from_utf8(log.0.lock().expect("nobody panics here").clone()).expect("text");
    assert!(log.contains("client_request_id"), "something was logged");
    // Every JWT begins with `eyJ`. The other tokens, subjects and addresses are known.
    let mut secrets = vec!["eyJ".to_owned(), simulator.client_secret().to_owned(), "nobody@".to_owned()];
    secrets.extend(users.iter().flat_map(|user| [user.id.clone(), user.principal_name(), user.display_name()]));
    let truth = simulator.tenant().truth(&alice).expect("a mailbox");
    for message in truth.messages {
        secrets.push(message.id);
        secrets.extend(message.properties["subject"].as_str().filter(|text| text.len() > 8).map(str::to_owned));
    }
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}
