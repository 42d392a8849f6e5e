//! The layout as Maildir, for programs that read mail: each folder has its mails in `cur/`, and empty `new/` and `tmp/`.
//!
//! A mail is called `<name>:2,<flags>`, with the marks that it had when it was backed up: `F` flagged, `S` read, `D` draft. What is no
//! mail is left out. A folder that is a Maildir already, as a folder of files may be, is shown as it is.
//!
//! `cur`, `new` and `tmp` are known by the rank of their folder, with bits set that no rank of an entry has.

use super::{Located, SnapshotView, attr_of, view_error};
use crate::entry::{Directory, Entry, NAME_LEN_MAX, marks};
use crate::tree::{self, Entries, Found};
use std::borrow::Cow;
use strongroom_mount::{Attr, Kind, Rank, Totals, View, ViewError};

const SHELF_BIT: u64 = 1 << 39;
const NUMBER_SHIFT: u32 = 37;
const FOLDER_MASK: u64 = (1 << NUMBER_SHIFT) - 1;
/// What each folder of mail has, in the order of listings.
const SHELVES: [&[u8]; 3] = [b"cur", b"new", b"tmp"];
const CUR: u64 = 0;

/// One snapshot as folders in Maildir format.
pub struct MaildirView {
    items: SnapshotView,
}

type Emit<'a> = &'a mut dyn FnMut(&[u8], Attr, u64) -> bool;

impl MaildirView {
    /// Creates the Maildir view of the snapshot that `items` shows.
    pub fn new(items: SnapshotView) -> Self {
        Self { items }
    }

    /// Returns whether a folder is shown as it is: it lies in a Maildir, or is one.
    fn is_plain(&self, folder: Rank, dir: &Directory) -> Result<bool, ViewError> {
        if dir.sums.dirs > 0 {
            let cur = tree::find(&*self.items.reader, dir, SHELVES[0]).map_err(view_error)?;
            if cur.is_some_and(|found| found.entry().directory().is_some()) {
                return Ok(true);
            }
        }
        self.items.with_name(folder, |name| SHELVES.contains(&name))
    }

    fn shelf_attr(&self, folder: Rank, number: u64) -> Result<Attr, ViewError> {
        if folder.0 > FOLDER_MASK {
            return Err(ViewError::NotFound);
        }
        let attr = self.items.attr(folder)?;
        Ok(Attr { rank: Rank(SHELF_BIT | number << NUMBER_SHIFT | folder.0), size: 0, links: 2, ..attr })
    }

    /// Lists `cur`, `new` and `tmp`, and then the folders, found by the sums over them: there may be a million mails between.
    fn list_folder(&self, folder: Rank, dir: &Directory, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        for (number, name) in (0..).zip(SHELVES).skip(usize::try_from(start).unwrap_or(usize::MAX)) {
            if !emit(name, self.shelf_attr(folder, number)?, number + 1) {
                return Ok(());
            }
        }
        let shelves = SHELVES.len() as u64;
        for number in start.saturating_sub(shelves)..dir.sums.dirs {
            let found = tree::nth_directory(&*self.items.reader, dir, number).map_err(view_error)?;
            let Some(found) = found else { break };
            if !emit(&found.entry().name, folder_attr(folder, &found), shelves + number + 1) {
                break;
            }
        }
        Ok(())
    }

    fn list_mails(&self, folder: Rank, dir: &Directory, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        for found in Entries::from_number(&*self.items.reader, dir, start).map_err(view_error)? {
            let found = found.map_err(view_error)?;
            let (entry, attr) = (found.entry(), attr_of(found.entry(), rank_in(folder, &found)));
            if is_mail(entry) && !emit(&mail_name(entry), attr, found.before.entries + 1) {
                break;
            }
        }
        Ok(())
    }

    fn find_mail(&self, folder: Rank, dir: &Directory, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        // The name as it stands, or without the flags.
        let info = name.windows(3).rposition(|part| part == b":2,");
        for stem in [info.map(|end| &name[..end]), Some(name)].into_iter().flatten() {
            let found = tree::find(&*self.items.reader, dir, stem).map_err(view_error)?;
            if let Some(found) = found.filter(|found| is_mail(found.entry()) && *mail_name(found.entry()) == *name) {
                return Ok(Some(attr_of(found.entry(), rank_in(folder, &found))));
            }
        }
        Ok(None)
    }
}

