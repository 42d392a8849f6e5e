//! Lets another process ask a mount to commit: by a file beside the journal, which the mount removes.

use super::OutboxState;
use crate::local_files;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strongroom_mount::{Outbox, OutboxError};

/// How long the asking process waits for the mount.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Time between two looks for the file.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

fn path(folder: &Path) -> PathBuf {
    folder.join("commit")
}

/// Asks the process that uses the outbox in `folder` to restore the waiting files. Returns whether a process did.
///
/// # Errors
/// When the disk fails.
pub fn ask_to_commit(folder: &Path) -> io::Result<bool> {
    let path = path(folder);
    local_files::append(&path)?;
    let asked = Instant::now();
    while asked.elapsed() < ANSWER_WAIT {
        if !path.exists() {
            return Ok(true);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    match std::fs::remove_file(&path) {
        // The mount has removed it just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        removed => removed.map(|()| false),
    }
}

impl OutboxState {
    /// Commits if another process has asked for it.
    pub(super) fn take_request(&self) {
        let path = path(&self.options.folder);
        if !path.exists() {
            return;
        }
        // The file is removed first, so that a later request is answered by itself.
        let taken = std::fs::remove_file(&path).map_err(OutboxError::from).and_then(|()| self.commit());
        if let Err(error) = taken {
            tracing::error!(%error, "the waiting files could not be committed");
            // The asking process sees the file again and knows that the commit failed.
            let _ = local_files::append(&path);
        }
    }
}
