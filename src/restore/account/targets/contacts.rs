//! The contacts of a mailbox as a target.
//!
//! What is particular to contacts: one request creates a contact with all its properties, and another one sets the
//! photo. The properties come from what the service said when the contact was backed up; a vCard without that is read
//! instead ([`card`]). The service refuses a contact with an address that is not valid, so such an address goes to the
//! notes.

mod card;
mod fields;

use self::fields::Fields;
use super::super::context::{Context, MailboxContext};
use super::super::existing_items::{ExistingItem, Likeness};
use super::super::outcome::ItemError;
use super::super::retry::{ATTEMPTS_MAX, wait};
use super::super::route::CONTACTS;
use super::super::target::{ChildFolder, EachItem, FolderRule, Loss, MadeFolder, NewItem, Stage, Target};
use crate::content::contact::photo_of;
use crate::format::entry::Entry;
use crate::runtime::guarded;
use crate::source::graph::contacts::{Contact, ContactFolder, Contacts, DEFAULT_FOLDER, ExistingContact};
use crate::source::graph::write::{Marked, same_name};
use crate::source::graph::{Client, ErrorKind, GraphError};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The loss of a contact with an address that the service refused.
const ADDRESS_IN_NOTES: &str = "contacts have an e-mail address in their notes instead of its field";
const ADDRESS_REFUSED: &str = "the service accepted the contacts only without it";
/// The loss of a contact that was read from a vCard.
const NOT_IN_SERVICE: &str = "contacts have something in their notes instead of its field";
const TOO_MANY: &str = "their vCards have more addresses or telephones than the service holds";
const WITHOUT_PHOTO: &str = "contacts have no photo";
const NO_JPEG: &str = "the service takes only JPEG, and the photos in their vCards are something else";
/// The bytes that every JPEG begins with.
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];

/// The contacts of a mailbox.
pub struct ContactsTarget {
    contacts: Contacts,
    well_known: OnceCell<Arc<HashMap<&'static str, String>>>,
    losses: Mutex<BTreeMap<Loss, u64>>,
    /// The ids of contacts whose losses were counted.
    counted: Mutex<HashSet<String>>,
}

/// A contact that was read from the snapshot.
pub(in crate::restore::account) struct ContactItem {
    fields: Fields,
    /// The photo, a JPEG.
    photo: Option<Bytes>,
    losses: Vec<Loss>,
}

impl ContactsTarget {
    /// Names the contacts of the user with this id.
    pub fn new(client: Client, user: &str) -> Self {
        let contacts = Contacts::new(client, user);
        Self { contacts, well_known: OnceCell::new(), losses: Mutex::default(), counted: Mutex::default() }
    }

    /// Counts the losses of a contact that was restored.
    fn count(&self, id: &str, losses: impl Iterator<Item = Loss>) {
        let losses: Vec<_> = losses.collect();
        if !losses.is_empty() && self.counted.lock().insert(id.to_owned()) {
            let mut all = self.losses.lock();
            losses.into_iter().for_each(|loss| *all.entry(loss).or_default() += 1);
        }
    }
}

/// Returns the properties of an item of the snapshot, and its losses.
fn read_fields(context: &Context, entry: &Entry) -> Result<card::CardFields, ItemError> {
    let content = entry.content().ok_or_else(|| ItemError::Item("it is no file".to_owned()))?;
    if let Some(payload) = &entry.payload {
        let json = context.contents.read(payload)?;
        if let Ok(Value::Object(properties)) = serde_json::from_slice(&json) {
            return Ok(card::CardFields { fields: Fields::new(&properties), has_more: false });
        }
    }
    let vcard = context.contents.read(content)?;
    guarded(|| card::read(&vcard))?.map_err(ItemError::Item)
}

/// Returns true if the name of an entry is that of a vCard.
pub(super) fn is_named_as_contact(entry: &Entry) -> bool {
    entry.name.to_ascii_lowercase().ends_with(b".vcf")
}

