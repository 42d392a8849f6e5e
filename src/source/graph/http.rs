//! Carries requests: one pool of connections, with limits on everything that could hang or grow.

use super::connection::Connection;
use super::error::{ErrorKind, GraphError};
use super::pace::{Arrival, Pace};
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use reqwest::{Proxy, RequestBuilder, Response, Version, redirect};
use std::time::Duration;
use tokio::time::timeout;

/// How this program identifies itself to the service (SharePoint: avoid getting throttled, "decorate your traffic").
/// The service serves unidentified traffic last.
const USER_AGENT: &str = concat!("ISV|Strongroom|Strongroom/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// The connections to the services of one tenant.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) pace: Pace,
}

/// Why no answer began to arrive.
pub(crate) enum NoAnswer {
    /// It did not arrive in time.
    Late,
    /// The connection failed.
    Broken(reqwest::Error),
}

impl Http {
    pub(crate) fn new(connection: &Connection) -> Result<Self, GraphError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .gzip(true)
            // A redirect would take the token along. Graph redirects only to other services.
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIME_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX);
        let unusable = |what: &str, error: reqwest::Error| {
            GraphError::new(ErrorKind::BadRequest, "connecting").explained(what.into()).with(error.without_url())
        };
        if let Some(proxy) = &connection.proxy {
            let proxy = Proxy::all(proxy.clone()).map_err(|error| unusable("the proxy cannot be used", error))?;
            builder = builder.proxy(proxy);
        } else if connection.endpoints.are_local() {
            builder = builder.no_proxy();
        }
        if connection.endpoints.are_unencrypted() {
            // Nothing is encrypted, so the machine needs no root certificates.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| unusable("no connections can be made", error))?;
        Ok(Self { client, pace: connection.pace })
    }

    /// Sends a request with an `upload` of this many bytes, and returns the head of the answer.
    pub(crate) async fn send(&self, request: RequestBuilder, upload: u64) -> Result<Response, NoAnswer> {
        match timeout(self.pace.head_time_max(upload), request.send()).await {
            Ok(answer) => answer.map_err(NoAnswer::Broken),
            Err(_) => Err(NoAnswer::Late),
        }
    }

    /// Returns the whole body of `response`, of at most `max` bytes.
    pub(crate) async fn read_all(
        &self,
        mut response: Response,
        max: u64,
        label: &'static str,
    ) -> Result<Bytes, GraphError> {
        let mut arrival = Arrival::new(self.pace);
        let mut body = BytesMut::new();
        while let Some(chunk) = arrival.chunk(&mut response, label).await? {
            if (body.len() + chunk.len()) as u64 > max {
                return Err(GraphError::endless(label, max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Returns true if the body marks its own end. A body that ends with its connection could have been cut off anywhere
/// (HTTP allows this: RFC 9112, 6.3), and the loss would go unnoticed.
///
/// `is_as_it_came` is true if the request asked for no content coding. A body that was decompressed on the way has lost
/// its length, but compressed data marks its own end.
pub(crate) fn has_an_end(response: &Response, is_as_it_came: bool) -> bool {
    let headers = response.headers();
    let has_no_body = matches!(response.status().as_u16(), 204 | 304);
    let is_length_known = headers.contains_key(CONTENT_LENGTH) || is_chunked(headers);
    let is_last = response.version() == Version::HTTP_10 || says_close(headers);
    let may_be_unpacked = !is_as_it_came && !is_last;
    response.version() >= Version::HTTP_2 || has_no_body || is_length_known || may_be_unpacked
}

/// Returns true if the body comes in chunks. With any other last coding, it ends with the connection (RFC 9112, 6.3).
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back().and_then(|value| value.to_str().ok());
    let last = last.and_then(|value| value.rsplit(',').next());
    last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

fn says_close(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
}

/// Returns `random` as a version 4 GUID (RFC 9562).
pub(crate) fn guid(random: [u8; 16]) -> String {
    let n = u128::from_be_bytes(random) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{n:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_of_version_four() {
        assert_eq!(guid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(guid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
