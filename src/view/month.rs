//! Shows a snapshot by month: an item called `2026-11-...` appears in `2026/11/`, and every other item where it was.
//!
//! In folders of mail, names begin with the date, so the items of one month follow each other in the tree. A month is a
//! range of the folder's entries, which is found by seeking. The rank of a year's or month's folder is the rank of its
//! first entry, with a bit set that no entry's rank has. Its name and content follow from that entry.
//!
//! If a folder already holds something called `2026`, the folder of that year is called `2026 by month`.

use super::{Located, SnapshotView, attr_of, view_error};
use crate::format::entry::Directory;
use crate::repository::tree::{self, Entries, FoundEntry};
use std::ops::Range;
use strongroom_mount::{Attr, Kind, Rank, Totals, View, ViewError};

const YEAR_BIT: u64 = 1 << 39;
const MONTH_BIT: u64 = 1 << 38;
/// Length of `2026-11-`, in bytes.
const PREFIX_LEN: usize = 8;

/// One snapshot with its items in folders by year and month.
pub struct MonthView {
    items: SnapshotView,
}

/// What a rank identifies.
enum Resolved {
    /// An entry of the snapshot.
    Entry,
    /// The folder of a year or of a month.
    Period(Period),
}

struct Period {
    /// The rank of the snapshot's folder that holds the entries.
    folder: Rank,
    dir: Directory,
    /// The rank of the first entry in this year or month.
    first: u64,
    month: Month,
    is_year: bool,
}

/// A year and month, as the beginning of a name: `2026-11-`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Month([u8; PREFIX_LEN]);

impl Month {
    fn of(name: &[u8]) -> Option<Self> {
        let prefix: [u8; PREFIX_LEN] = name.get(..PREFIX_LEN)?.try_into().ok()?;
        let [y1, y2, y3, y4, b'-', m1, m2, b'-'] = prefix else { return None };
        let is_month = matches!((m1, m2), (b'0', b'1'..=b'9') | (b'1', b'0'..=b'2'));
        ([y1, y2, y3, y4].iter().all(u8::is_ascii_digit) && is_month).then_some(Month(prefix))
    }

    fn year(&self) -> &[u8] {
        &self.0[..4]
    }

    /// Returns the month called `name` in the same year.
    fn sibling(&self, name: &[u8]) -> Option<Self> {
        Month::of(&[self.year(), b"-", name, b"-"].concat())
    }

    fn name(&self) -> &[u8] {
        &self.0[5..7]
    }

    /// Returns the smallest name after all names that begin with this month.
    fn end(&self) -> [u8; PREFIX_LEN] {
        let mut end = self.0;
        end[PREFIX_LEN - 1] += 1;
        end
    }

    fn of_year(year: &[u8]) -> impl Iterator<Item = Month> {
        (1..=12).filter_map(move |month: u32| Month::of(&[year, format!("-{month:02}-").as_bytes()].concat()))
    }
}

impl MonthView {
    /// Creates the view by month of the snapshot that `items` shows.
    pub fn new(items: SnapshotView) -> Self {
        Self { items }
    }

    fn resolve(&self, rank: Rank) -> Result<Resolved, ViewError> {
        if rank.0 & YEAR_BIT == 0 {
            return Ok(Resolved::Entry);
        }
        let first = rank.0 & (MONTH_BIT - 1);
        let Located { found, parent } = self.items.locate(Rank(first))?;
        let month = Month::of(&found.entry().name).ok_or(ViewError::NotFound)?;
        let (folder, dir) = (Rank(parent), self.items.directory(Rank(parent))?);
        Ok(Resolved::Period(Period { folder, dir, first, month, is_year: rank.0 & MONTH_BIT == 0 }))
    }

    /// Returns the first entry of `dir` whose name is `name` or comes after it.
    fn first_from(&self, dir: &Directory, name: &[u8]) -> Result<Option<FoundEntry>, ViewError> {
        let found = Entries::from_name(&*self.items.reader, dir, name).map_err(view_error)?.next();
        found.transpose().map_err(view_error)
    }

