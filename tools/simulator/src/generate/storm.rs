//! Random changes of a tenant, for tests that want a storm.

use strongroom_corpora::rng::Rng;

use super::contacts as generated;
use crate::tenant::id::{FolderKey, IdFormat};
use crate::tenant::{Tenant, TenantError, message_id};

impl Tenant {
    /// Makes one change to a user's contacts or their folders, chosen by `choice`. What the mailbox refuses, such as to
    /// move a folder into itself, is not done.
    ///
    /// # Errors
    /// [`TenantError::NoUser`] and [`TenantError::NoMailbox`].
    pub fn change_contacts_at_random(&self, user: &str, choice: u64) -> Result<(), TenantError> {
        let mut rng = Rng::new(choice);
        let (folders, contacts) = self.with_mailbox(user, |mailbox| {
            let folders = mailbox.contact_folders();
            let shown: Vec<FolderKey> =
                folders.into_iter().filter(|key| mailbox.folder(*key).is_some_and(|folder| !folder.hidden)).collect();
            let contacts = mailbox.contacts().filter(|(_, record)| shown.contains(&record.folder));
            let id = |(key, _)| message_id(&mailbox.guid, key, 0, IdFormat::Immutable);
            let contacts: Vec<String> = contacts.map(id).collect();
            (shown.into_iter().map(|key| mailbox.folder_id(key)).collect::<Vec<String>>(), contacts)
        })?;
        let folder = rng.pick(&folders).clone();
        let other = rng.pick(&folders).clone();
        let name = generated::folder_name(&mut rng);
        // The first half of the kinds needs a contact; the others work in an empty mailbox, too.
        let kind = if contacts.is_empty() { rng.between(6, 11) } else { rng.below(12) };
        let contact = contacts.get(rng.index(contacts.len().max(1))).cloned().unwrap_or_default();
        let done = match kind {
            0 | 1 => self.change_contact(user, &contact, &generated::edit(&mut rng)),
            2 => self.set_contact_categories(user, &contact, vec![name]),
            3 => self.move_contact(user, &contact, &folder),
            4 => self.discard_contact(user, &contact),
            5 => self.delete_contact(user, &contact),
            6 => self.add_contact_folder(user, &folder, &name).map(drop),
            7 => self.rename_folder(user, &folder, &name),
            8 => self.move_folder(user, &folder, &other),
            // Nobody tells of a contact that moved out of a folder that is gone.
            9 if self.switches().moves_show_only_as_removal => Ok(()),
            9 if rng.chance(50) => self.discard_folder(user, &folder),
            9 => self.delete_folder(user, &folder),
            _ => self.add_contact(user, &folder, generated::contact(&mut rng)).map(drop),
        };
        match done {
            Err(TenantError::Mailbox(refused)) => tracing::debug!(%refused, "the contacts did not change"),
            done => done?,
        }
        Ok(())
    }
}
