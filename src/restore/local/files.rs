//! Restores one file or symbolic link: finds its name, writes it under a temporary name, and renames it.

use super::extended::{Bearer, Extended};
use super::folders::{Access, Attributes};
use super::{Reason, Run, id_of, kind_of, look};
use crate::format::entry::{Content, Entry, Timestamp};
use crate::restore::WhenExists;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

/// Files are read and written in pieces of this many bytes.
const PIECE_LEN: usize = 1 << 20;
/// Aligned runs of this many zero bytes become holes.
const HOLE_LEN: usize = 64 << 10;
static ZEROS: [u8; HOLE_LEN] = [0; HOLE_LEN];

/// Maximum number of names that are tried if other programs keep taking them.
const NAME_TRIES_MAX: u32 = 10_000;
/// Maximum length in bytes of a file extension. Longer endings are text behind a full stop.
const EXTENSION_LEN_MAX: usize = 16;

/// The result for an item, unless it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Restored,
    AlreadyThere,
    Skipped,
    /// The item was left out for a reason that is reported once for the whole run.
    Left,
}

/// Where an item is to be restored.
pub(super) enum Place {
    /// Under this free name.
    Free(Vec<u8>),
    /// In place of the existing item with this name.
    Taken(Vec<u8>),
    /// Nowhere, because of the existing item with this name.
    Nowhere(Outcome, Vec<u8>),
}

/// The result for a file, with its name.
pub(super) struct Placed {
    pub(super) outcome: Outcome,
    pub(super) name: Vec<u8>,
    /// Device and inode number, if the file was written and has several names.
    pub(super) id: Option<(u64, u64)>,
}

