//! Compression: like the service, sends JSON with gzip to clients that accept it.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt as _;

/// Minimum length in bytes of a body to compress. Shorter bodies fit into one packet anyway.
const BYTES_MIN: u64 = 1400;

/// Returns whether the client accepts gzip.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
}

/// Compresses an answer if it is JSON. Streams stay as they are.
pub(super) async fn compress(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json || response.body().size_hint().exact().is_none_or(|len| len < BYTES_MIN) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body of known length is in memory").to_bytes();
    let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    packed.write_all(&body).expect("a vector takes everything");
    let packed = packed.finish().expect("a vector takes everything");
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(parts, Body::from(packed))
}
