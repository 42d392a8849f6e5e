//! Which part of a snapshot goes to which mailbox, and what the folders on the way are called.
//!
//! A snapshot of an organisation has the mailboxes at `Users/NAME/Outlook`. Its state (`backup::tenant::state`) says
//! what the folders are really called, and which of them every mailbox has. Everything else, such as a folder of `.eml`
//! files, goes below the target under the names that it has.

use super::options::AccountTarget;
use crate::backup::tenant::state::{CollectionState, FolderState, MailboxState, TenantState, tops_of};
use crate::backup::tenant::{OUTLOOK, USERS};
use crate::format::entry::{Directory, Entry, EntryKind, Timestamp};
use crate::format::snapshot::Snapshot;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Entries};
use crate::restore::{RestoreError, printable};
use crate::source::graph::write::same_name;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Why tasks are not restored to a mailbox.
const TASKS_REFUSED: &str = "tasks cannot be restored to an account yet; `strongroom restore --to local:DIR` writes them as files that task lists import";
/// Why events are not restored to a mailbox.
const EVENTS_REFUSED: &str = "events cannot be restored to an account yet; `strongroom restore --to local:DIR` writes them as files that calendars open";
/// What people call the folder that holds all contacts.
pub(super) const CONTACTS: &str = "Contacts";

/// The user that something goes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetUser {
    /// The user that it came from.
    Owner {
        /// The id.
        id: String,
        /// The name that the snapshot has.
        name: String,
    },
    /// The user that the command line names: a user principal name, or an id.
    Named(String),
}

impl TargetUser {
    /// Returns what the directory is asked for.
    pub fn asked(&self) -> &str {
        match self {
            TargetUser::Owner { id, .. } => id,
            TargetUser::Named(name) => name,
        }
    }

    /// Returns the name for people.
    pub fn name(&self) -> &str {
        match self {
            TargetUser::Owner { name, .. } | TargetUser::Named(name) => name,
        }
    }
}

/// The name of a folder, and its well-known name if every mailbox has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub display: String,
    pub well_known: Option<String>,
}

/// A folder or an item of the snapshot that goes to a mailbox.
pub(super) struct Part {
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    pub entry: Entry,
    /// The folders that it lies in, from the root of the mailbox down.
    pub above: Vec<Named>,
    /// The names of the folders of the mailbox, by their paths below it. Empty if the snapshot does not say.
    pub names: Arc<HashMap<Vec<u8>, Named>>,
    /// The length of the path of the mailbox with the slash after it, in bytes. 0 if the part does not lie in a
    /// mailbox.
    pub prefix_len: usize,
    /// Folders in it whose items are of another kind, and belong to other parts.
    pub excluded: Vec<Excluded>,
}

/// A folder that is left out of a part.
pub(super) struct Excluded {
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    size: PartSize,
}

/// How much a part holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PartSize {
    /// The number of items.
    pub items: u64,
    /// The number of their bytes.
    pub bytes: u64,
}

impl PartSize {
    fn of(entry: &Entry) -> Self {
        let sums = entry.sums();
        Self { items: sums.files, bytes: sums.bytes }
    }
}

impl Part {
    /// Returns how much goes to the mailbox.
    pub fn size(&self) -> PartSize {
        let PartSize { items, bytes } = PartSize::of(&self.entry);
        let left_out = |of: fn(&PartSize) -> u64| self.excluded.iter().map(|excluded| of(&excluded.size)).sum();
        PartSize {
            items: items.saturating_sub(left_out(|size| size.items)),
            bytes: bytes.saturating_sub(left_out(|size| size.bytes)),
        }
    }

    /// Returns the name of the folder at `path` of the snapshot. `None` for the mailbox itself.
    pub fn name_of(&self, path: &[u8]) -> Option<Named> {
        let below = path.get(self.prefix_len..).filter(|below| !below.is_empty())?;
        Some(self.names.get(below).cloned().unwrap_or_else(|| {
            let name = below.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            Named { display: String::from_utf8_lossy(name).into_owned(), well_known: None }
        }))
    }
}

