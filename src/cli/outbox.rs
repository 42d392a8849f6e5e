//! Opens the outbox of a mount with the settings of the configuration.

use super::Session;
use super::error::UsageError;
use crate::outbox::{self, Options, Organisation, RunningOutbox};
use crate::repository::Repository;
use crate::repository::reader::Reader;
use crate::settings::{Commit, TenantSettings};
use crate::source::graph::Client;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::Arc;

const READ_ONLY: &str = "the configuration says `read_only = true` for this tenant";

/// Returns the organisations of the configuration that users can restore to. Leaves out those whose secret cannot be
/// read.
pub fn organisations(session: &Session) -> Result<Vec<Organisation>> {
    let mut organisations = Vec::new();
    let mut wrong = None;
    for (name, tenant) in &session.settings()?.tenants {
        match organisation(session, name, tenant) {
            Ok(organisation) => organisations.push(organisation),
            Err(error) => {
                tracing::warn!(tenant = name, "cannot be restored to: {error:#}");
                wrong = Some(error);
            }
        }
    }
    match wrong {
        _ if !organisations.is_empty() => Ok(organisations),
        Some(error) => Err(error.context("there is no organisation to restore to")),
        None => {
            let text = "the configuration names no tenant, so there is nowhere to restore to; docs/configuration.md \
                        shows how to add one";
            Err(UsageError::Other(text.to_owned()).into())
        }
    }
}

fn organisation(session: &Session, name: &str, tenant: &TenantSettings) -> Result<Organisation> {
    Ok(Organisation {
        name: name.to_owned(),
        tenant_id: tenant.tenant_id.clone(),
        client: Client::new(session.connection_for_restores(tenant)?)?,
        closed: tenant.read_only.then(|| READ_ONLY.to_owned()),
    })
}

/// Returns the folder of the repository's outbox.
pub fn folder(session: &Session, repository: &Repository) -> Result<PathBuf> {
    session.repository_state(repository)?;
    Ok(outbox::folder(&session.state_dir()?, repository))
}

/// Opens the outbox of the repository. With `synchronous`, closing a file waits until the file is restored.
pub fn start(
    session: &Session,
    repository: &Arc<Repository>,
    reader: &Arc<Reader>,
    synchronous: bool,
) -> Result<RunningOutbox> {
    let settings = session.settings()?;
    let sets = settings.sets.iter().map(|(name, set)| (name.clone(), set.tenant.clone())).collect();
    let options = Options {
        folder: folder(session, repository)?,
        locks: outbox::locks(&session.state_dir()?),
        waits: settings.restore.commit == Commit::Ask,
        synchronous,
        rest: settings.restore.delay,
        believed: outbox::BELIEVED,
        sets,
    };
    Ok(RunningOutbox::start(repository, reader.clone(), organisations(session)?, options)?)
}
