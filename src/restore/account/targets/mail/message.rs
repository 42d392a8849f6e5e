//! Turns a stored mail into the request that creates the message.
//!
//! A snapshot has two things of each mail: its bytes (MIME), and what the service said of it (Graph: message, with the
//! extended properties that matter). The text and the attachments come from the bytes. The read state, flag,
//! categories, times and people come from what the service said. A mail that came from a folder has only its headers,
//! and they say these things instead.
//!
//! - A message becomes a draft only if it was one. `PidTagMessageFlags` can only be set when a message is created
//!   ([MS-OXCMSG] 2.2.1.6), so everything goes into the one request that creates it.
//! - A nested message is attached as a file, byte for byte. As an item it would lose its own attachments.
//! - A signed or encrypted message (S/MIME) is stored as Outlook stores it: the whole body is one attachment, and the
//!   class says so ([MS-OXOSMIME] 2.1.3). So the signature stays valid.

use super::file::{File, FileBytes, KEPT_BYTES_MAX};
use super::fingerprint::Fingerprint;
use crate::content::mail::charset::Charset;
use crate::content::mail::structure::{DEPTH_MAX, Kind, PARTS_MAX, Part, Structure};
use crate::content::mail::transfer::Encoding;
use crate::content::mail::{self, words};
use crate::source::graph::model::{Message as Stored, parse_date};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::ops::Range;

/// Maximum size of a request, in bytes. The service accepts about 4 MB, base64 included (Graph: "Known issues", request
/// size).
const REQUEST_BYTES_MAX: usize = 3_500_000;
/// Maximum size of a header block that is restored, in bytes. Real messages have smaller ones.
const HEADERS_BYTES_MAX: usize = 256 << 10;

/// The properties that are sent as the service said them. It sets all others itself, or would refuse them (Graph:
/// message).
const RESTORED_PROPERTIES: [&str; 12] = [
    "subject",
    "from",
    "sender",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "importance",
    "isRead",
    "categories",
    "internetMessageId",
    "inferenceClassification",
    "conversationIndex",
];
/// The last verb, the icon, and the time of the verb. They say whether a message was answered or forwarded.
const VERBS: [(u32, &str); 3] = [(0x1081, "Integer 0x1081"), (0x1080, "Integer 0x1080"), (0x1082, "SystemTime 0x1082")];

const FLAG_READ: u32 = 1;
const FLAG_UNSENT: u32 = 8;

/// A mail that is to be created.
pub(super) struct Mail {
    /// The properties of the message, without the attachments.
    pub properties: Map<String, Value>,
    /// The attachments.
    pub files: Vec<File>,
    /// True if its text is HTML.
    pub html: bool,
    /// True if it has more parts than this program tells apart.
    incomplete: bool,
}

/// When a message was sent and received, as the service writes times.
struct Times {
    sent: Option<String>,
    received: Option<String>,
}

/// A request that creates a message.
pub(super) struct Request {
    /// The properties of the message, with the files that fit into the request.
    pub properties: Map<String, Value>,
    /// The number of files that did not fit, the last ones of the mail. They are attached afterwards.
    pub files_left: usize,
}

/// A stored mail and its parts.
struct Message<'a> {
    structure: Structure<'a>,
    /// The stored bytes, from which files can be read again. `None` if the parts are not parts of these bytes.
    stored: Option<&'a [u8]>,
    /// The charset of its text. Header fields that are not encoded are in this charset.
    charset: Option<Charset>,
}

impl<'a> Message<'a> {
    fn of(mime: &'a [u8], is_stored: bool) -> Self {
        let structure = Structure::of(mime, PARTS_MAX);
        let charset = structure.charset(0);
        Self { structure, stored: is_stored.then_some(mime), charset }
    }

    /// Returns the range of `piece` in the stored bytes, if it is part of them.
    fn range_of(&self, piece: &[u8]) -> Option<Range<usize>> {
        let whole = self.stored?.as_ptr_range();
        let piece = piece.as_ptr_range();
        let is_inside = whole.start <= piece.start && piece.end <= whole.end;
        is_inside.then(|| piece.start.addr() - whole.start.addr()..piece.end.addr() - whole.start.addr())
    }

