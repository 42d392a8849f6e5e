//! How a tenant is reached: its hosts, who signs in, and the limits to keep.

use super::auth::{Credential, TokenCache};
use super::cloud::Endpoints;
use super::pace::Pace;
use super::retry::RetryPolicy;
use super::throttle::Limits;
use reqwest::Url;
use std::fmt;

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