fn existing(contact: ExistingContact) -> ExistingItem {
    let likeness = Some(Fields::new(&contact.properties).likeness());
    ExistingItem { id: contact.id, version: contact.change_key, mark: contact.mark, likeness }
}

fn properties_of(contact: &Contact) -> Map<String, Value> {
    serde_json::from_str(contact.raw.get()).unwrap_or_default()
}

impl Target for ContactsTarget {
    type Item = ContactItem;

    const NOT_OF_THIS_KIND: &'static str = "it is no contact";
    const ROOT: &'static str = DEFAULT_FOLDER;
    // Contacts cannot be asked for by what they say, so their folders are always listed.
    const ASKED_MAX: u64 = 0;

    fn is_of_this_kind(entry: &Entry) -> bool {
        is_named_as_contact(entry)
    }

    fn folder_rule(well_known: &str) -> FolderRule {
        if well_known == DEFAULT_FOLDER { FolderRule::SameWellKnown } else { FolderRule::SameName }
    }

    fn folder_meant(name: &str) -> Option<&'static str> {
        same_name(name, CONTACTS).then_some(DEFAULT_FOLDER)
    }

    async fn well_known_folders(&self) -> Result<Arc<HashMap<&'static str, String>>, GraphError> {
        let ask = async || {
            let default = self.contacts.default_folder().await?;
            Ok::<_, GraphError>(Arc::new(default.into_iter().map(|folder| (DEFAULT_FOLDER, folder.id)).collect()))
        };
        self.well_known.get_or_try_init(ask).await.cloned()
    }

    async fn child_folders(&self, parent: &str) -> Result<Vec<ChildFolder>, GraphError> {
        let folder =
            |folder: ContactFolder| ChildFolder { id: folder.id, name: folder.display_name.unwrap_or_default() };
        Ok(self.contacts.folders_in(parent).await?.into_iter().map(folder).collect())
    }

    async fn make_folder(&self, parent: &str, name: &str) -> Result<MadeFolder, GraphError> {
        let made = self.contacts.make_folder(parent, name).await?;
        Ok(MadeFolder { id: made.id, is_new: made.is_new })
    }

    fn likeness(context: &Context, entry: &Entry) -> Option<Likeness> {
        read_fields(context, entry).ok().map(|read| read.fields.likeness())
    }

    async fn list_existing(&self, folder: &str, each: EachItem<'_>) -> Result<(), GraphError> {
        self.contacts.existing(folder, |contact| each(existing(contact))).await
    }

    async fn find_existing(&self, folder: &str, _entry: &Entry, each: EachItem<'_>) -> Result<(), GraphError> {
        self.list_existing(folder, each).await
    }

    async fn existing_item(&self, id: &str, folder: &str) -> Result<Option<ExistingItem>, GraphError> {
        let contact = match self.contacts.contact(id).await {
            // The id comes from another organisation.
            Err(error) if error.kind() == ErrorKind::BadRequest => None,
            contact => contact?,
        };
        let contact = contact.filter(|contact| contact.row.parent_folder_id.as_deref() == Some(folder));
        Ok(contact.map(|contact| ExistingItem {
            likeness: Some(Fields::new(&properties_of(&contact)).likeness()),
            mark: None,
            version: contact.row.change_key,
            id: contact.row.id,
        }))
    }

    async fn marked(&self, folder: &str, mark: &str) -> Result<Vec<Marked>, GraphError> {
        self.contacts.marked(folder, mark).await
    }

    fn read(context: &Context, entry: &Entry, _folder: &str) -> Result<ContactItem, ItemError> {
        if !Self::is_of_this_kind(entry) {
            return Err(ItemError::Item(Self::NOT_OF_THIS_KIND.to_owned()));
        }
        let card::CardFields { fields, has_more } = read_fields(context, entry)?;
        let content = entry.content().ok_or_else(|| ItemError::Item("it is no file".to_owned()))?;
        let vcard = context.contents.read(content)?;
        let photo = guarded(|| photo_of(&vcard))?;
        let is_jpeg = photo.as_ref().is_none_or(|photo| photo.starts_with(&JPEG));
        let mut losses = Vec::new();
        losses.extend(has_more.then(|| Loss { what: NOT_IN_SERVICE, why: TOO_MANY.to_owned() }));
        losses.extend((!is_jpeg).then(|| Loss { what: WITHOUT_PHOTO, why: NO_JPEG.to_owned() }));
        Ok(ContactItem { fields, photo: photo.filter(|_| is_jpeg).map(Bytes::from), losses })
    }

    fn request(item: &ContactItem) -> Result<NewItem, String> {
        let properties = item.fields.properties().clone();
        Ok(NewItem { properties, parts_left: usize::from(item.photo.is_some()) })
    }

    async fn create(&self, folder: &str, properties: &Value) -> Result<String, GraphError> {
        let refused = match self.contacts.create(folder, properties).await {
            Err(error) if error.status() == Some(400) => error,
            created => return created,
        };
        // The service refuses the whole contact because of one address. It is not created then, so another request may
        // follow at once.
        let all = properties.as_object().cloned().unwrap_or_default();
        let Some(fields) = Fields::new(&all).with_addresses_in_notes() else { return Err(refused) };
        let mut properties = fields.properties().clone();
        properties.extend(all.into_iter().filter(|(name, _)| name == "singleValueExtendedProperties"));
        self.contacts.create(folder, &Value::Object(properties)).await
    }

    async fn change(&self, id: &str, properties: &Value) -> Result<(), GraphError> {
        self.contacts.change(id, properties).await
    }

    async fn complete(
        &self,
        _mailbox: &MailboxContext,
        item: &ContactItem,
        id: &str,
        _parts_left: Option<usize>,
    ) -> Result<bool, ItemError> {
        self.set_photo(item, id).await?;
        Ok(false)
    }

    async fn repair(&self, _mailbox: &MailboxContext, item: &ContactItem, id: &str) -> Result<(), ItemError> {
        self.set_photo(item, id).await
    }

    async fn difference(
        &self,
        item: &ContactItem,
        id: &str,
        folder: &str,
        stage: Stage,
    ) -> Result<Option<String>, GraphError> {
        let Some(contact) = self.contacts.contact(id).await? else {
            return Ok(Some("it is not there".to_owned()));
        };
        // People may have changed a contact since it was restored.
        if stage == Stage::Old {
            return Ok(None);
        }
        let found = Fields::new(&properties_of(&contact));
        let mut differences = item.fields.differences(&found);
        let moved = item.fields.with_addresses_in_notes().filter(|moved| moved.differences(&found).is_empty());
        if moved.is_some() {
            differences.clear();
        }
        if contact.row.parent_folder_id.as_deref() != Some(folder) {
            differences.push("parentFolderId");
        }
        if self.contacts.photo(id).await? != item.photo {
            differences.push("photo");
        }
        if differences.is_empty() {
            let refused = moved.map(|_| Loss { what: ADDRESS_IN_NOTES, why: ADDRESS_REFUSED.to_owned() });
            self.count(id, item.losses.iter().cloned().chain(refused));
            return Ok(None);
        }
        Ok(Some(format!("what was read back differs: {}", differences.join(", "))))
    }

    async fn delete(&self, id: &str) -> Result<(), GraphError> {
        self.contacts.delete(id).await
    }

    async fn take_back(&self, id: &str) -> Result<(), GraphError> {
        self.contacts.take_back(id).await
    }

    fn losses(&self) -> BTreeMap<Loss, u64> {
        self.losses.lock().clone()
    }
}

impl ContactsTarget {
    /// Sets the photo of a contact. A contact that was just created is not known to every server at once.
    async fn set_photo(&self, item: &ContactItem, id: &str) -> Result<(), ItemError> {
        let Some(photo) = &item.photo else { return Ok(()) };
        let mut attempt = 1;
        loop {
            match self.contacts.set_photo(id, photo.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS_MAX => wait(attempt).await,
                set => return Ok(set?),
            }
            attempt += 1;
        }
    }
}
