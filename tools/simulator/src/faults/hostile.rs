//! Answers of an attacker who wants to harm the client.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use strongroom_corpora::rng::Rng;

use super::Fault;

/// Number of rows of an oversized page: almost 64 MB.
const ROWS: usize = 6_000_000;
/// Number of rows per page that report removals.
const REMOVALS: usize = 5_000;
/// Length in bytes of the pieces of a body without end.
const PIECE_BYTES: usize = 64 << 10;

/// Returns `response`, which is not compressed, as the fault changes it. `url` is the URL of the request. Faults that
/// spoil a page leave other answers as they are.
pub(super) async fn answer(fault: Fault, response: Response, url: &str, pause: Duration, rng: Rng) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = match fault {
        Fault::Endless => endless(body, rng),
        Fault::Drip => drip(body, pause),
        fault => match serde_json::from_slice::<Value>(&body) {
            Ok(page) if page["value"].is_array() => Body::from(spoil(fault, page, url)),
            _ => return Response::from_parts(parts, Body::from(body)),
        },
    };
    if fault != Fault::Drip {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    Response::from_parts(parts, body)
}

fn spoil(fault: Fault, mut page: Value, url: &str) -> Bytes {
    const DELTA_LINK: &str = "@odata.deltaLink";
    match fault {
        Fault::LinkToItself => {
            page.as_object_mut().expect("a page is an object").remove(DELTA_LINK);
            page["@odata.nextLink"] = json!(url);
        }
        Fault::EndlessRemovals => {
            let (base, number) = url.rsplit_once("&page=").unwrap_or((url, "0"));
            let number: u64 = number.parse().unwrap_or(0);
            let row = |n| json!({"id": format!("removed-{number}-{n}"), "@removed": {"reason": "deleted"}});
            page.as_object_mut().expect("a page is an object").remove(DELTA_LINK);
            page["value"] = (0..REMOVALS).map(row).collect();
            page["@odata.nextLink"] = json!(format!("{base}&page={}", number + 1));
        }
        Fault::StrayLink => {
            if let Some(link) = page[DELTA_LINK].as_str() {
                let path =
                    link.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
                page[DELTA_LINK] = json!(format!("https://graph.example/{path}"));
            }
        }
        _ => {
            let row = r#"{"id":""},"#;
            return Bytes::from(format!("{{\"value\":[{}{{\"id\":\"\"}}]}}", row.repeat(ROWS)));
        }
    }
    page.to_string().into()
}

fn endless(start: Bytes, rng: Rng) -> Body {
    let stream = futures_util::stream::unfold((Some(start), rng), |(start, mut rng)| async move {
        let piece = start.unwrap_or_else(|| {
            let words = std::iter::repeat_with(|| rng.next_u64().to_le_bytes());
            words.take(PIECE_BYTES / 8).flatten().collect::<Vec<u8>>().into()
        });
        Some((Ok::<_, Infallible>(piece), (None, rng)))
    });
    Body::from_stream(stream)
}

fn drip(body: Bytes, pause: Duration) -> Body {
    let stream = futures_util::stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let byte = rest.split_to(1);
        Some((Ok::<_, Infallible>(byte), rest))
    });
    Body::from_stream(stream)
}
