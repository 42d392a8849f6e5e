//! A service that writes something else than it was given, and says nothing: by rules alone, for clients that read back
//! what they wrote.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::Fault;

/// Returns the request with what `fault` makes of the message or the file in it. One that has none stays as it is.
pub(super) async fn falsified(fault: Fault, request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let mut body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut item) => {
            falsify(fault, &mut item);
            body = item.to_string().into_bytes();
        }
        // A range of an upload.
        Err(_) => {
            if let (Fault::ChangesBytes, Some(last)) = (fault, body.last_mut()) {
                *last ^= 1;
            }
        }
    }
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Request::from_parts(parts, Body::from(body))
}

fn falsify(fault: Fault, item: &mut Value) {
    if let (Fault::CutsText, Some(text)) = (fault, item["body"]["content"].as_str()) {
        let half: String = text.chars().take(text.chars().count() / 2).collect();
        item["body"]["content"] = half.into();
    }
    if let (Fault::CutsText, Some(text)) = (fault, item["personalNotes"].as_str()) {
        let half: String = text.chars().take(text.chars().count() / 2).collect();
        item["personalNotes"] = half.into();
    }
    let mut files: Vec<&mut Value> = match item.get("contentBytes") {
        Some(_) => vec![item],
        None => item.get_mut("attachments").and_then(Value::as_array_mut).into_iter().flatten().collect(),
    };
    match (fault, files.as_mut_slice()) {
        (Fault::ChangesBytes, [first, ..]) => {
            let bytes = first["contentBytes"].as_str().and_then(|text| STANDARD.decode(text).ok());
            let mut bytes = bytes.unwrap_or_default();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            first["contentBytes"] = STANDARD.encode(bytes).into();
        }
        (Fault::RenamesFile, [first, ..]) => first["name"] = json!("renamed.bin"),
        (Fault::SwapsFiles, [first, second, ..]) => {
            let (a, b) = (first["contentBytes"].take(), second["contentBytes"].take());
            (first["contentBytes"], second["contentBytes"]) = (b, a);
        }
        (Fault::DropsFile, [_, ..]) => {
            if let Some(files) = item.get_mut("attachments").and_then(Value::as_array_mut) {
                files.remove(0);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_changes_one_thing() {
        let item = json!({
            "subject": "S", "body": {"contentType": "text", "content": "Grüße"},
            "attachments": [{"name": "a", "contentBytes": "AAEC"}, {"name": "b", "contentBytes": "BAUG"}],
        });
        let falsified = |fault| {
            let mut item = item.clone();
            falsify(fault, &mut item);
            let files: Vec<_> = item["attachments"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|file| format!("{}={}", file["name"], file["contentBytes"]).replace('"', ""))
                .collect();
            format!("{} {}", item["body"]["content"].as_str().unwrap_or_default(), files.join(" "))
        };
        assert_eq!(falsified(Fault::Slow), "Grüße a=AAEC b=BAUG");
        assert_eq!(falsified(Fault::ChangesBytes), "Grüße a=AAED b=BAUG");
        assert_eq!(falsified(Fault::CutsText), "Gr a=AAEC b=BAUG");
        assert_eq!(falsified(Fault::RenamesFile), "Grüße renamed.bin=AAEC b=BAUG");
        assert_eq!(falsified(Fault::DropsFile), "Grüße b=BAUG");
        assert_eq!(falsified(Fault::SwapsFiles), "Grüße a=BAUG b=AAEC");
        let mut contact = json!({"surname": "S", "personalNotes": "Grüße"});
        falsify(Fault::CutsText, &mut contact);
        assert_eq!(contact, json!({"surname": "S", "personalNotes": "Gr"}));
        let mut file = json!({"name": "a", "contentBytes": "AAEC"});
        falsify(Fault::ChangesBytes, &mut file);
        assert_eq!(file["contentBytes"], "AAED");
    }
}
