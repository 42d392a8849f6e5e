//! Facts about an item beyond its bytes.

use super::write_unknown;
use crate::format::cbor::{CborError, Fields, MapWriter, Reader, Writer};

/// Bits that say how a mail was marked.
pub mod marks {
    /// The mail was read.
    pub const READ: u64 = 1;
    /// The mail is flagged.
    pub const FLAGGED: u64 = 2;
    /// The mail is a draft.
    pub const DRAFT: u64 = 4;
}

/// Facts about an item beyond its bytes. Empty for plain files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Subject of a mail.
    pub subject: Option<String>,
    /// Sender of a mail.
    pub from: Option<String>,
    /// Recipients of a mail, separated by commas.
    pub to: Option<String>,
    /// `Message-ID` of a mail.
    pub message_id: Option<String>,
    /// When a mail was sent or received, in seconds since 1970 (UTC).
    pub date: Option<i64>,
    /// The id that the service gave the item or folder.
    pub source_id: Option<String>,
    /// The service's version of the item. While it stays the same, nothing about the item has changed.
    pub change_key: Option<String>,
    /// True if the service could not give the item's own bytes, so that they were put together from other data about
    /// it.
    pub reconstructed: bool,
    /// The marks of a mail, as bits of [`marks`].
    pub marks: Option<u64>,
    /// The bytes before a mail in its mbox file: the separator line.
    pub mbox_before: Option<Box<[u8]>>,
    /// The bytes after a mail in its mbox file.
    pub mbox_after: Option<Box<[u8]>>,
    /// Fields that a later version wrote.
    pub unknown: Fields,
}

impl Facts {
    /// Fills fields that have no value from `other`.
    pub fn or(self, other: Facts) -> Facts {
        Facts {
            subject: self.subject.or(other.subject),
            from: self.from.or(other.from),
            to: self.to.or(other.to),
            message_id: self.message_id.or(other.message_id),
            date: self.date.or(other.date),
            source_id: self.source_id.or(other.source_id),
            change_key: self.change_key.or(other.change_key),
            reconstructed: self.reconstructed || other.reconstructed,
            marks: self.marks.or(other.marks),
            mbox_before: self.mbox_before.or(other.mbox_before),
            mbox_after: self.mbox_after.or(other.mbox_after),
            unknown: if self.unknown.is_empty() { other.unknown } else { self.unknown },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Facts::default()
    }

    pub(super) fn write(&self, out: &mut Writer) {
        let mut map = MapWriter::default();
        for (key, text) in [(1, &self.subject), (2, &self.from), (3, &self.to), (4, &self.message_id)] {
            if let Some(text) = text {
                map.field(key).text(text);
            }
        }
        if let Some(date) = self.date {
            map.field(5).int(date);
        }
        for (key, text) in [(6, &self.source_id), (7, &self.change_key)] {
            if let Some(text) = text {
                map.field(key).text(text);
            }
        }
        if self.reconstructed {
            map.field(8).uint(1);
        }
        if let Some(marks) = self.marks {
            map.field(9).uint(marks);
        }
        for (key, bytes) in [(10, &self.mbox_before), (11, &self.mbox_after)] {
            if let Some(bytes) = bytes {
                map.field(key).bytes(bytes);
            }
        }
        write_unknown(&self.unknown, &mut map);
        map.finish(out);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut facts = Facts::default();
        facts.unknown = reader.fields(|key, value| {
            match key {
                1 => facts.subject = Some(value.text()?.to_owned()),
                2 => facts.from = Some(value.text()?.to_owned()),
                3 => facts.to = Some(value.text()?.to_owned()),
                4 => facts.message_id = Some(value.text()?.to_owned()),
                5 => facts.date = Some(value.int()?),
                6 => facts.source_id = Some(value.text()?.to_owned()),
                7 => facts.change_key = Some(value.text()?.to_owned()),
                8 => facts.reconstructed = value.uint()? != 0,
                9 => facts.marks = Some(value.uint()?),
                10 => facts.mbox_before = Some(value.bytes()?.into()),
                11 => facts.mbox_after = Some(value.bytes()?.into()),
                _ => return Ok::<_, CborError>(false),
            }
            Ok(true)
        })?;
        Ok(facts)
    }
}
