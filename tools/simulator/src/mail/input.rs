//! The properties of a message that clients send as JSON, checked as the service checks them.
//!
//! An unknown property fails the whole request. A property that only the service sets is silently ignored. So if a
//! client relies on `receivedDateTime`, its loss of the date becomes visible.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::extended;
use crate::mime::{self, Attachment, Body, Importance, Payload, Properties, Recipient};
use crate::server::{ApiError, Version};
use crate::tenant::FlagStatus;

/// Properties that only the service sets (Graph: "message resource type").
const SET_BY_SERVICE: [&str; 14] = [
    "id",
    "createddatetime",
    "lastmodifieddatetime",
    "changekey",
    "receiveddatetime",
    "sentdatetime",
    "hasattachments",
    "bodypreview",
    "parentfolderid",
    "conversationid",
    "isdraft",
    "weblink",
    "uniquebody",
    "size",
];

/// Properties that fail in an attached message but not in a message of its own.
const NOT_IN_ATTACHED: [&str; 5] =
    ["attachments", "hasattachments", "parentfolderid", "internetmessageheaders", "isdraft"];

/// The properties of a message in a request. A property that is not mentioned is `None`.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// `subject`
    pub subject: Option<String>,
    /// `body`
    pub body: Option<Body>,
    /// `from`
    pub from: Option<Option<Recipient>>,
    /// `sender`
    pub sender: Option<Option<Recipient>>,
    /// `toRecipients`
    pub to: Option<Vec<Recipient>>,
    /// `ccRecipients`
    pub cc: Option<Vec<Recipient>>,
    /// `bccRecipients`
    pub bcc: Option<Vec<Recipient>>,
    /// `replyTo`
    pub reply_to: Option<Vec<Recipient>>,
    /// `importance`
    pub importance: Option<Importance>,
    /// `internetMessageId`
    pub internet_message_id: Option<Option<String>>,
    /// `internetMessageHeaders`
    pub headers: Option<Vec<(String, String)>>,
    /// `conversationIndex`
    pub conversation_index: Option<String>,
    /// `isReadReceiptRequested`
    pub read_receipt: Option<bool>,
    /// `isDeliveryReceiptRequested`
    pub delivery_receipt: Option<bool>,
    /// `attachments`
    pub attachments: Vec<Attachment>,
    /// `isRead`
    pub read: Option<bool>,
    /// `flag`: the status, and the dates as they were sent
    pub flag: Option<(FlagStatus, BTreeMap<String, Value>)>,
    /// `categories`
    pub categories: Option<Vec<String>>,
    /// `inferenceClassification`
    pub other: Option<bool>,
    /// Extended properties by their canonical id.
    pub extended: BTreeMap<String, Value>,
}

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::bad_request("UnableToDeserializePostBody", text)
}

fn wrong_type(name: &str) -> ApiError {
    refused(format!("Cannot convert the value of property '{name}' to its expected type."))
}

impl Input {
    /// Reads a message.
    ///
    /// # Errors
    /// 400 for an unknown property and for a value of the wrong type.
    pub fn read(object: &Map<String, Value>, version: Version) -> Result<Self, ApiError> {
        let mut input = Self::default();
        for (name, value) in object {
            input.read_property(name, value, version)?;
        }
        Ok(input)
    }