impl Run<'_> {
    pub(super) fn restore_file(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        content: &Content,
        path: &[u8],
        counted: &mut u64,
    ) -> Result<Placed, Reason> {
        let is_same = |stat: &Stat, name: &[u8]| self.has_content(folder, name, stat, content);
        let place = self.place(folder, entry, is_same)?;
        if let Place::Nowhere(outcome, name) = place {
            return Ok(Placed { outcome, name, id: None });
        }
        // Files without stored permissions get the default permissions, which the umask limits.
        let mode = if entry.mode.is_some() { 0o600 } else { 0o666 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |name: &str| rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(mode));
        let (fd, temporary) = self.temporary(folder, create)?;
        self.write_content(&fd, content, counted)?;
        let attributes = Attributes { mtime: Some(entry.mtime), access: Some(Access::of(entry)) };
        self.set_attributes(&fd, attributes, path)?;
        let id = match entry.link() {
            Some(_) => rustix::fs::fstat(&fd).ok().map(|stat| id_of(&stat)),
            None => None,
        };
        drop(fd);
        let (outcome, name) = self.publish(temporary, place, || self.place(folder, entry, is_same))?;
        Ok(Placed { outcome, name, id: id.filter(|_| outcome == Outcome::Restored) })
    }

    pub(super) fn restore_link(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        target: &[u8],
        path: &[u8],
    ) -> Result<Outcome, Reason> {
        let is_same = |stat: &Stat, name: &[u8]| {
            let is_link = kind_of(stat) == FileType::Symlink;
            let found = is_link.then(|| rustix::fs::readlinkat(folder, name, Vec::new()));
            Ok(found.is_some_and(|found| found.is_ok_and(|found| found.as_bytes() == target)))
        };
        let place = self.place(folder, entry, is_same)?;
        if let Place::Nowhere(outcome, _) = place {
            return Ok(outcome);
        }
        let (_, temporary) = self.temporary(folder, |name| rustix::fs::symlinkat(target, folder, name))?;
        let name = temporary.name.as_str();
        if let Some((owner, group)) = entry.owner.filter(|_| self.can_give_away) {
            let given = rustix::fs::chownat(folder, name, uid(owner), gid(group), AtFlags::SYMLINK_NOFOLLOW);
            given.or_else(tolerate).map_err(|error| Reason::io("set the owner", error))?;
        }
        // Before Linux 6.13, no system call sets attributes by folder and name.
        let itself = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
        self.set_extended(Bearer::Link(itself.as_bytes()), &Extended::of(entry), true, path);
        let times = times_of(entry.mtime);
        rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .or_else(tolerate)
            .map_err(|error| Reason::io("set the time", error))?;
        self.publish(temporary, place, || self.place(folder, entry, is_same)).map(|(outcome, _)| outcome)
    }

    /// Decides where an item goes. `is_same` tells whether an existing item has the same content.
    pub(super) fn place(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        is_same: impl Fn(&Stat, &[u8]) -> Result<bool, Reason>,
    ) -> Result<Place, Reason> {
        let name = &*entry.name;
        let look = |name: &[u8]| look(folder, name).map_err(|error| Reason::io("look at what is there", error));
        let Some(stat) = look(name)? else { return Ok(Place::Free(name.to_vec())) };
        let is_folder = kind_of(&stat) == FileType::Directory;
        match self.when_exists {
            WhenExists::Skip | WhenExists::Overwrite if is_folder => {
                return Err(Reason::Is("a folder stands where it should be"));
            }
            WhenExists::Overwrite => return Ok(Place::Taken(name.to_vec())),
            WhenExists::Skip if is_same(&stat, name)? => {
                return Ok(Place::Nowhere(Outcome::AlreadyThere, name.to_vec()));
            }
            WhenExists::Skip => return Ok(Place::Nowhere(Outcome::Skipped, name.to_vec())),
            WhenExists::KeepBoth if !is_folder && is_same(&stat, name)? => {
                return Ok(Place::Nowhere(Outcome::AlreadyThere, name.to_vec()));
            }
            WhenExists::KeepBoth => {}
        }
        for number in 1..=NAME_TRIES_MAX {
            let candidate = kept_name(name, &self.kept_tag, number);
            match look(&candidate)? {
                None => return Ok(Place::Free(candidate)),
                Some(stat) if is_same(&stat, &candidate)? => {
                    return Ok(Place::Nowhere(Outcome::AlreadyThere, candidate));
                }
                Some(_) => {}
            }
        }
        Err(Reason::Is("ten thousand files of this name are there already"))
    }

    /// Makes an item under a temporary name.
    pub(super) fn temporary<'f, T>(
        &self,
        folder: BorrowedFd<'f>,
        make: impl Fn(&str) -> Result<T, Errno>,
    ) -> Result<(T, Temporary<'f>), Reason> {
        for _ in 0..NAME_TRIES_MAX {
            let number = self.temporary_next.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", self.temporary_prefix);
            match make(&name) {
                Ok(made) => return Ok((made, Temporary { folder, name, is_there: true })),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(Reason::io("write it", error)),
            }
        }
        Err(Reason::io("write it", Errno::EXIST))
    }

    /// Gives a complete item its name, and returns the name. If another program took the name in the meantime, asks
    /// `again` for another place.
    pub(super) fn publish(
        &self,
        mut temporary: Temporary<'_>,
        mut place: Place,
        again: impl Fn() -> Result<Place, Reason>,
    ) -> Result<(Outcome, Vec<u8>), Reason> {
        for _ in 0..NAME_TRIES_MAX {
            let (renamed, name) = match place {
                Place::Nowhere(outcome, name) => return Ok((outcome, name)),
                Place::Free(name) => (temporary.rename_to_free(&name), name),
                Place::Taken(name) => (temporary.rename_over(&name), name),
            };
            match renamed {
                Ok(()) => return Ok((Outcome::Restored, name)),
                Err(Errno::EXIST) => place = again()?,
                Err(error) => return Err(Reason::io("give it its name", error)),
            }
        }
        Err(Reason::Is("its name is taken again and again"))
    }

    fn write_content(&self, fd: &OwnedFd, content: &Content, counted: &mut u64) -> Result<(), Reason> {
        let failed = |error| Reason::io("write it", error);
        let len = content.len();
        let mut piece = Vec::with_capacity(usize::try_from(len).map_or(PIECE_LEN, |len| len.min(PIECE_LEN)));
        let mut offset = 0;
        let mut ends_in_hole = false;
        while offset < len {
            if self.is_halted() {
                return Err(Reason::Interrupted);
            }
            piece.clear();
            self.reader.read(content, offset, PIECE_LEN, &mut piece)?;
            if piece.len() as u64 != (len - offset).min(PIECE_LEN as u64) {
                return Err(Reason::Is("its content is shorter than it says"));
            }
            ends_in_hole = write_piece(fd, &piece, offset).map_err(failed)?;
            offset += piece.len() as u64;
            *counted += piece.len() as u64;
            self.progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if ends_in_hole {
            rustix::fs::ftruncate(fd, len).map_err(failed)?;
        }
        Ok(())
    }

    /// Returns whether the file called `name` has this content.
    pub(super) fn has_content(
        &self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        content: &Content,
    ) -> Result<bool, Reason> {
        let len = content.len();
        if kind_of(stat) != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(len) {
            return Ok(false);
        }
        // NONBLOCK: if the file was replaced by a pipe, do not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // A file that cannot be read counts as different.
        let Ok(fd) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return Ok(false) };
        let mut wanted = Vec::new();
        let mut found = vec![0; usize::try_from(len).map_or(PIECE_LEN, |len| len.min(PIECE_LEN))];
        let mut offset = 0;
        while offset < len {
            if self.is_halted() {
                return Err(Reason::Interrupted);
            }
            wanted.clear();
            self.reader.read(content, offset, PIECE_LEN, &mut wanted)?;
            let mut filled = 0;
            while filled < wanted.len() {
                match rustix::io::pread(&fd, &mut found[filled..wanted.len()], offset + filled as u64) {
                    Ok(0) => return Ok(false),
                    Ok(count) => filled += count,
                    Err(Errno::INTR) => {}
                    Err(_) => return Ok(false),
                }
            }
            if wanted.is_empty() || found[..filled] != wanted {
                return Ok(false);
            }
            offset += wanted.len() as u64;
        }
        Ok(true)
    }

    /// Sets owner, extended attributes, permissions and time, in this order: setting the owner removes capabilities and
    /// set-user-id bits, and the permissions may forbid us to set attributes. `path` is for reports.
    pub(super) fn set_attributes(
        &self,
        fd: &OwnedFd,
        Attributes { mtime, access }: Attributes,
        path: &[u8],
    ) -> Result<(), Reason> {
        if let Some(Access { mode, owner, extended }) = access {
            let is_owned = owner.is_some_and(|owner| self.give(fd, owner));
            self.set_extended(Bearer::Open(fd.as_fd()), &extended, is_owned, path);
            if let Some(mode) = mode {
                // Without the right owner, no set-user-id and set-group-id bits: a program must not run as somebody
                // else.
                let mode = if is_owned { mode & 0o7777 } else { mode & 0o1777 };
                rustix::fs::fchmod(fd, Mode::from_raw_mode(mode.into()))
                    .or_else(tolerate)
                    .map_err(|error| Reason::io("set the permissions", error))?;
            }
        }
        let Some(mtime) = mtime else { return Ok(()) };
        rustix::fs::futimens(fd, &times_of(mtime)).or_else(tolerate).map_err(|error| Reason::io("set the time", error))
    }

    /// Sets the owner and group of a file. Returns whether the file has them now. It is no error if we may not set
    /// them.
    fn give(&self, fd: &OwnedFd, (owner, group): (u32, u32)) -> bool {
        if self.can_give_away {
            return owner != u32::MAX && group != u32::MAX && rustix::fs::fchown(fd, uid(owner), gid(group)).is_ok();
        }
        let Ok(stat) = rustix::fs::fstat(fd) else { return false };
        stat.st_uid == owner
            && (stat.st_gid == group || (group != u32::MAX && rustix::fs::fchown(fd, None, gid(group)).is_ok()))
    }
}

