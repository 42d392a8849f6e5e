//! What a restore has done so far, on this machine, so that an interrupted restore continues where it was.
//!
//! There is one file for each snapshot and mailbox. Records are only appended, one for each change of the state of an
//! item. The journal alone proves nothing: whether an item exists, its mark in the mailbox says. The journal says
//! whether the item was compared, and under which id it was created.
//!
//! A record is the state (1 byte), the key (16 bytes) and the id of the item, if there is one. [`RecordLog`] says how
//! records are stored. Two restores of the same snapshot to the same mailbox would create everything twice, so the file
//! is locked as long as it is open.

use crate::format::crypto::{Keys, random};
use crate::record_log::{RecordLog, RecordLogError};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Maximum number of records that are not synced. A crash may lose them. The items are then found by their marks.
const UNSYNCED_MAX: usize = 64;

const MADE: u8 = 1;
const VERIFIED: u8 = 2;
const BEGUN: u8 = 3;
const ENDED: u8 = 4;
const DOUBTFUL: u8 = 5;
/// The record of the name of the job. Its key is [`NO_KEY`].
const JOB: u8 = 6;
const NO_KEY: Key = [0; 16];

/// Names an item in a folder of the target.
pub(super) type Key = [u8; 16];

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("the same restore is running already")]
    Busy,
    #[error("a later version of this program has written the journal of the restore")]
    Newer,
    #[error("could not keep the journal of the restore")]
    Io(#[from] io::Error),
}

impl From<RecordLogError> for JournalError {
    fn from(error: RecordLogError) -> Self {
        match error {
            RecordLogError::Busy => Self::Busy,
            RecordLogError::Newer => Self::Newer,
            RecordLogError::Io(error) => Self::Io(error),
        }
    }
}

/// The journal of one mailbox.
pub(super) struct Journal {
    log: RecordLog,
    unsynced: usize,
    known: Known,
}

/// What the records say.
#[derive(Default)]
struct Known {
    verified: HashSet<Key>,
    made: HashMap<Key, String>,
    /// When something was last known to be in progress. For an earlier run, the time when the journal was opened.
    begun: HashMap<Key, Instant>,
    doubtful: HashSet<Key>,
    job: Option<String>,
}

impl Known {
    fn note(&mut self, state: u8, key: Key, rest: &[u8]) {
        match state {
            MADE => {
                self.begun.remove(&key);
                self.made.insert(key, String::from_utf8_lossy(rest).into_owned());
            }
            BEGUN => drop(self.begun.insert(key, Instant::now())),
            VERIFIED => {
                self.made.remove(&key);
                self.begun.remove(&key);
                self.verified.insert(key);
            }
            ENDED => {
                self.begun.remove(&key);
                self.doubtful.remove(&key);
            }
            DOUBTFUL => drop(self.doubtful.insert(key)),
            JOB => self.job = Some(String::from_utf8_lossy(rest).into_owned()),
            // A later version wrote it.
            _ => {}
        }
    }
}

impl Journal {
    /// Opens the journal called `name` in `folder`. Creates it if it does not exist.
    pub fn open(folder: &Path, name: &str, keys: Arc<Keys>) -> Result<Self, JournalError> {
        let mut known = Known::default();
        let bound = [b"restore\0", name.as_bytes()].concat();
        let log = RecordLog::open(&folder.join(format!("{name}.journal")), &bound, keys, |text| {
            let Some((&[state, ref key @ ..], rest)) = text.split_first_chunk::<17>() else { return false };
            known.note(state, *key, rest);
            true
        })?;
        let mut journal = Self { log, unsynced: 0, known };
        if journal.known.job.is_none() {
            let name: String = random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
            journal.append(JOB, NO_KEY, name.as_bytes())?;
        }
        Ok(journal)
    }

    /// Returns the name of the job: this restore, and all runs that continue it. It is random, and says nothing to
    /// anybody else.
    pub fn job(&self) -> &str {
        self.known.job.as_deref().expect("it is noted when the journal is opened")
    }

