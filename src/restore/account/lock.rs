//! Lets one restore at a time into each mailbox, among all restores on this machine with the same state folder.
//!
//! Two restores that look into a mailbox at the same time would both find that a message is missing, and create it
//! twice. This can happen with two snapshots, with a command beside a mount, or with two mounts. So a restore holds a
//! lock on a file in the state folder. The kernel releases it however the process ends. The file stays. Its name is a
//! hash of the tenant and the user, and says nothing.

use crate::local_files;
use rustix::fs::{FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two attempts to take a lock that somebody else has.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Holds the lock of a mailbox as long as it lives.
#[derive(Debug)]
pub(super) struct MailboxLock {
    _file: File,
}

impl MailboxLock {
    /// Waits for the lock of the mailbox of `user` (see [`MailboxLock::try_take`]). Returns `None` if `cancel` is set.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub async fn take(folder: &Path, tenant: &str, user: &str, cancel: &AtomicBool) -> io::Result<Option<Self>> {
        let mut is_told = false;
        while !cancel.load(Ordering::Relaxed) {
            if let Some(lock) = Self::try_take(folder, tenant, user)? {
                return Ok(Some(lock));
            }
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(user, "another restore is at work in this mailbox; this one goes on when it has ended");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(None)
    }

    /// Takes the lock of the mailbox of `user`, an id. `tenant` is the `tenant_id` of the configuration: an id or a
    /// domain. Returns `None` if somebody else has the lock. `folder` is the folder of the locks of this machine.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn try_take(folder: &Path, tenant: &str, user: &str) -> io::Result<Option<Self>> {
        local_files::private_folder(folder)?;
        let name = [tenant.to_lowercase().as_bytes(), b"\0", user.to_lowercase().as_bytes()].concat();
        let name = blake3::hash(&name).to_hex();
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(folder.join(&name.as_str()[..32]))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_lock_of_a_mailbox() {
        let folder = tempfile::tempdir().unwrap();
        let take =
            |tenant: &str, user: &str| MailboxLock::try_take(&folder.path().join("locks"), tenant, user).unwrap();
        let first = take("contoso.com", "u-1");
        assert!(first.is_some() && take("Contoso.com", "U-1").is_none());
        assert!(take("contoso.com", "u-2").is_some() && take("fabrikam.com", "u-1").is_some());
        drop(first);
        assert!(take("contoso.com", "u-1").is_some());
    }
}
