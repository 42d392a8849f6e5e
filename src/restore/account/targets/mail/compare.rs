//! Compares a restored message with what it should be: it is read back from the mailbox.
//!
//! Of the text, only letters and digits are compared, because the service rewrites HTML and line ends. Attachments are
//! compared by their number, names, lengths and hashes. What people change (read, flag, categories) is compared only
//! right after the message was created.
//!
//! [`super::witness`] has proven before that what it should be is what the stored message holds.

use super::file::File;
use super::fingerprint::{Fingerprint, Fingerprinter};
use super::message::Mail;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::model::parse_date;
use crate::source::graph::{ErrorKind, GraphError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Maximum size of the attachments that are read together with the message, in bytes. For more, the list of attachments
/// has been seen to fail as a whole (Graph: "Get attachments of large messages").
const WITH_MESSAGE_BYTES_MAX: u64 = 2 << 20;

/// Maximum size of an attachment that is read back, in bytes. The service accepts 150 MB (Graph: attachment,
/// createUploadSession).
const ATTACHED_BYTES_MAX: u64 = 250_000_000;

/// What is compared of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    /// The name, on one line.
    name: String,
    pub fingerprint: Fingerprint,
}

impl Attached {
    fn new(name: &str, fingerprint: Fingerprint) -> Self {
        Self { name: one_line(name), fingerprint }
    }
}

/// What a message should be.
pub(super) struct Expected {
    /// Properties that nobody changes.
    facts: Vec<(&'static str, Value)>,
    /// Properties that people change.
    marks: Vec<(&'static str, Value)>,
    text: blake3::Hash,
    files: Vec<Attached>,
    html: bool,
    with_message: bool,
}

impl Expected {
    /// Returns what `mail` should be after it was created in `folder`.
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
            files: mail.files.iter().map(|file| Attached::new(&file.name, file.fingerprint)).collect(),
            html: mail.html,
            with_message: mail.files.iter().map(File::len).sum::<u64>() <= WITH_MESSAGE_BYTES_MAX,
        }
    }

    /// Reads the message back, and returns how it differs. `None` if it does not. `fresh` says that it was just
    /// created.
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
            _ => attached(mailbox, id).await?.into_iter().map(|existing| existing.attached).collect(),
        };
        differs.extend(attached_otherwise(&self.files, there));
        Ok((!differs.is_empty()).then(|| format!("what was read back differs: {}", differs.join(", "))))
    }
}

/// Returns how the attachments differ from those that are wanted, in any order. `None` if they do not.
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
    let (len, count) = (first.fingerprint.len, missing.len());
    let what = if let Some(other) = there.iter().find(|there| there.name == *name) {
        format!("attachment {name:?} has other bytes: {} of them instead of {len}", other.fingerprint.len)
    } else if let Some(other) = there.iter().find(|there| there.fingerprint == first.fingerprint) {
        format!("attachment {name:?} is called {:?}", other.name)
    } else {
        format!("attachment {name:?} of {len} bytes is missing")
    };
    Some(if count > 1 { format!("{what} (and {} more)", count - 1) } else { what })
}

/// An attachment that a message has.
pub(super) struct ExistingAttachment {
    /// The id of the attachment.
    pub id: String,
    pub attached: Attached,
}

/// Returns the attachments of a message. Reads their contents to compute the hashes, and does not keep them.
///
/// # Errors
/// See [`GraphError`].
pub(super) async fn attached(mailbox: &Mailbox, id: &str) -> Result<Vec<ExistingAttachment>, GraphError> {
    let mut attached = Vec::new();
    for row in mailbox.attachments(id).await? {
        let Some(attachment) = row["id"].as_str() else { continue };
        let fingerprint = read_fingerprint(mailbox, id, attachment).await?;
        let name = row["name"].as_str().unwrap_or_default();
        attached.push(ExistingAttachment { id: attachment.to_owned(), attached: Attached::new(name, fingerprint) });
    }
    Ok(attached)
}

async fn read_fingerprint(mailbox: &Mailbox, id: &str, attachment: &str) -> Result<Fingerprint, GraphError> {
    const ATTEMPTS_MAX: usize = 4;
    let mut attempt = 1;
    loop {
        match read_fingerprint_once(mailbox, id, attachment).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && attempt < ATTEMPTS_MAX => attempt += 1,
            done => return done,
        }
    }
}

async fn read_fingerprint_once(mailbox: &Mailbox, id: &str, attachment: &str) -> Result<Fingerprint, GraphError> {
    let mut fingerprint = Fingerprinter::default();
    let mut body = mailbox.attached(id, attachment).await?;
    while let Some(chunk) = body.chunk().await? {
        fingerprint.take(&chunk);
        if fingerprint.len > ATTACHED_BYTES_MAX {
            return Err(GraphError::endless("reading an attachment back", ATTACHED_BYTES_MAX));
        }
    }
    Ok(fingerprint.finish())
}

/// Returns the attachment that a row describes. A row without bytes equals no file.
fn attached_of_row(row: &Value) -> Attached {
    let bytes = row["contentBytes"].as_str().and_then(|bytes| STANDARD.decode(bytes).ok());
    let none = Fingerprint { len: u64::MAX, hash: blake3::hash(b"") };
    Attached::new(row["name"].as_str().unwrap_or_default(), bytes.map_or(none, |bytes| Fingerprint::of(&bytes)))
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
pub(super) fn comparable(name: &str, value: &Value) -> Value {
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
        let file = |name: &str, bytes: &[u8]| Attached::new(name, Fingerprint::of(bytes));
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
