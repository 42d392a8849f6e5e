//! An append-only file of sealed records, for what this machine must not forget.
//!
//! ```text
//! length (4, little-endian) | sealed record
//! ```
//!
//! Each record is encrypted, and bound to the name of the log and to its number in it. An attacker who can write to the
//! disk cannot read, change, omit or move a record, but can cut off the last ones. The file is locked while it is open.
//!
//! If a crash cut the last record, nothing authentic follows it, and opening the log drops it. Any other record that is
//! not authentic was damaged on the disk. Opening the log then skips it, rewrites the log without it, and keeps the
//! damaged file as `NAME.damaged-N`. Callers must ask [`RecordLog::damage`] after opening a log, as they no longer know
//! what the lost records said.

mod replay;

use self::replay::replay;
use crate::format::crypto::{Keys, Purpose, TAG_LEN};
use crate::local_files::{self, sync_folder_of};
use rustix::fs::{FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum length of a sealed record in bytes.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// Maximum number of damaged files kept beside a log. Any further one replaces the last.
const DAMAGED_FILES_MAX: u32 = 8;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordLogError {
    /// Another process, or another part of this process, has the log open.
    #[error("the log is in use")]
    Busy,
    /// The log holds an authentic record that this version does not understand.
    #[error("a later version of this program has written to the log")]
    Newer,
    /// Reading or writing the file failed.
    #[error("could not read or write the log")]
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

/// Damage found when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Number of lost records.
    pub records: u64,
    /// Path of the kept damaged file; `None` if it could not be kept.
    pub kept: Option<PathBuf>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of its records are damaged on the disk and were skipped", self.records)?;
        match &self.kept {
            Some(kept) => write!(f, "; the damaged file is kept as {}", kept.display()),
            None => write!(f, "; the damaged file could not be kept"),
        }
    }
}

/// An open log.
pub struct RecordLog {
    path: PathBuf,
    file: File,
    keys: Arc<Keys>,
    name: Vec<u8>,
    /// Number of records, which is also the number of the next one.
    records: u64,
    /// Length of all records in bytes.
    len: u64,
    damage: Option<Damage>,
    /// True if the file ended in bytes that are not a record.
    was_cut: bool,
    /// True after a write or a sync failed. Nothing more is appended then.
    is_broken: bool,
}

