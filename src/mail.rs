//! What can be told about a mail from its header alone: whether a file is one, and the facts that a listing shows.
//!
//! Nothing here looks at a body, and only the first [`HEADER_BYTES_MAX`] bytes of a header are read, so that both are
//! cheap for mails of any size. Text from a header is made safe to print: control characters are replaced and lengths
//! bounded.

pub mod address;
pub mod charset;
pub mod date;
pub mod header;
pub mod params;
pub mod transfer;
pub mod words;

use std::fmt::Write as _;

use mail_parser::{Addr, Address, DateTime, HeaderName, Message, MessageParser};

use crate::mbox;

/// How much of a header is read. Several thousand recipients fit; what stands behind more of them is not seen.
pub const HEADER_BYTES_MAX: usize = 256 << 10;

/// Each text of [`MailFacts`] is cut to this length.
pub const FACT_BYTES_MAX: usize = 512;

/// A line without a colon in this many bytes is no field; real names have less than 60.
const FIELD_NAME_BYTES_MAX: usize = 100;

/// Fields that are hardly found but in mails.
const TELLING_FIELDS: [&str; 20] = [
    "received",
    "return-path",
    "message-id",
    "mime-version",
    "delivered-to",
    "envelope-to",
    "x-envelope-to",
    "x-mailer",
    "x-originalarrivaltime",
    "x-ms-has-attach",
    "in-reply-to",
    "references",
    "reply-to",
    "dkim-signature",
    "authentication-results",
    "arc-seal",
    "resent-from",
    "list-id",
    "newsgroups",
    "thread-index",
];

/// Fields that mails have, and memos and settings, too.
const COMMON_FIELDS: [&str; 7] = ["from", "to", "cc", "bcc", "subject", "date", "sender"];

/// What a mail's header says, each text decoded (RFC 2047), on one line, and at most [`FACT_BYTES_MAX`] bytes long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailFacts {
    /// The subject.
    pub subject: Option<String>,
    /// The first author: `Alice Smith <alice@contoso.com>`, or the bare address if there is no name.
    pub from: Option<String>,
    /// The main recipients, written like `from` and joined by ", ".
    pub to: Option<String>,
    /// The message id without its angle brackets.
    pub message_id: Option<String>,
    /// When it was written, in Unix seconds, as the sender's clock had it; if that cannot be read (no time zone, a year
    /// such as 0102), when the last server received it.
    pub date: Option<i64>,
}

/// Says whether a file that begins with `start` is a mail (RFC 5322), perhaps after an mbox From_ line.
///
/// `start` should hold the header, or as much of it as there is up to [`HEADER_BYTES_MAX`]; more does no harm. Text
/// with lines such as `To:` and `From:` is no mail unless it has an address or a field that only mails have.
pub fn looks_like_mail(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let header = &start[..start.len().min(HEADER_BYTES_MAX)];
    let mut evidence = Evidence::default();
    for line in skip_from_line(header).split_inclusive(|&byte| byte == b'\n') {
        if line.trim_ascii().is_empty() {
            break;
        }
        // The last line may have been cut.
        let is_cut = !line.ends_with(b"\n");
        if !evidence.add(line) && !is_cut {
            return false;
        }
    }
    evidence.is_enough()
}

/// What the fields seen so far say.
#[derive(Default)]
struct Evidence {
    telling: u32,
    common: u32,
    address: bool,
    fields: u32,
}

impl Evidence {
    /// Takes in a line of the header. Returns false if mails have no such line.
    fn add(&mut self, line: &[u8]) -> bool {
        if line.contains(&0) {
            return false;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return self.fields > 0;
        }
        let Some((name, value)) = split_field(line) else { return false };
        self.fields += 1;
        let bit = |names: &[&str]| names.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        self.telling |= bit(&TELLING_FIELDS).map_or(0, |i| 1 << i);
        self.common |= bit(&COMMON_FIELDS).map_or(0, |i| 1 << i);
        self.address |= name.eq_ignore_ascii_case(b"from") && value.contains(&b'@');
        true
    }

    fn is_enough(&self) -> bool {
        let (telling, common) = (self.telling.count_ones(), self.common.count_ones());
        telling >= 2 || (telling == 1 && common >= 1) || (common >= 3 && self.address)
    }
}

