//! An outbox in memory. It records what was dropped and what would have been restored.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use strongroom_mount::{Draft, Item, ItemKind, Outbox, OutboxError, State, Time};

/// Maximum file length in bytes that the outbox accepts.
pub const LEN_MAX: u64 = 100 << 20;

#[derive(Default)]
pub struct Basket {
    state: Mutex<Inner>,
    /// While the target is away, requests wait for this.
    back: Condvar,
}

#[derive(Default)]
struct Inner {
    folders: BTreeSet<Vec<u8>>,
    texts: BTreeMap<Vec<u8>, String>,
    dropped: BTreeMap<Vec<u8>, Dropped>,
    restored: Vec<(String, Vec<u8>)>,
    withdrawn: Vec<String>,
    changed: Vec<Vec<u8>>,
    drafts: usize,
    commits: usize,
    /// True if released files wait for a commit.
    waits: bool,
    away: bool,
    asked_while_away: usize,
    fails: Option<fn() -> OutboxError>,
    lists: usize,
}

struct Dropped {
    bytes: Vec<u8>,
    mtime: Time,
    state: State,
    released: bool,
}

/// A folder into which files can be dropped.
pub const INBOX: &str = "contoso/Users/bob@contoso.com/Outlook/Inbox";

impl Basket {
    pub fn new() -> Arc<Basket> {
        let basket = Arc::new(Basket::default());
        {
            let mut inner = basket.lock();
            for folder in ["", "original", "jobs", "read only"] {
                inner.folders.insert(folder.into());
            }
            let mut path = String::new();
            for name in INBOX.split('/') {
                path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                inner.folders.insert(path.clone().into());
            }
            inner.texts.insert(b"jobs/first.txt".to_vec(), "nothing yet\n".to_owned());
        }
        basket
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap()
    }

    /// The same as [`Basket::lock`], but waits until the target is available.
    fn reach(&self) -> Result<MutexGuard<'_, Inner>, OutboxError> {
        let mut inner = self.lock();
        if inner.away {
            inner.asked_while_away += 1;
        }
        while inner.away {
            inner = self.back.wait(inner).unwrap();
        }
        if let Some(error) = inner.fails {
            std::mem::drop(inner);
            return Err(error());
        }
        Ok(inner)
    }

    /// Returns the files that would be in the accounts, in the order of their restore.
    pub fn restored(&self) -> Vec<(String, Vec<u8>)> {
        self.lock().restored.clone()
    }

    /// Returns the paths of the files that would be in the accounts, sorted.
    pub fn restored_paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.lock().restored.iter().map(|(path, _)| path.clone()).collect();
        paths.sort();
        paths
    }

    pub fn withdrawn(&self) -> Vec<String> {
        self.lock().withdrawn.clone()
    }

    /// Returns the paths of all sealed files, released or not.
    pub fn sealed(&self) -> Vec<String> {
        self.lock().dropped.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    pub fn mtime(&self, path: &str) -> Option<Time> {
        self.lock().dropped.get(path.as_bytes()).map(|dropped| dropped.mtime)
    }

    pub fn is_folder(&self, path: &str) -> bool {
        self.lock().folders.contains(path.as_bytes())
    }

    /// Returns the number of existing drafts.
    pub fn drafts(&self) -> usize {
        self.lock().drafts
    }

    pub fn commits(&self) -> usize {
        self.lock().commits
    }

    pub fn lists(&self) -> usize {
        self.lock().lists
    }

    pub fn asked_while_away(&self) -> usize {
        self.lock().asked_while_away
    }

    /// From now on, dropped files wait for a commit.
    pub fn wait_for_commit(&self) {
        self.lock().waits = true;
    }

    pub fn go_away(&self, away: bool) {
        self.lock().away = away;
        self.back.notify_all();
    }

    pub fn fail(&self, error: Option<fn() -> OutboxError>) {
        self.lock().fails = error;
    }

    pub fn add_folder(&self, path: &[u8]) {
        self.lock().folders.insert(path.to_vec());
    }

    pub fn set_state(&self, path: &str, state: State) {
        let mut inner = self.lock();
        inner.dropped.get_mut(path.as_bytes()).unwrap().state = state;
        inner.changed.push(path.into());
    }

    pub fn set_text(&self, path: &str, text: &str) {
        let mut inner = self.lock();
        inner.texts.insert(path.into(), text.to_owned());
        inner.changed.push(path.into());
    }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |at| &path[at + 1..])
}

impl Inner {
    fn accepts(folder: &[u8]) -> bool {
        folder.starts_with(b"original") || folder.starts_with(b"contoso/Users/bob@contoso.com")
    }

    fn get(&self, path: &[u8]) -> Option<Item> {
        let (kind, mtime) = if self.folders.contains(path) {
            (ItemKind::Folder { accepts: Inner::accepts(path) }, Time { secs: 1_600_000_000, nanos: 0 })
        } else if let Some(text) = self.texts.get(path) {
            (ItemKind::Text { len: text.len() as u64 }, Time { secs: 1_600_000_000, nanos: 0 })
        } else {
            // Files that are not released yet are not shown. The contract allows that.
            let dropped = self.dropped.get(path).filter(|dropped| dropped.released)?;
            let kind = ItemKind::Dropped { len: dropped.bytes.len() as u64, state: dropped.state.clone() };
            (kind, dropped.mtime)
        };
        Some(Item { name: name(path).to_vec(), kind, mtime })
    }

