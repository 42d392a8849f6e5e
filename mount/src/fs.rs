//! The file system as plain functions: they take inode numbers and return attributes, names and bytes. They need no
//! kernel and no mount.
//!
//! Everything that the mount promises is decided here, except for what only FUSE can say (cache switches: `fuse.rs`).
//! The same code serves two layouts:
//!
//! ```text
//! one snapshot      inode 1 is the root of the view
//! a catalog         README.txt   latest -> snapshots/<newest>   snapshots/<name>/...   text/<name>/...   (restore/)
//! ```
//!
//! The tree below `restore/` can change and may wait for a network. `live` serves it.
//!
//! Invariants: an answer about the inside of a snapshot depends only on the snapshot and the options, so the kernel may
//! keep it forever ([`TTL_FOREVER`]). An answer that can change has the lifetime [`TTL_CHANGING`], and [`Changes`]
//! announces the change. If a view fails or panics, only the one operation fails. The log then names the entry, but
//! never its content.

use crate::catalog::{Changes, Listing, NAME_LENGTH_BYTES_MAX, Snapshot};
use crate::error::FsError;
use crate::inode::{Ino, Slot, fixed};
use crate::outbox::Outbox;
use crate::view::{Attr, Catalog, Kind, READ_SIZE_BYTES_MAX, Rank, Side, Time, Totals, View, ViewError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How long the kernel may keep answers about the inside of a snapshot: ten years, in effect forever.
pub const TTL_FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How long the kernel may keep answers about folders that can change. This limits the effect of a lost notification.
pub const TTL_CHANGING: Duration = Duration::from_secs(1);
/// Unit of `statfs` in bytes, and the read size that `st_blksize` recommends.
pub const BLOCK_SIZE_BYTES: u32 = 4096;

/// What a file system shows.
#[derive(Clone)]
pub enum Target {
    /// One snapshot, its root at the root of the file system.
    View(Arc<dyn View>),
    /// All snapshots of a catalog, one folder each.
    Catalog(Arc<dyn Catalog>),
    /// All snapshots of a catalog, and a folder `restore` into which files can be dropped.
    Restoring(Arc<dyn Catalog>, Arc<dyn Outbox>),
}

/// How entries are presented.
#[derive(Clone, Copy, Debug)]
pub struct Presentation {
    /// User and group that own everything, in place of the stored owners. The owner's permission to read (and to enter
    /// directories) is then added to the stored permissions, because whoever mounts a backup may read it.
    pub owner: Option<(u32, u32)>,
    /// User and group that own the folders that the mount itself adds.
    pub mounted_by: (u32, u32),
    /// Whether extended attributes are shown.
    pub xattr: bool,
}

/// What `stat` shows of an entry. The access and change times are equal to the modification time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stat {
    /// Inode number.
    pub ino: Ino,
    /// Kind of the entry.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Permission bits, `07777`.
    pub mode: u16,
    /// User id of the owner, as presented.
    pub uid: u32,
    /// Group id, as presented.
    pub gid: u32,
    /// Link count.
    pub links: u32,
    /// How long the kernel may keep this answer.
    pub ttl: Duration,
}

impl Stat {
    /// Returns the size in units of 512 bytes, rounded up.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(512)
    }
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lookup {
    /// The entry exists.
    Entry(Stat),
    /// The entry does not exist. The kernel may keep this answer for the given time.
    Nothing(Duration),
}

/// One name in a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Name, without `/`.
    pub name: &'a [u8],
    /// Attributes. For `.` and `..` only `ino` and `kind` are meaningful.
    pub stat: Stat,
    /// The offset from which a listing continues after this entry.
    pub next: u64,
}

/// The numbers of `statfs`. Free space is always 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// Size in blocks of [`BLOCK_SIZE_BYTES`].
    pub blocks: u64,
    /// Number of entries.
    pub files: u64,
}

/// The file system. Methods may be called from any thread.
pub struct Fs {
    shows: Shows,
    /// Whether the root has a folder `restore`.
    restores: bool,
    presentation: Presentation,
}

