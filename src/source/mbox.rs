//! mbox files. Each file becomes a folder of messages, which are named like every mail in a backup.
//!
//! A file is read twice. The first pass finds the messages, names them, and keeps the place and the name of each (some
//! 150 bytes). The second pass reads the messages in the order of their names. The lines that separate the messages are
//! kept in the messages' facts.

use super::{Content, Event, Item, ItemKind, Meta, Sink, Source};
use crate::content::mail;
use crate::content::mbox::{Mail, Mails, MboxError, ReadAt};
use crate::content::names::{UniqueNames, mail_name};
use crate::format::entry::{Facts, Timestamp};
use crate::format::snapshot::ROOT_NAME;
use crate::local_files;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A source of one or several mbox files.
pub struct Mboxes {
    /// The path of each file, by the name of its folder in the snapshot.
    files: BTreeMap<Box<[u8]>, PathBuf>,
    cancel: Arc<AtomicBool>,
}

impl Mboxes {
    /// Creates a source of the messages in `files`. Two files with the same name get the folders `name` and `name (2)`.
    ///
    /// Once `cancel` is set, nothing more is read.
    pub fn new(files: &[PathBuf], cancel: Arc<AtomicBool>) -> Self {
        let mut names = UniqueNames::new();
        let mut by_name = BTreeMap::new();
        for file in files {
            let name = file.file_name().map(OsStrExt::as_bytes).unwrap_or(b"mbox");
            // The name of the folder must be text, even if the name of the file is not.
            let name = names.claim(&String::from_utf8_lossy(name));
            by_name.insert(name.into_bytes().into(), file.clone());
        }
        Self { files: by_name, cancel }
    }

    fn walk_file(&self, file: &Path, folder: &[u8], sink: &mut Sink<'_>) -> Result<ControlFlow<()>, MboxError> {
        let read_error = |source| MboxError::Read { offset: 0, source };
        let opened = Arc::new(open(file)?);
        let stat = opened.metadata().map_err(read_error)?;
        let listed = Stamp::of(&stat);
        let (messages, cut_off) = self.find_messages(&opened)?;
        let mtime = Timestamp { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 };
        let meta = Meta { name: folder.into(), mtime, ..Meta::default() };
        if sink(Event::Enter { meta, path: folder.to_vec() }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        for (name, message) in messages {
            let path = [folder, b"/", name.as_bytes()].concat();
            let event = match message.facts(&opened) {
                Ok(facts) => {
                    let meta = Meta {
                        name: name.into_bytes().into(),
                        mtime: Timestamp { secs: message.date.unwrap_or(mtime.secs), nanos: 0 },
                        ..Meta::default()
                    };
                    let content = Box::new(MessageContent { file: opened.clone(), listed, message });
                    let kind = ItemKind::File { content, fingerprint: Vec::new() };
                    Event::Item(Box::new(Item { meta, path, kind, facts }))
                }
                Err(error) => Event::Failed { name: name.into_bytes().into(), path, error: error.to_string() },
            };
            if sink(event).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if let Some(error) = cut_off {
            // This name sorts after every mail. It stands for the mails that are missing.
            let name: Box<[u8]> = "\u{10ffff}".as_bytes().into();
            let path = [folder, b"/", &name].concat();
            if sink(Event::Failed { name, path, error: error_text(&error) }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(sink(Event::Leave))
    }

    /// Finds all messages. If one cannot be read, returns the messages before it, and the error.
    fn find_messages(&self, file: &File) -> Result<Listed, MboxError> {
        let mut names = UniqueNames::new();
        let mut messages = BTreeMap::new();
        let mut header = Vec::new();
        for mail in Mails::new(Interruptible { file, cancel: &self.cancel }) {
            let mail = mail.and_then(|mail| {
                let len = (mail.range.end - mail.range.start).min(mail.header_len).min(mail::HEADER_BYTES_MAX as u64);
                header.resize(len as usize, 0);
                let read = file.read_exact_at(&mut header, mail.range.start);
                read.map(|()| mail).map_err(|source| MboxError::Read { offset: 0, source })
            });
            let mail = match mail {
                Ok(mail) => mail,
                Err(error) if messages.is_empty() => return Err(error),
                Err(error) => return Ok((messages, Some(error))),
            };
            let facts = mail::facts(&header);
            let date = facts.date.or_else(|| mail::date::parse(&mail.date));
            let name = names.claim(&mail_name(date, facts.from.as_deref(), facts.subject.as_deref()));
            messages.insert(name, Message::new(&mail, date));
        }
        Ok((messages, None))
    }
}

/// Opens an mbox file. If `path` is a folder as Apple Mail exports it, opens the file `mbox` in it.
fn open(path: &Path) -> Result<File, MboxError> {
    let inside = path.join("mbox");
    if !path.is_dir() {
        local_files::open(path).map_err(|source| MboxError::Read { offset: 0, source })
    } else if inside.is_file() {
        local_files::open(&inside).map_err(|source| MboxError::Read { offset: 0, source })
    } else {
        Err(MboxError::Other("the folder has no file `mbox` in it; name the mbox file itself"))
    }
}

/// A file that can no longer be read once the run is cancelled. Finding the mails in a large file takes minutes.
struct Interruptible<'a> {
    file: &'a File,
    cancel: &'a AtomicBool,
}

impl ReadAt for Interruptible<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            // Not `ErrorKind::Interrupted`: readers try again after that one.
            return Err(io::Error::other("interrupted"));
        }
        FileExt::read_at(self.file, buffer, offset)
    }
}

