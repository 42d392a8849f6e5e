//! Where passwords come from: a file, the environment, or the terminal; never the command line.

use super::Global;
use super::error::UsageError;
use anyhow::{Context, Result};
use std::io::{IsTerminal, Read};
use std::path::Path;
use zeroize::Zeroizing;

type Secret = Zeroizing<Vec<u8>>;

/// Returns the password of an existing repository.
pub fn password(global: &Global, prompt: &str) -> Result<Secret> {
    match given(global.password_file.as_deref(), "STRONGROOM_PASSWORD")? {
        Some(secret) => Ok(secret),
        None => ask(prompt),
    }
}

/// Returns a password that is to be set; asked for twice on a terminal.
pub fn new_password(file: Option<&Path>, variable: &str, prompt: &str) -> Result<Secret> {
    if let Some(secret) = given(file, variable)? {
        return Ok(secret);
    }
    let first = ask(prompt)?;
    if *first != *ask("Once more")? {
        return Err(UsageError::PasswordsDiffer.into());
    }
    Ok(first)
}

fn given(file: Option<&Path>, variable: &str) -> Result<Option<Secret>> {
    let secret = match file {
        Some(file) => {
            let mut content = Zeroizing::new(Vec::new());
            let read = std::fs::File::open(file).and_then(|file| file.take(1 << 20).read_to_end(&mut content));
            read.with_context(|| format!("could not read the password file {}", file.display()))?;
            Some(first_line(&content))
        }
        None => std::env::var_os(variable).map(|value| Zeroizing::new(value.into_encoded_bytes())),
    };
    match secret {
        Some(secret) if secret.is_empty() => Err(UsageError::EmptyPassword.into()),
        secret => Ok(secret),
    }
}

fn first_line(content: &[u8]) -> Secret {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn ask(prompt: &str) -> Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(UsageError::NoPassword.into());
    }
    let typed = rpassword::prompt_password(format!("{prompt}: ")).context("could not ask for the password")?;
    let secret = Zeroizing::new(typed.into_bytes());
    if secret.is_empty() { Err(UsageError::EmptyPassword.into()) } else { Ok(secret) }
}
