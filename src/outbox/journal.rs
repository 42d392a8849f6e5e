//! The durable record of dropped files and their states. After a crash the outbox has the state from before.
//!
//! A file is in the journal once `close` or `fsync` has returned, and stays there until it is restored. Each change of
//! its state is appended. When most records are outdated, the journal is rewritten with one record for each file that
//! still counts.

use super::staging::StagedId;
use crate::format::cbor::{CborError, Reader, Writer};
use crate::format::crypto::Keys;
use crate::record_log::{RecordLog, RecordLogError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use strongroom_mount::Time;

const NAME: &[u8] = b"outbox journal\0";

/// A dropped file at the time it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The staged file that holds its bytes.
    pub id: StagedId,
    /// Its path below `restore/`.
    pub path: Vec<u8>,
    /// Its modification time.
    pub mtime: Time,
    /// Its length in bytes.
    pub len: u64,
    /// The identity hash of its content, as in a repository.
    pub content: [u8; 32],
    /// The job it belongs to: when the job began, in seconds since 1970.
    pub job: i64,
    /// Its state.
    pub fate: Fate,
}

/// The state of a dropped file in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits for `restore commit`.
    Waiting,
    /// It will be restored.
    Queued,
    /// It was restored, or the item existed already; with a remark for people.
    Done(String),
    /// It cannot be restored, and why.
    Failed(String),
    /// The user took it back.
    Withdrawn,
}

impl Fate {
    fn write(&self, out: &mut Writer) {
        let (number, text) = match self {
            Fate::Waiting => (0, ""),
            Fate::Queued => (1, ""),
            Fate::Done(remark) => (2, remark.as_str()),
            Fate::Failed(reason) => (3, reason.as_str()),
            Fate::Withdrawn => (4, ""),
        };
        out.uint(number).text(text);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let (number, text) = (reader.uint()?, reader.text()?.to_owned());
        Ok(match number {
            0 => Fate::Waiting,
            1 => Fate::Queued,
            2 => Fate::Done(text),
            3 => Fate::Failed(text),
            4 => Fate::Withdrawn,
            _ => return Err(CborError::Range),
        })
    }
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A file was dropped.
    Dropped(Dropped),
    /// The state of a file changed.
    Became(StagedId, Fate),
    /// Somebody committed: all waiting files are to be restored.
    Committed,
    /// The modification time of a file changed.
    Timed(StagedId, Time),
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Record::Dropped(dropped) => {
                let Dropped { id, path, mtime, len, content, job, fate } = dropped;
                out.array(10).uint(0).bytes(&id.0).bytes(path).int(mtime.secs).uint(mtime.nanos.into()).uint(*len);
                fate.write(out.bytes(content).int(*job));
            }
            Record::Became(id, fate) => fate.write(out.array(4).uint(1).bytes(&id.0)),
            Record::Committed => _ = out.array(1).uint(2),
            Record::Timed(id, mtime) => {
                _ = out.array(4).uint(3).bytes(&id.0).int(mtime.secs).uint(mtime.nanos.into());
            }
        }
        out.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let len = reader.array()?;
        match (reader.uint()?, len) {
            (0, 10) => Ok(Record::Dropped(Dropped {
                id: StagedId(reader.array_of()?),
                path: reader.bytes()?.to_vec(),
                mtime: Time { secs: reader.int()?, nanos: reader.uint_as()? },
                len: reader.uint()?,
                content: reader.array_of()?,
                job: reader.int()?,
                fate: Fate::read(&mut reader)?,
            })),
            (1, 4) => Ok(Record::Became(StagedId(reader.array_of()?), Fate::read(&mut reader)?)),
            (2, 1) => Ok(Record::Committed),
            (3, 4) => {
                let id = StagedId(reader.array_of()?);
                Ok(Record::Timed(id, Time { secs: reader.int()?, nanos: reader.uint_as()? }))
            }
            _ => Err(CborError::Range),
        }
    }
}