    /// Returns the file that `piece` encodes, with `prefix` before it. Keeps its bytes in memory if they fit beside
    /// the `kept_bytes` of the files before it, and adds them to these.
    fn file(
        &self,
        described: Described,
        prefix: Bytes,
        piece: &[u8],
        encoding: Encoding,
        kept_bytes: &mut u64,
    ) -> File {
        let bytes = FileBytes::decode(&prefix, encoding, piece);
        let fingerprint = Fingerprint::of(&bytes);
        let bytes = match self.range_of(piece) {
            Some(range) if *kept_bytes + fingerprint.len > KEPT_BYTES_MAX => {
                FileBytes::InMail { prefix, range, encoding }
            }
            _ => {
                *kept_bytes += fingerprint.len;
                FileBytes::Kept(bytes)
            }
        };
        let Described { name, content_type, inline, content_id, content_location } = described;
        File { name, content_type, inline, content_id, content_location, fingerprint, bytes }
    }

    fn root(&self) -> &Part<'a> {
        &self.structure.parts[0]
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = words::decode(self.root().header.raw(name)?, self.charset);
        Some(one_line(&text)).filter(|text| !text.is_empty())
    }

    fn people(&self, name: &'a str) -> Vec<Value> {
        let one = |person: mail::address::Address| json!({ "emailAddress": { "name": person.name, "address": person.address } });
        mail::addresses(&self.root().header, name, self.charset).map(one).collect()
    }

    /// Returns the number of the part that is shown as the text. If there are alternatives, this is the HTML.
    fn body(&self) -> Option<usize> {
        let texts = || self.structure.leaves(0).filter(|(_, part)| is_readable(part));
        // A text with a name is a file, unless there is no other text.
        let (first, part) = texts().find(|(_, part)| part.file_name(None).is_none()).or_else(|| texts().next())?;
        let Some(group) = part.alternative else { return Some(first) };
        let html = texts().find(|(_, part)| part.alternative == Some(group) && part.is_html());
        Some(html.map_or(first, |(number, _)| number))
    }
}

/// Returns true if a part can be the text of a message.
fn is_readable(part: &Part<'_>) -> bool {
    let kind = part.media_type();
    let is_text = part.is_html() || kind == "text/plain" || kind.starts_with("multipart") || !kind.contains('/');
    part.kind == Kind::Leaf && is_text && part.is_text() && !part.is_attachment()
}

impl Mail {
    /// Reads a mail. `stored` is what the service said of it.
    pub fn read(mime: &[u8], stored: Option<&Stored>) -> Self {
        #[cfg(test)]
        crate::runtime::trip(mime, "restoring");
        let mime = mail::readable(mime);
        let message = Message::of(&mime, matches!(mime, Cow::Borrowed(_)));
        let opened = message.structure.opened_outside_messages(&mime);
        let message = opened.as_ref().map_or(message, |opened| Message::of(opened, false));
        let incomplete = message.structure.incomplete;
        let mut mail = Self { properties: Map::new(), files: Vec::new(), html: false, incomplete };
        let times = match stored {
            Some(stored) => mail.take_properties(stored),
            None => mail.read_properties(&message, &mime),
        };
        let class = smime_class(&message, stored);
        mail.put_extended(&message, stored, class.as_deref(), times);
        let body = message.body();
        match class.as_deref().filter(|_| is_signed_openly(&message)) {
            Some(_) => mail.files = vec![signed_entity(&message)],
            None => mail.take_parts(&message, body),
        }
        if !mail.properties.contains_key("body") {
            mail.put_body(&message, body);
        }
        mail
    }

    /// Returns true if the mail has more parts than this program tells apart. The service is not asked to make such a
    /// mail.
    pub fn has_too_many_parts(&self) -> bool {
        self.incomplete
    }

