//! What a message says, in the two forms in which clients ask for it: MIME bytes and properties.
//!
//! Of a message that came as MIME the bytes are the truth, and [`parse`] derives the properties. Of a message that came
//! as JSON the properties are the truth, and [`render`] makes the bytes, the same ones each time.

mod parse;
mod render;

pub use parse::parse;
pub use render::{made_message_id, render, render_as};

use std::sync::Arc;

/// Somebody's name and address; both may be empty, and the address need not be one of SMTP.
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

/// How important its author thinks a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Importance {
    /// Less than others.
    Low,
    /// Like others.
    #[default]
    Normal,
    /// More than others.
    High,
}

impl Importance {
    /// Returns its name in Graph.
    pub fn name(self) -> &'static str {
        ["low", "normal", "high"][self as usize]
    }

    /// Returns the importance of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Low, Self::Normal, Self::High].into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }
}

/// What is attached.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// A file.
    File(Arc<Vec<u8>>),
    /// A message, as MIME.
    Message(Arc<Vec<u8>>),
    /// An item that has no MIME (an event or a contact), as Graph shows it.
    Item(Arc<serde_json::Value>),
    /// A link to a file in the cloud.
    Reference(String),
}

/// Something that a message carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// Names it for as long as the message's content is not changed.
    pub number: u32,
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Shown inside of the body.
    pub inline: bool,
    /// How the body refers to it, without angle brackets.
    pub content_id: Option<String>,
    /// Its Content-Location.
    pub content_location: Option<String>,
    /// What it is.
    pub payload: Payload,
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub body: Body,
    /// Whom it is from.
    pub from: Option<Recipient>,
    /// Who sent it, if for somebody else.
    pub sender: Option<Recipient>,
    /// Who receives it.
    pub to: Vec<Recipient>,
    /// Who receives a copy.
    pub cc: Vec<Recipient>,
    /// Who receives a copy, unseen.
    pub bcc: Vec<Recipient>,
    /// Who receives answers.
    pub reply_to: Vec<Recipient>,
    /// When it was sent, in seconds since 1970.
    pub sent: Option<i64>,
    /// Message-ID with its angle brackets.
    pub internet_message_id: Option<String>,
    /// Every header, in order, with the white space around values removed.
    pub headers: Vec<(String, String)>,
    /// The block of headers to show in MIME instead of headers made from the properties.
    pub transport_headers: Option<String>,
    /// How important it is.
    pub importance: Importance,
    /// Its place in the conversation, in base64.
    pub conversation_index: Option<String>,
    /// Whether the author asks to be told when it is read.
    pub read_receipt: bool,
    /// Whether the author asks to be told when it is delivered.
    pub delivery_receipt: bool,
    /// What it carries.
    pub attachments: Vec<Attachment>,
}

impl Properties {
    /// Returns the subject without `RE:` and the like, by which conversations are told apart.
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

/// Returns the same message with other boundary strings, as Exchange makes new ones each time it renders a message.
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
