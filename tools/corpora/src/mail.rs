//! Messages as Exchange delivers them: long headers, text and HTML, inline pictures, base64 attachments, CRLF.
//!
//! The copies of a message in several mailboxes have exactly the same body, but differ in what was added at delivery
//! (`Received`, spam verdicts, network ids). So deduplication of whole files does not work on them.

use std::fmt::Write;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::date::Date;
use crate::rng::Rng;
use crate::words::Language;

/// A person who writes and receives mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Name for display; may contain any character.
    pub name: String,
    /// Address, in ASCII.
    pub address: String,
    /// Job title in the signature.
    pub title: String,
}

/// A file attached to a message.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// File name; may contain any character.
    pub name: String,
    /// Media type.
    pub media_type: &'static str,
    /// The decoded bytes.
    pub data: Arc<Vec<u8>>,
}

/// A message as its author sent it, before any delivery.
#[derive(Clone, Debug)]
pub struct Message {
    /// The author.
    pub from: Person,
    /// Recipients.
    pub to: Vec<Person>,
    /// Recipients of a copy.
    pub cc: Vec<Person>,
    /// Subject with its `RE:`.
    pub subject: String,
    /// Subject of the first message of the conversation.
    pub topic: String,
    /// When it was sent, in seconds since 1970.
    pub sent: i64,
    /// Message-ID with its angle brackets.
    pub id: String,
    /// Message-IDs of the conversation so far, oldest first.
    pub references: Vec<String>,
    /// Language of the text.
    pub language: Language,
    /// The plain text, including quoted messages. Lines end in LF.
    pub text: String,
    /// The HTML between `<body>` and `</body>`, including quoted messages. Lines end in LF.
    pub html: String,
    /// The logo of the signature, shown inside the HTML.
    pub logo: Option<Arc<Vec<u8>>>,
    /// The attachments.
    pub attachments: Vec<Attachment>,
    /// True if the message came from outside, and so passed more servers.
    pub external: bool,
}

const STYLE: &str = include_str!("outlook.css");

/// Returns the text and the HTML of a message: the new paragraphs, a signature, and below them the message that it
/// answers.
pub fn compose(paragraphs: &[String], author: &Person, logo: bool, answered: Option<&Message>) -> (String, String) {
    let (mut text, mut html) = (String::new(), String::from("<div class=\"WordSection1\">\n"));
    for paragraph in paragraphs {
        let _ = write!(text, "{paragraph}\n\n");
        let _ = writeln!(html, "<p class=\"MsoNormal\">{}<o:p></o:p></p>", escaped(paragraph));
        html.push_str("<p class=\"MsoNormal\"><o:p>&nbsp;</o:p></p>\n");
    }
    let Person { name, address, title } = author;
    let _ = write!(text, "{name}\n{title}\nContoso Ltd | {address}\n\n");
    for line in [name.as_str(), title, "Contoso Ltd"] {
        let line = escaped(line);
        let _ = writeln!(html, "<p class=\"MsoNormal\"><b><span style=\"font-size:9.0pt\">{line}</span></b></p>");
    }
    let _ = writeln!(html, "<p class=\"MsoNormal\"><a href=\"mailto:{address}\">{address}</a><o:p></o:p></p>");
    if logo {
        html.push_str("<p class=\"MsoNormal\"><img width=\"72\" height=\"72\" src=\"cid:image001.png@contoso\"></p>\n");
    }
    if let Some(old) = answered {
        let date = Date::from_unix(old.sent).quoted();
        let to: Vec<String> = old.to.iter().map(|person| format!("{} <{}>", person.name, person.address)).collect();
        let (from, to) = (format!("{} <{}>", old.from.name, old.from.address), to.join("; "));
        let _ = write!(text, "From: {from}\nSent: {date}\nTo: {to}\nSubject: {}\n\n{}", old.subject, old.text);
        html.push_str("<div style=\"border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0in 0in 0in\">\n");
        for (label, value) in [("From", &from), ("Sent", &date), ("To", &to), ("Subject", &old.subject)] {
            let _ = writeln!(html, "<p class=\"MsoNormal\"><b>{label}:</b> {}<o:p></o:p></p>", escaped(value));
        }
        let _ = write!(html, "</div>\n{}", old.html);
    }
    html.push_str("</div>\n");
    (text, html)
}