    /// Takes over what the service said of the message.
    fn take_properties(&mut self, stored: &Stored) -> Times {
        let said: Map<String, Value> = serde_json::from_str(stored.raw.get()).unwrap_or_default();
        for name in RESTORED_PROPERTIES {
            if let Some(value) = said.get(name).filter(|value| !value.is_null()) {
                self.properties.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(answers) = said.get("replyTo").and_then(Value::as_array) {
            let good: Vec<_> = answers.iter().filter(|answer| takes_answers(answer)).cloned().collect();
            self.properties.insert("replyTo".to_owned(), json!(good));
        }
        if let Some(Value::Object(flag)) = said.get("flag") {
            let flag: Map<_, _> =
                flag.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
            self.properties.insert("flag".to_owned(), Value::Object(flag));
        }
        let is = |name: &str| said.get(name).and_then(Value::as_bool);
        // A receipt was sent when the message was read. To request it again would send another one.
        if is("isRead") == Some(false) || is("isDraft") == Some(true) {
            for name in ["isReadReceiptRequested", "isDeliveryReceiptRequested"] {
                if is(name) == Some(true) {
                    self.properties.insert(name.to_owned(), json!(true));
                }
            }
        }
        let flags =
            u32::from(is("isRead") != Some(false)) * FLAG_READ + u32::from(is("isDraft") == Some(true)) * FLAG_UNSENT;
        self.extend("Integer 0x0E07", &flags.to_string());
        Times { sent: stored.row.sent_date_time.clone(), received: stored.row.received_date_time.clone() }
    }

    /// Reads the properties from the headers, for a mail of which no service said anything.
    fn read_properties(&mut self, message: &Message<'_>, mime: &[u8]) -> Times {
        let header = &message.root().header;
        self.properties.insert("subject".to_owned(), json!(message.text("Subject").unwrap_or_default()));
        let from = message.people("From").into_iter().next();
        let sender = message.people("Sender").into_iter().next().or_else(|| from.clone());
        for (name, one) in [("from", from), ("sender", sender)] {
            if let Some(one) = one {
                self.properties.insert(name.to_owned(), one);
            }
        }
        for (name, field) in
            [("toRecipients", "To"), ("ccRecipients", "Cc"), ("bccRecipients", "Bcc"), ("replyTo", "Reply-To")]
        {
            let mut list = message.people(field);
            list.retain(|one| name != "replyTo" || takes_answers(one));
            self.properties.insert(name.to_owned(), json!(list));
        }
        if let Some(id) = mail::message_id(header) {
            self.properties.insert("internetMessageId".to_owned(), json!(format!("<{id}>")));
        }
        let importance = message.text("Importance").map(|text| text.to_ascii_lowercase());
        if let Some(importance) = importance.filter(|text| ["low", "normal", "high"].contains(&text.as_str())) {
            self.properties.insert("importance".to_owned(), json!(importance));
        }
        self.properties.insert("isRead".to_owned(), json!(true));
        self.extend("Integer 0x0E07", &FLAG_READ.to_string());
        let moment = |seconds: i64| jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string());
        let sent = header.all("Date").find_map(mail::date::parse).and_then(moment);
        // A mail that is dropped again is looked for by this time.
        let received = mail::arrival(mime).and_then(moment);
        Times { sent, received }
    }

    fn put_extended(&mut self, message: &Message<'_>, stored: Option<&Stored>, class: Option<&str>, times: Times) {
        for (id, time) in [("SystemTime 0x0039", times.sent), ("SystemTime 0x0E06", times.received)] {
            // An unset time is written as the first day of the first year.
            if let Some(time) = time.filter(|time| parse_date(time).is_some()) {
                self.extend(id, &time);
            }
        }
        for (tag, id) in VERBS {
            if let Some(value) = stored.and_then(|stored| stored.row.property(tag)) {
                self.extend(id, value);
            }
        }
        if let Some(class) = class {
            self.extend("String 0x001A", class);
        }
        let block = message.root().header.bytes();
        if !self.is_draft() && !block.trim_ascii().is_empty() && block.len() <= HEADERS_BYTES_MAX {
            let keep = |letter: &char| !letter.is_control() || ['\r', '\n', '\t'].contains(letter);
            let block: String = words::raw(block, message.charset).chars().filter(keep).collect();
            self.extend("String 0x007D", &block);
        }
    }

    fn extend(&mut self, id: &str, value: &str) {
        let extended = self.properties.entry("singleValueExtendedProperties").or_insert_with(|| json!([]));
        extended.as_array_mut().expect("it was made an array").push(json!({ "id": id, "value": value }));
    }

    /// Returns its text. It is HTML if [`Self::html`] is true.
    pub fn body(&self) -> &str {
        self.properties.get("body").and_then(|body| body["content"].as_str()).unwrap_or_default()
    }

    /// Returns true if it was never sent.
    pub fn is_draft(&self) -> bool {
        let extended = self.properties.get("singleValueExtendedProperties").and_then(Value::as_array);
        let flags = extended.into_iter().flatten().find(|property| property["id"] == "Integer 0x0E07");
        flags
            .and_then(|flags| flags["value"].as_str()?.parse::<u32>().ok())
            .is_some_and(|flags| flags & FLAG_UNSENT != 0)
    }

    fn put_body(&mut self, message: &Message<'_>, body: Option<usize>) {
        let part = body.map(|number| &message.structure.parts[number]);
        self.html = part.is_some_and(Part::is_html);
        // A NUL ends the text for the service.
        let content = part.map(|part| part.text(usize::MAX).0.replace('\0', "")).unwrap_or_default();
        let kind = if self.html { "html" } else { "text" };
        self.properties.insert("body".to_owned(), json!({ "contentType": kind, "content": content }));
    }

    /// Adds all parts as files, except the text and other forms of the text.
    fn take_parts(&mut self, message: &Message<'_>, body: Option<usize>) {
        let chosen = body.map(|number| &message.structure.parts[number]);
        // The plain form beside HTML says the same. The service makes a plain form itself.
        let other_forms = chosen.filter(|part| part.is_html()).and_then(|part| part.alternative);
        let mut kept_bytes = 0;
        for (number, part) in message.structure.leaves(0) {
            let is_other_form = other_forms.is_some() && part.alternative == other_forms && is_plain_form(part);
            if body != Some(number) && !is_other_form {
                self.files.push(file(message, number, self.files.len(), &mut kept_bytes));
            }
        }
    }

    /// Returns the request that creates the message, with as many files as fit.
    ///
    /// # Errors
    /// The reason if the service cannot take the message at all.
    pub fn request(&self) -> Result<Request, String> {
        if self.incomplete {
            return Err(format!("it has more than {PARTS_MAX} parts, or more than {DEPTH_MAX} in each other"));
        }
        let mut properties = self.properties.clone();
        let mut len = serde_json::to_vec(&properties).map_or(0, |bytes| bytes.len());
        if len > REQUEST_BYTES_MAX {
            return Err(format!("its text has {len} bytes, and the service takes no more than about 4 MB"));
        }
        let fitting = |file: &File| {
            len += file.request_len();
            match &file.bytes {
                FileBytes::Kept(bytes) if len <= REQUEST_BYTES_MAX => Some(file.json(bytes)),
                _ => None,
            }
        };
        let with_it: Vec<Value> = self.files.iter().map_while(fitting).collect();
        let files_left = self.files.len() - with_it.len();
        if !with_it.is_empty() {
            properties.insert("attachments".to_owned(), with_it.into());
        }
        Ok(Request { properties, files_left })
    }
}

/// Returns true if a part beside HTML is the plain form of the same text.
fn is_plain_form(part: &Part<'_>) -> bool {
    is_readable(part) && part.media_type() == "text/plain" && part.file_name(None).is_none()
}

/// Takes a mail apart as a restore to a mailbox does. Returns the name and the length of each file that is attached.
/// `None` if the service could not accept the message.
///
/// This is for tools that try many mails without a service.
pub fn attached_files(mime: &[u8]) -> Option<Vec<(String, u64)>> {
    let mail = Mail::read(mime, None);
    mail.request().ok()?;
    Some(mail.files.iter().map(|file| (file.name.clone(), file.len())).collect())
}

/// What a part says of a file.
struct Described {
    name: String,
    content_type: String,
    inline: bool,
    content_id: Option<String>,
    content_location: Option<String>,
}

/// Returns a part as a file that comes after `count` others. They keep `kept_bytes` bytes in memory.
fn file(message: &Message<'_>, number: usize, count: usize, kept_bytes: &mut u64) -> File {
    let part = &message.structure.parts[number];
    let text = |name: &str| part.header.raw(name).map(|value| one_line(&words::decode(value, message.charset)));
    let content_id = text("Content-ID").map(|id| id.trim_matches(['<', '>']).to_owned()).filter(|id| !id.is_empty());
    let is_shown = content_id.is_some() && !part.is_attachment() && !part.is_text() && !part.is_message();
    let encoding = if part.kind == Kind::Leaf { part.encoding } else { Encoding::Identity };
    let name = part.file_name(message.charset).unwrap_or_else(|| {
        if part.is_message() {
            format!(
                "{}.eml",
                mail::facts(&encoding.of(part.body).decoded(usize::MAX)).subject.as_deref().unwrap_or("Untitled")
            )
        } else if part.is_html() {
            format!("ATT{count:05}.htm")
        } else if part.is_text() {
            format!("ATT{count:05}.txt")
        } else {
            format!("ATT{count:05}")
        }
    });
    let described = Described {
        name,
        content_type: media_type(part),
        inline: part.disposition.value == "inline" || is_shown,
        content_id,
        content_location: text("Content-Location"),
    };
    message.file(described, Bytes::new(), part.body, encoding, kept_bytes)
}

/// Returns the media type, with the parameters that are needed to read the bytes.
fn media_type(part: &Part<'_>) -> String {
    let mut text = match part.media_type() {
        _ if part.content.value.is_empty() && !part.is_message() => "application/octet-stream".to_owned(),
        kind if kind.contains('/') && kind.split('/').all(is_token) => kind.to_owned(),
        _ => "application/octet-stream".to_owned(),
    };
    for name in ["charset", "smime-type", "method"] {
        if let Some(value) = part.content.text(name, None).filter(|value| is_token(value)) {
            text = format!("{text}; {name}={value}");
        }
    }
    text
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect::<String>().trim().to_owned()
}

/// Returns true if replies can be sent there. Otherwise the service would refuse the whole message.
fn takes_answers(recipient: &Value) -> bool {
    let address = recipient["emailAddress"]["address"].as_str().unwrap_or_default();
    address.contains('@') || address.to_ascii_lowercase().starts_with("/o=")
}

/// Returns the class of a signed or encrypted message. `None` for all others.
fn smime_class(message: &Message<'_>, stored: Option<&Stored>) -> Option<String> {
    let said = stored.and_then(|stored| stored.row.property(0x001a));
    if let Some(class) = said.filter(|class| class.to_ascii_lowercase().starts_with("ipm.note.smime")) {
        return Some(class.to_owned());
    }
    if is_signed_openly(message) {
        return Some("IPM.Note.SMIME.MultipartSigned".to_owned());
    }
    let is_sealed = matches!(message.root().media_type(), "application/pkcs7-mime" | "application/x-pkcs7-mime");
    is_sealed.then(|| "IPM.Note.SMIME".to_owned())
}

fn is_signed_openly(message: &Message<'_>) -> bool {
    message.root().media_type() == "multipart/signed"
}

/// Returns the whole body, with the field that says what it is, as one file ([MS-OXOSMIME] 2.1.3.2).
fn signed_entity(message: &Message<'_>) -> File {
    let root = message.root();
    let content_type = root.header.raw("Content-Type").unwrap_or_default().trim_ascii_end();
    let prefix = [b"Content-Type:", content_type, b"\r\n\r\n"].concat();
    let described = Described {
        name: "smime.p7m".to_owned(),
        content_type: "multipart/signed".to_owned(),
        inline: false,
        content_id: None,
        content_location: None,
    };
    message.file(described, prefix.into(), root.body, Encoding::Identity, &mut 0)
}

#[cfg(test)]
mod tests;
