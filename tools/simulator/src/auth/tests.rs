use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::grants::{AuthorizeRequest, TokenRequest};
use super::*;

const TENANT: &str = "11111111-1111-4111-9111-111111111111";
const CLIENT: &str = "22222222-2222-4222-9222-222222222222";
const ORIGIN: &str = "http://127.0.0.1:1234";
const CERTIFICATE: &[u8] = include_bytes!("testdata/certificate.pem");
const OTHER_CERTIFICATE: &[u8] = include_bytes!("testdata/other.pem");
const PRIVATE_KEY: &[u8] = include_bytes!("testdata/key.pem");

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn authority(rules: Rules) -> Authority {
    let registration = Registration {
        tenant_id: TENANT.into(),
        domains: vec!["contoso.com".into()],
        client_id: CLIENT.into(),
        secrets: vec![
            Secret { value: "s3cret~value".into(), expires: None },
            Secret { value: "old".into(), expires: Some(later(-1)) },
        ],
        certificates: vec![Certificate::new(CERTIFICATE).unwrap()],
        redirect_uris: vec![],
        resource: GRAPH_RESOURCE.into(),
    };
    let find_person: FindPerson = Arc::new(|name| match name {
        None | Some("alice@contoso.com") => Some(Person { id: "alice-id".into(), upn: "alice@contoso.com".into() }),
        _ => None,
    });
    Authority::new(registration, rules, 1, find_person)
}

fn request(fields: &[(&str, &str)]) -> TokenRequest {
    TokenRequest {
        tenant: TENANT.into(),
        url: format!("{ORIGIN}/{TENANT}/oauth2/v2.0/token"),
        form: fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        basic: None,
    }
}

fn by_secret(changed: &[(&str, &str)]) -> TokenRequest {
    let mut request = request(&[
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", "s3cret~value"),
        ("scope", "https://graph.microsoft.com/.default"),
    ]);
    for &(name, value) in changed {
        request.form.insert(name.into(), value.into());
    }
    request
}

fn code_of(result: Result<Value, OauthError>) -> (&'static str, u32) {
    let error = result.unwrap_err();
    (error.error, error.code)
}

fn bearer(reply: &Value) -> String {
    format!("Bearer {}", reply["access_token"].as_str().unwrap())
}

#[test]
fn a_secret_buys_a_token_that_lives_as_long_as_it_says() {
    let authority = authority(Rules::default());
    let reply = authority.token(&by_secret(&[]), now()).unwrap();
    let expires_in = reply["expires_in"].as_i64().unwrap();
    assert!((3599..5400).contains(&expires_in), "60 to 90 minutes, not {expires_in} s");
    assert!(reply.get("refresh_token").is_none());
    let Ok(Caller::Application { roles }) = authority.verify(Some(&bearer(&reply)), later(expires_in - 1)) else {
        panic!("the token is valid until its last second");
    };
    assert!(roles.contains(&"Mail.ReadWrite".to_owned()));
    assert_eq!(authority.verify(Some(&bearer(&reply)), later(expires_in)), Err(Unauthorized::Expired));
    assert_eq!(authority.verify(None, now()), Err(Unauthorized::Empty));
    assert_eq!(authority.verify(Some("Basic abc"), now()), Err(Unauthorized::Empty));
    assert_eq!(authority.verify(Some("Bearer a.b.c"), now()), Err(Unauthorized::Malformed));
    assert_eq!(authority.tokens_issued(), 1);
}

#[test]
fn wrong_credentials_are_refused_by_number() {
    let authority = authority(Rules::default());
    let refused = |changed: &[(&str, &str)]| code_of(authority.token(&by_secret(changed), now()));
    assert_eq!(refused(&[("client_secret", "wrong")]), ("invalid_client", 7_000_215));
    assert_eq!(refused(&[("client_secret", "old")]), ("invalid_client", 7_000_222));
    assert_eq!(refused(&[("client_secret", "")]), ("invalid_client", 7_000_218));
    assert_eq!(refused(&[("client_id", "nobody")]), ("unauthorized_client", 700_016));
    assert_eq!(refused(&[("scope", "https://graph.microsoft.com/Mail.Read")]), ("invalid_scope", 1_002_012));
    assert_eq!(refused(&[("scope", "https://vault.azure.net/.default")]), ("invalid_scope", 70_011));
    assert_eq!(refused(&[("scope", "")]), ("invalid_request", 900_144));
    assert_eq!(refused(&[("grant_type", "password")]), ("unsupported_grant_type", 70_003));
    let elsewhere = TokenRequest { tenant: "fabrikam.com".into(), ..by_secret(&[]) };
    assert_eq!(code_of(authority.token(&elsewhere, now())), ("invalid_request", 90_002));
}

