//! Writes to a mailbox: folders, messages and attachments. Nothing in this module sends mail.
//!
//! The service has no key by which it would recognise a repeated request. So a message is given a mark when it is
//! created ([`mark_property`]): a private property by which it can be found if the answer was lost. Every POST in this
//! module is sent once. After an ambiguous error, the caller checks what exists before it tries again.
//!
//! Large attachments are uploaded in ranges, to URLs that the service gives out (Graph: "Attach large files to Outlook
//! messages or events"). These URLs carry their own permission. The uploads count against the limits of the mailbox
//! like any other request.

use super::client::Body;
use super::error::{ErrorKind, GraphError};
use super::mail::{Mailbox, PAGE_SIZE, found};
use super::model::{ExtendedProperty, MARK, MailFolder, parse_date};
use super::pages::{Ends, Pages};
use super::request::{Method, Request, Scope};
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

/// The property that names the job that created a message. If two messages have the same mark, only our own is ever
/// taken back.
const JOB: &str = "String {6f0c1d5b-3a52-4b7e-9d0e-2b7c8a41e6f3} Name StrongroomItemJob";
/// The properties that are requested to find out which messages exist in a folder.
const STANDING_FIELDS: &str = "id,changeKey,internetMessageId,subject,sentDateTime,receivedDateTime";
/// The properties that are read to compare a message with what it should be.
const READ_BACK_FIELDS: &str = "id,subject,body,isDraft,isRead,flag,categories,importance,internetMessageId,sentDateTime,\
    receivedDateTime,parentFolderId,hasAttachments";
/// Maximum size of an attachment that is sent in one request, in bytes. Larger ones are uploaded in ranges; the service
/// refuses smaller ones there (Graph: attachment, createUploadSession).
pub const ATTACHMENT_WHOLE_BYTES_MAX: usize = 3_000_000 - 1;
/// Maximum size of a range, in bytes: 12 x 320 KiB, less than the 4 MB that the service allows.
pub const RANGE_BYTES_MAX: usize = 12 * 320 * 1024;
/// Maximum number of attempts at creating a folder when it is not clear whether it was created.
pub(super) const FOLDER_ATTEMPTS_MAX: usize = 4;
/// Maximum length of a `Message-ID` that is used in a filter. RFC 5322 limits lines to 998 bytes, and addresses have
/// limits too.
const FILTERED_LEN_MAX: usize = 900;
/// Maximum size of an answer that is empty or short, such as that to a range, in bytes.
pub(super) const SMALL_ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A message that exists in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The immutable id.
    pub id: String,
    /// The version of the message.
    pub change_key: Option<String>,
    /// The `Message-ID`.
    pub internet_message_id: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// When it was sent, in seconds since 1970.
    pub sent: Option<i64>,
    /// When it arrived, in seconds since 1970.
    pub received: Option<i64>,
    /// The mark that a restore gave the message.
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

/// Returns the extended property that holds the mark of a message.
pub fn mark_property(mark: &str) -> Value {
    json!({ "id": MARK, "value": mark })
}

/// Returns the extended property that names the job that created a message.
pub fn job_property(job: &str) -> Value {
    json!({ "id": JOB, "value": job })
}

/// Returns the filter for items that have this mark.
pub(super) fn filter_mark(mark: &str) -> String {
    format!("singleValueExtendedProperties/Any(ep: ep/id eq '{MARK}' and ep/value eq '{mark}')")
}

/// Returns the `$expand` that adds the marks of items.
pub(super) fn expand_mark() -> String {
    format!("singleValueExtendedProperties($filter=id eq '{MARK}')")
}

/// Returns the `$expand` that adds the jobs that created items.
pub(super) fn expand_job() -> String {
    format!("singleValueExtendedProperties($filter=id eq '{JOB}')")
}

/// Returns the value of the only property that was asked for.
pub(super) fn only_value(properties: Vec<ExtendedProperty>) -> Option<String> {
    properties.into_iter().find_map(|property| property.value)
}

/// An item with a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The immutable id.
    pub id: String,
    /// The job that created the item.
    pub job: Option<String>,
}

