//! Shows a snapshot as Maildir folders, for programs that read mail. Each folder has its mails in `cur/`, and an empty
//! `new/` and `tmp/`.
//!
//! A mail is called `<name>:2,<flags>`, with the marks that it had when it was backed up: `F` flagged, `S` read, `D`
//! draft. Items that are not mails are left out. If a folder of the snapshot is itself called `cur`, `new` or `tmp`, `
//! (folder)` is added to its name.
//!
//! If a folder already is a Maildir, as a folder of files may be, it is shown as it is. Evolution spreads the mails of
//! a large Maildir over folders in it (`cur/00`, `cur/3f`), where other programs do not look. Such mails are shown in
//! `cur` itself.
//!
//! The rank of `cur`, `new` or `tmp` is the rank of the folder around it, with bits set that no entry's rank has.

use super::{Located, SnapshotView, attr_of, view_error};
use crate::format::entry::{Directory, Entry, NAME_LEN_MAX, marks};
use crate::repository::tree::{self, Entries, FoundEntry};
use std::borrow::Cow;
use strongroom_mount::{Attr, Kind, Rank, Totals, View, ViewError};

const SHELF_BIT: u64 = 1 << 39;
const NUMBER_SHIFT: u32 = 37;
const FOLDER_MASK: u64 = (1 << NUMBER_SHIFT) - 1;
/// The folders in each folder of mail, in the order of listings.
const SHELVES: [&[u8]; 3] = [b"cur", b"new", b"tmp"];
const CUR: u64 = 0;
/// Maximum number of folders that the mails of one `cur` folder may be spread over.
const SPREAD_MAX: u64 = 256;
/// Is added to the name of a folder that is called like one of the `SHELVES`.
const FOLDER_SUFFIX: &[u8] = b" (folder)";

/// One snapshot as folders in Maildir format.
pub struct MaildirView {
    items: SnapshotView,
}

/// How a folder is shown.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// With its mails in `cur`, and with an empty `new` and `tmp`.
    Mails,
    /// As it is, because it is a Maildir or part of one.
    Plain,
    /// As it is, but mails in folders that Evolution made are shown in this folder.
    Spread,
}

type Emit<'a> = &'a mut dyn FnMut(&[u8], Attr, u64) -> bool;

impl MaildirView {
    /// Creates the Maildir view of the snapshot that `items` shows.
    pub fn new(items: SnapshotView) -> Self {
        Self { items }
    }

    fn shape(&self, folder: Rank, dir: &Directory) -> Result<Shape, ViewError> {
        if self.is_maildir(dir)? {
            return Ok(Shape::Plain);
        }
        if folder == Rank::ROOT {
            return Ok(Shape::Mails);
        }
        let Located { found, parent } = self.items.locate(folder)?;
        if SHELVES.contains(&&*found.entry().name) && self.is_maildir(&self.items.directory(Rank(parent))?)? {
            return Ok(if (1..=SPREAD_MAX).contains(&dir.sums.dirs) { Shape::Spread } else { Shape::Plain });
        }
        // A folder that mails are spread over is part of a Maildir. Any other folder below `cur`, `new` or `tmp` is a
        // folder of mail.
        let is_below = may_be_spread(&found.entry().name) && self.is_shelf(Rank(parent))?;
        Ok(if is_below { Shape::Plain } else { Shape::Mails })
    }

    /// Returns true if `folder` is the `cur`, `new` or `tmp` of a folder that already is a Maildir.
    fn is_shelf(&self, folder: Rank) -> Result<bool, ViewError> {
        if folder == Rank::ROOT {
            return Ok(false);
        }
        let Located { found, parent } = self.items.locate(folder)?;
        Ok(SHELVES.contains(&&*found.entry().name) && self.is_maildir(&self.items.directory(Rank(parent))?)?)
    }

