//! The truth: the content of a mailbox in a form that can be compared byte for byte.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Value, json};

use crate::mail::json::{Shape, View};
use crate::mime::{Attachment, Payload};
use crate::odata::Select;
use crate::server::Version;
use crate::tenant::id::{IdFormat, MessageKey};
use crate::tenant::{Folder, ItemKind, Occurrence, Tenant, TenantError};
use crate::{calendar, contacts, todo};

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

/// A calendar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueCalendar {
    /// Id, which is the same in both formats.
    pub id: String,
    /// Its name.
    pub name: String,
    /// True if it is the default calendar.
    pub is_default: bool,
    /// Name and address of its owner, if it is that of somebody else.
    pub owner: Option<(String, String)>,
    /// Name of its group, if it is not in the default one.
    pub group: Option<String>,
    /// True if its user cannot change it.
    pub read_only: bool,
}

/// An attachment of an event.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueAttachment {
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// True if it is shown inside the body.
    pub inline: bool,
    /// The id by which the body refers to it.
    pub content_id: Option<String>,
    /// Its bytes, the attached item as JSON, or the link.
    #[serde(serialize_with = "as_base64")]
    pub bytes: Vec<u8>,
}

/// An exception of a series.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueException {
    /// Immutable id, which is valid until the pattern of the series changes.
    pub id: String,
    /// All its properties as v1.0 shows them with times in UTC, except for its id, its etag and that of its series.
    pub properties: Value,
    /// Its attachments.
    pub attachments: Vec<TrueAttachment>,
}

/// An appointment or a series.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueEvent {
    /// Immutable id.
    pub id: String,
    /// Id of its calendar. An event that was deleted is in a mail folder, such as Deleted Items.
    pub calendar: String,
    /// All its properties as v1.0 shows them with times in UTC and the unchanged HTML of its body, except for its id and
    /// its etag.
    pub properties: Value,
    /// Extended properties that clients set, by their canonical id.
    pub extended: BTreeMap<String, Value>,
    /// Its attachments.
    pub attachments: Vec<TrueAttachment>,
    /// Changed occurrences by their day in the zone of the series, such as `2026-03-02`.
    pub exceptions: BTreeMap<String, TrueException>,
    /// The days of deleted occurrences.
    pub cancelled: Vec<String>,
}

/// A task list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueTaskList {
    /// Id.
    pub id: String,
    /// Its name. Several lists may have the same.
    pub name: String,
    /// `defaultList`, `flaggedEmails` or `none`.
    pub well_known: String,
    /// True if the user owns it.
    pub is_owner: bool,
    /// True if it is shared.
    pub is_shared: bool,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrueTask {
    /// Id, which is valid until the task moves.
    pub id: String,
    /// Id of its list. A task that was deleted is in a mail folder, such as Deleted Items.
    pub list: String,
    /// All its properties as Graph shows them, except for its id. The etag, which is new after every change, is there.
    pub properties: Value,
    /// Its steps, without their ids.
    pub checklist: Vec<Value>,
    /// Its links, without their ids.
    pub links: Vec<Value>,
    /// Its attachments.
    pub attachments: Vec<TrueAttachment>,
}

