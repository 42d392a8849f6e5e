//! Direct changes of a tenant, for tests and the control API, without the clients' knowledge.

use std::sync::Arc;

use strongroom_corpora::rng::Rng;

use super::id::{FolderKey, IdFormat, MailboxGuid, MessageKey};
use super::{
    Arrival, Content, Extra, FlagStatus, Flags, Kind, Mailbox, MailboxError, Record, Search, Tenant, Unreadable, User,
    UserSpec,
};
use crate::clock;

/// Why a tenant could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// No user has this id or name.
    #[error("there is no user {0}")]
    NoUser(String),
    /// The user has no mailbox.
    #[error("user {0} has no mailbox")]
    NoMailbox(String),
    /// No folder of the mailbox has this id or well-known name.
    #[error("there is no folder {0}")]
    NoFolder(String),
    /// No message of the mailbox has this id.
    #[error("there is no message {0}")]
    NoMessage(String),
    /// No contact of the mailbox has this id.
    #[error("there is no contact {0}")]
    NoContact(String),
    /// No event of the mailbox has this id, or the series has no occurrence on this day.
    #[error("there is no event {0}")]
    NoEvent(String),
    /// No task of the mailbox has this id.
    #[error("there is no task {0}")]
    NoTask(String),
    /// The mailbox refused.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

/// A message to add to a mailbox, as if it had been delivered.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// Its bytes, exactly as `$value` will return them.
    pub mime: Vec<u8>,
    /// When it was received, in seconds since 1970; now if absent.
    pub received: Option<i64>,
    /// True if it was read.
    pub read: bool,
    /// True if it was never sent.
    pub draft: bool,
    /// The follow-up flag.
    pub flag: FlagStatus,
    /// Names of categories.
    pub categories: Vec<String>,
}

impl Tenant {
    /// Adds a user to the directory and returns the id.
    pub fn add_user(&self, mut spec: UserSpec) -> String {
        if !spec.principal_name.contains('@') {
            spec.principal_name = format!("{}@{}", spec.principal_name, self.domain);
        }
        let mut directory = self.directory.write();
        let purpose = format!("user {} {}", directory.users.len(), spec.principal_name);
        let mut rng = Rng::for_purpose(self.seed, &purpose);
        let id = rng.uuid();
        let guid: MailboxGuid = rng.bytes(16).try_into().expect("sixteen bytes");
        let mailbox = spec.kind.has_mailbox().then(|| {
            let mut mailbox = Mailbox::new(guid, spec.locale);
            mailbox.moves_show_only_as_removal = self.switches().moves_show_only_as_removal;
            mailbox
        });
        directory.change += 1;
        let name = spec.principal_name.to_lowercase();
        let user = Arc::new(User::new(id.clone(), directory.change, spec, mailbox));
        directory.by_name.insert(name, Arc::clone(&user));
        directory.by_name.insert(id.clone(), Arc::clone(&user));
        directory.users.push(user);
        id
    }

    /// Deletes a user. The mailbox no longer answers.
    ///
    /// # Errors
    /// [`TenantError::NoUser`].
    pub fn remove_user(&self, user: &str) -> Result<(), TenantError> {
        let user = self.find_user(user)?;
        let mut directory = self.directory.write();
        directory.change += 1;
        user.delete(directory.change);
        Ok(())
    }

    /// Renames a user. The id and the mailbox stay.
    ///
    /// # Errors
    /// [`TenantError::NoUser`].
    pub fn rename_user(&self, user: &str, principal_name: &str, display_name: &str) -> Result<(), TenantError> {
        let user = self.find_user(user)?;
        let mut directory = self.directory.write();
        directory.change += 1;
        directory.by_name.remove(&user.principal_name().to_lowercase());
        directory.by_name.insert(principal_name.to_lowercase(), Arc::clone(&user));
        user.rename(principal_name, display_name, directory.change);
        Ok(())
    }

    fn find_user(&self, user: &str) -> Result<Arc<User>, TenantError> {
        self.user(user).ok_or_else(|| TenantError::NoUser(user.to_owned()))
    }

