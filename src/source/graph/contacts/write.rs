//! Writes contacts: folders, contacts and photos.
//!
//! As for messages, every POST is sent once, and a contact bears a mark from the request that creates it (see
//! [`mark_property`](crate::source::graph::write::mark_property)). After an ambiguous error, the caller looks what
//! exists before it tries again.

use super::{ContactFolder, Contacts, FOLDERS_MAX};
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::mail::{PAGE_SIZE, found};
use crate::source::graph::model::ExtendedProperty;
use crate::source::graph::pages::{Ends, Pages};
use crate::source::graph::request::{Method, Request};
use crate::source::graph::write::{FOLDER_ATTEMPTS_MAX, Marked, SMALL_ANSWER_BYTES_MAX, only_value, same_name};
use crate::source::graph::write::{expand_job, expand_mark, filter_mark};
use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// A contact that exists in a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct ExistingContact {
    /// The immutable id.
    pub id: String,
    /// The version.
    pub change_key: Option<String>,
    /// The mark that a restore gave the contact.
    pub mark: Option<String>,
    /// The properties.
    pub properties: Map<String, Value>,
}

/// A contact folder that was created or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeContactFolder {
    /// The id.
    pub id: String,
    /// True if it was created.
    pub is_new: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    change_key: Option<String>,
    #[serde(default)]
    single_value_extended_properties: Vec<ExtendedProperty>,
    #[serde(rename = "@removed")]
    removed: Option<IgnoredAny>,
    #[serde(flatten)]
    properties: Map<String, Value>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

impl Contacts {
    fn send(&self, method: Method, label: &'static str, segments: &[&str], body: &Value) -> Request {
        Request { method: method.clone(), ..self.get(label, segments) }.replayable(method != Method::POST).json(body)
    }

    /// Lists the folders directly in `folder`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folders_in(&self, folder: &str) -> Result<Vec<ContactFolder>, GraphError> {
        self.client.collect(self.child_request(folder), FOLDERS_MAX).await
    }

    /// Returns the folder called `name` directly in `parent`. Creates it if it is missing.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn make_folder(&self, parent: &str, name: &str) -> Result<MadeContactFolder, GraphError> {
        let segments = ["contactFolders", parent, "childFolders"];
        let body = serde_json::json!({ "displayName": name });
        let mut attempt = 1;
        loop {
            let request = self.send(Method::POST, "creating a contact folder", &segments, &body);
            let error = match self.client.json::<Id>(request).await {
                Ok(made) => return Ok(MadeContactFolder { id: made.id, is_new: true }),
                Err(error) => error,
            };
            if !error.is_ambiguous() && error.kind() != ErrorKind::Conflict {
                return Err(error);
            }
            // The folder may have been created in spite of the error, or by somebody else in the meantime.
            let folders = self.folders_in(parent).await?;
            let is_called =
                |folder: &&ContactFolder| folder.display_name.as_deref().is_some_and(|n| same_name(n, name));
            if let Some(folder) = folders.iter().find(is_called) {
                return Ok(MadeContactFolder { id: folder.id.clone(), is_new: error.is_ambiguous() });
            }
            if attempt == FOLDER_ATTEMPTS_MAX {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Calls `each` with every contact in `folder`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn existing(&self, folder: &str, mut each: impl FnMut(ExistingContact)) -> Result<(), GraphError> {
        const LABEL: &str = "listing the contacts of a folder";
        let segments = ["contactFolders", folder, "contacts"];
        let ask = |segments: &[&str]| self.get(LABEL, segments).query("$expand", &expand_mark()).prefer(PAGE_SIZE);
        // Only a delta is sure to list every contact. A plain listing may miss a contact that moves while it is read.
        let mut pages = self.client.pages(ask(&[&segments[..], &["delta"]].concat()), Ends::WithDeltaLink);
        match take_page(&mut pages, &mut each).await {
            Err(error) if error.kind() == ErrorKind::DeltaUnsupported => {
                pages = self.client.pages(ask(&segments), Ends::Plainly);
            }
            taken => _ = taken?,
        }
        while take_page(&mut pages, &mut each).await? {}
        Ok(())
    }

    /// Returns the contacts in `folder` that have this mark, and the jobs that created them.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn marked(&self, folder: &str, mark: &str) -> Result<Vec<Marked>, GraphError> {
        let request = self.get("looking for a contact", &["contactFolders", folder, "contacts"]);
        let request = request.query("$filter", &filter_mark(mark)).query("$select", "id");
        let page = self.client.page(&request.query("$expand", &expand_job())).await?;
        let marked = page
            .rows::<Row>()
            .map(|row| row.map(|row| Marked { job: only_value(row.single_value_extended_properties), id: row.id }));
        marked.collect()
    }

    /// Creates a contact in `folder` from its properties (Graph: contact), and returns its id.
    ///
    /// # Errors
    /// See [`GraphError`]. After an ambiguous error, [`Contacts::marked`] tells whether the contact was created.
    pub async fn create(&self, folder: &str, properties: &Value) -> Result<String, GraphError> {
        let segments = ["contactFolders", folder, "contacts"];
        let request = self.send(Method::POST, "creating a contact", &segments, properties);
        self.client.json::<Id>(request).await.map(|made| made.id)
    }

    /// Changes properties of a contact. Repeating the same change does no harm.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn change(&self, id: &str, properties: &Value) -> Result<(), GraphError> {
        let request = self.send(Method::PATCH, "changing a contact", &["contacts", id], properties);
        self.client.json::<IgnoredAny>(request).await.map(drop)
    }

    /// Sets the photo of a contact, a JPEG. Repeating it does no harm.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn set_photo(&self, id: &str, photo: Bytes) -> Result<(), GraphError> {
        let segments = ["contacts", id, "photo", "$value"];
        let request = Request { method: Method::PUT, ..self.get("setting the photo of a contact", &segments) };
        let request = request.replayable(true).bytes(HeaderValue::from_static("image/jpeg"), photo);
        self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Deletes a contact as a person would: it can still be recovered. It is not an error if there is none.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn delete(&self, id: &str) -> Result<(), GraphError> {
        let request = Request { method: Method::DELETE, ..self.get("deleting a contact", &["contacts", id]) };
        found(self.client.bytes(request, SMALL_ANSWER_BYTES_MAX).await).map(drop)
    }

    /// Takes back a contact that was just created. It is deleted permanently where the cloud supports that (Graph:
    /// contact, permanentDelete); elsewhere it becomes a deleted contact.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn take_back(&self, id: &str) -> Result<(), GraphError> {
        let segments = ["contacts", id, "permanentDelete"];
        let request = Request { method: Method::POST, ..self.get("taking a contact back", &segments) };
        match found(self.client.bytes(request.replayable(true), SMALL_ANSWER_BYTES_MAX).await) {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() || error.kind() == ErrorKind::Cancelled => Err(error),
            Err(_) => self.delete(id).await,
        }
    }
}

/// Calls `each` with every contact of the next page. Returns false if there is no further page.
async fn take_page(pages: &mut Pages, each: &mut impl FnMut(ExistingContact)) -> Result<bool, GraphError> {
    let Some(page) = pages.next().await? else { return Ok(false) };
    for row in page.rows::<Row>() {
        let Row { id, change_key, single_value_extended_properties, removed, properties } = row?;
        if removed.is_none() {
            each(ExistingContact { mark: only_value(single_value_extended_properties), id, change_key, properties });
        }
    }
    Ok(true)
}
