//! The content of a message in the two forms in which clients ask for it: MIME bytes and properties.
//!
//! For a message that came as MIME, the bytes are authoritative, and [`parse`] derives the properties. For a message
//! that came as JSON, the properties are authoritative, and [`render`] makes the bytes, always the same ones.

mod parse;
mod render;

pub use parse::parse;
pub use render::{made_message_id, render, render_as};

use std::sync::Arc;

/// Name and address of a person. Both may be empty, and the address need not be an SMTP address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Name for display.
    pub name: String,
    /// Address.
    pub address: String,
}

/// The text of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Whether `content` is HTML.
    pub html: bool,
    /// The text.
    pub content: String,
}

/// How important the author considers a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Importance {
    /// Low importance.
    Low,
    /// Normal importance.
    #[default]
    Normal,
    /// High importance.
    High,
}

impl Importance {
    /// Returns its name in Graph.
    pub fn name(self) -> &'static str {
        ["low", "normal", "high"][self as usize]
    }

    /// Returns the importance with this name; case does not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Low, Self::Normal, Self::High].into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }
}

/// The content of an attachment.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// A file.
    File(Arc<Vec<u8>>),
    /// A message, as MIME.
    Message(Arc<Vec<u8>>),
    /// An item without MIME (an event or a contact), as Graph shows it.
    Item(Arc<serde_json::Value>),
    /// A link to a file in the cloud.
    Reference(String),
}

/// An attachment of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// Identifies the attachment until the message's content changes.
    pub number: u32,
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// True if it is shown inside the body.
    pub inline: bool,
    /// The id by which the body refers to it, without angle brackets.
    pub content_id: Option<String>,
    /// Its Content-Location.
    pub content_location: Option<String>,
    /// The content.
    pub payload: Payload,
}

/// The properties of a message's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub body: Body,
    /// The author.
    pub from: Option<Recipient>,
    /// The sender, if somebody sent the message for the author.
    pub sender: Option<Recipient>,
    /// Recipients.
    pub to: Vec<Recipient>,
    /// Recipients of a copy.
    pub cc: Vec<Recipient>,
    /// Recipients of a blind copy.
    pub bcc: Vec<Recipient>,
    /// Addresses to which answers go.
    pub reply_to: Vec<Recipient>,
    /// When it was sent, in seconds since 1970.
    pub sent: Option<i64>,
    /// Message-ID with its angle brackets.
    pub internet_message_id: Option<String>,
    /// Every header in order, without white space around the values.
    pub headers: Vec<(String, String)>,
    /// A header block for the MIME, in place of headers made from the properties.
    pub transport_headers: Option<String>,
    /// The importance.
    pub importance: Importance,
    /// Position in the conversation, in base64.
    pub conversation_index: Option<String>,
    /// True if the author asks for a read receipt.
    pub read_receipt: bool,
    /// True if the author asks for a delivery receipt.
    pub delivery_receipt: bool,
    /// The attachments.
    pub attachments: Vec<Attachment>,
}

impl Properties {
    /// Returns the subject without `RE:` and similar prefixes. It identifies the conversation.
    pub fn topic(&self) -> &str {
        let mut topic = self.subject.trim();
        while let Some((prefix, rest)) = topic.split_once(':') {
            if !["re", "fw", "fwd", "aw", "wg", "tr"].contains(&prefix.to_ascii_lowercase().as_str()) {
                break;
            }
            topic = rest.trim_start();
        }
        topic
    }
}

/// Returns the same message with other boundary strings. Exchange creates new ones each time it renders a message.
pub fn rebound(mime: &[u8], nth: u64) -> Vec<u8> {
    let text = String::from_utf8_lossy(&mime[..mime.len().min(64 * 1024)]).into_owned();
    let Some(boundary) = text.split_once("boundary=\"").and_then(|(_, rest)| rest.split('"').next()) else {
        return mime.to_vec();
    };
    if boundary.len() < 6 {
        return mime.to_vec();
    }
    let fresh =
        format!("_{nth:016x}_{}", &boundary[..boundary.len().min(40)].trim_start_matches('_').replace(['<', '>'], ""));
    let mut out = Vec::with_capacity(mime.len());
    let mut at = 0;
    while at < mime.len() {
        if mime[at..].starts_with(boundary.as_bytes()) {
            out.extend_from_slice(fresh.as_bytes());
            at += boundary.len();
        } else {
            out.push(mime[at]);
            at += 1;
        }
    }
    out
}
