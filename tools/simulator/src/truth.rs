//! The truth: the content of a mailbox in a form that can be compared byte for byte.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Value, json};

use crate::contacts;
use crate::mail::json::{Shape, View};
use crate::odata::Select;
use crate::server::Version;
use crate::tenant::id::{IdFormat, MessageKey};
use crate::tenant::{Folder, Tenant, TenantError};

/// The true state of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueFolder {
    /// Id, which is the same in both formats.
    pub id: String,
    /// Names on the path from the top folder that users see, or from the root for folders outside of it. Empty for the
    /// top folder itself.
    pub path: Vec<String>,
    /// The name that is the same in every language.
    pub well_known: Option<String>,
    /// True if it is listed only on request.
    pub hidden: bool,
    /// True if it shows messages of other folders.
    pub search: bool,
    /// True if it is inside the top folder that users see.
    pub visible: bool,
}

/// The true state of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueMessage {
    /// Immutable id.
    pub id: String,
    /// Id of its folder.
    pub folder: String,
    /// The bytes that `$value` returns.
    #[serde(serialize_with = "as_base64")]
    pub mime: Vec<u8>,
    /// `isRead`, `flag`, `categories` and other properties, as Graph shows them.
    pub properties: Value,
}

/// The true state of a contact.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueContact {
    /// Immutable id.
    pub id: String,
    /// Id of its folder. A contact that was deleted is in a mail folder, such as Deleted Items.
    pub folder: String,
    /// All its properties as v1.0 shows them, except for its id, its etag and its folder.
    pub properties: Value,
    /// Extended properties that clients set, by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// The bytes of its photo.
    #[serde(serialize_with = "as_optional_base64")]
    pub photo: Option<Vec<u8>>,
}

/// The true state of a mailbox: folders sorted by path, messages and contacts sorted by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Every folder, except for those for contacts.
    pub folders: Vec<TrueFolder>,
    /// Every folder for contacts. The path of the default folder is its name in the language of the mailbox.
    pub contact_folders: Vec<TrueFolder>,
    /// Every message.
    pub messages: Vec<TrueMessage>,
    /// Every contact.
    pub contacts: Vec<TrueContact>,
}

fn as_base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn as_optional_base64<S: serde::Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(serializer)
}

/// Properties of a message that are not in its content but must be restored or compared.
const PROPERTIES: &str = "changeKey,isRead,isDraft,flag,categories,importance,inferenceClassification,receivedDateTime,\
    sentDateTime,createdDateTime,internetMessageId,subject,hasAttachments";

impl Tenant {
    /// Returns the truth about a user's mailbox, with all its bytes in memory. For large mailboxes see
    /// [`Self::true_messages`].
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user or mailbox.
    pub fn truth(&self, user: &str) -> Result<Truth, TenantError> {
        Ok(Truth {
            folders: self.true_folders(user)?,
            contact_folders: self.true_contact_folders(user)?,
            messages: self.true_messages(user)?.collect(),
            contacts: self.true_contacts(user)?,
        })
    }

    /// Returns the folders of a mailbox, except for those for contacts, sorted by path.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_folders(&self, user: &str) -> Result<Vec<TrueFolder>, TenantError> {
        self.folders_by(user, |folder| !folder.holds_contacts())
    }

    /// Returns the folders for contacts of a mailbox, sorted by path.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_contact_folders(&self, user: &str) -> Result<Vec<TrueFolder>, TenantError> {
        self.folders_by(user, Folder::holds_contacts)
    }

    fn folders_by(&self, user: &str, wanted: impl Fn(&Folder) -> bool) -> Result<Vec<TrueFolder>, TenantError> {
        let mut folders = self.with_mailbox(user, |mailbox| {
            let top = mailbox.well_known("msgfolderroot");
            let folders = mailbox.folders().filter(|(_, folder)| wanted(folder)).map(|(key, folder)| TrueFolder {
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

    /// Returns the messages of a mailbox one at a time, sorted by immutable id. Each is in its state at the time it is
    /// returned.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
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

    /// Returns the contacts of a mailbox, sorted by immutable id.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_contacts(&self, user: &str) -> Result<Vec<TrueContact>, TenantError> {
        let mut contacts = self.with_mailbox(user, |mailbox| {
            let shape = contacts::json::Shape::whole();
            let contacts = mailbox.contacts().map(|(key, record)| {
                let view = contacts::json::View::new(mailbox, key, record);
                let mut properties = shape.contact(&view);
                if let Some(object) = properties.as_object_mut() {
                    object.retain(|name, _| !["id", "@odata.etag", "parentFolderId"].contains(&name.as_str()));
                }
                TrueContact {
                    id: view.id(IdFormat::Immutable),
                    folder: mailbox.folder_id(record.folder),
                    properties,
                    extended: record.extra.as_deref().map(|extra| extra.extended.clone()).unwrap_or_default(),
                    photo: record.contact().and_then(|contact| contact.photo.as_deref().cloned()),
                }
            });
            contacts.collect::<Vec<_>>()
        })?;
        contacts.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(contacts)
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
    /// Returns the lines that the control API streams, each a JSON object: folders, folders for contacts, messages,
    /// contacts.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let folders = self.folders.iter().map(|folder| json!({ "folder": folder }));
        let contact_folders = self.contact_folders.iter().map(|folder| json!({ "contactFolder": folder }));
        let messages = self.messages.iter().map(|message| json!({ "message": message }));
        let contacts = self.contacts.iter().map(|contact| json!({ "contact": contact }));
        folders.chain(contact_folders).chain(messages).chain(contacts).map(|line| line.to_string())
    }
}
