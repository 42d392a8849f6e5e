//! The configuration: `strongroom.toml`, which names repositories, tenants and backup sets (docs/configuration.md).
//!
//! A file is read and checked as a whole. An unknown key, a name without a table or an invalid address is an error
//! before the program does anything else, and the error names the line. The file holds no secrets: a [`SecretSource`]
//! says where a secret is, and reads it only when it is needed. Whether a service or folder of a given name exists is
//! checked later, by the code that uses it.

mod document;
mod file;
mod period;
mod secret;
mod size;

pub use document::ConfigLocation;
pub use period::Period;
pub use secret::{SecretSource, first_line, read_secret_file};
pub use size::ByteSize;

use crate::format::config::Archives;
use crate::local_files;
use crate::source::graph::{Cloud, Endpoints};
use crate::source::selection::Selection;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Maximum number of requests in flight for a tenant, if the set does not say otherwise.
pub const CONCURRENCY_DEFAULT: usize = 16;

/// Maximum size of a configuration file, in bytes. Real ones are far smaller.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How long the mount waits after a dropped file is closed before it restores the file, if the configuration does not
/// say otherwise. When a user cancels a copy, a file manager closes the file and then removes it.
pub const DROP_DELAY_DEFAULT: Duration = Duration::from_secs(2);

/// The content of a configuration file.
#[derive(Debug, Default)]
pub struct Settings {
    /// The path of the file, or the path where the program looked for one.
    pub file: PathBuf,
    /// The repositories, by name.
    pub repositories: BTreeMap<String, RepositorySettings>,
    /// The tenants, by name.
    pub tenants: BTreeMap<String, TenantSettings>,
    /// The backup sets, by name.
    pub sets: BTreeMap<String, SetSettings>,
    /// What happens to files that are dropped into a mount.
    pub restore: RestoreSettings,
}

/// The table `[restore]`: when files that are dropped into a mount are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreSettings {
    /// What starts the restore.
    pub commit: Commit,
    /// How long a closed file waits before it is restored. Until then it can be removed.
    pub delay: Duration,
}

impl Default for RestoreSettings {
    fn default() -> Self {
        Self { commit: Commit::default(), delay: DROP_DELAY_DEFAULT }
    }
}

/// What starts the restore of dropped files: the key `commit` in the table `[restore]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// Each file is restored after it is closed.
    #[default]
    Close,
    /// The user starts the restore with `strongroom restore commit`.
    Ask,
}

/// A table `[repositories.NAME]`.
#[derive(Debug)]
pub struct RepositorySettings {
    /// Where the repository is: an absolute path, or an address with a scheme.
    pub url: String,
    /// Where the password of the repository is.
    pub password: Option<SecretSource>,
    /// The folder of the local cache.
    pub cache_dir: Option<PathBuf>,
    /// Maximum size of the local cache.
    pub cache_size: Option<ByteSize>,
    /// How `init` lets a new repository store archives.
    pub archives: Option<Archives>,
    /// How long the kernel keeps the key of the opened repository.
    pub remember_key: Option<Period>,
}

/// A table `[tenants.NAME]`: an organisation, and how the program signs in to it.
#[derive(Debug)]
pub struct TenantSettings {
    /// The directory (tenant) id, or a verified domain.
    pub tenant_id: String,
    /// The application (client) id.
    pub client_id: String,
    /// How the application signs in.
    pub credential: CredentialSettings,
    /// The Microsoft cloud that the organisation is in.
    pub cloud: Cloud,
    /// The hosts of that cloud, or the hosts to use instead.
    pub endpoints: Endpoints,
    /// The HTTP proxy for all requests.
    pub proxy: Option<Url>,
    /// True if nothing may be restored to the tenant.
    pub read_only: bool,
}

/// How an application signs in.
#[derive(Debug)]
pub enum CredentialSettings {
    /// With a client secret.
    Secret(SecretSource),
    /// With a certificate: a PEM file that holds the private key and the certificate.
    Certificate(SecretSource),
    /// As a person who has run `strongroom tenant login`.
    Login,
}

/// The form in which a set stores messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// The MIME bytes, and the properties that the service reports.
    #[default]
    Mime,
    /// Also the stream that the service exports for each message. It restores what the other two lose.
    Full,
}

/// A service of a tenant that a set can back up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// All that this version backs up of mailboxes. A set has the services that it stands for in its place
    /// ([`Service::OF_MAILBOXES`]).
    Outlook,
    /// The mail of mailboxes.
    Mail,
    /// The contacts of mailboxes.
    Contacts,
    /// The tasks of mailboxes (Microsoft To Do).
    Tasks,
    /// The calendars of mailboxes.
    Calendar,
    /// The OneDrive files of each user.
    Onedrive,
    /// The SharePoint sites behind the users' OneDrives.
    PersonalSite,
    /// SharePoint site collections.
    Sharepoint,
    /// Teams and their channels.
    Teams,
    /// The public folders of Exchange.
    PublicFolders,
}

impl Service {
    /// The services that `outlook` stands for.
    pub const OF_MAILBOXES: [Service; 4] = [Service::Mail, Service::Contacts, Service::Tasks, Service::Calendar];

    /// Returns the services that a name in the configuration stands for.
    pub fn meant(self) -> Vec<Service> {
        if self == Service::Outlook { Self::OF_MAILBOXES.to_vec() } else { vec![self] }
    }

