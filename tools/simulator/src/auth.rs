//! Sign-in: the token endpoint with every grant that Strongroom and its tests use, and the tokens that Graph then
//! accepts.
//!
//! An [`Authority`] knows one registered application in one tenant. It checks what a real authority checks (secrets,
//! client assertions, PKCE verifiers, redirect URIs, scopes). Its refusals use the real words and numbers, because a
//! client decides by `error` and `error_codes`. All decisions take the time as an argument; only [`http`] reads the
//! clock.
//!
//! [`crate::permissions`] says which permission a route needs.
//!
//! Microsoft's pages: "OAuth 2.0 client credentials flow", "certificate credentials", "device authorization grant",
//! "authorization code flow", "refresh tokens", "configurable token lifetimes".

mod assertion;
mod error;
mod grants;
mod http;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use strongroom_corpora::rng::Rng;

pub use assertion::{Certificate, NotACertificate};
pub use error::OauthError;
pub use http::router;
pub use token::Caller;

use crate::permissions;
use crate::tenant::{Kind, Tenant};
use token::{BadToken, TokenKey};

/// The resource that tokens for Graph in the global cloud are meant for.
pub const GRAPH_RESOURCE: &str = "https://graph.microsoft.com";

/// An application registered in the tenant.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The id of the directory.
    pub tenant_id: String,
    /// Verified domains. In URLs they name the tenant like its id.
    pub domains: Vec<String>,
    /// The id of the application.
    pub client_id: String,
    /// The application's secrets.
    pub secrets: Vec<Secret>,
    /// The application's certificates.
    pub certificates: Vec<Certificate>,
    /// Additional redirect URIs. Native applications may always use those on loopback.
    pub redirect_uris: Vec<String>,
    /// The root URL of Graph in the tenant's cloud. Scopes contain it, and tokens are meant for it.
    pub resource: String,
}

/// A client secret.
#[derive(Debug, Clone)]
pub struct Secret {
    /// The value that the client sends.
    pub value: String,
    /// Time from which the secret is refused.
    pub expires: Option<Timestamp>,
}

/// A person who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user's id in the directory.
    pub id: String,
    /// The name the user signs in with.
    pub upn: String,
}

/// Finds a person by id or user principal name. With `None`, returns the person who signs in if nobody is named.
pub type FindPerson = Arc<dyn Fn(Option<&str>) -> Option<Person> + Send + Sync>;

/// The answer to a poll for a device code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceAnswer {
    /// `authorization_pending`, once.
    Pending,
    /// `slow_down`, once (RFC 8628, 3.5).
    SlowDown,
    /// `authorization_pending` until somebody opens the verification page with the user code.
    AwaitPage,
    /// `authorization_declined`, forever.
    Declined,
    /// `expired_token`, forever.
    Expired,
}

/// Which mailboxes an application access policy lets the application open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessPolicy {
    /// There is no policy.
    #[default]
    None,
    /// Only these users' mailboxes (`RestrictAccess`).
    RestrictTo(BTreeSet<String>),
    /// All but these users' mailboxes (`DenyAccess`).
    Deny(BTreeSet<String>),
}

/// A role that Exchange itself assigned to the application ("RBAC for Applications"). It opens mailboxes even though
/// the token has no such role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeRole {
    /// The permission, such as `Mail.Read`.
    pub permission: String,
    /// The users in its management scope; all users if absent.
    #[serde(default)]
    pub mailboxes: Option<BTreeSet<String>>,
}

/// Decisions of the tenant's administrator, and behaviour that a test may script. They may change at any time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rules {
    /// Granted application permissions. Only *new* tokens show a change.
    pub roles: BTreeSet<String>,
    /// Delegated permissions with consent.
    pub scopes: BTreeSet<String>,
    /// The application access policy.
    pub access_policy: AccessPolicy,
    /// Roles assigned in Exchange.
    pub exchange_roles: Vec<ExchangeRole>,
    /// Lifetime of tokens in seconds. If absent, a random time between 60 and 90 minutes, as in the service.
    pub token_lifetime_s: Option<u32>,
    /// Number of requests with a token after which all tokens expire.
    pub expire_tokens_at_request: Option<u64>,
    /// Refuses a second assertion with the same `jti`. It is not documented what the service does.
    pub refuse_reused_assertions: bool,
    /// Accepts each refresh token only once. The service keeps old ones valid, but does not promise to.
    pub single_use_refresh_tokens: bool,
    /// The answers to the polls for each device code, in order. After the last one the user has signed in.
    pub device_answers: Vec<DeviceAnswer>,
    /// Required seconds between two polls for a device code.
    pub device_interval_s: u32,
    /// Lifetime of a device code in seconds.
    pub device_lifetime_s: u32,
    /// True if client secrets have expired (AADSTS7000222).
    pub secrets_expired: bool,
    /// Blocks device codes and authorization codes as a conditional access policy does (AADSTS53003).
    pub conditional_access_blocks: bool,
    /// True if the administrator declines when asked for consent.
    pub admin_declines: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            roles: all(permissions::APPLICATION),
            scopes: all(permissions::DELEGATED),
            access_policy: AccessPolicy::None,
            exchange_roles: Vec::new(),
            token_lifetime_s: None,
            expire_tokens_at_request: None,
            refuse_reused_assertions: false,
            single_use_refresh_tokens: false,
            device_answers: vec![DeviceAnswer::Pending],
            device_interval_s: 5,
            device_lifetime_s: 900,
            secrets_expired: false,
            conditional_access_blocks: false,
            admin_declines: false,
        }
    }
}