impl Mailbox {
    fn send(&self, method: Method, label: &'static str, segments: &[&str], body: &Value) -> Request {
        Request { method: method.clone(), ..self.get(label, segments) }.replayable(method != Method::POST).json(body)
    }

    /// Returns the folder called `name` directly in `parent`, if there is one. Like the service, it ignores case; an
    /// exact match comes first.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folder_called(&self, parent: &str, name: &str) -> Result<Option<MailFolder>, GraphError> {
        let children = self.child_folders(parent).await?.into_iter().filter(|folder| !folder.is_search());
        let alike = |folder: &MailFolder| folder.display_name.as_deref().is_some_and(|other| same_name(other, name));
        let mut alike: Vec<_> = children.filter(alike).collect();
        // If there are several, choose the same one every time.
        alike.sort_by(|a, b| {
            let is_other = |folder: &MailFolder| folder.display_name.as_deref() != Some(name);
            (is_other(a), &a.id).cmp(&(is_other(b), &b.id))
        });
        Ok(alike.into_iter().next())
    }

    /// Returns the id of the folder called `name` directly in `parent`. Creates the folder if it is missing; the flag
    /// says whether it did.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn make_folder(&self, parent: &str, name: &str) -> Result<(String, bool), GraphError> {
        let segments = ["mailFolders", parent, "childFolders"];
        let mut attempt = 1;
        loop {
            let request = self.send(Method::POST, "creating a mail folder", &segments, &json!({ "displayName": name }));
            let error = match self.client.json::<Id>(request).await {
                Ok(made) => return Ok((made.id, true)),
                Err(error) => error,
            };
            if !error.is_ambiguous() && error.kind() != ErrorKind::Conflict {
                return Err(error);
            }
            // The folder may have been created in spite of the error, or by somebody else in the meantime.
            if let Some(folder) = self.folder_called(parent, name).await? {
                return Ok((folder.id, error.is_ambiguous()));
            }
            if attempt == FOLDER_ATTEMPTS_MAX {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Calls `each` with every message in `folder`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn standing(&self, folder: &str, mut each: impl FnMut(Standing)) -> Result<(), GraphError> {
        const LABEL: &str = "listing what is in a folder";
        let segments = ["mailFolders", folder, "messages"];
        let ask = |segments: &[&str]| {
            let request = self.get(LABEL, segments).query("$select", STANDING_FIELDS);
            request.query("$expand", &expand_mark()).prefer(PAGE_SIZE)
        };
        // Only a delta is sure to list every message. A plain listing may miss a message that moves while it is read.
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

    /// Calls `each` with every message in `folder` that has this `Message-ID`. If that cannot be asked for, uses the
    /// second of arrival instead. If neither is known, calls `each` with every message.
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
        let request = self.get(LABEL, &["mailFolders", folder, "messages"]).query("$filter", &filter);
        let request = request.query("$select", STANDING_FIELDS).query("$expand", &expand_mark());
        let mut pages = self.client.pages(request.prefer(PAGE_SIZE), Ends::Plainly);
        while tell_page(&mut pages, &mut each).await? {}
        Ok(())
    }

    /// Gives a message a mark, and returns the message's properties afterwards.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn mark_message(&self, id: &str, mark: &str) -> Result<Value, GraphError> {
        let properties = json!({ "singleValueExtendedProperties": [mark_property(mark)] });
        self.client.json(self.send(Method::PATCH, "marking a message", &["messages", id], &properties)).await
    }

    /// Creates a message in `folder` from its properties (Graph: message), and returns its id.
    ///
    /// # Errors
    /// See [`GraphError`]. After an ambiguous error, [`Mailbox::marked`] tells whether the message was created.
    pub async fn create_message(&self, folder: &str, properties: &Value) -> Result<String, GraphError> {
        let segments = ["mailFolders", folder, "messages"];
        let request = self.send(Method::POST, "creating a message", &segments, properties);
        self.client.json::<Id>(request).await.map(|made| made.id)
    }

    /// Returns the messages in `folder` that have this mark, and the jobs that created them.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn marked(&self, folder: &str, mark: &str) -> Result<Vec<Marked>, GraphError> {
        let request = self.get("looking for a message", &["mailFolders", folder, "messages"]);
        let request = request.query("$filter", &filter_mark(mark)).query("$select", "id");
        let request = request.query("$expand", &expand_job());
        let marked = self.client.page(&request).await?;
        let marked = marked.rows::<StandingRow>().map(|row| {
            let StandingRow { id, single_value_extended_properties, .. } = row?;
            Ok(Marked { id, job: only_value(single_value_extended_properties) })
        });
        marked.collect()
    }

    /// Changes properties of a message. Repeating the same change does no harm.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn change_message(&self, id: &str, properties: &Value) -> Result<(), GraphError> {
        let request = self.send(Method::PATCH, "changing a message", &["messages", id], properties);
        self.client.json::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    /// Adds an attachment to a message (Graph: attachment).
    ///
    /// # Errors
    /// See [`GraphError`]. After an ambiguous error, the attachment may have been added.
    pub async fn attach(&self, id: &str, attachment: &Value) -> Result<(), GraphError> {
        let request = self.send(Method::POST, "attaching a file", &["messages", id, "attachments"], attachment);
        self.client.json::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    /// Removes an attachment. It is not an error if there is none.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn detach(&self, id: &str, attachment: &str) -> Result<(), GraphError> {
        let segments = ["messages", id, "attachments", attachment];
        let request = Request { method: Method::DELETE, ..self.get("removing an attachment", &segments) };
        found(self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await).map(drop)
    }

    /// Starts to upload a large attachment, and returns the URL for its ranges. The URL is a secret: whoever has it can
    /// write there.
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
        // This POST may be repeated: a session that nobody uses attaches nothing.
        let request = self.send(Method::POST, "beginning an upload", &segments, &body).replayable(true);
        self.client.json::<Session>(request).await.map(|session| session.upload_url)
    }

    /// Uploads a range that begins at `offset` in a file of `len` bytes. The last range creates the attachment.
    ///
    /// # Errors
    /// See [`GraphError`]. After an ambiguous error, the range may have arrived.
    pub async fn upload(&self, url: &str, bytes: Bytes, offset: u64, len: u64) -> Result<(), GraphError> {
        let last = offset + bytes.len() as u64 - 1;
        let range = HeaderValue::from_str(&format!("bytes {offset}-{last}/{len}")).expect("numbers are a header");
        let request = Request::permitted(Method::PUT, url.to_owned(), self.scope())
            .labelled("uploading a part of an attachment")
            // Ranges must arrive in order, and the service refuses a repeated one.
            .replayable(false)
            .header(CONTENT_RANGE, range)
            .bytes(HeaderValue::from_static("application/octet-stream"), bytes);
        self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Returns the properties of a message, to compare them with what they should be. With `attachments`, the contents
    /// of the attachments are included. HTML is returned unchanged, and text as text.
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

    /// Starts to read the content of one attachment.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn attached(&self, id: &str, attachment: &str) -> Result<Body, GraphError> {
        let segments = ["messages", id, "attachments", attachment, "$value"];
        self.client.body(self.get("reading an attachment back", &segments).uncoded()).await
    }

    /// Deletes a message as a person would: it can still be recovered. It is not an error if there is none.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn delete_message(&self, id: &str) -> Result<(), GraphError> {
        let request = Request { method: Method::DELETE, ..self.get("deleting a message", &["messages", id]) };
        found(self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await).map(drop)
    }

    /// Takes back a message that was just created. It is deleted permanently where the cloud supports that (Graph:
    /// message, permanentDelete); elsewhere it becomes a deleted message.
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

/// Calls `each` with every message of the next page. Returns false if there is no further page.
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

/// Returns the filter for a `Message-ID`, with and without its brackets. Returns `None` for an id that is not safe in a
/// filter.
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

/// Returns true if the service treats the two names as equal, so that they cannot exist in the same folder.
pub fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

impl From<StandingRow> for Standing {
    fn from(row: StandingRow) -> Self {
        let date = |text: Option<String>| text.and_then(|text| parse_date(&text));
        Self {
            mark: only_value(row.single_value_extended_properties),
            id: row.id,
            change_key: row.change_key,
            internet_message_id: row.internet_message_id,
            subject: row.subject,
            sent: date(row.sent_date_time),
            received: date(row.received_date_time),
        }
    }
}
