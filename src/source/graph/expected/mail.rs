//! Compares a message with its row in the list: Message-ID, subject, sender and date. Also checks whether the message
//! is complete.

use super::{Seen, Verdict};
use crate::content::mail::header::{Header, split_message, unfolded};
use crate::content::mail::params::Params;
use crate::content::mail::{self, date, words};
use crate::source::graph::model::{MessageRow, Recipient, parse_date};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Maximum difference in seconds between two dates that count as equal. Sending and receiving are two events, by two
/// clocks.
const DATE_TOLERANCE_S: i64 = 60;
/// Dates may also differ by a multiple of half an hour, up to `TIME_ZONES_MAX_S`: some writers leave out the time zone,
/// or have a wrong one.
const TIME_ZONE_S: i64 = 30 * 60;
const TIME_ZONES_MAX_S: i64 = 14 * 60 * 60;
/// If one id is the beginning of the other, it must have at least this many letters to count as equal.
const ID_PREFIX_LEN_MIN: usize = 60;
/// If one subject is the beginning of the other, it must have at least this many letters to count as equal. The service
/// cuts long subjects.
const SUBJECT_PREFIX_LEN_MIN: usize = 100;
/// If one subject is the end of the other, it must have at least this many letters to count as equal. The service
/// removes prefixes.
const SUBJECT_SUFFIX_LEN_MIN: usize = 8;
/// Maximum number of senders that are compared. A message has only a few; if a header names more, senders are not
/// compared.
const PEOPLE_MAX: usize = 100;
/// Minimum size in bytes at which sizes are compared. In a smaller message, the overhead of the mailbox store may be
/// larger than the message.
const SIZE_MIN: u64 = 64 << 10;

/// The facts in a message's row that its bytes contain too.
#[derive(Debug)]
pub(super) struct ListedFacts {
    /// The Message-ID without blanks and brackets, in lower case.
    id: String,
    subject: String,
    people: Vec<Person>,
    dates: Vec<i64>,
    size: Option<u64>,
    is_draft: bool,
}

/// A name and an address, either of which may be empty.
#[derive(Debug, PartialEq, Eq)]
struct Person {
    name: String,
    address: String,
}

impl Person {
    /// Returns the address if it is a mail address. Addresses inside the organisation may be X.500 names.
    fn mail_address(&self) -> Option<&str> {
        Some(self.address.as_str()).filter(|address| address.contains('@') && !address.starts_with('/'))
    }
}

/// The facts in a header. If a field occurs several times, each is kept.
#[derive(Debug, Default)]
struct HeaderFacts {
    ids: Vec<String>,
    subjects: Vec<String>,
    people: Vec<Person>,
    dates: Vec<i64>,
}

/// The result of comparing one fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Agrees,
    Differs,
    /// One of the two sides lacks the fact, or has it in a form that cannot be compared.
    Silent,
}

impl ListedFacts {
    pub(super) fn of(row: &MessageRow) -> Self {
        let person = |recipient: &Recipient| {
            let address = recipient.email_address.as_ref()?;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            Some(Person { name: text(&address.name), address: text(&address.address).to_lowercase() })
        };
        let dates = [&row.sent_date_time, &row.received_date_time, &row.created_date_time];
        Self {
            id: bare_id(row.internet_message_id.as_deref().unwrap_or_default()),
            subject: row.subject.clone().unwrap_or_default(),
            people: [&row.from, &row.sender].into_iter().flatten().filter_map(person).collect(),
            dates: dates.into_iter().flatten().filter_map(|text| parse_date(text)).collect(),
            size: row.size(),
            is_draft: row.is_draft != Some(false),
        }
    }

    /// Returns how many facts the row has of those that nearly every message contains. The date is not counted, because
    /// the service reports one for everything.
    fn count(&self) -> usize {
        let has_person =
            self.people.iter().any(|person| !letters(&person.name).is_empty() || !person.address.is_empty());
        usize::from(!self.id.is_empty()) + usize::from(!letters(&self.subject).is_empty()) + usize::from(has_person)
    }

