//! What a restore has done so far, on this machine: so that one that was interrupted goes on where it was.
//!
//! A file for each snapshot and mailbox, only ever appended to, a record for each change of an item's state. What it says
//! is never believed without looking at the mailbox: that a message is there, its mark in the mailbox tells. The journal
//! tells that it was compared, and under which id it was made.
//!
//! ```text
//! length (4, little-endian) | sealed: state (1), key (16), id of the message
//! ```
//!
//! Each record is encrypted and bound to the file and its number in it. A record that was cut by a crash, and everything
//! behind it, is dropped when the file is opened. The file is locked as long as it is open: two restores of the same to the
//! same mailbox would make everything twice.

use crate::crypto::{Keys, Purpose, TAG_LEN};
use rustix::fs::FlockOperation;
use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Records between two syncs: what a crash may take is found by the marks.
const UNSYNCED_MAX: usize = 64;
/// A sealed record is never longer: ids have a few hundred bytes.
const RECORD_BYTES_MAX: usize = 8 << 10;

const MADE: u8 = 1;
const VERIFIED: u8 = 2;

/// Names an item in a folder of the target.
pub(super) type Key = [u8; 16];

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("the same restore is running already")]
    Busy,
    #[error("could not keep the journal of the restore")]
    Io(#[from] io::Error),
}

/// The journal of one mailbox.
pub(super) struct Journal {
    file: File,
    keys: Arc<Keys>,
    name: String,
    /// How many records it has.
    len: u64,
    unsynced: usize,
    verified: HashSet<Key>,
    made: HashMap<Key, String>,
}

impl Journal {
    /// Opens the journal called `name` in `folder`, or begins it.
    pub fn open(folder: &Path, name: &str, keys: Arc<Keys>) -> Result<Self, JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{name}.journal"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::Busy),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut journal = Self {
            file,
            keys,
            name: name.to_owned(),
            len: 0,
            unsynced: 0,
            verified: HashSet::new(),
            made: HashMap::new(),
        };
        journal.replay()?;
        Ok(journal)
    }

    fn replay(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(self.file.try_clone()?);
        let mut sound = 0;
        while let Some(mut record) = read_record(&mut reader)? {
            let len = record.len() as u64;
            let bound = self.bound();
            let Ok(text) = self.keys.decrypt(Purpose::LocalState, &bound, &mut record) else { break };
            let Some((&[state, ref key @ ..], id)) = text.split_first_chunk::<17>() else { break };
            let id = String::from_utf8_lossy(id).into_owned();
            self.note(state, *key, id);
            self.len += 1;
            sound += 4 + len;
        }
        self.file.set_len(sound)?;
        self.file.seek(SeekFrom::Start(sound)).map(drop)
    }

    fn bound(&self) -> Vec<u8> {
        [b"restore\0", self.name.as_bytes(), &self.len.to_le_bytes()].concat()
    }

    fn note(&mut self, state: u8, key: Key, id: String) {
        match state {
            MADE => drop(self.made.insert(key, id)),
            VERIFIED => {
                self.made.remove(&key);
                self.verified.insert(key);
            }
            // What a later version wrote.
            _ => {}
        }
    }

    fn append(&mut self, state: u8, key: Key, id: &str) -> io::Result<()> {
        let mut record = vec![0; TAG_LEN];
        record.push(state);
        record.extend_from_slice(&key);
        record.extend_from_slice(id.as_bytes());
        let bound = self.bound();
        self.keys.encrypt(Purpose::LocalState, &bound, &mut record);
        let framed = [&(record.len() as u32).to_le_bytes()[..], &record].concat();
        self.file.write_all(&framed)?;
        self.len += 1;
        self.note(state, key, id.to_owned());
        self.unsynced += 1;
        if self.unsynced >= UNSYNCED_MAX { self.sync() } else { Ok(()) }
    }

    /// Makes durable what was noted.
    pub fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_data()
    }

    /// Notes that the message `id` was made for an item.
    pub fn made(&mut self, key: Key, id: &str) -> io::Result<()> {
        self.append(MADE, key, id)
    }

    /// Notes that a message is about to be made for an item, and will have no mark for a moment.
    pub fn begun(&mut self, key: Key) -> io::Result<()> {
        self.append(MADE, key, "")
    }

    /// Returns whether that is noted, and nothing more.
    pub fn was_begun(&self, key: &Key) -> bool {
        self.id_of(key).is_some_and(str::is_empty)
    }

    /// Notes that what was made for an item was compared, and is the same.
    pub fn verified(&mut self, key: Key) -> io::Result<()> {
        self.append(VERIFIED, key, "")
    }

    /// Returns whether that is noted.
    pub fn is_verified(&self, key: &Key) -> bool {
        self.verified.contains(key)
    }

    /// Returns the id of the message that was made for an item and not compared yet.
    pub fn id_of(&self, key: &Key) -> Option<&str> {
        self.made.get(key).map(String::as_str)
    }
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

    #[test]
    fn what_was_noted_is_known_again_and_nothing_of_it_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), "a", keys()).unwrap();
        journal.made([1; 16], "AAMk-one").unwrap();
        journal.made([2; 16], "AAMk-two").unwrap();
        journal.verified([1; 16]).unwrap();
        assert!(matches!(Journal::open(folder.path(), "a", keys()), Err(JournalError::Busy)));
        drop(journal);
        let journal = Journal::open(folder.path(), "a", keys()).unwrap();
        assert!(journal.is_verified(&[1; 16]) && !journal.is_verified(&[2; 16]));
        assert_eq!((journal.id_of(&[1; 16]), journal.id_of(&[2; 16])), (None, Some("AAMk-two")));
        let bytes = std::fs::read(folder.path().join("a.journal")).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"AAMk"));
    }

    #[test]
    fn wherever_it_was_cut_the_rest_is_known_and_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.journal");
        let mut journal = Journal::open(folder.path(), "a", keys()).unwrap();
        (0..4).for_each(|n| journal.verified([n; 16]).unwrap());
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(folder.path(), "a", keys()).unwrap();
            let known = (0..4).filter(|n| journal.is_verified(&[*n; 16])).count();
            assert_eq!(known, cut / (whole.len() / 4));
            journal.verified([9; 16]).unwrap();
            drop(journal);
            assert!(Journal::open(folder.path(), "a", keys()).unwrap().is_verified(&[9; 16]));
        }
        // Nor is anything believed that was changed, or that comes from another place.
        let mut changed = whole.clone();
        changed[whole.len() / 4 + 10] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert!(!Journal::open(folder.path(), "a", keys()).unwrap().is_verified(&[1; 16]));
        std::fs::write(folder.path().join("b.journal"), &whole).unwrap();
        assert!(!Journal::open(folder.path(), "b", keys()).unwrap().is_verified(&[0; 16]));
    }
}
