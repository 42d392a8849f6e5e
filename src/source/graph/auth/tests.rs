//! Signing in on behalf of a person, against a service with prepared answers.

use super::*;
use crate::source::graph::request::{Request, Scope};
use crate::source::graph::testing::{Say, Service, error, json, token};
use crate::source::graph::{Client, ErrorKind};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;
use url::Url;

fn connection(service: &Service, folder: &Path) -> Connection {
    let mut connection = service.connection();
    connection.credential = Credential::Login { client_id: "app".to_owned() };
    connection.state = Some(TokenCache::open(folder).unwrap());
    connection
}

fn holder(connection: &Connection) -> (String, String) {
    (connection.endpoints.oauth(&connection.tenant_id, "token"), "app".to_owned())
}

fn stored(connection: &Connection) -> Option<String> {
    let (authority, client_id) = holder(connection);
    let holder = Holder { authority: &authority, client_id: &client_id };
    connection.state.as_ref().unwrap().load(holder).unwrap().map(|token| token.to_string())
}

fn get() -> Request {
    Request::get("/me".to_owned(), Scope::Directory)
}

/// Returns the fields of the forms that were posted to `operation`.
fn forms(service: &Service, operation: &str) -> Vec<std::collections::BTreeMap<String, String>> {
    let requests = service.requests(&format!("/oauth2/v2.0/{operation}"));
    let body = |request: &String| request.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
    requests
        .iter()
        .map(|request| url::form_urlencoded::parse(body(request).as_bytes()).into_owned().collect())
        .collect()
}

fn device_code(expires_in: u64) -> Say {
    json(
        "200 OK",
        &format!(
            r#"{{"device_code":"canary-device","user_code":"ABC123","verification_uri":"https://microsoft.com/devicelogin","expires_in":{expires_in},"interval":0,"message":"To sign in, ..."}}"#
        ),
    )
}

fn pending() -> Say {
    json("400 Bad Request", r#"{"error":"authorization_pending","error_codes":[70016]}"#)
}

#[tokio::test]
async fn a_refresh_token_is_replaced_by_each_newer_one() {
    let folder = TempDir::new().unwrap();
    let service = Service::start([error("401 Unauthorized", "InvalidAuthenticationToken")]).await;
    let connection = connection(&service, folder.path());
    service.login([device_code(900), pending(), token(7, 3_600), token(8, 3_600), token(9, 3_600)]);
    device::sign_in(&connection, |_| ()).await.unwrap();
    assert_eq!(stored(&connection).as_deref(), Some("canary-refresh-7"));

    let client = Client::new(connection.clone()).unwrap();
    client.json::<Value>(get()).await.unwrap();
    let refreshes: Vec<_> =
        forms(&service, "token").into_iter().filter(|form| form["grant_type"] == "refresh_token").collect();
    let tokens: Vec<_> = refreshes.iter().map(|form| &*form["refresh_token"]).collect();
    assert_eq!(tokens, ["canary-refresh-7", "canary-refresh-8"]);
    assert_eq!(refreshes[0]["scope"], format!("{}/.default offline_access", service.url));
    assert_eq!(stored(&connection).as_deref(), Some("canary-refresh-9"));

    // Another process stored a newer token, so that one counts.
    let (authority, client_id) = holder(&connection);
    let holder = Holder { authority: &authority, client_id: &client_id };
    connection.state.as_ref().unwrap().store(holder, "canary-refresh-other").unwrap();
    Client::new(connection.clone()).unwrap().json::<Value>(get()).await.unwrap();
    assert_eq!(forms(&service, "token").last().unwrap()["refresh_token"], "canary-refresh-other");
}

/// Otherwise a crash between the two would leave a refresh token that the service may have revoked.
#[tokio::test]
async fn an_access_token_is_not_used_before_the_refresh_token_is_stored() {
    let folder = TempDir::new().unwrap();
    let service = Service::start([]).await;
    let connection = connection(&service, folder.path());
    service.login([device_code(900), token(1, 3_600)]);
    device::sign_in(&connection, |_| ()).await.unwrap();
    let client = Client::new(connection.clone()).unwrap();
    // A folder takes the place of the token's file.
    let file = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "token")).unwrap();
    let sealed = std::fs::read(&file).unwrap();
    service.login([Say::Cut(Vec::new()), token(2, 3_600)]);
    let (result, ()) = tokio::join!(client.json::<Value>(get()), async {
        while forms(&service, "token").len() < 2 {
            tokio::task::yield_now().await;
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
    });
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert!(error.to_string().contains("could not be stored"), "{error}");
    assert_eq!(service.requests("/v1.0/me").len(), 0);

    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, sealed).unwrap();
    Client::new(connection).unwrap().json::<Value>(get()).await.unwrap();
}