/// Where a message lies in its file, in bytes.
struct Message {
    offset: u64,
    len: u64,
    /// Lengths of the separators before and after the message.
    before: u32,
    behind: u32,
    date: Option<i64>,
}

type Listed = (BTreeMap<String, Message>, Option<MboxError>);

impl Message {
    fn new(mail: &Mail, date: Option<i64>) -> Self {
        let len = |range: &Range<u64>| range.end - range.start;
        Self {
            offset: mail.range.start,
            len: len(&mail.range),
            // Both separators are a few lines of limited length, so they fit into 32 bits.
            before: len(&mail.before) as u32,
            behind: len(&mail.behind) as u32,
            date,
        }
    }

    /// Returns the facts that the file states about the message: its date, and the separators around it.
    fn facts(&self, file: &File) -> io::Result<Facts> {
        let read = |at: u64, len: u32| {
            let mut bytes = vec![0; len as usize];
            file.read_exact_at(&mut bytes, at)?;
            io::Result::Ok((len > 0).then(|| bytes.into_boxed_slice()))
        };
        let before = read(self.offset - u64::from(self.before), self.before)?;
        let behind = read(self.offset + self.len, self.behind)?;
        Ok(Facts { date: self.date, mbox_before: before, mbox_after: behind, ..Facts::default() })
    }
}

impl Source for Mboxes {
    fn root(&self) -> io::Result<Meta> {
        let mut mtime = None;
        let mut failed = None;
        for file in self.files.values() {
            match std::fs::metadata(file) {
                Ok(stat) => mtime = mtime.max(Some(Timestamp { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 })),
                Err(error) => failed = Some(error),
            }
        }
        // If other files exist, a missing file is only a failed item.
        let mtime = match (mtime, failed) {
            (None, Some(error)) => return Err(error),
            (mtime, _) => mtime.unwrap_or_default(),
        };
        Ok(Meta { name: ROOT_NAME.into(), mtime, ..Meta::default() })
    }

    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
        for (name, file) in &self.files {
            let walked = self.walk_file(file, name, sink).or_else(|error| {
                let error = error_text(&error);
                Ok::<_, io::Error>(sink(Event::Failed { name: name.clone(), path: name.to_vec(), error }))
            })?;
            if walked.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn error_text(error: &MboxError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Values that change whenever the file changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp([i64; 5]);

impl Stamp {
    fn of(stat: &Metadata) -> Self {
        Stamp([stat.size().cast_signed(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()])
    }
}

struct MessageContent {
    file: Arc<File>,
    /// The file's stamp when its messages were found.
    listed: Stamp,
    message: Message,
}

impl Content for MessageContent {
    fn len_hint(&self) -> u64 {
        self.message.len
    }

    fn is_mail(&self) -> bool {
        true
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let Message { offset, len, .. } = self.message;
        Ok(Box::new(MessageReader { file: &self.file, listed: self.listed, at: offset, left: len }))
    }
}

/// Reads a part of a file at given offsets. It does not move the file's position, which other threads share.
struct MessageReader<'a> {
    file: &'a File,
    listed: Stamp,
    at: u64,
    left: u64,
}

impl Read for MessageReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        // At the end of the message, check that the file is still as it was when the message was found.
        if read == 0 && !buffer.is_empty() && (self.left > 0 || Stamp::of(&self.file.metadata()?) != self.listed) {
            return Err(io::Error::other("the mbox file changed while it was read"));
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_pipe_in_place_of_a_file_is_not_waited_for() {
        let lab = tempfile::TempDir::new().unwrap();
        let pipe = lab.path().join("archive.mbox");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut failed = 0;
            let walked = Mboxes::new(&[pipe], Arc::default()).walk(&mut |event| {
                failed += u32::from(matches!(event, Event::Failed { .. }));
                ControlFlow::Continue(())
            });
            done.send((walked.is_ok(), failed)).unwrap();
        });
        let ended = ended.recv_timeout(Duration::from_secs(60)).expect("nobody waits for a writer");
        assert_eq!(ended, (true, 1));
    }
}
