//! Signing in, and tokens.
//!
//! An application signs in as itself with a secret or a certificate ([`Credential`]). Or it signs in on behalf of a
//! person, who signs in once on another device ([`device`]) or in a browser ([`browser`]). From then on, a refresh
//! token in the [`TokenCache`] stands for that person. Tokens are renewed early, and only once for all callers that ask
//! at the same time. A new refresh token is stored before the access token that came with it is used, so no crash loses
//! it.
//!
//! A token is opaque (Entra: access tokens). Its lifetime is what the service said, and its permissions become known by
//! trying. [`claims_of`] looks inside a token only to explain failures.

mod aadsts;
pub mod browser;
mod certificate;
pub mod device;
mod oauth;
#[cfg(test)]
mod tests;
mod token;

pub use token::{Claims, claims_of};

use super::connection::{Connection, Credential};
use super::error::{ErrorKind, GraphError};
use super::http::Http;
use super::retry::RetryPolicy;
use super::token_cache::{Holder, TokenCache};
use certificate::Certificate;
use oauth::{Grant, NoToken};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
pub(crate) use token::Token;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;
use zeroize::Zeroizing;

/// How long a refused sign-in is not repeated. Otherwise all tasks that wait for the same token would repeat it in
/// vain.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// What a request for a token proves the identity with.
enum Grantor {
    Secret(Zeroizing<String>),
    Certificate(Box<Certificate>),
    Refresh(TokenCache),
}

/// Requests tokens, one at a time, and keeps the current one.
pub(crate) struct Authenticator {
    http: Http,
    policy: RetryPolicy,
    token_url: String,
    client_id: String,
    scope: String,
    grantor: Grantor,
    current: RwLock<Option<Arc<Token>>>,
    /// Locked by the task that requests a token. Holds the last refusal and its time.
    asking: Mutex<Option<(Instant, GraphError)>>,
}

impl Authenticator {
    pub(crate) fn new(connection: &Connection, http: Http, policy: RetryPolicy) -> Result<Self, GraphError> {
        let grantor = match &connection.credential {
            Credential::Secret { secret, .. } => Grantor::Secret(secret.clone()),
            Credential::Certificate { pem, .. } => Grantor::Certificate(Box::new(Certificate::read(pem)?)),
            Credential::Login { .. } => Grantor::Refresh(cache_of(connection)?.clone()),
        };
        let application = format!("{}/.default", connection.endpoints.graph_root());
        let scope = match grantor {
            Grantor::Refresh(_) => delegated_scope(connection),
            Grantor::Secret(_) | Grantor::Certificate(_) => application,
        };
        Ok(Self {
            http,
            policy,
            token_url: connection.endpoints.oauth(&connection.tenant_id, "token"),
            client_id: connection.credential.client_id().to_owned(),
            scope,
            grantor,
            current: RwLock::new(None),
            asking: Mutex::new(None),
        })
    }

    /// Returns a token that stays valid for a while.
    pub(crate) async fn token(&self) -> Result<Arc<Token>, GraphError> {
        let fresh = |now| self.current.read().clone().filter(|token| token.is_fresh(now));
        let usable = |now| self.current.read().clone().filter(|token| token.is_valid(now));
        if let Some(token) = fresh(Instant::now()) {
            return Ok(token);
        }
        let mut refused = match (self.asking.try_lock(), usable(Instant::now())) {
            (Ok(asking), _) => asking,
            // Another task is requesting a new token. The current one is still valid until then.
            (Err(_), Some(token)) => return Ok(token),
            (Err(_), None) => self.asking.lock().await,
        };
        if let Some(token) = fresh(Instant::now()) {
            return Ok(token);
        }
        if let Some((at, error)) = &*refused
            && Instant::now() < *at + REFUSED_FOR
        {
            return Err(error.clone());
        }
        match self.ask().await {
            Ok(grant) => {
                let token = Arc::new(Token::new(grant.access_token, grant.lifetime, Instant::now()));
                *self.current.write() = Some(Arc::clone(&token));
                *refused = None;
                Ok(token)
            }
            Err(error) => {
                *refused = Some((Instant::now(), error.clone()));
                match usable(Instant::now()) {
                    Some(token) => {
                        warn!(%error, "the token could not be renewed yet");
                        Ok(token)
                    }
                    None => Err(error),
                }
            }
        }
    }