    fn read_property(&mut self, name: &str, value: &Value, version: Version) -> Result<(), ApiError> {
        let lower = name.to_ascii_lowercase();
        let text = || match value {
            Value::Null => Ok(String::new()),
            value => value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name)),
        };
        let flag = || value.as_bool().ok_or_else(|| wrong_type(name));
        let people = || -> Result<Vec<Recipient>, ApiError> {
            value.as_array().ok_or_else(|| wrong_type(name))?.iter().map(recipient).collect()
        };
        match lower.as_str() {
            "subject" => self.subject = Some(text()?),
            "body" => self.body = Some(body(value)?),
            "from" => self.from = Some(optional(value, recipient)?),
            "sender" => self.sender = Some(optional(value, recipient)?),
            "torecipients" => self.to = Some(people()?),
            "ccrecipients" => self.cc = Some(people()?),
            "bccrecipients" => self.bcc = Some(people()?),
            "replyto" => {
                let people = people()?;
                check_addresses(&people)?;
                self.reply_to = Some(people);
            }
            "importance" => {
                self.importance = Some(Importance::from_name(&text()?).ok_or_else(|| wrong_type(name))?);
            }
            "internetmessageid" => self.internet_message_id = Some(value.as_str().map(str::to_owned)),
            "internetmessageheaders" => self.headers = Some(headers(value)?),
            "conversationindex" => self.conversation_index = value.as_str().map(str::to_owned),
            "isreadreceiptrequested" => self.read_receipt = value.as_bool(),
            "isdeliveryreceiptrequested" => self.delivery_receipt = value.as_bool(),
            "isread" => self.read = Some(flag()?),
            "flag" => self.flag = Some(follow_up(value)?),
            "categories" => {
                let names = value.as_array().ok_or_else(|| wrong_type(name))?.iter();
                let names = names.map(|one| one.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name)));
                self.categories = Some(names.collect::<Result<_, _>>()?);
            }
            "inferenceclassification" => self.other = Some(text()?.eq_ignore_ascii_case("other")),
            "attachments" => {
                let given = value.as_array().ok_or_else(|| wrong_type(name))?;
                self.attachments = given.iter().map(|one| attachment(one, version)).collect::<Result<_, _>>()?;
            }
            "singlevalueextendedproperties" | "multivalueextendedproperties" => {
                for property in value.as_array().ok_or_else(|| wrong_type(name))? {
                    let (id, value) = extended::read(property)?;
                    self.extended.insert(id, value);
                }
            }
            known if SET_BY_SERVICE.contains(&known) || known.starts_with('@') || known.contains("@odata.") => {}
            _ => {
                return Err(refused(format!(
                    "The property '{name}' does not exist on type 'microsoft.graph.message'. Make sure to only use \
                     property names that are defined by the type."
                )));
            }
        }
        Ok(())
    }

    /// Returns whether the request has properties that can only be changed in drafts (Graph: "Update message").
    pub fn changes_content(&self) -> bool {
        self.subject.is_some()
            || self.body.is_some()
            || self.from.is_some()
            || self.sender.is_some()
            || self.to.is_some()
            || self.cc.is_some()
            || self.bcc.is_some()
            || self.reply_to.is_some()
            || self.internet_message_id.is_some()
    }

    /// Copies the properties of the content into `said`.
    pub fn apply(&self, said: &mut Properties) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        set(&mut said.subject, &self.subject);
        set(&mut said.body, &self.body);
        set(&mut said.from, &self.from);
        set(&mut said.sender, &self.sender);
        set(&mut said.to, &self.to);
        set(&mut said.cc, &self.cc);
        set(&mut said.bcc, &self.bcc);
        set(&mut said.reply_to, &self.reply_to);
        set(&mut said.importance, &self.importance);
        set(&mut said.internet_message_id, &self.internet_message_id);
        set(&mut said.headers, &self.headers);
        set(&mut said.read_receipt, &self.read_receipt);
        set(&mut said.delivery_receipt, &self.delivery_receipt);
        if self.conversation_index.is_some() {
            said.conversation_index.clone_from(&self.conversation_index);
        }
        for attachment in &self.attachments {
            attach(said, attachment.clone());
        }
    }

    /// Removes and returns an extended property, as the service does with those that it interprets.
    pub fn take(&mut self, canonical: &str) -> Option<String> {
        let value = self.extended.remove(canonical)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

/// Adds an attachment and returns its number.
pub fn attach(said: &mut Properties, mut attachment: Attachment) -> u32 {
    attachment.number = said.attachments.iter().map(|one| one.number + 1).max().unwrap_or(0);
    let number = attachment.number;
    said.attachments.push(attachment);
    number
}

fn optional<T>(value: &Value, read: impl FnOnce(&Value) -> Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

fn recipient(value: &Value) -> Result<Recipient, ApiError> {
    let address =
        value.get("emailAddress").filter(|address| address.is_object()).ok_or_else(|| wrong_type("emailAddress"))?;
    let text = |name: &str| address.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, address) = (text("name"), text("address"));
    Ok(Recipient { name: if name.is_empty() { address.clone() } else { name }, address })
}

/// Checks addresses: only SMTP addresses and X.500 distinguished names are valid.
fn check_addresses(people: &[Recipient]) -> Result<(), ApiError> {
    let good = |address: &str| address.contains('@') || address.to_ascii_lowercase().starts_with("/o=");
    if people.iter().all(|person| good(&person.address)) {
        return Ok(());
    }
    Err(ApiError::bad_request("ErrorInvalidRecipients", "At least one recipient is not valid."))
}

fn body(value: &Value) -> Result<Body, ApiError> {
    let object = value.as_object().ok_or_else(|| wrong_type("body"))?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let html = match text("contentType").map(str::to_ascii_lowercase).as_deref() {
        Some("html") => true,
        Some("text") | None => false,
        Some(_) => return Err(wrong_type("contentType")),
    };
    Ok(Body { html, content: text("content").unwrap_or_default().to_owned() })
}

fn headers(value: &Value) -> Result<Vec<(String, String)>, ApiError> {
    let headers = value.as_array().ok_or_else(|| wrong_type("internetMessageHeaders"))?.iter().map(|header| {
        let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = text("name");
        if !name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-")) {
            let text = format!("The internet message header name '{name}' should start with 'x-' or 'X-'.");
            return Err(ApiError::bad_request("InvalidInternetMessageHeader", text));
        }
        Ok((name, text("value")))
    });
    headers.collect()
}