    /// Returns whether the bytes can be the message that the row describes.
    pub(super) fn compare(&self, seen: &Seen) -> Verdict {
        let begins = seen.begins_with_field();
        let said = if begins { read_header(&seen.head) } else { HeaderFacts::default() };
        let id = self.compare_id(&said);
        let others = [self.compare_subject(&said), self.compare_sender(&said), self.compare_date(&said)];
        let count = |fact: Fact| others.iter().filter(|other| **other == fact).count();
        let (agree, differ) = (count(Fact::Agrees), count(Fact::Differs));
        match (id, agree, differ) {
            (Fact::Agrees, ..) => Verdict::Right,
            // Only an oddity of the service can explain equal subject, sender and date with another Message-ID.
            (Fact::Differs, 2.., 0) if others[2] == Fact::Agrees => Verdict::Doubtful("it has another Message-ID"),
            (Fact::Differs, ..) => Verdict::Wrong("it is another message"),
            (Fact::Silent, 1.., 0) => Verdict::Right,
            (Fact::Silent, 0, 0) => self.compare_nothing(seen, begins),
            (Fact::Silent, 2.., _) => Verdict::Doubtful("it differs from what the list says"),
            // A draft may be changed at any time by its writer. And few messages are from the same second.
            (Fact::Silent, 1, 1) if self.is_draft || others[2] == Fact::Agrees => {
                Verdict::Doubtful("it differs from what the list says")
            }
            (Fact::Silent, ..) => Verdict::Wrong("it is another message"),
        }
    }

    /// Judges bytes that contain none of the facts in the row.
    fn compare_nothing(&self, seen: &Seen, begins_with_field: bool) -> Verdict {
        match self.count() {
            _ if seen.looks_like_an_answer() => Verdict::Wrong("it is the answer of a server"),
            0 if seen.is_empty() => Verdict::Doubtful("it is empty"),
            _ if seen.is_empty() => Verdict::Wrong("it is empty"),
            0 if begins_with_field => Verdict::Right,
            1.. if !begins_with_field => Verdict::Wrong("it is not a message"),
            2.. => Verdict::Wrong("it contains nothing of what the list says"),
            _ => Verdict::Doubtful("it contains nothing of what the list says"),
        }
    }

    /// Returns whether the message was cut off, although the answer itself was complete.
    pub(super) fn is_cut(&self, seen: &Seen) -> Verdict {
        let size = self.size.unwrap_or(0);
        // The mailbox store counts attachments without encoding. In the message, they are a third longer.
        let is_short = size > SIZE_MIN && seen.len < size / 2;
        match () {
            () if seen.is_empty() => Verdict::Right,
            () if !seen.is_closed() && is_short => Verdict::Wrong("it was cut off"),
            () if !seen.is_closed() => Verdict::Doubtful("its last part is not closed"),
            () if !seen.has_header => Verdict::Doubtful("it ends within its header"),
            () if is_short && size > 16 * SIZE_MIN => Verdict::Doubtful("it is far shorter than the list says"),
            () => Verdict::Right,
        }
    }

    fn compare_id(&self, said: &HeaderFacts) -> Fact {
        let is_same = |said: &String| {
            // The service cuts long ids.
            let is_long = self.id.len().min(said.len()) >= ID_PREFIX_LEN_MIN;
            *said == self.id || is_long && (said.starts_with(&self.id) || self.id.starts_with(said.as_str()))
        };
        match () {
            () if self.id.is_empty() || said.ids.is_empty() => Fact::Silent,
            () if said.ids.iter().any(is_same) => Fact::Agrees,
            () => Fact::Differs,
        }
    }

    fn compare_subject(&self, said: &HeaderFacts) -> Fact {
        let told = letters(&self.subject);
        let compare = |subject: &String| {
            let said = letters(subject);
            let (short, long) = if told.len() < said.len() { (&told, &said) } else { (&said, &told) };
            let goes_on = short.len() >= SUBJECT_PREFIX_LEN_MIN && long.starts_with(short.as_str());
            let had_prefix = short.len() >= SUBJECT_SUFFIX_LEN_MIN && long.ends_with(short.as_str());
            match () {
                () if told.is_empty() || said.is_empty() => Fact::Silent,
                () if goes_on || had_prefix => Fact::Agrees,
                () if short == long => Fact::Agrees,
                // One of the two sides could not decode the subject.
                () if is_undecoded(&self.subject) || is_undecoded(subject) => Fact::Silent,
                () => Fact::Differs,
            }
        };
        any(said.subjects.iter().map(compare))
    }

