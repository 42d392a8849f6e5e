//! A tenant: its organisation, its users, their mailboxes, and the contents of messages.
//!
//! Tests use it to inspect and change directly what clients see over HTTP. Each mailbox has a lock of its own, which is
//! never held for long.

mod change;
pub mod contact;
mod contacts;
mod content;
pub mod event;
mod events;
mod folder;
pub mod id;
mod locale;
mod mailbox;
mod message;
pub mod series;
pub mod task;
mod tasks;
mod user;
pub mod zones;

pub use change::{NewMessage, TenantError};
pub use contact::Contact;
pub use contacts::NewContact;
pub use event::{Appointment, CalendarEvent};
pub(crate) use events::event_arrival;
pub use events::{NewCalendar, NewEvent, NewException, Occurrence, occurrence_id};
pub use folder::{CalendarFacts, Event, Folder, ListFacts, Log, Search};
pub use locale::{Locale, UNNAMED};
pub use mailbox::{Arrival, Extended, FolderEvent, Mailbox, MailboxError, ROOT, message_id};
pub use message::{Content, Extra, FlagStatus, Flags, ItemKind, Record, Unreadable};
pub use task::Task;
pub use tasks::NewTask;
pub(crate) use tasks::task_arrival;
pub use user::{Kind, User, UserSpec};

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use strongroom_corpora::rng::Rng;

use crate::Switches;
use crate::library::{Library, Organisation};
use crate::mime::{self, Properties};

/// A tenant of Microsoft 365.
#[derive(Debug)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// The default domain.
    pub domain: String,
    /// Name of the organisation.
    pub display_name: String,
    seed: u64,
    directory: RwLock<Directory>,
    switches: RwLock<Switches>,
    library: Library,
    renderings: AtomicU64,
}

/// All users, and the names by which they are found.
#[derive(Debug, Default)]
struct Directory {
    users: Vec<Arc<User>>,
    /// Users by id and by user principal name in lower case.
    by_name: HashMap<String, Arc<User>>,
    /// Number of the latest change of a user.
    change: u64,
}

impl Tenant {
    /// Returns the tenant that `organisation` describes, but without users. `generate::populate` adds them.
    ///
    /// # Errors
    /// Fails if the corpus cannot be listed.
    pub fn new(organisation: &Organisation, switches: Switches) -> std::io::Result<Self> {
        let mut rng = Rng::for_purpose(organisation.seed, "tenant");
        Ok(Self {
            id: rng.uuid(),
            domain: "contoso.com".to_owned(),
            display_name: "Contoso".to_owned(),
            seed: organisation.seed,
            directory: RwLock::default(),
            switches: RwLock::new(switches),
            library: Library::new(organisation)?,
            renderings: AtomicU64::new(0),
        })
    }

    /// Returns the seed from which the tenant was generated.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the source of generated contents.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Returns how the service behaves where the documentation leaves it open.
    pub fn switches(&self) -> Switches {
        self.switches.read().clone()
    }

    /// Changes how the service behaves.
    pub fn set_switches(&self, switches: Switches) {
        for user in self.all_users() {
            if let Some(mailbox) = user.mailbox() {
                mailbox.lock().moves_show_only_as_removal = switches.moves_show_only_as_removal;
            }
        }
        *self.switches.write() = switches;
    }

    /// Returns all users, including deleted ones.
    pub fn all_users(&self) -> Vec<Arc<User>> {
        self.directory.read().users.clone()
    }

    /// Returns all users that the directory lists.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.directory.read().users.iter().filter(|user| !user.is_deleted()).cloned().collect()
    }

    /// Returns the user with this id or user principal name; case does not matter.
    pub fn user(&self, id_or_name: &str) -> Option<Arc<User>> {
        let directory = self.directory.read();
        let found = directory.by_name.get(id_or_name).or_else(|| directory.by_name.get(&id_or_name.to_lowercase()));
        found.filter(|user| !user.is_deleted()).cloned()
    }

    /// Returns the MIME bytes of a message, as `$value` returns them.
    pub fn mime(&self, mailbox: &id::MailboxGuid, key: id::MessageKey, record: &Record) -> Arc<Vec<u8>> {
        let mime = match &record.content {
            Content::Generated(number) => Arc::new(self.library.generated(*number)),
            Content::Corpus(number) => Arc::new(self.library.corpus(*number)),
            Content::Mime(mime) => Arc::clone(mime),
            Content::Properties(properties) => {
                let identity = message_id(mailbox, key, 0, id::IdFormat::Immutable);
                let mut dated = Properties::clone(properties);
                dated.sent = dated.sent.or(Some(record.created));
                let class = record.extra.as_ref().and_then(|extra| extra.class.as_deref());
                Arc::new(mime::render_as(&dated, class, &identity))
            }
            // These have no MIME. Exports carry a document instead.
            Content::Contact(contact) => return Arc::new(contact.to_json()),
            Content::Event(event) => return Arc::new(event.to_json()),
            Content::Task(task) => return Arc::new(task.to_json()),
        };
        if self.switches.read().unstable_mime {
            let nth = self.renderings.fetch_add(1, Ordering::Relaxed);
            return Arc::new(mime::rebound(&mime, nth));
        }
        mime
    }

    /// Returns the properties of a message's content.
    pub fn properties(&self, record: &Record) -> Arc<Properties> {
        match &record.content {
            Content::Properties(properties) => Arc::clone(properties),
            Content::Mime(mime) => Arc::new(mime::parse(mime)),
            Content::Generated(number) => Arc::new(mime::parse(&self.library.generated(*number))),
            Content::Corpus(number) => Arc::new(mime::parse(&self.library.corpus(*number))),
            Content::Contact(contact) => {
                let subject = contact.text("displayName").to_owned();
                Arc::new(Properties { subject, ..Properties::default() })
            }
            Content::Task(task) => {
                let subject = task.text("title").to_owned();
                Arc::new(Properties { subject, ..Properties::default() })
            }
            Content::Event(event) => {
                let subject = event.appointment.text("subject").to_owned();
                Arc::new(Properties { subject, ..Properties::default() })
            }
        }
    }

    /// Makes every delta token invalid, as if the service had forgotten its state.
    pub fn expire_deltas(&self) {
        for user in self.all_users() {
            if let Some(mailbox) = user.mailbox() {
                mailbox.lock().generation += 1;
            }
        }
    }
}
