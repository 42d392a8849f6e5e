//! Messages as JSON. Uses the record, and parses the content only if a requested property needs it.

use std::cell::OnceCell;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use strongroom_corpora::rng::Rng;

use super::mapi;
use crate::clock;
use crate::extended::{self, MULTI, SINGLE};
use crate::mime::{self, Body, Properties, Recipient};
use crate::odata::{Query, Select};
use crate::server::{ApiError, Call, Version};
use crate::tenant::id::{FolderKey, IdFormat, MailboxGuid, MessageKey, Named, change_key};
use crate::tenant::{Content, Flags, Mailbox, Record, Tenant, Unreadable, message_id};

/// Properties that come from the content.
const OF_CONTENT: [&str; 19] = [
    "subject",
    "body",
    "bodyPreview",
    "from",
    "sender",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "replyTo",
    "sentDateTime",
    "hasAttachments",
    "importance",
    "internetMessageId",
    "internetMessageHeaders",
    "conversationId",
    "conversationIndex",
    "uniqueBody",
    "isReadReceiptRequested",
    "isDeliveryReceiptRequested",
];

/// Properties that come from the record.
const OF_RECORD: [&str; 14] = [
    "id",
    "changeKey",
    "createdDateTime",
    "lastModifiedDateTime",
    "receivedDateTime",
    "parentFolderId",
    "isRead",
    "isDraft",
    "categories",
    "inferenceClassification",
    "webLink",
    "flag",
    "singleValueExtendedProperties",
    "multiValueExtendedProperties",
];

/// A copy of a message's record, to use without the mailbox's lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The mailbox.
    pub guid: MailboxGuid,
    /// The message.
    pub key: MessageKey,
    /// Its record at that time.
    pub record: Record,
    /// True if it is in Sent Items, where headers are not shown.
    pub sent_item: bool,
    said: OnceCell<Arc<Properties>>,
}

impl View {
    /// Returns the view of a message.
    pub fn new(mailbox: &Mailbox, key: MessageKey, record: &Record) -> Self {
        let folder = mailbox.folder(record.folder);
        Self {
            guid: mailbox.guid,
            key,
            record: record.clone(),
            sent_item: folder.is_some_and(|folder| folder.well_known == Some("sentitems")),
            said: OnceCell::new(),
        }
    }

    /// Returns the view of a record.
    pub fn of_record(guid: MailboxGuid, key: MessageKey, record: Record) -> Self {
        Self { guid, key, record, sent_item: false, said: OnceCell::new() }
    }

    /// Returns the view of a message that is in no mailbox.
    pub fn of_content(content: Content, time: i64) -> Self {
        let record = Record {
            folder: FolderKey(0),
            log_position: 0,
            entered: 0,
            moves: 0,
            edition: 0,
            flags: Flags { read: true, ..Flags::default() },
            change: 0,
            received: time,
            created: time,
            modified: time,
            content,
            extra: None,
        };
        Self { guid: MailboxGuid::default(), key: MessageKey(0), record, sent_item: false, said: OnceCell::new() }
    }

    /// Returns the id of the message.
    pub fn id(&self, format: IdFormat) -> String {
        message_id(&self.guid, self.key, self.record.moves, format)
    }

    /// Returns the properties of the content.
    pub fn said(&self, tenant: &Tenant) -> &Arc<Properties> {
        self.said.get_or_init(|| tenant.properties(&self.record))
    }

    /// Returns the Message-ID of the MIME. If the properties have none, the MIME gets one when it is rendered.
    fn internet_message_id(&self, said: &Properties) -> Option<String> {
        match (&said.internet_message_id, &self.record.content) {
            (None, Content::Properties(_)) => {
                Some(mime::made_message_id(&message_id(&self.guid, self.key, 0, IdFormat::Immutable)))
            }
            (id, _) => id.clone(),
        }
    }

    /// Returns the change key, which is new after every change.
    pub fn change_key(&self) -> String {
        change_key(&self.guid, self.record.change)
    }

