//! Exports and imports items with all their properties, through Exchange's mailbox import and export API (Graph:
//! "Overview of the mailbox import and export APIs in Microsoft Graph").
//!
//! This API exists in the worldwide cloud only, and has its own ids for mailboxes, folders and items. It exports an
//! item as a stream that only the service can read. The service takes the stream back into any mailbox, with everything
//! that neither MIME nor the properties of a message carry.
//!
//! - Nothing is promised about the ids of this API. Items are named by the ids that other programs use, not by
//!   immutable ids. Folders are found by their well-known names, or by their display names.
//! - An export may be repeated. An import creates an item each time it arrives, so it is sent once. After an ambiguous
//!   error, the caller checks whether the item exists before it tries again.
//! - The URLs for imports carry their own permission: whoever has such a URL can write to the mailbox.

mod extract;

use self::extract::Extractor;
use super::client::Body;
use super::error::{ErrorKind, GraphError};
use super::mail::Mailbox;
use super::request::{Method, Request, Scope};
use super::urls::path;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of items in one export request (Graph: mailbox, exportItems).
pub const EXPORT_ITEMS_MAX: usize = 20;
/// Maximum size of the decoded streams in an answer with several items, in bytes. Callers ask for far less.
const EXPORT_BYTES_MAX: usize = 48 << 20;
/// A session is given up this long before the service ends it, by the service's own clock.
const SESSION_MARGIN: Duration = Duration::from_secs(120);
/// Maximum time for which a session is used, whatever the service says.
const SESSION_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a session is used if the service does not say when it ends.
const SESSION_TIME: Duration = Duration::from_secs(15 * 60);
const FOLDERS_PER_PAGE: &str = "100";
/// Maximum number of folders in one folder (Exchange Online limits: 10,000).
const FOLDERS_MAX: usize = 50_000;

/// A mailbox in this API.
#[derive(Clone)]
pub struct Exchange {
    mailbox: Mailbox,
    id: Arc<str>,
}

/// An exported item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The id by which the item was requested.
    pub id: String,
    /// The change key of the version that was exported.
    pub change_key: Option<String>,
    /// The stream, or the reason why there is none.
    pub stream: Result<Bytes, String>,
}

/// The answer to an export of one item, while it arrives.
pub struct Exporting {
    body: Body,
    extractor: Extractor,
}

/// A permission to import items into a mailbox for a while.
#[derive(Clone)]
pub struct Session {
    url: Arc<str>,
    ends: tokio::time::Instant,
}

/// A folder in this API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportFolder {
    /// The id, which may differ from the folder's id in the mail API.
    pub id: String,
    /// The display name.
    #[serde(default)]
    pub display_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportRow {
    item_id: String,
    change_key: Option<String>,
    /// The number of the stream in the answer; the first is 0.
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    error: Option<RowError>,
}

/// The rest of an answer to an export, without its streams. It is short.
#[derive(Deserialize)]
struct ExportPage {
    value: Vec<ExportRow>,
}

#[derive(Deserialize)]
struct RowError {
    #[serde(default)]
    code: Option<String>,
}

impl ExportRow {
    fn refusal(&self) -> String {
        let code = self.error.as_ref().and_then(|error| error.code.as_deref());
        // Use the code only: the words beside it may reveal the content of the item.
        let is_code = |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        format!("the service does not export it ({})", code.filter(is_code).unwrap_or("no reason given"))
    }
}

impl Mailbox {
    /// Finds the mailbox in this API.
    ///
    /// # Errors
    /// See [`GraphError`]. [`is_unavailable`] tells whether the API is out of reach for all mailboxes.
    pub async fn exchange(&self) -> Result<Exchange, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Settings {
            primary_mailbox_id: Option<String>,
        }
        const LABEL: &str = "looking for the mailbox's import and export";
        let settings: Settings = self.client.json(self.get(LABEL, &["settings", "exchange"])).await?;
        let id = settings.primary_mailbox_id.filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| GraphError::no_mailbox(LABEL))?;
        Ok(Exchange { mailbox: self.clone(), id: id.into() })
    }
}

/// Returns true if an error means that this API cannot be used at all: it does not exist in this cloud, or the
/// application may not use it.
pub fn is_unavailable(error: &GraphError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Denied
            | ErrorKind::MissingPermission
            | ErrorKind::NotFound
            | ErrorKind::NoMailbox
            | ErrorKind::BadRequest
    )
}

