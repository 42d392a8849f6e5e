//! Reads passwords from a file, the environment or the terminal; never from the command line.

use super::Global;
use super::error::UsageError;
use crate::settings::{SecretSource, first_line, read_secret_file};
use anyhow::{Context, Result};
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
