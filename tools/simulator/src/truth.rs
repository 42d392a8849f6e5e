//! The truth: what a mailbox holds, in a form that two parties can compare byte for byte.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Value, json};

use crate::mail::json::{Shape, View};
use crate::odata::Select;
use crate::server::Version;
use crate::tenant::id::{IdFormat, MessageKey};
use crate::tenant::{Tenant, TenantError};

/// A folder as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueFolder {
    /// Id, the same in both formats.
    pub id: String,
    /// Names from the top that users see; what lies elsewhere begins at the root. The top itself is empty.
    pub path: Vec<String>,
    /// The name that is the same in every language.
    pub well_known: Option<String>,
    /// Listed on request only.
    pub hidden: bool,
    /// Whether it shows messages that live elsewhere.
    pub search: bool,
    /// Whether it lies under the top that users see.
    pub visible: bool,
}

/// A message as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueMessage {
    /// Immutable id.
    pub id: String,
    /// Id of its folder.
    pub folder: String,
    /// The bytes that `$value` gives.
    #[serde(serialize_with = "as_base64")]
    pub mime: Vec<u8>,
    /// `isRead`, `flag`, `categories` and the like, as Graph shows them.
    pub properties: Value,
}

/// A mailbox as it is: folders by path, messages by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Every folder.
    pub folders: Vec<TrueFolder>,
    /// Every message.
    pub messages: Vec<TrueMessage>,
}

fn as_base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// What of a message is no content and yet worth keeping.
const PROPERTIES: &str = "changeKey,isRead,isDraft,flag,categories,importance,inferenceClassification,receivedDateTime,\
    sentDateTime,createdDateTime,internetMessageId,subject,hasAttachments";

impl Tenant {
    /// Returns what a user's mailbox holds, with all its bytes in memory; see [`Self::true_messages`] for large ones.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user or mailbox.
    pub fn truth(&self, user: &str) -> Result<Truth, TenantError> {
        Ok(Truth { folders: self.true_folders(user)?, messages: self.true_messages(user)?.collect() })
    }

    /// Returns the folders of a mailbox, by path.
    ///
    /// # Errors
    /// As [`Self::truth`].
    pub fn true_folders(&self, user: &str) -> Result<Vec<TrueFolder>, TenantError> {
        let mut folders = self.with_mailbox(user, |mailbox| {
            let top = mailbox.well_known("msgfolderroot");
            let folders = mailbox.folders().map(|(key, folder)| TrueFolder {
                id: mailbox.folder_id(key),
                path: mailbox.path(key),
                well_known: folder.well_known.map(str::to_owned),
                hidden: folder.hidden,
                search: folder.search.is_some(),
                visible: top.is_some_and(|top| mailbox.lies_in(key, top)),
            });
            folders.collect::<Vec<_>>()
        })?;
        folders.sort_by(|a, b| (&a.path, &a.id).cmp(&(&b.path, &b.id)));
        Ok(folders)
    }

    /// Returns the messages of a mailbox, by immutable id, one at a time: each as it is when its turn comes.
    ///
    /// # Errors
    /// As [`Self::truth`].
    pub fn true_messages(&self, user: &str) -> Result<impl Iterator<Item = TrueMessage> + '_, TenantError> {
        let mut keys = self.with_mailbox(user, |mailbox| {
            let guid = mailbox.guid;
            let ids =
                mailbox.messages().map(|(key, _)| (crate::tenant::message_id(&guid, key, 0, IdFormat::Immutable), key));
            ids.collect::<Vec<(String, MessageKey)>>()
        })?;
        keys.sort();
        let user = user.to_owned();
        Ok(keys.into_iter().filter_map(move |(id, key)| {
            let (view, folder) = self
                .with_mailbox(&user, |mailbox| {
                    let record = mailbox.message(key)?;
                    Some((View::new(mailbox, key, record), mailbox.folder_id(record.folder)))
                })
                .ok()??;
            Some(self.true_message(id, folder, &view))
        }))
    }

    fn true_message(&self, id: String, folder: String, view: &View) -> TrueMessage {
        let shape = Shape {
            select: Select::parse(Some(PROPERTIES)),
            format: IdFormat::Immutable,
            extended: Vec::new(),
            multi_extended: Vec::new(),
            text_body: false,
            unsafe_html: true,
            version: Version::V1,
        };
        let mut properties = shape.message(self, view);
        if let Some(object) = properties.as_object_mut() {
            object.remove("id");
            object.remove("@odata.etag");
        }
        TrueMessage { id, folder, mime: self.mime(&view.guid, view.key, &view.record).to_vec(), properties }
    }
}

impl Truth {
    /// Returns the lines that the control API streams: folders, then messages, as one JSON object each.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let folders = self.folders.iter().map(|folder| json!({ "folder": folder }).to_string());
        folders.chain(self.messages.iter().map(|message| json!({ "message": message }).to_string()))
    }
}