#[tokio::test]
async fn an_expired_sign_in_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let service = Service::start([]).await;
    let connection = connection(&service, folder.path());
    let error = Client::new(connection.clone()).unwrap().json::<Value>(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert!(error.to_string().contains("nobody has signed in yet: sign in with `strongroom tenant login`"), "{error}");
    assert_eq!(service.requests("").len(), 0);

    service.login([device_code(900), token(1, 3_600)]);
    device::sign_in(&connection, |_| ()).await.unwrap();
    for (codes, advice) in [("700082", "the sign-in has expired"), ("999999", "sign in with `strongroom tenant login`")]
    {
        service.login([json("400 Bad Request", &format!(r#"{{"error":"invalid_grant","error_codes":[{codes}]}}"#))]);
        let error = Client::new(connection.clone()).unwrap().json::<Value>(get()).await.unwrap_err();
        assert!(error.to_string().contains(advice), "{error}");
    }
    assert_eq!(stored(&connection).as_deref(), Some("canary-refresh-1"), "what was refused once may be right again");

    let mut without = connection;
    without.state = None;
    assert_eq!(Client::new(without).unwrap_err().kind(), ErrorKind::SignIn);
}

#[tokio::test]
async fn a_device_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let service = Service::start([]).await;
    let connection = connection(&service, folder.path());
    let gateway = json("502 Bad Gateway", "<html>");
    service.login([device_code(900), pending(), gateway, pending(), Say::Cut(Vec::new()), token(1, 3_600)]);
    let mut shown = None;
    device::sign_in(&connection, |prompt| shown = Some(prompt.clone())).await.unwrap();
    let shown = shown.unwrap();
    assert_eq!((&*shown.user_code, &*shown.verification_uri), ("ABC123", "https://microsoft.com/devicelogin"));
    assert_eq!((&*shown.message, shown.expires_in), ("To sign in, ...", Duration::from_secs(900)));
    assert!(!format!("{shown:?}").contains("ABC123"), "whoever has the code can sign in somebody else");
    let first = &forms(&service, "devicecode")[0];
    assert_eq!((&*first["client_id"], first.len()), ("app", 2));
    let poll = &forms(&service, "token")[0];
    assert_eq!(poll["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!((&*poll["device_code"], &*poll["client_id"]), ("canary-device", "app"));

    // Huge times are limited.
    let mut shown = None;
    service.login([device_code(u64::MAX), token(1, usize::MAX as u64)]);
    device::sign_in(&connection, |prompt| shown = Some(prompt.expires_in)).await.unwrap();
    assert_eq!(shown, Some(Duration::from_secs(3_600)));
    service.login([token(2, u64::MAX)]);
    Client::new(connection.clone()).unwrap().json::<Value>(get()).await.unwrap();

    // Nobody enters the code.
    service.login([device_code(0)]);
    let error = device::sign_in(&connection, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("in time"), "{error}");
    let blocked = r#"{"error":"access_denied","error_description":"AADSTS53003: Access has been blocked.","error_codes":[53003]}"#;
    service.login([json("400 Bad Request", blocked)]);
    let error = device::sign_in(&connection, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("Conditional Access"), "{error}");
    assert_eq!(error.detail(), Some("AADSTS53003: Access has been blocked."));
}

#[tokio::test]
async fn a_browser_comes_back_with_a_code() {
    let folder = TempDir::new().unwrap();
    let service = Service::start([]).await;
    let connection = connection(&service, folder.path());
    service.login([json(
        "200 OK",
        r#"{"access_token":"t","expires_in":9,"refresh_token":"canary-browser","scope":"Mail.Read User.Read"}"#,
    )]);
    let page = std::cell::OnceCell::<Url>::new();
    let browser = async {
        while page.get().is_none() {
            tokio::task::yield_now().await;
        }
        let query: std::collections::HashMap<_, _> = page.get().unwrap().query_pairs().collect();
        let back = format!("{}/?code=the-code&state={}", query["redirect_uri"], query["state"]);
        reqwest::get(back).await.unwrap().text().await.unwrap()
    };
    let (signed_in, told) = tokio::join!(browser::sign_in(&connection, |url| page.set(url.clone()).unwrap()), browser);
    assert_eq!(signed_in.unwrap().scopes, ["Mail.Read", "User.Read"]);
    assert!(told.contains("You are signed in"), "{told}");
    assert_eq!(stored(&connection).as_deref(), Some("canary-browser"));

    let page = page.get().unwrap();
    assert_eq!(page.path(), "/contoso.com/oauth2/v2.0/authorize");
    let query: std::collections::HashMap<_, _> = page.query_pairs().collect();
    let form = &forms(&service, "token")[0];
    assert_eq!((&*form["code"], &*form["grant_type"]), ("the-code", "authorization_code"));
    assert_eq!(form["redirect_uri"], query["redirect_uri"]);
    assert!(form["redirect_uri"].starts_with("http://localhost:"));
    use base64::Engine as _;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_bytes());
    let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash);
    assert_eq!((&*query["code_challenge"], &*query["code_challenge_method"]), (&*challenge, "S256"));
    assert!((43..=128).contains(&form["code_verifier"].len()), "RFC 7636, 4.1");
}

#[test]
fn credentials_show_nothing() {
    let hush = || Zeroizing::new("hush".to_owned());
    let id = || "app".to_owned();
    for credential in [
        Credential::Secret { client_id: id(), secret: hush() },
        Credential::Certificate { client_id: id(), pem: hush() },
    ] {
        assert!(!format!("{credential:?}").contains("hush"));
        assert_eq!(credential.client_id(), "app");
    }
}
