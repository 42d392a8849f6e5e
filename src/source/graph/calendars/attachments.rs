//! The attachments of events and of changed instances.
//!
//! `hasAttachments` is false if all attachments of an event are shown inside its text, and a text need not refer to them.
//! So the attachments of every event and of every changed instance are listed ([`WholeEvent::ids`]).

use super::{Calendars, WholeEvent};
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::expected::{Expected, Seen};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Maximum number of attachments of an event.
const ATTACHMENTS_MAX: usize = 10_000;
/// Larger attachments are read as bytes, and not as text in JSON.
const IN_JSON_BYTES_MAX: u64 = 4 << 20;
const LABEL: &str = "reading an attachment of an event";

/// An attachment with its content.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The id of the event or changed instance that it belongs to.
    pub event: String,
    /// Its properties as JSON text, without the content.
    pub properties: Box<RawValue>,
    /// The content; `None` for a link, and for an item that has no form of its own.
    pub content: Option<Bytes>,
}

/// Returns how many bytes attachments have together, as their list says.
pub fn sizes(listed: &[(String, Value)]) -> u64 {
    listed.iter().filter_map(|(_, properties)| properties.get("size")?.as_u64()).sum()
}

impl WholeEvent {
    /// Returns the ids of the event and of its changed instances.
    pub fn ids(&self) -> Vec<String> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Part {
            id: String,
            exception_occurrences: Vec<Part>,
        }
        let texts = std::iter::once(&self.raw).chain(&self.further);
        let parts = texts.filter_map(|text| serde_json::from_str::<Part>(text.get()).ok());
        let ids = parts.flat_map(|part| {
            let below = part.exception_occurrences.into_iter().map(|below| below.id);
            std::iter::once(part.id).chain(below)
        });
        ids.filter(|id| !id.is_empty()).collect()
    }
}

impl Calendars {
    /// Lists the attachments of an event or of a changed instance, without their contents.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn attachments(&self, event: &str) -> Result<Vec<Value>, GraphError> {
        let fields = "id,name,contentType,size,isInline,lastModifiedDateTime";
        let request = self.get("listing attachments of an event", &["events", event, "attachments"]);
        self.client.collect(request.query("$select", fields), ATTACHMENTS_MAX).await
    }

    /// Reads an attachment, whose properties were listed before.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::TooLarge`] if it has more than `bytes_max` bytes.
    pub async fn attachment(&self, event: &str, listed: &Value, bytes_max: u64) -> Result<Attachment, GraphError> {
        let text = |name: &str| listed.get(name).and_then(Value::as_str).unwrap_or_default();
        let (id, kind) = (text("id"), text("@odata.type").to_ascii_lowercase());
        let path = ["events", event, "attachments", id];
        let is_item = kind.ends_with("itemattachment");
        if kind.ends_with("referenceattachment") {
            // Only beta tells where a link leads to.
            let properties = match self.properties(self.get_beta(LABEL, &path), id).await {
                Ok(properties) => properties,
                Err(error) if matches!(error.kind(), ErrorKind::BadRequest | ErrorKind::NotFound) => as_map(listed),
                Err(error) => return Err(error),
            };
            return Ok(made(event, properties, None));
        }
        let is_small = listed.get("size").and_then(Value::as_u64).is_some_and(|size| size <= IN_JSON_BYTES_MAX);
        let mut properties = match (is_item, is_small) {
            (true, _) => {
                let request = self.get(LABEL, &path).query("$expand", "microsoft.graph.itemattachment/item");
                self.properties(request, id).await?
            }
            (false, true) => self.properties(self.get(LABEL, &path), id).await?,
            (false, false) => as_map(listed),
        };
        let inline = properties.remove("contentBytes").and_then(|text| serde_json::from_str::<String>(text.get()).ok());
        let inline = inline.and_then(|text| STANDARD.decode(text).ok()).map(Bytes::from);
        let fits = |bytes: &Bytes| Expected::attachment(listed).accept(&Seen::of(bytes)).is_ok();
        if let Some(content) = inline.filter(fits) {
            return Ok(made(event, properties, Some(content)));
        }
        let path = ["events", event, "attachments", id, "$value"];
        let request = self.get(LABEL, &path).uncoded();
        match self.client.bytes_of(request, bytes_max, Expected::attachment(listed)).await {
            Ok(content) => Ok(made(event, properties, Some(content))),
            // An item without a form of its own is in its properties.
            Err(error) if is_item && error.kind() == ErrorKind::BadRequest => Ok(made(event, properties, None)),
            Err(error) => Err(error),
        }
    }

    async fn properties(&self, request: super::Request, id: &str) -> Result<Properties, GraphError> {
        let check = |found: &Properties| {
            let answered = found.get("id").and_then(|text| serde_json::from_str::<String>(text.get()).ok());
            Expected::id(id, &answered.unwrap_or_default())
        };
        self.client.json_that(request, check).await
    }
}

/// Properties by name, each as it came.
type Properties = BTreeMap<String, Box<RawValue>>;

fn as_map(listed: &Value) -> Properties {
    serde_json::from_str(&listed.to_string()).unwrap_or_default()
}

fn made(event: &str, properties: Properties, content: Option<Bytes>) -> Attachment {
    let properties = serde_json::value::to_raw_value(&properties).expect("texts of JSON can be written as JSON");
    Attachment { event: event.to_owned(), properties, content }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::graph::testing::{Service, error, json};
    use serde_json::json as value;

    #[test]
    fn every_changed_instance_may_have_attachments() {
        let raw = |json: Value| serde_json::value::to_raw_value(&json).unwrap();
        let event = WholeEvent {
            raw: raw(value!({"id": "a", "hasAttachments": false, "exceptionOccurrences": [{"id": "b", "new": 1}]})),
            further: vec![raw(value!({"id": "c"}))],
            cancelled: Vec::new(),
        };
        assert_eq!(event.ids(), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_small_file_comes_with_its_properties_and_a_large_one_alone() {
        let listed = |size: u64| value!({"@odata.type": "#microsoft.graph.fileAttachment", "id": "f", "name": "a.txt", "size": size});
        let small = r#"{"id":"f","contentId":"x","new":1.50,"contentBytes":"aGVsbG8="}"#;
        let service = Service::start([json("200 OK", small)]).await;
        let read = Calendars::new(service.client(), "u").attachment("e", &listed(5), 100).await.expect("a file");
        assert_eq!(read.content.as_deref(), Some(&b"hello"[..]));
        assert_eq!(read.properties.get(), r#"{"contentId":"x","id":"f","new":1.50}"#);
        let service = Service::start([json("200 OK", "hello")]).await;
        let calendars = Calendars::new(service.client(), "u");
        let read = calendars.attachment("e", &value!({"id": "f", "name": "a.txt"}), 100).await.expect("a file");
        assert_eq!(read.content.as_deref(), Some(&b"hello"[..]));
        assert_eq!(service.requests("$value").len(), 1);
    }

    #[tokio::test]
    async fn a_link_has_no_content() {
        let listed = value!({"@odata.type": "#microsoft.graph.referenceAttachment", "id": "r", "name": "plan"});
        let refusal = error("404 Not Found", "ErrorItemNotFound");
        let service = Service::start([refusal]).await;
        let read = Calendars::new(service.client(), "u").attachment("e", &listed, 100).await.expect("a link");
        assert!(read.content.is_none() && read.properties.get().contains("plan"));
        assert_eq!(service.requests("/beta/").len(), 1);
    }
}
