//! Sets extended attributes. Counts those that the target cannot hold or that we may not set, for one remark at the end
//! of the run.

use super::{Run, printable};
use crate::format::cbor;
use crate::format::entry::system::{ATTRIBUTES_BYTES_MAX, Attribute, read_attributes};
use crate::format::entry::{Content, Entry};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;

/// The extended attributes of an entry: those in the entry itself, or the content that holds all of them.
#[derive(Clone, Default)]
pub(super) struct Extended {
    inline: Vec<Attribute>,
    content: Option<Content>,
}

impl Extended {
    pub(super) fn of(entry: &Entry) -> Self {
        let inline = entry.system.as_ref().map(|system| system.attributes.clone()).unwrap_or_default();
        Self { inline, content: entry.attributes_content().cloned() }
    }
}

/// The object that gets the attributes.
#[derive(Clone, Copy)]
pub(super) enum Bearer<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// The file that this path leads to.
    Path(&'a str),
    /// The symbolic link at this path.
    Link(&'a [u8]),
}

impl Bearer<'_> {
    fn set(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Bearer::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
            Bearer::Path(path) => rustix::fs::setxattr(path, name, value, flags),
            Bearer::Link(path) => rustix::fs::lsetxattr(path, name, value, flags),
        }
    }

    fn has(self, name: &[u8], value: &[u8]) -> bool {
        let mut found = vec![0; value.len() + 1];
        let len = match self {
            Bearer::Open(fd) => rustix::fs::fgetxattr(fd, name, found.as_mut_slice()),
            Bearer::Path(path) => rustix::fs::getxattr(path, name, found.as_mut_slice()),
            Bearer::Link(path) => rustix::fs::lgetxattr(path, name, found.as_mut_slice()),
        };
        len.is_ok_and(|len| found[..len] == *value)
    }
}

/// Facts that were lost although their item was restored.
#[derive(Default)]
pub(super) struct Losses {
    /// Number of devices that were left out.
    pub(super) devices: u64,
    /// Number of further names of files that became files of their own.
    pub(super) alone: u64,
    /// Number of items with missing attributes.
    items: u64,
    /// The first missing attribute, with the reason.
    first: Option<String>,
}

impl Losses {
    fn attribute(&mut self, path: &[u8], name: &[u8], error: &str) {
        self.items += 1;
        self.first.get_or_insert_with(|| format!("{} of {}: {error}", printable(name), printable(path)));
    }

    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.devices > 0 {
            let count = self.devices;
            remarks.push(format!(
                "{count} device files were left out: only root may make them, where their owner is known"
            ));
        }
        if self.alone > 0 {
            let count = self.alone;
            remarks.push(format!("{count} further names of hard-linked files became files of their own"));
        }
        if let Some(first) = &self.first {
            let count = self.items;
            remarks.push(format!("{count} items lack extended attributes that could not be set, the first {first}"));
        }
        remarks
    }
}

/// Returns whether any user may set this attribute on their own file. Other attributes give powers, or hold labels of
/// the system.
fn is_for_everybody(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"system.posix_acl_access" || name == b"system.posix_acl_default"
}

impl Run<'_> {
    /// Sets the attributes of the item that was restored at `path`. `is_owned` says whether the item has the owner that
    /// the snapshot names.
    pub(super) fn set_extended(&self, bearer: Bearer<'_>, extended: &Extended, is_owned: bool, path: &[u8]) {
        let loaded = match &extended.content {
            Some(content) => match self.load(content) {
                Ok(loaded) => Some(loaded),
                Err(error) => return self.losses.lock().attribute(path, b"all", &error),
            },
            None => None,
        };
        let mut lost = None;
        for Attribute { name, value } in loaded.as_ref().unwrap_or(&extended.inline) {
            // Capabilities are like set-user-id bits: they were given to a program of one owner and must not go to a
            // program of another.
            let may = is_for_everybody(name) || (self.can_give_away && (is_owned || **name != *b"security.capability"));
            let set = if may { bearer.set(name, value) } else { Err(Errno::PERM) };
            if let Err(error) = set
                && !bearer.has(name, value)
            {
                lost.get_or_insert((name, error));
            }
        }
        if let Some((name, error)) = lost {
            self.losses.lock().attribute(path, name, &io::Error::from(error).to_string());
        }
    }

    fn load(&self, content: &Content) -> Result<Vec<Attribute>, String> {
        // The overhead of CBOR is less than the names and values.
        if content.len() > 2 * ATTRIBUTES_BYTES_MAX as u64 {
            return Err("they are longer than any file has".to_owned());
        }
        let mut bytes = Vec::new();
        let len = usize::try_from(content.len()).map_err(|error| error.to_string())?;
        self.reader.read(content, 0, len, &mut bytes).map_err(|error| error.to_string())?;
        let mut reader = cbor::Reader::new(&bytes);
        read_attributes(&mut reader, ATTRIBUTES_BYTES_MAX).map_err(|error| error.to_string())
    }
}