impl Exchange {
    fn path(&self, segments: &[&str]) -> String {
        path(&[&["admin", "exchange", "mailboxes", &*self.id], segments].concat())
    }

    fn scope(&self) -> Scope {
        Scope::mailbox(self.mailbox.user())
    }

    fn get(&self, label: &'static str, segments: &[&str]) -> Request {
        Request::get(self.path(segments), self.scope()).labelled(label)
    }

    /// Returns the ids that other programs use, for the messages with these immutable ids. Some may be missing.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn ids_of(&self, immutable: &[&str]) -> Result<HashMap<String, String>, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            source_id: String,
            target_id: Option<String>,
        }
        let body = json!({ "inputIds": immutable, "sourceIdType": "restImmutableEntryId", "targetIdType": "restId" });
        let path = path(&["users", self.mailbox.user(), "translateExchangeIds"]);
        let request = Request::post(path, Scope::Directory, &body).labelled("translating ids").replayable(true);
        let page = self.mailbox.client.page(&request).await?;
        let rows = page.rows::<Row>().map(|row| row.map(|row| Some((row.source_id, row.target_id?))));
        rows.filter_map(Result::transpose).collect()
    }

    fn export_request(&self, ids: &[&str], size_hint: u64) -> Request {
        let request = Request::post(self.path(&["exportItems"]), self.scope(), &json!({ "itemIds": ids }));
        // This POST only reads.
        request.labelled("exporting messages").replayable(true).size_hint(size_hint)
    }

    /// Exports up to [`EXPORT_ITEMS_MAX`] small items at once. Rows come in any order.
    ///
    /// # Errors
    /// See [`GraphError`]. A failure that concerns one item only is in that item's row.
    pub async fn export(&self, ids: &[&str], size_hint: u64) -> Result<Vec<Exported>, GraphError> {
        let mut exporting = self.begin_export(ids, size_hint).await?;
        let mut streams: Vec<Vec<u8>> = Vec::new();
        let mut len = 0;
        while let Some(piece) = exporting.body.chunk().await? {
            len += exporting.extractor.push(&piece, &mut streams)?;
            if len > EXPORT_BYTES_MAX {
                return Err(GraphError::endless("exporting messages", EXPORT_BYTES_MAX as u64));
            }
        }
        let rows = exporting.extractor.finish::<ExportPage>()?.value;
        let mut streams: Vec<Option<Vec<u8>>> = streams.into_iter().map(Some).collect();
        let exported = rows.into_iter().map(|row| {
            let number = row.data.as_ref().and_then(|number| number.parse::<usize>().ok());
            let stream = number.and_then(|number| streams.get_mut(number)?.take()).filter(|stream| !stream.is_empty());
            let stream = stream.map(Bytes::from).ok_or_else(|| row.refusal());
            Exported { id: row.item_id, change_key: row.change_key, stream }
        });
        Ok(exported.collect())
    }

    /// Starts to export one item of any size.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn begin_export(&self, ids: &[&str], size_hint: u64) -> Result<Exporting, GraphError> {
        let body = self.mailbox.client.body(self.export_request(ids, size_hint)).await?;
        Ok(Exporting { body, extractor: Extractor::default() })
    }

    /// Requests a permission to import.
    ///
    /// # Errors
    /// See [`GraphError`] and [`is_unavailable`].
    pub async fn import_session(&self) -> Result<Session, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Opened {
            import_url: String,
            expiration_date_time: Option<String>,
        }
        let request =
            Request::new(Method::POST, super::request::Target::Path(self.path(&["createImportSession"])), self.scope());
        // This POST may be repeated: a session that nobody uses imports nothing.
        let request = request.labelled("beginning an import").replayable(true);
        let opened: Opened = self.mailbox.client.json(request).await?;
        let lives = opened.expiration_date_time.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let lives = lives.and_then(|ends| Duration::try_from(ends.duration_since(jiff::Timestamp::now())).ok());
        let lives = lives.map_or(SESSION_TIME, |lives| lives.saturating_sub(SESSION_MARGIN).min(SESSION_TIME_MAX));
        Ok(Session { url: opened.import_url.into(), ends: tokio::time::Instant::now() + lives })
    }

    /// Sends `request`, which [`import_request`] has built, and returns the id of the new item.
    ///
    /// # Errors
    /// See [`GraphError`]. After an ambiguous error, the item may exist. Status 401 means that a new session is needed.
    pub async fn import(&self, session: &Session, request: Bytes) -> Result<String, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Imported {
            #[serde(alias = "ItemId")]
            item_id: String,
        }
        let request = Request::permitted(Method::POST, session.url.to_string(), self.scope())
            .labelled("importing a message")
            .bytes(HeaderValue::from_static("application/json"), request);
        self.mailbox.client.json::<Imported>(request).await.map(|imported| imported.item_id)
    }

    /// Returns the folder with the well-known name `name`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn well_known_folder(&self, name: &str) -> Result<Option<ImportFolder>, GraphError> {
        super::mail::found(self.mailbox.client.json(self.get("finding folders to import to", &["folders", name])).await)
    }

    /// Lists the folders directly in `folder`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folders_in(&self, folder: &str) -> Result<Vec<ImportFolder>, GraphError> {
        const LABEL: &str = "listing folders to import to";
        let request = self.get(LABEL, &["folders", folder, "childFolders"]).query("$top", FOLDERS_PER_PAGE);
        self.mailbox.client.collect(request, FOLDERS_MAX).await
    }
}