impl RecordLog {
    /// Opens or creates the log at `path`, and passes its records to `each` in order. `each` returns whether it
    /// understands the record. The records are bound to `name`.
    ///
    /// # Errors
    /// [`RecordLogError::Busy`] if it is open elsewhere, [`RecordLogError::Newer`] if `each` does not understand a
    /// record.
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
        // The previous holder of the lock may have just replaced the file at this path.
        let (locked, there) = (rustix::fs::fstat(&file), rustix::fs::stat(path));
        if locked.map(|stat| stat.st_ino).ok() != there.map(|stat| stat.st_ino).ok() {
            return Err(RecordLogError::Busy);
        }
        let found = replay(&file, name, &keys, &mut each)?;
        let mut log = Self {
            path: path.to_owned(),
            file,
            keys,
            name: name.to_vec(),
            records: found.records,
            len: found.len,
            damage: None,
            was_cut: found.is_cut,
            is_broken: false,
        };
        if found.is_damaged {
            log.repair(found.lost);
        }
        log.cut()?;
        if log.len == 0 {
            // A new file is durable only once its name is.
            sync_folder_of(path)?;
        }
        Ok(log)
    }

    /// Reads the log at `path` without locking it, even while another process writes to it. A missing log counts as
    /// empty.
    ///
    /// # Errors
    /// Those of [`RecordLog::open`], except [`RecordLogError::Busy`].
    pub fn peek(
        path: &Path,
        name: &[u8],
        keys: &Keys,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), RecordLogError> {
        match local_files::open(path) {
            Ok(file) => replay(&file, name, keys, &mut each).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the damaged file, and rewrites the log with the undamaged records. If that fails, the log stays as it is,
    /// and the next open finds the damage again. `records` is the number of lost records.
    fn repair(&mut self, records: u64) {
        let kept = keep(&self.path).inspect_err(|error| {
            tracing::warn!(%error, file = %self.path.display(), "could not keep the damaged file");
        });
        let damage = Damage { records, kept: kept.ok() };
        tracing::warn!(file = %self.path.display(), "a record log of this machine is damaged: {damage}");
        if damage.kept.is_some() {
            let rewritten = self.file.try_clone().map_err(RecordLogError::from).and_then(|file| {
                let (name, keys) = (self.name.clone(), self.keys.clone());
                self.replace(|new| {
                    let mut written = Ok(());
                    let mut copy = |text: &[u8]| {
                        written = new.append(text);
                        written.is_ok()
                    };
                    match replay(&file, &name, &keys, &mut copy) {
                        Err(RecordLogError::Newer) => written,
                        replayed => replayed.map(drop).map_err(io::Error::from),
                    }
                })
            });
            if let Err(error) = rewritten {
                let error = io::Error::from(error);
                tracing::warn!(%error, file = %self.path.display(), "could not rewrite the damaged file");
            }
        }
        self.damage = Some(damage);
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the damage that was found when the log was opened.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Returns whether earlier records may be missing: they were damaged, or cut off at the end.
    pub fn is_doubtful(&self) -> bool {
        self.was_cut || self.damage.is_some()
    }

    /// Appends a record. [`RecordLog::sync`] makes it durable.
    ///
    /// # Errors
    /// If the record could not be written. The log is then as it was before.
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
            // Half a record would hide all records after it.
            self.is_broken = self.cut().is_err();
            return Err(error);
        }
        self.records += 1;
        self.len += framed.len() as u64;
        Ok(())
    }

    /// Makes the appended records durable.
    ///
    /// # Errors
    /// If they may not be durable. Nothing more can be appended then, because the system may have dropped the data that
    /// it could not write.
    pub fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        let synced = self.file.sync_data();
        self.is_broken = synced.is_err();
        synced
    }

    /// Replaces this log with a new one that holds the records that `write` appends to it.
    ///
    /// # Errors
    /// If the disk fails. The log is then as it was before; or, if only the new name may not be durable, nothing more
    /// can be appended.
    pub fn replace(&mut self, write: impl FnOnce(&mut RecordLog) -> io::Result<()>) -> Result<(), RecordLogError> {
        let path = self.path.with_extension("new");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut new = Self::open(&path, &self.name, self.keys.clone(), |_| true)?;
        // Both the old and the new file are locked, so anyone who opens the path finds a locked log at any time.
        let placed = write(&mut new).and_then(|()| new.sync()).and_then(|()| std::fs::rename(&path, &self.path));
        if let Err(error) = placed {
            // If the removal fails, the next attempt removes the file.
            let _ = std::fs::remove_file(&path);
            return Err(error.into());
        }
        new.path.clone_from(&self.path);
        (new.damage, new.was_cut) = (self.damage.take(), self.was_cut);
        *self = new;
        let synced = sync_folder_of(&self.path);
        self.is_broken = synced.is_err();
        Ok(synced?)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_broken { Err(io::Error::other("an earlier write to it failed")) } else { Ok(()) }
    }
}

fn bound(name: &[u8], number: u64) -> Vec<u8> {
    [name, &number.to_le_bytes()].concat()
}

