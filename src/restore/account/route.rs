//! Which part of a snapshot goes to which mailbox, and what the folders on the way are called.
//!
//! A snapshot of an organisation has the mailboxes at `Users/NAME/Outlook`. Its state (`backup::tenant::state`) says
//! what the folders are really called, and which of them every mailbox has. Everything else, such as a folder of `.eml`
//! files, goes below the target under the names that it has.

use super::options::AccountTarget;
use crate::backup::tenant::state::{MailboxState, TenantState, tops_of};
use crate::backup::tenant::{OUTLOOK, USERS};
use crate::format::entry::{Directory, Entry};
use crate::format::snapshot::Snapshot;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Entries};
use crate::restore::{RestoreError, printable};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
}

impl Part {
    /// Returns the name of the folder at `path` of the snapshot. `None` for the mailbox itself.
    pub fn name_of(&self, path: &[u8]) -> Option<Named> {
        let below = path.get(self.prefix_len..).filter(|below| !below.is_empty())?;
        Some(self.names.get(below).cloned().unwrap_or_else(|| {
            let name = below.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            Named { display: String::from_utf8_lossy(name).into_owned(), well_known: None }
        }))
    }
}

/// What goes to one mailbox.
pub(super) struct Route {
    pub to: TargetUser,
    pub parts: Vec<Part>,
}

/// What goes to which mailbox.
pub(super) struct Routes {
    pub all: Vec<Route>,
    /// The number of contacts that were asked for. They are passed over, because this version cannot restore them.
    pub contacts: u64,
}

/// Returns what goes to which mailbox.
///
/// # Errors
/// [`RestoreError::NotInSnapshot`]; [`RestoreError::NoMailbox`] if something lies in no mailbox and has to go back to
/// where it came from; [`RestoreError::Read`].
pub(super) fn routes(
    reader: &Reader,
    snapshot: &Snapshot,
    paths: &[Vec<u8>],
    target: &AccountTarget,
) -> Result<Routes, RestoreError> {
    let mut finder = Finder { reader, snapshot, root: snapshot.directory(), known: HashMap::new() };
    let mut wanted = Vec::new();
    let everything = [Vec::new()];
    for path in if paths.is_empty() { &everything } else { paths } {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        wanted.extend(finder.expand(names.collect::<Vec<_>>().join(&b'/'))?);
    }
    let (mut wanted, contacts) = finder.without_contacts(wanted)?;
    wanted.sort_by_key(|(_, path)| (path.iter().filter(|byte| **byte == b'/').count(), path.clone()));
    let mut routes: BTreeMap<TargetUser, Route> = BTreeMap::new();
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for (user, path) in wanted {
        // A path below another one that was asked for is part of it.
        let lies_in =
            |above: &Vec<u8>| above.is_empty() || path == *above || path.starts_with(&[above, &b"/"[..]].concat());
        if taken.iter().any(lies_in) {
            continue;
        }
        let to = match (target, &user) {
            (AccountTarget::User(name), _) => TargetUser::Named(name.clone()),
            (AccountTarget::Original, Some(user)) => TargetUser::Owner { id: user.id.clone(), name: user.name.clone() },
            (AccountTarget::Original, None) => return Err(RestoreError::NoMailbox { path: printable(&path) }),
        };
        let part = finder.part(user.as_ref(), &path)?;
        taken.push(path);
        routes.entry(to.clone()).or_insert_with(|| Route { to, parts: Vec::new() }).parts.push(part);
    }
    Ok(Routes { all: routes.into_values().collect(), contacts })
}

