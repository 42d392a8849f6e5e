//! Builds a mail from its properties, for items whose own bytes the service cannot deliver.
//!
//! This is a pure function: the same properties and attachments give the same bytes. The result is not what the sender
//! sent, so it carries the header `X-Strongroom-Reconstructed`.

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::MimePart;
use serde_json::Value;

use super::model::parse_date;

/// An attachment: its properties, and its content or the reason why there is none.
pub struct Attachment {
    /// The properties from the service (Graph: attachment).
    pub properties: Value,
    /// The bytes of the attachment; for an attached message, the bytes of that message. On failure, the reason.
    pub content: Result<bytes::Bytes, String>,
}

/// Builds a mail from `properties` (Graph: message) and `attachments`.
pub fn build(properties: &Value, attachments: &[Attachment]) -> Vec<u8> {
    let id = text(properties, "id").unwrap_or_default();
    let mark = blake3::hash(id.as_bytes()).to_hex();
    let mut message = MessageBuilder::new()
        .header("X-Strongroom-Reconstructed", Raw::new("yes; the service could not give the message itself"));
    for (field, header) in [("from", "From"), ("sender", "Sender")] {
        if let Some(address) = properties.get(field).and_then(address) {
            message = message.header(header, address);
        }
    }
    for (field, header) in
        [("toRecipients", "To"), ("ccRecipients", "Cc"), ("bccRecipients", "Bcc"), ("replyTo", "Reply-To")]
    {
        let addresses: Vec<_> = list(properties, field).filter_map(address).collect();
        if !addresses.is_empty() {
            message = message.header(header, Address::new_list(addresses));
        }
    }
    if let Some(subject) = text(properties, "subject") {
        message = message.header("Subject", Text::new(one_line(subject)));
    }
    let date = ["sentDateTime", "receivedDateTime", "createdDateTime"]
        .into_iter()
        .find_map(|field| parse_date(text(properties, field)?));
    message = message.date(date.unwrap_or(0));
    let message_id = text(properties, "internetMessageId").map(|id| one_line(id.trim_matches(['<', '>', ' '])));
    // Otherwise the builder would make up a different one each time.
    let message_id = message_id.filter(|id| !id.is_empty());
    message = message.message_id(message_id.unwrap_or_else(|| format!("{}@reconstructed.invalid", &mark[..32])));
    let body = body(properties);
    let body = match attachments {
        [] => body,
        _ => {
            let kind = ContentType::new("multipart/mixed").attribute("boundary", format!("=_{}", &mark[..32]));
            MimePart::new(kind, std::iter::once(body).chain(attachments.iter().map(part)).collect::<Vec<_>>())
        }
    };
    message.body(body).write_to_vec().expect("a vector takes everything")
}

fn body(properties: &Value) -> MimePart<'_> {
    let body = properties.get("body");
    let content = body.and_then(|body| text(body, "content")).unwrap_or_default();
    let is_html = body.and_then(|body| text(body, "contentType")).is_some_and(|kind| kind.eq_ignore_ascii_case("html"));
    MimePart::new(if is_html { "text/html" } else { "text/plain" }, content)
}

fn part(attachment: &Attachment) -> MimePart<'_> {
    let Attachment { properties, content } = attachment;
    let name = one_line(text(properties, "name").unwrap_or("attachment"));
    let content = match content {
        Ok(content) => content,
        Err(reason) => {
            let note = format!("The attachment \"{name}\" could not be read: {reason}\r\n");
            return MimePart::new("text/plain", note).attachment(format!("{name}.missing.txt"));
        }
    };
    if text(properties, "@odata.type").is_some_and(|kind| kind.ends_with("itemAttachment")) {
        // An attached message is not encoded: base64 is not allowed for it (RFC 2046, 5.2.1).
        return MimePart::new("message/rfc822", content.as_ref()).attachment(name).transfer_encoding("8bit");
    }
    let kind = text(properties, "contentType").filter(|kind| is_media_type(kind));
    let part = MimePart::new(kind.unwrap_or("application/octet-stream"), content.as_ref());
    let is_inline = properties.get("isInline").and_then(Value::as_bool) == Some(true);
    match text(properties, "contentId").filter(|_| is_inline) {
        Some(id) => part.inline().cid(one_line(id.trim_matches(['<', '>']))),
        None => part.attachment(name),
    }
}

