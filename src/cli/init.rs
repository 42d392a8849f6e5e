//! `strongroom init`

use super::Session;
use super::error::{Exit, UsageError};
use super::output::{self, line};
use super::secret;
use crate::backend::local::Local;
use crate::format::config::Archives;
use crate::format::crypto::Cipher;
use crate::format::keyslot::PasswordCost;
use crate::repository::{CreateOptions, Prepared, Repository};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Creates a repository, and prints its recovery key (only once)
#[derive(Args)]
#[command(after_help = "Example:\n  strongroom init --repo /srv/strongroom --password-file /etc/strongroom/password")]
pub struct Init {
    /// Encrypts everything with aes-256-siv (RFC 5297), or with aes-256-pmac-siv, which has no RFC
    #[arg(long, default_value = Cipher::Aes256Siv.name(), value_parser = Cipher::ALL.map(Cipher::name))]
    cipher: String,
    /// Memory that each try of the password takes, in MiB, from 1 to 1024. More makes guessing the password
    /// harder and opening the repository slower
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    password_memory: u32,
    /// Stores Office documents and other zip files by what is in them (`by-content`), or as they are (`whole`).
    /// By content, a changed document stores little more than the change, and the first backup takes longer.
    /// Earlier versions of this program cannot open such a repository [default: `archives` of the configuration,
    /// or whole]
    #[arg(long, value_name = "HOW", value_parser = Archives::ALL.map(Archives::name))]
    archives: Option<String>,
}

impl Init {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let path = session.repository_path()?;
        let creating = || format!("could not create a repository at {}", path.display());
        let cipher = Cipher::from_name(&self.cipher).ok_or_else(|| UsageError::Other("no such cipher".to_owned()))?;
        let backend = Arc::new(Local::create(&path).with_context(creating)?);
        let given = secret::given(session.global.password_file.as_deref(), secret::PASSWORD)?;
        let password = secret::new_password(given, session.place()?.password(), "New password")?;
        let cost = PasswordCost { memory_kib: self.password_memory << 10, ..PasswordCost::default() };
        let archives = match self.archives.as_deref() {
            Some(name) => Archives::from_name(name).ok_or_else(|| UsageError::Other("no such way".to_owned()))?,
            None => session.place()?.settings.and_then(|settings| settings.archives).unwrap_or_default(),
        };
        let options = CreateOptions { cipher, cost, archives };
        secret::refuse_no_reader("the recovery key")?;
        let prepared = Repository::prepare(backend, &password, &options).with_context(creating)?;
        // The key is shown before the repository exists. A repository whose recovery key nobody saw would have to be
        // made again.
        if let Err(error) = show(session, &path, &prepared).and_then(|()| output::flush()) {
            prepared.withdraw().with_context(creating)?;
            return Err(error.context("the recovery key could not be shown, so no repository was created"));
        }
        prepared.commit().with_context(creating)?;
        Ok(Exit::Done)
    }
}

fn show(session: &Session, path: &Path, prepared: &Prepared) -> Result<()> {
    let (id, recovery) = (prepared.id().to_string(), prepared.recovery.reveal());
    if session.output().json {
        return session.output().json(&json!({ "id": id, "recovery_key": *recovery }));
    }
    line(format_args!("Created repository {id} at {}", output::path(path.as_os_str().as_bytes())))?;
    line("")?;
    line(format_args!("Recovery key: {}", *recovery))?;
    line("")?;
    line("It opens the repository when the password is lost, and is shown only now. Print it, or keep it")?;
    line("somewhere that does not need this repository. Without password and recovery key nobody can read")?;
    line("what is stored.")
}
