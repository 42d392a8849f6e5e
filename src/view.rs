//! Shows snapshots to the mount, by implementing the traits of `strongroom_mount`.
//!
//! An entry is identified by its rank: its position in a preorder walk of the snapshot, where the root is 0. The sums
//! in the tree nodes lead from a rank to its entry, with one walk from root to leaf for each folder on the way. So a
//! view keeps no state about the entries that were looked at, apart from the reader's limited caches.

mod catalog;
mod maildir;
mod month;
mod readme;
mod steps;
mod text;

use self::steps::{Direction, Steps};
use crate::content::names::safe_name;
use crate::format::entry::{Content, Directory, Entry, EntryKind};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::tree::{self, Entries, FoundEntry};
use parking_lot::Mutex;
use std::sync::Arc;
use strongroom_mount::{Attr, Kind, Rank, Side, Time, Totals, View, ViewError};

pub use catalog::RepositoryCatalog;
pub use maildir::MaildirView;
pub use month::MonthView;
pub use text::TextView;

/// Permissions of entries for which the source gave none.
const FILE_MODE: u16 = 0o644;
const FOLDER_MODE: u16 = 0o755;
/// Maximum number of neighbouring entries that are searched for each block to read ahead.
const NEIGHBOURS_MAX: usize = 24;

/// One snapshot as a tree of files.
pub struct SnapshotView {
    reader: Arc<Reader>,
    id: SnapshotId,
    root: Entry,
    steps: Mutex<Steps>,
}

/// Selects one of an entry's contents: the item itself or its text.
type SelectContent = fn(&Entry) -> Option<&Content>;

/// An entry, and the rank of its folder.
struct Located {
    found: FoundEntry,
    parent: u64,
}

impl SnapshotView {
    /// Creates the view of `snapshot`.
    pub fn new(reader: Arc<Reader>, id: SnapshotId, snapshot: Snapshot) -> Self {
        Self { reader, id, root: snapshot.root, steps: Mutex::default() }
    }

    fn root(&self) -> &Directory {
        self.root.directory().expect("a snapshot's root is a directory")
    }

    /// Finds the entry at `rank`, which must not be the root.
    fn locate(&self, rank: Rank) -> Result<Located, ViewError> {
        let mut dir = *self.root();
        let mut parent = 0;
        loop {
            let wanted = rank.0.checked_sub(parent + 1).ok_or(ViewError::NotFound)?;
            let found = tree::at_rank(&*self.reader, &dir, wanted).map_err(view_error)?.ok_or(ViewError::NotFound)?;
            let at = found.before.items.saturating_add(parent + 1);
            if at == rank.0 {
                return Ok(Located { found, parent });
            }
            dir = *found
                .entry()
                .directory()
                .ok_or_else(|| damaged("the sums in the tree do not match the entries below them"))?;
            parent = at;
        }
    }

    fn with_entry<T>(
        &self,
        rank: Rank,
        use_entry: impl FnOnce(&Entry) -> Result<T, ViewError>,
    ) -> Result<T, ViewError> {
        match rank {
            Rank::ROOT => use_entry(&self.root),
            _ => use_entry(self.locate(rank)?.found.entry()),
        }
    }

    /// Reads from the content that `select` selects in the file at rank `file`.
    fn read_content(&self, file: Rank, offset: u64, size: usize, select: SelectContent) -> Result<Vec<u8>, ViewError> {
        if file == Rank::ROOT {
            return Err(ViewError::IsADirectory);
        }
        let found = self.locate(file)?.found;
        if found.entry().directory().is_some() {
            return Err(ViewError::IsADirectory);
        }
        let content = select(found.entry()).ok_or(ViewError::Invalid)?;
        let mut bytes = Vec::with_capacity(size.min(content.len().saturating_sub(offset) as usize));
        self.reader.read(content, offset, size, &mut bytes).map_err(view_error)?;
        if offset + bytes.len() as u64 == content.len() {
            self.read_ahead(file, &found, select);
        }
        Ok(bytes)
    }