/// Returns the id of the user whose mailbox `path` of a snapshot lies in.
///
/// # Errors
/// [`RestoreError::NoMailbox`] if it lies in none, [`RestoreError::Read`].
pub(super) fn owner(reader: &Reader, snapshot: &Snapshot, path: &[u8]) -> Result<String, RestoreError> {
    let finder = Finder { reader, snapshot, root: snapshot.directory(), known: HashMap::new() };
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
type Wanted = (Option<Owner>, Vec<u8>);

/// What a snapshot knows of the folders of a user.
#[derive(Clone, Default)]
struct Known {
    /// What the mail folders are called, by their paths below the mailbox.
    names: Arc<HashMap<Vec<u8>, Named>>,
    /// The names of the top folders that hold contacts.
    contacts: Vec<String>,
}

struct Finder<'a> {
    reader: &'a Reader,
    snapshot: &'a Snapshot,
    root: &'a Directory,
    /// What the snapshot knows of the users' folders, by the ids of the users.
    known: HashMap<String, Known>,
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
            return Ok(vec![(None, path)]);
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
                    [] => Ok(vec![(Some(user), mailbox)]),
                    [outlook, ..] if *outlook == OUTLOOK.as_bytes() => Ok(vec![(Some(user), path)]),
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
                    all.push((Some(user), path));
                }
            }
        }
        Ok(all)
    }

    /// Takes the contacts out of what is wanted, and counts them. A mailbox with contacts becomes its other folders.
    ///
    /// # Errors
    /// [`RestoreError::NoMailbox`] for a path that holds nothing but contacts, [`RestoreError::Read`].
    fn without_contacts(&mut self, wanted: Vec<Wanted>) -> Result<(Vec<Wanted>, u64), RestoreError> {
        let (mut others, mut count) = (Vec::new(), 0);
        for (user, path) in wanted {
            let contacts = match &user {
                Some(user) => self.known(user)?.contacts,
                None => Vec::new(),
            };
            match user {
                Some(user) if !contacts.is_empty() => count += self.part_mailbox(user, path, &contacts, &mut others)?,
                user => others.push((user, path)),
            }
        }
        Ok((others, count))
    }

    /// Adds `path` to `others`, or what lies in it beside the top folders `contacts`. Returns the number of contacts.
    fn part_mailbox(
        &self,
        user: Owner,
        path: Vec<u8>,
        contacts: &[String],
        others: &mut Vec<Wanted>,
    ) -> Result<u64, RestoreError> {
        let mailbox = user.mailbox();
        let holds_contacts = |name: &[u8]| contacts.iter().any(|top| top.as_bytes() == name);
        let below = path.strip_prefix(&*mailbox).unwrap_or_default();
        if below.split(|byte| *byte == b'/').nth(1).is_some_and(holds_contacts) {
            return Err(RestoreError::NoMailbox { path: printable(&path) });
        }
        let found = if path == mailbox { tree::find_path(self.reader, self.root, &path)? } else { None };
        let Some(dir) = found.as_ref().and_then(|found| found.entry().directory()) else {
            others.push((Some(user), path));
            return Ok(0);
        };
        let mut count = 0;
        for found in Entries::new(self.reader, dir)? {
            let found = found?;
            let entry = found.entry();
            match holds_contacts(&entry.name) {
                true => count += entry.sums().files,
                false => others.push((Some(user.clone()), [&mailbox, &b"/"[..], &entry.name].concat())),
            }
        }
        Ok(count)
    }

    /// Returns what the snapshot knows of a user's folders. If the state of the user is lost, it knows nothing.
    fn known(&mut self, user: &Owner) -> Result<Known, RestoreError> {
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
        let contacts = state.as_ref().and_then(|state| state.contacts.as_ref());
        let known = Known {
            names: Arc::new(state.as_ref().map(names_of).unwrap_or_default()),
            contacts: contacts.into_iter().flat_map(|state| tops_of(&state.folders)).map(str::to_owned).collect(),
        };
        self.known.insert(user.id.clone(), known.clone());
        Ok(known)
    }

    fn part(&mut self, user: Option<&Owner>, path: &[u8]) -> Result<Part, RestoreError> {
        let not_there = || RestoreError::NotInSnapshot { path: printable(path) };
        let (names, prefix_len) = match user {
            Some(user) => (self.known(user)?.names, user.mailbox().len() + 1),
            None => (Arc::default(), 0),
        };
        let entry = match path.is_empty() {
            true => Entry::new(
                b"",
                crate::format::entry::EntryKind::Directory(*self.root),
                crate::format::entry::Timestamp { secs: 0, nanos: 0 },
            ),
            false => tree::find_path(self.reader, self.root, path)?.ok_or_else(not_there)?.entry().clone(),
        };
        let mut part = Part { path: path.to_vec(), entry, above: Vec::new(), names, prefix_len };
        let ends = path.iter().enumerate().skip(prefix_len).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        part.above = ends.filter_map(|end| part.name_of(&path[..end])).collect();
        Ok(part)
    }
}

fn names_of(mailbox: &MailboxState) -> HashMap<Vec<u8>, Named> {
    let mut paths: HashMap<&str, Vec<u8>> = HashMap::new();
    let mut names = HashMap::new();
    // Parents stand before their children.
    for folder in &mailbox.mail.folders {
        let above = folder.parent.as_deref().and_then(|parent| paths.get(parent));
        let path = above.map_or_else(Vec::new, |above| [above, &b"/"[..]].concat());
        let path = [&path, folder.name.as_bytes()].concat();
        names.insert(path.clone(), Named { display: folder.display.clone(), well_known: folder.well_known.clone() });
        paths.insert(&folder.id, path);
    }
    names
}
