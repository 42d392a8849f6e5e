//! Keeps dropped files until they are restored: encrypted and authenticated, in pieces.
//!
//! A file is cut into pieces of [`PIECE_BYTES`]. Each piece is sealed by itself and bound to its file and its number.
//! So random writes, truncations and reads of 150 MB take the memory of one piece. The name of the file is random.
//!
//! Once a file is sealed, the journal holds its length and its hash. Before that it is a draft, and a crash loses
//! drafts: when the outbox is opened, files that the journal does not name are removed ([`Staging::strays`]). If
//! records of the journal were lost, these files are kept.

use crate::format::crypto::{Keys, Purpose, TAG_LEN, random};
use crate::{local_files, source};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use strongroom_mount::Time;

/// Plaintext length of a piece, in bytes.
const PIECE_BYTES: usize = 128 << 10;
const SEALED_BYTES: u64 = (PIECE_BYTES + TAG_LEN) as u64;

/// The name of a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagedId(pub [u8; 16]);

impl std::fmt::Display for StagedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl StagedId {
    fn parse(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = (0..text.len() / 2)
            .map(|at| text.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()))
            .collect();
        digits?.try_into().ok().map(Self)
    }
}

/// A staged file as it is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// Its name.
    pub id: StagedId,
    /// The length of its plaintext in bytes.
    pub len: u64,
    /// The time of the last write.
    pub mtime: Time,
}

/// The folder of staged files.
#[derive(Clone)]
pub struct Staging(Arc<Folder>);

struct Folder {
    path: PathBuf,
    /// The open folder, to make new names in it durable.
    handle: File,
    keys: Arc<Keys>,
}

impl Staging {
    /// Opens the staging area in `path`, or creates it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(path: PathBuf, keys: Arc<Keys>) -> io::Result<Self> {
        local_files::private_folder(&path)?;
        let handle = File::open(&path)?;
        Ok(Self(Arc::new(Folder { path, handle, keys })))
    }

    /// Returns all staged files.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn strays(&self) -> io::Result<Vec<Stray>> {
        let mut strays = Vec::new();
        for entry in std::fs::read_dir(&self.0.path)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(StagedId::parse) else { continue };
            let metadata = entry.metadata()?;
            let (full, rest) = (metadata.len() / SEALED_BYTES, metadata.len() % SEALED_BYTES);
            let len = full * PIECE_BYTES as u64 + rest.saturating_sub(TAG_LEN as u64);
            let mtime = Time { secs: metadata.mtime(), nanos: metadata.mtime_nsec() as u32 };
            strays.push(Stray { id, len, mtime });
        }
        strays.sort_by_key(|stray| stray.id);
        Ok(strays)
    }

    /// Begins a file. A file on the disk is made only when its first piece is written.
    pub fn begin(&self) -> StagedFile {
        StagedFile {
            staging: self.clone(),
            id: StagedId(random()),
            file: None,
            len: 0,
            stored: 0,
            piece: Vec::new(),
            number: 0,
            is_dirty: false,
        }
    }

    /// Opens a sealed file of `len` bytes.
    ///
    /// # Errors
    /// When the file does not exist.
    pub fn reopen(&self, id: StagedId, len: u64) -> io::Result<StagedFile> {
        let file = OpenOptions::new().read(true).write(true).open(self.0.path_of(id))?;
        let file = StagedFile { id, file: Some(file), len, stored: len, ..self.begin() };
        // No piece is in memory yet, so `number` is one that no piece has.
        Ok(StagedFile { number: u64::MAX, ..file })
    }

    /// Removes a file, if it exists.
    pub fn remove(&self, id: StagedId) {
        match std::fs::remove_file(self.0.path_of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It is removed when the outbox is opened the next time.
                tracing::warn!(%error, "a file that is needed no more could not be removed");
            }
            _ => {}
        }
    }
}

impl Folder {
    fn path_of(&self, id: StagedId) -> PathBuf {
        self.path.join(id.to_string())
    }
}

/// A staged file that is being written or read.
pub struct StagedFile {
    staging: Staging,
    id: StagedId,
    /// `None` while the whole file is in memory.
    file: Option<File>,
    len: u64,
    /// How many bytes of the file its stored pieces hold. Bytes after them read as zeros.
    stored: u64,
    /// The plaintext of the current piece.
    piece: Vec<u8>,
    number: u64,
    is_dirty: bool,
}