    /// Drops `token` because the service refused it. The next call of [`Authenticator::token`] requests a new one.
    pub(crate) fn invalidate(&self, token: &Arc<Token>) {
        let mut current = self.current.write();
        // The current token may already be a newer one, which the service has not refused.
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, token)) {
            *current = None;
        }
    }

    async fn ask(&self) -> Result<Grant, GraphError> {
        let mut form = vec![("client_id", &*self.client_id), ("scope", &*self.scope)];
        match &self.grantor {
            Grantor::Secret(secret) => {
                form.extend([("grant_type", "client_credentials"), ("client_secret", secret)]);
                Ok(oauth::token(&self.http, &self.policy, &self.token_url, &form).await?)
            }
            Grantor::Certificate(certificate) => {
                let now = jiff::Timestamp::now().as_second();
                let assertion = certificate.assertion(&self.client_id, &self.token_url, now);
                form.extend([
                    ("grant_type", "client_credentials"),
                    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                    ("client_assertion", &assertion),
                ]);
                Ok(oauth::token(&self.http, &self.policy, &self.token_url, &form).await?)
            }
            Grantor::Refresh(cache) => {
                // Read the cache each time, because another process may have stored a newer token.
                let refresh_token = load(cache, self.holder())?.ok_or_else(|| sign_in_again(None))?;
                form.extend([("grant_type", "refresh_token"), ("refresh_token", &*refresh_token)]);
                let grant = match oauth::token(&self.http, &self.policy, &self.token_url, &form).await {
                    Err(NoToken::Refused(refused)) if refused.word == "invalid_grant" => {
                        return Err(sign_in_again(Some(refused.error)));
                    }
                    other => other?,
                };
                if let Some(newer) = &grant.refresh_token {
                    store(cache, self.holder(), newer)?;
                }
                Ok(grant)
            }
        }
    }

    fn holder(&self) -> Holder<'_> {
        Holder { authority: &self.token_url, client_id: &self.client_id }
    }
}

/// Returns the scope for a sign-in on behalf of a person: all permissions that were consented to, and a refresh token.
fn delegated_scope(connection: &Connection) -> String {
    format!("{}/.default offline_access", connection.endpoints.graph_root())
}

fn sign_in_again(refused: Option<GraphError>) -> GraphError {
    let advice = "sign in with `strongroom tenant login`";
    match refused {
        // The explanation of an error number is better advice.
        Some(error) if error.has_explanation() => error,
        Some(error) => error.explained(advice.into()),
        None => GraphError::new(ErrorKind::SignIn, "sign-in").explained(format!("nobody has signed in yet: {advice}")),
    }
}

fn cache_of(connection: &Connection) -> Result<&TokenCache, GraphError> {
    connection.state.as_ref().ok_or_else(|| {
        GraphError::new(ErrorKind::SignIn, "sign-in").explained("there is no folder to keep a sign-in in".into())
    })
}

fn load(cache: &TokenCache, holder: Holder<'_>) -> Result<Option<Zeroizing<String>>, GraphError> {
    // This blocks, here and in `store`, but only for a file of a few kilobytes, once an hour. That is not worth a
    // thread.
    cache.load(holder).map_err(|error| cache_error("the cached sign-in could not be read", error))
}

fn store(cache: &TokenCache, holder: Holder<'_>, token: &str) -> Result<(), GraphError> {
    cache.store(holder, token).map_err(|error| cache_error("the new sign-in could not be stored", error))
}

fn cache_error(what: &str, error: std::io::Error) -> GraphError {
    GraphError::new(ErrorKind::SignIn, "sign-in").explained(what.into()).with(error)
}

/// The result of a sign-in by a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// The permissions that were consented to.
    pub scopes: Vec<String>,
}

/// Stores what a person's sign-in granted.
fn remember(connection: &Connection, grant: Grant) -> Result<SignedIn, GraphError> {
    let refresh_token = grant.refresh_token.ok_or_else(|| {
        let why = "the service granted no refresh token: allow `offline_access` in the app registration";
        GraphError::new(ErrorKind::SignIn, "sign-in").explained(why.into())
    })?;
    let token_url = connection.endpoints.oauth(&connection.tenant_id, "token");
    let holder = Holder { authority: &token_url, client_id: connection.credential.client_id() };
    store(cache_of(connection)?, holder, &refresh_token)?;
    Ok(SignedIn { scopes: grant.scope.split_whitespace().map(str::to_owned).collect() })
}
