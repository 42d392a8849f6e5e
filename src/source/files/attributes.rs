//! Reads the extended attributes of what a source holds.

use crate::format::entry::system::{ATTRIBUTES_BYTES_MAX, Attribute};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// Lists of names and values are tried with this much room first; Linux has none longer than 64 KiB.
const ROOM_FIRST: usize = 1 << 10;
const ROOM_MAX: usize = 64 << 10;

/// Reads the attributes of an open file or folder, and says what could not be read.
pub(super) fn of_open(fd: impl AsFd) -> (Vec<Attribute>, Option<String>) {
    read(|buffer| rustix::fs::flistxattr(&fd, buffer), |name, buffer| rustix::fs::fgetxattr(&fd, name, buffer))
}

/// Reads the attributes of what has this name in an open folder, without opening it or following a link.
pub(super) fn of_name(folder: impl AsFd, name: &[u8]) -> (Vec<Attribute>, Option<String>) {
    // There is no call that takes a folder and a name before Linux 6.13; this path leads through the descriptor.
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
        // File systems without attributes, and those that went since.
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
            // Removed since they were listed.
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
