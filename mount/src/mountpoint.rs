//! Mount points: finds out what is mounted where, removes dead mounts, and unmounts.
//!
//! The device number in `/proc/self/mountinfo` identifies our mount. Asking the folder itself would send a request to
//! the file system, and would fail if the serving process is dead.

use crate::mount_error::MountError;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Source and subtype of our mounts, as shown by `mount` and `findmnt`.
pub(crate) const FS_NAME: &str = "strongroom";
/// Maximum number of dead mounts, one on top of the other, that are removed.
const DEAD_MOUNTS_MAX: usize = 8;

/// A device number, `major:minor`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Device(pub(crate) String);

#[derive(Debug)]
struct MountEntry {
    device: Device,
    path: PathBuf,
    fs_type: String,
    source: String,
}

impl MountEntry {
    fn is_ours(&self) -> bool {
        self.fs_type == format!("fuse.{FS_NAME}") || (self.fs_type == "fuse" && self.source == FS_NAME)
    }
}

fn table() -> io::Result<Vec<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Returns the uppermost mount at `path` (the last one in the table), if there is one.
fn mounted_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(table()?.into_iter().rfind(|entry| entry.path == path))
}

/// Returns whether the device `major:minor` is a mount of this program, served by this process or another.
pub fn is_own_device(major: u32, minor: u32) -> bool {
    let device = Device(format!("{major}:{minor}"));
    table().is_ok_and(|table| table.iter().any(|entry| entry.device == device && entry.is_ours()))
}

/// Returns whether a mount of this program is at `path`, which must be free of symbolic links. Sends no request to the
/// mount, which may belong to another program or be dead.
pub fn is_own_mount(path: &Path) -> bool {
    mounted_at(path).is_ok_and(|entry| entry.is_some_and(|entry| entry.is_ours()))
}

/// Parses a line `id parent major:minor root path options [tags] - type source options` (proc(5)).
fn parse(line: &[u8]) -> Option<MountEntry> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|byte| *byte == b' ');
    let device = Device(text(fields.nth(2)?));
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountEntry { device, path, fs_type: text(fields.next()?), source: text(fields.next()?) })
}

/// Decodes the octal escapes such as `\040` with which the table writes spaces, tabs, newlines and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Returns the device number of the mount at `path`.
pub(crate) fn device_at(path: &Path) -> Option<Device> {
    mounted_at(path).ok().flatten().map(|entry| entry.device)
}

/// Prepares the folder `at` for mounting, and removes dead mounts that a killed process of ours left there. Returns the
/// path without symbolic links.
pub(crate) fn prepare(at: &Path) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::Failed { path: at.to_owned(), source };
    // There may be several dead mounts, one on top of the other.
    for _ in 0..DEAD_MOUNTS_MAX {
        let Some(path) = dead_mount(at).map_err(failed)? else { break };
        if !mounted_at(&path).map_err(failed)?.is_some_and(|entry| entry.is_ours()) {
            return Err(MountError::DeadMount { path });
        }
        tracing::warn!(path = %path.display(), "removing the dead mount of a process that was killed");
        detach(&path).map_err(failed)?;
    }
    match std::fs::metadata(at) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(MountError::NotADirectory { path: at.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::NotFound { path: at.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    }
    let path = at.canonicalize().map_err(failed)?;
    if mounted_at(&path).map_err(failed)?.is_some_and(|entry| entry.is_ours()) {
        return Err(MountError::AlreadyMounted { path });
    }
    // If the folder cannot be listed, leave it to the system to refuse the mount.
    if std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(MountError::NotEmpty { path });
    }
    Ok(path)
}

/// Returns the path of the mount at `at` if the process that served it is dead.
fn dead_mount(at: &Path) -> io::Result<Option<PathBuf>> {
    // Do not use stat: the kernel may still answer that from its cache after the process died.
    match rustix::fs::statfs(at) {
        Err(Errno::NOTCONN) => Ok(Some(resolve_dead(at)?)),
        _ => Ok(None),
    }
}

/// Resolves the path except for its last component, which cannot be accessed because its mount is dead.
fn resolve_dead(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(absolute),
    }
}

/// Unmounts `path`. Fails with EBUSY if the mount is in use. Users other than root need `fusermount3` for this.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => fusermount(path, "-u"),
        result => Ok(result?),
    }
}

/// Detaches the mount at `path` from the tree at once. Files that are open in it stay open.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        Err(Errno::PERM) => fusermount(path, "-uz"),
        result => Ok(result?),
    }
}

fn fusermount(path: &Path, option: &str) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.args([option, "--"]).arg(path).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // `fusermount3` has no exit code for EBUSY, so look for it in its message.
    let busy = message.contains("busy");
    Err(if busy { Errno::BUSY.into() } else { io::Error::other(message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_the_mount_table() {
        let line =
            br"36 35 0:98 / /mnt/two\040words rw,nosuid shared:1 master:2 - fuse.strongroom strongroom rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.device, Device("0:98".into()));
        assert_eq!(entry.path, Path::new("/mnt/two words"));
        assert!(entry.is_ours());
        assert!(!parse(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw").unwrap().is_ours());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn unescapes() {
        assert_eq!(unescape(br"a\134b\011\0z"), b"a\\b\t\\0z");
    }
}