    fn restore(&mut self, path: &[u8]) {
        let dropped = self.dropped.get_mut(path).unwrap();
        dropped.state = State::Queued;
        self.restored.push((String::from_utf8_lossy(path).into_owned(), dropped.bytes.clone()));
    }
}

/// A handle to a basket, which drafts refer to.
pub struct Handle(pub Arc<Basket>);

impl Outbox for Handle {
    fn item(&self, path: &[u8]) -> Result<Item, OutboxError> {
        self.0.reach()?.get(path).ok_or(OutboxError::NotFound)
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Item>, OutboxError> {
        let mut inner = self.0.reach()?;
        inner.lists += 1;
        if !inner.folders.contains(path) {
            return Err(OutboxError::NotFound);
        }
        let paths = inner.folders.iter().chain(inner.texts.keys()).chain(inner.dropped.keys());
        let paths: Vec<_> = paths.filter(|below| !below.is_empty() && parent(below) == path).collect();
        Ok(paths.into_iter().filter_map(|path| inner.get(path)).collect())
    }

    fn read(&self, path: &[u8], offset: u64, size: usize) -> Result<Vec<u8>, OutboxError> {
        let inner = self.0.reach()?;
        let bytes = match (inner.texts.get(path), inner.dropped.get(path)) {
            (Some(text), _) => text.as_bytes(),
            (_, Some(dropped)) => &dropped.bytes,
            _ => return Err(OutboxError::NotFound),
        };
        Ok(bytes.iter().skip(offset as usize).take(size).copied().collect())
    }

    fn make_folder(&self, path: &[u8]) -> Result<(), OutboxError> {
        let mut inner = self.0.reach()?;
        if !Inner::accepts(parent(path)) {
            return Err(OutboxError::NotPermitted);
        }
        inner.folders.insert(path.to_vec());
        Ok(())
    }

    fn begin(&self, folder: &[u8]) -> Result<Box<dyn Draft>, OutboxError> {
        let mut inner = self.0.lock();
        if !Inner::accepts(folder) {
            return Err(OutboxError::NotPermitted);
        }
        inner.drafts += 1;
        let basket = self.0.clone();
        Ok(Box::new(Paper { basket, bytes: Vec::new(), sealed: None }))
    }

    fn withdraw(&self, path: &[u8]) -> Result<(), OutboxError> {
        let mut inner = self.0.lock();
        let dropped = inner.dropped.get(path).ok_or(OutboxError::NotPermitted)?;
        if dropped.released && dropped.state != State::Waiting {
            return Err(OutboxError::NotPermitted);
        }
        inner.dropped.remove(path);
        inner.withdrawn.push(String::from_utf8_lossy(path).into_owned());
        Ok(())
    }

    fn set_mtime(&self, path: &[u8], mtime: Time) -> Result<(), OutboxError> {
        let mut inner = self.0.reach()?;
        inner.dropped.get_mut(path).ok_or(OutboxError::NotFound)?.mtime = mtime;
        Ok(())
    }

    fn commit(&self) -> Result<(), OutboxError> {
        let mut inner = self.0.reach()?;
        inner.commits += 1;
        let waiting = inner.dropped.iter().filter(|(_, dropped)| dropped.state == State::Waiting);
        let waiting: Vec<_> = waiting.map(|(path, _)| path.clone()).collect();
        for path in waiting {
            inner.restore(&path);
        }
        Ok(())
    }

    fn take_changes(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().changed)
    }
}

struct Paper {
    basket: Arc<Basket>,
    bytes: Vec<u8>,
    /// The path, and whether the same content was dropped there before.
    sealed: Option<(Vec<u8>, bool)>,
}

impl Paper {
    fn unseal(&mut self) {
        if let Some((path, false)) = self.sealed.take() {
            self.basket.lock().dropped.remove(&path);
        }
    }
}

impl Draft for Paper {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), OutboxError> {
        self.unseal();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if end as u64 > LEN_MAX {
            return Err(OutboxError::TooLarge);
        }
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> Result<(), OutboxError> {
        self.unseal();
        if len > LEN_MAX {
            return Err(OutboxError::TooLarge);
        }
        self.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, OutboxError> {
        Ok(self.bytes.iter().skip(offset as usize).take(size).copied().collect())
    }

    fn seal(&mut self, path: &[u8], mtime: Option<Time>) -> Result<(), OutboxError> {
        let mut inner = self.basket.reach()?;
        if !self.bytes.starts_with(b"Subject:") {
            return Err(OutboxError::WrongKind);
        }
        if !Inner::accepts(parent(path)) {
            return Err(OutboxError::NotPermitted);
        }
        if let Some(before) = inner.dropped.get(path) {
            if before.bytes != self.bytes {
                return Err(OutboxError::NotPermitted);
            }
            self.sealed = Some((path.to_vec(), true));
            return Ok(());
        }
        let mtime = mtime.unwrap_or(Time { secs: 1_650_000_000, nanos: 0 });
        let state = State::Queued;
        inner.dropped.insert(path.to_vec(), Dropped { bytes: self.bytes.clone(), mtime, state, released: false });
        self.sealed = Some((path.to_vec(), false));
        Ok(())
    }

    fn release(self: Box<Self>) {
        let Some((path, false)) = &self.sealed else { return };
        let mut inner = self.basket.lock();
        let waits = inner.waits;
        let dropped = inner.dropped.get_mut(path).expect("sealed, so it is there");
        dropped.released = true;
        if waits {
            dropped.state = State::Waiting;
        } else {
            inner.restore(path);
        }
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        self.basket.lock().drafts -= 1;
    }
}