    /// If files are being read one after the other, in either direction, decodes the blocks of the next files in
    /// advance.
    fn read_ahead(&self, file: Rank, found: &FoundEntry, select: SelectContent) {
        let blocks = |entry: &'_ Entry| select(entry).into_iter().flat_map(Content::blocks).collect::<Vec<_>>();
        let Some((direction, run)) = self.steps.lock().step(file.0) else { return };
        let wanted = self.reader.guesses_wanted(run);
        let neighbours = NEIGHBOURS_MAX * wanted;
        match direction {
            Direction::Up => self.reader.guess(wanted, found.following().take(neighbours).flat_map(blocks)),
            Direction::Down => self.reader.guess(wanted, found.preceding().take(neighbours).flat_map(blocks)),
        }
    }

    fn directory(&self, rank: Rank) -> Result<Directory, ViewError> {
        self.with_entry(rank, |entry| entry.directory().copied().ok_or(ViewError::NotADirectory))
    }
}

fn attr_of(entry: &Entry, rank: u64) -> Attr {
    let (kind, mode, links) = match &entry.kind {
        EntryKind::File(_) => (Kind::File, FILE_MODE, 1),
        EntryKind::Symlink(_) => (Kind::Symlink, 0o777, 1),
        EntryKind::Directory(dir) => {
            (Kind::Directory, FOLDER_MODE, u32::try_from(dir.sums.dirs.saturating_add(2)).unwrap_or(u32::MAX))
        }
    };
    let (uid, gid) = entry.owner.unwrap_or_default();
    Attr {
        rank: Rank(rank),
        kind,
        size: entry.size(),
        mtime: Time { secs: entry.mtime.secs, nanos: entry.mtime.nanos },
        mode: entry.mode.unwrap_or(mode),
        uid,
        gid,
        links,
    }
}

impl View for SnapshotView {
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError> {
        self.with_entry(rank, |entry| Ok(attr_of(entry, rank.0)))
    }

    fn lookup(&self, dir: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        let found = tree::find(&*self.reader, &self.directory(dir)?, name).map_err(view_error)?;
        Ok(found.map(|found| attr_of(found.entry(), found.before.items.saturating_add(dir.0 + 1))))
    }

    fn parent(&self, rank: Rank) -> Result<Rank, ViewError> {
        if rank == Rank::ROOT {
            return Ok(rank);
        }
        self.locate(rank).map(|located| Rank(located.parent))
    }

    fn list(&self, dir: Rank, start: u64, emit: &mut dyn FnMut(&[u8], Attr, u64) -> bool) -> Result<(), ViewError> {
        let directory = self.directory(dir)?;
        for found in Entries::from_number(&*self.reader, &directory, start).map_err(view_error)? {
            let found = found.map_err(view_error)?;
            let attr = attr_of(found.entry(), found.before.items.saturating_add(dir.0 + 1));
            if !emit(&found.entry().name, attr, found.before.entries + 1) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError> {
        self.read_content(file, offset, size, Entry::content)
    }

    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError> {
        self.with_entry(link, |entry| match &entry.kind {
            EntryKind::Symlink(target) => Ok(target.to_vec()),
            _ => Err(ViewError::Invalid),
        })
    }

    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError> {
        self.with_entry(rank, |entry| {
            let facts = &entry.facts;
            let texts = [
                ("subject", &facts.subject),
                ("from", &facts.from),
                ("to", &facts.to),
                ("message_id", &facts.message_id),
            ];
            let mut attributes = vec![("user.strongroom.snapshot".to_owned(), self.id.to_string().into_bytes())];
            for (name, text) in texts {
                attributes
                    .extend(text.as_ref().map(|text| (format!("user.strongroom.{name}"), text.clone().into_bytes())));
            }
            if let Some(date) = facts.date {
                let date = formatted(date, "%Y-%m-%dT%H:%M:%SZ", jiff::tz::TimeZone::UTC);
                attributes.push(("user.strongroom.date".to_owned(), date.into_bytes()));
            }
            Ok(attributes)
        })
    }

    fn totals(&self) -> Totals {
        let sums = self.root().sums;
        Totals { entries: sums.items.saturating_add(1), bytes: sums.bytes }
    }
}

/// How a mount shows its snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The items as they were backed up.
    Items,
    /// The text of mails.
    Text,
    /// Both the items and the text of mails, in separate folders.
    Both,
    /// The items in folders by year and month.
    ByMonth,
    /// The mails in Maildir folders.
    Maildir,
}

impl Layout {
    fn shows(self, side: Side) -> bool {
        match self {
            Layout::Items | Layout::ByMonth | Layout::Maildir => side == Side::Items,
            Layout::Text => side == Side::Text,
            Layout::Both => true,
        }
    }

