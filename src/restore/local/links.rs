//! Hard links: names of one file in the snapshot become names of one file in the target.
//!
//! The first name of a file is restored like any other file. A worker with a further name waits for the first. It makes
//! a link if both entries have the same content, owner, permissions, times and attributes. Otherwise, or if the target
//! has no links, the name becomes a file of its own. The walk gives out the turns in order and workers take them in
//! order, so a first name never waits for a further one.

use super::files::{Outcome, Place};
use super::folders::FOLDER_FLAGS;
use super::{Reason, Run, id_of, look};
use crate::format::entry::system::Link;
use crate::format::entry::{Content, Entry};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{AtFlags, Mode, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of files with several names that are remembered, because each takes its path and about 100 bytes.
/// Each name of any other file becomes a file of its own.
const LINKED_FILES_MAX: usize = 1_000_000;
/// Waiting workers notice a halt of the run within this time.
const HALT_CHECK: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Links {
    states: Mutex<HashMap<Link, State>>,
    changed: Condvar,
}

enum State {
    /// The first name is not restored yet.
    Awaited,
    Made(Arc<Made>),
    /// The first name was not restored, so there is nothing to link to.
    Gone,
}

/// A file with several names that was restored under its first name.
pub(super) struct Made {
    /// The names of its folders below the target.
    folders: Vec<Box<[u8]>>,
    name: Vec<u8>,
    id: (u64, u64),
    /// The hash of its whole entry except the name.
    sameness: blake3::Hash,
}

/// How one name of a file with several names is restored.
pub(super) enum Turn {
    First(First),
    Further(Link),
    /// As a file of its own, because too many files are remembered.
    Alone,
}

/// The turn of a first name. Dropping it wakes the workers that wait for it, whatever the result.
pub(super) struct First {
    links: Arc<Links>,
    link: Link,
    /// The path of its folder below the target.
    folder: Vec<u8>,
}

impl Drop for First {
    fn drop(&mut self) {
        let mut states = self.links.states.lock();
        if let Some(state @ State::Awaited) = states.get_mut(&self.link) {
            *state = State::Gone;
        }
        drop(states);
        self.links.changed.notify_all();
    }
}

impl First {
    /// Stores the name and the file as which the entry was restored.
    pub(super) fn made(&self, name: Vec<u8>, id: (u64, u64), entry: &Entry) {
        let folders = self.folder.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(Into::into).collect();
        let made = Made { folders, name, id, sameness: sameness(entry) };
        self.links.states.lock().insert(self.link, State::Made(Arc::new(made)));
    }
}

fn sameness(entry: &Entry) -> blake3::Hash {
    let mut entry = entry.clone();
    entry.name = Box::default();
    blake3::hash(&entry.encode())
}

impl Links {
    /// Returns the turn of a name. Must be called in the order of the walk.
    pub(super) fn turn(self: &Arc<Self>, link: Link, folder: impl FnOnce() -> Vec<u8>) -> Turn {
        let mut states = self.states.lock();
        if states.contains_key(&link) {
            return Turn::Further(link);
        }
        if states.len() >= LINKED_FILES_MAX {
            return Turn::Alone;
        }
        states.insert(link, State::Awaited);
        Turn::First(First { links: self.clone(), link, folder: folder() })
    }

    /// Waits for the first name. None if it was not restored.
    fn wait(&self, link: Link, is_halted: impl Fn() -> bool) -> Result<Option<Arc<Made>>, Reason> {
        let mut states = self.states.lock();
        loop {
            match states.get(&link) {
                Some(State::Awaited) if is_halted() => return Err(Reason::Interrupted),
                Some(State::Awaited) => drop(self.changed.wait_for(&mut states, HALT_CHECK)),
                Some(State::Made(made)) => return Ok(Some(made.clone())),
                Some(State::Gone) | None => return Ok(None),
            }
        }
    }
}

impl Run<'_> {
    /// Restores a further name of a file. None if the name must become a file of its own.
    pub(super) fn restore_further(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        content: &Content,
        link: Link,
    ) -> Result<Option<Outcome>, Reason> {
        let Some(made) = self.links.wait(link, || self.is_halted())? else { return Ok(None) };
        if made.sameness != sameness(entry) {
            return Ok(None);
        }
        let stat = look(folder, &entry.name).map_err(|error| Reason::io("look at what is there", error))?;
        if stat.is_some_and(|stat| id_of(&stat) == made.id) {
            return Ok(Some(Outcome::AlreadyThere));
        }
        let is_same = |stat: &Stat, name: &[u8]| self.has_content(folder, name, stat, content);
        let place = self.place(folder, entry, is_same)?;
        if let Place::Nowhere(outcome, _) = place {
            return Ok(Some(outcome));
        }
        let Ok(above) = self.open_folder_of(&made) else { return Ok(None) };
        let make = |name: &str| rustix::fs::linkat(&above, &*made.name, folder, name, AtFlags::empty());
        // The file system has no links, the file has too many, or we may not enter the folder.
        let Ok((_, temporary)) = self.temporary(folder, make) else { return Ok(None) };
        // Another file may have the first name by now.
        if !look(folder, temporary.name().as_bytes()).is_ok_and(|stat| stat.is_some_and(|stat| id_of(&stat) == made.id))
        {
            return Ok(None);
        }
        self.publish(temporary, place, || self.place(folder, entry, is_same)).map(|(outcome, _)| Some(outcome))
    }

    /// Opens the folder of a restored file, name by name from the target.
    fn open_folder_of(&self, made: &Made) -> Result<OwnedFd, Errno> {
        let mut folder = rustix::io::fcntl_dupfd_cloexec(self.root, 0)?;
        for name in &made.folders {
            folder = rustix::fs::openat(&folder, &**name, FOLDER_FLAGS, Mode::empty())?;
        }
        Ok(folder)
    }
}
