//! What is written to a mailbox: folders, messages, and what is attached to them. Nothing here sends anything.
//!
//! The service has no key by which it would recognise a request that comes twice, so a message is given a mark when it
//! is made ([`mark_property`]): a private property by which it is found again when the answer was lost. Every POST here
//! is sent once; a caller that gets an ambiguous error looks before it tries again.
//!
//! Large attachments go to URLs that the service gives out, in ranges (Graph: "Attach large files to Outlook messages
//! or events"). Those URLs carry their own permission, and what is sent there counts against the mailbox like anything
//! else.

use super::client::Body;
use super::error::{ErrorKind, GraphError};
use super::mail::{Mailbox, PAGE_SIZE, found};
use super::model::{ExtendedProperty, MailFolder, parse_date};
use super::pages::{Ends, Pages};
use super::request::{Method, Request, Scope};
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

/// The property that holds the mark (Graph: "Outlook extended properties overview"). The GUID is Strongroom's own.
pub(super) const MARK: &str = "String {6f0c1d5b-3a52-4b7e-9d0e-2b7c8a41e6f3} Name StrongroomItem";
/// The name under which a message says which job made it, so that of two with one mark only our own is ever taken back.
const JOB: &str = "String {6f0c1d5b-3a52-4b7e-9d0e-2b7c8a41e6f3} Name StrongroomItemJob";
/// What is asked of the messages of a folder to know which are there.
const STANDING_FIELDS: &str = "id,changeKey,internetMessageId,subject,sentDateTime,receivedDateTime";
/// What is read of a message to hold it against what it should be.
const READ_BACK_FIELDS: &str = "id,subject,body,isDraft,isRead,flag,categories,importance,internetMessageId,sentDateTime,\
    receivedDateTime,parentFolderId,hasAttachments";
/// Larger attachments go up in ranges; smaller ones are refused there (Graph: attachment, createUploadSession).
pub const ATTACHMENT_WHOLE_BYTES_MAX: usize = 3_000_000 - 1;
/// Twelve times 320 KiB: under the 4 MB that a range may have.
pub const RANGE_BYTES_MAX: usize = 12 * 320 * 1024;
/// How often a folder is asked for again, at most, when it is not clear whether it was made.
const FOLDER_ATTEMPTS_MAX: usize = 4;
/// A longer `Message-ID` is not asked for: RFC 5322 has lines of 998 bytes at most, and addresses have their limits.
const FILTERED_LEN_MAX: usize = 900;
/// An empty answer, or the little that the service says to a range.
const SMALL_ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A message that stands in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The immutable id.
    pub id: String,
    /// Its version.
    pub change_key: Option<String>,
    /// Its `Message-ID`.
    pub internet_message_id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// When it was sent, in seconds since 1970.
    pub sent: Option<i64>,
    /// When it arrived, in seconds since 1970.
    pub received: Option<i64>,
    /// The mark that it was given when a restore made it.
    pub mark: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StandingRow {
    id: String,
    change_key: Option<String>,
    internet_message_id: Option<String>,
    subject: Option<String>,
    sent_date_time: Option<String>,
    received_date_time: Option<String>,
    #[serde(default)]
    single_value_extended_properties: Vec<ExtendedProperty>,
    #[serde(rename = "@removed")]
    removed: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

/// Returns the extended property that gives a message its mark.
pub fn mark_property(mark: &str) -> Value {
    json!({ "id": MARK, "value": mark })
}

/// Returns the extended property that says which job made a message.
pub fn job_property(job: &str) -> Value {
    json!({ "id": JOB, "value": job })
}

/// A message that bears a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The immutable id.
    pub id: String,
    /// The job that made it.
    pub job: Option<String>,
}

impl Mailbox {
    fn send(&self, method: Method, label: &'static str, segments: &[&str], body: &Value) -> Request {
        Request { method: method.clone(), ..self.get(label, segments) }.replayable(method != Method::POST).json(body)
    }

