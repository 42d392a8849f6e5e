//! The tasks of a user as a collection: each an iCalendar file with one VTODO.
//!
//! What is particular to tasks: the row of a listing lacks the steps and links of a task, so each task that is new or
//! changed is requested by itself when it is read. Its files stand in the iCalendar file. The JSON of the whole task is
//! the payload, with the id of its list noted in it.

mod lists;

use crate::backup::collection::item::{Item, ItemKey};
use crate::backup::collection::listed::{Departed, Listed, Rounds};
use crate::backup::collection::plan::{Plan, Planned, Standing};
use crate::backup::collection::previous::Previous;
use crate::backup::collection::{Amendments, Collection, FolderNow, Reading, Source};
use crate::backup::context::{Context, Ended, ends_the_run};
use crate::backup::splitter::{SplitError, Splitter};
use crate::backup::splitters::{ROOM_AT_ONCE_MAX, room_of};
use crate::content::task::AttachedFile;
use crate::format::entry::{Entry, EntryKind, Facts, Timestamp};
use crate::source::graph::round::Round;
use crate::source::graph::tasks::{Task, Tasks as Service};
use crate::source::graph::{ErrorKind, GraphError};
use std::collections::HashSet;
use std::sync::Arc;

/// The name of the tasks in a user's `Outlook`, in every language.
pub const TASKS: &str = "Tasks";

/// Maximum size of all files of a task together, in bytes: they are in memory at the same time. The service takes files
/// of up to 25 MB.
const FILES_BYTES_MAX: u64 = 48 << 20;

/// The tasks of a user.
pub struct Tasks {
    service: Service,
}

/// What was read of a task.
pub struct Body {
    /// The task with its steps and links.
    task: Task,
    files: Vec<AttachedFile>,
}

impl Tasks {
    /// Names the tasks of the user with the id `user`.
    pub fn new(context: &Context, user: &str) -> Self {
        Self { service: Service::new(context.client.clone(), user) }
    }

    /// Reads the whole of a task. Returns `None` if it is gone.
    async fn body(&self, id: &str) -> Result<Option<Body>, GraphError> {
        let Some(task) = self.service.task(id).await? else { return Ok(None) };
        let files = self.files(&task).await?;
        Ok(Some(Body { task, files }))
    }

