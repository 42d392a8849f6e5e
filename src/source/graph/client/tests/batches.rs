//! Batches: several reads of one mailbox in one request.

use super::*;

/// Returns `count` reads of one mailbox.
fn reads(count: usize) -> Vec<Request> {
    let read = |number: usize| {
        let path = path(&["users", "u", "contactFolders", &number.to_string(), "childFolders"]);
        Request::get(path, Scope::mailbox("u")).labelled("listing folders").query("$top", "250").prefer("a=1")
    };
    (0..count).map(read).collect()
}

/// Returns the answer to one request of a batch.
fn inner(id: usize, status: u16, headers: Value, body: Value) -> Value {
    value!({ "id": id.to_string(), "status": status, "headers": headers, "body": body })
}

fn good(id: usize, number: usize) -> Value {
    inner(id, 200, value!({ "Content-Type": "application/json" }), value!({ "number": number }))
}

fn bad(id: usize, status: u16, code: &str) -> Value {
    inner(id, status, value!({}), value!({ "error": { "code": code, "message": "secret words" } }))
}

fn batch(responses: &[Value]) -> Say {
    json("200 OK", &value!({ "responses": responses }).to_string())
}

async fn send(service: &Service, count: usize) -> Vec<Result<u64, GraphError>> {
    let read = |_: &Request, body: &Bytes| {
        let value: Value = json::read(body).map_err(|error| Failure::of_json("listing folders", body.len(), &error))?;
        value["number"].as_u64().ok_or_else(|| Failure::of_another("listing folders", "it has no number"))
    };
    service.client().batch(&reads(count), read).await
}

/// Returns the URLs of the requests in each batch that was sent.
fn sent(service: &Service) -> Vec<Vec<String>> {
    let batches = service.requests("/v1.0/$batch");
    let urls = batches.iter().map(|request| {
        let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        let steps = body["requests"].as_array().unwrap().clone();
        steps.iter().map(|step| step["url"].as_str().unwrap().to_owned()).collect()
    });
    urls.collect()
}

fn url(number: usize) -> String {
    format!("/users/u/contactFolders/{number}/childFolders?$top=250")
}

fn numbers(results: &[Result<u64, GraphError>]) -> Vec<Option<u64>> {
    results.iter().map(|result| result.as_ref().ok().copied()).collect()
}

#[tokio::test]
async fn reads_go_together_one_after_the_other_and_answers_come_in_any_order() {
    let first: Vec<_> = (0..20).rev().map(|id| good(id, id)).collect();
    let second = [good(1, 21), good(0, 20), good(2, 22)];
    let service = Service::start([batch(&first), batch(&second)]).await;
    let results = send(&service, 23).await;
    assert_eq!(numbers(&results), (0..23).map(Some).collect::<Vec<_>>());
    let sent = sent(&service);
    assert_eq!(sent, [(0..20).map(url).collect::<Vec<_>>(), (20..23).map(url).collect::<Vec<_>>()]);
    let body = service.requests("/v1.0/$batch").remove(1);
    let body: Value = serde_json::from_str(body.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body["requests"][1],
        value!({ "id": "1", "method": "GET", "url": url(21), "dependsOn": ["0"],
                 "headers": { "accept": "application/json", "prefer": "a=1" } })
    );
    assert_eq!(body["requests"][0].get("dependsOn"), None);
}