    /// Returns the entries of a month as a range of their numbers in the folder, and the first of them. Returns `None`
    /// if there are none.
    fn entries(&self, dir: &Directory, month: Month) -> Result<Option<(Range<u64>, FoundEntry)>, ViewError> {
        let first = self.first_from(dir, &month.0)?.filter(|found| Month::of(&found.entry().name) == Some(month));
        let Some(first) = first else { return Ok(None) };
        let end = self.first_from(dir, &month.end())?.map_or(dir.sums.entries, |found| found.before.entries);
        Ok(Some((first.before.entries..end, first)))
    }

    /// Returns the first entry of a year.
    fn first_of_year(&self, dir: &Directory, year: &[u8]) -> Result<Option<FoundEntry>, ViewError> {
        for month in Month::of_year(year) {
            if let Some((_, first)) = self.entries(dir, month)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Returns the name of a year's folder: the year, unless the folder holds something else with that name.
    fn year_name(&self, dir: &Directory, year: &[u8]) -> Result<Vec<u8>, ViewError> {
        let mut name = year.to_vec();
        while tree::find(&*self.items.reader, dir, &name).map_err(view_error)?.is_some() {
            name.extend_from_slice(b" by month");
        }
        Ok(name)
    }

    /// Returns the attributes of a folder of the snapshot or of this view. The number of links is 1, because the
    /// folders in it are not counted.
    fn folder_attr(&self, folder: Rank, rank: u64) -> Result<Attr, ViewError> {
        let attr = self.items.attr(folder)?;
        Ok(Attr { rank: Rank(rank), size: 0, links: 1, ..attr })
    }

    fn period_attr(&self, folder: Rank, first: u64, is_year: bool) -> Result<Attr, ViewError> {
        let kind = if is_year { YEAR_BIT } else { YEAR_BIT | MONTH_BIT };
        if first >= MONTH_BIT {
            return Err(ViewError::NotFound);
        }
        self.folder_attr(folder, kind | first)
    }

    fn attr_of(&self, folder: Rank, found: &FoundEntry) -> Attr {
        let attr = attr_of(found.entry(), rank_in(folder, found));
        if attr.kind == Kind::Directory { Attr { links: 1, ..attr } } else { attr }
    }

    fn lookup_in_folder(&self, folder: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        let dir = self.items.directory(folder)?;
        if let Some(year) = name.get(..4).filter(|year| year.iter().all(u8::is_ascii_digit))
            && let Some(first) = self.first_of_year(&dir, year)?
            && self.year_name(&dir, year)? == name
        {
            return self.period_attr(folder, rank_in(folder, &first), true).map(Some);
        }
        if Month::of(name).is_some() {
            return Ok(None);
        }
        let found = tree::find(&*self.items.reader, &dir, name).map_err(view_error)?;
        Ok(found.map(|found| self.attr_of(folder, &found)))
    }

    fn lookup_in_period(&self, period: &Period, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        if period.is_year {
            let Some(month) = period.month.sibling(name) else { return Ok(None) };
            let Some((_, first)) = self.entries(&period.dir, month)? else { return Ok(None) };
            return self.period_attr(period.folder, rank_in(period.folder, &first), false).map(Some);
        }
        if Month::of(name) != Some(period.month) {
            return Ok(None);
        }
        let found = tree::find(&*self.items.reader, &period.dir, name).map_err(view_error)?;
        Ok(found.map(|found| self.attr_of(period.folder, &found)))
    }

    fn list_folder(&self, folder: Rank, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        let dir = self.items.directory(folder)?;
        let mut at = start;
        // List up to the next month, skip that month, and continue after it.
        'months: loop {
            for found in Entries::from_number(&*self.items.reader, &dir, at).map_err(view_error)? {
                let found = found.map_err(view_error)?;
                let Some(month) = Month::of(&found.entry().name) else {
                    if !emit(&found.entry().name, self.attr_of(folder, &found), found.before.entries + 1) {
                        return Ok(());
                    }
                    continue;
                };
                let first = self.first_of_year(&dir, month.year())?.map(|first| first.before.entries);
                let end = self.entries(&dir, month)?.map_or(found.before.entries + 1, |(range, _)| range.end);
                if first == Some(found.before.entries) {
                    let attr = self.period_attr(folder, rank_in(folder, &found), true)?;
                    if !emit(&self.year_name(&dir, month.year())?, attr, end) {
                        return Ok(());
                    }
                }
                at = end;
                continue 'months;
            }
            return Ok(());
        }
    }

    fn list_year(&self, period: &Period, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        let months = Month::of_year(period.month.year()).zip(1..);
        for (month, position) in months.skip(usize::try_from(start).unwrap_or(usize::MAX)) {
            let Some((_, first)) = self.entries(&period.dir, month)? else { continue };
            let attr = self.period_attr(period.folder, rank_in(period.folder, &first), false)?;
            if !emit(month.name(), attr, position) {
                break;
            }
        }
        Ok(())
    }

    fn list_month(&self, period: &Period, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        let Some((range, _)) = self.entries(&period.dir, period.month)? else { return Ok(()) };
        let at = range.start.saturating_add(start);
        for found in Entries::from_number(&*self.items.reader, &period.dir, at).map_err(view_error)? {
            let found = found.map_err(view_error)?;
            let number = found.before.entries;
            let attr = self.attr_of(period.folder, &found);
            if number >= range.end || !emit(&found.entry().name, attr, number + 1 - range.start) {
                break;
            }
        }
        Ok(())
    }
}

type Emit<'a> = &'a mut dyn FnMut(&[u8], Attr, u64) -> bool;

fn rank_in(folder: Rank, found: &FoundEntry) -> u64 {
    found.before.items.saturating_add(folder.0 + 1)
}

impl View for MonthView {
    fn attr(&self, rank: Rank) -> Result<Attr, ViewError> {
        match self.resolve(rank)? {
            Resolved::Period(period) => self.period_attr(period.folder, period.first, period.is_year),
            Resolved::Entry => {
                let attr = self.items.attr(rank)?;
                Ok(if attr.kind == Kind::Directory { Attr { links: 1, ..attr } } else { attr })
            }
        }
    }

