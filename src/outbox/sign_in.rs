//! Handles an expired sign-in. The files that it stops wait, and go on once somebody has signed in again.
//!
//! One of the files is tried from time to time. If it is not refused, the others follow. While files wait, a file
//! beside the journal holds the reason, so that `restore jobs` can show it from another process.

use super::OutboxState;
use super::staging::StagedId;
use crate::format::crypto::{Keys, Purpose, TAG_LEN};
use crate::local_files;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// First wait between two trials of a sign-in. It doubles up to [`TRIAL_WAIT_MAX`].
const TRIAL_WAIT_MIN: Duration = Duration::from_secs(10);
/// Longest wait between two trials. A renewed sign-in is noticed within this time.
const TRIAL_WAIT_MAX: Duration = Duration::from_secs(60);
/// Maximum length of the file that holds the reason, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The associated data of the sealed file.
const NAME: &[u8] = b"the outbox's sign-in";

/// The files that wait for a sign-in.
#[derive(Default)]
pub(super) struct SignIn {
    files: VecDeque<StagedId>,
    /// The file that is being tried. It is not among `files`.
    trial: Option<StagedId>,
    /// When the next file may be tried, and how long the last wait was.
    next: Option<(Instant, Duration)>,
    /// Why they wait, in the words of the service.
    reason: Option<String>,
}

impl SignIn {
    /// Returns why files wait, if any do.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Returns how many files wait.
    pub(super) fn waiting(&self) -> usize {
        self.files.len() + usize::from(self.trial.is_some())
    }

    /// Adds a file that was refused for this reason. Returns true if it is the first.
    fn park(&mut self, id: StagedId, reason: String, now: Instant) -> bool {
        let is_first = self.reason.is_none();
        let is_trial = self.trial == Some(id);
        if is_first || is_trial {
            let wait = self.next.map_or(TRIAL_WAIT_MIN, |(_, before)| (before * 2).min(TRIAL_WAIT_MAX));
            self.next = Some((now + wait, wait));
        }
        if is_trial {
            self.trial = None;
        }
        self.reason = Some(reason);
        self.files.push_back(id);
        is_first
    }

    /// Returns the file to try now, if it is time. `is_there` says whether a file still exists; the user may have taken
    /// it back. If none exists any more, nothing waits.
    fn next_trial(&mut self, now: Instant, is_there: impl Fn(StagedId) -> bool) -> Option<StagedId> {
        self.trial = self.trial.filter(|id| is_there(*id));
        if self.trial.is_some() || self.next.is_none_or(|(next, _)| next > now) {
            return None;
        }
        self.files.retain(|id| is_there(*id));
        self.trial = self.files.pop_front();
        if self.trial.is_none() {
            *self = Self::default();
        }
        self.trial
    }

    /// Returns why the other files wait, if this file is being tried.
    fn trial_reason(&self, id: StagedId) -> Option<String> {
        self.reason.clone().filter(|_| self.trial == Some(id))
    }

    /// Notes that a file was not refused. If it was being tried, returns the files that may go on.
    fn passed(&mut self, id: StagedId) -> Option<VecDeque<StagedId>> {
        (self.trial == Some(id)).then(|| std::mem::take(self).files)
    }
}

impl OutboxState {
    /// Makes a file wait until somebody has signed in again.
    pub(super) fn wait_for_sign_in(&self, id: StagedId, reason: String) {
        let is_first = self.sign_in.lock().park(id, reason.clone(), Instant::now());
        self.queue.lock().put_back(id);
        if is_first {
            tracing::warn!(reason, "the sign-in has expired; dropped files wait until somebody signs in again");
            if let Err(error) = write(&self.options.folder, self.repository.keys(), &reason) {
                tracing::warn!(%error, "`restore jobs` cannot tell that the sign-in has expired");
            }
        }
        self.settled.notify_all();
    }

    /// Tries the next file that waits for a sign-in, if it is time.
    pub(super) fn try_sign_in(&self) {
        let mut queue = self.queue.lock();
        let mut sign_in = self.sign_in.lock();
        if sign_in.reason().is_none() {
            return;
        }
        if let Some(id) = sign_in.next_trial(Instant::now(), |id| queue.item(id).is_some()) {
            queue.again(id);
            self.wake.notify_one();
        } else if sign_in.reason().is_none() {
            forget(&self.options.folder);
        }
    }

    /// Returns why the other files wait for a sign-in, if this file is being tried.
    pub(super) fn trial_reason(&self, id: StagedId) -> Option<String> {
        self.sign_in.lock().trial_reason(id)
    }