enum Shows {
    View(Arc<dyn View>),
    Catalog(Listing),
}

/// What an inode number stands for.
enum Node {
    Root,
    Latest,
    /// The top folder of this side of the snapshots, such as `snapshots`.
    SideFolder(Side),
    Readme,
    Restore,
    Entry(Entry),
}

struct Entry {
    view: Arc<dyn View>,
    /// `None` if the mount shows one view only.
    snapshot: Option<Arc<Snapshot>>,
    side: Side,
    slot: Slot,
    rank: Rank,
}

impl Fs {
    /// Returns a file system that shows `target`.
    ///
    /// # Errors
    /// The catalog's error if its snapshots could not be listed.
    pub fn new(target: Target, presentation: Presentation) -> Result<Fs, FsError> {
        let restores = matches!(target, Target::Restoring(..));
        let shows = match target {
            Target::View(view) => Shows::View(view),
            Target::Catalog(catalog) | Target::Restoring(catalog, _) => Shows::Catalog(Listing::new(catalog)?),
        };
        Ok(Fs { shows, restores, presentation })
    }

    /// Reads the list of snapshots again and returns the changes. Must be called from one thread at a time.
    ///
    /// # Errors
    /// The catalog's error. The file system then shows what it showed before.
    pub fn refresh(&self) -> Result<Changes, FsError> {
        match &self.shows {
            Shows::View(_) => Ok(Changes::default()),
            Shows::Catalog(listing) => listing.refresh(),
        }
    }