#[tokio::test]
async fn one_read_needs_no_batch() {
    let service = Service::start([json("200 OK", r#"{"number":7}"#)]).await;
    assert_eq!(numbers(&send(&service, 1).await), [Some(7)]);
    assert_eq!((sent(&service).len(), service.requests("childFolders").len()), (0, 1));
    assert!(send(&service, 0).await.is_empty());
}

#[tokio::test]
async fn a_read_that_is_throttled_is_sent_again_and_the_others_stand() {
    let throttled = inner(1, 429, value!({ "Retry-After": "1" }), value!({ "error": { "code": "TooManyRequests" } }));
    let rest = bad(2, 424, "FailedDependency");
    let service = Service::start([batch(&[rest, good(0, 0), throttled]), batch(&[good(0, 1), good(1, 2)])]).await;
    let started = Instant::now();
    let client = service.client();
    let read = |_: &Request, body: &Bytes| Ok::<_, Failure>(body.clone());
    let results = client.batch(&reads(3), read).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(sent(&service), [vec![url(0), url(1), url(2)], vec![url(1), url(2)]]);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((client.counters().throttled, client.counters().requests), (1, 2));
}

#[tokio::test]
async fn a_read_that_fails_fails_as_if_it_were_alone() {
    for (status, code, kind) in [
        (404, "ErrorItemNotFound", ErrorKind::NotFound),
        (403, "ErrorAccessDenied", ErrorKind::Denied),
        (410, "SyncStateNotFound", ErrorKind::Resync),
        (404, "MailboxNotEnabledForRESTAPI", ErrorKind::NoMailbox),
    ] {
        let first = batch(&[bad(2, 424, "FailedDependency"), good(0, 0), bad(1, status, code)]);
        let service = Service::start([first, batch(&[good(0, 2)])]).await;
        let results = send(&service, 3).await;
        assert_eq!(numbers(&results), [Some(0), None, Some(2)], "{code}");
        let error = results[1].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.status(), error.code()), (kind, Some(status), Some(code)));
        assert!(!format!("{error} {error:?}").contains("secret words"));
        assert_eq!(sent(&service)[1], [url(2)]);
    }
}

#[tokio::test]
async fn a_read_that_breaks_is_given_up_after_as_many_attempts_as_one_alone() {
    let service = Service::start(vec![batch(&[good(0, 0), bad(1, 503, "ServiceNotAvailable")]); 1]).await;
    service.graph(vec![batch(&[bad(0, 503, "ServiceNotAvailable")]); 9]);
    let results = send(&service, 2).await;
    assert_eq!(numbers(&results), [Some(0), None]);
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(sent(&service).len(), 6);
}

#[tokio::test]
async fn what_is_wrong_with_a_batch_is_asked_again() {
    let twice = [good(0, 9), good(0, 8), good(1, 1)];
    let stray = [good(0, 0), good(5, 5), inner(1, 200, value!({}), value!("PGh0bWw+"))];
    for (first, again) in [
        (json("200 OK", "<html>"), vec![url(0), url(1)]),
        (error("503 Service Unavailable", "ServiceNotAvailable"), vec![url(0), url(1)]),
        (batch(&[good(0, 0)]), vec![url(1)]),
        (batch(&twice), vec![url(0)]),
        (batch(&stray), vec![url(1)]),
        (batch(&[good(0, 0), bad(1, 424, "FailedDependency")]), vec![url(1)]),
        (batch(&[good(0, 0), inner(1, 7, value!({}), value!({}))]), vec![url(1)]),
    ] {
        let answers: Vec<_> =
            again.iter().enumerate().map(|(id, url)| good(id, usize::from(url.contains("/1/")))).collect();
        let service = Service::start([first.clone(), batch(&answers)]).await;
        assert_eq!(numbers(&send(&service, 2).await), [Some(0), Some(1)], "after {first:?}");
        assert_eq!(sent(&service)[1], again, "after {first:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_inside_a_batch_is_replaced() {
    let first = batch(&[bad(0, 401, "InvalidAuthenticationToken"), bad(1, 424, "FailedDependency")]);
    let service = Service::start([first, batch(&[good(0, 0), good(1, 1)])]).await;
    assert_eq!(numbers(&send(&service, 2).await), [Some(0), Some(1)]);
    let batches = service.requests("$batch");
    let tokens: Vec<_> = batches.iter().map(|request| header(request, "authorization")[0]).collect();
    assert_eq!(tokens, ["Bearer canary-token-1", "Bearer canary-token-2"]);
}

#[tokio::test]
async fn a_batch_as_a_whole_may_be_refused() {
    let service = Service::start([error("403 Forbidden", "ErrorAccessDenied")]).await;
    let results = send(&service, 2).await;
    assert!(results.iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::Denied));
    assert_eq!(sent(&service).len(), 1);
}

/// Each read of a batch counts against the limits of the mailbox.
#[tokio::test]
async fn the_gate_counts_each_read_of_a_batch() {
    let answers: Vec<_> = (0..10).map(|id| good(id, id)).collect();
    let service = Service::start([batch(&answers), json("200 OK", "{}")]).await;
    let mut connection = service.connection();
    (connection.limits.mailbox_requests, connection.limits.mailbox_window) = (10, Duration::from_secs(1));
    let client = Client::new(connection).unwrap();
    let started = Instant::now();
    let read = |_: &Request, _: &Bytes| Ok::<_, Failure>(());
    assert!(client.batch(&reads(10), read).await.iter().all(Result::is_ok));
    client.json::<Value>(of_mailbox()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}
