//! Whether what was restored is what was to be restored: it is read back and compared.
//!
//! The text is compared by its letters and digits alone: the service writes HTML anew, and ends lines its own way. What
//! is attached is compared by number, name, length and hash; people's marks (read, flag, categories) only right after
//! the message was made.
//!
//! That what was to be restored is what the stored mail holds was proven before ([`super::witness`]).

use super::file::File;
use super::message::Mail;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::{MessageRow, parse_date};
use crate::source::graph::write::Standing;
use crate::source::graph::{ErrorKind, GraphError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// So much of what is attached comes with the message itself; the list of what is more has been seen to fail as a whole
/// (Graph: "Get attachments of large messages").
const WITH_MESSAGE_BYTES_MAX: u64 = 2 << 20;

/// What stays as the service said, and what people change.
const FACTS_TOLD: [&str; 7] =
    ["subject", "internetMessageId", "sentDateTime", "receivedDateTime", "isDraft", "hasAttachments", "bodyPreview"];
const MARKS_TOLD: [&str; 4] = ["isRead", "flag", "categories", "importance"];

/// No attachment is longer than 250 MB: the service takes 150 MB (Graph: attachment, createUploadSession).
const ATTACHED_BYTES_MAX: u64 = 250_000_000;
/// Bytes that are attached, as they are compared: length and hash.
pub(super) type Print = (u64, blake3::Hash);

/// Something that is attached to a message, as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    /// Its name, on one line.
    name: String,
    pub print: Print,
}

impl Attached {
    fn new(name: &str, print: Print) -> Self {
        Self { name: one_line(name), print }
    }
}