    /// Checks that the message can be read.
    ///
    /// # Errors
    /// The service's permanent error for this message.
    pub fn check_readable(&self) -> Result<(), ApiError> {
        match self.record.extra.as_ref().and_then(|extra| extra.unreadable) {
            Some(unreadable @ (Unreadable::CorruptData | Unreadable::InvalidRecipients)) => Err(unreadable.into()),
            Some(Unreadable::CannotOpenFileAttachment | Unreadable::NoMime) | None => Ok(()),
        }
    }

    /// Checks that the MIME of the message can be rendered.
    ///
    /// # Errors
    /// The service's permanent error for this message.
    pub fn check_renderable(&self) -> Result<(), ApiError> {
        match self.record.extra.as_ref().and_then(|extra| extra.unreadable) {
            Some(unreadable) => Err(unreadable.into()),
            None => Ok(()),
        }
    }
}

impl From<Unreadable> for ApiError {
    fn from(unreadable: Unreadable) -> Self {
        use axum::http::StatusCode;
        match unreadable {
            Unreadable::CorruptData | Unreadable::NoMime => {
                let text = "Data is corrupt., Invalid global object ID: ";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "ErrorCorruptData", text)
            }
            Unreadable::InvalidRecipients => {
                Self::bad_request("ErrorInvalidRecipients", "At least one recipient is not valid.")
            }
            Unreadable::CannotOpenFileAttachment => {
                Self::bad_request("ErrorCannotOpenFileAttachment", "OLE conversion failed for the attachment.")
            }
        }
    }
}

/// How to show messages.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The properties to show.
    pub select: Select,
    /// Format of ids.
    pub format: IdFormat,
    /// Extended properties with one value, in the spelling of the request.
    pub extended: Vec<String>,
    /// Extended properties with several values, in the spelling of the request.
    pub multi_extended: Vec<String>,
    /// Whether to show bodies as text.
    pub text_body: bool,
    /// Whether to show HTML unchanged.
    pub unsafe_html: bool,
    /// Version of the API.
    pub version: Version,
}

impl Shape {
    /// Returns the shape for a call, with the options of `query`.
    ///
    /// # Errors
    /// 400 if `$select` contains a name that is not a property of a message, such as `size`.
    pub fn new(call: &Call, query: &Query) -> Result<Self, ApiError> {
        query.select().check("Message", &[OF_RECORD.as_slice(), OF_CONTENT.as_slice()].concat())?;
        Ok(Self::of_any(call, query))
    }

    /// Returns the shape in which messages are shown by default.
    pub fn default_of(call: &Call) -> Self {
        Self::of_any(call, &Query::default())
    }

    fn of_any(call: &Call, query: &Query) -> Self {
        Self {
            select: query.select(),
            multi_extended: extended::wanted(query, "multivalueextendedproperties"),
            format: call.id_format(),
            extended: extended::wanted(query, "singlevalueextendedproperties"),
            text_body: call.preferences.text_body,
            unsafe_html: call.preferences.unsafe_html,
            version: call.route.version,
        }
    }

