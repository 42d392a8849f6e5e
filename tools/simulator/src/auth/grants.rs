//! The grants: what each one requires and what it issues.

use std::collections::HashMap;

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;

use super::token::Claims;
use super::{Authority, Code, Device, DeviceAnswer, OauthError, Person, Session, assertion};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Lifetime of an authorization code in seconds ("about 10 minutes").
const CODE_LIFETIME_S: i64 = 600;
/// Lifetime of a refresh token in seconds: 90 days, except for single-page applications.
const REFRESH_TOKEN_LIFETIME_S: i64 = 90 * 24 * 3600;
/// Scopes that are not permissions of Graph.
const OPENID_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// A request to the token endpoint.
pub(super) struct TokenRequest {
    pub tenant: String,
    /// The URL that was posted to, as the client knows it.
    pub url: String,
    pub form: HashMap<String, String>,
    /// User and password of HTTP Basic, which may replace `client_id` and `client_secret`.
    pub basic: Option<(String, String)>,
}

/// A request to the authorize endpoint.
pub(super) struct AuthorizeRequest<'a> {
    pub tenant: &'a str,
    pub query: &'a HashMap<String, String>,
    /// The simulator's own root URL, which scopes may contain in place of Graph's.
    pub origin: &'a str,
}

/// Whether the client authenticated itself.
#[derive(PartialEq, Eq)]
enum Client {
    Public,
    Confidential,
}

impl TokenRequest {
    fn get(&self, name: &str) -> Option<&str> {
        self.form.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn require(&self, name: &str) -> Result<&str, OauthError> {
        self.get(name).ok_or_else(|| OauthError::missing(name))
    }

    /// Returns the simulator's own root URL, which the client uses in place of the cloud's.
    fn origin(&self) -> &str {
        let path = self.url.find("://").map_or(0, |scheme| scheme + 3);
        self.url[path..].find('/').map_or(&self.url, |slash| &self.url[..path + slash])
    }
}

impl Authority {
    /// Answers a token request. Returns the body of a 200 response.
    pub(super) fn token(&self, request: &TokenRequest, now: Timestamp) -> Result<Value, OauthError> {
        self.check_tenant(&request.tenant)?;
        match request.require("grant_type")? {
            "client_credentials" => self.client_credentials(request, now),
            "authorization_code" => self.redeem_code(request, now),
            "refresh_token" => self.refresh(request, now),
            DEVICE_CODE_GRANT => self.poll_device(request, now),
            other => Err(OauthError::new(
                "unsupported_grant_type",
                70_003,
                format!("The app requested an unsupported grant type '{other}'."),
            )),
        }
    }