/// What a message should be.
pub(super) struct Expected {
    /// Properties that stay as they are.
    facts: Vec<(&'static str, Value)>,
    /// Properties that people change.
    marks: Vec<(&'static str, Value)>,
    text: blake3::Hash,
    files: Vec<Attached>,
    html: bool,
    with_message: bool,
}

impl Expected {
    /// Returns what `mail` should be once it is made in `folder`.
    pub fn of(mail: &Mail, folder: &str) -> Self {
        let extended = |id: &str| {
            let all = mail.properties.get("singleValueExtendedProperties")?.as_array()?;
            all.iter().find(|property| property["id"] == id)?["value"].as_str().map(str::to_owned)
        };
        let mut facts = vec![("isDraft", mail.is_draft().into()), ("parentFolderId", folder.into())];
        for (name, id) in [("sentDateTime", "SystemTime 0x0039"), ("receivedDateTime", "SystemTime 0x0E06")] {
            facts.extend(extended(id).map(|time| (name, Value::from(time))));
        }
        let told = |names: &[&'static str]| {
            let told = names.iter().filter_map(|name| Some((*name, mail.properties.get(*name)?.clone())));
            told.collect::<Vec<_>>()
        };
        facts.extend(told(&["subject", "internetMessageId"]));
        Self {
            facts,
            marks: told(&["isRead", "flag", "categories", "importance"]),
            text: letters(mail.body(), mail.html),
            files: mail.files.iter().map(|file| Attached::new(&file.name, file.print)).collect(),
            html: mail.html,
            with_message: mail.files.iter().map(File::len).sum::<u64>() <= WITH_MESSAGE_BYTES_MAX,
        }
    }

    /// Reads the message back and returns in what it differs, if it does. `fresh` says that it was just made.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn difference(&self, mailbox: &Mailbox, id: &str, fresh: bool) -> Result<Option<String>, GraphError> {
        let with_message = self.with_message && !self.files.is_empty();
        let Some(found) = mailbox.read_back(id, self.html, with_message).await? else {
            return Ok(Some("it is not there".to_owned()));
        };
        let marks = if fresh { self.marks.as_slice() } else { &[] };
        let mut differs: Vec<String> = Vec::new();
        for (name, wanted) in self.facts.iter().chain(marks) {
            if comparable(name, &found[*name]) != comparable(name, wanted) {
                differs.push((*name).to_owned());
            }
        }
        let body = &found["body"];
        let is_html = body["contentType"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("html"));
        if letters(body["content"].as_str().unwrap_or_default(), is_html) != self.text {
            differs.push("body".to_owned());
        }
        let there = match (self.with_message, found.get("attachments").and_then(Value::as_array)) {
            (true, Some(rows)) => rows.iter().map(attached_of_row).collect(),
            (true, None) if self.files.is_empty() && found["hasAttachments"] != true => Vec::new(),
            _ => attached(mailbox, id).await?.into_iter().map(|(_, attached)| attached).collect(),
        };
        differs.extend(attached_otherwise(&self.files, there));
        Ok((!differs.is_empty()).then(|| format!("what was read back differs: {}", differs.join(", "))))
    }
}

/// Returns in what `there` differs from what should be attached, if it does; the order does not matter.
fn attached_otherwise(wanted: &[Attached], mut there: Vec<Attached>) -> Option<String> {
    let mut missing = Vec::new();
    for wanted in wanted {
        match there.iter().position(|there| there == wanted) {
            Some(at) => drop(there.swap_remove(at)),
            None => missing.push(wanted),
        }
    }
    let Some(first) = missing.first() else {
        let extra = there.first()?;
        return Some(format!("attachment {:?}, which should not be there", extra.name));
    };
    let name = &first.name;
    let (len, count) = (first.print.0, missing.len());
    let what = if let Some(other) = there.iter().find(|there| there.name == *name) {
        format!("attachment {name:?} has other bytes: {} of them instead of {len}", other.print.0)
    } else if let Some(other) = there.iter().find(|there| there.print == first.print) {
        format!("attachment {name:?} is called {:?}", other.name)
    } else {
        format!("attachment {name:?} of {len} bytes is missing")
    };
    Some(if count > 1 { format!("{what} (and {} more)", count - 1) } else { what })
}

/// What the service said of a message when it was backed up: what one that was imported is held against.
pub(super) struct Told {
    value: Value,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// When it arrived, in seconds since 1970.
    pub received: Option<i64>,
    subject: Option<String>,
    /// The mark that it had from an earlier restore, and comes back with.
    mark: Option<String>,
}

impl Told {
    /// Reads what was stored beside a message.
    pub fn read(json: &[u8]) -> Option<Self> {
        let row: MessageRow = serde_json::from_slice(json).ok()?;
        let value: Value = serde_json::from_slice(json).ok()?;
        Some(Self {
            message_id: value["internetMessageId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            received: row.received_date_time.as_deref().and_then(parse_date),
            mark: row.mark().map(str::to_owned),
            subject: row.subject,
            value,
        })
    }

    /// Returns whether a message that stands somewhere can be the one.
    pub fn may_be(&self, standing: &Standing) -> bool {
        standing.mark == self.mark
            && standing.received == self.received
            && standing.subject.as_deref().unwrap_or_default() == self.subject.as_deref().unwrap_or_default()
            && (self.message_id.is_none() || standing.internet_message_id == self.message_id)
    }

    /// Returns in what a message in `folder` differs from what was said, if it does. `fresh` says that it was just
    /// made.
    pub fn difference(&self, found: &Value, folder: &str, fresh: bool) -> Option<String> {
        let is_told = |name: &&&str| self.value.get(**name).is_some_and(|told| !told.is_null());
        let differs = |name: &&&str| comparable(name, &found[**name]) != comparable(name, &self.value[**name]);
        let marks = if fresh { &MARKS_TOLD[..] } else { &[] };
        let mut different: Vec<_> = FACTS_TOLD.iter().chain(marks).filter(is_told).filter(differs).copied().collect();
        if found["parentFolderId"] != folder {
            different.push("parentFolderId");
        }
        (!different.is_empty()).then(|| format!("what was read back differs: {}", different.join(", ")))
    }
}

/// Returns what is attached to a message, with the ids; the contents are read and not kept.
///
/// # Errors
/// See [`GraphError`].
pub(super) async fn attached(mailbox: &Mailbox, id: &str) -> Result<Vec<(String, Attached)>, GraphError> {
    let mut attached = Vec::new();
    for row in mailbox.attachments(id).await? {
        let Some(attachment) = row["id"].as_str() else { continue };
        let print = read_print(mailbox, id, attachment).await?;
        attached.push((attachment.to_owned(), Attached::new(row["name"].as_str().unwrap_or_default(), print)));
    }
    Ok(attached)
}

async fn read_print(mailbox: &Mailbox, id: &str, attachment: &str) -> Result<Print, GraphError> {
    const ATTEMPTS_MAX: usize = 4;
    let mut attempt = 1;
    loop {
        match read_print_once(mailbox, id, attachment).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && attempt < ATTEMPTS_MAX => attempt += 1,
            done => return done,
        }
    }
}

async fn read_print_once(mailbox: &Mailbox, id: &str, attachment: &str) -> Result<Print, GraphError> {
    let (mut len, mut hasher) = (0, blake3::Hasher::new());
    let mut body = mailbox.attached(id, attachment).await?;
    while let Some(chunk) = body.chunk().await? {
        len += chunk.len() as u64;
        if len > ATTACHED_BYTES_MAX {
            return Err(GraphError::endless("reading an attachment back", ATTACHED_BYTES_MAX));
        }
        hasher.update(&chunk);
    }
    Ok((len, hasher.finalize()))
}

/// Returns how a file with these bytes is compared.
pub(super) fn print(bytes: &[u8]) -> Print {
    (bytes.len() as u64, blake3::hash(bytes))
}

/// Returns what a row of attachments says. One that holds no bytes is like no file.
fn attached_of_row(row: &Value) -> Attached {
    let bytes = row["contentBytes"].as_str().and_then(|bytes| STANDARD.decode(bytes).ok());
    let none = (u64::MAX, blake3::hash(b""));
    Attached::new(row["name"].as_str().unwrap_or_default(), bytes.map_or(none, |bytes| print(&bytes)))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn letters(text: &str, html: bool) -> blake3::Hash {
    let text = if html { crate::content::text::of_html(text).into() } else { std::borrow::Cow::Borrowed(text) };
    let letters: String = text.chars().filter(|letter| letter.is_alphanumeric()).collect();
    blake3::hash(letters.as_bytes())
}

/// Returns a property in the form in which two of them are compared.
fn comparable(name: &str, value: &Value) -> Value {
    match name {
        "sentDateTime" | "receivedDateTime" => value.as_str().and_then(parse_date).into(),
        "flag" => value["flagStatus"].clone(),
        "subject" | "bodyPreview" => one_line(value.as_str().unwrap_or_default()).into(),
        "categories" => {
            let mut names: Vec<_> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            names.sort_unstable();
            names.into()
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_attached_otherwise_is_said() {
        let file = |name: &str, bytes: &[u8]| Attached::new(name, print(bytes));
        let (a, b) = (file("a.bin", b"aa"), file("b  c", b"b"));
        let wanted = [a.clone(), b.clone()];
        let said = |there: &[&Attached]| attached_otherwise(&wanted, there.iter().copied().cloned().collect());
        assert_eq!(said(&[&b, &a]), None);
        assert_eq!(said(&[&file("b c", b"b"), &a]), None);
        for (there, what) in [
            (&[&a][..], "attachment \"b c\" of 1 bytes is missing"),
            (&[], "attachment \"a.bin\" of 2 bytes is missing (and 1 more)"),
            (&[&a, &b, &b], "attachment \"b c\", which should not be there"),
            (&[&file("a.bin", b"a"), &b], "attachment \"a.bin\" has other bytes: 1 of them instead of 2"),
            (&[&file("a.bin", b"ab"), &b], "attachment \"a.bin\" has other bytes: 2 of them instead of 2"),
            (&[&file("x", b"aa"), &b], "attachment \"a.bin\" is called \"x\""),
            (
                &[&file("b c", b"aa"), &file("a.bin", b"b")],
                "attachment \"a.bin\" has other bytes: 1 of them instead of 2 (and 1 more)",
            ),
        ] {
            assert_eq!(said(there).as_deref(), Some(what));
        }
        let no_file = attached_of_row(&json!({ "name": "a.bin", "@odata.type": "#microsoft.graph.itemAttachment" }));
        assert!(said(&[&no_file, &b]).is_some());
    }

    #[test]
    fn what_the_service_writes_its_own_way_is_the_same() {
        assert_eq!(letters("<p>Grüße,<br>Bob</p>", true), letters("Grüße,\r\n\r\nBob\r\n", false));
        assert_ne!(letters("a", false), letters("b", false));
        let same = |name, a: Value, b: Value| assert_eq!(comparable(name, &a), comparable(name, &b), "{name}");
        same("sentDateTime", json!("2026-11-01T09:30:00Z"), json!("2026-11-01T09:30:00.0000000Z"));
        same("flag", json!({"flagStatus": "flagged"}), json!({"flagStatus": "flagged", "dueDateTime": null}));
        same("categories", json!(["b", "a"]), json!(["a", "b"]));
        assert_ne!(comparable("isRead", &json!(true)), comparable("isRead", &json!(false)));
    }
}
