//! What can be told about a mail from its header alone: whether a file is one, and the facts that a listing shows.
//!
//! Nothing here looks at a body, and only the first 64 KiB of a header are read, so that both are cheap for mails of any
//! size. Text from a header is made safe to print: control characters are replaced and lengths bounded.

use std::fmt::Write as _;

use mail_parser::{Addr, Address, HeaderName, MessageParser};

use crate::mbox;

/// How much of a header is read. The longest in practice (many recipients, many hops, signatures) are about 40 KiB.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Each text of [`MailFacts`] is cut to this length.
pub const FACT_BYTES_MAX: usize = 512;

/// A line may come before its name in this many bytes; real names have less than 60.
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
    /// When it was written, in Unix seconds, as the sender's clock had it.
    pub date: Option<i64>,
}

/// Says whether a file that begins with `start` is a mail (RFC 5322), perhaps after an mbox From_ line.
///
/// `start` should hold the header, or as much of it as there is up to [`HEADER_BYTES_MAX`]; more does no harm. Text with
/// lines such as `To:` and `From:` is no mail unless it has an address or a field that only mails have.
pub fn looks_like_mail(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let header = &start[..start.len().min(HEADER_BYTES_MAX)];
    // The last line may have been cut.
    let is_cut = header.len() == start.len() || header.len() == HEADER_BYTES_MAX;
    let mut evidence = Evidence::default();
    let mut lines = skip_from_lines(header).split_inclusive(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if line.trim_ascii().is_empty() {
            break;
        }
        let is_last = lines.peek().is_none();
        if !evidence.add(line) && !(is_last && is_cut && !line.ends_with(b"\n")) {
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
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().take(FIELD_NAME_BYTES_MAX).position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, &line[colon + 1..]))
}

/// Skips an mbox From_ line, also one that was quoted when the mail was put into another file.
fn skip_from_lines(header: &[u8]) -> &[u8] {
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
    let Some(parsed) = parser.parse_headers(header_of(message)) else { return MailFacts::default() };
    MailFacts {
        subject: parsed.subject().and_then(one_line),
        from: parsed.from().and_then(Address::first).map(show_address).as_deref().and_then(one_line),
        to: parsed.to().map(show_addresses).as_deref().and_then(one_line),
        message_id: parsed.message_id().and_then(one_line),
        date: parsed.date().filter(|date| date.is_valid()).map(|date| date.to_timestamp()),
    }
}

/// Returns the header with its blank line, or what is read of it.
fn header_of(message: &[u8]) -> &[u8] {
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let start = skip_from_lines(&message[..message.len().min(HEADER_BYTES_MAX)]);
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
