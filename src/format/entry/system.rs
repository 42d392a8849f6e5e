//! What a file system knows of an entry beyond owner, permissions and time: extended attributes (access control lists
//! and capabilities among them), what kind of special file it is, and which other names the same file has.
//!
//! All of it stands in fields that older programs keep without knowing them. They see a special file as an empty one,
//! and hard links as files of their own (docs/repository-format.md, "What a file system knows").

use crate::format::cbor::{CborError, Reader, Writer};

/// The most bytes of names and values that stand in an entry itself; more are content of their own.
pub const INLINE_BYTES_MAX: usize = 2048;
/// The most bytes of names and values of one entry.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 << 20;
/// The longest name and value of an attribute, as on Linux.
const ATTRIBUTE_NAME_LEN_MAX: usize = 255;
const ATTRIBUTE_LEN_MAX: usize = 64 << 10;

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, with its namespace: `user.mime_type`.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// What a special file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with its numbers.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device with its numbers.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
}

/// What all names of one file have in common in a snapshot, and nothing else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The number of the file system, in the order in which a backup met them.
    pub file_system: u64,
    /// The file's inode number there.
    pub inode: u64,
}

/// What a file system knows of an entry; most have none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemFacts {
    /// Its extended attributes, in ascending order of their names, unless they stand in a content of their own.
    pub attributes: Vec<Attribute>,
    /// What it is, if it is a special file.
    pub special: Option<Special>,
    /// What other names of the file have too.
    pub link: Option<Link>,
}

impl SystemFacts {
    /// Returns whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the bytes of names and values together.
pub fn attributes_len(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|attribute| attribute.name.len() + attribute.value.len()).sum()
}

/// Writes attributes as one array.
pub fn write_attributes(attributes: &[Attribute], out: &mut Writer) {
    out.array(attributes.len());
    for Attribute { name, value } in attributes {
        out.array(2).bytes(name).bytes(value);
    }
}

/// Reads what [`write_attributes`] wrote.
///
/// # Errors
/// [`CborError`] for what is not, for names that do not ascend or no system has, and for more than `len_max` bytes.
pub fn read_attributes(reader: &mut Reader<'_>, len_max: usize) -> Result<Vec<Attribute>, CborError> {
    let mut attributes = Vec::<Attribute>::new();
    let mut len = 0usize;
    for _ in 0..reader.array()? {
        if reader.array()? != 2 {
            return Err(CborError::Unexpected { expected: "an attribute" });
        }
        let (name, value) = (reader.bytes()?, reader.bytes()?);
        let is_legal = (1..=ATTRIBUTE_NAME_LEN_MAX).contains(&name.len()) && !name.contains(&0);
        let ascends = attributes.last().is_none_or(|last| *last.name < *name);
        len += name.len() + value.len();
        if !is_legal || !ascends || value.len() > ATTRIBUTE_LEN_MAX || len > len_max {
            return Err(CborError::Range);
        }
        attributes.push(Attribute { name: name.into(), value: value.into() });
    }
    Ok(attributes)
}

impl Special {
    pub(super) fn write(self, out: &mut Writer) {
        match self {
            Special::Fifo => out.array(1).uint(1),
            Special::Socket => out.array(1).uint(2),
            Special::CharDevice { major, minor } => out.array(3).uint(3).uint(major.into()).uint(minor.into()),
            Special::BlockDevice { major, minor } => out.array(3).uint(4).uint(major.into()).uint(minor.into()),
        };
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let len = reader.array()?;
        Ok(match (reader.uint()?, len) {
            (1, 1) => Special::Fifo,
            (2, 1) => Special::Socket,
            (3, 3) => Special::CharDevice { major: reader.uint_as()?, minor: reader.uint_as()? },
            (4, 3) => Special::BlockDevice { major: reader.uint_as()?, minor: reader.uint_as()? },
            _ => return Err(CborError::Unexpected { expected: "a special file" }),
        })
    }
}

impl Link {
    pub(super) fn write(self, out: &mut Writer) {
        out.array(2).uint(self.file_system).uint(self.inode);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        if reader.array()? != 2 {
            return Err(CborError::Unexpected { expected: "a link" });
        }
        Ok(Self { file_system: reader.uint()?, inode: reader.uint()? })
    }
}