    /// Returns the entry called `name` in the directory `parent`. Also resolves `.` and `..`, which file handles (NFS)
    /// need. A found entry counts as one reference, until [`Fs::forget`] removes it.
    ///
    /// # Errors
    /// [`ViewError::NotADirectory`] if `parent` is not a directory. A missing entry is an answer, not an error.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Lookup, FsError> {
        if name.len() > NAME_LENGTH_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        let found = match name {
            b"." => Lookup::Entry(self.stat(parent)?),
            b".." => Lookup::Entry(self.stat(self.parent(parent)?)?),
            _ => self.child(parent, name)?,
        };
        if let Lookup::Entry(stat) = &found {
            self.referenced(stat.ino);
        }
        Ok(found)
    }

    /// Records that the kernel dropped `count` references to `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Shows::Catalog(listing) = &self.shows
            && let Some(snapshot) = listing.by_slot(ino.slot())
        {
            snapshot.forgotten(count);
        }
    }

    /// Returns the attributes of `ino`.
    ///
    /// # Errors
    /// [`FsError::Stale`] if its snapshot is gone.
    pub fn stat(&self, ino: Ino) -> Result<Stat, FsError> {
        match self.node(ino)? {
            Node::Entry(entry) => {
                let attr = entry.call("attr", |view, rank| view.attr(rank))?;
                self.present(&entry, attr)
            }
            node => Ok(self.own(&node)),
        }
    }

    /// Returns the target of the symbolic link `ino`.
    ///
    /// # Errors
    /// [`ViewError::Invalid`] if it is not a symbolic link.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        match self.node(ino)? {
            Node::Entry(entry) => entry.call("read_link", |view, rank| view.read_link(rank)),
            Node::Latest => self.latest_target().ok_or(ViewError::NotFound.into()),
            _ => Err(ViewError::Invalid.into()),
        }
    }

    /// Returns up to `size` bytes at `offset` of the file `ino`, but at most [`READ_SIZE_BYTES_MAX`]. Returns fewer
    /// only at the end of the file.
    ///
    /// # Errors
    /// [`ViewError::IsADirectory`] or [`ViewError::Invalid`] if it is not a file.
    pub fn read(&self, ino: Ino, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
        let size = size.min(READ_SIZE_BYTES_MAX);
        match self.node(ino)? {
            Node::Entry(entry) => {
                let mut bytes = entry.call("read", |view, rank| view.read(rank, offset, size))?;
                // Never return more than was asked for: the kernel would not accept the answer.
                bytes.truncate(size);
                Ok(bytes)
            }
            Node::Readme => {
                let text = self.readme();
                let start = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
                Ok(text.as_bytes()[start..].iter().take(size).copied().collect())
            }
            Node::Latest => Err(ViewError::Invalid.into()),
            Node::Root | Node::SideFolder(_) | Node::Restore => Err(ViewError::IsADirectory.into()),
        }
    }

    /// Calls `emit` with the entries of the directory `dir`, until `emit` returns false. Starts at `offset`, which is 0
    /// or an earlier [`Listed::next`]; `.` and `..` come first. Each entry that `emit` accepted counts as one
    /// reference, except for `.` and `..`.
    ///
    /// # Errors
    /// [`ViewError::NotADirectory`] if it is not a directory.
    pub fn list(&self, dir: Ino, offset: u64, emit: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<(), FsError> {
        let node = self.node(dir)?;
        if matches!(node, Node::Latest | Node::Readme) {
            return Err(ViewError::NotADirectory.into());
        }
        if offset < 2 {
            let directory = |ino| Stat { kind: Kind::Directory, ..self.own_stat(ino, 0) };
            if offset == 0 && !emit(Listed { name: b".", stat: directory(dir), next: 1 }) {
                return Ok(());
            }
            let parent = self.parent(dir)?;
            if !emit(Listed { name: b"..", stat: directory(parent), next: 2 }) {
                return Ok(());
            }
        }
        let start = offset.saturating_sub(2);
        let emit = &mut |name: &[u8], stat: Stat, next: u64| {
            // Count the reference before the entry is sent: the kernel may forget the entry before this thread
            // continues.
            self.referenced(stat.ino);
            let taken = emit(Listed { name, stat, next: next + 2 });
            if !taken {
                self.forget(stat.ino, 1);
            }
            taken
        };
        match node {
            Node::Root => self.list_root(start, emit),
            Node::SideFolder(side) => self.list_snapshots(side, start, emit),
            Node::Entry(entry) => self.list_entry(&entry, start, emit),
            Node::Restore => Ok(()),
            Node::Latest | Node::Readme => Err(ViewError::NotADirectory.into()),
        }
    }

    /// Returns the value of the extended attribute `name` of `ino`.
    ///
    /// # Errors
    /// [`FsError::NotOffered`] if the mount shows no extended attributes, [`FsError::NoAttribute`] if this one does not
    /// exist.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if !self.presentation.xattr {
            return Err(FsError::NotOffered);
        }
        // `ls -l` asks for security.* and system.* of every file. The view need not be asked for these.
        if !name.starts_with(b"user.") {
            return Err(FsError::NoAttribute);
        }
        let attributes = self.xattrs(ino)?;
        attributes
            .into_iter()
            .find_map(|(known, value)| (known.as_bytes() == name).then_some(value))
            .ok_or(FsError::NoAttribute)
    }

    /// Returns the names of the extended attributes of `ino`, each followed by a NUL byte.
    ///
    /// # Errors
    /// [`FsError::NotOffered`] if the mount shows no extended attributes.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        if !self.presentation.xattr {
            return Err(FsError::NotOffered);
        }
        let names = self.xattrs(ino)?.into_iter().map(|(name, _)| name).filter(|name| name.starts_with("user."));
        Ok(names.flat_map(|name| name.into_bytes().into_iter().chain([0])).collect())
    }

    /// Returns the size of the shown snapshot, or of the newest one in a catalog. (The sum over all snapshots would
    /// count the same mail once per snapshot.)
    pub fn space(&self) -> Space {
        let totals = match &self.shows {
            Shows::View(view) => totals(view.as_ref()),
            Shows::Catalog(listing) => listing
                .newest()
                .zip(self.first_side())
                .and_then(|(newest, side)| listing.view(&newest.snapshot, side).ok())
                .map_or_else(Totals::default, |view| totals(view.as_ref())),
        };
        Space { blocks: totals.bytes.div_ceil(BLOCK_SIZE_BYTES.into()), files: totals.entries }
    }

    /// Returns the id of the snapshot that contains `ino`. `None` for files and folders that the mount itself adds, and
    /// for a mount of a single snapshot.
    pub fn snapshot_id(&self, ino: Ino) -> Option<[u8; 32]> {
        Some(self.listing()?.by_slot(ino.slot())?.id)
    }

    /// Returns whether the listing of `dir` can change.
    pub fn changes(&self, dir: Ino) -> bool {
        matches!(self.shows, Shows::Catalog(_)) && dir.slot() == Slot::ZERO
    }

    fn node(&self, ino: Ino) -> Result<Node, FsError> {
        let rank = || ino.rank().ok_or(FsError::Stale);
        match &self.shows {
            Shows::View(view) if ino.slot() == Slot::ZERO && ino.side() == Side::Items => {
                let (view, side) = (view.clone(), Side::Items);
                Ok(Node::Entry(Entry { view, snapshot: None, side, slot: Slot::ZERO, rank: rank()? }))
            }
            Shows::View(_) => Err(FsError::Stale),
            Shows::Catalog(listing) => match ino {
                fixed::ROOT => Ok(Node::Root),
                fixed::LATEST => Ok(Node::Latest),
                fixed::SNAPSHOTS => Ok(Node::SideFolder(Side::Items)),
                fixed::TEXT => Ok(Node::SideFolder(Side::Text)),
                fixed::README => Ok(Node::Readme),
                fixed::RESTORE if self.restores => Ok(Node::Restore),
                _ => {
                    let snapshot = listing.by_slot(ino.slot()).ok_or(FsError::Stale)?;
                    let (side, slot) = (ino.side(), snapshot.slot);
                    let view = listing.view(&snapshot, side)?;
                    Ok(Node::Entry(Entry { view, side, slot, snapshot: Some(snapshot), rank: rank()? }))
                }
            },
        }
    }

    fn parent(&self, ino: Ino) -> Result<Ino, FsError> {
        match self.node(ino)? {
            Node::Entry(entry) if entry.rank == Rank::ROOT && entry.snapshot.is_some() => {
                Ok(fixed::side_folder(entry.side))
            }
            Node::Entry(entry) => {
                let parent = entry.call("parent", |view, rank| view.parent(rank))?;
                Ino::of(entry.side, entry.slot, parent).ok_or(FsError::TooManyEntries)
            }
            _ => Ok(fixed::ROOT),
        }
    }

    fn child(&self, parent: Ino, name: &[u8]) -> Result<Lookup, FsError> {
        let node = match (self.node(parent)?, name) {
            (Node::Entry(entry), _) => {
                return Ok(match entry.call("lookup", |view, rank| view.lookup(rank, name))? {
                    Some(attr) => Lookup::Entry(self.present(&entry, attr)?),
                    None => Lookup::Nothing(TTL_FOREVER),
                });
            }
            (Node::Root, b"README.txt") => Node::Readme,
            (Node::Root, b"restore") if self.restores => Node::Restore,
            (Node::Root, b"latest") if self.latest_target().is_some() => Node::Latest,
            (Node::SideFolder(side), _) => {
                let Some(folder) = self.listing().and_then(|listing| listing.by_name(name)) else {
                    return Ok(Lookup::Nothing(TTL_CHANGING));
                };
                let ino = Ino::of(side, folder.snapshot.slot, Rank::ROOT).ok_or(FsError::TooManyEntries)?;
                return Ok(Lookup::Entry(self.stat(ino)?));
            }
            (Node::Root, _) => match self.sides().find(|side| side.folder().as_bytes() == name) {
                Some(side) => Node::SideFolder(side),
                None if name == b"latest" => return Ok(Lookup::Nothing(TTL_CHANGING)),
                // Nothing else ever appears in the root, but file managers keep looking for `.hidden` and similar
                // names.
                None => return Ok(Lookup::Nothing(TTL_FOREVER)),
            },
            (Node::Restore, _) => return Ok(Lookup::Nothing(Duration::ZERO)),
            (Node::Latest | Node::Readme, _) => return Err(ViewError::NotADirectory.into()),
        };
        Ok(Lookup::Entry(self.own(&node)))
    }

    fn list_root(&self, start: u64, emit: &mut dyn FnMut(&[u8], Stat, u64) -> bool) -> Result<(), FsError> {
        let latest = self.latest_target().map(|_| Node::Latest);
        let side_folder = |side| self.sides().find(|shown| *shown == side).map(Node::SideFolder);
        // Each entry has a fixed position, even while `latest` is missing.
        let entries: [(&[u8], Option<Node>); 5] = [
            (b"README.txt", Some(Node::Readme)),
            (b"latest", latest),
            (Side::Items.folder().as_bytes(), side_folder(Side::Items)),
            (Side::Text.folder().as_bytes(), side_folder(Side::Text)),
            (b"restore", self.restores.then_some(Node::Restore)),
        ];
        for ((name, node), next) in entries.into_iter().zip(1..) {
            if let Some(node) = node
                && next > start
                && !emit(name, self.own(&node), next)
            {
                break;
            }
        }
        Ok(())
    }

    fn list_snapshots(
        &self,
        side: Side,
        start: u64,
        emit: &mut dyn FnMut(&[u8], Stat, u64) -> bool,
    ) -> Result<(), FsError> {
        for folder in self.listing().map(|listing| listing.from(start)).unwrap_or_default() {
            let ino = Ino::of(side, folder.snapshot.slot, Rank::ROOT).ok_or(FsError::TooManyEntries)?;
            // Listing a thousand names must not open a thousand snapshots. So a snapshot that is not open yet is listed
            // with attributes that expire at once. A program that needs the attributes then asks again.
            let stat = match folder.snapshot.view_if_open(side) {
                Some(_) => self.stat(ino),
                None => Ok(Stat { mtime: folder.snapshot.time, ttl: Duration::ZERO, ..self.own_stat(ino, 0o555) }),
            };
            let stat = stat.unwrap_or(Stat { ttl: Duration::ZERO, ..self.own_stat(ino, 0o555) });
            if !emit(folder.name.as_bytes(), stat, folder.position + 1) {
                break;
            }
        }
        Ok(())
    }

    fn list_entry(
        &self,
        dir: &Entry,
        start: u64,
        emit: &mut dyn FnMut(&[u8], Stat, u64) -> bool,
    ) -> Result<(), FsError> {
        let mut failed = None;
        dir.call("list", |view, rank| {
            view.list(rank, start, &mut |name, attr, next| match self.present(dir, attr) {
                Ok(stat) => emit(name, stat, next),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            })
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<(String, Vec<u8>)>, FsError> {
        match self.node(ino)? {
            Node::Entry(entry) => entry.call("xattrs", |view, rank| view.xattrs(rank)),
            _ => Ok(Vec::new()),
        }
    }

    fn listing(&self) -> Option<&Listing> {
        match &self.shows {
            Shows::View(_) => None,
            Shows::Catalog(listing) => Some(listing),
        }
    }

    fn readme(&self) -> Arc<str> {
        self.listing().map(Listing::readme).unwrap_or_default()
    }

    fn latest_target(&self) -> Option<Vec<u8>> {
        let (side, newest) = (self.first_side()?, self.listing()?.newest()?);
        Some(format!("{}/{}", side.folder(), newest.name).into_bytes())
    }

    /// Returns the sides of the snapshots that the catalog shows.
    fn sides(&self) -> impl Iterator<Item = Side> {
        Side::ALL.into_iter().filter(|side| self.listing().is_some_and(|listing| listing.shows(*side)))
    }

    fn first_side(&self) -> Option<Side> {
        self.sides().next()
    }

    fn referenced(&self, ino: Ino) {
        if let Some(snapshot) = self.listing().and_then(|listing| listing.by_slot(ino.slot())) {
            snapshot.referenced();
        }
    }

    /// Returns the attributes to show for an entry of a view.
    fn present(&self, entry: &Entry, attr: Attr) -> Result<Stat, FsError> {
        let ino = Ino::of(entry.side, entry.slot, attr.rank).ok_or(FsError::TooManyEntries)?;
        let mut mode = attr.mode & 0o7777;
        let (uid, gid) = match self.presentation.owner {
            Some(owner) => {
                mode |= if attr.kind == Kind::Directory { 0o500 } else { 0o400 };
                owner
            }
            None => (attr.uid, attr.gid),
        };
        // The root of a snapshot lies in a folder that can change.
        let hangs = entry.snapshot.is_some() && attr.rank == Rank::ROOT;
        let ttl = if hangs { TTL_CHANGING } else { TTL_FOREVER };
        let links = attr.links.max(1);
        Ok(Stat { ino, kind: attr.kind, size: attr.size, mtime: attr.mtime, mode, uid, gid, links, ttl })
    }

    /// Returns the attributes of a folder or file that the mount itself adds.
    fn own(&self, node: &Node) -> Stat {
        let file = |ino, kind, mode, size| Stat { kind, size, links: 1, ..self.own_stat(ino, mode) };
        match node {
            Node::Root => {
                let folders = self.sides().count() + usize::from(self.restores);
                let links = u32::try_from(folders).expect("three at most") + 2;
                Stat { links, ..self.own_stat(fixed::ROOT, 0o555) }
            }
            // A link count of 1 means that the number of subfolders is not known.
            Node::Restore => Stat { links: 1, ..self.own_stat(fixed::RESTORE, 0o700) },
            Node::Latest => {
                let length = self.latest_target().map_or(0, |target| target.len());
                file(fixed::LATEST, Kind::Symlink, 0o777, length as u64)
            }
            Node::Readme => file(fixed::README, Kind::File, 0o444, self.readme().len() as u64),
            Node::SideFolder(_) | Node::Entry(_) => {
                let side = if let Node::SideFolder(side) = node { *side } else { Side::Items };
                let count = self.listing().map_or(0, Listing::count);
                let links = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(2);
                Stat { links, ..self.own_stat(fixed::side_folder(side), 0o555) }
            }
        }
    }

    /// Returns the attributes of a directory that the mount itself adds. It has the time of the newest snapshot.
    fn own_stat(&self, ino: Ino, mode: u16) -> Stat {
        let (uid, gid) = self.presentation.mounted_by;
        let mtime = self.listing().and_then(Listing::newest).map_or_else(Time::default, |newest| newest.snapshot.time);
        Stat { ino, kind: Kind::Directory, size: 0, mtime, mode, uid, gid, links: 2, ttl: TTL_CHANGING }
    }
}

impl Entry {
    /// Asks the view about this entry. Turns a panic into an error. Logs damage, storage failures and panics.
    fn call<T>(
        &self,
        call: &'static str,
        f: impl FnOnce(&dyn View, Rank) -> Result<T, ViewError>,
    ) -> Result<T, FsError> {
        let rank = self.rank;
        let snapshot = || self.snapshot.as_deref().map(Snapshot::short_id).unwrap_or_default();
        match catch_unwind(AssertUnwindSafe(|| f(self.view.as_ref(), rank))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if matches!(error, ViewError::Damaged { .. } | ViewError::Backend { .. }) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(call, snapshot = snapshot(), %rank, error, "could not read from the snapshot");
                }
                Err(error.into())
            }
            Err(_) => {
                tracing::error!(call, snapshot = snapshot(), %rank, "the view panicked");
                Err(FsError::Panicked)
            }
        }
    }
}

fn totals(view: &dyn View) -> Totals {
    catch_unwind(AssertUnwindSafe(|| view.totals())).unwrap_or_else(|_| {
        tracing::error!(call = "totals", "the view panicked");
        Totals::default()
    })
}