fn follow_up(value: &Value) -> Result<(FlagStatus, BTreeMap<String, Value>), ApiError> {
    let object = value.as_object().ok_or_else(|| wrong_type("flag"))?;
    let name = object.get("flagStatus").and_then(Value::as_str).unwrap_or("notFlagged");
    let status = FlagStatus::from_name(name).ok_or_else(|| wrong_type("flagStatus"))?;
    let dates = ["startDateTime", "dueDateTime", "completedDateTime"];
    let dates = object.iter().filter(|(name, value)| dates.contains(&name.as_str()) && !value.is_null());
    Ok((status, dates.map(|(name, value)| (name.clone(), value.clone())).collect()))
}

/// Reads an attachment.
///
/// # Errors
/// 400 for an unknown type or property, and for content that is not base64.
pub fn attachment(value: &Value, version: Version) -> Result<Attachment, ApiError> {
    let object = value.as_object().ok_or_else(|| wrong_type("attachment"))?;
    let kind = object.get("@odata.type").and_then(Value::as_str).unwrap_or("#microsoft.graph.fileAttachment");
    let kind = kind.trim_start_matches('#').trim_start_matches("microsoft.graph.").to_ascii_lowercase();
    let own: &[&str] = match (kind.as_str(), version) {
        ("fileattachment", _) => &["contentBytes", "contentId", "contentLocation"],
        ("itemattachment", _) => &["item"],
        ("referenceattachment", Version::V1) => &[],
        ("referenceattachment", Version::Beta) => {
            &["sourceUrl", "providerType", "permission", "isFolder", "thumbnailUrl", "previewUrl"]
        }
        _ => return Err(refused(format!("The type '{kind}' is no attachment."))),
    };
    let common = ["id", "name", "contentType", "size", "isInline", "lastModifiedDateTime"];
    let known = |name: &str| common.contains(&name) || own.contains(&name) || name.contains("@odata.");
    if let Some(name) = object.keys().find(|name| !known(name)) {
        return Err(refused(format!("The property '{name}' does not exist on type 'microsoft.graph.{kind}'.")));
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
    let payload = match kind.as_str() {
        "fileattachment" => {
            let bytes = STANDARD.decode(text("contentBytes").unwrap_or_default());
            Payload::File(Arc::new(bytes.map_err(|_| wrong_type("contentBytes"))?))
        }
        "itemattachment" => attached_item(object.get("item").unwrap_or(&Value::Null), version)?,
        _ => Payload::Reference(text("sourceUrl").unwrap_or_default()),
    };
    let default_type =
        if matches!(payload, Payload::Message(_)) { "message/rfc822" } else { "application/octet-stream" };
    Ok(Attachment {
        number: 0,
        name: text("name")
            .ok_or_else(|| ApiError::bad_request("ErrorInvalidProperty", "The attachment must have a name."))?,
        content_type: text("contentType").unwrap_or_else(|| default_type.to_owned()),
        inline: object.get("isInline").and_then(Value::as_bool).unwrap_or(false),
        content_id: text("contentId"),
        content_location: text("contentLocation"),
        payload,
    })
}

fn attached_item(item: &Value, version: Version) -> Result<Payload, ApiError> {
    let object = item.as_object().ok_or_else(|| wrong_type("item"))?;
    let kind = object.get("@odata.type").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let names: Vec<String> = object.keys().map(|name| name.to_ascii_lowercase()).collect();
    let forbidden: &[&str] = match kind.trim_start_matches('#') {
        "microsoft.graph.message" => &NOT_IN_ATTACHED,
        "microsoft.graph.event" => &["isorganizer", "isdraft", "attachments", "hasattachments"],
        "microsoft.graph.contact" => &["parentfolderid"],
        _ => return Err(refused("The item must be a message, an event or a contact.")),
    };
    if let Some(name) = names.iter().find(|name| forbidden.contains(&name.as_str())) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "ErrorInvalidRequest",
            format!("The property '{name}' cannot be set on an attached item."),
        ));
    }
    if !kind.ends_with("message") {
        return Ok(Payload::Item(Arc::new(item.clone())));
    }
    let mut said = Properties::default();
    Input::read(object, version)?.apply(&mut said);
    let identity = said.subject.clone();
    Ok(Payload::Message(Arc::new(mime::render(&said, &identity))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Input, ApiError> {
        Input::read(value.as_object().expect("an object"), Version::V1)
    }

    #[test]
    fn unknown_properties_fail_and_those_of_the_service_are_ignored() {
        let input = read(json!({"subject": "a", "receivedDateTime": "2020-01-01T00:00:00Z", "isDraft": false}));
        assert_eq!(input.expect("an input").subject.as_deref(), Some("a"));
        let error = read(json!({"subject": "a", "datereceived": "2020"})).expect_err("an unknown property");
        assert_eq!(error.code, "UnableToDeserializePostBody");
    }

    #[test]
    fn values_are_checked() {
        for (value, code) in [
            (json!({"subject": 1}), "UnableToDeserializePostBody"),
            (json!({"internetMessageHeaders": [{"name": "Received", "value": "x"}]}), "InvalidInternetMessageHeader"),
            (json!({"replyTo": [{"emailAddress": {"address": "nobody"}}]}), "ErrorInvalidRecipients"),
            (
                json!({"singleValueExtendedProperties": [{"id": "Integer 0x0E07", "value": "x"}]}),
                "ErrorInvalidPropertyForOperation",
            ),
            (
                json!({"attachments": [{"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": "%"}]}),
                "UnableToDeserializePostBody",
            ),
            (
                json!({"attachments": [{"@odata.type": "#microsoft.graph.referenceAttachment", "name": "a", "sourceUrl": "x"}]}),
                "UnableToDeserializePostBody",
            ),
        ] {
            assert_eq!(read(value.clone()).expect_err("an error").code, code, "{value}");
        }
    }
}
