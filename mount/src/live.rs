//! The tree below `restore/`: what the outbox shows, and the files that are being written into it.
//!
//! Like `fs`, it consists of functions that need no mount. Unlike in `fs`, every answer may take as long as the network
//! takes, so the adapter calls these functions on separate threads (`workers`). `files` decides when a file is
//! complete; `names` and `scratch` decide which names are allowed. docs/semantics.md, "Restoring", is the contract.
//!
//! Invariants: a file reaches the outbox as an item only through [`Draft::seal`](crate::outbox::Draft::seal), and only
//! with an ordinary name. A sealed file can be changed only through handles that already had it open. Lock order: first
//! a file that is being written, then the table.

mod files;
mod names;
mod scratch;
mod table;
mod writing;

use crate::catalog::NAME_LENGTH_BYTES_MAX;
use crate::error::FsError;
use crate::fs::{Listed, Lookup, Stat, TTL_CHANGING};
use crate::inode::{Ino, fixed};
use crate::outbox::{Item, ItemKind, Outbox, OutboxError, State};
use crate::view::{Kind, Time};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use table::{Content, Handle, Table};
use writing::{Count, Writing};

/// The extended attribute that shows the state of a dropped file.
pub(crate) const STATE_ATTRIBUTE: &str = "user.strongroom.state";
/// Creating a file with this name in `restore/` starts the restore of all waiting files.
const COMMIT: &[u8] = b"COMMIT";

pub(crate) struct Live {
    outbox: Arc<dyn Outbox>,
    owner: (u32, u32),
    table: Mutex<Table>,
    count: Count,
}

/// Result of opening a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Opened {
    pub(crate) handle: u64,
    /// True if the kernel must not answer reads from its cache, because the file grows without the kernel's knowledge.
    pub(crate) uncached: bool,
}

/// A file or folder whose cached data the kernel must drop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Changed {
    pub(crate) ino: Ino,
    /// Folder and name of a file, which may no longer exist.
    pub(crate) name: Option<(Ino, Vec<u8>)>,
}

impl Live {
    /// Returns the tree of `outbox`. All its files belong to `owner`, a user id and a group id.
    pub(crate) fn new(outbox: Arc<dyn Outbox>, owner: (u32, u32)) -> Live {
        Live { outbox, owner, table: Mutex::default(), count: Count::default() }
    }

