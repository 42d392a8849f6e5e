//! How another process asks a mount to commit: by a file beside the journal, which the mount takes away.

use super::Shared;
use crate::local_files;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strongroom_mount::{Outbox, OutboxError};

/// How long somebody who commits waits for the mount to answer.
const WAIT: Duration = Duration::from_secs(10);
/// How often they look.
const LOOK: Duration = Duration::from_millis(50);

fn path(folder: &Path) -> PathBuf {
    folder.join("commit")
}

/// Asks whoever has the outbox in `folder` to restore what waits. Returns whether somebody did.
///
/// # Errors
/// When the disk fails.
pub fn ask_to_commit(folder: &Path) -> io::Result<bool> {
    let path = path(folder);
    local_files::append(&path)?;
    let asked = Instant::now();
    while asked.elapsed() < WAIT {
        if !path.exists() {
            return Ok(true);
        }
        std::thread::sleep(LOOK);
    }
    match std::fs::remove_file(&path) {
        // Just taken.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        removed => removed.map(|()| false),
    }
}

impl Shared {
    /// Looks whether somebody asked to commit, from another process.
    pub(super) fn take_request(&self) {
        let path = path(&self.options.folder);
        if !path.exists() {
            return;
        }
        // Taken away first: whoever asks again from now on is answered anew.
        let taken = std::fs::remove_file(&path).map_err(OutboxError::from).and_then(|()| self.commit());
        if let Err(error) = taken {
            tracing::error!(%error, "what waits could not be let go");
            // Whoever asked is told by its staying there.
            let _ = local_files::append(&path);
        }
    }
}