/// Splits `Name: value`; none if the name has other characters than RFC 5322 allows.
pub(crate) fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().take(FIELD_NAME_BYTES_MAX).position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, &line[colon + 1..]))
}

/// Returns the message without a byte order mark and an mbox From_ line before it.
pub(crate) fn without_from_line(message: &[u8]) -> &[u8] {
    skip_from_line(message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message))
}

/// Skips an mbox From_ line, also one that was quoted when the mail was put into another file.
fn skip_from_line(header: &[u8]) -> &[u8] {
    let line_len = header.iter().position(|&byte| byte == b'\n').map_or(header.len(), |end| end + 1);
    let line = &header[..line_len];
    if mbox::is_from_line(line.strip_prefix(b">").unwrap_or(line)) { &header[line_len..] } else { header }
}

/// Reads the facts in a mail's header. What is missing or cannot be read is none.
pub fn facts(message: &[u8]) -> MailFacts {
    let parser = MessageParser::new()
        .header_text(HeaderName::Subject)
        .header_address(HeaderName::From)
        .header_address(HeaderName::To)
        .header_id(HeaderName::MessageId)
        .header_date(HeaderName::Date)
        .default_header_ignore();
    let header = header_of(message);
    let Some(parsed) = parser.parse_headers(header).filter(has_parts) else { return MailFacts::default() };
    MailFacts {
        subject: parsed.subject().and_then(one_line),
        from: parsed.from().and_then(Address::first).map(show_address).as_deref().and_then(one_line),
        to: parsed.to().map(show_addresses).as_deref().and_then(one_line),
        message_id: parsed.message_id().and_then(one_line),
        date: parsed.date().and_then(unix_seconds).or_else(|| received_date(header)),
    }
}

/// Returns when a mail arrived, as its header says: when the last server received it, or else when it was sent.
pub fn arrival(message: &[u8]) -> Option<i64> {
    received_date(header_of(message)).or_else(|| facts(message).date)
}

/// Returns whether the parser's result can be asked: of some input it gives one without a part, and asking that panics.
pub fn has_parts(message: &Message<'_>) -> bool {
    !message.parts.is_empty()
}

/// Returns when the last server received the mail: each puts its field before those of the others.
///
/// This is a second pass since few mails need it, and `Received` fields are slow to parse.
fn received_date(header: &[u8]) -> Option<i64> {
    let parser = MessageParser::new().header_received(HeaderName::Received).default_header_ignore();
    let parsed = parser.parse_headers(header).filter(has_parts)?;
    // `Message::received` would give the first server's.
    parsed.received_all().next()?.date().as_ref().and_then(unix_seconds)
}

fn unix_seconds(date: &DateTime) -> Option<i64> {
    date.is_valid().then(|| date.to_timestamp())
}

/// Returns the header with its blank line, or what is read of it.
fn header_of(message: &[u8]) -> &[u8] {
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let start = skip_from_line(&message[..message.len().min(HEADER_BYTES_MAX)]);
    let mut end = 0;
    for line in start.split_inclusive(|&byte| byte == b'\n') {
        end += line.len();
        if line == b"\n" || line == b"\r\n" {
            break;
        }
    }
    &start[..end]
}

fn show_address(address: &Addr<'_>) -> String {
    match (address.name(), address.address()) {
        (Some(name), Some(address)) if !name.trim().is_empty() => format!("{name} <{address}>"),
        (name, address) => address.or(name).unwrap_or_default().to_string(),
    }
}

fn show_addresses(addresses: &Address<'_>) -> String {
    let mut shown = String::new();
    for address in addresses.iter() {
        if shown.len() > FACT_BYTES_MAX {
            break;
        }
        let comma = if shown.is_empty() { "" } else { ", " };
        write!(shown, "{comma}{}", show_address(address)).expect("writing to a string never fails");
    }
    shown
}