/// What goes to one mailbox, by the kind of its items.
pub(super) struct Route {
    pub to: TargetUser,
    pub mail: Arc<[Part]>,
    pub contacts: Arc<[Part]>,
    /// What cannot be restored to a mailbox, with the reason: tasks and events.
    pub refused: Arc<[(Part, &'static str)]>,
}

impl Route {
    /// Returns the parts of all kinds.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.mail.iter().chain(&*self.contacts).chain(self.refused.iter().map(|(part, _)| part))
    }
}

/// The kinds of items that a mailbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Messages.
    Mail,
    /// Contacts.
    Contacts,
}

/// The parts that go to one mailbox.
#[derive(Default)]
struct Parts {
    mail: Vec<Part>,
    contacts: Vec<Part>,
    tasks: Vec<Part>,
    calendars: Vec<Part>,
}

/// Returns what goes to which mailbox. `into` is the path of the folder of the mailbox that everything goes below.
///
/// # Errors
/// [`RestoreError::NotInSnapshot`]; [`RestoreError::NoMailbox`] if something lies in no mailbox and has to go back to
/// where it came from; [`RestoreError::Read`].
pub(super) fn routes(
    reader: &Reader,
    snapshot: &Snapshot,
    paths: &[Vec<u8>],
    target: &AccountTarget,
    into: &[String],
) -> Result<Vec<Route>, RestoreError> {
    // Files that no service gave are of the kind of the folder that they go to.
    let files = if into.first().is_some_and(|name| same_name(name, CONTACTS)) { Kind::Contacts } else { Kind::Mail };
    let mut finder = Finder { reader, snapshot, root: snapshot.directory(), files, known: HashMap::new() };
    let mut wanted = Vec::new();
    let everything = [Vec::new()];
    for path in if paths.is_empty() { &everything } else { paths } {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        wanted.extend(finder.expand(names.collect::<Vec<_>>().join(&b'/'))?);
    }
    wanted.sort_by_key(|Wanted { path, .. }| (path.iter().filter(|byte| **byte == b'/').count(), path.clone()));
    let mut routes: BTreeMap<TargetUser, Parts> = BTreeMap::new();
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for Wanted { user, path } in wanted {
        // A path below another one that was asked for is part of it.
        if taken.iter().any(|above| lies_in(&path, above)) {
            continue;
        }
        let to = match (target, &user) {
            (AccountTarget::User(name), _) => TargetUser::Named(name.clone()),
            (AccountTarget::Original, Some(user)) => TargetUser::Owner { id: user.id.clone(), name: user.name.clone() },
            (AccountTarget::Original, None) => return Err(RestoreError::NoMailbox { path: printable(&path) }),
        };
        finder.add_parts(user.as_ref(), &path, routes.entry(to).or_default())?;
        taken.push(path);
    }
    let route = |(to, parts)| {
        let Parts { mail, contacts, tasks, calendars } = parts;
        let tasks = tasks.into_iter().map(|part| (part, TASKS_REFUSED));
        let refused = tasks.chain(calendars.into_iter().map(|part| (part, EVENTS_REFUSED))).collect();
        Route { to, mail: mail.into(), contacts: contacts.into(), refused }
    };
    Ok(routes.into_iter().map(route).collect())
}

/// Returns true if `path` is `above`, or lies in it.
fn lies_in(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path == above || path.starts_with(&[above, b"/"].concat())
}

/// Returns the id of the user whose mailbox `path` of a snapshot lies in.
///
/// # Errors
/// [`RestoreError::NoMailbox`] if it lies in none, [`RestoreError::Read`].
pub(super) fn owner(reader: &Reader, snapshot: &Snapshot, path: &[u8]) -> Result<String, RestoreError> {
    let finder = Finder { reader, snapshot, root: snapshot.directory(), files: Kind::Mail, known: HashMap::new() };
    let mut names = path.split(|byte| *byte == b'/');
    let name = names.next().filter(|users| *users == USERS.as_bytes()).and(names.next());
    let owner = name.map(|name| finder.user_called(name)).transpose()?.flatten();
    owner.map(|owner| owner.id).ok_or_else(|| RestoreError::NoMailbox { path: printable(path) })
}

