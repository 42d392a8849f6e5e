//! `strongroom ls`

use super::error::{Exit, UsageError};
use super::{Session, output, reader};
use crate::cli::backup::rfc3339;
use crate::format::entry::system::Special;
use crate::format::entry::{Entry, EntryKind};
use crate::repository::reader::Reader;
use crate::repository::select::{self, Selected};
use crate::repository::tree::{self, Entries};
use crate::view::local_time;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

/// Lists the files and folders of a snapshot
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom ls latest\n  strongroom ls -R latest:Users/alice@contoso.com/Outlook")]
pub struct Ls {
    /// Lists subfolders too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The snapshot, and a folder or file in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    what: OsString,
}

impl Ls {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let Selected { snapshot, path, .. } = select::select(&repository, self.what.as_bytes())?;
        let reader = reader(&repository);
        let entry = find(&reader, &snapshot.root, &path)?;
        let lister = Lister {
            reader: &reader,
            json: session.output().json,
            recursive: self.recursive,
            out: BufWriter::new(std::io::stdout().lock()),
        };
        lister.list(&entry, path)?;
        Ok(Exit::Done)
    }
}

/// Returns the entry at `path` under `root`.
pub fn find(reader: &Reader, root: &Entry, path: &[u8]) -> Result<Entry> {
    if path.is_empty() {
        return Ok(root.clone());
    }
    let found = match root.directory() {
        Some(dir) => tree::find_path(reader, dir, path)?,
        None => None,
    };
    match found {
        Some(found) => Ok(found.entry().clone()),
        None => Err(UsageError::Other(format!("the snapshot has no {}", output::path(path))).into()),
    }
}

struct Lister<'a, W: Write> {
    reader: &'a Reader,
    json: bool,
    recursive: bool,
    out: W,
}

impl<W: Write> Lister<'_, W> {
    fn list(mut self, entry: &Entry, mut path: Vec<u8>) -> Result<()> {
        match entry.directory() {
            Some(_) => self.list_folder(entry, &mut path)?,
            None => self.show(entry, &path)?,
        }
        Ok(self.out.flush()?)
    }

    fn list_folder(&mut self, folder: &Entry, path: &mut Vec<u8>) -> Result<()> {
        let Some(dir) = folder.directory() else { return Ok(()) };
        for found in Entries::new(self.reader, dir)? {
            let found = found?;
            let entry = found.entry();
            let len = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            self.show(entry, path)?;
            if self.recursive {
                self.list_folder(entry, path)?;
            }
            path.truncate(len);
        }
        Ok(())
    }

    fn show(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let (kind, letter) = match (entry.special(), &entry.kind) {
            (Some(Special::Fifo), _) => ("fifo", 'p'),
            (Some(Special::Socket), _) => ("socket", 's'),
            (Some(Special::CharDevice { .. }), _) => ("character_device", 'c'),
            (Some(Special::BlockDevice { .. }), _) => ("block_device", 'b'),
            (None, EntryKind::File(_)) => ("file", '-'),
            (None, EntryKind::Directory(_)) => ("directory", 'd'),
            (None, EntryKind::Symlink(_)) => ("symlink", 'l'),
        };
        if self.json {
            let mut object = json!({
                "path": String::from_utf8_lossy(path),
                "type": kind,
                "size": entry.size(),
                "mtime": rfc3339(entry.mtime.secs),
                "subject": entry.facts.subject,
                "from": entry.facts.from,
            });
            if let Some(before) = &entry.facts.mbox_before {
                object["separator"] = String::from_utf8_lossy(before).trim().into();
            }
            return output::write_json(&mut self.out, &object);
        }
        let time = local_time(entry.mtime.secs, "%Y-%m-%d %H:%M");
        let slash = if letter == 'd' { "/" } else { "" };
        Ok(writeln!(self.out, "{letter} {:>12}  {time}  {}{slash}", entry.size(), output::path(path))?)
    }
}
