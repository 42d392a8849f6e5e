//! The configuration: `strongroom.toml`, which names repositories, tenants and backup sets (docs/configuration.md).
//!
//! A file is read as a whole and proven as a whole: an unknown key, a name that leads nowhere or an address that is
//! none is an error before anything is done, and says in which line. No secret stands in the file: a [`SecretSource`]
//! says where it is, and reads it only when it is needed. Whether a service or a folder of a name exists is left to
//! those who ask for it.

mod document;
mod file;
mod secret;
mod size;

pub use document::Place;
pub use secret::{SecretSource, first_line, read_secret_file};
pub use size::ByteSize;

use crate::local_files;
use crate::source::graph::{Cloud, Endpoints};
use crate::source::selection::Selection;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Requests in flight for a tenant where a set does not say otherwise.
pub const CONCURRENCY_DEFAULT: usize = 16;

/// Longer than any configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How long a dropped file rests where the configuration does not say otherwise: file managers that are cancelled close
/// a file and remove it then.
pub const DROP_DELAY_DEFAULT: Duration = Duration::from_secs(2);

/// What a configuration file says.
#[derive(Debug, Default)]
pub struct Settings {
    /// The file; also where one is looked for that is not there.
    pub file: PathBuf,
    /// Repositories by name.
    pub repositories: BTreeMap<String, RepositorySettings>,
    /// Tenants by name.
    pub tenants: BTreeMap<String, TenantSettings>,
    /// Backup sets by name.
    pub sets: BTreeMap<String, SetSettings>,
    /// What becomes of what is dropped into a mount.
    pub restore: RestoreSettings,
}

/// The table `[restore]`: when what is dropped into a mount is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreSettings {
    /// What it waits for.
    pub commit: Commit,
    /// How long a file that was closed rests, in which it can be removed.
    pub delay: Duration,
}

impl Default for RestoreSettings {
    fn default() -> Self {
        Self { commit: Commit::default(), delay: DROP_DELAY_DEFAULT }
    }
}

/// What dropped files wait for: `commit` of the table `[restore]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// As soon as it is closed.
    #[default]
    Close,
    /// When somebody says so: `strongroom restore commit`.
    Ask,
}

/// A table `[repositories.NAME]`.
#[derive(Debug)]
pub struct RepositorySettings {
    /// Where it is: an absolute path, or an address with a scheme.
    pub url: String,
    /// Where its password is.
    pub password: Option<SecretSource>,
    /// Where what is read of it is kept nearby.
    pub cache_dir: Option<PathBuf>,
    /// How large that may become.
    pub cache_size: Option<ByteSize>,
}

/// A table `[tenants.NAME]`: an organisation, and how to sign in to it.
#[derive(Debug)]
pub struct TenantSettings {
    /// The directory id or a verified domain.
    pub tenant_id: String,
    /// The application (client) id.
    pub client_id: String,
    /// How the application proves who it is.
    pub credential: CredentialSettings,
    /// Which of Microsoft's clouds the organisation is in.
    pub cloud: Cloud,
    /// The cloud's hosts, or those that take their place.
    pub endpoints: Endpoints,
    /// The HTTP proxy that all requests go through.
    pub proxy: Option<Url>,
    /// Nothing may be restored to it.
    pub read_only: bool,
}

/// How an application signs in.
#[derive(Debug)]
pub enum CredentialSettings {
    /// By a secret.
    Secret(SecretSource),
    /// By a certificate: a PEM file with private key and certificate.
    Certificate(SecretSource),
    /// As a person, by `strongroom tenant login`.
    Login,
}

/// As what a set keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// Their bytes, and what the service says of them.
    #[default]
    Mime,
    /// Also the streams as which the service exports them, which restore what the others lose.
    Full,
}

/// What of a tenant a set backs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Mail.
    Outlook,
    /// The files of each user.
    Onedrive,
    /// The sites behind the users' OneDrives.
    PersonalSite,
    /// Site collections.
    Sharepoint,
    /// Teams and their channels.
    Teams,
    /// Exchange's public folders.
    PublicFolders,
}

impl Service {
    /// Returns its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Service::Outlook => "outlook",
            Service::Onedrive => "onedrive",
            Service::PersonalSite => "personal-site",
            Service::Sharepoint => "sharepoint",
            Service::Teams => "teams",
            Service::PublicFolders => "public-folders",
        }
    }
}

/// A table `[sets.NAME]`: what a backup takes, and where it goes.
#[derive(Debug)]
pub struct SetSettings {
    /// The tenant's name in the configuration.
    pub tenant: String,
    /// The repositories' names in the configuration; none stands for the one of the command line, or the only one.
    pub repositories: Vec<String>,
    /// Which paths.
    pub selection: Selection,
    /// Which services, each once.
    pub services: Vec<Service>,
    /// The most requests in flight for the tenant.
    pub concurrency: usize,
    /// Only users with a licence, so no shared and no resource mailboxes.
    pub licensed_only: bool,
    /// Also folders that mail programs do not show.
    pub hidden_folders: bool,
    /// Also what was deleted for good and can still be recovered.
    pub recoverable_items: bool,
    /// As what messages are kept.
    pub fidelity: Fidelity,
}