    /// Adds the tasks of a list to its round of changes that are new and were not reported.
    async fn find_unreported(
        &self,
        context: &Context,
        list: &str,
        previous: &Previous,
        listed: &mut Listed<Task>,
    ) -> Result<(), Ended> {
        let mut round = self.service.listing(list);
        while let Some(page) = round.next().await? {
            for row in page.rows() {
                let row = row?;
                let is_known = previous.place(ItemKey::of(Task::id(&row))).is_some() || listed.tells_of(Task::id(&row));
                if Task::is_whole(&row) && !is_known {
                    listed.take(&row, context)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the files of a task.
    async fn files(&self, task: &Task) -> Result<Vec<AttachedFile>, GraphError> {
        const LABEL: &str = "reading the files of a task";
        if !task.row.has_attachments {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        let mut bytes = 0;
        for listed in self.service.files(&task.row).await? {
            let file = self.service.file(&task.row, &listed).await?;
            bytes += file.len() as u64;
            if bytes > FILES_BYTES_MAX {
                return Err(GraphError::endless(LABEL, FILES_BYTES_MAX));
            }
            files.push(AttachedFile {
                name: listed.name().to_owned(),
                media_type: listed.media_type().to_owned(),
                bytes: file,
            });
        }
        Ok(files)
    }
}

impl Item for Task {
    fn id(&self) -> &str {
        Task::id(self)
    }

    fn version(&self) -> Option<&str> {
        Task::version(self)
    }

    fn folder(&self) -> Option<&str> {
        Some(&self.row.list)
    }

    fn date(&self) -> Option<i64> {
        self.created()
    }

    fn is_removed(&self) -> bool {
        self.row.removed.is_some()
    }

    fn is_whole(&self) -> bool {
        Task::is_whole(self)
    }

    fn json(&self) -> &str {
        self.raw.get()
    }
}

impl Collection for Tasks {
    type Item = Task;
    type Body = Body;
    type Extra = ();

    const ITEMS: &'static str = "tasks";
    const LISTING: &'static str = "listing tasks";
    const UNFINISHED: &'static [u8] = b"\0tasks\0";

    async fn plan(&self, context: &Context, standing: &Standing<'_>) -> Result<Planned, GraphError> {
        lists::plan(context, &self.service, standing).await
    }

    async fn exists(&self) -> Result<bool, GraphError> {
        match self.service.lists().await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NoMailbox | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn folder(&self, _context: &Context, id: &str) -> Result<Option<FolderNow>, GraphError> {
        let list = self.service.list(id).await?;
        Ok(list.map(|list| FolderNow { parent: Some(lists::ROOT.to_owned()), is_wanted: !list.is_of_others() }))
    }

    fn may_follow(&self, link: &str) -> bool {
        self.service.may_follow(link)
    }

    fn changes(&self, list: &str, link: Option<&str>) -> Round<Task> {
        self.service.changes(list, link)
    }

    fn listing(&self, list: &str) -> Round<Task> {
        self.service.listing(list)
    }

    async fn item(&self, id: &str) -> Result<Option<Task>, GraphError> {
        self.service.task(id).await
    }

    /// A task that moves to another list gets another id, so asking for the old id does not find it. The service may tell
    /// a move only as a departure. So if anything left a list, all lists are looked through for tasks that no round
    /// reported.
    async fn amend(
        &self,
        context: &Arc<Context>,
        plan: &Plan<'_>,
        previous: &Previous,
        rounds: &mut Rounds<Task>,
        departed: &Departed,
    ) -> Result<Amendments, Ended> {
        if departed.values().all(HashSet::is_empty) {
            return Ok(Amendments::default());
        }
        for (index, listed) in rounds.complete.iter_mut().filter(|(_, listed)| !listed.full) {
            context.check()?;
            if let Err(error) = self.find_unreported(context, &plan.folders[*index].id, previous, listed).await {
                match error {
                    Ended::Mailbox(error) if !ends_the_run(&error) => {
                        // The next run lists it in full.
                        tracing::debug!(%error, "a list could not be looked through");
                        listed.link = None;
                    }
                    error => return Err(error),
                }
            }
        }
        Ok(Amendments::default())
    }

    fn room(&self, task: &Task) -> u32 {
        match task.row.has_attachments {
            // Nothing says how large its files are, and they may be larger than all others that wait.
            true => ROOM_AT_ONCE_MAX,
            false => room_of(Some(task.raw.get().len() as u64)),
        }
    }

    async fn read(&self, _context: &Arc<Context>, task: &Task, failed_before: bool) -> Result<Reading<Body>, Ended> {
        let error = match self.body(Task::id(task)).await {
            Ok(Some(body)) => return Ok(Reading::New(body)),
            Ok(None) => return Ok(Reading::Gone),
            Err(error) if ends_the_run(&error) => return Err(error.into()),
            Err(error) => error,
        };
        match error.kind() {
            // Other tasks of this user will fail in the same way.
            ErrorKind::Throttled | ErrorKind::Denied => Err(Ended::Mailbox(error)),
            // If only a file is gone, somebody changed the task meanwhile, and the next run reads it as it is then.
            kind if kind == ErrorKind::NotFound || (kind == ErrorKind::Unavailable && !failed_before) => {
                match self.service.task(Task::id(task)).await {
                    Ok(None) => Ok(Reading::Gone),
                    Err(second) if ends_the_run(&second) || second.is_transient() => Err(second.into()),
                    Ok(Some(_)) | Err(_) => Ok(Reading::Failed(error.to_string())),
                }
            }
            _ => Ok(Reading::Failed(error.to_string())),
        }
    }

    fn name(&self, task: &Task) -> String {
        task.todo(Vec::new()).file_name()
    }

    fn entry(
        &self,
        splitter: &mut Splitter,
        task: &Task,
        source: Source<Body>,
        _extra: &mut (),
    ) -> Result<Entry, SplitError> {
        let Body { task: whole, files } = match source {
            // A task that moves gets another id. So this is what an interrupted run has stored.
            Source::Known(entry) => return Ok(*entry),
            Source::New(body) => body,
        };
        let content = splitter.split_made(&whole.todo(files).ics())?;
        let mtime = Timestamp { secs: whole.changed().or(whole.created()).unwrap_or(0), nanos: 0 };
        let mut entry = Entry::new(b"", EntryKind::File(content), mtime);
        entry.payload = Some(splitter.split_payload(whole.raw.get().as_bytes())?);
        // Subject, sender and date are facts of mails. An entry that has them is taken for a mail.
        entry.facts = Facts {
            source_id: Some(Task::id(task).to_owned()),
            // It may have changed since it was listed.
            change_key: Task::version(&whole).map(str::to_owned),
            ..Facts::default()
        };
        Ok(entry)
    }
}
