//! Makes a connection from the settings of a tenant.

use super::Session;
use crate::settings::{CredentialSettings, TenantSettings};
use crate::source::graph::{Client, Connection, Credential, TokenCache};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Time between two checks whether the user has asked to stop.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Maximum number of mailboxes that are restored at a time.
pub const MAILBOXES_AT_ONCE: usize = 8;

impl Session {
    /// Returns the connection to `tenant`. Reads the tenant's secret.
    pub(super) fn connection(&self, tenant: &TenantSettings) -> Result<Connection> {
        let client_id = tenant.client_id.clone();
        let credential = match &tenant.credential {
            CredentialSettings::Secret(source) => Credential::Secret { client_id, secret: source.read_text()? },
            CredentialSettings::Certificate(source) => Credential::Certificate { client_id, pem: source.read_lines()? },
            CredentialSettings::Login => Credential::Login { client_id },
        };
        let mut connection = Connection::new(tenant.endpoints.clone(), tenant.tenant_id.clone(), credential);
        connection.proxy = tenant.proxy.clone();
        if matches!(tenant.credential, CredentialSettings::Login) {
            let folder = self.own_state_dir()?.join("tokens");
            let cache = TokenCache::open(&folder);
            let cache = cache.with_context(|| format!("could not keep a sign-in in {}", folder.display()))?;
            connection.state = Some(cache);
        }
        Ok(connection)
    }

    /// Returns the connection to `tenant` for restores: it has four requests in flight for each mailbox.
    pub(super) fn connection_for_restores(&self, tenant: &TenantSettings) -> Result<Connection> {
        Ok(Connection { concurrency: 4 * MAILBOXES_AT_ONCE, ..self.connection(tenant)? })
    }
}

/// Cancels all requests of `client` once `cancel` is set. Planning before the actual work also waits for the service.
/// The thread runs until the program ends.
pub fn end_with(cancel: &Arc<AtomicBool>, client: &Client) {
    let (cancel, client) = (cancel.clone(), client.clone());
    thread::spawn(move || {
        while !cancel.load(Ordering::Relaxed) {
            thread::sleep(CANCEL_POLL_INTERVAL);
        }
        client.cancel();
    });
}

/// Runs a future that needs the network to its end, on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("could not start the runtime for the network")?.block_on(future))
}