    /// Returns a message in this shape. It may still contain properties that only a filter or an order needs.
    pub fn full(&self, tenant: &Tenant, view: &View) -> Map<String, Value> {
        let mut out = Map::new();
        let record = &view.record;
        let change_key = view.change_key();
        out.insert("@odata.etag".to_owned(), json!(format!("W/\"{change_key}\"")));
        if let Some(kind) = type_of(mapi::class(record)) {
            out.insert("@odata.type".to_owned(), json!(kind));
        }
        let id = view.id(self.format);
        let mut put = |name: &str, value: &dyn Fn() -> Value| {
            if self.select.wants(name) {
                out.insert(name.to_owned(), value());
            }
        };
        let extra = record.extra.as_deref();
        put("changeKey", &|| json!(change_key));
        put("createdDateTime", &|| json!(clock::iso(record.created)));
        put("lastModifiedDateTime", &|| json!(clock::iso(record.modified)));
        put("receivedDateTime", &|| json!(clock::iso(record.received)));
        put("parentFolderId", &|| json!(Named::Folder(record.folder).encode(&view.guid)));
        put("isRead", &|| json!(record.flags.read));
        put("isDraft", &|| json!(record.flags.draft));
        put("categories", &|| json!(extra.map(|extra| extra.categories.clone()).unwrap_or_default()));
        put("inferenceClassification", &|| json!(if record.flags.other { "other" } else { "focused" }));
        put("webLink", &|| {
            json!(format!(
                "https://outlook.office365.com/owa/?ItemID={}&exvsurl=1&viewmodel=ReadMessageItem",
                id.replace('=', "%3D")
            ))
        });
        put("flag", &|| {
            let mut flag = extra.map(|extra| extra.flag.clone()).unwrap_or_default();
            flag.insert("flagStatus".to_owned(), json!(record.flags.flag.name()));
            json!(flag)
        });
        if self.select.wants_any(&OF_CONTENT) {
            self.put_content(&mut out, tenant, view);
        }
        for (name, ids) in [(SINGLE, &self.extended), (MULTI, &self.multi_extended)] {
            if ids.is_empty() {
                continue;
            }
            let said = view.said(tenant);
            let mime_len = || tenant.mime(&view.guid, view.key, record).len();
            let value = |id: &String| mapi::of_message(id, record, said, mime_len);
            let found = ids.iter().filter_map(|id| {
                let value = value(id).filter(|value| value.is_array() == (name == MULTI))?;
                Some(json!({"id": id, "value": value}))
            });
            let found: Vec<Value> = found.collect();
            if !found.is_empty() {
                out.insert(name.to_owned(), json!(found));
            }
        }
        out.insert("id".to_owned(), json!(id));
        out
    }

    /// Returns a message in this shape.
    pub fn message(&self, tenant: &Tenant, view: &View) -> Value {
        let mut object = self.full(tenant, view);
        self.select.retain(&mut object);
        Value::Object(object)
    }

    fn put_content(&self, out: &mut Map<String, Value>, tenant: &Tenant, view: &View) {
        let said = view.said(tenant);
        let mut put = |name: &str, value: &dyn Fn() -> Value| {
            if self.select.wants(name) {
                out.insert(name.to_owned(), value());
            }
        };
        put("subject", &|| json!(said.subject));
        put("body", &|| self.body(&said.body));
        put("bodyPreview", &|| json!(preview(&said.body)));
        put("from", &|| recipient(said.from.as_ref()));
        put("sender", &|| recipient(said.sender.as_ref().or(said.from.as_ref())));
        put("toRecipients", &|| recipients(&said.to));
        put("ccRecipients", &|| recipients(&said.cc));
        put("bccRecipients", &|| recipients(&said.bcc));
        put("replyTo", &|| recipients(&said.reply_to));
        put("sentDateTime", &|| json!(clock::iso(said.sent.unwrap_or(view.record.created))));
        // Inline attachments do not count (Graph: "message resource type").
        put("hasAttachments", &|| json!(said.attachments.iter().any(|attachment| !attachment.inline)));
        let importance = view.record.extra.as_ref().and_then(|extra| extra.importance);
        put("importance", &|| json!(importance.unwrap_or(said.importance).name()));
        put("internetMessageId", &|| json!(view.internet_message_id(said)));
        put("conversationId", &|| json!(conversation_id(&view.guid, said.topic())));
        put("conversationIndex", &|| {
            json!(said.conversation_index.clone().unwrap_or_else(|| conversation_index(said)))
        });
        put("isReadReceiptRequested", &|| json!(said.read_receipt));
        put("isDeliveryReceiptRequested", &|| {
            if view.record.flags.draft { Value::Null } else { json!(said.delivery_receipt) }
        });
        // Two properties are shown only if requested, and headers not even then in Sent Items.
        if self.select.names("uniqueBody") {
            out.insert("uniqueBody".to_owned(), self.body(&said.body));
        }
        out.remove("internetMessageHeaders");
        if self.select.names("internetMessageHeaders") && !view.sent_item && !said.headers.is_empty() {
            let headers: Vec<Value> =
                said.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            out.insert("internetMessageHeaders".to_owned(), json!(headers));
        }
    }