/// A user of the snapshot.
#[derive(Clone)]
struct Owner {
    id: String,
    /// The name of the user's folder.
    name: String,
}

impl Owner {
    /// Returns the user whose folder this is. `None` for a folder that no service has given an id.
    fn of(folder: &Entry) -> Option<Self> {
        let name = String::from_utf8(folder.name.to_vec()).ok()?;
        folder.facts.source_id.clone().map(|id| Self { id, name })
    }

    /// Returns the path of the user's mailbox.
    fn mailbox(&self) -> Vec<u8> {
        format!("{USERS}/{}/{OUTLOOK}", self.name).into_bytes()
    }
}

/// A path of the snapshot, and the user whose mailbox it lies in.
struct Wanted {
    user: Option<Owner>,
    path: Vec<u8>,
}

/// What a snapshot says of a user's mailbox.
#[derive(Clone, Default)]
struct KnownMailbox {
    /// The names of the folders, by their paths below the mailbox.
    names: Arc<HashMap<Vec<u8>, Named>>,
    /// The names of the top folders that hold contacts, in the snapshot.
    contacts: Vec<String>,
    /// The names of the top folders that hold tasks.
    tasks: Vec<String>,
    /// The names of the top folders that hold calendars.
    calendars: Vec<String>,
}

struct Finder<'a> {
    reader: &'a Reader,
    snapshot: &'a Snapshot,
    root: &'a Directory,
    /// The kind of files that no service gave.
    files: Kind,
    /// By the id of the user.
    known: HashMap<String, KnownMailbox>,
}

