//! Converts properties to MIME. The same properties always give the same bytes: no random numbers and no clock.

use std::borrow::Cow;

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;
use strongroom_corpora::rng::Rng;

use super::{Attachment, Importance, Payload, Properties, Recipient};

/// Returns the Message-ID for a message that came without one.
pub fn made_message_id(identity: &str) -> String {
    format!("<{identity}@contoso.com>")
}

/// Returns the MIME of a message of this class; see [`render`].
pub fn render_as(properties: &Properties, class: Option<&str>, identity: &str) -> Vec<u8> {
    class.and_then(|class| render_smime(properties, class)).unwrap_or_else(|| render(properties, identity))
}

/// Returns the MIME of a message. If it has no Message-ID, it gets one made from `identity`.
pub fn render(properties: &Properties, identity: &str) -> Vec<u8> {
    let body = structure(properties, identity);
    let mut out = Vec::new();
    if let Some(block) = &properties.transport_headers {
        write_transport_headers(&mut out, block);
        MessageBuilder::new().body(body).write_body(&mut out).expect("a vector takes every byte");
        return out;
    }
    let mut builder = MessageBuilder::new().subject(properties.subject.as_str());
    if let Some(from) = properties.from.as_ref().or(properties.sender.as_ref()) {
        builder = builder.from(address(from));
    }
    if let Some(sender) = properties.sender.as_ref().filter(|sender| Some(*sender) != properties.from.as_ref()) {
        builder = builder.sender(address(sender));
    }
    for (name, people) in
        [("To", &properties.to), ("Cc", &properties.cc), ("Bcc", &properties.bcc), ("Reply-To", &properties.reply_to)]
    {
        if !people.is_empty() {
            builder = builder.header(name, Address::new_list(people.iter().map(address).collect()));
        }
    }
    let id = properties.internet_message_id.clone().unwrap_or_else(|| made_message_id(identity));
    builder = builder.message_id(id.trim_matches(['<', '>', ' ']).to_owned());
    builder = builder.date(Date::new(properties.sent.unwrap_or_default()));
    match properties.importance {
        Importance::Normal => {}
        importance => builder = builder.header("Importance", Raw::new(importance.name())),
    }
    if let Some(index) = &properties.conversation_index {
        builder = builder.header("Thread-Index", Raw::new(index.as_str()));
    }
    for (name, value) in properties.headers.iter().filter(|(name, _)| is_custom(name)) {
        builder = builder.header(name.as_str(), Raw::new(value.as_str()));
    }
    builder.body(body).write_to(&mut out).expect("a vector takes every byte");
    out
}

/// Returns whether a header is a custom one, which begins with `x-`. The others are made from properties.
fn is_custom(name: &str) -> bool {
    name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"))
}

/// Writes a header block, except for the headers that describe the content, which are written anew.
fn write_transport_headers(out: &mut Vec<u8>, block: &str) {
    let mut keep = true;
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with([' ', '\t']) {
            let lower = line.to_ascii_lowercase();
            keep = !lower.starts_with("content-") && !lower.starts_with("mime-version:");
        }
        if keep {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
}

/// Returns a signed or encrypted message. Its only attachment holds the whole body ([MS-OXOSMIME] 2.1.3), so the signed
/// bytes come out unchanged. Returns `None` if the class or the attachments are those of another kind of message.
fn render_smime(properties: &Properties, class: &str) -> Option<Vec<u8>> {
    let class = class.to_ascii_lowercase();
    let ([Attachment { name, content_type, payload: Payload::File(bytes), .. }], Some(block)) =
        (properties.attachments.as_slice(), &properties.transport_headers)
    else {
        return None;
    };
    let mut out = Vec::new();
    write_transport_headers(&mut out, block);
    match class.as_str() {
        "ipm.note.smime.multipartsigned" => out.extend_from_slice(bytes),
        "ipm.note.smime" => {
            let body = MimePart::new(
                ContentType::new(content_type.clone()).attribute("name", name.as_str()),
                bytes.as_slice(),
            );
            let disposition = ContentType::new("attachment").attribute("filename", name.as_str());
            let body = body.header("Content-Disposition", disposition);
            MessageBuilder::new().body(body).write_body(&mut out).expect("a vector takes every byte");
        }
        _ => return None,
    }
    Some(out)
}

fn address(recipient: &Recipient) -> Address<'_> {
    let name = Some(recipient.name.as_str()).filter(|name| !name.is_empty() && *name != recipient.address);
    Address::new_address(name, recipient.address.as_str())
}

