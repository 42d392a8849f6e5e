//! `strongroom tenant`: the connection to an organisation.

mod test;
mod users;

use super::Session;
use super::connect::block_on;
use super::error::{Exit, UsageError};
use super::output::{self, line};
use crate::settings::{CredentialSettings, SetSettings, Settings};
use crate::source::graph::auth::{browser, device};
use crate::source::graph::directory::User;
use crate::source::graph::{Connection, RetryPolicy};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::{Command, Stdio};
use url::Url;

/// Maximum number of attempts for a request. Somebody waits for the answer; a backup at night tries more often.
const ATTEMPTS_MAX: u32 = 3;

/// Tests the connection to a Microsoft 365 organisation, signs in, and lists its users
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom tenant test contoso\n  strongroom tenant login contoso\n  \
    strongroom tenant users contoso\n\nNAME is the name of a table [tenants.NAME] in the configuration; \
    docs/microsoft365.md explains how to set it up.")]
pub struct Tenant {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Signs in, tests what the tenant's backup sets need, and says which permission is missing and what to do
    #[command(
        after_help = "Example:\n  strongroom tenant test contoso\n\nThe test changes nothing. Exit code 1 means that \
        a backup would fail."
    )]
    Test {
        /// The tenant's name in the configuration
        name: String,
    },
    /// Signs in a person, for a tenant without client_secret and certificate, and keeps the sign-in
    #[command(
        after_help = "Examples:\n  strongroom tenant login contoso\n  strongroom tenant login contoso --browser\n\n\
        The sign-in is kept encrypted in the local state, and is renewed on each use."
    )]
    Login {
        /// The tenant's name in the configuration
        name: String,
        /// Opens a browser on this machine, instead of showing a code to type on any device
        #[arg(long)]
        browser: bool,
    },
    /// Lists the users as a backup sees them: name, kind of mailbox, licence, and the sets that back them up
    #[command(
        after_help = "Example:\n  strongroom tenant users contoso --json | jq -r '.[] | select(.sets == []).name'"
    )]
    Users {
        /// The tenant's name in the configuration
        name: String,
    },
}

impl Tenant {
    pub fn run(self, session: &Session) -> Result<Exit> {
        match self.action {
            Action::Test { name } => test::run(session, &name),
            Action::Login { name, browser } => login(session, &name, browser),
            Action::Users { name } => users::run(session, &name),
        }
    }
}

fn login(session: &Session, name: &str, in_browser: bool) -> Result<Exit> {
    let tenant = session.settings()?.tenant(name)?;
    if !matches!(tenant.credential, CredentialSettings::Login) {
        let text = format!("tenant `{name}` signs in with a secret or a certificate, and needs no login");
        return Err(UsageError::Other(text).into());
    }
    let connection = interactive(session.connection(tenant)?);
    let signed_in = block_on(async {
        match in_browser {
            true => browser::sign_in(&connection, open).await,
            // The message of the service names the page and the code, in the user's language.
            false => device::sign_in(&connection, |prompt| output::message(&prompt.message)).await,
        }
    })?;
    let signed_in = signed_in.with_context(|| format!("could not sign in to {name}"))?;
    match session.output().json {
        true => session.output().json(&json!({ "tenant": name, "scopes": signed_in.scopes }))?,
        false => line(format_args!("Signed in to {name}; `strongroom tenant test {name}` says what that allows"))?,
    }
    Ok(Exit::Done)
}

/// Opens `page` in a browser, and prints it for the case that this fails.
fn open(page: &Url) {
    output::message(format_args!("Sign in here, in a browser on this machine: {page}"));
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = |command: &mut Command| {
        command.arg(page.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    // If there is no browser, the user has the address of the page.
    if let Err(error) = quiet(&mut Command::new(opener)) {
        tracing::debug!(%error, opener, "no browser was opened");
    }
}

fn interactive(connection: Connection) -> Connection {
    Connection { retry: RetryPolicy { attempts_max: ATTEMPTS_MAX, ..connection.retry.clone() }, ..connection }
}

/// Returns the names and settings of the sets that back up from the tenant called `name`.
fn sets_of<'a>(settings: &'a Settings, name: &str) -> Vec<(&'a str, &'a SetSettings)> {
    let sets = settings.sets.iter().map(|(set, settings)| (set.as_str(), settings));
    sets.filter(|(_, settings)| settings.tenant == name).collect()
}

/// Returns whether a set takes any data of `user`, judged by names and licences.
fn takes(set: &SetSettings, user: &User) -> bool {
    (user.is_licensed() || !set.licensed_only) && set.selection.may_contain(&format!("Users/{}", user.name()))
}
