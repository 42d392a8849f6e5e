//! The state that all requests share.

use std::sync::Arc;

use super::operation::Operation;
use super::route::Route;
use crate::auth::{self, Authority};
use crate::counters::{Counters, Counts};
use crate::exchange::{Transfers, owner};
use crate::faults::FaultEngine;
use crate::tenant::Tenant;
use crate::throttle::Throttle;
use crate::uploads::Uploads;
use crate::{Options, generate};

/// The state that all requests share.
#[derive(Debug)]
pub struct State {
    /// Root URL of the server, without a slash at the end.
    pub url: String,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Sign-in, and the permissions of the application.
    pub authority: Arc<Authority>,
    /// Counts what clients do.
    pub counters: Arc<Counters>,
    /// Enforces the throttling limits.
    pub throttle: Arc<Throttle>,
    /// Injects faults.
    pub faults: FaultEngine,
    /// Upload sessions of large attachments.
    pub uploads: Uploads,
    /// Exports and import sessions.
    pub transfers: Transfers,
}

impl State {
    /// Returns the state of a simulator with the root URL `url`.
    ///
    /// # Errors
    /// Fails if the corpus cannot be listed.
    pub fn new(url: String, options: Options) -> std::io::Result<Self> {
        let Options { organisation, limits, faults, switches, certificates, rules, .. } = options;
        let tenant = Arc::new(Tenant::new(&organisation, switches)?);
        generate::populate(&tenant, &organisation);
        Ok(Self {
            url,
            authority: Arc::new(auth::for_tenant(&tenant, certificates, rules)),
            counters: Arc::default(),
            throttle: Arc::new(Throttle::new(limits)),
            faults: FaultEngine::new(faults),
            uploads: Uploads::new(organisation.seed),
            transfers: Transfers::new(organisation.seed),
            tenant,
        })
    }

    /// Returns all current counts.
    pub fn counts(&self) -> Counts {
        let faults = self.faults.injected().values().sum();
        Counts { faults, tokens_issued: self.authority.tokens_issued(), ..self.counters.counts() }
    }

    /// Sets all counts to zero.
    pub fn reset_counts(&self) {
        self.counters.reset();
        self.faults.reset_injected();
        self.authority.reset_tokens_issued();
    }

    /// Returns the id of the user whose mailbox a route concerns. Both names of a user give the same id.
    pub fn mailbox_of(&self, route: &Route) -> Option<String> {
        let name = match route.operation {
            Operation::ExchangeMailbox => return owner(&self.tenant, route.rest.first()?),
            _ => route.user.as_deref()?,
        };
        Some(self.tenant.user(name).map_or_else(|| name.to_owned(), |user| user.id.clone()))
    }
}