/// The configuration cannot be used as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file that was asked for is not there.
    #[error("there is no configuration file {}", .file.display())]
    NoFile {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("could not read the configuration file {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// Something in the file cannot be meant.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where it stands.
        place: Place,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A secret cannot be had from where the file says it is.
    #[error("{place}: {problem}")]
    Secret {
        /// Where the file says so.
        place: Place,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
        /// What the operating system says.
        #[source]
        source: Option<std::io::Error>,
    },
    /// Something is asked for by a name that the file does not have.
    #[error("there is no {kind} called `{name}` in {}", .file.display())]
    NoSuch {
        /// `tenant`, `set` or `repository`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
        /// The file; it may itself be missing.
        file: PathBuf,
    },
}

impl SettingsError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            SettingsError::NoFile { .. } => Some("`--config FILE` or STRONGROOM_CONFIG says where it is".to_owned()),
            SettingsError::Read { .. } => None,
            SettingsError::Invalid { hint, .. } => hint.clone(),
            SettingsError::Secret { hint, .. } => Some((*hint).to_owned()),
            SettingsError::NoSuch { kind, known, .. } if known.is_empty() => {
                Some(format!("it names no {kind}; docs/configuration.md shows how it does"))
            }
            SettingsError::NoSuch { known, .. } => Some(format!("it has {}", known.join(", "))),
        }
    }
}

impl Settings {
    /// Reads `file`.
    ///
    /// # Errors
    /// [`SettingsError`], also where there is no such file.
    pub fn read(file: &Path) -> Result<Settings, SettingsError> {
        let text = local_files::read(file, FILE_BYTES_MAX).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error.utf8_error()))
        });
        match text {
            Ok(text) => Settings::parse(file, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(SettingsError::NoFile { file: file.to_owned() }),
            Err(source) => Err(SettingsError::Read { file: file.to_owned(), source }),
        }
    }

    /// Reads `strongroom.toml` in the folder of the user's configuration; settings without anything in them where there
    /// is none.
    ///
    /// # Errors
    /// [`SettingsError`] for a file that is there and cannot be used.
    pub fn read_default() -> Result<Settings, SettingsError> {
        let Some(file) = default_file() else { return Ok(Settings::default()) };
        match Settings::read(&file) {
            Err(SettingsError::NoFile { file }) => Ok(Settings { file, ..Settings::default() }),
            other => other,
        }
    }

    /// Reads `text` as the content of `file`.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] for the first thing that cannot be meant.
    pub fn parse(file: &Path, text: &str) -> Result<Settings, SettingsError> {
        file::parse(file, text)
    }

    /// Returns the tenant called `name`.
    ///
    /// # Errors
    /// [`SettingsError::NoSuch`].
    pub fn tenant(&self, name: &str) -> Result<&TenantSettings, SettingsError> {
        self.tenants.get(name).ok_or_else(|| self.no_such("tenant", name, self.tenants.keys()))
    }

    /// Returns the set called `name`.
    ///
    /// # Errors
    /// [`SettingsError::NoSuch`].
    pub fn set(&self, name: &str) -> Result<&SetSettings, SettingsError> {
        self.sets.get(name).ok_or_else(|| self.no_such("set", name, self.sets.keys()))
    }

    /// Returns the sets that back up from the tenant called `name`.
    pub fn sets_of(&self, name: &str) -> impl Iterator<Item = &SetSettings> {
        self.sets.values().filter(move |set| set.tenant == name)
    }

    fn no_such<'a>(&self, kind: &'static str, name: &str, known: impl Iterator<Item = &'a String>) -> SettingsError {
        SettingsError::NoSuch { kind, name: name.to_owned(), known: known.cloned().collect(), file: self.file.clone() }
    }
}

/// Returns where the configuration of this user is looked for: `$XDG_CONFIG_HOME/strongroom/strongroom.toml`, or below
/// `~/.config`.
pub fn default_file() -> Option<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from_env("XDG_CONFIG_HOME").or_else(|| from_env("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("strongroom/strongroom.toml"))
}

/// Says what keeps `name` from being the name of a set; it becomes part of a folder's name and stands before `:`.
pub fn refuse_set_name(name: &str) -> Option<&'static str> {
    let bad = name.is_empty() || name.contains(['/', ':', '\0']);
    bad.then_some("the name of a set must not be empty or hold `/` or `:`")
}

#[cfg(test)]
mod tests;
