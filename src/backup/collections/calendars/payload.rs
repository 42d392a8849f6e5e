//! What is kept of an event: the answers of the service as they came, and the files that are made from them.
//!
//! The payload is one JSON object (docs/repository-format.md, "Source state"): `event` is the event, with the changed
//! instances of a series; `furtherExceptions` are those that did not fit into the same answer; `cancelledOccurrences`
//! are the cancelled ones; `attachments` has for each attachment the event that it belongs to, its properties, and its
//! content as base64 text. The contents stand as segments of their own in the repository.

use crate::backup::splitter::{Piece, SplitError, Splitter};
use crate::content::event::{Attached, Event};
use crate::format::entry::Content;
use crate::repository::store::Texture;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use std::io;

/// An event as it is kept.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// The JSON text of the event or of the master of a series, with its changed instances.
    pub event: Box<RawValue>,
    /// The JSON texts of further changed instances.
    pub further: Vec<Box<RawValue>>,
    /// The ids of the cancelled instances.
    pub cancelled: Vec<String>,
    /// The attachments.
    pub attachments: Vec<StoredAttachment>,
}

/// An attachment as it is kept.
#[derive(Debug, Clone)]
pub struct StoredAttachment {
    /// The id of the event or of the changed instance that it belongs to.
    pub event: String,
    /// The JSON text of its properties.
    pub properties: Box<RawValue>,
    /// The content. `None` if it has none, or if it could not be read.
    pub content: Option<Bytes>,
    /// Why the content could not be read.
    pub missing: Option<String>,
}

impl StoredEvent {
    /// Returns the event as JSON, with all of its changed instances.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn json(&self) -> Result<Value, serde_json::Error> {
        let mut event: Value = serde_json::from_str(self.event.get())?;
        for further in &self.further {
            let further: Value = serde_json::from_str(further.get())?;
            if let Some(exceptions) = event.get_mut("exceptionOccurrences").and_then(Value::as_array_mut) {
                exceptions.push(further);
            }
        }
        Ok(event)
    }

    /// Stores the iCalendar file of the event, and the text that people read of it.
    pub(super) fn split_calendar(&self, splitter: &mut Splitter) -> Result<(Content, Option<Content>), SplitError> {
        let odd = |error: String| SplitError::Item(io::Error::new(io::ErrorKind::InvalidData, error));
        let event = self.json().map_err(|_| odd("the event is not JSON".to_owned()))?;
        let attachments: Vec<_> = self.attachments.iter().map(StoredAttachment::attached).collect();
        let event = Event { event: &event, cancelled: &self.cancelled, attachments: &attachments };
        let calendar = event.calendar().map_err(|why| odd(why.to_owned()))?;
        let (mut pieces, mut from) = (Vec::new(), 0);
        let text = calendar.text.as_bytes();
        for (at, number) in calendar.places {
            pieces.push(Piece::Text(&text[from..at]));
            pieces.extend(self.attachments[number].content.as_deref().map(Piece::File));
            from = at;
        }
        pieces.push(Piece::Text(&text[from..]));
        let content = splitter.split_pieces(&pieces, Texture::Text)?;
        Ok((content, splitter.split_reading(&event.reading())?))
    }

    /// Stores the payload.
    pub(super) fn split_payload(&self, splitter: &mut Splitter) -> Result<Content, SplitError> {
        let (texts, contents) = self.payload();
        let mut pieces = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            pieces.push(Piece::Text(text.as_bytes()));
            pieces.extend(contents.get(number).map(|content| Piece::File(content)));
        }
        splitter.split_pieces(&pieces, Texture::Payload)
    }

    /// Returns the text of the payload in pieces, and the contents whose base64 text stands between them.
    fn payload(&self) -> (Vec<String>, Vec<&Bytes>) {
        let json = |value: &str| serde_json::to_string(value).expect("a string can be written as JSON");
        let list = |texts: &[Box<RawValue>]| texts.iter().map(|text| text.get()).collect::<Vec<_>>().join(",");
        let cancelled: Vec<_> = self.cancelled.iter().map(|id| json(id)).collect();
        let mut text = format!("{{\"event\":{}", self.event.get());
        if !self.further.is_empty() {
            text += &format!(",\"furtherExceptions\":[{}]", list(&self.further));
        }
        text += &format!(",\"cancelledOccurrences\":[{}],\"attachments\":[", cancelled.join(","));
        let (mut texts, mut contents) = (Vec::new(), Vec::new());
        for (number, attachment) in self.attachments.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let (event, properties) = (json(&attachment.event), attachment.properties.get());
            text += &format!("{comma}{{\"eventId\":{event},\"properties\":{properties}");
            if let Some(missing) = &attachment.missing {
                text += &format!(",\"missing\":{}", json(missing));
            }
            if let Some(content) = &attachment.content {
                texts.push(std::mem::take(&mut text) + ",\"content\":\"");
                contents.push(content);
                text.push('"');
            }
            text.push('}');
        }
        texts.push(text + "]}");
        (texts, contents)
    }
}

impl StoredAttachment {
    fn attached(&self) -> Attached {
        let properties = serde_json::from_str(self.properties.get()).unwrap_or_default();
        Attached { event: self.event.clone(), properties, has_content: self.content.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_payload_is_json_with_everything_as_it_came() {
        let attachment = |content: Option<&'static [u8]>, missing: Option<&str>| StoredAttachment {
            event: "a\"b".to_owned(),
            properties: raw(r#"{"name":"x","new":1.50}"#),
            content: content.map(Bytes::from_static),
            missing: missing.map(str::to_owned),
        };
        let stored = StoredEvent {
            event: raw(r#"{"id":"a\"b","exceptionOccurrences":[{"id":"1"}], "new":2.50}"#),
            further: vec![raw(r#"{"id":"2"}"#)],
            cancelled: vec!["OID.\"x.2026-01-01".to_owned()],
            attachments: vec![
                attachment(Some(b"hello"), None),
                attachment(None, Some("gone")),
                attachment(Some(b""), None),
            ],
        };
        let (texts, contents) = stored.payload();
        let mut text = String::new();
        for (number, piece) in texts.iter().enumerate() {
            text += piece;
            text += &contents.get(number).map(|content| STANDARD.encode(content)).unwrap_or_default();
        }
        let read: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(text.starts_with(&format!("{{\"event\":{}", stored.event.get())), "as it came: {text}");
        assert_eq!(read["cancelledOccurrences"], serde_json::json!(stored.cancelled));
        assert_eq!(read["furtherExceptions"], serde_json::json!([{"id": "2"}]));
        let attachments: Vec<_> = read["attachments"].as_array().into_iter().flatten().collect();
        let contents: Vec<_> =
            attachments.iter().map(|one| (one["content"].as_str(), one["missing"].as_str())).collect();
        assert_eq!(contents, [(Some("aGVsbG8="), None), (None, Some("gone")), (Some(""), None)]);
        assert!(attachments.iter().all(|one| one["eventId"] == "a\"b" && one["properties"]["name"] == "x"));
        let bare =
            StoredEvent { further: Vec::new(), cancelled: Vec::new(), attachments: Vec::new(), ..stored.clone() };
        let read: Value = serde_json::from_str(&bare.payload().0.concat()).expect("JSON");
        assert_eq!(read["attachments"], serde_json::json!([]));
        assert_eq!(stored.json().unwrap()["exceptionOccurrences"].as_array().map(Vec::len), Some(2));
    }
}