/// Returns the authority of a tenant with one registered application, whose id and secret are derived from the seed.
pub fn for_tenant(tenant: &Arc<Tenant>, certificates: Vec<Certificate>, rules: Rules) -> Authority {
    let mut rng = Rng::for_purpose(tenant.seed(), "application");
    let registration = Registration {
        tenant_id: tenant.id.clone(),
        domains: vec![tenant.domain.clone()],
        client_id: rng.uuid(),
        secrets: vec![Secret { value: rng.token(40), expires: None }],
        certificates,
        redirect_uris: Vec::new(),
        resource: GRAPH_RESOURCE.to_owned(),
    };
    let people = Arc::clone(tenant);
    let find_person: FindPerson = Arc::new(move |name| {
        let user = match name {
            Some(name) => people.user(name)?,
            None => people.users().into_iter().find(|user| user.kind == Kind::Licensed)?,
        };
        Some(Person { id: user.id.clone(), upn: user.principal_name() })
    });
    Authority::new(registration, rules, tenant.seed(), find_person)
}

/// Why Graph's gateway refused a token. The answer is always 401 `InvalidAuthenticationToken`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    /// There is no `Authorization` header, or it has no bearer token.
    #[error("Access token is empty.")]
    Empty,
    /// The token is not one of this tenant.
    #[error("IDX14100: JWT is not well formed, there are no dots (.).")]
    Malformed,
    /// The token has expired.
    #[error("Lifetime validation failed, the token is expired.")]
    Expired,
}

/// The authority of one tenant, for one registered application.
pub struct Authority {
    registration: Registration,
    find_person: FindPerson,
    key: TokenKey,
    rules: RwLock<Rules>,
    issued: Mutex<Issued>,
    tokens_issued: AtomicU64,
    tokens_shown: AtomicU64,
    generation: AtomicU64,
}

/// Codes and tokens that were issued and may come back.
struct Issued {
    rng: Rng,
    devices: HashMap<String, Device>,
    codes: HashMap<String, Code>,
    refresh_tokens: HashMap<String, Session>,
    assertions: HashSet<String>,
}

struct Device {
    user_code: String,
    scope: String,
    expires: Timestamp,
    interval_s: i64,
    polled: Option<Timestamp>,
    answers: VecDeque<DeviceAnswer>,
    approved: bool,
}

struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    session: Session,
    expires: Timestamp,
    redeemed: bool,
}

/// The sign-in of a user that a refresh token represents.
#[derive(Clone)]
struct Session {
    person: Person,
    scope: String,
    expires: Timestamp,
    revoked: bool,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("tenant_id", &self.registration.tenant_id).finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates the authority for `registration`. Codes and tokens are derived from `seed`.
    pub fn new(registration: Registration, rules: Rules, seed: u64, find_person: FindPerson) -> Self {
        let mut rng = Rng::for_purpose(seed, "sign-in");
        Self {
            key: TokenKey::new(&rng.bytes(32)),
            registration,
            find_person,
            rules: RwLock::new(rules),
            issued: Mutex::new(Issued {
                rng,
                devices: HashMap::new(),
                codes: HashMap::new(),
                refresh_tokens: HashMap::new(),
                assertions: HashSet::new(),
            }),
            tokens_issued: AtomicU64::new(0),
            tokens_shown: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }

    /// Returns the registered application.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Returns the current rules.
    pub fn rules(&self) -> Rules {
        self.rules.read().clone()
    }

    /// Calls `read` with the current rules.
    pub fn with_rules<T>(&self, read: impl FnOnce(&Rules) -> T) -> T {
        read(&self.rules.read())
    }

    /// Changes the rules.
    pub fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.write());
    }

    /// Grants exactly these application permissions. Tokens that were already issued keep their roles.
    pub fn set_permissions<'a>(&self, roles: impl IntoIterator<Item = &'a str>) {
        self.rules.write().roles = roles.into_iter().map(str::to_owned).collect();
    }

    /// Expires every access token issued so far.
    pub fn expire_tokens(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Revokes every session: refresh tokens are refused from now on, and access tokens expire.
    pub fn revoke_sessions(&self) {
        self.issued.lock().refresh_tokens.values_mut().for_each(|session| session.revoked = true);
        self.expire_tokens();
    }

    /// Returns how many access tokens were issued.
    pub fn tokens_issued(&self) -> u64 {
        self.tokens_issued.load(Ordering::Relaxed)
    }

    /// Sets the count of access tokens to zero.
    pub fn reset_tokens_issued(&self) {
        self.tokens_issued.store(0, Ordering::Relaxed);
    }

    /// Signs in on the verification page. Returns whether the code was waiting for that.
    pub fn approve_device(&self, user_code: &str) -> bool {
        let mut issued = self.issued.lock();
        let device = issued.devices.values_mut().find(|device| device.user_code == user_code);
        device.map(|device| device.approved = true).is_some()
    }

    /// Reads the `Authorization` header of a Graph request.
    ///
    /// # Errors
    /// [`Unauthorized`] says what is wrong with it.
    pub fn verify(&self, authorization: Option<&str>, now: Timestamp) -> Result<Caller, Unauthorized> {
        let token = authorization
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .map(|(_, token)| token.trim())
            .ok_or(Unauthorized::Empty)?;
        let shown = self.tokens_shown.fetch_add(1, Ordering::Relaxed) + 1;
        if self.rules.read().expire_tokens_at_request == Some(shown) {
            self.expire_tokens();
        }
        let claims = self.key.read(token, self.generation.load(Ordering::Relaxed), now).map_err(|bad| match bad {
            BadToken::Invalid => Unauthorized::Malformed,
            BadToken::Expired => Unauthorized::Expired,
        })?;
        Ok(claims.into())
    }
}