    /// Returns the folder of this name directly in `parent`, if there is one. Like the service, it takes names for the
    /// same that differ in case only; one that is equal goes first.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folder_called(&self, parent: &str, name: &str) -> Result<Option<MailFolder>, GraphError> {
        let children = self.child_folders(parent).await?.into_iter().filter(|folder| !folder.is_search());
        let alike = |folder: &MailFolder| folder.display_name.as_deref().is_some_and(|other| same_name(other, name));
        let mut alike: Vec<_> = children.filter(alike).collect();
        // Twins: the same one every time.
        alike.sort_by(|a, b| {
            let is_other = |folder: &MailFolder| folder.display_name.as_deref() != Some(name);
            (is_other(a), &a.id).cmp(&(is_other(b), &b.id))
        });
        Ok(alike.into_iter().next())
    }

    /// Returns the id of the folder of this name directly in `parent`, which is made if it is missing, and whether it
    /// was.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn make_folder(&self, parent: &str, name: &str) -> Result<(String, bool), GraphError> {
        let segments = ["mailFolders", parent, "childFolders"];
        let mut attempt = 1;
        loop {
            let request = self.send(Method::POST, "making a mail folder", &segments, &json!({ "displayName": name }));
            let error = match self.client.json::<Id>(request).await {
                Ok(made) => return Ok((made.id, true)),
                Err(error) => error,
            };
            if !error.is_ambiguous() && error.kind() != ErrorKind::Conflict {
                return Err(error);
            }
            // It may have been made all the same, or by somebody else meanwhile.
            if let Some(folder) = self.folder_called(parent, name).await? {
                return Ok((folder.id, error.is_ambiguous()));
            }
            if attempt == FOLDER_ATTEMPTS_MAX {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Tells `each` of the messages that stand in `folder`, page by page.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn standing(&self, folder: &str, mut each: impl FnMut(Standing)) -> Result<(), GraphError> {
        const LABEL: &str = "listing what is in a folder";
        let segments = ["mailFolders", folder, "messages"];
        let expand = format!("singleValueExtendedProperties($filter=id eq '{MARK}')");
        let ask = |segments: &[&str]| {
            self.get(LABEL, segments).query("$select", STANDING_FIELDS).query("$expand", &expand).prefer(PAGE_SIZE)
        };
        // Only a delta is sure to tell of all: what moves while a plain listing is read may be passed over.
        let mut pages = self.client.pages(ask(&[&segments[..], &["delta"]].concat()), Ends::WithDeltaLink);
        match tell_page(&mut pages, &mut each).await {
            Err(error) if error.kind() == ErrorKind::DeltaUnsupported => {
                pages = self.client.pages(ask(&segments), Ends::Plainly);
            }
            told => _ = told?,
        }
        while tell_page(&mut pages, &mut each).await? {}
        Ok(())
    }

    /// Tells `each` of the messages in `folder` that have this `Message-ID` or, where that cannot be asked for, that
    /// arrived in the same second; where neither is known, of all messages.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn alike(
        &self,
        folder: &str,
        message_id: Option<&str>,
        received: Option<i64>,
        mut each: impl FnMut(Standing),
    ) -> Result<(), GraphError> {
        const LABEL: &str = "looking for a message";
        let Some(filter) = message_id.and_then(of_message_id).or_else(|| received.and_then(of_second)) else {
            return self.standing(folder, each).await;
        };
        let expand = format!("singleValueExtendedProperties($filter=id eq '{MARK}')");
        let request = self.get(LABEL, &["mailFolders", folder, "messages"]).query("$filter", &filter);
        let request = request.query("$select", STANDING_FIELDS).query("$expand", &expand);
        let mut pages = self.client.pages(request.prefer(PAGE_SIZE), Ends::Plainly);
        while tell_page(&mut pages, &mut each).await? {}
        Ok(())
    }

    /// Gives a message a mark, and returns what the service says of it then.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn mark_message(&self, id: &str, mark: &str) -> Result<Value, GraphError> {
        let properties = json!({ "singleValueExtendedProperties": [mark_property(mark)] });
        self.client.json(self.send(Method::PATCH, "marking a message", &["messages", id], &properties)).await
    }

    /// Makes a message in `folder` from its properties (Graph: message), and returns its id.
    ///
    /// # Errors
    /// See [`GraphError`]; after an ambiguous one, [`Mailbox::marked`] tells whether it was made.
    pub async fn create_message(&self, folder: &str, properties: &Value) -> Result<String, GraphError> {
        let segments = ["mailFolders", folder, "messages"];
        let request = self.send(Method::POST, "making a message", &segments, properties);
        self.client.json::<Id>(request).await.map(|made| made.id)
    }

    /// Returns the ids of the messages in `folder` that have this mark.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn marked(&self, folder: &str, mark: &str) -> Result<Vec<String>, GraphError> {
        let page = self.client.page(&self.ask_marked(folder, mark)).await?;
        page.rows::<Id>().map(|row| row.map(|row| row.id)).collect()
    }

    /// Returns the messages in `folder` that have this mark, with the jobs that made them.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn marked_by_jobs(&self, folder: &str, mark: &str) -> Result<Vec<Marked>, GraphError> {
        let expand = format!("singleValueExtendedProperties($filter=id eq '{JOB}')");
        let page = self.client.page(&self.ask_marked(folder, mark).query("$expand", &expand)).await?;
        let marked = page.rows::<StandingRow>().map(|row| {
            let StandingRow { id, single_value_extended_properties, .. } = row?;
            let job = single_value_extended_properties.into_iter().find_map(|property| property.value);
            Ok(Marked { id, job })
        });
        marked.collect()
    }

    fn ask_marked(&self, folder: &str, mark: &str) -> Request {
        let filter = format!("singleValueExtendedProperties/Any(ep: ep/id eq '{MARK}' and ep/value eq '{mark}')");
        let request = self.get("looking for a message", &["mailFolders", folder, "messages"]);
        request.query("$filter", &filter).query("$select", "id")
    }

    /// Changes properties of a message; the same change twice is one change.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn change_message(&self, id: &str, properties: &Value) -> Result<(), GraphError> {
        let request = self.send(Method::PATCH, "changing a message", &["messages", id], properties);
        self.client.json::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    /// Attaches something to a message (Graph: attachment).
    ///
    /// # Errors
    /// See [`GraphError`]; after an ambiguous one, it may be attached.
    pub async fn attach(&self, id: &str, attachment: &Value) -> Result<(), GraphError> {
        let request = self.send(Method::POST, "attaching a file", &["messages", id, "attachments"], attachment);
        self.client.json::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    /// Takes an attachment away. That there is none is no error.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn detach(&self, id: &str, attachment: &str) -> Result<(), GraphError> {
        let segments = ["messages", id, "attachments", attachment];
        let request = Request { method: Method::DELETE, ..self.get("taking an attachment away", &segments) };
        found(self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await).map(drop)
    }

    /// Begins to attach a large file and returns where its ranges go. The URL is a secret: whoever has it can write
    /// there.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn begin_upload(&self, id: &str, item: &Value) -> Result<String, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Session {
            upload_url: String,
        }
        let segments = ["messages", id, "attachments", "createUploadSession"];
        let body = json!({ "AttachmentItem": item });
        // A session that nobody uses attaches nothing, so it may be opened twice.
        let request = self.send(Method::POST, "beginning an upload", &segments, &body).replayable(true);
        self.client.json::<Session>(request).await.map(|session| session.upload_url)
    }

    /// Sends the bytes from `offset` on of a file of `len` bytes. The last range makes the attachment.
    ///
    /// # Errors
    /// See [`GraphError`]; after an ambiguous one the range may have arrived.
    pub async fn upload(&self, url: &str, bytes: Bytes, offset: u64, len: u64) -> Result<(), GraphError> {
        let last = offset + bytes.len() as u64 - 1;
        let range = HeaderValue::from_str(&format!("bytes {offset}-{last}/{len}")).expect("numbers are a header");
        let request = Request::permitted(Method::PUT, url.to_owned(), self.scope())
            .labelled("uploading a part of an attachment")
            // Ranges come in order: one that comes again is refused.
            .replayable(false)
            .header(CONTENT_RANGE, range)
            .bytes(HeaderValue::from_static("application/octet-stream"), bytes);
        self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Returns what the service says of a message, to be held against what it should be; with the contents of what is
    /// attached if `attachments`. Nothing is done to HTML, and text is given as text.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn read_back(&self, id: &str, html: bool, attachments: bool) -> Result<Option<Value>, GraphError> {
        let mut request = self.get("reading a message back", &["messages", id]).query("$select", READ_BACK_FIELDS);
        if attachments {
            request = request.query("$expand", "attachments");
        }
        let body = if html { "html" } else { "text" };
        let request = request.prefer("outlook.allow-unsafe-html");
        found(self.client.json(request.prefer(format!("outlook.body-content-type=\"{body}\""))).await)
    }

    /// Begins to read what one attachment holds.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn attached(&self, id: &str, attachment: &str) -> Result<Body, GraphError> {
        let segments = ["messages", id, "attachments", attachment, "$value"];
        self.client.body(self.get("reading an attachment back", &segments).uncoded()).await
    }

    /// Deletes a message, as a person would: it can still be had back. That there is none is no error.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn delete_message(&self, id: &str) -> Result<(), GraphError> {
        let request = Request { method: Method::DELETE, ..self.get("deleting a message", &["messages", id]) };
        found(self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await).map(drop)
    }

    /// Takes back a message that was just made. Not every cloud can do so without a trace (Graph: message,
    /// permanentDelete); where it cannot, the message goes where deleted ones go.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn take_back_message(&self, id: &str) -> Result<(), GraphError> {
        let segments = ["messages", id, "permanentDelete"];
        let request = Request { method: Method::POST, ..self.get("taking a message back", &segments) };
        match found(self.client.bytes(request.replayable(true), SMALL_ANSWER_BYTES_MAX).await) {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() || error.kind() == ErrorKind::Cancelled => Err(error),
            Err(_) => self.delete_message(id).await,
        }
    }

    fn scope(&self) -> Scope {
        Scope::Mailbox(self.user.clone())
    }
}

