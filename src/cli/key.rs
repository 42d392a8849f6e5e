//! `strongroom key`

use super::error::{Exit, UsageError};
use super::output::{self, line, table};
use super::{Session, secret};
use crate::cli::backup::rfc3339;
use crate::format::keyslot::{PasswordCost, SlotError};
use crate::view::local_time;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

/// Lists, adds and removes passwords and recovery keys of the repository
#[derive(Args)]
#[command(
    after_help = "Examples:\n  strongroom key list\n  strongroom key add --label ops --new-password-file ops.txt\n  \
    strongroom key remove 5f0c\n\nA key slot holds the repository's own key, encrypted with a password or \
    recovery key. So these commands change no backup."
)]
pub struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists the key slots
    #[command(after_help = "Example:\n  strongroom key list --json | jq -r '.[].label'")]
    List,
    /// Adds a password, or a recovery key
    Add(Add),
    /// Removes a key slot
    #[command(after_help = "Example:\n  strongroom key remove 5f0c")]
    Remove {
        /// The id of the key slot, or the beginning of the id
        #[arg(value_name = "KEY")]
        id: String,
    },
    /// Makes the kernel forget the key that `--remember-key` keeps; needs no password
    #[command(after_help = "Example:\n  strongroom key forget")]
    Forget,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom key add --label ops --new-password-file ops.txt\n  \
    strongroom key add --recovery --label safe")]
struct Add {
    /// A name for the key slot
    #[arg(long, default_value = "")]
    label: String,
    /// Reads the new password from the first line of FILE [env: STRONGROOM_NEW_PASSWORD holds the password itself]
    #[arg(long, value_name = "FILE", conflicts_with = "recovery")]
    new_password_file: Option<PathBuf>,
    /// Memory that each try of the password takes, in MiB, from 1 to 1024. More makes guessing the password
    /// harder and opening the repository slower
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    password_memory: u32,
    /// Adds a new recovery key instead, and prints it (only once)
    #[arg(long)]
    recovery: bool,
}

impl Key {
    pub fn run(self, session: &Session) -> Result<Exit> {
        match self.action {
            Action::List => list(session),
            Action::Add(add) => add.run(session),
            Action::Remove { id } => remove(session, &id),
            Action::Forget => forget(session),
        }
    }
}

fn list(session: &Session) -> Result<Exit> {
    let slots = session.open()?.slots()?;
    let damaged = slots.iter().any(|entry| entry.slot == Err(SlotError::Damaged));
    if session.output().json {
        let list: Vec<_> = slots
            .iter()
            .map(|entry| match &entry.slot {
                Ok((kind, info)) => json!({
                    "id": entry.id.to_string(), "kind": kind.name(), "label": info.label,
                    "created": rfc3339(info.created), "in_use": entry.in_use,
                }),
                Err(error) => json!({ "id": entry.id.to_string(), "error": error.to_string() }),
            })
            .collect();
        session.output().json(&list)?;
    } else {
        let mut rows = vec![["", "id", "kind", "created", "label"].map(str::to_owned).to_vec()];
        rows.extend(slots.iter().map(|entry| {
            let mark = if entry.in_use { "*" } else { "" }.to_owned();
            match &entry.slot {
                Ok((kind, info)) => {
                    let created = local_time(info.created, "%Y-%m-%d %H:%M");
                    vec![mark, entry.id.to_string(), kind.name().to_owned(), created, info.label.clone()]
                }
                Err(SlotError::Later) => vec![mark, entry.id.to_string(), "(of a later version)".to_owned()],
                Err(_) => vec![mark, entry.id.to_string(), "damaged".to_owned()],
            }
        }));
        table(&rows, &[])?;
    }
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}

impl Add {
    fn run(self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let label = if self.label.chars().any(char::is_control) {
            return Err(UsageError::Other("a label must not hold control characters".to_owned()).into());
        } else {
            self.label
        };
        let output = session.output();
        if self.recovery {
            secret::refuse_no_reader("the recovery key")?;
            // The key is shown before its slot is stored. Otherwise a failure could leave a key that opens the
            // repository and that nobody saw.
            let (id, _) = repository.add_recovery(&label, |id, recovery| {
                let shown = match output.json {
                    true => output.json(&json!({ "id": id.to_string(), "recovery_key": *recovery.reveal() })),
                    false => line(format_args!("Recovery key: {}", *recovery.reveal())),
                };
                shown.and_then(|()| output::flush()).context("no recovery key was added, as it could not be shown")
            })?;
            if !output.json {
                line(format_args!("Added key slot {id}"))?;
            }
            return Ok(Exit::Done);
        }
        let given = secret::given(self.new_password_file.as_deref(), "STRONGROOM_NEW_PASSWORD")?;
        let password = secret::new_password(given, None, "New password")?;
        let cost = PasswordCost { memory_kib: self.password_memory << 10, ..PasswordCost::default() };
        let id = repository.add_password(&password, cost, &label)?;
        match output.json {
            true => output.json(&json!({ "id": id.to_string(), "recovery_key": null }))?,
            false => line(format_args!("Added key slot {id}"))?,
        }
        Ok(Exit::Done)
    }
}

fn remove(session: &Session, asked: &str) -> Result<Exit> {
    let id = session.open()?.remove_slot(asked)?;
    match session.output().json {
        true => session.output().json(&json!({ "removed": id.to_string() }))?,
        false => line(format_args!("Removed key slot {id}"))?,
    }
    Ok(Exit::Done)
}

fn forget(session: &Session) -> Result<Exit> {
    let forgotten = session.remembered()?.forget()?;
    match (session.output().json, forgotten) {
        (true, _) => session.output().json(&json!({ "forgotten": forgotten }))?,
        (false, true) => line("The key is forgotten")?,
        (false, false) => line("No key was remembered")?,
    }
    Ok(Exit::Done)
}
