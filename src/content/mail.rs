//! Reads mail: the one place that makes of its bytes what people see, search and restore.
//!
//! - [`header`] finds the header and its fields; [`words`], [`params`], [`address`] and [`date`] read their values.
//! - [`find`] finds the fields of one name anywhere in a message.
//! - [`structure`] finds the parts, [`transfer`] and [`base64`] decode their contents, [`charset`] makes text of bytes.
//! - This module decides whether a file is a mail at all, and reads the facts that a listing shows.
//!
//! Everything is a pure function of the bytes: as lenient as mail programs are, linear in time, and bounded in depth
//! and memory. No mail is refused; a broken one is read as far as possible.
//!
//! The text of facts is safe to print: control characters are replaced, and lengths are bounded.

pub mod address;
pub mod base64;
pub mod charset;
pub mod date;
pub mod find;
pub mod header;
pub mod params;
pub mod structure;
pub mod transfer;
pub mod words;

use self::address::Address;
use self::charset::Charset;
use self::header::Header;
use self::structure::{PARTS_MAX, Structure};
use std::borrow::Cow;

/// Number of bytes at the start of a file that decide whether it is a mail. A header with several thousand recipients
/// fits.
pub const HEADER_BYTES_MAX: usize = 256 << 10;

/// Maximum length of each text in [`MailFacts`], in bytes. Longer texts are cut.
pub const FACT_BYTES_MAX: usize = 512;

/// Fields that hardly any file but a mail has.
const TELLING_FIELDS: [&str; 22] = [
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
    "x-unsent",
    "x-mozilla-status",
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

/// Fields of mails that memos and settings have, too.
const COMMON_FIELDS: [&str; 7] = ["from", "subject", "to", "cc", "bcc", "date", "sender"];
/// The bits of `from` and `subject`, the first two of them.
const FROM_AND_SUBJECT: u32 = 0b11;

/// Facts from the header of a mail. Each text is decoded (RFC 2047), on one line, and at most [`FACT_BYTES_MAX`] bytes
/// long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailFacts {
    /// The subject.
    pub subject: Option<String>,
    /// The first author: `Alice Smith <alice@contoso.com>`, or the bare address if there is no name.
    pub from: Option<String>,
    /// The main recipients, written like `from` and joined by ", ".
    pub to: Option<String>,
    /// The `Message-ID` without its angle brackets.
    pub message_id: Option<String>,
    /// When the mail was written, in Unix seconds, by the sender's clock. If that date cannot be read (a year such as
    /// 0102), when the last server received it.
    pub date: Option<i64>,
}

/// Returns whether a file that begins with `start` is a mail (RFC 5322), judged by its content alone. An mbox From_
/// line may stand before it.
///
/// `start` should hold the header, or the first [`HEADER_BYTES_MAX`] bytes of it; more bytes do no harm. Text with
/// lines such as `To:` and `From:` is no mail unless it has an address or a field that only mails have.
pub fn looks_like_mail(start: &[u8]) -> bool {
    let start = start.strip_prefix(header::BYTE_ORDER_MARK).unwrap_or(start);
    let header = &start[..start.len().min(HEADER_BYTES_MAX)];
    let mut evidence = Evidence::default();
    for line in skip_from_line(header).split_inclusive(|&byte| byte == b'\n') {
        if line.trim_ascii().is_empty() {
            break;
        }
        // The last line may be cut.
        let is_cut = !line.ends_with(b"\n");
        if !evidence.add(line) && !is_cut {
            return false;
        }
    }
    evidence.is_enough()
}

/// What the fields read so far say.
#[derive(Default)]
struct Evidence {
    telling: u32,
    common: u32,
    address: bool,
    fields: u32,
}

impl Evidence {
    /// Adds a line of the header. Returns false if no mail has such a line.
    fn add(&mut self, line: &[u8]) -> bool {
        if line.contains(&0) {
            return false;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return self.fields > 0;
        }
        let Some(field) = header::split_field(line) else { return false };
        if !field.name.iter().all(u8::is_ascii_graphic) {
            return false;
        }
        self.fields += 1;
        let bit = |names: &[&str]| names.iter().position(|known| field.is(known));
        self.telling |= bit(&TELLING_FIELDS).map_or(0, |i| 1 << i);
        self.common |= bit(&COMMON_FIELDS).map_or(0, |i| 1 << i);
        self.address |= field.is("from") && field.value.contains(&b'@');
        true
    }

    fn is_enough(&self) -> bool {
        let (telling, common) = (self.telling.count_ones(), self.common.count_ones());
        telling >= 2
            || (telling == 1 && common >= 1)
            || (self.address && (common >= 3 || self.common & FROM_AND_SUBJECT == FROM_AND_SUBJECT))
    }
}

/// Skips an mbox From_ line, also a quoted one (`>From `) of a mail that was put into another file.
fn skip_from_line(header: &[u8]) -> &[u8] {
    let line = &header[..header::line_len(header, false)];
    let is_from_line =
        line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ") && header::split_field(line).is_none();
    if is_from_line { &header[line.len()..] } else { header }
}