    /// Calls `f` with the locked mailbox of a user.
    ///
    /// # Errors
    /// [`TenantError::NoUser`] and [`TenantError::NoMailbox`].
    pub fn with_mailbox<T>(&self, user: &str, f: impl FnOnce(&mut Mailbox) -> T) -> Result<T, TenantError> {
        let found = self.find_user(user)?;
        let mailbox = found.mailbox().ok_or_else(|| TenantError::NoMailbox(user.to_owned()))?;
        Ok(f(&mut mailbox.lock()))
    }

    pub(super) fn with_folder<T>(
        &self,
        user: &str,
        folder: &str,
        f: impl FnOnce(&mut Mailbox, FolderKey) -> Result<T, MailboxError>,
    ) -> Result<T, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let key = mailbox.resolve_folder(folder).ok_or_else(|| TenantError::NoFolder(folder.to_owned()))?;
            Ok(f(mailbox, key)?)
        })?
    }

    fn with_message<T>(
        &self,
        user: &str,
        message: &str,
        f: impl FnOnce(&mut Mailbox, MessageKey) -> Result<T, TenantError>,
    ) -> Result<T, TenantError> {
        self.with_mailbox(user, |mailbox| {
            let key = mailbox.resolve_message(message).ok_or_else(|| TenantError::NoMessage(message.to_owned()))?;
            f(mailbox, key)
        })?
    }

    fn edit(&self, user: &str, message: &str, edit: impl FnOnce(&mut Record)) -> Result<(), TenantError> {
        self.with_message(user, message, |mailbox, key| Ok(mailbox.change_message(key, clock::now(), edit)?))
    }

    /// Adds a folder under `parent` (an id or a well-known name such as `msgfolderroot`) and returns its id.
    ///
    /// Two siblings may have the same name here: real mailboxes contain such folders, although Graph does not create
    /// them.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or parent.
    pub fn add_folder(&self, user: &str, parent: &str, name: &str) -> Result<String, TenantError> {
        self.with_folder(user, parent, |mailbox, parent| {
            let key = mailbox.insert_folder(super::Folder::new(name, Some(parent)));
            Ok(mailbox.folder_id(key))
        })
    }

    /// Adds a hidden folder and returns its id.
    ///
    /// # Errors
    /// Those of [`Self::add_folder`].
    pub fn add_hidden_folder(&self, user: &str, parent: &str, name: &str) -> Result<String, TenantError> {
        self.with_folder(user, parent, |mailbox, parent| {
            let key = mailbox.insert_folder(super::Folder { hidden: true, ..super::Folder::new(name, Some(parent)) });
            Ok(mailbox.folder_id(key))
        })
    }

    /// Adds a search folder over `source` and returns its id.
    ///
    /// # Errors
    /// Those of [`Self::add_folder`], and [`MailboxError::FolderExists`].
    pub fn add_search_folder(
        &self,
        user: &str,
        parent: &str,
        name: &str,
        filter: &str,
        source: &str,
    ) -> Result<String, TenantError> {
        self.with_folder(user, parent, |mailbox, parent| {
            let source = mailbox.resolve_folder(source).ok_or(MailboxError::NotFound)?;
            let search = Search { filter: filter.to_owned(), nested: true, sources: vec![source] };
            let key = mailbox.add_search_folder(parent, name, search)?;
            Ok(mailbox.folder_id(key))
        })
    }

    /// Renames a folder.
    ///
    /// # Errors
    /// [`TenantError`], also for well-known folders and if the name already exists.
    pub fn rename_folder(&self, user: &str, folder: &str, name: &str) -> Result<(), TenantError> {
        self.with_folder(user, folder, |mailbox, key| mailbox.rename_folder(key, name))
    }

    /// Moves a folder with its content under another folder.
    ///
    /// # Errors
    /// [`TenantError`], also for well-known folders and for moves into itself.
    pub fn move_folder(&self, user: &str, folder: &str, target: &str) -> Result<(), TenantError> {
        self.with_folder(user, folder, |mailbox, key| {
            let target = mailbox.resolve_folder(target).ok_or(MailboxError::NotFound)?;
            mailbox.move_folder(key, target)
        })
    }

    /// Moves a folder with its content to Deleted Items, as deleting it in Outlook does.
    ///
    /// # Errors
    /// [`TenantError`], also for well-known folders.
    pub fn discard_folder(&self, user: &str, folder: &str) -> Result<(), TenantError> {
        self.with_folder(user, folder, |mailbox, key| {
            let deleted = mailbox.well_known("deleteditems").ok_or(MailboxError::NotFound)?;
            mailbox.discard_folder(key, deleted)
        })
    }

    /// Removes a folder with its content permanently.
    ///
    /// # Errors
    /// [`TenantError`], also for well-known folders.
    pub fn delete_folder(&self, user: &str, folder: &str) -> Result<(), TenantError> {
        self.with_folder(user, folder, |mailbox, key| mailbox.remove_folder(key))
    }

    /// Adds a message to a folder (an id or a well-known name) and returns its immutable id.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or folder.
    pub fn add_message(&self, user: &str, folder: &str, message: NewMessage) -> Result<String, TenantError> {
        let NewMessage { mime, received, read, draft, flag, categories } = message;
        let now = clock::now();
        self.with_folder(user, folder, |mailbox, folder| {
            let extra = (!categories.is_empty()).then(|| Arc::new(Extra { categories, ..Extra::default() }));
            let key = mailbox.add_message(Arrival {
                folder,
                content: Content::Mime(Arc::new(mime)),
                flags: Flags { read, draft, flag, ..Flags::default() },
                received: received.unwrap_or(now),
                created: now,
                extra,
            })?;
            Ok(super::message_id(&mailbox.guid, key, 0, IdFormat::Immutable))
        })
    }

    /// Replaces the MIME bytes of a message, as an edit in Outlook would.
    ///
    /// # Errors
    /// [`TenantError`] if there is no such user, mailbox or message.
    pub fn change_message(&self, user: &str, message: &str, mime: Vec<u8>) -> Result<(), TenantError> {
        self.edit(user, message, |record| {
            record.content = Content::Mime(Arc::new(mime));
            record.edition += 1;
        })
    }

    /// Marks a message as read or unread.
    ///
    /// # Errors
    /// Those of [`Self::change_message`].
    pub fn set_read(&self, user: &str, message: &str, read: bool) -> Result<(), TenantError> {
        self.edit(user, message, |record| record.flags.read = read)
    }

    /// Sets the follow-up flag.
    ///
    /// # Errors
    /// Those of [`Self::change_message`].
    pub fn set_flag(&self, user: &str, message: &str, flag: FlagStatus) -> Result<(), TenantError> {
        self.edit(user, message, |record| record.flags.flag = flag)
    }

    /// Sets the categories.
    ///
    /// # Errors
    /// Those of [`Self::change_message`].
    pub fn set_categories(&self, user: &str, message: &str, categories: Vec<String>) -> Result<(), TenantError> {
        self.edit(user, message, |record| Mailbox::extra(record).categories = categories)
    }

    /// Moves a message to another folder. Its immutable id stays.
    ///
    /// # Errors
    /// Those of [`Self::change_message`], and [`TenantError::NoFolder`].
    pub fn move_message(&self, user: &str, message: &str, target: &str) -> Result<(), TenantError> {
        self.with_message(user, message, |mailbox, key| {
            let target = mailbox.resolve_folder(target).ok_or_else(|| TenantError::NoFolder(target.to_owned()))?;
            Ok(mailbox.move_message(key, target, clock::now())?)
        })
    }

    /// Deletes a message permanently.
    ///
    /// # Errors
    /// Those of [`Self::change_message`].
    pub fn delete_message(&self, user: &str, message: &str) -> Result<(), TenantError> {
        self.with_message(user, message, |mailbox, key| Ok(mailbox.remove_message(key)?))
    }

    /// Makes a message unreadable forever; `None` makes it readable again. Deltas show no change.
    ///
    /// # Errors
    /// Those of [`Self::change_message`].
    pub fn mark_unreadable(&self, user: &str, message: &str, why: Option<Unreadable>) -> Result<(), TenantError> {
        self.with_message(user, message, |mailbox, key| Ok(mailbox.mark_unreadable(key, why)?))
    }

    /// Returns the number of users of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.all_users().iter().filter(|user| user.kind == kind).count()
    }
}
