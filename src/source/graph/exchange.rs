//! Items as whole as the service can give and take them: its mailbox import and export API (Graph: "Overview of the
//! mailbox import and export APIs in Microsoft Graph").
//!
//! It names mailboxes, folders and items by ids of its own, and exists in the worldwide cloud alone. What it exports an
//! item as is a stream that only the service can read, and takes back into any mailbox: with everything that neither
//! MIME nor the properties of a message carry.
//!
//! - Nothing is promised of the ids of this API. Items are named as other programs name them, not by immutable ids;
//!   folders are found by what they are, or by their names.
//! - An export may be asked for twice. An import makes an item each time it arrives, so it is sent once, and whoever
//!   gets an ambiguous error looks before it is tried again.
//! - URLs that take imports carry their own permission: whoever has one can write to that mailbox.

mod extract;

use self::extract::Extractor;
use super::client::Body;
use super::error::{ErrorKind, GraphError};
use super::mail::Mailbox;
use super::request::{Method, Request, Scope, path};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// So many items are exported by one request (Graph: mailbox, exportItems).
pub const EXPORT_ITEMS_MAX: usize = 20;
/// An answer with several items may decode to so much; whoever asks sees to it that it has far less.
const EXPORT_BYTES_MAX: usize = 48 << 20;
/// A session ends so long before the service ends it, by its own clock.
const SESSION_MARGIN: Duration = Duration::from_secs(120);
/// A session is used no longer, whatever is said of it.
const SESSION_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a session is used of which is not known when it ends.
const SESSION_TIME: Duration = Duration::from_secs(15 * 60);
const FOLDERS_PER_PAGE: &str = "100";
/// Folders in one folder (Exchange Online limits: 10,000).
const FOLDERS_MAX: usize = 50_000;

/// A mailbox as this API knows it.
#[derive(Clone)]
pub struct Exchange {
    mailbox: Mailbox,
    id: Arc<str>,
}

/// An item that was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The id by which it was asked for.
    pub id: String,
    /// The version that was exported.
    pub change_key: Option<String>,
    /// The stream, or why there is none.
    pub stream: Result<Bytes, String>,
}

/// The answer to an export of one item, on its way.
pub struct Exporting {
    body: Body,
    extractor: Extractor,
}

/// Where items may be imported, for a while.
#[derive(Clone)]
pub struct Session {
    url: Arc<str>,
    ends: tokio::time::Instant,
}

/// A folder as this API knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportFolder {
    /// Its id, which may differ from the one that mail has for it.
    pub id: String,
    /// The name people see.
    #[serde(default)]
    pub display_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportRow {
    item_id: String,
    change_key: Option<String>,
    /// Which of the streams, in the order in which they came.
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    error: Option<RowError>,
}

/// What is left of an answer to an export without its streams. It is short.
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
        // A code says what is wrong; the words beside it may say what the item is about.
        let is_code = |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        format!("the service does not export it ({})", code.filter(is_code).unwrap_or("no reason given"))
    }
}

impl Mailbox {
    /// Finds the mailbox in this API.
    ///
    /// # Errors
    /// See [`GraphError`]; [`is_unavailable`] tells whether the API is out of reach for all mailboxes alike.
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

/// Returns whether an error of this API means that nothing of it can be had: it is not in this cloud, or the
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

    /// Returns the ids by which other programs know the messages with these immutable ids; some may be missing.
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
        // It only reads.
        request.labelled("exporting messages").replayable(true).size_hint(size_hint)
    }

    /// Exports up to [`EXPORT_ITEMS_MAX`] items at once, which are small together. Rows come in any order.
    ///
    /// # Errors
    /// See [`GraphError`]; what concerns one item alone is in its row.
    pub async fn export(&self, ids: &[&str], size_hint: u64) -> Result<Vec<Exported>, GraphError> {
        let mut exporting = self.begin_export(ids, size_hint).await?;
        let mut streams: Vec<Vec<u8>> = Vec::new();
        let mut len = 0;
        while let Some(piece) = exporting.body.chunk().await? {
            len += exporting.extractor.push(&piece, &mut streams)?;
            if len > EXPORT_BYTES_MAX {
                return Err(super::http::too_large("exporting messages", EXPORT_BYTES_MAX as u64));
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

    /// Begins to export one item, whatever its size.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn begin_export(&self, ids: &[&str], size_hint: u64) -> Result<Exporting, GraphError> {
        let body = self.mailbox.client.body(self.export_request(ids, size_hint)).await?;
        Ok(Exporting { body, extractor: Extractor::default() })
    }

    /// Asks for a permission to import.
    ///
    /// # Errors
    /// See [`GraphError`]; [`is_unavailable`].
    pub async fn import_session(&self) -> Result<Session, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Opened {
            import_url: String,
            expiration_date_time: Option<String>,
        }
        let request =
            Request::new(Method::POST, super::request::Target::Path(self.path(&["createImportSession"])), self.scope());
        // A session that nobody uses imports nothing.
        let request = request.labelled("beginning an import").replayable(true);
        let opened: Opened = self.mailbox.client.json(request).await?;
        let lives = opened.expiration_date_time.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let lives = lives.and_then(|ends| Duration::try_from(ends.duration_since(jiff::Timestamp::now())).ok());
        let lives = lives.map_or(SESSION_TIME, |lives| lives.saturating_sub(SESSION_MARGIN).min(SESSION_TIME_MAX));
        Ok(Session { url: opened.import_url.into(), ends: tokio::time::Instant::now() + lives })
    }

    /// Makes an item of `request`, which [`import_request`] has put together, and returns its id.
    ///
    /// # Errors
    /// See [`GraphError`]; after an ambiguous one it may have been made. Status 401 asks for another session.
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

    /// Returns the folder that every mailbox calls `name`.
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
    /// Returns the next bytes of the stream, or `None` after the last.
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

    /// Returns the version that was exported, or why there is no stream, once all of it has come.
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
    /// Returns whether it is not to be used any more.
    pub fn has_ended(&self) -> bool {
        self.ends <= tokio::time::Instant::now()
    }
}

/// Puts the request together that imports a stream into `folder`: its pieces come from `each`, which is called with
/// what takes them. Only the request is in memory, not the stream beside it.
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
        // Only whole groups of three bytes can be written before the end.
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