/// Returns the user id. None for all ones, which the system reads as "do not change".
pub(super) fn uid(raw: u32) -> Option<Uid> {
    (raw != u32::MAX).then(|| Uid::from_raw(raw))
}

pub(super) fn gid(raw: u32) -> Option<Gid> {
    (raw != u32::MAX).then(|| Gid::from_raw(raw))
}

/// Turns errors of file systems without owners, permissions or such times into success: the content counts.
pub(super) fn tolerate(error: Errno) -> Result<(), Errno> {
    match error {
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => Ok(()),
        error => Err(error),
    }
}

pub(super) fn times_of(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    }
}

/// Writes `piece` without its aligned runs of zeros. Returns whether it ends with such a run.
fn write_piece(fd: &OwnedFd, piece: &[u8], offset: u64) -> Result<bool, Errno> {
    let is_hole = |part: &[u8]| part == ZEROS;
    let mut start = 0;
    let parts: Vec<_> = piece.chunks(HOLE_LEN).collect();
    for run in parts.chunk_by(|a, b| is_hole(a) == is_hole(b)) {
        let len = run.iter().map(|part| part.len()).sum::<usize>();
        if !is_hole(run[0]) {
            write_all(fd, &piece[start..start + len], offset + start as u64)?;
        }
        start += len;
    }
    Ok(parts.last().is_some_and(|part| is_hole(part)))
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns `stem (tag).ext`, or `stem (tag 2).ext` and so on. The stem is cut to the maximum length of a name.
fn kept_name(name: &[u8], tag: &str, number: u32) -> Vec<u8> {
    let is_extension = |dot: &usize| *dot > 0 && name.len() - dot <= EXTENSION_LEN_MAX;
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(is_extension).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let tag = if number == 1 { format!(" ({tag})") } else { format!(" ({tag} {number})") };
    let mut end = stem.len().min(crate::format::entry::NAME_LEN_MAX - tag.len() - extension.len());
    // Do not cut inside a UTF-8 character.
    while end > 0 && end < stem.len() && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&stem[..end], tag.as_bytes(), extension].concat()
}

