//! `strongroom cat`

use super::error::{Exit, UsageError};
use super::{Session, ls, output, reader};
use crate::format::entry::EntryKind;
use crate::repository::select::{self, Selected};
use crate::shown;
use anyhow::Result;
use clap::Args;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

/// Number of bytes that are read at a time.
const PIECE_LEN: usize = 1 << 20;

/// Writes one file of a snapshot to standard output
#[derive(Args)]
#[command(
    after_help = "Example:\n  strongroom cat 'latest:Users/alice@contoso.com/Outlook/Inbox/Budget.eml' > Budget.eml\n\n\
    The file is written byte for byte. On a terminal, characters that could control it are shown escaped."
)]
pub struct Cat {
    /// The snapshot, and the file in it
    #[arg(value_name = "SNAPSHOT:PATH")]
    what: OsString,
}

impl Cat {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let Selected { snapshot, path, .. } = select::select(&repository, self.what.as_bytes())?;
        let reader = reader(&repository);
        let entry = ls::find(&reader, &snapshot.root, &path)?;
        let EntryKind::File(content) = &entry.kind else {
            let path = if path.is_empty() { "the snapshot".to_owned() } else { output::path(&path) };
            return Err(UsageError::Other(format!("{path} is not a file")).into());
        };
        let out = std::io::stdout().lock();
        let mut out: Box<dyn Write> = match out.is_terminal() {
            true => Box::new(shown::Terminal::new(out)),
            false => Box::new(out),
        };
        let (mut offset, len) = (0, content.len());
        let mut piece = Vec::with_capacity(PIECE_LEN);
        while offset < len {
            piece.clear();
            reader.read(content, offset, PIECE_LEN, &mut piece)?;
            out.write_all(&piece)?;
            offset += piece.len() as u64;
        }
        out.flush()?;
        Ok(Exit::Done)
    }
}