fn structure<'a>(properties: &'a Properties, identity: &str) -> MimePart<'a> {
    let subtype = if properties.body.html { "html" } else { "plain" };
    let text = MimePart::new(
        ContentType::new(format!("text/{subtype}")).attribute("charset", "utf-8"),
        Cow::Borrowed(properties.body.content.as_str()),
    );
    let (inline, attached): (Vec<_>, Vec<_>) = properties.attachments.iter().partition(|part| part.inline);
    let mut part = text;
    for (kind, parts) in [("related", inline), ("mixed", attached)] {
        if parts.is_empty() {
            continue;
        }
        let boundary = format!("_{kind}_{}_", Rng::for_purpose(0, identity).hex(24));
        let content_type = ContentType::new(format!("multipart/{kind}")).attribute("boundary", boundary);
        let parts: Vec<MimePart<'_>> = std::iter::once(part).chain(parts.into_iter().map(attachment)).collect();
        part = MimePart::new(content_type, parts);
    }
    part
}

fn attachment(attachment: &Attachment) -> MimePart<'_> {
    let disposition = if attachment.inline { "inline" } else { "attachment" };
    let disposition = ContentType::new(disposition).attribute("filename", attachment.name.as_str());
    let named = |media_type: &str| {
        // A media type that is not a valid token would break the header.
        let media_type = if media_type.contains('/') { media_type } else { "application/octet-stream" };
        ContentType::new(media_type.to_owned()).attribute("name", attachment.name.as_str())
    };
    let mut part = match &attachment.payload {
        Payload::File(bytes) => MimePart::new(named(&attachment.content_type), bytes.as_slice()),
        Payload::Message(mime) => {
            MimePart::new(ContentType::new("message/rfc822"), mime.as_slice()).transfer_encoding("8bit")
        }
        Payload::Item(item) => MimePart::new(named("application/json"), item.to_string()),
        Payload::Reference(url) => MimePart::new(named("text/uri-list"), format!("{url}\r\n")),
    };
    part = part.header("Content-Disposition", disposition);
    if let Some(id) = &attachment.content_id {
        part = part.cid(id.as_str());
    }
    if let Some(location) = &attachment.content_location {
        part = part.location(location.as_str());
    }
    part
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Body, parse};
    use super::*;

    fn sample() -> Properties {
        let person = |name: &str, address: &str| Recipient { name: name.to_owned(), address: address.to_owned() };
        Properties {
            subject: "Grüße, 会议".to_owned(),
            body: Body { html: true, content: "<p>Ä</p>".to_owned() },
            from: Some(person("Jürgen", "juergen@contoso.com")),
            to: vec![person("Bob, B.", "bob@contoso.com")],
            sent: Some(1_793_611_800),
            importance: Importance::High,
            attachments: vec![Attachment {
                number: 0,
                name: "Übersicht.pdf".to_owned(),
                content_type: "application/pdf".to_owned(),
                inline: false,
                content_id: None,
                content_location: None,
                payload: Payload::File(Arc::new((0..=255).collect())),
            }],
            ..Properties::default()
        }
    }

    #[test]
    fn what_is_rendered_says_the_same() {
        let mime = render(&sample(), "1");
        assert_eq!(mime, render(&sample(), "1"));
        let parsed = parse(&mime);
        assert_eq!(parsed.internet_message_id.as_deref(), Some("<1@contoso.com>"));
        let given = sample();
        assert_eq!(parsed.subject, given.subject);
        assert_eq!(parsed.body, given.body);
        assert_eq!((&parsed.from, &parsed.to), (&given.from, &given.to));
        assert_eq!((parsed.sent, parsed.importance), (given.sent, given.importance));
        assert_eq!(parsed.attachments, given.attachments);
    }

    #[test]
    fn what_was_signed_comes_out_as_it_went_in() {
        let entity = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nSigned  \r\n--b--\r\n";
        let mut signed = sample();
        signed.transport_headers = Some("Subject: Old\r\nContent-Type: multipart/signed; boundary=b".to_owned());
        signed.attachments[0].payload = Payload::File(Arc::new(entity.to_vec()));
        let mime = render_as(&signed, Some("IPM.Note.SMIME.MultipartSigned"), "1");
        assert_eq!(mime, [&b"Subject: Old\r\nMIME-Version: 1.0\r\n"[..], entity].concat());
        assert_ne!(render_as(&signed, None, "1"), mime);
    }

    #[test]
    fn original_headers_return() {
        let block =
            "Received: from a\r\n by b\r\nSubject: Old\r\nContent-Type: text/html;\r\n charset=x\r\nX-Last: 1\r\n\r\n";
        let mime = render(&Properties { transport_headers: Some(block.to_owned()), ..sample() }, "1");
        let text = String::from_utf8_lossy(&mime);
        assert!(text.starts_with("Received: from a\r\n by b\r\nSubject: Old\r\nX-Last: 1\r\nMIME-Version: 1.0\r\n"));
        assert!(!text.contains("charset=x"));
    }
}
