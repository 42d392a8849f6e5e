//! Random changes of a tenant, for tests that want a storm.

use strongroom_corpora::rng::Rng;

use super::{contacts as generated, events, tasks};
use crate::tenant::id::{FolderKey, IdFormat};
use crate::tenant::{CalendarFacts, ItemKind, ListFacts, NewCalendar, Record, Tenant, TenantError, message_id};

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

    /// Makes one change to a user's calendars or their events, chosen by `choice`. Calendars of others stay as they are.
    /// What the mailbox refuses, such as a name that exists, is not done.
    ///
    /// # Errors
    /// [`TenantError::NoUser`] and [`TenantError::NoMailbox`].
    pub fn change_calendars_at_random(&self, user: &str, choice: u64) -> Result<(), TenantError> {
        let mut rng = Rng::new(choice);
        let (calendars, events, series) = self.with_mailbox(user, |mailbox| {
            let mut own = mailbox.calendars();
            own.retain(|key| {
                mailbox.folder(*key).is_some_and(|one| one.calendar.owner.is_none() && !one.calendar.read_only)
            });
            let events = mailbox.items_of(ItemKind::Event).filter(|(_, record)| own.contains(&record.folder));
            let (mut ids, mut series) = (Vec::new(), Vec::new());
            for (key, record) in events {
                let id = message_id(&mailbox.guid, key, 0, IdFormat::Immutable);
                let event = record.event();
                let days = event.and_then(|event| {
                    let days = event.recurrence.as_ref()?.days().take(30);
                    Some(days.filter(|day| event.has(*day)).collect::<Vec<_>>())
                });
                if let Some(days) = days.filter(|days| !days.is_empty()) {
                    series.push((id.clone(), days));
                }
                ids.push(id);
            }
            (own.into_iter().map(|key| mailbox.folder_id(key)).collect::<Vec<String>>(), ids, series)
        })?;
        let calendar = rng.pick(&calendars).clone();
        let name = events::calendar_name(&mut rng);
        let event = events.get(rng.index(events.len().max(1))).cloned().unwrap_or_default();
        let occurrence = series.get(rng.index(series.len().max(1))).map(|(id, days)| (id, *rng.pick(days)));
        // The first kinds need an event; the others work in an empty mailbox, too.
        let kind = if events.is_empty() { rng.between(9, 15) } else { rng.below(16) };
        let done = match (kind, occurrence) {
            (0 | 1, _) => self.change_event(user, &event, &events::edit(&mut rng)),
            (2, _) => self.set_event_categories(user, &event, vec![name]),
            (3, _) => self.move_event(user, &event, &calendar),
            (4, _) => self.discard_event(user, &event),
            (5, _) => self.delete_event(user, &event),
            (6, _) => {
                let name = format!("{}.bin", rng.below(100));
                let attachment = events::file(&mut rng, &name);
                self.attach_to_event(user, &event, None, attachment)
            }
            (7, Some((series, day))) => {
                let fields = events::exception(&mut rng, day);
                self.change_occurrence(user, series, &day.to_string(), &fields)
            }
            (8, Some((series, day))) => self.cancel_occurrence(user, series, &day.to_string()),
            (9, _) => self.add_calendar(user, NewCalendar { name, facts: CalendarFacts::default() }).map(drop),
            (10, _) => self.rename_folder(user, &calendar, &name),
            (11, _) if self.switches().moves_show_only_as_removal => Ok(()),
            (11, _) if rng.chance(50) => self.discard_folder(user, &calendar),
            (11, _) => self.delete_folder(user, &calendar),
            _ => self.add_event(user, &calendar, events::event(&mut rng)).map(drop),
        };
        match done {
            Err(TenantError::Mailbox(refused)) => tracing::debug!(%refused, "the calendars did not change"),
            done => done?,
        }
        Ok(())
    }

    /// Makes one change to a user's task lists or their tasks, chosen by `choice`. Lists of others stay as they are.
    /// What the mailbox refuses is not done.
    ///
    /// # Errors
    /// [`TenantError::NoUser`] and [`TenantError::NoMailbox`].
    pub fn change_tasks_at_random(&self, user: &str, choice: u64) -> Result<(), TenantError> {
        let mut rng = Rng::new(choice);
        let (lists, found) = self.with_mailbox(user, |mailbox| {
            let mut own = mailbox.task_lists();
            own.retain(|key| mailbox.folder(*key).is_some_and(|one| !one.list.of_others && !one.shows_flagged()));
            let of_lists = mailbox.items_of(ItemKind::Task).filter(|(_, record)| own.contains(&record.folder));
            let id = |(key, record): (_, &Record)| message_id(&mailbox.guid, key, record.moves, IdFormat::Default);
            let found: Vec<String> = of_lists.map(id).collect();
            (own.into_iter().map(|key| mailbox.folder_id(key)).collect::<Vec<String>>(), found)
        })?;
        let list = rng.pick(&lists).clone();
        let name = tasks::list_name(&mut rng);
        let task = found.get(rng.index(found.len().max(1))).cloned().unwrap_or_default();
        // The first kinds need a task; the others work in an empty mailbox, too.
        let kind = if found.is_empty() { rng.between(8, 12) } else { rng.below(13) };
        let done = match kind {
            0 | 1 => self.change_task(user, &task, &tasks::edit(&mut rng)),
            2 => self.set_task_categories(user, &task, vec![name]),
            3 => self.move_task(user, &task, &list).map(drop),
            4 => self.delete_task(user, &task),
            5 | 6 => {
                let step = tasks::step(&mut rng);
                self.edit_task(user, &task, |task| {
                    let number = task.next_part();
                    task.checklist.insert(number, step);
                })
            }
            7 => {
                let attachment = events::file(&mut rng, &name);
                self.edit_task(user, &task, |task| {
                    task.attach(attachment);
                })
            }
            8 => self.add_task_list(user, &name, ListFacts::default()).map(drop),
            9 => self.rename_folder(user, &list, &name),
            // Nobody tells of a task that moved out of a list that is gone.
            10 if self.switches().moves_show_only_as_removal => Ok(()),
            10 => self.delete_folder(user, &list),
            _ => self.add_task(user, &list, tasks::task(&mut rng)).map(drop),
        };
        match done {
            Err(TenantError::Mailbox(refused)) => tracing::debug!(%refused, "the tasks did not change"),
            done => done?,
        }
        Ok(())
    }
}
