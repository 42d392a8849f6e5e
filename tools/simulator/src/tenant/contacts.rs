//! Contacts of a mailbox, and direct changes of them for tests and the control API.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::contact::Contact;
use super::id::{FolderKey, IdFormat, MessageKey};
use super::{Arrival, Content, Extra, Flags, Folder, Mailbox, MailboxError, Record, Tenant, TenantError, message_id};
use crate::clock;

/// A contact to add to a mailbox, as if its user had written it.
#[derive(Clone, Debug, Default)]
pub struct NewContact {
    /// Its fields in the form of v1.0. They are not checked: see [`Contact::new`].
    pub fields: Map<String, Value>,
    /// The bytes of its photo.
    pub photo: Option<Vec<u8>>,
    /// Names of categories.
    pub categories: Vec<String>,
    /// When it was created, in seconds since 1970; now if absent.
    pub created: Option<i64>,
}

impl NewContact {
    /// Returns a contact with these fields.
    ///
    /// # Panics
    /// Panics if `fields` is not an object.
    pub fn with(fields: Value) -> Self {
        let Value::Object(fields) = fields else { panic!("the fields of a contact are an object, not {fields}") };
        Self { fields, ..Self::default() }
    }

    /// Returns the item to add to `folder`.
    pub fn arrival(self, folder: FolderKey) -> Arrival {
        let Self { fields, photo, categories, created } = self;
        let created = created.unwrap_or_else(clock::now);
        let contact = Contact { photo: photo.map(Arc::new), ..Contact::new(fields) };
        let extra = (!categories.is_empty()).then(|| Arc::new(Extra { categories, ..Extra::default() }));
        Arrival {
            folder,
            content: Content::Contact(Arc::new(contact)),
            // A contact counts as read.
            flags: Flags { read: true, ..Flags::default() },
            received: created,
            created,
            extra,
        }
    }
}

impl Record {
    /// Returns the content of a contact; `None` for a message.
    pub fn contact(&self) -> Option<&Arc<Contact>> {
        match &self.content {
            Content::Contact(contact) => Some(contact),
            _ => None,
        }
    }

    /// Returns the content of a contact, for changes; `None` for a message.
    pub fn contact_mut(&mut self) -> Option<&mut Contact> {
        match &mut self.content {
            Content::Contact(contact) => Some(Arc::make_mut(contact)),
            _ => None,
        }
    }
}

impl Mailbox {
    /// Returns the default folder for contacts and all folders for contacts inside it, parents before children.
    pub fn contact_folders(&self) -> Vec<FolderKey> {
        let all = self.well_known("contacts").map(|key| self.subtree(key)).unwrap_or_default();
        all.into_iter().filter(|key| self.folder(*key).is_some_and(Folder::holds_contacts)).collect()
    }

    /// Adds a folder for contacts under `parent`.
    ///
    /// # Errors
    /// Those of [`Self::add_folder`].
    pub fn add_contact_folder(&mut self, parent: FolderKey, name: &str) -> Result<FolderKey, MailboxError> {
        let key = self.add_folder(parent, name, false)?;
        self.set_folder_class(key, "IPF.Contact".to_owned())?;
        Ok(key)
    }

    /// Returns the contacts of a folder, in the order of their creation.
    pub fn contacts_in(&self, folder: FolderKey) -> Vec<MessageKey> {
        self.contacts().filter(|(_, record)| record.folder == folder).map(|(key, _)| key).collect()
    }

    /// Sets or removes the photo of a contact. If the change `shows`, the contact gets a new change key and a row in
    /// deltas.
    ///
    /// # Errors
    /// [`MailboxError::NotFound`] if there is no such contact.
    pub fn set_photo(
        &mut self,
        key: MessageKey,
        photo: Option<Arc<Vec<u8>>>,
        shows: bool,
        now: i64,
    ) -> Result<(), MailboxError> {
        let set = |record: &mut Record| {
            if let Some(contact) = record.contact_mut() {
                contact.photo = photo;
            }
        };
        if shows { self.change_message(key, now, set) } else { self.change_unnoticed(key, set) }
    }
}