    fn is_maildir(&self, dir: &Directory) -> Result<bool, ViewError> {
        if dir.sums.dirs < SHELVES.len() as u64 {
            return Ok(false);
        }
        for name in SHELVES {
            let found = tree::find(&*self.items.reader, dir, name).map_err(view_error)?;
            if found.is_none_or(|found| found.entry().directory().is_none()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn shelf_attr(&self, folder: Rank, number: u64) -> Result<Attr, ViewError> {
        if folder.0 > FOLDER_MASK {
            return Err(ViewError::NotFound);
        }
        let attr = self.items.attr(folder)?;
        Ok(Attr { rank: Rank(SHELF_BIT | number << NUMBER_SHIFT | folder.0), size: 0, links: 2, ..attr })
    }

    /// Lists `cur`, `new` and `tmp`, and then the folders. It finds the folders through the sums in the tree, because
    /// there may be a million mails between them.
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
            if !emit(&folder_name(&found.entry().name), folder_attr(folder, &found), shelves + number + 1) {
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

    /// Lists a folder of a Maildir together with the mails in the folders that they are spread over. A position is a
    /// number in a preorder walk of the folder.
    fn list_spread(&self, folder: Rank, dir: &Directory, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        let reader = &*self.items.reader;
        let Some(first) = tree::at_rank(reader, dir, start).map_err(view_error)? else { return Ok(()) };
        let mut within = start.saturating_sub(first.before.items).saturating_sub(1);
        for found in Entries::from_number(reader, dir, first.before.entries).map_err(view_error)? {
            let found = found.map_err(view_error)?;
            let next = found.before.items.saturating_add(1);
            let Some(spread) = spread(found.entry()) else {
                let below = found.entry().directory().map_or(0, |dir| dir.sums.items);
                if !emit(&found.entry().name, folder_attr(folder, &found), next.saturating_add(below)) {
                    return Ok(());
                }
                continue;
            };
            // This folder contains no folders, so each entry counts as one.
            for mail in Entries::from_number(reader, spread, std::mem::take(&mut within)).map_err(view_error)? {
                let mail = mail.map_err(view_error)?;
                let attr = attr_of(mail.entry(), rank_in(Rank(rank_in(folder, &found)), &mail));
                if !emit(&mail.entry().name, attr, next.saturating_add(mail.before.entries + 1)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Finds an entry in a folder of a Maildir, also in the folders that its mails are spread over.
    fn find_spread(&self, folder: Rank, dir: &Directory, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        let reader = &*self.items.reader;
        let found = tree::find(reader, dir, name).map_err(view_error)?;
        if let Some(found) = found.filter(|found| spread(found.entry()).is_none()) {
            return Ok(Some(folder_attr(folder, &found)));
        }
        for number in 0..dir.sums.dirs {
            let Some(found) = tree::nth_directory(reader, dir, number).map_err(view_error)? else { break };
            let Some(spread) = spread(found.entry()) else { continue };
            if let Some(mail) = tree::find(reader, spread, name).map_err(view_error)? {
                return Ok(Some(attr_of(mail.entry(), rank_in(Rank(rank_in(folder, &found)), &mail))));
            }
        }
        Ok(None)
    }

    fn find_mail(&self, folder: Rank, dir: &Directory, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        // First the name without its flags, then the name as it is.
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

/// If `rank` is that of a `cur`, `new` or `tmp`, returns the rank of the folder around it, and its number in `SHELVES`.
fn shelf(rank: Rank) -> Option<(Rank, u64)> {
    let number = (rank.0 & !SHELF_BIT) >> NUMBER_SHIFT;
    (rank.0 & SHELF_BIT != 0 && number < SHELVES.len() as u64).then_some((Rank(rank.0 & FOLDER_MASK), number))
}

fn rank_in(folder: Rank, found: &FoundEntry) -> u64 {
    found.before.items.saturating_add(folder.0 + 1)
}

/// Sets the number of links to 1: the snapshot's number does not include the folders that this view adds.
fn folder_attr(folder: Rank, found: &FoundEntry) -> Attr {
    Attr { links: 1, ..attr_of(found.entry(), rank_in(folder, found)) }
}

/// Returns the folder at `entry` if mails are spread over it. `entry` must be in a folder of a Maildir.
fn spread(entry: &Entry) -> Option<&Directory> {
    entry.directory().filter(|dir| may_be_spread(&entry.name) && dir.sums.dirs == 0)
}

fn may_be_spread(name: &[u8]) -> bool {
    (1..=2).contains(&name.len()) && name.iter().all(u8::is_ascii_hexdigit)
}

/// Returns the name that a folder is shown with; `cur`, `new` and `tmp` are taken.
fn folder_name(name: &[u8]) -> Cow<'_, [u8]> {
    if SHELVES.contains(&name) { [name, FOLDER_SUFFIX].concat().into() } else { name.into() }
}

fn is_mail(entry: &Entry) -> bool {
    // Mails from early backups have no text, so check the name too.
    entry.content().is_some() && (entry.text().is_some() || entry.name.ends_with(b".eml"))
}

fn mail_name(entry: &Entry) -> Cow<'_, [u8]> {
    let marks = entry.facts.marks.unwrap_or(0);
    let mut name = entry.name.to_vec();
    name.extend_from_slice(b":2,");
    // Maildir requires the letters in ascending order.
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
        let find = |name| tree::find(&*self.items.reader, &dir, name).map_err(view_error);
        match self.shape(parent, &dir)? {
            Shape::Plain => return Ok(find(name)?.map(|found| folder_attr(parent, &found))),
            Shape::Spread => return self.find_spread(parent, &dir, name),
            Shape::Mails => {}
        }
        if let Some(number) = SHELVES.iter().position(|shelf| *shelf == name) {
            return self.shelf_attr(parent, number as u64).map(Some);
        }
        // If a folder's real name ends in ` (folder)`, prefer it.
        for called in [Some(name), name.strip_suffix(FOLDER_SUFFIX)].into_iter().flatten() {
            let found = find(called)?.filter(|found| found.entry().directory().is_some());
            if let Some(found) = found.filter(|found| *folder_name(&found.entry().name) == *name) {
                return Ok(Some(folder_attr(parent, &found)));
            }
        }
        Ok(None)
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
        if found.entry().directory().is_some() {
            return Ok(folder);
        }
        let dir = self.items.directory(folder)?;
        if self.shape(folder, &dir)? == Shape::Mails {
            return self.shelf_attr(folder, CUR).map(|attr| attr.rank);
        }
        if folder != Rank::ROOT {
            let Located { found, parent } = self.items.locate(folder)?;
            let above = Rank(parent);
            if spread(found.entry()).is_some() && self.shape(above, &self.items.directory(above)?)? == Shape::Spread {
                return Ok(above);
            }
        }
        Ok(folder)
    }

    fn list(&self, parent: Rank, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        let (folder, number) = shelf(parent).map_or((parent, None), |(folder, number)| (folder, Some(number)));
        let dir = self.items.directory(folder)?;
        match number {
            Some(CUR) => self.list_mails(folder, &dir, start, emit),
            Some(_) => Ok(()),
            None => match self.shape(folder, &dir)? {
                Shape::Mails => self.list_folder(folder, &dir, start, emit),
                Shape::Spread => self.list_spread(folder, &dir, start, emit),
                Shape::Plain => {
                    self.items.list(folder, start, &mut |name, attr, next| emit(name, Attr { links: 1, ..attr }, next))
                }
            },
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