/// Tells `each` of the messages of the next page, and returns whether there was one.
async fn tell_page(pages: &mut Pages, each: &mut impl FnMut(Standing)) -> Result<bool, GraphError> {
    let Some(page) = pages.next().await? else { return Ok(false) };
    for row in page.rows::<StandingRow>() {
        let row = row?;
        if row.removed.is_none() {
            each(row.into());
        }
    }
    Ok(true)
}

/// Returns the filter for a `Message-ID`, with and without its brackets; none for one that no filter should hold.
fn of_message_id(id: &str) -> Option<String> {
    let id = id.trim_matches(['<', '>', ' ']);
    let is_sane = (1..=FILTERED_LEN_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = id.replace('\'', "''");
    is_sane.then(|| format!("internetMessageId eq '<{id}>' or internetMessageId eq '{id}'"))
}

fn of_second(received: i64) -> Option<String> {
    let moment = |second: i64| jiff::Timestamp::from_second(second).ok();
    let (from, to) = (moment(received)?, moment(received.checked_add(1)?)?);
    Some(format!("receivedDateTime ge {from} and receivedDateTime lt {to}"))
}

/// Returns whether the service would not let the two stand beside each other.
pub fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

impl From<StandingRow> for Standing {
    fn from(row: StandingRow) -> Self {
        let date = |text: Option<String>| text.and_then(|text| parse_date(&text));
        Self {
            mark: row.single_value_extended_properties.into_iter().find_map(|property| property.value),
            id: row.id,
            change_key: row.change_key,
            internet_message_id: row.internet_message_id,
            subject: row.subject,
            sent: date(row.sent_date_time),
            received: date(row.received_date_time),
        }
    }
}