impl StagedFile {
    /// Returns its name.
    pub fn id(&self) -> StagedId {
        self.id
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes `bytes` at `offset`. A gap before them reads as zeros.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        let mut at = offset;
        while !bytes.is_empty() {
            let start = (at % PIECE_BYTES as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - start));
            self.load(at / PIECE_BYTES as u64)?;
            if self.piece.len() < start + now.len() {
                self.piece.resize(start + now.len(), 0);
            }
            self.piece[start..start + now.len()].copy_from_slice(now);
            self.is_dirty = true;
            at += now.len() as u64;
            self.len = self.len.max(at);
            bytes = later;
        }
        Ok(())
    }

    /// Truncates or extends the file.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            // The last piece is sealed again with its new length; later pieces are removed.
            let last = len.saturating_sub(1) / PIECE_BYTES as u64;
            self.load(last)?;
            self.piece.truncate((len - last * PIECE_BYTES as u64) as usize);
            self.is_dirty = true;
            self.stored = self.stored.min(last * PIECE_BYTES as u64);
            if let Some(file) = &self.file {
                file.set_len(last * SEALED_BYTES)?;
            }
        }
        self.len = len;
        Ok(())
    }

    /// Returns up to `size` bytes at `offset`.
    ///
    /// # Errors
    /// When the disk fails, or a piece is not authentic.
    pub fn read(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let end = self.len.min(offset.saturating_add(size as u64));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let number = at / PIECE_BYTES as u64;
            let first = number * PIECE_BYTES as u64;
            let (from, to) = ((at - first) as usize, (end - first).min(PIECE_BYTES as u64) as usize);
            let loaded;
            let piece = match number == self.number {
                true => &self.piece,
                false => {
                    loaded = self.read_piece(number)?;
                    &loaded
                }
            };
            bytes.extend_from_slice(&piece[from.min(piece.len())..to.min(piece.len())]);
            at = first + to as u64;
            bytes.resize((at - offset) as usize, 0);
        }
        Ok(bytes)
    }

    /// Makes the file and its name durable.
    ///
    /// # Errors
    /// When the disk fails. The file is then not durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.store()?;
        // The extended part needs stored pieces too, so that a later read finds them authentic.
        self.fill(self.len)?;
        let file = self.file.as_ref().expect("stored above");
        file.sync_all()?;
        self.staging.0.handle.sync_all()
    }

    /// Makes the piece `number` the current one.
    fn load(&mut self, number: u64) -> io::Result<()> {
        if self.number == number {
            return Ok(());
        }
        self.store()?;
        self.fill(self.len.min(number * PIECE_BYTES as u64))?;
        self.piece = self.read_piece(number)?;
        self.number = number;
        Ok(())
    }

    /// Stores zeros up to `len` where nothing is stored yet.
    fn fill(&mut self, len: u64) -> io::Result<()> {
        while self.stored < len {
            let number = self.stored / PIECE_BYTES as u64;
            let mut piece = self.read_piece(number)?;
            let full = (len - number * PIECE_BYTES as u64).min(PIECE_BYTES as u64);
            piece.resize(full as usize, 0);
            self.store_piece(number, &piece)?;
        }
        Ok(())
    }

    fn store(&mut self) -> io::Result<()> {
        if self.is_dirty || self.file.is_none() {
            let piece = std::mem::take(&mut self.piece);
            self.fill(self.number * PIECE_BYTES as u64)?;
            let stored = self.store_piece(self.number, &piece);
            self.piece = piece;
            stored?;
            self.is_dirty = false;
        }
        Ok(())
    }

    fn store_piece(&mut self, number: u64, piece: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(TAG_LEN + piece.len());
        sealed.resize(TAG_LEN, 0);
        sealed.extend_from_slice(piece);
        // If the file was extended in the meantime, it keeps its new length.
        let known = self.stored.saturating_sub(number * PIECE_BYTES as u64).min(PIECE_BYTES as u64) as usize;
        sealed.resize(TAG_LEN + piece.len().max(known), 0);
        self.staging.0.keys.encrypt(Purpose::LocalState, &self.bound(number), &mut sealed);
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let path = self.staging.0.path_of(self.id);
                none.insert(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?)
            }
        };
        file.write_all_at(&sealed, number * SEALED_BYTES)?;
        self.stored = self.stored.max(number * PIECE_BYTES as u64 + piece.len() as u64);
        Ok(())
    }

    fn read_piece(&self, number: u64) -> io::Result<Vec<u8>> {
        let first = number * PIECE_BYTES as u64;
        let len = self.stored.saturating_sub(first).min(PIECE_BYTES as u64) as usize;
        let (Some(file), 1..) = (&self.file, len) else { return Ok(Vec::new()) };
        let mut sealed = vec![0; TAG_LEN + len];
        file.read_exact_at(&mut sealed, number * SEALED_BYTES)?;
        let damaged =
            |_| io::Error::new(io::ErrorKind::InvalidData, "the dropped file is damaged on this machine's disk");
        self.staging.0.keys.decrypt(Purpose::LocalState, &self.bound(number), &mut sealed).map_err(damaged)?;
        sealed.drain(..TAG_LEN);
        Ok(sealed)
    }

    fn bound(&self, number: u64) -> Vec<u8> {
        [&b"outbox\0"[..], &self.id.0, &number.to_le_bytes()].concat()
    }

    /// Deletes the file.
    pub fn discard(self) {
        if self.file.is_some() {
            self.staging.remove(self.id);
        }
    }
}