/// The journal of an outbox. Opening it also locks the outbox.
pub struct Journal {
    log: RecordLog,
}

impl Journal {
    /// Opens the journal at `path`, or creates it, and hands its records to `each` in order.
    ///
    /// # Errors
    /// [`RecordLogError::Busy`] while another process uses it.
    pub fn open(path: &Path, keys: Arc<Keys>, mut each: impl FnMut(Record)) -> Result<Self, RecordLogError> {
        let log = RecordLog::open(path, NAME, keys, |record| Record::decode(record).map(&mut each).is_ok())?;
        Ok(Self { log })
    }

    /// Reads the journal at `path`. Works also while another process writes to it. A missing journal has no records.
    ///
    /// # Errors
    /// When the disk fails, or a later version has written to it.
    pub fn peek(path: &Path, keys: &Arc<Keys>, mut each: impl FnMut(Record)) -> Result<(), RecordLogError> {
        RecordLog::peek(path, NAME, keys, |record| Record::decode(record).map(&mut each).is_ok())
    }

    /// Appends a record and makes it durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn note(&mut self, record: &Record) -> io::Result<()> {
        self.log.append(&record.encode())?;
        self.log.sync()
    }

    /// Appends a record that a crash may lose.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn note_lazily(&mut self, record: &Record) -> io::Result<()> {
        self.log.append(&record.encode())
    }

    /// Makes all appended records durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        self.log.records()
    }

    /// Returns true if records may be missing, because the journal was damaged or cut off at its end.
    pub fn is_doubtful(&self) -> bool {
        self.log.is_doubtful()
    }

    /// Rewrites the journal, with one record for each of `dropped`.
    ///
    /// # Errors
    /// When the disk fails. The journal is then unchanged, or accepts no more records.
    pub fn compact<'a>(&mut self, mut dropped: impl Iterator<Item = &'a Dropped>) -> Result<(), RecordLogError> {
        self.log.replace(|new| dropped.try_for_each(|one| new.append(&Record::Dropped(one.clone()).encode())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};

    #[test]
    fn what_was_noted_is_read_again_also_after_it_was_written_anew_and_while_it_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let keys = Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0]));
        let dropped = |n: u8, fate: Fate| Dropped {
            id: StagedId([n; 16]),
            path: b"contoso/Users/canary\xff/a.eml".to_vec(),
            mtime: Time { secs: -5, nanos: 7 },
            len: 1 << 40,
            content: [n; 32],
            job: 1_793_600_000,
            fate,
        };
        let records = vec![
            Record::Dropped(dropped(1, Fate::Waiting)),
            Record::Dropped(dropped(2, Fate::Queued)),
            Record::Committed,
            Record::Became(StagedId([1; 16]), Fate::Failed("why".to_owned())),
            Record::Became(StagedId([2; 16]), Fate::Done(String::new())),
            Record::Became(StagedId([2; 16]), Fate::Withdrawn),
            Record::Timed(StagedId([1; 16]), Time { secs: -1, nanos: 999_999_999 }),
        ];
        let mut journal = Journal::open(&path, keys.clone(), |_| unreachable!()).unwrap();
        records.iter().for_each(|record| journal.note(record).unwrap());
        let mut peeked = Vec::new();
        Journal::peek(&path, &keys, |record| peeked.push(record)).unwrap();
        assert_eq!(peeked, records);
        assert!(!std::fs::read(&path).unwrap().windows(6).any(|window| window == b"canary"));
        journal.compact([&dropped(3, Fate::Queued)].into_iter()).unwrap();
        journal.note(&Record::Committed).unwrap();
        assert!(matches!(Journal::open(&path, keys.clone(), |_| ()), Err(RecordLogError::Busy)));
        drop(journal);
        let mut read = Vec::new();
        Journal::open(&path, keys, |record| read.push(record)).unwrap();
        assert_eq!(read, [Record::Dropped(dropped(3, Fate::Queued)), Record::Committed]);
    }
}
