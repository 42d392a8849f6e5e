//! A Microsoft 365 tenant on loopback.
//!
//! It serves Microsoft Graph and the sign-in of Entra ID over plain HTTP, as Microsoft's documentation describes them.
//! Its mailboxes are generated from a seed. On demand it fails as the real service does. Tests run it in their own
//! process, on a real port; the binary `strongroom-simulator` is the same for people.
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
//! - [`tenant`] holds the content, and lets tests change it without the clients' knowledge; [`truth`] reads it back;
//! - [`generate`] makes the mail and [`library`] its contents, [`mime`] converts MIME bytes to properties and back;
//! - [`server`] decodes requests; [`directory`], [`mail`], [`contacts`], [`calendar`] and [`todo`] answer them, with
//!   [`odata`] for their options, [`delta`] for what changed, and [`extended`] for MAPI properties;
//! - [`auth`], [`permissions`], [`throttle`] and [`faults`] check requests first; [`batch`] passes its requests through
//!   them;
//! - [`uploads`] takes large attachments, [`exchange`] exports and imports whole items;
//! - [`counters`] counts requests; [`control`] offers all of this to tests over HTTP.

pub mod auth;
pub mod batch;
pub mod calendar;
pub mod clock;
pub mod connection;
pub mod contacts;
pub mod control;
pub mod counters;
pub mod delta;
pub mod directory;
pub mod exchange;
pub mod extended;
pub mod faults;
pub mod generate;
pub mod library;
pub mod mail;
pub mod mime;
pub mod odata;
pub mod permissions;
pub mod server;
pub mod tenant;
pub mod throttle;
pub mod todo;
pub mod truth;
pub mod uploads;

pub use auth::{Certificate, Rules};
pub use counters::Counts;
pub use faults::{Fault, Faults};
pub use library::Organisation;
pub use mime::{Attachment, Payload};
pub use tenant::{
    CalendarFacts, FlagStatus, Kind, ListFacts, Locale, NewCalendar, NewContact, NewEvent, NewException, NewMessage,
    NewTask, Tenant, TenantError, Unreadable, UserSpec,
};
pub use throttle::Limits;
pub use truth::{
    TrueAttachment, TrueCalendar, TrueContact, TrueEvent, TrueException, TrueFolder, TrueMessage, TrueTask,
    TrueTaskList, Truth,
};

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::auth::Authority;
use crate::connection::{Connection, Listener};
use crate::server::State;

/// Options of a simulator.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Port on loopback; 0 selects a free port.
    pub port: u16,
    /// Initial content of the tenant.
    pub organisation: Organisation,
    /// Throttling limits.
    pub limits: Limits,
    /// Faults to inject.
    pub faults: Faults,
    /// How the service behaves where the documentation leaves it open.
    pub switches: Switches,
    /// Certificates with which the application may sign in, in addition to its secret.
    pub certificates: Vec<Certificate>,
    /// Decisions of the administrator: permissions, policies, lifetime of tokens.
    pub rules: Rules,
}

