//! Attachments of events and tasks as JSON, to be exported.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::mime::{Attachment, Payload};

/// Returns an attachment as JSON.
pub fn written_attachment(attachment: &Attachment) -> Value {
    let payload = match &attachment.payload {
        Payload::File(bytes) => json!({"file": STANDARD.encode(bytes.as_slice())}),
        Payload::Message(bytes) => json!({"message": STANDARD.encode(bytes.as_slice())}),
        Payload::Item(item) => json!({"item": **item}),
        Payload::Reference(url) => json!({"reference": url}),
    };
    json!({
        "number": attachment.number,
        "name": attachment.name,
        "contentType": attachment.content_type,
        "inline": attachment.inline,
        "contentId": attachment.content_id,
        "contentLocation": attachment.content_location,
        "payload": payload,
    })
}

/// Returns the attachment that [`written_attachment`] wrote.
pub fn read_attachment(value: &Value) -> Option<Attachment> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let bytes = |text: &str| STANDARD.decode(text).ok().map(Arc::new);
    let (kind, payload) = value["payload"].as_object()?.iter().next()?;
    let payload = match (kind.as_str(), payload) {
        ("file", Value::String(text)) => Payload::File(bytes(text)?),
        ("message", Value::String(text)) => Payload::Message(bytes(text)?),
        ("reference", Value::String(url)) => Payload::Reference(url.clone()),
        (_, item) => Payload::Item(Arc::new(item.clone())),
    };
    Some(Attachment {
        number: u32::try_from(value["number"].as_u64()?).ok()?,
        name: text("name")?,
        content_type: text("contentType")?,
        inline: value["inline"].as_bool()?,
        content_id: text("contentId"),
        content_location: text("contentLocation"),
        payload,
    })
}