    fn compare_sender(&self, said: &HeaderFacts) -> Fact {
        let pairs = self.people.iter().flat_map(|told| said.people.iter().map(move |said| (told, said)));
        any(pairs.map(|(told, said)| {
            let name = letters(&told.name);
            match (told.mail_address(), said.mail_address()) {
                (Some(told), Some(said)) if told == said => Fact::Agrees,
                _ if !name.is_empty() && name == letters(&said.name) => Fact::Agrees,
                (Some(_), Some(_)) => Fact::Differs,
                _ => Fact::Silent,
            }
        }))
    }

    fn compare_date(&self, said: &HeaderFacts) -> Fact {
        let pairs = self.dates.iter().flat_map(|told| said.dates.iter().map(move |said| told.abs_diff(*said) as i64));
        any(pairs.map(|apart| {
            let from_zone = apart % TIME_ZONE_S;
            match () {
                () if apart <= DATE_TOLERANCE_S => Fact::Agrees,
                // The date of a draft is that of its last change.
                () if self.is_draft => Fact::Silent,
                () if apart <= TIME_ZONES_MAX_S && (from_zone <= 2 || from_zone >= TIME_ZONE_S - 2) => Fact::Silent,
                () => Fact::Differs,
            }
        }))
    }
}

/// Returns the most favourable of several comparisons of one fact.
fn any(mut facts: impl Iterator<Item = Fact>) -> Fact {
    let mut kindest = None;
    loop {
        match (facts.next(), kindest) {
            (Some(Fact::Agrees), _) => return Fact::Agrees,
            (Some(Fact::Silent), _) => kindest = Some(Fact::Silent),
            (Some(Fact::Differs), None) => kindest = Some(Fact::Differs),
            (Some(Fact::Differs), Some(_)) => {}
            (None, kindest) => return kindest.unwrap_or(Fact::Silent),
        }
    }
}

/// Returns only the letters and digits of a text, in lower case: blanks, punctuation and case differ between a list and
/// a message.
fn letters(text: &str) -> String {
    text.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Returns true if the text contains something that its writer or its reader could not decode.
fn is_undecoded(text: &str) -> bool {
    text.contains('\u{fffd}') || text.contains("=?") || text.contains("??")
}

fn bare_id(id: &str) -> String {
    id.chars().filter(|char| !char.is_whitespace() && !matches!(char, '<' | '>')).flat_map(char::to_lowercase).collect()
}

/// Reads the facts in a header. Only this function knows how headers are parsed.
fn read_header(head: &[u8]) -> HeaderFacts {
    // If parsing panics, there is nothing to compare: the message itself can still be stored.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let head = mail::readable(head);
        let header = split_message(&head).header;
        let people = ["From", "Sender"].into_iter().flat_map(|name| mail::addresses(&header, name, None));
        let people = people.map(|one| Person { name: one.name, address: one.address.to_lowercase() });
        let dates = header.all("Date").filter_map(date::parse).chain(header.received());
        HeaderFacts {
            ids: message_ids(&header),
            subjects: header.all("Subject").map(|subject| words::decode(subject, None)).collect(),
            people: people.take(PEOPLE_MAX).collect(),
            dates: dates.collect(),
        }
    }));
    read.unwrap_or_default()
}

/// Returns every `Message-ID` in the header, in whatever form it is written.
fn message_ids(header: &Header<'_>) -> Vec<String> {
    let ids = header.all("Message-ID").map(|id| bare_id(&String::from_utf8_lossy(&unfolded(id))));
    ids.filter(|id| !id.is_empty()).collect()
}

/// Returns the boundary between the parts of a mail, if its header names one.
pub(super) fn boundary(head: &[u8]) -> Option<Vec<u8>> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        let header = split_message(head).header;
        let kind = header.raw("Content-Type")?;
        let is_multipart = unfolded(kind).to_ascii_lowercase().starts_with(b"multipart/");
        Params::parse(kind).raw("boundary").filter(|boundary| is_multipart && !boundary.is_empty())
    }));
    read.ok().flatten()
}
