//! Shows a snapshot as text: the same folders, and in them the text of each mail as `<name>.txt`.
//!
//! Ranks are those of the snapshot. A file without a text is left out. If a name would become too long with `.txt`, it
//! is cut, and the rank of the mail makes it unique. If a folder has the same name as a mail's text, the folder is
//! shown.

use super::{SnapshotView, attr_of, view_error};
use crate::format::entry::{Directory, Entry, NAME_LEN_MAX};
use crate::repository::tree::{self, Entries, FoundEntry};
use std::borrow::Cow;
use strongroom_mount::{Attr, Kind, Rank, Totals, View, ViewError};

const ENDING: &[u8] = b".txt";

/// One snapshot as the text of its mails.
pub struct TextView {
    items: SnapshotView,
}

impl TextView {
    /// Creates the text view of the snapshot that `items` shows.
    pub fn new(items: SnapshotView) -> Self {
        Self { items }
    }

    /// Calls `answer` with the entry at `rank`, if it is a folder or has a text.
    fn with_entry<T>(&self, rank: Rank, answer: impl FnOnce(&Entry) -> Result<T, ViewError>) -> Result<T, ViewError> {
        self.items.with_entry(rank, |entry| if is_shown(entry) { answer(entry) } else { Err(ViewError::NotFound) })
    }

    fn find(&self, dir: &Directory, name: &[u8]) -> Result<Option<FoundEntry>, ViewError> {
        tree::find(&*self.items.reader, dir, name).map_err(view_error)
    }

    fn is_directory(&self, dir: &Directory, name: &[u8]) -> Result<bool, ViewError> {
        Ok(dir.sums.dirs > 0 && self.find(dir, name)?.is_some_and(|found| found.entry().directory().is_some()))
    }

    /// Finds the mail whose text is called `name`.
    fn find_mail(&self, parent: Rank, dir: &Directory, name: &[u8]) -> Result<Option<(FoundEntry, Rank)>, ViewError> {
        let Some(stem) = name.strip_suffix(ENDING) else { return Ok(None) };
        let rank = |found: &FoundEntry| Rank(found.before.items.saturating_add(parent.0 + 1));
        let named = self.find(dir, stem)?.map(|found| (rank(&found), found));
        let is_it = |(rank, found): &(Rank, FoundEntry)| {
            found.entry().text().is_some() && *text_name(&found.entry().name, *rank) == *name
        };
        if let Some((rank, found)) = named.filter(is_it) {
            return Ok(Some((found, rank)));
        }
        // A name that was cut ends in the rank of its mail.
        let number = stem.rsplit(|byte| *byte == b'~').next().and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(number) = number.and_then(|digits| digits.parse::<u64>().ok()) else { return Ok(None) };
        let Some(below) = number.checked_sub(parent.0 + 1).filter(|below| *below < dir.sums.items) else {
            return Ok(None);
        };
        let found = tree::at_rank(&*self.items.reader, dir, below).map_err(view_error)?;
        let found = found.map(|found| (rank(&found), found)).filter(|found| found.0.0 == number);
        Ok(found.filter(is_it).map(|(rank, found)| (found, rank)))
    }
}

fn is_shown(entry: &Entry) -> bool {
    entry.directory().is_some() || entry.text().is_some()
}

fn text_attr(entry: &Entry, rank: Rank) -> Attr {
    let attr = attr_of(entry, rank.0);
    match entry.text() {
        Some(text) => Attr { kind: Kind::File, size: text.len(), ..attr },
        None => attr,
    }
}

fn text_name(name: &[u8], rank: Rank) -> Cow<'static, [u8]> {
    if name.len() + ENDING.len() <= NAME_LEN_MAX {
        return [name, ENDING].concat().into();
    }
    let ending = format!("~{rank}.txt").into_bytes();
    let mut end = NAME_LEN_MAX - ending.len();
    // Do not cut inside a UTF-8 character.
    while end > 0 && name[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&name[..end], &ending].concat().into()
}

impl View for TextView {
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError> {
        self.with_entry(rank, |entry| Ok(text_attr(entry, rank)))
    }

    fn lookup(&self, parent: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        let dir = self.items.directory(parent)?;
        if self.is_directory(&dir, name)? {
            return self.items.lookup(parent, name);
        }
        let mail = self.find_mail(parent, &dir, name)?;
        Ok(mail.map(|(found, rank)| text_attr(found.entry(), rank)))
    }

    fn parent(&self, rank: Rank) -> Result<Rank, ViewError> {
        self.items.parent(rank)
    }

    fn list(&self, parent: Rank, start: u64, emit: &mut dyn FnMut(&[u8], Attr, u64) -> bool) -> Result<(), ViewError> {
        let dir = self.items.directory(parent)?;
        // Positions are the numbers of the snapshot's entries.
        for found in Entries::from_number(&*self.items.reader, &dir, start).map_err(view_error)? {
            let found = found.map_err(view_error)?;
            let (entry, rank) = (found.entry(), Rank(found.before.items.saturating_add(parent.0 + 1)));
            if !is_shown(entry) {
                continue;
            }
            let name = match entry.directory() {
                Some(_) => Cow::Borrowed(&*entry.name),
                None => text_name(&entry.name, rank),
            };
            if entry.directory().is_none() && self.is_directory(&dir, &name)? {
                continue;
            }
            if !emit(&name, text_attr(entry, rank), found.before.entries + 1) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError> {
        self.items.read_content(file, offset, size, Entry::text)
    }

    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError> {
        self.with_entry(link, |_| Err(ViewError::Invalid))
    }

    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError> {
        self.items.xattrs(rank)
    }

    /// Returns the totals of the items, because the texts are not counted.
    fn totals(&self) -> Totals {
        self.items.totals()
    }
}