#[test]
fn the_tenant_may_be_named_by_domain_and_graph_by_the_simulators_own_root() {
    let authority = authority(Rules::default());
    let mut by_domain = by_secret(&[("scope", &format!("{ORIGIN}/.default"))]);
    by_domain.tenant = "Contoso.com".into();
    authority.token(&by_domain, now()).unwrap();
    let mut by_basic = by_secret(&[("client_id", ""), ("client_secret", "")]);
    by_basic.basic = Some((CLIENT.into(), "s3cret~value".into()));
    authority.token(&by_basic, now()).unwrap();
}

#[derive(Clone)]
struct Assertion {
    algorithm: Algorithm,
    thumbprint: Option<&'static str>,
    claims: Value,
}

impl Assertion {
    fn good() -> Self {
        let url = format!("{ORIGIN}/{TENANT}/oauth2/v2.0/token");
        let at = now().as_second();
        let claims =
            json!({"aud": url, "iss": CLIENT, "sub": CLIENT, "jti": "j1", "nbf": at, "iat": at, "exp": at + 300});
        Self { algorithm: Algorithm::PS256, thumbprint: Some("x5t#S256"), claims }
    }

    fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims[claim] = value.into();
        self
    }

    fn signed(&self, certificate: &[u8], key: &[u8]) -> TokenRequest {
        let certificate = Certificate::new(certificate).unwrap();
        let mut header = Header::new(self.algorithm);
        match self.thumbprint {
            Some("x5t#S256") => header.x5t_s256 = Some(certificate.thumbprint().to_owned()),
            Some("x5t") => header.x5t = Some(certificate.thumbprint_sha1().to_owned()),
            _ => {}
        }
        let jwt = jsonwebtoken::encode(&header, &self.claims, &EncodingKey::from_rsa_pem(key).unwrap()).unwrap();
        let mut request = by_secret(&[
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &jwt),
        ]);
        request.form.remove("client_secret");
        request
    }

    fn send(&self) -> Result<Value, OauthError> {
        authority(Rules::default()).token(&self.signed(CERTIFICATE, PRIVATE_KEY), now())
    }
}

#[test]
fn a_certificate_is_as_good_as_a_secret_in_the_new_form_and_in_the_old() {
    Assertion::good().send().unwrap();
    Assertion { algorithm: Algorithm::RS256, thumbprint: Some("x5t"), ..Assertion::good() }.send().unwrap();
}

#[test]
fn every_claim_of_an_assertion_is_checked() {
    let at = now().as_second();
    let refused = |assertion: Assertion| code_of(assertion.send());
    let good = Assertion::good();
    assert_eq!(refused(good.clone().with("aud", "https://elsewhere")), ("invalid_client", 700_023));
    assert_eq!(refused(good.clone().with("iss", "nobody")), ("invalid_client", 700_021));
    assert_eq!(refused(good.clone().with("sub", "nobody")), ("invalid_client", 700_021));
    assert_eq!(refused(good.clone().with("exp", at - 301)), ("invalid_client", 700_024));
    assert_eq!(refused(good.clone().with("nbf", at + 301)), ("invalid_client", 700_024));
    assert_eq!(refused(Assertion { thumbprint: None, ..good.clone() }), ("invalid_client", 700_027));

    let authority = authority(Rules::default());
    let unregistered = good.signed(OTHER_CERTIFICATE, PRIVATE_KEY);
    assert_eq!(code_of(authority.token(&unregistered, now())), ("invalid_client", 700_027));
    // The payload of one assertion with the signature of another.
    let mut forged = good.signed(CERTIFICATE, PRIVATE_KEY);
    let other = good.with("jti", "j2").signed(CERTIFICATE, PRIVATE_KEY);
    let (head, _) = forged.form["client_assertion"].rsplit_once('.').unwrap();
    let (_, signature) = other.form["client_assertion"].rsplit_once('.').unwrap();
    let jwt = format!("{head}.{signature}");
    forged.form.insert("client_assertion".into(), jwt);
    assert_eq!(code_of(authority.token(&forged, now())), ("invalid_client", 700_027));
    forged.form.insert("client_assertion".into(), "not a jwt".into());
    assert_eq!(code_of(authority.token(&forged, now())), ("invalid_request", 50_027));
}