impl Tenant {
    fn with_contact<T>(
        &self,
        user: &str,
        contact: &str,
        f: impl FnOnce(&mut Mailbox, MessageKey) -> Result<T, TenantError>,
    ) -> Result<T, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let key = mailbox.resolve_contact(contact).ok_or_else(|| TenantError::NoContact(contact.to_owned()))?;
            f(mailbox, key)
        })?
    }

    /// Adds a folder for contacts under `parent` (an id, or `contacts` for the default folder) and returns its id.
    ///
    /// Its other changes are those of mail folders, such as [`Tenant::rename_folder`] and [`Tenant::move_folder`].
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or parent, or if a sibling has the name.
    pub fn add_contact_folder(&self, user: &str, parent: &str, name: &str) -> Result<String, TenantError> {
        self.with_folder(user, parent, |mailbox, parent| {
            let key = mailbox.add_contact_folder(parent, name)?;
            Ok(mailbox.folder_id(key))
        })
    }

    /// Adds a contact to a folder (an id, or `contacts` for the default folder) and returns its immutable id.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or folder.
    pub fn add_contact(&self, user: &str, folder: &str, contact: NewContact) -> Result<String, TenantError> {
        self.with_folder(user, folder, |mailbox, folder| {
            let key = mailbox.add_message(contact.arrival(folder))?;
            Ok(message_id(&mailbox.guid, key, 0, IdFormat::Immutable))
        })
    }

    /// Sets fields of a contact; null removes a field.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or contact.
    pub fn change_contact(&self, user: &str, contact: &str, fields: &Map<String, Value>) -> Result<(), TenantError> {
        self.with_contact(user, contact, |mailbox, key| {
            Ok(mailbox.change_message(key, clock::now(), |record| {
                let Some(contact) = record.contact_mut() else { return };
                for (name, value) in fields {
                    match value {
                        Value::Null => drop(contact.fields.remove(name)),
                        value => drop(contact.fields.insert(name.clone(), value.clone())),
                    }
                }
            })?)
        })
    }

    /// Sets or removes the photo of a contact. [`crate::Switches::photo_changes_show`] decides whether deltas show it.
    ///
    /// # Errors
    /// Those of [`Self::change_contact`].
    pub fn set_contact_photo(&self, user: &str, contact: &str, photo: Option<Vec<u8>>) -> Result<(), TenantError> {
        let shows = self.switches().photo_changes_show;
        self.with_contact(user, contact, |mailbox, key| {
            Ok(mailbox.set_photo(key, photo.map(Arc::new), shows, clock::now())?)
        })
    }

    /// Sets the categories of a contact.
    ///
    /// # Errors
    /// Those of [`Self::change_contact`].
    pub fn set_contact_categories(
        &self,
        user: &str,
        contact: &str,
        categories: Vec<String>,
    ) -> Result<(), TenantError> {
        self.with_contact(user, contact, |mailbox, key| {
            let set = |record: &mut Record| Mailbox::extra(record).categories = categories;
            Ok(mailbox.change_message(key, clock::now(), set)?)
        })
    }

    /// Moves a contact to another folder. Its immutable id stays.
    ///
    /// # Errors
    /// Those of [`Self::change_contact`], and [`TenantError::NoFolder`].
    pub fn move_contact(&self, user: &str, contact: &str, target: &str) -> Result<(), TenantError> {
        self.with_contact(user, contact, |mailbox, key| {
            let target = mailbox.resolve_folder(target).ok_or_else(|| TenantError::NoFolder(target.to_owned()))?;
            Ok(mailbox.move_message(key, target, clock::now())?)
        })
    }

    /// Moves a contact to Deleted Items, as deleting it in Outlook does. It can still be read by its immutable id.
    ///
    /// # Errors
    /// Those of [`Self::change_contact`].
    pub fn discard_contact(&self, user: &str, contact: &str) -> Result<(), TenantError> {
        self.move_contact(user, contact, "deleteditems")
    }

    /// Deletes a contact permanently.
    ///
    /// # Errors
    /// Those of [`Self::change_contact`].
    pub fn delete_contact(&self, user: &str, contact: &str) -> Result<(), TenantError> {
        self.with_contact(user, contact, |mailbox, key| Ok(mailbox.remove_message(key)?))
    }
}