impl Exporting {
    /// Returns the next bytes of the stream, or `None` after the last ones.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, GraphError> {
        let mut streams = Vec::new();
        while let Some(piece) = self.body.chunk().await? {
            self.extractor.push(&piece, &mut streams)?;
            let bytes = streams.concat();
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    /// Returns the change key of the version that was exported, or the reason why there is no stream. Call it after the
    /// whole stream was read.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub fn finish(self) -> Result<Result<Option<String>, String>, GraphError> {
        let rows = self.extractor.finish::<ExportPage>()?.value;
        let [row] = <[ExportRow; 1]>::try_from(rows).map_err(|_| GraphError::malformed("exporting messages"))?;
        Ok(if row.data.is_some() && row.error.is_none() { Ok(row.change_key) } else { Err(row.refusal()) })
    }
}

impl Session {
    /// Returns true if the session must not be used any more.
    pub fn has_ended(&self) -> bool {
        self.ends <= tokio::time::Instant::now()
    }
}

/// Builds the request that imports a stream into `folder`. It calls `each` with a function that takes the pieces of the
/// stream. Only the request is in memory, not the stream as well.
///
/// # Errors
/// Those of `each`.
pub fn import_request<E>(
    folder: &str,
    len: u64,
    each: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
) -> Result<Bytes, E> {
    let start = format!("{{\"FolderId\":{},\"Mode\":\"create\",\"Data\":\"", Value::from(folder));
    let mut body = String::with_capacity(start.len() + (len as usize).div_ceil(3) * 4 + 2);
    body.push_str(&start);
    let mut tail: Vec<u8> = Vec::new();
    each(&mut |mut piece| {
        // Before the end, only whole groups of three bytes can be encoded.
        if !tail.is_empty() {
            let missing = piece.len().min(3 - tail.len());
            tail.extend_from_slice(&piece[..missing]);
            piece = &piece[missing..];
            if tail.len() < 3 {
                return;
            }
            STANDARD.encode_string(&tail, &mut body);
            tail.clear();
        }
        let (groups, rest) = piece.split_at(piece.len() / 3 * 3);
        STANDARD.encode_string(groups, &mut body);
        tail.extend_from_slice(rest);
    })?;
    STANDARD.encode_string(&tail, &mut body);
    body.push_str("\"}");
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_holds_the_stream_however_it_came(pieces: Vec<Vec<u8>>, folder: String) {
            let stream = pieces.concat();
            let request = import_request(&folder, stream.len() as u64, |take| {
                pieces.iter().for_each(|piece| take(piece));
                Ok::<_, std::convert::Infallible>(())
            });
            let request: Value = serde_json::from_slice(&request.unwrap()).unwrap();
            prop_assert_eq!(&request["FolderId"], &folder);
            prop_assert_eq!(STANDARD.decode(request["Data"].as_str().unwrap()).unwrap(), stream);
        }
    }
}