    /// Returns the entry called `name` in `folder`. A found entry counts as one reference, until [`Live::forget`]
    /// removes it.
    pub(crate) fn lookup(&self, folder: Ino, name: &[u8]) -> Result<Lookup, FsError> {
        if name.len() > NAME_LENGTH_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        if matches!(name, b"." | b"..") {
            // Only an NFS server looks up these names, to resolve its handles. Such handles do not last below
            // `restore/`.
            return Err(FsError::Stale);
        }
        let path = {
            let mut table = self.table.lock();
            if let Some(writing) = table.child(folder, name).and_then(|ino| table.writing(ino)).cloned() {
                let (ino, _) = table.refer(folder, name);
                return Ok(Lookup::Entry(self.writing_stat(ino, &writing)));
            }
            self.path_in(&table, folder, name)?
        };
        match self.outbox.item(&path) {
            Ok(item) => Ok(Lookup::Entry(self.refer(folder, name, &item))),
            Err(OutboxError::NotFound) => Ok(Lookup::Nothing(TTL_CHANGING)),
            Err(error) => Err(failed("item", error)),
        }
    }

    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        self.table.lock().forget(ino, count);
    }

    /// Returns the attributes of a file or folder below `restore/`.
    pub(crate) fn stat(&self, ino: Ino) -> Result<Stat, FsError> {
        let (path, given) = {
            let table = self.table.lock();
            let node = table.node(ino).ok_or(FsError::Stale)?;
            if let Some((told, stat)) = node.folder
                && told.elapsed() < TTL_CHANGING
            {
                return Ok(stat);
            }
            match &node.content {
                Content::Writing(writing) => return Ok(self.writing_stat(ino, writing)),
                Content::Commit => return Ok(self.file_stat(ino, 0, 0o600, now(), Duration::ZERO)),
                Content::Outbox => (table.path(ino).ok_or(OutboxError::NotFound)?, node.mtime),
            }
        };
        let item = self.outbox.item(&path).map_err(|error| failed("item", error))?;
        let stat = self.item_stat(ino, &item);
        Ok(Stat { mtime: given.unwrap_or(stat.mtime), ..stat })
    }

    /// Opens a folder for listing.
    pub(crate) fn open_folder(&self) -> u64 {
        self.table.lock().open(Handle::Folder(None))
    }

    pub(crate) fn close_folder(&self, handle: u64) {
        self.table.lock().close(handle);
    }

    /// Calls `emit` with the entries of `folder` from `offset` on, until `emit` returns false; `.` and `..` come first.
    /// At offset 0 it asks the outbox. Later offsets continue the same listing, so that no entry is repeated or missed.
    /// Each entry that `emit` accepted counts as one reference.
    pub(crate) fn list(
        &self,
        folder: Ino,
        handle: u64,
        offset: u64,
        emit: &mut dyn FnMut(Listed<'_>) -> bool,
    ) -> Result<(), FsError> {
        let items = self.listing(folder, handle, offset)?;
        let directory = |ino| self.folder_stat(ino, true, Time::default());
        let parent = self.table.lock().place(folder).map_or(fixed::ROOT, |(parent, _)| parent);
        for (name, ino, at) in [(b".".as_slice(), folder, 0), (b"..", parent, 1)] {
            if offset <= at && !emit(Listed { name, stat: directory(ino), next: at + 1 }) {
                return Ok(());
            }
        }
        let start = offset.saturating_sub(2);
        for (item, position) in items.iter().zip(0..).skip(usize::try_from(start).unwrap_or(usize::MAX)) {
            let writing = {
                let table = self.table.lock();
                table.child(folder, &item.name).and_then(|ino| table.writing(ino)).cloned()
            };
            let stat = match writing {
                Some(writing) => self.writing_stat(self.table.lock().refer(folder, &item.name).0, &writing),
                None => self.refer(folder, &item.name, item),
            };
            if !emit(Listed { name: &item.name, stat, next: position + 3 }) {
                self.forget(stat.ino, 1);
                break;
            }
        }
        Ok(())
    }

    /// Returns the value of the extended attribute [`STATE_ATTRIBUTE`].
    pub(crate) fn state(&self, ino: Ino) -> Result<String, FsError> {
        let (path, sealed) = {
            let table = self.table.lock();
            let sealed = match &table.node(ino).ok_or(FsError::Stale)?.content {
                Content::Writing(writing) if !writing.is_sealed() => return Ok("draft".to_owned()),
                Content::Writing(_) => true,
                Content::Outbox => false,
                Content::Commit => return Err(FsError::NoAttribute),
            };
            (table.path(ino).ok_or(FsError::NoAttribute)?, sealed)
        };
        match self.outbox.item(&path) {
            Ok(Item { kind: ItemKind::Dropped { state, .. }, .. }) => Ok(state.to_string()),
            // The outbox need not show a file before it is released.
            _ if sealed => Ok(State::Queued.to_string()),
            Ok(_) => Err(FsError::NoAttribute),
            Err(error) => Err(failed("item", error)),
        }
    }

    /// Asks the outbox for changes, and returns those that concern files and folders that the kernel knows.
    pub(crate) fn take_changes(&self) -> Vec<Changed> {
        let changes = self.outbox.take_changes();
        let mut table = self.table.lock();
        let known: Vec<_> = changes.iter().filter_map(|path| table.at(path)).collect();
        for ino in &known {
            if let Some(node) = table.node_mut(*ino) {
                node.folder = None;
            }
        }
        known
            .into_iter()
            .map(|ino| {
                // Do not invalidate the name of a folder: programs that work inside the folder would lose it.
                let place = table.place(ino).filter(|_| table.node(ino).is_some_and(|node| node.file));
                Changed { ino, name: place.map(|(folder, name)| (folder, name.to_vec())) }
            })
            .collect()
    }

    fn listing(&self, folder: Ino, handle: u64, offset: u64) -> Result<Arc<[Item]>, FsError> {
        let path = {
            let table = self.table.lock();
            if let Some(Handle::Folder(Some(items))) = table.handle(handle)
                && offset > 0
            {
                return Ok(items.clone());
            }
            table.path(folder).ok_or(OutboxError::NotFound)?
        };
        let listed = self.outbox.list(&path).map_err(|error| failed("list", error))?;
        let mut items: BTreeMap<Vec<u8>, Item> =
            listed.into_iter().filter(|item| is_legal(&item.name)).map(|item| (item.name.clone(), item)).collect();
        let mut table = self.table.lock();
        for (name, writing) in table.written_in(folder) {
            let kind = ItemKind::Dropped { len: writing.len(), state: State::Queued };
            items.entry(name.clone()).or_insert(Item { name, kind, mtime: writing.mtime() });
        }
        let items: Arc<[Item]> = items.into_values().collect();
        if let Some(Handle::Folder(kept)) = table.handle_mut(handle) {
            *kept = Some(items.clone());
        }
        Ok(items)
    }

    /// Returns the path of `name` in `folder`.
    fn path_in(&self, table: &Table, folder: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let mut path = table.path(folder).ok_or(OutboxError::NotFound)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    /// Counts one more reference to `item` by the kernel, and returns its attributes.
    fn refer(&self, folder: Ino, name: &[u8], item: &Item) -> Stat {
        let mut table = self.table.lock();
        let (ino, node) = table.refer(folder, name);
        node.text = matches!(item.kind, ItemKind::Text { .. });
        node.file = !matches!(item.kind, ItemKind::Folder { .. });
        let stat = self.item_stat(ino, item);
        let stat = Stat { mtime: node.mtime.unwrap_or(stat.mtime), ..stat };
        node.folder = (!node.file).then(|| (Instant::now(), stat));
        stat
    }

    fn item_stat(&self, ino: Ino, item: &Item) -> Stat {
        match item.kind {
            ItemKind::Folder { accepts } => self.folder_stat(ino, accepts, item.mtime),
            ItemKind::Text { len } => self.file_stat(ino, len, 0o400, item.mtime, TTL_CHANGING),
            ItemKind::Dropped { len, .. } => self.file_stat(ino, len, 0o600, item.mtime, TTL_CHANGING),
        }
    }

    /// Returns attributes with a lifetime of 0, because a file that is being written may be gone as soon as it is
    /// closed.
    fn writing_stat(&self, ino: Ino, writing: &Writing) -> Stat {
        self.file_stat(ino, writing.len(), 0o600, writing.mtime(), Duration::ZERO)
    }

    fn folder_stat(&self, ino: Ino, accepts: bool, mtime: Time) -> Stat {
        let mode = if accepts { 0o700 } else { 0o500 };
        // A link count of 1 means that the number of subfolders is not known.
        Stat { kind: Kind::Directory, links: 1, ..self.file_stat(ino, 0, mode, mtime, TTL_CHANGING) }
    }

    fn file_stat(&self, ino: Ino, size: u64, mode: u16, mtime: Time, ttl: Duration) -> Stat {
        let (uid, gid) = self.owner;
        Stat { ino, kind: Kind::File, size, mtime, mode, uid, gid, links: 1, ttl }
    }
}

/// Returns whether the kernel accepts `name` as a file name. The kernel would refuse a whole listing that has an
/// illegal name.
fn is_legal(name: &[u8]) -> bool {
    let legal = !name.is_empty()
        && name.len() <= NAME_LENGTH_BYTES_MAX
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, b'/' | 0));
    if !legal {
        tracing::debug!(len = name.len(), "a name of the outbox is not a legal file name and is left out");
    }
    legal
}

/// Logs failures that somebody may need to look at, and converts the error.
fn failed(call: &'static str, error: OutboxError) -> FsError {
    match &error {
        OutboxError::Storage(_) => {
            tracing::error!(call, error = &error as &dyn std::error::Error, "the outbox failed");
        }
        OutboxError::Unreachable { .. } => tracing::warn!(call, "the target does not answer"),
        _ => {}
    }
    error.into()
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
