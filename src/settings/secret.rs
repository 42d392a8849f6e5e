//! Where a secret is, and how it is read: from a file, from the environment, or from a command. A secret is never in
//! the configuration file itself, because people copy that file, show it, and keep it under version control.

use super::{ConfigLocation, SettingsError};
use crate::local_files;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// Maximum number of bytes that are read from a file or command. No secret is longer; a larger file was named by
/// mistake.
const SECRET_SIZE_MAX: u64 = 1 << 20;

/// How to write a secret in the file, for messages.
pub(super) const SECRET_HELP: &str = "write {file = \"/path\"}, {env = \"NAME\"} or {command = \"pass show NAME\"}";

type Secret = Zeroizing<Vec<u8>>;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    kind: Kind,
    location: ConfigLocation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The first line of a file.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// The first line that a shell command prints.
    Command(String),
}

/// A secret as the configuration file has it. Exactly one key must be set; a mistaken file may set several, or none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    file: Option<String>,
    env: Option<String>,
    command: Option<String>,
}

/// A [`Table`] that was read without accepting or repeating a plain secret.
#[derive(Debug)]
pub(super) struct Written(Table);

impl SecretSource {
    /// Creates a source that reads `file`. `location` is where the configuration names it.
    pub(super) fn file(file: PathBuf, location: ConfigLocation) -> SecretSource {
        SecretSource { kind: Kind::File(file), location }
    }

    /// Creates the source that `written` names. Returns `None` unless it names exactly one. `absolute` turns a path
    /// into an absolute path.
    pub(super) fn new(
        written: Written,
        absolute: impl Fn(&str) -> PathBuf,
        location: ConfigLocation,
    ) -> Option<SecretSource> {
        let kind = match (written.0.file, written.0.env, written.0.command) {
            (Some(file), None, None) => Kind::File(absolute(&file)),
            (None, Some(name), None) => Kind::Env(name),
            (None, None, Some(command)) => Kind::Command(command),
            _ => return None,
        };
        Some(SecretSource { kind, location })
    }

    /// Reads the secret: the first line of the file, the first line that the command prints, or the value of the
    /// variable.
    ///
    /// # Errors
    /// [`SettingsError::Secret`]. It never contains what was read.
    pub fn read(&self) -> Result<Secret, SettingsError> {
        let secret = match &self.kind {
            Kind::File(path) => first_line(&self.read_file(path)?),
            Kind::Env(name) => match std::env::var_os(name) {
                Some(value) => Zeroizing::new(value.into_encoded_bytes()),
                None => {
                    return Err(self.failed(
                        format!("the environment variable {name} is not set"),
                        "set it, or name another variable",
                        None,
                    ));
                }
            },
            Kind::Command(command) => first_line(&self.run(command)?),
        };
        self.not_empty(secret)
    }

    /// Reads the secret as text, otherwise like [`SecretSource::read`].
    ///
    /// # Errors
    /// [`SettingsError::Secret`], also if the secret is not UTF-8.
    pub fn read_text(&self) -> Result<Zeroizing<String>, SettingsError> {
        self.text(&self.read()?)
    }

    /// Reads all lines as text, not only the first.
    ///
    /// # Errors
    /// Like [`SecretSource::read_text`].
    pub fn read_lines(&self) -> Result<Zeroizing<String>, SettingsError> {
        let lines = match &self.kind {
            Kind::File(path) => self.read_file(path)?,
            Kind::Command(command) => self.run(command)?,
            Kind::Env(_) => self.read()?,
        };
        self.text(&self.not_empty(lines)?)
    }

    fn text(&self, secret: &[u8]) -> Result<Zeroizing<String>, SettingsError> {
        let text = std::str::from_utf8(secret);
        let text = text.map_err(|_| self.failed("the secret is not text".to_owned(), "it must be UTF-8", None))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn not_empty(&self, secret: Secret) -> Result<Secret, SettingsError> {
        match secret.is_empty() {
            true => Err(self.failed("the secret is empty".to_owned(), "write the secret into the first line", None)),
            false => Ok(secret),
        }
    }

    fn read_file(&self, path: &Path) -> Result<Secret, SettingsError> {
        read_secret_file(path).map_err(|error| {
            self.failed(
                format!("could not read {}", path.display()),
                "name a file that this user may read",
                Some(error),
            )
        })
    }

    fn run(&self, command: &str) -> Result<Secret, SettingsError> {
        // The command shares our standard input and standard error: a password manager may ask for its own password.
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed("could not start /bin/sh".to_owned(), "install a shell", Some(error)))?;
        let mut output = Zeroizing::new(Vec::new());
        let stdout = child.stdout.take().expect("piped above");
        let read = stdout.take(SECRET_SIZE_MAX).read_to_end(&mut output);
        let status = read.and_then(|_| child.wait());
        // Do not show the command: it may contain the secret.
        let hint = "run it in a shell: the first line it writes must be the secret";
        match status {
            Ok(status) if status.success() => Ok(output),
            Ok(status) => Err(self.failed(format!("the command failed ({status})"), hint, None)),
            Err(error) => Err(self.failed("could not read what the command writes".to_owned(), hint, Some(error))),
        }
    }

    fn failed(&self, problem: String, hint: &'static str, source: Option<io::Error>) -> SettingsError {
        SettingsError::Secret { location: self.location.clone(), problem, hint, source }
    }
}

/// Reads a file that holds a secret. Warns if every user can read it, or if another user could change it.
///
/// # Errors
/// If the file cannot be opened or read, or if it is not a regular file.
pub fn read_secret_file(path: &Path) -> io::Result<Secret> {
    let mut content = Zeroizing::new(Vec::new());
    // A descriptor from the caller (`<(pass show NAME)`, `/dev/stdin`) may be a pipe. Any other pipe is refused,
    // because reading it could wait for ever.
    let file = if is_handed_over(path) { File::open(path)? } else { local_files::open(path)? };
    let stat = file.metadata()?;
    // A group that may read the file is allowed: it may exist for this purpose.
    if stat.is_file() && stat.mode() & 0o004 != 0 {
        tracing::warn!(file = %path.display(), "every user of this machine can read this secret; `chmod 600` it");
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.is_file() && ![0, user].contains(&stat.uid()) {
        let owner = stat.uid();
        let file = path.display();
        tracing::warn!(%file, owner, "another user can change this secret; `chown` it to the user who runs this");
    }
    file.take(SECRET_SIZE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Returns true if `path` names a descriptor that this process was started with.
fn is_handed_over(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
}

/// Returns the first line without its line end.
pub fn first_line(content: &[u8]) -> Secret {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

/// Accepts a table only. The errors do not repeat the value, as serde's own would: it may be the secret.
struct WrittenVisitor;

fn plain<E: de::Error>() -> E {
    E::custom(format_args!("a secret must not stand in this file; {SECRET_HELP}"))
}

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table that says where the secret is")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(Written)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Written, E> {
        Err(plain())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Written, E> {
        Err(plain())
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Written, E> {
        Err(plain())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Written, E> {
        Err(plain())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Written, E> {
        Err(plain())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Written, A::Error> {
        Err(plain())
    }
}
