//! The client against a service with prepared answers.

mod batches;
mod bodies;

use super::*;
use crate::source::graph::pace::Pace;
use crate::source::graph::request::{Method, Target};
use crate::source::graph::testing::{SECRET, Say, Service, answer, error, json, token};
use crate::source::graph::urls::path;
use serde_json::{Value, json as value};

fn get() -> Request {
    Request::get("/users".to_owned(), Scope::Directory).labelled("listing users")
}

fn of_mailbox() -> Request {
    Request::get(path(&["users", "u", "messages", "m", "$value"]), Scope::mailbox("u"))
}

fn post() -> Request {
    Request::post(path(&["users", "u", "messages"]), Scope::mailbox("u"), &value!({ "subject": "x" }))
}

fn header<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    let head = request.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn a_transient_failure_is_tried_again() {
    let faults = [
        answer("500 Internal Server Error", "", ""),
        error("503 Service Unavailable", "ServiceNotAvailable"),
        answer("502 Bad Gateway", "Content-Type: text/html", "<html>"),
        answer("504 Gateway Timeout", "", ""),
        answer("408 Request Timeout", "", ""),
        error("400 Bad Request", "whatever").with("IO error during request payload read"),
        // An empty answer, one that is cut off in the middle, one of another type, and none at all.
        answer("200 OK", "", ""),
        Say::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"value\":".to_vec()),
        Say::Cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"val".to_vec()),
        json("200 OK", "<html>welcome to the hotel network</html>"),
        Say::Cut(Vec::new()),
        Say::Cut(b"HTTP/1.1 200".to_vec()),
        Say::Raw(b"no HTTP at all\r\n\r\n".to_vec()),
    ];
    for fault in faults {
        let service = Service::start([fault.clone(), json("200 OK", r#"{"value":[1]}"#)]).await;
        let got = service.client().json::<Value>(get()).await;
        assert_eq!(got.unwrap(), value!({ "value": [1] }), "after {fault:?}");
        assert_eq!(service.requests("/users").len(), 2, "after {fault:?}");
    }
}

impl Say {
    /// Replaces the message of an error by `words`.
    fn with(self, words: &str) -> Self {
        let Self::Raw(bytes) = self else { panic!("only whole answers have words") };
        let text = String::from_utf8(bytes).unwrap();
        let (status, body) = (text.lines().next().unwrap(), text.split("\r\n\r\n").nth(1).unwrap());
        json(status.strip_prefix("HTTP/1.1 ").unwrap(), &body.replace("secret words", words))
    }
}

#[tokio::test]
async fn a_lasting_failure_is_given_up() {
    let service = Service::start(vec![answer("503 Service Unavailable", "", ""); 9]).await;
    let error = service.client().json::<Value>(get()).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, Some(503)));
    assert!(error.is_transient() && !error.is_ambiguous());
    assert_eq!(service.requests("/users").len(), 6);

    // JSON of another type than expected is not likely to change.
    let service = Service::start(vec![json("200 OK", r#"{"name":"Alice"}"#); 9]).await;
    let error = service.client().json::<std::collections::HashMap<String, u32>>(get()).await.unwrap_err();
    assert_eq!((error.kind(), service.requests("/users").len()), (ErrorKind::Malformed, 3));
    let text = format!("{error:?}");
    assert!(text.contains("a value of another type at line 1") && !text.contains("Alice"), "{text}");

    let service = Service::start(vec![json("200 OK", "[1"); 9]).await;
    let error = service.client().json::<Value>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert_eq!(service.requests("/users").len(), 6);

    let unreachable = Service::start([]).await;
    let mut connection = unreachable.connection();
    // Nobody listens on port 9 of loopback.
    connection.endpoints = Endpoints::parse(&unreachable.url, "http://127.0.0.1:9").unwrap();
    let error = Client::new(connection).unwrap().json::<Value>(post()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.is_ambiguous(), "nothing was sent");
}

#[tokio::test]
async fn a_final_refusal_is_not_tried_again() {
    for (status, code, kind) in [
        ("400 Bad Request", "invalidRequest", ErrorKind::BadRequest),
        ("403 Forbidden", "ErrorAccessDenied", ErrorKind::Denied),
        ("404 Not Found", "ErrorItemNotFound", ErrorKind::NotFound),
        ("410 Gone", "SyncStateNotFound", ErrorKind::Resync),
        ("302 Found", "", ErrorKind::Malformed),
    ] {
        let service = Service::start([error(status, code)]).await;
        let error = service.client().json::<Value>(of_mailbox()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert_eq!(service.requests("/messages/").len(), 1, "{status}");
        assert!(!format!("{error} {error:?}").contains("secret words"));
        assert_eq!(error.detail(), Some("secret words"));
    }
}

#[tokio::test]
async fn an_empty_not_found_is_doubted() {
    let service = Service::start([answer("404 Not Found", "", ""), json("200 OK", "{}")]).await;
    service.client().json::<Value>(get()).await.unwrap();
    let service = Service::start(vec![answer("404 Not Found", "", ""); 9]).await;
    let error = service.client().json::<Value>(get()).await.unwrap_err();
    assert_eq!((error.kind(), service.requests("/users").len()), (ErrorKind::NotFound, 3));
}

#[tokio::test]
async fn a_post_is_not_sent_twice_unless_it_was_surely_not_carried_out() {
    for fault in [
        answer("500 Internal Server Error", "", ""),
        answer("504 Gateway Timeout", "", ""),
        Say::Cut(Vec::new()),
        Say::Cut(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{".to_vec()),
        json("201 Created", "<html>"),
    ] {
        let service = Service::start([fault.clone()]).await;
        let error = service.client().json::<Value>(post()).await.unwrap_err();
        assert!(error.is_ambiguous(), "{fault:?}");
        assert_eq!(service.requests("POST /v1.0").len(), 1, "{fault:?}");
        // Unless the caller says that the request creates nothing.
        let service = Service::start([fault]).await;
        service.client().json::<Value>(post().replayable(true)).await.unwrap();
    }
    for fault in [
        error("401 Unauthorized", "InvalidAuthenticationToken"),
        answer("429 Too Many Requests", "Retry-After: 1", ""),
        answer("503 Service Unavailable", "Retry-After: 1", ""),
    ] {
        let service = Service::start([fault.clone()]).await;
        service.client().json::<Value>(post()).await.unwrap();
        assert_eq!(service.requests("POST /v1.0").len(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_waited_out_and_counted() {
    let service = Service::start([answer("429 Too Many Requests", "Retry-After: 1", "")]).await;
    let client = service.client();
    let start = Instant::now();
    client.json::<Value>(of_mailbox()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let Counters { requests, throttled, bytes_received } = client.counters();
    assert_eq!((requests, throttled, bytes_received), (2, 1, 2));
}

#[tokio::test]
async fn a_service_that_asks_for_years_is_given_up_at_once() {
    // A century, and more seconds than fit into a number.
    for years in ["3155760000", "99999999999999999999999", "Thu, 31 Dec 9998 23:59:59 GMT"] {
        let service = Service::start([answer("429 Too Many Requests", &format!("Retry-After: {years}"), "")]).await;
        let client = service.client();
        let start = Instant::now();
        for _ in 0..3 {
            let error = client.json::<Value>(of_mailbox()).await.unwrap_err();
            assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Throttled, true), "{years}");
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{years}");
        assert_eq!(service.requests("/messages/").len(), 1, "it is left alone meanwhile");
        let error = client.json::<Value>(of_mailbox()).await.unwrap_err().to_string();
        let words = error.split("no requests for another ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!((3_500..=3_600).contains(&words.parse::<u64>().unwrap()), "no longer than an hour: {error}");
        assert_eq!(client.pause(), None);
        client.json::<Value>(get()).await.expect("the directory does not wait for a mailbox");
    }
}

/// One byte every now and then: never silent, and never complete.
#[tokio::test]
async fn an_answer_that_drips_is_given_up() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let drip = Say::Drip(head.to_vec(), Duration::from_millis(20));
    let service = Service::start([drip.clone(), json("200 OK", "{}")]).await;
    let mut connection = service.connection();
    connection.pace = Pace {
        silence_max: Duration::from_secs(60),
        overhead_max: Duration::from_millis(600),
        bytes_per_second_min: 8 << 10,
    };
    Client::new(connection.clone()).unwrap().json::<Value>(get()).await.expect("it is asked for again");
    assert_eq!(service.requests("/users").len(), 2);

    // If the answer is read as a body, the error says how much came. The words of an error and a token are limited too.
    let service = Service::start([drip.clone()]).await;
    connection.endpoints = service.connection().endpoints;
    let client = Client::new(connection.clone()).unwrap();
    let mut body = client.body(of_mailbox()).await.unwrap();
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => assert!(chunk.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the answer came too slowly"), "{error}");
    let of_error = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 60000\r\n\r\n";
    let service = Service::start([Say::Drip(of_error.to_vec(), Duration::from_millis(20))]).await;
    service.login([drip]);
    connection.endpoints = service.connection().endpoints;
    let error = Client::new(connection).unwrap().json::<Value>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(service.requests("/oauth2/").len(), 2);
}

/// The deadline depends on the size, and only the time spent waiting for the network counts.
#[tokio::test]
async fn an_answer_at_a_steady_rate_may_take_long() {
    // 40 pieces of 4 KiB, 20 ms apart, are 200 KiB/s. The overhead alone would end after 300 ms.
    let piece = vec![b'x'; 4 << 10];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 40 * piece.len()).into_bytes();
    let service = Service::start([Say::Pieces(head, vec![piece; 40], Duration::from_millis(20))]).await;
    let mut connection = service.connection();
    connection.pace = Pace {
        silence_max: Duration::from_secs(60),
        overhead_max: Duration::from_millis(300),
        bytes_per_second_min: 4 << 10,
    };
    let mut body = Client::new(connection).unwrap().body(of_mailbox()).await.unwrap();
    let mut len = 0;
    while let Some(chunk) = body.chunk().await.unwrap() {
        if len == 0 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        len += chunk.len();
    }
    assert_eq!(len, 40 * (4 << 10));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let service = Service::start([Say::Raw(Vec::new()), json("200 OK", "{}")]).await;
    let mut connection = service.connection();
    connection.pace.silence_max = Duration::from_millis(300);
    Client::new(connection).unwrap().json::<Value>(get()).await.expect("it is asked for again");
    assert_eq!(service.requests("/users").len(), 2);
}

/// An upload carries a person's mail, so it goes only to the service's own hosts.
#[tokio::test]
async fn an_upload_goes_only_to_the_service() {
    let (service, elsewhere) = (Service::start([]).await, Service::start([]).await);
    let client = service.client();
    let put = |url: String| Request::permitted(Method::PUT, url, Scope::mailbox("u"));
    let host = elsewhere.url.strip_prefix("http://").unwrap();
    for url in [
        format!("{}/upload?authtoken=x", elsewhere.url),
        format!("http://outlook.office.com@{host}/upload"),
        format!("http://localhost:{}/upload", service.url.rsplit(':').next().unwrap()),
        "https://outlook.office.com.evil.example/upload".to_owned(),
    ] {
        let error = client.bytes(put(url.clone()), 9).await.unwrap_err();
        assert_eq!((error.kind(), error.is_ambiguous()), (ErrorKind::Malformed, false), "{url}");
    }
    assert_eq!(elsewhere.requests("").len() + service.requests("").len(), 0);
    client.bytes(put(format!("{}/outlook.office.com/upload", service.url)), 9).await.unwrap();
    assert_eq!(header(&service.requests("PUT")[0], "authorization"), [""; 0]);
}

#[tokio::test]
async fn a_refused_token_is_replaced() {
    let refused = || error("401 Unauthorized", "InvalidAuthenticationToken");
    let service = Service::start([refused(), refused(), json("200 OK", "{}")]).await;
    service.client().json::<Value>(get()).await.unwrap();
    let tokens: Vec<_> =
        service.requests("/users").iter().map(|request| header(request, "authorization").join("")).collect();
    assert_eq!(tokens, ["Bearer canary-token-1", "Bearer canary-token-2", "Bearer canary-token-3"]);

    let service = Service::start((0..9).map(|_| refused())).await;
    let error = service.client().json::<Value>(get()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::SignIn, Some("InvalidAuthenticationToken")));
    assert_eq!(service.requests("/users").len(), 6);
}

/// If the service refuses the token of twenty requests at the same time, one new token is enough.
#[tokio::test]
async fn a_token_is_asked_for_once() {
    let service = Service::start(vec![error("401 Unauthorized", "InvalidAuthenticationToken"); 10]).await;
    let mut connection = service.connection();
    connection.concurrency = 10;
    let client = Client::new(connection).unwrap();
    let all = (0..10).map(|_| client.json::<Value>(get()));
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    assert_eq!(service.requests("/oauth2/").len(), 2);
}

#[tokio::test]
async fn a_wrong_secret_is_explained_and_not_tried_again() {
    let refused = json(
        "401 Unauthorized",
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret.\r\nTrace ID: 1","error_codes":[7000215]}"#,
    );
    let service = Service::start([]).await;
    service.login([refused]);
    let client = service.client();
    let all = (0..5).map(|_| client.json::<Value>(get()));
    for result in futures_util::future::join_all(all).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::SignIn, Some("AADSTS7000215")));
        assert!(error.to_string().contains("the client secret is wrong"), "{error}");
        assert!(error.detail().unwrap().starts_with("AADSTS7000215: Invalid client secret."));
    }
    assert_eq!(service.requests("/oauth2/").len(), 1, "the others learn of it");
    assert_eq!(service.requests("/users").len(), 0);
}

#[tokio::test]
async fn the_token_endpoint_may_fail_for_a_while() {
    let service = Service::start([]).await;
    service.login([
        answer("503 Service Unavailable", "", ""),
        Say::Cut(Vec::new()),
        json("200 OK", "{\"access_"),
        answer("429 Too Many Requests", "Retry-After: 1", ""),
        json("400 Bad Request", r#"{"error":"temporarily_unavailable"}"#),
    ]);
    service.client().json::<Value>(get()).await.unwrap();
    let requests = service.requests("/contoso.com/oauth2/v2.0/token");
    assert_eq!(requests.len(), 6);
    let form = requests[0].split("\r\n\r\n").nth(1).unwrap();
    let form: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).collect();
    let has = |name: &str, value: &str| form.iter().any(|(key, found)| key == name && found == value);
    assert!(has("grant_type", "client_credentials") && has("client_id", "app") && has("client_secret", SECRET));
    assert!(has("scope", &format!("{}/.default", service.url)));
}

#[tokio::test]
async fn a_token_near_its_end_is_used_while_no_other_is_to_be_had() {
    let service = Service::start([]).await;
    // The token lives for two seconds, and is renewed after one and a half.
    service.login([token(1, 2)]);
    let client = service.client();
    client.json::<Value>(get()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    service.login([json("400 Bad Request", r#"{"error":"invalid_client","error_codes":[7000222]}"#)]);
    client.json::<Value>(get()).await.expect("it is still good");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let error = client.json::<Value>(get()).await.unwrap_err();
    assert_eq!(error.code(), Some("AADSTS7000222"));
}

#[tokio::test]
async fn requests_carry_what_the_service_wants() {
    let service = Service::start([answer("500 Internal Server Error", "", "")]).await;
    let client = service.client();
    let request = Request::get(path(&["users", "a#b'c/d@e", "messages"]), Scope::mailbox("u"))
        .query("$select", "id,changeKey")
        .query("$filter", "displayName eq 'a&b +%'")
        .prefer("odata.maxpagesize=5")
        .prefer("IdType=\"ImmutableId\"");
    client.json::<Value>(request).await.unwrap();
    client.json::<Value>(get()).await.unwrap();
    client.bytes(Request::get_beta("/users".into(), Scope::Directory), 9).await.unwrap();
    client.json::<Value>(post()).await.unwrap();

    let requests = service.requests("/v1.0/users/a");
    assert_eq!(
        requests[0].lines().next().unwrap(),
        "GET /v1.0/users/a%23b%27c%2Fd%40e/messages?$select=id,changeKey&$filter=displayName%20eq%20%27a%26b%20%2B%25%27 HTTP/1.1"
    );
    assert_eq!(header(&requests[0], "prefer"), ["odata.maxpagesize=5, IdType=\"ImmutableId\""]);
    assert_eq!(header(&requests[0], "accept"), ["application/json"]);
    assert_eq!(header(&requests[0], "accept-encoding"), ["gzip"]);
    assert!(header(&requests[0], "user-agent")[0].starts_with("ISV|Strongroom|Strongroom/"));
    assert!(header(&requests[0], "x-ms-throttle-priority").is_empty());
    let ids: Vec<_> = requests.iter().map(|request| header(request, "client-request-id")[0]).collect();
    assert!(ids[0].len() == 36 && ids[0] != ids[1], "a fresh id for each attempt: {ids:?}");
    let of_directory = service.requests("GET /v1.0/users ");
    assert_eq!(header(&of_directory[0], "x-ms-throttle-priority"), ["low"]);
    assert_eq!(service.requests("GET /beta/users ").len(), 1);
    let posts = service.requests("POST /v1.0");
    assert!(posts[0].ends_with("\r\n\r\n{\"subject\":\"x\"}"));
    assert_eq!(header(&posts[0], "content-type"), ["application/json"]);
}

#[tokio::test]
async fn a_token_is_sent_nowhere_else() {
    let (service, elsewhere) = (Service::start([]).await, Service::start([]).await);
    let client = service.client();
    let port = service.url.rsplit(':').next().unwrap();
    for link in [
        format!("{}/v1.0/users?$skiptoken=x", elsewhere.url),
        format!("https://127.0.0.1:{port}/v1.0/users"),
        format!("http://localhost:{port}/v1.0/users"),
        format!("http://127.0.0.1:{port}@{}/v1.0/users", elsewhere.url.strip_prefix("http://").unwrap()),
        format!("http://user@127.0.0.1:{port}/v1.0/users"),
        format!("{}/v1.0/users//messages", service.url),
        format!("{}/v1.0/users/%2e%2e/messages", service.url),
        "//elsewhere/v1.0/users".to_owned(),
        "/v1.0/users".to_owned(),
        String::new(),
    ] {
        let error = client.json::<Value>(Request::follow(link.clone(), Scope::Directory)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{link}");
    }
    let to = format!("Location: {}/v1.0/stolen", elsewhere.url);
    let redirecting = Service::start([answer("307 Temporary Redirect", &to, "")]).await;
    let error = redirecting.client().json::<Value>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert_eq!(elsewhere.requests("").len() + service.requests("").len(), 0);

    let link = format!("{}/v1.0/users('a')/messages/delta?$skiptoken=a%2Fb+c&x=%27", service.url);
    client.json::<Value>(Request::follow(link, Scope::Directory)).await.unwrap();
    let line = "GET /v1.0/users('a')/messages/delta?$skiptoken=a%2Fb+c&x=%27 HTTP/1.1";
    assert_eq!(service.requests("delta")[0].lines().next().unwrap(), line, "followed as it is");
}

#[tokio::test]
async fn paths_lead_where_they_say() {
    let service = Service::start([]).await;
    for path in
        [path(&["users", "", "messages"]), path(&["users", "..", "messages"]), "users".to_owned(), "/a/../b".to_owned()]
    {
        let error = service.client().json::<Value>(Request::get(path, Scope::Directory)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }
    assert_eq!(service.requests("").len(), 0);
}

#[tokio::test]
async fn cancelling_ends_everything() {
    let service = Service::start([answer("429 Too Many Requests", "Retry-After: 600", "")]).await;
    let client = service.client();
    let (waiting, ()) = tokio::join!(client.json::<Value>(of_mailbox()), async {
        while client.counters().throttled == 0 {
            tokio::task::yield_now().await;
        }
        client.cancel();
    });
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(client.clone().bytes(get(), 9).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(service.requests("/users").len(), 1);
}

#[tokio::test]
async fn other_methods_are_sent_as_asked() {
    let service = Service::start([answer("500 Oops", "", ""), answer("204 No Content", "", "")]).await;
    let target = Target::Path(path(&["users", "u", "messages", "m"]));
    let delete = Request::new(Method::DELETE, target, Scope::mailbox("u"));
    assert_eq!(service.client().bytes(delete, 0).await.unwrap(), "");
    assert_eq!(service.requests("DELETE /v1.0/users/u/messages/m ").len(), 2, "deleting twice is deleting once");
}

/// At the most verbose level, of this program and of all its libraries.
#[tokio::test]
async fn no_log_has_a_secret_in_it() {
    use crate::source::graph::auth::{browser, device};
    use crate::source::graph::{Credential, TokenCache};
    use tracing_subscriber::util::SubscriberInitExt;

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    // All work of this test runs on this thread.
    let guard = subscriber.with_writer(move || writer.clone()).finish().set_default();
    let link = |service: &Service| format!("{}/v1.0/users?$skiptoken=canary-link", service.url);
    let service = Service::start([
        error("401 Unauthorized", "InvalidAuthenticationToken"),
        answer("429 Too Many Requests", "Retry-After: 1", "canary-words"),
        error("500 Internal Server Error", "canary@words").with("canary-message"),
        Say::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"canary-body\":".to_vec()),
        json("200 OK", r#"["canary-json"]"#),
        Say::Cut(Vec::new()),
        answer("307 Temporary Redirect", "Location: http://127.0.0.1/canary-redirect", ""),
    ])
    .await;
    let client = service.client();
    let id = "canary-id@contoso.com";
    let of_person =
        || Request::get(path(&["users", id, "messages"]), Scope::mailbox(id)).query("$search", "canary-search");
    client.json::<Vec<String>>(of_person()).await.unwrap();
    client.json::<Value>(of_person()).await.unwrap_err();
    let post = Request::post(path(&["users", id]), Scope::mailbox(id), &value!({ "canary-post": 1 }));
    client.json::<Value>(post).await.unwrap();
    client.json::<Value>(Request::follow(link(&service), Scope::Directory)).await.unwrap();
    client.json::<Value>(Request::follow("http://canary-host/".to_owned(), Scope::Directory)).await.unwrap_err();
    for code in ["invalid_grant", "invalid_client"] {
        let refused = r#"{"error":"CODE","error_description":"canary-description","error_codes":[1]}"#;
        let other = service.client();
        service.login([json("400 Bad Request", &refused.replace("CODE", code))]);
        other.json::<Value>(get()).await.unwrap_err();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut connection = service.connection();
    connection.credential = Credential::Login { client_id: "app".to_owned() };
    connection.state = Some(TokenCache::open(folder.path()).unwrap());
    let device = r#"{"device_code":"canary-device","user_code":"canary-user-code","verification_uri":"x","expires_in":9,"interval":0}"#;
    service.login([json("200 OK", device)]);
    device::sign_in(&connection, |_| ()).await.unwrap();
    Client::new(connection.clone()).unwrap().json::<Value>(get()).await.unwrap();
    let browser = |page: &Url| {
        let of = |name: &str| page.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        let (back, state) = (of("redirect_uri"), of("state"));
        tokio::spawn(async move {
            let mut stream =
                tokio::net::TcpStream::connect(back.replace("http://localhost", "127.0.0.1")).await.unwrap();
            let head = format!("GET /?code=canary-code&state={state} HTTP/1.1\r\n\r\n");
            tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        });
    };
    browser::sign_in(&connection, browser).await.unwrap();
    drop(guard);

    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(log.contains("client_request_id") && log.contains("trying again"), "something was logged");
    assert!(log.contains("hyper") || log.contains("reqwest"), "the layers below were heard");
    let line = log.lines().find(|line| line.contains("canary"));
    assert_eq!(line, None);
}

#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn futures_may_change_threads() {
    fn is_send<T: Send>(_: &T) {}
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Service::start([]).await.client();
        is_send(&client.json::<Value>(get()));
        is_send(&client.body(get()));
        is_send(&client.bytes(get(), 1));
    });
}
