//! Reads passwords from a file, the environment or the terminal; never from the command line.

use super::Global;
use super::error::UsageError;
use crate::settings::{SecretSource, first_line, read_secret_file};
use anyhow::{Context, Result};
use rustix::fs::OFlags;
use std::io::IsTerminal;
use std::path::Path;
use zeroize::Zeroizing;

/// A password, or a recovery key in its place.
pub type Secret = Zeroizing<Vec<u8>>;

/// The variable that may hold the repository's password.
pub const PASSWORD: &str = "STRONGROOM_PASSWORD";

/// Returns the password of an existing repository. `configured` is the source in the configuration.
pub fn password(global: &Global, configured: Option<&SecretSource>, prompt: &str) -> Result<Secret> {
    match (given(global.password_file.as_deref(), PASSWORD)?, configured) {
        (Some(secret), _) => Ok(secret),
        (None, Some(source)) => Ok(source.read()?),
        (None, None) => ask(prompt),
    }
}

/// Returns a new password: the given one, the configured one, or one that the user types twice.
pub fn new_password(given: Option<Secret>, configured: Option<&SecretSource>, prompt: &str) -> Result<Secret> {
    match (given, configured) {
        (Some(secret), _) => Ok(secret),
        (None, Some(source)) => Ok(source.read()?),
        (None, None) => {
            let first = ask(prompt)?;
            if *first != *ask("Once more")? {
                return Err(UsageError::PasswordsDiffer.into());
            }
            Ok(first)
        }
    }
}

/// Returns the password in `file` or in the environment variable `variable`, if there is one.
pub fn given(file: Option<&Path>, variable: &str) -> Result<Option<Secret>> {
    let secret = match file {
        Some(file) => {
            let content = read_secret_file(file);
            let content = content.with_context(|| format!("could not read the password file {}", file.display()))?;
            Some(first_line(&content))
        }
        None => std::env::var_os(variable).map(|value| Zeroizing::new(value.into_encoded_bytes())),
    };
    match secret {
        Some(secret) if secret.is_empty() => Err(UsageError::EmptyPassword.into()),
        secret => Ok(secret),
    }
}

fn ask(prompt: &str) -> Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(UsageError::NoPassword.into());
    }
    let typed = rpassword::prompt_password(format!("{prompt}: ")).context("could not ask for the password")?;
    let secret = Zeroizing::new(typed.into_bytes());
    if secret.is_empty() { Err(UsageError::EmptyPassword.into()) } else { Ok(secret) }
}

/// Fails if standard output is closed, because then nobody would see `what`.
///
/// If standard output is closed, the runtime opens `/dev/null` in its place, for reading and writing. A shell that
/// throws output away opens `/dev/null` only for writing, so the two cases differ.
pub fn refuse_no_reader(what: &str) -> Result<()> {
    let stdout = std::io::stdout();
    let is_null = rustix::fs::fstat(&stdout)
        .ok()
        .zip(rustix::fs::stat("/dev/null").ok())
        .is_some_and(|(out, null)| (out.st_mode & !0o7777) == (null.st_mode & !0o7777) && out.st_rdev == null.st_rdev);
    let is_both = rustix::fs::fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDWR);
    if is_null && is_both {
        let text = format!("standard output is closed, so nobody would see {what}");
        return Err(UsageError::Other(text).into());
    }
    Ok(())
}