    /// Returns the view of one side (items or text) of the snapshot that `items` shows.
    pub fn view(self, items: SnapshotView, side: Side) -> Arc<dyn View> {
        match (side, self) {
            (Side::Text, _) => Arc::new(TextView::new(items)),
            (Side::Items, Layout::ByMonth) => Arc::new(MonthView::new(items)),
            (Side::Items, Layout::Maildir) => Arc::new(MaildirView::new(items)),
            (Side::Items, _) => Arc::new(items),
        }
    }
}

/// Returns the name of a snapshot's folder: its start time in this machine's time zone, and its set.
pub fn folder_name(snapshot: &Snapshot) -> String {
    let time = local_time(snapshot.started.secs, "%Y-%m-%d %H.%M.%S");
    safe_name(&format!("{time} {}", snapshot.set), "")
}

/// Formats a time in this machine's time zone, for any year. A year outside 0 to 9999 is written as in ISO 8601: a sign
/// and at least six digits.
pub fn local_time(secs: i64, format: &str) -> String {
    formatted(secs, format, jiff::tz::TimeZone::system())
}

fn formatted(secs: i64, format: &str, zone: jiff::tz::TimeZone) -> String {
    // The calendar repeats after 400 years. `jiff` only supports the years up to 9999.
    const CYCLE_YEARS: i64 = 400;
    const CYCLE_SECS: i64 = 146_097 * 24 * 60 * 60;
    // The years from 1970 - 4 x 400 = 370 to 1970 + 19 x 400 = 9570.
    let is_near = (-4 * CYCLE_SECS..19 * CYCLE_SECS).contains(&secs);
    let cycles = if is_near { 0 } else { secs.div_euclid(CYCLE_SECS) };
    let within = if is_near { secs } else { secs.rem_euclid(CYCLE_SECS) };
    let time = jiff::Timestamp::from_second(within).expect("within the years that jiff has").to_zoned(zone);
    let year = i64::from(time.year()) + cycles * CYCLE_YEARS;
    let year = if (0..=9999).contains(&year) { format!("{year:04}") } else { format!("{year:+07}") };
    time.strftime(&format.replace("%Y", &year)).to_string()
}

fn damaged(what: &str) -> ViewError {
    ViewError::Damaged { what: what.to_owned() }
}

fn view_error(error: ReadError) -> ViewError {
    if error.is_damage() {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        ViewError::Damaged { what: format!("{error}{cause}") }
    } else {
        ViewError::Backend { source: Box::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_year_is_shown() {
        let utc = |secs| formatted(secs, "%Y-%m-%dT%H:%M:%S%:z", jiff::tz::TimeZone::UTC);
        for (secs, expected) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (1_793_525_400, "2026-11-01T09:30:00+00:00"),
            (-1, "1969-12-31T23:59:59+00:00"),
            (253_402_300_799, "9999-12-31T23:59:59+00:00"),
            (253_402_300_800, "+010000-01-01T00:00:00+00:00"),
            (999_999_999_999, "+033658-09-27T01:46:39+00:00"),
            (-62_167_219_200, "0000-01-01T00:00:00+00:00"),
            (-62_167_219_201, "-000001-12-31T23:59:59+00:00"),
            (-99_999_999_999, "-001199-02-15T14:13:21+00:00"),
            (i64::MAX, "+292277026596-12-04T15:30:07+00:00"),
            (i64::MIN, "-292277022657-01-27T08:29:52+00:00"),
        ] {
            assert_eq!(utc(secs), expected, "{secs}");
        }
        assert!(local_time(i64::MAX, "%Y").starts_with("+29227702659") && local_time(0, "%Y").starts_with("19"));
    }
}