    /// Makes the next trial due at once. Somebody asked for it and has probably signed in.
    pub(super) fn hurry_sign_in(&self) {
        if let Some(next) = &mut self.sign_in.lock().next {
            *next = (Instant::now(), TRIAL_WAIT_MIN / 2);
        }
    }

    /// Notes that the sign-in did not refuse a file. If the file was being tried, the others go on.
    pub(super) fn signed_in(&self, id: StagedId) {
        let Some(files) = self.sign_in.lock().passed(id) else { return };
        tracing::info!(files = files.len(), "the sign-in works again");
        forget(&self.options.folder);
        let mut queue = self.queue.lock();
        files.into_iter().for_each(|id| queue.again(id));
        drop(queue);
        self.wake.notify_one();
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("sign-in")
}

/// Writes the reason to the file that other processes read.
fn write(folder: &Path, keys: &Keys, reason: &str) -> io::Result<()> {
    let mut sealed = vec![0; TAG_LEN];
    sealed.extend_from_slice(reason.as_bytes());
    keys.encrypt(Purpose::LocalState, NAME, &mut sealed);
    forget(folder);
    io::Write::write_all(&mut local_files::append(&path(folder))?, &sealed)
}

/// Returns why files wait for a sign-in, if a mount has noted a reason.
pub fn reason(folder: &Path, keys: &Keys) -> Option<String> {
    let mut sealed = local_files::read(&path(folder), FILE_BYTES_MAX).ok()?;
    let text = keys.decrypt(Purpose::LocalState, NAME, &mut sealed).ok()?;
    String::from_utf8(text.to_vec()).ok()
}

/// Removes the reason, because no file waits for a sign-in or none has been tried yet.
pub(super) fn forget(folder: &Path) {
    // An error does no harm: the next reason replaces the file.
    let _ = std::fs::remove_file(path(folder));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crypto::{Cipher, MasterKey};

    fn id(n: u8) -> StagedId {
        StagedId([n; 16])
    }

    #[test]
    fn one_file_is_tried_ever_more_seldom_and_the_others_follow_it() {
        let mut sign_in = SignIn::default();
        let start = Instant::now();
        assert!(sign_in.park(id(1), "expired".to_owned(), start), "the first is told of");
        assert!(!sign_in.park(id(2), "expired".to_owned(), start));
        assert_eq!((sign_in.reason(), sign_in.waiting()), (Some("expired"), 2));
        let mut now = start;
        let mut tried = Vec::new();
        for wait in [10, 20, 40, 60, 60] {
            let due = now + Duration::from_secs(wait);
            assert_eq!(sign_in.next_trial(due - Duration::from_millis(1), |_| true), None);
            let one = sign_in.next_trial(due, |_| true).unwrap();
            assert_eq!(sign_in.next_trial(due, |_| true), None, "one at a time");
            assert!(!sign_in.park(one, "expired".to_owned(), due));
            tried.push(one);
            now = due;
        }
        assert_eq!(tried, [id(1), id(2), id(1), id(2), id(1)], "one that fails for another reason holds up no other");
        assert_eq!(sign_in.passed(id(1)), None, "it was not on trial");
        let one = sign_in.next_trial(now + TRIAL_WAIT_MAX, |_| true).unwrap();
        assert_eq!(sign_in.passed(one), Some(VecDeque::from([id(1)])));
        assert_eq!((sign_in.reason(), sign_in.waiting()), (None, 0));
        assert!(sign_in.park(id(3), "expired".to_owned(), now), "the next time is told of as well");
    }

    #[test]
    fn files_that_were_taken_back_hold_up_nobody() {
        let mut sign_in = SignIn::default();
        let start = Instant::now();
        for n in 1..=3 {
            sign_in.park(id(n), "expired".to_owned(), start);
        }
        let due = start + TRIAL_WAIT_MIN;
        assert_eq!(sign_in.next_trial(due, |_| true), Some(id(1)));
        assert_eq!(sign_in.next_trial(due, |one| one == id(3)), Some(id(3)), "the one on trial was taken back");
        assert_eq!(sign_in.next_trial(due, |_| false), None);
        assert_eq!((sign_in.reason(), sign_in.waiting()), (None, 0));
    }

    #[test]
    fn the_reason_is_read_by_others_and_sealed_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0]);
        assert_eq!(reason(folder.path(), &keys), None);
        write(folder.path(), &keys, "a canary").unwrap();
        write(folder.path(), &keys, "canaries").unwrap();
        assert_eq!(reason(folder.path(), &keys).as_deref(), Some("canaries"));
        let bytes = std::fs::read(path(folder.path())).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canari"));
        forget(folder.path());
        assert_eq!(reason(folder.path(), &keys), None);
    }
}