/// How the service behaves where the documentation leaves it open, or where it sometimes behaves in another way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Switches {
    /// Every `$value` of a message has other boundary strings.
    pub unstable_mime: bool,
    /// `userPurpose` is an object, as in the documentation's sample, not a plain string.
    pub user_purpose_is_object: bool,
    /// Deltas show a move only as a removal from the source folder.
    pub moves_show_only_as_removal: bool,
    /// Deltas report some messages twice, and repeat the last changes in the next round.
    pub duplicate_rows: bool,
    /// The first round of a delta reports messages that were removed long ago.
    pub removed_in_first_round: bool,
    /// The first page of each round of a delta is empty and links to the next page.
    pub empty_pages: bool,
    /// A deleted message or contact goes directly to the recoverable items, not to Deleted Items first.
    pub deletes_go_to_recoverable_items: bool,
    /// Attaching to a message that was just created fails once with 404, and so does giving a new contact a photo.
    pub new_messages_lag: bool,
    /// A contact whose photo changes gets a new change key, and deltas show it.
    pub photo_changes_show: bool,
    /// A change of an occurrence changes neither the change key of its series nor a delta.
    pub quiet_exceptions: bool,
    /// The delta of tasks needs the permission to write.
    pub task_delta_needs_write: bool,
    /// v1.0 knows neither `exceptionOccurrences` nor `cancelledOccurrences`, as before they came from beta.
    pub series_details_in_beta_only: bool,
    /// Number of events from which a calendar is heavy: its deltas then fail with an empty 503 if pages are longer than
    /// `heavyCalendarRows`.
    pub heavy_calendar_events: Option<u64>,
    /// Maximum length of a page of the deltas of a heavy calendar; with 0, they always fail.
    pub heavy_calendar_rows: u64,
    /// `contactFolders` lists the hidden folders that programs keep there.
    pub machine_made_contact_folders: bool,
    /// Listing attachments with their contents fails with 504 if the contents are longer than this many bytes in total.
    pub attachment_list_bytes_max: Option<u64>,
    /// JSON is not compressed, even if the client accepts compression.
    pub uncompressed: bool,
    /// Every export of an item has different bytes.
    pub unstable_exports: bool,
    /// The import and export APIs do not exist, as in government clouds.
    pub no_import_export: bool,
    /// Delay in milliseconds after which an import is done, even if the client no longer waits.
    pub imports_take_ms: u64,
    /// Milliseconds after which a client that waits for an import gets 504. The import continues.
    pub imports_answer_within_ms: Option<u64>,
    /// URLs that carry their own permission refuse a request that also has a token.
    pub refuse_tokens_on_urls: bool,
    /// Number of further links that a mailbox may issue before a link to a next page becomes invalid.
    pub next_links_live: Option<u64>,
}

/// Why a simulator could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The port is in use or not permitted.
    #[error("could not listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The tenant could not be created, because its corpus could not be listed.
    #[error("could not list the corpus")]
    Corpus(#[source] std::io::Error),
    /// A thread or the event loop could not be started.
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
    /// Starts a simulator, and returns when it accepts requests.
    ///
    /// # Errors
    /// [`StartError`] if the port is in use or the corpus cannot be listed.
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
            // A graceful shutdown would wait forever for connections that clients keep open.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("simulator".to_owned()).spawn(serve).map_err(StartError::Threads)?;
        Ok(Self { state, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the root URL of sign-in and Graph: `http://127.0.0.1:PORT`.
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

    /// Returns the tenant, to inspect and change it directly.
    pub fn tenant(&self) -> Arc<Tenant> {
        Arc::clone(&self.state.tenant)
    }

    /// Returns the state that all requests share.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns what clients did so far.
    pub fn counters(&self) -> Counts {
        self.state.counts()
    }

    /// Sets all counts to zero.
    pub fn reset_counters(&self) {
        self.state.reset_counts();
    }

    /// Sets the throttling limits, from the next request on.
    pub fn set_limits(&self, limits: Limits) {
        self.state.throttle.set_limits(limits);
    }

    /// Sets the faults to inject, from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.faults.set(faults);
    }

    /// Sets how the service behaves, from the next request on.
    pub fn set_switches(&self, switches: Switches) {
        self.state.tenant.set_switches(switches);
    }

    /// Returns the authority: the rules of sign-in, permissions, access policies.
    pub fn authority(&self) -> &Authority {
        &self.state.authority
    }

    /// Grants the application exactly these application permissions, from the next token on.
    pub fn set_permissions<'a>(&self, roles: impl IntoIterator<Item = &'a str>) {
        self.state.authority.set_permissions(roles);
    }

    /// Makes every access token invalid.
    pub fn expire_tokens(&self) {
        self.state.authority.expire_tokens();
    }

    /// Makes every delta token invalid.
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
