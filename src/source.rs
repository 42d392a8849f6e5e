//! Where items come from. A source walks what it has and tells what it meets; it knows nothing of the repository.
//!
//! The walk is a sequence of [`Event`]s in depth-first order, the names of one folder in ascending order of their
//! bytes. Contents are read later, by other threads, through [`Content`].

pub mod files;
pub mod graph;
pub mod mbox;
pub mod selection;

use crate::format::entry::system::{Attribute, Link, Special};
use crate::format::entry::{Facts, Timestamp};
use std::io::{self, Read};
use std::ops::ControlFlow;

/// What a source knows of an item or folder before its content is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Its name in its folder.
    pub name: Box<[u8]>,
    /// When its content last changed.
    pub mtime: Timestamp,
    /// Permission bits, where they mean something.
    pub mode: Option<u16>,
    /// Owner and group, where they mean something.
    pub owner: Option<(u32, u32)>,
    /// Its extended attributes, in ascending order of their names.
    pub attributes: Vec<Attribute>,
    /// Why not all of those are here, if they are not.
    pub attributes_lost: Option<String>,
    /// What it has in common with its other names, if it is a file with several.
    pub link: Option<Link>,
}

/// The bytes of an item, not read yet.
pub trait Content: Send {
    /// Returns roughly how many bytes there will be.
    fn len_hint(&self) -> u64;

    /// Opens it for reading.
    ///
    /// # Errors
    /// When the item cannot be read; it then becomes a failure in the report, and the run goes on.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;

    /// Returns whether it is a mail, whatever its bytes look like. Of other content the bytes tell.
    fn is_mail(&self) -> bool {
        false
    }

    /// Returns what is different whenever the bytes are: as it was when they were opened last, and as it is now. Where
    /// the two are not the same, what was read may be a mixture. Empty for what cannot change.
    fn stamps(&self) -> (Vec<u8>, Vec<u8>) {
        Default::default()
    }

    /// Returns what is known of what was opened last, where that may be another item than the walk met, or more than it
    /// knew.
    fn meta(&self) -> Option<Meta> {
        None
    }
}

/// An item of a folder.
pub struct Item {
    /// What is known of it.
    pub meta: Meta,
    /// Its path from the root of the walk.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// What is known of it beyond its bytes; a file that is a mail says more of itself.
    pub facts: Facts,
}

/// What an item is.
pub enum ItemKind {
    /// A file.
    File {
        /// Its bytes.
        content: Box<dyn Content>,
        /// As long as this is the same under the same path, the content is the same. Empty: never believed.
        fingerprint: Vec<u8>,
    },
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
    /// A named pipe, socket or device.
    Special(Special),
}

/// What a source meets on its walk.
pub enum Event {
    /// A folder; everything up to its [`Event::Leave`] lies in it.
    Enter {
        /// What is known of it.
        meta: Meta,
        /// Its path from the root of the walk.
        path: Vec<u8>,
    },
    /// The end of the folder entered last.
    Leave,
    /// An item of the folder entered last.
    Item(Box<Item>),
    /// Something of that folder that cannot be read.
    Failed {
        /// Its name.
        name: Box<[u8]>,
        /// Its path from the root of the walk.
        path: Vec<u8>,
        /// Why.
        error: String,
    },
    /// Something of that folder that cannot be backed up by its nature, such as a socket.
    Skipped {
        /// Its path from the root of the walk.
        path: Vec<u8>,
        /// Why.
        reason: &'static str,
    },
}

/// Takes the events of a walk; `Break` ends it early.
pub type Sink<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// Something that can be backed up.
pub trait Source: Send + Sync {
    /// Returns what is known of the root, under a name that means nothing.
    ///
    /// # Errors
    /// When there is nothing to back up.
    fn root(&self) -> io::Result<Meta>;

    /// Walks everything under the root.
    ///
    /// # Errors
    /// When the walk cannot go on at all. What fails for one item alone is an event.
    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>>;

    /// Proves, when everything was read, that the source is still there: what vanished with its disk was not deleted.
    ///
    /// # Errors
    /// When it is gone, or another stands in its place.
    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}
