//! Converts MIME to properties, as Exchange would read it. Any bytes at all are a valid message.

use std::borrow::Cow;
use std::sync::Arc;

use mail_parser::{Address, Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::{Attachment, Body, Importance, Payload, Properties, Recipient};

/// Returns the properties of the message in `mime`.
pub fn parse(mime: &[u8]) -> Properties {
    let Some(message) = MessageParser::default().parse(mime) else { return Properties::default() };
    Properties {
        subject: message.subject().unwrap_or_default().to_owned(),
        body: body(&message),
        from: recipients(message.from()).into_iter().next(),
        sender: recipients(message.sender()).into_iter().next(),
        to: recipients(message.to()),
        cc: recipients(message.cc()),
        bcc: recipients(message.bcc()),
        reply_to: recipients(message.reply_to()),
        sent: message.date().map(mail_parser::DateTime::to_timestamp),
        internet_message_id: message.message_id().map(|id| format!("<{id}>")),
        headers: headers(&message),
        transport_headers: None,
        importance: importance(raw(&message, "Importance"), raw(&message, "X-Priority")),
        conversation_index: Some(raw(&message, "Thread-Index")).filter(|index| !index.is_empty()).map(unfolded),
        read_receipt: message.header("Disposition-Notification-To").is_some(),
        delivery_receipt: message.header("Return-Receipt-To").is_some(),
        attachments: attachments(&message),
    }
}

fn raw<'a>(message: &'a Message<'_>, name: &'static str) -> &'a str {
    message.header_raw(name).map(str::trim).unwrap_or_default()
}

fn body(message: &Message<'_>) -> Body {
    // The first readable part is the body. If there is HTML, Outlook shows that.
    let html = message.html_bodies().find_map(|part| match &part.body {
        PartType::Html(html) => Some(html.to_string()),
        _ => None,
    });
    if let Some(content) = html {
        return Body { html: true, content };
    }
    let text = message.text_bodies().find_map(|part| match &part.body {
        PartType::Text(text) => Some(text.to_string()),
        _ => None,
    });
    Body { html: false, content: text.unwrap_or_default() }
}

fn recipients(address: Option<&Address<'_>>) -> Vec<Recipient> {
    let owned = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
    let Some(address) = address else { return Vec::new() };
    address
        .iter()
        .map(|one| {
            let (name, address) = (owned(&one.name), owned(&one.address));
            Recipient { name: if name.is_empty() { address.clone() } else { name }, address }
        })
        .collect()
}

fn headers(message: &Message<'_>) -> Vec<(String, String)> {
    message.headers_raw().map(|(name, value)| (name.to_owned(), unfolded(value.trim()))).collect()
}

fn unfolded(value: &str) -> String {
    value.replace("\r\n", "").replace('\n', "")
}

fn importance(importance: &str, priority: &str) -> Importance {
    Importance::from_name(importance).unwrap_or(match priority.as_bytes().first() {
        Some(b'1' | b'2') => Importance::High,
        Some(b'4' | b'5') => Importance::Low,
        _ => Importance::Normal,
    })
}

fn attachments(message: &Message<'_>) -> Vec<Attachment> {
    message.attachments().zip(0..).map(|(part, number)| attachment(part, number)).collect()
}

fn attachment(part: &MessagePart<'_>, number: u32) -> Attachment {
    let content_type = part.content_type().map_or_else(
        || "application/octet-stream".to_owned(),
        |content_type| match content_type.subtype() {
            Some(subtype) => format!("{}/{subtype}", content_type.ctype()),
            None => content_type.ctype().to_owned(),
        },
    );
    let inline = part.content_disposition().is_some_and(|disposition| disposition.is_inline());
    let (payload, fallback) = match &part.body {
        PartType::Message(inner) => {
            let name = inner.subject().filter(|subject| !subject.is_empty()).unwrap_or("Untitled").to_owned();
            (Payload::Message(Arc::new(inner.raw_message().to_vec())), name)
        }
        _ => (Payload::File(Arc::new(part.contents().to_vec())), format!("ATT{number:05}")),
    };
    Attachment {
        number,
        name: part.attachment_name().map_or(fallback, str::to_owned),
        content_type,
        inline: inline || part.content_id().is_some() && matches!(part.body, PartType::InlineBinary(_)),
        content_id: part.content_id().map(str::to_owned),
        content_location: part.content_location().map(str::to_owned),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_all_there_is() {
        let mime = "From: =?utf-8?Q?J=C3=BCrgen?= <juergen@contoso.com>\r\nTo: a@b.c, \"B, Bob\" <bob@contoso.com>\r\n\
            Subject: RE: =?utf-8?B?R3LDvMOfZQ==?=\r\nDate: Mon, 2 Nov 2026 09:30:00 +0100\r\nMessage-ID: <1@x>\r\n\
            X-Priority: 1\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
            Content-Type: text/html\r\n\r\n<p>Hi</p>\r\n--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\
            Content-Disposition: attachment; filename=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b\r\n\
            Content-Type: message/rfc822\r\n\r\nSubject: Inner\r\n\r\nDeep\r\n--b--\r\n";
        let properties = parse(mime.as_bytes());
        assert_eq!(properties.subject, "RE: Grüße");
        assert_eq!(properties.topic(), "Grüße");
        assert_eq!(properties.body, Body { html: true, content: "<p>Hi</p>".to_owned() });
        assert_eq!(properties.from.expect("a sender").name, "Jürgen");
        assert_eq!(properties.to[1], Recipient { name: "B, Bob".to_owned(), address: "bob@contoso.com".to_owned() });
        assert_eq!(properties.sent, Some(1_793_608_200));
        assert_eq!(properties.internet_message_id.as_deref(), Some("<1@x>"));
        assert_eq!(properties.importance, Importance::High);
        assert_eq!(properties.attachments.len(), 2);
        assert_eq!(properties.attachments[0].payload, Payload::File(Arc::new(vec![0, 1, 2])));
        assert_eq!(properties.attachments[1].name, "Inner");
        let Payload::Message(inner) = &properties.attachments[1].payload else { panic!("not a message") };
        assert_eq!(parse(inner).body.content.trim_end(), "Deep");
    }

    proptest::proptest! {
        #[test]
        fn anything_is_a_message(bytes: Vec<u8>, text in "(From|Content-Type|Subject): .{0,80}\r\n\r\n.{0,80}") {
            parse(&bytes);
            parse(text.as_bytes());
        }
    }
}