fn is_media_type(kind: &str) -> bool {
    let token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b));
    // A type with parts of its own would need its parameters.
    kind.split_once('/')
        .is_some_and(|(kind, sub)| token(kind) && token(sub) && kind != "multipart" && kind != "message")
}

fn address(recipient: &Value) -> Option<Address<'static>> {
    let address = recipient.get("emailAddress")?;
    let name = text(address, "name").map(one_line).filter(|name| !name.is_empty());
    Some(Address::new_address(name, one_line(text(address, "address").unwrap_or_default())))
}

/// Removes what would end a header line, because the text may come from anywhere.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};
    use serde_json::json;

    fn properties() -> Value {
        json!({
            "id": "AAMk", "subject": "Überweisung\r\nBcc: evil@example.com", "internetMessageId": "<a@contoso.com>",
            "from": {"emailAddress": {"name": "Alice \"A\" Smith", "address": "alice@contoso.com"}},
            "toRecipients": [{"emailAddress": {"name": "Bob", "address": "bob@contoso.com"}}],
            "sentDateTime": "2026-11-01T09:30:00Z",
            "body": {"contentType": "html", "content": "<p>Grüße</p>"},
        })
    }

    #[test]
    fn the_mail_contains_what_the_properties_say() {
        let file = Attachment {
            properties: json!({"name": "a.pdf", "contentType": "application/pdf"}),
            content: Ok(bytes::Bytes::from_static(b"\x00pdf\xff")),
        };
        let nested = Attachment {
            properties: json!({"@odata.type": "#microsoft.graph.itemAttachment", "name": "inner"}),
            content: Ok(bytes::Bytes::from_static(b"Subject: inner\r\n\r\nhello\r\n")),
        };
        let lost = Attachment { properties: json!({"name": "b.doc"}), content: Err("OLE".to_owned()) };
        let bytes = build(&properties(), &[file, nested, lost]);
        let mail = MessageParser::default().parse(&bytes).expect("a mail");
        assert_eq!(mail.subject(), Some("Überweisung  Bcc: evil@example.com"));
        assert!(mail.bcc().is_none());
        assert_eq!(mail.from().and_then(|from| from.first()).and_then(|from| from.name()), Some("Alice \"A\" Smith"));
        assert_eq!(mail.date().map(|date| date.to_timestamp()), Some(1_793_525_400));
        assert_eq!(mail.body_html(0).as_deref(), Some("<p>Grüße</p>"));
        let names: Vec<_> =
            mail.attachments().map(|part| part.attachment_name().unwrap_or_default().to_owned()).collect();
        assert_eq!(names, ["a.pdf", "inner", "b.doc.missing.txt"]);
        assert_eq!(mail.attachment(0).map(|part| part.contents()), Some(b"\x00pdf\xff".as_slice()));
        assert_eq!(mail.attachment(1).and_then(|part| part.message()).and_then(|m| m.subject()), Some("inner"));
    }

    #[test]
    fn the_same_properties_give_the_same_bytes() {
        let mut bare = properties();
        bare["internetMessageId"] = Value::Null;
        let lost = || [Attachment { properties: json!({"name": "b"}), content: Err("gone".to_owned()) }];
        assert_eq!(build(&bare, &lost()), build(&bare, &lost()));
        assert!(build(&bare, &[]).starts_with(b"X-Strongroom-Reconstructed: yes"));
        assert!(!build(&json!({}), &[]).is_empty());
    }
}