    fn lookup(&self, dir: Rank, name: &[u8]) -> Result<Option<Attr>, ViewError> {
        match self.resolve(dir)? {
            Resolved::Period(period) => self.lookup_in_period(&period, name),
            Resolved::Entry => self.lookup_in_folder(dir, name),
        }
    }

    fn parent(&self, rank: Rank) -> Result<Rank, ViewError> {
        if let Resolved::Period(period) = self.resolve(rank)? {
            if period.is_year {
                return Ok(period.folder);
            }
            let first = self.first_of_year(&period.dir, period.month.year())?.ok_or(ViewError::NotFound)?;
            return Ok(Rank(YEAR_BIT | rank_in(period.folder, &first)));
        }
        if rank == Rank::ROOT {
            return Ok(rank);
        }
        let Located { found, parent } = self.items.locate(rank)?;
        let Some(month) = Month::of(&found.entry().name) else { return Ok(Rank(parent)) };
        let folder = Rank(parent);
        let (_, first) = self.entries(&self.items.directory(folder)?, month)?.ok_or(ViewError::NotFound)?;
        Ok(Rank(YEAR_BIT | MONTH_BIT | rank_in(folder, &first)))
    }

    fn list(&self, dir: Rank, start: u64, emit: Emit<'_>) -> Result<(), ViewError> {
        match self.resolve(dir)? {
            Resolved::Period(period) if period.is_year => self.list_year(&period, start, emit),
            Resolved::Period(period) => self.list_month(&period, start, emit),
            Resolved::Entry => self.list_folder(dir, start, emit),
        }
    }

    fn read(&self, file: Rank, offset: u64, size: usize) -> Result<Vec<u8>, ViewError> {
        match self.resolve(file)? {
            Resolved::Period(_) => Err(ViewError::IsADirectory),
            Resolved::Entry => self.items.read(file, offset, size),
        }
    }

    fn read_link(&self, link: Rank) -> Result<Vec<u8>, ViewError> {
        match self.resolve(link)? {
            Resolved::Period(_) => Err(ViewError::Invalid),
            Resolved::Entry => self.items.read_link(link),
        }
    }

    fn xattrs(&self, rank: Rank) -> Result<Vec<(String, Vec<u8>)>, ViewError> {
        match self.resolve(rank)? {
            Resolved::Period(_) => Ok(Vec::new()),
            Resolved::Entry => self.items.xattrs(rank),
        }
    }

    fn totals(&self) -> Totals {
        self.items.totals()
    }
}
