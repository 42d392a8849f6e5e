//! Users of the directory: people, rooms, shared mailboxes, guests.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::locale::Locale;
use super::mailbox::Mailbox;
use crate::clock;

/// Kind of a user. It decides what the directory says, and whether there is a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Has a licence and a mailbox.
    #[default]
    Licensed,
    /// Has no licence, and so no mailbox.
    Unlicensed,
    /// A mailbox that several people use: a disabled account without licence.
    Shared,
    /// A meeting room.
    Room,
    /// Equipment, such as a projector or a car.
    Equipment,
    /// A user of another organisation, without a mailbox.
    Guest,
    /// A licensed account from before 2014, which has no user type.
    NullType,
    /// The mailbox is still on a server of the organisation.
    OnPremises,
    /// The mailbox is full: even a delta cannot be read.
    OverQuota,
    /// Licensed, but the access policy keeps the application out.
    OutsidePolicy,
    /// Deleted less than thirty days ago.
    SoftDeleted,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Licensed,
        Self::Unlicensed,
        Self::Shared,
        Self::Room,
        Self::Equipment,
        Self::Guest,
        Self::NullType,
        Self::OnPremises,
        Self::OverQuota,
        Self::OutsidePolicy,
        Self::SoftDeleted,
    ];

    /// Returns whether users of this kind have a mailbox in the cloud.
    pub fn has_mailbox(self) -> bool {
        !matches!(self, Self::Unlicensed | Self::Guest | Self::OnPremises)
    }

    /// Returns whether users of this kind have a licence for Exchange.
    pub fn is_licensed(self) -> bool {
        matches!(self, Self::Licensed | Self::NullType | Self::OverQuota | Self::OutsidePolicy | Self::SoftDeleted)
    }

    /// Returns `userPurpose`, as in the mailbox settings.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Room => "room",
            Self::Equipment => "equipment",
            _ => "user",
        }
    }
}

/// A user to add to the directory.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserSpec {
    /// User principal name. The tenant's domain is added to a name without `@`.
    pub principal_name: String,
    /// Name for display; if empty, the principal name is used.
    pub display_name: String,
    /// Kind of the user.
    pub kind: Kind,
    /// Language of the mailbox.
    pub locale: Locale,
}

/// A user in the directory.
#[derive(Debug)]
pub struct User {
    /// Object id; never changes.
    pub id: String,
    /// When the account was created.
    pub created: i64,
    /// Kind of the user.
    pub kind: Kind,
    names: RwLock<Names>,
    mailbox: Option<Mutex<Mailbox>>,
    probes: AtomicU64,
}

#[derive(Clone, Debug)]
struct Names {
    principal: String,
    display: String,
    deleted: bool,
    change: u64,
}

impl User {
    pub(super) fn new(id: String, change: u64, spec: UserSpec, mailbox: Option<Mailbox>) -> Self {
        let display = if spec.display_name.is_empty() { spec.principal_name.clone() } else { spec.display_name };
        let deleted = spec.kind == Kind::SoftDeleted;
        let names = RwLock::new(Names { principal: spec.principal_name, display, deleted, change });
        Self {
            id,
            created: clock::BEGIN,
            kind: spec.kind,
            names,
            mailbox: mailbox.map(Mutex::new),
            probes: AtomicU64::new(0),
        }
    }

    /// Returns the user principal name.
    pub fn principal_name(&self) -> String {
        self.names.read().principal.clone()
    }

    /// Returns the name for display.
    pub fn display_name(&self) -> String {
        self.names.read().display.clone()
    }

    /// Returns the number of the last change to this user in the directory.
    pub fn change(&self) -> u64 {
        self.names.read().change
    }

    pub(super) fn rename(&self, principal: &str, display: &str, change: u64) {
        let mut names = self.names.write();
        principal.clone_into(&mut names.principal);
        display.clone_into(&mut names.display);
        names.change = change;
    }

    /// Returns whether the account was deleted.
    pub fn is_deleted(&self) -> bool {
        self.names.read().deleted
    }

    pub(super) fn delete(&self, change: u64) {
        let mut names = self.names.write();
        names.deleted = true;
        names.change = change;
    }

    /// Returns the mailbox. Lock it only briefly.
    pub fn mailbox(&self) -> Option<&Mutex<Mailbox>> {
        self.mailbox.as_ref()
    }

    /// Returns how often the mailbox was requested in vain so far: the service's answer varies.
    pub fn next_probe(&self) -> u64 {
        self.probes.fetch_add(1, Ordering::Relaxed)
    }
}