#[test]
fn an_assertion_may_be_used_twice_unless_the_switch_forbids_it() {
    let request = Assertion::good().signed(CERTIFICATE, PRIVATE_KEY);
    let lax = authority(Rules::default());
    lax.token(&request, now()).unwrap();
    lax.token(&request, now()).unwrap();
    let strict = authority(Rules { refuse_reused_assertions: true, ..Rules::default() });
    strict.token(&request, now()).unwrap();
    assert_eq!(code_of(strict.token(&request, now())), ("invalid_client", 700_027));
}

#[test]
fn a_new_permission_shows_in_a_new_token_only() {
    let authority = authority(Rules::default());
    authority.set_permissions([]);
    let without = authority.token(&by_secret(&[]), now()).unwrap();
    authority.set_permissions(["Mail.Read"]);
    let with = authority.token(&by_secret(&[]), now()).unwrap();
    let roles = |reply: &Value| match authority.verify(Some(&bearer(reply)), now()).unwrap() {
        Caller::Application { roles } => roles,
        Caller::User { .. } => panic!("nobody signed in"),
    };
    assert_eq!(roles(&without), Vec::<String>::new());
    assert_eq!(roles(&with), ["Mail.Read"]);
    let payload = without["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert!(payload.get("roles").is_none(), "without permissions the claim is absent");
}

#[test]
fn tokens_expire_on_command_and_at_a_chosen_request() {
    let authority = authority(Rules { expire_tokens_at_request: Some(3), ..Rules::default() });
    let first = authority.token(&by_secret(&[]), now()).unwrap();
    assert!(authority.verify(Some(&bearer(&first)), now()).is_ok());
    assert!(authority.verify(Some(&bearer(&first)), now()).is_ok());
    assert_eq!(authority.verify(Some(&bearer(&first)), now()), Err(Unauthorized::Expired));
    let second = authority.token(&by_secret(&[]), now()).unwrap();
    assert!(authority.verify(Some(&bearer(&second)), now()).is_ok());
    authority.expire_tokens();
    assert_eq!(authority.verify(Some(&bearer(&second)), now()), Err(Unauthorized::Expired));
}

fn device(authority: &Authority) -> (String, String) {
    let started = request(&[("client_id", CLIENT), ("scope", "Mail.Read offline_access openid")]);
    let reply = authority.device_code(&started, now()).unwrap();
    assert_eq!((reply["expires_in"].as_u64(), reply["interval"].as_u64()), (Some(900), Some(5)));
    assert_eq!(reply["verification_uri"], format!("{ORIGIN}/devicelogin"));
    assert!(reply.get("verification_uri_complete").is_none());
    (reply["device_code"].as_str().unwrap().to_owned(), reply["user_code"].as_str().unwrap().to_owned())
}

fn poll(authority: &Authority, device_code: &str, seconds: i64) -> Result<Value, OauthError> {
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let request = request(&[("grant_type", grant), ("client_id", CLIENT), ("device_code", device_code)]);
    authority.token(&request, later(seconds))
}

#[test]
fn a_device_code_follows_its_script() {
    use DeviceAnswer::{Declined, Expired, Pending, SlowDown};
    let scripted = |device_answers: Vec<DeviceAnswer>| authority(Rules { device_answers, ..Rules::default() });

    let authority = scripted(vec![Pending, SlowDown]);
    let (code, _) = device(&authority);
    assert_eq!(code_of(poll(&authority, &code, 5)), ("authorization_pending", 70_016));
    assert_eq!(code_of(poll(&authority, &code, 10)).0, "slow_down");
    assert_eq!(code_of(poll(&authority, &code, 15)).0, "slow_down", "the interval is ten seconds now");
    let reply = poll(&authority, &code, 40).unwrap();
    assert!(reply["refresh_token"].is_string() && reply["id_token"].is_string());
    assert_eq!(
        code_of(poll(&authority, &code, 60)),
        ("bad_verification_code", 70_018),
        "a code is good for one sign-in"
    );
    let caller = authority.verify(Some(&bearer(&reply)), later(40)).unwrap();
    assert_eq!(caller, Caller::User { id: "alice-id".into(), scopes: vec!["Mail.Read".into()] });

    for (answer, error) in [(Declined, "authorization_declined"), (Expired, "expired_token")] {
        let authority = scripted(vec![answer]);
        let (code, _) = device(&authority);
        assert_eq!(code_of(poll(&authority, &code, 5)).0, error);
        assert_eq!(code_of(poll(&authority, &code, 10)).0, error, "for ever");
    }
    let authority = scripted(vec![]);
    let (code, _) = device(&authority);
    assert_eq!(code_of(poll(&authority, &code, 900)).0, "expired_token");
}

#[test]
fn a_device_code_can_wait_for_the_page() {
    let authority = authority(Rules { device_answers: vec![DeviceAnswer::AwaitPage], ..Rules::default() });
    let (code, user_code) = device(&authority);
    assert_eq!(code_of(poll(&authority, &code, 5)).0, "authorization_pending");
    assert_eq!(code_of(poll(&authority, &code, 10)).0, "authorization_pending");
    assert!(!authority.approve_device("WRONG"));
    assert!(authority.approve_device(&user_code));
    poll(&authority, &code, 15).unwrap();
}

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636, appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://localhost:4321/callback";

fn authorize(authority: &Authority, changed: &[(&str, &str)]) -> Result<HashMap<String, String>, OauthError> {
    let mut query: HashMap<String, String> = [
        ("client_id", CLIENT),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        ("scope", "https://graph.microsoft.com/Mail.Read offline_access"),
        ("state", "a b&c"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    query.extend(changed.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    let target = authority.authorize(&AuthorizeRequest { tenant: TENANT, query: &query, origin: ORIGIN }, now())?;
    let (redirect, fields) = target.split_once('?').unwrap();
    assert_eq!(redirect, REDIRECT);
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    Ok(fields.split('&').map(|field| field.split_once('=').unwrap()).map(|(n, v)| (n.to_owned(), decode(v))).collect())
}

fn redeem(authority: &Authority, code: &str, changed: &[(&str, &str)], seconds: i64) -> Result<Value, OauthError> {
    let mut request = request(&[
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ]);
    request.form.extend(changed.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    authority.token(&request, later(seconds))
}

#[test]
fn an_authorization_code_needs_its_verifier_and_works_once() {
    let authority = authority(Rules::default());
    let fields = authorize(&authority, &[]).unwrap();
    assert_eq!(fields["state"], "a b&c");
    let code = &fields["code"];
    let refused = |changed: &[(&str, &str)]| code_of(redeem(&authority, code, changed, 1));
    assert_eq!(refused(&[("code_verifier", "guess")]), ("invalid_grant", 501_481));
    assert_eq!(refused(&[("code_verifier", "")]), ("invalid_request", 900_144));
    assert_eq!(refused(&[("redirect_uri", "http://localhost/other")]), ("invalid_client", 500_112));
    assert_eq!(refused(&[("code", "unknown")]).0, "invalid_grant");
    assert_eq!(code_of(redeem(&authority, code, &[], 600)), ("invalid_grant", 70_008));
    let reply = redeem(&authority, code, &[], 599).unwrap();
    assert_eq!(reply["scope"], "Mail.Read offline_access");
    assert_eq!(code_of(redeem(&authority, code, &[], 599)), ("invalid_grant", 54_005));
}

#[test]
fn the_browser_is_sent_to_registered_places_only() {
    let authority = authority(Rules::default());
    let refused = |uri: &str| authorize(&authority, &[("redirect_uri", uri)]).unwrap_err().code;
    assert_eq!(refused("https://evil.example/"), 50_011);
    assert_eq!(refused("http://localhost.evil.example/"), 50_011);
    // From here on, errors go to the client, not to the user.
    assert_eq!(authorize(&authority, &[("response_type", "token")]).unwrap()["error"], "unsupported_response_type");
    assert_eq!(authorize(&authority, &[("scope", "Files.Read")]).unwrap()["error"], "invalid_grant");
    authority.change_rules(|rules| rules.conditional_access_blocks = true);
    assert_eq!(authorize(&authority, &[]).unwrap()["error"], "access_denied");
}

#[test]
fn refresh_tokens_rotate_and_can_be_revoked() {
    let refresh = |authority: &Authority, token: &Value, seconds: i64| {
        let token = token["refresh_token"].as_str().unwrap();
        let fields = [("grant_type", "refresh_token"), ("client_id", CLIENT), ("refresh_token", token)];
        authority.token(&request(&fields), later(seconds))
    };
    let authority = authority(Rules::default());
    let first = redeem(&authority, &authorize(&authority, &[]).unwrap()["code"], &[], 1).unwrap();
    let second = refresh(&authority, &first, 2).unwrap();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    refresh(&authority, &first, 3).unwrap();

    authority.change_rules(|rules| rules.single_use_refresh_tokens = true);
    refresh(&authority, &second, 4).unwrap();
    assert_eq!(code_of(refresh(&authority, &second, 5)), ("invalid_grant", 50_173));

    authority.change_rules(|rules| rules.single_use_refresh_tokens = false);
    let third = refresh(&authority, &second, 6).unwrap_err();
    assert_eq!(third.code, 50_173, "a token that was used up stays so");
    let fourth = redeem(&authority, &authorize(&authority, &[]).unwrap()["code"], &[], 1).unwrap();
    assert_eq!(code_of(refresh(&authority, &fourth, 91 * 24 * 3600)), ("invalid_grant", 700_082));
    authority.revoke_sessions();
    assert_eq!(code_of(refresh(&authority, &fourth, 7)), ("invalid_grant", 50_173));
    assert_eq!(authority.verify(Some(&bearer(&fourth)), later(7)), Err(Unauthorized::Expired));
}

#[test]
fn an_administrator_consents_or_declines() {
    let authority = authority(Rules::default());
    authority.set_permissions([]);
    let ask = || {
        let query = [("client_id", CLIENT), ("redirect_uri", REDIRECT), ("state", "s")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        authority.admin_consent(&AuthorizeRequest { tenant: TENANT, query: &query, origin: ORIGIN }).unwrap()
    };
    authority.change_rules(|rules| rules.admin_declines = true);
    assert!(ask().contains("?error=permission%5Fdenied&error_description="));
    assert!(authority.rules().roles.is_empty());
    authority.change_rules(|rules| rules.admin_declines = false);
    assert!(ask().ends_with("&state=s&admin_consent=True"));
    assert!(authority.rules().roles.contains("Mail.ReadWrite"));
}

#[test]
fn errors_have_the_body_that_clients_know() {
    let error = authority(Rules::default()).token(&by_secret(&[("client_secret", "x")]), now()).unwrap_err();
    let response = error.response(now(), "trace", "correlation");
    assert_eq!(response.status(), 401);
    let body = http_body_util::BodyExt::collect(response.into_body());
    let body = futures_util::FutureExt::now_or_never(body).unwrap().unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"], "invalid_client");
    assert_eq!(body["error_codes"], json!([7_000_215]));
    assert_eq!(body["timestamp"], "2026-11-21 10:00:00Z");
    let text = body["error_description"].as_str().unwrap();
    assert!(text.starts_with("AADSTS7000215: Invalid client secret"), "{text}");
    assert!(text.ends_with("\r\nTrace ID: trace\r\nCorrelation ID: correlation\r\nTimestamp: 2026-11-21 10:00:00Z"));
}