/// Returns the folder of a shelf, and the shelf's number.
fn shelf(rank: Rank) -> Option<(Rank, u64)> {
    let number = (rank.0 & !SHELF_BIT) >> NUMBER_SHIFT;
    (rank.0 & SHELF_BIT != 0 && number < SHELVES.len() as u64).then_some((Rank(rank.0 & FOLDER_MASK), number))
}

fn rank_in(folder: Rank, found: &Found) -> u64 {
    found.before.items.saturating_add(folder.0 + 1)
}

/// The folders that this view adds are not counted in those of the snapshot.
fn folder_attr(folder: Rank, found: &Found) -> Attr {
    Attr { links: 1, ..attr_of(found.entry(), rank_in(folder, found)) }
}

fn is_mail(entry: &Entry) -> bool {
    // Mails that were backed up before there were texts have none.
    entry.content().is_some() && (entry.text().is_some() || entry.name.ends_with(b".eml"))
}

fn mail_name(entry: &Entry) -> Cow<'_, [u8]> {
    let marks = entry.facts.marks.unwrap_or(0);
    let mut name = entry.name.to_vec();
    name.extend_from_slice(b":2,");
    // Maildir wants the letters in order.
    for (mark, letter) in [(marks::DRAFT, b'D'), (marks::FLAGGED, b'F'), (marks::READ, b'S')] {
        name.extend((marks & mark != 0).then_some(letter));
    }
    let has_info = entry.name.contains(&b':');
    if has_info || name.len() > NAME_LEN_MAX { Cow::Borrowed(&entry.name) } else { name.into() }
}

impl View for MaildirView {
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError> {
        if let Some((folder, number)) = shelf(rank) {
            return self.shelf_attr(folder, number);
        }
        let attr = self.items.attr(rank)?;
        Ok(if attr.kind == Kind::Directory { Attr { links: 1, ..attr } } else { attr })
    }

    fn lookup(&self, parent: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        if let Some((folder, number)) = shelf(parent) {
            let dir = self.items.directory(folder)?;
            return if number == CUR { self.find_mail(folder, &dir, name) } else { Ok(None) };
        }
        let dir = self.items.directory(parent)?;
        let found = tree::find(&*self.items.reader, &dir, name).map_err(view_error)?;
        if self.is_plain(parent, &dir)? {
            return Ok(found.map(|found| Attr { links: 1, ..attr_of(found.entry(), rank_in(parent, &found)) }));
        }
        match (SHELVES.iter().position(|shelf| *shelf == name), found) {
            (Some(number), _) => self.shelf_attr(parent, number as u64).map(Some),
            (None, Some(found)) if found.entry().directory().is_some() => Ok(Some(folder_attr(parent, &found))),
            _ => Ok(None),
        }
    }

    fn parent(&self, rank: Rank) -> Result<Rank, ViewError> {
        if let Some((folder, _)) = shelf(rank) {
            return Ok(folder);
        }
        if rank == Rank::ROOT {
            return Ok(rank);
        }
        let Located { found, parent } = self.items.locate(rank)?;
        let folder = Rank(parent);
        let in_cur = found.entry().directory().is_none() && !self.is_plain(folder, &self.items.directory(folder)?)?;
        if in_cur { self.shelf_attr(folder, CUR).map(|attr| attr.rank) } else { Ok(folder) }
    }

    fn list(&self, parent: Rank, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        let (folder, number) = shelf(parent).map_or((parent, None), |(folder, number)| (folder, Some(number)));
        let dir = self.items.directory(folder)?;
        match number {
            Some(CUR) => self.list_mails(folder, &dir, start, emit),
            Some(_) => Ok(()),
            None if self.is_plain(folder, &dir)? => {
                self.items.list(folder, start, &mut |name, attr, next| emit(name, Attr { links: 1, ..attr }, next))
            }
            None => self.list_folder(folder, &dir, start, emit),
        }
    }

    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError> {
        if shelf(file).is_some() {
            return Err(ViewError::IsADirectory);
        }
        self.items.read(file, offset, size)
    }

    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError> {
        if shelf(link).is_some() {
            return Err(ViewError::Invalid);
        }
        self.items.read_link(link)
    }

    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError> {
        if shelf(rank).is_some() {
            return Ok(Vec::new());
        }
        self.items.xattrs(rank)
    }

    fn totals(&self) -> Totals {
        self.items.totals()
    }
}
