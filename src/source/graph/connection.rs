//! How a tenant is reached: its hosts, who signs in, and the limits to keep.

use super::cloud::Endpoints;
use super::pace::Pace;
use super::retry::RetryPolicy;
use super::throttle::Limits;
use super::token_cache::TokenCache;
use reqwest::Url;
use std::fmt;
use zeroize::Zeroizing;

/// How an application signs in.
#[derive(Clone)]
pub enum Credential {
    /// As itself, with a secret.
    Secret {
        /// The id of the application.
        client_id: String,
        /// The secret of the application.
        secret: Zeroizing<String>,
    },
    /// As itself, with a certificate.
    Certificate {
        /// The id of the application.
        client_id: String,
        /// The certificate and its RSA key, in one PEM text.
        pem: Zeroizing<String>,
    },
    /// On behalf of a person who signed in before. The token cache holds the refresh token.
    Login {
        /// The id of the application.
        client_id: String,
    },
}

impl Credential {
    /// Returns the id of the application.
    pub fn client_id(&self) -> &str {
        match self {
            Self::Secret { client_id, .. } | Self::Certificate { client_id, .. } | Self::Login { client_id } => {
                client_id
            }
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret { .. } => "Secret([redacted])",
            Self::Certificate { .. } => "Certificate([redacted])",
            Self::Login { .. } => "Login([redacted])",
        })
    }
}

/// How to reach a tenant.
#[derive(Clone)]
pub struct Connection {
    /// The hosts of the cloud.
    pub endpoints: Endpoints,
    /// The id of the tenant, or one of its verified domains.
    pub tenant_id: String,
    /// How the application signs in.
    pub credential: Credential,
    /// The HTTP proxy; if `None`, the environment decides.
    pub proxy: Option<Url>,
    /// Maximum number of requests in flight at the same time.
    pub concurrency: usize,
    /// The limits of the service.
    pub limits: Limits,
    /// How often, and for how long, failed requests are repeated.
    pub retry: RetryPolicy,
    /// How slowly answers may arrive.
    pub pace: Pace,
    /// Where refresh tokens are stored. Only [`Credential::Login`] needs it.
    pub state: Option<TokenCache>,
}

impl Connection {
    /// Returns a connection with defaults for everything else: 16 requests in flight, the published limits, no proxy
    /// and no token cache.
    pub fn new(endpoints: Endpoints, tenant_id: impl Into<String>, credential: Credential) -> Self {
        Self {
            endpoints,
            tenant_id: tenant_id.into(),
            credential,
            proxy: None,
            concurrency: 16,
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            pace: Pace::default(),
            state: None,
        }
    }
}

impl fmt::Debug for Connection {
    /// Leaves out the proxy, because its URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoints", &self.endpoints)
            .field("tenant_id", &self.tenant_id)
            .field("credential", &self.credential)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
