//! What a file system knows of an entry besides owner, permissions and time: extended attributes (including access
//! control lists and capabilities), the kind of special file, and which other names the same file has.
//!
//! All of it is stored in fields that older programs keep without understanding them. Older programs see a special file
//! as an empty file, and hard links as separate files (docs/repository-format.md, "What a file system knows").

use crate::format::cbor::{CborError, Reader, Writer};

/// Maximum total length of attribute names and values stored in the entry itself, in bytes. Longer ones are stored as a
/// content of their own.
pub const INLINE_BYTES_MAX: usize = 2048;
/// Maximum total length of the attribute names and values of one entry, in bytes.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 << 20;
/// Maximum length of an attribute's name in bytes, as on Linux.
const ATTRIBUTE_NAME_LEN_MAX: usize = 255;
/// Maximum length of an attribute's value in bytes, as on Linux.
const ATTRIBUTE_LEN_MAX: usize = 64 << 10;

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name with its namespace, such as `user.mime_type`.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// The kind of a special file.
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

/// Identifies a hard-linked file within a snapshot: all names of the file have the same value, and no other file has
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// Number of the file system, in the order in which the backup encountered them.
    pub file_system: u64,
    /// Inode number of the file in that file system.
    pub inode: u64,
}

/// What a file system knows of an entry. Empty for most entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemFacts {
    /// The extended attributes in ascending order of their names, unless they are stored as a content of their own.
    pub attributes: Vec<Attribute>,
    /// The kind of special file, if it is one.
    pub special: Option<Special>,
    /// The identity shared by all names of the file, if it has several.
    pub link: Option<Link>,
}

impl SystemFacts {
    /// Returns whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the total length of names and values in bytes.
pub fn attributes_len(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|attribute| attribute.name.len() + attribute.value.len()).sum()
}

/// Writes attributes as an array.
pub fn write_attributes(attributes: &[Attribute], out: &mut Writer) {
    out.array(attributes.len());
    for Attribute { name, value } in attributes {
        out.array(2).bytes(name).bytes(value);
    }
}

/// Reads what [`write_attributes`] wrote.
///
/// # Errors
/// [`CborError`] for anything else, for names that do not ascend or that Linux does not allow, and for more than
/// `len_max` bytes.
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
    pub(crate) fn write(self, out: &mut Writer) {
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
    pub(crate) fn write(self, out: &mut Writer) {
        out.array(2).uint(self.file_system).uint(self.inode);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        if reader.array()? != 2 {
            return Err(CborError::Unexpected { expected: "a link" });
        }
        Ok(Self { file_system: reader.uint()?, inode: reader.uint()? })
    }
}