    fn client_credentials(&self, request: &TokenRequest, now: Timestamp) -> Result<Value, OauthError> {
        if self.authenticate(request, now)? == Client::Public {
            let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            return Err(OauthError::invalid_client(7_000_218, text));
        }
        if matches!(request.tenant.as_str(), "common" | "organizations") {
            let text = "The request is not made to a tenanted endpoint.";
            return Err(OauthError::new("invalid_request", 900_382, text));
        }
        let scope = request.require("scope")?;
        let mut scopes = scope.split_whitespace();
        match (scopes.next().map(|first| self.scope_name(first, request.origin())), scopes.next()) {
            (Some(Some(".default")), None) => {}
            (Some(Some(_)), None) => {
                let text = format!(
                    "The provided value for scope {scope} is not valid. Client credential flows must have a scope value \
                     with /.default suffixed to the resource identifier (application ID URI)."
                );
                return Err(OauthError::new("invalid_scope", 1_002_012, text));
            }
            _ => {
                let text = format!(
                    "The provided request must include a 'scope' input parameter. The provided value for the input \
                     parameter 'scope' is not valid. The scope {scope} is not valid."
                );
                return Err(OauthError::new("invalid_scope", 70_011, text));
            }
        }
        let (expires_in, access_token) = self.issue(None, now);
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": expires_in,
            "ext_expires_in": expires_in,
            "access_token": access_token,
        }))
    }

    /// Issues a device code.
    pub(super) fn device_code(&self, request: &TokenRequest, now: Timestamp) -> Result<Value, OauthError> {
        self.check_tenant(&request.tenant)?;
        self.check_client_id(request.require("client_id")?, &request.tenant)?;
        let scope = self.check_scopes(request.require("scope")?, request.origin())?;
        let rules = self.rules();
        let mut issued = self.issued.lock();
        let device_code = issued.rng.token(160);
        let user_code = issued.rng.token(9).to_ascii_uppercase();
        let verification_uri = format!("{}/devicelogin", request.origin());
        let device = Device {
            user_code: user_code.clone(),
            scope,
            expires: now + SignedDuration::from_secs(rules.device_lifetime_s.into()),
            interval_s: rules.device_interval_s.into(),
            polled: None,
            answers: rules.device_answers.into(),
            approved: false,
        };
        issued.devices.insert(device_code.clone(), device);
        Ok(json!({
            "user_code": user_code,
            "device_code": device_code,
            "verification_uri": verification_uri,
            "expires_in": rules.device_lifetime_s,
            "interval": rules.device_interval_s,
            "message": format!(
                "To sign in, use a web browser to open the page {verification_uri} and enter the code {user_code} to \
                 authenticate."
            ),
        }))
    }

    fn poll_device(&self, request: &TokenRequest, now: Timestamp) -> Result<Value, OauthError> {
        self.authenticate(request, now)?;
        let device_code = request.require("device_code")?;
        if self.rules.read().conditional_access_blocks {
            return Err(blocked());
        }
        let scope = {
            let mut issued = self.issued.lock();
            let Some(device) = issued.devices.get_mut(device_code) else {
                let text = "The user or device code is invalid: it was not issued, or was used.";
                return Err(OauthError::new("bad_verification_code", 70_018, text));
            };
            device.poll(now)?;
            let scope = device.scope.clone();
            issued.devices.remove(device_code);
            scope
        };
        let person = (self.find_person)(None).ok_or_else(no_user)?;
        Ok(self.sign_in(person, scope, now))
    }

    /// Signs the user in without asking, and returns the URL to which the browser goes next.
    ///
    /// # Errors
    /// An error to show on a page, because the redirect URI cannot be trusted.
    pub(super) fn authorize(&self, request: &AuthorizeRequest<'_>, now: Timestamp) -> Result<String, OauthError> {
        self.check_tenant(request.tenant)?;
        let get = |name: &str| request.query.get(name).map(String::as_str).filter(|value| !value.is_empty());
        self.check_client_id(get("client_id").ok_or_else(|| OauthError::missing("client_id"))?, request.tenant)?;
        let redirect_uri = get("redirect_uri").ok_or_else(|| OauthError::missing("redirect_uri"))?;
        if !self.is_registered(redirect_uri) {
            let text = format!(
                "The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured \
                 for the application '{}'.",
                self.registration.client_id
            );
            return Err(OauthError::new("invalid_request", 50_011, text));
        }
        match self.authorization(&get, request.origin, now) {
            Ok(code) => Ok(with_query(redirect_uri, &[("code", Some(&code)), ("state", get("state"))])),
            Err(error) => {
                let description = format!("AADSTS{}: {}", error.code, error.text);
                let fields =
                    [("error", Some(error.error)), ("error_description", Some(&description)), ("state", get("state"))];
                Ok(with_query(redirect_uri, &fields))
            }
        }
    }

    fn authorization<'a>(
        &self,
        get: &impl Fn(&str) -> Option<&'a str>,
        origin: &str,
        now: Timestamp,
    ) -> Result<String, OauthError> {
        if get("response_type") != Some("code") {
            let text = "The response type is not supported: only 'code' is.";
            return Err(OauthError::new("unsupported_response_type", 700_054, text));
        }
        if self.rules.read().conditional_access_blocks {
            return Err(blocked());
        }
        let challenge = match (get("code_challenge"), get("code_challenge_method").unwrap_or("plain")) {
            (None, _) => None,
            (Some(challenge), "S256") => Some(challenge.to_owned()),
            (Some(verifier), "plain") => Some(code_challenge(verifier)),
            (Some(_), other) => {
                let text = format!("The code_challenge_method '{other}' is not supported.");
                return Err(OauthError::new("invalid_request", 501_491, text));
            }
        };
        let scope = self.check_scopes(get("scope").ok_or_else(|| OauthError::missing("scope"))?, origin)?;
        let person = (self.find_person)(get("login_hint")).ok_or_else(no_user)?;
        let mut issued = self.issued.lock();
        let code = format!("0.{}", issued.rng.token(180));
        let code_data = Code {
            redirect_uri: get("redirect_uri").unwrap_or_default().to_owned(),
            challenge,
            session: Session { person, scope, expires: now + REFRESH_TOKEN_LIFETIME, revoked: false },
            expires: now + SignedDuration::from_secs(CODE_LIFETIME_S),
            redeemed: false,
        };
        issued.codes.insert(code.clone(), code_data);
        Ok(code)
    }

    fn redeem_code(&self, request: &TokenRequest, now: Timestamp) -> Result<Value, OauthError> {
        let client = self.authenticate(request, now)?;
        let code = request.require("code")?;
        let redirect_uri = request.require("redirect_uri")?;
        let session = {
            let mut issued = self.issued.lock();
            let unknown = || OauthError::invalid_grant(9_002_313, "Invalid request. Request is malformed or invalid.");
            let code = issued.codes.get_mut(code).ok_or_else(unknown)?;
            if code.redeemed {
                let text = "OAuth2 Authorization code was already redeemed, please retry with a new valid code.";
                return Err(OauthError::invalid_grant(54_005, text));
            }
            if code.expires <= now {
                let text = "The provided authorization code or refresh token has expired due to inactivity.";
                return Err(OauthError::invalid_grant(70_008, text));
            }
            if code.redirect_uri != redirect_uri {
                let text =
                    "The reply URL specified in the request does not match the one of the authorization request.";
                return Err(OauthError::invalid_client(500_112, text));
            }
            match (&code.challenge, request.get("code_verifier")) {
                (Some(_), None) => return Err(OauthError::missing("code_verifier")),
                (Some(challenge), Some(verifier)) if code_challenge(verifier) != *challenge => {
                    let text =
                        "The Code_Verifier does not match the code_challenge supplied in the authorization request.";
                    return Err(OauthError::invalid_grant(501_481, text));
                }
                // Without a challenge, only a secret proves that the code reached the client that asked for it.
                (None, _) if client == Client::Public => {
                    let text = "Proof Key for Code Exchange is required for public clients.";
                    return Err(OauthError::new("invalid_request", 9_002_325, text));
                }
                _ => {}
            }
            code.redeemed = true;
            code.session.clone()
        };
        Ok(self.sign_in(session.person, session.scope, now))
    }

    fn refresh(&self, request: &TokenRequest, now: Timestamp) -> Result<Value, OauthError> {
        self.authenticate(request, now)?;
        let token = request.require("refresh_token")?;
        let single_use = self.rules.read().single_use_refresh_tokens;
        let session = {
            let mut issued = self.issued.lock();
            let unknown = || OauthError::invalid_grant(9_002_313, "Invalid request. Request is malformed or invalid.");
            let session = issued.refresh_tokens.get_mut(token).ok_or_else(unknown)?;
            if session.revoked {
                let text = "The provided grant has expired due to it being revoked, a fresh auth token is needed.";
                return Err(OauthError::invalid_grant(50_173, text));
            }
            if session.expires <= now {
                let text = "The refresh token has expired due to inactivity.";
                return Err(OauthError::invalid_grant(700_082, text));
            }
            session.revoked = single_use;
            session.clone()
        };
        // A client may ask for fewer scopes; without the parameter they stay the same (RFC 6749, 6). The answer again
        // includes a refresh token.
        let scope = match request.get("scope") {
            Some(scope) => format!("{} offline_access", self.check_scopes(scope, request.origin())?),
            None => session.scope,
        };
        Ok(self.sign_in(session.person, scope, now))
    }

    /// Returns the tokens for a client whose user has signed in.
    fn sign_in(&self, person: Person, scope: String, now: Timestamp) -> Value {
        let has = |name: &str| scope.split(' ').any(|scope| scope == name);
        let granted: Vec<&str> = scope.split(' ').filter(|scope| !OPENID_SCOPES.contains(scope)).collect();
        let (expires_in, access_token) = self.issue(Some((&person, &granted.join(" "))), now);
        let mut reply = Map::new();
        reply.insert("token_type".into(), "Bearer".into());
        reply.insert("scope".into(), scope.clone().into());
        reply.insert("expires_in".into(), expires_in.into());
        reply.insert("ext_expires_in".into(), expires_in.into());
        reply.insert("access_token".into(), access_token.into());
        if has("openid") {
            let id_token = json!({
                "aud": self.registration.client_id, "iss": self.issuer(), "iat": now.as_second(), "nbf": now.as_second(),
                "exp": now.as_second() + i64::from(expires_in), "oid": person.id, "sub": person.id,
                "preferred_username": person.upn, "tid": self.registration.tenant_id, "ver": "2.0",
            });
            reply.insert("id_token".into(), self.key.sign(&id_token).into());
        }
        if has("offline_access") {
            let session = Session { person, scope, expires: now + REFRESH_TOKEN_LIFETIME, revoked: false };
            let mut issued = self.issued.lock();
            let token = format!("1.{}", issued.rng.token(300));
            issued.refresh_tokens.insert(token.clone(), session);
            reply.insert("refresh_token".into(), token.into());
        }
        Value::Object(reply)
    }

    /// Issues an access token: for a user with scopes, or for the application itself if there is no user.
    fn issue(&self, user: Option<(&Person, &str)>, now: Timestamp) -> (u32, String) {
        let rules = self.rules.read();
        let mut issued = self.issued.lock();
        // One second less than the lifetime: the service's answers say 3599.
        let lifetime_s = match rules.token_lifetime_s {
            Some(lifetime_s) => lifetime_s,
            None => u32::try_from(issued.rng.between(3600, 5400)).expect("90 minutes are few seconds") - 1,
        };
        let roles = rules.roles.iter().cloned().collect::<Vec<_>>();
        let claims = Claims {
            aud: self.registration.resource.clone(),
            iss: self.issuer(),
            iat: now.as_second(),
            nbf: now.as_second(),
            exp: now.as_second() + i64::from(lifetime_s),
            appid: self.registration.client_id.clone(),
            tid: self.registration.tenant_id.clone(),
            oid: user.map_or_else(|| issued.rng.uuid(), |(person, _)| person.id.clone()),
            idtyp: if user.is_some() { "user" } else { "app" }.into(),
            // Without any permission the claim is missing, not empty.
            roles: (user.is_none() && !roles.is_empty()).then_some(roles),
            scp: user.map(|(_, scopes)| scopes.to_owned()),
            upn: user.map(|(person, _)| person.upn.clone()),
            uti: issued.rng.token(22),
            ver: "1.0".into(),
            generation: self.generation.load(Ordering::Relaxed),
        };
        self.tokens_issued.fetch_add(1, Ordering::Relaxed);
        (lifetime_s, self.key.sign(&claims))
    }

    fn issuer(&self) -> String {
        format!("https://sts.windows.net/{}/", self.registration.tenant_id)
    }

    pub(super) fn check_tenant(&self, tenant: &str) -> Result<(), OauthError> {
        let ours = tenant.eq_ignore_ascii_case(&self.registration.tenant_id)
            || self.registration.domains.iter().any(|domain| domain.eq_ignore_ascii_case(tenant))
            || matches!(tenant, "common" | "organizations");
        if ours {
            return Ok(());
        }
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the \
             correct cloud."
        );
        Err(OauthError::new("invalid_request", 90_002, text))
    }

    pub(super) fn check_client_id(&self, client_id: &str, tenant: &str) -> Result<(), OauthError> {
        if client_id.eq_ignore_ascii_case(&self.registration.client_id) {
            return Ok(());
        }
        let text = format!("Application with identifier '{client_id}' was not found in the directory '{tenant}'.");
        Err(OauthError::new("unauthorized_client", 700_016, text))
    }

    fn authenticate(&self, request: &TokenRequest, now: Timestamp) -> Result<Client, OauthError> {
        let (client_id, secret) = match &request.basic {
            Some((id, secret)) => (id.as_str(), Some(secret.as_str())),
            None => (request.require("client_id")?, request.get("client_secret")),
        };
        self.check_client_id(client_id, &request.tenant)?;
        if let Some(secret) = secret {
            return self.check_secret(secret, now);
        }
        let Some(jwt) = request.get("client_assertion") else { return Ok(Client::Public) };
        if request.require("client_assertion_type")? != ASSERTION_TYPE {
            let text = format!("The client_assertion_type must be '{ASSERTION_TYPE}'.");
            return Err(OauthError::new("invalid_request", 50_027, text));
        }
        let registration = &self.registration;
        let jti = assertion::validate(jwt, &registration.certificates, &registration.client_id, &request.url, now)?;
        let is_new = self.issued.lock().assertions.insert(jti);
        if !is_new && self.rules.read().refuse_reused_assertions {
            return Err(OauthError::invalid_client(700_027, "The client assertion was used before."));
        }
        Ok(Client::Confidential)
    }

    fn check_secret(&self, secret: &str, now: Timestamp) -> Result<Client, OauthError> {
        let equals = |ours: &str| constant_time::verify_slices_are_equal(ours.as_bytes(), secret.as_bytes()).is_ok();
        let client_id = &self.registration.client_id;
        let is_old = self.rules.read().secrets_expired;
        match self.registration.secrets.iter().find(|ours| equals(&ours.value)) {
            Some(ours) if is_old || ours.expires.is_some_and(|expires| expires <= now) => {
                Err(OauthError::invalid_client(
                    7_000_222,
                    format!("The provided client secret keys for app '{client_id}' are expired."),
                ))
            }
            Some(_) => Ok(Client::Confidential),
            None => Err(OauthError::invalid_client(
                7_000_215,
                format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                     value, not the client secret ID, for a secret added to app '{client_id}'."
                ),
            )),
        }
    }

    /// Returns a scope without its resource; `None` if it is a scope of another resource.
    fn scope_name<'a>(&self, scope: &'a str, origin: &str) -> Option<&'a str> {
        match scope.rfind('/') {
            None => Some(scope),
            Some(slash) => {
                let resource = scope[..slash].trim_end_matches('/');
                (resource == self.registration.resource || resource == origin).then_some(&scope[slash + 1..])
            }
        }
    }

    /// Returns the granted delegated scopes among `requested`, without their resource.
    fn check_scopes(&self, requested: &str, origin: &str) -> Result<String, OauthError> {
        let rules = self.rules.read();
        let mut granted = Vec::new();
        for scope in requested.split_whitespace() {
            match self.scope_name(scope, origin) {
                Some(".default") => granted.extend(rules.scopes.iter().map(String::as_str)),
                Some(name) if OPENID_SCOPES.contains(&name) || rules.scopes.contains(name) => granted.push(name),
                Some(name) => {
                    let text = format!(
                        "The user or administrator has not consented to use the application with ID '{}' for '{name}'.",
                        self.registration.client_id
                    );
                    return Err(OauthError::invalid_grant(65_001, text));
                }
                None => {
                    let text = format!("The scope {scope} is not valid: its resource is unknown.");
                    return Err(OauthError::new("invalid_scope", 70_011, text));
                }
            }
        }
        Ok(granted.join(" "))
    }

    /// Returns whether the browser may be redirected to this URI. Native applications may use any port on loopback.
    fn is_registered(&self, redirect_uri: &str) -> bool {
        let on_loopback = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|root| {
            redirect_uri.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        });
        on_loopback || self.registration.redirect_uris.iter().any(|ours| ours == redirect_uri)
    }

    /// Returns the URL to which the browser goes after the administrator was asked for consent.
    pub(super) fn admin_consent(&self, request: &AuthorizeRequest<'_>) -> Result<String, OauthError> {
        self.check_tenant(request.tenant)?;
        let get = |name: &str| request.query.get(name).map(String::as_str);
        self.check_client_id(get("client_id").ok_or_else(|| OauthError::missing("client_id"))?, request.tenant)?;
        let redirect_uri = get("redirect_uri").ok_or_else(|| OauthError::missing("redirect_uri"))?;
        if !self.is_registered(redirect_uri) {
            return Err(OauthError::new("invalid_request", 50_011, "The redirect URI is not registered."));
        }
        if self.rules.read().admin_declines {
            let description = "The admin canceled the request";
            let fields = [("error", Some("permission_denied")), ("error_description", Some(description))];
            return Ok(with_query(redirect_uri, &fields));
        }
        let granted = crate::permissions::APPLICATION.iter().map(|&role| role.to_owned());
        self.rules.write().roles.extend(granted);
        let tenant = Some(self.registration.tenant_id.as_str());
        let fields = [("tenant", tenant), ("state", get("state")), ("admin_consent", Some("True"))];
        Ok(with_query(redirect_uri, &fields))
    }
}