impl source::Content for StagedFile {
    fn len_hint(&self) -> u64 {
        self.len
    }

    /// Only mails are accepted.
    fn is_mail(&self) -> bool {
        true
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Reading { file: self, at: 0 }))
    }
}

struct Reading<'a> {
    file: &'a StagedFile,
    at: u64,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(self.at, buffer.len().min(PIECE_BYTES))?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};
    use proptest::prelude::*;
    use std::path::Path;

    fn staging(path: &Path) -> Staging {
        let keys = Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0]));
        Staging::open(path.to_owned(), keys).unwrap()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Sync,
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = 0..3 * PIECE_BYTES as u64;
        prop_oneof![
            4 => (at.clone(), 1..2 * PIECE_BYTES, any::<u8>())
                .prop_map(|(at, len, byte)| Step::Write(at, vec![byte; len])),
            2 => at.prop_map(Step::SetLen),
            1 => Just(Step::Sync),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_staged_file_is_a_file(steps in proptest::collection::vec(step(), 1..12)) {
            let folder = tempfile::tempdir().unwrap();
            let mut file = staging(folder.path()).begin();
            let mut model: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        file.write(at, &bytes).unwrap();
                        let end = at as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                    }
                    Step::SetLen(len) => {
                        file.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                    Step::Sync => file.sync().unwrap(),
                }
                prop_assert_eq!(file.len(), model.len() as u64);
                prop_assert!(file.read(0, model.len() + 9).unwrap() == model);
            }
            file.sync().unwrap();
            let (id, len) = (file.id(), file.len());
            drop(file);
            prop_assert_eq!(staging(folder.path()).strays().unwrap()[0].len, len);
            let again = staging(folder.path()).reopen(id, len).unwrap();
            prop_assert!(again.read(0, model.len()).unwrap() == model);
            let middle = model.len() / 2;
            prop_assert!(again.read(middle as u64, 10).unwrap() == model[middle..model.len().min(middle + 10)]);
        }
    }

    #[test]
    fn what_is_staged_is_listed_and_nothing_can_be_read_or_changed_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let area = staging(folder.path());
        let (mut kept, mut lost) = (area.begin(), area.begin());
        for file in [&mut kept, &mut lost] {
            file.write(0, "Subject: a canary\r\n".repeat(20_000).as_bytes()).unwrap();
            file.sync().unwrap();
        }
        let (id, len) = (kept.id(), kept.len());
        let mut ids = [kept.id(), lost.id()];
        ids.sort();
        drop((kept, lost));
        let area = staging(folder.path());
        let strays = area.strays().unwrap();
        assert_eq!(strays.iter().map(|stray| (stray.id, stray.len)).collect::<Vec<_>>(), ids.map(|id| (id, len)));
        let path = folder.path().join(id.to_string());
        let mut bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        assert!(area.reopen(id, len).unwrap().read(0, 10).is_ok());
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let file = area.reopen(id, len).unwrap();
        assert!(file.read(0, 10).is_err() && file.read(PIECE_BYTES as u64, 10).is_ok());
    }
}
