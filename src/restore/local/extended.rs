//! Sets extended attributes, and keeps count of what a target cannot hold or we may not set: that is told once a run.

use super::{Run, printable};
use crate::format::cbor;
use crate::format::entry::system::{ATTRIBUTES_BYTES_MAX, Attribute, read_attributes};
use crate::format::entry::{Content, Entry};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;

/// Extended attributes as an entry has them: those that stand in it, or where all of them are.
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

/// What attributes are set on.
#[derive(Clone, Copy)]
pub(super) enum Bearer<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// What this path leads to.
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

/// What was not restored though its item was.
#[derive(Default)]
pub(super) struct Losses {
    /// Devices, which were left out.
    pub(super) devices: u64,
    /// Further names of files, which became files of their own.
    pub(super) alone: u64,
    /// Items that lack attributes.
    items: u64,
    /// The first of those, with the reason.
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

/// Whether anybody may set an attribute of a file of theirs. Others give powers, or say what the system thinks of a
/// file.
fn is_for_everybody(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"system.posix_acl_access" || name == b"system.posix_acl_default"
}

impl Run<'_> {
    /// Sets the attributes of what was restored at `path`. `is_owned`: it belongs to whom the snapshot says.
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
            // Capabilities are as set-user-id bits: a program that has them for its owner must not give them to
            // another's.
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
        // CBOR adds less than the names and values take.
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