/// Copies the damaged file at `path` to an unused name, and returns the path of the copy.
fn keep(path: &Path) -> io::Result<PathBuf> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let free = (1..=DAMAGED_FILES_MAX).map(name).find(|kept| !kept.exists());
    let kept = free.unwrap_or_else(|| name(DAMAGED_FILES_MAX));
    std::fs::copy(path, &kept)?;
    File::open(&kept)?.sync_all()?;
    sync_folder_of(&kept)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};

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
        for (bytes, name, known) in
            [(&swapped, b"a", &[[2; 9]][..]), (&changed, b"a", &[[0; 9], [2; 9]]), (&whole, b"b", &[])]
        {
            std::fs::write(&path, bytes).unwrap();
            let (log, records) = open(&path, name);
            assert_eq!(records, known);
            assert_eq!(
                log.damage().map(|damage| damage.records),
                Some(if known.is_empty() { 1 } else { 3 - known.len() as u64 })
            );
        }
    }

    /// Writes a log with records of various lengths. Returns its bytes, the records, and the offset of each record.
    fn written(path: &Path, count: usize) -> (Vec<u8>, Vec<Vec<u8>>, Vec<usize>) {
        let records: Vec<Vec<u8>> = (0..count).map(|n| vec![n as u8; 10 + n % 7 * 30]).collect();
        let (mut log, _) = open(path, b"a");
        records.iter().for_each(|record| log.append(record).unwrap());
        drop(log);
        let starts = records.iter().scan(0, |at, record| {
            let start = *at;
            *at += 4 + TAG_LEN + record.len();
            Some(start)
        });
        (std::fs::read(path).unwrap(), records.clone(), starts.collect())
    }

    #[test]
    fn regression_one_flipped_bit_costs_one_record_at_most_and_the_damaged_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let kept = folder.path().join("log.damaged-1");
        let (whole, records, starts) = written(&path, 12);
        for at in (0..whole.len()).step_by(3) {
            let number = starts.iter().rposition(|start| *start <= at).unwrap();
            let is_length = at - starts[number] < 4;
            let mut rotten = whole.clone();
            rotten[at] ^= 0x10;
            std::fs::write(&path, &rotten).unwrap();
            let (mut log, read) = open(&path, b"a");
            let lost: Vec<_> = records.iter().filter(|record| !read.contains(record)).collect();
            // If only the length field of a record is damaged, the record itself is recovered.
            let expected: Vec<_> = (!is_length).then_some(&records[number]).into_iter().collect();
            assert_eq!(lost, expected, "byte {at} of record {number}");
            assert_eq!(log.damage(), Some(&Damage { records: expected.len() as u64, kept: Some(kept.clone()) }));
            assert!(log.is_doubtful());
            assert_eq!(std::fs::read(&kept).unwrap(), rotten);
            log.append(b"more").unwrap();
            log.sync().unwrap();
            drop(log);
            let (log, again) = open(&path, b"a");
            assert_eq!(again, [read, vec![b"more".to_vec()]].concat());
            assert!(log.damage().is_none() && !log.is_doubtful(), "it was put in order");
            std::fs::remove_file(&kept).unwrap();
        }
    }

    #[test]
    fn behind_a_hole_of_many_records_all_are_read_also_by_those_who_only_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (whole, records, starts) = written(&path, 200);
        for fill in [0x00, 0x11, 0xff] {
            // The damaged part ends in the middle of a record.
            let (from, to) = (starts[3] + 7, starts[150] + 2);
            let mut rotten = whole.clone();
            rotten[from..to].fill(fill);
            std::fs::write(&path, &rotten).unwrap();
            let expected = [&records[..3], &records[151..]].concat();
            let mut seen = Vec::new();
            RecordLog::peek(&path, b"a", &keys(), |record| {
                seen.push(record.to_vec());
                true
            })
            .unwrap();
            assert!(seen == expected, "filled with {fill:#x}: {} records", seen.len());
            let (log, read) = open(&path, b"a");
            assert!(read == expected, "filled with {fill:#x}: {} records", read.len());
            assert_eq!(log.damage().map(|damage| damage.records), Some(148));
        }
    }

    #[test]
    fn where_it_cannot_be_put_in_order_it_goes_on_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut rotten, records, starts) = written(&path, 6);
        rotten[starts[2] + 30] ^= 1;
        std::fs::write(&path, &rotten).unwrap();
        // A folder is in the way, which cannot be removed like a file.
        std::fs::create_dir(path.with_extension("new")).unwrap();
        let (mut log, read) = open(&path, b"a");
        assert_eq!(read, [&records[..2], &records[3..]].concat());
        log.append(b"more").unwrap();
        drop(log);
        assert_eq!(std::fs::read(&path).unwrap()[..rotten.len()], rotten);
        assert_eq!(open(&path, b"a").1, [&read[..], &[b"more".to_vec()]].concat());
    }

    #[test]
    fn a_search_for_records_ends_in_time_whatever_stands_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        // Every fourth byte looks like the length of a record.
        let hostile: Vec<u8> = [[0x10, 0x10, 0, 0]; 1 << 18].concat();
        std::fs::write(&path, &hostile).unwrap();
        let since = std::time::Instant::now();
        let (log, read) = open(&path, b"a");
        assert!(read.is_empty() && log.damage().is_some(), "what was not searched to the end is kept");
        assert_eq!(std::fs::read(folder.path().join("log.damaged-1")).unwrap(), hostile);
        assert!(since.elapsed() < std::time::Duration::from_secs(60), "took {:?}", since.elapsed());
    }
}
