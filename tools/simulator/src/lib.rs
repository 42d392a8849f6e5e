//! A Microsoft 365 tenant on loopback.
//!
//! It speaks Microsoft Graph and the sign-in of Entra ID over plain HTTP as Microsoft's documentation describes them,
//! with mailboxes that are generated from a seed, and breaks as the real service does when told to. Tests run it in
//! their own process, on a real port; the binary `strongroom-simulator` is the same for people.
//!
//! ```
//! use strongroom_simulator::{NewMessage, Options, Organisation, Simulator};
//!
//! # fn main() -> Result<(), strongroom_simulator::StartError> {
//! let organisation = Organisation { seed: 7, users: 2, messages: 10, ..Organisation::default() };
//! let simulator = Simulator::start(Options { organisation, ..Options::default() })?;
//! // Sign in at {url}/{tenant_id}/oauth2/v2.0/token with client_id and client_secret, then ask {url}/v1.0/users.
//! assert!(simulator.url().starts_with("http://127.0.0.1:"));
//!
//! let tenant = simulator.tenant();
//! let alice = tenant.users()[0].principal_name();
//! let mime = b"Subject: Hello\r\n\r\nWorld\r\n".to_vec();
//! let id = tenant.add_message(&alice, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox");
//! tenant.move_message(&alice, &id, "archive").expect("an archive folder");
//!
//! let truth = tenant.truth(&alice).expect("a mailbox");
//! assert_eq!(truth.messages.len(), 11);
//! assert_eq!(simulator.counters().mails_sent, 0);
//! # Ok(())
//! # }
//! ```
//!
//! - [`tenant`] is what the tenant holds, and how to change it behind the clients' backs; [`truth`] reads it back;
//! - [`generate`] makes the mail, [`mime`] turns bytes into properties and back;
//! - [`server`] takes requests apart; [`directory`] and [`mail`] answer them, with [`odata`] for their options;
//! - [`auth`], [`permissions`], [`throttle`] and [`faults`] stand in front of them, [`batch`] sends requests through them;
//! - [`uploads`] and [`exchange`] take what is too large or too whole for Graph's own messages;
//! - [`counters`] counts; [`control`] is all this over HTTP.

pub mod auth;
pub mod batch;
pub mod clock;
pub mod connection;
pub mod control;
pub mod counters;
pub mod directory;
pub mod exchange;
pub mod faults;
pub mod generate;
pub mod mail;
pub mod mime;
pub mod odata;
pub mod permissions;
pub mod server;
pub mod tenant;
pub mod throttle;
pub mod truth;
pub mod uploads;

pub use auth::{Certificate, Rules};
pub use counters::Counts;
pub use faults::{Fault, Faults};
pub use generate::Organisation;
pub use tenant::{FlagStatus, Kind, Locale, NewMessage, Tenant, TenantError, Unreadable, UserSpec};
pub use throttle::Limits;
pub use truth::{TrueFolder, TrueMessage, Truth};

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::auth::Authority;
use crate::connection::{Connection, Listener};
use crate::server::State;

/// How to start a simulator.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Port on loopback; 0 takes a free one.
    pub port: u16,
    /// What the tenant holds.
    pub organisation: Organisation,
    /// How much is too much.
    pub limits: Limits,
    /// What goes wrong.
    pub faults: Faults,
    /// How the service behaves where the documentation leaves it open.
    pub switches: Switches,
    /// Certificates that the application may sign in with, beside its secret.
    pub certificates: Vec<Certificate>,
    /// What the administrator decided: permissions, policies, how long tokens live.
    pub rules: Rules,
}

