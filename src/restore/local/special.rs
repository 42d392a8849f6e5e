//! Restores named pipes, sockets and devices.

use super::extended::Bearer;
use super::files::{Outcome, Place, gid, times_of, tolerate, uid};
use super::folders::Access;
use super::{Reason, Run, kind_of};
use crate::format::entry::Entry;
use crate::format::entry::system::Special;
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, Stat, makedev};
use std::os::fd::{AsRawFd, BorrowedFd};

impl Run<'_> {
    pub(super) fn restore_special(
        &self,
        folder: BorrowedFd<'_>,
        entry: &Entry,
        special: Special,
        path: &[u8],
    ) -> Result<Outcome, Reason> {
        let (kind, device) = parts_of(special);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let Access { mode, owner, extended } = Access::of(entry);
        // If others could use the device node, they could use the device.
        if is_device && (!self.can_give_away || owner.is_none()) {
            self.losses.lock().devices += 1;
            return Ok(Outcome::Left);
        }
        let is_same = |stat: &Stat, _: &[u8]| Ok(kind_of(stat) == kind && (!is_device || stat.st_rdev == device));
        let place = self.place(folder, entry, is_same)?;
        if let Place::Nowhere(outcome, _) = place {
            return Ok(outcome);
        }
        let make = |name: &str| rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device);
        let (_, temporary) = self.temporary(folder, make)?;
        let failed = |what| move |error| Reason::io(what, error);
        // PATH needs no permission on the file and does not open the device.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::openat(folder, temporary.name(), flags, Mode::empty()).map_err(failed("look at it"))?;
        let found = rustix::fs::fstat(&held).map_err(failed("look at it"))?;
        if kind_of(&found) != kind || found.st_rdev != device {
            return Err(Reason::Is("another file took its temporary name"));
        }
        let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
        let given = match owner {
            Some((owner, group)) if self.can_give_away => {
                rustix::fs::chownat(&held, "", uid(owner), gid(group), AtFlags::EMPTY_PATH).is_ok()
            }
            _ => false,
        };
        if is_device && !given {
            self.losses.lock().devices += 1;
            return Ok(Outcome::Left);
        }
        self.set_extended(Bearer::Path(&itself), &extended, given, path);
        if let Some(mode) = mode {
            let mode = if given { mode & 0o7777 } else { mode & 0o1777 };
            rustix::fs::chmod(itself.as_str(), Mode::from_raw_mode(mode.into()))
                .or_else(tolerate)
                .map_err(failed("set the permissions"))?;
        }
        rustix::fs::utimensat(folder, temporary.name(), &times_of(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .or_else(tolerate)
            .map_err(failed("set the time"))?;
        self.publish(temporary, place, || self.place(folder, entry, is_same)).map(|(outcome, _)| outcome)
    }
}

fn parts_of(special: Special) -> (FileType, Dev) {
    match special {
        Special::Fifo => (FileType::Fifo, 0),
        Special::Socket => (FileType::Socket, 0),
        Special::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
        Special::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
    }
}
