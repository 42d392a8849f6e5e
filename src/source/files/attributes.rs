//! Reads the extended attributes of files and folders.

use crate::format::entry::system::{ATTRIBUTES_BYTES_MAX, Attribute};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// Size of the first buffer for a list of names or for a value, in bytes. If it is too small, the second has the
/// maximum that Linux allows, 64 KiB.
const ROOM_FIRST: usize = 1 << 10;
const ROOM_MAX: usize = 64 << 10;

/// Reads the attributes of an open file or folder. Also returns why some could not be read.
pub(super) fn of_open(fd: impl AsFd) -> (Vec<Attribute>, Option<String>) {
    read(|buffer| rustix::fs::flistxattr(&fd, buffer), |name, buffer| rustix::fs::fgetxattr(&fd, name, buffer))
}

/// Reads the attributes of the entry `name` in an open folder. Does not open the entry and does not follow a link.
pub(super) fn of_name(folder: impl AsFd, name: &[u8]) -> (Vec<Attribute>, Option<String>) {
    // Before Linux 6.13 no call takes a folder and a name. This path leads through the folder's descriptor.
    let path = [format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).as_bytes(), name].concat();
    let path = path.as_slice();
    read(|buffer| rustix::fs::llistxattr(path, buffer), |name, buffer| rustix::fs::lgetxattr(path, name, buffer))
}

fn read(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> (Vec<Attribute>, Option<String>) {
    let names = match with_room(list) {
        Ok(names) if names.is_empty() => return (Vec::new(), None),
        Ok(names) => names,
        // The file system has no attributes, or the entry was deleted.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOENT) => return (Vec::new(), None),
        Err(error) => return (Vec::new(), Some(std::io::Error::from(error).to_string())),
    };
    let mut attributes = Vec::new();
    let mut lost = None;
    let mut len = 0;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match with_room(|buffer| get(name, buffer)) {
            Ok(value) => {
                len += name.len() + value.len();
                if len > ATTRIBUTES_BYTES_MAX {
                    return (Vec::new(), Some("they are longer than 16 MiB together".to_owned()));
                }
                attributes.push(Attribute { name: name.into(), value: value.into() });
            }
            // The attribute was removed after the names were listed.
            Err(Errno::NODATA) => {}
            Err(error) => {
                let name = String::from_utf8_lossy(name);
                lost = lost.or(Some(format!("{name}: {}", std::io::Error::from(error))));
            }
        }
    }
    attributes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    attributes.dedup_by(|a, b| a.name == b.name);
    (attributes, lost)
}

fn with_room(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut first = [0; ROOM_FIRST];
    match call(&mut first) {
        Ok(len) => Ok(first[..len.min(ROOM_FIRST)].to_vec()),
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; ROOM_MAX];
            let len = call(&mut buffer)?;
            buffer.truncate(len);
            Ok(buffer)
        }
        Err(error) => Err(error),
    }
}
