//! Backs up the sets of the configuration.

use super::{host_name, shown};
use crate::backup::BackupOptions;
use crate::backup::tenant::{LISTED_ANEW, TenantOptions, backup_tenant};
use crate::cli::error::{Exit, UsageError};
use crate::cli::{Session, progress};
use crate::settings::{Fidelity, Service, SetSettings};
use crate::source::graph::{Client, Connection};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Backs up the sets, one after the other. If one fails, the others are still backed up.
pub fn run(session: &Session, named: &[String], all: bool) -> Result<Exit> {
    let settings = session.settings()?;
    let names: Vec<String> = match all {
        true if settings.sets.is_empty() => {
            return Err(UsageError::Other("the configuration has no sets; `[sets.NAME]` makes one".to_owned()).into());
        }
        true => settings.sets.keys().cloned().collect(),
        false => named.to_vec(),
    };
    let mut jobs = Vec::new();
    for name in &names {
        let set = settings.set(name)?;
        if let Some(service) = set.services.iter().find(|service| !is_supported(**service)) {
            let text = format!("the set {name} asks for {}, which this version cannot back up", service.name());
            return Err(UsageError::Other(text).into());
        }
        let repositories = match set.repositories.as_slice() {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.clone())).collect(),
        };
        // A repository on the command line overrides those of the configuration.
        let repositories = if session.asks_for_a_repository() { vec![None] } else { repositories };
        jobs.extend(repositories.into_iter().map(|repository| (name, set, repository)));
    }
    let cancel = progress::cancel_on_signals()?;
    let mut exit = Exit::Done;
    let mut last_error = None;
    for (name, set, repository) in jobs {
        let session = match &repository {
            Some(repository) => &session.with_repository(repository),
            None => session,
        };
        match back_up(session, name, set, &cancel) {
            Ok(Exit::Done) => {}
            Ok(other) => exit = other,
            Err(error) if cancel.load(std::sync::atomic::Ordering::Relaxed) => return Err(error),
            Err(error) => {
                if let Some(before) = last_error.replace(error) {
                    crate::cli::error::report(&before);
                }
            }
        }
    }
    match last_error {
        Some(error) => Err(error),
        None => Ok(exit),
    }
}

/// Returns true if this version can back the service up.
fn is_supported(service: Service) -> bool {
    matches!(service, Service::Mail | Service::Contacts | Service::Tasks | Service::Calendar)
}

fn back_up(session: &Session, name: &str, set: &SetSettings, cancel: &Arc<AtomicBool>) -> Result<Exit> {
    let doing = || format!("could not back up the set {name}");
    let tenant = session.settings()?.tenant(&set.tenant)?;
    let repository = session.open()?;
    let local = session.local_state(&repository)?;
    let connection = Connection { concurrency: set.concurrency, ..session.connection(tenant)? };
    let client = Client::new(connection).with_context(doing)?;
    let options = TenantOptions {
        backup: BackupOptions { set: name.to_owned(), host: host_name() },
        selection: set.selection.clone(),
        mail: set.services.contains(&Service::Mail),
        contacts: set.services.contains(&Service::Contacts),
        tasks: set.services.contains(&Service::Tasks),
        calendars: set.services.contains(&Service::Calendar),
        licensed_only: set.licensed_only,
        hidden_folders: set.hidden_folders,
        recoverable_items: set.recoverable_items,
        streams: set.fidelity == Fidelity::Full,
        mailboxes_at_once: set.concurrency.max(1),
        listed_anew: LISTED_ANEW,
    };
    let asked = client.clone();
    let shown = progress::Shown::with_pauses(session.output(), "Backing up", move || asked.pause());
    let report = backup_tenant(&repository, local, client, options, shown.progress.clone(), cancel.clone());
    shown.finish();
    let report = shown::Shown::from(report.with_context(doing)?);
    let whole = report.is_whole();
    let said = report.show(session.output());
    // The exit code reports failures even if nobody reads the output any more.
    if whole { said.map(|()| Exit::Done) } else { Ok(Exit::Partial) }
}