/// Replaces control characters, trims, and cuts to [`FACT_BYTES_MAX`]; none if nothing is left.
fn one_line(text: &str) -> Option<String> {
    // Every control character has at most 2 bytes and becomes a space, so that the text only gets shorter.
    let text = &text[..text.floor_char_boundary(2 * FACT_BYTES_MAX)];
    let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let line = line.trim();
    let line = line[..line.floor_char_boundary(FACT_BYTES_MAX)].trim_end();
    (!line.is_empty()).then(|| line.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mails_are_recognised() {
        for start in [
            "Received: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\nSubject: x\r\n\r\nbody without: form\r\n\0",
            "From: a@b.c\nTo: d\nSubject: x\n\n",
            "From: a@b.c\nTo: d\nSubject: x",
            "From: a@b.c\nTo: d\nSubject: x\nCut-off-in-the-mid",
            "From - Tue Oct 01 12:00:00 2024\nX-Mozilla-Status: 0001\nReturn-Path: <a@b.c>\nMIME-Version: 1.0\n",
            ">From a Tue Oct  1 12:00:00 2024\nDate: x\nMessage-ID : <a@b>\n\n",
            "\u{feff}Message-ID: <a@b>\nSubject: x\n\n",
            "From: <Saved by a browser>\nSubject: x\nDate: x\nMIME-Version: 1.0\nContent-Type: multipart/related\n\n",
            "from: a@b.c\nsubject: x\ndate: x\n\n",
        ] {
            assert!(looks_like_mail(start.as_bytes()), "{start:?}");
        }
    }

    #[test]
    fn other_files_are_not_mails() {
        for start in [
            "",
            "\n",
            "From: a@b.c\n",
            "HTTP/1.1 200 OK\r\nDate: Mon, 1 Jan 2024 00:00:00 GMT\r\nMIME-Version: 1.0\r\nServer: x\r\n\r\n",
            "Date: Mon, 1 Jan 2024 00:00:00 GMT\r\nServer: x\r\nContent-Type: text/html\r\n\r\n",
            "---\nfrom: a@b.c\nto: d\nsubject: x\n",
            "TO: all staff\nFROM: the office\nSUBJECT: parking\nDATE: today\n\n",
            "from: here\nto: there\ndate: now\n",
            "#include <stdio.h>\nFrom: a@b.c\nTo: d\nDate: x\nSubject: x\n",
            "2024-01-01T00:00:00Z from: a@b.c\nto: d\n",
            " Received: x\nMessage-ID: <x>\nDate: x\n",
            "Received: x\nMessage-ID: <x>\nDate: x\n{\n}\n",
            "Received: x\nMessage-ID: <x>\nDate: \0\n\n",
        ] {
            assert!(!looks_like_mail(start.as_bytes()), "{start:?}");
        }
    }

    #[test]
    fn long_header_is_judged_by_its_start() {
        let mut start = b"Received: x\nMessage-ID: <x>\nX-Long: ".to_vec();
        start.resize(3 * HEADER_BYTES_MAX, b'x');
        assert!(looks_like_mail(&start));
    }

    #[test]
    fn facts_are_decoded() {
        let message = "From - Tue Oct 01 12:00:00 2024\r\n\
            Received: from a by b; Tue, 1 Oct 2024 11:31:00 +0000\r\n\
            From: =?utf-8?Q?J=C3=B6rg_M=C3=BCller?= <joerg@example.org>, b@c.d\r\n\
            To: \"Smith, Alice\" <alice@contoso.com>,\r\n bob@contoso.com\r\n\
            Subject: =?iso-8859-1?B?R3L832U=?=\r\n =?utf-8?Q?_=07_x?=\r\n\
            Message-ID: <1@example.org>\r\nDate: Tue, 1 Oct 2024 13:30:00 +0200\r\n\r\nSubject: body\r\n";
        let expected = MailFacts {
            subject: Some("Grüße   x".to_string()),
            from: Some("Jörg Müller <joerg@example.org>".to_string()),
            to: Some("Smith, Alice <alice@contoso.com>, bob@contoso.com".to_string()),
            message_id: Some("1@example.org".to_string()),
            date: Some(1_727_782_200),
        };
        assert_eq!(facts(message.as_bytes()), expected);
        assert_eq!(facts(message.replace('\r', "").as_bytes()), expected);
        let header_only = message.split("\r\n\r\n").next().unwrap();
        assert_eq!(facts(header_only.as_bytes()), expected);
    }

    #[test]
    fn missing_facts_are_none() {
        assert_eq!(facts(b""), MailFacts::default());
        assert_eq!(facts(b"\n\nSubject: x\n"), MailFacts::default());
        assert_eq!(facts(b"From: \nTo:\nSubject: \t \nDate: soon\nMessage-ID:\n\n"), MailFacts::default());
    }

    #[test]
    fn unreadable_date_is_replaced_by_the_last_servers() {
        let message = b"Received: from b by c; Tue, 1 Oct 2024 11:31:00 +0000\n\
            Received: from a by b; Tue, 1 Oct 2024 11:30:00 +0000\nDate: Tue, 1 Oct 0102 11:30:00 +0000\n\n";
        assert_eq!(facts(message).date, Some(1_727_782_260));
    }

    #[test]
    fn a_mail_arrives_when_the_last_server_receives_it() {
        let sent = &b"Date: Tue, 1 Oct 2024 11:30:00 +0000\n\n"[..];
        let received = b"Received: from b by c; Tue, 1 Oct 2024 11:32:00 +0000\n\
            Received: from a by b; Tue, 1 Oct 2024 11:31:00 +0000\n";
        assert_eq!(arrival(sent), Some(1_727_782_200));
        assert_eq!(arrival(&[received, sent].concat()), Some(1_727_782_320));
    }

    #[test]
    fn group_of_recipients_is_shown() {
        let facts = facts(b"To: friends: a@b.c, D <d@e.f>; , g@h.i\nSubject: x\n\n");
        assert_eq!(facts.to.as_deref(), Some("a@b.c, D <d@e.f>, g@h.i"));
    }

    #[test]
    fn facts_are_bounded() {
        let many = "\u{fc}ber@example.org, ".repeat(2000);
        let facts = facts(format!("Subject: {many}\nTo: {many}\nFrom: a@b.c\n\n").as_bytes());
        for text in [facts.subject.unwrap(), facts.to.unwrap()] {
            assert!((FACT_BYTES_MAX - 2..=FACT_BYTES_MAX).contains(&text.len()));
        }
    }

    #[test]
    fn hostile_header_takes_linear_time() {
        for unit in [
            "(",
            "<",
            "\"",
            "a:",
            ",",
            ";",
            "=?utf-8?Q?",
            "=?utf-8?B?QQ==?= ",
            "\n\t",
            "\n:",
            "\nTo: a",
            "\nReceived: a",
        ] {
            for field in ["To: ", "Subject: ", "Date: ", "Message-ID: ", "Received: ", ""] {
                let message = format!("{field}{}", unit.repeat(HEADER_BYTES_MAX / unit.len()));
                let start = std::time::Instant::now();
                facts(message.as_bytes());
                looks_like_mail(message.as_bytes());
                assert!(start.elapsed().as_secs() < 5, "{field}{unit:?} took {:?}", start.elapsed());
            }
        }
    }

    /// Headers of words that mean something to a parser.
    fn headers() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            "[\\r\\n\\t a-z<>@,;:()\"=?\\\\.-]{0,6}".prop_map(String::into_bytes),
            vec(any::<u8>(), 0..4),
            Just(b"\nFrom: ".to_vec()),
            Just(b"\nTo: ".to_vec()),
            Just(b"\nSubject: ".to_vec()),
            Just(b"\nDate: Tue, 1 Oct 2024 13:30:00 +".to_vec()),
            Just(b"\nDate: 99999999999999999999 ".to_vec()),
            Just(b"\nReceived: from a by b; ".to_vec()),
            Just(b"\nMessage-ID: <".to_vec()),
            Just(b"=?utf-8?Q?=C3=BC?=".to_vec()),
            Just(b"=?utf-7?B?".to_vec()),
        ];
        vec(word, 0..40).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(header in headers()) {
            looks_like_mail(&header);
            let facts = facts(&header);
            for text in [facts.subject, facts.from, facts.to, facts.message_id].into_iter().flatten() {
                prop_assert!(!text.is_empty() && text.len() <= FACT_BYTES_MAX && !text.contains(char::is_control));
            }
        }
    }
}
