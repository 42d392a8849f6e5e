//! The open import sessions, and the numbers of exports.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use strongroom_corpora::rng::Rng;

/// Lifetime of an import session.
const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// Numbers the exports, and holds the open import sessions.
#[derive(Debug)]
pub struct Transfers {
    exports: AtomicU64,
    sessions: Mutex<Sessions>,
}

#[derive(Debug)]
struct Sessions {
    rng: Rng,
    open: HashMap<String, Session>,
}

#[derive(Debug, Clone)]
struct Session {
    user: String,
    expires: Timestamp,
}

impl Transfers {
    /// Returns no sessions. The tokens of new sessions are derived from `seed`.
    pub fn new(seed: u64) -> Self {
        let sessions = Sessions { rng: Rng::for_purpose(seed, "import sessions"), open: HashMap::new() };
        Self { exports: AtomicU64::new(0), sessions: Mutex::new(sessions) }
    }

    /// Returns the number of the next export.
    pub(super) fn next_export(&self) -> u64 {
        self.exports.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends all import sessions early.
    pub fn expire_sessions(&self) {
        self.sessions.lock().open.clear();
    }

    /// Opens a session for a user's mailbox. Returns its token, and when it expires.
    pub(super) fn open(&self, user: String, now: Timestamp) -> (String, Timestamp) {
        let mut sessions = self.sessions.lock();
        sessions.open.retain(|_, session| session.expires > now);
        let token = sessions.rng.token(160);
        let expires = now + SESSION_LIFETIME;
        sessions.open.insert(token.clone(), Session { user, expires });
        (token, expires)
    }

    /// Returns the user whose mailbox an open session writes to.
    pub(super) fn user(&self, token: &str, now: Timestamp) -> Option<String> {
        let sessions = self.sessions.lock();
        sessions.open.get(token).filter(|session| session.expires > now).map(|session| session.user.clone())
    }
}