    /// Returns what was damaged when the journal was opened, for people.
    pub fn damage(&self) -> Option<String> {
        let damage = self.log.damage()?;
        Some(format!(
            "the journal of the restore was damaged: {damage}. What was restored before is looked for and compared again; a message \
             whose import was interrupted may stand there twice"
        ))
    }

    fn append(&mut self, state: u8, key: Key, rest: &[u8]) -> io::Result<()> {
        self.log.append(&[&[state], &key[..], rest].concat())?;
        self.known.note(state, key, rest);
        self.unsynced += 1;
        if self.unsynced >= UNSYNCED_MAX { self.sync() } else { Ok(()) }
    }

    /// Makes all records durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.log.sync()
    }

    /// Notes that the item with this `id` was created.
    pub fn made(&mut self, key: Key, id: &str) -> io::Result<()> {
        self.append(MADE, key, id.as_bytes())
    }

    /// Notes that an item is about to be created, and will have no mark for a moment. The record is durable at once,
    /// because nothing else tells of such an item after a crash.
    pub fn begun(&mut self, key: Key) -> io::Result<()> {
        self.append(BEGUN, key, &[])?;
        self.sync()
    }

    /// Notes that an item is about to be created, with its mark. The record survives if the program is killed, but
    /// perhaps not a power cut.
    pub fn sending(&mut self, key: Key) -> io::Result<()> {
        self.append(BEGUN, key, &[])
    }

    /// Notes that nothing is in progress for an item any more.
    pub fn ended(&mut self, key: Key) -> io::Result<()> {
        self.append(ENDED, key, &[])
    }

    /// Notes that an item was sent more than once, because it was not clear what became of the first request.
    pub fn doubtful(&mut self, key: Key) -> io::Result<()> {
        self.append(DOUBTFUL, key, &[])
    }

    /// Returns true if that was noted, and the folder was not searched for twins since.
    pub fn is_doubtful(&self, key: &Key) -> bool {
        self.known.doubtful.contains(key)
    }

    /// Returns when it was noted that an item is about to be created, unless it is known what became of it. If an
    /// earlier run noted it, returns when the journal was opened.
    pub fn begun_at(&self, key: &Key) -> Option<Instant> {
        self.known.begun.get(key).copied()
    }

    /// Notes that an item was compared, and is right.
    pub fn verified(&mut self, key: Key) -> io::Result<()> {
        self.append(VERIFIED, key, &[])
    }

    /// Returns true if that was noted.
    pub fn is_verified(&self, key: &Key) -> bool {
        self.known.verified.contains(key)
    }

    /// Returns the id of an item that was created and not compared yet.
    pub fn id_of(&self, key: &Key) -> Option<&str> {
        self.known.made.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};

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
        journal.begun([1; 16]).unwrap();
        journal.begun([3; 16]).unwrap();
        journal.verified([3; 16]).unwrap();
        for n in 4..=6 {
            journal.sending([n; 16]).unwrap();
        }
        journal.ended([4; 16]).unwrap();
        journal.made([5; 16], "AAMk-five").unwrap();
        journal.doubtful([6; 16]).unwrap();
        let job = journal.job().to_owned();
        assert!(matches!(Journal::open(folder.path(), "a", keys()), Err(JournalError::Busy)));
        drop(journal);
        let opened = Instant::now();
        let journal = Journal::open(folder.path(), "a", keys()).unwrap();
        assert!(journal.is_verified(&[1; 16]) && !journal.is_verified(&[2; 16]));
        assert_eq!((journal.id_of(&[1; 16]), journal.id_of(&[2; 16])), (None, Some("AAMk-two")));
        assert_eq!([3, 4, 5].map(|n| journal.begun_at(&[n; 16])), [None; 3]);
        assert!(
            journal.begun_at(&[6; 16]).is_some() && journal.is_doubtful(&[6; 16]) && !journal.is_doubtful(&[5; 16])
        );
        assert_eq!(journal.job(), job, "who goes on with it is the same job");
        assert!(journal.begun_at(&[1; 16]).unwrap() >= opened, "until a moment ago it may have been on its way");
        let bytes = std::fs::read(folder.path().join("a.journal")).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"AAMk"));
    }
}
