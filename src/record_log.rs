//! A file of sealed records that is only ever appended to: what this machine must not forget.
//!
//! ```text
//! length (4, little-endian) | sealed record
//! ```
//!
//! Each record is encrypted, and bound to the name of the log and its number in it: none can be read, changed, left out or
//! moved by whoever can write to the disk, but the last ones can be taken away. A record that was cut by a crash, and
//! everything behind it, is dropped when the log is opened. The file is locked as long as it is open.

use crate::crypto::{Keys, Purpose, TAG_LEN};
use crate::local_files;
use rustix::fs::{FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// A sealed record is never longer.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordLogError {
    /// Another process, or another part of this one, has it open.
    #[error("it is in use")]
    Busy,
    /// It holds an authentic record that this version does not understand.
    #[error("a later version of this program has written to it")]
    Newer,
    /// The disk failed.
    #[error("could not read or write it")]
    Io(#[from] io::Error),
}

impl From<RecordLogError> for io::Error {
    fn from(error: RecordLogError) -> Self {
        match error {
            RecordLogError::Io(error) => error,
            error => Self::other(error),
        }
    }
}

/// An open log.
pub struct RecordLog {
    file: File,
    keys: Arc<Keys>,
    name: Vec<u8>,
    /// How many records it has.
    records: u64,
    /// How many bytes they take.
    len: u64,
    /// What cannot be written or made durable once is not trusted again.
    is_broken: bool,
}

impl RecordLog {
    /// Opens the log at `path`, or begins it, and hands its records to `each` in order, which says whether it understands them.
    /// `name` is what the records are bound to.
    ///
    /// # Errors
    /// [`RecordLogError::Busy`] while it is open elsewhere, [`RecordLogError::Newer`] for a record that is not understood.
    pub fn open(
        path: &Path,
        name: &[u8],
        keys: Arc<Keys>,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<Self, RecordLogError> {
        if let Some(folder) = path.parent() {
            local_files::private_folder(folder)?;
        }
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RecordLogError::Busy),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        // Whoever had it may just have put another in its place.
        let (locked, there) = (rustix::fs::fstat(&file), rustix::fs::stat(path));
        if locked.map(|stat| stat.st_ino).ok() != there.map(|stat| stat.st_ino).ok() {
            return Err(RecordLogError::Busy);
        }
        let (records, len) = replay(file.try_clone()?, name, &keys, &mut each)?;
        let mut log = Self { file, keys, name: name.to_vec(), records, len, is_broken: false };
        log.cut()?;
        Ok(log)
    }

    /// Reads the log at `path` without having it, also while somebody writes to it.
    ///
    /// # Errors
    /// As [`RecordLog::open`], though nobody else is in the way; that there is none is no error.
    pub fn peek(
        path: &Path,
        name: &[u8],
        keys: &Keys,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), RecordLogError> {
        match local_files::open(path) {
            Ok(file) => replay(file, name, keys, &mut each).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }

    /// Returns how many records it has.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Appends a record; [`RecordLog::sync`] makes it durable.
    ///
    /// # Errors
    /// When it could not be written. The log is then as it was.
    pub fn append(&mut self, text: &[u8]) -> io::Result<()> {
        self.check()?;
        let len = TAG_LEN + text.len();
        if len > RECORD_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record is too long"));
        }
        let mut framed = Vec::with_capacity(4 + len);
        framed.extend_from_slice(&(len as u32).to_le_bytes());
        framed.resize(4 + TAG_LEN, 0);
        framed.extend_from_slice(text);
        self.keys.encrypt(Purpose::LocalState, &bound(&self.name, self.records), &mut framed[4..]);
        if let Err(error) = self.file.write_all(&framed) {
            // Half a record would hide all that come after it.
            self.is_broken = self.cut().is_err();
            return Err(error);
        }
        self.records += 1;
        self.len += framed.len() as u64;
        Ok(())
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// When it may not be. Nothing more can be appended then: the system may have forgotten what it could not write.
    pub fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        let synced = self.file.sync_data();
        self.is_broken = synced.is_err();
        synced
    }

    fn check(&self) -> io::Result<()> {
        if self.is_broken { Err(io::Error::other("it failed before")) } else { Ok(()) }
    }
}

fn bound(name: &[u8], number: u64) -> Vec<u8> {
    [name, &number.to_le_bytes()].concat()
}

/// Hands the records of a log to `each`. Returns how many there are, and how many bytes they take.
fn replay(
    file: File,
    name: &[u8],
    keys: &Keys,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(u64, u64), RecordLogError> {
    let mut reader = BufReader::new(file);
    let (mut records, mut bytes) = (0, 0);
    while let Some(mut record) = read_record(&mut reader)? {
        let len = record.len() as u64;
        let Ok(text) = keys.decrypt(Purpose::LocalState, &bound(name, records), &mut record) else { break };
        // What stands behind it counts as well, so it is not cut off like what a crash has left.
        if !each(text) {
            return Err(RecordLogError::Newer);
        }
        records += 1;
        bytes += 4 + len;
    }
    Ok((records, bytes))
}

/// Reads a record with its length; `None` where there is no whole one.
fn read_record(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    let mut read = |buffer: &mut [u8]| match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    if !read(&mut len)? {
        return Ok(None);
    }
    let len = u32::from_le_bytes(len) as usize;
    if !(TAG_LEN..=RECORD_BYTES_MAX).contains(&len) {
        return Ok(None);
    }
    let mut record = vec![0; len];
    Ok(read(&mut record)?.then_some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Cipher, MasterKey};

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0]))
    }

    fn open(path: &Path, name: &[u8]) -> (RecordLog, Vec<Vec<u8>>) {
        let mut records = Vec::new();
        let log = RecordLog::open(path, name, keys(), |record| {
            records.push(record.to_vec());
            true
        });
        (log.unwrap(), records)
    }

    #[test]
    fn wherever_it_was_cut_the_rest_is_known_and_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, _) = open(&path, b"a");
        (0..4).for_each(|n| log.append(&[b'x', n]).unwrap());
        assert!(matches!(RecordLog::open(&path, b"a", keys(), |_| true), Err(RecordLogError::Busy)));
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, records) = open(&path, b"a");
            assert_eq!(records.len(), cut / (whole.len() / 4));
            log.append(b"more").unwrap();
            log.sync().unwrap();
            drop(log);
            assert_eq!(open(&path, b"a").1.last().unwrap(), b"more");
        }
    }

    #[test]
    fn what_a_later_version_wrote_is_neither_read_nor_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, _) = open(&path, b"a");
        (0..3).for_each(|n| log.append(&[n]).unwrap());
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let understood = |record: &[u8]| record != [1];
        assert!(matches!(RecordLog::open(&path, b"a", keys(), understood), Err(RecordLogError::Newer)));
        assert!(matches!(RecordLog::peek(&path, b"a", &keys(), understood), Err(RecordLogError::Newer)));
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(open(&path, b"a").1.len(), 3);
    }

    #[test]
    fn nothing_is_believed_that_was_changed_moved_or_comes_from_another_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, _) = open(&path, b"a");
        (0..3).for_each(|n| log.append(&[n; 9]).unwrap());
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let len = whole.len() / 3;
        let swapped = [&whole[len..2 * len], &whole[..len], &whole[2 * len..]].concat();
        let mut changed = whole.clone();
        changed[len + 10] ^= 1;
        for (bytes, name, known) in [(&swapped, b"a", 0), (&changed, b"a", 1), (&whole, b"b", 0)] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(open(&path, name).1.len(), known);
        }
    }
}