impl Message {
    /// Returns the content headers and the body, which are the same in every mailbox.
    pub fn body(&self) -> Vec<u8> {
        let mut rng = Rng::for_purpose(0, &self.id);
        let boundary = |rng: &mut Rng, level: u32| format!("_00{level}_{}{}contoso_", rng.token(20), rng.hex(14));
        let document = format!(
            "<html xmlns:v=\"urn:schemas-microsoft-com:vml\" xmlns:o=\"urn:schemas-microsoft-com:office:office\" \
             xmlns:w=\"urn:schemas-microsoft-com:office:word\" xmlns=\"http://www.w3.org/TR/REC-html40\">\n<head>\n\
             <meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\">\n<meta name=\"Generator\" \
             content=\"Microsoft Word 15 (filtered medium)\">\n{STYLE}</head>\n<body lang=\"EN-US\" link=\"#0563C1\" \
             vlink=\"#954F72\" style=\"word-wrap:break-word\">\n{}</body>\n</html>\n",
            self.html
        );
        let base64_text = self.language == Language::Chinese || rng.chance(8);
        let parts = [text_part("plain", &self.text, base64_text), text_part("html", &document, base64_text)];
        let mut part = multipart("alternative", &boundary(&mut rng, 0), &parts);
        if let Some(logo) = &self.logo {
            let head = "Content-Type: image/png; name=\"image001.png\"\r\nContent-Description: image001.png\r\n\
                Content-Disposition: inline; filename=\"image001.png\"\r\nContent-ID: <image001.png@contoso>\r\n";
            part = multipart("related", &boundary(&mut rng, 4), &[part, base64_part(head, logo)]);
        }
        if !self.attachments.is_empty() {
            let mut parts = vec![part];
            for Attachment { name, media_type, data } in &self.attachments {
                let (name, size, date) = (encoded_word(name), data.len(), Date::from_unix(self.sent).mail());
                let head = format!(
                    "Content-Type: {media_type};\r\n\tname=\"{name}\"\r\nContent-Description: {name}\r\n\
                     Content-Disposition: attachment;\r\n\tfilename=\"{name}\"; size={size};\r\n\
                     \tcreation-date=\"{date}\";\r\n\tmodification-date=\"{date}\"\r\n"
                );
                parts.push(base64_part(&head, data));
            }
            part = multipart("mixed", &boundary(&mut rng, 5), &parts);
        }
        part
    }

    /// Returns the message as delivered to the mailbox of `owner`: the headers added at delivery, then `body`.
    pub fn delivered(&self, owner: &Person, body: &[u8]) -> Vec<u8> {
        let mut shared = Rng::for_purpose(1, &self.id);
        let mut own = Rng::for_purpose(2, &format!("{} {}", self.id, owner.address));
        let mut out = String::with_capacity(4_096 + body.len());
        let sent_copy = owner.address == self.from.address;
        if !sent_copy {
            self.write_transport(&mut out, owner, &mut shared, &mut own);
        }
        let people = |people: &[Person]| {
            let people: Vec<String> =
                people.iter().map(|person| format!("{} <{}>", encoded_word(&person.name), person.address)).collect();
            people.join(",\r\n\t")
        };
        let _ = write!(out, "From: {}\r\nTo: {}\r\n", people(std::slice::from_ref(&self.from)), people(&self.to));
        if !self.cc.is_empty() {
            let _ = write!(out, "CC: {}\r\n", people(&self.cc));
        }
        let (date, topic) = (Date::from_unix(self.sent).mail(), encoded_word(&self.topic));
        let _ = write!(out, "Subject: {}\r\nThread-Topic: {topic}\r\n", encoded_word(&self.subject));
        let _ = write!(out, "Thread-Index: {}\r\n", STANDARD.encode(shared.bytes(22 + 5 * self.references.len())));
        let _ = write!(out, "Date: {date}\r\nMessage-ID: {}\r\n", self.id);
        if let Some(last) = self.references.last() {
            let _ = write!(out, "References: {}\r\nIn-Reply-To: {last}\r\n", self.references.join("\r\n "));
        }
        let has_attach = if self.attachments.is_empty() { "" } else { "yes" };
        let _ = write!(
            out,
            "Accept-Language: en-US, de-DE\r\nContent-Language: en-US\r\nX-MS-Has-Attach: {has_attach}\r\n\
             X-MS-TNEF-Correlator:\r\n"
        );
        if !sent_copy {
            self.write_verdicts(&mut out, &mut shared, &mut own);
        }
        let mut out = out.into_bytes();
        out.extend_from_slice(body);
        out
    }