    /// Returns the name of the service in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Service::Outlook => "outlook",
            Service::Mail => "mail",
            Service::Contacts => "contacts",
            Service::Tasks => "tasks",
            Service::Calendar => "calendar",
            Service::Onedrive => "onedrive",
            Service::PersonalSite => "personal-site",
            Service::Sharepoint => "sharepoint",
            Service::Teams => "teams",
            Service::PublicFolders => "public-folders",
        }
    }
}

/// A table `[sets.NAME]`: what a backup takes, and where it stores it.
#[derive(Debug)]
pub struct SetSettings {
    /// The name of the tenant in the configuration.
    pub tenant: String,
    /// The names of the repositories in the configuration. If empty, the set uses the repository from the command line,
    /// or the only one in the file.
    pub repositories: Vec<String>,
    /// The paths that the set backs up.
    pub selection: Selection,
    /// The services that the set backs up, without duplicates.
    pub services: Vec<Service>,
    /// Maximum number of requests in flight for the tenant.
    pub concurrency: usize,
    /// True to back up only users with a licence, so no shared mailboxes and no resource mailboxes.
    pub licensed_only: bool,
    /// True to back up folders that mail programs do not show, too.
    pub hidden_folders: bool,
    /// True to back up permanently deleted items that the service can still recover, too.
    pub recoverable_items: bool,
    /// The form in which messages are stored.
    pub fidelity: Fidelity,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file that the user named does not exist.
    #[error("there is no configuration file {}", .file.display())]
    NoFile {
        /// The path of the file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("could not read the configuration file {}", .file.display())]
    Read {
        /// The path of the file.
        file: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A value in the file is not valid.
    #[error("{location}: {problem}")]
    Invalid {
        /// Where the value is in the file.
        location: ConfigLocation,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A secret cannot be read from the source that the file names.
    #[error("{location}: {problem}")]
    Secret {
        /// Where the file names the source.
        location: ConfigLocation,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
        /// The error of the operating system.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The user named a tenant, set or repository that is not in the file.
    #[error("there is no {kind} called `{name}` in {}", .file.display())]
    NoSuch {
        /// `tenant`, `set` or `repository`.
        kind: &'static str,
        /// The name that the user gave.
        name: String,
        /// The names in the file.
        known: Vec<String>,
        /// The path of the file. The file itself may not exist.
        file: PathBuf,
    },
}

impl SettingsError {
    /// Returns what the user can do about the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            SettingsError::NoFile { .. } => {
                Some("name it with `--config FILE` or the environment variable STRONGROOM_CONFIG".to_owned())
            }
            SettingsError::Read { .. } => None,
            SettingsError::Invalid { hint, .. } => hint.clone(),
            SettingsError::Secret { hint, .. } => Some((*hint).to_owned()),
            SettingsError::NoSuch { kind, known, .. } if known.is_empty() => {
                Some(format!("it names no {kind}; docs/configuration.md shows how to add one"))
            }
            SettingsError::NoSuch { known, .. } => Some(format!("it has {}", known.join(", "))),
        }
    }
}

impl Settings {
    /// Reads the configuration from `file`.
    ///
    /// # Errors
    /// [`SettingsError`], also if the file does not exist.
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

    /// Reads `strongroom.toml` in the user's configuration folder. Returns empty settings if there is no such file.
    ///
    /// # Errors
    /// [`SettingsError`] if the file exists but cannot be used.
    pub fn read_default() -> Result<Settings, SettingsError> {
        let Some(file) = default_file() else { return Ok(Settings::default()) };
        match Settings::read(&file) {
            Err(SettingsError::NoFile { file }) => Ok(Settings { file, ..Settings::default() }),
            other => other,
        }
    }

    /// Parses `text` as the content of `file`.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] for the first value that is not valid.
    pub fn parse(file: &Path, text: &str) -> Result<Settings, SettingsError> {
        file::parse(file, text)
    }

    /// Returns the tenant called `name`.
    ///
    /// # Errors
    /// [`SettingsError::NoSuch`] if the file has no such tenant.
    pub fn tenant(&self, name: &str) -> Result<&TenantSettings, SettingsError> {
        self.tenants.get(name).ok_or_else(|| self.no_such("tenant", name, self.tenants.keys()))
    }

    /// Returns the set called `name`.
    ///
    /// # Errors
    /// [`SettingsError::NoSuch`] if the file has no such set.
    pub fn set(&self, name: &str) -> Result<&SetSettings, SettingsError> {
        self.sets.get(name).ok_or_else(|| self.no_such("set", name, self.sets.keys()))
    }

    /// Returns the sets that back up the tenant called `name`.
    pub fn sets_of(&self, name: &str) -> impl Iterator<Item = &SetSettings> {
        self.sets.values().filter(move |set| set.tenant == name)
    }

    fn no_such<'a>(&self, kind: &'static str, name: &str, known: impl Iterator<Item = &'a String>) -> SettingsError {
        SettingsError::NoSuch { kind, name: name.to_owned(), known: known.cloned().collect(), file: self.file.clone() }
    }
}

/// Returns the path where the program looks for the user's configuration:
/// `$XDG_CONFIG_HOME/strongroom/strongroom.toml`, or the same below `~/.config`.
pub fn default_file() -> Option<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from_env("XDG_CONFIG_HOME").or_else(|| from_env("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("strongroom/strongroom.toml"))
}

/// Returns why `name` cannot be the name of a set, if it cannot. The name becomes part of a folder's name, and stands
/// before a `:` in arguments.
pub fn refuse_set_name(name: &str) -> Option<&'static str> {
    let bad = name.is_empty() || name.contains(['/', ':', '\0']);
    bad.then_some("the name of a set must not be empty or hold `/` or `:`")
}

#[cfg(test)]
mod tests;
