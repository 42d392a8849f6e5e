//! `--remember-key`: the kernel keeps the key of an opened repository for a while, so that the next command needs no
//! password, and mounting does not wait for Argon2.
//!
//! The key lies in the keyring of this user (user-keyring(7)): in the memory of the kernel, never on a disk. It is as
//! secret as the password. Until the period ends, every program of this user can read it.

use crate::format::id::RepositoryId;
use anyhow::{Context, Result};
use linux_keyutils::{KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use std::time::Duration;
use zeroize::Zeroizing;

/// Maximum length of what is kept, in bytes: a key, the id of its slot, and a `config`.
const LEN_MAX: usize = 4096;

/// The key of one repository in the keyring of this user.
pub struct RememberedKey {
    /// The name of the key in the keyring.
    name: String,
}

impl RememberedKey {
    /// Returns the place of this repository's key. It may hold nothing.
    pub fn of(repository: RepositoryId) -> Self {
        Self { name: format!("strongroom:{repository}") }
    }

    /// Returns what was kept, if the kernel still has it.
    pub fn get(&self) -> Option<Zeroizing<Vec<u8>>> {
        let key = keyring().ok()?.search(&self.name).ok()?;
        let mut kept = Zeroizing::new(vec![0; LEN_MAX]);
        let len = key.read(&mut *kept).ok()?;
        // The kernel returns the whole length, also if not all of it fits.
        (len <= LEN_MAX).then(|| {
            kept.truncate(len);
            kept
        })
    }

    /// Lets the kernel keep `secret` for `period`, in place of what it kept before.
    ///
    /// # Errors
    /// If the kernel refuses, for example in a container that may not use keyrings. Then it keeps nothing.
    pub fn keep(&self, secret: &[u8], period: Duration) -> Result<()> {
        let kept = keyring().and_then(|keyring| {
            let key = keyring.add_key(&self.name, secret)?;
            let bounded = key.set_timeout(usize::try_from(period.as_secs()).unwrap_or(usize::MAX)).and_then(|()| {
                // A later command of this user may run in another session, where it does not possess the key.
                let user = Permission::VIEW | Permission::READ | Permission::SEARCH;
                key.set_perms(KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(user).build())
            });
            bounded.inspect_err(|_| _ = keyring.unlink_key(key))
        });
        kept.context("the kernel does not keep the key")
    }

    /// Makes the kernel forget the key. Returns whether it had one.
    ///
    /// # Errors
    /// If the kernel does not remove the key.
    pub fn forget(&self) -> Result<bool> {
        let forgotten = keyring().and_then(|keyring| keyring.unlink_key(keyring.search(&self.name)?));
        match forgotten {
            Ok(()) => Ok(true),
            Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(false),
            Err(error) => Err(error).context("the kernel does not remove the key"),
        }
    }
}

/// Returns the keyring of this user.
fn keyring() -> Result<KeyRing, KeyError> {
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, true)?;
    // Only who possesses a key may set its time. A session of systemd begins with an empty keyring; the link makes this
    // process possess what is in the keyring of the user.
    _ = KeyRing::from_special_id(KeyRingIdentifier::Session, true)?.link_keyring_id(KeyRingIdentifier::User);
    Ok(user)
}