impl Finder<'_> {
    fn user_called(&self, name: &[u8]) -> Result<Option<Owner>, RestoreError> {
        let path = [USERS.as_bytes(), b"/", name].concat();
        Ok(tree::find_path(self.reader, self.root, &path)?.and_then(|found| Owner::of(found.entry())))
    }

    /// Returns the paths that `path` stands for, each with the user whose mailbox it lies in. A folder of users stands
    /// for their mailboxes.
    fn expand(&self, path: Vec<u8>) -> Result<Vec<Wanted>, RestoreError> {
        if TenantState::of(self.snapshot).is_none() {
            return Ok(vec![Wanted { user: None, path }]);
        }
        let no_mailbox = |path: &[u8]| RestoreError::NoMailbox { path: printable(path) };
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        match names.as_slice() {
            [] => self.all_users(),
            [users] if *users == USERS.as_bytes() => self.all_users(),
            [users, name, rest @ ..] if *users == USERS.as_bytes() => {
                let not_there = || RestoreError::NotInSnapshot { path: printable(&path) };
                let user = self.user_called(name)?.ok_or_else(not_there)?;
                let mailbox = user.mailbox();
                match rest {
                    [] => Ok(vec![Wanted { user: Some(user), path: mailbox }]),
                    [outlook, ..] if *outlook == OUTLOOK.as_bytes() => Ok(vec![Wanted { user: Some(user), path }]),
                    _ => Err(no_mailbox(&path)),
                }
            }
            _ => Err(no_mailbox(&path)),
        }
    }

    fn all_users(&self) -> Result<Vec<Wanted>, RestoreError> {
        let Some(users) = tree::find(self.reader, self.root, USERS.as_bytes())? else { return Ok(Vec::new()) };
        let Some(dir) = users.entry().directory() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for found in Entries::new(self.reader, dir)? {
            let found = found?;
            if let Some(user) = Owner::of(found.entry()) {
                let path = user.mailbox();
                // A mailbox without a folder in the snapshot has nothing to restore.
                if tree::find_path(self.reader, self.root, &path)?.is_some() {
                    all.push(Wanted { user: Some(user), path });
                }
            }
        }
        Ok(all)
    }

    /// Returns what the snapshot says of a user's mailbox. If its state is lost, the folders have the names that the
    /// snapshot has, and all items are taken for mail.
    fn mailbox_of(&mut self, user: &Owner) -> Result<KnownMailbox, RestoreError> {
        if let Some(known) = self.known.get(&user.id) {
            return Ok(known.clone());
        }
        let state = match &self.snapshot.source_parts {
            Some(parts) => match MailboxState::read(self.reader, parts, &user.id) {
                Err(error) if error.is_damage() => None,
                state => state?,
            },
            None => None,
        };
        let known = state.as_ref().map(KnownMailbox::of).unwrap_or_default();
        self.known.insert(user.id.clone(), known.clone());
        Ok(known)
    }

    /// Adds what is at `path` to the parts of a mailbox.
    fn add_parts(&mut self, user: Option<&Owner>, path: &[u8], parts: &mut Parts) -> Result<(), RestoreError> {
        let Some(user) = user else {
            let part = self.part(path, &KnownMailbox::default(), 0)?;
            let parts = if self.files == Kind::Contacts { &mut parts.contacts } else { &mut parts.mail };
            parts.push(part);
            return Ok(());
        };
        let known = self.mailbox_of(user)?;
        let mailbox = user.mailbox();
        let prefix_len = mailbox.len() + 1;
        let tops = |names: &[String]| -> Vec<Vec<u8>> {
            names.iter().map(|name| [&mailbox[..], b"/", name.as_bytes()].concat()).collect()
        };
        let mut others = [
            (tops(&known.contacts), &mut parts.contacts),
            (tops(&known.tasks), &mut parts.tasks),
            (tops(&known.calendars), &mut parts.calendars),
        ];
        if let Some((_, parts)) = others.iter_mut().find(|(tops, _)| tops.iter().any(|top| lies_in(path, top))) {
            parts.push(self.part(path, &known, prefix_len)?);
            return Ok(());
        }
        let mut mail = self.part(path, &known, prefix_len)?;
        if path == mailbox {
            for (tops, parts) in others {
                for top in tops {
                    if self.find(&top)?.is_some() {
                        let part = self.part(&top, &known, prefix_len)?;
                        mail.excluded.push(Excluded { path: top, size: part.size() });
                        parts.push(part);
                    }
                }
            }
        }
        parts.mail.push(mail);
        Ok(())
    }

    fn find(&self, path: &[u8]) -> Result<Option<Entry>, RestoreError> {
        Ok(tree::find_path(self.reader, self.root, path)?.map(|found| found.entry().clone()))
    }

    fn part(&self, path: &[u8], known: &KnownMailbox, prefix_len: usize) -> Result<Part, RestoreError> {
        let entry = match path.is_empty() {
            true => Entry::new(b"", EntryKind::Directory(*self.root), Timestamp { secs: 0, nanos: 0 }),
            false => self.find(path)?.ok_or_else(|| RestoreError::NotInSnapshot { path: printable(path) })?,
        };
        let names = known.names.clone();
        let mut part = Part { path: path.to_vec(), entry, above: Vec::new(), names, prefix_len, excluded: Vec::new() };
        let ends = path.iter().enumerate().skip(prefix_len).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        part.above = ends.filter_map(|end| part.name_of(&path[..end])).collect();
        Ok(part)
    }
}

impl KnownMailbox {
    fn of(state: &MailboxState) -> Self {
        let folders = |collection: &Option<CollectionState>| {
            collection.as_ref().map(|collection| collection.folders.clone()).unwrap_or_default()
        };
        let [contacts, tasks, calendars] = [&state.contacts, &state.tasks, &state.calendars].map(folders);
        let mut paths: HashMap<&str, Vec<u8>> = HashMap::new();
        let mut names = HashMap::new();
        // Parents come before their children.
        for folder in state.mail.folders.iter().chain(&contacts).chain(&tasks).chain(&calendars) {
            let above = folder.parent.as_deref().and_then(|parent| paths.get(parent));
            let path = above.map_or_else(Vec::new, |above| [above, &b"/"[..]].concat());
            let path = [&path, folder.name.as_bytes()].concat();
            let named = Named { display: folder.display.clone(), well_known: folder.well_known.clone() };
            names.insert(path.clone(), named);
            paths.insert(&folder.id, path);
        }
        let tops = |folders: &[FolderState]| tops_of(folders).map(str::to_owned).collect();
        let (contacts, tasks, calendars) = (tops(&contacts), tops(&tasks), tops(&calendars));
        Self { names: Arc::new(names), contacts, tasks, calendars }
    }
}
