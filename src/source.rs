//! The sources of a backup. A source walks what it holds and reports what it finds; it knows nothing of the repository.
//!
//! A walk is a sequence of [`Event`]s in depth-first order. The names in one folder come in ascending order of their
//! bytes. Other threads read the contents later, through [`Content`].

pub mod files;
pub mod graph;
pub mod mbox;
pub mod selection;

use crate::format::entry::system::{Attribute, Link, Special};
use crate::format::entry::{Facts, Timestamp};
use std::io::{self, Read};
use std::ops::ControlFlow;

/// What a source knows about an item or folder before its content is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The name in its folder.
    pub name: Box<[u8]>,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// The permission bits, if the source has them.
    pub mode: Option<u16>,
    /// User id and group id, if the source has them.
    pub owner: Option<(u32, u32)>,
    /// The extended attributes, in ascending order of their names.
    pub attributes: Vec<Attribute>,
    /// Why `attributes` is incomplete; `None` if it is complete.
    pub attributes_lost: Option<String>,
    /// What identifies a file that has several names (hard links); `None` for a file with one name.
    pub link: Option<Link>,
}

/// The bytes of an item. Nothing is read before [`Content::open`].
pub trait Content: Send {
    /// Returns roughly how many bytes the content has.
    fn len_hint(&self) -> u64;

    /// Opens the content for reading.
    ///
    /// # Errors
    /// If the item cannot be read. The item then becomes a failure in the report, and the run goes on.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;

    /// Returns true if the item is known to be a mail. For other items, the backup decides by their bytes.
    fn is_mail(&self) -> bool {
        false
    }

    /// Returns two version stamps: one from when the content was last opened, and one from now. A stamp changes
    /// whenever the bytes change, so if the two differ, the bytes that were read may be a mixture of two versions. Both
    /// are empty if the content cannot change.
    fn stamps(&self) -> (Vec<u8>, Vec<u8>) {
        Default::default()
    }

    /// Returns what is known about the file that was last opened. That file may have replaced the one that the walk
    /// found, and more may be known about it, such as its attributes. `None` if the walk knew everything.
    fn meta(&self) -> Option<Meta> {
        None
    }
}

/// An item in a folder.
pub struct Item {
    /// What the source knows about the item.
    pub meta: Meta,
    /// The path from the root of the walk.
    pub path: Vec<u8>,
    /// The kind of the item.
    pub kind: ItemKind,
    /// Facts that the source states, such as a date. For a mail, the backup adds those in its header.
    pub facts: Facts,
}

/// The kind of an item.
pub enum ItemKind {
    /// A file.
    File {
        /// The bytes of the file.
        content: Box<dyn Content>,
        /// While the fingerprint of a path stays the same, the content is unchanged. An empty fingerprint never counts
        /// as unchanged.
        fingerprint: Vec<u8>,
    },
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
    /// A named pipe, socket or device.
    Special(Special),
}

/// What a source finds on its walk.
pub enum Event {
    /// A folder begins. Everything up to its [`Event::Leave`] lies in it.
    Enter {
        /// What the source knows about the folder.
        meta: Meta,
        /// The path from the root of the walk.
        path: Vec<u8>,
    },
    /// The folder that was entered last ends.
    Leave,
    /// An item in the folder that was entered last.
    Item(Box<Item>),
    /// Something in that folder that cannot be read.
    Failed {
        /// The name in its folder.
        name: Box<[u8]>,
        /// The path from the root of the walk.
        path: Vec<u8>,
        /// Why it cannot be read.
        error: String,
    },
    /// Something in that folder that is left out on purpose, such as a folder on another file system.
    Skipped {
        /// The path from the root of the walk.
        path: Vec<u8>,
        /// Why it is left out.
        reason: &'static str,
    },
}

/// Receives the events of a walk. If it returns `Break`, the walk ends early.
pub type Sink<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// Something that can be backed up.
pub trait Source: Send + Sync {
    /// Returns what is known about the root. Its name has no meaning.
    ///
    /// # Errors
    /// If there is nothing to back up.
    fn root(&self) -> io::Result<Meta>;

    /// Walks everything under the root.
    ///
    /// # Errors
    /// If the whole walk cannot go on. A failure of a single item is an [`Event::Failed`].
    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>>;

    /// Checks, after everything was read, that the source still exists. If its disk was removed during the walk, the
    /// missing files were not deleted by their owner, so the snapshot must not say so.
    ///
    /// # Errors
    /// If the source is gone, or another folder took its place.
    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}