    /// Writes the `Received` headers of the servers that the message passed. The first of them differ with each
    /// delivery.
    fn write_transport(&self, out: &mut String, owner: &Person, shared: &mut Rng, own: &mut Rng) {
        let hub = |rng: &mut Rng| format!("{}PR{:02}MB{:04}", rng.hex(3), rng.below(24), rng.below(9_999));
        let address =
            |rng: &mut Rng| format!("2603:10a6:{:x}:{:x}::{:x}", rng.below(4096), rng.below(512), rng.below(64));
        let (mut from, origin) = (hub(own), hub(shared));
        for hop in 0..2 {
            let by = hub(own);
            let (from_ip, by_ip, date) = (address(own), address(own), Date::from_unix(self.sent + 4 - hop).mail());
            let _ = write!(
                out,
                "Received: from {from}.eurprd04.prod.outlook.com ({from_ip})\r\n by {by}.eurprd04.prod.outlook.com \
                 with HTTPS; {date}\r\n"
            );
            let _ = write!(
                out,
                "Received: from {by}.eurprd04.prod.outlook.com ({by_ip}) by\r\n {from}.eurprd04.prod.outlook.com \
                 ({from_ip}) with Microsoft SMTP\r\n Server (version=TLS1_2, \
                 cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id\r\n 15.20.{}.{}; {date}\r\n",
                own.between(7_000, 9_000),
                own.below(40)
            );
            from = by;
        }
        if self.external {
            let domain = self.from.address.rsplit('@').next().unwrap_or("example.net");
            let folded = |bytes: Vec<u8>| wrapped(&STANDARD.encode(bytes), 72, "\r\n ");
            let (hash, seal, dkim) = (folded(shared.bytes(32)), folded(shared.bytes(256)), folded(shared.bytes(256)));
            let _ = write!(
                out,
                "ARC-Seal: i=1; a=rsa-sha256; s=arcselector10001; d=microsoft.com; cv=none;\r\n b={seal}\r\n\
                 Authentication-Results: spf=pass smtp.mailfrom={domain}; dkim=pass (signature\r\n was verified) \
                 header.d={domain};dmarc=pass action=none header.from={domain};\r\n\
                 Received-SPF: Pass (protection.outlook.com: domain of {domain} designates\r\n 203.0.113.{} as \
                 permitted sender) receiver=protection.outlook.com;\r\n\
                 DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=selector1;\r\n \
                 h=From:Date:Subject:Message-ID:Content-Type:MIME-Version;\r\n bh={hash};\r\n b={dkim}\r\n",
                shared.below(256)
            );
        }
        let _ = write!(out, "Delivered-To: {}\r\nX-Originating-Server: {origin}\r\n", owner.address);
    }

    /// Writes the headers with the service's spam verdicts.
    fn write_verdicts(&self, out: &mut String, shared: &mut Rng, own: &mut Rng) {
        let (correlation, network, tenant) = (shared.uuid(), own.uuid(), "6b1c2d3e-4f50-4617-9829-3a4b5c6d7e8f");
        let verdict = wrapped(&STANDARD.encode(own.bytes(330)), 72, "\r\n ");
        let diagnostic = format!("{}:EE_|{}:EE_", shared.hex(15), own.hex(15));
        let date = Date::from_unix(self.sent + 3).mail();
        let _ = write!(
            out,
            "X-MS-Exchange-Organization-AuthSource: {}.eurprd04.prod.outlook.com\r\n\
             X-MS-Exchange-Organization-AuthAs: {}\r\n\
             X-MS-Exchange-Organization-Network-Message-Id:\r\n {network}\r\n\
             X-MS-Exchange-Organization-SCL: {}\r\n\
             X-MS-PublicTrafficType: Email\r\n\
             X-MS-TrafficTypeDiagnostic: {diagnostic}\r\n\
             X-MS-Office365-Filtering-Correlation-Id: {correlation}\r\n\
             X-Forefront-Antispam-Report:\r\n CIP:255.255.255.255;CTRY:;LANG:en;SCL:1;SRV:;IPV:NLI;SFV:NSPM;H:;PTR:;\
             CAT:NONE;SFS:(13230040)({})({});DIR:INT;SFP:1102;\r\n\
             X-Microsoft-Antispam: BCL:0;ARA:13230040|{}|{};\r\n\
             X-Microsoft-Antispam-Message-Info:\r\n {verdict}\r\n\
             X-MS-Exchange-CrossTenant-OriginalArrivalTime: {date}\r\n\
             X-MS-Exchange-CrossTenant-Id: {tenant}\r\n\
             X-MS-Exchange-CrossTenant-Network-Message-Id: {correlation}\r\n\
             X-MS-Exchange-Transport-EndToEndLatency: 00:00:0{}.{:07}\r\n",
            own.hex(12),
            if self.external { "Anonymous" } else { "Internal" },
            if self.external { 1 } else { -1 },
            own.below(99_999_999),
            own.below(99_999_999),
            own.below(99_999_999),
            own.below(99_999_999),
            own.below(9),
            own.below(9_999_999)
        );
    }
}