/// The true state of a mailbox: folders sorted by path, items sorted by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Every folder for messages.
    pub folders: Vec<TrueFolder>,
    /// Every folder for contacts. The path of the default folder is its name in the language of the mailbox.
    pub contact_folders: Vec<TrueFolder>,
    /// Every message.
    pub messages: Vec<TrueMessage>,
    /// Every contact.
    pub contacts: Vec<TrueContact>,
    /// Every calendar, the default one first.
    pub calendars: Vec<TrueCalendar>,
    /// Every appointment and series.
    pub events: Vec<TrueEvent>,
    /// Every task list, the default one first and that of flagged messages last.
    pub task_lists: Vec<TrueTaskList>,
    /// Every task. Flagged messages, which have a list of their own, are not among them.
    pub tasks: Vec<TrueTask>,
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
            calendars: self.true_calendars(user)?,
            events: self.true_events(user)?,
            task_lists: self.true_task_lists(user)?,
            tasks: self.true_tasks(user)?,
        })
    }

    /// Returns the folders for messages of a mailbox, sorted by path.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_folders(&self, user: &str) -> Result<Vec<TrueFolder>, TenantError> {
        self.folders_by(user, |folder| folder.holds() == ItemKind::Message)
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

    /// Returns the calendars of a mailbox, the default one first.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_calendars(&self, user: &str) -> Result<Vec<TrueCalendar>, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let folders = mailbox.calendars().into_iter().filter_map(|key| Some((key, mailbox.folder(key)?)));
            let calendars = folders.map(|(key, folder)| TrueCalendar {
                id: mailbox.folder_id(key),
                name: folder.name.clone(),
                is_default: folder.well_known.is_some(),
                owner: folder.calendar.owner.clone(),
                group: folder.calendar.group.clone(),
                read_only: folder.calendar.read_only,
            });
            calendars.collect()
        })
    }

    /// Returns the appointments and series of a mailbox, sorted by immutable id.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_events(&self, user: &str) -> Result<Vec<TrueEvent>, TenantError> {
        let owner = self.user(user).ok_or_else(|| TenantError::NoUser(user.to_owned()))?;
        let shape = calendar::json::Shape::whole(&owner);
        let properties = |view: &calendar::json::View| {
            let mut properties = shape.event(view);
            if let Some(object) = properties.as_object_mut() {
                object.retain(|name, _| !["id", "@odata.etag", "seriesMasterId", "webLink"].contains(&name.as_str()));
            }
            properties
        };
        let mut events = self.with_mailbox(user, |mailbox| {
            let events = mailbox.items_of(ItemKind::Event).map(|(key, record)| {
                let view = calendar::json::View::new(mailbox, Occurrence { event: key, day: None }, record);
                let event = view.event();
                let exceptions = event.exceptions.iter().map(|(day, exception)| {
                    let view = view.on(*day);
                    let exception = TrueException {
                        id: view.id(IdFormat::Immutable),
                        properties: properties(&view),
                        attachments: true_attachments(&exception.appointment.attachments),
                    };
                    (day.to_string(), exception)
                });
                TrueEvent {
                    id: view.id(IdFormat::Immutable),
                    calendar: mailbox.folder_id(record.folder),
                    properties: properties(&view),
                    extended: record.extra.as_deref().map(|extra| extra.extended.clone()).unwrap_or_default(),
                    attachments: true_attachments(&event.appointment.attachments),
                    exceptions: exceptions.collect(),
                    cancelled: event.cancelled.iter().map(ToString::to_string).collect(),
                }
            });
            events.collect::<Vec<_>>()
        })?;
        events.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(events)
    }

    /// Returns the task lists of a mailbox, the default one first and that of flagged messages last.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_task_lists(&self, user: &str) -> Result<Vec<TrueTaskList>, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let folders = mailbox.task_lists().into_iter().filter_map(|key| Some((key, mailbox.folder(key)?)));
            let lists = folders.map(|(key, folder)| TrueTaskList {
                id: mailbox.folder_id(key),
                name: folder.name.clone(),
                well_known: todo::lists::well_known(folder).to_owned(),
                is_owner: !folder.list.of_others,
                is_shared: folder.list.shared || folder.list.of_others,
            });
            lists.collect()
        })
    }

    /// Returns the tasks of a mailbox, sorted by id.
    ///
    /// # Errors
    /// Those of [`Self::truth`].
    pub fn true_tasks(&self, user: &str) -> Result<Vec<TrueTask>, TenantError> {
        let without_id = |mut part: Value| {
            part.as_object_mut().map(|part| part.remove("id"));
            part
        };
        let views = self.with_mailbox(user, |mailbox| {
            let tasks = mailbox.items_of(ItemKind::Task);
            let tasks = tasks
                .map(|(key, record)| (todo::json::View::new(mailbox, key, record), mailbox.folder_id(record.folder)));
            tasks.collect::<Vec<_>>()
        })?;
        let tasks = views.into_iter().map(|(view, list)| TrueTask {
            id: view.id(),
            list,
            properties: without_id(todo::json::task_json(self, &view, &Select::default())),
            checklist: todo::json::checklist(self, &view).into_iter().map(without_id).collect(),
            links: todo::json::links(self, &view).into_iter().map(without_id).collect(),
            attachments: true_attachments(&view.task(self).attachments),
        });
        let mut tasks: Vec<TrueTask> = tasks.collect();
        tasks.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(tasks)
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

fn true_attachments(attachments: &[Attachment]) -> Vec<TrueAttachment> {
    let one = |attachment: &Attachment| TrueAttachment {
        name: attachment.name.clone(),
        content_type: attachment.content_type.clone(),
        inline: attachment.inline,
        content_id: attachment.content_id.clone(),
        bytes: match &attachment.payload {
            Payload::File(bytes) | Payload::Message(bytes) => bytes.to_vec(),
            Payload::Item(item) => item.to_string().into_bytes(),
            Payload::Reference(url) => url.clone().into_bytes(),
        },
    };
    attachments.iter().map(one).collect()
}

impl Truth {
    /// Returns the lines that the control API streams, each a JSON object: folders, folders for contacts, calendars,
    /// task lists, messages, events, tasks, contacts.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let folders = self.folders.iter().map(|folder| json!({ "folder": folder }));
        let contact_folders = self.contact_folders.iter().map(|folder| json!({ "contactFolder": folder }));
        let messages = self.messages.iter().map(|message| json!({ "message": message }));
        let contacts = self.contacts.iter().map(|contact| json!({ "contact": contact }));
        let calendars = self.calendars.iter().map(|calendar| json!({ "calendar": calendar }));
        let events = self.events.iter().map(|event| json!({ "event": event }));
        let task_lists = self.task_lists.iter().map(|list| json!({ "taskList": list }));
        let tasks = self.tasks.iter().map(|task| json!({ "task": task }));
        let places = folders.chain(contact_folders).chain(calendars).chain(task_lists);
        places.chain(messages).chain(events).chain(tasks).chain(contacts).map(|line| line.to_string())
    }
}