/// An item under a temporary name. Dropping it removes the item unless it was renamed.
pub(super) struct Temporary<'f> {
    folder: BorrowedFd<'f>,
    name: String,
    is_there: bool,
}

impl Temporary<'_> {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Renames the item to `name`. Fails with [`Errno::EXIST`] if the name is taken.
    fn rename_to_free(&mut self, name: &[u8]) -> Result<(), Errno> {
        let (folder, temporary) = (self.folder, self.name.as_str());
        match rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // The file system does not know NOREPLACE (NFS). A second link does the same; dropping removes the
                // first one.
                rustix::fs::linkat(folder, temporary, folder, name, AtFlags::empty())
            }
            Ok(()) => {
                self.is_there = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Renames the item to `name`, and replaces what has that name, except a folder.
    fn rename_over(&mut self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::renameat(self.folder, self.name.as_str(), self.folder, name)?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = rustix::fs::unlinkat(self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_names_keep_their_extension_and_fit() {
        let name = |name: &str, number| String::from_utf8(kept_name(name.as_bytes(), "restored", number)).unwrap();
        assert_eq!(name("Budget 2027.xlsx", 1), "Budget 2027 (restored).xlsx");
        assert_eq!(name("Budget 2027.xlsx", 2), "Budget 2027 (restored 2).xlsx");
        assert_eq!(name(".profile", 1), ".profile (restored)");
        assert_eq!(name("a. this is no extension", 1), "a. this is no extension (restored)");
        let long = name(&format!("{}.eml", "ü".repeat(125)), 10_000);
        assert!(long.len() <= 255 && long.ends_with("ü (restored 10000).eml"), "{long}");
        assert!(kept_name(&[0xbf; 255], "restored", 1).len() <= 255);
    }

    #[test]
    fn pieces_are_written_but_for_aligned_zeros() {
        use std::os::unix::fs::MetadataExt;
        let mut piece = vec![0; PIECE_LEN];
        piece[HOLE_LEN * 3 - 1] = 1;
        piece[HOLE_LEN * 7..HOLE_LEN * 9].fill(2);
        let file = tempfile::tempfile().unwrap();
        let fd = OwnedFd::from(file.try_clone().unwrap());
        assert!(write_piece(&fd, &piece, 0).unwrap());
        assert!(!write_piece(&fd, &[0; 1000], PIECE_LEN as u64).unwrap());
        let mut found = vec![9; PIECE_LEN + 1000];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 0).unwrap();
        assert!(found[..PIECE_LEN] == piece && found[PIECE_LEN..] == [0; 1000]);
        assert!(file.metadata().unwrap().blocks() * 512 < 6 * HOLE_LEN as u64);
    }
}