/// Returns whether the path alone shows that a file is a mail: it ends with `.eml`, or lies in `new` or `cur` of a
/// Maildir.
pub fn is_named_as_mail(path: &[u8]) -> bool {
    let mut names = path.rsplit(|&byte| byte == b'/');
    let name = names.next().unwrap_or_default();
    let ends = |end: &[u8]| name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end);
    if ends(b".eml") {
        return true;
    }
    let mut folder = names.next().unwrap_or_default();
    // Evolution spreads messages over cur/00 to cur/3f.
    if folder.len() == 2 && folder.iter().all(u8::is_ascii_hexdigit) {
        folder = names.next().unwrap_or_default();
    }
    // Servers name messages by time, number and host. Other files in these folders are lists and locks.
    let is_delivered = name.contains(&b'.') && name.first().is_some_and(u8::is_ascii_digit);
    (folder == b"cur" || folder == b"new") && is_delivered
}

/// Returns the message in UTF-8 if a program saved all of it in UTF-16, else unchanged. So names of fields can be read
/// as ASCII.
pub fn readable(message: &[u8]) -> Cow<'_, [u8]> {
    /// Number of bytes that are looked at to recognise UTF-16.
    const SAMPLE_BYTES: usize = 64;
    let is_marked = message.starts_with(b"\xff\xfe") || message.starts_with(b"\xfe\xff");
    let sample = &message[..message.len().min(SAMPLE_BYTES)];
    let zeros = |odd: usize| sample.iter().skip(odd).step_by(2).filter(|&&byte| byte == 0).count() * 2;
    let is_utf16 = sample.len() >= 16 && (zeros(0) >= sample.len() - 2) != (zeros(1) >= sample.len() - 2);
    if !is_marked && !is_utf16 {
        return message.into();
    }
    let text = charset::decode_as(message, Some(Charset::Utf16 { big: false }));
    text.into_owned().into_bytes().into()
}

/// Reads the facts in a mail's header. Missing and unreadable facts are `None`.
pub fn facts(message: &[u8]) -> MailFacts {
    let message = readable(message);
    let header = header::split_message(&message).header;
    let charset = charset_for(&message, &header);
    let text = |name: &str| header.raw(name).map(|value| words::decode(value, charset)).as_deref().and_then(one_line);
    MailFacts {
        subject: text("Subject"),
        from: addresses(&header, "From", charset).next().and_then(|from| one_line(&from.shown())),
        to: one_line(&shown(addresses(&header, "To", charset))),
        message_id: message_id(&header).as_deref().and_then(one_line),
        date: header.date(),
    }
}

/// Returns the addresses in all fields of this name, at most [`address::ADDRESSES_MAX`].
pub fn addresses<'a>(
    header: &Header<'a>,
    name: &'a str,
    charset: Option<Charset>,
) -> impl Iterator<Item = Address> + use<'a> {
    header.all(name).flat_map(move |value| address::parse(value, charset)).take(address::ADDRESSES_MAX)
}

/// Returns the `Message-ID` without its angle brackets.
pub fn message_id(header: &Header<'_>) -> Option<String> {
    let value = header::unfolded(header.raw("Message-ID")?);
    let text = words::raw(&value, None);
    let inner = text.split_once('<').map_or(&*text, |(_, behind)| behind.split('>').next().unwrap_or(behind));
    Some(inner.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Returns the charset of the message's text if its header has letters beyond ASCII.
fn charset_for(message: &[u8], header: &Header<'_>) -> Option<Charset> {
    if header.bytes().is_ascii() {
        return None;
    }
    Structure::of(message, PARTS_MAX).charset(0)
}

/// Returns when a mail arrived: when the last server received it, or else when it was sent.
pub fn arrival(message: &[u8]) -> Option<i64> {
    let message = readable(message);
    let header = header::split_message(&message).header;
    header.received().or_else(|| header.date())
}

fn shown(addresses: impl Iterator<Item = Address>) -> String {
    let mut shown = String::new();
    for address in addresses {
        if shown.len() > FACT_BYTES_MAX {
            break;
        }
        if !shown.is_empty() {
            shown.push_str(", ");
        }
        shown.push_str(&address.shown());
    }
    shown
}

/// Replaces control characters, trims, and cuts to [`FACT_BYTES_MAX`]. None if nothing is left.
fn one_line(text: &str) -> Option<String> {
    // Every control character has at most 2 bytes and becomes one space, so the text never grows.
    let text = text.trim();
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
    fn addresses_are_bounded_however_many_fields_hold_them() {
        let mail = "To: a@b.c, d@e.f\n".repeat(address::ADDRESSES_MAX) + "Cc: g@h.i\n\n";
        let header = header::split_message(mail.as_bytes()).header;
        assert_eq!(addresses(&header, "To", None).count(), address::ADDRESSES_MAX);
        assert_eq!(addresses(&header, "Cc", None).count(), 1);
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
        assert_eq!(facts(b"\n\nDear all, this is Subject: x\n"), MailFacts::default());
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

    /// Headers made of pieces that a parser reacts to.
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