const REFRESH_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_secs(REFRESH_TOKEN_LIFETIME_S);

impl Device {
    /// Answers a poll. Returns `Ok` once the user has signed in.
    fn poll(&mut self, now: Timestamp) -> Result<(), OauthError> {
        let pending = || {
            let text = "OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
            Err(OauthError::new("authorization_pending", 70_016, text))
        };
        let expired = || Err(OauthError::new("expired_token", 70_019, "The device code has expired."));
        if self.expires <= now {
            return expired();
        }
        let interval = SignedDuration::from_secs(self.interval_s);
        let is_early = self.polled.replace(now).is_some_and(|polled| now.duration_since(polled) < interval);
        if is_early {
            return self.slow_down();
        }
        match self.answers.front() {
            None => Ok(()),
            Some(DeviceAnswer::Declined) => {
                Err(OauthError::new("authorization_declined", 65_004, "The end user denied the authorization request."))
            }
            Some(DeviceAnswer::Expired) => expired(),
            Some(DeviceAnswer::AwaitPage) if !self.approved => pending(),
            Some(DeviceAnswer::AwaitPage) => {
                self.answers.pop_front();
                Ok(())
            }
            Some(DeviceAnswer::Pending) => {
                self.answers.pop_front();
                pending()
            }
            Some(DeviceAnswer::SlowDown) => {
                self.answers.pop_front();
                self.slow_down()
            }
        }
    }

    /// RFC 8628, 3.5: "the interval MUST be increased by 5 seconds for this and all subsequent requests". Microsoft's
    /// list does not have `slow_down`; the number is the one for a client that polls in a loop.
    fn slow_down(&mut self) -> Result<(), OauthError> {
        if self.interval_s > 0 {
            self.interval_s += 5;
        }
        Err(OauthError::new("slow_down", 50_196, "The client polls too fast."))
    }
}

fn code_challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

fn blocked() -> OauthError {
    let text =
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.";
    OauthError::new("access_denied", 53_003, text)
}

fn no_user() -> OauthError {
    OauthError::invalid_grant(50_034, "The user account does not exist in the directory.")
}

fn with_query(url: &str, fields: &[(&str, Option<&str>)]) -> String {
    let mut url = url.to_owned();
    for (name, value) in fields.iter().filter_map(|&(name, value)| Some((name, value?))) {
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        let separator = if url.contains('?') { '&' } else { '?' };
        url.push_str(&format!("{separator}{name}={value}"));
    }
    url
}