fn multipart(kind: &str, boundary: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    let nested = match kind {
        "related" => ";\r\n\ttype=\"multipart/alternative\"",
        _ => "",
    };
    let mut out =
        format!("Content-Type: multipart/{kind};\r\n\tboundary=\"{boundary}\"{nested}\r\nMIME-Version: 1.0\r\n\r\n")
            .into_bytes();
    for part in parts {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    out
}

fn text_part(subtype: &str, text: &str, base64: bool) -> Vec<u8> {
    let head = format!("Content-Type: text/{subtype}; charset=\"utf-8\"\r\n");
    let text = text.replace('\n', "\r\n");
    if base64 {
        return base64_part(&head, text.as_bytes());
    }
    format!("{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n{}", quoted_printable(&text)).into_bytes()
}

fn base64_part(head: &str, data: &[u8]) -> Vec<u8> {
    let mut out = format!("{head}Content-Transfer-Encoding: base64\r\n\r\n").into_bytes();
    out.extend_from_slice(wrapped(&STANDARD.encode(data), 76, "\r\n").as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

/// Cuts ASCII text into lines of `width` characters, with `ending` between them.
fn wrapped(ascii: &str, width: usize, ending: &str) -> String {
    let mut out = String::with_capacity(ascii.len() + ascii.len() / width * ending.len());
    for start in (0..ascii.len()).step_by(width) {
        if start > 0 {
            out.push_str(ending);
        }
        out.push_str(&ascii[start..ascii.len().min(start + width)]);
    }
    out
}

/// Returns CRLF text in quoted-printable (RFC 2045, 6.7): lines of at most 76 characters.
fn quoted_printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 11 / 10);
    for (number, line) in text.split("\r\n").enumerate() {
        if number > 0 {
            out.push_str("\r\n");
        }
        let mut column = 0;
        for (at, byte) in line.bytes().enumerate() {
            let last = at + 1 == line.len();
            let plain = (b'!'..=b'~').contains(&byte) && byte != b'=' || byte == b' ' && !last;
            let width = if plain { 1 } else { 3 };
            if column + width > 75 {
                out.push_str("=\r\n");
                column = 0;
            }
            if plain {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "={byte:02X}");
            }
            column += width;
        }
    }
    out
}

/// Returns `text`. If it is not ASCII, returns it as encoded words (RFC 2047), each of whole characters.
fn encoded_word(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut piece = String::new();
    for character in text.chars() {
        if piece.len() + character.len_utf8() > 42 {
            words.push(std::mem::take(&mut piece));
        }
        piece.push(character);
    }
    words.push(piece);
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_printable_lines_are_short_and_reversible() {
        let text = "Grüße, 100 % = alles \r\n".repeat(40) + &"ä".repeat(100);
        let encoded = quoted_printable(&text);
        assert!(encoded.is_ascii() && encoded.split("\r\n").all(|line| line.len() <= 76));
        let joined = encoded.replace("=\r\n", "");
        let mut decoded = Vec::new();
        let mut bytes = joined.bytes();
        while let Some(byte) = bytes.next() {
            let mut hex = || char::from(bytes.next().expect("two digits")).to_digit(16).expect("a digit") as u8;
            decoded.push(if byte == b'=' { hex() * 16 + hex() } else { byte });
        }
        assert_eq!(String::from_utf8(decoded).expect("UTF-8"), text);
    }

    #[test]
    fn encoded_words_stay_under_76_characters() {
        let subject = encoded_word(&"会议 Übersicht ".repeat(8));
        assert!(subject.split("\r\n ").all(|word| word.len() <= 75 && word.starts_with("=?utf-8?B?")));
        assert_eq!(encoded_word("Budget"), "Budget");
    }
}