/// How the service behaves where the documentation leaves it open, or where it was seen to behave so now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Switches {
    /// Every `$value` comes with other boundary strings.
    pub unstable_mime: bool,
    /// `userPurpose` is an object, as in the sample of the documentation, and no plain string.
    pub user_purpose_is_object: bool,
    /// Deltas show a move as a removal from the source folder and nothing else.
    pub moves_show_only_as_removal: bool,
    /// Deltas tell of some messages twice, and again of the last changes in the next round.
    pub duplicate_rows: bool,
    /// The first round of a delta tells of messages that were removed long ago.
    pub removed_in_first_round: bool,
    /// The first page of a round of a delta is empty and has a link to the next.
    pub empty_pages: bool,
    /// A deleted message goes to the recoverable items at once, and not to Deleted Items first.
    pub deletes_go_to_recoverable_items: bool,
    /// Attaching to a message that was just created answers 404 once.
    pub new_messages_lag: bool,
    /// Listing attachments with their contents answers 504 if these are together longer than this.
    pub attachment_list_bytes_max: Option<u64>,
    /// JSON is not compressed, even if the client would take it so.
    pub uncompressed: bool,
    /// Every export of an item has other bytes.
    pub unstable_exports: bool,
    /// Import and export are not there, as in the clouds of governments.
    pub no_import_export: bool,
    /// An import is done so many milliseconds after it was asked for, also when nobody waits for it any more.
    pub imports_take_ms: u64,
    /// Whoever waits longer for an import gets 504, and it goes on.
    pub imports_answer_within_ms: Option<u64>,
    /// URLs that carry their own permission refuse a request that carries a token as well.
    pub refuse_tokens_on_urls: bool,
    /// A link to the next page dies when the mailbox has given out this many further ones.
    pub next_links_live: Option<u64>,
}

/// Why a simulator could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The port is taken, or may not be used.
    #[error("could not listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The tenant could not be made, because its corpus could not be listed.
    #[error("could not list the corpus")]
    Corpus(#[source] std::io::Error),
    /// No thread or no event loop could be had.
    #[error("could not start the server's threads")]
    Threads(#[source] std::io::Error),
}

/// A simulator that runs until it is dropped.
#[derive(Debug)]
pub struct Simulator {
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts a simulator, and returns once it takes requests.
    ///
    /// # Errors
    /// [`StartError`] if the port is taken or the corpus cannot be listed.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let port = options.port;
        let listen = |source| StartError::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let state = Arc::new(State::new(format!("http://{address}"), options).map_err(StartError::Corpus)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("simulator")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let service = server::router(Arc::clone(&state)).into_make_service_with_connect_info::<Connection>();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the listener does not block");
                tokio::select! {
                    result = axum::serve(Listener::new(listener), service) => result.expect("serving never ends by itself"),
                    _ = stopped => {}
                }
            });
            // Connections that clients keep open would hold a graceful end up for ever.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("simulator".to_owned()).spawn(serve).map_err(StartError::Threads)?;
        Ok(Self { state, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns where sign-in and Graph are: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.state.url
    }

    /// Returns the id of the tenant.
    pub fn tenant_id(&self) -> &str {
        &self.state.tenant.id
    }

    /// Returns the id of the registered application.
    pub fn client_id(&self) -> &str {
        &self.state.authority.registration().client_id
    }

    /// Returns the secret of the registered application.
    pub fn client_secret(&self) -> &str {
        &self.state.authority.registration().secrets[0].value
    }

    /// Returns the tenant, to look at and to change it directly.
    pub fn tenant(&self) -> Arc<Tenant> {
        Arc::clone(&self.state.tenant)
    }

    /// Returns what all requests share.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns what clients did so far.
    pub fn counters(&self) -> Counts {
        self.state.counts()
    }

    /// Counts from zero again.
    pub fn reset_counters(&self) {
        self.state.reset_counts();
    }

    /// Sets how much is too much, from the next request on.
    pub fn set_limits(&self, limits: Limits) {
        self.state.throttle.set_limits(limits);
    }

    /// Sets what goes wrong, from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.faults.set(faults);
    }

    /// Sets how the service behaves, from the next request on.
    pub fn set_switches(&self, switches: Switches) {
        self.state.tenant.set_switches(switches);
    }

    /// Returns the authority: rules of sign-in, permissions, access policies.
    pub fn authority(&self) -> &Authority {
        &self.state.authority
    }

    /// Grants the application exactly these application permissions, from the next token on.
    pub fn set_permissions<'a>(&self, roles: impl IntoIterator<Item = &'a str>) {
        self.state.authority.set_permissions(roles);
    }

    /// Makes every access token useless.
    pub fn expire_tokens(&self) {
        self.state.authority.expire_tokens();
    }

    /// Makes every delta token useless.
    pub fn expire_deltas(&self) {
        self.state.tenant.expire_deltas();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