    fn body(&self, body: &Body) -> Value {
        shown_body(body, self.text_body, self.unsafe_html)
    }
}

/// Returns the text of an item as Graph shows it: as text or as HTML, which is sanitised unless `unsafe_html` is true.
pub fn shown_body(body: &Body, as_text: bool, unsafe_html: bool) -> Value {
    let (kind, content) = match (as_text, body.html) {
        (true, true) => ("text", text_of(&body.content)),
        (true, false) => ("text", body.content.clone()),
        (false, true) if unsafe_html => ("html", body.content.clone()),
        (false, true) => ("html", sanitised(&body.content)),
        (false, false) => (
            "html",
            format!(
                "<html><head>\r\n<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\"></head><body>\
                 <div class=\"BodyFragment\"><div class=\"PlainText\">{}</div></div></body></html>",
                escaped(&body.content).replace('\n', "<br>\n")
            ),
        ),
    };
    json!({"contentType": kind, "content": content})
}

/// Returns the type of a message from its class; `None` for a plain message.
fn type_of(class: &str) -> Option<&'static str> {
    let class = class.to_ascii_lowercase();
    Some(match () {
        () if class.starts_with("ipm.schedule.meeting.request") => "#microsoft.graph.eventMessageRequest",
        () if class.starts_with("ipm.schedule.meeting.resp") => "#microsoft.graph.eventMessageResponse",
        () if class.starts_with("ipm.schedule.meeting") => "#microsoft.graph.eventMessage",
        () if class.starts_with("ipm.sharing") => "#microsoft.graph.calendarSharingMessage",
        () => return None,
    })
}

fn recipient(recipient: Option<&Recipient>) -> Value {
    recipient.map_or(
        Value::Null,
        |recipient| json!({"emailAddress": {"name": recipient.name, "address": recipient.address}}),
    )
}

fn recipients(recipients: &[Recipient]) -> Value {
    recipients.iter().map(|one| recipient(Some(one))).collect()
}

/// Returns the first 255 characters of the text.
pub fn preview(body: &Body) -> String {
    let text = if body.html { text_of(&body.content) } else { body.content.clone() };
    let words: Vec<&str> = text.split_whitespace().take(255).collect();
    words.join(" ").chars().take(255).collect()
}

fn text_of(html: &str) -> String {
    mail_parser::decoders::html::html_to_text(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Returns HTML without scripts, as the service shows it by default.
fn sanitised(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let lower = html.to_ascii_lowercase();
    let mut at = 0;
    while let Some(start) = lower[at..].find("<script").map(|start| at + start) {
        out.push_str(&html[at..start]);
        at = lower[start..].find("</script>").map_or(html.len(), |end| start + end + "</script>".len());
    }
    out.push_str(&html[at..]);
    out
}

fn conversation_id(mailbox: &MailboxGuid, topic: &str) -> String {
    let mut bytes = vec![0x00, 0x03, 0x24, 0x10, 0x00];
    bytes.extend_from_slice(mailbox);
    bytes.extend(Rng::for_purpose(2, topic).bytes(32));
    base64::engine::general_purpose::URL_SAFE.encode(bytes)
}

fn conversation_index(said: &Properties) -> String {
    let mut bytes = vec![0x01];
    bytes.extend_from_slice(&said.sent.unwrap_or_default().to_be_bytes()[3..]);
    bytes.extend(Rng::for_purpose(3, said.topic()).bytes(16));
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_taken_out() {
        assert_eq!(sanitised("<p>a</p><SCRIPT>x</script>b<script>y"), "<p>a</p>b");
        assert_eq!(sanitised("<p>İ</p>"), "<p>İ</p>");
    }

    #[test]
    fn previews_are_short_and_plain() {
        let body = Body { html: true, content: format!("<p>{}</p>", "Wörter ".repeat(100)) };
        assert_eq!(preview(&body).chars().count(), 255);
    }
}
