//! The contacts of a mailbox as a collection: each a vCard for people and programs.
//!
//! What is particular to contacts: the row of a listing is all there is of a contact, so only its photo costs a
//! request. The row, unknown properties included, is the payload of the entry, and a restore is made from that. The
//! file is made from the row and the photo.

mod folders;

use crate::backup::collection::item::Item;
use crate::backup::collection::plan::{Planned, Standing};
use crate::backup::collection::{Collection, FolderNow, Reading, Source};
use crate::backup::context::{Context, Ended, ends_the_run};
use crate::backup::splitter::{SplitError, Splitter};
use crate::backup::splitters::room_of;
use crate::format::entry::{Entry, EntryKind, Facts, Timestamp};
use crate::source::graph::contacts::{Contact, Contacts as Service};
use crate::source::graph::round::Round;
use crate::source::graph::{ErrorKind, GraphError};
use bytes::Bytes;
use std::sync::Arc;

/// The name of the contacts in a user's `Outlook`, in every language.
pub const CONTACTS: &str = "Contacts";

/// Memory that is set aside for the photo of a contact, in bytes. Few have more than a tenth of it, and none has more
/// than four times as much.
const PHOTO_ROOM_BYTES: u64 = 1 << 20;

/// The contacts of a mailbox.
pub struct Contacts {
    service: Service,
}

/// What a contact has beside its row.
pub struct Body {
    photo: Option<Bytes>,
}

impl Contacts {
    /// Names the contacts of the user with the id `user`.
    pub fn new(context: &Context, user: &str) -> Self {
        Self { service: Service::new(context.client.clone(), user) }
    }
}

impl Item for Contact {
    fn id(&self) -> &str {
        &self.row.id
    }

    fn version(&self) -> Option<&str> {
        self.row.change_key.as_deref()
    }

    fn folder(&self) -> Option<&str> {
        self.row.parent_folder_id.as_deref()
    }

    fn date(&self) -> Option<i64> {
        self.row.date()
    }

    fn is_removed(&self) -> bool {
        self.row.removed.is_some()
    }

    fn is_whole(&self) -> bool {
        Contact::is_whole(self)
    }

    fn json(&self) -> &str {
        self.raw.get()
    }
}

impl Collection for Contacts {
    type Item = Contact;
    type Body = Body;
    type Extra = ();

    const ITEMS: &'static str = "contacts";
    const LISTING: &'static str = "listing contacts";
    const UNFINISHED: &'static [u8] = b"\0contacts\0";

    async fn plan(&self, context: &Context, standing: &Standing<'_>) -> Result<Planned, GraphError> {
        folders::plan(context, &self.service, standing).await
    }

    async fn exists(&self) -> Result<bool, GraphError> {
        Ok(self.service.default_folder().await?.is_some())
    }

    async fn folder(&self, _context: &Context, id: &str) -> Result<Option<FolderNow>, GraphError> {
        let folder = self.service.folder(id).await?;
        Ok(folder.map(|folder| FolderNow { parent: folder.parent_folder_id, is_wanted: true }))
    }

    fn may_follow(&self, link: &str) -> bool {
        self.service.may_follow(link)
    }

    fn changes(&self, folder: &str, link: Option<&str>) -> Round<Contact> {
        self.service.changes(folder, link)
    }

    fn listing(&self, folder: &str) -> Round<Contact> {
        self.service.listing(folder)
    }

    async fn item(&self, id: &str) -> Result<Option<Contact>, GraphError> {
        self.service.contact(id).await
    }

    fn room(&self, contact: &Contact) -> u32 {
        room_of(Some(contact.raw.get().len() as u64 + PHOTO_ROOM_BYTES))
    }

    async fn read(
        &self,
        _context: &Arc<Context>,
        contact: &Contact,
        failed_before: bool,
    ) -> Result<Reading<Body>, Ended> {
        let id = &contact.row.id;
        let error = match self.service.photo(id).await {
            Ok(photo) => return Ok(Reading::New(Body { photo })),
            Err(error) if ends_the_run(&error) => return Err(error.into()),
            Err(error) => error,
        };
        match error.kind() {
            // Other contacts of this user will fail in the same way.
            ErrorKind::Throttled | ErrorKind::Denied => Err(Ended::Mailbox(error)),
            ErrorKind::Unavailable if !failed_before => match self.service.contact(id).await {
                Ok(None) => Ok(Reading::Gone),
                Err(second) if ends_the_run(&second) || second.is_transient() => Err(second.into()),
                Ok(Some(_)) | Err(_) => Ok(Reading::Failed(error.to_string())),
            },
            _ => Ok(Reading::Failed(error.to_string())),
        }
    }

    fn name(&self, contact: &Contact) -> String {
        contact.card(None).file_name()
    }

    fn entry(
        &self,
        splitter: &mut Splitter,
        contact: &Contact,
        source: Source<Body>,
        _extra: &mut (),
    ) -> Result<Entry, SplitError> {
        let content = match source {
            Source::Known(entry) => entry.content().cloned().unwrap_or_default(),
            Source::New(Body { photo }) => splitter.split_made(&contact.card(photo).vcard())?,
        };
        let mtime = Timestamp { secs: contact.row.date().unwrap_or(0), nanos: 0 };
        let mut entry = Entry::new(b"", EntryKind::File(content), mtime);
        // Subject, sender and date are facts of mails. An entry that has them is taken for a mail.
        entry.facts = Facts {
            source_id: Some(contact.row.id.clone()),
            change_key: contact.row.change_key.clone(),
            ..Facts::default()
        };
        Ok(entry)
    }
}
